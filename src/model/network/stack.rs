//! Layers one upon another, and what is kept while a block of rows passes through them.

use super::layer::Dense;
use crate::device::array::{View, ViewMut};
use crate::device::{Activation, Array, Backend, Device, Job, Loss};
pub(super) use crate::model::sheet::Sheet;
use crate::oracle::Layout;
use std::sync::{Arc, Mutex, PoisonError};

/// The layers of a network, from the inputs up.
#[derive(Debug)]
pub(super) struct Stack {
    pub device: Device,
    pub layers: Vec<Dense>,
    pub layout: Arc<Layout>,
    pub loss: Loss,
    /// Numbers of one example's target; 0 where the inputs are the targets.
    targets: usize,
    /// Zeros for the tangent of a function without a bias.
    pub zeros: Array,
    /// Blocks' memory, to be used again.
    pool: Mutex<Vec<Work>>,
}

/// Inputs, targets and what every layer made of them.
#[derive(Debug)]
pub(super) struct Pass {
    pub inputs: Sheet,
    /// None where the inputs are the targets.
    pub targets: Option<Sheet>,
    pub values: Vec<Sheet>,
    /// Slopes of layers whose values do not tell them.
    slopes: Vec<Option<Sheet>>,
}

/// Room for what goes up (tangents) or down (derivatives): two sheets, in turns, and two for squares.
#[derive(Debug)]
pub(super) struct Flow {
    pub sheets: [Sheet; 2],
    squares: Option<[Sheet; 2]>,
    rows: usize,
}

/// The memory of one block.
#[derive(Debug)]
pub(super) struct Work {
    pub pass: Pass,
    pub flow: Flow,
}

/// Blocks' memory that is kept between jobs.
const KEPT_WORK: usize = 64;

impl Stack {
    /// Layers of the given widths, inputs first.
    pub fn new(device: Device, widths: &[usize], hidden: &[Activation], last: Activation, loss: Loss) -> Self {
        let mut layers = Vec::new();
        let mut start = 0;
        for (i, pair) in widths.windows(2).enumerate() {
            let activation = hidden.get(i).copied().unwrap_or(last);
            let layer = Dense { inputs: pair[0], outputs: pair[1], activation, start };
            start = layer.range().end;
            layers.push(layer);
        }
        let names: Vec<_> =
            (1..=layers.len()).map(|i| [format!("layer{i}.weight"), format!("layer{i}.bias")]).collect();
        let shapes = layers.iter().zip(&names).flat_map(|(layer, [weight, bias])| {
            [(weight.as_str(), layer.outputs, layer.inputs), (bias.as_str(), 1, layer.outputs)]
        });
        let layout = Layout::on(&device, shapes);
        let outputs = widths.last().copied().unwrap_or_default();
        let targets = if loss == Loss::Softmax { 1 } else { outputs };
        let zeros = device.zeros(widths.iter().copied().max().unwrap_or_default());
        Self { layout, layers, loss, targets, zeros, device, pool: Mutex::default() }
    }

    /// The same with the inputs as targets.
    pub fn reconstructing(self) -> Self {
        Self { targets: 0, ..self }
    }

    pub fn inputs(&self) -> usize {
        self.layers[0].inputs
    }

    pub fn outputs(&self) -> usize {
        self.layers[self.layers.len() - 1].outputs
    }

    /// A job over `rows` rows that add up to `sum` numbers.
    pub fn job(&self, rows: usize, sum: usize) -> Job {
        let units: usize = self.layers.iter().map(|layer| layer.outputs).sum();
        let width = self.inputs() + self.targets + units + 2 * self.widest();
        Job { rows, width, sum, parameters: self.layout.len() }
    }

    pub fn widest(&self) -> usize {
        self.layers.iter().map(|layer| layer.outputs.max(layer.inputs)).max().unwrap_or_default()
    }

    /// Multiplications of one row with all weights: the unit in which costs are stated.
    pub fn weights(&self) -> f64 {
        self.layers.iter().map(|layer| (layer.inputs * layer.outputs) as f64).sum()
    }

    /// Multiplications with the weights of all layers but the first, whose inputs have no derivative.
    pub fn upper_weights(&self) -> f64 {
        self.weights() - (self.layers[0].inputs * self.layers[0].outputs) as f64
    }

    pub fn new_pass(&self, rows: usize) -> Pass {
        let sheet = |units| Sheet::new(&self.device, units, rows);
        Pass {
            inputs: sheet(self.inputs()),
            targets: (self.targets > 0).then(|| sheet(self.targets)),
            values: self.layers.iter().map(|layer| sheet(layer.outputs)).collect(),
            slopes: self
                .layers
                .iter()
                .map(|layer| (!layer.activation.slope_follows_from_value()).then(|| sheet(layer.outputs)))
                .collect(),
        }
    }

    /// Runs `f` with the memory of a block of up to `rows` rows.
    pub fn with_work<R>(&self, rows: usize, f: impl FnOnce(&mut Work) -> R) -> R {
        let take =
            |pool: &mut Vec<Work>| pool.iter().position(|work| work.flow.rows == rows).map(|i| pool.swap_remove(i));
        let pooled = take(&mut self.pool.lock().unwrap_or_else(PoisonError::into_inner));
        let mut work = pooled.unwrap_or_else(|| {
            let sheets = [(); 2].map(|()| Sheet::new(&self.device, self.widest(), rows));
            Work { pass: self.new_pass(rows), flow: Flow { sheets, squares: None, rows } }
        });
        let result = f(&mut work);
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.len() == KEPT_WORK {
            pool.remove(0);
        }
        pool.push(work);
        result
    }

    /// Fills `pass` from its inputs.
    pub fn forward(&self, device: &dyn Backend, at: &Array, pass: &mut Pass, columns: usize) {
        for (l, layer) in self.layers.iter().enumerate() {
            let (below, from) = pass.values.split_at_mut(l);
            let x = below.last().unwrap_or(&pass.inputs).view(columns);
            let slope = pass.slopes[l].as_mut().map(|slope| slope.view_mut(columns));
            layer.forward(device, at, x, from[0].view_mut(columns), slope);
        }
    }

    /// The sum of losses of a block; with a flow, a factor times the derivative in the last layer's linear outputs goes
    /// into it.
    pub fn loss(&self, device: &dyn Backend, pass: &Pass, flow: Option<(&mut Flow, f32)>, columns: usize) -> f64 {
        let (outputs, targets) = (pass.outputs(columns), pass.targets(columns));
        let Some((flow, factor)) = flow else { return device.loss(self.loss, outputs, targets, None) };
        let mut d = flow.sheets[0].part_mut(self.outputs(), columns);
        let loss = device.loss(self.loss, outputs, targets, Some((d.again(), factor)));
        self.through_last_slopes(device, pass, d, columns);
        loss
    }

    /// Multiplies by the last layer's slopes.
    fn through_last_slopes(&self, device: &dyn Backend, pass: &Pass, d: ViewMut<'_>, columns: usize) {
        let last = self.layers.len() - 1;
        let h = self.layers[last].activation;
        if h != Activation::Identity {
            device.tangent(h, d, self.zeros.view(0, 1, self.outputs()), pass.kept(last, columns));
        }
    }

    /// The sum of squared differences between an autoencoder's reconstructions, sigmoids of its linear outputs, and its
    /// targets.
    pub fn squared_error(&self, device: &dyn Backend, work: &mut Work, columns: usize) -> f64 {
        let last = self.layers.len() - 1;
        let outputs = &mut work.pass.values[last];
        if self.layers[last].activation == Activation::Identity {
            device.activate(
                Activation::Sigmoid,
                outputs.view_mut(columns),
                self.zeros.view(0, 1, self.outputs()),
                None,
            );
        }
        2.0 * device.loss(Loss::Squared, work.pass.outputs(columns), work.pass.targets(columns), None)
    }

    /// The Gram matrix of a layer's inputs and a constant one, weighted by the loss's second derivative or by one, as the
    /// numbers of `sum` from a place on, added with `keep`: the lower triangle, and of the rest whatever is at hand.
    #[expect(clippy::too_many_arguments, reason = "what meets in a Gram matrix")]
    pub fn gram(
        &self,
        device: &dyn Backend,
        work: &mut Work,
        layer: usize,
        columns: usize,
        is_weighted: bool,
        (sum, start): (&mut Array, usize),
        keep: bool,
    ) {
        let inputs = self.layers[layer].inputs;
        let new = || [(); 2].map(|()| Sheet::new(&self.device, self.widest(), work.flow.rows));
        let [weights, weighted] = work.flow.squares.get_or_insert_with(new);
        let z = if layer == 0 { &work.pass.inputs } else { &work.pass.values[layer - 1] };
        device.upload(weights.part_mut(1, columns), &vec![1.0; columns]);
        let left = if is_weighted {
            device.loss_curvature(self.loss, work.pass.outputs(columns), weights.part_mut(1, columns), 1.0);
            device.scale_columns(weighted.part_mut(inputs, columns), z.view(columns), weights.part(1, columns));
            &*weighted
        } else {
            z
        };
        gram(device, left, z, inputs, columns, (&mut *sum, start), keep);
        device.row_sums(sum.view_mut(start + inputs * (inputs + 2), 1, 1), keep, weights.part(1, columns));
    }

    /// Sends the derivative in `flow` down; the gradient of every layer goes to `sum`, added with `keep`. With `squared`, the
    /// squares of every example's gradient instead.
    #[expect(clippy::too_many_arguments, reason = "what meets on the way down")]
    pub fn backward(
        &self,
        device: &dyn Backend,
        at: &Array,
        pass: &Pass,
        flow: &mut Flow,
        columns: usize,
        squared: bool,
        sum: &mut Array,
        keep: bool,
    ) {
        self.descend(device, at, pass, flow, columns, |l, flow, here| {
            let (layer, x) = (&self.layers[l], pass.below(l, columns));
            let d = flow.sheets[here].part(layer.outputs, columns);
            if squared {
                let new = || [(); 2].map(|()| Sheet::new(&self.device, self.widest(), flow.rows));
                let [d2, x2] = flow.squares.get_or_insert_with(new);
                device.squares(d2.part_mut(layer.outputs, columns), d);
                device.squares(x2.part_mut(layer.inputs, columns), x);
                let (d2, x2) = (d2.part(layer.outputs, columns), x2.part(layer.inputs, columns));
                layer.gradient(device, d2, x2, sum, keep);
            } else {
                layer.gradient(device, d, x, sum, keep);
            }
        });
    }

    /// Sends the derivative in `flow` down. `visit` meets every layer by its number, from the last one down, with the flow and
    /// which of its sheets then holds the derivative in that layer's linear outputs.
    fn descend(
        &self,
        device: &dyn Backend,
        at: &Array,
        pass: &Pass,
        flow: &mut Flow,
        columns: usize,
        mut visit: impl FnMut(usize, &mut Flow, usize),
    ) {
        let (mut here, mut there) = (0, 1);
        for (l, layer) in self.layers.iter().enumerate().rev() {
            visit(l, flow, here);
            if l > 0 {
                let [first, second] = &mut flow.sheets;
                let (from, to) = if here == 0 { (first, second) } else { (second, first) };
                let below = &self.layers[l - 1];
                layer.backpropagate(
                    device,
                    at,
                    from.part(layer.outputs, columns),
                    below.activation,
                    pass.kept(l - 1, columns),
                    to.part_mut(below.outputs, columns),
                );
                std::mem::swap(&mut here, &mut there);
            }
        }
    }

    /// Sends the derivative in `flow` down; for every layer the sum of `x x'`, without its last column and corner, and the
    /// sum of `d d'` go to `sum` one after another, added with `keep`.
    pub fn second_moments(
        &self,
        device: &dyn Backend,
        at: &Array,
        work: &mut Work,
        columns: usize,
        sum: &mut Array,
        keep: bool,
    ) {
        let Work { pass, flow } = work;
        let places = self.moments();
        self.descend(device, at, pass, flow, columns, |l, flow, here| {
            let (layer, x) = (&self.layers[l], pass.below(l, columns));
            let d = flow.sheets[here].part(layer.outputs, columns);
            let ([of_x, of_d], size) = (places[l], layer.inputs + 1);
            device.product(sum.strided_mut(of_x, layer.inputs, layer.inputs, size), keep, x, x.t());
            device.row_sums(sum.view_mut(of_x + layer.inputs * size, 1, layer.inputs), keep, x);
            device.product(sum.view_mut(of_d, layer.outputs, layer.outputs), keep, d, d.t());
        });
    }

    /// Where the second moments of every layer's inputs and derivatives begin in the sum of [`Stack::second_moments`].
    pub fn moments(&self) -> Vec<[usize; 2]> {
        let mut end = 0;
        let place = |layer: &Dense| {
            let of_x = end;
            let of_d = of_x + (layer.inputs + 1).pow(2);
            end = of_d + layer.outputs.pow(2);
            [of_x, of_d]
        };
        self.layers.iter().map(place).collect()
    }

    /// The derivative of every example's loss in the last layer's linear outputs into `flow`, at targets that the model itself
    /// draws by the numbers in `noise`, `units x columns`.
    pub fn drawn_derivative(
        &self,
        device: &dyn Backend,
        pass: &Pass,
        flow: &mut Flow,
        columns: usize,
        (units, noise): (usize, &[f32]),
    ) {
        let [first, second] = &mut flow.sheets;
        device.upload(second.part_mut(units, columns), noise);
        let mut d = first.part_mut(self.outputs(), columns);
        device.sampled_residual(self.loss, pass.outputs(columns), second.part(units, columns), d.again());
        self.through_last_slopes(device, pass, d, columns);
    }

    /// The tangent of the outputs along `along`, into `flow`'s first sheet.
    pub fn tangent(
        &self,
        device: &dyn Backend,
        at: &Array,
        along: &Array,
        pass: &Pass,
        flow: &mut Flow,
        columns: usize,
    ) {
        for (l, layer) in self.layers.iter().enumerate() {
            // The last tangent comes to lie in the first sheet, where the way down begins.
            let is_first = (self.layers.len() - 1 - l).is_multiple_of(2);
            let [first, second] = &mut flow.sheets;
            let (to, from) = if is_first { (first, second) } else { (second, first) };
            let (x, tangent_of_x) = match l {
                0 => (pass.inputs.view(columns), None),
                _ => (pass.values[l - 1].view(columns), Some(from.part(layer.inputs, columns))),
            };
            let t = to.part_mut(layer.outputs, columns);
            layer.tangent(device, at, along, x, tangent_of_x, pass.kept(l, columns), t);
        }
    }

    /// Turns the tangent `J v` in `flow` into the start of `factor J' H J v`: multiplied by the loss's Hessian and the last
    /// slopes.
    pub fn through_loss(&self, device: &dyn Backend, pass: &Pass, flow: &mut Flow, columns: usize, factor: f32) {
        let mut t = flow.sheets[0].part_mut(self.outputs(), columns);
        device.loss_curvature(self.loss, pass.outputs(columns), t.again(), factor);
        self.through_last_slopes(device, pass, t, columns);
    }
}

impl Pass {
    /// The last layer's values.
    pub fn outputs(&self, columns: usize) -> View<'_> {
        self.values[self.values.len() - 1].view(columns)
    }

    /// What the loss compares outputs with.
    pub fn targets(&self, columns: usize) -> View<'_> {
        self.targets.as_ref().unwrap_or(&self.inputs).view(columns)
    }

    /// The values of layer `l`, counted from 0.
    pub fn values(&self, l: usize, columns: usize) -> View<'_> {
        self.values[l].view(columns)
    }

    /// The values that layer `l` works on.
    pub fn below(&self, l: usize, columns: usize) -> View<'_> {
        if l == 0 { self.inputs.view(columns) } else { self.values(l - 1, columns) }
    }

    /// What layer `l` keeps for its slopes.
    pub fn kept(&self, l: usize, columns: usize) -> View<'_> {
        self.slopes[l].as_ref().unwrap_or(&self.values[l]).view(columns)
    }
}

/// Units of a Gram matrix that are multiplied together.
const GRAM_UNITS: usize = 80;

/// The lower triangle of the Gram matrix of `left` with `right`, the one a multiple of the other column by column, and of
/// `left` with a constant one, `(units + 1) x (units + 1)`, from a place of `sum` on; its last corner is left out.
pub(super) fn gram(
    device: &dyn Backend,
    left: &Sheet,
    right: &Sheet,
    units: usize,
    columns: usize,
    (sum, start): (&mut Array, usize),
    keep: bool,
) {
    let size = units + 1;
    for first in (0..units).step_by(GRAM_UNITS) {
        let end = (first + GRAM_UNITS).min(units);
        let out = sum.strided_mut(start + first * size, end - first, end, size);
        device.product(out, keep, left.units(first..end, columns), right.units(0..end, columns).t());
    }
    let last = start + units * size;
    device.row_sums(sum.view_mut(last, 1, units), keep, left.part(units, columns));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::Cpu;

    /// Uploads a wave of an array's length.
    fn wave(device: &Device, array: &mut Array, phase: f32) {
        let values: Vec<f32> = (0..array.len()).map(|i| (0.37 * i as f32 + phase).sin()).collect();
        device.upload(array.view_mut(0, 1, values.len()), &values);
    }

    #[test]
    fn tangents_and_adjoints_of_every_activation_are_each_others_transpose() {
        for h in [Activation::Identity, Activation::Relu, Activation::Tanh, Activation::Sigmoid, Activation::Gelu] {
            for (outputs, columns) in [(1, 70), (3, 33)] {
                let device = Device::new(Cpu::default());
                let last = if outputs == 1 { Activation::Identity } else { h };
                let stack = Stack::new(device.clone(), &[6, 9, 5, outputs], &[h, h], last, Loss::Squared);
                let parameters = stack.layout.len();
                let (mut at, mut v) = (device.zeros(parameters), device.zeros(parameters));
                wave(&device, &mut at, 0.1);
                wave(&device, &mut v, 1.3);
                stack.with_work(columns, |work| {
                    wave(&device, &mut work.pass.inputs.array, 0.7);
                    stack.forward(&*device, &at, &mut work.pass, columns);
                    stack.tangent(&*device, &at, &v, &work.pass, &mut work.flow, columns);
                    let jv = device.download(work.flow.sheets[0].part(outputs, columns));
                    // u goes down from the outputs: through the last slopes, then layer by layer.
                    wave(&device, &mut work.flow.sheets[0].array, 2.9);
                    let u = device.download(work.flow.sheets[0].part(outputs, columns));
                    let d = work.flow.sheets[0].part_mut(outputs, columns);
                    stack.through_last_slopes(&*device, &work.pass, d, columns);
                    let mut sum = device.zeros(parameters);
                    stack.backward(&*device, &at, &work.pass, &mut work.flow, columns, false, &mut sum, false);
                    let left: f64 = jv.iter().zip(&u).map(|(a, b)| f64::from(a * b)).sum();
                    let right = device.dot(&v, &sum, 0..parameters);
                    let size: f64 = jv.iter().zip(&u).map(|(a, b)| f64::from((a * b).abs())).sum();
                    assert!((left - right).abs() < 1e-5 * size, "{h:?}, {outputs} outputs: {left} {right}");
                });
            }
        }
    }
}
