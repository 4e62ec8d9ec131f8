//! Figure: how good a fit is (see [`Measure`]) versus seconds of training, on a logarithmic axis.

use super::axes::{Quantity, Scale, range};
use super::curves::{Curve, End};
use super::figure::{Axis, Heading};
use super::groups::{self, Dataset};
use super::lines::{Line, LineFigure, Panel};
use super::measure::Measure;
use super::scene::Scene;
use super::units;

/// The figure of one dataset.
///
/// # Errors
/// A sentence that says what is missing.
pub fn draw(heading: &Heading, dataset: &Dataset<'_>, measure: &Measure) -> Result<Scene, String> {
    const X: &str = "train_seconds";
    let mut panels = Vec::new();
    for model in &dataset.models {
        let lines: Vec<Line> = model
            .series
            .iter()
            .map(|series| {
                let curves = series.cells.iter().map(|cell| Curve::of(cell, X, measure.column)).collect();
                Line::new(&series.name, series.style, curves, measure.worst(), true)
            })
            .collect();
        panels.push(Panel { title: model.name.clone(), lines, y: Scale::Linear { low: 0.0, high: 1.0 } });
    }
    if panels.iter().flat_map(|panel| &panel.lines).all(|line| line.points().next().is_none()) {
        return Err(format!("no cell recorded the {} while it ran", measure.column.replace('_', " ")));
    }
    // The row before the first step has no place on a logarithmic axis, however long its clock ran.
    let seconds = dataset.cells().flat_map(|cell| {
        let steps = cell.trace.column("step");
        let times = cell.trace.column(X);
        times.iter().zip(steps).filter(|(_, step)| **step > 0.0).map(|(seconds, _)| *seconds)
    });
    let Some(scale) = Scale::log_around(seconds, 0.02) else {
        return Err("no cell recorded a step with its time".to_owned());
    };
    let spans: Vec<Option<Span>> = panels.iter().map(|panel| span(&panel.lines, measure)).collect();
    let all = spans.iter().flatten().copied().reduce(Span::union).unwrap_or(EMPTY);
    // Panels share an axis unless one of them would be squeezed to a fifth of it.
    let shared = spans.iter().flatten().all(|one| one.high - one.low >= 0.2 * (all.high - all.low));
    let mut clipped: Option<f64> = None;
    for (panel, one) in panels.iter_mut().zip(&spans) {
        let chosen = one.as_ref().filter(|_| !shared).unwrap_or(&all);
        panel.y = chosen.scale(measure);
        if chosen.lowest < chosen.low {
            clipped = Some(clipped.map_or(chosen.lowest, |lowest| lowest.min(chosen.lowest)));
        }
    }
    let mut notes = vec![format!(
        "{}; thin lines: every cell. A value holds until the next evaluation.",
        capitalized(&groups::replicates(&dataset.models))
    )];
    if let Some(lowest) = clipped {
        let (side, way) = if measure.rises { ("lower", "down") } else { ("higher", "up") };
        let start = units::significant(measure.upwards(lowest), 3);
        notes.push(format!("The vertical axis is cut: curves start {side}, {way} to {start}."));
    }
    notes.extend(groups::endings_of_figure(&dataset.models));
    let title = "Training time, without evaluation (logarithmic)".to_owned();
    let x = Axis { scale, quantity: Quantity::Seconds, title };
    let y_title = measure.title.to_owned();
    Ok(LineFigure { heading: heading.clone(), x, y_title, panels, notes }.scene())
}

/// What part of the values an axis shows, with the sign that makes more better.
#[derive(Debug, Clone, Copy)]
struct Span {
    low: f64,
    high: f64,
    /// The lowest value there is, shown or not.
    lowest: f64,
}

impl Span {
    fn union(self, other: Self) -> Self {
        Self { low: self.low.min(other.low), high: self.high.max(other.high), lowest: self.lowest.min(other.lowest) }
    }

    fn scale(&self, measure: &Measure) -> Scale {
        let (one, other) = (measure.upwards(self.low), measure.upwards(self.high));
        Scale::Linear { low: one.min(other), high: one.max(other) }
    }
}

const EMPTY: Span = Span { low: 0.0, high: 1.0, lowest: 0.0 };

/// An axis on which differences are seen: it holds all final values and nine tenths of what was recorded after the first
/// row. A bad start is cut off if showing it would take more than a third of the axis. None where nothing was recorded.
fn span(lines: &[Line], measure: &Measure) -> Option<Span> {
    let values = || lines.iter().flat_map(|line| line.points().map(|point| measure.upwards(point.1)));
    let (lowest, highest) = range(values())?;
    let ends = lines.iter().flat_map(|line| {
        line.curves
            .iter()
            .filter(|curve| curve.end != End::Worst)
            .filter_map(|curve| Some(measure.upwards(curve.points.last()?.1)))
    });
    let mut later: Vec<f64> = lines
        .iter()
        .flat_map(|line| line.curves.iter().flat_map(|curve| curve.points.iter().skip(1)))
        .map(|p| measure.upwards(p.1))
        .collect();
    later.sort_by(f64::total_cmp);
    let tenth = later.get(later.len() / 10).copied().unwrap_or(lowest);
    let worst_end = range(ends).map_or(lowest, |(low, _)| low);
    let mut low = tenth.min(worst_end - 0.1 * (highest - worst_end));
    if low - lowest <= 0.5 * (highest - low) {
        low = lowest;
    }
    let least = measure.least_span(values().filter(|value| *value >= low));
    let (low, high) = if highest - low < least {
        let middle = (highest + low) / 2.0;
        (middle - least / 2.0, middle + least / 2.0)
    } else {
        (low, highest)
    };
    let margin = 0.05 * (high - low);
    Some(Span { low: low - margin, high: high + margin, lowest })
}

pub(super) fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}
