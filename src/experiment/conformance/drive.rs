//! Drives an optimizer step by step, as the process of a cell does, and looks at everything that it holds.

use crate::error::{Error, Result};
use crate::experiment::checkpoint::Checkpoint;
use crate::experiment::trace::Trace;
use crate::measure::clock::Seconds;
use crate::optim::{Optimizer, OptimizerEntry, StateReader, StateWriter, Step};
use crate::oracle::{Counters, Oracle, Problem, Settings, Stream, Vector, stream};
use std::collections::BTreeMap;
use std::path::Path;

/// Everything starts at the point that this seed draws, whatever the optimizer's own seed is.
const START: u64 = 1;

/// An optimizer at work.
pub struct Driver<'p> {
    problem: &'p dyn Problem,
    pub optimizer: Box<dyn Optimizer>,
    pub oracle: Oracle<'p>,
    pub parameters: Vector,
    /// How it ended, once it has.
    pub ending: Option<Ending>,
}

/// How an optimizer came to its end.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// By its own word: converged or stopped.
    Own(String),
    /// With a quantity that is no number.
    Diverged(String),
    /// With another error.
    Failed(String),
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Own(reason) => write!(f, "ended by itself ({reason})"),
            Self::Diverged(quantity) => write!(f, "diverged: {quantity}"),
            Self::Failed(message) => write!(f, "failed: {message}"),
        }
    }
}

impl Ending {
    fn of(error: &Error) -> Self {
        match error {
            Error::Diverged { quantity, .. } => Self::Diverged(quantity.clone()),
            other => Self::Failed(other.to_string()),
        }
    }
}

impl<'p> Driver<'p> {
    /// An optimizer before its first step.
    pub fn start(entry: &OptimizerEntry, settings: &Settings, problem: &'p dyn Problem, seed: u64) -> Result<Self> {
        let parameters = problem.initial(&mut stream(START, Stream::Initialization));
        let mut optimizer = (entry.build)(settings)?;
        let mut oracle = Oracle::new(problem, entry.name, entry.needs, seed, 1);
        let ending = optimizer.start(&mut oracle, &parameters).err().map(|error| Ending::of(&error));
        Ok(Self { problem, optimizer, oracle, parameters, ending })
    }

    /// One step, unless it has ended.
    pub fn step(&mut self) {
        if self.ending.is_some() {
            return;
        }
        self.oracle.begin_step();
        self.ending = match self.optimizer.step(&mut self.oracle, &mut self.parameters) {
            // What the process of a cell says of it.
            Ok(_) if !self.parameters.is_finite() => Some(Ending::Diverged("a parameter".into())),
            Ok(Step::Converged(reason) | Step::Stopped(reason)) => Some(Ending::Own(reason)),
            Ok(Step::Continue) => None,
            Err(error) => Some(Ending::of(&error)),
        };
    }

    /// So many steps, or fewer if it ends.
    pub fn steps(&mut self, count: usize) {
        for _ in 0..count {
            self.step();
        }
    }

    /// Everything it holds.
    pub fn snapshot(&mut self) -> Snapshot {
        let mut state = StateWriter::default();
        self.optimizer.visit_state(&mut state);
        Snapshot {
            parameters: bits(&self.parameters.to_host()),
            reported: bits(&self.optimizer.reported(&self.parameters).to_host()),
            state: state.parts.iter().map(|(name, values)| (name.clone(), bits(values))).collect(),
            counters: *self.oracle.counters(),
            notes: self.oracle.notes().iter().map(|(name, value)| (name.clone(), value.to_bits())).collect(),
            ending: self.ending.clone(),
        }
    }

    /// Writes a checkpoint as the process of a cell does.
    pub fn save(&mut self, path: &Path) -> Result<()> {
        let mut state = StateWriter::default();
        self.optimizer.visit_state(&mut state);
        let checkpoint = Checkpoint {
            parameters: self.parameters.to_host(),
            state: state.parts,
            oracle: self.oracle.position(),
            trace: Trace::default(),
            best: None,
            seconds: Seconds::default(),
            peaks: [0; 2],
            time_to_target: None,
        };
        checkpoint.write(path, CELL)
    }

    /// The checkpoint in a file.
    pub fn saved(path: &Path) -> Result<Checkpoint> {
        Checkpoint::read(path, CELL).ok_or_else(|| Error::Numeric("the checkpoint cannot be read back".into()))
    }

    /// Goes to where a checkpoint was written, as the process of a cell does.
    pub fn restore(&mut self, checkpoint: Checkpoint) -> Result<()> {
        self.parameters = Vector::from_values(self.problem.layout(), checkpoint.parameters)?;
        let mut reader = StateReader::new(checkpoint.state, self.problem.layout());
        self.optimizer.visit_state(&mut reader);
        reader.finish()?;
        self.oracle.seek(checkpoint.oracle)
    }
}

const CELL: &str = "conformance";

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Everything an optimizer holds between two steps, bit for bit.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    parameters: Vec<u64>,
    reported: Vec<u64>,
    state: BTreeMap<String, Vec<u64>>,
    counters: Counters,
    notes: BTreeMap<String, u64>,
    ending: Option<Ending>,
}

impl Snapshot {
    /// The first thing in which two differ, in words.
    pub fn difference(&self, other: &Self) -> Option<String> {
        if self.ending != other.ending {
            let said = |ending: &Option<Ending>| ending.as_ref().map_or("goes on".to_owned(), ToString::to_string);
            return Some(format!("one {}, the other {}", said(&self.ending), said(&other.ending)));
        }
        if self.parameters != other.parameters {
            return Some("the parameters".into());
        }
        if self.reported != other.reported {
            return Some("the reported point".into());
        }
        let parts = self.state.keys().chain(other.state.keys());
        if let Some(part) = parts.into_iter().find(|name| self.state.get(*name) != other.state.get(*name)) {
            return Some(format!("the state's part `{part}`"));
        }
        if self.counters != other.counters {
            return Some("what was counted".into());
        }
        let notes = self.notes.keys().chain(other.notes.keys());
        let note = notes.into_iter().find(|name| self.notes.get(*name) != other.notes.get(*name))?;
        Some(format!("the note `{note}`"))
    }
}
