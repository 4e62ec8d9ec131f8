//! Where every weight lies, under the tensor names of Hugging Face's T5 and SwitchTransformers, and where it starts.
//!
//! A decoder without an encoder, which those have not, keeps the names of a decoder's tensors without those of attention to an
//! encoder. Weights that are multiplied together lie next to each other: keys and values; both inner matrices of a gated
//! layer; the inner, then the outer matrices of all experts.
//!
//! Matrices start from a normal distribution of standard deviation `sqrt(scale / fan_in)`, truncated at two of them (Fedus et
//! al. 2021, section 2.4); norms from one; embeddings, as in T5, have standard deviation 1 (a tied head multiplies logits by
//! `d_model^(-1/2)`), the biases of positions `d_model^(-1/2)`.

use super::config::{Config, Kind};
use crate::device::{Device, Matrices};
use crate::oracle::Layout;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use std::sync::Arc;

/// One of the residual steps of a layer; `norm` is where the weights of its norm begin.
#[derive(Debug, Clone)]
pub(super) struct Sublayer {
    pub norm: usize,
    pub kind: SublayerKind,
}

#[derive(Debug, Clone)]
pub(super) enum SublayerKind {
    /// Attention to the own stack, or to the encoder.
    Attention { across: bool, queries: Matrices, keys_values: Matrices, output: Matrices },
    /// A dense feed-forward layer.
    Dense { inner: Matrices, outer: Matrices },
    /// A Switch layer.
    Switch { router: Matrices, inner: Matrices, outer: Matrices },
}

/// The weights of one stack.
#[derive(Debug, Clone)]
pub(super) struct StackPlaces {
    /// Whether it is a decoder, whose tokens see only those before them.
    pub causal: bool,
    pub sublayers: Vec<Sublayer>,
    /// The bias of every bucket and head.
    pub bias: usize,
    pub final_norm: usize,
}

/// The weights of a Transformer.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub embedding: Matrices,
    /// The encoder, the decoder, or both, in the order in which they run.
    pub stacks: Vec<StackPlaces>,
    pub head: Matrices,
    /// Ranges that are not rounded under selective precision: routers and norms.
    pub unrounded: Vec<(usize, usize)>,
}

/// How a block starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Start {
    /// Truncated normal of this standard deviation.
    Normal(f64),
    /// All of one value.
    Constant(f64),
}

/// A block under construction.
struct Builder {
    blocks: Vec<(String, usize, usize)>,
    starts: Vec<Start>,
    len: usize,
}

impl Builder {
    fn add(&mut self, name: String, rows: usize, columns: usize, start: Start) -> Matrices {
        let place = self.len;
        self.blocks.push((name, rows, columns));
        self.starts.push(start);
        self.len += rows * columns;
        Matrices::new(place, rows, columns)
    }
}

/// All places, the layout of their blocks and how these start.
pub(super) fn build(config: &Config, device: &Device) -> (Places, Arc<Layout>, Vec<Start>) {
    let mut builder = Builder { blocks: Vec::new(), starts: Vec::new(), len: 0 };
    let (d, v) = (config.d_model, config.vocabulary + usize::from(config.kind() == Kind::Encoder));
    let fan_in = |inputs: usize| Start::Normal((config.initial_scale / inputs as f64).sqrt());
    let embedded = Start::Normal(1.0);
    let embedding = builder.add("shared.weight".into(), v, d, embedded);
    let (mut stacks, mut unrounded) = (Vec::new(), Vec::new());
    for (name, layers) in [("encoder", config.encoder_layers), ("decoder", config.decoder_layers)] {
        if layers > 0 {
            stacks.push(stack(config, &mut builder, &mut unrounded, name, layers));
        }
    }
    let head = match config.tied_head {
        true => embedding,
        false => builder.add("lm_head.weight".into(), v, d, fan_in(d)),
    };
    let shapes = builder.blocks.iter().map(|(name, rows, columns)| (name.as_str(), *rows, *columns));
    let layout = Layout::on(device, shapes);
    (Places { embedding, stacks, head, unrounded }, layout, builder.starts)
}

fn stack(
    config: &Config,
    builder: &mut Builder,
    unrounded: &mut Vec<(usize, usize)>,
    name: &str,
    layers: usize,
) -> StackPlaces {
    let (d, inner) = (config.d_model, config.inner());
    let fan_in = |inputs: usize| Start::Normal((config.initial_scale / inputs as f64).sqrt());
    let causal = name == "decoder";
    let crosses = causal && config.encoder_layers > 0;
    let mut sublayers = Vec::new();
    let mut bias = 0;
    let mut norm = |builder: &mut Builder, name: String| {
        let place = builder.add(name, 1, d, Start::Constant(1.0)).start;
        unrounded.push((place, place + d));
        place
    };
    for layer in 0..layers {
        let mut number = 0;
        for (across, module) in [(false, "SelfAttention"), (true, "EncDecAttention")] {
            if across && !crosses {
                continue;
            }
            let prefix = format!("{name}.block.{layer}.layer.{number}");
            number += 1;
            let mut weight = |letter, rows, columns| {
                builder.add(format!("{prefix}.{module}.{letter}.weight"), rows, columns, fan_in(columns))
            };
            let (queries, keys) = (weight("q", inner, d), weight("k", inner, d));
            weight("v", inner, d);
            let output = weight("o", d, inner);
            let keys_values = Matrices::new(keys.start, 2 * inner, d);
            if layer == 0 && !across {
                let name = format!("{prefix}.{module}.relative_attention_bias.weight");
                let start = Start::Normal((d as f64).sqrt().recip());
                bias = builder.add(name, config.position_buckets, config.heads, start).start;
            }
            let norm = norm(builder, format!("{prefix}.layer_norm.weight"));
            sublayers.push(Sublayer { norm, kind: SublayerKind::Attention { across, queries, keys_values, output } });
        }
        let prefix = format!("{name}.block.{layer}.layer.{number}");
        let module = if config.switch.is_some() { "mlp" } else { "DenseReluDense" };
        let kind = feed_forward(config, builder, experts_of(config, layer), &format!("{prefix}.{module}"));
        let norm = norm(builder, format!("{prefix}.layer_norm.weight"));
        sublayers.push(Sublayer { norm, kind });
    }
    let final_norm = norm(builder, format!("{name}.final_layer_norm.weight"));
    for sublayer in &sublayers {
        if let SublayerKind::Switch { router, .. } = sublayer.kind {
            let range = router.range(0);
            unrounded.push((range.start, range.end));
        }
    }
    StackPlaces { causal, sublayers, bias, final_norm }
}

/// Experts of a layer; `None`: it is dense.
fn experts_of(config: &Config, layer: usize) -> Option<usize> {
    config.switch.filter(|_| config.is_switch(layer)).map(|switch| switch.experts)
}

fn feed_forward(config: &Config, builder: &mut Builder, experts: Option<usize>, prefix: &str) -> SublayerKind {
    let (d, f) = (config.d_model, config.d_ff);
    let fan_in = |inputs: usize| Start::Normal((config.initial_scale / inputs as f64).sqrt());
    let gated = config.feed_forward.inner_matrices() == 2;
    let inner_of = |builder: &mut Builder, prefix: &str| {
        let names: &[&str] = if gated { &["wi_0", "wi_1"] } else { &["wi"] };
        let places: Vec<Matrices> =
            names.iter().map(|name| builder.add(format!("{prefix}.{name}.weight"), f, d, fan_in(d))).collect();
        Matrices::new(places[0].start, names.len() * f, d)
    };
    let outer_of = |builder: &mut Builder, prefix: &str| builder.add(format!("{prefix}.wo.weight"), d, f, fan_in(f));
    let Some(experts) = experts else {
        let inner = inner_of(builder, prefix);
        return SublayerKind::Dense { inner, outer: outer_of(builder, prefix) };
    };
    let router = builder.add(format!("{prefix}.router.classifier.weight"), experts, d, fan_in(d));
    let expert = |index: usize| format!("{prefix}.experts.expert_{index}");
    let inner: Vec<Matrices> = (0..experts).map(|index| inner_of(builder, &expert(index))).collect();
    let outer: Vec<Matrices> = (0..experts).map(|index| outer_of(builder, &expert(index))).collect();
    SublayerKind::Switch { router, inner: inner[0], outer: outer[0] }
}

/// Draws where training starts.
pub(super) fn draw(layout: &Layout, starts: &[Start], rng: &mut ChaCha8Rng) -> Vec<f64> {
    let mut values = Vec::with_capacity(layout.len());
    for (block, start) in layout.blocks().iter().zip(starts) {
        let mut value = || match *start {
            Start::Constant(value) => value,
            Start::Normal(deviation) => loop {
                let z: f64 = rng.sample(StandardNormal);
                if z.abs() <= 2.0 {
                    break deviation * z;
                }
            },
        };
        values.extend((0..block.rows * block.columns).map(|_| value()));
    }
    values
}

/// The bucket of relative positions `key - query` (T5, Raffel et al. 2020, section 2.1): half of the buckets for single
/// distances, the others for ranges growing with the logarithm up to `most_distance`; in an encoder a half for each direction.
pub(super) fn bucket(distance: i64, both_ways: bool, buckets: usize, most_distance: usize) -> u32 {
    let (mut buckets, mut first) = (buckets, 0);
    let size = if both_ways {
        buckets /= 2;
        if distance > 0 {
            first = buckets;
        }
        distance.unsigned_abs() as usize
    } else {
        (-distance).max(0) as usize
    };
    let exact = buckets / 2;
    let own = if size < exact {
        size
    } else {
        // In single precision, as the reference implementation has it: borders of ranges depend on the rounding.
        let ratio = (size as f32 / exact as f32).ln() / ((most_distance as f64 / exact as f64).ln() as f32);
        (exact + (ratio * (buckets - exact) as f32) as usize).min(buckets - 1)
    };
    (first + own) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::Cpu;
    use crate::model::transformer::presets;

    #[test]
    fn buckets_are_those_of_t5() {
        // Values of Hugging Face's T5Attention._relative_position_bucket.
        let both = |distance| bucket(distance, true, 32, 128);
        assert_eq!([0, -1, -7, -8, -11, -12, -16, -127, -500].map(both), [0, 1, 7, 8, 8, 9, 10, 15, 15]);
        assert_eq!([1, 7, 8, 20, 127].map(both), [17, 23, 24, 26, 31]);
        let one = |distance| bucket(distance, false, 32, 128);
        assert_eq!([3, 0, -1, -15, -16, -20, -127, -1000].map(one), [0, 0, 1, 15, 16, 17, 31, 31]);
    }

    #[test]
    fn blocks_lie_where_their_places_say() {
        for preset in presets::all().into_iter().filter(|preset| preset.name.starts_with("mi")) {
            let (places, layout, starts) = build(&preset.config, &Device::new(Cpu::default()));
            assert_eq!(layout.blocks().len(), starts.len());
            let named = |name: &str| layout.blocks().iter().find(|block| block.name == name).unwrap().start;
            assert_eq!(places.embedding.start, named("shared.weight"));
            for (stack, name) in places.stacks.iter().zip(match preset.config.kind() {
                Kind::Encoder => &["encoder"][..],
                Kind::Decoder => &["decoder"],
                Kind::EncoderDecoder => &["encoder", "decoder"],
            }) {
                assert_eq!(
                    stack.bias,
                    named(&format!("{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"))
                );
                assert_eq!(stack.final_norm, named(&format!("{name}.final_layer_norm.weight")));
                for sublayer in &stack.sublayers {
                    if let SublayerKind::Switch { inner, outer, .. } = sublayer.kind {
                        let expert = format!("{name}.block.1.layer.1.mlp.experts.expert_2");
                        if layout.blocks().iter().any(|block| block.name == format!("{expert}.wi.weight")) {
                            let layer = layout.blocks().iter().position(|b| b.name == format!("{expert}.wi.weight"));
                            let is_first = layout.blocks()[layer.unwrap() - 2].start == inner.start;
                            assert!(!is_first || named(&format!("{expert}.wi.weight")) == inner.range(2).start);
                            assert!(!is_first || named(&format!("{expert}.wo.weight")) == outer.range(2).start);
                        }
                    }
                }
            }
        }
    }
}
