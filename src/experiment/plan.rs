//! The plan: every cell of the grid, and every pair that does not fit with its reason, before anything runs.
//!
//! Whether an optimizer fits a problem is asked of the problem itself: each model is built once on its data, off every
//! clock. Cells stand in an interleaved order: all of them with the first seed come before any with the second.

use super::budget::Budget;
use super::problem::{Divided, layout, part_sizes};
use super::record::{CellConfig, ComponentRecord, DatasetRecord, Values, content_hash};
use super::shape::Shape;
use super::spec::{ComponentSpec, DatasetSpec, Folds, MOST_CELLS, Reported, Spec};
use crate::claim::{self, Subject};
use crate::data::SplitSpec;
use crate::data::open::{Data, Opened, Source};
use crate::device::{DeviceName, DeviceWish};
use crate::error::{Error, Result};
use crate::model::{Model, ModelEntry};
use crate::optim::OptimizerEntry;
use crate::oracle::Settings;
use crate::workbench::Workbench;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;

/// Raised whenever a change to this program changes the numbers of a cell: finished cells are then run anew.
pub const NUMERICS_VERSION: u32 = 1;

/// A cell that cannot be run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Skipped {
    /// What it would be.
    pub cell: CellConfig,
    /// Why the parts do not fit.
    pub reason: String,
}

/// An optional dataset that is not here.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Absent {
    /// What the experiment calls it.
    pub dataset: String,
    /// Why it cannot be opened.
    pub reason: String,
}

/// What an experiment consists of.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Plan {
    /// The cells in the order in which they run.
    pub cells: Vec<CellConfig>,
    /// The cells that cannot be run.
    pub skipped: Vec<Skipped>,
    /// Optional datasets that are not here.
    pub absent: Vec<Absent>,
    /// Shapes that are counted and not trained.
    pub shapes: Vec<Shape>,
    /// The problems, with whether each is convex.
    pub problems: BTreeMap<String, bool>,
}

/// A component's checked settings at one point of its grid.
struct Point<'a, E> {
    spec: &'a ComponentSpec,
    entry: &'a E,
    settings: Settings,
}

impl<E> Point<'_, E> {
    fn values(&self) -> Values {
        self.settings.values().iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    fn record(&self, settings: Values) -> ComponentRecord {
        let label = self.spec.label.clone().unwrap_or_else(|| self.spec.name.clone());
        ComponentRecord { name: self.spec.name.clone(), label, settings }
    }
}

impl Plan {
    /// Plans an experiment: opens its datasets and builds each of its models once. `progress` is told about an import
    /// of a large file into the cache: bytes done, bytes in all.
    ///
    /// # Errors
    /// [`Error::Config`] for settings, folds, targets or a device that cannot be used; whatever opening the datasets reports.
    pub fn new(spec: &Spec, workbench: &Workbench, progress: &dyn Fn(u64, u64)) -> Result<Self> {
        let models = points(&spec.models, |name| workbench.model(name), |entry| entry.settings)?;
        let optimizers = points(&spec.optimizers, |name| workbench.optimizer(name), |entry| entry.settings)?;
        for point in &optimizers {
            (point.entry.build)(&point.settings)?;
        }
        let device = spec.device.settle()?;
        let plan = Self { shapes: spec.shapes.clone(), ..Self::default() };
        let refusals = models.iter().map(|_| Refusal::NotTried).collect();
        let mut planner = Planner { spec, device, plan, seen: BTreeMap::new(), cells: Vec::new(), refusals };
        for dataset in &spec.datasets {
            let opened = match dataset.choice.open(&workbench.datasets, progress) {
                Ok(opened) => opened,
                Err(Error::Data(error)) if dataset.optional => {
                    let dataset = dataset.label.clone().unwrap_or_else(|| dataset.choice.name());
                    planner.plan.absent.push(Absent { dataset, reason: error.finding });
                    continue;
                }
                Err(error) => return Err(placed(error, &dataset.place)),
            };
            planner.add_dataset(workbench, dataset, &opened, &models, &optimizers)?;
        }
        if !spec.datasets.is_empty() && planner.plan.absent.len() == spec.datasets.len() {
            let finding = "none of its datasets is here, and all are optional";
            return Err(Error::config(&spec.datasets[0].place, finding, "fetch one: `parsimony list datasets`"));
        }
        planner.check_models(&models)?;
        // Stable: within a seed, cells keep the order of the file.
        planner.cells.sort_by_key(|(seed, _)| *seed);
        planner.plan.cells = planner.cells.into_iter().map(|(_, cell)| cell).collect();
        planner.plan.check_expectations(spec)?;
        Ok(planner.plan)
    }
}

/// What tells an experiment from another that would come to other numbers: all that its file says, comments apart, and how
/// numbers are made.
#[must_use]
pub fn identity(experiment: &str) -> String {
    let table: toml::Table = experiment.parse().unwrap_or_default();
    content_hash(&json!({ "numerics": NUMERICS_VERSION, "experiment": table }))
}

impl Plan {
    /// Finds mistakes in the claim's expectations that only the plan can show.
    fn check_expectations(&self, spec: &Spec) -> Result<()> {
        if spec.claim.expectations.is_empty() {
            return Ok(());
        }
        let run = self.cells.iter().map(|cell| (subject_of(cell), false));
        let skipped = self.skipped.iter().map(|skipped| (subject_of(&skipped.cell), true));
        let cells: Vec<_> = run.chain(skipped).collect();
        let shapes: Vec<Subject> = self.shapes.iter().map(subject_of).collect();
        let beside = Subject::beside(&shapes, cells.iter().map(|(cell, _)| cell));
        let all: Vec<_> = beside.into_iter().map(|shape| (shape, false)).chain(cells).collect();
        let recorded = claim::Recorded { target: spec.target.is_some(), inspection: spec.inspect };
        claim::check(&spec.claim.expectations, &all, recorded)
    }
}

/// A cell or a shape as an expectation tells it from others.
fn subject_of(part: &impl Serialize) -> Subject {
    Subject::of_config(&serde_json::to_value(part).unwrap_or_default())
}

/// An error about a dataset with the place in the experiment file that asks for it. A file that cannot be used stays
/// the first thing named.
fn placed(error: Error, place: &str) -> Error {
    match error {
        Error::Config { finding, remedy, .. } => Error::config(place, finding, remedy),
        Error::Data(mut error) => {
            error.finding = format!("{} (asked for in {place})", error.finding);
            Error::Data(error)
        }
        other => other,
    }
}

fn points<'a, E>(
    specs: &'a [ComponentSpec],
    find: impl Fn(&str) -> Result<&'a E>,
    declared: impl Fn(&E) -> &'static [crate::oracle::Setting],
) -> Result<Vec<Point<'a, E>>> {
    let mut points = Vec::new();
    for spec in specs {
        let entry = find(&spec.name)?;
        for values in spec.points() {
            let settings = Settings::check(&spec.place, declared(entry), &values)?;
            points.push(Point { spec, entry, settings });
        }
    }
    Ok(points)
}

struct Planner<'a> {
    spec: &'a Spec,
    /// The device of models that can live on any.
    device: DeviceName,
    plan: Plan,
    /// Where each cell comes from.
    seen: BTreeMap<String, Origin>,
    /// Cells with the position of their seed.
    cells: Vec<(usize, CellConfig)>,
    /// Of each model, whether it can be built anywhere.
    refusals: Vec<Refusal>,
}

/// What came of building a model on the datasets of its kind so far.
enum Refusal {
    NotTried,
    Built,
    Refused { finding: String, remedy: String },
}

impl Planner<'_> {
    fn add_dataset(
        &mut self,
        workbench: &Workbench,
        dataset: &DatasetSpec,
        opened: &Opened,
        models: &[Point<'_, ModelEntry>],
        optimizers: &[Point<'_, OptimizerEntry>],
    ) -> Result<()> {
        let placed = |error| placed(error, &dataset.place);
        let split = |fold| dataset.choice.split(&workbench.datasets, &dataset.split, opened, fold).map_err(placed);
        let folds = folds(&self.spec.folds, &split(None)?, dataset)?;
        // What fits and what does not is the same in every fold: the models are built on the first alone.
        let mut fits: Option<Vec<Fit>> = None;
        for fold in folds {
            let split = split(fold)?;
            let rows = part_sizes(&opened.data, &split).map_err(placed)?;
            if rows[1] == 0 {
                self.check_validation(dataset)?;
            }
            let fits = match &mut fits {
                Some(fits) => fits,
                empty => {
                    let evaluation_tokens = dataset.choice.corpus.evaluation_tokens;
                    let divided = Divided::new(&opened.data, &split, self.spec.withhold_test, evaluation_tokens);
                    let divided = divided.map_err(placed)?;
                    let fit = |point: &Point<'_, ModelEntry>| Fit::of(divided.build(point.entry, &point.settings));
                    empty.insert(models.iter().map(fit).collect::<Result<_>>()?)
                }
            };
            for (refusal, fit) in self.refusals.iter_mut().zip(fits.iter()) {
                match (fit, &refusal) {
                    (Fit::Model(_), _) => *refusal = Refusal::Built,
                    (Fit::Refused { finding, remedy }, Refusal::NotTried) => {
                        *refusal = Refusal::Refused { finding: finding.clone(), remedy: remedy.clone() };
                    }
                    _ => {}
                }
            }
            let record = dataset_record(dataset, opened, split, rows);
            for (model, fit) in models.iter().zip(fits.iter()) {
                for optimizer in optimizers {
                    self.add(dataset, &record, fold, model, fit, optimizer)?;
                }
            }
        }
        Ok(())
    }

    /// Refuses a model that can be built with none of its settings on any dataset; one that is missing might allow it.
    fn check_models(&self, models: &[Point<'_, ModelEntry>]) -> Result<()> {
        let all: Vec<_> = models.iter().zip(&self.refusals).collect();
        for points in all.chunk_by(|(a, _), (b, _)| std::ptr::eq(a.spec, b.spec)) {
            let is_built = points.iter().any(|(_, refusal)| matches!(refusal, Refusal::Built));
            let refused = points.iter().find_map(|(model, refusal)| match refusal {
                Refusal::Refused { finding, remedy } => Some(Error::config(&model.spec.place, finding, remedy)),
                _ => None,
            });
            if let Some(error) = refused.filter(|_| !is_built && self.plan.absent.is_empty()) {
                return Err(error);
            }
        }
        Ok(())
    }

    fn check_validation(&self, dataset: &DatasetSpec) -> Result<()> {
        let target = self.spec.target.as_ref().filter(|target| target.metric.starts_with("validation"));
        let wanted = match target {
            Some(target) => format!("the target is a {}", target.metric.replace('_', " ")),
            None if self.spec.report == Reported::BestValidation => "report = \"best-validation\"".to_owned(),
            None => return Ok(()),
        };
        let finding = format!("{wanted}, but the split has no validation rows");
        Err(Error::config(&dataset.place, finding, "give `split` validation rows, or take another target or report"))
    }

    fn add(
        &mut self,
        entry: &DatasetSpec,
        dataset: &DatasetRecord,
        fold: Option<usize>,
        model: &Point<'_, ModelEntry>,
        fit: &Fit,
        optimizer: &Point<'_, OptimizerEntry>,
    ) -> Result<()> {
        let spec = self.spec;
        let model_record = model.record(model.values());
        let optimizer_record = optimizer.record(Values::new());
        let problem = content_hash(&json!({
            "fingerprint": dataset.fingerprint,
            "layout": dataset.layout,
            "order": dataset.order,
            "read": match &dataset.source.source {
                Source::File { read, .. } => Some(read),
                Source::Registered(_) => None,
            },
            "split": dataset.split,
            "model": model_record.name,
            "settings": model_record.settings,
        }));
        let budget = optimizer.spec.budget.or(spec.budget).unwrap_or_default();
        let hyperparameters = optimizer.values();
        let (device, refusal) = fit.device(self.device, spec.device);
        let reason = refusal.or_else(|| fit.refusal(optimizer.entry, &optimizer.settings));
        let random = optimizer.entry.draws_with(&optimizer.settings) || model.entry.random_start;
        let seeds = if random && reason.is_none() { spec.seeds.len() } else { 1 };
        for (position, &seed) in spec.seeds.iter().take(seeds).enumerate() {
            // Seconds are left out: they truncate a cell and change none of its numbers.
            let mut identity = json!({
                "numerics": NUMERICS_VERSION,
                "problem": problem,
                "optimizer": optimizer.spec.name,
                "hyperparameters": hyperparameters,
                "seed": seed,
                "passes": budget.passes,
                "steps": budget.steps,
                "target": spec.target,
                "report": spec.report,
                "evaluate": spec.evaluate,
                "threads": spec.threads,
            });
            if spec.inspect {
                identity["inspect"] = true.into();
            }
            if let Some(tokens) = dataset.source.corpus.evaluation_tokens {
                identity["evaluation_tokens"] = tokens.into();
            }
            if spec.withhold_test {
                identity["test"] = "withheld".into();
            }
            if device != DeviceName::Cpu {
                identity["device"] = device.to_string().into();
            }
            let cell = content_hash(&identity);
            let origin = Origin {
                places: [&optimizer.spec.place, &model.spec.place, &entry.place].map(Clone::clone),
                labels: [&optimizer_record.label, &model_record.label, &dataset.label].map(Clone::clone),
                budget,
            };
            if let Some(first) = self.seen.insert(cell.clone(), origin.clone()) {
                return Err(origin.repeats(&first));
            }
            if self.seen.len() > MOST_CELLS {
                let remedy = "leave out values, seeds or folds";
                return Err(Error::config(&spec.name, format!("more than {MOST_CELLS} cells"), remedy));
            }
            let config = CellConfig {
                cell,
                experiment: spec.name.clone(),
                dataset: dataset.clone(),
                model: model_record.clone(),
                optimizer: optimizer_record.clone(),
                hyperparameters: hyperparameters.clone(),
                problem: problem.clone(),
                seed,
                stochastic: random,
                fold,
                budget,
                target: spec.target.clone(),
                report: spec.report,
                evaluate: spec.evaluate,
                inspect: spec.inspect,
                threads: spec.threads,
                device,
                withhold_test: spec.withhold_test,
            };
            match &reason {
                Some(reason) => self.plan.skipped.push(Skipped { cell: config, reason: reason.clone() }),
                None => {
                    self.plan.problems.insert(problem.clone(), fit.is_convex());
                    self.cells.push((position, config));
                }
            }
        }
        Ok(())
    }
}

fn dataset_record(dataset: &DatasetSpec, opened: &Opened, split: SplitSpec, rows: [usize; 3]) -> DatasetRecord {
    let data = &opened.data;
    let name = dataset.choice.name();
    let mut label = dataset.label.clone().unwrap_or_else(|| name.clone());
    if data.simulated() {
        label.push_str(" (simulated)");
    }
    DatasetRecord {
        name,
        label,
        simulated: data.simulated(),
        fingerprint: data.fingerprint().to_owned(),
        layout: layout(data),
        order: data.order(),
        source: dataset.choice.clone(),
        split,
        rows,
        text: matches!(data, Data::Corpus(_)),
    }
}

fn folds(wanted: &Folds, split: &SplitSpec, dataset: &DatasetSpec) -> Result<Vec<Option<usize>>> {
    let SplitSpec::Folds { count, fold, .. } = *split else { return Ok(vec![None]) };
    match wanted {
        Folds::One => Ok(vec![Some(fold)]),
        Folds::All if (1..=1000).contains(&count) => Ok((0..count).map(Some).collect()),
        Folds::All => {
            let finding = format!("folds = \"all\" of {count} folds");
            Err(Error::config(&dataset.place, finding, "let `count` be from 1 to 1000"))
        }
        Folds::Some(folds) => match folds.iter().find(|&&fold| fold >= count) {
            Some(fold) => {
                let remedy =
                    format!("`folds` takes \"all\" or a list of numbers from 0 to {}", count.saturating_sub(1));
                Err(Error::config(&dataset.place, format!("there is no fold {fold} of {count}"), remedy))
            }
            None => Ok(folds.iter().copied().map(Some).collect()),
        },
    }
}

/// The entries of the file that a cell comes from, as far as its ID does not tell: optimizer, model, dataset.
#[derive(Debug, Clone)]
struct Origin {
    places: [String; 3],
    labels: [String; 3],
    budget: Budget,
}

impl Origin {
    /// The complaint that this is the same cell as an earlier one.
    fn repeats(&self, first: &Self) -> Error {
        let mut differing = Vec::new();
        for ((what, own), other) in ["optimizer", "model", "dataset"].into_iter().zip(&self.labels).zip(&first.labels) {
            if own != other {
                differing.push(format!("the label of the {what} ({other:?}, now {own:?})"));
            }
        }
        if self.budget.seconds != first.budget.seconds {
            differing.push(format!("seconds of the budget ({}, now {})", first.budget, self.budget));
        }
        let differing = if differing.is_empty() { "nothing".to_owned() } else { differing.join(" and ") };
        // The entry that comes again; where a grid gives one point twice, the optimizer.
        let entry = (0..3).find(|&entry| self.places[entry] != first.places[entry]).unwrap_or(0);
        let finding = format!(
            "it stands for the same cells as the entry at {}: what differs is {differing}, which changes no number",
            first.places[entry]
        );
        let remedy =
            "leave one of the two out, or let them differ in a setting, the split or the budget in passes or steps";
        Error::config(&self.places[entry], finding, remedy)
    }
}

/// What a model answers when it is asked what fits.
enum Fit {
    Model(Box<dyn Model>),
    /// Its settings, or this dataset with them, do not allow it.
    Refused {
        finding: String,
        remedy: String,
    },
    /// It is not for data of this kind; the reason.
    Unfit(String),
}

impl Fit {
    fn of(built: Result<Box<dyn Model>>) -> Result<Self> {
        match built {
            Ok(model) => Ok(Self::Model(model)),
            Err(Error::Config { finding, remedy, .. }) => Ok(Self::Refused { finding, remedy }),
            // A text that is shorter than the context, for instance.
            Err(Error::Data(error)) => Ok(Self::Refused { finding: error.finding, remedy: error.remedy }),
            Err(Error::Unsupported { reason, .. }) => Ok(Self::Unfit(reason)),
            Err(other) => Err(other),
        }
    }

    /// Why an optimizer does not fit, if it does not.
    fn refusal(&self, optimizer: &OptimizerEntry, settings: &Settings) -> Option<String> {
        match self {
            Self::Refused { finding, remedy } => Some(format!("{finding}; {remedy}")),
            Self::Unfit(reason) => Some(reason.clone()),
            Self::Model(model) => optimizer.needs_with(settings).into_iter().find_map(|need| {
                let reason = model.offers(need).err()?;
                Some(format!("{} needs the {need}, and {reason}", optimizer.name))
            }),
        }
    }

    /// The device of its cells, where `any` is that of models that can live on any; a reason not to run where another was
    /// asked for by name.
    fn device(&self, any: DeviceName, wish: DeviceWish) -> (DeviceName, Option<String>) {
        match self {
            Self::Model(model) if any != DeviceName::Cpu => match model.device() {
                Ok(_) => (any, None),
                Err(reason) => {
                    let reason = format!("{reason}, and the device asked for is {wish}");
                    (DeviceName::Cpu, (wish != DeviceWish::Auto).then_some(reason))
                }
            },
            _ => (any, None),
        }
    }

    fn is_convex(&self) -> bool {
        matches!(self, Self::Model(model) if model.is_convex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Examples, Task};
    use crate::device::Panels;
    use crate::model::{self, ModelData};

    /// A model that knows the CPU alone says so where a GPU was asked for by name; the others go there.
    #[test]
    fn models_go_to_the_device_asked_for_or_say_why_not() {
        let panels = |columns| Panels::from_fn(40, columns, |r, c| ((r * (c + 1) + r / 3) % 2) as f32);
        let part = || Examples { features: panels(3), targets: panels(1), range: 0..40 };
        let data = ModelData {
            train: part(),
            validation: part(),
            test: part(),
            task: Task::Classes(vec!["a".into(), "b".into()]),
            columns: ["x", "y", "z"].map(String::from).to_vec(),
        };
        let (gpu, named) = (DeviceName::Cuda(0), DeviceWish::Named(DeviceName::Cuda(0)));
        for (name, lives_there) in [("logistic", true), ("mlp", true), ("mixture", false)] {
            let entry = model::registry().into_iter().find(|entry| entry.name == name).unwrap();
            let settings = Settings::check("test", entry.settings, &BTreeMap::new()).unwrap();
            let fit = Fit::of(entry.build(&data, &settings)).unwrap();
            assert_eq!(fit.device(DeviceName::Cpu, named), (DeviceName::Cpu, None));
            if lives_there {
                assert_eq!(fit.device(gpu, named), (gpu, None), "{name}");
                continue;
            }
            let (device, reason) = fit.device(gpu, named);
            let reason = reason.unwrap();
            assert!(
                device == DeviceName::Cpu && reason.contains("stay on the CPU") && reason.contains("cuda:0"),
                "{reason}"
            );
            assert_eq!(fit.device(gpu, DeviceWish::Auto), (DeviceName::Cpu, None));
        }
    }
}
