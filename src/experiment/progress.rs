//! What a person sees while an experiment runs: bars on a terminal, a line per cell elsewhere; always on standard error.

use super::message::Message;
use super::record::{CellConfig, CellResult, Status};
use crate::oracle::SettingValue;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::Duration;

/// A line on standard error. Where nobody reads it, or it cannot be written, that is no reason to stop.
pub fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Positions of the current cell's bar.
const PARTS: u64 = 1000;

/// Shows how far an experiment is.
pub struct Progress {
    names: Names,
    total: usize,
    done: usize,
    quiet: bool,
    bars: Option<Bars>,
}

struct Bars {
    all: MultiProgress,
    overall: ProgressBar,
    current: ProgressBar,
}

impl Progress {
    /// For so many cells.
    #[must_use]
    pub fn new(names: Names, total: usize, quiet: bool) -> Self {
        let bars = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            let bar = |length, template| {
                let bar = all.add(ProgressBar::new(length));
                // The template is a constant; the default style is the fallback, not a panic.
                if let Ok(style) = ProgressStyle::with_template(template) {
                    bar.set_style(style);
                }
                bar
            };
            let current = bar(PARTS, "{bar:24} {msg}");
            let overall = bar(total as u64, "{bar:24} {pos} of {len} cells, {elapsed} so far, about {eta} left");
            overall.enable_steady_tick(Duration::from_secs(1));
            Bars { all, overall, current }
        });
        Self { names, total, done: 0, quiet, bars }
    }

    /// A cell begins.
    pub fn begin(&self, config: &CellConfig) {
        if let Some(bars) = &self.bars {
            bars.current.set_position(0);
            bars.current.set_message(format!("{}: setting up", self.names.of(config)));
        }
    }

    /// A cell is so far.
    pub fn update(&self, config: &CellConfig, message: &Message, metric: Option<&(String, f64)>) {
        let Some(bars) = &self.bars else { return };
        let budget = &config.budget;
        let shares = [
            budget.seconds.map(|seconds| message.seconds / seconds),
            budget.passes.map(|passes| message.passes / passes),
            budget.steps.map(|steps| message.steps as f64 / steps as f64),
        ];
        let share = shares.into_iter().flatten().fold(0.0, f64::max).min(1.0);
        bars.current.set_position((share * PARTS as f64) as u64);
        let metric = metric.map(|(name, value)| format!(", {} {value:.5}", name.replace('_', " "))).unwrap_or_default();
        let (name, seconds, passes) = (self.names.of(config), message.seconds, message.passes);
        bars.current.set_message(format!("{name}: {seconds:.1} s, {passes:.1} passes, step {}{metric}", message.steps));
    }

    /// A cell has ended, or needed no run.
    pub fn end(&mut self, config: &CellConfig, result: &CellResult, reused: bool) {
        self.done += 1;
        let seconds =
            result.train_seconds.map(|seconds| format!(" after {seconds:.2} s of training")).unwrap_or_default();
        let mut line = format!("[{}/{}] {}: {}", self.done, self.total, self.names.of(config), result.status);
        if reused {
            line.push_str(" before");
        } else {
            let _ = write!(line, "{seconds}: {}", result.reason.lines().next().unwrap_or_default());
        }
        match &self.bars {
            Some(bars) => {
                bars.overall.inc(1);
                // Only what is worth knowing stays on the screen.
                if matches!(result.status, Status::Diverged | Status::Failed) {
                    let _ = bars.all.println(line);
                }
            }
            None if !self.quiet => say(line),
            None => {}
        }
    }

    /// A line for the user.
    pub fn note(&self, line: &str) {
        match &self.bars {
            Some(bars) => {
                let _ = bars.all.println(line);
            }
            None if !self.quiet => say(line),
            None => {}
        }
    }

    /// Work on something that is not a cell.
    pub fn other(&self, what: &str) {
        if let Some(bars) = &self.bars {
            bars.current.set_position(0);
            bars.current.set_message(what.to_owned());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bars) = &self.bars {
            bars.current.finish_and_clear();
            bars.overall.finish_and_clear();
        }
    }
}

/// Names of cells in which only what differs within the experiment is said.
#[derive(Debug, Clone, Default)]
pub struct Names {
    several: [bool; 2],
    model_settings: BTreeSet<String>,
    hyperparameters: BTreeMap<String, BTreeSet<String>>,
    seeds: bool,
}

impl Names {
    /// Looks at all cells of an experiment.
    pub fn new<'a>(cells: impl Iterator<Item = &'a CellConfig> + Clone) -> Self {
        let several =
            |key: &dyn Fn(&'a CellConfig) -> String| cells.clone().map(key).collect::<BTreeSet<_>>().len() > 1;
        let mut names = Self {
            several: [several(&|cell| cell.dataset.label.clone()), several(&|cell| cell.model.label.clone())],
            seeds: several(&|cell| cell.seed.to_string()),
            ..Self::default()
        };
        let mut first: BTreeMap<(&str, &str), &SettingValue> = BTreeMap::new();
        for cell in cells {
            for (name, value) in &cell.model.settings {
                if first.entry(("", name)).or_insert(value) != &value {
                    names.model_settings.insert(name.clone());
                }
            }
            for (name, value) in &cell.hyperparameters {
                if first.entry((&cell.optimizer.label, name)).or_insert(value) != &value {
                    names.hyperparameters.entry(cell.optimizer.label.clone()).or_default().insert(name.clone());
                }
            }
        }
        names
    }

    /// A cell's hyperparameters that differ among the cells of its optimizer.
    #[must_use]
    pub fn hyperparameters(&self, cell: &CellConfig) -> String {
        let Some(names) = self.hyperparameters.get(&cell.optimizer.label) else { return String::new() };
        settings(names, &cell.hyperparameters)
    }

    /// A cell's model with the settings that differ.
    #[must_use]
    pub fn model(&self, cell: &CellConfig) -> String {
        [cell.model.label.clone(), settings(&self.model_settings, &cell.model.settings)].join(" ").trim().to_owned()
    }

    /// A cell.
    #[must_use]
    pub fn of(&self, cell: &CellConfig) -> String {
        let mut name = cell.optimizer.label.clone();
        let mut add = |text: &str| {
            if !text.is_empty() {
                name.push(' ');
                name.push_str(text);
            }
        };
        add(&self.hyperparameters(cell));
        if self.several[1] || !self.model_settings.is_empty() {
            add(&format!("on {}", self.model(cell)));
        }
        if self.several[0] {
            add(&format!("on {}", cell.dataset.label));
        }
        if let Some(fold) = cell.fold {
            add(&format!("fold {fold}"));
        }
        if self.seeds {
            add(&format!("seed {}", cell.seed));
        }
        name
    }
}

fn settings(names: &BTreeSet<String>, values: &BTreeMap<String, SettingValue>) -> String {
    let shown = names.iter().filter_map(|name| Some(format!("{name}={}", values.get(name)?)));
    shown.collect::<Vec<_>>().join(" ")
}
