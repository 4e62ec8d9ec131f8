//! The report room: reads the files of a run and draws them, as figures (SVG and PNG), as an interactive page and as
//! tables.
//!
//! It knows a run by its files alone (docs/file-formats.md) and never reaches into what produced them. [`runs::load`]
//! reads a folder; [`figures`] lays the figures out; [`write_report`] writes everything; [`summary`] prints tables.

mod axes;
pub mod compare;
mod curves;
mod draw;
mod export;
mod figure;
mod font;
mod grid;
mod groups;
mod html;
mod labels;
pub mod ledger;
mod lines;
mod measure;
mod parameters;
mod profile;
mod quality_time;
pub mod runs;
pub mod scene;
pub mod sensitivity;
mod style;
mod suboptimality;
pub mod summary;
mod time_to_target;
mod trace;
mod units;
pub mod verdict;

pub use font::Weight;
pub use runs::Runs;
pub use sensitivity::write_sensitivity;
pub use style::{Color, Dash, MarkerShape};
pub use trace::Trace;

use crate::claim::Verdict;
use crate::error::{Error, Result};
use figure::Heading;
use groups::Dataset;
use measure::Measure;
use scene::Scene;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// A figure that is ready to be drawn, or why there is none.
#[derive(Debug, Clone)]
pub struct Figure {
    /// The file's name without its ending: `accuracy-time` or, where another number tells how good a fit is, for instance
    /// `bits-time`; followed by the dataset where there are several.
    pub name: String,
    /// What it shows, in a few words.
    pub caption: String,
    /// The figure, or what is missing for it.
    pub scene: Result<Scene, String>,
    /// Names that an earlier report of the run may have given it.
    former: Vec<String>,
}

/// The figures of each dataset: accuracy, or what tells how good a fit is where that does not, versus time, versus parameters
/// and, where they differ from these, versus those that are active for a row, and versus resident bytes; suboptimality versus
/// passes, time to target, and a figure of each setting of which a grid was run. And one of all datasets where several problems have a target: the
/// performance profile.
#[must_use]
pub fn figures(runs: &Runs) -> Vec<Figure> {
    let datasets = groups::datasets(runs);
    let mut figures = Vec::new();
    for dataset in &datasets {
        let heading = heading(runs, dataset);
        let suffix = if datasets.len() > 1 { format!("-{}", file_name(&dataset.name)) } else { String::new() };
        let on = if datasets.len() > 1 { format!(" on {}", dataset.name) } else { String::new() };
        let measure = Measure::of(dataset);
        let mut add = |name: &str, caption: &str, scene| {
            let former = measure
                .other_stems()
                .filter_map(|stem| Some(format!("{stem}{}{suffix}", name.strip_prefix(measure.stem)?)));
            figures.push(Figure {
                name: format!("{name}{suffix}"),
                caption: format!("{caption}{on}"),
                scene,
                former: former.collect(),
            });
        };
        let name = |ending: &str| format!("{}-{ending}", measure.stem);
        let versus = |words: &str| format!("{} versus {words}", measure.caption);
        add(&name("time"), &versus("training time"), quality_time::draw(&heading, dataset, measure));
        add("suboptimality", "Training objective versus data passes", suboptimality::draw(&heading, dataset, runs));
        for size in parameters::sizes(dataset) {
            let scene = parameters::draw(&heading, dataset, size, measure);
            add(&name(size.ending()), &versus(size.words()), scene);
        }
        add("time-to-target", "Training time to the target", time_to_target::draw(&heading, dataset));
        for setting in grid::settings(dataset) {
            let name = format!("sensitivity-{}", file_name(&setting));
            let caption = format!("Sensitivity to {}", setting.replace('_', " "));
            add(&name, &caption, grid::draw(&heading, dataset, &setting));
        }
    }
    let title = runs.question.clone().unwrap_or_else(|| runs.name.clone());
    let heading = Heading { title, subtitle: "Performance profile".to_owned() };
    if let Some(scene) = profile::draw(&heading, &datasets) {
        let caption = "Performance profile over problems".to_owned();
        let name = "performance-profile".to_owned();
        figures.push(Figure { name, caption, scene: Ok(scene), former: Vec::new() });
    }
    figures
}

fn heading(runs: &Runs, dataset: &Dataset<'_>) -> Heading {
    let mut subtitle = dataset.description();
    if let [model] = &dataset.models[..] {
        let _ = write!(subtitle, " · {}", model.name);
    }
    Heading { title: runs.question.clone().unwrap_or_else(|| runs.name.clone()), subtitle }
}

/// The name of a run's report: that of the run's folder, so that two runs of one experiment do not share a report.
fn report_name(runs: &Runs) -> String {
    let folder = runs.folder.canonicalize().ok();
    let name = folder.as_ref().and_then(|folder| folder.file_name()).map(|name| name.to_string_lossy().into_owned());
    file_name(&name.unwrap_or_else(|| runs.name.clone()))
}

/// Draws all figures into `out/NAME/`, where NAME is that of the run's folder, as SVG and PNG, with the interactive page
/// `report.html` and `summary.md` beside them, and lists in `out/index.md` every
/// report that `out` holds. Each file is written under another name first and then renamed. Returns the files written.
///
/// # Errors
/// [`Error::Io`] where a file cannot be written.
pub fn write_report(runs: &Runs, out: &Path) -> Result<Vec<PathBuf>> {
    let folder = out.join(report_name(runs));
    fs::create_dir_all(&folder).map_err(Error::io(&folder, "create"))?;
    let figures = figures(runs);
    let mut written = Vec::new();
    for figure in &figures {
        // A figure of an earlier report would tell of cells that are no longer there.
        let stale = figure.former.iter().chain(figure.scene.is_err().then_some(&figure.name));
        for path in stale.flat_map(|name| ["svg", "png"].map(|ending| folder.join(format!("{name}.{ending}")))) {
            if path.exists() {
                fs::remove_file(&path).map_err(Error::io(&path, "remove"))?;
            }
        }
        let Ok(scene) = &figure.scene else { continue };
        written.extend(draw_pair(scene, &folder.join(&figure.name))?);
    }
    let summary_path = folder.join("summary.md");
    let verdict = verdict::verdict(runs)?;
    write_whole(&summary_path, page(runs, &figures, verdict.as_ref()).as_bytes())?;
    let html_path = folder.join("report.html");
    write_whole(&html_path, html::page(runs, verdict.as_ref()).as_bytes())?;
    let index_path = out.join("index.md");
    write_whole(&index_path, index(out)?.as_bytes())?;
    written.extend([html_path, summary_path, index_path]);
    Ok(written)
}

/// Draws a figure as `NAME.svg` and `NAME.png`, where `path` ends in NAME.
fn draw_pair(scene: &Scene, path: &Path) -> Result<[PathBuf; 2]> {
    let with = |ending: &str| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        path.with_file_name(format!("{name}.{ending}"))
    };
    let [svg_path, png_path] = [with("svg"), with("png")];
    write_whole(&svg_path, draw::svg(scene)?.as_bytes())?;
    let unfinished = unfinished_name(&png_path);
    draw::png(scene, &unfinished)?;
    fs::rename(&unfinished, &png_path).map_err(Error::io(&png_path, "write"))?;
    Ok([svg_path, png_path])
}

/// The text of `summary.md`.
fn page(runs: &Runs, figures: &[Figure], verdict: Option<&Verdict>) -> String {
    let mut page = format!("# {}\n\n", runs.question.as_deref().unwrap_or(&runs.name));
    if runs.question.is_some() {
        let _ = writeln!(page, "Experiment `{}`.\n", runs.name);
    }
    if let Some(verdict) = verdict {
        let _ = writeln!(page, "## Verdict: {}\n\n{}", verdict.outcome, ledger::expectations(verdict));
    }
    page.push_str(&summary::markdown(runs));
    for figure in figures {
        if figure.scene.is_ok() {
            let Figure { name, caption, .. } = figure;
            let _ = writeln!(page, "## {caption}\n\n[![{caption}]({name}.png)]({name}.svg)\n");
        }
    }
    let missing: Vec<_> = figures.iter().filter_map(|figure| Some((figure, figure.scene.as_ref().err()?))).collect();
    if !missing.is_empty() {
        page.push_str("## Not drawn\n\n");
        for (figure, reason) in missing {
            let _ = writeln!(page, "- {}: {reason}.", figure.caption);
        }
    }
    page
}

/// The text of `index.md`: every folder of `out` that holds a report.
fn index(out: &Path) -> Result<String> {
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(out).map_err(Error::io(out, "read"))? {
        let entry = entry.map_err(Error::io(out, "read"))?;
        if entry.path().join("summary.md").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    let mut index = "# Reports\n\n".to_owned();
    for name in names {
        let text = fs::read_to_string(out.join(&name).join("summary.md")).unwrap_or_default();
        let title = text.lines().next().and_then(|line| line.strip_prefix("# ")).unwrap_or(&name);
        let _ = writeln!(index, "- [{name}]({name}/report.html) ([summary]({name}/summary.md)): {title}");
    }
    Ok(index)
}

/// A name that can stand in a path: letters, digits, dots, hyphens and underscores.
fn file_name(name: &str) -> String {
    let mut safe = String::with_capacity(name.len());
    for character in name.chars() {
        if character.is_alphanumeric() || character == '_' || (character == '.' && !safe.is_empty()) {
            safe.push(character);
        } else if !safe.ends_with('-') && !safe.is_empty() {
            safe.push('-');
        }
    }
    let safe = safe.trim_end_matches('-');
    if safe.is_empty() { "report".to_owned() } else { safe.to_owned() }
}

fn unfinished_name(path: &Path) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".unfinished-{}-{name}", std::process::id()))
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let unfinished = unfinished_name(path);
    fs::write(&unfinished, bytes).map_err(Error::io(&unfinished, "write"))?;
    fs::rename(&unfinished, path).map_err(Error::io(path, "write"))
}
