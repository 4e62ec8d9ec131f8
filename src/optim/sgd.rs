//! Stochastic gradient descent with momentum, Nesterov's look-ahead, schedules and tail averaging.
//!
//! With a minibatch gradient `g` at step size `a_t`: `v = mu v - a_t g`, then `theta += v`, or with Nesterov's form
//! (Sutskever et al. 2013, section 2) `theta += mu v - a_t g`. Minibatches are drawn without replacement, a new random
//! order each pass. Tail averaging (Ruppert 1988, Polyak and Juditsky 1992) reports the mean of the iterates from a
//! stated pass on.

use super::stochastic::{
    AVERAGE, AVERAGE_FROM, BATCH_SIZE, HORIZON, Minibatches, Pace, SCHEDULE, Schedule, TailAverage, WARM_UP,
};
use super::{Optimizer, OptimizerEntry, Promises, Size, StateVisitor, Step};
use crate::error::Result;
use crate::oracle::{Capability, Oracle, Setting, Settings, Vector};

/// The registered optimizer.
pub const ENTRY: OptimizerEntry = OptimizerEntry {
    name: "sgd",
    summary: "stochastic gradient descent: momentum, Nesterov, schedules, tail averaging",
    paper: "Robbins and Monro 1951; momentum: Polyak 1964; Nesterov's form: Sutskever et al. 2013, section 2",
    needs: &[Capability::Gradient],
    stochastic: true,
    settings: &[
        Setting::real("learning_rate", "0.1", 0.0, f64::INFINITY, "step size at the start").log().search(1e-4, 1.0),
        BATCH_SIZE,
        Setting::real("momentum", "0.9", 0.0, 0.999_999, "mu: share of the last step that is kept").search(0.0, 0.99),
        Setting::switch("nesterov", "false", "look ahead along the momentum"),
        SCHEDULE,
        HORIZON,
        WARM_UP,
        AVERAGE,
        AVERAGE_FROM,
    ],
    build: |s| Ok(Box::new(Sgd::new(s))),
};

struct Sgd {
    batches: Minibatches,
    momentum: f64,
    nesterov: bool,
    velocity: Vec<Vector>,
    tail: TailAverage,
}

impl Sgd {
    fn new(s: &Settings) -> Self {
        Self {
            batches: Minibatches::new(s, Schedule::new(s, s.real("warm_up"))),
            momentum: s.real("momentum"),
            nesterov: s.switch("nesterov"),
            velocity: Vec::new(),
            tail: TailAverage::new(s),
        }
    }
}

impl Optimizer for Sgd {
    fn start(&mut self, _oracle: &mut Oracle<'_>, parameters: &Vector) -> Result<()> {
        if self.momentum > 0.0 {
            self.velocity = vec![parameters.zeros_like()];
        }
        self.tail.start(parameters);
        Ok(())
    }

    fn step(&mut self, oracle: &mut Oracle<'_>, parameters: &mut Vector) -> Result<Step> {
        let (Pace { passes, step_size }, gradient) = self.batches.next(oracle, parameters)?;
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
        visitor.vectors("velocity", &mut self.velocity);
        self.tail.visit_state(visitor);
    }
}
