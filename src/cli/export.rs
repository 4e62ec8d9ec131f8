//! `export`: writes the weights of a cell for another program.

use super::predict::{find_cell, weights};
use super::{option_error, output};
use crate::error::{Error, Result};
use crate::experiment::{write_weights, write_whole};
use crate::model::Weights;
use crate::model::transformer::hugging_face;
use std::path::PathBuf;

const EXAMPLES: &str = "\
CELL is the folder of a cell, or the beginning of a cell's ID, which is looked for under runs/.

hugging-face writes config.json and model.safetensors, which T5ForConditionalGeneration.from_pretrained or
SwitchTransformersForConditionalGeneration.from_pretrained of Python's `transformers` load. That library has no decoders without
an encoder, no gated experts and no second choices: docs/file-formats.md lists what differs.

Example:
  parsimony export 3f9a --format hugging-face --out my-model";

/// Write the weights of a cell for another program
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The folder of a cell, or the beginning of its ID
    cell: String,
    /// For which program
    #[arg(long, value_enum, default_value = "hugging-face")]
    format: Format,
    /// The folder to write; it must not exist, or be empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Where to look for the cell
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    HuggingFace,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let Format::HuggingFace = arguments.format;
    let weights = weights(&find_cell(&arguments.cell, &arguments.runs)?)?;
    let (config, context) = hugging_face::shape_of(&weights)?;
    let config = hugging_face::config_json(&config, context)?;
    let out = &arguments.out;
    if std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(option_error("--out", format!("{} is not empty", out.display()), "give a new folder"));
    }
    std::fs::create_dir_all(out).map_err(Error::io(out, "create"))?;
    let json = serde_json::to_vec_pretty(&config).map_err(|error| Error::Numeric(error.to_string()))?;
    write_whole(&out.join("config.json"), &json)?;
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    write_weights(&out.join("model.safetensors"), &Weights { metadata, ..weights })?;
    output::text(&format!("config.json and model.safetensors written into {}\n", out.display()))
}
