//! What layer-wise ADMM must hold: joint steps that a generic minimizer agrees with, sweeps that minimize what they say,
//! fixed points, and the same bits at any number of threads and after a resume.

use parsimony::data::{Examples, Task};
use parsimony::device::Panels;
use parsimony::model::{self, Model, ModelData};
use parsimony::optim::{self, Optimizer, StateReader, StateWriter, minimize};
use parsimony::oracle::{
    Batch, Head, LocalStep, Oracle, Problem, Rows, SettingValue, Settings, Stream, Vector, stream,
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

fn wave(r: usize, c: usize) -> f32 {
    (1.0 + 3.0 * r as f64 + 7.0 * c as f64).sin() as f32
}

fn data(rows: usize, columns: usize, classes: usize) -> ModelData {
    let features = Panels::from_fn(rows, columns, wave);
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

fn build(data: &ModelData, settings: Given<'_>) -> Box<dyn Model> {
    let entry = model::registry().into_iter().find(|entry| entry.name == "mlp").unwrap();
    let settings = [settings, &[("standardize", SettingValue::Switch(false))]].concat();
    entry.build(data, &Settings::check("test", entry.settings, &given(&settings)).unwrap()).unwrap()
}

fn problem(model: &dyn Model) -> &dyn Problem {
    model
}

fn vector(model: &dyn Model, value: impl Fn(f64) -> f64) -> Vector {
    let values = (0..model.layout().len()).map(|i| value(i as f64)).collect();
    Vector::from_values(model.layout(), values).unwrap()
}

fn admm(settings: Given<'_>) -> (optim::OptimizerEntry, Settings) {
    let entry = optim::registry().into_iter().find(|entry| entry.name == "admm").unwrap();
    let settings = Settings::check("test", entry.settings, &given(settings)).unwrap();
    (entry, settings)
}

/// A small network in `f64`, with the masks of a forward pass held.
struct Tiny {
    widths: Vec<usize>,
    values: Vec<f64>,
    loss: &'static str,
}

impl Tiny {
    fn start(&self, layer: usize) -> usize {
        self.widths.windows(2).take(layer).map(|w| (w[0] + 1) * w[1]).sum()
    }

    fn linear(&self, layer: usize, x: &[f64]) -> Vec<f64> {
        let (inputs, outputs, start) = (self.widths[layer], self.widths[layer + 1], self.start(layer));
        let weight = |i: usize, j: usize| self.values[start + i * inputs + j];
        let bias = |i: usize| self.values[start + outputs * inputs + i];
        (0..outputs).map(|i| bias(i) + x.iter().enumerate().map(|(j, x)| weight(i, j) * x).sum::<f64>()).collect()
    }

    /// Outputs of all layers and masks of hidden ones in a forward pass.
    fn masks(&self, x: &[f64]) -> Vec<Vec<f64>> {
        let mut a = x.to_vec();
        (0..self.widths.len() - 2)
            .map(|layer| {
                let z = self.linear(layer, &a);
                a = z.iter().map(|z| z.max(0.0)).collect();
                z.iter().map(|&z| f64::from(u8::from(z > 0.0))).collect()
            })
            .collect()
    }

    /// `l(s) + beta/2 sum |e|^2` for residuals `e` of the hidden layers, one after another.
    fn objective(&self, x: &[f64], masks: &[Vec<f64>], y: usize, beta: f64, e: &[f64]) -> f64 {
        let (mut a, mut used) = (x.to_vec(), 0);
        for (layer, mask) in masks.iter().enumerate() {
            let z = self.linear(layer, &a);
            a = z.iter().zip(mask).enumerate().map(|(i, (z, mask))| mask * (z + e[used + i])).collect();
            used += mask.len();
        }
        let s = self.linear(masks.len(), &a);
        let loss = match (self.loss, &s[..]) {
            ("logistic", [s]) => s.exp().ln_1p() - y as f64 * s,
            ("squared", [s]) => 0.5 * (s - y as f64).powi(2),
            ("squared", _) => s.iter().enumerate().map(|(k, s)| 0.5 * (s - f64::from(u8::from(k == y))).powi(2)).sum(),
            _ => s.iter().map(|s| s.exp()).sum::<f64>().ln() - s[y],
        };
        loss + 0.5 * beta * e.iter().map(|e| e * e).sum::<f64>()
    }
}

/// Minimizes by gradient descent with halving, on central differences: slow, and nothing that the program uses.
fn generic_minimum(f: impl Fn(&[f64]) -> f64, size: usize) -> Vec<f64> {
    let (mut at, mut step) = (vec![0.0; size], 1.0);
    for _ in 0..20_000 {
        let slope: Vec<f64> = (0..size)
            .map(|i| {
                let moved = |h: f64| {
                    let mut moved = at.clone();
                    moved[i] += h;
                    f(&moved)
                };
                (moved(1e-5) - moved(-1e-5)) / 2e-5
            })
            .collect();
        let norm: f64 = slope.iter().map(|s| s * s).sum();
        if norm < 1e-18 {
            break;
        }
        let here = f(&at);
        loop {
            let next: Vec<f64> = at.iter().zip(&slope).map(|(a, s)| a - step * s).collect();
            if f(&next) <= here - 0.3 * step * norm || step < 1e-12 {
                at = next;
                step *= 2.0;
                break;
            }
            step *= 0.5;
        }
    }
    at
}

#[test]
fn joint_steps_are_those_of_a_generic_minimizer() {
    for (hidden, widths, classes, loss) in [
        ("5", vec![3, 5, 1], 2, "logistic"),
        ("5", vec![3, 5, 1], 2, "squared"),
        ("5", vec![3, 5, 3], 3, "softmax"),
        ("5", vec![3, 5, 3], 3, "squared"),
        ("4-5", vec![3, 4, 5, 1], 2, "logistic"),
        ("4-5", vec![3, 4, 5, 3], 3, "softmax"),
        ("3-4-3", vec![3, 3, 4, 3, 3], 3, "softmax"),
    ] {
        let data = data(6, 3, classes);
        let model = build(&data, &[("hidden", word(hidden)), ("loss", word(loss))]);
        let at = vector(&*model, |i| 0.9 * (1.7 * i + 0.4).cos());
        let tiny = Tiny { widths: widths.clone(), values: at.to_host(), loss };
        let beta = 0.4;
        let hidden_units: usize = widths[1..widths.len() - 1].iter().sum();
        let end = tiny.start(widths.len() - 2);
        for row in 0..6 {
            let batch = Batch::new(vec![row]);
            let splitting = problem(&*model).layer_splitting().unwrap();
            let step = splitting.joint_step(&at, Rows::Batch(&batch), beta, Head::Reweighted, true).unwrap().value;
            let x: Vec<f64> = (0..3).map(|c| f64::from(wave(row as usize, c))).collect();
            let y = data.train.targets.get(row as usize, 0) as usize;
            let masks = tiny.masks(&x);
            let f = |e: &[f64]| tiny.objective(&x, &masks, y, beta, e);
            let e = generic_minimum(f, hidden_units);
            let label = format!("{hidden} {loss} row {row}");
            assert!((step.augmented - f(&e)).abs() < 1e-5 * (1.0 + f(&e)), "{label}: {} {}", step.augmented, f(&e));
            assert!((step.loss - f(&vec![0.0; hidden_units])).abs() < 1e-5, "{label}");
            let gap: f64 = e.iter().map(|e| e * e).sum();
            assert!((step.gap - gap).abs() < 1e-3 * (1e-2 + gap), "{label}: {} {gap}", step.gap);
            // Right-hand sides: the biases' part is e itself.
            let rights = step.rights.to_host();
            let mut used = 0;
            for layer in 0..widths.len() - 2 {
                let biases = tiny.start(layer) + widths[layer] * widths[layer + 1];
                for i in 0..widths[layer + 1] {
                    let (got, expected) = (rights[biases + i], e[used + i]);
                    assert!(
                        (got - expected).abs() < 1e-3 * (0.1 + expected.abs()),
                        "{label} {layer} {i}: {got} {expected}"
                    );
                }
                used += widths[layer + 1];
            }
            // The last layer's is minus its gradient.
            let mut gradient = at.zeros_like();
            problem(&*model).gradient().unwrap().value_and_gradient(&at, Rows::Batch(&batch), &mut gradient).unwrap();
            let gradient = gradient.to_host();
            assert!((end..rights.len()).all(|i| (rights[i] + gradient[i]).abs() < 1e-5), "{label}");
            assert_eq!(step.grams.len(), widths.len() - 2);
        }
    }
}

#[test]
fn a_unit_that_is_off_everywhere_leaves_the_outputs_where_they_are() {
    // No unit above zero: q = 0, nothing can move, and the step says so without a division by zero.
    for (classes, loss) in [(2, "logistic"), (3, "softmax")] {
        let model = build(&data(40, 3, classes), &[("hidden", word("4")), ("loss", word(loss))]);
        let at = vector(&*model, |i| if (12.0..16.0).contains(&i) { -50.0 } else { 0.3 });
        let splitting = problem(&*model).layer_splitting().unwrap();
        let step = splitting.joint_step(&at, Rows::All, 0.1, Head::Reweighted, true).unwrap().value;
        assert!((step.gap, step.active) == (0.0, 0.0) && (step.augmented - step.loss).abs() < 1e-6);
        assert!(step.rights.is_finite());
    }
}

/// Rows' variables that satisfy every constraint, with the multiplier `-grad l(z_L)`, leave the network as it is under a
/// whole sweep, whatever the weights: the loss's gradient there is not zero.
#[test]
fn every_feasible_point_is_a_spurious_fixed_point_of_the_published_sweep() {
    let rows = 60;
    let model = build(&data(rows, 3, 2), &[("hidden", word("4")), ("loss", word("squared"))]);
    let at = vector(&*model, |i| 0.8 * (1.3 * i + 0.2).sin());
    let tiny = Tiny { widths: vec![3, 4, 1], values: at.to_host(), loss: "squared" };
    let (mut a, mut z) = (vec![0.0; 4 * rows], vec![0.0; 4 * rows]);
    let (mut output, mut multiplier) = (vec![0.0; rows], vec![0.0; rows]);
    for row in 0..rows {
        let x: Vec<f64> = (0..3).map(|c| f64::from(wave(row, c))).collect();
        let hidden = tiny.linear(0, &x);
        let active: Vec<f64> = hidden.iter().map(|z| z.max(0.0)).collect();
        output[row] = tiny.linear(1, &active)[0];
        multiplier[row] = ((row * row + row / 2) % 2) as f64 - output[row];
        for i in 0..4 {
            (z[i * rows + row], a[i * rows + row]) = (hidden[i], active[i]);
        }
    }
    let state = [a, z, output, multiplier].concat();
    let (entry, settings) = admm(&[("variant", word("taylor")), ("warm_start", whole(0)), ("ridge", real(0.0))]);
    let mut oracle = Oracle::new(problem(&*model), "admm", &entry.needs_with(&settings), 1, 1);
    let mut optimizer = (entry.build)(&settings).unwrap();
    let mut parameters = at.clone();
    optimizer.start(&mut oracle, &parameters).unwrap();
    let parts = BTreeMap::from([("sweeps".to_owned(), vec![0.0]), ("local".to_owned(), state)]);
    optimizer.visit_state(&mut StateReader::new(parts, model.layout()));
    for _ in 0..3 {
        oracle.begin_step();
        optimizer.step(&mut oracle, &mut parameters).unwrap();
    }
    // The inputs are dependent, so weights may move along what changes no output: the network stays the same function.
    let (before, after) = (model.objective(&at).unwrap().0, model.objective(&parameters).unwrap().0);
    assert!((after - before).abs() < 1e-4 * before, "{after} from {before}");
    assert!(oracle.notes()["primal_residual"] < 1e-3 && oracle.notes()["dual_residual"] < 1e-2);
    let mut gradient = at.zeros_like();
    problem(&*model).gradient().unwrap().value_and_gradient(&parameters, Rows::All, &mut gradient).unwrap();
    assert!(gradient.norm_max() > 0.05, "{}", gradient.norm_max());
}

/// Each local step lowers the sum that it minimizes, and a fit leaves no slope in its weights.
#[test]
fn local_steps_never_raise_the_augmented_objective() {
    for (hidden, classes, loss) in
        [("6", 2, "unit-hinge"), ("6", 2, "hinge"), ("6-5", 2, "logistic"), ("5-6", 3, "softmax")]
    {
        let model = build(&data(200, 4, classes), &[("hidden", word(hidden)), ("loss", word(loss))]);
        let settings = [("variant", word("taylor")), ("warm_start", whole(1000)), ("ridge", real(0.0))];
        let (entry, settings) = admm(&settings);
        let mut oracle = Oracle::new(problem(&*model), "admm", &entry.needs_with(&settings), 1, 1);
        let mut optimizer = (entry.build)(&settings).unwrap();
        let mut parameters = model.initial(&mut stream(1, Stream::Initialization));
        optimizer.start(&mut oracle, &parameters).unwrap();
        let mut before = f64::INFINITY;
        for sweep in 0..30 {
            oracle.begin_step();
            optimizer.step(&mut oracle, &mut parameters).unwrap();
            let now = oracle.notes()["augmented_objective"];
            assert!(now <= before * (1.0 + 1e-4), "{hidden} {loss} sweep {sweep}: {now} after {before}");
            before = now;
        }
        for note in ["primal_residual", "dual_residual", "beta", "gamma", "active_share"] {
            assert!(oracle.notes()[note] >= 0.0);
        }
    }
}

#[test]
fn activations_are_at_their_minimum_whichever_system_is_solved() {
    // The layer above is narrower, then wider.
    for hidden in ["6-3", "3-6"] {
        let model = build(&data(50, 4, 2), &[("hidden", word(hidden))]);
        let at = vector(&*model, |i| 0.7 * (1.1 * i).sin());
        let mut variables = problem(&*model).layer_splitting().unwrap().local_variables().unwrap();
        variables.draw(&mut stream(3, Stream::Optimizer));
        variables.visit(&at, &[LocalStep::Activations { layer: 0, beta: 2.0, gamma: 0.7 }]).unwrap();
        let state = variables.state();
        let units = if hidden == "6-3" { [6, 3] } else { [3, 6] };
        let tiny = Tiny { widths: vec![4, units[0], units[1], 1], values: at.to_host(), loss: "logistic" };
        let row = 17;
        let take =
            |first: usize, count: usize| -> Vec<f64> { (first..first + count).map(|u| state[u * 50 + row]).collect() };
        let a = take(0, units[0]);
        let (z, above) = (take(9, units[0]), take(9 + units[0], units[1]));
        let f = |a: &[f64]| {
            let gap: f64 = tiny.linear(1, a).iter().zip(&above).map(|(m, z)| (z - m).powi(2)).sum();
            2.0 * gap + 0.7 * a.iter().zip(&z).map(|(a, z)| (a - z.max(0.0)).powi(2)).sum::<f64>()
        };
        let best = f(&generic_minimum(f, units[0]));
        assert!((f(&a) - best).abs() < 1e-5 * (1.0 + best), "{hidden}: {} {best}", f(&a));
    }
}

const VARIANTS: [(&str, &str); 2] = [("taylor", "12-5"), ("proximal", "12-5")];

fn settings_of(variant: &str) -> Vec<(&'static str, SettingValue)> {
    match variant {
        "taylor" => vec![("variant", word("taylor")), ("warm_start", whole(2))],
        _ => vec![("variant", word("proximal")), ("batch_size", whole(150)), ("refresh", whole(3))],
    }
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let data = data(1500, 6, 3);
    for (variant, hidden) in VARIANTS {
        let model = build(&data, &[("hidden", word(hidden)), ("ridge", real(1e-4))]);
        let (entry, settings) = admm(&settings_of(variant));
        let at_threads = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| minimize(&entry, &settings, problem(&*model), 3, 8).unwrap().parameters)
        };
        assert_eq!(at_threads(1), at_threads(3), "{variant}");
    }
}

#[test]
fn a_fit_goes_on_from_its_state_bit_for_bit() {
    let data = data(700, 6, 3);
    for (variant, hidden) in VARIANTS {
        let model = build(&data, &[("hidden", word(hidden)), ("ridge", real(1e-3))]);
        let (entry, settings) = admm(&settings_of(variant));
        let start = || {
            let mut oracle = Oracle::new(problem(&*model), "admm", &entry.needs_with(&settings), 5, 1);
            let mut optimizer = (entry.build)(&settings).unwrap();
            let parameters = model.initial(&mut stream(5, Stream::Initialization));
            optimizer.start(&mut oracle, &parameters).unwrap();
            (oracle, optimizer, parameters)
        };
        let run = |(oracle, optimizer, parameters): &mut (Oracle<'_>, Box<dyn Optimizer>, Vector), steps| {
            for _ in 0..steps {
                oracle.begin_step();
                optimizer.step(oracle, parameters).unwrap();
            }
        };
        let mut whole = start();
        run(&mut whole, 10);
        let (mut first, mut second) = (start(), start());
        run(&mut first, 5);
        let mut writer = StateWriter::default();
        first.1.visit_state(&mut writer);
        let mut reader = StateReader::new(writer.parts, model.layout());
        second.1.visit_state(&mut reader);
        reader.finish().unwrap();
        second.2 = Vector::from_values(model.layout(), first.2.to_host()).unwrap();
        second.0.seek(first.0.position()).unwrap();
        run(&mut first, 5);
        run(&mut second, 5);
        assert_eq!(whole.2, second.2, "{variant}");
        assert_eq!(first.2, second.2, "{variant}");
    }
}

#[test]
fn the_proximal_variant_learns_what_no_linear_rule_tells() {
    let mut data = data(2000, 6, 2);
    data.train.targets = Panels::from_fn(2000, 1, |r, _| f32::from(u8::from(wave(r, 0) * wave(r, 3) > 0.1)));
    let model = build(&data, &[("hidden", word("20"))]);
    for head in ["irls", "least-squares"] {
        let settings = [("batch_size", whole(500)), ("head", word(head)), ("head_step", real(0.2))];
        let (entry, settings) = admm(&[&settings[..], &[("variant", word("proximal"))]].concat());
        let start = model.objective(&model.initial(&mut stream(1, Stream::Initialization))).unwrap().0;
        let fit = minimize(&entry, &settings, problem(&*model), 1, 300).unwrap();
        let reached = model.objective(&fit.parameters).unwrap().0;
        assert!(reached < 0.5 * start, "{head}: {reached} from {start}");
    }
}

#[test]
fn what_does_not_fit_is_said_in_words() {
    let data = data(30, 4, 2);
    let refusal = |settings: Given<'_>| problem(&*build(&data, settings)).layer_splitting().err().unwrap();
    assert!(refusal(&[("activation", word("tanh"))]).contains("rectifiers"));
    assert!(refusal(&[("hidden", word("none"))]).contains("no hidden layers"));
    let entry = optim::registry().into_iter().find(|entry| entry.name == "admm").unwrap();
    let error = Settings::check("test", entry.settings, &given(&[("gamma", real(1.0))])).unwrap_err().to_string();
    assert!(error.contains("does not belong to variant = consensus") && error.contains("taylor"), "{error}");
    let consensus = Settings::check("test", entry.settings, &BTreeMap::new()).unwrap();
    assert!(!consensus.values().contains_key("gamma") && consensus.values().contains_key("parts"));
}
