//! A mixture on held-out rows, counted, and written.

use super::{MIXTURE, Mixture};
use crate::device::cpu::design::Selection;
use crate::device::cpu::mixture::{self, Request, Routing};
use crate::error::Result;
use crate::measure::metrics::area_under_curve;
use crate::model::{Evaluation, Model, ParameterCounts, RowOutcomes, Split, Weights};
use crate::oracle::{Rows, Vector};

/// The class of the largest logarithm; of several equal ones the first.
fn most_probable(logarithms: &[f64]) -> usize {
    (1..logarithms.len()).fold(0, |best, k| if logarithms[k] > logarithms[best] { k } else { best })
}

impl Mixture {
    /// Logarithms of the probabilities of all classes on a split, row by row.
    fn log_probabilities(&self, parameters: &Vector, split: Split) -> Vec<f64> {
        let design = self.split(split);
        let all = Selection::Range(0, design.rows());
        mixture::log_probabilities(design, self.shape(), &self.packed(parameters), all)
    }

    /// Posterior probabilities of the experts on the training rows given their classes, `rows x K` row by row.
    #[must_use]
    pub fn responsibilities(&self, parameters: &Vector) -> Vec<f64> {
        let all = Selection::Range(0, self.train.rows());
        mixture::responsibilities(&self.train, self.shape(), &self.packed(parameters), all)
    }
}

impl Model for Mixture {
    fn evaluate(&self, parameters: &Vector, split: Split) -> Result<Evaluation> {
        let design = self.split(split);
        let rows = design.rows();
        if rows == 0 {
            return Ok(Evaluation::default());
        }
        let classes = self.classes.len();
        let logarithms = self.log_probabilities(parameters, split);
        let (mut loss, mut correct) = (0.0, 0_u64);
        for (i, row) in logarithms.chunks_exact(classes).enumerate() {
            let target = design.target(i) as usize;
            loss -= row[target];
            correct += u64::from(most_probable(row) == target);
        }
        let auc = if classes == 2 && split != Split::Train {
            let scores: Vec<f64> = logarithms.chunks_exact(2).map(|row| row[1] - row[0]).collect();
            area_under_curve(&scores, |i| design.target(i) == 1.0)
        } else {
            None
        };
        let accuracy = Some(correct as f64 / rows as f64);
        Ok(Evaluation { loss: Some(loss / rows as f64), accuracy, auc, ..Evaluation::default() })
    }

    fn row_outcomes(&self, parameters: &Vector, split: Split) -> Result<Option<RowOutcomes>> {
        let design = self.split(split);
        if design.rows() == 0 {
            return Ok(None);
        }
        let classes = self.classes.len();
        let logarithms = self.log_probabilities(parameters, split);
        let row = |i: usize| {
            let (row, target) = (&logarithms[i * classes..(i + 1) * classes], design.target(i) as usize);
            (-row[target], most_probable(row) == target)
        };
        Ok(Some(RowOutcomes::collect(design.rows(), true, row)))
    }

    fn objective(&self, parameters: &Vector) -> Result<(f64, Option<f64>)> {
        let mut gradient = parameters.zeros_like();
        let (value, _) = self.slope(parameters, Rows::All, true, &mut gradient);
        Ok((value, Some(gradient.norm_max())))
    }

    fn parameter_counts(&self, parameters: &Vector) -> ParameterCounts {
        let total = parameters.len();
        // Of the experts, one takes part in a row under top-1 routing.
        let idle = if self.shape().routing == Routing::TopOne { self.shape().experts - 1 } else { 0 };
        ParameterCounts {
            total: total as u64,
            active: (total - idle * self.parts.of_expert()) as u64,
            nonzero: parameters.nonzero() as u64,
            bytes: parameters.bytes(),
        }
    }

    fn weights(&self, parameters: &Vector) -> Weights {
        let mut weights = Weights::default();
        let values = parameters.host();
        for block in self.parts.layout.blocks() {
            let shape =
                if block.name.ends_with(".bias") { vec![block.columns] } else { vec![block.rows, block.columns] };
            weights.tensors.insert(block.name.clone(), (shape, values[block.range()].to_vec()));
        }
        let (mean, sd) = self.transform.means_and_deviations();
        weights.tensors.insert("mean".into(), (vec![mean.len()], mean));
        weights.tensors.insert("standard_deviation".into(), (vec![sd.len()], sd));
        let shape = self.shape();
        let json = |names: &[String]| serde_json::to_string(names).unwrap_or_default();
        for (key, value) in [
            ("model", MIXTURE.name.to_owned()),
            ("experts", shape.experts.to_string()),
            ("hidden", shape.hidden.to_string()),
            ("routing", if shape.routing == Routing::TopOne { "top-1" } else { "soft" }.to_owned()),
            ("columns", json(&self.columns)),
            ("classes", json(&self.classes)),
        ] {
            weights.metadata.insert(key.into(), value);
        }
        weights
    }

    fn is_convex(&self) -> bool {
        false
    }

    fn notes(&self, parameters: &Vector) -> Result<Vec<(&'static str, f64)>> {
        let all = Selection::Range(0, self.train.rows());
        let (theta, request) = (self.packed(parameters), Request::default());
        let loads = mixture::pass(&self.train, self.shape(), &theta, all, request, self.high).loads;
        // In units of an even share.
        let even = self.train.rows() as f64 / self.shape().experts as f64;
        let shares = loads.iter().map(|load| load / even);
        Ok(vec![
            ("largest_load", shares.clone().fold(0.0, f64::max)),
            ("smallest_load", shares.fold(f64::INFINITY, f64::min)),
        ])
    }
}
