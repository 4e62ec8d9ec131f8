//! `compare`: two runs, pair by pair.

use super::output;
use crate::error::Result;
use crate::report::{compare, runs};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  parsimony compare runs/quickstart old/quickstart    the same experiment before and after a change, or on two machines

Cells with the same dataset, split, model, optimizer and seed make a pair. Intervals are of 95 per cent, drawn anew from
pairs and test rows; times are compared as ratios, with their standard deviation over pairs.";

/// Compare two runs pair by pair, with intervals, and show what differs in configuration and environment
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The folder of a run
    #[arg(value_name = "RUN")]
    first: PathBuf,
    /// The folder of another
    #[arg(value_name = "RUN")]
    second: PathBuf,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let (first, second) = (runs::load(&arguments.first)?, runs::load(&arguments.second)?);
    output::text(&compare::text(&first, &second)?)
}
