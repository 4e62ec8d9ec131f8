//! Line searches along a descent direction `d` from a point with value `f` and slope `s = g'd < 0`.
//!
//! *Strong Wolfe conditions*: `f(t) <= f + c1 t s` and `|f'(t)| <= c2 |s|`, by bracketing and zooming (Nocedal and Wright 2006,
//! algorithms 3.5 and 3.6); trial steps are minimizers of cubics through two values and slopes (their equation 3.59), kept a
//! tenth of the bracket away from its ends where they would not shrink it. *Backtracking*: halving until the first condition
//! holds.
//!
//! Near an optimum the differences of values are rounding while slopes still tell. A value that is above `f` by no more than a
//! share of 1e-8 therefore passes for equal to it, and slopes decide alone: the approximate Wolfe conditions of Hager and
//! Zhang (2005, section 4), with their `epsilon` a hundred times smaller.

use crate::error::Result;
use crate::oracle::{Oracle, Rows, Vector};

/// `c1`, as usual.
const SUFFICIENT: f64 = 1e-4;
/// A share of the value that may be the rounding of its sums.
pub(super) const ROUNDING: f64 = 1e-8;
/// Evaluations of one search.
pub(super) const MOST_EVALUATIONS: u64 = 25;
/// A bracket that is shorter than this share of its end cannot be told from a point.
const SHORTEST_BRACKET: f64 = 1e-10;
/// Each step outwards goes beyond the last by at least this share of their distance, at most to this multiple.
const LEAST_GROWTH: f64 = 0.01;
const MOST_GROWTH: f64 = 10.0;
/// Distance from the bracket's ends, as a share of it, of a trial step that is moved inwards.
const MARGIN: f64 = 0.1;
/// A backtracking search gives up at this step.
pub(super) const SHORTEST_STEP: f64 = 1e-12;

/// The line that is searched.
pub(super) struct Line<'a> {
    pub origin: &'a Vector,
    pub direction: &'a Vector,
    /// Value and slope at the origin.
    pub value: f64,
    pub slope: f64,
}

/// A point that a search chose.
pub(super) struct Found {
    pub step: f64,
    pub value: f64,
    pub gradient: Vector,
}

/// A point of the line.
struct Trial {
    step: f64,
    value: f64,
    slope: f64,
    /// None at the origin.
    gradient: Option<Vector>,
}

impl Trial {
    fn is_finite(&self) -> bool {
        self.value.is_finite() && self.slope.is_finite()
    }
}

impl Line<'_> {
    fn origin(&self) -> Trial {
        Trial { step: 0.0, value: self.value, slope: self.slope, gradient: None }
    }

    fn try_step(&self, oracle: &mut Oracle<'_>, step: f64) -> Result<Trial> {
        let mut at = self.origin.clone();
        at.axpy(step, self.direction);
        let mut gradient = at.zeros_like();
        let value = oracle.value_and_gradient(&at, Rows::All, &mut gradient)?;
        Ok(Trial { step, value, slope: gradient.dot(self.direction), gradient: Some(gradient) })
    }

    fn slack(&self) -> f64 {
        ROUNDING * self.value.abs()
    }

    /// Whether a value is low enough but for rounding.
    fn is_low_enough(&self, trial: &Trial) -> bool {
        let bound = self.value + SUFFICIENT * trial.step * self.slope;
        trial.is_finite() && (trial.value <= bound || trial.value <= self.value + self.slack())
    }

    /// Whether one value is above another by more than rounding.
    fn is_above(&self, trial: &Trial, other: &Trial) -> bool {
        !trial.is_finite() || trial.value > other.value + self.slack()
    }

    /// A step that meets the strong Wolfe conditions with `c2 = curvature`, beginning with the step `first`; the best one
    /// found where evaluations run out, none where nothing was low enough.
    ///
    /// # Errors
    /// [`Error::Diverged`](crate::Error::Diverged) where nothing but numbers that are not finite was met; whatever the
    /// problem reports.
    pub(super) fn strong_wolfe(&self, oracle: &mut Oracle<'_>, first: f64, curvature: f64) -> Result<Option<Found>> {
        let flat = curvature * self.slope.abs();
        let mut before = self.origin();
        let mut now = self.try_step(oracle, first)?;
        let mut evaluations = 1;
        loop {
            if !self.is_low_enough(&now) || (evaluations > 1 && self.is_above(&now, &before)) {
                return self.zoom(oracle, (before, now), flat, evaluations);
            }
            if now.slope.abs() <= flat || evaluations >= MOST_EVALUATIONS {
                return chosen(oracle, now, None);
            }
            if now.slope >= 0.0 {
                return self.zoom(oracle, (now, before), flat, evaluations);
            }
            let bounds = (now.step + LEAST_GROWTH * (now.step - before.step), MOST_GROWTH * now.step);
            let step = self.interpolate(&before, &now, bounds);
            before = std::mem::replace(&mut now, self.try_step(oracle, step)?);
            evaluations += 1;
        }
    }

    /// Shrinks a bracket between `low`, which is low enough and slopes down towards the other end, and `high`.
    fn zoom(
        &self,
        oracle: &mut Oracle<'_>,
        (mut low, mut high): (Trial, Trial),
        flat: f64,
        mut evaluations: u64,
    ) -> Result<Option<Found>> {
        let mut is_slow = false;
        while evaluations < MOST_EVALUATIONS {
            let ends = (low.step.min(high.step), low.step.max(high.step));
            if ends.1 - ends.0 <= SHORTEST_BRACKET * ends.1 {
                break;
            }
            let mut step = self.interpolate(&low, &high, ends);
            let margin = MARGIN * (ends.1 - ends.0);
            let is_near_end = (ends.1 - step).min(step - ends.0) < margin;
            if is_near_end && (is_slow || step >= ends.1 || step <= ends.0) {
                step = if ends.1 - step < step - ends.0 { ends.1 - margin } else { ends.0 + margin };
                is_slow = false;
            } else {
                is_slow = is_near_end;
            }
            let now = self.try_step(oracle, step)?;
            evaluations += 1;
            if !self.is_low_enough(&now) || self.is_above(&now, &low) {
                high = now;
                continue;
            }
            if now.slope.abs() <= flat {
                return chosen(oracle, now, None);
            }
            if now.slope * (high.step - low.step) >= 0.0 {
                high = std::mem::replace(&mut low, now);
            } else {
                low = now;
            }
        }
        chosen(oracle, low, Some(&high))
    }

    /// The minimizer within bounds of the cubic through two values and slopes; where values differ by rounding alone, the zero
    /// of the line through the slopes; where they are no numbers, the middle.
    fn interpolate(&self, a: &Trial, b: &Trial, (least, most): (f64, f64)) -> f64 {
        let middle = 0.5 * (least + most);
        if !a.is_finite() || !b.is_finite() {
            return middle;
        }
        let step = if (a.value - b.value).abs() <= self.slack() {
            a.step - a.slope * (b.step - a.step) / (b.slope - a.slope)
        } else {
            let (a, b) = if a.step <= b.step { (a, b) } else { (b, a) };
            let d1 = a.slope + b.slope - 3.0 * (a.value - b.value) / (a.step - b.step);
            let d2 = (d1 * d1 - a.slope * b.slope).sqrt();
            b.step - (b.step - a.step) * ((b.slope + d2 - d1) / (b.slope - a.slope + 2.0 * d2))
        };
        if step.is_nan() { middle } else { step.clamp(least, most) }
    }

    /// Halves the step, beginning with 1, until the value is low enough; none where it never is.
    ///
    /// # Errors
    /// As of [`Line::strong_wolfe`].
    pub(super) fn backtrack(&self, oracle: &mut Oracle<'_>) -> Result<Option<Found>> {
        let mut step = 1.0;
        loop {
            let now = self.try_step(oracle, step)?;
            // Where values are rounding, slopes must tell that the step is not far too long.
            let is_lower = now.value <= self.value + SUFFICIENT * step * self.slope;
            let is_level = now.slope <= (2.0 * SUFFICIENT - 1.0) * self.slope;
            if self.is_low_enough(&now) && (is_lower || is_level) {
                return chosen(oracle, now, None);
            }
            if step <= SHORTEST_STEP {
                return chosen(oracle, self.origin(), Some(&now));
            }
            step *= 0.5;
        }
    }
}

/// The chosen point, unless that is the origin; `last` is the point that was not low enough.
fn chosen(oracle: &mut Oracle<'_>, at: Trial, last: Option<&Trial>) -> Result<Option<Found>> {
    oracle.note("step_size", at.step);
    let Some(gradient) = at.gradient else {
        if let Some(last) = last {
            oracle.finite("the objective along the search direction", last.value)?;
            oracle.finite("the slope along the search direction", last.slope)?;
        }
        return Ok(None);
    };
    Ok(Some(Found { step: at.step, value: at.value, gradient }))
}
