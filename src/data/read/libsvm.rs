//! LIBSVM text: `label index:value index:value ... # comment`, indices from 1 and increasing (Chang and Lin 2011).
//!
//! Values that are not mentioned are zero, and the tables of the workbench are dense: the file is read twice, once to
//! find the largest index and once to fill the rows. A dense size beyond [`super::ReadOptions::dense_limit`] is
//! refused. Blank lines are skipped; a line with a label alone is a row of zeros; `qid:` ranks are not supported.

use super::labels::{Dictionary, RawTargets, label_name, too_many_classes};
use super::numbers::{Field, classify, complaint, is_missing, shown, trim};
use super::pipeline::{Block, LineParser, Problem, run};
use super::sink::{Assembler, check_memory};
use super::source::Source;
use super::{Format, Outcome, Progress, ReadOptions, TaskKind};
use crate::error::{DataError, Result};
use std::path::Path;

/// No real file has an index beyond this; larger ones would overflow sizes on the way.
const LARGEST_INDEX: usize = 1 << 31;

/// Reads a LIBSVM file.
pub(super) fn read(
    path: &Path,
    options: &ReadOptions,
    wanted: Option<&[String]>,
    rows: &mut Assembler<'_>,
    progress: Progress<'_>,
) -> Result<Outcome> {
    let named_labels = options.task == Some(TaskKind::Classification);
    let scan = Parser { width: None, named_labels };
    let (mut largest, mut count) = (0, 0usize);
    let halves = |pass: u64| move |done: u64, all: u64| progress((done + pass * all) / 2, all);
    run(open(path)?, 1, &scan, &halves(0), &mut |block| {
        largest = largest.max(block.largest_index);
        count += block.rows;
        Ok(())
    })?;
    let stated = wanted.map(<[String]>::len).or(options.features);
    if let Some(stated) = stated.filter(|&stated| largest > stated) {
        return Err(DataError::new(
            path,
            format!("feature {largest} occurs, where there are to be {stated} features"),
            "give a file with the same features, or state more of them",
        )
        .into());
    }
    let width = stated.unwrap_or(largest);
    if width == 0 {
        return Err(DataError::new(path, "no feature has a value in any row", "give rows such as: +1 3:0.5 7:1").into());
    }
    let remedy = "sparse files are made dense; raise dense_limit if there is room, or keep fewer features";
    check_memory(path, Some(count), width, options.dense_limit, remedy)?;
    let columns: Vec<String> = match wanted {
        Some(wanted) => wanted.to_vec(),
        None => (1..=width).map(|index| format!("feature_{index}")).collect(),
    };
    rows.begin(&columns)?;
    let parser = Parser { width: Some(width), named_labels };
    let mut targets = parser.labels();
    let mut dictionary = Dictionary::default();
    let finished = run(open(path)?, 1, &parser, &halves(1), &mut |block| {
        rows.push_rows(&block.values)?;
        if let Some(labels) = block.labels {
            targets
                .append(labels, &mut dictionary)
                .map_err(|(finding, remedy)| DataError::new(path, finding, remedy).at_column("1 (label)"))?;
        }
        Ok(())
    })?;
    Ok(Outcome {
        format: Format::Libsvm,
        columns,
        target_name: Some("1 (label)".into()),
        rows: targets.len(),
        targets: Some(targets),
        dropped: finished.dropped,
        fingerprint: finished.fingerprint,
    })
}

/// Opens the file behind its byte-order mark, if it has one.
fn open(path: &Path) -> Result<Source> {
    let mut source = Source::open(path)?;
    source.skip_mark();
    Ok(source)
}

struct Parser {
    /// Features in a row; `None` on the first pass, which only looks for the largest index.
    width: Option<usize>,
    named_labels: bool,
}

impl LineParser for Parser {
    fn quotes(&self) -> bool {
        false
    }

    fn parse(&self, text: &[u8]) -> Block {
        let mut block = Block::default();
        let mut labels = self.labels();
        let mut dictionary = Dictionary::default();
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            let content = trim(line.split(|&byte| byte == b'#').next().unwrap_or_default());
            if !content.is_empty()
                && let Err(mut problem) = self.row(content, &mut block, &mut labels, &mut dictionary)
            {
                problem.line = block.lines;
                block.problem = Some(problem);
                return block;
            }
            block.lines += u64::from(line.ends_with(b"\n"));
        }
        block.labels = Some(labels);
        block
    }
}

impl Parser {
    fn labels(&self) -> RawTargets {
        if self.named_labels { RawTargets::names() } else { RawTargets::numbers() }
    }

    /// Parses one line that is not empty.
    fn row(
        &self,
        line: &[u8],
        block: &mut Block,
        labels: &mut RawTargets,
        dictionary: &mut Dictionary,
    ) -> Result<(), Problem> {
        let start = block.values.len();
        if let Some(width) = self.width {
            block.values.resize(start + width, 0.0);
        }
        let mut tokens = line.split(u8::is_ascii_whitespace).filter(|token| !token.is_empty());
        let label = tokens.next().unwrap_or_default();
        let mut previous = 0;
        for (place, token) in tokens.enumerate() {
            let at = |problem: Problem| problem.at_column(place + 2);
            let (index, value) = pair(token).map_err(at)?;
            if index <= previous {
                return Err(at(if index == 0 {
                    Problem::new(0, "the index 0: indices count from 1", "add 1 to every index of the file")
                } else {
                    Problem::new(
                        0,
                        format!("the index {index} follows the index {previous}"),
                        "sort the pairs of each line by index, each index once",
                    )
                }));
            }
            previous = index;
            if self.width.is_some() {
                // The first pass has seen every index, unless the file has changed since.
                let slot = block.values.get_mut(start + index - 1);
                *slot.ok_or_else(|| at(Problem::new(0, "the file changed while it was read", "read it again")))? =
                    value;
            }
        }
        block.largest_index = block.largest_index.max(previous);
        block.rows += 1;
        self.push_label(label, labels, dictionary).map_err(|problem| problem.at_column("1 (label)"))
    }

    fn push_label(&self, label: &[u8], labels: &mut RawTargets, dictionary: &mut Dictionary) -> Result<(), Problem> {
        if let RawTargets::Names { names, .. } = labels {
            if is_missing(label) || label.contains(&b':') {
                return Err(Problem::new(0, format!("{} is no label", shown(label)), LABEL_REMEDY));
            }
            let code = dictionary.code(&label_name(label), names).ok_or_else(|| {
                let (finding, remedy) = too_many_classes();
                Problem::new(0, finding, remedy)
            })?;
            labels.push_code(code);
            return Ok(());
        }
        match (classify::<f32>(label), fast_float2::parse::<f64, _>(label)) {
            (Field::Number(nearest), Ok(exact)) => labels.push_number(exact, nearest),
            (Field::NotANumber, _) => {
                return Err(Problem::new(0, format!("the label {} is not a number", shown(label)), LABEL_REMEDY));
            }
            (found, _) => {
                let (finding, remedy) = complaint(label, &found);
                return Err(Problem::new(0, finding, remedy));
            }
        }
        Ok(())
    }
}

const LABEL_REMEDY: &str = "start each line with its label, such as -1, +1, 0, 1 or 2; classes that are names need \
                            task = \"classification\"";

/// Parses `index:value`.
fn pair(token: &[u8]) -> Result<(usize, f32), Problem> {
    let split = memchr::memchr(b':', token).map(|colon| (&token[..colon], &token[colon + 1..]));
    let Some((index, value)) = split else {
        return Err(Problem::new(0, format!("{} is not of the form index:value", shown(token)), PAIR_REMEDY));
    };
    let digits = std::str::from_utf8(index).ok();
    let Some(digits) = digits.filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())) else {
        return Err(Problem::new(0, format!("{} is not an index", shown(index)), PAIR_REMEDY));
    };
    let Some(index) = digits.parse::<usize>().ok().filter(|&index| index <= LARGEST_INDEX) else {
        return Err(Problem::new(0, format!("the index {digits} is too large"), PAIR_REMEDY));
    };
    match classify::<f32>(value) {
        Field::Number(value) => Ok((index, value)),
        Field::Missing => Err(Problem::new(0, format!("the value of index {index} is missing"), PAIR_REMEDY)),
        found => {
            let (finding, _) = complaint(value, &found);
            Err(Problem::new(0, finding, PAIR_REMEDY))
        }
    }
}

const PAIR_REMEDY: &str = "after the label, a line holds pairs such as 3:0.5, indices from 1 and values finite numbers";
