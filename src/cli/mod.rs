//! The command line: one file per verb.

mod cell;
mod check;
mod claims;
mod compare;
mod data;
mod doctor;
mod export;
mod import_trace;
mod info;
mod inspect;
mod list;
mod output;
mod params;
mod predict;
mod record;
mod report;
mod run;
mod summary;
mod tune;

use crate::error::{Error, Result};
use crate::experiment::say;
use crate::workbench::Workbench;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

const EXIT_CODES: &str = "\
Exit codes:
  0    success; for `run`: every cell finished, timed out as planned, or was skipped with its reason
  1    a run failed: at least one cell failed or diverged; for `tune`: an optimizer for which no trial came to
       anything; for `check`: a check failed
  2    an option or an experiment file cannot be used
  3    data cannot be used
  4    the file system or the network refused
  5    `claims verify`: no claim fails, but one is inconclusive
  130  interrupted

Examples:
  parsimony run quickstart              four optimizers on simulated HIGGS events
  parsimony summary runs/quickstart     what came of it
  parsimony report runs/quickstart      the same as figures
  parsimony list                        optimizers, models, datasets and experiments
  parsimony info irls                   what irls does and takes";

/// A workbench for one question: how much accuracy does an optimizer buy, per second and per parameter?
#[derive(Parser)]
#[command(name = "parsimony", version, after_help = EXIT_CODES, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Run(run::Arguments),
    Tune(tune::Arguments),
    Report(report::Arguments),
    Summary(summary::Arguments),
    Compare(compare::Arguments),
    Claims(claims::Arguments),
    Check(check::Arguments),
    ImportTrace(import_trace::Arguments),
    List(list::Arguments),
    Info(info::Arguments),
    Data(data::Arguments),
    Inspect(inspect::Arguments),
    Predict(predict::Arguments),
    Record(record::Arguments),
    Export(export::Arguments),
    Params(params::Arguments),
    Doctor(doctor::Arguments),
    #[command(hide = true)]
    Cell(cell::CellArguments),
    #[command(hide = true)]
    Reference(cell::ReferenceArguments),
}

/// Runs the command line on this process's arguments and says how it went.
#[must_use]
pub fn main(workbench: &Workbench) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(message) => {
            // Help goes to standard output, complaints to standard error; nobody may be listening to either.
            let _ = message.print();
            return ExitCode::from(u8::try_from(message.exit_code()).unwrap_or(2));
        }
    };
    match cli.verb.run(workbench) {
        Ok(code) => code,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("error: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

impl Verb {
    fn run(self, workbench: &Workbench) -> Result<ExitCode> {
        let done = |result: Result<()>| result.map(|()| ExitCode::SUCCESS);
        match self {
            Self::Run(arguments) => run::run(workbench, &arguments),
            Self::Tune(arguments) => tune::run(workbench, &arguments),
            Self::Report(arguments) => done(report::run(&arguments)),
            Self::Summary(arguments) => done(summary::run(&arguments)),
            Self::Compare(arguments) => done(compare::run(&arguments)),
            Self::Claims(arguments) => claims::run(workbench, &arguments),
            Self::ImportTrace(arguments) => done(import_trace::run(&arguments)),
            Self::Check(arguments) => check::run(workbench, &arguments),
            Self::List(arguments) => done(list::run(workbench, &arguments)),
            Self::Info(arguments) => done(info::run(workbench, &arguments)),
            Self::Data(arguments) => done(data::run(workbench, &arguments)),
            Self::Inspect(arguments) => done(inspect::run(workbench, &arguments)),
            Self::Predict(arguments) => done(predict::run(workbench, &arguments)),
            Self::Record(arguments) => done(record::run(workbench, &arguments)),
            Self::Export(arguments) => done(export::run(&arguments)),
            Self::Params(arguments) => done(params::run(&arguments)),
            Self::Doctor(arguments) => done(doctor::run(workbench, &arguments)),
            Self::Cell(arguments) => done(cell::run(workbench, &arguments)),
            Self::Reference(arguments) => done(cell::reference(workbench, &arguments)),
        }
    }
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Tables and text for people.
    #[default]
    Table,
    /// JSON for programs.
    Json,
}

/// The error about an option that is not usable.
fn option_error(option: &str, finding: impl std::fmt::Display, remedy: impl std::fmt::Display) -> Error {
    Error::config(option, finding, remedy)
}
