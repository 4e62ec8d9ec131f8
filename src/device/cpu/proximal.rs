//! Proximal steps of losses and of a rectifier, an example a column.
//!
//! *Loss.* In the metric of a symmetric, positive semi-definite `Q` of every example,
//! `t = argmin l(c + Q t, y) + t'Q t/2`, so that `t = -grad l(s)` at `s = c + Q t`; with `Q = h I`, `s` is the ordinary
//! proximal point `argmin l(s, y) + |s - c|^2/(2h)`. One output: squared and hinges in closed form, logistic by Newton's
//! method within a bracket. Several: with `Q = L L'` and `t` from `u`, `argmin_u l(c + L u, y) + |u|^2/2` by Newton's method,
//! whose matrix `I + L'H L` is never singular; a step that does not lower the sum is halved. Zero pivots of `Q` leave zero
//! columns in `L`, so `Q = 0` is a case like any other: `t = -grad l(c)`.
//!
//! *Rectifier.* `z = argmin gamma (a - max(z, 0))^2 + beta (z - m)^2`: the better one of `max((gamma a + beta m)/(gamma +
//! beta), 0)` and `min(m, 0)`.

use super::losses::{Hinge, Logistic, Single, Squared, UnitHinge};
use super::products::{Rect, RectMut};
use super::real::Real;
use crate::device::Loss;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Examples of one output that are solved together.
const TILE: usize = 64;
/// Newton steps at most.
const STEPS: usize = 30;
/// Steps end below this share of the scale of what is sought.
const TOLERANCE: f32 = 1e-6;

/// A loss of one output with a proximal step: `t` at center `c`, target `y` and metric `q >= 0`.
trait Step: Single {
    fn tile<S: Simd>(c: &[f32], q: &[f32], y: &[f32], t: &mut [f32]);
}

impl Step for Squared {
    #[inline(always)]
    fn tile<S: Simd>(c: &[f32], q: &[f32], y: &[f32], t: &mut [f32]) {
        for j in 0..t.len() {
            t[j] = (y[j] - c[j]) / (1.0 + q[j]);
        }
    }
}

/// `t` of `max(0, 1 - m)` at margin `m` in the metric `q`.
#[inline(always)]
fn hinge_step(margin: f32, q: f32) -> f32 {
    let short = 1.0 - margin;
    // Written so that neither q = 0 nor a NaN needs a case of its own.
    if short < 0.0 {
        0.0
    } else if short > q {
        1.0
    } else {
        short / if q > 0.0 { q } else { 1.0 }
    }
}

impl Step for Hinge {
    #[inline(always)]
    fn tile<S: Simd>(c: &[f32], q: &[f32], y: &[f32], t: &mut [f32]) {
        for j in 0..t.len() {
            let sign = 2.0 * y[j] - 1.0;
            t[j] = sign * hinge_step(sign * c[j], q[j]);
        }
    }
}

impl Step for UnitHinge {
    #[inline(always)]
    fn tile<S: Simd>(c: &[f32], q: &[f32], y: &[f32], t: &mut [f32]) {
        for j in 0..t.len() {
            let is_signal = y[j] > 0.5;
            let step = hinge_step(if is_signal { c[j] } else { 1.0 - c[j] }, q[j]);
            t[j] = if is_signal { step } else { -step };
        }
    }
}

impl Step for Logistic {
    /// The root of the increasing `t + p(c + q t) - y`, which lies between `y - 1` and `y`.
    #[inline(always)]
    fn tile<S: Simd>(c: &[f32], q: &[f32], y: &[f32], t: &mut [f32]) {
        let n = t.len();
        let (mut low, mut high) = ([0.0_f32; TILE], [0.0_f32; TILE]);
        let (low, high) = (&mut low[..n], &mut high[..n]);
        for j in 0..n {
            (low[j], high[j], t[j]) = (y[j] - 1.0, y[j], 0.0);
        }
        for _ in 0..STEPS {
            let mut largest = 0.0_f32;
            for j in 0..n {
                let (_, slope) = Self::at::<S>(f32::fma::<S>(q[j], t[j], c[j]), y[j]);
                let curvature = Self::curvature::<S>(f32::fma::<S>(q[j], t[j], c[j]));
                let excess = t[j] + slope;
                low[j] = if excess < 0.0 { t[j] } else { low[j] };
                high[j] = if excess > 0.0 { t[j] } else { high[j] };
                let newton = t[j] - excess / f32::fma::<S>(q[j], curvature, 1.0);
                let middle = 0.5 * (low[j] + high[j]);
                // At an end of the bracket Newton's method has been before: halving keeps it from going in circles.
                let is_near = (newton - t[j]).abs() <= TOLERANCE;
                let next = if !is_near && (newton <= low[j] || newton >= high[j]) { middle } else { newton };
                let change = (next - t[j]).abs();
                largest = if change > largest { change } else { largest };
                t[j] = next;
            }
            if largest <= TOLERANCE {
                break;
            }
        }
    }
}

/// Proximal steps of one output, `(sum l(c + q t), sum q t^2)`.
struct Scalar<'a, L> {
    center: &'a [f32],
    metric: &'a [f32],
    targets: &'a [f32],
    t: &'a mut [f32],
    loss: std::marker::PhantomData<L>,
}

impl<L: Step> WithSimd for Scalar<'_, L> {
    type Output = [f64; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> [f64; 2] {
        let (mut loss, mut quadratic) = ([0.0_f64; TILE], [0.0_f64; TILE]);
        let tiles = self.center.chunks(TILE).zip(self.metric.chunks(TILE)).zip(self.targets.chunks(TILE));
        for (((c, q), y), t) in tiles.zip(self.t.chunks_mut(TILE)) {
            L::tile::<S>(c, q, y, t);
            for j in 0..t.len() {
                let move_ = q[j] * t[j];
                loss[j] += f64::from(L::at::<S>(c[j] + move_, y[j]).0);
                quadratic[j] += f64::from(move_ * t[j]);
            }
        }
        [loss.iter().sum(), quadratic.iter().sum()]
    }
}

/// Examples of several outputs that are solved together, one a lane.
const LANES: usize = 16;
type Lanes = [f32; LANES];
const ZERO: Lanes = [0.0; LANES];

/// Place of element `(i, j)`, `i >= j`, in a packed lower triangle.
#[inline(always)]
fn packed(i: usize, j: usize) -> usize {
    i * (i + 1) / 2 + j
}

/// The Cholesky factor of packed matrices in place; a pivot that has fallen to rounding leaves a zero column.
#[inline(always)]
fn factorize<S: Simd>(a: &mut [Lanes], k: usize) {
    const ROUNDING: f32 = 1e-6;
    for j in 0..k {
        let mut pivot = a[packed(j, j)];
        let diagonal = pivot;
        for i in 0..j {
            let l = a[packed(j, i)];
            for e in 0..LANES {
                pivot[e] = f32::fma::<S>(-l[e], l[e], pivot[e]);
            }
        }
        let mut inverse = ZERO;
        for e in 0..LANES {
            let is_positive = pivot[e] > ROUNDING * diagonal[e];
            let root = (if is_positive { pivot[e] } else { 1.0 }).sqrt();
            inverse[e] = if is_positive { 1.0 / root } else { 0.0 };
            pivot[e] = if is_positive { root } else { 0.0 };
        }
        a[packed(j, j)] = pivot;
        for i in j + 1..k {
            let mut sum = a[packed(i, j)];
            for m in 0..j {
                let (x, y) = (a[packed(i, m)], a[packed(j, m)]);
                for e in 0..LANES {
                    sum[e] = f32::fma::<S>(-x[e], y[e], sum[e]);
                }
            }
            for e in 0..LANES {
                sum[e] *= inverse[e];
            }
            a[packed(i, j)] = sum;
        }
    }
}

/// Solves `L L' x = b` in place for factors without zero pivots.
#[inline(always)]
fn solve<S: Simd>(l: &[Lanes], x: &mut [Lanes]) {
    let k = x.len();
    for i in 0..k {
        let mut sum = x[i];
        for j in 0..i {
            let (l, x) = (l[packed(i, j)], x[j]);
            for e in 0..LANES {
                sum[e] = f32::fma::<S>(-l[e], x[e], sum[e]);
            }
        }
        let pivot = l[packed(i, i)];
        for e in 0..LANES {
            x[i][e] = sum[e] / pivot[e];
        }
    }
    for i in (0..k).rev() {
        let mut sum = x[i];
        for j in i + 1..k {
            let (l, x) = (l[packed(j, i)], x[j]);
            for e in 0..LANES {
                sum[e] = f32::fma::<S>(-l[e], x[e], sum[e]);
            }
        }
        let pivot = l[packed(i, i)];
        for e in 0..LANES {
            x[i][e] = sum[e] / pivot[e];
        }
    }
}

/// Losses of several outputs: at the outputs `s`, the loss of every lane and the gradient; the Hessian follows from the
/// gradient's work.
enum Several<'a> {
    /// Classes of the lanes.
    Softmax(&'a [f32]),
    /// Targets, a row an output.
    Squared(Rect<'a>, usize),
}

impl Several<'_> {
    /// The loss; the gradient into `g`; the probabilities, if the Hessian is `diag(p) - p p'`, into `p`.
    #[inline(always)]
    fn at<S: Simd>(&self, s: &[Lanes], g: &mut [Lanes], p: &mut [Lanes]) -> Lanes {
        let mut loss = ZERO;
        match self {
            Self::Softmax(classes) => {
                let mut largest = [f32::MIN; LANES];
                for row in s {
                    for e in 0..LANES {
                        largest[e] = if row[e] < largest[e] { largest[e] } else { row[e] };
                    }
                }
                let mut sum = ZERO;
                for (p, row) in p.iter_mut().zip(s) {
                    for e in 0..LANES {
                        p[e] = <f32 as Real>::exp::<S>(row[e] - largest[e]);
                        sum[e] += p[e];
                    }
                }
                for (k, (p, (g, row))) in p.iter_mut().zip(g.iter_mut().zip(s)).enumerate() {
                    for e in 0..LANES {
                        let is_class = if classes.get(e).is_some_and(|&class| class == k as f32) { 1.0 } else { 0.0 };
                        p[e] /= sum[e];
                        g[e] = p[e] - is_class;
                        loss[e] = f32::fma::<S>(is_class, largest[e] - row[e], loss[e]);
                    }
                }
                for e in 0..LANES {
                    loss[e] += <f32 as Real>::ln::<S>(sum[e]);
                }
            }
            Self::Squared(targets, start) => {
                for (k, (g, row)) in g.iter_mut().zip(s).enumerate() {
                    let y = &targets.row(k)[*start..];
                    for e in 0..LANES.min(y.len()) {
                        g[e] = row[e] - y[e];
                        loss[e] = f32::fma::<S>(0.5 * g[e], g[e], loss[e]);
                    }
                }
            }
        }
        loss
    }
}

/// The numbers of one group of lanes.
struct Group {
    /// Factor of the metric, packed.
    l: Vec<Lanes>,
    /// Newton's matrix and its factor, packed.
    m: Vec<Lanes>,
    center: Vec<Lanes>,
    s: Vec<Lanes>,
    /// The point, the step from it, the gradient and probabilities at it and at the point tried.
    u: Vec<Lanes>,
    step: Vec<Lanes>,
    gradient: Vec<Lanes>,
    tried: Vec<Lanes>,
    p: Vec<Lanes>,
    right: Vec<Lanes>,
}

impl Group {
    fn new(k: usize) -> Self {
        let (row, triangle) = (|| vec![ZERO; k], || vec![ZERO; k * (k + 1) / 2]);
        Self {
            l: triangle(),
            m: triangle(),
            center: row(),
            s: row(),
            u: row(),
            step: row(),
            gradient: row(),
            tried: row(),
            p: row(),
            right: row(),
        }
    }

    /// `s = c + L (u + step)`; answers `|u + step|^2`.
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "lanes of several arrays side by side")]
    fn try_step<S: Simd>(&mut self) -> Lanes {
        let mut norm = ZERO;
        for (i, (s, center)) in self.s.iter_mut().zip(&self.center).enumerate() {
            let mut sum = *center;
            for j in 0..=i {
                let l = self.l[packed(i, j)];
                for e in 0..LANES {
                    sum[e] = f32::fma::<S>(l[e], self.u[j][e] + self.step[j][e], sum[e]);
                }
            }
            for e in 0..LANES {
                let u = self.u[i][e] + self.step[i][e];
                norm[e] = f32::fma::<S>(u, u, norm[e]);
            }
            *s = sum;
        }
        norm
    }

    /// Newton's step from `u`: `-(I + L'H L)^-1 (L'g + u)`.
    #[inline(always)]
    fn newton<S: Simd>(&mut self, is_softmax: bool) {
        let k = self.u.len();
        // v = L'p; the matrix is I + sum_k p_k L_k' L_k - v v' for the rows L_k of the factor.
        for j in 0..k {
            let (mut v, mut right) = (ZERO, self.u[j]);
            for i in j..k {
                let l = self.l[packed(i, j)];
                for e in 0..LANES {
                    v[e] = f32::fma::<S>(l[e], self.p[i][e], v[e]);
                    right[e] = f32::fma::<S>(l[e], self.gradient[i][e], right[e]);
                }
            }
            self.s[j] = v;
            self.right[j] = right;
        }
        for i in 0..k {
            for j in 0..=i {
                let mut sum = if i == j { [1.0; LANES] } else { ZERO };
                for row in i..k {
                    let (a, b) = (self.l[packed(row, i)], self.l[packed(row, j)]);
                    if is_softmax {
                        let p = self.p[row];
                        for e in 0..LANES {
                            sum[e] = f32::fma::<S>(p[e] * a[e], b[e], sum[e]);
                        }
                    } else {
                        for e in 0..LANES {
                            sum[e] = f32::fma::<S>(a[e], b[e], sum[e]);
                        }
                    }
                }
                if is_softmax {
                    let (a, b) = (self.s[i], self.s[j]);
                    for e in 0..LANES {
                        sum[e] = f32::fma::<S>(-a[e], b[e], sum[e]);
                    }
                }
                self.m[packed(i, j)] = sum;
            }
        }
        factorize::<S>(&mut self.m, k);
        solve::<S>(&self.m, &mut self.right);
    }

    /// Minimizes from `u = 0`; answers losses and `|u|^2` at the minimum, where `gradient` is that of the loss.
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "lanes of several arrays side by side")]
    fn minimize<S: Simd>(&mut self, loss: &Several<'_>) -> (Lanes, Lanes) {
        let is_softmax = matches!(loss, Several::Softmax(_));
        self.u.fill(ZERO);
        self.step.fill(ZERO);
        let (mut value, mut best_loss, mut best_norm) = ([f32::MAX; LANES], ZERO, ZERO);
        for round in 0..STEPS {
            let norm = self.try_step::<S>();
            let losses = loss.at::<S>(&self.s, &mut self.tried, &mut self.p);
            // A rise within rounding is none.
            let mut accepted = [false; LANES];
            for e in 0..LANES {
                let tried = losses[e] + 0.5 * norm[e];
                accepted[e] = tried <= value[e] + 1e-6 * value[e].abs();
                value[e] = if accepted[e] { tried } else { value[e] };
                best_loss[e] = if accepted[e] { losses[e] } else { best_loss[e] };
                best_norm[e] = if accepted[e] { norm[e] } else { best_norm[e] };
            }
            for i in 0..self.u.len() {
                for e in 0..LANES {
                    self.u[i][e] += if accepted[e] { self.step[i][e] } else { 0.0 };
                    self.gradient[i][e] = if accepted[e] { self.tried[i][e] } else { self.gradient[i][e] };
                }
            }
            // Rejected lanes get a Newton step that is not used.
            self.newton::<S>(is_softmax);
            let (mut largest, mut size) = (0.0_f32, 1.0_f32);
            for i in 0..self.u.len() {
                for e in 0..LANES {
                    let step = if accepted[e] { -self.right[i][e] } else { 0.5 * self.step[i][e] };
                    self.step[i][e] = step;
                    largest = if step.abs() > largest { step.abs() } else { largest };
                    size = if self.u[i][e].abs() > size { self.u[i][e].abs() } else { size };
                }
            }
            if round > 0 && largest <= 1e-5 * size {
                break;
            }
        }
        (best_loss, best_norm)
    }
}

/// Proximal steps of several outputs, `(sum l(c + Q t), sum t'Q t)`.
struct Metric<'a> {
    loss: Loss,
    center: Rect<'a>,
    metric: Rect<'a>,
    targets: Rect<'a>,
    t: RectMut<'a>,
}

impl WithSimd for Metric<'_> {
    type Output = [f64; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> [f64; 2] {
        let k = self.center.rows;
        let mut group = Group::new(k);
        let mut sums = [0.0; 2];
        for start in (0..self.center.columns).step_by(LANES) {
            let width = LANES.min(self.center.columns - start);
            let lanes = |row: &[f32]| {
                let mut lanes = ZERO;
                lanes[..width].copy_from_slice(&row[start..start + width]);
                lanes
            };
            for i in 0..k {
                group.center[i] = lanes(self.center.row(i));
            }
            for (i, l) in group.l.iter_mut().enumerate() {
                *l = lanes(self.metric.row(i));
            }
            factorize::<S>(&mut group.l, k);
            let loss = match self.loss {
                Loss::Softmax => Several::Softmax(&self.targets.row(0)[start..start + width]),
                _ => Several::Squared(self.targets, start),
            };
            let (losses, norms) = group.minimize::<S>(&loss);
            for e in 0..width {
                sums[0] += f64::from(losses[e]);
                sums[1] += f64::from(norms[e]);
            }
            for (i, gradient) in group.gradient.iter().enumerate() {
                let to = &mut self.t.values[i * self.t.stride + start..][..width];
                to.iter_mut().zip(gradient).for_each(|(t, g)| *t = -g);
            }
        }
        sums
    }
}

/// Proximal steps of a loss: `t` of every example; answers the sums of `l(c + Q t)` and `t'Q t`. The lower triangle of
/// `Q` lies packed row by row, an element a row of `metric`.
///
/// # Panics
/// Where the logistic loss or a hinge has several outputs: their sums over outputs are not needed yet.
pub(super) fn loss(loss: Loss, center: Rect<'_>, metric: Rect<'_>, targets: Rect<'_>, t: RectMut<'_>) -> [f64; 2] {
    fn scalar<L: Step>(center: Rect<'_>, metric: Rect<'_>, targets: Rect<'_>, t: RectMut<'_>) -> [f64; 2] {
        let columns = center.columns;
        Arch::new().dispatch(Scalar {
            center: center.row(0),
            metric: metric.row(0),
            targets: targets.row(0),
            t: &mut t.values[..columns],
            loss: std::marker::PhantomData::<L>,
        })
    }
    let k = center.rows;
    assert_eq!((metric.rows, metric.columns), (k * (k + 1) / 2, center.columns), "a metric for {k} outputs");
    assert_eq!((t.rows, t.columns), (k, center.columns), "room for the steps of {k} outputs");
    match loss {
        Loss::Logistic if k == 1 => scalar::<Logistic>(center, metric, targets, t),
        Loss::Squared if k == 1 => scalar::<Squared>(center, metric, targets, t),
        Loss::Hinge if k == 1 => scalar::<Hinge>(center, metric, targets, t),
        Loss::UnitHinge if k == 1 => scalar::<UnitHinge>(center, metric, targets, t),
        Loss::Softmax | Loss::Squared => Arch::new().dispatch(Metric { loss, center, metric, targets, t }),
        other => panic!("{other:?} has no proximal step of {k} outputs"),
    }
}

struct RectifierRows<'a> {
    z: &'a mut [f32],
    stride: usize,
    first: usize,
    a: Rect<'a>,
    m: Rect<'a>,
    gamma: f32,
    beta: f32,
}

impl WithSimd for RectifierRows<'_> {
    type Output = [f64; 3];

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> [f64; 3] {
        let (gamma, beta) = (self.gamma, self.beta);
        let (share, rest) = (gamma / (gamma + beta), beta / (gamma + beta));
        let mut totals = [[0.0_f64; TILE]; 3];
        for (i, z) in self.z.chunks_mut(self.stride).enumerate() {
            let (a, m) = (self.a.row(self.first + i), self.m.row(self.first + i));
            let mut sums = [[0.0_f32; TILE]; 3];
            for ((z, a), m) in z[..a.len()].chunks_mut(TILE).zip(a.chunks(TILE)).zip(m.chunks(TILE)) {
                for j in 0..z.len() {
                    let on = share * a[j] + rest * m[j];
                    let on = if on > 0.0 { on } else { 0.0 };
                    let off = if m[j] < 0.0 { m[j] } else { 0.0 };
                    let cost_on = gamma * (a[j] - on) * (a[j] - on) + beta * (on - m[j]) * (on - m[j]);
                    let cost_off = gamma * a[j] * a[j] + beta * (off - m[j]) * (off - m[j]);
                    // A NaN stays one.
                    let new = if cost_off < cost_on { off } else { on + 0.0 * m[j] };
                    let activation = a[j] - if new > 0.0 { new } else { 0.0 };
                    let (output, change) = (new - m[j], new - z[j]);
                    sums[0][j] = f32::fma::<S>(activation, activation, sums[0][j]);
                    sums[1][j] = f32::fma::<S>(output, output, sums[1][j]);
                    sums[2][j] = f32::fma::<S>(change, change, sums[2][j]);
                    z[j] = new;
                }
            }
            for (total, sum) in totals.iter_mut().zip(&sums) {
                for j in 0..TILE {
                    total[j] += f64::from(sum[j]);
                }
            }
        }
        totals.map(|total| total.iter().sum())
    }
}

/// The rectifier's proximal step in place; answers the sums of `(a - h(z))^2`, `(z - m)^2` and of the squared change.
pub(super) fn rectifier(z: RectMut<'_>, a: Rect<'_>, m: Rect<'_>, gamma: f32, beta: f32, parallel: bool) -> [f64; 3] {
    assert!((a.rows, a.columns) == (z.rows, z.columns) && (m.rows, m.columns) == (z.rows, z.columns));
    let (rows, stride) = (z.rows, z.stride);
    let run = |first: usize, z: &mut [f32]| Arch::new().dispatch(RectifierRows { z, stride, first, a, m, gamma, beta });
    if !parallel || rows == 0 {
        return run(0, z.values);
    }
    const ROWS: usize = 16;
    let groups = z.values.par_chunks_mut(ROWS * stride).enumerate();
    let parts: Vec<_> = groups.map(|(i, z)| run(i * ROWS, z)).collect();
    parts.into_iter().fold([0.0; 3], |sums, part| std::array::from_fn(|i| sums[i] + part[i]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rect(values: &[f32], rows: usize) -> Rect<'_> {
        let columns = values.len() / rows;
        Rect { values, rows, columns, stride: columns, transposed: false }
    }

    fn steps(of: Loss, center: &[f32], metric: &[f32], targets: &[f32], k: usize) -> (Vec<f32>, [f64; 2]) {
        let mut t = vec![0.0; center.len()];
        let columns = center.len() / k;
        let out = RectMut { values: &mut t, rows: k, columns, stride: columns };
        let rows = if of == Loss::Softmax { 1 } else { k };
        let sums = loss(of, rect(center, k), rect(metric, k * (k + 1) / 2), rect(targets, rows), out);
        (t, sums)
    }

    /// Losses by their definitions.
    fn value(loss: Loss, s: f64, y: f64) -> f64 {
        match loss {
            Loss::Logistic => s.exp().ln_1p() - y * s,
            Loss::Squared => 0.5 * (s - y).powi(2),
            Loss::Hinge => (1.0 - (2.0 * y - 1.0) * s).max(0.0),
            _ => {
                if y == 1.0 {
                    (1.0 - s).max(0.0)
                } else {
                    s.max(0.0)
                }
            }
        }
    }

    #[test]
    fn steps_of_one_output_are_those_of_a_grid() {
        for loss in [Loss::Logistic, Loss::Squared, Loss::Hinge, Loss::UnitHinge] {
            for y in [0.0, 1.0] {
                for q in [0.01, 0.5, 3.0, 40.0] {
                    let centers: Vec<f32> = (-40..40).map(|i| 0.17 * i as f32 + 0.003).collect();
                    let (t, _) = steps(loss, &centers, &vec![q; 80], &vec![y; 80], 1);
                    for (&c, &t) in centers.iter().zip(&t) {
                        let (c, q, y) = (f64::from(c), f64::from(q), f64::from(y));
                        let at = |s: f64| value(loss, s, y) + (s - c).powi(2) / (2.0 * q);
                        let s = c + q * f64::from(t);
                        // A proximal point lies within q times the largest slope, here or of the squared loss.
                        let reach = q * (1.0 + (c - y).abs()) + 1.0;
                        let grid = (0..=20_000).map(|i| c + reach * (f64::from(i) / 10_000.0 - 1.0)).map(at);
                        let best = grid.fold(f64::INFINITY, f64::min);
                        assert!(at(s) <= best + 1e-5 * (1.0 + best), "{loss:?} y {y} q {q} c {c}: {} {best}", at(s));
                    }
                }
            }
        }
    }

    /// The closed form of the published hinge: `c` where the loss is zero, else moved by at most `h` towards it.
    #[test]
    fn the_published_hinge_has_its_closed_form() {
        let h = 0.5_f32;
        for i in -30..40 {
            let c = 0.09 * i as f32;
            let (t, _) = steps(Loss::UnitHinge, &[c, c], &[h, h], &[1.0, 0.0], 1);
            let signal = if c >= 1.0 { c } else { (c + h).min(1.0) };
            let background = if c <= 0.0 { c } else { (c - h).max(0.0) };
            assert!((c + h * t[0] - signal).abs() < 1e-6 && (c + h * t[1] - background).abs() < 1e-6, "{c}");
        }
    }

    #[test]
    fn without_a_metric_the_step_is_the_slope_itself() {
        for loss in [Loss::Logistic, Loss::Squared, Loss::Hinge, Loss::UnitHinge] {
            let (t, sums) = steps(loss, &[-3.0, 0.3, 2.0], &[0.0; 3], &[1.0, 0.0, 1.0], 1);
            let expected = [(-3.0, 1.0), (0.3, 0.0), (2.0, 1.0)].map(|(s, y)| value(loss, s, y));
            assert!((sums[0] - expected.iter().sum::<f64>()).abs() < 1e-5 && sums[1] == 0.0);
            for (t, (s, y)) in t.iter().zip([(-3.0, 1.0), (0.3, 0.0), (2.0, 1.0)]) {
                let slope = (value(loss, s + 1e-6, y) - value(loss, s - 1e-6, y)) / 2e-6;
                assert!((f64::from(*t) + slope).abs() < 1e-4, "{loss:?}: {t}, slope {slope}");
            }
        }
        let (t, _) = steps(Loss::Softmax, &[0.0, 1.0, -1.0], &[0.0; 6], &[2.0], 3);
        let sum = 1.0 + 1_f32.exp() + (-1_f32).exp();
        let expected = [-1.0 / sum, -(1_f32.exp()) / sum, 1.0 - (-1_f32).exp() / sum];
        assert!(t.iter().zip(expected).all(|(t, e)| (t - e).abs() < 1e-6), "{t:?}");
    }

    /// At the minimum `t = -grad l(c + Q t)`: solved here by damped fixed-point iteration in `f64`.
    #[test]
    fn steps_of_several_outputs_solve_their_equation_even_where_the_metric_is_singular() {
        let k = 4;
        let columns = 37;
        let wave = |i: usize, phase: f64| (0.7 * i as f64 + phase).sin();
        for (scale, rank) in [(0.3, 4), (3.0, 4), (50.0, 4), (3.0, 2), (3.0, 0)] {
            let mut metric = vec![0.0_f32; k * (k + 1) / 2 * columns];
            let mut full = vec![vec![vec![0.0_f64; k]; k]; columns];
            for (b, full) in full.iter_mut().enumerate() {
                for i in 0..k {
                    for j in 0..=i {
                        let q: f64 =
                            (0..rank).map(|r| wave(i * 7 + r + b, 0.3) * wave(j * 7 + r + b, 0.3)).sum::<f64>() * scale;
                        metric[packed(i, j) * columns + b] = q as f32;
                        (full[i][j], full[j][i]) = (q, q);
                    }
                }
            }
            let center: Vec<f32> = (0..k * columns).map(|i| 4.0 * wave(i, 1.0) as f32).collect();
            for loss in [Loss::Softmax, Loss::Squared] {
                let targets: Vec<f32> = match loss {
                    Loss::Softmax => (0..columns).map(|b| (b % k) as f32).collect(),
                    _ => (0..k * columns).map(|i| wave(i, 2.0) as f32).collect(),
                };
                let (t, sums) = steps(loss, &center, &metric, &targets, k);
                let mut quadratic = 0.0;
                for b in 0..columns {
                    let t: Vec<f64> = (0..k).map(|i| f64::from(t[i * columns + b])).collect();
                    let move_: Vec<f64> =
                        full[b].iter().map(|row| row.iter().zip(&t).map(|(q, t)| q * t).sum()).collect();
                    let s: Vec<f64> = (0..k).map(|i| f64::from(center[i * columns + b]) + move_[i]).collect();
                    let total: f64 = s.iter().map(|s| s.exp()).sum();
                    quadratic += move_.iter().zip(&t).map(|(m, t)| m * t).sum::<f64>();
                    for i in 0..k {
                        let slope = match loss {
                            Loss::Softmax => s[i].exp() / total - f64::from(u8::from(targets[b] == i as f32)),
                            _ => s[i] - f64::from(targets[i * columns + b]),
                        };
                        let size = 1.0 + scale;
                        assert!((t[i] + slope).abs() < 2e-5 * size, "{loss:?} {scale} {rank}: {} {slope}", t[i]);
                    }
                }
                assert!((sums[1] - quadratic).abs() < 1e-3 * (1.0 + quadratic), "{} {quadratic}", sums[1]);
            }
        }
    }

    #[test]
    fn the_rectifiers_step_is_that_of_a_grid() {
        for (gamma, beta) in [(10.0_f64, 1.0), (1.0, 1.0), (0.01, 3.0)] {
            for i in -20..20 {
                for j in -20..20 {
                    let (a, m) = (0.13 * f64::from(i) + 0.01, 0.17 * f64::from(j) - 0.02);
                    let at = |z: f64| gamma * (a - z.max(0.0)).powi(2) + beta * (z - m).powi(2);
                    let mut z = [0.5_f32];
                    let out = RectMut { values: &mut z, rows: 1, columns: 1, stride: 1 };
                    let (a32, m32) = ([a as f32], [m as f32]);
                    let sums = rectifier(out, rect(&a32, 1), rect(&m32, 1), gamma as f32, beta as f32, false);
                    let z = f64::from(z[0]);
                    let best = (0..=8000).map(|i| at(f64::from(i) * 1e-3 - 4.0)).fold(f64::INFINITY, f64::min);
                    assert!(at(z) <= best + 1e-5, "a {a} m {m}: z {z} has {}, the grid {best}", at(z));
                    let expected = [(a - z.max(0.0)).powi(2), (z - m).powi(2), (z - 0.5).powi(2)];
                    assert!(sums.iter().zip(expected).all(|(s, e)| (s - e).abs() < 1e-5 * (1.0 + e)));
                }
            }
        }
    }
}
