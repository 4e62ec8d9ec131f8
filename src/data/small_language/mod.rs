//! `small-language`: a generator of a small artificial language, any number of words of it.
//!
//! Its sentences are of three kinds. *Grammar*: determiners, adjectives, nouns and verbs that agree in number. *Facts*: which
//! town each of `facts` people is from, a table without any rule that must be learned by heart. *Sums* of two numbers of
//! `digits` decimal digits. Every token knows its kind: of a fact the answer alone is `fact`, of a sum the digits of the result
//! are `sum`, all else is `grammar`, so that what a model knows by heart, can compute and has in its ear are told apart. The
//! probability of every token given those before it is known exactly, and with it the entropy ([`Entropy`]), below which no model
//! comes. docs/small-language.md has the grammar and its numbers.
//!
//! Words come in paragraphs of [`PARAGRAPH`] tokens, each from a random stream of its own (ChaCha8, seed and paragraph): what is
//! asked for is made where it is asked for, the same in any order and in any pieces, and takes no memory.

mod grammar;
mod words;

use crate::data::read::hex;
use crate::data::split::below;
use crate::error::{Error, Result};
use grammar::Paragraph;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::ops::Range;
use words::Lexicon;

/// The name under which it appears everywhere.
pub const NAME: &str = "small-language";

/// Raised whenever the tokens of given parameters change.
pub const LANGUAGE_VERSION: u32 = 1;

/// Tokens of a paragraph: a new line and whole sentences, the last of which may be cut.
pub const PARAGRAPH: usize = 1024;

/// The kinds of tokens, in the order of their numbers.
pub const KINDS: [&str; 3] = ["grammar", "fact", "sum"];

/// The most facts.
pub const MOST_FACTS: usize = 1 << 20;

/// The most digits of a number in a sum.
pub const MOST_DIGITS: usize = 9;

/// What kind a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Anything but an answer.
    Grammar = 0,
    /// The town that a person is from.
    Fact = 1,
    /// A digit of the result of a sum.
    Sum = 2,
}

/// What decides the language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// People whose town must be known, from 1 to [`MOST_FACTS`].
    pub facts: usize,
    /// Digits of the numbers that are added, from 1 to [`MOST_DIGITS`].
    pub digits: usize,
    /// Seed of the facts and of the text.
    pub seed: u64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { facts: 4096, digits: 2, seed: 1 }
    }
}

/// A token as it was written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Token {
    /// Its place among the words.
    pub number: u32,
    /// What it is.
    pub kind: Kind,
    /// `-ln` of its probability given all tokens before it, in nats.
    pub surprise: f64,
}

/// What the best model comes to: one that knows the grammar, its frequencies, all facts and how to add.
///
/// These are limits over many whole sentences. That each paragraph begins with a new line, which its place tells, and that its
/// last sentence is cut changes them by less than a part in a hundred.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Entropy {
    /// Nats per token: the smallest loss.
    pub nats_per_token: f64,
    /// Nats per token of the kind `grammar`; the smallest losses of the two others are zero.
    pub grammar_nats: f64,
    /// Tokens of a sentence, on average.
    pub sentence_tokens: f64,
    /// Share of the tokens that are the answer of a fact.
    pub fact_share: f64,
    /// Share of the tokens that are a digit of a result.
    pub sum_share: f64,
}

/// The language of some parameters.
#[derive(Debug, Clone)]
pub struct SmallLanguage {
    parameters: Parameters,
    lexicon: Lexicon,
    /// The town of each person.
    towns: Vec<u8>,
}

/// The random stream of the table of facts, which no paragraph has.
const TABLE: u64 = u64::MAX;

impl SmallLanguage {
    /// The language of these parameters.
    ///
    /// # Errors
    /// [`Error::Config`] for a parameter out of its range.
    pub fn new(parameters: Parameters) -> Result<Self> {
        let Parameters { facts, digits, seed } = parameters;
        let refuse = |key: &str, value: usize, most: usize| {
            let remedy = format!("`{key}` takes a whole number from 1 to {most}");
            Err(Error::config(format!("dataset `{NAME}`"), format!("{key} = {value}"), remedy))
        };
        if facts == 0 || facts > MOST_FACTS {
            return refuse("facts", facts, MOST_FACTS);
        }
        if digits == 0 || digits > MOST_DIGITS {
            return refuse("digits", digits, MOST_DIGITS);
        }
        let mut rng = stream(seed, TABLE);
        let towns = (0..facts).map(|_| below(words::TOWNS as u64, &mut rng) as u8).collect();
        Ok(Self { parameters, lexicon: Lexicon::new(facts), towns })
    }

    /// What it was made with.
    #[must_use]
    pub fn parameters(&self) -> Parameters {
        self.parameters
    }

    /// SHA-256 of what decides `length` tokens.
    #[must_use]
    pub fn fingerprint(&self, length: usize) -> String {
        let Parameters { facts, digits, seed } = self.parameters;
        let source =
            format!("{NAME} version {LANGUAGE_VERSION} seed {seed} facts {facts} digits {digits} tokens {length}");
        hex(&Sha256::digest(source.as_bytes()))
    }

    /// All words, in the order of their numbers; the new line is the first.
    #[must_use]
    pub fn words(&self) -> &[String] {
        self.lexicon.words()
    }

    /// Calls `visit` with the position and the token of each of some positions.
    pub fn each(&self, range: Range<usize>, mut visit: impl FnMut(usize, Token)) {
        if range.is_empty() {
            return;
        }
        let mut paragraph = Paragraph::default();
        for number in range.start / PARAGRAPH..=(range.end - 1) / PARAGRAPH {
            self.write_paragraph(number as u64, &mut paragraph);
            let first = number * PARAGRAPH;
            for (place, &token) in paragraph.tokens().iter().enumerate() {
                let position = first + place;
                if range.contains(&position) {
                    visit(position, token);
                }
            }
        }
    }

    /// Writes a paragraph anew.
    fn write_paragraph(&self, number: u64, into: &mut Paragraph) {
        into.fill(&self.lexicon, &self.towns, self.parameters.digits, &mut stream(self.parameters.seed, number));
    }

    /// Characters of a word in the running text, the space before it included.
    #[must_use]
    pub fn characters(&self, number: u32) -> usize {
        let word = self.lexicon.words().get(number as usize).map_or(0, |word| word.chars().count());
        word + usize::from(!self.lexicon.stands_alone(number))
    }

    /// Appends a word to a running text, with the space before it.
    pub fn write(&self, number: u32, text: &mut String) {
        if !self.lexicon.stands_alone(number) {
            text.push(' ');
        }
        text.push_str(self.lexicon.words().get(number as usize).map_or("", String::as_str));
    }

    /// What the best model comes to.
    #[must_use]
    pub fn entropy(&self) -> Entropy {
        grammar::entropy(&self.lexicon, self.parameters.digits)
    }
}

/// The random stream of a paragraph.
fn stream(seed: u64, number: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    rng
}

#[cfg(test)]
mod tests;
