//! What Transformers ask of a GPU: launches of the kernels for rows of tokens.
//!
//! Tokens are routed where they are: of a decision the host sees how many chose each expert, from which it cuts segments.
//! Products of many segments or heads are one launch each: a list, or a stack of strides, tells every block what it works on. The
//! products of a single segment are a library's, if there is one.

use super::arrays::{Cuda, address, arguments, blocks_of_columns, factor, flat, is_empty, matrix, matrix_mut};
use super::machine::{Argument, DeviceMatrix, Factor, List, Memory, THREADS};
use crate::device::array::{Array, IdList, Ids, View, ViewMut};
use crate::device::{
    Attention, AttentionInputs, Factors, FeedForward, Matrices, NO_ROW, Noise, Routes, Segment, Selection, Table,
    Tokens,
};
use std::ops::Range;

/// Rows and columns of a tile of a product; `TILE` in `kernels/matrices.cu`.
const TILE: usize = 64;
/// Rows of a block, one for each warp.
const WARPS: usize = THREADS as usize / 32;

fn kind_of_feed_forward(f: FeedForward) -> i32 {
    match f {
        FeedForward::Relu => 0,
        FeedForward::Gelu => 1,
        FeedForward::Geglu => 2,
    }
}

/// A list's memory.
fn rows_of(ids: &Ids) -> &Memory {
    match &ids.list {
        IdList::Cuda(list) => list.memory(),
        IdList::Cpu(_) => panic!("a list of the CPU on a GPU"),
    }
}

fn ids_of(list: List) -> Ids {
    Ids { list: IdList::Cuda(list) }
}

/// Blocks for the rows of a matrix, a warp each.
fn rows(m: DeviceMatrix) -> [u32; 2] {
    [(m.rows as usize).div_ceil(WARPS).clamp(1, 1 << 16) as u32, 1]
}

/// Blocks for tiles of `columns` columns, and for so many tasks.
fn tiles(columns: i64, tasks: usize) -> [u32; 2] {
    [(columns as usize).div_ceil(TILE).clamp(1, 1 << 12) as u32, tasks.clamp(1, 1 << 15) as u32]
}

/// Rows of a matrix.
fn part(of: DeviceMatrix, rows: &Range<usize>) -> DeviceMatrix {
    let values = of.values + (rows.start as i64 * of.stride) as u64 * size_of::<f32>() as u64;
    DeviceMatrix { values, rows: rows.len() as i64, ..of }
}

/// Matrices of one shape: the first, elements from group to group, and from one of a group to the next.
#[derive(Clone, Copy)]
struct Stack {
    first: DeviceMatrix,
    outer: i64,
    inner: i64,
}

impl From<Stack> for Argument {
    fn from(stack: Stack) -> Self {
        let DeviceMatrix { values, rows, columns, stride } = stack.first;
        Self::Words([values, rows as u64, columns as u64, stride as u64, stack.outer as u64, stack.inner as u64])
    }
}

/// Lists of an attention on the device.
struct Lists {
    buckets: Memory,
    valid: Option<Memory>,
}

/// Places of the heads of queries, of keys and of values.
fn heads(shape: &Attention<'_>, of: DeviceMatrix, tokens: usize, first_column: usize) -> Stack {
    let values = of.values + (first_column * size_of::<f32>()) as u64;
    let first = DeviceMatrix { values, rows: tokens as i64, columns: shape.width as i64, stride: of.stride };
    Stack { first, outer: tokens as i64 * of.stride, inner: shape.width as i64 }
}

fn queries(shape: &Attention<'_>, of: DeviceMatrix) -> Stack {
    heads(shape, of, shape.queries, 0)
}

fn keys(shape: &Attention<'_>, of: DeviceMatrix) -> Stack {
    heads(shape, of, shape.keys, 0)
}

fn values(shape: &Attention<'_>, of: DeviceMatrix) -> Stack {
    heads(shape, of, shape.keys, shape.heads * shape.width)
}

/// Places of the scores of every sequence and head.
fn scores(shape: &Attention<'_>, of: DeviceMatrix) -> Stack {
    let first = DeviceMatrix { rows: shape.queries as i64, ..of };
    let inner = shape.queries as i64 * of.stride;
    Stack { first, outer: shape.heads as i64 * inner, inner }
}

impl Cuda {
    fn on_rows(&self, kernel: &'static str, m: DeviceMatrix, arguments: &[Argument]) {
        if !is_empty(m) {
            self.core.launch(kernel, rows(m), arguments);
        }
    }

    /// `out = a b`, or with `keep` `out += a b`, for every sequence and head.
    fn stacked(&self, shape: &Attention<'_>, out: Stack, keep: bool, a: (Stack, bool), b: (Stack, bool)) {
        self.stacked_by("stacked_product", shape, out, keep, a, b);
    }

    /// The same by a kernel.
    fn stacked_by(
        &self,
        kernel: &'static str,
        shape: &Attention<'_>,
        out: Stack,
        keep: bool,
        a: (Stack, bool),
        b: (Stack, bool),
    ) {
        let (groups, each) = (shape.sequences, shape.heads);
        if groups * each > 0 && !is_empty(out.first) {
            let tasks = groups * each * (out.first.rows as usize).div_ceil(TILE);
            let arguments = arguments![out, keep, a.0, a.1, b.0, b.1, groups, each];
            self.core.launch(kernel, tiles(out.first.columns, tasks), arguments);
        }
    }

    /// [`Tokens::segment_products`] of factors that hold certain numbers.
    #[expect(clippy::too_many_arguments, reason = "a product of two factors by segments")]
    fn products(
        &self,
        factors: Factors,
        out: ViewMut<'_>,
        keep: bool,
        x: View<'_>,
        weights: &Array,
        matrices: Matrices,
        adjoint: bool,
        segments: &[Segment],
    ) {
        let (out, x) = (matrix_mut(&out), matrix(x));
        let Matrices { rows, columns, step, .. } = matrices;
        let met: Vec<&Segment> = segments.iter().filter(|segment| !segment.rows.is_empty()).collect();
        if met.is_empty() || out.columns == 0 {
            return;
        }
        if let [Segment { rows: tokens, matrix: index }] = met[..] {
            let w = weights.view(matrices.range(*index).start, rows, columns);
            let x = Factor { matrix: part(x, tokens), transposed: false };
            let w = factor(if adjoint { w } else { w.t() });
            if self.library_product(part(out, tokens), keep, x, w, factors) {
                return;
            }
        }
        let mut list = Vec::new();
        for segment in met {
            for first in segment.rows.clone().step_by(TILE) {
                let end = (first + TILE).min(segment.rows.end);
                list.extend([first as u32, end as u32, segment.matrix as u32]);
            }
        }
        let kernel = match factors {
            Factors::Single => "segment_products",
            Factors::Half => "half_segment_products",
        };
        let count = list.len() / 3;
        let list = Memory::with(&self.core, &list);
        let weights = address(weights) + (matrices.start * size_of::<f32>()) as u64;
        let arguments = arguments![out, keep, x, weights, rows, columns, step, adjoint, list.address(), count];
        self.core.launch(kernel, tiles(out.columns, count), arguments);
    }

    fn lists(&self, shape: &Attention<'_>) -> Lists {
        let valid: Vec<u32> = shape.valid.iter().map(|&v| u32::from(v)).collect();
        Lists {
            buckets: Memory::with(&self.core, shape.buckets),
            valid: (!valid.is_empty()).then(|| Memory::with(&self.core, &valid)),
        }
    }

    /// Bias, mask and softmax (0), its tangent (1) or adjoint (2) on scores.
    fn finish_scores(
        &self,
        shape: &Attention<'_>,
        lists: &Lists,
        task: i32,
        scores: DeviceMatrix,
        p: DeviceMatrix,
        bias: Option<DeviceMatrix>,
    ) {
        let bias = bias.filter(|_| !shape.buckets.is_empty()).unwrap_or(DeviceMatrix::NONE);
        self.on_rows("finish_scores", scores, arguments![task, words(shape, lists), scores, p, bias]);
    }

    /// The sum of every column of `p`, or of its `-p ln p`, over the rows that take part.
    fn columns_of_part(&self, p: View<'_>, part: &Ids, of_entropy: bool) -> Vec<f64> {
        let p = matrix(p);
        let (rows, columns) = (p.rows as usize, p.columns as usize);
        assert_eq!(rows, part.len(), "rows to add up");
        let chunks = rows.div_ceil(64).clamp(1, 256);
        let mut sums = vec![f64::NAN; columns];
        let found = Memory::new(&self.core, size_of_val(&sums[..]));
        self.with_parts(columns * chunks, |_, parts| {
            let grid = [blocks_of_columns(p), chunks as u32];
            let arguments = arguments![p, rows_of(part).address(), of_entropy, parts];
            self.core.launch("probability_parts", grid, arguments);
            self.core.launch("add_parts", [columns as u32, 1], arguments![parts, chunks, found.address()]);
        });
        found.read(0, &mut sums);
        sums
    }

    /// A new matrix of scores.
    fn room_for_scores(&self, shape: &Attention<'_>) -> (Array, DeviceMatrix) {
        let rows = shape.sequences * shape.heads * shape.queries;
        let mut array = self.new_array(rows * shape.keys);
        let all = matrix_mut(&array.view_mut(0, rows, shape.keys));
        (array, all)
    }
}

/// `AttentionShape` of `kernels/attention.cu`.
fn words(shape: &Attention<'_>, lists: &Lists) -> [u64; 6] {
    let valid = lists.valid.as_ref().map_or(0, Memory::address);
    let causal = u64::from(shape.causal);
    [shape.queries as u64, shape.keys as u64, shape.heads as u64, lists.buckets.address(), valid, causal]
}

impl Tokens for Cuda {
    fn load_rows(&self, table: &Table, rows: Selection<'_>, out: ViewMut<'_>) {
        let out = matrix_mut(&out);
        let fits = out.columns as usize == table.columns() && out.rows as usize == rows.len();
        assert!(fits, "a {} x {} view for rows of {table:?}", out.rows, out.columns);
        self.load_by("load_rows", table, rows, out);
    }

    fn ids(&self, list: &[u32]) -> Ids {
        ids_of(List::with(&self.core, list))
    }

    fn list(&self, ids: &Ids) -> Vec<u32> {
        let mut list = vec![NO_ROW; ids.len()];
        rows_of(ids).read(0, &mut list);
        list
    }

    fn route(&self, p: View<'_>, top_k: usize, capacity: Option<usize>, part: &Ids) -> Routes {
        let p = matrix(p);
        let (tokens, experts) = (p.rows as usize, p.columns as usize);
        assert_eq!(tokens, part.len(), "tokens to route");
        let (choices, slots) = (List::new(&self.core, tokens * top_k), List::new(&self.core, tokens * top_k));
        let (of_choices, of_slots) = (choices.memory().address(), slots.memory().address());
        self.on_rows("choose_experts", p, arguments![p, rows_of(part).address(), top_k, of_choices, of_slots]);
        let room = capacity.map_or(tokens * top_k, |capacity| capacity.min(tokens * top_k));
        let grid = [1, experts.clamp(1, 1 << 15) as u32];
        let counted = Memory::new(&self.core, experts * size_of::<u32>());
        let arguments = arguments![of_choices, tokens, top_k, room, experts, counted.address()];
        self.core.launch("count_choices", grid, arguments);
        let mut counts = vec![0_u32; experts];
        counted.read(0, &mut counts);
        let chosen: Vec<usize> = counts.into_iter().map(|count| count as usize).collect();
        let kept: Vec<usize> = chosen.iter().map(|&count| count.min(room)).collect();
        let ends: Vec<usize> = kept
            .iter()
            .scan(0, |end, count| {
                *end += count;
                Some(*end)
            })
            .collect();
        let starts: Vec<u32> = ends.iter().zip(&kept).map(|(end, count)| (end - count) as u32).collect();
        let starts = Memory::with(&self.core, &starts);
        let sorted = ends.last().copied().unwrap_or_default();
        let (order, elements) = (List::new(&self.core, sorted), List::new(&self.core, sorted));
        let places = [starts.address(), of_slots, order.memory().address(), elements.memory().address()];
        let [starts, of_slots, of_order, of_elements] = places;
        let arguments = arguments![of_choices, tokens, top_k, experts, starts, of_slots, of_order, of_elements];
        self.core.launch("place_choices", grid, arguments);
        Routes { slots: ids_of(slots), order: ids_of(order), elements: ids_of(elements), chosen, kept }
    }

    fn probability_sums(&self, p: View<'_>, part: &Ids) -> Vec<f64> {
        self.columns_of_part(p, part, false)
    }

    fn entropy(&self, p: View<'_>, part: &Ids) -> f64 {
        self.columns_of_part(p, part, true).into_iter().sum()
    }

    fn take(&self, from: View<'_>, ids: &Ids) -> Array {
        let taken = self.new_array(ids.len());
        assert_eq!(from.shape.columns, from.shape.stride, "rows one after another");
        if !ids.is_empty() {
            let arguments = arguments![address(&taken), matrix(from).values, rows_of(ids).address(), ids.len()];
            self.core.launch("take", flat(ids.len()), arguments);
        }
        taken
    }

    fn add_at(&self, to: ViewMut<'_>, ids: &Ids, values: &Array) {
        assert!(
            to.shape.columns == to.shape.stride && ids.len() == values.len(),
            "rows one after another, a value each"
        );
        if !ids.is_empty() {
            let arguments = arguments![matrix_mut(&to).values, rows_of(ids).address(), address(values), ids.len()];
            self.core.launch("add_at", flat(ids.len()), arguments);
        }
    }

    fn gather(&self, out: ViewMut<'_>, from: View<'_>, ids: &Ids) {
        let (out, from) = (matrix_mut(&out), matrix(from));
        assert_eq!(out.rows as usize, ids.len(), "rows to gather");
        self.on_rows("gather", out, arguments![out, from, rows_of(ids).address()]);
    }

    fn scatter_add(&self, to: ViewMut<'_>, ids: &[u32], from: View<'_>, factor: f32) {
        let (to, from) = (matrix_mut(&to), matrix(from));
        // Every row takes what belongs to it in order, so that sums do not depend on which block is first.
        let mut ends = vec![0_u32; to.rows as usize + 1];
        ids.iter().filter(|&&id| id != NO_ROW).for_each(|&id| ends[id as usize + 1] += 1);
        for i in 0..to.rows as usize {
            ends[i + 1] += ends[i];
        }
        let mut places = ends.clone();
        let mut order = vec![0_u32; ends[to.rows as usize] as usize];
        for (i, &id) in ids.iter().enumerate().filter(|(_, id)| **id != NO_ROW) {
            order[places[id as usize] as usize] = i as u32;
            places[id as usize] += 1;
        }
        let (ends, order) = (Memory::with(&self.core, &ends), Memory::with(&self.core, &order));
        self.on_rows("add_in_order", to, arguments![to, ends.address(), order.address(), from, factor]);
    }

    fn combine(&self, out: ViewMut<'_>, keep: bool, from: View<'_>, slots: &Ids, scale: Option<&Array>) {
        let (out, from) = (matrix_mut(&out), matrix(from));
        let each = slots.len() / (out.rows as usize).max(1);
        assert!(scale.is_none_or(|scale| scale.len() >= slots.len()), "a factor for every slot");
        let scale = scale.map_or(0, address);
        self.on_rows("combine", out, arguments![out, keep, from, rows_of(slots).address(), scale, each]);
    }

    fn ratios(&self, a: &mut Array, b: &Array) {
        assert_eq!(a.len(), b.len(), "arrays of the same length");
        if !a.is_empty() {
            self.core.launch("ratios", flat(a.len()), arguments![address(a), address(b), a.len()]);
        }
    }

    fn row_dots(&self, a: View<'_>, b: View<'_>) -> Array {
        let (a, b) = (matrix(a), matrix(b));
        let dots = self.new_array(a.rows as usize);
        self.on_rows("row_dots", a, arguments![a, b, address(&dots)]);
        dots
    }

    fn scale_rows(&self, a: ViewMut<'_>, by: &Array) {
        let a = matrix_mut(&a);
        assert!(a.rows as usize <= by.len(), "a factor for every row");
        self.on_elements("scale_rows", a, arguments![a, address(by)]);
    }

    fn noise(&self, a: ViewMut<'_>, noise: Noise) {
        let a = matrix_mut(&a);
        let (is_jitter, seed, size) = match noise {
            Noise::Dropout { seed, rate } => (false, seed, rate),
            Noise::Jitter { seed, spread } => (true, seed, spread),
        };
        let seed = (seed ^ (seed >> 32)) as u32;
        self.on_elements("noise", a, arguments![a, is_jitter, seed.cast_signed(), size]);
    }

    fn round_half(&self, a: ViewMut<'_>) {
        let a = matrix_mut(&a);
        self.on_elements("round_half", a, arguments![a]);
    }

    fn rms_norm(&self, out: ViewMut<'_>, x: View<'_>, w: View<'_>, epsilon: f32) {
        let (out, x) = (matrix_mut(&out), matrix(x));
        self.on_rows("rms_norm", out, arguments![out, x, matrix(w).values, epsilon]);
    }

    fn rms_norm_tangent(&self, out: ViewMut<'_>, x: View<'_>, w: View<'_>, t: View<'_>, t_w: View<'_>, epsilon: f32) {
        let (out, w, t_w) = (matrix_mut(&out), matrix(w).values, matrix(t_w).values);
        self.on_rows("rms_norm_tangent", out, arguments![out, matrix(x), w, matrix(t), t_w, epsilon]);
    }

    fn rms_norm_adjoint(&self, dx: ViewMut<'_>, dw: ViewMut<'_>, x: View<'_>, w: View<'_>, d: View<'_>, epsilon: f32) {
        let (dx, dw, x, d) = (matrix_mut(&dx), matrix_mut(&dw), matrix(x), matrix(d));
        if is_empty(x) {
            return;
        }
        let sizes = self.new_array(x.rows as usize);
        self.on_rows("rms_norm_adjoint", dx, arguments![dx, x, matrix(w).values, d, epsilon, address(&sizes)]);
        let (columns, chunks) = (x.columns as usize, (x.rows as usize).div_ceil(64).clamp(1, 64));
        self.with_parts(columns * chunks, |_, parts| {
            let grid = [blocks_of_columns(x), chunks as u32];
            self.core.launch("rms_norm_weights", grid, arguments![x, d, address(&sizes), parts]);
            self.core.launch("add_row_parts", flat(columns), arguments![dw.values, true, parts, columns, chunks]);
        });
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
        self.products(Factors::Single, out, keep, x, weights, matrices, adjoint, segments);
    }

    fn half_segment_products(
        &self,
        out: ViewMut<'_>,
        keep: bool,
        x: View<'_>,
        weights: &Array,
        matrices: Matrices,
        adjoint: bool,
        segments: &[Segment],
    ) {
        self.products(Factors::Half, out, keep, x, weights, matrices, adjoint, segments);
    }

    fn segment_gradients(&self, sum: &mut Array, matrices: Matrices, d: View<'_>, x: View<'_>, segments: &[Segment]) {
        let met: Vec<&Segment> = segments.iter().filter(|segment| !segment.rows.is_empty()).collect();
        let Matrices { rows, columns, step, .. } = matrices;
        if let [Segment { rows: tokens, matrix: index }] = met[..]
            && rows * columns > 0
        {
            let w = matrix_mut(&sum.view_mut(matrices.range(*index).start, rows, columns));
            let d = Factor { matrix: part(matrix(d), tokens), transposed: true };
            let x = Factor { matrix: part(matrix(x), tokens), transposed: false };
            if self.library_product(w, true, d, x, Factors::Single) {
                return;
            }
        }
        let list: Vec<u32> =
            met.iter().flat_map(|s| [s.rows.start as u32, s.rows.end as u32, s.matrix as u32]).collect();
        let count = list.len() / 3;
        if count > 0 && rows * columns > 0 {
            let list = Memory::with(&self.core, &list);
            let sum = address(sum) + (matrices.start * size_of::<f32>()) as u64;
            let arguments = arguments![sum, rows, columns, step, matrix(d), matrix(x), list.address(), count];
            let grid = tiles(columns as i64, count * rows.div_ceil(TILE));
            self.core.launch("segment_gradients", grid, arguments);
        }
    }

    fn feed_forward(&self, f: FeedForward, h: ViewMut<'_>, u: View<'_>) {
        let h = matrix_mut(&h);
        self.on_elements("feed_forward", h, arguments![kind_of_feed_forward(f), h, matrix(u)]);
    }

    fn feed_forward_tangent(&self, f: FeedForward, t_h: ViewMut<'_>, u: View<'_>, t_u: View<'_>) {
        let t_h = matrix_mut(&t_h);
        let arguments = arguments![kind_of_feed_forward(f), t_h, matrix(u), matrix(t_u)];
        self.on_elements("feed_forward_tangent", t_h, arguments);
    }

    fn feed_forward_adjoint(&self, f: FeedForward, d_u: ViewMut<'_>, u: View<'_>, d_h: View<'_>) {
        let d_h = matrix(d_h);
        let arguments = arguments![kind_of_feed_forward(f), matrix_mut(&d_u), matrix(u), d_h];
        self.on_elements("feed_forward_adjoint", d_h, arguments);
    }

    fn softmax_rows(&self, a: ViewMut<'_>, log_sums: &mut Array) {
        let a = matrix_mut(&a);
        assert!(a.rows as usize <= log_sums.len(), "room for a number of every row");
        self.on_rows("softmax_rows", a, arguments![a, address(log_sums)]);
    }

    fn softmax_tangent(&self, t: ViewMut<'_>, p: View<'_>, factor: &Array) {
        let t = matrix_mut(&t);
        assert!(t.rows as usize <= factor.len(), "a factor for every row");
        self.on_rows("softmax_tangent", t, arguments![t, matrix(p), address(factor)]);
    }

    fn cross_entropy(
        &self,
        logits: ViewMut<'_>,
        targets: &[u32],
        factor: Option<f32>,
        losses: &mut [f32],
        correct: &mut [bool],
    ) {
        let logits = matrix_mut(&logits);
        let targets = Memory::with(&self.core, targets);
        let found = Memory::new(&self.core, 2 * size_of_val(losses));
        let of_correct = found.address() + size_of_val(losses) as u64;
        let arguments =
            arguments![logits, targets.address(), factor.is_some(), factor.unwrap_or(0.0), found.address(), of_correct];
        self.on_rows("cross_entropy", logits, arguments);
        losses.fill(f32::NAN);
        found.read(0, losses);
        let mut words = vec![0_u32; correct.len()];
        found.read(losses.len(), &mut words);
        correct.iter_mut().zip(words).for_each(|(to, from)| *to = from != 0);
    }

    fn attention(&self, shape: &Attention<'_>, of: AttentionInputs<'_>, p: ViewMut<'_>, out: ViewMut<'_>) {
        let (q, kv, p, out) = (matrix(of.queries), matrix(of.keys_values), matrix_mut(&p), matrix_mut(&out));
        let lists = self.lists(shape);
        let kernel = match of.factors {
            Factors::Single => "stacked_product",
            Factors::Half => "half_stacked_product",
        };
        let (q, k) = ((queries(shape, q), false), (keys(shape, kv), true));
        self.stacked_by(kernel, shape, scores(shape, p), false, q, k);
        self.finish_scores(shape, &lists, 0, p, DeviceMatrix::NONE, of.bias.map(matrix));
        self.stacked(shape, queries(shape, out), false, (scores(shape, p), false), (values(shape, kv), false));
    }

    fn attention_tangent(
        &self,
        shape: &Attention<'_>,
        of: AttentionInputs<'_>,
        p: View<'_>,
        t: AttentionInputs<'_>,
        out: ViewMut<'_>,
    ) {
        let (q, kv, p, out) = (matrix(of.queries), matrix(of.keys_values), matrix(p), matrix_mut(&out));
        let (t_q, t_kv) = (matrix(t.queries), matrix(t.keys_values));
        let lists = self.lists(shape);
        let (_room, t_p) = self.room_for_scores(shape);
        self.stacked(shape, scores(shape, t_p), false, (queries(shape, t_q), false), (keys(shape, kv), true));
        self.stacked(shape, scores(shape, t_p), true, (queries(shape, q), false), (keys(shape, t_kv), true));
        self.finish_scores(shape, &lists, 1, t_p, p, t.bias.map(matrix));
        self.stacked(shape, queries(shape, out), false, (scores(shape, t_p), false), (values(shape, kv), false));
        self.stacked(shape, queries(shape, out), true, (scores(shape, p), false), (values(shape, t_kv), false));
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
        let (q, kv, p, d) = (matrix(of.queries), matrix(of.keys_values), matrix(p), matrix(d));
        let (d_q, d_kv) = (matrix_mut(&d_queries), matrix_mut(&d_keys_values));
        let lists = self.lists(shape);
        let (_room, d_s) = self.room_for_scores(shape);
        self.stacked(shape, scores(shape, d_s), false, (queries(shape, d), false), (values(shape, kv), true));
        self.finish_scores(shape, &lists, 2, d_s, p, None);
        self.stacked(shape, queries(shape, d_q), false, (scores(shape, d_s), false), (keys(shape, kv), false));
        self.stacked(shape, keys(shape, d_kv), false, (scores(shape, d_s), true), (queries(shape, q), false));
        self.stacked(shape, values(shape, d_kv), false, (scores(shape, p), true), (queries(shape, d), false));
        let Some(d_bias) = d_bias.map(|d_bias| matrix_mut(&d_bias)) else { return };
        let distances = shape.buckets.len();
        if distances == 0 || is_empty(d_s) {
            return;
        }
        self.with_parts(shape.heads * distances, |_, sums| {
            let grid = [distances as u32, shape.heads as u32];
            let arguments = arguments![words(shape, &lists), d_s, shape.sequences, sums];
            self.core.launch("diagonal_sums", grid, arguments);
            let arguments = arguments![d_bias, lists.buckets.address(), sums, distances];
            self.core.launch("add_to_buckets", flat((d_bias.rows * d_bias.columns) as usize), arguments);
        });
    }
}
