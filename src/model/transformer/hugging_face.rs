//! A Transformer in the form that Hugging Face's `transformers` loads: `config.json` and tensors under its names.
//!
//! Dense encoder-decoders are its T5, those with Switch layers its SwitchTransformers. What differs there:
//! - capacity is a fixed count of tokens *per sequence* (`expert_capacity`), here a share of all tokens that are routed together;
//!   the count written is this model's for one sequence, or the whole sequence where none are dropped;
//! - there are no decoders without an encoder, no gated experts and no more than one expert a token: such models are refused;
//! - logits of a tied head are multiplied by `d_model^(-1/2)`, attention has no factor of `1/sqrt(d)`: as here;
//! - the first token of a decoder is `decoder_start_token_id`, here the first token of the second half of a sequence, so that a
//!   symbol to start with must be given by whoever generates.

use super::config::{Config, FeedForward, Kind, NORM_EPSILON};
use super::{TokenBatch, Transformer};
use crate::error::{Error, Result};
use crate::model::Weights;
use crate::oracle::{Problem, Vector};
use serde_json::{Value, json};

const PLACE: &str = "export to hugging-face";

/// The configuration and the context of weights that a Transformer wrote.
///
/// # Errors
/// [`Error::Config`] for weights of another model.
pub fn shape_of(weights: &Weights) -> Result<(Config, usize)> {
    let text = |key: &str| weights.metadata.get(key);
    let config = text("config").and_then(|config| serde_json::from_str(config).ok());
    match (text("model").map(String::as_str), config, text("context").and_then(|context| context.parse().ok())) {
        (Some("transformer"), Some(config), Some(context)) => Ok((config, context)),
        (model, ..) => Err(Error::config(
            PLACE,
            format!("the weights are of the model {}", model.unwrap_or("without a name")),
            "give a cell of the model transformer",
        )),
    }
}

/// `config.json` of a model that reads sequences of `context` tokens.
///
/// # Errors
/// [`Error::Config`] for what that library has not.
pub fn config_json(config: &Config, context: usize) -> Result<Value> {
    let refuse = |finding: &str| {
        Err(Error::config(PLACE, finding, "the weights are in the cell's weights.safetensors, under the same names"))
    };
    if config.kind() != Kind::EncoderDecoder {
        return refuse("that library has a T5 and a SwitchTransformers with an encoder and a decoder alone");
    }
    let mut json = json!({
        "vocab_size": config.vocabulary,
        "d_model": config.d_model,
        "d_kv": config.d_kv,
        "d_ff": config.d_ff,
        "num_layers": config.encoder_layers,
        "num_decoder_layers": config.decoder_layers,
        "num_heads": config.heads,
        "relative_attention_num_buckets": config.position_buckets,
        "relative_attention_max_distance": config.most_distance,
        "dropout_rate": config.dropout,
        "layer_norm_epsilon": (f64::from(NORM_EPSILON) * 1e9).round() / 1e9,
        "tie_word_embeddings": config.tied_head,
        "is_encoder_decoder": true,
        "use_cache": true,
        "pad_token_id": 0,
        "decoder_start_token_id": 0,
        "eos_token_id": null,
        "torch_dtype": "float32",
    });
    let more = match (&config.switch, config.feed_forward) {
        (None, f) => {
            let word = match f {
                FeedForward::Relu => "relu",
                FeedForward::Gelu => "gelu",
                // That library's word for GELU in the form with tanh, gated.
                FeedForward::Geglu => "gated-gelu",
            };
            json!({ "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "feed_forward_proj": word })
        }
        (Some(_), FeedForward::Geglu) => return refuse("its SwitchTransformers has no gated experts"),
        (Some(switch), _) if switch.top_k > 1 => return refuse("its SwitchTransformers sends a token to one expert"),
        (Some(switch), f) => {
            let sparse = |layers: usize| (0..layers).filter(|&index| config.is_switch(index)).count();
            let (encoder, decoder) = (sparse(config.encoder_layers), sparse(config.decoder_layers));
            // It derives the step from the number of sparse layers: `layers / number`, each second of a step.
            for (layers, sparse) in [(config.encoder_layers, encoder), (config.decoder_layers, decoder)] {
                let step = layers.checked_div(sparse).unwrap_or(layers);
                let theirs = |index: usize| sparse > 0 && (step == 1 || index % step == 1);
                if (0..layers).any(|index| theirs(index) != config.is_switch(index)) {
                    return refuse("its rule for which layers are Switch layers cannot give these");
                }
            }
            let length = TokenBatch::lengths(config.kind(), context).into_iter().max().unwrap_or(context);
            json!({
                "architectures": ["SwitchTransformersForConditionalGeneration"],
                "model_type": "switch_transformers",
                "num_experts": switch.experts,
                "num_sparse_encoder_layers": encoder,
                "num_sparse_decoder_layers": decoder,
                "expert_capacity": switch.capacity(length).unwrap_or(length),
                "router_bias": false,
                "router_jitter_noise": switch.jitter,
                "router_dtype": "float32",
                "router_ignore_padding_tokens": false,
                "router_z_loss_coef": switch.z_weight,
                "router_aux_loss_coef": switch.auxiliary_weight,
                "add_router_probs": false,
                "dense_act_fn": if f == FeedForward::Relu { "relu" } else { "gelu" },
            })
        }
    };
    if let (Value::Object(json), Value::Object(more)) = (&mut json, more) {
        json.extend(more);
    }
    Ok(json)
}

impl Transformer {
    /// The parameters of weights under the same names: those this program wrote, or a model of that library.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first tensor that is missing or has another shape.
    pub fn parameters(&self, weights: &Weights) -> Result<Vector> {
        let mut values = Vec::with_capacity(self.layout().len());
        for block in self.layout().blocks() {
            let refuse = |finding: String| {
                Err(Error::config("weights", finding, "give the weights of a model of the same shape"))
            };
            match weights.tensors.get(&block.name) {
                None => return refuse(format!("there is no tensor `{}`", block.name)),
                Some((shape, _)) if *shape != [block.rows, block.columns] && *shape != [block.columns] => {
                    let expected = format!("{} x {}", block.rows, block.columns);
                    return refuse(format!("`{}` has the shape {shape:?}, not {expected}", block.name));
                }
                Some((_, own)) => values.extend(own),
            }
        }
        Vector::from_values(self.layout(), values)
    }
}
