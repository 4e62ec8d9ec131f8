//! Budgets and evaluation schedules: how much a cell may do, and after which steps it is looked at.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What a cell may use up; whichever limit comes first ends it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// Seconds of training.
    pub seconds: Option<f64>,
    /// Passes over the training rows.
    pub passes: Option<f64>,
    /// Steps of the optimizer.
    pub steps: Option<u64>,
}

impl Budget {
    /// What a budget takes, in words.
    pub const ACCEPTS: &'static str = "limits with a unit, whichever comes first, such as \"30s\", \"5m\", \"3h\", \
                                       \"200 passes\", \"1000 steps\" or [\"30s\", \"200 passes\"]";

    /// Adds a limit such as `30s`, `5m`, `3h`, `200 passes` or `1000 steps`; `None` if it is not one, or one of its kind
    /// was given already.
    #[must_use]
    pub fn with(mut self, limit: &str) -> Option<Self> {
        let limit = limit.trim();
        let (number, unit) = limit.split_at(limit.find(|c: char| c.is_ascii_alphabetic())?);
        // "1e3s": an exponent belongs to the number.
        let (number, unit) = match unit.strip_prefix('e') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit()) => {
                let end = rest.find(|c: char| !c.is_ascii_digit())?;
                limit.split_at(number.len() + 1 + end)
            }
            _ => (number, unit),
        };
        let number: f64 = number.trim().replace('_', "").parse().ok().filter(|n: &f64| n.is_finite() && *n > 0.0)?;
        let seconds = |factor: f64| number * factor;
        match unit.trim() {
            "s" | "second" | "seconds" => set(&mut self.seconds, seconds(1.0)),
            "m" | "min" | "minute" | "minutes" => set(&mut self.seconds, seconds(60.0)),
            "h" | "hour" | "hours" => set(&mut self.seconds, seconds(3600.0)),
            "pass" | "passes" => set(&mut self.passes, number),
            "step" | "steps" if number.fract() == 0.0 && number < 9e15 => set(&mut self.steps, number as u64),
            _ => None,
        }?;
        Some(self)
    }
}

fn set<T>(slot: &mut Option<T>, value: T) -> Option<()> {
    let free = slot.is_none();
    *slot = Some(value);
    free.then_some(())
}

/// Seconds in the unit that suits them: `30s`, `5m`, `3h`.
#[must_use]
pub fn readable_seconds(seconds: f64) -> String {
    let in_unit = |unit: f64| seconds >= unit && seconds % unit == 0.0;
    if in_unit(3600.0) {
        format!("{}h", seconds / 3600.0)
    } else if in_unit(60.0) {
        format!("{}m", seconds / 60.0)
    } else {
        format!("{seconds}s")
    }
}

fn counted(number: f64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1.0 { one } else { many })
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limits = [
            self.seconds.map(readable_seconds),
            self.passes.map(|passes| counted(passes, "pass", "passes")),
            self.steps.map(|steps| counted(steps as f64, "step", "steps")),
        ];
        let limits: Vec<_> = limits.into_iter().flatten().collect();
        f.pad(&if limits.is_empty() { "none".to_owned() } else { limits.join(" or ") })
    }
}

/// After which steps a cell is evaluated; always at the start and at the end too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Schedule {
    /// After each of the first ten steps, then after a quarter more each time.
    #[default]
    Geometric,
    /// After every so many steps.
    Steps(u64),
    /// Whenever so many passes over the training rows have been completed.
    Passes(f64),
}

impl Schedule {
    /// What a schedule takes, in words.
    pub const ACCEPTS: &'static str = "\"geometric\" (each of the first 10 steps, then a quarter more each time), or \
                                       an interval such as \"every 10 steps\", \"every 1 pass\" or \"every 0.5 passes\"";

    /// The schedule's next point after `steps` and `passes`.
    #[must_use]
    pub fn after(self, steps: u64, passes: f64) -> NextPoint {
        match self {
            Self::Geometric => {
                let mut next = if steps < 10 { steps + 1 } else { 10 };
                while next <= steps {
                    next = next.saturating_mul(5).div_ceil(4);
                }
                NextPoint { step: next, passes: f64::INFINITY }
            }
            Self::Steps(interval) => {
                NextPoint { step: (steps / interval + 1).saturating_mul(interval), passes: f64::INFINITY }
            }
            Self::Passes(interval) => {
                NextPoint { step: u64::MAX, passes: ((passes / interval + ROUNDING).floor() + 1.0) * interval }
            }
        }
    }
}

/// Passes are sums of shares: this much of an interval is rounding.
const ROUNDING: f64 = 1e-9;

/// When a cell is evaluated next: at this step, or when so many passes are done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NextPoint {
    step: u64,
    passes: f64,
}

impl NextPoint {
    /// Whether it has come.
    #[must_use]
    pub fn is_reached(&self, steps: u64, passes: f64) -> bool {
        steps >= self.step || passes >= self.passes * (1.0 - ROUNDING)
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("it takes {}", Self::ACCEPTS);
        let text = text.trim();
        if text == "geometric" {
            return Ok(Self::Geometric);
        }
        let budget = text.strip_prefix("every ").and_then(|interval| Budget::default().with(interval));
        match budget.ok_or_else(refuse)? {
            Budget { steps: Some(steps), .. } => Ok(Self::Steps(steps)),
            Budget { passes: Some(passes), .. } => Ok(Self::Passes(passes)),
            _ => Err(refuse()),
        }
    }
}

impl TryFrom<String> for Schedule {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Schedule> for String {
    fn from(schedule: Schedule) -> Self {
        match schedule {
            Schedule::Geometric => "geometric".to_owned(),
            Schedule::Steps(steps) => format!("every {}", counted(steps as f64, "step", "steps")),
            Schedule::Passes(passes) => format!("every {}", counted(passes, "pass", "passes")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_with_their_units() {
        let limit = |text| Budget::default().with(text);
        assert_eq!(limit("30s").unwrap().seconds, Some(30.0));
        assert_eq!(limit("1.5 h").unwrap().seconds, Some(5400.0));
        assert_eq!(limit("2e2 s").unwrap().seconds, Some(200.0));
        assert_eq!(limit("200 passes").unwrap().passes, Some(200.0));
        assert_eq!(limit("1_000 steps").unwrap().steps, Some(1000));
        for bad in ["30", "s", "-3s", "0s", "inf s", "nan s", "1.5 steps", "3 weeks", "", "1e", "1es", "é s", "3 pässe"]
        {
            assert_eq!(limit(bad), None, "{bad}");
        }
        assert_eq!(limit("5m").unwrap().with("1s"), None, "two limits of a kind");
        assert_eq!(limit("5m").unwrap().with("2 passes").unwrap().to_string(), "5m or 2 passes");
    }

    #[test]
    fn schedules_survive_the_round_trip() {
        for text in ["geometric", "every 10 steps", "every 1 pass", "every 0.5 passes"] {
            let schedule: Schedule = text.parse().unwrap();
            assert_eq!(String::from(schedule), text);
        }
        assert!("every 3s".parse::<Schedule>().is_err());
        assert!("10 steps".parse::<Schedule>().is_err());
    }

    #[test]
    fn points_do_not_depend_on_where_a_schedule_was_resumed() {
        for schedule in [Schedule::Geometric, Schedule::Steps(7), Schedule::Passes(0.5)] {
            let passes = |step: u64| step as f64 * 0.1;
            let mut next = schedule.after(0, 0.0);
            let mut points = Vec::new();
            for step in 1..500 {
                let reached = next.is_reached(step, passes(step));
                // A cell resumed after any earlier step sees the same points.
                assert_eq!(schedule.after(step - 1, passes(step - 1)).is_reached(step, passes(step)), reached);
                if reached {
                    points.push(step);
                    next = schedule.after(step, passes(step));
                }
            }
            match schedule {
                Schedule::Geometric => assert_eq!(points[..14], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 17, 22, 28]),
                Schedule::Steps(_) => assert_eq!(points[..3], [7, 14, 21]),
                Schedule::Passes(_) => assert_eq!(points[..3], [5, 10, 15]),
            }
        }
    }
}
