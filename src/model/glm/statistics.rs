//! What statistics knows about a fitted generalized linear model: standard errors, tests, deviances, information criteria,
//! leverages and leave-one-out figures.
//!
//! Everything follows from the information `M = H + n P`, `H = sum_i J_i' W_i J_i`, at the stored coefficients, in `f64`;
//! `P` is the ridge's strength on penalized coordinates:
//! - covariance of the estimates `phi M^-1 H M^-1`, which is `phi H^-1` without a ridge; `phi` is the residual variance
//!   `sum_i e_i^2 / (n - edf)` of a real target and else 1;
//! - effective degrees of freedom `edf = tr(M^-1 H) = sum_i h_i`;
//! - AIC `2 edf - 2 l` and BIC `edf ln n - 2 l` with the log-likelihood `l`, for a real target at its best variance.
//!
//! McCullagh and Nelder 1989, chapters 2, 4 and 12. The leverages `h_i` and rows left out: src/device/cpu/leverage.rs.

use super::predictor::probabilities;
use super::{DENSE_LIMIT, Glm, Regularizer};
use crate::device::cpu::design::Selection;
use crate::device::cpu::glm::{self, Likelihood};
use crate::device::cpu::leverage::influence;
use crate::device::cpu::linalg::ScaledCholesky;
use crate::error::{Error, Result};
use crate::measure::distribution::Distribution;
use crate::model::{Coefficient, Held, Inspection, Model, RowStatistics, Separability, Weights};
use crate::oracle::{NormalEquations, Rows, Vector};
use ndarray::{Array1, Array2};
use std::f64::consts::PI;

/// A point passes for the optimum where Newton's step moves no coefficient by more than this many standard errors: what
/// is missing is then less than a ten-thousandth of what one coefficient explains by chance.
const OPTIMUM: f64 = 0.01;

/// Linear predictors beyond this size call for a look for separation.
const SUSPICIOUS_PREDICTOR: f64 = 12.0;

/// Newton steps after which what does converge has done so, while coefficients without a finite optimum still grow.
const SETTLING_STEPS: usize = 4;

/// A coefficient still grows if by more than this share of the one that grows most.
const GROWING: f64 = 1e-3;

/// A point and what follows from the information there.
struct Point {
    theta: Vector,
    /// Why coordinates are not free.
    held: Vec<Option<Held>>,
    /// The others, increasing.
    free: Vec<usize>,
    /// `A` with `n M^-1 = A'A` over the free coordinates.
    factor: Array2<f64>,
    /// The diagonal of `M / n`.
    diagonal: Array1<f64>,
    /// The objective's gradient, with l1 its smallest subgradient.
    gradient: Vec<f64>,
    /// Newton's step.
    step: Vector,
    /// The loss of all rows.
    loss: f64,
    /// Rows classified rightly.
    correct: u64,
    separation: Option<Separability>,
    /// The direction in which coefficients without a finite optimum grow; zeros where there are none.
    growth: Vec<f64>,
}

/// A coefficient to be shown: a sum over coordinates.
struct Contrast {
    class: usize,
    name: String,
    terms: Vec<(usize, f64)>,
}

impl Glm {
    /// The statistics of fitted weights.
    pub(super) fn statistics(&self, weights: &Weights, level: f64, raw: bool) -> Result<Inspection> {
        let point = self.point(weights)?;
        let mut inspection = self.fit_statistics(&point);
        self.row_statistics(&point, &mut inspection);
        self.add_degrees_of_freedom(&point, &mut inspection);
        self.add_left_out(&mut inspection);
        inspection.coefficients = self.coefficients(&point, &inspection, level, raw);
        Ok(inspection)
    }

    /// The regularizer's name and strength; a strength of zero is none.
    fn penalty(&self) -> (&'static str, f64) {
        match self.regularizer {
            Regularizer::Ridge(strength) if strength > 0.0 => ("ridge", strength),
            Regularizer::L1(strength) if strength > 0.0 => ("l1", strength),
            _ => ("none", 0.0),
        }
    }

    fn parameters(&self, weights: &Weights) -> Result<Vector> {
        let values = weights.tensors.get("coefficients").map(|(_, values)| values.clone()).unwrap_or_default();
        let theta = Vector::from_values(&self.layout, values).ok();
        let own = theta.as_ref().map(|theta| self.weights(theta).metadata).unwrap_or_default();
        let same = |(key, value): (&String, &String)| weights.metadata.get(key) == Some(value);
        theta.filter(|_| own.iter().all(same)).ok_or_else(|| {
            let finding = format!("they are not those of the model {} on this dataset", self.name);
            Error::config("weights", finding, "run the cell again")
        })
    }

    fn point(&self, weights: &Weights) -> Result<Point> {
        let theta = self.parameters(weights)?;
        let p = theta.len();
        if p > DENSE_LIMIT {
            let finding = format!(
                "the information matrix of {p} coefficients would take {:.1} GB; it is formed up to {DENSE_LIMIT}",
                8e-9 * (p as f64).powi(2)
            );
            return Err(Error::config(format!("model {}", self.name), finding, "inspect a fit with fewer features"));
        }
        let held = self.held(&theta)?;
        let free: Vec<usize> = (0..p).filter(|&i| held[i].is_none()).collect();
        let (sums, information, _) = self.information(&theta, Rows::All, true)?;
        let diagonal = information.diag().to_owned();
        let factor = ScaledCholesky::new(&information, &free)?.inverse_factor()?;
        drop(information);
        let gradient = self.smallest_subgradient(&theta, &sums.gradient);
        let of_free: Array1<f64> = free.iter().map(|&i| gradient[i]).collect();
        let mut step = theta.zeros_like();
        for (&i, s) in free.iter().zip(factor.t().dot(&factor.dot(&of_free))) {
            step.host_mut()[i] = -s;
        }
        let (mut separation, mut growth) = (None, vec![0.0; p]);
        if self.penalty().1 == 0.0
            && sums.largest_predictor > SUSPICIOUS_PREDICTOR
            && let Some(found) = NormalEquations::separation(self, &theta, &step)?.value
        {
            separation = Some(if found.complete { Separability::Complete } else { Separability::Quasi });
            // One separating direction is known, there may be more: Newton's steps go along all of them for ever.
            let direction = if found.complete { found.direction } else { self.step_after_settling(&theta, &step)? };
            let least = GROWING * direction.norm_max();
            growth =
                direction.host().iter().map(|&v| if found.complete || v.abs() > least { v } else { 0.0 }).collect();
        }
        let (loss, correct) = (sums.loss, sums.correct);
        Ok(Point { theta, held, free, factor, diagonal, gradient, step, loss, correct, separation, growth })
    }

    /// Newton's step some steps on, along the same coordinates.
    fn step_after_settling(&self, theta: &Vector, step: &Vector) -> Result<Vector> {
        let (mut at, mut step) = (theta.clone(), step.clone());
        for _ in 0..SETTLING_STEPS {
            at.axpy(1.0, &step);
            step = self.precise_step(&at, &step)?.0;
        }
        Ok(step)
    }

    /// Why coordinates are not free: l1 holds them at zero, others make them superfluous.
    fn held(&self, theta: &Vector) -> Result<Vec<Option<Held>>> {
        let mut held = vec![None; theta.len()];
        if self.penalty().0 == "l1" {
            for (i, held) in held.iter_mut().enumerate() {
                *held = (self.is_penalized(i) && theta.host()[i] == 0.0).then_some(Held::Penalized);
            }
            return Ok(held);
        }
        for (i, _) in self.dependent_coordinates()?.value {
            held[i] = Some(Held::Dependent);
        }
        for i in self.redundant_coordinates() {
            held[i] = Some(Held::Redundant);
        }
        Ok(held)
    }

    /// The objective's gradient from the loss's; with l1 the element of its subdifferential nearest to zero.
    fn smallest_subgradient(&self, theta: &Vector, sums: &[f64]) -> Vec<f64> {
        let penalty = self.penalty();
        let element = |(i, (sum, &theta)): (usize, (&f64, &f64))| {
            let g = sum / self.train.rows() as f64;
            match penalty {
                ("ridge", strength) if self.is_penalized(i) => g + strength * theta,
                ("l1", strength) if self.is_penalized(i) && theta == 0.0 => g.signum() * (g.abs() - strength).max(0.0),
                ("l1", strength) if self.is_penalized(i) => g + strength * theta.signum(),
                _ => g,
            }
        };
        sums.iter().zip(theta.host()).enumerate().map(element).collect()
    }

    /// What does not need the leverages.
    fn fit_statistics(&self, point: &Point) -> Inspection {
        let n = self.train.rows() as f64;
        let (regularizer, strength) = self.penalty();
        let of_variance = |squares: f64| -0.5 * n * ((2.0 * PI * squares / n).ln() + 1.0);
        let null = self.null_loss();
        let (log_likelihood, null_log_likelihood) = match self.likelihood {
            Likelihood::Gaussian => (of_variance(2.0 * point.loss), of_variance(2.0 * null)),
            _ => (-point.loss, -null),
        };
        Inspection {
            classes: self.classes.clone(),
            rows: self.train.rows(),
            regularizer,
            strength,
            gradient_norm: point.gradient.iter().fold(0.0, |largest: f64, g| largest.max(g.abs())),
            separation: point.separation,
            log_likelihood,
            null_log_likelihood,
            deviance: 2.0 * point.loss,
            null_deviance: 2.0 * null,
            r_squared: 1.0 - point.loss / null,
            loss: point.loss / n,
            accuracy: (self.likelihood != Likelihood::Gaussian).then(|| point.correct as f64 / n),
            ..Inspection::default()
        }
    }

    /// The loss of all rows with nothing but an intercept or, where the model has none, with all predictors zero.
    fn null_loss(&self) -> f64 {
        let rows = self.train.rows();
        let targets = || (0..rows).map(|row| f64::from(self.train.target(row)));
        if self.likelihood == Likelihood::Gaussian {
            let mean = if self.transform.intercept() { targets().sum::<f64>() / rows as f64 } else { 0.0 };
            return 0.5 * targets().map(|y| (y - mean).powi(2)).sum::<f64>();
        }
        if !self.transform.intercept() {
            return rows as f64 * (self.classes.len() as f64).ln();
        }
        let mut counts = vec![0_usize; self.classes.len()];
        targets().for_each(|class| counts[class as usize] += 1);
        let present = counts.into_iter().filter(|&count| count > 0).map(|count| count as f64);
        present.map(|count| count * (rows as f64 / count).ln()).sum()
    }

    fn row_statistics(&self, point: &Point, inspection: &mut Inspection) {
        let (rows, outputs) = (self.train.rows(), self.likelihood.outputs());
        let all = Selection::Range(0, rows);
        let predictors = glm::linear_predictors(&self.train, outputs, point.theta.host(), all);
        let mut wide = Array2::zeros((point.free.len(), point.theta.len()));
        for (&place, column) in point.free.iter().zip(point.factor.columns()) {
            wide.column_mut(place).assign(&(&column / (rows as f64).sqrt()));
        }
        let found = influence(&self.train, self.likelihood, &predictors, wide.view(), &point.free);
        inspection.row_statistics = RowStatistics {
            outputs,
            targets: (0..rows).map(|row| self.train.target(row)).collect(),
            fitted: probabilities(self.likelihood, &predictors),
            predictors,
            leverages: found.leverages,
            left_out: found.left_out,
        };
    }

    /// What follows from the leverages, and how far the point is from the optimum.
    fn add_degrees_of_freedom(&self, point: &Point, inspection: &mut Inspection) {
        let n = self.train.rows() as f64;
        let leverages = &inspection.row_statistics.leverages;
        let edf: f64 = leverages.iter().sum();
        let largest =
            (0..leverages.len()).fold(0, |best, row| if leverages[row] > leverages[best] { row } else { best });
        (inspection.largest_leverage, inspection.largest_leverage_row) = (leverages[largest], largest);
        inspection.effective_degrees_of_freedom = edf;
        inspection.residual_degrees_of_freedom = n - edf;
        inspection.aic = 2.0 * edf - 2.0 * inspection.log_likelihood;
        inspection.bic = edf * n.ln() - 2.0 * inspection.log_likelihood;
        let mut unit = 1.0 / n.sqrt();
        if self.likelihood == Likelihood::Gaussian {
            let error = (2.0 * point.loss / (n - edf).max(0.0)).sqrt();
            inspection.residual_standard_error = Some(error);
            unit *= error;
        }
        let mut newton_step: f64 = 0.0;
        for (&i, column) in point.free.iter().zip(point.factor.columns()) {
            newton_step = newton_step.max(point.step.host()[i].abs() / (unit * column.dot(&column).sqrt()));
        }
        for i in (0..point.held.len()).filter(|&i| point.held[i] == Some(Held::Penalized)) {
            newton_step = newton_step.max(point.gradient[i].abs() / (unit * point.diagonal[i].sqrt()));
        }
        inspection.newton_step = newton_step;
        inspection.is_optimum = newton_step <= OPTIMUM && point.separation.is_none();
    }

    /// Figures of rows left out, or why there are none.
    fn add_left_out(&self, inspection: &mut Inspection) {
        let rows = &mut inspection.row_statistics;
        inspection.not_left_out = if inspection.separation.is_some() {
            Some("some coefficients have no finite optimum".to_owned())
        } else if !inspection.is_optimum {
            Some("the coefficients are not at the optimum".to_owned())
        } else if rows.left_out.iter().any(|eta| eta.is_nan()) {
            Some("some rows determine a coefficient alone: their leverage is 1".to_owned())
        } else {
            None
        };
        if inspection.not_left_out.is_some() {
            rows.left_out = Vec::new();
            return;
        }
        let (mut loss, mut correct) = (0.0, 0_u64);
        for (eta, &y) in rows.left_out.chunks_exact(rows.outputs).zip(&rows.targets) {
            let (of_row, is_correct) = score(self.likelihood, eta, f64::from(y));
            loss += of_row;
            correct += u64::from(is_correct);
        }
        let n = self.train.rows() as f64;
        inspection.left_out_loss = Some(loss / n);
        if self.likelihood == Likelihood::Gaussian {
            inspection.press = Some(2.0 * loss);
        } else {
            inspection.left_out_accuracy = Some(correct as f64 / n);
        }
    }

    fn coefficients(&self, point: &Point, of: &Inspection, level: f64, raw: bool) -> Vec<Coefficient> {
        let contrasts: Vec<Contrast> =
            (0..self.likelihood.outputs()).flat_map(|class| self.contrasts(class, raw)).collect();
        let scale = of.residual_standard_error.unwrap_or(1.0);
        let distribution = match of.residual_standard_error {
            Some(_) => Distribution::Student(of.residual_degrees_of_freedom),
            None => Distribution::Normal,
        };
        // With as many coefficients as rows nothing is left to estimate a variance from.
        let is_saturated =
            of.residual_standard_error.is_some() && of.residual_degrees_of_freedom < 1e-9 * of.rows as f64;
        let quantile = if is_saturated { f64::NAN } else { distribution.quantile(level) };
        let own_classes = &self.classes[self.classes.len().saturating_sub(self.likelihood.outputs())..];
        let errors = self.standard_errors(point, &contrasts);
        let coefficient = |(contrast, error): (Contrast, f64)| {
            let estimate = contrast.terms.iter().map(|&(i, factor)| factor * point.theta.host()[i]).sum::<f64>();
            let held = self.reason(point, &contrast.terms).or(is_saturated.then_some(Held::Saturated));
            let standard_error = held.is_none().then_some(scale * error);
            let tested = standard_error.filter(|_| of.regularizer == "none");
            let statistic = tested.map(|error| estimate / error);
            Coefficient {
                class: matches!(self.likelihood, Likelihood::Multinomial { .. })
                    .then(|| own_classes[contrast.class].clone()),
                name: contrast.name,
                estimate,
                held,
                standard_error,
                statistic,
                p: statistic.map(|statistic| distribution.two_sided(statistic)),
                interval: tested.map(|error| [estimate - quantile * error, estimate + quantile * error]),
            }
        };
        contrasts.into_iter().zip(errors).map(coefficient).collect()
    }

    /// Why a coefficient has no standard error.
    fn reason(&self, point: &Point, terms: &[(usize, f64)]) -> Option<Held> {
        if self.penalty().0 == "l1" {
            return Some(Held::Penalized);
        }
        let along: f64 = terms.iter().map(|&(i, factor)| factor * point.growth[i]).sum();
        let size: f64 = terms.iter().map(|&(i, factor)| (factor * point.growth[i]).abs()).sum();
        if along.abs() > GROWING * size {
            return Some(Held::Separated);
        }
        let mut reasons = terms.iter().map(|&(i, _)| point.held[i]);
        let first = reasons.next().flatten()?;
        reasons.all(|reason| reason.is_some()).then_some(first)
    }

    /// The coefficients of a class: those of the standardized columns, or those that give the same predictor as a function
    /// of the raw ones.
    fn contrasts(&self, class: usize, raw: bool) -> Vec<Contrast> {
        let (names, base) = (self.column_names(), class * self.train.columns());
        if !raw {
            let own = |(j, name)| Contrast { class, name, terms: vec![(base + j, 1.0)] };
            return names.into_iter().enumerate().map(own).collect();
        }
        let d = self.transform.inputs();
        let (mean, sd) = self.transform.means_and_deviations();
        let first = base + usize::from(self.transform.intercept());
        let mut constant = vec![(base, f64::from(u8::from(self.transform.intercept())))];
        let mut columns: Vec<Vec<(usize, f64)>> = Vec::new();
        for (place, (a, b)) in self.transform.expansion().factors(d).enumerate() {
            let coordinate = first + place;
            let Some(b) = b else {
                columns.push(vec![(coordinate, 1.0 / sd[a])]);
                constant.push((coordinate, -mean[a] / sd[a]));
                continue;
            };
            // ((x_a - m_a)(x_b - m_b) / (s_a s_b) - m) / s, multiplied out.
            let factor = 1.0 / (sd[a] * sd[b] * sd[place]);
            columns.push(vec![(coordinate, factor)]);
            columns[a].push((coordinate, -factor * mean[b]));
            columns[b].push((coordinate, -factor * mean[a]));
            constant.push((coordinate, factor * mean[a] * mean[b] - mean[place] / sd[place]));
        }
        let constant_name = "(intercept)".to_owned();
        let mut all = vec![(constant_name, constant)];
        all.extend(self.transform.expansion().names(&self.inputs).into_iter().zip(columns));
        all.iter_mut().for_each(|(_, terms)| terms.retain(|(_, factor)| *factor != 0.0));
        all.retain(|(_, terms)| !terms.is_empty());
        all.into_iter().map(|(name, terms)| Contrast { class, name, terms }).collect()
    }

    /// Standard deviations of the estimates of contrasts, at a residual variance of one.
    fn standard_errors(&self, point: &Point, contrasts: &[Contrast]) -> Vec<f64> {
        let k = point.free.len();
        let mut place = vec![None; point.held.len()];
        point.free.iter().enumerate().for_each(|(row, &i)| place[i] = Some(row));
        let terms: Vec<Vec<(usize, f64)>> = contrasts
            .iter()
            .map(|c| c.terms.iter().filter_map(|&(i, factor)| Some((place[i]?, factor))).collect())
            .collect();
        // A times the contrasts; n M^-1 H M^-1 = A'A - A'A P A'A.
        let mut rotated = Array2::zeros((k, contrasts.len()));
        for (mut out, row) in rotated.rows_mut().into_iter().zip(point.factor.rows()) {
            for (out, terms) in out.iter_mut().zip(&terms) {
                *out = terms.iter().map(|&(j, factor)| factor * row[j]).sum();
            }
        }
        let mut variances: Vec<f64> = rotated.columns().into_iter().map(|column| column.dot(&column)).collect();
        if let ("ridge", strength) = self.penalty() {
            let inverse = point.factor.t().dot(&rotated);
            for (row, _) in point.free.iter().enumerate().filter(|(_, i)| self.is_penalized(**i)) {
                variances.iter_mut().zip(inverse.row(row)).for_each(|(v, s)| *v -= strength * s * s);
            }
        }
        variances.into_iter().map(|v| (v.max(0.0) / self.train.rows() as f64).sqrt()).collect()
    }
}

/// The loss of a row, and whether its most probable class is right.
fn score(likelihood: Likelihood, eta: &[f64], y: f64) -> (f64, bool) {
    match likelihood {
        Likelihood::Gaussian => (0.5 * (eta[0] - y).powi(2), false),
        Likelihood::Binary => {
            (eta[0].max(0.0) - y * eta[0] + (-eta[0].abs()).exp().ln_1p(), (eta[0] > 0.0) == (y == 1.0))
        }
        Likelihood::Multinomial { reference, .. } => {
            let logits = || reference.then_some(0.0).into_iter().chain(eta.iter().copied());
            let largest = logits().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = logits().map(|logit| (logit - largest).exp()).sum();
            let of_target = logits().nth(y as usize).unwrap_or(f64::NAN);
            let most_probable = logits().position(|logit| logit == largest);
            (total.ln() + largest - of_target, most_probable == Some(y as usize))
        }
    }
}
