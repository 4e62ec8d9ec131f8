//! Products of segments of tokens with matrices of their own: the dense layer is the case of one segment.
//!
//! Tokens of a segment are cut into pieces, each a product on one thread, so that few large segments and many small ones
//! alike fill all threads and every piece stays in cache. Cuts depend on the segments alone. A matrix that no segment meets is
//! neither read nor written.

use crate::device::cpu::products::{Rect, RectMut, product};
use crate::device::{Matrices, Segment};
use rayon::prelude::*;
use std::ops::Range;

/// Tokens of a piece of a product.
const PIECE: usize = 256;
/// Tokens of a piece of a sum over tokens at least, and pieces of a segment at most.
const SUM_PIECE: usize = 512;
const SUM_PIECES: usize = 8;

/// Rows of a matrix that is not transposed.
pub(super) fn part<'a>(of: Rect<'a>, rows: &Range<usize>) -> Rect<'a> {
    let start = (rows.start * of.stride).min(of.values.len());
    Rect { values: &of.values[start..], rows: rows.len(), ..of }
}

/// Pieces of all segments in order.
fn pieces(segments: &[Segment]) -> impl Iterator<Item = Segment> + '_ {
    segments.iter().flat_map(|segment| {
        let end = segment.rows.end;
        let cut = move |start: usize| Segment { rows: start..(start + PIECE).min(end), matrix: segment.matrix };
        segment.rows.clone().step_by(PIECE).map(cut)
    })
}

#[expect(clippy::too_many_arguments, reason = "a product of two factors by segments")]
pub(super) fn products(
    out: RectMut<'_>,
    keep: bool,
    x: Rect<'_>,
    weights: &[f32],
    matrices: Matrices,
    adjoint: bool,
    segments: &[Segment],
    parallel: bool,
) {
    let RectMut { mut values, columns, stride, .. } = out;
    let mut tasks = Vec::new();
    let mut start = 0;
    for piece in pieces(segments) {
        assert!(piece.rows.start == start, "segments follow one another");
        start = piece.rows.end;
        let length = (piece.rows.len() * stride).min(values.len());
        let (own, rest) = std::mem::take(&mut values).split_at_mut(length);
        values = rest;
        tasks.push((own, piece));
    }
    let run = |(own, piece): (&mut [f32], Segment)| {
        let w = &weights[matrices.range(piece.matrix)];
        let (rows, inputs) = (matrices.rows, matrices.columns);
        let w = Rect { values: w, rows, columns: inputs, stride: inputs, transposed: !adjoint };
        let out = RectMut { values: own, rows: piece.rows.len(), columns, stride };
        product(out, keep, part(x, &piece.rows), w, false);
    };
    if parallel {
        tasks.into_par_iter().with_max_len(1).for_each(run);
    } else {
        tasks.into_iter().for_each(run);
    }
}

/// `own += d' x` over some tokens.
fn add_gradient(own: &mut [f32], columns: usize, d: Rect<'_>, x: Rect<'_>, rows: &Range<usize>, parallel: bool) {
    let sum = |to: &mut [f32], keep: bool, rows: &Range<usize>| {
        let (d, x) = (part(d, rows), part(x, rows));
        let to = RectMut { rows: d.columns, columns, stride: columns, values: to };
        product(to, keep, Rect { transposed: true, ..d }, x, false);
    };
    if rows.len() <= SUM_PIECE {
        sum(own, true, rows);
        return;
    }
    let size = rows.len().div_ceil(SUM_PIECES).max(SUM_PIECE);
    let piece = |start: usize| {
        let mut part = vec![0.0; own.len()];
        sum(&mut part, false, &(start..(start + size).min(rows.end)));
        part
    };
    let starts: Vec<usize> = rows.clone().step_by(size).collect();
    let parts: Vec<Vec<f32>> = if parallel {
        starts.into_par_iter().with_max_len(1).map(piece).collect()
    } else {
        starts.into_iter().map(piece).collect()
    };
    for part in parts {
        own.iter_mut().zip(part).for_each(|(to, from)| *to += from);
    }
}

pub(super) fn gradients(
    sum: &mut [f32],
    matrices: Matrices,
    d: Rect<'_>,
    x: Rect<'_>,
    segments: &[Segment],
    parallel: bool,
) {
    let mut rest = sum;
    let mut passed = 0;
    let mut tasks = Vec::new();
    for segment in segments.iter().filter(|segment| !segment.rows.is_empty()) {
        let range = matrices.range(segment.matrix);
        let (_, from) = std::mem::take(&mut rest).split_at_mut(range.start - passed);
        let (own, after) = from.split_at_mut(range.len());
        (rest, passed) = (after, range.end);
        tasks.push((own, &segment.rows));
    }
    let run = |(own, rows): (&mut [f32], &Range<usize>)| add_gradient(own, matrices.columns, d, x, rows, parallel);
    if parallel {
        tasks.into_par_iter().with_max_len(1).for_each(run);
    } else {
        tasks.into_iter().for_each(run);
    }
}
