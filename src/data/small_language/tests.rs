use super::*;
use std::collections::{BTreeMap, HashSet};

fn language(facts: usize, digits: usize, seed: u64) -> SmallLanguage {
    SmallLanguage::new(Parameters { facts, digits, seed }).unwrap()
}

fn tokens(language: &SmallLanguage, range: Range<usize>) -> Vec<Token> {
    let mut all = Vec::new();
    language.each(range, |_, token| all.push(token));
    all
}

fn text(language: &SmallLanguage, range: Range<usize>) -> String {
    let mut text = String::new();
    language.each(range, |_, token| language.write(token.number, &mut text));
    text
}

#[test]
fn the_text_of_a_seed_never_changes() {
    let start = text(&language(100, 2, 1), 0..40);
    // Recorded once; a change here changes every result that was ever published (LANGUAGE_VERSION).
    assert_eq!(start, RECORDED);
}

const RECORDED: &str = "\n 0 8 + 5 9 = 0 6 7. Feban Nobasen from Vedoham. a king takes this house. 2 8 + 9 9 = 1 2 7. these \
                        cats sing. Baban Habasen from Pufeham";

#[test]
fn tokens_are_the_same_in_any_pieces_and_of_any_length() {
    let language = language(1000, 3, 7);
    let whole = tokens(&language, 0..5000);
    for pieces in [1, 7, 128, 1024, 1500] {
        let mut joined = Vec::new();
        for start in (0..5000).step_by(pieces) {
            joined.extend(tokens(&language, start..(start + pieces).min(5000)));
        }
        assert_eq!(joined, whole, "pieces of {pieces}");
    }
    assert_eq!(tokens(&language, 4321..4400), whole[4321..4400]);
    assert_ne!(tokens(&language_of_seed(8), 0..200), whole[..200]);
    assert!(tokens(&language, 9..9).is_empty());
    // Far away costs no more than here.
    let far = 1 << 40;
    assert_eq!(tokens(&language, far..far + 9), tokens(&language, far..far + 20)[..9]);
}

fn language_of_seed(seed: u64) -> SmallLanguage {
    language(1000, 3, seed)
}

#[test]
fn words_are_distinct_whatever_the_number_of_facts() {
    for facts in [1, 2, 17, 4096, MOST_FACTS] {
        let language = language(facts, 2, 1);
        let words = language.words();
        assert_eq!(words.iter().collect::<HashSet<_>>().len(), words.len(), "{facts} facts");
        let people = (0..facts).map(|person| language.lexicon.names(person).map(|(name, _)| name));
        assert_eq!(people.collect::<HashSet<_>>().len(), facts);
        assert!(words.len() < 300 + 2 * (facts as f64).sqrt().ceil() as usize + 2);
    }
    assert_eq!(language(1, 2, 1).words()[5..20].join(" "), "0 1 2 3 4 5 6 7 8 9 the a this some these");
}

#[test]
fn facts_are_a_table_and_sums_are_right() {
    let language = language(50, 2, 3);
    let text = text(&language, 0..200 * PARAGRAPH);
    let mut towns = BTreeMap::new();
    let (mut facts, mut sums) = (0, 0);
    for paragraph in text.split('\n') {
        // The last sentence of a paragraph may be cut.
        let whole = paragraph.rsplit_once('.').map_or("", |(whole, _)| whole);
        for sentence in whole.split('.') {
            let words: Vec<&str> = sentence.split_whitespace().collect();
            if let [given, family, "from", town] = words[..] {
                facts += 1;
                assert_eq!(*towns.entry((given.to_owned(), family.to_owned())).or_insert(town.to_owned()), town);
            } else if words.contains(&"+") {
                let number = |digits: &[&str]| digits.concat().parse::<u32>().unwrap();
                assert_eq!((words.len(), words[2], words[5]), (9, "+", "="), "{sentence}");
                assert_eq!(number(&words[..2]) + number(&words[3..5]), number(&words[6..]), "{sentence}");
                sums += 1;
            }
        }
    }
    assert_eq!(towns.len(), 50);
    assert!(facts > 5000 && sums > 5000, "{facts} facts, {sums} sums");
}

#[test]
fn verbs_agree_with_whoever_acts() {
    let language = language(10, 1, 2);
    let singular: HashSet<u32> = (0..24).map(|k| number(&language, "dog") + k).collect();
    let (one, several) = (number(&language, "sleeps"), number(&language, "sleep"));
    let verbs = tokens(&language, 0..400 * PARAGRAPH);
    let mut seen = [0; 2];
    for pair in verbs.windows(2) {
        let is_one = singular.contains(&pair[0].number);
        if pair[1].number == one || pair[1].number == several {
            assert_eq!(is_one, pair[1].number == one);
            seen[usize::from(is_one)] += 1;
        }
    }
    assert!(seen.iter().all(|&count| count > 500), "{seen:?}");
}

fn number(language: &SmallLanguage, word: &str) -> u32 {
    language.words().iter().position(|known| known == word).unwrap() as u32
}

#[test]
fn the_entropy_is_what_the_tokens_carry() {
    for (facts, digits) in [(4096, 2), (10, 1), (3, 4)] {
        let language = language(facts, digits, 11);
        let entropy = language.entropy();
        let (mut nats, mut by_kind, count) = (0.0, [0; 3], 400 * PARAGRAPH);
        language.each(0..count, |_, token| {
            nats += token.surprise;
            by_kind[token.kind as usize] += 1;
            assert!(token.kind == Kind::Grammar || token.surprise == 0.0, "answers are certain");
        });
        let share = |kind: Kind| by_kind[kind as usize] as f64 / count as f64;
        // Standard errors are about 0.002 nats here, and paragraphs begin with a certain token.
        assert!((nats / count as f64 - entropy.nats_per_token).abs() < 0.012, "{facts} facts: {nats} {entropy:?}");
        assert!((share(Kind::Fact) - entropy.fact_share).abs() < 0.001, "{by_kind:?} {entropy:?}");
        assert!((share(Kind::Sum) - entropy.sum_share).abs() < 0.003, "{by_kind:?} {entropy:?}");
        let grammar = nats / by_kind[0] as f64;
        assert!((grammar - entropy.grammar_nats).abs() < 0.015, "{grammar} {entropy:?}");
    }
}

#[test]
fn frequencies_are_the_probabilities() {
    // How often a word follows another must be what its surprise says.
    let language = language(10, 1, 5);
    let (the, dog, dogs) = (number(&language, "the"), number(&language, "dog"), number(&language, "dogs"));
    let all = tokens(&language, 0..300 * PARAGRAPH);
    let mut counts = [0.0; 3];
    let mut surprise = 0.0;
    for pair in all.windows(2).filter(|pair| pair[0].number == the) {
        counts[0] += 1.0;
        counts[1] += f64::from(u8::from(pair[1].number == dog));
        counts[2] += f64::from(u8::from(pair[1].number == dogs));
        if pair[1].number == dog {
            surprise = pair[1].surprise;
        }
    }
    let [all, dog, dogs] = counts;
    // `the` also begins phrases of things: half as many.
    let expected = (-surprise).exp() * 2.0 / 3.0;
    assert!((dog / all - expected).abs() < 0.01 && (dogs / all - expected).abs() < 0.01, "{counts:?} {expected}");
}

#[test]
fn parameters_out_of_range_are_refused_by_name() {
    for (facts, digits, named) in
        [(0, 2, "facts = 0"), (MOST_FACTS + 1, 2, "facts"), (1, 0, "digits = 0"), (1, 10, "digits = 10")]
    {
        let error = SmallLanguage::new(Parameters { facts, digits, seed: 1 }).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(named), "{error}");
    }
}
