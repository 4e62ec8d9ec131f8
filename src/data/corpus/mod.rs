//! A corpus: a text, or a generator of one, as numbered tokens, divided by position into parts.
//!
//! A text's tokens are its characters (code points) or its bytes of UTF-8, served from the mapped file; several files follow one
//! another. The tokens of the generated language are its words, made anew wherever they are asked for. Parts are ranges of
//! positions. Characters are numbered by what the training part alone holds ([`Vocabulary`]).

mod describe;
mod piece;
mod sequences;
mod vocabulary;

pub use describe::{CorpusDescription, PartDescription, describe};
pub use sequences::Sequences;
pub use vocabulary::Vocabulary;

use super::SplitSpec;
use super::read::{Text, hex, read_text};
use super::small_language::{self, SmallLanguage};
use crate::error::{Error, Result};
use piece::Piece;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// What a text is cut into.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Tokens {
    /// Unicode code points.
    #[default]
    Characters,
    /// Bytes of UTF-8.
    Bytes,
}

impl Tokens {
    /// The word that experiment files use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Characters => "characters",
            Self::Bytes => "bytes",
        }
    }
}

/// A corpus; cloning shares its text.
#[derive(Debug, Clone)]
pub struct Corpus {
    /// The registered name or the path it was read from, as it appears in every report.
    pub name: String,
    /// SHA-256 of what decides its tokens: the files' bytes and what they are cut into, or the generator's settings.
    pub fingerprint: String,
    content: Arc<Content>,
    vocabulary: Arc<Vocabulary>,
    parts: [Range<usize>; 3],
}

#[derive(Debug)]
enum Content {
    /// Files with the position at which each begins.
    Text {
        pieces: Vec<(usize, Piece)>,
        tokens: Tokens,
    },
    Language {
        language: Box<SmallLanguage>,
        length: usize,
    },
}

impl Content {
    fn len(&self) -> usize {
        match self {
            Self::Text { pieces, .. } => pieces.last().map_or(0, |(start, piece)| start + piece.len()),
            Self::Language { length, .. } => *length,
        }
    }

    /// Calls `visit` with each file's own range of those tokens that lie in it.
    fn each_piece(pieces: &[(usize, Piece)], range: &Range<usize>, mut visit: impl FnMut(&Piece, Range<usize>)) {
        for (start, piece) in pieces {
            let own = range.start.saturating_sub(*start)..range.end.saturating_sub(*start).min(piece.len());
            if own.start < own.end {
                visit(piece, own);
            }
        }
    }

    fn each_text(&self, visit: impl Fn(&Text)) {
        if let Self::Text { pieces, .. } = self {
            pieces.iter().for_each(|(_, piece)| visit(piece.text()));
        }
    }

    /// Calls `visit` with every character or byte of some positions.
    fn each_symbol(&self, range: &Range<usize>, mut visit: impl FnMut(char)) {
        let Self::Text { pieces, tokens } = self else { return };
        Self::each_piece(pieces, range, |piece, own| {
            let bytes = piece.bytes(own);
            match (tokens, std::str::from_utf8(bytes)) {
                (Tokens::Bytes, _) => bytes.iter().for_each(|&byte| visit(char::from(byte))),
                (Tokens::Characters, Ok(text)) => text.chars().for_each(&mut visit),
                // It was UTF-8 when it was opened: whoever has changed the file since reads replacement characters.
                (Tokens::Characters, Err(_)) => String::from_utf8_lossy(bytes).chars().for_each(&mut visit),
            }
        });
    }
}

impl Corpus {
    /// Opens text files that follow one another; of the first, the first `length` tokens alone, where that is asked for. Also
    /// the number of tokens of each.
    ///
    /// # Errors
    /// As [`read_text`]; [`Error::Config`] for a length that is zero or longer than the first file.
    pub fn open(name: &str, paths: &[PathBuf], tokens: Tokens, length: Option<usize>) -> Result<(Self, Vec<usize>)> {
        let texts = paths.iter().map(|path| read_text(path)).collect::<Result<Vec<_>>>()?;
        Self::of_texts(name, texts, tokens, length)
    }

    /// A corpus of texts that are open already.
    ///
    /// # Errors
    /// As [`Corpus::open`].
    pub fn of_texts(name: &str, texts: Vec<Text>, tokens: Tokens, length: Option<usize>) -> Result<(Self, Vec<usize>)> {
        let mut digest = Sha256::new();
        let (mut pieces, mut end) = (Vec::with_capacity(texts.len()), 0);
        for text in texts {
            digest.update(&text.fingerprint);
            let mut piece = Piece::new(text, tokens);
            piece.text().release();
            if let Some(wanted) = length.filter(|_| pieces.is_empty()) {
                let available = piece.len();
                if wanted == 0 || wanted > available {
                    let remedy = format!("`length` takes a whole number from 1 to {available}");
                    return Err(Error::config(format!("dataset `{name}`"), format!("length = {wanted}"), remedy));
                }
                piece.shorten(wanted);
            }
            let start = end;
            end += piece.len();
            pieces.push((start, piece));
        }
        digest.update(format!("{} {length:?}", tokens.name()));
        let lengths = pieces.iter().map(|(_, piece)| piece.len()).collect();
        let content = Content::Text { pieces, tokens };
        Ok((Self::whole(name, hex(&digest.finalize()), content), lengths))
    }

    /// So many tokens of the generated language.
    ///
    /// # Errors
    /// [`Error::Config`] for a parameter out of its range or a length of zero.
    pub fn generate(length: usize, parameters: small_language::Parameters) -> Result<Self> {
        if length == 0 {
            let place = format!("dataset `{}`", small_language::NAME);
            return Err(Error::config(place, "length = 0", "`length` takes a whole number of at least 1"));
        }
        let language = Box::new(SmallLanguage::new(parameters)?);
        let fingerprint = language.fingerprint(length);
        Ok(Self::whole(small_language::NAME, fingerprint, Content::Language { language, length }))
    }

    /// Everything as the training part.
    fn whole(name: &str, fingerprint: String, content: Content) -> Self {
        let parts = [0..content.len(), 0..0, 0..0];
        let vocabulary = Arc::new(vocabulary(&content, &parts[0]));
        Self { name: name.to_owned(), fingerprint, content: Arc::new(content), vocabulary, parts }
    }

    /// The same divided by position; characters are numbered by those of the new training part.
    ///
    /// # Errors
    /// [`Error::Config`] for a rule that does not go by position, parts that do not fit, or a training part in which there is
    /// nothing to tell apart.
    pub fn split(&self, spec: &SplitSpec) -> Result<Self> {
        let parts = spec.positions(&self.name, self.len())?;
        let vocabulary = vocabulary(&self.content, &parts[0]);
        if vocabulary.len() - usize::from(vocabulary.unknown().is_some()) < 2 {
            let finding = format!("the training part of {} consists of one symbol alone", self.name);
            return Err(Error::config("split", finding, "give a text in which there is something to predict"));
        }
        Ok(Self { vocabulary: Arc::new(vocabulary), parts, ..self.clone() })
    }

    /// The same without a test part, if `withheld`.
    #[must_use]
    pub fn withholding(mut self, withheld: bool) -> Self {
        if withheld {
            self.parts[2] = 0..0;
        }
        self
    }

    /// Number of tokens in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.content.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of different tokens: numbers are below it.
    #[must_use]
    pub fn vocabulary_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// What the tokens stand for.
    #[must_use]
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// What a text is cut into; `None` of the generated language, whose tokens are words.
    #[must_use]
    pub fn tokens_are(&self) -> Option<Tokens> {
        match &*self.content {
            Content::Text { tokens, .. } => Some(*tokens),
            Content::Language { .. } => None,
        }
    }

    /// The generator, where there is one.
    #[must_use]
    pub fn language(&self) -> Option<&SmallLanguage> {
        match &*self.content {
            Content::Text { .. } => None,
            Content::Language { language, .. } => Some(language),
        }
    }

    /// Files of a text, with their numbers of tokens.
    pub fn files(&self) -> impl Iterator<Item = (&Text, usize)> {
        let pieces = match &*self.content {
            Content::Text { pieces, .. } => &pieces[..],
            Content::Language { .. } => &[],
        };
        pieces.iter().map(|(_, piece)| (piece.text(), piece.len()))
    }

    /// Positions of the training part.
    #[must_use]
    pub fn train(&self) -> Range<usize> {
        self.parts[0].clone()
    }

    /// Positions of the validation part; it may be empty.
    #[must_use]
    pub fn validation(&self) -> Range<usize> {
        self.parts[1].clone()
    }

    /// Positions of the test part; it may be empty.
    #[must_use]
    pub fn test(&self) -> Range<usize> {
        self.parts[2].clone()
    }

    /// Writes the numbers of the tokens from a position on.
    ///
    /// # Panics
    /// If the corpus ends before `into` is full.
    pub fn read(&self, start: usize, into: &mut [u32]) {
        let range = start..start + into.len();
        assert!(range.end <= self.len(), "tokens {range:?} of {}", self.len());
        if let Content::Language { language, .. } = &*self.content {
            return language.each(range, |place, token| into[place - start] = token.number);
        }
        let bytes = self.tokens_are() == Some(Tokens::Bytes);
        let mut slots = into.iter_mut();
        self.content.each_symbol(&range, |symbol| {
            if let Some(slot) = slots.next() {
                *slot = if bytes { symbol as u32 } else { self.vocabulary.number(symbol) };
            }
        });
        slots.for_each(|slot| *slot = self.vocabulary.unknown().unwrap_or(0));
    }

    /// Writes what kind each token from a position on is, as a place in [`small_language::KINDS`]; `false` of a text, whose
    /// tokens have no kinds.
    ///
    /// # Panics
    /// If the corpus ends before `into` is full.
    pub fn read_kinds(&self, start: usize, into: &mut [u8]) -> bool {
        let Content::Language { language, length } = &*self.content else { return false };
        let range = start..start + into.len();
        assert!(range.end <= *length, "tokens {range:?} of {length}");
        language.each(range, |place, token| into[place - start] = token.kind as u8);
        true
    }

    /// Writes how many characters of the text each token from a position on is: of words, with the space before; of bytes, 1 for
    /// the first of each character and 0 for the others.
    ///
    /// # Panics
    /// If the corpus ends before `into` is full.
    pub fn read_widths(&self, start: usize, into: &mut [u8]) {
        let range = start..start + into.len();
        assert!(range.end <= self.len(), "tokens {range:?} of {}", self.len());
        match &*self.content {
            Content::Text { tokens: Tokens::Characters, .. } => into.fill(1),
            Content::Text { pieces, tokens: Tokens::Bytes } => {
                let mut slots = into.iter_mut();
                Content::each_piece(pieces, &range, |piece, own| {
                    piece
                        .bytes(own)
                        .iter()
                        .zip(&mut slots)
                        .for_each(|(&byte, slot)| *slot = u8::from(piece::begins(byte)));
                });
            }
            Content::Language { language, .. } => {
                language.each(range, |place, token| into[place - start] = language.characters(token.number) as u8);
            }
        }
    }

    /// Characters of the text that some tokens are: of words, with the space before each.
    #[must_use]
    pub fn characters(&self, range: Range<usize>) -> usize {
        let mut count = 0;
        match &*self.content {
            Content::Text { pieces, .. } => {
                Content::each_piece(pieces, &range, |piece, own| count += piece.characters(own));
            }
            Content::Language { language, .. } => {
                language.each(range, |_, token| count += language.characters(token.number))
            }
        }
        count
    }

    /// Some tokens to be read.
    #[must_use]
    pub fn excerpt(&self, range: Range<usize>) -> String {
        let range = range.start.min(self.len())..range.end.min(self.len());
        let mut text = String::new();
        match &*self.content {
            Content::Text { pieces, .. } => Content::each_piece(pieces, &range, |piece, own| {
                text.push_str(&String::from_utf8_lossy(piece.bytes(own)));
            }),
            Content::Language { language, .. } => language.each(range, |_, token| {
                language.write(token.number, &mut text);
            }),
        }
        text
    }
}

/// The vocabulary of a training part.
fn vocabulary(content: &Content, train: &Range<usize>) -> Vocabulary {
    match content {
        Content::Language { language, .. } => Vocabulary::words(language),
        Content::Text { tokens: Tokens::Bytes, .. } => Vocabulary::bytes(),
        Content::Text { tokens: Tokens::Characters, .. } => {
            let (mut ascii, mut others) = ([false; 128], std::collections::BTreeSet::new());
            content.each_symbol(train, |symbol| match ascii.get_mut(symbol as usize) {
                Some(seen) => *seen = true,
                None => {
                    others.insert(symbol);
                }
            });
            content.each_text(Text::release);
            let ascii = (0..128_u8).filter(|&byte| ascii[usize::from(byte)]).map(char::from);
            Vocabulary::characters(ascii.chain(others).collect())
        }
    }
}

#[cfg(test)]
mod tests;
