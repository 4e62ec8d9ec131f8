//! Sums for a step of every block while the others are held: Gram matrices, right-hand sides and the local steps of tokens.
//!
//! The outputs `z = U x + delta` of a token that minimize `|y - p V [max(z, 0); 1]|^2 + penalty |delta|^2` with the mask
//! `D = diag 1[U x > 0]` held solve `(penalty I + p^2 D V'V D) delta = g`, `g = p D V' r`: a few steps of conjugate gradients,
//! each a product with `V'V` for all tokens of a tile at once. Outside the mask `delta` is zero.

use super::SwitchLayer;
use super::layer::{Block, Layer, Room, Routing, Shape, Work};
use crate::device::{Activation, Array, Backend, Matrix};
use crate::error::Result;
use crate::model::sheet::Sheet;
use crate::oracle::{
    Answer, Expert, ExpertEquations, ExpertGrams, ExpertLayer, ExpertQuestion, ExpertShare, ExpertSums, RouterSignal,
    Rows, TokenStep, Vector,
};

/// Numbers of a job's sum: both right-hand sides as the numbers of an expert, then the three Gram matrices.
#[derive(Clone, Copy)]
struct Places {
    input: usize,
    output: usize,
    masks: usize,
    end: usize,
}

impl Places {
    fn new(shape: Shape, with_grams: bool) -> Self {
        let input = shape.expert();
        if !with_grams {
            return Self { input, output: input, masks: input, end: input };
        }
        let output = input + (shape.inputs + 1).pow(2);
        let masks = output + (shape.hidden + 1).pow(2);
        Self { input, output, masks, end: masks + shape.hidden.pow(2) }
    }
}

/// What the tokens of a job add up to.
struct JobEquations {
    sum: Array,
    /// The sum of `1/2 |r|^2`.
    loss: f64,
    /// `<e, V a>` of every token with `e = f - y`.
    gates: Vec<f32>,
    /// `|y - p_j E_j(x)|^2` for every token and expert, where responsibilities are asked for.
    errors: Vec<f32>,
}

impl Layer {
    /// The sums of one job.
    #[expect(clippy::too_many_arguments, reason = "what meets in a job")]
    fn job_equations(
        &self,
        device: &dyn Backend,
        at: &Array,
        block: &Block,
        routing: &Routing,
        index: usize,
        room: &mut Room,
        question: &ExpertQuestion<'_>,
    ) -> JobEquations {
        let (shape, job) = (self.shape, &routing.jobs[index]);
        let places = Places::new(shape, question.with_grams);
        let mut made = JobEquations { sum: device.zeros(places.end), loss: 0.0, gates: Vec::new(), errors: Vec::new() };
        let squares = match question.step {
            TokenStep::Gradient => None,
            TokenStep::Proximal { .. } => {
                let (weight, h) = (self.output_weight(at, job.expert), shape.hidden);
                let mut product = device.zeros(h * h);
                device.product(product.view_mut(0, h, h), false, weight.t(), weight);
                Some(product)
            }
        };
        for (i, tokens) in routing.tiles(job).enumerate() {
            let (columns, keep) = (tokens.len(), i > 0);
            self.forward(device, at, block, routing, job.expert, tokens, &mut room.tile);
            made.loss += self.residual(device, block, tokens, room, Some(-1.0));
            let along = self.along_gate(device, columns, &room.tile, &mut room.work);
            made.gates.extend(along.into_iter().map(|along| -along));
            self.descend(device, at, job.expert, columns, &room.tile, &mut room.work);
            if let (TokenStep::Proximal { penalties, steps }, Some(squares)) = (question.step, &squares) {
                self.proximal(device, squares, penalties[job.expert] as f32, steps, columns, room);
            }
            let Room { tile, work } = &mut *room;
            let views = [work.g.view(columns), tile.x.view(columns), work.d.view(columns), tile.a.view(columns)];
            self.expert_products(device, views, &mut made.sum, keep);
            if question.with_grams {
                self.grams(device, places, columns, room, &mut made.sum, keep);
            }
            if question.signal == RouterSignal::Responsibilities && shape.has_router() {
                made.errors.extend(self.errors(device, at, routing, tokens, room));
            }
        }
        made
    }

    /// Overwrites `g` by `delta`.
    fn proximal(
        &self,
        device: &dyn Backend,
        squares: &Array,
        penalty: f32,
        steps: usize,
        columns: usize,
        Room { tile, work }: &mut Room,
    ) {
        let h = self.shape.hidden;
        let Work { g, wide: [delta, direction, image], dots, .. } = work;
        let gates = device.download(tile.p.view(columns));
        let row = |values: &[f32], sheet: &mut Sheet| device.upload(sheet.view_mut(columns), values);
        let dot = |a: &Sheet, b: &Sheet, dots: &mut Sheet| {
            device.column_dots(dots.view_mut(columns), false, a.part(h, columns), b.part(h, columns));
            device.download(dots.view(columns))
        };
        let ratio = |a: &[f32], b: &[f32], sign: f32| -> Vec<f32> {
            a.iter().zip(b).map(|(a, b)| if *b > 0.0 { sign * a / b } else { 0.0 }).collect()
        };
        let gate_squares: Vec<f32> = gates.iter().map(|p| p * p).collect();
        // `g` is the residual of the system, zero outside the mask, and so is every direction.
        device.copy(direction.part_mut(h, columns), g.view(columns));
        let mut norms = dot(g, g, dots);
        let mut scaled = Sheet::new(&self.device, h, columns);
        for step in 0..steps {
            let (matrix, mask) = (squares.view(0, h, h), tile.a.part(h, columns));
            let image_part = image.part_mut(h, columns);
            device.backpropagate(Activation::Relu, image_part, matrix, direction.part(h, columns), mask);
            row(&gate_squares, dots);
            device.scale_columns(scaled.view_mut(columns), image.part(h, columns), dots.view(columns));
            device.blend(1.0, scaled.view_mut(columns), penalty, direction.part(h, columns));
            let curvature = dot(direction, &scaled, dots);
            row(&ratio(&norms, &curvature, 1.0), dots);
            device.scale_columns(image.part_mut(h, columns), direction.part(h, columns), dots.view(columns));
            if step == 0 {
                device.copy(delta.part_mut(h, columns), image.part(h, columns));
            } else {
                device.blend(1.0, delta.part_mut(h, columns), 1.0, image.part(h, columns));
            }
            if step + 1 == steps {
                break;
            }
            device.scale_columns(image.part_mut(h, columns), scaled.view(columns), dots.view(columns));
            device.blend(1.0, g.view_mut(columns), -1.0, image.part(h, columns));
            let next = dot(g, g, dots);
            row(&ratio(&next, &norms, 1.0), dots);
            device.scale_columns(image.part_mut(h, columns), direction.part(h, columns), dots.view(columns));
            device.blend(1.0, image.part_mut(h, columns), 1.0, g.view(columns));
            std::mem::swap(direction, image);
            norms = next;
        }
        device.copy(g.view_mut(columns), delta.part(h, columns));
    }

    /// Adds `x x'`, `A A'` and `p^2 m m'` of a tile.
    fn grams(
        &self,
        device: &dyn Backend,
        places: Places,
        columns: usize,
        Room { tile, work }: &mut Room,
        sum: &mut Array,
        keep: bool,
    ) {
        let (inputs, hidden) = (self.shape.inputs + 1, self.shape.hidden);
        let [design, mask, _] = &mut work.wide;
        let (x, p) = (tile.x.view(columns), tile.p.view(columns));
        device.product(sum.view_mut(places.input, inputs, inputs), keep, x, x.t());
        device.scale_columns(design.part_mut(hidden + 1, columns), tile.a.view(columns), p);
        let design = design.part(hidden + 1, columns);
        device.product(sum.view_mut(places.output, hidden + 1, hidden + 1), keep, design, design.t());
        // p m: the gate sent down a matrix of ones with one row.
        let kept = tile.a.part(hidden, columns);
        device.backpropagate(Activation::Relu, mask.part_mut(hidden, columns), self.one_each(), p, kept);
        let mask = mask.part(hidden, columns);
        device.product(sum.view_mut(places.masks, hidden, hidden), keep, mask, mask.t());
    }

    /// `|y - p_j E_j(x)|^2` for every token of a tile and expert, token by token. Overwrites what the tile's own expert made.
    fn errors(&self, device: &dyn Backend, at: &Array, routing: &Routing, tokens: &[u32], room: &mut Room) -> Vec<f32> {
        let (experts, columns) = (self.shape.experts, tokens.len());
        let mut errors = vec![0.0; columns * experts];
        for expert in 0..experts {
            self.pass(device, at, expert, routing, tokens, &mut room.tile);
            let Room { tile, work } = &mut *room;
            device.scale_columns(work.d.view_mut(columns), tile.out.view(columns), tile.p.view(columns));
            device.blend(-1.0, work.d.view_mut(columns), 1.0, work.y.view(columns));
            device.column_dots(work.dots.view_mut(columns), false, work.d.view(columns), work.d.view(columns));
            let squares = device.download(work.dots.view(columns));
            errors[expert..].iter_mut().step_by(experts).zip(squares).for_each(|(to, square)| *to = square);
        }
        errors
    }

    /// `h - p`, expert by expert, from the errors of all experts; `variance` is that of an output.
    fn responsibilities(&self, routing: &Routing, made: &[JobEquations], variance: f64) -> Vec<f32> {
        let (experts, columns) = (self.shape.experts, routing.order.len());
        let mut signal = vec![0.0; experts * columns];
        for (job, made) in routing.jobs.iter().zip(made) {
            for (&token, errors) in routing.order[job.tokens.clone()].iter().zip(made.errors.chunks(experts)) {
                let p = routing.probabilities(token);
                let log = |j: usize| f64::from(p[j]).ln() - f64::from(errors[j]) / (2.0 * variance);
                let logs: Vec<f64> = (0..experts).map(log).collect();
                let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = logs.iter().map(|log| (log - largest).exp()).sum();
                for (j, log) in logs.iter().enumerate() {
                    signal[j * columns + token as usize] = ((log - largest).exp() / total - f64::from(p[j])) as f32;
                }
            }
        }
        signal
    }
}

impl SwitchLayer {
    fn matrix(&self, from: &Array, start: usize, rows: usize, columns: usize, factor: f64) -> Matrix {
        let mut matrix = Matrix::from_view(&self.layer.device, from.view(start, rows, columns));
        matrix.scale(factor);
        matrix
    }
}

impl ExpertEquations for SwitchLayer {
    fn expert_layer(&self) -> ExpertLayer {
        let blocks = self.layer.layout.blocks();
        let (router, experts) = blocks.split_at(usize::from(self.layer.shape.has_router()));
        let expert = |pair: &[crate::oracle::Block]| Expert { input: pair[0].clone(), output: pair[1].clone() };
        ExpertLayer { router: router.first().cloned(), experts: experts.chunks_exact(2).map(expert).collect() }
    }

    fn expert_sums(&self, at: &Vector, rows: Rows<'_>, question: ExpertQuestion<'_>) -> Result<Answer<ExpertSums>> {
        let (selection, divisor) = self.selection(rows);
        let (layer, at, balance) = (&self.layer, at.array(), self.balance(rows));
        let shape = layer.shape;
        let places = Places::new(shape, question.with_grams);
        let is_ahead = balance > 0.0 && shape.has_router() && selection.len() > Layer::block_rows(selection.len());
        let ahead = is_ahead.then(|| layer.load_of(at, &self.train, selection));
        let mut load = super::layer::Load::none(shape.experts);
        let mut router = layer.device.zeros(shape.router());
        let mut sums: Vec<Option<(Array, f64)>> = vec![None; shape.experts];
        layer.for_blocks(at, &self.train, selection, |block, routing| {
            load.add(routing);
            let made = layer.for_jobs(routing, |device, index, room| {
                layer.job_equations(device, at, block, routing, index, room, &question)
            });
            if shape.has_router() {
                let loss: f64 = made.iter().map(|made| made.loss).sum();
                let signal = match question.signal {
                    RouterSignal::Loss => {
                        let phi: Vec<f64> =
                            ahead.as_ref().unwrap_or(&load).balance(balance).iter().map(|phi| phi * divisor).collect();
                        let gates: Vec<_> = made.iter().map(|made| &made.gates[..]).collect();
                        let mut signal = layer.logit_derivative(routing, &gates, &phi);
                        signal.iter_mut().for_each(|v| *v = -*v);
                        signal
                    }
                    RouterSignal::Responsibilities => {
                        let variance = 2.0 * loss / (block.columns * shape.outputs).max(1) as f64;
                        layer.responsibilities(routing, &made, variance.max(f64::MIN_POSITIVE))
                    }
                };
                layer.add_router(&signal, block.x.view(block.columns), &mut router);
            }
            for (job, made) in routing.jobs.iter().zip(made) {
                match &mut sums[job.expert] {
                    Some((sum, loss)) => {
                        layer.device.axpby(1.0, sum, 1.0, &made.sum);
                        *loss += made.loss;
                    }
                    empty => *empty = Some((made.sum, made.loss)),
                }
            }
        });
        let loss: f64 = sums.iter().flatten().map(|(_, loss)| loss).sum();
        let share = |(expert, sum): (usize, Option<(Array, f64)>)| {
            let (sum, loss) = sum?;
            let rows = load.tokens[expert];
            let matrix = |start, rows_, columns| self.matrix(&sum, start, rows_, columns, 1.0 / rows);
            Some(ExpertShare {
                rows: rows as usize,
                residual: 2.0 * loss / rows,
                input_right: matrix(0, shape.hidden, shape.inputs + 1),
                output_right: matrix(shape.input(), shape.outputs, shape.hidden + 1),
                grams: question.with_grams.then(|| ExpertGrams {
                    input: matrix(places.input, shape.inputs + 1, shape.inputs + 1),
                    output: matrix(places.output, shape.hidden + 1, shape.hidden + 1),
                    masks: matrix(places.masks, shape.hidden, shape.hidden),
                }),
            })
        };
        let has_router = shape.has_router();
        let router = has_router
            .then(|| self.matrix(&router, 0, shape.experts, shape.inputs + 1, 1.0 / selection.len().max(1) as f64));
        let value = loss / divisor + balance * load.imbalance();
        let experts = sums.into_iter().enumerate().map(share).collect();
        let mut cost = self.cost(selection.len(), 2.0, 1.0);
        cost.flops += selection.len() as f64 * self.extra_flops(&question);
        Ok(Answer { value: ExpertSums { value, router, experts }, cost })
    }
}

impl SwitchLayer {
    /// Operations of a row beyond those of a gradient.
    fn extra_flops(&self, question: &ExpertQuestion<'_>) -> f64 {
        let Shape { inputs, hidden, experts, .. } = self.layer.shape;
        let [_, input, output] = self.layer.shape.products();
        let mut products = 0.0;
        if question.with_grams {
            products += ((inputs + 1).pow(2) + (hidden + 1).pow(2) + hidden.pow(2)) as f64;
        }
        if let TokenStep::Proximal { steps, .. } = question.step {
            products += (steps * hidden.pow(2)) as f64;
        }
        if question.signal == RouterSignal::Responsibilities && experts > 1 {
            products += experts as f64 * (input + output);
        }
        2.0 * products
    }
}
