//! `check`: holds optimizers to what every optimizer must hold.

use super::{Format, output};
use crate::error::Result;
use crate::experiment::conformance::{self, Report, Verdict};
use crate::workbench::Workbench;
use std::fmt::Write as _;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  parsimony check sgd
  parsimony check                        every registered optimizer
  parsimony check irls --format json     for programs

An optimizer from another crate is checked by the program that registers it: `own_optimizer check NAME`. What each check
asks is in docs/adding-an-optimizer.md. Exit code 1 says that a check failed.";

/// Check optimizers: determinism, resume, optimum, capabilities, state, cost, NaN, settings
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Their names, as `parsimony list optimizers` shows them [default: all]
    #[arg(value_name = "OPTIMIZER")]
    names: Vec<String>,
    /// How to print the reports
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub fn run(workbench: &Workbench, arguments: &Arguments) -> Result<ExitCode> {
    let entries = match &arguments.names[..] {
        [] => workbench.optimizers.iter().collect(),
        names => names.iter().map(|name| workbench.optimizer(name)).collect::<Result<Vec<_>>>()?,
    };
    let mut reports = Vec::new();
    for entry in entries {
        for report in conformance::check(workbench, entry) {
            if arguments.format == Format::Table {
                output::text(&text(&report))?;
            }
            reports.push(report);
        }
    }
    match arguments.format {
        Format::Json => output::json(&reports)?,
        Format::Table => output::text(&summary(&reports))?,
    }
    Ok(ExitCode::from(u8::from(!reports.iter().all(Report::passed))))
}

fn text(report: &Report) -> String {
    let mut text = format!("{}\n", report.optimizer);
    for check in &report.checks {
        let word = match check.verdict {
            Verdict::Passed => "ok",
            Verdict::Failed => "FAIL",
            Verdict::Skipped => "skip",
        };
        let _ = writeln!(text, "  {word:<4}  {:<14}  {}", check.name, check.detail);
    }
    text.push('\n');
    text
}

fn summary(reports: &[Report]) -> String {
    let count = |verdict| reports.iter().map(|report| report.count(verdict)).sum::<usize>();
    let failed: Vec<_> = reports.iter().filter(|r| !r.passed()).map(|r| r.optimizer.as_str()).collect();
    let mut text = format!(
        "{} passed, {} failed, {} skipped",
        count(Verdict::Passed),
        count(Verdict::Failed),
        count(Verdict::Skipped)
    );
    if !failed.is_empty() {
        let _ = write!(text, ": {} must be mended", failed.join(", "));
    }
    text.push('\n');
    text
}
