//! The model `transformer` of the registry: a preset with what an experiment file changes of it, on a text.

use super::batch::TokenRows;
use super::config::{Config, FeedForward, Precision, Switch};
use super::{TokenParts, Transformer, presets};
use crate::data::Sequences;
use crate::error::{Error, Result};
use crate::model::{Build, Model, ModelEntry, Split, TextData};
use crate::oracle::{Setting, SettingValue, Settings};
use std::sync::Arc;

/// The value of a setting that leaves the preset's.
const PRESET: &str = "-1";

const fn whole(name: &'static str, doc: &'static str) -> Setting {
    Setting::whole(name, PRESET, -1, 1 << 20, doc)
}

const fn real(name: &'static str, doc: &'static str) -> Setting {
    Setting::real(name, PRESET, -1.0, f64::INFINITY, doc)
}

/// A Transformer on a text.
pub const TRANSFORMER: ModelEntry = ModelEntry {
    name: "transformer",
    summary: "Transformer of T5's form on a text, dense or with Switch layers: a preset, and what is changed of it",
    paper: "Raffel et al. 2020; Switch layers: Fedus, Zoph and Shazeer 2021",
    settings: &[
        Setting::choice("preset", "mini-decoder", &presets::NAMES, "the shape; settings of -1 are the preset's"),
        Setting::whole("context", "128", 1, 1 << 16, "tokens of a sequence: a row of the problem"),
        whole("d_model", "width of the residual stream"),
        whole("d_kv", "width of a head"),
        whole("heads", "attention heads"),
        whole("d_ff", "hidden units of a feed-forward layer, or of one expert"),
        whole("encoder_layers", "layers of the encoder; 0: none"),
        whole("decoder_layers", "layers of the decoder; 0: none"),
        Setting::choice(
            "feed_forward",
            "preset",
            &["preset", "relu", "gelu", "geglu"],
            "function of the feed-forward layers",
        ),
        Setting::choice(
            "head",
            "preset",
            &["preset", "tied", "untied"],
            "whether the head is the embedding, logits multiplied by d_model^(-1/2)",
        ),
        whole("experts", "experts of a Switch layer, at least 1; makes a dense preset a Switch Transformer"),
        whole("expert_frequency", "of so many layers one, the second, is a Switch layer; 1: all are"),
        whole("top_k", "experts that each token is sent to"),
        real("capacity_factor", "room of an expert in units of an even share of the tokens; 0: dropless"),
        real("auxiliary_weight", "alpha of the load-balancing loss").log().search(1e-3, 0.1),
        real("z_weight", "weight of the router's z-loss (Zoph et al. 2022)"),
        real("jitter", "the router's inputs are multiplied by numbers uniform within 1 - jitter and 1 + jitter"),
        real("expert_dropout", "dropout within experts, of minibatches"),
        real("dropout", "dropout elsewhere, of minibatches"),
        Setting::choice(
            "precision",
            "preset",
            &["preset", "single", "selective", "half"],
            "f32; bfloat16 (emulated) outside the routers; bfloat16 throughout",
        ),
        real("initial_scale", "weights start with standard deviation sqrt(scale / inputs), truncated at two of them"),
        Setting::whole(
            "routed_tokens",
            "16384",
            1,
            1 << 24,
            "at most so many tokens are worked on, and routed by capacity and load balance, together",
        ),
    ],
    random_start: true,
    build: Build::Text(|data, settings| Ok(Box::new(build(data, settings)?) as Box<dyn Model>)),
    predictor: |_| {
        Err(Error::config(
            "predict",
            "a Transformer reads text, and rows of a table are what is predicted here",
            "its weights can be taken elsewhere with `parsimony export`",
        ))
    },
};

impl TokenRows for Sequences {
    fn count(&self) -> usize {
        self.count()
    }

    fn read(&self, row: usize, tokens: &mut [u32], next: &mut [u32]) {
        self.read(row, tokens, next);
    }

    fn text(&self) -> Option<&Sequences> {
        Some(self)
    }
}

fn build(data: &TextData, settings: &Settings) -> Result<Transformer> {
    let config = config(settings, data.corpus.vocabulary_size())?;
    let context = settings.whole("context");
    let rows = |split| -> Result<Arc<dyn TokenRows>> { Ok(Arc::new(data.evaluation(split, context)?)) };
    let parts = TokenParts {
        train: Arc::new(data.training(context)?),
        evaluation: [rows(Split::Train)?, rows(Split::Validation)?, rows(Split::Test)?],
    };
    Transformer::new(config, context, settings.whole("routed_tokens"), parts)
}

/// The preset with what the settings change of it.
///
/// # Errors
/// [`Error::Config`] for an unknown preset or settings of Switch layers without any.
fn config(settings: &Settings, vocabulary: usize) -> Result<Config> {
    let preset = presets::find(settings.word("preset"))?;
    let whole = |name: &str| match settings.values().get(name) {
        Some(SettingValue::Whole(value)) => usize::try_from(*value).ok(),
        _ => None,
    };
    let real = |name: &str| Some(settings.real(name)).filter(|&value| value >= 0.0);
    let mut config = Config { vocabulary, ..preset.config };
    let sizes = [
        ("d_model", &mut config.d_model),
        ("d_kv", &mut config.d_kv),
        ("heads", &mut config.heads),
        ("d_ff", &mut config.d_ff),
        ("encoder_layers", &mut config.encoder_layers),
        ("decoder_layers", &mut config.decoder_layers),
    ];
    for (name, size) in sizes {
        *size = whole(name).unwrap_or(*size);
    }
    config.dropout = real("dropout").unwrap_or(config.dropout);
    config.initial_scale = real("initial_scale").unwrap_or(config.initial_scale);
    config.feed_forward = match settings.word("feed_forward") {
        "relu" => FeedForward::Relu,
        "gelu" => FeedForward::Gelu,
        "geglu" => FeedForward::Geglu,
        _ => config.feed_forward,
    };
    config.precision = match settings.word("precision") {
        "single" => Precision::Single,
        "selective" => Precision::Selective,
        "half" => Precision::Half,
        _ => config.precision,
    };
    config.tied_head = match settings.word("head") {
        "tied" => true,
        "untied" => false,
        _ => config.tied_head,
    };
    let experts = whole("experts");
    if let (None, Some(experts)) = (config.switch, experts) {
        config.switch = Some(Switch { experts, ..presets::SWITCH });
    }
    let Some(mut switch) = config.switch else {
        let of_switch = ["expert_frequency", "top_k"].into_iter().find(|name| whole(name).is_some());
        let of_switch = of_switch.or_else(|| {
            let names = ["capacity_factor", "auxiliary_weight", "z_weight", "jitter", "expert_dropout"];
            names.into_iter().find(|name| real(name).is_some())
        });
        return match of_switch {
            None => Ok(config),
            Some(name) => Err(Error::config(
                "model transformer",
                format!("`{name}` belongs to Switch layers, and the preset {} is dense", preset.name),
                "give `experts`, choose a Switch preset, or leave it out",
            )),
        };
    };
    switch.experts = experts.unwrap_or(switch.experts);
    switch.frequency = whole("expert_frequency").unwrap_or(switch.frequency);
    switch.top_k = whole("top_k").unwrap_or(switch.top_k);
    let reals = [
        ("capacity_factor", &mut switch.capacity_factor),
        ("auxiliary_weight", &mut switch.auxiliary_weight),
        ("z_weight", &mut switch.z_weight),
        ("jitter", &mut switch.jitter),
        ("expert_dropout", &mut switch.expert_dropout),
    ];
    for (name, value) in reals {
        *value = real(name).unwrap_or(*value);
    }
    config.switch = Some(switch);
    Ok(config)
}
