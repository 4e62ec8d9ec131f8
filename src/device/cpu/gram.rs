//! Weighted Gram matrices `sum_i w_i z_i z_i'` of tiles, the heart of Fisher scoring.
//!
//! A tile is `D x 256`: design columns one after another. Up to [`REGISTER_LIMIT`] columns, 4 x 4 blocks of the lower
//! triangle are summed in vector registers along the rows; beyond, blocks of columns go through the `gemm` crate's
//! matrix product. Either way sums run in `T` over at most [`FLUSH_TILES`] tiles and are then added up in `f64`.

use super::buffer::Buffer;
use super::real::Real;
use crate::device::PANEL_ROWS;
use gemm::Parallelism;
use pulp::Simd;

/// Largest number of columns for which the register kernel is used.
const REGISTER_LIMIT: usize = 64;
/// Columns of a block in the register kernel.
const BLOCK: usize = 4;
/// Columns of a block in the matrix-product path: the triangle is covered by such stripes.
const STRIPE: usize = 96;
/// Tiles summed in `T` before they are added to the `f64` sums: 4,096 rows.
const FLUSH_TILES: usize = 16;

/// Sums the lower triangle of a weighted Gram matrix over tiles.
pub struct GramSum<T> {
    columns: usize,
    /// Unflushed sums: block after block for the register kernel, else `D x D`.
    partial: Buffer<T>,
    /// Weighted columns of the current block, stripe or tile.
    weighted: Buffer<T>,
    pending: usize,
    /// `D x D`, lower triangle, row by row.
    total: Vec<f64>,
}

fn blocks(columns: usize) -> usize {
    columns.div_ceil(BLOCK)
}

impl<T: Real> GramSum<T> {
    /// A sum of zero for `columns` columns.
    pub fn new(columns: usize) -> Self {
        let in_registers = columns <= REGISTER_LIMIT;
        let block_pairs = blocks(columns) * (blocks(columns) + 1) / 2;
        let partial = if in_registers { block_pairs * BLOCK * BLOCK } else { columns * columns };
        let weighted = if in_registers { BLOCK } else { STRIPE } * PANEL_ROWS;
        Self {
            columns,
            partial: Buffer::new(partial),
            weighted: Buffer::new(weighted),
            pending: 0,
            total: vec![0.0; columns * columns],
        }
    }

    /// How many columns a tile given to [`GramSum::add`] must have room for: a multiple of the block size.
    pub fn padded_columns(columns: usize) -> usize {
        if columns <= REGISTER_LIMIT { blocks(columns) * BLOCK } else { columns }
    }

    /// Adds the tile `z` (`padded_columns x PANEL_ROWS`, padding zero) weighted by `w` (`PANEL_ROWS`).
    #[inline(always)]
    pub fn add<S: Simd>(&mut self, simd: S, z: &[T], w: &[T]) {
        if self.columns <= REGISTER_LIMIT {
            self.add_in_registers(simd, z, w);
        } else {
            self.add_by_products(z, w);
        }
        self.pending += 1;
        if self.pending == FLUSH_TILES {
            self.flush();
        }
    }

    #[inline(always)]
    fn weigh(&mut self, z: &[T], w: &[T], first: usize, count: usize) {
        for c in 0..count {
            let column = &z[(first + c) * PANEL_ROWS..][..PANEL_ROWS];
            let weighted = &mut self.weighted[c * PANEL_ROWS..][..PANEL_ROWS];
            for i in 0..PANEL_ROWS {
                weighted[i] = column[i] * w[i];
            }
        }
    }

    #[inline(always)]
    fn add_in_registers<S: Simd>(&mut self, simd: S, z: &[T], w: &[T]) {
        let mut slot = 0;
        for bi in 0..blocks(self.columns) {
            self.weigh(z, w, bi * BLOCK, BLOCK);
            let left = T::lanes::<S>(&self.weighted);
            let steps = left.len() / BLOCK;
            for bj in 0..=bi {
                let right = T::lanes::<S>(&z[bj * BLOCK * PANEL_ROWS..][..BLOCK * PANEL_ROWS]);
                let mut sums = [[T::zero_lanes(simd); BLOCK]; BLOCK];
                for step in 0..steps {
                    // SAFETY: both slices hold BLOCK columns of `steps` registers each.
                    unsafe {
                        let a: [_; BLOCK] = std::array::from_fn(|c| *left.get_unchecked(c * steps + step));
                        let b: [_; BLOCK] = std::array::from_fn(|c| *right.get_unchecked(c * steps + step));
                        for (row, &a) in sums.iter_mut().zip(&a) {
                            for (sum, &b) in row.iter_mut().zip(&b) {
                                *sum = T::fma_lanes(simd, a, b, *sum);
                            }
                        }
                    }
                }
                for sum in sums.iter().flatten() {
                    self.partial[slot] += T::sum_lanes(simd, *sum);
                    slot += 1;
                }
            }
        }
    }

    fn add_by_products(&mut self, z: &[T], w: &[T]) {
        let d = self.columns;
        for first in (0..d).step_by(STRIPE) {
            let count = STRIPE.min(d - first);
            self.weigh(z, w, first, count);
            let width = first + count;
            // SAFETY: dst is `count x width` within `d x d` rows; lhs `count x PANEL_ROWS`; rhs `PANEL_ROWS x width`.
            unsafe {
                gemm::gemm(
                    count,
                    width,
                    PANEL_ROWS,
                    self.partial[first * d..].as_mut_ptr(),
                    1,
                    d as isize,
                    true,
                    self.weighted.as_ptr(),
                    1,
                    PANEL_ROWS as isize,
                    z.as_ptr(),
                    PANEL_ROWS as isize,
                    1,
                    T::ONE,
                    T::ONE,
                    false,
                    false,
                    false,
                    Parallelism::None,
                );
            }
        }
    }

    fn flush(&mut self) {
        let d = self.columns;
        self.pending = 0;
        if d <= REGISTER_LIMIT {
            let mut slot = 0;
            for bi in 0..blocks(d) {
                for bj in 0..=bi {
                    for i in 0..BLOCK {
                        for j in 0..BLOCK {
                            let (row, column) = (bi * BLOCK + i, bj * BLOCK + j);
                            if row < d && column <= row {
                                self.total[row * d + column] += self.partial[slot].to_f64();
                            }
                            slot += 1;
                        }
                    }
                }
            }
        } else {
            for row in 0..d {
                for column in 0..=row {
                    self.total[row * d + column] += self.partial[row * d + column].to_f64();
                }
            }
        }
        self.partial.fill(T::default());
    }

    /// The lower triangle of the sum, `D x D` row by row; what lies above the diagonal is unspecified.
    pub fn finish(mut self) -> Vec<f64> {
        if self.pending > 0 {
            self.flush();
        }
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulp::{Arch, Scalar, WithSimd};

    struct Sum<'a, T>(&'a [Vec<T>], &'a [T], usize);

    impl<T: Real> WithSimd for Sum<'_, T> {
        type Output = Vec<f64>;

        fn with_simd<S: Simd>(self, simd: S) -> Vec<f64> {
            let mut sum = GramSum::new(self.2);
            for z in self.0 {
                sum.add(simd, z, self.1);
            }
            sum.finish()
        }
    }

    fn check<T: Real>(columns: usize, tolerance: f64) {
        let padded = GramSum::<T>::padded_columns(columns);
        let value = |t: usize, c: usize, i: usize| (((t * 7 + c * 31 + i * 17) % 101) as f64 / 50.0 - 1.0) * 0.5;
        let tiles: Vec<Vec<T>> = (0..FLUSH_TILES + 3)
            .map(|t| {
                let mut z = vec![T::default(); padded * PANEL_ROWS];
                for c in 0..columns {
                    for i in 0..PANEL_ROWS {
                        z[c * PANEL_ROWS + i] = T::from_f64(value(t, c, i));
                    }
                }
                z
            })
            .collect();
        let w: Vec<T> = (0..PANEL_ROWS).map(|i| T::from_f64((i % 5) as f64 * 0.25)).collect();
        for sums in [Arch::new().dispatch(Sum(&tiles, &w, columns)), Scalar.vectorize(Sum(&tiles, &w, columns))] {
            for (row, column) in [(0, 0), (columns - 1, 0), (columns - 1, columns - 1), (columns / 2, columns / 3)] {
                let mut expected = 0.0;
                for z in &tiles {
                    for i in 0..PANEL_ROWS {
                        expected +=
                            w[i].to_f64() * z[row * PANEL_ROWS + i].to_f64() * z[column * PANEL_ROWS + i].to_f64();
                    }
                }
                let got = sums[row * columns + column];
                assert!(
                    (got - expected).abs() < tolerance * 1e3,
                    "{columns} columns, ({row}, {column}): {got} {expected}"
                );
            }
        }
    }

    #[test]
    fn sums_agree_with_the_definition() {
        for columns in [1, 4, 29, 64, 65, 97, 210] {
            check::<f32>(columns, 1e-6);
            check::<f64>(columns, 1e-14);
        }
    }
}
