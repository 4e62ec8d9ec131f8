//! The report room from outside: run folders are written, read, summarized and drawn.
//!
//! With `PARSIMONY_KEEP_FIGURES=FOLDER` the drawn figures stay in that folder, to be looked at.

#[path = "support/run_folder.rs"]
mod run_folder;

use parsimony::Error;
use parsimony::report::runs::{self, Runs, Status};
use parsimony::report::scene::{Rect, Scene};
use parsimony::report::summary::{self, Format};
use parsimony::report::{figures, write_report};
use polars::prelude::{ParquetReader, SerReader};
use run_folder::{Row, Sketch};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const QUESTION: &str = "Which optimizer reaches the best accuracy on HIGGS first, and with how many parameters?";

fn load(sketches: &[Sketch], question: Option<&str>) -> (tempfile::TempDir, Runs) {
    let folder = tempfile::tempdir().expect("a folder");
    run_folder::write(folder.path(), question, sketches);
    let runs = runs::load(folder.path()).expect("a run");
    (folder, runs)
}

fn text(runs: &Runs, format: Format, all: bool) -> String {
    let mut bytes = Vec::new();
    summary::write(runs, format, all, &mut bytes).expect("a summary");
    String::from_utf8(bytes).expect("UTF-8")
}

/// No text covers another or leaves the figure.
fn assert_readable(name: &str, scene: &Scene) {
    let canvas = Rect::new(0.0, 0.0, scene.width, scene.height);
    let texts: Vec<(&str, Rect)> = scene.texts().collect();
    for (index, (text, place)) in texts.iter().enumerate() {
        assert!(canvas.contains(place), "{name}: {text:?} leaves the figure: {place:?}");
        for (other, other_place) in &texts[index + 1..] {
            assert!(!place.overlaps(other_place), "{name}: {text:?} covers {other:?}");
        }
    }
}

/// Draws everything, checks every figure, and says which were drawn and which not, with the reason.
fn draw(case: &str, runs: &Runs) -> (Vec<String>, String) {
    let kept = std::env::var_os("PARSIMONY_KEEP_FIGURES");
    let temporary = tempfile::tempdir().expect("a folder");
    let out = kept.map_or_else(|| temporary.path().to_owned(), |folder| Path::new(&folder).join(case));
    let written = write_report(runs, &out).expect("a report");
    assert!(written.iter().all(|path| path.is_file()));
    let mut drawn = Vec::new();
    for figure in figures(runs) {
        let Ok(scene) = &figure.scene else { continue };
        assert_readable(&format!("{case}/{}", figure.name), scene);
        let file = |ending: &str| {
            let name = format!("{}.{ending}", figure.name);
            let found = written.iter().find(|path| path.file_name().is_some_and(|file| file == name.as_str()));
            fs::read(found.expect("the figure is written")).expect("the figure is readable")
        };
        let svg = String::from_utf8(file("svg")).expect("UTF-8");
        assert_well_formed(&svg);
        for (words, _) in scene.texts() {
            assert!(svg.contains(&escaped(words)), "{words:?} is not in the SVG");
        }
        let png = file("png");
        assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
        let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().expect("four bytes"));
        assert_eq!(number(16), 2 * scene.width.ceil() as u32, "twice the width");
        assert_eq!(number(20), 2 * scene.height.ceil() as u32, "twice the height");
        drawn.push(figure.name);
    }
    let page = written.iter().find(|path| path.ends_with("summary.md")).expect("summary.md");
    let leftovers = fs::read_dir(page.parent().expect("a folder")).expect("a folder");
    let leftovers = leftovers.filter(|entry| {
        entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with(".unfinished"))
    });
    assert_eq!(leftovers.count(), 0);
    (drawn, fs::read_to_string(page).expect("summary.md"))
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;").replace('\'', "&apos;")
}

/// Every tag is closed in order, every attribute is quoted: enough of XML for what the backend writes.
fn assert_well_formed(svg: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = svg;
    while let Some(start) = rest.find('<') {
        let length = rest[start..].find('>').expect("a tag ends");
        let tag = &rest[start + 1..start + length];
        assert_eq!(tag.matches('"').count() % 2, 0, "unbalanced quotes in <{tag}>");
        let name = tag.trim_start_matches('/').split([' ', '/', '\n']).next().expect("a name");
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(name);
        }
        rest = &rest[start + length + 1..];
    }
    assert!(open.is_empty(), "{open:?} stay open");
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
}

const EVERY: [&str; 5] =
    ["accuracy-time", "suboptimality", "accuracy-parameters", "accuracy-resident", "time-to-target"];

#[test]
fn a_run_of_several_models_gives_all_figures_with_a_panel_each() {
    let (_folder, runs) = load(&run_folder::higgs(), Some(QUESTION));
    assert_eq!(runs.cells.len(), 36);
    assert_eq!(runs.question.as_deref(), Some(QUESTION));
    let (drawn, page) = draw("models", &runs);
    assert_eq!(drawn, [&EVERY[..], &["performance-profile"]].concat());
    assert!(page.starts_with(&format!("# {QUESTION}\n")) && !page.contains("Not drawn"));
    for figure in figures(&runs) {
        let scene = figure.scene.expect("all are drawn");
        let texts: Vec<&str> = scene.texts().map(|(text, _)| text).collect();
        let all = texts.join(" ");
        if figure.name == "performance-profile" {
            assert!(all.contains("Share of problems") && all.contains("3 problems"), "{all}");
            continue;
        }
        assert!(all.contains("HIGGS (simulated), 20,000 rows"), "{all}");
        assert!(all.contains("edians of 3 seeds") && all.contains("logistic, products"), "{all}");
        assert!(all.contains("× SGD (logistic, products) 1 of 3 diverged: the objective is NaN at step 1200"), "{all}");
    }
}

#[test]
fn a_single_model_names_its_lines_where_they_end() {
    let mut sketches = run_folder::higgs();
    sketches.retain(|sketch| sketch.parameters == 29);
    let (_folder, runs) = load(&sketches, Some(QUESTION));
    let (drawn, _) = draw("single", &runs);
    assert_eq!(drawn, EVERY);
}

#[test]
fn many_variants_of_one_optimizer_are_told_apart_by_what_differs() {
    let template = run_folder::higgs().into_iter().find(|sketch| sketch.optimizer == "SGD").expect("SGD");
    let mut sketches = Vec::new();
    for (index, step_size) in [0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0].into_iter().enumerate() {
        for seed in 0..5 {
            let hyperparameters = json!({ "step_size": step_size, "momentum": 0.9, "schedule": "cosine" });
            let rows = run_folder::rows("SGD", index as u64 * 100 + seed, 0.002 * (index + 1) as f64, 0.64);
            sketches.push(Sketch { hyperparameters, seed, rows, ..template.clone() });
        }
    }
    let (_folder, runs) = load(&sketches, None);
    let (drawn, _) = draw("variants", &runs);
    assert!(drawn.contains(&"sensitivity-step_size".to_owned()), "a grid was run: {drawn:?}");
    let table = text(&runs, Format::Table, false);
    assert!(table.contains("SGD, step size 0.03") && !table.contains("momentum"), "{table}");
}

#[test]
fn folds_of_a_dataset_are_one_series_and_two_datasets_have_their_own_figures() {
    let mut sketches: Vec<Sketch> = Vec::new();
    for sketch in run_folder::higgs().iter().filter(|sketch| sketch.seed == 0 && sketch.status == "finished") {
        for fold in 0..5 {
            let rows = run_folder::rows(sketch.optimizer, fold + sketch.parameters, 0.002, sketch.optimum.1);
            for dataset in ["HIGGS", "a9a & <friends>"] {
                sketches.push(Sketch { fold: Some(fold), dataset, rows: rows.clone(), ..sketch.clone() });
            }
        }
    }
    let (_folder, runs) = load(&sketches, None);
    let (drawn, _) = draw("folds", &runs);
    assert_eq!(drawn.len(), 11, "five of each dataset, and the profile: {drawn:?}");
    assert!(
        drawn.contains(&"accuracy-time-HIGGS".to_owned()) && drawn.contains(&"accuracy-time-a9a-friends".to_owned())
    );
    assert!(text(&runs, Format::Table, false).contains("Medians of 5 folds"));
}

/// By hand: accuracies 0.60, 0.62, 0.70 have the median 0.62 and half a distance of 0.05; times 2 s, 4 s and a miss have
/// the median 4 s; with two misses it is infinite.
#[test]
fn the_table_shows_medians_and_misses() {
    let template = run_folder::higgs().remove(0);
    let cell = |seed: u64, accuracy: f64, hit: Option<f64>| {
        let end = Row { step: 10, passes: 5.0, seconds: 8.0, gap: 1e-3, accuracy };
        let first = hit.map(|seconds| Row { step: 5, seconds, accuracy: 0.99, ..end });
        let rows = first.into_iter().chain([end]).collect();
        Sketch { seed, rows, target: Some(0.9), ..template.clone() }
    };
    let sketches = [cell(0, 0.60, Some(2.0)), cell(1, 0.70, None), cell(2, 0.62, Some(4.0))];
    let (_folder, runs) = load(&sketches, None);
    let table = text(&runs, Format::Table, false);
    assert!(table.contains("0.6200 ±0.0500") && table.contains("4 s") && table.contains("39.3 MiB"), "{table}");
    assert!(!table.contains("status") && !table.contains("ridge"), "columns that say nothing: {table}");
    let all = text(&runs, Format::Table, true);
    assert!(all.contains("0.6000") && all.contains("0.7000") && all.contains('∞') && all.contains("seed"), "{all}");
    let (_folder, runs) = load(&[cell(0, 0.6, Some(2.0)), cell(1, 0.7, None), cell(2, 0.62, None)], None);
    assert!(text(&runs, Format::Table, false).contains('∞'));
}

#[test]
fn json_holds_the_very_text_of_each_result_and_all_keys_for_unfinished_cells() {
    let sketches = &run_folder::higgs()[..3];
    let (folder, _) = load(sketches, None);
    let path = folder.path().join("cells").join(sketches[0].id()).join("result.json");
    // 17 digits that a parser may round.
    let mut object = sketches[0].result();
    object["objective"] = json!(0);
    let exact = object.to_string().replace("\"objective\":0,", "\"objective\":0.61234567890123457,");
    fs::write(&path, &exact).expect("result.json");
    fs::remove_file(folder.path().join("cells").join(sketches[1].id()).join("result.json")).expect("removed");
    let runs = runs::load(folder.path()).expect("a run");
    let output = text(&runs, Format::Json, false);
    assert!(output.contains("0.61234567890123457"));
    let cells: Vec<Value> = serde_json::from_str(&output).expect("JSON");
    assert_eq!(cells.len(), 3);
    for cell in &cells {
        for key in sketches[0].result().as_object().expect("an object").keys() {
            assert!(cell.get(key).is_some(), "no key {key}");
        }
    }
    let unfinished = cells.iter().find(|cell| cell["cell"] == sketches[1].id()).expect("listed");
    assert_eq!(unfinished["status"], "interrupted");
    assert!(unfinished["test_accuracy"].is_null() && unfinished["dataset"] == "HIGGS (simulated)");
    let (_, page) = draw("unfinished", &runs);
    assert!(page.contains("not finished"), "{page}");
}

#[test]
fn csv_and_parquet_hold_a_row_per_cell() {
    let (_folder, runs) = load(&run_folder::higgs(), None);
    let csv = text(&runs, Format::Csv, false);
    assert_eq!(csv.lines().count(), 37);
    assert!(csv.starts_with("cell,experiment,dataset,model,optimizer,hyperparameters,seed,"));
    let mut bytes = Vec::new();
    summary::write(&runs, Format::Parquet, false, &mut bytes).expect("Parquet");
    let frame = ParquetReader::new(std::io::Cursor::new(bytes)).finish().expect("readable");
    assert_eq!(frame.height(), 36);
    let accuracy = frame.column("test_accuracy").expect("a column").f64().expect("floats").clone();
    assert_eq!(accuracy.null_count(), 1, "the diverged cell has none");
}

#[test]
fn a_broken_pipe_is_handed_to_the_caller() {
    struct Closed;
    impl std::io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (_folder, runs) = load(&run_folder::higgs()[..2], None);
    for format in [Format::Table, Format::Json, Format::Csv, Format::Parquet] {
        let error = summary::write(&runs, format, false, &mut Closed).expect_err("the pipe is closed");
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    }
}

#[test]
fn odd_runs_are_drawn_as_far_as_they_go_and_say_what_is_missing() {
    let template = run_folder::higgs().remove(0);

    let (_folder, runs) = load(&[], None);
    let (drawn, page) = draw("empty", &runs);
    assert!(drawn.is_empty() && page.contains("No cell has been run yet"), "{page}");
    assert!(text(&runs, Format::Table, false).contains("no cell has been run yet"));
    assert_eq!(text(&runs, Format::Json, false), "[]\n");

    let (_folder, runs) = load(std::slice::from_ref(&template), None);
    assert_eq!(draw("one-cell", &runs).0, EVERY);

    let point = Sketch { rows: template.rows[..1].to_vec(), ..template.clone() };
    let (_folder, runs) = load(&[point], None);
    let (_, page) = draw("one-row", &runs);
    assert!(page.contains("no cell recorded a step with its time"), "{page}");

    let nothing = Sketch { rows: Vec::new(), status: "failed", reason: "out of memory", ..template.clone() };
    let (_folder, runs) = load(&[nothing], None);
    let (drawn, page) = draw("no-rows", &runs);
    assert!(drawn.is_empty() && page.contains("out of memory"), "{page}");

    let diverged: Vec<Sketch> = run_folder::higgs()
        .into_iter()
        .filter(|sketch| sketch.parameters < 100)
        .map(|sketch| {
            let mut rows = sketch.rows.clone();
            rows.truncate(5);
            for row in &mut rows {
                row.gap *= 10_f64.powi(row.step as i32 % 7);
            }
            Sketch { status: "diverged", reason: "the objective is NaN at step 5", rows, ..sketch }
        })
        .collect();
    let (_folder, runs) = load(&diverged, None);
    let (drawn, page) = draw("all-diverged", &runs);
    assert!(drawn.contains(&"accuracy-time".to_owned()), "{drawn:?}");
    assert!(page.contains("no finished cell has both a test accuracy and a size"), "{page}");

    let untested: Vec<Sketch> = run_folder::higgs()
        .into_iter()
        .filter(|sketch| sketch.parameters == 29)
        .map(|sketch| Sketch { tested: false, target: None, ..sketch })
        .collect();
    let (_folder, runs) = load(&untested, None);
    let (drawn, page) = draw("untested", &runs);
    assert_eq!(drawn, ["suboptimality"]);
    assert!(
        page.contains("no cell recorded the test accuracy while it ran") && page.contains("sets no target"),
        "{page}"
    );
}

#[test]
fn without_references_the_objective_itself_is_drawn() {
    let mut sketches = run_folder::higgs();
    sketches.retain(|sketch| sketch.parameters == 29);
    let (folder, _) = load(&sketches, None);
    fs::remove_dir_all(folder.path().join("references")).expect("removed");
    let runs = runs::load(folder.path()).expect("a run");
    let (drawn, _) = draw("no-references", &runs);
    assert!(drawn.contains(&"suboptimality".to_owned()));
    let figure = figures(&runs).into_iter().find(|figure| figure.name == "suboptimality").expect("drawn");
    let scene = figure.scene.expect("drawn");
    assert!(scene.texts().any(|(text, _)| text == "Training objective (nats per row)"));
}

#[test]
fn sparse_models_show_how_many_parameters_are_not_zero() {
    let mut sketches = run_folder::higgs();
    for sketch in &mut sketches {
        if sketch.optimizer == "ADMM" {
            sketch.nonzero = Some(sketch.parameters / 3);
        }
    }
    let (_folder, runs) = load(&sketches, Some(QUESTION));
    draw("sparse", &runs);
    assert!(text(&runs, Format::Table, false).contains("non-zero"));
}

#[test]
fn damaged_files_are_named_with_what_to_do() {
    let sketch = run_folder::higgs().remove(0);
    let damage = |file: &str, content: &[u8]| {
        let (folder, _) = load(std::slice::from_ref(&sketch), None);
        let path = match file {
            "experiment.toml" | "plan.json" => folder.path().join(file),
            "reference" => folder.path().join("references").join(format!("{}.json", sketch.problem())),
            _ => folder.path().join("cells").join(sketch.id()).join(file),
        };
        fs::write(&path, content).expect("damaged");
        let error = runs::load(folder.path()).expect_err(file);
        assert!(matches!(error, Error::Data(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(&*path.to_string_lossy()) && text.lines().count() >= 2, "{text}");
    };
    for file in ["config.json", "result.json", "reference", "plan.json"] {
        damage(file, b"{ \"cell\": ");
        damage(file, &[0xff, 0xfe, 0x00]);
        damage(file, b"");
    }
    damage("result.json", b"{ \"cell\": \"x\", \"status\": \"bored\" }");
    damage("trace.parquet", b"PAR1 and then nothing");
    damage("trace.parquet", b"");
    damage("experiment.toml", b"question = ");

    let empty = tempfile::tempdir().expect("a folder");
    let error = runs::load(empty.path()).expect_err("no run");
    assert!(matches!(error, Error::Config { .. }) && error.to_string().contains("runs/NAME"), "{error}");
    assert!(runs::load(&empty.path().join("absent")).is_err());
}

#[test]
fn a_cell_that_has_only_begun_is_listed_and_an_empty_folder_is_not() {
    let sketches = run_folder::higgs();
    let folder = tempfile::tempdir().expect("a folder");
    run_folder::write(folder.path(), None, &sketches[..2]);
    let cell = sketches[2].write(folder.path(), false);
    fs::remove_file(cell.join("trace.parquet")).expect("removed");
    fs::create_dir_all(folder.path().join("cells/0000")).expect("a folder");
    let runs = runs::load(folder.path()).expect("a run");
    assert_eq!(runs.cells.len(), 3);
    assert_eq!(runs.cells.iter().filter(|cell| cell.result.status == Status::Interrupted).count(), 1);
    draw("begun", &runs);
}
