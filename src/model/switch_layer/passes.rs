//! Value, gradient, squared gradients and Gauss-Newton products of the layer.
//!
//! With `e` the derivative of the loss in a token's output, its expert `i` and gate `p_i`: `dL/dV = (p_i e) [a; 1]'`,
//! `dL/dU = g x'` with `g = p_i V' e o 1[a > 0]`, and in the logits `dL/du_k = <e, V [a; 1]> p_i ([k = i] - p_k)`. The balance
//! `alpha E sum_k f_k P_k` has the derivative `p_k (phi_k - sum_j phi_j p_j)`, `phi = alpha E f / n`: the shares `f` of tokens
//! have none. A Gauss-Newton product holds the experts that were chosen; the balance is linear in `P` and adds nothing to it.

use super::SwitchLayer;
use super::layer::{Block, Layer, Load, Part, Room, Routing, Tile};
use crate::device::{Activation, Array, Backend, Selection};
use crate::error::Result;
use crate::oracle::{Answer, Cost, Curvature, CurvatureMatrix, Gradient, Rows, SquaredGradients, Value, Vector};

/// What the tokens of a job add up to.
struct JobSum {
    /// Numbers of an expert.
    sum: Array,
    /// The sum of losses.
    loss: f64,
    /// [`Layer::along_gate`] of every token, in order.
    gates: Vec<f32>,
}

/// What a pass over rows adds up to.
pub(super) struct PassSum {
    /// The sum of losses.
    pub loss: f64,
    /// How the rows spread over experts.
    pub load: Load,
}

impl Layer {
    fn no_sum(&self) -> JobSum {
        JobSum { sum: self.device.zeros(self.shape.expert()), loss: 0.0, gates: Vec::new() }
    }

    fn nothing(&self) -> PassSum {
        PassSum { loss: 0.0, load: Load::none(self.shape.experts) }
    }

    /// How rows spread over experts at a point.
    pub fn load_of(&self, at: &Array, part: &Part, rows: Selection<'_>) -> Load {
        let mut load = Load::none(self.shape.experts);
        self.for_blocks(at, part, rows, |_, routing| load.add(routing));
        load
    }

    /// How a part's rows spread over experts, and the mean entropy of their probabilities, in nats.
    pub fn load_and_entropy(&self, at: &Array, part: &Part) -> (Load, f64) {
        let (mut load, mut entropy) = (Load::none(self.shape.experts), 0.0);
        self.for_blocks(at, part, Selection::Range(0, part.rows()), |_, routing| {
            load.add(routing);
            let term = |&p: &f32| if p > 0.0 { -f64::from(p) * f64::from(p).ln() } else { 0.0 };
            entropy += routing.p.iter().map(term).sum::<f64>();
        });
        (load, entropy / part.rows().max(1) as f64)
    }

    /// The sum of losses over rows of a part.
    pub fn loss(&self, at: &Array, part: &Part, rows: Selection<'_>) -> PassSum {
        let mut total = self.nothing();
        self.for_blocks(at, part, rows, |block, routing| {
            total.load.add(routing);
            let losses = self.for_jobs(routing, |device, index, room| {
                let job = &routing.jobs[index];
                let mut loss = 0.0;
                for tokens in routing.tiles(job) {
                    self.forward(device, at, block, routing, job.expert, tokens, &mut room.tile);
                    loss += self.residual(device, block, tokens, room, None);
                }
                loss
            });
            total.loss += losses.iter().sum::<f64>();
        });
        total
    }

    /// Visits every tile of a job forward, to the residual times `factor`, and down to `g` and `d`; `body` takes what it needs.
    #[expect(clippy::too_many_arguments, reason = "what meets in a job")]
    fn job_sum(
        &self,
        device: &dyn Backend,
        at: &Array,
        block: &Block,
        routing: &Routing,
        index: usize,
        room: &mut Room,
        factor: f32,
        body: impl Fn(&dyn Backend, usize, &mut Room, &mut Array, bool),
    ) -> JobSum {
        let job = &routing.jobs[index];
        let mut made = self.no_sum();
        for (i, tokens) in routing.tiles(job).enumerate() {
            let columns = tokens.len();
            self.forward(device, at, block, routing, job.expert, tokens, &mut room.tile);
            made.loss += self.residual(device, block, tokens, room, Some(factor));
            made.gates.extend(self.along_gate(device, columns, &room.tile, &mut room.work));
            self.descend(device, at, job.expert, columns, &room.tile, &mut room.work);
            body(device, columns, room, &mut made.sum, i > 0);
        }
        made
    }

    /// The sum of losses over rows and its gradient times `factor`, with that of `balance` times the imbalance.
    pub fn gradient_of(
        &self,
        at: &Array,
        part: &Part,
        rows: Selection<'_>,
        (factor, balance): (f64, f64),
        gradient: &mut Array,
    ) -> PassSum {
        self.device.fill(gradient, 0.0);
        // The shares of all rows must be known before the first derivative.
        let is_ahead = balance > 0.0 && self.shape.has_router() && rows.len() > Self::block_rows(rows.len());
        let ahead = is_ahead.then(|| self.load_of(at, part, rows));
        let mut total = self.nothing();
        self.for_blocks(at, part, rows, |block, routing| {
            total.load.add(routing);
            let sums = self.for_jobs(routing, |device, index, room| {
                self.job_sum(
                    device,
                    at,
                    block,
                    routing,
                    index,
                    room,
                    factor as f32,
                    |device, columns, room, sum, keep| {
                        let Room { tile, work } = room;
                        let views =
                            [work.g.view(columns), tile.x.view(columns), work.d.view(columns), tile.a.view(columns)];
                        self.expert_products(device, views, sum, keep);
                    },
                )
            });
            total.loss += sums.iter().map(|made| made.loss).sum::<f64>();
            self.add_experts(routing, sums.iter().map(|made| &made.sum), gradient);
            if self.shape.has_router() {
                let phi = ahead.as_ref().unwrap_or(&total.load).balance(balance);
                let gates: Vec<_> = sums.iter().map(|made| &made.gates[..]).collect();
                let derivative = self.logit_derivative(routing, &gates, &phi);
                self.add_router(&derivative, block.x.view(block.columns), gradient);
            }
        });
        total
    }

    /// Derivatives in the logits, expert by expert: `experts x tokens`. `gates` holds what the tokens of every job have along
    /// their gates, `phi` the derivatives in all probabilities.
    pub fn logit_derivative(&self, routing: &Routing, gates: &[&[f32]], phi: &[f64]) -> Vec<f32> {
        let columns = routing.order.len();
        let mut derivative = vec![0.0; self.shape.experts * columns];
        for (job, gates) in routing.jobs.iter().zip(gates) {
            for (&token, &along) in routing.order[job.tokens.clone()].iter().zip(*gates) {
                let p = routing.probabilities(token);
                let pull = along * p[job.expert];
                let mean: f64 = phi.iter().zip(p).map(|(phi, &p)| phi * f64::from(p)).sum();
                for (k, (&p, phi)) in p.iter().zip(phi).enumerate() {
                    let chosen = if k == job.expert { pull } else { 0.0 };
                    derivative[k * columns + token as usize] = chosen - pull * p + p * (phi - mean) as f32;
                }
            }
        }
        derivative
    }

    /// The sum over rows of squared gradients of their losses.
    fn squares_of(&self, at: &Array, part: &Part, rows: Selection<'_>, squares: &mut Array) {
        self.device.fill(squares, 0.0);
        let shape = self.shape;
        self.for_blocks(at, part, rows, |block, routing| {
            let sums = self.for_jobs(routing, |device, index, room| {
                self.job_sum(device, at, block, routing, index, room, 1.0, |device, columns, room, sum, keep| {
                    let Room { tile, work } = room;
                    let [g, x, a] = &mut work.wide;
                    device.squares(g.part_mut(shape.hidden, columns), work.g.view(columns));
                    device.squares(x.part_mut(shape.inputs + 1, columns), tile.x.view(columns));
                    device.squares(work.e.view_mut(columns), work.d.view(columns));
                    device.squares(a.part_mut(shape.hidden + 1, columns), tile.a.view(columns));
                    let g = g.part(shape.hidden, columns);
                    let (x, a) = (x.part(shape.inputs + 1, columns), a.part(shape.hidden + 1, columns));
                    self.expert_products(device, [g, x, work.e.view(columns), a], sum, keep);
                })
            });
            self.add_experts(routing, sums.iter().map(|made| &made.sum), squares);
            if shape.has_router() {
                let gates: Vec<_> = sums.iter().map(|made| &made.gates[..]).collect();
                let mut derivative = self.logit_derivative(routing, &gates, &vec![0.0; shape.experts]);
                derivative.iter_mut().for_each(|d| *d *= *d);
                let (inputs, columns) = (shape.inputs + 1, block.columns);
                let mut x = self.device.zeros(inputs * columns);
                self.device.squares(x.view_mut(0, inputs, columns), block.x.view(columns));
                self.add_router(&derivative, x.view(0, inputs, columns), squares);
            }
        });
    }
}

/// Forward passes of a curvature batch are kept up to this size.
const KEPT_BYTES: usize = 512 << 20;

/// A block of a curvature batch: its tiles job by job.
struct Kept {
    block: Block,
    routing: Routing,
    tiles: Vec<Vec<Tile>>,
}

struct LayerCurvature<'a> {
    problem: &'a SwitchLayer,
    at: Vector,
    rows: Rows<'a>,
    /// Empty where they would not fit.
    kept: Vec<Kept>,
}

impl LayerCurvature<'_> {
    /// Adds a block's part of `G v` to `product`, `factor` one by the number of rows.
    fn add(
        &self,
        block: &Block,
        routing: &Routing,
        kept: Option<&[Vec<Tile>]>,
        v: &Array,
        factor: f32,
        product: &mut Array,
    ) {
        let layer = &self.problem.layer;
        let (shape, at) = (layer.shape, self.at.array());
        let logits = if shape.has_router() { layer.logits(layer.router(v), block) } else { Vec::new() };
        // dp_i = p_i (du_i - sum_k p_k du_k)
        let gate_tangent = |token: u32, expert: usize| {
            if logits.is_empty() {
                return 0.0;
            }
            let p = routing.probabilities(token);
            let du = &logits[token as usize * p.len()..][..p.len()];
            let mean: f32 = p.iter().zip(du).map(|(p, du)| p * du).sum();
            p[expert] * (du[expert] - mean)
        };
        let sums = layer.for_jobs(routing, |device, index, Room { tile: own, work }| {
            let job = &routing.jobs[index];
            let mut made = layer.no_sum();
            for (i, tokens) in routing.tiles(job).enumerate() {
                let columns = tokens.len();
                let tile = match kept.and_then(|kept| kept.get(index)?.get(i)) {
                    Some(tile) => tile,
                    None => {
                        layer.forward(device, at, block, routing, job.expert, tokens, own);
                        &*own
                    }
                };
                let gates: Vec<f32> = tokens.iter().map(|&token| gate_tangent(token, job.expert)).collect();
                // The tangent of the output: p (V t + V_v a) + dp V a, with t = (U_v x) o 1[a > 0].
                let a = tile.a.part(shape.hidden, columns);
                device.product(work.g.view_mut(columns), false, layer.input(v, job.expert), tile.x.view(columns));
                device.tangent(Activation::Relu, work.g.view_mut(columns), layer.no_bias(), a);
                device.product(work.e.view_mut(columns), false, layer.output(v, job.expert), tile.a.view(columns));
                let weight = layer.output_weight(at, job.expert);
                device.product(work.e.view_mut(columns), true, weight, work.g.view(columns));
                device.scale_columns(work.d.view_mut(columns), work.e.view(columns), tile.p.view(columns));
                device.upload(work.dots.view_mut(columns), &gates);
                device.scale_columns(work.e.view_mut(columns), tile.out.view(columns), work.dots.view(columns));
                device.blend(factor, work.e.view_mut(columns), factor, work.d.view(columns));
                made.gates.extend(layer.along_gate(device, columns, tile, work));
                layer.descend(device, at, job.expert, columns, tile, work);
                let views = [work.g.view(columns), tile.x.view(columns), work.d.view(columns), tile.a.view(columns)];
                layer.expert_products(device, views, &mut made.sum, i > 0);
            }
            made
        });
        layer.add_experts(routing, sums.iter().map(|made| &made.sum), product);
        if shape.has_router() {
            let gates: Vec<_> = sums.iter().map(|made| &made.gates[..]).collect();
            let derivative = layer.logit_derivative(routing, &gates, &vec![0.0; shape.experts]);
            layer.add_router(&derivative, block.x.view(block.columns), product);
        }
    }
}

impl Curvature for SwitchLayer {
    fn curvature_at<'a>(&'a self, at: &Vector, rows: Rows<'a>) -> Result<Answer<Box<dyn CurvatureMatrix + 'a>>> {
        let (selection, _) = self.selection(rows);
        let layer = &self.layer;
        let shape = layer.shape;
        let numbers = 2 * (shape.inputs + shape.outputs) + shape.hidden + shape.experts + 5;
        let mut kept = Vec::new();
        if selection.len() * numbers * size_of::<f32>() <= KEPT_BYTES {
            for piece in Layer::pieces(selection) {
                let mut block = layer.new_block(piece.len());
                layer.load(&self.train, piece, &mut block);
                let routing = layer.route(at.array(), &block);
                let tiles = layer.for_jobs(&routing, |device, index, _| {
                    let job = &routing.jobs[index];
                    let tile = |tokens: &[u32]| {
                        let mut tile = layer.new_tile();
                        layer.forward(device, at.array(), &block, &routing, job.expert, tokens, &mut tile);
                        tile
                    };
                    routing.tiles(job).map(tile).collect::<Vec<_>>()
                });
                kept.push(Kept { block, routing, tiles });
            }
        }
        let cost = self.cost(if kept.is_empty() { 0 } else { selection.len() }, 1.0, 0.0);
        Ok(Answer { value: Box::new(LayerCurvature { problem: self, at: at.clone(), rows, kept }), cost })
    }
}

impl CurvatureMatrix for LayerCurvature<'_> {
    fn multiply(&self, v: &Vector, product: &mut Vector) -> Result<Cost> {
        let (selection, divisor) = self.problem.selection(self.rows);
        let factor = divisor.recip() as f32;
        let layer = &self.problem.layer;
        layer.device.fill(product.array_mut(), 0.0);
        for Kept { block, routing, tiles } in &self.kept {
            self.add(block, routing, Some(tiles), v.array(), factor, product.array_mut());
        }
        let mut forward = 0.0;
        if self.kept.is_empty() {
            forward = 1.0;
            layer.for_blocks(self.at.array(), &self.problem.train, selection, |block, routing| {
                self.add(block, routing, None, v.array(), factor, product.array_mut());
            });
        }
        Ok(self.problem.cost(selection.len(), 2.0 + forward, 2.0))
    }
}

impl Value for SwitchLayer {
    fn value(&self, at: &Vector, rows: Rows<'_>) -> Result<Answer<f64>> {
        let (selection, divisor) = self.selection(rows);
        let sum = self.layer.loss(at.array(), &self.train, selection);
        let value = sum.loss / divisor + self.balance(rows) * sum.load.imbalance();
        Ok(Answer { value, cost: self.cost(selection.len(), 1.0, 0.0) })
    }
}

impl Gradient for SwitchLayer {
    fn value_and_gradient(&self, at: &Vector, rows: Rows<'_>, gradient: &mut Vector) -> Result<Answer<f64>> {
        let (selection, divisor) = self.selection(rows);
        let weights = (divisor.recip(), self.balance(rows));
        let sum = self.layer.gradient_of(at.array(), &self.train, selection, weights, gradient.array_mut());
        let value = sum.loss / divisor + weights.1 * sum.load.imbalance();
        Ok(Answer { value, cost: self.cost(selection.len(), 2.0, 1.0) })
    }
}

impl SquaredGradients for SwitchLayer {
    fn mean_squared_gradient(&self, at: &Vector, rows: Rows<'_>, squares: &mut Vector) -> Result<Cost> {
        let (selection, _) = self.selection(rows);
        self.layer.squares_of(at.array(), &self.train, selection, squares.array_mut());
        squares.scale(1.0 / selection.len().max(1) as f64);
        Ok(self.cost(selection.len(), 2.0, 1.0))
    }
}
