//! Functions of single elements: activations with their slopes, and the algebra of flat arrays.
//!
//! `tanh` is an odd polynomial below 0.625 and `1 - 2/(exp(2|z|) + 1)` beyond (Moshier's Cephes); `Phi` of GELU follows
//! from `erf` by formula 7.1.26 of Abramowitz and Stegun, whose error of 1.5e-7 is that of `f32` beside 1. All are
//! branch-free, so that loops over examples become vector code. A NaN stays a NaN.

use super::products::{Rect, RectMut};
use super::real::Real;
use crate::device::{Activation, AdamStep};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::marker::PhantomData;

/// An activation. What is kept of the forward pass is its value, unless it says otherwise.
pub(super) trait Function: Send + Sync {
    /// `h(z)`.
    fn value<S: Simd>(z: f32) -> f32;
    /// `h'` from what was kept.
    fn slope<S: Simd>(kept: f32) -> f32;
    /// `h'(z)`.
    #[inline(always)]
    fn slope_at<S: Simd>(z: f32) -> f32 {
        Self::slope::<S>(Self::value::<S>(z))
    }
}

struct Identity;
pub(super) struct Relu;
pub(super) struct Tanh;
struct Sigmoid;
pub(super) struct Gelu;

impl Function for Identity {
    #[inline(always)]
    fn value<S: Simd>(z: f32) -> f32 {
        z
    }

    #[inline(always)]
    fn slope<S: Simd>(_: f32) -> f32 {
        1.0
    }
}

impl Function for Relu {
    #[inline(always)]
    fn value<S: Simd>(z: f32) -> f32 {
        if z < 0.0 { 0.0 } else { z }
    }

    #[inline(always)]
    fn slope<S: Simd>(kept: f32) -> f32 {
        if kept > 0.0 { 1.0 } else { 0.0 }
    }
}

impl Function for Tanh {
    #[inline(always)]
    fn value<S: Simd>(z: f32) -> f32 {
        let s = z * z;
        let mut p = -5.704_988_7e-3;
        for c in [2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1] {
            p = f32::fma::<S>(p, s, c);
        }
        let near = f32::fma::<S>(p * s, z, z);
        let size = z.abs();
        let far = (1.0 - 2.0 / (<f32 as Real>::exp::<S>(2.0 * size) + 1.0)).copysign(z);
        if size < 0.625 { near } else { far }
    }

    #[inline(always)]
    fn slope<S: Simd>(kept: f32) -> f32 {
        f32::fma::<S>(-kept, kept, 1.0)
    }
}

impl Function for Sigmoid {
    #[inline(always)]
    fn value<S: Simd>(z: f32) -> f32 {
        1.0 / (1.0 + <f32 as Real>::exp::<S>(-z))
    }

    #[inline(always)]
    fn slope<S: Simd>(kept: f32) -> f32 {
        f32::fma::<S>(-kept, kept, kept)
    }
}

impl Gelu {
    /// `Phi(z)`, and `exp(-z^2/2)`.
    #[inline(always)]
    fn distribution<S: Simd>(z: f32) -> (f32, f32) {
        let size = z.abs() * std::f32::consts::FRAC_1_SQRT_2;
        let e = <f32 as Real>::exp::<S>(-size * size);
        let t = 1.0 / f32::fma::<S>(0.327_591_1, size, 1.0);
        let mut p = 1.061_405_4;
        for c in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
            p = f32::fma::<S>(p, t, c);
        }
        let tail = 0.5 * p * t * e;
        (if z > 0.0 { 1.0 - tail } else { tail }, e)
    }
}

impl Function for Gelu {
    #[inline(always)]
    fn value<S: Simd>(z: f32) -> f32 {
        z * Self::distribution::<S>(z).0
    }

    /// Slopes themselves are kept.
    #[inline(always)]
    fn slope<S: Simd>(kept: f32) -> f32 {
        kept
    }

    #[inline(always)]
    fn slope_at<S: Simd>(z: f32) -> f32 {
        let (phi, e) = Self::distribution::<S>(z);
        f32::fma::<S>(z * e, 0.398_942_3, phi)
    }
}

/// Calls `$body` with `$f` standing for the type of an activation.
macro_rules! with_function {
    ($h:expr, $f:ident => $body:expr) => {
        match $h {
            Activation::Identity => {
                type $f = Identity;
                $body
            }
            Activation::Relu => {
                type $f = Relu;
                $body
            }
            Activation::Tanh => {
                type $f = Tanh;
                $body
            }
            Activation::Sigmoid => {
                type $f = Sigmoid;
                $body
            }
            Activation::Gelu => {
                type $f = Gelu;
                $body
            }
        }
    };
}

/// Elements that are worth a thread's while.
const PARALLEL_ELEMENTS: usize = 1 << 14;

/// Rows of a matrix that one task takes.
fn rows_at_once(rows: usize, columns: usize, parallel: bool) -> usize {
    if parallel { (PARALLEL_ELEMENTS / columns.max(1)).max(1) } else { rows.max(1) }
}

/// Calls `f` with the first row and the values of groups of rows.
pub(super) fn for_row_groups(out: RectMut<'_>, parallel: bool, f: impl Fn(usize, &mut [f32]) + Sync) {
    let group = rows_at_once(out.rows, out.columns, parallel);
    if group >= out.rows {
        f(0, out.values);
    } else {
        let groups = out.values.par_chunks_mut(group * out.stride).enumerate();
        groups.for_each(|(i, values)| f(i * group, values));
    }
}

/// `to = from`.
pub(super) fn copy(to: RectMut<'_>, from: Rect<'_>, parallel: bool) {
    let stride = to.stride.max(1);
    for_row_groups(to, parallel, |first, values| {
        for (i, to) in values.chunks_mut(stride).enumerate() {
            to[..from.columns].copy_from_slice(from.row(first + i));
        }
    });
}

struct Activate<'a, F> {
    values: &'a mut [f32],
    slopes: Option<&'a mut [f32]>,
    bias: &'a [f32],
    columns: usize,
    stride: usize,
    slope_stride: usize,
    function: PhantomData<F>,
}

impl<F: Function> WithSimd for Activate<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) {
        for (i, &bias) in self.bias.iter().enumerate() {
            let row = &mut self.values[i * self.stride..][..self.columns];
            if let Some(slopes) = &mut self.slopes {
                let slopes = &mut slopes[i * self.slope_stride..][..self.columns];
                for (slope, &z) in slopes.iter_mut().zip(row.iter()) {
                    *slope = F::slope_at::<S>(z + bias);
                }
            }
            for z in row {
                *z = F::value::<S>(*z + bias);
            }
        }
    }
}

/// `a = h(a + bias)`, slopes beside it where asked.
pub(super) fn activate(h: Activation, a: RectMut<'_>, bias: &[f32], slopes: Option<RectMut<'_>>, parallel: bool) {
    let (columns, stride) = (a.columns, a.stride);
    let group = rows_at_once(a.rows, columns, parallel);
    let slope_stride = slopes.as_ref().map_or(1, |s| s.stride);
    let run = |bias: &[f32], values: &mut [f32], slopes: Option<&mut [f32]>| {
        with_function!(h, F => Arch::new().dispatch(Activate::<'_, F> {
            values, slopes, bias, columns, stride, slope_stride, function: PhantomData,
        }));
    };
    if group >= a.rows {
        run(bias, a.values, slopes.map(|s| s.values));
        return;
    }
    let groups = a.values.par_chunks_mut(group * stride).zip(bias.par_chunks(group));
    match slopes {
        None => groups.for_each(|(values, bias)| run(bias, values, None)),
        Some(slopes) => groups
            .zip(slopes.values.par_chunks_mut(group * slope_stride))
            .for_each(|((values, bias), slopes)| run(bias, values, Some(slopes))),
    }
}

struct Tangent<'a, F> {
    values: &'a mut [f32],
    bias: &'a [f32],
    first: usize,
    kept: Rect<'a>,
    stride: usize,
    function: PhantomData<F>,
}

impl<F: Function> WithSimd for Tangent<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (i, &bias) in self.bias.iter().enumerate() {
            let kept = self.kept.row(self.first + i);
            let row = &mut self.values[i * self.stride..][..kept.len()];
            for (t, &kept) in row.iter_mut().zip(kept) {
                *t = (*t + bias) * F::slope::<S>(kept);
            }
        }
    }
}

/// `t = (t + bias) o h'`.
pub(super) fn tangent(h: Activation, t: RectMut<'_>, bias: &[f32], kept: Rect<'_>, parallel: bool) {
    let stride = t.stride;
    for_row_groups(t, parallel, |first, values| {
        let rows = values.len().div_ceil(stride);
        let bias = &bias[first..first + rows];
        with_function!(h, F => Arch::new().dispatch(Tangent::<'_, F> {
            values, bias, first, kept, stride, function: PhantomData,
        }));
    });
}

struct Slopes<'a, F> {
    values: &'a mut [f32],
    /// With a single unit above: its weights and what comes down from it.
    outer: Option<(&'a [f32], &'a [f32])>,
    first: usize,
    kept: Rect<'a>,
    stride: usize,
    function: PhantomData<F>,
}

impl<F: Function> WithSimd for Slopes<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let columns = self.kept.columns;
        for (i, row) in self.values.chunks_mut(self.stride).enumerate() {
            let kept = &self.kept.row(self.first + i)[..columns];
            let row = &mut row[..columns];
            if let Some((weights, d)) = self.outer {
                let (weight, d) = (weights[self.first + i], &d[..columns]);
                for j in 0..columns {
                    row[j] = weight * d[j] * F::slope::<S>(kept[j]);
                }
            } else {
                for j in 0..columns {
                    row[j] *= F::slope::<S>(kept[j]);
                }
            }
        }
    }
}

/// `d = d o h'`, or `d = (w' r) o h'` for a single unit with weights `w` above that hands down `r`.
pub(super) fn multiply_slopes(
    h: Activation,
    d: RectMut<'_>,
    outer: Option<(&[f32], &[f32])>,
    kept: Rect<'_>,
    parallel: bool,
) {
    let stride = d.stride;
    for_row_groups(d, parallel, |first, values| {
        with_function!(h, F => Arch::new().dispatch(Slopes::<'_, F> {
            values, outer, first, kept, stride, function: PhantomData,
        }));
    });
}

struct RowSums<'a> {
    out: &'a mut [f32],
    keep: bool,
    first: usize,
    a: Rect<'a>,
}

impl WithSimd for RowSums<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        const LANES: usize = 64;
        for (i, out) in self.out.iter_mut().enumerate() {
            let (lanes, rest) = self.a.row(self.first + i).as_chunks::<LANES>();
            let mut sums = [0.0_f32; LANES];
            for lane in lanes {
                for j in 0..LANES {
                    sums[j] += lane[j];
                }
            }
            let mut width = LANES / 2;
            while width > 0 {
                for j in 0..width {
                    sums[j] += sums[j + width];
                }
                width /= 2;
            }
            let sum = sums[0] + rest.iter().sum::<f32>();
            *out = if self.keep { *out + sum } else { sum };
        }
    }
}

/// The sum of each row of `a` to an element of `out`, added with `keep`.
pub(super) fn row_sums(out: &mut [f32], keep: bool, a: Rect<'_>, parallel: bool) {
    let group = rows_at_once(a.rows, a.columns, parallel);
    if group >= a.rows {
        Arch::new().dispatch(RowSums { out, keep, first: 0, a });
    } else {
        let groups = out.par_chunks_mut(group).enumerate();
        groups.for_each(|(i, out)| Arch::new().dispatch(RowSums { out, keep, first: i * group, a }));
    }
}

/// `out = a o a`.
pub(super) fn squares(out: RectMut<'_>, a: Rect<'_>, parallel: bool) {
    let stride = out.stride;
    for_row_groups(out, parallel, |first, values| {
        Arch::new().dispatch(|| {
            for (i, row) in values.chunks_mut(stride).enumerate() {
                for (out, &a) in row.iter_mut().zip(a.row(first + i)) {
                    *out = a * a;
                }
            }
        });
    });
}

/// `out = a diag(w)`.
pub(super) fn scale_columns(out: RectMut<'_>, a: Rect<'_>, w: &[f32], parallel: bool) {
    let stride = out.stride;
    for_row_groups(out, parallel, |first, values| {
        Arch::new().dispatch(|| {
            for (i, row) in values.chunks_mut(stride).enumerate() {
                for ((out, &a), &w) in row.iter_mut().zip(a.row(first + i)).zip(w) {
                    *out = a * w;
                }
            }
        });
    });
}

/// `a = own a + factor b`.
pub(super) fn blend(own: f32, a: RectMut<'_>, factor: f32, b: Rect<'_>, parallel: bool) {
    let stride = a.stride;
    for_row_groups(a, parallel, |first, values| {
        Arch::new().dispatch(|| {
            for (i, row) in values.chunks_mut(stride).enumerate() {
                for (a, &b) in row.iter_mut().zip(b.row(first + i)) {
                    *a = own * *a + factor * b;
                }
            }
        });
    });
}

/// `out = sum_i a_i o b_i` over rows.
pub(super) fn column_dots(out: &mut [f32], keep: bool, a: Rect<'_>, b: Rect<'_>) {
    Arch::new().dispatch(|| {
        let out = &mut out[..a.columns];
        if !keep {
            out.fill(0.0);
        }
        for i in 0..a.rows {
            for ((out, &a), &b) in out.iter_mut().zip(a.row(i)).zip(b.row(i)) {
                *out += a * b;
            }
        }
    });
}

/// Number of elements above zero.
pub(super) fn count_positive(a: &[f32]) -> usize {
    Arch::new().dispatch(|| a.iter().map(|&a| u32::from(a > 0.0)).sum::<u32>() as usize)
}

/// Elements of a flat array that are summed before their sum is added to those before: a fixed number, whatever the threads.
const SPAN: usize = 1 << 15;

/// Changes `a` with `b` beside it.
pub(super) fn zip(a: &mut [f32], b: &[f32], f: impl Fn(&mut f32, f32) + Sync) {
    assert_eq!(a.len(), b.len(), "arrays of the same length");
    let spans = a.par_chunks_mut(SPAN).zip(b.par_chunks(SPAN)).with_max_len(1);
    let span = |(a, b): (&mut [f32], &[f32])| {
        Arch::new().dispatch(
            #[inline(always)]
            || a.iter_mut().zip(b).for_each(|(a, &b)| f(a, b)),
        );
    };
    if b.len() <= SPAN { span((a, b)) } else { spans.for_each(span) }
}

/// Changes every element.
pub(super) fn map(a: &mut [f32], f: impl Fn(&mut f32) + Sync) {
    let span = |a: &mut [f32]| {
        Arch::new().dispatch(
            #[inline(always)]
            || a.iter_mut().for_each(&f),
        );
    };
    if a.len() <= SPAN { span(a) } else { a.par_chunks_mut(SPAN).with_max_len(1).for_each(span) }
}

/// Adam's update, see [`Backend::adam`](crate::device::Backend::adam).
pub(super) fn adam(a: &mut [f32], g: &[f32], m: Option<&mut [f32]>, v: &mut [f32], step: AdamStep) {
    let single = |x: f64| x as f32;
    let (beta1, rest1) = (single(step.beta1), single(1.0 - step.beta1));
    let (beta2, rest2) = (single(step.beta2), single(1.0 - step.beta2));
    let (root_factor, epsilon) = (single(step.root_factor), single(step.epsilon));
    let (step_size, keep) = (single(step.step_size), single(step.keep));
    let update = |a: &mut f32, m: f32, g: f32, v: &mut f32| {
        *v = beta2 * *v + rest2 * g * g;
        *a = keep * *a - step_size * m / (root_factor * v.sqrt() + epsilon);
    };
    let with_moment = |((a, &g), (m, v)): ((&mut f32, &f32), (&mut f32, &mut f32))| {
        *m = beta1 * *m + rest1 * g;
        update(a, *m, g, v);
    };
    let span = |a: &mut [f32], g: &[f32], m: Option<&mut [f32]>, v: &mut [f32]| {
        Arch::new().dispatch(
            #[inline(always)]
            || match m {
                Some(m) => a.iter_mut().zip(g).zip(m.iter_mut().zip(v)).for_each(with_moment),
                None => a.iter_mut().zip(g).zip(v).for_each(|((a, &g), v)| update(a, g, g, v)),
            },
        );
    };
    if g.len() <= SPAN {
        return span(a, g, m, v);
    }
    let spans = a.par_chunks_mut(SPAN).zip(g.par_chunks(SPAN)).zip(v.par_chunks_mut(SPAN));
    match m {
        Some(m) => {
            spans.zip(m.par_chunks_mut(SPAN)).with_max_len(1).for_each(|(((a, g), v), m)| span(a, g, Some(m), v));
        }
        None => spans.with_max_len(1).for_each(|((a, g), v)| span(a, g, None, v)),
    }
}

/// Folds spans to numbers and those into one, in order.
fn fold(len: usize, span: impl Fn(std::ops::Range<usize>) -> f64 + Sync, into: impl Fn(f64, f64) -> f64) -> f64 {
    let part = |i: usize| span(i * SPAN..((i + 1) * SPAN).min(len));
    let parts: Vec<f64> = if len <= SPAN {
        vec![part(0)]
    } else {
        (0..len.div_ceil(SPAN)).into_par_iter().with_max_len(1).map(part).collect()
    };
    parts.into_iter().fold(0.0, into)
}

struct Dot<'a>(&'a [f32], &'a [f32]);

impl WithSimd for Dot<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        let (a, a_rest) = self.0.as_chunks::<32>();
        let (b, b_rest) = self.1.as_chunks::<32>();
        let mut sums = [0.0_f64; 32];
        for (a, b) in a.iter().zip(b) {
            for i in 0..32 {
                sums[i] = f64::fma::<S>(f64::from(a[i]), f64::from(b[i]), sums[i]);
            }
        }
        let rest: f64 = a_rest.iter().zip(b_rest).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
        sums.iter().sum::<f64>() + rest
    }
}

/// `<a, b>` in `f64`.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "arrays of the same length");
    fold(a.len(), |r| Arch::new().dispatch(Dot(&a[r.clone()], &b[r])), |a, b| a + b)
}

struct Largest<'a>(&'a [f32]);

impl WithSimd for Largest<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        // Bits of a number without its sign grow with it, those of a NaN are the largest of all.
        let largest = self.0.iter().fold(0, |m: u32, v| m.max(v.to_bits() & 0x7fff_ffff));
        f64::from(f32::from_bits(largest))
    }
}

/// The largest absolute value; NaN if any element is NaN.
pub(super) fn largest(a: &[f32]) -> f64 {
    let larger = |a: f64, b: f64| if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) };
    fold(a.len(), |r| Arch::new().dispatch(Largest(&a[r])), larger)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulp::Scalar;

    fn erf(x: f64) -> f64 {
        // The series of 7.1.6 converges everywhere.
        let mut term = x;
        let mut sum = x;
        for n in 1..200 {
            term *= 2.0 * x * x / f64::from(2 * n + 1);
            sum += term;
        }
        2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
    }

    #[test]
    fn activations_and_slopes_agree_with_their_definitions() {
        fn slope<F: Function>(z: f64) -> (f64, f64) {
            (f64::from(F::value::<Scalar>(z as f32)), f64::from(F::slope_at::<Scalar>(z as f32)))
        }
        for i in -600..=600 {
            let z = f64::from(i) * 0.01 + 0.003;
            let z = f64::from(z as f32);
            let sigmoid = 1.0 / (1.0 + (-z).exp());
            let phi = 0.5 * (1.0 + erf(z / 2.0_f64.sqrt()));
            let density = (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt();
            for (name, (value, slope), expected) in [
                ("relu", slope::<Relu>(z), (z.max(0.0), f64::from(u8::from(z > 0.0)))),
                ("tanh", slope::<Tanh>(z), (z.tanh(), 1.0 - z.tanh().powi(2))),
                ("sigmoid", slope::<Sigmoid>(z), (sigmoid, sigmoid * (1.0 - sigmoid))),
                ("gelu", slope::<Gelu>(z), (z * phi, phi + z * density)),
            ] {
                assert!(
                    (value - expected.0).abs() < 1e-6 * z.abs().max(1.0),
                    "{name}({z}) = {value}, not {}",
                    expected.0
                );
                assert!((slope - expected.1).abs() < 1e-6, "{name}'({z}) = {slope}, not {}", expected.1);
            }
        }
        assert!(Tanh::value::<Scalar>(f32::NAN).is_nan() && Relu::value::<Scalar>(f32::NAN).is_nan());
        assert!(Sigmoid::value::<Scalar>(f32::NAN).is_nan() && Gelu::value::<Scalar>(f32::NAN).is_nan());
    }

    #[test]
    fn the_largest_value_is_found_and_a_nan_is_not_hidden() {
        let mut values: Vec<f32> = (0..100_000).map(|i| -(i as f32)).collect();
        assert_eq!(largest(&values), 99_999.0);
        values[7] = f32::NAN;
        assert!(largest(&values).is_nan());
    }
}
