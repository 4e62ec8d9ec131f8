//! An `n x d` matrix of `f32` stored in row panels: the form in which every dataset meets every kernel.
//!
//! Rows are grouped in panels of [`PANEL_ROWS`]; inside a panel the columns follow one another, each contiguous.
//! A kernel therefore reads whole vectors of rows of one column, and a panel of a few dozen columns fits in cache.
//! The last panel is padded with zeros. Row `i`, column `j` is found at
//! `(i / PANEL_ROWS) * d * PANEL_ROWS + j * PANEL_ROWS + i % PANEL_ROWS`.

use memmap2::Mmap;
use std::ops::Range;
use std::sync::Arc;

/// Rows in a panel.
pub const PANEL_ROWS: usize = 256;

/// Where the numbers of a [`Panels`] lie.
#[derive(Clone)]
enum Storage {
    /// A vector inside an `Arc`, so that gigabytes are taken over as they are rather than copied.
    Owned(Arc<Vec<f32>>),
    /// A memory-mapped file and the byte range of the panels within it (start aligned to 4 bytes at least).
    Mapped(Arc<Mmap>, Range<usize>),
}

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
        Self { storage: Storage::Mapped(map, bytes), rows, columns }
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
        matches!(self.storage, Storage::Mapped(..))
    }

    /// All panels, one after another.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        match &self.storage {
            Storage::Owned(values) => values,
            Storage::Mapped(map, bytes) => {
                let bytes = &map[bytes.clone()];
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

impl std::fmt::Debug for Panels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.is_mapped() { "mapped" } else { "in memory" };
        write!(f, "Panels({} x {}, {kind})", self.rows, self.columns)
    }
}

#[cfg(test)]
mod tests {
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
}
