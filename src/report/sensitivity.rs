//! Figures of a search: for each optimizer, the metric of every trial against each searched setting, the chosen trial
//! marked. They are drawn from `tune.json` (docs/file-formats.md).

use super::axes::{Quantity, Scale, range};
use super::curves::median;
use super::figure::{self, Axis, Grid, Heading, MARGIN, NORMAL, SMALL, TickLabels};
use super::font::{self, Weight};
use super::scene::{Anchor, Point, Rect, Scene};
use super::style::{Color, MarkerShape, series_style};
use super::{draw_pair, file_name, runs, units};
use crate::error::Result;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// What a search tried and chose: its `tune.json`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Search {
    /// The experiment's name.
    pub experiment: String,
    /// The metric by which settings were chosen.
    pub metric: String,
    /// Seconds of training of each trial.
    pub seconds: f64,
    /// The problems, as dataset and model.
    pub problems: Vec<String>,
    /// The optimizers.
    pub optimizers: Vec<Tuned>,
}

/// The trials of one optimizer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Tuned {
    /// What reports call it.
    pub label: String,
    /// What was searched.
    pub searched: Vec<Searched>,
    /// The trials.
    pub trials: Vec<Trial>,
    /// The chosen trial.
    pub chosen: Option<usize>,
}

/// A searched setting.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Searched {
    /// Its name.
    pub name: String,
    /// The smallest value, of a range.
    pub from: Option<f64>,
    /// The largest.
    pub to: Option<f64>,
    /// Whether it was searched evenly in the logarithm.
    #[serde(default)]
    pub log: bool,
    /// The values, where there is no range.
    #[serde(default)]
    pub among: Vec<Value>,
}

/// One trial.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Trial {
    /// The searched settings' values.
    pub settings: Map<String, Value>,
    /// The metric on each of the problems.
    pub values: Vec<Option<f64>>,
}

/// Draws `tune.json` of a search's folder beside it, as SVG and PNG: `sensitivity-OPTIMIZER`, followed by the number of
/// the problem where there are several. Returns the files written.
///
/// # Errors
/// [`crate::Error::Io`] where a file cannot be read or written, [`crate::Error::Data`] where `tune.json` is damaged.
pub fn write_sensitivity(folder: &Path) -> Result<Vec<PathBuf>> {
    let path = folder.join("tune.json");
    let search: Search = runs::parse_json(&path, &runs::read(&path)?)?;
    let mut written = Vec::new();
    for (index, tuned) in search.optimizers.iter().enumerate() {
        for (problem, name) in search.problems.iter().enumerate() {
            let Some(scene) = draw(&search, tuned, index, (problem, name)) else { continue };
            let suffix = if search.problems.len() > 1 { format!("-{}", problem + 1) } else { String::new() };
            let name = format!("sensitivity-{}{suffix}", file_name(&tuned.label));
            written.extend(draw_pair(&scene, &folder.join(name))?);
        }
    }
    Ok(written)
}

/// The figure of one optimizer on one problem; `None` where nothing was searched or no trial came to a value.
#[must_use]
pub fn draw(search: &Search, tuned: &Tuned, index: usize, (problem, name): (usize, &str)) -> Option<Scene> {
    let values: Vec<Option<f64>> = tuned.trials.iter().map(|trial| trial.values.get(problem).copied()?).collect();
    let y = y_axis(&search.metric, &values)?;
    if tuned.searched.is_empty() {
        return None;
    }
    let columns = if tuned.searched.len() == 4 { 2 } else { tuned.searched.len().min(3) };
    let title = format!("{}: {} against each searched setting", tuned.label, search.metric.replace('_', " "));
    let mut scene = Scene::new([620.0, 820.0, 1120.0][columns - 1], &title);
    let subtitle = format!("{name} · {} of training a trial", units::seconds(search.seconds));
    let top = figure::heading(&mut scene, &Heading { title, subtitle }) + 6.0;
    let height = 250.0;
    let ticks = figure::tick_label_width(&y, height);
    let sides = (figure::left_room(ticks), scene.width - MARGIN - 8.0);
    let grid = Grid::new(tuned.searched.len(), columns, sides, top, height, (24.0, 66.0));
    let color = series_style(index).color;
    for (panel, (searched, frame)) in tuned.searched.iter().zip(&grid.frames).enumerate() {
        let x = XAxis::of(searched);
        x.draw(&mut scene, frame, &y, grid.is_leftmost(panel));
        let points = |trial: usize| {
            let value = tuned.trials[trial].settings.get(&searched.name)?;
            Some((frame.left + x.place(value)? * frame.width(), values[trial]))
        };
        marks(&mut scene, frame, &y.scale, color, tuned, &points);
    }
    let below = figure::axis_titles(&mut scene, &grid, "", &y.title, ticks);
    scene.height = figure::caption(&mut scene, &notes(search, tuned, &values, &y.scale), below) + MARGIN * 0.6;
    Some(scene)
}

/// An axis on which differences between good trials are seen: it reaches from the best value to four times as far as the
/// median trial is; what lies beyond is drawn at its edge.
fn y_axis(metric: &str, values: &[Option<f64>]) -> Option<Axis> {
    let sign = if super::runs::rises(metric) { -1.0 } else { 1.0 };
    let costs: Vec<f64> = values.iter().flatten().map(|value| sign * value).collect();
    let (best, worst) = range(costs.iter().copied())?;
    let middle = median(costs)?;
    let reach = (4.0 * (middle - best)).max(0.02 * best.abs()).max(1e-9);
    let worst = worst.min(best + reach).max(best + 1e-3 * best.abs().max(1e-6));
    let margin = 0.06 * (worst - best);
    let ends = [sign * (best - margin), sign * (worst + margin)];
    let scale = Scale::Linear { low: ends[0].min(ends[1]), high: ends[0].max(ends[1]) };
    let mut title = metric.replace('_', " ");
    title[..1].make_ascii_uppercase();
    Some(Axis { scale, quantity: Quantity::Number, title })
}

/// The values of a searched setting along an axis.
enum XAxis<'a> {
    Numbers { axis: Axis },
    Words { name: &'a str, words: Vec<String> },
}

impl<'a> XAxis<'a> {
    fn of(searched: &'a Searched) -> Self {
        match (searched.from, searched.to) {
            (Some(from), Some(to)) => {
                let scale = if searched.log {
                    let margin = (to / from).powf(0.03);
                    Scale::Log { low: from / margin, high: to * margin }
                } else {
                    let margin = 0.03 * (to - from);
                    Scale::Linear { low: from - margin, high: to + margin }
                };
                let how = if searched.log { " (logarithmic)" } else { "" };
                let title = format!("{}{how}", searched.name);
                Self::Numbers { axis: Axis { scale, quantity: Quantity::Number, title } }
            }
            _ => Self::Words { name: &searched.name, words: searched.among.iter().map(word).collect() },
        }
    }

    /// Where a value lies, from 0 to 1.
    fn place(&self, value: &Value) -> Option<f64> {
        match self {
            Self::Numbers { axis } => value.as_f64().map(|value| axis.scale.place(value)),
            Self::Words { words, .. } => {
                let index = words.iter().position(|known| *known == word(value))?;
                Some((index as f64 + 0.5) / words.len() as f64)
            }
        }
    }

    fn draw(&self, scene: &mut Scene, frame: &Rect, y: &Axis, leftmost: bool) {
        let silent =
            Axis { scale: Scale::Linear { low: 0.0, high: 0.0 }, quantity: Quantity::Number, title: String::new() };
        let (x, title) = match self {
            Self::Numbers { axis } => (axis, axis.title.as_str()),
            Self::Words { name, .. } => (&silent, *name),
        };
        figure::frame(scene, frame, x, y, TickLabels { x: true, y: leftmost });
        if let Self::Words { words, .. } = self {
            let room = frame.width() / words.len() as f64 - 6.0;
            for (index, word) in words.iter().enumerate() {
                let at = frame.left + (index as f64 + 0.5) / words.len() as f64 * frame.width();
                let word = font::shorten(word, SMALL, Weight::Regular, room);
                let at = (at, frame.bottom + 8.0 + SMALL);
                scene.text(&word, at, Anchor::Middle, SMALL, Weight::Regular, Color::INK);
            }
        }
        let title = font::shorten(title, NORMAL, Weight::Regular, frame.width());
        let at = ((frame.left + frame.right) / 2.0, frame.bottom + 8.0 + SMALL + 10.0 + NORMAL);
        scene.text(&title, at, Anchor::Middle, NORMAL, Weight::Regular, Color::INK);
    }
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Every trial, the chosen one last and with guides.
fn marks(
    scene: &mut Scene,
    frame: &Rect,
    y: &Scale,
    color: Color,
    tuned: &Tuned,
    points: &dyn Fn(usize) -> Option<(f64, Option<f64>)>,
) {
    let edge = worst_edge(frame, tuned, y, points);
    let others = (0..tuned.trials.len()).filter(|&trial| tuned.chosen != Some(trial));
    for trial in others {
        let Some((x, value)) = points(trial) else { continue };
        match value.map(|value| y.place(value)).filter(|place| (0.0..=1.0).contains(place)) {
            Some(place) => {
                let at = (x, frame.bottom - place * frame.height());
                scene.marker(MarkerShape::Circle, at, 4.0, color.tint(0.7), trial == 0);
            }
            None => scene.cross((x, edge), 4.0, color.tint(0.7)),
        }
    }
    let chosen = tuned.chosen.and_then(points);
    let Some((x, Some(value))) = chosen else { return };
    let at: Point = (x, frame.bottom - y.place(value).clamp(0.0, 1.0) * frame.height());
    scene.path(vec![(x, frame.bottom), at], color, 1.2, super::style::Dash::DOTTED);
    scene.marker(MarkerShape::Star, at, 7.5, color.shade(0.8), false);
}

/// The edge at which trials without a place on the axis are drawn: that of the worse values.
fn worst_edge(frame: &Rect, tuned: &Tuned, y: &Scale, points: &dyn Fn(usize) -> Option<(f64, Option<f64>)>) -> f64 {
    let best = tuned.chosen.and_then(points).and_then(|(_, value)| value).map_or(0.0, |value| y.place(value));
    if best < 0.5 { frame.top + 7.0 } else { frame.bottom - 7.0 }
}

fn notes(search: &Search, tuned: &Tuned, values: &[Option<f64>], y: &Scale) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(chosen) = tuned.chosen {
        let settings = tuned.trials[chosen].settings.iter().map(|(name, value)| match value.as_f64() {
            Some(number) => format!("{name} {}", units::significant(number, 4)),
            None => format!("{name} {}", word(value)),
        });
        let settings = settings.collect::<Vec<_>>().join(", ");
        let value = values[chosen].map_or_else(String::new, |value| format!(", {}", units::significant(value, 5)));
        notes.push(format!("★ the chosen one of {} trials: {settings}{value}.", tuned.trials.len()));
    }
    if search.problems.len() > 1 {
        notes.push(format!("It was chosen by its mean rank over all {} problems.", search.problems.len()));
    }
    let has_first = tuned.chosen != Some(0) && values.first().is_some_and(Option::is_some);
    notes.push(format!(
        "Dots: one trial each{}. Every panel shows the same trials.",
        if has_first {
            ", hollow: the first, which has the default settings where they are within the ranges"
        } else {
            ""
        }
    ));
    let lost = values.iter().filter(|value| value.is_none()).count();
    let off = values.iter().flatten().filter(|value| !(0.0..=1.0).contains(&y.place(**value))).count();
    if lost + off > 0 {
        let counts = [(off, "worse than the axis shows"), (lost, "diverged or failed")];
        let counts = counts.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        notes.push(format!("×, at the edge: {}.", counts.collect::<Vec<_>>().join(", ")));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn search(values: &[Option<f64>]) -> Search {
        let trial = |(index, value): (usize, &Option<f64>)| {
            let schedule = ["constant", "cosine"][index % 2];
            let settings = json!({ "learning_rate": 0.001 * 3_f64.powi(index as i32), "batch_size": 32 << index,
                "momentum": 0.1 * index as f64, "schedule": schedule });
            json!({ "settings": settings, "values": [value] })
        };
        let best = (0..values.len()).min_by(|&a, &b| values[a].unwrap_or(9.0).total_cmp(&values[b].unwrap_or(9.0)));
        let optimizer = json!({
            "label": "sgd",
            "searched": [
                { "name": "learning_rate", "from": 1e-4, "to": 1.0, "log": true },
                { "name": "batch_size", "from": 32.0, "to": 1024.0, "log": true },
                { "name": "momentum", "from": 0.0, "to": 0.99, "log": false },
                { "name": "schedule", "among": ["constant", "cosine"] },
            ],
            "trials": values.iter().enumerate().map(trial).collect::<Vec<_>>(),
            "chosen": best.filter(|&index| values[index].is_some()),
        });
        serde_json::from_value(json!({
            "experiment": "x", "metric": "validation_loss", "seconds": 20.0, "problems": ["higgs-sim, logistic"],
            "optimizers": [optimizer],
        }))
        .unwrap()
    }

    fn scene(search: &Search) -> Option<Scene> {
        draw(search, &search.optimizers[0], 0, (0, &search.problems[0]))
    }

    #[test]
    fn no_text_leaves_the_figure_or_runs_into_another() {
        let scene = scene(&search(&[Some(0.64), Some(0.638), None, Some(0.7), Some(1e6)])).unwrap();
        let canvas = Rect::new(0.0, 0.0, scene.width, scene.height);
        let texts: Vec<_> = scene.texts().collect();
        for (index, (text, bounds)) in texts.iter().enumerate() {
            assert!(canvas.contains(bounds), "{text} leaves the figure");
            let other = texts[index + 1..].iter().find(|(_, other)| other.overlaps(bounds));
            assert!(other.is_none(), "{text} runs into {other:?}");
        }
        let said: String = texts.iter().map(|(text, _)| *text).collect();
        assert!(
            said.contains("the chosen one of 5 trials") && said.contains("1 worse than the axis shows, 1 diverged")
        );
    }

    #[test]
    fn without_a_value_there_is_no_figure() {
        assert!(scene(&search(&[None, None])).is_none());
    }
}
