//! The conformance suite: what every optimizer must hold, one from another crate included, on problems of a few rows.
//!
//! Each check answers with a [`Verdict`] and a sentence. A check runs under the optimizer's default settings and under
//! every variation of one of them (`variants`), on the first generalized linear model and on the first network that
//! offer what it needs.

mod checks;
mod drive;
mod faulty;
mod problems;

use crate::optim::OptimizerEntry;
use crate::oracle::{SettingRange, SettingValue, Settings};
use crate::workbench::Workbench;
use problems::Case;
use serde::Serialize;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It holds.
    Passed,
    /// It does not.
    Failed,
    /// It does not apply; the reason is in the detail.
    Skipped,
}

/// One check of an optimizer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was seen, in words.
    pub detail: String,
}

/// All checks of an optimizer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The optimizer's name.
    pub optimizer: String,
    /// The checks in the order in which they ran.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether no check failed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.count(Verdict::Failed) == 0
    }

    /// Number of checks that ended so.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.checks.iter().filter(|check| check.verdict == verdict).count()
    }
}

/// What a check found: `Ok(Ok(what was seen))`, `Ok(Err(why it does not apply))` or `Err(what is wrong)`.
type Finding = Result<Result<String, String>, String>;

/// A check as a function.
type Question = fn(&Subject<'_>) -> Finding;

/// What the checks work on.
struct Subject<'a> {
    entry: &'a OptimizerEntry,
    /// Settings by what is said of them; the defaults first.
    variants: Vec<Variant>,
    /// Problems that offer what it needs, with rows enough for sums over them to be cut in pieces.
    cases: Vec<Case>,
    /// The same with fewer rows.
    small: Vec<Case>,
}

/// Settings, and what is said of them.
#[derive(Debug, Clone)]
struct Variant {
    name: String,
    settings: Settings,
}

/// Holds an optimizer to everything, under each word of a choice that decides what it needs. `workbench` has the models that
/// problems are made of.
#[must_use]
pub fn check(workbench: &Workbench, entry: &OptimizerEntry) -> Vec<Report> {
    let forms = entry.by_needs();
    let is_one = forms.len() == 1;
    let report = |form: &OptimizerEntry| {
        let checks = check_form(workbench, form);
        // The choice has one word left, its default.
        let word = form.settings.iter().find(|setting| matches!(setting.range, SettingRange::Choice([_])));
        let optimizer = match word {
            Some(setting) if !is_one => format!("{}, {} = {}", entry.name, setting.name, setting.default),
            _ => entry.name.to_owned(),
        };
        Report { optimizer, checks }
    };
    forms.iter().map(report).collect()
}

fn check_form(workbench: &Workbench, entry: &OptimizerEntry) -> Vec<Check> {
    let mut checks = vec![run("settings", || checks::settings(entry))];
    if checks[0].verdict == Verdict::Passed {
        let fitting = |rows| problems::fitting(workbench, entry, rows);
        let (cases, small) = (fitting(problems::MANY_ROWS), fitting(problems::FEW_ROWS));
        if cases.is_empty() {
            let detail = problems::refusals(workbench, entry);
            checks.push(Check { name: "problem", verdict: Verdict::Failed, detail });
        } else {
            let subject = Subject { entry, variants: variants(entry, problems::FEW_ROWS), cases, small };
            let all: [(&'static str, Question); 8] = [
                ("capabilities", checks::capabilities),
                ("determinism", checks::determinism),
                ("seed", checks::seed),
                ("resume", checks::resume),
                ("state bytes", checks::state_bytes),
                ("step cost", checks::step_cost),
                ("convex optimum", checks::convex_optimum),
                ("not a number", checks::not_a_number),
            ];
            checks.extend(all.into_iter().map(|(name, check)| run(name, || check(&subject))));
        }
    }
    checks
}

/// Runs one check; a panic is a failure.
fn run(name: &'static str, check: impl FnOnce() -> Finding) -> Check {
    let (verdict, detail) = match catch_unwind(AssertUnwindSafe(check)) {
        Ok(Ok(Ok(seen))) => (Verdict::Passed, seen),
        Ok(Ok(Err(reason))) => (Verdict::Skipped, reason),
        Ok(Err(wrong)) => (Verdict::Failed, wrong),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            (Verdict::Failed, format!("it panicked: {}", said.unwrap_or("without a message")))
        }
    };
    Check { name, verdict, detail }
}

/// The defaults, and the defaults with one setting changed: every other word, the other position of a switch, a quarter of
/// the rows where a number of rows could stand. Whatever such a setting switches on is checked too.
fn variants(entry: &OptimizerEntry, rows: usize) -> Vec<Variant> {
    let with = |name: String, given: BTreeMap<String, SettingValue>| {
        let settings = Settings::check(entry.name, entry.settings, &given).ok()?;
        // Settings that exclude each other are for the optimizer to refuse.
        (entry.build)(&settings).ok()?;
        Some(Variant { name, settings })
    };
    let quarter = (rows / 4) as i64;
    let mut all: Vec<Variant> = with("the defaults".into(), BTreeMap::new()).into_iter().collect();
    for setting in entry.settings {
        let default = setting.default_value();
        let values = match setting.range {
            SettingRange::Choice(words) => words.iter().map(|word| SettingValue::Word((*word).into())).collect(),
            SettingRange::Switch => vec![SettingValue::Switch(true), SettingValue::Switch(false)],
            SettingRange::Whole(low, high) if low <= 1 && high >= rows as i64 => vec![SettingValue::Whole(quarter)],
            _ => Vec::new(),
        };
        for value in values.into_iter().filter(|value| *value != default) {
            let name = format!("{} = {value}", setting.name);
            all.extend(with(name, BTreeMap::from([(setting.name.to_owned(), value)])));
        }
    }
    all
}
