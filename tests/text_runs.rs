//! Language models through the whole program: the same numbers at any number of threads and after any pause, whatever noise the
//! model draws; losses by kind and bits per character in every record.

#[path = "support/program.rs"]
mod program;

use program::Place;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// What is measured and not computed.
const MEASURED: [&str; 8] = [
    "setup_seconds",
    "train_seconds",
    "evaluation_seconds",
    "record_seconds",
    "wall_seconds",
    "time_to_target_seconds",
    "peak_resident_bytes",
    "peak_anonymous_bytes",
];

fn experiment(budget: &str, threads: usize) -> String {
    format!(
        "budget = ['{budget}', '60 steps']\nthreads = {threads}\nevaluate = 'every 20 steps'\nreport = 'best-validation'\n\
         [[dataset]]\nname = 'small-language'\nlength = 30_000\nfacts = 20\nevaluation_tokens = 1000\n\
         [[model]]\nname = 'transformer'\npreset = 'micro-switch'\ncontext = 32\ndropout = 0.1\njitter = 0.01\n\
         [[optimizer]]\nname = 'adamw'\nlearning_rate = 0.01\nbatch_size = 16\n"
    )
}

fn cell(run: &Path) -> PathBuf {
    fs::read_dir(run.join("cells")).unwrap().next().unwrap().unwrap().path()
}

/// A cell's result without what is measured, and its weights.
fn numbers(run: &Path) -> (Value, Vec<u8>) {
    let folder = cell(run);
    let mut result: Value = serde_json::from_slice(&fs::read(folder.join("result.json")).unwrap()).unwrap();
    result.as_object_mut().unwrap().retain(|key, _| !MEASURED.contains(&key.as_str()) && key != "cell");
    (result, fs::read(folder.join("weights.safetensors")).unwrap())
}

#[test]
fn a_paused_cell_ends_with_the_numbers_of_one_that_was_not() {
    let place = Place::new();
    let run = |budget: &str, threads: usize, out: &str| {
        place.write("words.toml", experiment(budget, threads));
        place.succeed(&["run", "words.toml", "--out", out]);
        place.path().join(out)
    };
    let whole = numbers(&run("1000s", 1, "whole"));
    assert_eq!(whole.0["status"], "finished");
    // Out of seconds somewhere on the way (or, on a fast machine, not at all), and on with more of them.
    let status = |run: &Path| {
        let result: Value = serde_json::from_slice(&fs::read(cell(run).join("result.json")).unwrap()).unwrap();
        result["status"].clone()
    };
    let first = status(&run("0.05s", 1, "paused"));
    assert!(first == "timed-out" || first == "finished", "{first}");
    let paused = numbers(&run("1000s", 1, "paused"));
    assert_eq!(paused.0, whole.0);
    assert!(paused.1 == whole.1, "weights differ");
    let two = numbers(&run("1000s", 2, "threads"));
    assert_eq!(two.0, whole.0);
    assert!(two.1 == whole.1, "weights differ between one thread and two");
}

#[test]
fn losses_by_kind_are_in_every_record() {
    let place = Place::new();
    place.write("words.toml", experiment("1000s", 2));
    place.succeed(&["run", "words.toml"]);
    let cells = place.cells("words");
    let keys = ["bits_per_character", "grammar_loss", "fact_loss", "sum_loss"];
    for key in ["validation", "test"].iter().flat_map(|part| keys.map(|key| format!("{part}_{key}"))) {
        assert!(cells[0][&key].as_f64().is_some_and(|value| value > 0.0), "{key}: {}", cells[0]);
    }
    let table = place.succeed(&["summary", "runs/words"]);
    for title in ["tokens", "bits per character", "on facts", "on sums"] {
        assert!(table.contains(title), "{title} is missing in {table}");
    }
    let csv = place.succeed(&["summary", "runs/words", "--format", "csv"]);
    assert!(csv.lines().next().is_some_and(|header| header.contains("test_fact_loss")), "{csv}");
    let config: Value =
        serde_json::from_slice(&fs::read(cell(&place.path().join("runs/words")).join("config.json")).unwrap()).unwrap();
    assert_eq!((&config["dataset"]["text"], &config["dataset"]["rows"]), (&true.into(), &[27_000, 1500, 1500].into()));
    assert_eq!(config["dataset"]["source"]["corpus"]["facts"], 20);
}
