//! Finds the mistakes of an expectation that only the plan can show: names that no cell has, names that several kinds of
//! cells have, and lists compared as if they were numbers.

use super::Expectation;
use super::metric::Noise;
use super::sample::LEAST_REPLICATES;
use super::subject::Subject;
use super::syntax::{Comparison, Expression, Mistake, Node, Path};
use crate::error::{Error, Result};
use crate::oracle::did_you_mean;
use std::collections::BTreeSet;
use std::ops::Range;

/// The series that each path of an expectation speaks of on one dataset, from left to right; `None` where the cells were
/// skipped because their parts do not fit.
pub type Checked = Vec<Option<String>>;

/// What an experiment records beside what it always does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// When a target was reached.
    pub target: bool,
    /// What statistics knows about a fit.
    pub inspection: bool,
}

/// Checks expectations against the cells of a plan, those of every dataset by itself. `true` marks cells that are skipped.
///
/// # Errors
/// [`Error::Config`] with file and line, the expression, the place in it and the remedy.
pub fn check(expectations: &[Expectation], cells: &[(Subject, bool)], recorded: Recorded) -> Result<()> {
    let datasets: BTreeSet<&str> = cells.iter().map(|(cell, _)| cell.dataset_key.as_str()).collect();
    for expectation in expectations {
        if let Some(mistake) = unrecorded(&expectation.comparison, recorded) {
            return Err(placed(expectation, &mistake));
        }
        for dataset in &datasets {
            let of_dataset: Vec<_> = cells.iter().filter(|(cell, _)| cell.dataset_key == *dataset).collect();
            bind(&expectation.comparison, &of_dataset).map_err(|mistake| placed(expectation, &mistake))?;
        }
    }
    Ok(())
}

/// The first metric that the experiment does not record.
fn unrecorded(comparison: &Comparison, recorded: Recorded) -> Option<Mistake> {
    let mut found = None;
    comparison.paths(&mut |path, at| {
        let remedy = match path.metric {
            metric if metric.to_target && !recorded.target => {
                "add a target, such as target = { metric = \"validation_accuracy\", value = 0.64 }"
            }
            metric if metric.is_inspected() && !recorded.inspection => "add inspect = true",
            _ => return,
        };
        let finding = format!("the experiment does not record {}", path.metric.name);
        found.get_or_insert_with(|| Mistake::new(at.clone(), finding, remedy));
    });
    found
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
        if let Kind::List { count, .. } = kind {
            let finding = format!("this side is a list of {count} values, over folds or seeds");
            let remedy = "make one number of it: median(...) or mean(...)";
            return Err(Mistake::new(side.at.clone(), finding, remedy));
        }
    }
    Ok(bound)
}

/// Whether an expression is one number or a list over folds and seeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Number,
    /// Whether other seeds, splits or moments would make it another list.
    List {
        count: usize,
        varies: bool,
    },
}

fn kind(expression: &Expression, cells: &[&(Subject, bool)], bound: &mut Checked) -> Result<Kind, Mistake> {
    Ok(match &expression.node {
        Node::Number(_) => Kind::Number,
        Node::Path(path) => {
            let (series, run) = resolve(path, &expression.at, cells)?;
            bound.push(series);
            match (run.len(), path.metric.noise) {
                (0 | 1, _) | (_, Noise::None) => Kind::Number,
                (count, noise) => {
                    let splits: BTreeSet<&str> = run.iter().map(|cell| cell.split.as_str()).collect();
                    let drawn = run.iter().any(|cell| cell.stochastic) || splits.len() >= LEAST_REPLICATES;
                    Kind::List { count, varies: drawn || noise != Noise::Seed }
                }
            }
        }
        Node::Negate(inner) => kind(inner, cells, bound)?,
        Node::Call(function, inner) => match kind(inner, cells, bound)? {
            Kind::List { varies: true, .. } if function.is_extreme() => {
                let finding = "the smallest or largest of these says nothing about other seeds, splits or moments";
                return Err(Mistake::new(expression.at.clone(), finding, "take median(...) or mean(...)"));
            }
            _ if function.is_aggregate() => Kind::Number,
            inner => inner,
        },
        Node::Binary(_, left, right) => match (kind(left, cells, bound)?, kind(right, cells, bound)?) {
            (Kind::List { count: one, varies }, Kind::List { count: other, varies: also }) => {
                Kind::List { count: one.max(other), varies: varies || also }
            }
            (Kind::Number, other) | (other, Kind::Number) => other,
        },
    })
}

/// The series that a path speaks of and those of its cells that are run.
fn resolve<'a>(
    path: &Path,
    at: &Range<usize>,
    cells: &[&'a (Subject, bool)],
) -> Result<(Option<String>, Vec<&'a Subject>), Mistake> {
    // Labels go before registered names, which several entries of a file may share.
    let called = |which: usize| -> Vec<&'a (Subject, bool)> {
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
    let run: Vec<&'a Subject> = chosen.into_iter().filter(|(_, skipped)| !skipped).map(|(cell, _)| cell).collect();
    let Some(first) = run.first() else { return Ok((None, run)) };
    let series = first.series();
    if let Some(other) = run.iter().find(|cell| cell.series() != series) {
        let finding =
            format!("`{}` is several kinds of cells, which differ in {}", path.name, difference(first, other));
        let remedy = format!("narrow it down, as in {}[key = value].{}", shown_name(&path.name), path.metric.name);
        return Err(Mistake::new(at.clone(), finding, remedy));
    }
    let places: BTreeSet<(&str, u64)> = run.iter().map(|cell| (cell.split.as_str(), cell.seed)).collect();
    if places.len() < run.len() {
        let finding = format!("`{}` is several cells of one seed and split, which differ in no setting", path.name);
        let remedy = "give the entries of the experiment labels of their own, as for two budgets";
        return Err(Mistake::new(at.clone(), finding, remedy));
    }
    Ok((Some(series), run))
}

/// A name as it can stand in an expression.
fn shown_name(name: &str) -> String {
    // As the tokens are cut: a hyphen belongs to a name between one of its characters and a letter or digit.
    let is_part = |(index, part): (usize, &str)| {
        part.starts_with(|c: char| if index == 0 { c.is_alphabetic() || c == '_' } else { c.is_alphanumeric() })
            && part.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    let is_plain = name.split('-').enumerate().all(is_part);
    if is_plain { name.to_owned() } else { format!("'{}'", name.replace('\'', "''")) }
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
        assert!(bound("mean(sgd[learning_rate=0.1].steps) < 3 * irls[model = linear].steps").is_ok());

        let refused = |text: &str| bound(text).expect_err(text);
        assert!(refused("sgd[learning_rate = 0.1].steps < 3").contains("list of 3 values"));
        assert!(refused("irls.steps < 3").contains("model (linear, squares)"));
        assert!(refused("median(sgd.steps) < 3").contains("learning_rate (0.1, 0.2)"));
        assert!(refused("irsl.steps < 3").contains("irls"));
        assert!(refused("sgd[batch = 3].steps < 3").contains("no setting `batch`"));
        assert!(refused("median(sgd[learning_rate = 0.3].steps) < 3").contains("grid"));
        // The largest of three seeds is not that of thirty.
        assert!(
            refused("max(sgd[learning_rate = 0.1].steps) < 3").starts_with("max(sgd[learning_rate = 0.1].steps): ")
        );
        assert!(bound("max(irls[model = linear].steps) < 3").is_ok());
    }

    #[test]
    fn cells_that_differ_in_nothing_one_can_name_are_refused() {
        let mut cells = vec![cell("sgd", "linear", 1, 0.1), cell("sgd", "linear", 2, 0.1)];
        let comparison = Comparison::parse("mean(sgd.steps) < 3").expect("it reads");
        assert!(bind(&comparison, &cells.iter().collect::<Vec<_>>()).is_ok());
        // As with two budgets.
        cells.push(cell("sgd", "linear", 2, 0.1));
        let mistake = bind(&comparison, &cells.iter().collect::<Vec<_>>()).expect_err("which of the two?");
        assert!(mistake.remedy.contains("labels of their own"), "{mistake:?}");
    }

    #[test]
    fn what_is_not_recorded_is_refused_and_names_are_shown_as_they_are_read() {
        let of = |text: &str, target, inspection| {
            unrecorded(&Comparison::parse(text).expect(text), Recorded { target, inspection }).map(|m| m.remedy)
        };
        assert!(of("a.steps < a.flops_to_target", false, true).is_some_and(|remedy| remedy.contains("target =")));
        assert!(of("a.left_out_loss < 1", true, false).is_some_and(|remedy| remedy.contains("inspect")));
        assert_eq!(of("a.left_out_loss < a.time_to_target", true, true), None);
        for name in ["l-bfgs", "a--b", "a-_b", "28-300-1", "it's", "-x", "x-", "Δ_2", "SGD, fast", ""] {
            let text = format!("{}.steps > 1", shown_name(name));
            let read = Comparison::parse(&text).expect(&text);
            read.paths(&mut |path, _| assert_eq!(path.name, name));
        }
    }
}
