//! Iteratively reweighted least squares: Fisher scoring on whole data, with safeguards.
//!
//! A step solves `H d = -g` with the information matrix `H = Z'WZ/n + ridge` and the gradient `g` (McCullagh and
//! Nelder 1989, section 2.5) and moves to `theta + d`. One pass over the data per step gives value, gradient and
//! information together; it also judges the step before: if the objective rose, half of the way is taken back. Large
//! multinomial models use the upper bound `1/2 (I - 11'/K) (x) Z'Z/n` of Böhning (1992) instead, which is factorized
//! once and never overshoots.
//!
//! Rank deficiency is detected and named: coordinates that depend on earlier ones stay where they started. Separation
//! (no finite optimum) is detected and named too.
//!
//! Mixtures of such models are fitted by the same equations, block by block inside EM or all at once (the file `scoring`).
//! A layer of experts is fitted by the same equations, each of its blocks while the others are held (the file `blocks`).

mod blocks;
mod head;
mod scoring;

pub use head::ENTRY as HEAD;

use super::expert_steps::{
    EXPERT_DAMPING, INPUT_CAP, OUTPUT_CAP, RETRIES, ROUTER_CAP, ROUTER_STEP, ROWS_PER_EXPERT, SIGNAL,
};
use super::{Optimizer, OptimizerEntry, Promises, Size, StateVisitor, Step};
use crate::device::cpu::linalg::{self, ScaledCholesky};
use crate::error::{Error, Result};
use crate::oracle::{Capability, Finding, Information, Need, Oracle, Rows, Separation, Setting, Settings, Vector};
use ndarray::{Array1, Array2};

/// The registered optimizer.
pub const ENTRY: OptimizerEntry = OptimizerEntry {
    name: "irls",
    summary: "iteratively reweighted least squares (Fisher scoring) on whole data",
    paper: "McCullagh and Nelder 1989, section 2.5; bound for several classes: Böhning 1992; mixtures: Jordan and Jacobs 1994",
    needs: &[],
    stochastic: false,
    settings: &[
        Setting::choice(
            "likelihood",
            "observed",
            &["observed", "complete", "conditional"],
            "whose information is taken: observed: all parameters'; complete: that of EM's complete data, in which the expert of \
             every row is known; conditional: that of every block of a layer of experts while the others are held, on minibatches",
        )
        .needing(&[
            Need {
                word: "observed",
                capabilities: &[Capability::NormalEquations, Capability::Gradient],
                draws: false,
            },
            Need {
                word: "complete",
                capabilities: &[Capability::NormalEquations, Capability::Gradient, Capability::CompleteEquations],
                draws: false,
            },
            Need { word: "conditional", capabilities: &[Capability::Experts, Capability::Value], draws: true },
        ]),
        Setting::choice(
            "information",
            "auto",
            &["auto", "exact", "bound"],
            "the matrix of the normal equations: exact, or a bound of it that is formed once; auto: exact where it fits",
        )
        .of("likelihood", OBSERVED),
        Setting::real(
            "relaxation",
            "1.8",
            0.1,
            1.999,
            "factor of EM's steps: above 1 over-relaxes, because the complete data's information is too large",
        )
        .of("likelihood", &["complete"]),
        Setting::real(
            "damping",
            "1e-3",
            0.0,
            1e6,
            "mixtures: share of the mean diagonal added to the information at first; a quarter after every step, four times as \
             much for every halving",
        )
        .log()
        .of("likelihood", WHOLE),
        Setting::real("tolerance", "1e-10", 0.0, 1.0, "converged when the gradient's largest element is below this")
            .log()
            .of("likelihood", WHOLE),
        Setting::real(
            "gap",
            "0",
            0.0,
            1.0,
            "ends with the step after which no more than this share of the objective is left to gain, as far as Newton's \
             quadratic convergence foretells (mixtures: the linear one that was seen); 0: by the gradient alone",
        )
        .log()
        .of("likelihood", WHOLE),
        Setting::whole("halvings", "30", 0, 60, "how often a step may be halved when the objective rises")
            .of("likelihood", WHOLE),
        ROWS_PER_EXPERT.of("likelihood", CONDITIONAL),
        Setting::real("input_step", "0.1", 0.0, 1e3, "share of the Gauss-Newton step of input matrices that is taken")
            .log()
            .search(0.01, 1.0)
            .of("likelihood", CONDITIONAL),
        Setting::real("output_step", "0.05", 0.0, 1e3, "share of output matrices' least-squares steps that is taken")
            .log()
            .search(0.005, 1.0)
            .of("likelihood", CONDITIONAL),
        ROUTER_STEP.of("likelihood", CONDITIONAL),
        SIGNAL.of("likelihood", CONDITIONAL),
        Setting::real("momentum", "0.8", 0.0, 0.999_999, "share of the last move that is kept")
            .of("likelihood", CONDITIONAL),
        EXPERT_DAMPING.of("likelihood", CONDITIONAL),
        Setting::real(
            "metric_damping",
            "0.3",
            0.0,
            f64::INFINITY,
            "share of the mean diagonal added to the metric of input matrices",
        )
        .log()
        .of("likelihood", CONDITIONAL),
        Setting::real("memory", "0.8", 0.0, 0.999_999, "share of the Gram matrices that is kept at a refresh")
            .of("likelihood", CONDITIONAL),
        Setting::whole("refresh", "5", 1, 1 << 20, "steps between two refreshes of Gram matrices")
            .of("likelihood", CONDITIONAL),
        INPUT_CAP.of("likelihood", CONDITIONAL),
        OUTPUT_CAP.of("likelihood", CONDITIONAL),
        ROUTER_CAP.of("likelihood", CONDITIONAL),
        RETRIES.of("likelihood", CONDITIONAL),
        Setting::choice(
            "schedule",
            "constant",
            &["constant", "inverse", "cosine"],
            "steps over passes t: constant; inverse: 1/(1 + t/horizon); cosine: to zero at the horizon",
        )
        .of("likelihood", CONDITIONAL),
        Setting::real("horizon", "40", 1e-9, f64::INFINITY, "passes: the time scale of the schedule")
            .log()
            .of("likelihood", CONDITIONAL),
    ],
    build: |s| {
        let built: Box<dyn Optimizer> = match s.word("likelihood") {
            "conditional" => Box::new(blocks::Blocks::new(s)),
            _ => Box::new(Irls::new(s)),
        };
        Ok(built)
    },
};

const OBSERVED: &[&str] = &["observed"];
const WHOLE: &[&str] = &["observed", "complete"];
const CONDITIONAL: &[&str] = &["conditional"];

/// A pivot below this share of its diagonal calls for a closer look at the rank. In `f32` sums of rare columns the pivot
/// of a dependent column is noise of up to a thousandth, so the first system is looked at more closely: whoever is found
/// there has not moved yet.
const SUSPICIOUS_FIRST_PIVOT: f64 = 1e-2;
const SUSPICIOUS_PIVOT: f64 = 1e-6;

/// A remaining diagonal below this share of its column's own marks a column as dependent on earlier ones, in a matrix
/// summed in `f64`.
const RANK_TOLERANCE: f64 = 1e-10;

/// Linear predictors beyond this size at the optimum call for a look for separation, unless Newton's last step was below
/// this share of the parameters: along a direction of recession it never is.
const SUSPICIOUS_PREDICTOR: f64 = 12.0;
const SUSPICIOUS_STEP: f64 = 1e-3;

/// From a decrement of this share of the objective on, it foretells the next.
const FORETELLING: f64 = 1e-3;

/// A decrement that is so much smaller than the last shows quadratic convergence; along a direction of recession it falls
/// by `e` or so.
const QUADRATIC_SHORTENING: f64 = 1e-2;

/// In the quadratic regime a step shortens the gradient at least so much, unless it is at the rounding of its sums.
const LEAST_SHORTENING: f64 = 0.1;

/// Where a Newton step promises to lower the objective by less than this share of it, the step is right and a rise of
/// the objective is the rounding of its sums; the fit ends when the gradient stops falling.
const QUADRATIC_REGIME: f64 = 1e-6;

struct Irls {
    mode: Mode,
    /// Whether the complete data's information is taken.
    is_complete: bool,
    relaxation: f64,
    /// Share of the mean diagonal that is added to the next information; mixtures only.
    damping: f64,
    /// By how much the objective fell at the last accepted step; mixtures only.
    last_fall: f64,
    tolerance: f64,
    gap: f64,
    halvings: usize,
    /// Objective at the last accepted point; infinite before the first.
    accepted: f64,
    halved: u64,
    iteration: u64,
    last_step_size: f64,
    last_decrement: f64,
    last_gradient: f64,
    /// The last accepted point and the step taken from it.
    previous: Vec<Vector>,
    direction: Vec<Vector>,
    rank_checked: bool,
    /// Positions of coordinates that stay where they are: redundant ones and those found to depend on others.
    held: Vec<f64>,
    quasi_separated: bool,
    /// The bound's factors: `C`, `D`, `left`, `right`, `ridge`, flattened; empty until formed.
    bound: Vec<f64>,
    factors: Option<BoundFactors>,
}

#[derive(PartialEq)]
enum Mode {
    Auto,
    Exact,
    Bound,
}

impl Irls {
    fn new(s: &Settings) -> Self {
        let is_complete = s.word("likelihood") == "complete";
        let information = if is_complete { "exact" } else { s.word("information") };
        Self {
            mode: match information {
                "exact" => Mode::Exact,
                "bound" => Mode::Bound,
                _ => Mode::Auto,
            },
            is_complete,
            relaxation: if is_complete { s.real("relaxation") } else { 1.0 },
            damping: s.real("damping"),
            last_fall: f64::INFINITY,
            tolerance: s.real("tolerance"),
            gap: s.real("gap"),
            halvings: s.whole("halvings"),
            accepted: f64::INFINITY,
            halved: 0,
            iteration: 0,
            last_step_size: f64::INFINITY,
            last_decrement: f64::INFINITY,
            last_gradient: f64::INFINITY,
            previous: Vec::new(),
            direction: Vec::new(),
            rank_checked: false,
            held: Vec::new(),
            quasi_separated: false,
            bound: Vec::new(),
            factors: None,
        }
    }

    fn uses_bound(&self, oracle: &Oracle<'_>, parameters: &Vector) -> Result<bool> {
        Ok(match self.mode {
            Mode::Bound => true,
            Mode::Exact => false,
            Mode::Auto => parameters.len() > oracle.dense_limit()?,
        })
    }

    fn is_held(&self, coordinate: usize) -> bool {
        self.held.contains(&(coordinate as f64))
    }

    /// `d = -H^-1 g` with held coordinates left alone; nothing where coordinates were found that must be held from now on.
    fn solve(
        &mut self,
        oracle: &mut Oracle<'_>,
        information: &Array2<f64>,
        gradient: &Vector,
    ) -> Result<Option<Vector>> {
        let free: Vec<usize> = (0..gradient.len()).filter(|&i| !self.is_held(i)).collect();
        let k = free.len() as f64;
        oracle.count_solve(k.powi(3) / 3.0 + 2.0 * k.powi(2));
        // Separation drives weights, and with them the matrix, towards zero: a little ridge keeps it solvable.
        let factor = ScaledCholesky::new(information, &free)?;
        let limit = if self.iteration <= 1 { SUSPICIOUS_FIRST_PIVOT } else { SUSPICIOUS_PIVOT };
        if factor.smallest_pivot < limit && !self.rank_checked {
            self.rank_checked = true;
            let dependent = oracle.dependent_coordinates()?;
            if !dependent.is_empty() {
                self.hold(oracle, &dependent);
                return Ok(None);
            }
        }
        let right: Array1<f64> = free.iter().map(|&i| -gradient.host()[i]).collect();
        let mut direction = gradient.zeros_like();
        for (&i, value) in free.iter().zip(factor.solve(right.view())?) {
            direction.host_mut()[i] = value;
        }
        Ok(Some(direction))
    }

    /// Holds coordinates that depend on earlier ones, and names their columns.
    fn hold(&mut self, oracle: &mut Oracle<'_>, dependent: &[(usize, String)]) {
        let mut columns: Vec<String> = Vec::new();
        for (coordinate, name) in dependent {
            if !self.is_held(*coordinate) {
                self.held.push(*coordinate as f64);
            }
            if !columns.contains(name) {
                columns.push(name.clone());
            }
        }
        // Several classes have a coefficient each for every column of the design.
        let classes = dependent.len() / columns.len();
        let total = oracle.coordinate_names().len() / classes;
        oracle.find(Finding {
            kind: "rank-deficiency".into(),
            message: format!(
                "the design has rank {} of {total}: {} columns depend linearly on earlier ones and keep a coefficient of \
                 zero; a ridge makes all coefficients unique",
                total - columns.len(),
                columns.len()
            ),
            columns,
            direction: std::collections::BTreeMap::new(),
        });
    }

    /// Looks for separation; complete separation ends the fit.
    fn name_separation(&mut self, oracle: &mut Oracle<'_>, at: &Vector, step: &Vector) -> Result<Option<Step>> {
        let Some(Separation { complete, columns, direction }) = oracle.separation(at, step)? else {
            return Ok(None);
        };
        let names = oracle.coordinate_names();
        let largest = direction.norm_max();
        let direction = direction
            .host()
            .iter()
            .zip(names)
            .filter(|(value, _)| value.abs() > 1e-9 * largest)
            .map(|(value, name)| (name, value / largest))
            .collect();
        let (kind, message) = if complete {
            ("separation", "the classes are separable: the likelihood has no finite optimum. Add a ridge".to_owned())
        } else {
            let message = format!(
                "the classes are quasi-separable: the coefficients of {} columns have no finite optimum. Add a ridge",
                columns.len()
            );
            ("quasi-separation", message)
        };
        oracle.find(Finding { kind: kind.into(), message: message.clone(), columns, direction });
        self.quasi_separated = !complete;
        Ok(complete.then_some(Step::Stopped(message)))
    }

    /// The largest gradient element among coordinates that are not held.
    fn largest_free(&self, gradient: &Vector) -> f64 {
        let free = gradient.host().iter().enumerate().filter(|(i, _)| !self.is_held(*i));
        free.fold(0.0, |largest: f64, (_, value)| largest.max(value.abs()))
    }

    /// When to look for separation while iterating: Newton's steps should have collapsed long before.
    fn is_dragging(&self, step_size: f64) -> bool {
        self.iteration >= 6
            && self.iteration.is_multiple_of(3)
            && !self.quasi_separated
            && step_size > 0.3 * self.last_step_size
    }

    fn converged(&mut self, oracle: &mut Oracle<'_>, at: &Vector, how: String) -> Result<Step> {
        let still_moving = self.direction.first().is_none_or(|step| step.norm() > SUSPICIOUS_STEP * at.norm());
        if still_moving && !self.quasi_separated && oracle.largest_predictor(at)? > SUSPICIOUS_PREDICTOR {
            let step = self.direction.first().cloned().unwrap_or_else(|| at.zeros_like());
            if let Some(step) = self.name_separation(oracle, at, &step)? {
                return Ok(step);
            }
        }
        Ok(if self.quasi_separated {
            Step::Stopped(format!("{how}; quasi-separated, so some coefficients have no finite optimum"))
        } else {
            Step::Converged(how)
        })
    }

    /// Takes half of the last step back, because of the `value` and `gradient` where it led.
    fn halve(
        &mut self,
        oracle: &mut Oracle<'_>,
        parameters: &mut Vector,
        value: f64,
        gradient: &Vector,
    ) -> Result<Step> {
        let (Some(previous), Some(direction)) = (self.previous.first(), self.direction.first_mut()) else {
            oracle.finite("the objective at the start", value)?;
            return Err(Error::Numeric("the gradient at the start is not finite".into()));
        };
        self.halved += 1;
        parameters.copy_from(previous);
        if self.halved > self.halvings as u64 {
            // A far step may overshoot the finite numbers; one as short as this does not.
            oracle.finite("the objective along the step", value)?;
            oracle.finite("the gradient along the step", gradient.norm_max())?;
            let halvings = self.halvings;
            return Ok(Step::Stopped(format!("the objective rose along the step, even halved {halvings} times")));
        }
        direction.scale(0.5);
        parameters.axpy(1.0, direction);
        oracle.note("step_fraction", 0.5_f64.powi(self.halved as i32));
        Ok(Step::Continue)
    }

    fn exact_step(&mut self, oracle: &mut Oracle<'_>, parameters: &mut Vector) -> Result<Step> {
        let system = oracle.normal_system(parameters, Rows::All, false)?;
        let Information::Dense(information) = system.information else {
            return Err(Error::Numeric("the problem answered with a bound where the information was asked for".into()));
        };
        let acceptable = system.value.is_finite() && system.gradient.is_finite();
        let near = self.last_decrement <= QUADRATIC_REGIME * system.value.abs();
        if !acceptable || (system.value > self.accepted && !near) {
            return self.halve(oracle, parameters, system.value, &system.gradient);
        }
        let fall = self.accepted - system.value;
        self.accepted = system.value;
        self.halved = 0;
        self.iteration += 1;
        let largest = self.largest_free(&system.gradient);
        oracle.note("gradient_norm", largest);
        oracle.note("step_fraction", 1.0);
        if largest <= self.tolerance {
            return self.converged(
                oracle,
                parameters,
                format!("gradient {largest:.1e} after {} steps", self.iteration),
            );
        }
        let Some(direction) = self.solve(oracle, &information, &system.gradient)? else {
            // Newton's method begins anew, from here but with those at zero.
            for &coordinate in &self.held {
                parameters.host_mut()[coordinate as usize] = 0.0;
            }
            (self.accepted, self.iteration) = (f64::INFINITY, 0);
            (self.last_step_size, self.last_decrement, self.last_gradient) =
                (f64::INFINITY, f64::INFINITY, f64::INFINITY);
            self.previous = Vec::new();
            return Ok(Step::Continue);
        };
        let decrement = -0.5 * system.gradient.dot(&direction);
        oracle.note("newton_decrement", decrement);
        if self.quasi_separated && fall.abs() / (system.value.abs() + 0.1) < 1e-8 {
            return self.converged(oracle, parameters, "the deviance changes by less than 1e-8".into());
        }
        // Once the gradient has stopped falling, one last step is taken and not judged; and so it is where the decrements
        // foretell what will be left: each is about a multiple of the square of the one before.
        let last = near && largest > LEAST_SHORTENING * self.last_gradient;
        let foretold = decrement.powi(3) / (self.last_decrement.powi(2) * system.value.abs());
        let foretells = self.last_decrement.is_finite() && decrement <= FORETELLING * system.value.abs();
        let enough = self.gap > 0.0 && foretells && foretold <= self.gap;
        let quadratic = decrement <= QUADRATIC_SHORTENING * self.last_decrement;
        self.last_decrement = decrement;
        self.last_gradient = largest;
        let step_size = direction.norm();
        if !near
            && self.is_dragging(step_size)
            && let Some(step) = self.name_separation(oracle, parameters, &direction)?
        {
            return Ok(step);
        }
        self.last_step_size = step_size;
        self.previous = vec![parameters.clone()];
        parameters.axpy(1.0, &direction);
        self.direction = vec![direction];
        if enough {
            let how = format!("a share of {foretold:.0e} of the objective left to gain after {} steps", self.iteration);
            // Nothing that is separable converges so fast.
            return if quadratic { Ok(Step::Converged(how)) } else { self.converged(oracle, parameters, how) };
        }
        if last {
            return self.converged(
                oracle,
                parameters,
                format!("gradient {largest:.1e}, at the rounding of the sums, after {} steps", self.iteration),
            );
        }
        Ok(Step::Continue)
    }

    /// Without a ridge, takes columns that depend on earlier ones out of the bound's matrix and holds their coefficients.
    fn hold_dependent_columns(&mut self, oracle: &mut Oracle<'_>, right: &mut Array2<f64>, ridge: &[f64]) {
        if ridge.iter().any(|ridge| *ridge > 0.0) {
            return;
        }
        let d = right.nrows();
        let columns = linalg::dependent_columns(right, RANK_TOLERANCE);
        if columns.is_empty() {
            return;
        }
        let names = oracle.coordinate_names();
        let classes = names.len() / d;
        let coordinates = (0..classes).flat_map(|class| columns.iter().map(move |&j| (class, j)));
        // A column's name stands behind its class's.
        let name = |j: usize| names[j].split_once(": ").filter(|_| classes > 1).map_or(&*names[j], |(_, name)| name);
        let dependent: Vec<_> = coordinates.map(|(class, j)| (class * d + j, name(j).to_owned())).collect();
        self.hold(oracle, &dependent);
        for &j in &columns {
            right.row_mut(j).fill(0.0);
            right.column_mut(j).fill(0.0);
            right[[j, j]] = 1.0;
        }
    }

    fn bound_step(&mut self, oracle: &mut Oracle<'_>, parameters: &mut Vector) -> Result<Step> {
        let mut gradient = parameters.zeros_like();
        let value = if self.bound.is_empty() {
            let system = oracle.normal_system(parameters, Rows::All, true)?;
            let Information::KroneckerBound { left, mut right, ridge } = system.information else {
                return Err(Error::Numeric(
                    "the problem answered with a full matrix where a bound was asked for".into(),
                ));
            };
            self.hold_dependent_columns(oracle, &mut right, &ridge);
            self.bound = [left.nrows() as f64, right.nrows() as f64].to_vec();
            self.bound.extend(left.iter().chain(&right).chain(&ridge));
            let d = right.nrows() as f64;
            oracle.count_solve(2.0 * d.powi(3) / 3.0);
            gradient = system.gradient;
            system.value
        } else {
            oracle.value_and_gradient(parameters, Rows::All, &mut gradient)?
        };
        oracle.finite("the objective", value)?;
        for &coordinate in &self.held {
            gradient.host_mut()[coordinate as usize] = 0.0;
        }
        let largest = gradient.norm_max();
        oracle.note("gradient_norm", largest);
        self.iteration += 1;
        if largest <= self.tolerance {
            return self.converged(
                oracle,
                parameters,
                format!("gradient {largest:.1e} after {} steps", self.iteration),
            );
        }
        if self.factors.is_none() {
            self.factors = Some(BoundFactors::new(&self.bound)?);
        }
        let direction = self.factors.as_ref().expect("formed above").solve(&gradient)?;
        parameters.axpy(-1.0, &direction);
        Ok(Step::Continue)
    }
}

impl Optimizer for Irls {
    fn start(&mut self, oracle: &mut Oracle<'_>, parameters: &Vector) -> Result<()> {
        if self.mode == Mode::Bound && !oracle.is_hessian()? {
            let reason =
                "information = \"bound\" is of generalized linear models; mixtures have theirs exact".to_owned();
            return Err(Error::Unsupported { name: "irls".into(), problem: "this problem".into(), reason });
        }
        if !self.uses_bound(oracle, parameters)? {
            self.held = oracle.redundant_coordinates()?.into_iter().map(|coordinate| coordinate as f64).collect();
        }
        Ok(())
    }

    fn step(&mut self, oracle: &mut Oracle<'_>, parameters: &mut Vector) -> Result<Step> {
        if self.is_complete || !oracle.is_hessian()? {
            self.scoring_step(oracle, parameters)
        } else if self.uses_bound(oracle, parameters)? {
            self.bound_step(oracle, parameters)
        } else {
            self.exact_step(oracle, parameters)
        }
    }

    fn promises(&self, size: &Size<'_>) -> Promises {
        // A row's part of the information is p^2 operations where its gradient is 4p; beside it one factorization and, at
        // most, one pass that looks for dependent columns or separation.
        let p = size.layout.len() as f64;
        Promises { convex_gap: 1e-10, step_gradients: Some(3.0 + p / 2.0 + p.powi(3) / size.gradient_flops) }
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        visitor.number("damping", &mut self.damping);
        visitor.number("last_fall", &mut self.last_fall);
        visitor.number("accepted", &mut self.accepted);
        visitor.count("halved", &mut self.halved);
        visitor.count("iteration", &mut self.iteration);
        visitor.number("last_step_size", &mut self.last_step_size);
        visitor.number("last_decrement", &mut self.last_decrement);
        visitor.number("last_gradient", &mut self.last_gradient);
        visitor.vectors("previous", &mut self.previous);
        visitor.vectors("direction", &mut self.direction);
        visitor.flag("rank_checked", &mut self.rank_checked);
        visitor.numbers("held", &mut self.held);
        visitor.flag("quasi_separated", &mut self.quasi_separated);
        visitor.numbers("bound", &mut self.bound);
    }
}

/// `(left (x) right + ridge)^-1` through the eigenvectors of `left`: one Cholesky factor per distinct eigenvalue.
struct BoundFactors {
    vectors: Array2<f64>,
    /// For each eigenvector, which factor belongs to it.
    factor_of: Vec<usize>,
    factors: Vec<Array2<f64>>,
}

impl BoundFactors {
    fn new(flat: &[f64]) -> Result<Self> {
        let damaged = || Error::Numeric("checkpoint: the bound's matrices are damaged".into());
        let [c, d] = flat.get(..2).ok_or_else(damaged)? else { return Err(damaged()) };
        let (c, d) = (*c as usize, *d as usize);
        if flat.len() != 2 + c * c + d * d + d {
            return Err(damaged());
        }
        let shape = |rows, values: &[f64]| {
            Array2::from_shape_vec((rows, rows), values.to_vec()).map_err(|e| Error::Numeric(e.to_string()))
        };
        let left = shape(c, &flat[2..2 + c * c])?;
        let right = shape(d, &flat[2 + c * c..2 + c * c + d * d])?;
        let ridge = &flat[2 + c * c + d * d..];
        let (values, vectors) = linalg::symmetric_eigen(&left)?;
        let mut distinct: Vec<f64> = Vec::new();
        let mut factors = Vec::new();
        let mut factor_of = Vec::with_capacity(c);
        for &value in &values {
            let known = distinct.iter().position(|v| (v - value).abs() <= 1e-12 * values[c - 1].abs());
            factor_of.push(known.unwrap_or(distinct.len()));
            if known.is_some() {
                continue;
            }
            distinct.push(value);
            let mut matrix = &right * value;
            // A direction in which all classes move together changes no probability: it is held by full damping, or
            // rounding would be divided by nothing. Columns without variation need a little help too.
            let common = value.abs() <= 1e-9 * values[c - 1];
            let largest = matrix.diag().iter().fold(0.0_f64, |m, v| m.max(v.abs()));
            let help = if common { values[c - 1] } else { 1e-9 * largest };
            for (j, ridge) in ridge.iter().enumerate() {
                matrix[[j, j]] += ridge + help;
            }
            factors.push(linalg::cholesky(&matrix)?);
        }
        Ok(Self { vectors, factor_of, factors })
    }

    fn solve(&self, gradient: &Vector) -> Result<Vector> {
        let c = self.vectors.nrows();
        let d = self.factors[0].nrows();
        let g = Array2::from_shape_vec((c, d), gradient.host().to_vec()).map_err(|e| Error::Numeric(e.to_string()))?;
        let solved = self.solve_matrix(&g)?;
        Vector::from_values(gradient.layout(), solved.iter().copied().collect())
    }

    /// Solves for a gradient of `C x D`.
    fn solve_matrix(&self, g: &Array2<f64>) -> Result<Array2<f64>> {
        let (c, d) = g.dim();
        let rotated = self.vectors.t().dot(g);
        let mut solved = Array2::zeros((c, d));
        for (i, &factor) in self.factor_of.iter().enumerate() {
            solved.row_mut(i).assign(&linalg::cholesky_solve(&self.factors[factor], rotated.row(i))?);
        }
        Ok(self.vectors.dot(&solved))
    }
}
