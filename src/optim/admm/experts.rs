//! Splitting inside every expert of a layer of experts, a minibatch at a time and without multipliers.
//!
//! With outputs `z` of every token's hidden units, `1/2 |y - p V [max(z, 0); 1]|^2 + beta/2 |z - U x|^2` falls apart by tokens where
//! the blocks are held: from `z = U x`, with the units above zero held so, a few steps of conjugate gradients lead to `z = U x +
//! delta`. With `z` held, `U` is the least-squares fit of `z` onto the inputs, `V` one of the targets onto the units, for the rows
//! of each expert apart; a share of both is taken. Which expert a token goes to is decided anew before every sweep, and the router
//! moves along its own signal. `beta` is a share of the mean diagonal of `V'V`. Steps, trust regions and the judgement of the objective:
//! [`crate::optim::expert_steps`].

use crate::error::Result;
use crate::optim::expert_steps::{ExpertSteps, Sizes};
use crate::optim::{Optimizer, StateVisitor, Step};
use crate::oracle::{Block, ExpertQuestion, Oracle, Settings, TokenStep, Vector};

pub(super) struct Experts {
    steps: ExpertSteps,
    penalty: f64,
    inner: usize,
}

impl Experts {
    pub fn new(s: &Settings) -> Self {
        let sizes = Sizes {
            input: s.real("hidden_step"),
            output: s.real("output_step"),
            momentum: s.real("momentum"),
            metric: None,
            memory: s.real("memory"),
            refresh: s.whole("refresh") as u64,
        };
        Self { steps: ExpertSteps::new(s, sizes), penalty: s.real("penalty"), inner: s.whole("inner_steps") }
    }

    /// `beta` of an expert: a share of the mean diagonal of `V'V`, biases apart.
    fn penalty_of(&self, output: &Block, parameters: &Vector) -> f64 {
        let values = parameters.read(output.range());
        let hidden = output.columns - 1;
        let squares: f64 =
            values.chunks_exact(output.columns).flat_map(|row| row.iter().take(hidden)).map(|v| v * v).sum();
        (self.penalty * squares / hidden as f64).max(f64::from(f32::MIN_POSITIVE))
    }
}

impl Optimizer for Experts {
    fn start(&mut self, oracle: &mut Oracle<'_>, parameters: &Vector) -> Result<()> {
        self.steps.start(oracle, parameters)
    }

    fn step(&mut self, oracle: &mut Oracle<'_>, parameters: &mut Vector) -> Result<Step> {
        let experts = &self.steps.layer().experts;
        let penalties: Vec<f64> = experts.iter().map(|expert| self.penalty_of(&expert.output, parameters)).collect();
        let step = TokenStep::Proximal { penalties: &penalties, steps: self.inner };
        let question = ExpertQuestion { step, signal: self.steps.signal, with_grams: false };
        self.steps.step(oracle, parameters, question)?;
        Ok(Step::Continue)
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        self.steps.visit_state(visitor);
    }
}
