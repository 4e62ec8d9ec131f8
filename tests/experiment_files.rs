//! No experiment file that a user can write panics, whatever is in it; what is refused is refused with its place.

use parsimony::experiment::Spec;
use parsimony::{Error, Workbench};
use proptest::prelude::*;
use std::path::Path;

const WHOLE: &str = include_str!("../experiments/higgs-sample.toml");

fn parse(text: &str) -> Result<Spec, Error> {
    Spec::parse(text, Path::new("some/experiment.toml"), &Workbench::standard())
}

/// Values of every kind that TOML knows, the awkward ones among them.
fn value() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        any::<i64>().prop_map(|v| v.to_string()),
        any::<f64>().prop_map(|v| format!("{v:?}").replace("NaN", "nan")),
        Just("99999999999999999999".to_owned()),
        Just("1979-05-27T07:32:00Z".to_owned()),
        any::<bool>().prop_map(|v| v.to_string()),
        "[ -~]{0,12}".prop_map(|v| format!("{v:?}")),
        prop_oneof![
            Just("all"),
            Just("last"),
            Just("irls"),
            Just("sgd"),
            Just("1e9 passes"),
            Just("1e400s"),
            Just("5m"),
            Just("higgs-sim"),
            Just("every 0 steps"),
            Just("every 1e-300 passes"),
            Just("geometric"),
            Just("é s"),
        ]
        .prop_map(|v| format!("\"{v}\"")),
    ];
    scalar.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(|v| format!("[{}]", v.join(", "))),
            (key(), inner).prop_map(|(key, value)| format!("{{ {key} = {value} }}")),
        ]
    })
}

fn key() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "name",
        "question",
        "claim",
        "source",
        "seeds",
        "folds",
        "budget",
        "target",
        "report",
        "evaluate",
        "threads",
        "label",
        "rows",
        "seed",
        "split",
        "path",
        "format",
        "header",
        "exclude",
        "missing",
        "features",
        "regularizer",
        "strength",
        "learning_rate",
        "batch_size",
        "metric",
        "value",
        "last",
        "ranges",
        "fractions",
        "count",
        "fold",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_taken_or_refused(text in "\\PC{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn any_value_of_any_key_is_taken_or_refused_with_its_line(
        lines in prop::collection::vec((any::<prop::sample::Index>(), key(), value()), 1..4)
    ) {
        let mut text: Vec<String> = WHOLE.lines().map(str::to_owned).collect();
        for (place, key, value) in lines {
            let place = place.index(text.len());
            text.insert(place, format!("{key} = {value}"));
        }
        if let Err(error) = parse(&text.join("\n")) {
            prop_assert!(error.to_string().contains("experiment.toml"), "{error}");
        }
    }

    #[test]
    fn damaged_files_are_taken_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<char>()), 1..6)
    ) {
        let mut text: Vec<char> = WHOLE.chars().collect();
        for (place, character) in changes {
            let place = place.index(text.len());
            text[place] = character;
        }
        let _ = parse(&text.into_iter().collect::<String>());
    }
}

#[test]
fn the_experiments_of_this_repository_are_accepted() {
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/experiments")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let spec = Spec::load(&path, &Workbench::standard()).unwrap_or_else(|error| panic!("{error}"));
            assert!(spec.question.is_some(), "{} asks nothing", path.display());
        }
    }
}
