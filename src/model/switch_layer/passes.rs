//! Value, gradient, squared gradients and Gauss-Newton products of the layer.
//!
//! With `e` the derivative of the loss in a token's output, its expert `i` and gate `p_i`: `dL/dV = (p_i e) [a; 1]'`,
//! `dL/dU = g x'` with `g = p_i V' e o 1[a > 0]`, and in the logits `dL/du_k = <e, V [a; 1]> p_i ([k = i] - p_k)`. The balance
//! `alpha E sum_k f_k P_k` has the derivative `p_k (phi_k - sum_j phi_j p_j)`, `phi = alpha E f / n`: the shares `f` of tokens
//! have none. Both are the adjoint of softmax at `<e, V [a; 1]> [k = i] + phi_k`. A Gauss-Newton product holds the experts that
//! were chosen; the balance is linear in `P` and adds nothing to it.

use super::SwitchLayer;
use super::layer::{Layer, Load, Part, Pass, Room, Work};
use crate::device::{Array, Selection};
use crate::error::Result;
use crate::oracle::{Answer, Cost, Curvature, CurvatureMatrix, Gradient, Rows, SquaredGradients, Value, Vector};

/// What a pass over rows adds up to.
pub(super) struct PassSum {
    /// The sum of losses.
    pub loss: f64,
    /// How the rows spread over experts.
    pub load: Load,
}

impl Layer {
    fn nothing(&self) -> PassSum {
        PassSum { loss: 0.0, load: Load::none(self.shape.experts) }
    }

    /// How rows spread over experts at a point, if derivatives of the balance are asked for and more than one block has part in
    /// it: the shares of all rows must be known before the first derivative.
    pub fn load_ahead(&self, at: &Array, part: &Part, rows: Selection<'_>, balance: f64) -> Option<Load> {
        let is_ahead = balance > 0.0 && self.shape.has_router() && rows.len() > self.block_tokens(rows.len());
        is_ahead.then(|| {
            let mut load = Load::none(self.shape.experts);
            self.for_loads(at, part, rows, |pass| self.add_load(pass, &mut load));
            load
        })
    }

    /// How a part's rows spread over experts, and the mean entropy of their probabilities, in nats.
    pub fn load_and_entropy(&self, at: &Array, part: &Part) -> (Load, f64) {
        let (mut load, mut entropy) = (Load::none(self.shape.experts), 0.0);
        self.for_loads(at, part, Selection::Range(0, part.rows()), |pass| {
            self.add_load(pass, &mut load);
            entropy += self.entropy(pass);
        });
        (load, entropy / part.rows().max(1) as f64)
    }

    /// The sum of losses over rows of a part.
    pub fn loss(&self, at: &Array, part: &Part, rows: Selection<'_>) -> PassSum {
        let mut total = self.nothing();
        self.for_blocks(at, part, rows, |room| {
            total.loss += self.residual(room, None);
            self.add_load(&room.pass, &mut total.load);
        });
        total
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
        let ahead = self.load_ahead(at, part, rows, balance);
        let mut total = self.nothing();
        self.for_blocks(at, part, rows, |room| {
            total.loss += self.residual(room, Some(factor as f32));
            let Room { pass, work, .. } = room;
            self.add_load(pass, &mut total.load);
            self.descend(at, pass, work);
            self.add_products(pass, work, gradient);
            if self.shape.has_router() {
                let along = self.along_gate(pass, work);
                let phi = ahead.as_ref().unwrap_or(&total.load).balance(balance);
                self.logit_derivative(pass, &along, &phi, work);
                self.add_router(work.logits(pass.n, self.shape), pass.x(self.shape), gradient);
            }
        });
        total
    }

    /// The sum over rows of squared gradients of their losses.
    fn squares_of(&self, at: &Array, part: &Part, rows: Selection<'_>, squares: &mut Array) {
        let (device, shape) = (&self.device, self.shape);
        let (inputs, hidden) = (shape.inputs + 1, shape.hidden + 1);
        device.fill(squares, 0.0);
        self.for_blocks(at, part, rows, |room| {
            self.residual(room, Some(1.0));
            let Room { pass, work, .. } = room;
            let n = pass.n;
            self.descend(at, pass, work);
            let [g, x, d, a] = &mut work.wide;
            device.squares(g.view_mut(0, n, shape.hidden), work.g.strided(0, n, shape.hidden, hidden));
            device.squares(x.view_mut(0, n, inputs), pass.sorted_x(shape));
            device.squares(d.view_mut(0, n, shape.outputs), work.d.view(0, n, shape.outputs));
            device.squares(a.view_mut(0, n, hidden), pass.a(shape));
            let (g, x) = (g.view(0, n, shape.hidden), x.view(0, n, inputs));
            self.add_experts(pass, [g, x, d.view(0, n, shape.outputs), a.view(0, n, hidden)], squares);
            if shape.has_router() {
                let along = self.along_gate(pass, work);
                self.logit_derivative(pass, &along, &[], work);
                let [left, x, ..] = &mut work.wide;
                device.squares(x.view_mut(0, n, inputs), pass.x(shape));
                device.squares(left.view_mut(0, n, shape.experts), work.logits.view(0, n, shape.experts));
                self.add_router(left.view(0, n, shape.experts), x.view(0, n, inputs), squares);
            }
        });
    }
}

/// Forward passes of a curvature batch are kept up to this size.
const KEPT_BYTES: usize = 512 << 20;

struct LayerCurvature<'a> {
    problem: &'a SwitchLayer,
    at: Vector,
    rows: Rows<'a>,
    /// The blocks; empty where they would not fit.
    kept: Vec<Pass>,
}

impl LayerCurvature<'_> {
    /// Adds a block's part of `G v` to `product`, `factor` one by the number of rows.
    fn add(&self, pass: &Pass, work: &mut Work, v: &Array, factor: f32, product: &mut Array) {
        let layer = &self.problem.layer;
        let (t, device, shape, at, n) = (layer.tokens(), &layer.device, layer.shape, self.at.array(), pass.n);
        let (outputs, hidden) = (shape.outputs, shape.hidden);
        // The tangent of the output: p (V t + V_v a) + dp V a, with t = (U_v x) o 1[a > 0].
        let [t_a, ..] = &mut work.wide;
        let (x, a, segments) = (pass.sorted_x(shape), pass.a(shape), &pass.segments);
        // The constant one has no tangent.
        let zeros = layer.constants(n);
        device.copy(t_a.strided_mut(hidden, n, 1, hidden + 1), zeros[0].view(0, n, 1));
        let units = t_a.strided_mut(0, n, hidden, hidden + 1);
        t.segment_products(units, false, x, v, shape.input_matrices(), false, segments);
        layer.mask(pass, t_a, hidden + 1);
        let output = shape.output_matrices();
        t.segment_products(work.e.view_mut(0, n, outputs), false, a, v, output, false, segments);
        let tangent = t_a.view(0, n, hidden + 1);
        t.segment_products(work.e.view_mut(0, n, outputs), true, tangent, at, output, false, segments);
        layer.gate(pass, &mut work.e, outputs);
        if shape.has_router() {
            layer.logits(v, pass, &mut work.logits);
            layer.softmax_tangent(pass, &mut work.logits);
            let d_gates = t.take(work.logits.view(0, n, shape.experts), &pass.routes().elements);
            device.copy(work.d.view_mut(0, n, outputs), pass.out.view(0, n, outputs));
            t.scale_rows(work.d.view_mut(0, n, outputs), &d_gates);
            device.blend(1.0, work.e.view_mut(0, n, outputs), 1.0, work.d.view(0, n, outputs));
        }
        device.scale(&mut work.e, factor);
        layer.descend(at, pass, work);
        layer.add_products(pass, work, product);
        if shape.has_router() {
            let along = layer.along_gate(pass, work);
            layer.logit_derivative(pass, &along, &[], work);
            layer.add_router(work.logits(n, shape), pass.x(shape), product);
        }
    }
}

impl Curvature for SwitchLayer {
    fn curvature_at<'a>(&'a self, at: &Vector, rows: Rows<'a>) -> Result<Answer<Box<dyn CurvatureMatrix + 'a>>> {
        let (selection, _) = self.selection(rows);
        let layer = &self.layer;
        let mut kept = Vec::new();
        if selection.len() * layer.shape.numbers() * size_of::<f32>() <= KEPT_BYTES {
            for piece in layer.pieces(selection) {
                let mut pass = layer.new_pass(piece.len());
                layer.load(&self.train, piece, &mut pass);
                layer.route(at.array(), &mut pass);
                layer.forward(at.array(), &mut pass);
                kept.push(pass);
            }
        }
        layer.device.check()?;
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
        let mut forward = 0.0;
        if self.kept.is_empty() {
            forward = 1.0;
            layer.for_blocks(self.at.array(), &self.problem.train, selection, |Room { pass, work, .. }| {
                self.add(pass, work, v.array(), factor, product.array_mut());
            });
        } else {
            let mut kept = self.kept.iter();
            layer.for_pieces(selection, |_, room| {
                if let Some(pass) = kept.next() {
                    self.add(pass, &mut room.work, v.array(), factor, product.array_mut());
                }
            });
        }
        layer.device.check()?;
        Ok(self.problem.cost(selection.len(), 2.0 + forward, 2.0))
    }
}

impl Value for SwitchLayer {
    fn value(&self, at: &Vector, rows: Rows<'_>) -> Result<Answer<f64>> {
        let (selection, divisor) = self.selection(rows);
        let sum = self.layer.loss(at.array(), &self.train, selection);
        self.layer.device.check()?;
        let value = sum.loss / divisor + self.balance(rows) * sum.load.imbalance();
        Ok(Answer { value, cost: self.cost(selection.len(), 1.0, 0.0) })
    }
}

impl Gradient for SwitchLayer {
    fn value_and_gradient(&self, at: &Vector, rows: Rows<'_>, gradient: &mut Vector) -> Result<Answer<f64>> {
        let (selection, divisor) = self.selection(rows);
        let weights = (divisor.recip(), self.balance(rows));
        let sum = self.layer.gradient_of(at.array(), &self.train, selection, weights, gradient.array_mut());
        self.layer.device.check()?;
        let value = sum.loss / divisor + weights.1 * sum.load.imbalance();
        Ok(Answer { value, cost: self.cost(selection.len(), 2.0, 1.0) })
    }
}

impl SquaredGradients for SwitchLayer {
    fn mean_squared_gradient(&self, at: &Vector, rows: Rows<'_>, squares: &mut Vector) -> Result<Cost> {
        let (selection, _) = self.selection(rows);
        self.layer.squares_of(at.array(), &self.train, selection, squares.array_mut());
        self.layer.device.check()?;
        squares.scale(1.0 / selection.len().max(1) as f64);
        Ok(self.cost(selection.len(), 2.0, 1.0))
    }
}
