//! What a run must hold whatever happens: the same numbers at any number of threads and after any kill, nothing recorded
//! lost, and a clock whose parts add up.

#[path = "support/program.rs"]
mod program;

use polars::prelude::{DataFrame, ParquetReader, SerReader};
use program::Place;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// What is measured and not computed.
const MEASURED: [&str; 9] = [
    "setup_seconds",
    "train_seconds",
    "evaluation_seconds",
    "record_seconds",
    "wall_seconds",
    "time_to_target_seconds",
    "peak_resident_bytes",
    "peak_anonymous_bytes",
    "resident_bytes",
];

/// Cells of all four optimizers, each of which takes long enough to be interrupted. With `threads` rows are enough for
/// several chunks, so that threads could make a difference.
fn experiment(rows: usize, threads: usize, sgd_passes: usize) -> String {
    format!(
        r#"
        seeds = [1, 2]
        threads = {threads}
        report = "best-validation"
        evaluate = "every 2 passes"
        budget = "{sgd_passes} passes"
        target = {{ metric = "validation_accuracy", value = 0.6 }}
        [[dataset]]
        name = "higgs-sim"
        rows = {rows}
        [[model]]
        name = "logistic"
        features = "squares"
        [[optimizer]]
        name = "sgd"
        learning_rate = 0.01
        average = true
        batch_size = 64
        [[optimizer]]
        name = "irls"
        tolerance = 0.0
        [[optimizer]]
        name = "admm"
        budget = "100 passes"
        [[optimizer]]
        name = "hessian-free"
        curvature_rows = 1000
        backtracking_rows = 2000
        budget = "60 passes"
        "#
    )
}

fn cell_folders(run: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<_> = fs::read_dir(run.join("cells")).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

/// The rows of a cell's trace without what is measured, as text: equal text is equal bits.
fn trace(cell: &Path) -> String {
    let file = fs::File::open(cell.join("trace.parquet")).unwrap();
    let frame: DataFrame = ParquetReader::new(file).finish().unwrap();
    let mut text = String::new();
    for column in frame.columns().iter().filter(|column| !MEASURED.contains(&column.name().as_str())) {
        text.push_str(column.name());
        match column.f64() {
            Ok(values) => values.iter().for_each(|v| text.push_str(&format!(" {:x?}", v.map(f64::to_bits)))),
            Err(_) => column.u64().unwrap().iter().for_each(|v| text.push_str(&format!(" {v:?}"))),
        }
        text.push('\n');
    }
    text
}

/// Everything about a finished cell that must not depend on chance: result, trace and weights, by what the cell is.
fn numbers(run: &Path) -> BTreeMap<String, (Value, String, Vec<u8>)> {
    let mut all = BTreeMap::new();
    for folder in cell_folders(run) {
        let text = fs::read_to_string(folder.join("result.json")).unwrap();
        let mut result: Value = serde_json::from_str(&text).unwrap();
        let key = format!("{} seed {}", result["optimizer"], result["seed"]);
        let object = result.as_object_mut().unwrap();
        object.retain(|name, _| !MEASURED.contains(&name.as_str()) && name != "cell");
        all.insert(key, (result, trace(&folder), fs::read(folder.join("weights.safetensors")).unwrap()));
    }
    all
}

#[test]
fn one_thread_and_two_give_the_same_bits() {
    let place = Place::new();
    for threads in [1, 2] {
        let file = place.write(&format!("threads-{threads}.toml"), experiment(20_000, threads, 4));
        place.succeed(&["run", file.to_str().unwrap()]);
    }
    let run = |threads: usize| numbers(&place.path().join(format!("runs/threads-{threads}")));
    let (mut one, mut two) = (run(1), run(2));
    assert_eq!(one.len(), 6);
    for cells in [&mut one, &mut two] {
        for (result, _, _) in cells.values_mut() {
            result.as_object_mut().unwrap().remove("experiment");
        }
    }
    for (name, cell) in &one {
        assert_eq!(cell.0, two[name].0, "{name}");
        assert!(cell == &two[name], "{name}: trace or weights differ");
    }
}

#[test]
fn the_parts_of_the_clock_add_up_to_wall_time() {
    let place = Place::new();
    let file = place.write("clock.toml", experiment(20_000, 2, 20));
    let started = Instant::now();
    place.succeed(&["run", file.to_str().unwrap()]);
    let elapsed = started.elapsed().as_secs_f64();
    let mut sum = 0.0;
    for cell in place.cells("clock") {
        let seconds = |key: &str| cell[key].as_f64().unwrap();
        let parts = ["setup_seconds", "train_seconds", "evaluation_seconds", "record_seconds"].map(seconds);
        let wall = seconds("wall_seconds");
        let added: f64 = parts.iter().sum();
        assert!((added / wall - 1.0).abs() < 0.02, "{parts:?} do not add up to {wall}");
        assert!(parts.iter().all(|part| *part > 0.0), "{parts:?}");
        sum += wall;
    }
    assert!(sum < elapsed, "cells ran for {sum} s within {elapsed} s");
}

fn wait(child: &mut Child, limit: Duration) -> bool {
    let started = Instant::now();
    while started.elapsed() < limit {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    false
}

/// A number in [0, 1), the same in every run of the test.
fn draw(state: &mut u64) -> f64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as f64 / (1_u64 << 31) as f64
}

#[test]
fn twenty_kills_lose_no_finished_cell_and_change_no_number() {
    let place = Place::new();
    let text = experiment(20_000, 2, 30);
    let calm = place.write("calm.toml", format!("name = \"calm\"\n{text}"));
    let started = Instant::now();
    place.succeed(&["run", calm.to_str().unwrap()]);
    let whole = started.elapsed().as_secs_f64();

    let stormy = place.write("stormy.toml", format!("name = \"stormy\"\n{text}"));
    let run = place.path().join("runs/stormy");
    let mut state = 20;
    let mut finished: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    let mut kills = 0;
    while kills < 20 {
        let mut command = place.command(&["run", stormy.to_str().unwrap(), "--quiet"]);
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let moment = Duration::from_secs_f64(draw(&mut state) * whole / 4.0);
        if wait(&mut child, moment) {
            // Done before its time: everything is thrown away and the next round begins.
            assert_eq!(numbers_without_name(&run), numbers_without_name(&place.path().join("runs/calm")));
            fs::remove_dir_all(&run).unwrap();
            finished.clear();
            continue;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        // The processes of cells die with the one that started them.
        std::thread::sleep(Duration::from_millis(50));
        if !run.join("cells").exists() {
            continue;
        }
        for folder in cell_folders(&run) {
            if let Ok(result) = fs::read(folder.join("result.json")) {
                let whole: Value = serde_json::from_slice(&result).expect("a result with its final name is whole");
                assert_eq!(whole["status"], "finished");
                finished.entry(folder).or_insert(result);
            }
        }
        for (folder, result) in &finished {
            assert!(
                fs::read(folder.join("result.json")).ok().as_ref() == Some(result),
                "{folder:?} was lost or redone"
            );
        }
    }
    place.succeed(&["run", stormy.to_str().unwrap()]);
    for (folder, result) in &finished {
        assert!(fs::read(folder.join("result.json")).ok().as_ref() == Some(result), "{folder:?} was redone");
    }
    assert_eq!(numbers_without_name(&run), numbers_without_name(&place.path().join("runs/calm")));
}

/// [`numbers`] without the experiment's name, and with a digest in place of long parts.
fn numbers_without_name(run: &Path) -> BTreeMap<String, (Value, String, Vec<u8>)> {
    let mut all = numbers(run);
    for (result, _, _) in all.values_mut() {
        result.as_object_mut().unwrap().remove("experiment");
    }
    all
}

#[test]
fn an_interrupted_cell_goes_on_from_its_checkpoint() {
    let place = Place::new();
    let text = r#"
        threads = 1
        budget = "60 passes"
        [[dataset]]
        name = "higgs-sim"
        rows = 20000
        [[model]]
        name = "logistic"
        [[optimizer]]
        name = "sgd"
        batch_size = 8
        learning_rate = 0.001
        average = true
        "#;
    let calm = place.write("calm.toml", text);
    place.succeed(&["run", calm.to_str().unwrap()]);
    let file = place.write("stopped.toml", text);
    let mut child = place.command(&["run", file.to_str().unwrap()]).stderr(Stdio::piped()).spawn().unwrap();
    // As soon as it trains: its folder is there.
    let run = place.path().join("runs/stopped");
    let started = Instant::now();
    while !run.join("cells").exists() || cell_folders(&run).iter().all(|cell| !cell.join("environment.json").exists()) {
        assert!(started.elapsed() < Duration::from_secs(60), "nothing begins");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(300));
    // SAFETY: a signal to a child that has not been waited for.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) };
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let cells = place.cells("stopped");
    assert_eq!(cells[0]["status"], "interrupted");
    assert!(cell_folders(&run)[0].join("checkpoint.safetensors").exists());
    // What is there so far can be looked at.
    place.succeed(&["report", "runs/stopped"]);

    place.succeed(&["run", file.to_str().unwrap()]);
    let log = fs::read_to_string(cell_folders(&run)[0].join("log.txt")).unwrap();
    assert!(log.contains("going on from step"), "{log}");
    assert!(!cell_folders(&run)[0].join("checkpoint.safetensors").exists());
    assert_eq!(numbers_without_name(&run), numbers_without_name(&place.path().join("runs/calm")));
}

#[test]
fn finished_cells_are_not_run_again_unless_asked() {
    let place = Place::new();
    let file = place.write("twice.toml", experiment(3000, 1, 2));
    let path = file.to_str().unwrap();
    place.succeed(&["run", path]);
    let results = |place: &Place| -> Vec<Vec<u8>> {
        let folders = cell_folders(&place.path().join("runs/twice"));
        folders.iter().map(|cell| fs::read(cell.join("result.json")).unwrap()).collect()
    };
    let first = results(&place);
    let output = place.output(&["run", path]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("0 cells run, 6 done before"), "{output:?}");
    assert_eq!(results(&place), first);
    // A changed label is taken over without a run; another setting makes another cell, and the old one is kept.
    place.write("twice.toml", experiment(3000, 1, 2).replace("name = \"irls\"", "name = \"irls\"\nlabel = \"Newton\""));
    let output = place.output(&["run", path]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("0 cells run, 6 done before"), "{output:?}");
    assert!(place.cells("twice").iter().any(|cell| cell["optimizer"] == "Newton"));
    place.write("twice.toml", experiment(3000, 1, 2).replace("tolerance = 0.0", "tolerance = 1e-6"));
    let output = place.output(&["run", path]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("1 cell run, 5 done before"), "{output:?}");
    assert_eq!(place.cells("twice").len(), 6);
    assert_eq!(fs::read_dir(place.path().join("runs/twice/earlier")).unwrap().count(), 1);
    let output = place.output(&["run", path, "--force"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("6 cells run, 0 done before"), "{output:?}");
}
