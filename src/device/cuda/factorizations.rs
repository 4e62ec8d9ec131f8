//! Cholesky factors and inverses of positive-definite matrices on a GPU (`kernels/cholesky.cu`).
//!
//! Matrices of any sizes share their launches: the grid's second dimension is the matrix, and a table on the device names each.
//! The host waits once for all of them, for a mark at each matrix that is not positive definite.

use super::arrays::{Cuda, address, arguments, flat, matrix};
use super::machine::{Argument, Memory, THREADS};
use crate::device::array::{Array, View};
use crate::device::cpu::linalg;
use crate::error::Result;

/// `CHOLESKY_TILE` of `kernels/cholesky.cu`.
const TILE: usize = 32;
/// Rows of a panel that a block takes at once, a warp each.
const PANEL_ROWS: usize = THREADS as usize / 32;
/// Matrices that share a launch at most: as many as the grid's second dimension may have.
const TOGETHER: usize = 65_535;

impl Cuda {
    /// The lower Cholesky factors of symmetric matrices with a ridge each on their diagonals, or with `inverse` their inverses.
    ///
    /// # Errors
    /// If a sum is not positive definite, or the first fault of the device.
    pub(super) fn factorized(&self, of: &[(View<'_>, f64)], inverse: bool) -> Result<Vec<Array>> {
        let sizes: Vec<usize> = of.iter().map(|(a, _)| a.shape.rows).collect();
        assert!(of.iter().all(|(a, _)| a.shape.rows == a.shape.columns), "square matrices");
        let results: Vec<Array> = sizes.iter().map(|n| self.new_array(n * n)).collect();
        let room = Memory::new(&self.core, sizes.iter().map(|n| n * n).sum::<usize>() * size_of::<f64>());
        let mut place = room.address();
        let mut table: Vec<[u64; 6]> = Vec::with_capacity(of.len());
        for ((a, ridge), result) in of.iter().zip(&results) {
            let a = matrix(*a);
            table.push([a.values, place, address(result), ridge.to_bits(), a.rows as u64, a.stride as u64]);
            place += (result.len() * size_of::<f64>()) as u64;
        }
        let mut marks = vec![0_u32; of.len()];
        for ((table, sizes), marks) in
            table.chunks(TOGETHER).zip(sizes.chunks(TOGETHER)).zip(marks.chunks_mut(TOGETHER))
        {
            let largest = sizes.iter().copied().max().unwrap_or(0);
            if largest > 0 {
                self.factorize(table, largest, inverse, marks);
            }
        }
        self.core.check()?;
        match marks.iter().position(|&mark| mark != 0) {
            Some(place) => Err(linalg::not_positive_definite(sizes[place])),
            None => Ok(results),
        }
    }

    /// The launches for the matrices of a table, and their marks.
    fn factorize(&self, table: &[[u64; 6]], largest: usize, inverse: bool, marks: &mut [u32]) {
        let count = table.len() as u32;
        let (named, kept) =
            (Memory::with(&self.core, table.as_flattened()), Memory::new(&self.core, size_of_val(marks)));
        let (matrices, kept_at) = (named.address(), kept.address());
        let launch = |kernel, blocks: usize, arguments: &[Argument]| {
            if blocks > 0 {
                self.core.launch(kernel, [blocks as u32, count], arguments);
            }
        };
        let elements = flat(largest * largest)[0] as usize;
        launch("cholesky_read", elements, arguments![matrices, kept_at]);
        let tiles = largest.div_ceil(TILE);
        for k in 0..tiles {
            let (first, right) = (k * TILE, tiles - k - 1);
            let (rows, down) = if inverse { (largest, tiles) } else { (right * TILE, right) };
            launch("cholesky_tile", 1, arguments![matrices, first, kept_at]);
            launch("cholesky_panel", rows.div_ceil(PANEL_ROWS), arguments![matrices, first, inverse]);
            launch("cholesky_update", right * down, arguments![matrices, first, right, inverse]);
        }
        if inverse {
            launch("cholesky_inverse", tiles * tiles, arguments![matrices, tiles]);
        } else {
            launch("cholesky_factor", elements, arguments![matrices]);
        }
        kept.read(0, marks);
    }
}
