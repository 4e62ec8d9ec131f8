//! Which format a file has: by its first bytes where they tell, else by its first lines, with the name as a hint.

use super::layout::split;
use super::numbers::trim;
use super::source::Source;
use crate::data::store;
use crate::error::{DataError, Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// A format that can be read; compression by gzip is recognized beneath each of the text formats and IDX.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Text with one row per line and commas, tabs or semicolons between fields.
    Csv,
    /// The same with tabs.
    Tsv,
    /// Sparse lines `label index:value ...`.
    Libsvm,
    /// Apache Parquet.
    Parquet,
    /// MNIST's binary arrays.
    Idx,
    /// Plain UTF-8 text, not a table.
    Text,
    /// The workbench's own memory-mapped store.
    Store,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 7] = [Self::Csv, Self::Tsv, Self::Libsvm, Self::Parquet, Self::Idx, Self::Text, Self::Store];

    /// The name by which a format is forced.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Tsv => "tsv",
            Self::Libsvm => "libsvm",
            Self::Parquet => "parquet",
            Self::Idx => "idx",
            Self::Text => "text",
            Self::Store => "store",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|format| format.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::config("format", format!("{text:?} is not a format that can be read"), format!("use one of {names}"))
        })
    }
}

/// Kinds of files that are not read, by their first bytes, and what to do with them.
const FOREIGN: [(&[u8], &str, &str); 8] = [
    (b"PK\x03\x04", "a zip archive", "unpack it: unzip"),
    (b"\xfd7zXZ\0", "compressed by xz", "decompress it: unxz"),
    (b"BZh", "compressed by bzip2", "decompress it: bunzip2"),
    (b"\x28\xb5\x2f\xfd", "compressed by Zstandard", "decompress it: unzstd"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it: 7z x"),
    (b"\x89HDF", "an HDF5 file", "write its table as Parquet or CSV"),
    (b"\x93NUMPY", "a NumPy array", "write it as Parquet or CSV"),
    (b"ARROW1", "an Arrow IPC file", "write its table as Parquet"),
];

/// Recognizes the format of a file.
///
/// # Errors
/// If the file cannot be opened, or holds something that is certainly none of the formats.
pub fn detect(path: &Path) -> Result<Format> {
    let mut source = Source::open(path)?;
    let head = source.head();
    if head.starts_with(store::MAGIC) {
        return Ok(Format::Store);
    }
    if head.starts_with(b"PAR1") {
        return Ok(Format::Parquet);
    }
    if matches!(head, [0, 0, 0x08..=0x0e, 1..=8, ..]) {
        return Ok(Format::Idx);
    }
    for (magic, what, remedy) in FOREIGN {
        if head.starts_with(magic) {
            return Err(DataError::new(path, format!("the file is {what}"), remedy).into());
        }
    }
    let named = by_name(path);
    if let Some(at) = memchr::memchr(0, head) {
        // Binary, and none of the known kinds: by its name the reader can say what is wrong with it.
        if let Some(format @ (Format::Idx | Format::Parquet | Format::Store)) = named {
            return Ok(format);
        }
        let utf16 = head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff");
        let (finding, remedy) = if utf16 {
            ("the text is UTF-16".to_owned(), "convert it: iconv -f UTF-16 -t UTF-8")
        } else {
            (
                format!("binary data (a zero at byte {at}) of no known format"),
                "give a CSV, TSV, LIBSVM, Parquet, IDX or text file, or a store",
            )
        };
        return Err(DataError::new(path, finding, remedy).into());
    }
    source.skip_mark();
    Ok(by_lines(source.head_lines(SAMPLE)?, named))
}

/// Lines that are looked at.
const SAMPLE: usize = 40;

/// What the name says, leaving `.gz` out of account.
fn by_name(path: &Path) -> Option<Format> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    if name.ends_with("-ubyte") {
        return Some(Format::Idx);
    }
    match name.rsplit_once('.')?.1 {
        "csv" => Some(Format::Csv),
        "tsv" | "tab" => Some(Format::Tsv),
        "svm" | "libsvm" | "svmlight" => Some(Format::Libsvm),
        "parquet" | "pq" => Some(Format::Parquet),
        "idx" => Some(Format::Idx),
        "store" => Some(Format::Store),
        _ => None,
    }
}

/// Text: LIBSVM if its lines are pairs, CSV if they split alike and hold numbers, else what the name says.
fn by_lines(head: &[u8], named: Option<Format>) -> Format {
    let lines: Vec<&[u8]> = head
        .split(|&byte| byte == b'\n')
        .take(SAMPLE)
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !trim(line).is_empty())
        .collect();
    // Sparse files have rows of a label alone; a damaged line or two do not hide what the others are.
    let tokens = |line: &&[u8]| {
        let mut tokens = line.split(u8::is_ascii_whitespace).filter(|token| !token.is_empty());
        (tokens.next().is_some_and(is_number), tokens.next().map(is_pair))
    };
    let sparse: Vec<_> = lines.iter().filter(|line| !line.starts_with(b"#")).map(tokens).collect();
    let pairs = sparse.iter().filter(|tokens| tokens.1 == Some(true)).count();
    let bare = sparse.iter().filter(|tokens| **tokens == (true, None)).count();
    if pairs > 0 && 2 * (pairs + bare) > sparse.len() {
        return Format::Libsvm;
    }
    if let Some(format) = named.filter(|format| matches!(format, Format::Csv | Format::Tsv | Format::Libsvm)) {
        return format;
    }
    let alike = |delimiter: u8| {
        let rows: Vec<_> = lines.iter().map(|line| split(line, delimiter)).collect();
        let columns = rows.first().map_or(0, Vec::len);
        let numeric = rows.iter().flatten().filter(|field| is_number(field)).count();
        columns > 1 && rows.iter().all(|row| row.len() == columns) && 4 * numeric >= columns * rows.len()
    };
    if alike(b',') || alike(b';') {
        Format::Csv
    } else if alike(b'\t') {
        Format::Tsv
    } else {
        Format::Text
    }
}

fn is_number(field: &[u8]) -> bool {
    fast_float2::parse::<f64, _>(trim(field)).is_ok()
}

fn is_pair(token: &[u8]) -> bool {
    let Some(colon) = memchr::memchr(b':', token) else { return false };
    colon > 0 && token[..colon].iter().all(u8::is_ascii_digit) && is_number(&token[colon + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_formats_are_told_apart_by_their_lines() {
        assert_eq!(by_lines(b"1 3:0.5 7:1\n\n-1 2:1\n", None), Format::Libsvm);
        assert_eq!(by_lines(b"-1\n-1\n1 2:1\n1\n", None), Format::Libsvm);
        assert_eq!(by_lines(b"# comment\n# comment\n1 2:1 # comment\n", None), Format::Libsvm);
        assert_eq!(by_lines(b"#ff0000,2,3\n#00ff00,5,6\n", None), Format::Csv);
        assert_eq!(by_lines(b"1,2,3\n4,5,6\n", None), Format::Csv);
        assert_eq!(by_lines(b"a\tb\r\n4\t\r\n5\t6\r\n", None), Format::Tsv);
        assert_eq!(by_lines(b"a;b\n4;5\n", None), Format::Csv);
        assert_eq!(by_lines(b"First Citizen:\nBefore we proceed any further, hear me speak.\n", None), Format::Text);
        assert_eq!(by_lines(b"1,2,3\n4,5\n", None), Format::Text);
        assert_eq!(by_lines(b"1,2,3\n4,5\n", Some(Format::Csv)), Format::Csv);
    }

    #[test]
    fn names_of_formats_go_both_ways() {
        for format in Format::ALL {
            assert_eq!(format.to_string().parse::<Format>().unwrap(), format);
        }
        assert!("xlsx".parse::<Format>().unwrap_err().to_string().contains("libsvm"));
    }
}
