//! Optimizers on plain vectors take the steps of independent programs: `tests/reference/optimizer_steps.json`, made by the
//! script beside it. And what they must hold beside: checkpoints, divergence, evaluation points, convergence.

use parsimony::Error;
use parsimony::data::{Examples, Task};
use parsimony::device::Panels;
use parsimony::model::{self, Model, ModelData};
use parsimony::optim::{self, Optimizer, StateReader, StateWriter, Step};
use parsimony::oracle::{
    Answer, Capability, Consensus, Gradient, Layout, Offer, Oracle, Problem, Rows, SettingValue, Settings, Stream,
    Vector, stream,
};
use std::collections::BTreeMap;
use std::sync::Arc;

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

const ROWS: usize = 60;
const BATCH: i64 = 7;
const RIDGE: f64 = 0.02;

/// The regressions of the reference script.
fn regression(classes: usize, settings: Given<'_>) -> Box<dyn Model> {
    let x = |r: usize, c: usize| [1.0, 6.0, 0.3, 2.0][c] * (1.0 + 3.0 * r as f64 + 7.0 * c as f64).sin();
    let class = |r: usize| {
        let score = x(r, 0) + 0.2 * x(r, 1) - 2.0 * x(r, 2) + 1.5 * (5.0 * (r * r) as f64).sin();
        if classes == 2 { u8::from(score > 0.0) } else { u8::from(score > -1.0) + u8::from(score > 1.0) }
    };
    let features = Panels::from_fn(ROWS, 4, |r, c| x(r, c) as f32);
    let targets = Panels::from_fn(ROWS, 1, |r, _| f32::from(class(r)));
    let part = |range| Examples { features: features.clone(), targets: targets.clone(), range };
    let data = ModelData {
        train: part(0..ROWS),
        validation: part(0..0),
        test: part(0..0),
        task: Task::Classes((0..classes).map(|c| format!("c{c}")).collect()),
        columns: (0..4).map(|c| format!("x{c}")).collect(),
    };
    let own = [("accuracy", word("high")), ("standardize", SettingValue::Switch(false))];
    build(&data, if classes == 2 { "logistic" } else { "softmax" }, &[&own, settings].concat())
}

fn ridged(classes: usize) -> Box<dyn Model> {
    regression(classes, &[("regularizer", word("ridge")), ("strength", real(RIDGE))])
}

fn build(data: &ModelData, name: &str, settings: Given<'_>) -> Box<dyn Model> {
    let entry = model::registry().into_iter().find(|entry| entry.name == name).unwrap();
    entry.build(data, &Settings::check("test", entry.settings, &given(settings)).unwrap()).unwrap()
}

/// A network in `f32` whose classes no linear rule tells apart.
fn network(rows: usize) -> Box<dyn Model> {
    let wave = |r: usize, c: usize| (1.0 + 3.0 * r as f64 + 7.0 * c as f64).sin() as f32;
    let features = Panels::from_fn(rows, 6, wave);
    let targets = Panels::from_fn(rows, 1, |r, _| f32::from(u8::from(wave(r, 0) * wave(r, 3) > 0.1)));
    let part = |range| Examples { features: features.clone(), targets: targets.clone(), range };
    let data = ModelData {
        train: part(0..rows),
        validation: part(0..0),
        test: part(0..0),
        task: Task::Classes(vec!["no".into(), "yes".into()]),
        columns: (0..6).map(|c| format!("x{c}")).collect(),
    };
    build(&data, "mlp", &[("hidden", word("12")), ("activation", word("tanh")), ("ridge", real(1e-4))])
}

/// An optimizer on its way.
struct Run<'a> {
    oracle: Oracle<'a>,
    optimizer: Box<dyn Optimizer>,
    parameters: Vector,
}

impl<'a> Run<'a> {
    /// With rows in their own order in minibatches.
    fn new(problem: &'a dyn Problem, name: &str, settings: Given<'_>) -> Self {
        Self::in_blocks(problem, name, settings, problem.rows())
    }

    /// With blocks of rows in a random order.
    fn in_blocks(problem: &'a dyn Problem, name: &str, settings: Given<'_>, block_rows: usize) -> Self {
        let entry = optim::registry().into_iter().find(|entry| entry.name == name).unwrap();
        let settings = Settings::check("test", entry.settings, &given(settings)).unwrap();
        let mut oracle = Oracle::new(problem, name, &entry.needs_with(&settings), 1, block_rows);
        let mut optimizer = (entry.build)(&settings).unwrap();
        let parameters = problem.initial(&mut stream(1, Stream::Initialization));
        optimizer.start(&mut oracle, &parameters).unwrap();
        Self { oracle, optimizer, parameters }
    }

    fn step(&mut self) -> parsimony::Result<Step> {
        self.oracle.begin_step();
        self.optimizer.step(&mut self.oracle, &mut self.parameters)
    }

    fn reported(&self) -> Vec<f64> {
        self.optimizer.reported(&self.parameters).to_host()
    }

    /// Steps until it ends by itself.
    fn finish(&mut self, most: usize) -> Step {
        for _ in 0..most {
            match self.step().unwrap() {
                Step::Continue => {}
                ended => return ended,
            }
        }
        Step::Continue
    }

    fn state(&mut self) -> StateWriter {
        let mut writer = StateWriter::default();
        self.optimizer.visit_state(&mut writer);
        writer
    }
}

fn problem(model: &dyn Model) -> &dyn Problem {
    model
}

fn reference(classes: usize) -> serde_json::Value {
    let all: serde_json::Value = serde_json::from_str(include_str!("reference/optimizer_steps.json")).unwrap();
    all[format!("{classes} classes")].clone()
}

fn numbers(value: &serde_json::Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

/// The largest difference.
fn apart(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |m, (a, b)| m.max((a - b).abs()))
}

/// Takes the steps of the reference and compares every one.
fn follows(model: &dyn Model, name: &str, settings: Given<'_>, steps: &serde_json::Value, tolerance: f64) {
    let mut run = Run::new(problem(model), name, settings);
    for (i, expected) in steps.as_array().unwrap().iter().enumerate() {
        assert_eq!(run.step().unwrap(), Step::Continue, "{name}, step {}", i + 1);
        let expected = numbers(expected);
        let largest = expected.iter().fold(1.0_f64, |m, v| m.max(v.abs()));
        let apart = apart(&run.reported(), &expected);
        assert!(apart <= tolerance * largest, "{name}, step {}: {apart:e} apart", i + 1);
    }
}

fn adam_settings<'a>() -> Vec<(&'a str, SettingValue)> {
    vec![
        ("batch_size", whole(BATCH)),
        ("learning_rate", real(0.05)),
        ("beta2", real(0.95)),
        ("epsilon", real(1e-6)),
        ("weight_decay", real(0.1)),
    ]
}

#[test]
fn adamw_takes_the_steps_of_pytorch() {
    for classes in [2, 3] {
        let mut settings = adam_settings();
        settings.extend([("beta1", real(0.8)), ("schedule", word("cosine")), ("horizon", real(3.0))]);
        follows(&*ridged(classes), "adamw", &settings, &reference(classes)["adamw"], 1e-12);
    }
}

#[test]
fn schedule_free_is_evaluated_at_the_average_of_its_authors_package() {
    for classes in [2, 3] {
        let model = ridged(classes);
        let expected = &reference(classes)["schedule-free"];
        let mut settings = adam_settings();
        settings.push(("warm_up", real(6.0 * BATCH as f64 / ROWS as f64)));
        follows(&*model, "schedule-free", &settings, &expected["x"], 1e-12);
        // Neither the base sequence nor where gradients are taken is near: recording one of them would be noticed.
        let x = numbers(expected["x"].as_array().unwrap().last().unwrap());
        for other in ["y", "z"] {
            assert!(apart(&x, &numbers(&expected[other])) > 1e-3, "{other} is x");
        }
        // The base sequence itself is what the reference says it is.
        let mut run = Run::new(problem(&*model), "schedule-free", &settings);
        run.finish(20);
        assert!(apart(&run.state().parts["base"], &numbers(&expected["z"])) < 1e-12);
    }
}

#[test]
fn l_bfgs_takes_the_steps_of_pytorch() {
    for classes in [2, 3] {
        let settings = [("history", whole(3)), ("tolerance", real(0.0))];
        follows(&*ridged(classes), "l-bfgs", &settings, &reference(classes)["l-bfgs"], 1e-8);
    }
}

#[test]
fn nonlinear_cg_takes_the_steps_of_its_equations() {
    for classes in [2, 3] {
        follows(&*ridged(classes), "nonlinear-cg", &[], &reference(classes)["nonlinear-cg"], 1e-8);
    }
}

#[test]
fn newton_cg_takes_the_steps_of_its_equations() {
    for classes in [2, 3] {
        let settings = [("forcing", real(0.3)), ("cg_iterations", whole(3)), ("tolerance", real(0.0))];
        follows(&*ridged(classes), "newton-cg", &settings, &reference(classes)["newton-cg"], 1e-9);
    }
}

#[test]
fn saga_takes_the_steps_of_its_equations() {
    for classes in [2, 3] {
        let expected = &reference(classes)["saga"];
        let model = ridged(classes);
        follows(&*model, "saga", &[("batch_size", whole(BATCH))], &expected["steps"], 1e-8);
        let mut run = Run::new(problem(&*model), "saga", &[("batch_size", whole(BATCH))]);
        run.step().unwrap();
        let step = run.oracle.notes()["step_size"] / expected["step_size"].as_f64().unwrap();
        assert!((step - 1.0).abs() < 1e-6, "{step}");
        // One number a row and predictor, a vector, and two numbers.
        let outputs = if classes == 2 { 1 } else { classes };
        assert_eq!(run.state().bytes() as usize, 8 * (outputs * ROWS + model.layout().len() + 2));
        // A step of the table costs what a gradient of its rows costs; the start three visits of all rows.
        assert_eq!(run.oracle.counters().rows, (3 * ROWS) as u64 + BATCH as u64);
        run.step().unwrap();
        assert_eq!(run.oracle.counters().rows, (3 * ROWS) as u64 + 2 * BATCH as u64);
    }
}

/// A batch that reaches into the next pass may hold a row twice: the mean must stay that of the table all the same.
#[test]
fn sagas_mean_is_that_of_its_table() {
    let model = ridged(2);
    let mut run = Run::in_blocks(problem(&*model), "saga", &[("batch_size", whole(25))], 1);
    run.finish(200);
    let parts = run.state().parts;
    let zero = Vector::zeros(model.layout());
    let mut table = parts["table"].clone();
    let mut change = zero.zeros_like();
    // From the residuals r to those at zero, p - y: the table's gradient is that at zero less the change.
    problem(&*model).row_residuals().unwrap().exchange_residuals(&zero, Rows::All, &mut table, &mut change).unwrap();
    let mut at_zero = zero.zeros_like();
    problem(&*model).gradient().unwrap().value_and_gradient(&zero, Rows::All, &mut at_zero).unwrap();
    at_zero.axpy(-1.0 / ROWS as f64, &change);
    assert!(apart(at_zero.host(), &parts["mean"]) < 1e-13, "{at_zero:?} {:?}", parts["mean"]);
}

/// Those that stop by themselves stop at the optimum of scipy.
const CONVEX: [&str; 4] = ["l-bfgs", "nonlinear-cg", "newton-cg", "saga"];

#[test]
fn optima_are_those_of_scipy_and_scikit_learn() {
    for classes in [2, 3] {
        let model = ridged(classes);
        let expected = &reference(classes);
        for key in ["optimum", "optimum by scikit-learn's saga"] {
            let optimum = expected[key].as_f64().or_else(|| expected[key]["value"].as_f64()).unwrap();
            for name in CONVEX {
                let mut run = Run::new(problem(&*model), name, &[]);
                let ended = run.finish(20_000);
                assert!(matches!(ended, Step::Converged(_)), "{name}: {ended:?}");
                let (objective, gradient) = model.objective(&run.parameters).unwrap();
                assert!((objective - optimum).abs() < 1e-10, "{name}: {objective}, not {optimum}");
                assert!(gradient.unwrap() <= if name == "saga" { 1e-6 } else { 1e-7 }, "{name}: {gradient:?}");
            }
        }
    }
}

#[test]
fn newton_cg_reaches_the_optimum_with_the_curvature_of_some_rows() {
    let model = ridged(3);
    let settings = [("curvature_rows", whole(30))];
    let mut run = Run::new(problem(&*model), "newton-cg", &settings);
    let ended = run.finish(300);
    assert!(matches!(ended, Step::Converged(_)), "{ended:?} after {} steps", run.oracle.step());
}

#[test]
fn saga_reaches_a_sparse_optimum_through_the_proximal_map() {
    let model = regression(2, &[("regularizer", word("l1")), ("strength", real(0.1))]);
    let mut saga = Run::new(problem(&*model), "saga", &[]);
    assert!(matches!(saga.finish(50_000), Step::Converged(_)));
    let mut admm = Run::new(problem(&*model), "admm", &[("absolute_tolerance", real(1e-10))]);
    admm.finish(5000);
    let (saga, admm) = (Vector::from_values(model.layout(), saga.reported()).unwrap(), admm.reported());
    assert!(saga.nonzero() < saga.len(), "{saga:?}");
    assert!(apart(saga.host(), &admm) < 1e-4, "{saga:?} {admm:?}");
}

#[test]
fn saga_says_what_it_lacks() {
    let model = network(60);
    let mut run = Run::new(problem(&*model), "saga", &[]);
    let error = run.step().unwrap_err().to_string();
    assert!(error.contains("residuals of single rows") && error.contains("not multiples of fixed columns"), "{error}");
}

const MINIBATCH: [&str; 2] = ["adamw", "schedule-free"];
const WHOLE: [&str; 3] = ["l-bfgs", "nonlinear-cg", "newton-cg"];

#[test]
fn networks_are_trained_in_single_precision() {
    let model = network(600);
    let start = model.objective(&model.initial(&mut stream(1, Stream::Initialization))).unwrap().0;
    let minibatch = [("batch_size", whole(50)), ("learning_rate", real(0.02))];
    for (name, settings, steps) in MINIBATCH
        .map(|name| (name, &minibatch[..], 400))
        .into_iter()
        .chain(WHOLE.map(|name| (name, &[][..], 60)))
        .chain([("newton-cg", &[("curvature_rows", whole(200)), ("damping", real(1e-3))][..], 60)])
    {
        let mut run = Run::new(problem(&*model), name, settings);
        run.finish(steps);
        let reported = Vector::from_values(model.layout(), run.reported()).unwrap();
        let reached = model.objective(&reported).unwrap().0;
        println!("{name}: {start:.4} to {reached:.4} in {} steps", run.oracle.step());
        assert!(reached < 0.6 * start, "{name}: {reached} from {start}");
    }
}

#[test]
fn they_go_on_from_their_state_bit_for_bit() {
    let (network, regression) = (network(300), ridged(2));
    let batch = ("batch_size", whole(BATCH));
    let averaged = [batch.clone(), ("average", SettingValue::Switch(true)), ("average_from", real(0.02))];
    let some = [("curvature_rows", whole(40))];
    let mut cases: Vec<(&dyn Model, &str, Given<'_>)> = vec![(&*regression, "saga", std::slice::from_ref(&batch))];
    for model in [&*network, &*regression] {
        cases.extend([
            (model, "adamw", &averaged[..]),
            (model, "schedule-free", std::slice::from_ref(&batch)),
            (model, "l-bfgs", &[]),
            (model, "nonlinear-cg", &[]),
            (model, "newton-cg", &some),
        ]);
    }
    for (model, name, settings) in cases {
        for stop in [0, 4] {
            let (mut whole, mut second) =
                (Run::new(problem(model), name, settings), Run::new(problem(model), name, settings));
            for _ in 0..stop {
                whole.step().unwrap();
            }
            let mut reader = StateReader::new(whole.state().parts, model.layout());
            second.optimizer.visit_state(&mut reader);
            reader.finish().unwrap();
            second.parameters = Vector::from_values(model.layout(), whole.parameters.to_host()).unwrap();
            second.oracle.seek(whole.oracle.position()).unwrap();
            for step in 0..4 {
                assert_eq!(whole.step().unwrap(), second.step().unwrap());
                let same = whole.reported().iter().zip(second.reported()).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{name}, step {}", stop + step + 1);
            }
            assert_eq!(whole.oracle.counters(), second.oracle.counters());
        }
    }
}

#[test]
fn states_take_the_bytes_that_they_should() {
    let (network, regression) = (network(300), ridged(2));
    for (model, size) in [(&*network, 4), (&*regression, 8)] {
        let vector = size * model.layout().len();
        for (name, settings, vectors, numbers) in [
            ("adamw", &[][..], 2, 3),
            ("adamw", &[("average", SettingValue::Switch(true))], 3, 3),
            ("schedule-free", &[], 2, 3),
            // The gradient and three pairs; value, smallest gradient, stalled steps, and a product each pair.
            ("l-bfgs", &[("history", whole(3))], 7, 6),
            ("nonlinear-cg", &[], 2, 4),
            ("newton-cg", &[], 1, 3),
        ] {
            let mut run = Run::new(problem(model), name, settings);
            for _ in 0..4 {
                run.step().unwrap();
            }
            assert_eq!(run.state().bytes() as usize, vectors * vector + 8 * numbers, "{name}");
        }
    }
}

/// A parabola that is no number beyond a wall.
struct Walled {
    layout: Arc<Layout>,
    wall: f64,
}

impl Problem for Walled {
    fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }
    fn rows(&self) -> usize {
        10
    }
    fn gradient_flops(&self) -> f64 {
        1.0
    }
    fn initial(&self, _: &mut rand_chacha::ChaCha8Rng) -> Vector {
        Vector::zeros(&self.layout)
    }
    fn gradient(&self) -> Offer<&dyn Gradient> {
        Ok(self)
    }
}

impl Gradient for Walled {
    fn value_and_gradient(&self, at: &Vector, _: Rows<'_>, gradient: &mut Vector) -> parsimony::Result<Answer<f64>> {
        let x = at.host()[0];
        gradient.host_mut()[0] = x - 1.0;
        let value = if x > self.wall { f64::NAN } else { 0.5 * (x - 1.0).powi(2) };
        Ok(Answer { value, cost: Default::default() })
    }
}

#[test]
fn searches_step_back_from_what_is_no_number_and_name_it_where_there_is_nothing_else() {
    for name in ["l-bfgs", "nonlinear-cg"] {
        // The first step reaches 1, where a wall at 0.9 stands in the way.
        let walled = Walled { layout: Layout::new([("x", 1, 1)]), wall: 0.9 };
        let mut run = Run::new(&walled, name, &[]);
        run.step().unwrap();
        let x = run.reported()[0];
        assert!(x > 0.2 && x <= 0.9, "{name}: {x}");
        // Here everything but the start is no number, and there not even that.
        for (wall, quantity) in [(0.0, "the objective along the search direction"), (-1.0, "the objective")] {
            let walled = Walled { layout: Layout::new([("x", 1, 1)]), wall };
            let error = Run::new(&walled, name, &[]).step().unwrap_err();
            assert!(matches!(&error, Error::Diverged { quantity: named, .. } if named == quantity), "{name}: {error}");
        }
    }
    for name in MINIBATCH {
        let walled = Walled { layout: Layout::new([("x", 1, 1)]), wall: 0.05 };
        let mut run = Run::new(&walled, name, &[("learning_rate", real(0.1))]);
        let error = (0..5).find_map(|_| run.step().err()).unwrap();
        assert!(matches!(&error, Error::Diverged { quantity, .. } if quantity == "the minibatch objective"), "{error}");
    }
}

/// A regression whose losses are no numbers.
struct Broken(Box<dyn Model>);

impl Problem for Broken {
    fn layout(&self) -> &Arc<Layout> {
        self.0.layout()
    }
    fn rows(&self) -> usize {
        self.0.rows()
    }
    fn gradient_flops(&self) -> f64 {
        1.0
    }
    fn initial(&self, _: &mut rand_chacha::ChaCha8Rng) -> Vector {
        let mut start = Vector::zeros(self.0.layout());
        start.fill(f64::NAN);
        start
    }
    fn gradient(&self) -> Offer<&dyn Gradient> {
        self.0.gradient()
    }
    fn curvature(&self) -> Offer<&dyn parsimony::oracle::Curvature> {
        self.0.curvature()
    }
    fn row_residuals(&self) -> Offer<&dyn parsimony::oracle::RowResiduals> {
        self.0.row_residuals()
    }
    fn consensus(&self) -> Offer<&dyn Consensus> {
        self.0.consensus()
    }
}

#[test]
fn a_start_that_is_no_number_is_named_by_each() {
    for name in MINIBATCH.into_iter().chain(CONVEX) {
        let broken = Broken(ridged(2));
        let error = Run::new(&broken, name, &[]).step().unwrap_err();
        assert!(matches!(error, Error::Diverged { step: 1, .. }), "{name}: {error}");
        assert!(error.to_string().contains("objective"), "{name}: {error}");
    }
}

#[test]
fn the_number_of_threads_does_not_matter_to_them() {
    let (network, regression) = (network(3000), ridged(3));
    let run = |model: &dyn Model, name: &str, threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut run = Run::new(problem(model), name, &[]);
            run.finish(5);
            run.reported()
        })
    };
    for name in MINIBATCH.into_iter().chain(WHOLE) {
        assert_eq!(run(&*network, name, 1), run(&*network, name, 3), "{name}");
    }
    assert_eq!(run(&*regression, "saga", 1), run(&*regression, "saga", 3));
}

#[test]
fn only_what_is_declared_is_asked() {
    for name in MINIBATCH.into_iter().chain(CONVEX) {
        let entry = optim::registry().into_iter().find(|entry| entry.name == name).unwrap();
        let expected: &[Capability] = match name {
            "saga" => &[Capability::RowResiduals, Capability::Consensus],
            "newton-cg" => &[Capability::Gradient, Capability::CurvatureProduct],
            _ => &[Capability::Gradient],
        };
        assert_eq!(entry.needs, expected, "{name}");
    }
}
