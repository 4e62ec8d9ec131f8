//! A part of a corpus as rows for a language model: sequences of `context` tokens, one after another, each with the token that
//! follows as its target.

use super::Corpus;
use crate::error::{DataError, Result};
use std::ops::Range;

/// Sequences of a part.
///
/// Sequence `i` begins `i` times `context` tokens after the part's first; its target of a token is the next one, so that the
/// last target is the first token of sequence `i + 1`. What is left at the end, less than a sequence and its last target, is
/// not used.
#[derive(Debug, Clone)]
pub struct Sequences {
    corpus: Corpus,
    part: Range<usize>,
    context: usize,
    count: usize,
}

impl Sequences {
    /// The sequences of a part, which `what` names in messages; with `most_tokens`, the first ones that have at most so many
    /// targets (at least one sequence). An empty part has none.
    ///
    /// # Errors
    /// [`DataError`] where a part that is not empty is shorter than one sequence and its last target.
    pub fn new(
        corpus: &Corpus,
        part: Range<usize>,
        what: &str,
        context: usize,
        most_tokens: Option<usize>,
    ) -> Result<Self> {
        let context = context.max(1);
        let mut count = part.len().saturating_sub(1) / context;
        if count == 0 && !part.is_empty() {
            let finding = format!(
                "the {what} part has {} tokens: too few for one sequence of context = {context} and the token after it",
                part.len()
            );
            return Err(DataError::new(
                &corpus.name,
                finding,
                "give a longer text, a shorter context or another split",
            )
            .into());
        }
        if let Some(most) = most_tokens.filter(|_| count > 0) {
            count = count.min((most / context).max(1));
        }
        Ok(Self { corpus: corpus.clone(), part, context, count })
    }

    /// Number of sequences.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Tokens of a sequence.
    #[must_use]
    pub fn context(&self) -> usize {
        self.context
    }

    /// The corpus that they are of.
    #[must_use]
    pub fn corpus(&self) -> &Corpus {
        &self.corpus
    }

    /// Writes the tokens of a sequence and their targets, `context` of each.
    ///
    /// # Panics
    /// If there is no such sequence, or a slice is not `context` long.
    pub fn read(&self, sequence: usize, inputs: &mut [u32], targets: &mut [u32]) {
        let start = self.start(sequence);
        assert!(inputs.len() == self.context && targets.len() == self.context, "slices of context = {}", self.context);
        // The targets are the inputs one further on: all are read at once.
        let mut tokens = vec![0; self.context + 1];
        self.corpus.read(start, &mut tokens);
        inputs.copy_from_slice(&tokens[..self.context]);
        targets.copy_from_slice(&tokens[1..]);
    }

    /// Writes of what kind each token of a sequence is and, last, the one that follows: `context + 1` of them
    /// ([`Corpus::read_kinds`]); `false` where tokens have no kinds.
    ///
    /// # Panics
    /// If there is no such sequence, or the slice is not `context + 1` long.
    pub fn read_kinds(&self, sequence: usize, kinds: &mut [u8]) -> bool {
        assert!(kinds.len() == self.context + 1, "a slice of context + 1 = {}", self.context + 1);
        self.corpus.read_kinds(self.start(sequence), kinds)
    }

    /// Writes how many characters of the text each token of a sequence is and, last, the one that follows
    /// ([`Corpus::read_widths`]).
    ///
    /// # Panics
    /// As [`Sequences::read_kinds`].
    pub fn read_widths(&self, sequence: usize, widths: &mut [u8]) {
        assert!(widths.len() == self.context + 1, "a slice of context + 1 = {}", self.context + 1);
        self.corpus.read_widths(self.start(sequence), widths);
    }

    fn start(&self, sequence: usize) -> usize {
        assert!(sequence < self.count, "sequence {sequence} of {}", self.count);
        self.part.start + sequence * self.context
    }
}
