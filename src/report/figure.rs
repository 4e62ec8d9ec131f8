//! The parts all figures share: heading, legend, frames with axes, caption, and how panels are laid out.

use super::axes::{Quantity, Scale};
use super::font::{self, Weight};
use super::scene::{Anchor, Point, Rect, Scene};
use super::style::{Color, Dash, SeriesStyle};

/// Distance of everything from the border of the figure.
pub const MARGIN: f64 = 18.0;
/// Size of tick labels and legends.
pub const SMALL: f64 = 12.0;
/// Size of the titles of axes and panels.
pub const NORMAL: f64 = 13.0;
/// Size of captions.
pub const CAPTION: f64 = 11.5;
const TITLE: f64 = 16.5;
/// Length of the piece of line in a legend.
const SAMPLE: f64 = 36.0;

/// Title and subtitle of a figure.
#[derive(Debug, Clone, Default)]
pub struct Heading {
    /// The question, or what is shown.
    pub title: String,
    /// The dataset, and whatever else holds for all panels.
    pub subtitle: String,
}

/// An axis: its scale, what its numbers are, and its title with the unit.
#[derive(Debug, Clone)]
pub struct Axis {
    /// How values are laid along it.
    pub scale: Scale,
    /// How ticks are written.
    pub quantity: Quantity,
    /// Its title.
    pub title: String,
}

/// An entry of a legend.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// The series' name.
    pub name: String,
    /// How it is drawn.
    pub style: SeriesStyle,
    /// Whether lines are drawn in this figure, or markers alone.
    pub line: bool,
}

/// Writes title and subtitle; returns the y below them.
pub fn heading(scene: &mut Scene, heading: &Heading) -> f64 {
    let limit = scene.width - 2.0 * MARGIN;
    let mut y = MARGIN;
    for line in font::wrap_evenly(&heading.title, TITLE, Weight::Bold, limit) {
        y += TITLE * 1.1;
        scene.text(&line, (MARGIN, y), Anchor::Start, TITLE, Weight::Bold, Color::INK);
        y += TITLE * 0.25;
    }
    for line in font::wrap(&heading.subtitle, NORMAL, Weight::Regular, limit) {
        y += NORMAL * 1.25;
        scene.text(&line, (MARGIN, y), Anchor::Start, NORMAL, Weight::Regular, Color::MUTED);
    }
    y + 14.0
}

/// Writes a caption of one paragraph per note from `top` on; returns the y below it.
pub fn caption(scene: &mut Scene, notes: &[String], top: f64) -> f64 {
    let limit = scene.width - 2.0 * MARGIN;
    let mut y = top;
    for note in notes {
        for line in font::wrap(note, CAPTION, Weight::Regular, limit) {
            y += CAPTION * 1.4;
            scene.text(&line, (MARGIN, y), Anchor::Start, CAPTION, Weight::Regular, Color::MUTED);
        }
    }
    y + if notes.is_empty() { 0.0 } else { CAPTION * 0.5 }
}

/// The width of what stands before a key's name.
fn sample_width(key: &Key) -> f64 {
    if key.line { SAMPLE } else { 14.0 }
}

fn key_width(key: &Key) -> f64 {
    sample_width(key) + 7.0 + font::width(&key.name, SMALL, Weight::Regular)
}

/// The key with its name shortened to a width of `limit` for all of it.
fn fitted(key: &Key, limit: f64) -> Key {
    let name = font::shorten(&key.name, SMALL, Weight::Regular, limit - sample_width(key) - 7.0);
    Key { name, ..key.clone() }
}

fn draw_key(scene: &mut Scene, key: &Key, (x, y): Point) {
    let sample = sample_width(key);
    if key.line {
        scene.path(vec![(x, y), (x + sample, y)], key.style.color, 2.0, key.style.dash);
    }
    scene.marker(key.style.marker, (x + sample / 2.0, y), 4.2, key.style.color, false);
    let at = (x + sample + 7.0, y + SMALL * 0.36);
    scene.text(&key.name, at, Anchor::Start, SMALL, Weight::Regular, Color::INK);
}

/// Draws a legend in rows from `top` on; returns the y below it.
pub fn key_rows(scene: &mut Scene, keys: &[Key], top: f64) -> f64 {
    const ROW: f64 = 21.0;
    let limit = scene.width - MARGIN;
    let (mut x, mut y) = (MARGIN, top + ROW / 2.0);
    for key in keys {
        let key = fitted(key, limit - MARGIN);
        let width = key_width(&key);
        if x > MARGIN && x + width > limit {
            (x, y) = (MARGIN, y + ROW);
        }
        draw_key(scene, &key, (x, y));
        x += width + 24.0;
    }
    if keys.is_empty() { top } else { y + ROW / 2.0 + 6.0 }
}

/// Draws a legend as a column with its first row at `at`, no wider than `limit`.
pub fn key_column(scene: &mut Scene, keys: &[Key], at: Point, limit: f64) {
    for (row, key) in keys.iter().enumerate() {
        draw_key(scene, &fitted(key, limit), (at.0, at.1 + 22.0 * row as f64));
    }
}

/// The width of a legend drawn as a column, at most `limit`.
#[must_use]
pub fn key_column_width(keys: &[Key], limit: f64) -> f64 {
    // Half a pixel more, so that rounding shortens no name.
    (keys.iter().map(key_width).fold(0.0, f64::max) + 0.5).min(limit)
}

/// Where a value pair lies within a frame.
#[must_use]
pub fn at(frame: &Rect, x: &Scale, y: &Scale, (value_x, value_y): (f64, f64)) -> Point {
    // Far outside is as good as infinitely far, and keeps the arithmetic of clipping finite.
    let place = |scale: &Scale, value: f64| scale.place(value).clamp(-10.0, 11.0);
    (frame.left + place(x, value_x) * frame.width(), frame.bottom - place(y, value_y) * frame.height())
}

/// Which tick labels a frame carries; neighbours in a row or column share theirs.
#[derive(Debug, Clone, Copy)]
pub struct TickLabels {
    /// Below the frame.
    pub x: bool,
    /// To the left of it.
    pub y: bool,
}

/// Draws grid, axes and ticks of a frame.
pub fn frame(scene: &mut Scene, rect: &Rect, x: &Axis, y: &Axis, labels: TickLabels) {
    let mut free_from = f64::NEG_INFINITY;
    for tick in x.scale.ticks(x.quantity, x_label_count(rect)) {
        let place = rect.left + x.scale.place(tick.value) * rect.width();
        let major = !tick.label.is_empty();
        if major {
            scene.line((place, rect.top), (place, rect.bottom), Color::GRID, 1.0);
        }
        let length = if major { 5.0 } else { 3.0 };
        scene.line((place, rect.bottom), (place, rect.bottom + length), Color::AXIS, 1.0);
        let half = font::width(&tick.label, SMALL, Weight::Regular) / 2.0;
        if labels.x && major && place - half >= free_from {
            let at = (place, rect.bottom + 8.0 + SMALL);
            scene.text(&tick.label, at, Anchor::Middle, SMALL, Weight::Regular, Color::INK);
            free_from = place + half + 6.0;
        }
    }
    for tick in y.scale.ticks(y.quantity, y_label_count(rect)) {
        let place = rect.bottom - y.scale.place(tick.value) * rect.height();
        let major = !tick.label.is_empty();
        if major {
            scene.line((rect.left, place), (rect.right, place), Color::GRID, 1.0);
        }
        scene.line((rect.left - if major { 5.0 } else { 3.0 }, place), (rect.left, place), Color::AXIS, 1.0);
        if labels.y && major {
            let at = (rect.left - 9.0, place + SMALL * 0.36);
            scene.text(&tick.label, at, Anchor::End, SMALL, Weight::Regular, Color::INK);
        }
    }
    let corners = vec![(rect.left, rect.top), (rect.left, rect.bottom), (rect.right, rect.bottom)];
    scene.path(corners, Color::AXIS, 1.2, Dash::SOLID);
}

/// The width of the widest tick label of a y axis on a frame of this height.
#[must_use]
pub fn tick_label_width(axis: &Axis, height: f64) -> f64 {
    let rect = Rect::new(0.0, 0.0, 1.0, height);
    let ticks = axis.scale.ticks(axis.quantity, y_label_count(&rect));
    ticks.iter().map(|tick| font::width(&tick.label, SMALL, Weight::Regular)).fold(0.0, f64::max)
}

fn x_label_count(rect: &Rect) -> usize {
    (rect.width() / 58.0) as usize
}

fn y_label_count(rect: &Rect) -> usize {
    (rect.height() / 38.0) as usize
}

/// Panels in a grid, row by row.
#[derive(Debug, Clone)]
pub struct Grid {
    /// The inside of each panel.
    pub frames: Vec<Rect>,
    /// Number of columns.
    pub columns: usize,
}

impl Grid {
    /// Panels of equal size between `left` and `right` from `top` on. `gap` is the room between neighbours: to the right
    /// (for their tick labels) and below (for tick labels and the next row's panel titles).
    #[must_use]
    pub fn new(
        count: usize,
        columns: usize,
        (left, right): (f64, f64),
        top: f64,
        height: f64,
        gap: (f64, f64),
    ) -> Self {
        let columns = columns.clamp(1, count.max(1));
        let width = (right - left - gap.0 * (columns - 1) as f64) / columns as f64;
        let frames = (0..count)
            .map(|index| {
                let x = left + (index % columns) as f64 * (width + gap.0);
                let y = top + (index / columns) as f64 * (height + gap.1);
                Rect::new(x, y, x + width, y + height)
            })
            .collect();
        Self { frames, columns }
    }

    /// True for a panel with none below it.
    #[must_use]
    pub fn is_lowest(&self, index: usize) -> bool {
        index + self.columns >= self.frames.len()
    }

    /// True for a panel with none to its left.
    #[must_use]
    pub fn is_leftmost(&self, index: usize) -> bool {
        index.is_multiple_of(self.columns)
    }

    /// The box around all panels.
    #[must_use]
    pub fn bounds(&self) -> Rect {
        let start = Rect::new(f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY);
        self.frames.iter().fold(start, |all, frame| {
            Rect::new(
                all.left.min(frame.left),
                all.top.min(frame.top),
                all.right.max(frame.right),
                all.bottom.max(frame.bottom),
            )
        })
    }
}

/// Writes the titles of both axes around a grid of panels; returns the y below the x title.
pub fn axis_titles(scene: &mut Scene, grid: &Grid, x: &str, y: &str, tick_labels: f64) -> f64 {
    let bounds = grid.bounds();
    let below = bounds.bottom + 8.0 + SMALL + 10.0 + NORMAL;
    let center = (bounds.left + bounds.right) / 2.0;
    scene.text(x, (center, below), Anchor::Middle, NORMAL, Weight::Regular, Color::INK);
    if !y.is_empty() {
        let at = (bounds.left - 9.0 - tick_labels - 10.0, (bounds.top + bounds.bottom) / 2.0);
        scene.text_upwards(y, at, NORMAL, Color::INK);
    }
    below + NORMAL * 0.6
}

/// The room to the left of a grid for the title and the tick labels of its y axis.
#[must_use]
pub fn left_room(tick_labels: f64) -> f64 {
    MARGIN + NORMAL + 10.0 + tick_labels + 9.0
}
