//! Which rows a question is about, and what single rows come to: the loss of each, whether its class is right, and what other
//! numbers are made of. The means over rows are what
//! [`Evaluation`](super::Evaluation) holds; paired comparisons of fits need the rows themselves.

use crate::device::Selection;
use crate::oracle::Rows;

/// The selection behind `rows` of `n` training rows, and what sums over it are divided by.
pub(super) fn selected(rows: Rows<'_>, n: usize) -> (Selection<'_>, f64) {
    match rows {
        Rows::All => (Selection::Range(0, n), n.max(1) as f64),
        Rows::Batch(batch) => (Selection::List(batch.rows()), batch.len().max(1) as f64),
        Rows::Part { index, of } => (Selection::Range(n * index / of, n * (index + 1) / of), n.max(1) as f64),
    }
}

/// Row by row, in the order of the split.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RowOutcomes {
    /// Loss without the regularizer, as in [`Evaluation::loss`](super::Evaluation::loss).
    pub loss: Vec<f32>,
    /// Whether the most probable class is right; absent where the target is a real number.
    pub correct: Option<Vec<bool>>,
    /// What other numbers of [`Evaluation`](super::Evaluation) are made of.
    pub ratios: Vec<RowRatio>,
}

/// A number that is the sum of the rows' parts divided by the sum of their weights.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RowRatio {
    /// Its name in [`Evaluation`](super::Evaluation).
    pub metric: &'static str,
    /// What every row adds to the sum.
    pub parts: Vec<f32>,
    /// And to what it is divided by.
    pub weights: Vec<f32>,
}

impl RowOutcomes {
    /// Outcomes of rows one after another: `row(i)` is the loss of row `i` and whether its class is right.
    pub(super) fn collect(rows: usize, has_classes: bool, row: impl Fn(usize) -> (f64, bool)) -> Self {
        let mut outcomes = Self {
            loss: Vec::with_capacity(rows),
            correct: has_classes.then(|| Vec::with_capacity(rows)),
            ratios: Vec::new(),
        };
        for i in 0..rows {
            let (loss, correct) = row(i);
            outcomes.loss.push(loss as f32);
            outcomes.correct.iter_mut().for_each(|all| all.push(correct));
        }
        outcomes
    }
}

/// `ln(1 + exp o) - y o` with a target of 0 or 1.
pub(super) fn logistic_loss(output: f64, target: f64) -> f64 {
    output.max(0.0) - target * output + (-output.abs()).exp().ln_1p()
}

/// `ln(sum_k exp o_k) - o_class`.
pub(super) fn softmax_loss(outputs: impl Iterator<Item = f64> + Clone, class: usize) -> f64 {
    let largest = outputs.clone().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = outputs.clone().map(|o| (o - largest).exp()).sum();
    total.ln() + largest - outputs.clone().nth(class).unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_agree_with_their_definitions_and_stay_finite() {
        assert!((logistic_loss(0.7, 1.0) - (1.0 + (-0.7_f64).exp()).ln()).abs() < 1e-15);
        assert_eq!(logistic_loss(-800.0, 1.0), 800.0);
        assert!((softmax_loss([0.0, 0.7].into_iter(), 1) - logistic_loss(0.7, 1.0)).abs() < 1e-15);
        assert_eq!(softmax_loss([1000.0, 0.0].into_iter(), 1), 1000.0);
    }
}
