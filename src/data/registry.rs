//! The registered datasets: what each is, where it comes from, how it is checked and how it is split.
//!
//! An entry is one TOML file in `datasets/`, embedded in the program; `datasets/README.md` explains the keys. A caller
//! may add entries of its own: every function here that takes a list of entries takes any list ([`find_in`]).

use crate::data::{Format, SplitSpec};
use crate::error::{DataError, Error, Result};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use std::sync::LazyLock;

/// The embedded entries: file name in `datasets/` and text, in order of their names.
const SOURCES: &[(&str, &str)] = &[
    ("a9a.toml", include_str!("../../datasets/a9a.toml")),
    ("banknote.toml", include_str!("../../datasets/banknote.toml")),
    ("enwik8.toml", include_str!("../../datasets/enwik8.toml")),
    ("german-numer.toml", include_str!("../../datasets/german-numer.toml")),
    ("heart-scale.toml", include_str!("../../datasets/heart-scale.toml")),
    ("higgs.toml", include_str!("../../datasets/higgs.toml")),
    ("higgs-sample.toml", include_str!("../../datasets/higgs-sample.toml")),
    ("higgs-sim.toml", include_str!("../../datasets/higgs-sim.toml")),
    ("layer-pairs.toml", include_str!("../../datasets/layer-pairs.toml")),
    ("mnist.toml", include_str!("../../datasets/mnist.toml")),
    ("mushrooms.toml", include_str!("../../datasets/mushrooms.toml")),
    ("small-language.toml", include_str!("../../datasets/small-language.toml")),
    ("sonar.toml", include_str!("../../datasets/sonar.toml")),
    ("splice.toml", include_str!("../../datasets/splice.toml")),
    ("svmguide1.toml", include_str!("../../datasets/svmguide1.toml")),
    ("text8.toml", include_str!("../../datasets/text8.toml")),
    ("tiny-shakespeare.toml", include_str!("../../datasets/tiny-shakespeare.toml")),
    ("w8a.toml", include_str!("../../datasets/w8a.toml")),
    ("war-and-peace.toml", include_str!("../../datasets/war-and-peace.toml")),
    ("wikitext-2.toml", include_str!("../../datasets/wikitext-2.toml")),
    ("wikitext-2-small.toml", include_str!("../../datasets/wikitext-2-small.toml")),
];

/// A dataset's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Rows of features with a target.
    Table,
    /// A text, or words made by a generator in this program.
    Corpus,
    /// Rows made by a simulator in this program.
    Generator,
}

/// The part of the data that a file holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Everything; the splits say what is what.
    #[default]
    All,
    /// Rows to train on (and to take validation rows from).
    Train,
    /// Validation rows.
    Validation,
    /// Test rows.
    Test,
}

/// The columns that a file holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Features and targets.
    #[default]
    Both,
    /// Features alone.
    Features,
    /// Targets alone.
    Targets,
}

/// The one member of a zip archive that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZipMember {
    /// Its name in the archive.
    pub name: String,
    /// Its size in bytes once extracted, where known.
    pub bytes: Option<u64>,
    /// SHA-256 of the extracted bytes in lower-case hexadecimal, where known.
    pub sha256: Option<String>,
}

/// One file of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataFile {
    /// Where it lies within a data directory, with `/` between folders.
    pub path: String,
    /// Other names under which it is accepted there (decompressed, or as others name it).
    #[serde(default)]
    pub alternatives: Vec<String>,
    /// Which part of the data it holds.
    #[serde(default)]
    pub role: Role,
    /// Which columns it holds.
    #[serde(default)]
    pub part: Part,
    /// Addresses, the official one first; none where it cannot be downloaded.
    #[serde(default)]
    pub urls: Vec<String>,
    /// Size in bytes of what the addresses serve, where known.
    pub bytes: Option<u64>,
    /// SHA-256 of what the addresses serve, in lower-case hexadecimal; recorded at the first download where unknown.
    pub sha256: Option<String>,
    /// Set where the addresses serve a zip archive of which one member is the file.
    pub zip_member: Option<ZipMember>,
}

/// A class: its label in the files and what it means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// The label; numbers are compared as numbers (`1`, `+1` and `1.0` are one label).
    pub label: String,
    /// Its meaning, where the source states one.
    pub name: Option<String>,
}

/// How rows (of a table) or tokens (of a corpus) are divided. Whatever is neither validation nor test is training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum SplitRule {
    /// The last `test` rows are the test set, the `validation` rows before them the validation set.
    Last {
        /// Rows (or tokens) of the validation set.
        validation: usize,
        /// Rows (or tokens) of the test set.
        test: usize,
    },
    /// Fold `k` tests on the rows with `row % count == k`, rows counted from 0, and validates on those of the next fold,
    /// cyclically.
    Folds {
        /// Number of folds, at least 3 so that something is left to train on.
        count: usize,
    },
    /// By the files' [`Role`], in the order train, validation, test; the last `validation` rows (or tokens) of the
    /// training files are for validation too.
    Files {
        /// Rows (or tokens) of the validation set taken from the training files.
        validation: usize,
    },
    /// Consecutive shares in the order train, validation, test, each boundary rounded down.
    Consecutive {
        /// Share of the training set.
        train: f64,
        /// Share of the validation set.
        validation: f64,
        /// Share of the test set.
        test: f64,
    },
    /// Shares drawn at random.
    Fractions {
        /// Share of the training set.
        train: f64,
        /// Share of the validation set.
        validation: f64,
        /// Share of the test set.
        test: f64,
        /// Seed of the draw.
        seed: u64,
        /// Whether each class is divided in the same proportions.
        stratified: bool,
    },
}

impl SplitRule {
    /// The rule for files with these rows (or tokens), which are taken one after another in the entry's order; `fold`
    /// matters to [`SplitRule::Folds`] alone.
    #[must_use]
    pub fn spec(&self, files: &[(Role, usize)], fold: usize) -> SplitSpec {
        let of_role = |wanted| files.iter().filter(|(role, _)| *role == wanted).map(|(_, rows)| rows).sum::<usize>();
        match *self {
            Self::Last { validation, test } => SplitSpec::Last { test, validation },
            Self::Folds { count } => SplitSpec::Folds { count, fold, validation: None, seed: 0 },
            Self::Files { validation } => {
                SplitSpec::Last { test: of_role(Role::Test), validation: of_role(Role::Validation) + validation }
            }
            Self::Consecutive { train, validation, .. } => {
                let rows = files.iter().map(|(_, rows)| rows).sum();
                // The shares are at most 1, but for rounding: kept within the rows.
                let boundary = |share: f64| ((rows as f64 * share + 1e-6) as usize).min(rows);
                let (first, second) = (boundary(train), boundary(train + validation));
                SplitSpec::Ranges { train: [0, first], validation: [first, second], test: [second, rows] }
            }
            Self::Fractions { train, validation, test, seed, stratified } => {
                SplitSpec::Fractions { train, validation, test, seed, stratified }
            }
        }
    }
}

/// A named division of a dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// Its name.
    pub name: String,
    /// One line for people.
    pub doc: String,
    /// The rule.
    pub rule: SplitRule,
}

/// What a generator makes unless told otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generator {
    /// Number of rows, or of tokens.
    #[serde(alias = "tokens")]
    pub rows: u64,
    /// Seed.
    pub seed: u64,
}

/// A registered dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetEntry {
    /// The name that `--data` takes: lower-case letters, digits and hyphens.
    pub name: String,
    /// One line for lists.
    pub title: String,
    /// A few lines for people.
    pub doc: String,
    /// Table, corpus or generator.
    pub kind: Kind,
    /// True where the rows are simulated by this program: every report says so.
    #[serde(default)]
    pub simulated: bool,
    /// The files' layout; none for a generator.
    pub format: Option<Format>,
    /// Whether the first line of a CSV file names the columns.
    #[serde(default)]
    pub header: bool,
    /// Number of rows in all files together, where fixed.
    pub rows: Option<u64>,
    /// Number of features, where fixed.
    pub features: Option<u32>,
    /// Name of the target among `columns`, or, of a Parquet file, which names its columns itself, among those, `y*` for all
    /// that begin so; none where the format itself says (LIBSVM, IDX) and for a corpus.
    pub target: Option<String>,
    /// Names of all columns in the files' order, the target's included.
    #[serde(default)]
    pub columns: Vec<String>,
    /// The classes; empty for a regression and for a corpus.
    #[serde(default)]
    pub classes: Vec<Class>,
    /// The dataset's own page.
    pub homepage: Option<String>,
    /// Terms of use.
    pub licence: String,
    /// The work to cite.
    pub citation: String,
    /// How the files came about, where they cannot be downloaded.
    pub how_made: Option<String>,
    /// The generator's defaults.
    pub generator: Option<Generator>,
    /// The files, in the order in which [`locate`] returns them.
    #[serde(default)]
    pub files: Vec<DataFile>,
    /// The named splits; the first is the default.
    #[serde(default)]
    pub splits: Vec<Split>,
}

impl DatasetEntry {
    /// Reads an entry from TOML. `place` names the text in messages (a path).
    ///
    /// # Errors
    /// [`Error::Config`] for a syntax error, an unknown key, or values that contradict each other.
    pub fn from_toml(text: &str, place: &str) -> Result<Self> {
        const REMEDY: &str = "datasets/README.md lists the keys of a dataset and what they take";
        let entry: Self =
            toml::from_str(text).map_err(|error| Error::config(place, error.to_string().trim_end(), REMEDY))?;
        entry.check().map_err(|finding| Error::config(place, finding, REMEDY))?;
        Ok(entry)
    }

    /// Whether every file of it has an address.
    #[must_use]
    pub fn downloadable(&self) -> bool {
        !self.files.is_empty() && self.files.iter().all(|file| !file.urls.is_empty())
    }

    /// Bytes to download, where all sizes are known.
    #[must_use]
    pub fn download_bytes(&self) -> Option<u64> {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// What the types alone cannot say; the finding on a contradiction.
    fn check(&self) -> Result<(), String> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || !self.name.chars().all(plain) {
            return Err(format!("name = {:?}: lower-case letters, digits and hyphens are expected", self.name));
        }
        let is_generated = self.generator.is_some();
        if self.kind != Kind::Corpus && (self.kind == Kind::Generator) != is_generated {
            return Err(
                "a [generator] section belongs to kind = \"generator\" or \"corpus\", and a generator has one".into()
            );
        }
        if is_generated == (self.format.is_some() && !self.files.is_empty()) {
            return Err(
                "what has no [generator] has a format and at least one [[files]] section, a generator none".into()
            );
        }
        if !is_generated && (self.kind == Kind::Corpus) != (self.format == Some(Format::Text)) {
            return Err("format = \"text\" belongs to kind = \"corpus\" and to no other kind".into());
        }
        let named = |target: &&String| !self.columns.contains(target) && self.format != Some(Format::Parquet);
        if let Some(target) = self.target.as_ref().filter(named) {
            return Err(format!("target = {target:?} is none of the columns"));
        }
        self.files.iter().try_for_each(DataFile::check)?;
        self.splits.iter().try_for_each(|split| split.check(&self.files))
    }
}

impl DataFile {
    fn check(&self) -> Result<(), String> {
        for path in std::iter::once(&self.path).chain(&self.alternatives) {
            let inside = !path.is_empty() && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
            if !inside || path.contains('\\') {
                return Err(format!("path = {path:?} does not lie within a data directory"));
            }
        }
        if let Some(url) = self.urls.iter().find(|url| !url.starts_with("https://") && !url.starts_with("http://")) {
            return Err(format!("url {url:?} starts with neither https:// nor http://"));
        }
        let member = self.zip_member.as_ref().and_then(|member| member.sha256.as_ref());
        for digest in self.sha256.iter().chain(member) {
            if digest.len() != 64 || !digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                return Err(format!("sha256 = {digest:?} is not 64 lower-case hexadecimal digits"));
            }
        }
        Ok(())
    }
}

impl Split {
    fn check(&self, files: &[DataFile]) -> Result<(), String> {
        let problem = match self.rule {
            SplitRule::Last { .. } => None,
            SplitRule::Folds { count } => (count < 3).then_some("count must be at least 3"),
            SplitRule::Files { .. } => {
                let ordered = files.is_sorted_by_key(|file| file.role as u8);
                let has = |role| files.iter().any(|file| file.role == role);
                let complete = has(Role::Train) && has(Role::Test) && !has(Role::All);
                (!ordered || !complete)
                    .then_some("the roles must be train, validation (if any) and test, in this order")
            }
            SplitRule::Consecutive { train, validation, test }
            | SplitRule::Fractions { train, validation, test, .. } => {
                let shares = [train, validation, test];
                let valid = shares.iter().all(|share| (0.0..=1.0).contains(share))
                    && (shares.iter().sum::<f64>() - 1.0).abs() < 1e-9;
                (!valid).then_some("the three shares must be between 0 and 1 and add up to 1")
            }
        };
        problem.map_or(Ok(()), |problem| Err(format!("split {:?}: {problem}", self.name)))
    }
}

/// All registered datasets in order of their names.
#[must_use]
pub fn registry() -> &'static [DatasetEntry] {
    static REGISTRY: LazyLock<Vec<DatasetEntry>> = LazyLock::new(|| {
        let read = |(place, text): &(&str, &str)| match DatasetEntry::from_toml(text, place) {
            Ok(entry) => entry,
            // The text was embedded at build time and a test reads each: not reachable from user input.
            Err(error) => unreachable!("embedded dataset: {error}"),
        };
        let mut entries: Vec<_> = SOURCES.iter().map(read).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries
    });
    &REGISTRY
}

/// The registered dataset of this name.
///
/// # Errors
/// [`Error::Config`] for an unknown name, with the nearest registered one.
pub fn find(name: &str) -> Result<&'static DatasetEntry> {
    find_in(registry(), name)
}

/// The dataset of this name among `entries`.
///
/// # Errors
/// As [`find`].
pub fn find_in<'a>(entries: &'a [DatasetEntry], name: &str) -> Result<&'a DatasetEntry> {
    if let Some(entry) = entries.iter().find(|entry| entry.name == name) {
        return Ok(entry);
    }
    let wanted = name.to_lowercase().replace(['_', ' ', '.'], "-");
    let nearest = entries
        .iter()
        .map(|entry| (strsim::jaro_winkler(&wanted, &entry.name), entry))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let guess = nearest.map(|(_, entry)| format!("did you mean `{}`? ", entry.name)).unwrap_or_default();
    let remedy = format!("{guess}`parsimony data list` shows the registered ones; a path to a file is taken as well");
    Err(Error::config("dataset", format_args!("no dataset is named `{name}`"), remedy))
}

/// Where data files are looked for and where downloads go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DataPlaces {
    /// Folders named by the user, searched first, in order.
    pub directories: Vec<PathBuf>,
    /// The folder that downloads go to, searched last; none where no home is known.
    pub downloads: Option<PathBuf>,
}

impl DataPlaces {
    /// From the environment: `PARSIMONY_DATA_DIR` (several folders between `:`, as in `PATH`), then the subfolder
    /// `datasets` of the cache: `PARSIMONY_CACHE_DIR`, else `$XDG_CACHE_HOME/parsimony`, else `~/.cache/parsimony`.
    #[must_use]
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var_os(name))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let directories = set("PARSIMONY_DATA_DIR")
            .map(|list| std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect())
            .unwrap_or_default();
        // The XDG specification has relative paths ignored.
        let xdg = || set("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let cache = set("PARSIMONY_CACHE_DIR")
            .map(PathBuf::from)
            .or_else(|| xdg().map(|path| path.join("parsimony")))
            .or_else(|| set("HOME").map(|home| Path::new(&home).join(".cache").join("parsimony")));
        Self { directories, downloads: cache.map(|path| path.join("datasets")) }
    }

    /// All folders in the order of the search.
    pub fn search(&self) -> impl Iterator<Item = &Path> {
        self.directories.iter().chain(&self.downloads).map(PathBuf::as_path)
    }
}

/// The paths of a dataset's files on this machine, in the order of [`DatasetEntry::files`]; empty for a generator.
///
/// # Errors
/// [`Error::Data`] where a file is in none of the [`DataPlaces`] of the environment, with the places and the remedy;
/// [`Error::Io`] where a place cannot be read.
pub fn locate(entry: &DatasetEntry) -> Result<Vec<PathBuf>> {
    locate_in(entry, &DataPlaces::from_env())
}

/// As [`locate`], in these places.
///
/// # Errors
/// As [`locate`].
pub fn locate_in(entry: &DatasetEntry, places: &DataPlaces) -> Result<Vec<PathBuf>> {
    entry.files.iter().map(|file| locate_file(entry, file, places)).collect()
}

fn locate_file(entry: &DatasetEntry, file: &DataFile, places: &DataPlaces) -> Result<PathBuf> {
    for directory in places.search() {
        for name in std::iter::once(&file.path).chain(&file.alternatives) {
            let path = directory.join(name);
            match path.metadata() {
                Ok(metadata) if metadata.is_file() => return Ok(path),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                Err(error) => return Err(Error::io(path, "look at")(error)),
            }
        }
    }
    let looked: Vec<_> = places.search().map(|path| path.display().to_string()).collect();
    let looked = if looked.is_empty() { "nowhere (no data directory is set)".into() } else { looked.join(", ") };
    let names = match file.alternatives.as_slice() {
        [] => String::new(),
        others => format!(" (nor as {})", others.join(", ")),
    };
    let finding = format!("this file of the dataset `{}` was not found{names}; looked in {looked}", entry.name);
    let remedy = if entry.downloadable() {
        let size = entry.download_bytes().map(|bytes| format!(" ({})", readable_bytes(bytes))).unwrap_or_default();
        format!(
            "run `parsimony data fetch {}`{size}, or set PARSIMONY_DATA_DIR to a folder that holds {}",
            entry.name, file.path
        )
    } else {
        let how = entry.how_made.as_deref().unwrap_or("It has no address to download it from.");
        format!("set PARSIMONY_DATA_DIR to a folder that holds {}. {how}", file.path)
    };
    Err(DataError::new(&file.path, finding, remedy).into())
}

/// A number of bytes for people, in decimal units: `2.82 GB`.
pub(crate) fn readable_bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    UNITS.iter().find(|(unit, _)| bytes >= *unit).map_or_else(
        || format!("{bytes} bytes"),
        // Exact enough: a message, not a measurement.
        |(unit, name)| format!("{:.2} {name}", bytes as f64 / *unit as f64),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> Result<DatasetEntry> {
        DatasetEntry::from_toml(text, "test.toml")
    }

    const MINIMAL: &str = "name = 'x'\ntitle = 'X'\ndoc = 'x'\nkind = 'table'\nformat = 'csv'\nlicence = 'none'\n\
                           citation = 'none'\n";

    #[test]
    fn every_file_in_datasets_is_embedded_and_reads() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets");
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|item| item.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".toml"))
            .collect();
        files.sort();
        let mut embedded: Vec<_> = SOURCES.iter().map(|(name, _)| (*name).to_owned()).collect();
        embedded.sort();
        assert_eq!(files, embedded);
        for (file, text) in SOURCES {
            let entry = entry(text).unwrap_or_else(|error| panic!("{file}: {error}"));
            assert_eq!(format!("{}.toml", entry.name), *file);
            assert!(!entry.splits.is_empty(), "{file} has no split");
            assert!(
                entry.generator.is_some() || entry.downloadable() || entry.how_made.is_some(),
                "{file} neither has an address nor says how it was made"
            );
        }
    }

    #[test]
    fn the_registry_is_sorted_and_its_counts_agree() {
        assert!(registry().is_sorted_by(|a, b| a.name < b.name));
        for entry in registry() {
            assert!(entry.title.len() <= 60, "{}: the title is for one line of a list", entry.name);
            assert_eq!(entry.simulated, entry.kind == Kind::Generator, "{}", entry.name);
            if let (Some(features), false) = (entry.features, entry.columns.is_empty()) {
                assert_eq!(entry.columns.len(), features as usize + 1, "{}", entry.name);
                let target = entry.target.as_ref().unwrap();
                assert_eq!(entry.columns.iter().filter(|column| *column == target).count(), 1, "{}", entry.name);
            }
        }
        let higgs = find("higgs").unwrap();
        assert_eq!(higgs.columns.first(), higgs.target.as_ref());
        for name in ["higgs-sample", "higgs-sim"] {
            assert_eq!(find(name).unwrap().columns, higgs.columns);
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest() {
        for (typed, meant) in [("higs", "higgs"), ("minst", "mnist"), ("a9", "a9a"), ("Heart_Scale", "heart-scale")] {
            let error = find(typed).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(&format!("did you mean `{meant}`?")), "{typed}: {error}");
        }
        assert!(!find("quux").unwrap_err().to_string().contains("did you mean"));
    }

    #[test]
    fn unknown_keys_and_contradictions_are_refused_by_name() {
        let good = format!("{MINIMAL}[[files]]\npath = 'x.csv'\n");
        assert!(entry(&good).is_ok());
        for (text, named) in [
            (format!("colour = 1\n{good}"), "colour"),
            (format!("{good}size = 3\n"), "size"),
            (MINIMAL.to_owned(), "[[files]]"),
            (good.replace("'x'", "'X y'"), "name"),
            (format!("target = 'y'\n{good}"), "target"),
            (format!("{MINIMAL}[[files]]\npath = '../x'\n"), "../x"),
            (format!("{MINIMAL}[[files]]\npath = '/x'\n"), "/x"),
            (format!("{good}sha256 = 'abc'\n"), "sha256"),
            (format!("{good}urls = ['ftp://x/y']\n"), "ftp"),
            (format!("{good}[generator]\nrows = 1\nseed = 1\n"), "generator"),
            (format!("{good}[[splits]]\nname='s'\ndoc='s'\nrule = {{ folds = {{ count = 2 }} }}\n"), "count"),
            (format!("{good}[[splits]]\nname='s'\ndoc='s'\nrule = {{ files = {{ validation = 2 }} }}\n"), "role"),
            (
                format!(
                    "{good}[[splits]]\nname='s'\ndoc='s'\n\
                     rule = {{ consecutive = {{ train = 0.9, validation = 0.2, test = 0.1 }} }}\n"
                ),
                "shares",
            ),
        ] {
            let error = entry(&text).expect_err(&text).to_string();
            assert!(error.contains(named) && error.contains("test.toml"), "{named}: {error}");
        }
    }

    #[test]
    fn split_rules_become_specifications() {
        let spec = |name: &str, files: &[(Role, usize)]| find(name).unwrap().splits[0].rule.spec(files, 2);
        let whole = [(Role::All, 1_000_000)];
        assert_eq!(spec("higgs", &whole), SplitSpec::Last { test: 500_000, validation: 500_000 });
        assert_eq!(spec("higgs-sample", &whole), SplitSpec::Folds { count: 5, fold: 2, validation: None, seed: 0 });
        let mnist = [(Role::Train, 60_000), (Role::Test, 10_000)];
        assert_eq!(spec("mnist", &mnist), SplitSpec::Last { test: 10_000, validation: 10_000 });
        let parts = [(Role::Train, 90), (Role::Validation, 7), (Role::Test, 3)];
        assert_eq!(spec("wikitext-2", &parts), SplitSpec::Last { test: 3, validation: 7 });
        assert_eq!(
            spec("higgs-sim", &[(Role::All, 100_000)]),
            SplitSpec::Ranges { train: [0, 70_000], validation: [70_000, 85_000], test: [85_000, 100_000] }
        );
    }

    #[test]
    fn the_environment_names_the_places() {
        let places = |pairs: &[(&str, &str)]| {
            DataPlaces::from_variables(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, v)| v.into()))
        };
        let downloads = |pairs: &[(&str, &str)]| places(pairs).downloads;
        assert_eq!(downloads(&[("HOME", "/h")]), Some("/h/.cache/parsimony/datasets".into()));
        assert_eq!(downloads(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/c")]), Some("/c/parsimony/datasets".into()));
        assert_eq!(downloads(&[("HOME", "/h"), ("XDG_CACHE_HOME", "c")]), Some("/h/.cache/parsimony/datasets".into()));
        assert_eq!(downloads(&[("XDG_CACHE_HOME", "/c"), ("PARSIMONY_CACHE_DIR", "/p")]), Some("/p/datasets".into()));
        assert_eq!(downloads(&[("PARSIMONY_CACHE_DIR", "")]), None);
        let search = places(&[("PARSIMONY_DATA_DIR", "/a::/b"), ("HOME", "/h")]);
        assert_eq!(search.directories, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!(search.search().count(), 3);
    }

    #[test]
    fn files_are_found_under_any_accepted_name_and_misses_name_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("first"), folder.path().join("second"));
        std::fs::create_dir_all(second.join("libsvm")).unwrap();
        std::fs::create_dir_all(first.join("libsvm/a9a")).unwrap();
        for name in ["a9a.gz", "a9a.t"] {
            std::fs::write(second.join("libsvm").join(name), "").unwrap();
        }
        let places = DataPlaces { directories: vec![first.clone()], downloads: Some(second.clone()) };
        let found = locate_in(find("a9a").unwrap(), &places).unwrap();
        assert_eq!(found, [second.join("libsvm/a9a.gz"), second.join("libsvm/a9a.t")]);
        assert!(locate_in(find("higgs-sim").unwrap(), &places).unwrap().is_empty());

        let error = locate_in(find("higgs").unwrap(), &places).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        let text = error.to_string();
        let (first, second) = (first.display().to_string(), second.display().to_string());
        for part in
            ["`higgs`", "HIGGS.csv.gz", "parsimony data fetch higgs", "2.82 GB", "PARSIMONY_DATA_DIR", &first, &second]
        {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
        let sample = locate_in(find("higgs-sample").unwrap(), &places).unwrap_err().to_string();
        assert!(!sample.contains("data fetch") && sample.contains("OpenML"), "{sample}");
    }
}
