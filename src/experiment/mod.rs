//! Experiments: the file that states one, the plan made from it, the process of each cell, and what they leave behind.

mod budget;
mod cell;
mod checkpoint;
pub mod conformance;
mod document;
mod import;
mod interrupt;
mod message;
mod plan;
mod problem;
mod progress;
mod record;
mod reference;
mod runner;
mod shape;
mod spec;
#[cfg(test)]
mod text_tests;
mod trace;
pub mod tune;

pub use budget::{Budget, Schedule};
pub use checkpoint::{read_weights, write_weights};
pub use import::{Import, import};
pub use interrupt::{count as interruptions, install as count_interruptions};
pub use plan::{Absent, NUMERICS_VERSION, Plan, Skipped, identity};
pub use progress::{Names, say};
pub use record::{CellConfig, CellFolder, CellResult, Status, read_json, write_json, write_whole};
pub use runner::{Options, Outcome, State, run, state_of};
pub use shape::Shape;
pub use spec::{Folds, Reported, Spec, Target};

pub(crate) use cell::run as run_cell;
pub(crate) use problem::{Opened, model_settings, open as open_problem};
pub(crate) use reference::solve as solve_reference;
