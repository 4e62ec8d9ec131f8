//! Steps of every block of a layer of experts from sums over minibatches: what IRLS and ADMM on such layers have in common.
//!
//! With the sums of an expert's `m` rows ([`crate::oracle::ExpertShare`]) and running Gram matrices `G_x`, `G_A`, `e` a share of
//! their mean diagonals,
//!
//! ```text
//! dU = M^-1 (mean delta x') (G_x + e)^-1,   dV = (mean r A') (G_A + e)^-1,   dR = 2 (mean signal x') (G + e)^-1
//! ```
//!
//! `M` is the identity for a splitting and `C + beta mean diag C`, `C = (mean p^2 m m') o (V'V)`, for Gauss-Newton: the block
//! `C (x) G_x` of its matrix, masks taken for independent of inputs. `G` is the mean of all experts' `G_x`; `dR` is a step of a
//! multinomial logit under Böhning's bound. `v = mu v + step d`, and the blocks move by `v`, within trust regions: for every hidden
//! unit `sd(x'v) <= input_cap sd(x'U)`, for an expert's outputs `rms(A v) <= output_cap rms(r)`, for every logit `sd(x'v) <=
//! router_cap`; and where an expert has few rows the step is scaled by `min(1, m / 2w)`, `w` the width of its design. A move is taken
//! if the objective on the same rows does not rise, else it is halved, at last dropped. Every move is judged so, though it costs a pass
//! forward over its rows: judged one in five, experts died and small batches diverged.

use super::StateVisitor;
use super::stochastic::Schedule;
use crate::device::Matrix;
use crate::error::Result;
use crate::oracle::{
    Batch, ExpertLayer, ExpertQuestion, ExpertShare, ExpertSums, Oracle, RouterSignal, Rows, Setting, Settings, Vector,
};
use rayon::prelude::*;

/// The settings, for [`ExpertSteps::new`], the sizes of steps and the schedule apart.
pub(super) const ROWS_PER_EXPERT: Setting =
    Setting::whole("rows_per_expert", "200", 1, 1 << 30, "rows per step, for each expert").log().search(60.0, 1000.0);
pub(super) const ROUTER_STEP: Setting =
    Setting::real("router_step", "0.5", 0.0, 1e3, "share of the router's step that is taken").log().search(0.01, 10.0);
pub(super) const EXPERT_DAMPING: Setting = Setting::real(
    "expert_damping",
    "1e-2",
    0.0,
    f64::INFINITY,
    "share of the mean diagonal added to Gram matrices of experts and of the router's inputs",
)
.log();
pub(super) const INPUT_CAP: Setting = Setting::real(
    "input_cap",
    "0.1",
    0.0,
    f64::INFINITY,
    "a hidden unit's change is at most this share of its deviation over the expert's rows",
)
.log()
.search(0.02, 1.0);
pub(super) const OUTPUT_CAP: Setting =
    Setting::real("output_cap", "0.5", 0.0, f64::INFINITY, "an expert's change is at most this share of its residuals")
        .log()
        .search(0.1, 2.0);
pub(super) const ROUTER_CAP: Setting =
    Setting::real("router_cap", "0.1", 0.0, f64::INFINITY, "deviation of a logit's change at most").log();
pub(super) const SIGNAL: Setting = Setting::choice(
    "signal",
    "loss",
    &["loss", "responsibilities"],
    "what moves the router: minus the loss's derivative in the logits, or responsibilities of all experts less p",
);
pub(super) const RETRIES: Setting =
    Setting::whole("retries", "3", 0, 60, "how often a move is halved when the objective on its rows rises");

/// Sizes of the steps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// Of `U`.
    pub input: f64,
    /// Of `V`.
    pub output: f64,
    /// `mu`.
    pub momentum: f64,
    /// `beta` of the metric `M`; none: the identity.
    pub metric: Option<f64>,
    /// Share of a Gram matrix's weight that is kept at a refresh.
    pub memory: f64,
    /// Steps from refresh to refresh.
    pub refresh: u64,
}

/// Running Gram matrices of an expert.
struct Kept {
    /// Rows behind them, older ones discounted.
    weight: f64,
    input: Matrix,
    output: Matrix,
    masks: Matrix,
    /// `C` at the last refresh.
    metric: Option<Matrix>,
}

/// Inverses that follow from [`Kept`].
struct Inverses {
    input: Matrix,
    output: Matrix,
    metric: Option<Matrix>,
}

/// The moves of one expert: new velocities of `U` and `V`.
struct Move {
    input: Matrix,
    output: Matrix,
}

/// The steps and what they remember.
pub(super) struct ExpertSteps {
    rows_per_expert: usize,
    router_step: f64,
    damping: f64,
    caps: [f64; 3],
    pub signal: RouterSignal,
    retries: u64,
    schedule: Schedule,
    sizes: Sizes,
    taken: u64,
    dropped: u64,
    layer: Option<ExpertLayer>,
    velocity: Vec<Vector>,
    kept: Vec<Option<Kept>>,
    inverses: Vec<Option<Inverses>>,
    /// The inputs' matrix, that of all experts together, and its inverse, for the router.
    router: Option<[Matrix; 2]>,
    /// A vector of the parameters' shape, for matrices on its device.
    like: Vec<Vector>,
}

/// The share of the mean diagonal that is added to a matrix.
fn damping(matrix: &Matrix, share: f64) -> f64 {
    (share * matrix.trace() / matrix.rows() as f64).max(f64::from(f32::MIN_POSITIVE))
}

/// Variances of `x'w` for every row `w` of a matrix, from the Gram matrix of `x`, whose last element is a constant one.
fn variances(matrix: &Matrix, gram: &Matrix) -> Vec<f64> {
    let width = matrix.columns();
    let (rows, products) = (matrix.to_host(), matrix.times(false, gram, false).to_host());
    let variance = |(row, product): (&[f32], &[f32])| {
        let square: f64 = row.iter().zip(product).map(|(w, g)| f64::from(*w) * f64::from(*g)).sum();
        (square - f64::from(product[width - 1]).powi(2)).max(0.0)
    };
    rows.chunks_exact(width).zip(products.chunks_exact(width)).map(variance).collect()
}

/// `sum_ij m_ij (m G)_ij`.
fn energy(matrix: &Matrix, gram: &Matrix) -> f64 {
    let products = matrix.times(false, gram, false).to_host();
    matrix.to_host().iter().zip(products).map(|(m, g)| f64::from(*m) * f64::from(g)).sum()
}

/// What a quantity is scaled by to be at most `most`.
fn within(most: f64, is: f64) -> f64 {
    if is > most { most / is } else { 1.0 }
}

/// The matrix with every row times a factor of its own.
fn scaled_rows(matrix: &Matrix, factors: &[f64], like: &Vector) -> Matrix {
    let width = matrix.columns();
    let values: Vec<f32> = matrix
        .to_host()
        .chunks_exact(width)
        .zip(factors)
        .flat_map(|(row, &factor)| row.iter().map(move |v| v * factor as f32))
        .collect();
    like.new_matrix(matrix.rows(), width, &values)
}

impl ExpertSteps {
    pub(super) fn new(s: &Settings, sizes: Sizes) -> Self {
        Self {
            rows_per_expert: s.whole("rows_per_expert"),
            router_step: s.real("router_step"),
            damping: s.real("expert_damping"),
            caps: [s.real("input_cap"), s.real("output_cap"), s.real("router_cap")],
            signal: match s.word("signal") {
                "responsibilities" => RouterSignal::Responsibilities,
                _ => RouterSignal::Loss,
            },
            retries: s.whole("retries") as u64,
            schedule: Schedule::new(s, 0.0),
            sizes,
            taken: 0,
            dropped: 0,
            layer: None,
            velocity: Vec::new(),
            kept: Vec::new(),
            inverses: Vec::new(),
            router: None,
            like: Vec::new(),
        }
    }

    pub(super) fn start(&mut self, oracle: &mut Oracle<'_>, parameters: &Vector) -> Result<()> {
        let layer = oracle.expert_layer()?;
        self.velocity = vec![parameters.zeros_like()];
        self.like = vec![parameters.zeros_like()];
        self.kept = layer.experts.iter().map(|_| None).collect();
        self.inverses = layer.experts.iter().map(|_| None).collect();
        self.layer = Some(layer);
        Ok(())
    }

    /// The blocks.
    pub(super) fn layer(&self) -> &ExpertLayer {
        self.layer.as_ref().expect("started before the first step")
    }

    /// Rows of a step.
    fn batch_size(&self, rows: usize) -> usize {
        self.rows_per_expert.saturating_mul(self.layer().experts.len()).min(rows)
    }

    /// One step: sums as `question` asks for them, moves, and the judgement of the objective.
    pub(super) fn step(
        &mut self,
        oracle: &mut Oracle<'_>,
        parameters: &mut Vector,
        question: ExpertQuestion<'_>,
    ) -> Result<()> {
        let n = oracle.rows();
        let size = self.batch_size(n);
        let batch = if size == n { Batch::new(Vec::new()) } else { oracle.next_batch(size) };
        let rows = if size == n { Rows::All } else { Rows::Batch(&batch) };
        // In passes as they are counted: what is read to judge moves is part of them.
        let share = self.schedule.at(oracle.data_passes() + size as f64 / n as f64);
        let is_due = self.taken.is_multiple_of(self.sizes.refresh);
        let sums = oracle.expert_sums(parameters, rows, ExpertQuestion { with_grams: is_due, ..question })?;
        oracle.finite("the minibatch objective", sums.value)?;
        if is_due {
            self.renew(oracle, parameters, &sums)?;
        }
        self.invert(oracle, is_due)?;
        let direction = self.moves(oracle, parameters, &sums, share)?;
        oracle.finite("a step", direction.norm_max())?;
        self.judge(oracle, parameters, rows, &sums, direction)?;
        self.taken += 1;
        let used: Vec<f64> = sums.experts.iter().flatten().map(|share| share.rows as f64).collect();
        let experts = sums.experts.len() as f64;
        for (name, value) in [
            ("batch_objective", sums.value),
            ("step_share", share),
            ("dropped_moves", self.dropped as f64),
            ("idle_experts", experts - used.len() as f64),
            ("largest_load", used.iter().copied().fold(0.0, f64::max) * experts / size.max(1) as f64),
        ] {
            oracle.note(name, value);
        }
        Ok(())
    }

    /// Takes a minibatch's Gram matrices into the averages, each with the weight of its rows.
    fn renew(&mut self, oracle: &Oracle<'_>, parameters: &Vector, sums: &ExpertSums) -> Result<()> {
        let layer = self.layer.as_ref().expect("started before the first step");
        let like = &self.like[0];
        for (i, share) in sums.experts.iter().enumerate() {
            let Some((rows, new)) = share.as_ref().and_then(|share| Some((share.rows as f64, share.grams.as_ref()?)))
            else {
                continue;
            };
            oracle.finite("a Gram matrix", new.input.trace() + new.output.trace() + new.masks.trace())?;
            let kept = self.kept[i].get_or_insert_with(|| Kept {
                weight: 0.0,
                input: new.input.clone(),
                output: new.output.clone(),
                masks: new.masks.clone(),
                metric: None,
            });
            let old = self.sizes.memory * kept.weight;
            kept.weight = old + rows;
            for (mean, new) in
                [(&mut kept.input, &new.input), (&mut kept.output, &new.output), (&mut kept.masks, &new.masks)]
            {
                mean.axpby(old / kept.weight, rows / kept.weight, new);
            }
            if self.sizes.metric.is_some() {
                let output = parameters.matrix(&layer.experts[i].output);
                let weight = output.part(0..output.columns() - 1);
                let squares = weight.times(true, &weight, false).to_host();
                let values: Vec<f32> = kept.masks.to_host().iter().zip(squares).map(|(m, v)| m * v).collect();
                kept.metric = Some(like.new_matrix(weight.columns(), weight.columns(), &values));
            }
            self.inverses[i] = None;
        }
        Ok(())
    }

    /// The inputs' mean Gram matrix over the rows of all experts.
    fn router_gram(&self) -> Option<Matrix> {
        let total: f64 = self.kept.iter().flatten().map(|kept| kept.weight).sum();
        let mut mean: Option<Matrix> = None;
        for kept in self.kept.iter().flatten() {
            let share = kept.weight / total;
            match &mut mean {
                Some(mean) => mean.axpby(1.0, share, &kept.input),
                None => {
                    let mut first = kept.input.clone();
                    first.scale(share);
                    mean = Some(first);
                }
            }
        }
        mean
    }

    /// Inverts what is not inverted. What a resumed run inverts again is not `due`, and was counted before.
    fn invert(&mut self, oracle: &mut Oracle<'_>, is_due: bool) -> Result<()> {
        let is_router_due = (is_due || self.router.is_none()) && self.layer().router.is_some();
        let router = if is_router_due { self.router_gram() } else { None };
        let (share, beta) = (self.damping, self.sizes.metric);
        // All at once: the router's, then those of one expert after another.
        let mut of: Vec<(&Matrix, f64)> = router.iter().map(|gram| (gram, damping(gram, share))).collect();
        for (kept, inverses) in self.kept.iter().zip(&self.inverses) {
            let (Some(kept), None) = (kept, inverses) else { continue };
            of.extend([&kept.input, &kept.output].map(|gram| (gram, damping(gram, share))));
            of.extend(kept.metric.iter().zip(beta).map(|(metric, beta)| (metric, damping(metric, beta))));
        }
        let mut found = Matrix::inverses(&of)?.into_iter();
        let mut next = || found.next().expect("an inverse of every matrix");
        if let Some(gram) = router {
            if is_due {
                oracle.count_solve((gram.rows() as f64).powi(3));
            }
            self.router = Some([gram, next()]);
        }
        for (kept, inverses) in self.kept.iter().zip(&mut self.inverses) {
            let (Some(kept), None) = (kept, &inverses) else { continue };
            let new =
                Inverses { input: next(), output: next(), metric: kept.metric.as_ref().and(beta).map(|_| next()) };
            if is_due {
                let sizes = [Some(&new.input), Some(&new.output), new.metric.as_ref()];
                oracle.count_solve(sizes.into_iter().flatten().map(|m| (m.rows() as f64).powi(3)).sum());
            }
            *inverses = Some(new);
        }
        Ok(())
    }

    /// The new velocity of one expert within its trust regions.
    fn expert_move(&self, expert: usize, parameters: &Vector, share: &ExpertShare, schedule: f64) -> Option<Move> {
        let (kept, inverses) = (self.kept[expert].as_ref()?, self.inverses[expert].as_ref()?);
        let blocks = &self.layer().experts[expert];
        let like = &self.like[0];
        let scale = |width: usize| (share.rows as f64 / (2 * width) as f64).min(1.0) * schedule;
        let mut input = self.velocity[0].matrix(&blocks.input);
        let mut whole = share.input_right.times(false, &inverses.input, false);
        if let Some(metric) = &inverses.metric {
            whole = metric.times(false, &whole, false);
        }
        input.axpby(self.sizes.momentum, self.sizes.input * scale(input.columns()), &whole);
        let own = variances(&parameters.matrix(&blocks.input), &kept.input);
        let moved = variances(&input, &kept.input);
        let factors: Vec<f64> =
            own.iter().zip(&moved).map(|(own, moved)| within(self.caps[0] * own.sqrt(), moved.sqrt())).collect();
        let input = scaled_rows(&input, &factors, like);
        let mut output = self.velocity[0].matrix(&blocks.output);
        let whole = share.output_right.times(false, &inverses.output, false);
        output.axpby(self.sizes.momentum, self.sizes.output * scale(output.columns()), &whole);
        let change = energy(&output, &kept.output).max(0.0).sqrt();
        output.scale(within(self.caps[1] * share.residual.sqrt(), change));
        Some(Move { input, output })
    }

    /// The moves of all blocks, which become the velocity: of experts without rows zero, their velocity stays.
    fn moves(
        &mut self,
        oracle: &mut Oracle<'_>,
        parameters: &Vector,
        sums: &ExpertSums,
        schedule: f64,
    ) -> Result<Vector> {
        let moves: Vec<Option<Move>> = sums
            .experts
            .par_iter()
            .enumerate()
            .map(|(i, share)| self.expert_move(i, parameters, share.as_ref()?, schedule))
            .collect();
        let mut direction = parameters.zeros_like();
        let mut flops = 0.0;
        let layer = self.layer.as_ref().expect("started before the first step");
        for (blocks, own) in layer.experts.iter().zip(moves) {
            let Some(own) = own else { continue };
            for (block, matrix) in [(&blocks.input, &own.input), (&blocks.output, &own.output)] {
                direction.set_matrix(block, matrix);
                self.velocity[0].set_matrix(block, matrix);
                // The solve and the trust region's products.
                flops += 6.0 * (block.rows * block.columns * block.columns) as f64;
            }
        }
        if let (Some(block), Some(right), Some([gram, inverse])) = (&layer.router, &sums.router, &self.router) {
            let mut router = self.velocity[0].matrix(block);
            let whole = right.times(false, inverse, false);
            router.axpby(self.sizes.momentum, 2.0 * self.router_step * schedule, &whole);
            let factors: Vec<f64> =
                variances(&router, gram).iter().map(|moved| within(self.caps[2], moved.sqrt())).collect();
            // One factor for all logits: their differences are what counts.
            router.scale(factors.into_iter().fold(1.0, f64::min));
            direction.set_matrix(block, &router);
            self.velocity[0].set_matrix(block, &router);
            flops += 4.0 * (block.rows * block.columns * block.columns) as f64;
        }
        oracle.count_flops(flops);
        Ok(direction)
    }

    /// Moves if the objective on the same rows does not rise, halved if need be.
    fn judge(
        &mut self,
        oracle: &mut Oracle<'_>,
        parameters: &mut Vector,
        rows: Rows<'_>,
        sums: &ExpertSums,
        mut direction: Vector,
    ) -> Result<()> {
        let before = parameters.clone();
        let mut fraction = 1.0;
        for _ in 0..=self.retries {
            parameters.axpy(1.0, &direction);
            let value = oracle.value(parameters, rows)?;
            if value <= sums.value {
                oracle.note("move_fraction", fraction);
                if fraction < 1.0 {
                    self.velocity[0].scale(fraction);
                }
                return Ok(());
            }
            parameters.copy_from(&before);
            oracle.finite("the objective after a step", value)?;
            // Responsibilities follow another objective: the router's move is dropped first.
            let router = self.layer.as_ref().and_then(|layer| layer.router.as_ref());
            if let (RouterSignal::Responsibilities, Some(block), true) = (self.signal, router, fraction == 1.0) {
                for vector in [&mut direction, &mut self.velocity[0]] {
                    vector.write(block.start, &vec![0.0; block.range().len()]);
                }
            }
            direction.scale(0.5);
            fraction *= 0.5;
        }
        self.velocity[0].fill(0.0);
        self.dropped += 1;
        oracle.note("move_fraction", 0.0);
        Ok(())
    }

    pub(super) fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        visitor.count("taken", &mut self.taken);
        visitor.count("dropped", &mut self.dropped);
        visitor.vectors("velocity", &mut self.velocity);
        for i in 0..self.kept.len() {
            let mut flat = self.kept[i].as_ref().map_or_else(Vec::new, Kept::flat);
            let before = flat.len();
            visitor.numbers(&format!("expert{i}"), &mut flat);
            if before == 0 && !flat.is_empty() {
                let widths = self.layer().experts[i].clone();
                self.kept[i] = Kept::from_flat(&flat, [widths.input.columns, widths.output.columns], &self.like[0]);
                self.inverses[i] = None;
                self.router = None;
            }
        }
    }
}

fn numbers(matrix: &Matrix) -> Vec<f64> {
    matrix.to_host().into_iter().map(f64::from).collect()
}

fn matrix(like: &Vector, size: usize, values: &[f64]) -> Matrix {
    like.new_matrix(size, size, &values.iter().map(|&v| v as f32).collect::<Vec<_>>())
}

impl Kept {
    fn flat(&self) -> Vec<f64> {
        let matrices = [Some(&self.input), Some(&self.output), Some(&self.masks), self.metric.as_ref()];
        [self.weight].into_iter().chain(matrices.into_iter().flatten().flat_map(numbers)).collect()
    }

    /// What [`Kept::flat`] gave, for designs of the given widths.
    fn from_flat(flat: &[f64], [input, output]: [usize; 2], like: &Vector) -> Option<Self> {
        let (weight, mut rest) = flat.split_first()?;
        let mut take = |size: usize| {
            let (own, others) = rest.split_at_checked(size * size)?;
            rest = others;
            Some(matrix(like, size, own))
        };
        let (gram_input, gram_output, masks) = (take(input)?, take(output)?, take(output - 1)?);
        let metric = take(output - 1);
        Some(Self { weight: *weight, input: gram_input, output: gram_output, masks, metric })
    }
}
