//! Operations of [`Regression`](crate::device::Regression).

use super::{Bench, Case, DOUBLE, SINGLE};
use crate::device::cpu::design::{Design, Expansion, Transform};
use crate::device::cpu::glm::{GramWeights, Likelihood, Request, Sums};
use crate::device::{Panels, Selection};
use std::sync::Arc;

/// Likelihoods of up to eleven classes, more than the kernels take at once.
fn likelihood(name: &str, b: &mut Bench<'_>) -> Likelihood {
    match name {
        "binary" => Likelihood::Binary,
        "gaussian" => Likelihood::Gaussian,
        _ => Likelihood::Multinomial { classes: 2 + b.random.below(10), reference: name == "multinomial, reference" },
    }
}

const LIKELIHOODS: [&str; 4] = ["binary", "gaussian", "multinomial", "multinomial, reference"];

/// A design somewhere in rows of data: linear, squares or products, with as many columns as tiles of the kernels have and more,
/// fewer where there are several outputs.
fn design(b: &mut Bench<'_>, likelihood: Likelihood) -> Design {
    let rows = 4 * b.columns() + 3;
    let several = if likelihood.outputs() > 1 { 3 } else { 1 };
    let (expansion, inputs) = match b.random.below(3) {
        0 => (Expansion::Linear, b.size(70 / several)),
        1 => (Expansion::Squares, b.size(40 / several)),
        _ => (Expansion::Products, b.size(11 / several)),
    };
    let columns = expansion.columns(inputs);
    let mean: Vec<f64> = (0..columns).map(|_| f64::from(b.random.uniform())).collect();
    let sd: Vec<f64> = (0..columns).map(|_| 0.5 + f64::from(b.random.uniform())).collect();
    let transform = Transform::standardized(expansion, b.random.below(3) > 0, inputs, &mean, &sd);
    let features = Panels::from_fn(rows, inputs, |_, _| b.random.normal());
    let targets = match likelihood {
        Likelihood::Gaussian => Panels::from_fn(rows, 1, |_, _| b.random.normal()),
        _ => Panels::from_fn(rows, 1, |_, _| b.random.below(likelihood.classes()) as f32),
    };
    let start = b.random.below(rows / 2);
    Design::new(features, targets, start..rows - b.random.below(2), Arc::new(transform))
}

/// Coefficients with which predictors are about as large as one.
fn coefficients(b: &mut Bench<'_>, design: &Design, outputs: usize) -> Vec<f64> {
    let size = 1.0 / (design.columns() as f64).sqrt();
    (0..outputs * design.columns()).map(|_| size * f64::from(b.random.normal())).collect()
}

/// Part of the rows in order, or some of them in another, none twice.
fn with_selection(b: &mut Bench<'_>, design: &Design, run: impl FnOnce(&mut Bench<'_>, Selection<'_>)) {
    let rows = design.rows();
    if b.random.below(2) == 0 {
        let start = b.random.below(rows);
        return run(b, Selection::Range(start, rows));
    }
    let step = 1 + b.random.below(3);
    let list: Vec<u32> = (0..rows as u32).rev().step_by(step).collect();
    run(b, Selection::List(&list));
}

fn keep_sums(b: &mut Bench<'_>, sums: Sums, high: bool) {
    let Sums { loss, gradient, squares, gram, correct, largest_predictor, smallest_margin } = sums;
    b.number(loss);
    b.outputs.extend([gradient, squares, gram]);
    b.outputs.push(vec![largest_predictor, smallest_margin.min(1e30)]);
    // In f32 a predictor near zero may fall on either side.
    if high {
        b.number(correct as f64);
    }
}

/// All of them with their bounds.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (high, bound) in [(false, SINGLE), (true, DOUBLE)] {
        for name in LIKELIHOODS {
            pass_cases(&mut cases, name, high, bound);
        }
    }
    cases.push(("regression_predictors".into(), DOUBLE, Box::new(predictors)));
    cases.push(("regression_pass, many rows".into(), SINGLE, Box::new(many_rows)));
    cases
}

fn pass_cases(cases: &mut Vec<Case>, name: &'static str, high: bool, bound: f64) {
    let of = |operation: &str| format!("{operation}, {name}{}", if high { ", f64" } else { "" });
    cases.push((
        of("pass"),
        bound,
        Box::new(move |b| {
            let likelihood = likelihood(name, b);
            let design = design(b, likelihood);
            b.device.regression().keep_rows(&design);
            let outputs = likelihood.outputs();
            let theta = coefficients(b, &design, outputs);
            let mut request =
                Request { gradient: b.random.below(3) > 0, squares: b.random.below(2) > 0, gram: GramWeights::None };
            with_selection(b, &design, |b, all| {
                let first = b.random.below(outputs);
                let information = |a| GramWeights::Information(a, first);
                let kinds = [GramWeights::None, GramWeights::Unit, information(first), information(outputs - 1)];
                request.gram = kinds[b.random.below(kinds.len())];
                match b.device.regression().pass(&design, likelihood, &theta, all, request, high) {
                    Ok(sums) => keep_sums(b, sums, high),
                    Err(_) => b.number(f64::NAN),
                }
            });
        }),
    ));
    cases.push((
        of("curvature"),
        bound,
        Box::new(move |b| {
            let likelihood = likelihood(name, b);
            let design = design(b, likelihood);
            let theta = coefficients(b, &design, likelihood.outputs());
            let directions = [(); 2].map(|()| coefficients(b, &design, likelihood.outputs()));
            with_selection(b, &design, |b, all| {
                let regression = b.device.regression();
                let Ok(matrix) = regression.curvature(&design, likelihood, &theta, all, high) else {
                    return b.number(f64::NAN);
                };
                for v in &directions {
                    b.outputs.push(matrix.multiply(v).unwrap_or_default());
                }
            });
        }),
    ));
    cases.push((
        of("exchange_residuals"),
        bound,
        Box::new(move |b| {
            let likelihood = likelihood(name, b);
            let (design, outputs) = (design(b, likelihood), likelihood.outputs());
            let theta = coefficients(b, &design, outputs);
            let mut table: Vec<f64> = (0..outputs * design.rows()).map(|_| f64::from(b.random.normal())).collect();
            with_selection(b, &design, |b, all| {
                let regression = b.device.regression();
                match regression.exchange_residuals(&design, likelihood, &theta, all, &mut table, high) {
                    Ok((loss, change)) => b.outputs.extend([vec![loss], change]),
                    Err(_) => b.number(f64::NAN),
                }
            });
            b.outputs.push(table);
        }),
    ));
}

fn predictors(b: &mut Bench<'_>) {
    let likelihood = likelihood("multinomial", b);
    let (design, outputs) = (design(b, likelihood), likelihood.outputs());
    let theta = coefficients(b, &design, outputs);
    with_selection(b, &design, |b, all| {
        let predictors = b.device.regression().linear_predictors(&design, outputs, &theta, all);
        b.outputs.push(predictors.unwrap_or_default());
    });
}

/// More rows than all blocks of a pass take at once: each comes back for more.
fn many_rows(b: &mut Bench<'_>) {
    let rows = 512 * 256 + 256 + b.columns();
    let features = Panels::from_fn(rows, 1, |_, _| b.random.normal());
    let targets = Panels::from_fn(rows, 1, |_, _| b.random.below(2) as f32);
    let transform = Arc::new(Transform::raw(1, Expansion::Linear, true));
    let design = Design::new(features, targets, 0..rows, transform);
    let all = Selection::Range(0, rows);
    let request = Request { gradient: true, squares: false, gram: GramWeights::None };
    let regression = b.device.regression();
    let Ok(sums) = regression.pass(&design, Likelihood::Binary, &[0.1, -0.4], all, request, false) else {
        return b.number(f64::NAN);
    };
    keep_sums(b, sums, false);
    let Ok(matrix) = regression.curvature(&design, Likelihood::Binary, &[0.1, -0.4], all, false) else {
        return b.number(f64::NAN);
    };
    b.outputs.push(matrix.multiply(&[0.3, 0.7]).unwrap_or_default());
}
