//! Residuals of single rows of a generalized linear model: the gradient of a row's loss is `r_i z_i'`, `r_i` of `C` numbers.
//!
//! [`exchange`] puts the residuals at new coefficients in the place of those in a table and sums the change of the gradient,
//! `sum_i (r_i - r_i^old) z_i'`, in the same visit of the rows.

use super::design::{Design, Selection, map_selection};
use super::glm::{Likelihood, Work, add_products, as_stored, predictors, visit_rows};
use super::real::Real;
use crate::device::PANEL_ROWS;
use pulp::{Arch, Simd, WithSimd};

struct Exchange<'a, T> {
    design: &'a Design,
    likelihood: Likelihood,
    theta: &'a [f64],
    selection: Selection<'a>,
    table: &'a [f64],
    kind: std::marker::PhantomData<T>,
}

/// What a chunk of rows gives: the loss, the change of the gradient, and the residuals, `C` a row.
struct Exchanged {
    loss: f64,
    change: Vec<f64>,
    residuals: Vec<f64>,
}

/// The number of the `i`-th row of a selection.
#[inline(always)]
fn row_of(selection: Selection<'_>, i: usize) -> usize {
    match selection {
        Selection::Range(start, _) => start + i,
        Selection::List(rows) => rows[i] as usize,
    }
}

impl<T: Real> WithSimd for Exchange<'_, T> {
    type Output = Exchanged;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Exchanged {
        let outputs = self.likelihood.outputs();
        let mut work = Work::<T>::new(self.design, outputs, self.theta);
        let mut tile = self.design.tile();
        let mut all = Exchanged {
            loss: 0.0,
            change: vec![0.0; outputs * self.design.columns()],
            residuals: Vec::with_capacity(outputs * self.selection.len()),
        };
        let mut seen = 0;
        for span in self.design.spans(self.selection) {
            self.design.fill(span, &mut tile);
            let tile = &tile;
            let z = self.design.view(tile);
            predictors::<T, S>(simd, &work.theta, z, &mut work.eta);
            all.loss += visit_rows::<T, S>(self.likelihood, &mut work, tile).loss;
            for i in 0..tile.rows {
                let old = &self.table[outputs * row_of(self.selection, seen + i)..][..outputs];
                for (c, &old) in old.iter().enumerate() {
                    let r = &mut work.residual[c * PANEL_ROWS + i];
                    all.residuals.push(r.to_f64());
                    *r = *r - T::from_f64(old);
                }
            }
            seen += tile.rows;
            add_products(simd, &work.residual, z, &mut work.product, &mut all.change);
        }
        all
    }
}

/// Puts the residuals of the rows of `selection` at `theta` into `table` (`n x C`) and adds up the loss and
/// `sum_i (r_i - r_i^old) z_i'` (`C x D`), in `f64` if `high`.
#[must_use]
pub fn exchange(
    design: &Design,
    likelihood: Likelihood,
    theta: &[f64],
    selection: Selection<'_>,
    table: &mut [f64],
    high: bool,
) -> (f64, Vec<f64>) {
    if high {
        return run::<f64>(design, likelihood, theta, selection, table);
    }
    match as_stored(design, likelihood, high) {
        Some((stored, substitution)) => {
            let theta = substitution.coefficients(theta);
            let (loss, change) = run::<f32>(&stored, likelihood, &theta, selection, table);
            (loss, substitution.products(&change))
        }
        None => run::<f32>(design, likelihood, theta, selection, table),
    }
}

fn run<T: Real>(
    design: &Design,
    likelihood: Likelihood,
    theta: &[f64],
    selection: Selection<'_>,
    table: &mut [f64],
) -> (f64, Vec<f64>) {
    let outputs = likelihood.outputs();
    let parts = map_selection(selection, |_, selection| {
        let kind = std::marker::PhantomData::<T>;
        Arch::new().dispatch(Exchange { design, likelihood, theta, selection, table: &*table, kind })
    });
    let mut loss = 0.0;
    let mut change = vec![0.0; outputs * design.columns()];
    let mut seen = 0;
    for part in parts {
        loss += part.loss;
        change.iter_mut().zip(&part.change).for_each(|(sum, part)| *sum += part);
        for residuals in part.residuals.chunks_exact(outputs) {
            table[outputs * row_of(selection, seen)..][..outputs].copy_from_slice(residuals);
            seen += 1;
        }
    }
    (loss, change)
}

/// The largest squared length of a row `z_i`.
#[must_use]
pub fn largest_row(design: &Design) -> f64 {
    let parts = map_selection(Selection::Range(0, design.rows()), |_, selection| {
        let mut tile = design.tile::<f32>();
        let mut largest = 0.0_f64;
        for span in design.spans(selection) {
            design.fill(span, &mut tile);
            let mut squares = [0.0_f32; PANEL_ROWS];
            for column in design.view(&tile).main.chunks_exact(PANEL_ROWS).take(design.columns()) {
                squares.iter_mut().zip(column).for_each(|(sum, z)| *sum += z * z);
            }
            largest = squares[..tile.rows].iter().fold(largest, |m, &square| m.max(f64::from(square)));
        }
        largest
    });
    parts.into_iter().fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::glm::tests::{LIKELIHOODS, close, design, theta};
    use crate::device::cpu::glm::{GramWeights, Request, pass};

    /// With a table of zeros the change is the gradient; later it is the difference of two gradients, for any rows.
    #[test]
    fn exchanges_add_up_to_differences_of_gradients() {
        for (likelihood, classes) in LIKELIHOODS {
            let design = design(5000, classes);
            let outputs = likelihood.outputs();
            let first = theta(outputs * design.columns());
            let second: Vec<f64> = first.iter().map(|t| (5.0 * t).cos()).collect();
            let some: Vec<u32> = (0..design.rows() as u32).step_by(3).rev().collect();
            for (high, tolerance) in [(true, 1e-12), (false, 5e-6)] {
                let gradient = |theta: &[f64], selection| {
                    let request = Request { gradient: true, squares: false, gram: GramWeights::None };
                    let sums = pass(&design, likelihood, theta, selection, request, high);
                    (sums.loss, sums.gradient)
                };
                let mut table = vec![0.0; outputs * design.rows()];
                let all = Selection::Range(0, design.rows());
                let (loss, change) = exchange(&design, likelihood, &first, all, &mut table, high);
                let (expected, old) = gradient(&first, all);
                close(&[loss], &[expected], tolerance);
                close(&change, &old, tolerance);
                let list = Selection::List(&some);
                let (_, change) = exchange(&design, likelihood, &second, list, &mut table, high);
                let (new, old) = (gradient(&second, list).1, gradient(&first, list).1);
                let expected: Vec<f64> = new.iter().zip(&old).map(|(new, old)| new - old).collect();
                close(&change, &expected, tolerance);
                // The table now holds the new residuals of these rows and the old ones of the others.
                let (_, back) = exchange(&design, likelihood, &first, all, &mut table, high);
                let expected: Vec<f64> = change.iter().map(|c| -c).collect();
                close(&back, &expected, 4.0 * tolerance);
            }
        }
    }
}
