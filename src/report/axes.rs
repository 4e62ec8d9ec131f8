//! Scales that map values to an axis, and the ticks that say so: linear, logarithmic, and logarithmic with a zero.

use super::units;

/// How values are laid along an axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// Equal steps for equal differences.
    Linear {
        /// Value at the start.
        low: f64,
        /// Value at the end.
        high: f64,
    },
    /// Equal steps for equal ratios.
    Log {
        /// Value at the start, above zero.
        low: f64,
        /// Value at the end.
        high: f64,
    },
    /// Linear from zero to `linear`, on [`ZERO_DECADES`] decades' length, logarithmic beyond.
    SymLog {
        /// Where the logarithmic part begins, above zero.
        linear: f64,
        /// Value at the end.
        high: f64,
    },
}

/// The length of the linear part of [`Scale::SymLog`], in decades.
pub const ZERO_DECADES: f64 = 0.5;

/// What the numbers of an axis are, which decides how its ticks are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// Plain numbers.
    Number,
    /// Durations in seconds.
    Seconds,
}

/// A mark on an axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Tick {
    /// Its value.
    pub value: f64,
    /// What stands beside it; empty for a small tick.
    pub label: String,
}

impl Scale {
    /// A logarithmic scale around all `values` above zero, at least a third of a decade long, with `margin` (a share of its
    /// length) added on both sides. `None` without such values.
    #[must_use]
    pub fn log_around(values: impl IntoIterator<Item = f64>, margin: f64) -> Option<Self> {
        let (low, high) = range(values.into_iter().filter(|value| *value > 0.0))?;
        let (mut low, mut high) = (low.log10(), high.log10());
        let lacking = 0.33 - (high - low);
        if lacking > 0.0 {
            (low, high) = (low - lacking / 2.0, high + lacking / 2.0);
        }
        let margin = margin * (high - low);
        Some(Self::Log { low: 10_f64.powf(low - margin), high: 10_f64.powf(high + margin) })
    }

    /// Where `value` lies: 0 at the start of the axis, 1 at its end; beyond both for values outside.
    #[must_use]
    pub fn place(&self, value: f64) -> f64 {
        match *self {
            Self::Linear { low, high } => (value - low) / (high - low),
            Self::Log { low, high } => {
                if value > 0.0 {
                    (value / low).log10() / (high / low).log10()
                } else {
                    f64::NEG_INFINITY
                }
            }
            Self::SymLog { linear, high } => {
                let length = ZERO_DECADES + (high / linear).log10();
                let along = if value <= linear {
                    ZERO_DECADES * value / linear
                } else {
                    ZERO_DECADES + (value / linear).log10()
                };
                along / length
            }
        }
    }

    /// The ticks, in increasing order, about `labels` of them with a label.
    #[must_use]
    pub fn ticks(&self, quantity: Quantity, labels: usize) -> Vec<Tick> {
        let labels = labels.max(2);
        match *self {
            Self::Linear { low, high } => linear_ticks(low, high, labels),
            Self::Log { low, high } => log_ticks(low, high, quantity, labels),
            Self::SymLog { linear, high } => {
                let mut ticks = vec![Tick { value: 0.0, label: "0".to_owned() }];
                ticks.extend(log_ticks(linear, high, quantity, labels));
                ticks
            }
        }
    }
}

/// The smallest and largest finite value; `None` if there is none.
#[must_use]
pub fn range(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    values.into_iter().filter(|value| value.is_finite()).fold(None, |range, value| {
        Some(range.map_or((value, value), |(low, high): (f64, f64)| (low.min(value), high.max(value))))
    })
}

fn linear_ticks(low: f64, high: f64, labels: usize) -> Vec<Tick> {
    let rough = (high - low) / labels as f64;
    if !(rough.is_finite() && rough > 0.0) {
        return Vec::new();
    }
    let decade = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * decade).into_iter().find(|step| *step >= rough * 0.999);
    let step = step.unwrap_or(10.0 * decade);
    // As many decimals as the step needs, the same for all ticks.
    let decimals = (0..16).find(|places| {
        let scaled = step * 10_f64.powi(*places);
        (scaled - scaled.round()).abs() < 1e-6 * scaled
    });
    let decimals = decimals.unwrap_or(0) as usize;
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last)
        .map(|index| {
            let value = index as f64 * step;
            Tick { value, label: format!("{value:.decimals$}").replace('-', "−") }
        })
        .collect()
}

fn log_ticks(low: f64, high: f64, quantity: Quantity, labels: usize) -> Vec<Tick> {
    if !(low > 0.0 && high > low && high.is_finite()) {
        return Vec::new();
    }
    let inside = |value: f64| value >= low * (1.0 - 1e-9) && value <= high * (1.0 + 1e-9);
    let (first, last) = ((low.log10() + 1e-9).floor() as i32, (high.log10() - 1e-9).ceil() as i32);
    let decades = match quantity {
        Quantity::Seconds => clock_values(first, last),
        Quantity::Number => (first..=last).map(|exponent| 10_f64.powi(exponent)).collect::<Vec<_>>(),
    };
    let labelled: Vec<f64> = decades.iter().copied().filter(|value| inside(*value)).collect();
    // On less than two decades the factors 2 and 5, or all from 1 to 9, carry labels too.
    let mut factors: &[f64] = &[1.0];
    for finer in [&[1.0, 3.0][..], &[1.0, 2.0, 5.0], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]] {
        if labelled.len() < 3 {
            let found = candidates(first, last, finer).filter(|value| inside(*value)).count();
            let kept = candidates(first, last, factors).filter(|value| inside(*value)).count();
            if kept < 3 && found <= labels + 1 {
                factors = finer;
            }
        }
    }
    let mut ticks: Vec<Tick> = if factors.len() > 1 {
        candidates(first, last, factors)
            .filter(|value| inside(*value))
            .map(|value| Tick { value, label: label(value, quantity, true) })
            .collect()
    } else {
        let stride = labelled.len().div_ceil(labels).max(1);
        let plain = labelled.iter().all(|value| (1e-2..1e4).contains(value));
        // Strides count from a decade that every axis shares, so that neighbouring panels agree.
        let kept = |index: usize, value: f64| match quantity {
            Quantity::Number => (value.log10().round() as i64).rem_euclid(stride as i64) == 0,
            Quantity::Seconds => index.is_multiple_of(stride),
        };
        labelled
            .iter()
            .enumerate()
            .map(|(index, value)| Tick {
                value: *value,
                label: if kept(index, *value) { label(*value, quantity, plain) } else { String::new() },
            })
            .collect()
    };
    // Small ticks between, while they do not crowd the axis.
    if last - first <= 8 {
        for value in candidates(first, last, &[2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]) {
            let taken = ticks.iter().any(|tick| (tick.value / value - 1.0).abs() < 1e-6);
            if inside(value) && !taken && (quantity == Quantity::Number || value < 10.0) {
                ticks.push(Tick { value, label: String::new() });
            }
        }
    }
    ticks.sort_by(|one, other| one.value.total_cmp(&other.value));
    ticks
}

fn candidates(first: i32, last: i32, factors: &[f64]) -> impl Iterator<Item = f64> {
    (first..=last).flat_map(move |exponent| factors.iter().map(move |factor| factor * 10_f64.powi(exponent)))
}

/// Powers of ten of a second up to ten, then minutes, hours and days.
fn clock_values(first: i32, last: i32) -> Vec<f64> {
    let small = (first..=last.min(1)).map(|exponent| 10_f64.powi(exponent));
    small.chain([60.0, 600.0, 3600.0, 36_000.0, 86_400.0, 864_000.0]).collect()
}

fn label(value: f64, quantity: Quantity, plain: bool) -> String {
    match quantity {
        Quantity::Seconds => match value {
            // A tick is written in the unit it is round in: 60 s is 1 min.
            v if v >= 86_400.0 => format!("{} d", units::significant(v / 86_400.0, 3)),
            v if v >= 3600.0 => format!("{} h", units::significant(v / 3600.0, 3)),
            v if v >= 60.0 && (v / 60.0).fract() == 0.0 => format!("{} min", units::significant(v / 60.0, 3)),
            v if v < 1e-6 => format!("{} ns", units::significant(v * 1e9, 3)),
            v => units::seconds(v),
        },
        Quantity::Number if plain && (1000.0..1e6).contains(&value) => units::count(value.round() as u64),
        Quantity::Number if plain => units::significant(value, 3),
        Quantity::Number => units::power_of_ten(value.log10().round() as i32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(ticks: &[Tick]) -> Vec<&str> {
        ticks.iter().map(|tick| tick.label.as_str()).filter(|label| !label.is_empty()).collect()
    }

    #[test]
    fn seconds_are_written_with_their_units() {
        let scale = Scale::Log { low: 5e-4, high: 700.0 };
        let ticks = scale.ticks(Quantity::Seconds, 9);
        assert_eq!(labels(&ticks), ["1 ms", "10 ms", "100 ms", "1 s", "10 s", "1 min", "10 min"]);
        let narrow = Scale::Log { low: 0.011, high: 0.09 }.ticks(Quantity::Seconds, 6);
        assert!(labels(&narrow).contains(&"20 ms") && labels(&narrow).len() >= 2, "{narrow:?}");
    }

    #[test]
    fn powers_of_ten_are_raised_and_thinned_alike_in_all_panels() {
        let ticks = Scale::Log { low: 1e-14, high: 1.0 }.ticks(Quantity::Number, 5);
        assert_eq!(labels(&ticks), ["10⁻¹²", "10⁻⁹", "10⁻⁶", "10⁻³", "1"]);
        let counts = Scale::Log { low: 20.0, high: 2000.0 }.ticks(Quantity::Number, 6);
        assert_eq!(labels(&counts), ["30", "100", "300", "1,000"]);
    }

    #[test]
    fn linear_ticks_carry_the_same_decimals_and_lie_inside() {
        let ticks = Scale::Linear { low: 0.6049, high: 0.6613 }.ticks(Quantity::Number, 6);
        assert_eq!(labels(&ticks), ["0.61", "0.62", "0.63", "0.64", "0.65", "0.66"]);
        let negative = Scale::Linear { low: -1.0, high: 1.0 }.ticks(Quantity::Number, 4);
        assert_eq!(labels(&negative), ["−1.0", "−0.5", "0.0", "0.5", "1.0"]);
    }

    #[test]
    fn the_zero_of_a_symmetric_logarithm_is_at_the_start() {
        let scale = Scale::SymLog { linear: 0.1, high: 100.0 };
        assert_eq!(scale.place(0.0), 0.0);
        assert!((scale.place(100.0) - 1.0).abs() < 1e-12);
        let ends: Vec<f64> = [0.0, 0.05, 0.1, 1.0, 10.0].iter().map(|value| scale.place(*value)).collect();
        assert!(ends.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(labels(&scale.ticks(Quantity::Number, 6)), ["0", "0.1", "1", "10", "100"]);
    }

    #[test]
    fn odd_ranges_give_no_ticks_and_no_panic() {
        assert!(Scale::Linear { low: 1.0, high: 1.0 }.ticks(Quantity::Number, 5).is_empty());
        assert!(Scale::Log { low: 0.0, high: 1.0 }.ticks(Quantity::Number, 5).is_empty());
        assert!(Scale::log_around([0.0, -1.0, f64::NAN], 0.1).is_none());
        assert!(matches!(Scale::log_around([29.0], 0.0), Some(Scale::Log { low, high }) if low < 29.0 && high > 29.0));
    }
}
