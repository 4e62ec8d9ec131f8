//! Iteratively reweighted least squares on the blocks of a layer of experts, a minibatch at a time.
//!
//! While the others are held, each block is a generalized linear model: an expert's output matrix a weighted least-squares fit on
//! its design `p_i [a; 1]`, its input matrix one whose errors are weighed by `p_i^2 V'V`, the router a multinomial logit (Jordan and
//! Jacobs 1994 fit gate and experts so inside EM). A share of each block's step is taken at the same time:
//! [`crate::optim::expert_steps`]. Taking whole steps in turns, or unit by unit, was slower.

use crate::error::Result;
use crate::optim::expert_steps::{ExpertSteps, Sizes};
use crate::optim::{Optimizer, StateVisitor, Step};
use crate::oracle::{ExpertQuestion, Oracle, Settings, TokenStep, Vector};

pub(super) struct Blocks {
    steps: ExpertSteps,
}

impl Blocks {
    pub(super) fn new(s: &Settings) -> Self {
        let sizes = Sizes {
            input: s.real("input_step"),
            output: s.real("output_step"),
            momentum: s.real("momentum"),
            metric: Some(s.real("metric_damping")),
            memory: s.real("memory"),
            refresh: s.whole("refresh") as u64,
        };
        Self { steps: ExpertSteps::new(s, sizes) }
    }
}

impl Optimizer for Blocks {
    fn start(&mut self, oracle: &mut Oracle<'_>, parameters: &Vector) -> Result<()> {
        self.steps.start(oracle, parameters)
    }

    fn step(&mut self, oracle: &mut Oracle<'_>, parameters: &mut Vector) -> Result<Step> {
        let question = ExpertQuestion { step: TokenStep::Gradient, signal: self.steps.signal, with_grams: false };
        self.steps.step(oracle, parameters, question)?;
        Ok(Step::Continue)
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        self.steps.visit_state(visitor);
    }
}
