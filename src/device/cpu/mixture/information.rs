//! Information matrices of mixtures whose experts are linear in the design.
//!
//! - Of what is observed: `sum_i sum_c P(c) s_c s_c'`, `s_c` the derivatives of `ln P(c)` in all parameters. A row's `s_c` is
//!   the product of few numbers (those in the outputs of gate and experts) with the row of the design, so the matrix is the
//!   Gram matrix of `R D` columns made tile by tile. Two classes have one term: `P(0) s_0 = -P(1) s_1`, so the rarer class's
//!   stands for both with the weight `P(rare) / P(other)`. With top-1 routing it is the Gauss-Newton matrix of the outputs
//!   with who answers held.
//! - Of the complete data, in which a row's expert is known, as EM has it (Jordan and Jacobs 1994, section 4): a block of the
//!   gate, a multinomial logit, `sum_i g_a ([a = b] - g_b) z z'`, and one of each expert, weighted by its responsibilities,
//!   `sum_i h_k P_k(b) ([b = c] - P_k(c)) z z'`. Nothing crosses blocks. It exceeds the other by what is not known.

use super::rows::{Work, flush, unit, unit_mut};
use super::{Real, Routing, Selection, Shape, Sums, Visit};
use crate::device::PANEL_ROWS;
use crate::device::cpu::buffer::Buffer;
use crate::device::cpu::design::{Design, fold_selection};
use crate::device::cpu::glm::add_products;
use crate::device::cpu::gram::{Columns, GramSum};
use pulp::{Arch, Simd, WithSimd};

struct Observed<'a, T> {
    visit: Visit<'a>,
    balance: &'a [f64],
    kind: std::marker::PhantomData<T>,
}

impl<T: Real> WithSimd for Observed<'_, T> {
    type Output = (Sums, Vec<f64>);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> (Sums, Vec<f64>) {
        let Visit { design, shape, selection, .. } = self.visit;
        let (units, columns) = (shape.rows(), design.columns());
        let mut sums = Sums {
            gradient: vec![0.0; units * columns],
            gates: vec![0.0; shape.experts],
            loads: vec![0.0; shape.experts],
            ..Sums::default()
        };
        let balance: Vec<T> = self.balance.iter().map(|&b| T::from_f64(b)).collect();
        let mut gram = GramSum::<T>::new::<S>(units * columns);
        let mut scores = Buffer::<T>::new(units * columns * PANEL_ROWS);
        let zero = Buffer::<T>::new(PANEL_ROWS);
        let (mut weight, mut label) = (Buffer::<T>::new(PANEL_ROWS), Buffer::<T>::new(PANEL_ROWS));
        let (mut work, mut tile) = self.visit.start::<T>();
        for span in design.spans(selection) {
            design.fill(span, &mut tile);
            let z = design.view(&tile);
            work.forward::<S>(simd, z);
            sums.loss += work.losses::<S>(&tile.y, tile.rows);
            work.add_loads(&mut sums.gates, &mut sums.loads, tile.rows);
            work.balance(&balance, tile.rows);
            work.descend::<S>();
            add_products(simd, &work.delta, z, &mut work.product, &mut sums.gradient);
            // The derivatives of the loss at a class are minus its scores.
            let terms = if shape.outputs == 1 { 1 } else { shape.outputs + 1 };
            for term in 0..terms {
                weigh(&work, term, &mut label, &mut weight);
                weight[tile.rows..].fill(T::default());
                flush(&mut weight);
                work.losses::<S>(&label, tile.rows);
                work.descend::<S>();
                for (u, scores) in scores.chunks_exact_mut(columns * PANEL_ROWS).enumerate() {
                    let delta = unit(&work.delta, u);
                    for (scores, z) in scores.chunks_exact_mut(PANEL_ROWS).zip(z.main.chunks_exact(PANEL_ROWS)) {
                        for i in 0..PANEL_ROWS {
                            scores[i] = delta[i] * z[i];
                        }
                    }
                }
                gram.add(simd, Columns { main: &scores, ones: None, zero: &zero }, &weight, &zero, &[]);
            }
        }
        (sums, gram.finish(simd).gram)
    }
}

/// The class of a term and its weight: of two classes the rarer one, else the class `term` with its probability.
#[inline(always)]
fn weigh<T: Real>(work: &Work<T>, term: usize, label: &mut [T], weight: &mut [T]) {
    if work.shape.outputs > 1 {
        label.fill(T::from_f64(term as f64));
        probability(work, term, weight);
        return;
    }
    let (mut other, mut one) = ([T::default(); PANEL_ROWS], [T::default(); PANEL_ROWS]);
    probability(work, 0, &mut other);
    probability(work, 1, &mut one);
    for i in 0..PANEL_ROWS {
        let is_rare = one[i] <= other[i];
        label[i] = if is_rare { T::ONE } else { T::default() };
        weight[i] = if is_rare { one[i] / other[i] } else { other[i] / one[i] };
    }
}

/// The probability of a class.
#[inline(always)]
fn probability<T: Real>(work: &Work<T>, class: usize, to: &mut [T]) {
    let Shape { experts, outputs, routing, .. } = work.shape;
    let to = unit_mut(to, 0);
    to.fill(T::default());
    for k in 0..if routing == Routing::Soft { experts } else { 1 } {
        let prob = if class == 0 { unit(&work.first_prob, k) } else { unit(&work.prob, k * outputs + class - 1) };
        let gate = unit(&work.gate, k);
        for i in 0..PANEL_ROWS {
            to[i] += if routing == Routing::Soft { gate[i] * prob[i] } else { prob[i] };
        }
    }
}

/// One pass in `f64` if `high`: loss, gradient and loads, and the lower triangle of the information of what is observed,
/// `(R D) x (R D)`. `balance` is as in [`Request`](super::Request).
#[must_use]
pub fn information(
    design: &Design,
    shape: Shape,
    theta: &[f64],
    selection: Selection<'_>,
    balance: &[f64],
    high: bool,
) -> (Sums, Vec<f64>) {
    let mut total = (Sums::default(), vec![0.0; theta.len() * theta.len()]);
    let visit = Visit { design, shape, theta, selection };
    fold_selection(
        selection,
        8 * theta.len() * theta.len(),
        |_, selection| {
            let visit = visit.part(selection);
            if high {
                Arch::new().dispatch(Observed::<f64> { visit, balance, kind: std::marker::PhantomData })
            } else {
                Arch::new().dispatch(Observed::<f32> { visit, balance, kind: std::marker::PhantomData })
            }
        },
        |part| {
            total.0.absorb(&part.0);
            total.1.iter_mut().zip(&part.1).for_each(|(a, b)| *a += b);
        },
    );
    total
}

struct Complete<'a, T> {
    visit: Visit<'a>,
    kind: std::marker::PhantomData<T>,
}

impl<T: Real> WithSimd for Complete<'_, T> {
    type Output = (Sums, Vec<Vec<f64>>);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> (Sums, Vec<Vec<f64>>) {
        let Visit { design, shape, selection, .. } = self.visit;
        let Shape { experts, outputs, .. } = shape;
        let columns = design.columns();
        let mut sums = Sums {
            gradient: vec![0.0; shape.rows() * columns],
            gates: vec![0.0; experts],
            loads: vec![0.0; experts],
            ..Sums::default()
        };
        let count = pairs(experts) + experts * pairs(outputs);
        let mut grams: Vec<GramSum<T>> = (0..count).map(|_| GramSum::new::<S>(columns)).collect();
        let zero = Buffer::<T>::new(PANEL_ROWS);
        let mut weight = Buffer::<T>::new(PANEL_ROWS);
        let (mut work, mut tile) = self.visit.start::<T>();
        for span in design.spans(selection) {
            design.fill(span, &mut tile);
            let z = design.view(&tile);
            work.forward::<S>(simd, z);
            sums.loss += work.losses::<S>(&tile.y, tile.rows);
            work.add_loads(&mut sums.gates, &mut sums.loads, tile.rows);
            work.descend::<S>();
            add_products(simd, &work.delta, z, &mut work.product, &mut sums.gradient);
            let mut grams = grams.iter_mut();
            for block in 0..=experts {
                let (of, size) = if block == 0 {
                    (&work.gate[..], experts)
                } else {
                    (&work.prob[(block - 1) * outputs * PANEL_ROWS..], outputs)
                };
                for a in 0..size {
                    for b in 0..=a {
                        let Some(gram) = grams.next() else { break };
                        covariances(unit(of, a), unit(of, b), a == b, &mut weight);
                        if block > 0 {
                            let posterior = unit(&work.posterior, block - 1);
                            for i in 0..PANEL_ROWS {
                                weight[i] = weight[i] * posterior[i];
                            }
                        }
                        weight[tile.rows..].fill(T::default());
                        flush(&mut weight);
                        gram.add(simd, z, &weight, &zero, &[]);
                    }
                }
            }
        }
        (sums, grams.into_iter().map(|gram| gram.finish(simd).gram).collect())
    }
}

/// `p_a ([a = b] - p_b)`.
#[inline(always)]
fn covariances<T: Real>(a: &[T], b: &[T], same: bool, to: &mut [T]) {
    let (a, b, to) = (unit(a, 0), unit(b, 0), unit_mut(to, 0));
    let one = if same { T::ONE } else { T::default() };
    for i in 0..PANEL_ROWS {
        to[i] = a[i] * (one - b[i]);
    }
}

/// Pairs `b <= a` of `count`.
fn pairs(count: usize) -> usize {
    count * (count + 1) / 2
}

/// One pass in `f64` if `high`: loss, gradient and loads, and the information of the complete data with soft routing, block
/// by block: the gate's, `(K D) x (K D)` row by row, then each expert's, `(C D) x (C D)`.
#[must_use]
pub fn complete_information(
    design: &Design,
    shape: Shape,
    theta: &[f64],
    selection: Selection<'_>,
    high: bool,
) -> (Sums, Vec<Vec<f64>>) {
    debug_assert!(shape.routing == Routing::Soft && shape.hidden == 0, "a mixture of linear experts");
    let columns = design.columns();
    let count = pairs(shape.experts) + shape.experts * pairs(shape.outputs);
    let mut total = (Sums::default(), vec![vec![0.0; columns * columns]; count]);
    let visit = Visit { design, shape, theta, selection };
    fold_selection(
        selection,
        8 * count * columns * columns,
        |_, selection| {
            let visit = visit.part(selection);
            if high {
                Arch::new().dispatch(Complete::<f64> { visit, kind: std::marker::PhantomData })
            } else {
                Arch::new().dispatch(Complete::<f32> { visit, kind: std::marker::PhantomData })
            }
        },
        |part| {
            total.0.absorb(&part.0);
            for (total, part) in total.1.iter_mut().zip(&part.1) {
                total.iter_mut().zip(part).for_each(|(a, b)| *a += b);
            }
        },
    );
    let mut grams = total.1.into_iter();
    let block = |index: usize| {
        let size = if index == 0 { shape.experts } else { shape.outputs };
        let side = size * columns;
        let mut block = vec![0.0; side * side];
        for a in 0..size {
            for b in 0..=a {
                let gram = grams.next().unwrap_or_default();
                for j in 0..columns {
                    for k in 0..columns {
                        let value = gram[j.max(k) * columns + j.min(k)];
                        block[(a * columns + j) * side + b * columns + k] = value;
                        block[(b * columns + k) * side + a * columns + j] = value;
                    }
                }
            }
        }
        block
    };
    (total.0, (0..=shape.experts).map(block).collect())
}
