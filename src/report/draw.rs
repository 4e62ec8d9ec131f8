//! From a [`Scene`] to SVG and PNG: one drawing function for every plotters backend.
//!
//! plotters takes whole pixels, so a figure is drawn at four times its size. The SVG keeps those coordinates in its
//! `viewBox` and is shown at normal size; the PNG is averaged down to twice the normal size, which smooths its edges.

use super::font::{self, FAMILY, Weight};
use super::scene::{Anchor, Mark, Point, Scene, Text};
use super::style::{Color, Dash};
use crate::error::{Error, Result};
use plotters::prelude::{BitMapBackend, DrawingBackend, SVGBackend};
use plotters_backend::text_anchor::{HPos, Pos, VPos};
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingErrorKind, FontFamily, FontStyle, FontTransform,
};
use std::convert::Infallible;
use std::fmt::Write as _;
use std::path::Path;

/// Backend pixels per pixel of the figure at normal size.
const SCALE: usize = 4;

/// PNG pixels per pixel of the figure at normal size.
const PNG_SCALE: usize = 2;

/// plotters' SVG backend sets the first baseline this far below the top of a text, in em.
const TOP_TO_BASELINE: f64 = 0.76;

/// plotters calls 1.24 em the size of a font.
const PLOTTERS_SIZE: f64 = 1.24;

struct Stroke {
    color: Color,
    width: u32,
}

impl BackendStyle for Stroke {
    fn color(&self) -> BackendColor {
        backend_color(self.color, 1.0)
    }

    fn stroke_width(&self) -> u32 {
        self.width
    }
}

struct TextStyle<'a> {
    text: &'a Text,
    /// The em in backend pixels.
    em: f64,
}

impl BackendTextStyle for TextStyle<'_> {
    type FontError = Infallible;

    fn color(&self) -> BackendColor {
        backend_color(self.text.color, 1.0)
    }

    fn size(&self) -> f64 {
        self.em * PLOTTERS_SIZE
    }

    fn transform(&self) -> FontTransform {
        if self.text.upwards { FontTransform::Rotate270 } else { FontTransform::None }
    }

    fn style(&self) -> FontStyle {
        match self.text.weight {
            Weight::Regular => FontStyle::Normal,
            Weight::Bold => FontStyle::Bold,
        }
    }

    fn anchor(&self) -> Pos {
        let horizontal = match self.text.anchor {
            Anchor::Start => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::End => HPos::Right,
        };
        Pos::new(horizontal, VPos::Top)
    }

    fn family(&self) -> FontFamily<'_> {
        FontFamily::Name(FAMILY)
    }

    fn layout_box(&self, text: &str) -> Result<(BackendCoord, BackendCoord), Infallible> {
        Ok(((0, 0), (font::width(text, self.em, self.text.weight).round() as i32, self.em.round() as i32)))
    }

    fn draw<E, DrawFunc: FnMut(i32, i32, BackendColor) -> Result<(), E>>(
        &self,
        text: &str,
        (left, top): BackendCoord,
        mut draw: DrawFunc,
    ) -> Result<Result<(), E>, Infallible> {
        let baseline = TOP_TO_BASELINE * self.em;
        Ok(font::rasterize(text, self.em, self.text.weight, baseline, |x, y, coverage| {
            draw(left + x, top + y, backend_color(self.text.color, f64::from(coverage)))
        }))
    }
}

fn backend_color(color: Color, alpha: f64) -> BackendColor {
    BackendColor { alpha, rgb: (color.0, color.1, color.2) }
}

/// Draws all marks of `scene`, `SCALE` times enlarged.
fn draw<B: DrawingBackend>(scene: &Scene, backend: &mut B) -> Result<(), DrawingErrorKind<B::ErrorType>> {
    let scale = SCALE as f64;
    let place = |(x, y): Point| ((x * scale).round() as i32, (y * scale).round() as i32);
    backend.ensure_prepared()?;
    let (width, height) = backend.get_size();
    backend.draw_rect((0, 0), (width as i32, height as i32), &backend_color(Color::WHITE, 1.0), true)?;
    for mark in &scene.marks {
        match mark {
            Mark::Path { points, color, width, dash } => {
                let stroke = Stroke { color: *color, width: (width * scale).round().max(1.0) as u32 };
                for piece in dashes(points, *dash, *width) {
                    for part in without_reversals(piece.into_iter().map(place)) {
                        backend.draw_path(part, &stroke)?;
                    }
                }
            }
            Mark::Polygon { points, color } => {
                backend.fill_polygon(points.iter().copied().map(place), &backend_color(*color, 1.0))?;
            }
            Mark::Disc { center, radius, color } => {
                let radius = (radius * scale).round().max(1.0) as u32;
                backend.draw_circle(place(*center), radius, &backend_color(*color, 1.0), true)?;
            }
            Mark::Text(text) => {
                let em = text.size * scale;
                // The anchor that plotters takes is the top of the text; ours is its baseline.
                let up = TOP_TO_BASELINE * text.size;
                let top = if text.upwards { (text.at.0 - up, text.at.1) } else { (text.at.0, text.at.1 - up) };
                backend.draw_text(&text.text, &TextStyle { text, em }, place(top))?;
            }
        }
    }
    backend.present()
}

/// Cuts a line into its dashes; the lengths of a dash scale with the line's width.
fn dashes(points: &[Point], dash: Dash, width: f64) -> Vec<Vec<Point>> {
    let lengths: Vec<f64> = dash.0.iter().map(|length| length * width).collect();
    if lengths.is_empty() {
        return vec![points.to_vec()];
    }
    let mut pieces = Vec::new();
    let (mut index, mut left) = (0, lengths[0]);
    let mut piece = vec![points[0]];
    for pair in points.windows(2) {
        let (mut from, to) = (pair[0], pair[1]);
        let mut distance = (to.0 - from.0).hypot(to.1 - from.1);
        while distance > left {
            let share = left / distance;
            from = (from.0 + share * (to.0 - from.0), from.1 + share * (to.1 - from.1));
            distance -= left;
            piece.push(from);
            let finished = std::mem::replace(&mut piece, vec![from]);
            if index % 2 == 0 {
                pieces.push(finished);
            }
            index = (index + 1) % lengths.len();
            left = lengths[index];
        }
        left -= distance;
        piece.push(to);
    }
    if index % 2 == 0 {
        pieces.push(piece);
    }
    pieces
}

/// Splits a path where it nearly turns back on itself, and drops points that coincide: plotters outlines a thick line
/// as a polygon, which such a turn twists.
fn without_reversals(points: impl Iterator<Item = BackendCoord>) -> Vec<Vec<BackendCoord>> {
    let mut parts: Vec<Vec<BackendCoord>> = vec![Vec::new()];
    for point in points {
        let Some(part) = parts.last_mut() else { break };
        match part[..] {
            [.., last] if last == point => {}
            [.., before, last] => {
                let along = (f64::from(last.0 - before.0), f64::from(last.1 - before.1));
                let next = (f64::from(point.0 - last.0), f64::from(point.1 - last.1));
                let cosine = (along.0 * next.0 + along.1 * next.1) / (along.0.hypot(along.1) * next.0.hypot(next.1));
                if cosine < -0.9 {
                    parts.push(vec![last, point]);
                } else {
                    part.push(point);
                }
            }
            _ => part.push(point),
        }
    }
    parts.retain(|part| part.len() > 1);
    parts
}

fn drawing_error<E: std::error::Error + Send + Sync>(error: DrawingErrorKind<E>) -> Error {
    Error::Numeric(format!("a figure could not be drawn: {error}"))
}

fn pixels(length: f64, scale: usize) -> u32 {
    (length.ceil() as u32).max(1) * scale as u32
}

/// The figure as an SVG document.
///
/// # Errors
/// Where the backend refuses (it writes to memory, so it should not).
pub fn svg(scene: &Scene) -> Result<String> {
    let (width, height) = (pixels(scene.width, SCALE), pixels(scene.height, SCALE));
    let mut body = String::new();
    {
        let mut backend = SVGBackend::with_string(&mut body, (width, height));
        draw(scene, &mut backend).map_err(drawing_error)?;
    }
    // plotters' root element says only the enlarged size; ours shows the figure at normal size and rounds the joints.
    let content = body.split_once("<svg").and_then(|(_, rest)| rest.split_once('>')).map_or("", |(_, content)| content);
    let mut document = String::with_capacity(body.len() + 400);
    let _ = writeln!(
        document,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" viewBox=\"0 0 {width} {height}\" \
         stroke-linejoin=\"round\" role=\"img\">\n<title>{}</title>",
        pixels(scene.width, 1),
        pixels(scene.height, 1),
        scene.title.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"),
    );
    document.push_str(content.trim_start());
    Ok(document)
}

/// Writes the figure as a PNG file of twice its normal size in pixels. The name must end in `.png`.
///
/// # Errors
/// [`Error::Io`] where the file cannot be written.
pub fn png(scene: &Scene, path: &Path) -> Result<()> {
    const SHRINK: usize = SCALE / PNG_SCALE;
    let large = (pixels(scene.width, SCALE), pixels(scene.height, SCALE));
    let (width, height) = (large.0 as usize / SHRINK, large.1 as usize / SHRINK);
    let mut canvas = vec![255_u8; large.0 as usize * large.1 as usize * 3];
    {
        let mut backend = BitMapBackend::with_buffer(&mut canvas, large);
        draw(scene, &mut backend).map_err(drawing_error)?;
    }
    let stride = large.0 as usize * 3;
    let mut small = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            for channel in 0..3 {
                let mut sum = 0_u32;
                for row in 0..SHRINK {
                    let start = (y * SHRINK + row) * stride + x * SHRINK * 3 + channel;
                    sum += (0..SHRINK).map(|column| u32::from(canvas[start + 3 * column])).sum::<u32>();
                }
                small.push(((sum + (SHRINK * SHRINK / 2) as u32) / (SHRINK * SHRINK) as u32) as u8);
            }
        }
    }
    let size = (width as u32, height as u32);
    let failed = |error: String| Error::io(path, "write")(std::io::Error::other(error));
    let mut file = BitMapBackend::new(path, size);
    file.blit_bitmap((0, 0), size, &small).map_err(|error| failed(error.to_string()))?;
    file.present().map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_cover_their_share_of_a_line_around_corners() {
        let points = [(0.0, 0.0), (30.0, 0.0), (30.0, 30.0)];
        let pieces = dashes(&points, Dash(&[3.0, 1.0]), 2.0);
        let length = |piece: &Vec<Point>| {
            piece.windows(2).map(|pair| (pair[1].0 - pair[0].0).hypot(pair[1].1 - pair[0].1)).sum::<f64>()
        };
        // 60 = 7 x (6 on + 2 off) + 4 on
        assert_eq!(pieces.len(), 8);
        assert!((pieces.iter().map(length).sum::<f64>() - 46.0).abs() < 1e-9);
    }

    #[test]
    fn a_path_that_turns_back_is_split_and_repeated_points_are_dropped() {
        let parts = without_reversals([(0, 0), (0, 0), (10, 0), (10, 20), (10, 5), (10, 5)].into_iter());
        assert_eq!(parts, vec![vec![(0, 0), (10, 0), (10, 20)], vec![(10, 20), (10, 5)]]);
        assert!(without_reversals([(3, 3), (3, 3)].into_iter()).is_empty());
    }
}
