//! Datasets: readers, the memory-mapped store, splits, standardization, the simulator and downloads.
//!
//! Whatever a file looked like, it ends as a [`Table`], `f32` features in row panels with one target per row, or, a text, as a
//! [`Corpus`] of tokens.

pub mod corpus;
pub mod describe;
#[cfg(feature = "workbench")]
pub mod fetch;
pub mod higgs_sim;
pub(crate) mod interrupt;
pub mod locate;
mod memory;
pub mod open;
pub mod read;
pub mod registry;
pub mod small_language;
pub mod split;
pub mod standardize;
pub mod store;

use crate::device::Panels;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;

pub use corpus::{Corpus, Sequences, Tokens};
pub use describe::{Description, describe};
pub use memory::available_memory;
pub use read::{Format, ReadOptions, Text, read, read_features, read_text};
pub use split::{SplitSpec, Splits, examples};
pub use standardize::Standardization;

/// What the targets of a [`Table`] are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Targets are class indices `0.0, 1.0, ...` into these names (in numerical order if all are numbers, else sorted).
    Classes(Vec<String>),
    /// Targets are real numbers.
    Regression,
}

/// Whether the rows of a [`Table`] still stand as they stood in their source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowOrder {
    /// As in the file, or as generated.
    #[default]
    AsRead,
    /// Shuffled once when the store was written, by this seed: splits by row number no longer mean the file's rows.
    Shuffled {
        /// Seed of the shuffle.
        seed: u64,
    },
}

/// A table of features with one target per row, or several real ones.
#[derive(Debug, Clone)]
pub struct Table {
    /// The registered name or the path it was read from, as it appears in every report.
    pub name: String,
    /// True for generated events: every report says so.
    pub simulated: bool,
    /// SHA-256 of the source bytes (or of the generator's name, version, seed and row count), in hexadecimal.
    pub fingerprint: String,
    /// The features, `n x d`.
    pub features: Panels,
    /// The targets, `n x 1`; several real ones `n x k`.
    pub targets: Panels,
    /// What the targets are.
    pub task: Task,
    /// Names of the `d` feature columns.
    pub columns: Vec<String>,
    /// Whether the rows stand as in the source.
    pub order: RowOrder,
}

impl Table {
    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.features.rows()
    }
}

/// Some rows of a [`Table`].
#[derive(Debug, Clone, PartialEq)]
pub enum RowSet {
    /// Consecutive rows: served from the store without a copy.
    Range(Range<usize>),
    /// Any rows, in increasing order.
    Indices(Arc<[u32]>),
}

/// Features and targets of some rows, ready for a kernel: a range of rows within panels.
#[derive(Debug, Clone)]
pub struct Examples {
    /// Panels that hold the features, `N x d` with `N >= range.end`.
    pub features: Panels,
    /// Panels that hold the targets, `N x 1`; several real ones `N x k`.
    pub targets: Panels,
    /// The rows of those panels that belong to this set.
    pub range: Range<usize>,
}

impl Examples {
    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.range.len()
    }
}
