//! What optimizers that see blocks as matrices must hold: agreement with independent programs step by step, factors that are
//! the sums they are called, counted work, the same bits at any number of threads and after a pause.

use parsimony::Error;
use parsimony::data::{Examples, Task};
use parsimony::device::Panels;
use parsimony::model::{self, Model, ModelData};
use parsimony::optim::{self, Optimizer, OptimizerEntry, StateReader, StateWriter};
use parsimony::oracle::{
    Answer, Batch, Counters, FisherTargets, Gradient, KroneckerPair, Layout, Offer, Oracle, Problem, Rows,
    SettingValue, Settings, Stream, Vector, stream,
};
use rand_chacha::ChaCha8Rng;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

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

/// Features and classes by formulas; all rows to train on.
fn data(rows: usize, columns: usize, classes: usize, x: impl Fn(usize, usize) -> f32) -> ModelData {
    let features = Panels::from_fn(rows, columns, x);
    let targets = Panels::from_fn(rows, 1, |r, _| ((r * r + r / 2) % classes) as f32);
    let part = |range| Examples { features: features.clone(), targets: targets.clone(), range };
    ModelData {
        train: part(0..rows),
        validation: part(0..0),
        test: part(0..0),
        task: Task::Classes((0..classes).map(|c| format!("c{c}")).collect()),
        columns: (0..columns).map(|c| format!("x{c}")).collect(),
    }
}

fn wave(r: usize, c: usize) -> f32 {
    (1.0 + 3.0 * r as f64 + 7.0 * c as f64 + 0.7 * (r * c) as f64).sin() as f32
}

fn build(data: &ModelData, name: &str, settings: Given<'_>) -> Box<dyn Model> {
    let entry = model::registry().into_iter().find(|entry| entry.name == name).unwrap();
    entry.build(data, &Settings::check("test", entry.settings, &given(settings)).unwrap()).unwrap()
}

fn tanh(rows: usize, classes: usize, hidden: &str, more: Given<'_>) -> Box<dyn Model> {
    let mut settings =
        vec![("hidden", word(hidden)), ("activation", word("tanh")), ("standardize", SettingValue::Switch(false))];
    settings.extend_from_slice(more);
    build(&data(rows, 5, classes, wave), "mlp", &settings)
}

fn vector(problem: &dyn Problem, value: impl Fn(f64) -> f64) -> Vector {
    let values = (0..problem.layout().len()).map(|i| value(i as f64)).collect();
    Vector::from_values(problem.layout(), values).unwrap()
}

fn formula_start(problem: &dyn Problem) -> Vector {
    vector(problem, |i| 0.5 * (1.3 * i + 0.2).cos())
}

fn entry(name: &str) -> OptimizerEntry {
    optim::registry().into_iter().find(|entry| entry.name == name).unwrap()
}

/// An optimizer on a problem, step by step.
struct Fit<'a> {
    oracle: Oracle<'a>,
    optimizer: Box<dyn Optimizer>,
    parameters: Vector,
}

impl<'a> Fit<'a> {
    fn new(problem: &'a dyn Problem, name: &str, settings: Given<'_>, start: Vector) -> Self {
        let entry = entry(name);
        let settings = Settings::check("test", entry.settings, &given(settings)).unwrap();
        let mut oracle = Oracle::new(problem, entry.name, entry.needs, 5, 1);
        let mut optimizer = (entry.build)(&settings).unwrap();
        optimizer.start(&mut oracle, &start).unwrap();
        Self { oracle, optimizer, parameters: start }
    }

    fn step(&mut self) -> parsimony::Result<()> {
        self.oracle.begin_step();
        self.optimizer.step(&mut self.oracle, &mut self.parameters).map(drop)
    }

    fn note(&self, name: &str) -> f64 {
        self.oracle.notes()[name]
    }

    fn state(&mut self) -> StateWriter {
        let mut writer = StateWriter::default();
        self.optimizer.visit_state(&mut writer);
        writer
    }
}

fn reference() -> Json {
    serde_json::from_str(include_str!("reference/matrices.json")).unwrap()
}

fn numbers(list: &Json) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn assert_near(what: &str, got: &Vector, expected: &Json, tolerance: f64) {
    for (i, (got, expected)) in got.to_host().iter().zip(numbers(expected)).enumerate() {
        assert!((got - expected).abs() < tolerance, "{what}, parameter {i}: {got}, not {expected}");
    }
}

#[test]
fn muon_takes_the_steps_of_pytorchs() {
    let model = tanh(37, 3, "7-4", &[]);
    for case in reference()["muon"].as_array().unwrap() {
        let scale = case["scale"].as_str().unwrap();
        let settings = [
            ("batch_size", whole(37)),
            ("scale", word(scale)),
            ("adam_learning_rate", real(3e-3)),
            ("weight_decay", real(0.1)),
        ];
        let mut fit = Fit::new(&*model, "muon", &settings, formula_start(&*model));
        for (k, expected) in case["steps"].as_array().unwrap().iter().enumerate() {
            fit.step().unwrap();
            assert_near(&format!("{scale}, step {k}"), &fit.parameters, expected, 2e-5);
        }
    }
}

/// A problem whose gradient is taken on another part of the rows each time: row `r` in turn `k` where `(r + k) % 4 > 0`.
struct Turns<'a> {
    problem: &'a dyn Problem,
    turn: AtomicU32,
}

impl Problem for Turns<'_> {
    fn layout(&self) -> &Arc<Layout> {
        self.problem.layout()
    }

    fn rows(&self) -> usize {
        self.problem.rows()
    }

    fn gradient_flops(&self) -> f64 {
        self.problem.gradient_flops()
    }

    fn initial(&self, rng: &mut ChaCha8Rng) -> Vector {
        self.problem.initial(rng)
    }

    fn gradient(&self) -> Offer<&dyn Gradient> {
        Ok(self)
    }
}

impl Gradient for Turns<'_> {
    fn value_and_gradient(&self, at: &Vector, _: Rows<'_>, gradient: &mut Vector) -> parsimony::Result<Answer<f64>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let batch = Batch::new((0..self.rows() as u32).filter(|r| !(r + turn).is_multiple_of(4)).collect());
        self.problem.gradient().unwrap().value_and_gradient(at, Rows::Batch(&batch), gradient)
    }
}

/// Bases are refreshed every third step: a first moment that does not follow them is 1.5e-2 off from the fifth step on, a
/// second one that is not sorted along 4e-3. L and R in `f32` alone account for 2e-5: gradients have a condition of 200 to 400.
#[test]
fn soap_takes_the_steps_of_its_authors() {
    let model = tanh(37, 5, "5", &[("loss", word("squared"))]);
    let turns = Turns { problem: &*model, turn: AtomicU32::new(0) };
    let settings = [
        ("beta2", real(0.9)),
        ("epsilon", real(1e-9)),
        ("weight_decay", real(0.01)),
        ("refresh", whole(3)),
        ("batch_size", whole(37)),
    ];
    let start = formula_start(&*model);
    let mut fit = Fit::new(&turns, "soap", &settings, start.clone());
    for (k, expected) in reference()["soap"]["steps"].as_array().unwrap().iter().enumerate() {
        fit.step().unwrap();
        assert_near(&format!("step {k}"), &fit.parameters, expected, 1e-4);
        assert!(k > 0 || fit.parameters == start, "the first step moves nothing");
    }
}

#[test]
fn k_fac_takes_the_steps_of_its_paper() {
    let model = tanh(37, 3, "6-4", &[("ridge", real(0.01))]);
    for case in reference()["k-fac"].as_array().unwrap() {
        let rescaling = case["rescaling"].as_str().unwrap();
        let settings = [
            ("batch_size", whole(37)),
            ("factor_share", real(1.0)),
            ("product_share", real(1.0)),
            ("fisher", word("data")),
            ("rescaling", word(rescaling)),
            ("damping", real(0.05)),
            ("memory", real(0.7)),
            ("damping_interval", whole(2)),
            ("factor_interval", whole(4)),
            ("refresh", whole(3)),
        ];
        let mut fit = Fit::new(&*model, "k-fac", &settings, formula_start(&*model));
        for (k, expected) in case["steps"].as_array().unwrap().iter().enumerate() {
            fit.step().unwrap();
            let what = format!("{rescaling}, step {}", k + 1);
            assert_near(&what, &fit.parameters, &expected["parameters"], 2e-4);
            for (note, key) in [("damping", "damping"), ("factor_damping", "gamma"), ("batch_objective", "value")] {
                let (got, expected) = (fit.note(note), expected[key].as_f64().unwrap());
                assert!((got / expected - 1.0).abs() < 1e-4, "{what}, {key}: {got}, not {expected}");
            }
        }
    }
}

fn gradient(model: &dyn Model, at: &Vector, batch: &Batch) -> Vector {
    let mut gradient = at.zeros_like();
    let problem: &dyn Problem = model;
    problem.gradient().unwrap().value_and_gradient(at, Rows::Batch(batch), &mut gradient).unwrap();
    gradient
}

fn factors(model: &dyn Model, at: &Vector, rows: Rows<'_>, targets: FisherTargets) -> Vec<KroneckerPair> {
    let problem: &dyn Problem = model;
    problem.kronecker_factors().unwrap().factors(at, rows, targets).unwrap().value
}

/// The gradient of one row is `d x'` in every layer, so single rows tell what the factors must add up to.
#[test]
fn factors_are_sums_over_single_rows() {
    let positive = data(300, 6, 3, |r, c| wave(r, c).abs());
    let squared = [("hidden", word("5-2")), ("loss", word("squared"))];
    let models = [
        tanh(300, 3, "7-4", &[]),
        tanh(300, 2, "none", &[]),
        build(&positive, "autoencoder", &[("hidden", word("5-2"))]),
        build(&positive, "autoencoder", &squared),
    ];
    for model in models {
        let at = vector(&*model, |i| 0.4 * (2.1 * i).sin());
        let rows: Vec<u32> = (0..300).step_by(2).collect();
        let batch = Batch::new(rows.clone());
        let got = factors(&*model, &at, Rows::Batch(&batch), FisherTargets::Data);
        let layers = (&*model as &dyn Problem).kronecker_factors().unwrap().factored_layers();
        assert_eq!(got.len(), layers.len());
        for (layer, pair) in layers.iter().zip(&got) {
            let (m, n) = (layer.weight.rows, layer.weight.columns + 1);
            let (mut a, mut g) = (vec![0.0; n * n], vec![0.0; m * m]);
            for &row in &rows {
                let of_row = gradient(&*model, &at, &Batch::new(vec![row]));
                let (weight, d) = (of_row.read(layer.weight.range()), of_row.read(layer.bias.range()));
                let largest = (0..m).max_by(|&i, &j| d[i].abs().total_cmp(&d[j].abs())).unwrap();
                let mut x: Vec<f64> = weight[largest * (n - 1)..][..n - 1].iter().map(|w| w / d[largest]).collect();
                x.push(1.0);
                let share = 1.0 / rows.len() as f64;
                a.iter_mut().enumerate().for_each(|(i, a)| *a += share * x[i / n] * x[i % n]);
                g.iter_mut().enumerate().for_each(|(i, g)| *g += share * d[i / m] * d[i % m]);
            }
            for (what, got, expected) in [("inputs", &pair.inputs, &a), ("outputs", &pair.outputs, &g)] {
                let scale = expected.iter().fold(0.0_f64, |s, v| s.max(v.abs()));
                for (i, (got, expected)) in got.to_host().iter().zip(expected).enumerate() {
                    let apart = (f64::from(*got) - expected).abs();
                    assert!(apart < 1e-5 * scale, "{what} of {}, {i}: {got}, not {expected}", layer.weight.name);
                }
            }
        }
    }
}

/// On one row the Fisher matrix of a single layer is a Kronecker product: `F v` is `H V x x'` with the loss's Hessian `H`.
/// Drawn targets have `E[d d'] = H`.
#[test]
fn drawn_targets_have_the_fisher_matrix_as_their_mean() {
    for (loss, classes) in [("softmax", 4), ("logistic", 2), ("squared", 3)] {
        let model = tanh(50, classes, "none", &[("loss", word(loss))]);
        let problem: &dyn Problem = &*model;
        let at = vector(problem, |i| 0.4 * (2.1 * i).sin());
        let batch = Batch::new(vec![11]);
        let rows = Rows::Batch(&batch);
        let draws = 4000;
        let mut mean: Vec<f64> = Vec::new();
        for seed in 0..draws {
            let pair = factors(&*model, &at, rows, FisherTargets::Drawn(seed)).remove(0);
            mean.resize(pair.outputs.array().len(), 0.0);
            for (mean, v) in mean.iter_mut().zip(pair.outputs.to_host()) {
                *mean += f64::from(v) / draws as f64;
            }
        }
        let inputs = factors(&*model, &at, rows, FisherTargets::Data).remove(0).inputs.to_host();
        let v = vector(problem, |i| (1.7 * i).sin());
        let mut product = at.zeros_like();
        let matrix = problem.curvature().unwrap().curvature_at(&at, rows).unwrap().value;
        matrix.multiply(&v, &mut product).unwrap();
        let (m, n) = (at.len() / 6, 6);
        let place = |output: usize, input: usize| if input < 5 { output * 5 + input } else { m * 5 + output };
        let (v, product) = (v.to_host(), product.to_host());
        let scale = product.iter().fold(0.0_f64, |s, p| s.max(p.abs()));
        for output in 0..m {
            for input in 0..n {
                let mut expected = 0.0;
                for (k, h) in mean[output * m..][..m].iter().enumerate() {
                    expected += (0..n).map(|j| h * v[place(k, j)] * f64::from(inputs[j * n + input])).sum::<f64>();
                }
                let got = product[place(output, input)];
                assert!((got - expected).abs() < 0.08 * scale, "{loss} {output} {input}: {got}, not {expected}");
            }
        }
    }
}

#[test]
fn every_row_draws_its_own_targets_and_every_seed_others() {
    let model = tanh(700, 3, "6", &[]);
    let at = vector(&*model, |i| 0.4 * (2.1 * i).sin());
    let of = |seed, threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let pairs = pool.install(|| factors(&*model, &at, Rows::All, FisherTargets::Drawn(seed)));
        pairs.iter().map(|pair| pair.outputs.to_host()).collect::<Vec<_>>()
    };
    assert_eq!(of(3, 1), of(3, 3));
    assert_ne!(of(3, 1), of(4, 1));
}

#[test]
fn k_fac_without_the_exact_fisher_matrix_goes_astray_and_with_it_keeps_what_it_promises() {
    let model = tanh(400, 3, "12-8", &[("ridge", real(1e-3))]);
    let start = model.initial(&mut stream(1, Stream::Initialization));
    let at_start = model.objective(&start).unwrap().0;
    let run = |rescaling: &str| {
        let settings = [
            ("batch_size", whole(400)),
            ("product_share", real(1.0)),
            ("damping", real(1e-3)),
            ("rescaling", word(rescaling)),
        ];
        let mut fit = Fit::new(&*model, "k-fac", &settings, start.clone());
        for step in 1..=60 {
            if fit.step().is_err() {
                return f64::INFINITY;
            }
            if rescaling == "momentum" && step % 5 == 0 {
                let ratio = fit.note("reduction_ratio");
                assert!((0.0..2.5).contains(&ratio), "step {step}: {ratio}");
            }
        }
        model.objective(&fit.parameters).unwrap().0
    };
    let (with, alone, without) = (run("momentum"), run("alone"), run("none"));
    assert!(with < 0.9 * at_start && alone < 0.95 * at_start, "{with} {alone} from {at_start}");
    assert!(without > at_start, "{without} from {at_start}");
}

/// 28-300-1 in small: what beside the gradient is counted is what the files' heads declare.
#[test]
fn steps_cost_what_they_declare() {
    let model = build(&data(500, 8, 2, wave), "mlp", &[("hidden", whole(20))]);
    let (m, n) = (20.0, 8.0);
    let start = || model.initial(&mut stream(1, Stream::Initialization));
    let work = |name: &str, settings: Given<'_>, before: u64, steps: u64| {
        let mut settings = settings.to_vec();
        settings.push(("batch_size", whole(100)));
        let mut fit = Fit::new(&*model, name, &settings, start());
        for _ in 0..before {
            fit.step().unwrap();
        }
        let first: Counters = *fit.oracle.counters();
        for _ in 0..steps {
            fit.step().unwrap();
        }
        let last = fit.oracle.counters();
        let gradients = (last.gradients - first.gradients) as f64 * (&*model as &dyn Problem).gradient_flops() / 5.0;
        (last.flops - first.flops - gradients) / steps as f64
    };
    let muon = 5.0 * (4.0 * n * n * m + 2.0 * n * n * n);
    assert_eq!(work("muon", &[], 0, 3), muon);
    // Between refreshes, then with one.
    let step = 6.0 * (m * m * n + m * n * n);
    assert_eq!(work("soap", &[], 1, 9), step);
    let refresh = (2.0 + 8.0 / 3.0) * (m.powi(3) + n.powi(3)) + 4.0 * (m * m * n + m * n * n);
    let counted = work("soap", &[], 10, 1) - step;
    assert!((counted / refresh - 1.0).abs() < 1e-12, "{counted}, not {refresh}");
}

const ALL: [(&str, &[(&str, i64)]); 3] = [
    ("muon", &[("batch_size", 60)]),
    ("soap", &[("batch_size", 60), ("refresh", 2)]),
    ("k-fac", &[("batch_size", 100)]),
];

fn settings_of<'a>(list: &[(&'a str, i64)]) -> Vec<(&'a str, SettingValue)> {
    list.iter().map(|(key, value)| (*key, whole(*value))).collect()
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let model = build(&data(900, 20, 3, wave), "mlp", &[("hidden", word("50-30"))]);
    for (name, settings) in ALL {
        let at_threads = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let start = model.initial(&mut stream(1, Stream::Initialization));
                let mut fit = Fit::new(&*model, name, &settings_of(settings), start);
                (0..7).for_each(|_| fit.step().unwrap());
                (fit.parameters.clone(), fit.state().parts)
            })
        };
        assert_eq!(at_threads(1), at_threads(3), "{name}");
    }
}

#[test]
fn a_pause_changes_nothing_and_the_state_is_as_large_as_it_says() {
    let model = build(&data(400, 6, 3, wave), "mlp", &[("hidden", word("10"))]);
    let problem: &dyn Problem = &*model;
    let start = || model.initial(&mut stream(5, Stream::Initialization));
    // 10 x 6 and 3 x 10, with biases: 103 parameters, 60 of them in the hidden matrix.
    let vectors = [
        ("muon", 60 + 2 * 43),
        ("soap", 2 * 103 + 2 * (100 + 36 + 9 + 100)),
        ("k-fac", 103 + 2 * (49 + 100 + 121 + 9)),
    ];
    for ((name, settings), (_, elements)) in ALL.into_iter().zip(vectors) {
        let settings = settings_of(settings);
        let mut fit = Fit::new(problem, name, &settings, start());
        let mut other = Fit::new(problem, name, &settings, start());
        for step in 0..12 {
            if step == 5 {
                let mut reader = StateReader::new(fit.state().parts, problem.layout());
                other.optimizer.visit_state(&mut reader);
                reader.finish().unwrap();
                other.parameters = Vector::from_values(problem.layout(), fit.parameters.to_host()).unwrap();
                other.oracle.seek(fit.oracle.position()).unwrap();
            }
            fit.step().unwrap();
            if step >= 5 {
                other.step().unwrap();
            }
        }
        assert_eq!(fit.parameters, other.parameters, "{name}");
        let (bytes, most) = (fit.state().bytes(), 4 * elements + 8 * 5);
        assert!((4 * elements..=most).contains(&bytes), "{name}: {bytes} bytes, not about {most}");
    }
}

#[test]
fn what_is_no_number_is_divergence() {
    let broken = data(300, 6, 3, |r, c| if r == 200 { f32::NAN } else { wave(r, c) });
    let model = build(&broken, "mlp", &[("hidden", word("10")), ("standardize", SettingValue::Switch(false))]);
    for (name, settings) in ALL {
        let start = vector(&*model, |i| 0.1 * i.sin());
        let mut fit = Fit::new(&*model, name, &settings_of(settings), start);
        let error = (0..20).find_map(|_| fit.step().err()).unwrap_or_else(|| panic!("{name} went on"));
        assert!(matches!(error, Error::Diverged { .. }), "{name}: {error}");
    }
}

#[test]
fn regressions_take_muon_and_soap_and_refuse_k_fac_in_words() {
    let model = build(&data(600, 6, 3, wave), "softmax", &[("regularizer", word("ridge")), ("strength", real(1e-2))]);
    let problem: &dyn Problem = &*model;
    let optimum = {
        let irls = entry("irls");
        let settings = Settings::check("test", irls.settings, &BTreeMap::new()).unwrap();
        model.objective(&optim::minimize(&irls, &settings, problem, 1, 50).unwrap().parameters).unwrap().0
    };
    let cosine = [("batch_size", whole(100)), ("schedule", word("cosine")), ("horizon", real(60.0))];
    for (name, more) in [("muon", ("adam_learning_rate", real(0.03))), ("soap", ("learning_rate", real(0.01)))] {
        let mut settings = cosine.to_vec();
        settings.push(more);
        let mut fit = Fit::new(problem, name, &settings, vector(problem, |_| 0.0));
        (0..360).for_each(|_| fit.step().unwrap());
        let above = model.objective(&fit.parameters).unwrap().0 - optimum;
        assert!((-1e-9..1e-3).contains(&above), "{name}: {above:e}");
    }
    let reason = problem.kronecker_factors().err().unwrap();
    assert!(reason.contains("hidden = \"none\""), "{reason}");
    let hinge = tanh(50, 2, "5", &[("loss", word("hinge"))]);
    assert!((&*hinge as &dyn Problem).kronecker_factors().err().unwrap().contains("no likelihood"));
}
