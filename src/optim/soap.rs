//! SOAP: Adam in the eigenbasis of Shampoo's preconditioner.
//!
//! For a matrix with minibatch gradient `G` (Vyas et al. 2024, algorithm 3, and the authors' program): with the bases `Q_L`,
//! `Q_R` of its sides and the rotated gradient `G~ = Q_L' G Q_R`,
//!
//! `m = b1 m + (1 - b1) G~`, `v = b2 v + (1 - b2) G~^2`,
//! `W = (1 - a_t decay) (W - a_t Q_L [m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + epsilon)] Q_R')`,
//!
//! and afterwards, so that no gradient is measured in a basis of its own, `L = b2 L + (1 - b2) G G'`,
//! `R = b2 R + (1 - b2) G' G`. The first gradient starts `L` and `R` and moves nothing; the bases are their eigenvectors,
//! largest eigenvalue first. Every `refresh` steps one power iteration follows: columns of `Q` are sorted by `diag(Q' L Q)`,
//! and `Q` becomes the orthogonal factor of `L Q`. Then `v` is sorted along, and `m` is rotated back out of the old bases and
//! into the new.
//!
//! Biases and other blocks of one row or column are moved by Adam itself, and so is a side longer than `largest_side` left
//! as it is. `epsilon` stands beside the corrected root, as in AdamW; in the authors' program beside the uncorrected one.
//!
//! A step costs, beside the gradient, `6 (m^2 n + m n^2)` operations for `m` rows and `n` columns; a refresh about
//! `7.3 (m^3 + n^3)` more.

use super::adamw::{BETA1, BETA2, EPSILON, Moments, WEIGHT_DECAY};
use super::stochastic::{
    AVERAGE, AVERAGE_FROM, BATCH_SIZE, HORIZON, Minibatches, Pace, SCHEDULE, Schedule, TailAverage, WARM_UP,
};
use super::{Optimizer, OptimizerEntry, Promises, Size, StateVisitor, Step};
use crate::device::Matrix;
use crate::error::Result;
use crate::oracle::{Block, Capability, Oracle, Setting, Settings, Vector};
use rayon::prelude::*;

/// The registered optimizer.
pub const ENTRY: OptimizerEntry = OptimizerEntry {
    name: "soap",
    summary: "Adam in the eigenbasis of the gradients' second moments along rows and columns",
    paper: "Vyas et al. 2024, algorithm 3; Shampoo: Gupta, Koren and Singer 2018",
    needs: &[Capability::Gradient],
    stochastic: true,
    settings: &[
        Setting::real("learning_rate", "3e-3", 0.0, f64::INFINITY, "step size at the start").log().search(1e-5, 1e-1),
        BATCH_SIZE,
        Setting { default: "0.95", ..BETA1 },
        Setting { default: "0.95", doc: "share that is kept of squared gradients and of L and R", ..BETA2 },
        EPSILON,
        WEIGHT_DECAY,
        Setting::whole("refresh", "10", 1, 1 << 20, "steps from one change of the bases to the next").log(),
        Setting::whole("largest_side", "10000", 1, 1 << 20, "a longer side of a matrix has no basis"),
        Setting::switch("vectors", "false", "treat blocks of one row or column as matrices too"),
        SCHEDULE,
        HORIZON,
        WARM_UP,
        AVERAGE,
        AVERAGE_FROM,
    ],
    build: |s| Ok(Box::new(Soap::new(s))),
};

/// A matrix and where factor and basis of its sides lie among those of all.
struct Rotated {
    block: Block,
    left: Option<Block>,
    right: Option<Block>,
}

impl Rotated {
    /// `Q_L' G Q_R`.
    fn rotate(&self, bases: &Vector, matrix: Matrix) -> Matrix {
        self.product(bases, matrix, true)
    }

    /// `Q_L N Q_R'`.
    fn rotate_back(&self, bases: &Vector, matrix: Matrix) -> Matrix {
        self.product(bases, matrix, false)
    }

    fn product(&self, bases: &Vector, matrix: Matrix, inwards: bool) -> Matrix {
        let left = self.left.as_ref().map(|left| bases.matrix(left));
        let right = self.right.as_ref().map(|right| bases.matrix(right));
        let half = left.map_or_else(|| matrix.clone(), |q| q.times(inwards, &matrix, false));
        right.map_or_else(|| half.clone(), |q| half.times(false, &q, !inwards))
    }

    /// The sides that have a basis, left true.
    fn sides(&self) -> impl Iterator<Item = (&Block, bool)> {
        self.left.iter().map(|left| (left, true)).chain(self.right.iter().map(|right| (right, false)))
    }

    fn size(&self) -> f64 {
        (self.block.rows * self.block.columns) as f64
    }
}

struct Soap {
    batches: Minibatches,
    moments: Moments,
    /// Share of `L` and `R` that is kept.
    memory: f64,
    decay: f64,
    refresh: u64,
    largest_side: usize,
    vectors: bool,
    /// Steps that moved the parameters, none before the bases are there.
    moved: u64,
    begun: bool,
    matrices: Vec<Rotated>,
    /// `L` and `R` of every matrix.
    factors: Option<Vector>,
    /// `Q_L` and `Q_R` of every matrix.
    bases: Option<Vector>,
    tail: TailAverage,
}

impl Soap {
    fn new(s: &Settings) -> Self {
        Self {
            batches: Minibatches::new(s, Schedule::new(s, s.real("warm_up"))),
            moments: Moments::new(s),
            memory: s.real("beta2"),
            decay: s.real("weight_decay"),
            refresh: s.whole("refresh") as u64,
            largest_side: s.whole("largest_side"),
            vectors: s.switch("vectors"),
            moved: 0,
            begun: false,
            matrices: Vec::new(),
            factors: None,
            bases: None,
            tail: TailAverage::new(s),
        }
    }

    /// Lays out factors and bases of the sides that are to have them.
    fn lay_out(&mut self, parameters: &Vector) {
        let layout = parameters.layout();
        let is_matrix = |block: &&Block| self.vectors || (block.rows > 1 && block.columns > 1);
        let sides: Vec<(Block, [(String, usize); 2])> = layout
            .blocks()
            .iter()
            .filter(is_matrix)
            .map(|block| {
                let side = |name: &str, size: usize| (format!("{}.{name}", block.name), size);
                (block.clone(), [side("rows", block.rows), side("columns", block.columns)])
            })
            .collect();
        let fits = |size: usize| size <= self.largest_side;
        let all = sides.iter().flat_map(|(_, sides)| sides).filter(|(_, size)| fits(*size));
        let layout = layout.beside(all.map(|(name, size)| (name.as_str(), *size, *size)));
        let mut blocks = layout.blocks().iter().cloned();
        self.matrices = sides
            .iter()
            .map(|(block, [(_, rows), (_, columns)])| Rotated {
                block: block.clone(),
                left: fits(*rows).then(|| blocks.next()).flatten(),
                right: fits(*columns).then(|| blocks.next()).flatten(),
            })
            .collect();
        self.factors = Some(Vector::zeros(&layout));
        self.bases = Some(Vector::zeros(&layout));
    }

    /// Takes a gradient into `L` and `R`.
    fn accumulate(&mut self, oracle: &mut Oracle<'_>, gradient: &Vector) {
        let factors = self.factors.as_mut().expect("laid out at the start");
        for matrix in &self.matrices {
            let g = gradient.matrix(&matrix.block);
            for (side, is_left) in matrix.sides() {
                factors.mix_matrix(side, self.memory, 1.0 - self.memory, &g.times(!is_left, &g, is_left));
                oracle.count_flops(2.0 * matrix.size() * side.rows as f64);
            }
        }
    }

    /// The first bases: eigenvectors, largest eigenvalue first.
    fn begin(&mut self, oracle: &mut Oracle<'_>) -> Result<()> {
        let (Some(factors), Some(bases)) = (&self.factors, &mut self.bases) else { return Ok(()) };
        let sides: Vec<&Block> = self.matrices.iter().flat_map(|m| m.sides().map(|(side, _)| side)).collect();
        let found: Vec<Matrix> = sides
            .par_iter()
            .map(|side| {
                let (_, vectors) = factors.matrix(side).symmetric_eigen()?;
                Ok(vectors.columns_in_order(&(0..side.rows).rev().collect::<Vec<_>>()))
            })
            .collect::<Result<_>>()?;
        for (side, basis) in sides.into_iter().zip(&found) {
            bases.set_matrix(side, basis);
            // Reduction to tridiagonal form, its eigenvectors, and these turned back.
            oracle.count_solve(9.0 * (side.rows as f64).powi(3));
        }
        self.begun = true;
        Ok(())
    }

    /// New bases by a power iteration; the moments follow.
    fn turn(&mut self, oracle: &mut Oracle<'_>) -> Result<()> {
        let (Some(factors), Some(bases)) = (&self.factors, &mut self.bases) else { return Ok(()) };
        let old = bases.clone();
        let sides: Vec<&Block> = self.matrices.iter().flat_map(|m| m.sides().map(|(side, _)| side)).collect();
        let found: Vec<(Vec<usize>, Matrix)> = sides
            .par_iter()
            .map(|side| {
                let q = old.matrix(side);
                let power = factors.matrix(side).times(false, &q, false);
                let order = largest_first(&q, &power);
                let basis = power.columns_in_order(&order).orthogonal_factor()?;
                Ok((order, basis))
            })
            .collect::<Result<_>>()?;
        for (side, (_, basis)) in sides.iter().zip(&found) {
            bases.set_matrix(side, basis);
            // The power iteration, Householder's reduction, and its product written out.
            oracle.count_solve((2.0 + 8.0 / 3.0) * (side.rows as f64).powi(3));
        }
        let mut orders = found.iter().map(|(order, _)| order);
        let (first, second) = self.moments.both();
        let mut second = second;
        let mut first = first;
        for matrix in &self.matrices {
            if let Some(second) = &mut second {
                let mut squares = second.matrix(&matrix.block);
                for (_, is_left) in matrix.sides() {
                    let order = orders.next().expect("an order for each side");
                    squares = if is_left { squares.rows_in_order(order) } else { squares.columns_in_order(order) };
                }
                second.set_matrix(&matrix.block, &squares);
            }
            if let Some(first) = &mut first {
                let there = matrix.rotate_back(&old, first.matrix(&matrix.block));
                first.set_matrix(&matrix.block, &matrix.rotate(bases, there));
                let sides: f64 = matrix.sides().map(|(side, _)| side.rows as f64).sum();
                oracle.count_flops(4.0 * matrix.size() * sides);
            }
        }
        Ok(())
    }
}

/// The order of columns `q` by the eigenvalues `diag(q' L q)` that they estimate, `power` being `L q`.
fn largest_first(q: &Matrix, power: &Matrix) -> Vec<usize> {
    let size = q.columns();
    let mut estimates = vec![0.0; size];
    for (q, power) in q.to_host().chunks(size).zip(power.to_host().chunks(size)) {
        for ((sum, q), power) in estimates.iter_mut().zip(q).zip(power) {
            *sum += f64::from(*q) * f64::from(*power);
        }
    }
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|&a, &b| estimates[b].total_cmp(&estimates[a]));
    order
}

impl Optimizer for Soap {
    fn start(&mut self, _oracle: &mut Oracle<'_>, parameters: &Vector) -> Result<()> {
        self.lay_out(parameters);
        self.moments.start(parameters, |_| true);
        self.tail.start(parameters);
        Ok(())
    }

    fn step(&mut self, oracle: &mut Oracle<'_>, parameters: &mut Vector) -> Result<Step> {
        let (Pace { passes, step_size }, gradient) = self.batches.next(oracle, parameters)?;
        oracle.finite("the minibatch gradient", gradient.norm_max())?;
        let gradient = gradient.clone();
        if !self.begun {
            self.accumulate(oracle, &gradient);
            self.begin(oracle)?;
            return Ok(Step::Continue);
        }
        let bases = self.bases.as_ref().expect("laid out at the start");
        let mut rotated = gradient.clone();
        for matrix in &self.matrices {
            rotated.set_matrix(&matrix.block, &matrix.rotate(bases, gradient.matrix(&matrix.block)));
        }
        let mut direction = parameters.zeros_like();
        self.moments.step(&mut direction, &rotated, step_size, 0.0);
        for matrix in &self.matrices {
            let back = matrix.rotate_back(bases, direction.matrix(&matrix.block));
            direction.set_matrix(&matrix.block, &back);
            let sides: f64 = matrix.sides().map(|(side, _)| side.rows as f64).sum();
            oracle.count_flops(4.0 * matrix.size() * sides);
        }
        parameters.axpy(1.0, &direction);
        if self.decay > 0.0 {
            parameters.scale(1.0 - step_size * self.decay);
        }
        self.moved += 1;
        self.accumulate(oracle, &gradient);
        if self.moved.is_multiple_of(self.refresh) {
            self.turn(oracle)?;
        }
        self.tail.take(passes, parameters);
        Ok(Step::Continue)
    }

    fn reported<'a>(&'a self, parameters: &'a Vector) -> &'a Vector {
        self.tail.reported(parameters)
    }

    fn promises(&self, size: &Size<'_>) -> Promises {
        // A minibatch's gradient; factors, projections there and back, and in steps that change the bases these and the moments
        // turned. With a constant step size it ends in the noise of its minibatches.
        let own = |block: &Block| {
            let (m, n) = (block.rows as f64, block.columns as f64);
            10.0 * m * n * (m + n) + 9.0 * (m.powi(3) + n.powi(3))
        };
        let matrices: f64 = size.layout.blocks().iter().map(own).sum();
        let step = self.batches.share_of(size.rows) + matrices / size.gradient_flops;
        Promises { convex_gap: 1e-2, step_gradients: Some(step) }
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        self.batches.visit_state(visitor);
        self.moments.visit_state(visitor);
        visitor.count("moved", &mut self.moved);
        visitor.flag("begun", &mut self.begun);
        for (name, part) in [("factors", &mut self.factors), ("bases", &mut self.bases)] {
            if let Some(part) = part {
                visitor.vector(name, part);
            }
        }
        self.tail.visit_state(visitor);
    }
}
