//! A figure of curves: one panel per model, every cell's trace faint behind the median of its series, a marker shape,
//! a dash and a colour for each series, × where a cell ended without finishing.
//!
//! A single panel names its lines where they end, if there is room for all names; otherwise, and for several panels,
//! a legend stands outside the frames.

use super::axes::{Quantity, Scale};
use super::curves::{self, Curve, End};
use super::figure::{self, Axis, Grid, Heading, Key, MARGIN, NORMAL, SMALL, TickLabels};
use super::font::{self, Weight};
use super::labels::{self, Obstacles, Request};
use super::scene::{Anchor, Point, Rect, Scene};
use super::style::{Color, Dash, SeriesStyle};

/// One series of a panel.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// How it is drawn.
    pub style: SeriesStyle,
    /// What its cells recorded.
    pub curves: Vec<Curve>,
    /// The median of them.
    pub median: Vec<(f64, f64)>,
    /// True if each value is drawn as holding until the next.
    pub steps: bool,
}

impl Line {
    /// The line of a series; `worst` is what a cell that diverged counts as.
    #[must_use]
    pub fn new(name: &str, style: SeriesStyle, curves: Vec<Curve>, worst: f64, steps: bool) -> Self {
        let median = curves::median_curve(&curves, worst);
        let steps = steps || !curves::share_grid(&curves);
        Self { name: name.to_owned(), style, curves, median, steps }
    }

    /// All recorded points of all its cells.
    pub fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.curves.iter().flat_map(|curve| curve.points.iter().copied())
    }
}

/// One panel.
#[derive(Debug, Clone)]
pub struct Panel {
    /// The model.
    pub title: String,
    /// Its series.
    pub lines: Vec<Line>,
    /// Its y axis.
    pub y: Scale,
}

/// A figure of curves.
#[derive(Debug, Clone)]
pub struct LineFigure {
    /// Title and subtitle.
    pub heading: Heading,
    /// The x axis, shared by all panels.
    pub x: Axis,
    /// Title of the y axes.
    pub y_title: String,
    /// The panels.
    pub panels: Vec<Panel>,
    /// What the caption says, a paragraph each.
    pub notes: Vec<String>,
}

impl LineFigure {
    /// Lays the figure out.
    #[must_use]
    pub fn scene(&self) -> Scene {
        let columns = self.panels.len().clamp(1, 3);
        let mut scene = Scene::new([820.0, 940.0, 1120.0][columns - 1], &self.heading.title);
        let top = figure::heading(&mut scene, &self.heading);
        let keys = self.keys();
        let single = self.panels.len() == 1;
        let top = if single { top } else { figure::key_rows(&mut scene, &keys, top) + 18.0 };
        let height = if single { 380.0 } else { 270.0 };
        let shared_y = self.panels.windows(2).all(|pair| pair[0].y == pair[1].y);
        let y_axis = |panel: &Panel| Axis { scale: panel.y, quantity: Quantity::Number, title: String::new() };
        let tick_width = |panel: &Panel| figure::tick_label_width(&y_axis(panel), height);
        let tick_labels = self.panels.iter().map(tick_width).fold(0.0, f64::max);
        let left = figure::left_room(tick_labels);
        let side = if single { figure::key_column_width(&keys, 230.0) + 24.0 } else { 0.0 };
        let gap = (if shared_y { 26.0 } else { tick_labels + 30.0 }, 62.0);
        let right = scene.width - MARGIN - side;
        let grid = Grid::new(self.panels.len(), columns, (left, right), top, height, gap);
        for (index, (panel, rect)) in self.panels.iter().zip(&grid.frames).enumerate() {
            if !single {
                let title = font::shorten(&panel.title, NORMAL, Weight::Bold, rect.width());
                let at = (rect.left, rect.top - 9.0);
                scene.text(&title, at, Anchor::Start, NORMAL, Weight::Bold, Color::INK);
            }
            let ticks = TickLabels { x: grid.is_lowest(index), y: !shared_y || grid.is_leftmost(index) };
            figure::frame(&mut scene, rect, &self.x, &y_axis(panel), ticks);
            self.draw(&mut scene, panel, rect);
        }
        if single && let (Some(panel), Some(rect)) = (self.panels.first(), grid.frames.first()) {
            let bounds = Rect::new(rect.left + 6.0, rect.top, scene.width - MARGIN, rect.bottom - 4.0);
            if !self.name_lines(&mut scene, panel, rect, &bounds) {
                figure::key_column(&mut scene, &keys, (rect.right + 20.0, rect.top + 12.0), side - 20.0);
            }
        }
        let below = figure::axis_titles(&mut scene, &grid, &self.x.title, &self.y_title, tick_labels);
        scene.height = figure::caption(&mut scene, &self.notes, below) + MARGIN * 0.6;
        scene
    }

    /// The legend: each series once.
    fn keys(&self) -> Vec<Key> {
        let mut keys: Vec<Key> = Vec::new();
        for line in self.panels.iter().flat_map(|panel| &panel.lines) {
            if !keys.iter().any(|key| key.name == line.name) {
                keys.push(Key { name: line.name.clone(), style: line.style, line: true });
            }
        }
        keys
    }

    /// The points of a curve in the figure. A logarithmic axis has no zero: what was recorded there enters at the left.
    fn route(&self, rect: &Rect, y: &Scale, points: &[(f64, f64)], steps: bool) -> Vec<Point> {
        let corners = if steps { curves::steps(points) } else { points.to_vec() };
        let start = match self.x.scale {
            Scale::Log { low, .. } => low,
            _ => f64::NEG_INFINITY,
        };
        corners.into_iter().map(|(x, value)| figure::at(rect, &self.x.scale, y, (x.max(start), value))).collect()
    }

    fn draw(&self, scene: &mut Scene, panel: &Panel, rect: &Rect) {
        // Lines may stand half their width over the frame, so that a curve along its edge is seen whole.
        let clip = rect.grown(1.0);
        let faint = if panel.lines.len() > 5 { 0.22 } else { 0.38 };
        for line in &panel.lines {
            if line.curves.len() > 1 || line.median.is_empty() {
                for curve in &line.curves {
                    let route = self.route(rect, &panel.y, &curve.points, line.steps);
                    scene.clipped_path(&route, &clip, line.style.color.tint(faint), 1.0, Dash::SOLID);
                }
            }
        }
        for line in &panel.lines {
            let route = self.route(rect, &panel.y, &line.median, line.steps);
            scene.clipped_path(&route, &clip, line.style.color, 2.0, line.style.dash);
        }
        for (index, line) in panel.lines.iter().enumerate() {
            for at in self.markers(panel, rect, line, index) {
                scene.marker(line.style.marker, at, 4.2, line.style.color, false);
            }
        }
        for line in &panel.lines {
            for curve in line.curves.iter().filter(|curve| curve.end != End::Holds) {
                let Some(last) = self.route(rect, &panel.y, &curve.points, false).pop() else { continue };
                // A cell that left the frame is marked where it left.
                let at = (last.0.clamp(rect.left, rect.right), last.1.clamp(rect.top, rect.bottom));
                scene.cross(at, 4.0, line.style.color);
            }
        }
        if panel.lines.iter().all(|line| line.points().next().is_none()) {
            let at = ((rect.left + rect.right) / 2.0, (rect.top + rect.bottom) / 2.0);
            scene.text("nothing recorded", at, Anchor::Middle, SMALL, Weight::Regular, Color::MUTED);
        }
    }

    /// Where the markers of a line stand: at all records if those are few, else at some about 70 pixels apart, shifted
    /// from series to series so that lines that coincide still show all their markers; always at the end.
    fn markers(&self, panel: &Panel, rect: &Rect, line: &Line, index: usize) -> Vec<Point> {
        let all = self.route(rect, &panel.y, &line.median, false);
        let Some(last) = all.last().copied() else { return Vec::new() };
        let visible = |point: &Point| rect.grown(0.5).contains(&Rect::new(point.0, point.1, point.0, point.1));
        let spacing = 70.0;
        let mut next = rect.left + 14.0 + spacing * (index as f64 * 0.37).fract();
        let mut chosen: Vec<Point> = Vec::new();
        for point in all.iter().filter(|point| visible(point)) {
            let spread = chosen.last().is_none_or(|before| (point.0 - before.0).hypot(point.1 - before.1) > 16.0);
            if all.len() <= 12 && spread || point.0 >= next && point.0 < last.0 - 24.0 {
                chosen.push(*point);
                next = next.max(point.0) + spacing;
            }
        }
        if visible(&last) {
            chosen.retain(|point| (point.0 - last.0).hypot(point.1 - last.1) > 12.0);
            chosen.push(last);
        }
        chosen
    }

    /// Writes the name of each line beside its end; false, with nothing written, if not all find a place.
    fn name_lines(&self, scene: &mut Scene, panel: &Panel, rect: &Rect, bounds: &Rect) -> bool {
        let mut obstacles = Obstacles::default();
        let mut requests = Vec::new();
        for (index, line) in panel.lines.iter().enumerate() {
            let route = self.route(rect, &panel.y, &line.median, line.steps);
            // A line that is not drawn, or ends outside the frame, has no end to stand beside.
            let Some(anchor) = route.last().copied() else { return false };
            if !rect.grown(1.0).contains(&Rect::new(anchor.0, anchor.1, anchor.0, anchor.1)) {
                return false;
            }
            let width = font::width(&line.name, SMALL, Weight::Bold);
            requests.push(Request { anchor, width, height: SMALL * 1.1 });
            obstacles.lines.push(route);
            let marker = |at: Point| Rect::new(at.0, at.1, at.0, at.1).grown(5.0);
            obstacles.boxes.extend(self.markers(panel, rect, line, index).into_iter().map(marker));
            for curve in &line.curves {
                let trace = self.route(rect, &panel.y, &curve.points, line.steps);
                if curve.end != End::Holds {
                    obstacles.boxes.extend(trace.last().copied().map(marker));
                }
                // Traces beyond the median's end reach into places that look free.
                obstacles.lines.push(trace);
            }
        }
        let Some(places) = labels::place(&requests, &obstacles, bounds) else { return false };
        for (line, place) in panel.lines.iter().zip(places) {
            let at = (place.left, place.bottom - SMALL * 0.22);
            scene.text(&line.name, at, Anchor::Start, SMALL, Weight::Bold, line.style.color.shade(0.85));
        }
        true
    }
}
