//! A layer of experts behind a router: what an optimizer may ask of it.
//!
//! With `x` the inputs and a constant one, a router `p = softmax(R x)` sends every row to the expert `i` of its largest
//! probability, whose output is `f = p_i V_i [a; 1]`, `a = max(U_i x, 0)`. With assignment and masks held, each block is a
//! generalized linear model of what it is given: `V_i` a least-squares fit on the design `A = p_i [a; 1]`, `U_i` one in the
//! metric of its outputs, `R` a multinomial logit. What leaves the rows of an expert are sums: Gram matrices, right-hand sides and
//! residuals. Steps, averages, trust regions and acceptance are the optimizer's.

use super::problem::{Answer, Rows};
use super::vector::{Block, Vector};
use crate::device::Matrix;
use crate::error::Result;

/// The blocks of the layer: a router, unless there is one expert, and two matrices of every expert.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpertLayer {
    /// `R`, `experts x (inputs + 1)`.
    pub router: Option<Block>,
    /// The experts.
    pub experts: Vec<Expert>,
}

/// The matrices of an expert.
#[derive(Debug, Clone, PartialEq)]
pub struct Expert {
    /// `U`, `hidden x (inputs + 1)`, the bias in the last column.
    pub input: Block,
    /// `V`, `outputs x (hidden + 1)`, the bias in the last column.
    pub output: Block,
}

/// The local step of every row that the fit of `U` follows; `g = p (V' r) o 1[a > 0]` with the residual `r = y - f`, bias apart.
#[derive(Debug, Clone, Copy)]
pub enum TokenStep<'a> {
    /// `delta = g`: a step of Gauss-Newton, whose metric the optimizer adds.
    Gradient,
    /// `delta = argmin |r - p V (delta o 1[a > 0])|^2 + penalty |delta|^2` by so many steps of conjugate gradients from zero: the
    /// outputs `z = U x + delta` of a splitting whose masks are held.
    Proximal {
        /// The penalty of every expert.
        penalties: &'a [f64],
        /// Steps of conjugate gradients.
        steps: usize,
    },
}

/// What moves the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouterSignal {
    /// Minus the objective's derivative in the logits: through `p`, and through the balance of the load where the objective has it.
    Loss,
    /// `h - p` with the responsibilities `h_j ~ p_j exp(-|y - p_j E_j(x)|^2 / (2 s^2))` of all experts, `s^2` the mean squared
    /// residual of an output over the rows that are worked on together (Jordan and Jacobs 1994): every expert sees every row.
    Responsibilities,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct ExpertQuestion<'a> {
    /// The local step.
    pub step: TokenStep<'a>,
    /// The router's signal.
    pub signal: RouterSignal,
    /// Whether Gram matrices are formed.
    pub with_grams: bool,
}

/// Sums over rows for a step of every block.
#[derive(Debug, Clone)]
pub struct ExpertSums {
    /// The objective over these rows.
    pub value: f64,
    /// `mean signal x'` over all of them, `experts x (inputs + 1)`; none without a router.
    pub router: Option<Matrix>,
    /// Sums over the rows of every expert; none where it has no row.
    pub experts: Vec<Option<ExpertShare>>,
}

/// Sums over the rows of one expert, divided by their number.
#[derive(Debug, Clone)]
pub struct ExpertShare {
    /// Their number.
    pub rows: usize,
    /// `mean |r|^2`.
    pub residual: f64,
    /// `mean delta x'`, `hidden x (inputs + 1)`.
    pub input_right: Matrix,
    /// `mean r A'`, `outputs x (hidden + 1)`.
    pub output_right: Matrix,
    /// Where asked for.
    pub grams: Option<ExpertGrams>,
}

/// Gram matrices of one expert, divided by its number of rows.
#[derive(Debug, Clone)]
pub struct ExpertGrams {
    /// `mean x x'`.
    pub input: Matrix,
    /// `mean A A'`.
    pub output: Matrix,
    /// `mean p^2 m m'` with the mask `m = 1[a > 0]`, `hidden x hidden`.
    pub masks: Matrix,
}

/// A layer of experts.
pub trait ExpertEquations {
    /// Its blocks.
    fn expert_layer(&self) -> ExpertLayer;

    /// Sums over rows at a point.
    ///
    /// # Errors
    /// If the data cannot be read.
    fn expert_sums(&self, at: &Vector, rows: Rows<'_>, question: ExpertQuestion<'_>) -> Result<Answer<ExpertSums>>;
}
