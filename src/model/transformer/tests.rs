//! What the layers must hold: tangents and adjoints are each other's transpose, and the invariants of routing.

use super::config::{Config, FeedForward, Kind, Switch};
use super::layout;
use super::presets;
use super::routing::Part;
use super::stack::{Core, SublayerPass, Work};
use super::{HeldRows, TokenBatch, TokenParts, Transformer};
use crate::device::cpu::Cpu;
use crate::device::{Device, NO_ROW};
use crate::model::Model;
use crate::oracle::{Gradient, Problem, Rows, Stream, Value, Vector, stream};
use std::sync::Arc;

pub(super) fn micro(name: &str) -> Config {
    Config { vocabulary: 11, d_model: 12, d_kv: 4, heads: 3, d_ff: 20, ..presets::find(name).unwrap().config }
}

fn switched(config: Config, change: impl FnOnce(&mut Switch)) -> Config {
    let mut switch = config.switch.unwrap_or(presets::SWITCH);
    change(&mut switch);
    Config { switch: Some(switch), ..config }
}

/// Tokens by a formula; with `padded` the last ones of every second sequence are none.
fn held(sequences: usize, context: usize, vocabulary: usize, padded: bool) -> HeldRows {
    let symbol = |i: usize| ((i * i * 7 + i * 3 + i / 5) % vocabulary) as u32;
    let mut rows = HeldRows { context, ..HeldRows::default() };
    for i in 0..sequences * context {
        let is_padding = padded && (i / context) % 2 == 1 && i % context + 3 > context;
        rows.tokens.push(if is_padding { NO_ROW } else { symbol(i) });
        rows.next.push(if is_padding { NO_ROW } else { symbol(i + 1) });
    }
    rows
}

fn model(config: Config, rows: HeldRows, routed: usize) -> Transformer {
    let context = rows.context;
    let rows = Arc::new(rows);
    let parts = TokenParts { train: rows.clone(), evaluation: [rows.clone(), rows.clone(), rows] };
    Transformer::new(config, context, routed, parts).unwrap()
}

fn variants() -> Vec<(&'static str, Config)> {
    let geglu = |config: Config| Config { feed_forward: FeedForward::Geglu, ..config };
    vec![
        ("decoder", micro("micro-decoder")),
        (
            "encoder, gelu, untied",
            Config { feed_forward: FeedForward::Gelu, tied_head: false, ..micro("micro-encoder") },
        ),
        ("encoder-decoder, geglu", geglu(micro("micro-encoder-decoder"))),
        ("switch", micro("micro-switch")),
        (
            "switch, top 2 of 3, geglu, tight",
            switched(geglu(micro("micro-encoder-decoder")), |switch| {
                *switch = Switch { experts: 3, top_k: 2, capacity_factor: 0.8, frequency: 1, ..*switch };
            }),
        ),
        (
            "switch with noise",
            Config {
                dropout: 0.2,
                ..switched(micro("micro-switch"), |switch| {
                    *switch = Switch { jitter: 0.1, expert_dropout: 0.3, capacity_factor: 0.0, ..*switch };
                })
            },
        ),
    ]
}

fn core(config: &Config, context: usize) -> Core {
    Core::new(config.clone(), context, Device::new(Cpu::default()))
}

fn start(core: &Core) -> Vector {
    let values = layout::draw(&core.layout, &core.starts, &mut stream(3, Stream::Initialization));
    Vector::from_values(&core.layout, values).unwrap()
}

fn wave(core: &Core, frequency: f64) -> Vector {
    let values = (0..core.layout.len()).map(|i| (frequency * i as f64 + 0.3).sin()).collect();
    Vector::from_values(&core.layout, values).unwrap()
}

#[test]
fn tangents_and_adjoints_are_each_others_transpose() {
    for (name, config) in variants() {
        for padded in [false, true] {
            let core = core(&config, 10);
            let rows = held(5, 10, config.vocabulary, padded);
            let batch = TokenBatch::read(config.kind(), 10, config.vocabulary, &rows, 0..5);
            let (at, v) = (start(&core), wave(&core, 1.7));
            core.with_work(5, |Work { pass, flow, .. }| {
                core.load(pass, &batch, Some(9), false);
                let weights = core.weights(at.array());
                core.forward(weights.array(), pass);
                let (tokens, d) = (core.predicting(pass), config.d_model);
                core.tangent(weights.array(), v.array(), pass, flow);
                let tangent = core.device.download(flow.d.view(0, tokens, d));
                let u: Vec<f32> = (0..tokens * d).map(|i| (0.7 * i as f32).cos()).collect();
                core.device.upload(flow.d.view_mut(0, tokens, d), &u);
                let mut sum = core.device.zeros(core.layout.len());
                core.backward(weights.array(), pass, flow, None, &mut sum);
                let left: f64 = tangent.iter().zip(&u).map(|(a, b)| f64::from(a * b)).sum();
                let size: f64 = tangent.iter().zip(&u).map(|(a, b)| f64::from((a * b).abs())).sum();
                let right = core.device.dot(v.array(), &sum, 0..core.layout.len());
                assert!((left - right).abs() < 2e-5 * size, "{name}, padded {padded}: {left} {right}, size {size}");
            });
        }
    }
}

#[test]
fn a_dropped_token_is_exactly_zero_before_the_residual() {
    let config = switched(micro("micro-switch"), |switch| switch.capacity_factor = 0.5);
    let core = core(&config, 16);
    let rows = held(4, 16, config.vocabulary, false);
    let batch = TokenBatch::read(config.kind(), 16, config.vocabulary, &rows, 0..4);
    let at = start(&core);
    core.with_work(4, |Work { pass, .. }| {
        core.load(pass, &batch, None, false);
        core.forward(at.array(), pass);
        let (stack, d) = (&pass.stacks[0], config.d_model);
        let place = stack.sublayers.iter().position(|own| matches!(own, SublayerPass::Switch(_))).unwrap();
        let SublayerPass::Switch(own) = &stack.sublayers[place] else { unreachable!() };
        let [before, after] = [place, place + 1].map(|i| core.device.download(stack.x[i].view(0, 64, d)));
        let (routing, capacity) = (own.routing(), config.switch.unwrap().capacity(64).unwrap());
        assert!(routing.dropped >= 64 - 4 * capacity && routing.segments.iter().all(|s| s.rows.len() <= capacity));
        for (token, expert) in own.choices(&core).into_iter().enumerate() {
            let same = before[token * d..(token + 1) * d] == after[token * d..(token + 1) * d];
            assert_eq!(same, expert == NO_ROW, "token {token}");
        }
    });
}

#[test]
fn the_auxiliary_loss_is_alpha_at_perfect_balance() {
    let config = switched(micro("micro-switch"), |switch| switch.auxiliary_weight = 0.03);
    let core = core(&config, 16);
    let rows = held(4, 16, config.vocabulary, true);
    let batch = TokenBatch::read(config.kind(), 16, config.vocabulary, &rows, 0..4);
    let mut at = start(&core);
    // A router of zeros gives every expert the same probability, whatever the tokens.
    for block in core.layout.blocks().iter().filter(|block| block.name.contains("router")) {
        at.write(block.start, &vec![0.0; block.range().len()]);
    }
    core.with_work(4, |Work { pass, .. }| {
        core.load(pass, &batch, None, false);
        core.forward(at.array(), pass);
        for own in &pass.stacks[0].sublayers {
            let SublayerPass::Switch(own) = own else { continue };
            let loss = own.router_loss(&core, &pass.stacks[0].part);
            assert!((loss - 0.03).abs() < 1e-8, "{loss}");
            let entropy = own.statistics(&core, &pass.stacks[0].part).router_entropy;
            assert!((entropy - 4.0_f64.ln()).abs() < 1e-6);
        }
    });
}

/// The values of one model's blocks for another's, by name.
fn renamed(from: &Transformer, values: &Vector, to: &Transformer, name: impl Fn(&str) -> Option<String>) -> Vector {
    let mut vector = Vector::zeros(to.layout());
    for block in to.layout().blocks() {
        let Some(wanted) = name(&block.name) else { continue };
        let source =
            from.layout().blocks().iter().find(|block| block.name == wanted).unwrap_or_else(|| panic!("{wanted}"));
        vector.write(block.start, &values.read(source.range()));
    }
    vector
}

fn gradient(model: &Transformer, at: &Vector) -> (f64, Vector) {
    let mut gradient = at.zeros_like();
    let value = Gradient::value_and_gradient(model, at, Rows::All, &mut gradient).unwrap().value;
    (value, gradient)
}

#[test]
fn one_expert_is_the_dense_layer_bit_for_bit() {
    for f in [FeedForward::Relu, FeedForward::Gelu, FeedForward::Geglu] {
        let dense = Config { feed_forward: f, ..micro("micro-decoder") };
        let one = switched(dense.clone(), |switch| {
            *switch = Switch { experts: 1, frequency: 1, capacity_factor: 0.0, auxiliary_weight: 0.0, ..*switch };
        });
        let rows = || held(6, 100, dense.vocabulary, false);
        let (dense, one) = (model(dense.clone(), rows(), 1000), model(one, rows(), 1000));
        let at = dense.initial(&mut stream(1, Stream::Initialization));
        let name =
            |name: &str| (!name.contains("router")).then(|| name.replace("mlp.experts.expert_0", "DenseReluDense"));
        let at_one = renamed(&dense, &at, &one, name);
        let ((value, of_dense), (same, of_one)) = (gradient(&dense, &at), gradient(&one, &at_one));
        assert_eq!(value.to_bits(), same.to_bits(), "{f}");
        let expected = renamed(&dense, &of_dense, &one, name);
        for block in one.layout().blocks().iter().filter(|block| !block.name.contains("router")) {
            assert_eq!(of_one.read(block.range()), expected.read(block.range()), "{f}: {}", block.name);
        }
    }
}

#[test]
fn permuting_experts_changes_nothing() {
    let config = switched(micro("micro-switch"), |switch| switch.capacity_factor = 1.0);
    let one = model(config.clone(), held(8, 20, config.vocabulary, true), 1000);
    let at = one.initial(&mut stream(1, Stream::Initialization));
    // Expert e becomes expert (e + 1) mod 4.
    let before = |name: &str| {
        (0..4).find(|e| name.contains(&format!("expert_{e}."))).map_or_else(
            || name.to_owned(),
            |e| name.replace(&format!("expert_{e}."), &format!("expert_{}.", (e + 3) % 4)),
        )
    };
    let permute = |from: &Vector| {
        let mut to = renamed(&one, from, &one, |name| Some(before(name)));
        for block in one.layout().blocks().iter().filter(|block| block.name.contains("router")) {
            let mut rows = from.read(block.range());
            rows.rotate_right(block.columns);
            to.write(block.start, &rows);
        }
        to
    };
    let ((value, of_at), (same, of_permuted)) = (gradient(&one, &at), gradient(&one, &permute(&at)));
    assert!((value - same).abs() < 1e-7 * value, "{value} {same}");
    let (expected, scale) = (permute(&of_at).to_host(), of_at.norm_max());
    for (a, b) in of_permuted.to_host().iter().zip(&expected) {
        assert!((a - b).abs() < 2e-6 * scale, "{a} {b}");
    }
}

#[test]
fn the_order_of_tokens_changes_nothing_where_none_are_dropped() {
    let config = switched(micro("micro-switch"), |switch| switch.capacity_factor = 0.0);
    let rows = held(8, 20, config.vocabulary, true);
    let mut turned = rows.clone();
    turned.tokens.rotate_right(60);
    turned.next.rotate_right(60);
    let (one, other) = (model(config.clone(), rows, 1000), model(config, turned, 1000));
    let at = one.initial(&mut stream(1, Stream::Initialization));
    let losses = |model: &Transformer| model.row_outcomes(&at, crate::model::Split::Train).unwrap().unwrap().loss;
    let (a, mut b) = (losses(&one), losses(&other));
    b.rotate_left(3);
    for (a, b) in a.iter().zip(&b) {
        assert!((a - b).abs() < 1e-6 * a.abs(), "{a} {b}");
    }
    let (value, same) = (gradient(&one, &at).0, gradient(&other, &at).0);
    assert!((value - same).abs() < 1e-7 * value);
}

#[test]
fn padding_takes_no_part() {
    let config = micro("micro-switch");
    let rows = held(4, 12, config.vocabulary, false);
    let mut padded = rows.clone();
    padded.tokens.extend([NO_ROW; 24]);
    padded.next.extend([NO_ROW; 24]);
    let (one, other) = (model(config.clone(), rows, 1000), model(config, padded, 1000));
    let at = one.initial(&mut stream(1, Stream::Initialization));
    let value = |model: &Transformer| Value::value(model, &at, Rows::All).unwrap().value;
    // Both sequences of padding count as sequences of the group, and in nothing else.
    assert!((value(&one) - value(&other)).abs() < 1e-7, "{} {}", value(&one), value(&other));
}

#[test]
fn idle_experts_are_left_alone() {
    let config = switched(micro("micro-switch"), |switch| {
        *switch = Switch { experts: 32, auxiliary_weight: 0.0, ..*switch };
    });
    let one = model(config.clone(), held(2, 6, config.vocabulary, false), 100);
    let at = one.initial(&mut stream(1, Stream::Initialization));
    let batch = one.read(&*one.parts.train, 0..2);
    let used: Vec<u32> = one.choices(&at, &batch).concat();
    let (_, of_at) = gradient(&one, &at);
    let mut idle = 0;
    for block in one.layout().blocks().iter().filter(|block| block.name.contains("expert_")) {
        let is_used = used.iter().any(|e| block.name.contains(&format!("expert_{e}.")));
        assert_eq!(of_at.read(block.range()).iter().all(|&g| g == 0.0), !is_used, "{}", block.name);
        idle += usize::from(!is_used);
    }
    assert!(idle >= 40, "{idle}");
    assert_eq!(one.config().kind(), Kind::Decoder);
}

/// The numbers of a tensor from its name, as the program beside the stored numbers has them.
fn weight(name: &str, count: usize) -> Vec<f64> {
    let phase = f64::from(name.bytes().map(u32::from).sum::<u32>() % 97);
    let value = |i: usize| {
        let i = i as f64;
        let wave = (1.7 * i + 0.01 * i * i + phase).sin();
        let value = match name {
            name if name.contains("layer_norm") => 1.0 + 0.2 * wave,
            name if name.contains("router") || name.contains("shared") => wave,
            _ => 0.4 * wave,
        };
        f64::from(value as f32)
    };
    (0..count).map(value).collect()
}

fn by_formula(core: &Core) -> Vector {
    let values = core.layout.blocks().iter().flat_map(|block| weight(&block.name, block.range().len())).collect();
    Vector::from_values(&core.layout, values).unwrap()
}

/// Norm and two projections of a block's derivative, against those stored.
fn compare(case: &str, core: &Core, gradient: &Vector, expected: &serde_json::Value) {
    for (name, numbers) in expected.as_object().unwrap() {
        let block = core.layout.blocks().iter().find(|block| block.name == *name).unwrap_or_else(|| panic!("{name}"));
        let own = gradient.read(block.range());
        let norm = own.iter().map(|g| g * g).sum::<f64>().sqrt();
        let along = |f: fn(f64) -> f64| own.iter().enumerate().map(|(i, g)| f(i as f64) * g).sum::<f64>();
        let got = [norm, along(|i| (0.9 * i + 0.1).cos()), along(|i| (0.37 * i * i).sin())];
        for (got, expected) in got.iter().zip(numbers.as_array().unwrap()) {
            let expected = expected.as_f64().unwrap();
            assert!((got - expected).abs() < 1e-5 * norm.max(1e-3), "{case}, {name}: {got}, not {expected}");
        }
    }
}

fn numbers(of: &serde_json::Value) -> Vec<f64> {
    of.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn reference() -> serde_json::Value {
    serde_json::from_str(include_str!("../../../tests/reference/switch_transformers.json")).unwrap()
}

/// The shape of the stored numbers.
fn small(name: &str) -> Config {
    Config { position_buckets: 8, most_distance: 16, ..micro(name) }
}

#[test]
fn a_switch_layer_agrees_with_hugging_face() {
    let case = &reference()["layer"];
    let (capacity, tokens) = (case["capacity"].as_u64().unwrap() as usize, case["tokens"].as_u64().unwrap() as usize);
    let config = switched(small("micro-switch"), |switch| {
        switch.capacity_factor = (capacity * switch.experts) as f64 / tokens as f64;
    });
    let core = core(&config, tokens);
    let (at, d) = (by_formula(&core), config.d_model);
    let place = core.places.stacks[0].sublayers.len() - 1;
    let layout::SublayerKind::Switch { router, inner, outer } = core.places.stacks[0].sublayers[place].kind else {
        panic!("the last sublayer is a Switch layer")
    };
    let x: Vec<f32> = (0..tokens * d).map(|i| (0.83 * i as f64 + 0.002 * (i * i) as f64).sin() as f32).collect();
    let u: Vec<f32> = (0..tokens * d).map(|i| (0.3 * i as f64).cos() as f32).collect();
    let mut input = core.device.zeros(tokens * d);
    core.device.upload(input.view_mut(0, tokens, d), &x);
    core.with_work(1, |Work { pass, flow, .. }| {
        let SublayerPass::Switch(own) = &mut pass.stacks[0].sublayers[place] else { unreachable!() };
        let mut out = core.device.zeros(tokens * d);
        let mut part = Part::new(&core.device, core.tokens(), tokens);
        core.load_part(&mut part, &vec![0; tokens]);
        let places = (router, inner, outer);
        let x = input.view(0, tokens, d);
        own.forward(&core, at.array(), places, x, &part, false, (None, None), (&mut out, false));
        let close = |what: &str, got: Vec<f32>, expected: Vec<f64>| {
            let scale = expected.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
            for (i, (got, expected)) in got.into_iter().zip(expected).enumerate() {
                assert!((f64::from(got) - expected).abs() < 1e-5 * scale, "{what} {i}: {got}, not {expected}");
            }
        };
        close("output", core.device.download(out.view(0, tokens, d)), numbers(&case["output"]));
        assert_eq!(numbered(own.choices(&core)), numbers(&case["choices"]));
        core.device.upload(flow.b.view_mut(0, tokens, d), &u);
        let mut sum = Vector::zeros(&core.layout);
        own.backward(&core, at.array(), places, x, &part, (None, None), None, flow, sum.array_mut());
        close("input gradient", core.device.download(flow.a.view(0, tokens, d)), numbers(&case["input_gradient"]));
        compare("layer", &core, &sum, &case["gradients"]);
    });
}

/// Choices as the reference has them: -1 for none.
fn numbered(choices: Vec<u32>) -> Vec<f64> {
    choices.into_iter().map(|expert| if expert == NO_ROW { -1.0 } else { f64::from(expert) }).collect()
}

#[test]
fn whole_models_agree_with_hugging_face() {
    for case in reference()["cases"].as_array().unwrap() {
        let (name, settings) = (case["name"].as_str().unwrap(), &case["settings"]);
        let feed_forward = if settings["f"] == "relu" { FeedForward::Relu } else { FeedForward::Geglu };
        let tied_head = settings["tied"].as_bool().unwrap();
        let mut config = Config { feed_forward, tied_head, ..small("micro-encoder-decoder") };
        if let Some(experts) = settings["experts"].as_u64() {
            let number = |key: &str| settings[key].as_f64().unwrap();
            config = switched(config, |switch| {
                switch.experts = experts as usize;
                switch.capacity_factor = number("capacity") * experts as f64 / 10.0;
                (switch.auxiliary_weight, switch.z_weight) = (number("auxiliary"), number("z"));
            });
        }
        let sequences = case["sequences"].as_u64().unwrap() as usize;
        let tokens = |count: usize, start: usize| (0..count).map(move |i| ((start + 3 * i + i * i) % 11) as u32);
        let mut batch = TokenBatch { sequences, ..TokenBatch::default() };
        for s in 0..sequences {
            batch.encoder.extend(tokens(10, 5 * s));
            let target: Vec<u32> = tokens(11, 4 + 2 * s).collect();
            batch.decoder.extend(&target[..10]);
            batch.targets.extend((1..11).map(|i| if i == 4 { NO_ROW } else { target[i] }));
        }
        let core = core(&config, 20);
        let at = by_formula(&core);
        let mut gradient = Vector::zeros(&core.layout);
        core.with_work(sequences, |Work { pass, flow, .. }| {
            core.load(pass, &batch, None, false);
            core.forward(at.array(), pass);
            let logits = core.logits(at.array(), pass, flow);
            let expected = numbers(&case["logits"]);
            let scale = expected.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
            for (got, expected) in logits.iter().zip(&expected) {
                assert!((f64::from(*got) - expected).abs() < 1e-5 * scale, "{name}: logit {got}, not {expected}");
            }
            let predicted = batch.predicted() as f64;
            let derivative = Some(((1.0 / predicted) as f32, gradient.array_mut()));
            let mut loss = core.loss(at.array(), pass, flow, derivative).total() / predicted;
            core.backward(at.array(), pass, flow, Some(1.0), gradient.array_mut());
            let mut choices = Vec::new();
            for stack in &pass.stacks {
                for own in &stack.sublayers {
                    let SublayerPass::Switch(own) = own else { continue };
                    loss += own.router_loss(&core, &stack.part);
                    choices.push(numbered(own.choices(&core)));
                }
            }
            let expected: Vec<Vec<f64>> = case["choices"].as_array().unwrap().iter().map(numbers).collect();
            assert_eq!(choices, expected, "{name}");
            let expected = case["loss"].as_f64().unwrap();
            assert!((loss / expected - 1.0).abs() < 1e-6, "{name}: {loss}, not {expected}");
        });
        compare(name, &core, &gradient, &case["gradients"]);
    }
}
