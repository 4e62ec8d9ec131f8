//! What a language model is built on, and its losses summed up.
//!
//! A row is a sequence of `context` tokens ([`Sequences`]); the loss is the mean over predicted tokens of `-ln p`, in nats. Bits
//! per character are the bits of all predicted tokens divided by the characters that these are, so that models of characters,
//! bytes and words are compared on one scale.

use super::{Evaluation, RowOutcomes, RowRatio, Split};
use crate::data::small_language::KINDS;
use crate::data::{Corpus, Sequences};
use crate::error::Result;

/// The data that a language model is built on.
#[derive(Debug, Clone)]
pub struct TextData {
    /// The corpus with its parts.
    pub corpus: Corpus,
    /// Of each part, losses are evaluated on the first sequences with at most so many predicted tokens. Without it: all of the
    /// validation and test parts, and of the training part as many as of the longer of these.
    pub evaluation_tokens: Option<usize>,
}

impl TextData {
    /// Sequences to train on: all of the training part.
    ///
    /// # Errors
    /// If the training part is shorter than one sequence and its last target.
    pub fn training(&self, context: usize) -> Result<Sequences> {
        Sequences::new(&self.corpus, self.corpus.train(), "training", context, None)
    }

    /// Sequences of a part on which losses are evaluated; none of an empty part.
    ///
    /// # Errors
    /// If the part is not empty and shorter than one sequence and its last target.
    pub fn evaluation(&self, split: Split, context: usize) -> Result<Sequences> {
        let corpus = &self.corpus;
        let held_out = corpus.validation().len().max(corpus.test().len());
        let (part, what, standard) = match split {
            Split::Train => (corpus.train(), "training", (held_out > 0).then_some(held_out)),
            Split::Validation => (corpus.validation(), "validation", None),
            Split::Test => (corpus.test(), "test", None),
        };
        Sequences::new(corpus, part, what, context, self.evaluation_tokens.or(standard))
    }
}

/// Losses of predicted tokens, added up sequence by sequence.
#[derive(Debug, Clone, Default)]
pub struct TokenLosses {
    nats: f64,
    tokens: u64,
    right: u64,
    characters: u64,
    has_kinds: bool,
    /// Nats and tokens of each kind.
    kinds: [(f64, u64); KINDS.len()],
    /// Kinds and characters of the tokens of the sequence at hand.
    own: Vec<u8>,
    widths: Vec<u8>,
    /// Each sequence, in the order in which they were added.
    rows: Vec<RowLosses>,
}

/// Losses of one sequence.
#[derive(Debug, Clone, Copy, Default)]
struct RowLosses {
    nats: f64,
    tokens: u64,
    characters: u64,
    /// Nats and tokens of each kind.
    kinds: [(f64, u64); KINDS.len()],
}

impl TokenLosses {
    /// Takes the losses of a sequence's predicted tokens in: of each its place in the sequence (`context` is the one that follows
    /// it), its loss in nats, and whether it was the most probable one.
    ///
    /// # Panics
    /// If there is no such sequence, or a place is beyond it.
    pub fn add(
        &mut self,
        sequences: &Sequences,
        sequence: usize,
        losses: impl IntoIterator<Item = (usize, f32, bool)>,
    ) {
        let length = sequences.context() + 1;
        self.own.resize(length, 0);
        self.widths.resize(length, 0);
        self.has_kinds = sequences.read_kinds(sequence, &mut self.own);
        sequences.read_widths(sequence, &mut self.widths);
        let mut row = RowLosses::default();
        for (place, loss, is_right) in losses {
            let (loss, kind) = (f64::from(loss), usize::from(self.own[place]));
            (row.nats, row.tokens) = (row.nats + loss, row.tokens + 1);
            self.right += u64::from(is_right);
            row.characters += u64::from(self.widths[place]);
            for (nats, tokens) in [&mut self.kinds[kind], &mut row.kinds[kind]] {
                (*nats, *tokens) = (*nats + loss, *tokens + 1);
            }
        }
        self.nats += row.nats;
        self.tokens += row.tokens;
        self.characters += row.characters;
        self.rows.push(row);
    }

    /// What they come to; nothing without any.
    #[must_use]
    pub fn evaluation(&self) -> Evaluation {
        if self.tokens == 0 {
            return Evaluation::default();
        }
        let kind = |place: usize| {
            let (nats, tokens) = self.kinds[place];
            (self.has_kinds && tokens > 0).then(|| nats / tokens as f64)
        };
        Evaluation {
            loss: Some(self.nats / self.tokens as f64),
            accuracy: Some(self.right as f64 / self.tokens as f64),
            bits_per_character: (self.characters > 0)
                .then(|| self.nats / std::f64::consts::LN_2 / self.characters as f64),
            grammar_loss: kind(0),
            fact_loss: kind(1),
            sum_loss: kind(2),
            ..Evaluation::default()
        }
    }

    /// Each sequence as a row: the mean loss of its tokens, and its part in the other numbers.
    #[must_use]
    pub fn row_outcomes(&self) -> RowOutcomes {
        let ratio = |metric, part: &dyn Fn(&RowLosses) -> (f64, u64)| {
            let (parts, weights) =
                self.rows.iter().map(part).map(|(nats, weight)| (nats as f32, weight as f32)).unzip();
            RowRatio { metric, parts, weights }
        };
        let bits = |row: &RowLosses| (row.nats / std::f64::consts::LN_2, row.characters);
        let mut ratios = vec![ratio("bits_per_character", &bits)];
        if self.has_kinds {
            let names = ["grammar_loss", "fact_loss", "sum_loss"];
            ratios.extend(names.into_iter().enumerate().map(|(kind, name)| ratio(name, &|row| row.kinds[kind])));
        }
        let loss = self.rows.iter().map(|row| (row.nats / row.tokens.max(1) as f64) as f32).collect();
        RowOutcomes { loss, correct: None, ratios }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::SplitSpec;
    use crate::data::corpus::Tokens;
    use crate::data::read::Text;
    use crate::data::small_language::Parameters;
    use std::f64::consts::LN_2;

    fn data(corpus: &Corpus) -> TextData {
        let split = SplitSpec::Last { test: 64, validation: 32 };
        TextData { corpus: corpus.split(&split).unwrap(), evaluation_tokens: None }
    }

    #[test]
    fn bits_per_character_are_one_scale_for_characters_and_bytes() {
        // Every character takes two bytes: uniform predictions of characters and of bytes with half the nats are one thing.
        let text = Text::held("test", &"\u{e9}\u{e8}".repeat(500));
        for (tokens, nats) in [(Tokens::Characters, LN_2), (Tokens::Bytes, LN_2 / 2.0)] {
            let data = data(&Corpus::of_texts("test", vec![text.clone()], tokens, None).unwrap().0);
            let sequences = data.evaluation(Split::Test, 10).unwrap();
            assert_eq!(sequences.count(), 6);
            let mut losses = TokenLosses::default();
            for sequence in 0..6 {
                losses.add(&sequences, sequence, (0..10).map(|i| (i + 1, nats as f32, i < 5)));
            }
            let found = losses.evaluation();
            assert!((found.bits_per_character.unwrap() - 1.0).abs() < 1e-6, "{found:?}");
            assert_eq!((found.accuracy, found.fact_loss), (Some(0.5), None));
            assert_eq!(losses.row_outcomes().loss, [nats as f32; 6]);
        }
    }

    #[test]
    fn losses_of_answers_are_told_apart() {
        let parameters = Parameters { facts: 10, digits: 2, seed: 4 };
        let corpus = Corpus::generate(5000, parameters).unwrap();
        let data = data(&corpus);
        let sequences = data.training(100).unwrap();
        let (mut losses, mut kinds) = (TokenLosses::default(), [0; 101]);
        for sequence in 0..sequences.count() {
            assert!(sequences.read_kinds(sequence, &mut kinds));
            let all = kinds.iter().enumerate().skip(1);
            losses.add(&sequences, sequence, all.map(|(place, &kind)| (place, 1.0 + f32::from(kind), true)));
        }
        let found = losses.evaluation();
        assert_eq!([found.grammar_loss, found.fact_loss, found.sum_loss], [Some(1.0), Some(2.0), Some(3.0)]);
        // The numbers of sequences come to the same.
        let rows = losses.row_outcomes();
        for (metric, expected) in [("grammar_loss", 1.0), ("fact_loss", 2.0), ("sum_loss", 3.0)] {
            let of = rows.ratios.iter().find(|ratio| ratio.metric == metric).unwrap();
            assert_eq!(of.parts.iter().sum::<f32>() / of.weights.iter().sum::<f32>(), expected, "{metric}");
        }
        assert_eq!(TokenLosses::default().evaluation(), Evaluation::default());
    }

    #[test]
    fn as_much_of_the_training_part_is_evaluated_as_of_the_others() {
        let corpus = Corpus::generate(5000, Parameters::default()).unwrap();
        let all = data(&corpus);
        let count = |data: &TextData, split| data.evaluation(split, 16).unwrap().count();
        assert_eq!([Split::Train, Split::Validation, Split::Test].map(|split| count(&all, split)), [4, 1, 3]);
        let few = TextData { evaluation_tokens: Some(20), ..all.clone() };
        assert_eq!([Split::Train, Split::Validation, Split::Test].map(|split| count(&few, split)), [1, 1, 1]);
        let message = all.evaluation(Split::Validation, 32).unwrap_err().to_string();
        assert!(message.contains("the validation part has 32 tokens") && message.contains("context = 32"), "{message}");
    }
}
