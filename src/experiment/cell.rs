//! One cell in its own process: set-up, steps on the clock, evaluations, checkpoints and the result off it.
//!
//! A cell killed at any instant goes on from its last checkpoint and ends with the same numbers, bit for bit, times and
//! memory aside: what is recorded depends on steps and passes alone, and a checkpoint holds everything that outlives a
//! step.

use super::checkpoint::{Best, Checkpoint, write_weights};
use super::interrupt;
use super::message::{Message, Sender};
use super::problem;
use super::progress::say;
use super::record::{
    CellConfig, CellFolder, CellResult, InspectionRecord, Status, read_json, remove_if_there, write_json,
};
use super::spec::Reported;
use super::trace::{Trace, write_row_outcomes};
use crate::data::locate::cache_dir;
use crate::device::cpu::on_worker;
use crate::device::{self, Device, DeviceName, use_device};
use crate::error::{Error, Result};
use crate::measure::clock::{Clock, Section};
use crate::measure::compression::compressed_bytes;
use crate::measure::environment::Environment;
use crate::measure::memory::Memory;
use crate::model::{Model, Split};
use crate::optim::{Optimizer, StateReader, StateWriter, Step};
use crate::oracle::{Oracle, Settings, Stream, Vector, stream};
use crate::workbench::Workbench;
use std::path::Path;
use std::time::{Duration, Instant};

/// Time between two checkpoints.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);

/// Runs the cell whose `config.json` lies in `folder`, from its checkpoint if there is one, and writes its result.
///
/// # Errors
/// If the record of the cell cannot be read or the result cannot be written. Whatever goes wrong with the cell itself
/// is its result.
pub fn run(workbench: &Workbench, folder: &Path, memory: Option<u64>) -> Result<CellResult> {
    let mut clock = Clock::start();
    interrupt::install()?;
    problem::limit_memory(memory);
    let folder = CellFolder::new(folder);
    let config: CellConfig = read_json(&folder.config())?;
    write_json(&folder.environment(), &Environment::gather(config.threads))?;
    let result = match on_worker(|| attempt(workbench, &folder, &config, &mut clock)) {
        Ok(result) => result,
        Err(error) => {
            say(format_args!("error: {error}"));
            // What an earlier attempt left does not belong to this result.
            folder.outcomes().iter().try_for_each(|path| remove_if_there(path))?;
            let mut result = CellResult::bare(&config, Status::Failed, error.to_string());
            result.set_seconds(&clock.seconds());
            result
        }
    };
    write_json(&folder.result(), &result)?;
    if !matches!(result.status, Status::TimedOut | Status::Interrupted | Status::Failed) {
        remove_if_there(&folder.checkpoint())?;
    }
    Ok(result)
}

fn attempt(workbench: &Workbench, folder: &CellFolder, config: &CellConfig, clock: &mut Clock) -> Result<CellResult> {
    let entry = workbench.optimizer(&config.optimizer.name)?;
    let settings = Settings::check("config.json, hyperparameters", entry.settings, &config.hyperparameters)?;
    use_device(config.device, cache_dir().as_deref())?;
    if config.device != DeviceName::Cpu {
        let gpu = Some(device::current().name());
        write_json(&folder.environment(), &Environment { gpu, ..Environment::gather(config.threads) })?;
    }
    let opened = problem::open(workbench, config, &problem::model_settings(workbench, config)?)?;
    let model = &*opened.model;
    let device = device::current();
    if config.device != DeviceName::Cpu && model.device() != Ok(&device) {
        let finding = format!("model {} does not live on {}", config.model.name, device.name());
        return Err(Error::config("device", finding, "take --device cpu or --device auto"));
    }
    device.check()?;
    let parameters = model.initial(&mut stream(config.seed, Stream::Initialization));
    let mut run = Run {
        config,
        device,
        model,
        oracle: Oracle::new(model, entry.name, &entry.needs_with(&settings), config.seed, opened.block_rows),
        optimizer: (entry.build)(&settings)?,
        parameters,
        clock,
        trace: Trace::default(),
        best: None,
        peaks: [0; 2],
        time_to_target: None,
        sender: Sender::new(),
        saved: Instant::now(),
    };
    let ending = match Checkpoint::read(&folder.checkpoint(), &config.cell) {
        Some(checkpoint) => match run.restore(checkpoint) {
            Ok(()) => None,
            Err(error) => {
                say(format_args!("{error}; starting anew"));
                remove_if_there(&folder.checkpoint())?;
                return attempt(workbench, folder, config, clock);
            }
        },
        None => run.begin()?,
    };
    let ending = match ending {
        Some(ending) => ending,
        None => run.train(folder)?,
    };
    run.finish(folder, ending)
}

/// How a cell came to its end.
struct Ending {
    status: Status,
    reason: String,
}

impl Ending {
    fn new(status: Status, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }

    /// An error of the optimizer's or the problem's as an ending.
    fn of_error(error: &Error) -> Self {
        let status = if matches!(error, Error::Diverged { .. }) { Status::Diverged } else { Status::Failed };
        Self::new(status, error.to_string())
    }
}

struct Run<'a> {
    config: &'a CellConfig,
    device: Device,
    model: &'a dyn Model,
    oracle: Oracle<'a>,
    optimizer: Box<dyn Optimizer>,
    parameters: Vector,
    clock: &'a mut Clock,
    trace: Trace,
    best: Option<Best>,
    peaks: [u64; 2],
    time_to_target: Option<f64>,
    sender: Sender,
    saved: Instant,
}

impl Run<'_> {
    /// Starts the optimizer and records where training starts.
    fn begin(&mut self) -> Result<Option<Ending>> {
        self.clock.switch(Section::Training);
        let started = self.optimizer.start(&mut self.oracle, &self.parameters);
        self.device.synchronize();
        self.clock.switch(Section::Recording);
        match started {
            Ok(()) => self.evaluate(),
            Err(error) => Ok(Some(Ending::of_error(&error))),
        }
    }

    /// Goes to where a checkpoint was written.
    fn restore(&mut self, checkpoint: Checkpoint) -> Result<()> {
        self.optimizer.start(&mut self.oracle, &self.parameters)?;
        self.parameters = Vector::from_values(self.model.layout(), checkpoint.parameters)?;
        let mut reader = StateReader::new(checkpoint.state, self.model.layout());
        self.optimizer.visit_state(&mut reader);
        reader.finish()?;
        self.oracle.seek(checkpoint.oracle)?;
        self.trace = checkpoint.trace;
        self.best = checkpoint.best;
        self.peaks = checkpoint.peaks;
        self.time_to_target = checkpoint.time_to_target;
        self.clock.resume(checkpoint.seconds);
        say(format_args!("going on from step {}", self.oracle.step()));
        Ok(())
    }

    /// Steps until something ends the cell.
    fn train(&mut self, folder: &CellFolder) -> Result<Ending> {
        let schedule = self.config.evaluate;
        let mut next = schedule.after(self.oracle.step(), self.oracle.data_passes());
        loop {
            self.clock.switch(Section::Training);
            self.oracle.begin_step();
            let step = self.optimizer.step(&mut self.oracle, &mut self.parameters);
            // What was asked of a GPU is done before the clock is read.
            self.device.synchronize();
            self.clock.switch(Section::Recording);

            let mut ending = match step {
                Err(error) => return Ok(Ending::of_error(&error)),
                Ok(step) => self.ending_of(step),
            };
            // A device that has failed answers NaN: that is no divergence.
            if let Err(error) = self.device.check() {
                return Ok(Ending::of_error(&error));
            }
            if !self.parameters.is_finite() {
                return Ok(self.not_finite("a parameter", self.parameters.norm_max()));
            }
            let (steps, passes) = (self.oracle.step(), self.oracle.data_passes());
            let is_planned = next.is_reached(steps, passes);
            let is_save_due = self.saved.elapsed() >= CHECKPOINT_INTERVAL;
            if is_planned || is_save_due || self.sender.is_due() {
                // Before the evaluation, which may free what training held.
                self.sample_memory();
            }
            if is_planned {
                if let Some(diverged) = self.evaluate()? {
                    return Ok(diverged);
                }
                next = schedule.after(steps, passes);
            } else if self.sender.is_due() {
                self.tell(None);
            }
            if ending.is_none() && (interrupt::count() > 0 || self.sender.is_alone()) {
                ending = Some(Ending::new(Status::Interrupted, format!("interrupted after step {steps}")));
            }
            let goes_on = ending.as_ref().is_none_or(|e| matches!(e.status, Status::TimedOut | Status::Interrupted));
            if goes_on && (ending.is_some() || is_save_due) {
                self.save(folder)?;
            }
            if let Some(ending) = ending {
                if is_planned {
                    return Ok(ending);
                }
                return Ok(self.evaluate()?.unwrap_or(ending));
            }
        }
    }

    /// What a step and the budget say about going on.
    fn ending_of(&self, step: Step) -> Option<Ending> {
        let budget = &self.config.budget;
        let finished = |reason: String| Some(Ending::new(Status::Finished, reason));
        match step {
            Step::Converged(reason) => return finished(format!("converged: {reason}")),
            Step::Stopped(reason) => return finished(format!("stopped: {reason}")),
            Step::Continue => {}
        }
        if let Some(steps) = budget.steps.filter(|&steps| self.oracle.step() >= steps) {
            return finished(format!("budget of {steps} steps used"));
        }
        // Passes are counted in rows: the tolerance is for the division alone.
        if let Some(passes) = budget.passes.filter(|&passes| self.oracle.data_passes() >= passes * (1.0 - 1e-12)) {
            return finished(format!("budget of {passes} passes used"));
        }
        let seconds = budget.seconds.filter(|&seconds| self.clock.training() >= seconds)?;
        let used = super::budget::readable_seconds(seconds);
        Some(Ending::new(Status::TimedOut, format!("budget of {used} of training used at step {}", self.oracle.step())))
    }

    fn not_finite(&self, quantity: &str, value: f64) -> Ending {
        Ending::of_error(&Error::Diverged { step: self.oracle.step(), quantity: quantity.to_owned(), value })
    }

    /// Adds a row to the trace, off the training clock. The ending, if the objective is no number any more.
    fn evaluate(&mut self) -> Result<Option<Ending>> {
        self.clock.switch(Section::Evaluation);
        let point = self.optimizer.reported(&self.parameters);
        let (objective, gradient_norm) = self.model.objective(point)?;
        let train = self.model.evaluate(point, Split::Train)?;
        let validation = self.model.evaluate(point, Split::Validation)?;
        let test = self.model.evaluate(point, Split::Test)?;
        let nonzero = self.model.parameter_counts(point).nonzero;
        let of_model = self.model.notes(point)?;
        self.clock.switch(Section::Recording);
        if !objective.is_finite() {
            return Ok(Some(self.not_finite("the objective", objective)));
        }

        let memory = self.sample_memory();
        let counters = *self.oracle.counters();
        let or_nan = |value: Option<f64>| value.unwrap_or(f64::NAN);
        let row = [
            ("step", self.oracle.step() as f64),
            ("data_passes", self.oracle.data_passes()),
            ("gradient_equivalents", self.oracle.gradient_equivalents()),
            ("flops", counters.flops),
            ("bytes_moved", counters.bytes),
            ("train_seconds", self.clock.training()),
            ("objective", objective),
            ("train_loss", or_nan(train.loss)),
            ("train_accuracy", or_nan(train.accuracy)),
            ("train_squared_error", or_nan(train.squared_error)),
            ("gradient_norm", or_nan(gradient_norm)),
            ("validation_loss", or_nan(validation.loss)),
            ("validation_accuracy", or_nan(validation.accuracy)),
            ("validation_squared_error", or_nan(validation.squared_error)),
            ("validation_explained_variance", or_nan(validation.explained_variance)),
            ("validation_explained_beyond_linear", or_nan(validation.explained_beyond_linear)),
            ("validation_bits_per_character", or_nan(validation.bits_per_character)),
            ("validation_grammar_loss", or_nan(validation.grammar_loss)),
            ("validation_fact_loss", or_nan(validation.fact_loss)),
            ("validation_sum_loss", or_nan(validation.sum_loss)),
            ("test_loss", or_nan(test.loss)),
            ("test_accuracy", or_nan(test.accuracy)),
            ("test_auc", or_nan(test.auc)),
            ("test_squared_error", or_nan(test.squared_error)),
            ("test_explained_variance", or_nan(test.explained_variance)),
            ("test_explained_beyond_linear", or_nan(test.explained_beyond_linear)),
            ("test_bits_per_character", or_nan(test.bits_per_character)),
            ("test_grammar_loss", or_nan(test.grammar_loss)),
            ("test_fact_loss", or_nan(test.fact_loss)),
            ("test_sum_loss", or_nan(test.sum_loss)),
            ("parameters_nonzero", nonzero as f64),
            ("resident_bytes", memory.resident as f64),
        ];
        let of_optimizer = self.oracle.notes().iter().map(|(name, v)| (format!("optimizer.{name}"), *v));
        let of_model = of_model.into_iter().map(|(name, v)| (format!("model.{name}"), v));
        let notes: Vec<_> = of_optimizer.chain(of_model).collect();
        self.trace.push(row.into_iter().chain(notes.iter().map(|(name, value)| (name.as_str(), *value))));

        let metric = |name: &str| row.iter().find(|(key, _)| *key == name).map_or(f64::NAN, |(_, value)| *value);
        if let (None, Some(target)) = (self.time_to_target, &self.config.target)
            && target.is_reached(metric(&target.metric))
        {
            self.time_to_target = Some(self.clock.training());
        }
        if let (Reported::BestValidation, Some(loss)) = (self.config.report, validation.loss)
            && self.best.as_ref().is_none_or(|best| loss < best.loss)
        {
            let point = self.optimizer.reported(&self.parameters).to_host();
            self.best = Some(Best { row: self.trace.rows() - 1, loss, point });
        }
        let shown = self.config.target.as_ref().map(|target| target.metric.as_str());
        let shown = shown.into_iter().chain(["validation_accuracy", "validation_loss", "train_loss"]);
        let shown = shown.map(|name| (name.to_owned(), metric(name))).find(|(_, value)| value.is_finite());
        self.tell(shown);
        Ok(None)
    }

    fn sample_memory(&mut self) -> Memory {
        let memory = Memory::now();
        self.peaks = [self.peaks[0].max(memory.peak_resident), self.peaks[1].max(memory.anonymous)];
        memory
    }

    fn tell(&mut self, metric: Option<(String, f64)>) {
        self.sender.send(&Message {
            steps: self.oracle.step(),
            passes: self.oracle.data_passes(),
            seconds: self.clock.training(),
            metric,
        });
    }

    /// Writes a checkpoint.
    fn save(&mut self, folder: &CellFolder) -> Result<()> {
        let mut state = StateWriter::default();
        self.optimizer.visit_state(&mut state);
        let checkpoint = Checkpoint {
            parameters: self.parameters.to_host(),
            state: state.parts,
            oracle: self.oracle.position(),
            trace: self.trace.clone(),
            best: self.best.clone(),
            seconds: self.clock.seconds(),
            peaks: self.peaks,
            time_to_target: self.time_to_target,
        };
        checkpoint.write(&folder.checkpoint(), &self.config.cell)?;
        self.saved = Instant::now();
        Ok(())
    }

    /// Writes trace and weights, and sums the cell up.
    fn finish(mut self, folder: &CellFolder, ending: Ending) -> Result<CellResult> {
        self.clock.switch(Section::Recording);
        let counters = *self.oracle.counters();
        let mut result = CellResult::bare(self.config, ending.status, ending.reason);
        result.findings = self.oracle.findings().to_vec();
        result.steps = Some(self.oracle.step());
        result.data_passes = Some(self.oracle.data_passes());
        result.gradient_equivalents = Some(self.oracle.gradient_equivalents());
        result.flops = Some(counters.flops);
        result.bytes_moved = Some(counters.bytes);
        result.time_to_target_seconds = self.time_to_target;
        let mut state = StateWriter::default();
        self.optimizer.visit_state(&mut state);
        result.optimizer_state_bytes = Some(state.bytes());

        let point = match &self.best {
            Some(best) => Vector::from_values(self.model.layout(), best.point.clone())?,
            None => self.optimizer.reported(&self.parameters).clone(),
        };
        let counts = self.model.parameter_counts(&point);
        result.parameters_total = Some(counts.total);
        result.parameters_active = Some(counts.active);
        result.parameter_bytes = Some(counts.bytes);
        // A diverged cell has no iterate to report: its trace tells how far it came.
        if ending.status != Status::Diverged && ending.status != Status::Failed && self.trace.rows() > 0 {
            let row = self.best.as_ref().map_or(self.trace.rows() - 1, |best| best.row);
            let value = |name: &str| self.trace.columns()[name].get(row).copied().filter(|value| !value.is_nan());
            result.take_quality(value);
            let dead = self.trace.columns().get("model.dead_experts").and_then(|column| column.get(row));
            result.dead_experts = dead.filter(|count| !count.is_nan()).map(|&count| count as u64);
            result.parameters_nonzero = Some(counts.nonzero);
            result.parameter_compressed_bytes = Some(compressed_bytes(&point));
            let weights = self.model.weights(&point);
            write_weights(&folder.weights(), &weights)?;
            match self.model.row_outcomes(&point, Split::Test)? {
                Some(rows) => write_row_outcomes(&folder.test_rows(), rows)?,
                None => remove_if_there(&folder.test_rows())?,
            }
            let inspected = if self.config.inspect { self.model.inspect(&weights, 0.95, false)? } else { None };
            match inspected {
                Some(inspection) => write_json(&folder.inspection(), &InspectionRecord::of(&inspection))?,
                None => remove_if_there(&folder.inspection())?,
            }
        } else {
            // Those of an earlier, interrupted attempt.
            folder.outcomes().iter().try_for_each(|path| remove_if_there(path))?;
        }
        self.sample_memory();
        self.trace.write(&folder.trace())?;
        result.peak_resident_bytes = Some(self.peaks[0]).filter(|&bytes| bytes > 0);
        result.peak_anonymous_bytes = Some(self.peaks[1]).filter(|&bytes| bytes > 0);
        result.peak_device_bytes = self.device.peak_bytes();
        result.set_seconds(&self.clock.seconds());
        Ok(result)
    }
}
