//! Normal equations of generalized linear models: the information matrix, its bound, and what the data say where no unique
//! or no finite optimum exists.
//!
//! For several classes the information consists of the blocks `sum_i p_a ([a = b] - p_b) z_i z_i'`; its bound is
//! `1/2 (I - 11'/K) (x) Z'Z` (Böhning 1992). Separation is a direction along which no row's likelihood falls: with
//! `margin = eta_y - max of the other predictors`, one whose margins are nowhere negative.

use super::{DENSE_LIMIT, Glm, Regularizer};
use crate::device::cpu::design::Selection;
use crate::device::cpu::glm::{GramWeights, Likelihood, Request, Sums};
use crate::device::cpu::linalg::{self, ScaledCholesky};
use crate::error::{Error, Result};
use crate::oracle::{Answer, Cost, Information, NormalEquations, NormalSystem, Rows, Separation, Vector};
use ndarray::{Array1, Array2};

/// A remaining diagonal below this share of its column's own marks a column as dependent on earlier ones.
const RANK_TOLERANCE: f64 = 1e-10;

/// A margin above minus this share of the largest predictor is zero but for rounding.
const MARGIN_TOLERANCE: f64 = 1e-9;

/// Newton steps in `f64` after which what does converge has done so, and a direction of recession stands alone.
const PRECISE_STEPS: usize = 3;

/// The loss alone.
const VALUE: Request = Request { gradient: false, squares: false, gram: GramWeights::None };

impl Glm {
    /// The information matrix over `rows`, `p x p`, mean over rows, in `f64` throughout if `high`; with it the sums of the
    /// first pass. The binary model needs one pass, `C` linear predictors one for each of the `C (C + 1)/2` blocks.
    pub(super) fn information(&self, at: &Vector, rows: Rows<'_>, high: bool) -> Result<(Sums, Array2<f64>, Cost)> {
        let (selection, divisor) = self.selection(rows);
        let (c, d) = (self.likelihood.outputs(), self.train.columns());
        let mut information = Array2::zeros((c * d, c * d));
        let mut first = None;
        let mut cost = Cost::default();
        for a in 0..c {
            for b in 0..=a {
                let request =
                    Request { gradient: first.is_none(), squares: false, gram: GramWeights::Information(a, b) };
                let mut sums = self.sums(at, selection, request, high)?;
                cost += self.cost(selection.len(), request);
                for j in 0..d {
                    for k in 0..=j {
                        let value = sums.gram[j * d + k] / divisor;
                        information[[a * d + j, b * d + k]] = value;
                        information[[a * d + k, b * d + j]] = value;
                    }
                }
                sums.gram = Vec::new();
                first.get_or_insert(sums);
            }
        }
        if let (Regularizer::Ridge(strength), Rows::All | Rows::Batch(_)) = (self.regularizer, rows) {
            for i in 0..c * d {
                if self.is_penalized(i) {
                    information[[i, i]] += strength;
                }
            }
        }
        linalg::symmetrize(&mut information);
        Ok((first.unwrap_or_default(), information, cost))
    }

    /// Böhning's bound over `rows` (for real targets the information itself). It is formed once, so its sums are in `f64`: columns that depend on others are then
    /// told from rounding.
    fn bound(&self, at: &Vector, rows: Rows<'_>) -> Result<(Sums, Information, Cost)> {
        let (selection, divisor) = self.selection(rows);
        let request = Request { gradient: true, squares: false, gram: GramWeights::Unit };
        let sums = self.sums(at, selection, request, true)?;
        let d = self.train.columns();
        let mut right =
            Array2::from_shape_fn((d, d), |(j, k)| if k <= j { sums.gram[j * d + k] / divisor } else { 0.0 });
        linalg::symmetrize(&mut right);
        let strength = if let Regularizer::Ridge(strength) = self.regularizer { strength } else { 0.0 };
        let ridge = (0..d).map(|j| if self.is_penalized(j) { strength } else { 0.0 }).collect();
        let left = match self.likelihood {
            Likelihood::Binary => Array2::from_elem((1, 1), 0.25),
            Likelihood::Gaussian => Array2::from_elem((1, 1), 1.0),
            Likelihood::Multinomial { classes, .. } => {
                let c = self.likelihood.outputs();
                Array2::from_shape_fn((c, c), |(a, b)| 0.5 * (f64::from(u8::from(a == b)) - 1.0 / classes as f64))
            }
        };
        Ok((sums, Information::KroneckerBound { left, right, ridge }, self.cost(selection.len(), request)))
    }

    /// Whether the objective has one finite optimum whatever the data.
    fn is_ridged(&self) -> bool {
        matches!(self.regularizer, Regularizer::Ridge(strength) if strength > 0.0)
    }

    /// Names of the coordinates that make up a direction, intercepts aside.
    fn names_of(&self, direction: &Vector, share: f64) -> Vec<String> {
        let least = share * direction.norm_max();
        let names = crate::oracle::Problem::coordinate_names(self);
        let is_slope = |i: usize| !(self.transform.intercept() && i.is_multiple_of(self.train.columns()));
        let moving = direction.host().iter().enumerate().filter(|(i, v)| is_slope(*i) && v.abs() > least);
        moving.map(|(i, _)| names[i].clone()).collect()
    }

    /// Columns whose values in one class all lie at or beyond those in the other, as one direction: each separates on its
    /// own, wholly or with rows on the border.
    fn separating_columns(&self) -> Vector {
        let intercept = usize::from(self.transform.intercept());
        let mut direction = Vector::zeros(&self.layout);
        for (j, [(low0, high0), (low1, high1)]) in self.train.class_extremes().into_iter().enumerate().skip(intercept) {
            let (sign, threshold) = if low0 == high1 && high0 == low1 {
                continue;
            } else if high0 <= low1 {
                (1.0, low1)
            } else if high1 <= low0 {
                (-1.0, low0)
            } else {
                continue;
            };
            direction.host_mut()[j] += sign;
            if intercept == 1 {
                direction.host_mut()[0] -= sign * threshold;
            }
        }
        direction
    }

    /// Newton's step at a point in `f64` throughout, along the coordinates that `step` moves: a direction of recession
    /// hides in the rounding of `f32` sums.
    pub(super) fn precise_step(&self, at: &Vector, step: &Vector) -> Result<(Vector, Cost)> {
        let free: Vec<usize> = (0..step.len()).filter(|&i| step.host()[i] != 0.0).collect();
        if free.is_empty() || step.len() > DENSE_LIMIT {
            return Ok((step.clone(), Cost::default()));
        }
        let (sums, information, cost) = self.information(at, Rows::All, true)?;
        let right: Array1<f64> = free.iter().map(|&i| -sums.gradient[i] / self.train.rows() as f64).collect();
        let solution = ScaledCholesky::new(&information, &free)?.solve(right.view())?;
        let mut precise = step.zeros_like();
        for (&i, value) in free.iter().zip(solution) {
            precise.host_mut()[i] = value;
        }
        Ok((precise, cost))
    }
}

impl NormalEquations for Glm {
    fn normal_system(&self, at: &Vector, rows: Rows<'_>, bound: bool) -> Result<Answer<NormalSystem>> {
        if !bound && self.layout.len() > DENSE_LIMIT {
            return Err(Error::Numeric(format!(
                "the information matrix of {} coefficients would take {:.1} GB; it is formed up to {DENSE_LIMIT}. \
                 Use information = \"bound\", fewer features, or hessian-free",
                self.layout.len(),
                8e-9 * (self.layout.len() as f64).powi(2)
            )));
        }
        let (sums, information, cost) = if bound {
            self.bound(at, rows)?
        } else {
            let (sums, information, cost) = self.information(at, rows, self.high)?;
            (sums, Information::Dense(information), cost)
        };
        let (_, divisor) = self.selection(rows);
        let mut gradient = Vector::zeros(&self.layout);
        gradient.host_mut().iter_mut().zip(&sums.gradient).for_each(|(g, s)| *g = s / divisor);
        let value = self.add_ridge(at, rows, sums.loss / divisor, Some(&mut gradient));
        Ok(Answer { value: NormalSystem { value, gradient, information }, cost })
    }

    fn dense_limit(&self) -> usize {
        DENSE_LIMIT
    }

    fn redundant_coordinates(&self) -> Vec<usize> {
        let Likelihood::Multinomial { classes, reference: false } = self.likelihood else { return Vec::new() };
        let d = self.train.columns();
        let last = (classes - 1) * d;
        if !self.is_ridged() {
            (last..last + d).collect()
        } else if self.transform.intercept() {
            vec![last]
        } else {
            Vec::new()
        }
    }

    fn dependent_coordinates(&self) -> Result<Answer<Vec<(usize, String)>>> {
        if self.is_ridged() {
            return Ok(Answer { value: Vec::new(), cost: Cost::default() });
        }
        let d = self.train.columns();
        let zeros = Vector::zeros(&self.layout);
        let request = Request { gradient: false, squares: false, gram: GramWeights::Unit };
        let all = Selection::Range(0, self.train.rows());
        let sums = self.sums(&zeros, all, request, true)?;
        let gram = Array2::from_shape_vec((d, d), sums.gram).map_err(|e| Error::Numeric(e.to_string()))?;
        let names = self.column_names();
        let dependent = linalg::dependent_columns(&gram, RANK_TOLERANCE);
        let value = (0..self.likelihood.outputs())
            .flat_map(|c| dependent.iter().map(move |&j| (c * d + j, j)))
            .map(|(place, j)| (place, names[j].clone()))
            .collect();
        Ok(Answer { value, cost: self.cost(self.train.rows(), request) })
    }

    fn separation(&self, at: &Vector, step: &Vector) -> Result<Answer<Option<Separation>>> {
        if self.is_ridged() || self.likelihood == Likelihood::Gaussian {
            return Ok(Answer { value: None, cost: Cost::default() });
        }
        let all = Selection::Range(0, self.train.rows());
        let margins = |of: &Vector| self.sums(of, all, VALUE, true);
        let pass_cost = self.cost(self.train.rows(), VALUE);
        let mut cost = pass_cost;
        if margins(at)?.smallest_margin > 0.0 {
            let columns = self.names_of(at, MARGIN_TOLERANCE);
            return Ok(Answer { value: Some(Separation { complete: true, columns, direction: at.clone() }), cost });
        }
        let mut direction = Vector::zeros(&self.layout);
        if self.likelihood == Likelihood::Binary {
            direction = self.separating_columns();
            cost += pass_cost;
        }
        let mut columns = self.names_of(&direction, 0.0);
        // Else the direction in which the coefficients grow may be one of recession.
        let mut at = at.clone();
        for _ in 0..PRECISE_STEPS {
            if !columns.is_empty() {
                break;
            }
            let (precise, step_cost) = self.precise_step(&at, step)?;
            let along = margins(&precise)?;
            cost += step_cost;
            cost += pass_cost;
            let scale = along.largest_predictor;
            if scale > 0.0 && along.smallest_margin >= -MARGIN_TOLERANCE * scale {
                columns = self.names_of(&precise, 1e-6);
                direction = precise;
            } else {
                at.axpy(1.0, &precise);
            }
        }
        let value = (!columns.is_empty()).then_some(Separation { complete: false, columns, direction });
        Ok(Answer { value, cost })
    }

    fn largest_predictor(&self, at: &Vector) -> Result<Answer<f64>> {
        let (sums, cost) = self.pass(at, Selection::Range(0, self.train.rows()), VALUE)?;
        Ok(Answer { value: sums.largest_predictor, cost })
    }
}
