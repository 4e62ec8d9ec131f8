//! Stochastic gradient descent with momentum, Nesterov's look-ahead, schedules and tail averaging.
//!
//! With a minibatch gradient `g` at step size `a_t`: `v = mu v - a_t g`, then `theta += v`, or with Nesterov's form
//! (Sutskever et al. 2013, section 2) `theta += mu v - a_t g`. Minibatches are drawn without replacement, a new random
//! order each pass. Tail averaging (Ruppert 1988, Polak and Juditsky 1992) reports the mean of the iterates from a
//! stated pass on.

use super::{Optimizer, OptimizerEntry, Promises, Size, StateVisitor, Step};
use crate::error::Result;
use crate::oracle::{Capability, Oracle, Rows, Setting, Settings, Vector};

/// The registered optimizer.
pub const ENTRY: OptimizerEntry = OptimizerEntry {
    name: "sgd",
    summary: "stochastic gradient descent: momentum, Nesterov, schedules, tail averaging",
    paper: "Robbins and Monro 1951; momentum: Polyak 1964; Nesterov's form: Sutskever et al. 2013, section 2",
    needs: &[Capability::Gradient],
    stochastic: true,
    settings: &[
        Setting::real("learning_rate", "0.1", 0.0, f64::INFINITY, "step size at the start").log().search(1e-4, 1.0),
        Setting::whole("batch_size", "256", 1, 1 << 40, "rows per step").log().search(32.0, 1024.0),
        Setting::real("momentum", "0.9", 0.0, 0.999_999, "mu: share of the last step that is kept").search(0.0, 0.99),
        Setting::switch("nesterov", "false", "look ahead along the momentum"),
        Setting::choice(
            "schedule",
            "constant",
            &["constant", "inverse", "cosine"],
            "step size over passes t: constant; inverse: 1/(1 + t/horizon); cosine: to zero at the horizon",
        )
        .search_every(),
        Setting::real("horizon", "20", 1e-9, f64::INFINITY, "passes: the time scale of the schedule").log(),
        Setting::real("warm_up", "0", 0.0, f64::INFINITY, "passes over which the step size rises from zero"),
        Setting::switch("average", "false", "report the mean of the iterates of the tail"),
        Setting::real("average_from", "5", 0.0, f64::INFINITY, "passes after which the tail begins"),
    ],
    build: |s| Ok(Box::new(Sgd::new(s))),
};

struct Sgd {
    learning_rate: f64,
    batch_size: usize,
    momentum: f64,
    nesterov: bool,
    schedule: Schedule,
    average_from: Option<f64>,
    taken: u64,
    averaged: u64,
    velocity: Vec<Vector>,
    gradient: Option<Vector>,
    mean: Vec<Vector>,
}

/// How the step size changes over passes, as a share of that at the start.
pub(super) struct Schedule {
    kind: Kind,
    horizon: f64,
    warm_up: f64,
}

enum Kind {
    Constant,
    Inverse,
    Cosine,
}

impl Schedule {
    /// From the settings `schedule`, `horizon` and, where there is one, `warm_up`.
    pub(super) fn new(s: &Settings, warm_up: f64) -> Self {
        let kind = match s.word("schedule") {
            "inverse" => Kind::Inverse,
            "cosine" => Kind::Cosine,
            _ => Kind::Constant,
        };
        Self { kind, horizon: s.real("horizon"), warm_up }
    }

    /// The share after `passes` passes.
    pub(super) fn at(&self, passes: f64) -> f64 {
        let scheduled = match self.kind {
            Kind::Constant => 1.0,
            Kind::Inverse => 1.0 / (1.0 + passes / self.horizon),
            Kind::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * (passes / self.horizon).min(1.0)).cos()),
        };
        scheduled * if passes < self.warm_up { passes / self.warm_up } else { 1.0 }
    }
}

impl Sgd {
    fn new(s: &Settings) -> Self {
        Self {
            learning_rate: s.real("learning_rate"),
            batch_size: s.whole("batch_size"),
            momentum: s.real("momentum"),
            nesterov: s.switch("nesterov"),
            schedule: Schedule::new(s, s.real("warm_up")),
            average_from: s.switch("average").then(|| s.real("average_from")),
            taken: 0,
            averaged: 0,
            velocity: Vec::new(),
            gradient: None,
            mean: Vec::new(),
        }
    }
}

impl Optimizer for Sgd {
    fn start(&mut self, _oracle: &mut Oracle<'_>, parameters: &Vector) -> Result<()> {
        self.gradient = Some(parameters.zeros_like());
        if self.momentum > 0.0 {
            self.velocity = vec![parameters.zeros_like()];
        }
        if self.average_from.is_some() {
            self.mean = vec![parameters.clone()];
        }
        Ok(())
    }

    fn step(&mut self, oracle: &mut Oracle<'_>, parameters: &mut Vector) -> Result<Step> {
        let size = self.batch_size.min(oracle.rows());
        let batch = oracle.next_batch(size);
        let gradient = self.gradient.get_or_insert_with(|| parameters.zeros_like());
        let loss = oracle.value_and_gradient(parameters, Rows::Batch(&batch), gradient)?;
        oracle.finite("the minibatch objective", loss)?;
        // The warm-up's first step is one batch into the pass, not zero.
        let passes = (self.taken + 1) as f64 * size as f64 / oracle.rows() as f64;
        let step_size = self.learning_rate * self.schedule.at(passes);
        let gradient = self.gradient.as_ref().expect("allocated above");
        if let Some(velocity) = self.velocity.first_mut() {
            velocity.axpby(self.momentum, -step_size, gradient);
            if self.nesterov {
                parameters.axpy(self.momentum, velocity);
                parameters.axpy(-step_size, gradient);
            } else {
                parameters.axpy(1.0, velocity);
            }
        } else {
            parameters.axpy(-step_size, gradient);
        }
        self.taken += 1;
        if let (Some(from), Some(mean)) = (self.average_from, self.mean.first_mut()) {
            if passes >= from {
                self.averaged += 1;
                let share = 1.0 / self.averaged as f64;
                mean.axpby(1.0 - share, share, parameters);
            } else {
                mean.copy_from(parameters);
            }
        }
        oracle.note("step_size", step_size);
        oracle.note("batch_objective", loss);
        Ok(Step::Continue)
    }

    fn reported<'a>(&'a self, parameters: &'a Vector) -> &'a Vector {
        self.mean.first().unwrap_or(parameters)
    }

    fn promises(&self, size: &Size<'_>) -> Promises {
        // With a constant step size it ends in the noise of its minibatches.
        Promises { convex_gap: 1e-2, step_gradients: Some(self.batch_size.min(size.rows) as f64 / size.rows as f64) }
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        visitor.count("taken", &mut self.taken);
        visitor.count("averaged", &mut self.averaged);
        visitor.vectors("velocity", &mut self.velocity);
        visitor.vectors("mean", &mut self.mean);
    }
}
