//! Evaluates an expectation on what was measured, and again on data drawn anew from that: the paired bootstrap.
//!
//! What would come out differently another time is drawn with replacement, the same draw for every cell, so that whatever
//! two optimizers have in common cancels: seeds, where there are several; splits (folds), where there are at least ten; with
//! fewer splits the rows of each test set, in at most 1,000 blocks of neighbours. Folds hold different test rows, so that
//! where they are drawn, rows are drawn with them. Splits that are no folds may test on the same rows: of these, rows are
//! drawn as well, the same ones in every split.
//!
//! Rows that were drawn again hold no outcome that was never seen: of a method that was right on all of fifty rows every draw
//! would say that it always is, and of two methods that differ on three rows, that the winner there is never the worse. To each
//! draw of rows belong therefore, independently of each method, as many more that are right and as many more that are wrong as a
//! Poisson variable of mean 1 says, over all test rows together: of paired proportions this adds one to the rows on which
//! either method alone is right, as do D. G. Bonett and R. M. Price, "Adjusted Wald confidence interval for a difference
//! of binomial proportions based on paired data", Journal of Educational and Behavioral Statistics 37, 2012 (theirs adds it
//! once to the pair; here each method has its own).
//!
//! The interval is that between two quantiles of the margin over [`DRAWS`] draws. A bootstrap of `n` units is too narrow
//! by a factor of about `sqrt((n - 1) / n)` and by the difference between Student's t and the normal; the quantiles are moved outwards
//! by as much: to `Phi(-t sqrt(n / (n - 1)))`, with `t` the quantile of Student's t with `n - 1` degrees of freedom and `n` the fewest
//! units of any kind that is drawn (the expanded percentile interval of T. Hesterberg, "What teachers should know about the
//! bootstrap", The American Statistician 69, 2015).

use super::metric::{Metric, Noise};
use super::subject::Subject;
use super::syntax::{Comparison, Expression, Function, Node, Operator};
use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};
use std::collections::{BTreeMap, BTreeSet};

/// The share of verdicts that may be wrong: intervals hold with one minus this.
pub const LEVEL: f64 = 0.05;
/// How many times data are drawn anew.
pub const DRAWS: usize = 4000;
/// Fewer seeds or splits than this settle nothing.
pub const LEAST_REPLICATES: usize = 10;
/// Test rows are drawn in at most so many blocks of neighbours.
const BLOCKS: usize = 1000;

/// How a cell ended, as far as its numbers go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ending {
    /// To its end: its numbers count.
    #[default]
    Finished,
    /// Out of seconds: its numbers count, and depend on the machine.
    TimedOut,
    /// Its numbers left the finite ones: it has none, and has missed its target.
    Diverged,
    /// With an error: nobody knows what it would have come to.
    Failed,
    /// It is still to run, or to go on.
    Unfinished,
    /// It was never run, because its parts do not fit.
    Skipped,
}

impl Ending {
    /// Why a cell has no numbers; `None` where it has.
    fn loss(self) -> Option<&'static str> {
        Some(match self {
            Self::Finished | Self::TimedOut => return None,
            Self::Diverged => "it diverged",
            Self::Failed => "it failed",
            Self::Unfinished => "it is not finished",
            Self::Skipped => "it was skipped",
        })
    }
}

/// What a cell was and what it came to.
#[derive(Debug, Clone, Default)]
pub struct Observation {
    /// What it was.
    pub subject: Subject,
    /// How it ended.
    pub ending: Ending,
    /// Its numbers by metric; one that is missing is no number, except when a target was reached, which is then infinity.
    pub values: BTreeMap<&'static str, f64>,
    /// Losses of its test rows.
    pub row_losses: Option<Vec<f32>>,
    /// Which of its test rows are right.
    pub row_correct: Option<Vec<bool>>,
    /// Of numbers that are a sum over test rows divided by another, by their names without `test_`: what every row adds to both.
    pub row_ratios: BTreeMap<String, [Vec<f32>; 2]>,
}

impl Observation {
    /// A number of the cell.
    fn value(&self, metric: &Metric) -> f64 {
        let miss = if metric.to_target { f64::INFINITY } else { f64::NAN };
        match self.ending {
            Ending::Finished | Ending::TimedOut => self.values.get(metric.name).copied().unwrap_or(miss),
            Ending::Diverged => miss,
            Ending::Failed | Ending::Unfinished | Ending::Skipped => f64::NAN,
        }
    }

    /// Whether the seconds that the machine took decide a number that is no time itself.
    fn is_cut_by_the_clock(&self, metric: &Metric) -> bool {
        let was_reached = metric.to_target && self.value(metric).is_finite();
        metric.noise != Noise::None && self.ending == Ending::TimedOut && !was_reached
    }
}

/// Sums of a metric over blocks of a cell's test rows, and what they are divided by: the number of rows, or a weight.
#[derive(Debug, Clone)]
struct Blocks {
    sums: Vec<f64>,
    weights: Vec<f64>,
}

impl Blocks {
    fn new(count: usize, value: impl Fn(usize) -> f64, weight: impl Fn(usize) -> f64) -> Self {
        let blocks = BLOCKS.min(count);
        let bound = |block: usize| block * count / blocks.max(1);
        let (mut sums, mut weights) = (Vec::with_capacity(blocks), Vec::with_capacity(blocks));
        for block in 0..blocks {
            sums.push((bound(block)..bound(block + 1)).map(&value).sum());
            weights.push((bound(block)..bound(block + 1)).map(&weight).sum());
        }
        Self { sums, weights }
    }

    fn of(observation: &Observation, metric: &Metric) -> Option<Self> {
        match metric.name {
            "test_loss" => {
                let losses = observation.row_losses.as_ref().filter(|rows| !rows.is_empty())?;
                Some(Self::new(losses.len(), |row| f64::from(losses[row]), |_| 1.0))
            }
            "test_accuracy" => {
                let correct = observation.row_correct.as_ref().filter(|rows| !rows.is_empty())?;
                Some(Self::new(correct.len(), |row| f64::from(u8::from(correct[row])), |_| 1.0))
            }
            name => {
                let ratio = observation.row_ratios.get(name.strip_prefix("test_")?);
                let [parts, weights] = ratio.filter(|[parts, _]| !parts.is_empty())?;
                Some(Self::new(parts.len(), |row| f64::from(parts[row]), |row| f64::from(weights[row])))
            }
        }
    }

    /// The share of blocks that weigh anything.
    fn weighing(&self) -> f64 {
        self.weights.iter().filter(|weight| **weight > 0.0).count() as f64 / self.weights.len().max(1) as f64
    }

    /// The mean over rows with each block counted so many times, and with `more` in the sum.
    fn mean(&self, counts: &[u16], more: f64) -> f64 {
        let (mut sum, mut weights) = (more, 0.0);
        for ((&count, &own), &weight) in counts.iter().zip(&self.sums).zip(&self.weights) {
            let count = f64::from(count);
            sum += count * own;
            weights += count * weight;
        }
        sum / weights
    }
}

/// A path's numbers: one for each split and, where the seed decides anything, each seed.
#[derive(Debug, Clone)]
struct Column {
    /// `splits x seeds`, or `splits x 1`.
    values: Vec<f64>,
    seeds: usize,
    /// Of the same cells, where the metric is a mean over known rows.
    blocks: Vec<Option<Blocks>>,
    /// Which of the distinct series it is about, if rows are right or wrong.
    unseen: Option<usize>,
}

/// The numbers that an expectation speaks of, on one dataset.
#[derive(Debug, Clone)]
pub struct Sample {
    columns: Vec<Column>,
    splits: usize,
    seeds: usize,
    /// Blocks of test rows in each split.
    rows: Vec<usize>,
    /// Whether splits are folds, which hold different test rows.
    disjoint: bool,
    /// The smallest share of blocks that weigh anything.
    weighing: f64,
    /// Number of distinct series.
    series: usize,
    /// What is drawn.
    draws_seeds: bool,
    draws_splits: bool,
    draws_rows: bool,
    /// Why nothing can be settled, whatever the numbers.
    pub lacks: Vec<String>,
}

/// Both sides of a comparison.
pub type Sides = [f64; 2];

impl Sample {
    /// Gathers the numbers of the paths, which are bound to these series.
    #[must_use]
    pub fn new(comparison: &Comparison, bound: &[Option<String>], cells: &[&Observation]) -> Self {
        let run: Vec<&&Observation> = cells.iter().filter(|cell| cell.ending != Ending::Skipped).collect();
        let mut metrics = Vec::new();
        comparison.paths(&mut |path, _| metrics.push((path.name.as_str(), path.metric)));
        let of_series = |series: &Option<String>| -> Vec<&Observation> {
            let is_own = |cell: &&&&Observation| series.as_ref().is_some_and(|own| cell.subject.series() == *own);
            run.iter().filter(is_own).map(|cell| **cell).collect()
        };
        let members: Vec<Vec<&Observation>> = bound.iter().map(of_series).collect();
        let all = || members.iter().flatten();
        let mut partitions: Vec<_> = all().map(|cell| cell.subject.folds()).collect();
        partitions.dedup();
        let disjoint = matches!(partitions[..], [] | [Some(_)]);
        let splits: BTreeSet<&str> = all().map(|cell| cell.subject.split.as_str()).collect();
        let splits: Vec<&str> = splits.into_iter().collect();
        let series: BTreeSet<&String> = bound.iter().flatten().collect();
        let series: Vec<&String> = series.into_iter().collect();
        let seeds: BTreeSet<u64> = all().filter(|c| c.subject.stochastic).map(|c| c.subject.seed).collect();
        let seeds: Vec<u64> = seeds.into_iter().collect();
        let draws_splits = splits.len() >= LEAST_REPLICATES;

        let mut sample = Self {
            columns: Vec::new(),
            splits: splits.len(),
            seeds: seeds.len().max(1),
            rows: vec![0; splits.len()],
            weighing: 1.0,
            disjoint,
            series: series.len(),
            draws_seeds: false,
            draws_splits: false,
            draws_rows: false,
            lacks: Vec::new(),
        };
        for (((name, metric), cells), own_series) in metrics.iter().zip(&members).zip(bound) {
            let stochastic = cells.iter().any(|cell| cell.subject.stochastic);
            let own_seeds = if stochastic { seeds.len() } else { 1 };
            let find = |split: usize, seed: usize| {
                cells.iter().find(|cell| {
                    cell.subject.split == splits[split] && (!stochastic || cell.subject.seed == seeds[seed])
                })
            };
            let places = || (0..splits.len()).flat_map(|split| (0..own_seeds).map(move |seed| (split, seed)));
            let values = places().map(|(split, seed)| find(split, seed).map_or(f64::NAN, |cell| cell.value(metric)));
            let wants_rows = metric.noise == Noise::TestRows && !(draws_splits && disjoint);
            let blocks = places().map(|(split, seed)| {
                let cell = find(split, seed).filter(|cell| wants_rows && cell.ending.loss().is_none())?;
                Blocks::of(cell, metric)
            });
            let counts_rows = wants_rows && metric.name == "test_accuracy";
            let own = own_series.as_ref().filter(|_| counts_rows);
            let column = Column {
                values: values.collect(),
                seeds: own_seeds,
                blocks: blocks.collect(),
                unseen: own.and_then(|own| series.iter().position(|known| *known == own)),
            };
            if !cells.is_empty() && places().any(|(split, seed)| find(split, seed).is_none()) {
                sample.lacks.push(format!("{name} lacks cells of some seeds or splits that others have"));
            }
            sample.note_lacks(name, metric, cells, &column, (stochastic, draws_splits, wants_rows));
            let is_noisy = metric.noise != Noise::None;
            sample.draws_seeds |= is_noisy && stochastic && own_seeds > 1;
            sample.draws_splits |= is_noisy && draws_splits;
            sample.draws_rows |= wants_rows && column.blocks.iter().any(Option::is_some);
            for (place, blocks) in column.blocks.iter().enumerate() {
                if let Some(blocks) = blocks {
                    let rows = &mut sample.rows[place / own_seeds];
                    if *rows != 0 && *rows != blocks.sums.len() {
                        sample.lacks.push("cells of one split have different test rows".to_owned());
                    }
                    *rows = (*rows).max(blocks.sums.len());
                    sample.weighing = sample.weighing.min(blocks.weighing());
                }
            }
            sample.columns.push(column);
        }
        sample.lacks.sort();
        sample.lacks.dedup();
        sample
    }

    /// Notes what is missing for a verdict on a metric of these cells.
    fn note_lacks(
        &mut self,
        name: &str,
        metric: &Metric,
        cells: &[&Observation],
        column: &Column,
        (stochastic, draws_splits, wants_rows): (bool, bool, bool),
    ) {
        let mut lack = |text: String| self.lacks.push(text);
        if cells.is_empty() {
            lack(format!("{name} was not run: its cells were skipped"));
            return;
        }
        let is_miss = |cell: &Observation| metric.to_target && cell.ending == Ending::Diverged;
        if let Some(reason) = cells.iter().filter(|cell| !is_miss(cell)).find_map(|cell| cell.ending.loss()) {
            lack(format!("a cell of {name} has no numbers: {reason}"));
            return;
        }
        if metric.noise == Noise::None {
            return;
        }
        let least = LEAST_REPLICATES;
        let seeds = if stochastic { column.seeds } else { 1 };
        if stochastic && !draws_splits && seeds < least {
            lack(format!("{name} was run with {}; it takes {least}, or as many splits", counted(seeds, "seed")));
        } else if metric.noise == Noise::Clock && !draws_splits && seeds < least {
            let splits = counted(self.splits, "split");
            lack(format!("times of {name} were measured in {splits}; it takes {least}"));
        } else if !draws_splits && seeds < least && cells.iter().any(|cell| cell.is_cut_by_the_clock(metric)) {
            let splits = counted(self.splits, "split");
            lack(format!("seconds ended a cell of {name}, which was run in {splits}; it takes {least}"));
        }
        if metric.noise == Noise::HeldOut && !draws_splits {
            let splits = counted(self.splits, "split");
            lack(format!("{} is known on {splits}, and not row by row; it takes {least}", metric.name));
        }
        if wants_rows && !draws_splits && column.blocks.iter().any(Option::is_none) {
            let how = "or cells that store them: `parsimony run --force`, if an earlier version ran these";
            lack(format!("the test rows of {name} are not stored; it takes {least} splits, {how}"));
        }
    }

    /// Both sides on the data as they are.
    #[must_use]
    pub fn measured(&self, comparison: &Comparison) -> Sides {
        self.sides(comparison, &Draw::unchanged(self))
    }

    /// Both sides on data drawn anew, [`DRAWS`] times; nothing where nothing is drawn.
    #[must_use]
    pub fn resampled(&self, comparison: &Comparison) -> Vec<Sides> {
        if !(self.draws_seeds || self.draws_splits || self.draws_rows) {
            return Vec::new();
        }
        // Each draw has a stream of its own, so that any number of threads makes the same ones.
        (0..DRAWS as u64).into_par_iter().map(|draw| self.sides(comparison, &Draw::anew(self, draw))).collect()
    }

    /// The fewest units of any kind that is drawn.
    fn units(&self) -> usize {
        // A block without weight, of a ratio, tells nothing.
        let rows = (self.blocks() as f64 * self.weighing) as usize;
        let kinds = [(self.draws_seeds, self.seeds), (self.draws_splits, self.splits), (self.draws_rows, rows)];
        kinds.iter().filter(|(drawn, _)| *drawn).map(|(_, units)| *units).min().unwrap_or(0)
    }

    /// Blocks of test rows that are drawn one by one.
    fn blocks(&self) -> usize {
        if self.disjoint { self.rows.iter().sum() } else { self.rows.iter().copied().max().unwrap_or(0) }
    }

    /// What is drawn, in words; nothing where it would take draws that there is nothing for.
    #[must_use]
    pub fn method(&self) -> String {
        let mut parts = Vec::new();
        if self.draws_splits {
            parts.push(counted(self.splits, "split"));
        }
        if self.draws_seeds {
            parts.push(counted(self.seeds, "seed"));
        }
        if self.draws_rows {
            let within = if self.splits > 1 { format!(" in {}", counted(self.splits, "split")) } else { String::new() };
            parts.push(format!("{}{within}", counted(self.blocks(), "block of test rows")));
        }
        match (parts.is_empty(), self.lacks.is_empty()) {
            (true, true) => "exact".to_owned(),
            (true, false) => String::new(),
            (false, _) => format!("resampled over {}", parts.join(" and ")),
        }
    }

    /// The interval of a margin from its values on data drawn anew. A margin that is no number counts as the worst at
    /// either end.
    #[must_use]
    pub fn interval(&self, margins: &[f64]) -> [f64; 2] {
        let tail = expanded_tail(self.units());
        let rank = ((margins.len() as f64 * tail).floor() as usize).min(margins.len().saturating_sub(1));
        let quantile = |worst: f64, from_top: bool| {
            let mut sorted: Vec<f64> = margins.iter().map(|m| if m.is_nan() { worst } else { *m }).collect();
            sorted.sort_unstable_by(f64::total_cmp);
            let place = if from_top { sorted.len() - 1 - rank } else { rank };
            sorted[place]
        };
        [quantile(f64::NEG_INFINITY, false), quantile(f64::INFINITY, true)]
    }

    fn sides(&self, comparison: &Comparison, draw: &Draw) -> Sides {
        let mut next = 0;
        [&comparison.left, &comparison.right].map(|side| self.evaluate(side, draw, &mut next).only())
    }

    fn evaluate(&self, expression: &Expression, draw: &Draw, next: &mut usize) -> List {
        match &expression.node {
            Node::Number(value) => List::one(*value),
            Node::Path(path) => {
                let column = &self.columns[*next];
                *next += 1;
                self.column(column, path.metric.noise == Noise::None, draw)
            }
            Node::Negate(inner) => self.evaluate(inner, draw, next).map(|v| -v),
            Node::Binary(operator, left, right) => {
                let left = self.evaluate(left, draw, next);
                let right = self.evaluate(right, draw, next);
                left.with(&right, |a, b| match operator {
                    Operator::Add => a + b,
                    Operator::Subtract => a - b,
                    Operator::Multiply => a * b,
                    // No number, and not an infinity that is beyond any bound.
                    Operator::Divide if b == 0.0 => f64::NAN,
                    Operator::Divide => a / b,
                })
            }
            Node::Call(function, inner) => {
                let list = self.evaluate(inner, draw, next);
                match function {
                    Function::Abs => list.map(f64::abs),
                    Function::Sqrt => list.map(f64::sqrt),
                    Function::Log10 => list.map(f64::log10),
                    aggregate => List::one(draw.aggregate(*aggregate, &list)),
                }
            }
        }
    }

    fn column(&self, column: &Column, is_exact: bool, draw: &Draw) -> List {
        if is_exact {
            // The same in every cell, or no number at all.
            let first = column.values.first().copied().unwrap_or(f64::NAN);
            return List::one(if column.values.iter().all(|v| *v == first) { first } else { f64::NAN });
        }
        let value = |place: usize| match (&column.blocks[place], &draw.rows) {
            (Some(blocks), Some(rows)) => {
                let split = place / column.seeds;
                let unseen = column.unseen.map_or(0.0, |series| draw.unseen[series][split]);
                blocks.mean(&rows[split], unseen)
            }
            _ => column.values[place],
        };
        List { values: (0..column.values.len()).map(value).collect(), seeds: column.seeds }
    }
}

fn counted(count: usize, noun: &str) -> String {
    match (count, noun.split_once(' ')) {
        (1, _) => format!("1 {noun}"),
        (_, Some((first, rest))) => format!("{count} {first}s {rest}"),
        _ => format!("{count} {noun}s"),
    }
}

/// The share of draws beyond each end of the interval, of `units` that are drawn.
fn expanded_tail(units: usize) -> f64 {
    let n = units.max(2) as f64;
    let t = StudentsT::new(0.0, 1.0, n - 1.0).map_or(f64::INFINITY, |t| -t.inverse_cdf(LEVEL / 2.0));
    Normal::standard().cdf(-t * (n / (n - 1.0)).sqrt())
}

/// How many times each unit counts.
struct Draw {
    seeds: Vec<u16>,
    splits: Vec<u16>,
    /// Blocks of rows by split, where rows are drawn.
    rows: Option<Vec<Vec<u16>>>,
    /// Rows by series and split that are right though none such was seen, less those that are wrong.
    unseen: Vec<Vec<f64>>,
}

impl Draw {
    fn unchanged(sample: &Sample) -> Self {
        Self { seeds: vec![1; sample.seeds], splits: vec![1; sample.splits], rows: None, unseen: Vec::new() }
    }

    fn anew(sample: &Sample, draw: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(0x636c_6169_6d73);
        random.set_stream(draw);
        let mut counts = |units: usize, drawn: bool| {
            if !drawn {
                return vec![1; units];
            }
            let mut counts = vec![0_u16; units];
            for _ in 0..units {
                let count = &mut counts[random.random_range(0..units)];
                *count = count.saturating_add(1);
            }
            counts
        };
        let seeds = counts(sample.seeds, sample.draws_seeds);
        let splits = counts(sample.splits, sample.draws_splits);
        if !sample.draws_rows {
            return Self { seeds, splits, rows: None, unseen: Vec::new() };
        }
        let (rows, unseen) = if sample.disjoint {
            let rows = sample.rows.iter().map(|&blocks| counts(blocks, true)).collect();
            let mean = 1.0 / sample.splits as f64;
            let mut of_split = |_| poisson(&mut random, mean) - poisson(&mut random, mean);
            (rows, (0..sample.series).map(|_| (0..sample.splits).map(&mut of_split).collect()).collect())
        } else {
            // As if all splits held the same rows, of which they have the same number.
            let mut drawn: BTreeMap<usize, Vec<u16>> = BTreeMap::new();
            let mut of_split = |&blocks: &usize| drawn.entry(blocks).or_insert_with(|| counts(blocks, true)).clone();
            let rows = sample.rows.iter().map(&mut of_split).collect();
            let mut of_series = |_| vec![poisson(&mut random, 1.0) - poisson(&mut random, 1.0); sample.splits];
            (rows, (0..sample.series).map(&mut of_series).collect())
        };
        Self { seeds, splits, rows: Some(rows), unseen }
    }

    fn aggregate(&self, function: Function, list: &List) -> f64 {
        if list.seeds == 0 {
            return list.only();
        }
        let weighted = list.values.iter().enumerate().filter_map(|(place, &value)| {
            let (split, seed) = (place / list.seeds, place % list.seeds);
            let of_seed = if list.seeds == 1 { 1 } else { u32::from(self.seeds[seed]) };
            let weight = u32::from(self.splits[split]) * of_seed;
            (weight > 0).then_some((value, weight))
        });
        let values: Vec<(f64, u32)> = weighted.collect();
        if values.is_empty() || values.iter().any(|(value, _)| value.is_nan()) {
            return f64::NAN;
        }
        let plain = || values.iter().map(|(value, _)| *value);
        match function {
            Function::Min => plain().fold(f64::INFINITY, f64::min),
            Function::Max => plain().fold(f64::NEG_INFINITY, f64::max),
            Function::Median => weighted_median(values),
            _ => {
                let total: f64 = values.iter().map(|(_, weight)| f64::from(*weight)).sum();
                values.iter().map(|(value, weight)| value * f64::from(*weight)).sum::<f64>() / total
            }
        }
    }
}

/// A Poisson variable of a small mean (Knuth's product of uniform variables).
fn poisson(random: &mut ChaCha8Rng, mean: f64) -> f64 {
    let (bound, mut product, mut count) = ((-mean).exp(), random.random::<f64>(), 0.0);
    while product > bound {
        product *= random.random::<f64>();
        count += 1.0;
    }
    count
}

/// The middle of values that count several times; the mean of both where there are two.
fn weighted_median(mut values: Vec<(f64, u32)>) -> f64 {
    values.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let total: u32 = values.iter().map(|(_, weight)| weight).sum();
    let at = |rank: u32| {
        let mut passed = 0;
        let found = values.iter().find(|(_, weight)| {
            passed += weight;
            passed > rank
        });
        found.map_or(f64::NAN, |(value, _)| *value)
    };
    let (low, high) = (at((total - 1) / 2), at(total / 2));
    if low == high { low } else { (low + high) / 2.0 }
}

/// Numbers over splits and seeds; with `seeds` 0 a single one.
#[derive(Debug, Clone)]
struct List {
    values: Vec<f64>,
    seeds: usize,
}

impl List {
    fn one(value: f64) -> Self {
        Self { values: vec![value], seeds: 0 }
    }

    /// The only number; a list is none.
    fn only(&self) -> f64 {
        if self.values.len() == 1 { self.values[0] } else { f64::NAN }
    }

    fn map(mut self, change: impl Fn(f64) -> f64) -> Self {
        self.values.iter_mut().for_each(|value| *value = change(*value));
        self
    }

    /// Split by split and seed by seed; what has no seeds of its own goes with each.
    fn with(&self, other: &Self, combine: impl Fn(f64, f64) -> f64) -> Self {
        let seeds = self.seeds.max(other.seeds);
        let splits = |list: &Self| list.values.len().checked_div(list.seeds).unwrap_or(1);
        let count = splits(self).max(splits(other)) * seeds.max(1);
        let at = |list: &Self, place: usize| match list.seeds {
            0 => list.values[0],
            own => {
                let (split, seed) = (place / seeds, place % seeds);
                list.values.get(split * own + if own == seeds { seed } else { 0 }).copied().unwrap_or(f64::NAN)
            }
        };
        Self { values: (0..count).map(|place| combine(at(self, place), at(other, place))).collect(), seeds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_count_what_was_drawn_twice_twice() {
        assert_eq!(weighted_median(vec![(3.0, 1), (1.0, 2)]), 1.0);
        assert_eq!(weighted_median(vec![(3.0, 1), (1.0, 1)]), 2.0);
        assert_eq!(weighted_median(vec![(f64::INFINITY, 2), (1.0, 1)]), f64::INFINITY);
        assert_eq!(weighted_median(vec![(f64::INFINITY, 2)]), f64::INFINITY);
    }

    /// R: pnorm(-qt(0.975, 9) * sqrt(10 / 9)) = 0.008545.
    #[test]
    fn quantiles_of_few_units_lie_further_out() {
        assert!((expanded_tail(10) - 0.008545).abs() < 2e-5, "{}", expanded_tail(10));
        assert!((expanded_tail(1_000_000) - 0.025).abs() < 1e-5);
    }

    #[test]
    fn lists_are_combined_cell_by_cell() {
        let by_seed = List { values: vec![1.0, 2.0, 3.0, 4.0], seeds: 2 };
        let by_split = List { values: vec![10.0, 20.0], seeds: 1 };
        assert_eq!(by_seed.with(&by_split, |a, b| a + b).values, [11.0, 12.0, 23.0, 24.0]);
        assert_eq!(by_split.with(&List::one(2.0), |a, b| a / b).values, [5.0, 10.0]);
        let ragged = by_seed.with(&List { values: vec![1.0], seeds: 1 }, |a, b| a + b);
        assert!(ragged.values[3].is_nan());
    }

    #[test]
    fn blocks_hold_every_row_once() {
        let blocks = Blocks::new(2503, |row| row as f64, |_| 1.0);
        assert_eq!(blocks.sums.len(), BLOCKS);
        assert_eq!(blocks.weights.iter().sum::<f64>(), 2503.0);
        assert!((blocks.mean(&vec![1; BLOCKS], 0.0) - 1251.0).abs() < 1e-9);
        assert!((blocks.mean(&vec![1; BLOCKS], 5006.0) - 1253.0).abs() < 1e-9);
        // A row of weight zero does not count, one that is drawn twice counts with its weight.
        let blocks = Blocks::new(3, |row| [0.0, 1.0, 6.0][row], |row| [0.0, 1.0, 2.0][row]);
        assert_eq!(blocks.mean(&[1, 1, 1], 0.0), 7.0 / 3.0);
        assert_eq!(blocks.mean(&[2, 0, 2], 0.0), 3.0);
        assert_eq!(blocks.weighing(), 2.0 / 3.0);
    }

    #[test]
    fn poisson_variables_have_their_mean_and_variance() {
        for mean in [0.2, 1.0] {
            let mut random = ChaCha8Rng::seed_from_u64(7);
            let draws: Vec<f64> = (0..20_000).map(|_| poisson(&mut random, mean)).collect();
            let average = draws.iter().sum::<f64>() / 2e4;
            let variance = draws.iter().map(|d| (d - average).powi(2)).sum::<f64>() / 2e4;
            assert!((average - mean).abs() < 0.03 && (variance - mean).abs() < 0.05, "{mean}: {average}, {variance}");
        }
    }
}
