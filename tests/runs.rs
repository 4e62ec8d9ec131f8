//! What a run must hold whatever happens: the same numbers at any number of threads and after any kill, nothing recorded
//! lost, a clock whose parts add up, and a summary that says what was run.

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

/// One cell that takes some seconds over many small steps.
fn slow_sgd(budget: &str) -> String {
    format!(
        r#"
        threads = 1
        budget = ["{budget}"]
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

/// The seconds of a cell's result: the four parts together, and the wall time.
fn parts_and_wall(cell: &Path) -> (f64, f64) {
    let result: Value = serde_json::from_slice(&fs::read(cell.join("result.json")).unwrap()).unwrap();
    let seconds = |key: &str| result[key].as_f64().unwrap();
    let parts = ["setup_seconds", "train_seconds", "evaluation_seconds", "record_seconds"].map(seconds);
    (parts.iter().sum(), seconds("wall_seconds"))
}

/// A cell's own process, timed from outside; interrupted after `limit`, if there is one.
fn time_cell(place: &Place, cell: &Path, limit: Option<Duration>) -> f64 {
    let mut command = place.command(&["cell", "--dir", cell.to_str().unwrap()]);
    command.env("RAYON_NUM_THREADS", "1").env("OPENBLAS_NUM_THREADS", "1");
    let started = Instant::now();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    if let Some(limit) = limit {
        assert!(!wait(&mut child, limit), "the cell is done before it could be interrupted");
        signal(child.id(), libc::SIGINT);
    }
    assert!(child.wait().unwrap().success());
    started.elapsed().as_secs_f64()
}

#[test]
fn the_clock_agrees_with_one_outside_the_process_and_goes_on_with_a_resumed_cell() {
    let place = Place::new();
    let file = place.write("timed.toml", slow_sgd("60 passes"));
    place.succeed(&["run", file.to_str().unwrap()]);
    let cell = &cell_folders(&place.path().join("runs/timed"))[0];
    let of_run = |name: &str| fs::read(cell.join(name)).unwrap();
    let (numbers, weights) = (trace(cell), of_run("weights.safetensors"));
    // Starting and ending a process is outside its own clock.
    let agrees = |wall: f64, outside: f64| (0.0..0.02 * outside + 0.25).contains(&(outside - wall));

    fs::remove_file(cell.join("result.json")).unwrap();
    let outside = time_cell(&place, cell, None);
    let (parts, wall) = parts_and_wall(cell);
    assert!((parts / wall - 1.0).abs() < 0.02 && agrees(wall, outside), "{parts}, {wall}, from outside {outside}");

    fs::remove_file(cell.join("result.json")).unwrap();
    let first = time_cell(&place, cell, Some(Duration::from_secs_f64(outside / 2.0)));
    assert!(cell.join("checkpoint.safetensors").exists());
    let (parts, wall) = parts_and_wall(cell);
    assert!((parts / wall - 1.0).abs() < 0.02 && agrees(wall, first), "{parts}, {wall}, from outside {first}");
    fs::remove_file(cell.join("result.json")).unwrap();
    let both = first + time_cell(&place, cell, None);
    let (parts, wall) = parts_and_wall(cell);
    // The first attempt's last evaluation is after its checkpoint: the second makes it again.
    let agrees = (0.0..0.02 * both + 0.5).contains(&(both - wall));
    assert!((parts / wall - 1.0).abs() < 0.02 && agrees, "{parts}, {wall}, from outside {both}");
    assert!(trace(cell) == numbers && of_run("weights.safetensors") == weights);
}

#[test]
fn a_target_is_timed_where_it_is_first_reached_and_missed_for_good_otherwise() {
    let place = Place::new();
    for (name, value) in [("hit", 0.6), ("miss", 0.99)] {
        let text = experiment(3000, 1, 4).replace("value = 0.6 ", &format!("value = {value} "));
        let file = place.write(&format!("{name}.toml"), text);
        place.succeed(&["run", file.to_str().unwrap()]);
    }
    for cell in cell_folders(&place.path().join("runs/hit")) {
        let result: Value = serde_json::from_slice(&fs::read(cell.join("result.json")).unwrap()).unwrap();
        let frame = ParquetReader::new(fs::File::open(cell.join("trace.parquet")).unwrap()).finish().unwrap();
        let column = |name: &str| frame.column(name).unwrap().f64().unwrap().clone();
        let (accuracy, seconds) = (column("validation_accuracy"), column("train_seconds"));
        let first = accuracy.iter().position(|accuracy| accuracy.unwrap() >= 0.6).expect("the target is reached");
        assert!(accuracy.get(0).unwrap() < 0.6 && first > 0);
        assert_eq!(result["time_to_target_seconds"].as_f64(), seconds.get(first), "{result}");
    }
    for cell in place.cells("miss") {
        assert!(cell["time_to_target_seconds"].is_null() && cell["status"] == "finished", "{cell}");
    }
    // Beside the note that explains the sign, each miss has one.
    let misses = |run: &str| place.succeed(&["summary", run]).matches('∞').count() - 1;
    assert_eq!((misses("runs/hit"), misses("runs/miss")), (0, 4));
}

#[test]
fn folds_and_seeds_of_a_file_are_medians_of_one_dataset() {
    let place = Place::new();
    place.succeed(&["data", "generate", "--rows", "1000", "--out", "events.csv"]);
    let file = place.write(
        "folded.toml",
        r#"
        seeds = [1, 2]
        folds = "all"
        budget = "2 passes"
        [[dataset]]
        path = "events.csv"
        split = { folds = { count = 3 } }
        [[model]]
        name = "logistic"
        [[optimizer]]
        name = "irls"
        [[optimizer]]
        name = "sgd"
        "#,
    );
    place.succeed(&["run", file.to_str().unwrap()]);
    assert_eq!(place.cells("folded").len(), 9);
    let table = place.succeed(&["summary", "runs/folded"]);
    assert_eq!(table.matches("events.csv, 1,000 rows · logistic · 29 parameters").count(), 1, "{table}");
    assert_eq!(table.matches("parameters").count(), 1, "one dataset, one table: {table}");
    assert!(table.contains("Medians of 3 folds with 1 to 2 seeds each"), "{table}");
    let all = place.succeed(&["summary", "runs/folded", "--all"]);
    assert!(all.contains("fold") && all.lines().filter(|line| line.contains("sgd")).count() == 6, "{all}");
    let drawn = place.succeed(&["report", "runs/folded"]);
    assert!(drawn.contains("plots/folded/accuracy-time.svg\n"), "one dataset, no figure per fold: {drawn}");

    // Two splits of one file have short names.
    let text = fs::read_to_string(&file).unwrap().replace("folds = \"all\"", "");
    let second = "[[dataset]]\npath = \"events.csv\"\nsplit = { last = { test = 200, validation = 100 } }\n[[model]]";
    let file = place.write("two.toml", text.replace("[[model]]", second));
    place.succeed(&["run", file.to_str().unwrap()]);
    let table = place.succeed(&["summary", "runs/two"]);
    assert!(table.contains("events.csv, split 3 folds, 1,000 rows · "), "{table}");
    assert!(table.contains("events.csv, split last 100/200, 1,000 rows · "), "{table}");

    // Two runs of one experiment have a report each.
    place.succeed(&["run", file.to_str().unwrap(), "--out", "runs/again"]);
    let drawn = place.succeed(&["report", "runs/two", "runs/again/"]);
    assert!(drawn.contains("plots/two/summary.md") && drawn.contains("plots/again/summary.md"), "{drawn}");
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

/// A signal to a process that has not been waited for.
fn signal(process: u32, signal: libc::c_int) {
    // SAFETY: `kill` reads no memory; the process is our own child, or one of its children.
    unsafe { libc::kill(process as libc::pid_t, signal) };
}

/// The process that a run has started for a cell, if there is one now.
fn process_of_a_cell(run: u32) -> Option<u32> {
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let is_child = status
            .lines()
            .any(|line| line.strip_prefix("PPid:").is_some_and(|parent| parent.trim().parse() == Ok(run)));
        if is_child && fs::read(entry.path().join("cmdline")).is_ok_and(|line| line.starts_with(b"parsimony\0cell\0")) {
            return Some(process);
        }
    }
    None
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
fn a_cell_whose_process_is_killed_has_failed_and_is_healed_by_the_next_run() {
    let place = Place::new();
    let text = experiment(20_000, 2, 30);
    let calm = place.write("calm.toml", &text);
    place.succeed(&["run", calm.to_str().unwrap()]);
    let file = place.write("struck.toml", &text);
    let run = place.path().join("runs/struck");
    let (mut state, mut failures) = (7, 0);
    for _ in 0..4 {
        let mut command = place.command(&["run", file.to_str().unwrap(), "--quiet", "--force"]);
        let mut child = command.spawn().unwrap();
        while !wait(&mut child, Duration::from_secs_f64(0.02 + 0.4 * draw(&mut state))) {
            if let Some(process) = process_of_a_cell(child.id()) {
                signal(process, libc::SIGKILL);
            }
        }
        let cells = place.cells("struck");
        let failed: Vec<_> = cells.iter().filter(|cell| cell["status"] == "failed").collect();
        // A cell that had written its result before it was struck keeps it.
        assert!(cells.iter().all(|cell| cell["status"] == "failed" || cell["status"] == "finished"));
        assert!(failed.iter().all(|cell| cell["reason"].as_str().unwrap().contains("killed (signal 9)")), "{failed:?}");
        assert_eq!(child.wait().unwrap().code(), Some(i32::from(!failed.is_empty())));
        for cell in &failed {
            let folder = run.join("cells").join(cell["cell"].as_str().unwrap());
            assert!(!folder.join("weights.safetensors").exists() && !folder.join("trace.parquet").exists());
        }
        failures += failed.len();
        place.succeed(&["run", file.to_str().unwrap()]);
        assert_eq!(numbers_without_name(&run), numbers_without_name(&place.path().join("runs/calm")));
    }
    assert!(failures >= 4, "only {failures} cells were struck");
}

#[test]
fn a_cell_whose_process_is_asked_to_stop_makes_the_run_an_interrupted_one() {
    let place = Place::new();
    let file = place.write("stopped.toml", slow_sgd("60 passes"));
    let mut child = begin(&place, &file, "stopped");
    signal(process_of_a_cell(child.id()).expect("a cell is running"), libc::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(place.cells("stopped")[0]["status"], "interrupted");
    place.succeed(&["run", file.to_str().unwrap()]);
    assert_eq!(place.cells("stopped")[0]["status"], "finished");
}

/// Starts a run and waits until its first cell trains.
fn begin(place: &Place, file: &Path, name: &str) -> Child {
    let run = place.path().join("runs").join(name);
    let child = place.command(&["run", file.to_str().unwrap()]).stderr(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    while !run.join("cells").exists() || cell_folders(&run).iter().all(|cell| !cell.join("environment.json").exists()) {
        assert!(started.elapsed() < Duration::from_secs(60), "nothing begins");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(300));
    child
}

#[test]
fn a_checkpoint_from_beyond_a_smaller_budget_is_not_gone_on_from() {
    let place = Place::new();
    let file = place.write("smaller.toml", slow_sgd("1000 passes"));
    let mut child = begin(&place, &file, "smaller");
    std::thread::sleep(Duration::from_millis(400));
    signal(child.id(), libc::SIGINT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let trained = place.cells("smaller")[0]["train_seconds"].as_f64().unwrap();
    let state = |budget: &str| {
        place.write("smaller.toml", slow_sgd(budget));
        let table = place.succeed(&["run", file.to_str().unwrap(), "--dry-run"]);
        table.lines().nth(1).unwrap().trim_end().to_owned()
    };
    let seconds = |factor: f64| format!("1000 passes\", \"{:.3}s", factor * trained);
    assert!(state("1000 passes").ends_with("goes on"));
    assert!(state(&seconds(3.0)).ends_with("goes on"));
    assert!(state(&seconds(0.5)).ends_with("to run"));
    place.succeed(&["run", file.to_str().unwrap()]);
    let cell = &place.cells("smaller")[0];
    assert_eq!(cell["status"], "timed-out");
    assert!(cell["train_seconds"].as_f64().unwrap() < trained, "{cell}");
}

#[test]
fn the_reference_sees_what_cells_record_after_it() {
    let place = Place::new();
    let file = place.write("seen.toml", experiment(3000, 1, 2));
    place.succeed(&["run", file.to_str().unwrap()]);
    let references = place.path().join("runs/seen/references");
    let path = fs::read_dir(&references).unwrap().map(|entry| entry.unwrap().path());
    let path = path.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "json")).unwrap();
    let read = || -> Value { serde_json::from_slice(&fs::read(&path).unwrap()).unwrap() };
    let first = read();
    assert!(first["method"].as_str().unwrap().starts_with("irls"), "{first}");

    // One that only repeats what a cell has seen is looked for again.
    let mut seen = first.clone();
    seen["objective"] = 0.9.into();
    seen["method"] = "the smallest objective that a cell of this experiment has seen".into();
    fs::write(&path, seen.to_string()).unwrap();
    place.succeed(&["run", file.to_str().unwrap()]);
    assert_eq!(read(), first);

    // One that is older than a trace is compared with it; one that is newer is left alone.
    let mut high = first.clone();
    high["objective"] = 0.9.into();
    fs::write(&path, high.to_string()).unwrap();
    place.succeed(&["run", file.to_str().unwrap()]);
    assert_eq!(read(), high);
    let trace = cell_folders(&place.path().join("runs/seen"))[0].join("trace.parquet");
    fs::File::options().append(true).open(trace).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
    place.succeed(&["run", file.to_str().unwrap()]);
    let seen = place.cells("seen").iter().filter_map(|cell| cell["objective"].as_f64()).fold(0.9, f64::min);
    let now = read();
    // Rounding apart: a trace may hold an iterate below the one that was reported.
    assert!(now["objective"].as_f64().unwrap() <= seen && now["method"].as_str().unwrap().contains("seen"), "{now}");
}

#[test]
fn weights_of_an_earlier_attempt_do_not_outlive_a_divergence() {
    let place = Place::new();
    let file = place.write("stale.toml", slow_sgd("60 passes"));
    let mut child = begin(&place, &file, "stale");
    signal(child.id(), libc::SIGINT);
    child.wait().unwrap();
    let cell = &cell_folders(&place.path().join("runs/stale"))[0];
    assert!(cell.join("weights.safetensors").exists());
    // The cell goes on and leaves the finite numbers: its checkpoint is given a parameter that does.
    let path = cell.join("checkpoint.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let entries: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let start = 8 + header + entries["parameters"]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[start..start + 8].copy_from_slice(&f64::INFINITY.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    place.fail(1, &["run", file.to_str().unwrap(), "--quiet"]);
    assert_eq!(place.cells("stale")[0]["status"], "diverged");
    assert!(!cell.join("weights.safetensors").exists() && cell.join("trace.parquet").exists());
    let id = cell.file_name().unwrap().to_str().unwrap();
    place.write("rows.csv", "1,2\n");
    assert!(place.fail(3, &["predict", id, "--data", "rows.csv", "--out", "s.csv"]).contains("diverged"));
}

#[test]
fn an_interrupted_cell_goes_on_from_its_checkpoint() {
    let place = Place::new();
    let text = slow_sgd("60 passes");
    let calm = place.write("calm.toml", &text);
    place.succeed(&["run", calm.to_str().unwrap()]);
    let file = place.write("stopped.toml", &text);
    let run = place.path().join("runs/stopped");
    let mut child = begin(&place, &file, "stopped");
    signal(child.id(), libc::SIGINT);
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
    // Interrupted under --force, what goes on is the same command without it.
    let mut child = place.command(&["run", path, "--force"]).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while process_of_a_cell(child.id()).is_none() {
        assert!(started.elapsed() < Duration::from_secs(60), "nothing begins");
    }
    signal(child.id(), libc::SIGINT);
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(said.contains("run it again without --force to go on"), "{said}");
}
