//! Activations, outputs and multipliers of every training row, by row blocks, and local steps on them.
//!
//! *Activations.* With `h = max(z_l, 0)`, `a_l = h + P (z_{l+1} - b_{l+1} - W h)` for `W = W_{l+1}` and
//! `P = (W'W + g I)^-1 W' = W'(W W' + g I)^-1`, `g = gamma/beta`: the smaller of the two systems is solved, once for all rows.
//! *Last outputs.* `z = argmin l(z) + <z, lambda> + beta |z - m|^2` is a proximal step of the loss at `m - lambda/(2 beta)` in
//! the metric `I/(2 beta)`.

use super::Part;
use super::splitting::{constant_metric, symmetric};
use super::stack::{Sheet, Stack, gram};
use crate::device::cpu::linalg;
use crate::device::{Activation, Array, Backend, Job, Selection};
use crate::error::Result;
use crate::oracle::{Answer, Cost, Fit, LocalStep, LocalSums, LocalVariables, Vector};
use ndarray::Array2;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// The variables of one block of rows.
struct BlockVariables {
    /// `a_l` of hidden layers.
    activations: Vec<Sheet>,
    /// `z_l` of all layers.
    outputs: Vec<Sheet>,
    multipliers: Sheet,
    rows: Range<usize>,
}

impl BlockVariables {
    /// All sheets in the order of the state.
    fn sheets(&self) -> impl Iterator<Item = &Sheet> {
        self.activations.iter().chain(&self.outputs).chain([&self.multipliers])
    }

    fn sheets_mut(&mut self) -> impl Iterator<Item = &mut Sheet> {
        self.activations.iter_mut().chain(&mut self.outputs).chain([&mut self.multipliers])
    }
}

/// The variables of all rows.
pub(super) struct RowBlocks {
    stack: Arc<Stack>,
    train: Arc<Part>,
    blocks: Vec<Mutex<BlockVariables>>,
    size: usize,
}

/// Numbers that a step adds up beside matrices: gaps of activations and outputs, change, loss, multipliers' product, units above
/// zero.
type Scalars = [f64; 6];

/// What all blocks share in a visit.
struct Visit<'a> {
    stack: &'a Stack,
    at: &'a Array,
    steps: &'a [LocalStep],
    /// `P` of every step of activations.
    pulls: Vec<Option<Array>>,
    /// `I/(2 beta)` of every step of last outputs.
    metrics: Vec<Option<Sheet>>,
    /// Where the sums of every fit begin.
    places: Vec<usize>,
}

fn job(stack: &Stack, rows: usize, sum: usize) -> Job {
    let job = stack.job(rows, sum);
    Job { width: job.width + 2 * units(stack), ..job }
}

fn units(stack: &Stack) -> usize {
    stack.layers.iter().map(|layer| layer.outputs).sum()
}

impl RowBlocks {
    /// Bytes that the variables of so many rows take.
    pub fn bytes(stack: &Stack, rows: usize) -> usize {
        rows.saturating_mul(2 * units(stack) * size_of::<f32>())
    }

    pub fn new(stack: &Arc<Stack>, train: &Arc<Part>) -> Self {
        let rows = train.rows.len();
        let size = stack.device.block_rows(job(stack, rows, 0));
        let hidden = stack.layers.len() - 1;
        let blocks = (0..rows.div_ceil(size)).map(|i| {
            let rows = i * size..((i + 1) * size).min(rows);
            let sheet = |units| Sheet::new(&stack.device, units, rows.len());
            Mutex::new(BlockVariables {
                activations: stack.layers[..hidden].iter().map(|layer| sheet(layer.outputs)).collect(),
                outputs: stack.layers.iter().map(|layer| sheet(layer.outputs)).collect(),
                multipliers: sheet(stack.outputs()),
                rows,
            })
        });
        Self { blocks: blocks.collect(), stack: Arc::clone(stack), train: Arc::clone(train), size }
    }

    /// Replaces every number: `value(sheet, unit, row)` with sheets in the order of the state, block after block.
    fn set(&mut self, mut value: impl FnMut(usize, usize, usize) -> f32) {
        for block in &mut self.blocks {
            let block = block.get_mut().unwrap_or_else(PoisonError::into_inner);
            let rows = block.rows.clone();
            for (i, (sheet, units)) in block.sheets_mut().zip(&widths_of(&self.stack)).enumerate() {
                let values: Vec<f32> = (0..*units)
                    .flat_map(|unit| rows.clone().map(move |row| (unit, row)))
                    .map(|(u, r)| value(i, u, r))
                    .collect();
                self.stack.device.upload(sheet.view_mut(rows.len()), &values);
            }
        }
    }
}

/// Units of every sheet in the order of the state.
fn widths_of(stack: &Stack) -> Vec<usize> {
    let layers = &stack.layers;
    let hidden = layers[..layers.len() - 1].iter().chain(layers).map(|layer| layer.outputs);
    hidden.chain([stack.outputs()]).collect()
}

/// `P` of the layer above `layer`.
fn pull(stack: &Stack, at: &Array, layer: usize, ratio: f64) -> Result<Array> {
    let above = stack.layers[layer + 1];
    let (outputs, inputs) = (above.outputs, above.inputs);
    let w = stack.device.download(at.view(above.start, outputs, inputs)).into_iter().map(f64::from).collect();
    let w: Array2<f64> = Array2::from_shape_vec((outputs, inputs), w).expect("a weight has its shape");
    let is_wide = outputs <= inputs;
    let mut system = if is_wide { w.dot(&w.t()) } else { w.t().dot(&w) };
    system.diag_mut().mapv_inplace(|v| v + ratio);
    let lower = linalg::cholesky(&system)?;
    let mut p = Array2::zeros((inputs, outputs));
    if is_wide {
        for (mut row, column) in p.rows_mut().into_iter().zip(w.columns()) {
            row.assign(&linalg::cholesky_solve(&lower, column)?);
        }
    } else {
        for (mut column, row) in p.columns_mut().into_iter().zip(w.rows()) {
            column.assign(&linalg::cholesky_solve(&lower, row)?);
        }
    }
    let values: Vec<f32> = p.iter().map(|&v: &f64| v as f32).collect();
    let mut array = stack.device.zeros(values.len());
    stack.device.upload(array.view_mut(0, inputs, outputs), &values);
    Ok(array)
}

impl Visit<'_> {
    /// `W_l a_{l-1} + b_l` into a sheet.
    fn linear(&self, device: &dyn Backend, layer: usize, x: &Sheet, to: &mut Sheet, columns: usize) {
        let layer = self.stack.layers[layer];
        let m = to.part_mut(layer.outputs, columns);
        let identity = super::layer::Dense { activation: Activation::Identity, ..layer };
        identity.forward(device, self.at, x.view(columns), m, None);
    }

    fn step(
        &self,
        device: &dyn Backend,
        number: usize,
        own: &mut BlockVariables,
        work: &mut super::stack::Work,
        sum: &mut Array,
        keep: bool,
    ) -> Scalars {
        let stack = self.stack;
        let columns = own.rows.len();
        let [first, second] = &mut work.flow.sheets;
        let inputs = &work.pass.inputs;
        match self.steps[number] {
            LocalStep::Activations { layer, .. } => {
                let (above, units) = (stack.layers[layer + 1], stack.layers[layer].outputs);
                let a = &mut own.activations[layer];
                device.copy(a.view_mut(columns), own.outputs[layer].view(columns));
                device.activate(Activation::Relu, a.view_mut(columns), stack.zeros.view(0, 1, units), None);
                self.linear(device, layer + 1, a, first, columns);
                device.blend(-1.0, first.part_mut(above.outputs, columns), 1.0, own.outputs[layer + 1].view(columns));
                if let Some(pull) = &self.pulls[number] {
                    let pull = pull.view(0, units, above.outputs);
                    device.product(a.view_mut(columns), true, pull, first.part(above.outputs, columns));
                }
                [0.0; 6]
            }
            LocalStep::Outputs { layer, beta, gamma } => {
                let x = if layer == 0 { inputs } else { &own.activations[layer - 1] };
                self.linear(device, layer, x, first, columns);
                let units = stack.layers[layer].outputs;
                let (a, m) = (own.activations[layer].view(columns), first.part(units, columns));
                let z = own.outputs[layer].view_mut(columns);
                let [activation, output, change] = device.rectifier_proximal(z, a, m, gamma as f32, beta as f32);
                let positive = device.count_positive(own.outputs[layer].view(columns)) as f64;
                [activation, output, change, 0.0, 0.0, positive]
            }
            LocalStep::Last { beta, step } => {
                let (k, last) = (stack.outputs(), stack.layers.len() - 1);
                self.linear(device, last, &own.activations[last - 1], first, columns);
                device.copy(second.part_mut(k, columns), first.part(k, columns));
                let half = (0.5 / beta) as f32;
                device.blend(1.0, second.part_mut(k, columns), -half, own.multipliers.view(columns));
                let metric = self.metrics[number].as_ref().expect("made for every step of its kind").view(columns);
                let targets = work.pass.targets.as_ref().expect("perceptrons have targets").view(columns);
                let t = work.pass.values[last].view_mut(columns);
                let [loss, _] = device.loss_proximal(stack.loss, second.part(k, columns), metric, targets, t);
                device.blend(1.0, second.part_mut(k, columns), half, work.pass.values[last].view(columns));
                let z = &mut own.outputs[last];
                device.blend(-1.0, z.view_mut(columns), 1.0, second.part(k, columns));
                let change = device.inner(z.view(columns), z.view(columns));
                device.copy(z.view_mut(columns), second.part(k, columns));
                device.blend(-1.0, first.part_mut(k, columns), 1.0, z.view(columns));
                let gap = device.inner(first.part(k, columns), first.part(k, columns));
                if step > 0.0 {
                    device.blend(1.0, own.multipliers.view_mut(columns), step as f32, first.part(k, columns));
                }
                let product = device.inner(z.view(columns), own.multipliers.view(columns));
                [0.0, gap, change, loss, product, 0.0]
            }
            LocalStep::Fit { layer, gram: with_gram } => {
                let shape = stack.layers[layer];
                let x = if layer == 0 { inputs } else { &own.activations[layer - 1] };
                let (z, place, size) = (own.outputs[layer].view(columns), self.places[number], shape.inputs + 1);
                let right = sum.strided_mut(place, shape.outputs, shape.inputs, shape.inputs);
                device.product(right, keep, z, x.view(columns).t());
                let sums = place + shape.outputs * shape.inputs;
                device.row_sums(sum.view_mut(sums, 1, shape.outputs), keep, z);
                if with_gram {
                    let start = place + shape.outputs * size;
                    gram(device, x, x, shape.inputs, columns, (sum, start), keep);
                }
                [0.0; 6]
            }
        }
    }
}

impl LocalVariables for RowBlocks {
    fn draw(&mut self, rng: &mut ChaCha8Rng) {
        let multipliers = widths_of(&self.stack).len() - 1;
        self.set(|sheet, _, _| if sheet == multipliers { 0.0 } else { rng.sample(StandardNormal) });
    }

    fn visit(&mut self, at: &Vector, steps: &[LocalStep]) -> Result<Answer<LocalSums>> {
        let stack = &*self.stack;
        let rows = self.train.rows.len();
        let (mut pulls, mut metrics, mut places, mut end) = (Vec::new(), Vec::new(), Vec::new(), 0);
        let mut flops = 0.0;
        for &step in steps {
            pulls.push(None);
            metrics.push(None);
            places.push(end);
            let place = pulls.len() - 1;
            let multiplications = |layer: usize| (stack.layers[layer].inputs * stack.layers[layer].outputs) as f64;
            flops += match step {
                LocalStep::Activations { layer, beta, gamma } => {
                    pulls[place] = Some(pull(stack, at.array(), layer, gamma / beta)?);
                    2.0 * multiplications(layer + 1)
                }
                LocalStep::Last { beta, .. } => {
                    metrics[place] = Some(constant_metric(stack, (0.5 / beta) as f32, self.size));
                    multiplications(stack.layers.len() - 1)
                }
                LocalStep::Outputs { layer, .. } => multiplications(layer),
                LocalStep::Fit { layer, gram } => {
                    let (shape, square) = (stack.layers[layer], (stack.layers[layer].inputs + 1).pow(2));
                    end += shape.outputs * (shape.inputs + 1) + if gram { square } else { 0 };
                    multiplications(layer) + if gram { 0.5 * square as f64 } else { 0.0 }
                }
            };
        }
        let visit = Visit { stack, at: at.array(), steps, pulls, metrics, places };
        let mut sums = stack.device.zeros(end);
        let scalars = Mutex::new(vec![Scalars::default(); self.blocks.len()]);
        stack.device.for_blocks(job(stack, rows, end), &mut sums, &|device, block, sum, keep| {
            stack.with_work(self.size, |work| {
                let number = block.start / self.size;
                self.train.load(device, Selection::Range(block.start, block.end), &mut work.pass);
                let mut own = self.blocks[number].lock().unwrap_or_else(PoisonError::into_inner);
                let mut total = Scalars::default();
                for step in 0..steps.len() {
                    let part = visit.step(device, step, &mut own, work, sum, keep);
                    total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
                }
                scalars.lock().unwrap_or_else(PoisonError::into_inner)[number] = total;
            });
            Ok(0.0)
        })?;
        let scalars = scalars.into_inner().unwrap_or_else(PoisonError::into_inner);
        let n = rows.max(1) as f64;
        let [activation_gap, output_gap, change, loss, multiplier_product, positive] =
            scalars.iter().fold([0.0; 6], |sum, part| std::array::from_fn(|i| sum[i] + part[i] / n));
        let mut fits = Vec::new();
        for (step, &place) in steps.iter().zip(&visit.places) {
            let &LocalStep::Fit { layer, gram } = step else { continue };
            let shape = stack.layers[layer];
            let (size, weights) = (shape.inputs + 1, shape.outputs * shape.inputs);
            let right = stack.device.download(sums.view(place, shape.outputs, size));
            let right = Array2::from_shape_fn((shape.outputs, size), |(i, j)| {
                f64::from(right[if j < shape.inputs { i * shape.inputs + j } else { weights + i }]) / n
            });
            let gram = gram.then(|| {
                let lower = stack.device.download(sums.view(place + shape.outputs * size, size, size));
                let mut gram = symmetric(&lower, size, n);
                // The mean of the constant's squares.
                gram[[size - 1, size - 1]] = 1.0;
                gram
            });
            fits.push(Fit { right, gram });
        }
        let hidden = (units(stack) - stack.outputs()) as f64;
        let sums =
            LocalSums { fits, activation_gap, output_gap, change, loss, multiplier_product, active: positive / hidden };
        let bytes = n * (2 * units(stack) * size_of::<f32>()) as f64;
        Ok(Answer { value: sums, cost: Cost { rows: rows as u64, flops: 2.0 * n * flops, bytes } })
    }

    fn state(&self) -> Vec<f64> {
        let rows = self.train.rows.len();
        let widths = widths_of(&self.stack);
        let mut state = vec![0.0; widths.iter().sum::<usize>() * rows];
        for block in &self.blocks {
            let block = block.lock().unwrap_or_else(PoisonError::into_inner);
            let mut first = 0;
            for (sheet, &units) in block.sheets().zip(&widths) {
                let values = self.stack.device.download(sheet.view(block.rows.len()));
                for (unit, values) in values.chunks(block.rows.len().max(1)).enumerate() {
                    let to = &mut state[(first + unit) * rows + block.rows.start..][..block.rows.len()];
                    to.iter_mut().zip(values).for_each(|(to, &value)| *to = f64::from(value));
                }
                first += units;
            }
        }
        state
    }

    fn restore(&mut self, state: &[f64]) {
        let (rows, widths) = (self.train.rows.len(), widths_of(&self.stack));
        if state.len() != widths.iter().sum::<usize>() * rows {
            return;
        }
        let firsts: Vec<usize> = widths
            .iter()
            .scan(0, |end, w| {
                *end += w;
                Some(*end - w)
            })
            .collect();
        self.set(|sheet, unit, row| state[(firsts[sheet] + unit) * rows + row] as f32);
    }
}
