//! A corpus at a glance: its files, its vocabulary and its parts.

use super::{Corpus, Tokens};
use crate::data::small_language::{Entropy, KINDS};
use serde::Serialize;
use std::fmt;
use std::ops::Range;

/// The most frequent tokens that are shown.
const FREQUENT: usize = 12;
/// Tokens at the start that are shown.
const EXCERPT: usize = 160;
/// Tokens read at a time.
const BLOCK: usize = 1 << 16;

/// What `data describe` says about a corpus.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CorpusDescription {
    /// As [`Corpus::name`].
    pub name: String,
    /// As [`Corpus::fingerprint`].
    pub fingerprint: String,
    /// `characters`, `bytes` or `words`.
    pub tokens_are: &'static str,
    /// Tokens in all.
    pub tokens: usize,
    /// Characters in all; of words, with a space between.
    pub characters: usize,
    /// Different tokens, the unknown one included.
    pub vocabulary: usize,
    /// Files with their sizes; none of a generator.
    pub files: Vec<FileDescription>,
    /// The parts: train, validation, test.
    pub parts: Vec<PartDescription>,
    /// The most frequent tokens of the training part with their counts.
    pub frequent: Vec<(String, u64)>,
    /// Bits per token of a model that knows how frequent each token of the training part is, and nothing more.
    pub unigram_bits: f64,
    /// Of the generated language, what its best model comes to.
    pub entropy: Option<Entropy>,
    /// How it begins.
    pub excerpt: String,
}

/// A file of a corpus.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileDescription {
    /// Its path.
    pub path: String,
    /// SHA-256 of its bytes.
    pub fingerprint: String,
    /// Bytes of its text, the byte-order mark apart.
    pub bytes: usize,
    /// Characters of its text.
    pub characters: usize,
    /// Lines of its text.
    pub lines: usize,
}

/// A part of a corpus.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartDescription {
    /// `train`, `validation` or `test`.
    pub part: &'static str,
    /// Its tokens.
    pub tokens: usize,
    /// Those that are unknown, because the training part lacks their character.
    pub unknown: u64,
    /// Tokens of each kind, where there are kinds.
    pub kinds: Vec<(&'static str, u64)>,
}

/// Sums a corpus up.
#[must_use]
pub fn describe(corpus: &Corpus) -> CorpusDescription {
    let names = ["train", "validation", "test"];
    let ranges = [corpus.train(), corpus.validation(), corpus.test()];
    let counts = ranges.clone().map(|range| count(corpus, range));
    let parts = names.into_iter().zip(ranges).zip(&counts).map(|((part, range), (tokens, kinds))| PartDescription {
        part,
        tokens: range.len(),
        unknown: corpus.vocabulary().unknown().map_or(0, |unknown| tokens[unknown as usize]),
        kinds: if corpus.language().is_some() { KINDS.into_iter().zip(*kinds).collect() } else { Vec::new() },
    });
    let parts = parts.filter(|part| part.tokens > 0 || part.part == "train").collect();
    let train = &counts[0].0;
    let total: u64 = train.iter().sum();
    let bits = |&count: &u64| if count == 0 { 0.0 } else { count as f64 * (total as f64 / count as f64).log2() };
    let mut order: Vec<usize> = (0..train.len()).filter(|&number| train[number] > 0).collect();
    order.sort_by_key(|&number| (std::cmp::Reverse(train[number]), number));
    CorpusDescription {
        name: corpus.name.clone(),
        fingerprint: corpus.fingerprint.clone(),
        tokens_are: corpus.tokens_are().map_or("words", Tokens::name),
        tokens: corpus.len(),
        characters: corpus.characters(0..corpus.len()),
        vocabulary: corpus.vocabulary_size(),
        files: corpus.files().map(|(text, _)| file(&text.name, &text.fingerprint, text.bytes())).collect(),
        parts,
        frequent: order.iter().take(FREQUENT).map(|&n| (corpus.vocabulary().text(n as u32), train[n])).collect(),
        unigram_bits: train.iter().map(bits).sum::<f64>() / (total as f64).max(1.0),
        entropy: corpus.language().map(super::SmallLanguage::entropy),
        excerpt: corpus.excerpt(0..EXCERPT),
    }
}

fn file(path: &str, fingerprint: &str, bytes: &[u8]) -> FileDescription {
    let ends = memchr::memchr_iter(b'\n', bytes).count();
    FileDescription {
        path: path.to_owned(),
        fingerprint: fingerprint.to_owned(),
        bytes: bytes.len(),
        characters: bytes.iter().map(|byte| usize::from(byte & 0xc0 != 0x80)).sum(),
        lines: ends + usize::from(bytes.last().is_some_and(|&last| last != b'\n')),
    }
}

/// How often each token occurs in a range, and how many there are of each kind.
fn count(corpus: &Corpus, range: Range<usize>) -> (Vec<u64>, [u64; 3]) {
    let (mut tokens, mut kinds) = (vec![0; corpus.vocabulary_size()], [0; 3]);
    let (mut numbers, mut own) = (vec![0; BLOCK], vec![0; BLOCK]);
    for start in range.clone().step_by(BLOCK) {
        let size = BLOCK.min(range.end - start);
        corpus.read(start, &mut numbers[..size]);
        numbers[..size].iter().for_each(|&number| tokens[number as usize] += 1);
        if corpus.read_kinds(start, &mut own[..size]) {
            own[..size].iter().for_each(|&kind| kinds[usize::from(kind)] += 1);
        }
    }
    (tokens, kinds)
}

impl fmt::Display for CorpusDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = crate::data::describe::grouped;
        let count = |value: usize| counted(value as u64);
        writeln!(f, "{}", self.name)?;
        writeln!(
            f,
            "  {} tokens ({}) of {} different, {} characters",
            count(self.tokens),
            self.tokens_are,
            count(self.vocabulary),
            count(self.characters)
        )?;
        for file in &self.files {
            let sizes = [count(file.bytes), count(file.characters), count(file.lines)];
            writeln!(f, "  {}: {} bytes, {} characters, {} lines", file.path, sizes[0], sizes[1], sizes[2])?;
        }
        writeln!(f, "  SHA-256 of the source and of how it is cut {}", self.fingerprint)?;
        for part in &self.parts {
            write!(f, "  {:<11}{:>14} tokens", part.part, count(part.tokens))?;
            for (kind, tokens) in &part.kinds {
                write!(f, "  {kind} {}", counted(*tokens))?;
            }
            match part.unknown {
                0 => writeln!(f)?,
                unknown => writeln!(f, ", {} of them unknown to the training part", counted(unknown))?,
            }
        }
        writeln!(f, "  {:.4} bits per token by the frequencies of the training part alone", self.unigram_bits)?;
        if let Some(entropy) = &self.entropy {
            writeln!(
                f,
                "  {:.4} bits per token of the best model, which knows language and facts ({:.4} nats)",
                entropy.nats_per_token / std::f64::consts::LN_2,
                entropy.nats_per_token
            )?;
        }
        let frequent: Vec<_> =
            self.frequent.iter().map(|(text, count)| format!("{text:?} {}", counted(*count))).collect();
        writeln!(f, "  most frequent: {}", frequent.join(", "))?;
        write!(f, "  begins: {:?}", self.excerpt)
    }
}
