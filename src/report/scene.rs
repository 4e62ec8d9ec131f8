//! A figure before it meets a file format: a list of marks in figure coordinates (pixels at normal size, y downwards).
//!
//! Layout works on a [`Scene`] alone, so what is drawn can be examined (do two texts overlap? does one leave the
//! canvas?) without looking at pixels, and SVG and PNG show the same thing because both are drawn from it.

use super::font::{self, Weight};
use super::style::{Color, Dash, MarkerShape};

/// A position: x to the right, y downwards.
pub type Point = (f64, f64);

/// An upright rectangle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rect {
    /// Smallest x.
    pub left: f64,
    /// Smallest y.
    pub top: f64,
    /// Largest x.
    pub right: f64,
    /// Largest y.
    pub bottom: f64,
}

impl Rect {
    /// The rectangle with these corners.
    #[must_use]
    pub fn new(left: f64, top: f64, right: f64, bottom: f64) -> Self {
        Self { left, top, right, bottom }
    }

    /// Width.
    #[must_use]
    pub fn width(&self) -> f64 {
        self.right - self.left
    }

    /// Height.
    #[must_use]
    pub fn height(&self) -> f64 {
        self.bottom - self.top
    }

    /// True if the two share more than an edge.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.left < other.right && other.left < self.right && self.top < other.bottom && other.top < self.bottom
    }

    /// True if `other` lies within.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.left <= other.left && other.right <= self.right && self.top <= other.top && other.bottom <= self.bottom
    }

    /// The rectangle with `margin` added on all sides.
    #[must_use]
    pub fn grown(&self, margin: f64) -> Self {
        Self::new(self.left - margin, self.top - margin, self.right + margin, self.bottom + margin)
    }

    /// The part of the segment from `a` to `b` that lies within (Liang and Barsky, ACM TOG 3(1), 1984).
    #[must_use]
    pub fn clip(&self, a: Point, b: Point) -> Option<(Point, Point)> {
        let (dx, dy) = (b.0 - a.0, b.1 - a.1);
        let (mut enter, mut leave) = (0.0_f64, 1.0_f64);
        for (delta, distance) in
            [(-dx, a.0 - self.left), (dx, self.right - a.0), (-dy, a.1 - self.top), (dy, self.bottom - a.1)]
        {
            if delta == 0.0 {
                if distance < 0.0 {
                    return None;
                }
            } else if delta < 0.0 {
                enter = enter.max(distance / delta);
            } else {
                leave = leave.min(distance / delta);
            }
        }
        (enter <= leave).then_some(((a.0 + enter * dx, a.1 + enter * dy), (a.0 + leave * dx, a.1 + leave * dy)))
    }
}

/// Which point of a text stands at its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// Its left end.
    Start,
    /// Its middle.
    Middle,
    /// Its right end.
    End,
}

/// One line of text.
#[derive(Debug, Clone, PartialEq)]
pub struct Text {
    /// What it says.
    pub text: String,
    /// Where its baseline meets its anchor.
    pub at: Point,
    /// Which of its points stands there.
    pub anchor: Anchor,
    /// The em in pixels.
    pub size: f64,
    /// Regular or bold.
    pub weight: Weight,
    /// Its colour.
    pub color: Color,
    /// True for text that runs upwards (the title of a y axis).
    pub upwards: bool,
}

impl Text {
    /// The box around the letters.
    #[must_use]
    pub fn bounds(&self) -> Rect {
        let width = font::width(&self.text, self.size, self.weight);
        let before = match self.anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => width / 2.0,
            Anchor::End => width,
        };
        let (above, below) = (font::ASCENT * self.size, font::DESCENT * self.size);
        let (x, y) = self.at;
        if self.upwards {
            Rect::new(x - above, y + before - width, x + below, y + before)
        } else {
            Rect::new(x - before, y - above, x - before + width, y + below)
        }
    }
}

/// One thing to draw.
#[derive(Debug, Clone, PartialEq)]
pub enum Mark {
    /// A line through points.
    Path {
        /// The points, in order.
        points: Vec<Point>,
        /// Its colour.
        color: Color,
        /// Its width.
        width: f64,
        /// Its dashes.
        dash: Dash,
    },
    /// A filled area.
    Polygon {
        /// Its corners, in order.
        points: Vec<Point>,
        /// Its colour.
        color: Color,
    },
    /// A filled disc.
    Disc {
        /// Its centre.
        center: Point,
        /// Its radius.
        radius: f64,
        /// Its colour.
        color: Color,
    },
    /// A line of text.
    Text(Text),
}

/// All marks of a figure, in drawing order.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// Width in pixels at normal size.
    pub width: f64,
    /// Height in pixels at normal size.
    pub height: f64,
    /// What the figure is, for the SVG's `<title>`.
    pub title: String,
    /// The marks, first drawn first.
    pub marks: Vec<Mark>,
}

impl Scene {
    /// An empty figure; the height is set when the layout is done.
    #[must_use]
    pub fn new(width: f64, title: &str) -> Self {
        Self { width, height: 0.0, title: title.to_owned(), marks: Vec::new() }
    }

    /// Adds a line.
    pub fn path(&mut self, points: Vec<Point>, color: Color, width: f64, dash: Dash) {
        if points.len() > 1 {
            self.marks.push(Mark::Path { points, color, width, dash });
        }
    }

    /// Adds a line as far as it lies within `frame`.
    pub fn clipped_path(&mut self, points: &[Point], frame: &Rect, color: Color, width: f64, dash: Dash) {
        for piece in clip_path(points, frame) {
            self.path(piece, color, width, dash);
        }
    }

    /// Adds a straight line.
    pub fn line(&mut self, from: Point, to: Point, color: Color, width: f64) {
        self.path(vec![from, to], color, width, Dash::SOLID);
    }

    /// Adds a filled rectangle.
    pub fn rect(&mut self, rect: &Rect, color: Color) {
        let points =
            vec![(rect.left, rect.top), (rect.right, rect.top), (rect.right, rect.bottom), (rect.left, rect.bottom)];
        self.marks.push(Mark::Polygon { points, color });
    }

    /// Adds a marker with a thin light rim, so that it stands out from lines below it; `hollow` leaves its inside light.
    pub fn marker(&mut self, shape: MarkerShape, at: Point, radius: f64, color: Color, hollow: bool) {
        self.shape(shape, at, radius + 1.2, Color::WHITE);
        self.shape(shape, at, radius, color);
        if hollow {
            self.shape(shape, at, radius - 1.5, Color::WHITE);
        }
    }

    fn shape(&mut self, shape: MarkerShape, center: Point, radius: f64, color: Color) {
        match shape.corners(center, radius) {
            None => self.marks.push(Mark::Disc { center, radius, color }),
            Some(points) => self.marks.push(Mark::Polygon { points, color }),
        }
    }

    /// Adds a ×, the sign of a cell that did not finish.
    pub fn cross(&mut self, at: Point, radius: f64, color: Color) {
        for (rim, tint) in [(2.4, Color::WHITE), (0.0, color)] {
            for slope in [1.0, -1.0] {
                let reach = radius + rim / 4.0;
                let from = (at.0 - reach, at.1 - slope * reach);
                let to = (at.0 + reach, at.1 + slope * reach);
                self.line(from, to, tint, 1.8 + rim);
            }
        }
    }

    /// Adds a line of upright text.
    pub fn text(&mut self, text: &str, at: Point, anchor: Anchor, size: f64, weight: Weight, color: Color) {
        if !text.is_empty() {
            let text = text.to_owned();
            self.marks.push(Mark::Text(Text { text, at, anchor, size, weight, color, upwards: false }));
        }
    }

    /// Adds a line of text that runs upwards, centred on `at`.
    pub fn text_upwards(&mut self, text: &str, at: Point, size: f64, color: Color) {
        let (text, weight) = (text.to_owned(), Weight::Regular);
        self.marks.push(Mark::Text(Text { text, at, anchor: Anchor::Middle, size, weight, color, upwards: true }));
    }

    /// Every line of text with the box around it.
    pub fn texts(&self) -> impl Iterator<Item = (&str, Rect)> {
        self.marks.iter().filter_map(|mark| match mark {
            Mark::Text(text) => Some((text.text.as_str(), text.bounds())),
            _ => None,
        })
    }
}

/// The pieces of a line that lie within `frame`.
#[must_use]
pub fn clip_path(points: &[Point], frame: &Rect) -> Vec<Vec<Point>> {
    let mut pieces: Vec<Vec<Point>> = Vec::new();
    for pair in points.windows(2) {
        let Some((from, to)) = frame.clip(pair[0], pair[1]) else { continue };
        match pieces.last_mut() {
            Some(piece) if piece.last() == Some(&from) => piece.push(to),
            _ => pieces.push(vec![from, to]),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_where_it_leaves_the_frame_and_goes_on_where_it_returns() {
        let frame = Rect::new(0.0, 0.0, 10.0, 10.0);
        let pieces = clip_path(&[(-5.0, 5.0), (5.0, 5.0), (5.0, 20.0), (8.0, 20.0), (8.0, 2.0)], &frame);
        assert_eq!(pieces, vec![vec![(0.0, 5.0), (5.0, 5.0), (5.0, 10.0)], vec![(8.0, 10.0), (8.0, 2.0)]]);
    }

    #[test]
    fn text_that_runs_upwards_is_as_tall_as_the_same_text_is_wide() {
        let text = |upwards| Text {
            text: "Test accuracy".into(),
            at: (0.0, 0.0),
            anchor: Anchor::Middle,
            size: 13.0,
            weight: Weight::Regular,
            color: Color::WHITE,
            upwards,
        };
        let (flat, tall) = (text(false).bounds(), text(true).bounds());
        assert!((flat.width() - tall.height()).abs() < 1e-9 && (flat.height() - tall.width()).abs() < 1e-9);
    }
}
