//! What mixtures of experts must hold: agreement with a program that writes them down by definition, responsibilities that add
//! up to one, EM that never raises the objective, information matrices in their order, experts that can be exchanged, and one
//! expert that is a logistic regression.

use ndarray::{Array1, Array2, s};
use parsimony::Error;
use parsimony::data::{Examples, Task};
use parsimony::device::Panels;
use parsimony::model::mixture::{MIXTURE, Mixture};
use parsimony::model::{self, Model, ModelData, Split};
use parsimony::optim::{self, Fit, OptimizerEntry, Step, minimize};
use parsimony::oracle::{
    Batch, Capability, Head, Information, Oracle, Problem, Rows, SettingValue, Settings, Stream, Vector, stream,
};
use std::collections::BTreeMap;

type Given<'a> = &'a [(&'a str, SettingValue)];

fn word(w: &str) -> SettingValue {
    SettingValue::Word(w.into())
}

fn real(v: f64) -> SettingValue {
    SettingValue::Real(v)
}

fn whole(v: usize) -> SettingValue {
    SettingValue::Whole(v as i64)
}

fn given(list: Given<'_>) -> BTreeMap<String, SettingValue> {
    list.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}

fn data(rows: usize, columns: usize, classes: usize, y: impl Fn(usize) -> usize) -> ModelData {
    of_columns(rows, columns, classes, wave, y)
}

fn of_columns(
    rows: usize,
    columns: usize,
    classes: usize,
    x: fn(usize, usize) -> f32,
    y: impl Fn(usize) -> usize,
) -> ModelData {
    let features = Panels::from_fn(rows, columns, x);
    let targets = Panels::from_fn(rows, 1, |r, _| y(r) as f32);
    let part = || Examples { features: features.clone(), targets: targets.clone(), range: 0..rows };
    ModelData {
        train: part(),
        validation: part(),
        test: part(),
        task: Task::Classes((0..classes).map(|c| format!("c{c}")).collect()),
        columns: (0..columns).map(|c| format!("x{c}")).collect(),
    }
}

fn wave(r: usize, c: usize) -> f32 {
    (1.0 + 3.0 * r as f64 + 7.0 * c as f64).sin() as f32
}

/// Columns of waves of different lengths: unlike those of `wave` they do not depend on one another.
fn waves(r: usize, c: usize) -> f32 {
    (1.0 + (3.0 + 1.7 * c as f64) * r as f64 + 7.0 * c as f64).sin() as f32
}

fn by_remainder(classes: usize) -> impl Fn(usize) -> usize {
    move |r| (r * r + r / 2) % classes
}

/// Rows whose rule changes sign with the second column.
fn turning(rows: usize, x: fn(usize, usize) -> f32) -> ModelData {
    of_columns(rows, 3, 2, x, |r| {
        let side = f64::from(x(r, 1)).signum();
        usize::from(f64::from(x(r, 0)) * side + 0.8 * (5.7 * r as f64).sin() > 0.0)
    })
}

fn build(data: &ModelData, settings: Given<'_>) -> Mixture {
    Mixture::build(data, &Settings::check("test", MIXTURE.settings, &given(settings)).unwrap()).unwrap()
}

/// In `f64`, on columns as they are.
fn exact(data: &ModelData, settings: Given<'_>) -> Mixture {
    let plain = [("accuracy", word("high")), ("standardize", SettingValue::Switch(false))];
    build(data, &[&plain[..], settings].concat())
}

fn optimizer(name: &str, settings: Given<'_>) -> (OptimizerEntry, Settings) {
    let entry = optim::registry().into_iter().find(|entry| entry.name == name).unwrap();
    let settings = Settings::check("test", entry.settings, &given(settings)).unwrap();
    (entry, settings)
}

fn fit(model: &dyn Problem, name: &str, settings: Given<'_>, steps: u64) -> parsimony::Result<Fit> {
    let (entry, settings) = optimizer(name, settings);
    minimize(&entry, &settings, model, 1, steps)
}

fn vector(model: &Mixture, value: impl Fn(f64) -> f64) -> Vector {
    let values = (0..model.layout().len()).map(|i| value(i as f64)).collect();
    Vector::from_values(model.layout(), values).unwrap()
}

fn formula(model: &Mixture) -> Vector {
    vector(model, |i| 0.5 * (1.3 * i + 0.2).cos())
}

fn along(model: &Mixture) -> Vector {
    vector(model, |i| (0.7 * i + 1.0).sin())
}

fn value(model: &Mixture, at: &Vector, rows: Rows<'_>) -> f64 {
    Problem::value(model).unwrap().value(at, rows).unwrap().value
}

fn gradient(model: &Mixture, at: &Vector, rows: Rows<'_>) -> (f64, Vector) {
    let mut gradient = at.zeros_like();
    let answer = Problem::gradient(model).unwrap().value_and_gradient(at, rows, &mut gradient).unwrap();
    (answer.value, gradient)
}

fn product(model: &Mixture, at: &Vector, rows: Rows<'_>, v: &Vector) -> Vector {
    let mut product = at.zeros_like();
    let matrix = Problem::curvature(model).unwrap().curvature_at(at, rows).unwrap().value;
    matrix.multiply(v, &mut product).unwrap();
    product
}

fn observed(model: &Mixture, at: &Vector) -> Array2<f64> {
    let system = model.normal_equations().unwrap().normal_system(at, Rows::All, false).unwrap().value;
    let Information::Dense(matrix) = system.information else { panic!("a bound") };
    matrix
}

/// The blocks of the complete data's information as one matrix.
fn complete(model: &Mixture, at: &Vector) -> Array2<f64> {
    let system = model.complete_equations().unwrap().complete_system(at, Rows::All).unwrap().value;
    let mut matrix = Array2::zeros((at.len(), at.len()));
    for block in system.blocks {
        let end = block.start + block.matrix.nrows();
        matrix.slice_mut(s![block.start..end, block.start..end]).assign(&block.matrix);
    }
    let (value, slope) = gradient(model, at, Rows::All);
    assert!((system.value - value).abs() < 1e-13 && close(system.gradient.host(), slope.host(), 1e-12));
    matrix
}

fn times(matrix: &Array2<f64>, v: &Vector) -> Vec<f64> {
    matrix.dot(&Array1::from(v.to_host())).to_vec()
}

fn close(got: &[f64], expected: &[f64], tolerance: f64) -> bool {
    let scale = expected.iter().fold(f64::MIN_POSITIVE, |m: f64, v| m.max(v.abs()));
    got.len() == expected.len() && got.iter().zip(expected).all(|(a, b)| (a - b).abs() <= tolerance * scale)
}

fn numbers(of: &serde_json::Value) -> Vec<f64> {
    of.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

#[test]
fn values_derivatives_and_information_agree_with_their_definitions() {
    let reference: serde_json::Value = serde_json::from_str(include_str!("reference/mixture.json")).unwrap();
    for case in reference["cases"].as_array().unwrap() {
        let number = |key: &str| case[key].as_u64().unwrap() as usize;
        let (classes, hidden, routing) = (number("classes"), number("hidden"), case["routing"].as_str().unwrap());
        let data = data(37, 4, classes, by_remainder(classes));
        let mut settings = vec![("experts", whole(number("experts"))), ("routing", word(routing))];
        if hidden > 0 {
            settings.extend([("expert", word("relu")), ("hidden", whole(hidden))]);
        }
        if routing == "top-1" {
            settings.push(("balance", real(case["balance"].as_f64().unwrap())));
        }
        let label = format!("{classes} classes, {hidden} hidden, {routing}");
        for (accuracy, tolerance) in [("high", 1e-12), ("fast", 3e-6)] {
            let settings = [&settings[..], &[("accuracy", word(accuracy))]].concat();
            let plain = [("standardize", SettingValue::Switch(false))];
            let model = build(&data, &[&plain[..], &settings[..]].concat());
            let (at, v) = (formula(&model), along(&model));
            let (value, slope) = gradient(&model, &at, Rows::All);
            assert!((value - case["value"].as_f64().unwrap()).abs() < tolerance, "{label}: {value}");
            assert!(close(slope.host(), &numbers(&case["gradient"]), tolerance), "{label}: gradient");
            let mut squares = at.zeros_like();
            let squared = Problem::squared_gradients(&model).unwrap();
            squared.mean_squared_gradient(&at, Rows::All, &mut squares).unwrap();
            assert!(close(squares.host(), &numbers(&case["squares"]), tolerance), "{label}: squares");
            let expected = numbers(&case["product"]);
            assert!(close(product(&model, &at, Rows::All, &v).host(), &expected, tolerance), "{label}: product");
            if hidden == 0 {
                assert!(close(&times(&observed(&model, &at), &v), &expected, tolerance), "{label}: information");
            }
            if accuracy == "high" && case.get("complete_product").is_some() {
                let expected = numbers(&case["complete_product"]);
                assert!(close(&times(&complete(&model, &at), &v), &expected, 1e-8), "{label}: complete data");
                let expected = numbers(&case["responsibilities"]);
                assert!(close(&model.responsibilities(&at)[..expected.len()], &expected, 1e-12), "{label}");
            }
        }
    }
}

/// Mixtures of every kind with a ridge, in `f64`.
fn every() -> Vec<(String, Mixture)> {
    let mut all = Vec::new();
    for classes in [2, 3] {
        let data = data(700, 4, classes, by_remainder(classes));
        for (expert, routing) in [("logistic", "soft"), ("relu", "soft"), ("logistic", "top-1"), ("relu", "top-1")] {
            let mut settings =
                vec![("experts", whole(3)), ("expert", word(expert)), ("routing", word(routing)), ("ridge", real(0.1))];
            if expert == "relu" {
                settings.push(("hidden", whole(5)));
            }
            all.push((format!("{classes} classes, {expert}, {routing}"), exact(&data, &settings)));
        }
    }
    all
}

#[test]
fn gradients_are_derivatives_of_values_on_all_rows_and_on_batches() {
    let batch = Batch::new((0..700).step_by(3).collect());
    for (label, model) in every() {
        let (at, v) = (formula(&model), along(&model));
        for rows in [Rows::All, Rows::Batch(&batch), Rows::Part { index: 1, of: 3 }] {
            let slope = gradient(&model, &at, rows).1.dot(&v);
            // Short enough for no row to change its expert or a rectifier.
            let moved = |h: f64| {
                let mut moved = at.clone();
                moved.axpy(h, &v);
                value(&model, &moved, rows)
            };
            let derivative = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            assert!((derivative - slope).abs() < 1e-7, "{label}, {rows:?}: {derivative}, not {slope}");
        }
        // Parts add up to the loss of the whole, which alone has the ridge and the balance.
        let parts: f64 = (0..3).map(|index| value(&model, &at, Rows::Part { index, of: 3 })).sum();
        let loss = model.evaluate(&at, Split::Train).unwrap().loss.unwrap();
        assert!((parts - loss).abs() < 1e-12, "{label}: {parts}, not {loss}");
    }
}

#[test]
fn information_is_symmetric_never_negative_and_less_than_that_of_the_complete_data() {
    for (label, model) in every() {
        let (at, u, v) = (formula(&model), along(&model), vector(&model, |i| (1.9 * i).cos()));
        let (gu, gv) = (product(&model, &at, Rows::All, &u), product(&model, &at, Rows::All, &v));
        assert!((u.dot(&gv) - v.dot(&gu)).abs() < 1e-12 * u.dot(&gu), "{label}");
        assert!(u.dot(&gu) > 0.0 && v.dot(&gv) > 0.0, "{label}");
        if model.normal_equations().is_ok() {
            let information = observed(&model, &at);
            assert!((&information - &information.t()).iter().all(|d| *d == 0.0), "{label}");
            assert!(close(&times(&information, &v), gv.host(), 1e-12), "{label}");
            if model.complete_equations().is_ok() {
                let complete = complete(&model, &at);
                for i in 0..40 {
                    let w = vector(&model, |j| (f64::from(i) * 0.37 + j * 1.7).sin());
                    let of = |matrix: &Array2<f64>| Array1::from(times(matrix, &w)).dot(&Array1::from(w.to_host()));
                    assert!(of(&information) <= of(&complete) * (1.0 + 1e-12), "{label}");
                }
            }
        }
    }
}

#[test]
fn responsibilities_add_up_to_one() {
    for (label, model) in every() {
        let all = model.responsibilities(&formula(&model));
        assert_eq!(all.len(), 3 * 700);
        for row in all.chunks(3) {
            assert!(
                (row.iter().sum::<f64>() - 1.0).abs() < 1e-14 && row.iter().all(|h| (0.0..=1.0).contains(h)),
                "{label}"
            );
            assert!(!label.ends_with("top-1") || row.iter().all(|h| *h == 0.0 || *h == 1.0), "{label}");
        }
    }
}

#[test]
fn exchanging_experts_changes_nothing() {
    for (label, model) in every() {
        let at = formula(&model);
        let mut exchanged = at.clone();
        let block = |name: &str| model.layout().blocks().iter().find(|block| block.name == name).unwrap().clone();
        for part in ["weight", "bias", "hidden.weight", "hidden.bias", "output.weight", "output.bias"] {
            let names = [format!("expert1.{part}"), format!("expert3.{part}")];
            if model.layout().blocks().iter().all(|block| block.name != names[0]) {
                continue;
            }
            let [a, b] = names.map(|name| block(&name));
            exchanged.write(a.start, &at.read(b.range()));
            exchanged.write(b.start, &at.read(a.range()));
        }
        for (block, length) in [(block("gate.weight"), 4), (block("gate.bias"), 1)] {
            let (first, third) = (block.start, block.start + 2 * length);
            exchanged.write(first, &at.read(third..third + length));
            exchanged.write(third, &at.read(first..first + length));
        }
        assert_ne!(at, exchanged);
        let (before, after) = (value(&model, &at, Rows::All), value(&model, &exchanged, Rows::All));
        assert!((before - after).abs() < 1e-13, "{label}: {before}, {after}");
        let evaluate = |at: &Vector| model.evaluate(at, Split::Test).unwrap();
        assert_eq!(evaluate(&at).accuracy, evaluate(&exchanged).accuracy, "{label}");
    }
}

#[test]
fn the_balance_is_alpha_where_experts_are_equally_busy_and_counts_are_of_the_active() {
    let data = data(300, 28, 2, by_remainder(2));
    let top = build(&data, &[("experts", whole(4)), ("routing", word("top-1")), ("balance", real(0.3))]);
    let zero = Vector::zeros(top.layout());
    // All gates are alike: each has a quarter of the gate's values wherever the rows go.
    let excess = value(&top, &zero, Rows::All) - top.evaluate(&zero, Split::Train).unwrap().loss.unwrap();
    assert!((excess - 0.3).abs() < 1e-6, "{excess}");
    let counts = top.parameter_counts(&zero);
    assert_eq!((counts.total, counts.active), (232, 116 + 29));
    let soft = build(&data, &[("experts", whole(4))]);
    assert_eq!(soft.parameter_counts(&zero).active, 232);
    let relu = build(&data, &[("experts", whole(2)), ("expert", word("relu")), ("hidden", whole(16))]);
    assert_eq!(relu.layout().len(), 1020);
}

#[test]
fn em_never_raises_the_objective_and_takes_back_half_of_what_would() {
    let data = turning(2000, waves);
    for (likelihood, more) in [("complete", Some(("relaxation", real(1.8)))), ("observed", None)] {
        let model = exact(&data, &[("experts", whole(4)), ("spread", real(1.0))]);
        let mut settings = vec![("likelihood", word(likelihood)), ("damping", real(0.0))];
        settings.extend(more);
        let (entry, settings) = optimizer("irls", &settings);
        let mut irls = (entry.build)(&settings).unwrap();
        let problem: &dyn Problem = &model;
        let mut oracle = Oracle::new(problem, "irls", &entry.needs_with(&settings), 1, 1);
        let mut at = problem.initial(&mut stream(1, Stream::Initialization));
        irls.start(&mut oracle, &at).unwrap();
        let (mut accepted, mut best) = (at.clone(), value(&model, &at, Rows::All));
        let first = best;
        for step in 0..60 {
            let before = at.clone();
            oracle.begin_step();
            let outcome = irls.step(&mut oracle, &mut at).unwrap();
            if value(&model, &before, Rows::All) <= best {
                (best, accepted) = (value(&model, &before, Rows::All), before);
            } else if outcome == Step::Continue {
                let mut half = before;
                half.axpby(0.5, 0.5, &accepted);
                assert!(close(at.host(), half.host(), 1e-9), "{likelihood}, step {step}: not half of the way");
            }
            if outcome != Step::Continue {
                break;
            }
        }
        assert!(best < first - 0.1, "{likelihood}: from {first} to {best}");
    }
}

#[test]
fn columns_that_depend_on_others_are_named_and_held_at_zero() {
    let model = exact(&turning(400, wave), &[("experts", whole(2))]);
    let found = fit(&model, "irls", &[("likelihood", word("complete"))], 20).unwrap();
    let [finding] = &found.findings[..] else { panic!("{:?}", found.findings) };
    assert_eq!((finding.kind.as_str(), &finding.columns[..]), ("rank-deficiency", &["x2".to_owned()][..]));
    for (value, name) in found.parameters.host().iter().zip(model.coordinate_names()) {
        assert!(!name.ends_with("x2") || *value == 0.0, "{name}: {value}");
    }
}

#[test]
fn one_expert_is_a_logistic_regression() {
    let rule = |r| usize::from(waves(r, 0) + waves(r, 2) + 1.3 * waves(2 * r, 9) > 0.0);
    let data = of_columns(900, 5, 2, waves, rule);
    let logistic = model::registry().into_iter().find(|entry| entry.name == "logistic").unwrap();
    let settings = given(&[("accuracy", word("high"))]);
    let logistic = logistic.build(&data, &Settings::check("test", logistic.settings, &settings).unwrap()).unwrap();
    let best = fit(&*logistic as &dyn Problem, "irls", &[], 50).unwrap().parameters.to_host();
    let expected = logistic.objective(&Vector::from_values(logistic.layout(), best.clone()).unwrap()).unwrap().0;
    let mixture = build(&data, &[("experts", whole(1)), ("accuracy", word("high"))]);
    for settings in [&[("likelihood", word("complete"))][..], &[]] {
        let found = fit(&mixture, "irls", settings, 300).unwrap();
        assert!(matches!(found.outcome, Step::Converged(_)), "{:?}", found.outcome);
        let value = mixture.objective(&found.parameters).unwrap().0;
        assert!((value - expected).abs() < 1e-12, "{value}, not {expected}");
        // The expert's weights, then its bias.
        let values = found.parameters.read(6..12);
        let of_expert = [&values[5..], &values[..5]].concat();
        assert!(close(&of_expert, &best, 1e-8), "{of_expert:?}, not {best:?}");
    }
}

#[test]
fn both_informations_lead_back_to_the_optimum_of_an_independent_program() {
    let reference: serde_json::Value = serde_json::from_str(include_str!("reference/mixture.json")).unwrap();
    let expected = reference["optimum"]["value"].as_f64().unwrap();
    let model = exact(&turning(400, wave), &[("experts", whole(2)), ("ridge", real(1e-3))]);
    let best = Vector::from_values(model.layout(), numbers(&reference["optimum"]["parameters"])).unwrap();
    let (value, slope) = gradient(&model, &best, Rows::All);
    assert!((value - expected).abs() < 1e-13 && slope.norm_max() < 1e-11, "{value}, {}", slope.norm_max());
    for settings in [&[("likelihood", word("complete")), ("tolerance", real(1e-9))][..], &[("tolerance", real(1e-9))]] {
        let (entry, settings) = optimizer("irls", settings);
        let mut irls = (entry.build)(&settings).unwrap();
        let mut oracle = Oracle::new(&model, "irls", &entry.needs_with(&settings), 1, 1);
        let mut at = best.clone();
        at.axpy(0.2, &along(&model));
        irls.start(&mut oracle, &at).unwrap();
        let mut outcome = Step::Continue;
        while outcome == Step::Continue && oracle.step() < 1000 {
            oracle.begin_step();
            outcome = irls.step(&mut oracle, &mut at).unwrap();
        }
        assert!(matches!(outcome, Step::Converged(_)), "{outcome:?}");
        let found = gradient(&model, &at, Rows::All).0;
        assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
    }
}

#[test]
fn joint_steps_are_gradients_at_the_heads_and_in_the_limit_below() {
    let data = data(700, 4, 2, by_remainder(2));
    let shape = |experts| [("experts", whole(experts)), ("expert", word("relu")), ("hidden", whole(5))];
    let model = exact(&data, &shape(3));
    let at = formula(&model);
    let (loss, slope) = gradient(&model, &at, Rows::All);
    let splitting = model.layer_splitting().unwrap();
    let layers = splitting.layers();
    let penalty = 1e7;
    let step = splitting.joint_step(&at, Rows::All, penalty, Head::Reweighted, true).unwrap().value;
    assert!((step.loss - loss).abs() < 1e-13);
    assert_eq!((layers.len(), splitting.on_inputs(), splitting.heads(), step.grams.len()), (7, 3, 4, 4));
    for (l, layer) in layers.iter().enumerate() {
        let range = layer.start..layer.start + layer.parameters();
        let scale = if l < 3 { -penalty } else { -1.0 };
        let right: Vec<f64> = step.rights.read(range.clone()).iter().map(|r| scale * r).collect();
        assert!(close(&right, &slope.read(range), if l < 3 { 1e-6 } else { 1e-12 }), "layer {l}");
    }
    // Of one expert, whose rows count fully, the least value of `l + beta/2 |e|^2` has the derivative `|e|^2 / 2` in beta.
    let model = exact(&data, &shape(1));
    let at = formula(&model);
    let of = |penalty: f64| {
        let splitting = model.layer_splitting().unwrap();
        splitting.joint_step(&at, Rows::All, penalty, Head::Reweighted, false).unwrap().value
    };
    let derivative = (of(0.1 + 1e-5).augmented - of(0.1 - 1e-5).augmented) / 2e-5;
    assert!((derivative / (0.5 * of(0.1).gap) - 1.0).abs() < 1e-6, "{derivative}, {}", of(0.1).gap);
}

#[test]
fn optimizers_lower_their_objectives() {
    let data = turning(3000, waves);
    let logistic = build(&data, &[("experts", whole(3)), ("ridge", real(1e-4))]);
    let relu = build(
        &data,
        &[("experts", whole(2)), ("expert", word("relu")), ("hidden", whole(8)), ("initialization", word("he"))],
    );
    let top = build(&data, &[("experts", whole(3)), ("routing", word("top-1"))]);
    let start = |model: &Mixture| {
        let at = model.initial(&mut stream(1, Stream::Initialization));
        model.objective(&at).unwrap().0
    };
    let batch = ("batch_size", whole(200));
    /// Optimizer, settings, steps, bound.
    type Case<'a> = (&'a str, &'a [(&'a str, SettingValue)], u64, f64);
    let cases: [Case<'_>; 8] = [
        ("sgd", &[batch.clone(), ("learning_rate", real(0.3))], 600, 0.05),
        ("adamw", &[batch.clone(), ("learning_rate", real(0.03))], 400, 0.1),
        ("l-bfgs", &[], 60, 0.05),
        ("newton-cg", &[], 25, 0.05),
        ("hessian-free", &[], 25, 0.05),
        ("muon", &[batch.clone(), ("adam_learning_rate", real(0.03))], 300, 0.05),
        ("irls", &[], 60, 0.05),
        ("admm", &[("variant", word("proximal")), ("batch_size", whole(500)), ("head_step", real(0.1))], 400, 0.05),
    ];
    for (name, settings, steps, fall) in cases {
        for (label, model) in [("logistic", &logistic), ("relu", &relu), ("top-1", &top)] {
            let (entry, checked) = optimizer(name, settings);
            if entry.needs_with(&checked).into_iter().any(|need| model.offers(need).is_err()) {
                continue;
            }
            let found = fit(model, name, settings, steps).unwrap();
            let (before, after) = (start(model), model.objective(&found.parameters).unwrap().0);
            assert!(after < before - fall, "{name} on {label}: from {before} to {after}");
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let data = turning(20_000, waves);
    let model = build(&data, &[("experts", whole(3))]);
    let relu = build(&data, &[("experts", whole(2)), ("expert", word("relu")), ("hidden", whole(4))]);
    let run = |threads: usize| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
            let steps = [
                (&model, "irls", &[("likelihood", word("complete"))][..], 4),
                (&model, "irls", &[][..], 4),
                (&model, "hessian-free", &[][..], 2),
                (&relu, "adamw", &[][..], 20),
                (&relu, "admm", &[("variant", word("proximal"))][..], 20),
            ];
            steps.map(|(model, name, settings, steps)| fit(model, name, settings, steps).unwrap().parameters)
        })
    };
    assert_eq!(run(1), run(4));
}

#[test]
fn written_weights_predict_what_was_evaluated() {
    for (label, model) in every() {
        let at = formula(&model);
        let classes = if label.starts_with('2') { 2 } else { 3 };
        let data = data(700, 4, classes, by_remainder(classes));
        let mut weights = model.weights(&at);
        let predictor = (MIXTURE.predictor)(&weights).unwrap();
        let predicted = predictor.predict(&data.test.features, 0..700).unwrap();
        let loss: f64 = (0..700).map(|r| -predicted[r * classes + by_remainder(classes)(r)].ln()).sum::<f64>() / 700.0;
        let evaluated = model.evaluate(&at, Split::Test).unwrap();
        assert!((loss - evaluated.loss.unwrap()).abs() < 1e-12, "{label}");
        let outcomes = model.row_outcomes(&at, Split::Test).unwrap().unwrap();
        let right = outcomes.correct.unwrap().iter().filter(|right| **right).count();
        assert!((right as f64 / 700.0 - evaluated.accuracy.unwrap()).abs() < 1e-12, "{label}");
        weights.tensors.remove("gate.bias");
        assert!((MIXTURE.predictor)(&weights).is_err());
    }
}

#[test]
fn what_does_not_fit_is_refused_with_the_reason() {
    let two = data(60, 3, 2, by_remainder(2));
    let refused = |data: &ModelData, settings: Given<'_>, capability: Capability| {
        build(data, settings).offers(capability).unwrap_err()
    };
    let relu = [("expert", word("relu"))];
    assert!(refused(&two, &relu, Capability::NormalEquations).contains("variant = \"proximal\""));
    assert!(refused(&two, &relu, Capability::LayerVariables).contains("keep no variables"));
    assert!(refused(&two, &[], Capability::Layers).contains("no hidden layers"));
    assert!(refused(&two, &[("routing", word("top-1"))], Capability::CompleteEquations).contains("top-1"));
    assert!(refused(&data(60, 3, 3, by_remainder(3)), &relu, Capability::Layers).contains("3 classes"));
    assert!(refused(&two, &[("experts", whole(1000))], Capability::NormalEquations).contains("8000 coefficients"));
    let real = ModelData { task: Task::Regression, ..two.clone() };
    let settings = Settings::check("test", MIXTURE.settings, &BTreeMap::new()).unwrap();
    assert!(Mixture::build(&real, &settings).err().unwrap().to_string().contains("real number"));
    let one = data(60, 3, 2, |_| 1);
    assert!(Mixture::build(&one, &settings).err().unwrap().to_string().contains("one class"));
    let none = Settings::check("test", MIXTURE.settings, &given(&[("experts", whole(0))]));
    assert!(none.unwrap_err().to_string().contains("experts"));
    let bound = fit(&build(&two, &[]), "irls", &[("information", word("bound"))], 1);
    assert!(matches!(bound, Err(Error::Unsupported { .. })));
}
