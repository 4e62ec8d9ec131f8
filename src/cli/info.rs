//! `info`: everything about an optimizer, a model or a dataset.

use super::{Format, output};
use crate::data::registry::{DatasetEntry, readable_bytes};
use crate::error::{Error, Result};
use crate::model::ModelEntry;
use crate::optim::OptimizerEntry;
use crate::oracle::{Search, Setting, did_you_mean};
use crate::workbench::Workbench;
use serde_json::{Value, json};
use std::fmt::Write as _;

const EXAMPLES: &str = "\
Examples:
  parsimony info hessian-free
  parsimony info logistic --format json
  parsimony info higgs";

/// Show what an optimizer, a model or a dataset is and takes
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Its name, as `parsimony list` shows it
    name: String,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub fn run(workbench: &Workbench, arguments: &Arguments) -> Result<()> {
    let name = arguments.name.as_str();
    let (value, text) = if let Some(entry) = workbench.optimizers.iter().find(|entry| entry.name == name) {
        (optimizer(entry), optimizer_text(entry))
    } else if let Some(entry) = workbench.models.iter().find(|entry| entry.name == name) {
        (model(entry), model_text(entry))
    } else if let Some(entry) = workbench.datasets.iter().find(|entry| entry.name == name) {
        (super::list::dataset_json(entry), dataset_text(entry))
    } else {
        let optimizers = workbench.optimizers.iter().map(|entry| entry.name);
        let models = workbench.models.iter().map(|entry| entry.name);
        let datasets = workbench.datasets.iter().map(|entry| entry.name.as_str());
        let guess = did_you_mean(name, optimizers.chain(models).chain(datasets));
        let finding = format!("there is no optimizer, model or dataset `{name}`");
        return Err(Error::config("info", finding, format!("{guess}`parsimony list` shows all")));
    };
    match arguments.format {
        Format::Json => output::json(&value),
        Format::Table => output::text(&text),
    }
}

fn settings_json(settings: &[Setting]) -> Value {
    let setting = |s: &Setting| {
        json!({
            "name": s.name,
            "accepts": s.accepts(),
            "default": s.default_value(),
            "doc": s.doc,
            "of": s.of.map(|(choice, words)| json!({ choice: words })),
            "logarithmic": s.logarithmic,
            "search": match s.search {
                Some(Search::Between(from, to)) => json!([from, to]),
                Some(Search::Every) => json!("every"),
                None => Value::Null,
            },
        })
    };
    settings.iter().map(setting).collect()
}

/// An optimizer for programs.
pub fn optimizer(entry: &OptimizerEntry) -> Value {
    json!({
        "name": entry.name,
        "summary": entry.summary,
        "paper": entry.paper,
        "needs": entry.needs,
        "needs_in_words": entry.needs_in_words(),
        "stochastic": entry.may_draw(),
        "settings": settings_json(entry.settings),
    })
}

/// A model for programs.
pub fn model(entry: &ModelEntry) -> Value {
    json!({
        "name": entry.name,
        "summary": entry.summary,
        "paper": entry.paper,
        "random_start": entry.random_start,
        "settings": settings_json(entry.settings),
    })
}

fn settings_table(settings: &[Setting]) -> String {
    if settings.is_empty() {
        return "It has no settings.\n".into();
    }
    let row = |s: &Setting| [s.name.to_owned(), s.accepts(), s.default.to_owned(), s.searches(), s.description()];
    if settings.iter().any(|setting| setting.search.is_some()) {
        return output::table(
            ["setting", "takes", "default", "tune searches", "what it does"],
            settings.iter().map(row),
        );
    }
    let row = |s: &Setting| [s.name.to_owned(), s.accepts(), s.default.to_owned(), s.description()];
    output::table(["setting", "takes", "default", "what it does"], settings.iter().map(row))
}

fn optimizer_text(entry: &OptimizerEntry) -> String {
    let draws = if entry.may_draw() { "draws random numbers" } else { "draws nothing: one seed is enough" };
    format!(
        "{}, an optimizer: {}\n\nsource: {}\nneeds:  {}\nseeds:  {draws}\n\n{}",
        entry.name,
        entry.summary,
        entry.paper,
        entry.needs_in_words(),
        settings_table(entry.settings)
    )
}

fn model_text(entry: &ModelEntry) -> String {
    format!(
        "{}, a model: {}\n\nsource: {}\n\n{}",
        entry.name,
        entry.summary,
        entry.paper,
        settings_table(entry.settings)
    )
}

fn dataset_text(entry: &DatasetEntry) -> String {
    let mut text = format!("{}, a dataset: {}\n\n{}\n\n", entry.name, entry.title, entry.doc.trim());
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            let _ = writeln!(text, "{name:<10}{value}");
        }
    };
    line("rows", entry.rows.map(|rows| rows.to_string()));
    line("features", entry.features.map(|features| features.to_string()));
    let classes = entry.classes.iter().map(|class| match &class.name {
        Some(name) => format!("{} ({name})", class.label),
        None => class.label.clone(),
    });
    line("classes", Some(classes.collect::<Vec<_>>().join(", ")));
    for split in &entry.splits {
        line("split", Some(format!("{}: {}", split.name, split.doc)));
    }
    for file in &entry.files {
        line("file", Some(file.path.clone()));
    }
    line("state", Some(super::list::state(entry).to_owned()));
    line("download", entry.download_bytes().filter(|_| entry.downloadable()).map(readable_bytes));
    line("page", entry.homepage.clone());
    line("licence", Some(entry.licence.clone()));
    line("cite", Some(entry.citation.trim().to_owned()));
    line("origin", entry.how_made.as_ref().map(|how| how.trim().to_owned()));
    text
}
