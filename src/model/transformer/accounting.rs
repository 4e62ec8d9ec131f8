//! What a Transformer has and does, counted from its shape: parameters by part, bytes by precision, floating-point operations.
//!
//! Parameters: the embedding `V d` (one row more in an encoder alone, for the mask); of each attention `4 d i` with `i` the width of all heads together, two attentions in a
//! decoder layer that has an encoder; of each feed-forward layer or expert its matrices times `d d_ff`; of each Switch layer the
//! router `E d`; an RMS norm's `d` before each sublayer and at the end of each stack; one table of relative positions, buckets
//! times heads, for each stack; a head of its own, where it is not the embedding.
//!
//! Operations of one sequence (an addition and a multiplication are two), by two conventions:
//! - *as published* (Fedus, Zoph and Shazeer 2021, table 9, as far as it can be reproduced): two for each weight that a token
//!   meets in its own stack, and `4 n m i` for the products of `n` queries with `m` keys and of the weights with the values. No
//!   router, no embedding, no logits.
//! - *as executed*: also the keys and values of the cross-attention at every position of the encoder, where the other counts them
//!   for the decoder's positions, and the routers. Attention is counted over all pairs, masked or not.
//!
//! The logits of the head are counted apart. docs/parameter-accounting.md holds both against the published table.

use super::config::{Config, Kind, Precision};
use crate::error::{Error, Result};
use serde::Serialize;

/// Positions of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Lengths {
    /// In the encoder; 0 without one.
    pub encoder: u64,
    /// In the decoder; 0 without one.
    pub decoder: u64,
}

impl Lengths {
    /// Those of the published table, 512 and 114; of one stack alone 512.
    #[must_use]
    pub fn standard(config: &Config) -> Self {
        match config.kind() {
            Kind::Encoder => Self { encoder: 512, decoder: 0 },
            Kind::Decoder => Self { encoder: 0, decoder: 512 },
            Kind::EncoderDecoder => Self { encoder: 512, decoder: 114 },
        }
    }

    /// Positions in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.encoder + self.decoder
    }
}

/// Parameters by part. The parts add up to the total.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Parameters {
    /// Of the embedding.
    pub embedding: u64,
    /// Of the head, where it is not the embedding.
    pub head: u64,
    /// Of all attentions.
    pub attention: u64,
    /// Of the tables of relative positions.
    pub positions: u64,
    /// Of all norms.
    pub norms: u64,
    /// Of all dense feed-forward layers.
    pub dense: u64,
    /// Of all routers.
    pub routers: u64,
    /// Of all experts.
    pub experts: u64,
    /// Of one expert; 0 where there is none.
    pub one_expert: u64,
    /// Of everything.
    pub total: u64,
    /// That take part in the output for one token: all but the experts that it is not sent to.
    pub active: u64,
    /// That must be at hand for every token: all but the experts.
    pub resident: u64,
}

/// Floating-point operations of one sequence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Flops {
    /// By the published convention.
    pub published: f64,
    /// As executed.
    pub executed: f64,
    /// Of the head's logits at every position of the last stack, apart from both.
    pub logits: f64,
}

/// The parameters of a shape.
#[must_use]
pub fn parameters(config: &Config) -> Parameters {
    let n = |value: usize| value as u64;
    let (d, inner) = (n(config.d_model), n(config.inner()));
    let (encoder, decoder) = (n(config.encoder_layers), n(config.decoder_layers));
    let stacks = u64::from(encoder > 0) + u64::from(decoder > 0);
    let crossed = if encoder > 0 { decoder } else { 0 };
    let switches = n(config.switch_layers());
    let (experts, top_k) = config.switch.as_ref().map_or((0, 0), |switch| (n(switch.experts), n(switch.top_k)));
    let feed_forward = n(config.feed_forward_parameters());
    // An encoder alone fills in masked tokens: the mask is one symbol more.
    let vocabulary = (n(config.vocabulary) + u64::from(config.kind() == Kind::Encoder)) * d;
    let mut counts = Parameters {
        embedding: vocabulary,
        head: if config.tied_head { 0 } else { vocabulary },
        attention: (encoder + decoder + crossed) * 4 * d * inner,
        positions: stacks * n(config.position_buckets) * n(config.heads),
        norms: (2 * (encoder + decoder) + crossed + stacks) * d,
        dense: (encoder + decoder - switches) * feed_forward,
        routers: switches * experts * d,
        experts: switches * experts * feed_forward,
        one_expert: if switches > 0 { feed_forward } else { 0 },
        ..Parameters::default()
    };
    counts.resident = counts.embedding
        + counts.head
        + counts.attention
        + counts.positions
        + counts.norms
        + counts.dense
        + counts.routers;
    counts.total = counts.resident + counts.experts;
    counts.active = counts.resident + switches * top_k * feed_forward;
    counts
}

/// Bytes of all parameters in a precision: `selective` keeps the routers in single precision and all else in half.
#[must_use]
pub fn bytes(parameters: &Parameters, precision: Precision) -> u64 {
    match precision {
        Precision::Single => 4 * parameters.total,
        Precision::Selective => 2 * parameters.total + 2 * parameters.routers,
        Precision::Half => 2 * parameters.total,
    }
}

/// The operations of one sequence forwards.
#[must_use]
pub fn flops(config: &Config, lengths: Lengths) -> Flops {
    let f = |value: usize| value as f64;
    let (d, inner) = (f(config.d_model), f(config.inner()));
    let attention = 4.0 * d * inner;
    let (n, m) = (lengths.encoder as f64, lengths.decoder as f64);
    // Weights that a token meets in the feed-forward layers of a stack, and those of its routers.
    let feed_forward = |layers: usize| {
        let switches = f((0..layers).filter(|&layer| config.is_switch(layer)).count());
        let (experts, top_k) = config.switch.as_ref().map_or((0.0, 0.0), |s| (f(s.experts), f(s.top_k)));
        let one = f(config.feed_forward_parameters());
        ((f(layers) - switches + switches * top_k) * one, switches * experts * d)
    };
    let (encoder, encoder_routers) = feed_forward(config.encoder_layers);
    let (decoder, decoder_routers) = feed_forward(config.decoder_layers);
    let (encoders, decoders) = (f(config.encoder_layers), f(config.decoder_layers));
    let crossed = if config.kind() == Kind::EncoderDecoder { decoders } else { 0.0 };
    let weights = n * (encoders * attention + encoder) + m * ((decoders + crossed) * attention + decoder);
    let pairs = encoders * n * n + decoders * m * m + crossed * m * n;
    let published = 2.0 * weights + 4.0 * inner * pairs;
    // Keys and values are two of the four matrices.
    let cross = crossed * (n - m) * attention / 2.0;
    let executed = published + 2.0 * (cross + n * encoder_routers + m * decoder_routers);
    let last = if config.decoder_layers > 0 { m } else { n };
    Flops { published, executed, logits: 2.0 * last * f(config.vocabulary) * d }
}

/// Everything about a shape.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Accounting {
    /// What it is called.
    pub name: String,
    /// Parameters by part.
    pub parameters: Parameters,
    /// Experts of a Switch layer; 0 without any.
    pub experts_of_a_layer: u64,
    /// Switch layers of both stacks.
    pub switch_layers: u64,
    /// Positions of the sequence that is counted.
    pub lengths: Lengths,
    /// Its operations forwards.
    pub flops: Flops,
}

impl Accounting {
    /// Counts a shape.
    ///
    /// # Errors
    /// [`Error::Config`] for a shape that cannot be, or lengths that do not fit its stacks.
    pub fn new(name: &str, config: &Config, lengths: Option<Lengths>) -> Result<Self> {
        config.check(name)?;
        let lengths = lengths.unwrap_or_else(|| Lengths::standard(config));
        let stacks = [
            ("encoder", config.encoder_layers > 0, lengths.encoder),
            ("decoder", config.decoder_layers > 0, lengths.decoder),
        ];
        for (stack, exists, length) in stacks {
            if exists != (length > 0) {
                let finding = format!("{length} tokens in the {stack}");
                let remedy = if exists { "give it at least one" } else { "it has none: leave that out" };
                return Err(Error::config(name, finding, remedy));
            }
        }
        Ok(Self {
            name: name.to_owned(),
            parameters: parameters(config),
            experts_of_a_layer: config.switch.as_ref().map_or(0, |switch| switch.experts as u64),
            switch_layers: config.switch_layers() as u64,
            lengths,
            flops: flops(config, lengths),
        })
    }

    /// Operations for each position of the sequence.
    #[must_use]
    pub fn per_token(&self, flops: f64) -> f64 {
        flops / self.lengths.total() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::device::cpu::Cpu;
    use crate::model::transformer::config::{FeedForward, Switch};
    use crate::model::transformer::{layout, presets};

    fn of(name: &str) -> Accounting {
        Accounting::new(name, &presets::find(name).unwrap().config, None).unwrap()
    }

    /// Within one part in a hundred.
    fn near(found: f64, published: f64) {
        assert!((found / published - 1.0).abs() < 0.01, "{found:e}, published {published:e}");
    }

    /// Table 9 of Fedus, Zoph and Shazeer 2021, where the printed shapes support the printed totals.
    #[test]
    fn the_published_table_is_reproduced() {
        for (name, billions) in [("t5-base", 0.223), ("switch-base", 7.4), ("switch-xxl", 395.0), ("switch-c", 1571.0)]
        {
            near(of(name).parameters.total as f64, billions * 1e9);
        }
        for (name, flops) in [("t5-base", 124e9), ("switch-base", 124e9), ("t5-xxl", 6.3e12), ("switch-xxl", 6.3e12)] {
            near(of(name).flops.published, flops);
        }
    }

    #[test]
    fn switch_c_is_counted_to_the_part() {
        let Accounting { parameters, flops, .. } = of("switch-c");
        // Two stacks of 15 layers of 2048 experts of two matrices 2080 x 6144.
        assert_eq!(parameters.experts, 2 * 15 * 2048 * 2 * 2080 * 6144);
        assert_eq!((parameters.one_expert, parameters.routers), (25_559_040, 30 * 2048 * 2080));
        assert_eq!(parameters.embedding, 32_128 * 2080);
        near(parameters.attention as f64, 0.767e9);
        assert!((parameters.total as f64 / 1571.3e9 - 1.0).abs() < 1e-4, "{}", parameters.total);
        assert!((bytes(&parameters, Precision::Half) as f64 / 3.142e12 - 1.0).abs() < 5e-4);
        near(parameters.active as f64, 1.73e9);
        near(flops.published, 899e9);
        near(flops.executed, 1081e9);
        near(of("t5-base").flops.executed, 136e9);
        near(of("t5-xxl").flops.executed, 6.94e12);
    }

    /// What docs/parameter-accounting.md says about shapes that do not give the printed totals.
    #[test]
    fn the_known_mismatches_are_what_the_docs_say() {
        let billions = |config: &Config| parameters(config).total as f64 / 1e9;
        let preset = |name: &str| presets::find(name).unwrap().config;
        let two_matrices = |config: Config| Config { feed_forward: FeedForward::Relu, d_ff: 4096, ..config };
        let close = |found: f64, stated: f64| assert!((found / stated - 1.0).abs() < 1e-3, "{found} {stated}");
        close(billions(&preset("t5-large")), 0.750);
        close(billions(&two_matrices(preset("t5-large"))), 0.7375);
        close(billions(&preset("switch-large")), 27.12);
        close(billions(&two_matrices(preset("switch-large"))), 26.309);
        close(billions(&preset("t5-xxl")), 11.003);
        close(billions(&Config { tied_head: false, ..preset("t5-xxl") }), 11.135);
        let xxl = preset("switch-xxl");
        let switch = xxl.switch.map(|switch| Switch { experts: 64, ..switch });
        close(billions(&Config { switch, ..xxl }), 201.26);
        close(of("switch-c").flops.published / 1e9, 899.25);
        close(of("t5-large").flops.published / 1e9, 441.7);
    }

    #[test]
    fn parts_add_up_and_experts_do_not_change_what_a_token_meets() {
        for preset in presets::all() {
            let counts = parameters(&preset.config);
            assert_eq!(counts.total, counts.resident + counts.experts, "{}", preset.name);
            assert!(counts.active <= counts.total);
            assert_eq!(preset.config.switch.is_none(), counts.active == counts.total, "{}", preset.name);
        }
        let (dense, switch) = (of("t5-base"), of("switch-base"));
        assert_eq!(dense.flops.published, switch.flops.published);
        assert_eq!(switch.parameters.active, dense.parameters.total + switch.parameters.routers);
    }

    /// What is counted is what is allocated.
    #[test]
    fn the_count_is_the_layouts() {
        let device = Device::new(Cpu::default());
        for preset in presets::all().into_iter().filter(|preset| preset.name.starts_with("mi")) {
            let untied = Config { tied_head: false, ..preset.config.clone() };
            let gated = Config { feed_forward: FeedForward::Geglu, ..preset.config.clone() };
            let everywhere = preset.config.switch.map(|switch| Switch { frequency: 1, experts: 3, ..switch });
            let everywhere = Config { switch: everywhere, ..preset.config.clone() };
            for config in [preset.config, untied, gated, everywhere] {
                let (_, layout, _) = layout::build(&config, &device);
                assert_eq!(parameters(&config).total, layout.len() as u64, "{}: {config:?}", preset.name);
            }
        }
    }

    #[test]
    fn lengths_must_fit_the_stacks() {
        let config = presets::find("mini-decoder").unwrap().config;
        let refused = Accounting::new("mini-decoder", &config, Some(Lengths { encoder: 9, decoder: 9 })).unwrap_err();
        assert!(refused.to_string().contains("9 tokens in the encoder"), "{refused}");
        let counted = Accounting::new("mini-decoder", &config, Some(Lengths { encoder: 0, decoder: 10 })).unwrap();
        assert_eq!(counted.flops.published, counted.flops.executed);
        assert_eq!(counted.per_token(counted.flops.logits), 2.0 * 256.0 * 128.0);
    }
}
