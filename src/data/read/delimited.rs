//! CSV and TSV: one row per line, fields between delimiters, double quotes around fields that hold one (RFC 4180).
//!
//! The usual field, a number right up to the next delimiter, is parsed where it stands, without looking for its end
//! first; anything else (quotes, spaces, missing values, errors) takes the slower way through [`next_field`].

use super::labels::{Dictionary, RawTargets, label_name, too_many_classes};
use super::layout::{Layout, RECORDS, Role, next_field, place, recognize, record_end, split};
use super::numbers::{Field, classify, complaint, is_missing, shown};
use super::pipeline::{Block, LineParser, Problem, run};
use super::sink::{Assembler, check_memory};
use super::source::Source;
use super::{Format, Missing, Outcome, Progress, ReadOptions};
use crate::error::{DataError, Result};
use std::path::Path;

/// Reads a delimited text table.
pub(super) fn read(
    path: &Path,
    format: Format,
    options: &ReadOptions,
    wanted: Option<&[String]>,
    rows: &mut Assembler<'_>,
    progress: Progress<'_>,
) -> Result<Outcome> {
    let mut source = Source::open(path)?;
    source.skip_mark();
    let head = source.head_lines(4 * RECORDS)?;
    let layout = recognize(path, head, format, options, wanted)?;
    source.skip(layout.skip_bytes);
    let columns = layout.columns.features.clone();
    let target = layout.columns.target;
    let target_name = target.map(|target| place(&layout.columns.names, target));
    let remedy = "raise dense_limit if there is room, or exclude columns";
    check_memory(path, None, columns.len(), options.dense_limit, remedy)?;
    rows.begin(&columns)?;

    let first_line = layout.skip_lines + 1;
    let parser = Parser { missing: options.missing, width: columns.len(), layout };
    let mut targets = target.map(|_| parser.labels());
    let mut dictionary = Dictionary::default();
    let mut count = 0;
    let finished = run(source, first_line, &parser, progress, &mut |block| {
        count += block.rows;
        rows.push_rows(&block.values)?;
        if let (Some(targets), Some(labels)) = (&mut targets, block.labels) {
            targets.append(labels, &mut dictionary).map_err(|(finding, remedy)| {
                DataError::new(path, finding, remedy).at_column(target_name.as_deref().unwrap_or_default())
            })?;
        }
        Ok(())
    })?;
    Ok(Outcome {
        format,
        columns,
        target_name,
        targets,
        rows: count,
        dropped: finished.dropped,
        fingerprint: finished.fingerprint,
    })
}

struct Parser {
    layout: Layout,
    /// Features in a row.
    width: usize,
    missing: Missing,
}

/// A row under way: its label waits for the features to be good.
#[derive(Default)]
struct Row {
    label: Option<Label>,
    missing: u64,
    /// The first value missing.
    problem: Option<Problem>,
}

enum Label {
    /// The number as `f64`, which is exact for integers, and the `f32` nearest to its text.
    Number(f64, f32),
    Code(u32),
}

impl LineParser for Parser {
    fn quotes(&self) -> bool {
        true
    }

    fn parse(&self, text: &[u8]) -> Block {
        let mut block = Block::default();
        block.values.reserve(text.len() / 4);
        let mut labels = self.layout.columns.target.map(|_| self.labels());
        let mut dictionary = Dictionary::default();
        let mut at = 0;
        while at < text.len() {
            if text[at] == b'\n' {
                at += 1;
                block.lines += 1;
                continue;
            }
            if matches!(text[at], b' ' | b'\r') && is_blank(&text[at..]) {
                at += memchr::memchr(b'\n', &text[at..]).unwrap_or(text.len() - at);
                continue;
            }
            let start = block.values.len();
            block.values.resize(start + self.width, 0.0);
            let row = self.row(text, at, &mut block.values[start..], labels.as_mut(), &mut dictionary);
            let (row, end) = match row {
                Ok(row) => row,
                Err(mut problem) => {
                    problem.line = block.lines;
                    block.problem.get_or_insert(problem);
                    return block;
                }
            };
            // A row that lacks its label is of no use even to a description.
            let labelled = labels.is_none() || row.label.is_some();
            if row.missing == 0 || self.missing == Missing::Keep && labelled {
                block.rows += 1;
                match (row.label, &mut labels) {
                    (Some(Label::Number(exact, nearest)), Some(labels)) => labels.push_number(exact, nearest),
                    (Some(Label::Code(code)), Some(labels)) => labels.push_code(code),
                    _ => {}
                }
            } else {
                block.values.truncate(start);
                block.missing += row.missing;
                if self.missing != Missing::Refuse {
                    block.dropped += 1;
                } else if let Some(mut problem) = row.problem {
                    problem.line = block.lines;
                    block.problem.get_or_insert(problem);
                }
            }
            // Only quoted fields hold newlines; a row without them ends at its first.
            block.lines += memchr::memchr_iter(b'\n', &text[at..end]).count() as u64;
            at = end;
        }
        block.labels = labels;
        block
    }
}

impl Parser {
    fn labels(&self) -> RawTargets {
        if self.layout.named_labels { RawTargets::names() } else { RawTargets::numbers() }
    }

    /// Parses the row that starts at `start` into `features`; returns it and where the next line starts.
    fn row(
        &self,
        text: &[u8],
        start: usize,
        features: &mut [f32],
        mut labels: Option<&mut RawTargets>,
        dictionary: &mut Dictionary,
    ) -> Result<(Row, usize), Problem> {
        let roles = &self.layout.columns.roles;
        let (mut at, mut row) = (start, Row::default());
        for (column, &role) in roles.iter().enumerate() {
            let end = match role {
                Role::Feature(feature) => {
                    if let Some((value, end)) = number::<f32>(text, at, self.layout.delimiter) {
                        features[feature] = value;
                        end
                    } else {
                        let (field, end) = next_field(text, at, self.layout.delimiter);
                        match classify::<f32>(&field) {
                            Field::Number(value) => features[feature] = value,
                            found => {
                                self.refuse(text, start, column, &field, &found, &mut row)?;
                                // Seen by descriptions alone: other rows that lack a value are not kept.
                                features[feature] = f32::NAN;
                            }
                        }
                        end
                    }
                }
                Role::Target => self.label(text, start, at, column, labels.as_deref_mut(), dictionary, &mut row)?,
                Role::Skip => next_field(text, at, self.layout.delimiter).1,
            };
            let ended = end >= text.len() || text[end] == b'\n';
            if ended != (column + 1 == roles.len()) {
                return Err(self.wrong_count(text, start));
            }
            at = end + 1;
        }
        Ok((row, at.min(text.len())))
    }

    /// Reads the label at `at`; returns where its field ends.
    #[expect(clippy::too_many_arguments, reason = "a step of `row`, which owns all of these")]
    fn label(
        &self,
        text: &[u8],
        start: usize,
        at: usize,
        column: usize,
        labels: Option<&mut RawTargets>,
        dictionary: &mut Dictionary,
        row: &mut Row,
    ) -> Result<usize, Problem> {
        if !self.layout.named_labels
            && let Some((value, end)) = number::<f64>(text, at, self.layout.delimiter)
            && value.fract() == 0.0
            && value.abs() < 1e15
        {
            row.label = Some(Label::Number(value, value as f32));
            return Ok(end);
        }
        let (field, end) = next_field(text, at, self.layout.delimiter);
        if let Some(RawTargets::Names { names, .. }) = labels {
            if is_missing(&field) {
                self.refuse(text, start, column, &field, &Field::<f32>::Missing, row)?;
            } else {
                let code = dictionary.code(&label_name(&field), names);
                row.label = Some(Label::Code(code.ok_or_else(|| {
                    let (finding, remedy) = too_many_classes();
                    self.problem(column, finding, remedy)
                })?));
            }
            return Ok(end);
        }
        match classify::<f32>(&field) {
            Field::Number(nearest) => {
                let exact = fast_float2::parse(&field).unwrap_or(f64::from(nearest));
                row.label = Some(Label::Number(exact, nearest));
            }
            Field::NotANumber if !unclosed_quote(text, start) => {
                let finding = format!("the label {} is not a number, as the first label is", shown(&field));
                let remedy = "correct the line; or, if the labels are names, ask for task = \"classification\"";
                return Err(self.problem(column, finding, remedy));
            }
            found => self.refuse(text, start, column, &field, &found, row)?,
        }
        Ok(end)
    }

    /// Notes a missing value in `row`; anything else that is no number is an error.
    fn refuse(
        &self,
        text: &[u8],
        start: usize,
        column: usize,
        field: &[u8],
        found: &Field<f32>,
        row: &mut Row,
    ) -> Result<(), Problem> {
        if *found == Field::NotANumber && unclosed_quote(text, start) {
            return Err(Problem::new(0, "a quoted field is not closed", "add the missing double quote"));
        }
        let (finding, remedy) = complaint(field, found);
        let mut problem = self.problem(column, finding, remedy);
        if *found != Field::Missing {
            // A line that lacks fields shows as a number that is none; say what it is.
            let count = split(&text[start..record_end(text, start)], self.layout.delimiter).len();
            return Err(if count == self.layout.columns.roles.len() { problem } else { self.wrong_count(text, start) });
        }
        problem.missing = true;
        row.missing += 1;
        row.problem.get_or_insert(problem);
        Ok(())
    }

    fn problem(&self, column: usize, finding: impl Into<String>, remedy: impl Into<String>) -> Problem {
        Problem::new(0, finding, remedy).at_column(place(&self.layout.columns.names, column))
    }

    fn wrong_count(&self, text: &[u8], start: usize) -> Problem {
        if unclosed_quote(text, start) {
            return Problem::new(0, "a quoted field is not closed", "add the missing double quote");
        }
        let found = split(&text[start..record_end(text, start)], self.layout.delimiter).len();
        let expected = self.layout.columns.roles.len();
        let columns = if found == 1 { "column" } else { "columns" };
        Problem::new(
            0,
            format!("{found} {columns} where the first line has {expected}"),
            "give every line the same columns; fields that hold the delimiter need double quotes",
        )
    }
}

/// The number at `at` if it is finite and reaches right up to the end of its field; and that end.
#[inline]
fn number<T: fast_float2::FastFloat + Copy + Into<f64>>(text: &[u8], at: usize, delimiter: u8) -> Option<(T, usize)> {
    let (value, length) = fast_float2::parse_partial::<T, _>(text.get(at..)?).ok()?;
    let end = at + length;
    let end = match text.get(end) {
        None => end,
        Some(&byte) if byte == delimiter || byte == b'\n' => end,
        Some(b'\r') if text.get(end + 1) == Some(&b'\n') => end + 1,
        Some(_) => return None,
    };
    value.into().is_finite().then_some((value, end))
}

/// Whether nothing but blanks stands before the next newline.
fn is_blank(text: &[u8]) -> bool {
    text.iter().find(|&&byte| byte != b' ' && byte != b'\r').is_none_or(|&byte| byte == b'\n')
}

/// Whether the record that starts at `start` runs to the end of the text inside a quoted field.
fn unclosed_quote(text: &[u8], start: usize) -> bool {
    memchr::memchr_iter(b'"', &text[start..record_end(text, start)]).count() % 2 == 1
}
