//! Seconds of a sweep of layer-wise ADMM as published, and of a pass of its proximal relative, on 28-300-1 and 31,296 rows, with
//! one thread and two; beside NumPy's with as many threads, in turns.
//!
//! `cargo bench --bench layerwise` measures this side alone; with `-- --python PYTHON`, an interpreter that has NumPy,
//! benches/layerwise.py answers between our own measurements and the ratios are printed.

use parsimony::data::{Examples, Task};
use parsimony::device::Panels;
use parsimony::model::{self, Model, ModelData};
use parsimony::optim::{self, minimize};
use parsimony::oracle::{SettingValue, Settings};
use rayon::ThreadPool;
use std::time::Instant;

mod peer;
use peer::{Peer, median};

/// Rows and columns of the real events that the NumPy figures were first seen on.
const ROWS: usize = 31_296;
const COLUMNS: usize = 28;

/// What is timed: its name, the variant, its other settings, steps to one answer.
type Case = (&'static str, &'static str, &'static [(&'static str, SettingValue)], u64);

const CASES: [Case; 3] = [
    ("sweep", "taylor", &[], 1),
    ("pass", "proximal", &[("batch_size", SettingValue::Whole(2000))], ROWS as u64 / 2000),
    ("full-batch pass", "proximal", &[("batch_size", SettingValue::Whole(0))], 1),
];

const TURNS: usize = 5;

const BLAS_THREADS: &str = "OPENBLAS_NUM_THREADS";

fn main() {
    // OpenBLAS asks once, when it is loaded, how many threads it may start. The runner tells cells' one; so do we.
    if std::env::var_os(BLAS_THREADS).is_none() {
        let program = std::env::current_exe().expect("its own path");
        let again =
            std::process::Command::new(program).args(std::env::args_os().skip(1)).env(BLAS_THREADS, "1").status();
        std::process::exit(again.expect("to start again").code().unwrap_or(1));
    }
    let model = build();
    let pools = [1, 2].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().expect("threads"));
    let python = peer::python();
    println!(
        "{:<10} {:<16} {:>7} {:>10} {:>10} {:>6} {:>8}",
        "variant", "what", "threads", "ms", "NumPy ms", "ratio", "speedup"
    );
    for case in CASES {
        let (what, variant, _, _) = case;
        let mut alone = f64::NAN;
        for pool in &pools {
            let threads = pool.current_num_threads();
            let mut peer = python.as_deref().map(|python| Peer::start(python, "layerwise.py", Some(threads)));
            let mut times = [Vec::new(), Vec::new()];
            for _ in 0..TURNS {
                times[0].push(turn(&*model, pool, case));
                if let Some(peer) = &mut peer {
                    let rows = if what == "pass" { 2000 } else { ROWS };
                    times[1].push(peer.ask(&format!("{variant} {rows}")));
                }
            }
            let [ours, theirs] = times.map(median);
            if threads == 1 {
                alone = ours;
            }
            println!(
                "{variant:<10} {what:<16} {threads:>7} {:>10.1} {:>10.1} {:>6.2} {:>8.2}",
                1e3 * ours,
                1e3 * theirs,
                theirs / ours,
                alone / ours
            );
        }
    }
}

/// 28-300-1 on made-up rows.
fn build() -> Box<dyn Model> {
    let value = |row: usize, column: usize| ((row * 7919 + column * 104_729) % 10_007) as f32 / 5_003.5 - 1.0;
    let features = Panels::from_fn(ROWS, COLUMNS, value);
    let is_second = |row: usize| value(row, 0) * value(row, 1) + 0.3 * value(row, 2) > 0.1;
    let targets = Panels::from_fn(ROWS, 1, |row, _| f32::from(u8::from(is_second(row))));
    let part = |range| Examples { features: features.clone(), targets: targets.clone(), range };
    let data = ModelData {
        train: part(0..ROWS),
        validation: part(0..0),
        test: part(0..0),
        task: Task::Classes(vec!["0".into(), "1".into()]),
        columns: (0..COLUMNS).map(|c| format!("x{c}")).collect(),
    };
    let entry = model::registry().into_iter().find(|entry| entry.name == "mlp").expect("a model");
    let start = [("initialization".to_owned(), SettingValue::Word("least-squares".into()))].into_iter().collect();
    let settings = Settings::check("bench", entry.settings, &start).expect("settings");
    entry.build(&data, &settings).expect("a model")
}

/// Seconds of one answer: the difference of a longer and a shorter run, so that starts do not count.
fn turn(model: &dyn Model, pool: &ThreadPool, (_, variant, others, steps): Case) -> f64 {
    let entry = optim::registry().into_iter().find(|entry| entry.name == "admm").expect("an optimizer");
    let mut given: std::collections::BTreeMap<_, _> =
        others.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    given.insert("variant".into(), SettingValue::Word(variant.into()));
    let settings = Settings::check("bench", entry.settings, &given).expect("settings");
    let seconds = |answers: u64| {
        pool.install(|| {
            let start = Instant::now();
            minimize(&entry, &settings, model, 1, answers * steps).expect("steps");
            start.elapsed().as_secs_f64()
        })
    };
    (seconds(6) - seconds(1)) / 5.0
}
