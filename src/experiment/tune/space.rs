//! Where an optimizer's settings are searched, and at which points: its defaults first, then Sobol's sequence.
//!
//! The sequence is scrambled (Owen 1995, by the hash of Burley 2020): the first `2^k` points of every dimension fall one
//! into each of `2^k` equal intervals, and the seed alone decides where in them.

use super::section::{Ranges, Wanted};
use crate::error::{Error, Result};
use crate::oracle::{Search, Setting, SettingRange, SettingValue, did_you_mean};
use std::collections::BTreeMap;

/// A setting that is searched.
#[derive(Debug, Clone)]
pub struct Dimension {
    /// Its declaration.
    pub setting: Setting,
    /// Its values.
    pub domain: Domain,
}

/// The values of a setting that is searched.
#[derive(Debug, Clone, PartialEq)]
pub enum Domain {
    /// Numbers of a range.
    Between {
        /// The smallest.
        from: f64,
        /// The largest.
        to: f64,
        /// Whether evenly in the logarithm.
        log: bool,
    },
    /// Some values.
    Among(Vec<SettingValue>),
}

/// Values by name.
pub type Point = BTreeMap<String, SettingValue>;

/// Searched numbers are rounded to so many digits: what ran is what stands in the file, and can be read.
const DIGITS: usize = 3;

impl Dimension {
    /// The value at a share `u` of the way, in [0, 1).
    fn at(&self, u: f64) -> SettingValue {
        match &self.domain {
            Domain::Among(values) => values[((u * values.len() as f64) as usize).min(values.len() - 1)].clone(),
            &Domain::Between { from, to, log } => {
                // Whole numbers have intervals of equal width, the ends included.
                let is_whole = matches!(self.setting.range, SettingRange::Whole(..));
                let (low, high) = if is_whole { (from - 0.5, to + 0.5) } else { (from, to) };
                let value = if log {
                    let low = if is_whole { low.max(0.5) } else { low };
                    (low.ln() + u * (high.ln() - low.ln())).exp()
                } else {
                    low + u * (high - low)
                };
                if is_whole {
                    SettingValue::Whole(value.round().clamp(from, to) as i64)
                } else {
                    SettingValue::Real(rounded(value).clamp(from, to))
                }
            }
        }
    }

    /// Whether the setting's default is among its values.
    fn holds_default(&self) -> bool {
        let default = self.setting.default_value();
        match (&self.domain, &default) {
            (Domain::Among(values), default) => values.contains(default),
            (&Domain::Between { from, to, .. }, SettingValue::Real(value)) => (from..=to).contains(value),
            (&Domain::Between { from, to, .. }, SettingValue::Whole(value)) => (from..=to).contains(&(*value as f64)),
            _ => false,
        }
    }
}

fn rounded(value: f64) -> f64 {
    format!("{value:.*e}", DIGITS - 1).parse().unwrap_or(value)
}

/// What is searched of an optimizer: the ranges of the file, and for all other settings those of the registry.
///
/// # Errors
/// [`Error::Config`] for a range of a setting that the optimizer does not have, or that the setting does not take.
pub fn dimensions(optimizer: &str, declared: &[Setting], ranges: Option<&Ranges>) -> Result<Vec<Dimension>> {
    for (name, place, _) in ranges.iter().flat_map(|ranges| &ranges.settings) {
        if !declared.iter().any(|setting| setting.name == name) {
            let known = declared.iter().map(|setting| setting.name);
            let all = known.clone().collect::<Vec<_>>().join(", ");
            let remedy = format!("{}known: {all}", did_you_mean(name, known));
            return Err(Error::config(place, format!("{optimizer} has no setting `{name}`"), remedy));
        }
    }
    let mut dimensions = Vec::new();
    for &setting in declared {
        let wanted = ranges.iter().flat_map(|ranges| &ranges.settings).find(|(name, ..)| name == setting.name);
        let domain = match wanted {
            Some((_, place, wanted)) => of_the_file(&setting, place, wanted)?,
            None => setting.search.and_then(|search| of_the_registry(&setting, search)),
        };
        dimensions.extend(domain.map(|domain| Dimension { setting, domain }));
    }
    Ok(dimensions)
}

fn of_the_registry(setting: &Setting, search: Search) -> Option<Domain> {
    match (search, setting.range) {
        (Search::Between(from, to), _) => Some(Domain::Between { from, to, log: setting.logarithmic }),
        (Search::Every, SettingRange::Choice(words)) => {
            Some(Domain::Among(words.iter().map(|word| SettingValue::Word((*word).into())).collect()))
        }
        (Search::Every, _) => Some(Domain::Among([true, false].map(SettingValue::Switch).to_vec())),
    }
}

fn of_the_file(setting: &Setting, place: &str, wanted: &Wanted) -> Result<Option<Domain>> {
    let refuse = |finding: String| {
        let remedy = format!("`{}` takes {} (default {})", setting.name, setting.accepts(), setting.default);
        Err(Error::config(place, finding, remedy))
    };
    match wanted {
        Wanted::Fixed => Ok(None),
        Wanted::Among(values) => {
            let mut checked = Vec::with_capacity(values.len());
            for value in values {
                match setting.check(value) {
                    Some(value) => checked.push(value),
                    None => return refuse(format!("{value} is not accepted")),
                }
            }
            Ok(Some(Domain::Among(checked)))
        }
        &Wanted::Between { from, to, log } => {
            let inside = match setting.range {
                SettingRange::Real(low, high) => low <= from && to <= high,
                SettingRange::Whole(low, high) => {
                    low as f64 <= from && to <= high as f64 && from.fract() == 0.0 && to.fract() == 0.0
                }
                _ => return refuse("a range of numbers is not accepted".into()),
            };
            let log = log.unwrap_or(setting.logarithmic);
            if !inside || (log && from <= 0.0) {
                return refuse(format!(
                    "from {from} to {to} is not accepted{}",
                    if log { " on a logarithmic scale" } else { "" }
                ));
            }
            Ok(Some(Domain::Between { from, to, log }))
        }
    }
}

/// The points to try: the defaults, where the ranges hold them, then the sequence, without repetitions; fewer than asked
/// where there are not so many distinct ones. Without a dimension there is one point.
#[must_use]
pub fn points(dimensions: &[Dimension], trials: usize, seed: u64) -> Vec<Point> {
    // Whole numbers and words repeat; after so many repetitions in a row there is nothing new to find.
    const MOST_REPETITIONS: usize = 1000;
    let point = |value: &dyn Fn(usize, &Dimension) -> SettingValue| -> Point {
        dimensions
            .iter()
            .enumerate()
            .map(|(d, dimension)| (dimension.setting.name.to_owned(), value(d, dimension)))
            .collect()
    };
    let mut points = Vec::new();
    if dimensions.iter().all(Dimension::holds_default) {
        points.push(point(&|_, dimension| dimension.setting.default_value()));
    }
    let mut repetitions = 0;
    // The library's sequences have 2^16 points.
    for index in 0..1 << 16 {
        if points.len() >= trials || repetitions > MOST_REPETITIONS || dimensions.is_empty() {
            break;
        }
        let next = point(&|d, dimension| dimension.at(f64::from(sobol_burley::sample(index, d as u32, seed as u32))));
        if points.contains(&next) {
            repetitions += 1;
        } else {
            points.push(next);
            repetitions = 0;
        }
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECLARED: &[Setting] = &[
        Setting::real("learning_rate", "0.1", 0.0, f64::INFINITY, "step size").log().search(1e-4, 1.0),
        Setting::whole("batch_size", "256", 1, 1 << 40, "rows").log().search(32.0, 1024.0),
        Setting::choice("schedule", "constant", &["constant", "cosine"], "how").search_every(),
        Setting::switch("nesterov", "false", "look ahead"),
        Setting::real("momentum", "0.9", 0.0, 1.0, "share kept"),
    ];

    fn ranges(settings: &[(&str, Wanted)]) -> Ranges {
        let settings =
            settings.iter().map(|(name, wanted)| ((*name).to_owned(), "x.toml, line 3".into(), wanted.clone()));
        Ranges { place: "x.toml, line 2".into(), optimizer: "sgd".into(), settings: settings.collect() }
    }

    #[test]
    fn the_first_powers_of_two_fill_every_interval_once() {
        let dimensions = dimensions("sgd", DECLARED, None).unwrap();
        assert_eq!(dimensions.len(), 3);
        for seed in [0, 1, 77] {
            // The defaults stand before the sequence.
            let points = points(&dimensions, 17, seed);
            let mut taken = [0; 16];
            for point in &points[1..] {
                let SettingValue::Real(rate) = point["learning_rate"] else { panic!() };
                assert!((1e-4..=1.0).contains(&rate));
                taken[(((rate * 1.0001).log10() + 4.0) / 4.0 * 16.0).min(15.0) as usize] += 1;
            }
            assert_eq!(taken, [1; 16], "seed {seed}");
            assert_eq!(points[0]["batch_size"], SettingValue::Whole(256));
        }
    }

    #[test]
    fn the_seed_alone_decides() {
        let dimensions = dimensions("sgd", DECLARED, None).unwrap();
        assert_eq!(points(&dimensions, 20, 3), points(&dimensions, 20, 3));
        assert_ne!(points(&dimensions, 20, 3), points(&dimensions, 20, 4));
        // More trials go on where fewer ended.
        assert_eq!(points(&dimensions, 30, 3)[..20], points(&dimensions, 20, 3));
    }

    #[test]
    fn small_spaces_are_exhausted_and_empty_ones_have_one_point() {
        let only = ranges(&[
            ("learning_rate", Wanted::Fixed),
            ("batch_size", Wanted::Among(vec![SettingValue::Whole(64), SettingValue::Whole(256)])),
        ]);
        let small = dimensions("sgd", DECLARED, Some(&only)).unwrap();
        assert_eq!(points(&small, 16, 1).len(), 4);
        assert_eq!(points(&[], 16, 1), [Point::new()]);
    }

    #[test]
    fn the_file_overrides_the_registry_within_what_a_setting_takes() {
        let wanted = Wanted::Between { from: 0.5, to: 0.9, log: None };
        let given = ranges(&[("momentum", wanted)]);
        let dimensions_of = |ranges: &Ranges| dimensions("sgd", DECLARED, Some(ranges));
        let last = dimensions_of(&given).unwrap().pop().unwrap();
        assert_eq!(last.domain, Domain::Between { from: 0.5, to: 0.9, log: false });
        for (name, wanted, said) in [
            ("momentun", Wanted::Fixed, "did you mean `momentum`"),
            ("momentum", Wanted::Between { from: 0.5, to: 2.0, log: None }, "from 0 to 1"),
            ("learning_rate", Wanted::Between { from: 0.0, to: 2.0, log: None }, "logarithmic scale"),
            ("schedule", Wanted::Between { from: 0.0, to: 2.0, log: None }, "one of constant, cosine"),
            ("schedule", Wanted::Among(vec![SettingValue::Word("cosin".into())]), "cosin is not accepted"),
        ] {
            let message = dimensions_of(&ranges(&[(name, wanted)])).unwrap_err().to_string();
            assert!(message.contains(said) && message.contains("line 3"), "{message}");
        }
    }
}
