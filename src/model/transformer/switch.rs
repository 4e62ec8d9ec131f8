//! The Switch sublayer (Fedus, Zoph and Shazeer 2021): `y = sum_i p_i E_i(x)` over the chosen experts, `p = softmax(W_r x)`.
//!
//! With the choices frozen, `dy = sum_i dp_i E_i(x) + p_i dE_i(x)`. Tokens are sorted by expert, so that all experts are products of
//! segments, and gathered back. The router's own losses, of the tokens routed together, are
//! `alpha N sum_i f_i P_i` with `f_i` the share of choices that fell on expert `i` and `P_i` its mean probability, and
//! `z mean ln(sum_i exp logit_i)^2`; `f` has no derivative. They belong to value and gradient; a Gauss-Newton product is that of
//! the prediction's loss alone.

use super::config::Precision;
use super::routing::{Part, Routing, RoutingStatistics};
use super::stack::{Core, Flow};
use crate::device::array::View;
use crate::device::{Array, Factors, Matrices, NO_ROW, Noise, Routes};

/// What a Switch layer keeps.
#[derive(Debug)]
pub(super) struct SwitchPass {
    /// The router's inputs, where they are not the layer's.
    pub input: Option<Array>,
    /// Probabilities, `tokens x experts`.
    pub p: Array,
    /// `ln sum_i exp logit_i` of every token.
    pub log_sums: Array,
    pub routing: Option<Routing>,
    /// Tokens sorted by expert, and what experts made of them.
    pub x: Array,
    pub u: Array,
    pub h: Array,
    pub y: Array,
}

/// The places of router, inner and outer matrices.
type SwitchPlaces = (Matrices, Matrices, Matrices);

/// The numbers of a `tokens x experts` matrix that belong to every place, and to every choice.
fn gates_of(core: &Core, of: View<'_>, routes: &Routes) -> (Array, Array) {
    let of_places = core.tokens().take(of, &routes.elements);
    let of_choices = core.tokens().take(of_places.view(0, of_places.len(), 1), &routes.slots);
    (of_places, of_choices)
}

impl SwitchPass {
    pub fn routing(&self) -> &Routing {
        self.routing.as_ref().expect("a backward pass or a tangent follows a forward pass")
    }

    fn router_input<'a>(&'a self, x: View<'a>) -> View<'a> {
        let (n, d) = x.size();
        self.input.as_ref().map_or(x, |input| input.view(0, n, d))
    }

    #[expect(clippy::too_many_arguments, reason = "what meets in a Switch layer")]
    pub fn forward(
        &mut self,
        core: &Core,
        w: &Array,
        (router, inner, outer): SwitchPlaces,
        x: View<'_>,
        part: &Part,
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
        let is_half = core.config.precision == Precision::Half;
        let factors = if is_half { core.factors(jitter) } else { Factors::Single };
        core.products(factors, self.p.view_mut(0, n, experts), false, input, w, router, &all);
        if is_half {
            t.round_half(self.p.view_mut(0, n, experts));
        }
        t.softmax_rows(self.p.view_mut(0, n, experts), &mut self.log_sums);
        let capacity = if dropless { None } else { switch.capacity(part.tokens) };
        let p = self.p.view(0, n, experts);
        let routes = t.route(p, switch.top_k, capacity, &part.rows);
        let gates = gates_of(core, p, &routes);
        let routing = Routing::new(routes, switch.top_k, part.tokens, gates);
        let sorted = routing.sorted;
        t.gather(self.x.view_mut(0, sorted, d), x, &routing.routes.order);
        let segments = &routing.segments;
        let (u, h) = (&mut self.u, &mut self.h);
        let x = self.x.view(0, sorted, d);
        core.products(core.factors(None), u.view_mut(0, sorted, inner.rows), false, x, w, inner, segments);
        core.round(u.view_mut(0, sorted, inner.rows));
        t.feed_forward(core.config.feed_forward, h.view_mut(0, sorted, outer.columns), u.view(0, sorted, inner.rows));
        core.round(h.view_mut(0, sorted, outer.columns));
        core.noise(h.view_mut(0, sorted, outer.columns), noise);
        let h = h.view(0, sorted, outer.columns);
        core.products(core.factors(noise), self.y.view_mut(0, sorted, d), false, h, w, outer, segments);
        core.round(self.y.view_mut(0, sorted, d));
        let y = self.y.view(0, sorted, d);
        t.combine(out.view_mut(0, n, d), keep, y, &routing.routes.slots, Some(&routing.gates));
        self.routing = Some(routing);
    }

    /// The router's own losses.
    pub fn router_loss(&self, core: &Core, part: &Part) -> f64 {
        let Some(switch) = core.config.switch else { return 0.0 };
        let (routing, tokens) = (self.routing(), part.tokens.max(1) as f64);
        let sums = core.tokens().probability_sums(self.p.view(0, part.rows.len(), switch.experts), &part.rows);
        let balance: f64 = routing.load.iter().zip(&sums).map(|(f, sum)| f * (sum / tokens)).sum();
        let mut loss = switch.auxiliary_weight * switch.experts as f64 * balance;
        if switch.z_weight > 0.0 {
            let own = self.own_log_sums(core, part);
            loss += switch.z_weight * own.iter().map(|l| l.powi(2)).sum::<f64>() / tokens;
        }
        loss
    }

    /// `ln sum_i exp logit_i` of every token, 0 of padding.
    fn own_log_sums(&self, core: &Core, part: &Part) -> Vec<f64> {
        let n = part.rows.len();
        let log_sums = core.device.download(self.log_sums.view(0, 1, n));
        let own = log_sums.into_iter().zip(&part.mask_on_host);
        own.map(|(l, &mask)| if mask == 0.0 { 0.0 } else { f64::from(l) }).collect()
    }

    /// The expert of every token's choices, [`NO_ROW`] where it was dropped or is padding.
    pub fn choices(&self, core: &Core) -> Vec<u32> {
        let (t, routing) = (core.tokens(), self.routing());
        let (elements, experts) = (t.list(&routing.routes.elements), routing.load.len() as u32);
        let expert = |slot| if slot == NO_ROW { NO_ROW } else { elements[slot as usize] % experts };
        t.list(&routing.routes.slots).into_iter().map(expert).collect()
    }

    /// How the routing went.
    pub fn statistics(&self, core: &Core, part: &Part) -> RoutingStatistics {
        let routing = self.routing();
        let experts = routing.load.len();
        let p = self.p.view(0, part.rows.len(), experts);
        let entropy = core.tokens().entropy(p, &part.rows);
        let of = |fold: fn(f64, f64) -> f64, start| routing.load.iter().copied().fold(start, fold) * experts as f64;
        let choices = (routing.sorted + routing.dropped).max(1) as f64;
        RoutingStatistics {
            largest_load: of(f64::max, 0.0),
            smallest_load: of(f64::min, 1.0),
            drop_rate: routing.dropped as f64 / choices,
            router_entropy: entropy / part.tokens.max(1) as f64,
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
        part: &Part,
        (jitter, noise): (Option<Noise>, Option<Noise>),
        routers: Option<f64>,
        flow: &mut Flow,
        sum: &mut Array,
    ) {
        let (t, (n, d)) = (core.tokens(), x.size());
        let (routing, experts) = (self.routing(), router.rows);
        let (segments, sorted) = (&routing.segments, routing.sorted);
        let [first, second] = &mut flow.sorted;
        t.gather(first.view_mut(0, sorted, d), flow.b.view(0, n, d), &routing.routes.order);
        let d_gates = t.row_dots(first.view(0, sorted, d), self.y.view(0, sorted, d));
        t.scale_rows(first.view_mut(0, sorted, d), &routing.place_gates);
        let d_y = first.view(0, sorted, d);
        t.segment_gradients(sum, outer, d_y, self.h.view(0, sorted, outer.columns), segments);
        t.segment_products(flow.hidden.view_mut(0, sorted, outer.columns), false, d_y, w, outer, true, segments);
        core.noise(flow.hidden.view_mut(0, sorted, outer.columns), noise);
        let (u, d_h) = (self.u.view(0, sorted, inner.rows), flow.hidden.view(0, sorted, outer.columns));
        t.feed_forward_adjoint(core.config.feed_forward, flow.inner.view_mut(0, sorted, inner.rows), u, d_h);
        let d_u = flow.inner.view(0, sorted, inner.rows);
        t.segment_gradients(sum, inner, d_u, self.x.view(0, sorted, d), segments);
        t.segment_products(second.view_mut(0, sorted, d), false, d_u, w, inner, true, segments);
        t.combine(flow.a.view_mut(0, n, d), false, second.view(0, sorted, d), &routing.routes.slots, None);

        self.router_derivative(core, n, &d_gates, part, routers, &mut flow.router);
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
        d_gates: &Array,
        part: &Part,
        routers: Option<f64>,
        to: &mut [Array; 2],
    ) {
        let Some(switch) = core.config.switch else { return };
        let (t, routing, experts) = (core.tokens(), self.routing(), switch.experts);
        let (device, tokens) = (&core.device, part.tokens.max(1) as f64);
        let weight = routers.unwrap_or(0.0);
        let factor = weight * switch.auxiliary_weight * experts as f64 / tokens;
        // What the balance adds to the derivative in the probabilities is the same for every token.
        let mut own = device.zeros(experts);
        if factor > 0.0 {
            let values: Vec<f32> = routing.load.iter().map(|f| (factor * f) as f32).collect();
            device.upload(own.view_mut(0, 1, experts), &values);
        }
        let [logits, scaled] = to;
        let p = self.p.view(0, n, experts);
        t.gather(logits.view_mut(0, n, experts), own.view(0, 1, experts), &part.rows);
        t.add_at(logits.view_mut(0, n, experts), &routing.routes.elements, d_gates);
        t.softmax_tangent(logits.view_mut(0, n, experts), p, &part.mask);
        if weight * switch.z_weight > 0.0 {
            let factor = 2.0 * weight * switch.z_weight / tokens;
            let values: Vec<f32> = self.own_log_sums(core, part).iter().map(|l| (factor * l) as f32).collect();
            let mut factors = device.zeros(n);
            device.upload(factors.view_mut(0, 1, n), &values);
            device.copy(scaled.view_mut(0, n, experts), p);
            t.scale_rows(scaled.view_mut(0, n, experts), &factors);
            device.blend(1.0, logits.view_mut(0, n, experts), 1.0, scaled.view(0, n, experts));
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
        part: &Part,
        (jitter, noise): (Option<Noise>, Option<Noise>),
        flow: &mut Flow,
    ) {
        let (t, (n, d)) = (core.tokens(), x.size());
        let (routing, experts) = (self.routing(), router.rows);
        let (segments, sorted) = (&routing.segments, routing.sorted);
        let all = Core::all(n);
        // The gates.
        core.device.copy(flow.b.view_mut(0, n, d), flow.a.view(0, n, d));
        core.noise(flow.b.view_mut(0, n, d), jitter);
        let logits = &mut flow.router[0];
        t.segment_products(logits.view_mut(0, n, experts), false, flow.b.view(0, n, d), w, router, false, &all);
        t.segment_products(logits.view_mut(0, n, experts), true, self.router_input(x), v, router, false, &all);
        t.softmax_tangent(logits.view_mut(0, n, experts), self.p.view(0, n, experts), &part.mask);
        let (_, t_gates) = gates_of(core, logits.view(0, n, experts), &routing.routes);
        // The experts.
        let [first, second] = &mut flow.sorted;
        t.gather(first.view_mut(0, sorted, d), flow.a.view(0, n, d), &routing.routes.order);
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
        t.combine(flow.b.view_mut(0, n, d), false, t_y, &routing.routes.slots, Some(&routing.gates));
        t.combine(flow.b.view_mut(0, n, d), true, y, &routing.routes.slots, Some(&t_gates));
    }
}
