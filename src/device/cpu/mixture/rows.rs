//! What the rows of a tile come to: forward, losses with their derivatives, and back to what multiplies the design.
//!
//! With `h_k = g_k P_k(y) / P(y)` the derivatives of `-ln P(y)` are `g_k - h_k` in the gate's outputs and
//! `h_k (P_k(c) - [y = c])` in those of expert `k` (Jordan and Jacobs 1994, section 3). With top-1 routing, `o = g_k f_k` and
//! `r_c = p_c - [y = c]`: `g_k r_c` in the outputs of the expert that answers, and `sum_c r_c f_kc` in `g_k`, which has the
//! derivatives `g_k ([j = k] - g_j)` in the gate's outputs.

use super::super::buffer::Buffer;
use super::{Columns, Routing, Shape, predictors};
use crate::device::PANEL_ROWS;
use crate::device::cpu::Real;
use pulp::Simd;

/// Scratch of one thread: what follows from a tile, each unit `PANEL_ROWS` long.
pub(super) struct Work<T> {
    pub shape: Shape,
    columns: usize,
    pub first: Vec<T>,
    pub second: Vec<T>,
    /// What multiplies the design gives, `R`: the gate's outputs, then the experts' or their rectifiers' inputs.
    pub eta: Buffer<T>,
    /// The experts' outputs, `K x C`.
    pub out: Buffer<T>,
    /// The gate's values and their logarithms, `K`.
    pub gate: Buffer<T>,
    log_gate: Buffer<T>,
    /// Probabilities of classes from the second on and of the first: each expert's, `K x C` and `K`, with soft routing; the
    /// answer's, `C` and one, with top-1 routing.
    pub prob: Buffer<T>,
    pub first_prob: Buffer<T>,
    /// The logarithm of what probabilities were divided by, `K` or one.
    log_total: Buffer<T>,
    /// Posterior probabilities of experts, `K`; with top-1 routing one for the expert that answers.
    pub posterior: Buffer<T>,
    /// Derivatives of the loss in `eta` and `out`.
    pub delta: Buffer<T>,
    pub delta_out: Buffer<T>,
    pub loss: Buffer<T>,
    /// One tile's contribution to an `R x D` sum.
    pub product: Vec<T>,
}

/// A unit's numbers.
#[inline(always)]
pub(super) fn unit<T>(of: &[T], index: usize) -> &[T] {
    &of[index * PANEL_ROWS..][..PANEL_ROWS]
}

/// A unit's numbers, to be changed.
#[inline(always)]
pub(super) fn unit_mut<T>(of: &mut [T], index: usize) -> &mut [T] {
    &mut of[index * PANEL_ROWS..][..PANEL_ROWS]
}

/// In `f32` numbers below this are taken for zero where they are multiplied further: products of them with one another would be
/// subnormal, which processors compute a hundred times slower, and beside those of other rows they are nothing.
const NEGLIGIBLE: f64 = 1e-15;

/// Sets numbers to zero that are negligible.
#[inline(always)]
pub(super) fn flush<T: Real>(values: &mut [T]) {
    if size_of::<T>() == size_of::<f32>() {
        let least = T::from_f64(NEGLIGIBLE);
        for v in values {
            *v = if v.abs() < least { T::default() } else { *v };
        }
    }
}

/// `sum a b` and `sum (a b)^2` over rows.
#[inline(always)]
fn dot<T: Real, S: Simd>(a: &[T], b: &[T], squared: bool) -> f64 {
    let mut lanes = [T::default(); 16];
    for (a, b) in a.chunks_exact(16).zip(b.chunks_exact(16)) {
        for i in 0..16 {
            let product = a[i] * b[i];
            let factor = if squared { product } else { T::ONE };
            lanes[i] = T::fma::<S>(product, factor, lanes[i]);
        }
    }
    lanes.iter().map(|l| l.to_f64()).sum()
}

impl<T: Real> Work<T> {
    pub fn new(shape: Shape, columns: usize, theta: &[f64]) -> Self {
        let (k, c, r) = (shape.experts, shape.outputs, shape.rows());
        let (first, second) = theta.split_at(r * columns);
        let convert = |values: &[f64]| values.iter().map(|&v| T::from_f64(v)).collect();
        let buffer = |units: usize| Buffer::new(units * PANEL_ROWS);
        Self {
            shape,
            columns,
            first: convert(first),
            second: convert(second),
            eta: buffer(r),
            out: buffer(k * c),
            gate: buffer(k),
            log_gate: buffer(k),
            prob: buffer(k * c),
            first_prob: buffer(k),
            log_total: buffer(k),
            posterior: buffer(k),
            delta: buffer(r),
            delta_out: buffer(k * c),
            loss: buffer(1),
            product: vec![T::default(); r * columns],
        }
    }

    /// Output weights of an expert: the bias, then those of the rectifiers.
    #[inline(always)]
    pub fn output_weights(&self, expert: usize, output: usize) -> &[T] {
        let size = self.shape.hidden + 1;
        &self.second[(expert * self.shape.outputs + output) * size..][..size]
    }

    /// Experts' outputs from `eta`.
    #[inline(always)]
    fn experts_outputs<S: Simd>(&mut self) {
        let Shape { experts, hidden, outputs, .. } = self.shape;
        if hidden == 0 {
            self.out.copy_from_slice(&self.eta[experts * PANEL_ROWS..]);
            return;
        }
        for k in 0..experts {
            for c in 0..outputs {
                let weights = &self.second[(k * outputs + c) * (hidden + 1)..][..hidden + 1];
                let out = unit_mut(&mut self.out, k * outputs + c);
                out.fill(weights[0]);
                for (h, &w) in weights[1..].iter().enumerate() {
                    let eta = unit(&self.eta, experts + k * hidden + h);
                    for i in 0..PANEL_ROWS {
                        out[i] = T::fma::<S>(w, eta[i].larger(T::default()), out[i]);
                    }
                }
            }
        }
    }

    /// Everything that does not depend on the target.
    #[inline(always)]
    pub fn forward<S: Simd>(&mut self, simd: S, z: Columns<'_, T>) {
        let Shape { experts, outputs, routing, .. } = self.shape;
        debug_assert_eq!(self.first.len(), self.columns * self.shape.rows());
        predictors::<T, S>(simd, &self.first, z, &mut self.eta);
        self.experts_outputs::<S>();
        // The gate.
        let mut largest = [T::from_f64(f64::from(f32::MIN)); PANEL_ROWS];
        for k in 0..experts {
            let eta = unit(&self.eta, k);
            for i in 0..PANEL_ROWS {
                largest[i] = largest[i].larger(eta[i]);
            }
        }
        let mut total = [T::default(); PANEL_ROWS];
        for k in 0..experts {
            let (eta, gate) = (unit(&self.eta, k), unit_mut(&mut self.gate, k));
            for i in 0..PANEL_ROWS {
                gate[i] = T::exp::<S>(eta[i] - largest[i]);
                total[i] += gate[i];
            }
        }
        for k in 0..experts {
            let (eta, gate) = (unit(&self.eta, k), unit_mut(&mut self.gate, k));
            let log = unit_mut(&mut self.log_gate, k);
            for i in 0..PANEL_ROWS {
                gate[i] = gate[i] / total[i];
                log[i] = (eta[i] - largest[i]) - T::ln::<S>(total[i]);
            }
        }
        flush(&mut self.gate);
        match routing {
            Routing::Soft => {
                for k in 0..experts {
                    softmax::<T, S>(
                        &self.out[k * outputs * PANEL_ROWS..][..outputs * PANEL_ROWS],
                        &mut self.prob[k * outputs * PANEL_ROWS..][..outputs * PANEL_ROWS],
                        unit_mut(&mut self.first_prob, k),
                        unit_mut(&mut self.log_total, k),
                    );
                }
            }
            Routing::TopOne => self.answer::<S>(&largest),
        }
        flush(&mut self.prob);
        flush(&mut self.first_prob);
    }

    /// Top-1 routing: who answers, the first of equals, and with what probabilities.
    #[inline(always)]
    fn answer<S: Simd>(&mut self, largest: &[T; PANEL_ROWS]) {
        let Shape { experts, outputs, .. } = self.shape;
        let mut free = [T::ONE; PANEL_ROWS];
        for k in 0..experts {
            let (eta, answers) = (unit(&self.eta, k), unit_mut(&mut self.posterior, k));
            for i in 0..PANEL_ROWS {
                let one = if eta[i] == largest[i] { free[i] } else { T::default() };
                free[i] = free[i] - one;
                answers[i] = one;
            }
        }
        // The outputs go through `delta_out`, which is free.
        for c in 0..outputs {
            let to = unit_mut(&mut self.delta_out, c);
            to.fill(T::default());
            for k in 0..experts {
                let (answers, gate) = (unit(&self.posterior, k), unit(&self.gate, k));
                let out = unit(&self.out, k * outputs + c);
                for i in 0..PANEL_ROWS {
                    to[i] = T::fma::<S>(answers[i] * gate[i], out[i], to[i]);
                }
            }
        }
        softmax::<T, S>(
            &self.delta_out[..outputs * PANEL_ROWS],
            &mut self.prob[..outputs * PANEL_ROWS],
            unit_mut(&mut self.first_prob, 0),
            unit_mut(&mut self.log_total, 0),
        );
    }

    /// Losses at targets `y`, posteriors and derivatives in outputs; answers the sum over the first `rows` rows, and makes the
    /// rest zero.
    #[inline(always)]
    pub fn losses<S: Simd>(&mut self, y: &[T], rows: usize) -> f64 {
        match self.shape.routing {
            Routing::Soft => self.soft_losses::<S>(y),
            Routing::TopOne => self.top_one_losses::<S>(y),
        }
        flush(&mut self.posterior);
        flush(&mut self.delta);
        flush(&mut self.delta_out);
        for units in [&mut self.delta, &mut self.delta_out, &mut self.loss] {
            units.chunks_exact_mut(PANEL_ROWS).for_each(|unit| unit[rows..].fill(T::default()));
        }
        let mut lanes = [T::default(); 16];
        for loss in self.loss.chunks_exact(16) {
            for i in 0..16 {
                lanes[i] += loss[i];
            }
        }
        lanes.iter().map(|l| l.to_f64()).sum()
    }

    #[inline(always)]
    fn soft_losses<S: Simd>(&mut self, y: &[T]) {
        let Shape { experts, outputs, .. } = self.shape;
        let y = &y[..PANEL_ROWS];
        let mut largest = [T::from_f64(f64::from(f32::MIN)); PANEL_ROWS];
        for k in 0..experts {
            // ln g_k + ln P_k(y)
            let joint = unit_mut(&mut self.posterior, k);
            let (log_gate, log_total) = (unit(&self.log_gate, k), unit(&self.log_total, k));
            for i in 0..PANEL_ROWS {
                joint[i] = log_gate[i] - log_total[i];
            }
            for c in 0..outputs {
                let class = T::from_f64((c + 1) as f64);
                let out = unit(&self.out, k * outputs + c);
                for i in 0..PANEL_ROWS {
                    joint[i] += if y[i] == class { out[i] } else { T::default() };
                }
            }
            for i in 0..PANEL_ROWS {
                largest[i] = largest[i].larger(joint[i]);
            }
        }
        let mut total = [T::default(); PANEL_ROWS];
        for k in 0..experts {
            let joint = unit_mut(&mut self.posterior, k);
            for i in 0..PANEL_ROWS {
                joint[i] = T::exp::<S>(joint[i] - largest[i]);
                total[i] += joint[i];
            }
        }
        for i in 0..PANEL_ROWS {
            self.loss[i] = -(largest[i] + T::ln::<S>(total[i]));
        }
        for k in 0..experts {
            let (posterior, gate) = (unit_mut(&mut self.posterior, k), unit(&self.gate, k));
            let delta = unit_mut(&mut self.delta, k);
            for i in 0..PANEL_ROWS {
                posterior[i] = posterior[i] / total[i];
                delta[i] = gate[i] - posterior[i];
            }
            for c in 0..outputs {
                let class = T::from_f64((c + 1) as f64);
                let prob = unit(&self.prob, k * outputs + c);
                let delta = unit_mut(&mut self.delta_out, k * outputs + c);
                for i in 0..PANEL_ROWS {
                    delta[i] = posterior[i] * (prob[i] - if y[i] == class { T::ONE } else { T::default() });
                }
            }
        }
    }

    #[inline(always)]
    fn top_one_losses<S: Simd>(&mut self, y: &[T]) {
        let Shape { experts, outputs, .. } = self.shape;
        let y = &y[..PANEL_ROWS];
        let (mut value, mut slope) = ([T::default(); PANEL_ROWS], [T::default(); PANEL_ROWS]);
        for k in 0..experts {
            let (answers, gate) = (unit(&self.posterior, k), unit(&self.gate, k));
            for i in 0..PANEL_ROWS {
                value[i] = T::fma::<S>(answers[i], gate[i], value[i]);
            }
        }
        self.loss.copy_from_slice(unit(&self.log_total, 0));
        for c in 0..outputs {
            let class = T::from_f64((c + 1) as f64);
            let prob = unit(&self.prob, c);
            for k in 0..experts {
                let (answers, out) = (unit(&self.posterior, k), unit(&self.out, k * outputs + c));
                let delta = unit_mut(&mut self.delta_out, k * outputs + c);
                for i in 0..PANEL_ROWS {
                    let hit = if y[i] == class { T::ONE } else { T::default() };
                    let residual = answers[i] * (prob[i] - hit);
                    self.loss[i] = T::fma::<S>(-(answers[i] * hit * value[i]), out[i], self.loss[i]);
                    slope[i] = T::fma::<S>(residual, out[i], slope[i]);
                    delta[i] = value[i] * residual;
                }
            }
        }
        for k in 0..experts {
            let (answers, gate) = (unit(&self.posterior, k), unit(&self.gate, k));
            let delta = unit_mut(&mut self.delta, k);
            for i in 0..PANEL_ROWS {
                delta[i] = slope[i] * value[i] * (answers[i] - gate[i]);
            }
        }
    }

    /// Adds the derivatives of `sum_k b_k g_k` in the gate's outputs.
    #[inline(always)]
    pub fn balance(&mut self, b: &[T], rows: usize) {
        if b.is_empty() {
            return;
        }
        let mut mean = [T::default(); PANEL_ROWS];
        for (k, &b) in b.iter().enumerate() {
            let gate = unit(&self.gate, k);
            for i in 0..PANEL_ROWS {
                mean[i] += b * gate[i];
            }
        }
        for (k, &b) in b.iter().enumerate() {
            let (gate, delta) = (unit(&self.gate, k), unit_mut(&mut self.delta, k));
            for i in 0..rows {
                delta[i] += gate[i] * (b - mean[i]);
            }
        }
    }

    /// From derivatives in the experts' outputs to those in `eta`.
    #[inline(always)]
    pub fn descend<S: Simd>(&mut self) {
        let Shape { experts, hidden, outputs, .. } = self.shape;
        if hidden == 0 {
            self.delta[experts * PANEL_ROWS..].copy_from_slice(&self.delta_out);
            return;
        }
        for k in 0..experts {
            for h in 0..hidden {
                let place = experts + k * hidden + h;
                let mut sum = [T::default(); PANEL_ROWS];
                for c in 0..outputs {
                    let w = self.second[(k * outputs + c) * (hidden + 1) + 1 + h];
                    let delta = unit(&self.delta_out, k * outputs + c);
                    for i in 0..PANEL_ROWS {
                        sum[i] = T::fma::<S>(w, delta[i], sum[i]);
                    }
                }
                let (eta, delta) = (unit(&self.eta, place), unit_mut(&mut self.delta, place));
                for i in 0..PANEL_ROWS {
                    delta[i] = if eta[i] > T::default() { sum[i] } else { T::default() };
                }
            }
        }
    }

    /// Adds products of derivatives in the experts' outputs with what the rectifiers give, or their squares.
    #[inline(always)]
    pub fn add_second<S: Simd>(&self, sums: &mut [f64], squared: bool) {
        let Shape { experts, hidden, outputs, .. } = self.shape;
        if hidden == 0 {
            return;
        }
        let mut sums = sums.iter_mut();
        let ones = [T::ONE; PANEL_ROWS];
        let mut active = [T::default(); PANEL_ROWS];
        for k in 0..experts {
            for c in 0..outputs {
                let delta = unit(&self.delta_out, k * outputs + c);
                for h in 0..=hidden {
                    let Some(sum) = sums.next() else { return };
                    if h == 0 {
                        *sum += dot::<T, S>(delta, &ones, squared);
                    } else {
                        let eta = unit(&self.eta, experts + k * hidden + h - 1);
                        for i in 0..PANEL_ROWS {
                            active[i] = eta[i].larger(T::default());
                        }
                        *sum += dot::<T, S>(delta, &active, squared);
                    }
                }
            }
        }
    }

    /// Adds the gate's values and the posteriors over the first `rows` rows.
    #[inline(always)]
    pub fn add_loads(&self, gates: &mut [f64], loads: &mut [f64], rows: usize) {
        for (k, (gates, loads)) in gates.iter_mut().zip(loads).enumerate() {
            let sum = |of: &[T]| of[..rows].iter().map(|v| v.to_f64()).sum::<f64>();
            *gates += sum(unit(&self.gate, k));
            *loads += sum(unit(&self.posterior, k));
        }
    }

    /// Logarithms of the probabilities of all classes of row `i`.
    pub fn tell(&self, i: usize, all: &mut Vec<f64>) {
        let Shape { experts, outputs, routing, .. } = self.shape;
        let at = |of: &[T], index: usize| of[index * PANEL_ROWS + i].to_f64();
        for class in 0..=outputs {
            all.push(match routing {
                Routing::Soft => {
                    let joint = |k: usize| {
                        let output = if class == 0 { 0.0 } else { at(&self.out, k * outputs + class - 1) };
                        at(&self.log_gate, k) + output - at(&self.log_total, k)
                    };
                    let largest = (0..experts).map(joint).fold(f64::NEG_INFINITY, f64::max);
                    largest + (0..experts).map(|k| (joint(k) - largest).exp()).sum::<f64>().ln()
                }
                Routing::TopOne => {
                    // The product of the gate with the output of the expert that answers.
                    let output =
                        |k: usize| at(&self.posterior, k) * at(&self.gate, k) * at(&self.out, k * outputs + class - 1);
                    let output = if class == 0 { 0.0 } else { (0..experts).map(output).sum() };
                    output - at(&self.log_total, 0)
                }
            });
        }
    }
}

/// `softmax(0, out)`: probabilities of classes from the second on, of the first, and the logarithm of the sum that they were
/// divided by.
#[inline(always)]
fn softmax<T: Real, S: Simd>(out: &[T], prob: &mut [T], first: &mut [T], log_total: &mut [T]) {
    let mut largest = [T::default(); PANEL_ROWS];
    for out in out.chunks_exact(PANEL_ROWS) {
        for i in 0..PANEL_ROWS {
            largest[i] = largest[i].larger(out[i]);
        }
    }
    let mut total = [T::default(); PANEL_ROWS];
    for i in 0..PANEL_ROWS {
        first[i] = T::exp::<S>(-largest[i]);
        total[i] = first[i];
    }
    for (out, prob) in out.chunks_exact(PANEL_ROWS).zip(prob.chunks_exact_mut(PANEL_ROWS)) {
        for i in 0..PANEL_ROWS {
            prob[i] = T::exp::<S>(out[i] - largest[i]);
            total[i] += prob[i];
        }
    }
    for prob in prob.chunks_exact_mut(PANEL_ROWS) {
        for i in 0..PANEL_ROWS {
            prob[i] = prob[i] / total[i];
        }
    }
    for i in 0..PANEL_ROWS {
        first[i] = first[i] / total[i];
        log_total[i] = largest[i] + T::ln::<S>(total[i]);
    }
}
