//! A problem whose answers are no numbers any more after so many of them.

use crate::error::Result;
use crate::oracle::{
    Answer, BlockSystem, Capability, CompleteEquations, Consensus, Cost, Curvature, CurvatureMatrix, ExpertEquations,
    ExpertLayer, ExpertQuestion, ExpertSums, FactoredLayer, FisherTargets, Gradient, Head, HeadEquations, HeadSystem,
    Information, JointStep, KroneckerFactors, KroneckerPair, Layer, LayerSplitting, Layout, LocalStep, LocalSums,
    LocalVariables, NormalEquations, NormalSystem, Offer, Problem, RowResiduals, Rows, Separation, Smoothness,
    SquaredGradients, Value, Vector,
};
use ndarray::Array2;
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Another problem's answers, the first `good` of them as they are, all later ones NaN.
pub struct Faulty<'a> {
    inner: &'a dyn Problem,
    good: u64,
    answers: Arc<AtomicU64>,
}

impl<'a> Faulty<'a> {
    /// Spoils all but the first `good` answers of a problem.
    pub fn new(inner: &'a dyn Problem, good: u64) -> Self {
        Self { inner, good, answers: Arc::default() }
    }

    /// Answers so far.
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// A capability that this file has no faulty form of.
    pub fn unknown(&self, needs: &[Capability]) -> Option<Capability> {
        needs.iter().copied().find(|&need| self.inner.offers(need).is_ok() && self.offers(need).is_err())
    }

    /// Counts an answer; true if it is to be spoilt.
    fn spoils(&self) -> bool {
        self.answers.fetch_add(1, Ordering::Relaxed) >= self.good
    }
}

impl Problem for Faulty<'_> {
    fn layout(&self) -> &Arc<Layout> {
        self.inner.layout()
    }
    fn rows(&self) -> usize {
        self.inner.rows()
    }
    fn gradient_flops(&self) -> f64 {
        self.inner.gradient_flops()
    }
    fn coordinate_names(&self) -> Vec<String> {
        self.inner.coordinate_names()
    }
    fn initial(&self, rng: &mut ChaCha8Rng) -> Vector {
        self.inner.initial(rng)
    }
    fn value(&self) -> Offer<&dyn Value> {
        self.inner.value().map(|_| self as &dyn Value)
    }
    fn gradient(&self) -> Offer<&dyn Gradient> {
        self.inner.gradient().map(|_| self as &dyn Gradient)
    }
    fn curvature(&self) -> Offer<&dyn Curvature> {
        self.inner.curvature().map(|_| self as &dyn Curvature)
    }
    fn squared_gradients(&self) -> Offer<&dyn SquaredGradients> {
        self.inner.squared_gradients().map(|_| self as &dyn SquaredGradients)
    }
    fn normal_equations(&self) -> Offer<&dyn NormalEquations> {
        self.inner.normal_equations().map(|_| self as &dyn NormalEquations)
    }
    fn complete_equations(&self) -> Offer<&dyn CompleteEquations> {
        self.inner.complete_equations().map(|_| self as &dyn CompleteEquations)
    }
    fn head_equations(&self) -> Offer<&dyn HeadEquations> {
        self.inner.head_equations().map(|_| self as &dyn HeadEquations)
    }
    fn row_residuals(&self) -> Offer<&dyn RowResiduals> {
        self.inner.row_residuals().map(|_| self as &dyn RowResiduals)
    }
    fn kronecker_factors(&self) -> Offer<&dyn KroneckerFactors> {
        self.inner.kronecker_factors().map(|_| self as &dyn KroneckerFactors)
    }
    fn layer_splitting(&self) -> Offer<&dyn LayerSplitting> {
        self.inner.layer_splitting().map(|_| self as &dyn LayerSplitting)
    }
    fn consensus(&self) -> Offer<&dyn Consensus> {
        self.inner.consensus().map(|_| self as &dyn Consensus)
    }
    fn expert_equations(&self) -> Offer<&dyn ExpertEquations> {
        self.inner.expert_equations().map(|_| self as &dyn ExpertEquations)
    }
}

/// What the problem behind offers: whoever asks has been offered it.
fn offered<T>(offer: Offer<T>) -> Result<T> {
    offer.map_err(crate::error::Error::Numeric)
}

impl Value for Faulty<'_> {
    fn value(&self, at: &Vector, rows: Rows<'_>) -> Result<Answer<f64>> {
        let mut answer = offered(self.inner.value())?.value(at, rows)?;
        if self.spoils() {
            answer.value = f64::NAN;
        }
        Ok(answer)
    }
}

impl Gradient for Faulty<'_> {
    fn value_and_gradient(&self, at: &Vector, rows: Rows<'_>, gradient: &mut Vector) -> Result<Answer<f64>> {
        let mut answer = offered(self.inner.gradient())?.value_and_gradient(at, rows, gradient)?;
        if self.spoils() {
            answer.value = f64::NAN;
            gradient.fill(f64::NAN);
        }
        Ok(answer)
    }
}

struct FaultyMatrix<'a> {
    inner: Box<dyn CurvatureMatrix + 'a>,
    problem: &'a Faulty<'a>,
}

impl CurvatureMatrix for FaultyMatrix<'_> {
    fn multiply(&self, v: &Vector, product: &mut Vector) -> Result<Cost> {
        let cost = self.inner.multiply(v, product)?;
        if self.problem.spoils() {
            product.fill(f64::NAN);
        }
        Ok(cost)
    }
}

impl Curvature for Faulty<'_> {
    fn curvature_at<'a>(&'a self, at: &Vector, rows: Rows<'a>) -> Result<Answer<Box<dyn CurvatureMatrix + 'a>>> {
        let Answer { value: inner, cost } = offered(self.inner.curvature())?.curvature_at(at, rows)?;
        Ok(Answer { value: Box::new(FaultyMatrix { inner, problem: self }), cost })
    }
}

impl SquaredGradients for Faulty<'_> {
    fn mean_squared_gradient(&self, at: &Vector, rows: Rows<'_>, squares: &mut Vector) -> Result<Cost> {
        let cost = offered(self.inner.squared_gradients())?.mean_squared_gradient(at, rows, squares)?;
        if self.spoils() {
            squares.fill(f64::NAN);
        }
        Ok(cost)
    }
}

impl NormalEquations for Faulty<'_> {
    fn normal_system(&self, at: &Vector, rows: Rows<'_>, bound: bool) -> Result<Answer<NormalSystem>> {
        let mut answer = offered(self.inner.normal_equations())?.normal_system(at, rows, bound)?;
        if self.spoils() {
            answer.value.value = f64::NAN;
            answer.value.gradient.fill(f64::NAN);
            match &mut answer.value.information {
                Information::Dense(matrix) => matrix.fill(f64::NAN),
                Information::KroneckerBound { right, .. } => right.fill(f64::NAN),
            }
        }
        Ok(answer)
    }
    fn is_hessian(&self) -> bool {
        self.inner.normal_equations().map_or(true, |equations| equations.is_hessian())
    }
    fn dense_limit(&self) -> usize {
        self.inner.normal_equations().map_or(0, |equations| equations.dense_limit())
    }
    fn redundant_coordinates(&self) -> Vec<usize> {
        self.inner.normal_equations().map_or_else(|_| Vec::new(), |equations| equations.redundant_coordinates())
    }
    fn dependent_coordinates(&self) -> Result<Answer<Vec<(usize, String)>>> {
        offered(self.inner.normal_equations())?.dependent_coordinates()
    }
    fn separation(&self, at: &Vector, step: &Vector) -> Result<Answer<Option<Separation>>> {
        offered(self.inner.normal_equations())?.separation(at, step)
    }
    fn largest_predictor(&self, at: &Vector) -> Result<Answer<f64>> {
        offered(self.inner.normal_equations())?.largest_predictor(at)
    }
}

impl CompleteEquations for Faulty<'_> {
    fn complete_system(&self, at: &Vector, rows: Rows<'_>) -> Result<Answer<BlockSystem>> {
        let mut answer = offered(self.inner.complete_equations())?.complete_system(at, rows)?;
        if self.spoils() {
            answer.value.value = f64::NAN;
            answer.value.gradient.fill(f64::NAN);
            answer.value.blocks.iter_mut().for_each(|block| block.matrix.fill(f64::NAN));
        }
        Ok(answer)
    }
}

impl HeadEquations for Faulty<'_> {
    fn head_system(&self, at: &Vector, rows: Rows<'_>) -> Result<Answer<HeadSystem>> {
        let mut answer = offered(self.inner.head_equations())?.head_system(at, rows)?;
        if self.spoils() {
            answer.value.value = f64::NAN;
            answer.value.gradient.fill(f64::NAN);
            answer.value.left.fill(f64::NAN);
            answer.value.right.fill(f64::NAN);
        }
        Ok(answer)
    }
}

impl RowResiduals for Faulty<'_> {
    fn residual_size(&self) -> usize {
        self.inner.row_residuals().map_or(1, |residuals| residuals.residual_size())
    }
    fn exchange_residuals(
        &self,
        at: &Vector,
        rows: Rows<'_>,
        table: &mut [f64],
        change: &mut Vector,
    ) -> Result<Answer<f64>> {
        let mut answer = offered(self.inner.row_residuals())?.exchange_residuals(at, rows, table, change)?;
        if self.spoils() {
            answer.value = f64::NAN;
            change.fill(f64::NAN);
        }
        Ok(answer)
    }
    fn smoothness(&self) -> Result<Answer<Smoothness>> {
        let mut answer = offered(self.inner.row_residuals())?.smoothness()?;
        if self.spoils() {
            answer.value = Smoothness { row: f64::NAN, mean: f64::NAN };
        }
        Ok(answer)
    }
}

impl KroneckerFactors for Faulty<'_> {
    fn factored_layers(&self) -> Vec<FactoredLayer> {
        self.inner.kronecker_factors().map_or_else(|_| Vec::new(), |factors| factors.factored_layers())
    }
    fn ridge(&self) -> f64 {
        self.inner.kronecker_factors().map_or(0.0, |factors| factors.ridge())
    }
    fn factors(&self, at: &Vector, rows: Rows<'_>, targets: FisherTargets) -> Result<Answer<Vec<KroneckerPair>>> {
        let mut answer = offered(self.inner.kronecker_factors())?.factors(at, rows, targets)?;
        if self.spoils() {
            for pair in &mut answer.value {
                pair.inputs.scale(f64::NAN);
                pair.outputs.scale(f64::NAN);
            }
        }
        Ok(answer)
    }
}

struct FaultyVariables {
    inner: Box<dyn LocalVariables>,
    good: u64,
    answers: Arc<AtomicU64>,
}

impl LocalVariables for FaultyVariables {
    fn draw(&mut self, rng: &mut ChaCha8Rng) {
        self.inner.draw(rng);
    }
    fn visit(&mut self, at: &Vector, steps: &[LocalStep]) -> Result<Answer<LocalSums>> {
        let mut answer = self.inner.visit(at, steps)?;
        if self.answers.fetch_add(1, Ordering::Relaxed) >= self.good {
            answer.value.loss = f64::NAN;
            answer.value.output_gap = f64::NAN;
            for fit in &mut answer.value.fits {
                fit.right.fill(f64::NAN);
            }
        }
        Ok(answer)
    }
    fn state(&self) -> Vec<f64> {
        self.inner.state()
    }
    fn restore(&mut self, state: &[f64]) {
        self.inner.restore(state);
    }
}

impl LayerSplitting for Faulty<'_> {
    fn layers(&self) -> Vec<Layer> {
        self.inner.layer_splitting().map_or_else(|_| Vec::new(), |splitting| splitting.layers())
    }
    fn on_inputs(&self) -> usize {
        self.inner.layer_splitting().map_or(1, |splitting| splitting.on_inputs())
    }
    fn heads(&self) -> usize {
        self.inner.layer_splitting().map_or(1, |splitting| splitting.heads())
    }
    fn keeps_variables(&self) -> Offer<()> {
        self.inner.layer_splitting()?.keeps_variables()
    }
    fn ridge(&self) -> f64 {
        self.inner.layer_splitting().map_or(0.0, |splitting| splitting.ridge())
    }
    fn input_gram(&self) -> Result<Answer<Array2<f64>>> {
        offered(self.inner.layer_splitting())?.input_gram()
    }
    fn joint_step(
        &self,
        at: &Vector,
        rows: Rows<'_>,
        penalty: f64,
        head: Head,
        with_grams: bool,
    ) -> Result<Answer<JointStep>> {
        let mut answer = offered(self.inner.layer_splitting())?.joint_step(at, rows, penalty, head, with_grams)?;
        if self.spoils() {
            answer.value.loss = f64::NAN;
            answer.value.rights.fill(f64::NAN);
        }
        Ok(answer)
    }
    fn local_variables(&self) -> Result<Box<dyn LocalVariables>> {
        let inner = offered(self.inner.layer_splitting())?.local_variables()?;
        Ok(Box::new(FaultyVariables { inner, good: self.good, answers: Arc::clone(&self.answers) }))
    }
}

impl ExpertEquations for Faulty<'_> {
    fn expert_layer(&self) -> ExpertLayer {
        let none = || ExpertLayer { router: None, experts: Vec::new() };
        self.inner.expert_equations().map_or_else(|_| none(), |equations| equations.expert_layer())
    }
    fn expert_sums(&self, at: &Vector, rows: Rows<'_>, question: ExpertQuestion<'_>) -> Result<Answer<ExpertSums>> {
        let mut answer = offered(self.inner.expert_equations())?.expert_sums(at, rows, question)?;
        if self.spoils() {
            answer.value.value = f64::NAN;
            for share in answer.value.experts.iter_mut().flatten() {
                share.input_right.scale(f64::NAN);
                share.output_right.scale(f64::NAN);
            }
        }
        Ok(answer)
    }
}

impl Consensus for Faulty<'_> {
    fn proximal_step(
        &self,
        part: usize,
        of: usize,
        anchor: &Vector,
        rho: f64,
        tolerance: f64,
        x: &mut Vector,
    ) -> Result<Cost> {
        let consensus = offered(self.inner.consensus())?;
        let cost = consensus.proximal_step(part, of, anchor, rho, tolerance, x)?;
        if self.spoils() {
            x.fill(f64::NAN);
        }
        Ok(cost)
    }
    fn proximal_regularizer(&self, weight: f64, v: &mut Vector) {
        if let Ok(consensus) = self.inner.consensus() {
            consensus.proximal_regularizer(weight, v);
        }
    }
}
