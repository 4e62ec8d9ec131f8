//! One Switch feed-forward layer, or a dense one, fitted to pairs of inputs and outputs.
//!
//! With `x` the standardized inputs and a constant one, `p = softmax(R x)` and `i` the expert of the largest probability,
//! `f(x) = p_i V_i [max(U_i x, 0); 1]` (Fedus, Zoph and Shazeer 2021, equations 1 and 2, one expert a token, no capacity). The
//! objective is `mean 1/2 |y - f|^2 + alpha E sum_k f_k P_k` with the shares `f_k` of rows that go to expert `k` and its mean
//! probabilities `P_k` (equation 4): the second part is `alpha` at perfect balance. Outputs are shifted to mean zero and divided by
//! one number, so that their mean variance is one. With one expert there is no router and `f = V [max(U x, 0); 1]`.

mod equations;
mod layer;
mod passes;
mod predictor;
mod start;

use super::rows::{RowOutcomes, RowRatio, selected};
use super::{Build, Evaluation, Model, ModelData, ModelEntry, ParameterCounts, Split, Weights};
use crate::data::{Examples, Standardization, Task};
use crate::device::cpu::linalg::{ScaledCholesky, symmetrize};
use crate::device::{self, Array, Selection, Table};
use crate::error::{Error, Result};
use crate::oracle::{
    Consensus, Cost, Curvature, ExpertEquations, Gradient, Layout, NormalEquations, Offer, Problem, Rows, Setting,
    Settings, SquaredGradients, Value, Vector,
};
use layer::{Layer, Part, Room, Shape};
use ndarray::Array2;
use rand_chacha::ChaCha8Rng;
use start::Start;
use std::sync::Arc;

/// A Switch feed-forward layer.
pub const SWITCH_LAYER: ModelEntry = ModelEntry {
    name: "switch-layer",
    summary: "one Switch feed-forward layer of rectifiers, for any number of real targets; with one expert a dense layer",
    paper: "Fedus, Zoph and Shazeer 2021, section 2.1",
    settings: &[
        Setting::whole("experts", "16", 1, 1 << 14, "experts; 1: a dense layer without a router"),
        Setting::whole("hidden", "64", 1, 1 << 16, "rectifiers of every expert"),
        Setting::real(
            "balance",
            "0.01",
            0.0,
            f64::INFINITY,
            "alpha: weight of the loss that balances the experts' load",
        ),
        Setting::choice(
            "start",
            "k-means",
            &["k-means", "plain"],
            "the router: by centres of training rows, or at random; output matrices by ridge regression either way",
        ),
        Setting::real("gate_scale", "0.1", 0.0, 1e3, "factor of the router's logits at the start")
            .of("start", &["k-means"]),
        Setting::whole("start_rows", "8000", 1, 1 << 40, "training rows that the start is fitted to"),
    ],
    random_start: true,
    build: Build::Table(|data, settings| Ok(Box::new(SwitchLayer::new(data, settings)?) as Box<dyn Model>)),
    predictor: |weights| Ok(Box::new(predictor::LayerPredictor::from_weights(weights)?)),
};

/// What is known of a split before anything is fitted, in the layer's units, summed over rows.
#[derive(Debug, Clone, Default)]
struct Baseline {
    /// Squared distances of the targets from their mean in this split.
    variance: f64,
    /// Squared residuals of the best linear map of the training rows.
    linear: f64,
    /// The same, row by row.
    linear_rows: Vec<f32>,
}

/// A layer on data.
pub struct SwitchLayer {
    layer: Layer,
    balance: f64,
    start: Start,
    start_rows: usize,
    train: Part,
    validation: Part,
    test: Part,
    baselines: [Baseline; 3],
    columns: Vec<String>,
    inputs: Standardization,
    /// Means of the targets, and what their distances from these are divided by.
    outputs: (Vec<f64>, f64),
}

/// Means of the targets and the root of their mean variance; 1 where none of them varies.
fn output_scale(examples: &Examples) -> (Vec<f64>, f64) {
    let as_features = Examples { features: examples.targets.clone(), ..examples.clone() };
    let moments = Standardization::fit(&as_features);
    let variance = moments.scale.iter().enumerate().filter(|(j, _)| !moments.constant.contains(j));
    let mean = variance.map(|(_, scale)| scale * scale).sum::<f64>() / moments.scale.len().max(1) as f64;
    (moments.mean, if mean > 0.0 { mean.sqrt() } else { 1.0 })
}

/// Share of the mean square that is added to the inputs' Gram matrix for the linear map: its directions without variance, such
/// as that which normalized inputs lack, have coefficients of zero.
const LINEAR_RIDGE: f64 = 1e-6;

impl SwitchLayer {
    fn new(data: &ModelData, settings: &Settings) -> Result<Self> {
        if let Task::Classes(classes) = &data.task {
            let finding = format!("the target has {} classes", classes.len());
            let remedy = "it fits real targets: name numeric columns as the target, or give task = \"regression\"";
            return Err(Error::config("model switch-layer", finding, remedy));
        }
        let inputs = Standardization::fit(&data.train);
        let outputs = output_scale(&data.train);
        let factor: Vec<f64> = inputs.scale.iter().map(|scale| scale.recip()).collect();
        let output_factor = vec![outputs.1.recip(); outputs.0.len()];
        let part = |examples: &Examples| Part {
            inputs: Table::new(examples.features.clone(), examples.range.clone(), &inputs.mean, &factor),
            targets: Table::new(examples.targets.clone(), examples.range.clone(), &outputs.0, &output_factor),
        };
        let shape = Shape {
            inputs: data.columns.len(),
            hidden: settings.whole("hidden"),
            outputs: outputs.0.len(),
            experts: settings.whole("experts"),
        };
        let start = match settings.word("start") {
            "plain" => Start::Plain,
            _ => Start::KMeans(settings.real("gate_scale")),
        };
        let mut model = Self {
            layer: Layer::new(device::current(), shape),
            balance: if shape.has_router() { settings.real("balance") } else { 0.0 },
            start,
            start_rows: settings.whole("start_rows"),
            train: part(&data.train),
            validation: part(&data.validation),
            test: part(&data.test),
            baselines: Default::default(),
            columns: data.columns.clone(),
            inputs,
            outputs,
        };
        model.baselines = model.measure_baselines()?;
        Ok(model)
    }

    fn part(&self, split: Split) -> &Part {
        match split {
            Split::Train => &self.train,
            Split::Validation => &self.validation,
            Split::Test => &self.test,
        }
    }

    /// The selection behind `rows` and what sums over it are divided by.
    fn selection<'a>(&self, rows: Rows<'a>) -> (Selection<'a>, f64) {
        selected(rows, self.train.rows())
    }

    /// The weight of the balance; parts of the rows leave it to the whole.
    fn balance(&self, rows: Rows<'_>) -> f64 {
        if matches!(rows, Rows::Part { .. }) { 0.0 } else { self.balance }
    }

    /// What a pass over `rows` rows costs in which a row meets the weights of the router and its expert `products` times, and
    /// the expert's second matrix `upper` times more.
    fn cost(&self, rows: usize, products: f64, upper: f64) -> Cost {
        let [router, input, output] = self.layer.shape.products();
        let flops = 2.0 * (products * (router + input + output) + upper * output);
        let bytes = (size_of::<f32>() * (self.layer.shape.inputs + self.layer.shape.outputs)) as f64;
        Cost { rows: rows as u64, flops: rows as f64 * flops, bytes: rows as f64 * bytes }
    }

    /// Fits the linear map and measures it, and the targets themselves, on every split.
    fn measure_baselines(&self) -> Result<[Baseline; 3]> {
        let layer = &self.layer;
        let (size, outputs) = (layer.shape.inputs + 1, layer.shape.outputs);
        let (mut gram, mut right) = (Array2::<f64>::zeros((size, size)), Array2::<f64>::zeros((outputs, size)));
        let mut sum = layer.device.zeros((size + outputs) * size);
        layer.for_pieces(Selection::Range(0, self.train.rows()), |piece, Room { pass, .. }| {
            layer.load(&self.train, piece, pass);
            let (x, y) = (pass.x(layer.shape), pass.y(layer.shape));
            layer.device.product(sum.view_mut(0, size, size), false, x.t(), x);
            layer.device.product(sum.view_mut(size * size, outputs, size), false, y.t(), x);
            let values = layer.device.download(sum.view(0, size + outputs, size));
            let numbers = gram.iter_mut().chain(right.iter_mut());
            numbers.zip(values).for_each(|(to, value)| *to += f64::from(value));
        });
        symmetrize(&mut gram);
        let ridge = LINEAR_RIDGE * gram.diag().mean().unwrap_or(1.0);
        gram.diag_mut().mapv_inplace(|v| v + ridge);
        let factor = ScaledCholesky::new(&gram, &(0..size).collect::<Vec<_>>())?;
        let mut map: Vec<f32> = Vec::with_capacity(outputs * size);
        for row in right.rows() {
            map.extend(factor.solve(row)?.iter().map(|&v| v as f32));
        }
        let mut linear = layer.device.zeros(map.len());
        layer.device.upload(linear.view_mut(0, outputs, size), &map);
        let baselines = [&self.train, &self.validation, &self.test].map(|part| self.baseline(part, &linear));
        layer.device.check()?;
        Ok(baselines)
    }

    fn baseline(&self, part: &Part, linear: &Array) -> Baseline {
        let layer = &self.layer;
        let (t, device) = (layer.tokens(), &layer.device);
        let (size, outputs, rows) = (layer.shape.inputs + 1, layer.shape.outputs, part.rows());
        let mut baseline = Baseline::default();
        let (mut means, mut squares) = (vec![0.0_f64; outputs], 0.0);
        let mut sums = device.zeros(outputs);
        layer.for_pieces(Selection::Range(0, rows), |piece, Room { pass, work, .. }| {
            layer.load(part, piece, pass);
            let (n, y) = (pass.n, pass.y(layer.shape));
            squares += device.inner(y, y);
            let ones = layer.constants(n);
            device.product(sums.view_mut(0, 1, outputs), false, ones[1].view(0, 1, n), y);
            let own = device.download(sums.view(0, 1, outputs));
            means.iter_mut().zip(own).for_each(|(mean, sum)| *mean += f64::from(sum));
            let map = linear.view(0, outputs, size);
            device.product(work.e.view_mut(0, n, outputs), false, pass.x(layer.shape), map.t());
            device.blend(-1.0, work.e.view_mut(0, n, outputs), 1.0, y);
            let residual = work.e.view(0, n, outputs);
            baseline.linear += device.inner(residual, residual);
            let squares = t.row_dots(residual, residual);
            baseline.linear_rows.extend(device.download(squares.view(0, 1, n)));
        });
        let n = rows.max(1) as f64;
        baseline.variance = squares - means.iter().map(|sum| sum * sum / n).sum::<f64>();
        baseline
    }

    /// The loss of every row of a part.
    fn row_losses(&self, part: &Part, at: &Array) -> Vec<f32> {
        let layer = &self.layer;
        let mut losses = Vec::with_capacity(part.rows());
        layer.for_blocks(at, part, Selection::Range(0, part.rows()), |room| {
            layer.residual(room, Some(1.0));
            let e = room.work.e.view(0, room.pass.n, layer.shape.outputs);
            let squares = layer.in_order(&room.pass, layer.tokens().row_dots(e, e));
            losses.extend(squares.into_iter().map(|square| 0.5 * square));
        });
        losses
    }
}

impl Problem for SwitchLayer {
    fn layout(&self) -> &Arc<Layout> {
        &self.layer.layout
    }

    fn rows(&self) -> usize {
        self.train.rows()
    }

    fn gradient_flops(&self) -> f64 {
        self.cost(self.train.rows(), 2.0, 1.0).flops
    }

    fn hidden_matrices(&self) -> Vec<String> {
        (0..self.layer.shape.experts).map(|i| format!("expert{i}.input")).collect()
    }

    fn initial(&self, rng: &mut ChaCha8Rng) -> Vector {
        // Inputs that are not finite: the first value will say so.
        self.start(rng).unwrap_or_else(|_| Vector::zeros(&self.layer.layout))
    }

    fn value(&self) -> Offer<&dyn Value> {
        Ok(self)
    }

    fn gradient(&self) -> Offer<&dyn Gradient> {
        Ok(self)
    }

    fn curvature(&self) -> Offer<&dyn Curvature> {
        Ok(self)
    }

    fn squared_gradients(&self) -> Offer<&dyn SquaredGradients> {
        Ok(self)
    }

    fn normal_equations(&self) -> Offer<&dyn NormalEquations> {
        Err("it is no generalized linear model as a whole; variant = \"experts\" takes its blocks, which are".into())
    }

    fn consensus(&self) -> Offer<&dyn Consensus> {
        Err("its experts can be exchanged, so copies fitted on row blocks have no common mean".into())
    }

    fn expert_equations(&self) -> Offer<&dyn ExpertEquations> {
        Ok(self)
    }
}

impl Model for SwitchLayer {
    fn evaluate(&self, parameters: &Vector, split: Split) -> Result<Evaluation> {
        let part = self.part(split);
        let rows = part.rows() as f64;
        if part.rows() == 0 {
            return Ok(Evaluation::default());
        }
        let loss = self.layer.loss(parameters.array(), part, Selection::Range(0, part.rows())).loss;
        self.layer.device.check()?;
        let &Baseline { variance, linear, .. } = &self.baselines[split as usize];
        let share = |of: f64| (of > 0.0).then(|| 1.0 - 2.0 * loss / of);
        Ok(Evaluation {
            loss: Some(loss / rows),
            squared_error: Some(2.0 * loss / rows * self.outputs.1.powi(2)),
            explained_variance: share(variance),
            explained_beyond_linear: share(linear),
            ..Evaluation::default()
        })
    }

    fn row_outcomes(&self, parameters: &Vector, split: Split) -> Result<Option<RowOutcomes>> {
        let part = self.part(split);
        if part.rows() == 0 {
            return Ok(None);
        }
        let losses = self.row_losses(part, parameters.array());
        self.layer.device.check()?;
        let linear = &self.baselines[split as usize].linear_rows;
        let unit = 2.0 * self.outputs.1.powi(2) as f32;
        let ratios = vec![
            RowRatio {
                metric: "squared_error",
                parts: losses.iter().map(|loss| unit * loss).collect(),
                weights: vec![1.0; losses.len()],
            },
            RowRatio {
                metric: "explained_beyond_linear",
                parts: losses.iter().zip(linear).map(|(loss, linear)| linear - 2.0 * loss).collect(),
                weights: linear.clone(),
            },
        ];
        Ok(Some(RowOutcomes { loss: losses, correct: None, ratios }))
    }

    fn objective(&self, parameters: &Vector) -> Result<(f64, Option<f64>)> {
        let mut gradient = parameters.zeros_like();
        let value = Gradient::value_and_gradient(self, parameters, Rows::All, &mut gradient)?.value;
        Ok((value, Some(gradient.norm_max())))
    }

    fn parameter_counts(&self, parameters: &Vector) -> ParameterCounts {
        let shape = self.layer.shape;
        ParameterCounts {
            total: parameters.len() as u64,
            active: (shape.router() + shape.expert()) as u64,
            nonzero: parameters.nonzero() as u64,
            bytes: parameters.bytes(),
        }
    }

    fn weights(&self, parameters: &Vector) -> Weights {
        let mut weights = Weights { single_precision: true, ..Weights::default() };
        let values = parameters.to_host();
        for block in self.layer.layout.blocks() {
            let rows = values[block.range()].chunks_exact(block.columns);
            let inputs = block.columns - 1;
            let weight = rows.clone().flat_map(|row| row[..inputs].iter().copied()).collect();
            let bias = rows.map(|row| row[inputs]).collect();
            weights.tensors.insert(format!("{}.weight", block.name), (vec![block.rows, inputs], weight));
            weights.tensors.insert(format!("{}.bias", block.name), (vec![block.rows], bias));
        }
        let inputs = self.columns.len();
        let factor = self.inputs.scale.iter().map(|scale| scale.recip()).collect();
        weights.tensors.insert("input.shift".into(), (vec![inputs], self.inputs.mean.clone()));
        weights.tensors.insert("input.factor".into(), (vec![inputs], factor));
        weights.tensors.insert("output.shift".into(), (vec![self.outputs.0.len()], self.outputs.0.clone()));
        weights.tensors.insert("output.factor".into(), (vec![1], vec![self.outputs.1]));
        let columns = serde_json::to_string(&self.columns).unwrap_or_default();
        let texts = [("model", SWITCH_LAYER.name.to_owned()), ("columns", columns), ("classes", "[]".to_owned())];
        for (key, value) in texts {
            weights.metadata.insert(key.into(), value);
        }
        weights
    }

    fn is_convex(&self) -> bool {
        false
    }

    fn notes(&self, parameters: &Vector) -> Result<Vec<(&'static str, f64)>> {
        if !self.layer.shape.has_router() {
            return Ok(Vec::new());
        }
        let (load, entropy) = self.layer.load_and_entropy(parameters.array(), &self.train);
        self.layer.device.check()?;
        let experts = load.tokens.len() as f64;
        let shares = || load.tokens.iter().map(|tokens| tokens * experts / self.train.rows().max(1) as f64);
        Ok(vec![
            ("largest_load", shares().fold(0.0, f64::max)),
            ("smallest_load", shares().fold(f64::INFINITY, f64::min)),
            ("dead_experts", load.tokens.iter().filter(|&&tokens| tokens == 0.0).count() as f64),
            ("router_entropy", entropy),
        ])
    }
}
