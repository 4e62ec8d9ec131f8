//! Joint local steps of a mixture whose experts have rectifiers, for two classes and soft routing: the splitting of
//! [`LayerSplitting`](crate::oracle::LayerSplitting) with the rows of each expert weighted by its responsibilities.
//!
//! Of a row, with responsibilities `h_k` and the rectifiers that are above zero held so, expert `k` has the minimum of
//! `h_k (l(s) + beta/2 |e|^2)`, `s = f_k + w_k' S e`: `e = t S w_k / beta` with `t = y - sigmoid(f_k + q t)`,
//! `q = w_k' S w_k / beta`, a scalar equation whose left side less its right one increases in `t` with a slope of at least 1;
//! the solution lies between `y - 1` and `y`. What leaves the rows are sums: `h_k t S w_k z'` of rectifiers, right-hand sides
//! and Gram matrices of the experts' outputs over `[a; 1]`, and of the gate `(h - g) z'` with the Gram matrix of the design.

use super::rows::{Work, flush, unit, unit_mut};
use super::{Real, Routing, Selection, Shape, Visit};
use crate::device::PANEL_ROWS;
use crate::device::cpu::buffer::Buffer;
use crate::device::cpu::design::{Design, fold_selection};
use crate::device::cpu::glm::add_products;
use crate::device::cpu::gram::{Columns, GramSum};
use pulp::{Arch, Simd, WithSimd};

/// Newton steps of a row's scalar equation.
const SCALAR_STEPS: usize = 5;

/// How the experts' outputs are fitted: the distance factor `1/(2 penalty)` of proximal points, or none for reweighted least
/// squares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum JointHead {
    /// Right-hand side `y - p`, Gram matrix weighted by `p (1 - p)`.
    Reweighted,
    /// Right-hand side `z - f`, `z = argmin l(z) + penalty (z - f)^2`, plain Gram matrix.
    LeastSquares(f64),
}

/// What is asked of a joint step.
#[derive(Debug, Clone, Copy)]
pub struct JointRequest {
    /// `beta`.
    pub penalty: f64,
    /// The experts' outputs.
    pub head: JointHead,
    /// Whether Gram matrices are formed.
    pub grams: bool,
}

/// Sums over rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JointSums {
    /// `R x D`: `h - g` of the gate, `h_k t S w_k` of the rectifiers, times the design.
    pub first: Vec<f64>,
    /// Right-hand sides of the experts' outputs, `K x (H + 1)`, biases last.
    pub second: Vec<f64>,
    /// Lower triangles over `[a; 1]`, one for each expert, `(H + 1) x (H + 1)`, and over the design, `D x D`; empty unless
    /// asked for.
    pub grams: Vec<Vec<f64>>,
    /// The loss of the mixture before the step.
    pub loss: f64,
    /// `sum_k h_k l(s_k)` after it.
    pub after: f64,
    /// `sum_k h_k beta |e_k|^2`.
    pub quadratic: f64,
    /// Rectifiers above zero.
    pub active: f64,
}

impl JointSums {
    fn absorb(&mut self, part: &Self) {
        let add = |into: &mut Vec<f64>, from: &[f64]| {
            into.resize(from.len(), 0.0);
            into.iter_mut().zip(from).for_each(|(a, b)| *a += b);
        };
        add(&mut self.first, &part.first);
        add(&mut self.second, &part.second);
        self.grams.resize(part.grams.len(), Vec::new());
        self.grams.iter_mut().zip(&part.grams).for_each(|(into, from)| add(into, from));
        self.loss += part.loss;
        self.after += part.after;
        self.quadratic += part.quadratic;
        self.active += part.active;
    }
}

struct Joint<'a, T> {
    visit: Visit<'a>,
    request: JointRequest,
    kind: std::marker::PhantomData<T>,
}

impl<T: Real> WithSimd for Joint<'_, T> {
    type Output = JointSums;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> JointSums {
        let Self { visit: Visit { design, shape, selection, .. }, request, .. } = self;
        let Shape { experts, hidden, .. } = shape;
        let columns = design.columns();
        let mut sums = JointSums {
            first: vec![0.0; shape.rows() * columns],
            second: vec![0.0; experts * (hidden + 1)],
            ..JointSums::default()
        };
        // Gram matrices of the experts' rectifiers and of the design; without them, the residual's products alone are used.
        let mut heads: Vec<GramSum<T>> = (0..experts).map(|_| GramSum::new::<S>(hidden + 1)).collect();
        let mut whole = GramSum::<T>::new::<S>(columns);
        let zero = Buffer::<T>::new(PANEL_ROWS);
        let mut ones = Buffer::<T>::new(PANEL_ROWS);
        ones.fill(T::ONE);
        let mut active = Buffer::<T>::new(hidden * PANEL_ROWS);
        let (mut weight, mut residual) = (Buffer::<T>::new(PANEL_ROWS), Buffer::<T>::new(PANEL_ROWS));
        let mut unit_weight = Buffer::<T>::new(PANEL_ROWS);
        let (mut t, mut q) = (Buffer::<T>::new(PANEL_ROWS), Buffer::<T>::new(PANEL_ROWS));
        let over_penalty = T::from_f64(1.0 / request.penalty);
        let (mut work, mut tile) = self.visit.start::<T>();
        for span in design.spans(selection) {
            design.fill(span, &mut tile);
            let z = design.view(&tile);
            work.forward::<S>(simd, z);
            sums.loss += work.losses::<S>(&tile.y, tile.rows);
            // What goes out is what raises the likelihood: minus the derivatives.
            work.delta[..experts * PANEL_ROWS].iter_mut().for_each(|d| *d = -*d);
            unit_weight[..tile.rows].fill(T::ONE);
            unit_weight[tile.rows..].fill(T::default());
            for (k, of_head) in heads.iter_mut().enumerate().take(experts) {
                sums.active += activate(&work, k, tile.rows, &mut active, &mut q, over_penalty);
                solve::<T, S>(unit(&work.out, k), &q, &tile.y, &mut t);
                let (after, quadratic) = judge::<T, S>(&work, k, &t, &q, &tile.y, tile.rows);
                sums.after += after;
                sums.quadratic += quadratic;
                head::<T, S>(&work, k, request.head, &tile.y, tile.rows, (&mut weight[..], &mut residual[..]));
                let a = Columns { main: &active, ones: Some(&ones), zero: &zero };
                flush(&mut weight);
                flush(&mut residual);
                of_head.add(simd, a, &weight, &residual, &[]);
                for h in 0..hidden {
                    let w = work.second[k * (hidden + 1) + 1 + h];
                    let posterior = unit(&work.posterior, k);
                    let (active, delta) = (unit(&active, h), unit_mut(&mut work.delta, experts + k * hidden + h));
                    for i in 0..PANEL_ROWS {
                        let step = posterior[i] * unit_weight[i] * t[i] * w;
                        delta[i] = if active[i] > T::default() { step } else { T::default() };
                    }
                }
            }
            flush(&mut work.delta);
            add_products(simd, &work.delta, z, &mut work.product, &mut sums.first);
            if request.grams {
                whole.add(simd, z, &unit_weight, &zero, &[]);
            }
        }
        let JointSums { second, grams, .. } = &mut sums;
        for (second, head) in second.chunks_exact_mut(hidden + 1).zip(heads) {
            let head = head.finish(simd);
            second.copy_from_slice(&head.products);
            grams.push(head.gram);
        }
        grams.push(whole.finish(simd).gram);
        if !request.grams {
            grams.clear();
        }
        sums
    }
}

/// What the rectifiers of expert `k` give, and `q = w' S w / beta`; answers how many of them are above zero.
#[inline(always)]
fn activate<T: Real>(work: &Work<T>, k: usize, rows: usize, active: &mut [T], q: &mut [T], over_penalty: T) -> f64 {
    let Shape { experts, hidden, .. } = work.shape;
    let q = unit_mut(q, 0);
    q.fill(T::default());
    let mut count = [T::default(); PANEL_ROWS];
    for h in 0..hidden {
        let w = work.second[k * (hidden + 1) + 1 + h];
        let square = w * w * over_penalty;
        let (eta, active) = (unit(&work.eta, experts + k * hidden + h), unit_mut(active, h));
        for i in 0..PANEL_ROWS {
            let is_active = eta[i] > T::default();
            active[i] = if is_active { eta[i] } else { T::default() };
            q[i] += if is_active { square } else { T::default() };
            count[i] += if is_active { T::ONE } else { T::default() };
        }
    }
    count[..rows].iter().map(|c| c.to_f64()).sum()
}

/// `t = y - sigmoid(f + q t)`.
#[inline(always)]
fn solve<T: Real, S: Simd>(f: &[T], q: &[T], y: &[T], t: &mut [T]) {
    let (f, q, y, t) = (unit(f, 0), unit(q, 0), unit(y, 0), unit_mut(t, 0));
    t.fill(T::default());
    for _ in 0..SCALAR_STEPS {
        for i in 0..PANEL_ROWS {
            let p = T::ONE / (T::ONE + T::exp::<S>(-T::fma::<S>(q[i], t[i], f[i])));
            let slope = T::ONE + q[i] * p * (T::ONE - p);
            let next = t[i] - (t[i] + p - y[i]) / slope;
            let next = if next > y[i] { y[i] } else { next };
            t[i] = next.larger(y[i] - T::ONE);
        }
    }
}

/// `h_k l(s_k)` and `h_k t^2 q` after the step, summed over the first rows.
#[inline(always)]
fn judge<T: Real, S: Simd>(work: &Work<T>, k: usize, t: &[T], q: &[T], y: &[T], rows: usize) -> (f64, f64) {
    let (f, posterior) = (unit(&work.out, k), unit(&work.posterior, k));
    let (t, q, y) = (unit(t, 0), unit(q, 0), unit(y, 0));
    let (mut after, mut quadratic) = ([T::default(); PANEL_ROWS], [T::default(); PANEL_ROWS]);
    for i in 0..PANEL_ROWS {
        let s = T::fma::<S>(q[i], t[i], f[i]);
        let e = T::exp::<S>(-s.abs());
        after[i] = posterior[i] * (s.larger(T::default()) - y[i] * s + T::ln::<S>(T::ONE + e));
        quadratic[i] = posterior[i] * t[i] * t[i] * q[i];
    }
    let sum = |of: &[T]| of[..rows].iter().map(|v| v.to_f64()).sum::<f64>();
    (sum(&after), sum(&quadratic))
}

/// Weight and right-hand side of an expert's output; zero beyond the first rows.
#[inline(always)]
fn head<T: Real, S: Simd>(
    work: &Work<T>,
    k: usize,
    head: JointHead,
    y: &[T],
    rows: usize,
    (weight, right): (&mut [T], &mut [T]),
) {
    let (posterior, prob) = (unit(&work.posterior, k), unit(&work.prob, k));
    let y = unit(y, 0);
    match head {
        JointHead::Reweighted => {
            for i in 0..PANEL_ROWS {
                weight[i] = posterior[i] * prob[i] * (T::ONE - prob[i]);
                right[i] = posterior[i] * (y[i] - prob[i]);
            }
        }
        JointHead::LeastSquares(factor) => {
            let factor = T::from_f64(factor);
            solve::<T, S>(unit(&work.out, k), &[factor; PANEL_ROWS], y, right);
            for i in 0..PANEL_ROWS {
                weight[i] = posterior[i];
                right[i] = posterior[i] * factor * right[i];
            }
        }
    }
    weight[rows..].fill(T::default());
    right[rows..].fill(T::default());
}

/// Joint steps of the rows of `selection` at `theta`, in `f64` if `high`.
#[must_use]
pub fn joint_step(
    design: &Design,
    shape: Shape,
    theta: &[f64],
    selection: Selection<'_>,
    request: JointRequest,
    high: bool,
) -> JointSums {
    debug_assert!(shape.routing == Routing::Soft && shape.hidden > 0 && shape.outputs == 1, "experts with rectifiers");
    let visit = Visit { design, shape, theta, selection };
    let mut total = JointSums::default();
    fold_selection(
        selection,
        8 * theta.len(),
        |_, selection| {
            let visit = visit.part(selection);
            if high {
                Arch::new().dispatch(Joint::<f64> { visit, request, kind: std::marker::PhantomData })
            } else {
                Arch::new().dispatch(Joint::<f32> { visit, request, kind: std::marker::PhantomData })
            }
        },
        |part| total.absorb(&part),
    );
    total
}
