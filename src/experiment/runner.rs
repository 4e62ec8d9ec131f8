//! Runs a plan: one process per cell, one after another; finished cells are not run twice, interrupted ones go on.

use super::checkpoint::Checkpoint;
use super::import;
use super::interrupt;
use super::message::Message;
use super::plan::Plan;
use super::progress::{Names, Progress};
use super::record::{CellConfig, CellFolder, CellResult, Status, read_json, remove_if_there, write_json, write_whole};
use super::reference;
use super::spec::Spec;
use crate::error::{Error, Result};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How an experiment is to be run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder of the experiment.
    pub folder: PathBuf,
    /// Run every cell anew, finished or not.
    pub force: bool,
    /// Say nothing while running.
    pub quiet: bool,
    /// Bytes of memory that a cell is to keep within.
    pub memory: Option<u64>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Cells that were run now.
    pub run: usize,
    /// Cells that had been run before.
    pub reused: usize,
    /// Cells, of both kinds, that failed.
    pub failed: usize,
    /// Cells, of both kinds, that diverged.
    pub diverged: usize,
    /// Whether the user stopped it, or one of its processes.
    pub interrupted: bool,
}

/// What is to be done about a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing: its result stands.
    Done,
    /// It goes on from its checkpoint.
    GoesOn,
    /// It starts from the beginning.
    New,
}

/// What is to be done about a cell, by what lies in its folder.
#[must_use]
pub fn state_of(folder: &Path, config: &CellConfig) -> State {
    let folder = CellFolder::new(cell_path(folder, &config.cell));
    let old: Option<CellConfig> = read_json(&folder.config()).ok();
    let old_seconds = old.and_then(|config| config.budget.seconds).unwrap_or(f64::INFINITY);
    let seconds = config.budget.seconds.unwrap_or(f64::INFINITY);
    let resumable = || match Checkpoint::read(&folder.checkpoint(), &config.cell) {
        // One from beyond the budget, which has become smaller since, would tell of steps that the budget does not buy.
        Some(checkpoint) if checkpoint.seconds.training < seconds => State::GoesOn,
        _ => State::New,
    };
    let Some(result) = folder.read_result() else { return resumable() };
    match result.status {
        // Under a smaller budget it would have timed out.
        Status::Finished if result.train_seconds.is_some_and(|used| used > seconds) => State::New,
        Status::Finished | Status::Diverged => State::Done,
        Status::TimedOut if seconds == old_seconds => State::Done,
        Status::TimedOut if seconds < old_seconds => State::New,
        Status::TimedOut | Status::Failed | Status::Interrupted => resumable(),
        Status::Skipped => State::New,
    }
}

fn cell_path(folder: &Path, id: &str) -> PathBuf {
    folder.join("cells").join(id)
}

/// Runs what is not done yet.
///
/// # Errors
/// If the experiment's folder cannot be written, or another process is running in it.
pub fn run(spec: &Spec, plan: &Plan, options: &Options) -> Result<Outcome> {
    interrupt::install()?;
    let folder = &options.folder;
    create(&folder.join("cells"))?;
    let _lock = lock(folder)?;
    set_aside(folder, plan)?;
    write_whole(&folder.join("experiment.toml"), spec.text.as_bytes())?;
    write_json(&folder.join("plan.json"), plan)?;
    for skipped in &plan.skipped {
        let cell = CellFolder::new(cell_path(folder, &skipped.cell.cell));
        clear(&cell)?;
        create(cell.path())?;
        write_json(&cell.config(), &skipped.cell)?;
        write_json(&cell.result(), &CellResult::bare(&skipped.cell, Status::Skipped, skipped.reason.as_str()))?;
    }

    let mut outcome = Outcome::default();
    let mut progress = Progress::new(Names::new(plan.cells.iter()), plan.cells.len(), options.quiet);
    for config in &plan.cells {
        let cell = CellFolder::new(cell_path(folder, &config.cell));
        let state = if options.force { State::New } else { state_of(folder, config) };
        let result = match (state, cell.read_result()) {
            (State::Done, Some(result)) => relabel(&cell, config, result)?,
            _ => run_cell(config, &cell, state, options.memory, &progress)?,
        };
        match result.status {
            Status::Failed => outcome.failed += 1,
            Status::Diverged => outcome.diverged += 1,
            // Also where only the cell's own process was asked to stop: the others are run all the same.
            Status::Interrupted => outcome.interrupted = true,
            _ => {}
        }
        let reused = state == State::Done;
        if reused {
            outcome.reused += 1
        } else {
            outcome.run += 1
        }
        progress.end(config, &result, reused);
        if interrupt::count() > 0 {
            outcome.interrupted = true;
            return Ok(outcome);
        }
    }
    outcome.interrupted |= reference::solve_all(folder, plan, options.memory, &progress)?;
    Ok(outcome)
}

fn create(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::io(folder, "create"))
}

/// Keeps two runs of one experiment apart.
pub(super) fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(".lock");
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(Error::io(&path, "open"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            let remedy = "wait for it to end, or choose another folder with --out";
            Err(Error::config(folder.display(), "another process is running this experiment here", remedy))
        }
        Err(fs::TryLockError::Error(error)) => Err(Error::io(&path, "lock")(error)),
    }
}

/// Moves cells that are not in the plan to `earlier/`, and cells of the plan back from there: nothing recorded is lost,
/// and summaries show the experiment as it stands.
fn set_aside(folder: &Path, plan: &Plan) -> Result<()> {
    let ids: BTreeSet<_> =
        plan.cells.iter().chain(plan.skipped.iter().map(|skipped| &skipped.cell)).map(|c| c.cell.as_str()).collect();
    let (cells, earlier) = (folder.join("cells"), folder.join("earlier"));
    let moving = |from: &Path, to: &Path, wanted: &dyn Fn(&str) -> bool| -> Result<()> {
        let entries = match fs::read_dir(from) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(Error::io(from, "read"))?,
        };
        for entry in entries {
            let entry = entry.map_err(Error::io(from, "read"))?;
            let (name, path) = (entry.file_name(), entry.path());
            // What was imported belongs to no plan.
            let is_cell = path.join("config.json").exists() && !path.join(import::MARK).exists();
            if is_cell && name.to_str().is_some_and(wanted) && !to.join(&name).exists() {
                create(to)?;
                fs::rename(&path, to.join(&name)).map_err(Error::io(&path, "move"))?;
            }
        }
        Ok(())
    };
    moving(&earlier, &cells, &|id| ids.contains(id))?;
    moving(&cells, &earlier, &|id| !ids.contains(id))
}

/// Removes what an earlier run of a cell left.
fn clear(cell: &CellFolder) -> Result<()> {
    // The checkpoint goes first: killed in between, a cell without result would go on from it. Then the result: without
    // it, the cell counts as not finished.
    let [trace, weights, test_rows, inspection] = cell.outcomes();
    for path in [cell.checkpoint(), cell.result(), trace, weights, test_rows, inspection, cell.log()] {
        remove_if_there(&path)?;
    }
    Ok(())
}

/// A finished cell may have been given new labels since.
fn relabel(cell: &CellFolder, config: &CellConfig, mut result: CellResult) -> Result<CellResult> {
    if read_json::<CellConfig>(&cell.config()).ok().as_ref() != Some(config) {
        let bare = CellResult::bare(config, result.status, "");
        result.experiment = bare.experiment;
        result.dataset = bare.dataset;
        result.model = bare.model;
        result.optimizer = bare.optimizer;
        write_json(&cell.result(), &result)?;
        // Last: its labels tell whether there is anything left to do.
        write_json(&cell.config(), config)?;
    }
    Ok(result)
}

fn run_cell(
    config: &CellConfig,
    cell: &CellFolder,
    state: State,
    memory: Option<u64>,
    progress: &Progress,
) -> Result<CellResult> {
    create(cell.path())?;
    match state {
        State::GoesOn => remove_if_there(&cell.result())?,
        State::New | State::Done => clear(cell)?,
    }
    write_json(&cell.config(), config)?;
    progress.begin(config);
    let mut process =
        Process::start("cell", &[("--dir", cell.path().as_os_str())], memory, config.threads, &cell.log())?;
    // A process that is silent for much longer than the budget allows hangs in a step that will not end in time.
    let patience = config.budget.seconds.map(|seconds| Duration::from_secs_f64((2.0 * seconds).min(1e9) + 300.0));
    let mut metric = None;
    let end = process.attend(patience, |message| {
        metric = message.metric.clone().or(metric.take());
        progress.update(config, message, metric.as_ref());
    })?;
    // There was none before: a result is the cell's own and whole, whatever became of its process afterwards.
    if let Some(result) = cell.read_result() {
        return Ok(result);
    }
    let (status, reason) = if end.hung {
        (Status::TimedOut, "it was ended because a step went on for more than twice the budget".to_owned())
    } else if interrupt::count() > 0 {
        (Status::Interrupted, "ended by the user; it goes on from its last checkpoint".to_owned())
    } else {
        (Status::Failed, crash(end.status, &cell.log()))
    };
    if status != Status::Interrupted {
        // What an earlier attempt left does not belong to this result.
        cell.outcomes().iter().try_for_each(|path| remove_if_there(path))?;
    }
    let result = CellResult::bare(config, status, reason);
    write_json(&cell.result(), &result)?;
    Ok(result)
}

/// The program that is running: on Linux its very file, even where a new build has taken the name since.
fn this_program() -> Result<PathBuf> {
    let running = Path::new("/proc/self/exe");
    if cfg!(target_os = "linux") && running.exists() {
        return Ok(running.to_owned());
    }
    std::env::current_exe().map_err(Error::io("this program", "find"))
}

/// What is known of a process that ended without a result: how it ended and the last lines it printed.
fn crash(status: ExitStatus, log: &Path) -> String {
    use std::os::unix::process::ExitStatusExt;
    let how = match status.signal() {
        Some(libc::SIGKILL) => "the process was killed (signal 9): perhaps it used too much memory".to_owned(),
        Some(signal) => format!("the process crashed (signal {signal})"),
        None => format!("the process ended with {status}"),
    };
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let mut lines: Vec<_> = text.lines().rev().filter(|line| !line.trim().is_empty()).take(5).collect();
    lines.reverse();
    if lines.is_empty() { how } else { format!("{how}; its last lines: {}", lines.join("\n")) }
}

/// A process of this same program that does one thing.
pub(super) struct Process {
    child: Child,
    lines: Receiver<Message>,
}

/// How a process ended.
pub(super) struct ProcessEnd {
    pub status: ExitStatus,
    /// Whether it was ended for its silence.
    pub hung: bool,
}

impl Process {
    /// Starts this program again with a hidden verb. It dies with this process, and Ctrl-C reaches it only through
    /// this process.
    pub fn start(
        verb: &str,
        arguments: &[(&str, &std::ffi::OsStr)],
        memory: Option<u64>,
        threads: usize,
        log: &Path,
    ) -> Result<Self> {
        use std::os::unix::process::CommandExt;
        let program = this_program()?;
        let log = OpenOptions::new().create(true).append(true).open(log).map_err(Error::io(log, "open"))?;
        let mut command = Command::new(&program);
        command.arg0(env!("CARGO_PKG_NAME")).arg(verb);
        for (name, value) in arguments {
            command.arg(name).arg(value);
        }
        if let Some(bytes) = memory {
            command.arg("--memory").arg(bytes.to_string());
        }
        // One thread in the linear algebra library: parallel sections are this program's own.
        command.env("OPENBLAS_NUM_THREADS", "1").env("RAYON_NUM_THREADS", threads.to_string());
        command.env("POLARS_MAX_THREADS", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).process_group(0);
        #[cfg(target_os = "linux")]
        // SAFETY: between fork and exec only `prctl` is called, which is safe there (it is a single system call).
        unsafe {
            command.pre_exec(|| {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0 {
                    Ok(())
                } else {
                    Err(std::io::Error::last_os_error())
                }
            });
        }
        let mut child = command.spawn().map_err(Error::io(&program, "start"))?;
        let (sender, lines) = channel();
        if let Some(output) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(std::io::Result::ok) {
                    // Anything else that a model or an optimizer prints is not for us.
                    if let Ok(message) = serde_json::from_str(&line)
                        && sender.send(message).is_err()
                    {
                        return;
                    }
                }
            });
        }
        Ok(Self { child, lines })
    }

    /// Waits for its end and passes messages on. The first Ctrl-C is handed on, the second ends the process.
    pub fn attend(&mut self, patience: Option<Duration>, mut on_message: impl FnMut(&Message)) -> Result<ProcessEnd> {
        let (mut heard, mut handed_on, mut hung) = (Instant::now(), 0, false);
        loop {
            match self.lines.recv_timeout(Duration::from_millis(50)) {
                Ok(message) => {
                    heard = Instant::now();
                    on_message(&message);
                }
                Err(RecvTimeoutError::Timeout) => {}
                // Its output is closed: it has ended, or is about to.
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let interruptions = interrupt::count();
            if interruptions > handed_on {
                handed_on = interruptions;
                if interruptions == 1 { self.interrupt() } else { self.kill() }
            }
            if patience.is_some_and(|patience| heard.elapsed() > patience) {
                hung = true;
                self.kill();
                break;
            }
        }
        let status = self.child.wait().map_err(Error::io("a cell's process", "wait for"))?;
        Ok(ProcessEnd { status, hung })
    }

    fn interrupt(&self) {
        if let Ok(id) = libc::pid_t::try_from(self.child.id()) {
            // SAFETY: a signal to our own child, which has not been waited for: the number is still its own.
            unsafe { libc::kill(id, libc::SIGINT) };
        }
    }

    fn kill(&mut self) {
        // It may have ended by itself in the meantime.
        let _ = self.child.kill();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }
}
