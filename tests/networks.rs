//! What networks must hold: agreement with PyTorch, finite differences, Gauss-Newton matrices that are symmetric and never
//! negative, the same bits at any number of threads, and optimizers that lower their objectives.

use parsimony::Error;
use parsimony::data::{Examples, Task};
use parsimony::device::Panels;
use parsimony::model::{self, Model, ModelData, Split};
use parsimony::optim::{self, Fit, StateReader, StateWriter, minimize};
use parsimony::oracle::{Batch, Oracle, Problem, Rows, SettingValue, Settings, Stream, Vector, stream};
use std::collections::BTreeMap;

type Given<'a> = &'a [(&'a str, SettingValue)];

fn word(w: &str) -> SettingValue {
    SettingValue::Word(w.into())
}

fn real(v: f64) -> SettingValue {
    SettingValue::Real(v)
}

fn whole(v: i64) -> SettingValue {
    SettingValue::Whole(v)
}

fn given(list: Given<'_>) -> BTreeMap<String, SettingValue> {
    list.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}

/// Features by a formula, classes by another; the same rows to train, validate and test on.
fn data(rows: usize, columns: usize, classes: usize, x: impl Fn(usize, usize) -> f32) -> ModelData {
    let features = Panels::from_fn(rows, columns, x);
    let targets = Panels::from_fn(rows, 1, |r, _| ((r * r + r / 2) % classes) as f32);
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

fn build(data: &ModelData, name: &str, settings: Given<'_>) -> Box<dyn Model> {
    let entry = model::registry().into_iter().find(|entry| entry.name == name).unwrap();
    entry.build(data, &Settings::check("test", entry.settings, &given(settings)).unwrap()).unwrap()
}

fn problem(model: &dyn Model) -> &dyn Problem {
    model
}

fn fit(model: &dyn Model, name: &str, settings: Given<'_>, steps: u64) -> parsimony::Result<Fit> {
    let entry = optim::registry().into_iter().find(|entry| entry.name == name).unwrap();
    let settings = Settings::check("test", entry.settings, &given(settings)).unwrap();
    minimize(&entry, &settings, problem(model), 1, steps)
}

fn vector(model: &dyn Model, value: impl Fn(f64) -> f64) -> Vector {
    let values = (0..model.layout().len()).map(|i| value(i as f64)).collect();
    Vector::from_values(model.layout(), values).unwrap()
}

fn gradient(model: &dyn Model, at: &Vector, rows: Rows<'_>) -> (f64, Vector) {
    let mut gradient = at.zeros_like();
    let answer = problem(model).gradient().unwrap().value_and_gradient(at, rows, &mut gradient).unwrap();
    (answer.value, gradient)
}

fn product(model: &dyn Model, at: &Vector, rows: Rows<'_>, v: &Vector) -> Vector {
    let mut product = at.zeros_like();
    let matrix = problem(model).curvature().unwrap().curvature_at(at, rows).unwrap().value;
    matrix.multiply(v, &mut product).unwrap();
    product
}

#[test]
fn values_gradients_products_and_squares_agree_with_pytorch() {
    let numbers: serde_json::Value = serde_json::from_str(include_str!("reference/networks.json")).unwrap();
    for case in numbers["cases"].as_array().unwrap() {
        let text = |key: &str| case[key].as_str().unwrap();
        let label = format!("{} {} {} {}", text("model"), text("hidden"), text("activation"), text("loss"));
        let classes = case["classes"].as_u64().unwrap() as usize;
        let is_autoencoder = text("model") == "autoencoder";
        let data = data(37, 5, classes, |r, c| if is_autoencoder { wave(r, c).abs() } else { wave(r, c) });
        let mut settings = vec![
            ("hidden", word(text("hidden"))),
            ("activation", word(text("activation"))),
            ("loss", word(text("loss"))),
        ];
        if !is_autoencoder {
            settings.push(("standardize", SettingValue::Switch(false)));
        }
        let model = build(&data, text("model"), &settings);
        let at = vector(&*model, |i| 0.5 * (1.3 * i + 0.2).cos());
        let close = |what: &str, got: &Vector| {
            let expected: Vec<f64> = case[what].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
            let scale = expected.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
            for (i, (got, expected)) in got.to_host().iter().zip(&expected).enumerate() {
                assert!((got - expected).abs() <= 3e-6 * scale, "{label}, {what} {i}: {got}, not {expected}");
            }
        };
        let (value, here) = gradient(&*model, &at, Rows::All);
        let expected = case["value"].as_f64().unwrap();
        assert!((value / expected - 1.0).abs() < 1e-6, "{label}: {value}, not {expected}");
        close("gradient", &here);
        let mut squares = at.zeros_like();
        problem(&*model).squared_gradients().unwrap().mean_squared_gradient(&at, Rows::All, &mut squares).unwrap();
        close("squares", &squares);
        if text("loss") == "hinge" {
            assert!(problem(&*model).curvature().err().unwrap().contains("Gauss-Newton matrix is zero"));
        } else {
            close("product", &product(&*model, &at, Rows::All, &vector(&*model, |i| (0.7 * i + 1.0).sin())));
        }
    }
}

/// Smooth networks of every kind, with a ridge.
fn smooth() -> Vec<Box<dyn Model>> {
    let data = data(300, 6, 3, wave);
    let positive = self::data(300, 6, 3, |r, c| wave(r, c).abs());
    let mlp = |hidden, activation, loss| {
        let settings =
            [("hidden", word(hidden)), ("activation", word(activation)), ("loss", word(loss)), ("ridge", real(0.1))];
        build(&data, "mlp", &settings)
    };
    let mut all = vec![mlp("9-5", "tanh", "softmax"), mlp("8", "gelu", "squared"), mlp("none", "relu", "auto")];
    for loss in ["cross-entropy", "squared"] {
        let settings = [("hidden", word("5-2")), ("loss", word(loss)), ("ridge", real(0.1))];
        all.push(build(&positive, "autoencoder", &settings));
    }
    all
}

#[test]
fn gradients_are_derivatives_of_values_on_all_rows_and_on_batches() {
    for model in smooth() {
        let at = vector(&*model, |i| 0.4 * (2.1 * i).sin());
        let batch = Batch::new((0..300).step_by(7).collect());
        for rows in [Rows::All, Rows::Batch(&batch)] {
            let (value, here) = gradient(&*model, &at, rows);
            let along = vector(&*model, |i| (0.3 * i * i).cos());
            let value_at = |h: f64| {
                let mut at = at.clone();
                at.axpy(h, &along);
                problem(&*model).value().unwrap().value(&at, rows).unwrap().value
            };
            assert!((value_at(0.0) - value).abs() < 1e-7 * value.abs());
            let (h, slope) = (1e-2, here.dot(&along));
            // Richardson's extrapolation leaves a step long enough for single precision.
            let difference = |h: f64| (value_at(h) - value_at(-h)) / (2.0 * h);
            let extrapolated = (4.0 * difference(h) - difference(2.0 * h)) / 3.0;
            assert!((extrapolated - slope).abs() < 1e-3 * slope.abs().max(0.1), "{extrapolated} {slope}");
        }
    }
}

#[test]
fn gauss_newton_matrices_are_symmetric_and_not_negative() {
    for model in smooth() {
        let at = vector(&*model, |i| 0.4 * (2.1 * i).sin());
        let (u, v) = (vector(&*model, |i| (0.3 * i * i).cos()), vector(&*model, |i| (1.7 * i).sin()));
        let (of_u, of_v) = (product(&*model, &at, Rows::All, &u), product(&*model, &at, Rows::All, &v));
        let size = u.norm() * of_v.norm();
        assert!((u.dot(&of_v) - v.dot(&of_u)).abs() < 1e-5 * size, "{} {}", u.dot(&of_v), v.dot(&of_u));
        assert!(v.dot(&of_v) >= 0.0 && u.dot(&of_u) >= 0.0);
    }
}

#[test]
fn a_network_without_hidden_layers_is_the_regression_that_it_is() {
    let data = data(500, 4, 2, wave);
    let network = build(&data, "mlp", &[("hidden", word("none"))]);
    let regression = build(&data, "logistic", &[("accuracy", word("high"))]);
    let at = vector(&*network, |i| 0.3 * (i + 1.0));
    // The network keeps its bias last, the regression its intercept first.
    let values = at.to_host();
    let theta = [&values[4..], &values[..4]].concat();
    let theta = Vector::from_values(regression.layout(), theta).unwrap();
    for split in [Split::Train, Split::Test] {
        let (a, b) = (network.evaluate(&at, split).unwrap(), regression.evaluate(&theta, split).unwrap());
        assert!((a.loss.unwrap() - b.loss.unwrap()).abs() < 1e-6 && a.accuracy == b.accuracy, "{a:?} {b:?}");
        assert_eq!(a.auc.is_some(), b.auc.is_some());
    }
    let squares = |model: &dyn Model, at: &Vector| {
        let mut squares = at.zeros_like();
        problem(model).squared_gradients().unwrap().mean_squared_gradient(at, Rows::All, &mut squares).unwrap();
        squares.to_host()
    };
    let (a, b) = (squares(&*network, &at), squares(&*regression, &theta));
    assert!((a[4] - b[0]).abs() < 1e-6 && (a[0] - b[1]).abs() < 1e-6);
}

/// Under squared and one logistic output the last layer's information is its block of the Gauss-Newton matrix; a softmax
/// has a bound of it.
#[test]
fn the_last_layer_has_the_information_of_its_block() {
    let batch = Batch::new((0..300).step_by(2).collect());
    for (loss, classes, is_exact) in
        [("logistic", 2, true), ("squared", 2, true), ("squared", 3, true), ("softmax", 3, false)]
    {
        let data = data(300, 5, classes, wave);
        let model = build(&data, "mlp", &[("hidden", word("7")), ("loss", word(loss)), ("ridge", real(0.2))]);
        let at = vector(&*model, |i| 0.4 * (2.1 * i).sin());
        let rows = Rows::Batch(&batch);
        let system = problem(&*model).head_equations().unwrap().head_system(&at, rows).unwrap().value;
        let (value, here) = gradient(&*model, &at, rows);
        assert!((system.value - value).abs() < 1e-6 * value && system.head == (42..at.len()));
        let mut difference = here.clone();
        difference.axpy(-1.0, &system.gradient);
        assert!(difference.norm() < 1e-5 * here.norm());
        // A direction in the last layer alone: V (outputs x 7), then c.
        let outputs = system.left.nrows();
        let mut v = at.zeros_like();
        let head: Vec<f64> = (0..8 * outputs).map(|i| (1.7 * i as f64).sin()).collect();
        v.write(42, &head);
        let place = |output: usize, input: usize| if input < 7 { output * 7 + input } else { 7 * outputs + output };
        let got = v.dot(&product(&*model, &at, rows, &v));
        let mut expected = 0.0;
        for ((a, b), left) in system.left.indexed_iter() {
            for ((i, j), right) in system.right.indexed_iter() {
                expected += left * right * head[place(a, i)] * head[place(b, j)];
            }
        }
        expected += system.ridge * head[..7 * outputs].iter().map(|v| v * v).sum::<f64>();
        if is_exact {
            assert!((got / expected - 1.0).abs() < 1e-5, "{loss} {classes}: {got}, not {expected}");
        } else {
            assert!(got < expected, "{loss}: {got} is not below its bound {expected}");
        }
    }
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let data = data(3000, 20, 2, wave);
    let pixels = self::data(1500, 400, 2, |r, c| wave(r, c).abs());
    for model in [
        build(&data, "mlp", &[("hidden", word("50-20"))]),
        build(&pixels, "autoencoder", &[("hidden", word("200-100-8"))]),
    ] {
        let at = model.initial(&mut stream(3, Stream::Initialization));
        let v = vector(&*model, |i| (0.1 * i).sin());
        let batch = Batch::new((0..1500).step_by(5).collect());
        let at_threads = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let (value, g) = gradient(&*model, &at, Rows::All);
                let (part, h) = gradient(&*model, &at, Rows::Batch(&batch));
                let evaluation = model.evaluate(&at, Split::Test).unwrap();
                (value, g, part, h, product(&*model, &at, Rows::All, &v), v.dot(&at), evaluation)
            })
        };
        assert_eq!(at_threads(1), at_threads(3));
    }
}

#[test]
fn every_initialization_has_the_spread_that_it_names() {
    let data = data(2000, 30, 2, wave);
    for (name, deviation) in [
        ("he", (2.0_f64 / 30.0).sqrt()),
        ("lecun", (1.0_f64 / 30.0).sqrt()),
        ("glorot", (2.0_f64 / 230.0).sqrt()),
        ("uniform", (1.0_f64 / 90.0).sqrt()),
        ("sparse", (15.0_f64 / 30.0).sqrt()),
    ] {
        let model = build(&data, "mlp", &[("hidden", whole(200)), ("initialization", word(name))]);
        let start = model.initial(&mut stream(1, Stream::Initialization)).to_host();
        let weights = &start[..6000];
        let spread = (weights.iter().map(|w| w * w).sum::<f64>() / 6000.0).sqrt();
        assert!((spread / deviation - 1.0).abs() < 0.05, "{name}: {spread}, not {deviation}");
        if name == "sparse" {
            assert!(weights.chunks(30).all(|unit| unit.iter().filter(|w| **w != 0.0).count() == 15));
        }
    }
    // A fit of noise is as large as the inputs' inverse covariance makes it: about 1/sqrt(n) here.
    let independent =
        |r: usize, c: usize| (1000.0 * (1.0 + r as f64 * 0.377 + c as f64 * (1.9 + r as f64)).sin()).fract() as f32;
    let model = build(
        &self::data(2000, 30, 2, independent),
        "mlp",
        &[("hidden", whole(200)), ("initialization", word("least-squares"))],
    );
    let start = model.initial(&mut stream(1, Stream::Initialization)).to_host();
    let spread = (start[..6000].iter().map(|w| w * w).sum::<f64>() / 6000.0).sqrt();
    assert!((0.9..1.3).contains(&(spread * 2000.0_f64.sqrt())), "{}", spread * 2000.0_f64.sqrt());
}

#[test]
fn optimizers_lower_the_objective_and_hessian_free_holds_under_every_switch() {
    let mut data = data(600, 6, 2, wave);
    // A product of two inputs decides: no linear rule tells the classes apart.
    data.train.targets = Panels::from_fn(600, 1, |r, _| f32::from(u8::from(wave(r, 0) * wave(r, 3) > 0.1)));
    let model = build(&data, "mlp", &[("hidden", word("12")), ("activation", word("tanh")), ("ridge", real(1e-4))]);
    let start = model.objective(&model.initial(&mut stream(1, Stream::Initialization))).unwrap().0;
    let objective = |fit: Fit| model.objective(&fit.parameters).unwrap().0;
    let sgd = [("batch_size", whole(50)), ("nesterov", SettingValue::Switch(true)), ("learning_rate", real(0.1))];
    assert!(objective(fit(&*model, "sgd", &sgd, 300).unwrap()) < 0.9 * start);
    let hybrid = [("batch_size", whole(100)), ("learning_rate", real(0.1)), ("head_step", real(0.1))];
    let reached = objective(fit(&*model, "irls-gradient", &hybrid, 300).unwrap());
    assert!(reached < 0.5 * start, "{reached} from {start}");
    let off = SettingValue::Switch(false);
    for settings in [
        &[][..],
        &[("preconditioner", off.clone())],
        &[("backtracking", off.clone())],
        &[("damping_rule", word("constant")), ("damping", real(0.1))],
        &[("cg_start", real(0.0))],
        &[("curvature_rows", whole(200)), ("backtracking_rows", whole(300)), ("line_search", off)],
    ] {
        let mut settings = settings.to_vec();
        settings.push(("cg_iterations", whole(30)));
        let reached = objective(fit(&*model, "hessian-free", &settings, 15).unwrap());
        assert!(reached < 0.9 * start, "{settings:?}: {reached} from {start}");
    }
}

#[test]
fn divergence_is_named_with_step_and_quantity() {
    let data = data(300, 6, 3, wave);
    let model = build(&data, "mlp", &[("hidden", word("20-20"))]);
    let settings = [("learning_rate", real(1e8)), ("batch_size", whole(30))];
    let error = fit(&*model, "sgd", &settings, 400).unwrap_err();
    assert!(matches!(error, Error::Diverged { step: 2.., .. }), "{error}");
    assert!(error.to_string().contains("the minibatch objective is"), "{error}");
}

#[test]
fn an_optimizer_goes_on_from_its_state_bit_for_bit() {
    let data = data(400, 6, 2, wave);
    let model = build(&data, "mlp", &[("hidden", word("10"))]);
    for (name, settings) in [
        ("sgd", &[("batch_size", whole(30)), ("average", SettingValue::Switch(true)), ("average_from", real(0.1))][..]),
        ("hessian-free", &[("cg_iterations", whole(10)), ("curvature_rows", whole(100))]),
        ("irls-gradient", &[("batch_size", whole(30)), ("refresh", whole(3))]),
    ] {
        let entry = optim::registry().into_iter().find(|entry| entry.name == name).unwrap();
        let settings = Settings::check("test", entry.settings, &given(settings)).unwrap();
        let start = || {
            let mut oracle = Oracle::new(problem(&*model), name, &entry.needs_with(&settings), 5, 1);
            let mut optimizer = (entry.build)(&settings).unwrap();
            let parameters = model.initial(&mut stream(5, Stream::Initialization));
            optimizer.start(&mut oracle, &parameters).unwrap();
            (oracle, optimizer, parameters)
        };
        let (mut oracle, mut optimizer, mut parameters) = start();
        let (mut other_oracle, mut other, mut copied) = start();
        for step in 0..8 {
            if step == 4 {
                let mut writer = StateWriter::default();
                optimizer.visit_state(&mut writer);
                let mut reader = StateReader::new(writer.parts, model.layout());
                other.visit_state(&mut reader);
                reader.finish().unwrap();
                copied = Vector::from_values(model.layout(), parameters.to_host()).unwrap();
                other_oracle.seek(oracle.position()).unwrap();
            }
            oracle.begin_step();
            optimizer.step(&mut oracle, &mut parameters).unwrap();
            if step >= 4 {
                other_oracle.begin_step();
                other.step(&mut other_oracle, &mut copied).unwrap();
            }
        }
        assert_eq!(parameters, copied, "{name}");
    }
}

#[test]
fn written_weights_predict_what_the_network_says() {
    let data = data(300, 6, 3, |r, c| wave(r, c).abs());
    for (name, settings) in [
        ("mlp", &[("hidden", word("9")), ("loss", word("softmax"))][..]),
        ("mlp", &[("hidden", word("9")), ("loss", word("squared"))]),
        ("autoencoder", &[("hidden", word("4-2"))]),
    ] {
        let entry = model::registry().into_iter().find(|entry| entry.name == name).unwrap();
        let model = build(&data, name, settings);
        let at = model.initial(&mut stream(2, Stream::Initialization));
        let weights = model.weights(&at);
        assert_eq!(weights.tensors["layer1.weight"].0[1], 6);
        let predictor = (entry.predictor)(&weights).unwrap();
        let values = predictor.predict(&data.test.features, 0..300).unwrap();
        let outputs = predictor.outputs();
        assert_eq!(values.len(), 300 * outputs.len());
        if name == "autoencoder" {
            assert_eq!(outputs, ["code_1", "code_2"]);
            continue;
        }
        let accuracy = values.chunks(3).enumerate().filter(|(r, p)| {
            let best = (1..3).fold(0, |best, k| if p[k] > p[best] { k } else { best });
            assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            data.test.targets.get(*r, 0) == best as f32
        });
        let accuracy = accuracy.count() as f64 / 300.0;
        assert_eq!(Some(accuracy), model.evaluate(&at, Split::Test).unwrap().accuracy);
    }
}

#[test]
fn settings_that_do_not_fit_the_data_are_refused_in_words() {
    let refusal = |data: &ModelData, name: &str, settings: Given<'_>| {
        let entry = model::registry().into_iter().find(|entry| entry.name == name).unwrap();
        let settings = Settings::check("test", entry.settings, &given(settings)).unwrap();
        entry.build(data, &settings).err().expect("refused").to_string()
    };
    let three = data(30, 4, 3, wave);
    assert!(refusal(&three, "mlp", &[("loss", word("logistic"))]).contains("for 3 classes"));
    assert!(refusal(&three, "autoencoder", &[]).contains("never negative"));
    assert!(refusal(&three, "autoencoder", &[("hidden", word("none"))]).contains("no code layer"));
    let real = ModelData { task: Task::Regression, ..three };
    assert!(refusal(&real, "mlp", &[("loss", word("hinge"))]).contains("for real targets"));
}
