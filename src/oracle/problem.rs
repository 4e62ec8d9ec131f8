//! What a problem can answer: the capabilities between optimizers and models.
//!
//! A problem is `minimize F(theta) = (1/n) sum_i loss_i(theta) + R(theta)` over rows `i` of its training data. An
//! optimizer names the [`Capability`]s it needs, a problem offers those it has, and says in words why it lacks
//! another. Every answer carries its [`Cost`]; the [`Oracle`](super::Oracle) adds it up.

use super::experts::ExpertEquations;
use super::layers::LayerSplitting;
use super::sampling::Batch;
use super::vector::{Block, Layout, Vector};
use crate::device::Matrix;
use crate::error::Result;
use ndarray::Array2;
use rand_chacha::ChaCha8Rng;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// The kinds of question an optimizer may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// The objective's value.
    Value,
    /// The objective's gradient, on all rows or on a minibatch.
    Gradient,
    /// Products with the Gauss-Newton matrix (for a generalized linear model: the Hessian).
    CurvatureProduct,
    /// The sum over rows of squared gradients, element by element.
    SquaredGradients,
    /// Score and information matrix of a block that is a generalized linear model.
    NormalEquations,
    /// Score and information matrices, block by block, of a likelihood whose hidden variables are taken as known.
    CompleteEquations,
    /// Normal equations of the last layer while those below are held, with the gradient of everything.
    HeadEquations,
    /// Gradients of single rows as a few numbers each.
    RowResiduals,
    /// Second moments of every layer's inputs and of the derivatives in its linear outputs.
    KroneckerFactors,
    /// The sum of row blocks' losses plus a regularizer with a known proximal map.
    Consensus,
    /// A network split layer by layer into constraints between activations and outputs.
    Layers,
    /// Activations and outputs of every row as variables of such a splitting.
    LayerVariables,
    /// Least squares and a multinomial logit for the blocks of a layer of experts.
    Experts,
}

impl Capability {
    /// All capabilities.
    pub const ALL: [Self; 13] = [
        Self::Value,
        Self::Gradient,
        Self::CurvatureProduct,
        Self::SquaredGradients,
        Self::NormalEquations,
        Self::CompleteEquations,
        Self::HeadEquations,
        Self::RowResiduals,
        Self::KroneckerFactors,
        Self::Consensus,
        Self::Layers,
        Self::LayerVariables,
        Self::Experts,
    ];
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Value => "value",
            Self::Gradient => "gradient",
            Self::CurvatureProduct => "curvature product",
            Self::SquaredGradients => "squared gradients",
            Self::NormalEquations => "normal equations",
            Self::CompleteEquations => "normal equations of the complete data",
            Self::HeadEquations => "normal equations of the last layer",
            Self::RowResiduals => "residuals of single rows",
            Self::KroneckerFactors => "Kronecker factors of layers",
            Self::Consensus => "consensus splitting",
            Self::Layers => "layer-wise splitting",
            Self::LayerVariables => "layer-wise variables of every row",
            Self::Experts => "equations of a layer of experts",
        })
    }
}

/// Which training rows a question is about.
#[derive(Debug, Clone, Copy)]
pub enum Rows<'a> {
    /// All of them: sums are divided by `n`.
    All,
    /// A minibatch: sums are divided by the batch's size.
    Batch(&'a Batch),
    /// The `index`-th of `of` blocks of consecutive rows: sums are divided by `n`, so that blocks add up to `All`.
    Part {
        /// Which block, counted from 0.
        index: usize,
        /// How many blocks there are.
        of: usize,
    },
}

/// What an answer cost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    /// Training rows read.
    pub rows: u64,
    /// Floating-point operations (an addition and a multiplication are two).
    pub flops: f64,
    /// Bytes of training data and large intermediates read or written.
    pub bytes: f64,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.flops += other.flops;
        self.bytes += other.bytes;
    }
}

/// An answer with its cost.
#[derive(Debug, Clone)]
pub struct Answer<T> {
    /// The answer itself.
    pub value: T,
    /// What it cost.
    pub cost: Cost,
}

/// A capability that a problem has, or the reason in words why it has not.
pub type Offer<T> = std::result::Result<T, String>;

/// Something to be minimized, as an optimizer meets it.
pub trait Problem: Send + Sync {
    /// The parameters' blocks.
    fn layout(&self) -> &Arc<Layout>;

    /// Number of training rows `n`.
    fn rows(&self) -> usize;

    /// Floating-point operations of one gradient over all rows: the unit of "gradient equivalents".
    fn gradient_flops(&self) -> f64;

    /// Names of the parameters in the layout's order, where they have any; else their block and position.
    fn coordinate_names(&self) -> Vec<String> {
        let blocks = self.layout().blocks();
        blocks.iter().flat_map(|b| (0..b.rows * b.columns).map(move |i| format!("{}[{i}]", b.name))).collect()
    }

    /// Names of the blocks that are matrices from units to hidden units. Embeddings and what leads to the outputs are none;
    /// what leads from inputs that are numbers is one.
    fn hidden_matrices(&self) -> Vec<String> {
        Vec::new()
    }

    /// Where training starts; draws from `rng` if the start is random.
    fn initial(&self, rng: &mut ChaCha8Rng) -> Vector;

    /// The objective's value.
    fn value(&self) -> Offer<&dyn Value> {
        Err("it has no value that can be computed".into())
    }

    /// The objective's gradient.
    fn gradient(&self) -> Offer<&dyn Gradient> {
        Err("it has no gradient".into())
    }

    /// Products with the Gauss-Newton matrix.
    fn curvature(&self) -> Offer<&dyn Curvature> {
        Err("it has no curvature products".into())
    }

    /// Sums of squared per-row gradients.
    fn squared_gradients(&self) -> Offer<&dyn SquaredGradients> {
        Err("it does not form per-row gradients".into())
    }

    /// Normal equations of a block.
    fn normal_equations(&self) -> Offer<&dyn NormalEquations> {
        Err("none of its blocks is a generalized linear model".into())
    }

    /// Normal equations of the complete data, block by block.
    fn complete_equations(&self) -> Offer<&dyn CompleteEquations> {
        Err("its likelihood has no hidden variables, such as the experts of a mixture".into())
    }

    /// Normal equations of the last layer.
    fn head_equations(&self) -> Offer<&dyn HeadEquations> {
        Err("it has no layers, or its last one is no generalized linear model of those below".into())
    }

    /// Residuals of single rows.
    fn row_residuals(&self) -> Offer<&dyn RowResiduals> {
        Err("the gradients of its rows are not multiples of fixed columns".into())
    }

    /// Kronecker factors of layers.
    fn kronecker_factors(&self) -> Offer<&dyn KroneckerFactors> {
        Err("it is not made of dense layers whose factors it forms".into())
    }

    /// A splitting by row blocks.
    fn consensus(&self) -> Offer<&dyn Consensus> {
        Err("it is not split by row blocks".into())
    }

    /// A splitting layer by layer.
    fn layer_splitting(&self) -> Offer<&dyn LayerSplitting> {
        Err("it has no layers".into())
    }

    /// Equations of the blocks of a layer of experts.
    fn expert_equations(&self) -> Offer<&dyn ExpertEquations> {
        Err("it is no layer of experts".into())
    }

    /// `Ok` if the problem has a capability, else the reason why it has not.
    ///
    /// # Errors
    /// The reason in words.
    fn offers(&self, capability: Capability) -> Offer<()> {
        match capability {
            Capability::Value => self.value().map(drop),
            Capability::Gradient => self.gradient().map(drop),
            Capability::CurvatureProduct => self.curvature().map(drop),
            Capability::SquaredGradients => self.squared_gradients().map(drop),
            Capability::NormalEquations => self.normal_equations().map(drop),
            Capability::CompleteEquations => self.complete_equations().map(drop),
            Capability::HeadEquations => self.head_equations().map(drop),
            Capability::RowResiduals => self.row_residuals().map(drop),
            Capability::KroneckerFactors => self.kronecker_factors().map(drop),
            Capability::Consensus => self.consensus().map(drop),
            Capability::Layers => self.layer_splitting().map(drop),
            Capability::LayerVariables => self.layer_splitting().and_then(|splitting| splitting.keeps_variables()),
            Capability::Experts => self.expert_equations().map(drop),
        }
    }
}

/// The objective's value.
pub trait Value {
    /// `F(at)` over `rows`.
    ///
    /// # Errors
    /// If the data cannot be read.
    fn value(&self, at: &Vector, rows: Rows<'_>) -> Result<Answer<f64>>;
}

/// The objective's gradient.
pub trait Gradient {
    /// Writes the gradient of `F` at `at` over `rows` into `gradient`; answers `F(at)`.
    ///
    /// # Errors
    /// If the data cannot be read.
    fn value_and_gradient(&self, at: &Vector, rows: Rows<'_>, gradient: &mut Vector) -> Result<Answer<f64>>;
}

/// A symmetric positive semi-definite matrix known by its products.
pub trait CurvatureMatrix {
    /// Writes `G v` into `product`.
    ///
    /// # Errors
    /// If the data cannot be read.
    fn multiply(&self, v: &Vector, product: &mut Vector) -> Result<Cost>;
}

/// Gauss-Newton matrices.
pub trait Curvature {
    /// The Gauss-Newton matrix `J' H_L J + grad^2 R` at `at` over `rows`, without damping, ready for many products.
    ///
    /// # Errors
    /// If the data cannot be read.
    fn curvature_at<'a>(&'a self, at: &Vector, rows: Rows<'a>) -> Result<Answer<Box<dyn CurvatureMatrix + 'a>>>;
}

/// Sums of squared per-row gradients, the empirical Fisher diagonal.
pub trait SquaredGradients {
    /// Writes `(1/m) sum_i (grad loss_i)^2`, element by element over the `m` rows, plus the diagonal of the regularizer's
    /// Hessian: the diagonal that Hessian-free preconditions with (Martens 2010, section 4.7).
    ///
    /// # Errors
    /// If the data cannot be read.
    fn mean_squared_gradient(&self, at: &Vector, rows: Rows<'_>, squares: &mut Vector) -> Result<Cost>;
}

/// The information matrix of a block in the form in which it was formed.
#[derive(Debug, Clone)]
pub enum Information {
    /// The full symmetric matrix, `p x p`.
    Dense(Array2<f64>),
    /// `left (x) right` plus `ridge` times the identity on penalized coordinates, for parameters stored as a
    /// `left x right` matrix row by row: an upper bound of the information (Böhning 1992).
    KroneckerBound {
        /// `classes x classes`, positive definite.
        left: Array2<f64>,
        /// `features x features`, positive semi-definite.
        right: Array2<f64>,
        /// Ridge strength of each of the `features` coordinates.
        ridge: Vec<f64>,
    },
}

/// Score and information of a block.
#[derive(Debug, Clone)]
pub struct NormalSystem {
    /// `F` at the point, over the rows asked.
    pub value: f64,
    /// The gradient of `F` (minus the score).
    pub gradient: Vector,
    /// The expected Hessian of `F`, or a bound of it.
    pub information: Information,
}

/// How exactly sums over rows are formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accuracy {
    /// `f32` linear predictors and products, `f64` sums.
    #[default]
    Fast,
    /// `f64` throughout.
    High,
}

/// Why no finite optimum exists, as the data show it.
#[derive(Debug, Clone, PartialEq)]
pub struct Separation {
    /// True when a hyperplane separates the classes strictly, false when some rows lie on it.
    pub complete: bool,
    /// Names of the columns that separate.
    pub columns: Vec<String>,
    /// A direction `delta` along which the likelihood never falls.
    pub direction: Vector,
}

/// Normal equations: Fisher scoring's view of a generalized linear model.
pub trait NormalEquations {
    /// Value, gradient and information at `at`.
    ///
    /// # Errors
    /// If the data cannot be read or the matrix would be larger than the stated limit.
    fn normal_system(&self, at: &Vector, rows: Rows<'_>, bound: bool) -> Result<Answer<NormalSystem>>;

    /// The largest number of coefficients for which the dense information is formed.
    fn dense_limit(&self) -> usize;

    /// Whether the information is the Hessian itself, so that scoring is Newton's method on a convex objective. If not, it
    /// is a positive semi-definite stand-in for a Hessian that may have negative eigenvalues.
    fn is_hessian(&self) -> bool {
        true
    }

    /// Positions of coordinates that can be held where they are without changing the minimum, because the
    /// parameterization has more of them than the model needs (the last class's intercept, for instance).
    fn redundant_coordinates(&self) -> Vec<usize> {
        Vec::new()
    }

    /// Positions of coordinates that depend linearly on earlier ones (in file order), with their columns' names; none
    /// where a penalty makes the optimum unique all the same.
    ///
    /// # Errors
    /// If the data cannot be read.
    fn dependent_coordinates(&self) -> Result<Answer<Vec<(usize, String)>>>;

    /// Looks for separation at `at`, with `step` as the direction in which the coefficients grow; `None` where the
    /// objective has a finite optimum or none was found.
    ///
    /// # Errors
    /// If the data cannot be read.
    fn separation(&self, at: &Vector, step: &Vector) -> Result<Answer<Option<Separation>>>;

    /// The largest absolute linear predictor at `at`: a sign of separation when it grows.
    ///
    /// # Errors
    /// If the data cannot be read.
    fn largest_predictor(&self, at: &Vector) -> Result<Answer<f64>>;
}

/// The information matrix of some consecutive coordinates.
#[derive(Debug, Clone)]
pub struct BlockInformation {
    /// The first of them.
    pub start: usize,
    /// Symmetric, as many rows and columns as there are.
    pub matrix: Array2<f64>,
}

/// Score and information of a likelihood with hidden variables.
#[derive(Debug, Clone)]
pub struct BlockSystem {
    /// `F` at the point, over the rows asked: of what is observed.
    pub value: f64,
    /// Its gradient, which at this point is the complete data's too (Fisher's identity).
    pub gradient: Vector,
    /// The complete data's information: nothing crosses blocks. Every coordinate is in one of them.
    pub blocks: Vec<BlockInformation>,
}

/// Normal equations inside EM: with the hidden variables at their expectations given the data, each block is a generalized
/// linear model of its own. A mixture's are its gate, a multinomial logit with responsibilities for targets, and its experts,
/// whose rows are weighted by them (Jordan and Jacobs 1994, section 4).
pub trait CompleteEquations {
    /// Value and gradient of what is observed, and the complete data's information, at `at`.
    ///
    /// # Errors
    /// If the data cannot be read.
    fn complete_system(&self, at: &Vector, rows: Rows<'_>) -> Result<Answer<BlockSystem>>;
}

/// The last layer of a network as a generalized linear model of what the layers below make of the rows.
#[derive(Debug, Clone)]
pub struct HeadSystem {
    /// `F` at the point, over the rows asked.
    pub value: f64,
    /// The gradient of `F` in all parameters.
    pub gradient: Vector,
    /// Places of the last layer's weights, `outputs x inputs`, and of its biases after them.
    pub head: Range<usize>,
    /// With `right`, the information `left (x) right` or a bound of it: `outputs x outputs`.
    pub left: Array2<f64>,
    /// The weighted mean of `z z'` over rows, `z` the layer's inputs and a constant one: `(inputs + 1) x (inputs + 1)`.
    pub right: Array2<f64>,
    /// Strength of the ridge on the weights, which is in the gradient and not in `right`.
    pub ridge: f64,
}

/// Normal equations of the last layer.
pub trait HeadEquations {
    /// Value, gradient and the last layer's information at `at`.
    ///
    /// # Errors
    /// If the data cannot be read.
    fn head_system(&self, at: &Vector, rows: Rows<'_>) -> Result<Answer<HeadSystem>>;
}

/// How fast gradients can change: Lipschitz constants, without the regularizer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Smoothness {
    /// Of the gradient of a row's loss, the largest over rows.
    pub row: f64,
    /// Of the gradient of the mean loss.
    pub mean: f64,
}

/// The gradient of a row's loss as a product of a few numbers with the row's columns, `grad loss_i = r_i z_i'`: what a table
/// of gradients needs to keep are the `r_i`.
pub trait RowResiduals {
    /// Numbers `C` of a row's residual.
    fn residual_size(&self) -> usize;

    /// Puts the residuals of `rows` (no row twice) at `at` into their places of `table` (`n x C`, row by row) and writes the sum of
    /// `(r_i - r_i^old) z_i'` over them into `change`; answers the sum of their losses. The regularizer has no part in it.
    ///
    /// # Errors
    /// If the data cannot be read.
    fn exchange_residuals(
        &self,
        at: &Vector,
        rows: Rows<'_>,
        table: &mut [f64],
        change: &mut Vector,
    ) -> Result<Answer<f64>>;

    /// Upper bounds of how fast gradients change.
    ///
    /// # Errors
    /// If the data cannot be read.
    fn smoothness(&self) -> Result<Answer<Smoothness>>;
}

/// Where the targets come from at which derivatives are taken for a Fisher matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FisherTargets {
    /// Drawn from the model's own distribution, by random numbers of this seed: the Fisher matrix itself.
    Drawn(u64),
    /// The data's: the empirical Fisher matrix.
    Data,
}

/// A layer `o = W x + b` whose block of the Fisher matrix is taken for `E[x x'] (x) E[d d']`, `x` with a one added to it and
/// `d` the derivative of a row's loss in `o` (Martens and Grosse 2015, section 3).
#[derive(Debug, Clone, PartialEq)]
pub struct FactoredLayer {
    /// `W`, `outputs x inputs`.
    pub weight: Block,
    /// `b`, `1 x outputs`.
    pub bias: Block,
}

/// The two factors of a layer.
#[derive(Debug, Clone)]
pub struct KroneckerPair {
    /// The mean of `x x'` over rows, the one last: `(inputs + 1) x (inputs + 1)`.
    pub inputs: Matrix,
    /// The mean of `d d'` over rows: `outputs x outputs`.
    pub outputs: Matrix,
}

/// Kronecker factors of layers.
pub trait KroneckerFactors {
    /// The layers that have them, from the inputs up.
    fn factored_layers(&self) -> Vec<FactoredLayer>;

    /// Strength of the ridge on the weights, which is no part of the factors.
    fn ridge(&self) -> f64;

    /// The factors of every layer at `at`.
    ///
    /// # Errors
    /// If the data cannot be read.
    fn factors(&self, at: &Vector, rows: Rows<'_>, targets: FisherTargets) -> Result<Answer<Vec<KroneckerPair>>>;
}

/// `F = sum_parts f_part + R`, each `f_part` divided by `n`, `R` with a proximal map.
pub trait Consensus {
    /// `argmin_x f_part(x) + rho/2 |x - anchor|^2`, starting from `x`, to the given tolerance on the gradient's norm.
    ///
    /// # Errors
    /// If the data cannot be read or the local system cannot be solved.
    fn proximal_step(
        &self,
        part: usize,
        of: usize,
        anchor: &Vector,
        rho: f64,
        tolerance: f64,
        x: &mut Vector,
    ) -> Result<Cost>;

    /// `argmin_z R(z) + weight/2 |z - v|^2`, in place: the regularizer's proximal map at `v`.
    fn proximal_regularizer(&self, weight: f64, v: &mut Vector);
}
