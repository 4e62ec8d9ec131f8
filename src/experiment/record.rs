//! What a run leaves on disk: the records of a cell and the places of its files (docs/file-formats.md).
//!
//! Every file is written under another name and renamed, so that one with its final name is whole.

use super::budget::{Budget, Schedule};
use super::spec::{Reported, Target};
use crate::data::open::Choice;
use crate::data::{RowOrder, SplitSpec};
use crate::device::DeviceName;
use crate::error::{DataError, Error, Result};
use crate::measure::clock::Seconds;
use crate::model::Inspection;
use crate::oracle::{Finding, SettingValue};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Hyperparameters by name.
pub type Values = BTreeMap<String, SettingValue>;

/// The dataset of a cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatasetRecord {
    /// The registered name or the file's.
    pub name: String,
    /// What reports call it, with "(simulated)" where it is.
    pub label: String,
    /// Whether its rows are simulated.
    pub simulated: bool,
    /// SHA-256 of what it was made from.
    pub fingerprint: String,
    /// Hash of what was made of that: names of the columns, task and number of rows.
    #[serde(default)]
    pub layout: String,
    /// Whether the rows stand as in the source.
    pub order: RowOrder,
    /// The dataset as it is opened again.
    pub source: Choice,
    /// How its rows are divided.
    pub split: SplitSpec,
    /// Rows to train on, for validation and for testing; of a text, tokens.
    pub rows: [usize; 3],
    /// Whether it is a text.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub text: bool,
}

/// A model or an optimizer of a cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComponentRecord {
    /// The registered name.
    pub name: String,
    /// What reports call it.
    pub label: String,
    /// All settings of a model; those of an optimizer are the cell's hyperparameters.
    #[serde(flatten)]
    pub settings: Values,
}

/// `config.json`: what a cell is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellConfig {
    /// The cell's ID.
    pub cell: String,
    /// The experiment's name.
    pub experiment: String,
    /// The dataset.
    pub dataset: DatasetRecord,
    /// The model with its settings.
    pub model: ComponentRecord,
    /// The optimizer.
    pub optimizer: ComponentRecord,
    /// Every hyperparameter of the optimizer.
    pub hyperparameters: Values,
    /// Hash of what is minimized.
    pub problem: String,
    /// The seed.
    pub seed: u64,
    /// Whether the seed decides anything: the optimizer or the model's start draws at random.
    #[serde(default)]
    pub stochastic: bool,
    /// The fold, where the dataset is split into folds.
    pub fold: Option<usize>,
    /// What it may use up.
    pub budget: Budget,
    /// The value whose first reaching is timed.
    pub target: Option<Target>,
    /// Which iterate is reported.
    pub report: Reported,
    /// When it is evaluated.
    pub evaluate: Schedule,
    /// Whether `inspection.json` is written.
    #[serde(default)]
    pub inspect: bool,
    /// Threads.
    pub threads: usize,
    /// The device that its model lives on.
    #[serde(default, skip_serializing_if = "is_cpu")]
    pub device: DeviceName,
    /// Whether it is given no test rows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub withhold_test: bool,
}

fn is_cpu(device: &DeviceName) -> bool {
    *device == DeviceName::Cpu
}

/// How a cell ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// To its end: converged, stopped by itself, or out of steps or passes.
    Finished,
    /// Out of seconds.
    TimedOut,
    /// Its numbers left the finite ones.
    Diverged,
    /// With an error.
    Failed,
    /// Never run: the parts do not fit.
    Skipped,
    /// Stopped by the user; it goes on when the experiment is run again.
    Interrupted,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Finished => "finished",
            Self::TimedOut => "timed-out",
            Self::Diverged => "diverged",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Interrupted => "interrupted",
        })
    }
}

/// `result.json`: how a cell ended, in numbers. Keys that do not apply are null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "docs/file-formats.md describes each key with its unit")]
pub struct CellResult {
    pub cell: String,
    pub experiment: String,
    pub dataset: String,
    pub model: String,
    pub optimizer: String,
    pub hyperparameters: Values,
    pub seed: u64,
    pub fold: Option<usize>,
    pub problem: String,
    pub status: Status,
    pub reason: String,
    pub findings: Vec<Finding>,
    pub objective: Option<f64>,
    pub train_loss: Option<f64>,
    pub validation_loss: Option<f64>,
    pub test_loss: Option<f64>,
    pub train_accuracy: Option<f64>,
    pub validation_accuracy: Option<f64>,
    pub test_accuracy: Option<f64>,
    pub test_auc: Option<f64>,
    pub train_squared_error: Option<f64>,
    pub validation_squared_error: Option<f64>,
    pub test_squared_error: Option<f64>,
    pub validation_explained_variance: Option<f64>,
    pub validation_explained_beyond_linear: Option<f64>,
    pub test_explained_variance: Option<f64>,
    pub test_explained_beyond_linear: Option<f64>,
    pub validation_bits_per_character: Option<f64>,
    pub validation_grammar_loss: Option<f64>,
    pub validation_fact_loss: Option<f64>,
    pub validation_sum_loss: Option<f64>,
    pub test_bits_per_character: Option<f64>,
    pub test_grammar_loss: Option<f64>,
    pub test_fact_loss: Option<f64>,
    pub test_sum_loss: Option<f64>,
    pub dead_experts: Option<u64>,
    pub parameters_total: Option<u64>,
    pub parameters_active: Option<u64>,
    pub parameters_nonzero: Option<u64>,
    pub parameter_bytes: Option<u64>,
    pub parameter_compressed_bytes: Option<u64>,
    pub optimizer_state_bytes: Option<u64>,
    pub steps: Option<u64>,
    pub data_passes: Option<f64>,
    pub gradient_equivalents: Option<f64>,
    pub flops: Option<f64>,
    pub bytes_moved: Option<f64>,
    pub setup_seconds: Option<f64>,
    pub train_seconds: Option<f64>,
    pub evaluation_seconds: Option<f64>,
    pub record_seconds: Option<f64>,
    pub wall_seconds: Option<f64>,
    pub time_to_target_seconds: Option<f64>,
    pub peak_resident_bytes: Option<u64>,
    pub peak_anonymous_bytes: Option<u64>,
    pub peak_device_bytes: Option<u64>,
    pub gradient_norm: Option<f64>,
}

impl CellResult {
    /// Takes the quality of the reported iterate over: what `value` answers to the names of a trace's columns.
    pub fn take_quality(&mut self, value: impl Fn(&str) -> Option<f64>) {
        self.objective = value("objective");
        self.gradient_norm = value("gradient_norm");
        self.train_loss = value("train_loss");
        self.train_accuracy = value("train_accuracy");
        self.validation_loss = value("validation_loss");
        self.validation_accuracy = value("validation_accuracy");
        self.test_loss = value("test_loss");
        self.test_accuracy = value("test_accuracy");
        self.test_auc = value("test_auc");
        self.train_squared_error = value("train_squared_error");
        self.validation_squared_error = value("validation_squared_error");
        self.test_squared_error = value("test_squared_error");
        self.validation_explained_variance = value("validation_explained_variance");
        self.validation_explained_beyond_linear = value("validation_explained_beyond_linear");
        self.test_explained_variance = value("test_explained_variance");
        self.test_explained_beyond_linear = value("test_explained_beyond_linear");
        self.validation_bits_per_character = value("validation_bits_per_character");
        self.validation_grammar_loss = value("validation_grammar_loss");
        self.validation_fact_loss = value("validation_fact_loss");
        self.validation_sum_loss = value("validation_sum_loss");
        self.test_bits_per_character = value("test_bits_per_character");
        self.test_grammar_loss = value("test_grammar_loss");
        self.test_fact_loss = value("test_fact_loss");
        self.test_sum_loss = value("test_sum_loss");
    }

    /// A result that has nothing but its labels, a status and a reason.
    #[must_use]
    pub fn bare(config: &CellConfig, status: Status, reason: impl Into<String>) -> Self {
        Self {
            cell: config.cell.clone(),
            experiment: config.experiment.clone(),
            dataset: config.dataset.label.clone(),
            model: config.model.label.clone(),
            optimizer: config.optimizer.label.clone(),
            hyperparameters: config.hyperparameters.clone(),
            seed: config.seed,
            fold: config.fold,
            problem: config.problem.clone(),
            status,
            reason: reason.into(),
            findings: Vec::new(),
            objective: None,
            train_loss: None,
            validation_loss: None,
            test_loss: None,
            train_accuracy: None,
            validation_accuracy: None,
            test_accuracy: None,
            test_auc: None,
            train_squared_error: None,
            validation_squared_error: None,
            test_squared_error: None,
            validation_explained_variance: None,
            validation_explained_beyond_linear: None,
            test_explained_variance: None,
            test_explained_beyond_linear: None,
            validation_bits_per_character: None,
            validation_grammar_loss: None,
            validation_fact_loss: None,
            validation_sum_loss: None,
            test_bits_per_character: None,
            test_grammar_loss: None,
            test_fact_loss: None,
            test_sum_loss: None,
            dead_experts: None,
            parameters_total: None,
            parameters_active: None,
            parameters_nonzero: None,
            parameter_bytes: None,
            parameter_compressed_bytes: None,
            optimizer_state_bytes: None,
            steps: None,
            data_passes: None,
            gradient_equivalents: None,
            flops: None,
            bytes_moved: None,
            setup_seconds: None,
            train_seconds: None,
            evaluation_seconds: None,
            record_seconds: None,
            wall_seconds: None,
            time_to_target_seconds: None,
            peak_resident_bytes: None,
            peak_anonymous_bytes: None,
            peak_device_bytes: None,
            gradient_norm: None,
        }
    }

    /// Enters the clock.
    pub fn set_seconds(&mut self, seconds: &Seconds) {
        self.setup_seconds = Some(seconds.setup);
        self.train_seconds = Some(seconds.training);
        self.evaluation_seconds = Some(seconds.evaluation);
        self.record_seconds = Some(seconds.recording);
        self.wall_seconds = Some(seconds.wall);
    }
}

/// `inspection.json`: what statistics knows about a fit, in a few numbers; all of it is told by `parsimony inspect`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct InspectionRecord {
    /// The sum of leverages.
    pub effective_degrees_of_freedom: f64,
    /// Loss per row of training rows left out, one by one.
    pub left_out_loss: Option<f64>,
    /// Share of them whose class is right.
    pub left_out_accuracy: Option<f64>,
    /// Sum of their squared residuals.
    pub press: Option<f64>,
}

impl InspectionRecord {
    /// The numbers of an inspection.
    #[must_use]
    pub fn of(inspection: &Inspection) -> Self {
        Self {
            effective_degrees_of_freedom: inspection.effective_degrees_of_freedom,
            left_out_loss: inspection.left_out_loss,
            left_out_accuracy: inspection.left_out_accuracy,
            press: inspection.press,
        }
    }
}

/// The places of a cell's files.
#[derive(Debug, Clone)]
pub struct CellFolder(PathBuf);

impl CellFolder {
    /// The folder of a cell, which may not exist yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// `config.json`.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.0.join("config.json")
    }

    /// `result.json`.
    #[must_use]
    pub fn result(&self) -> PathBuf {
        self.0.join("result.json")
    }

    /// `environment.json`.
    #[must_use]
    pub fn environment(&self) -> PathBuf {
        self.0.join("environment.json")
    }

    /// `trace.parquet`.
    #[must_use]
    pub fn trace(&self) -> PathBuf {
        self.0.join("trace.parquet")
    }

    /// `test_rows.parquet`.
    #[must_use]
    pub fn test_rows(&self) -> PathBuf {
        self.0.join("test_rows.parquet")
    }

    /// `inspection.json`.
    #[must_use]
    pub fn inspection(&self) -> PathBuf {
        self.0.join("inspection.json")
    }

    /// `weights.safetensors`.
    #[must_use]
    pub fn weights(&self) -> PathBuf {
        self.0.join("weights.safetensors")
    }

    /// `checkpoint.safetensors`.
    #[must_use]
    pub fn checkpoint(&self) -> PathBuf {
        self.0.join("checkpoint.safetensors")
    }

    /// `log.txt`.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.0.join("log.txt")
    }

    /// Every file that holds what the fit came to, the result and the checkpoint apart.
    #[must_use]
    pub fn outcomes(&self) -> [PathBuf; 4] {
        [self.trace(), self.weights(), self.test_rows(), self.inspection()]
    }

    /// The result, if there is a readable one.
    #[must_use]
    pub fn read_result(&self) -> Option<CellResult> {
        serde_json::from_slice(&fs::read(self.result()).ok()?).ok()
    }
}

/// Writes a file under another name and renames it.
///
/// # Errors
/// [`Error::Io`].
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = path.with_file_name(name);
    let write = || {
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_data()
    };
    write().map_err(Error::io(&partial, "write"))?;
    fs::rename(&partial, path).map_err(Error::io(path, "write"))
}

/// Writes a record as JSON.
///
/// # Errors
/// [`Error::Io`].
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::Numeric(format!("{}: not writable as JSON: {error}", path.display())))?;
    text.push('\n');
    write_whole(path, text.as_bytes())
}

/// Reads a record.
///
/// # Errors
/// [`Error::Io`] if it cannot be read, [`Error::Data`] if it is damaged.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).map_err(Error::io(path, "read"))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| DataError::new(path, error, "run the experiment again; if this stays, delete the file").into())
}

/// Removes a file if it is there.
///
/// # Errors
/// [`Error::Io`].
pub fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, "remove")(error)),
        _ => Ok(()),
    }
}

/// The first 16 hexadecimal digits of the SHA-256 of a value's JSON with sorted keys.
#[must_use]
pub fn content_hash(value: &serde_json::Value) -> String {
    let mut text = String::new();
    canonical(value, &mut text);
    Sha256::digest(text.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn canonical(value: &serde_json::Value, out: &mut String) {
    match value {
        serde_json::Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            out.push('{');
            for (key, value) in sorted {
                out.push_str(&serde_json::Value::from(key.as_str()).to_string());
                out.push(':');
                canonical(value, out);
                out.push(',');
            }
            out.push('}');
        }
        serde_json::Value::Array(items) => {
            out.push('[');
            for item in items {
                canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_depends_on_values_and_not_on_the_order_of_keys() {
        let hash = |text: &str| content_hash(&serde_json::from_str(text).unwrap());
        assert_eq!(hash(r#"{"a": 1, "b": [1, 2]}"#), hash(r#"{"b": [1, 2], "a": 1}"#));
        assert_ne!(hash(r#"{"a": 1}"#), hash(r#"{"a": 1.5}"#));
        assert_ne!(hash(r#"["a", "b"]"#), hash(r#"["a,b"]"#));
        assert_eq!(hash("{}").len(), 16);
    }

    #[test]
    fn a_file_with_its_final_name_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        write_json(&path, &[0.1, 1e300]).unwrap();
        write_json(&path, &[0.1, f64::MIN_POSITIVE]).unwrap();
        assert_eq!(read_json::<Vec<f64>>(&path).unwrap(), [0.1, f64::MIN_POSITIVE]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        remove_if_there(&path).unwrap();
        remove_if_there(&path).unwrap();
    }
}
