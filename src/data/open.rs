//! From what an experiment file or an option says about a dataset to a [`Table`] or a [`Corpus`] and its split: the registry,
//! the readers, the store, the simulator and the generator of a language behind one door.

use super::corpus::{Corpus, Tokens};
use super::higgs_sim;
use super::locate::cache_dir;
use super::read::{ReadOptions, hex, read, read_to_describe};
use super::registry::{DatasetEntry, Kind, Part, Role, find_in, locate};
use super::small_language::{self, Parameters};
use super::store;
use super::{Format, RowOrder, SplitSpec, Table, Task};
use crate::device::panels::panel_len;
use crate::device::{PANEL_ROWS, Panels};
use crate::error::{DataError, Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Registered datasets whose files are larger than this are imported into the cache once; smaller ones are read anew.
const IMPORT_BYTES: u64 = 200 << 20;

/// A dataset by its registered name or its path, and how much of it to take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// The registered name or the path of a file.
    #[serde(flatten)]
    pub source: Source,
    /// Rows to take: so many events of a generator, the first so many of a file (of its training files, where a
    /// dataset consists of several).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<usize>,
    /// Seed of a generator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// What a text is cut into, and how much of it is taken.
    #[serde(default, skip_serializing_if = "CorpusOptions::is_standard")]
    pub corpus: CorpusOptions,
}

/// What is said about a corpus and means nothing for a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CorpusOptions {
    /// What a text is cut into (default: characters).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
    /// Tokens to take: so many of a generator, the first so many of a text (of its training files, where a dataset consists of
    /// several).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length: Option<usize>,
    /// Tokens of each part on which losses are evaluated (default: all of the parts held out).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluation_tokens: Option<usize>,
    /// Facts of the generated language.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub facts: Option<usize>,
    /// Digits of the numbers that the generated language adds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digits: Option<usize>,
}

impl CorpusOptions {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_standard(&self) -> bool {
        *self == Self::default()
    }

    /// The first of these options that is given, by its name: those that mean nothing for a table, or for a text.
    fn given(&self, for_text: bool) -> Option<&'static str> {
        let options = [
            ("tokens", self.tokens.is_some(), true),
            ("length", self.length.is_some(), true),
            ("evaluation_tokens", self.evaluation_tokens.is_some(), true),
            ("facts", self.facts.is_some(), false),
            ("digits", self.digits.is_some(), false),
        ];
        options.into_iter().find(|(_, given, of_text)| *given && !(for_text && *of_text)).map(|(name, ..)| name)
    }
}

/// Where a dataset comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A registered dataset.
    Registered(String),
    /// A file and how it is to be read.
    File {
        /// Its path.
        path: PathBuf,
        /// How it is to be read.
        #[serde(default)]
        read: ReadOptions,
    },
}

/// How a dataset is to be divided.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SplitChoice {
    /// As registered; a file of one's own by random shares of 70, 15 and 15 per cent, a text of one's own by position: the last
    /// tenth tests, the tenth before it validates.
    #[default]
    Standard,
    /// The registered split of this name.
    Named(String),
    /// As stated.
    Rule(SplitSpec),
}

/// What a dataset consists of.
#[derive(Debug, Clone)]
pub enum Data {
    /// Rows of features with a target.
    Table(Table),
    /// Tokens.
    Corpus(Corpus),
}

impl Data {
    /// The registered name or the path.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Table(table) => &table.name,
            Self::Corpus(corpus) => &corpus.name,
        }
    }

    /// SHA-256 of what it was made from.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        match self {
            Self::Table(table) => &table.fingerprint,
            Self::Corpus(corpus) => &corpus.fingerprint,
        }
    }

    /// Whether it stands for events of the real world that it does not hold.
    #[must_use]
    pub fn simulated(&self) -> bool {
        matches!(self, Self::Table(table) if table.simulated)
    }

    /// Whether its rows stand as in the source; tokens always do.
    #[must_use]
    pub fn order(&self) -> RowOrder {
        match self {
            Self::Table(table) => table.order,
            Self::Corpus(_) => RowOrder::AsRead,
        }
    }

    /// The table.
    ///
    /// # Errors
    /// [`Error::Config`] where it is a text.
    pub fn into_table(self) -> Result<Table> {
        match self {
            Self::Table(table) => Ok(table),
            Self::Corpus(corpus) => {
                let remedy = "name a table: `parsimony data list` shows which are";
                Err(Error::config(format!("dataset `{}`", corpus.name), "a text, not a table", remedy))
            }
        }
    }
}

/// A dataset in memory or mapped.
#[derive(Debug, Clone)]
pub struct Opened {
    /// Its rows or tokens.
    pub data: Data,
    /// The roles of the files they came from, with their numbers of rows or tokens, in order.
    pub files: Vec<(Role, usize)>,
}

impl Opened {
    fn of_table(table: Table) -> Self {
        Self { files: vec![(Role::All, table.rows())], data: Data::Table(table) }
    }
}

impl Choice {
    /// A registered name or a path, as the command line takes it: a name if there is one, else a path.
    ///
    /// # Errors
    /// [`Error::Config`] for a registered name with options, which its entry states; [`Error::Data`] where it is neither
    /// a registered name nor a path to anything.
    pub fn from_argument(entries: &[DatasetEntry], text: &str, read: ReadOptions) -> Result<Self> {
        let source = if entries.iter().any(|entry| entry.name == text) {
            let given = given_options(&read);
            if !given.is_empty() {
                let does = if given.len() == 1 { "does" } else { "do" };
                let finding =
                    format!("{does} not apply to the registered dataset {text}: its entry says how it is read");
                let remedy = format!("leave it out; for a file of this name give its path, ./{text}");
                return Err(Error::config(given.join(", "), finding, remedy));
            }
            Source::Registered(text.to_owned())
        } else {
            let path = PathBuf::from(text);
            if !path.exists() {
                return Err(missing(entries, &path));
            }
            Source::File { path, read }
        };
        Ok(Self { source, rows: None, seed: None, corpus: CorpusOptions::default() })
    }

    /// What reports call it, before "(simulated)".
    #[must_use]
    pub fn name(&self) -> String {
        match &self.source {
            Source::Registered(name) => name.clone(),
            Source::File { path, .. } => {
                path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
            }
        }
    }

    /// Opens the dataset. `progress` is told about an import into the cache: bytes done, bytes in all.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown name or an option that does not apply; [`Error::Data`] for files that are
    /// missing or cannot be used.
    pub fn open(&self, entries: &[DatasetEntry], progress: &dyn Fn(u64, u64)) -> Result<Opened> {
        self.open_by(entries, progress, &mut |path, options| read(path, options))
    }

    /// Opens the dataset to describe it: missing values in a file of one's own are NaN, and the number of its rows left
    /// out because of one is returned as well.
    ///
    /// # Errors
    /// As [`Choice::open`].
    pub fn open_to_describe(&self, entries: &[DatasetEntry], progress: &dyn Fn(u64, u64)) -> Result<(Opened, u64)> {
        let mut dropped_rows = 0;
        let opened = self.open_by(entries, progress, &mut |path, options| {
            let (table, dropped) = read_to_describe(path, options)?;
            dropped_rows = dropped;
            Ok(table)
        })?;
        Ok((opened, dropped_rows))
    }

    /// `read_file` reads a file of one's own.
    fn open_by(
        &self,
        entries: &[DatasetEntry],
        progress: &dyn Fn(u64, u64),
        read_file: &mut dyn FnMut(&Path, &ReadOptions) -> Result<Table>,
    ) -> Result<Opened> {
        let opened = match &self.source {
            Source::Registered(name) => {
                let entry = find_in(entries, name)?;
                match entry.kind {
                    Kind::Corpus if entry.generator.is_some() => return self.generate_language(entry),
                    Kind::Corpus => return self.open_text(&locate(entry)?, entry.files.iter().map(|file| file.role)),
                    kind => {
                        self.refuse_corpus_options(false)?;
                        match kind {
                            Kind::Generator => return self.generate(entry),
                            _ => open_registered(entry, progress)?,
                        }
                    }
                }
            }
            Source::File { path, read: options } => {
                if !path.exists() {
                    return Err(missing(entries, path));
                }
                if options.format == Some(Format::Text) {
                    super::read::check_options(Format::Text, options)?;
                    return self.open_text(std::slice::from_ref(path), [Role::All]);
                }
                self.refuse_corpus_options(false)?;
                Opened::of_table(read_file(path, options)?)
            }
        };
        self.refuse_seed()?;
        match self.rows {
            Some(rows) => first_rows(opened.data.into_table()?, opened.files, rows),
            None => Ok(opened),
        }
    }

    fn place(&self) -> String {
        format!("dataset `{}`", self.name())
    }

    fn refuse_seed(&self) -> Result<()> {
        let Some(seed) = self.seed else { return Ok(()) };
        let finding = format!("seed = {seed}, but nothing is drawn");
        let remedy = "a seed is for generators such as higgs-sim; the split has its own";
        Err(Error::config(self.place(), finding, remedy))
    }

    /// Refuses options that mean nothing for a table or for a text.
    fn refuse_corpus_options(&self, is_text: bool) -> Result<()> {
        let Some(option) = self.corpus.given(is_text) else { return Ok(()) };
        let (what, whose) = if is_text {
            ("a text", format!("belongs to the generated language `{}`", small_language::NAME))
        } else {
            ("a table", "belongs to texts (format = \"text\")".to_owned())
        };
        Err(Error::config(
            self.place(),
            format!("`{option}` is given, and it is {what}"),
            format!("leave it out; it {whose}"),
        ))
    }

    fn refuse_rows(&self) -> Result<()> {
        let Some(rows) = self.rows else { return Ok(()) };
        let remedy = "leave it out; `length` takes a number of tokens";
        Err(Error::config(self.place(), format!("rows = {rows}, and a text has no rows"), remedy))
    }

    /// Opens the files of a text.
    fn open_text(&self, paths: &[PathBuf], roles: impl IntoIterator<Item = Role>) -> Result<Opened> {
        self.refuse_corpus_options(true)?;
        self.refuse_rows()?;
        self.refuse_seed()?;
        let tokens = self.corpus.tokens.unwrap_or_default();
        let (corpus, lengths) = Corpus::open(&self.name(), paths, tokens, self.corpus.length)?;
        Ok(Opened { data: Data::Corpus(corpus), files: roles.into_iter().zip(lengths).collect() })
    }

    /// Makes a generated language; its tokens are made when they are read.
    fn generate_language(&self, entry: &DatasetEntry) -> Result<Opened> {
        if entry.name != small_language::NAME {
            let remedy = format!("the generator of this program is `{}`", small_language::NAME);
            return Err(Error::config(format!("dataset `{}`", entry.name), "there is no such generator", remedy));
        }
        self.refuse_rows()?;
        if self.corpus.tokens.is_some() {
            let finding = "`tokens` is given, and its tokens are words";
            return Err(Error::config(self.place(), finding, "leave it out; it belongs to texts"));
        }
        let (length, seed) = entry.generator.as_ref().map_or((1 << 22, 1), |g| (g.rows as usize, g.seed));
        let length = self.corpus.length.unwrap_or(length);
        let standard = Parameters::default();
        let parameters = Parameters {
            facts: self.corpus.facts.unwrap_or(standard.facts),
            digits: self.corpus.digits.unwrap_or(standard.digits),
            seed: self.seed.unwrap_or(seed),
        };
        let corpus = Corpus::generate(length, parameters)?;
        Ok(Opened { data: Data::Corpus(corpus), files: vec![(Role::All, length)] })
    }

    fn generate(&self, entry: &DatasetEntry) -> Result<Opened> {
        if entry.name != higgs_sim::NAME {
            let remedy = format!("the simulator of this program is `{}`", higgs_sim::NAME);
            return Err(Error::config(format!("dataset `{}`", entry.name), "there is no such generator", remedy));
        }
        let (rows, seed) = entry.generator.as_ref().map_or((100_000, 1), |g| (g.rows as usize, g.seed));
        let rows = self.rows.unwrap_or(rows);
        if rows == 0 || u32::try_from(rows).is_err() {
            let remedy = "`rows` takes a whole number from 1 to 4294967295";
            return Err(Error::config(format!("dataset `{}`", entry.name), format!("rows = {rows}"), remedy));
        }
        let needed = higgs_sim::table_bytes(rows);
        if let Some(shortage) = super::memory::shortage(needed) {
            let place = format!("dataset `{}`", entry.name);
            let finding =
                format!("rows = {rows} takes {} of memory, {shortage}", super::registry::readable_bytes(needed));
            let remedy = "ask for fewer rows; or write them to a store, which is mapped and not held in memory, with \
                          `parsimony data generate --out FILE.store`, and name that file";
            return Err(Error::config(place, finding, remedy));
        }
        Ok(Opened::of_table(higgs_sim::generate(self.seed.unwrap_or(seed), rows)))
    }

    /// The split of an opened dataset; `fold` matters to folds alone.
    ///
    /// # Errors
    /// [`Error::Config`] for a name that is not registered.
    pub fn split(
        &self,
        entries: &[DatasetEntry],
        split: &SplitChoice,
        opened: &Opened,
        fold: Option<usize>,
    ) -> Result<SplitSpec> {
        let entry = match &self.source {
            Source::Registered(name) => Some(find_in(entries, name)?),
            Source::File { .. } => None,
        };
        let registered = match split {
            SplitChoice::Rule(spec) => {
                let mut spec = spec.clone();
                if let (SplitSpec::Folds { fold: own, .. }, Some(fold)) = (&mut spec, fold) {
                    *own = fold;
                }
                return Ok(spec);
            }
            SplitChoice::Standard => entry.and_then(|entry| entry.splits.first()),
            SplitChoice::Named(name) => {
                let splits = entry.map_or(&[][..], |entry| &entry.splits);
                Some(splits.iter().find(|split| split.name == *name).ok_or_else(|| {
                    let known: Vec<_> = splits.iter().map(|split| split.name.as_str()).collect();
                    let known = if known.is_empty() { "none".into() } else { known.join(", ") };
                    let remedy = format!("registered: {known}; or give a rule, such as {{ last = {{ test = 1000 }} }}");
                    let place = format!("dataset `{}`", self.name());
                    Error::config(place, format!("it has no split named `{name}`"), remedy)
                })?)
            }
        };
        Ok(match (registered, &opened.data) {
            (Some(split), _) => split.rule.spec(&opened.files, fold.unwrap_or(0)),
            (None, Data::Corpus(corpus)) => SplitSpec::Last { test: corpus.len() / 10, validation: corpus.len() / 10 },
            (None, Data::Table(_)) => {
                SplitSpec::Fractions { train: 0.7, validation: 0.15, test: 0.15, seed: 1, stratified: false }
            }
        })
    }
}

/// The options given, by their names on the command line.
fn given_options(read: &ReadOptions) -> Vec<&'static str> {
    let standard = ReadOptions::default();
    let options = [
        ("--as", read.format != standard.format),
        ("--target", read.target != standard.target),
        ("--header", read.header != standard.header),
        ("--task", read.task != standard.task),
        ("--drop-missing", read.missing != standard.missing),
        ("--exclude", read.exclude != standard.exclude),
        ("--features", read.features != standard.features),
        ("--dense-limit", read.dense_limit != standard.dense_limit),
    ];
    options.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
}

/// A path that does not exist may be a mistyped name.
fn missing(entries: &[DatasetEntry], path: &Path) -> Error {
    let text = path.to_string_lossy();
    let remedy = match find_in(entries, &text) {
        Err(Error::Config { remedy, .. }) if !text.contains(['/', '\\']) => {
            format!("no dataset is registered under this name either: {remedy}")
        }
        _ => "check the path; relative paths start at the folder of the experiment file or at the current one".into(),
    };
    DataError::new(path, "there is no such file", remedy).into()
}

/// Where the store of a registered dataset lies in the cache.
#[must_use]
pub fn cached_store(name: &str) -> Option<PathBuf> {
    cache_dir().map(|dir| dir.join("stores").join(format!("{name}.store")))
}

fn open_registered(entry: &DatasetEntry, progress: &dyn Fn(u64, u64)) -> Result<Opened> {
    let paths = locate(entry);
    let cached = cached_store(&entry.name);
    if let ([file], Some(cached)) = (&entry.files[..], cached) {
        let current = match &paths {
            Ok(paths) => is_import_of(&cached, &paths[0]),
            // Whoever removed the source to save space still has what was imported from it.
            Err(_) => cached.exists(),
        };
        let large = matches!(&paths, Ok(paths) if paths[0].metadata().is_ok_and(|m| m.len() > IMPORT_BYTES));
        let imported = large && !current && file.part == Part::Both;
        if imported {
            import(entry, &cached, None, progress)?;
        }
        if current || imported {
            let table = named(store::open(&cached)?, entry)?;
            check_rows(entry, table.rows(), std::slice::from_ref(&cached))?;
            return Ok(Opened { files: vec![(file.role, table.rows())], data: Data::Table(table) });
        }
    }
    let (mut tables, mut files) = (Vec::new(), Vec::new());
    let paths = paths?;
    let mut read_paths = Vec::new();
    for (file, path) in entry.files.iter().zip(&paths) {
        if file.part != Part::Targets {
            let table = read(path, &read_options(entry))?;
            files.push((file.role, table.rows()));
            tables.push(table);
            read_paths.push(path.clone());
        }
    }
    let table = named(concatenate(&entry.name, tables)?, entry)?;
    check_rows(entry, table.rows(), &read_paths)?;
    Ok(Opened { data: Data::Table(table), files })
}

/// A file that was cut short would move whatever is counted from its end, such as the last 500,000 rows of HIGGS.
fn check_rows(entry: &DatasetEntry, rows: usize, paths: &[PathBuf]) -> Result<()> {
    let Some(expected) = entry.rows.filter(|&expected| expected != rows as u64) else { return Ok(()) };
    let finding = format!("{rows} rows, where the dataset `{}` has {expected}", entry.name);
    let remedy = format!(
        "the file is cut short or another one: remove it and run `parsimony data fetch {}`, or give it by its path",
        entry.name
    );
    let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    Err(DataError::new(paths.join(", "), finding, remedy).into())
}

/// Imports a registered dataset of one file into a store, its rows shuffled by a seed if there is one.
///
/// # Errors
/// Where the file is missing, cannot be used, or the store cannot be written.
pub fn import(
    entry: &DatasetEntry,
    out: &Path,
    shuffle: Option<u64>,
    progress: &dyn Fn(u64, u64),
) -> Result<store::ImportReport> {
    let [path] = &locate(entry)?[..] else {
        let remedy = "import its files one by one, by path";
        return Err(Error::config(format!("dataset `{}`", entry.name), "it is not one file", remedy));
    };
    // The store remembers its source, whatever folder a later run starts in.
    let path = &std::path::absolute(path).map_err(Error::io(path, "find"))?;
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder).map_err(Error::io(folder, "create"))?;
    }
    let options = store::ImportOptions { read: read_options(entry), shuffle, name: Some(entry.name.clone()) };
    let report = store::import(path, out, &options, progress)?;
    if let Err(error) = check_rows(entry, report.rows, std::slice::from_ref(path)) {
        std::fs::remove_file(out).map_err(Error::io(out, "delete"))?;
        return Err(error);
    }
    Ok(report)
}

/// Whether the store at `cached` was imported from `source`, as it is now.
fn is_import_of(cached: &Path, source: &Path) -> bool {
    let modified = |path: &Path| path.metadata().and_then(|m| m.modified()).ok();
    let newer = matches!((modified(cached), modified(source)), (Some(cached), Some(source)) if cached >= source);
    // A store that cannot be read is as good as none.
    let origin =
        || store::inspect(cached).ok().and_then(|header| Path::new(&header.provenance.source).canonicalize().ok());
    newer && origin().is_some_and(|origin| source.canonicalize().is_ok_and(|source| source == origin))
}

/// How the files of a registered dataset are read.
#[must_use]
pub fn read_options(entry: &DatasetEntry) -> ReadOptions {
    let mut options = ReadOptions { format: entry.format, ..ReadOptions::default() };
    match entry.format {
        Some(Format::Csv | Format::Tsv) => {
            options.header = Some(entry.header);
            let position = entry.target.as_ref().and_then(|t| entry.columns.iter().position(|column| column == t));
            options.target = position.map(|position| (position + 1).to_string());
        }
        Some(Format::Parquet) => options.target.clone_from(&entry.target),
        Some(Format::Libsvm) => options.features = entry.features.map(|features| features as usize),
        _ => {}
    }
    options
}

/// The table under its registered name and column names.
fn named(mut table: Table, entry: &DatasetEntry) -> Result<Table> {
    table.name.clone_from(&entry.name);
    let features: Vec<_> = entry.columns.iter().filter(|c| Some(*c) != entry.target.as_ref()).cloned().collect();
    if features.len() == table.columns.len() {
        table.columns = features;
    }
    if let Some(expected) = entry.features
        && expected as usize != table.columns.len()
    {
        let finding = format!("{} features, where `{}` has {expected}", table.columns.len(), entry.name);
        let remedy = format!("the file is not the registered one; `parsimony data fetch {}` checks it", entry.name);
        return Err(DataError::new(&table.name, finding, remedy).into());
    }
    Ok(table)
}

fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.as_bytes());
        digest.update(b"\n");
    }
    hex(&digest.finalize())
}

/// Row `row` of the panels that `place` names, copied into fresh panels: in parallel over the panels.
fn assemble<'a>(rows: usize, columns: usize, place: impl Fn(usize) -> (&'a Panels, usize) + Sync) -> Panels {
    let mut values = vec![0.0_f32; panel_len(rows, columns)];
    if columns > 0 {
        values.par_chunks_mut(PANEL_ROWS * columns).enumerate().for_each(|(panel, target)| {
            let first = panel * PANEL_ROWS;
            for row in first..rows.min(first + PANEL_ROWS) {
                let (source, index) = place(row);
                let from = &source.panel(index / PANEL_ROWS)[index % PANEL_ROWS..];
                for (slot, &value) in
                    target[row - first..].iter_mut().step_by(PANEL_ROWS).zip(from.iter().step_by(PANEL_ROWS))
                {
                    *slot = value;
                }
            }
        });
    }
    Panels::from_values(values, rows, columns)
}

/// Tables of the same columns, one after another; classes are matched by name.
fn concatenate(name: &str, mut tables: Vec<Table>) -> Result<Table> {
    let only = tables.pop();
    let Some(last) = only else {
        return Err(DataError::new(name, "the dataset has no files", "register at least one").into());
    };
    if tables.is_empty() {
        return Ok(last);
    }
    tables.push(last);
    let first = &tables[0];
    if let Some(other) = tables.iter().find(|table| table.columns != first.columns || table.task != first.task) {
        let finding = format!(
            "{} features and the targets {:?}, where {} has {} and {:?}",
            other.columns.len(),
            other.task,
            first.name,
            first.columns.len(),
            first.task
        );
        return Err(DataError::new(&other.name, finding, "the files of one dataset must have one layout").into());
    }
    let starts: Vec<usize> = tables
        .iter()
        .scan(0, |end, table| {
            let start = *end;
            *end += table.rows();
            Some(start)
        })
        .collect();
    let rows = tables.iter().map(Table::rows).sum();
    let place = |row: usize| {
        let index = starts.partition_point(|&start| start <= row) - 1;
        (index, row - starts[index])
    };
    let features = assemble(rows, first.columns.len(), |row| {
        let (index, row) = place(row);
        (&tables[index].features, row)
    });
    let targets = assemble(rows, first.targets.columns(), |row| {
        let (index, row) = place(row);
        (&tables[index].targets, row)
    });
    Ok(Table {
        name: name.to_owned(),
        simulated: tables.iter().any(|table| table.simulated),
        fingerprint: fingerprint(tables.iter().map(|table| table.fingerprint.as_str())),
        features,
        targets,
        task: first.task.clone(),
        columns: first.columns.clone(),
        order: RowOrder::AsRead,
    })
}

/// The first `wanted` rows; of a dataset in several files, the first of the first file and all of the others.
fn first_rows(table: Table, mut files: Vec<(Role, usize)>, wanted: usize) -> Result<Opened> {
    let available = files.first().map_or(0, |(_, rows)| *rows);
    if wanted == 0 || wanted > available {
        let remedy = format!("`rows` takes a whole number from 1 to {available}");
        return Err(Error::config(format!("dataset `{}`", table.name), format!("rows = {wanted}"), remedy));
    }
    if wanted == available {
        return Ok(Opened { data: Data::Table(table), files });
    }
    let rows = table.rows() - available + wanted;
    let place = |row: usize| if row < wanted { row } else { row - wanted + available };
    let features = assemble(rows, table.columns.len(), |row| (&table.features, place(row)));
    let targets = assemble(rows, table.targets.columns(), |row| (&table.targets, place(row)));
    files[0].1 = wanted;
    let fingerprint = fingerprint([table.fingerprint.as_str(), &format!("the first {wanted} rows")]);
    Ok(Opened { data: Data::Table(Table { features, targets, fingerprint, ..table }), files })
}

/// Number of classes; none for a regression.
#[must_use]
pub fn classes(task: &Task) -> Option<usize> {
    match task {
        Task::Classes(names) => Some(names.len()),
        Task::Regression => None,
    }
}
