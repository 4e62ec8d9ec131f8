//! Tuning: the same number of trials and the same seconds for every optimizer of an experiment, chosen on validation rows.
//!
//! A trial is a cell like any other: it runs in a process of its own, goes on after a kill, and is found again by its
//! ID. Test rows are withheld from it altogether. What is searched, and at which points, is in `space`; which trial is
//! chosen, in `choice`; the experiment file that comes of it, in `chosen`.

mod choice;
mod chosen;
mod section;
mod space;

pub use choice::{Record, Trial, Tuned};
pub use section::{METRICS, Ranges, Tune, Wanted};
pub use space::{Dimension, Domain};

pub(super) use section::read as read_section;

use super::budget::Budget;
use super::plan::Plan;
use super::record::{Values, write_json, write_whole};
use super::spec::{ComponentSpec, Folds, Spec};
use crate::claim::Claim;
use crate::error::{Error, Result};
use crate::oracle::{Setting, SettingValue, Settings};
use crate::workbench::Workbench;
use section::TRIALS;
use space::Point;
use std::path::{Path, PathBuf};

/// What the command line says in place of the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    /// Trials of each optimizer.
    pub trials: Option<usize>,
    /// Seconds of training of each trial.
    pub seconds: Option<f64>,
    /// The seed of the search.
    pub seed: Option<u64>,
}

/// The trials of one optimizer of the file.
#[derive(Debug, Clone)]
struct Candidate {
    name: String,
    label: String,
    dimensions: Vec<Dimension>,
    points: Vec<Point>,
    /// All hyperparameters of each trial, as its cells record them.
    hyperparameters: Vec<Values>,
}

/// A search that is ready to run.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// The experiment of all trials.
    pub spec: Spec,
    /// The experiment that is tuned.
    original: Spec,
    candidates: Vec<Candidate>,
    metric: String,
    trials: usize,
    seconds: f64,
    seed: u64,
}

/// The file in which the outcome is recorded.
pub const RECORD: &str = "tune.json";

/// The experiment file that is written.
pub const CHOSEN: &str = "chosen.toml";

impl Tuning {
    /// Lays out the trials of an experiment.
    ///
    /// # Errors
    /// [`Error::Config`] for ranges that cannot be searched, grids that leave open which value is meant, or where nothing
    /// says how many seconds a trial has.
    pub fn new(spec: &Spec, workbench: &Workbench, overrides: &Overrides) -> Result<Self> {
        let tune = spec.tune.clone().unwrap_or_default();
        let trials = overrides.trials.or(tune.trials).unwrap_or(TRIALS);
        let seed = overrides.seed.or(tune.seed).unwrap_or(1);
        let seconds = overrides.seconds.or(tune.seconds).or(spec.budget.and_then(|budget| budget.seconds));
        let Some(seconds) = seconds else {
            let finding = "nothing says how many seconds a trial has";
            let remedy = "add `seconds` to [tune], or seconds to the experiment's `budget`, or give --seconds";
            return Err(Error::config(&spec.name, finding, remedy));
        };
        let metric = tune.metric.clone().unwrap_or_else(|| default_metric(spec));
        for ranges in &tune.ranges {
            known(ranges, spec)?;
        }
        let mut candidates = Vec::new();
        let mut optimizers = Vec::new();
        for optimizer in &spec.optimizers {
            let (candidate, components) = candidate(optimizer, spec, workbench, &tune.ranges, (trials, seconds, seed))?;
            candidates.push(candidate);
            optimizers.extend(components);
        }
        let trial_spec = Spec {
            name: format!("{}-tune", spec.name),
            seeds: spec.seeds.iter().take(1).copied().collect(),
            folds: match &spec.folds {
                Folds::Some(folds) => Folds::Some(folds.iter().take(1).copied().collect()),
                Folds::One | Folds::All => Folds::One,
            },
            target: None,
            // Expectations speak of the one setting of an experiment; trials have many.
            claim: Claim { expectations: Vec::new(), ..spec.claim.clone() },
            optimizers,
            withhold_test: true,
            ..spec.clone()
        };
        Ok(Self { spec: trial_spec, original: spec.clone(), candidates, metric, trials, seconds, seed })
    }

    /// Plans the trials.
    ///
    /// # Errors
    /// As [`Plan::new`]; [`Error::Config`] where there are no validation rows.
    pub fn plan(&self, workbench: &Workbench, progress: &dyn Fn(u64, u64)) -> Result<Plan> {
        let mut plan = Plan::new(&self.spec, workbench, progress)?;
        if let Some(cell) = plan.cells.iter().find(|cell| cell.dataset.rows[1] == 0) {
            let finding = format!("{} has no validation rows, on which settings are chosen", cell.dataset.label);
            return Err(Error::config(&self.original.name, finding, "give `split` validation rows"));
        }
        // No figure of trials shows a distance from the optimum: nothing is solved for it.
        plan.problems.values_mut().for_each(|is_convex| *is_convex = false);
        Ok(plan)
    }

    /// What is searched, and how often, in a line for each optimizer.
    #[must_use]
    pub fn description(&self) -> Vec<[String; 3]> {
        let row = |candidate: &Candidate| {
            let searched: Vec<_> = candidate.dimensions.iter().map(Dimension::to_string).collect();
            let searched = if searched.is_empty() { "nothing".to_owned() } else { searched.join(", ") };
            [candidate.label.clone(), candidate.points.len().to_string(), searched]
        };
        self.candidates.iter().map(row).collect()
    }

    /// Reads what the trials came to, chooses, and writes `tune.json` and the chosen experiment file.
    ///
    /// # Errors
    /// If a trace cannot be read, a file not be written, or the experiment file is laid out in a way that the chosen
    /// settings cannot be entered into.
    pub fn conclude(&self, folder: &Path, plan: &Plan, workbench: &Workbench) -> Result<(Record, PathBuf)> {
        let record = choice::choose(self, folder, plan)?;
        let path = folder.join(CHOSEN);
        let text = chosen::text(&self.original, &record, &path, workbench)?;
        write_whole(&path, text.as_bytes())?;
        // Last: with it, everything is there.
        write_json(&folder.join(RECORD), &record)?;
        Ok((record, path))
    }
}

impl std::fmt::Display for Dimension {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.domain {
            Domain::Between { from, to, log } => {
                write!(f, "{} from {from} to {to}{}", self.setting.name, if *log { " (log)" } else { "" })
            }
            Domain::Among(values) => {
                let values: Vec<_> = values.iter().map(ToString::to_string).collect();
                write!(f, "{} among {}", self.setting.name, values.join("|"))
            }
        }
    }
}

/// The target's metric, if it is one of the validation rows, else their loss.
fn default_metric(spec: &Spec) -> String {
    let target = spec.target.as_ref().map(|target| target.metric.as_str());
    target.filter(|metric| METRICS.contains(metric)).unwrap_or(METRICS[0]).to_owned()
}

fn label(optimizer: &ComponentSpec) -> &str {
    optimizer.label.as_deref().unwrap_or(&optimizer.name)
}

/// That ranges are about an optimizer of the file.
fn known(ranges: &Ranges, spec: &Spec) -> Result<()> {
    if spec.optimizers.iter().any(|o| label(o) == ranges.optimizer || o.name == ranges.optimizer) {
        return Ok(());
    }
    let labels: Vec<_> = spec.optimizers.iter().map(label).collect();
    let finding = format!("[tune.ranges.{}]: no optimizer of the file has this name or label", ranges.optimizer);
    Err(Error::config(&ranges.place, finding, format!("there are: {}", labels.join(", "))))
}

/// An optimizer's trials, and the entries of the experiment that runs them.
fn candidate(
    optimizer: &ComponentSpec,
    spec: &Spec,
    workbench: &Workbench,
    ranges: &[Ranges],
    (trials, seconds, seed): (usize, f64, u64),
) -> Result<(Candidate, Vec<ComponentSpec>)> {
    let entry = workbench.optimizer(&optimizer.name)?;
    let by_label = ranges.iter().find(|ranges| ranges.optimizer == label(optimizer));
    let own = by_label.or_else(|| ranges.iter().find(|ranges| ranges.optimizer == optimizer.name));
    let mut dimensions = space::dimensions(&optimizer.name, entry.settings, own)?;
    // Of the settings that count under some words of a choice alone, those that count under the one given.
    let word = |choice: &str| match optimizer.grid.iter().find(|(name, _)| name.as_str() == choice) {
        Some((_, values)) => values.first().cloned(),
        None => entry.settings.iter().find(|setting| setting.name == choice).map(Setting::default_value),
    };
    let is_named = |name: &str| own.is_some_and(|own| own.settings.iter().any(|(known, ..)| known == name));
    let searched: Vec<&str> = dimensions.iter().map(|dimension| dimension.setting.name).collect();
    dimensions.retain(|Dimension { setting, .. }| {
        setting.of.is_none_or(|(choice, words)| {
            let counts = |value: Option<SettingValue>| match value {
                Some(SettingValue::Word(word)) => words.iter().any(|known| *known == word),
                _ => false,
            };
            is_named(setting.name) || searched.contains(&choice) || counts(word(choice))
        })
    });
    let is_searched = |name: &str| dimensions.iter().any(|dimension| dimension.setting.name == name);
    let held: Vec<_> = optimizer.grid.iter().filter(|(name, _)| !is_searched(name)).collect();
    if let Some((name, values)) = held.iter().find(|(_, values)| values.len() > 1) {
        let finding = format!("`{name}` has {} values and is not searched", values.len());
        let remedy = format!("give it one value, or search it: [tune.ranges.{}] {name} = [...]", optimizer.name);
        return Err(Error::config(&optimizer.place, finding, remedy));
    }
    let budget = optimizer.budget.or(spec.budget).unwrap_or_default();
    let points = space::points(&dimensions, trials, seed);
    let mut components = Vec::new();
    let mut hyperparameters = Vec::new();
    for point in &points {
        let mut values: Point = held.iter().map(|(name, values)| ((*name).clone(), values[0].clone())).collect();
        values.extend(point.clone());
        let settings = Settings::check(&optimizer.place, entry.settings, &values)?;
        hyperparameters
            .push(settings.values().iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect());
        components.push(ComponentSpec {
            grid: values.into_iter().map(|(name, value)| (name, vec![value])).collect(),
            budget: Some(Budget { seconds: Some(seconds), ..budget }),
            ..optimizer.clone()
        });
    }
    let (name, label) = (optimizer.name.clone(), label(optimizer).to_owned());
    Ok((Candidate { name, label, dimensions, points, hyperparameters }, components))
}
