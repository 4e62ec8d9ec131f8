//! `parsimony params` as a user types it: the three formats, what the options change, and what is refused.

#[path = "support/program.rs"]
mod program;

use program::Place;
use serde_json::Value;

fn object(place: &Place, arguments: &[&str]) -> Value {
    let text = place.succeed(&[&["params"], arguments, &["--format", "json"]].concat());
    serde_json::from_str(&text).unwrap()
}

#[test]
fn switch_c_has_its_trillions() {
    let place = Place::new();
    let found = object(&place, &["switch-c"]);
    let count = |part: &str| found["parameters"][part].as_u64().unwrap();
    assert_eq!((count("one_expert"), found["experts_of_a_layer"].as_u64()), (25_559_040, Some(2048)));
    assert_eq!(count("total"), count("resident") + count("experts"));
    assert_eq!(found["bytes"]["bf16"].as_u64(), Some(2 * count("total")));
    assert_eq!(found["bytes"]["selective"].as_u64(), Some(2 * count("total") + 2 * count("routers")));
    let text = place.succeed(&["params", "switch-c"]);
    for part in ["active per token", "resident", "one expert", "bf16", "published convention", "as executed", "3.14"] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
}

#[test]
fn options_change_what_is_counted() {
    let place = Place::new();
    let [few, many] = ["8", "16"].map(|experts| object(&place, &["mini-switch", "--experts", experts]));
    let active = |found: &Value| found["parameters"]["active"].as_u64().unwrap();
    assert_eq!(active(&many) - active(&few), 2 * 8 * 128, "routers alone: experts cost nothing that is not asked");
    assert_eq!(many["flops"]["published"], few["flops"]["published"]);
    let long = object(&place, &["mini-switch", "--decoder-tokens", "1024"]);
    assert_eq!(long["lengths"]["decoder"], 1024);
    let single = object(&place, &["t5-base", "--precision", "f32"]);
    assert_eq!(single["bytes"].as_object().unwrap().len(), 1);
}

#[test]
fn all_presets_are_a_table_of_any_kind() {
    let place = Place::new();
    let text = place.succeed(&["params", "--format", "csv"]);
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap().split(',').collect();
    assert!(header.starts_with(&["preset", "parameters_total", "parameters_active"]), "{header:?}");
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    assert!(rows.len() > 10 && rows.iter().all(|row| row.len() == header.len()));
    assert!(rows.iter().any(|row| row[0] == "switch-xxl"));
    let all: Value = serde_json::from_str(&place.succeed(&["params", "--format", "json"])).unwrap();
    assert_eq!(all.as_array().unwrap().len(), rows.len());
    assert!(place.succeed(&["params"]).contains("switch-large"));
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let place = Place::new();
    for (arguments, finding) in [
        (&["switch-bse"][..], "did you mean `switch-base`?"),
        (&["switch-base", "--experts", "0"], "experts = 0"),
        (&["t5-base", "--experts", "4"], "no Switch layer"),
        (&["mini-decoder", "--encoder-tokens", "5"], "5 tokens in the encoder"),
        (&["mini-decoder", "--vocabulary", "0"], "vocabulary = 0"),
    ] {
        let message = place.fail(2, &[&["params"], arguments].concat());
        assert!(message.contains(finding), "{message}");
    }
}
