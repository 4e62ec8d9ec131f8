//! `data import` against polars' CSV reader on the same file, in turns, each in a process of its own.
//!
//!     cargo bench --bench import -- FILE.csv [ROUNDS]
//!
//! The file has the layout of HIGGS: no header, 29 columns, label first. polars reads it into memory, once with the
//! types it infers (64-bit) and once as 32-bit floats; the import writes a store, hashing source and data on the way.
//! Without a file, nothing is measured.

use parsimony::data::store::{ImportOptions, import};
use polars::prelude::{CsvReadOptions, DataType, Field, Schema, SerReader};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

const SIDES: [&str; 4] = ["parsimony import", "parsimony import, shuffled", "polars, 64-bit", "polars, 32-bit"];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    match arguments.as_slice() {
        [side, file] if SIDES.contains(&side.as_str()) => run(side, Path::new(file)),
        [file, rest @ ..] => {
            let rounds = rest.first().and_then(|rounds| rounds.parse().ok()).unwrap_or(3);
            compare(file, rounds);
        }
        [] => println!("usage: cargo bench --bench import -- FILE.csv [ROUNDS]"),
    }
}

fn compare(file: &str, rounds: usize) {
    let program = std::env::current_exe().expect("this program has a path");
    let bytes = std::fs::metadata(file).expect("the file exists").len() as f64;
    for round in 1..=rounds {
        for side in SIDES {
            let output = Command::new(&program).args([side, file]).output().expect("this program runs");
            let text = String::from_utf8_lossy(&output.stdout);
            let mut numbers = text.split_whitespace().map(|word| word.parse::<f64>().unwrap_or(f64::NAN));
            let mut next = || numbers.next().unwrap_or(f64::NAN);
            let (seconds, rows, peak) = (next(), next(), next());
            println!(
                "round {round}: {side:<28} {seconds:7.2} s  {:6.0} MB/s  {rows} rows  peak {:.0} MiB",
                bytes / seconds / 1e6,
                peak / 1024.0
            );
        }
    }
}

/// Prints seconds, rows and peak resident KiB.
fn run(side: &str, file: &Path) {
    let start = Instant::now();
    let rows = if side.starts_with("parsimony") {
        let folder = tempfile::tempdir_in(file.parent().unwrap_or(Path::new("."))).expect("a folder can be made");
        let shuffle = side.ends_with("shuffled").then_some(1);
        let options = ImportOptions { shuffle, ..ImportOptions::default() };
        let report = import(file, &folder.path().join("a.store"), &options, &|_, _| {}).expect("the file imports");
        report.rows
    } else {
        let mut options = CsvReadOptions::default().with_has_header(false);
        if side.ends_with("32-bit") {
            let fields = (0..29).map(|column| Field::new(format!("{column}").into(), DataType::Float32));
            options = options.with_schema(Some(Arc::new(Schema::from_iter(fields))));
        }
        let reader = options.try_into_reader_with_file_path(Some(file.to_owned())).expect("polars opens the file");
        reader.finish().expect("polars reads the file").height()
    };
    let seconds = start.elapsed().as_secs_f64();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("nan kB");
    println!("{seconds} {rows} {}", peak.trim().trim_end_matches(" kB"));
}
