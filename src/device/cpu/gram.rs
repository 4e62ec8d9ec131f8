//! Weighted Gram matrices `sum_i w_i z_i z_i'` of tiles, the heart of Fisher scoring, and `sum_i r_i z_i` beside them.
//!
//! A tile is `D x 256`: design columns one after another ([`Columns`]). Products are summed along the rows in vector
//! registers, `B x B` columns at a time, where `B` is what the instruction set's registers hold (5 x 5 sums of 16 lanes
//! under AVX-512, 3 x 3 elsewhere): a step loads `2 B` registers for `B^2` multiply-adds. The weighted columns of a row
//! of blocks are made once, by its diagonal block; the residual stands among them as column `D`, so that the gradient
//! costs nothing extra.
//!
//! Narrow designs keep every block's registers in memory between tiles and add them up in `f64` after
//! [`FLUSH_TERMS`] terms. Wide ones, for which that would be too much memory, hold a few tiles until they fill a share of
//! the cache ([`HELD_BYTES`]) and add each block's sums over them to the `f64` matrix at once.

use super::buffer::Buffer;
use super::real::Real;
use crate::device::PANEL_ROWS;
use pulp::Simd;

/// Largest number of columns for which sums are kept in registers' form between tiles.
const NARROW: usize = 64;
/// Terms that one lane sums in `T` before they are added to the `f64` sums: 4,096 rows with 16 lanes.
const FLUSH_TERMS: usize = 256;
/// Bytes of tiles that a wide design holds before it works on them: about half of a core's second-level cache.
const HELD_BYTES: usize = 1 << 20;

/// The columns of a tile, each `PANEL_ROWS` long: some that follow one another, then perhaps one of ones. Any further
/// column is zero.
#[derive(Clone, Copy)]
pub(super) struct Columns<'a, T> {
    pub main: &'a [T],
    pub ones: Option<&'a [T]>,
    pub zero: &'a [T],
}

impl<'a, T> Columns<'a, T> {
    #[inline(always)]
    pub fn get(&self, index: usize) -> &'a [T] {
        let start = index * PANEL_ROWS;
        match self.ones {
            _ if start < self.main.len() => &self.main[start..start + PANEL_ROWS],
            Some(ones) if start == self.main.len() => ones,
            _ => self.zero,
        }
    }
}

/// Columns of a block: as many as fit into the registers with their sums.
fn block_columns<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { 5 } else { 3 }
}

/// Sums the lower triangle of a weighted Gram matrix, and products of columns with a residual, over tiles.
pub(super) struct GramSum<T> {
    columns: usize,
    /// Narrow designs: the registers of every block.
    partial: Buffer<T>,
    /// Wide designs: the columns of the tiles held, one tile after another.
    held: Buffer<T>,
    /// Weights and residuals of the tiles held.
    held_weights: Buffer<T>,
    held_residuals: Buffer<T>,
    /// Tiles to hold before they are worked on, or to sum before a flush.
    tiles: usize,
    pending: usize,
    /// The weighted columns of a row of blocks.
    weighted: Buffer<T>,
    /// `D x D`, lower triangle, row by row.
    gram: Vec<f64>,
    /// `sum_i r_i z_i`.
    products: Vec<f64>,
}

/// What [`GramSum::finish`] answers.
pub(super) struct GramSums {
    /// The lower triangle, `D x D` row by row; what lies above the diagonal is zero.
    pub gram: Vec<f64>,
    /// `sum_i r_i z_i`, `D` numbers.
    pub products: Vec<f64>,
}

type Sums<T, S, const B: usize> = [[<T as Real>::Lanes<S>; B]; B];

/// `sums_ij += left_i right_j` along the rows of a tile; `left` holds `B` columns one after another.
#[inline(always)]
fn add_block<T: Real, S: Simd, const B: usize>(
    simd: S,
    left: &[T::Lanes<S>],
    right: [&[T::Lanes<S>]; B],
    sums: &mut Sums<T, S, B>,
    mut ahead: Ahead<'_>,
) {
    let steps = left.len() / B;
    assert!(right.iter().all(|column| column.len() == steps), "columns are of one length");
    for step in 0..steps {
        if step.is_multiple_of(2) {
            ahead.fetch();
        }
        // SAFETY: `left` holds `B * steps` registers and each column of `right` holds `steps`.
        unsafe {
            let a: [_; B] = std::array::from_fn(|i| *left.get_unchecked(i * steps + step));
            for (j, right) in right.iter().enumerate() {
                let b = *right.get_unchecked(step);
                for i in 0..B {
                    sums[i][j] = T::fma_lanes(simd, a[i], b, sums[i][j]);
                }
            }
        }
    }
}

/// The diagonal block: weighs its columns into `left` and adds its lower triangle.
#[inline(always)]
fn add_diagonal_block<T: Real, S: Simd, const B: usize>(
    simd: S,
    columns: [&[T::Lanes<S>]; B],
    weight: &[T::Lanes<S>],
    left: &mut [T::Lanes<S>],
    sums: &mut Sums<T, S, B>,
) {
    let steps = weight.len();
    assert!(columns.iter().all(|column| column.len() == steps) && left.len() == B * steps, "columns are of one length");
    for (step, &w) in weight.iter().enumerate() {
        // SAFETY: the lengths were checked.
        unsafe {
            let b: [_; B] = std::array::from_fn(|i| *columns[i].get_unchecked(step));
            for i in 0..B {
                let a = T::mul_lanes(simd, b[i], w);
                *left.get_unchecked_mut(i * steps + step) = a;
                for j in 0..=i {
                    sums[i][j] = T::fma_lanes(simd, a, b[j], sums[i][j]);
                }
            }
        }
    }
}

/// The last diagonal block, in which `residual` stands at `place` among the weighted columns.
#[inline(always)]
fn add_last_block<T: Real, S: Simd, const B: usize>(
    simd: S,
    columns: [&[T::Lanes<S>]; B],
    weight: &[T::Lanes<S>],
    (place, residual): (usize, &[T::Lanes<S>]),
    left: &mut [T::Lanes<S>],
    sums: &mut Sums<T, S, B>,
) {
    for (i, left) in left.chunks_exact_mut(weight.len()).enumerate() {
        if i == place {
            left.copy_from_slice(residual);
        } else {
            for ((left, &column), &w) in left.iter_mut().zip(columns[i]).zip(weight) {
                *left = T::mul_lanes(simd, column, w);
            }
        }
    }
    add_block::<T, S, B>(simd, left, columns, sums, Ahead(&[]));
}

impl<T: Real> GramSum<T> {
    /// A sum of zero for `columns` columns.
    #[inline(always)]
    pub fn new<S: Simd>(columns: usize) -> Self {
        let b = block_columns::<S>();
        let lanes = size_of::<T::Lanes<S>>() / size_of::<T>();
        let blocks = (columns + 1).div_ceil(b);
        let narrow = columns <= NARROW;
        let tile_bytes = columns * PANEL_ROWS * size_of::<T>();
        let flush = (FLUSH_TERMS * lanes / PANEL_ROWS).max(1);
        let held = if narrow { 0 } else { (HELD_BYTES / tile_bytes).clamp(1, flush) };
        Self {
            columns,
            partial: Buffer::new(if narrow { blocks * (blocks + 1) / 2 * b * b * lanes } else { 0 }),
            held: Buffer::new(held * columns * PANEL_ROWS),
            held_weights: Buffer::new(held * PANEL_ROWS),
            held_residuals: Buffer::new(held * PANEL_ROWS),
            tiles: if narrow { flush } else { held },
            pending: 0,
            weighted: Buffer::new(held.max(1) * b * PANEL_ROWS),
            gram: vec![0.0; columns * columns],
            products: vec![0.0; columns],
        }
    }

    /// Adds the tile `z` with weights `w` and residuals `r` (`PANEL_ROWS` each). `next`, what will be read after it, is
    /// fetched into the cache meanwhile.
    #[inline(always)]
    pub fn add<S: Simd>(&mut self, simd: S, z: Columns<'_, T>, w: &[T], r: &[T], next: &[f32]) {
        if self.columns <= NARROW {
            if block_columns::<S>() == 5 {
                self.add_narrow::<S, 5>(simd, z, w, r, next);
            } else {
                self.add_narrow::<S, 3>(simd, z, w, r, next);
            }
        } else {
            let rows = self.pending * PANEL_ROWS;
            let tile = &mut self.held[rows * self.columns..][..self.columns * PANEL_ROWS];
            for (c, column) in tile.chunks_exact_mut(PANEL_ROWS).enumerate() {
                column.copy_from_slice(z.get(c));
            }
            self.held_weights[rows..][..PANEL_ROWS].copy_from_slice(w);
            self.held_residuals[rows..][..PANEL_ROWS].copy_from_slice(r);
        }
        self.pending += 1;
        if self.pending == self.tiles {
            self.flush(simd);
        }
    }

    #[inline(always)]
    fn add_narrow<S: Simd, const B: usize>(&mut self, simd: S, z: Columns<'_, T>, w: &[T], r: &[T], next: &[f32]) {
        let (w, r) = (T::lanes::<S>(w), T::lanes::<S>(r));
        let blocks = (self.columns + 1).div_ceil(B);
        let shares = blocks * (blocks - 1) / 2;
        let left = T::lanes_mut::<S>(&mut self.weighted);
        let mut slots = T::lanes_mut::<S>(&mut self.partial).chunks_exact_mut(B * B);
        let mut share = 0;
        for bi in 0..blocks {
            let columns = std::array::from_fn(|c| T::lanes::<S>(z.get(bi * B + c)));
            for bj in std::iter::once(bi).chain(0..bi) {
                let Some(slot) = slots.next() else { return };
                let mut sums: Sums<T, S, B> = std::array::from_fn(|i| std::array::from_fn(|j| slot[i * B + j]));
                if bi == bj && bi + 1 == blocks {
                    add_last_block::<T, S, B>(simd, columns, w, (self.columns % B, r), left, &mut sums);
                } else if bi == bj {
                    add_diagonal_block::<T, S, B>(simd, columns, w, left, &mut sums);
                } else {
                    let right = std::array::from_fn(|c| T::lanes::<S>(z.get(bj * B + c)));
                    add_block::<T, S, B>(simd, left, right, &mut sums, Ahead::share(next, share, shares));
                    share += 1;
                }
                for i in 0..B {
                    for j in 0..B {
                        slot[i * B + j] = sums[i][j];
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn flush<S: Simd>(&mut self, simd: S) {
        match (self.columns <= NARROW, block_columns::<S>()) {
            (true, 5) => self.flush_narrow::<S, 5>(simd),
            (true, _) => self.flush_narrow::<S, 3>(simd),
            (false, 5) => self.flush_wide::<S, 5>(simd),
            (false, _) => self.flush_wide::<S, 3>(simd),
        }
        self.pending = 0;
    }

    #[inline(always)]
    fn flush_narrow<S: Simd, const B: usize>(&mut self, simd: S) {
        let blocks = (self.columns + 1).div_ceil(B);
        let partial = T::lanes_mut::<S>(&mut self.partial);
        let mut slots = partial.chunks_exact(B * B);
        for bi in 0..blocks {
            for bj in std::iter::once(bi).chain(0..bi) {
                let Some(slot) = slots.next() else { break };
                let sums = std::array::from_fn(|i| std::array::from_fn(|j| slot[i * B + j]));
                spill::<T, S, B>(simd, self.columns, (bi, bj), &sums, &mut self.gram, &mut self.products);
            }
        }
        partial.fill(T::zero_lanes(simd));
    }

    #[inline(always)]
    fn flush_wide<S: Simd, const B: usize>(&mut self, simd: S) {
        let d = self.columns;
        let zero = Buffer::<T>::new(PANEL_ROWS);
        let tile =
            |t: usize| Columns { main: &self.held[t * d * PANEL_ROWS..][..d * PANEL_ROWS], ones: None, zero: &zero };
        let steps = T::lanes::<S>(&zero).len();
        let weighted = T::lanes_mut::<S>(&mut self.weighted);
        for bi in 0..(d + 1).div_ceil(B) {
            let mut sums: Sums<T, S, B> = [[T::zero_lanes(simd); B]; B];
            for (t, left) in weighted.chunks_exact_mut(B * steps).enumerate().take(self.pending) {
                let columns = std::array::from_fn(|c| T::lanes::<S>(tile(t).get(bi * B + c)));
                let weight = T::lanes::<S>(&self.held_weights[t * PANEL_ROWS..][..PANEL_ROWS]);
                let residual = T::lanes::<S>(&self.held_residuals[t * PANEL_ROWS..][..PANEL_ROWS]);
                if d / B == bi {
                    add_last_block::<T, S, B>(simd, columns, weight, (d % B, residual), left, &mut sums);
                } else {
                    add_diagonal_block::<T, S, B>(simd, columns, weight, left, &mut sums);
                }
            }
            spill::<T, S, B>(simd, d, (bi, bi), &sums, &mut self.gram, &mut self.products);
            for bj in 0..bi {
                let mut sums: Sums<T, S, B> = [[T::zero_lanes(simd); B]; B];
                for (t, left) in weighted.chunks_exact(B * steps).enumerate().take(self.pending) {
                    let right = std::array::from_fn(|c| T::lanes::<S>(tile(t).get(bj * B + c)));
                    add_block::<T, S, B>(simd, left, right, &mut sums, Ahead(&[]));
                }
                spill::<T, S, B>(simd, d, (bi, bj), &sums, &mut self.gram, &mut self.products);
            }
        }
    }

    /// The sums.
    #[inline(always)]
    pub fn finish<S: Simd>(mut self, simd: S) -> GramSums {
        if self.pending > 0 {
            self.flush(simd);
        }
        GramSums { gram: self.gram, products: self.products }
    }
}

/// Adds the registers of block `(bi, bj)` to the sums in `f64`.
#[inline(always)]
fn spill<T: Real, S: Simd, const B: usize>(
    simd: S,
    columns: usize,
    (bi, bj): (usize, usize),
    sums: &Sums<T, S, B>,
    gram: &mut [f64],
    products: &mut [f64],
) {
    for (row, sums) in (bi * B..).zip(sums) {
        for (column, &sum) in (bj * B..).zip(sums) {
            if row < columns && column <= row {
                gram[row * columns + column] += T::sum_lanes(simd, sum).to_f64();
            } else if row == columns && column < columns {
                products[column] += T::sum_lanes(simd, sum).to_f64();
            }
        }
    }
}

/// Numbers that will be read next, to be brought into the second-level cache bit by bit.
#[derive(Clone, Copy)]
pub(super) struct Ahead<'a>(pub &'a [f32]);

/// Of every 16 cache lines the first four are asked for; the processor's own prefetcher goes on with the rest.
const LINES: usize = 16;
const ASKED: usize = 4;
/// Numbers in a cache line.
const LINE: usize = 16;

impl<'a> Ahead<'a> {
    /// The `share`-th of `shares` parts of `next`.
    #[inline(always)]
    fn share(next: &'a [f32], share: usize, shares: usize) -> Self {
        let groups = next.len() / (LINES * LINE);
        Self(&next[groups * share / shares * LINES * LINE..groups * (share + 1) / shares * LINES * LINE])
    }

    /// Asks for the next 16 lines, if there are any.
    #[inline(always)]
    pub fn fetch(&mut self) {
        if let Some((group, rest)) = self.0.split_at_checked(LINES * LINE) {
            for line in 0..ASKED {
                prefetch_line(&group[LINE * line..]);
            }
            self.0 = rest;
        }
    }
}

#[inline(always)]
fn prefetch_line(line: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: prefetching reads nothing, and every x86-64 processor has the instruction.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(line.as_ptr().cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulp::{Arch, Scalar, WithSimd};

    struct Sum<'a, T>(&'a [Vec<T>], &'a [T], usize);

    impl<T: Real> WithSimd for Sum<'_, T> {
        type Output = GramSums;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> GramSums {
            let mut sum = GramSum::new::<S>(self.2);
            let zero = vec![T::default(); PANEL_ROWS];
            for z in self.0 {
                sum.add(simd, Columns { main: z, ones: None, zero: &zero }, self.1, &z[..PANEL_ROWS], &[]);
            }
            sum.finish(simd)
        }
    }

    fn check<T: Real>(columns: usize, tolerance: f64) {
        let value = |t: usize, c: usize, i: usize| (((t * 7 + c * 31 + i * 17) % 101) as f64 / 50.0 - 1.0) * 0.5;
        let tiles: Vec<Vec<T>> = (0..19)
            .map(|t| {
                let mut z = vec![T::default(); columns * PANEL_ROWS];
                for c in 0..columns {
                    for i in 0..PANEL_ROWS {
                        z[c * PANEL_ROWS + i] = T::from_f64(value(t, c, i));
                    }
                }
                z
            })
            .collect();
        let w: Vec<T> = (0..PANEL_ROWS).map(|i| T::from_f64((i % 5) as f64 * 0.25)).collect();
        let mut all = vec![Arch::new().dispatch(Sum(&tiles, &w, columns)), Scalar.vectorize(Sum(&tiles, &w, columns))];
        // Of a processor with more, the path of those with less as well.
        #[cfg(target_arch = "x86_64")]
        all.extend(pulp::x86::V3::try_new().map(|simd| Simd::vectorize(simd, Sum(&tiles, &w, columns))));
        for sums in all {
            for (row, column) in [(0, 0), (columns - 1, 0), (columns - 1, columns - 1), (columns / 2, columns / 3)] {
                let mut expected = 0.0;
                for z in &tiles {
                    for i in 0..PANEL_ROWS {
                        expected +=
                            w[i].to_f64() * z[row * PANEL_ROWS + i].to_f64() * z[column * PANEL_ROWS + i].to_f64();
                    }
                }
                let got = sums.gram[row * columns + column];
                assert!(
                    (got - expected).abs() < tolerance * 1e3,
                    "{columns} columns, ({row}, {column}): {got} {expected}"
                );
            }
            // The residual was the first column.
            for column in [0, columns / 2, columns - 1] {
                let of = |z: &Vec<T>, i: usize| z[i].to_f64() * z[column * PANEL_ROWS + i].to_f64();
                let expected: f64 = tiles.iter().map(|z| (0..PANEL_ROWS).map(|i| of(z, i)).sum::<f64>()).sum();
                let got = sums.products[column];
                assert!(
                    (got - expected).abs() < tolerance * 1e3,
                    "{columns} columns, product {column}: {got} {expected}"
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
