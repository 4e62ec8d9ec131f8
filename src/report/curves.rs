//! Medians over seeds and folds: of numbers, and of recorded curves on a common grid.
//!
//! Between two records a curve has its last recorded value (step interpolation), for nothing better was known. After
//! its last record a finished cell keeps its value; a cell that diverged counts as worse than any; of a cell that ran
//! out of time nothing more is known, so the median ends there; failed and interrupted cells do not count.

use super::runs::{Cell, Status};

/// How a curve goes on after its last record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With its last value.
    Holds,
    /// Nobody knows.
    Unknown,
    /// With the worst value there is.
    Worst,
    /// The curve does not count.
    Lost,
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        match status {
            Status::Finished => Self::Holds,
            Status::TimedOut => Self::Unknown,
            Status::Diverged => Self::Worst,
            Status::Failed | Status::Skipped | Status::Interrupted => Self::Lost,
        }
    }
}

/// What one cell recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// The records `(x, y)`, in increasing order of x.
    pub points: Vec<(f64, f64)>,
    /// How it goes on.
    pub end: End,
}

impl Curve {
    /// The columns `x` and `y` of a cell's trace, without rows in which one of them is missing.
    #[must_use]
    pub fn of(cell: &Cell, x: &str, y: &str) -> Self {
        let mut points = cell.trace.pairs(x, y);
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        Self { points, end: cell.result.status.into() }
    }

    /// The value known at `x`; `None` before the first record and where nothing is known.
    fn at(&self, x: f64, worst: f64) -> Option<f64> {
        let known = self.points.partition_point(|point| point.0 <= x);
        let value = self.points.get(known.checked_sub(1)?)?.1;
        let over = known == self.points.len() && x > self.points[known - 1].0;
        match self.end {
            End::Worst if over => Some(worst),
            End::Unknown | End::Lost if over => None,
            _ => Some(value),
        }
    }
}

/// The median; the mean of the middle two for an even number. Infinities count as such. `None` for no values.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().filter(|value| !value.is_nan()).collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = values[values.len() / 2 - 1];
    Some(if lower == upper { lower } else { lower + (upper - lower) / 2.0 })
}

/// The median curve, on a grid with one x for each record: the x at which the slowest of the curves has made it. (On the
/// union of all records the median would jump up and down between seeds whose records alternate.) The curve ends where
/// one of those that count is unknown, or the median is not finite.
#[must_use]
pub fn median_curve(curves: &[Curve], worst: f64) -> Vec<(f64, f64)> {
    let counted: Vec<&Curve> =
        curves.iter().filter(|curve| curve.end != End::Lost && !curve.points.is_empty()).collect();
    let longest = counted.iter().map(|curve| curve.points.len()).max().unwrap_or(0);
    let slowest = |record: usize| {
        let reached = counted.iter().filter_map(|curve| curve.points.get(record));
        reached.map(|point| point.0).fold(f64::NEG_INFINITY, f64::max)
    };
    let mut grid: Vec<f64> = (0..longest).map(slowest).collect();
    // The last moment at which all are known, where some ran out of time.
    let unknown = counted.iter().filter(|curve| curve.end == End::Unknown);
    grid.extend(unknown.filter_map(|curve| curve.points.last()).map(|point| point.0).reduce(f64::min));
    grid.sort_by(f64::total_cmp);
    grid.dedup();
    let mut points = Vec::with_capacity(grid.len());
    for x in grid {
        let values: Option<Vec<f64>> = counted.iter().map(|curve| curve.at(x, worst)).collect();
        match values.and_then(median) {
            Some(value) if value.is_finite() => points.push((x, value)),
            _ if points.is_empty() => {}
            _ => break,
        }
    }
    points
}

/// True if all curves that count were recorded at the same places, up to their length: then straight lines between
/// records are as honest as steps.
#[must_use]
pub fn share_grid(curves: &[Curve]) -> bool {
    let mut counted = curves.iter().filter(|curve| curve.end != End::Lost && !curve.points.is_empty());
    let Some(first) = counted.next() else { return true };
    counted.all(|curve| curve.points.iter().zip(&first.points).all(|(one, other)| one.0 == other.0))
}

/// The corners of the steps of a curve: each value holds until the next record.
#[must_use]
pub fn steps(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut corners = Vec::with_capacity(2 * points.len());
    for point in points {
        if let Some((_, before)) = corners.last().copied() {
            corners.push((point.0, before));
        }
        corners.push(*point);
    }
    corners
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(points: &[(f64, f64)], end: End) -> Curve {
        Curve { points: points.to_vec(), end }
    }

    #[test]
    fn the_median_of_an_even_number_is_the_mean_of_the_middle_two_and_misses_are_infinite() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median([1.0, f64::INFINITY, f64::INFINITY]), Some(f64::INFINITY));
        assert_eq!(median([f64::INFINITY, f64::INFINITY]), Some(f64::INFINITY));
        assert_eq!(median([]), None);
    }

    #[test]
    fn a_finished_cell_holds_its_last_value() {
        let curves = [
            curve(&[(0.0, 0.5), (1.0, 0.6)], End::Holds),
            curve(&[(0.0, 0.5), (2.0, 0.7), (4.0, 0.8)], End::Holds),
            curve(&[(0.0, 0.5), (3.0, 0.9)], End::Holds),
        ];
        // Second records at 1, 2 and 3: all three are made at 3. There the values are 0.6, 0.7 and 0.9.
        assert_eq!(median_curve(&curves, 0.0), [(0.0, 0.5), (3.0, 0.7), (4.0, 0.8)]);
    }

    #[test]
    fn the_median_ends_where_a_cell_ran_out_of_time() {
        let curves = [curve(&[(0.0, 1.0), (1.0, 0.5)], End::Unknown), curve(&[(0.0, 1.0), (3.0, 0.1)], End::Holds)];
        assert_eq!(median_curve(&curves, f64::INFINITY), [(0.0, 1.0), (1.0, 0.75)]);
    }

    #[test]
    fn a_diverged_cell_counts_as_worst_and_an_interrupted_one_not_at_all() {
        let good = curve(&[(0.0, 1.0), (1.0, 0.4), (2.0, 0.2)], End::Holds);
        let diverged = curve(&[(0.0, 1.0), (1.0, 9.0)], End::Worst);
        let lost = curve(&[(0.0, 5.0)], End::Lost);
        let two_good = [good.clone(), good.clone(), diverged.clone(), lost];
        assert_eq!(median_curve(&two_good, f64::INFINITY), good.points);
        let one_good = [good, diverged.clone(), diverged];
        assert_eq!(median_curve(&one_good, f64::INFINITY), [(0.0, 1.0), (1.0, 9.0)]);
    }

    #[test]
    fn steps_hold_each_value_until_the_next_record() {
        assert_eq!(steps(&[(0.0, 1.0), (1.0, 2.0)]), [(0.0, 1.0), (1.0, 1.0), (1.0, 2.0)]);
        assert!(steps(&[]).is_empty());
    }
}
