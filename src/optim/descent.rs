//! Where a descent on all rows stands: value and gradient at the parameters, and whether there is more to do.

use super::line_search::{Found, ROUNDING};
use super::{StateVisitor, Step};
use crate::error::Result;
use crate::oracle::{Oracle, Rows, Setting, Settings, Vector};

/// When a descent has converged.
pub(super) const TOLERANCE: Setting =
    Setting::real("tolerance", "1e-7", 0.0, 1.0, "converged when the gradient's largest element is below this").log();

/// So many steps in a row without a lower value or a smaller gradient are rounding.
const MOST_STALLED: u64 = 50;

/// Value and gradient at the parameters, kept from step to step.
pub(super) struct Descent {
    tolerance: f64,
    value: f64,
    /// None before the first step.
    gradient: Vec<Vector>,
    /// The smallest gradient so far, by its largest element, and steps since then that lowered nothing.
    smallest: f64,
    stalled: u64,
}

impl Descent {
    /// From the setting `tolerance`.
    pub(super) fn new(s: &Settings) -> Self {
        let tolerance = s.real("tolerance");
        Self { tolerance, value: f64::NAN, gradient: Vec::new(), smallest: f64::INFINITY, stalled: 0 }
    }

    /// Evaluates where the first step begins; how the descent ended, if it ends there.
    ///
    /// # Errors
    /// [`Error::Diverged`](crate::Error::Diverged) where value or gradient are not finite; whatever the problem reports.
    pub(super) fn begin(&mut self, oracle: &mut Oracle<'_>, parameters: &Vector) -> Result<Step> {
        if !self.gradient.is_empty() {
            return Ok(Step::Continue);
        }
        let mut gradient = parameters.zeros_like();
        self.value = oracle.value_and_gradient(parameters, Rows::All, &mut gradient)?;
        oracle.finite("the objective", self.value)?;
        self.gradient = vec![gradient];
        self.judge(oracle)
    }

    /// The value at the parameters.
    pub(super) fn value(&self) -> f64 {
        self.value
    }

    /// The gradient at the parameters.
    ///
    /// # Panics
    /// Before [`Descent::begin`].
    pub(super) fn gradient(&self) -> &Vector {
        self.gradient.first().expect("a descent has begun before it goes on")
    }

    /// Moves the parameters to a point that a line search found along `direction`; the gradient that was left, and whether
    /// there is more to do.
    ///
    /// # Errors
    /// [`Error::Diverged`](crate::Error::Diverged) where the gradient is not finite.
    pub(super) fn advance(
        &mut self,
        oracle: &mut Oracle<'_>,
        parameters: &mut Vector,
        direction: &Vector,
        found: Found,
    ) -> Result<(Vector, Step)> {
        parameters.axpy(found.step, direction);
        if self.value - found.value > ROUNDING * self.value.abs() {
            self.stalled = 0;
        }
        self.value = found.value;
        let left = std::mem::replace(&mut self.gradient[0], found.gradient);
        Ok((left, self.judge(oracle)?))
    }

    fn judge(&mut self, oracle: &mut Oracle<'_>) -> Result<Step> {
        let largest = oracle.finite("the gradient", self.gradient().norm_max())?;
        oracle.note("gradient_norm", largest);
        if largest <= self.tolerance {
            return Ok(Step::Converged(format!("gradient {largest:.1e}")));
        }
        self.stalled = if largest < self.smallest { 0 } else { self.stalled + 1 };
        self.smallest = self.smallest.min(largest);
        Ok(match self.stalled {
            MOST_STALLED.. => Step::Stopped(format!(
                "{MOST_STALLED} steps lowered neither the value nor the gradient beyond rounding"
            )),
            _ => Step::Continue,
        })
    }

    /// Shows value and gradient.
    pub(super) fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        visitor.number("value", &mut self.value);
        visitor.vectors("gradient", &mut self.gradient);
        visitor.number("smallest_gradient", &mut self.smallest);
        visitor.count("stalled", &mut self.stalled);
    }
}

/// How a descent ends whose search found no lower point.
pub(super) fn no_lower_point() -> Step {
    Step::Stopped("no lower point along the search direction: what is left to gain is rounding".into())
}
