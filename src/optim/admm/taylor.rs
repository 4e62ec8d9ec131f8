//! Layer-wise ADMM as published: Taylor, Burmeister, Xu, Singh, Patel and Goldstein 2016 (arXiv 1605.02026), algorithm 1.
//!
//! Variables of every row are outputs `z_l` and activations `a_l`; the relaxed objective, with a multiplier on the last
//! outputs alone and penalties without halves, is
//!
//! ```text
//! l(z_L) + <z_L, lambda> + beta |z_L - m_L|^2 + sum_{l<L} gamma |a_l - h(z_l)|^2 + beta |z_l - m_l|^2,   m_l = W_l a_{l-1}
//! ```
//!
//! A sweep, for `l` from the inputs up: `W_l = z_l a_{l-1}^+`, then minima over `a_l` and `z_l`; for the last layer `W_L`, `z_L`
//! and, once the warm start is over, `lambda += beta (z_L - m_L)`. Activations and outputs start from N(0, 1). The first
//! sweep's `a_l` meet the weights above as the problem starts them. With `biases = false`, `ridge = 0`, `gamma = 10`,
//! `beta = 1` it is the paper's text.
//!
//! Every point that satisfies all constraints, with `lambda = -grad l(z_L)`, is a fixed point of the sweep, minimum or not:
//! constraints below the last have no multipliers that could tell.

use super::{read_layer, write_layer};
use crate::device::cpu::linalg;
use crate::error::Result;
use crate::optim::{Optimizer, StateVisitor, Step};
use crate::oracle::{Fit, Layer, LocalStep, LocalVariables, Oracle, Settings, Vector};
use ndarray::{Array2, s};

/// Eigenvalues of a Gram matrix below this share of the largest count as zero: single precision's products tell no more.
const RANK: f64 = 1e-7;

pub(super) struct Taylor {
    beta: f64,
    gamma: f64,
    growth: f64,
    biases: bool,
    ridge: f64,
    warm_start: u64,
    /// The multipliers' step in units of beta.
    multiplier_step: f64,
    absolute: f64,
    relative: f64,
    layers: Vec<Layer>,
    /// Strength of the problem's own ridge.
    problem_ridge: f64,
    sweeps: u64,
    variables: Option<Box<dyn LocalVariables>>,
    /// The first layer's Gram matrix, whose inputs never change.
    input_gram: Option<Array2<f64>>,
}

impl Taylor {
    pub fn new(s: &Settings) -> Self {
        Self {
            beta: s.real("beta"),
            gamma: s.real("gamma"),
            growth: s.real("growth"),
            biases: s.switch("biases"),
            ridge: s.real("ridge"),
            warm_start: s.whole("warm_start") as u64,
            multiplier_step: if s.word("multiplier_step") == "2beta" { 2.0 } else { 1.0 },
            absolute: s.real("absolute_tolerance"),
            relative: s.real("relative_tolerance"),
            layers: Vec::new(),
            problem_ridge: 0.0,
            sweeps: 0,
            variables: None,
            input_gram: None,
        }
    }

    /// `W = z a^+` from the sums of a fit.
    fn fit(
        &self,
        oracle: &mut Oracle<'_>,
        layer: &Layer,
        fit: &Fit,
        gram: &Array2<f64>,
        beta: f64,
    ) -> Result<Array2<f64>> {
        let size = layer.inputs + usize::from(self.biases);
        let mut gram = gram.slice(s![..size, ..size]).to_owned();
        let right = fit.right.slice(s![.., ..size]);
        // The problem's ridge/2 |W|^2 beside beta times the mean of squares.
        let ridge = self.ridge + 0.5 * self.problem_ridge / beta;
        gram.diag_mut().slice_mut(s![..layer.inputs]).mapv_inplace(|v| v + ridge);
        oracle.count_solve((size as f64).powi(3) / 3.0);
        let mut weights = Array2::zeros((layer.outputs, layer.inputs + 1));
        let mut solved = weights.slice_mut(s![.., ..size]);
        if let Some(lower) = linalg::cholesky(&gram).ok().filter(|_| ridge > 0.0) {
            for (mut to, right) in solved.rows_mut().into_iter().zip(right.rows()) {
                to.assign(&linalg::cholesky_solve(&lower, right)?);
            }
        } else {
            let (values, vectors) = linalg::symmetric_eigen(&gram)?;
            let least = RANK * values.last().copied().unwrap_or_default();
            let inverse = values.mapv(|v| if v > least { v.recip() } else { 0.0 });
            solved.assign(&(right.dot(&vectors) * inverse).dot(&vectors.t()));
        }
        Ok(weights)
    }

    fn variables(&mut self) -> &mut dyn LocalVariables {
        &mut **self.variables.as_mut().expect("made by `start`")
    }
}

impl Optimizer for Taylor {
    fn start(&mut self, oracle: &mut Oracle<'_>, _parameters: &Vector) -> Result<()> {
        (self.layers, self.problem_ridge) = oracle.layers()?;
        let mut variables = oracle.local_variables()?;
        variables.draw(oracle.rng());
        self.variables = Some(variables);
        Ok(())
    }

    fn step(&mut self, oracle: &mut Oracle<'_>, parameters: &mut Vector) -> Result<Step> {
        let factor = self.growth.powf(self.sweeps as f64);
        let (beta, gamma) = (self.beta * factor, self.gamma * factor);
        let last = self.layers.len() - 1;
        if self.input_gram.is_none() {
            self.input_gram = Some(oracle.input_gram()?);
        }
        let mut steps = vec![LocalStep::Fit { layer: 0, gram: false }];
        let (mut activation_gap, mut output_gap, mut change, mut active) = (0.0, 0.0, 0.0, 0.0);
        for (l, layer) in self.layers.clone().iter().enumerate() {
            // What was asked for after the layer below, and this layer's sums at the end of it.
            let mut variables = self.variables.take().expect("made by `start`");
            let sums = oracle.visit(&mut *variables, parameters, &steps);
            self.variables = Some(variables);
            let sums = sums?;
            activation_gap += sums.activation_gap;
            output_gap += sums.output_gap;
            change += sums.change;
            active += sums.active;
            let fit = &sums.fits[0];
            oracle.finite("a layer's right-hand side", fit.right.sum())?;
            let gram = fit.gram.as_ref().or(self.input_gram.as_ref()).expect("asked for above the first layer");
            let block = self.fit(oracle, layer, fit, gram, beta)?;
            write_layer(layer, parameters, &block);
            if l < last {
                steps = vec![
                    LocalStep::Activations { layer: l, beta, gamma },
                    LocalStep::Outputs { layer: l, beta, gamma },
                    LocalStep::Fit { layer: l + 1, gram: true },
                ];
            }
        }
        let moves = self.sweeps >= self.warm_start;
        let step = if moves { self.multiplier_step * beta } else { 0.0 };
        let mut variables = self.variables.take().expect("made by `start`");
        let sums = oracle.visit(&mut *variables, parameters, &[LocalStep::Last { beta, step }]);
        self.variables = Some(variables);
        let sums = sums?;
        output_gap += sums.output_gap;
        change += sums.change;
        self.sweeps += 1;

        let primal = oracle.finite("the primal residual", (activation_gap + output_gap).sqrt())?;
        let dual = oracle.finite("the dual residual", 2.0 * beta * change.sqrt())?;
        let squares: f64 = self
            .layers
            .iter()
            .map(|layer| read_layer(layer, parameters).mapv(|w| w * w).slice(s![.., ..layer.inputs]).sum())
            .sum();
        let augmented = sums.loss
            + sums.multiplier_product
            + beta * output_gap
            + gamma * activation_gap
            + 0.5 * self.problem_ridge * squares;
        for (name, value) in [
            ("primal_residual", primal),
            ("dual_residual", dual),
            ("augmented_objective", augmented),
            ("beta", beta),
            ("gamma", gamma),
            ("active_share", active),
        ] {
            oracle.note(name, value);
        }
        let units: usize = self.layers.iter().map(|layer| layer.outputs).sum();
        let limit = (units as f64).sqrt() * (self.absolute + self.relative);
        if primal <= limit && dual <= beta * limit {
            return Ok(Step::Converged(format!("primal residual {primal:.1e}, dual residual {dual:.1e}")));
        }
        Ok(Step::Continue)
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        visitor.count("sweeps", &mut self.sweeps);
        if self.variables.is_some() {
            let mut numbers = self.variables().state();
            visitor.numbers("local", &mut numbers);
            self.variables().restore(&numbers);
        }
        // Formed once and counted once.
        let mut flat: Vec<f64> = self.input_gram.iter().flatten().copied().collect();
        visitor.numbers("input_gram", &mut flat);
        let size = flat.len().isqrt();
        self.input_gram = Array2::from_shape_vec((size, size), flat).ok().filter(|gram| !gram.is_empty());
    }
}
