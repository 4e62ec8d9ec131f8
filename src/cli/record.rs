//! `record`: what a layer of a trained model makes of its data, as a table that another model can be fitted to.

use super::predict::{TableFormat, find_cell, weights, write_table};
use super::{option_error, output};
use crate::error::{Error, Result};
use crate::experiment::{self, CellConfig, read_json};
use crate::workbench::Workbench;
use polars::prelude::{Column, DataFrame, NamedFrom, Series};
use std::path::PathBuf;

const EXAMPLES: &str = "\
CELL is the folder of a cell, or the beginning of a cell's ID, which is looked for under runs/. LAYER is a feed-forward
layer of a Transformer: decoder.0 is the first of its decoder. The rows are the first tokens of the training text, in its order.

The table has the columns x0, x1, ... (the layer's inputs, after the norm) and y0, y1, ... (what it adds to the residual
stream). An experiment file reads it with path = \"pairs.parquet\", target = \"y*\".

Examples:
  parsimony record 3f9a --layer decoder.0 --rows 60000 --out pairs.parquet";

/// Write what a layer of a trained model makes of its data
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The folder of a cell, or the beginning of its ID
    cell: String,
    /// The layer
    #[arg(long)]
    layer: String,
    /// Rows to write
    #[arg(long, default_value_t = 60_000)]
    rows: usize,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Its format [default: by the file's name, else csv]
    #[arg(long, value_enum)]
    format: Option<TableFormat>,
    /// Where to look for the cell
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs: PathBuf,
}

pub fn run(workbench: &Workbench, arguments: &Arguments) -> Result<()> {
    if arguments.rows == 0 {
        return Err(option_error("--rows", "0 rows".to_owned(), "give at least 1"));
    }
    let folder = find_cell(&arguments.cell, &arguments.runs)?;
    let config: CellConfig = read_json(&folder.config())?;
    let weights = weights(&folder)?;
    let settings = experiment::model_settings(workbench, &config)?;
    let model = experiment::open_problem(workbench, &config, &settings)?.model;
    let Some(pairs) = model.layer_pairs(&weights, &arguments.layer, arguments.rows)? else {
        let finding = format!("the model {} has no layers that are recorded", config.model.name);
        return Err(option_error("CELL", finding, "choose a cell of a transformer"));
    };
    let column = |side: &str, values: &[f32], j: usize| {
        let values: Vec<f32> = values.iter().skip(j).step_by(pairs.width).copied().collect();
        Column::from(Series::new(format!("{side}{j}").as_str().into(), values))
    };
    let mut columns: Vec<Column> = (0..pairs.width).map(|j| column("x", &pairs.inputs, j)).collect();
    columns.extend((0..pairs.width).map(|j| column("y", &pairs.outputs, j)));
    let rows = pairs.inputs.len() / pairs.width.max(1);
    let mut frame = DataFrame::new(rows, columns)
        .map_err(|error| Error::Numeric(format!("{}: {error}", arguments.out.display())))?;
    write_table(&mut frame, &arguments.out, arguments.format)?;
    output::text(&format!("{rows} rows of {} recorded into {}\n", arguments.layer, arguments.out.display()))
}
