//! Hidden verbs: what the runner starts in processes of their own.

use crate::error::Result;
use crate::experiment;
use crate::workbench::Workbench;
use std::path::PathBuf;

/// Run one cell (used by `run`)
#[derive(clap::Args)]
pub struct CellArguments {
    /// The folder of the cell
    #[arg(long)]
    dir: PathBuf,
    /// Bytes of memory to keep within
    #[arg(long)]
    memory: Option<u64>,
}

/// Solve the problem of a cell to high precision (used by `run`)
#[derive(clap::Args)]
pub struct ReferenceArguments {
    /// The folder of the experiment
    #[arg(long)]
    dir: PathBuf,
    /// The ID of a cell with this problem
    #[arg(long)]
    cell: String,
    /// Bytes of memory to keep within
    #[arg(long)]
    memory: Option<u64>,
}

pub fn run(workbench: &Workbench, arguments: &CellArguments) -> Result<()> {
    experiment::run_cell(workbench, &arguments.dir, arguments.memory).map(drop)
}

pub fn reference(workbench: &Workbench, arguments: &ReferenceArguments) -> Result<()> {
    experiment::solve_reference(workbench, &arguments.dir, &arguments.cell, arguments.memory)
}
