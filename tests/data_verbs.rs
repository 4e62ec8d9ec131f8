//! The verbs of `data` as a user types them: names before paths, options by their names, texts and damaged files.

#[path = "support/program.rs"]
mod program;

use program::Place;
use serde_json::Value;

#[test]
fn a_registered_name_comes_first_and_takes_no_read_options() {
    let place = Place::new();
    let message = place.fail(2, &["data", "describe", "mnist", "--drop-missing"]);
    assert!(message.contains("--drop-missing: does not apply to the registered dataset mnist"), "{message}");
    let message = place.fail(2, &["data", "import", "mnist", "--header", "true", "--exclude", "1"]);
    assert!(message.contains("--header, --exclude: do not apply to the registered dataset mnist"), "{message}");
}

#[test]
fn an_unknown_name_is_answered_with_the_nearest() {
    let place = Place::new();
    for verb in ["describe", "import", "verify"] {
        let message = place.fail(3, &["data", verb, "mnits"]);
        assert!(message.contains("did you mean `mnist`?"), "{verb}: {message}");
    }
}

#[test]
fn a_registered_text_is_described_as_one_by_its_path_is() {
    let place = Place::new();
    std::fs::create_dir(place.path().join("text")).unwrap();
    let path = place.write("text/tinyshakespeare.txt", "First Citizen:\nSp\u{e9}ak.\n");
    let describe = |data: &str| {
        let mut command = place.command(&["data", "describe", data, "--format", "json"]);
        let output = command.env("PARSIMONY_DATA_DIR", place.path()).output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    };
    let (named, by_path) = (describe("tiny-shakespeare"), describe(path.to_str().unwrap()));
    let file = &named["files"][0];
    assert_eq!((&file["bytes"], &file["characters"], &file["lines"]), (&23.into(), &22.into(), &2.into()));
    assert_eq!((&named["name"], &named["tokens"]), (&"tiny-shakespeare".into(), &22.into()));
    assert_eq!((&named["files"], &named["fingerprint"]), (&by_path["files"], &by_path["fingerprint"]));
    let message = place.fail(2, &["data", "describe", "text/tinyshakespeare.txt", "--rows", "1"]);
    assert!(message.contains("--rows") && message.contains("is a text"), "{message}");
}

#[test]
fn corpora_are_described_and_verified() {
    let place = Place::new();
    place.write("a.txt", "\u{feff}One two three, und dann f\u{fc}nf.\n".repeat(30));
    let text = place.succeed(&["data", "describe", "a.txt", "--tokens", "bytes", "--length", "200"]);
    assert!(text.contains("200 tokens (bytes) of 256 different"), "{text}");
    assert!(text.contains("train") && text.contains("validation") && text.contains("bits per token"), "{text}");
    let text = place.succeed(&["data", "verify", "a.txt"]);
    assert!(text.contains("UTF-8") && text.contains("SHA-256"), "{text}");
    place.write("b.txt", b"first line\nsecond \xff line\n");
    for verb in ["describe", "verify"] {
        let message = place.fail(3, &["data", verb, "b.txt"]);
        assert!(message.contains("line 2: byte 18 (0xff) is not UTF-8"), "{verb}: {message}");
    }
    let small = ["data", "describe", "small-language", "--length", "20000", "--facts", "10", "--format", "json"];
    let found: Value = serde_json::from_str(&place.succeed(&small)).unwrap();
    assert_eq!((&found["tokens_are"], &found["tokens"]), (&"words".into(), &20_000.into()));
    assert!(found["entropy"]["nats_per_token"].as_f64().is_some_and(|nats| nats > 1.0), "{found}");
    for (arguments, named) in [
        (&["small-language", "--rows", "5"][..], "is a text"),
        (&["small-language", "--tokens", "bytes"], "`tokens` is given"),
        (&["small-language", "--facts", "0"], "facts = 0"),
        (&["a.txt", "--facts", "5"], "`facts` is given"),
        (&["a.txt", "--length", "0"], "length = 0"),
        (&["higgs-sim", "--length", "5"], "`length` is given"),
    ] {
        let message = place.fail(2, &[&["data", "describe"], arguments].concat());
        assert!(message.contains(named), "{message}");
    }
    let text = place.succeed(&["list", "datasets"]);
    let line = text.lines().find(|line| line.contains("small-language")).unwrap();
    assert!(line.contains("a text") && line.contains("generated here"), "{line}");
    let text = place.succeed(&["data", "verify", "small-language"]);
    assert!(text.contains("nothing to verify"), "{text}");
}

#[test]
fn the_options_that_messages_name_are_taken() {
    let place = Place::new();
    place.write("a.csv", "x,y\n1,1\n2,2\n3,3\n");
    let describe = |arguments: &[&str]| -> Value {
        let command = [&["data", "describe"], arguments, &["--format", "json"]].concat();
        serde_json::from_str(&place.succeed(&command)).unwrap()
    };
    assert_eq!(describe(&["a.csv"])["classes"].as_array().unwrap().len(), 3);
    assert_eq!(describe(&["a.csv", "--task", "regression"])["target"]["max"], 3.0);
    place.write("a.svm", "1 1:1\n-1 2:1\n");
    let wide = describe(&["a.svm", "--features", "9"]);
    assert_eq!(wide["columns"].as_array().unwrap().len(), 9);
    let message = place.fail(3, &["data", "describe", "a.svm", "--dense-limit", "1"]);
    assert!(message.contains("raise dense_limit"), "{message}");
    let message = place.fail(3, &["data", "describe", "a.csv", "--dense-limit", "1"]);
    assert!(message.contains("raise dense_limit"), "{message}");
}

/// An IDX file of bytes.
fn idx(dimensions: &[u32], bytes: &[u8]) -> Vec<u8> {
    let sizes: Vec<u8> = dimensions.iter().flat_map(|size| size.to_be_bytes()).collect();
    [&[0, 0, 8, dimensions.len() as u8], &sizes[..], bytes].concat()
}

#[test]
fn labels_of_images_are_classes_however_many() {
    let place = Place::new();
    let labels: Vec<u8> = (0..62).collect();
    place.write("letters-images-idx3-ubyte", idx(&[62, 1, 2], &[7; 124]));
    place.write("letters-labels-idx1-ubyte", idx(&[62], &labels));
    let describe = |more: &[&str]| -> Value {
        let command = [&["data", "describe", "letters-images-idx3-ubyte", "--format", "json"], more].concat();
        serde_json::from_str(&place.succeed(&command)).unwrap()
    };
    assert_eq!(describe(&[])["classes"].as_array().unwrap().len(), 62);
    assert_eq!(describe(&["--task", "regression"])["target"]["max"], 61.0);
}

#[test]
fn a_file_without_a_registered_checksum_is_compared_with_the_recorded_one() {
    let place = Place::new();
    std::fs::create_dir(place.path().join("libsvm")).unwrap();
    // SHA-256 of "abc" (FIPS 180-2, appendix B.1).
    let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    place.write("libsvm/sonar.csv", "abc");
    let verify = || {
        let mut command = place.command(&["data", "verify", "sonar"]);
        command.env("PARSIMONY_DATA_DIR", place.path()).output().unwrap()
    };
    assert!(String::from_utf8_lossy(&verify().stdout).contains("nothing to compare with"));
    place.write("libsvm/sonar.csv.sha256", format!("{digest}  sonar.csv\n"));
    assert!(String::from_utf8_lossy(&verify().stdout).contains("as recorded"));
    place.write("libsvm/sonar.csv", "abd");
    let output = verify();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{message}");
    assert!(message.contains(digest) && message.contains("is recorded") && message.contains("sonar.csv"), "{message}");
}

#[test]
fn missing_values_are_described_by_column() {
    let place = Place::new();
    place.write("a.csv", "x,empty,z,label\n1,NA,0,a\n?,,4,b\n3,,nan,a\n5,,8,\n");
    let describe = |arguments: &[&str]| -> Value {
        let command = [&["data", "describe"], arguments, &["--format", "json"]].concat();
        serde_json::from_str(&place.succeed(&command)).unwrap()
    };
    let found = describe(&["a.csv"]);
    // The row without a label is left out; the others stay.
    assert_eq!((&found["rows"], &found["missing"], &found["dropped_rows"]), (&3.into(), &5.into(), &1.into()));
    let [x, empty, z] = &found["columns"].as_array().unwrap()[..] else { panic!("three columns") };
    assert_eq!((&x["missing"], &empty["missing"], &z["missing"]), (&1.into(), &3.into(), &1.into()));
    let numbers = |column: &Value| ["min", "mean", "sd", "max"].map(|key| column[key].as_f64());
    assert_eq!(numbers(x), [1.0, 2.0, 1.0, 3.0].map(Some));
    assert_eq!(numbers(z), [0.0, 2.0, 2.0, 4.0].map(Some));
    assert_eq!(numbers(empty), [None; 4]);
    let rows: u64 = x["histogram"].as_array().unwrap().iter().map(|rows| rows.as_u64().unwrap()).sum();
    assert_eq!((rows, &x["distinct"], &z["zeros"]), (2, &2.into(), &1.into()));
    let text = place.succeed(&["data", "describe", "a.csv"]);
    assert!(text.contains("5 missing values") && text.contains("1 rows left out"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("  column") && line.contains("missing")), "{text}");

    place.write("b.csv", "x,label\n1,a\n,b\n3,b\n");
    let full = describe(&["b.csv", "--drop-missing"]);
    assert_eq!((&full["rows"], &full["missing"], &full["dropped_rows"]), (&2.into(), &0.into(), &1.into()));
    // Whatever is for training refuses them still, and no experiment file can ask for them.
    let message = place.fail(3, &["data", "import", "a.csv", "--out", "a.store"]);
    assert!(message.contains("missing"), "{message}");
    assert!(serde_json::from_str::<parsimony::data::ReadOptions>(r#"{"missing": "keep"}"#).is_err());
}

/// Rows of the layout of the sonar dataset, all features of which are `value`.
fn sonar(rows: usize, value: u8) -> String {
    (0..rows)
        .map(|row| format!("{}{}\n", format!("{value},").repeat(60), if row % 2 == 0 { "M" } else { "R" }))
        .collect()
}

#[test]
fn a_registered_file_cut_short_is_refused() {
    let place = Place::new();
    std::fs::create_dir(place.path().join("libsvm")).unwrap();
    place.write("libsvm/sonar.csv", sonar(207, 1));
    for arguments in [&["data", "describe", "sonar"][..], &["data", "import", "sonar"]] {
        let output = place.command(arguments).env("PARSIMONY_DATA_DIR", place.path()).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{message}");
        assert!(message.contains("sonar.csv") && message.contains("207 rows"), "{message}");
        assert!(message.contains("has 208") && message.contains("data fetch sonar"), "{message}");
    }
    assert!(!place.path().join("cache/stores/sonar.store").exists(), "no store of a file that was refused");
}

#[test]
fn a_cached_store_serves_the_file_it_was_imported_from_alone() {
    let place = Place::new();
    for (folder, value) in [("a", 1), ("b", 2)] {
        std::fs::create_dir_all(place.path().join(folder).join("libsvm")).unwrap();
        place.write(&format!("{folder}/libsvm/sonar.csv"), sonar(208, value));
    }
    let run = |folder: &str, arguments: &[&str]| {
        // A relative folder: the store remembers where it was.
        let output = place.command(arguments).env("PARSIMONY_DATA_DIR", folder).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let maximum = |folder| run(folder, &["data", "describe", "sonar", "--format", "json"])["columns"][0]["max"].clone();
    run("a", &["data", "import", "sonar", "--format", "json"]);
    assert_eq!((maximum("a"), maximum("b")), (1.0.into(), 2.0.into()));
    // Gone to save space: what was imported is all there is.
    std::fs::remove_file(place.path().join("a/libsvm/sonar.csv")).unwrap();
    assert_eq!(maximum("a"), 1.0);
}

#[test]
fn missing_values_of_a_parquet_file_are_described_too() {
    use polars::prelude::ParquetWriter;
    let mut frame =
        polars::df!("x" => [Some(1.0f64), None, Some(3.0)], "label" => [Some("a"), Some("b"), None]).unwrap();
    let mut bytes = Vec::new();
    ParquetWriter::new(&mut bytes).finish(&mut frame).unwrap();
    let place = Place::new();
    place.write("gaps.parquet", bytes);
    let text = place.succeed(&["data", "describe", "gaps.parquet", "--format", "json", "--task", "classification"]);
    let found: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&found["rows"], &found["missing"], &found["dropped_rows"]), (&2.into(), &1.into(), &1.into()));
    assert!(place.fail(3, &["data", "import", "gaps.parquet", "--out", "a.store"]).contains("gaps.parquet"));
}
