//! The layer: its parameters, the way of tokens to experts, and what the tokens of one expert go through.
//!
//! Every block of rows is loaded once and routed; the columns of its sheets are then gathered expert by expert into tiles that
//! stay in cache. A job is a run of tokens of one expert, cut by their number alone, so that no result depends on the number of
//! threads, and an expert without tokens is not touched.

use crate::device::array::View;
use crate::device::{Activation, Array, Backend, Device, Loss, Selection, Table};
use crate::model::sheet::Sheet;
use crate::oracle::Layout;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Rows that are loaded and routed together.
const BLOCK_ROWS: usize = 8192;

/// Tokens of a job at most.
const JOB_TOKENS: usize = 1024;

/// Tokens of a tile: its sheets of some 64 units fit into a core's second-level cache.
pub(super) const TILE_TOKENS: usize = 256;

/// Tokens whose probabilities are formed by one thread at a time.
const ROUTED_TOGETHER: usize = 512;

/// The layer's widths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub inputs: usize,
    pub hidden: usize,
    pub outputs: usize,
    pub experts: usize,
}

impl Shape {
    /// One expert is a dense layer: there is nothing to route.
    pub fn has_router(self) -> bool {
        self.experts > 1
    }

    /// Parameters of the router.
    pub fn router(self) -> usize {
        if self.has_router() { self.experts * (self.inputs + 1) } else { 0 }
    }

    /// Parameters of an expert's first matrix, which stand before those of its second.
    pub fn input(self) -> usize {
        self.hidden * (self.inputs + 1)
    }

    /// Parameters of an expert.
    pub fn expert(self) -> usize {
        self.input() + self.outputs * (self.hidden + 1)
    }

    /// Where the parameters of an expert lie.
    pub fn place(self, expert: usize) -> Range<usize> {
        let start = self.router() + expert * self.expert();
        start..start + self.expert()
    }

    /// Names and shapes of the blocks.
    fn blocks(self) -> Vec<(String, usize, usize)> {
        let router = self.has_router().then(|| ("router".to_owned(), self.experts, self.inputs + 1));
        let experts = (0..self.experts).flat_map(|i| {
            [
                (format!("expert{i}.input"), self.hidden, self.inputs + 1),
                (format!("expert{i}.output"), self.outputs, self.hidden + 1),
            ]
        });
        router.into_iter().chain(experts).collect()
    }

    /// Multiplications of a token with the router, with its expert's first matrix and with its second.
    pub fn products(self) -> [f64; 3] {
        let expert = [self.hidden * (self.inputs + 1), self.outputs * (self.hidden + 1)];
        [self.router(), expert[0], expert[1]].map(|count| count as f64)
    }
}

/// A split's rows on the device.
#[derive(Debug)]
pub(super) struct Part {
    pub inputs: Table,
    pub targets: Table,
}

impl Part {
    pub fn rows(&self) -> usize {
        self.inputs.rows()
    }
}

/// Rows as they were loaded: inputs with a constant one, and targets.
#[derive(Debug)]
pub(super) struct Block {
    pub x: Sheet,
    pub y: Sheet,
    pub columns: usize,
}

/// Where the tokens of a block go.
#[derive(Debug)]
pub(super) struct Routing {
    /// `softmax(R x)`, token by token: `tokens x experts`; ones without a router.
    pub p: Vec<f32>,
    /// Tokens in the order of their experts.
    pub order: Vec<u32>,
    /// Runs of `order` that belong to one expert.
    pub jobs: Vec<Job>,
    experts: usize,
}

/// Tokens of one expert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    pub expert: usize,
    pub tokens: Range<usize>,
}

impl Routing {
    fn new(p: Vec<f32>, chosen: &[u32], experts: usize) -> Self {
        let mut starts = vec![0; experts + 1];
        chosen.iter().for_each(|&expert| starts[expert as usize + 1] += 1);
        (0..experts).for_each(|i| starts[i + 1] += starts[i]);
        let mut jobs = Vec::new();
        for expert in 0..experts {
            let (mut start, end) = (starts[expert], starts[expert + 1]);
            while start < end {
                let next = (start + JOB_TOKENS).min(end);
                jobs.push(Job { expert, tokens: start..next });
                start = next;
            }
        }
        let mut order = vec![0; chosen.len()];
        for (token, &expert) in (0..).zip(chosen) {
            let place = &mut starts[expert as usize];
            order[*place] = token;
            *place += 1;
        }
        Self { p, order, jobs, experts }
    }

    /// The probability with which a token's expert was chosen.
    pub fn gate(&self, token: u32, expert: usize) -> f32 {
        self.p[token as usize * self.experts + expert]
    }

    /// A token's probabilities.
    pub fn probabilities(&self, token: u32) -> &[f32] {
        &self.p[token as usize * self.experts..][..self.experts]
    }

    /// Tiles of a job.
    pub fn tiles(&self, job: &Job) -> std::slice::Chunks<'_, u32> {
        self.order[job.tokens.clone()].chunks(TILE_TOKENS)
    }
}

/// How tokens spread over experts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Load {
    /// Tokens that went to each expert.
    pub tokens: Vec<f64>,
    /// The sum of every expert's probability.
    pub probability: Vec<f64>,
}

impl Load {
    pub fn none(experts: usize) -> Self {
        Self { tokens: vec![0.0; experts], probability: vec![0.0; experts] }
    }

    /// Takes a block in.
    pub fn add(&mut self, routing: &Routing) {
        routing.jobs.iter().for_each(|job| self.tokens[job.expert] += job.tokens.len() as f64);
        for p in routing.p.chunks(routing.experts) {
            for (sum, &p) in self.probability.iter_mut().zip(p) {
                *sum += f64::from(p);
            }
        }
    }

    fn rows(&self) -> f64 {
        self.tokens.iter().sum::<f64>().max(1.0)
    }

    /// Derivatives of `weight` times the imbalance in the probabilities of one token.
    pub fn balance(&self, weight: f64) -> Vec<f64> {
        let factor = weight * self.tokens.len() as f64 / self.rows().powi(2);
        self.tokens.iter().map(|tokens| factor * tokens).collect()
    }

    /// `experts * sum_i f_i P_i` with the shares `f` of tokens and mean probabilities `P`: 1 at perfect balance.
    pub fn imbalance(&self) -> f64 {
        let products = self.tokens.iter().zip(&self.probability).map(|(f, p)| f * p);
        self.tokens.len() as f64 * products.sum::<f64>() / self.rows().powi(2)
    }
}

/// Tokens of one expert, and what it made of them.
#[derive(Debug)]
pub(super) struct Tile {
    /// Inputs and a constant one.
    pub x: Sheet,
    /// `max(U x, 0)` and a constant one.
    pub a: Sheet,
    /// `V a`.
    pub out: Sheet,
    /// The gate.
    pub p: Sheet,
}

/// Room for what comes back through a tile.
#[derive(Debug)]
pub(super) struct Work {
    /// Targets.
    pub y: Sheet,
    /// Derivatives in the layer's outputs, or residuals.
    pub e: Sheet,
    /// The same times the gate.
    pub d: Sheet,
    /// Derivatives in `U x`.
    pub g: Sheet,
    pub dots: Sheet,
    /// As wide as the widest of the others.
    pub wide: [Sheet; 3],
}

/// The memory of a job.
#[derive(Debug)]
pub(super) struct Room {
    pub tile: Tile,
    pub work: Work,
}

/// The layer on its device.
#[derive(Debug)]
pub(super) struct Layer {
    pub device: Device,
    pub shape: Shape,
    pub layout: Arc<Layout>,
    zeros: Array,
    ones: Array,
    rooms: Mutex<Vec<Room>>,
    blocks: Mutex<Vec<(usize, Block)>>,
}

/// Memory of blocks that is kept between passes.
const KEPT_BLOCKS: usize = 4;

impl Layer {
    pub fn new(device: Device, shape: Shape) -> Self {
        let blocks = shape.blocks();
        let layout = Layout::on(&device, blocks.iter().map(|(name, rows, columns)| (name.as_str(), *rows, *columns)));
        let (zeros, mut ones) = (device.zeros(shape.hidden), device.zeros(shape.hidden));
        device.fill(&mut ones, 1.0);
        Self { device, shape, layout, zeros, ones, rooms: Mutex::default(), blocks: Mutex::default() }
    }

    /// `U` of an expert.
    pub fn input<'a>(&self, at: &'a Array, expert: usize) -> View<'a> {
        at.view(self.shape.place(expert).start, self.shape.hidden, self.shape.inputs + 1)
    }

    /// `V` of an expert.
    pub fn output<'a>(&self, at: &'a Array, expert: usize) -> View<'a> {
        let start = self.shape.place(expert).start + self.shape.input();
        at.view(start, self.shape.outputs, self.shape.hidden + 1)
    }

    /// `V` without its biases.
    pub fn output_weight<'a>(&self, at: &'a Array, expert: usize) -> View<'a> {
        let start = self.shape.place(expert).start + self.shape.input();
        at.strided(start, self.shape.outputs, self.shape.hidden, self.shape.hidden + 1)
    }

    /// Zeros, a number for each hidden unit.
    pub fn no_bias(&self) -> View<'_> {
        self.zeros.view(0, 1, self.shape.hidden)
    }

    /// Ones, a number for each hidden unit.
    pub fn one_each(&self) -> View<'_> {
        self.ones.view(0, 1, self.shape.hidden)
    }

    fn with_ones(&self, units: usize, columns: usize) -> Sheet {
        let mut sheet = Sheet::new(&self.device, units + 1, columns);
        self.device.upload(sheet.unit_mut(units, columns), &vec![1.0; columns]);
        sheet
    }

    pub fn new_tile(&self) -> Tile {
        let Shape { inputs, hidden, outputs, .. } = self.shape;
        Tile {
            x: self.with_ones(inputs, TILE_TOKENS),
            a: self.with_ones(hidden, TILE_TOKENS),
            out: Sheet::new(&self.device, outputs, TILE_TOKENS),
            p: Sheet::new(&self.device, 1, TILE_TOKENS),
        }
    }

    fn new_room(&self) -> Room {
        let Shape { inputs, hidden, outputs, .. } = self.shape;
        let sheet = |units| Sheet::new(&self.device, units, TILE_TOKENS);
        let widest = (inputs + 1).max(hidden + 1).max(outputs);
        let work = Work {
            y: sheet(outputs),
            e: sheet(outputs),
            d: sheet(outputs),
            g: sheet(hidden),
            dots: sheet(1),
            wide: [(); 3].map(|()| sheet(widest)),
        };
        Room { tile: self.new_tile(), work }
    }

    /// Rows of a block at most.
    pub fn block_rows(rows: usize) -> usize {
        rows.clamp(1, BLOCK_ROWS)
    }

    /// Loads rows of a part.
    pub fn load(&self, part: &Part, rows: Selection<'_>, block: &mut Block) {
        block.columns = rows.len();
        self.device.load(&part.inputs, rows, block.x.part_mut(self.shape.inputs, rows.len()));
        self.device.load(&part.targets, rows, block.y.view_mut(rows.len()));
    }

    /// Memory for a block of up to `rows` rows.
    pub fn new_block(&self, rows: usize) -> Block {
        let y = Sheet::new(&self.device, self.shape.outputs, rows);
        Block { x: self.with_ones(self.shape.inputs, rows), y, columns: 0 }
    }

    /// The blocks of a selection.
    pub fn pieces(rows: Selection<'_>) -> impl Iterator<Item = Selection<'_>> {
        let size = Self::block_rows(rows.len());
        (0..rows.len()).step_by(size).map(move |start| rows.part(start..(start + size).min(rows.len())))
    }

    /// Loads rows block by block, routes each and hands it on.
    pub fn for_blocks(&self, at: &Array, part: &Part, rows: Selection<'_>, mut body: impl FnMut(&Block, &Routing)) {
        let size = Self::block_rows(rows.len());
        let mut kept = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().position(|(rows, _)| *rows == size);
        let pooled = found.map(|i| kept.swap_remove(i).1);
        drop(kept);
        let mut block = pooled.unwrap_or_else(|| self.new_block(size));
        for piece in Self::pieces(rows) {
            self.load(part, piece, &mut block);
            body(&block, &self.route(at, &block));
        }
        let mut kept = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT_BLOCKS {
            kept.remove(0);
        }
        kept.push((size, block));
    }

    /// `matrix x` for the router's matrix or one of its shape, token by token: `tokens x experts`.
    pub fn logits(&self, matrix: View<'_>, block: &Block) -> Vec<f32> {
        let (experts, columns) = (self.shape.experts, block.columns);
        let mut logits = self.device.zeros(experts * columns);
        self.device.product(logits.view_mut(0, experts, columns), false, matrix, block.x.view(columns));
        let by_expert = self.device.download(logits.view(0, experts, columns));
        let mut by_token = vec![0.0; experts * columns];
        for (expert, row) in by_expert.chunks(columns.max(1)).enumerate() {
            for (to, &logit) in by_token[expert..].iter_mut().step_by(experts).zip(row) {
                *to = logit;
            }
        }
        by_token
    }

    /// The router's matrix.
    pub fn router<'a>(&self, at: &'a Array) -> View<'a> {
        at.view(0, self.shape.experts, self.shape.inputs + 1)
    }

    /// Sends every token to the expert of its largest probability, of several equal ones the first.
    pub fn route(&self, at: &Array, block: &Block) -> Routing {
        let (experts, columns) = (self.shape.experts, block.columns);
        if !self.shape.has_router() {
            return Routing::new(vec![1.0; columns], &vec![0; columns], 1);
        }
        let logits = self.logits(self.router(at), block);
        let slots: Vec<Mutex<(Vec<f32>, Vec<u32>)>> =
            (0..columns.div_ceil(ROUTED_TOGETHER)).map(|_| Mutex::default()).collect();
        self.device.for_each(slots.len(), &|_, i| {
            let end = ((i + 1) * ROUTED_TOGETHER).min(columns);
            let routed = softmax(&logits[i * ROUTED_TOGETHER * experts..end * experts], experts);
            *slots[i].lock().unwrap_or_else(PoisonError::into_inner) = routed;
        });
        let (mut p, mut chosen) = (Vec::with_capacity(columns * experts), Vec::with_capacity(columns));
        for slot in slots {
            let (some, of) = slot.into_inner().unwrap_or_else(PoisonError::into_inner);
            p.extend(some);
            chosen.extend(of);
        }
        Routing::new(p, &chosen, experts)
    }

    /// What `body` makes of every job of a block, in order.
    pub fn for_jobs<R: Send>(
        &self,
        routing: &Routing,
        body: impl Fn(&dyn Backend, usize, &mut Room) -> R + Sync,
    ) -> Vec<R> {
        let slots: Vec<Mutex<Option<R>>> = routing.jobs.iter().map(|_| Mutex::new(None)).collect();
        self.device.for_each(routing.jobs.len(), &|device, i| {
            let pooled = self.rooms.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut room = pooled.unwrap_or_else(|| self.new_room());
            let made = body(device, i, &mut room);
            *slots[i].lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
            self.rooms.lock().unwrap_or_else(PoisonError::into_inner).push(room);
        });
        slots.into_iter().filter_map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
    }

    /// Gathers some tokens and what an expert makes of them.
    #[expect(clippy::too_many_arguments, reason = "what meets in a tile")]
    pub fn forward(
        &self,
        device: &dyn Backend,
        at: &Array,
        block: &Block,
        routing: &Routing,
        expert: usize,
        tokens: &[u32],
        tile: &mut Tile,
    ) {
        let columns = tokens.len();
        device.gather_columns(tile.x.view_mut(columns), block.x.view(block.columns), tokens);
        self.pass(device, at, expert, routing, tokens, tile);
    }

    /// What an expert makes of the inputs of a tile.
    pub fn pass(
        &self,
        device: &dyn Backend,
        at: &Array,
        expert: usize,
        routing: &Routing,
        tokens: &[u32],
        tile: &mut Tile,
    ) {
        let (columns, hidden) = (tokens.len(), self.shape.hidden);
        let gates: Vec<f32> = tokens.iter().map(|&token| routing.gate(token, expert)).collect();
        device.upload(tile.p.view_mut(columns), &gates);
        device.product(tile.a.part_mut(hidden, columns), false, self.input(at, expert), tile.x.view(columns));
        device.activate(Activation::Relu, tile.a.part_mut(hidden, columns), self.no_bias(), None);
        device.product(tile.out.view_mut(columns), false, self.output(at, expert), tile.a.view(columns));
    }

    /// Gathers the targets of some tokens; `factor (f - y)` goes into `e`, `f` into `d`. Answers the sum of `1/2 |f - y|^2`.
    pub fn residual(
        &self,
        device: &dyn Backend,
        block: &Block,
        tokens: &[u32],
        Room { tile, work }: &mut Room,
        factor: Option<f32>,
    ) -> f64 {
        let columns = tokens.len();
        device.gather_columns(work.y.view_mut(columns), block.y.view(block.columns), tokens);
        device.scale_columns(work.d.view_mut(columns), tile.out.view(columns), tile.p.view(columns));
        let e = factor.map(|factor| (work.e.view_mut(columns), factor));
        device.loss(Loss::Squared, work.d.view(columns), work.y.view(columns), e)
    }

    /// `<e, V a>` for every token: what a change of its gate changes along `e`.
    pub fn along_gate(&self, device: &dyn Backend, columns: usize, tile: &Tile, work: &mut Work) -> Vec<f32> {
        device.column_dots(work.dots.view_mut(columns), false, work.e.view(columns), tile.out.view(columns));
        device.download(work.dots.view(columns))
    }

    /// Sends `e`, derivatives in the layer's outputs, down to `g`, those in `U x`; times the gate they stand in `d`.
    pub fn descend(
        &self,
        device: &dyn Backend,
        at: &Array,
        expert: usize,
        columns: usize,
        tile: &Tile,
        work: &mut Work,
    ) {
        let hidden = self.shape.hidden;
        device.scale_columns(work.d.view_mut(columns), work.e.view(columns), tile.p.view(columns));
        let (weight, kept) = (self.output_weight(at, expert), tile.a.part(hidden, columns));
        device.backpropagate(Activation::Relu, work.g.view_mut(columns), weight, work.d.view(columns), kept);
    }

    /// `g x'` and `d a'` as the numbers of an expert, added to `sum` with `keep`.
    pub fn expert_products(&self, device: &dyn Backend, [g, x, d, a]: [View<'_>; 4], sum: &mut Array, keep: bool) {
        let Shape { inputs, hidden, outputs, .. } = self.shape;
        device.product(sum.view_mut(0, hidden, inputs + 1), keep, g, x.t());
        device.product(sum.view_mut(self.shape.input(), outputs, hidden + 1), keep, d, a.t());
    }

    /// Adds the sums of a block's jobs to the places of their experts.
    pub fn add_experts<'a>(&self, routing: &Routing, sums: impl Iterator<Item = &'a Array>, to: &mut Array) {
        let length = self.shape.expert();
        for (job, sum) in routing.jobs.iter().zip(sums) {
            let place = to.view_mut(self.shape.place(job.expert).start, 1, length);
            self.device.blend(1.0, place, 1.0, sum.view(0, 1, length));
        }
    }

    /// Adds `left x'` to the router's place, `left` given expert by expert: `experts x tokens`.
    pub fn add_router(&self, left: &[f32], x: View<'_>, to: &mut Array) {
        let (experts, columns) = (self.shape.experts, x.size().1);
        let mut sheet = self.device.zeros(experts * columns);
        self.device.upload(sheet.view_mut(0, experts, columns), left);
        let router = to.view_mut(0, experts, self.shape.inputs + 1);
        self.device.product(router, true, sheet.view(0, experts, columns), x.t());
    }
}

/// Probabilities and the place of the largest, token by token.
fn softmax(logits: &[f32], experts: usize) -> (Vec<f32>, Vec<u32>) {
    let mut p = vec![0.0; logits.len()];
    let mut chosen = Vec::with_capacity(logits.len() / experts);
    for (p, logits) in p.chunks_mut(experts).zip(logits.chunks(experts)) {
        let best = (1..experts).fold(0, |best, k| if logits[k] > logits[best] { k } else { best });
        let mut total = 0.0;
        for (p, logit) in p.iter_mut().zip(logits) {
            *p = (logit - logits[best]).exp();
            total += *p;
        }
        p.iter_mut().for_each(|p| *p /= total);
        chosen.push(best as u32);
    }
    (p, chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_sorted_by_expert_and_cut_into_jobs() {
        let chosen: Vec<u32> = (0..3000).map(|token| [2, 0, 2][token % 3]).collect();
        let routing = Routing::new(vec![0.25; 4 * 3000], &chosen, 4);
        let jobs: Vec<_> = routing.jobs.iter().map(|job| (job.expert, job.tokens.len())).collect();
        assert_eq!(jobs, [(0, 1000), (2, 1024), (2, 976)]);
        assert_eq!(routing.order[..3], [1, 4, 7]);
        assert_eq!(routing.order[1000..1003], [0, 2, 3]);
        let mut load = Load::none(4);
        load.add(&routing);
        assert_eq!(load.tokens, [1000.0, 0.0, 2000.0, 0.0]);
        // Equal probabilities: the imbalance is 1 whatever was chosen.
        assert!((load.imbalance() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn probabilities_add_up_and_the_first_of_equals_is_chosen() {
        let (p, chosen) = softmax(&[1.0, 1.0, -1.0, 100.0, 0.0, 100.0], 3);
        assert_eq!(chosen, [0, 0]);
        assert!((p[..3].iter().sum::<f32>() - 1.0).abs() < 1e-6 && p[0] == p[1] && p[4] < 1e-30);
    }
}
