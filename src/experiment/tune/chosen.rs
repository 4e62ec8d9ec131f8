//! The experiment file with the chosen settings: the text of the tuned one, comments and all, with values exchanged.

use super::{Dimension, Domain, Record, Tuned};
use crate::data::open::Source as DataSource;
use crate::error::{Error, Result};
use crate::experiment::budget::readable_seconds;
use crate::experiment::document::Source;
use crate::experiment::spec::Spec;
use crate::oracle::SettingValue;
use crate::workbench::Workbench;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A searched setting as it stands in the record.
pub fn searched(dimension: &Dimension) -> Value {
    let name = dimension.setting.name;
    match &dimension.domain {
        Domain::Between { from, to, log } => json!({ "name": name, "from": from, "to": to, "log": log }),
        Domain::Among(values) => json!({ "name": name, "among": values }),
    }
}

/// The text of the chosen experiment file, which will stand at `path`.
///
/// # Errors
/// [`Error::Config`] where the file is laid out in a way that its text cannot be changed in place.
pub fn text(spec: &Spec, record: &Record, path: &Path, workbench: &Workbench) -> Result<String> {
    let name = path.display().to_string();
    let source = Source { name: &name, text: &spec.text };
    let document = source.parse()?;
    let root = document.get_ref();
    let mut edits = Edits { text: &spec.text, list: Vec::new() };
    let new_name = format!("{}-tuned", spec.name);
    match root.get("name") {
        Some(value) => edits.replace(value.span(), quoted(&new_name)),
        None => edits.insert(first_statement(&spec.text), format!("name = {}\n", quoted(&new_name))),
    }
    for (table, dataset) in tables(root, "dataset").zip(&spec.datasets) {
        // Relative paths start at the experiment file, and this one stands elsewhere.
        if let (Some(value), DataSource::File { path, .. }) = (get(table, "path"), &dataset.choice.source) {
            edits.replace(value.span(), quoted(&path.to_string_lossy()));
        }
    }
    for (table, tuned) in tables(root, "optimizer").zip(&record.optimizers) {
        enter(&mut edits, table, tuned);
    }
    edits.insert(0, header(record));
    let text = edits.applied();
    check(&text, path, record, workbench)?;
    Ok(text)
}

/// Enters the chosen settings of an optimizer into its table.
fn enter(edits: &mut Edits<'_>, table: &Spanned<DeValue<'_>>, tuned: &Tuned) {
    let Some(chosen) = tuned.chosen else { return };
    let mut added = String::new();
    let is_inline = edits.text[table.span().start..].starts_with('{');
    for (key, value) in &tuned.trials[chosen].settings {
        let value = literal(value);
        match get(table, key) {
            Some(old) => edits.replace(old.span(), value),
            None if is_inline => {
                let _ = write!(added, ", {key} = {value}");
            }
            None => {
                let _ = write!(added, "\n{key} = {value}");
            }
        }
    }
    // Behind the name, which every optimizer has: at the end of its line or, within braces, right there.
    let Some(name) = get(table, "name").map(Spanned::span) else { return };
    let rest = &edits.text[name.end..];
    let at = if is_inline { 0 } else { rest.find('\n').unwrap_or(rest.len()) };
    edits.insert(name.end + at, added);
}

fn header(record: &Record) -> String {
    comment(&format!(
        "Settings of optimizers chosen by `parsimony tune`: {} trials of {} for each, by {}, seed {}; tune.json beside this file \
         lists them all. {}",
        record.trials,
        readable_seconds(record.seconds),
        record.metric.replace('_', " "),
        record.seed,
        record.reproducibility()
    ))
}

/// A text as lines of comment, no longer than people like to read.
fn comment(text: &str) -> String {
    const WIDTH: usize = 110;
    let (mut lines, mut line) = (String::new(), String::from("#"));
    for word in text.split_whitespace() {
        if line.len() + word.len() >= WIDTH {
            let _ = writeln!(lines, "{line}");
            line = String::from("#");
        }
        let _ = write!(line, " {word}");
    }
    let _ = writeln!(lines, "{line}");
    lines
}

/// That the text says what was chosen.
fn check(text: &str, path: &Path, record: &Record, workbench: &Workbench) -> Result<()> {
    let unusable = |finding: String| {
        let remedy = "write the optimizers as [[optimizer]] tables with a `name` on a line of its own";
        Error::config(path.display(), finding, remedy)
    };
    let spec = Spec::parse(text, path, workbench)
        .map_err(|error| unusable(format!("the chosen settings do not fit into the file: {error}")))?;
    for (optimizer, tuned) in spec.optimizers.iter().zip(&record.optimizers) {
        let Some(chosen) = tuned.chosen else { continue };
        for (key, value) in &tuned.trials[chosen].settings {
            if optimizer.grid.get(key).map(Vec::as_slice) != Some(std::slice::from_ref(value)) {
                return Err(unusable(format!("`{key}` of {} could not be entered", tuned.label)));
            }
        }
    }
    Ok(())
}

/// The tables under a key, written once or several times.
fn tables<'t, 'a>(root: &'t DeTable<'a>, key: &str) -> impl Iterator<Item = &'t Spanned<DeValue<'a>>> {
    let one = root.get(key);
    let list = one.and_then(|value| value.get_ref().as_array());
    let several = list.into_iter().flat_map(|items| items.iter());
    several.chain(one.filter(|value| value.get_ref().is_table()))
}

fn get<'t, 'a>(table: &'t Spanned<DeValue<'a>>, key: &str) -> Option<&'t Spanned<DeValue<'a>>> {
    match table.get_ref() {
        DeValue::Table(table) => table.get(key),
        _ => None,
    }
}

/// A value as it stands in TOML, a real number with a point or an exponent.
fn literal(value: &SettingValue) -> String {
    match value {
        SettingValue::Real(number) => format!("{number:?}"),
        SettingValue::Word(word) => quoted(word),
        SettingValue::Whole(_) | SettingValue::Switch(_) => value.to_string(),
    }
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// Where the first line that is neither empty nor a comment begins.
fn first_statement(text: &str) -> usize {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if !line.trim().is_empty() && !line.trim_start().starts_with('#') {
            break;
        }
        at += line.len();
    }
    at
}

/// Changes of a text, by places in the text as it was.
struct Edits<'t> {
    text: &'t str,
    list: Vec<(Range<usize>, String)>,
}

impl Edits<'_> {
    fn replace(&mut self, place: Range<usize>, with: String) {
        self.list.push((place, with));
    }

    fn insert(&mut self, at: usize, what: String) {
        self.list.push((at..at, what));
    }

    /// The text with all changes.
    fn applied(mut self) -> String {
        // The last to be inserted at a place stands first there.
        self.list.reverse();
        self.list.sort_by_key(|(place, _)| place.start);
        let (mut text, mut done) = (String::new(), 0);
        for (place, with) in self.list {
            text.push_str(&self.text[done..place.start]);
            text.push_str(&with);
            done = place.end;
        }
        text.push_str(&self.text[done..]);
        text
    }
}
