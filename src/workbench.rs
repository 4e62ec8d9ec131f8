//! Everything that can be put together, and the whole command line over it.
//!
//! A program of one's own adds an optimizer and has everything that `parsimony` has:
//!
//! ```no_run
//! use parsimony::Workbench;
//!
//! fn main() -> std::process::ExitCode {
//!     Workbench::standard().main() // after .with_optimizer(MY_ENTRY)
//! }
//! ```

use crate::data::registry::{self, DatasetEntry};
use crate::error::{Error, Result};
use crate::model::{self, ModelEntry};
use crate::optim::{self, OptimizerEntry};
use crate::oracle::did_you_mean;
use std::process::ExitCode;

/// The registered optimizers, models and datasets.
#[derive(Debug, Clone)]
pub struct Workbench {
    /// Optimizers, in the order in which they are listed.
    pub optimizers: Vec<OptimizerEntry>,
    /// Models, in the order in which they are listed.
    pub models: Vec<ModelEntry>,
    /// Datasets, in the order in which they are listed.
    pub datasets: Vec<DatasetEntry>,
}

impl Workbench {
    /// Everything in this crate.
    #[must_use]
    pub fn standard() -> Self {
        Self { optimizers: optim::registry(), models: model::registry(), datasets: registry::registry().to_vec() }
    }

    /// Adds an optimizer, in place of one of the same name.
    #[must_use]
    pub fn with_optimizer(mut self, entry: OptimizerEntry) -> Self {
        self.optimizers.retain(|known| known.name != entry.name);
        self.optimizers.push(entry);
        self
    }

    /// Adds a model, in place of one of the same name.
    #[must_use]
    pub fn with_model(mut self, entry: ModelEntry) -> Self {
        self.models.retain(|known| known.name != entry.name);
        self.models.push(entry);
        self
    }

    /// Adds a dataset, in place of one of the same name.
    #[must_use]
    pub fn with_dataset(mut self, entry: DatasetEntry) -> Self {
        self.datasets.retain(|known| known.name != entry.name);
        self.datasets.push(entry);
        self
    }

    /// The optimizer of a name.
    ///
    /// # Errors
    /// [`Error::Config`] with the nearest name.
    pub fn optimizer(&self, name: &str) -> Result<&OptimizerEntry> {
        let names = || self.optimizers.iter().map(|entry| entry.name);
        self.optimizers.iter().find(|entry| entry.name == name).ok_or_else(|| unknown("optimizer", name, names))
    }

    /// The model of a name.
    ///
    /// # Errors
    /// [`Error::Config`] with the nearest name.
    pub fn model(&self, name: &str) -> Result<&ModelEntry> {
        let names = || self.models.iter().map(|entry| entry.name);
        self.models.iter().find(|entry| entry.name == name).ok_or_else(|| unknown("model", name, names))
    }

    /// Runs the command line on this process's arguments.
    #[must_use]
    pub fn main(self) -> ExitCode {
        crate::cli::main(&self)
    }
}

fn unknown<I: Iterator<Item = &'static str>>(kind: &str, name: &str, names: impl Fn() -> I) -> Error {
    let all = names().collect::<Vec<_>>().join(", ");
    let remedy = format!("{}known: {all}", did_you_mean(name, names()));
    Error::config(kind, format!("there is no {kind} `{name}`"), remedy)
}
