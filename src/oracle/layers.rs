//! A network split layer by layer: what an optimizer may ask of it.
//!
//! With outputs `z_l = W_l a_{l-1} + b_l` and activations `a_l = max(z_l, 0)` as variables of every row, the loss and
//! penalties `beta |z_l - W_l a_{l-1} - b_l|^2`, `gamma |a_l - max(z_l, 0)|^2` fall apart by rows where the blocks
//! `(W_l, b_l)` are held, and into least squares where the rows' variables are. The model owns the rows' variables and takes
//! local steps on them; what leaves a block of rows are sums: Gram matrices, right-hand sides and residuals. The order of
//! steps, penalties, multipliers and stopping are the optimizer's.

use super::problem::{Answer, Offer, Rows};
use super::vector::Vector;
use crate::error::Result;
use ndarray::Array2;
use rand_chacha::ChaCha8Rng;

/// A layer's shape and place: weights, `outputs x inputs`, from `start` on, biases after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// Units below.
    pub inputs: usize,
    /// Units.
    pub outputs: usize,
    /// Its first weight within the parameters.
    pub start: usize,
}

impl Layer {
    /// Number of weights and biases.
    #[must_use]
    pub fn parameters(&self) -> usize {
        (self.inputs + 1) * self.outputs
    }
}

/// How the last layer's right-hand side is formed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Head {
    /// `r = -grad l(s)` at the outputs `s`, and a Gram matrix weighted by the loss's curvature for one logistic output, else by
    /// its bound: iteratively reweighted least squares.
    Reweighted,
    /// `r = z - s` with `z = argmin l(z) + penalty |z - s|^2`, and a plain Gram matrix: least squares.
    LeastSquares {
        /// The penalty.
        penalty: f64,
    },
}

/// What joint steps of some rows add up to, divided by their number.
#[derive(Debug, Clone)]
pub struct JointStep {
    /// Right-hand sides in the parameters' shape: `mean e_l [a_{l-1}; 1]'` with `e_l = z_l - W_l a_{l-1} - b_l` after the
    /// joint step for hidden layers, `mean r [a; 1]'` for those that give outputs.
    pub rights: Vector,
    /// Gram matrices of `[a_{l-1}; 1]` for the layers that are not [on the inputs](LayerSplitting::on_inputs); those that give
    /// outputs as [`Head`] says. Empty unless asked for.
    pub grams: Vec<Array2<f64>>,
    /// Mean loss before the step.
    pub loss: f64,
    /// Mean of `l(s) + penalty/2 sum_l |e_l|^2` after it.
    pub augmented: f64,
    /// Mean of `sum_l |e_l|^2`.
    pub gap: f64,
    /// Share of hidden units that are above zero.
    pub active: f64,
}

/// A local step on the variables of every row. Layers are counted from 0; the last one has outputs alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LocalStep {
    /// `a_l = argmin beta |z_{l+1} - W_{l+1} a - b_{l+1}|^2 + gamma |a - max(z_l, 0)|^2`.
    Activations {
        /// `l`, a hidden layer.
        layer: usize,
        /// Penalty of the layer above.
        beta: f64,
        /// Penalty of this one's activations.
        gamma: f64,
    },
    /// `z_l = argmin gamma |a_l - max(z, 0)|^2 + beta |z - W_l a_{l-1} - b_l|^2`.
    Outputs {
        /// `l`, a hidden layer.
        layer: usize,
        /// Penalty of the outputs.
        beta: f64,
        /// Penalty of the activations.
        gamma: f64,
    },
    /// `z_L = argmin l(z) + <z, lambda> + beta |z - m|^2`, then `lambda += step (z_L - m)`, `m = W_L a_{L-1} + b_L`.
    Last {
        /// Penalty of the outputs.
        beta: f64,
        /// Factor of the multipliers' step.
        step: f64,
    },
    /// Adds up what the fit of a layer needs.
    Fit {
        /// The layer.
        layer: usize,
        /// Whether the Gram matrix is asked for beside the right-hand side.
        gram: bool,
    },
}

/// Sums for the least-squares fit of a layer, divided by the number of rows.
#[derive(Debug, Clone)]
pub struct Fit {
    /// `mean z_l [a_{l-1}; 1]'`, `outputs x (inputs + 1)`.
    pub right: Array2<f64>,
    /// `mean [a_{l-1}; 1][a_{l-1}; 1]'`, where asked for.
    pub gram: Option<Array2<f64>>,
}

/// What local steps add up to, divided by the number of rows; zero where no step of the kind was taken.
#[derive(Debug, Clone, Default)]
pub struct LocalSums {
    /// Fits in the order in which they were asked for.
    pub fits: Vec<Fit>,
    /// `sum_l |a_l - max(z_l, 0)|^2` after steps of outputs.
    pub activation_gap: f64,
    /// `sum_l |z_l - W_l a_{l-1} - b_l|^2` after steps of outputs, the last ones included.
    pub output_gap: f64,
    /// `sum_l |z_l - z_l before|^2`.
    pub change: f64,
    /// The loss at `z_L`.
    pub loss: f64,
    /// `<z_L, lambda>`.
    pub multiplier_product: f64,
    /// Share of hidden outputs that are above zero.
    pub active: f64,
}

/// The variables of all training rows, by row blocks.
pub trait LocalVariables: Send {
    /// Draws activations and outputs from N(0, 1); multipliers become zero.
    fn draw(&mut self, rng: &mut ChaCha8Rng);

    /// Takes steps in the given order, each row block by itself.
    ///
    /// # Errors
    /// If the data cannot be read or a small system cannot be solved.
    fn visit(&mut self, at: &Vector, steps: &[LocalStep]) -> Result<Answer<LocalSums>>;

    /// All numbers: activations of hidden layers, outputs of all layers, multipliers; each unit by unit, row by row.
    fn state(&self) -> Vec<f64>;

    /// Puts numbers back that [`LocalVariables::state`] gave; others in number are left alone.
    fn restore(&mut self, state: &[f64]);
}

/// A network of rectified layers, split.
pub trait LayerSplitting {
    /// The layers from the inputs up: hidden ones, then those that give the outputs.
    fn layers(&self) -> Vec<Layer>;

    /// How many of the first layers are hidden ones on the problem's own inputs and share their Gram matrix. A network has one,
    /// a mixture one of each expert.
    fn on_inputs(&self) -> usize {
        1
    }

    /// How many of the last layers give outputs. A network has one, a mixture one of each expert and its gate.
    fn heads(&self) -> usize {
        1
    }

    /// Whether rows keep variables of their own, as [`LayerSplitting::local_variables`] has them; else why not.
    ///
    /// # Errors
    /// The reason in words.
    fn keeps_variables(&self) -> Offer<()> {
        Ok(())
    }

    /// Strength of the ridge on all weights: half of it times their squares is in the objective.
    fn ridge(&self) -> f64;

    /// `mean [x; 1][x; 1]'` over all rows.
    ///
    /// # Errors
    /// If the data cannot be read.
    fn input_gram(&self) -> Result<Answer<Array2<f64>>>;

    /// For every row, with the units that are above zero in a forward pass held so, the joint minimum over all outputs `z_l`
    /// of `l(s) + penalty/2 sum_l |z_l - W_l a_{l-1} - b_l|^2`; the sums that blocks are fitted with.
    ///
    /// # Errors
    /// If the data cannot be read.
    fn joint_step(
        &self,
        at: &Vector,
        rows: Rows<'_>,
        penalty: f64,
        head: Head,
        with_grams: bool,
    ) -> Result<Answer<JointStep>>;

    /// Variables of all rows, zero at first.
    ///
    /// # Errors
    /// If they would be too large.
    fn local_variables(&self) -> Result<Box<dyn LocalVariables>>;
}
