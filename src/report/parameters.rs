//! Figure: how good a fit is (see [`Measure`]) versus size, with the Pareto front: the cells which no other beats with the same size or
//! a smaller one. A size is the number of parameters in all, of those active for one row, or the bytes that are resident
//! while training: parameters and optimizer state.

use super::axes::{Quantity, Scale, range};
use super::curves::median;
use super::figure::{self, Axis, Grid, Heading, Key, MARGIN, SMALL, TickLabels};
use super::font::{self, Weight};
use super::groups::{self, Dataset};
use super::labels::{self, Obstacles, Request};
use super::measure::Measure;
use super::quality_time::capitalized;
use super::runs::{CellResult, Status};
use super::scene::{Anchor, Point, Rect, Scene};
use super::style::{Color, Dash, SeriesStyle};
use super::units;

/// What quality is bought with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Parameters in all.
    Total,
    /// Parameters active for one row.
    Active,
    /// Bytes of parameters and optimizer state.
    Resident,
}

impl Size {
    /// How the figure's name ends.
    #[must_use]
    pub fn ending(self) -> &'static str {
        match self {
            Self::Total => "parameters",
            Self::Active => "active",
            Self::Resident => "resident",
        }
    }

    /// It in words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Total => "parameters",
            Self::Active => "parameters active for one row",
            Self::Resident => "resident bytes",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Total => "Parameters (logarithmic)",
            Self::Active => "Parameters active for one row (logarithmic)",
            Self::Resident => "Bytes of parameters and optimizer state (logarithmic)",
        }
    }

    fn of(self, result: &CellResult) -> Option<f64> {
        let count = match self {
            Self::Total => result.parameters_total?,
            Self::Active => result.parameters_active?,
            Self::Resident => result.parameter_bytes?.saturating_add(result.optimizer_state_bytes?),
        };
        Some(count as f64)
    }
}

/// The sizes that tell something of their own: parameters in all, those active where any model has others, resident bytes
/// where they are recorded.
#[must_use]
pub fn sizes(dataset: &Dataset<'_>) -> Vec<Size> {
    let differs =
        |result: &CellResult| result.parameters_active.is_some_and(|own| Some(own) != result.parameters_total);
    let mut sizes = vec![Size::Total];
    if dataset.cells().any(|cell| differs(&cell.result)) {
        sizes.push(Size::Active);
    }
    if dataset.cells().any(|cell| Size::Resident.of(&cell.result).is_some()) {
        sizes.push(Size::Resident);
    }
    sizes
}

/// One optimizer on one model.
#[derive(Debug, Clone)]
struct Dot {
    model: String,
    series: String,
    style: SeriesStyle,
    size: f64,
    nonzero: Option<f64>,
    value: f64,
    /// Smallest and largest value over seeds.
    spread: (f64, f64),
}

/// Distance between markers side by side.
const DODGE: f64 = 14.0;

/// The figure of one dataset.
///
/// # Errors
/// A sentence that says what is missing.
pub fn draw(heading: &Heading, dataset: &Dataset<'_>, size: Size, measure: &Measure) -> Result<Scene, String> {
    let dots = dots(dataset, size, measure);
    let Some((lowest, highest)) = range(dots.iter().flat_map(|dot| [dot.spread.0, dot.spread.1])) else {
        return Err(format!("no finished cell has both a {} and a size", measure.column.replace('_', " ")));
    };
    let counts = dots.iter().flat_map(|dot| [Some(dot.size), dot.nonzero]).flatten();
    let Some(scale) = Scale::log_around(counts, 0.12) else {
        return Err("no finished cell has parameters to count".to_owned());
    };
    let least = measure.least_span([lowest, highest].into_iter());
    let lacking = (least - (highest - lowest)).max(0.0) / 2.0;
    let margin = 0.1 * (highest - lowest).max(least);
    let y_scale = Scale::Linear { low: lowest - lacking - margin, high: highest + lacking + margin };

    let mut scene = Scene::new(820.0, &heading.title);
    let top = figure::heading(&mut scene, heading);
    let mut keys: Vec<Key> = Vec::new();
    for dot in &dots {
        if !keys.iter().any(|key| key.name == dot.series) {
            keys.push(Key { name: dot.series.clone(), style: dot.style, line: false });
        }
    }
    let y = Axis { scale: y_scale, quantity: Quantity::Number, title: String::new() };
    let x = Axis { scale, quantity: Quantity::Number, title: size.title().to_owned() };
    let height = 380.0;
    let tick_labels = figure::tick_label_width(&y, height);
    let front_width = 21.0 + font::width("Pareto front", SMALL, Weight::Regular);
    let side = figure::key_column_width(&keys, 230.0).max(front_width) + 26.0;
    let ends = (figure::left_room(tick_labels), scene.width - MARGIN - side);
    let grid = Grid::new(1, 1, ends, top, height, (0.0, 0.0));
    let rect = grid.frames[0];
    figure::frame(&mut scene, &rect, &x, &y, TickLabels { x: true, y: true });

    // Of bytes, whose sizes differ little from one another, a shift would tell of sizes that are none.
    let dodge = if size == Size::Resident { 0.0 } else { DODGE };
    let places = places(&dots, &rect, (&scale, &y_scale), dodge);
    let front = front(&dots, measure);
    let mut obstacles = Obstacles::default();
    let mut route: Vec<Point> = Vec::new();
    for index in &front {
        let place = places[*index];
        if let Some(before) = route.last().copied() {
            route.push((place.0, before.1));
        }
        route.push(place);
    }
    if let Some(end) = route.last().copied() {
        route.push((rect.right, end.1));
    }
    scene.path(route.clone(), Color::AXIS, 1.4, Dash(&[6.0, 4.0]));
    obstacles.lines.push(route.clone());
    for (dot, at) in dots.iter().zip(&places) {
        let height_of = |value: f64| figure::at(&rect, &scale, &y_scale, (dot.size, value)).1;
        let bar = [(at.0, height_of(dot.spread.0)), (at.0, height_of(dot.spread.1))];
        if dot.spread.0 < dot.spread.1 {
            scene.line(bar[0], bar[1], dot.style.color.tint(0.6), 1.4);
        }
        obstacles.lines.push(bar.to_vec());
        obstacles.boxes.push(Rect::new(at.0, at.1, at.0, at.1).grown(6.0));
        if let Some(nonzero) = dot.nonzero {
            let hollow = figure::at(&rect, &scale, &y_scale, (nonzero, dot.value));
            scene.line(hollow, *at, dot.style.color.tint(0.6), 1.2);
            scene.marker(dot.style.marker, hollow, 4.0, dot.style.color, true);
            obstacles.boxes.push(Rect::new(hollow.0, hollow.1, at.0, at.1).grown(6.0));
        }
    }
    for (dot, at) in dots.iter().zip(&places) {
        scene.marker(dot.style.marker, *at, 5.2, dot.style.color, false);
    }
    let mut notes = name_models(&mut scene, &dots, &places, &front, &obstacles, (&rect, size));
    figure::key_column(&mut scene, &keys, (rect.right + 22.0, rect.top + 12.0), side - 22.0);
    let key_end = (rect.right + 22.0, rect.top + 12.0 + 22.0 * keys.len() as f64);
    scene.path(vec![(key_end.0, key_end.1), (key_end.0 + 14.0, key_end.1)], Color::AXIS, 1.4, Dash(&[4.0, 3.0]));
    let at = (key_end.0 + 21.0, key_end.1 + SMALL * 0.36);
    scene.text("Pareto front", at, Anchor::Start, SMALL, Weight::Regular, Color::INK);

    let below = figure::axis_titles(&mut scene, &grid, &x.title, measure.title, tick_labels);
    let replicates = capitalized(&groups::replicates(&dataset.models));
    let crowded = dots.iter().enumerate().any(|(index, dot)| dots[..index].iter().any(|other| other.size == dot.size));
    let beside = if crowded && dodge > 0.0 { " Markers side by side are of equal size." } else { "" };
    notes.insert(0, format!("{replicates}; bars: smallest and largest.{beside}"));
    if dots.iter().any(|dot| dot.nonzero.is_some()) {
        notes.push("Hollow markers count only parameters that are not zero.".to_owned());
    }
    notes.extend(groups::endings_of_figure(&dataset.models));
    scene.height = figure::caption(&mut scene, &notes, below) + MARGIN * 0.6;
    Ok(scene)
}

/// The medians over cells that ended with an answer: finished ones and those that ran out of time.
fn dots(dataset: &Dataset<'_>, size: Size, measure: &Measure) -> Vec<Dot> {
    let mut dots = Vec::new();
    for model in &dataset.models {
        for series in &model.series {
            let answered = || {
                let ended = |status| matches!(status, Status::Finished | Status::TimedOut);
                series.cells.iter().map(|cell| &cell.result).filter(move |result| ended(result.status))
            };
            let values = || answered().filter_map(measure.value);
            let own = median(answered().filter_map(|result| size.of(result)));
            let (Some(value), Some(spread), Some(own)) = (median(values()), range(values()), own) else {
                continue;
            };
            let nonzero = median(answered().filter_map(|result| result.parameters_nonzero).map(|count| count as f64));
            dots.push(Dot {
                model: model.name.clone(),
                series: series.name.clone(),
                style: series.style,
                size: own,
                // A few zeros are chance; many are the point of the method.
                nonzero: nonzero.filter(|nonzero| size == Size::Total && *nonzero >= 1.0 && *nonzero < 0.95 * own),
                value,
                spread,
            });
        }
    }
    dots
}

/// Where the markers stand: those with equally many parameters side by side.
fn places(dots: &[Dot], rect: &Rect, (x, y): (&Scale, &Scale), dodge: f64) -> Vec<Point> {
    dots.iter()
        .enumerate()
        .map(|(index, dot)| {
            let equal = |other: &&Dot| other.size == dot.size;
            let before = dots[..index].iter().filter(equal).count() as f64;
            let all = dots.iter().filter(equal).count() as f64;
            let at = figure::at(rect, x, y, (dot.size, dot.value));
            let step = dodge.min(90.0 / all);
            (at.0 + step * (before - (all - 1.0) / 2.0), at.1)
        })
        .collect()
}

/// The indices of the Pareto front, with increasing numbers of parameters.
fn front(dots: &[Dot], measure: &Measure) -> Vec<usize> {
    let mut order: Vec<usize> = (0..dots.len()).collect();
    order.sort_by(|one, other| {
        let (one, other) = (&dots[*one], &dots[*other]);
        one.size.total_cmp(&other.size).then(measure.upwards(other.value).total_cmp(&measure.upwards(one.value)))
    });
    let mut best = f64::NEG_INFINITY;
    order.retain(|index| {
        let value = measure.upwards(dots[*index].value);
        let better = value > best;
        best = best.max(value);
        better
    });
    order
}

/// Writes each model's name and number of parameters near its best marker, or else near another of its markers; returns
/// notes for names without a place.
fn name_models(
    scene: &mut Scene,
    dots: &[Dot],
    places: &[Point],
    front: &[usize],
    obstacles: &Obstacles,
    (rect, size): (&Rect, Size),
) -> Vec<String> {
    let mut named: Vec<(&str, usize)> = Vec::new();
    let ranked = front.iter().copied().chain(0..dots.len());
    for index in ranked {
        if !named.iter().any(|(model, _)| *model == dots[index].model) {
            named.push((&dots[index].model, index));
        }
    }
    let mut taken = obstacles.clone();
    let mut unplaced = Vec::new();
    for (model, index) in named {
        let on_front = if front.contains(&index) { Weight::Bold } else { Weight::Regular };
        let label = match size {
            Size::Total | Size::Active => format!("{model} · {}", units::count(dots[index].size as u64)),
            // Every optimizer of a model has a size of its own.
            Size::Resident => model.to_owned(),
        };
        let others = (0..dots.len()).filter(|&other| other != index && dots[other].model == model);
        let place = std::iter::once(index).chain(others).find_map(|marker| {
            let (width, height) = (font::width(&label, SMALL, on_front), SMALL * 1.1);
            labels::place(&[Request { anchor: places[marker], width, height }], &taken, &rect.grown(-2.0))
        });
        match place {
            Some(found) => {
                let place = found[0];
                let at = (place.left, place.bottom - SMALL * 0.22);
                scene.text(&label, at, Anchor::Start, SMALL, on_front, Color::INK);
                taken.boxes.push(place);
            }
            None => unplaced.push(label),
        }
    }
    if unplaced.is_empty() {
        Vec::new()
    } else {
        vec![format!("Not labelled for lack of room: {}.", unplaced.join("; "))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::measure::ACCURACY;
    use crate::report::style::series_style;

    #[test]
    fn the_front_holds_only_what_nothing_smaller_or_equal_beats() {
        let dot = |size: f64, value: f64| Dot {
            model: String::new(),
            series: String::new(),
            style: series_style(0),
            size,
            nonzero: None,
            value,
            spread: (value, value),
        };
        let dots = [dot(57.0, 0.66), dot(29.0, 0.64), dot(29.0, 0.63), dot(100.0, 0.65), dot(435.0, 0.67)];
        let [rising, falling] = [true, false].map(|rises| Measure { rises, ..ACCURACY });
        assert_eq!(front(&dots, &rising), [1, 0, 4]);
        assert_eq!(front(&dots, &falling), [2]);
    }
}
