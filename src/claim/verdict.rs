//! Verdicts: whether what was measured bears an expectation out, dataset by dataset, and whether that settles the claim.

use super::check::bind;
use super::sample::{Ending, Observation, Sample, Sides};
use super::syntax::Relation;
use super::{Claim, Expectation, Subject};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What came of an expectation or a claim.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It holds beyond the noise.
    Holds,
    /// It fails beyond the noise.
    Fails,
    /// The noise covers it, or something is missing.
    #[default]
    Inconclusive,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Holds => "holds",
            Self::Fails => "fails",
            Self::Inconclusive => "inconclusive",
        })
    }
}

impl Outcome {
    /// All must hold; one that fails decides.
    fn of_all(outcomes: impl IntoIterator<Item = Self>) -> Self {
        let mut all = None;
        for outcome in outcomes {
            all = Some(match (all, outcome) {
                (Some(Self::Fails), _) | (_, Self::Fails) => Self::Fails,
                (Some(Self::Inconclusive), _) | (_, Self::Inconclusive) => Self::Inconclusive,
                _ => Self::Holds,
            });
        }
        all.unwrap_or_default()
    }
}

/// The verdict on one expectation on one dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExpectationVerdict {
    /// The expression.
    pub expectation: String,
    /// Why it belongs to the claim.
    pub why: Option<String>,
    /// What came of it.
    pub outcome: Outcome,
    /// Both sides as measured.
    #[serde(with = "extended")]
    pub sides: Vec<f64>,
    /// The interval of the margin, the left side less the right; for `<` and `<=` the right less the left. Empty where
    /// nothing is drawn.
    #[serde(with = "extended")]
    pub interval: Vec<f64>,
    /// How it was found, in words.
    pub method: String,
    /// What it lacks, where that is why it is inconclusive.
    pub lacks: Vec<String>,
}

/// The verdict on a claim on one dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatasetVerdict {
    /// What reports call the dataset, with "(simulated)" where it is.
    pub dataset: String,
    /// Whether the claim is about this dataset.
    pub settles: bool,
    /// What came of it here.
    pub outcome: Outcome,
    /// The expectations.
    pub expectations: Vec<ExpectationVerdict>,
}

/// The verdict on a claim.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Identity of the experiment that it was obtained with, where that is known.
    #[serde(default)]
    pub experiment: Option<String>,
    /// The claim.
    pub claim: Option<String>,
    /// Where it was made.
    pub source: Option<String>,
    /// The dataset that it is about.
    pub about: Option<String>,
    /// What came of it on the datasets that it is about.
    pub outcome: Outcome,
    /// Why it is inconclusive, where no dataset settles it.
    pub note: Option<String>,
    /// Dataset by dataset.
    pub datasets: Vec<DatasetVerdict>,
}

impl Verdict {
    /// The verdict in one line: the outcome and the datasets that it was obtained on.
    #[must_use]
    pub fn line(&self) -> String {
        let on = |settles: bool| {
            let names: Vec<_> = self
                .datasets
                .iter()
                .filter(|dataset| dataset.settles == settles)
                .map(|dataset| format!("{} on {}", dataset.outcome, dataset.dataset))
                .collect();
            names.join(", ")
        };
        match (&self.note, on(true), on(false)) {
            (None, settling, aside) if aside.is_empty() => settling,
            (None, settling, aside) => format!("{settling} ({aside}, which does not settle it)"),
            (Some(note), _, aside) if aside.is_empty() => format!("{}: {note}", self.outcome),
            (Some(note), _, aside) => format!("{}: {note} ({aside})", self.outcome),
        }
    }
}

/// Judges a claim by what its cells came to; `None` where it states no expectation.
#[must_use]
pub fn judge(claim: &Claim, cells: &[Observation]) -> Option<Verdict> {
    if claim.expectations.is_empty() {
        return None;
    }
    let mut keys: Vec<&str> = Vec::new();
    for cell in cells {
        if !keys.contains(&cell.subject.dataset_key.as_str()) {
            keys.push(&cell.subject.dataset_key);
        }
    }
    let datasets: Vec<DatasetVerdict> = keys
        .iter()
        .map(|key| {
            let own: Vec<&Observation> = cells.iter().filter(|cell| cell.subject.dataset_key == *key).collect();
            let subject = &own[0].subject;
            let expectations: Vec<_> = claim.expectations.iter().map(|expectation| one(expectation, &own)).collect();
            DatasetVerdict {
                dataset: subject.dataset[0].clone(),
                settles: claim.is_settled_by(&subject.dataset[1], subject.simulated),
                outcome: Outcome::of_all(expectations.iter().map(|expectation| expectation.outcome)),
                expectations,
            }
        })
        .collect();
    let settling = || datasets.iter().filter(|dataset| dataset.settles);
    let note = if datasets.is_empty() {
        Some("no cell has been run".to_owned())
    } else if settling().next().is_none() {
        Some(match claim.about.as_deref() {
            None => "simulated data do not settle it".to_owned(),
            Some(name) => format!("it is about {name}, which was not run"),
        })
    } else {
        None
    };
    Some(Verdict {
        experiment: None,
        claim: claim.text.clone(),
        source: claim.source.clone(),
        about: claim.about.clone(),
        outcome: Outcome::of_all(settling().map(|dataset| dataset.outcome)),
        note,
        datasets,
    })
}

/// The verdict on one expectation by the cells of one dataset.
fn one(expectation: &Expectation, cells: &[&Observation]) -> ExpectationVerdict {
    let comparison = &expectation.comparison;
    let mut verdict = ExpectationVerdict {
        expectation: expectation.text.clone(),
        why: expectation.why.clone(),
        outcome: Outcome::Inconclusive,
        sides: Vec::new(),
        interval: Vec::new(),
        method: String::new(),
        lacks: Vec::new(),
    };
    let subjects: Vec<(Subject, bool)> =
        cells.iter().map(|cell| (cell.subject.clone(), cell.ending == Ending::Skipped)).collect();
    let bound = match bind(comparison, &subjects.iter().collect::<Vec<_>>()) {
        Ok(bound) => bound,
        // The plan was sound: cells are missing.
        Err(mistake) => {
            verdict.lacks.push(mistake.finding);
            return verdict;
        }
    };
    let sample = Sample::new(comparison, &bound, cells);
    let sides = sample.measured(comparison);
    verdict.sides = sides.to_vec();
    verdict.method = sample.method();
    verdict.lacks.clone_from(&sample.lacks);
    let measured = margin(comparison.relation, sides);
    if measured.is_nan() {
        verdict.lacks.push(if sides.iter().all(|side| side.is_infinite()) {
            "neither side is finite: neither reached the target".to_owned()
        } else {
            "a side is no number".to_owned()
        });
    }
    let margins: Vec<f64> =
        sample.resampled(comparison).into_iter().map(|sides| margin(comparison.relation, sides)).collect();
    let interval = if margins.is_empty() { [measured; 2] } else { sample.interval(&margins) };
    if !margins.is_empty() {
        verdict.interval = interval.to_vec();
    }
    if verdict.lacks.is_empty() {
        verdict.outcome = decide(comparison.relation, measured, interval);
    }
    verdict
}

/// How far a comparison is from turning over; positive where it is true.
fn margin(relation: Relation, [left, right]: Sides) -> f64 {
    match relation {
        Relation::AtLeast | Relation::Greater => left - right,
        Relation::AtMost | Relation::Less => right - left,
        // An infinity equals itself, but not for a target: neither side has reached it.
        Relation::Equal => left - right,
    }
}

/// The outcome by the interval of the margin. What was measured must lie on the same side.
fn decide(relation: Relation, measured: f64, [low, high]: [f64; 2]) -> Outcome {
    let is_exact = low == high && low == measured;
    let (holds, fails) = match relation {
        Relation::AtLeast | Relation::AtMost => (low >= 0.0 && measured >= 0.0, high < 0.0 && measured < 0.0),
        Relation::Greater | Relation::Less if is_exact => (low > 0.0, low <= 0.0),
        Relation::Greater | Relation::Less => (low > 0.0 && measured > 0.0, high < 0.0 && measured < 0.0),
        Relation::Equal => (is_exact && low == 0.0, low > 0.0 || high < 0.0),
    };
    match (holds, fails) {
        (true, _) => Outcome::Holds,
        (_, true) => Outcome::Fails,
        _ => Outcome::Inconclusive,
    }
}

/// Numbers in JSON, which has no infinities: those as words, no number as null.
mod extended {
    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Extended {
        Number(f64),
        Word(String),
        Nothing,
    }

    pub fn serialize<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|value| match *value {
            f64::INFINITY => serde_json::Value::from("infinity"),
            f64::NEG_INFINITY => serde_json::Value::from("-infinity"),
            value => serde_json::Value::from(value),
        }))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
        let values = Vec::<Extended>::deserialize(deserializer)?;
        Ok(values
            .into_iter()
            .map(|value| match value {
                Extended::Number(value) => value,
                Extended::Word(word) if word == "infinity" => f64::INFINITY,
                Extended::Word(word) if word == "-infinity" => f64::NEG_INFINITY,
                _ => f64::NAN,
            })
            .collect())
    }
}
