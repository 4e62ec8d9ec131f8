//! Scoring of mixtures: EM whose steps are one of iteratively reweighted least squares in every block, or Fisher scoring of
//! all parameters jointly.
//!
//! The gradient `g` of the observed objective is that of EM's complete data too (Fisher's identity), so with the complete
//! data's information `C`, which falls into blocks, a step of every block at once is
//!
//! ```text
//! theta += relaxation * d,   (C + damping) d = -g
//! ```
//!
//! (Jordan and Jacobs 1994, section 4: gate and experts by IRLS inside EM; one step of each is generalized EM, Lange 1995). `C`
//! exceeds the observed information by what is not known of the experts, so steps are too short: over-relaxed by up to 2 they
//! still converge near an optimum. Fisher scoring takes the observed information instead, all blocks jointly, undivided.
//!
//! Neither matrix is the Hessian, and the objective has many optima. A step is accepted where the objective falls, else half
//! of it is taken back. The damping is a share of the mean diagonal; near the start, where experts are alike and the gate knows nothing,
//! it keeps steps short, and it dies out as they succeed. Convergence is linear: the fit ends by its gradient, or when the
//! geometric series of its falls (Aitken's extrapolation, Böhning et al. 1994) has no more than a share `gap` of the objective left.

use super::Irls;
use crate::device::cpu::linalg::ScaledCholesky;
use crate::error::{Error, Result};
use crate::optim::Step;
use crate::oracle::{BlockInformation, BlockSystem, Information, Oracle, Rows, Vector};
use ndarray::Array1;

/// Steps that should lower the objective by less than this share of it meet the rounding of its sums.
const ROUNDING: f64 = 1e-9;

/// The damping after an accepted step, and after one that was halved, as a share of the one before.
const EASED: f64 = 0.25;
const RAISED: f64 = 4.0;

impl Irls {
    /// Value, gradient and the information that scoring goes by.
    fn scoring_system(&self, oracle: &mut Oracle<'_>, at: &Vector) -> Result<BlockSystem> {
        if self.is_complete {
            return oracle.complete_system(at, Rows::All);
        }
        let system = oracle.normal_system(at, Rows::All, false)?;
        let Information::Dense(matrix) = system.information else {
            return Err(Error::Numeric("the problem answered with a bound where the information was asked for".into()));
        };
        let blocks = vec![BlockInformation { start: 0, matrix }];
        Ok(BlockSystem { value: system.value, gradient: system.gradient, blocks })
    }

    /// `-(H + damping)^-1 g`, block by block, with held coordinates left alone.
    fn scoring_direction(&self, oracle: &mut Oracle<'_>, system: &BlockSystem) -> Result<Vector> {
        let diagonal: f64 = system.blocks.iter().map(|block| block.matrix.diag().sum()).sum();
        let help = self.damping * diagonal / system.gradient.len() as f64;
        let mut direction = system.gradient.zeros_like();
        for BlockInformation { start, matrix } in &system.blocks {
            let free: Vec<usize> = (0..matrix.nrows()).filter(|&i| !self.is_held(start + i)).collect();
            if free.is_empty() {
                continue;
            }
            let mut matrix = matrix.clone();
            matrix.diag_mut().mapv_inplace(|v| v + help);
            let size = free.len() as f64;
            oracle.count_solve(size.powi(3) / 3.0 + 2.0 * size.powi(2));
            let right: Array1<f64> = free.iter().map(|&i| -system.gradient.host()[start + i]).collect();
            let solution = ScaledCholesky::new(&matrix, &free)?.solve(right.view())?;
            for (&i, value) in free.iter().zip(solution) {
                direction.host_mut()[start + i] = value;
            }
        }
        Ok(direction)
    }

    /// Holds coordinates whose columns depend on earlier ones at zero, before the first step.
    fn hold_dependent_coordinates(&mut self, oracle: &mut Oracle<'_>, parameters: &mut Vector) -> Result<()> {
        self.rank_checked = true;
        let dependent = oracle.dependent_coordinates()?;
        if !dependent.is_empty() {
            self.hold(oracle, &dependent);
            for (coordinate, _) in dependent {
                parameters.host_mut()[coordinate] = 0.0;
            }
        }
        Ok(())
    }

    pub(super) fn scoring_step(&mut self, oracle: &mut Oracle<'_>, parameters: &mut Vector) -> Result<Step> {
        if !self.rank_checked {
            self.hold_dependent_coordinates(oracle, parameters)?;
        }
        let system = self.scoring_system(oracle, parameters)?;
        let is_finite = system.value.is_finite() && system.gradient.is_finite();
        if !is_finite || system.value > self.accepted {
            if is_finite
                && self.last_decrement <= ROUNDING * system.value.abs()
                && let Some(previous) = self.previous.first()
            {
                parameters.copy_from(previous);
                let gradient = self.last_gradient;
                return Ok(Step::Converged(format!("gradient {gradient:.1e}, at the rounding of the sums")));
            }
            return self.halve(oracle, parameters, system.value, &system.gradient);
        }
        let fall = self.accepted - system.value;
        self.accepted = system.value;
        if self.iteration > 0 {
            self.damping *= if self.halved > 0 { RAISED.powi(self.halved as i32) } else { EASED };
        }
        self.halved = 0;
        self.iteration += 1;
        let largest = self.largest_free(&system.gradient);
        oracle.note("gradient_norm", largest);
        oracle.note("step_fraction", 1.0);
        oracle.note("damping", self.damping);
        if largest <= self.tolerance {
            return Ok(Step::Converged(format!("gradient {largest:.1e} after {} steps", self.iteration)));
        }
        let ratio = fall / self.last_fall;
        let left = fall * ratio / (1.0 - ratio) / system.value.abs();
        self.last_fall = fall;
        if self.gap > 0.0 && ratio > 0.0 && ratio < 1.0 && left <= self.gap {
            let how = format!("a share of {left:.0e} of the objective left to gain after {} steps", self.iteration);
            return Ok(Step::Converged(how));
        }
        let mut direction = self.scoring_direction(oracle, &system)?;
        self.last_decrement = -0.5 * system.gradient.dot(&direction);
        self.last_gradient = largest;
        oracle.note("newton_decrement", self.last_decrement);
        direction.scale(self.relaxation);
        self.previous = vec![parameters.clone()];
        parameters.axpy(1.0, &direction);
        self.direction = vec![direction];
        Ok(Step::Continue)
    }
}
