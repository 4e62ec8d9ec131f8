//! AdamW: steps scaled by running moments of minibatch gradients, with decoupled weight decay.
//!
//! With a minibatch gradient `g` at step `t` and step size `a_t` (Kingma and Ba 2015, algorithm 1; Loshchilov and Hutter
//! 2019, algorithm 2):
//!
//! `m = b1 m + (1 - b1) g`, `v = b2 v + (1 - b2) g^2`,
//! `theta = (1 - a_t decay) theta - a_t (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon)`.
//!
//! The decay acts on every parameter, intercepts and biases included, and is not part of the objective: its default is zero
//! here, where a penalty belongs to the model. `Moments` is the update itself, also for those optimizers that treat some
//! blocks in another way.

use super::stochastic::{
    AVERAGE, AVERAGE_FROM, BATCH_SIZE, HORIZON, Minibatches, Pace, SCHEDULE, Schedule, TailAverage, WARM_UP,
};
use super::{Optimizer, OptimizerEntry, Promises, Size, StateVisitor, Step};
use crate::device::AdamStep;
use crate::error::Result;
use crate::oracle::{Block, Capability, Oracle, Setting, Settings, Vector};
use std::ops::Range;

/// The registered optimizer.
pub const ENTRY: OptimizerEntry = OptimizerEntry {
    name: "adamw",
    summary: "steps scaled by running moments of gradients, with decoupled weight decay and schedules",
    paper: "Kingma and Ba 2015; Loshchilov and Hutter 2019, algorithm 2",
    needs: &[Capability::Gradient],
    stochastic: true,
    settings: &[
        Setting::real("learning_rate", "1e-3", 0.0, f64::INFINITY, "step size at the start").log().search(1e-5, 1e-1),
        BATCH_SIZE,
        BETA1,
        BETA2,
        EPSILON,
        WEIGHT_DECAY,
        SCHEDULE,
        HORIZON,
        WARM_UP,
        AVERAGE,
        AVERAGE_FROM,
    ],
    build: |s| Ok(Box::new(AdamW::new(s))),
};

/// The moments' settings, for [`Moments::new`].
pub(super) const BETA1: Setting =
    Setting::real("beta1", "0.9", 0.0, 0.999_999, "share of the mean gradient that is kept from step to step");
pub(super) const BETA2: Setting =
    Setting::real("beta2", "0.999", 0.0, 0.999_999_9, "share of the mean squared gradient that is kept");
pub(super) const EPSILON: Setting =
    Setting::real("epsilon", "1e-8", 0.0, f64::INFINITY, "added to the root of the mean squared gradient").log();
/// The decay beside them.
pub(super) const WEIGHT_DECAY: Setting =
    Setting::real("weight_decay", "0", 0.0, f64::INFINITY, "decay of all parameters, times the step size").log();

/// Adam's moments of the parameters, or of some of their blocks.
pub(super) struct Moments {
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    taken: u64,
    /// Elements that are moved, and where their moments begin.
    spans: Vec<(Range<usize>, usize)>,
    first: Option<Vector>,
    second: Option<Vector>,
}

impl Moments {
    /// From the settings `beta1`, `beta2` and `epsilon`.
    pub(super) fn new(s: &Settings) -> Self {
        Self::with(s.real("beta1"), s.real("beta2"), s.real("epsilon"))
    }

    /// From the constants themselves.
    pub(super) fn with(beta1: f64, beta2: f64, epsilon: f64) -> Self {
        Self { beta1, beta2, epsilon, taken: 0, spans: Vec::new(), first: None, second: None }
    }

    /// Allocates the moments of those blocks that are wanted; with `b1 = 0` the second alone.
    pub(super) fn start(&mut self, parameters: &Vector, wanted: impl Fn(&Block) -> bool) {
        let layout = parameters.layout().part(&wanted);
        let taken = parameters.layout().blocks().iter().filter(|block| wanted(block));
        self.spans.clear();
        for (block, own) in taken.zip(layout.blocks()) {
            match self.spans.last_mut() {
                Some((span, _)) if span.end == block.start => span.end = block.range().end,
                _ => self.spans.push((block.range(), own.start)),
            }
        }
        self.first = (self.beta1 > 0.0).then(|| Vector::zeros(&layout));
        self.second = Some(Vector::zeros(&layout));
    }

    /// Takes a gradient in and moves the wanted blocks by a step of the given size, after a decay by `step_size decay`.
    ///
    /// # Panics
    /// If the moments were not allocated.
    pub(super) fn step(&mut self, parameters: &mut Vector, gradient: &Vector, step_size: f64, decay: f64) {
        self.taken += 1;
        let remainder = |beta: f64| 1.0 - beta.powf(self.taken as f64);
        let step = AdamStep {
            beta1: self.beta1,
            beta2: self.beta2,
            root_factor: remainder(self.beta2).sqrt().recip(),
            epsilon: self.epsilon,
            step_size: step_size / remainder(self.beta1),
            keep: 1.0 - step_size * decay,
        };
        let second = self.second.as_mut().expect("moments are allocated before the first step");
        for (span, place) in &self.spans {
            parameters.adam(gradient, span.clone(), (self.first.as_mut(), second), *place, step);
        }
    }

    /// The first and the second moments, where there are any, for whoever changes the basis in which they are taken.
    pub(super) fn both(&mut self) -> (Option<&mut Vector>, Option<&mut Vector>) {
        (self.first.as_mut(), self.second.as_mut())
    }

    /// Shows the moments.
    pub(super) fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        visitor.count("moments_taken", &mut self.taken);
        for (name, moment) in [("first_moment", &mut self.first), ("second_moment", &mut self.second)] {
            if let Some(moment) = moment {
                visitor.vector(name, moment);
            }
        }
    }
}

struct AdamW {
    batches: Minibatches,
    moments: Moments,
    decay: f64,
    tail: TailAverage,
}

impl AdamW {
    fn new(s: &Settings) -> Self {
        Self {
            batches: Minibatches::new(s, Schedule::new(s, s.real("warm_up"))),
            moments: Moments::new(s),
            decay: s.real("weight_decay"),
            tail: TailAverage::new(s),
        }
    }
}

impl Optimizer for AdamW {
    fn start(&mut self, _oracle: &mut Oracle<'_>, parameters: &Vector) -> Result<()> {
        self.moments.start(parameters, |_| true);
        self.tail.start(parameters);
        Ok(())
    }

    fn step(&mut self, oracle: &mut Oracle<'_>, parameters: &mut Vector) -> Result<Step> {
        let (Pace { passes, step_size }, gradient) = self.batches.next(oracle, parameters)?;
        self.moments.step(parameters, gradient, step_size, self.decay);
        self.tail.take(passes, parameters);
        Ok(Step::Continue)
    }

    fn reported<'a>(&'a self, parameters: &'a Vector) -> &'a Vector {
        self.tail.reported(parameters)
    }

    fn promises(&self, size: &Size<'_>) -> Promises {
        // With a constant step size it ends in the noise of its minibatches.
        Promises { convex_gap: 1e-2, step_gradients: Some(self.batches.share_of(size.rows)) }
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        self.batches.visit_state(visitor);
        self.moments.visit_state(visitor);
        self.tail.visit_state(visitor);
    }
}
