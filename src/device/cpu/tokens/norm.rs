//! Root-mean-square normalization of rows with its derivatives (Zhang and Sennrich 2019).
//!
//! With `r = (mean x^2 + epsilon)^(-1/2)`: `y = r w o x`; tangent `r (w o t + t_w o x) - r^3 <x, t>/d w o x`; adjoint
//! `dx = r w o d - r^3 <w o d, x>/n x`, `dw = sum r d o x`.

use crate::device::cpu::products::{Rect, RectMut, dot};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Rows that one task takes.
const ROWS: usize = 256;

#[inline(always)]
fn inverse<S: Simd>(x: &[f32], epsilon: f32) -> f32 {
    (dot::<S>(x, x) / x.len() as f32 + epsilon).sqrt().recip()
}

struct Forward<'a> {
    out: &'a mut [f32],
    stride: usize,
    first: usize,
    x: Rect<'a>,
    w: &'a [f32],
    epsilon: f32,
    tangent: Option<(Rect<'a>, &'a [f32])>,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (n, w) = (self.w.len(), self.w);
        for (i, out) in self.out.chunks_mut(self.stride).enumerate() {
            let (x, out) = (&self.x.row(self.first + i)[..n], &mut out[..n]);
            let r = inverse::<S>(x, self.epsilon);
            match self.tangent {
                None => {
                    for j in 0..n {
                        out[j] = w[j] * (r * x[j]);
                    }
                }
                Some((t, t_w)) => {
                    let (t, t_w) = (&t.row(self.first + i)[..n], &t_w[..n]);
                    let c = r * r * r * dot::<S>(x, t) / n as f32;
                    for j in 0..n {
                        out[j] = w[j] * (r * t[j] - c * x[j]) + t_w[j] * (r * x[j]);
                    }
                }
            }
        }
    }
}

pub(super) fn forward(
    out: RectMut<'_>,
    x: Rect<'_>,
    w: &[f32],
    tangent: Option<(Rect<'_>, &[f32])>,
    epsilon: f32,
    parallel: bool,
) {
    let stride = out.stride;
    super::for_chunks(out.values, ROWS * stride, parallel, |i, out| {
        Arch::new().dispatch(Forward { out, stride, first: i * ROWS, x, w, epsilon, tangent });
    });
}

struct Adjoint<'a> {
    dx: &'a mut [f32],
    dw: &'a mut [f32],
    g: &'a mut [f32],
    stride: usize,
    first: usize,
    x: Rect<'a>,
    w: &'a [f32],
    d: Rect<'a>,
    epsilon: f32,
}

impl WithSimd for Adjoint<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let n = self.w.len();
        let (w, g, dw) = (self.w, &mut self.g[..n], &mut self.dw[..n]);
        for (i, dx) in self.dx.chunks_mut(self.stride).enumerate() {
            let (x, d, dx) = (&self.x.row(self.first + i)[..n], &self.d.row(self.first + i)[..n], &mut dx[..n]);
            let r = inverse::<S>(x, self.epsilon);
            for j in 0..n {
                g[j] = w[j] * d[j];
            }
            let c = r * r * r * dot::<S>(g, x) / n as f32;
            for j in 0..n {
                dx[j] += r * g[j] - c * x[j];
                dw[j] += r * x[j] * d[j];
            }
        }
    }
}

pub(super) fn adjoint(
    dx: RectMut<'_>,
    dw: &mut [f32],
    x: Rect<'_>,
    w: &[f32],
    d: Rect<'_>,
    epsilon: f32,
    parallel: bool,
) {
    let (n, stride) = (w.len(), dx.stride);
    let run = |(i, dx): (usize, &mut [f32])| {
        let (mut dw, mut g) = (vec![0.0; n], vec![0.0; n]);
        let task = Adjoint { dx, dw: &mut dw, g: &mut g, stride, first: i * ROWS, x, w, d, epsilon };
        Arch::new().dispatch(task);
        dw
    };
    let parts: Vec<Vec<f32>> = if parallel {
        dx.values.par_chunks_mut(ROWS * stride).enumerate().map(run).collect()
    } else {
        dx.values.chunks_mut(ROWS * stride).enumerate().map(run).collect()
    };
    for part in parts {
        dw.iter_mut().zip(part).for_each(|(to, from)| *to += from);
    }
}
