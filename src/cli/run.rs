//! `run`: plans an experiment and runs what is not done yet.

use super::{Format, output};
use crate::claim::Verdict;
use crate::device::cuda::probe;
use crate::device::{DeviceName, DeviceWish};
use crate::error::Result;
use crate::experiment::{
    self, CellConfig, Options, Outcome, Plan, Spec, State, count_interruptions, identity, say, state_of, write_json,
};
use crate::report::{runs, verdict};
use crate::workbench::Workbench;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  parsimony run quickstart                           one of the experiments in this program (`parsimony list`)
  parsimony run experiments/higgs-logistic.toml --dry-run
  parsimony run mine.toml --out /tmp/mine            another folder than runs/NAME
  parsimony run mine.toml --force                    run finished cells again
  parsimony run mine.toml --device cuda              models on the first GPU

An experiment that was interrupted, by Ctrl-C or by a crash, goes on where it was when it is run again (without --force).
Pairs that do not fit are skipped with the reason, which is no failure; a model whose settings none of
the datasets allow is refused before anything runs. Exit code 1 says that at least one cell failed or diverged; 130 that it, or a cell, was interrupted.";

/// Run an experiment: every cell of its grid in a process of its own
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// An experiment file, or the name of an experiment in this program
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The folder to write to [default: runs/NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Show the cells and what would be skipped, and why, without running anything
    #[arg(long)]
    dry_run: bool,
    /// Run finished cells again
    #[arg(long)]
    force: bool,
    /// Keep every cell within so much memory, as 1GiB or 800MiB: of a larger dataset, what does not fit is brought in
    /// piece by piece in every pass [default: what is available]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,
    /// Where models that can live on a GPU do: cpu, cuda (the first GPU), cuda:N, or auto, a GPU if there is one that can be
    /// used [default: the file's, else cpu]
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceWish>,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
    /// How --dry-run shows the plan
    #[arg(long, value_enum, default_value_t, requires = "dry_run")]
    format: Format,
}

/// The smallest memory that makes sense: what a process takes itself, and some data.
const LEAST_MEMORY: u64 = 256 << 20;

/// A number of bytes with a unit: `1GiB`, `800 MiB`, `2GB`.
pub fn size(text: &str) -> std::result::Result<u64, String> {
    const UNITS: [(&str, f64); 6] = [
        ("KiB", 1024.0),
        ("MiB", 1_048_576.0),
        ("GiB", 1_073_741_824.0),
        ("MB", 1e6),
        ("GB", 1e9),
        ("TiB", 1_099_511_627_776.0),
    ];
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[number.len()..];
    let factor = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor);
    let bytes = match (number.trim().parse::<f64>(), factor) {
        (Ok(number), Some(factor)) if number > 0.0 => number * factor,
        _ => return Err("write a number and a unit, as 1GiB, 800MiB or 2GB".into()),
    };
    if bytes < LEAST_MEMORY as f64 {
        return Err(format!("a cell takes {} MiB at least", LEAST_MEMORY >> 20));
    }
    Ok(bytes as u64)
}

pub fn run(workbench: &Workbench, arguments: &Arguments) -> Result<ExitCode> {
    let mut spec = load(workbench, &arguments.file)?;
    spec.device = arguments.device.unwrap_or(spec.device);
    let folder = arguments.out.clone().unwrap_or_else(|| Path::new("runs").join(&spec.name));
    if arguments.dry_run {
        let plan = with_import_bar(|progress| Plan::new(&spec, workbench, progress))?;
        show(&plan, &folder, arguments.format)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Arguments { force, quiet, memory, .. } = *arguments;
    let (outcome, verdict) = run_and_judge(workbench, &spec, &folder, force, quiet, memory)?;
    if let Some(verdict) = verdict {
        output::text(&verdict::text(&verdict))?;
    }
    if outcome.interrupted {
        // With --force, the same command would begin anew.
        let how = if arguments.force { "it again without --force" } else { "the same command again" };
        say(format_args!("interrupted; run {how} to go on"));
        return Ok(ExitCode::from(130));
    }
    Ok(ExitCode::from(u8::from(outcome.failed + outcome.diverged > 0)))
}

/// Plans an experiment, runs what is not done, says how it went and, where it states expectations, judges its claim.
pub fn run_and_judge(
    workbench: &Workbench,
    spec: &Spec,
    folder: &Path,
    force: bool,
    quiet: bool,
    memory: Option<u64>,
) -> Result<(Outcome, Option<Verdict>)> {
    let plan = with_import_bar(|progress| Plan::new(spec, workbench, progress))?;
    if spec.device == DeviceWish::Auto && !quiet {
        say(format_args!("device auto: {}", what_auto_is(&plan)));
    }
    count_interruptions()?;
    let options = Options { folder: folder.to_owned(), force, quiet, memory };
    let outcome = experiment::run(spec, &plan, &options)?;
    if !quiet {
        for absent in &plan.absent {
            say(format_args!("left out: {}: {}", absent.dataset, absent.reason));
        }
        say(format_args!(
            "{} run, {} done before, {} skipped{}{}: {}",
            counted(outcome.run),
            outcome.reused,
            plan.skipped.len(),
            note(outcome.diverged, "diverged"),
            note(outcome.failed, "failed"),
            folder.display()
        ));
    }
    let verdict = if outcome.interrupted { None } else { judge(spec, folder)? };
    Ok((outcome, verdict))
}

/// Where `auto` puts the cells of a plan, and why not on a GPU.
fn what_auto_is(plan: &Plan) -> String {
    match plan.cells.iter().find(|cell| cell.device != DeviceName::Cpu) {
        Some(cell) => format!("{} for models that can live on a GPU", cell.device),
        None => {
            let obstacle = probe().obstacle.unwrap_or_else(|| "no model of this experiment can live on a GPU".into());
            format!("the CPU, because {obstacle}")
        }
    }
}

/// Judges the claim of a run, if it states expectations, and keeps the verdict in `verdict.json`.
fn judge(spec: &Spec, folder: &Path) -> Result<Option<Verdict>> {
    if spec.claim.expectations.is_empty() {
        return Ok(None);
    }
    let mut verdict = verdict::verdict(&runs::load(folder)?)?;
    if let Some(verdict) = &mut verdict {
        verdict.experiment = Some(identity(&spec.text));
        write_json(&folder.join("verdict.json"), verdict)?;
    }
    Ok(verdict)
}

fn counted(cells: usize) -> String {
    format!("{cells} {}", if cells == 1 { "cell" } else { "cells" })
}

fn note(count: usize, what: &str) -> String {
    if count == 0 { String::new() } else { format!(", {count} {what}") }
}

/// The experiment in a file or, where there is no such file, the one of this name in this program.
pub fn load(workbench: &Workbench, file: &Path) -> Result<Spec> {
    let name = file.to_string_lossy();
    match super::list::EXPERIMENTS.iter().find(|(known, _)| *known == name) {
        Some((name, text)) if !file.exists() => Spec::parse(text, Path::new(&format!("{name}.toml")), workbench),
        _ => Spec::load(file, workbench),
    }
}

/// Plans, with a bar while a large dataset is imported; `plan` is told where to say how far that is.
pub fn with_import_bar(plan: impl FnOnce(&dyn Fn(u64, u64)) -> Result<Plan>) -> Result<Plan> {
    let bar = ProgressBar::hidden();
    if let Ok(style) = ProgressStyle::with_template("importing {bar:24} {bytes} of {total_bytes}, {eta} left") {
        bar.set_style(style);
    }
    let progress = |done: u64, total: u64| {
        if bar.is_hidden() {
            bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
        }
        bar.set_length(total);
        bar.set_position(done);
    };
    let plan = plan(&progress);
    bar.finish_and_clear();
    plan
}

pub fn show(plan: &Plan, folder: &Path, format: Format) -> Result<()> {
    if format == Format::Json {
        return output::json(plan);
    }
    let state = |cell: &CellConfig| match state_of(folder, cell) {
        State::Done => "done",
        State::GoesOn => "goes on",
        State::New => "to run",
    };
    let names = experiment::Names::new(plan.cells.iter());
    let rows = plan.cells.iter().map(|cell| {
        [
            cell.cell.clone(),
            match cell.fold {
                Some(fold) => format!("{} fold {fold}", cell.dataset.label),
                None => cell.dataset.label.clone(),
            },
            names.model(cell),
            cell.optimizer.label.clone(),
            names.hyperparameters(cell),
            cell.seed.to_string(),
            cell.budget.to_string(),
            state(cell).to_owned(),
        ]
    });
    let mut text =
        output::table(["cell", "dataset", "model", "optimizer", "hyperparameters", "seed", "budget", "state"], rows);
    let on_gpus = plan.cells.iter().filter(|cell| cell.device != DeviceName::Cpu).count();
    let on_gpus = if on_gpus == 0 { String::new() } else { format!(", {on_gpus} on a GPU") };
    text.push_str(&format!("\n{} in {}{on_gpus}\n", counted(plan.cells.len()), folder.display()));
    if !plan.skipped.is_empty() {
        let rows = plan.skipped.iter().map(|skipped| {
            let cell = &skipped.cell;
            [cell.dataset.label.clone(), cell.model.label.clone(), cell.optimizer.label.clone(), skipped.reason.clone()]
        });
        text.push_str("\nSkipped, because the parts do not fit:\n");
        text.push_str(&output::table(["dataset", "model", "optimizer", "reason"], rows));
    }
    if !plan.absent.is_empty() {
        let rows = plan.absent.iter().map(|absent| [absent.dataset.clone(), absent.reason.clone()]);
        text.push_str("\nLeft out, because they are not here:\n");
        text.push_str(&output::table(["dataset", "reason"], rows));
    }
    output::text(&text)
}
