//! The stacks of a Transformer and what is kept while a group of sequences passes through them.
//!
//! `x_0` is the embedding of the tokens; every sublayer adds to the residual stream, `x_{i+1} = x_i + f_i(norm(x_i))`; the last
//! `x` is normalized. Up goes the forward pass or a tangent, down the derivative; files beside this one hold what the kinds of
//! sublayer do. Dropout multiplies embeddings, what sublayers add, and the last norm's values, in passes that have a seed.

use super::attention::AttentionPass;
use super::batch::{TokenBatch, hash};
use super::config::{Config, NORM_EPSILON, Precision};
use super::feed_forward::DensePass;
use super::layout::{self, Places, StackPlaces, Start, Sublayer, SublayerKind};
use super::routing::Part;
use super::switch::SwitchPass;
use crate::device::array::{View, ViewMut};
use crate::device::{Array, Device, Factors, Ids, Matrices, NO_ROW, Noise, Segment, Tokens};
use crate::oracle::Layout;
use std::sync::{Arc, Mutex, PoisonError};

/// A Transformer without data.
#[derive(Debug)]
pub(super) struct Core {
    pub config: Config,
    pub device: Device,
    pub layout: Arc<Layout>,
    pub places: Places,
    pub starts: Vec<Start>,
    /// Tokens of a sequence that each stack reads.
    pub lengths: Vec<usize>,
    /// For each stack the bucket of every distance.
    pub buckets: Vec<Vec<u32>>,
    /// Memory of passes, to be used again.
    pool: Mutex<Vec<Work>>,
}

/// Weights as the products of a pass see them.
#[derive(Debug)]
pub(super) enum Weights<'a> {
    Plain(&'a Array),
    Rounded(Array),
}

impl Weights<'_> {
    pub fn array(&self) -> &Array {
        match self {
            Self::Plain(array) => array,
            Self::Rounded(array) => array,
        }
    }
}

/// Which noise is meant.
#[derive(Debug, Clone, Copy)]
pub(super) enum NoiseOf {
    Embedding,
    Branch,
    Hidden,
    Jitter,
    Last,
}

/// What one sublayer keeps.
#[derive(Debug)]
pub(super) enum SublayerPass {
    Attention(AttentionPass),
    Dense(DensePass),
    Switch(Box<SwitchPass>),
}

/// What one stack keeps.
#[derive(Debug)]
pub(super) struct StackPass {
    pub ids: Vec<u32>,
    /// The same on the device.
    pub rows: Ids,
    /// For every token whether it is one; empty: all are.
    pub valid: Vec<bool>,
    pub part: Part,
    /// The residual stream before every sublayer and after the last.
    pub x: Vec<Array>,
    pub normed: Vec<Array>,
    pub sublayers: Vec<SublayerPass>,
    /// The last norm's values; of the last stack what the head is multiplied with.
    pub out: Array,
}

/// What a group of sequences keeps.
#[derive(Debug)]
pub(super) struct Pass {
    pub stacks: Vec<StackPass>,
    pub targets: Vec<u32>,
    pub sequences: usize,
    /// Where noise comes from; none: there is none.
    pub seed: Option<u64>,
    /// Whether experts take all tokens whatever their capacity.
    pub dropless: bool,
    /// Room for what a sublayer adds.
    branch: Array,
}

/// Room for what goes up (tangents) or down (derivatives).
#[derive(Debug)]
pub(super) struct Flow {
    /// Along the residual stream.
    pub d: Array,
    /// In a norm's values.
    pub a: Array,
    /// In what a sublayer adds.
    pub b: Array,
    /// In the encoder's values.
    pub across: Array,
    pub queries: Array,
    pub keys_values: Array,
    pub context: Array,
    pub inner: Array,
    pub hidden: Array,
    pub sorted: [Array; 2],
    pub router: [Array; 2],
    pub logits: [Array; 2],
}

/// The memory of one group.
#[derive(Debug)]
pub(super) struct Work {
    pub pass: Pass,
    pub flow: Flow,
    room: usize,
}

/// Groups' memory that is kept between questions.
const KEPT_WORK: usize = 2;
/// Tokens whose logits are worked off together.
pub(super) const HEAD_ROWS: usize = 2048;

impl Core {
    pub fn new(config: Config, context: usize, device: Device) -> Self {
        let (places, layout, starts) = layout::build(&config, &device);
        let lengths: Vec<usize> =
            TokenBatch::lengths(config.kind(), context).into_iter().filter(|&length| length > 0).collect();
        let buckets = places.stacks.iter().zip(&lengths).map(|(stack, &length)| {
            let distance = |i: usize| i as i64 - (length as i64 - 1);
            let of = |i| layout::bucket(distance(i), !stack.causal, config.position_buckets, config.most_distance);
            (0..2 * length - 1).map(of).collect()
        });
        let buckets = buckets.collect();
        Self { config, device, layout, places, starts, lengths, buckets, pool: Mutex::default() }
    }

    /// What the device does for Transformers; asked for before one is built.
    pub fn tokens(&self) -> &dyn Tokens {
        self.device.tokens().expect("a device that a Transformer is built on")
    }

    pub fn rounds(&self) -> bool {
        self.config.precision != Precision::Single
    }

    /// Rounds what a product made, where that is asked for.
    pub fn round(&self, a: ViewMut<'_>) {
        if self.rounds() {
            self.tokens().round_half(a);
        }
    }

    /// What both factors of a product of a forward pass hold: weights of [`Core::weights`], and numbers that were rounded and then
    /// multiplied by `noise`, if there is any. Tangents, derivatives and directions are not rounded.
    pub fn factors(&self, noise: Option<Noise>) -> Factors {
        if self.rounds() && noise.is_none() { Factors::Half } else { Factors::Single }
    }

    /// `out_s = x_s W_s'` for the tokens `s` of every segment, added with `keep`, where `x` and the matrices hold `factors`.
    #[expect(clippy::too_many_arguments, reason = "a product of two factors by segments")]
    pub fn products(
        &self,
        factors: Factors,
        out: ViewMut<'_>,
        keep: bool,
        x: View<'_>,
        w: &Array,
        matrices: Matrices,
        segments: &[Segment],
    ) {
        match factors {
            Factors::Single => self.tokens().segment_products(out, keep, x, w, matrices, false, segments),
            Factors::Half => self.tokens().half_segment_products(out, keep, x, w, matrices, false, segments),
        }
    }

    /// Weights for the products of a pass at `at`.
    pub fn weights<'a>(&self, at: &'a Array) -> Weights<'a> {
        if !self.rounds() {
            return Weights::Plain(at);
        }
        let mut rounded = self.device.zeros(at.len());
        self.device.copy(rounded.view_mut(0, 1, at.len()), at.view(0, 1, at.len()));
        self.tokens().round_half(rounded.view_mut(0, 1, at.len()));
        if self.config.precision == Precision::Selective {
            for &(start, end) in &self.places.unrounded {
                self.device.copy(rounded.view_mut(start, 1, end - start), at.view(start, 1, end - start));
            }
        }
        Weights::Rounded(rounded)
    }

    /// The seed of one use of noise.
    fn noise_seed(pass: &Pass, stack: usize, sublayer: usize, which: NoiseOf) -> Option<u64> {
        pass.seed.map(|seed| hash(seed, ((stack * 4096 + sublayer) * 8) as u64 + which as u64))
    }

    /// The factors of one use of noise, if there are any.
    pub fn noise_of(&self, pass: &Pass, stack: usize, sublayer: usize, which: NoiseOf) -> Option<Noise> {
        let is_switch = matches!(
            self.places.stacks[stack].sublayers.get(sublayer),
            Some(Sublayer { kind: SublayerKind::Switch { .. }, .. })
        );
        let (of_experts, jitter) =
            self.config.switch.map_or((0.0, 0.0), |switch| (switch.expert_dropout, switch.jitter));
        let rate = match which {
            NoiseOf::Jitter => jitter,
            NoiseOf::Hidden if is_switch => of_experts,
            _ => self.config.dropout,
        };
        let seed = Self::noise_seed(pass, stack, sublayer, which).filter(|_| rate > 0.0)?;
        Some(match which {
            NoiseOf::Jitter => Noise::Jitter { seed, spread: rate as f32 },
            _ => Noise::Dropout { seed, rate: rate as f32 },
        })
    }

    pub fn noise(&self, a: ViewMut<'_>, noise: Option<Noise>) {
        if let Some(noise) = noise {
            self.tokens().noise(a, noise);
        }
    }

    fn new_pass(&self, room: usize) -> Pass {
        let zeros = |len: usize| self.device.zeros(len);
        let d = self.config.d_model;
        let stacks = self.places.stacks.iter().zip(&self.lengths).map(|(places, &length)| {
            let tokens = room * length;
            let keys = |across: bool| room * if across { self.lengths[0] } else { length };
            let sublayers = places.sublayers.iter().map(|sublayer| match &sublayer.kind {
                SublayerKind::Attention { across, .. } => {
                    let other = if *across { self.lengths[0] } else { length };
                    SublayerPass::Attention(AttentionPass {
                        queries: zeros(tokens * self.config.inner()),
                        keys_values: zeros(keys(*across) * 2 * self.config.inner()),
                        p: zeros(tokens * self.config.heads * other),
                        context: zeros(tokens * self.config.inner()),
                    })
                }
                SublayerKind::Dense { inner, outer } => {
                    SublayerPass::Dense(DensePass { u: zeros(tokens * inner.rows), h: zeros(tokens * outer.columns) })
                }
                SublayerKind::Switch { router, inner, outer } => {
                    let (top_k, jitter) = self.config.switch.map_or((1, 0.0), |switch| (switch.top_k, switch.jitter));
                    let sorted = tokens * top_k;
                    SublayerPass::Switch(Box::new(SwitchPass {
                        input: (jitter > 0.0).then(|| zeros(tokens * d)),
                        p: zeros(tokens * router.rows),
                        log_sums: zeros(tokens),
                        routing: None,
                        x: zeros(sorted * d),
                        u: zeros(sorted * inner.rows),
                        h: zeros(sorted * outer.columns),
                        y: zeros(sorted * d),
                    }))
                }
            });
            StackPass {
                ids: Vec::new(),
                rows: self.tokens().ids(&[]),
                valid: Vec::new(),
                part: Part::new(&self.device, self.tokens(), tokens),
                x: (0..=places.sublayers.len()).map(|_| zeros(tokens * d)).collect(),
                normed: places.sublayers.iter().map(|_| zeros(tokens * d)).collect(),
                sublayers: sublayers.collect(),
                out: zeros(tokens * d),
            }
        });
        let stacks: Vec<StackPass> = stacks.collect();
        let branch = zeros(room * self.longest() * d);
        Pass { stacks, targets: Vec::new(), sequences: 0, seed: None, dropless: false, branch }
    }

    fn longest(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or_default()
    }

    fn new_flow(&self, room: usize) -> Flow {
        let zeros = |len: usize| self.device.zeros(len);
        let config = &self.config;
        let (d, inner, f) = (config.d_model, config.inner(), config.d_ff);
        let tokens = room * self.longest();
        let (top_k, experts) = config.switch.map_or((1, 0), |switch| (switch.top_k, switch.experts));
        let sorted = if experts > 0 { tokens * top_k } else { 0 };
        let head = HEAD_ROWS.min(tokens) * self.places.head.rows;
        Flow {
            d: zeros(tokens * d),
            a: zeros(tokens * d),
            b: zeros(tokens * d),
            across: zeros(if self.lengths.len() > 1 { tokens * d } else { 0 }),
            queries: zeros(tokens * inner),
            keys_values: zeros(tokens * 2 * inner),
            context: zeros(tokens * inner),
            inner: zeros(tokens.max(sorted) * config.feed_forward.inner_matrices() * f),
            hidden: zeros(tokens.max(sorted) * f),
            sorted: [(); 2].map(|()| zeros(sorted * d)),
            router: [(); 2].map(|()| zeros(tokens * experts)),
            logits: [(); 2].map(|()| zeros(head)),
        }
    }

    /// Bytes that a pass over so many sequences keeps.
    pub fn pass_bytes(&self, sequences: usize) -> usize {
        let config = &self.config;
        let mut numbers = 0;
        for (places, &length) in self.places.stacks.iter().zip(&self.lengths) {
            for sublayer in &places.sublayers {
                numbers += length
                    * (2 * config.d_model
                        + match &sublayer.kind {
                            SublayerKind::Attention { .. } => 4 * config.inner() + config.heads * length,
                            SublayerKind::Dense { inner, outer } => inner.rows + outer.columns,
                            SublayerKind::Switch { router, inner, outer } => {
                                let top_k = config.switch.map_or(1, |switch| switch.top_k);
                                router.rows + top_k * (inner.rows + outer.columns + 2 * config.d_model)
                            }
                        });
            }
        }
        sequences * numbers * size_of::<f32>()
    }

    /// Runs `f` with the memory of a group of up to `sequences` sequences.
    pub fn with_work<R>(&self, sequences: usize, f: impl FnOnce(&mut Work) -> R) -> R {
        let take = |pool: &mut Vec<Work>| {
            pool.iter().position(|work| work.room >= sequences).map(|place| pool.swap_remove(place))
        };
        let pooled = take(&mut self.pool.lock().unwrap_or_else(PoisonError::into_inner));
        let mut work = pooled.unwrap_or_else(|| Work {
            pass: self.new_pass(sequences),
            flow: self.new_flow(sequences),
            room: sequences,
        });
        let result = f(&mut work);
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.len() == KEPT_WORK {
            pool.remove(0);
        }
        pool.push(work);
        result
    }

    /// A pass of its own, to be kept.
    pub fn own_pass(&self, sequences: usize) -> Pass {
        self.new_pass(sequences)
    }

    /// Puts sequences in.
    pub fn load(&self, pass: &mut Pass, batch: &TokenBatch, seed: Option<u64>, dropless: bool) {
        let kind = self.config.kind();
        let sides: Vec<&Vec<u32>> = match kind {
            super::config::Kind::Encoder => vec![&batch.encoder],
            super::config::Kind::Decoder => vec![&batch.decoder],
            super::config::Kind::EncoderDecoder => vec![&batch.encoder, &batch.decoder],
        };
        for (stack, ids) in pass.stacks.iter_mut().zip(sides) {
            stack.ids.clone_from(ids);
            stack.valid.clear();
            if ids.contains(&NO_ROW) {
                stack.valid.extend(ids.iter().map(|&id| id != NO_ROW));
            }
            stack.rows = self.tokens().ids(ids);
            if self.config.switch.is_some() {
                self.load_part(&mut stack.part, ids);
            }
        }
        pass.targets.clone_from(&batch.targets);
        (pass.sequences, pass.seed, pass.dropless) = (batch.sequences, seed, dropless);
    }

    pub fn load_part(&self, part: &mut Part, ids: &[u32]) {
        let rows: Vec<u32> = ids.iter().map(|&id| if id == NO_ROW { NO_ROW } else { 0 }).collect();
        let mask: Vec<f32> = ids.iter().map(|&id| f32::from(u8::from(id != NO_ROW))).collect();
        part.rows = self.tokens().ids(&rows);
        self.device.upload(part.mask.view_mut(0, 1, mask.len()), &mask);
        part.tokens = ids.iter().filter(|&&id| id != NO_ROW).count();
        part.mask_on_host = mask;
    }

    pub fn embedding<'a>(&self, of: &'a Array) -> View<'a> {
        let Matrices { start, rows, columns, .. } = self.places.embedding;
        of.view(start, rows, columns)
    }

    /// The factor of the last stack's values: logits of a tied head are multiplied by `d_model^(-1/2)`.
    fn last_factor(&self, stack: usize) -> Option<f32> {
        let is_last = stack + 1 == self.places.stacks.len();
        (is_last && self.config.tied_head).then(|| (self.config.d_model as f32).sqrt().recip())
    }

    fn scale_last(&self, stack: usize, a: ViewMut<'_>, rows: usize) {
        if let Some(factor) = self.last_factor(stack) {
            let mut factors = self.device.zeros(rows);
            self.device.fill(&mut factors, factor);
            self.tokens().scale_rows(a, &factors);
        }
    }

    /// Fills a pass from the tokens in it.
    pub fn forward(&self, w: &Array, pass: &mut Pass) {
        for stack in 0..self.places.stacks.len() {
            self.forward_stack(w, stack, pass);
        }
    }

    fn forward_stack(&self, w: &Array, s: usize, pass: &mut Pass) {
        let (t, d, places) = (self.tokens(), self.config.d_model, &self.places.stacks[s]);
        let tokens = pass.sequences * self.lengths[s];
        let last = self.noise_of(pass, s, 0, NoiseOf::Last);
        let embedding = self.noise_of(pass, s, 0, NoiseOf::Embedding);
        let first = &mut pass.stacks[s];
        t.gather(first.x[0].view_mut(0, tokens, d), self.embedding(w), &first.rows);
        self.noise(first.x[0].view_mut(0, tokens, d), embedding);
        for (i, sublayer) in places.sublayers.iter().enumerate() {
            let branch_noise = self.noise_of(pass, s, i, NoiseOf::Branch);
            let hidden_noise = self.noise_of(pass, s, i, NoiseOf::Hidden);
            let jitter = self.noise_of(pass, s, i, NoiseOf::Jitter);
            let Pass { stacks, branch, sequences, dropless, .. } = &mut *pass;
            let (before, rest) = stacks.split_at_mut(s);
            let StackPass { x, normed, sublayers, valid, part, .. } = &mut rest[0];
            let (x, after) = x.split_at_mut(i + 1);
            let (x, to) = (x[i].view(0, tokens, d), &mut after[0]);
            t.rms_norm(normed[i].view_mut(0, tokens, d), x, w.view(sublayer.norm, 1, d), NORM_EPSILON);
            self.round(normed[i].view_mut(0, tokens, d));
            self.device.copy(to.view_mut(0, tokens, d), x);
            // Straight into the residual stream where nothing is done to the branch by itself. A dense layer's branch stands alone,
            // so that it has the bits of a Switch layer with one expert.
            let is_dense = matches!(sublayer.kind, SublayerKind::Dense { .. });
            let apart = branch_noise.is_some() || self.rounds() || is_dense;
            let (out, keep) = if apart { (&mut *branch, false) } else { (&mut *to, true) };
            let normed = normed[i].view(0, tokens, d);
            match (&sublayer.kind, &mut sublayers[i]) {
                (SublayerKind::Attention { across, .. }, SublayerPass::Attention(own)) => {
                    let encoder = across.then(|| &before[0]);
                    own.forward(self, w, (s, *sequences), &sublayer.kind, normed, encoder, valid, (out, keep));
                }
                (SublayerKind::Dense { inner, outer }, SublayerPass::Dense(own)) => {
                    own.forward(self, w, (*inner, *outer), normed, hidden_noise, (out, keep));
                }
                (SublayerKind::Switch { router, inner, outer }, SublayerPass::Switch(own)) => {
                    let places = (*router, *inner, *outer);
                    own.forward(self, w, places, normed, part, *dropless, (jitter, hidden_noise), (out, keep));
                }
                _ => unreachable!("a pass has the sublayers of its stack"),
            }
            if apart {
                self.round(branch.view_mut(0, tokens, d));
                self.noise(branch.view_mut(0, tokens, d), branch_noise);
                self.device.blend(1.0, to.view_mut(0, tokens, d), 1.0, branch.view(0, tokens, d));
                self.round(to.view_mut(0, tokens, d));
            }
        }
        let StackPass { x, out, .. } = &mut pass.stacks[s];
        let x = x[places.sublayers.len()].view(0, tokens, d);
        t.rms_norm(out.view_mut(0, tokens, d), x, w.view(places.final_norm, 1, d), NORM_EPSILON);
        self.noise(out.view_mut(0, tokens, d), last);
        self.scale_last(s, out.view_mut(0, tokens, d), tokens);
        self.round(out.view_mut(0, tokens, d));
    }

    /// Sends the derivative in the last stack's values, in `flow.d`, down; adds everything's derivative to `sum`. With a weight, that
    /// of the routers' own losses too.
    pub fn backward(&self, w: &Array, pass: &Pass, flow: &mut Flow, routers: Option<f64>, sum: &mut Array) {
        let stacks = self.places.stacks.len();
        if stacks > 1 {
            self.device.fill(&mut flow.across, 0.0);
        }
        for s in (0..stacks).rev() {
            self.backward_stack(w, s, pass, flow, routers, sum);
            if s > 0 {
                std::mem::swap(&mut flow.d, &mut flow.across);
            }
        }
    }

    fn backward_stack(&self, w: &Array, s: usize, pass: &Pass, flow: &mut Flow, routers: Option<f64>, sum: &mut Array) {
        let (t, d, places) = (self.tokens(), self.config.d_model, &self.places.stacks[s]);
        let (own, tokens) = (&pass.stacks[s], pass.sequences * self.lengths[s]);
        self.scale_last(s, flow.d.view_mut(0, tokens, d), tokens);
        self.noise(flow.d.view_mut(0, tokens, d), self.noise_of(pass, s, 0, NoiseOf::Last));
        let x = own.x[places.sublayers.len()].view(0, tokens, d);
        let (norm, of) = (w.view(places.final_norm, 1, d), places.final_norm);
        self.device.fill(&mut flow.a, 0.0);
        let (to, from) = (flow.a.view_mut(0, tokens, d), flow.d.view(0, tokens, d));
        t.rms_norm_adjoint(to, sum.view_mut(of, 1, d), x, norm, from, NORM_EPSILON);
        std::mem::swap(&mut flow.a, &mut flow.d);
        for (i, sublayer) in places.sublayers.iter().enumerate().rev() {
            let branch_noise = self.noise_of(pass, s, i, NoiseOf::Branch);
            self.device.copy(flow.b.view_mut(0, tokens, d), flow.d.view(0, tokens, d));
            self.noise(flow.b.view_mut(0, tokens, d), branch_noise);
            let normed = own.normed[i].view(0, tokens, d);
            let hidden_noise = self.noise_of(pass, s, i, NoiseOf::Hidden);
            match (&sublayer.kind, &own.sublayers[i]) {
                (SublayerKind::Attention { across, .. }, SublayerPass::Attention(kept)) => {
                    let encoder = across.then(|| &pass.stacks[0]);
                    let shape = (s, pass.sequences);
                    kept.backward(self, w, shape, &sublayer.kind, normed, encoder, &own.valid, flow, sum);
                }
                (SublayerKind::Dense { inner, outer }, SublayerPass::Dense(kept)) => {
                    kept.backward(self, w, (*inner, *outer), normed, hidden_noise, flow, sum);
                }
                (SublayerKind::Switch { router, inner, outer }, SublayerPass::Switch(kept)) => {
                    let jitter = self.noise_of(pass, s, i, NoiseOf::Jitter);
                    let places = (*router, *inner, *outer);
                    kept.backward(self, w, places, normed, &own.part, (jitter, hidden_noise), routers, flow, sum);
                }
                _ => unreachable!("a pass has the sublayers of its stack"),
            }
            let (x, from) = (own.x[i].view(0, tokens, d), flow.a.view(0, tokens, d));
            let (norm, dw) = (w.view(sublayer.norm, 1, d), sum.view_mut(sublayer.norm, 1, d));
            t.rms_norm_adjoint(flow.d.view_mut(0, tokens, d), dw, x, norm, from, NORM_EPSILON);
        }
        self.noise(flow.d.view_mut(0, tokens, d), self.noise_of(pass, s, 0, NoiseOf::Embedding));
        let Matrices { start, rows, columns, .. } = self.places.embedding;
        t.scatter_add(sum.view_mut(start, rows, columns), &own.ids, flow.d.view(0, tokens, d), 1.0);
    }

    /// The tangent of the last stack's values along `v`, into `flow.d`.
    pub fn tangent(&self, w: &Array, v: &Array, pass: &Pass, flow: &mut Flow) {
        for s in 0..self.places.stacks.len() {
            self.tangent_stack(w, v, s, pass, flow);
            if s + 1 < self.places.stacks.len() {
                std::mem::swap(&mut flow.d, &mut flow.across);
            }
        }
    }

    fn tangent_stack(&self, w: &Array, v: &Array, s: usize, pass: &Pass, flow: &mut Flow) {
        let (t, d, places) = (self.tokens(), self.config.d_model, &self.places.stacks[s]);
        let (own, tokens) = (&pass.stacks[s], pass.sequences * self.lengths[s]);
        t.gather(flow.d.view_mut(0, tokens, d), self.embedding(v), &own.rows);
        self.noise(flow.d.view_mut(0, tokens, d), self.noise_of(pass, s, 0, NoiseOf::Embedding));
        for (i, sublayer) in places.sublayers.iter().enumerate() {
            let (x, of) = (own.x[i].view(0, tokens, d), sublayer.norm);
            let (to, from) = (flow.a.view_mut(0, tokens, d), flow.d.view(0, tokens, d));
            t.rms_norm_tangent(to, x, w.view(of, 1, d), from, v.view(of, 1, d), NORM_EPSILON);
            let normed = own.normed[i].view(0, tokens, d);
            let hidden_noise = self.noise_of(pass, s, i, NoiseOf::Hidden);
            match (&sublayer.kind, &own.sublayers[i]) {
                (SublayerKind::Attention { across, .. }, SublayerPass::Attention(kept)) => {
                    let encoder = across.then(|| &pass.stacks[0]);
                    let shape = (s, pass.sequences);
                    kept.tangent(self, (w, v), shape, &sublayer.kind, normed, encoder, &own.valid, flow);
                }
                (SublayerKind::Dense { inner, outer }, SublayerPass::Dense(kept)) => {
                    kept.tangent(self, (w, v), (*inner, *outer), normed, hidden_noise, flow);
                }
                (SublayerKind::Switch { router, inner, outer }, SublayerPass::Switch(kept)) => {
                    let jitter = self.noise_of(pass, s, i, NoiseOf::Jitter);
                    let places = (*router, *inner, *outer);
                    kept.tangent(self, (w, v), places, normed, &own.part, (jitter, hidden_noise), flow);
                }
                _ => unreachable!("a pass has the sublayers of its stack"),
            }
            self.noise(flow.b.view_mut(0, tokens, d), self.noise_of(pass, s, i, NoiseOf::Branch));
            self.device.blend(1.0, flow.d.view_mut(0, tokens, d), 1.0, flow.b.view(0, tokens, d));
        }
        let x = own.x[places.sublayers.len()].view(0, tokens, d);
        let (to, from) = (flow.a.view_mut(0, tokens, d), flow.d.view(0, tokens, d));
        let of = places.final_norm;
        t.rms_norm_tangent(to, x, w.view(of, 1, d), from, v.view(of, 1, d), NORM_EPSILON);
        std::mem::swap(&mut flow.a, &mut flow.d);
        self.noise(flow.d.view_mut(0, tokens, d), self.noise_of(pass, s, 0, NoiseOf::Last));
        self.scale_last(s, flow.d.view_mut(0, tokens, d), tokens);
    }

    /// All tokens as one segment.
    pub fn all(tokens: usize) -> [Segment; 1] {
        [Segment { rows: 0..tokens, matrix: 0 }]
    }

    /// The stack of a number.
    pub fn stack(&self, s: usize) -> &StackPlaces {
        &self.places.stacks[s]
    }
}
