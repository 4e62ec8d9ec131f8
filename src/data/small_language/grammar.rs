//! Sentences of the small language, with the probability of every token.
//!
//! ```text
//! sentence   = grammar (1/2) | fact (1/4) | sum (1/4)
//! grammar    = phrase of a being, verb, [phrase of a thing] "."
//! phrase     = determiner, adjective (1/2), noun
//! determiner = the (1/3) | a (1/6) | this (1/6) | some (1/6) | these (1/6)
//! verb       = intransitive (1/2) | transitive (1/2, with an object)
//! fact       = given name, family name, "from", town "."
//! sum        = digits "+" digits "=" digits "."
//! ```
//!
//! `a` and `this` go with one, `some` and `these` with several, `the` with either: then the noun decides. The verb agrees with
//! whoever acts. The first token of a sentence tells its kind, and each token the class of what may follow, so that the
//! probabilities multiplied are those of the next token given all before.

use super::words::{Class, DETERMINER, EQUALS, FROM, Lexicon, NEW_LINE, PLUS, STOP, ZERO};
use super::{Entropy, Kind, PARAGRAPH, Token};
use crate::data::split::below;
use rand_chacha::ChaCha8Rng;

/// Of four sentences, those that state a fact and those that are sums; the others are grammar.
const FACTS_OF_4: u64 = 1;
const SUMS_OF_4: u64 = 1;
const FACTS: f64 = FACTS_OF_4 as f64 / 4.0;
const SUMS: f64 = SUMS_OF_4 as f64 / 4.0;
const GRAMMAR: f64 = 1.0 - FACTS - SUMS;

/// Of six determiners, how many are each of the five words.
const DETERMINERS_OF_6: [u64; 5] = [2, 1, 1, 1, 1];

/// A paragraph as it is written.
#[derive(Debug, Default)]
pub(super) struct Paragraph(Vec<Token>);

impl Paragraph {
    pub(super) fn tokens(&self) -> &[Token] {
        &self.0
    }

    /// Writes a paragraph in place of the last one: a new line and sentences up to [`PARAGRAPH`] tokens.
    pub(super) fn fill(&mut self, lexicon: &Lexicon, towns: &[u8], digits: usize, rng: &mut ChaCha8Rng) {
        self.0.clear();
        self.add(NEW_LINE, Kind::Grammar, 1.0);
        while self.0.len() < PARAGRAPH {
            match below(4, rng) {
                draw if draw < FACTS_OF_4 => self.fact(lexicon, towns, rng),
                draw if draw < FACTS_OF_4 + SUMS_OF_4 => self.sum(digits, rng),
                _ => self.sentence(lexicon, rng),
            }
        }
        self.0.truncate(PARAGRAPH);
    }

    fn add(&mut self, number: u32, kind: Kind, probability: f64) {
        self.0.push(Token { number, kind, surprise: -probability.ln() });
    }

    fn sentence(&mut self, lexicon: &Lexicon, rng: &mut ChaCha8Rng) {
        let number = self.phrase(lexicon, &lexicon.beings, GRAMMAR, rng);
        let transitive = below(2, rng) == 1;
        let verbs = if transitive { &lexicon.transitive[number] } else { &lexicon.intransitive[number] };
        let (verb, probability) = verbs.at(below(verbs.total(), rng));
        self.add(verb, Kind::Grammar, 0.5 * probability);
        if transitive {
            self.phrase(lexicon, &lexicon.things, 1.0, rng);
        }
        self.add(STOP, Kind::Grammar, 1.0);
    }

    /// A noun with its determiner, which comes with the given probability; whether it is of one (0) or of several (1).
    fn phrase(&mut self, lexicon: &Lexicon, nouns: &[Class; 2], given: f64, rng: &mut ChaCha8Rng) -> usize {
        let mut draw = below(6, rng);
        let mut determiner = 0;
        while draw >= DETERMINERS_OF_6[determiner] {
            draw -= DETERMINERS_OF_6[determiner];
            determiner += 1;
        }
        let probability = DETERMINERS_OF_6[determiner] as f64 / 6.0;
        self.add(DETERMINER + determiner as u32, Kind::Grammar, given * probability);
        if below(2, rng) == 1 {
            let (adjective, probability) = lexicon.adjectives.at(below(lexicon.adjectives.total(), rng));
            self.add(adjective, Kind::Grammar, 0.5 * probability);
        } else {
            // That there is none shows with the noun.
            return self.noun(nouns, determiner, 0.5, rng);
        }
        self.noun(nouns, determiner, 1.0, rng)
    }

    fn noun(&mut self, nouns: &[Class; 2], determiner: usize, given: f64, rng: &mut ChaCha8Rng) -> usize {
        let (number, share) = match determiner {
            0 => (below(2, rng) as usize, 0.5),
            1 | 2 => (0, 1.0),
            _ => (1, 1.0),
        };
        let (noun, probability) = nouns[number].at(below(nouns[number].total(), rng));
        self.add(noun, Kind::Grammar, given * share * probability);
        number
    }

    fn fact(&mut self, lexicon: &Lexicon, towns: &[u8], rng: &mut ChaCha8Rng) {
        let person = below(lexicon.people() as u64, rng) as usize;
        let [given, family] = lexicon.names(person);
        self.add(given.0, Kind::Grammar, FACTS * given.1);
        self.add(family.0, Kind::Grammar, family.1);
        self.add(FROM, Kind::Grammar, 1.0);
        self.add(lexicon.town(towns[person]), Kind::Fact, 1.0);
        self.add(STOP, Kind::Grammar, 1.0);
    }

    fn sum(&mut self, digits: usize, rng: &mut ChaCha8Rng) {
        let bound = 10_u64.pow(digits as u32);
        let (first, second) = (below(bound, rng), below(bound, rng));
        self.number(first, digits, Kind::Grammar, SUMS);
        self.add(PLUS, Kind::Grammar, 1.0);
        self.number(second, digits, Kind::Grammar, 1.0);
        self.add(EQUALS, Kind::Grammar, 1.0);
        self.number(first + second, digits + 1, Kind::Sum, 1.0);
        self.add(STOP, Kind::Grammar, 1.0);
    }

    /// A number in so many digits, the first with the given probability besides its own.
    fn number(&mut self, value: u64, digits: usize, kind: Kind, given: f64) {
        for place in (0..digits).rev() {
            let digit = (value / 10_u64.pow(place as u32) % 10) as u32;
            let own = if kind == Kind::Sum { 1.0 } else { 0.1 };
            self.add(ZERO + digit, kind, own * if place + 1 == digits { given } else { 1.0 });
        }
    }
}

/// Mean of `-ln p` of a choice among these.
fn choice(probabilities: &[f64]) -> f64 {
    probabilities.iter().filter(|&&p| p > 0.0).map(|p| -p * p.ln()).sum()
}

/// Entropy and length of sentences, by adding up the choices that make them.
pub(super) fn entropy(lexicon: &Lexicon, digits: usize) -> Entropy {
    let determiners: Vec<f64> = DETERMINERS_OF_6.iter().map(|&of_6| of_6 as f64 / 6.0).collect();
    let even = choice(&[0.5, 0.5]);
    // Behind `the` the number is free; forms of one and of several have the same weights.
    let phrase = |nouns: &[Class; 2]| {
        choice(&determiners) + determiners[0] * even + even + 0.5 * lexicon.adjectives.entropy() + nouns[0].entropy()
    };
    let verbs = even + 0.5 * (lexicon.intransitive[0].entropy() + lexicon.transitive[0].entropy());
    let sentence = phrase(&lexicon.beings) + verbs + 0.5 * phrase(&lexicon.things);
    let nats = choice(&[GRAMMAR, FACTS, SUMS])
        + GRAMMAR * sentence
        + FACTS * (lexicon.people() as f64).ln()
        + SUMS * 2.0 * digits as f64 * 10_f64.ln();
    let result = (digits + 1) as f64;
    let tokens = GRAMMAR * (2.5 + 1.0 + 0.5 * 2.5 + 1.0) + FACTS * 5.0 + SUMS * (2.0 * digits as f64 + 3.0 + result);
    let (fact_share, sum_share) = (FACTS / tokens, SUMS * result / tokens);
    Entropy {
        nats_per_token: nats / tokens,
        grammar_nats: nats / tokens / (1.0 - fact_share - sum_share),
        sentence_tokens: tokens,
        fact_share,
        sum_share,
    }
}
