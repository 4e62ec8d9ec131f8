//! Published shapes by name, and miniatures for two cores.
//!
//! Shapes of T5 and the Switch Transformer are those printed in table 9 of Fedus, Zoph and Shazeer 2021; of `switch-xxl`
//! the table prints 64 experts, and 128 are what its 395 billion parameters need. All of them have GEGLU layers (three
//! matrices) but Switch-C, whose experts have two.

use super::config::{Config, FeedForward, Precision, Switch};
use crate::error::{Error, Result};
use crate::oracle::did_you_mean;

/// A named shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Preset {
    /// Its name in experiment files and on the command line.
    pub name: &'static str,
    /// What it is, in a line.
    pub summary: &'static str,
    /// The shape. The vocabulary of a miniature is that of the bytes; a corpus replaces it by its own.
    pub config: Config,
}

/// The names, published ones first.
pub const NAMES: [&str; 15] = [
    "t5-base",
    "t5-large",
    "t5-xxl",
    "switch-base",
    "switch-large",
    "switch-xxl",
    "switch-c",
    "mini-decoder",
    "mini-encoder",
    "mini-encoder-decoder",
    "mini-switch",
    "micro-decoder",
    "micro-encoder",
    "micro-encoder-decoder",
    "micro-switch",
];

/// The preset of a name.
///
/// # Errors
/// [`Error::Config`] with the known names.
pub fn find(name: &str) -> Result<Preset> {
    preset(name).ok_or_else(|| {
        let nearest = did_you_mean(name, NAMES.into_iter());
        Error::config("preset", format!("there is no preset `{name}`"), format!("{nearest}known: {}", NAMES.join(", ")))
    })
}

/// All presets.
#[must_use]
pub fn all() -> Vec<Preset> {
    NAMES.into_iter().filter_map(preset).collect()
}

fn preset(name: &str) -> Option<Preset> {
    let of = |name, summary, config| Some(Preset { name, summary, config });
    match name {
        "t5-base" => of("t5-base", "T5-Base: 0.2 billion parameters", published(768, 2048, 12, 12)),
        "t5-large" => of("t5-large", "T5-Large: 0.7 billion parameters", published(1024, 2816, 16, 24)),
        "t5-xxl" => of("t5-xxl", "T5-XXL: 11 billion parameters", published(4096, 10240, 64, 24)),
        "switch-base" => {
            of("switch-base", "Switch-Base: 7.4 billion parameters", published(768, 2048, 12, 12).with(experts(128, 2)))
        }
        "switch-large" => of(
            "switch-large",
            "Switch-Large: 26 billion parameters",
            published(1024, 2816, 16, 24).with(experts(128, 2)),
        ),
        "switch-xxl" => {
            of("switch-xxl", "Switch-XXL: 395 billion parameters", published(4096, 10240, 64, 24).with(experts(128, 2)))
        }
        "switch-c" => {
            let relu = Config { feed_forward: FeedForward::Relu, ..published(2080, 6144, 32, 15) };
            of("switch-c", "Switch-C: 1.57 trillion parameters", relu.with(experts(2048, 1)))
        }
        "mini-decoder" => {
            of("mini-decoder", "a dense decoder of about a million parameters", miniature(128, 4, [0, 5]))
        }
        "mini-encoder" => {
            of("mini-encoder", "a dense encoder of about a million parameters", miniature(128, 4, [5, 0]))
        }
        "mini-encoder-decoder" => of("mini-encoder-decoder", "a dense encoder and decoder", miniature(128, 4, [2, 2])),
        "mini-switch" => of(
            "mini-switch",
            "a decoder with 8 experts in every second layer",
            miniature(128, 4, [0, 4]).with(experts(8, 2)),
        ),
        "micro-decoder" => of("micro-decoder", "a dense decoder of seconds", miniature(32, 2, [0, 2])),
        "micro-encoder" => of("micro-encoder", "a dense encoder of seconds", miniature(32, 2, [2, 0])),
        "micro-encoder-decoder" => {
            of("micro-encoder-decoder", "a dense encoder and decoder of seconds", miniature(32, 2, [2, 2]))
        }
        "micro-switch" => of(
            "micro-switch",
            "a decoder of seconds with 4 experts in its second layer",
            miniature(32, 2, [0, 2]).with(experts(4, 2)),
        ),
        _ => None,
    }
}

impl Config {
    fn with(self, switch: Switch) -> Self {
        Self { switch: Some(switch), ..self }
    }
}

/// An encoder and a decoder of T5's form, vocabulary included. Heads are 64 wide.
fn published(d_model: usize, d_ff: usize, heads: usize, layers: usize) -> Config {
    Config {
        vocabulary: 32_128,
        d_model,
        d_kv: 64,
        heads,
        d_ff,
        encoder_layers: layers,
        decoder_layers: layers,
        feed_forward: FeedForward::Geglu,
        tied_head: true,
        position_buckets: 32,
        most_distance: 128,
        dropout: 0.0,
        switch: None,
        precision: Precision::Single,
        initial_scale: 0.1,
    }
}

fn miniature(d_model: usize, heads: usize, [encoder_layers, decoder_layers]: [usize; 2]) -> Config {
    Config {
        vocabulary: 256,
        d_model,
        d_kv: d_model / heads,
        heads,
        d_ff: 4 * d_model,
        encoder_layers,
        decoder_layers,
        feed_forward: FeedForward::Relu,
        ..published(d_model, 4 * d_model, heads, 1)
    }
}

/// Switch layers as in the paper: one expert a token, capacity factor 1.25, `alpha` 0.01; noise is left to experiments.
pub(super) const SWITCH: Switch = Switch {
    experts: 8,
    frequency: 2,
    top_k: 1,
    capacity_factor: 1.25,
    auxiliary_weight: 1e-2,
    z_weight: 0.0,
    jitter: 0.0,
    expert_dropout: 0.0,
};

fn experts(experts: usize, frequency: usize) -> Switch {
    Switch { experts, frequency, ..SWITCH }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_has_its_name_and_can_be() {
        let presets = all();
        assert_eq!(presets.len(), NAMES.len());
        for (preset, name) in presets.iter().zip(NAMES) {
            assert_eq!(preset.name, name);
            preset.config.check(name).unwrap();
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_nearest() {
        let message = find("switch-bse").unwrap_err().to_string();
        assert!(message.contains("did you mean `switch-base`?"), "{message}");
    }
}
