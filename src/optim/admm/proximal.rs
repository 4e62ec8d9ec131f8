//! Layer-wise splitting without multipliers: minibatches, exact joint steps, blocks within trust regions.
//!
//! The method of auxiliary coordinates (Carreira-Perpinan and Wang 2014) on `mean l(s) + beta/2 sum_l |z_l - W_l a_{l-1} - b_l|^2`,
//! for a minibatch at a time. All outputs of a row are moved to their joint minimum, with the units that are above zero
//! held so (derivation: docs/methods.md); each hidden layer then takes a share of its least-squares step,
//!
//! ```text
//! [W b] += share (mean e [a; 1]' - ridge/beta [W 0]) (G + damping)^-1,   e = z - W a - b,   G = mean [a; 1][a; 1]'
//! ```
//!
//! and the layers that give outputs a share of a step of iteratively reweighted least squares, or of least squares to proximal
//! points of their outputs: a network's last one, or the outputs of a mixture's experts and its gate. Gram matrices are running
//! averages over refreshes, that of the inputs is formed once on all rows. Nothing is kept of a row from step to step. `beta`
//! grows from pass to pass.
//!
//! At a refresh the fall of the batch's loss over one block's step is compared with the fall predicted, by turns for hidden
//! layers and the last one: with the implicit gradient `-beta mean e [a; 1]'` to first order below, with the quadratic model
//! above. A ratio below 1/4 or NaN shrinks that block's share by 2/3, one above 3/4 lets it grow again up to the one set.

use super::{read_layer, write_layer};
use crate::device::cpu::Cpu;
use crate::device::cpu::linalg::ScaledCholesky;
use crate::device::{Device, Matrix};
use crate::error::Result;
use crate::optim::stochastic::Schedule;
use crate::optim::{Optimizer, StateVisitor, Step};
use crate::oracle::{Batch, Head, Layer, Oracle, Rows, Settings, Vector};
use ndarray::{Array2, Axis, s};

/// With this many right-hand sides or more a layer's matrix is inverted, not solved with.
const INVERTED: usize = 16;

/// A step of the last layer before everything else is damped by this.
const START_DAMPING: f64 = 1e-2;

pub(super) struct Proximal {
    batch_size: usize,
    penalty: f64,
    growth: f64,
    steps: [f64; 2],
    damping: [f64; 2],
    head: Head,
    head_start: usize,
    head_start_rows: usize,
    memory: f64,
    refresh: u64,
    adaptive: bool,
    schedule: Schedule,
    layers: Vec<Layer>,
    /// Where the parameters are.
    device: Device,
    /// How many of the first layers share the inputs' Gram matrix, and the first of those that give outputs.
    on_inputs: usize,
    first_head: usize,
    ridge: f64,
    taken: u64,
    /// The penalty at the last refresh.
    refreshed_penalty: f64,
    /// Shares of hidden layers' and the last layer's steps, as parts of those set; the last ratios.
    trust: [f64; 2],
    ratios: [f64; 2],
    /// Running Gram matrices of the layers that are not on the inputs.
    grams: Vec<Vec<f64>>,
    input_gram: Vec<f64>,
    factors: Vec<Option<Factor>>,
}

/// A damped Gram matrix, ready for right-hand sides.
enum Factor {
    Lower(ScaledCholesky),
    Inverse(Device, Matrix),
}

impl Factor {
    /// Products with an inverse are left to `device`.
    fn new(device: &Device, gram: &[f64], damping: f64, rights: usize) -> Result<Self> {
        let size = gram.len().isqrt();
        let mut matrix = Array2::from_shape_fn((size, size), |(i, j)| gram[i * size + j]);
        matrix.diag_mut().mapv_inplace(|v| v + damping);
        let coordinates: Vec<usize> = (0..size).collect();
        let lower = ScaledCholesky::new(&matrix, &coordinates)?;
        if rights < INVERTED {
            return Ok(Self::Lower(lower));
        }
        let half: Vec<f32> = lower.inverse_factor()?.iter().map(|&v| v as f32).collect();
        let half = Matrix::from_values(device, size, size, &half);
        Ok(Self::Inverse(device.clone(), half.times(true, &half, false)))
    }

    /// `rights G^-1`.
    fn solve(&self, rights: &Array2<f64>) -> Result<Array2<f64>> {
        match self {
            Self::Lower(lower) => {
                let mut solved = rights.clone();
                for (mut to, right) in solved.axis_iter_mut(Axis(0)).zip(rights.axis_iter(Axis(0))) {
                    to.assign(&lower.solve(right)?);
                }
                Ok(solved)
            }
            Self::Inverse(device, inverse) => {
                let (rows, columns) = rights.dim();
                let values: Vec<f32> = rights.iter().map(|&v| v as f32).collect();
                let solved = Matrix::from_values(device, rows, columns, &values).times(false, inverse, false).to_host();
                Ok(Array2::from_shape_fn((rows, columns), |(i, j)| f64::from(solved[i * columns + j])))
            }
        }
    }
}

/// A block's step, and what it promises.
struct Move {
    /// New minus old.
    change: Array2<f64>,
    /// The fall of the objective that a whole step predicts, to first order.
    slope: f64,
}

impl Proximal {
    pub fn new(s: &Settings) -> Self {
        Self {
            batch_size: s.whole("batch_size"),
            penalty: s.real("penalty"),
            growth: s.real("penalty_growth"),
            steps: [s.real("hidden_step"), s.real("head_step")],
            damping: [s.real("hidden_damping"), s.real("head_damping")],
            head: match s.word("head") {
                "least-squares" => Head::LeastSquares { penalty: s.real("head_penalty") },
                _ => Head::Reweighted,
            },
            head_start: s.whole("head_start"),
            head_start_rows: s.whole("head_start_rows"),
            memory: s.real("memory"),
            refresh: s.whole("refresh") as u64,
            adaptive: s.word("trust_region") == "adaptive",
            schedule: Schedule::new(s, 0.0),
            layers: Vec::new(),
            device: Device::new(Cpu::default()),
            on_inputs: 1,
            first_head: 0,
            ridge: 0.0,
            taken: 0,
            refreshed_penalty: s.real("penalty"),
            trust: [1.0; 2],
            ratios: [1.0; 2],
            grams: Vec::new(),
            input_gram: Vec::new(),
            factors: Vec::new(),
        }
    }

    /// Damping of a layer's matrix: of hidden ones relative to the mean diagonal.
    fn damping_of(&self, layer: usize, gram: &[f64]) -> f64 {
        if layer >= self.first_head {
            return self.damping[1] + self.ridge;
        }
        let size = gram.len().isqrt();
        let mean = (0..size).map(|i| gram[i * (size + 1)]).sum::<f64>() / size as f64;
        self.damping[0] * mean + self.ridge / self.refreshed_penalty
    }

    /// Takes a batch's Gram matrices into the averages.
    fn renew(&mut self, grams: &[Array2<f64>], beta: f64) {
        if self.grams.is_empty() {
            self.grams = grams.iter().map(|gram| gram.iter().copied().collect()).collect();
        } else {
            for (kept, new) in self.grams.iter_mut().zip(grams) {
                kept.iter_mut()
                    .zip(new)
                    .for_each(|(kept, new)| *kept = self.memory * *kept + (1.0 - self.memory) * new);
            }
        }
        self.refreshed_penalty = beta;
        // The inputs' matrix changes with the share that a ridge has in it.
        let first = if self.ridge == 0.0 { self.on_inputs } else { 0 };
        self.factors.iter_mut().skip(first).for_each(|factor| *factor = None);
    }

    /// Factorizes what is not factorized. What a resumed run factorizes again is not `due`, and was counted before.
    fn factorize(&mut self, oracle: &mut Oracle<'_>, is_due: bool) -> Result<()> {
        for l in 0..self.layers.len() {
            if self.factors[l].is_none() {
                let gram = if l < self.on_inputs { &self.input_gram } else { &self.grams[l - self.on_inputs] };
                let damping = self.damping_of(l, gram);
                self.factors[l] = Some(Factor::new(&self.device, gram, damping, self.layers[l].outputs)?);
                if is_due {
                    oracle.count_solve((self.layers[l].inputs as f64 + 1.0).powi(3) / 3.0);
                }
            }
        }
        Ok(())
    }

    /// A layer's whole step from its right-hand side.
    fn whole_step(&self, layer: usize, rights: &Vector, parameters: &Vector, beta: f64) -> Result<Move> {
        let shape = &self.layers[layer];
        // In units of the layer's own least squares: the gradient of the objective is minus `scale` times this.
        let scale = if layer >= self.first_head { 1.0 } else { beta };
        let mut right = read_layer(shape, rights);
        if self.ridge > 0.0 {
            let weights = read_layer(shape, parameters);
            right
                .slice_mut(s![.., ..shape.inputs])
                .scaled_add(-self.ridge / scale, &weights.slice(s![.., ..shape.inputs]));
        }
        let factor = self.factors[layer].as_ref().expect("factorized before");
        let change = factor.solve(&right)?;
        let slope = scale * (&right * &change).sum();
        Ok(Move { change, slope })
    }

    fn take(&self, layer: usize, share: f64, step: &Move, parameters: &mut Vector) {
        let shape = &self.layers[layer];
        let mut block = read_layer(shape, parameters);
        block.scaled_add(share, &step.change);
        write_layer(shape, parameters, &block);
    }

    /// Whole steps of reweighted least squares of the layers that give outputs, on rows drawn for them.
    fn start_head(&mut self, oracle: &mut Oracle<'_>, parameters: &mut Vector) -> Result<()> {
        let batch = oracle.draw_rows(self.head_start_rows);
        for _ in 0..self.head_start {
            let sums = oracle.joint_step(parameters, Rows::Batch(&batch), self.penalty, Head::Reweighted, true)?;
            for head in self.first_head..self.layers.len() {
                let gram: Vec<f64> = sums.grams[head - self.on_inputs].iter().copied().collect();
                oracle.finite("the last layer's matrix", gram.iter().sum())?;
                let (damping, rights) = (START_DAMPING + self.ridge, self.layers[head].outputs);
                self.factors[head] = Some(Factor::new(&self.device, &gram, damping, rights)?);
                let step = self.whole_step(head, &sums.rights, parameters, self.penalty)?;
                self.take(head, 1.0, &step, parameters);
                self.factors[head] = None;
            }
        }
        Ok(())
    }

    /// Compares the fall of the batch's loss with the one predicted.
    fn judge(&mut self, block: usize, predicted: f64, fall: f64) {
        let ratio = fall / predicted.max(f64::MIN_POSITIVE);
        self.ratios[block] = ratio;
        if !self.adaptive {
            return;
        }
        if ratio.is_nan() || ratio < 0.25 {
            self.trust[block] *= 2.0 / 3.0;
        } else if ratio > 0.75 {
            self.trust[block] = (self.trust[block] * 1.5).min(1.0);
        }
    }
}

impl Optimizer for Proximal {
    fn start(&mut self, oracle: &mut Oracle<'_>, parameters: &Vector) -> Result<()> {
        if let Some(device) = parameters.layout().device() {
            self.device = device.clone();
        }
        (self.layers, self.ridge) = oracle.layers()?;
        let (on_inputs, heads) = oracle.layer_ends()?;
        (self.on_inputs, self.first_head) = (on_inputs, self.layers.len() - heads);
        self.factors = self.layers.iter().map(|_| None).collect();
        Ok(())
    }

    fn step(&mut self, oracle: &mut Oracle<'_>, parameters: &mut Vector) -> Result<Step> {
        if self.taken == 0 {
            self.input_gram = oracle.input_gram()?.into_iter().collect();
            oracle.finite("the inputs' Gram matrix", self.input_gram.iter().sum())?;
            self.start_head(oracle, parameters)?;
        }
        let n = oracle.rows();
        let size = if self.batch_size == 0 { n } else { self.batch_size.min(n) };
        let batch = if size == n { Batch::new(Vec::new()) } else { oracle.next_batch(size) };
        let rows = if size == n { Rows::All } else { Rows::Batch(&batch) };
        let passes = self.taken as f64 * size as f64 / n as f64;
        let beta = self.penalty * self.growth.powf(passes);
        let share = self.schedule.at(passes + size as f64 / n as f64);
        let is_due = self.taken.is_multiple_of(self.refresh);

        let sums = oracle.joint_step(parameters, rows, beta, self.head, is_due)?;
        oracle.finite("the minibatch loss", sums.loss)?;
        oracle.finite("the augmented objective", sums.augmented)?;
        if is_due {
            oracle.finite("a Gram matrix", sums.grams.iter().map(|gram| gram.sum()).sum())?;
            self.renew(&sums.grams, beta);
        }
        self.factorize(oracle, is_due)?;
        let (first_head, layers) = (self.first_head, self.layers.len());
        let moves: Vec<Move> =
            (0..layers).map(|l| self.whole_step(l, &sums.rights, parameters, beta)).collect::<Result<_>>()?;

        // At every other refresh the hidden layers move first and are judged, else the last one.
        let judged = if (self.taken / self.refresh).is_multiple_of(2) { 0 } else { 1 };
        let shares = [0, 1].map(|block| self.steps[block] * self.trust[block] * share);
        for block in [judged, 1 - judged] {
            let range = if block == 0 { 0..first_head } else { first_head..layers };
            let before = (is_due && block == judged).then(|| oracle.value(parameters, rows)).transpose()?;
            for l in range.clone() {
                self.take(l, shares[block], &moves[l], parameters);
            }
            if let Some(before) = before {
                let slope: f64 = moves[range].iter().map(|step| step.slope).sum();
                let bend = if block == 0 { 0.0 } else { 0.5 * shares[1] };
                let predicted = shares[block] * (1.0 - bend) * slope;
                let after = oracle.value(parameters, rows)?;
                self.judge(block, predicted, before - after);
            }
        }
        self.taken += 1;
        let stationarity: f64 = (0..layers)
            .map(|l| {
                let scale = if l >= first_head { 1.0 } else { beta };
                scale * scale * read_layer(&self.layers[l], &sums.rights).mapv(|v| v * v).sum()
            })
            .sum();
        for (name, value) in [
            ("primal_residual", sums.gap.sqrt()),
            ("dual_residual", stationarity.sqrt()),
            ("augmented_objective", sums.augmented),
            ("batch_loss", sums.loss),
            ("penalty", beta),
            ("hidden_ratio", self.ratios[0]),
            ("head_ratio", self.ratios[1]),
            ("hidden_share", shares[0]),
            ("head_share", shares[1]),
            ("active_share", sums.active),
        ] {
            oracle.note(name, value);
        }
        Ok(Step::Continue)
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        visitor.count("taken", &mut self.taken);
        visitor.number("refreshed_penalty", &mut self.refreshed_penalty);
        visitor.numbers("input_gram", &mut self.input_gram);
        for (name, pair) in [("trust", &mut self.trust), ("ratios", &mut self.ratios)] {
            let mut list = pair.to_vec();
            visitor.numbers(name, &mut list);
            if let [a, b] = list[..] {
                *pair = [a, b];
            }
        }
        // Shapes follow from the layers: a flat list is enough.
        let mut flat: Vec<f64> = self.grams.concat();
        let before = flat.clone();
        visitor.numbers("grams", &mut flat);
        if flat != before {
            self.factors.iter_mut().for_each(|factor| *factor = None);
        }
        let mut rest = &flat[..];
        self.grams.clear();
        for layer in self.layers.iter().skip(self.on_inputs) {
            let Some((gram, others)) = rest.split_at_checked((layer.inputs + 1).pow(2)) else { break };
            self.grams.push(gram.to_vec());
            rest = others;
        }
    }
}
