//! `tune`: searches good settings for every optimizer of an experiment, each with the same trials and seconds.

use super::run::{load, show, size, with_import_bar};
use super::{Format, output};
use crate::device::DeviceWish;
use crate::error::Result;
use crate::experiment::tune::{Overrides, Record, Tuned, Tuning};
use crate::experiment::{self, Options, count_interruptions, say};
use crate::report::write_sensitivity;
use crate::workbench::Workbench;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  parsimony tune experiments/higgs-network.toml --trials 16 --seconds 20
  parsimony tune mine.toml --dry-run                 what would be searched, and every trial
  parsimony run runs/mine-tune/chosen.toml           the experiment with the chosen settings

Every optimizer of the file gets the same number of trials and the same seconds for each: its default settings first, then
points of a scrambled Sobol sequence over the ranges that `parsimony info NAME` shows or that the file's [tune] table
gives. Settings are chosen on validation rows; trials are given no test rows. Interrupted or killed, the same command goes
on and loses no finished trial. The folder then holds chosen.toml, tune.json and a figure for each optimizer. Exit code 1
says that no trial of some optimizer came to a finite value.";

/// Search settings for every optimizer of an experiment, with equal trials and seconds, on validation rows
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// An experiment file, or the name of an experiment in this program
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Trials of each optimizer [default: the file's, else 16]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=4096))]
    trials: Option<u16>,
    /// Seconds of training of each trial [default: the file's in [tune], else those of its budget]
    #[arg(long, value_parser = seconds)]
    seconds: Option<f64>,
    /// Seed of the search [default: the file's, else 1]
    #[arg(long)]
    seed: Option<u32>,
    /// The folder to write to [default: runs/NAME-tune]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Show what would be searched, and every trial, without running anything
    #[arg(long)]
    dry_run: bool,
    /// Run finished trials again
    #[arg(long)]
    force: bool,
    /// Keep every trial within so much memory, as 1GiB or 800MiB [default: what is available]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,
    /// Where models that can live on a GPU do, as for `run` [default: the file's, else cpu]
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceWish>,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
    /// How to print the outcome or, with --dry-run, the plan
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

fn seconds(text: &str) -> std::result::Result<f64, String> {
    let number = text.parse().ok().filter(|seconds: &f64| seconds.is_finite() && *seconds > 0.0);
    number.ok_or_else(|| "write a number of seconds above 0".into())
}

pub fn run(workbench: &Workbench, arguments: &Arguments) -> Result<ExitCode> {
    let mut spec = load(workbench, &arguments.file)?;
    spec.device = arguments.device.unwrap_or(spec.device);
    let overrides = Overrides {
        trials: arguments.trials.map(usize::from),
        seconds: arguments.seconds,
        seed: arguments.seed.map(u64::from),
    };
    let tuning = Tuning::new(&spec, workbench, &overrides)?;
    let folder = arguments.out.clone().unwrap_or_else(|| Path::new("runs").join(&tuning.spec.name));
    let plan = with_import_bar(|progress| tuning.plan(workbench, progress))?;
    if arguments.dry_run {
        if arguments.format == Format::Table {
            output::text(&output::table(["optimizer", "trials", "searched"], tuning.description()))?;
            output::text("\n")?;
        }
        show(&plan, &folder, arguments.format)?;
        return Ok(ExitCode::SUCCESS);
    }
    count_interruptions()?;
    let Arguments { force, quiet, memory, .. } = *arguments;
    let outcome = experiment::run(&tuning.spec, &plan, &Options { folder: folder.clone(), force, quiet, memory })?;
    if outcome.interrupted {
        let how = if force { "it again without --force" } else { "the same command again" };
        say(format_args!("interrupted; run {how} to go on"));
        return Ok(ExitCode::from(130));
    }
    let (record, chosen) = tuning.conclude(&folder, &plan, workbench)?;
    let figures = write_sensitivity(&folder)?;
    match arguments.format {
        Format::Json => output::json(&record)?,
        Format::Table => {
            output::text(&table(&record))?;
            let files: Vec<_> = figures.iter().map(|path| format!("{}\n", path.display())).collect();
            output::text(&format!("\n{}\n\n{}\n{}", record.reproducibility(), chosen.display(), files.concat()))?;
        }
    }
    Ok(ExitCode::from(u8::from(record.optimizers.iter().any(|tuned| tuned.chosen.is_none()))))
}

fn table(record: &Record) -> String {
    let rows = record.optimizers.iter().map(|tuned| {
        let chosen = tuned.chosen.map(|index| &tuned.trials[index]);
        let settings = chosen.map_or_else(
            || "no trial came to a finite value".to_owned(),
            |trial| match trial.settings.is_empty() {
                true => "nothing to search".to_owned(),
                false => {
                    let settings = trial.settings.iter().map(|(name, value)| format!("{name} = {value}"));
                    settings.collect::<Vec<_>>().join(", ")
                }
            },
        );
        [
            tuned.label.clone(),
            tuned.trials.len().to_string(),
            values(tuned, chosen.map(|trial| &trial.values[..])),
            settings,
        ]
    });
    output::table(["optimizer", "trials", record.metric.as_str(), "chosen settings"], rows)
}

/// The chosen trial's values, and beside them those of the first trial, which has the defaults.
fn values(tuned: &Tuned, chosen: Option<&[Option<f64>]>) -> String {
    let show = |values: &[Option<f64>]| {
        let values: Vec<_> = values.iter().map(|v| v.map_or("–".to_owned(), |v| format!("{v:.5}"))).collect();
        values.join(", ")
    };
    match (chosen, tuned.trials.first()) {
        (Some(chosen), Some(first)) if tuned.chosen != Some(0) => {
            format!("{} (first trial {})", show(chosen), show(&first.values))
        }
        (Some(chosen), _) => show(chosen),
        (None, _) => "–".to_owned(),
    }
}
