//! `inspect`: what statistics knows about a fitted cell.

use super::predict::{find_cell, weights, write_table};
use super::{option_error, output};
use crate::error::{Error, Result};
use crate::experiment::{self, CellConfig, CellFolder, CellResult, Opened, open_problem, read_json, write_whole};
use crate::model::{Coefficient, Held, Inspection, RowStatistics, Separability};
use crate::oracle::SettingValue;
use crate::workbench::Workbench;
use comfy_table::{CellAlignment, LineStyle, Table, TableStyle, presets};
use polars::prelude::{Column, DataFrame, NamedFrom, Series};
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::PathBuf;

const EXAMPLES: &str = "\
CELL is the folder of a cell, or the beginning of a cell's ID, which is looked for under runs/.
Its dataset is opened again: the statistics are those of the training rows at the stored
coefficients, in 64 bits. docs/methods.md has the equations.

--rows writes for each training row: `row` (counted from 0 in the dataset), `target`,
`predictor`, `probability_CLASS` of every class or `expected`, `leverage`, and
`left_out_predictor`, that of a fit to all other rows. Where several classes have coefficients,
each has its own predictors.

Examples:
  parsimony inspect 3f9a
  parsimony inspect runs/quickstart/cells/3f9a0c12ab34cd56 --raw --level 0.99
  parsimony inspect 3f9a --format json
  parsimony inspect 3f9a --format csv --out coefficients.csv --rows rows.parquet";

/// Notes are about as wide as a table.
const NOTE_WIDTH: usize = 100;

/// A rule above and below the table and one below its header.
const RULED: TableStyle = TableStyle::new()
    .top_border(LineStyle::none().fill('─').junction('─'))
    .header_separator(LineStyle::none().fill('─').junction('─'))
    .bottom_border(LineStyle::none().fill('─').junction('─'));

/// Show standard errors, tests, deviances, leverages and leave-one-out figures of a cell
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The folder of a cell, or the beginning of its ID
    cell: String,
    /// The confidence of the intervals, between 0 and 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.95)]
    level: f64,
    /// State the coefficients for the columns as they stand in the data, without standardization
    #[arg(long)]
    raw: bool,
    /// How to print it; csv holds the coefficients alone
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// A file to write instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// A file for the statistics of each training row: Parquet by its name, else CSV
    #[arg(long, value_name = "FILE")]
    rows: Option<PathBuf>,
    /// Where to look for the cell
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs: PathBuf,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Tables for people
    #[default]
    Table,
    /// One object
    Json,
    /// A line for each coefficient
    Csv,
}

/// What is printed: an inspection and where it comes from.
#[derive(Serialize)]
struct Report<'a> {
    cell: &'a str,
    experiment: &'a str,
    dataset: &'a str,
    model: &'a str,
    optimizer: &'a str,
    seed: u64,
    fold: Option<usize>,
    /// Confidence of the intervals.
    level: f64,
    /// Whether coefficients are those of raw columns.
    raw: bool,
    #[serde(flatten)]
    inspection: Inspection,
    #[serde(skip)]
    is_standardized: bool,
    #[serde(skip)]
    result: Option<CellResult>,
}

pub fn run(workbench: &Workbench, arguments: &Arguments) -> Result<()> {
    let level = arguments.level;
    if !(level > 0.0 && level < 1.0) {
        return Err(option_error("--level", format!("{level} is no confidence"), "give a share such as 0.95"));
    }
    let folder = find_cell(&arguments.cell, &arguments.runs)?;
    let config: CellConfig = read_json(&folder.config())?;
    let weights = weights(&folder)?;
    let opened = open_problem(workbench, &config, &experiment::model_settings(workbench, &config)?)?;
    let Some(mut inspection) = opened.model.inspect(&weights, level, arguments.raw)? else {
        let place = format!("model {}", config.model.name);
        let remedy = "inspect a cell of logistic, softmax or least-squares";
        return Err(Error::config(place, "it is no generalized linear model, so it has no standard errors", remedy));
    };
    inspection.largest_leverage_row = opened.train.iter().nth(inspection.largest_leverage_row).unwrap_or_default();
    if let Some(path) = &arguments.rows {
        write_table(&mut row_table(&inspection, &opened)?, path, None)?;
    }
    let report = Report::new(&config, &folder, inspection, arguments);
    let text = match arguments.format {
        Format::Table => report.text(),
        Format::Json => {
            let json = serde_json::to_string_pretty(&report);
            json.map_err(|error| Error::Numeric(format!("not writable as JSON: {error}")))? + "\n"
        }
        Format::Csv => report.csv(),
    };
    match &arguments.out {
        Some(path) => write_whole(path, text.as_bytes()),
        None => output::text(&text),
    }
}

impl<'a> Report<'a> {
    fn new(config: &'a CellConfig, folder: &CellFolder, inspection: Inspection, arguments: &Arguments) -> Self {
        Self {
            cell: &config.cell,
            experiment: &config.experiment,
            dataset: &config.dataset.label,
            model: &config.model.label,
            optimizer: &config.optimizer.label,
            seed: config.seed,
            fold: config.fold,
            level: arguments.level,
            raw: arguments.raw,
            inspection,
            is_standardized: config.model.settings.get("standardize") != Some(&SettingValue::Switch(false)),
            result: folder.read_result(),
        }
    }

    fn is_gaussian(&self) -> bool {
        self.inspection.residual_standard_error.is_some()
    }

    fn text(&self) -> String {
        let parts = [self.title(), self.figures(), self.quality(), self.coefficients(), self.notes()];
        parts.join("\n")
    }

    fn title(&self) -> String {
        let classes = &self.inspection.classes;
        let what = match &classes[..] {
            [] => "the expected value of the target".to_owned(),
            [negative, positive] if !self.has_classes() => {
                format!("the logarithm of the odds of {positive} against {negative}")
            }
            [reference, ..] if self.has_reference() => {
                format!("for each class the logarithm of its odds against {reference}")
            }
            _ => "for each class the logarithm of its probability, up to a common term".to_owned(),
        };
        let mut text = format!("{} on {}: {what}\n", self.model, self.dataset);
        let _ = write!(text, "fitted by {} in cell {}", self.optimizer, self.cell);
        if let Some(result) = &self.result {
            let _ = write!(text, ", {}: {}", result.status, result.reason);
        }
        text.push('\n');
        text
    }

    /// Whether each coefficient belongs to a class.
    fn has_classes(&self) -> bool {
        self.inspection.coefficients.iter().any(|coefficient| coefficient.class.is_some())
    }

    /// Whether the first class has no coefficients.
    fn has_reference(&self) -> bool {
        let first = self.inspection.classes.first();
        self.inspection.coefficients.iter().all(|coefficient| coefficient.class.as_ref() != first)
    }

    /// The figures of the whole fit, in two columns.
    fn figures(&self) -> String {
        let of = &self.inspection;
        let count = |is: fn(&Coefficient) -> bool| of.coefficients.iter().filter(|coefficient| is(coefficient)).count();
        let free = count(|coefficient| coefficient.held.is_none());
        let coefficients = match of.coefficients.len() {
            all if of.regularizer == "l1" => {
                format!("{all}, {} not zero", count(|coefficient| coefficient.estimate != 0.0))
            }
            all if all == free => all.to_string(),
            all => format!("{all}, {free} free"),
        };
        let left = [
            ("training rows", of.rows.to_string()),
            ("coefficients", coefficients),
            ("effective degrees of freedom", format!("{:.2}", of.effective_degrees_of_freedom)),
            ("largest leverage", number(of.largest_leverage, 3)),
            ("  in row (from 0)", of.largest_leverage_row.to_string()),
            ("largest gradient element", number(of.gradient_norm, 2)),
            ("Newton's step, standard errors", number(of.newton_step, 2)),
        ];
        let (deviance, null, r_squared) = if self.is_gaussian() {
            ("residual sum of squares", "total sum of squares", "R squared")
        } else {
            ("deviance", "null deviance", "McFadden's R squared")
        };
        let mut right = vec![
            ("log-likelihood", number(of.log_likelihood, 8)),
            (null, number(of.null_deviance, 8)),
            (deviance, number(of.deviance, 8)),
            (r_squared, format!("{:.4}", of.r_squared)),
            ("AIC", number(of.aic, 8)),
            ("BIC", number(of.bic, 8)),
        ];
        if let Some(error) = of.residual_standard_error {
            right.push(("residual standard error", number(error, 5)));
        }
        let rows = (0..left.len()).map(|i| {
            let (name, value) = right.get(i).cloned().unwrap_or_default();
            vec![left[i].0.to_owned(), left[i].1.clone(), String::new(), name.to_owned(), value]
        });
        aligned(presets::NOTHING, None, rows.collect(), &[1, 4])
    }

    /// Loss and accuracy on training rows, left out, and on the other splits.
    fn quality(&self) -> String {
        let of = &self.inspection;
        let result = self.result.as_ref();
        let loss = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| number(value, 5));
        let share = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.4}"));
        let mut header = vec!["", "training rows", "left out"];
        let splits: [Option<[Option<f64>; 2]>; 2] = [
            result.map(|result| [result.validation_loss, result.validation_accuracy]),
            result.map(|result| [result.test_loss, result.test_accuracy]),
        ];
        let splits = splits.map(|split| split.filter(|split| split[0].is_some()));
        for (name, _) in ["validation", "test"].into_iter().zip(splits).filter(|(_, split)| split.is_some()) {
            header.push(name);
        }
        let splits: Vec<_> = splits.into_iter().flatten().collect();
        let mut rows = Vec::new();
        if self.is_gaussian() {
            let twice = |value: Option<f64>| loss(value.map(|half| 2.0 * half));
            let mut row = vec!["mean squared error".to_owned(), twice(Some(of.loss)), twice(of.left_out_loss)];
            row.extend(splits.iter().map(|split| twice(split[0])));
            rows.push(row);
            let r_squared = of.press.map(|press| 1.0 - press / of.null_deviance);
            let mut row = vec!["R squared".to_owned(), share(Some(of.r_squared)), share(r_squared)];
            row.resize(header.len(), String::new());
            rows.push(row);
            let mut row = vec!["sum of squares (PRESS)".to_owned(), loss(Some(of.deviance)), loss(of.press)];
            row.resize(header.len(), String::new());
            rows.push(row);
        } else {
            let mut row = vec!["mean log-loss".to_owned(), loss(Some(of.loss)), loss(of.left_out_loss)];
            row.extend(splits.iter().map(|split| loss(split[0])));
            rows.push(row);
            let mut row = vec!["accuracy".to_owned(), share(of.accuracy), share(of.left_out_accuracy)];
            row.extend(splits.iter().map(|split| share(split[1])));
            rows.push(row);
        }
        let numbers: Vec<usize> = (1..header.len()).collect();
        aligned(presets::NOTHING, Some(header), rows, &numbers)
    }

    fn coefficients(&self) -> String {
        let of = &self.inspection;
        let from = format!("{} % from", (1e8 * self.level).round() / 1e6);
        let mut header = vec!["class", "coefficient", "estimate"];
        let is_shown = |find: fn(&Coefficient) -> bool| of.coefficients.iter().any(find);
        let (has_errors, has_tests) = (is_shown(|c| c.standard_error.is_some()), is_shown(|c| c.statistic.is_some()));
        if has_errors {
            header.push("std. error");
        }
        if has_tests {
            header.extend([if self.is_gaussian() { "t" } else { "z" }, "p", &from, "to"]);
        }
        let has_reasons = of.regularizer != "l1" && is_shown(|c| c.held.is_some());
        if has_reasons {
            header.push("");
        }
        let mut rows: Vec<Vec<String>> = Vec::new();
        let mut class = None;
        for coefficient in &of.coefficients {
            let places = decimals(coefficient);
            let text = |value: f64| fixed(value, places);
            let or_nothing = |value: Option<String>| value.unwrap_or_default();
            let is_new = class != coefficient.class;
            class.clone_from(&coefficient.class);
            let mut row = vec![
                or_nothing(class.clone().filter(|_| is_new)),
                coefficient.name.clone(),
                text(coefficient.estimate),
            ];
            if has_errors {
                row.push(or_nothing(coefficient.standard_error.map(text)));
            }
            if has_tests {
                row.push(or_nothing(coefficient.statistic.map(|z| format!("{z:.2}"))));
                row.push(or_nothing(coefficient.p.map(probability)));
                row.push(or_nothing(coefficient.interval.map(|[low, _]| text(low))));
                row.push(or_nothing(coefficient.interval.map(|[_, high]| text(high))));
            }
            if has_reasons {
                row.push(or_nothing(coefficient.held.map(|held| reason(held, coefficient.estimate).to_owned())));
            }
            rows.push(row);
        }
        let numeric = 2..2 + 1 + usize::from(has_errors) + 4 * usize::from(has_tests);
        for column in numeric.clone() {
            align_points(&mut rows, column);
        }
        let mut numeric: Vec<usize> = numeric.collect();
        if !self.has_classes() {
            header.remove(0);
            rows.iter_mut().for_each(|row| drop(row.remove(0)));
            numeric.iter_mut().for_each(|column| *column -= 1);
        }
        aligned(RULED, Some(header), rows, &numeric)
    }

    /// What must be known to read the tables.
    fn notes(&self) -> String {
        let of = &self.inspection;
        let mut notes: Vec<String> = Vec::new();
        match of.separation {
            Some(Separability::Complete) => notes.push(
                "The classes are separable: the likelihood has no finite optimum and no coefficient a standard error. Add a ridge.".into(),
            ),
            Some(Separability::Quasi) => notes.push(
                "The classes are quasi-separable: coefficients without a finite optimum have no standard error; the others are \
                 right. A ridge gives all of them one."
                    .into(),
            ),
            None if !of.is_optimum => notes.push(format!(
                "Not at the optimum: Newton's step would move a coefficient by {} standard errors. Errors and tests belong to \
                 an optimum: run the problem with irls, or longer.",
                number(of.newton_step, 2)
            )),
            None => {}
        }
        match of.regularizer {
            "ridge" => notes.push(format!(
                "A ridge of {} biases the estimates towards zero. The standard errors are those of the biased estimates; z, p \
                 and intervals would be wrong and are not shown.",
                of.strength
            )),
            "l1" => notes.push(format!(
                "An l1 penalty of {} has chosen the coefficients, so classical standard errors, z and p do not hold and are not \
                 shown. Leverages are those of the columns that are not zero.",
                of.strength
            )),
            _ => {}
        }
        match &of.not_left_out {
            Some(reason) => notes.push(format!("No figures of rows left out: {reason}.")),
            None => {
                let exact = if self.is_gaussian() { "the fit" } else { "one Newton step towards the fit" };
                let same = match of.regularizer {
                    "ridge" if self.is_standardized => ", columns scaled as here",
                    "l1" => ", the same columns chosen",
                    _ => "",
                };
                notes.push(format!("Left out: each row by {exact} to all others{same}."));
            }
        }
        if self.is_standardized {
            notes.push(if self.raw {
                "Coefficients are those of the columns as they stand in the data.".into()
            } else {
                "Coefficients are those of standardized columns; --raw states them for the columns as they are.".into()
            });
        }
        notes.iter().map(|note| wrapped(note)).collect()
    }

    fn csv(&self) -> String {
        let quoted = |text: &str| match text.contains([',', '"', '\n']) {
            true => format!("\"{}\"", text.replace('"', "\"\"")),
            false => text.to_owned(),
        };
        // As in JSON: small numbers with an exponent.
        let value = |value: Option<f64>| value.map(|value| Value::from(value).to_string()).unwrap_or_default();
        let mut text = "class,coefficient,estimate,standard_error,statistic,p,low,high,held\n".to_owned();
        for c in &self.inspection.coefficients {
            let held = c.held.and_then(|held| serde_json::to_value(held).ok());
            let _ = writeln!(
                text,
                "{},{},{},{},{},{},{},{},{}",
                quoted(c.class.as_deref().unwrap_or_default()),
                quoted(&c.name),
                value(Some(c.estimate)),
                value(c.standard_error),
                value(c.statistic),
                value(c.p),
                value(c.interval.map(|interval| interval[0])),
                value(c.interval.map(|interval| interval[1])),
                held.as_ref().and_then(|held| held.as_str()).unwrap_or_default(),
            );
        }
        text
    }
}

/// Why a coefficient has no standard error, in words.
fn reason(held: Held, estimate: f64) -> &'static str {
    match held {
        Held::Dependent if estimate == 0.0 => "held at zero: depends on earlier columns",
        Held::Dependent => "not unique: depends on earlier columns",
        Held::Redundant => "held: the others are counted from it",
        Held::Penalized => "chosen by the penalty",
        Held::Separated => "no finite optimum",
        Held::Saturated => "as many coefficients as rows",
    }
}

/// A number with so many significant digits; very small and very large ones with an exponent.
fn number(value: f64, digits: usize) -> String {
    if value == 0.0 || !value.is_finite() {
        return if value == 0.0 { "0".into() } else { "–".into() };
    }
    let exponent = value.abs().log10().floor() as i32;
    if (-4..9).contains(&exponent) {
        format!("{value:.*}", (digits as i32 - 1 - exponent).max(0) as usize)
    } else {
        format!("{value:.*e}", digits - 1)
    }
}

/// Decimals that show three digits of the standard error or, without one, four of the estimate; `None` calls for exponents.
fn decimals(coefficient: &Coefficient) -> Option<usize> {
    let (size, digits) = match coefficient.standard_error {
        Some(error) => (error, 3),
        None => (coefficient.estimate.abs(), 4),
    };
    if size == 0.0 {
        return Some(1);
    }
    let exponent = size.log10().floor();
    (-9.0..6.0).contains(&exponent).then(|| (f64::from(digits - 1) - exponent).max(0.0) as usize)
}

fn fixed(value: f64, places: Option<usize>) -> String {
    match places {
        _ if !value.is_finite() => "–".into(),
        Some(places) => format!("{value:.places$}"),
        None => format!("{value:.3e}"),
    }
}

/// A probability: four decimals, or its size where it is small.
fn probability(p: f64) -> String {
    match p {
        _ if p.is_nan() => "–".into(),
        _ if p >= 1e-4 => format!("{p:.4}"),
        _ if p > 0.0 => format!("{p:.1e}"),
        _ => "<1e-300".into(),
    }
}

/// A note in lines of at most [`NOTE_WIDTH`] characters.
fn wrapped(note: &str) -> String {
    let (mut text, mut width) = (String::new(), 0);
    for word in note.split(' ') {
        let length = word.chars().count();
        if width > 0 && width + 1 + length > NOTE_WIDTH {
            text.push('\n');
            width = 0;
        }
        if width > 0 {
            text.push(' ');
            width += 1;
        }
        text.push_str(word);
        width += length;
    }
    text.push('\n');
    text
}

/// Pads the numbers of a column so that their points stand below each other.
fn align_points(rows: &mut [Vec<String>], column: usize) {
    let behind = |text: &str| text.find(['.', 'e']).map_or(0, |point| text.len() - point);
    let most = rows.iter().map(|row| behind(&row[column])).max().unwrap_or(0);
    for row in rows.iter_mut().filter(|row| !row[column].is_empty()) {
        let missing = most - behind(&row[column]);
        row[column].push_str(&" ".repeat(missing));
    }
}

/// Rows in columns, those of numbers flush right.
fn aligned(style: TableStyle, header: Option<Vec<&str>>, rows: Vec<Vec<String>>, numbers: &[usize]) -> String {
    let mut table = Table::new();
    table.load_style(style);
    if let Some(header) = header {
        table.set_header(header);
    }
    table.add_rows(rows);
    for &column in numbers {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// The statistics of the training rows as a table.
fn row_table(inspection: &Inspection, opened: &Opened) -> Result<DataFrame> {
    let RowStatistics { outputs, targets, predictors, fitted, leverages, left_out } = &inspection.row_statistics;
    let classes = &inspection.classes;
    let rows: Vec<u64> = opened.train.iter().map(|row| row as u64).collect();
    let mut columns: Vec<Column> = vec![Series::new("row".into(), rows).into()];
    columns.push(match classes.is_empty() {
        true => Series::new("target".into(), targets).into(),
        false => {
            let names: Vec<&str> = targets.iter().map(|&class| classes[class as usize].as_str()).collect();
            Series::new("target".into(), names).into()
        }
    });
    let mut add = |name: &str, values: &[f64], of: &[String]| {
        for place in 0..of.len() {
            let values: Vec<f64> = values.iter().skip(place).step_by(of.len()).copied().collect();
            let name = if of.len() > 1 { format!("{name}_{}", of[place]) } else { name.to_owned() };
            columns.push(Series::new(name.into(), values).into());
        }
    };
    let one = [String::new()];
    let own = if *outputs > 1 { &classes[classes.len() - outputs..] } else { &one };
    add("predictor", predictors, own);
    if classes.is_empty() {
        add("expected", fitted, &one);
    } else {
        add("probability", fitted, classes);
    }
    add("leverage", leverages, &one);
    if !left_out.is_empty() {
        add("left_out_predictor", left_out, own);
    }
    DataFrame::new(leverages.len(), columns).map_err(|error| Error::Numeric(format!("statistics of rows: {error}")))
}
