//! A dense layer `a = h(W x + b)` on blocks of rows: forward, tangent (JVP) and adjoint (VJP).
//!
//! With `d = dL/d(W x + b)`, an example a column: `dL/dW = d x'`, `dL/db = d 1`, and below `dL/dz = (W' d) o h'`. Along a
//! direction `(V, c)` the tangent is `t = (V x + c + W t_x) o h'`. Squared per-example gradients sum up to
//! `(d o d)(x o x)'`, because the gradient of one example is the outer product `d_i x_i'`.

use crate::device::array::{View, ViewMut};
use crate::device::{Activation, Array, Backend};

/// Shape and place of a layer within the parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dense {
    pub inputs: usize,
    pub outputs: usize,
    pub activation: Activation,
    /// First element of `W`, `outputs x inputs`; `b` follows it.
    pub start: usize,
}

impl Dense {
    fn bias_start(&self) -> usize {
        self.start + self.outputs * self.inputs
    }

    /// The elements of `W`.
    pub fn weight_range(&self) -> std::ops::Range<usize> {
        self.start..self.bias_start()
    }

    /// The elements of `W`, then `b`.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.start..self.bias_start() + self.outputs
    }

    fn weight<'a>(&self, of: &'a Array) -> View<'a> {
        of.view(self.start, self.outputs, self.inputs)
    }

    fn bias<'a>(&self, of: &'a Array) -> View<'a> {
        of.view(self.bias_start(), 1, self.outputs)
    }

    /// `a = h(W x + b)`; slopes `h'` beside it where they must be kept.
    pub fn forward(
        &self,
        device: &dyn Backend,
        at: &Array,
        x: View<'_>,
        mut a: ViewMut<'_>,
        slope: Option<ViewMut<'_>>,
    ) {
        device.product(a.again(), false, self.weight(at), x);
        device.activate(self.activation, a, self.bias(at), slope);
    }

    /// `t = (V x + c + W t_x) o h'` along `(V, c)`; no `t_x` where `x` does not depend on the parameters.
    #[expect(clippy::too_many_arguments, reason = "the letters of the equation")]
    pub fn tangent(
        &self,
        device: &dyn Backend,
        at: &Array,
        along: &Array,
        x: View<'_>,
        tangent_of_x: Option<View<'_>>,
        kept: View<'_>,
        mut t: ViewMut<'_>,
    ) {
        device.product(t.again(), false, self.weight(along), x);
        if let Some(tangent) = tangent_of_x {
            device.product(t.again(), true, self.weight(at), tangent);
        }
        device.tangent(self.activation, t, self.bias(along), kept);
    }

    /// `d x'` and `d 1` as the layer's part of `sum`, added to it with `keep`.
    pub fn gradient(&self, device: &dyn Backend, d: View<'_>, x: View<'_>, sum: &mut Array, keep: bool) {
        device.product(sum.view_mut(self.start, self.outputs, self.inputs), keep, d, x.t());
        device.row_sums(sum.view_mut(self.bias_start(), 1, self.outputs), keep, d);
    }

    /// `below = (W' d) o h'` for the layer below with activation `h` and what it kept.
    pub fn backpropagate(
        &self,
        device: &dyn Backend,
        at: &Array,
        d: View<'_>,
        h: Activation,
        kept: View<'_>,
        below: ViewMut<'_>,
    ) {
        device.backpropagate(h, below, self.weight(at), d, kept);
    }
}
