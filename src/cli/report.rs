//! `report`: draws a run.

use super::output;
use crate::error::Result;
use crate::report::{runs, write_report};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  parsimony report runs/quickstart                  page, figures and summary.md in plots/quickstart
  parsimony report runs/* --out paper/figures       several runs, elsewhere

Each run gets a folder, named like its own: report.html, one page with verdicts, interactive curves and tables that works
offline; its figures, as SVG and as PNG; and a summary.md that shows them under the tables. A run that is still going on is drawn as far as it has come.";

/// Draw runs: figures as SVG and PNG, and a page with the tables
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Folders of experiments that were run
    #[arg(value_name = "DIR", required = true)]
    folders: Vec<PathBuf>,
    /// The folder to write to: each run gets a folder in it
    #[arg(long, value_name = "DIR", default_value = "plots")]
    out: PathBuf,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    for folder in &arguments.folders {
        let written = write_report(&runs::load(folder)?, &arguments.out)?;
        output::text(&written.iter().map(|path| format!("{}\n", path.display())).collect::<String>())?;
    }
    Ok(())
}
