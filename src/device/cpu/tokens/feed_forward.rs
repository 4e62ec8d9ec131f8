//! Functions of feed-forward layers with their derivatives.
//!
//! GEGLU takes GELU in the form with tanh, `g(z) = z/2 (1 + tanh(c (z + 0.044715 z^3)))`, `c = sqrt(2/pi)`; its derivative is
//! `(1 + t)/2 + z/2 (1 - t^2) c (1 + 3 0.044715 z^2)`.

use crate::device::FeedForward;
use crate::device::cpu::elementwise::{Function, Gelu, Relu, Tanh};
use crate::device::cpu::products::{Rect, RectMut};
use crate::device::cpu::real::Real;
use pulp::{Arch, Simd, WithSimd};

/// What is to be made of `u`.
#[derive(Clone, Copy)]
enum Task<'a> {
    Value,
    Tangent(Rect<'a>),
    Adjoint(Rect<'a>),
}

struct Rows<'a> {
    f: FeedForward,
    out: &'a mut [f32],
    /// Numbers of a row of `out`, and from row to row.
    columns: usize,
    stride: usize,
    first: usize,
    u: Rect<'a>,
    task: Task<'a>,
}

/// `g(z)` and `g'(z)`.
#[inline(always)]
fn gelu_by_tanh<S: Simd>(z: f32) -> (f32, f32) {
    const C: f32 = 0.797_884_6;
    let s = z * z;
    let t = Tanh::value::<S>(C * z * f32::fma::<S>(0.044_715, s, 1.0));
    let slope = 0.5 * (1.0 + t) + 0.5 * z * (1.0 - t * t) * C * f32::fma::<S>(0.134_145, s, 1.0);
    (0.5 * z * (1.0 + t), slope)
}

/// `h`, or with a factor beside it `h' factor`.
#[inline(always)]
fn single<S: Simd, F: Function>(out: &mut [f32], u: &[f32], factor: Option<&[f32]>) {
    let n = out.len();
    let u = &u[..n];
    match factor {
        None => {
            for j in 0..n {
                out[j] = F::value::<S>(u[j]);
            }
        }
        Some(factor) => {
            let factor = &factor[..n];
            for j in 0..n {
                out[j] = F::slope_at::<S>(u[j]) * factor[j];
            }
        }
    }
}

impl WithSimd for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let columns = self.columns;
        for (i, out) in self.out.chunks_mut(self.stride).enumerate() {
            let (row, out) = (self.first + i, &mut out[..columns]);
            let u = self.u.row(row);
            let factor = match self.task {
                Task::Value => None,
                Task::Tangent(t) | Task::Adjoint(t) => Some(t.row(row)),
            };
            match self.f {
                FeedForward::Relu => single::<S, Relu>(out, u, factor),
                FeedForward::Gelu => single::<S, Gelu>(out, u, factor),
                FeedForward::Geglu => {
                    let n = u.len() / 2;
                    let (gate, linear) = (&u[..n], &u[n..2 * n]);
                    match self.task {
                        Task::Value => {
                            for j in 0..n {
                                out[j] = gelu_by_tanh::<S>(gate[j]).0 * linear[j];
                            }
                        }
                        Task::Tangent(t) => {
                            let (t_gate, t_linear) = t.row(row).split_at(n);
                            for j in 0..n {
                                let (value, slope) = gelu_by_tanh::<S>(gate[j]);
                                out[j] = slope * linear[j] * t_gate[j] + value * t_linear[j];
                            }
                        }
                        Task::Adjoint(d) => {
                            let d = &d.row(row)[..n];
                            let (d_gate, d_linear) = out.split_at_mut(n);
                            for j in 0..n {
                                let (value, slope) = gelu_by_tanh::<S>(gate[j]);
                                d_gate[j] = slope * linear[j] * d[j];
                                d_linear[j] = value * d[j];
                            }
                        }
                    }
                }
            }
        }
    }
}

fn rows(f: FeedForward, out: RectMut<'_>, u: Rect<'_>, task: Task<'_>, parallel: bool) {
    let (columns, stride) = (out.columns, out.stride);
    let group = ((1 << 14) / columns.max(1)).max(1);
    super::for_chunks(out.values, group * stride, parallel, |i, out| {
        Arch::new().dispatch(Rows { f, out, columns, stride, first: i * group, u, task });
    });
}

pub(super) fn value(f: FeedForward, h: RectMut<'_>, u: Rect<'_>, parallel: bool) {
    rows(f, h, u, Task::Value, parallel);
}

pub(super) fn tangent(f: FeedForward, t_h: RectMut<'_>, u: Rect<'_>, t_u: Rect<'_>, parallel: bool) {
    rows(f, t_h, u, Task::Tangent(t_u), parallel);
}

pub(super) fn adjoint(f: FeedForward, d_u: RectMut<'_>, u: Rect<'_>, d_h: Rect<'_>, parallel: bool) {
    rows(f, d_u, u, Task::Adjoint(d_h), parallel);
}
