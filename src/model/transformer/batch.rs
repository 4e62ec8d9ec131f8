//! Sequences of tokens as a Transformer reads them.
//!
//! A row of data is a sequence of `context` tokens with the token that follows each. A decoder reads them and predicts what
//! follows. An encoder-decoder's encoder reads the first half, and its decoder predicts what follows in the second. An encoder
//! sees [`MASKED_SHARE`] of the tokens masked by a symbol of their own and predicts those (Devlin et al. 2019, without their random
//! replacements); which ones follows from the row's number.

use super::config::Kind;
use crate::data::Sequences;
use crate::device::NO_ROW;

/// Rows of tokens.
pub trait TokenRows: Send + Sync {
    /// Number of sequences.
    fn count(&self) -> usize;
    /// Writes a sequence's tokens and the token that follows each. [`u32::MAX`] stands for padding among the tokens, and for
    /// nothing to be predicted among the others.
    fn read(&self, row: usize, tokens: &mut [u32], next: &mut [u32]);
    /// The text that they are of, if it is one, by which losses are told apart.
    fn text(&self) -> Option<&Sequences> {
        None
    }
}

/// Sequences held in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeldRows {
    /// Tokens of a sequence.
    pub context: usize,
    /// Tokens of all sequences, one after another.
    pub tokens: Vec<u32>,
    /// What follows each.
    pub next: Vec<u32>,
}

impl TokenRows for HeldRows {
    fn count(&self) -> usize {
        self.tokens.len() / self.context.max(1)
    }

    fn read(&self, row: usize, tokens: &mut [u32], next: &mut [u32]) {
        let range = row * self.context..(row + 1) * self.context;
        tokens.copy_from_slice(&self.tokens[range.clone()]);
        next.copy_from_slice(&self.next[range]);
    }
}

/// Share of an encoder's tokens that is masked.
pub const MASKED_SHARE: f64 = 0.15;

/// Sequences in the form that the stacks take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenBatch {
    /// Sequences.
    pub sequences: usize,
    /// Tokens of each that the encoder reads (none without one).
    pub encoder: Vec<u32>,
    /// Tokens of each that the decoder reads (none without one).
    pub decoder: Vec<u32>,
    /// What the last stack is to predict at every token it reads.
    pub targets: Vec<u32>,
}

impl TokenBatch {
    /// Tokens of a sequence that each stack reads: the encoder, the decoder.
    #[must_use]
    pub fn lengths(kind: Kind, context: usize) -> [usize; 2] {
        match kind {
            Kind::Encoder => [context, 0],
            Kind::Decoder => [0, context],
            Kind::EncoderDecoder => [context / 2, context - context / 2],
        }
    }

    /// Reads rows; `vocabulary` is the number of symbols, the mask apart.
    pub(super) fn read(
        kind: Kind,
        context: usize,
        vocabulary: usize,
        source: &dyn TokenRows,
        rows: impl Iterator<Item = usize>,
    ) -> Self {
        let mut batch = Self::default();
        let (mut tokens, mut next) = (vec![0; context], vec![0; context]);
        let half = Self::lengths(kind, context)[0];
        for row in rows {
            source.read(row, &mut tokens, &mut next);
            batch.sequences += 1;
            match kind {
                Kind::Decoder => {
                    batch.decoder.extend(&tokens);
                    batch.targets.extend(&next);
                }
                Kind::EncoderDecoder => {
                    batch.encoder.extend(&tokens[..half]);
                    batch.decoder.extend(&tokens[half..]);
                    batch.targets.extend(&next[half..]);
                }
                Kind::Encoder => {
                    let forced = (hash(row as u64, u64::MAX) % context as u64) as usize;
                    for (place, &token) in tokens.iter().enumerate() {
                        let drawn = hash(row as u64, place as u64) as f64 / u64::MAX as f64;
                        let is_masked = token != NO_ROW && (drawn < MASKED_SHARE || place == forced);
                        batch.encoder.push(if is_masked { vocabulary as u32 } else { token });
                        batch.targets.push(if is_masked { token } else { NO_ROW });
                    }
                }
            }
        }
        batch
    }

    /// The tokens to predict.
    #[must_use]
    pub fn predicted(&self) -> usize {
        self.targets.iter().filter(|&&target| target != NO_ROW).count()
    }
}

/// Mixes two numbers into one (the finalizer of SplitMix64).
pub(super) fn hash(a: u64, b: u64) -> u64 {
    let mut x = a.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(b).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_what_each_kind_reads() {
        let tokens: Vec<u32> = (0..24).collect();
        let next = (1..25).collect();
        let rows = HeldRows { context: 8, tokens, next };
        let read = |kind| TokenBatch::read(kind, 8, 30, &rows, 1..3);
        let batch = read(Kind::Decoder);
        assert_eq!((batch.sequences, batch.decoder[0], batch.targets[15]), (2, 8, 24));
        let batch = read(Kind::EncoderDecoder);
        assert_eq!(
            (&batch.encoder[..4], &batch.decoder[4..], batch.targets[0]),
            (&[8, 9, 10, 11][..], &[20, 21, 22, 23][..], 13)
        );
        let batch = read(Kind::Encoder);
        for (place, (&token, &target)) in batch.encoder.iter().zip(&batch.targets).enumerate() {
            let own = 8 + place as u32;
            assert!((token, target) == (30, own) || (token, target) == (own, NO_ROW));
        }
        assert!(batch.predicted() >= 2);
    }
}
