//! Attention of every sequence and head with its derivatives.
//!
//! `S = Q K' + bias`, `P = softmax(S)` row by row over the keys that may be seen, `O = P V`. Tangent:
//! `dS = dQ K' + Q dK' + dbias`, `dP = P o (dS - <P, dS>)`, `dO = dP V + P dV`. Adjoint at `D`: `dV = P' D`,
//! `dS = P o (D V' - <P, D V'>)`, `dQ = dS K`, `dK = dS' Q`; the bias of a distance takes the sum of `dS` along its diagonal.
//! A causal attention is worked off in tiles of queries, each with the keys up to its end.

use super::softmax::{exponentials, largest, softmax_tangent};
use crate::device::Attention;
use crate::device::cpu::products::{Rect, RectMut, product};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Queries that are worked off together.
const TILE: usize = 64;
/// Sums of a bias's derivative are taken over at most so many parts of the sequences.
const PARTS: usize = 32;

#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub queries: Rect<'a>,
    pub keys_values: Rect<'a>,
    pub bias: Option<Rect<'a>>,
}

/// A head of one sequence within what all have together.
struct Head<'a> {
    shape: &'a Attention<'a>,
    sequence: usize,
    head: usize,
}

/// A matrix within `values`, its last row not longer than its columns.
fn rect(values: &[f32], rows: usize, columns: usize, stride: usize) -> Rect<'_> {
    Rect { values, rows, columns, stride, transposed: false }
}

impl<'a> Head<'a> {
    fn queries<'b>(&self, of: Rect<'b>, tile: &Range<usize>) -> Rect<'b> {
        let start = (self.sequence * self.shape.queries + tile.start) * of.stride + self.head * self.shape.width;
        rect(&of.values[start..], tile.len(), self.shape.width, of.stride)
    }

    fn keys<'b>(&self, of: Rect<'b>, keys: usize) -> Rect<'b> {
        let start = self.sequence * self.shape.keys * of.stride + self.head * self.shape.width;
        rect(&of.values[start..], keys, self.shape.width, of.stride)
    }

    fn values<'b>(&self, of: Rect<'b>, keys: usize) -> Rect<'b> {
        let shape = self.shape;
        let start = self.sequence * shape.keys * of.stride + (shape.heads + self.head) * shape.width;
        rect(&of.values[start..], keys, shape.width, of.stride)
    }

    /// The probabilities of a tile's queries, or room for them.
    fn tile_start(&self, tile: &Range<usize>) -> usize {
        ((self.sequence * self.shape.heads + self.head) * self.shape.queries + tile.start) * self.shape.keys
    }

    /// Keys that a tile of queries may see.
    fn seen(&self, tile: &Range<usize>) -> usize {
        if self.shape.causal { tile.end.min(self.shape.keys) } else { self.shape.keys }
    }

    /// The keys of this sequence that are none.
    fn valid(&self) -> &'a [bool] {
        let Attention { keys, valid, .. } = *self.shape;
        if valid.is_empty() { valid } else { &valid[self.sequence * keys..(self.sequence + 1) * keys] }
    }

    /// The bias of every distance, for this head; empty without one.
    fn biases(&self, bias: Option<Rect<'_>>) -> Vec<f32> {
        bias.map_or_else(Vec::new, |bias| {
            self.shape.buckets.iter().map(|&bucket| bias.row(bucket as usize)[self.head]).collect()
        })
    }
}

fn tiles(queries: usize) -> impl Iterator<Item = Range<usize>> {
    (0..queries).step_by(TILE).map(move |start| start..(start + TILE).min(queries))
}

/// What is done to the scores of a tile.
enum Scores<'a> {
    /// Adds the bias, hides keys, takes the softmax.
    Softmax(&'a [f32]),
    /// Adds the bias's tangent and applies the derivative of softmax at `p`.
    Tangent(&'a [f32], Rect<'a>),
    /// Applies the derivative of softmax at `p`.
    Adjoint(Rect<'a>),
}

struct Tile<'a> {
    scores: &'a mut [f32],
    stride: usize,
    queries: Range<usize>,
    all_queries: usize,
    seen: usize,
    causal: bool,
    valid: &'a [bool],
    task: Scores<'a>,
}

impl WithSimd for Tile<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (i, row) in self.scores.chunks_mut(self.stride).enumerate() {
            let query = self.queries.start + i;
            // Distances begin where the key is the first one.
            let distance = self.all_queries - 1 - query;
            let own = if self.causal { self.seen.min(query + 1) } else { self.seen };
            let (row, beyond) = row.split_at_mut(own);
            match &self.task {
                Scores::Softmax(bias) => {
                    if !bias.is_empty() {
                        row.iter_mut().zip(&bias[distance..]).for_each(|(s, b)| *s += b);
                    }
                    if !self.valid.is_empty() {
                        row.iter_mut().zip(self.valid).filter(|(_, v)| !**v).for_each(|(s, _)| *s = f32::NEG_INFINITY);
                    }
                    let top = largest(row);
                    if top == f32::NEG_INFINITY {
                        // Nothing can be seen: nothing is attended to.
                        row.fill(0.0);
                    } else {
                        let factor = exponentials::<S>(row, top).recip();
                        row.iter_mut().for_each(|s| *s *= factor);
                    }
                    if !self.valid.is_empty() {
                        // The smallest exponential is not quite zero.
                        row.iter_mut().zip(self.valid).filter(|(_, v)| !**v).for_each(|(s, _)| *s = 0.0);
                    }
                    beyond.fill(0.0);
                }
                Scores::Tangent(bias, p) => {
                    if !bias.is_empty() {
                        row.iter_mut().zip(&bias[distance..]).for_each(|(s, b)| *s += b);
                    }
                    softmax_tangent::<S>(row, &p.row(i)[..own], 1.0);
                    beyond.fill(0.0);
                }
                Scores::Adjoint(p) => {
                    softmax_tangent::<S>(row, &p.row(i)[..own], 1.0);
                    beyond.fill(0.0);
                }
            }
        }
    }
}

impl Head<'_> {
    fn finish(&self, scores: &mut [f32], stride: usize, tile: &Range<usize>, seen: usize, task: Scores<'_>) {
        Arch::new().dispatch(Tile {
            scores,
            stride,
            queries: tile.clone(),
            all_queries: self.shape.queries,
            seen,
            causal: self.shape.causal,
            valid: self.valid(),
            task,
        });
    }
}

/// Calls `f` with every sequence and its parts of two arrays.
fn for_sequences(
    a: &mut [f32],
    b: &mut [f32],
    [of_a, of_b]: [usize; 2],
    parallel: bool,
    f: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
) {
    if parallel {
        let parts = a.par_chunks_mut(of_a).zip(b.par_chunks_mut(of_b)).enumerate();
        parts.with_max_len(1).for_each(|(i, (a, b))| f(i, a, b));
    } else {
        a.chunks_mut(of_a).zip(b.chunks_mut(of_b)).enumerate().for_each(|(i, (a, b))| f(i, a, b));
    }
}

pub(super) fn forward(shape: &Attention<'_>, of: Inputs<'_>, p: RectMut<'_>, out: RectMut<'_>, parallel: bool) {
    let stride = out.stride;
    let sizes = [shape.heads * shape.queries * shape.keys, shape.queries * stride];
    for_sequences(p.values, out.values, sizes, parallel, |sequence, p, out| {
        for head in 0..shape.heads {
            let own = Head { shape, sequence, head };
            let bias = own.biases(of.bias);
            for tile in tiles(shape.queries) {
                let seen = own.seen(&tile);
                let (q, k) = (own.queries(of.queries, &tile), own.keys(of.keys_values, seen));
                let start = (head * shape.queries + tile.start) * shape.keys;
                let scores = &mut p[start..start + tile.len() * shape.keys];
                let to = RectMut { values: &mut *scores, rows: tile.len(), columns: seen, stride: shape.keys };
                product(to, false, q, Rect { transposed: true, ..k }, false);
                own.finish(scores, shape.keys, &tile, seen, Scores::Softmax(&bias));
                let v = own.values(of.keys_values, seen);
                let to = &mut out[tile.start * stride + head * shape.width..];
                let to = RectMut { values: to, rows: tile.len(), columns: shape.width, stride };
                product(to, false, rect(scores, tile.len(), seen, shape.keys), v, false);
            }
        }
    });
}

pub(super) fn tangent(
    shape: &Attention<'_>,
    of: Inputs<'_>,
    p: Rect<'_>,
    t: Inputs<'_>,
    out: RectMut<'_>,
    parallel: bool,
) {
    let stride = out.stride;
    let one = shape.queries * stride;
    super::for_chunks(out.values, one, parallel, |sequence, out| {
        let mut scores = vec![0.0; TILE.min(shape.queries) * shape.keys];
        for head in 0..shape.heads {
            let own = Head { shape, sequence, head };
            let bias = own.biases(t.bias);
            for tile in tiles(shape.queries) {
                let seen = own.seen(&tile);
                let scores = &mut scores[..tile.len() * shape.keys];
                for (keep, q, k) in [(false, t.queries, of.keys_values), (true, of.queries, t.keys_values)] {
                    let (q, k) = (own.queries(q, &tile), own.keys(k, seen));
                    let to = RectMut { values: &mut *scores, rows: tile.len(), columns: seen, stride: shape.keys };
                    product(to, keep, q, Rect { transposed: true, ..k }, false);
                }
                let p = rect(&p.values[own.tile_start(&tile)..], tile.len(), seen, shape.keys);
                own.finish(scores, shape.keys, &tile, seen, Scores::Tangent(&bias, p));
                let to = &mut out[tile.start * stride + head * shape.width..];
                let t_p = rect(scores, tile.len(), seen, shape.keys);
                for (keep, p, v) in [(false, t_p, of.keys_values), (true, p, t.keys_values)] {
                    let to = RectMut { values: &mut *to, rows: tile.len(), columns: shape.width, stride };
                    product(to, keep, p, own.values(v, seen), false);
                }
            }
        }
    });
}

/// Derivatives in queries, and in keys and values.
pub(super) struct Derivatives<'a> {
    pub queries: RectMut<'a>,
    pub keys_values: RectMut<'a>,
    pub bias: Option<RectMut<'a>>,
}

pub(super) fn adjoint(
    shape: &Attention<'_>,
    of: Inputs<'_>,
    p: Rect<'_>,
    d: Rect<'_>,
    to: Derivatives<'_>,
    parallel: bool,
) {
    let (q_stride, kv_stride) = (to.queries.stride, to.keys_values.stride);
    assert_eq!(kv_stride, to.keys_values.columns, "derivatives of keys and values without gaps");
    let together = shape.sequences.div_ceil(PARTS).max(1);
    let distances = if to.bias.is_some() { shape.buckets.len() } else { 0 };
    let parts = shape.sequences.div_ceil(together);
    let mut sums = vec![0.0_f32; parts * shape.heads * distances];
    let of_sums = (shape.heads * distances).max(1);
    let run = |part: usize, dq: &mut [f32], dkv: &mut [f32], sums: &mut [f32]| {
        let mut scores = vec![0.0; TILE.min(shape.queries) * shape.keys];
        let sequences = dq.chunks_mut(shape.queries * q_stride).zip(dkv.chunks_mut(shape.keys * kv_stride));
        for (i, (dq, dkv)) in sequences.enumerate() {
            // Tiles of queries add to the same keys.
            dkv.fill(0.0);
            for head in 0..shape.heads {
                let own = Head { shape, sequence: part * together + i, head };
                for tile in tiles(shape.queries) {
                    let seen = own.seen(&tile);
                    let (rows, keys, width) = (tile.len(), shape.keys, shape.width);
                    let scores = &mut scores[..rows * keys];
                    let (q, d) = (own.queries(of.queries, &tile), own.queries(d, &tile));
                    let (k, v) = (own.keys(of.keys_values, seen), own.values(of.keys_values, seen));
                    let p = rect(&p.values[own.tile_start(&tile)..], rows, seen, keys);
                    let to = RectMut { values: &mut *scores, rows, columns: seen, stride: keys };
                    product(to, false, d, Rect { transposed: true, ..v }, false);
                    own.finish(scores, keys, &tile, seen, Scores::Adjoint(p));
                    let d_s = rect(scores, rows, seen, keys);
                    let values = &mut dq[tile.start * q_stride + head * width..];
                    product(RectMut { values, rows, columns: width, stride: q_stride }, false, d_s, k, false);
                    let values = &mut dkv[head * width..];
                    let to = RectMut { values, rows: seen, columns: width, stride: kv_stride };
                    product(to, true, Rect { transposed: true, ..d_s }, q, false);
                    let values = &mut dkv[(shape.heads + head) * width..];
                    let to = RectMut { values, rows: seen, columns: width, stride: kv_stride };
                    product(to, true, Rect { transposed: true, ..p }, d, false);
                    if distances > 0 {
                        let sums = &mut sums[head * distances..(head + 1) * distances];
                        for (i, query) in tile.clone().enumerate() {
                            let first = shape.queries - 1 - query;
                            sums[first..].iter_mut().zip(d_s.row(i)).for_each(|(sum, d)| *sum += d);
                        }
                    }
                }
            }
        }
    };
    let sizes = [together * shape.queries * q_stride, together * shape.keys * kv_stride];
    let mut nothing = vec![0.0; if distances == 0 { parts } else { 0 }];
    let room = if distances == 0 { &mut nothing } else { &mut sums };
    let (dq, dkv) = (to.queries.values, to.keys_values.values);
    if parallel {
        let chunks = dq.par_chunks_mut(sizes[0]).zip(dkv.par_chunks_mut(sizes[1])).zip(room.par_chunks_mut(of_sums));
        chunks.enumerate().with_max_len(1).for_each(|(i, ((dq, dkv), sums))| run(i, dq, dkv, sums));
    } else {
        let chunks = dq.chunks_mut(sizes[0]).zip(dkv.chunks_mut(sizes[1])).zip(room.chunks_mut(of_sums));
        chunks.enumerate().for_each(|(i, ((dq, dkv), sums))| run(i, dq, dkv, sums));
    }
    let Some(bias) = to.bias else { return };
    for head in 0..shape.heads {
        for (distance, &bucket) in shape.buckets.iter().enumerate() {
            let sum: f64 =
                (0..parts).map(|part| f64::from(sums[(part * shape.heads + head) * distances + distance])).sum();
            bias.values[bucket as usize * bias.stride + head] += sum as f32;
        }
    }
}
