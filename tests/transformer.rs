//! What Transformers must hold as problems: gradients are derivatives of values and products those of gradients, in every variant;
//! the same bits at any number of threads; rows that add up; refusals in words; optimizers that lower the objective.

use parsimony::model::transformer::config::{Config, FeedForward, Precision, Switch};
use parsimony::model::transformer::{HeldRows, TokenBatch, TokenParts, TokenRows, Transformer, presets};
use parsimony::model::{Model, Split};
use parsimony::optim::{self, minimize};
use parsimony::oracle::SquaredGradients;
use parsimony::oracle::{
    Batch, Curvature, Gradient, Problem, Rows, SettingValue, Settings, Stream, Value, Vector, stream,
};
use std::collections::BTreeMap;
use std::sync::Arc;

const NONE: u32 = u32::MAX;

fn micro(name: &str) -> Config {
    Config { vocabulary: 11, d_model: 12, d_kv: 4, heads: 3, d_ff: 20, ..presets::find(name).unwrap().config }
}

fn with(config: Config, change: impl FnOnce(&mut Switch)) -> Config {
    let mut switch = config.switch.or(presets::find("micro-switch").unwrap().config.switch).unwrap();
    change(&mut switch);
    Config { switch: Some(switch), ..config }
}

/// A text by a formula, with something to learn in it.
fn held(sequences: usize, context: usize, padded: bool) -> HeldRows {
    let symbol = |i: usize| ((i % 7 + (i / 3) % 4 + i * i % 3) % 11) as u32;
    let mut rows = HeldRows { context, ..HeldRows::default() };
    for i in 0..sequences * context {
        let is_padding = padded && (i / context) % 2 == 1 && i % context + 3 > context;
        rows.tokens.push(if is_padding { NONE } else { symbol(i) });
        rows.next.push(if is_padding { NONE } else { symbol(i + 1) });
    }
    rows
}

fn model(config: Config, rows: HeldRows, routed: usize) -> Transformer {
    let context = rows.context;
    let rows: Arc<dyn TokenRows> = Arc::new(rows);
    let parts = TokenParts { train: rows.clone(), evaluation: [rows.clone(), rows.clone(), rows] };
    Transformer::new(config, context, routed, parts).unwrap()
}

/// Smooth variants of everything; those with `relu` have kinks that a difference may meet.
fn variants() -> Vec<(&'static str, Config)> {
    let of = |f, config: Config| Config { feed_forward: f, ..config };
    let (gelu, geglu) = (FeedForward::Gelu, FeedForward::Geglu);
    vec![
        ("decoder", of(gelu, micro("micro-decoder"))),
        ("encoder, untied", Config { tied_head: false, ..of(geglu, micro("micro-encoder")) }),
        ("encoder-decoder", of(geglu, micro("micro-encoder-decoder"))),
        (
            "switch",
            of(
                gelu,
                with(micro("micro-switch"), |s| {
                    *s = Switch { auxiliary_weight: 0.5, z_weight: 0.1, ..*s };
                }),
            ),
        ),
        (
            "switch encoder-decoder, top 2 of 3",
            of(
                geglu,
                with(micro("micro-encoder-decoder"), |s| {
                    *s = Switch { experts: 3, top_k: 2, capacity_factor: 0.8, frequency: 1, ..*s };
                }),
            ),
        ),
        (
            "switch with noise",
            of(
                gelu,
                Config {
                    dropout: 0.2,
                    // Every token goes to both experts, so that jitter changes no choice.
                    ..with(micro("micro-switch"), |s| {
                        *s = Switch {
                            experts: 2,
                            top_k: 2,
                            capacity_factor: 0.0,
                            jitter: 0.1,
                            expert_dropout: 0.3,
                            ..*s
                        };
                    })
                },
            ),
        ),
    ]
}

fn vector(model: &Transformer, value: impl Fn(f64) -> f64) -> Vector {
    let values = (0..model.layout().len()).map(|i| value(i as f64)).collect();
    Vector::from_values(model.layout(), values).unwrap()
}

/// Where training starts, but with routers that are surer of their choices: a short step does not change them.
fn start(model: &Transformer) -> Vector {
    let mut at = model.initial(&mut stream(5, Stream::Initialization));
    for block in model.layout().blocks().iter().filter(|block| block.name.contains("router")) {
        let sure: Vec<f64> = at.read(block.range()).iter().map(|w| 20.0 * w).collect();
        at.write(block.start, &sure);
    }
    at
}

fn value(model: &Transformer, at: &Vector, rows: Rows<'_>) -> f64 {
    Value::value(model, at, rows).unwrap().value
}

fn gradient(model: &Transformer, at: &Vector, rows: Rows<'_>) -> (f64, Vector) {
    let mut gradient = at.zeros_like();
    let answer = Gradient::value_and_gradient(model, at, rows, &mut gradient).unwrap();
    (answer.value, gradient)
}

fn product(model: &Transformer, at: &Vector, rows: Rows<'_>, v: &Vector) -> Vector {
    let mut product = at.zeros_like();
    Curvature::curvature_at(model, at, rows).unwrap().value.multiply(v, &mut product).unwrap();
    product
}

/// A step along a direction, as long as single precision wants it, that changes no routing up to twice its length.
fn step(model: &Transformer, at: &Vector, along: &Vector, groups: &[&[u32]]) -> f64 {
    let choices = |at: &Vector| -> Vec<_> { groups.iter().map(|rows| model.choices(at, &model.batch(rows))).collect() };
    let here = choices(at);
    let keeps = |h: f64| [-2.0, -1.0, 1.0, 2.0].iter().all(|t| choices(&moved(at, t * h, along)) == here);
    let steps = [2e-3, 1e-3, 5e-4, 2.5e-4, 1.2e-4, 6e-5];
    steps.into_iter().find(|&h| keeps(h)).expect("a step that keeps the routing")
}

fn moved(at: &Vector, h: f64, along: &Vector) -> Vector {
    let mut at = at.clone();
    at.axpy(h, along);
    at
}

#[test]
fn gradients_are_derivatives_of_values_on_all_rows_and_on_batches() {
    for (name, config) in variants() {
        for padded in [false, true] {
            let model = model(config.clone(), held(12, 10, padded), 60);
            let at = start(&model);
            let batch = Batch::new(vec![7, 1, 4, 3, 11, 8, 0]);
            let all: Vec<u32> = (0..12).collect();
            for (rows, numbers) in [(Rows::All, &all[..]), (Rows::Batch(&batch), batch.rows())] {
                let (here, slope_of) = gradient(&model, &at, rows);
                let along = vector(&model, |i| (0.3 * i * i).cos());
                assert!((value(&model, &at, rows) - here).abs() < 1e-7 * here.abs());
                // Six sequences are routed together.
                let groups: Vec<&[u32]> = numbers.chunks(6).collect();
                let h = step(&model, &at, &along, &groups);
                let difference = |h: f64| {
                    (value(&model, &moved(&at, h, &along), rows) - value(&model, &moved(&at, -h, &along), rows))
                        / (2.0 * h)
                };
                let extrapolated = (4.0 * difference(h) - difference(2.0 * h)) / 3.0;
                let slope = slope_of.dot(&along);
                assert!(
                    (extrapolated - slope).abs() < 2e-3 * slope.abs().max(0.5),
                    "{name}, padded {padded}: difference {extrapolated}, slope {slope}"
                );
            }
        }
    }
}

/// `J u` and `J v` by differences of logits, between them the Hessian of the cross-entropy.
#[test]
fn products_are_those_of_differences_of_the_logits() {
    for (name, config) in variants() {
        if config.dropout > 0.0 {
            continue;
        }
        let rows = held(6, 10, true);
        let kind = config.kind();
        let model = model(config.clone(), rows.clone(), 1000);
        let at = start(&model);
        let batch = read(&model, &rows);
        let (u, v) = (vector(&model, |i| (0.3 * i * i).cos()), vector(&model, |i| (1.7 * i).sin()));
        let along = |v: &Vector| -> Vec<f64> {
            let h = step(&model, &at, v, &[&[0, 1, 2, 3, 4, 5]]);
            let logits = |h: f64| model.logits(&moved(&at, h, v), &batch);
            let near = logits(h).into_iter().zip(logits(-h)).map(|(a, b)| f64::from(a - b) / (2.0 * h));
            let far = logits(2.0 * h).into_iter().zip(logits(-2.0 * h)).map(|(a, b)| f64::from(a - b) / (4.0 * h));
            near.zip(far).map(|(near, far)| (4.0 * near - far) / 3.0).collect()
        };
        let (of_u, of_v, outputs) = (along(&u), along(&v), model.logits(&at, &batch));
        let symbols = outputs.len() / batch.targets.len();
        let (mut expected, mut predicted) = (0.0, 0.0);
        for (token, &target) in batch.targets.iter().enumerate() {
            if target == NONE {
                continue;
            }
            predicted += 1.0;
            let own = token * symbols..(token + 1) * symbols;
            let exp: Vec<f64> = outputs[own.clone()].iter().map(|&o| f64::from(o).exp()).collect();
            let total: f64 = exp.iter().sum();
            let mean = |t: &[f64]| exp.iter().zip(t).map(|(p, t)| p / total * t).sum::<f64>();
            let (a, b) = (&of_u[own.clone()], &of_v[own]);
            let both: Vec<f64> = a.iter().zip(b).map(|(a, b)| a * b).collect();
            expected += mean(&both) - mean(a) * mean(b);
        }
        expected /= predicted;
        let got = u.dot(&product(&model, &at, Rows::All, &v));
        let size = (u.dot(&product(&model, &at, Rows::All, &u)) * v.dot(&product(&model, &at, Rows::All, &v))).sqrt();
        assert!(
            (got - expected).abs() < 2e-3 * size,
            "{name} ({kind:?}): {got}, by differences {expected}, size {size}"
        );
    }
}

/// All rows as the stacks read them.
fn read(model: &Transformer, rows: &HeldRows) -> TokenBatch {
    let indices: Vec<u32> = (0..rows.count() as u32).collect();
    model.batch(&indices)
}

#[test]
fn gauss_newton_matrices_are_symmetric_and_not_negative() {
    for (name, config) in variants() {
        let model = model(config, held(12, 10, true), 60);
        let at = start(&model);
        let batch = Batch::new((0..9).collect());
        let (u, v) = (vector(&model, |i| (0.3 * i * i).cos()), vector(&model, |i| (1.7 * i).sin()));
        for rows in [Rows::All, Rows::Batch(&batch)] {
            let (of_u, of_v) = (product(&model, &at, rows, &u), product(&model, &at, rows, &v));
            let size = u.norm() * of_v.norm();
            assert!((u.dot(&of_v) - v.dot(&of_u)).abs() < 1e-5 * size, "{name}");
            assert!(v.dot(&of_v) >= 0.0 && u.dot(&of_u) >= 0.0, "{name}");
        }
    }
}

#[test]
fn parts_add_up_to_all_rows() {
    for (name, config) in variants() {
        let model = model(config, held(13, 10, true), 40);
        let at = start(&model);
        let (all, of_all) = gradient(&model, &at, Rows::All);
        let (mut sum, mut of_sum) = (0.0, at.zeros_like());
        for index in 0..3 {
            let (value, gradient) = gradient(&model, &at, Rows::Part { index, of: 3 });
            sum += value;
            of_sum.axpy(1.0, &gradient);
        }
        assert!((sum - all).abs() < 1e-9 * all, "{name}: {sum} {all}");
        of_sum.axpy(-1.0, &of_all);
        assert!(of_sum.norm() < 1e-6 * of_all.norm(), "{name}");
    }
}

#[test]
fn squared_gradients_are_those_of_single_sequences() {
    let config = with(micro("micro-switch"), |s| *s = Switch { capacity_factor: 0.0, auxiliary_weight: 0.0, ..*s });
    let model = model(config, held(6, 10, false), 1000);
    let at = start(&model);
    let mut squares = at.zeros_like();
    SquaredGradients::mean_squared_gradient(&model, &at, Rows::All, &mut squares).unwrap();
    let mut expected = vec![0.0; at.len()];
    for row in 0..6 {
        let (_, one) = gradient(&model, &at, Rows::Batch(&Batch::new(vec![row])));
        expected.iter_mut().zip(one.to_host()).for_each(|(sum, g)| *sum += g * g / 6.0);
    }
    let scale = squares.norm_max();
    for (got, expected) in squares.to_host().iter().zip(&expected) {
        assert!((got - expected).abs() < 1e-5 * scale, "{got} {expected}");
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    for (name, config) in variants() {
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let model = model(config.clone(), held(40, 50, true), 1500);
                let at = start(&model);
                let (value, gradient) = gradient(&model, &at, Rows::All);
                let product = product(&model, &at, Rows::All, &gradient);
                (value.to_bits(), gradient.to_host(), product.to_host())
            })
        };
        assert!(run(1) == run(2) && run(2) == run(3), "{name}");
    }
}

#[test]
fn rounding_to_bfloat16_is_near_and_leaves_the_router_alone_under_selective_precision() {
    let config = with(micro("micro-switch"), |s| s.capacity_factor = 0.0);
    let of = |precision| model(Config { precision, ..config.clone() }, held(12, 10, false), 1000);
    let (single, selective, half) = (of(Precision::Single), of(Precision::Selective), of(Precision::Half));
    let at = start(&single);
    let values = [&single, &selective, &half].map(|model| gradient(model, &at, Rows::All));
    for (value, gradient) in &values[1..] {
        assert!(*value != values[0].0 && (value / values[0].0 - 1.0).abs() < 0.02, "{value} {}", values[0].0);
        let mut gap = gradient.clone();
        gap.axpy(-1.0, &values[0].1);
        assert!(gap.norm() < 0.2 * values[0].1.norm());
    }
    assert!(values[1].0 != values[2].0);
}

#[test]
fn optimizers_lower_the_loss_of_a_switch_transformer() {
    let given: [(&str, &[(&str, SettingValue)]); 4] = [
        ("sgd", &[("learning_rate", SettingValue::Real(0.3)), ("batch_size", SettingValue::Whole(8))]),
        ("adamw", &[("learning_rate", SettingValue::Real(0.01)), ("batch_size", SettingValue::Whole(8))]),
        ("muon", &[("batch_size", SettingValue::Whole(8))]),
        ("hessian-free", &[("cg_iterations", SettingValue::Whole(10))]),
    ];
    for (name, given) in given {
        let model = model(micro("micro-switch"), held(32, 16, false), 1000);
        let entry = optim::registry().into_iter().find(|entry| entry.name == name).unwrap();
        let given: BTreeMap<String, SettingValue> =
            given.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        let settings = Settings::check("test", entry.settings, &given).unwrap();
        let steps = if name == "hessian-free" { 6 } else { 60 };
        let fit = minimize(&entry, &settings, &model, 1, steps).unwrap();
        let before = model.evaluate(&start(&model), Split::Test).unwrap().loss.unwrap();
        let after = model.evaluate(&fit.parameters, Split::Test).unwrap().loss.unwrap();
        assert!(after < 0.9 * before, "{name}: {before} to {after}");
    }
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let refusal = |config: Config, context: usize| {
        let rows: Arc<dyn TokenRows> = Arc::new(held(4, context, false));
        let parts = TokenParts { train: rows.clone(), evaluation: [rows.clone(), rows.clone(), rows] };
        Transformer::new(config, context, 64, parts).unwrap_err().to_string()
    };
    for (config, expected) in [
        (with(micro("micro-switch"), |s| s.experts = 0), "experts = 0"),
        (with(micro("micro-switch"), |s| s.experts = 100), "less than one of 64 tokens"),
        (Config { d_kv: 5, ..micro("micro-decoder") }, "d_kv = 5"),
        (Config { heads: 0, ..micro("micro-decoder") }, "heads = 0"),
    ] {
        let message = refusal(config, 16);
        assert!(message.starts_with("model transformer: ") && message.contains(expected), "{message}");
    }
    assert!(refusal(micro("micro-encoder-decoder"), 1).contains("context = 1"));
}
