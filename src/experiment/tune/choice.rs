//! Which trial is chosen, and the record of all of them.
//!
//! A trial's value is the metric on validation rows that its cells report. A budget in seconds cuts a trial wherever the
//! machine has come, so of a trial that ran out of seconds only planned evaluations count, which stand at fixed steps or
//! passes: what the seconds decide is how many of them there are, and nothing else. With one dataset and model the best
//! value is chosen; with several, the best mean rank over them; of equals, the trial that comes first.

use super::{Candidate, Tuning};
use crate::error::Result;
use crate::experiment::budget::{Schedule, readable_seconds};
use crate::experiment::plan::Plan;
use crate::experiment::record::{CellConfig, CellFolder, CellResult, Status, Values};
use crate::experiment::spec::Reported;
use crate::experiment::trace::{self, Trace};
use serde::Serialize;
use serde_json::Value;
use std::path::Path;

/// `tune.json`: what was tried and what was chosen.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    /// The experiment's name.
    pub experiment: String,
    /// The metric by which settings are chosen.
    pub metric: String,
    /// Trials of each optimizer, where it has so many distinct settings.
    pub trials: usize,
    /// Seconds of training of each trial.
    pub seconds: f64,
    /// The seed of the search.
    pub seed: u64,
    /// Cells that ran out of seconds; with none, the same seed chooses the same settings anywhere.
    pub cut_by_seconds: usize,
    /// The problems, as dataset and model.
    pub problems: Vec<String>,
    /// The optimizers in the file's order.
    pub optimizers: Vec<Tuned>,
}

/// The trials of one optimizer.
#[derive(Debug, Clone, Serialize)]
pub struct Tuned {
    /// Its registered name.
    pub name: String,
    /// What reports call it.
    pub label: String,
    /// The searched settings: `{name, from, to, log}` or `{name, among}`.
    pub searched: Vec<Value>,
    /// The trials.
    pub trials: Vec<Trial>,
    /// The chosen trial, counted from 0; none where no trial came to a finite value.
    pub chosen: Option<usize>,
}

/// One trial.
#[derive(Debug, Clone, Serialize)]
pub struct Trial {
    /// The searched settings' values.
    pub settings: Values,
    /// The IDs of its cells.
    pub cells: Vec<String>,
    /// How they ended, in the same order.
    pub statuses: Vec<Status>,
    /// The metric on each of the problems; null where it was not reached or is no finite number.
    pub values: Vec<Option<f64>>,
    /// The mean rank among the optimizer's trials, 1 the best; null for one that cannot be chosen.
    pub rank: Option<f64>,
}

/// Chooses among what the trials came to.
pub fn choose(tuning: &Tuning, folder: &Path, plan: &Plan) -> Result<Record> {
    let mut problems: Vec<(String, String)> = Vec::new();
    for cell in &plan.cells {
        if !problems.iter().any(|(problem, _)| *problem == cell.problem) {
            problems.push((cell.problem.clone(), format!("{}, {}", cell.dataset.label, model_name(plan, cell))));
        }
    }
    let mut cut = 0;
    let mut optimizers = Vec::new();
    for candidate in &tuning.candidates {
        optimizers.push(tuned(candidate, tuning, folder, plan, &problems, &mut cut)?);
    }
    Ok(Record {
        experiment: tuning.original.name.clone(),
        metric: tuning.metric.clone(),
        trials: tuning.trials,
        seconds: tuning.seconds,
        seed: tuning.seed,
        cut_by_seconds: cut,
        problems: problems.into_iter().map(|(_, name)| name).collect(),
        optimizers,
    })
}

/// A cell's model with the settings in which the models of the plan differ.
fn model_name(plan: &Plan, cell: &CellConfig) -> String {
    crate::experiment::progress::Names::new(plan.cells.iter()).model(cell)
}

fn tuned(
    candidate: &Candidate,
    tuning: &Tuning,
    folder: &Path,
    plan: &Plan,
    problems: &[(String, String)],
    cut: &mut usize,
) -> Result<Tuned> {
    let mut trials = Vec::new();
    for (point, hyperparameters) in candidate.points.iter().zip(&candidate.hyperparameters) {
        let own = |cell: &&CellConfig| {
            cell.optimizer.name == candidate.name
                && cell.optimizer.label == candidate.label
                && cell.hyperparameters == *hyperparameters
        };
        let mut trial = Trial {
            settings: point.clone(),
            cells: Vec::new(),
            statuses: Vec::new(),
            values: vec![None; problems.len()],
            rank: None,
        };
        for cell in plan.cells.iter().filter(own) {
            let place = CellFolder::new(folder.join("cells").join(&cell.cell));
            let Some(result) = place.read_result() else { continue };
            *cut += usize::from(result.status == Status::TimedOut);
            let value = value(cell, &place, &result, &tuning.metric)?.filter(|value| value.is_finite());
            if let Some(slot) = problems.iter().position(|(problem, _)| *problem == cell.problem) {
                trial.values[slot] = value;
            }
            trial.cells.push(cell.cell.clone());
            trial.statuses.push(result.status);
        }
        trials.push(trial);
    }
    rank(&mut trials, tuning.metric.ends_with("accuracy"));
    // The first of the smallest.
    let best = |(index, trial): (usize, &Trial)| Some((index, trial.rank?));
    let chosen =
        trials.iter().enumerate().filter_map(best).reduce(|one, other| if other.1 < one.1 { other } else { one });
    Ok(Tuned {
        name: candidate.name.clone(),
        label: candidate.label.clone(),
        searched: candidate.dimensions.iter().map(super::chosen::searched).collect(),
        trials,
        chosen: chosen.map(|(index, _)| index),
    })
}

/// What a cell came to.
fn value(cell: &CellConfig, place: &CellFolder, result: &CellResult, metric: &str) -> Result<Option<f64>> {
    match result.status {
        Status::Finished => Ok(match metric {
            "validation_accuracy" => result.validation_accuracy,
            "validation_squared_error" => result.validation_squared_error,
            _ => result.validation_loss,
        }),
        Status::TimedOut if place.trace().exists() => {
            let trace = trace::read(&place.trace())?;
            Ok(planned_value(&trace, cell.evaluate, cell.report, metric))
        }
        _ => Ok(None),
    }
}

/// The metric at the last planned evaluation or, where the best iterate is reported, at the best of them.
fn planned_value(trace: &Trace, schedule: Schedule, report: Reported, metric: &str) -> Option<f64> {
    let column = |name: &str| trace.columns().get(name).map_or(&[][..], Vec::as_slice);
    let (steps, passes, values) = (column("step"), column("data_passes"), column(metric));
    let is_planned = |row: usize| {
        row == 0 || schedule.after(steps[row - 1] as u64, passes[row - 1]).is_reached(steps[row] as u64, passes[row])
    };
    let mut planned = (0..trace.rows()).filter(|&row| is_planned(row));
    let row = match report {
        Reported::Last => planned.next_back()?,
        Reported::BestValidation => {
            let losses = column("validation_loss");
            planned.reduce(|best, row| if losses[row] < losses[best] { row } else { best })?
        }
    };
    values.get(row).copied()
}

/// Gives each trial its mean rank over the problems on which any trial of the optimizer has a value; a trial without one
/// is the last there, and one without any has no rank.
fn rank(trials: &mut [Trial], larger_is_better: bool) {
    let problems = trials.first().map_or(0, |trial| trial.values.len());
    let cost = |trial: &Trial, problem: usize| match trial.values[problem] {
        Some(value) if larger_is_better => -value,
        Some(value) => value,
        None => f64::INFINITY,
    };
    let counted: Vec<usize> =
        (0..problems).filter(|&problem| trials.iter().any(|trial| trial.values[problem].is_some())).collect();
    let ranks: Vec<Option<f64>> = trials
        .iter()
        .map(|trial| {
            if trial.values.iter().all(Option::is_none) {
                return None;
            }
            let better = |&problem: &usize| {
                trials.iter().filter(|other| cost(other, problem) < cost(trial, problem)).count() as f64 + 1.0
            };
            Some(counted.iter().map(better).sum::<f64>() / counted.len() as f64)
        })
        .collect();
    for (trial, rank) in trials.iter_mut().zip(ranks) {
        trial.rank = rank;
    }
}

impl Record {
    /// Whether the same seed chooses the same settings anywhere, in a sentence.
    #[must_use]
    pub fn reproducibility(&self) -> String {
        let all: usize = self.optimizers.iter().flat_map(|tuned| &tuned.trials).map(|trial| trial.cells.len()).sum();
        match self.cut_by_seconds {
            0 => {
                "No trial was cut by its seconds: the same seed chooses the same settings on any machine of this kind."
                    .to_owned()
            }
            cut => format!(
                "{cut} of {all} trials were cut by their {}: a faster or slower machine could choose otherwise. A budget in \
                 passes or steps that fits within the seconds makes the choice depend on the seed alone.",
                readable_seconds(self.seconds)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(values: &[Option<f64>]) -> Trial {
        let values = values.to_vec();
        Trial { settings: Values::new(), cells: vec![], statuses: vec![], values, rank: None }
    }

    fn ranks(values: &[&[Option<f64>]], larger: bool) -> Vec<Option<f64>> {
        let mut trials: Vec<_> = values.iter().map(|values| trial(values)).collect();
        rank(&mut trials, larger);
        trials.iter().map(|trial| trial.rank).collect()
    }

    #[test]
    fn ranks_average_over_problems_and_a_missing_value_is_the_last() {
        let values: [&[_]; 3] = [&[Some(0.3), Some(5.0)], &[Some(0.2), Some(7.0)], &[None, Some(6.0)]];
        assert_eq!(ranks(&values, false), [Some(1.5), Some(2.0), Some(2.5)]);
        assert_eq!(ranks(&[&[Some(0.6)], &[Some(0.7)], &[None]], true), [Some(2.0), Some(1.0), None]);
        // A problem that an optimizer cannot run on does not count.
        assert_eq!(ranks(&[&[None, Some(1.0)], &[None, Some(1.0)]], false), [Some(1.0), Some(1.0)]);
    }

    #[test]
    fn of_a_cut_trial_planned_evaluations_alone_count() {
        let mut trace = Trace::default();
        for (step, loss) in [(0.0, 0.7), (10.0, 0.6), (20.0, 0.5), (23.0, 0.4)] {
            trace.push([("step", step), ("data_passes", step / 10.0), ("validation_loss", loss)]);
        }
        let value = |schedule, report| planned_value(&trace, schedule, report, "validation_loss");
        assert_eq!(value(Schedule::Steps(10), Reported::Last), Some(0.5));
        assert_eq!(value(Schedule::Passes(1.0), Reported::Last), Some(0.5));
        assert_eq!(value(Schedule::Steps(23), Reported::Last), Some(0.4));
        assert_eq!(value(Schedule::Steps(10), Reported::BestValidation), Some(0.5));
    }
}
