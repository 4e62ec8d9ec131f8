//! The cells of a run in a table: for the terminal, as Markdown, as JSON (one object per cell), CSV or Parquet.
//!
//! The terminal's table has one part per problem, the best test accuracy first, medians over seeds and folds unless every
//! cell is asked for, and only the columns that say something.

use super::curves::median;
use super::export;
use super::groups::{self, Dataset, Model, Series};
use super::runs::{Cell, CellResult, Runs, Status};
use super::units::{self, NEVER};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{self, Write};

/// The formats of `parsimony summary`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A table to read.
    #[default]
    Table,
    /// An array with one object per cell.
    Json,
    /// One line per cell.
    Csv,
    /// One row per cell.
    Parquet,
}

/// Writes the summary of a run. `all` gives every cell a row of the table to read, instead of medians; the other formats
/// always hold every cell.
///
/// # Errors
/// Whatever `out` returns, a broken pipe included.
pub fn write(runs: &Runs, format: Format, all: bool, out: &mut impl Write) -> io::Result<()> {
    match format {
        Format::Table => out.write_all(terminal(runs, all).as_bytes()),
        Format::Json => out.write_all(json(runs)?.as_bytes()),
        Format::Csv => out.write_all(&export::csv(runs)?),
        Format::Parquet => out.write_all(&export::parquet(runs)?),
    }
}

/// An array of the cells' results. A finished cell's object is the text of its file, so that no digit changes.
fn json(runs: &Runs) -> io::Result<String> {
    let template = serde_json::to_value(CellResult::default())?;
    let complete = |text: &str| {
        let object: Option<Value> = serde_json::from_str(text).ok();
        let keys = template.as_object().into_iter().flat_map(|template| template.keys());
        object.is_some_and(|object| keys.into_iter().all(|key| object.get(key).is_some()))
    };
    let mut objects = Vec::with_capacity(runs.cells.len());
    for cell in &runs.cells {
        let text = match &cell.result_text {
            Some(text) if complete(text) => text.trim().to_owned(),
            _ => serde_json::to_string_pretty(&cell.result)?,
        };
        objects.push(text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n"));
    }
    Ok(if objects.is_empty() { "[]\n".to_owned() } else { format!("[\n{}\n]\n", objects.join(",\n")) })
}

/// The table of one problem.
struct Part {
    title: String,
    columns: Vec<Column>,
    notes: Vec<String>,
}

struct Column {
    title: &'static str,
    /// Numbers stand at the right.
    number: bool,
    values: Vec<String>,
}

fn terminal(runs: &Runs, all: bool) -> String {
    let mut text = String::new();
    if let Some(question) = &runs.question {
        let _ = writeln!(text, "{question}\n");
    }
    for part in parts(runs, all) {
        let _ = writeln!(text, "{}", part.title);
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(part.columns.iter().map(|column| column.title));
        for row in 0..part.columns.first().map_or(0, |column| column.values.len()) {
            table.add_row(part.columns.iter().map(|column| column.values[row].as_str()));
        }
        for (index, column) in part.columns.iter().enumerate() {
            if column.number
                && let Some(column) = table.column_mut(index)
            {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let _ = writeln!(text, "{table}");
        for note in &part.notes {
            let _ = writeln!(text, "  {note}");
        }
        text.push('\n');
    }
    if runs.cells.is_empty() {
        let _ = writeln!(text, "{}: no cell has been run yet.", runs.folder.display());
    }
    text
}

/// The same as Markdown.
pub(super) fn markdown(runs: &Runs) -> String {
    let mut text = String::new();
    for part in parts(runs, false) {
        let _ = writeln!(text, "## {}\n", part.title);
        let row = |values: Vec<&str>| format!("| {} |\n", values.join(" | ").replace('\n', " "));
        let escaped: Vec<Vec<String>> = part
            .columns
            .iter()
            .map(|column| column.values.iter().map(|value| value.replace('|', "\\|")).collect())
            .collect();
        text.push_str(&row(part.columns.iter().map(|column| column.title).collect()));
        text.push_str(&row(part.columns.iter().map(|column| if column.number { "---:" } else { "---" }).collect()));
        for index in 0..escaped.first().map_or(0, Vec::len) {
            text.push_str(&row(escaped.iter().map(|values| values[index].as_str()).collect()));
        }
        text.push('\n');
        for note in &part.notes {
            let _ = writeln!(text, "- {note}");
        }
        text.push('\n');
    }
    if runs.cells.is_empty() {
        text.push_str("No cell has been run yet.\n\n");
    }
    text
}

fn parts(runs: &Runs, all: bool) -> Vec<Part> {
    let datasets = groups::datasets(runs);
    datasets
        .iter()
        .flat_map(|dataset| dataset.models.iter().map(move |model| part(runs, dataset, model, all)))
        .collect()
}

/// A row: an optimizer with the cells its numbers are medians of.
struct Row<'a> {
    series: &'a Series<'a>,
    cells: Vec<&'a Cell>,
}

impl Row<'_> {
    /// The median over cells that ended with an answer.
    fn median(&self, value: impl Fn(&Cell) -> Option<f64>) -> Option<f64> {
        median(self.answered().filter_map(value))
    }

    fn answered(&self) -> impl Iterator<Item = &Cell> {
        let answered = |status| matches!(status, Status::Finished | Status::TimedOut);
        self.cells.iter().copied().filter(move |cell| answered(cell.result.status))
    }

    fn accuracy(&self) -> Option<f64> {
        self.median(|cell| cell.result.test_accuracy)
    }
}

fn part(runs: &Runs, dataset: &Dataset<'_>, model: &Model<'_>, all: bool) -> Part {
    let mut rows: Vec<Row<'_>> = Vec::new();
    for series in &model.series {
        if all {
            rows.extend(series.cells.iter().map(|cell| Row { series, cells: vec![cell] }));
        } else {
            rows.push(Row { series, cells: series.cells.clone() });
        }
    }
    rows.sort_by(|one, other| {
        let key = |row: &Row<'_>| row.accuracy().unwrap_or(f64::NEG_INFINITY);
        let time = |row: &Row<'_>| row.median(|cell| cell.result.train_seconds).unwrap_or(f64::INFINITY);
        key(other).total_cmp(&key(one)).then(time(one).total_cmp(&time(other)))
    });
    let columns = columns(runs, &rows, all);
    let mut title = format!("{} · {}", dataset.description(), model.name);
    if let Some(parameters) = model.parameters() {
        let _ = write!(title, " · {} parameters", units::count(parameters));
    }
    let mut notes = Vec::new();
    if !all && rows.iter().any(|row| row.cells.len() > 1) {
        let spread = if columns.iter().any(|column| column.values.iter().any(|value| value.contains('±'))) {
            "; ±: half the distance between smallest and largest"
        } else {
            ""
        };
        notes.push(format!("{}{spread}.", super::quality_time::capitalized(&groups::replicates([model]))));
    }
    if let Some(target) = model.cells().find_map(|cell| cell.config.target.as_ref()) {
        let value = units::significant(target.value, 4);
        notes.push(format!("Target: {} {value}; {NEVER}: not reached.", target.metric.replace('_', " ")));
    }
    notes.extend(groups::endings(std::slice::from_ref(model)));
    for finding in model.cells().flat_map(|cell| &cell.result.findings) {
        let note = format!("{}: {}", finding.kind, finding.message);
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    Part { title, columns, notes }
}

/// The columns that say something about these rows.
fn columns(runs: &Runs, rows: &[Row<'_>], all: bool) -> Vec<Column> {
    let mut columns = Vec::new();
    let mut add = |title: &'static str, number: bool, value: &dyn Fn(&Row<'_>) -> Option<String>| {
        let values: Vec<Option<String>> = rows.iter().map(value).collect();
        if values.iter().any(Option::is_some) {
            let values = values.into_iter().map(|value| value.unwrap_or_else(|| "–".to_owned())).collect();
            columns.push(Column { title, number, values });
        }
    };
    let number = |value: Option<f64>, digits: usize| value.map(|value| units::significant(value, digits));
    let bytes = |value: Option<f64>| value.map(|value| units::bytes(value as u64));
    add("optimizer", false, &|row| Some(row.series.name.clone()));
    if all {
        let several_seeds = rows.iter().any(|row| row.cells[0].config.seed != rows[0].cells[0].config.seed);
        add("fold", true, &|row| row.cells[0].config.fold.map(|fold| fold.to_string()));
        add("seed", true, &|row| several_seeds.then(|| row.cells[0].config.seed.to_string()));
    } else if rows.windows(2).any(|pair| pair[0].cells.len() != pair[1].cells.len()) {
        add("cells", true, &|row| Some(row.cells.len().to_string()));
    }
    let unusual = rows.iter().flat_map(|row| &row.cells).any(|cell| cell.result.status != Status::Finished);
    add("status", false, &|row| unusual.then(|| statuses(&row.cells)));
    add("test accuracy", true, &|row| with_spread(row, |cell| cell.result.test_accuracy));
    if rows.iter().all(|row| row.accuracy().is_none()) {
        add("validation accuracy", true, &|row| with_spread(row, |cell| cell.result.validation_accuracy));
        add("train accuracy", true, &|row| with_spread(row, |cell| cell.result.train_accuracy));
    }
    add("test AUC", true, &|row| number(row.median(|cell| cell.result.test_auc), 4));
    add("test explained", true, &|row| number(row.median(|cell| cell.result.test_explained_variance), 4));
    add("beyond linear", true, &|row| number(row.median(|cell| cell.result.test_explained_beyond_linear), 4));
    add("test squared error", true, &|row| number(row.median(|cell| cell.result.test_squared_error), 4));
    add("train squared error", true, &|row| number(row.median(|cell| cell.result.train_squared_error), 4));
    add("test bits per character", true, &|row| number(row.median(|cell| cell.result.test_bits_per_character), 4));
    add("test loss", true, &|row| number(row.median(|cell| cell.result.test_loss), 4));
    add("on facts", true, &|row| number(row.median(|cell| cell.result.test_fact_loss), 4));
    add("on sums", true, &|row| number(row.median(|cell| cell.result.test_sum_loss), 4));
    let gap = |cell: &Cell| {
        let optimum = runs.references.get(&cell.config.problem)?.objective;
        Some((cell.result.objective? - optimum).max(0.0))
    };
    if rows.iter().any(|row| row.median(gap).is_some()) {
        add("above optimum", true, &|row| number(row.median(gap), 2));
    } else {
        add("objective", true, &|row| number(row.median(|cell| cell.result.objective), 5));
    }
    add("train time", true, &|row| row.median(|cell| cell.result.train_seconds).map(units::seconds));
    add("to target", true, &|row| time_to_target(row));
    add("passes", true, &|row| number(row.median(|cell| cell.result.data_passes), 3));
    let sparse = rows.iter().any(|row| {
        row.answered().any(|cell| {
            cell.result.parameters_nonzero.is_some_and(|nonzero| Some(nonzero) != cell.result.parameters_total)
        })
    });
    add("non-zero", true, &|row| {
        let nonzero = row.median(|cell| cell.result.parameters_nonzero.map(|count| count as f64));
        nonzero.filter(|_| sparse).map(|count| units::count(count.round() as u64))
    });
    add("peak memory", true, &|row| {
        bytes(row.median(|cell| cell.result.peak_resident_bytes.map(|bytes| bytes as f64)))
    });
    columns
}

fn with_spread(row: &Row<'_>, value: impl Fn(&Cell) -> Option<f64>) -> Option<String> {
    let middle = row.median(&value)?;
    let (low, high) = super::axes::range(row.answered().filter_map(&value))?;
    let text = format!("{middle:.4}");
    Some(if high > low { format!("{text} ±{:.4}", (high - low) / 2.0) } else { text })
}

/// The median time to the target, in which a miss is infinite; nothing where no target was set.
fn time_to_target(row: &Row<'_>) -> Option<String> {
    let counted = row.cells.iter().filter(|cell| cell.config.target.is_some());
    median(counted.filter_map(|cell| cell.time_to_target())).map(units::seconds)
}

/// `finished`, or `2 finished, 1 diverged`.
fn statuses(cells: &[&Cell]) -> String {
    let mut counts: Vec<(Status, usize)> = Vec::new();
    for cell in cells {
        match counts.iter_mut().find(|(status, _)| *status == cell.result.status) {
            Some((_, count)) => *count += 1,
            None => counts.push((cell.result.status, 1)),
        }
    }
    match counts[..] {
        [(status, _)] => status.to_string(),
        _ => counts.iter().map(|(status, count)| format!("{count} {status}")).collect::<Vec<_>>().join(", "),
    }
}
