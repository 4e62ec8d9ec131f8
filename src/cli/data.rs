//! `data`: datasets listed, described, fetched, imported, generated and verified.

use super::{Format, list, option_error, output};
use crate::data::corpus::Tokens;
use crate::data::fetch::{FetchOptions, ProgressLine, fetch_all, recorded_sha256};
use crate::data::open::{self, Choice, CorpusOptions, Data, Source, SplitChoice, cached_store};
use crate::data::read::{DENSE_LIMIT, TaskKind};
use crate::data::registry::{DataPlaces, Kind, find_in, locate, readable_bytes};
use crate::data::store::{self, ImportOptions, ImportReport};
use crate::data::{self, Description, Format as DataFormat, ReadOptions, higgs_sim, interrupt};
use crate::error::{DataError, Error, Result};
use crate::workbench::Workbench;
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

const EXAMPLES: &str = "\
Examples:
  parsimony data list
  parsimony data describe higgs-sim
  parsimony data describe mine.csv --target label
  parsimony data describe mine.txt --tokens bytes
  parsimony data describe small-language --facts 100
  parsimony data fetch mnist
  parsimony data import HIGGS.csv.gz --out higgs.store
  parsimony data import higgs                      into the cache: later runs open at once
  parsimony data generate --rows 1000000 --seed 7 --out events.csv
  parsimony data verify higgs.store";

/// List, describe, fetch, import, generate or verify datasets
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List the registered datasets
    List {
        /// How to print it
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Show rows, classes and a summary of every column; of a text its tokens and parts
    Describe {
        /// A registered name or a file
        data: String,
        #[command(flatten)]
        read: ReadArguments,
        #[command(flatten)]
        corpus: CorpusArguments,
        /// Take the first so many rows only (of a generator: make so many)
        #[arg(long)]
        rows: Option<usize>,
        /// How to print it
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Write a file once as a store that later runs open at once
    Import {
        /// A registered name or a file
        data: String,
        /// The store to write [default: for a registered name, the cache]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        read: ReadArguments,
        /// Shuffle the rows once, by this seed, so that consecutive rows serve as random minibatches
        #[arg(long, value_name = "SEED")]
        shuffle: Option<u64>,
        /// How to print the outcome
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Write simulated HIGGS events as CSV or as a store
    Generate {
        /// The generator
        #[arg(default_value = higgs_sim::NAME)]
        name: String,
        /// Number of events
        #[arg(long, default_value_t = 100_000)]
        rows: usize,
        /// Seed
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// The file to write: a store if its name ends in .store, else CSV in the layout of the HIGGS file
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Download a registered dataset, or check the files that are there
    Fetch {
        /// Its name
        name: String,
        /// The data folder to fill [default: the cache]
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// A mirror laid out as a data folder is
        #[arg(long, value_name = "URL")]
        mirror: Option<String>,
    },
    /// Compare a store with its checksums, or the files of a registered dataset with theirs; check that a text is UTF-8
    Verify {
        /// A store, a text or a registered name
        data: String,
    },
}

#[derive(clap::Args)]
struct ReadArguments {
    /// The file's format, where it is not to be recognized: csv, tsv, libsvm, parquet, idx, text, store
    #[arg(long = "as", value_name = "FORMAT")]
    as_format: Option<DataFormat>,
    /// The target column, by name or number counted from 1; `y*` for all whose names begin with y
    #[arg(long, value_name = "COLUMN")]
    target: Option<String>,
    /// Whether the first line holds column names
    #[arg(long, value_name = "YES")]
    header: Option<bool>,
    /// What the target is, where that is not to be recognized
    #[arg(long, value_enum)]
    task: Option<TaskKind>,
    /// Leave rows out in which a value is missing
    #[arg(long)]
    drop_missing: bool,
    /// Columns to leave out, by name or number
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    exclude: Vec<String>,
    /// The number of features of a LIBSVM file whose rows never mention the last ones
    #[arg(long, value_name = "N")]
    features: Option<usize>,
    /// The most bytes that sparse or very wide input may take once dense
    #[arg(long, value_name = "BYTES", default_value_t = DENSE_LIMIT)]
    dense_limit: u64,
}

#[derive(clap::Args)]
struct CorpusArguments {
    /// What a text is cut into [default: characters]
    #[arg(long, value_enum)]
    tokens: Option<Tokens>,
    /// Take the first so many tokens of a text only (of a generated language: make so many)
    #[arg(long, value_name = "TOKENS")]
    length: Option<usize>,
    /// Facts of the generated language
    #[arg(long)]
    facts: Option<usize>,
    /// Digits of the numbers that the generated language adds
    #[arg(long)]
    digits: Option<usize>,
}

impl CorpusArguments {
    fn options(&self) -> CorpusOptions {
        let &Self { tokens, length, facts, digits } = self;
        CorpusOptions { tokens, length, facts, digits, evaluation_tokens: None }
    }
}

impl ReadArguments {
    fn options(&self) -> ReadOptions {
        let missing = if self.drop_missing { data::read::Missing::DropRows } else { data::read::Missing::Refuse };
        ReadOptions {
            format: self.as_format,
            target: self.target.clone(),
            header: self.header,
            task: self.task,
            missing,
            exclude: self.exclude.clone(),
            features: self.features,
            dense_limit: self.dense_limit,
        }
    }
}

pub fn run(workbench: &Workbench, arguments: &Arguments) -> Result<()> {
    match &arguments.verb {
        Verb::List { format: Format::Json } => {
            let all: Vec<_> = workbench.datasets.iter().map(list::dataset_json).collect();
            output::json(&all)
        }
        Verb::List { format: Format::Table } => output::text(&list::datasets(&workbench.datasets)),
        Verb::Describe { data, read, corpus, rows, format } => {
            let choice = Choice::from_argument(&workbench.datasets, data, read.options())?;
            let choice = Choice { rows: *rows, corpus: corpus.options(), ..choice };
            if !is_corpus(workbench, &choice)? {
                return describe(workbench, &choice, *format);
            }
            if rows.is_some() {
                return Err(option_error("--rows", format!("{data} is a text, which has no rows"), "give --length"));
            }
            describe_corpus(workbench, choice, *format)
        }
        Verb::Import { data, out, read, shuffle, format } => {
            let report = import(workbench, data, out.as_deref(), read, *shuffle)?;
            match format {
                Format::Json => output::json(&report),
                Format::Table => output::text(&format!(
                    "{} rows of {} features ({}) into {}, {} in {:.1} s{}\n",
                    report.rows,
                    report.columns.len(),
                    report.format,
                    report.store.display(),
                    readable_bytes(report.bytes),
                    report.seconds,
                    match report.dropped_rows {
                        0 => String::new(),
                        dropped => format!("; {dropped} rows left out because a value was missing"),
                    }
                )),
            }
        }
        Verb::Generate { name, rows, seed, out } => generate(workbench, name, *rows, *seed, out),
        Verb::Fetch { name, dir, mirror } => fetch(workbench, name, dir.as_deref(), mirror.as_deref()),
        Verb::Verify { data } => verify(workbench, data),
    }
}

fn describe(workbench: &Workbench, choice: &Choice, format: Format) -> Result<()> {
    let (opened, dropped_rows) = choice.open_to_describe(&workbench.datasets, &|_, _| ())?;
    let description = Description { dropped_rows, ..data::describe(&opened.data.into_table()?) };
    match format {
        Format::Json => output::json(&description),
        Format::Table => output::text(&format!("{description}\n")),
    }
}

/// Whether a dataset is a text, or words made by a generator.
fn is_corpus(workbench: &Workbench, choice: &Choice) -> Result<bool> {
    Ok(match &choice.source {
        Source::Registered(name) => find_in(&workbench.datasets, name)?.kind == Kind::Corpus,
        Source::File { path, read } => read.format.map_or_else(|| data::read::detect(path), Ok)? == DataFormat::Text,
    })
}

/// A corpus under its registered or its usual split.
fn describe_corpus(workbench: &Workbench, mut choice: Choice, format: Format) -> Result<()> {
    if let Source::File { read, .. } = &mut choice.source {
        read.format = Some(DataFormat::Text);
    }
    let opened = choice.open(&workbench.datasets, &|_, _| ())?;
    let split = choice.split(&workbench.datasets, &SplitChoice::Standard, &opened, None)?;
    let Data::Corpus(corpus) = opened.data else { return Ok(()) };
    // A text that cannot be divided so can be looked at all the same.
    let corpus = corpus.split(&split).unwrap_or(corpus);
    let description = data::corpus::describe(&corpus);
    match format {
        Format::Json => output::json(&description),
        Format::Table => output::text(&format!("{description}\n")),
    }
}

/// A bar on standard error.
fn bar(what: &'static str, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.with_prefix(what)
}

fn import(
    workbench: &Workbench,
    data: &str,
    out: Option<&Path>,
    read: &ReadArguments,
    shuffle: Option<u64>,
) -> Result<ImportReport> {
    interrupt::install();
    let template = "{prefix} {bar:24} {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left";
    let bar = bar("importing", template);
    let progress = |done: u64, total: u64| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let choice = Choice::from_argument(&workbench.datasets, data, read.options())?;
    let report = match (&choice.source, out) {
        (Source::Registered(name), out) => {
            let entry = find_in(&workbench.datasets, name)?;
            if shuffle.is_some() && out.is_none() {
                let remedy = "its registered splits go by row number: write a shuffled store elsewhere with --out";
                return Err(option_error("--shuffle", "the store in the cache keeps the order of rows", remedy));
            }
            let out = match out {
                Some(out) => out.to_owned(),
                None => cached_store(name).ok_or_else(|| no_cache("--out"))?,
            };
            open::import(entry, &out, shuffle, &progress)
        }
        (Source::File { .. }, None) => {
            let remedy = "say where the store goes: --out FILE.store";
            Err(option_error("--out", "it is needed for a file", remedy))
        }
        (Source::File { path, read }, Some(out)) => {
            let options = ImportOptions { read: read.clone(), shuffle, name: None };
            store::import(path, out, &options, &progress)
        }
    };
    bar.finish_and_clear();
    report
}

fn no_cache(option: &str) -> Error {
    option_error(option, "no cache folder is known", "set PARSIMONY_CACHE_DIR or HOME, or give the option")
}

fn generate(workbench: &Workbench, name: &str, rows: usize, seed: u64, out: &Path) -> Result<()> {
    if find_in(&workbench.datasets, name)?.kind != Kind::Generator || name != higgs_sim::NAME {
        let remedy = format!("the simulator of this program is `{}`", higgs_sim::NAME);
        return Err(Error::config(format!("dataset `{name}`"), "there is no such generator", remedy));
    }
    // What reads the file counts rows in 32 bits.
    if rows == 0 || u32::try_from(rows).is_err() {
        return Err(option_error("--rows", rows, "it takes a whole number from 1 to 4294967295"));
    }
    interrupt::install();
    let bar = bar("generating", "{prefix} {bar:24} {human_pos} of {human_len} events, {per_sec}, {eta} left");
    bar.set_length(rows as u64);
    let progress = |done: usize| bar.set_position(done as u64);
    let to_store = out.extension().is_some_and(|extension| extension == "store");
    let write = if to_store { higgs_sim::write_store } else { higgs_sim::write_csv };
    let written = write(seed, rows, out, &progress);
    bar.finish_and_clear();
    written?;
    output::text(&format!("{rows} simulated events into {}\n", out.display()))
}

fn fetch(workbench: &Workbench, name: &str, dir: Option<&Path>, mirror: Option<&str>) -> Result<()> {
    static INTERRUPTED: AtomicBool = AtomicBool::new(false);
    let entry = find_in(&workbench.datasets, name)?;
    let folder = match dir {
        Some(dir) => dir.to_owned(),
        None => DataPlaces::from_env().downloads.ok_or_else(|| no_cache("--dir"))?,
    };
    // A second Ctrl-C after the first was noticed ends the program the ordinary way: the part received stays.
    let _ = ctrlc::set_handler(|| INTERRUPTED.store(true, std::sync::atomic::Ordering::Relaxed));
    let line = ProgressLine::default();
    let options =
        FetchOptions { base_url: mirror, progress: &line, interrupt: Some(&INTERRUPTED), ..FetchOptions::new(&folder) };
    let paths = fetch_all(entry, &options)?;
    let lines: String = paths.iter().map(|path| format!("{}\n", path.display())).collect();
    output::text(&lines)
}

fn verify(workbench: &Workbench, data: &str) -> Result<()> {
    let choice = Choice::from_argument(&workbench.datasets, data, ReadOptions::default())?;
    let name = match &choice.source {
        Source::File { path, .. } if data::read::detect(path)? == DataFormat::Text => {
            let text = data::read_text(path)?;
            return output::text(&format!(
                "{}: {} of UTF-8; SHA-256 {}\n",
                path.display(),
                readable_bytes(text.bytes().len() as u64),
                text.fingerprint
            ));
        }
        Source::File { path, .. } => {
            let bytes = store::verify(path)?;
            return output::text(&format!(
                "{}: all {} are as they were written\n",
                path.display(),
                readable_bytes(bytes)
            ));
        }
        Source::Registered(name) => name,
    };
    let entry = find_in(&workbench.datasets, name)?;
    let paths = locate(entry)?;
    if paths.is_empty() {
        return output::text(&format!("{name} is generated: there is nothing to verify\n"));
    }
    let mut text = String::new();
    for (file, path) in entry.files.iter().zip(paths) {
        let pinned = match &file.zip_member {
            Some(member) => member.sha256.as_ref(),
            None => file.sha256.as_ref(),
        };
        let as_served = path.ends_with(&file.path);
        let found = sha256(&path)?;
        let expected = match pinned.filter(|_| as_served) {
            Some(pinned) => Some((pinned.clone(), "registered", "")),
            // What the first download brought stands beside the file.
            None => recorded_sha256(&path)?.map(|recorded| (recorded, "recorded", " and the .sha256 file beside it")),
        };
        text.push_str(&match expected {
            Some((expected, how, _)) if expected == found => format!("{}: as {how}\n", path.display()),
            Some((expected, how, record)) => {
                let finding = format!("its SHA-256 is {found}, where {expected} is {how}");
                let remedy = format!("remove it{record} and run `parsimony data fetch {name}`");
                return Err(DataError::new(&path, finding, remedy).into());
            }
            None => format!("{}: nothing to compare with; SHA-256 {found}\n", path.display()),
        });
    }
    output::text(&text)
}

fn sha256(path: &Path) -> Result<String> {
    let mut file = std::fs::File::open(path).map_err(Error::io(path, "read"))?;
    let (mut digest, mut chunk) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut chunk).map_err(Error::io(path, "read"))? {
            0 => return Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            read => digest.update(&chunk[..read]),
        }
    }
}
