//! Splits of a table into training, validation and test rows, and of a corpus by position, written so that they can be
//! repeated elsewhere.
//!
//! Each row of the table lands in exactly one part. Random splits draw from ChaCha8 seeded by the stated number and
//! shuffled by Fisher and Yates, so they are the same on every machine and with every version. Splits that go by row
//! number are refused on a store whose rows were shuffled at import, where they would not mean the file's rows.

use super::{Examples, RowOrder, RowSet, Table, Task};
use crate::device::panels::panel_len;
use crate::device::{PANEL_ROWS, Panels};
use crate::error::{Error, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;

/// How a table is split, as it stands in an experiment file and in the record of every run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SplitSpec {
    /// Shares of the rows, drawn at random; they add up to one.
    Fractions {
        /// Share of training rows.
        train: f64,
        /// Share of validation rows.
        validation: f64,
        /// Share of test rows.
        test: f64,
        /// Seed of the draw.
        #[serde(default)]
        seed: u64,
        /// Whether each class is split in these shares (classification only).
        #[serde(default)]
        stratified: bool,
    },
    /// The last rows of the file are for testing, those before them for validation, the rest for training: with
    /// `test = 500000` the split of the HIGGS literature.
    Last {
        /// Number of test rows.
        test: usize,
        /// Number of validation rows.
        #[serde(default)]
        validation: usize,
    },
    /// Ranges of row numbers, counted from 0, the end not included; together they are all rows.
    Ranges {
        /// Training rows.
        train: [usize; 2],
        /// Validation rows.
        validation: [usize; 2],
        /// Test rows.
        test: [usize; 2],
    },
    /// Cross-validation by row number: rows with `row % count == fold` are for testing.
    Folds {
        /// Number of folds.
        count: usize,
        /// The test fold, from 0.
        fold: usize,
        /// Share of the other rows drawn for validation; without it, validation is the next fold, cyclically.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        validation: Option<f64>,
        /// Seed of that draw.
        #[serde(default)]
        seed: u64,
    },
}

/// The rows of each part: disjoint, and together all rows of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct Splits {
    /// Rows to train on.
    pub train: RowSet,
    /// Rows for tuning, targets, early stopping and the choice of the iterate.
    pub validation: RowSet,
    /// Rows that nothing is chosen on.
    pub test: RowSet,
}

impl Splits {
    /// The same without test rows, if `withheld`.
    #[must_use]
    pub fn withholding(mut self, withheld: bool) -> Self {
        if withheld {
            self.test = RowSet::Range(0..0);
        }
        self
    }
}

/// Which part a row belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Train,
    Validation,
    Test,
}

impl SplitSpec {
    /// Splits the rows of `table`.
    ///
    /// # Errors
    /// [`Error::Config`] if a number is out of range, the training part would be empty, row numbers are asked for on
    /// shuffled rows, or stratification on a regression.
    pub fn apply(&self, table: &Table) -> Result<Splits> {
        if let (RowOrder::Shuffled { seed }, false) = (table.order, matches!(self, Self::Fractions { .. })) {
            return Err(refuse(
                format!(
                    "the rows of {} were shuffled at import (seed {seed}), so they have no row numbers",
                    table.name
                ),
                "split by fractions, or import the file without shuffling",
            ));
        }
        let rows = table.rows();
        if u32::try_from(rows).is_err() {
            return Err(refuse(format!("{rows} rows"), "at most 4,294,967,295 rows can be split"));
        }
        let splits = match *self {
            Self::Fractions { train, validation, test, seed, stratified } => {
                check_fractions(train, validation, test)?;
                fractions(table, validation, test, seed, stratified)?
            }
            Self::Last { test, validation } => {
                let held_out = test.checked_add(validation).filter(|&held_out| held_out < rows);
                let Some(held_out) = held_out else {
                    let finding = format!("{validation} validation and {test} test rows of {rows}");
                    return Err(refuse(finding, "leave at least one row to train on"));
                };
                let (train, test_start) = (rows - held_out, rows - test);
                Splits {
                    train: RowSet::Range(0..train),
                    validation: RowSet::Range(train..test_start),
                    test: RowSet::Range(test_start..rows),
                }
            }
            Self::Ranges { train, validation, test } => ranges("row", rows, train, validation, test)?,
            Self::Folds { count, fold, validation, seed } => folds(rows, count, fold, validation, seed)?,
        };
        if splits.train.is_empty() {
            return Err(refuse(format!("no training rows remain of {rows}"), "make the other parts smaller"));
        }
        Ok(splits)
    }
}

impl SplitSpec {
    /// Divides the `length` tokens of a corpus by position: training, validation and test, disjoint and together all.
    ///
    /// # Errors
    /// [`Error::Config`] for rules that draw or interleave, since neighbours in a text belong together, and for numbers that do
    /// not fit.
    pub fn positions(&self, name: &str, length: usize) -> Result<[Range<usize>; 3]> {
        match *self {
            Self::Last { test, validation } => {
                let train = test.checked_add(validation).and_then(|held_out| length.checked_sub(held_out));
                match train.filter(|&train| train > 0) {
                    Some(train) => Ok([0..train, train..length - test, length - test..length]),
                    None => Err(refuse(
                        format!("{validation} validation and {test} test tokens of the {length} of {name}"),
                        "leave at least one token to train on",
                    )),
                }
            }
            Self::Ranges { train, validation, test } => {
                let splits = ranges("token", length, train, validation, test)?;
                let positions = |set: &RowSet| match set {
                    RowSet::Range(range) => range.clone(),
                    RowSet::Indices(_) => 0..0,
                };
                let parts = [&splits.train, &splits.validation, &splits.test].map(positions);
                if parts[0].is_empty() {
                    return Err(refuse(
                        format!("no training tokens remain of {length}"),
                        "make the other parts smaller",
                    ));
                }
                Ok(parts)
            }
            Self::Fractions { .. } | Self::Folds { .. } => {
                let finding =
                    format!("{name} is a text, whose tokens are not drawn one by one: neighbours belong together");
                Err(refuse(
                    finding,
                    "divide it by position: { last = { validation = 10000, test = 10000 } } or { ranges = ... }",
                ))
            }
        }
    }
}

impl RowSet {
    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Range(range) => range.len(),
            Self::Indices(indices) => indices.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The row numbers, in increasing order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let (range, indices) = match self {
            Self::Range(range) => (range.clone(), &[][..]),
            Self::Indices(indices) => (0..0, &indices[..]),
        };
        range.chain(indices.iter().map(|&index| index as usize))
    }
}

/// The rows of `set`: a range is served from the table without a copy, any other rows are gathered into memory.
///
/// # Panics
/// If `set` names a row that the table does not have.
#[must_use]
pub fn examples(table: &Table, set: &RowSet) -> Examples {
    match set {
        RowSet::Range(range) => {
            assert!(range.end <= table.rows(), "rows {range:?} of a table of {}", table.rows());
            Examples { features: table.features.clone(), targets: table.targets.clone(), range: range.clone() }
        }
        RowSet::Indices(indices) => Examples {
            features: gather(&table.features, indices),
            targets: gather(&table.targets, indices),
            range: 0..indices.len(),
        },
    }
}

/// Copies rows into panels of their own, in parallel over the panels.
fn gather(source: &Panels, indices: &[u32]) -> Panels {
    let columns = source.columns();
    let mut values = vec![0.0f32; panel_len(indices.len(), columns)];
    if columns > 0 {
        values.par_chunks_mut(PANEL_ROWS * columns).zip(indices.par_chunks(PANEL_ROWS)).for_each(|(panel, rows)| {
            for (column, slots) in panel.chunks_exact_mut(PANEL_ROWS).enumerate() {
                for (slot, &row) in slots.iter_mut().zip(rows) {
                    *slot = source.get(row as usize, column);
                }
            }
        });
    }
    Panels::from_values(values, indices.len(), columns)
}

fn check_fractions(train: f64, validation: f64, test: f64) -> Result<()> {
    let parts = [train, validation, test];
    if parts.iter().any(|part| !(0.0..=1.0).contains(part)) || (parts.iter().sum::<f64>() - 1.0).abs() > 1e-9 {
        return Err(refuse(
            format!("the fractions {train}, {validation} and {test}"),
            "give three numbers from 0 to 1 that add up to 1, such as 0.7, 0.15 and 0.15",
        ));
    }
    Ok(())
}

fn fractions(table: &Table, validation: f64, test: f64, seed: u64, stratified: bool) -> Result<Splits> {
    let rows = table.rows();
    let mut parts = vec![Part::Train; rows];
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let groups: Vec<Vec<u32>> = if stratified {
        let Task::Classes(classes) = &table.task else {
            let finding = "a stratified split of a regression";
            return Err(refuse(finding, "stratify by classes only, or set stratified = false"));
        };
        let mut groups = vec![Vec::new(); classes.len()];
        for row in 0..rows {
            let class = table.targets.get(row, 0);
            let Some(group) = groups.get_mut(class as usize) else {
                let finding = format!("row {row} of {} has the class number {class}, of {}", table.name, classes.len());
                return Err(refuse(finding, "the data are damaged: import or generate them again"));
            };
            group.push(row as u32);
        }
        groups
    } else {
        vec![(0..rows as u32).collect()]
    };
    for mut group in groups {
        shuffle(&mut group, &mut rng);
        let count = |share: f64| (share * group.len() as f64).round() as usize;
        let tests = count(test);
        let validations = count(validation).min(group.len() - tests);
        group[..tests].iter().for_each(|&row| parts[row as usize] = Part::Test);
        group[tests..tests + validations].iter().for_each(|&row| parts[row as usize] = Part::Validation);
    }
    Ok(from_parts(&parts))
}

/// `what` is a row, or a token of a text.
fn ranges(what: &str, rows: usize, train: [usize; 2], validation: [usize; 2], test: [usize; 2]) -> Result<Splits> {
    let mut parts = [train, validation, test];
    parts.sort_unstable();
    let mut at = 0;
    for [start, end] in parts.into_iter().filter(|[start, end]| start != end) {
        if start != at || end < start {
            return Err(refuse(
                format!("the ranges {train:?}, {validation:?} and {test:?} leave out or repeat {what}s near {at}"),
                format!("give ranges that follow one another from 0 to {rows}"),
            ));
        }
        at = end;
    }
    if at != rows {
        let finding = format!("the ranges end at {what} {at}, and there are {rows}");
        return Err(refuse(finding, format!("let the last range end at {rows}")));
    }
    // An empty part may be stated anywhere, beyond the rows too.
    let set = |[start, end]: [usize; 2]| RowSet::Range(if start == end { 0..0 } else { start..end });
    Ok(Splits { train: set(train), validation: set(validation), test: set(test) })
}

fn folds(rows: usize, count: usize, fold: usize, validation: Option<f64>, seed: u64) -> Result<Splits> {
    let least = if validation.is_some() { 2 } else { 3 };
    if count < least || count > rows {
        let finding = format!("{count} folds of {rows} rows");
        return Err(refuse(finding, format!("use {least} folds or more, and no more folds than rows")));
    }
    if fold >= count {
        return Err(refuse(format!("fold {fold} of {count}"), format!("folds are numbered from 0 to {}", count - 1)));
    }
    let next = (fold + 1) % count;
    let part = |row: usize| match row % count {
        own if own == fold => Part::Test,
        other if other == next && validation.is_none() => Part::Validation,
        _ => Part::Train,
    };
    let mut parts: Vec<Part> = (0..rows).map(part).collect();
    if let Some(share) = validation {
        if !(0.0..1.0).contains(&share) {
            return Err(refuse(format!("a validation share of {share}"), "use a number from 0 to below 1"));
        }
        let mut others: Vec<u32> = (0..rows as u32).filter(|&row| parts[row as usize] == Part::Train).collect();
        shuffle(&mut others, &mut ChaCha8Rng::seed_from_u64(seed));
        let held_out = (share * others.len() as f64).round() as usize;
        others[..held_out].iter().for_each(|&row| parts[row as usize] = Part::Validation);
    }
    Ok(from_parts(&parts))
}

fn from_parts(parts: &[Part]) -> Splits {
    let rows = |wanted: Part| {
        let indices = parts.iter().enumerate().filter(|(_, part)| **part == wanted).map(|(row, _)| row as u32);
        RowSet::Indices(Arc::from(indices.collect::<Vec<u32>>()))
    };
    Splits { train: rows(Part::Train), validation: rows(Part::Validation), test: rows(Part::Test) }
}

/// Fisher and Yates's shuffle, kept here so that no library's next version can change a split.
pub(in crate::data) fn shuffle<T>(items: &mut [T], rng: &mut ChaCha8Rng) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(last as u64 + 1, rng) as usize);
    }
}

/// A uniform integer below `bound` (Lemire 2019: multiply, and reject what would be favoured).
pub(in crate::data) fn below(bound: u64, rng: &mut ChaCha8Rng) -> u64 {
    debug_assert!(bound > 0);
    loop {
        let product = u128::from(rng.next_u64()) * u128::from(bound);
        if product as u64 >= bound.wrapping_neg() % bound {
            return (product >> 64) as u64;
        }
    }
}

fn refuse(finding: impl std::fmt::Display, remedy: impl std::fmt::Display) -> Error {
    Error::config("split", finding, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: usize) -> Table {
        Table {
            name: "test".into(),
            simulated: false,
            fingerprint: String::new(),
            features: Panels::from_fn(rows, 2, |row, column| (10 * row + column) as f32),
            targets: Panels::from_fn(rows, 1, |row, _| f32::from(row % 4 == 0)),
            task: Task::Classes(vec!["0".into(), "1".into()]),
            columns: vec!["a".into(), "b".into()],
            order: RowOrder::AsRead,
        }
    }

    fn check_partition(splits: &Splits, rows: usize) {
        let mut all: Vec<usize> =
            [&splits.train, &splits.validation, &splits.test].iter().flat_map(|s| s.iter()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..rows).collect::<Vec<_>>());
    }

    #[test]
    fn every_row_lands_in_exactly_one_part() {
        let specs = [
            SplitSpec::Fractions { train: 0.7, validation: 0.1, test: 0.2, seed: 1, stratified: false },
            SplitSpec::Fractions { train: 0.7, validation: 0.1, test: 0.2, seed: 1, stratified: true },
            SplitSpec::Last { test: 100, validation: 50 },
            SplitSpec::Ranges { train: [100, 1003], validation: [0, 0], test: [0, 100] },
            SplitSpec::Folds { count: 5, fold: 4, validation: None, seed: 0 },
            SplitSpec::Folds { count: 5, fold: 2, validation: Some(0.25), seed: 0 },
        ];
        for spec in specs {
            let splits = spec.apply(&table(1003)).unwrap();
            check_partition(&splits, 1003);
            let text = toml::to_string(&spec).unwrap();
            assert_eq!(toml::from_str::<SplitSpec>(&text).unwrap(), spec, "{text}");
        }
    }

    #[test]
    fn parts_have_the_sizes_asked_for() {
        let table = table(1000);
        let spec = SplitSpec::Fractions { train: 0.6, validation: 0.2, test: 0.2, seed: 3, stratified: true };
        let splits = spec.apply(&table).unwrap();
        assert_eq!((splits.train.len(), splits.validation.len(), splits.test.len()), (600, 200, 200));
        assert_eq!(splits.test.iter().filter(|row| row % 4 == 0).count(), 50);
        let splits = SplitSpec::Folds { count: 5, fold: 4, validation: None, seed: 0 }.apply(&table).unwrap();
        assert!(splits.test.iter().all(|row| row % 5 == 4));
        assert!(splits.validation.iter().all(|row| row % 5 == 0));
    }

    #[test]
    fn a_seed_always_gives_the_same_rows() {
        let mut rows: Vec<u32> = (0..10).collect();
        shuffle(&mut rows, &mut ChaCha8Rng::seed_from_u64(1));
        // Recorded once; a change here changes every random split that was ever published.
        assert_eq!(rows, RECORDED);
    }

    const RECORDED: [u32; 10] = [2, 7, 8, 5, 3, 6, 1, 9, 0, 4];

    #[test]
    fn ranges_are_served_and_indices_gathered() {
        let table = table(600);
        let range = examples(&table, &RowSet::Range(300..310));
        assert_eq!((range.rows(), range.features.get(range.range.start, 1)), (10, 3001.0));
        let picked: Vec<u32> = (0..600).step_by(2).collect();
        let gathered = examples(&table, &RowSet::Indices(picked.into()));
        assert_eq!((gathered.rows(), gathered.features.rows()), (300, 300));
        assert_eq!(gathered.features.get(299, 0), 5980.0);
        assert_eq!(gathered.targets.get(2, 0), 1.0);
    }

    #[test]
    fn an_empty_part_beyond_the_rows_is_empty() {
        let table = table(10);
        let spec = SplitSpec::Ranges { train: [0, 10], validation: [99, 99], test: [10, 10] };
        let splits = spec.apply(&table).unwrap();
        check_partition(&splits, 10);
        assert_eq!(examples(&table, &splits.validation).rows(), 0);
    }

    #[test]
    fn impossible_splits_are_refused_in_words() {
        let table = table(10);
        let refused = |spec: SplitSpec, words: &str| {
            let message = spec.apply(&table).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        };
        refused(SplitSpec::Last { test: 10, validation: 0 }, "0 validation and 10 test rows of 10");
        refused(SplitSpec::Last { test: usize::MAX, validation: 1 }, "leave at least one row");
        refused(SplitSpec::Ranges { train: [0, 5], validation: [4, 6], test: [6, 10] }, "leave out or repeat");
        refused(SplitSpec::Ranges { train: [0, 5], validation: [5, 6], test: [6, 9] }, "end at row 9");
        refused(SplitSpec::Folds { count: 0, fold: 0, validation: None, seed: 0 }, "use 3 folds or more");
        refused(SplitSpec::Folds { count: 0, fold: 0, validation: Some(0.1), seed: 0 }, "use 2 folds or more");
        refused(SplitSpec::Folds { count: 5, fold: 5, validation: None, seed: 0 }, "from 0 to 4");
        let bad = SplitSpec::Fractions { train: 0.5, validation: 0.1, test: 0.1, seed: 0, stratified: false };
        refused(bad, "add up to 1");
        let shuffled = Table { order: RowOrder::Shuffled { seed: 7 }, ..table.clone() };
        assert!(SplitSpec::Last { test: 1, validation: 1 }.apply(&shuffled).is_err());
        assert!(toml::from_str::<SplitSpec>("last = { test = 1, tset = 2 }").is_err());
    }
}
