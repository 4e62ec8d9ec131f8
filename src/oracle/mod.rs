//! The counted door between optimizers and problems.
//!
//! Every value, gradient, product, solve, data pass, floating-point operation and byte passes through [`Oracle`] and
//! is added up in [`Counters`]. An optimizer may only ask what it declared: an undeclared question is an error.

mod experts;
mod layers;
mod problem;
mod sampling;
mod settings;
mod vector;

pub use experts::{
    Expert, ExpertEquations, ExpertGrams, ExpertLayer, ExpertQuestion, ExpertShare, ExpertSums, RouterSignal, TokenStep,
};
pub use layers::{Fit, Head, JointStep, Layer, LayerSplitting, LocalStep, LocalSums, LocalVariables};
pub use problem::{
    Accuracy, Answer, BlockInformation, BlockSystem, Capability, CompleteEquations, Consensus, Cost, Curvature,
    CurvatureMatrix, FactoredLayer, FisherTargets, Gradient, HeadEquations, HeadSystem, Information, KroneckerFactors,
    KroneckerPair, NormalEquations, NormalSystem, Offer, Problem, RowResiduals, Rows, Separation, Smoothness,
    SquaredGradients, Value,
};
pub use sampling::{Batch, Sampler, Stream, draw_rows, stream};
pub use settings::{Need, Search, Setting, SettingRange, SettingValue, Settings, did_you_mean};
pub use vector::{Block, Layout, Vector};

use crate::error::{Error, Result};
use ndarray::Array2;
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// What has been asked so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Objective values without a gradient.
    pub values: u64,
    /// Gradients.
    pub gradients: u64,
    /// Gauss-Newton products.
    pub products: u64,
    /// Normal systems formed.
    pub normal_systems: u64,
    /// Linear systems factorized and solved by optimizers, local proximal steps included.
    pub solves: u64,
    /// Training rows read; divided by `n` these are data passes.
    pub rows: u64,
    /// Floating-point operations.
    pub flops: f64,
    /// Bytes moved.
    pub bytes: f64,
}

/// Something worth telling about a fit: separation, rank deficiency, a fall-back taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// A short name, for instance `rank-deficiency`.
    pub kind: String,
    /// The finding in a sentence.
    pub message: String,
    /// Names of the columns concerned.
    #[serde(default)]
    pub columns: Vec<String>,
    /// Where a direction belongs to the finding: its non-zero components by column name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub direction: BTreeMap<String, f64>,
}

/// A problem as an optimizer may question it, with everything counted.
pub struct Oracle<'a> {
    problem: &'a dyn Problem,
    optimizer: String,
    declared: Vec<Capability>,
    counters: Counters,
    sampler: Sampler,
    rng: ChaCha8Rng,
    /// Where the targets of a step's Fisher matrix begin: never moved, so that they follow from seed and step alone.
    targets: ChaCha8Rng,
    notes: BTreeMap<String, f64>,
    findings: Vec<Finding>,
    step: u64,
    undeclared: RefCell<BTreeSet<Capability>>,
}

impl<'a> Oracle<'a> {
    /// A door to `problem` for an optimizer that declared its needs; `seed` starts the data order and the optimizer's
    /// own stream; `block_rows` consecutive rows stay together in minibatches.
    #[must_use]
    pub fn new(
        problem: &'a dyn Problem,
        optimizer: &str,
        declared: &[Capability],
        seed: u64,
        block_rows: usize,
    ) -> Self {
        Self {
            problem,
            optimizer: optimizer.to_owned(),
            declared: declared.to_vec(),
            counters: Counters::default(),
            sampler: Sampler::new(seed, problem.rows(), block_rows),
            rng: stream(seed, Stream::Optimizer),
            targets: stream(seed, Stream::Targets),
            notes: BTreeMap::new(),
            findings: Vec::new(),
            step: 0,
            undeclared: RefCell::default(),
        }
    }

    /// Number of training rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.problem.rows()
    }

    /// Names of the parameters, in order.
    #[must_use]
    pub fn coordinate_names(&self) -> Vec<String> {
        self.problem.coordinate_names()
    }

    /// Names of the blocks that are matrices from units to hidden units.
    #[must_use]
    pub fn hidden_matrices(&self) -> Vec<String> {
        self.problem.hidden_matrices()
    }

    /// The optimizer's current step, counted from 1.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Called by whoever drives the optimizer, before each step.
    pub fn begin_step(&mut self) {
        self.step += 1;
    }

    /// What has been counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Data passes so far: rows read divided by `n`.
    #[must_use]
    pub fn data_passes(&self) -> f64 {
        self.counters.rows as f64 / self.problem.rows().max(1) as f64
    }

    /// All work so far in units of one gradient over all rows.
    #[must_use]
    pub fn gradient_equivalents(&self) -> f64 {
        self.counters.flops / self.problem.gradient_flops()
    }

    /// The optimizer's own random stream.
    pub fn rng(&mut self) -> &mut ChaCha8Rng {
        &mut self.rng
    }

    /// The next minibatch of the epoch.
    pub fn next_batch(&mut self, size: usize) -> Batch {
        self.sampler.next_batch(size)
    }

    /// `count` distinct rows drawn independently of the epoch.
    pub fn draw_rows(&mut self, count: usize) -> Batch {
        draw_rows(&mut self.rng, self.problem.rows(), count)
    }

    /// Records a number about the optimizer itself (`damping`, `step_size`, ...); the latest goes into the trace.
    pub fn note(&mut self, name: &str, value: f64) {
        if let Some(slot) = self.notes.get_mut(name) {
            *slot = value;
        } else {
            self.notes.insert(name.to_owned(), value);
        }
    }

    /// The latest notes by name.
    #[must_use]
    pub fn notes(&self) -> &BTreeMap<String, f64> {
        &self.notes
    }

    /// Records a finding; one of a kind replaces the earlier one.
    pub fn find(&mut self, finding: Finding) {
        self.findings.retain(|f| f.kind != finding.kind);
        self.findings.push(finding);
    }

    /// The findings so far.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Passes a finite number through.
    ///
    /// # Errors
    /// [`Error::Diverged`] with the step and the quantity's name otherwise.
    pub fn finite(&self, quantity: &str, value: f64) -> Result<f64> {
        if value.is_finite() {
            Ok(value)
        } else {
            Err(Error::Diverged { step: self.step, quantity: quantity.to_owned(), value })
        }
    }

    fn declared<T>(&self, capability: Capability, offer: Offer<T>) -> Result<T> {
        let reason = if !self.declared.contains(&capability) {
            self.undeclared.borrow_mut().insert(capability);
            format!("it asked for the {capability}, which it did not declare among its needs")
        } else {
            match offer {
                Ok(answerer) => return Ok(answerer),
                Err(reason) => format!("it needs the {capability}, and {reason}"),
            }
        };
        Err(Error::Unsupported { name: self.optimizer.clone(), problem: "this problem".into(), reason })
    }

    /// Capabilities that were asked for, and refused, because the optimizer did not declare them.
    #[must_use]
    pub fn undeclared(&self) -> BTreeSet<Capability> {
        self.undeclared.borrow().clone()
    }

    fn count(&mut self, cost: Cost) {
        self.counters.rows += cost.rows;
        self.counters.flops += cost.flops;
        self.counters.bytes += cost.bytes;
    }

    /// Counts linear algebra that an optimizer does on its own: `flops` operations of one factorization and solve.
    pub fn count_solve(&mut self, flops: f64) {
        self.counters.solves += 1;
        self.counters.flops += flops;
    }

    /// Counts products of matrices that an optimizer forms on its own.
    pub fn count_flops(&mut self, flops: f64) {
        self.counters.flops += flops;
    }

    /// The objective at a point.
    ///
    /// # Errors
    /// If undeclared, lacking, or the data cannot be read.
    pub fn value(&mut self, at: &Vector, rows: Rows<'_>) -> Result<f64> {
        let answer = self.declared(Capability::Value, self.problem.value())?.value(at, rows)?;
        self.counters.values += 1;
        self.count(answer.cost);
        Ok(answer.value)
    }

    /// The objective and its gradient at a point.
    ///
    /// # Errors
    /// If undeclared, lacking, or the data cannot be read.
    pub fn value_and_gradient(&mut self, at: &Vector, rows: Rows<'_>, gradient: &mut Vector) -> Result<f64> {
        let answer =
            self.declared(Capability::Gradient, self.problem.gradient())?.value_and_gradient(at, rows, gradient)?;
        self.counters.gradients += 1;
        self.count(answer.cost);
        Ok(answer.value)
    }

    /// The Gauss-Newton matrix at a point, for use with [`Oracle::multiply`].
    ///
    /// # Errors
    /// If undeclared, lacking, or the data cannot be read.
    pub fn curvature<'b>(&mut self, at: &Vector, rows: Rows<'b>) -> Result<Box<dyn CurvatureMatrix + 'b>>
    where
        'a: 'b,
    {
        let answer = self.declared(Capability::CurvatureProduct, self.problem.curvature())?.curvature_at(at, rows)?;
        self.count(answer.cost);
        Ok(answer.value)
    }

    /// `product = matrix * v`.
    ///
    /// # Errors
    /// If the data cannot be read.
    pub fn multiply(&mut self, matrix: &dyn CurvatureMatrix, v: &Vector, product: &mut Vector) -> Result<()> {
        let cost = matrix.multiply(v, product)?;
        self.counters.products += 1;
        self.count(cost);
        Ok(())
    }

    /// Mean squared per-row gradients.
    ///
    /// # Errors
    /// If undeclared, lacking, or the data cannot be read.
    pub fn mean_squared_gradient(&mut self, at: &Vector, rows: Rows<'_>, squares: &mut Vector) -> Result<()> {
        let cost = self
            .declared(Capability::SquaredGradients, self.problem.squared_gradients())?
            .mean_squared_gradient(at, rows, squares)?;
        self.counters.gradients += 1;
        self.count(cost);
        Ok(())
    }

    /// The normal equations' limits and diagnoses, uncounted; for counted answers use the methods below.
    fn equations(&self) -> Result<&'a dyn NormalEquations> {
        let problem = self.problem;
        self.declared(Capability::NormalEquations, problem.normal_equations())
    }

    /// Value, gradient and information (or, with `bound`, an upper bound of it) at a point.
    ///
    /// # Errors
    /// If undeclared, lacking, too large, or the data cannot be read.
    pub fn normal_system(&mut self, at: &Vector, rows: Rows<'_>, bound: bool) -> Result<NormalSystem> {
        let answer = self.equations()?.normal_system(at, rows, bound)?;
        self.counters.normal_systems += 1;
        self.count(answer.cost);
        Ok(answer.value)
    }

    /// The largest number of coefficients for which the problem forms the dense information.
    ///
    /// # Errors
    /// If undeclared or lacking.
    pub fn dense_limit(&self) -> Result<usize> {
        Ok(self.equations()?.dense_limit())
    }

    /// Whether the information is the Hessian itself.
    ///
    /// # Errors
    /// If undeclared or lacking.
    pub fn is_hessian(&self) -> Result<bool> {
        Ok(self.equations()?.is_hessian())
    }

    /// Value and gradient at a point, and the complete data's information block by block.
    ///
    /// # Errors
    /// If undeclared, lacking, or the data cannot be read.
    pub fn complete_system(&mut self, at: &Vector, rows: Rows<'_>) -> Result<BlockSystem> {
        let equations = self.declared(Capability::CompleteEquations, self.problem.complete_equations())?;
        let answer = equations.complete_system(at, rows)?;
        self.counters.normal_systems += 1;
        self.count(answer.cost);
        Ok(answer.value)
    }

    /// Coordinates that can be held where they are without changing the minimum.
    ///
    /// # Errors
    /// If undeclared or lacking.
    pub fn redundant_coordinates(&self) -> Result<Vec<usize>> {
        Ok(self.equations()?.redundant_coordinates())
    }

    /// Coordinates that depend linearly on earlier ones.
    ///
    /// # Errors
    /// If undeclared, lacking, or the data cannot be read.
    pub fn dependent_coordinates(&mut self) -> Result<Vec<(usize, String)>> {
        let answer = self.equations()?.dependent_coordinates()?;
        self.count(answer.cost);
        Ok(answer.value)
    }

    /// Separation of the classes at a point, if there is any.
    ///
    /// # Errors
    /// If undeclared, lacking, or the data cannot be read.
    pub fn separation(&mut self, at: &Vector, step: &Vector) -> Result<Option<Separation>> {
        let answer = self.equations()?.separation(at, step)?;
        self.count(answer.cost);
        Ok(answer.value)
    }

    /// The largest absolute linear predictor at a point.
    ///
    /// # Errors
    /// If undeclared, lacking, or the data cannot be read.
    pub fn largest_predictor(&mut self, at: &Vector) -> Result<f64> {
        let answer = self.equations()?.largest_predictor(at)?;
        self.count(answer.cost);
        Ok(answer.value)
    }

    /// Value, gradient of everything and information of the last layer at a point.
    ///
    /// # Errors
    /// If undeclared, lacking, or the data cannot be read.
    pub fn head_system(&mut self, at: &Vector, rows: Rows<'_>) -> Result<HeadSystem> {
        let answer = self.declared(Capability::HeadEquations, self.problem.head_equations())?.head_system(at, rows)?;
        self.counters.normal_systems += 1;
        self.counters.gradients += 1;
        self.count(answer.cost);
        Ok(answer.value)
    }

    fn factors(&self) -> Result<&'a dyn KroneckerFactors> {
        let problem = self.problem;
        self.declared(Capability::KroneckerFactors, problem.kronecker_factors())
    }

    /// The layers that have Kronecker factors, and the strength of the ridge on their weights.
    ///
    /// # Errors
    /// If undeclared or lacking.
    pub fn factored_layers(&self) -> Result<(Vec<FactoredLayer>, f64)> {
        let factors = self.factors()?;
        Ok((factors.factored_layers(), factors.ridge()))
    }

    /// Kronecker factors of every layer at a point: with `drawn` at targets from the model's distribution, anew each step
    /// and from a random stream of their own, else at the data's.
    ///
    /// # Errors
    /// If undeclared, lacking, or the data cannot be read.
    pub fn kronecker_factors(&mut self, at: &Vector, rows: Rows<'_>, drawn: bool) -> Result<Vec<KroneckerPair>> {
        let mut rng = self.targets.clone();
        rng.set_word_pos(2 * u128::from(self.step));
        let targets = if drawn { FisherTargets::Drawn(rng.next_u64()) } else { FisherTargets::Data };
        let answer = self.factors()?.factors(at, rows, targets)?;
        self.counters.gradients += 1;
        self.count(answer.cost);
        Ok(answer.value)
    }

    /// A local proximal step of one row block.
    ///
    /// # Errors
    /// If undeclared, lacking, or the local system cannot be solved.
    pub fn proximal_step(
        &mut self,
        part: usize,
        of: usize,
        anchor: &Vector,
        rho: f64,
        tolerance: f64,
        x: &mut Vector,
    ) -> Result<()> {
        let cost = self
            .declared(Capability::Consensus, self.problem.consensus())?
            .proximal_step(part, of, anchor, rho, tolerance, x)?;
        self.counters.solves += 1;
        self.count(cost);
        Ok(())
    }

    /// Numbers of a row's residual.
    ///
    /// # Errors
    /// If undeclared or lacking.
    pub fn residual_size(&self) -> Result<usize> {
        Ok(self.declared(Capability::RowResiduals, self.problem.row_residuals())?.residual_size())
    }

    /// Exchanges residuals of rows in a table; `change` is the sum over them of the gradient's change, the answer the sum of
    /// their losses. Counted as a gradient.
    ///
    /// # Errors
    /// If undeclared, lacking, or the data cannot be read.
    pub fn exchange_residuals(
        &mut self,
        at: &Vector,
        rows: Rows<'_>,
        table: &mut [f64],
        change: &mut Vector,
    ) -> Result<f64> {
        let answer = self
            .declared(Capability::RowResiduals, self.problem.row_residuals())?
            .exchange_residuals(at, rows, table, change)?;
        self.counters.gradients += 1;
        self.count(answer.cost);
        Ok(answer.value)
    }

    /// Upper bounds of how fast gradients change.
    ///
    /// # Errors
    /// If undeclared, lacking, or the data cannot be read.
    pub fn smoothness(&mut self) -> Result<Smoothness> {
        let answer = self.declared(Capability::RowResiduals, self.problem.row_residuals())?.smoothness()?;
        self.count(answer.cost);
        Ok(answer.value)
    }

    /// The regularizer's proximal map.
    ///
    /// # Errors
    /// If undeclared or lacking.
    pub fn proximal_regularizer(&mut self, weight: f64, v: &mut Vector) -> Result<()> {
        self.declared(Capability::Consensus, self.problem.consensus())?.proximal_regularizer(weight, v);
        Ok(())
    }

    /// The layers of a network that is split, and the strength of its ridge.
    ///
    /// # Errors
    /// If undeclared or lacking.
    pub fn layers(&self) -> Result<(Vec<Layer>, f64)> {
        let splitting = self.declared(Capability::Layers, self.problem.layer_splitting())?;
        Ok((splitting.layers(), splitting.ridge()))
    }

    /// How many of the first layers are hidden ones on the inputs, and how many of the last give outputs.
    ///
    /// # Errors
    /// If undeclared or lacking.
    pub fn layer_ends(&self) -> Result<(usize, usize)> {
        let splitting = self.declared(Capability::Layers, self.problem.layer_splitting())?;
        Ok((splitting.on_inputs(), splitting.heads()))
    }

    /// The mean Gram matrix of the first layer's inputs and a constant one, over all rows.
    ///
    /// # Errors
    /// If undeclared, lacking, or the data cannot be read.
    pub fn input_gram(&mut self) -> Result<Array2<f64>> {
        let answer = self.declared(Capability::Layers, self.problem.layer_splitting())?.input_gram()?;
        self.count(answer.cost);
        Ok(answer.value)
    }

    /// Joint local steps of all outputs and activations of some rows.
    ///
    /// # Errors
    /// If undeclared, lacking, or the data cannot be read.
    pub fn joint_step(
        &mut self,
        at: &Vector,
        rows: Rows<'_>,
        penalty: f64,
        head: Head,
        with_grams: bool,
    ) -> Result<JointStep> {
        let splitting = self.declared(Capability::Layers, self.problem.layer_splitting())?;
        let answer = splitting.joint_step(at, rows, penalty, head, with_grams)?;
        self.counters.solves += 1;
        self.count(answer.cost);
        Ok(answer.value)
    }

    /// Local variables of all training rows, for use with [`Oracle::visit`].
    ///
    /// # Errors
    /// If undeclared, lacking, or they would be too large.
    pub fn local_variables(&self) -> Result<Box<dyn LocalVariables>> {
        self.declared(Capability::LayerVariables, self.problem.layer_splitting())?.local_variables()
    }

    /// Takes local steps on every row block, in order.
    ///
    /// # Errors
    /// If the data cannot be read.
    pub fn visit(&mut self, variables: &mut dyn LocalVariables, at: &Vector, steps: &[LocalStep]) -> Result<LocalSums> {
        let answer = variables.visit(at, steps)?;
        self.counters.solves += 1;
        self.count(answer.cost);
        Ok(answer.value)
    }

    /// The blocks of a layer of experts.
    ///
    /// # Errors
    /// If undeclared or lacking.
    pub fn expert_layer(&self) -> Result<ExpertLayer> {
        Ok(self.declared(Capability::Experts, self.problem.expert_equations())?.expert_layer())
    }

    /// Sums for a step of every block of a layer of experts.
    ///
    /// # Errors
    /// If undeclared, lacking, or the data cannot be read.
    pub fn expert_sums(&mut self, at: &Vector, rows: Rows<'_>, question: ExpertQuestion<'_>) -> Result<ExpertSums> {
        let experts = self.declared(Capability::Experts, self.problem.expert_equations())?;
        let answer = experts.expert_sums(at, rows, question)?;
        self.counters.normal_systems += 1;
        self.count(answer.cost);
        Ok(answer.value)
    }

    /// What a checkpoint needs to go on from here.
    #[must_use]
    pub fn position(&self) -> OraclePosition {
        let (epoch, row) = self.sampler.position();
        OraclePosition {
            counters: self.counters,
            step: self.step,
            epoch,
            row,
            rng_word: self.rng.get_word_pos().to_string(),
            notes: self.notes.clone(),
            findings: self.findings.clone(),
        }
    }

    /// Goes to a position recorded earlier.
    ///
    /// # Errors
    /// If the position was damaged.
    pub fn seek(&mut self, position: OraclePosition) -> Result<()> {
        let word = position.rng_word.parse().map_err(|_| {
            Error::Numeric(format!("checkpoint: the generator's position `{}` is not a number", position.rng_word))
        })?;
        self.rng.set_word_pos(word);
        self.sampler.seek(position.epoch, position.row);
        self.counters = position.counters;
        self.step = position.step;
        self.notes = position.notes;
        self.findings = position.findings;
        Ok(())
    }
}

/// Where an oracle stands: counters, data order and random stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OraclePosition {
    counters: Counters,
    step: u64,
    epoch: u64,
    row: u64,
    /// A 68-bit counter, as text because JSON numbers do not reach that far.
    rng_word: String,
    notes: BTreeMap<String, f64>,
    findings: Vec<Finding>,
}
