//! Generalized linear models: least squares, binary and multinomial logistic regression on inputs, their squares or
//! products.
//!
//! The objective is `F(theta) = (1/n) sum_i loss_i(theta) + R(theta)` in the mean convention: `R = strength/2 |theta|^2`
//! (ridge) or `strength |theta|_1` (l1), the intercept never penalized. In scikit-learn's terms `strength = 1/(n C)`.
//! The multinomial model fixes the first class's coefficients at zero when nothing else makes the optimum unique, and
//! gives every class its own coefficients under a ridge.
//!
//! Coefficients live on the host, in `f64`: they are few, and so is what is solved with them. Rows of data live on the device
//! that the model is built on, and passes over them run there.

mod consensus;
mod normal_equations;
mod predictor;
mod residuals;
mod statistics;

use super::rows::{logistic_loss, selected, softmax_loss};
use super::{
    Build, Evaluation, Inspection, Model, ModelData, ModelEntry, ParameterCounts, RowOutcomes, Split, Weights,
};
use crate::data::{Examples, Standardization, Task};
use crate::device::cpu::design::{Design, Expansion, Selection, Transform};
use crate::device::cpu::glm::{GramWeights, Likelihood, Request, Sums};
use crate::device::{self, Device, RowCurvature};
use crate::error::{Error, Result};
use crate::measure::metrics::area_under_curve;
use crate::oracle::{
    Answer, Consensus, Cost, Curvature, CurvatureMatrix, Gradient, KroneckerFactors, Layout, NormalEquations, Offer,
    Problem, RowResiduals, Rows, Setting, Settings, SquaredGradients, Value, Vector,
};
use predictor::GlmPredictor;
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

/// The largest number of coefficients for which the dense information matrix is formed: 800 MB in `f64`.
pub const DENSE_LIMIT: usize = 10_000;

const SETTINGS: [Setting; 6] = [
    Setting::choice(
        "features",
        "linear",
        &["linear", "squares", "products"],
        "columns made from the inputs: the inputs, their squares too, or all products of two",
    ),
    Setting::choice("regularizer", "none", &["none", "ridge", "l1"], "penalty on all coefficients but the intercept"),
    Setting::real("strength", "0", 0.0, f64::INFINITY, "strength of the penalty beside the mean loss").log(),
    Setting::switch("standardize", "true", "give every column mean 0 and standard deviation 1 on the training rows"),
    Setting::switch("intercept", "true", "add a constant column"),
    Setting::choice("accuracy", "fast", &["fast", "high"], "sums of f32 products, or f64 throughout"),
];

const SOFTMAX_SETTINGS: [Setting; 7] = [
    SETTINGS[0],
    SETTINGS[1],
    SETTINGS[2],
    SETTINGS[3],
    SETTINGS[4],
    SETTINGS[5],
    Setting::choice(
        "reference",
        "auto",
        &["auto", "yes", "no"],
        "fix the first class's coefficients at zero; auto: yes unless a ridge makes the optimum unique",
    ),
];

/// Binary logistic regression.
pub const LOGISTIC: ModelEntry = ModelEntry {
    name: "logistic",
    summary: "binary logistic regression on the inputs, their squares or products",
    paper: "McCullagh and Nelder 1989, chapter 4",
    settings: &SETTINGS,
    random_start: false,
    build: Build::Table(|data, settings| Ok(Box::new(Glm::build(data, settings, Kind::Logistic)?))),
    predictor: |weights| Ok(Box::new(GlmPredictor::from_weights(weights)?)),
};

/// Multinomial logistic regression.
pub const SOFTMAX: ModelEntry = ModelEntry {
    name: "softmax",
    summary: "multinomial logistic regression on the inputs, their squares or products",
    paper: "McCullagh and Nelder 1989, chapter 5; bound of the information: Böhning 1992",
    settings: &SOFTMAX_SETTINGS,
    random_start: false,
    build: Build::Table(|data, settings| Ok(Box::new(Glm::build(data, settings, Kind::Softmax)?))),
    predictor: |weights| Ok(Box::new(GlmPredictor::from_weights(weights)?)),
};

/// Linear regression.
pub const LEAST_SQUARES: ModelEntry = ModelEntry {
    name: "least-squares",
    summary: "linear regression of a real number on the inputs, their squares or products",
    paper: "Gauss 1809; McCullagh and Nelder 1989, chapter 3",
    settings: &SETTINGS,
    random_start: false,
    build: Build::Table(|data, settings| Ok(Box::new(Glm::build(data, settings, Kind::LeastSquares)?))),
    predictor: |weights| Ok(Box::new(GlmPredictor::from_weights(weights)?)),
};

/// Which of the registered models is built.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Logistic,
    Softmax,
    LeastSquares,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Regularizer {
    None,
    Ridge(f64),
    L1(f64),
}

/// A generalized linear model on data.
pub struct Glm {
    name: &'static str,
    likelihood: Likelihood,
    regularizer: Regularizer,
    high: bool,
    device: Device,
    layout: Arc<Layout>,
    transform: Arc<Transform>,
    train: Design,
    validation: Design,
    test: Design,
    inputs: Vec<String>,
    classes: Vec<String>,
}

impl Glm {
    fn build(data: &ModelData, settings: &Settings, kind: Kind) -> Result<Self> {
        let name = match kind {
            Kind::Logistic => LOGISTIC.name,
            Kind::Softmax => SOFTMAX.name,
            Kind::LeastSquares => LEAST_SQUARES.name,
        };
        let unfit = |finding: String, remedy: &str| Error::config(format!("model {name}"), finding, remedy);
        let classes = match &data.task {
            Task::Classes(classes) => &classes[..],
            Task::Regression => &[],
        };
        let several = data.train.targets.columns();
        if several > 1 {
            let remedy = "name one column as the target, or choose `mlp` or `switch-layer`, which fit several";
            return Err(unfit(format!("there are {several} targets"), remedy));
        }
        match (&data.task, kind) {
            (Task::Regression, Kind::LeastSquares) => {}
            (Task::Regression, _) => {
                let remedy = "choose a target column of classes, or the model `least-squares`";
                return Err(unfit("the target is a real number, not a class".into(), remedy));
            }
            (Task::Classes(_), Kind::LeastSquares) => {
                let remedy = "`logistic` and `softmax` take classes; if they are numbers, read the file with \
                              task = \"regression\"";
                return Err(unfit(format!("the target has {} classes", classes.len()), remedy));
            }
            _ if classes.len() < 2 || (kind == Kind::Logistic && classes.len() > 2) => {
                let remedy = "`logistic` takes two classes, `softmax` two or more";
                return Err(unfit(format!("the target has {} classes", classes.len()), remedy));
            }
            _ => {}
        }
        if data.train.rows() == 0 {
            return Err(unfit("there are no training rows".into(), "give the training split a larger share"));
        }
        let targets = &data.train.targets.values()[data.train.range.clone()];
        if kind != Kind::LeastSquares && targets.iter().all(|target| *target == targets[0]) {
            let name = &classes[targets[0] as usize];
            let remedy = "split so that training rows of every class remain: at random, stratified or by folds";
            return Err(unfit(format!("all training rows are of one class, {name}"), remedy));
        }
        let strength = settings.real("strength");
        let regularizer = match settings.word("regularizer") {
            "ridge" => Regularizer::Ridge(strength),
            "l1" => Regularizer::L1(strength),
            _ if strength > 0.0 => {
                return Err(unfit(
                    format!("strength = {strength} without a regularizer"),
                    "add regularizer = \"ridge\" or \"l1\", or leave strength out",
                ));
            }
            _ => Regularizer::None,
        };
        let expansion = match settings.word("features") {
            "squares" => Expansion::Squares,
            "products" => Expansion::Products,
            _ => Expansion::Linear,
        };
        let transform =
            fit_transform(&data.train, expansion, settings.switch("intercept"), settings.switch("standardize"));
        let likelihood = match kind {
            Kind::Logistic => Likelihood::Binary,
            Kind::LeastSquares => Likelihood::Gaussian,
            Kind::Softmax => {
                let unique = matches!(regularizer, Regularizer::Ridge(s) if s > 0.0);
                let reference = match settings.word("reference") {
                    "yes" => true,
                    "no" => false,
                    _ => !unique,
                };
                Likelihood::Multinomial { classes: classes.len(), reference }
            }
        };
        let device = device::current();
        let design = |e: &Examples| {
            let design = Design::new(e.features.clone(), e.targets.clone(), e.range.clone(), Arc::clone(&transform));
            device.regression().keep_rows(&design);
            design
        };
        let (train, validation, test) = (design(&data.train), design(&data.validation), design(&data.test));
        Ok(Self {
            name,
            device,
            likelihood,
            regularizer,
            high: settings.word("accuracy") == "high",
            layout: Layout::new([("coefficients", likelihood.outputs(), transform.columns())]),
            train,
            validation,
            test,
            transform,
            inputs: data.columns.clone(),
            classes: classes.to_vec(),
        })
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

    /// Sums over training rows, in `f64` throughout if `high`, where the rows live.
    fn sums(&self, at: &Vector, selection: Selection<'_>, request: Request, high: bool) -> Result<Sums> {
        self.device.regression().pass(&self.train, self.likelihood, at.host(), selection, request, high)
    }

    fn pass(&self, at: &Vector, selection: Selection<'_>, request: Request) -> Result<(Sums, Cost)> {
        let sums = self.sums(at, selection, request, self.high)?;
        Ok((sums, self.cost(selection.len(), request)))
    }

    /// Operations and bytes of a pass: a multiplication and an addition count as two.
    fn cost(&self, rows: usize, request: Request) -> Cost {
        let d = self.train.columns() as f64;
        let c = self.likelihood.outputs() as f64;
        let mut per_row = self.make_flops() + 2.0 * c * d + ROW_FLOPS * c;
        if request.gradient {
            per_row += 2.0 * c * d;
        }
        if request.squares {
            per_row += 3.0 * c * d;
        }
        if request.gram != GramWeights::None {
            per_row += d * (d + 1.0);
        }
        Cost { rows: rows as u64, flops: rows as f64 * per_row, bytes: rows as f64 * self.train.row_bytes() }
    }

    /// Operations that make one row of the design from its inputs.
    fn make_flops(&self) -> f64 {
        let inputs = self.transform.inputs() as f64;
        2.0 * inputs + 3.0 * (self.train.columns() as f64 - inputs - 1.0).max(0.0)
    }

    /// Adds the ridge to a mean loss, and to its gradient where there is one. Parts leave it to the whole.
    fn add_ridge(&self, at: &Vector, rows: Rows<'_>, loss: f64, gradient: Option<&mut Vector>) -> f64 {
        let (Regularizer::Ridge(strength), Rows::All | Rows::Batch(_)) = (self.regularizer, rows) else {
            return loss;
        };
        let mut squares = 0.0;
        for (i, &t) in at.host().iter().enumerate() {
            if self.is_penalized(i) {
                squares += t * t;
            }
        }
        if let Some(gradient) = gradient {
            for (i, (g, &t)) in gradient.host_mut().iter_mut().zip(at.host()).enumerate() {
                if self.is_penalized(i) {
                    *g += strength * t;
                }
            }
        }
        loss + 0.5 * strength * squares
    }

    fn is_penalized(&self, coordinate: usize) -> bool {
        !(self.transform.intercept() && coordinate.is_multiple_of(self.train.columns()))
    }

    fn lacks_gradient(&self) -> Offer<()> {
        match self.regularizer {
            Regularizer::L1(strength) if strength > 0.0 => Err(
                "the l1 penalty has no gradient where a coefficient is zero; admm reaches it through its proximal step"
                    .into(),
            ),
            _ => Ok(()),
        }
    }

    /// Names of design columns, the intercept first.
    fn column_names(&self) -> Vec<String> {
        let intercept = self.transform.intercept().then(|| "(intercept)".to_owned());
        intercept.into_iter().chain(self.transform.expansion().names(&self.inputs)).collect()
    }
}

/// Operations per row and linear predictor that are neither products with the design nor its making.
const ROW_FLOPS: f64 = 30.0;

/// The transform of a design, standardized on the training rows if so.
pub(super) fn fit_transform(
    train: &Examples,
    expansion: Expansion,
    intercept: bool,
    standardize: bool,
) -> Arc<Transform> {
    let d = train.features.columns();
    if !standardize {
        return Arc::new(Transform::raw(d, expansion, intercept));
    }
    let inputs = Standardization::fit(train);
    let pairs = expansion.columns(d) - d;
    let (mut mean, mut sd) = (inputs.mean, inputs.scale);
    mean.resize(d + pairs, 0.0);
    sd.resize(d + pairs, 1.0);
    if pairs > 0 {
        // Squares and products of standardized inputs are standardized in their turn.
        let unscaled = Arc::new(Transform::standardized(expansion, false, d, &mean, &sd));
        let design = Design::new(train.features.clone(), train.targets.clone(), train.range.clone(), unscaled);
        let (pair_mean, pair_sd) = design.column_moments();
        mean[d..].copy_from_slice(&pair_mean[d..]);
        sd[d..].copy_from_slice(&pair_sd[d..]);
    }
    Arc::new(Transform::standardized(expansion, intercept, d, &mean, &sd))
}

impl Problem for Glm {
    fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    fn rows(&self) -> usize {
        self.train.rows()
    }

    fn coordinate_names(&self) -> Vec<String> {
        let names = self.column_names();
        match self.likelihood {
            Likelihood::Binary | Likelihood::Gaussian => names,
            Likelihood::Multinomial { classes, .. } => {
                let own = &self.classes[classes - self.likelihood.outputs()..];
                own.iter().flat_map(|class| names.iter().map(move |name| format!("{class}: {name}"))).collect()
            }
        }
    }

    fn gradient_flops(&self) -> f64 {
        let request = Request { gradient: true, squares: false, gram: GramWeights::None };
        self.cost(self.train.rows(), request).flops
    }

    fn initial(&self, _rng: &mut ChaCha8Rng) -> Vector {
        Vector::zeros(&self.layout)
    }

    fn value(&self) -> Offer<&dyn Value> {
        Ok(self)
    }

    fn gradient(&self) -> Offer<&dyn Gradient> {
        self.lacks_gradient().map(|()| self as &dyn Gradient)
    }

    fn curvature(&self) -> Offer<&dyn Curvature> {
        self.lacks_gradient().map(|()| self as &dyn Curvature)
    }

    fn squared_gradients(&self) -> Offer<&dyn SquaredGradients> {
        self.lacks_gradient().map(|()| self as &dyn SquaredGradients)
    }

    fn normal_equations(&self) -> Offer<&dyn NormalEquations> {
        self.lacks_gradient()?;
        let columns = self.train.columns();
        if columns > DENSE_LIMIT {
            let gigabytes = 8e-9 * (columns as f64).powi(2);
            return Err(format!(
                "the matrix of its {columns} design columns would take {gigabytes:.0} GB; it is formed up to {DENSE_LIMIT}"
            ));
        }
        Ok(self)
    }

    fn row_residuals(&self) -> Offer<&dyn RowResiduals> {
        Ok(self)
    }

    fn kronecker_factors(&self) -> Offer<&dyn KroneckerFactors> {
        Err("its one Fisher matrix is formed whole, for irls; mlp with hidden = \"none\" is the same model as a layer"
            .into())
    }

    fn consensus(&self) -> Offer<&dyn Consensus> {
        Ok(self)
    }
}

impl Value for Glm {
    fn value(&self, at: &Vector, rows: Rows<'_>) -> Result<Answer<f64>> {
        let (selection, divisor) = self.selection(rows);
        let request = Request { gradient: false, squares: false, gram: GramWeights::None };
        let (sums, cost) = self.pass(at, selection, request)?;
        let mut value = self.add_ridge(at, rows, sums.loss / divisor, None);
        if let (Regularizer::L1(strength), Rows::All | Rows::Batch(_)) = (self.regularizer, rows) {
            let penalized = at.host().iter().enumerate().filter(|(i, _)| self.is_penalized(*i));
            value += strength * penalized.map(|(_, t)| t.abs()).sum::<f64>();
        }
        Ok(Answer { value, cost })
    }
}

impl Gradient for Glm {
    fn value_and_gradient(&self, at: &Vector, rows: Rows<'_>, gradient: &mut Vector) -> Result<Answer<f64>> {
        let (selection, divisor) = self.selection(rows);
        let request = Request { gradient: true, squares: false, gram: GramWeights::None };
        let (sums, cost) = self.pass(at, selection, request)?;
        gradient.host_mut().iter_mut().zip(&sums.gradient).for_each(|(g, s)| *g = s / divisor);
        let value = self.add_ridge(at, rows, sums.loss / divisor, Some(gradient));
        Ok(Answer { value, cost })
    }
}

impl SquaredGradients for Glm {
    fn mean_squared_gradient(&self, at: &Vector, rows: Rows<'_>, squares: &mut Vector) -> Result<Cost> {
        let (selection, _) = self.selection(rows);
        let request = Request { gradient: false, squares: true, gram: GramWeights::None };
        let (sums, cost) = self.pass(at, selection, request)?;
        let rows = selection.len().max(1) as f64;
        let strength = if let Regularizer::Ridge(strength) = self.regularizer { strength } else { 0.0 };
        for (i, (g, s)) in squares.host_mut().iter_mut().zip(&sums.squares).enumerate() {
            *g = s / rows + if self.is_penalized(i) { strength } else { 0.0 };
        }
        Ok(cost)
    }
}

struct GlmCurvature<'a> {
    glm: &'a Glm,
    matrix: Box<dyn RowCurvature + 'a>,
    rows: Rows<'a>,
}

impl CurvatureMatrix for GlmCurvature<'_> {
    fn multiply(&self, v: &Vector, product: &mut Vector) -> Result<Cost> {
        let (selection, divisor) = self.glm.selection(self.rows);
        let sums = self.matrix.multiply(v.host())?;
        product.host_mut().iter_mut().zip(&sums).for_each(|(p, s)| *p = s / divisor);
        if let (Regularizer::Ridge(strength), Rows::All | Rows::Batch(_)) = (self.glm.regularizer, self.rows) {
            for (i, (p, &v)) in product.host_mut().iter_mut().zip(v.host()).enumerate() {
                if self.glm.is_penalized(i) {
                    *p += strength * v;
                }
            }
        }
        let request = Request { gradient: true, squares: false, gram: GramWeights::None };
        Ok(self.glm.cost(selection.len(), request))
    }
}

impl Curvature for Glm {
    fn curvature_at<'a>(&'a self, at: &Vector, rows: Rows<'a>) -> Result<Answer<Box<dyn CurvatureMatrix + 'a>>> {
        let (selection, _) = self.selection(rows);
        let regression = self.device.regression();
        let matrix = regression.curvature(&self.train, self.likelihood, at.host(), selection, self.high)?;
        let request = Request { gradient: false, squares: false, gram: GramWeights::None };
        let cost = self.cost(selection.len(), request);
        Ok(Answer { value: Box::new(GlmCurvature { glm: self, matrix, rows }), cost })
    }
}

impl Model for Glm {
    fn evaluate(&self, parameters: &Vector, split: Split) -> Result<Evaluation> {
        let design = self.split(split);
        let rows = design.rows();
        if rows == 0 {
            return Ok(Evaluation::default());
        }
        let all = Selection::Range(0, rows);
        let request = Request { gradient: false, squares: false, gram: GramWeights::None };
        let regression = self.device.regression();
        let sums = regression.pass(design, self.likelihood, parameters.host(), all, request, true)?;
        let auc = if self.likelihood == Likelihood::Binary && split != Split::Train {
            let scores = regression.linear_predictors(design, 1, parameters.host(), all)?;
            area_under_curve(&scores, |i| design.target(i) == 1.0)
        } else {
            None
        };
        let accuracy = (self.likelihood != Likelihood::Gaussian).then(|| sums.correct as f64 / rows as f64);
        Ok(Evaluation { loss: Some(sums.loss / rows as f64), accuracy, auc, ..Evaluation::default() })
    }

    fn row_outcomes(&self, parameters: &Vector, split: Split) -> Result<Option<RowOutcomes>> {
        let design = self.split(split);
        let rows = design.rows();
        if rows == 0 {
            return Ok(None);
        }
        let outputs = self.likelihood.outputs();
        let all = Selection::Range(0, rows);
        let eta = self.device.regression().linear_predictors(design, outputs, parameters.host(), all)?;
        let zeros = self.likelihood.classes().saturating_sub(outputs);
        let row = |i: usize| {
            let (eta, target) = (&eta[i * outputs..(i + 1) * outputs], f64::from(design.target(i)));
            match self.likelihood {
                Likelihood::Gaussian => (0.5 * (eta[0] - target).powi(2), false),
                Likelihood::Binary => (logistic_loss(eta[0], target), (eta[0] > 0.0) == (target == 1.0)),
                Likelihood::Multinomial { .. } => {
                    let logits = std::iter::repeat_n(0.0, zeros).chain(eta.iter().copied());
                    let values: Vec<f64> = logits.clone().collect();
                    let best = (1..values.len()).fold(0, |best, k| if values[k] > values[best] { k } else { best });
                    (softmax_loss(logits, target as usize), best == target as usize)
                }
            }
        };
        Ok(Some(RowOutcomes::collect(rows, self.likelihood != Likelihood::Gaussian, row)))
    }

    fn objective(&self, parameters: &Vector) -> Result<(f64, Option<f64>)> {
        let n = self.train.rows();
        let request = Request { gradient: true, squares: false, gram: GramWeights::None };
        let sums = self.sums(parameters, Selection::Range(0, n), request, true)?;
        if let Regularizer::L1(strength) = self.regularizer {
            let penalized = parameters.host().iter().enumerate().filter(|(i, _)| self.is_penalized(*i));
            let penalty = strength * penalized.map(|(_, t)| t.abs()).sum::<f64>();
            return Ok((sums.loss / n as f64 + penalty, None));
        }
        let gradient: Vec<f64> = sums.gradient.iter().map(|g| g / n as f64).collect();
        let mut gradient = Vector::from_values(&self.layout, gradient)?;
        let value = self.add_ridge(parameters, Rows::All, sums.loss / n as f64, Some(&mut gradient));
        Ok((value, Some(gradient.norm_max())))
    }

    fn parameter_counts(&self, parameters: &Vector) -> ParameterCounts {
        let total = parameters.len() as u64;
        ParameterCounts { total, active: total, nonzero: parameters.nonzero() as u64, bytes: parameters.bytes() }
    }

    fn weights(&self, parameters: &Vector) -> Weights {
        let mut weights = Weights::default();
        let (c, d) = (self.likelihood.outputs(), self.train.columns());
        let (mean, sd) = self.transform.means_and_deviations();
        weights.tensors.insert("coefficients".into(), (vec![c, d], parameters.host().to_vec()));
        weights.tensors.insert("mean".into(), (vec![mean.len()], mean));
        weights.tensors.insert("standard_deviation".into(), (vec![sd.len()], sd));
        let json = |names: &[String]| serde_json::to_string(names).unwrap_or_default();
        let expansion = serde_json::to_string(&self.transform.expansion()).unwrap_or_default();
        let reference = matches!(self.likelihood, Likelihood::Multinomial { reference: true, .. });
        for (key, value) in [
            ("model", self.name.to_owned()),
            ("features", expansion.trim_matches('"').to_owned()),
            ("intercept", self.transform.intercept().to_string()),
            ("reference", reference.to_string()),
            ("columns", json(&self.inputs)),
            ("coefficient_names", json(&self.column_names())),
            ("classes", json(&self.classes)),
        ] {
            weights.metadata.insert(key.into(), value);
        }
        weights
    }

    fn is_convex(&self) -> bool {
        true
    }

    fn device(&self) -> Offer<&Device> {
        Ok(&self.device)
    }

    fn inspect(&self, weights: &Weights, level: f64, raw: bool) -> Result<Option<Inspection>> {
        self.statistics(weights, level, raw).map(Some)
    }
}
