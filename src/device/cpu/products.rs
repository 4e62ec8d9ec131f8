//! Matrix products on views: the `gemm` crate's, which picks its instructions at run time, except where a factor is a
//! single row. A network with one output meets that case three times a block, and a general product packs for nothing.

use super::real::Real;
use gemm::Parallelism;
use pulp::{Arch, Simd, WithSimd};

/// A matrix within a slice: `rows x columns`, `stride` elements from row to row.
#[derive(Clone, Copy)]
pub(super) struct Rect<'a> {
    pub values: &'a [f32],
    pub rows: usize,
    pub columns: usize,
    pub stride: usize,
    pub transposed: bool,
}

/// The same, to be written.
pub(super) struct RectMut<'a> {
    pub values: &'a mut [f32],
    pub rows: usize,
    pub columns: usize,
    pub stride: usize,
}

impl<'a> Rect<'a> {
    /// Row `i` as far as its columns reach.
    pub fn row(&self, i: usize) -> &'a [f32] {
        &self.values[i * self.stride..][..self.columns]
    }

    /// Rows, columns, and the strides along them, as a factor.
    fn factor(&self) -> (usize, usize, isize, isize) {
        let stride = self.stride as isize;
        if self.transposed { (self.columns, self.rows, 1, stride) } else { (self.rows, self.columns, stride, 1) }
    }
}

/// `out = a b`, or with `keep` `out += a b`.
pub(super) fn product(out: RectMut<'_>, keep: bool, a: Rect<'_>, b: Rect<'_>, parallel: bool) {
    let (m, k, a_rows, a_columns) = a.factor();
    let (inner, n, b_rows, b_columns) = b.factor();
    assert!(k == inner && (m, n) == (out.rows, out.columns), "a product of {m} x {k} and {inner} x {n}");
    if m == 1 && !a.transposed && n > 0 {
        let row = a.row(0);
        let out = &mut out.values[..n];
        if b.transposed {
            Arch::new().dispatch(Dots { out, keep, row, b });
        } else {
            Arch::new().dispatch(Combination { out, keep, row, b });
        }
        return;
    }
    // Blocks of a product are cut alike for any number of threads, so its bits do not depend on it.
    let parallelism = if parallel { Parallelism::Rayon(rayon::current_num_threads()) } else { Parallelism::None };
    // SAFETY: views are checked against their arrays when they are made; the shapes agree as asserted above.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.values.as_mut_ptr(),
            1,
            out.stride as isize,
            keep,
            a.values.as_ptr(),
            a_columns,
            a_rows,
            b.values.as_ptr(),
            b_columns,
            b_rows,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// `out_k = <row, b_k>` for the rows `b_k` of `b`.
struct Dots<'a> {
    out: &'a mut [f32],
    keep: bool,
    row: &'a [f32],
    b: Rect<'a>,
}

impl WithSimd for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (i, out) in self.out.iter_mut().enumerate() {
            let dot = dot::<S>(self.row, self.b.row(i));
            *out = if self.keep { *out + dot } else { dot };
        }
    }
}

/// A dot product in 64 running sums.
#[inline(always)]
pub(super) fn dot<S: Simd>(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 64;
    let mut sums = [0.0_f32; LANES];
    let (a_lanes, a_rest) = a.as_chunks::<LANES>();
    let (b_lanes, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for i in 0..LANES {
            sums[i] = f32::fma::<S>(a[i], b[i], sums[i]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            sums[i] += sums[i + width];
        }
        width /= 2;
    }
    sums[0] + rest
}

/// `out = sum_k row_k b_k` for the rows `b_k` of `b`.
struct Combination<'a> {
    out: &'a mut [f32],
    keep: bool,
    row: &'a [f32],
    b: Rect<'a>,
}

impl WithSimd for Combination<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { out, keep, row, b } = self;
        if !keep {
            out.fill(0.0);
        }
        let (fours, rest) = row.as_chunks::<4>();
        let n = out.len();
        for (k, w) in fours.iter().enumerate() {
            let rows: [&[f32]; 4] = std::array::from_fn(|i| &b.row(4 * k + i)[..n]);
            for j in 0..n {
                let low = f32::fma::<S>(w[1], rows[1][j], f32::fma::<S>(w[0], rows[0][j], out[j]));
                out[j] = f32::fma::<S>(w[3], rows[3][j], f32::fma::<S>(w[2], rows[2][j], low));
            }
        }
        for (k, &w) in rest.iter().enumerate() {
            let row = &b.row(4 * fours.len() + k)[..n];
            for j in 0..n {
                out[j] = f32::fma::<S>(w, row[j], out[j]);
            }
        }
    }
}
