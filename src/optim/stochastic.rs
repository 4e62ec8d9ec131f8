//! What optimizers that step on minibatches have in common: batches and step sizes over passes, and the average of the tail.

use super::StateVisitor;
use crate::error::Result;
use crate::oracle::{Oracle, Rows, Setting, Settings, Vector};

/// Rows of a minibatch.
pub(super) const BATCH_SIZE: Setting =
    Setting::whole("batch_size", "256", 1, 1 << 40, "rows per step").log().search(32.0, 1024.0);
/// The schedule, its time scale and the warm-up, for [`Schedule::new`].
pub(super) const SCHEDULE: Setting = Setting::choice(
    "schedule",
    "constant",
    &["constant", "inverse", "cosine"],
    "step size over passes t: constant; inverse: 1/(1 + t/horizon); cosine: to zero at the horizon",
)
.search_every();
pub(super) const HORIZON: Setting =
    Setting::real("horizon", "20", 1e-9, f64::INFINITY, "passes: the time scale of the schedule").log();
pub(super) const WARM_UP: Setting =
    Setting::real("warm_up", "0", 0.0, f64::INFINITY, "passes over which the step size rises from zero");
/// The average of the tail, for [`TailAverage::new`].
pub(super) const AVERAGE: Setting = Setting::switch("average", "false", "report the mean of the iterates of the tail");
pub(super) const AVERAGE_FROM: Setting =
    Setting::real("average_from", "5", 0.0, f64::INFINITY, "passes after which the tail begins");

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

    /// No change but the warm-up.
    pub(super) fn constant(warm_up: f64) -> Self {
        Self { kind: Kind::Constant, horizon: 1.0, warm_up }
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

/// Minibatch gradients, drawn without replacement in a new random order each pass, and the step size that goes with each.
pub(super) struct Minibatches {
    batch_size: usize,
    learning_rate: f64,
    schedule: Schedule,
    taken: u64,
    gradient: Option<Vector>,
}

/// What goes with a minibatch's gradient.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Passes over the data once this minibatch is done.
    pub passes: f64,
    /// The scheduled step size.
    pub step_size: f64,
}

impl Minibatches {
    /// From the settings `batch_size` and `learning_rate`.
    pub(super) fn new(s: &Settings, schedule: Schedule) -> Self {
        Self {
            batch_size: s.whole("batch_size"),
            learning_rate: s.real("learning_rate"),
            schedule,
            taken: 0,
            gradient: None,
        }
    }

    /// What a step costs, in gradients over all rows, where there are so many.
    pub(super) fn share_of(&self, rows: usize) -> f64 {
        self.batch_size.min(rows) as f64 / rows as f64
    }

    /// The gradient at a point on the next minibatch; notes step size and objective.
    pub(super) fn next(&mut self, oracle: &mut Oracle<'_>, at: &Vector) -> Result<(Pace, &mut Vector)> {
        let size = self.batch_size.min(oracle.rows());
        let batch = oracle.next_batch(size);
        let gradient = self.gradient.get_or_insert_with(|| at.zeros_like());
        let loss = oracle.value_and_gradient(at, Rows::Batch(&batch), gradient)?;
        oracle.finite("the minibatch objective", loss)?;
        self.taken += 1;
        // The warm-up's first step is one batch into the pass, not zero.
        let passes = self.taken as f64 * size as f64 / oracle.rows() as f64;
        let step_size = self.learning_rate * self.schedule.at(passes);
        oracle.note("step_size", step_size);
        oracle.note("batch_objective", loss);
        Ok((Pace { passes, step_size }, gradient))
    }

    /// Shows the number of minibatches taken; the gradient does not outlive a step.
    pub(super) fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        visitor.count("taken", &mut self.taken);
    }
}

/// The mean of the iterates from a stated pass on (Ruppert 1988, Polyak and Juditsky 1992), where it is wanted.
pub(super) struct TailAverage {
    from: Option<f64>,
    averaged: u64,
    mean: Vec<Vector>,
}

impl TailAverage {
    /// From the settings `average` and `average_from`.
    pub(super) fn new(s: &Settings) -> Self {
        Self { from: s.switch("average").then(|| s.real("average_from")), averaged: 0, mean: Vec::new() }
    }

    /// Allocates the mean.
    pub(super) fn start(&mut self, parameters: &Vector) {
        if self.from.is_some() {
            self.mean = vec![parameters.clone()];
        }
    }

    /// Takes an iterate in; before the tail begins it is the mean itself.
    pub(super) fn take(&mut self, passes: f64, parameters: &Vector) {
        let (Some(from), Some(mean)) = (self.from, self.mean.first_mut()) else { return };
        if passes >= from {
            self.averaged += 1;
            let share = 1.0 / self.averaged as f64;
            mean.axpby(1.0 - share, share, parameters);
        } else {
            mean.copy_from(parameters);
        }
    }

    /// The mean, or the iterate where none is wanted.
    pub(super) fn reported<'a>(&'a self, parameters: &'a Vector) -> &'a Vector {
        self.mean.first().unwrap_or(parameters)
    }

    /// Shows the mean.
    pub(super) fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        visitor.count("averaged", &mut self.averaged);
        visitor.vectors("mean", &mut self.mean);
    }
}
