//! `list`: what can be put together.

use super::{Format, output};
use crate::data::registry::{DatasetEntry, Kind, locate};
use crate::error::Result;
use crate::workbench::Workbench;
use serde_json::{Value, json};

/// The experiments in this program, by name.
pub const EXPERIMENTS: &[(&str, &str)] = &[
    ("quickstart", include_str!("../../experiments/quickstart.toml")),
    ("higgs-logistic", include_str!("../../experiments/higgs-logistic.toml")),
    ("higgs-sample", include_str!("../../experiments/higgs-sample.toml")),
    ("higgs-network", include_str!("../../experiments/higgs-network.toml")),
    ("admm-figure-2", include_str!("../../experiments/admm-figure-2.toml")),
    ("admm-as-published", include_str!("../../experiments/admm-as-published.toml")),
    ("admm-mnist", include_str!("../../experiments/admm-mnist.toml")),
    ("mnist-softmax", include_str!("../../experiments/mnist-softmax.toml")),
    ("mnist-mlp", include_str!("../../experiments/mnist-mlp.toml")),
    ("mnist-autoencoder", include_str!("../../experiments/mnist-autoencoder.toml")),
    ("irls-vs-admm", include_str!("../../experiments/irls-vs-admm.toml")),
    ("squares", include_str!("../../experiments/squares.toml")),
    ("products", include_str!("../../experiments/products.toml")),
    ("admm-starts-where-sgd-stops", include_str!("../../experiments/admm-starts-where-sgd-stops.toml")),
    ("admm-is-linear", include_str!("../../experiments/admm-is-linear.toml")),
    ("large-batch", include_str!("../../experiments/large-batch.toml")),
    ("hessian-free", include_str!("../../experiments/hessian-free.toml")),
    ("cheap-gradient", include_str!("../../experiments/cheap-gradient.toml")),
    ("press", include_str!("../../experiments/press.toml")),
    ("mixture-of-logistics", include_str!("../../experiments/mixture-of-logistics.toml")),
    ("switch-higgs", include_str!("../../experiments/switch-higgs.toml")),
    ("character-model", include_str!("../../experiments/character-model.toml")),
    ("switch-layer-four-optimizers", include_str!("../../experiments/switch-layer-four-optimizers.toml")),
    ("irls-for-moe", include_str!("../../experiments/irls-for-moe.toml")),
    ("one-point-six-trillion", include_str!("../../experiments/one-point-six-trillion.toml")),
    ("tiny-shakespeare", include_str!("../../experiments/tiny-shakespeare.toml")),
    ("switch-vs-dense", include_str!("../../experiments/switch-vs-dense.toml")),
    ("moe-faster", include_str!("../../experiments/moe-faster.toml")),
    ("moe-wasteful", include_str!("../../experiments/moe-wasteful.toml")),
    ("slower-but-small", include_str!("../../experiments/slower-but-small.toml")),
    ("t5-large-is-as-good", include_str!("../../experiments/t5-large-is-as-good.toml")),
    ("switch-on-prose", include_str!("../../experiments/switch-on-prose.toml")),
];

const EXAMPLES: &str = "\
Examples:
  parsimony list
  parsimony list optimizers
  parsimony list datasets --format json
  parsimony info sgd                    everything about one of them";

/// List optimizers, models, datasets and experiments
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// What to list [default: everything]
    #[arg(value_enum)]
    what: Option<What>,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    Optimizers,
    Models,
    Datasets,
    Experiments,
}

pub fn run(workbench: &Workbench, arguments: &Arguments) -> Result<()> {
    let all = [What::Optimizers, What::Models, What::Datasets, What::Experiments];
    let wanted = arguments.what.map_or(all.to_vec(), |what| vec![what]);
    if arguments.format == Format::Json {
        let map = wanted.iter().map(|what| (what.name().to_owned(), what.json(workbench)));
        return output::json(&Value::Object(map.collect()));
    }
    let sections: Vec<_> = wanted.iter().map(|what| what.table(workbench)).collect();
    output::text(&sections.join("\n"))
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Optimizers => "optimizers",
            Self::Models => "models",
            Self::Datasets => "datasets",
            Self::Experiments => "experiments",
        }
    }

    fn table(self, workbench: &Workbench) -> String {
        match self {
            Self::Optimizers => {
                let rows = workbench
                    .optimizers
                    .iter()
                    .map(|entry| [entry.name.to_owned(), entry.summary.to_owned(), entry.needs_in_words()]);
                output::table(["optimizer", "what it is", "needs"], rows)
            }
            Self::Models => {
                let rows = workbench.models.iter().map(|entry| [entry.name.to_owned(), entry.summary.to_owned()]);
                output::table(["model", "what it is"], rows)
            }
            Self::Datasets => datasets(&workbench.datasets),
            Self::Experiments => {
                let rows = EXPERIMENTS.iter().map(|(name, text)| [(*name).to_owned(), question(text)]);
                output::table(["experiment", "question"], rows)
            }
        }
    }

    fn json(self, workbench: &Workbench) -> Value {
        match self {
            Self::Optimizers => workbench.optimizers.iter().map(super::info::optimizer).collect(),
            Self::Models => workbench.models.iter().map(super::info::model).collect(),
            Self::Datasets => workbench.datasets.iter().map(dataset_json).collect(),
            Self::Experiments => {
                EXPERIMENTS.iter().map(|(name, text)| json!({"name": name, "question": question(text)})).collect()
            }
        }
    }
}

fn question(text: &str) -> String {
    let table: toml::Table = text.parse().unwrap_or_default();
    table.get("question").and_then(toml::Value::as_str).unwrap_or_default().trim().to_owned()
}

/// Whether a dataset can be used at once, must be fetched first, or must be brought by the user.
pub fn state(entry: &DatasetEntry) -> &'static str {
    match &entry.generator {
        Some(_) => "generated here",
        None if locate(entry).is_ok() => "present",
        None if entry.downloadable() => "to fetch",
        None => "not found",
    }
}

/// The table of datasets.
pub fn datasets(entries: &[DatasetEntry]) -> String {
    let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
    let rows = entries.iter().map(|entry| {
        let features = number(entry.features.map(u64::from));
        let rows = if entry.kind == Kind::Corpus { "a text".to_owned() } else { number(entry.rows) };
        [entry.name.clone(), entry.title.clone(), rows, features, state(entry).to_owned()]
    });
    output::table(["dataset", "what it is", "rows", "features", "state"], rows)
}

/// A dataset for programs.
pub fn dataset_json(entry: &DatasetEntry) -> Value {
    let mut value = serde_json::to_value(entry).unwrap_or_default();
    if let Value::Object(map) = &mut value {
        map.insert("state".into(), state(entry).into());
    }
    value
}
