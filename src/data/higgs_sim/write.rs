//! Simulated events straight into a file: made, written and forgotten batch by batch, so that their number is bounded by
//! the disk alone.

use super::{CHUNK_EVENTS, CLASS_NAMES, FEATURE_NAMES, NAME, SIMULATOR_VERSION, Simulator, fingerprint};
use crate::data::interrupt;
use crate::data::store::{Provenance, StoreLabel, StoreWriter, file_beside, folder_of};
use crate::data::{RowOrder, Task};
use crate::error::{Error, Result};
use rayon::prelude::*;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Events in memory at a time: some 30 MB.
const BATCH_EVENTS: usize = 1024 * CHUNK_EVENTS;
/// Numbers in one panel of features.
const PANEL: usize = FEATURE_NAMES.len() * CHUNK_EVENTS;

/// Writes the first `rows` events of a seed as a store. `progress` is told how many are done. What [`super::generate`]
/// makes of the same seed and rows has the same numbers and the same fingerprint.
///
/// # Errors
/// If a file cannot be written in the folder of `out`, or the user asks to stop. Then nothing is left there.
pub fn write_store(seed: u64, rows: usize, out: &Path, progress: &dyn Fn(usize)) -> Result<()> {
    let mut writer = StoreWriter::create(out, &FEATURE_NAMES.map(str::to_owned))?;
    // In a store the targets follow all of the features; until then they wait in a file without a name.
    let folder = folder_of(out);
    let scratch = tempfile::tempfile_in(folder).map_err(Error::io(folder, "create a scratch file in"))?;
    let mut scratch = BufWriter::new(scratch);
    for_each_batch(seed, rows, progress, &mut |batch| {
        for (panel, labels) in batch.features.chunks(PANEL).zip(batch.labels.chunks(CHUNK_EVENTS)) {
            writer.push_panel(panel, labels.len())?;
        }
        // A label is 0 or 1: a byte holds it.
        let bytes: Vec<u8> = batch.labels.iter().map(|&label| label as u8).collect();
        scratch.write_all(&bytes).map_err(Error::io(folder, "write a scratch file in"))
    })?;
    let label = StoreLabel {
        name: NAME.to_owned(),
        simulated: true,
        fingerprint: fingerprint(seed, rows),
        task: Task::Classes(CLASS_NAMES.map(str::to_owned).to_vec()),
        order: RowOrder::AsRead,
        provenance: Provenance {
            source: format!("{NAME} version {SIMULATOR_VERSION}"),
            options: serde_json::json!({ "seed": seed, "rows": rows }),
            ..Provenance::default()
        },
    };
    let mut scratch =
        scratch.into_inner().map_err(|error| Error::io(folder, "write a scratch file in")(error.into()))?;
    scratch.seek(SeekFrom::Start(0)).map_err(Error::io(folder, "read a scratch file in"))?;
    let mut labels = BufReader::new(scratch);
    let parts = (0..rows).step_by(BATCH_EVENTS).map(|start| {
        let mut bytes = vec![0; BATCH_EVENTS.min(rows - start)];
        labels.read_exact(&mut bytes).map_err(Error::io(folder, "read a scratch file in"))?;
        Ok(bytes.into_iter().map(f32::from).collect::<Vec<_>>())
    });
    writer.finish_in_parts(parts, label).map(drop)
}

/// Writes the first `rows` events of a seed as CSV: label first, then the features, without a header, which is the
/// layout of the HIGGS file. Numbers are the shortest that read back to the same `f32`.
///
/// # Errors
/// As [`write_store`].
pub fn write_csv(seed: u64, rows: usize, out: &Path, progress: &dyn Fn(usize)) -> Result<()> {
    let mut file = file_beside(out)?;
    for_each_batch(seed, rows, progress, &mut |batch| {
        let panels = batch.features.par_chunks(PANEL).zip(batch.labels.par_chunks(CHUNK_EVENTS));
        let texts: Vec<Vec<u8>> = panels.map(|(panel, labels)| csv(panel, labels)).collect();
        texts.iter().try_for_each(|text| file.write_all(text)).map_err(Error::io(out, "write"))
    })?;
    file.persist(out).map_err(|error| Error::io(out, "create")(error.error))?;
    Ok(())
}

/// The lines of one panel.
fn csv(panel: &[f32], labels: &[f32]) -> Vec<u8> {
    let mut text = String::with_capacity(labels.len() * FEATURE_NAMES.len() * 12);
    for (row, label) in labels.iter().enumerate() {
        text.push_str(&label.to_string());
        for value in panel[row..].iter().step_by(CHUNK_EVENTS) {
            text.push(',');
            text.push_str(&value.to_string());
        }
        text.push('\n');
    }
    text.into_bytes()
}

/// Consecutive events: whole panels of features, the last padded with zeros, and a label for each event.
struct Batch<'a> {
    features: &'a [f32],
    labels: &'a [f32],
}

/// Makes the events in order, a batch at a time and the panels of a batch in parallel.
fn for_each_batch(
    seed: u64,
    rows: usize,
    progress: &dyn Fn(usize),
    consume: &mut dyn FnMut(Batch<'_>) -> Result<()>,
) -> Result<()> {
    let simulator = Simulator::new(seed);
    let room = rows.div_ceil(CHUNK_EVENTS).min(BATCH_EVENTS / CHUNK_EVENTS);
    let (mut features, mut labels) = (vec![0.0; room * PANEL], vec![0.0; room * CHUNK_EVENTS]);
    for start in (0..rows).step_by(BATCH_EVENTS) {
        interrupt::check()?;
        let count = BATCH_EVENTS.min(rows - start);
        let panels = count.div_ceil(CHUNK_EVENTS);
        simulator.chunks((start / CHUNK_EVENTS) as u64, count, &mut labels, &mut features[..panels * PANEL]);
        consume(Batch { features: &features[..panels * PANEL], labels: &labels[..count] })?;
        progress(start + count);
    }
    Ok(())
}
