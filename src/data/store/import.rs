//! `data import`: any file that can be read becomes a store, in bounded memory.

use super::shuffle::Shuffler;
use super::writer::{StoreLabel, StoreWriter, folder_of};
use super::{Provenance, RowOrder, Task};
use crate::data::read::{Format, Outcome, PanelSink, ReadOptions, encode_targets, read_into};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// How a file is imported.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImportOptions {
    /// How it is read.
    pub read: ReadOptions,
    /// A seed shuffles the rows once, so that consecutive rows serve as random minibatches; without one, rows keep
    /// their order.
    pub shuffle: Option<u64>,
    /// The name for reports; the source's path by default.
    pub name: Option<String>,
}

/// What an import did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImportReport {
    /// The store.
    pub store: PathBuf,
    /// The format the source was recognized as.
    pub format: Format,
    /// Rows in the store.
    pub rows: usize,
    /// Names of the features.
    pub columns: Vec<String>,
    /// The target column.
    pub target: Option<String>,
    /// What the targets are.
    pub task: Task,
    /// Rows left out because a value was missing.
    pub dropped_rows: u64,
    /// Whether the rows stand as in the source.
    pub order: RowOrder,
    /// SHA-256 of the source.
    pub fingerprint: String,
    /// Size of the store in bytes.
    pub bytes: u64,
    /// Time taken in seconds.
    pub seconds: f64,
}

/// Imports `source` into a store at `out`, which is replaced if it exists. `progress` is told how many bytes of the
/// source are done, and how many there are.
///
/// # Errors
/// As [`crate::data::read()`]; and if the store cannot be written, or `data import` is interrupted. Then nothing stands at `out` that was not there.
pub fn import(source: &Path, out: &Path, options: &ImportOptions, progress: &dyn Fn(u64, u64)) -> Result<ImportReport> {
    let start = Instant::now();
    if let (Ok(a), Ok(b)) = (source.canonicalize(), out.canonicalize())
        && a == b
    {
        let finding = format!("{} is both the source and the store to be written", source.display());
        return Err(Error::config("import", finding, "write the store to another path"));
    }
    if options.read.target_prefix().is_some() {
        let finding = "several targets, and a store keeps one";
        return Err(Error::config("target", finding, "use the file as it is, or import one column as the target"));
    }
    let (outcome, writer, targets, task) = match options.shuffle {
        None => {
            let mut sink = Lazy { path: out, writer: None };
            let outcome = read_into(source, &options.read, None, &mut sink, progress)?;
            let (targets, task) = encode_targets(source, &options.read, &outcome)?;
            let writer = sink.take(&outcome)?;
            (outcome, writer, targets, task)
        }
        Some(seed) => {
            let mut shuffler = Shuffler::new(folder_of(out), seed)?;
            let outcome = read_into(source, &options.read, None, &mut shuffler, progress)?;
            let (targets, task) = encode_targets(source, &options.read, &outcome)?;
            let mut writer = StoreWriter::create(out, &outcome.columns)?;
            let order = shuffler.finish(&mut writer, &outcome.columns)?;
            let targets = order.iter().map(|&row| targets[row as usize]).collect();
            (outcome, writer, targets, task)
        }
    };
    let order = options.shuffle.map_or(RowOrder::AsRead, |seed| RowOrder::Shuffled { seed });
    let name = options.name.clone().unwrap_or_else(|| source.display().to_string());
    let provenance = Provenance {
        source: source.display().to_string(),
        options: serde_json::to_value(&options.read).unwrap_or_default(),
        target: outcome.target_name.clone(),
        dropped_rows: outcome.dropped,
        program: String::new(),
    };
    let fingerprint = outcome.fingerprint.clone();
    let label = StoreLabel { name, simulated: false, fingerprint, task: task.clone(), order, provenance };
    let bytes = writer.finish(&targets, label)?;
    Ok(ImportReport {
        store: out.to_owned(),
        format: outcome.format,
        rows: outcome.rows,
        columns: outcome.columns,
        target: outcome.target_name,
        task,
        dropped_rows: outcome.dropped,
        order,
        fingerprint: outcome.fingerprint,
        bytes,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// A store that is begun once the columns are known.
struct Lazy<'a> {
    path: &'a Path,
    writer: Option<StoreWriter>,
}

impl Lazy<'_> {
    fn take(self, outcome: &Outcome) -> Result<StoreWriter> {
        self.writer.map_or_else(|| StoreWriter::create(self.path, &outcome.columns), Ok)
    }
}

impl PanelSink for Lazy<'_> {
    fn begin(&mut self, columns: &[String]) -> Result<()> {
        self.writer = Some(StoreWriter::create(self.path, columns)?);
        Ok(())
    }

    fn push(&mut self, panel: &[f32], rows: usize) -> Result<()> {
        // `begin` comes before the first panel.
        self.writer.as_mut().map_or(Ok(()), |writer| writer.push_panel(panel, rows))
    }
}
