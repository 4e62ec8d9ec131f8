//! Softmax of rows, its derivative, and cross-entropy.

use crate::device::NO_ROW;
use crate::device::cpu::products::{Rect, RectMut, dot};
use crate::device::cpu::real::Real;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Rows that one task takes.
const ROWS: usize = 128;

/// The largest number of a row.
#[inline(always)]
pub(super) fn largest(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = row.as_chunks::<16>();
    for chunk in chunks {
        for j in 0..16 {
            lanes[j] = if chunk[j] > lanes[j] { chunk[j] } else { lanes[j] };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a })
}

/// `exp(row - largest)` in place; answers the sum.
#[inline(always)]
pub(super) fn exponentials<S: Simd>(row: &mut [f32], largest: f32) -> f32 {
    let mut lanes = [0.0_f32; 16];
    let (chunks, rest) = row.as_chunks_mut::<16>();
    for chunk in chunks {
        for j in 0..16 {
            chunk[j] = <f32 as Real>::exp::<S>(chunk[j] - largest);
            lanes[j] += chunk[j];
        }
    }
    let mut sum = lanes.iter().sum::<f32>();
    for v in rest {
        *v = <f32 as Real>::exp::<S>(*v - largest);
        sum += *v;
    }
    sum
}

struct Softmax<'a> {
    values: &'a mut [f32],
    log_sums: &'a mut [f32],
    columns: usize,
    stride: usize,
}

impl WithSimd for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (row, log_sum) in self.values.chunks_mut(self.stride).zip(self.log_sums) {
            let row = &mut row[..self.columns];
            let top = largest(row);
            let sum = exponentials::<S>(row, top);
            let factor = sum.recip();
            row.iter_mut().for_each(|v| *v *= factor);
            *log_sum = top + sum.ln();
        }
    }
}

pub(super) fn rows(a: RectMut<'_>, log_sums: &mut [f32], parallel: bool) {
    let (columns, stride) = (a.columns, a.stride);
    let run = |(values, log_sums): (&mut [f32], &mut [f32])| {
        Arch::new().dispatch(Softmax { values, log_sums, columns, stride });
    };
    if parallel {
        a.values.par_chunks_mut(ROWS * stride).zip(log_sums.par_chunks_mut(ROWS)).for_each(run);
    } else {
        a.values.chunks_mut(ROWS * stride).zip(log_sums.chunks_mut(ROWS)).for_each(run);
    }
}

struct Tangent<'a> {
    t: &'a mut [f32],
    stride: usize,
    first: usize,
    p: Rect<'a>,
    factor: &'a [f32],
}

impl WithSimd for Tangent<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (i, t) in self.t.chunks_mut(self.stride).enumerate() {
            let p = self.p.row(self.first + i);
            softmax_tangent::<S>(&mut t[..p.len()], p, self.factor[self.first + i]);
        }
    }
}

/// `t = factor p o (t - <p, t>)`.
#[inline(always)]
pub(super) fn softmax_tangent<S: Simd>(t: &mut [f32], p: &[f32], factor: f32) {
    if factor == 0.0 {
        t.fill(0.0);
        return;
    }
    let mean = dot::<S>(p, t);
    let (n, p) = (t.len(), &p[..t.len()]);
    for j in 0..n {
        t[j] = factor * (p[j] * (t[j] - mean));
    }
}

pub(super) fn tangent(t: RectMut<'_>, p: Rect<'_>, factor: &[f32], parallel: bool) {
    let stride = t.stride;
    super::for_chunks(t.values, ROWS * stride, parallel, |i, t| {
        Arch::new().dispatch(Tangent { t, stride, first: i * ROWS, p, factor });
    });
}

struct CrossEntropy<'a> {
    logits: &'a mut [f32],
    columns: usize,
    stride: usize,
    targets: &'a [u32],
    factor: Option<f32>,
    losses: &'a mut [f32],
    correct: &'a mut [bool],
}

impl WithSimd for CrossEntropy<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (i, row) in self.logits.chunks_mut(self.stride).enumerate() {
            let row = &mut row[..self.columns];
            let target = self.targets[i];
            if target == NO_ROW {
                (self.losses[i], self.correct[i]) = (0.0, false);
                row.fill(0.0);
                continue;
            }
            let (top, own) = (largest(row), row[target as usize]);
            let sum = exponentials::<S>(row, top);
            // Near a certain prediction ln(sum) keeps what the largest term leaves: sum - 1 is not lost beside it.
            self.losses[i] = (top - own) + sum.ln();
            self.correct[i] = own >= top;
            if let Some(factor) = self.factor {
                let scale = factor / sum;
                row.iter_mut().for_each(|v| *v *= scale);
                row[target as usize] -= factor;
            }
        }
    }
}

/// Logits, targets, losses and hits of a few rows.
type Part<'a> = (((&'a mut [f32], &'a [u32]), &'a mut [f32]), &'a mut [bool]);

pub(super) fn cross_entropy(
    logits: RectMut<'_>,
    targets: &[u32],
    factor: Option<f32>,
    losses: &mut [f32],
    correct: &mut [bool],
    parallel: bool,
) {
    let (columns, stride) = (logits.columns, logits.stride);
    let run = |(((logits, targets), losses), correct): Part<'_>| {
        Arch::new().dispatch(CrossEntropy { logits, columns, stride, targets, factor, losses, correct });
    };
    if parallel {
        let chunks = logits.values.par_chunks_mut(ROWS * stride).zip(targets.par_chunks(ROWS));
        chunks.zip(losses.par_chunks_mut(ROWS)).zip(correct.par_chunks_mut(ROWS)).for_each(run);
    } else {
        let chunks = logits.values.chunks_mut(ROWS * stride).zip(targets.chunks(ROWS));
        chunks.zip(losses.chunks_mut(ROWS)).zip(correct.chunks_mut(ROWS)).for_each(run);
    }
}
