//! `claims`: the ledger of claims, and their verification.

use super::{list, option_error, output, run};
use crate::claim::{Claim, Outcome, Verdict};
use crate::error::Result;
use crate::experiment::{Spec, identity, read_json, say};
use crate::report::ledger::{self, Entry};
use crate::report::verdict;
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

Exit code of `claims verify`: 0 where every claim holds; 1 where one fails or a claim or a cell could not be run; 5 where none
fails but one is inconclusive.";

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
    let Some(ClaimsVerb::Verify(verify)) = &arguments.verb else {
        print(&entries(sources.iter(), &arguments.runs)?, arguments.format)?;
        return Ok(ExitCode::SUCCESS);
    };
    let chosen = chosen(&sources, &verify.ids)?;
    // Mistakes in any of the files are found before the first of them runs.
    let specs: Vec<Spec> =
        chosen.iter().map(|source| Spec::parse(&source.text, &source.path, workbench)).collect::<Result<_>>()?;
    let mut broken = false;
    for spec in &specs {
        if !verify.quiet {
            say(&spec.name);
        }
        let folder = arguments.runs.join(&spec.name);
        let (outcome, verdict) = match run::run_and_judge(workbench, spec, &folder, verify.force, verify.quiet, None) {
            Ok(done) => done,
            // One that cannot be run keeps nobody from the others.
            Err(error) if !output::is_broken_pipe(&error) => {
                say(format_args!("{}: {error}", spec.name));
                broken = true;
                continue;
            }
            Err(error) => return Err(error),
        };
        if outcome.interrupted {
            say("interrupted; run the same command again to go on");
            return Ok(ExitCode::from(130));
        }
        if let Some(verdict) = verdict.filter(|_| arguments.format == LedgerFormat::Table) {
            output::text(&verdict::text(&verdict))?;
        }
        broken |= outcome.failed > 0;
    }
    let entries = entries(chosen.iter().copied(), &arguments.runs)?;
    print(&entries, arguments.format)?;
    Ok(ExitCode::from(code(broken, &entries)))
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
                let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                sources.push(Source { id: stem, text, path });
            }
        }
    }
    let mut claims = Vec::new();
    for mut source in sources {
        let table: toml::Table = source.text.parse().map_err(|error: toml::de::Error| {
            let remedy = "mend it, or take it out of the folder";
            crate::Error::config(source.path.display(), format!("not readable as TOML: {}", error.message()), remedy)
        })?;
        if let Some(name) = table.get("name").and_then(toml::Value::as_str) {
            source.id = name.to_owned();
        }
        // Whether its expectations can be read is found when it is run.
        if table.contains_key("expect") {
            claims.push(source);
        }
    }
    Ok(claims)
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

fn entries<'a>(sources: impl Iterator<Item = &'a Source>, runs: &Path) -> Result<Vec<Entry>> {
    sources.map(|source| entry(source, runs)).collect()
}

/// What the files under `runs` say about a claim.
fn entry(source: &Source, runs: &Path) -> Result<Entry> {
    let claim = claim(source);
    let folder = runs.join(&source.id);
    let path = folder.join("verdict.json");
    let verdict: Option<Verdict> = path.exists().then(|| read_json(&path)).transpose()?;
    let now = identity(&source.text);
    Ok(Entry {
        id: source.id.clone(),
        claim: claim.text.unwrap_or_default(),
        source: claim.source,
        stale: verdict.as_ref().is_some_and(|verdict| verdict.experiment.as_ref() != Some(&now)),
        machine: verdict.as_ref().and_then(|_| ledger::machine(&folder)),
        verdict,
    })
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
