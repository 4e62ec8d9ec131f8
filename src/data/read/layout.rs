//! How a delimited text table is laid out: delimiter, header, names, which column is the target and which are features.
//!
//! Recognized from the first records, in this order: the delimiter is the one of comma, tab and semicolon that splits
//! the first records most consistently; the first record is a header if it has text where the second has numbers; the
//! target is found by the rule of [`super::ReadOptions::target`].

use super::numbers::{is_missing, shown, trim};
use super::{Format, ReadOptions, TaskKind};
use crate::data::higgs_sim::FEATURE_NAMES as HIGGS_FEATURES;
use crate::error::{DataError, Result};
use std::borrow::Cow;
use std::path::Path;

const TARGET_NAMES: [&str; 4] = ["label", "target", "class", "y"];

/// Records of the head that are looked at.
pub(super) const RECORDS: usize = 5;

/// What becomes of a column of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Feature number so-and-so of the row.
    Feature(usize),
    Target,
    Skip,
}

/// How the columns of a table, text or Parquet, are used.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Columns {
    /// Names of all columns of the file.
    pub names: Vec<String>,
    pub roles: Vec<Role>,
    /// Names of the features, in the order of the row.
    pub features: Vec<String>,
    pub target: Option<usize>,
}

/// A delimited text table.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layout {
    pub delimiter: u8,
    pub columns: Columns,
    /// Bytes and lines before the first row of data.
    pub skip_bytes: usize,
    pub skip_lines: u64,
    /// Labels are names rather than numbers.
    pub named_labels: bool,
}

/// One record of the head: its fields and where it ends.
struct Record<'a> {
    fields: Vec<Cow<'a, [u8]>>,
    start: usize,
    line: u64,
}

/// Recognizes the layout of a table that begins with `head`.
pub(super) fn recognize(
    path: &Path,
    head: &[u8],
    format: Format,
    options: &ReadOptions,
    wanted: Option<&[String]>,
) -> Result<Layout> {
    let delimiter = if format == Format::Tsv { b'\t' } else { find_delimiter(head) };
    let records = first_records(head, delimiter);
    let Some(first) = records.first() else {
        return Err(DataError::new(path, "no rows of data", "the file holds nothing but blank lines").into());
    };
    if first.fields.len() < 2 && wanted.is_none_or(|wanted| wanted.len() > 1) {
        return Err(DataError::new(
            path,
            format!("a single column ({})", shown(&first.fields[0])),
            "a table needs a target and at least one feature, separated by commas, tabs or semicolons",
        )
        .at_line(first.line)
        .into());
    }
    let header = options.header.unwrap_or_else(|| is_header(first, records.get(1)));
    let data = records.get(usize::from(header));
    let names = if header { header_names(path, first)? } else { default_names(data, options) };
    let columns = assign(path, names, header, data.map(|r| r.fields.as_slice()), options, wanted)?;
    let named_labels = match options.task {
        Some(TaskKind::Regression) => false,
        Some(TaskKind::Classification) => true,
        None => columns.target.zip(data).is_some_and(|(target, data)| {
            data.fields.get(target).is_some_and(|field| {
                let field = trim(field);
                !is_missing(field) && fast_float2::parse::<f64, _>(field).is_err()
            })
        }),
    };
    let (skip_bytes, skip_lines) = data.map_or((head.len(), first.line), |data| (data.start, data.line - 1));
    Ok(Layout { delimiter, columns, skip_bytes, skip_lines, named_labels })
}

/// Gives each column of a file its role.
pub(super) fn assign(
    path: &Path,
    names: Vec<String>,
    named: bool,
    data: Option<&[Cow<'_, [u8]>]>,
    options: &ReadOptions,
    wanted: Option<&[String]>,
) -> Result<Columns> {
    let excluded = options
        .exclude
        .iter()
        .map(|column| find_column(path, &names, column, "exclude"))
        .collect::<Result<Vec<usize>>>()?;
    let included = names.len() - (0..names.len()).filter(|column| excluded.contains(column)).count();
    let target = match (&options.target, wanted) {
        (Some(column), None) => Some(find_target(path, &names, column, &excluded)?),
        (Some(column), Some(wanted)) if named || included == wanted.len() + 1 => {
            find_column(path, &names, column, "target").ok()
        }
        (None, None) => Some(default_target(&names, named, data, &excluded)),
        (None, Some(wanted)) if named => TARGET_NAMES
            .iter()
            .find_map(|name| names.iter().position(|n| n.eq_ignore_ascii_case(name)))
            .filter(|&column| !wanted.contains(&names[column])),
        (None, Some(wanted)) if included == wanted.len() + 1 => Some(default_target(&names, named, data, &excluded)),
        (_, Some(_)) => None,
    };
    if let Some(target) = target
        && excluded.contains(&target)
    {
        return Err(DataError::new(path, "the target column is excluded", "exclude another or name another target")
            .at_column(place(&names, target))
            .into());
    }
    let mut roles = vec![Role::Skip; names.len()];
    if let Some(target) = target {
        roles[target] = Role::Target;
    }
    let candidates = (0..names.len()).filter(|column| Some(*column) != target && !excluded.contains(column));
    let features = match wanted {
        None => {
            let columns: Vec<usize> = candidates.collect();
            columns.iter().enumerate().for_each(|(i, &column)| roles[column] = Role::Feature(i));
            columns.iter().map(|&column| names[column].clone()).collect()
        }
        Some(wanted) if named => {
            for (i, name) in wanted.iter().enumerate() {
                let Some(column) = names.iter().position(|n| n == name) else {
                    let finding = format!("no column is named {name:?}, which the model was trained on");
                    return Err(DataError::new(path, finding, nearest(&names, name)).at_line(1).into());
                };
                roles[column] = Role::Feature(i);
            }
            wanted.to_vec()
        }
        Some(wanted) => {
            let columns: Vec<usize> = candidates.collect();
            if columns.len() != wanted.len() {
                return Err(DataError::new(
                    path,
                    format!("{} columns without names, where the model was trained on {}", names.len(), wanted.len()),
                    format!("give {} columns, or {} with the target, or a header", wanted.len(), wanted.len() + 1),
                )
                .at_line(1)
                .into());
            }
            columns.iter().enumerate().for_each(|(i, &column)| roles[column] = Role::Feature(i));
            wanted.to_vec()
        }
    };
    if features.is_empty() {
        return Err(DataError::new(path, "no feature columns are left", "exclude fewer columns").into());
    }
    Ok(Columns { names, roles, features, target })
}

/// The place of a column in messages: its number and its name.
pub(super) fn place(names: &[String], column: usize) -> String {
    match names.get(column) {
        Some(name) if *name != default_name(column) => format!("{} ({name})", column + 1),
        _ => (column + 1).to_string(),
    }
}

/// The name of a column that has none.
pub(super) fn default_name(column: usize) -> String {
    format!("column_{}", column + 1)
}

/// Splits a record into fields, without the quotes around quoted ones.
pub(super) fn split(record: &[u8], delimiter: u8) -> Vec<Cow<'_, [u8]>> {
    let mut fields = Vec::new();
    let mut at = 0;
    loop {
        let (field, end) = next_field(record, at, delimiter);
        fields.push(field);
        if end >= record.len() {
            return fields;
        }
        at = end + 1;
    }
}

/// The field that starts at `at` and the place of the delimiter, newline or end that closes it.
pub(super) fn next_field(text: &[u8], at: usize, delimiter: u8) -> (Cow<'_, [u8]>, usize) {
    let closes = |&byte: &u8| byte == delimiter || byte == b'\n';
    let open = at + text[at..].iter().take_while(|&&b| b == b' ').count();
    if text.get(open) != Some(&b'"') {
        let end = text[at..].iter().position(closes).map_or(text.len(), |n| at + n);
        return (Cow::Borrowed(trim(&text[at..end])), end);
    }
    let mut content = Vec::new();
    let mut place = open + 1;
    while let Some(quote) = memchr::memchr(b'"', &text[place..]) {
        content.extend_from_slice(&text[place..place + quote]);
        place += quote + 1;
        if text.get(place) != Some(&b'"') {
            let end = text[place..].iter().position(closes).map_or(text.len(), |n| place + n);
            content.extend_from_slice(trim(&text[place..end]));
            return (Cow::Owned(content), end);
        }
        content.push(b'"');
        place += 1;
    }
    content.extend_from_slice(&text[place..]);
    (Cow::Owned(content), text.len())
}

/// The end of the record that starts at `at`: its newline outside quotes, or the end of the text.
pub(super) fn record_end(text: &[u8], at: usize) -> usize {
    let mut inside = false;
    for n in memchr::memchr2_iter(b'"', b'\n', &text[at..]) {
        if text[at + n] == b'"' {
            inside = !inside;
        } else if !inside {
            return at + n;
        }
    }
    text.len()
}

/// The first records that are not blank.
fn first_records(head: &[u8], delimiter: u8) -> Vec<Record<'_>> {
    let (mut at, mut line, mut records) = (0, 1, Vec::new());
    while at < head.len() && records.len() < RECORDS {
        let end = record_end(head, at);
        let record = &head[at..end];
        if !trim(record).is_empty() {
            records.push(Record { fields: split(record, delimiter), start: at, line });
        }
        line += 1 + memchr::memchr_iter(b'\n', record).count() as u64;
        at = end + 1;
    }
    records
}

fn find_delimiter(head: &[u8]) -> u8 {
    let score = |delimiter: u8| {
        let counts: Vec<usize> = first_records(head, delimiter).iter().map(|r| r.fields.len()).collect();
        let first = counts.first().copied().unwrap_or(0);
        let same = counts.iter().filter(|&&count| count == first).count();
        if first > 1 { (same, first) } else { (0, 0) }
    };
    // Of equals the first wins.
    [b',', b'\t', b';'].into_iter().rev().max_by_key(|&delimiter| score(delimiter)).unwrap_or(b',')
}

fn is_number(field: &[u8]) -> bool {
    fast_float2::parse::<f64, _>(trim(field)).is_ok()
}

/// A first record is a header if it has text where the second has a number and is not mostly numbers itself, unless
/// these count the columns (0, 1, 2, ... as some programs write).
fn is_header(first: &Record<'_>, second: Option<&Record<'_>>) -> bool {
    let numbers: Vec<f64> = first.fields.iter().filter_map(|f| fast_float2::parse(trim(f)).ok()).collect();
    let Some(second) = second else { return numbers.is_empty() };
    let text_over_number = first
        .fields
        .iter()
        .zip(&second.fields)
        .any(|(above, below)| !is_number(above) && !is_missing(trim(above)) && is_number(below));
    let counts = numbers.len() > 1 && numbers.windows(2).all(|pair| pair[1] == pair[0] + 1.0) && numbers[0] <= 1.0;
    text_over_number && (2 * numbers.len() <= first.fields.len() || counts)
}

fn header_names(path: &Path, record: &Record<'_>) -> Result<Vec<String>> {
    let mut names: Vec<String> = Vec::with_capacity(record.fields.len());
    let mut seen = std::collections::HashMap::new();
    for (column, field) in record.fields.iter().enumerate() {
        let text = String::from_utf8_lossy(trim(field)).into_owned();
        let name = if text.is_empty() { default_name(column) } else { text };
        if let Some(earlier) = seen.insert(name.clone(), column) {
            return Err(DataError::new(
                path,
                format!("the column name {name:?} appears twice, first for column {}", earlier + 1),
                "give each column a name of its own",
            )
            .at_line(record.line)
            .at_column(column + 1)
            .into());
        }
        names.push(name);
    }
    Ok(names)
}

/// Names for a table without a header: those of HIGGS if it has its shape, else numbers.
fn default_names(data: Option<&Record<'_>>, options: &ReadOptions) -> Vec<String> {
    let fields = data.map_or(&[][..], |data| &data.fields);
    let label_first = options.target.as_deref().is_none_or(|target| target == "1" || target == "label");
    if fields.len() == 29 && label_first && starts_with_binary_label(fields) {
        return ["label"].iter().chain(&HIGGS_FEATURES).map(|&name| name.to_owned()).collect();
    }
    (0..fields.len()).map(default_name).collect()
}

fn starts_with_binary_label(fields: &[Cow<'_, [u8]>]) -> bool {
    let first = fields.first().and_then(|field| fast_float2::parse::<f64, _>(trim(field)).ok());
    first.is_some_and(|value| value == 0.0 || value == 1.0)
}

fn default_target(names: &[String], named: bool, data: Option<&[Cow<'_, [u8]>]>, excluded: &[usize]) -> usize {
    if !named && names.len() == 29 && data.is_some_and(starts_with_binary_label) {
        return 0;
    }
    let by_name = TARGET_NAMES.iter().find_map(|name| names.iter().position(|n| n.eq_ignore_ascii_case(name)));
    by_name
        .filter(|column| !excluded.contains(column))
        .or_else(|| (0..names.len()).rev().find(|column| !excluded.contains(column)))
        .unwrap_or(names.len() - 1)
}

/// The target column; of those that begin alike the first.
fn find_target(path: &Path, names: &[String], wanted: &str, excluded: &[usize]) -> Result<usize> {
    let Some(prefix) = wanted.strip_suffix('*') else { return find_column(path, names, wanted, "target") };
    let mut found = (0..names.len()).filter(|column| names[*column].starts_with(prefix) && !excluded.contains(column));
    found.next().ok_or_else(|| {
        DataError::new(path, format!("no column's name begins with {prefix:?} (target)"), nearest(names, prefix)).into()
    })
}

/// A column by its name or else by its number counted from 1.
fn find_column(path: &Path, names: &[String], wanted: &str, what: &str) -> Result<usize> {
    let by_number = || wanted.parse::<usize>().ok().filter(|n| (1..=names.len()).contains(n)).map(|n| n - 1);
    names
        .iter()
        .position(|name| name == wanted)
        .or_else(by_number)
        .ok_or_else(|| DataError::new(path, format!("no column {wanted:?} ({what})"), nearest(names, wanted)).into())
}

fn nearest(names: &[String], wanted: &str) -> String {
    let best = names.iter().max_by(|a, b| strsim::jaro_winkler(a, wanted).total_cmp(&strsim::jaro_winkler(b, wanted)));
    let some = names.iter().take(8).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if names.len() > 8 { ", ..." } else { "" };
    match best {
        Some(best) if strsim::jaro_winkler(best, wanted) > 0.8 => {
            format!("did you mean {best:?}? The file has {} columns: {some}{more}", names.len())
        }
        _ => format!("use a name or a number from 1 to {}: {some}{more}", names.len()),
    }
}
