//! What lines look like: colours, dashes and markers, so chosen that each of the three tells series apart alone.
//!
//! Colours: M. Okabe and K. Ito, "Color Universal Design" (2008), without the yellow, which is too light on white; in
//! an order whose first four also differ in lightness.

use super::scene::Point;
use std::f64::consts::{FRAC_PI_2, PI};

/// An opaque colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Color(pub u8, pub u8, pub u8);

impl Color {
    /// The background.
    pub const WHITE: Self = Self(255, 255, 255);
    /// Titles and tick labels.
    pub const INK: Self = Self(34, 34, 34);
    /// Subtitles and captions.
    pub const MUTED: Self = Self(96, 96, 96);
    /// Axes.
    pub const AXIS: Self = Self(90, 90, 90);
    /// Grid lines.
    pub const GRID: Self = Self(230, 230, 230);
    /// Bands and fills behind everything.
    pub const PALE: Self = Self(246, 246, 246);

    /// The colour mixed with white: 0 is white, 1 the colour itself.
    #[must_use]
    pub fn tint(self, share: f64) -> Self {
        let mix = |channel: u8| (255.0 - share * (255.0 - f64::from(channel))).round() as u8;
        Self(mix(self.0), mix(self.1), mix(self.2))
    }

    /// The colour darkened for text: `share` of each channel is kept.
    #[must_use]
    pub fn shade(self, share: f64) -> Self {
        let mix = |channel: u8| (share * f64::from(channel)).round() as u8;
        Self(mix(self.0), mix(self.1), mix(self.2))
    }
}

/// Lengths of strokes and gaps in turn, in line widths of a 2-pixel line; empty is solid.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dash(pub &'static [f64]);

impl Dash {
    /// No gaps.
    pub const SOLID: Self = Self(&[]);
    /// Fine dots, for guides.
    pub const DOTTED: Self = Self(&[2.0, 3.0]);
}

/// The shape of a marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkerShape {
    /// A disc.
    Circle,
    /// An upright square.
    Square,
    /// A triangle that points up.
    TriangleUp,
    /// A square on its corner.
    Diamond,
    /// A triangle that points down.
    TriangleDown,
    /// A plus sign.
    Plus,
    /// A star of five points.
    Star,
    /// A regular hexagon.
    Hexagon,
}

impl MarkerShape {
    /// The corners of the shape with the area of a disc of this radius; `None` for the disc itself.
    #[must_use]
    pub fn corners(self, center: Point, radius: f64) -> Option<Vec<Point>> {
        let ring = |count: usize, start: f64, reach: &dyn Fn(usize) -> f64| {
            (0..count)
                .map(|corner| {
                    let angle = start + 2.0 * PI * corner as f64 / count as f64;
                    (center.0 + reach(corner) * angle.cos(), center.1 + reach(corner) * angle.sin())
                })
                .collect::<Vec<_>>()
        };
        let square = radius * (PI / 2.0).sqrt();
        let triangle = radius * (4.0 * PI / (3.0 * 3.0_f64.sqrt())).sqrt() * 0.94;
        Some(match self {
            Self::Circle => return None,
            Self::Square => ring(4, PI / 4.0, &|_| square),
            Self::Diamond => ring(4, 0.0, &|_| square * 1.05),
            Self::TriangleUp => ring(3, -FRAC_PI_2, &|_| triangle),
            Self::TriangleDown => ring(3, FRAC_PI_2, &|_| triangle),
            Self::Hexagon => ring(6, 0.0, &|_| radius * 1.1),
            Self::Star => ring(10, -FRAC_PI_2, &|corner| radius * if corner % 2 == 0 { 1.45 } else { 0.62 }),
            Self::Plus => {
                let (long, short) = (radius * 1.2, radius * 0.42);
                [
                    (-short, -long),
                    (short, -long),
                    (short, -short),
                    (long, -short),
                    (long, short),
                    (short, short),
                    (short, long),
                    (-short, long),
                    (-short, short),
                    (-long, short),
                    (-long, -short),
                    (-short, -short),
                ]
                .iter()
                .map(|(x, y)| (center.0 + x, center.1 + y))
                .collect()
            }
        })
    }
}

const COLORS: [Color; 8] = [
    Color(0, 114, 178),
    Color(213, 94, 0),
    Color(0, 158, 115),
    Color(160, 72, 128),
    Color(230, 159, 0),
    Color(70, 160, 215),
    Color(0, 0, 0),
    Color(128, 128, 128),
];

const DASHES: [Dash; 7] = [
    Dash::SOLID,
    Dash(&[7.0, 3.0]),
    Dash(&[2.5, 2.0]),
    Dash(&[8.0, 2.5, 2.0, 2.5]),
    Dash(&[12.0, 3.5]),
    Dash(&[4.5, 2.0, 1.5, 2.0, 1.5, 2.0]),
    Dash(&[1.2, 2.6]),
];

const MARKERS: [MarkerShape; 8] = [
    MarkerShape::Circle,
    MarkerShape::Square,
    MarkerShape::TriangleUp,
    MarkerShape::Diamond,
    MarkerShape::TriangleDown,
    MarkerShape::Plus,
    MarkerShape::Star,
    MarkerShape::Hexagon,
];

/// How one series is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SeriesStyle {
    /// Its colour.
    pub color: Color,
    /// Its dashes.
    pub dash: Dash,
    /// Its marker.
    pub marker: MarkerShape,
}

/// The style of the series with this index. The first 8 differ in colour, the first 7 in dashes and the first 8 in
/// markers; no two of the first 56 agree in all three.
#[must_use]
pub fn series_style(index: usize) -> SeriesStyle {
    SeriesStyle {
        color: COLORS[index % COLORS.len()],
        dash: DASHES[index % DASHES.len()],
        marker: MARKERS[(index + index / MARKERS.len()) % MARKERS.len()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn styles_differ_without_colour_too() {
        let styles: Vec<SeriesStyle> = (0..7).map(series_style).collect();
        for (index, one) in styles.iter().enumerate() {
            for other in &styles[index + 1..] {
                assert!(one.color != other.color && one.dash != other.dash && one.marker != other.marker);
            }
        }
        let many: Vec<SeriesStyle> = (0..56).map(series_style).collect();
        for (index, one) in many.iter().enumerate() {
            assert!(!many[index + 1..].contains(one), "style {index} comes twice");
        }
    }
}
