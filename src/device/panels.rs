//! An `n x d` matrix of `f32` stored in row panels: the form in which every dataset meets every kernel.
//!
//! Rows are grouped in panels of [`PANEL_ROWS`]; inside a panel the columns follow one another, each contiguous.
//! A kernel therefore reads whole vectors of rows of one column, and a panel of a few dozen columns fits in cache.
//! The last panel is padded with zeros. Row `i`, column `j` is found at
//! `(i / PANEL_ROWS) * d * PANEL_ROWS + j * PANEL_ROWS + i % PANEL_ROWS`.
//!
//! Of a mapped file, no more than [`keep_resident`] allows stays in this process's memory: panels beyond are brought in
//! piece by piece ahead of their use ([`Panels::pieces`]) and let go afterwards. They stay in the system's page cache as
//! long as it has room, so that with enough memory nothing is read twice from the disk.

use memmap2::{Advice, Mmap, UncheckedAdvice};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Rows in a panel.
pub const PANEL_ROWS: usize = 256;

/// Where the numbers of a [`Panels`] lie.
#[derive(Clone)]
enum Storage {
    /// A vector inside an `Arc`, so that gigabytes are taken over as they are rather than copied.
    Owned(Arc<Vec<f32>>),
    /// A memory-mapped file.
    Mapped(Arc<Mapped>),
}

struct Mapped {
    map: Arc<Mmap>,
    /// The byte range of the panels (start aligned to 4 bytes at least).
    bytes: Range<usize>,
    /// So many bytes from the start may stay resident.
    kept: usize,
    /// Bytes beyond them that single rows have brought in since the last were let go.
    scattered: AtomicU64,
}

/// Bytes of mapped files that may still be kept.
static ALLOWANCE: AtomicU64 = AtomicU64::new(u64::MAX);

/// Lets panels mapped from now on keep `bytes` resident in all.
pub fn keep_resident(bytes: u64) {
    ALLOWANCE.store(bytes, Ordering::Relaxed);
}

/// Bytes of a piece that is brought in at once.
const PIECE: usize = 8 << 20;

/// An immutable `rows x columns` matrix of `f32` in row panels; cloning shares the numbers.
#[derive(Clone)]
pub struct Panels {
    storage: Storage,
    rows: usize,
    columns: usize,
}

/// How many `f32` a matrix of `rows x columns` takes in panels, padding included.
#[must_use]
pub fn panel_len(rows: usize, columns: usize) -> usize {
    rows.div_ceil(PANEL_ROWS) * PANEL_ROWS * columns
}

impl Panels {
    /// Takes numbers already laid out in panels.
    ///
    /// # Panics
    /// If `values` is not `panel_len(rows, columns)` long.
    #[must_use]
    pub fn from_values(values: Vec<f32>, rows: usize, columns: usize) -> Self {
        assert_eq!(values.len(), panel_len(rows, columns), "panel storage of {rows} x {columns}");
        Self { storage: Storage::Owned(Arc::new(values)), rows, columns }
    }

    /// Serves panels from a byte range of a mapped file.
    ///
    /// # Panics
    /// If the range does not hold exactly `panel_len(rows, columns)` numbers or is not aligned to 4 bytes.
    #[must_use]
    pub fn from_map(map: Arc<Mmap>, bytes: Range<usize>, rows: usize, columns: usize) -> Self {
        assert_eq!(bytes.len(), 4 * panel_len(rows, columns), "mapped panels of {rows} x {columns}");
        assert!(map[bytes.clone()].as_ptr().cast::<f32>().is_aligned(), "mapped panels must be aligned");
        let mut kept = 0;
        ALLOWANCE.update(Ordering::Relaxed, Ordering::Relaxed, |allowance| {
            kept = allowance.min(bytes.len() as u64);
            allowance - kept
        });
        let mapped = Mapped { map, bytes, kept: kept as usize, scattered: AtomicU64::new(0) };
        Self { storage: Storage::Mapped(Arc::new(mapped)), rows, columns }
    }

    /// Lays out rows given by a function of `(row, column)`.
    #[must_use]
    pub fn from_fn(rows: usize, columns: usize, mut f: impl FnMut(usize, usize) -> f32) -> Self {
        let mut values = vec![0.0; panel_len(rows, columns)];
        for row in 0..rows {
            let base = row / PANEL_ROWS * PANEL_ROWS * columns + row % PANEL_ROWS;
            for column in 0..columns {
                values[base + column * PANEL_ROWS] = f(row, column);
            }
        }
        Self::from_values(values, rows, columns)
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Whether the numbers are served from a mapped file.
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        matches!(self.storage, Storage::Mapped(_))
    }

    /// All panels, one after another.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        match &self.storage {
            Storage::Owned(values) => values,
            Storage::Mapped(mapped) => {
                let bytes = &mapped.map[mapped.bytes.clone()];
                // SAFETY: the constructor checked length and alignment; every bit pattern is an f32; the map is
                // read-only and lives as long as `self`.
                unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / 4) }
            }
        }
    }

    /// Panel `index`: `columns * PANEL_ROWS` numbers, column after column.
    #[must_use]
    pub fn panel(&self, index: usize) -> &[f32] {
        let size = self.columns * PANEL_ROWS;
        &self.values()[index * size..(index + 1) * size]
    }

    /// Brings in what may stay, so that the first pass over it meets no page faults.
    pub fn bring_in(&self) {
        if let Storage::Mapped(mapped) = &self.storage {
            mapped.advise(0..mapped.kept, Some(Advice::PopulateRead));
        }
    }

    /// Follows a walk over consecutive panels.
    #[must_use]
    pub fn pieces(&self) -> Pieces {
        let mapped = match &self.storage {
            Storage::Mapped(mapped) if mapped.kept < mapped.bytes.len() => Some(Arc::clone(mapped)),
            _ => None,
        };
        Pieces { mapped, panel_bytes: 4 * self.columns * PANEL_ROWS, held: 0..0 }
    }

    /// Tells that `rows` single rows were used, each of which may have brought in the pages of a whole panel.
    pub fn scattered(&self, rows: usize) {
        let Storage::Mapped(mapped) = &self.storage else { return };
        if mapped.kept >= mapped.bytes.len() {
            return;
        }
        let bytes = (rows * 4 * self.columns * PANEL_ROWS) as u64;
        if mapped.scattered.fetch_add(bytes, Ordering::Relaxed) + bytes > (8 * PIECE) as u64 {
            mapped.scattered.store(0, Ordering::Relaxed);
            mapped.advise(mapped.kept..mapped.bytes.len(), None);
        }
    }

    /// One number.
    #[must_use]
    pub fn get(&self, row: usize, column: usize) -> f32 {
        debug_assert!(row < self.rows && column < self.columns);
        self.panel(row / PANEL_ROWS)[column * PANEL_ROWS + row % PANEL_ROWS]
    }

    /// The rows named by `indices`, in that order, as a matrix of its own in memory.
    #[must_use]
    pub fn gather(&self, indices: &[usize]) -> Self {
        Self::from_fn(indices.len(), self.columns, |row, column| self.get(indices[row], column))
    }
}

impl Mapped {
    /// Advises the system about a range of the panels' bytes; without advice, lets its pages go.
    fn advise(&self, range: Range<usize>, advice: Option<Advice>) {
        const PAGE: usize = 4096;
        // Pages that lie in the range only in part are brought in but not let go: a neighbour may use them.
        let (start, end) = (self.bytes.start + range.start, self.bytes.start + range.end);
        let (start, end) = match advice {
            Some(_) => (start / PAGE * PAGE, end.next_multiple_of(PAGE).min(self.map.len())),
            None => (start.next_multiple_of(PAGE), end / PAGE * PAGE),
        };
        if start >= end {
            return;
        }
        // Where the system does not know the advice, pages come and go as it sees fit.
        let _ = match advice {
            Some(advice) => self.map.advise_range(advice, start, end - start),
            // SAFETY: the map is of a file and read-only, so that pages let go come back with the same content.
            None => unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start) },
        };
    }
}

/// Brings in the pieces of a mapped file that a walk over its panels comes to, and lets them go behind it.
pub struct Pieces {
    /// None where everything may stay.
    mapped: Option<Arc<Mapped>>,
    panel_bytes: usize,
    /// The bytes that were brought in last.
    held: Range<usize>,
}

impl Pieces {
    /// Tells that `panel` comes next.
    #[inline]
    pub fn reach(&mut self, panel: usize) {
        let Some(mapped) = &self.mapped else { return };
        let start = panel * self.panel_bytes;
        if start < mapped.kept || self.held.contains(&start) {
            return;
        }
        mapped.advise(self.held.clone(), None);
        let end = (start + PIECE.max(self.panel_bytes)).min(mapped.bytes.len());
        mapped.advise(start..end, Some(Advice::PopulateRead));
        // What follows is read from the disk meanwhile.
        mapped.advise(end..(end + PIECE).min(mapped.bytes.len()), Some(Advice::WillNeed));
        self.held = start..end;
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        if let Some(mapped) = &self.mapped {
            mapped.advise(self.held.clone(), None);
        }
    }
}

impl std::fmt::Debug for Panels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.is_mapped() { "mapped" } else { "in memory" };
        write!(f, "Panels({} x {}, {kind})", self.rows, self.columns)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[test]
    fn rows_are_found_again_across_panels() {
        let panels = Panels::from_fn(PANEL_ROWS + 3, 5, |r, c| (10 * r + c) as f32);
        assert_eq!(panels.get(0, 4), 4.0);
        assert_eq!(panels.get(PANEL_ROWS + 2, 1), (10 * (PANEL_ROWS + 2) + 1) as f32);
        let gathered = panels.gather(&[PANEL_ROWS, 1]);
        assert_eq!(gathered.get(0, 3), (10 * PANEL_ROWS + 3) as f32);
        assert_eq!(gathered.get(1, 0), 10.0);
    }

    #[test]
    fn what_may_not_stay_is_let_go_and_comes_back_as_it_was() {
        let panels = mapped(&Panels::from_fn(40 * PANEL_ROWS, 64, |r, c| (64 * r + c) as f32), 100_000);
        panels.bring_in();
        for _ in 0..2 {
            let mut pieces = panels.pieces();
            for panel in 0..40 {
                pieces.reach(panel);
                assert_eq!(panels.panel(panel)[5], (64 * (panel * PANEL_ROWS + 5)) as f32);
            }
            panels.scattered(10_000);
            assert_eq!(panels.get(40 * PANEL_ROWS - 1, 63), (64 * 40 * PANEL_ROWS - 1) as f32);
        }
    }

    /// The same numbers from a mapped file of which `kept` bytes may stay.
    pub fn mapped(panels: &Panels, kept: usize) -> Panels {
        let numbers: Vec<u8> = panels.values().iter().flat_map(|number| number.to_le_bytes()).collect();
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &numbers).unwrap();
        // SAFETY: nobody else has the file.
        let map = Arc::new(unsafe { Mmap::map(&file).unwrap() });
        let mapped = Mapped { map, bytes: 0..numbers.len(), kept, scattered: AtomicU64::new(0) };
        Panels { storage: Storage::Mapped(Arc::new(mapped)), rows: panels.rows(), columns: panels.columns() }
    }
}
