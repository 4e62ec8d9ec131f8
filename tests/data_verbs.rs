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
    assert_eq!((&named["bytes"], &named["characters"], &named["lines"]), (&23.into(), &22.into(), &2.into()));
    assert_eq!(named["name"], "tiny-shakespeare");
    for key in ["path", "fingerprint", "bytes", "characters", "lines"] {
        assert_eq!(named[key], by_path[key], "{key}");
    }
    let message = place.fail(2, &["data", "describe", "text/tinyshakespeare.txt", "--rows", "1"]);
    assert!(message.contains("--rows") && message.contains("is a text"), "{message}");
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
    let message = place.fail(2, &["data", "describe", "a.csv", "--dense-limit", "1"]);
    assert!(message.contains("dense_limit: the format csv has no such option"), "{message}");
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
