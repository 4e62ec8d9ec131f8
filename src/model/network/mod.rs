//! Networks of dense layers: the multilayer perceptron and the deep autoencoder.
//!
//! With layers `a_l = h(W_l a_{l-1} + b_l)` the objective is `F = (1/n) sum_i loss(o_i, y_i) + ridge/2 sum_l |W_l|^2`, biases
//! never penalized. The gradient is a backward pass; a Gauss-Newton product `J' H J v` a tangent up (Pearlmutter 1994), the
//! loss's Hessian, and a backward pass down (Schraudolph 2002). Parameters and everything of their shape are `f32` on a
//! device; rows of data are standardized as they are loaded, block by block.

mod curvature;
mod head;
pub(super) mod initialization;
mod kronecker;
mod layer;
mod local;
mod predictor;
mod splitting;
mod stack;

use super::rows::{logistic_loss, selected, softmax_loss};
use super::{Build, Evaluation, Model, ModelData, ModelEntry, ParameterCounts, RowOutcomes, RowRatio, Split, Weights};
use crate::data::{Examples, Standardization, Task};
use crate::device::{self, Activation, Array, Loss, Panels, Selection, Table};
use crate::error::{Error, Result};
use crate::measure::metrics::area_under_curve;
use crate::oracle::{
    Answer, Consensus, Cost, Curvature, Gradient, HeadEquations, KroneckerFactors, LayerSplitting, Layout,
    NormalEquations, Offer, Problem, Rows, Setting, Settings, SquaredGradients, Value, Vector,
};
use initialization::Initialization;
use ndarray::Array2;
use predictor::NetworkPredictor;
use rand_chacha::ChaCha8Rng;
use stack::{Pass, Stack};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

const ACTIVATIONS: [&str; 4] = ["relu", "tanh", "sigmoid", "gelu"];

const INITIALIZATION: Setting = Setting::choice(
    "initialization",
    "auto",
    &initialization::WORDS,
    "where weights start; auto: he under relu and gelu, else glorot; sparse: 15 incoming weights of each unit",
);

const RIDGE: Setting =
    Setting::real("ridge", "0", 0.0, f64::INFINITY, "half of it times all squared weights is added, biases apart")
        .log();

/// A multilayer perceptron.
pub const MLP: ModelEntry = ModelEntry {
    name: "mlp",
    summary: "multilayer perceptron: dense layers of any widths, for classes or real targets",
    paper: "Rumelhart, Hinton and Williams 1986",
    settings: &[
        Setting::widths("hidden", "300", "units of the hidden layers, from the inputs up"),
        Setting::choice("activation", "relu", &ACTIVATIONS, "of the hidden units; gelu in the form with erf"),
        Setting::choice(
            "loss",
            "auto",
            &["auto", "logistic", "softmax", "squared", "hinge", "unit-hinge"],
            "auto: logistic for two classes, softmax for more, squared for real targets; squared is half the square; unit-hinge: max(0, 1 - o), max(0, o)",
        ),
        INITIALIZATION,
        RIDGE,
        Setting::switch("standardize", "true", "give every input mean 0 and standard deviation 1 on the training rows"),
    ],
    random_start: true,
    build: Build::Table(|data, settings| Ok(Box::new(Network::perceptron(data, settings)?))),
    predictor: |weights| Ok(Box::new(NetworkPredictor::from_weights(weights)?)),
};

/// A deep autoencoder.
pub const AUTOENCODER: ModelEntry = ModelEntry {
    name: "autoencoder",
    summary: "deep autoencoder: an encoder, a linear code layer, and the encoder's widths mirrored back to the inputs",
    paper: "Hinton and Salakhutdinov 2006; as a benchmark of optimizers: Martens 2010, section 6",
    settings: &[
        Setting::widths("hidden", "1000-500-250-30", "units of the encoder's layers, the code layer last"),
        Setting::choice("activation", "sigmoid", &ACTIVATIONS, "of the hidden units; the code layer is linear"),
        Setting::choice(
            "loss",
            "cross-entropy",
            &["cross-entropy", "squared"],
            "of sigmoid outputs against inputs in [0, 1], summed over inputs; squared is half the square",
        ),
        INITIALIZATION,
        RIDGE,
    ],
    random_start: true,
    build: Build::Table(|data, settings| Ok(Box::new(Network::autoencoder(data, settings)?))),
    predictor: |weights| Ok(Box::new(NetworkPredictor::from_weights(weights)?)),
};

fn activation(settings: &Settings) -> Activation {
    match settings.word("activation") {
        "tanh" => Activation::Tanh,
        "sigmoid" => Activation::Sigmoid,
        "gelu" => Activation::Gelu,
        _ => Activation::Relu,
    }
}

/// A split's rows on the device.
struct Part {
    inputs: Table,
    /// Targets in the form that the loss takes; an autoencoder's are its inputs.
    targets: Option<Table>,
    /// Targets as in the file.
    labels: Panels,
    rows: Range<usize>,
}

impl Part {
    fn new(examples: &Examples, shift: &[f64], factor: &[f64], targets: Targets) -> Self {
        let rows = examples.range.clone();
        let targets = match targets {
            Targets::Inputs => None,
            Targets::AsTheyAre => Some(Table::plain(examples.targets.clone(), rows.clone())),
            Targets::OneHot(classes) => {
                let labels = &examples.targets;
                let is_class = |row: usize, class: usize| f32::from(u8::from(labels.get(row, 0) == class as f32));
                Some(Table::plain(Panels::from_fn(labels.rows(), classes, is_class), rows.clone()))
            }
        };
        let inputs = Table::new(examples.features.clone(), rows.clone(), shift, factor);
        Self { inputs, targets, labels: examples.targets.clone(), rows }
    }

    fn label(&self, row: usize) -> f32 {
        self.labels.get(self.rows.start + row, 0)
    }

    fn load(&self, device: &dyn crate::device::Backend, rows: Selection<'_>, pass: &mut Pass) {
        let columns = rows.len();
        device.load(&self.inputs, rows, pass.inputs.view_mut(columns));
        if let (Some(targets), Some(sheet)) = (&self.targets, &mut pass.targets) {
            device.load(targets, rows, sheet.view_mut(columns));
        }
    }
}

/// What the loss compares outputs with.
#[derive(Debug, Clone, Copy)]
enum Targets {
    Inputs,
    AsTheyAre,
    OneHot(usize),
}

/// A network on data.
pub struct Network {
    name: &'static str,
    stack: Arc<Stack>,
    initialization: Initialization,
    ridge: f64,
    train: Arc<Part>,
    validation: Part,
    test: Part,
    task: Task,
    columns: Vec<String>,
    shift: Vec<f64>,
    factor: Vec<f64>,
    metadata: Vec<(&'static str, String)>,
}

impl Network {
    fn perceptron(data: &ModelData, settings: &Settings) -> Result<Self> {
        let unfit = |finding: String, remedy: &str| Err(Error::config("model mlp", finding, remedy));
        let word = settings.word("loss");
        let (loss, outputs, targets) = match &data.task {
            Task::Regression => match word {
                "auto" | "squared" => (Loss::Squared, data.train.targets.columns(), Targets::AsTheyAre),
                _ => {
                    return unfit(format!("loss = \"{word}\" for real targets"), "leave loss out, or give \"squared\"");
                }
            },
            Task::Classes(classes) => {
                let (k, is_binary) = (classes.len(), classes.len() == 2);
                match word {
                    "softmax" => (Loss::Softmax, k, Targets::AsTheyAre),
                    "auto" if !is_binary => (Loss::Softmax, k, Targets::AsTheyAre),
                    "squared" if is_binary => (Loss::Squared, 1, Targets::AsTheyAre),
                    "squared" => (Loss::Squared, k, Targets::OneHot(k)),
                    "hinge" if is_binary => (Loss::Hinge, 1, Targets::AsTheyAre),
                    "unit-hinge" if is_binary => (Loss::UnitHinge, 1, Targets::AsTheyAre),
                    _ if is_binary => (Loss::Logistic, 1, Targets::AsTheyAre),
                    _ => return unfit(format!("loss = \"{word}\" for {k} classes"), "it takes two; use \"softmax\""),
                }
            }
        };
        let columns = data.columns.len();
        let standardization = match settings.switch("standardize") {
            true => Standardization::fit(&data.train),
            false => Standardization::identity(columns),
        };
        let factor: Vec<f64> = standardization.scale.iter().map(|scale| 1.0 / scale).collect();
        let hidden = settings.widths("hidden");
        let widths: Vec<usize> = [columns].into_iter().chain(hidden.iter().copied()).chain([outputs]).collect();
        let stack = Stack::new(
            device::current(),
            &widths,
            &vec![activation(settings); hidden.len()],
            Activation::Identity,
            loss,
        );
        Ok(Self::new("mlp", stack, data, settings, standardization.mean, factor, targets))
    }

    fn autoencoder(data: &ModelData, settings: &Settings) -> Result<Self> {
        let columns = data.columns.len();
        let encoder = settings.widths("hidden");
        if encoder.is_empty() {
            let remedy = "give the encoder's widths, for instance hidden = \"1000-500-250-30\"";
            return Err(Error::config("model autoencoder", "hidden = \"none\" leaves no code layer", remedy));
        }
        // Sigmoid outputs and cross-entropy want inputs in [0, 1]: all are divided by the largest of the training rows.
        let range = &data.train.range;
        let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
        for row in range.clone() {
            for column in 0..columns {
                let value = data.train.features.get(row, column);
                (low, high) = (low.min(value), high.max(value));
            }
        }
        if low < 0.0 || high <= 0.0 {
            return Err(Error::config(
                "model autoencoder",
                format!("the inputs lie between {low} and {high}"),
                "it reconstructs inputs that are never negative, such as pixels, scaled to [0, 1] by their largest value",
            ));
        }
        let decoder = encoder.iter().rev().skip(1).copied();
        let hidden: Vec<usize> = encoder.iter().copied().chain(decoder).collect();
        let widths: Vec<usize> = [columns].into_iter().chain(hidden.iter().copied()).chain([columns]).collect();
        let mut activations = vec![activation(settings); hidden.len()];
        activations[encoder.len() - 1] = Activation::Identity;
        // Cross-entropy of sigmoid outputs is the logistic loss of linear ones.
        let (last, loss) = match settings.word("loss") {
            "squared" => (Activation::Sigmoid, Loss::Squared),
            _ => (Activation::Identity, Loss::Logistic),
        };
        let stack = Stack::new(device::current(), &widths, &activations, last, loss).reconstructing();
        let factor = vec![1.0 / f64::from(high); columns];
        Ok(Self::new("autoencoder", stack, data, settings, vec![0.0; columns], factor, Targets::Inputs))
    }

    fn new(
        name: &'static str,
        stack: Stack,
        data: &ModelData,
        settings: &Settings,
        shift: Vec<f64>,
        factor: Vec<f64>,
        targets: Targets,
    ) -> Self {
        let part = |examples: &Examples| {
            let part = Part::new(examples, &shift, &factor, targets);
            [Some(&part.inputs), part.targets.as_ref()]
                .into_iter()
                .flatten()
                .for_each(|table| stack.device.keep(table));
            part
        };
        Self {
            name,
            initialization: Initialization::from_word(settings.word("initialization"), activation(settings)),
            ridge: settings.real("ridge"),
            train: Arc::new(part(&data.train)),
            validation: part(&data.validation),
            test: part(&data.test),
            task: data.task.clone(),
            columns: data.columns.clone(),
            metadata: ["hidden", "activation", "loss"].map(|key| (key, settings.word(key).to_owned())).to_vec(),
            stack: Arc::new(stack),
            shift,
            factor,
        }
    }

    fn is_autoencoder(&self) -> bool {
        self.train.targets.is_none()
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
        selected(rows, self.train.rows.len())
    }

    /// What a pass over `rows` rows costs that meets every weight `products` times and those above the first layer
    /// `upper` times more.
    fn cost(&self, rows: usize, products: f64, upper: f64) -> Cost {
        let flops = 2.0 * (products * self.stack.weights() + upper * self.stack.upper_weights());
        let targets = self.train.targets.as_ref().map_or(0, Table::columns);
        let bytes = (size_of::<f32>() * (self.stack.inputs() + targets)) as f64;
        Cost { rows: rows as u64, flops: rows as f64 * flops, bytes: rows as f64 * bytes }
    }

    /// `ridge/2 sum |W|^2`; parts of the rows leave it to the whole.
    fn penalty(&self, at: &Array, rows: Rows<'_>) -> f64 {
        if self.ridge == 0.0 || matches!(rows, Rows::Part { .. }) {
            return 0.0;
        }
        let squares = |layer: &layer::Dense| self.stack.device.dot(at, at, layer.weight_range());
        0.5 * self.ridge * self.stack.layers.iter().map(squares).sum::<f64>()
    }

    /// Adds `ridge W` to something of the parameters' shape.
    fn add_ridge(&self, of: &Array, rows: Rows<'_>, to: &mut Array) {
        if self.ridge > 0.0 && !matches!(rows, Rows::Part { .. }) {
            for layer in &self.stack.layers {
                self.stack.device.add_range(to, layer.weight_range(), self.ridge as f32, of);
            }
        }
    }

    /// The sum of losses over rows of a part, and with `gradient` its gradient times the factor beside it.
    fn pass(
        &self,
        part: &Part,
        at: &Array,
        selection: Selection<'_>,
        gradient: Option<(&mut Array, f64)>,
    ) -> Result<f64> {
        let stack = &self.stack;
        let job = stack.job(selection.len(), if gradient.is_some() { stack.layout.len() } else { 0 });
        let factor = gradient.as_ref().map(|(_, factor)| *factor as f32);
        let mut none = stack.device.zeros(0);
        let size = stack.device.block_rows(job);
        let sum = gradient.map_or(&mut none, |(gradient, _)| gradient);
        stack.device.for_blocks(job, sum, &|device, block, sum, keep| {
            Ok(stack.with_work(size, |work| {
                let columns = block.len();
                part.load(device, selection.part(block.clone()), &mut work.pass);
                stack.forward(device, at, &mut work.pass, columns);
                let Some(factor) = factor else { return stack.loss(device, &work.pass, None, columns) };
                let loss = stack.loss(device, &work.pass, Some((&mut work.flow, factor)), columns);
                stack.backward(device, at, &work.pass, &mut work.flow, columns, false, sum, keep);
                loss
            }))
        })
    }

    /// Outputs of rows of a part, `rows x outputs`, and with them the sum of losses and of squared errors.
    fn outputs(&self, part: &Part, at: &Array) -> Result<(Vec<f32>, f64, f64)> {
        let stack = &self.stack;
        let (rows, k) = (part.rows.len(), stack.outputs());
        let job = stack.job(rows, 0);
        let size = stack.device.block_rows(job);
        let outputs = Mutex::new(vec![0.0; if self.is_autoencoder() { 0 } else { rows * k }]);
        let squares = Mutex::new(vec![0.0; rows.div_ceil(size)]);
        let loss = stack.device.for_blocks(job, &mut stack.device.zeros(0), &|device, block, _, _| {
            Ok(stack.with_work(size, |work| {
                let columns = block.len();
                part.load(device, Selection::Range(block.start, block.end), &mut work.pass);
                stack.forward(device, at, &mut work.pass, columns);
                let loss = stack.loss(device, &work.pass, None, columns);
                if self.is_autoencoder() {
                    let error = stack.squared_error(device, work, columns);
                    squares.lock().unwrap_or_else(PoisonError::into_inner)[block.start / size] = error;
                } else {
                    let values = device.download(work.pass.outputs(columns));
                    let mut outputs = outputs.lock().unwrap_or_else(PoisonError::into_inner);
                    for (row, to) in outputs[block.start * k..block.end * k].chunks_exact_mut(k).enumerate() {
                        to.iter_mut().enumerate().for_each(|(unit, to)| *to = values[unit * columns + row]);
                    }
                }
                loss
            }))
        })?;
        let squares = squares.into_inner().unwrap_or_else(PoisonError::into_inner).iter().sum();
        Ok((outputs.into_inner().unwrap_or_else(PoisonError::into_inner), loss, squares))
    }

    /// The class that outputs speak for; of several equal ones the first.
    fn class_of(&self, outputs: &[f32]) -> usize {
        match outputs {
            [one] => usize::from(*one > self.stack.loss.threshold()),
            several => (1..several.len()).fold(0, |best, k| if several[k] > several[best] { k } else { best }),
        }
    }

    /// The Gram matrix of the standardized training inputs.
    fn input_gram(&self) -> Result<Array2<f64>> {
        let stack = &self.stack;
        let d = stack.inputs();
        let job = stack.job(self.train.rows.len(), d * d);
        let size = stack.device.block_rows(job);
        let mut gram = stack.device.zeros(d * d);
        stack.device.for_blocks(job, &mut gram, &|device, block, sum, keep| {
            stack.with_work(size, |work| {
                self.train.load(device, Selection::Range(block.start, block.end), &mut work.pass);
                let x = work.pass.inputs.view(block.len());
                device.product(sum.view_mut(0, d, d), keep, x, x.t());
            });
            Ok(0.0)
        })?;
        let values = stack.device.download(gram.view(0, d, d)).into_iter().map(f64::from).collect();
        Array2::from_shape_vec((d, d), values).map_err(|e| Error::Numeric(e.to_string()))
    }

    fn start(&self, rng: &mut ChaCha8Rng) -> Result<Vector> {
        let mut values = Vec::with_capacity(self.stack.layout.len());
        for (l, layer) in self.stack.layers.iter().enumerate() {
            values.extend(match self.initialization {
                Initialization::LeastSquares if l == 0 => initialization::fit_of_noise(
                    layer.inputs,
                    layer.outputs,
                    self.input_gram()?,
                    self.train.rows.len(),
                    rng,
                )?,
                other => other.draw(layer, rng),
            });
        }
        Vector::from_values(&self.stack.layout, values)
    }
}

impl Problem for Network {
    fn layout(&self) -> &Arc<Layout> {
        &self.stack.layout
    }

    fn rows(&self) -> usize {
        self.train.rows.len()
    }

    fn gradient_flops(&self) -> f64 {
        self.cost(self.train.rows.len(), 2.0, 1.0).flops
    }

    fn hidden_matrices(&self) -> Vec<String> {
        (1..self.stack.layers.len()).map(|l| format!("layer{l}.weight")).collect()
    }

    fn initial(&self, rng: &mut ChaCha8Rng) -> Vector {
        self.start(rng).unwrap_or_else(|_| {
            // Inputs that are not finite: the first value will say so.
            Vector::zeros(&self.stack.layout)
        })
    }

    fn value(&self) -> Offer<&dyn Value> {
        Ok(self)
    }

    fn gradient(&self) -> Offer<&dyn Gradient> {
        Ok(self)
    }

    fn curvature(&self) -> Offer<&dyn Curvature> {
        if self.stack.loss.is_hinge() {
            return Err("the hinge loss is linear wherever it has a derivative: its Gauss-Newton matrix is zero".into());
        }
        Ok(self)
    }

    fn squared_gradients(&self) -> Offer<&dyn SquaredGradients> {
        Ok(self)
    }

    fn normal_equations(&self) -> Offer<&dyn NormalEquations> {
        Err("it is no generalized linear model as a whole; irls-gradient takes its last layer, which is one".into())
    }

    fn head_equations(&self) -> Offer<&dyn HeadEquations> {
        self.head()
    }

    fn kronecker_factors(&self) -> Offer<&dyn KroneckerFactors> {
        self.factored()
    }

    fn layer_splitting(&self) -> Offer<&dyn LayerSplitting> {
        self.splitting()
    }

    fn consensus(&self) -> Offer<&dyn Consensus> {
        Err("a network's units can be exchanged, so copies fitted on row blocks have no common mean".into())
    }
}

impl Value for Network {
    fn value(&self, at: &Vector, rows: Rows<'_>) -> Result<Answer<f64>> {
        let (selection, divisor) = self.selection(rows);
        let loss = self.pass(&self.train, at.array(), selection, None)?;
        let value = loss / divisor + self.penalty(at.array(), rows);
        Ok(Answer { value, cost: self.cost(selection.len(), 1.0, 0.0) })
    }
}

impl Gradient for Network {
    fn value_and_gradient(&self, at: &Vector, rows: Rows<'_>, gradient: &mut Vector) -> Result<Answer<f64>> {
        let (selection, divisor) = self.selection(rows);
        let loss = self.pass(&self.train, at.array(), selection, Some((gradient.array_mut(), 1.0 / divisor)))?;
        self.add_ridge(at.array(), rows, gradient.array_mut());
        let value = loss / divisor + self.penalty(at.array(), rows);
        Ok(Answer { value, cost: self.cost(selection.len(), 2.0, 1.0) })
    }
}

impl SquaredGradients for Network {
    fn mean_squared_gradient(&self, at: &Vector, rows: Rows<'_>, squares: &mut Vector) -> Result<Cost> {
        let (selection, _) = self.selection(rows);
        let stack = &self.stack;
        let job = stack.job(selection.len(), stack.layout.len());
        let size = stack.device.block_rows(job);
        let at = at.array();
        stack.device.for_blocks(job, squares.array_mut(), &|device, block, sum, keep| {
            stack.with_work(size, |work| {
                let columns = block.len();
                self.train.load(device, selection.part(block.clone()), &mut work.pass);
                stack.forward(device, at, &mut work.pass, columns);
                stack.loss(device, &work.pass, Some((&mut work.flow, 1.0)), columns);
                stack.backward(device, at, &work.pass, &mut work.flow, columns, true, sum, keep);
            });
            Ok(0.0)
        })?;
        squares.scale(1.0 / selection.len().max(1) as f64);
        if self.ridge > 0.0 {
            let mut ones = stack.device.zeros(stack.layout.len());
            stack.device.fill(&mut ones, 1.0);
            self.add_ridge(&ones, Rows::All, squares.array_mut());
        }
        Ok(self.cost(selection.len(), 2.0, 1.0))
    }
}

impl Model for Network {
    fn evaluate(&self, parameters: &Vector, split: Split) -> Result<Evaluation> {
        let part = self.part(split);
        let rows = part.rows.len();
        if rows == 0 {
            return Ok(Evaluation::default());
        }
        let (outputs, loss, squares) = self.outputs(part, parameters.array())?;
        let mut evaluation = Evaluation { loss: Some(loss / rows as f64), ..Evaluation::default() };
        if self.is_autoencoder() {
            evaluation.squared_error = Some(squares / rows as f64);
        } else if matches!(self.task, Task::Classes(_)) {
            let k = self.stack.outputs();
            let right =
                outputs.chunks_exact(k).enumerate().filter(|(i, o)| self.class_of(o) == part.label(*i) as usize);
            evaluation.accuracy = Some(right.count() as f64 / rows as f64);
            if matches!(&self.task, Task::Classes(classes) if classes.len() == 2) && split != Split::Train {
                let score = |o: &[f32]| f64::from(o[k - 1]) - if k == 2 { f64::from(o[0]) } else { 0.0 };
                let scores: Vec<f64> = outputs.chunks_exact(k).map(score).collect();
                evaluation.auc = area_under_curve(&scores, |i| part.label(i) == 1.0);
            }
        } else {
            evaluation.squared_error = Some(2.0 * loss / rows as f64);
        }
        Ok(evaluation)
    }

    fn row_outcomes(&self, parameters: &Vector, split: Split) -> Result<Option<RowOutcomes>> {
        let part = self.part(split);
        // An autoencoder's outputs are as many as its inputs: they are summed where they arise.
        if part.rows.is_empty() || self.is_autoencoder() {
            return Ok(None);
        }
        let (outputs, ..) = self.outputs(part, parameters.array())?;
        let (k, has_classes) = (self.stack.outputs(), matches!(self.task, Task::Classes(_)));
        let row = |i: usize| {
            let (own, label) = (&outputs[i * k..(i + 1) * k], f64::from(part.label(i)));
            // Of classes, one output has the label as its target, several have indicators.
            let target = |unit: usize| match has_classes && k > 1 {
                true => f64::from(u8::from(unit == label as usize)),
                false => f64::from(part.labels.get(part.rows.start + i, unit)),
            };
            let values = own.iter().map(|&o| f64::from(o));
            let sum = |one: &dyn Fn(f64, f64) -> f64| {
                values.clone().enumerate().map(|(unit, o)| one(o, target(unit))).sum::<f64>()
            };
            let loss = match self.stack.loss {
                Loss::Softmax => softmax_loss(values.clone(), label as usize),
                Loss::Logistic => sum(&logistic_loss),
                Loss::Squared => sum(&|o, y| 0.5 * (o - y) * (o - y)),
                Loss::Hinge => sum(&|o, y| (1.0 - (2.0 * y - 1.0) * o).max(0.0)),
                Loss::UnitHinge => sum(&|o, y| if y > 0.5 { 1.0 - o } else { o }.max(0.0)),
            };
            (loss, has_classes && self.class_of(own) == label as usize)
        };
        let mut outcomes = RowOutcomes::collect(part.rows.len(), has_classes, row);
        if !has_classes {
            let parts = outcomes.loss.iter().map(|loss| 2.0 * loss).collect();
            let weights = vec![1.0; outcomes.loss.len()];
            outcomes.ratios.push(RowRatio { metric: "squared_error", parts, weights });
        }
        Ok(Some(outcomes))
    }

    fn objective(&self, parameters: &Vector) -> Result<(f64, Option<f64>)> {
        let mut gradient = parameters.zeros_like();
        let value = Gradient::value_and_gradient(self, parameters, Rows::All, &mut gradient)?.value;
        Ok((value, Some(gradient.norm_max())))
    }

    fn parameter_counts(&self, parameters: &Vector) -> ParameterCounts {
        let total = parameters.len() as u64;
        ParameterCounts { total, active: total, nonzero: parameters.nonzero() as u64, bytes: parameters.bytes() }
    }

    fn weights(&self, parameters: &Vector) -> Weights {
        let mut weights = Weights { single_precision: true, ..Weights::default() };
        let values = parameters.to_host();
        for block in self.stack.layout.blocks() {
            let shape = if block.rows == 1 && block.name.ends_with("bias") {
                vec![block.columns]
            } else {
                vec![block.rows, block.columns]
            };
            weights.tensors.insert(block.name.clone(), (shape, values[block.range()].to_vec()));
        }
        weights.tensors.insert("input.shift".into(), (vec![self.shift.len()], self.shift.clone()));
        weights.tensors.insert("input.factor".into(), (vec![self.factor.len()], self.factor.clone()));
        let json = |names: &[String]| serde_json::to_string(names).unwrap_or_default();
        let classes: &[String] = if let Task::Classes(classes) = &self.task { classes } else { &[] };
        let texts = [("model", self.name.to_owned()), ("columns", json(&self.columns)), ("classes", json(classes))];
        for (key, value) in texts.into_iter().chain(self.metadata.iter().cloned()) {
            weights.metadata.insert(key.into(), value);
        }
        weights
    }

    fn is_convex(&self) -> bool {
        false
    }
}
