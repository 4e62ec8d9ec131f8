//! Operations of [`Tokens`](crate::device::Tokens).

use super::{Bench, Case, DOUBLE, EXACT, Placed, Run, SINGLE};
use crate::device::{
    Attention, AttentionInputs, Factors, FeedForward, Matrices, NO_ROW, Noise, PANEL_ROWS, Panels, Segment, Selection,
    Table, Tokens,
};

const FEED_FORWARDS: [FeedForward; 3] = [FeedForward::Relu, FeedForward::Gelu, FeedForward::Geglu];

/// The operations of a device that has learned them.
fn tokens<'a>(b: &Bench<'a>) -> &'a dyn Tokens {
    b.device.tokens().expect("a device that knows tokens")
}

/// All of them with their bounds.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    row_cases(&mut cases);
    routing_cases(&mut cases);
    norm_cases(&mut cases);
    feed_forward_cases(&mut cases);
    softmax_cases(&mut cases);
    segment_cases(&mut cases);
    half_segment_cases(&mut cases);
    attention_cases(&mut cases);
    cases
}

impl Bench<'_> {
    /// Numbers of rows below `end`, now and then none.
    fn ids(&mut self, count: usize, end: usize) -> Vec<u32> {
        let id = |b: &mut Self| if b.random.below(6) == 0 { NO_ROW } else { b.random.below(end) as u32 };
        (0..count).map(|_| id(self)).collect()
    }

    fn list(&mut self, values: &[f32]) {
        self.outputs.push(values.iter().map(|&v| f64::from(v)).collect());
    }
}

fn row_cases(cases: &mut Vec<Case>) {
    let mut case = |name: &str, bound: f64, run: Run| cases.push((name.to_owned(), bound, run));
    case(
        "gather",
        EXACT,
        Box::new(|b| {
            let (rows, tokens_, width) = (b.rows(), b.columns(), b.rows());
            let (from, mut out) = (b.matrix(rows, width), b.poisoned(tokens_, width));
            let ids = b.ids(tokens_, rows);
            let ids = tokens(b).ids(&ids);
            tokens(b).gather(out.view_mut(), from.view(), &ids);
            b.output(&out.array);
        }),
    );
    for scaled in [false, true] {
        case(
            if scaled { "combine, scaled" } else { "combine, added" },
            SINGLE,
            Box::new(move |b| {
                let (rows, tokens_, width, each) = (b.columns(), b.rows(), b.rows(), 1 + b.random.below(3));
                let from = b.matrix(rows, width);
                let mut out = if scaled { b.poisoned(tokens_, width) } else { b.matrix(tokens_, width) };
                let (slots, scale) = (b.ids(tokens_ * each, rows), b.vector(tokens_ * each));
                let slots = tokens(b).ids(&slots);
                tokens(b).combine(out.view_mut(), !scaled, from.view(), &slots, scaled.then_some(&scale));
                b.output(&out.array);
            }),
        );
    }
    case(
        "scatter_add",
        SINGLE,
        Box::new(|b| {
            let (rows, tokens_, width) = (b.rows(), b.columns(), b.rows());
            let (from, mut to) = (b.matrix(tokens_, width), b.matrix(rows, width));
            let ids = b.ids(tokens_, rows);
            tokens(b).scatter_add(to.view_mut(), &ids, from.view(), 0.7);
            b.output(&to.array);
        }),
    );
    case(
        "load_rows",
        SINGLE,
        Box::new(|b| {
            let (rows, columns) = (b.columns() + PANEL_ROWS, b.rows());
            let panels = Panels::from_fn(rows, columns, |_, _| b.random.normal());
            let shift: Vec<f64> = (0..columns).map(|j| 0.1 * j as f64).collect();
            let factor: Vec<f64> = (0..columns).map(|j| 1.0 + 0.03 * j as f64).collect();
            let first = b.random.below(rows / 2);
            let table = Table::new(panels, first..rows, &shift, &factor);
            let start = b.random.below(table.rows());
            let mut out = b.poisoned(table.rows() - start, columns);
            tokens(b).load_rows(&table, Selection::Range(start, table.rows()), out.view_mut());
            b.output(&out.array);
            let count = b.columns();
            let list: Vec<u32> = (0..count).map(|_| b.random.below(table.rows()) as u32).collect();
            let mut out = b.poisoned(count, columns);
            tokens(b).load_rows(&table, Selection::List(&list), out.view_mut());
            b.output(&out.array);
        }),
    );
    case(
        "ratios",
        SINGLE,
        Box::new(|b| {
            let count = b.columns();
            let values: Vec<f32> = (0..count).map(|_| [0.0, b.random.normal()][b.random.below(2)]).collect();
            let (mut a, by) = (b.vector(count), b.flat(&values));
            tokens(b).ratios(&mut a, &by);
            b.output(&a);
        }),
    );
    case(
        "row_dots, scale_rows",
        SINGLE,
        Box::new(|b| {
            let (rows, width) = (b.columns(), b.rows());
            let mut a = b.matrix(rows, width);
            let dots = tokens(b).row_dots(a.view(), a.view());
            b.output(&dots);
            let by = b.vector(rows);
            tokens(b).scale_rows(a.view_mut(), &by);
            b.output(&a.array);
        }),
    );
    case(
        "noise",
        SINGLE,
        Box::new(|b| {
            let (rows, width, seed) = (b.columns(), b.rows(), b.random.next());
            for noise in [Noise::Dropout { seed, rate: 0.3 }, Noise::Jitter { seed, spread: 0.2 }] {
                let mut a = b.matrix(rows, width);
                tokens(b).noise(a.view_mut(), noise);
                b.output(&a.array);
            }
        }),
    );
    case(
        "round_half",
        EXACT,
        Box::new(|b| {
            let (rows, width) = (b.rows(), b.columns());
            // Every pattern of bits, infinities and NaN among them.
            let mut a = b.placed(rows, width, |random, _, _| f32::from_bits((random.next() >> 32) as u32));
            tokens(b).round_half(a.view_mut());
            let finite = b.device.download(a.view());
            b.outputs.push(finite.into_iter().map(|v| f64::from(v.clamp(-1e30, 1e30))).collect());
        }),
    );
}

fn routing_cases(cases: &mut Vec<Case>) {
    let mut case = |name: &str, bound: f64, run: Run| cases.push((name.to_owned(), bound, run));
    case(
        "route",
        EXACT,
        Box::new(|b| {
            let (tokens_, experts) = (b.columns(), b.rows());
            let top_k = 1 + b.random.below(experts.min(3));
            // Many are equal, some are no numbers.
            let level = |random: &mut super::Random| [0.0, 0.1, 0.1, 0.2, 0.4, f32::NAN][random.below(6)];
            let p = b.placed(tokens_, experts, |random, _, _| level(random));
            let part = b.ids(tokens_, 1);
            let part = tokens(b).ids(&part);
            let even = (tokens_ * top_k).div_ceil(experts);
            for capacity in [None, Some(0), Some(even), Some(1 + b.random.below(2 * even)), Some(usize::MAX)] {
                let routes = tokens(b).route(p.view(), top_k, capacity, &part);
                for ids in [&routes.slots, &routes.order, &routes.elements] {
                    let list = tokens(b).list(ids);
                    b.outputs.push(list.into_iter().map(f64::from).collect());
                }
                for counts in [routes.chosen, routes.kept] {
                    b.outputs.push(counts.into_iter().map(|count| count as f64).collect());
                }
            }
        }),
    );
    case(
        "probability_sums, entropy",
        DOUBLE,
        Box::new(|b| {
            let (rows, width) = (b.columns(), b.rows());
            let p = b.placed(rows, width, |random, _, _| random.below(5) as f32 * random.uniform());
            let part = b.ids(rows, 1);
            let part = tokens(b).ids(&part);
            let sums = tokens(b).probability_sums(p.view(), &part);
            b.outputs.push(sums);
            let entropy = tokens(b).entropy(p.view(), &part);
            b.number(entropy);
        }),
    );
    case(
        "take, add_at",
        EXACT,
        Box::new(|b| {
            let (rows, width, count) = (b.rows(), b.rows(), b.columns());
            let mut of = b.vector(rows * width);
            let ids = b.ids(count, rows * width);
            let ids = tokens(b).ids(&ids);
            let taken = tokens(b).take(of.view(0, rows, width), &ids);
            b.output(&taken);
            // Every second element, from the last to the first.
            let ids: Vec<u32> = (0..rows * width).rev().step_by(2).map(|i| i as u32).collect();
            let (ids, values) = (tokens(b).ids(&ids), b.vector(ids.len()));
            tokens(b).add_at(of.view_mut(0, rows, width), &ids, &values);
            b.output(&of);
        }),
    );
}

fn norm_cases(cases: &mut Vec<Case>) {
    cases.push((
        "rms_norm".into(),
        SINGLE,
        Box::new(|b| {
            let (rows, width) = (b.columns(), b.rows());
            let (x, w, mut out) = (b.matrix(rows, width), b.matrix(1, width), b.poisoned(rows, width));
            tokens(b).rms_norm(out.view_mut(), x.view(), w.view(), 1e-6);
            b.output(&out.array);
        }),
    ));
    cases.push((
        "rms_norm_tangent".into(),
        SINGLE,
        Box::new(|b| {
            let (rows, width) = (b.columns(), b.rows());
            let (x, w, mut out) = (b.matrix(rows, width), b.matrix(1, width), b.poisoned(rows, width));
            let (t, t_w) = (b.matrix(rows, width), b.matrix(1, width));
            tokens(b).rms_norm_tangent(out.view_mut(), x.view(), w.view(), t.view(), t_w.view(), 1e-6);
            b.output(&out.array);
        }),
    ));
    cases.push((
        "rms_norm_adjoint".into(),
        SINGLE,
        Box::new(|b| {
            let (rows, width) = (b.columns(), b.rows());
            let (x, w, d) = (b.matrix(rows, width), b.matrix(1, width), b.matrix(rows, width));
            let (mut dx, mut dw) = (b.matrix(rows, width), b.matrix(1, width));
            tokens(b).rms_norm_adjoint(dx.view_mut(), dw.view_mut(), x.view(), w.view(), d.view(), 1e-6);
            b.output(&dx.array);
            b.output(&dw.array);
        }),
    ));
}

fn feed_forward_cases(cases: &mut Vec<Case>) {
    for f in FEED_FORWARDS {
        cases.push((
            format!("feed_forward, {f}"),
            SINGLE,
            Box::new(move |b| {
                let (rows, width) = (b.columns(), b.rows());
                let all = width * f.inner_matrices();
                let (u, t) = (b.matrix(rows, all), b.matrix(rows, all));
                let (d, mut h, mut t_h) = (b.matrix(rows, width), b.poisoned(rows, width), b.poisoned(rows, width));
                let mut d_u = b.poisoned(rows, all);
                tokens(b).feed_forward(f, h.view_mut(), u.view());
                tokens(b).feed_forward_tangent(f, t_h.view_mut(), u.view(), t.view());
                tokens(b).feed_forward_adjoint(f, d_u.view_mut(), u.view(), d.view());
                for placed in [&h, &t_h, &d_u] {
                    b.output(&placed.array);
                }
            }),
        ));
    }
}

fn softmax_cases(cases: &mut Vec<Case>) {
    cases.push((
        "softmax_rows, softmax_tangent".into(),
        SINGLE,
        Box::new(|b| {
            let (rows, width) = (b.rows(), b.columns());
            let (mut a, mut t) = (b.placed(rows, width, |random, _, _| 4.0 * random.normal()), b.matrix(rows, width));
            let mut sums = b.flat(&vec![f32::NAN; rows]);
            tokens(b).softmax_rows(a.view_mut(), &mut sums);
            b.output(&a.array);
            b.output(&sums);
            let factor: Vec<f32> = (0..rows).map(|_| b.random.below(3) as f32).collect();
            let factor = b.flat(&factor);
            tokens(b).softmax_tangent(t.view_mut(), a.view(), &factor);
            b.output(&t.array);
        }),
    ));
    for factor in [None, Some(0.3)] {
        let name = if factor.is_some() { "cross_entropy, with derivative" } else { "cross_entropy" };
        cases.push((
            name.into(),
            SINGLE,
            Box::new(move |b| {
                let (rows, width) = (b.rows(), b.columns());
                let mut logits = b.placed(rows, width, |random, _, _| 4.0 * random.normal());
                let targets = b.ids(rows, width);
                let (mut losses, mut correct) = (vec![f32::NAN; rows], vec![false; rows]);
                tokens(b).cross_entropy(logits.view_mut(), &targets, factor, &mut losses, &mut correct);
                b.list(&losses);
                b.outputs.push(correct.into_iter().map(|c| f64::from(u8::from(c))).collect());
                // Without a factor the logits are whatever was convenient.
                if factor.is_some() {
                    b.output(&logits.array);
                }
            }),
        ));
    }
}

/// Segments of `tokens` tokens, some of them empty, with `count` matrices.
fn segments(b: &mut Bench<'_>, tokens: usize, count: usize) -> Vec<Segment> {
    let mut ends: Vec<usize> = (1..count).map(|_| b.random.below(tokens + 1)).collect();
    ends.push(tokens);
    ends.sort_unstable();
    let starts: Vec<usize> = std::iter::once(0).chain(ends.iter().copied()).collect();
    ends.iter().zip(starts).enumerate().map(|(matrix, (&end, start))| Segment { rows: start..end, matrix }).collect()
}

/// Matrices somewhere in an array, with or without other numbers between them.
fn apart(b: &mut Bench<'_>, rows: usize, columns: usize) -> Matrices {
    let matrices = Matrices::new(b.random.below(5), rows, columns);
    Matrices { step: matrices.step + b.random.below(3), ..matrices }
}

fn segment_cases(cases: &mut Vec<Case>) {
    for (adjoint, keep) in [(false, false), (true, false), (false, true), (true, true)] {
        let name =
            format!("segment_products{}{}", if adjoint { ", adjoint" } else { "" }, if keep { ", added" } else { "" });
        cases.push((
            name,
            SINGLE,
            Box::new(move |b| {
                let (count, rows, columns, all) = (1 + b.random.below(6), b.rows(), b.rows(), b.columns());
                let matrices = apart(b, rows, columns);
                let weights = b.vector(matrices.start + count * matrices.step);
                let (from, to) = if adjoint { (rows, columns) } else { (columns, rows) };
                let x = b.matrix(all, from);
                let mut out = if keep { b.matrix(all, to) } else { b.poisoned(all, to) };
                let segments = segments(b, all, count);
                tokens(b).segment_products(out.view_mut(), keep, x.view(), &weights, matrices, adjoint, &segments);
                b.output(&out.array);
            }),
        ));
    }
    cases.push((
        "segment_gradients".into(),
        SINGLE,
        Box::new(|b| {
            let (count, rows, columns, all) = (1 + b.random.below(6), b.rows(), b.rows(), b.columns());
            let matrices = apart(b, rows, columns);
            let mut sum = b.vector(matrices.start + count * matrices.step + 3);
            let (d, x) = (b.matrix(all, rows), b.matrix(all, columns));
            let segments = segments(b, all, count);
            tokens(b).segment_gradients(&mut sum, matrices, d.view(), x.view(), &segments);
            b.output(&sum);
        }),
    ));
}

/// A number that bf16 has.
fn half(value: f32) -> f32 {
    f32::from_bits(value.to_bits() & 0xffff_0000)
}

/// The same of numbers that bf16 has, with several tiles of columns and steps of the inner dimension; now and then one is a NaN
/// whose bits would overflow in rounding.
fn half_segment_cases(cases: &mut Vec<Case>) {
    for (adjoint, keep) in [(false, false), (true, false), (false, true), (true, true)] {
        let name = format!(
            "half_segment_products{}{}",
            if adjoint { ", adjoint" } else { "" },
            if keep { ", added" } else { "" }
        );
        cases.push((
            name,
            SINGLE,
            Box::new(move |b| {
                let (most, count) = (b.most / 2, 1 + b.random.below(4));
                let (rows, columns, all) = (b.size(most), b.size(most), b.columns());
                let matrices = apart(b, rows, columns);
                let weights = b.normal(matrices.start + count * matrices.step);
                let weights = b.flat(&weights.into_iter().map(half).collect::<Vec<_>>());
                let (from, to) = if adjoint { (rows, columns) } else { (columns, rows) };
                let missing = b.random.below(3 * all);
                let x = b.placed(all, from, |random, i, j| {
                    if (i, j) == (missing, 0) { f32::from_bits(u32::MAX) } else { half(random.normal()) }
                });
                let mut out = if keep { b.matrix(all, to) } else { b.poisoned(all, to) };
                let segments = segments(b, all, count);
                tokens(b).half_segment_products(out.view_mut(), keep, x.view(), &weights, matrices, adjoint, &segments);
                b.output(&out.array);
            }),
        ));
    }
}

/// Buckets of distances, a few to each.
fn buckets(queries: usize, keys: usize, count: usize) -> Vec<u32> {
    (0..queries + keys - 1).map(|place| ((place * 7) % count) as u32).collect()
}

fn inputs<'a>(
    queries: &'a Placed,
    keys_values: &'a Placed,
    bias: Option<&'a Placed>,
    factors: Factors,
) -> AttentionInputs<'a> {
    let bias = bias.map(Placed::view);
    AttentionInputs { queries: queries.view(), keys_values: keys_values.view(), bias, factors }
}

fn attention_cases(cases: &mut Vec<Case>) {
    for (name, causal, with_bias, padded, factors) in [
        ("attention", false, false, false, Factors::Single),
        ("attention, causal with bias", true, true, false, Factors::Single),
        ("attention, padded with bias", false, true, true, Factors::Single),
        ("attention, causal and padded", true, false, true, Factors::Single),
        ("attention, half factors", false, false, false, Factors::Half),
        ("attention, half, causal with bias", true, true, false, Factors::Half),
    ] {
        cases.push((
            name.into(),
            SINGLE,
            Box::new(move |b| {
                let (sequences, heads, width) = (1 + b.random.below(3), 1 + b.random.below(3), b.size(40));
                let keys = b.size(70);
                let queries = if causal { keys } else { b.size(70) };
                let count = 5;
                let distances = if with_bias { buckets(queries, keys, count) } else { Vec::new() };
                let valid: Vec<bool> =
                    (0..if padded { sequences * keys } else { 0 }).map(|_| b.random.below(4) > 0).collect();
                let shape =
                    Attention { sequences, queries, keys, heads, width, causal, buckets: &distances, valid: &valid };
                let all = heads * width;
                let small = |random: &mut super::Random, _, _| {
                    let value = 0.3 * random.normal();
                    if factors == Factors::Half { half(value) } else { value }
                };
                let q = b.placed(sequences * queries, all, small);
                let kv = b.placed(sequences * keys, 2 * all, small);
                let bias = b.matrix(count, heads);
                let (t_q, t_kv, t_bias) =
                    (b.matrix(sequences * queries, all), b.matrix(sequences * keys, 2 * all), b.matrix(count, heads));
                let d = b.matrix(sequences * queries, all);
                let of = inputs(&q, &kv, with_bias.then_some(&bias), factors);
                // Probabilities lie without gaps.
                let rows = sequences * heads * queries;
                let mut p = b.device.zeros(rows * keys);
                b.device.fill(&mut p, f32::NAN);
                let (mut out, mut t_out) = (b.poisoned(sequences * queries, all), b.poisoned(sequences * queries, all));
                tokens(b).attention(&shape, of, p.view_mut(0, rows, keys), out.view_mut());
                b.output(&p);
                b.output(&out.array);
                let t = inputs(&t_q, &t_kv, with_bias.then_some(&t_bias), Factors::Single);
                tokens(b).attention_tangent(&shape, of, p.view(0, rows, keys), t, t_out.view_mut());
                b.output(&t_out.array);
                // Derivatives in queries, keys and values lie without gaps, too.
                let (mut d_q, mut d_kv) =
                    (b.device.zeros(sequences * queries * all), b.device.zeros(sequences * keys * 2 * all));
                b.device.fill(&mut d_q, f32::NAN);
                b.device.fill(&mut d_kv, f32::NAN);
                let mut d_bias = b.matrix(count, heads);
                tokens(b).attention_adjoint(
                    &shape,
                    of,
                    p.view(0, rows, keys),
                    d.view(),
                    d_q.view_mut(0, sequences * queries, all),
                    d_kv.view_mut(0, sequences * keys, 2 * all),
                    with_bias.then(|| d_bias.view_mut()),
                );
                b.output(&d_q);
                b.output(&d_kv);
                b.output(&d_bias.array);
            }),
        ));
    }
}
