//! Every verb as a user types it: what it prints, what it refuses and with which exit code.

#[path = "support/program.rs"]
mod program;

use program::{Place, cell};
use std::io::Write;
use std::process::Stdio;

/// Four optimizers on few simulated events; `extra` is added at the end.
fn experiment(extra: &str) -> String {
    format!(
        r#"
        budget = ["20s", "40 passes"]
        [[dataset]]
        name = "higgs-sim"
        rows = 4000
        [[model]]
        name = "logistic"
        [[optimizer]]
        name = "irls"
        {extra}"#
    )
}

#[test]
fn every_verb_explains_itself() {
    let place = Place::new();
    for verb in ["run", "report", "summary", "list", "info", "data", "inspect", "predict", "record", "params", "doctor"]
    {
        let help = place.succeed(&[verb, "--help"]);
        assert!(help.contains("Usage: parsimony"), "{help}");
        assert!(help.contains("Examples:"), "{verb} has no example");
    }
    let help = place.succeed(&["--help"]);
    for code in ["0 ", "1 ", "2 ", "3 ", "4 ", "130 "] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(code)), "exit code {code} is not documented");
    }
    place.fail(2, &["frobnicate"]);
    place.fail(2, &["run"]);
}

#[test]
fn what_is_listed_can_be_asked_about() {
    let place = Place::new();
    let all: serde_json::Value = serde_json::from_str(&place.succeed(&["list", "--format", "json"])).unwrap();
    for kind in ["optimizers", "models", "datasets"] {
        let entries = all[kind].as_array().unwrap();
        assert!(!entries.is_empty());
        for entry in entries {
            let name = entry["name"].as_str().unwrap();
            assert!(place.succeed(&["info", name]).starts_with(name));
            place.succeed(&["info", name, "--format", "json"]);
        }
    }
    let names: Vec<_> = all["optimizers"].as_array().unwrap().iter().map(|o| o["name"].as_str().unwrap()).collect();
    let registered: Vec<_> = parsimony::optim::registry().iter().map(|entry| entry.name).collect();
    assert_eq!(names, registered);
    for experiment in all["experiments"].as_array().unwrap() {
        assert!(experiment["question"].as_str().unwrap().ends_with('?'));
    }
    assert!(place.fail(2, &["info", "irsl"]).contains("did you mean `irls`?"));
    let doctor: serde_json::Value = serde_json::from_str(&place.succeed(&["doctor", "--format", "json"])).unwrap();
    assert_eq!(doctor["linear_algebra_works"], true);
    assert!(place.succeed(&["doctor"]).contains("solves a small system: right"));
}

#[test]
fn the_experiments_in_the_program_are_planned() {
    let place = Place::new();
    let plan: serde_json::Value =
        serde_json::from_str(&place.succeed(&["run", "quickstart", "--dry-run", "--format", "json"])).unwrap();
    let of = |name: &str| plan["cells"].as_array().unwrap().iter().filter(|c| c["optimizer"]["name"] == name).count();
    // Two models; three seeds for those that draw, one for those that do not.
    assert_eq!([of("sgd"), of("irls"), of("admm"), of("hessian-free")], [6, 2, 2, 6]);
    assert!(!place.path().join("runs").exists(), "a dry run writes nothing");
    let table = place.succeed(&["run", "quickstart", "--dry-run"]);
    assert!(table.contains("higgs-sim (simulated)") && table.contains("to run"), "{table}");
    let of_real_data = [
        "higgs-logistic",
        "higgs-sample",
        "higgs-network",
        "mnist-softmax",
        "mnist-mlp",
        "admm-mnist",
        "admm-as-published",
        "mnist-autoencoder",
        "hessian-free",
    ];
    for name in of_real_data {
        let output = place.command(&["run", name, "--dry-run"]).env_remove("PARSIMONY_DATA_DIR").output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        // Without the data, the message says what to do.
        assert_eq!(output.status.code(), Some(3), "{name}: {message}");
        assert!(message.contains("PARSIMONY_DATA_DIR"), "{name}: {message}");
    }
}

#[test]
fn a_run_is_summarized_drawn_and_applied() {
    let place = Place::new();
    let optimizers =
        "[[optimizer]]\nname = \"sgd\"\n[[optimizer]]\nname = \"admm\"\n[[optimizer]]\nname = \"hessian-free\"";
    let file = place.write("small.toml", experiment(optimizers));
    place.succeed(&["run", file.to_str().unwrap()]);
    let cells = place.cells("small");
    assert_eq!(cells.len(), 4);
    let keys = [
        "cell",
        "dataset",
        "model",
        "optimizer",
        "hyperparameters",
        "seed",
        "status",
        "reason",
        "train_loss",
        "test_loss",
        "test_accuracy",
        "test_auc",
        "validation_loss",
        "validation_accuracy",
        "parameters_total",
        "parameters_active",
        "parameter_bytes",
        "parameter_compressed_bytes",
        "optimizer_state_bytes",
        "steps",
        "data_passes",
        "flops",
        "bytes_moved",
        "setup_seconds",
        "train_seconds",
        "evaluation_seconds",
        "wall_seconds",
        "time_to_target_seconds",
        "peak_resident_bytes",
        "gradient_norm",
    ];
    for cell in &cells {
        let object = cell.as_object().unwrap();
        assert!(keys.iter().all(|key| object.contains_key(*key)));
        assert_eq!(cell["status"], "finished", "{cell}");
        assert_eq!(cell["parameters_total"], 29);
        assert!(cell["test_accuracy"].as_f64().unwrap() > 0.6);
        assert!(cell["dataset"].as_str().unwrap().contains("simulated"));
    }
    for (format, start) in [("csv", "cell,experiment"), ("table", "higgs-sim")] {
        assert!(place.succeed(&["summary", "runs/small", "--format", format]).starts_with(start));
    }
    place.succeed(&["summary", "runs/small", "--format", "parquet", "--out", "cells.parquet"]);
    assert_eq!(&std::fs::read(place.path().join("cells.parquet")).unwrap()[..4], b"PAR1");

    let drawn = place.succeed(&["report", "runs/small"]);
    for file in drawn.lines() {
        assert!(place.path().join(file).is_file(), "{file}");
    }
    assert!(drawn.contains("plots/small/accuracy-time.svg"));

    // The weights applied to the raw rows give back the recorded accuracy of the test rows.
    place.succeed(&["data", "generate", "--rows", "4000", "--out", "events.csv"]);
    let irls = cell(&cells, "irls");
    let id = irls["cell"].as_str().unwrap();
    place.succeed(&["predict", &id[..6], "--data", "events.csv", "--out", "scores.csv"]);
    let scores = std::fs::read_to_string(place.path().join("scores.csv")).unwrap();
    let events = std::fs::read_to_string(place.path().join("events.csv")).unwrap();
    let (mut lines, test) = (scores.lines(), 3400..4000);
    assert_eq!(lines.next(), Some("probability_0,probability_1,predicted"));
    let right = |(score, event): (&str, &str)| usize::from(score.ends_with(",1") == event.starts_with('1'));
    let right: usize = lines.zip(events.lines()).skip(test.start).map(right).sum();
    let accuracy = right as f64 / test.len() as f64;
    assert!((accuracy - irls["test_accuracy"].as_f64().unwrap()).abs() < 1e-12, "{accuracy}");
    assert!(place.fail(2, &["predict", "zzz", "--data", "events.csv", "--out", "s.csv"]).contains("no cell"));
    place.write("narrow.csv", "1,2,3\n0,1,2\n");
    assert!(place.fail(3, &["predict", id, "--data", "narrow.csv", "--out", "s.csv"]).contains("narrow.csv"));
}

#[test]
fn more_events_than_memory_holds_are_refused() {
    let place = Place::new();
    let message = place.fail(2, &["data", "describe", "higgs-sim", "--rows", "4000000000"]);
    for part in ["rows = 4000000000", "464.00 GB", "available", "fewer rows", "data generate"] {
        assert!(message.contains(part), "{part:?} in {message}");
    }
    let file = place.write("large.toml", experiment("").replace("rows = 4000\n", "rows = 4_000_000_000\n"));
    assert!(place.fail(2, &["run", file.to_str().unwrap()]).contains("464.00 GB"));
    for rows in ["0", "5000000000"] {
        assert!(place.fail(2, &["data", "generate", "--rows", rows, "--out", "a.csv"]).contains("4294967295"));
    }
    assert!(place.fail(2, &["data", "generate", "mnist", "--out", "a.csv"]).contains("`higgs-sim`"));
}

#[test]
fn an_interrupted_file_is_removed() {
    let place = Place::new();
    // Gigabytes of rows in megabytes: the same member again and again.
    let mut member = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    member.write_all("1.5,2.5,3.5,4.5,5.5,6.5,0\n0.5,0.25,1,2,3,4,1\n".repeat(100_000).as_bytes()).unwrap();
    let source = place.write("rows.csv.gz", member.finish().unwrap().repeat(500));
    let source = source.to_str().unwrap();
    for arguments in [
        &["data", "import", source, "--out", "out/a.store"][..],
        &["data", "import", source, "--out", "out/a.store", "--shuffle", "1"],
        &["data", "generate", "--rows", "4000000000", "--out", "out/a.store"],
        &["data", "generate", "--rows", "4000000000", "--out", "out/a.csv"],
    ] {
        let out = place.path().join("out");
        std::fs::create_dir_all(&out).unwrap();
        let mut child = place.command(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // The handler stands before anything is written; a shuffle's rows are in a file without a name at first.
        std::thread::sleep(std::time::Duration::from_millis(700));
        assert!(child.try_wait().unwrap().is_none(), "{arguments:?} is done before it could be interrupted");
        // SAFETY: `kill` reads no memory; the process is our own child, which has not been waited for.
        unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) };
        let output = child.wait_with_output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(130), "{arguments:?}: {message}");
        let left: Vec<_> = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.is_empty(), "{arguments:?} leaves {left:?}");
    }
}

/// A pipe that nobody reads: the first write to it fails.
fn closed_pipe() -> std::io::PipeWriter {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer
}

#[test]
fn a_closed_pipe_is_no_error() {
    let place = Place::new();
    for arguments in [&["list", "--format", "json"][..], &["info", "irls"], &["doctor"], &["--help"]] {
        let output = place.command(arguments).stdout(closed_pipe()).stderr(Stdio::piped()).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    }
}

#[test]
fn a_closed_standard_error_stops_nothing() {
    let place = Place::new();
    let file = place.write("small.toml", experiment(""));
    let status = place.command(&["run", file.to_str().unwrap()]).stderr(closed_pipe()).status().unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(place.cells("small")[0]["status"], "finished");
    // A refusal keeps its exit code too.
    for (code, arguments) in [(4, &["run", "nowhere.toml"][..]), (2, &["frobnicate"])] {
        assert_eq!(place.command(arguments).stderr(closed_pipe()).status().unwrap().code(), Some(code));
    }
}

#[test]
fn experiment_files_are_refused_by_place_key_and_range() {
    let place = Place::new();
    for (text, words) in [
        ("budget = [", &["line 1"][..]),
        ("", &["`dataset` is missing"]),
        (&experiment("tolerence = 1e-3"), &["did you mean `tolerance`?", "[[optimizer]] irls"]),
        (&experiment("tolerance = -1.0"), &["tolerance = -1 is not accepted", "from 0 to 1"]),
        (&experiment("tolerance = \"small\""), &["tolerance = small is not accepted"]),
        (&experiment("[[optimizer]]\nname = \"sdg\""), &["line 11", "did you mean `sgd`?"]),
        (&experiment("").replace("higgs-sim", "higs-sim"), &["higs-sim", "did you mean `higgs-sim`?"]),
        (&experiment("").replace("20s", "20 fortnights"), &["budget = \"20 fortnights\" is not accepted", "\"5m\""]),
        (&experiment("").replace("rows = 4000", "rows = 0"), &["rows = 0 is not accepted"]),
        (&experiment("").replace("name = \"logistic\"", "name = \"logistic\"\nfeatures = \"cubes\""), &["squares"]),
        (&format!("seeds = [1, 1]\n{}", experiment("")), &["seeds = [1, 1] is not accepted"]),
        (
            &format!("target = {{ metric = \"test_accuracy\", value = 1 }}\n{}", experiment("")),
            &["validation_accuracy"],
        ),
        // What differs in name alone would be one cell under two names.
        (
            &experiment("[[optimizer]]\nname = \"irls\"\nlabel = \"Newton\"\nbudget = [\"9s\", \"40 passes\"]"),
            &[
                "line 10, [[optimizer]] irls",
                "line 8",
                "label of the optimizer (\"irls\", now \"Newton\")",
                "(20s or 40 passes, now 9s",
            ],
        ),
        (
            &experiment("[[dataset]]\nname = \"higgs-sim\"\nrows = 4000"),
            &["line 10, [[dataset]]", "differs is nothing"],
        ),
        (&experiment("tolerance = [0.1, 0.1]"), &["tolerance = [0.1, 0.1] is not accepted", "distinct"]),
        (&experiment("tolerance = [0, 0.0]"), &["[[optimizer]] irls", "differs is nothing"]),
        (&format!("name = \"../up\"\n{}", experiment("")), &["name = \"../up\" is not accepted"]),
    ] {
        let path = place.write("bad.toml", text);
        let message = place.fail(2, &["run", path.to_str().unwrap(), "--dry-run"]);
        assert!(message.contains("bad.toml"), "no file named: {message}");
        for word in words {
            assert!(message.contains(word), "{word:?} is not in: {message}");
        }
    }
    assert!(place.fail(4, &["run", "nowhere.toml"]).contains("nowhere.toml"));
    place.write("bytes.toml", [0xff, 0xfe, 0x00]);
    assert!(place.fail(3, &["run", "bytes.toml"]).contains("not a text"));
}

#[test]
fn data_that_cannot_be_used_is_named() {
    let place = Place::new();
    assert!(place.fail(3, &["data", "describe", "nowhere.csv"]).contains("nowhere.csv"));
    place.write("gap.csv", "1,2,3\n0,,1\n1,2,2\n");
    let message = place.fail(3, &["data", "import", "gap.csv", "--out", "gap.store"]);
    assert!(message.contains("gap.csv, line 2, column 2"), "{message}");
    assert!(place.succeed(&["data", "describe", "gap.csv", "--drop-missing"]).contains('2'));
    let message = place.fail(2, &["data", "fetch", "mnits"]);
    assert!(message.contains("did you mean `mnist`?"), "{message}");
    assert!(place.fail(2, &["summary", "runs"]).contains("there is no such folder"));
    // A dataset that an experiment asks for is named with the place that asks for it.
    let absent = experiment("").replace("name = \"higgs-sim\"\n        rows = 4000", "path = \"absent.csv\"");
    let file = place.write("absent.toml", absent);
    let message = place.fail(3, &["run", file.to_str().unwrap()]);
    assert!(message.contains("absent.csv") && message.contains("absent.toml, line 3, [[dataset]]"), "{message}");
    let file =
        place.write("seeded.toml", experiment("").replace("name = \"higgs-sim\"", "path = \"gap.csv\"\nseed = 1"));
    place.write("gap.csv", "1,2,3\n0,3,1\n1,2,2\n");
    let message = place.fail(2, &["run", file.to_str().unwrap()]);
    assert!(message.contains("seeded.toml, line 3, [[dataset]]: seed = 1"), "{message}");
}

#[test]
fn pairs_that_do_not_fit_are_skipped_with_the_reason() {
    let place = Place::new();
    let text = experiment(
        "[[optimizer]]\nname = \"sgd\"\n[[optimizer]]\nname = \"hessian-free\"\n[[optimizer]]\nname = \"admm\"",
    )
    .replace("name = \"logistic\"", "name = \"logistic\"\nregularizer = \"l1\"\nstrength = 0.02");
    let file = place.write("sparse.toml", text);
    let plan = place.succeed(&["run", file.to_str().unwrap(), "--dry-run"]);
    assert!(plan.contains("1 cell in") && plan.contains("Skipped"), "{plan}");
    place.succeed(&["run", file.to_str().unwrap()]);
    let cells = place.cells("sparse");
    for name in ["irls", "sgd", "hessian-free"] {
        let cell = cell(&cells, name);
        assert_eq!(cell["status"], "skipped");
        assert!(cell["reason"].as_str().unwrap().contains("admm"), "{}", cell["reason"]);
    }
    let admm = cell(&cells, "admm");
    assert_eq!(admm["status"], "finished");
    let (nonzero, total) = (admm["parameters_nonzero"].as_u64().unwrap(), admm["parameters_total"].as_u64().unwrap());
    assert!(total == 29 && (2..20).contains(&nonzero), "{nonzero} of {total}");
    // A figure counts them, without a line for each.
    place.succeed(&["report", "runs/sparse"]);
    let figure = std::fs::read_to_string(place.path().join("plots/sparse/accuracy-time.svg")).unwrap();
    assert!(figure.contains("3 pairs of model and optimizer that do not fit were skipped."), "{figure}");
    assert!(!figure.contains("irls skipped"), "{figure}");
}

#[test]
fn divergence_and_a_budget_in_seconds_are_told_as_such() {
    let place = Place::new();
    let diverging = "[[optimizer]]\nname = \"sgd\"\nlearning_rate = 1e300\nlabel = \"wild\"\n\
                     [[optimizer]]\nname = \"sgd\"\nlabel = \"slow\"\nbudget = \"0.3s\"\nbatch_size = 1";
    let file = place.write("ends.toml", experiment(diverging));
    place.fail(1, &["run", file.to_str().unwrap(), "--quiet"]);
    let cells = place.cells("ends");
    let wild = cell(&cells, "wild");
    assert_eq!(wild["status"], "diverged");
    assert!(wild["reason"].as_str().unwrap().starts_with("diverged at step "), "{}", wild["reason"]);
    assert!(wild["test_accuracy"].is_null());
    let slow = cell(&cells, "slow");
    assert_eq!(slow["status"], "timed-out");
    assert!((0.3..1.5).contains(&slow["train_seconds"].as_f64().unwrap()), "{}", slow["train_seconds"]);
    // Drawn and tabulated all the same.
    assert!(place.succeed(&["summary", "runs/ends"]).contains("diverged"));
    place.succeed(&["report", "runs/ends"]);
}

#[test]
fn memory_is_a_number_with_a_unit_and_changes_no_number() {
    let place = Place::new();
    place.write("e.toml", experiment(""));
    for (wrong, finding) in [("1", "a number and a unit"), ("many GiB", "a number and a unit"), ("3MiB", "at least")] {
        let error = place.fail(2, &["run", "e.toml", "--memory", wrong]);
        assert!(error.contains(finding), "{wrong}: {error}");
    }
    let objective = |folder: &str, memory: &[&str]| {
        place.succeed(&[&["run", "e.toml", "--quiet", "--out", &format!("runs/{folder}")], memory].concat());
        cell(&place.cells(folder), "irls")["objective"].as_f64().unwrap()
    };
    assert_eq!(objective("free", &[]), objective("bound", &["--memory", "300 MiB"]));
}
