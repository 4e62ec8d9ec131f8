//! Shuffling rows on their way to a store, in memory that does not grow with their number (but for four bytes a row).
//!
//! Each row goes to one of [`BUCKETS`] buckets drawn at random, kept in a scratch file; at the end each bucket is read
//! back, shuffled in memory, and written after the one before (Rao 1961, Sandelius 1962): every order of the rows is
//! equally likely, whatever their number, which need not be known. Memory holds one bucket, 1/256 of the data.

use crate::data::read::{Assembler, PanelSink};
use crate::data::split::{below, shuffle};
use crate::device::PANEL_ROWS;
use crate::error::{Error, Result};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Fixed, so that the order depends on the seed and the number of rows alone.
const BUCKETS: usize = 256;
/// Bytes of a bucket that are held back before they are written.
const BUFFER: usize = 1 << 16;

/// Collects rows and gives them back shuffled.
pub(super) struct Shuffler {
    folder: PathBuf,
    scratch: File,
    written: u64,
    rng: ChaCha8Rng,
    buckets: Vec<Bucket>,
    width: usize,
    rows: u32,
}

#[derive(Default)]
struct Bucket {
    /// Rows not in the scratch file yet, as bytes.
    pending: Vec<u8>,
    /// Parts in the scratch file: offset and length.
    parts: Vec<(u64, usize)>,
    /// Numbers of its rows in the source.
    rows: Vec<u32>,
}

impl Shuffler {
    /// The scratch file has no name and vanishes with the program; it takes as much room as the store.
    pub(super) fn new(folder: &Path, seed: u64) -> Result<Self> {
        let scratch = tempfile::tempfile_in(folder).map_err(Error::io(folder, "create a scratch file in"))?;
        let buckets = (0..BUCKETS).map(|_| Bucket::default()).collect();
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Ok(Self { folder: folder.to_owned(), scratch, written: 0, rng, buckets, width: 0, rows: 0 })
    }

    /// Gives all rows to `sink` in their new order; returns which row of the source stands at each place.
    pub(super) fn finish(mut self, sink: &mut dyn PanelSink, columns: &[String]) -> Result<Vec<u32>> {
        let mut order = Vec::with_capacity(self.rows as usize);
        let mut rows = Assembler::new(sink);
        rows.begin(columns)?;
        let mut row = vec![0.0; self.width];
        for bucket in std::mem::take(&mut self.buckets) {
            let mut bytes = Vec::new();
            for (offset, length) in bucket.parts {
                self.scratch
                    .seek(SeekFrom::Start(offset))
                    .map_err(Error::io(&self.folder, "read a scratch file in"))?;
                let part = Read::by_ref(&mut self.scratch).take(length as u64).read_to_end(&mut bytes);
                part.map_err(Error::io(&self.folder, "read a scratch file in"))?;
            }
            bytes.extend_from_slice(&bucket.pending);
            let mut places: Vec<usize> = (0..bucket.rows.len()).collect();
            shuffle(&mut places, &mut self.rng);
            for place in places {
                let numbers = bytes[place * 4 * self.width..].chunks_exact(4);
                for (slot, number) in row.iter_mut().zip(numbers) {
                    *slot = f32::from_le_bytes([number[0], number[1], number[2], number[3]]);
                }
                rows.push_rows(&row)?;
                order.push(bucket.rows[place]);
            }
        }
        rows.finish()?;
        Ok(order)
    }
}

impl PanelSink for Shuffler {
    fn begin(&mut self, columns: &[String]) -> Result<()> {
        self.width = columns.len();
        Ok(())
    }

    fn push(&mut self, panel: &[f32], rows: usize) -> Result<()> {
        for row in 0..rows {
            let bucket = &mut self.buckets[below(BUCKETS as u64, &mut self.rng) as usize];
            bucket.pending.extend(panel[row..].iter().step_by(PANEL_ROWS).flat_map(|number| number.to_le_bytes()));
            bucket.rows.push(self.rows);
            self.rows = self.rows.checked_add(1).ok_or_else(|| {
                Error::Numeric("more than 4,294,967,295 rows cannot be shuffled; import them in their order".into())
            })?;
            if bucket.pending.len() >= BUFFER {
                self.scratch.write_all(&bucket.pending).map_err(Error::io(&self.folder, "write a scratch file in"))?;
                bucket.parts.push((self.written, bucket.pending.len()));
                self.written += bucket.pending.len() as u64;
                bucket.pending.clear();
            }
        }
        Ok(())
    }
}
