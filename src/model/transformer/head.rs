//! The head: logits of the last stack's values, their cross-entropy, and its curvature.
//!
//! Logits of so many tokens at once as fit well into memory are formed, used and forgotten. The Hessian of a token's
//! cross-entropy in its logits is `diag(p) - p p'`.

use super::stack::{Core, Flow, HEAD_ROWS, Pass};
use crate::device::{Array, NO_ROW};
use std::ops::Range;

/// Losses of the tokens of a pass, one after another.
#[derive(Debug, Clone, Default)]
pub(super) struct TokenResults {
    /// In nats; 0 where nothing is predicted.
    pub losses: Vec<f32>,
    /// Whether no token is more probable than the right one.
    pub correct: Vec<bool>,
}

impl TokenResults {
    /// The sum of losses.
    pub fn total(&self) -> f64 {
        self.losses.iter().map(|&loss| f64::from(loss)).sum()
    }
}

fn parts(tokens: usize) -> impl Iterator<Item = Range<usize>> {
    (0..tokens).step_by(HEAD_ROWS).map(move |start| start..(start + HEAD_ROWS).min(tokens))
}

impl Core {
    /// Tokens of the last stack.
    pub fn predicting(&self, pass: &Pass) -> usize {
        pass.sequences * self.lengths[self.lengths.len() - 1]
    }

    fn out<'a>(&self, pass: &'a Pass) -> &'a Array {
        &pass.stacks[pass.stacks.len() - 1].out
    }

    /// Logits of some tokens into the first of the flow's arrays.
    fn logits_of(&self, w: &Array, pass: &Pass, logits: &mut Array, part: &Range<usize>) {
        let (d, head, rows) = (self.config.d_model, self.places.head, part.len());
        let out = self.out(pass).view(part.start * d, rows, d);
        let to = logits.view_mut(0, rows, head.rows);
        self.products(self.factors(None), to, false, out, w, head, &Self::all(rows));
        self.round(logits.view_mut(0, rows, head.rows));
    }

    /// Logits of all tokens, `tokens x vocabulary`.
    pub fn logits(&self, w: &Array, pass: &Pass, flow: &mut Flow) -> Vec<f32> {
        let mut all = Vec::new();
        for part in parts(self.predicting(pass)) {
            self.logits_of(w, pass, &mut flow.logits[0], &part);
            all.extend(self.device.download(flow.logits[0].view(0, part.len(), self.places.head.rows)));
        }
        all
    }

    /// The tokens' losses. With a factor, that times the derivative of their sum in the last stack's values goes into `flow.d`, and that
    /// in the head is added to `sum`.
    pub fn loss(&self, w: &Array, pass: &Pass, flow: &mut Flow, derivative: Option<(f32, &mut Array)>) -> TokenResults {
        let (t, d, head) = (self.tokens(), self.config.d_model, self.places.head);
        let tokens = self.predicting(pass);
        let mut results = TokenResults { losses: vec![0.0; tokens], correct: vec![false; tokens] };
        let (factor, mut sum) = derivative.map_or((None, None), |(factor, sum)| (Some(factor), Some(sum)));
        for part in parts(tokens) {
            let (rows, all) = (part.len(), Self::all(part.len()));
            let logits = &mut flow.logits[0];
            self.logits_of(w, pass, logits, &part);
            let (losses, correct) = (&mut results.losses[part.clone()], &mut results.correct[part.clone()]);
            let of = logits.view_mut(0, rows, head.rows);
            t.cross_entropy(of, &pass.targets[part.clone()], factor, losses, correct);
            if let Some(sum) = &mut sum {
                let residual = logits.view(0, rows, head.rows);
                let out = self.out(pass).view(part.start * d, rows, d);
                t.segment_gradients(sum, head, residual, out, &all);
                let to = flow.d.view_mut(part.start * d, rows, d);
                t.segment_products(to, false, residual, w, head, true, &all);
            }
        }
        results
    }

    /// Turns the tangent of the last stack's values in `flow.d` into `factor` times the derivative that a Gauss-Newton product sends
    /// down; what belongs to the head is added to `sum`.
    pub fn curvature(&self, (w, v): (&Array, &Array), pass: &Pass, flow: &mut Flow, factor: f32, sum: &mut Array) {
        let (t, d, head) = (self.tokens(), self.config.d_model, self.places.head);
        let mut log_sums = self.device.zeros(HEAD_ROWS);
        let mut factors = self.device.zeros(HEAD_ROWS);
        for part in parts(self.predicting(pass)) {
            let (rows, all) = (part.len(), Self::all(part.len()));
            let [logits, tangents] = &mut flow.logits;
            self.logits_of(w, pass, logits, &part);
            t.softmax_rows(logits.view_mut(0, rows, head.rows), &mut log_sums);
            let out = self.out(pass).view(part.start * d, rows, d);
            let t_out = flow.d.view(part.start * d, rows, d);
            t.segment_products(tangents.view_mut(0, rows, head.rows), false, t_out, w, head, false, &all);
            t.segment_products(tangents.view_mut(0, rows, head.rows), true, out, v, head, false, &all);
            let own: Vec<f32> =
                pass.targets[part.clone()].iter().map(|&target| if target == NO_ROW { 0.0 } else { factor }).collect();
            self.device.upload(factors.view_mut(0, 1, rows), &own);
            t.softmax_tangent(tangents.view_mut(0, rows, head.rows), logits.view(0, rows, head.rows), &factors);
            let residual = tangents.view(0, rows, head.rows);
            t.segment_gradients(sum, head, residual, out, &all);
            let to = flow.d.view_mut(part.start * d, rows, d);
            t.segment_products(to, false, residual, w, head, true, &all);
        }
    }
}
