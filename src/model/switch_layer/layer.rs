//! The layer: its parameters, the way of tokens to experts, and what a block of tokens goes through.
//!
//! A matrix holds a token a row. A block of tokens is loaded, routed and sorted by expert; every product is then one of segments
//! for all experts at once, whatever their number, and an expert without tokens is not touched. Blocks follow one another and
//! each operation is the whole device's, so that no result depends on the number of threads.

use crate::device::array::View;
use crate::device::{Activation, Array, Device, Ids, Loss, Matrices, Routes, Segment, Selection, Table, Tokens};
use crate::oracle::Layout;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

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

    /// The router's matrix.
    pub fn router_matrix(self) -> Matrices {
        Matrices::new(0, self.experts, self.inputs + 1)
    }

    /// `U` of the experts.
    pub fn input_matrices(self) -> Matrices {
        Matrices { step: self.expert(), ..Matrices::new(self.router(), self.hidden, self.inputs + 1) }
    }

    /// `V` of the experts.
    pub fn output_matrices(self) -> Matrices {
        let first = Matrices::new(self.router() + self.input(), self.outputs, self.hidden + 1);
        Matrices { step: self.expert(), ..first }
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

    /// Numbers that a [`Pass`] keeps of a token.
    pub fn numbers(self) -> usize {
        2 * (self.inputs + 1 + self.outputs) + self.hidden + 1 + self.outputs + self.experts + 4
    }

    /// The widest of what a [`Work`] keeps of a token.
    fn widest(self) -> usize {
        (self.inputs + 1).max(self.hidden + 1).max(self.outputs).max(self.experts)
    }

    /// Numbers that a [`Room`] keeps of a token.
    fn numbers_of_room(self) -> usize {
        self.numbers() + 2 * self.outputs + self.hidden + 1 + self.experts + WIDE * self.widest()
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

/// A block of tokens: as it was loaded, where its tokens go, and, sorted by expert, what these make of them.
#[derive(Debug)]
pub(super) struct Pass {
    /// Tokens.
    pub n: usize,
    /// Inputs and a constant one, `n x (inputs + 1)`, and targets, `n x outputs`.
    x: Array,
    y: Array,
    /// `softmax(R x)`, `n x experts`; nothing without a router.
    p: Array,
    log_sums: Array,
    routes: Option<Routes>,
    /// The tokens of every expert that has any.
    pub segments: Vec<Segment>,
    /// Inputs and targets, sorted.
    sorted_x: Array,
    sorted_y: Array,
    /// The gate of every sorted token; nothing without a router.
    gates: Option<Array>,
    /// `max(U x, 0)` and a constant one, `n x (hidden + 1)`.
    a: Array,
    /// `V a`, `n x outputs`.
    pub out: Array,
    /// Row 0 for every token.
    first_row: Ids,
}

/// Room for what comes back through a pass, sorted by expert.
#[derive(Debug)]
pub(super) struct Work {
    /// Derivatives in the layer's outputs, or residuals.
    pub e: Array,
    /// The same times the gate.
    pub d: Array,
    /// Derivatives in `U x`, with those in the constant one beside them: `n x (hidden + 1)`.
    pub g: Array,
    /// Numbers for every logit, token by token as loaded.
    pub logits: Array,
    /// As wide as the widest of the others.
    pub wide: [Array; WIDE],
}

/// How many wide arrays there are.
const WIDE: usize = 4;

/// Memory for blocks of so many tokens.
#[derive(Debug)]
pub(super) struct Room {
    tokens: usize,
    pub pass: Pass,
    pub work: Work,
}

/// The layer on its device.
#[derive(Debug)]
pub(super) struct Layer {
    pub device: Device,
    pub shape: Shape,
    pub layout: Arc<Layout>,
    rooms: Mutex<Vec<Room>>,
    /// Zeros and ones, one for each token of the largest block so far.
    constants: Mutex<Option<Arc<[Array; 2]>>>,
}

/// Tokens of a block at most: each of many experts has then enough to fill a product. Fewer where these would not fit into the
/// bytes of a room, but not fewer than the least.
const MOST_TOKENS: usize = 8192;
const LEAST_TOKENS: usize = 64;
const ROOM_BYTES: usize = 256 << 20;
/// Rooms that are kept between passes.
const KEPT_ROOMS: usize = 4;

impl Layer {
    pub fn new(device: Device, shape: Shape) -> Self {
        let blocks = shape.blocks();
        let layout = Layout::on(&device, blocks.iter().map(|(name, rows, columns)| (name.as_str(), *rows, *columns)));
        Self { device, shape, layout, rooms: Mutex::default(), constants: Mutex::default() }
    }

    /// What the device does for tokens.
    pub fn tokens(&self) -> &dyn Tokens {
        self.device.tokens().expect("every device knows tokens")
    }

    /// `V` of an expert without its biases.
    pub fn output_weight<'a>(&self, at: &'a Array, expert: usize) -> View<'a> {
        let start = self.shape.output_matrices().range(expert).start;
        at.strided(start, self.shape.outputs, self.shape.hidden, self.shape.hidden + 1)
    }

    /// Zeros and ones, at least so many of each.
    pub fn constants(&self, count: usize) -> Arc<[Array; 2]> {
        let mut kept = self.constants.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some(constants) if constants[0].len() >= count => Arc::clone(constants),
            _ => {
                let mut ones = self.device.zeros(count);
                self.device.fill(&mut ones, 1.0);
                let constants = Arc::new([self.device.zeros(count), ones]);
                *kept = Some(Arc::clone(&constants));
                constants
            }
        }
    }

    /// Rows of zeros, so wide and with ones in their last column.
    fn with_ones(&self, tokens: usize, width: usize) -> Array {
        let mut array = self.device.zeros(tokens * width);
        if tokens > 0 {
            let ones = self.constants(tokens);
            self.device.copy(array.strided_mut(width - 1, tokens, 1, width), ones[1].view(0, tokens, 1));
        }
        array
    }

    pub fn new_pass(&self, tokens: usize) -> Pass {
        let Shape { inputs, hidden, outputs, experts } = self.shape;
        let zeros = |width: usize| self.device.zeros(tokens * width);
        let routed = if self.shape.has_router() { 1 } else { 0 };
        Pass {
            n: 0,
            x: self.with_ones(tokens, inputs + 1),
            y: zeros(outputs),
            p: zeros(routed * experts),
            log_sums: zeros(routed),
            routes: None,
            segments: Vec::new(),
            sorted_x: zeros(routed * (inputs + 1)),
            sorted_y: zeros(routed * outputs),
            gates: None,
            a: self.with_ones(tokens, hidden + 1),
            out: zeros(outputs),
            first_row: self.tokens().ids(&[]),
        }
    }

    fn new_room(&self, tokens: usize) -> Room {
        let Shape { hidden, outputs, experts, .. } = self.shape;
        let zeros = |width: usize| self.device.zeros(tokens * width);
        let widest = self.shape.widest();
        let work = Work {
            e: zeros(outputs),
            d: zeros(outputs),
            g: zeros(hidden + 1),
            logits: zeros(experts),
            wide: [(); WIDE].map(|()| zeros(widest)),
        };
        Room { tokens, pass: self.new_pass(tokens), work }
    }

    /// Tokens of a block at most, of so many: the same on every device, since what is said of a block is part of some answers.
    pub fn block_tokens(&self, tokens: usize) -> usize {
        let fitting = ROOM_BYTES / (size_of::<f32>() * self.shape.numbers_of_room());
        fitting.clamp(LEAST_TOKENS, MOST_TOKENS).min(tokens.max(1))
    }

    /// The blocks of a selection.
    pub fn pieces<'a>(&self, rows: Selection<'a>) -> impl Iterator<Item = Selection<'a>> + use<'a> {
        let size = self.block_tokens(rows.len());
        (0..rows.len()).step_by(size).map(move |start| rows.part(start..(start + size).min(rows.len())))
    }

    /// Loads rows of a part.
    pub fn load(&self, part: &Part, rows: Selection<'_>, pass: &mut Pass) {
        self.load_inputs(&part.inputs, rows, pass);
        self.tokens().load_rows(&part.targets, rows, pass.y.view_mut(0, pass.n, self.shape.outputs));
    }

    /// Loads inputs alone; targets are whatever they were.
    pub fn load_inputs(&self, inputs: &Table, rows: Selection<'_>, pass: &mut Pass) {
        let (t, n, width) = (self.tokens(), rows.len(), self.shape.inputs + 1);
        if pass.n != n {
            pass.first_row = t.ids(&vec![0; n]);
        }
        pass.n = n;
        t.load_rows(inputs, rows, pass.x.strided_mut(0, n, width - 1, width));
    }

    /// Calls `body` with room for the blocks of a selection and every piece of it.
    pub fn for_pieces(&self, rows: Selection<'_>, mut body: impl FnMut(Selection<'_>, &mut Room)) {
        let size = self.block_tokens(rows.len());
        let mut kept = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().position(|room| room.tokens == size);
        let pooled = found.map(|i| kept.swap_remove(i));
        drop(kept);
        let mut room = pooled.unwrap_or_else(|| self.new_room(size));
        for piece in self.pieces(rows) {
            body(piece, &mut room);
        }
        let mut kept = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT_ROOMS {
            kept.remove(0);
        }
        kept.push(room);
    }

    /// Loads the rows of a part block by block, sends each to its experts and through them, and hands it on.
    pub fn for_blocks(&self, at: &Array, part: &Part, rows: Selection<'_>, mut body: impl FnMut(&mut Room)) {
        self.for_pieces(rows, |piece, room| {
            self.load(part, piece, &mut room.pass);
            self.route(at, &mut room.pass);
            self.forward(at, &mut room.pass);
            body(room);
        });
    }

    /// Loads and routes the rows of a part block by block and takes their loads in.
    pub fn for_loads(&self, at: &Array, part: &Part, rows: Selection<'_>, mut body: impl FnMut(&Pass)) {
        self.for_pieces(rows, |piece, room| {
            self.load(part, piece, &mut room.pass);
            self.route(at, &mut room.pass);
            body(&room.pass);
        });
    }

    /// `x R'` for a router's matrix or one of its shape, which stands where the router does.
    pub fn logits(&self, of: &Array, pass: &Pass, to: &mut Array) {
        self.products_with_router(of, pass.x(self.shape), to);
    }

    fn products_with_router(&self, of: &Array, x: View<'_>, to: &mut Array) {
        let n = x.size().0;
        let all = [Segment { rows: 0..n, matrix: 0 }];
        let (to, router) = (to.view_mut(0, n, self.shape.experts), self.shape.router_matrix());
        self.tokens().segment_products(to, false, x, of, router, false, &all);
    }

    /// Sends every token to the expert of its largest probability, of several equal ones to the first.
    pub fn route(&self, at: &Array, pass: &mut Pass) {
        let (t, n, shape) = (self.tokens(), pass.n, self.shape);
        if !shape.has_router() {
            pass.segments = vec![Segment { rows: 0..n, matrix: 0 }];
            return;
        }
        let x = pass.x.view(0, n, shape.inputs + 1);
        self.products_with_router(at, x, &mut pass.p);
        t.softmax_rows(pass.p.view_mut(0, n, shape.experts), &mut pass.log_sums);
        let routes = t.route(pass.p(shape), 1, None, &pass.first_row);
        pass.gates = Some(t.take(pass.p(shape), &routes.elements));
        pass.segments.clear();
        let mut start = 0;
        for (matrix, &count) in routes.kept.iter().enumerate().filter(|(_, count)| **count > 0) {
            pass.segments.push(Segment { rows: start..start + count, matrix });
            start += count;
        }
        pass.routes = Some(routes);
    }

    /// What experts make of their tokens.
    pub fn forward(&self, at: &Array, pass: &mut Pass) {
        let (t, n, Shape { inputs, hidden, outputs, .. }) = (self.tokens(), pass.n, self.shape);
        let mut x = pass.x.view(0, n, inputs + 1);
        if let Some(routes) = &pass.routes {
            t.gather(pass.sorted_x.view_mut(0, n, inputs + 1), x, &routes.order);
            t.gather(pass.sorted_y.view_mut(0, n, outputs), pass.y.view(0, n, outputs), &routes.order);
            x = pass.sorted_x.view(0, n, inputs + 1);
        }
        let units = pass.a.strided_mut(0, n, hidden, hidden + 1);
        t.segment_products(units, false, x, at, self.shape.input_matrices(), false, &pass.segments);
        let (zeros, units) = (self.constants(n), pass.a.strided_mut(0, n, hidden, hidden + 1));
        self.device.activate(Activation::Relu, units, zeros[0].view(0, 1, n), None);
        let (out, a) = (pass.out.view_mut(0, n, outputs), pass.a.view(0, n, hidden + 1));
        t.segment_products(out, false, a, at, self.shape.output_matrices(), false, &pass.segments);
    }

    /// Multiplies the sorted tokens' rows with their gates.
    pub fn gate(&self, pass: &Pass, rows: &mut Array, width: usize) {
        if let Some(gates) = &pass.gates {
            self.tokens().scale_rows(rows.view_mut(0, pass.n, width), gates);
        }
    }

    /// `f` into `d`, sorted.
    pub fn outputs(&self, pass: &Pass, work: &mut Work) {
        let (n, outputs) = (pass.n, self.shape.outputs);
        self.device.copy(work.d.view_mut(0, n, outputs), pass.out.view(0, n, outputs));
        self.gate(pass, &mut work.d, outputs);
    }

    /// `factor (f - y)` into `e`, `f` into `d`. Answers the sum of `1/2 |f - y|^2`.
    pub fn residual(&self, Room { pass, work, .. }: &mut Room, factor: Option<f32>) -> f64 {
        let (n, outputs) = (pass.n, self.shape.outputs);
        self.outputs(pass, work);
        let e = factor.map(|factor| (work.e.view_mut(0, n, outputs), factor));
        self.device.loss(Loss::Squared, work.d.view(0, n, outputs), pass.sorted_y(self.shape), e)
    }

    /// `<e, V a>` for every token: what a change of its gate changes along `e`.
    pub fn along_gate(&self, pass: &Pass, work: &Work) -> Array {
        let (n, outputs) = (pass.n, self.shape.outputs);
        self.tokens().row_dots(work.e.view(0, n, outputs), pass.out.view(0, n, outputs))
    }

    /// Sends `e`, derivatives in the layer's outputs, down to `g`, those in `U x`; times the gate they stand in `d`.
    pub fn descend(&self, at: &Array, pass: &Pass, work: &mut Work) {
        let (n, shape) = (pass.n, self.shape);
        self.device.copy(work.d.view_mut(0, n, shape.outputs), work.e.view(0, n, shape.outputs));
        self.gate(pass, &mut work.d, shape.outputs);
        let (g, d) = (work.g.view_mut(0, n, shape.hidden + 1), work.d.view(0, n, shape.outputs));
        self.tokens().segment_products(g, false, d, at, shape.output_matrices(), true, &pass.segments);
        self.mask(pass, &mut work.g, shape.hidden + 1);
    }

    /// `rows = rows o 1[a > 0]` for the first numbers of the units.
    pub fn mask(&self, pass: &Pass, rows: &mut Array, width: usize) {
        let (n, zeros) = (pass.n, self.constants(pass.n));
        let kept = pass.a.strided(0, n, width, self.shape.hidden + 1);
        self.device.tangent(Activation::Relu, rows.view_mut(0, n, width), zeros[0].view(0, 1, n), kept);
    }

    /// Adds `g x'` and `d a'` to the places of the tokens' experts.
    pub fn add_experts(&self, pass: &Pass, [g, x, d, a]: [View<'_>; 4], to: &mut Array) {
        let (t, shape) = (self.tokens(), self.shape);
        t.segment_gradients(to, shape.input_matrices(), g, x, &pass.segments);
        t.segment_gradients(to, shape.output_matrices(), d, a, &pass.segments);
    }

    /// [`Layer::add_experts`] of what stands in a room.
    pub fn add_products(&self, pass: &Pass, work: &Work, to: &mut Array) {
        let (n, shape) = (pass.n, self.shape);
        let (d, a) = (work.d.view(0, n, shape.outputs), pass.a.view(0, n, shape.hidden + 1));
        self.add_experts(pass, [work.units(n, shape), pass.sorted_x(shape), d, a], to);
    }

    /// Adds `left' x` to the router's place, `left` of the shape of logits and `x` of that of inputs.
    pub fn add_router(&self, left: View<'_>, x: View<'_>, to: &mut Array) {
        let router = to.view_mut(0, self.shape.experts, self.shape.inputs + 1);
        self.device.product(router, true, left.t(), x);
    }

    /// Derivatives in the logits into `work.logits`: `along` holds what the sorted tokens have along their gates, `phi` the
    /// derivatives in all probabilities.
    pub fn logit_derivative(&self, pass: &Pass, along: &Array, phi: &[f64], work: &mut Work) {
        let (t, n, experts) = (self.tokens(), pass.n, self.shape.experts);
        let mut own = self.device.zeros(experts);
        if phi.iter().any(|&phi| phi != 0.0) {
            let phi: Vec<f32> = phi.iter().map(|&phi| phi as f32).collect();
            self.device.upload(own.view_mut(0, 1, experts), &phi);
        }
        t.gather(work.logits.view_mut(0, n, experts), own.view(0, 1, experts), &pass.first_row);
        t.add_at(work.logits.view_mut(0, n, experts), &pass.routes().elements, along);
        self.softmax_tangent(pass, &mut work.logits);
    }

    /// `t = p o (t - <p, t>)` for numbers of every logit.
    pub fn softmax_tangent(&self, pass: &Pass, logits: &mut Array) {
        let (n, experts) = (pass.n, self.shape.experts);
        let ones = self.constants(n);
        self.tokens().softmax_tangent(logits.view_mut(0, n, experts), pass.p.view(0, n, experts), &ones[1]);
    }

    /// Takes a block's load in.
    pub fn add_load(&self, pass: &Pass, load: &mut Load) {
        match &pass.routes {
            None => {
                load.tokens[0] += pass.n as f64;
                load.probability[0] += pass.n as f64;
            }
            Some(routes) => {
                let sums = self.tokens().probability_sums(pass.p(self.shape), &pass.first_row);
                load.tokens.iter_mut().zip(&routes.chosen).for_each(|(sum, &count)| *sum += count as f64);
                load.probability.iter_mut().zip(sums).for_each(|(sum, p)| *sum += p);
            }
        }
    }

    /// The sum of `-p ln p` over a block's tokens and experts.
    pub fn entropy(&self, pass: &Pass) -> f64 {
        self.tokens().entropy(pass.p(self.shape), &pass.first_row)
    }

    /// One number of every sorted token, in the order in which tokens were loaded.
    pub fn in_order(&self, pass: &Pass, numbers: Array) -> Vec<f32> {
        let device = &self.device;
        let ordered = match &pass.routes {
            Some(routes) => self.tokens().take(numbers.view(0, pass.n, 1), &routes.slots),
            None => numbers,
        };
        device.download(ordered.view(0, 1, pass.n))
    }

    /// Rows of the sorted tokens in the order in which tokens were loaded.
    pub fn rows_in_order(&self, pass: &Pass, rows: View<'_>) -> Vec<f32> {
        let Some(routes) = &pass.routes else { return self.device.download(rows) };
        let width = rows.size().1;
        let mut ordered = self.device.zeros(pass.n * width);
        self.tokens().gather(ordered.view_mut(0, pass.n, width), rows, &routes.slots);
        self.device.download(ordered.view(0, pass.n, width))
    }
}

impl Pass {
    /// Inputs and a constant one, as loaded.
    pub fn x(&self, shape: Shape) -> View<'_> {
        self.x.view(0, self.n, shape.inputs + 1)
    }

    /// Targets, as loaded.
    pub fn y(&self, shape: Shape) -> View<'_> {
        self.y.view(0, self.n, shape.outputs)
    }

    /// The same, sorted by expert.
    pub fn sorted_x(&self, shape: Shape) -> View<'_> {
        let x = if self.routes.is_some() { &self.sorted_x } else { &self.x };
        x.view(0, self.n, shape.inputs + 1)
    }

    /// The same, sorted by expert.
    pub fn sorted_y(&self, shape: Shape) -> View<'_> {
        let y = if self.routes.is_some() { &self.sorted_y } else { &self.y };
        y.view(0, self.n, shape.outputs)
    }

    /// `max(U x, 0)` and a constant one.
    pub fn a(&self, shape: Shape) -> View<'_> {
        self.a.view(0, self.n, shape.hidden + 1)
    }

    /// Probabilities.
    pub fn p(&self, shape: Shape) -> View<'_> {
        self.p.view(0, self.n, shape.experts)
    }

    /// The gates of the sorted tokens; without a router they are ones and not kept.
    pub fn gates(&self) -> Option<&Array> {
        self.gates.as_ref()
    }

    /// Where tokens go.
    pub fn routes(&self) -> &Routes {
        self.routes.as_ref().expect("tokens are routed where there is a router")
    }
}

impl Work {
    /// Numbers of the logits, as loaded.
    pub fn logits(&self, n: usize, shape: Shape) -> View<'_> {
        self.logits.view(0, n, shape.experts)
    }

    /// `g` without the derivatives in the constant one.
    pub fn units(&self, n: usize, shape: Shape) -> View<'_> {
        self.g.strided(0, n, shape.hidden, shape.hidden + 1)
    }
}
