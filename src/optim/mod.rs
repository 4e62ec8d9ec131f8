//! Optimizers: each in a file of its own, behind the oracle, knowing no model and no dataset.

pub mod adamw;
pub mod admm;
mod descent;
mod expert_steps;
pub mod hessian_free;
pub mod irls;
pub mod k_fac;
pub mod l_bfgs;
mod line_search;
pub mod muon;
pub mod newton_cg;
pub mod nonlinear_cg;
pub mod saga;
pub mod schedule_free;
pub mod sgd;
pub mod soap;
mod state;
mod stochastic;

pub use state::{StateReader, StateVisitor, StateWriter};

use crate::error::Result;
use crate::oracle::{
    Capability, Counters, Finding, Layout, Need, Oracle, Problem, Setting, SettingRange, SettingValue, Settings,
    Stream, Vector, stream,
};
use std::sync::Arc;

/// How a step ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// There is more to do.
    Continue,
    /// The optimizer's own criterion is met; the reason in words.
    Converged(String),
    /// No further progress is possible, or no finite optimum exists; the reason in words.
    Stopped(String),
}

/// A problem's size, on which the cost of a step depends.
#[derive(Debug, Clone, Copy)]
pub struct Size<'a> {
    /// Training rows.
    pub rows: usize,
    /// The parameters' blocks.
    pub layout: &'a Arc<Layout>,
    /// Floating-point operations of one gradient over all rows.
    pub gradient_flops: f64,
}

/// What an optimizer promises under its settings; `parsimony check` holds it to that.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Promises {
    /// How near the optimum of a small, well-conditioned convex problem it comes, as a share of the objective's fall from
    /// the start to the optimum.
    pub convex_gap: f64,
    /// The most work of one step, in gradients over all rows ([`Oracle::gradient_equivalents`]); `None` where nothing is
    /// promised.
    pub step_gradients: Option<f64>,
}

impl Default for Promises {
    fn default() -> Self {
        Self { convex_gap: 1e-2, step_gradients: None }
    }
}

/// Something that moves parameters by questions to an [`Oracle`].
pub trait Optimizer {
    /// Allocates what depends on the problem's size. Called once before the first step, and before
    /// [`Optimizer::visit_state`] restores a checkpoint.
    ///
    /// # Errors
    /// If the problem lacks something that was declared.
    fn start(&mut self, oracle: &mut Oracle<'_>, parameters: &Vector) -> Result<()> {
        let _ = (oracle, parameters);
        Ok(())
    }

    /// One step: moves `parameters`.
    ///
    /// # Errors
    /// [`Error::Diverged`](crate::Error::Diverged) when a quantity is not finite; whatever the oracle reports.
    fn step(&mut self, oracle: &mut Oracle<'_>, parameters: &mut Vector) -> Result<Step>;

    /// The point to evaluate and report, where it is not the iterate itself (averages, consensus variables).
    fn reported<'a>(&'a self, parameters: &'a Vector) -> &'a Vector {
        parameters
    }

    /// What it promises on a problem of this size.
    fn promises(&self, size: &Size<'_>) -> Promises {
        let _ = size;
        Promises::default()
    }

    /// Shows everything that outlives a step to the visitor, always in the same order: this one method saves,
    /// restores and measures the state.
    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        let _ = visitor;
    }
}

/// A registered optimizer.
#[derive(Clone)]
pub struct OptimizerEntry {
    /// The name used in experiment files.
    pub name: &'static str,
    /// One line on what it is.
    pub summary: &'static str,
    /// Where it comes from: author, year, section.
    pub paper: &'static str,
    /// The capabilities it always needs; a choice among its settings may need more.
    pub needs: &'static [Capability],
    /// Whether it draws random numbers; if not, several seeds are one cell.
    pub stochastic: bool,
    /// Its hyperparameters with ranges and defaults.
    pub settings: &'static [Setting],
    /// Builds it from checked settings.
    pub build: fn(&Settings) -> Result<Box<dyn Optimizer>>,
}

impl OptimizerEntry {
    fn chosen<'a>(&'a self, settings: &'a Settings) -> impl Iterator<Item = &'a Need> {
        self.settings.iter().flat_map(|setting| {
            let needs = setting.needs.iter();
            needs.filter(|need| settings.values().get(setting.name) == Some(&SettingValue::Word(need.word.into())))
        })
    }

    /// The capabilities that it needs with the given settings.
    #[must_use]
    pub fn needs_with(&self, settings: &Settings) -> Vec<Capability> {
        let chosen = self.chosen(settings).flat_map(|need| need.capabilities);
        self.needs.iter().chain(chosen).copied().collect()
    }

    /// Whether it draws random numbers with the given settings.
    #[must_use]
    pub fn draws_with(&self, settings: &Settings) -> bool {
        self.stochastic || self.chosen(settings).any(|need| need.draws)
    }

    /// The optimizer under each word of a choice that decides what it needs, as an entry of its own that has this word alone
    /// and the settings that count under it; itself where there is no such choice.
    #[must_use]
    pub fn by_needs(&self) -> Vec<Self> {
        let Some(choice) = self.settings.iter().find(|setting| !setting.needs.is_empty()) else {
            return vec![self.clone()];
        };
        let under = |need: &'static Need| {
            let words: &'static [&'static str] = std::slice::from_ref(&need.word);
            let counts =
                |setting: &&Setting| setting.of.is_none_or(|(name, of)| name != choice.name || of.contains(&need.word));
            let settings = self.settings.iter().filter(counts).map(|&setting| match setting.name == choice.name {
                true => Setting { range: SettingRange::Choice(words), default: need.word, needs: &[], ..setting },
                false => Setting { of: None, ..setting },
            });
            let capabilities: Vec<Capability> = self.needs.iter().chain(need.capabilities).copied().collect();
            // Settings and needs of a registry live as long as the program: so do these few.
            Self {
                needs: capabilities.leak(),
                stochastic: self.stochastic || need.draws,
                settings: settings.collect::<Vec<_>>().leak(),
                ..self.clone()
            }
        };
        choice.needs.iter().map(under).collect()
    }

    /// What it needs, in words, with the choices that need it.
    #[must_use]
    pub fn needs_in_words(&self) -> String {
        let chosen = self.settings.iter().flat_map(|setting| {
            setting.needs.iter().filter(|need| !need.capabilities.is_empty()).map(|need| {
                let names: Vec<_> = need.capabilities.iter().map(ToString::to_string).collect();
                format!("{} = {}: {}", setting.name, need.word, names.join(" and "))
            })
        });
        let always = self.needs.iter().map(ToString::to_string);
        always.chain(chosen).collect::<Vec<_>>().join(", ")
    }

    /// Whether some of its settings make it draw random numbers.
    #[must_use]
    pub fn may_draw(&self) -> bool {
        self.stochastic || self.settings.iter().any(|setting| setting.needs.iter().any(|need| need.draws))
    }
}

impl std::fmt::Debug for OptimizerEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OptimizerEntry({})", self.name)
    }
}

/// What [`minimize`] ended with.
#[derive(Debug, Clone)]
pub struct Fit {
    /// The reported point.
    pub parameters: Vector,
    /// How the last step ended: [`Step::Continue`] if the steps ran out.
    pub outcome: Step,
    /// Steps taken.
    pub steps: u64,
    /// What was asked of the problem.
    pub counters: Counters,
    /// What was noticed on the way.
    pub findings: Vec<Finding>,
}

/// Runs an optimizer from the problem's own start until it stops or `max_steps` are taken: no clock, no records. The
/// workbench's runner does the same with both.
///
/// # Errors
/// Whatever the optimizer or the problem reports.
pub fn minimize(
    entry: &OptimizerEntry,
    settings: &Settings,
    problem: &dyn Problem,
    seed: u64,
    max_steps: u64,
) -> Result<Fit> {
    let mut optimizer = (entry.build)(settings)?;
    let mut oracle = Oracle::new(problem, entry.name, &entry.needs_with(settings), seed, 1);
    let mut parameters = problem.initial(&mut stream(seed, Stream::Initialization));
    optimizer.start(&mut oracle, &parameters)?;
    let mut outcome = Step::Continue;
    while outcome == Step::Continue && oracle.step() < max_steps {
        oracle.begin_step();
        outcome = optimizer.step(&mut oracle, &mut parameters)?;
    }
    Ok(Fit {
        parameters: optimizer.reported(&parameters).clone(),
        outcome,
        steps: oracle.step(),
        counters: *oracle.counters(),
        findings: oracle.findings().to_vec(),
    })
}

/// The optimizers of this crate, in the order in which they are listed.
#[must_use]
pub fn registry() -> Vec<OptimizerEntry> {
    vec![
        sgd::ENTRY,
        adamw::ENTRY,
        schedule_free::ENTRY,
        l_bfgs::ENTRY,
        nonlinear_cg::ENTRY,
        newton_cg::ENTRY,
        saga::ENTRY,
        muon::ENTRY,
        soap::ENTRY,
        k_fac::ENTRY,
        irls::ENTRY,
        irls::HEAD,
        admm::ENTRY,
        hessian_free::ENTRY,
    ]
}
