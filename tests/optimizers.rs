//! What the optimizers and the models under them must hold on small problems made here: derivatives, optimality conditions,
//! agreement with each other, and findings where no unique or no finite optimum exists.

use parsimony::data::{Examples, Task};
use parsimony::device::Panels;
use parsimony::model::{self, Model, ModelData};
use parsimony::optim::{self, Fit, Optimizer, OptimizerEntry, Step};
use parsimony::oracle::{
    Capability, Information, Oracle, Problem, Rows, SettingValue, Settings, Stream, Vector, stream,
};
use rand::RngExt as _;
use std::collections::BTreeMap;

type Given<'a> = &'a [(&'a str, SettingValue)];

fn word(w: &str) -> SettingValue {
    SettingValue::Word(w.into())
}

fn real(v: f64) -> SettingValue {
    SettingValue::Real(v)
}

fn given(list: Given<'_>) -> BTreeMap<String, SettingValue> {
    list.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect()
}

/// Rows of features with the class of each, all of them to train on.
fn data(rows: &[(Vec<f32>, usize)], classes: usize) -> ModelData {
    let columns = rows[0].0.len();
    let features = Panels::from_fn(rows.len(), columns, |r, c| rows[r].0[c]);
    let targets = Panels::from_fn(rows.len(), 1, |r, _| rows[r].1 as f32);
    let part = |range| Examples { features: features.clone(), targets: targets.clone(), range };
    ModelData {
        train: part(0..rows.len()),
        validation: part(0..0),
        test: part(0..0),
        task: Task::Classes((0..classes).map(|c| format!("c{c}")).collect()),
        columns: (0..columns).map(|c| format!("x{c}")).collect(),
    }
}

/// Uniform features; classes drawn by a noisy linear rule.
fn drawn(rows: usize, columns: usize, classes: usize) -> ModelData {
    let mut rng = stream(7, Stream::Initialization);
    let rows: Vec<_> = (0..rows)
        .map(|_| {
            let x: Vec<f32> = (0..columns).map(|_| rng.random_range(-1.0..1.0)).collect();
            let score = |c: usize| {
                let rule: f32 = x.iter().enumerate().map(|(j, x)| x * ((c * 5 + j * 3) as f32).sin()).sum();
                2.0 * rule + rng_noise(c, &x)
            };
            let class = (0..classes).max_by(|&a, &b| score(a).total_cmp(&score(b))).unwrap();
            (x, class)
        })
        .collect();
    data(&rows, classes)
}

/// Noise that depends on the row and the class alone.
fn rng_noise(class: usize, x: &[f32]) -> f32 {
    let sum: f32 = x.iter().enumerate().map(|(j, x)| x * (1 + j) as f32).sum();
    3.0 * (1000.0 * (sum + class as f32)).sin()
}

fn build(data: &ModelData, name: &str, settings: Given<'_>) -> Box<dyn Model> {
    let entry = model::registry().into_iter().find(|m| m.name == name).unwrap();
    entry.build(data, &Settings::check("test", entry.settings, &given(settings)).unwrap()).unwrap()
}

fn entry(name: &str) -> OptimizerEntry {
    optim::registry().into_iter().find(|o| o.name == name).unwrap()
}

fn problem(model: &dyn Model) -> &dyn Problem {
    model
}

fn fit(model: &dyn Model, name: &str, settings: Given<'_>, steps: u64) -> Fit {
    let entry = entry(name);
    let settings = Settings::check("test", entry.settings, &given(settings)).unwrap();
    optim::minimize(&entry, &settings, problem(model), 1, steps).unwrap()
}

fn vector(model: &dyn Model, value: impl Fn(usize) -> f64) -> Vector {
    let len = model.layout().len();
    Vector::from_values(model.layout(), (0..len).map(value).collect()).unwrap()
}

const MODELS: [(&str, usize, &str); 4] =
    [("logistic", 2, "auto"), ("softmax", 2, "yes"), ("softmax", 4, "yes"), ("softmax", 4, "no")];

fn models() -> Vec<Box<dyn Model>> {
    let mut all = Vec::new();
    for (name, classes, reference) in MODELS {
        let mut settings = vec![
            ("regularizer", word("ridge")),
            ("strength", real(0.3)),
            ("accuracy", word("high")),
            ("features", word("squares")),
        ];
        if name == "softmax" {
            settings.push(("reference", word(reference)));
        }
        all.push(build(&drawn(400, 3, classes), name, &settings));
    }
    all
}

#[test]
fn gradients_and_information_are_derivatives_with_the_ridge_in_them() {
    for model in models() {
        let (model, h) = (&*model, 1e-5);
        let at = vector(model, |i| 0.3 * (i as f64).cos());
        let batch = parsimony::oracle::Batch::new((0..400).step_by(3).collect());
        for rows in [Rows::All, Rows::Batch(&batch)] {
            let gradient = |at: &Vector| {
                let mut gradient = at.zeros_like();
                let value = problem(model).gradient().unwrap().value_and_gradient(at, rows, &mut gradient).unwrap();
                (value.value, gradient)
            };
            let system = problem(model).normal_equations().unwrap().normal_system(&at, rows, false).unwrap().value;
            let (value, here) = gradient(&at);
            assert!((system.value - value).abs() < 1e-14 && problem(model).value().unwrap().value(&at, rows).is_ok());
            let Information::Dense(information) = system.information else { panic!("a bound") };
            let curvature = problem(model).curvature().unwrap().curvature_at(&at, rows).unwrap().value;
            for i in 0..at.len() {
                let (mut above, mut below) = (at.clone(), at.clone());
                above.host_mut()[i] += h;
                below.host_mut()[i] -= h;
                let ((high, right), (low, left)) = (gradient(&above), gradient(&below));
                assert!(((high - low) / (2.0 * h) - here.host()[i]).abs() < 1e-8, "gradient {i}");
                let unit = vector(model, |j| f64::from(u8::from(i == j)));
                let mut product = at.zeros_like();
                curvature.multiply(&unit, &mut product).unwrap();
                for j in 0..at.len() {
                    let difference = (right.host()[j] - left.host()[j]) / (2.0 * h);
                    assert!((information[[j, i]] - difference).abs() < 1e-8, "information {j} {i}");
                    assert!((product.host()[j] - difference).abs() < 1e-8, "product {j} {i}");
                }
            }
        }
    }
}

#[test]
fn all_deterministic_ways_lead_to_the_same_optimum() {
    for model in models() {
        let exact = fit(&*model, "irls", &[("information", word("exact")), ("tolerance", real(1e-12))], 50);
        let bound = fit(&*model, "irls", &[("information", word("bound")), ("tolerance", real(1e-12))], 3000);
        assert!(matches!(exact.outcome, Step::Converged(_)), "{:?}", exact.outcome);
        let objective = |fit: &Fit| model.objective(&fit.parameters).unwrap().0;
        assert!((objective(&exact) - objective(&bound)).abs() < 1e-12, "{:?}", bound.outcome);
        let others = [("admm", &[][..], 300), ("hessian-free", &[], 100)];
        for (name, settings, steps) in others {
            let other = fit(&*model, name, settings, steps);
            assert!((objective(&other) - objective(&exact)).abs() < 1e-8, "{name}: {:?}", other.outcome);
        }
    }
}

#[test]
fn a_softmax_with_more_intercepts_than_it_needs_is_fitted_in_single_precision() {
    let data = drawn(3000, 5, 4);
    let settings = [("regularizer", word("ridge")), ("strength", real(1e-3))];
    let model = build(&data, "softmax", &settings);
    let fit = fit(&*model, "irls", &[], 50);
    assert!(matches!(fit.outcome, Step::Converged(_)), "{:?}", fit.outcome);
    assert!(fit.steps <= 15 && fit.parameters.norm_max() < 20.0, "{} {:?}", fit.steps, fit.parameters);
    assert!(model.objective(&fit.parameters).unwrap().1.unwrap() < 1e-6);
    assert!(fit.findings.is_empty(), "{:?}", fit.findings);
}

#[test]
fn l1_solutions_satisfy_the_optimality_conditions_and_hold_exact_zeros() {
    let (data, strength) = (drawn(800, 12, 2), 0.03);
    let settings = [("regularizer", word("l1")), ("strength", real(strength)), ("accuracy", word("high"))];
    let sparse = build(&data, "logistic", &settings);
    let smooth = build(&data, "logistic", &[("accuracy", word("high"))]);
    for parts in [1, 5] {
        let settings = [("parts", SettingValue::Whole(parts)), ("absolute_tolerance", real(1e-12))];
        let fit = fit(&*sparse, "admm", &settings, 3000);
        let mut gradient = fit.parameters.zeros_like();
        problem(&*smooth).gradient().unwrap().value_and_gradient(&fit.parameters, Rows::All, &mut gradient).unwrap();
        let (theta, gradient) = (fit.parameters.host(), gradient.host());
        assert!(gradient[0].abs() < 1e-7, "the intercept is free: {}", gradient[0]);
        let zeros = theta[1..].iter().filter(|t| **t == 0.0).count();
        assert!((2..12).contains(&zeros), "{zeros} zeros, {:?}", fit.outcome);
        for (j, (t, g)) in theta.iter().zip(gradient).enumerate().skip(1) {
            if *t == 0.0 {
                assert!(g.abs() <= strength + 1e-7, "{j}: {g}");
            } else {
                assert!((g + strength * t.signum()).abs() < 1e-7, "{j}: {t} {g}");
            }
        }
    }
}

#[test]
fn a_single_block_and_tiny_penalties_do_not_break_admm() {
    let model = build(&drawn(2000, 4, 2), "logistic", &[]);
    let optimum = model.objective(&fit(&*model, "irls", &[], 20).parameters).unwrap().0;
    for settings in [
        &[("parts", SettingValue::Whole(1))][..],
        &[("parts", SettingValue::Whole(4096))],
        &[("rho", real(1e-12))],
        &[("rho", real(1e12))],
        &[("balance", SettingValue::Switch(false)), ("rho", real(1.0))],
    ] {
        let fit = fit(&*model, "admm", settings, 400);
        let above = model.objective(&fit.parameters).unwrap().0 - optimum;
        // The largest penalty stays large for long: it must not fail, that is all.
        let far = matches!(settings[0], ("rho", SettingValue::Real(rho)) if rho > 1.0);
        assert!(above.is_finite() && (above < 1e-6 || far), "{settings:?}: {above:e}, {:?}", fit.outcome);
    }
}

#[test]
fn hessian_free_with_few_conjugate_gradient_steps_goes_on_to_the_optimum() {
    // In f64: sums in f32 stop it where they no longer tell points apart, a billionth above the optimum.
    let model = build(&drawn(3000, 6, 2), "logistic", &[("accuracy", word("high"))]);
    let optimum = model.objective(&fit(&*model, "irls", &[], 20).parameters).unwrap().0;
    for iterations in [1, 2, 3, 5] {
        let fit = fit(&*model, "hessian-free", &[("cg_iterations", SettingValue::Whole(iterations))], 400);
        let above = model.objective(&fit.parameters).unwrap().0 - optimum;
        assert!(above < 1e-9, "{iterations} iterations: {above:e} after {} steps, {:?}", fit.steps, fit.outcome);
    }
}

#[test]
fn hessian_free_holds_under_every_switch() {
    let model = build(&drawn(1500, 5, 3), "softmax", &[("regularizer", word("ridge")), ("strength", real(1e-2))]);
    let optimum = model.objective(&fit(&*model, "irls", &[], 30).parameters).unwrap().0;
    let off = SettingValue::Switch(false);
    for settings in [
        &[("preconditioner", off.clone())][..],
        &[("backtracking", off.clone()), ("line_search", off)],
        &[("damping_rule", word("constant")), ("damping", real(0.01))],
        &[("cg_start", real(0.0))],
        &[("curvature_rows", SettingValue::Whole(300)), ("backtracking_rows", SettingValue::Whole(700))],
    ] {
        let fit = fit(&*model, "hessian-free", settings, 60);
        let above = model.objective(&fit.parameters).unwrap().0 - optimum;
        // Steps compared on a part of the rows stop at that part's optimum.
        let limit = if settings.len() > 1 && settings[0].0 == "curvature_rows" { 1e-2 } else { 1e-7 };
        assert!(above < limit, "{settings:?}: {above:e}, {:?}", fit.outcome);
    }
}

/// With all rows in a batch every form of SGD is its equations, written out here step by step.
#[test]
fn sgd_takes_the_steps_of_its_equations() {
    let model = build(&drawn(64, 2, 2), "logistic", &[("accuracy", word("high"))]);
    let gradient = |at: &Vector| {
        let mut gradient = at.zeros_like();
        problem(&*model).gradient().unwrap().value_and_gradient(at, Rows::All, &mut gradient).unwrap();
        gradient
    };
    let whole = ("batch_size", SettingValue::Whole(64));
    let close = |a: &Vector, b: &Vector| a.host().iter().zip(b.host()).all(|(a, b)| (a - b).abs() < 1e-14);
    for nesterov in [false, true] {
        let (mut theta, mut velocity) = (vector(&*model, |_| 0.0), vector(&*model, |_| 0.0));
        let mut mean = theta.clone();
        for step in 1..=5_i32 {
            // One batch is a pass: the inverse schedule at t = step, warmed up over two passes, horizon 4.
            let size = 0.5 / (1.0 + f64::from(step) / 4.0) * (f64::from(step) / 2.0).min(1.0);
            let g = gradient(&theta);
            velocity.scale(0.8);
            velocity.axpy(-size, &g);
            if nesterov {
                theta.axpy(0.8, &velocity);
                theta.axpy(-size, &g);
            } else {
                theta.axpy(1.0, &velocity);
            }
            if step >= 3 {
                let share = 1.0 / f64::from(step - 2);
                mean.axpby(1.0 - share, share, &theta);
            }
        }
        let settings = [
            whole.clone(),
            ("learning_rate", real(0.5)),
            ("momentum", real(0.8)),
            ("nesterov", SettingValue::Switch(nesterov)),
            ("schedule", word("inverse")),
            ("horizon", real(4.0)),
            ("warm_up", real(2.0)),
        ];
        assert!(close(&fit(&*model, "sgd", &settings, 5).parameters, &theta), "nesterov {nesterov}");
        let mut averaged = settings.to_vec();
        averaged.extend([("average", SettingValue::Switch(true)), ("average_from", real(3.0))]);
        assert!(close(&fit(&*model, "sgd", &averaged, 5).parameters, &mean), "the mean of the tail");
    }
}

/// Columns a = g + x and b = g - x, where g = 1 is seen with y = 1 alone: their sum separates, neither does by itself.
fn quasi_separable(classes: usize) -> ModelData {
    let base = drawn(2000, 2, classes);
    let rows: Vec<_> = (0..2000)
        .map(|r| {
            let x = base.train.features.get(r, 0);
            let class = base.train.targets.get(r, 0) as usize;
            let g = if class == 1 && r % 9 == 0 { 1.0 } else { 0.0 };
            (vec![g + x, g - x, base.train.features.get(r, 1)], class)
        })
        .collect();
    data(&rows, classes)
}

#[test]
fn quasi_separation_by_two_columns_together_is_named_in_both_precisions() {
    for (name, classes) in [("logistic", 2), ("softmax", 3)] {
        for accuracy in ["fast", "high"] {
            let model = build(&quasi_separable(classes), name, &[("accuracy", word(accuracy))]);
            let fit = fit(&*model, "irls", &[], 60);
            let finding = fit.findings.iter().find(|f| f.kind == "quasi-separation");
            let finding = finding.unwrap_or_else(|| panic!("{name} {accuracy}: {:?} {:?}", fit.outcome, fit.findings));
            let names = finding.columns.join(" ");
            assert!(names.contains("x0") && names.contains("x1"), "{names}");
        }
    }
}

#[test]
fn separable_classes_of_a_softmax_are_named() {
    let rows: Vec<_> = (0..300).map(|r| (vec![(r % 3) as f32 + 0.001 * r as f32, (r % 7) as f32], r % 3)).collect();
    let model = build(&data(&rows, 3), "softmax", &[]);
    let fit = fit(&*model, "irls", &[], 60);
    assert!(fit.findings.iter().any(|f| f.kind == "separation"), "{:?} {:?}", fit.outcome, fit.findings);
}

#[test]
fn a_factor_with_rare_levels_is_rank_deficient_from_the_first_step_on() {
    let base = drawn(20_000, 2, 2);
    for shift in 0..5 {
        let level = |r: usize| match (r * 7919 + shift * 31) % 10_000 {
            0..10 => 0,
            10..15 => 1,
            15..5000 => 2,
            _ => 3,
        };
        let rows: Vec<_> = (0..20_000)
            .map(|r| {
                let mut x: Vec<f32> = (0..4).map(|l| f32::from(u8::from(level(r) == l))).collect();
                x.push(base.train.features.get(r, 0));
                (x, base.train.targets.get(r, 0) as usize)
            })
            .collect();
        for information in ["exact", "bound"] {
            let model = build(&data(&rows, 2), "logistic", &[]);
            let fit = fit(&*model, "irls", &[("information", word(information))], 2000);
            let finding = fit.findings.iter().find(|f| f.kind == "rank-deficiency");
            let finding = finding.unwrap_or_else(|| panic!("{information}: {:?}", fit.findings));
            assert_eq!(finding.columns, ["x3"]);
            assert!(finding.message.contains("rank 5 of 6"), "{}", finding.message);
            assert_eq!(fit.parameters.host()[4], 0.0);
        }
    }
    // Several classes have a coefficient each, but the design has one rank.
    let rows: Vec<_> = (0..600).map(|r| (vec![(r % 5) as f32, 2.0 * (r % 5) as f32, (r % 7) as f32], r % 4)).collect();
    let fit = fit(&*build(&data(&rows, 4), "softmax", &[]), "irls", &[], 60);
    let finding = fit.findings.iter().find(|f| f.kind == "rank-deficiency").expect("a finding");
    assert!(finding.message.contains("rank 3 of 4") && finding.columns == ["x1"], "{finding:?}");
}

#[test]
fn training_rows_of_one_class_are_refused_in_words() {
    let rows: Vec<_> = (0..10).map(|r| (vec![r as f32], 1)).collect();
    for name in ["logistic", "softmax"] {
        let entry = model::registry().into_iter().find(|m| m.name == name).unwrap();
        let settings = Settings::check("test", entry.settings, &BTreeMap::new()).unwrap();
        let error = entry.build(&data(&rows, 2), &settings).err().expect("refused").to_string();
        assert!(error.contains("all training rows are of one class, c1"), "{error}");
    }
}

#[test]
fn an_undeclared_question_is_refused_and_every_answer_is_counted() {
    struct Curious;
    impl Optimizer for Curious {
        fn step(&mut self, oracle: &mut Oracle<'_>, parameters: &mut Vector) -> parsimony::Result<Step> {
            oracle.value(parameters, Rows::All).map(|_| Step::Continue)
        }
    }
    let curious = OptimizerEntry {
        name: "curious",
        needs: &[Capability::Gradient],
        build: |_| Ok(Box::new(Curious)),
        ..entry("sgd")
    };
    let model = build(&drawn(512, 3, 2), "logistic", &[]);
    let settings = Settings::check("test", curious.settings, &BTreeMap::new()).unwrap();
    let error = optim::minimize(&curious, &settings, problem(&*model), 1, 1).unwrap_err().to_string();
    assert!(error.contains("which it did not declare"), "{error}");

    let fit = fit(&*model, "sgd", &[("batch_size", SettingValue::Whole(100))], 7);
    assert_eq!((fit.counters.gradients, fit.counters.rows), (7, 700));
    // 4 columns with the intercept: a product for the predictor, one for the gradient, the inputs' standardization,
    // and 30 operations for the likelihood.
    assert_eq!(fit.counters.flops, 700.0 * (2.0 * 4.0 + 2.0 * 4.0 + 2.0 * 3.0 + 30.0));
    assert_eq!(fit.counters.bytes, 700.0 * 4.0 * 4.0);
}

#[test]
fn a_fit_that_ends_at_a_gap_is_within_it_and_takes_fewer_passes() {
    for (name, classes, reference) in MODELS {
        let mut settings = vec![("accuracy", word("high"))];
        if name == "softmax" {
            settings.push(("reference", word(reference)));
        }
        let model = build(&drawn(3000, 5, classes), name, &settings);
        let whole = fit(&*model, "irls", &[], 100);
        let least = model.objective(&whole.parameters).unwrap().0;
        for gap in [1e-4, 1e-6, 1e-10] {
            let early = fit(&*model, "irls", &[("gap", real(gap))], 100);
            assert!(matches!(early.outcome, Step::Converged(_)), "{:?}", early.outcome);
            assert!(early.steps < whole.steps, "{name}, {gap:e}: {} of {} steps", early.steps, whole.steps);
            let left = (model.objective(&early.parameters).unwrap().0 - least) / least;
            assert!((-1e-14..=gap).contains(&left), "{name}, {gap:e}: {left:e} left");
        }
    }
}
