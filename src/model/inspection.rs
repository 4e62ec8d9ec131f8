//! What statistics knows about a fit (docs/methods.md).

use serde::Serialize;

/// A fit as statistics sees it. Absent values do not apply to the model or to the point.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Inspection {
    /// The classes' names; none where the target is a real number.
    pub classes: Vec<String>,
    /// Training rows `n`.
    pub rows: usize,
    /// The penalty: `none`, `ridge` or `l1`.
    pub regularizer: &'static str,
    /// Its strength, in the mean convention.
    pub strength: f64,
    /// The largest absolute element of the objective's gradient (with l1: of its smallest subgradient).
    pub gradient_norm: f64,
    /// How far Newton's step would move a coefficient, in standard errors: the largest.
    pub newton_step: f64,
    /// Whether the coefficients are the optimum for all that statistics can see of it.
    pub is_optimum: bool,
    /// Where classes are separable, whether completely; then some coefficients have no finite optimum.
    pub separation: Option<Separability>,
    /// Log-likelihood of all rows, in nats.
    pub log_likelihood: f64,
    /// That of the intercept alone, or without one of all predictors zero.
    pub null_log_likelihood: f64,
    /// `-2` log-likelihoods; for a real target the sum of squared residuals.
    pub deviance: f64,
    /// The same of the intercept alone.
    pub null_deviance: f64,
    /// McFadden's `1 - log-likelihood / null`; for a real target the share of the sum of squares explained.
    pub r_squared: f64,
    /// Leverages added up: the number of free coefficients, or fewer under a ridge.
    pub effective_degrees_of_freedom: f64,
    /// Rows less those.
    pub residual_degrees_of_freedom: f64,
    /// Akaike's criterion, `2 (effective degrees of freedom - log-likelihood)`.
    pub aic: f64,
    /// The Bayesian criterion, with `ln n` in place of the first 2.
    pub bic: f64,
    /// The square root of the residual variance of a real target.
    pub residual_standard_error: Option<f64>,
    /// Mean loss per training row.
    pub loss: f64,
    /// Share of training rows classified rightly.
    pub accuracy: Option<f64>,
    /// Mean loss of rows that were left out: exact for a real target (under l1, while it chooses the same columns), else
    /// one Newton step from it.
    pub left_out_loss: Option<f64>,
    /// Share of rows classified rightly when left out.
    pub left_out_accuracy: Option<f64>,
    /// Sum of squared residuals of rows that were left out (a real target).
    pub press: Option<f64>,
    /// Why there are no figures of rows left out.
    pub not_left_out: Option<String>,
    /// The largest leverage.
    pub largest_leverage: f64,
    /// The row that has it, counted from 0: of the training rows as the model tells it.
    pub largest_leverage_row: usize,
    /// The coefficients, class by class.
    pub coefficients: Vec<Coefficient>,
    /// What each training row has to say.
    #[serde(skip)]
    pub row_statistics: RowStatistics,
}

/// How the classes can be separated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Separability {
    /// By a plane with no row on it.
    Complete,
    /// With some rows on the border.
    Quasi,
}

/// A coefficient.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Coefficient {
    /// The class it belongs to, where there are several predictors.
    pub class: Option<String>,
    /// Its column's name.
    pub name: String,
    /// Its value.
    pub estimate: f64,
    /// Why it has no standard error.
    pub held: Option<Held>,
    /// The standard deviation of its estimate; under a ridge, of the biased estimate.
    pub standard_error: Option<f64>,
    /// Estimate by standard error: `z`, or `t` for a real target. Absent under a penalty, as all that follows.
    pub statistic: Option<f64>,
    /// The probability of a statistic as large on either side, were the coefficient zero.
    pub p: Option<f64>,
    /// The confidence interval.
    pub interval: Option<[f64; 2]>,
}

/// Why a coefficient has no standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Held {
    /// Its column depends linearly on earlier ones.
    Dependent,
    /// The parameterization has one coefficient more than it needs.
    Redundant,
    /// The l1 penalty holds it at zero, or it is one that the penalty has chosen: no classical error is known.
    Penalized,
    /// The likelihood grows for ever along it.
    Separated,
    /// There are not more rows than coefficients.
    Saturated,
}

/// Statistics of the training rows, one after another.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RowStatistics {
    /// Linear predictors of a row: `C`.
    pub outputs: usize,
    /// Targets: class numbers or real values.
    pub targets: Vec<f32>,
    /// Linear predictors, `n x C`.
    pub predictors: Vec<f64>,
    /// Probabilities, `n x K`, or expected values, `n x 1`.
    pub fitted: Vec<f64>,
    /// Leverages; with several predictors of a row they may exceed 1.
    pub leverages: Vec<f64>,
    /// Leave-one-out predictors, `n x C`; empty where they mean nothing.
    pub left_out: Vec<f64>,
}
