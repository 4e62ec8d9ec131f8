//! The whole fit of a logistic regression to its optimum, without a penalty, against scikit-learn and glum on the same
//! rows, in turns.
//!
//!     cargo bench --bench glm_fit -- [EVENTS | DATASET] [ROUNDS]
//!
//! A number simulates so many HIGGS events (default: one million); else a registered dataset or a file of two classes is
//! taken. The peers are installed into an environment that is thrown away afterwards (Python 3 with venv, and a package
//! index, are needed). Our time is that of standardization and fit, on rows that are mapped or in memory; the peers get
//! rows that are standardized already, in their best type and order, and the loosest tolerance that brings them within a
//! relative gap of 1e-10 of the optimum.

use parsimony::data::open::Choice;
use parsimony::data::{ReadOptions, RowSet, Standardization, Table, examples, higgs_sim};
use parsimony::measure::memory::Memory;
use parsimony::model::{self, Model, ModelData, Split};
use parsimony::optim::{self, Step};
use parsimony::oracle::{Oracle, SettingValue, Settings, Stream, stream};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Ours: the accuracy of sums, and whether the fit ends at the gap or at the rounding of its sums.
const OURS: [&str; 4] =
    ["parsimony/fast/gap", "parsimony/fast/rounding", "parsimony/high/gap", "parsimony/high/rounding"];

/// Program, solver and type of each peer.
const PEERS: [&str; 6] = [
    "scikit-learn/lbfgs/float64",
    "scikit-learn/lbfgs/float32",
    "scikit-learn/newton-cholesky/float64",
    "scikit-learn/newton-cholesky/float32",
    "glum/irls-ls/float64",
    "glum/irls-ls/float32",
];

const REQUIREMENTS: [&str; 3] = ["numpy", "scikit-learn", "glum"];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let table = match arguments.first().map(|a| (a, a.parse())) {
        None => higgs_sim::generate(1, 1_000_000),
        Some((_, Ok(rows))) => higgs_sim::generate(1, rows),
        Some((name, Err(_))) => open(name),
    };
    let rounds = arguments.get(1).and_then(|a| a.parse().ok()).unwrap_or(3);
    table.features.bring_in();
    table.targets.bring_in();
    println!("{} rows, {:?}, {} threads", table.rows(), table.features, rayon::current_num_threads());

    let folder = tempfile::tempdir().expect("a folder for the peers");
    write_rows(&table, folder.path());
    let mut peers = Peers::start(folder.path());
    println!("optimum {}", peers.line());
    for peer in PEERS {
        println!("{peer}: {}", peers.ask("calibrate", peer));
    }
    let sides = OURS.into_iter().chain(PEERS);
    let mut times: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for round in 1..=rounds {
        for side in sides.clone() {
            let seconds = if side.starts_with("parsimony") {
                let fit = fit(&table, side);
                let file = folder.path().join("coefficients.txt");
                let text: Vec<String> = fit.coefficients.iter().map(|c| format!("{c:.17e}")).collect();
                std::fs::write(&file, text.join("\n")).expect("a file of coefficients");
                let judged = peers.ask("judge", &file.to_string_lossy());
                println!("round {round}: {side}: {fit} {judged}");
                fit.seconds
            } else {
                let answer = peers.ask("fit", side);
                println!("round {round}: {side}: {answer}");
                answer["seconds"].as_f64().unwrap_or(f64::NAN)
            };
            times.entry(side).or_default().push(seconds);
        }
    }
    let medians: Vec<(&str, f64)> = sides.map(|side| (side, median(&times[side]))).collect();
    let fastest = medians[OURS.len()..].iter().map(|(_, seconds)| *seconds).fold(f64::INFINITY, f64::min);
    println!("\n| solver | median seconds | times the fastest peer's speed |\n|---|---|---|");
    for (side, seconds) in medians {
        println!("| {side} | {seconds:.3} | {:.2} |", fastest / seconds);
    }
    println!("\n{:?}", Memory::now());
}

fn open(dataset: &str) -> Table {
    let entries = parsimony::data::registry::registry();
    let choice = Choice::from_argument(entries, dataset, ReadOptions::default()).expect("a dataset");
    let opened = choice.open(entries, &|_, _| ()).expect("a dataset that can be opened");
    opened.data.into_table().expect("a table")
}

fn median(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    let middle = times.len() / 2;
    if times.len().is_multiple_of(2) { 0.5 * (times[middle - 1] + times[middle]) } else { times[middle] }
}

/// One fit of ours.
struct Fit {
    seconds: f64,
    standardization: f64,
    steps: u64,
    coefficients: Vec<f64>,
    /// Seconds of training after each step, and the accuracy on the rows of training then.
    course: Vec<(f64, f64)>,
}

impl std::fmt::Display for Fit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.3} s, of it {:.3} s standardization, {} steps;", self.seconds, self.standardization, self.steps)?;
        let (_, last) = self.course.last().copied().unwrap_or_default();
        if let Some((seconds, accuracy)) = self.course.iter().find(|(_, accuracy)| *accuracy >= last - 1e-3) {
            let cores = rayon::current_num_threads() as f64 * seconds;
            write!(f, " accuracy {accuracy:.5} of {last:.5} after {seconds:.3} s, {cores:.3} core-seconds")?;
        }
        Ok(())
    }
}

fn fit(table: &Table, side: &str) -> Fit {
    let accuracy = if side.contains("/fast/") { "fast" } else { "high" };
    let gap = if side.ends_with("/gap") { 1e-10 } else { 0.0 };
    let start = Instant::now();
    let part = |range| examples(table, &RowSet::Range(range));
    let data = ModelData {
        train: part(0..table.rows()),
        validation: part(0..0),
        test: part(0..0),
        task: table.task.clone(),
        columns: table.columns.clone(),
    };
    let entry = model::registry().into_iter().find(|m| m.name == "logistic").expect("the logistic model");
    let given = BTreeMap::from([("accuracy".to_owned(), SettingValue::Word(accuracy.into()))]);
    let settings = Settings::check("bench", entry.settings, &given).expect("settings");
    let model: Box<dyn Model> = entry.build(&data, &settings).expect("a model");
    let standardization = start.elapsed().as_secs_f64();
    let irls = optim::registry().into_iter().find(|o| o.name == "irls").expect("IRLS");
    let settings =
        Settings::check("bench", irls.settings, &BTreeMap::from([("gap".to_owned(), SettingValue::Real(gap))]))
            .expect("settings");
    let mut optimizer = (irls.build)(&settings).expect("IRLS");
    let mut oracle = Oracle::new(&*model, irls.name, irls.needs, 1, 1);
    let mut parameters = model.initial(&mut stream(1, Stream::Initialization));
    optimizer.start(&mut oracle, &parameters).expect("a start");
    let (mut seconds, mut course) = (start.elapsed().as_secs_f64(), Vec::new());
    loop {
        let start = Instant::now();
        oracle.begin_step();
        let outcome = optimizer.step(&mut oracle, &mut parameters).expect("a step");
        seconds += start.elapsed().as_secs_f64();
        // The clock stands still meanwhile.
        let reached = model.evaluate(optimizer.reported(&parameters), Split::Train).expect("an evaluation");
        course.push((seconds, reached.accuracy.unwrap_or(f64::NAN)));
        if outcome != Step::Continue {
            break;
        }
    }
    let coefficients = optimizer.reported(&parameters).host().to_vec();
    Fit { seconds, standardization, steps: oracle.step(), coefficients, course }
}

/// Writes the rows, standardized, as NumPy reads them.
fn write_rows(table: &Table, folder: &Path) {
    let all = examples(table, &RowSet::Range(0..table.rows()));
    let Standardization { mean, scale, .. } = Standardization::fit(&all);
    let (rows, columns) = (table.rows(), table.features.columns());
    let mut file = numpy(&folder.join("X.npy"), &format!("({rows}, {columns})"));
    for row in 0..rows {
        for column in 0..columns {
            let value = ((f64::from(table.features.get(row, column)) - mean[column]) / scale[column]) as f32;
            file.write_all(&value.to_le_bytes()).expect("room on the disk");
        }
    }
    file.flush().expect("room on the disk");
    let mut file = numpy(&folder.join("y.npy"), &format!("({rows},)"));
    for target in &table.targets.values()[..rows] {
        file.write_all(&target.to_le_bytes()).expect("room on the disk");
    }
    file.flush().expect("room on the disk");
}

/// A file of `f32` in NumPy's format, its header written.
fn numpy(path: &Path, shape: &str) -> BufWriter<std::fs::File> {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    let padded = (header.len() + 11).next_multiple_of(64) - 10;
    let mut file = BufWriter::new(std::fs::File::create(path).expect("a file for the peers"));
    file.write_all(b"\x93NUMPY\x01\x00").expect("room on the disk");
    file.write_all(&(padded as u16).to_le_bytes()).expect("room on the disk");
    writeln!(file, "{header:<width$}", width = padded - 1).expect("room on the disk");
    file
}

/// The peers' process, which keeps the rows.
struct Peers {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Peers {
    fn start(folder: &Path) -> Self {
        let environment = folder.join("environment");
        let python = environment.join("bin/python");
        call(Command::new("python3").args(["-m", "venv"]).arg(&environment));
        call(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(REQUIREMENTS));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/glm_fit.py");
        let mut command = Command::new(&python);
        command.arg(script).arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).env_remove("OPENBLAS_NUM_THREADS");
        let mut child = command.spawn().expect("the peers' process");
        let answers = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, answers }
    }

    fn ask(&mut self, verb: &str, argument: &str) -> serde_json::Value {
        let input = self.child.stdin.as_mut().expect("its input");
        writeln!(input, "{verb} {argument}").expect("the peers' process lives");
        self.line()
    }

    fn line(&mut self) -> serde_json::Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the peers' process lives");
        serde_json::from_str(&line).expect("an answer")
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn call(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
