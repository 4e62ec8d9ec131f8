//! Iteratively reweighted least squares on a network's last layer, gradient steps with momentum below it.
//!
//! While the layers below are held, the last one is a generalized linear model of what they make of the rows. A step draws
//! a minibatch and takes both: above `w -= e (H + delta I)^-1 g` with a running average `H` of the minibatches' information
//! (a damped Fisher-scoring step), below `v = mu v - a g`, `theta += v`. The small share `e` is a trust region: what lies
//! below moves on, so the last layer is never solved for its own sake.

use super::BoundFactors;
use crate::error::{Error, Result};
use crate::optim::stochastic::Schedule;
use crate::optim::{Optimizer, OptimizerEntry, StateVisitor, Step};
use crate::oracle::{Capability, HeadSystem, Oracle, Rows, Setting, Settings, Vector};
use ndarray::Array2;

/// The registered optimizer.
pub const ENTRY: OptimizerEntry = OptimizerEntry {
    name: "irls-gradient",
    summary: "Fisher scoring on the last layer of a network, gradient steps with momentum below",
    paper: "McCullagh and Nelder 1989, section 2.5, on the last layer; below: Polyak 1964",
    needs: &[Capability::HeadEquations],
    stochastic: true,
    settings: &[
        Setting::whole("batch_size", "1024", 1, 1 << 40, "rows per step").log().search(128.0, 4096.0),
        Setting::real("head_step", "0.1", 0.0, 1.0, "e: share of the Fisher-scoring step that is taken")
            .log()
            .search(0.01, 1.0),
        Setting::real("head_damping", "1e-3", 0.0, f64::INFINITY, "delta, beside the mean information").log(),
        Setting::real("head_memory", "0.9", 0.0, 0.999_999, "share of the information that is kept from step to step"),
        Setting::whole("refresh", "5", 1, 1 << 20, "steps between two factorizations of the information"),
        Setting::real("learning_rate", "0.1", 0.0, f64::INFINITY, "step size below, at the start")
            .log()
            .search(1e-3, 1.0),
        Setting::real("momentum", "0.9", 0.0, 0.999_999, "mu: share of the last step below that is kept"),
        Setting::choice(
            "schedule",
            "constant",
            &["constant", "inverse", "cosine"],
            "both steps over passes t: constant; inverse: 1/(1 + t/horizon); cosine: to zero at the horizon",
        ),
        Setting::real("horizon", "20", 1e-9, f64::INFINITY, "passes: the time scale of the schedule").log(),
    ],
    build: |s| Ok(Box::new(Hybrid::new(s))),
};

struct Hybrid {
    batch_size: usize,
    head_step: f64,
    damping: f64,
    memory: f64,
    refresh: u64,
    learning_rate: f64,
    momentum: f64,
    schedule: Schedule,
    taken: u64,
    velocity: Vec<Vector>,
    /// The running average of the weighted Gram matrix, row by row; empty before the first step.
    right: Vec<f64>,
    /// The matrices of the last factorization, as [`BoundFactors::new`] takes them.
    factorized: Vec<f64>,
    factors: Option<BoundFactors>,
}

impl Hybrid {
    fn new(s: &Settings) -> Self {
        Self {
            batch_size: s.whole("batch_size"),
            head_step: s.real("head_step"),
            damping: s.real("head_damping"),
            memory: s.real("head_memory"),
            refresh: s.whole("refresh") as u64,
            learning_rate: s.real("learning_rate"),
            momentum: s.real("momentum"),
            schedule: Schedule::new(s, 0.0),
            taken: 0,
            velocity: Vec::new(),
            right: Vec::new(),
            factorized: Vec::new(),
            factors: None,
        }
    }

    /// Takes a minibatch's information into the average, and factorizes that when it is due.
    fn renew(&mut self, oracle: &mut Oracle<'_>, system: &HeadSystem) -> Result<()> {
        if self.right.is_empty() {
            self.right = system.right.iter().copied().collect();
        }
        for (kept, new) in self.right.iter_mut().zip(&system.right) {
            *kept = self.memory * *kept + (1.0 - self.memory) * new;
        }
        if self.taken.is_multiple_of(self.refresh) {
            let (outputs, size) = (system.left.nrows(), system.right.nrows());
            let mut ridge = vec![self.damping + system.ridge; size];
            ridge[size - 1] = self.damping;
            self.factorized = vec![outputs as f64, size as f64];
            self.factorized.extend(system.left.iter().chain(&self.right).chain(&ridge));
            self.factors = None;
            oracle.count_solve((size as f64).powi(3) / 3.0);
        }
        if self.factors.is_none() {
            self.factors = Some(BoundFactors::new(&self.factorized)?);
        }
        Ok(())
    }

    /// Moves the last layer along `-H^-1 g` and takes its part out of the gradient.
    fn head_step(&self, system: &mut HeadSystem, share: f64, parameters: &mut Vector) -> Result<()> {
        let (outputs, size) = (system.left.nrows(), system.right.nrows());
        let weights = outputs * (size - 1);
        let place = |output: usize, input: usize| {
            if input + 1 < size { output * (size - 1) + input } else { weights + output }
        };
        let flat = system.gradient.read(system.head.clone());
        let gradient = Array2::from_shape_fn((outputs, size), |(output, input)| flat[place(output, input)]);
        let factors = self.factors.as_ref().ok_or_else(|| Error::Numeric("no information was factorized".into()))?;
        let direction = factors.solve_matrix(&gradient)?;
        let mut head = parameters.read(system.head.clone());
        for ((output, input), d) in direction.indexed_iter() {
            head[place(output, input)] -= share * d;
        }
        parameters.write(system.head.start, &head);
        system.gradient.write(system.head.start, &vec![0.0; head.len()]);
        Ok(())
    }
}

impl Optimizer for Hybrid {
    fn start(&mut self, _oracle: &mut Oracle<'_>, parameters: &Vector) -> Result<()> {
        self.velocity = vec![parameters.zeros_like()];
        Ok(())
    }

    fn step(&mut self, oracle: &mut Oracle<'_>, parameters: &mut Vector) -> Result<Step> {
        let size = self.batch_size.min(oracle.rows());
        let batch = oracle.next_batch(size);
        let mut system = oracle.head_system(parameters, Rows::Batch(&batch))?;
        oracle.finite("the minibatch objective", system.value)?;
        oracle.finite("the last layer's information", system.right.sum())?;
        self.renew(oracle, &system)?;
        let share = self.schedule.at((self.taken + 1) as f64 * size as f64 / oracle.rows() as f64);
        self.head_step(&mut system, self.head_step * share, parameters)?;
        if let Some(velocity) = self.velocity.first_mut() {
            velocity.axpby(self.momentum, -self.learning_rate * share, &system.gradient);
            parameters.axpy(1.0, velocity);
        }
        self.taken += 1;
        oracle.note("step_size", self.learning_rate * share);
        oracle.note("batch_objective", system.value);
        Ok(Step::Continue)
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        visitor.count("taken", &mut self.taken);
        visitor.vectors("velocity", &mut self.velocity);
        visitor.numbers("right", &mut self.right);
        visitor.numbers("factorized", &mut self.factorized);
    }
}
