//! Mixtures of experts on tables: every row is a token.
//!
//! A gate `g(x) = softmax(V x + a)` weighs `K` experts, each a logistic regression or a small network with one layer of
//! rectifiers. With soft routing `P(y | x) = sum_k g_k(x) P_k(y | x)` and the loss is `-ln P(y | x)` (Jacobs, Jordan, Nowlan and
//! Hinton 1991; Jordan and Jacobs 1994). With top-1 routing the most probable expert alone answers, its outputs times the
//! gate's value as in a Switch layer (Fedus, Zoph and Shazeer 2021), and `balance K sum_k s_k mean(g_k)` is added, `s_k` the share
//! of rows that expert `k` gets, which no derivative is taken of.
//!
//! The objective is `F = (1/n) sum_i loss_i + balance + ridge/2 |weights|^2`, biases apart. It is not convex, and permuting
//! experts changes nothing in it. Parameters are `f64`; two classes have one output, `c` classes `c - 1`.

mod equations;
mod evaluation;
mod parts;
mod predictor;
mod splitting;

use super::glm::fit_transform;
use super::network::initialization::fit_of_noise;
use super::rows::selected;
use super::{Build, ModelData, ModelEntry, Split};
use crate::data::{Examples, Task};
use crate::device::cpu::design::{Design, Expansion, Selection, Transform};
use crate::device::cpu::glm::{self, GramWeights, Likelihood};
use crate::device::cpu::mixture::{self, Request, Routing, Shape, Sums};
use crate::error::{Error, Result};
use crate::oracle::{
    Answer, CompleteEquations, Consensus, Cost, Curvature, CurvatureMatrix, Gradient, KroneckerFactors, Layer,
    LayerSplitting, Layout, NormalEquations, Offer, Problem, Rows, Setting, Settings, SquaredGradients, Value, Vector,
};
use ndarray::Array2;
use parts::Parts;
use predictor::MixturePredictor;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use std::sync::Arc;

/// The registered model.
pub const MIXTURE: ModelEntry = ModelEntry {
    name: "mixture",
    summary: "mixture of experts: a linear gate and logistic regressions or small networks, for classes",
    paper: "Jordan and Jacobs 1994; top-1 routing: Fedus, Zoph and Shazeer 2021",
    settings: &[
        Setting::whole("experts", "4", 1, 1024, "K: how many there are"),
        Setting::choice(
            "expert",
            "logistic",
            &["logistic", "relu"],
            "logistic regressions, or networks with rectifiers",
        ),
        Setting::whole("hidden", "16", 1, 4096, "rectifiers of each expert").of("expert", &["relu"]),
        Setting::choice(
            "routing",
            "soft",
            &["soft", "top-1"],
            "soft: all experts' probabilities, weighed by the gate; top-1: the most probable expert, its outputs times the gate",
        ),
        Setting::real(
            "balance",
            "0.01",
            0.0,
            f64::INFINITY,
            "alpha: weight of the loss that keeps experts equally busy",
        )
        .log()
        .of("routing", &["top-1"]),
        Setting::real(
            "spread",
            "0.1",
            0.0,
            1e3,
            "standard deviation of the starting weights of gate and logistic experts",
        )
        .log(),
        Setting::choice(
            "initialization",
            "least-squares",
            &["least-squares", "he"],
            "where rectifiers start: least-squares: fits of noise, as small as noise lets them be; he: N(0, 2/inputs)",
        )
        .of("expert", &["relu"]),
        Setting::real("ridge", "0", 0.0, f64::INFINITY, "half of it times all squared weights is added, biases apart")
            .log(),
        Setting::switch("standardize", "true", "give every input mean 0 and standard deviation 1 on the training rows"),
        Setting::choice("accuracy", "fast", &["fast", "high"], "sums of f32 products, or f64 throughout"),
    ],
    random_start: true,
    build: Build::Table(|data, settings| Ok(Box::new(Mixture::build(data, settings)?))),
    predictor: |weights| Ok(Box::new(MixturePredictor::from_weights(weights)?)),
};

/// A mixture of experts on data.
pub struct Mixture {
    parts: Parts,
    balance: f64,
    spread: f64,
    fits_noise: bool,
    ridge: f64,
    high: bool,
    transform: Arc<Transform>,
    train: Design,
    validation: Design,
    test: Design,
    columns: Vec<String>,
    classes: Vec<String>,
}

/// Operations per row and unit that are no products: exponentials, logarithms, divisions.
const UNIT_FLOPS: f64 = 30.0;

impl Mixture {
    /// Builds the mixture on data.
    ///
    /// # Errors
    /// If the target is no class, or the training rows are none or of one class.
    pub fn build(data: &ModelData, settings: &Settings) -> Result<Self> {
        let unfit = |finding: String, remedy: &str| Err(Error::config("model mixture", finding, remedy));
        let Task::Classes(classes) = &data.task else {
            return unfit("the target is a real number, not a class".into(), "choose a target column of classes");
        };
        if classes.len() < 2 {
            return unfit(format!("the target has {} classes", classes.len()), "it takes two or more");
        }
        if data.train.rows() == 0 {
            return unfit("there are no training rows".into(), "give the training split a larger share");
        }
        let targets = &data.train.targets.values()[data.train.range.clone()];
        if targets.iter().all(|target| *target == targets[0]) {
            let name = &classes[targets[0] as usize];
            let remedy = "split so that training rows of every class remain: at random, stratified or by folds";
            return unfit(format!("all training rows are of one class, {name}"), remedy);
        }
        let is_relu = settings.word("expert") == "relu";
        let routing = if settings.word("routing") == "top-1" { Routing::TopOne } else { Routing::Soft };
        let shape = Shape {
            experts: settings.whole("experts"),
            hidden: if is_relu { settings.whole("hidden") } else { 0 },
            outputs: classes.len() - 1,
            routing,
        };
        let transform = fit_transform(&data.train, Expansion::Linear, true, settings.switch("standardize"));
        let design =
            |e: &Examples| Design::new(e.features.clone(), e.targets.clone(), e.range.clone(), Arc::clone(&transform));
        Ok(Self {
            parts: Parts::new(shape, data.columns.len()),
            balance: if routing == Routing::TopOne { settings.real("balance") } else { 0.0 },
            spread: settings.real("spread"),
            fits_noise: is_relu && settings.word("initialization") == "least-squares",
            ridge: settings.real("ridge"),
            high: settings.word("accuracy") == "high",
            train: design(&data.train),
            validation: design(&data.validation),
            test: design(&data.test),
            transform,
            columns: data.columns.clone(),
            classes: classes.clone(),
        })
    }

    fn shape(&self) -> Shape {
        self.parts.shape
    }

    fn split(&self, split: Split) -> &Design {
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

    /// Parameters in the order of a pass.
    fn packed(&self, at: &Vector) -> Vec<f64> {
        let values = at.host();
        self.parts.places.iter().map(|&place| values[place]).collect()
    }

    /// Sums in the order of a pass, divided, into a vector.
    fn unpack(&self, sums: &[f64], divisor: f64, to: &mut Vector) {
        let values = to.host_mut();
        self.parts.places.iter().zip(sums).for_each(|(&place, sum)| values[place] = sum / divisor);
    }

    /// `alpha K s_k`: the derivatives of the balance in the gate's mean values; empty where there is none. Parts of the rows
    /// leave it to the whole, as they do the ridge.
    fn balance_slopes(&self, theta: &[f64], rows: Rows<'_>, high: bool) -> (Vec<f64>, Cost) {
        if self.balance == 0.0 || matches!(rows, Rows::Part { .. }) {
            return (Vec::new(), Cost::default());
        }
        let (selection, divisor) = self.selection(rows);
        let loads = mixture::loads(&self.train, self.shape(), theta, selection, high);
        let experts = self.shape().experts as f64;
        let slopes = loads.iter().map(|load| self.balance * experts * load / divisor).collect();
        let gate = 2.0 * experts * self.parts.columns() as f64 + UNIT_FLOPS * experts;
        (slopes, self.cost_of(selection.len(), gate))
    }

    /// The objective from the sums of a pass over `rows`.
    fn objective_of(&self, at: &Vector, sums: &Sums, rows: Rows<'_>) -> f64 {
        let (_, divisor) = self.selection(rows);
        let mut value = sums.loss / divisor;
        if matches!(rows, Rows::Part { .. }) {
            return value;
        }
        if self.balance > 0.0 {
            let products = sums.loads.iter().zip(&sums.gates).map(|(load, gate)| load * gate).sum::<f64>();
            value += self.balance * self.shape().experts as f64 * products / divisor.powi(2);
        }
        if self.ridge > 0.0 {
            let weights = at.host().iter().enumerate().filter(|(i, _)| self.parts.is_weight(*i));
            value += 0.5 * self.ridge * weights.map(|(_, w)| w * w).sum::<f64>();
        }
        value
    }

    /// Adds `ridge v` at weights to something of the parameters' shape.
    fn add_ridge(&self, v: &Vector, rows: Rows<'_>, to: &mut Vector) {
        if self.ridge > 0.0 && !matches!(rows, Rows::Part { .. }) {
            for (i, (to, v)) in to.host_mut().iter_mut().zip(v.host()).enumerate() {
                *to += if self.parts.is_weight(i) { self.ridge * v } else { 0.0 };
            }
        }
    }

    fn cost_of(&self, rows: usize, flops: f64) -> Cost {
        Cost { rows: rows as u64, flops: rows as f64 * flops, bytes: rows as f64 * self.train.row_bytes() }
    }

    /// A pass that meets every parameter `products` times: 1 forward, 2 with the gradient.
    fn cost(&self, rows: usize, products: f64) -> Cost {
        let shape = self.shape();
        let units = shape.rows() + shape.experts * shape.outputs;
        let inputs = 2.0 * self.parts.inputs as f64;
        self.cost_of(rows, inputs + 2.0 * products * self.parts.layout.len() as f64 + UNIT_FLOPS * units as f64)
    }

    /// Objective and gradient over `rows`, with the pass's other sums, in `f64` throughout if `high`.
    fn slope(&self, at: &Vector, rows: Rows<'_>, high: bool, gradient: &mut Vector) -> (f64, Cost) {
        let theta = self.packed(at);
        let (selection, divisor) = self.selection(rows);
        let (balance, mut cost) = self.balance_slopes(&theta, rows, high);
        let request = Request { gradient: true, squares: false, balance: &balance };
        let sums = mixture::pass(&self.train, self.shape(), &theta, selection, request, high);
        self.unpack(&sums.gradient, divisor, gradient);
        self.add_ridge(at, rows, gradient);
        cost += self.cost(selection.len(), 2.0);
        (self.objective_of(at, &sums, rows), cost)
    }

    /// The lower triangle of the Gram matrix of the design, its intercept first, over all training rows, in `f64`.
    fn design_gram(&self) -> (Vec<f64>, Cost) {
        let columns = self.parts.columns();
        let request = glm::Request { gradient: false, squares: false, gram: GramWeights::Unit };
        let all = Selection::Range(0, self.train.rows());
        let gram = glm::pass(&self.train, Likelihood::Gaussian, &vec![0.0; columns], all, request, true).gram;
        (gram, self.cost_of(self.train.rows(), (columns * (columns + 1)) as f64))
    }

    fn start(&self, rng: &mut ChaCha8Rng) -> Result<Vector> {
        let mut start = Vector::zeros(&self.parts.layout);
        let mut normal = |rng: &mut ChaCha8Rng, layer: Layer, deviation: f64| {
            let weights = layer.inputs * layer.outputs;
            let values: Vec<f64> = (0..weights).map(|_| deviation * rng.sample::<f64, _>(StandardNormal)).collect();
            start.write(layer.start, &values);
        };
        normal(rng, self.parts.gate(), self.spread);
        let (inputs, hidden) = (self.parts.inputs, self.shape().hidden);
        let mut fits = Vec::new();
        for k in 0..self.shape().experts {
            let layer = self.parts.expert(k);
            if hidden == 0 {
                normal(rng, layer, self.spread);
                continue;
            }
            if self.fits_noise {
                let gram = self.design_gram().0;
                let gram = Array2::from_shape_fn((inputs, inputs), |(i, j)| {
                    gram[(i.max(j) + 1) * (inputs + 1) + i.min(j) + 1]
                });
                fits.push((layer.start, fit_of_noise(inputs, hidden, gram, self.train.rows(), rng)?));
            } else {
                normal(rng, layer, (2.0 / inputs.max(1) as f64).sqrt());
            }
            normal(rng, self.parts.output(k), (2.0 / hidden as f64).sqrt());
        }
        for (place, values) in fits {
            start.write(place, &values);
        }
        Ok(start)
    }
}

impl Problem for Mixture {
    fn layout(&self) -> &Arc<Layout> {
        &self.parts.layout
    }

    fn rows(&self) -> usize {
        self.train.rows()
    }

    fn gradient_flops(&self) -> f64 {
        self.cost(self.train.rows(), 2.0).flops
    }

    fn coordinate_names(&self) -> Vec<String> {
        self.parts.names(&self.columns, &self.classes)
    }

    fn hidden_matrices(&self) -> Vec<String> {
        let hidden = self.parts.all.iter().filter(|part| part.name.ends_with(".hidden"));
        hidden.map(|part| format!("{}.weight", part.name)).collect()
    }

    fn initial(&self, rng: &mut ChaCha8Rng) -> Vector {
        // Inputs that are not finite have no fit of noise: the first value will say so.
        self.start(rng).unwrap_or_else(|_| Vector::zeros(&self.parts.layout))
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
        self.has_equations().map(|()| self as &dyn NormalEquations)
    }

    fn complete_equations(&self) -> Offer<&dyn CompleteEquations> {
        self.has_equations()?;
        if self.shape().routing == Routing::TopOne {
            return Err(
                "with top-1 routing no expert is hidden: likelihood = \"observed\" takes its Gauss-Newton matrix"
                    .into(),
            );
        }
        Ok(self)
    }

    fn kronecker_factors(&self) -> Offer<&dyn KroneckerFactors> {
        Err("its experts' parts are not layers one after another".into())
    }

    fn layer_splitting(&self) -> Offer<&dyn LayerSplitting> {
        self.has_splitting().map(|()| self as &dyn LayerSplitting)
    }

    fn consensus(&self) -> Offer<&dyn Consensus> {
        Err("a mixture's experts can be exchanged, so copies fitted on row blocks have no common mean".into())
    }
}

impl Value for Mixture {
    fn value(&self, at: &Vector, rows: Rows<'_>) -> Result<Answer<f64>> {
        let (selection, _) = self.selection(rows);
        let sums = mixture::pass(&self.train, self.shape(), &self.packed(at), selection, Request::default(), self.high);
        Ok(Answer { value: self.objective_of(at, &sums, rows), cost: self.cost(selection.len(), 1.0) })
    }
}

impl Gradient for Mixture {
    fn value_and_gradient(&self, at: &Vector, rows: Rows<'_>, gradient: &mut Vector) -> Result<Answer<f64>> {
        let (value, cost) = self.slope(at, rows, self.high, gradient);
        Ok(Answer { value, cost })
    }
}

impl SquaredGradients for Mixture {
    fn mean_squared_gradient(&self, at: &Vector, rows: Rows<'_>, squares: &mut Vector) -> Result<Cost> {
        let theta = self.packed(at);
        let (selection, _) = self.selection(rows);
        let (balance, mut cost) = self.balance_slopes(&theta, rows, self.high);
        let request = Request { gradient: false, squares: true, balance: &balance };
        let sums = mixture::pass(&self.train, self.shape(), &theta, selection, request, self.high);
        self.unpack(&sums.squares, selection.len().max(1) as f64, squares);
        let mut ones = at.zeros_like();
        ones.fill(1.0);
        self.add_ridge(&ones, Rows::All, squares);
        cost += self.cost(selection.len(), 2.0);
        Ok(cost)
    }
}

struct MixtureCurvature<'a> {
    mixture: &'a Mixture,
    theta: Vec<f64>,
    rows: Rows<'a>,
}

impl CurvatureMatrix for MixtureCurvature<'_> {
    fn multiply(&self, v: &Vector, product: &mut Vector) -> Result<Cost> {
        let Self { mixture: of, theta, rows } = self;
        let (selection, divisor) = of.selection(*rows);
        let sums = mixture::multiply(&of.train, of.shape(), theta, &of.packed(v), selection, of.high);
        of.unpack(&sums, divisor, product);
        of.add_ridge(v, *rows, product);
        // Forward, along the tangent, and back.
        Ok(of.cost(selection.len(), 3.0))
    }
}

impl Curvature for Mixture {
    fn curvature_at<'a>(&'a self, at: &Vector, rows: Rows<'a>) -> Result<Answer<Box<dyn CurvatureMatrix + 'a>>> {
        let theta = self.packed(at);
        Ok(Answer { value: Box::new(MixtureCurvature { mixture: self, theta, rows }), cost: Cost::default() })
    }
}
