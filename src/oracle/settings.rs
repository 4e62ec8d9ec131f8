//! Settings of optimizers and models: declared with range and default, checked before anything runs.

use super::problem::Capability;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What values a hyperparameter may take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SettingRange {
    /// Real numbers from the first to the second, both included.
    Real(f64, f64),
    /// Whole numbers from the first to the second, both included.
    Whole(i64, i64),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// True or false.
    Switch,
    /// Widths of layers: whole numbers of at least 1 joined by hyphens, or `none`.
    Widths,
}

/// A value of a hyperparameter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SettingValue {
    /// True or false.
    Switch(bool),
    /// A whole number.
    Whole(i64),
    /// A real number.
    Real(f64),
    /// A word.
    Word(String),
}

impl fmt::Display for SettingValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch(v) => write!(f, "{v}"),
            Self::Whole(v) => write!(f, "{v}"),
            Self::Real(v) => write!(f, "{v}"),
            Self::Word(v) => f.write_str(v),
        }
    }
}

/// Where a search for a good value of a hyperparameter looks (`parsimony tune`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Search {
    /// From the first number to the second, both included; evenly in the logarithm where the setting is logarithmic.
    Between(f64, f64),
    /// At every word, or at both true and false.
    Every,
}

/// The declaration of one hyperparameter.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The key in experiment files.
    pub name: &'static str,
    /// What it does, in a line, with its unit and source.
    pub doc: &'static str,
    /// Accepted values.
    pub range: SettingRange,
    /// The value where none is given, written as in TOML.
    pub default: &'static str,
    /// Whether a search over it should be logarithmic.
    pub logarithmic: bool,
    /// Where a search looks; `None` for a setting that is left alone unless an experiment file says otherwise.
    pub search: Option<Search>,
    /// The choice and its words to which it belongs: under other words it has no value. None: it always counts.
    pub of: Option<(&'static str, &'static [&'static str])>,
    /// What words of a choice need beyond what the optimizer always needs.
    pub needs: &'static [Need],
}

/// What an optimizer needs under one word of a choice.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    /// The word.
    pub word: &'static str,
    /// The capabilities.
    pub capabilities: &'static [Capability],
    /// Whether random numbers are drawn.
    pub draws: bool,
}

impl Setting {
    /// A real number in a range.
    #[must_use]
    pub const fn real(name: &'static str, default: &'static str, low: f64, high: f64, doc: &'static str) -> Self {
        Self {
            name,
            doc,
            range: SettingRange::Real(low, high),
            default,
            logarithmic: false,
            of: None,
            needs: &[],
            search: None,
        }
    }

    /// A whole number in a range.
    #[must_use]
    pub const fn whole(name: &'static str, default: &'static str, low: i64, high: i64, doc: &'static str) -> Self {
        Self {
            name,
            doc,
            range: SettingRange::Whole(low, high),
            default,
            logarithmic: false,
            of: None,
            needs: &[],
            search: None,
        }
    }

    /// One of several words.
    #[must_use]
    pub const fn choice(
        name: &'static str,
        default: &'static str,
        words: &'static [&'static str],
        doc: &'static str,
    ) -> Self {
        Self {
            name,
            doc,
            range: SettingRange::Choice(words),
            default,
            logarithmic: false,
            of: None,
            needs: &[],
            search: None,
        }
    }

    /// True or false.
    #[must_use]
    pub const fn switch(name: &'static str, default: &'static str, doc: &'static str) -> Self {
        Self { name, doc, range: SettingRange::Switch, default, logarithmic: false, of: None, needs: &[], search: None }
    }

    /// Widths of layers.
    #[must_use]
    pub const fn widths(name: &'static str, default: &'static str, doc: &'static str) -> Self {
        Self { name, doc, range: SettingRange::Widths, default, logarithmic: false, of: None, needs: &[], search: None }
    }

    /// The same, but only under some words of the choice `name`, which is declared before it.
    #[must_use]
    pub const fn of(mut self, name: &'static str, words: &'static [&'static str]) -> Self {
        self.of = Some((name, words));
        self
    }

    /// The same choice, with what its words need.
    #[must_use]
    pub const fn needing(mut self, needs: &'static [Need]) -> Self {
        self.needs = needs;
        self
    }

    /// What it does, with the words under which it counts before it.
    #[must_use]
    pub fn description(&self) -> String {
        match self.of {
            Some((_, words)) => format!("[{}] {}", words.join(", "), self.doc),
            None => self.doc.to_owned(),
        }
    }

    /// The same, to be searched on a logarithmic scale.
    #[must_use]
    pub const fn log(mut self) -> Self {
        self.logarithmic = true;
        self
    }

    /// The same, to be searched from `low` to `high`.
    #[must_use]
    pub const fn search(mut self, low: f64, high: f64) -> Self {
        self.search = Some(Search::Between(low, high));
        self
    }

    /// The same, to be searched at every word, or at both true and false.
    #[must_use]
    pub const fn search_every(mut self) -> Self {
        self.search = Some(Search::Every);
        self
    }

    /// The accepted values in words.
    #[must_use]
    pub fn accepts(&self) -> String {
        match self.range {
            SettingRange::Real(low, high) => match (low == f64::NEG_INFINITY, high == f64::INFINITY) {
                (true, true) => "any number".into(),
                (false, true) => format!("a number of at least {low}"),
                (true, false) => format!("a number of at most {high}"),
                (false, false) => format!("a number from {low} to {high}"),
            },
            SettingRange::Whole(low, i64::MAX) => format!("a whole number of at least {low}"),
            SettingRange::Whole(low, high) => format!("a whole number from {low} to {high}"),
            SettingRange::Choice(words) => format!("one of {}", words.join(", ")),
            SettingRange::Switch => "true or false".into(),
            SettingRange::Widths => "a width, or widths joined by hyphens (\"500-250\"), or \"none\"".into(),
        }
    }

    /// What a search looks at, in words; empty where the setting is left alone.
    #[must_use]
    pub fn searches(&self) -> String {
        match self.search {
            Some(Search::Between(low, high)) => {
                format!("{low} to {high}{}", if self.logarithmic { " (log)" } else { "" })
            }
            Some(Search::Every) => "all".into(),
            None => String::new(),
        }
    }

    /// The default as a value.
    ///
    /// # Panics
    /// If the default was not written in the form of its range: a mistake in the optimizer's own file.
    #[must_use]
    pub fn default_value(&self) -> SettingValue {
        match self.range {
            SettingRange::Real(..) => SettingValue::Real(self.default.parse().expect("a real default")),
            SettingRange::Whole(..) => SettingValue::Whole(self.default.parse().expect("a whole default")),
            SettingRange::Choice(_) | SettingRange::Widths => SettingValue::Word(self.default.into()),
            SettingRange::Switch => SettingValue::Switch(self.default == "true"),
        }
    }

    /// The value as the setting holds it, if it accepts it.
    #[must_use]
    pub fn check(&self, value: &SettingValue) -> Option<SettingValue> {
        match (self.range, value) {
            (SettingRange::Real(low, high), SettingValue::Real(v)) if v.is_finite() && (low..=high).contains(v) => {
                Some(value.clone())
            }
            (SettingRange::Real(low, high), SettingValue::Whole(v)) if (low..=high).contains(&(*v as f64)) => {
                Some(SettingValue::Real(*v as f64))
            }
            (SettingRange::Whole(low, high), SettingValue::Whole(v)) if (low..=high).contains(v) => Some(value.clone()),
            (SettingRange::Choice(words), SettingValue::Word(v)) if words.contains(&v.as_str()) => Some(value.clone()),
            (SettingRange::Switch, SettingValue::Switch(_)) => Some(value.clone()),
            (SettingRange::Widths, SettingValue::Whole(v)) => {
                parse_widths(&v.to_string()).map(|_| SettingValue::Word(v.to_string()))
            }
            (SettingRange::Widths, SettingValue::Word(v)) => parse_widths(v).map(|_| value.clone()),
            _ => None,
        }
    }
}

/// Layers are at most this wide.
const MOST_WIDTH: usize = 1 << 20;

fn parse_widths(word: &str) -> Option<Vec<usize>> {
    if word == "none" {
        return Some(Vec::new());
    }
    word.split('-').map(|width| width.parse().ok().filter(|width| (1..=MOST_WIDTH).contains(width))).collect()
}

/// The known name nearest to a mistyped one, as the start of a remedy.
#[must_use]
pub fn did_you_mean<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> String {
    known
        .map(|name| (strsim::damerau_levenshtein(name, key), name))
        .min()
        .filter(|(distance, name)| *distance <= name.len().div_ceil(2))
        .map(|(_, name)| format!("did you mean `{name}`? "))
        .unwrap_or_default()
}

/// Checked hyperparameters: every declared one has a value within its range.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Settings {
    values: BTreeMap<&'static str, SettingValue>,
}

impl Settings {
    /// Checks given values against their declarations and fills in defaults. `place` names the file and table for
    /// messages.
    ///
    /// # Errors
    /// [`Error::Config`] naming key, value and range for an unknown key or a value out of range.
    pub fn check(place: &str, declared: &[Setting], given: &BTreeMap<String, SettingValue>) -> Result<Self> {
        for key in given.keys() {
            if !declared.iter().any(|s| s.name == key) {
                let known: Vec<_> = declared.iter().map(|s| s.name).collect();
                return Err(Error::config(
                    place,
                    format!("there is no setting `{key}`"),
                    format!(
                        "{}known: {}",
                        did_you_mean(key, known.iter().copied()),
                        if known.is_empty() { "none".into() } else { known.join(", ") }
                    ),
                ));
            }
        }
        let mut values = BTreeMap::new();
        for setting in declared {
            if let Some((choice, words)) = setting.of
                && !matches!(values.get(choice), Some(SettingValue::Word(word)) if words.contains(&&**word))
            {
                if given.contains_key(setting.name) {
                    let finding = format!("`{}` does not belong to {choice} = {}", setting.name, values[choice]);
                    let remedy = format!("it counts under {choice} = {}; leave it out", words.join(", "));
                    return Err(Error::config(place, finding, remedy));
                }
                continue;
            }
            let value = match given.get(setting.name) {
                None => setting.default_value(),
                Some(value) => setting.check(value).ok_or_else(|| {
                    Error::config(
                        place,
                        format!("{} = {value} is not accepted", setting.name),
                        format!(
                            "`{}` takes {} (default {}): {}",
                            setting.name,
                            setting.accepts(),
                            setting.default,
                            setting.doc
                        ),
                    )
                })?,
            };
            values.insert(setting.name, value);
        }
        Ok(Self { values })
    }

    /// A real setting.
    ///
    /// # Panics
    /// If no real setting of this name was declared: a mistake in the optimizer's own file.
    #[must_use]
    pub fn real(&self, name: &str) -> f64 {
        match self.values.get(name) {
            Some(SettingValue::Real(v)) => *v,
            other => panic!("`{name}` was not declared as a real setting ({other:?})"),
        }
    }

    /// A whole-number setting, which the declaration keeps at zero or above.
    ///
    /// # Panics
    /// If no whole-number setting of this name was declared.
    #[must_use]
    pub fn whole(&self, name: &str) -> usize {
        match self.values.get(name) {
            Some(SettingValue::Whole(v)) => *v as usize,
            other => panic!("`{name}` was not declared as a whole-number setting ({other:?})"),
        }
    }

    /// A setting that is one of several words.
    ///
    /// # Panics
    /// If no such setting of this name was declared.
    #[must_use]
    pub fn word(&self, name: &str) -> &str {
        match self.values.get(name) {
            Some(SettingValue::Word(v)) => v,
            other => panic!("`{name}` was not declared as a choice ({other:?})"),
        }
    }

    /// A setting that is true or false.
    ///
    /// # Panics
    /// If no such setting of this name was declared.
    #[must_use]
    pub fn switch(&self, name: &str) -> bool {
        match self.values.get(name) {
            Some(SettingValue::Switch(v)) => *v,
            other => panic!("`{name}` was not declared as a switch ({other:?})"),
        }
    }

    /// A setting of layers' widths.
    ///
    /// # Panics
    /// If no such setting of this name was declared.
    #[must_use]
    pub fn widths(&self, name: &str) -> Vec<usize> {
        parse_widths(self.word(name)).unwrap_or_else(|| panic!("`{name}` was not declared as widths"))
    }

    /// All values by name.
    #[must_use]
    pub fn values(&self) -> &BTreeMap<&'static str, SettingValue> {
        &self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECLARED: &[Setting] = &[
        Setting::real("learning_rate", "0.1", 0.0, f64::INFINITY, "step size"),
        Setting::whole("batch_size", "256", 1, i64::MAX, "rows per step"),
        Setting::choice("schedule", "constant", &["constant", "cosine"], "how the step size changes"),
        Setting::switch("nesterov", "false", "look ahead"),
        Setting::widths("hidden", "300", "units of the hidden layers"),
    ];

    fn check(key: &str, value: SettingValue) -> Result<Settings> {
        Settings::check("x.toml, [[optimizer]] sgd", DECLARED, &BTreeMap::from([(key.to_owned(), value)]))
    }

    #[test]
    fn defaults_fill_what_is_not_given() {
        let s = check("learning_rate", SettingValue::Whole(1)).unwrap();
        assert_eq!(s.real("learning_rate"), 1.0);
        assert_eq!(s.whole("batch_size"), 256);
        assert_eq!(s.word("schedule"), "constant");
        assert!(!s.switch("nesterov"));
    }

    #[test]
    fn widths_are_a_number_or_several_in_a_word() {
        let widths = |value| check("hidden", value).map(|settings| settings.widths("hidden"));
        assert_eq!(widths(SettingValue::Whole(20)).unwrap(), [20]);
        assert_eq!(widths(SettingValue::Word("500-250".into())).unwrap(), [500, 250]);
        assert!(widths(SettingValue::Word("none".into())).unwrap().is_empty());
        for bad in ["", "0", "5-", "-5", "5x3", "99999999999"] {
            let message = widths(SettingValue::Word(bad.into())).unwrap_err().to_string();
            assert!(message.contains("joined by hyphens"), "{message}");
        }
    }

    #[test]
    fn a_bad_value_is_refused_with_key_value_and_range() {
        for value in [SettingValue::Real(-1.0), SettingValue::Real(f64::NAN), SettingValue::Word("big".into())] {
            let message = check("learning_rate", value).unwrap_err().to_string();
            assert!(message.contains("learning_rate = ") && message.contains("at least 0"), "{message}");
        }
        let message = check("learnin_rate", SettingValue::Real(1.0)).unwrap_err().to_string();
        assert!(message.contains("did you mean `learning_rate`?"), "{message}");
    }
}
