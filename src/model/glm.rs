//! Generalized linear models: binary and multinomial logistic regression on inputs, their squares or products.
//!
//! The objective is `F(theta) = (1/n) sum_i loss_i(theta) + R(theta)` in the mean convention: `R = strength/2 |theta|^2`
//! (ridge) or `strength |theta|_1` (l1), the intercept never penalized. In scikit-learn's terms `strength = 1/(n C)`.
//! The multinomial model fixes the first class's coefficients at zero when nothing else makes the optimum unique, and
//! gives every class its own coefficients under a ridge.

use super::{Evaluation, Model, ModelData, ModelEntry, ParameterCounts, Predictor, Split, Weights};
use crate::data::{Examples, Standardization, Task};
use crate::device::Panels;
use crate::device::cpu::design::{Design, Expansion, Selection, Transform};
use crate::device::cpu::glm::{self, CurvatureWeights, GramWeights, Likelihood, Request, Sums};
use crate::device::cpu::linalg;
use crate::error::{Error, Result};
use crate::measure::metrics::area_under_curve;
use crate::oracle::{
    Answer, Consensus, Cost, Curvature, CurvatureMatrix, Gradient, Information, Layout, NormalEquations, NormalSystem,
    Offer, Problem, Rows, Separation, Setting, Settings, SquaredGradients, Value, Vector,
};
use ndarray::{Array1, Array2};
use rand_chacha::ChaCha8Rng;
use std::ops::Range;
use std::sync::Arc;

/// The largest number of coefficients for which the dense information matrix is formed: 800 MB in `f64`.
pub const DENSE_LIMIT: usize = 10_000;

/// Up to this many coefficients a local proximal step uses Newton's method with the dense Hessian, beyond it conjugate
/// gradients.
const DENSE_PROXIMAL_LIMIT: usize = 512;

/// A remaining diagonal below this share of its column's own marks a column as dependent on earlier ones.
const RANK_TOLERANCE: f64 = 1e-10;

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
    build: |data, settings| Ok(Box::new(Glm::build(data, settings, false)?)),
    predictor: |weights| Ok(Box::new(GlmPredictor::from_weights(weights)?)),
};

/// Multinomial logistic regression.
pub const SOFTMAX: ModelEntry = ModelEntry {
    name: "softmax",
    summary: "multinomial logistic regression on the inputs, their squares or products",
    paper: "McCullagh and Nelder 1989, chapter 5; bound of the information: Böhning 1992",
    settings: &SOFTMAX_SETTINGS,
    random_start: false,
    build: |data, settings| Ok(Box::new(Glm::build(data, settings, true)?)),
    predictor: |weights| Ok(Box::new(GlmPredictor::from_weights(weights)?)),
};

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
    layout: Arc<Layout>,
    transform: Arc<Transform>,
    train: Design,
    validation: Design,
    test: Design,
    inputs: Vec<String>,
    classes: Vec<String>,
}

impl Glm {
    fn build(data: &ModelData, settings: &Settings, multinomial: bool) -> Result<Self> {
        let name = if multinomial { "softmax" } else { "logistic" };
        let unfit = |finding: String, remedy: &str| Error::config(format!("model {name}"), finding, remedy);
        let Task::Classes(classes) = &data.task else {
            return Err(unfit("the target is a real number, not a class".into(), "choose a target column of classes"));
        };
        if classes.len() < 2 || (!multinomial && classes.len() > 2) {
            return Err(unfit(
                format!("the target has {} classes", classes.len()),
                "`logistic` takes two classes, `softmax` two or more",
            ));
        }
        if data.train.rows() == 0 {
            return Err(unfit("there are no training rows".into(), "give the training split a larger share"));
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
        let likelihood = if multinomial {
            let unique = matches!(regularizer, Regularizer::Ridge(s) if s > 0.0);
            let reference = match settings.word("reference") {
                "yes" => true,
                "no" => false,
                _ => !unique,
            };
            Likelihood::Multinomial { classes: classes.len(), reference }
        } else {
            Likelihood::Binary
        };
        let design =
            |e: &Examples| Design::new(e.features.clone(), e.targets.clone(), e.range.clone(), Arc::clone(&transform));
        Ok(Self {
            name,
            likelihood,
            regularizer,
            high: settings.word("accuracy") == "high",
            layout: Layout::new([("coefficients", likelihood.outputs(), transform.columns())]),
            train: design(&data.train),
            validation: design(&data.validation),
            test: design(&data.test),
            transform,
            inputs: data.columns.clone(),
            classes: classes.clone(),
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
        let n = self.train.rows();
        match rows {
            Rows::All => (Selection::Range(0, n), n as f64),
            Rows::Batch(batch) => (Selection::List(batch.rows()), batch.len().max(1) as f64),
            Rows::Part { index, of } => {
                let range = part_range(n, index, of);
                (Selection::Range(range.start, range.end), n as f64)
            }
        }
    }

    fn pass(&self, at: &Vector, selection: Selection<'_>, request: Request) -> (Sums, Cost) {
        let sums = glm::pass(&self.train, self.likelihood, at.host(), selection, request, self.high);
        (sums, self.cost(selection.len(), request))
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

    /// One information block of the multinomial model or the whole of the binary one: `p x p`, mean over rows.
    fn information(&self, at: &Vector, rows: Rows<'_>) -> (Sums, Array2<f64>, Cost) {
        let (selection, divisor) = self.selection(rows);
        let (c, d) = (self.likelihood.outputs(), self.train.columns());
        let mut information = Array2::zeros((c * d, c * d));
        let mut first = None;
        let mut cost = Cost::default();
        for a in 0..c {
            for b in 0..=a {
                let request =
                    Request { gradient: first.is_none(), squares: false, gram: GramWeights::Information(a, b) };
                let (mut sums, pass_cost) = self.pass(at, selection, request);
                cost += pass_cost;
                for j in 0..d {
                    for k in 0..=j {
                        let value = sums.gram[j * d + k] / divisor;
                        information[[a * d + j, b * d + k]] = value;
                        information[[a * d + k, b * d + j]] = value;
                    }
                }
                sums.gram = Vec::new();
                first.get_or_insert(sums);
            }
        }
        // Passes of further blocks read the same rows again, but a data pass is counted once per system asked for.
        cost.rows = selection.len() as u64;
        if let (Regularizer::Ridge(strength), Rows::All | Rows::Batch(_)) = (self.regularizer, rows) {
            for i in 0..c * d {
                if self.is_penalized(i) {
                    information[[i, i]] += strength;
                }
            }
        }
        linalg::symmetrize(&mut information);
        (first.unwrap_or_default(), information, cost)
    }
}

/// Operations per row and linear predictor that are neither products with the design nor its making.
const ROW_FLOPS: f64 = 30.0;

/// The rows of one of `of` blocks of consecutive rows.
fn part_range(rows: usize, index: usize, of: usize) -> Range<usize> {
    rows * index / of..rows * (index + 1) / of
}

fn fit_transform(train: &Examples, expansion: Expansion, intercept: bool, standardize: bool) -> Arc<Transform> {
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
            Likelihood::Binary => names,
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
        self.lacks_gradient().map(|()| self as &dyn NormalEquations)
    }

    fn consensus(&self) -> Offer<&dyn Consensus> {
        Ok(self)
    }
}

impl Value for Glm {
    fn value(&self, at: &Vector, rows: Rows<'_>) -> Result<Answer<f64>> {
        let (selection, divisor) = self.selection(rows);
        let request = Request { gradient: false, squares: false, gram: GramWeights::None };
        let (sums, cost) = self.pass(at, selection, request);
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
        let (sums, cost) = self.pass(at, selection, request);
        gradient.host_mut().iter_mut().zip(&sums.gradient).for_each(|(g, s)| *g = s / divisor);
        let value = self.add_ridge(at, rows, sums.loss / divisor, Some(gradient));
        Ok(Answer { value, cost })
    }
}

impl SquaredGradients for Glm {
    fn mean_squared_gradient(&self, at: &Vector, rows: Rows<'_>, squares: &mut Vector) -> Result<Cost> {
        let (selection, _) = self.selection(rows);
        let request = Request { gradient: false, squares: true, gram: GramWeights::None };
        let (sums, cost) = self.pass(at, selection, request);
        let rows = selection.len().max(1) as f64;
        squares.host_mut().iter_mut().zip(&sums.squares).for_each(|(g, s)| *g = s / rows);
        Ok(cost)
    }
}

struct GlmCurvature<'a> {
    glm: &'a Glm,
    weights: CurvatureWeights,
    rows: Rows<'a>,
}

impl CurvatureMatrix for GlmCurvature<'_> {
    fn multiply(&self, v: &Vector, product: &mut Vector) -> Result<Cost> {
        let (selection, divisor) = self.glm.selection(self.rows);
        let sums = self.weights.multiply(&self.glm.train, v.host(), selection);
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
        let weights = CurvatureWeights::at(&self.train, self.likelihood, at.host(), selection, self.high);
        let request = Request { gradient: false, squares: false, gram: GramWeights::None };
        let cost = self.cost(selection.len(), request);
        Ok(Answer { value: Box::new(GlmCurvature { glm: self, weights, rows }), cost })
    }
}

impl NormalEquations for Glm {
    fn normal_system(&self, at: &Vector, rows: Rows<'_>, bound: bool) -> Result<Answer<NormalSystem>> {
        let (selection, divisor) = self.selection(rows);
        let (sums, information, cost) = if bound {
            let request = Request { gradient: true, squares: false, gram: GramWeights::Unit };
            let (sums, cost) = self.pass(at, selection, request);
            let d = self.train.columns();
            let mut right =
                Array2::from_shape_fn((d, d), |(j, k)| if k <= j { sums.gram[j * d + k] / divisor } else { 0.0 });
            linalg::symmetrize(&mut right);
            let strength = match self.regularizer {
                Regularizer::Ridge(strength) => strength,
                _ => 0.0,
            };
            let ridge = (0..d).map(|j| if self.is_penalized(j) { strength } else { 0.0 }).collect();
            let left = match self.likelihood {
                Likelihood::Binary => Array2::from_elem((1, 1), 0.25),
                Likelihood::Multinomial { classes, .. } => {
                    let c = self.likelihood.outputs();
                    Array2::from_shape_fn((c, c), |(a, b)| {
                        0.5 * (if a == b { 1.0 } else { 0.0 } - 1.0 / classes as f64)
                    })
                }
            };
            (sums, Information::KroneckerBound { left, right, ridge }, cost)
        } else {
            if self.layout.len() > DENSE_LIMIT {
                return Err(Error::Numeric(format!(
                    "the information matrix of {} coefficients would take {:.1} GB; it is formed up to {DENSE_LIMIT}. \
                     Use information = \"bound\", fewer features, or hessian-free",
                    self.layout.len(),
                    8e-9 * (self.layout.len() as f64).powi(2)
                )));
            }
            let (sums, information, cost) = self.information(at, rows);
            (sums, Information::Dense(information), cost)
        };
        let mut gradient = Vector::zeros(&self.layout);
        gradient.host_mut().iter_mut().zip(&sums.gradient).for_each(|(g, s)| *g = s / divisor);
        let value = self.add_ridge(at, rows, sums.loss / divisor, Some(&mut gradient));
        Ok(Answer { value: NormalSystem { value, gradient, information }, cost })
    }

    fn dense_limit(&self) -> usize {
        DENSE_LIMIT
    }

    fn dependent_coordinates(&self) -> Result<Answer<Vec<(usize, String)>>> {
        let d = self.train.columns();
        let zeros = vec![0.0; self.layout.len()];
        let request = Request { gradient: false, squares: false, gram: GramWeights::Unit };
        let all = Selection::Range(0, self.train.rows());
        let sums = glm::pass(&self.train, self.likelihood, &zeros, all, request, true);
        let gram = Array2::from_shape_vec((d, d), sums.gram).map_err(|e| Error::Numeric(e.to_string()))?;
        let names = self.column_names();
        let dependent = linalg::dependent_columns(&gram, RANK_TOLERANCE);
        let value = (0..self.likelihood.outputs())
            .flat_map(|c| dependent.iter().map(move |&j| (c * d + j, j)))
            .map(|(place, j)| (place, names[j].clone()))
            .collect();
        Ok(Answer { value, cost: self.cost(self.train.rows(), request) })
    }

    fn separation(&self, at: &Vector, step: &Vector) -> Result<Answer<Option<Separation>>> {
        // Under a ridge there is always a finite optimum.
        let penalized = matches!(self.regularizer, Regularizer::Ridge(strength) if strength > 0.0);
        if self.likelihood != Likelihood::Binary || penalized {
            return Ok(Answer { value: None, cost: Cost::default() });
        }
        let request = Request { gradient: false, squares: false, gram: GramWeights::None };
        let all = Selection::Range(0, self.train.rows());
        let mut cost = self.cost(self.train.rows(), request);
        let names = self.column_names();
        let first = usize::from(self.transform.intercept());
        let here = glm::pass(&self.train, self.likelihood, at.host(), all, request, true);
        if here.smallest_margin > 0.0 {
            let columns = (first..names.len()).filter(|&j| at.host()[j] != 0.0).map(|j| names[j].clone()).collect();
            let separation = Separation { complete: true, columns, direction: at.clone() };
            return Ok(Answer { value: Some(separation), cost });
        }
        // A column whose values in one class all lie at or beyond those in the other separates on its own.
        let extremes = self.train.class_extremes();
        cost += self.cost(self.train.rows(), request);
        let mut direction = Vector::zeros(&self.layout);
        let mut columns = Vec::new();
        for (j, [(low0, high0), (low1, high1)]) in extremes.into_iter().enumerate().skip(first) {
            let (sign, threshold) = if low0 == high1 && high0 == low1 {
                continue;
            } else if high0 <= low1 {
                (1.0, low1)
            } else if high1 <= low0 {
                (-1.0, low0)
            } else {
                continue;
            };
            columns.push(names[j].clone());
            direction.host_mut()[j] += sign;
            if first == 1 {
                direction.host_mut()[0] -= sign * threshold;
            }
        }
        // Else the direction in which the coefficients grow may be one of recession.
        if columns.is_empty() {
            let along = glm::pass(&self.train, self.likelihood, step.host(), all, request, true);
            cost += self.cost(self.train.rows(), request);
            let scale = along.largest_predictor;
            if scale > 0.0 && along.smallest_margin >= -1e-9 * scale {
                let largest = step.norm_max();
                columns = (first..names.len())
                    .filter(|&j| step.host()[j].abs() > 1e-6 * largest)
                    .map(|j| names[j].clone())
                    .collect();
                direction = step.clone();
            }
        }
        let value = (!columns.is_empty()).then_some(Separation { complete: false, columns, direction });
        Ok(Answer { value, cost })
    }

    fn largest_predictor(&self, at: &Vector) -> Result<Answer<f64>> {
        let request = Request { gradient: false, squares: false, gram: GramWeights::None };
        let (sums, cost) = self.pass(at, Selection::Range(0, self.train.rows()), request);
        Ok(Answer { value: sums.largest_predictor, cost })
    }
}

impl Consensus for Glm {
    fn proximal_step(
        &self,
        part: usize,
        of: usize,
        anchor: &Vector,
        rho: f64,
        tolerance: f64,
        x: &mut Vector,
    ) -> Result<Cost> {
        let rows = Rows::Part { index: part, of };
        let mut cost = Cost::default();
        let p = self.layout.len();
        let dense = p <= DENSE_PROXIMAL_LIMIT;
        let mut accepted = f64::INFINITY;
        let mut previous = x.clone();
        let mut direction = x.zeros_like();
        // Newton's method; each pass gives value, gradient and Hessian, so a step is judged by the next pass.
        for _ in 0..PROXIMAL_STEPS {
            let (value, mut gradient, hessian) = if dense {
                let (sums, information, pass_cost) = self.information(x, rows);
                cost += pass_cost;
                let gradient: Vec<f64> = sums.gradient.iter().map(|g| g / self.train.rows() as f64).collect();
                (sums.loss / self.train.rows() as f64, Vector::from_values(&self.layout, gradient)?, Some(information))
            } else {
                let mut gradient = x.zeros_like();
                let answer = self.value_and_gradient(x, rows, &mut gradient)?;
                cost += answer.cost;
                (answer.value, gradient, None)
            };
            let mut offset = x.clone();
            offset.axpy(-1.0, anchor);
            let value = value + 0.5 * rho * offset.dot(&offset);
            gradient.axpy(rho, &offset);
            if !value.is_finite() || value > accepted + 1e-7 * accepted.abs() {
                // The objective rose: halve the way back towards the last accepted point.
                direction.scale(0.5);
                x.copy_from(&previous);
                x.axpy(1.0, &direction);
                continue;
            }
            accepted = value;
            if gradient.norm() <= tolerance {
                break;
            }
            direction = match hessian {
                Some(mut hessian) => {
                    hessian.diag_mut().mapv_inplace(|v| v + rho);
                    cost.flops += (p as f64).powi(3) / 3.0;
                    let factor = linalg::cholesky(&hessian)?;
                    let step = linalg::cholesky_solve(&factor, Array1::from(gradient.host().to_vec()).view())?;
                    Vector::from_values(&self.layout, step.iter().map(|s| -s).collect())?
                }
                None => self.proximal_newton_cg(x, rows, rho, &gradient, &mut cost)?,
            };
            previous.copy_from(x);
            x.axpy(1.0, &direction);
        }
        Ok(cost)
    }

    fn proximal_regularizer(&self, weight: f64, v: &mut Vector) {
        let regularizer = self.regularizer;
        for (i, v) in v.host_mut().iter_mut().enumerate() {
            if self.is_penalized(i) {
                *v = match regularizer {
                    Regularizer::None => *v,
                    Regularizer::Ridge(strength) => *v * weight / (weight + strength),
                    Regularizer::L1(strength) => v.signum() * (v.abs() - strength / weight).max(0.0),
                };
            }
        }
    }
}

/// Newton steps, halvings included, of one local proximal step.
const PROXIMAL_STEPS: usize = 12;

impl Glm {
    /// Solves `(H + rho I) d = -gradient` by conjugate gradients to a tenth of the gradient's norm.
    fn proximal_newton_cg(
        &self,
        x: &Vector,
        rows: Rows<'_>,
        rho: f64,
        gradient: &Vector,
        cost: &mut Cost,
    ) -> Result<Vector> {
        let matrix = self.curvature_at(x, rows)?;
        *cost += matrix.cost;
        let mut d = gradient.zeros_like();
        let mut r = gradient.clone();
        r.scale(-1.0);
        let mut p = r.clone();
        let mut product = r.zeros_like();
        let mut rr = r.dot(&r);
        let goal = 0.01 * rr;
        for _ in 0..PROXIMAL_CG_STEPS {
            *cost += matrix.value.multiply(&p, &mut product)?;
            product.axpy(rho, &p);
            let curvature = p.dot(&product);
            if curvature <= 0.0 {
                break;
            }
            let step = rr / curvature;
            d.axpy(step, &p);
            r.axpy(-step, &product);
            let next = r.dot(&r);
            if next <= goal {
                break;
            }
            p.axpby(next / rr, 1.0, &r);
            rr = next;
        }
        Ok(d)
    }
}

/// Conjugate-gradient steps of one inexact Newton direction.
const PROXIMAL_CG_STEPS: usize = 30;

impl Model for Glm {
    fn evaluate(&self, parameters: &Vector, split: Split) -> Result<Evaluation> {
        let design = self.split(split);
        let rows = design.rows();
        if rows == 0 {
            return Ok(Evaluation::default());
        }
        let all = Selection::Range(0, rows);
        let request = Request { gradient: false, squares: false, gram: GramWeights::None };
        let sums = glm::pass(design, self.likelihood, parameters.host(), all, request, true);
        let auc = if self.likelihood == Likelihood::Binary && split != Split::Train {
            let scores = glm::linear_predictors(design, 1, parameters.host(), all);
            area_under_curve(&scores, |i| design.target(i) == 1.0)
        } else {
            None
        };
        Ok(Evaluation { loss: Some(sums.loss / rows as f64), accuracy: Some(sums.correct as f64 / rows as f64), auc })
    }

    fn objective(&self, parameters: &Vector) -> Result<(f64, Option<f64>)> {
        let n = self.train.rows();
        let request = Request { gradient: true, squares: false, gram: GramWeights::None };
        let sums = glm::pass(&self.train, self.likelihood, parameters.host(), Selection::Range(0, n), request, true);
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
}

/// Predicts on raw rows from weights that [`Glm`] wrote.
struct GlmPredictor {
    likelihood: Likelihood,
    transform: Arc<Transform>,
    coefficients: Vec<f64>,
    columns: Vec<String>,
    classes: Vec<String>,
}

impl GlmPredictor {
    fn from_weights(weights: &Weights) -> Result<Self> {
        let damaged =
            |what: &str| Error::config("weights", format!("`{what}` is missing or damaged"), "run the cell again");
        let text = |key: &str| weights.metadata.get(key).ok_or_else(|| damaged(key));
        let tensor = |key: &str| weights.tensors.get(key).ok_or_else(|| damaged(key));
        let list = |key: &str| -> Result<Vec<String>> { serde_json::from_str(text(key)?).map_err(|_| damaged(key)) };
        let (columns, classes) = (list("columns")?, list("classes")?);
        let expansion: Expansion =
            serde_json::from_str(&format!("\"{}\"", text("features")?)).map_err(|_| damaged("features"))?;
        let intercept = text("intercept")? == "true";
        let (mean, sd) = (&tensor("mean")?.1, &tensor("standard_deviation")?.1);
        if mean.len() != expansion.columns(columns.len()) || sd.len() != mean.len() {
            return Err(damaged("mean"));
        }
        let likelihood = if text("model")? == "logistic" {
            Likelihood::Binary
        } else {
            Likelihood::Multinomial { classes: classes.len(), reference: text("reference")? == "true" }
        };
        let transform = Arc::new(Transform::standardized(expansion, intercept, columns.len(), mean, sd));
        let coefficients = tensor("coefficients")?.1.clone();
        if classes.len() != likelihood.classes() || coefficients.len() != likelihood.outputs() * transform.columns() {
            return Err(damaged("coefficients"));
        }
        Ok(Self { likelihood, transform, coefficients, columns, classes })
    }
}

impl Predictor for GlmPredictor {
    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn probabilities(&self, features: &Panels, rows: Range<usize>) -> Result<Vec<f64>> {
        if features.columns() != self.columns.len() {
            return Err(Error::config(
                "predict",
                format!("the rows have {} feature columns", features.columns()),
                format!("the model was fitted on {}: {}", self.columns.len(), self.columns.join(", ")),
            ));
        }
        let targets = Panels::from_fn(features.rows(), 1, |_, _| 0.0);
        let design = Design::new(features.clone(), targets, rows.clone(), Arc::clone(&self.transform));
        let outputs = self.likelihood.outputs();
        let eta = glm::linear_predictors(&design, outputs, &self.coefficients, Selection::Range(0, rows.len()));
        let zeros = self.classes.len() - outputs;
        let mut probabilities = Vec::with_capacity(rows.len() * self.classes.len());
        for eta in eta.chunks_exact(outputs) {
            let logits = || std::iter::repeat_n(0.0, zeros).chain(eta.iter().copied());
            let largest = logits().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = logits().map(|l| (l - largest).exp()).sum();
            probabilities.extend(logits().map(|l| (l - largest).exp() / total));
        }
        Ok(probabilities)
    }
}
