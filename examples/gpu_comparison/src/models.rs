//! Every model on one device beside the same on another: value, gradient, Gauss-Newton product, squared gradients, sums for the
//! steps of experts, evaluation and losses of held-out rows, and where a few steps of every optimizer that can train it end.
//!
//! Outputs are compared at the same parameters, so that tokens are routed by the same numbers but for rounding.

use parsimony::Result;
use parsimony::data::{Examples, Task};
use parsimony::device::cuda::comparison::{Row, relative_error};
use parsimony::device::{Device, Panels, make_current};
use parsimony::model::transformer::config::{Config, FeedForward, Precision};
use parsimony::model::transformer::{HeldRows, TokenParts, TokenRows, Transformer, presets};
use parsimony::model::{self, Model, ModelData, Split};
use parsimony::optim::{self, OptimizerEntry, minimize};
use parsimony::oracle::{
    ExpertQuestion, Problem, RouterSignal, Rows, SettingRange, SettingValue, Settings, Stream, TokenStep, Vector,
    stream,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A model on data of its own, small enough for an emulated GPU.
pub struct Case {
    name: String,
    /// Builds it on the current device.
    pub build: Box<dyn Fn() -> Result<Box<dyn Model>>>,
    /// What outputs may differ by, norm-wise and relative to their size.
    bound: f64,
    /// The same of parameters after a few steps, and of the objective there.
    ends: [f64; 2],
    /// Whether an optimizer is tried on it, in the words of [`words`].
    tries: fn(&str) -> bool,
}

/// Steps of an optimizer.
const STEPS: u64 = 3;
/// SOAP's first steps have the same size in every direction of its basis, also where the gradient is rounding.
const OF_SOAP: f64 = 2e-2;

/// Waves of different lengths, and targets that follow them but for one that no column shows; without classes two real targets.
fn waves(rows: usize, columns: usize, classes: usize, outputs: usize) -> ModelData {
    let wave = |r: usize, c: usize| (1.0 + r as f64 * (3.0 + 0.7 * c as f64) + 7.0 * c as f64).sin() as f32;
    let features = Panels::from_fn(rows, columns, wave);
    let target = |r: usize, k: usize| {
        let height = wave(r, k) - wave(r, 2) + wave(r, 9);
        if classes == 0 { height } else { ((height / 6.0 + 0.5) * classes as f32).floor() }
    };
    let targets = Panels::from_fn(rows, outputs, target);
    let held = rows / 5;
    let part = |range| Examples { features: features.clone(), targets: targets.clone(), range };
    let names = (0..classes).map(|c| format!("c{c}")).collect();
    ModelData {
        train: part(0..rows - held),
        validation: part(rows - held..rows),
        test: part(rows..rows),
        task: if classes == 0 { Task::Regression } else { Task::Classes(names) },
        columns: (0..columns).map(|c| format!("x{c}")).collect(),
    }
}

fn word(word: &str) -> SettingValue {
    SettingValue::Word(word.into())
}

fn of_table(name: &'static str, data: ModelData, given: Vec<(&'static str, SettingValue)>) -> Case {
    let words: Vec<String> = given.iter().map(|(_, value)| value.to_string()).collect();
    let given: BTreeMap<String, SettingValue> = given.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let build = move || {
        let entry = model::registry().into_iter().find(|entry| entry.name == name).expect("a registered model");
        entry.build(&data, &Settings::check(name, entry.settings, &given)?)
    };
    let name = format!("{name} {}", words.join(" "));
    // The sweeps of `taylor` solve with pseudoinverses of singular matrices: they make much of rounding.
    let tries = |optimizer: &str| optimizer != "admm taylor";
    Case { name, build: Box::new(build), bound: 1e-5, ends: [1e-3, 1e-4], tries }
}

/// A Switch layer, four fifths of the rows for training.
pub fn of_experts(rows: usize, experts: usize, balance: f64) -> Case {
    let given = vec![
        ("experts", SettingValue::Whole(experts as i64)),
        ("hidden", SettingValue::Whole(6)),
        ("balance", SettingValue::Real(balance)),
    ];
    let case = of_table("switch-layer", waves(rows, 5, 0, 2), given);
    // Where Newton-CG ends its conjugate gradients is a matter of rounding on the dense layer.
    Case { tries: |optimizer| optimizer != "newton-cg", ..case }
}

/// Five sequences of nine tokens; the last ones of every second are padding.
fn of_tokens(name: &str, config: Config) -> Case {
    let mut held = HeldRows { context: 9, ..HeldRows::default() };
    for i in 0..5 * 9 {
        let is_padding = (i / 9) % 2 == 1 && i % 9 > 5;
        let symbol = |i: usize| if is_padding { u32::MAX } else { ((i % 7 + i * i % 3) % 11) as u32 };
        held.tokens.push(symbol(i));
        held.next.push(symbol(i + 1));
    }
    let together = if config.switch.is_some_and(|switch| switch.top_k > 1) { 45 } else { 0 };
    let is_half = config.precision != Precision::Single;
    let build = move || {
        let rows: Arc<dyn TokenRows> = Arc::new(held.clone());
        let parts = TokenParts { train: rows.clone(), evaluation: [rows.clone(), rows.clone(), rows.clone()] };
        Ok(Box::new(Transformer::new(config.clone(), 9, together, parts)?) as Box<dyn Model>)
    };
    // A rounded number moves by a step where what was rounded is near the middle of two.
    let bound = if is_half { 1e-2 } else { 1e-4 };
    let tries = |optimizer: &str| matches!(optimizer, "sgd" | "adamw" | "hessian-free");
    Case { name: name.into(), build: Box::new(build), bound, ends: [if is_half { 5e-2 } else { 1e-2 }, 1e-2], tries }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, classes, features) in [
        ("logistic", 2, "linear"),
        ("logistic", 2, "products"),
        ("softmax", 4, "squares"),
        ("least-squares", 0, "linear"),
    ] {
        for accuracy in ["high", "fast"] {
            let given = vec![
                ("features", word(features)),
                ("regularizer", word("ridge")),
                ("strength", SettingValue::Real(0.01)),
                ("accuracy", word(accuracy)),
            ];
            let case = of_table(name, waves(421, 4, classes, 1), given);
            cases.push(match accuracy {
                "high" => Case { bound: 1e-11, ends: [1e-8, 1e-10], ..case },
                // Line searches make much of the rounding of f32.
                _ => Case { tries: |optimizer| matches!(optimizer, "sgd" | "irls observed" | "adamw"), ..case },
            });
        }
    }
    for activation in ["relu", "gelu"] {
        let given = vec![("hidden", word("7-5")), ("activation", word(activation))];
        cases.push(of_table("mlp", waves(301, 5, 3, 1), given));
    }
    cases.extend([of_experts(330, 1, 0.0), of_experts(330, 3, 0.05)]);
    let micro = |name: &str, feed_forward| Config {
        vocabulary: 11,
        d_model: 12,
        d_kv: 4,
        heads: 3,
        d_ff: 20,
        feed_forward,
        ..presets::find(name).expect("a preset of this crate").config
    };
    // Two choices with little room, losses of the router, all sequences routed together.
    let mut routed = micro("micro-switch", FeedForward::Relu);
    if let Some(switch) = &mut routed.switch {
        (switch.top_k, switch.capacity_factor, switch.auxiliary_weight, switch.z_weight) = (2, 0.8, 0.02, 0.01);
    }
    let half = |precision| Config { precision, ..micro("micro-switch", FeedForward::Relu) };
    let dense_half = Config { precision: Precision::Half, ..micro("micro-encoder-decoder", FeedForward::Geglu) };
    cases.extend([
        of_tokens("micro-decoder, gelu", micro("micro-decoder", FeedForward::Gelu)),
        of_tokens("micro-switch", micro("micro-switch", FeedForward::Relu)),
        of_tokens("micro-switch, two choices", routed),
        of_tokens("micro-switch, selective", half(Precision::Selective)),
        of_tokens("micro-switch, half", half(Precision::Half)),
        of_tokens("micro-encoder-decoder, geglu", micro("micro-encoder-decoder", FeedForward::Geglu)),
        of_tokens("micro-encoder-decoder, geglu, half", dense_half),
    ]);
    cases
}

/// What a model answers at given parameters.
fn outputs(model: &dyn Model, at: &[f64]) -> Result<Vec<(&'static str, Vec<f64>)>> {
    let problem: &dyn Problem = model;
    let at = Vector::from_values(model.layout(), at.to_vec())?;
    let mut found = Vec::new();
    let mut gradient = at.zeros_like();
    if let Ok(of) = problem.gradient() {
        let value = of.value_and_gradient(&at, Rows::All, &mut gradient)?.value;
        found.extend([("value", vec![value]), ("gradient", gradient.to_host())]);
    }
    if let Ok(of) = problem.curvature() {
        let mut product = at.zeros_like();
        of.curvature_at(&at, Rows::All)?.value.multiply(&gradient, &mut product)?;
        found.push(("Gauss-Newton product", product.to_host()));
    }
    if let Ok(of) = problem.squared_gradients() {
        let mut squares = at.zeros_like();
        of.mean_squared_gradient(&at, Rows::All, &mut squares)?;
        found.push(("squared gradients", squares.to_host()));
    }
    if let Ok(of) = problem.expert_equations() {
        let penalties = vec![0.3; of.expert_layer().experts.len()];
        let proximal = TokenStep::Proximal { penalties: &penalties, steps: 2 };
        for (step, signal) in [(TokenStep::Gradient, RouterSignal::Loss), (proximal, RouterSignal::Responsibilities)] {
            let sums = of.expert_sums(&at, Rows::All, ExpertQuestion { step, signal, with_grams: true })?.value;
            let mut numbers = vec![sums.value];
            let grams =
                |share: &parsimony::oracle::ExpertShare| share.grams.clone().map(|g| [g.input, g.output, g.masks]);
            let shares = sums.experts.iter().flatten();
            let matrices = shares.flat_map(|share| {
                [share.input_right.clone(), share.output_right.clone()]
                    .into_iter()
                    .chain(grams(share).into_iter().flatten())
            });
            numbers.extend(matrices.chain(sums.router).flat_map(|matrix| matrix.to_host()).map(f64::from));
            found.push(("sums for steps of experts", numbers));
        }
    }
    let told = model.evaluate(&at, Split::Validation)?;
    found.push(("evaluation", [told.loss, told.auc, told.explained_variance].into_iter().flatten().collect()));
    if let Some(rows) = model.row_outcomes(&at, Split::Validation)? {
        found.push(("losses of rows", rows.loss.into_iter().map(f64::from).collect()));
    }
    Ok(found)
}

/// An optimizer in words: its name and the choice that decides what it needs.
fn words(entry: &OptimizerEntry) -> String {
    let of = entry.settings.iter().find_map(|setting| match setting.range {
        SettingRange::Choice([word]) => Some(format!(" {word}")),
        _ => None,
    });
    format!("{}{}", entry.name, of.unwrap_or_default())
}

/// Objectives and parameters after a few steps of every optimizer that a model is tried with.
fn ends(case: &Case, model: &dyn Model) -> Result<BTreeMap<String, (f64, Vec<f64>)>> {
    let mut ends = BTreeMap::new();
    for entry in optim::registry().iter().flat_map(OptimizerEntry::by_needs).filter(|entry| (case.tries)(&words(entry)))
    {
        let settings = Settings::check(entry.name, entry.settings, &BTreeMap::new())?;
        let problem: &dyn Problem = model;
        if entry.needs_with(&settings).into_iter().any(|need| problem.offers(need).is_err()) {
            continue;
        }
        let fit = minimize(&entry, &settings, problem, 1, STEPS)?;
        ends.insert(words(&entry), (model.objective(&fit.parameters)?.0, fit.parameters.to_host()));
    }
    Ok(ends)
}

/// Compares all models; one row for each output and for each optimizer's end.
///
/// # Errors
/// If a device fails or a model refuses.
pub fn compare(reference: &Device, other: &Device) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for case in cases() {
        let on = |device: &Device, at: Option<&[f64]>| {
            make_current(device.clone());
            let model = (case.build)()?;
            let start = model.initial(&mut stream(5, Stream::Initialization)).to_host();
            let found = outputs(&*model, at.unwrap_or(&start))?;
            device.check()?;
            Ok::<_, parsimony::Error>((start, found, ends(&case, &*model)?))
        };
        let (start, expected, reached) = on(reference, None)?;
        let (own_start, found, own_reached) = on(other, Some(&start))?;
        let mut row = |what: &str, error: f64, bound: f64| {
            rows.push(Row { operation: format!("{}: {what}", case.name), runs: 1, error, bound });
        };
        row("start", relative_error(&start, &own_start), 1e-4);
        assert_eq!(expected.len(), found.len(), "outputs of {}", case.name);
        for ((what, a), (_, b)) in expected.iter().zip(&found) {
            row(what, relative_error(a, b), case.bound);
        }
        let mut objectives = 0.0_f64;
        for (optimizer, (objective, parameters)) in &reached {
            let [of_parameters, _] = case.ends;
            let bound = if optimizer == "soap" { of_parameters.max(OF_SOAP) } else { of_parameters };
            let (own_objective, own) = own_reached.get(optimizer).map_or((f64::NAN, &[][..]), |(o, p)| (*o, &p[..]));
            row(&format!("{STEPS} steps of {optimizer}"), relative_error(parameters, own), bound);
            let apart = (objective - own_objective).abs() / objective.abs();
            if optimizer != "soap" && (apart > objectives || apart.is_nan()) {
                objectives = apart;
            }
        }
        row("objectives after these, SOAP's apart", objectives, case.ends[1]);
        make_current(reference.clone());
    }
    Ok(rows)
}
