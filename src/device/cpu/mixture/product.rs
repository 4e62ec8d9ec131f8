//! Products with the Gauss-Newton matrix of a mixture, `sum_i J_i' H_i J_i v` with the mixture's own probabilities as outputs.
//!
//! With `s_c` the derivatives of `ln P(c)` in the outputs of gate and experts, a row's matrix there is
//! `sum_c P(c) s_c s_c'`: the Fisher information of what is observed. Along a tangent `t`, with
//! `m_k = sum_b P_k(b) t_kb` and `h_kc = g_k P_k(c) / P(c)`,
//!
//! ```text
//! a_c = s_c' t = sum_k h_kc (t_k + t_kc - m_k) - sum_k g_k t_k
//! sum_c P(c) a_c s_c = ( g_k A_k ;  g_k P_k(b) (a_b - A_k) ),   A_k = sum_c a_c P_k(c)
//! ```
//!
//! for gate and experts. With top-1 routing it is the matrix of the outputs `o = g_k f_k` with who answers held, and the
//! balance, which is linear in the gate's values, has no part in it. It is positive semi-definite, and not the Hessian.

use super::rows::{Work, flush, unit, unit_mut};
use super::{Real, Routing, Selection, Shape, Visit};
use crate::device::PANEL_ROWS;
use crate::device::cpu::design::{Design, map_selection};
use crate::device::cpu::glm::{add_products, predictors};
use pulp::{Arch, Simd, WithSimd};

/// Probabilities below this count as this where something is divided by them.
const LEAST: f64 = 1e-30;

struct Product<'a, T> {
    visit: Visit<'a>,
    along: &'a [f64],
    kind: std::marker::PhantomData<T>,
}

impl<T: Real> WithSimd for Product<'_, T> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f64> {
        let Visit { design, shape, selection, .. } = self.visit;
        let first = shape.rows() * design.columns();
        let mut sums = vec![0.0; first + shape.second()];
        let (mut work, mut tile) = self.visit.start::<T>();
        let mut tangent = Work::<T>::new(shape, design.columns(), self.along);
        for span in design.spans(selection) {
            design.fill(span, &mut tile);
            let z = design.view(&tile);
            work.forward::<S>(simd, z);
            predictors::<T, S>(simd, &tangent.first, z, &mut tangent.eta);
            tangents::<T, S>(&work, &mut tangent);
            match shape.routing {
                Routing::Soft => soft::<T, S>(&mut work, &tangent),
                Routing::TopOne => top_one::<T, S>(&mut work, &tangent),
            }
            flush(&mut work.delta);
            flush(&mut work.delta_out);
            for units in [&mut work.delta, &mut work.delta_out] {
                units.chunks_exact_mut(PANEL_ROWS).for_each(|unit| unit[tile.rows..].fill(T::default()));
            }
            work.descend::<S>();
            let (of_first, of_second) = sums.split_at_mut(first);
            add_products(simd, &work.delta, z, &mut work.product, of_first);
            work.add_second::<S>(of_second, false);
        }
        sums
    }
}

/// Tangents of the experts' outputs, into `tangent.out`.
#[inline(always)]
fn tangents<T: Real, S: Simd>(work: &Work<T>, tangent: &mut Work<T>) {
    let Shape { experts, hidden, outputs, .. } = work.shape;
    if hidden == 0 {
        tangent.out.copy_from_slice(&tangent.eta[experts * PANEL_ROWS..]);
        return;
    }
    for k in 0..experts {
        for c in 0..outputs {
            let w = work.output_weights(k, c);
            let place = (k * outputs + c) * (hidden + 1);
            let v = &tangent.second[place..place + hidden + 1];
            let out = unit_mut(&mut tangent.out, k * outputs + c);
            out.fill(v[0]);
            for h in 0..hidden {
                let row = experts + k * hidden + h;
                let (eta, t) = (unit(&work.eta, row), unit(&tangent.eta, row));
                let (w, v) = (w[h + 1], v[h + 1]);
                for i in 0..PANEL_ROWS {
                    let along = T::fma::<S>(w, t[i], v * eta[i]);
                    out[i] += if eta[i] > T::default() { along } else { T::default() };
                }
            }
        }
    }
}

/// From tangents to `sum_c P(c) a_c s_c`, into the derivatives of `work`.
#[inline(always)]
fn soft<T: Real, S: Simd>(work: &mut Work<T>, tangent: &Work<T>) {
    let Shape { experts, outputs, .. } = work.shape;
    // `along_k = t_k - m_k` of each expert, into the gate's part of `delta`.
    let mut of_gate = [T::default(); PANEL_ROWS];
    for k in 0..experts {
        let (gate, t) = (unit(&work.gate, k), unit(&tangent.eta, k));
        let along = unit_mut(&mut work.delta, k);
        along.copy_from_slice(t);
        for i in 0..PANEL_ROWS {
            of_gate[i] = T::fma::<S>(gate[i], t[i], of_gate[i]);
        }
        for c in 0..outputs {
            let (prob, t) = (unit(&work.prob, k * outputs + c), unit(&tangent.out, k * outputs + c));
            for i in 0..PANEL_ROWS {
                along[i] = T::fma::<S>(-prob[i], t[i], along[i]);
            }
        }
    }
    // `a_c` of every class, the first one last; its output is zero and has no tangent.
    let least = T::from_f64(LEAST);
    let zero = [T::default(); PANEL_ROWS];
    let mut a = vec![T::default(); (outputs + 1) * PANEL_ROWS];
    for (c, a) in a.chunks_exact_mut(PANEL_ROWS).enumerate() {
        let mut total = [T::default(); PANEL_ROWS];
        for k in 0..experts {
            let (gate, along) = (unit(&work.gate, k), unit(&work.delta, k));
            let is_first = c == outputs;
            let prob = if is_first { unit(&work.first_prob, k) } else { unit(&work.prob, k * outputs + c) };
            let own = if is_first { &zero[..] } else { unit(&tangent.out, k * outputs + c) };
            for i in 0..PANEL_ROWS {
                let joint = gate[i] * prob[i];
                total[i] += joint;
                a[i] = T::fma::<S>(joint, along[i] + own[i], a[i]);
            }
        }
        for i in 0..PANEL_ROWS {
            a[i] = a[i] / total[i].larger(least) - of_gate[i];
        }
    }
    for k in 0..experts {
        let gate = unit(&work.gate, k);
        let mut mean = [T::default(); PANEL_ROWS];
        for (c, a) in a.chunks_exact(PANEL_ROWS).enumerate() {
            let prob = if c == outputs { unit(&work.first_prob, k) } else { unit(&work.prob, k * outputs + c) };
            for i in 0..PANEL_ROWS {
                mean[i] = T::fma::<S>(prob[i], a[i], mean[i]);
            }
        }
        let delta = unit_mut(&mut work.delta, k);
        for i in 0..PANEL_ROWS {
            delta[i] = gate[i] * mean[i];
        }
        for (c, a) in a.chunks_exact(PANEL_ROWS).enumerate().take(outputs) {
            let prob = unit(&work.prob, k * outputs + c);
            let delta = unit_mut(&mut work.delta_out, k * outputs + c);
            for i in 0..PANEL_ROWS {
                delta[i] = gate[i] * prob[i] * (a[i] - mean[i]);
            }
        }
    }
}

/// The same with top-1 routing: `q = (diag(p) - p p') do`, `do = dg f + g df` of the expert that answers.
#[inline(always)]
fn top_one<T: Real, S: Simd>(work: &mut Work<T>, tangent: &Work<T>) {
    let Shape { experts, outputs, .. } = work.shape;
    let (mut value, mut of_value) = ([T::default(); PANEL_ROWS], [T::default(); PANEL_ROWS]);
    let mut of_gate = [T::default(); PANEL_ROWS];
    for k in 0..experts {
        let (gate, answers, t) = (unit(&work.gate, k), unit(&work.posterior, k), unit(&tangent.eta, k));
        for i in 0..PANEL_ROWS {
            value[i] = T::fma::<S>(answers[i], gate[i], value[i]);
            of_value[i] = T::fma::<S>(answers[i], t[i], of_value[i]);
            of_gate[i] = T::fma::<S>(gate[i], t[i], of_gate[i]);
        }
    }
    for i in 0..PANEL_ROWS {
        of_value[i] = value[i] * (of_value[i] - of_gate[i]);
    }
    let mut along = vec![T::default(); outputs * PANEL_ROWS];
    let mut mean = [T::default(); PANEL_ROWS];
    for (c, along) in along.chunks_exact_mut(PANEL_ROWS).enumerate() {
        let prob = unit(&work.prob, c);
        for k in 0..experts {
            let answers = unit(&work.posterior, k);
            let (out, t) = (unit(&work.out, k * outputs + c), unit(&tangent.out, k * outputs + c));
            for i in 0..PANEL_ROWS {
                along[i] += answers[i] * T::fma::<S>(of_value[i], out[i], value[i] * t[i]);
            }
        }
        for i in 0..PANEL_ROWS {
            mean[i] = T::fma::<S>(prob[i], along[i], mean[i]);
        }
    }
    let mut slope = [T::default(); PANEL_ROWS];
    for (c, along) in along.chunks_exact(PANEL_ROWS).enumerate() {
        let prob = unit(&work.prob, c);
        for k in 0..experts {
            let (answers, out) = (unit(&work.posterior, k), unit(&work.out, k * outputs + c));
            let delta = unit_mut(&mut work.delta_out, k * outputs + c);
            for i in 0..PANEL_ROWS {
                let q = answers[i] * prob[i] * (along[i] - mean[i]);
                slope[i] = T::fma::<S>(q, out[i], slope[i]);
                delta[i] = value[i] * q;
            }
        }
    }
    for k in 0..experts {
        let (answers, gate) = (unit(&work.posterior, k), unit(&work.gate, k));
        let delta = unit_mut(&mut work.delta, k);
        for i in 0..PANEL_ROWS {
            delta[i] = slope[i] * value[i] * (answers[i] - gate[i]);
        }
    }
}

/// `sum_i J_i' H_i J_i v` over `selection` at `theta`, in `f64` if `high`.
#[must_use]
pub fn multiply(
    design: &Design,
    shape: Shape,
    theta: &[f64],
    along: &[f64],
    selection: Selection<'_>,
    high: bool,
) -> Vec<f64> {
    let visit = Visit { design, shape, theta, selection };
    let parts = map_selection(selection, |_, selection| {
        let visit = visit.part(selection);
        if high {
            Arch::new().dispatch(Product::<f64> { visit, along, kind: std::marker::PhantomData })
        } else {
            Arch::new().dispatch(Product::<f32> { visit, along, kind: std::marker::PhantomData })
        }
    });
    let mut total = vec![0.0; theta.len()];
    for part in parts {
        total.iter_mut().zip(part).for_each(|(a, b)| *a += b);
    }
    total
}
