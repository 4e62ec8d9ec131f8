//! The ledger of claims: what was claimed, where, and what came of it, as Markdown.

use super::verdict::{finding, number};
use crate::claim::{ExpectationVerdict, Verdict};
use crate::measure::environment::Environment;
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// A claim with what is known of it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The experiment's name.
    pub id: String,
    /// The claim.
    pub claim: String,
    /// Where it was made.
    pub source: Option<String>,
    /// The last verdict, if there is one.
    pub verdict: Option<Verdict>,
    /// Whether the experiment is no longer the one that the verdict is about.
    pub stale: bool,
    /// The machine that it was obtained on.
    pub machine: Option<String>,
}

impl Entry {
    /// The verdict in a few words.
    #[must_use]
    pub fn state(&self) -> String {
        match &self.verdict {
            None => "not run".to_owned(),
            Some(verdict) if self.stale => format!("{} (of an earlier version of the experiment)", verdict.line()),
            Some(verdict) => verdict.line(),
        }
    }
}

/// The machine that the cells of a run ran on, in one line.
#[must_use]
pub fn machine(run: &Path) -> Option<String> {
    let cells = fs::read_dir(run.join("cells")).ok()?;
    let mut paths: Vec<_> = cells.filter_map(|entry| Some(entry.ok()?.path().join("environment.json"))).collect();
    paths.sort();
    let text = paths.iter().find_map(|path| fs::read_to_string(path).ok())?;
    let environment: Environment = serde_json::from_str(&text).ok()?;
    let Environment { cpu, threads, gpu, system, version, commit, .. } = environment;
    let commit = commit.map(|commit| format!(" ({commit})")).unwrap_or_default();
    let threads = if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") };
    let gpu = gpu.map(|gpu| format!(", {gpu}")).unwrap_or_default();
    Some(format!("{cpu}, {threads}{gpu}, {system}, parsimony {version}{commit}"))
}

/// The whole ledger.
#[must_use]
pub fn markdown(entries: &[Entry]) -> String {
    let mut page = "# Claims and what came of them\n\n\
        Written by `parsimony claims --format markdown`; do not edit. Every row is an experiment file that states what it claims and\n\
        expectations that can fail; [expectations.md](expectations.md) says how they are judged. `parsimony claims verify ID` runs\n\
        one again.\n\n| claim | source | verdict |\n| --- | --- | --- |\n"
        .to_owned();
    for entry in entries {
        let source = entry.source.as_deref().unwrap_or("–");
        let _ = writeln!(
            page,
            "| [{0}](#{0}): {1} | {2} | {3} |",
            entry.id,
            cell(&words(&entry.claim)),
            cell(&words(source)),
            cell(&words(&entry.state()))
        );
    }
    for entry in entries {
        let _ = writeln!(page, "\n## {}\n\n{}\n", entry.id, words(&entry.claim));
        if let Some(source) = &entry.source {
            let _ = writeln!(page, "Source: {}\n", words(source));
        }
        match &entry.verdict {
            None => page.push_str("It has not been run yet.\n"),
            Some(verdict) => {
                let _ = writeln!(page, "**{}**\n\n{}", words(&entry.state()), expectations(verdict).trim_end());
                if let Some(machine) = &entry.machine {
                    let _ = writeln!(page, "\nMachine: {machine}.");
                }
            }
        }
    }
    page
}

/// The expectations of a verdict as tables, one for each dataset.
#[must_use]
pub fn expectations(verdict: &Verdict) -> String {
    let mut text = String::new();
    for dataset in &verdict.datasets {
        let aside = if dataset.settles { "" } else { " (does not settle the claim)" };
        let _ = writeln!(text, "On {}{aside}: {}.\n", words(&dataset.dataset), dataset.outcome);
        text.push_str("| expectation | verdict | left | right | how |\n| --- | --- | ---: | ---: | --- |\n");
        for expectation in &dataset.expectations {
            let side = |index: usize| expectation.sides.get(index).map_or("–".to_owned(), |side| number(*side));
            let why = expectation.why.as_deref().map(|why| format!("<br>{}", cell(&words(why)))).unwrap_or_default();
            let that = cell(&expectation.expectation);
            let _ = writeln!(
                text,
                "| `{that}`{why} | {} | {} | {} | {} |",
                expectation.outcome,
                side(0),
                side(1),
                cell(&words(&how(expectation)))
            );
        }
        text.push('\n');
    }
    text
}

/// The margin and the method, without the sides.
fn how(verdict: &ExpectationVerdict) -> String {
    let bare = ExpectationVerdict { sides: Vec::new(), ..verdict.clone() };
    finding(&bare)
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// Words as Markdown shows them as they are: no tag among them.
fn words(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// The ledger for programs.
#[must_use]
pub fn json(entries: &[Entry]) -> Value {
    entries
        .iter()
        .map(|entry| {
            serde_json::json!({
                "id": entry.id, "claim": entry.claim, "source": entry.source, "stale": entry.stale,
                "machine": entry.machine, "verdict": entry.verdict,
            })
        })
        .collect()
}
