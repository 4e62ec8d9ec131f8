//! `higgs-sim`: a toy Monte Carlo of the events behind the HIGGS dataset (Baldi, Sadowski and Whiteson 2014).
//!
//! Signal g g -> H0(425) -> W H+-(325) -> W W h0(125) -> W W b b against g g -> t t -> W b W b, both with one leptonic
//! W, through a model of radiation and of the detector to the 28 columns of the UCI file in its units. Events are
//! *simulated*: they resemble the real ones column by column and class by class, and a classifier can still tell them
//! apart. docs/higgs-sim.md has the chain, the fit and the measured differences.

mod detector;
mod features;
mod kinematics;
mod parameters;
mod process;
mod rng;
#[cfg(test)]
mod tests;
mod write;

use super::{RowOrder, Table, Task};
use crate::device::{PANEL_ROWS, Panels};
use detector::{Detector, Measured};
pub use features::FEATURE_NAMES;
pub use parameters::Parameters;
use process::{Generator, HardEvent};
use rayon::prelude::*;
use rng::Rng;
use sha2::{Digest, Sha256};
pub use write::{write_csv, write_store};

/// Raised whenever the events of a given seed change.
pub const SIMULATOR_VERSION: u32 = 1;

/// Events in one chunk: a chunk is a panel.
pub const CHUNK_EVENTS: usize = PANEL_ROWS;

/// The name under which simulated events appear everywhere.
pub const NAME: &str = "higgs-sim";

/// A source of simulated events, the same for the same seed.
#[derive(Debug)]
pub struct Simulator {
    seed: u64,
    parameters: Parameters,
    generator: Generator,
    detector: Detector,
}

impl Simulator {
    /// The simulator with the fitted parameters.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_parameters(seed, Parameters::default())
    }

    /// The simulator with other parameters, for studies and for fitting; its events are no longer those that the
    /// name, version and seed stand for. Under parameters that let no event pass the selection, [`Self::chunk`] does not
    /// return.
    #[must_use]
    pub fn with_parameters(seed: u64, parameters: Parameters) -> Self {
        Self { seed, generator: Generator::new(&parameters), detector: Detector::new(&parameters), parameters }
    }

    /// Writes the events `chunk * CHUNK_EVENTS ..` of this seed: 0/1 labels (1 is signal) and features column after
    /// column, `features[j * CHUNK_EVENTS + i]`. The result depends on seed and chunk alone.
    ///
    /// # Panics
    /// If `labels` or `features` is shorter than one chunk.
    pub fn chunk(&self, chunk: u64, labels: &mut [f32], features: &mut [f32]) {
        assert!(labels.len() >= CHUNK_EVENTS && features.len() >= FEATURE_NAMES.len() * CHUNK_EVENTS);
        let rng = &mut Rng::new(self.seed, chunk);
        let (mut hard, mut measured) = (HardEvent::default(), Measured::default());
        for (i, label) in labels[..CHUNK_EVENTS].iter_mut().enumerate() {
            let signal = rng.chance(self.parameters.signal_fraction);
            *label = f32::from(u8::from(signal));
            while !(self.generator.draw(signal, rng, &mut hard) && self.detector.measure(&hard, rng, &mut measured)) {}
            features::write(&measured, &self.parameters, rng, |column, value| {
                features[column * CHUNK_EVENTS + i] = value;
            });
        }
    }

    /// Writes `rows` events from chunk `first` on, in parallel, into panels that are padded with zeros beyond them.
    fn chunks(&self, first: u64, rows: usize, labels: &mut [f32], features: &mut [f32]) {
        let columns = FEATURE_NAMES.len();
        features
            .par_chunks_mut(CHUNK_EVENTS * columns)
            .zip(labels.par_chunks_mut(CHUNK_EVENTS))
            .enumerate()
            .for_each(|(chunk, (features, labels))| self.chunk(first + chunk as u64, labels, features));
        if !rows.is_multiple_of(CHUNK_EVENTS) {
            let last = rows / CHUNK_EVENTS * CHUNK_EVENTS;
            labels[rows..].fill(0.0);
            for column in features[last * columns..].chunks_mut(CHUNK_EVENTS) {
                column[rows - last..].fill(0.0);
            }
        }
    }
}

/// Names of the classes, background and signal, as they stand in the real files: what is trained on simulated events
/// can be applied to real ones. `datasets/higgs-sim.toml` has the names for people.
pub const CLASS_NAMES: [&str; 2] = ["0", "1"];

/// SHA-256 of what decides the events: name, version, seed and number of rows.
#[must_use]
pub fn fingerprint(seed: u64, rows: usize) -> String {
    let source = format!("{NAME} version {SIMULATOR_VERSION} seed {seed} rows {rows}");
    Sha256::digest(source.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that a table of so many events takes: its features and targets in whole panels.
#[must_use]
pub fn table_bytes(rows: usize) -> u64 {
    4 * (FEATURE_NAMES.len() as u64 + 1) * (rows as u64).next_multiple_of(PANEL_ROWS as u64)
}

/// `rows` simulated events as a table: column names as in the UCI file, classes `0` (background) and `1` (signal).
///
/// The events are the first `rows` of this seed, whatever the number of threads.
#[must_use]
pub fn generate(seed: u64, rows: usize) -> Table {
    let columns = FEATURE_NAMES.len();
    let panels = rows.div_ceil(CHUNK_EVENTS);
    let mut features = vec![0.0; panels * CHUNK_EVENTS * columns];
    let mut targets = vec![0.0; panels * CHUNK_EVENTS];
    Simulator::new(seed).chunks(0, rows, &mut targets, &mut features);
    Table {
        name: NAME.to_owned(),
        order: RowOrder::AsRead,
        simulated: true,
        fingerprint: fingerprint(seed, rows),
        features: Panels::from_values(features, rows, columns),
        targets: Panels::from_values(targets, rows, 1),
        task: Task::Classes(CLASS_NAMES.map(str::to_owned).to_vec()),
        columns: FEATURE_NAMES.map(str::to_owned).to_vec(),
    }
}
