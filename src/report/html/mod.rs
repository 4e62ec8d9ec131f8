//! The interactive page: one HTML file that needs nothing else, not even a network.
//!
//! Its charts are a few hundred lines of our own (`chart.js`, `page.js`) and not a plotting library, which would be four
//! megabytes in every page: what is drawn are lines, markers and axes, as in the figures for papers, with their colours,
//! dashes and markers. Curves are thinned to what a screen can show; the whole of them stays in `trace.parquet`.

use super::groups::{self, Dataset, Model, Series};
use super::runs::{Cell, Runs};
use super::style::{MarkerShape, SeriesStyle, series_style};
use super::units;
use super::verdict::{finding, number};
use crate::claim::{ExpectationVerdict, Verdict};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

/// Columns of traces that the page can draw.
const TRACE_COLUMNS: [&str; 28] = [
    "train_seconds",
    "step",
    "data_passes",
    "gradient_equivalents",
    "flops",
    "objective",
    "train_loss",
    "train_accuracy",
    "train_squared_error",
    "gradient_norm",
    "validation_loss",
    "validation_accuracy",
    "validation_squared_error",
    "validation_explained_variance",
    "validation_explained_beyond_linear",
    "test_loss",
    "test_accuracy",
    "test_squared_error",
    "test_explained_variance",
    "test_explained_beyond_linear",
    "validation_bits_per_character",
    "validation_grammar_loss",
    "validation_fact_loss",
    "validation_sum_loss",
    "test_bits_per_character",
    "test_grammar_loss",
    "test_fact_loss",
    "test_sum_loss",
];

/// Rows of all traces together: at most about 4 MB of numbers.
const MOST_ROWS: usize = 26_000;

/// The page of a run.
#[must_use]
pub fn page(runs: &Runs, verdict: Option<&Verdict>) -> String {
    let title = runs.question.as_deref().unwrap_or(&runs.name);
    // Inside a script element nothing may look like its end or like a comment; in JSON a `<` stands in strings alone.
    let data = data(runs).to_string().replace('<', "\\u003c");
    let mut page = String::with_capacity(data.len() + (1 << 17));
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{0}</title>\n\
         <link rel=\"icon\" href=\"data:,\">\n<style>\n{1}</style>\n</head>\n<body>\n<header><div>\n<h1>{0}</h1>\n\
         <p class=\"muted\">Experiment {2}</p>\n</div><button type=\"button\" class=\"theme\">Light or dark</button></header>\n<main>\n",
        escaped(title),
        include_str!("page.css"),
        escaped(&runs.name),
    );
    match (verdict, &runs.claim.text) {
        (Some(verdict), _) => page.push_str(&claim(verdict)),
        (None, Some(text)) => {
            let _ = writeln!(
                page,
                "<section>\n<p><strong>Claim.</strong> {} <span class=\"muted\">(no expectation tests it)</span></p>\n</section>",
                escaped(text)
            );
        }
        (None, None) => {}
    }
    page.push_str(
        "<noscript><p class=\"note\">Plots and tables are drawn by JavaScript, which is switched off.</p></noscript>\n",
    );
    let _ = write!(
        page,
        "</main>\n<div id=\"after\">\n{}</div>\n<script type=\"application/json\" id=\"data\">{data}</script>\n\
         <script>\n{}\n{}</script>\n</body>\n</html>\n",
        after(runs),
        include_str!("chart.js"),
        include_str!("page.js"),
    );
    page
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The claim with its verdict.
fn claim(verdict: &Verdict) -> String {
    let mut text = String::from("<section>\n");
    if let Some(claim) = &verdict.claim {
        let source =
            verdict.source.as_deref().map(|source| format!(" <span class=\"muted\">({})</span>", escaped(source)));
        let _ = writeln!(text, "<p><strong>Claim.</strong> {}{}</p>", escaped(claim), source.unwrap_or_default());
    }
    let outcome = verdict.outcome;
    let line = verdict.line();
    let rest = line.strip_prefix(&outcome.to_string()).map_or(line.as_str(), str::trim_start);
    let _ = writeln!(
        text,
        "<p class=\"verdict-line\"><span class=\"verdict {outcome}\">{outcome}</span> {}</p>",
        escaped(rest)
    );
    for dataset in &verdict.datasets {
        let aside = if dataset.settles { "" } else { ", which does not settle the claim" };
        let _ = writeln!(
            text,
            "<p class=\"note\">On {}{aside}:</p>\n<div class=\"scroll\"><table class=\"verdicts\"><thead><tr><th scope=\"col\">expectation</th><th scope=\"col\">verdict</th>\
             <th scope=\"col\" class=\"number\">left</th><th scope=\"col\" class=\"number\">right</th><th scope=\"col\">how</th></tr></thead><tbody>",
            escaped(&dataset.dataset)
        );
        for expectation in &dataset.expectations {
            text.push_str(&expectation_row(expectation));
        }
        text.push_str("</tbody></table></div>\n");
    }
    text.push_str("</section>\n");
    text
}

fn expectation_row(expectation: &ExpectationVerdict) -> String {
    let side = |index: usize| expectation.sides.get(index).map_or("–".to_owned(), |side| number(*side));
    let why = expectation.why.as_deref().map(|why| format!("<br><span class=\"muted\">{}</span>", escaped(why)));
    let how = finding(&ExpectationVerdict { sides: Vec::new(), ..expectation.clone() });
    let outcome = expectation.outcome;
    format!(
        "<tr><td><code>{}</code>{}</td><td><span class=\"verdict {outcome}\">{outcome}</span></td>\
         <td class=\"number\" data-title=\"left\">{}</td><td class=\"number\" data-title=\"right\">{}</td><td>{}</td></tr>\n",
        escaped(&expectation.expectation),
        why.unwrap_or_default(),
        side(0),
        side(1),
        escaped(&how)
    )
}

/// What stands below the plots: the machine, the command, the experiment file.
fn after(runs: &Runs) -> String {
    let mut text = String::from("<h2>How to get these numbers again</h2>\n");
    let name = escaped(&runs.name);
    let _ = writeln!(
        text,
        "<p>Save the experiment below as <code>{name}.toml</code>; then</p>\n<pre>parsimony run {name}.toml\nparsimony report runs/{name}</pre>"
    );
    if let Ok(experiment) = fs::read_to_string(runs.folder.join("experiment.toml")) {
        let _ = writeln!(
            text,
            "<details><summary>The experiment file</summary><pre>{}</pre></details>",
            escaped(&experiment)
        );
    }
    let environment = environment(runs);
    if !environment.is_empty() {
        text.push_str("<h2>Machine and program</h2>\n<dl>\n");
        for (key, values) in environment {
            let values = values.join("; ");
            let _ = writeln!(text, "<dt>{}</dt><dd>{}</dd>", escaped(&key.replace('_', " ")), escaped(&values));
        }
        text.push_str("</dl>\n");
    }
    text.push_str("<footer class=\"note\"><p>Everything recorded is in the run's folder: a row per cell in result.json, every evaluation in trace.parquet.</p></footer>\n");
    text
}

/// What the cells recorded of their environments: every value that occurs, by key.
fn environment(runs: &Runs) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for cell in &runs.cells {
        let text = fs::read(cell.folder.join("environment.json")).unwrap_or_default();
        let environment: Map<String, Value> = serde_json::from_slice(&text).unwrap_or_default();
        for (key, value) in environment {
            let value = match (&*key, value) {
                (_, Value::Null) => continue,
                ("memory_bytes", value) => value.as_u64().map_or(String::new(), units::bytes),
                (_, Value::String(text)) => text,
                (_, Value::Array(items)) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
                (_, value) => value.to_string(),
            };
            let values = all.entry(key).or_default();
            if !values.contains(&value) {
                values.push(value);
            }
        }
    }
    all
}

/// Everything that the script draws.
fn data(runs: &Runs) -> Value {
    let datasets = groups::datasets(runs);
    let rows = (MOST_ROWS / runs.cells.len().max(1)).clamp(12, 400);
    let is_text = datasets.iter().any(|dataset| dataset.unit == "tokens");
    let squares = runs.cells.iter().any(|cell| cell.config.model.name == "least-squares");
    json!({
        "name": runs.name,
        "loss_unit": if squares { "half a square per row" } else if is_text { "nats per token" } else { "nats per row" },
        "styles": (0..16).map(|index| style(series_style(index))).collect::<Vec<_>>(),
        "datasets": datasets.iter().map(|dataset| of_dataset(runs, dataset, rows)).collect::<Vec<_>>(),
    })
}

fn of_dataset(runs: &Runs, dataset: &Dataset<'_>, rows: usize) -> Value {
    let target = dataset.cells().find_map(|cell| cell.config.target.as_ref()).map(|target| {
        let sign = if crate::report::runs::rises(&target.metric) { "≥" } else { "≤" };
        format!("{} {sign} {}", target.metric.replace('_', " "), units::significant(target.value, 4))
    });
    json!({
        "name": dataset.description(),
        "target": target,
        "models": dataset.models.iter().map(|model| of_model(runs, model, rows)).collect::<Vec<_>>(),
    })
}

fn of_model(runs: &Runs, model: &Model<'_>, rows: usize) -> Value {
    json!({
        "name": model.name,
        "series": model.series.iter().map(|series| of_series(runs, series, rows)).collect::<Vec<_>>(),
    })
}

fn of_series(runs: &Runs, series: &Series<'_>, rows: usize) -> Value {
    let first = series.cells.first();
    json!({
        "name": series.name,
        "optimizer": first.map(|cell| cell.config.optimizer.label()),
        "settings": first.map(|cell| &cell.config.hyperparameters),
        "style": style(series.style),
        "cells": series.cells.iter().map(|cell| of_cell(runs, cell, rows)).collect::<Vec<_>>(),
    })
}

fn of_cell(runs: &Runs, cell: &Cell, rows: usize) -> Value {
    let numbers: Map<String, Value> = match serde_json::to_value(&cell.result) {
        Ok(Value::Object(result)) => result
            .into_iter()
            .filter(|(key, value)| value.is_number() && key != "seed" && key != "fold")
            // Counts are shown to their last digit.
            .map(|(key, value)| (key, if value.is_u64() { value } else { short(value.as_f64().unwrap_or(f64::NAN)) }))
            .collect(),
        _ => Map::new(),
    };
    let kept = thinned(cell.trace.rows(), rows);
    let mut trace = Map::new();
    for name in TRACE_COLUMNS {
        let column = cell.trace.column(name);
        if column.iter().any(|value| value.is_finite()) {
            trace.insert(name.to_owned(), kept.iter().map(|&row| short(column[row])).collect());
        }
    }
    json!({
        "id": cell.config.cell, "seed": cell.config.seed, "fold": cell.config.fold,
        "optimum": runs.references.get(&cell.config.problem).map(|reference| reference.objective),
        "status": cell.result.status.name(), "reason": cell.result.reason, "result": numbers, "trace": trace,
    })
}

/// A number with six digits, which is more than a screen shows; nothing for what is not finite.
fn short(value: f64) -> Value {
    let rounded: f64 = format!("{value:.5e}").parse().unwrap_or(f64::NAN);
    if rounded.fract() == 0.0 && rounded.abs() < 1e15 { (rounded as i64).into() } else { rounded.into() }
}

/// Which of `count` rows are kept: all, or at most about `most`, half of them evenly and half evenly in the logarithm, so
/// that curves are whole on axes of either kind; the last is among them.
fn thinned(count: usize, most: usize) -> Vec<usize> {
    if count <= most {
        return (0..count).collect();
    }
    let half = most / 2;
    let last = (count - 1) as f64;
    let even = (0..half).map(|k| (last * k as f64 / (half - 1) as f64).round() as usize);
    let logarithmic = (0..half).map(|k| (last.powf(k as f64 / (half - 1) as f64)).round() as usize);
    let mut rows: Vec<usize> = even.chain(logarithmic).chain([0]).collect();
    rows.sort_unstable();
    rows.dedup();
    rows
}

fn style(style: SeriesStyle) -> Value {
    let marker = match style.marker {
        MarkerShape::Circle => "circle",
        MarkerShape::Square => "square",
        MarkerShape::TriangleUp => "up",
        MarkerShape::Diamond => "diamond",
        MarkerShape::TriangleDown => "down",
        MarkerShape::Plus => "plus",
        MarkerShape::Star => "star",
        MarkerShape::Hexagon => "hexagon",
    };
    let color = style.color;
    json!({ "color": [color.0, color.1, color.2], "dash": style.dash.0, "marker": marker })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinned_rows_are_few_and_hold_both_ends() {
        assert_eq!(thinned(5, 40), [0, 1, 2, 3, 4]);
        let rows = thinned(1000, 130);
        assert!(rows.len() <= 131 && rows.first() == Some(&0) && rows.last() == Some(&999), "{rows:?}");
        assert!(rows[..8] == [0, 1, 2, 3, 4, 5, 6, 7], "the start is whole: {rows:?}");
    }

    #[test]
    fn numbers_are_short_and_never_wrong_json() {
        assert_eq!(
            [0.123_456_789, 1e-12, 3.0, f64::NAN].map(|v| short(v).to_string()),
            ["0.123457", "1e-12", "3", "null"]
        );
    }
}
