//! `params`: what a Transformer has and does, before any of it exists.

use super::{option_error, output};
use crate::error::Result;
use crate::model::transformer::accounting::{Accounting, Lengths, bytes};
use crate::model::transformer::config::{Config, Precision, Switch};
use crate::model::transformer::presets;
use serde_json::{Value, json};

const EXAMPLES: &str = "\
Examples:
  parsimony params switch-c
  parsimony params switch-base --experts 256 --precision bf16
  parsimony params mini-switch --format json
  parsimony params --format csv                    all presets

Parameters and floating-point operations are counted from the shape; nothing is allocated. Operations are those of one
sequence forwards, an addition and a multiplication being two; docs/parameter-accounting.md has both conventions and how they
compare with the published table.";

/// Count parameters, bytes and floating-point operations of a Transformer by its preset
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The preset [default: all, a line each]
    preset: Option<String>,
    /// Experts of each Switch layer, in place of the preset's
    #[arg(long, value_name = "N")]
    experts: Option<usize>,
    /// Symbols of the vocabulary, in place of the preset's
    #[arg(long, value_name = "N")]
    vocabulary: Option<usize>,
    /// Positions of the encoder [default: 512]
    #[arg(long, value_name = "TOKENS")]
    encoder_tokens: Option<u64>,
    /// Positions of the decoder [default: 114 behind an encoder, else 512]
    #[arg(long, value_name = "TOKENS")]
    decoder_tokens: Option<u64>,
    /// The precision whose bytes are printed [default: all]
    #[arg(long, value_enum)]
    precision: Option<Stored>,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: ParamsFormat,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum ParamsFormat {
    /// Text for people.
    #[default]
    Table,
    /// An object, or an array of them.
    Json,
    /// A line for each preset.
    Csv,
}

/// A precision in which parameters are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Stored {
    /// Four bytes each.
    F32,
    /// Two bytes each.
    Bf16,
    /// Routers four bytes, all else two.
    Selective,
}

impl Stored {
    const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::Selective];

    fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Selective => "selective",
        }
    }

    fn of(self) -> Precision {
        match self {
            Self::F32 => Precision::Single,
            Self::Bf16 => Precision::Half,
            Self::Selective => Precision::Selective,
        }
    }
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let names = match &arguments.preset {
        Some(name) => vec![presets::find(name)?.name],
        None => presets::NAMES.to_vec(),
    };
    let all = names.into_iter().map(|name| account(name, arguments)).collect::<Result<Vec<_>>>()?;
    let precisions = arguments.precision.map_or(Stored::ALL.to_vec(), |one| vec![one]);
    match (arguments.format, &all[..]) {
        (ParamsFormat::Json, [one]) if arguments.preset.is_some() => output::json(&object(one, &precisions)),
        (ParamsFormat::Json, several) => {
            output::json(&several.iter().map(|one| object(one, &precisions)).collect::<Vec<_>>())
        }
        (ParamsFormat::Csv, several) => output::text(&csv(several, &precisions)),
        (ParamsFormat::Table, [one]) if arguments.preset.is_some() => output::text(&text(one, &precisions)),
        (ParamsFormat::Table, several) => output::text(&overview(several)),
    }
}

/// The accounts of a preset with what the options change.
fn account(name: &str, arguments: &Arguments) -> Result<Accounting> {
    let mut config = presets::find(name)?.config;
    if let Some(vocabulary) = arguments.vocabulary {
        config.vocabulary = vocabulary;
    }
    if let Some(experts) = arguments.experts {
        let Some(switch) = config.switch else {
            let finding = format!("{experts} experts, and {name} has no Switch layer");
            return Err(option_error("--experts", finding, "name a preset that has, such as switch-base"));
        };
        config.switch = Some(Switch { experts, ..switch });
    }
    Accounting::new(name, &config, lengths(&config, arguments))
}

fn lengths(config: &Config, arguments: &Arguments) -> Option<Lengths> {
    let standard = Lengths::standard(config);
    let (encoder, decoder) = (arguments.encoder_tokens, arguments.decoder_tokens);
    (encoder.is_some() || decoder.is_some())
        .then(|| Lengths { encoder: encoder.unwrap_or(standard.encoder), decoder: decoder.unwrap_or(standard.decoder) })
}

fn object(accounting: &Accounting, precisions: &[Stored]) -> Value {
    let mut value = serde_json::to_value(accounting).unwrap_or_default();
    let of = |flops: f64| accounting.per_token(flops);
    let flops = accounting.flops;
    if let Value::Object(map) = &mut value {
        let stored =
            precisions.iter().map(|one| (one.name().to_owned(), bytes(&accounting.parameters, one.of()).into()));
        map.insert("bytes".into(), Value::Object(stored.collect()));
        map.insert(
            "flops_per_token".into(),
            json!({ "published": of(flops.published), "executed": of(flops.executed), "logits": of(flops.logits) }),
        );
    }
    value
}

/// Names and values of a line.
fn columns(accounting: &Accounting, precisions: &[Stored]) -> Vec<(String, String)> {
    let (p, f, l) = (&accounting.parameters, &accounting.flops, &accounting.lengths);
    let mut columns: Vec<(String, String)> = [
        ("preset", accounting.name.clone()),
        ("parameters_total", p.total.to_string()),
        ("parameters_active", p.active.to_string()),
        ("parameters_resident", p.resident.to_string()),
        ("parameters_one_expert", p.one_expert.to_string()),
        ("experts_of_a_layer", accounting.experts_of_a_layer.to_string()),
        ("switch_layers", accounting.switch_layers.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let stored = precisions.iter().map(|one| (format!("bytes_{}", one.name()), bytes(p, one.of()).to_string()));
    columns.extend(stored);
    columns.extend(
        [
            ("encoder_tokens", l.encoder.to_string()),
            ("decoder_tokens", l.decoder.to_string()),
            ("flops_published", f.published.to_string()),
            ("flops_executed", f.executed.to_string()),
            ("flops_logits", f.logits.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    columns
}

fn csv(all: &[Accounting], precisions: &[Stored]) -> String {
    let rows: Vec<_> = all.iter().map(|one| columns(one, precisions)).collect();
    let header = rows.iter().take(1).map(|row| row.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(","));
    let lines = rows.iter().map(|row| row.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(","));
    header.chain(lines).map(|line| line + "\n").collect()
}

/// A number in a unit that leaves it four digits: `1.571 T`.
fn scaled(value: f64) -> String {
    const UNITS: [(f64, &str); 4] = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    UNITS
        .iter()
        .find(|(unit, _)| value >= *unit)
        .map_or_else(|| format!("{value}"), |(unit, name)| format!("{:.4} {name}", value / unit))
}

fn overview(all: &[Accounting]) -> String {
    let rows = all.iter().map(|one| {
        [
            one.name.clone(),
            scaled(one.parameters.total as f64),
            scaled(one.parameters.active as f64),
            scaled(one.parameters.resident as f64),
            format!("{}B", scaled(2.0 * one.parameters.total as f64)),
            scaled(one.flops.published),
            scaled(one.flops.executed),
        ]
    });
    output::table(["preset", "parameters", "active", "resident", "bf16", "FLOPs published", "executed"], rows)
}

fn text(accounting: &Accounting, precisions: &[Stored]) -> String {
    let p = &accounting.parameters;
    let mut rows: Vec<[String; 3]> = Vec::new();
    let mut count = |name: &str, value: u64, note: &str| {
        if value > 0 {
            rows.push([name.to_owned(), value.to_string(), note.to_owned()]);
        }
    };
    count("parameters", p.total, "");
    count("  active per token", p.active, "all but the experts that a token is not sent to");
    count("  resident", p.resident, "all but the experts");
    count("  embedding", p.embedding, if p.head == 0 { "the head too" } else { "" });
    count("  head", p.head, "");
    count("  attention", p.attention, "");
    count("  feed-forward, dense", p.dense, "");
    count("  routers", p.routers, "");
    count(
        "  experts",
        p.experts,
        &format!("{} Switch layers of {}", accounting.switch_layers, accounting.experts_of_a_layer),
    );
    count("  one expert", p.one_expert, "");
    count("  norms and positions", p.norms + p.positions, "");
    for &one in precisions {
        let all = bytes(p, one.of());
        let each = if one == Stored::F32 { 4 } else { 2 } * p.one_expert;
        let note = if each > 0 {
            format!("{}B, an expert {}B", scaled(all as f64), scaled(each as f64))
        } else {
            format!("{}B", scaled(all as f64))
        };
        rows.push([format!("bytes, {}", one.name()), all.to_string(), note]);
    }
    let lengths = match (accounting.lengths.encoder, accounting.lengths.decoder) {
        (encoder, 0) => format!("{encoder} tokens"),
        (0, decoder) => format!("{decoder} tokens"),
        (encoder, decoder) => format!("{encoder} tokens encoded, {decoder} decoded"),
    };
    let flops = accounting.flops;
    for (name, value, note) in [
        ("published convention", flops.published, "weights met in the own stack and pairs of attention"),
        ("as executed", flops.executed, "also routers, and keys and values of all encoded tokens"),
        ("logits of the head", flops.logits, "in neither"),
    ] {
        rows.push([format!("FLOPs per sequence, {name}"), scaled(value), note.to_owned()]);
        rows.push([format!("FLOPs per token, {name}"), scaled(accounting.per_token(value)), String::new()]);
    }
    format!("{}; a sequence is {lengths}\n\n{}", accounting.name, output::table(["", "", ""], rows))
}
