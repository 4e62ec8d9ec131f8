//! One file of a corpus: its text and where its tokens lie.
//!
//! A token is a character (a Unicode code point) or a byte. Where every character is one byte, a token's place is its
//! number; else the place of every [`STRIDE`]-th character is kept, eight bytes each, and the others are counted from there.

use super::Tokens;
use crate::data::read::Text;
use std::ops::Range;

/// Characters between two whose places are kept.
const STRIDE: usize = 256;

/// A text cut into tokens.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    text: Text,
    tokens: usize,
    cut: Cut,
}

#[derive(Debug, Clone)]
enum Cut {
    /// A token is a byte: bytes are what is asked for, or all characters are ASCII.
    Bytes,
    /// Places of the characters number 0, [`STRIDE`], 2 [`STRIDE`], ...
    Characters(Vec<u64>),
}

/// Whether a byte of UTF-8 begins a character.
pub(super) fn begins(byte: u8) -> bool {
    byte & 0xc0 != 0x80
}

/// Characters that begin in some bytes.
fn characters(bytes: &[u8]) -> usize {
    bytes.iter().map(|&byte| usize::from(begins(byte))).sum()
}

impl Piece {
    pub(super) fn new(text: Text, tokens: Tokens) -> Self {
        let bytes = text.bytes();
        if tokens == Tokens::Bytes || bytes.is_ascii() {
            return Self { tokens: bytes.len(), text, cut: Cut::Bytes };
        }
        let (mut places, mut count) = (Vec::with_capacity(bytes.len() / STRIDE + 1), 0);
        for (place, &byte) in bytes.iter().enumerate() {
            if begins(byte) {
                if count % STRIDE == 0 {
                    places.push(place as u64);
                }
                count += 1;
            }
        }
        Self { text, tokens: count, cut: Cut::Characters(places) }
    }

    /// Number of tokens.
    pub(super) fn len(&self) -> usize {
        self.tokens
    }

    /// Leaves out all tokens but the first so many.
    pub(super) fn shorten(&mut self, tokens: usize) {
        self.tokens = self.tokens.min(tokens);
    }

    pub(super) fn text(&self) -> &Text {
        &self.text
    }

    /// Where a token begins; of the one after the last, where the text ends.
    fn place(&self, token: usize) -> usize {
        let Cut::Characters(places) = &self.cut else { return token };
        let bytes = self.text.bytes();
        let Some(&start) = places.get(token / STRIDE) else { return bytes.len() };
        let mut place = start as usize;
        for _ in 0..token % STRIDE {
            place += 1;
            while bytes.get(place).is_some_and(|&byte| !begins(byte)) {
                place += 1;
            }
        }
        place.min(bytes.len())
    }

    /// The bytes of some tokens.
    pub(super) fn bytes(&self, tokens: Range<usize>) -> &[u8] {
        debug_assert!(tokens.end <= self.tokens);
        let (start, end) = (self.place(tokens.start), self.place(tokens.end));
        self.text.bytes().get(start..end).unwrap_or_default()
    }

    /// Characters that begin in some tokens.
    pub(super) fn characters(&self, tokens: Range<usize>) -> usize {
        match self.cut {
            Cut::Bytes => characters(self.bytes(tokens)),
            Cut::Characters(_) => tokens.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_is_found_where_it_stands() {
        let text: String = (0..2000_u32)
            .filter_map(|i| char::from_u32([0x41, 0xe9, 0x4e00, 0x1f600][i as usize % 4] + i % 7))
            .collect();
        let all: Vec<char> = text.chars().collect();
        let piece = Piece::new(Text::held("test", &text), Tokens::Characters);
        assert_eq!(piece.len(), all.len());
        for (start, end) in [(0, 1), (255, 257), (256, 512), (1999, 2000), (2000, 2000), (0, 2000), (700, 1300)] {
            let found = std::str::from_utf8(piece.bytes(start..end)).unwrap();
            assert_eq!(found.chars().collect::<Vec<_>>(), all[start..end], "{start}..{end}");
        }
        let bytes = Piece::new(Text::held("test", &text), Tokens::Bytes);
        assert_eq!((bytes.len(), bytes.characters(0..text.len())), (text.len(), 2000));
        // "A" of one byte and "\u{e9}" of two.
        assert_eq!((bytes.characters(0..2), bytes.characters(2..3)), (2, 0));
    }
}
