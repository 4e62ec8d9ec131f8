//! Registered texts as corpora, on the real files where they are: sizes, vocabularies and parts as another program counts them.

use parsimony::data::locate::test_file;
use parsimony::data::open::{Choice, CorpusOptions, Data, Source, SplitChoice};
use parsimony::data::registry::registry;
use parsimony::data::{Corpus, Sequences, Tokens};

/// A registered text under its own split.
fn corpus(name: &str, tokens: Tokens) -> Corpus {
    let options = CorpusOptions { tokens: Some(tokens), ..CorpusOptions::default() };
    let choice = Choice { source: Source::Registered(name.into()), rows: None, seed: None, corpus: options };
    let opened = choice.open(registry(), &|_, _| ()).unwrap();
    let split = choice.split(registry(), &SplitChoice::Standard, &opened, None).unwrap();
    let Data::Corpus(corpus) = opened.data else { panic!("{name} is a text") };
    corpus.split(&split).unwrap()
}

#[test]
fn tiny_shakespeare_has_65_characters() {
    let Some(path) = test_file("text/tinyshakespeare.txt") else { return };
    let corpus = corpus("tiny-shakespeare", Tokens::Characters);
    assert_eq!((corpus.len(), corpus.vocabulary_size()), (1_115_394, 66));
    assert_eq!((corpus.train(), corpus.test().end), (0..1_003_854, 1_115_394));
    assert_eq!(corpus.excerpt(0..14), "First Citizen:");
    // Its characters are ASCII: bytes cut it alike.
    let text = std::fs::read(path).unwrap();
    let mut tokens = vec![0; 5000];
    corpus.read(700_000, &mut tokens);
    for (&token, &byte) in tokens.iter().zip(&text[700_000..]) {
        assert_eq!(corpus.vocabulary().text(token), char::from(byte).to_string());
    }
    let sequences = Sequences::new(&corpus, corpus.test(), "test", 128, None).unwrap();
    assert_eq!(sequences.count(), (corpus.test().len() - 1) / 128);
}

#[test]
fn war_and_peace_loses_its_byte_order_mark() {
    let Some(path) = test_file("text/war-and-peace.txt") else { return };
    let text = std::fs::read_to_string(path).unwrap();
    let text = text.strip_prefix('\u{feff}').expect("the file begins with a mark");
    let by_characters = corpus("war-and-peace", Tokens::Characters);
    assert_eq!(by_characters.len(), text.chars().count());
    let all: Vec<char> = text.chars().collect();
    let mut tokens = vec![0; 1000];
    for start in [0, 999_983, 2_000_000, all.len() - 1000] {
        by_characters.read(start, &mut tokens);
        for (&token, character) in tokens.iter().zip(&all[start..]) {
            let known = by_characters.vocabulary().text(token);
            assert!(known == character.to_string() || Some(token) == by_characters.vocabulary().unknown());
        }
    }
    let by_bytes = corpus("war-and-peace", Tokens::Bytes);
    assert_eq!((by_bytes.len(), by_bytes.vocabulary_size()), (text.len(), 256));
    assert_eq!(by_bytes.characters(0..by_bytes.len()), all.len());
}

#[test]
fn the_files_of_wikitext_are_its_parts() {
    let (Some(validation), Some(test)) =
        (test_file("text/wikitext-2-valid.txt"), test_file("text/wikitext-2-test.txt"))
    else {
        return;
    };
    let corpus = corpus("wikitext-2-small", Tokens::Bytes);
    let sizes = [validation, test].map(|path| path.metadata().unwrap().len() as usize);
    assert_eq!(corpus.len(), sizes.iter().sum::<usize>());
    assert_eq!(corpus.test().end, corpus.len());
    assert!(corpus.train().end <= corpus.validation().start && !corpus.validation().is_empty());
}
