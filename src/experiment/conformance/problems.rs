//! Problems of a few rows and columns, made here, on which an optimizer is checked.

use crate::data::{Examples, Task};
use crate::device::Panels;
use crate::model::{Model, ModelData, ModelEntry};
use crate::optim::OptimizerEntry;
use crate::oracle::{Problem, Rows, SettingValue, Settings, Stream, stream};
use crate::workbench::Workbench;
use rand::RngExt as _;
use std::collections::BTreeMap;

/// Rows enough for sums over them to be cut into several pieces, which threads share.
pub const MANY_ROWS: usize = 4500;

/// Rows enough for several minibatches of the usual size.
pub const FEW_ROWS: usize = 600;

const COLUMNS: usize = 4;

/// A problem and what it is.
pub struct Case {
    /// What it is, in words.
    pub name: String,
    /// The problem.
    pub model: Box<dyn Model>,
    /// Whether it has one optimum.
    pub convex: bool,
    /// Whether it is computed in `f32`.
    pub single_precision: bool,
}

/// A registered model with settings that make a small problem of it.
struct Recipe {
    model: &'static str,
    settings: &'static [(&'static str, &'static str)],
    /// A network, of which no more than one is taken.
    network: bool,
    convex: bool,
}

/// In order of preference, the generalized linear models before the networks.
const RECIPES: [Recipe; 8] = [
    glm("logistic"),
    glm("least-squares"),
    glm("softmax"),
    network("mlp", &[("hidden", "4-3"), ("activation", "tanh"), ("ridge", "0.01")], false),
    network("mlp", &[("hidden", "4-3"), ("activation", "relu"), ("ridge", "0.01")], false),
    network("mlp", &[("hidden", "none"), ("ridge", "0.01")], true),
    network("autoencoder", &[("hidden", "3-2"), ("ridge", "0.01"), ("loss", "squared")], false),
    network("switch-layer", &[("experts", "3"), ("hidden", "4")], false),
];

const fn glm(model: &'static str) -> Recipe {
    const SETTINGS: &[(&str, &str)] = &[("regularizer", "ridge"), ("strength", "0.01"), ("accuracy", "high")];
    Recipe { model, settings: SETTINGS, network: false, convex: true }
}

const fn network(model: &'static str, settings: &'static [(&'static str, &'static str)], convex: bool) -> Recipe {
    Recipe { model, settings, network: true, convex }
}

/// The problems on which an optimizer can run: a generalized linear model, a network, and a convex problem if neither is
/// one; where none fits, any other model of the workbench with its own defaults.
pub fn fitting(workbench: &Workbench, entry: &OptimizerEntry, rows: usize) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for recipe in &RECIPES {
        let Ok(model) = workbench.model(recipe.model) else { continue };
        let is_taken = cases.iter().any(|case| case.single_precision == recipe.network);
        let adds_convexity = recipe.convex && !cases.iter().any(|case| case.convex);
        if is_taken && !adds_convexity {
            continue;
        }
        cases.extend(built(model, recipe, rows).into_iter().find(|case| fits(case, entry)));
    }
    if cases.is_empty() {
        cases.extend(others(workbench, rows).into_iter().find(|case| fits(case, entry)));
    }
    cases
}

fn fits(case: &Case, entry: &OptimizerEntry) -> bool {
    entry.needs.iter().all(|&need| case.model.offers(need).is_ok())
}

/// Why no problem offers what an optimizer needs.
pub fn refusals(workbench: &Workbench, entry: &OptimizerEntry) -> String {
    let mut reasons = Vec::new();
    for recipe in &RECIPES {
        let Ok(model) = workbench.model(recipe.model) else { continue };
        if let Some(case) = built(model, recipe, FEW_ROWS) {
            let refused = entry.needs.iter().find_map(|&need| Some((need, case.model.offers(need).err()?)));
            reasons.extend(refused.map(|(need, reason)| format!("{} has no {need}: {reason}", case.name)));
        }
    }
    format!("no problem offers all that it needs ({})", reasons.join("; "))
}

/// A recipe on the first of the kinds of target that the model takes.
fn built(entry: &ModelEntry, recipe: &Recipe, rows: usize) -> Option<Case> {
    let given = recipe.settings.iter().filter(|(key, _)| entry.settings.iter().any(|setting| setting.name == *key));
    let values = given.map(|(key, text)| ((*key).to_owned(), value(text))).collect();
    let settings = Settings::check(entry.name, entry.settings, &values).ok()?;
    let model = tasks().into_iter().find_map(|task| entry.build(&data(rows, task), &settings).ok())?;
    let told: Vec<_> =
        recipe.settings.iter().filter(|(key, _)| matches!(*key, "hidden" | "activation" | "experts")).collect();
    let name = match told.iter().map(|(key, value)| format!("{key} = {value}")).collect::<Vec<_>>().join(", ") {
        shape if shape.is_empty() => entry.name.to_owned(),
        shape => format!("{} with {shape}", entry.name),
    };
    Some(Case { name, model, convex: recipe.convex, single_precision: recipe.network })
}

/// Models of the workbench that no recipe knows.
fn others(workbench: &Workbench, rows: usize) -> Vec<Case> {
    let unknown = workbench.models.iter().filter(|entry| RECIPES.iter().all(|recipe| recipe.model != entry.name));
    let build = |entry: &ModelEntry| {
        let settings = Settings::check(entry.name, entry.settings, &BTreeMap::new()).ok()?;
        let model = tasks().into_iter().find_map(|task| entry.build(&data(rows, task), &settings).ok())?;
        let convex = model.is_convex();
        Some(Case { name: entry.name.to_owned(), model, convex, single_precision: false })
    };
    unknown.filter_map(build).collect()
}

/// A setting's value as it would stand in a file.
fn value(text: &str) -> SettingValue {
    if let Ok(whole) = text.parse() {
        return SettingValue::Whole(whole);
    }
    text.parse().map_or_else(|_| SettingValue::Word(text.to_owned()), SettingValue::Real)
}

fn tasks() -> [Task; 3] {
    let classes = |count: usize| Task::Classes((0..count).map(|class| format!("c{class}")).collect());
    [classes(2), classes(3), Task::Regression]
}

/// Uniform features with a target that follows a noisy linear rule: all rows are for training.
fn data(rows: usize, task: Task) -> ModelData {
    let mut rng = stream(5, Stream::Initialization);
    let mut values = Vec::with_capacity(rows * COLUMNS);
    let mut targets = Vec::with_capacity(rows);
    for _ in 0..rows {
        let x: Vec<f32> = (0..COLUMNS).map(|_| rng.random_range(0.0..1.0)).collect();
        let score: f32 = x.iter().zip([2.0, -1.5, 1.0, 0.5]).map(|(x, w)| w * (x - 0.5)).sum();
        let noisy = score + rng.random_range(-1.0..1.0_f32);
        targets.push(match &task {
            Task::Regression => noisy,
            Task::Classes(names) if names.len() == 2 => f32::from(u8::from(noisy > 0.0)),
            Task::Classes(_) => f32::from(u8::from(noisy > -0.4) + u8::from(noisy > 0.4)),
        });
        values.extend(x);
    }
    let features = Panels::from_fn(rows, COLUMNS, |row, column| values[row * COLUMNS + column]);
    let targets = Panels::from_fn(rows, 1, |row, _| targets[row]);
    let part = |range| Examples { features: features.clone(), targets: targets.clone(), range };
    ModelData {
        train: part(0..rows),
        validation: part(0..0),
        test: part(0..0),
        task,
        columns: (0..COLUMNS).map(|column| format!("x{column}")).collect(),
    }
}

/// Steps of the search for a reference optimum.
const REFERENCE_STEPS: usize = 2000;

/// The smallest objective of a convex problem, by gradient descent with the step size of Barzilai and Borwein (1988); the
/// smallest value seen counts. `None` where the problem has no gradient.
pub fn smallest_objective(problem: &dyn Problem) -> Option<f64> {
    let oracle = problem.gradient().ok()?;
    let mut at = problem.initial(&mut stream(1, Stream::Initialization));
    let (mut gradient, mut last_gradient) = (at.zeros_like(), at.zeros_like());
    let mut last = at.clone();
    let mut step = 0.1;
    let mut smallest = f64::INFINITY;
    for index in 0..REFERENCE_STEPS {
        let value = oracle.value_and_gradient(&at, Rows::All, &mut gradient).ok()?.value;
        smallest = smallest.min(value);
        if gradient.norm_max() < 1e-12 {
            break;
        }
        if index > 0 {
            let mut moved = at.clone();
            moved.axpy(-1.0, &last);
            last_gradient.axpby(-1.0, 1.0, &gradient);
            let curvature = moved.dot(&last_gradient);
            if curvature > 0.0 {
                step = moved.dot(&moved) / curvature;
            }
        }
        last.copy_from(&at);
        last_gradient.copy_from(&gradient);
        at.axpy(-step, &gradient);
    }
    Some(smallest)
}
