//! The table `[tune]` of an experiment file.

use crate::error::Result;
use crate::experiment::document::{Field, Section};
use crate::oracle::{SettingValue, did_you_mean};

/// Metrics by which settings may be chosen: those of the validation rows.
pub const METRICS: [&str; 3] = ["validation_loss", "validation_accuracy", "validation_squared_error"];

/// Trials of each optimizer where the file does not say.
pub const TRIALS: usize = 16;

/// More trials than this are a mistake.
const MOST_TRIALS: u64 = 4096;

/// What `[tune]` says; what is absent has a default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tune {
    /// Trials of each optimizer.
    pub trials: Option<usize>,
    /// Seconds of training of each trial.
    pub seconds: Option<f64>,
    /// The metric by which settings are chosen.
    pub metric: Option<String>,
    /// The seed of the search.
    pub seed: Option<u64>,
    /// What is searched, by the label or name of an optimizer.
    pub ranges: Vec<Ranges>,
}

/// What is searched of one optimizer.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranges {
    /// File and line, for messages.
    pub place: String,
    /// The optimizer's label or name.
    pub optimizer: String,
    /// The searched settings with their places.
    pub settings: Vec<(String, String, Wanted)>,
}

/// Where the file wants a setting to be searched.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    /// From one number to another; on a logarithmic scale, or as the registry has it.
    Between {
        /// The smallest value.
        from: f64,
        /// The largest.
        to: f64,
        /// Whether evenly in the logarithm.
        log: Option<bool>,
    },
    /// Among these values.
    Among(Vec<SettingValue>),
    /// Nowhere: it stays as `[[optimizer]]` has it.
    Fixed,
}

const RANGE: &str = "{ from = 1e-3, to = 1.0, log = true }, a list of distinct values, or \"fixed\" (not searched)";

/// Reads the table, if there is one.
pub fn read(root: &Section<'_>) -> Result<Option<Tune>> {
    const TABLE: &str = "a table: [tune]";
    let Some(field) = root.get("tune") else { return Ok(None) };
    let Some(section) = field.table("[tune]") else { return Err(field.refuse(TABLE)) };
    let trials = section.get("trials").map(|f| f.whole(1..MOST_TRIALS + 1, "a whole number from 1 to 4096"));
    let positive = |f: Field<'_>| match f.number("a number of seconds above 0")? {
        seconds if seconds > 0.0 => Ok(seconds),
        _ => Err(f.refuse("a number of seconds above 0")),
    };
    let tune = Tune {
        trials: trials.transpose()?.map(|trials| trials as usize),
        seconds: section.get("seconds").map(positive).transpose()?,
        metric: section.get("metric").map(|field| metric(&field)).transpose()?,
        seed: section.get("seed").map(|f| f.whole(0..1 << 32, "a whole number from 0 to 4294967295")).transpose()?,
        ranges: ranges(&section)?,
    };
    section.finish()?;
    Ok(Some(tune))
}

fn metric(field: &Field<'_>) -> Result<String> {
    let accepts = format!("one of {} (nothing is chosen on test rows)", METRICS.join(", "));
    let name = field.text(&accepts)?;
    if METRICS.contains(&name) {
        return Ok(name.to_owned());
    }
    Err(field.refuse(format!("{}{accepts}", did_you_mean(name, METRICS.into_iter()))))
}

fn ranges(tune: &Section<'_>) -> Result<Vec<Ranges>> {
    const TABLE: &str = "a table for each optimizer, such as [tune.ranges.sgd]";
    let Some(field) = tune.get("ranges") else { return Ok(Vec::new()) };
    let Some(section) = field.table("[tune.ranges]") else { return Err(field.refuse(TABLE)) };
    let one = |field: Field<'_>| {
        let Some(section) = field.table("[tune.ranges]") else { return Err(field.refuse(TABLE)) };
        let settings = section.rest().into_iter().map(|f| Ok((f.key.clone(), f.place(), wanted(&f)?)));
        Ok(Ranges { place: field.place(), optimizer: field.key.clone(), settings: settings.collect::<Result<_>>()? })
    };
    section.rest().into_iter().map(one).collect()
}

fn wanted(field: &Field<'_>) -> Result<Wanted> {
    if let Some(section) = field.table("") {
        let from = section.require("from", "the smallest value")?.number("a number")?;
        let to = section.require("to", "the largest value")?.number("a number")?;
        let log = match section.get("log").map(|f| (f.scalar(), f)) {
            None => None,
            Some((Ok(SettingValue::Switch(log)), _)) => Some(log),
            Some((_, f)) => return Err(f.refuse("true or false")),
        };
        section.finish()?;
        if from >= to || (log == Some(true) && from <= 0.0) {
            return Err(field.refuse("`from` below `to`, and above 0 where `log` is true"));
        }
        return Ok(Wanted::Between { from, to, log });
    }
    if !field.is_array() {
        return if field.text(RANGE)? == "fixed" { Ok(Wanted::Fixed) } else { Err(field.refuse(RANGE)) };
    }
    let values: Vec<_> = field.items().iter().map(Field::scalar).collect::<Result<_>>()?;
    let is_repeated = |(index, value): (usize, &SettingValue)| values[..index].contains(value);
    if values.is_empty() || values.iter().enumerate().any(is_repeated) {
        return Err(field.refuse(RANGE));
    }
    Ok(Wanted::Among(values))
}
