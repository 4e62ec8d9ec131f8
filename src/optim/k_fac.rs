//! K-FAC: natural-gradient steps with a Fisher matrix that is a Kronecker product in every layer.
//!
//! Martens and Grosse 2015. With a layer's factors `A = E[x x']` and `G = E[d d']` (running averages over minibatches) and the
//! gradient `V` of its `[W b]`, the proposal is
//!
//! `D = -(G + gamma/pi I)^-1 V (A + pi gamma I)^-1`,  `pi = sqrt((tr A / dim A) / (tr G / dim G))`
//!
//! (factored Tikhonov damping, section 6.3). The step is `alpha D + mu D0` with the step `D0` before: `alpha` and `mu` minimize
//! the quadratic model `M = d'(F + (lambda + ridge) I)d/2 + g'd` with the exact Fisher matrix (sections 6.4 and 7), which is the
//! Gauss-Newton matrix here. Further:
//! - averages keep `min(1 - 1/k, 0.95)` of themselves at step `k` (section 5); targets are drawn from the model, or with
//!   `fisher = "data"` are the data's;
//! - every `T1 = 5` steps `lambda` is multiplied by `(19/20)^T1` where the objective of the minibatch fell by more than 3/4 of
//!   what `M` foretold, and divided by it below 1/4 (section 6.5);
//! - every `T2 = 20` steps `gamma`, at first `sqrt(lambda + ridge)`, is tried beside `(19/20)^(T2/2)` times more and less, and
//!   the one of the smallest `M` is kept (section 6.6);
//! - inverses are renewed in the first three steps, every `T3 = 20` steps (section 8), and with `gamma`;
//! - the minibatch may grow to all rows, `m_k = min(m_1 exp((k - 1)/b), n)` (section 13), and the reported point may be the
//!   running average of the iterates, of which `min(1 - 1/k, xi)` is kept.
//!
//! Without the exact Fisher matrix (`rescaling = "none"`) the step is `learning_rate D`; the paper's figure 7 shows, and a test
//! here, that it is then far too long unless the damping is large.

use super::{Optimizer, OptimizerEntry, Promises, Size, StateVisitor, Step};
use crate::device::Matrix;
use crate::error::{Error, Result};
use crate::oracle::{Batch, Block, Capability, FactoredLayer, Oracle, Rows, Setting, Settings, Vector};

/// The registered optimizer.
pub const ENTRY: OptimizerEntry = OptimizerEntry {
    name: "k-fac",
    summary: "natural-gradient steps with Kronecker factors of every layer, rescaled by the exact Fisher matrix",
    paper: "Martens and Grosse 2015",
    needs: &[Capability::Value, Capability::Gradient, Capability::CurvatureProduct, Capability::KroneckerFactors],
    stochastic: true,
    settings: &[
        Setting::whole("batch_size", "1000", 1, 1 << 40, "rows per step, in the first step")
            .log()
            .search(256.0, 4096.0),
        Setting::whole("growth", "0", 0, 1 << 40, "steps in which the minibatch grows to all rows; 0: it does not"),
        Setting::real("damping", "150", 0.0, f64::INFINITY, "lambda at the start").log().search(1e-2, 1e3),
        Setting::choice(
            "damping_rule",
            "levenberg-marquardt",
            &["levenberg-marquardt", "constant"],
            "adapt lambda by the reduction ratio and gamma by the model, or keep both",
        ),
        Setting::choice(
            "fisher",
            "model",
            &["model", "data"],
            "targets of the factors: drawn from the model, or given",
        ),
        Setting::choice(
            "rescaling",
            "momentum",
            &["momentum", "alone", "none"],
            "by the exact Fisher matrix: proposal and last step, the proposal alone, or learning_rate instead",
        ),
        Setting::real("learning_rate", "1", 0.0, f64::INFINITY, "step size where nothing is rescaled").log(),
        Setting::real("memory", "0.95", 0.0, 0.999_999, "share of the factors that is kept, once there are many"),
        Setting::whole("refresh", "20", 1, 1 << 20, "T3: steps from one inversion of the factors to the next").log(),
        Setting::whole("damping_interval", "5", 1, 1 << 20, "T1: steps from one change of lambda to the next"),
        Setting::whole("factor_interval", "20", 1, 1 << 20, "T2: steps from one change of gamma to the next"),
        Setting::real("factor_share", "0.125", 1e-6, 1.0, "share of the minibatch that the factors are taken on"),
        Setting::real("product_share", "0.25", 1e-6, 1.0, "share of the minibatch for products with the Fisher matrix"),
        Setting::real("average", "0", 0.0, 0.999_999, "xi: share of the reported average that is kept; 0: no average"),
    ],
    build: |s| Ok(Box::new(KFac::new(s))),
};

/// A change of lambda or gamma, for one step.
const CHANGE: f64 = 19.0 / 20.0;
/// In so many first steps the inverses are renewed each time.
const FIRST_STEPS: u64 = 3;
/// Proposal and last step are one direction where their curvatures' determinant is smaller than this share.
const LEAST_DETERMINANT: f64 = 1e-6;
/// Lambda falls no further: beside single-precision curvature it is nothing.
const LEAST_DAMPING: f64 = 1e-12;

#[derive(Clone, Copy, PartialEq)]
enum Rescaling {
    Momentum,
    Alone,
    None,
}

/// A layer and where its two factors lie among those of all.
struct Layer {
    blocks: FactoredLayer,
    inputs: Block,
    outputs: Block,
}

struct KFac {
    batch_size: usize,
    growth: u64,
    damping: f64,
    adaptive: bool,
    drawn: bool,
    rescaling: Rescaling,
    learning_rate: f64,
    memory: f64,
    refresh: u64,
    damping_interval: u64,
    factor_interval: u64,
    factor_share: f64,
    product_share: f64,
    average: f64,
    taken: u64,
    /// Damping of the factors; 0 before the first step.
    gamma: f64,
    layers: Vec<Layer>,
    factors: Option<Vector>,
    inverses: Option<Vector>,
    last: Option<Vector>,
    mean: Vec<Vector>,
}

/// A step that might be taken.
struct Candidate {
    gamma: f64,
    inverses: Option<Vector>,
    step: Vector,
    /// `M` at the step; less than zero.
    model: f64,
}

impl KFac {
    fn new(s: &Settings) -> Self {
        Self {
            batch_size: s.whole("batch_size"),
            growth: s.whole("growth") as u64,
            damping: s.real("damping"),
            adaptive: s.word("damping_rule") == "levenberg-marquardt",
            drawn: s.word("fisher") == "model",
            rescaling: match s.word("rescaling") {
                "alone" => Rescaling::Alone,
                "none" => Rescaling::None,
                _ => Rescaling::Momentum,
            },
            learning_rate: s.real("learning_rate"),
            memory: s.real("memory"),
            refresh: s.whole("refresh") as u64,
            damping_interval: s.whole("damping_interval") as u64,
            factor_interval: s.whole("factor_interval") as u64,
            factor_share: s.real("factor_share"),
            product_share: s.real("product_share"),
            average: s.real("average"),
            taken: 0,
            gamma: 0.0,
            layers: Vec::new(),
            factors: None,
            inverses: None,
            last: None,
            mean: Vec::new(),
        }
    }

    /// Rows of the next minibatch.
    fn rows(&self, all: usize) -> usize {
        let first = self.batch_size.min(all) as f64;
        let grown = match self.growth {
            0 => first,
            growth => first * (all as f64 / first).powf((self.taken - 1) as f64 / growth as f64),
        };
        (grown.round() as usize).clamp(1, all.max(1))
    }

    /// Takes the factors of a minibatch into the averages.
    fn accumulate(&mut self, oracle: &mut Oracle<'_>, at: &Vector, batch: &Batch) -> Result<()> {
        let pairs = oracle.kronecker_factors(at, Rows::Batch(batch), self.drawn)?;
        let kept = (1.0 - 1.0 / self.taken as f64).min(self.memory);
        let factors = self.factors.as_mut().expect("laid out at the start");
        for (layer, pair) in self.layers.iter().zip(&pairs) {
            factors.mix_matrix(&layer.inputs, kept, 1.0 - kept, &pair.inputs);
            factors.mix_matrix(&layer.outputs, kept, 1.0 - kept, &pair.outputs);
        }
        Ok(())
    }

    /// The inverses of all damped factors.
    fn invert(&self, oracle: &mut Oracle<'_>, gamma: f64) -> Result<Vector> {
        let factors = self.factors.as_ref().expect("laid out at the start");
        let step = oracle.step();
        let damped = |layer: &Layer| -> [(Matrix, f64); 2] {
            let (a, g) = (factors.matrix(&layer.inputs), factors.matrix(&layer.outputs));
            let share = (a.trace() / a.rows() as f64) / (g.trace() / g.rows() as f64);
            let pi = if share.is_finite() && share > 0.0 { share.sqrt() } else { 1.0 };
            [(a, pi * gamma), (g, gamma / pi)]
        };
        let damped: Vec<(Matrix, f64)> = self.layers.iter().flat_map(damped).collect();
        let of: Vec<(&Matrix, f64)> = damped.iter().map(|(matrix, ridge)| (matrix, *ridge)).collect();
        // Second moments are not negative: only activations without bound leave them so.
        let lost = |error| match error {
            Error::Numeric(_) => {
                Error::Diverged { step, quantity: "the inverse of a damped factor".into(), value: f64::NAN }
            }
            error => error,
        };
        let found = Matrix::inverses(&of).map_err(lost)?;
        let mut inverses = factors.zeros_like();
        for (layer, pair) in self.layers.iter().zip(found.chunks_exact(2)) {
            inverses.set_matrix(&layer.inputs, &pair[0]);
            inverses.set_matrix(&layer.outputs, &pair[1]);
            oracle.count_solve((layer.inputs.rows as f64).powi(3) + (layer.outputs.rows as f64).powi(3));
        }
        Ok(inverses)
    }

    /// `-(G + ..)^-1 V (A + ..)^-1` for every layer.
    fn proposal(&self, oracle: &mut Oracle<'_>, gradient: &Vector, inverses: &Vector) -> Vector {
        let mut proposal = gradient.zeros_like();
        for Layer { blocks, inputs, outputs } in &self.layers {
            let (n, m) = (inputs.rows, outputs.rows);
            let bias = gradient.matrix(&blocks.bias).reshaped(m, 1);
            let v = gradient.matrix(&blocks.weight).beside(&bias);
            let d = inverses.matrix(outputs).times(false, &v, false).times(false, &inverses.matrix(inputs), false);
            proposal.mix_matrix(&blocks.weight, 0.0, -1.0, &d.part(0..n - 1));
            proposal.mix_matrix(&blocks.bias, 0.0, -1.0, &d.part(n - 1..n).reshaped(1, m));
            oracle.count_flops(2.0 * (m * n) as f64 * (m + n) as f64);
        }
        proposal
    }

    /// The gammas that are tried in this step.
    fn gammas(&self) -> Vec<f64> {
        if self.adaptive && self.rescaling != Rescaling::None && self.taken.is_multiple_of(self.factor_interval) {
            let change = CHANGE.powf(self.factor_interval as f64 / 2.0);
            vec![self.gamma, change * self.gamma, self.gamma / change]
        } else {
            vec![self.gamma]
        }
    }

    /// The step of the smallest `M`, and the inverses and the gamma that it comes from.
    fn best(&mut self, oracle: &mut Oracle<'_>, at: &Vector, gradient: &Vector, batch: &Batch) -> Result<Candidate> {
        let gammas = self.gammas();
        let is_due = self.taken <= FIRST_STEPS || self.taken.is_multiple_of(self.refresh) || gammas.len() > 1;
        let last = self.last.as_ref().expect("allocated at the start");
        let mut products = None;
        if self.rescaling != Rescaling::None {
            let matrix = oracle.curvature(at, Rows::Batch(batch))?;
            let mut of_last = None;
            if self.rescaling == Rescaling::Momentum && self.taken > 1 {
                let mut product = at.zeros_like();
                oracle.multiply(&*matrix, last, &mut product)?;
                of_last = Some(product);
            }
            products = Some((matrix, of_last));
        }
        let mut best: Option<Candidate> = None;
        for gamma in gammas {
            let inverses = if is_due { Some(self.invert(oracle, gamma)?) } else { None };
            let used = inverses.as_ref().or(self.inverses.as_ref());
            let used = used.ok_or_else(|| Error::Numeric("no factors were inverted".into()))?;
            let mut step = self.proposal(oracle, gradient, used);
            let model = match &products {
                None => {
                    step.scale(self.learning_rate);
                    gradient.dot(&step)
                }
                Some((matrix, of_last)) => {
                    let mut product = at.zeros_like();
                    oracle.multiply(&**matrix, &step, &mut product)?;
                    let of_last = of_last.as_ref().map(|product| (last, product));
                    let [alpha, mu, model] = rescaled(gradient, (&step, &product), of_last, self.damping);
                    oracle.note("step_size", alpha);
                    oracle.note("momentum", mu);
                    step.scale(alpha);
                    step.axpy(mu, last);
                    oracle.finite("the quadratic model", model)?
                }
            };
            if best.as_ref().is_none_or(|best| model < best.model) {
                best = Some(Candidate { gamma, inverses, step, model });
            }
        }
        best.ok_or_else(|| Error::Numeric("no step was proposed".into()))
    }

    /// Adapts lambda by the ratio of the objective's fall on the minibatch to the one foretold.
    fn adapt(&mut self, oracle: &mut Oracle<'_>, at: &Vector, batch: &Batch, before: f64, model: f64) -> Result<()> {
        let after = oracle.value(at, Rows::Batch(batch))?;
        let ratio = (after - before) / model;
        let change = CHANGE.powf(self.damping_interval as f64);
        if ratio.is_nan() || ratio < 0.25 {
            self.damping /= change;
        } else if ratio > 0.75 {
            self.damping = (self.damping * change).max(LEAST_DAMPING);
        }
        oracle.note("reduction_ratio", ratio);
        Ok(())
    }
}

/// `alpha`, `mu` and the smallest `M` over `alpha D + mu D0`, from `D` and `D0` each with its product with `F`; without a last
/// step, or beside one of the same direction, `mu` is zero.
fn rescaled(
    gradient: &Vector,
    (step, product): (&Vector, &Vector),
    last: Option<(&Vector, &Vector)>,
    damping: f64,
) -> [f64; 3] {
    let curvature = step.dot(product) + damping * step.dot(step);
    let slope = gradient.dot(step);
    let alone = -slope / curvature;
    if let Some((last, of_last)) = last {
        let across = last.dot(product) + damping * last.dot(step);
        let of_last = last.dot(of_last) + damping * last.dot(last);
        let slope_of_last = gradient.dot(last);
        let determinant = curvature * of_last - across * across;
        if determinant > LEAST_DETERMINANT * curvature * of_last {
            let alpha = (across * slope_of_last - of_last * slope) / determinant;
            let mu = (across * slope - curvature * slope_of_last) / determinant;
            return [alpha, mu, 0.5 * (alpha * slope + mu * slope_of_last)];
        }
    }
    [alone, 0.0, 0.5 * alone * slope]
}

/// The first rows of a minibatch, which come in random order: a share of them.
fn share_of(batch: &Batch, share: f64) -> Batch {
    let rows = ((batch.len() as f64 * share).ceil() as usize).clamp(1, batch.len());
    Batch::new(batch.rows()[..rows].to_vec())
}

impl Optimizer for KFac {
    fn start(&mut self, oracle: &mut Oracle<'_>, parameters: &Vector) -> Result<()> {
        let (layers, ridge) = oracle.factored_layers()?;
        let shapes: Vec<(String, usize)> = layers
            .iter()
            .flat_map(|layer| {
                let FactoredLayer { weight, .. } = layer;
                [("inputs", weight.columns + 1), ("outputs", weight.rows)]
                    .map(|(side, size)| (format!("{}.{side}", weight.name), size))
            })
            .collect();
        let layout = parameters.layout().beside(shapes.iter().map(|(name, size)| (name.as_str(), *size, *size)));
        let pairs = layout.blocks().chunks_exact(2);
        self.layers = layers
            .into_iter()
            .zip(pairs)
            .map(|(blocks, pair)| Layer { blocks, inputs: pair[0].clone(), outputs: pair[1].clone() })
            .collect();
        self.gamma = (self.damping + ridge).sqrt();
        self.factors = Some(Vector::zeros(&layout));
        self.inverses = Some(Vector::zeros(&layout));
        self.last = Some(parameters.zeros_like());
        if self.average > 0.0 {
            self.mean = vec![parameters.clone()];
        }
        Ok(())
    }

    fn step(&mut self, oracle: &mut Oracle<'_>, parameters: &mut Vector) -> Result<Step> {
        self.taken += 1;
        let batch = oracle.next_batch(self.rows(oracle.rows()));
        let mut gradient = parameters.zeros_like();
        let before = oracle.value_and_gradient(parameters, Rows::Batch(&batch), &mut gradient)?;
        oracle.finite("the minibatch objective", before)?;
        oracle.finite("the minibatch gradient", gradient.norm_max())?;
        self.accumulate(oracle, parameters, &share_of(&batch, self.factor_share))?;
        let part = share_of(&batch, self.product_share);
        let Candidate { gamma, inverses, step, model } = self.best(oracle, parameters, &gradient, &part)?;
        self.gamma = gamma;
        self.inverses = inverses.or(self.inverses.take());
        parameters.axpy(1.0, &step);
        self.last = Some(step);
        if self.adaptive && self.rescaling != Rescaling::None && self.taken.is_multiple_of(self.damping_interval) {
            self.adapt(oracle, parameters, &batch, before, model)?;
        }
        if let Some(mean) = self.mean.first_mut() {
            let kept = (1.0 - 1.0 / self.taken as f64).min(self.average);
            mean.axpby(kept, 1.0 - kept, parameters);
        }
        oracle.note("damping", self.damping);
        oracle.note("factor_damping", self.gamma);
        oracle.note("batch_objective", before);
        Ok(Step::Continue)
    }

    fn reported<'a>(&'a self, parameters: &'a Vector) -> &'a Vector {
        self.mean.first().unwrap_or(parameters)
    }

    fn promises(&self, size: &Size<'_>) -> Promises {
        // On the minibatch: gradient, factors (a forward and two backward passes of a part), the point of the products and up to
        // four of them, and a value; beside that three inversions and proposals, which no rows enter.
        let share = if self.growth > 0 { 1.0 } else { self.batch_size.min(size.rows) as f64 / size.rows as f64 };
        let own = |block: &Block| {
            let (n, m) = (block.columns as f64 + 1.0, block.rows as f64);
            n.powi(3) + m.powi(3) + 2.0 * m * n * (m + n)
        };
        let own: f64 = size.layout.blocks().iter().map(own).sum();
        Promises { convex_gap: 1e-2, step_gradients: Some(14.0 * share + 3.0 * own / size.gradient_flops) }
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        visitor.count("taken", &mut self.taken);
        visitor.number("damping", &mut self.damping);
        visitor.number("gamma", &mut self.gamma);
        let parts = [("factors", &mut self.factors), ("inverses", &mut self.inverses), ("last", &mut self.last)];
        for (name, part) in parts {
            if let Some(part) = part {
                visitor.vector(name, part);
            }
        }
        visitor.vectors("mean", &mut self.mean);
    }
}
