//! Figure: the performance profile of E. D. Dolan and J. J. Moré ("Benchmarking optimization software with performance
//! profiles", Mathematical Programming 91, 2002): the share of problems that an optimizer brings to the target within so many
//! times the time of the fastest on each.
//!
//! A problem is a model on a dataset. One that nobody solves counts in the share; what was not run has not solved it. The
//! fastest is of those shown alone, so that the raw times belong beside it: the figure of times to the target.

use super::axes::{Quantity, Scale};
use super::curves::{Curve, End, median};
use super::figure::{Axis, Heading};
use super::groups::{Dataset, Model, Series};
use super::lines::{Line, LineFigure, Panel};
use super::scene::Scene;
use std::collections::BTreeMap;

/// The figure of a run; `None` where fewer than two problems have a target, or nobody reached any.
#[must_use]
pub fn draw(heading: &Heading, datasets: &[Dataset<'_>]) -> Option<Scene> {
    let has_target = |model: &&Model<'_>| model.cells().any(|cell| cell.config.target.is_some());
    let models: Vec<&Model<'_>> = datasets.iter().flat_map(|dataset| &dataset.models).filter(has_target).collect();
    if models.len() < 2 {
        return None;
    }
    let problems: Vec<BTreeMap<&str, f64>> = models.iter().map(|model| times(model)).collect();
    let mut series: Vec<&Series<'_>> = Vec::new();
    for one in models.iter().flat_map(|model| &model.series) {
        if !series.iter().any(|known| known.name == one.name) {
            series.push(one);
        }
    }
    let ratios: Vec<Vec<f64>> = series.iter().map(|one| ratios(&problems, &one.name)).collect();
    let largest = ratios.iter().flatten().copied().filter(|ratio| ratio.is_finite()).reduce(f64::max)?;
    let farthest = 1.2 * largest.max(2.0);
    let line = |(one, ratios): (&&Series<'_>, &Vec<f64>)| {
        let curve = Curve { points: profile(ratios, farthest), end: End::Holds };
        Line::new(&one.name, one.style, vec![curve], 0.0, true)
    };
    let lines = series.iter().zip(&ratios).map(line).collect();
    let x = Axis {
        scale: Scale::Log { low: 1.0, high: farthest },
        quantity: Quantity::Number,
        title: "Times the time of the fastest (logarithmic)".to_owned(),
    };
    let panel = Panel { title: String::new(), lines, y: Scale::Linear { low: -0.03, high: 1.03 } };
    let unsolved = problems.iter().filter(|times| times.values().all(|time| time.is_infinite())).count();
    let mut notes = vec![format!(
        "{} problems, each a model on a dataset; medians over seeds and folds. The fastest is of those shown here alone: \
         the times themselves are in time-to-target.",
        problems.len()
    )];
    if unsolved > 0 {
        notes.push(format!("Nobody reached the target on {unsolved} of them."));
    }
    let y_title = "Share of problems at the target".to_owned();
    Some(LineFigure { heading: heading.clone(), x, y_title, panels: vec![panel], notes }.scene())
}

/// The median time to the target of each series of a model; infinity for a miss.
fn times<'a>(model: &'a Model<'_>) -> BTreeMap<&'a str, f64> {
    let time = |series: &Series<'_>| median(series.cells.iter().filter_map(|cell| cell.time_to_target()));
    model.series.iter().map(|series| (series.name.as_str(), time(series).unwrap_or(f64::INFINITY))).collect()
}

/// The time over that of the fastest on each problem, in increasing order; infinity where it was not solved.
fn ratios(problems: &[BTreeMap<&str, f64>], series: &str) -> Vec<f64> {
    let ratio = |times: &BTreeMap<&str, f64>| {
        let own = times.get(series).copied().unwrap_or(f64::INFINITY);
        let best = times.values().copied().fold(f64::INFINITY, f64::min);
        match own {
            f64::INFINITY => f64::INFINITY,
            own if own == best => 1.0,
            own => own / best,
        }
    };
    let mut all: Vec<f64> = problems.iter().map(ratio).collect();
    all.sort_by(f64::total_cmp);
    all
}

/// The share of problems within each ratio, as corners of steps from 1 to `farthest`.
fn profile(ratios: &[f64], farthest: f64) -> Vec<(f64, f64)> {
    let share = |within: f64| ratios.iter().filter(|ratio| **ratio <= within).count() as f64 / ratios.len() as f64;
    let mut places: Vec<f64> = ratios.iter().copied().filter(|ratio| ratio.is_finite()).collect();
    places.extend([1.0, farthest]);
    places.sort_by(f64::total_cmp);
    places.dedup();
    places.into_iter().map(|place| (place, share(place))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_count_every_problem_and_ratios_are_to_the_fastest_on_each() {
        let never = f64::INFINITY;
        let problems = [
            BTreeMap::from([("a", 1.0), ("b", 4.0)]),
            BTreeMap::from([("a", 6.0), ("b", 2.0)]),
            BTreeMap::from([("a", never), ("b", 5.0)]),
            BTreeMap::from([("a", never), ("b", never)]),
        ];
        assert_eq!(ratios(&problems, "a"), [1.0, 3.0, never, never]);
        assert_eq!(ratios(&problems, "b"), [1.0, 1.0, 4.0, never]);
        assert_eq!(ratios(&problems, "absent"), [never; 4]);
        assert_eq!(profile(&ratios(&problems, "a"), 5.0), [(1.0, 0.25), (3.0, 0.5), (5.0, 0.5)]);
        // A target that was there at the start took no time, of which others took no multiple.
        assert_eq!(ratios(&[BTreeMap::from([("a", 0.0), ("b", 1.0)])], "b"), [never]);
    }
}
