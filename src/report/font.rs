//! The typeface of all figures: DejaVu Sans, embedded, so that a figure looks the same on a machine without fonts.
//!
//! An SVG names it first and Verdana second, which shares its widths (both descend from Bitstream Vera's design), so
//! that a text measured here keeps its place in a browser on any system. Glyphs are rasterized from their outlines
//! with their side bearings and at fractions of a pixel; plotters' own text drawing rounds both away.

use ab_glyph::{Font, FontRef, GlyphId, ScaleFont, point};
use std::sync::OnceLock;

/// The CSS font family written into SVG files.
pub const FAMILY: &str = "DejaVu Sans, Verdana, sans-serif";

/// How far letters and superscripts reach above the baseline, in em.
pub const ASCENT: f64 = 0.78;

/// How far letters reach below the baseline, in em.
pub const DESCENT: f64 = 0.22;

/// Thickness of the letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// For nearly everything.
    Regular,
    /// For titles.
    Bold,
}

fn face(weight: Weight) -> &'static FontRef<'static> {
    static REGULAR: OnceLock<FontRef<'static>> = OnceLock::new();
    static BOLD: OnceLock<FontRef<'static>> = OnceLock::new();
    let (cell, bytes): (_, fn() -> &'static [u8]) = match weight {
        Weight::Regular => (&REGULAR, dejavu::sans::regular),
        Weight::Bold => (&BOLD, dejavu::sans::bold),
    };
    cell.get_or_init(|| FontRef::try_from_slice(bytes()).expect("the embedded font is a whole TrueType file"))
}

/// The glyphs of `text` with the x of each origin, and the x where the text ends, for an em of `size` pixels.
fn layout(text: &str, size: f64, weight: Weight) -> (Vec<(GlyphId, f32)>, f64) {
    let font = face(weight);
    let scaled = font.as_scaled(pixel_scale(font, size));
    let mut glyphs = Vec::with_capacity(text.len());
    let (mut x, mut previous) = (0.0_f32, None);
    for character in text.chars() {
        let glyph = scaled.glyph_id(character);
        if let Some(previous) = previous {
            x += scaled.kern(previous, glyph);
        }
        glyphs.push((glyph, x));
        x += scaled.h_advance(glyph);
        previous = Some(glyph);
    }
    (glyphs, f64::from(x))
}

/// `ab_glyph` measures a font by its line height; everything else, CSS included, by its em.
fn pixel_scale(font: &FontRef<'_>, em: f64) -> f32 {
    let units = font.units_per_em().unwrap_or(2048.0);
    em as f32 * font.height_unscaled() / units
}

/// The width of `text` for an em of `size` pixels.
#[must_use]
pub fn width(text: &str, size: f64, weight: Weight) -> f64 {
    layout(text, size, weight).1
}

/// Calls `pixel(x, y, coverage)` for the pixels of `text`, whose baseline begins at `(0, baseline)`.
///
/// # Errors
/// The first error `pixel` returns.
pub fn rasterize<E>(
    text: &str,
    size: f64,
    weight: Weight,
    baseline: f64,
    mut pixel: impl FnMut(i32, i32, f32) -> Result<(), E>,
) -> Result<(), E> {
    let font = face(weight);
    let scale = pixel_scale(font, size);
    for (glyph, x) in layout(text, size, weight).0 {
        let placed = glyph.with_scale_and_position(scale, point(x, baseline as f32));
        let Some(outlined) = font.outline_glyph(placed) else { continue };
        let corner = outlined.px_bounds().min;
        let mut result = Ok(());
        outlined.draw(|x, y, coverage| {
            if result.is_ok() && coverage > 0.0 {
                result = pixel(corner.x as i32 + x as i32, corner.y as i32 + y as i32, coverage.min(1.0));
            }
        });
        result?;
    }
    Ok(())
}

/// `text` broken at spaces into lines no wider than `limit` pixels; a longer word has a line to itself.
#[must_use]
pub fn wrap(text: &str, size: f64, weight: Weight, limit: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width(&format!("{line} {word}"), size, weight) <= limit => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Like [`wrap`], with the lines as equally long as the same number of lines allows.
#[must_use]
pub fn wrap_evenly(text: &str, size: f64, weight: Weight, limit: f64) -> Vec<String> {
    let mut best = wrap(text, size, weight, limit);
    for share in [0.9, 0.8, 0.7, 0.6, 0.55] {
        let narrower = wrap(text, size, weight, share * limit);
        if narrower.len() > best.len() || narrower.iter().any(|line| width(line, size, weight) > limit) {
            break;
        }
        best = narrower;
    }
    best
}

/// `text`, shortened with an ellipsis where it is wider than `limit` pixels.
#[must_use]
pub fn shorten(text: &str, size: f64, weight: Weight, limit: f64) -> String {
    if width(text, size, weight) <= limit {
        return text.to_owned();
    }
    let mut kept: String = text.to_owned();
    while kept.pop().is_some() {
        let candidate = format!("{}…", kept.trim_end());
        if width(&candidate, size, weight) <= limit {
            return candidate;
        }
    }
    "…".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sign_the_figures_use_is_in_the_typeface() {
        let font = face(Weight::Regular);
        assert!("−×∞≤≥µ·–…±⁰¹²³⁴⁵⁶⁷⁸⁹⁻".chars().all(|sign| font.glyph_id(sign) != GlyphId(0)));
    }

    /// Widths agree with the font's own advance table: "0" is 1303 of 2048 units wide (fontTools: hmtx["zero"]).
    #[test]
    fn widths_are_those_of_the_font() {
        assert!((width("000", 2048.0, Weight::Regular) - 3.0 * 1303.0).abs() < 0.5);
    }

    #[test]
    fn wrapping_keeps_words_and_limits() {
        let text = "every seed faint behind the median of three seeds";
        let lines = wrap(text, 12.0, Weight::Regular, 120.0);
        assert!(lines.len() > 1);
        assert_eq!(lines.join(" "), text);
        assert!(lines.iter().all(|line| width(line, 12.0, Weight::Regular) <= 120.0));
        let short = shorten(text, 12.0, Weight::Regular, 120.0);
        assert!(short.ends_with('…') && width(&short, 12.0, Weight::Regular) <= 120.0);
    }
}
