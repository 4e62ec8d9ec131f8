//! What a Switch layer fitted to pairs must hold: agreement with an independent program (`tests/reference/switch_layer.json`, made
//! by the script beside it), derivatives by finite differences, invariance under exchanged experts, a single expert as a dense
//! layer, steps of IRLS and ADMM that lower its objective, and optimizers of every kind that fit it.

use parsimony::data::{Examples, ReadOptions, Task, read};
use parsimony::device::Panels;
use parsimony::model::{self, Model, ModelData, Split};
use parsimony::optim::{self, Optimizer, minimize};
use parsimony::oracle::{
    Batch, ExpertQuestion, Oracle, Problem, RouterSignal, Rows, SettingValue, Settings, Stream, TokenStep, Vector,
    stream,
};
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

/// Pairs by formulas; `held` of the rows are for validation and for testing.
fn pairs(
    rows: usize,
    held: usize,
    [inputs, outputs]: [usize; 2],
    x: impl Fn(usize, usize) -> f32,
    y: impl Fn(usize, usize) -> f32,
) -> ModelData {
    let (features, targets) = (Panels::from_fn(rows, inputs, x), Panels::from_fn(rows, outputs, y));
    let part = |range| Examples { features: features.clone(), targets: targets.clone(), range };
    ModelData {
        train: part(0..rows - held),
        validation: part(rows - held..rows),
        test: part(rows - held..rows),
        task: Task::Regression,
        columns: (0..inputs).map(|c| format!("x{c}")).collect(),
    }
}

/// The pairs of the reference script.
fn few(rows: usize) -> ModelData {
    let x = |r: usize, c: usize| (1.0 + 3.0 * r as f64 + 7.0 * c as f64).sin();
    let y = |r: usize, k: usize| (2.0 * r as f64 + 0.5 * k as f64).cos() * x(r, 0) + 0.3 * k as f64 + x(r, 1).powi(2);
    pairs(rows, 0, [4, 3], |r, c| x(r, c) as f32, |r, k| y(r, k) as f32)
}

/// Noise without a pattern from two whole numbers.
fn noise(a: usize, b: usize) -> f32 {
    let mut z = (a as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (b as u64).wrapping_mul(0xD1B5_4A32_D192_ED03);
    z = (z ^ (z >> 31)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z = (z ^ (z >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    ((z ^ (z >> 32)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

/// Pairs of a random dense layer of rectifiers on clustered inputs, as a language model's first layer has them.
fn taught(rows: usize, held: usize) -> ModelData {
    const INPUTS: usize = 8;
    const UNITS: usize = 24;
    let x = |r: usize, c: usize| 1.5 * noise(r % 13, 100 + c) + 0.5 * noise(1000 + r, c);
    let unit = |r: usize, u: usize| (0..INPUTS).map(|c| noise(7 * u + 3, 300 + c) * x(r, c)).sum::<f32>() + 0.3;
    let y = |r: usize, k: usize| (0..UNITS).map(|u| noise(u, 500 + k) * unit(r, u).max(0.0)).sum::<f32>();
    pairs(rows, held, [INPUTS, 6], x, y)
}

fn build(data: &ModelData, settings: Given<'_>) -> Box<dyn Model> {
    let entry = model::registry().into_iter().find(|entry| entry.name == "switch-layer").unwrap();
    entry.build(data, &Settings::check("test", entry.settings, &given(settings)).unwrap()).unwrap()
}

fn layer(experts: i64, hidden: i64, balance: f64) -> [(&'static str, SettingValue); 3] {
    [("experts", whole(experts)), ("hidden", whole(hidden)), ("balance", real(balance))]
}

fn problem(model: &dyn Model) -> &dyn Problem {
    model
}

fn vector(model: &dyn Model, value: impl Fn(f64) -> f64) -> Vector {
    let values = (0..model.layout().len()).map(|i| value(i as f64)).collect();
    Vector::from_values(model.layout(), values).unwrap()
}

fn start(model: &dyn Model) -> Vector {
    model.initial(&mut stream(1, Stream::Initialization))
}

fn value(model: &dyn Model, at: &Vector, rows: Rows<'_>) -> f64 {
    problem(model).value().unwrap().value(at, rows).unwrap().value
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

/// An optimizer on its way.
struct Run<'a> {
    oracle: Oracle<'a>,
    optimizer: Box<dyn Optimizer>,
    parameters: Vector,
}

impl<'a> Run<'a> {
    fn new(model: &'a dyn Model, name: &str, settings: Given<'_>, parameters: Vector) -> Self {
        let entry = optim::registry().into_iter().find(|entry| entry.name == name).unwrap();
        let settings = Settings::check("test", entry.settings, &given(settings)).unwrap();
        let mut optimizer = (entry.build)(&settings).unwrap();
        let mut oracle = Oracle::new(model, name, &entry.needs_with(&settings), 1, 1);
        optimizer.start(&mut oracle, &parameters).unwrap();
        Self { oracle, optimizer, parameters }
    }

    fn step(&mut self) {
        self.oracle.begin_step();
        self.optimizer.step(&mut self.oracle, &mut self.parameters).unwrap();
    }
}

fn close(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= tolerance * scale, "{what}, {i}: {got}, not {expected} (of {scale})");
    }
}

/// Whole batches, no momentum, no caps: what the reference script computes.
fn plain(own: Given<'_>) -> Vec<(&'static str, SettingValue)> {
    let mut all = vec![
        ("rows_per_expert", whole(1_000_000)),
        ("expert_damping", real(0.02)),
        ("output_step", real(0.03)),
        ("router_step", real(0.01)),
        ("momentum", real(0.0)),
        ("input_cap", real(1e9)),
        ("output_cap", real(1e9)),
        ("router_cap", real(1e9)),
        ("retries", whole(0)),
    ];
    let names = ["likelihood", "variant", "input_step", "hidden_step", "metric_damping", "penalty", "signal"];
    for (name, value) in own {
        all.push((names.iter().find(|known| *known == name).unwrap(), value.clone()));
    }
    all
}

#[test]
fn value_gradient_and_one_step_of_every_block_agree_with_numpy() {
    let numbers: serde_json::Value = serde_json::from_str(include_str!("reference/switch_layer.json")).unwrap();
    let list =
        |key: &str| -> Vec<f64> { numbers[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect() };
    let model = build(&few(90), &layer(3, 5, 0.05));
    let at = vector(&*model, |i| 0.5 * (1.3 * i + 0.2).cos());
    let (got, slope) = gradient(&*model, &at, Rows::All);
    let expected = numbers["value"].as_f64().unwrap();
    assert!((got / expected - 1.0).abs() < 1e-6, "{got}, not {expected}");
    close("gradient", &slope.to_host(), &list("gradient"), 2e-6);
    let irls = [("likelihood", word("conditional")), ("input_step", real(0.02)), ("metric_damping", real(0.3))];
    let admm = [("variant", word("experts")), ("hidden_step", real(0.02)), ("penalty", real(0.1))];
    let responsible = [&irls[..], &[("signal", word("responsibilities"))]].concat();
    for (key, name, settings) in
        [("irls", "irls", &irls[..]), ("irls_responsibilities", "irls", &responsible), ("admm", "admm", &admm)]
    {
        let mut run = Run::new(&*model, name, &plain(settings), at.clone());
        run.step();
        let mut moved = run.parameters.clone();
        moved.axpy(-1.0, &at);
        assert_eq!(run.oracle.notes()["move_fraction"], 1.0, "{key}");
        close(key, &moved.to_host(), &list(key), 2e-4);
    }
}

#[test]
fn gradients_are_derivatives_and_products_are_those_of_the_frozen_layer() {
    let model = build(&few(700), &layer(4, 6, 0.1));
    let at = start(&*model);
    let batch = Batch::new((0..300).map(|i| (i * 7 % 700) as u32).collect());
    for rows in [Rows::All, Rows::Batch(&batch)] {
        let (here, slope) = gradient(&*model, &at, rows);
        assert_eq!(here, value(&*model, &at, rows));
        let mut v = vector(&*model, |i| (0.7 * i + 1.0).sin());
        v.scale(1.0 / v.norm());
        // Steps so short that few tokens change their expert or a unit its side.
        let along = |step: f64| {
            let mut there = at.clone();
            there.axpy(step, &v);
            there
        };
        let e = 2e-3;
        let numeric = (value(&*model, &along(e), rows) - value(&*model, &along(-e), rows)) / (2.0 * e);
        let exact = slope.dot(&v);
        assert!((numeric - exact).abs() < 2e-2 * exact.abs().max(0.05), "{numeric}, not {exact}");
        // Symmetric, never negative.
        let w = vector(&*model, |i| (0.9 * i + 0.3).cos());
        let (gv, gw) = (product(&*model, &at, rows, &v), product(&*model, &at, rows, &w));
        assert!((gv.dot(&w) - gw.dot(&v)).abs() < 1e-5 * gv.norm() * w.norm());
        assert!(gv.dot(&v) > 0.0 && gw.dot(&w) > 0.0);
    }
    // v'Gw is the mean of (Jv)'(Jw), J by differences of what is predicted; a few rows change sides.
    let data = few(700);
    let tangent = |v: &Vector| -> Vec<f64> {
        let e = 1e-3 / v.norm();
        let there = |sign: f64| {
            let mut there = at.clone();
            there.axpy(sign * e, v);
            outputs(&*model, &data, &there)
        };
        there(1.0).iter().zip(there(-1.0)).map(|(a, b)| (a - b) / (2.0 * e)).collect()
    };
    let (v, w) = (vector(&*model, |i| (0.7 * i + 1.0).sin()), vector(&*model, |i| (0.9 * i + 0.3).cos()));
    let (jv, jw) = (tangent(&v), tangent(&w));
    let mean = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / 700.0;
    let gv = product(&*model, &at, Rows::All, &v);
    assert!((gv.dot(&v) / mean(&jv, &jv) - 1.0).abs() < 0.02, "{} and {}", gv.dot(&v), mean(&jv, &jv));
    let scale = (mean(&jv, &jv) * mean(&jw, &jw)).sqrt();
    assert!((gv.dot(&w) - mean(&jv, &jw)).abs() < 0.02 * scale, "{} and {}", gv.dot(&w), mean(&jv, &jw));
}

/// What the layer makes of the training rows, in its own units.
fn outputs(model: &dyn Model, data: &ModelData, at: &Vector) -> Vec<f64> {
    let entry = model::registry().into_iter().find(|entry| entry.name == "switch-layer").unwrap();
    let weights = model.weights(at);
    let predicted =
        (entry.predictor)(&weights).unwrap().predict(&data.train.features, data.train.range.clone()).unwrap();
    let (shift, factor) = (&weights.tensors["output.shift"].1, weights.tensors["output.factor"].1[0]);
    predicted.iter().enumerate().map(|(i, v)| (v - shift[i % shift.len()]) / factor).collect()
}

#[test]
fn squares_are_means_over_single_rows() {
    let model = build(&few(60), &layer(3, 4, 0.0));
    let at = start(&*model);
    let rows: Vec<u32> = (0..60).step_by(3).collect();
    let mut expected = vec![0.0; at.len()];
    for &row in &rows {
        let one = gradient(&*model, &at, Rows::Batch(&Batch::new(vec![row]))).1.to_host();
        expected.iter_mut().zip(one).for_each(|(sum, g)| *sum += g * g / rows.len() as f64);
    }
    let mut squares = at.zeros_like();
    let batch = Batch::new(rows);
    problem(&*model)
        .squared_gradients()
        .unwrap()
        .mean_squared_gradient(&at, Rows::Batch(&batch), &mut squares)
        .unwrap();
    close("squares", &squares.to_host(), &expected, 1e-5);
}

/// What single test rows come to adds up to what is said of them all.
#[test]
fn numbers_of_test_rows_add_up_to_those_of_the_evaluation() {
    let data = taught(700, 150);
    let model = build(&data, &layer(3, 7, 0.01));
    let at = start(&*model);
    let all = model.evaluate(&at, Split::Test).unwrap();
    let rows = model.row_outcomes(&at, Split::Test).unwrap().unwrap();
    let sum = |values: &[f32]| values.iter().map(|&v| f64::from(v)).sum::<f64>();
    let ratio = |metric: &str| {
        let ratio = rows.ratios.iter().find(|ratio| ratio.metric == metric).unwrap();
        assert_eq!((ratio.parts.len(), ratio.weights.len()), (150, 150));
        sum(&ratio.parts) / sum(&ratio.weights)
    };
    assert!((sum(&rows.loss) / 150.0 / all.loss.unwrap() - 1.0).abs() < 1e-5);
    assert!((ratio("squared_error") / all.squared_error.unwrap() - 1.0).abs() < 1e-5);
    assert!((ratio("explained_beyond_linear") - all.explained_beyond_linear.unwrap()).abs() < 1e-5);
}

#[test]
fn the_gradient_is_the_same_in_one_block_of_rows_and_in_several() {
    // 4,500 rows are one block, the same rows twice are two that are cut elsewhere: the shares of experts must be those of all.
    let model = build(&few(4500), &layer(4, 3, 0.3));
    let at = start(&*model);
    let once: Vec<u32> = (0..4500).collect();
    let (once, twice) = (Batch::new(once.clone()), Batch::new([once.clone(), once].concat()));
    let (one, two) = (gradient(&*model, &at, Rows::Batch(&once)), gradient(&*model, &at, Rows::Batch(&twice)));
    assert!((one.0 - two.0).abs() < 1e-7 * one.0 && (two.0 - value(&*model, &at, Rows::Batch(&twice))).abs() < 1e-9);
    close("gradient", &two.1.to_host(), &one.1.to_host(), 1e-5);
    // Conditional equations see the same objective and the same derivative in the router.
    let question = ExpertQuestion { step: TokenStep::Gradient, signal: RouterSignal::Loss, with_grams: false };
    for (rows, (whole, slope)) in [(&once, one), (&twice, two)] {
        let equations = problem(&*model).expert_equations().unwrap();
        let sums = equations.expert_sums(&at, Rows::Batch(rows), question).unwrap().value;
        assert!((sums.value - whole).abs() < 1e-7 * whole);
        let signal: Vec<f64> = sums.router.unwrap().to_host().into_iter().map(|v| -f64::from(v)).collect();
        close("signal", &signal, &slope.read(at.layout().blocks()[0].range()), 1e-4);
    }
}

#[test]
fn exchanging_experts_changes_nothing() {
    let model = build(&taught(900, 0), &layer(3, 5, 0.1));
    let at = start(&*model);
    let blocks = at.layout().blocks().to_vec();
    let mut other = at.clone();
    let order = [2, 0, 1];
    let router = at.read(blocks[0].range());
    let width = blocks[0].columns;
    let moved: Vec<f64> = order.iter().flat_map(|&e| router[e * width..(e + 1) * width].to_vec()).collect();
    other.write(blocks[0].start, &moved);
    for (to, &from) in order.iter().enumerate() {
        for part in [1, 2] {
            let values = at.read(blocks[2 * from + part].range());
            other.write(blocks[2 * to + part].start, &values);
        }
    }
    let (one, two) = (gradient(&*model, &at, Rows::All), gradient(&*model, &other, Rows::All));
    assert!((one.0 - two.0).abs() < 1e-7 * one.0);
    for (to, &from) in order.iter().enumerate() {
        for part in [1, 2] {
            let got = two.1.read(blocks[2 * to + part].range());
            close("an expert's gradient", &got, &one.1.read(blocks[2 * from + part].range()), 1e-5);
        }
    }
}

#[test]
fn a_single_expert_is_a_dense_layer_bit_for_bit() {
    let data = taught(1500, 0);
    let (dense, routed) = (build(&data, &layer(1, 7, 0.0)), build(&data, &layer(2, 7, 0.0)));
    let at = start(&*dense);
    let mut all = routed.layout().blocks().iter().map(|block| block.rows * block.columns).sum::<usize>();
    all -= at.len();
    // A router that is certain of its first expert: exp(-1000) is nothing that a probability of 1 notices.
    let mut values = vec![0.0; routed.layout().len()];
    let width = routed.layout().blocks()[0].columns;
    values[width - 1] = 1000.0;
    let router = routed.layout().blocks()[0].range().len();
    values[router..router + at.len()].copy_from_slice(&at.to_host());
    assert_eq!(all, router + at.len());
    let certain = Vector::from_values(routed.layout(), values).unwrap();
    let (one, two) = (gradient(&*dense, &at, Rows::All), gradient(&*routed, &certain, Rows::All));
    assert_eq!(one.0.to_bits(), two.0.to_bits());
    assert_eq!(one.1.to_host(), two.1.read(router..router + at.len()));
    // The smallest number that is not denormal is left of exp(-1000).
    assert!(two.1.read(0..router).iter().all(|&g| g.abs() < 1e-30));
    // And all optimizers take it.
    for name in ["sgd", "irls", "admm"] {
        let settings: Vec<_> = match name {
            "irls" => vec![("likelihood", word("conditional"))],
            "admm" => vec![("variant", word("experts"))],
            _ => vec![("learning_rate", real(0.01))],
        };
        let mut run = Run::new(&*dense, name, &settings, at.clone());
        let before = value(&*dense, &at, Rows::All);
        (0..10).for_each(|_| run.step());
        assert!(value(&*dense, &run.parameters, Rows::All) < before, "{name}");
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let data = taught(9000, 0);
    let run = |threads: usize| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
            let model = build(&data, &layer(5, 8, 0.01));
            let at = start(&*model);
            let (value, slope) = gradient(&*model, &at, Rows::All);
            (value, slope.to_host(), product(&*model, &at, Rows::All, &at).to_host())
        })
    };
    assert!(run(1) == run(2));
}

#[test]
fn every_accepted_step_of_irls_and_admm_lowers_the_objective() {
    let model = build(&taught(2000, 0), &layer(4, 8, 0.01));
    let at = start(&*model);
    for (name, choice) in [("irls", ("likelihood", word("conditional"))), ("admm", ("variant", word("experts")))] {
        for signal in ["loss", "responsibilities"] {
            // All rows at every step: the objective that is judged is the whole one.
            let settings = [choice.clone(), ("rows_per_expert", whole(1_000_000)), ("signal", word(signal))];
            let mut run = Run::new(&*model, name, &settings, at.clone());
            let first = value(&*model, &at, Rows::All);
            let mut last = first;
            for step in 0..40 {
                run.step();
                let now = value(&*model, &run.parameters, Rows::All);
                let fraction = run.oracle.notes()["move_fraction"];
                assert!(if fraction > 0.0 { now <= last } else { now == last }, "{name}, {step}: {last} to {now}");
                last = now;
            }
            // Responsibilities of a mixture need not lower the loss of the expert that runs: they are dropped where they do not.
            let most = if signal == "loss" { 0.8 } else { 0.9 };
            assert!(last < most * first, "{name}, {signal}: {first} to {last}");
        }
    }
}

#[test]
fn schedules_count_what_is_read_to_judge_moves() {
    let model = build(&taught(2000, 0), &layer(4, 8, 0.01));
    for (name, choice) in [("irls", ("likelihood", word("conditional"))), ("admm", ("variant", word("experts")))] {
        let settings = [choice, ("rows_per_expert", whole(50)), ("schedule", word("cosine")), ("horizon", real(4.0))];
        let mut run = Run::new(&*model, name, &settings, start(&*model));
        let mut steps = 0;
        loop {
            let ahead = run.oracle.data_passes() + 0.1;
            run.step();
            // Every step reads its 200 rows twice, and once more for each time its move is halved.
            let judgements = run.oracle.counters().values;
            assert!((run.oracle.data_passes() - 0.1 * (steps + 1 + judgements) as f64).abs() < 1e-9);
            let share = run.oracle.notes()["step_share"];
            assert!((share > 0.0) == (ahead < 4.0), "{name}, {steps}: {share} at {ahead} passes");
            if ahead >= 4.0 {
                break;
            }
            steps += 1;
        }
        assert!(steps > 10, "{name}: {steps}");
    }
}

#[test]
fn trust_regions_hold_what_a_step_may_change() {
    let model = build(&taught(2000, 0), &layer(4, 8, 0.01));
    let at = start(&*model);
    let settings = [
        ("likelihood", word("conditional")),
        ("rows_per_expert", whole(1_000_000)),
        ("input_step", real(100.0)),
        ("output_step", real(100.0)),
        ("router_step", real(100.0)),
        ("retries", whole(60)),
    ];
    let mut run = Run::new(&*model, "irls", &settings, at.clone());
    for _ in 0..20 {
        run.step();
        assert!(run.parameters.is_finite());
    }
    assert!(value(&*model, &run.parameters, Rows::All) <= value(&*model, &at, Rows::All));
}

#[test]
fn optimizers_of_every_kind_fit_more_than_a_linear_map_does() {
    let data = taught(4000, 1000);
    let model = build(&data, &layer(6, 12, 0.01));
    let explained = |at: &Vector| model.evaluate(at, Split::Test).unwrap();
    let first = explained(&start(&*model));
    assert!(first.explained_variance.unwrap() < 1.0 && first.explained_beyond_linear.is_some());
    /// Optimizer, settings, steps.
    type Run<'a> = (&'a str, Vec<(&'a str, SettingValue)>, u64);
    let runs: [Run<'_>; 5] = [
        ("sgd", vec![("learning_rate", real(0.05)), ("momentum", real(0.9)), ("batch_size", whole(128))], 700),
        ("adamw", vec![("learning_rate", real(5e-3)), ("batch_size", whole(128))], 700),
        ("hessian-free", vec![("curvature_rows", whole(1000))], 12),
        ("irls", vec![("likelihood", word("conditional")), ("rows_per_expert", whole(100))], 200),
        ("admm", vec![("variant", word("experts")), ("rows_per_expert", whole(100))], 200),
    ];
    for (name, settings, steps) in runs {
        let entry = optim::registry().into_iter().find(|entry| entry.name == name).unwrap();
        let settings = Settings::check("test", entry.settings, &given(&settings)).unwrap();
        let fit = minimize(&entry, &settings, problem(&*model), 1, steps).unwrap();
        let end = explained(&fit.parameters);
        let (beyond, all) = (end.explained_beyond_linear.unwrap(), end.explained_variance.unwrap());
        assert!(beyond > 0.5 && all > first.explained_variance.unwrap(), "{name}: {beyond}, {all}");
        let notes: BTreeMap<_, _> = model.notes(&fit.parameters).unwrap().into_iter().collect();
        assert_eq!(notes["dead_experts"], 0.0, "{name}: {notes:?}");
    }
}

#[test]
fn weights_predict_what_the_layer_makes_of_raw_rows() {
    let data = taught(500, 100);
    let model = build(&data, &layer(3, 6, 0.01));
    let at = start(&*model);
    let entry = model::registry().into_iter().find(|entry| entry.name == "switch-layer").unwrap();
    let predictor = (entry.predictor)(&model.weights(&at)).unwrap();
    let predicted = predictor.predict(&data.test.features, data.test.range.clone()).unwrap();
    assert_eq!(predictor.outputs().len(), 6);
    let mut square = 0.0;
    for (i, row) in data.test.range.clone().enumerate() {
        square +=
            (0..6).map(|k| (predicted[i * 6 + k] - f64::from(data.test.targets.get(row, k))).powi(2)).sum::<f64>();
    }
    let told = model.evaluate(&at, Split::Test).unwrap();
    assert!((square / 100.0 / told.squared_error.unwrap() - 1.0).abs() < 1e-4);
    let rows = model.row_outcomes(&at, Split::Test).unwrap().unwrap();
    let mean = rows.loss.iter().map(|&l| f64::from(l)).sum::<f64>() / 100.0;
    assert!((mean / told.loss.unwrap() - 1.0).abs() < 1e-5);
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let entry = model::registry().into_iter().find(|entry| entry.name == "switch-layer").unwrap();
    let none = Settings::check("x.toml, [[model]]", entry.settings, &given(&[("experts", whole(0))]));
    assert!(none.unwrap_err().to_string().contains("experts"));
    let classes = ModelData { task: Task::Classes(vec!["a".into(), "b".into()]), ..few(20) };
    let settings = Settings::check("test", entry.settings, &BTreeMap::new()).unwrap();
    let refused = entry.build(&classes, &settings).err().unwrap().to_string();
    assert!(refused.contains("switch-layer") && refused.contains("2 classes"), "{refused}");
    let linear = model::registry().into_iter().find(|entry| entry.name == "least-squares").unwrap();
    let settings = Settings::check("test", linear.settings, &BTreeMap::new()).unwrap();
    assert!(linear.build(&few(20), &settings).err().unwrap().to_string().contains("3 targets"));
    let model = build(&few(60), &layer(2, 3, 0.0));
    assert!(problem(&*model).layer_splitting().is_err() && problem(&*model).normal_equations().is_err());
}

#[test]
fn columns_that_begin_alike_are_several_targets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pairs.csv");
    std::fs::write(&path, "y0,x0,y1,x1\n1,2,3,4\n5,6,7,8\n9,10,11,12.5\n").unwrap();
    let options = |target: &str| ReadOptions { target: Some(target.into()), ..ReadOptions::default() };
    let table = read(&path, &options("y*")).unwrap();
    assert_eq!(
        (table.columns, table.targets.columns(), table.task),
        (vec!["x0".into(), "x1".into()], 2, Task::Regression)
    );
    assert_eq!((table.targets.get(1, 0), table.targets.get(1, 1), table.features.get(2, 1)), (5.0, 7.0, 12.5));
    for (target, what) in [("z*", "begins with \"z\""), ("*", "all columns are targets")] {
        let refused = read(&path, &options(target)).unwrap_err().to_string();
        assert!(refused.contains("pairs.csv") && refused.contains(what), "{refused}");
    }
}
