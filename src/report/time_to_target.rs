//! Figure: seconds of training until the target was first reached, one row per series; a miss is infinity, at the right.

use super::axes::{Quantity, Scale};
use super::curves::median;
use super::figure::{self, Axis, Grid, Heading, MARGIN, NORMAL, SMALL, TickLabels};
use super::font::{self, Weight};
use super::groups::{self, Dataset, Model, Series};
use super::quality_time::capitalized;
use super::runs::{Cell, Target};
use super::scene::{Anchor, Rect, Scene};
use super::style::Color;
use super::units::{self, NEVER};

const ROW: f64 = 28.0;
/// The room at the right of a panel in which misses stand.
const MISSES: f64 = 46.0;

/// The figure of one dataset.
///
/// # Errors
/// A sentence that says what is missing.
pub fn draw(heading: &Heading, dataset: &Dataset<'_>) -> Result<Scene, String> {
    let target_of = |model: &Model<'_>| model.cells().find_map(|cell| cell.config.target.as_ref().map(goal));
    let goals: Vec<Option<String>> = dataset.models.iter().map(target_of).collect();
    let Some(first_goal) = goals.iter().flatten().next() else {
        return Err("the experiment sets no target".to_owned());
    };
    let one_goal = goals.iter().flatten().all(|goal| goal == first_goal);
    let hits = || dataset.cells().filter_map(time);
    let none_hit = hits().next().is_none();
    // Without a hit the axis has nothing to span but the time that was spent.
    let scale = Scale::log_around(hits(), 0.06)
        .or_else(|| Scale::log_around(dataset.cells().filter_map(|cell| cell.result.train_seconds), 0.06));
    let Some(scale) = scale else {
        return Err("no cell ran long enough to have a time".to_owned());
    };
    let columns = dataset.models.len().clamp(1, 3);
    let mut scene = Scene::new([820.0, 940.0, 1120.0][columns - 1], &heading.title);
    let top = figure::heading(&mut scene, heading);
    let single = dataset.models.len() == 1;
    let top = if single { top } else { top + 18.0 };

    let mut names: Vec<&str> = Vec::new();
    for series in dataset.models.iter().flat_map(|model| &model.series) {
        if !names.contains(&series.name.as_str()) {
            names.push(&series.name);
        }
    }
    let name_limit = 260.0;
    let name_width = names.iter().map(|name| font::width(name, SMALL, Weight::Regular)).fold(0.0, f64::max);
    let name_width = name_width.min(name_limit);
    let left = MARGIN + name_width + 24.0;
    let height = ROW * names.len() as f64 + 8.0;
    let right = scene.width - MARGIN - MISSES;
    let grid = Grid::new(dataset.models.len(), columns, (left, right), top, height, (MISSES + 22.0, 62.0));
    let x = Axis { scale, quantity: Quantity::Seconds, title: String::new() };
    let rows = Axis {
        scale: Scale::Linear { low: 0.0, high: names.len() as f64 },
        quantity: Quantity::Number,
        title: String::new(),
    };
    let mut notes = vec![format!("{}; small dots: every cell.", capitalized(&groups::replicates(&dataset.models)))];
    for (index, (model, rect)) in dataset.models.iter().zip(&grid.frames).enumerate() {
        if !single {
            let title = match &goals[index] {
                Some(goal) if !one_goal => format!("{}: {goal}", model.name),
                _ => model.name.clone(),
            };
            let title = font::shorten(&title, NORMAL, Weight::Bold, rect.width() + MISSES);
            scene.text(&title, (rect.left, rect.top - 9.0), Anchor::Start, NORMAL, Weight::Bold, Color::INK);
        }
        let misses = Rect::new(rect.right + 10.0, rect.top, rect.right + MISSES, rect.bottom);
        scene.rect(&misses, Color::PALE);
        draw_frame(&mut scene, rect, &misses, &x, &rows, grid.is_lowest(index));
        for (row, name) in names.iter().enumerate() {
            let y = rect.top + 4.0 + ROW * (row as f64 + 0.5);
            if grid.is_leftmost(index) {
                let name = font::shorten(name, SMALL, Weight::Regular, name_limit);
                let at = (rect.left - 12.0, y + SMALL * 0.36);
                scene.text(&name, at, Anchor::End, SMALL, Weight::Regular, Color::INK);
            }
            if let Some(series) = model.series.iter().find(|series| series.name == *name) {
                draw_row(&mut scene, series, rect, &misses, &scale, y);
                notes.extend(misses_note(model, series, dataset.models.len() > 1));
            }
        }
    }
    let what = if one_goal { first_goal } else { "the target" };
    let title = format!("Training time until {what} (logarithmic; {NEVER}: not reached)");
    let below = figure::axis_titles(&mut scene, &grid, &title, "", 0.0);
    if none_hit {
        notes.insert(0, "No cell reached the target.".to_owned());
    }
    notes.extend(groups::endings_of_figure(&dataset.models));
    scene.height = figure::caption(&mut scene, &notes, below) + MARGIN * 0.6;
    Ok(scene)
}

fn time(cell: &Cell) -> Option<f64> {
    cell.time_to_target().filter(|seconds| seconds.is_finite())
}

/// The target in words: `validation accuracy ≥ 0.64`.
fn goal(target: &Target) -> String {
    let falling = ["loss", "objective", "norm"].iter().any(|word| target.metric.contains(word));
    let sign = if falling { "≤" } else { "≥" };
    format!("{} {sign} {}", target.metric.replace('_', " "), units::significant(target.value, 4))
}

fn draw_frame(scene: &mut Scene, rect: &Rect, misses: &Rect, x: &Axis, rows: &Axis, labels: bool) {
    // The rows have names instead of numbers: the y axis has neither ticks nor grid.
    let silent = Axis { scale: Scale::Linear { low: 0.0, high: 0.0 }, ..rows.clone() };
    figure::frame(scene, rect, x, &silent, TickLabels { x: labels, y: false });
    scene.line((misses.left, misses.bottom), (misses.right, misses.bottom), Color::AXIS, 1.2);
    if labels {
        let at = ((misses.left + misses.right) / 2.0, misses.bottom + 8.0 + SMALL);
        scene.text(NEVER, at, Anchor::Middle, SMALL + 2.0, Weight::Regular, Color::INK);
    }
}

fn draw_row(scene: &mut Scene, series: &Series<'_>, rect: &Rect, misses: &Rect, scale: &Scale, y: f64) {
    let style = series.style;
    let column = (misses.left + misses.right) / 2.0;
    // What was there before the first step stands at the left.
    let x_of = |seconds: f64| rect.left + scale.place(seconds).max(0.0) * rect.width();
    let counted: Vec<&Cell> = series.cells.iter().copied().filter(|cell| counts(cell)).collect();
    let Some(middle) = median(counted.iter().map(|cell| time(cell).unwrap_or(f64::INFINITY))) else { return };
    let hits: Vec<f64> = counted.iter().filter_map(|cell| time(cell)).map(x_of).collect();
    let missed = counted.len() - hits.len();
    let end = if middle.is_finite() { x_of(middle) } else { column };
    // A line from the left leads the eye; it breaks at the border of the misses.
    scene.line((rect.left, y), (end.min(rect.right), y), style.color.tint(0.45), 1.4);
    if counted.len() > 1 {
        for hit in hits {
            scene.marker(super::style::MarkerShape::Circle, (hit, y), 2.4, style.color.tint(0.6), false);
        }
        for index in 0..missed.min(3) {
            let shift = 7.0 * (index as f64 - (missed.min(3) - 1) as f64 / 2.0);
            let at = (column + shift, y);
            scene.marker(super::style::MarkerShape::Circle, at, 2.4, style.color.tint(0.6), true);
        }
    }
    scene.marker(style.marker, (end, y), 5.2, style.color, !middle.is_finite());
}

/// A cell that was cut short says nothing about what it would have reached.
fn counts(cell: &Cell) -> bool {
    cell.time_to_target().is_some()
}

fn misses_note(model: &Model<'_>, series: &Series<'_>, several: bool) -> Option<String> {
    let counted = series.cells.iter().filter(|cell| counts(cell)).count();
    let missed = series.cells.iter().filter(|cell| counts(cell) && time(cell).is_none()).count();
    let place = if several { format!(" ({})", model.name) } else { String::new() };
    (missed > 0).then(|| format!("{}{place} missed the target in {missed} of {counted}.", series.name))
}
