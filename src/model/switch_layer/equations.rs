//! Sums for a step of every block while the others are held: Gram matrices, right-hand sides and the local steps of tokens.
//!
//! The outputs `z = U x + delta` of a token that minimize `|y - p V [max(z, 0); 1]|^2 + penalty |delta|^2` with the mask
//! `D = diag 1[U x > 0]` held solve `(penalty I + p^2 D V'V D) delta = g`, `g = p D V' r`: a few steps of conjugate gradients,
//! each a product with `V'V` for all tokens of a block at once. Outside the mask `delta` is zero.

use super::SwitchLayer;
use super::layer::{Layer, Load, Pass, Room, Shape, Work};
use crate::device::{Activation, Array, Matrices, Matrix, Segment};
use crate::error::Result;
use crate::oracle::{
    Answer, Expert, ExpertEquations, ExpertGrams, ExpertLayer, ExpertQuestion, ExpertShare, ExpertSums, RouterSignal,
    Rows, TokenStep, Vector,
};

/// Where the Gram matrices of the experts lie, one expert's after another's.
#[derive(Clone, Copy)]
struct Places {
    input: Matrices,
    output: Matrices,
    masks: Matrices,
    /// Numbers of an expert.
    length: usize,
}

impl Places {
    fn new(shape: Shape) -> Self {
        let (inputs, hidden) = (shape.inputs + 1, shape.hidden + 1);
        let length = inputs.pow(2) + hidden.pow(2) + shape.hidden.pow(2);
        let square = |start: usize, size: usize| Matrices { step: length, ..Matrices::new(start, size, size) };
        Self {
            input: square(0, inputs),
            output: square(inputs.pow(2), hidden),
            masks: square(inputs.pow(2) + hidden.pow(2), shape.hidden),
            length,
        }
    }
}

/// What the tokens of all blocks add up to.
struct Sums {
    /// Both right-hand sides of every expert and the router's, where their parameters lie.
    rights: Array,
    /// Gram matrices, if they are asked for.
    grams: Option<Array>,
    /// The sum of `|r|^2` over the tokens of each expert.
    squares: Vec<f64>,
}

/// Variance of an output at least, in the layer's units, where the mean one is 1: errors over it stay finite in `f32`.
const LEAST_VARIANCE: f64 = 1e-20;

impl Layer {
    /// `V'V` without the biases, for every expert.
    fn output_squares(&self, at: &Array) -> (Array, Matrices) {
        let (experts, h) = (self.shape.experts, self.shape.hidden);
        let mut squares = self.device.zeros(experts * h * h);
        for expert in 0..experts {
            let weight = self.output_weight(at, expert);
            self.device.product(squares.view_mut(expert * h * h, h, h), false, weight.t(), weight);
        }
        (squares, Matrices::new(0, h, h))
    }

    /// Overwrites `g` by `delta`; `penalties` has one of every token.
    fn proximal(&self, pass: &Pass, work: &mut Work, squares: &(Array, Matrices), penalties: &Array, steps: usize) {
        let (t, device, n, h) = (self.tokens(), &self.device, pass.n, self.shape.hidden);
        let Work { g, wide: [delta, direction, image, other], .. } = work;
        let gate_squares = pass.gates().map(|gates| {
            let mut squares = device.zeros(n);
            device.squares(squares.view_mut(0, 1, n), gates.view(0, 1, n));
            squares
        });
        // `g` is the residual of the system, zero outside the mask, and so is every direction.
        device.copy(direction.view_mut(0, n, h), g.strided(0, n, h, h + 1));
        let mut residual = device.zeros(n * h);
        device.copy(residual.view_mut(0, n, h), direction.view(0, n, h));
        let norms = |of: &Array| t.row_dots(of.view(0, n, h), of.view(0, n, h));
        // `other = by o rows`, a number for each row.
        let scaled = |other: &mut Array, rows: &Array, by: &Array| {
            device.copy(other.view_mut(0, n, h), rows.view(0, n, h));
            t.scale_rows(other.view_mut(0, n, h), by);
        };
        let mut norm = norms(&residual);
        for step in 0..steps {
            let (to, from) = (image.view_mut(0, n, h), direction.view(0, n, h));
            t.segment_products(to, false, from, &squares.0, squares.1, false, &pass.segments);
            self.mask(pass, image, h);
            if let Some(squares) = &gate_squares {
                t.scale_rows(image.view_mut(0, n, h), squares);
            }
            scaled(other, direction, penalties);
            device.blend(1.0, image.view_mut(0, n, h), 1.0, other.view(0, n, h));
            let mut length = norm.clone();
            t.ratios(&mut length, &t.row_dots(direction.view(0, n, h), image.view(0, n, h)));
            scaled(other, direction, &length);
            if step == 0 {
                device.copy(delta.view_mut(0, n, h), other.view(0, n, h));
            } else {
                device.blend(1.0, delta.view_mut(0, n, h), 1.0, other.view(0, n, h));
            }
            if step + 1 == steps {
                break;
            }
            scaled(other, image, &length);
            device.blend(1.0, residual.view_mut(0, n, h), -1.0, other.view(0, n, h));
            let mut next = norms(&residual);
            let before = std::mem::replace(&mut norm, next.clone());
            t.ratios(&mut next, &before);
            t.scale_rows(direction.view_mut(0, n, h), &next);
            device.blend(1.0, direction.view_mut(0, n, h), 1.0, residual.view(0, n, h));
        }
        device.copy(g.strided_mut(0, n, h, h + 1), delta.view(0, n, h));
    }

    /// Adds `x x'`, `A A'` and `p^2 m m'` of the tokens of every expert.
    fn add_grams(&self, pass: &Pass, work: &mut Work, places: Places, grams: &mut Array) {
        let (t, device, shape, n) = (self.tokens(), &self.device, self.shape, pass.n);
        let hidden = shape.hidden + 1;
        let x = pass.sorted_x(shape);
        t.segment_gradients(grams, places.input, x, x, &pass.segments);
        let design = &mut work.wide[0];
        device.copy(design.view_mut(0, n, hidden), pass.a(shape));
        self.gate(pass, design, hidden);
        let a = design.view(0, n, hidden);
        t.segment_gradients(grams, places.output, a, a, &pass.segments);
        let masks = &mut work.wide[0];
        device.fill(masks, 1.0);
        self.mask(pass, masks, shape.hidden);
        self.gate(pass, masks, shape.hidden);
        let m = masks.view(0, n, shape.hidden);
        t.segment_gradients(grams, places.masks, m, m, &pass.segments);
    }

    /// `h - p` into `work.logits`, from the errors of all experts at every token; `variance` is that of an output over the block.
    fn responsibilities(&self, at: &Array, pass: &Pass, work: &mut Work, variance: f64) {
        let (t, device, shape, n) = (self.tokens(), &self.device, self.shape, pass.n);
        let Shape { hidden, outputs, experts, .. } = shape;
        let (zeros, mut errors) = (self.constants(n), device.zeros(n * experts));
        let [a, out, ..] = &mut work.wide;
        for expert in 0..experts {
            let all = [Segment { rows: 0..n, matrix: expert }];
            device.fill(a, 1.0);
            let units = a.strided_mut(0, n, hidden, hidden + 1);
            t.segment_products(units, false, pass.x(shape), at, shape.input_matrices(), false, &all);
            let units = a.strided_mut(0, n, hidden, hidden + 1);
            device.activate(Activation::Relu, units, zeros[0].view(0, 1, n), None);
            let made = out.view_mut(0, n, outputs);
            t.segment_products(made, false, a.view(0, n, hidden + 1), at, shape.output_matrices(), false, &all);
            let places: Vec<u32> = (0..n).map(|token| (token * experts + expert) as u32).collect();
            let places = t.ids(&places);
            t.scale_rows(out.view_mut(0, n, outputs), &t.take(pass.p(shape), &places));
            device.blend(-1.0, out.view_mut(0, n, outputs), 1.0, pass.y(shape));
            let r = out.view(0, n, outputs);
            t.add_at(errors.view_mut(0, n, experts), &places, &t.row_dots(r, r));
        }
        // ln p and the logits differ by the same number for all experts of a token.
        self.logits(at, pass, &mut work.logits);
        let factor = (-0.5 / variance.max(LEAST_VARIANCE)) as f32;
        device.blend(1.0, work.logits.view_mut(0, n, experts), factor, errors.view(0, n, experts));
        t.softmax_rows(work.logits.view_mut(0, n, experts), &mut device.zeros(n));
        device.blend(1.0, work.logits.view_mut(0, n, experts), -1.0, pass.p(shape));
    }

    /// Takes a block's sums in.
    fn add_equations(
        &self,
        at: &Array,
        room: &mut Room,
        question: &ExpertQuestion<'_>,
        squares: Option<&(Array, Matrices)>,
        phi: &[f64],
        sums: &mut Sums,
    ) {
        let (t, device, shape) = (self.tokens(), &self.device, self.shape);
        let n = room.pass.n;
        // `e` is the residual y - f.
        self.residual(room, Some(-1.0));
        let Room { pass, work, .. } = room;
        let e = work.e.view(0, n, shape.outputs);
        let own = t.row_dots(e, e);
        let own = device.download(own.view(0, 1, n));
        let mut total = 0.0;
        for segment in &pass.segments {
            let sum: f64 = own[segment.rows.clone()].iter().map(|&square| f64::from(square)).sum();
            sums.squares[segment.matrix] += sum;
            total += sum;
        }
        self.descend(at, pass, work);
        if let (TokenStep::Proximal { penalties, steps }, Some(squares)) = (question.step, squares) {
            let of = pass.segments.iter().flat_map(|s| std::iter::repeat_n(penalties[s.matrix] as f32, s.rows.len()));
            let of: Vec<f32> = of.collect();
            let mut penalties = device.zeros(n);
            device.upload(penalties.view_mut(0, 1, n), &of);
            self.proximal(pass, work, squares, &penalties, steps);
        }
        self.add_products(pass, work, &mut sums.rights);
        if shape.has_router() {
            match question.signal {
                RouterSignal::Loss => {
                    // Minus the derivative: `e` is minus that of the loss in the outputs.
                    let along = self.along_gate(pass, work);
                    let against: Vec<f64> = phi.iter().map(|phi| -phi).collect();
                    self.logit_derivative(pass, &along, &against, work);
                }
                RouterSignal::Responsibilities => {
                    let variance = total / (n * shape.outputs).max(1) as f64;
                    self.responsibilities(at, pass, work, variance);
                }
            }
            self.add_router(work.logits(n, shape), pass.x(shape), &mut sums.rights);
        }
        if let Some(grams) = &mut sums.grams {
            self.add_grams(pass, work, Places::new(shape), grams);
        }
    }
}

impl SwitchLayer {
    fn matrix(&self, from: &Array, of: Matrices, index: usize, factor: f64) -> Matrix {
        let view = from.view(of.range(index).start, of.rows, of.columns);
        let mut matrix = Matrix::from_view(&self.layer.device, view);
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
        let places = Places::new(shape);
        let ahead = layer.load_ahead(at, &self.train, selection, balance);
        let squares = matches!(question.step, TokenStep::Proximal { .. }).then(|| layer.output_squares(at));
        let mut load = Load::none(shape.experts);
        let mut sums = Sums {
            rights: layer.device.zeros(layer.layout.len()),
            grams: question.with_grams.then(|| layer.device.zeros(shape.experts * places.length)),
            squares: vec![0.0; shape.experts],
        };
        layer.for_blocks(at, &self.train, selection, |room| {
            layer.add_load(&room.pass, &mut load);
            let phi = ahead.as_ref().unwrap_or(&load).balance(balance);
            let phi: Vec<f64> = phi.into_iter().map(|phi| phi * divisor).collect();
            layer.add_equations(at, room, &question, squares.as_ref(), &phi, &mut sums);
        });
        layer.device.check()?;
        let share = |expert: usize| {
            let rows = load.tokens[expert];
            let factor = 1.0 / rows;
            (rows > 0.0).then(|| ExpertShare {
                rows: rows as usize,
                residual: sums.squares[expert] * factor,
                input_right: self.matrix(&sums.rights, shape.input_matrices(), expert, factor),
                output_right: self.matrix(&sums.rights, shape.output_matrices(), expert, factor),
                grams: sums.grams.as_ref().map(|grams| ExpertGrams {
                    input: self.matrix(grams, places.input, expert, factor),
                    output: self.matrix(grams, places.output, expert, factor),
                    masks: self.matrix(grams, places.masks, expert, factor),
                }),
            })
        };
        let of_all = 1.0 / selection.len().max(1) as f64;
        let router = shape.has_router().then(|| self.matrix(&sums.rights, shape.router_matrix(), 0, of_all));
        let value = 0.5 * sums.squares.iter().sum::<f64>() / divisor + balance * load.imbalance();
        let experts = (0..shape.experts).map(share).collect();
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
