//! Finds the mistakes of an expectation that only the plan can show: names that no cell has, names that several kinds of
//! cells have, and lists compared as if they were numbers.

use super::Expectation;
use super::metric::Noise;
use super::subject::Subject;
use super::syntax::{Comparison, Expression, Mistake, Node, Path};
use crate::error::{Error, Result};
use crate::oracle::did_you_mean;
use std::collections::BTreeSet;
use std::ops::Range;

/// The series that each path of an expectation speaks of on one dataset, from left to right; `None` where the cells were
/// skipped because their parts do not fit.
pub type Checked = Vec<Option<String>>;

/// Checks expectations against the cells of a plan, those of every dataset by itself. `true` marks cells that are skipped.
///
/// # Errors
/// [`Error::Config`] with file and line, the expression, the place in it and the remedy.
pub fn check(expectations: &[Expectation], cells: &[(Subject, bool)]) -> Result<()> {
    let datasets: BTreeSet<&str> = cells.iter().map(|(cell, _)| cell.dataset_key.as_str()).collect();
    for expectation in expectations {
        for dataset in &datasets {
            let of_dataset: Vec<_> = cells.iter().filter(|(cell, _)| cell.dataset_key == *dataset).collect();
            bind(&expectation.comparison, &of_dataset).map_err(|mistake| placed(expectation, &mistake))?;
        }
    }
    Ok(())
}

/// A mistake as an error that names file, line and character.
fn placed(expectation: &Expectation, mistake: &Mistake) -> Error {
    place_mistake(&expectation.place, &expectation.text, mistake)
}

/// A mistake in `text`, which stands at `place`, as an error.
pub fn place_mistake(place: &str, text: &str, mistake: &Mistake) -> Error {
    let column = text.get(..mistake.at.start).map_or(0, |before| before.chars().count()) + 1;
    let finding = format!("in `{text}`, character {column}: {}", mistake.finding);
    Error::config(place, finding, &mistake.remedy)
}

/// Binds the paths of an expectation to the cells of one dataset.
///
/// # Errors
/// The first mistake in it.
pub fn bind(comparison: &Comparison, cells: &[&(Subject, bool)]) -> Result<Checked, Mistake> {
    let mut bound = Vec::new();
    let left = kind(&comparison.left, cells, &mut bound)?;
    let right = kind(&comparison.right, cells, &mut bound)?;
    for (side, kind) in [(&comparison.left, left), (&comparison.right, right)] {
        if let Kind::List(count) = kind {
            let finding = format!("this side is a list of {count} values, over folds or seeds");
            let remedy = "make one number of it: median(...), mean(...), min(...) or max(...)";
            return Err(Mistake::new(side.at.clone(), finding, remedy));
        }
    }
    Ok(bound)
}

/// Whether an expression is one number or a list over folds and seeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Number,
    List(usize),
}

fn kind(expression: &Expression, cells: &[&(Subject, bool)], bound: &mut Checked) -> Result<Kind, Mistake> {
    Ok(match &expression.node {
        Node::Number(_) => Kind::Number,
        Node::Path(path) => {
            let (series, count) = resolve(path, &expression.at, cells)?;
            bound.push(series);
            if count > 1 && path.metric.noise != Noise::None { Kind::List(count) } else { Kind::Number }
        }
        Node::Negate(inner) => kind(inner, cells, bound)?,
        Node::Call(function, inner) => {
            let inner = kind(inner, cells, bound)?;
            if function.is_aggregate() { Kind::Number } else { inner }
        }
        Node::Binary(_, left, right) => match (kind(left, cells, bound)?, kind(right, cells, bound)?) {
            (Kind::List(one), Kind::List(other)) => Kind::List(one.max(other)),
            (Kind::List(count), Kind::Number) | (Kind::Number, Kind::List(count)) => Kind::List(count),
            (Kind::Number, Kind::Number) => Kind::Number,
        },
    })
}

/// The series that a path speaks of and the number of its cells.
fn resolve(path: &Path, at: &Range<usize>, cells: &[&(Subject, bool)]) -> Result<(Option<String>, usize), Mistake> {
    // Labels go before registered names, which several entries of a file may share.
    let called = |which: usize| -> Vec<&(Subject, bool)> {
        let is_called = |cell: &Subject| cell.optimizer[which] == path.name || cell.model[which] == path.name;
        cells.iter().copied().filter(|(cell, _)| is_called(cell)).collect()
    };
    let mut chosen = called(0);
    if chosen.is_empty() {
        chosen = called(1);
    }
    if chosen.is_empty() {
        let names: BTreeSet<&str> =
            cells.iter().flat_map(|(cell, _)| [cell.optimizer[0].as_str(), cell.model[0].as_str()]).collect();
        let all = names.iter().map(|name| shown_name(name)).collect::<Vec<_>>().join(", ");
        let remedy = format!("{}names of this experiment are {all}", did_you_mean(&path.name, names.into_iter()));
        return Err(Mistake::new(at.clone(), format!("no optimizer or model is called `{}`", path.name), remedy));
    }
    for (key, value) in &path.conditions {
        if chosen.iter().all(|(cell, _)| cell.meets(key, value).is_none()) {
            let known: BTreeSet<&str> =
                chosen.iter().flat_map(|(cell, _)| cell.settings.keys().map(String::as_str)).collect();
            let all = known.iter().copied().collect::<Vec<_>>().join(", ");
            let remedy = format!("{}settings are model, optimizer, {all}", did_you_mean(key, known.iter().copied()));
            return Err(Mistake::new(at.clone(), format!("`{}` has no setting `{key}`", path.name), remedy));
        }
        chosen.retain(|(cell, _)| cell.meets(key, value) == Some(true));
        if chosen.is_empty() {
            let finding = format!("no cell of `{}` has {key} = {value}", path.name);
            return Err(Mistake::new(at.clone(), finding, "take a value that the experiment's grid holds"));
        }
    }
    let run: Vec<&Subject> = chosen.iter().filter(|(_, skipped)| !skipped).map(|(cell, _)| cell).collect();
    let Some(first) = run.first() else { return Ok((None, 1)) };
    let series = first.series();
    if let Some(other) = run.iter().find(|cell| cell.series() != series) {
        let finding =
            format!("`{}` is several kinds of cells, which differ in {}", path.name, difference(first, other));
        let remedy = format!("narrow it down, as in {}[key = value].{}", shown_name(&path.name), path.metric.name);
        return Err(Mistake::new(at.clone(), finding, remedy));
    }
    Ok((Some(series), run.len()))
}

/// A name as it can stand in an expression.
fn shown_name(name: &str) -> String {
    let is_plain = name.split('-').all(|part| part.chars().all(|c| c.is_alphanumeric() || c == '_'))
        && name.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && !name.ends_with('-');
    if is_plain { name.to_owned() } else { format!("'{name}'") }
}

/// In what two cells differ, seed and split apart.
fn difference(one: &Subject, other: &Subject) -> String {
    let mut parts = Vec::new();
    for (what, a, b) in [("optimizer", &one.optimizer, &other.optimizer), ("model", &one.model, &other.model)] {
        if a != b {
            let which = usize::from(a[0] == b[0]);
            parts.push(format!("{what} ({}, {})", shown_name(&a[which]), shown_name(&b[which])));
        }
    }
    let keys: BTreeSet<&String> = one.settings.keys().chain(other.settings.keys()).collect();
    for key in keys {
        if let (Some(a), Some(b)) = (one.settings.get(key), other.settings.get(key))
            && a != b
        {
            parts.push(format!("{key} ({a}, {b})").replace('"', ""));
        }
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cell(optimizer: &str, model: &str, seed: u64, rate: f64) -> (Subject, bool) {
        let config = json!({
            "dataset": {"name": "d", "label": "D", "split": {"last": {}}},
            "model": {"name": "logistic", "label": model, "features": model},
            "optimizer": {"name": optimizer, "label": optimizer},
            "hyperparameters": {"learning_rate": rate}, "seed": seed,
        });
        (Subject::of_config(&config), false)
    }

    fn cells() -> Vec<(Subject, bool)> {
        let mut cells = vec![cell("irls", "linear", 1, 0.0), cell("irls", "squares", 1, 0.0)];
        for seed in 1..4 {
            cells.extend([cell("sgd", "linear", seed, 0.1), cell("sgd", "linear", seed, 0.2)]);
        }
        let mut skipped = cell("admm", "linear", 1, 0.0);
        skipped.1 = true;
        cells.push(skipped);
        cells
    }

    fn bound(text: &str) -> Result<Checked, String> {
        let cells = cells();
        let cells: Vec<_> = cells.iter().collect();
        let comparison = Comparison::parse(text).expect("it reads");
        bind(&comparison, &cells).map_err(|m| format!("{}: {}; {}", &text[m.at.clone()], m.finding, m.remedy))
    }

    #[test]
    fn names_choose_one_series_and_lists_need_an_aggregate() {
        assert!(bound("irls[model = linear].steps < 3").is_ok());
        assert!(bound("irls[features = linear].steps < median(sgd[learning_rate = 0.1].steps)").is_ok());
        assert!(bound("median(sgd[learning_rate=0.1].steps - sgd[learning_rate=0.2].steps) < 0").is_ok());
        assert!(bound("sgd[learning_rate=0.1].parameters_total < 3").is_ok(), "exact numbers are no list");
        assert_eq!(bound("admm.steps < 3"), Ok(vec![None]));

        let refused = |text: &str| bound(text).expect_err(text);
        assert!(refused("sgd[learning_rate = 0.1].steps < 3").contains("list of 3 values"));
        assert!(refused("irls.steps < 3").contains("model (linear, squares)"));
        assert!(refused("median(sgd.steps) < 3").contains("learning_rate (0.1, 0.2)"));
        assert!(refused("irsl.steps < 3").contains("irls"));
        assert!(refused("sgd[batch = 3].steps < 3").contains("no setting `batch`"));
        assert!(refused("median(sgd[learning_rate = 0.3].steps) < 3").contains("grid"));
    }
}
