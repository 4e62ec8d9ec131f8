//! Passes of generalized linear models on the CPU.

use super::Cpu;
use super::curvature::CurvatureWeights;
use super::design::{Design, Selection};
use super::glm::{self, Likelihood, Request, Sums};
use super::residuals;
use crate::device::{Regression, RowCurvature};
use crate::error::Result;

struct Curvature<'a> {
    design: &'a Design,
    selection: Selection<'a>,
    weights: CurvatureWeights,
}

impl RowCurvature for Curvature<'_> {
    fn multiply(&self, v: &[f64]) -> Result<Vec<f64>> {
        Ok(self.weights.multiply(self.design, v, self.selection))
    }
}

impl Regression for Cpu {
    fn pass(
        &self,
        design: &Design,
        likelihood: Likelihood,
        theta: &[f64],
        selection: Selection<'_>,
        request: Request,
        high: bool,
    ) -> Result<Sums> {
        Ok(glm::pass(design, likelihood, theta, selection, request, high))
    }

    fn linear_predictors(
        &self,
        design: &Design,
        outputs: usize,
        theta: &[f64],
        selection: Selection<'_>,
    ) -> Result<Vec<f64>> {
        Ok(glm::linear_predictors(design, outputs, theta, selection))
    }

    fn curvature<'a>(
        &'a self,
        design: &'a Design,
        likelihood: Likelihood,
        theta: &[f64],
        selection: Selection<'a>,
        high: bool,
    ) -> Result<Box<dyn RowCurvature + 'a>> {
        let weights = CurvatureWeights::at(design, likelihood, theta, selection, high);
        Ok(Box::new(Curvature { design, selection, weights }))
    }

    fn exchange_residuals(
        &self,
        design: &Design,
        likelihood: Likelihood,
        theta: &[f64],
        selection: Selection<'_>,
        table: &mut [f64],
        high: bool,
    ) -> Result<(f64, Vec<f64>)> {
        Ok(residuals::exchange(design, likelihood, theta, selection, table, high))
    }
}
