//! Traces from outside: they stand in the tables and figures of a run, survive its next run, and are refused with the place
//! of what is wrong.

#[path = "support/program.rs"]
mod program;

use program::{Place, cell};
use std::fs;

const EXPERIMENT: &str = r#"
seeds = [1]
threads = 1
budget = "4 passes"
target = { metric = "validation_accuracy", value = 0.6 }
[[dataset]]
name = "higgs-sim"
rows = 2000
[[model]]
name = "logistic"
[[optimizer]]
name = "irls"
[[optimizer]]
name = "sgd"
"#;

const TRACE: &str = "seed,step,data_passes,train_seconds,train_loss,validation_accuracy,test_accuracy,optimizer.lr
1,0,0,0,0.6931,0.5,0.5,0.1
1,8,1,0.25,0.65,0.61,0.6,0.05
2,0,0,0,0.6931,0.5,0.5,0.1
2,8,1,0.5,0.66,0.59,0.58,
";

fn run(place: &Place, text: &str) {
    let file = place.write("mine.toml", text);
    place.succeed(&["run", file.to_str().unwrap(), "--quiet"]);
}

#[test]
fn a_trace_stands_beside_the_cells_and_stays_there() {
    let place = Place::new();
    run(&place, EXPERIMENT);
    let trace = place.write("adam.csv", TRACE);
    let import = ["import-trace", trace.to_str().unwrap(), "--into", "runs/mine", "--optimizer", "Adam (elsewhere)"];
    let written = place.succeed(&[&import[..], &["--set", "lr=0.1"]].concat());
    assert_eq!(written.lines().count(), 2);
    let cells = place.cells("mine");
    assert_eq!(cells.len(), 4);
    let first = cell(&cells, "Adam (elsewhere)");
    assert_eq!((&first["status"], &first["seed"]), (&"finished".into(), &1.into()));
    assert_eq!(first["time_to_target_seconds"], 0.25);
    assert_eq!((&first["steps"], &first["test_accuracy"]), (&8.into(), &0.6.into()));
    assert_eq!((&first["parameters_total"], &first["hyperparameters"]["lr"]), (&29.into(), &0.1.into()));
    assert_eq!(first["problem"], cell(&cells, "irls")["problem"]);
    // In the same panel of the same figure.
    place.succeed(&["report", "runs/mine"]);
    let figure = fs::read_to_string(place.path().join("plots/mine/accuracy-time.svg")).unwrap();
    assert!(figure.contains("Adam (elsewhere)") && figure.contains("irls"));
    // The next run leaves them alone, and the same import takes their place.
    run(&place, &EXPERIMENT.replace("name = \"sgd\"", "name = \"sgd\"\nlearning_rate = 0.01"));
    place.succeed(&[&import[..], &["--set", "lr=0.1"]].concat());
    assert_eq!(place.cells("mine").len(), 4);
    // A Parquet file, here a trace of this program, with its own columns.
    let own = fs::read_dir(place.path().join("runs/mine/cells")).unwrap().map(|entry| entry.unwrap().path());
    let own = own.map(|path| path.join("trace.parquet")).find(|path| path.exists()).unwrap();
    place.succeed(&["import-trace", own.to_str().unwrap(), "--into", "runs/mine", "--optimizer", "again"]);
    assert_eq!(place.cells("mine").len(), 5);
}

#[test]
fn what_cannot_be_imported_is_refused_with_its_place() {
    let place = Place::new();
    run(&place, EXPERIMENT);
    let import = |name: &str, text: &str| {
        let file = place.write(name, text);
        place.fail(3, &["import-trace", file.to_str().unwrap(), "--into", "runs/mine", "--optimizer", "Adam"])
    };
    for (text, said) in [
        ("train_seconds,test_acuracy\n0,0.5\n", "did you mean `test_accuracy`"),
        ("step,test_accuracy\n0,0.5\n", "there is no column `train_seconds`"),
        ("train_seconds,step\n0,0\n", "it records no metric"),
        ("train_seconds,test_accuracy\n0,0.5\n1,61.5\n", "line 3, column test_accuracy: 61.5 is not from 0 to 1"),
        ("train_seconds,test_accuracy\n2,0.5\n1,0.6\n", "line 3, column train_seconds: 1 comes after 2"),
        ("train_seconds,test_loss\n0,0.5\n,0.6\n", "line 3, column train_seconds: it is empty"),
        ("train_seconds,test_loss\n0,0.5\n1,low\n", "line 3, column test_loss: it is not a number"),
        ("train_seconds,test_loss\n0,inf\n", "line 2, column test_loss: it is infinite"),
        ("seed,train_seconds,test_loss\n1.5,0,1\n", "line 2, column seed: 1.5 is no whole number"),
        ("train_seconds,test_loss\n", "it has no rows"),
    ] {
        let message = import("bad.csv", text);
        assert!(message.contains(said) && message.contains("bad.csv"), "{said}: {message}");
    }
    assert!(import("trace.txt", "x").contains("neither .parquet nor .csv"));
    import("trace.parquet", "this is no Parquet");
    let good = place.write("good.csv", "train_seconds,test_loss\n0,0.7\n");
    let good = good.to_str().unwrap();
    let refuse =
        |arguments: &[&str]| place.fail(2, &[&["import-trace", good, "--optimizer", "Adam"][..], arguments].concat());
    assert!(refuse(&["--into", "runs/none"]).contains("there is no such folder"));
    assert!(refuse(&["--into", "runs/mine", "--like", "xyz"]).contains("has no cell xyz"));
    assert!(refuse(&["--into", "runs/mine", "--fold", "3"]).contains("no cell of fold 3"));
    run(
        &place,
        &EXPERIMENT.replace("name = \"logistic\"", "name = \"logistic\"\nfeatures = [\"linear\", \"squares\"]"),
    );
    let several = refuse(&["--into", "runs/mine"]);
    assert!(several.contains("features=squares") && several.contains("--like "), "{several}");
    assert_eq!(place.cells("mine").len(), 4);
}
