//! Claims that can fail: expectations over the results of an experiment, and the verdicts on them.
//!
//! An expectation compares two sides, `median(irls.test_accuracy) >= median(admm.test_accuracy) - 0.005`. `syntax` reads
//! it, [`check`] finds every mistake in it before anything runs, `sample` evaluates it on what was measured and again on
//! data drawn anew from that, `verdict` says *holds*, *fails* or *inconclusive*. docs/expectations.md explains the method.
//!
//! The expressions are a language of our own and not a template engine's, because a template engine learns of a misspelt
//! metric or of a list compared with a list only while it evaluates, which is after the run; and because every side is
//! evaluated thousands of times on resampled data, for which a tree with bound names is made once.

mod check;
mod metric;
mod sample;
mod subject;
mod syntax;
mod verdict;

pub use check::{Checked, Recorded, check, place_mistake};
pub use metric::{METRICS, Metric, Noise};
pub use sample::{DRAWS, Ending, LEAST_REPLICATES, LEVEL, Observation};
pub use subject::Subject;
pub use syntax::{Comparison, Expression, Mistake};
pub use verdict::{DatasetVerdict, ExpectationVerdict, Outcome, Verdict, judge};

/// An expectation of an experiment file.
#[derive(Debug, Clone, PartialEq)]
pub struct Expectation {
    /// File and line, for messages.
    pub place: String,
    /// The expression as it stands in the file.
    pub text: String,
    /// The same, read.
    pub comparison: Comparison,
    /// Why it belongs to the claim, in words.
    pub why: Option<String>,
}

/// What a claim says, and about which data.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Claim {
    /// The claim.
    pub text: Option<String>,
    /// Where it was made.
    pub source: Option<String>,
    /// The registered dataset that it is about, or `any` where it does not depend on the data; without, any data that are
    /// not simulated.
    pub about: Option<String>,
    /// What must hold.
    pub expectations: Vec<Expectation>,
}

impl Claim {
    /// The claim of an experiment file that was checked when it was run. Expectations that cannot be read are left out.
    #[must_use]
    pub fn of_experiment(file: &toml::Table) -> Self {
        let text = |table: &toml::Table, key: &str| {
            table.get(key).and_then(toml::Value::as_str).map(|text| text.trim().to_owned())
        };
        let tables = match file.get("expect") {
            Some(toml::Value::Array(items)) => items.iter().filter_map(toml::Value::as_table).collect(),
            Some(toml::Value::Table(table)) => vec![table],
            _ => Vec::new(),
        };
        let expectation = |table: &&toml::Table| {
            let that = text(table, "that")?;
            let comparison = Comparison::parse(&that).ok()?;
            Some(Expectation { place: String::new(), text: that, comparison, why: text(table, "why") })
        };
        Self {
            text: text(file, "claim"),
            source: text(file, "source"),
            about: text(file, "about"),
            expectations: tables.iter().filter_map(expectation).collect(),
        }
    }

    /// Whether a verdict on this dataset settles the claim.
    #[must_use]
    pub fn is_settled_by(&self, dataset: &str, simulated: bool) -> bool {
        match self.about.as_deref() {
            Some("any") => true,
            Some(name) => name == dataset,
            None => !simulated,
        }
    }
}
