//! A dataset at a glance: classes, and for each column its range, moments, zeros, distinct values and a histogram.

use super::standardize::{Moments, moments};
use super::{Examples, RowOrder, Table, Task};
use crate::device::PANEL_ROWS;
use rayon::prelude::*;
use serde::Serialize;
use std::collections::HashSet;
use std::fmt;

/// Bins of a histogram.
pub const BINS: usize = 10;
/// Distinct values are counted up to this many.
pub const DISTINCT_LIMIT: usize = 1000;
/// Columns that the terminal's table shows; all are in the JSON.
const SHOWN: usize = 60;

/// What `data describe` says about a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Description {
    /// As [`Table::name`].
    pub name: String,
    /// As [`Table::simulated`].
    pub simulated: bool,
    /// As [`Table::fingerprint`].
    pub fingerprint: String,
    /// Number of rows.
    pub rows: usize,
    /// Feature values that are missing (NaN). A table read for anything but its description has none.
    pub missing: u64,
    /// Rows of the file left out because a value was missing: any value if asked for, else the target.
    pub dropped_rows: u64,
    /// Whether the rows stand as in the source.
    pub order: RowOrder,
    /// Names of the classes and their rows; empty for a regression.
    pub classes: Vec<ClassCount>,
    /// The targets of a regression.
    pub target: Option<ColumnSummary>,
    /// The features.
    pub columns: Vec<ColumnSummary>,
}

/// A class and its rows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassCount {
    /// The class's name.
    pub name: String,
    /// Its number of rows.
    pub rows: u64,
}

/// One column; all but `missing` is about the values present, and numbers that none of them gives are not finite.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ColumnSummary {
    /// Its name.
    pub name: String,
    /// The least value.
    pub min: f32,
    /// The mean.
    pub mean: f64,
    /// The population standard deviation.
    pub sd: f64,
    /// The greatest value.
    pub max: f32,
    /// Rows in which it is missing (NaN).
    pub missing: u64,
    /// Rows in which it is zero.
    pub zeros: u64,
    /// Distinct values; `None` if there are more than [`DISTINCT_LIMIT`].
    pub distinct: Option<usize>,
    /// Rows in [`BINS`] bins of equal width from `min` to `max`.
    pub histogram: [u64; BINS],
}

/// Summarizes a table.
#[must_use]
pub fn describe(table: &Table) -> Description {
    let rows = table.rows();
    let all = |features| Examples { features, targets: table.targets.clone(), range: 0..rows };
    let summaries = |examples: &Examples, names: &[String]| -> Vec<ColumnSummary> {
        let moments = moments(examples, Moments::of_present);
        (0..names.len()).into_par_iter().map(|c| summarize(examples, c, &names[c], &moments[c])).collect()
    };
    let (classes, target) = match &table.task {
        Task::Classes(names) => {
            let mut counts: Vec<_> = names.iter().map(|name| ClassCount { name: name.clone(), rows: 0 }).collect();
            for &class in &table.targets.values()[..rows] {
                if let Some(count) = counts.get_mut(class as usize) {
                    count.rows += 1;
                }
            }
            (counts, None)
        }
        // Several targets are counted where the columns are.
        Task::Regression => {
            let one = table.targets.columns() == 1;
            let mut targets = summaries(&all(table.targets.clone()), &["target".to_owned()]);
            (Vec::new(), targets.pop().filter(|_| one))
        }
    };
    let columns = summaries(&all(table.features.clone()), &table.columns);
    Description {
        name: table.name.clone(),
        simulated: table.simulated,
        fingerprint: table.fingerprint.clone(),
        rows,
        missing: columns.iter().map(|column| column.missing).sum(),
        dropped_rows: 0,
        order: table.order,
        classes,
        target,
        columns,
    }
}

fn summarize(examples: &Examples, column: usize, name: &str, moments: &Moments) -> ColumnSummary {
    let (rows, (min, max)) = (examples.rows(), (moments.min, moments.max));
    let (mut missing, mut zeros, mut histogram) = (0, 0, [0; BINS]);
    let (mut distinct, mut last) = (Some(HashSet::new()), None);
    let width = (f64::from(max) - f64::from(min)) / BINS as f64;
    for panel in 0..rows.div_ceil(PANEL_ROWS) {
        let values = &examples.features.panel(panel)[column * PANEL_ROWS..(column + 1) * PANEL_ROWS];
        for &value in &values[..(rows - panel * PANEL_ROWS).min(PANEL_ROWS)] {
            if value.is_nan() {
                missing += 1;
                continue;
            }
            zeros += u64::from(value == 0.0);
            // The conversion saturates, so that the maximum and a constant column find a bin.
            let bin = (f64::from(value) - f64::from(min)) / width;
            histogram[(bin as usize).min(BINS - 1)] += 1;
            // Adding zero makes -0 and 0 one value; runs of one value are looked up once.
            let bits = (value + 0.0).to_bits();
            if last != Some(bits)
                && let Some(known) = &mut distinct
            {
                known.insert(bits);
                last = Some(bits);
                if known.len() > DISTINCT_LIMIT {
                    distinct = None;
                }
            }
        }
    }
    ColumnSummary {
        name: name.to_owned(),
        min,
        mean: if moments.count > 0.0 { moments.mean } else { f64::NAN },
        sd: moments.deviation(),
        max,
        missing,
        zeros,
        distinct: distinct.map(|known| known.len()),
        histogram,
    }
}

/// A histogram as a row of blocks, the tallest for the fullest bin; empty bins are blank.
#[must_use]
pub fn blocks(histogram: &[u64]) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = histogram.iter().copied().max().unwrap_or(0).max(1);
    let block = |&rows: &u64| match rows {
        0 => ' ',
        rows => BLOCKS[(u128::from(rows) * 8).div_ceil(u128::from(most)) as usize - 1],
    };
    histogram.iter().map(block).collect()
}

/// A whole number with commas between thousands.
pub(in crate::data) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let head = digits.len() % 3;
    let mut text = digits[..head].to_owned();
    for group in digits.as_bytes()[head..].chunks(3) {
        if !text.is_empty() {
            text.push(',');
        }
        text.extend(group.iter().map(|&digit| char::from(digit)));
    }
    text
}

/// About five significant digits, without an exponent where that stays short; a dash where there is no number.
fn short(value: f64) -> String {
    let size = value.abs();
    if !size.is_finite() {
        "-".into()
    } else if size == 0.0 {
        "0".into()
    } else if value.fract() == 0.0 && size < 1e7 {
        format!("{value}")
    } else if (1e-3..1e5).contains(&size) {
        let decimals = (4 - size.log10().floor() as i32).clamp(0, 6) as usize;
        format!("{value:.decimals$}")
    } else {
        format!("{value:.3e}")
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let simulated = if self.simulated { "  SIMULATED" } else { "" };
        writeln!(f, "{}{simulated}", self.name)?;
        let lacking = if self.missing == 0 { "no".to_owned() } else { grouped(self.missing) };
        writeln!(f, "  {} rows, {} features, {lacking} missing values", grouped(self.rows as u64), self.columns.len())?;
        if self.dropped_rows > 0 {
            writeln!(f, "  {} rows left out because a value was missing", grouped(self.dropped_rows))?;
        }
        if let RowOrder::Shuffled { seed } = self.order {
            writeln!(f, "  rows shuffled at import by seed {seed}")?;
        }
        writeln!(f, "  SHA-256 of the source {}", self.fingerprint)?;
        if !self.classes.is_empty() {
            writeln!(f, "  {} classes:", self.classes.len())?;
            for class in self.classes.iter().take(SHOWN) {
                let share = 100.0 * class.rows as f64 / self.rows as f64;
                writeln!(f, "    {:<20} {:>12}  {share:5.2}%", class.name, grouped(class.rows))?;
            }
            more(f, self.classes.len())?;
        }
        let columns = || self.target.iter().chain(&self.columns);
        let width = columns().take(SHOWN).map(|c| c.name.chars().count()).max().unwrap_or(0).clamp(6, 32);
        // Most tables lack nothing: they are spared the column.
        let missing = |text: &str| if self.missing > 0 { format!(" {text:>12}") } else { String::new() };
        writeln!(
            f,
            "  {:<width$} {:>10} {:>10} {:>10} {:>10}{} {:>12} {:>8}  histogram",
            "column",
            "min",
            "mean",
            "sd",
            "max",
            missing("missing"),
            "zeros",
            "distinct"
        )?;
        for column in columns().take(SHOWN) {
            let distinct = column.distinct.map_or_else(|| format!(">{DISTINCT_LIMIT}"), |count| count.to_string());
            writeln!(
                f,
                "  {:<width$} {:>10} {:>10} {:>10} {:>10}{} {:>12} {distinct:>8}  {}",
                column.name,
                short(column.min.into()),
                short(column.mean),
                short(column.sd),
                short(column.max.into()),
                missing(&grouped(column.missing)),
                grouped(column.zeros),
                blocks(&column.histogram)
            )?;
        }
        more(f, columns().count())
    }
}

/// Says how many lines a long list leaves out.
fn more(f: &mut fmt::Formatter<'_>, count: usize) -> fmt::Result {
    if count > SHOWN { writeln!(f, "    ... and {} more (all are in the JSON)", count - SHOWN) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Panels;

    fn table() -> Table {
        let rows = 2000;
        Table {
            name: "test".into(),
            simulated: true,
            fingerprint: "00".into(),
            features: Panels::from_fn(rows, 3, |row, column| match column {
                0 => row as f32,
                1 => 5.0,
                _ => (row % 4) as f32 - 1.0,
            }),
            targets: Panels::from_fn(rows, 1, |row, _| f32::from(row < 500)),
            task: Task::Classes(vec!["no".into(), "yes".into()]),
            columns: vec!["ramp".into(), "constant".into(), "few".into()],
            order: RowOrder::AsRead,
        }
    }

    #[test]
    fn columns_are_summed_up() {
        let found = describe(&table());
        assert_eq!(found.classes[1], ClassCount { name: "yes".into(), rows: 500 });
        let [ramp, constant, few] = &found.columns[..] else { panic!("three columns") };
        assert_eq!((ramp.min, ramp.max, ramp.zeros, ramp.distinct), (0.0, 1999.0, 1, None));
        assert!(ramp.histogram.iter().all(|&rows| rows == 200));
        assert_eq!((constant.mean, constant.sd, constant.distinct), (5.0, 0.0, Some(1)));
        assert_eq!(constant.histogram.iter().sum::<u64>(), 2000);
        assert_eq!((few.zeros, few.distinct, few.mean), (500, Some(4), 0.5));
        let text = found.to_string();
        assert!(text.contains("SIMULATED") && text.contains("2,000 rows") && text.contains("██████████"), "{text}");
        assert!(serde_json::to_string(&found).unwrap().contains("\"histogram\":[200"));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([grouped(0), grouped(999), grouped(11_000_000)], ["0", "999", "11,000,000"]);
        assert_eq!(
            [short(0.988_457), short(-12_345.678), short(3.0), short(1e-9)],
            ["0.98846", "-12346", "3", "1.000e-9"]
        );
        assert_eq!(blocks(&[0, 1, 4, 8]), " ▁▄█");
    }
}
