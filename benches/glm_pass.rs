//! Seconds of one fused pass (value, gradient, information) over simulated HIGGS events, with the memory and arithmetic
//! rates it amounts to.
//!
//! `cargo bench --bench glm_pass` or, with another number of events, `cargo bench --bench glm_pass -- 4000000`.

use parsimony::data::{RowSet, examples, higgs_sim};
use parsimony::model::{self, ModelData};
use parsimony::oracle::{Problem, Rows, SettingValue, Settings, Vector};
use std::collections::BTreeMap;
use std::time::Instant;

fn main() {
    let rows = std::env::args().filter_map(|a| a.parse().ok()).next().unwrap_or(1_000_000);
    let start = Instant::now();
    let table = higgs_sim::generate(1, rows);
    println!("{rows} simulated events in {:.2} s", start.elapsed().as_secs_f64());
    let part = |range| examples(&table, &RowSet::Range(range));
    let data = ModelData {
        train: part(0..rows),
        validation: part(0..0),
        test: part(0..0),
        task: table.task.clone(),
        columns: table.columns.clone(),
    };
    let entry = model::registry().into_iter().find(|m| m.name == "logistic").expect("the logistic model");
    println!("{:<10} {:<5} {:>7} {:>10} {:>8} {:>8}", "features", "sums", "threads", "ms a pass", "GB/s", "GFLOP/s");
    for features in ["linear", "squares", "products"] {
        for accuracy in ["fast", "high"] {
            let given = BTreeMap::from([
                ("features".to_owned(), SettingValue::Word(features.into())),
                ("accuracy".to_owned(), SettingValue::Word(accuracy.into())),
            ]);
            let settings = Settings::check("bench", entry.settings, &given).expect("settings");
            let model = (entry.build)(&data, &settings).expect("model");
            for threads in [1, 2] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
                let (seconds, cost) = pool.install(|| median_pass(&*model));
                println!(
                    "{features:<10} {accuracy:<5} {threads:>7} {:>10.1} {:>8.2} {:>8.1}",
                    1e3 * seconds,
                    1e-9 * cost.bytes / seconds,
                    1e-9 * cost.flops / seconds
                );
            }
        }
    }
}

/// The median of five passes.
fn median_pass(problem: &dyn Problem) -> (f64, parsimony::oracle::Cost) {
    let equations = problem.normal_equations().expect("normal equations");
    let at = Vector::zeros(problem.layout());
    let mut cost = parsimony::oracle::Cost::default();
    let mut times: Vec<f64> = (0..5)
        .map(|_| {
            let start = Instant::now();
            cost = equations.normal_system(&at, Rows::All, false).expect("a pass").cost;
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    (times[2], cost)
}
