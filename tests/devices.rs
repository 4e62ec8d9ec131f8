//! Asking for a device: words that are none, GPUs that are not there, and what `auto` says that it is.

#[path = "support/program.rs"]
mod program;

use program::Place;
use serde_json::Value;

const EXPERIMENT: &str = r#"
    budget = "2 steps"
    [[dataset]]
    name = "higgs-sim"
    rows = 500
    [[model]]
    name = "mlp"
    hidden = "4"
    [[model]]
    name = "logistic"
    [[optimizer]]
    name = "adamw"
"#;

fn doctor(place: &Place) -> Value {
    serde_json::from_str(&place.succeed(&["doctor", "--format", "json"])).expect("JSON")
}

#[test]
fn words_that_name_no_device_are_refused_with_those_that_do() {
    let place = Place::new();
    place.write("a.toml", EXPERIMENT);
    for word in ["gpu", "cuda:", "cuda:-1", "cuda:x"] {
        let message = place.fail(2, &["run", "a.toml", "--device", word]);
        assert!(message.contains("\"cpu\", \"cuda\", \"cuda:N\" or \"auto\""), "{message}");
    }
    place.write("b.toml", format!("device = \"tpu\"\n{EXPERIMENT}"));
    let message = place.fail(2, &["run", "b.toml"]);
    assert!(
        message.contains("b.toml") && message.contains("line 1") && message.contains("`device` takes"),
        "{message}"
    );
}

#[test]
fn a_gpu_that_is_not_there_is_an_error_in_words_and_nothing_runs() {
    let place = Place::new();
    place.write("a.toml", EXPERIMENT);
    place.write("b.toml", format!("device = \"cuda:4000\"\n{EXPERIMENT}"));
    for arguments in
        [&["run", "a.toml", "--device", "cuda:4000"][..], &["tune", "b.toml", "--seconds", "1"], &["run", "b.toml"]]
    {
        let message = place.fail(2, arguments);
        assert!(message.contains("device cuda:4000: ") && message.contains("--device cpu"), "{message}");
        assert!(!place.path().join("runs").exists(), "{arguments:?}");
    }
    // A flag goes before the file.
    place.succeed(&["run", "b.toml", "--device", "cpu", "--quiet"]);
}

#[test]
fn doctor_says_what_is_there_and_auto_takes_it() {
    let place = Place::new();
    place.write("a.toml", EXPERIMENT);
    let cuda = &doctor(&place)["cuda"];
    let text = place.succeed(&["doctor"]);
    let Some(obstacle) = cuda["obstacle"].as_str() else {
        assert!(text.contains("usable: --device cuda"), "{text}");
        return;
    };
    assert!(text.contains(&format!("no GPU can be used: {obstacle}")), "{text}");
    let output = place.output(&["run", "a.toml", "--device", "auto"]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && message.contains(&format!("the CPU, because {obstacle}")), "{message}");
    // The same cells as without asking.
    assert!(!place.output(&["run", "a.toml", "--device", "cuda"]).status.success());
    let output = place.output(&["run", "a.toml"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("0 cells run, 2 done before"), "{output:?}");
}
