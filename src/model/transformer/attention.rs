//! The attention sublayer: `W_o attention(W_q x, W_k y, W_v y)` with `y = x`, or the encoder's values.

use super::layout::SublayerKind;
use super::stack::{Core, Flow, StackPass};
use crate::device::array::View;
use crate::device::{Array, Attention, AttentionInputs, Factors, Matrices};

/// What attention keeps.
#[derive(Debug)]
pub(super) struct AttentionPass {
    pub queries: Array,
    /// Keys, and beside them values.
    pub keys_values: Array,
    /// Probabilities, for every sequence and head `queries x keys`.
    pub p: Array,
    /// What heads have made of the values.
    pub context: Array,
}

/// The three matrices and whether the encoder is attended to.
fn places(kind: &SublayerKind) -> (bool, Matrices, Matrices, Matrices) {
    match kind {
        SublayerKind::Attention { across, queries, keys_values, output } => (*across, *queries, *keys_values, *output),
        _ => unreachable!("attention has the places of attention"),
    }
}

impl Core {
    fn attention<'a>(&'a self, (s, sequences): (usize, usize), across: bool, valid: &'a [bool]) -> Attention<'a> {
        let queries = self.lengths[s];
        Attention {
            sequences,
            queries,
            keys: if across { self.lengths[0] } else { queries },
            heads: self.config.heads,
            width: self.config.d_kv,
            causal: self.stack(s).causal && !across,
            buckets: if across { &[] } else { &self.buckets[s] },
            valid,
        }
    }

    /// The biases of positions that a stack's layers share.
    fn bias<'a>(&self, of: &'a Array, s: usize, across: bool) -> Option<View<'a>> {
        (!across).then(|| of.view(self.stack(s).bias, self.config.position_buckets, self.config.heads))
    }
}

impl AttentionPass {
    fn inputs<'a>(
        &'a self,
        core: &Core,
        w: &'a Array,
        s: usize,
        across: bool,
        shape: &Attention<'_>,
    ) -> AttentionInputs<'a> {
        let inner = core.config.inner();
        AttentionInputs {
            queries: self.queries.view(0, shape.sequences * shape.queries, inner),
            keys_values: self.keys_values.view(0, shape.sequences * shape.keys, 2 * inner),
            bias: core.bias(w, s, across),
            factors: core.factors(None),
        }
    }

    fn probabilities(&self, shape: &Attention<'_>) -> View<'_> {
        self.p.view(0, shape.sequences * shape.heads * shape.queries, shape.keys)
    }

    #[expect(clippy::too_many_arguments, reason = "what meets in attention")]
    pub fn forward(
        &mut self,
        core: &Core,
        w: &Array,
        of: (usize, usize),
        kind: &SublayerKind,
        x: View<'_>,
        encoder: Option<&StackPass>,
        valid: &[bool],
        (out, keep): (&mut Array, bool),
    ) {
        let (t, d, inner) = (core.tokens(), core.config.d_model, core.config.inner());
        let (across, to_queries, to_keys_values, output) = places(kind);
        let shape = core.attention(of, across, encoder.map_or(valid, |encoder| &encoder.valid[..]));
        let (n, keys) = (shape.sequences * shape.queries, shape.sequences * shape.keys);
        let y = encoder.map_or(x, |encoder| encoder.out.view(0, keys, d));
        let ([all, all_keys], factors) = ([n, keys].map(Core::all), core.factors(None));
        core.products(factors, self.queries.view_mut(0, n, inner), false, x, w, to_queries, &all);
        core.products(factors, self.keys_values.view_mut(0, keys, 2 * inner), false, y, w, to_keys_values, &all_keys);
        core.round(self.queries.view_mut(0, n, inner));
        core.round(self.keys_values.view_mut(0, keys, 2 * inner));
        let inputs = AttentionInputs {
            queries: self.queries.view(0, n, inner),
            keys_values: self.keys_values.view(0, keys, 2 * inner),
            bias: core.bias(w, of.0, across),
            factors,
        };
        let p = self.p.view_mut(0, n * shape.heads, shape.keys);
        t.attention(&shape, inputs, p, self.context.view_mut(0, n, inner));
        core.round(self.context.view_mut(0, n, inner));
        core.products(factors, out.view_mut(0, n, d), keep, self.context.view(0, n, inner), w, output, &all);
    }

    /// From the derivative in what is added, `flow.b`, to that in the norm's values, `flow.a`.
    #[expect(clippy::too_many_arguments, reason = "what meets in attention")]
    pub fn backward(
        &self,
        core: &Core,
        w: &Array,
        of: (usize, usize),
        kind: &SublayerKind,
        x: View<'_>,
        encoder: Option<&StackPass>,
        valid: &[bool],
        flow: &mut Flow,
        sum: &mut Array,
    ) {
        let (t, d, inner) = (core.tokens(), core.config.d_model, core.config.inner());
        let (across, to_queries, to_keys_values, output) = places(kind);
        let shape = core.attention(of, across, encoder.map_or(valid, |encoder| &encoder.valid[..]));
        let (n, keys) = (shape.sequences * shape.queries, shape.sequences * shape.keys);
        let [all, all_keys] = [n, keys].map(Core::all);
        let b = flow.b.view(0, n, d);
        t.segment_products(flow.context.view_mut(0, n, inner), false, b, w, output, true, &all);
        t.segment_gradients(sum, output, b, self.context.view(0, n, inner), &all);
        let (buckets, heads) = (core.config.position_buckets, core.config.heads);
        let bias = (!across).then(|| sum.view_mut(core.stack(of.0).bias, buckets, heads));
        t.attention_adjoint(
            &shape,
            self.inputs(core, w, of.0, across, &shape),
            self.probabilities(&shape),
            flow.context.view(0, n, inner),
            flow.queries.view_mut(0, n, inner),
            flow.keys_values.view_mut(0, keys, 2 * inner),
            bias,
        );
        let (dq, dkv) = (flow.queries.view(0, n, inner), flow.keys_values.view(0, keys, 2 * inner));
        t.segment_gradients(sum, to_queries, dq, x, &all);
        t.segment_products(flow.a.view_mut(0, n, d), false, dq, w, to_queries, true, &all);
        let y = encoder.map_or(x, |encoder| encoder.out.view(0, keys, d));
        t.segment_gradients(sum, to_keys_values, dkv, y, &all_keys);
        let to = if across { &mut flow.across } else { &mut flow.a };
        t.segment_products(to.view_mut(0, keys, d), true, dkv, w, to_keys_values, true, &all_keys);
    }

    /// From the tangent of the norm's values, `flow.a`, to that of what is added, `flow.b`.
    #[expect(clippy::too_many_arguments, reason = "what meets in attention")]
    pub fn tangent(
        &self,
        core: &Core,
        (w, v): (&Array, &Array),
        of: (usize, usize),
        kind: &SublayerKind,
        x: View<'_>,
        encoder: Option<&StackPass>,
        valid: &[bool],
        flow: &mut Flow,
    ) {
        let (t, d, inner) = (core.tokens(), core.config.d_model, core.config.inner());
        let (across, to_queries, to_keys_values, output) = places(kind);
        let shape = core.attention(of, across, encoder.map_or(valid, |encoder| &encoder.valid[..]));
        let (n, keys) = (shape.sequences * shape.queries, shape.sequences * shape.keys);
        let [all, all_keys] = [n, keys].map(Core::all);
        let y = encoder.map_or(x, |encoder| encoder.out.view(0, keys, d));
        let t_x = flow.a.view(0, n, d);
        let t_y = if across { flow.across.view(0, keys, d) } else { t_x };
        let (to_q, to_kv) = (&mut flow.queries, &mut flow.keys_values);
        t.segment_products(to_q.view_mut(0, n, inner), false, t_x, w, to_queries, false, &all);
        t.segment_products(to_q.view_mut(0, n, inner), true, x, v, to_queries, false, &all);
        t.segment_products(to_kv.view_mut(0, keys, 2 * inner), false, t_y, w, to_keys_values, false, &all_keys);
        t.segment_products(to_kv.view_mut(0, keys, 2 * inner), true, y, v, to_keys_values, false, &all_keys);
        let tangents = AttentionInputs {
            queries: flow.queries.view(0, n, inner),
            keys_values: flow.keys_values.view(0, keys, 2 * inner),
            bias: core.bias(v, of.0, across),
            factors: Factors::Single,
        };
        let inputs = self.inputs(core, w, of.0, across, &shape);
        t.attention_tangent(&shape, inputs, self.probabilities(&shape), tangents, flow.context.view_mut(0, n, inner));
        let (context, own) = (flow.context.view(0, n, inner), self.context.view(0, n, inner));
        t.segment_products(flow.b.view_mut(0, n, d), false, context, w, output, false, &all);
        t.segment_products(flow.b.view_mut(0, n, d), true, own, v, output, false, &all);
    }
}
