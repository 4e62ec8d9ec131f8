//! Figure: how far the training objective is above its smallest value, versus passes over the data; both logarithmic.
//!
//! The smallest value comes from the reference solve. Where no problem has one, the objective itself is drawn.

use super::axes::{Quantity, Scale, range};
use super::curves::{Curve, End};
use super::figure::{Axis, Heading};
use super::groups::{self, Dataset};
use super::lines::{Line, LineFigure, Panel};
use super::quality_time::capitalized;
use super::runs::{Cell, Runs};
use super::scene::Scene;
use super::units;

const X: &str = "data_passes";
const Y: &str = "objective";

/// The figure of one dataset.
///
/// # Errors
/// A sentence that says what is missing.
pub fn draw(heading: &Heading, dataset: &Dataset<'_>, runs: &Runs) -> Result<Scene, String> {
    let reference = |cell: &Cell| runs.references.get(&cell.config.problem).map(|reference| reference.objective);
    if !dataset.cells().any(|cell| !cell.trace.pairs(X, Y).is_empty()) {
        return Err("no cell recorded the training objective".to_owned());
    }
    let relative = dataset.cells().any(|cell| reference(cell).is_some());
    let mut without = Vec::new();
    // Differences below the last digit of the objective are rounding.
    let optima = dataset.cells().filter_map(reference).map(f64::abs);
    let resolution = range(optima).map_or(0.0, |(_, high)| high.max(1e-3) * f64::EPSILON);
    let mut undercut: f64 = 0.0;
    let mut at_floor = false;
    let mut panels = Vec::new();
    for model in &dataset.models {
        let mut lines = Vec::new();
        for series in &model.series {
            let mut curves = Vec::new();
            for cell in &series.cells {
                let mut curve = Curve::of(cell, X, Y);
                if relative {
                    let Some(optimum) = reference(cell) else { continue };
                    for point in &mut curve.points {
                        let gap = point.1 - optimum;
                        undercut = undercut.max(-gap);
                        at_floor |= gap < resolution;
                        point.1 = gap.max(resolution);
                    }
                }
                curves.push(curve);
            }
            lines.push(Line::new(&series.name, series.style, curves, f64::INFINITY, false));
        }
        if relative && model.cells().all(|cell| reference(cell).is_none()) {
            without.push(model.name.clone());
            continue;
        }
        panels.push(Panel { title: model.name.clone(), lines, y: Scale::Linear { low: 0.0, high: 1.0 } });
    }
    let all_lines = || panels.iter().flat_map(|panel| &panel.lines);
    let passes = || all_lines().flat_map(|line| line.points().map(|point| point.0));
    let (Some((linear, _)), Some((_, last))) = (range(passes().filter(|passes| *passes > 0.0)), range(passes())) else {
        return Err("no cell recorded a step with its passes over the data".to_owned());
    };
    let high = last.max(linear * 3.0) * 1.15;
    let scale = if passes().any(|passes| passes <= 0.0) {
        Scale::SymLog { linear, high }
    } else {
        Scale::Log { low: linear / 1.15, high }
    };
    let Some(y) = y_scale(&panels, relative) else {
        return Err("no cell recorded a finite objective".to_owned());
    };
    for panel in &mut panels {
        panel.y = y;
    }
    let mut notes = vec![format!("{}; thin lines: every cell.", capitalized(&groups::replicates(&dataset.models)))];
    if relative {
        if at_floor {
            notes
                .push(format!("Differences below {} are rounding and drawn there.", units::significant(resolution, 2)));
        }
        // Far below the reference by more than rounding: the reference was no optimum, and the reader must know.
        if undercut > 1e3 * resolution {
            notes.push(format!(
                "Note: a cell's objective is {} below the reference optimum, so that was not the smallest value.",
                units::significant(undercut, 2)
            ));
        }
    } else {
        notes.push("No reference optimum is known for these problems, so the objective itself is drawn.".to_owned());
    }
    if !without.is_empty() {
        notes.push(format!("No reference optimum, and therefore no panel: {}.", without.join("; ")));
    }
    notes.extend(groups::endings_of_figure(&dataset.models));
    let title = "Passes over the training data (logarithmic after the first record)".to_owned();
    let x = Axis { scale, quantity: Quantity::Number, title };
    let y_title = if relative { "Objective − optimum (nats per row)" } else { "Training objective (nats per row)" };
    Ok(LineFigure { heading: heading.clone(), x, y_title: y_title.to_owned(), panels, notes }.scene())
}

/// A scale that all panels share. What a diverging cell reached does not stretch it beyond ten times the start.
fn y_scale(panels: &[Panel], relative: bool) -> Option<Scale> {
    let curves = || panels.iter().flat_map(|panel| &panel.lines).flat_map(|line| &line.curves);
    let (low, _) = range(curves().flat_map(|curve| curve.points.iter().map(|point| point.1)))?;
    let starts = range(curves().filter_map(|curve| Some(curve.points.first()?.1)))?.1;
    let steady = curves().filter(|curve| curve.end != End::Worst);
    let highest =
        range(steady.flat_map(|curve| curve.points.iter().map(|point| point.1))).map_or(starts, |range| range.1);
    let high = highest.min(starts * if relative { 10.0 } else { 1.5 }).max(starts);
    if relative {
        return Scale::log_around([low, high], 0.03);
    }
    let margin = 0.05 * (high - low).max(1e-6);
    Some(Scale::Linear { low: low - margin, high: high + margin })
}
