//! The verdict on the claim of a run, from its files.

use super::runs::{Cell, Runs, Status, damaged};
use super::units::{self, NEVER};
use crate::claim::{Ending, ExpectationVerdict, LEVEL, METRICS, Noise, Observation, Subject, Verdict, judge};
use crate::error::{Error, Result};
use polars::prelude::{ParquetReader, SerReader};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;

/// The verdict on the claim of a run; `None` where it states no expectation.
///
/// # Errors
/// [`Error::Io`] or [`Error::Data`] about the file of a cell's test rows.
pub fn verdict(runs: &Runs) -> Result<Option<Verdict>> {
    let mut wants_rows = false;
    for expectation in &runs.claim.expectations {
        expectation.comparison.paths(&mut |path, _| wants_rows |= path.metric.noise == Noise::TestRows);
    }
    let mut observations: Vec<Observation> =
        runs.cells.iter().map(|cell| observation(cell, wants_rows)).collect::<Result<_>>()?;
    let pending = runs.pending.iter().cloned();
    observations.extend(pending.map(|subject| Observation {
        subject,
        ending: Ending::Unfinished,
        ..Observation::default()
    }));
    let shapes: Vec<Subject> = runs.shapes.iter().map(|(shape, _)| shape.clone()).collect();
    let beside = Subject::beside(&shapes, observations.iter().map(|cell| &cell.subject));
    // Dataset by dataset, the shapes in their order.
    observations.extend(beside.into_iter().zip(runs.shapes.iter().cycle()).map(|(subject, (_, counted))| {
        let metrics = METRICS.iter().filter_map(|metric| Some((metric.name, *counted.get(metric.name)?)));
        Observation { subject, values: metrics.collect(), ..Observation::default() }
    }));
    Ok(judge(&runs.claim, &observations))
}

/// A cell as an expectation sees it; with the outcomes of its test rows where they are wanted and there.
///
/// # Errors
/// As [`verdict`].
pub fn observation(cell: &Cell, wants_rows: bool) -> Result<Observation> {
    let ending = match cell.result.status {
        Status::Finished => Ending::Finished,
        Status::TimedOut => Ending::TimedOut,
        Status::Diverged => Ending::Diverged,
        Status::Failed => Ending::Failed,
        Status::Skipped => Ending::Skipped,
        Status::Interrupted => Ending::Unfinished,
    };
    let mut observation =
        Observation { subject: cell.subject.clone(), ending, values: values(cell), ..Observation::default() };
    if let [label, _] = &mut observation.subject.dataset
        && !cell.result.dataset.is_empty()
    {
        label.clone_from(&cell.result.dataset);
    }
    let path = cell.folder.join("test_rows.parquet");
    if wants_rows && matches!(ending, Ending::Finished | Ending::TimedOut) && path.exists() {
        read_rows(&path, &mut observation)?;
    }
    Ok(observation)
}

/// The numbers of a cell by metric, those that its trace and its inspection hold included.
fn values(cell: &Cell) -> BTreeMap<&'static str, f64> {
    let result = serde_json::to_value(&cell.result).unwrap_or_default();
    let inspection = std::fs::read(cell.folder.join("inspection.json")).unwrap_or_default();
    let inspection: Value = serde_json::from_slice(&inspection).unwrap_or_default();
    let mut values = BTreeMap::new();
    for metric in METRICS {
        let value = match metric.name {
            "time_to_target" => cell.result.time_to_target_seconds,
            "steps_to_target" => at_target(cell, "step"),
            "passes_to_target" => at_target(cell, "data_passes"),
            "gradient_equivalents_to_target" => at_target(cell, "gradient_equivalents"),
            "flops_to_target" => at_target(cell, "flops"),
            "first_test_accuracy" => first_evaluated(cell, "test_accuracy"),
            name => result.get(name).or_else(|| inspection.get(name)).and_then(Value::as_f64),
        };
        if let Some(value) = value.filter(|value| !value.is_nan()) {
            values.insert(metric.name, value);
        }
    }
    values
}

/// A counter where the trace first reaches the target.
fn at_target(cell: &Cell, counter: &str) -> Option<f64> {
    let target = cell.config.target.as_ref()?;
    let row = cell.trace.column(&target.metric).iter().position(|value| target.is_reached(*value))?;
    cell.trace.column(counter).get(row).copied()
}

/// A metric at the first evaluation after the start.
fn first_evaluated(cell: &Cell, metric: &str) -> Option<f64> {
    let row = cell.trace.column("step").iter().position(|step| *step > 0.0)?;
    cell.trace.column(metric).get(row).copied()
}

fn read_rows(path: &Path, observation: &mut Observation) -> Result<()> {
    let file = File::open(path).map_err(Error::io(path, "read"))?;
    let unreadable = |error: polars::error::PolarsError| damaged(path, format!("not readable as Parquet: {error}"));
    let frame = ParquetReader::new(file).finish().map_err(unreadable)?;
    if let Ok(correct) = frame.column("correct") {
        let correct = correct.bool().map_err(unreadable)?;
        observation.row_correct = Some(correct.iter().map(|correct| correct == Some(true)).collect());
    }
    let numbers = |name: &str| -> Result<Vec<f32>> {
        let column = frame.column(name).and_then(|column| column.f32()).map_err(unreadable)?;
        Ok(column.iter().map(|number| number.unwrap_or(f32::NAN)).collect())
    };
    observation.row_losses = Some(numbers("loss")?);
    for name in frame.get_column_names() {
        if let Some(metric) = name.strip_suffix("_weight") {
            observation.row_ratios.insert(metric.to_owned(), [numbers(metric)?, numbers(name)?]);
        }
    }
    Ok(())
}

/// A verdict in lines to read: the outcome and the datasets, then every expectation with its numbers.
#[must_use]
pub fn text(verdict: &Verdict) -> String {
    let mut text = String::new();
    if let Some(claim) = &verdict.claim {
        let _ = writeln!(text, "claim: {claim}");
    }
    for dataset in &verdict.datasets {
        if verdict.datasets.len() > 1 {
            let aside = if dataset.settles { "" } else { ", which does not settle the claim" };
            let _ = writeln!(text, "on {}{aside}:", dataset.dataset);
        }
        for expectation in &dataset.expectations {
            let _ = writeln!(text, "  {:<12}  {}", expectation.outcome, expectation.expectation);
            let _ = writeln!(text, "  {:<12}  {}", "", finding(expectation));
        }
    }
    let _ = writeln!(text, "verdict: {}", verdict.line());
    text
}

/// What was found about an expectation, in words: both sides, the margin's interval, and how it was found.
#[must_use]
pub fn finding(verdict: &ExpectationVerdict) -> String {
    let mut parts = Vec::new();
    if let [left, right] = verdict.sides[..] {
        parts.push(format!("{} against {}", number(left), number(right)));
    }
    if let [low, high] = verdict.interval[..] {
        let level = 100.0 * (1.0 - LEVEL);
        parts.push(format!("margin {} to {} ({level:.0} %)", signed(low), signed(high)));
    }
    if !verdict.method.is_empty() {
        parts.push(verdict.method.clone());
    }
    if !verdict.lacks.is_empty() {
        parts.push(format!("not settled: {}", verdict.lacks.join("; ")));
    }
    parts.join("; ")
}

/// A number of a verdict, to five digits.
#[must_use]
pub fn number(value: f64) -> String {
    match value {
        v if v.is_nan() => "no number".to_owned(),
        f64::INFINITY => NEVER.to_owned(),
        f64::NEG_INFINITY => format!("−{NEVER}"),
        v if v.fract() == 0.0 && v.abs() < 1e15 => {
            let count = units::count(v.abs() as u64);
            if v < 0.0 { format!("−{count}") } else { count }
        }
        v => units::significant(v, 5),
    }
}

fn signed(value: f64) -> String {
    let text = if value.is_finite() { units::significant(value, 3) } else { number(value) };
    if value > 0.0 { format!("+{text}") } else { text }
}
