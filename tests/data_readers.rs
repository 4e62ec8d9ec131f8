//! The real files read to the rows, columns, classes and sums that pandas, scikit-learn and NumPy find in them.
//!
//! The numbers stand in `tests/reference/data_sums.json` beside the script that printed them.

use parsimony::data::locate::test_file;
use parsimony::data::store::{self, ImportOptions, import};
use parsimony::data::{
    ReadOptions, RowOrder, SplitSpec, Standardization, Table, Task, describe, examples, read, read_features, read_text,
};
use serde_json::Value;
use std::path::Path;

fn reference(name: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("reference/data_sums.json")).unwrap();
    all[name].clone()
}

fn assert_close(found: f64, expected: &Value, what: &str) {
    let expected = expected.as_f64().unwrap();
    let scale = expected.abs().max(1.0);
    assert!((found - expected).abs() <= 1e-11 * scale, "{what}: {found} where the reference has {expected}");
}

fn check(name: &str, path: &Path, table: &Table) {
    let expected = reference(name);
    let (rows, columns) = (table.rows(), table.columns.len());
    assert_eq!(Some(rows as u64), expected["rows"].as_u64(), "{name}: rows");
    assert_eq!(Some(columns as u64), expected["columns"].as_u64(), "{name}: columns");
    let Task::Classes(classes) = &table.task else { panic!("{name}: not recognized as classification") };
    assert_eq!(serde_json::to_value(classes).unwrap(), expected["classes"], "{name}: classes");
    let mut counts = vec![0u64; classes.len()];
    (0..rows).for_each(|row| counts[table.targets.get(row, 0) as usize] += 1);
    assert_eq!(serde_json::to_value(counts).unwrap(), expected["counts"], "{name}: rows per class");
    let (mut sum, mut weighted) = (0.0, 0.0);
    for row in 0..rows {
        for column in 0..columns {
            let value = f64::from(table.features.get(row, column));
            sum += value;
            weighted += value * ((row % 1000 + 1) * (column + 1)) as f64;
        }
    }
    assert_close(sum, &expected["sum"], name);
    assert_close(weighted, &expected["weighted"], name);
    let column = |column: usize| (0..rows).map(move |row| f64::from(table.features.get(row, column)));
    assert_close(column(0).sum::<f64>() / rows as f64, &expected["first_column_mean"], name);
    let mean = column(columns - 1).sum::<f64>() / rows as f64;
    let deviation = (column(columns - 1).map(|x| (x - mean).powi(2)).sum::<f64>() / rows as f64).sqrt();
    assert_close(deviation, &expected["last_column_sd"], name);
    assert_eq!(table.name, path.display().to_string());
    assert_eq!(table.fingerprint.len(), 64);
}

fn check_file(name: &str) {
    let Some(path) = test_file(name) else { return };
    check(name, &path, &read(&path, &ReadOptions::default()).unwrap());
}

#[test]
fn higgs() {
    let name = "higgs/higgs-35k.csv.gz";
    let Some(path) = test_file(name) else { return };
    let table = read(&path, &ReadOptions::default()).unwrap();
    check(name, &path, &table);
    assert_eq!((table.columns[0].as_str(), table.columns[27].as_str()), ("lepton_pT", "m_wwbb"));
    // sha256sum of the file itself, compressed as it is.
    assert_eq!(table.fingerprint, "4f0f3049c07e9375f7bab957db8cad098a5533a43790c0abe3e4f5174d2d41d0");

    let (features, targets) = read_features(&path, &ReadOptions::default(), &table.columns).unwrap();
    assert_eq!(features.values(), table.features.values());
    let targets = targets.unwrap().encode(&table.task).unwrap();
    assert_eq!(targets, table.targets.values()[..table.rows()]);
    let error = read_features(&path, &ReadOptions::default(), &table.columns[..20]).unwrap_err();
    assert!(error.to_string().contains("29 columns without names"), "{error}");
}

#[test]
fn csv_without_a_header() {
    check_file("libsvm/banknote_authentication.csv");
    check_file("libsvm/sonar.csv");
}

#[test]
fn libsvm() {
    for name in
        ["a9a.gz", "a9a.t.gz", "w8a.gz", "mushrooms.txt.gz", "svmguide1.txt", "german.numer", "heart_scale", "splice"]
    {
        check_file(&format!("libsvm/{name}"));
    }
}

#[test]
fn libsvm_test_part_with_the_features_of_the_training_part() {
    let Some(path) = test_file("libsvm/a9a.t.gz") else { return };
    let options = ReadOptions { features: Some(123), ..ReadOptions::default() };
    let table = read(&path, &options).unwrap();
    assert_eq!((table.rows(), table.columns.len()), (16_281, 123));
    let (features, _) = read_features(&path, &ReadOptions::default(), &table.columns).unwrap();
    assert_eq!(features.values(), table.features.values());
}

#[test]
fn mnist_from_either_of_its_two_files() {
    check_file("mnist/train-images-idx3-ubyte.gz");
    check_file("mnist/t10k-images-idx3-ubyte.gz");
    let (Some(images), Some(labels)) =
        (test_file("mnist/t10k-images-idx3-ubyte.gz"), test_file("mnist/t10k-labels-idx1-ubyte.gz"))
    else {
        return;
    };
    let (a, b) = (read(&images, &ReadOptions::default()).unwrap(), read(&labels, &ReadOptions::default()).unwrap());
    assert_eq!(a.features.values(), b.features.values());
    assert_eq!(a.targets.values(), b.targets.values());
    assert_eq!(a.columns[783], "pixel_783");
}

#[test]
fn texts() {
    for name in ["tinyshakespeare", "war-and-peace", "wikitext-2-valid", "wikitext-2-test"] {
        let name = format!("text/{name}.txt");
        let Some(path) = test_file(&name) else { continue };
        let corpus = read_text(&path).unwrap();
        let expected = reference(&name);
        let text = std::str::from_utf8(corpus.bytes()).unwrap();
        let symbols: std::collections::HashSet<char> = text.chars().collect();
        assert_eq!(Some(corpus.bytes().len() as u64), expected["bytes"].as_u64(), "{name}: bytes");
        assert_eq!(Some(text.chars().count() as u64), expected["characters"].as_u64(), "{name}: characters");
        assert_eq!(Some(symbols.len() as u64), expected["symbols"].as_u64(), "{name}: symbols");
        let error = read(&path, &ReadOptions::default()).unwrap_err().to_string();
        assert!(error.contains("plain text"), "{error}");
    }
}

#[test]
fn standardization_is_that_of_scikit_learn_on_the_training_part() {
    let Some(path) = test_file("higgs/higgs-35k.csv.gz") else { return };
    let table = read(&path, &ReadOptions::default()).unwrap();
    let splits = SplitSpec::Folds { count: 5, fold: 2, validation: Some(0.0), seed: 0 }.apply(&table).unwrap();
    let fitted = Standardization::fit(&examples(&table, &splits.train));
    let expected = reference("StandardScaler");
    for column in 0..28 {
        assert_close(fitted.mean[column], &expected["mean"][column], "mean");
        assert_close(fitted.scale[column], &expected["scale"][column], "scale");
    }
    assert!(fitted.constant.is_empty());
}

#[test]
fn an_imported_file_is_the_file_read() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["higgs/higgs-35k.csv.gz", "libsvm/w8a.gz", "mnist/t10k-images-idx3-ubyte.gz", "libsvm/sonar.csv"] {
        let Some(path) = test_file(name) else { continue };
        let read = read(&path, &ReadOptions::default()).unwrap();
        let out = folder.path().join("a.store");
        let report = import(&path, &out, &ImportOptions::default(), &|done, all| assert!(done <= all)).unwrap();
        let stored = store::open(&out).unwrap();
        assert_eq!(stored.features.values(), read.features.values(), "{name}");
        assert_eq!(stored.targets.values(), read.targets.values(), "{name}");
        assert_eq!((stored.task, stored.columns, stored.fingerprint), (read.task, read.columns, read.fingerprint));
        assert_eq!((report.rows, report.order), (read.features.rows(), RowOrder::AsRead));
        store::verify(&out).unwrap();
    }
}

#[test]
fn higgs_at_a_glance() {
    let Some(path) = test_file("higgs/higgs-35k.csv.gz") else { return };
    let found = describe(&read(&path, &ReadOptions::default()).unwrap());
    println!("{found}");
    assert_eq!((found.rows, found.missing, found.classes[1].rows), (35_296, 0, 18_657));
    let tag = &found.columns[8];
    assert_eq!((tag.name.as_str(), tag.distinct, tag.zeros > 0), ("jet1_b_tag", Some(3), true));
}
