//! Tuning: equal trials and seconds, the same choice from the same seed whatever is killed, and never a test row.

#[path = "support/program.rs"]
mod program;

use program::Place;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

fn experiment(rows: usize, passes: usize, trials: usize) -> String {
    format!(
        r#"# What is compared.
question = "Which settings?"
threads = 1
budget = ["60s", "{passes} passes"] # both limits

[[dataset]]
name = "higgs-sim"
rows = {rows}

[[model]]
name = "logistic"

# The favourite.
[[optimizer]]
name = "sgd" # plain
momentum = 0.5 # searched
batch_size = 64

[[optimizer]]
name = "sgd"
label = "averaged"
average = true

[[optimizer]]
name = "irls"

[tune]
trials = {trials}
metric = "validation_loss"

[tune.ranges.sgd]
learning_rate = {{ from = 1e-3, to = 10, log = true }}
batch_size = "fixed"
schedule = ["constant", "cosine"]

[[expect]]
that = "mean(irls.test_loss) <= mean(averaged.test_loss)"
"#
    )
}

fn record(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("tune.json")).expect("a record")).expect("JSON")
}

/// What was chosen, by label.
fn chosen(folder: &Path) -> BTreeMap<String, Value> {
    let record = record(folder);
    let one = |tuned: &Value| {
        let index = tuned["chosen"].as_u64().expect("a choice") as usize;
        (tuned["label"].as_str().unwrap().to_owned(), tuned["trials"][index]["settings"].clone())
    };
    record["optimizers"].as_array().unwrap().iter().map(one).collect()
}

#[test]
fn the_same_seed_chooses_the_same_settings_and_everyone_has_the_same_trials() {
    let place = Place::new();
    let file = place.write("mine.toml", experiment(3000, 4, 6));
    let path = file.to_str().unwrap();
    let said = place.succeed(&["tune", path, "--quiet"]);
    assert!(said.contains("No trial was cut by its seconds"), "{said}");
    let first = place.path().join("runs/mine-tune");
    place.succeed(&["tune", path, "--quiet", "--out", "again"]);
    assert_eq!(chosen(&first), chosen(&place.path().join("again")));
    place.succeed(&["tune", path, "--quiet", "--out", "other", "--seed", "2"]);
    assert_ne!(chosen(&first), chosen(&place.path().join("other")));

    let record = record(&first);
    let optimizers = record["optimizers"].as_array().unwrap();
    let trials: Vec<_> = optimizers.iter().map(|tuned| tuned["trials"].as_array().unwrap().len()).collect();
    // What has nothing to search is tried once.
    assert_eq!(trials, [6, 6, 1]);
    let budgets: Vec<Value> = cells(&first).values().map(|(config, _)| config["budget"]["seconds"].clone()).collect();
    assert!(budgets.len() == 13 && budgets.iter().all(|seconds| *seconds == 60.0));

    // The choice is the smallest validation loss of the cells.
    for tuned in optimizers {
        let losses = tuned["trials"].as_array().unwrap().iter().map(|trial| {
            let cell = &cells(&first)[trial["cells"][0].as_str().unwrap()];
            cell.1["validation_loss"].as_f64().unwrap_or(f64::INFINITY)
        });
        let losses: Vec<f64> = losses.collect();
        let best = losses[tuned["chosen"].as_u64().unwrap() as usize];
        assert!(losses.iter().all(|loss| best <= *loss), "{tuned}");
    }
    for name in ["sensitivity-sgd.svg", "sensitivity-sgd.png", "sensitivity-averaged.svg"] {
        assert!(first.join(name).exists(), "{name}");
    }
}

/// Config and result of every cell by its ID.
fn cells(folder: &Path) -> BTreeMap<String, (Value, Value)> {
    let json = |path: PathBuf| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let entries = fs::read_dir(folder.join("cells")).unwrap().map(|entry| entry.unwrap().path());
    let one = |cell: PathBuf| {
        let id = cell.file_name().unwrap().to_str().unwrap().to_owned();
        (id, (json(cell.join("config.json")), json(cell.join("result.json"))))
    };
    entries.map(one).collect()
}

#[test]
fn test_rows_are_never_opened_and_the_chosen_file_keeps_its_comments_and_runs() {
    let place = Place::new();
    let file = place.write("mine.toml", experiment(2000, 2, 3));
    place.succeed(&["tune", file.to_str().unwrap(), "--quiet"]);
    let folder = place.path().join("runs/mine-tune");
    for (config, result) in cells(&folder).values() {
        assert_eq!(config["withhold_test"], true);
        for metric in ["test_loss", "test_accuracy", "test_auc"] {
            assert!(result[metric].is_null(), "{result}");
        }
    }
    let text = fs::read_to_string(folder.join("chosen.toml")).unwrap();
    for kept in ["# What is compared.", "# both limits", "# The favourite.", "# plain", "# searched", "batch_size = 64"]
    {
        assert!(text.contains(kept), "{kept}: {text}");
    }
    assert!(text.contains("name = \"mine-tuned\"") && !text.contains("momentum = 0.5 "), "{text}");
    place.succeed(&["run", "runs/mine-tune/chosen.toml", "--quiet"]);
    let run = place.cells("mine-tuned");
    assert!(run.len() == 3 && run.iter().all(|cell| cell["test_accuracy"].is_f64()));
    for (label, settings) in chosen(&folder) {
        let cell = program::cell(&run, &label);
        for (name, value) in settings.as_object().unwrap() {
            assert_eq!(&cell["hyperparameters"][name], value, "{label} {name}");
        }
    }
}

/// Whether a process ends within a time.
fn ends_within(child: &mut Child, time: Duration) -> bool {
    let started = Instant::now();
    while started.elapsed() < time {
        if child.try_wait().expect("a child").is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    false
}

#[test]
fn kills_at_any_moment_lose_no_finished_trial_and_change_no_choice() {
    let place = Place::new();
    let text = experiment(10_000, 30, 6);
    let calm = place.write("calm.toml", &text);
    let started = Instant::now();
    place.succeed(&["tune", calm.to_str().unwrap(), "--quiet"]);
    let whole = started.elapsed().as_secs_f64();
    let stormy = place.write("stormy.toml", &text);
    let folder = place.path().join("runs/stormy-tune");
    let mut finished: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let (mut state, mut kills) = (11_u64, 0);
    while kills < 12 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let moment = Duration::from_secs_f64((state >> 33) as f64 / (1_u64 << 31) as f64 * whole / 3.0);
        let mut command = place.command(&["tune", stormy.to_str().unwrap(), "--quiet"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        if ends_within(&mut child, moment) {
            assert_eq!(chosen(&folder), chosen(&place.path().join("runs/calm-tune")));
            fs::remove_dir_all(&folder).unwrap();
            finished.clear();
            continue;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        std::thread::sleep(Duration::from_millis(50));
        let Ok(entries) = fs::read_dir(folder.join("cells")) else { continue };
        for cell in entries.map(|entry| entry.unwrap()) {
            if let Ok(result) = fs::read(cell.path().join("result.json")) {
                finished.entry(cell.file_name().to_str().unwrap().to_owned()).or_insert(result);
            }
        }
    }
    place.succeed(&["tune", stormy.to_str().unwrap(), "--quiet"]);
    for (cell, result) in &finished {
        assert!(fs::read(folder.join("cells").join(cell).join("result.json")).unwrap() == *result, "{cell} was redone");
    }
    assert_eq!(chosen(&folder), chosen(&place.path().join("runs/calm-tune")));
}

#[test]
fn a_choice_that_the_seconds_decided_is_called_one() {
    let place = Place::new();
    let text = experiment(4000, 100_000, 2).replace("[tune]", "[tune]\nseconds = 0.05");
    let file = place.write("cut.toml", text);
    let said = place.succeed(&["tune", file.to_str().unwrap(), "--quiet"]);
    assert!(said.contains("4 of 5 trials were cut by their 0.05s"), "{said}");
    assert_eq!(record(&place.path().join("runs/cut-tune"))["cut_by_seconds"], 4);
}

#[test]
fn what_cannot_be_tuned_is_refused_with_its_place() {
    let place = Place::new();
    let tune = |from: &str, to: &str| {
        let text = experiment(1000, 1, 2);
        assert!(text.contains(from), "{from}");
        let file = place.write("bad.toml", text.replace(from, to));
        place.fail(2, &["tune", file.to_str().unwrap()])
    };
    for (from, to, said) in [
        ("metric = \"validation_loss\"", "metric = \"test_loss\"", "nothing is chosen on test rows"),
        ("[tune.ranges.sgd]", "[tune.ranges.sgdd]", "no optimizer of the file has this name"),
        ("learning_rate = {", "learning_rat = {", "did you mean `learning_rate`"),
        ("to = 10, log", "to = 1e-4, log", "`from` below `to`"),
        ("batch_size = 64", "batch_size = [64, 128]", "`batch_size` has 2 values and is not searched"),
        ("budget = [\"60s\", \"1 passes\"]", "budget = \"1 pass\"", "how many seconds a trial has"),
        ("[tune]", "[tune]\ntrails = 3", "there is no key `trails`"),
        (
            "rows = 1000",
            "rows = 1000\nsplit = { fractions = { train = 0.5, validation = 0.0, test = 0.5 } }",
            "no validation rows",
        ),
    ] {
        let message = tune(from, to);
        assert!(message.contains(said) && message.contains("bad"), "{said}: {message}");
    }
    let table =
        place.succeed(&["tune", place.write("dry.toml", experiment(1000, 1, 2)).to_str().unwrap(), "--dry-run"]);
    assert!(table.contains("learning_rate from 0.001 to 10 (log)") && table.contains("5 cells in"), "{table}");
}
