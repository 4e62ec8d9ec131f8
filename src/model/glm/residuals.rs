//! Residuals of single rows of a generalized linear model, and how fast its gradients can change.
//!
//! The Hessian of a row's loss in its predictors is at most `k I`: `k` is 1/4 for two classes with one predictor, 1/2 for
//! several classes (Böhning 1992), 1 for a real target. The gradient of a row's loss therefore changes at most `k |z_i|^2` times
//! as fast as the coefficients, that of the mean loss at most `k` times the largest eigenvalue of `Z'Z/n`.

use super::Glm;
use crate::device::cpu::glm::{GramWeights, Likelihood, Request};
use crate::device::cpu::linalg;
use crate::device::cpu::residuals;
use crate::error::Result;
use crate::oracle::{Answer, RowResiduals, Rows, Smoothness, Vector};
use ndarray::{Array1, Array2};

/// Beyond so many design columns their Gram matrix is not formed for its largest eigenvalue.
const MOST_COLUMNS: usize = 2000;
/// Power iterations on the Gram matrix, and how much the eigenvalue found is raised for what they may lack.
const POWER_ITERATIONS: usize = 100;
const RAISE: f64 = 1.05;

impl RowResiduals for Glm {
    fn residual_size(&self) -> usize {
        self.likelihood.outputs()
    }

    fn exchange_residuals(
        &self,
        at: &Vector,
        rows: Rows<'_>,
        table: &mut [f64],
        change: &mut Vector,
    ) -> Result<Answer<f64>> {
        let (selection, _) = self.selection(rows);
        let regression = self.device.regression();
        let (loss, sums) =
            regression.exchange_residuals(&self.train, self.likelihood, at.host(), selection, table, self.high)?;
        change.host_mut().copy_from_slice(&sums);
        let request = Request { gradient: true, squares: false, gram: GramWeights::None };
        let mut cost = self.cost(selection.len(), request);
        // The table is read and written.
        cost.bytes += (2 * size_of::<f64>() * selection.len() * self.likelihood.outputs()) as f64;
        Ok(Answer { value: loss, cost })
    }

    fn smoothness(&self) -> Result<Answer<Smoothness>> {
        let all = self.selection(Rows::All).0;
        let (n, d) = (self.train.rows(), self.train.columns());
        let mut request = Request { gradient: false, squares: false, gram: GramWeights::None };
        let most = match self.likelihood {
            Likelihood::Gaussian => 1.0,
            Likelihood::Multinomial { .. } if self.likelihood.outputs() > 1 => 0.5,
            _ => 0.25,
        };
        let row = most * residuals::largest_row(&self.train);
        let mut cost = self.cost(n, request);
        let mut mean = row;
        if d <= MOST_COLUMNS {
            request.gram = GramWeights::Unit;
            let sums = self.sums(&Vector::zeros(&self.layout), all, request, self.high)?;
            let mut gram = Array2::from_shape_fn((d, d), |(j, k)| if k <= j { sums.gram[j * d + k] } else { 0.0 });
            linalg::symmetrize(&mut gram);
            cost += self.cost(n, request);
            cost.flops += POWER_ITERATIONS as f64 * 2.0 * (d * d) as f64;
            mean = row.min(RAISE * most * largest_eigenvalue(&gram) / n as f64);
        }
        Ok(Answer { value: Smoothness { row, mean }, cost })
    }
}

/// The largest eigenvalue of a positive semi-definite matrix, from below, by power iteration.
fn largest_eigenvalue(matrix: &Array2<f64>) -> f64 {
    let mut v = Array1::from_shape_fn(matrix.nrows(), |i| 1.0 + 0.1 * (i as f64).sin());
    let mut eigenvalue = 0.0;
    for _ in 0..POWER_ITERATIONS {
        let norm = v.dot(&v).sqrt();
        if norm == 0.0 {
            break;
        }
        v /= norm;
        let next = matrix.dot(&v);
        eigenvalue = v.dot(&next);
        v = next;
    }
    eigenvalue
}
