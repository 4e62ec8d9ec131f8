//! What readers and stores refuse, and that they say file, line, column, finding and remedy; and that no bytes
//! whatever make them panic.

use parsimony::data::store::{self, ImportOptions, StoreLabel, StoreWriter, import};
use parsimony::data::{Format, ReadOptions, RowOrder, Table, Task, higgs_sim, read, read_features, read_text};
use proptest::prelude::*;
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn file(folder: &TempDir, name: &str, content: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Reads `content` and asserts that the message has the place, the finding and a remedy of the second line.
fn refused(name: &str, content: &[u8], options: &ReadOptions, place: &str, finding: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, name, content);
    let error = read(&path, options).expect_err(finding);
    let text = error.to_string();
    assert!(text.starts_with(&format!("{}{place}: ", path.display())), "place {place:?} in {text:?}");
    assert!(text.contains(finding), "{finding:?} in {text:?}");
    assert!(text.lines().nth(1).is_some_and(|remedy| remedy.trim().len() > 10), "a remedy in {text:?}");
    assert_eq!(error.exit_code(), 3, "{text}");
}

fn table(name: &str, content: &[u8], options: &ReadOptions) -> Table {
    let folder = tempfile::tempdir().unwrap();
    read(&file(&folder, name, content), options).unwrap()
}

fn plain() -> ReadOptions {
    ReadOptions::default()
}

#[test]
fn csv_that_cannot_be_used_is_refused_by_place() {
    let csv =
        |content: &str, place: &str, finding: &str| refused("a.csv", content.as_bytes(), &plain(), place, finding);
    csv("", "", "empty");
    csv("\n\n", "", "no rows");
    csv("a,b,label\n", "", "no rows");
    csv("a,b,label\n1,2,0\n3,,1\n", ", line 3, column 2 (b)", "the value is missing (empty field)");
    csv("a,b,label\n1,2,0\n3,NA,1\n?,nan,1\n", ", line 3, column 2 (b)", "the first of 3 missing values");
    csv("1,2,0\n3,4,1\n5,inf,1\n", ", line 3, column 2", "\"inf\" is not a finite number");
    csv("1,2,0\n3,4,1\n5,-1e999,1\n", ", line 3, column 2", "beyond the range");
    csv("1,2,0\n3,4,1\n\n5,x,1\n", ", line 4, column 2", "\"x\" is not a number");
    csv("1,2,0\n3,4\n", ", line 2", "2 columns where the first line has 3");
    csv("1,2,0\n3,4,1,1\n", ", line 2", "4 columns where the first line has 3");
    csv("a,b,y\n1,2,0\n3,\"4,1\n5,6,7\n", ", line 3", "not closed");
    csv("1,2,1\n3,4,1\n", ", column 3", "single class");
    csv("1,2,0\n3,4,yes\n", ", line 2, column 3", "the label \"yes\" is not a number");
    csv("1,2,0\n3,4,\n", ", line 2, column 3", "the value is missing");
    csv("1\n2\n", ", line 1", "a single column");
    csv("a,b,a\n1,2,0\n", ", line 1, column 3", "appears twice, first for column 1");
    csv("a,b,label\n1,2,0\n\"x\ny\",4,1\n", ", line 3, column 1 (a)", "is not a number");
    let target = ReadOptions { target: Some("lable".into()), ..plain() };
    refused("a.csv", b"a,label\n1,0\n", &target, "", "no column \"lable\"");
}

#[test]
fn a_line_far_down_is_counted_rightly() {
    // Longer than a block, so that several workers count lines.
    let mut text = "1.5,2.5,0\n0.5,1.5,1\n".repeat(200_000);
    text.push_str("1,oops,1\n");
    refused("a.csv", text.as_bytes(), &plain(), ", line 400001, column 2", "\"oops\"");
    let mut quoted = "1,\"two\nlines\",0\n".repeat(100_000);
    quoted.push_str("1,\"\n\n\",1\n,\"\",1\n");
    let options = ReadOptions { exclude: vec!["2".into()], ..plain() };
    refused("a.csv", quoted.as_bytes(), &options, ", line 200004, column 1", "missing");
}

#[test]
fn libsvm_that_cannot_be_used_is_refused_by_place() {
    let libsvm = |content: &str, place: &str, finding: &str| {
        let options = ReadOptions { format: Some(Format::Libsvm), ..plain() };
        refused("a.svm", content.as_bytes(), &options, place, finding);
    };
    libsvm("1 1:1 3:2\n-1 3:1 3:2\n", ", line 2, column 3", "the index 3 follows the index 3");
    libsvm("1 1:1 3:2\n\n# c\n-1 3:1 2:2 # d\n", ", line 4, column 3", "the index 2 follows the index 3");
    libsvm("1 0:1\n-1 1:1\n", ", line 1, column 2", "indices count from 1");
    libsvm("1 a:1\n", ", line 1, column 2", "not an index");
    libsvm("1 1:\n", ", line 1, column 2", "missing");
    libsvm("1 1:inf\n", ", line 1, column 2", "not a finite number");
    libsvm("1 17\n", ", line 1, column 2", "not of the form index:value");
    libsvm("1 99999999999999999999:1\n", ", line 1, column 2", "too large");
    libsvm("1:1 2:1\n", ", line 1, column 1 (label)", "is not a number");
    libsvm("1\n-1\n", "", "no feature has a value");
    libsvm("1 1:1\n1 1:2\n", ", column 1 (label)", "single class");
    libsvm("1 2000000000:1\n-1 1:2\n", "", "GiB once dense, more than the limit of 4.0 GiB");
    let few = ReadOptions { features: Some(2), ..plain() };
    refused("a.svm", b"1 3:1\n-1 1:1\n", &few, "", "feature 3 occurs");
}

#[test]
fn files_of_other_kinds_are_refused_by_name() {
    refused("a.csv.gz", &gzip(&b"1,2,0\n3,4,1\n".repeat(100_000))[..60], &plain(), "", "truncated");
    let mut damaged = gzip(&b"1,2,0\n3,4,1\n".repeat(1000));
    let middle = damaged.len() - 6;
    damaged[middle] ^= 0xff;
    refused("a.csv.gz", &damaged, &plain(), "", "the gzip data are damaged");
    refused("a.zip", b"PK\x03\x04abc", &plain(), "", "a zip archive");
    refused("a.dat", b"\x01\x02\x00\x03", &plain(), "", "binary data");
    refused("a.txt", b"To be, or not to be,\nthat is the question\n", &plain(), "", "plain text");
    refused(
        "a.csv",
        "a,b\n".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>().as_slice(),
        &plain(),
        "",
        "binary",
    );
    refused("a.parquet", b"PAR1 and no more", &plain(), "", "not a readable Parquet file");
    let forced = ReadOptions { format: Some(Format::Parquet), ..plain() };
    refused("a.csv", b"1,2\n", &forced, "", "magic number PAR1");
    let folder = tempfile::tempdir().unwrap();
    let error = read(folder.path(), &plain()).unwrap_err().to_string();
    assert!(error.contains("this is a folder") && error.contains("the folder is empty"), "{error}");
    let error = read(&folder.path().join("none.csv"), &plain()).unwrap_err();
    assert!(error.to_string().contains("no such file") && error.exit_code() == 3, "{error}");
}

#[test]
fn idx_that_cannot_be_used_is_refused() {
    let images = [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2][..], &[1, 2, 3, 4]].concat();
    let labels = [0, 0, 8, 1, 0, 0, 0, 2, 0, 1];
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "x-images-idx3-ubyte", &images);
    let error = read(&path, &plain()).unwrap_err().to_string();
    assert!(
        error.contains("the file of the labels is not beside it") && error.contains("x-labels-idx1-ubyte"),
        "{error}"
    );
    file(&folder, "x-labels-idx1-ubyte", &labels);
    let table = read(&path, &plain()).unwrap();
    assert_eq!((table.rows(), table.features.get(1, 1), table.targets.get(1, 0)), (2, 4.0, 1.0));
    file(&folder, "x-labels-idx1-ubyte", &labels[..9]);
    let error = read(&path, &plain()).unwrap_err().to_string();
    assert!(error.contains("x-labels-idx1-ubyte: 9 bytes, where the dimensions [2] need 10"), "{error}");
    file(&folder, "x-labels-idx1-ubyte", &[0, 0, 8, 1, 0, 0, 0, 1, 0]);
    assert!(read(&path, &plain()).unwrap_err().to_string().contains("[1] labels for the 2 images"));

    let forced = ReadOptions { format: Some(Format::Idx), ..plain() };
    refused("a-ubyte", b"\x00\x00\x07\x01\x00\x00\x00\x00", &forced, "", "the element type 0x07");
    refused("a-ubyte", b"\x89PNG....", &forced, "", "the magic number 0x89504e47 at byte 0 is not that of an IDX");
    refused("a-ubyte", b"\x00\x00\x08\x03\x00\x00", &forced, "", "inside its header");
    let huge = [&[0, 0, 0x0e, 8][..], &[0xff; 32]].concat();
    refused("a-ubyte", &huge, &forced, "", "larger than any file");
}

#[test]
fn tables_with_and_without_headers_mean_the_same() {
    let bare = table("a.csv", b"1.5,2,0\r\n3,4,1\r\n5,6,1", &plain());
    let named = table("b.tsv", b"\xef\xbb\xbfa\tlabel\tb\n1.5\t0\t2\n 3 \t1\t\"4\"\n5\t1\t6\n", &plain());
    assert_eq!(bare.features.values(), named.features.values());
    assert_eq!(bare.targets.values(), named.targets.values());
    assert_eq!(bare.columns, ["column_1", "column_2"]);
    assert_eq!(named.columns, ["a", "b"]);
    let counted = table("c.csv", b"0,1,label\n1.5,2,0\n3,4,1\n5,6,1\n", &plain());
    assert_eq!(counted.columns, ["0", "1"]);
    let semicolons = table("d.csv", b"\"a\";\"b\";\"quality\"\n1.5;2;0\n3;4;1\n5;6;1\n", &plain());
    assert_eq!(semicolons.features.values(), bare.features.values());
    let options = ReadOptions { target: Some("1".into()), exclude: vec!["b".into()], ..plain() };
    let other = table("e.csv", b"x,a,b\nred,1,text\nblue,2,text\nred,3,text\n", &options);
    assert_eq!(other.task, Task::Classes(vec!["blue".into(), "red".into()]));
    assert_eq!((other.columns.as_slice(), other.targets.get(1, 0)), (["a".to_owned()].as_slice(), 0.0));
}

#[test]
fn rows_with_missing_values_are_left_out_on_request() {
    let options = ReadOptions { missing: parsimony::data::read::Missing::DropRows, ..plain() };
    let kept = table("a.csv", b"1,2,0\n3,,1\n5,6,1\nNA,8,?\n9,10,0\n", &options);
    assert_eq!((kept.rows(), kept.features.get(1, 0), kept.targets.get(2, 0)), (3, 5.0, 0.0));
    refused("a.csv", b"1,,0\n3,,1\n", &options, "", "a value is missing in each of the 2 rows");
}

#[test]
fn targets_are_what_they_look_like_unless_told() {
    let regression = table("a.csv", b"1,0.5\n2,1.5\n", &plain());
    assert_eq!(regression.task, Task::Regression);
    let forced = ReadOptions { task: Some(parsimony::data::read::TaskKind::Regression), ..plain() };
    let numbers = table("a.csv", b"1,1\n2,1\n", &forced);
    assert_eq!((numbers.task, numbers.targets.get(1, 0)), (Task::Regression, 1.0));
    let forced = ReadOptions { task: Some(parsimony::data::read::TaskKind::Classification), ..plain() };
    let classes = table("a.csv", b"1,1.0\n2,b\n3,1\n", &forced);
    assert_eq!(classes.task, Task::Classes(vec!["1".into(), "b".into()]));
}

#[test]
fn wanted_columns_are_found_by_name_and_by_number() {
    let folder = tempfile::tempdir().unwrap();
    let wanted = ["b".to_owned(), "a".to_owned()];
    let path = file(&folder, "a.csv", b"a,extra,b,label\n1,x,2,0\n3,y,4,1\n");
    let (features, targets) = read_features(&path, &plain(), &wanted).unwrap();
    assert_eq!((features.get(1, 0), features.get(1, 1)), (4.0, 3.0));
    assert_eq!(targets.unwrap().len(), 2);
    let path = file(&folder, "b.csv", b"1,2\n3,4\n");
    let (features, targets) = read_features(&path, &plain(), &wanted).unwrap();
    assert_eq!((features.get(1, 0), targets), (3.0, None));
    let path = file(&folder, "c.csv", b"a,bb\n1,2\n3,4\n");
    let error = read_features(&path, &plain(), &wanted).unwrap_err().to_string();
    assert!(error.contains("no column is named \"b\"") && error.contains("did you mean \"bb\""), "{error}");
    let path = file(&folder, "d.csv", b"1,2,3,4\n");
    assert!(read_features(&path, &plain(), &wanted).is_err());
}

#[test]
fn texts_are_utf8_without_their_byte_order_mark() {
    let folder = tempfile::tempdir().unwrap();
    let text = "First\nzweite Größe\n".as_bytes();
    let marked = [b"\xef\xbb\xbf", text].concat();
    assert_eq!(read_text(&file(&folder, "a.txt", &marked)).unwrap().bytes(), text);
    assert_eq!(read_text(&file(&folder, "a.txt.gz", &gzip(&marked))).unwrap().bytes(), text);
    let error = read_text(&file(&folder, "b.txt", b"one\ntwo \xe4\n")).unwrap_err().to_string();
    assert!(error.contains("line 2: byte 8 (0xe4) is not UTF-8"), "{error}");
    assert!(read_text(&file(&folder, "c.txt", b"\xef\xbb\xbf")).unwrap_err().to_string().contains("the text is empty"));
}

/// A small store, and the table it was made from.
fn small_store(folder: &TempDir, shuffle: Option<u64>) -> (PathBuf, Table) {
    let mut csv = String::from("a,b,label\n");
    (0..1000)
        .for_each(|row| csv.push_str(&format!("{row},{},{}\n", 0.5 * f64::from(row), ["no", "yes"][row as usize % 2])));
    let source = file(folder, "a.csv", csv.as_bytes());
    let out = folder.path().join("a.store");
    let report = import(&source, &out, &ImportOptions { shuffle, ..ImportOptions::default() }, &|_, _| {}).unwrap();
    assert_eq!((report.rows, report.bytes), (1000, std::fs::metadata(&out).unwrap().len()));
    (out, read(&source, &plain()).unwrap())
}

#[test]
fn a_store_holds_what_was_read() {
    let folder = tempfile::tempdir().unwrap();
    let (path, table) = small_store(&folder, None);
    let stored = read(&path, &plain()).unwrap();
    assert!(stored.features.is_mapped());
    assert_eq!(stored.features.values(), table.features.values());
    assert_eq!(stored.targets.values(), table.targets.values());
    assert_eq!((&stored.task, &stored.columns, &stored.name), (&table.task, &table.columns, &table.name));
    assert_eq!((stored.fingerprint, stored.order), (table.fingerprint, RowOrder::AsRead));
    assert!(store::verify(&path).unwrap() > 1000 * 12);
    let header = store::inspect(&path).unwrap();
    assert_eq!(header.provenance.target.as_deref(), Some("3 (label)"));
    let (features, targets) = read_features(&path, &plain(), &["b".to_owned()]).unwrap();
    assert_eq!((features.get(999, 0), features.columns()), (499.5, 1));
    assert_eq!(targets.unwrap().encode(&table.task).unwrap(), table.targets.values()[..1000]);
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "nothing but source and store: {left:?}");
}

#[test]
fn options_without_an_effect_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "a.svm", b"1 1:1\n-1 2:1\n");
    let error = read(&path, &ReadOptions { target: Some("1".into()), ..plain() }).unwrap_err();
    assert!(error.to_string().contains("target: the format libsvm has no such option"), "{error}");
    let drop = ReadOptions { missing: parsimony::data::read::Missing::DropRows, ..plain() };
    let error = read(&path, &drop).unwrap_err();
    assert!(error.to_string().contains("--drop-missing): the format libsvm has no such option"), "{error}");
    let error = import(&path, &path, &ImportOptions::default(), &|_, _| {}).unwrap_err();
    assert!(error.to_string().contains("both the source and the store"), "{error}");
    assert_eq!((error.exit_code(), std::fs::read(&path).unwrap().len()), (2, 13));
}

#[test]
fn shuffling_keeps_every_row_with_its_target() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = small_store(&folder, Some(3));
    let stored = store::open(&path).unwrap();
    assert_eq!(stored.order, RowOrder::Shuffled { seed: 3 });
    let mut rows: Vec<usize> = (0..1000).map(|row| stored.features.get(row, 0) as usize).collect();
    assert!(rows.windows(2).filter(|pair| pair[0] + 1 == pair[1]).count() < 20);
    for (place, &row) in rows.iter().enumerate() {
        assert_eq!(stored.features.get(place, 1), 0.5 * row as f32);
        assert_eq!(stored.targets.get(place, 0), (row % 2) as f32);
    }
    rows.sort_unstable();
    assert_eq!(rows, (0..1000).collect::<Vec<_>>());
    let again = tempfile::tempdir().unwrap();
    let (other, _) = small_store(&again, Some(3));
    assert_eq!(store::open(&other).unwrap().features.values(), stored.features.values());
}

#[test]
fn a_damaged_store_is_refused_by_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = small_store(&folder, None);
    let intact = std::fs::read(&path).unwrap();
    let check = |bytes: &[u8], finding: &str| {
        let path = file(&folder, "b.store", bytes);
        let error = store::open(&path).unwrap_err().to_string();
        assert!(error.contains(finding) && error.contains("b.store"), "{finding:?} in {error:?}");
    };
    check(&intact[..intact.len() - 1], "truncated");
    check(&intact[..5000], "truncated: 5000 bytes");
    check(&intact[..100], "less than its first page");
    check(&[&intact[..], b"x"].concat(), "longer than it was written");
    check(b"1,2,3\n", "not a store");
    check(b"", "empty");
    let flipped = |at: usize| {
        let mut bytes = intact.clone();
        bytes[at] ^= 1;
        bytes
    };
    check(&flipped(16), "first page of the store is damaged");
    check(&flipped(intact.len() - 2), "header of the store is damaged");
    // Behind 2 columns of 4 panels, the class number of the first row.
    let mut class = intact.clone();
    class[4096 + 2 * 4096..][..4].copy_from_slice(&7.5f32.to_le_bytes());
    check(&class, "the data are damaged: row 1 has the class number 7.5, of 2");
    let damaged = file(&folder, "c.store", &flipped(5000));
    assert!(store::open(&damaged).is_ok(), "opening does not read the data");
    let error = store::verify(&damaged).unwrap_err().to_string();
    assert!(error.contains("the data between bytes 4096 and"), "{error}");
}

#[test]
fn a_store_can_be_written_panel_by_panel() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("generated.store");
    let columns = ["x".to_owned(), "y".to_owned()];
    let mut writer = StoreWriter::create(&path, &columns).unwrap();
    let panels = parsimony::device::Panels::from_fn(700, 2, |row, column| (row * 2 + column) as f32);
    (0..3).for_each(|panel| writer.push_panel(panels.panel(panel), (700 - 256 * panel).min(256)).unwrap());
    assert!(!path.exists(), "a store appears when it is complete");
    let label = StoreLabel {
        name: "generated".into(),
        simulated: true,
        fingerprint: "none".into(),
        task: Task::Regression,
        order: RowOrder::AsRead,
        provenance: store::Provenance::default(),
    };
    writer.finish(&[1.5; 700], label).unwrap();
    let table = store::open(&path).unwrap();
    assert!(table.simulated);
    assert_eq!((table.features.values(), table.targets.get(699, 0)), (panels.values(), 1.5));
}

#[test]
fn events_written_batch_by_batch_are_those_made_at_once() {
    // More than a batch, and a last panel that is not full.
    let (seed, rows) = (7, 263_000);
    let folder = tempfile::tempdir().unwrap();
    let (path, text) = (folder.path().join("events.store"), folder.path().join("events.csv"));
    let own = file(&folder, "events.partial", b"the user's own");
    let done = std::cell::RefCell::new(Vec::new());
    higgs_sim::write_store(seed, rows, &path, &|events| done.borrow_mut().push(events)).unwrap();
    higgs_sim::write_csv(seed, rows, &text, &|_| ()).unwrap();
    assert_eq!(*done.borrow(), [262_144, rows]);

    let table = higgs_sim::generate(seed, rows);
    let stored = store::open(&path).unwrap();
    assert!(stored.features.values() == table.features.values() && stored.targets.values() == table.targets.values());
    assert_eq!((&stored.name, &stored.fingerprint, &stored.task), (&table.name, &table.fingerprint, &table.task));
    assert_eq!((stored.columns, stored.simulated), (table.columns.clone(), true));
    assert!(store::verify(&path).unwrap() > 29 * 4 * rows as u64);

    let mut expected = String::new();
    for row in 0..rows {
        write!(expected, "{}", table.targets.get(row, 0)).unwrap();
        (0..table.columns.len()).for_each(|c| write!(expected, ",{}", table.features.get(row, c)).unwrap());
        expected.push('\n');
    }
    assert!(std::fs::read_to_string(&text).unwrap() == expected, "the text is that of the table");
    assert_eq!(std::fs::read(own).unwrap(), b"the user's own");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "nothing partial stays");

    let nowhere = folder.path().join("absent/events.csv");
    assert!(higgs_sim::write_csv(seed, 10, &nowhere, &|_| ()).unwrap_err().to_string().contains("cannot create"));
}

#[test]
fn tables_too_wide_for_memory_are_refused_before_they_take_it() {
    let libsvm = ReadOptions { format: Some(Format::Libsvm), ..plain() };
    let (wide, finding) = (b"1 4000000:1\n-1 1:2\n", "2 rows x 4000000 features would take 7.6 GiB once dense");
    refused("a.svm", wide, &libsvm, "", finding);
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (file(&folder, "a.svm", wide), folder.path().join("a.store"));
    let options = ImportOptions { read: libsvm.clone(), ..ImportOptions::default() };
    assert!(import(&source, &out, &options, &|_, _| ()).unwrap_err().to_string().contains(finding));
    // What takes less than the limit is read as before.
    assert_eq!(table("a.svm", b"1 40000:1\n-1 1:2\n", &libsvm).columns.len(), 40_000);

    let limit = ReadOptions { dense_limit: 4096, ..plain() };
    refused("a.csv", b"1,2,3,0\n4,5,6,1\n", &limit, "", "rows x 3 features would take");
    assert_eq!(table("a.csv", b"1,2,0\n4,5,1\n", &limit).columns.len(), 2);

    let images = [&[0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 8, 0, 0, 0, 8, 0][..], &vec![1; 1 << 22]].concat();
    let images = file(&folder, "a-images-idx3-ubyte", &images);
    file(&folder, "a-labels-idx1-ubyte", &[0, 0, 8, 1, 0, 0, 0, 1, 7]);
    let error = read(&images, &plain()).unwrap_err().to_string();
    assert!(error.contains("x 4194304 features would take 8.0 GiB"), "{error}");
}

fn never_panics(folder: &Path, bytes: &[u8]) {
    let path = folder.join("bytes");
    std::fs::write(&path, bytes).unwrap();
    let out = folder.join("out.store");
    for format in [None].into_iter().chain(Format::ALL.map(Some)) {
        let is_limited = matches!(format, Some(Format::Csv | Format::Tsv | Format::Parquet | Format::Libsvm));
        let dense_limit = if is_limited { 1 << 24 } else { plain().dense_limit };
        let options = ReadOptions { format, dense_limit, ..plain() };
        if let Ok(table) = read(&path, &options) {
            // What a damaged store holds is for `verify` to find.
            let finite = || table.features.values().iter().all(|value| value.is_finite());
            assert!(table.rows() > 0 && (table.features.is_mapped() || finite()));
        }
        let _ = read_features(&path, &options, &["a".to_owned(), "column_2".to_owned()]);
    }
    let options = ImportOptions { shuffle: Some(1), ..ImportOptions::default() };
    let _ = import(&path, &out, &options, &|_, _| {});
    let _ = read_text(&path);
    let _ = store::verify(&path);
}

/// Valid files of each kind, to be damaged.
fn samples() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = small_store(&folder, None);
    let mut frame = polars::df!("a" => [1.0f64, 2.0, 3.0], "b" => [1i32, 2, 3], "label" => ["x", "y", "x"]).unwrap();
    let mut parquet = Vec::new();
    polars::prelude::ParquetWriter::new(&mut parquet).finish(&mut frame).unwrap();
    vec![
        b"a,b,label\n1,2.5,0\n3,\"4\",1\n-5e3,6,1\n".to_vec(),
        b"1\t2\tx\n3\t4\ty\n".to_vec(),
        b"+1 1:0.5 3:2\n-1 2:1e3 # c\n\n+1\n".to_vec(),
        gzip(b"1,2,0\n3,4,1\n"),
        [&[0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2][..], &[1, 2]].concat(),
        parquet,
        std::fs::read(store).unwrap(),
    ]
}

#[test]
fn parquet_reads_as_polars_wrote_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "a.parquet", &samples()[5]);
    let table = read(&path, &plain()).unwrap();
    assert_eq!(table.columns, ["a", "b"]);
    assert_eq!(table.task, Task::Classes(vec!["x".into(), "y".into()]));
    assert_eq!((table.features.get(2, 1), table.targets.get(1, 0)), (3.0, 1.0));
    let mut frame = polars::df!("a" => [Some(1.0f64), None], "y" => [0, 1]).unwrap();
    let mut bytes = Vec::new();
    polars::prelude::ParquetWriter::new(&mut bytes).finish(&mut frame).unwrap();
    refused("b.parquet", &bytes, &plain(), ", column 1 (a)", "row 2: the value is missing");
}

#[test]
fn parquet_columns_of_every_numeric_type_are_numbers_and_unused_ones_do_no_harm() {
    use polars::prelude::{Column, DataFrame, DataType, NamedFrom, ParquetWriter, Series};
    let of_kind = |name: &str, kind: &DataType| -> Column {
        Series::new(name.into(), [1.0f64, 2.0, 3.0, 4.0]).cast(kind).unwrap().into()
    };
    let kinds = [
        DataType::Int8,
        DataType::Int16,
        DataType::Int64,
        DataType::UInt16,
        DataType::UInt32,
        DataType::Float32,
        DataType::Float16,
        DataType::Decimal(10, 2),
    ];
    let mut columns: Vec<Column> = kinds.iter().enumerate().map(|(i, kind)| of_kind(&format!("x{i}"), kind)).collect();
    columns.push(Series::new("text".into(), ["p", "q", "p", "q"]).into());
    columns.push(Series::new("label".into(), [1.0f64, 0.0, 1.0, 0.0]).cast(&DataType::UInt8).unwrap().into());
    let mut bytes = Vec::new();
    ParquetWriter::new(&mut bytes).finish(&mut DataFrame::new(4, columns).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "kinds.parquet", &bytes);
    let table = read(&path, &ReadOptions { exclude: vec!["text".into()], ..plain() }).unwrap();
    assert_eq!(table.columns.len(), kinds.len());
    assert_eq!(table.task, Task::Classes(vec!["0".into(), "1".into()]));
    for (column, kind) in kinds.iter().enumerate() {
        let values: Vec<f32> = (0..4).map(|row| table.features.get(row, column)).collect();
        assert_eq!(values, [1.0, 2.0, 3.0, 4.0], "{kind}");
    }
    refused("kinds.parquet", &bytes, &plain(), ", column 9 (text)", "is no feature");
}

/// Where the description of a Parquet file begins. Damage is tried from there on: polars believes the number of values
/// that the header of a page states, and a process that asks for petabytes is ended by the allocator.
fn parquet_footer(bytes: &[u8]) -> usize {
    let (_, end) = bytes.split_last_chunk::<8>().unwrap();
    bytes.len() - 8 - u32::from_le_bytes([end[0], end[1], end[2], end[3]]) as usize
}

#[test]
fn parquet_with_a_damaged_description_is_refused_or_read() {
    let folder = tempfile::tempdir().unwrap();
    let whole = samples().swap_remove(5);
    for place in parquet_footer(&whole)..whole.len() {
        for value in [0, 0x7f, 0xff] {
            let mut bytes = whole.clone();
            bytes[place] = value;
            let path = file(&folder, "damaged.parquet", &bytes);
            if let Err(error) = read(&path, &plain()) {
                assert!(error.to_string().contains("damaged.parquet"), "{error}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic_a_reader(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        never_panics(tempfile::tempdir().unwrap().path(), &bytes);
    }

    #[test]
    fn no_text_panics_a_reader(text in "[-+0-9.eExa:,;\t \"#\r\n]{0,200}") {
        never_panics(tempfile::tempdir().unwrap().path(), text.as_bytes());
    }

    #[test]
    fn no_damage_panics_a_reader(
        kind in 0usize..7,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        keep in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = samples().swap_remove(kind);
        let first = if kind == 5 { parquet_footer(&bytes) } else { 0 };
        for (place, value) in changes {
            let place = first + place.index(bytes.len() - first);
            bytes[place] = value;
        }
        if cut {
            bytes.truncate(keep.index(bytes.len()));
        }
        never_panics(tempfile::tempdir().unwrap().path(), &bytes);
    }
}

#[test]
fn long_gzipped_text_is_read_and_a_damaged_header_asks_for_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let text = "Long, but not endless.\n".repeat(50_000);
    let corpus = read_text(&file(&folder, "a.txt.gz", &gzip(text.as_bytes()))).unwrap();
    assert_eq!(corpus.bytes(), text.as_bytes());
    let idx = ReadOptions { format: Some(Format::Idx), ..plain() };
    let claims = [&[0, 0, 8, 3, 0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff][..], &[1; 40]].concat();
    refused("a-ubyte", &claims, &idx, "", "56 bytes, where the dimensions");
    refused("a-ubyte.gz", &gzip(&claims), &idx, "", "56 bytes, where the dimensions");
    let path = file(&folder, "t-images-idx3-ubyte", &[&[0, 0, 8, 5, 0, 0, 0, 0][..], &[0xff; 16]].concat());
    file(&folder, "t-labels-idx1-ubyte", &[0, 0, 8, 1, 0, 0, 0, 0]);
    let error = read(&path, &plain()).unwrap_err().to_string();
    assert!(error.contains("larger than any image"), "{error}");
}

#[test]
fn padding_and_marks_are_passed_over_and_damage_has_its_place() {
    let rows = "1,2,0\n3,4,1\n".repeat(100_000);
    let padded = [gzip(rows.as_bytes()), gzip(b"5,6,1\n"), vec![0; 300_000]].concat();
    let read = table("a.csv.gz", &padded, &plain());
    assert_eq!((read.rows(), read.features.get(200_000, 1)), (200_001, 6.0));
    let sparse = table("a.svm", b"\xef\xbb\xbf1 1:1\n-1 2:1\n", &plain());
    assert_eq!((sparse.rows(), sparse.columns.len()), (2, 2));
    let mut damaged = gzip(rows.as_bytes());
    let crc = damaged.len() - 6;
    damaged[crc] ^= 0xff;
    refused("a.csv.gz", &damaged, &plain(), "", "damaged after 1200000 decompressed bytes");
    let garbage = [gzip(rows.as_bytes()), b"and what is no member".to_vec()].concat();
    refused("a.csv.gz", &garbage, &plain(), "", "damaged after 1200000 decompressed bytes");
}

#[test]
fn higgs_columns_have_one_spelling_and_one_pair_of_classes() {
    use parsimony::data::{higgs_sim, registry};
    for name in ["higgs", "higgs-sample", "higgs-sim"] {
        let entry = registry::find(name).unwrap();
        assert_eq!(entry.columns[1..], higgs_sim::FEATURE_NAMES, "{name}");
        let labels: Vec<_> = entry.classes.iter().map(|class| class.label.as_str()).collect();
        assert_eq!(labels, higgs_sim::CLASS_NAMES, "{name}");
    }
    let row = ["0.5"; 28].join(",");
    let bare = table("a.csv", format!("1,{row}\n0,{row}\n").as_bytes(), &plain());
    let simulated = higgs_sim::generate(1, 10);
    assert_eq!((bare.columns, bare.task), (simulated.columns, simulated.task));
}
