//! The shape of a Transformer, dense or with Switch layers, and what is refused about it.
//!
//! Names and meanings are those of T5 (Raffel et al. 2020) and of the Switch Transformer (Fedus, Zoph and Shazeer 2021):
//! RMS norms before every sublayer, no biases, relative position buckets shared by the layers of a stack, attention without
//! a factor of `1/sqrt(d)`.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

pub use crate::device::FeedForward;

/// Which stacks there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// One stack that sees the whole sequence.
    Encoder,
    /// One stack that sees what came before.
    Decoder,
    /// A decoder that attends to an encoder.
    EncoderDecoder,
}

/// In which precision numbers are kept. Rounding to bfloat16 is emulated on the CPU: what is rounded is kept as `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// `f32` throughout.
    Single,
    /// The router in `f32`, factors and results of all other products rounded to bfloat16 (Fedus et al. 2021, section 2.4).
    Selective,
    /// Factors and results of all products rounded to bfloat16, the router's too.
    Half,
}

/// The feed-forward layers that are Switch layers, and how they route.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Switch {
    /// Experts of a layer, at least 1.
    pub experts: usize,
    /// Of so many layers in a row one is a Switch layer: the second, or with 1 every one.
    pub frequency: usize,
    /// Experts that each token is sent to.
    pub top_k: usize,
    /// Room of an expert in units of an even share of the tokens; 0: dropless, room for all.
    pub capacity_factor: f64,
    /// `alpha` of the load-balancing loss `alpha N sum_i f_i P_i`.
    pub auxiliary_weight: f64,
    /// Weight of the router's z-loss, the mean of `ln(sum_i exp logit_i)^2` (Zoph et al. 2022).
    pub z_weight: f64,
    /// The router's inputs are multiplied by numbers uniform within `1 - jitter` and `1 + jitter`.
    pub jitter: f64,
    /// Dropout within experts.
    pub expert_dropout: f64,
}

/// A Transformer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Symbols.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Width of a head's queries, keys and values.
    pub d_kv: usize,
    /// Attention heads.
    pub heads: usize,
    /// Hidden units of a feed-forward layer, or of one expert.
    pub d_ff: usize,
    /// Layers of the encoder; 0: none.
    pub encoder_layers: usize,
    /// Layers of the decoder; 0: none.
    pub decoder_layers: usize,
    /// The feed-forward function.
    pub feed_forward: FeedForward,
    /// Whether the head is the embedding, logits multiplied by `d_model^(-1/2)`.
    pub tied_head: bool,
    /// Buckets of relative positions.
    pub position_buckets: usize,
    /// Distances from here on share a bucket.
    pub most_distance: usize,
    /// Dropout outside experts, of minibatches.
    pub dropout: f64,
    /// Switch layers; `None`: all are dense.
    pub switch: Option<Switch>,
    /// Precision of numbers.
    pub precision: Precision,
    /// Weights start from a truncated normal distribution of standard deviation `sqrt(scale / fan_in)`.
    pub initial_scale: f64,
}

/// What is added to a mean square before its root is taken, as T5 has it.
pub const NORM_EPSILON: f32 = 1e-6;

/// The largest number of experts and of most other sizes: beyond every published model.
const MOST: usize = 1 << 20;

impl Config {
    /// Which stacks there are.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match (self.encoder_layers, self.decoder_layers) {
            (_, 0) => Kind::Encoder,
            (0, _) => Kind::Decoder,
            _ => Kind::EncoderDecoder,
        }
    }

    /// Width of all heads together.
    #[must_use]
    pub fn inner(&self) -> usize {
        self.heads * self.d_kv
    }

    /// Whether layer `index` of a stack, counted from 0, is a Switch layer.
    #[must_use]
    pub fn is_switch(&self, index: usize) -> bool {
        self.switch.is_some_and(|switch| index % switch.frequency == 1 % switch.frequency)
    }

    /// Switch layers of both stacks.
    #[must_use]
    pub fn switch_layers(&self) -> usize {
        let of = |layers: usize| (0..layers).filter(|&index| self.is_switch(index)).count();
        of(self.encoder_layers) + of(self.decoder_layers)
    }

    /// Numbers of the weights of a dense feed-forward layer or of one expert.
    #[must_use]
    pub fn feed_forward_parameters(&self) -> usize {
        (self.feed_forward.inner_matrices() + 1) * self.d_model * self.d_ff
    }

    /// Refuses what cannot be a Transformer. `place` names the model in messages.
    ///
    /// # Errors
    /// [`Error::Config`] naming the size and what it may be.
    pub fn check(&self, place: &str) -> Result<()> {
        let refuse = |finding: String, remedy: &str| Err(Error::config(place, finding, remedy));
        let sizes = [
            ("vocabulary", self.vocabulary),
            ("d_model", self.d_model),
            ("d_kv", self.d_kv),
            ("heads", self.heads),
            ("d_ff", self.d_ff),
            ("most_distance", self.most_distance),
        ];
        for (name, size) in sizes {
            if size == 0 || size > MOST {
                return refuse(format!("{name} = {size}"), "give a whole number of at least 1");
            }
        }
        if !self.d_model.is_multiple_of(2) || !self.d_kv.is_multiple_of(2) {
            let finding = format!("d_model = {} with heads of d_kv = {}", self.d_model, self.d_kv);
            return refuse(finding, "both must be even numbers, for instance 128 and 32");
        }
        if self.encoder_layers + self.decoder_layers == 0 {
            return refuse("there are no layers".into(), "give encoder_layers, decoder_layers or both");
        }
        if self.position_buckets < 4 || !self.position_buckets.is_multiple_of(4) {
            let finding = format!("position_buckets = {}", self.position_buckets);
            return refuse(finding, "an encoder halves them twice: give a multiple of 4, for instance 32");
        }
        if self.most_distance <= self.position_buckets / 2 {
            let finding =
                format!("most_distance = {} with {} position buckets", self.most_distance, self.position_buckets);
            return refuse(
                finding,
                "distances below half the buckets have one of their own: give more, for instance 128",
            );
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return refuse(format!("dropout = {}", self.dropout), "give a share of at least 0 and below 1");
        }
        if !(self.initial_scale.is_finite() && self.initial_scale > 0.0) {
            return refuse(
                format!("initial_scale = {}", self.initial_scale),
                "give a number above 0, for instance 0.1",
            );
        }
        self.switch.as_ref().map_or(Ok(()), |switch| switch.check(place))?;
        if self.switch.is_some() && self.switch_layers() == 0 {
            return refuse(
                "no layer is a Switch layer".into(),
                "with expert_frequency = 2 it is the second layer: give more layers, or expert_frequency = 1",
            );
        }
        Ok(())
    }

    /// Refuses capacities that would leave an expert no room for a token, given the tokens that are routed together.
    ///
    /// # Errors
    /// [`Error::Config`] naming the capacity.
    pub fn check_capacity(&self, place: &str, tokens: usize) -> Result<()> {
        let Some(switch) = &self.switch else { return Ok(()) };
        match switch.capacity(tokens) {
            Some(0) => Err(Error::config(
                place,
                format!(
                    "capacity_factor = {} leaves each of {} experts room for less than one of {tokens} tokens",
                    switch.capacity_factor, switch.experts
                ),
                "raise it, route more tokens together, or give 0 for a layer that drops none",
            )),
            _ => Ok(()),
        }
    }
}

impl Switch {
    /// Tokens that an expert has room for among `tokens` that are routed together: `tokens top_k / experts` times the
    /// capacity factor, rounded down; `None` where there is room for all.
    #[must_use]
    pub fn capacity(&self, tokens: usize) -> Option<usize> {
        let share = (tokens * self.top_k) as f64 / self.experts as f64;
        // The tolerance is for the division alone: 1.25 of an even share is a whole number where it should be.
        (self.capacity_factor > 0.0).then(|| (share * self.capacity_factor * (1.0 + 1e-12)).floor() as usize)
    }

    fn check(&self, place: &str) -> Result<()> {
        let refuse = |finding: String, remedy: &str| Err(Error::config(place, finding, remedy));
        if self.experts == 0 || self.experts > MOST {
            return refuse(
                format!("experts = {}", self.experts),
                "a Switch layer has at least one expert; for dense layers choose a dense preset",
            );
        }
        if self.frequency == 0 {
            return refuse("expert_frequency = 0".into(), "1: every layer is a Switch layer; 2: every second");
        }
        if self.top_k == 0 || self.top_k > self.experts {
            let finding = format!("top_k = {} of {} experts", self.top_k, self.experts);
            return refuse(finding, "a token goes to at least one expert and at most to all");
        }
        if !(self.capacity_factor >= 0.0 && self.capacity_factor.is_finite()) {
            return refuse(format!("capacity_factor = {}", self.capacity_factor), "give 1 or more, or 0 for dropless");
        }
        let weights = [("auxiliary_weight", self.auxiliary_weight), ("z_weight", self.z_weight)];
        if let Some((name, value)) = weights.into_iter().find(|(_, v)| !(*v >= 0.0 && v.is_finite())) {
            return refuse(format!("{name} = {value}"), "give a number of at least 0");
        }
        let shares = [("jitter", self.jitter), ("expert_dropout", self.expert_dropout)];
        if let Some((name, value)) = shares.into_iter().find(|(_, v)| !(0.0..1.0).contains(v)) {
            return refuse(format!("{name} = {value}"), "give a share of at least 0 and below 1");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::transformer::presets;

    #[test]
    fn capacities_are_exact() {
        let switch = presets::find("mini-switch").unwrap().config.switch.unwrap();
        let with = |experts, top_k, capacity_factor| Switch { experts, top_k, capacity_factor, ..switch };
        assert_eq!(with(4, 1, 1.0).capacity(16), Some(4));
        assert_eq!(with(4, 1, 1.25).capacity(16), Some(5));
        assert_eq!(with(4, 2, 1.25).capacity(16), Some(10));
        assert_eq!(with(10, 1, 1.1).capacity(100), Some(11));
        assert_eq!(with(4, 1, 1.0).capacity(3), Some(0));
        assert_eq!(with(4, 1, 0.0).capacity(3), None);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let good = presets::find("mini-switch").unwrap().config;
        let switch = good.switch.unwrap();
        good.check("model transformer").unwrap();
        let bad = [
            ("experts = 0", Config { switch: Some(Switch { experts: 0, ..switch }), ..good.clone() }),
            ("top_k = 9 of 8", Config { switch: Some(Switch { top_k: 9, ..switch }), ..good.clone() }),
            ("d_kv = 33", Config { d_kv: 33, ..good.clone() }),
            ("heads = 0", Config { heads: 0, ..good.clone() }),
            ("no layers", Config { decoder_layers: 0, encoder_layers: 0, ..good.clone() }),
            ("no layer is a Switch layer", Config { decoder_layers: 1, ..good.clone() }),
            ("position_buckets = 6", Config { position_buckets: 6, ..good.clone() }),
            ("dropout = 1", Config { dropout: 1.0, ..good.clone() }),
            ("jitter = -0.1", Config { switch: Some(Switch { jitter: -0.1, ..switch }), ..good.clone() }),
        ];
        for (finding, config) in bad {
            let message = config.check("model transformer").unwrap_err().to_string();
            assert!(message.contains(finding), "{message}");
        }
        let message = good.check_capacity("model transformer", 4).unwrap_err().to_string();
        assert!(message.contains("less than one of 4 tokens"), "{message}");
    }
}
