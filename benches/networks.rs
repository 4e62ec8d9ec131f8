//! Seconds of values, gradients and Gauss-Newton products of two networks, beside PyTorch's in turns on the same cores.
//!
//! `cargo bench --bench networks` measures this side alone; words choose cases (`-- autoencoder gradient 200`). With `-- --python PYTHON`, an interpreter that has torch and
//! backpack-for-pytorch, benches/networks.py answers between our own measurements and the ratios are printed.

use parsimony::data::{Examples, Task};
use parsimony::device::Panels;
use parsimony::device::cpu::on_worker;
use parsimony::model::{self, Model, ModelData};
use parsimony::optim::{self, minimize};
use parsimony::oracle::{Batch, Problem, Rows, SettingValue, Settings, Stream, Vector, stream};
use std::collections::BTreeMap;
use std::time::Instant;

mod peer;
use peer::{Peer, median};

/// A question: network, what is computed, rows.
type Case = (&'static str, &'static str, usize);

const CASES: [Case; 16] = [
    ("perceptron", "value", 4096),
    ("perceptron", "gradient", 256),
    ("perceptron", "gradient", 1024),
    ("perceptron", "gradient", 4096),
    ("perceptron", "gradient", 32_768),
    ("perceptron", "gradient", 35_296),
    ("perceptron", "product", 4096),
    ("perceptron", "product", 35_296),
    ("perceptron", "step", 35_296),
    ("autoencoder", "value", 200),
    ("autoencoder", "gradient", 200),
    ("autoencoder", "product", 200),
    ("autoencoder", "value", 4096),
    ("autoencoder", "gradient", 4096),
    ("autoencoder", "product", 4096),
    ("autoencoder", "squares", 4096),
];

/// Turns of each side, and seconds of a turn at least.
const TURNS: usize = 5;
const TURN_SECONDS: f64 = 0.3;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let mut peer = peer::python().map(|python| Peer::start(&python, "networks.py", None));
    // Words given choose the cases that bear them: a network, what is computed, a number of rows.
    let is_word = |word: &str, (name, what, rows): Case| word == name || word == what || word == rows.to_string();
    let words: Vec<_> = arguments.iter().filter(|word| CASES.iter().any(|&case| is_word(word, case))).collect();
    let wanted = |case: &Case| words.iter().all(|word| is_word(word, *case));
    println!(
        "{:<12} {:<9} {:>6} {:>10} {:>12} {:>10} {:>6}",
        "network", "what", "rows", "ms", "rows/s", "torch ms", "ratio"
    );
    for (name, what, rows) in CASES.into_iter().filter(wanted) {
        let model = build(name, rows);
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..TURNS {
            times[0].push(on_worker(|| turn(&*model, what)));
            if let Some(peer) = &mut peer {
                times[1].push(peer.ask(&format!("{name} {what} {rows} {TURN_SECONDS}")));
            }
        }
        let [ours, theirs] = times.map(median);
        println!(
            "{name:<12} {what:<9} {rows:>6} {:>10.3} {:>12.0} {:>10.3} {:>6.2}",
            1e3 * ours,
            rows as f64 / ours,
            1e3 * theirs,
            theirs / ours
        );
    }
}

/// The network on as many random rows.
fn build(name: &str, rows: usize) -> Box<dyn Model> {
    let columns = if name == "perceptron" { 28 } else { 784 };
    let value = |row: usize, column: usize| ((row * 7919 + column * 104_729) % 10_007) as f32 / 10_007.0;
    let features = Panels::from_fn(rows, columns, value);
    let targets = Panels::from_fn(rows, 1, |row, _| (row * 31 % 7 % 2) as f32);
    let part = |range| Examples { features: features.clone(), targets: targets.clone(), range };
    let data = ModelData {
        train: part(0..rows),
        validation: part(0..0),
        test: part(0..0),
        task: Task::Classes(vec!["0".into(), "1".into()]),
        columns: (0..columns).map(|c| format!("x{c}")).collect(),
    };
    let name = if name == "perceptron" { "mlp" } else { name };
    let entry = model::registry().into_iter().find(|entry| entry.name == name).expect("a model");
    let settings = Settings::check("bench", entry.settings, &BTreeMap::new()).expect("settings");
    entry.build(&data, &settings).expect("a model")
}

/// Mean seconds of one call over a turn.
fn turn(model: &dyn Model, what: &str) -> f64 {
    let problem: &dyn Problem = model;
    let at = model.initial(&mut stream(1, Stream::Initialization));
    let batch = Batch::new((0..problem.rows() as u32).collect());
    // A minibatch is gathered, as in training.
    let rows = if problem.rows() <= 4096 { Rows::Batch(&batch) } else { Rows::All };
    let mut out = at.zeros_like();
    match what {
        "value" => time(|| {
            problem.value().unwrap().value(&at, rows).unwrap();
        }),
        "gradient" => time(|| {
            problem.gradient().unwrap().value_and_gradient(&at, rows, &mut out).unwrap();
        }),
        "squares" => time(|| {
            problem.squared_gradients().unwrap().mean_squared_gradient(&at, rows, &mut out).unwrap();
        }),
        "product" => {
            let matrix = problem.curvature().unwrap().curvature_at(&at, rows).unwrap().value;
            let v = Vector::from_values(at.layout(), (0..at.len()).map(|i| (i as f64).sin()).collect()).unwrap();
            time(|| {
                matrix.multiply(&v, &mut out).unwrap();
            })
        }
        _ => {
            // A whole Hessian-free step with 50 conjugate-gradient iterations, from the third on.
            let entry = optim::registry().into_iter().find(|entry| entry.name == "hessian-free").expect("an optimizer");
            let given = [("cg_iterations", SettingValue::Whole(50)), ("cg_tolerance", SettingValue::Real(0.0))];
            let given = given.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
            let settings = Settings::check("bench", entry.settings, &given).expect("settings");
            let seconds = |steps| {
                let start = Instant::now();
                minimize(&entry, &settings, problem, 1, steps).expect("steps");
                start.elapsed().as_secs_f64()
            };
            (seconds(4) - seconds(2)) / 2.0
        }
    }
}

fn time(mut call: impl FnMut()) -> f64 {
    call();
    let start = Instant::now();
    let mut calls = 0;
    while start.elapsed().as_secs_f64() < TURN_SECONDS {
        call();
        calls += 1;
    }
    start.elapsed().as_secs_f64() / f64::from(calls)
}
