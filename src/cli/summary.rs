//! `summary`: the cells of a run in a table.

use super::{option_error, output};
use crate::error::{Error, Result};
use crate::experiment::write_whole;
use crate::report::runs;
use crate::report::summary::{self, Format};
use std::io::IsTerminal;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  parsimony summary runs/quickstart                 medians over seeds and folds, the best accuracy first
  parsimony summary runs/quickstart --all           a line per cell, with its seed and fold
  parsimony summary runs/quickstart --format json   an object per cell, every key of docs/file-formats.md
  parsimony summary runs/quickstart --format parquet --out cells.parquet";

/// Show what came of an experiment, as a table or for programs
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The folder of an experiment that was run
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// How to print it; all but `table` hold every cell
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// A line of the table for every cell, instead of medians over seeds and folds
    #[arg(long)]
    all: bool,
    /// A file to write instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.format == Format::Parquet && arguments.out.is_none() && std::io::stdout().is_terminal() {
        let remedy = "give --out FILE, or send the output to a file or a program";
        return Err(option_error("--format parquet", "it is not text, and this is a terminal", remedy));
    }
    let runs = runs::load(&arguments.folder)?;
    match &arguments.out {
        Some(path) => {
            let mut bytes = Vec::new();
            summary::write(&runs, arguments.format, arguments.all, &mut bytes).map_err(Error::io(path, "write"))?;
            write_whole(path, &bytes)
        }
        None => output::write(|out| summary::write(&runs, arguments.format, arguments.all, out)),
    }
}
