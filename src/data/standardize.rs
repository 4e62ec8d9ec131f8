//! Standardization: mean and standard deviation of each column, fitted on the training rows alone.
//!
//! The standard deviation divides by `n`, as scikit-learn's `StandardScaler` does. Moments are taken in `f64` as deviations
//! from a number near the mean, chunk by chunk, and combined by the formula of Chan, Golub and LeVeque (1983) in the order
//! of the rows, so they do not depend on the number of threads.

use super::Examples;
use crate::device::{PANEL_ROWS, cpu};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Panels whose moments are combined by one task.
const CHUNK: usize = 64;

/// Mean and scale of each of the `d` columns: a standardized value is `(x - mean) / scale`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Standardization {
    /// Means.
    pub mean: Vec<f64>,
    /// Population standard deviations; 1 for a constant column.
    pub scale: Vec<f64>,
    /// The columns (from 0) that are constant on the rows fitted on.
    pub constant: Vec<usize>,
}

/// Moments of one column over some rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moments {
    pub count: f64,
    pub mean: f64,
    /// Sum of squared deviations from the mean.
    pub squares: f64,
    pub min: f32,
    pub max: f32,
}

impl Moments {
    pub(super) const NONE: Self =
        Self { count: 0.0, mean: 0.0, squares: 0.0, min: f32::INFINITY, max: f32::NEG_INFINITY };

    pub(super) fn of(values: &[f32]) -> Self {
        if values.is_empty() {
            return Self::NONE;
        }
        Self::of_count(values.len(), cpu::moments::moments(values))
    }

    fn of_count(count: usize, moments: cpu::moments::Moments) -> Self {
        let cpu::moments::Moments { mean, squares, min, max } = moments;
        Self { count: count as f64, mean, squares, min, max }
    }

    /// The moments of the values present, those that are not NaN.
    pub(super) fn of_present(values: &[f32]) -> Self {
        let present: Vec<f32> = values.iter().copied().filter(|value| !value.is_nan()).collect();
        Self::of(&present)
    }

    /// The moments of both sets of rows together.
    pub(super) fn and(self, next: Self) -> Self {
        if self.count == 0.0 {
            return next;
        }
        if next.count == 0.0 {
            return self;
        }
        let count = self.count + next.count;
        let delta = next.mean - self.mean;
        Self {
            count,
            mean: self.mean + delta * (next.count / count),
            squares: self.squares + next.squares + delta * delta * (self.count * next.count / count),
            min: self.min.min(next.min),
            max: self.max.max(next.max),
        }
    }

    /// Population standard deviation.
    pub(super) fn deviation(&self) -> f64 {
        (self.squares / self.count).sqrt()
    }
}

/// Moments of every column over the rows of `examples`, `of` taking those of a piece of a column; the same at any number
/// of threads.
pub(super) fn moments(examples: &Examples, of: impl Fn(&[f32]) -> Moments + Sync) -> Vec<Moments> {
    let (columns, rows) = (examples.features.columns(), &examples.range);
    let panels: Vec<usize> = (rows.start / PANEL_ROWS..rows.end.div_ceil(PANEL_ROWS)).collect();
    let chunks: Vec<Vec<Moments>> = panels
        .par_chunks(CHUNK)
        .map(|chunk| {
            let mut total = vec![Moments::NONE; columns];
            let mut pieces = examples.features.pieces();
            for &panel in chunk {
                pieces.reach(panel);
                let base = panel * PANEL_ROWS;
                let first = rows.start.saturating_sub(base);
                let last = (rows.end - base).min(PANEL_ROWS);
                let values = examples.features.panel(panel);
                for (column, total) in values.chunks_exact(PANEL_ROWS).zip(&mut total) {
                    *total = total.and(of(&column[first..last]));
                }
            }
            total
        })
        .collect();
    chunks.into_iter().fold(vec![Moments::NONE; columns], |total, chunk| {
        total.into_iter().zip(chunk).map(|(a, b)| a.and(b)).collect()
    })
}

/// Moments of every column of which no value is missing, in one visit: deviations from the mean of a chunk's first panel
/// are summed over the chunk.
fn shifted_moments(examples: &Examples) -> Vec<Moments> {
    let (columns, rows) = (examples.features.columns(), &examples.range);
    let panels: Vec<usize> = (rows.start / PANEL_ROWS..rows.end.div_ceil(PANEL_ROWS)).collect();
    let part = |panel: usize| {
        let base = panel * PANEL_ROWS;
        rows.start.saturating_sub(base)..(rows.end - base).min(PANEL_ROWS)
    };
    let chunks: Vec<Vec<Moments>> = panels
        .par_chunks(CHUNK)
        .map(|chunk| {
            let mut pieces = examples.features.pieces();
            let mut sums = Vec::with_capacity(columns);
            for &panel in chunk {
                pieces.reach(panel);
                let (values, part) = (examples.features.panel(panel), part(panel));
                if sums.is_empty() {
                    let near = |column: &[f32]| cpu::moments::moments(&column[part.clone()]).mean;
                    sums.extend(values.chunks_exact(PANEL_ROWS).map(|c| cpu::moments::ShiftedSums::about(near(c))));
                }
                cpu::moments::add_panel(values, part, &mut sums);
            }
            let of_chunk = sums.iter().map(cpu::moments::ShiftedSums::moments);
            of_chunk.map(|(count, m)| Moments::of_count(count, m)).collect()
        })
        .collect();
    chunks.into_iter().fold(vec![Moments::NONE; columns], |total, chunk| {
        total.into_iter().zip(chunk).map(|(a, b)| a.and(b)).collect()
    })
}

impl Standardization {
    /// Fits means and scales on `examples`. Without any row, all means are 0 and all scales 1.
    #[must_use]
    pub fn fit(examples: &Examples) -> Self {
        let moments = shifted_moments(examples);
        let constant = moments.iter().enumerate().filter(|(_, m)| m.min >= m.max).map(|(column, _)| column).collect();
        let mean = moments.iter().map(|m| if m.min == m.max { f64::from(m.min) } else { m.mean }).collect();
        let scale = moments.iter().map(|m| if m.min < m.max { m.deviation() } else { 1.0 }).collect();
        Self { mean, scale, constant }
    }

    /// Means 0 and scales 1 for `columns` columns: no change.
    #[must_use]
    pub fn identity(columns: usize) -> Self {
        Self { mean: vec![0.0; columns], scale: vec![1.0; columns], constant: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Panels;

    fn examples(rows: usize, range: std::ops::Range<usize>) -> Examples {
        let value = |row: usize, column: usize| match column {
            0 => 7.1,
            1 => 1000.0 + (row as f32 * 0.37).sin(),
            _ => (row % 5) as f32,
        };
        let features = Panels::from_fn(rows, 3, value);
        Examples { targets: Panels::from_fn(rows, 1, |_, _| 0.0), features, range }
    }

    #[test]
    fn moments_are_those_of_the_rows_of_the_range() {
        let examples = examples(50_000, 123..40_003);
        let fitted = Standardization::fit(&examples);
        for column in 1..3 {
            let values: Vec<f64> = (123..40_003).map(|row| f64::from(examples.features.get(row, column))).collect();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let squares = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
            assert!((fitted.mean[column] / mean - 1.0).abs() < 1e-13);
            assert!((fitted.scale[column] / (squares / values.len() as f64).sqrt() - 1.0).abs() < 1e-12);
        }
        assert_eq!((fitted.mean[0], fitted.scale[0]), (f64::from(7.1f32), 1.0));
        assert_eq!(fitted.constant, [0]);
    }

    #[test]
    fn the_number_of_threads_does_not_matter() {
        let examples = examples(100_000, 5..99_999);
        let at = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Standardization::fit(&examples))
        };
        assert_eq!(at(1), at(3));
    }

    #[test]
    fn no_rows_change_nothing() {
        assert_eq!(Standardization::fit(&examples(10, 4..4)).scale, [1.0, 1.0, 1.0]);
    }
}
