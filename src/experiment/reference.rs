//! The smallest objective of each convex problem, against which plots measure suboptimality.
//!
//! It comes from IRLS with sums in `f64`, run to its numerical limit, or, where IRLS does not fit, from a long run of
//! ADMM; never larger than the smallest objective that any cell has seen. Each solve has a process of its own, after all
//! cells, outside every clock.

use super::interrupt;
use super::plan::Plan;
use super::problem;
use super::progress::{Progress, say};
use super::record::{CellConfig, CellFolder, Values, read_json, write_json};
use super::runner::Process;
use super::trace;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::optim::{OptimizerEntry, Step};
use crate::oracle::{Oracle, SettingValue, Settings, Stream, stream};
use crate::workbench::Workbench;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, Instant};

/// A reference optimum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// Hash of what is minimized.
    pub problem: String,
    /// Its smallest value, nats per row.
    pub objective: f64,
    /// Infinity norm of the gradient there, where it is known.
    pub gradient_norm: Option<f64>,
    /// How it was found.
    pub method: String,
}

/// An optimizer that solves to high precision.
struct Solver {
    name: &'static str,
    settings: &'static [(&'static str, f64)],
    most_steps: u64,
}

/// In order of preference.
const SOLVERS: [Solver; 2] = [
    Solver { name: "irls", settings: &[("tolerance", 1e-14)], most_steps: 200 },
    Solver {
        name: "admm",
        settings: &[("absolute_tolerance", 1e-13), ("relative_tolerance", 1e-13), ("local_accuracy", 1e-3)],
        most_steps: 20_000,
    },
];

/// The method of a reference that no solver found: better than nothing, and looked for again in the next run.
const SMALLEST_SEEN: &str = "the smallest objective that a cell of this experiment has seen";

impl Reference {
    /// The reference in a file, if a solver found it.
    fn solved(path: &Path) -> Option<Self> {
        read_json(path).ok().filter(|reference: &Self| reference.method != SMALLEST_SEEN)
    }
}

/// The longest solve.
const LIMIT: Duration = Duration::from_secs(600);

/// Solves every convex problem that has no reference yet, and looks again at those of which a cell has recorded
/// something since; true if a solve was stopped.
pub(super) fn solve_all(folder: &Path, plan: &Plan, memory: Option<u64>, progress: &Progress) -> Result<bool> {
    let references = folder.join("references");
    std::fs::create_dir_all(&references).map_err(Error::io(&references, "create"))?;
    for problem in plan.problems.iter().filter(|(_, convex)| **convex).map(|(problem, _)| problem) {
        let path = references.join(format!("{problem}.json"));
        let cells: Vec<_> = plan.cells.iter().filter(|cell| cell.problem == *problem).collect();
        let Some(cell) = cells.first() else { continue };
        if Reference::solved(&path).is_some() && is_newest(&path, folder, &cells) {
            continue;
        }
        progress.other(&format!("reference optimum of {} on {}", cell.model.label, cell.dataset.label));
        let log = references.join("log.txt");
        let arguments = [("--dir", folder.as_os_str()), ("--cell", OsStr::new(&cell.cell))];
        let mut process = Process::start("reference", &arguments, memory, cell.threads, &log)?;
        let end = process.attend(Some(LIMIT + Duration::from_secs(300)), |_| ())?;
        if interrupt::count() > 0 || end.status.code() == Some(i32::from(Error::Interrupted.exit_code())) {
            return Ok(true);
        }
        if !end.status.success() {
            progress.note(&format!("no reference optimum of {problem}: see {}", log.display()));
        }
    }
    Ok(false)
}

/// Whether a reference was written after all traces of these cells: then it has seen them.
fn is_newest(reference: &Path, folder: &Path, cells: &[&CellConfig]) -> bool {
    let modified = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    let Some(written) = modified(reference) else { return false };
    let traces = cells.iter().map(|cell| CellFolder::new(folder.join("cells").join(&cell.cell)).trace());
    traces.filter_map(|trace| modified(&trace)).all(|trace| trace < written)
}

/// Solves the problem of a cell and writes `references/PROBLEM.json`.
///
/// # Errors
/// If the cell's record or dataset cannot be read, or nothing finite was found. [`Error::Interrupted`] if the user
/// stopped it: nothing is written then.
pub fn solve(workbench: &Workbench, folder: &Path, cell: &str, memory: Option<u64>) -> Result<()> {
    interrupt::install()?;
    problem::limit_memory(memory);
    let config: CellConfig = read_json(&CellFolder::new(folder.join("cells").join(cell)).config())?;
    let path = folder.join("references").join(format!("{}.json", config.problem));
    let mut best = match Reference::solved(&path) {
        Some(reference) => Some(reference),
        None => solve_problem(workbench, &config)?,
    };
    if let Some(seen) = smallest_seen(folder, &config.problem)?
        && best.as_ref().is_none_or(|best| seen < best.objective)
    {
        // Where a solve came as far, the difference is rounding: the method stays its own.
        let method = match &best {
            Some(best) if best.objective - seen <= 1e-7 * seen.abs() => best.method.clone(),
            _ => SMALLEST_SEEN.to_owned(),
        };
        let gradient_norm = best.and_then(|best| best.gradient_norm);
        best = Some(Reference { problem: config.problem.clone(), objective: seen, gradient_norm, method });
    }
    match best {
        Some(best) => write_json(&path, &best),
        None => Err(Error::Numeric(format!("{}: no finite objective was found", config.problem))),
    }
}

fn solve_problem(workbench: &Workbench, config: &CellConfig) -> Result<Option<Reference>> {
    let entry = workbench.model(&config.model.name)?;
    let mut values = config.model.settings.clone();
    if entry.settings.iter().any(|setting| setting.name == "accuracy") {
        values.insert("accuracy".into(), SettingValue::Word("high".into()));
    }
    let settings = Settings::check("reference", entry.settings, &values)?;
    let opened = problem::open(workbench, config, &settings)?;
    for Solver { name, settings, most_steps } in SOLVERS {
        let Ok(entry) = workbench.optimizer(name) else { continue };
        let chosen = solver_settings(entry, settings)?;
        let lacking = entry.needs_with(&chosen).into_iter().find_map(|need| opened.model.offers(need).err());
        if let Some(reason) = lacking {
            say(format_args!("{name} does not fit: {reason}"));
            continue;
        }
        match solve_with(&*opened.model, entry, settings, most_steps, config) {
            Ok(reference) => return Ok(Some(reference)),
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(error) => say(format_args!("{name}: {error}")),
        }
    }
    Ok(None)
}

/// A solver's settings, as far as the optimizer of its name has them.
fn solver_settings(entry: &OptimizerEntry, settings: &[(&str, f64)]) -> Result<Settings> {
    let known = settings.iter().filter(|(name, _)| entry.settings.iter().any(|setting| setting.name == *name));
    let values: Values = known.map(|(name, value)| ((*name).to_owned(), SettingValue::Real(*value))).collect();
    Settings::check("reference", entry.settings, &values)
}

fn solve_with(
    model: &dyn Model,
    entry: &OptimizerEntry,
    settings: &[(&str, f64)],
    most_steps: u64,
    config: &CellConfig,
) -> Result<Reference> {
    let started = Instant::now();
    let settings = solver_settings(entry, settings)?;
    let mut optimizer = (entry.build)(&settings)?;
    let mut parameters = model.initial(&mut stream(config.seed, Stream::Initialization));
    let mut oracle = Oracle::new(model, entry.name, &entry.needs_with(&settings), config.seed, 1);
    optimizer.start(&mut oracle, &parameters)?;
    let mut ending = "the limit of steps or time was reached".to_owned();
    while oracle.step() < most_steps && started.elapsed() < LIMIT {
        if interrupt::count() > 0 {
            return Err(Error::Interrupted);
        }
        oracle.begin_step();
        match optimizer.step(&mut oracle, &mut parameters)? {
            Step::Continue => {}
            Step::Converged(reason) | Step::Stopped(reason) => {
                ending = reason;
                break;
            }
        }
    }
    let (objective, gradient_norm) = model.objective(optimizer.reported(&parameters))?;
    let objective = oracle.finite("the objective", objective)?;
    let method = format!("{} with sums in f64, {} steps: {ending}", entry.name, oracle.step());
    Ok(Reference { problem: config.problem.clone(), objective, gradient_norm, method })
}

/// The smallest objective in the traces of a problem's cells.
fn smallest_seen(folder: &Path, problem: &str) -> Result<Option<f64>> {
    let cells = folder.join("cells");
    let mut smallest: Option<f64> = None;
    for entry in std::fs::read_dir(&cells).map_err(Error::io(&cells, "read"))? {
        let cell = CellFolder::new(entry.map_err(Error::io(&cells, "read"))?.path());
        let of_problem = read_json::<CellConfig>(&cell.config()).is_ok_and(|config| config.problem == problem);
        if of_problem
            && cell.trace().exists()
            && let Some(value) = trace::smallest(&cell.trace(), "objective")?
        {
            smallest = Some(smallest.map_or(value, |known| known.min(value)));
        }
    }
    Ok(smallest)
}
