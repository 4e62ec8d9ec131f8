//! Two runs side by side: what differs in their configurations and environments, and how far the cells that they have in
//! common came, pair by pair.
//!
//! A pair is the same dataset, split, model, optimizer and seed in either run. Differences are medians over pairs with the
//! intervals of [`claim`](crate::claim), drawn anew from pairs and test rows.

use super::runs::{Cell, Runs};
use super::units;
use super::verdict::{number, observation};
use crate::claim::{Claim, Comparison, Ending, Expectation, ExpectationVerdict, Observation, Outcome, judge};
use crate::error::Result;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;

/// Writes a number for a reader.
type Written = fn(f64) -> String;

/// Numbers of which the difference is told, and how they are written.
const DIFFERENCES: [(&str, Written); 9] = [
    ("test_accuracy", number),
    ("test_loss", number),
    ("test_squared_error", number),
    ("test_bits_per_character", number),
    ("test_fact_loss", number),
    ("test_sum_loss", number),
    ("train_loss", number),
    ("data_passes", number),
    ("peak_resident_bytes", |bytes| {
        let size = units::bytes(bytes.abs() as u64);
        if bytes < 0.0 { format!("−{size}") } else { size }
    }),
];

/// Numbers of which the ratio is told: the first run's over the second's.
const RATIOS: [(&str, &str); 2] = [("time_to_target", "to the target"), ("train_seconds", "in training")];

/// The cells of one series in either run.
struct Pair<'a> {
    title: String,
    first: Vec<&'a Cell>,
    second: Vec<&'a Cell>,
}

/// Compares two runs, in lines to read.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) or [`Error::Data`](crate::Error::Data) about a file of a cell.
pub fn text(first: &Runs, second: &Runs) -> Result<String> {
    let mut text = format!(
        "first:  {} ({})\nsecond: {} ({})\n",
        first.folder.display(),
        first.name,
        second.folder.display(),
        second.name
    );
    let (pairs, alone) = pairs(first, second);
    differences(&mut text, "environment", &environment(first), &environment(second));
    for pair in &pairs {
        let _ = writeln!(text, "\n{}", pair.title);
        let (one, other) = (configuration(pair.first[0]), configuration(pair.second[0]));
        differences(&mut text, "configuration", &one, &other);
        numbers(&mut text, pair)?;
    }
    if pairs.is_empty() {
        text.push_str("\nThe runs have no dataset, model and optimizer in common.\n");
    }
    for (run, title) in alone {
        let _ = writeln!(text, "\nonly in the {run}: {title}");
    }
    Ok(text)
}

/// The same dataset, model and optimizer in both runs: with all settings or, where that finds none, by their labels. And
/// what has no partner.
fn pairs<'a>(first: &'a Runs, second: &'a Runs) -> (Vec<Pair<'a>>, Vec<(&'static str, String)>) {
    type Key = (String, String);
    let by_series = |runs: &'a Runs| {
        let mut series: BTreeMap<Key, Vec<&'a Cell>> = BTreeMap::new();
        for cell in &runs.cells {
            series.entry((cell.subject.dataset_key.clone(), cell.subject.series())).or_default().push(cell);
        }
        series
    };
    let labels = |cells: &[&Cell]| {
        let subject = &cells[0].subject;
        (subject.dataset_key.clone(), format!("{} · {}", subject.model[0], subject.optimizer[0]))
    };
    let (mut ones, mut others) = (by_series(first), by_series(second));
    let title = |cells: &[&Cell]| {
        let subject = &cells[0].subject;
        let settings = cells[0].config.hyperparameters.iter().take(3).map(|(key, value)| format!("{key} {value}"));
        let settings = settings.collect::<Vec<_>>().join(", ").replace('"', "");
        format!("{} · {} · {} ({settings})", subject.dataset[0], subject.model[0], subject.optimizer[0])
    };
    let mut pairs = Vec::new();
    for (key, first) in std::mem::take(&mut ones) {
        match others.remove(&key) {
            Some(second) => pairs.push(Pair { title: title(&first), first, second }),
            None => drop(ones.insert(key, first)),
        }
    }
    let mut alone = Vec::new();
    for first in ones.into_values() {
        let same: Vec<Key> =
            others.iter().filter(|(_, cells)| labels(cells) == labels(&first)).map(|(key, _)| key.clone()).collect();
        match &same[..] {
            [key] if others.contains_key(key) => {
                let second = others.remove(key).unwrap_or_default();
                pairs.push(Pair { title: title(&first), first, second });
            }
            _ => alone.push(("first", title(&first))),
        }
    }
    alone.extend(others.values().map(|cells| ("second", title(cells))));
    (pairs, alone)
}

/// Everything about a cell that is decided before it runs, its names and its place among others apart.
fn configuration(cell: &Cell) -> Map<String, Value> {
    let text = fs::read(cell.folder.join("config.json")).unwrap_or_default();
    let mut config: Map<String, Value> = serde_json::from_slice(&text).unwrap_or_default();
    for key in ["cell", "experiment", "problem", "seed", "fold", "dataset", "stochastic"] {
        config.remove(key);
    }
    flat(&config)
}

/// The environment of the first cell that has one.
fn environment(runs: &Runs) -> Map<String, Value> {
    let read = |cell: &Cell| fs::read(cell.folder.join("environment.json")).ok();
    let text = runs.cells.iter().find_map(read).unwrap_or_default();
    flat(&serde_json::from_slice(&text).unwrap_or_default())
}

/// Objects within objects as `outer.inner`.
fn flat(object: &Map<String, Value>) -> Map<String, Value> {
    let mut all = Map::new();
    for (key, value) in object {
        match value {
            Value::Object(inner) => {
                all.extend(flat(inner).into_iter().map(|(name, value)| (format!("{key}.{name}"), value)));
            }
            value => drop(all.insert(key.clone(), value.clone())),
        }
    }
    all
}

fn differences(text: &mut String, what: &str, one: &Map<String, Value>, other: &Map<String, Value>) {
    let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let shown = |value: Option<&Value>| match value {
        None | Some(Value::Null) => "none".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    let lines: Vec<String> = keys
        .into_iter()
        .map(|key| (key, shown(one.get(key)), shown(other.get(key))))
        .filter(|(_, one, other)| one != other)
        .map(|(key, one, other)| format!("    {key}: {one} | {other}\n"))
        .collect();
    if lines.is_empty() {
        let _ = writeln!(text, "  {what}: the same");
    } else {
        let _ = writeln!(text, "  {what} differs (first | second):\n{}", lines.concat().trim_end_matches('\n'));
    }
}

/// The differences and ratios of a pair.
fn numbers(text: &mut String, pair: &Pair<'_>) -> Result<()> {
    let mut cells = Vec::new();
    for (name, run) in [("first", &pair.first), ("second", &pair.second)] {
        for cell in run {
            let mut observation = observation(cell, true)?;
            // The two runs are what is compared: whatever else differs is told above.
            observation.subject.optimizer = [name.to_owned(), name.to_owned()];
            observation.subject.model = Default::default();
            observation.subject.settings.clear();
            cells.push(observation);
        }
    }
    for (metric, write) in DIFFERENCES {
        let Some(verdict) = compared(&format!("median(second.{metric} - first.{metric}) >= 0"), &cells) else {
            continue;
        };
        let [one, other] = ["first", "second"].map(|run| median_of(run, metric, &cells));
        let difference = verdict.sides.first().copied().unwrap_or(f64::NAN);
        if difference.is_nan() || !one.is_finite() || !other.is_finite() {
            continue;
        }
        let sign = if difference < 0.0 { "−" } else { "+" };
        let _ = writeln!(
            text,
            "  {:<20} {} | {}   {sign}{}{}",
            metric.replace('_', " "),
            write(one),
            write(other),
            write(difference.abs()),
            surety(&verdict, write)
        );
    }
    let has_target = pair.first.iter().chain(&pair.second).any(|cell| cell.config.target.is_some());
    for (metric, how) in RATIOS.into_iter().filter(|(metric, _)| has_target || *metric != "time_to_target") {
        if let Some(line) = ratio(metric, how, &cells) {
            let _ = writeln!(text, "  {line}");
        }
    }
    Ok(())
}

/// How many times faster the second run is, with the standard deviation over pairs.
fn ratio(metric: &'static str, how: &str, cells: &[Observation]) -> Option<String> {
    let value = |run: &str, like: &Observation| {
        let is_partner = |cell: &&Observation| {
            cell.subject.optimizer[0] == run
                && cell.subject.split == like.subject.split
                && cell.subject.seed == like.subject.seed
        };
        let cell = cells.iter().find(is_partner)?;
        let ran = matches!(cell.ending, Ending::Finished | Ending::TimedOut | Ending::Diverged);
        // A target that was missed is infinitely far.
        let missed = (ran && metric == "time_to_target").then_some(f64::INFINITY);
        cell.values.get(metric).copied().or(missed)
    };
    let pairs: Vec<(f64, f64)> = cells
        .iter()
        .filter(|cell| cell.subject.optimizer[0] == "first")
        .filter_map(|cell| Some((value("first", cell)?, value("second", cell)?)))
        .collect();
    let ratios: Vec<f64> =
        pairs.iter().map(|(one, other)| one / other).filter(|ratio| ratio.is_finite() && *ratio > 0.0).collect();
    let verdict = compared(&format!("median(first.{metric} / second.{metric}) >= 1"), cells)?;
    if ratios.is_empty() {
        let [one, other] = ["first", "second"].map(|run| median_of(run, metric, cells));
        let missed = match (one.is_finite(), other.is_finite()) {
            (true, false) => "only the first reached the target",
            (false, true) => "only the second reached the target",
            _ => "neither reached the target",
        };
        return (metric == "time_to_target" && (one.is_infinite() || other.is_infinite())).then(|| missed.to_owned());
    }
    let middle = super::curves::median(ratios.iter().copied())?;
    let (faster, ratios, flipped) = if middle >= 1.0 {
        ("second", ratios, false)
    } else {
        ("first", ratios.iter().map(|ratio| 1.0 / ratio).collect(), true)
    };
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    let deviation = (ratios.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (ratios.len() as f64 - 1.0)).sqrt();
    let spread = if ratios.len() > 1 { format!(" ± {}", units::significant(deviation, 2)) } else { String::new() };
    let interval = match verdict.interval[..] {
        [low, high] if flipped => format!(", {} to {}", number(1.0 / (high + 1.0)), number(1.0 / (low + 1.0))),
        [low, high] => format!(", {} to {}", number(low + 1.0), number(high + 1.0)),
        _ => String::new(),
    };
    let missed = [
        ("first", pairs.iter().filter(|pair| pair.0.is_infinite()).count()),
        ("second", pairs.iter().filter(|pair| pair.1.is_infinite()).count()),
    ];
    let missed = missed.iter().filter(|(_, count)| *count > 0);
    let missed: String =
        missed.map(|(run, count)| format!("; the {run} missed the target in {count} of {}", pairs.len())).collect();
    let pairs = if ratios.len() == 1 { "1 pair".to_owned() } else { format!("{} pairs", ratios.len()) };
    let middle = if flipped { 1.0 / middle } else { middle };
    let unsure = match (verdict.outcome, verdict.lacks.is_empty()) {
        (Outcome::Inconclusive, true) => "; within the noise",
        (Outcome::Inconclusive, false) => "; not settled by so few",
        _ => "",
    };
    Some(format!(
        "the {faster} is {}{spread} times faster {how} ({pairs}{interval}{unsure}{missed})",
        units::significant(middle, 3)
    ))
}

fn compared(text: &str, cells: &[Observation]) -> Option<ExpectationVerdict> {
    let comparison = Comparison::parse(text).ok()?;
    let expectation = Expectation { place: String::new(), text: text.to_owned(), comparison, why: None };
    let claim = Claim { about: Some("any".to_owned()), expectations: vec![expectation], ..Claim::default() };
    judge(&claim, cells)?.datasets.into_iter().next()?.expectations.into_iter().next()
}

fn median_of(run: &str, metric: &str, cells: &[Observation]) -> f64 {
    let text = format!("median({run}.{metric}) >= 0");
    compared(&text, cells).and_then(|verdict| verdict.sides.first().copied()).unwrap_or(f64::NAN)
}

/// The interval of a difference, and what it takes to settle it.
fn surety(verdict: &ExpectationVerdict, write: Written) -> String {
    let interval = match verdict.interval[..] {
        [low, high] => format!("  ({} to {})", write(low), write(high)),
        _ => String::new(),
    };
    let lacks = if verdict.lacks.is_empty() { String::new() } else { format!("  [{}]", verdict.lacks.join("; ")) };
    format!("{interval}{lacks}")
}
