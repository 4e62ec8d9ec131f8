//! The network split layer by layer: the joint step of all outputs of a row.
//!
//! With the mask `S_l` of units above zero held, `a_l = S_l z_l` and `z_l = W_l a_{l-1} + b_l + e_l` are linear, and the
//! outputs are `s = s0 + sum_l J_l e_l` over hidden layers with `J_l = W_L S_{L-1} W_{L-1} ... S_l`. The minimum of
//! `l(s) + beta/2 sum_l |e_l|^2` has `e_l = J_l' t / beta` with `t = -grad l(s)`, so that only `K` numbers of a row are
//! sought: `t = argmin l(s0 + Q t) + t'Q t/2`, `Q = sum_l J_l J_l' / beta`. Of the topmost hidden layer `J = W_L S`, and the
//! elements of `J J'` are products of pairs of rows of `W_L` with the mask; below, `J_l' = S_l W_{l+1}' J_{l+1}'` for each output.

use super::Network;
use super::local::RowBlocks;
use super::stack::{Sheet, Stack, Work};
use crate::device::{Activation, Array, Backend, Loss};
use crate::error::{Error, Result};
use crate::oracle::{Answer, Cost, Head, JointStep, Layer, LayerSplitting, LocalVariables, Offer, Rows, Vector};
use ndarray::Array2;
use std::sync::{Mutex, PoisonError};

/// With more outputs the `K x K` system of every row would outweigh everything else.
const MOST_OUTPUTS: usize = 64;

/// Local variables take at most this many bytes.
const MOST_LOCAL_BYTES: usize = 64 << 30;

/// Packed elements of a `k x k` lower triangle.
pub(super) fn triangle(k: usize) -> usize {
    k * (k + 1) / 2
}

/// A symmetric matrix of means from the lower triangle of sums.
pub(super) fn symmetric(lower: &[f32], size: usize, rows: f64) -> Array2<f64> {
    Array2::from_shape_fn((size, size), |(i, j)| f64::from(lower[i.max(j) * size + i.min(j)]) / rows)
}

impl Network {
    /// Why the network is not split, if it is not.
    pub(super) fn splitting(&self) -> Offer<&dyn LayerSplitting> {
        let layers = &self.stack.layers;
        let (last, hidden) = layers.split_last().ok_or("it has no layers")?;
        if hidden.is_empty() {
            return Err("it has no hidden layers".into());
        }
        if hidden.iter().any(|layer| layer.activation != Activation::Relu) {
            return Err("its hidden units are not all rectifiers, for which local steps have a closed form".into());
        }
        if last.activation != Activation::Identity {
            return Err("its outputs are not linear in the last layer".into());
        }
        if last.outputs > MOST_OUTPUTS {
            let outputs = last.outputs;
            return Err(format!("it has {outputs} outputs; joint steps are taken for up to {MOST_OUTPUTS}"));
        }
        if self.stack.loss == Loss::Logistic && last.outputs > 1 {
            return Err("it has several logistic outputs; softmax and squared losses take several".into());
        }
        Ok(self)
    }
}

/// What the joint steps of a job share.
struct Joint<'a> {
    stack: &'a Stack,
    at: &'a Array,
    beta: f64,
    head: Head,
    /// `W_ki W_ji / beta` for pairs of outputs and every unit `i` of the topmost hidden layer.
    pairs: Array,
    /// Ones, enough for the widest layer and for a block.
    ones: Array,
    /// The Gram matrices' layers and places within the sum.
    grams: Vec<(usize, usize)>,
    is_weighted: bool,
}

/// Memory of a block beside that of every pass.
struct Room {
    metric: Sheet,
    steps: Sheet,
    /// `J_l'` of every output for layers below the topmost hidden one, two in turns.
    adjoint: Vec<[Sheet; 2]>,
}

impl Room {
    fn new(stack: &Stack, rows: usize) -> Self {
        let k = stack.outputs();
        let sheet = |units| Sheet::new(&stack.device, units, rows);
        let adjoint = if stack.layers.len() > 2 {
            (0..k).map(|_| [sheet(stack.widest()), sheet(stack.widest())]).collect()
        } else {
            Vec::new()
        };
        Self { metric: sheet(triangle(k)), steps: sheet(k), adjoint }
    }
}

impl Joint<'_> {
    fn ones(&self, columns: usize) -> crate::device::array::View<'_> {
        self.ones.view(0, 1, columns)
    }

    /// `Q` of every example, packed, into the room; the topmost mask goes through the first sheet of the flow.
    fn metric(&self, device: &dyn Backend, work: &mut Work, room: &mut Room, columns: usize) {
        let (stack, k) = (self.stack, self.stack.outputs());
        let top = stack.layers.len() - 2;
        let units = stack.layers[top].outputs;
        let mask = &mut work.flow.sheets[0];
        let ones = (self.ones(units), self.ones(columns));
        device.backpropagate(
            Activation::Relu,
            mask.part_mut(units, columns),
            ones.0,
            ones.1,
            work.pass.kept(top, columns),
        );
        let pairs = self.pairs.view(0, triangle(k), units);
        device.product(room.metric.view_mut(columns), false, pairs, mask.part(units, columns));
        if top == 0 {
            return;
        }
        let (last, scale) = (stack.layers[top + 1], self.beta.recip() as f32);
        for (output, sheets) in room.adjoint.iter_mut().enumerate() {
            let row = self.at.view(last.start + output * units, 1, units);
            let kept = work.pass.kept(top, columns);
            device.backpropagate(Activation::Relu, sheets[0].part_mut(units, columns), row, ones.1, kept);
        }
        for l in (0..top).rev() {
            let (above, units) = (stack.layers[l + 1], stack.layers[l].outputs);
            let weight = self.at.view(above.start, above.outputs, above.inputs);
            for [here, below] in &mut room.adjoint {
                let d = here.part(above.outputs, columns);
                let kept = work.pass.kept(l, columns);
                device.backpropagate(Activation::Relu, below.part_mut(units, columns), weight, d, kept);
                std::mem::swap(here, below);
            }
            let dots = &mut work.flow.sheets[0];
            for i in 0..k {
                for j in 0..=i {
                    let (a, b) = (room.adjoint[i][0].part(units, columns), room.adjoint[j][0].part(units, columns));
                    device.column_dots(dots.part_mut(1, columns), false, a, b);
                    let to = room.metric.unit_mut(triangle(i) + j, columns);
                    device.blend(1.0, to, scale, dots.part(1, columns));
                }
            }
        }
    }

    /// The joint step of a block whose forward pass is in `work`; what it adds up to beside `sum`: losses before and after,
    /// `t'Q t`, units above zero.
    fn block(
        &self,
        device: &dyn Backend,
        work: &mut Work,
        room: &mut Room,
        columns: usize,
        sum: &mut Array,
        keep: bool,
    ) -> [f64; 4] {
        let (stack, k) = (self.stack, self.stack.outputs());
        let top = stack.layers.len() - 1;
        let loss = stack.loss(device, &work.pass, Some((&mut work.flow, -1.0)), columns);
        if let Head::LeastSquares { penalty } = self.head {
            // z - s = h t in the metric h I, h = 1/(2 penalty).
            let h = (0.5 / penalty) as f32;
            let constant = constant_metric(stack, h, columns);
            let (outputs, targets) = (work.pass.outputs(columns), work.pass.targets(columns));
            let t = room.steps.view_mut(columns);
            device.loss_proximal(stack.loss, outputs, constant.view(columns), targets, t);
            let d = work.flow.sheets[0].part_mut(k, columns);
            device.blend(0.0, d, h, room.steps.view(columns));
        }
        let x = work.pass.below(top, columns);
        stack.layers[top].gradient(device, work.flow.sheets[0].part(k, columns), x, sum, keep);
        for &(layer, place) in &self.grams {
            stack.gram(device, work, layer, columns, self.is_weighted && layer == top, (&mut *sum, place), keep);
        }
        self.metric(device, work, room, columns);
        let (outputs, targets) = (work.pass.outputs(columns), work.pass.targets(columns));
        let t = room.steps.view_mut(columns);
        let [after, quadratic] = device.loss_proximal(stack.loss, outputs, room.metric.view(columns), targets, t);
        // t goes down as a derivative would: what arrives at layer l is J_l' t.
        device.copy(work.flow.sheets[0].part_mut(k, columns), room.steps.view(columns));
        let (mut here, mut active) = (0, 0);
        for l in (0..top).rev() {
            let (layer, above) = (stack.layers[l], stack.layers[l + 1]);
            let [first, second] = &mut work.flow.sheets;
            let (from, to) = if here == 0 { (&*first, second) } else { (&*second, first) };
            above.backpropagate(
                device,
                self.at,
                from.part(above.outputs, columns),
                layer.activation,
                work.pass.kept(l, columns),
                to.part_mut(layer.outputs, columns),
            );
            here = 1 - here;
            let x = work.pass.below(l, columns);
            layer.gradient(device, work.flow.sheets[here].part(layer.outputs, columns), x, sum, keep);
            active += device.count_positive(work.pass.values(l, columns));
        }
        [loss, after, quadratic, active as f64]
    }
}

/// `h I` for every example.
pub(super) fn constant_metric(stack: &Stack, h: f32, columns: usize) -> Sheet {
    let mut metric = Sheet::new(&stack.device, triangle(stack.outputs()), columns);
    for i in 0..stack.outputs() {
        stack.device.upload(metric.unit_mut(triangle(i) + i, columns), &vec![h; columns]);
    }
    metric
}

impl LayerSplitting for Network {
    fn layers(&self) -> Vec<Layer> {
        let layers = self.stack.layers.iter();
        layers.map(|layer| Layer { inputs: layer.inputs, outputs: layer.outputs, start: layer.start }).collect()
    }

    fn ridge(&self) -> f64 {
        self.ridge
    }

    fn input_gram(&self) -> Result<Answer<Array2<f64>>> {
        let stack = &self.stack;
        let (rows, size) = (self.train.rows.len(), stack.inputs() + 1);
        let job = stack.job(rows, size * size);
        let block_rows = stack.device.block_rows(job);
        let mut sums = stack.device.zeros(job.sum);
        stack.device.for_blocks(job, &mut sums, &|device, block, sum, keep| {
            stack.with_work(block_rows, |work| {
                let columns = block.len();
                let rows = crate::device::Selection::Range(block.start, block.end);
                self.train.load(device, rows, &mut work.pass);
                stack.gram(device, work, 0, columns, false, (sum, 0), keep);
            });
            Ok(0.0)
        })?;
        let lower = stack.device.download(sums.view(0, size, size));
        let flops = rows as f64 * (size * size) as f64;
        let cost = Cost { flops, ..self.cost(rows, 0.0, 0.0) };
        Ok(Answer { value: symmetric(&lower, size, rows as f64), cost })
    }

    fn joint_step(
        &self,
        at: &Vector,
        rows: Rows<'_>,
        penalty: f64,
        head: Head,
        with_grams: bool,
    ) -> Result<Answer<JointStep>> {
        let (selection, divisor) = self.selection(rows);
        let (stack, k) = (&*self.stack, self.stack.outputs());
        let (parameters, layers) = (stack.layout.len(), stack.layers.len());
        let mut grams = Vec::new();
        let mut end = parameters;
        for l in (1..layers).filter(|_| with_grams) {
            grams.push((l, end));
            end += (stack.layers[l].inputs + 1).pow(2);
        }
        let job = stack.job(selection.len(), end);
        let size = stack.device.block_rows(job);
        let last = stack.layers[layers - 1];
        let weights = stack.device.download(at.array().view(last.start, k, last.inputs));
        let row = |i: usize| &weights[i * last.inputs..(i + 1) * last.inputs];
        let mut pairs = Vec::with_capacity(triangle(k) * last.inputs);
        for i in 0..k {
            for j in 0..=i {
                pairs.extend(row(i).iter().zip(row(j)).map(|(a, b)| (f64::from(a * b) / penalty) as f32));
            }
        }
        let mut pairs_array = stack.device.zeros(pairs.len());
        stack.device.upload(pairs_array.view_mut(0, triangle(k), last.inputs), &pairs);
        let mut ones = stack.device.zeros(stack.widest().max(size));
        stack.device.fill(&mut ones, 1.0);
        let joint = Joint {
            stack,
            at: at.array(),
            beta: penalty,
            head,
            pairs: pairs_array,
            ones,
            is_weighted: head == Head::Reweighted && stack.loss == Loss::Logistic,
            grams,
        };
        let mut sums = stack.device.zeros(end);
        let others = Mutex::new(vec![[0.0; 4]; selection.len().div_ceil(size.max(1))]);
        let rooms: Mutex<Vec<Room>> = Mutex::default();
        stack.device.for_blocks(job, &mut sums, &|device, block, sum, keep| {
            stack.with_work(size, |work| {
                let columns = block.len();
                let pooled = rooms.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let mut room = pooled.unwrap_or_else(|| Room::new(stack, size));
                self.train.load(device, selection.part(block.clone()), &mut work.pass);
                stack.forward(device, at.array(), &mut work.pass, columns);
                let other = joint.block(device, work, &mut room, columns, sum, keep);
                others.lock().unwrap_or_else(PoisonError::into_inner)[block.start / size] = other;
                rooms.lock().unwrap_or_else(PoisonError::into_inner).push(room);
            });
            Ok(0.0)
        })?;
        let others = others.into_inner().unwrap_or_else(PoisonError::into_inner);
        let [loss, after, quadratic, active] =
            others.iter().fold([0.0; 4], |sum, part| std::array::from_fn(|i| sum[i] + part[i]));
        let mut rights = Vector::zeros(&stack.layout);
        stack.device.add_range(rights.array_mut(), 0..last.start, (divisor * penalty).recip() as f32, &sums);
        stack.device.add_range(rights.array_mut(), last.range(), divisor.recip() as f32, &sums);
        // The curvature's bound where it is not in the weights.
        let bound = match (head, stack.loss) {
            (Head::Reweighted, Loss::Softmax) => 0.5,
            _ => 1.0,
        };
        let grams = joint.grams.iter().map(|&(l, place)| {
            let size = stack.layers[l].inputs + 1;
            let gram = symmetric(&stack.device.download(sums.view(place, size, size)), size, divisor);
            if l + 1 == layers { gram * bound } else { gram }
        });
        let grams: Vec<_> = grams.collect();
        let units: usize = stack.layers[..layers - 1].iter().map(|layer| layer.outputs).sum();
        let mut cost = self.cost(selection.len(), 2.0, 1.0);
        let deeper: f64 = stack.layers[1..layers - 1].iter().map(|layer| (layer.inputs * layer.outputs) as f64).sum();
        let squares: f64 = grams.iter().map(|gram| gram.len() as f64).sum();
        let metric = (triangle(k) * last.inputs) as f64 + deeper * k as f64;
        cost.flops += selection.len() as f64 * (2.0 * metric + squares);
        let value = JointStep {
            rights,
            grams,
            loss: loss / divisor,
            augmented: (after + 0.5 * quadratic) / divisor,
            gap: quadratic / (penalty * divisor),
            active: active / (divisor * units as f64),
        };
        Ok(Answer { value, cost })
    }

    fn local_variables(&self) -> Result<Box<dyn LocalVariables>> {
        let bytes = RowBlocks::bytes(&self.stack, self.train.rows.len());
        if bytes > MOST_LOCAL_BYTES {
            let reason = format!(
                "activations, outputs and multipliers of its rows would take {} GiB; variant = \"proximal\" keeps none",
                bytes >> 30
            );
            return Err(Error::Unsupported { name: "admm".into(), problem: "this problem".into(), reason });
        }
        Ok(Box::new(RowBlocks::new(&self.stack, &self.train)))
    }
}
