//! Mean, spread and range of a piece of a column.

use crate::device::PANEL_ROWS;
use pulp::{Arch, Simd, WithSimd};

/// Moments of some numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moments {
    /// Their mean.
    pub mean: f64,
    /// Sum of squared deviations from the mean.
    pub squares: f64,
    /// The smallest.
    pub min: f32,
    /// The largest.
    pub max: f32,
}

/// Running sums side by side.
const LANES: usize = 16;

/// The sum of all lanes, by halves, so that no addition waits for more than four others.
#[inline(always)]
fn total(mut lanes: [f64; LANES]) -> f64 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

struct Take<'a>(&'a [f32]);

impl WithSimd for Take<'_> {
    type Output = Moments;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Moments {
        let (whole, rest) = self.0.as_chunks::<LANES>();
        let mut sums = [0.0_f64; LANES];
        for values in whole {
            for i in 0..LANES {
                sums[i] += f64::from(values[i]);
            }
        }
        let (registers, _) = S::as_simd_f32s(whole.as_flattened());
        let (mut low, mut high) = (simd.splat_f32s(f32::INFINITY), simd.splat_f32s(f32::NEG_INFINITY));
        for &values in registers {
            low = simd.min_f32s(low, values);
            high = simd.max_f32s(high, values);
        }
        let sum = total(sums) + rest.iter().map(|&x| f64::from(x)).sum::<f64>();
        let mean = sum / self.0.len() as f64;
        let mut squares = [0.0_f64; LANES];
        for values in whole {
            for i in 0..LANES {
                let deviation = f64::from(values[i]) - mean;
                squares[i] += deviation * deviation;
            }
        }
        let of_rest: f64 = rest.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum();
        Moments {
            mean,
            squares: total(squares) + of_rest,
            min: rest.iter().copied().fold(simd.reduce_min_f32s(low), f32::min),
            max: rest.iter().copied().fold(simd.reduce_max_f32s(high), f32::max),
        }
    }
}

/// The moments of `values`, of which there is one at least and none is NaN.
#[must_use]
pub fn moments(values: &[f32]) -> Moments {
    Arch::new().dispatch(Take(values))
}

/// Sums over pieces of a column, of deviations `x - shift` from a number near its mean: `mean = shift + S/n`, sum of
/// squared deviations from it `Q - S^2/n`.
#[derive(Debug, Clone, Copy)]
pub struct ShiftedSums {
    shift: f64,
    count: usize,
    sums: [f64; LANES],
    squares: [f64; LANES],
    low: [f32; LANES],
    high: [f32; LANES],
}

impl ShiftedSums {
    /// Sums over nothing.
    #[must_use]
    pub fn about(shift: f64) -> Self {
        let (low, high) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
        Self { shift, count: 0, sums: [0.0; LANES], squares: [0.0; LANES], low, high }
    }

    /// The moments of what was added; there must be something.
    #[must_use]
    pub fn moments(&self) -> (usize, Moments) {
        let (n, sum) = (self.count as f64, total(self.sums));
        let moments = Moments {
            mean: self.shift + sum / n,
            squares: (total(self.squares) - sum * sum / n).max(0.0),
            min: self.low.iter().copied().fold(f32::INFINITY, f32::min),
            max: self.high.iter().copied().fold(f32::NEG_INFINITY, f32::max),
        };
        (self.count, moments)
    }

    #[inline(always)]
    fn add(&mut self, values: &[f32]) {
        self.count += values.len();
        let (whole, rest) = values.as_chunks::<LANES>();
        let Self { shift, mut sums, mut squares, mut low, mut high, .. } = *self;
        for values in whole {
            for i in 0..LANES {
                let deviation = f64::from(values[i]) - shift;
                sums[i] += deviation;
                squares[i] += deviation * deviation;
                low[i] = if values[i] < low[i] { values[i] } else { low[i] };
                high[i] = if values[i] > high[i] { values[i] } else { high[i] };
            }
        }
        for (i, &value) in rest.iter().enumerate() {
            let deviation = f64::from(value) - shift;
            sums[i] += deviation;
            squares[i] += deviation * deviation;
            low[i] = low[i].min(value);
            high[i] = high[i].max(value);
        }
        (self.sums, self.squares, self.low, self.high) = (sums, squares, low, high);
    }
}

struct Add<'a> {
    columns: std::slice::ChunksExact<'a, f32>,
    rows: std::ops::Range<usize>,
    sums: &'a mut [ShiftedSums],
}

impl WithSimd for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (column, sums) in self.columns.zip(self.sums) {
            sums.add(&column[self.rows.clone()]);
        }
    }
}

/// Adds the rows `rows` of a panel to the sums of its columns. None of its numbers may be NaN.
pub fn add_panel(panel: &[f32], rows: std::ops::Range<usize>, sums: &mut [ShiftedSums]) {
    Arch::new().dispatch(Add { columns: panel.chunks_exact(PANEL_ROWS), rows, sums });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_agree_with_their_definition() {
        for len in [1, 15, 16, 256, 299] {
            let values: Vec<f32> = (0..len).map(|i| ((i * 37 % 101) as f32).sin() + 3.0).collect();
            let got = moments(&values);
            let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / len as f64;
            let squares: f64 = values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum();
            assert!((got.mean - mean).abs() < 1e-14 && (got.squares - squares).abs() < 1e-12, "{got:?}");
            assert_eq!(got.min, values.iter().copied().fold(f32::INFINITY, f32::min));
            assert_eq!(got.max, values.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let mut panel = vec![f32::NAN; PANEL_ROWS];
            let rows = 3..(3 + len).min(PANEL_ROWS);
            let mut sums = [ShiftedSums::about(2.5)];
            for piece in values.chunks(rows.len()) {
                panel[rows.start..rows.start + piece.len()].copy_from_slice(piece);
                add_panel(&panel, rows.start..rows.start + piece.len(), &mut sums);
            }
            let (count, shifted) = sums[0].moments();
            assert!((shifted.mean - mean).abs() < 1e-14 && (shifted.squares - squares).abs() < 1e-12, "{shifted:?}");
            assert_eq!((count, shifted.min, shifted.max), (len, got.min, got.max));
        }
    }
}
