//! `claims`: the ledger of claims, and their verification.

use super::{list, option_error, output, run};
use crate::claim::{Claim, Outcome, Verdict};
use crate::error::Result;
use crate::experiment::{Spec, read_json, say};
use crate::report::ledger::{self, Entry};
use crate::workbench::Workbench;
use clap::Subcommand;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Claims are experiments that state one: those in this program, and those of a folder given with --experiments.

Examples:
  parsimony claims                               every claim with its last verdict under runs/
  parsimony claims verify                        run what has changed or was never run, and judge all of them
  parsimony claims verify squares products       these alone
  parsimony claims --format markdown > docs/claims.md

Exit code of `claims verify`: 0 where every claim holds; 1 where one fails or a cell could not be run; 5 where none fails but
one is inconclusive.";

/// List claims with their last verdicts, or verify them
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Option<ClaimsVerb>,
    /// The folder that holds the runs
    #[arg(long, value_name = "DIR", default_value = "runs", global = true)]
    runs: PathBuf,
    /// A folder of experiment files to take instead of those in this program
    #[arg(long, value_name = "DIR", global = true)]
    experiments: Option<PathBuf>,
    /// How to print the ledger
    #[arg(long, value_enum, default_value_t, global = true)]
    format: LedgerFormat,
}

#[derive(Subcommand)]
enum ClaimsVerb {
    /// Run what is stale, judge, and print the ledger
    Verify(Verify),
}

#[derive(clap::Args)]
struct Verify {
    /// Names of claims [default: all]
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Run finished cells again
    #[arg(long)]
    force: bool,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum LedgerFormat {
    /// A table for people.
    #[default]
    Table,
    /// A page with every expectation.
    Markdown,
    /// JSON for programs.
    Json,
}

/// The experiment file of a claim.
struct Source {
    id: String,
    text: String,
    /// What names it in messages; relative paths of datasets start here.
    path: PathBuf,
}

pub fn run(workbench: &Workbench, arguments: &Arguments) -> Result<ExitCode> {
    let sources = sources(arguments.experiments.as_deref())?;
    match &arguments.verb {
        None => {
            let entries: Vec<_> = sources.iter().map(|source| entry(source, &arguments.runs)).collect();
            print(&entries, arguments.format)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(ClaimsVerb::Verify(verify)) => {
            let chosen = chosen(&sources, &verify.ids)?;
            let mut broken = false;
            for source in &chosen {
                if !verify.quiet {
                    say(format_args!("{}", source.id));
                }
                let spec = Spec::parse(&source.text, &source.path, workbench)?;
                let folder = arguments.runs.join(&spec.name);
                let outcome = run::run_and_judge(workbench, &spec, &folder, verify.force, verify.quiet, None)?;
                if outcome.interrupted {
                    say(format_args!("interrupted; run the same command again to go on"));
                    return Ok(ExitCode::from(130));
                }
                broken |= outcome.failed > 0;
            }
            let entries: Vec<_> = chosen.iter().map(|source| entry(source, &arguments.runs)).collect();
            print(&entries, arguments.format)?;
            Ok(ExitCode::from(code(broken, &entries)))
        }
    }
}

fn code(broken: bool, entries: &[Entry]) -> u8 {
    let outcomes = || entries.iter().map(|entry| entry.verdict.as_ref().map_or(Outcome::Inconclusive, |v| v.outcome));
    if broken || outcomes().any(|outcome| outcome == Outcome::Fails) {
        1
    } else if outcomes().any(|outcome| outcome == Outcome::Inconclusive) {
        5
    } else {
        0
    }
}

/// The experiments that state a claim with expectations.
fn sources(folder: Option<&Path>) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    match folder {
        None => {
            for &(name, text) in list::EXPERIMENTS {
                sources.push(Source { id: name.into(), text: text.into(), path: format!("{name}.toml").into() });
            }
        }
        Some(folder) => {
            let entries = std::fs::read_dir(folder).map_err(crate::Error::io(folder, "read"))?;
            let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
            paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
            paths.sort();
            for path in paths {
                let text = std::fs::read_to_string(&path).map_err(crate::Error::io(&path, "read"))?;
                let table: toml::Table = text.parse().unwrap_or_default();
                let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let id = table.get("name").and_then(toml::Value::as_str).map_or(stem, str::to_owned);
                sources.push(Source { id, text, path });
            }
        }
    }
    sources.retain(|source| !claim(source).expectations.is_empty());
    Ok(sources)
}

fn claim(source: &Source) -> Claim {
    Claim::of_experiment(&source.text.parse().unwrap_or_default())
}

fn chosen<'a>(sources: &'a [Source], ids: &[String]) -> Result<Vec<&'a Source>> {
    if ids.is_empty() {
        return Ok(sources.iter().collect());
    }
    let find = |id: &String| {
        sources.iter().find(|source| source.id == *id).ok_or_else(|| {
            let names = || sources.iter().map(|source| source.id.as_str());
            let all = names().collect::<Vec<_>>().join(", ");
            let remedy = format!("{}claims are {all}", crate::oracle::did_you_mean(id, names()));
            option_error("ID", format!("there is no claim `{id}`"), remedy)
        })
    };
    ids.iter().map(find).collect()
}

/// What the files under `runs` say about a claim.
fn entry(source: &Source, runs: &Path) -> Entry {
    let claim = claim(source);
    let folder = runs.join(&source.id);
    let verdict: Option<Verdict> = read_json(&folder.join("verdict.json")).ok();
    let was_run = std::fs::read_to_string(folder.join("experiment.toml")).is_ok_and(|text| text == source.text);
    Entry {
        id: source.id.clone(),
        claim: claim.text.unwrap_or_default(),
        source: claim.source,
        stale: verdict.is_some() && !was_run,
        machine: verdict.as_ref().and_then(|_| ledger::machine(&folder)),
        verdict,
    }
}

fn print(entries: &[Entry], format: LedgerFormat) -> Result<()> {
    match format {
        LedgerFormat::Json => output::json(&ledger::json(entries)),
        LedgerFormat::Markdown => output::text(&ledger::markdown(entries)),
        LedgerFormat::Table => {
            let rows = entries.iter().map(|entry| [entry.id.clone(), entry.state(), entry.claim.clone()]);
            output::text(&output::table(["claim", "verdict", "what it says"], rows))
        }
    }
}
