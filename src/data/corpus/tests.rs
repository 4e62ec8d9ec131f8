use super::*;
use crate::data::small_language::Parameters;

fn of(text: &str, tokens: Tokens) -> Corpus {
    Corpus::of_texts("test", vec![Text::held("test", text)], tokens, None).unwrap().0
}

fn read(corpus: &Corpus, range: Range<usize>) -> Vec<u32> {
    let mut tokens = vec![0; range.len()];
    corpus.read(range.start, &mut tokens);
    tokens
}

#[test]
fn characters_are_numbered_by_the_training_part_alone() {
    let corpus = of("abcabcab\u{e9}d", Tokens::Characters).split(&SplitSpec::Last { test: 2, validation: 2 }).unwrap();
    assert_eq!((corpus.len(), corpus.vocabulary_size()), (10, 4));
    assert_eq!((corpus.train(), corpus.validation(), corpus.test()), (0..6, 6..8, 8..10));
    // The two last are unknown: d and \u{e9} only stand in the test part.
    assert_eq!(read(&corpus, 0..10), [0, 1, 2, 0, 1, 2, 0, 1, 3, 3]);
    assert_eq!(corpus.vocabulary().texts().collect::<String>(), "abc<?>");
    assert_eq!((corpus.characters(0..10), corpus.excerpt(7..99)), (10, "b\u{e9}d".into()));
    let bytes = of("ab\u{e9}", Tokens::Bytes);
    assert_eq!(
        (read(&bytes, 0..4), bytes.vocabulary_size(), bytes.characters(0..4)),
        (vec![97, 98, 0xc3, 0xa9], 256, 3)
    );
}

#[test]
fn files_follow_one_another() {
    let texts = ["one ", "tw\u{f6} ", "three"].map(|text| Text::held("part", text));
    let (corpus, lengths) = Corpus::of_texts("test", texts.to_vec(), Tokens::Characters, None).unwrap();
    assert_eq!(lengths, [4, 4, 5]);
    assert_eq!(corpus.excerpt(2..11), "e tw\u{f6} thr");
    let all: Vec<char> = "one tw\u{f6} three".chars().collect();
    for (start, end) in [(0, 13), (3, 5), (4, 8), (7, 13)] {
        let expected: Vec<u32> = all[start..end].iter().map(|&c| corpus.vocabulary().number(c)).collect();
        assert_eq!(read(&corpus, start..end), expected);
    }
    // The first file alone is shortened.
    let (short, lengths) = Corpus::of_texts("test", texts.to_vec(), Tokens::Characters, Some(2)).unwrap();
    assert_eq!((lengths, short.excerpt(0..99)), (vec![2, 4, 5], "ontw\u{f6} three".into()));
    assert_ne!(short.fingerprint, corpus.fingerprint);
    let message = Corpus::of_texts("test", texts.to_vec(), Tokens::Characters, Some(5)).unwrap_err().to_string();
    assert!(message.contains("from 1 to 4"), "{message}");
}

#[test]
fn sequences_cover_a_part_and_predict_what_follows() {
    let corpus = of(&"abcdefghij".repeat(10), Tokens::Characters);
    let corpus = corpus.split(&SplitSpec::Last { test: 21, validation: 9 }).unwrap();
    let sequences = Sequences::new(&corpus, corpus.test(), "test", 5, None).unwrap();
    assert_eq!(sequences.count(), 4);
    let (mut inputs, mut targets) = ([0; 5], [0; 5]);
    let mut last = 9;
    for sequence in 0..4 {
        sequences.read(sequence, &mut inputs, &mut targets);
        assert_eq!(inputs[0], last, "a sequence begins with the last target of the one before");
        assert_eq!(inputs.map(|number| (number + 1) % 10), targets);
        last = targets[4];
    }
    assert_eq!(Sequences::new(&corpus, corpus.test(), "test", 20, None).unwrap().count(), 1);
    assert_eq!(Sequences::new(&corpus, corpus.test(), "test", 5, Some(12)).unwrap().count(), 2);
    assert_eq!(Sequences::new(&corpus, 0..0, "test", 5, None).unwrap().count(), 0);
    let message = Sequences::new(&corpus, corpus.test(), "test", 21, None).unwrap_err();
    assert_eq!(message.exit_code(), 3);
    assert!(message.to_string().contains("the test part has 21 tokens: too few"), "{message}");
}

#[test]
fn the_generated_language_is_a_corpus() {
    let parameters = Parameters { facts: 20, ..Parameters::default() };
    let corpus = Corpus::generate(3000, parameters).unwrap();
    let whole = read(&corpus, 0..3000);
    assert_eq!(read(&corpus, 1000..1100), whole[1000..1100]);
    assert!(whole.iter().all(|&number| (number as usize) < corpus.vocabulary_size()));
    let mut kinds = vec![9; 3000];
    assert!(corpus.read_kinds(0, &mut kinds) && kinds.iter().all(|&kind| kind < 3));
    assert!(!of("ab", Tokens::Bytes).read_kinds(0, &mut kinds[..2]));
    let text = corpus.excerpt(0..3000);
    assert_eq!(corpus.characters(0..3000), text.chars().count());
    assert!(text.starts_with('\n') && text.contains(" from "));
    let longer = Corpus::generate(4000, parameters).unwrap();
    assert_eq!(read(&longer, 0..3000), whole);
    assert_ne!(longer.fingerprint, corpus.fingerprint);
    assert!(Corpus::generate(0, parameters).is_err());
}

#[test]
fn what_cannot_be_divided_is_refused_in_words() {
    let corpus = of(&"ab".repeat(50), Tokens::Characters);
    let refused = |corpus: &Corpus, spec: SplitSpec, words: &str| {
        let error = corpus.split(&spec).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(words), "{error}");
    };
    let fractions = SplitSpec::Fractions { train: 0.8, validation: 0.1, test: 0.1, seed: 1, stratified: false };
    refused(&corpus, fractions, "by position");
    refused(&corpus, SplitSpec::Folds { count: 5, fold: 0, validation: None, seed: 0 }, "neighbours belong together");
    refused(&corpus, SplitSpec::Last { test: 100, validation: 0 }, "0 validation and 100 test tokens of the 100");
    refused(&corpus, SplitSpec::Last { test: usize::MAX, validation: 1 }, "at least one token");
    refused(&corpus, SplitSpec::Ranges { train: [0, 50], validation: [50, 60], test: [60, 99] }, "end at token 99");
    refused(&of(&"a".repeat(50), Tokens::Characters), SplitSpec::Last { test: 1, validation: 1 }, "one symbol alone");
    let ranges = SplitSpec::Ranges { train: [20, 100], validation: [0, 10], test: [10, 20] };
    assert_eq!(corpus.split(&ranges).unwrap().train(), 20..100);
}

#[test]
fn a_description_counts_what_is_there() {
    let corpus = of("aaabab\nbcd", Tokens::Characters).split(&SplitSpec::Last { test: 2, validation: 1 }).unwrap();
    let found = describe(&corpus);
    assert_eq!((found.tokens, found.characters, found.vocabulary, found.tokens_are), (10, 10, 4, "characters"));
    assert_eq!((found.files[0].lines, found.files[0].bytes), (2, 10));
    let parts: Vec<_> = found.parts.iter().map(|part| (part.part, part.tokens, part.unknown)).collect();
    assert_eq!(parts, [("train", 7, 0), ("validation", 1, 0), ("test", 2, 2)]);
    assert_eq!(found.frequent[0], ("a".into(), 4));
    // 4 of 7, 2 of 7, 1 of 7.
    let entropy = [4.0, 2.0, 1.0_f64].map(|n| n / 7.0 * (7.0 / n).log2()).iter().sum::<f64>();
    assert!((found.unigram_bits - entropy).abs() < 1e-12);
    assert!(found.to_string().contains("2 of them unknown"), "{found}");
    let generated = describe(&Corpus::generate(4000, Parameters::default()).unwrap());
    assert!(generated.entropy.is_some() && generated.to_string().contains("best model"));
    assert!(generated.parts[0].kinds.iter().all(|(_, tokens)| *tokens > 0));
}
