//! The Switch sublayer (Fedus, Zoph and Shazeer 2021): `y = sum_i p_i E_i(x)` over the chosen experts, `p = softmax(W_r x)`.
//!
//! With the choices frozen, `dy = sum_i dp_i E_i(x) + p_i dE_i(x)`. Tokens are sorted by expert, so that all experts are products of
//! segments, and gathered back. The router's own losses, of the tokens routed together, are
//! `alpha N sum_i f_i P_i` with `f_i` the share of choices that fell on expert `i` and `P_i` its mean probability, and
//! `z mean ln(sum_i exp logit_i)^2`; `f` has no derivative. They belong to value and gradient; a Gauss-Newton product is that of
//! the prediction's loss alone.

use super::routing::{Routing, RoutingStatistics, route};
use super::stack::{Core, Flow};
use crate::device::array::View;
use crate::device::{Array, Matrices, NO_ROW, Noise};

/// What a Switch layer keeps.
#[derive(Debug)]
pub(super) struct SwitchPass {
    /// The router's inputs, where they are not the layer's.
    pub input: Option<Array>,
    /// Probabilities, `tokens x experts`.
    pub p: Array,
    /// `ln sum_i exp logit_i` of every token.
    pub log_sums: Vec<f32>,
    /// The probabilities on the host, by which tokens were routed.
    pub probabilities: Vec<f32>,
    pub routing: Option<Routing>,
    /// `p` of every choice, in the order of the routing's slots; then of every place.
    pub gates: Vec<f32>,
    /// Tokens sorted by expert, and what experts made of them.
    pub x: Array,
    pub u: Array,
    pub h: Array,
    pub y: Array,
}

/// The places of router, inner and outer matrices.
type SwitchPlaces = (Matrices, Matrices, Matrices);

impl SwitchPass {
    pub fn routing(&self) -> &Routing {
        self.routing.as_ref().expect("a backward pass or a tangent follows a forward pass")
    }

    fn router_input<'a>(&'a self, x: View<'a>) -> View<'a> {
        let (n, d) = x.size();
        self.input.as_ref().map_or(x, |input| input.view(0, n, d))
    }

    /// `p` of every place among the sorted tokens.
    fn place_gates(&self) -> Vec<f32> {
        self.routing().elements.iter().map(|&element| self.probabilities[element as usize]).collect()
    }

    #[expect(clippy::too_many_arguments, reason = "what meets in a Switch layer")]
    pub fn forward(
        &mut self,
        core: &Core,
        w: &Array,
        (router, inner, outer): SwitchPlaces,
        x: View<'_>,
        valid: &[bool],
        dropless: bool,
        (jitter, noise): (Option<Noise>, Option<Noise>),
        (out, keep): (&mut Array, bool),
    ) {
        let (t, (n, d)) = (core.tokens(), x.size());
        let experts = router.rows;
        let Some(switch) = core.config.switch else { unreachable!("a Switch layer has settings") };
        if let Some(input) = &mut self.input {
            core.device.copy(input.view_mut(0, n, d), x);
            core.noise(input.view_mut(0, n, d), jitter);
        }
        let all = Core::all(n);
        let input = self.input.as_ref().map_or(x, |input| input.view(0, n, d));
        t.segment_products(self.p.view_mut(0, n, experts), false, input, w, router, false, &all);
        if core.config.precision == super::config::Precision::Half {
            t.round_half(self.p.view_mut(0, n, experts));
        }
        t.softmax_rows(self.p.view_mut(0, n, experts), &mut self.log_sums[..n]);
        self.probabilities = core.device.download(self.p.view(0, n, experts));
        let tokens = if valid.is_empty() { n } else { valid.iter().filter(|&&v| v).count() };
        let capacity = if dropless { None } else { switch.capacity(tokens) };
        let routing = route(&self.probabilities, experts, switch.top_k, capacity, valid);
        let sorted = routing.order.len();
        self.gates = vec![0.0; routing.slots.len()];
        for (gate, &slot) in self.gates.iter_mut().zip(&routing.slots).filter(|(_, slot)| **slot != NO_ROW) {
            *gate = self.probabilities[routing.elements[slot as usize] as usize];
        }
        t.gather(self.x.view_mut(0, sorted, d), x, &routing.order, None);
        let segments = &routing.segments;
        let (u, h) = (&mut self.u, &mut self.h);
        t.segment_products(
            u.view_mut(0, sorted, inner.rows),
            false,
            self.x.view(0, sorted, d),
            w,
            inner,
            false,
            segments,
        );
        core.round(u.view_mut(0, sorted, inner.rows));
        t.feed_forward(core.config.feed_forward, h.view_mut(0, sorted, outer.columns), u.view(0, sorted, inner.rows));
        core.round(h.view_mut(0, sorted, outer.columns));
        core.noise(h.view_mut(0, sorted, outer.columns), noise);
        let h = h.view(0, sorted, outer.columns);
        t.segment_products(self.y.view_mut(0, sorted, d), false, h, w, outer, false, segments);
        core.round(self.y.view_mut(0, sorted, d));
        let y = self.y.view(0, sorted, d);
        t.combine(out.view_mut(0, n, d), keep, y, &routing.slots, Some(&self.gates));
        self.routing = Some(routing);
    }

    /// The mean probability of every expert over the tokens that take part: `P`.
    fn mean_probabilities(&self, experts: usize, valid: &[bool]) -> Vec<f64> {
        let mut sums = vec![0.0_f64; experts];
        for (token, own) in self.probabilities.chunks_exact(experts).enumerate() {
            if valid.is_empty() || valid[token] {
                sums.iter_mut().zip(own).for_each(|(sum, &p)| *sum += f64::from(p));
            }
        }
        let tokens = self.routing().tokens.max(1) as f64;
        sums.iter_mut().for_each(|sum| *sum /= tokens);
        sums
    }

    /// The router's own losses.
    pub fn router_loss(&self, core: &Core, valid: &[bool]) -> f64 {
        let Some(switch) = core.config.switch else { return 0.0 };
        let routing = self.routing();
        let means = self.mean_probabilities(switch.experts, valid);
        let balance: f64 = routing.load.iter().zip(&means).map(|(f, p)| f * p).sum();
        let mut loss = switch.auxiliary_weight * switch.experts as f64 * balance;
        if switch.z_weight > 0.0 {
            let squares = self.log_sums.iter().enumerate().take(self.probabilities.len() / switch.experts);
            let of_tokens = squares.filter(|(token, _)| valid.is_empty() || valid[*token]);
            let sum: f64 = of_tokens.map(|(_, &l)| f64::from(l).powi(2)).sum();
            loss += switch.z_weight * sum / routing.tokens.max(1) as f64;
        }
        loss
    }

    /// How the routing went.
    pub fn statistics(&self, valid: &[bool]) -> RoutingStatistics {
        let routing = self.routing();
        let experts = routing.load.len();
        let mut entropy = 0.0;
        for (token, own) in self.probabilities.chunks_exact(experts).enumerate() {
            if valid.is_empty() || valid[token] {
                let terms = own.iter().map(|&p| f64::from(p)).filter(|&p| p > 0.0);
                entropy -= terms.map(|p| p * p.ln()).sum::<f64>();
            }
        }
        let of = |fold: fn(f64, f64) -> f64, start| routing.load.iter().copied().fold(start, fold) * experts as f64;
        let choices = (routing.order.len() + routing.dropped).max(1) as f64;
        RoutingStatistics {
            largest_load: of(f64::max, 0.0),
            smallest_load: of(f64::min, 1.0),
            drop_rate: routing.dropped as f64 / choices,
            router_entropy: entropy / routing.tokens.max(1) as f64,
        }
    }

    /// From the derivative in what is added, `flow.b`, to that in the norm's values, `flow.a`; with a weight of the router's own
    /// losses, with theirs.
    #[expect(clippy::too_many_arguments, reason = "what meets in a Switch layer")]
    pub fn backward(
        &self,
        core: &Core,
        w: &Array,
        (router, inner, outer): SwitchPlaces,
        x: View<'_>,
        valid: &[bool],
        (jitter, noise): (Option<Noise>, Option<Noise>),
        routers: Option<f64>,
        flow: &mut Flow,
        sum: &mut Array,
    ) {
        let (t, (n, d)) = (core.tokens(), x.size());
        let (routing, experts) = (self.routing(), router.rows);
        let (segments, sorted) = (&routing.segments, routing.order.len());
        let [first, second] = &mut flow.sorted;
        t.gather(first.view_mut(0, sorted, d), flow.b.view(0, n, d), &routing.order, None);
        let d_gates = t.row_dots(first.view(0, sorted, d), self.y.view(0, sorted, d));
        t.scale_rows(first.view_mut(0, sorted, d), &self.place_gates());
        let d_y = first.view(0, sorted, d);
        t.segment_gradients(sum, outer, d_y, self.h.view(0, sorted, outer.columns), segments);
        t.segment_products(flow.hidden.view_mut(0, sorted, outer.columns), false, d_y, w, outer, true, segments);
        core.noise(flow.hidden.view_mut(0, sorted, outer.columns), noise);
        let (u, d_h) = (self.u.view(0, sorted, inner.rows), flow.hidden.view(0, sorted, outer.columns));
        t.feed_forward_adjoint(core.config.feed_forward, flow.inner.view_mut(0, sorted, inner.rows), u, d_h);
        let d_u = flow.inner.view(0, sorted, inner.rows);
        t.segment_gradients(sum, inner, d_u, self.x.view(0, sorted, d), segments);
        t.segment_products(second.view_mut(0, sorted, d), false, d_u, w, inner, true, segments);
        t.combine(flow.a.view_mut(0, n, d), false, second.view(0, sorted, d), &routing.slots, None);

        self.router_derivative(core, n, &d_gates, valid, routers, &mut flow.router);
        let (all, d_logits) = (Core::all(n), flow.router[0].view(0, n, experts));
        t.segment_gradients(sum, router, d_logits, self.router_input(x), &all);
        if jitter.is_some() {
            t.segment_products(flow.b.view_mut(0, n, d), false, d_logits, w, router, true, &all);
            core.noise(flow.b.view_mut(0, n, d), jitter);
            core.device.blend(1.0, flow.a.view_mut(0, n, d), 1.0, flow.b.view(0, n, d));
        } else {
            t.segment_products(flow.a.view_mut(0, n, d), true, d_logits, w, router, true, &all);
        }
    }

    /// The derivative in the router's logits, into the first of `to`.
    fn router_derivative(
        &self,
        core: &Core,
        n: usize,
        d_gates: &[f32],
        valid: &[bool],
        routers: Option<f64>,
        to: &mut [Array; 2],
    ) {
        let Some(switch) = core.config.switch else { return };
        let (t, routing, experts) = (core.tokens(), self.routing(), switch.experts);
        let tokens = routing.tokens.max(1) as f64;
        let is_valid = |token: usize| valid.is_empty() || valid[token];
        let mut d_p = vec![0.0_f32; n * experts];
        let weight = routers.unwrap_or(0.0);
        if weight * switch.auxiliary_weight > 0.0 {
            let factor = weight * switch.auxiliary_weight * experts as f64 / tokens;
            let own: Vec<f32> = routing.load.iter().map(|f| (factor * f) as f32).collect();
            let rows = d_p.chunks_exact_mut(experts).enumerate().filter(|(token, _)| is_valid(*token));
            rows.for_each(|(_, row)| row.copy_from_slice(&own));
        }
        for (&element, d) in routing.elements.iter().zip(d_gates) {
            d_p[element as usize] += d;
        }
        let [logits, scaled] = to;
        let p = self.p.view(0, n, experts);
        core.device.upload(logits.view_mut(0, n, experts), &d_p);
        let ones: Vec<f32> = (0..n).map(|token| f32::from(u8::from(is_valid(token)))).collect();
        t.softmax_tangent(logits.view_mut(0, n, experts), p, &ones);
        if weight * switch.z_weight > 0.0 {
            let factor = 2.0 * weight * switch.z_weight / tokens;
            let of = |token: usize| ones[token] * (factor * f64::from(self.log_sums[token])) as f32;
            let factors: Vec<f32> = (0..n).map(of).collect();
            core.device.copy(scaled.view_mut(0, n, experts), p);
            t.scale_rows(scaled.view_mut(0, n, experts), &factors);
            core.device.blend(1.0, logits.view_mut(0, n, experts), 1.0, scaled.view(0, n, experts));
        }
    }

    /// From the tangent of the norm's values, `flow.a`, to that of what is added, `flow.b`.
    #[expect(clippy::too_many_arguments, reason = "what meets in a Switch layer")]
    pub fn tangent(
        &self,
        core: &Core,
        (w, v): (&Array, &Array),
        (router, inner, outer): SwitchPlaces,
        x: View<'_>,
        valid: &[bool],
        (jitter, noise): (Option<Noise>, Option<Noise>),
        flow: &mut Flow,
    ) {
        let (t, (n, d)) = (core.tokens(), x.size());
        let (routing, experts) = (self.routing(), router.rows);
        let (segments, sorted) = (&routing.segments, routing.order.len());
        let all = Core::all(n);
        // The gates.
        core.device.copy(flow.b.view_mut(0, n, d), flow.a.view(0, n, d));
        core.noise(flow.b.view_mut(0, n, d), jitter);
        let logits = &mut flow.router[0];
        t.segment_products(logits.view_mut(0, n, experts), false, flow.b.view(0, n, d), w, router, false, &all);
        t.segment_products(logits.view_mut(0, n, experts), true, self.router_input(x), v, router, false, &all);
        let ones: Vec<f32> = (0..n).map(|token| f32::from(u8::from(valid.is_empty() || valid[token]))).collect();
        t.softmax_tangent(logits.view_mut(0, n, experts), self.p.view(0, n, experts), &ones);
        let t_p = core.device.download(logits.view(0, n, experts));
        let mut t_gates = vec![0.0; routing.slots.len()];
        for (gate, &slot) in t_gates.iter_mut().zip(&routing.slots).filter(|(_, slot)| **slot != NO_ROW) {
            *gate = t_p[routing.elements[slot as usize] as usize];
        }
        // The experts.
        let [first, second] = &mut flow.sorted;
        t.gather(first.view_mut(0, sorted, d), flow.a.view(0, n, d), &routing.order, None);
        let (t_x, own) = (first.view(0, sorted, d), self.x.view(0, sorted, d));
        t.segment_products(flow.inner.view_mut(0, sorted, inner.rows), false, t_x, w, inner, false, segments);
        t.segment_products(flow.inner.view_mut(0, sorted, inner.rows), true, own, v, inner, false, segments);
        let (u, t_u) = (self.u.view(0, sorted, inner.rows), flow.inner.view(0, sorted, inner.rows));
        t.feed_forward_tangent(core.config.feed_forward, flow.hidden.view_mut(0, sorted, outer.columns), u, t_u);
        core.noise(flow.hidden.view_mut(0, sorted, outer.columns), noise);
        let t_h = flow.hidden.view(0, sorted, outer.columns);
        t.segment_products(second.view_mut(0, sorted, d), false, t_h, w, outer, false, segments);
        let h = self.h.view(0, sorted, outer.columns);
        t.segment_products(second.view_mut(0, sorted, d), true, h, v, outer, false, segments);
        let (t_y, y) = (second.view(0, sorted, d), self.y.view(0, sorted, d));
        t.combine(flow.b.view_mut(0, n, d), false, t_y, &routing.slots, Some(&self.gates));
        t.combine(flow.b.view_mut(0, n, d), true, y, &routing.slots, Some(&t_gates));
    }
}
