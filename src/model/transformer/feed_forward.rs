//! The dense feed-forward sublayer: `W_o f(W_i x)`.

use super::stack::{Core, Flow};
use crate::device::array::View;
use crate::device::{Array, Matrices, Noise};

/// What a dense layer keeps.
#[derive(Debug)]
pub(super) struct DensePass {
    /// `W_i x`.
    pub u: Array,
    /// `f(u)`, dropout included.
    pub h: Array,
}

impl DensePass {
    pub fn forward(
        &mut self,
        core: &Core,
        w: &Array,
        (inner, outer): (Matrices, Matrices),
        x: View<'_>,
        noise: Option<Noise>,
        (out, keep): (&mut Array, bool),
    ) {
        let (t, n) = (core.tokens(), x.size().0);
        let all = Core::all(n);
        let (u, h) = (&mut self.u, &mut self.h);
        core.products(core.factors(None), u.view_mut(0, n, inner.rows), false, x, w, inner, &all);
        core.round(u.view_mut(0, n, inner.rows));
        t.feed_forward(core.config.feed_forward, h.view_mut(0, n, outer.columns), u.view(0, n, inner.rows));
        core.round(h.view_mut(0, n, outer.columns));
        core.noise(h.view_mut(0, n, outer.columns), noise);
        let h = h.view(0, n, outer.columns);
        core.products(core.factors(noise), out.view_mut(0, n, outer.rows), keep, h, w, outer, &all);
    }

    /// From the derivative in what is added, `flow.b`, to that in the norm's values, `flow.a`.
    #[expect(clippy::too_many_arguments, reason = "what meets in a layer")]
    pub fn backward(
        &self,
        core: &Core,
        w: &Array,
        (inner, outer): (Matrices, Matrices),
        x: View<'_>,
        noise: Option<Noise>,
        flow: &mut Flow,
        sum: &mut Array,
    ) {
        let (t, n) = (core.tokens(), x.size().0);
        let all = Core::all(n);
        let b = flow.b.view(0, n, outer.rows);
        t.segment_gradients(sum, outer, b, self.h.view(0, n, outer.columns), &all);
        t.segment_products(flow.hidden.view_mut(0, n, outer.columns), false, b, w, outer, true, &all);
        core.noise(flow.hidden.view_mut(0, n, outer.columns), noise);
        let (u, d_h) = (self.u.view(0, n, inner.rows), flow.hidden.view(0, n, outer.columns));
        t.feed_forward_adjoint(core.config.feed_forward, flow.inner.view_mut(0, n, inner.rows), u, d_h);
        let d_u = flow.inner.view(0, n, inner.rows);
        t.segment_gradients(sum, inner, d_u, x, &all);
        t.segment_products(flow.a.view_mut(0, n, inner.columns), false, d_u, w, inner, true, &all);
    }

    /// From the tangent of the norm's values, `flow.a`, to that of what is added, `flow.b`.
    pub fn tangent(
        &self,
        core: &Core,
        (w, v): (&Array, &Array),
        (inner, outer): (Matrices, Matrices),
        x: View<'_>,
        noise: Option<Noise>,
        flow: &mut Flow,
    ) {
        let (t, n) = (core.tokens(), x.size().0);
        let all = Core::all(n);
        let t_x = flow.a.view(0, n, inner.columns);
        t.segment_products(flow.inner.view_mut(0, n, inner.rows), false, t_x, w, inner, false, &all);
        t.segment_products(flow.inner.view_mut(0, n, inner.rows), true, x, v, inner, false, &all);
        let (u, t_u) = (self.u.view(0, n, inner.rows), flow.inner.view(0, n, inner.rows));
        t.feed_forward_tangent(core.config.feed_forward, flow.hidden.view_mut(0, n, outer.columns), u, t_u);
        core.noise(flow.hidden.view_mut(0, n, outer.columns), noise);
        let t_h = flow.hidden.view(0, n, outer.columns);
        t.segment_products(flow.b.view_mut(0, n, outer.rows), false, t_h, w, outer, false, &all);
        let h = self.h.view(0, n, outer.columns);
        t.segment_products(flow.b.view_mut(0, n, outer.rows), true, h, v, outer, false, &all);
    }
}
