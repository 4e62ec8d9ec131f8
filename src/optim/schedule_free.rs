//! Schedule-free AdamW: an average of the iterates takes the place of a schedule.
//!
//! Defazio et al. 2024, algorithm 1. Three sequences: gradients are taken at `y`, the base sequence `z` steps, and `x`
//! averages it:
//!
//! `y = (1 - b1) z + b1 x`, `g` the minibatch gradient at `y`, `v = b2 v + (1 - b2) g^2`,
//! `z = z - a_t (g / (sqrt(v / (1 - b2^t)) + epsilon) + decay y)`, `x = (1 - c) x + c z` with `c = a_t^2 / sum_{s<=t} a_s^2`.
//!
//! The parameters are `x`: it is `x` that is evaluated and recorded, never `y` or `z`, which are worse until the end. `y` is
//! formed anew each step, so that the state is as large as AdamW's.

use super::adamw::{BETA2, EPSILON, Moments, WEIGHT_DECAY};
use super::stochastic::{BATCH_SIZE, Minibatches, Pace, Schedule, WARM_UP};
use super::{Optimizer, OptimizerEntry, Promises, Size, StateVisitor, Step};
use crate::error::Result;
use crate::oracle::{Capability, Oracle, Setting, Settings, Vector};

/// The registered optimizer.
pub const ENTRY: OptimizerEntry = OptimizerEntry {
    name: "schedule-free",
    summary: "AdamW whose iterates are averaged instead of a schedule; the average is what is evaluated",
    paper: "Defazio et al. 2024, algorithm 1",
    needs: &[Capability::Gradient],
    stochastic: true,
    settings: &[
        Setting::real("learning_rate", "2.5e-3", 0.0, f64::INFINITY, "step size after the warm-up")
            .log()
            .search(1e-5, 1e-1),
        BATCH_SIZE,
        Setting::real("beta1", "0.9", 0.0, 1.0, "where gradients are taken: this share of the average, the rest base"),
        BETA2,
        EPSILON,
        WEIGHT_DECAY,
        WARM_UP,
    ],
    build: |s| Ok(Box::new(ScheduleFree::new(s))),
};

struct ScheduleFree {
    batches: Minibatches,
    beta1: f64,
    decay: f64,
    moments: Moments,
    /// The sum of squared step sizes.
    weight: f64,
    /// The base sequence `z`.
    base: Vec<Vector>,
    /// `y`, where gradients are taken.
    point: Option<Vector>,
}

impl ScheduleFree {
    fn new(s: &Settings) -> Self {
        Self {
            batches: Minibatches::new(s, Schedule::constant(s.real("warm_up"))),
            beta1: s.real("beta1"),
            decay: s.real("weight_decay"),
            moments: Moments::with(0.0, s.real("beta2"), s.real("epsilon")),
            weight: 0.0,
            base: Vec::new(),
            point: None,
        }
    }
}

impl Optimizer for ScheduleFree {
    fn start(&mut self, _oracle: &mut Oracle<'_>, parameters: &Vector) -> Result<()> {
        self.moments.start(parameters, |_| true);
        self.base = vec![parameters.clone()];
        Ok(())
    }

    fn step(&mut self, oracle: &mut Oracle<'_>, parameters: &mut Vector) -> Result<Step> {
        let [base] = &mut self.base[..] else { return Ok(Step::Stopped("it was not started".into())) };
        let point = self.point.get_or_insert_with(|| parameters.zeros_like());
        point.copy_from(base);
        point.axpby(1.0 - self.beta1, self.beta1, parameters);
        let (Pace { step_size, .. }, gradient) = self.batches.next(oracle, point)?;
        self.moments.step(base, gradient, step_size, 0.0);
        if self.decay > 0.0 {
            base.axpy(-step_size * self.decay, point);
        }
        self.weight += step_size * step_size;
        // A step size of zero moves nothing, and weighs nothing.
        let share = if self.weight > 0.0 { step_size * step_size / self.weight } else { 0.0 };
        parameters.axpby(1.0 - share, share, base);
        Ok(Step::Continue)
    }

    fn promises(&self, size: &Size<'_>) -> Promises {
        // With a constant step size it ends in the noise of its minibatches.
        Promises { convex_gap: 1e-2, step_gradients: Some(self.batches.share_of(size.rows)) }
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        self.batches.visit_state(visitor);
        self.moments.visit_state(visitor);
        visitor.number("weight", &mut self.weight);
        visitor.vectors("base", &mut self.base);
    }
}
