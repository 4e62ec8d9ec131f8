//! What Transformers ask of the CPU.

mod attention;
mod feed_forward;
mod norm;
mod routing;
mod rows;
mod segments;
mod softmax;

use super::arrays::{Cpu, rect, rect_mut, values, values_mut};
use crate::device::array::{Array, IdList, Ids, View, ViewMut};
use crate::device::{
    Attention, AttentionInputs, Backend, FeedForward, Matrices, NO_ROW, Noise, Routes, Segment, Selection, Table,
    Tokens,
};
use rayon::prelude::*;

/// Calls `f` with the number and the elements of chunks of `size` elements.
fn for_chunks<T: Send>(values: &mut [T], size: usize, parallel: bool, f: impl Fn(usize, &mut [T]) + Sync) {
    let size = size.max(1);
    if parallel && values.len() > size {
        values.par_chunks_mut(size).enumerate().for_each(|(i, values)| f(i, values));
    } else {
        values.chunks_mut(size).enumerate().for_each(|(i, values)| f(i, values));
    }
}

fn rows_of(ids: &Ids) -> &[u32] {
    match &ids.list {
        IdList::Cpu(list) => list,
        IdList::Cuda(_) => panic!("a list of a GPU on the CPU"),
    }
}

fn ids(list: Vec<u32>) -> Ids {
    Ids { list: IdList::Cpu(list) }
}

fn inputs(of: AttentionInputs<'_>) -> attention::Inputs<'_> {
    attention::Inputs { queries: rect(of.queries), keys_values: rect(of.keys_values), bias: of.bias.map(rect) }
}

impl Tokens for Cpu {
    fn load_rows(&self, table: &Table, rows: Selection<'_>, out: ViewMut<'_>) {
        rows::load(rect_mut(out), table, rows, self.parallel);
    }

    fn ids(&self, list: &[u32]) -> Ids {
        ids(list.to_vec())
    }

    fn list(&self, ids: &Ids) -> Vec<u32> {
        rows_of(ids).to_vec()
    }

    fn route(&self, p: View<'_>, top_k: usize, capacity: Option<usize>, part: &Ids) -> Routes {
        let routing::HostRoutes { slots, order, elements, chosen, kept } =
            routing::route(rect(p), top_k, capacity, rows_of(part), self.parallel);
        Routes { slots: ids(slots), order: ids(order), elements: ids(elements), chosen, kept }
    }

    fn probability_sums(&self, p: View<'_>, part: &Ids) -> Vec<f64> {
        routing::probability_sums(rect(p), rows_of(part))
    }

    fn entropy(&self, p: View<'_>, part: &Ids) -> f64 {
        routing::entropy(rect(p), rows_of(part))
    }

    fn take(&self, from: View<'_>, ids: &Ids) -> Array {
        assert_eq!(from.shape.columns, from.shape.stride, "rows one after another");
        let (from, mut taken) = (rect(from).values, self.zeros(ids.len()));
        let of = values_mut(&mut taken).iter_mut().zip(rows_of(ids));
        of.filter(|(_, id)| **id != NO_ROW).for_each(|(to, &id)| *to = from[id as usize]);
        taken
    }

    fn add_at(&self, to: ViewMut<'_>, ids: &Ids, by: &Array) {
        assert!(to.shape.columns == to.shape.stride && ids.len() == by.len(), "rows one after another, a value each");
        let to = rect_mut(to).values;
        rows_of(ids).iter().zip(values(by)).for_each(|(&id, &by)| to[id as usize] += by);
    }

    fn gather(&self, out: ViewMut<'_>, from: View<'_>, ids: &Ids) {
        rows::gather(rect_mut(out), rect(from), rows_of(ids), self.parallel);
    }

    fn scatter_add(&self, to: ViewMut<'_>, ids: &[u32], from: View<'_>, factor: f32) {
        rows::scatter_add(rect_mut(to), ids, rect(from), factor, self.parallel);
    }

    fn combine(&self, out: ViewMut<'_>, keep: bool, from: View<'_>, slots: &Ids, scale: Option<&Array>) {
        rows::combine(rect_mut(out), keep, rect(from), rows_of(slots), scale.map(values), self.parallel);
    }

    fn ratios(&self, a: &mut Array, b: &Array) {
        let of = values_mut(a).iter_mut().zip(values(b));
        of.for_each(|(a, &b)| *a = if b > 0.0 { *a / b } else { 0.0 });
    }

    fn row_dots(&self, a: View<'_>, b: View<'_>) -> Array {
        let mut dots = self.zeros(a.size().0);
        rows::row_dots(values_mut(&mut dots), rect(a), rect(b), self.parallel);
        dots
    }

    fn scale_rows(&self, a: ViewMut<'_>, by: &Array) {
        rows::scale_rows(rect_mut(a), values(by), self.parallel);
    }

    fn noise(&self, a: ViewMut<'_>, noise: Noise) {
        rows::noise(rect_mut(a), noise, self.parallel);
    }

    fn round_half(&self, a: ViewMut<'_>) {
        rows::round_half(rect_mut(a), self.parallel);
    }

    fn rms_norm(&self, out: ViewMut<'_>, x: View<'_>, w: View<'_>, epsilon: f32) {
        norm::forward(rect_mut(out), rect(x), rect(w).row(0), None, epsilon, self.parallel);
    }

    fn rms_norm_tangent(&self, out: ViewMut<'_>, x: View<'_>, w: View<'_>, t: View<'_>, t_w: View<'_>, epsilon: f32) {
        let tangent = Some((rect(t), rect(t_w).row(0)));
        norm::forward(rect_mut(out), rect(x), rect(w).row(0), tangent, epsilon, self.parallel);
    }

    fn rms_norm_adjoint(&self, dx: ViewMut<'_>, dw: ViewMut<'_>, x: View<'_>, w: View<'_>, d: View<'_>, epsilon: f32) {
        let dw = rect_mut(dw).values;
        norm::adjoint(rect_mut(dx), dw, rect(x), rect(w).row(0), rect(d), epsilon, self.parallel);
    }

    fn segment_products(
        &self,
        out: ViewMut<'_>,
        keep: bool,
        x: View<'_>,
        weights: &Array,
        matrices: Matrices,
        adjoint: bool,
        segments: &[Segment],
    ) {
        let (out, x) = (rect_mut(out), rect(x));
        segments::products(out, keep, x, values(weights), matrices, adjoint, segments, self.parallel);
    }

    fn segment_gradients(&self, sum: &mut Array, matrices: Matrices, d: View<'_>, x: View<'_>, segments: &[Segment]) {
        segments::gradients(values_mut(sum), matrices, rect(d), rect(x), segments, self.parallel);
    }

    fn feed_forward(&self, f: FeedForward, h: ViewMut<'_>, u: View<'_>) {
        feed_forward::value(f, rect_mut(h), rect(u), self.parallel);
    }

    fn feed_forward_tangent(&self, f: FeedForward, t_h: ViewMut<'_>, u: View<'_>, t_u: View<'_>) {
        feed_forward::tangent(f, rect_mut(t_h), rect(u), rect(t_u), self.parallel);
    }

    fn feed_forward_adjoint(&self, f: FeedForward, d_u: ViewMut<'_>, u: View<'_>, d_h: View<'_>) {
        feed_forward::adjoint(f, rect_mut(d_u), rect(u), rect(d_h), self.parallel);
    }

    fn softmax_rows(&self, a: ViewMut<'_>, log_sums: &mut Array) {
        let rows = a.shape.rows;
        softmax::rows(rect_mut(a), &mut values_mut(log_sums)[..rows], self.parallel);
    }

    fn softmax_tangent(&self, t: ViewMut<'_>, p: View<'_>, factor: &Array) {
        softmax::tangent(rect_mut(t), rect(p), values(factor), self.parallel);
    }

    fn cross_entropy(
        &self,
        logits: ViewMut<'_>,
        targets: &[u32],
        factor: Option<f32>,
        losses: &mut [f32],
        correct: &mut [bool],
    ) {
        softmax::cross_entropy(rect_mut(logits), targets, factor, losses, correct, self.parallel);
    }

    fn attention(&self, shape: &Attention<'_>, of: AttentionInputs<'_>, p: ViewMut<'_>, out: ViewMut<'_>) {
        attention::forward(shape, inputs(of), rect_mut(p), rect_mut(out), self.parallel);
    }

    fn attention_tangent(
        &self,
        shape: &Attention<'_>,
        of: AttentionInputs<'_>,
        p: View<'_>,
        t: AttentionInputs<'_>,
        out: ViewMut<'_>,
    ) {
        attention::tangent(shape, inputs(of), rect(p), inputs(t), rect_mut(out), self.parallel);
    }

    fn attention_adjoint(
        &self,
        shape: &Attention<'_>,
        of: AttentionInputs<'_>,
        p: View<'_>,
        d: View<'_>,
        d_queries: ViewMut<'_>,
        d_keys_values: ViewMut<'_>,
        d_bias: Option<ViewMut<'_>>,
    ) {
        let to = attention::Derivatives {
            queries: rect_mut(d_queries),
            keys_values: rect_mut(d_keys_values),
            bias: d_bias.map(rect_mut),
        };
        attention::adjoint(shape, inputs(of), rect(p), rect(d), to, self.parallel);
    }
}
