//! Seconds of passes over HIGGS events for a generalized linear model, beside what memory and arithmetic of the machine
//! allow: value, gradient, a Gauss-Newton product, and all that an IRLS step takes (value, gradient, information).
//!
//! `cargo bench --bench glm_pass` simulates a million events; `cargo bench --bench glm_pass -- 4000000` so many;
//! `cargo bench --bench glm_pass -- higgs` takes a registered dataset or file with two classes, from its mapped store.
//! Further words leave only lines that have them all: `-- higgs linear fast information`.

mod machine;

use machine::{Ceilings, median};
use parsimony::data::open::Choice;
use parsimony::data::{ReadOptions, RowSet, Table, examples, higgs_sim};
use parsimony::model::{self, Model, ModelData};
use parsimony::oracle::{Cost, Rows, SettingValue, Settings, Vector};
use std::collections::BTreeMap;
use std::time::Instant;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|a| !a.starts_with("--"));
    let argument = arguments.next();
    let wanted: Vec<String> = arguments.collect();
    let start = Instant::now();
    let table = match argument.as_deref().map(str::parse) {
        None => higgs_sim::generate(1, 1_000_000),
        Some(Ok(rows)) => higgs_sim::generate(1, rows),
        Some(Err(_)) => open(&argument.unwrap_or_default()),
    };
    let rows = table.rows();
    println!("{rows} events in {:.2} s, {:?}", start.elapsed().as_secs_f64(), table.features);
    let part = |range| examples(&table, &RowSet::Range(range));
    let data = ModelData {
        train: part(0..rows),
        validation: part(0..0),
        test: part(0..0),
        task: table.task.clone(),
        columns: table.columns.clone(),
    };
    let pools = [1, 2].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().expect("threads"));
    let ceilings = pools.each_ref().map(|pool| Ceilings::measure(pool, table.features.values()));
    for (pool, c) in pools.iter().zip(&ceilings) {
        println!(
            "{} threads: memory {:.1} GB/s, multiply-add {:.0} GFLOP/s, matrix product {:.0} GFLOP/s",
            pool.current_num_threads(),
            1e-9 * c.bytes,
            1e-9 * c.flops,
            1e-9 * c.product_flops
        );
    }
    println!(
        "{:<9} {:<5} {:<9} {:>7} {:>9} {:>7} {:>8} {:>9} {:>8} {:>8}",
        "features", "sums", "pass", "threads", "ms", "GB/s", "GFLOP/s", "limit ms", "x limit", "speedup"
    );
    let entry = model::registry().into_iter().find(|m| m.name == "logistic").expect("the logistic model");
    for features in ["linear", "squares", "products"] {
        for accuracy in ["fast", "high"] {
            let given = BTreeMap::from([
                ("features".to_owned(), SettingValue::Word(features.into())),
                ("accuracy".to_owned(), SettingValue::Word(accuracy.into())),
            ]);
            let settings = Settings::check("bench", entry.settings, &given).expect("settings");
            let start = Instant::now();
            let model = entry.build(&data, &settings).expect("model");
            println!("{features:<9} {accuracy:<5} standardized in {:.1} ms", 1e3 * start.elapsed().as_secs_f64());
            for pass in [Pass::Value, Pass::Gradient, Pass::Product, Pass::Information] {
                let kind = [features, accuracy, pass.name()];
                if !wanted.iter().all(|word| kind.contains(&word.as_str())) {
                    continue;
                }
                let mut of_one = 0.0;
                for (pool, c) in pools.iter().zip(&ceilings) {
                    let (seconds, cost) = pool.install(|| pass.time(&*model));
                    if pool.current_num_threads() == 1 {
                        of_one = seconds;
                    }
                    let limit = (cost.bytes / c.bytes).max(cost.flops / c.flops);
                    println!(
                        "{features:<9} {accuracy:<5} {:<9} {:>7} {:>9.1} {:>7.2} {:>8.1} {:>9.1} {:>8.2} {:>8.2}",
                        pass.name(),
                        pool.current_num_threads(),
                        1e3 * seconds,
                        1e-9 * cost.bytes / seconds,
                        1e-9 * cost.flops / seconds,
                        1e3 * limit,
                        seconds / limit,
                        of_one / seconds
                    );
                }
            }
        }
    }
}

fn open(dataset: &str) -> Table {
    let entries = parsimony::data::registry::registry();
    let choice = Choice::from_argument(entries, dataset, ReadOptions::default()).expect("a dataset");
    let opened = choice.open(entries, &|_, _| ()).expect("a dataset that can be opened");
    opened.data.into_table().expect("a table")
}

#[derive(Clone, Copy)]
enum Pass {
    Value,
    Gradient,
    Product,
    Information,
}

impl Pass {
    fn name(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::Gradient => "gradient",
            Self::Product => "product",
            Self::Information => "information",
        }
    }

    /// The median time of a pass, and what it costs.
    fn time(self, model: &dyn Model) -> (f64, Cost) {
        let at = Vector::zeros(model.layout());
        let mut out = Vector::zeros(model.layout());
        let mut cost = Cost::default();
        let seconds = match self {
            Self::Value => {
                let value = model.value().expect("a value");
                median(|| cost = value.value(&at, Rows::All).expect("a pass").cost)
            }
            Self::Gradient => {
                let gradient = model.gradient().expect("a gradient");
                median(|| cost = gradient.value_and_gradient(&at, Rows::All, &mut out).expect("a pass").cost)
            }
            Self::Product => {
                let curvature = model.curvature().expect("products").curvature_at(&at, Rows::All).expect("weights");
                median(|| cost = curvature.value.multiply(&at, &mut out).expect("a pass"))
            }
            Self::Information => {
                let equations = model.normal_equations().expect("normal equations");
                median(|| cost = equations.normal_system(&at, Rows::All, false).expect("a pass").cost)
            }
        };
        (seconds, cost)
    }
}
