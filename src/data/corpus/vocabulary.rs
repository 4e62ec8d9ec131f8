//! What the numbers of tokens stand for.
//!
//! Bytes stand for themselves. Characters are numbered in the order of their code points, those of the training part alone;
//! every other character is the one token `unknown`, which comes last and is never seen in training. Predicting it counts as
//! any prediction does; which of the unknown characters it was is not asked.

use crate::data::small_language::SmallLanguage;

/// The tokens of a corpus by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vocabulary(Symbols);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Symbols {
    Bytes,
    Characters {
        /// In the order of their code points.
        known: Vec<char>,
        /// Numbers of the ASCII characters.
        ascii: Box<[u32; 128]>,
    },
    Words(Vec<String>),
}

impl Vocabulary {
    /// The 256 bytes.
    #[must_use]
    pub fn bytes() -> Self {
        Self(Symbols::Bytes)
    }

    /// Characters, each of which is to be named once, and the unknown one.
    #[must_use]
    pub fn characters(mut known: Vec<char>) -> Self {
        known.sort_unstable();
        known.dedup();
        let number = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
        let unknown = number(known.len());
        let mut ascii = Box::new([unknown; 128]);
        for (place, &character) in known.iter().enumerate().filter(|(_, character)| character.is_ascii()) {
            ascii[character as usize] = number(place);
        }
        Self(Symbols::Characters { known, ascii })
    }

    /// The words of the generated language.
    #[must_use]
    pub fn words(language: &SmallLanguage) -> Self {
        Self(Symbols::Words(language.words().to_vec()))
    }

    /// Number of tokens, the unknown one included.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Symbols::Bytes => 256,
            Symbols::Characters { known, .. } => known.len() + 1,
            Symbols::Words(words) => words.len(),
        }
    }

    /// Whether there are none; a vocabulary never is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of the unknown token, where there is one.
    #[must_use]
    pub fn unknown(&self) -> Option<u32> {
        match &self.0 {
            Symbols::Characters { known, .. } => u32::try_from(known.len()).ok(),
            Symbols::Bytes | Symbols::Words(_) => None,
        }
    }

    /// The number of a character; bytes and words have none but their own.
    #[must_use]
    pub fn number(&self, character: char) -> u32 {
        match &self.0 {
            Symbols::Characters { known, ascii } => match ascii.get(character as usize) {
                Some(&number) => number,
                None => known.binary_search(&character).unwrap_or(known.len()) as u32,
            },
            Symbols::Bytes | Symbols::Words(_) => character as u32,
        }
    }

    /// What a token stands for, to be read: `<?>` for the unknown one, `<0xe9>` for a byte that is no character.
    #[must_use]
    pub fn text(&self, number: u32) -> String {
        match &self.0 {
            Symbols::Bytes => match u8::try_from(number) {
                Ok(byte) if byte.is_ascii() => char::from(byte).to_string(),
                _ => format!("<0x{number:02x}>"),
            },
            Symbols::Characters { known, .. } => {
                known.get(number as usize).map_or_else(|| "<?>".into(), char::to_string)
            }
            Symbols::Words(words) => words.get(number as usize).cloned().unwrap_or_default(),
        }
    }

    /// All tokens to be read, in the order of their numbers.
    pub fn texts(&self) -> impl Iterator<Item = String> + '_ {
        (0..self.len()).map(|number| self.text(number as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_numbered_by_their_code_points() {
        let vocabulary = Vocabulary::characters(vec!['\u{e9}', 'b', '\n', 'a', 'b']);
        assert_eq!(vocabulary.len(), 5);
        assert_eq!(['\n', 'a', 'b', '\u{e9}', 'c', '\u{4e00}'].map(|c| vocabulary.number(c)), [0, 1, 2, 3, 4, 4]);
        assert_eq!(vocabulary.unknown(), Some(4));
        assert_eq!(vocabulary.texts().collect::<Vec<_>>(), ["\n", "a", "b", "\u{e9}", "<?>"]);
        assert_eq!((Vocabulary::bytes().len(), Vocabulary::bytes().text(0xe9)), (256, "<0xe9>".into()));
    }
}
