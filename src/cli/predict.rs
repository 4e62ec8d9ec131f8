//! `predict`: applies the weights of a cell to raw rows.

use super::{option_error, output};
use crate::data::open::{Choice, Source};
use crate::data::{ReadOptions, read_features};
use crate::device::Panels;
use crate::error::{DataError, Error, Result};
use crate::experiment::{CellConfig, CellFolder, read_json, read_weights, write_whole};
use crate::model::{Predictor, Weights};
use crate::workbench::Workbench;
use polars::prelude::{Column, CsvWriter, DataFrame, NamedFrom, ParquetWriter, SerWriter, Series};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
CELL is the folder of a cell, or the beginning of a cell's ID, which is looked for under runs/. The rows need the
columns that the model was trained on, by name where the file has names; a target column is ignored. Standardization
is part of the weights: give raw values.

The output has a row for each row of the input: `probability_CLASS` for every class, then `predicted`; of real targets
`predicted` alone; of an autoencoder its code, `code_1` and so on.

Examples:
  parsimony predict 3f9a --data new.csv --out scores.csv
  parsimony predict runs/quickstart/cells/3f9a0c12ab34cd56 --data new.parquet --out scores.parquet";

/// Score raw rows with the weights of a cell
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The folder of a cell, or the beginning of its ID
    cell: String,
    /// The rows: a file, or the name of a registered dataset
    #[arg(long, value_name = "FILE")]
    data: String,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TableFormat {
    Csv,
    Parquet,
}

impl TableFormat {
    /// The format that a file's name asks for.
    fn of(path: &Path) -> Self {
        if path.extension().is_some_and(|e| e == "parquet") { Self::Parquet } else { Self::Csv }
    }
}

/// Writes a table in a format, by default the one that the file's name asks for.
pub fn write_table(frame: &mut DataFrame, path: &Path, format: Option<TableFormat>) -> Result<()> {
    let mut bytes = Vec::new();
    match format.unwrap_or_else(|| TableFormat::of(path)) {
        TableFormat::Csv => CsvWriter::new(&mut bytes).finish(frame),
        TableFormat::Parquet => ParquetWriter::new(&mut bytes).finish(frame).map(drop),
    }
    .map_err(|error| Error::Numeric(format!("{}: {error}", path.display())))?;
    write_whole(path, &bytes)
}

/// The fitted weights of a cell.
pub fn weights(folder: &CellFolder) -> Result<Weights> {
    if folder.weights().exists() {
        return read_weights(&folder.weights());
    }
    let finding = match folder.read_result() {
        Some(result) => format!("the cell has no weights: {} ({})", result.status, result.reason),
        None => "the cell has no weights: it is not finished".to_owned(),
    };
    Err(DataError::new(folder.weights(), finding, "choose a cell that finished: `parsimony summary`").into())
}

pub fn run(workbench: &Workbench, arguments: &Arguments) -> Result<()> {
    let folder = find_cell(&arguments.cell, &arguments.runs)?;
    let config: CellConfig = read_json(&folder.config())?;
    let weights = weights(&folder)?;
    let predictor = (workbench.model(&config.model.name)?.predictor)(&weights)?;
    let features = features(workbench, &arguments.data, predictor.columns())?;
    let mut frame = predict(&*predictor, &features)?;
    write_table(&mut frame, &arguments.out, arguments.format)?;
    output::text(&format!("{} rows scored into {}\n", features.rows(), arguments.out.display()))
}

/// The folder of a cell given by its path or by the beginning of its ID.
pub fn find_cell(cell: &str, runs: &Path) -> Result<CellFolder> {
    let path = Path::new(cell);
    if path.join("config.json").exists() {
        return Ok(CellFolder::new(path));
    }
    let mut found = Vec::new();
    for experiment in folders(runs) {
        for folder in folders(&experiment.join("cells")) {
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !cell.is_empty() && name.starts_with(cell) && folder.join("config.json").exists() {
                found.push(folder);
            }
        }
    }
    match &found[..] {
        [one] => Ok(CellFolder::new(one)),
        [] => {
            let finding =
                format!("no cell {cell:?}: neither a folder with a config.json nor an ID under {}", runs.display());
            Err(option_error(
                "CELL",
                finding,
                "`parsimony summary runs/NAME` shows the IDs of cells; --runs looks elsewhere",
            ))
        }
        several => {
            let names: Vec<_> = several.iter().map(|path| path.display().to_string()).collect();
            Err(option_error("CELL", format!("{cell:?} is the beginning of several"), names.join("\n  ")))
        }
    }
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let mut folders: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

/// The columns wanted, in that order, of a file or a registered dataset.
fn features(workbench: &Workbench, data: &str, wanted: &[String]) -> Result<Panels> {
    let choice = Choice::from_argument(&workbench.datasets, data, ReadOptions::default())?;
    if let Source::File { path, read } = &choice.source {
        return Ok(read_features(path, read, wanted)?.0);
    }
    let table = choice.open(&workbench.datasets, &|_, _| ())?.data.into_table()?;
    if table.columns != wanted {
        let finding = format!("its {} columns are not the {} that the model takes", table.columns.len(), wanted.len());
        return Err(DataError::new(data, finding, format!("give rows with the columns {}", wanted.join(", "))).into());
    }
    Ok(table.features)
}

fn predict(predictor: &dyn Predictor, features: &Panels) -> Result<DataFrame> {
    let (classes, outputs) = (predictor.classes(), predictor.outputs());
    let values = predictor.predict(features, 0..features.rows())?;
    let rows = values.chunks_exact(outputs.len().max(1));
    let mut columns: Vec<Column> = outputs
        .iter()
        .enumerate()
        .map(|(output, name)| {
            let values: Vec<f64> = rows.clone().map(|row| row[output]).collect();
            Series::new(name.as_str().into(), values).into()
        })
        .collect();
    if !classes.is_empty() {
        // The first of several equally probable classes.
        let most_probable =
            |row: &[f64]| (1..row.len()).fold(0, |best, class| if row[class] > row[best] { class } else { best });
        let predicted: Vec<&str> = rows.map(|row| classes[most_probable(row)].as_str()).collect();
        columns.push(Series::new("predicted".into(), predicted).into());
    }
    DataFrame::new(features.rows(), columns).map_err(|error| Error::Numeric(format!("predictions: {error}")))
}
