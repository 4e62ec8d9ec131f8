//! The library's errors: what was wrong, where, what was expected and what to do about it.
//!
//! Every message a user meets is built here, so that all of them name the place (file, line, column or key),
//! the finding and the remedy. The binary maps [`Error::exit_code`] to the process's exit status.

use std::fmt;
use std::path::{Path, PathBuf};

/// The library's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Anything that can go wrong in the workbench.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A data file that cannot be used as it is.
    #[error(transparent)]
    Data(#[from] Box<DataError>),

    /// An experiment file, an option or a hyperparameter with a value that cannot be used.
    #[error("{place}: {finding}\n  {remedy}")]
    Config {
        /// File and key, or the option.
        place: String,
        /// What was found there.
        finding: String,
        /// What is accepted, or what to do.
        remedy: String,
    },

    /// An optimizer or a model and a problem that do not fit each other.
    #[error("{name} cannot run on {problem}: {reason}")]
    Unsupported {
        /// The optimizer's or the model's name.
        name: String,
        /// The problem in words.
        problem: String,
        /// Which capability is lacking, and why.
        reason: String,
    },

    /// A computation that left the finite numbers.
    #[error("diverged at step {step}: {quantity} is {value}")]
    Diverged {
        /// The optimizer's step, counted from 1.
        step: u64,
        /// What was not finite.
        quantity: String,
        /// The value seen (NaN or an infinity).
        value: f64,
    },

    /// A factorization or solve that could not be done.
    #[error("{0}")]
    Numeric(String),

    /// A device that cannot be used or failed.
    #[error("{0}")]
    Device(String),

    /// The operating system refused something.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was attempted, as a verb ("read", "write", "create").
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },

    /// A download that did not succeed.
    #[error("{url}: {finding}\n  {remedy}")]
    Network {
        /// The address.
        url: String,
        /// What happened.
        finding: String,
        /// What to do.
        remedy: String,
    },

    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// A [`Error::Config`] from its three parts.
    pub fn config(place: impl fmt::Display, finding: impl fmt::Display, remedy: impl fmt::Display) -> Self {
        Self::Config { place: place.to_string(), finding: finding.to_string(), remedy: remedy.to_string() }
    }

    /// Wraps an I/O error with the file and the action it belongs to.
    pub fn io(path: impl AsRef<Path>, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { path, action, source }
    }

    /// The process's exit status for this error; documented in the README and in `parsimony --help`.
    ///
    /// 1: a run failed; 2: an option or an experiment file that cannot be used; 3: unusable data;
    /// 4: the file system or the network; 130: interrupted.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Diverged { .. } | Self::Numeric(_) | Self::Device(_) => 1,
            Self::Config { .. } | Self::Unsupported { .. } => 2,
            Self::Data(_) => 3,
            Self::Io { .. } | Self::Network { .. } => 4,
            Self::Interrupted => 130,
        }
    }
}

/// Where in a data file something was found, what it was, and what to do about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DataError {
    /// The file (or folder) at fault.
    pub path: PathBuf,
    /// Line number, counted from 1; for binary files the byte offset goes into `finding`.
    pub line: Option<u64>,
    /// Column number counted from 1, with the column's name where there is one.
    pub column: Option<String>,
    /// What was found.
    pub finding: String,
    /// What to do.
    pub remedy: String,
}

impl DataError {
    /// An error about a whole file.
    pub fn new(path: impl AsRef<Path>, finding: impl fmt::Display, remedy: impl fmt::Display) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            line: None,
            column: None,
            finding: finding.to_string(),
            remedy: remedy.to_string(),
        }
    }

    /// The same at a line (counted from 1).
    #[must_use]
    pub fn at_line(mut self, line: u64) -> Self {
        self.line = Some(line);
        self
    }

    /// The same at a column (counted from 1, or a name).
    #[must_use]
    pub fn at_column(mut self, column: impl fmt::Display) -> Self {
        self.column = Some(column.to_string());
        self
    }
}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        if let Some(column) = &self.column {
            write!(f, ", column {column}")?;
        }
        write!(f, ": {}\n  {}", self.finding, self.remedy)
    }
}

impl std::error::Error for DataError {}

impl From<DataError> for Error {
    fn from(error: DataError) -> Self {
        Self::Data(Box::new(error))
    }
}
