//! No experiment file that a user can write panics, whatever is in it, neither when it is read nor when it is planned on
//! data; what is refused is refused with its place.

use parsimony::experiment::{Plan, Spec};
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

/// Whole numbers around everything that a table of twelve rows could mind.
fn whole() -> impl Strategy<Value = i64> {
    prop_oneof![0..14_i64, Just(-1), Just(1_000_000), Just(i64::from(u32::MAX)), Just(i64::MAX), any::<i64>()]
}

fn share() -> impl Strategy<Value = String> {
    let number = prop_oneof![Just(0.0), Just(0.5), Just(1.0), 0.0..1.0_f64, any::<f64>()];
    number.prop_map(|v| format!("{v:?}").replace("NaN", "nan"))
}

fn split() -> impl Strategy<Value = String> {
    let range = || (whole(), whole()).prop_map(|(start, end)| format!("[{start}, {end}]"));
    prop_oneof![
        Just(String::new()),
        (whole(), whole()).prop_map(|(t, v)| format!("split = {{ last = {{ test = {t}, validation = {v} }} }}")),
        (range(), range(), range())
            .prop_map(|(a, b, c)| format!("split = {{ ranges = {{ train = {a}, validation = {b}, test = {c} }} }}")),
        // Ranges that fit the table, with an empty one anywhere.
        (0..13_i64, whole()).prop_map(|(end, at)| format!(
            "split = {{ ranges = {{ train = [0, {end}], validation = [{end}, 12], test = [{at}, {at}] }} }}"
        )),
        (whole(), whole(), prop::option::of(share()), whole()).prop_map(|(count, fold, validation, seed)| {
            let validation = validation.map(|share| format!("validation = {share}, ")).unwrap_or_default();
            format!("split = {{ folds = {{ count = {count}, fold = {fold}, {validation}seed = {seed} }} }}")
        }),
        (share(), share(), any::<bool>()).prop_map(|(train, test, stratified)| format!(
            "split = {{ fractions = {{ train = {train}, validation = 0.0, test = {test}, stratified = {stratified} }} }}"
        )),
        (0.0..1.0_f64, any::<bool>()).prop_map(|(train, stratified)| format!(
            "split = {{ fractions = {{ train = {train:?}, validation = 0.0, test = {:?}, stratified = {stratified} }} }}",
            1.0 - train
        )),
    ]
}

fn folds() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("folds = \"all\"".to_owned()),
        prop::collection::vec(whole(), 1..3).prop_map(|folds| format!("folds = {folds:?}")),
    ]
}

fn setting() -> impl Strategy<Value = String> {
    let keys = ["features", "regularizer", "strength", "accuracy", "intercept", "standardize", "rows"];
    let words = ["linear", "squares", "products", "none", "ridge", "l1", "high", "fast"];
    let value = prop_oneof![
        prop::sample::select(words.to_vec()).prop_map(|word| format!("\"{word}\"")),
        whole().prop_map(|v| v.to_string()),
        share(),
        any::<bool>().prop_map(|v| v.to_string()),
    ];
    let values = prop::collection::vec(value, 1..3).prop_map(|values| format!("[{}]", values.join(", ")));
    (prop::sample::select(keys.to_vec()), values).prop_map(|(key, values)| format!("{key} = {values}"))
}

/// Twelve rows of two columns and a target of two classes, in a folder of their own.
fn tiny_table() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let rows: String = (0..12).map(|row| format!("{},{},{}\n", row * row % 7, row % 5, row % 2)).collect();
    std::fs::write(folder.path().join("tiny.csv"), format!("a,b,target\n{rows}")).unwrap();
    folder
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn any_split_fold_and_setting_is_planned_or_refused_with_its_line(
        split in split(), folds in folds(), extra in whole(), settings in prop::collection::vec(setting(), 0..3),
        model in prop::sample::select(vec!["logistic", "softmax"])
    ) {
        let folder = tiny_table();
        let rows = if extra == 12 { "rows = 12" } else { "" };
        let text = format!(
            "budget = \"1 step\"\nseeds = 2\n{folds}\n[[dataset]]\npath = \"tiny.csv\"\n{rows}\n{split}\n\
             [[model]]\nname = \"{model}\"\n{}\n[[optimizer]]\nname = \"sgd\"\n[[optimizer]]\nname = \"irls\"\n",
            settings.join("\n")
        );
        let workbench = Workbench::standard();
        let spec = Spec::parse(&text, &folder.path().join("experiment.toml"), &workbench);
        match spec.and_then(|spec| Plan::new(&spec, &workbench, &|_, _| ())) {
            // In every plan, each row has its part.
            Ok(plan) => for cell in &plan.cells {
                prop_assert_eq!(cell.dataset.rows.iter().sum::<usize>(), 12);
            },
            Err(error) => prop_assert!(error.to_string().contains("experiment.toml"), "{error}\n{text}"),
        }
    }
}

#[test]
fn folds_of_none_and_too_many_cells_are_refused() {
    let folder = tiny_table();
    let plan = |text: &str| {
        let workbench = Workbench::standard();
        let spec = Spec::parse(text, &folder.path().join("experiment.toml"), &workbench)?;
        Plan::new(&spec, &workbench, &|_, _| ())
    };
    let dataset = "[[dataset]]\npath = \"tiny.csv\"\nsplit = { folds = { count = 0, validation = 0.5 } }";
    let rest = "[[model]]\nname = \"logistic\"\n[[optimizer]]\nname = \"irls\"";
    let error = plan(&format!("budget = \"1 step\"\nfolds = \"all\"\n{dataset}\n{rest}")).unwrap_err().to_string();
    assert!(error.contains("experiment.toml, line 3, [[dataset]]: folds = \"all\" of 0 folds"), "{error}");

    // Two grids of 2^63 points each: their sum is more than a machine word holds.
    let grid: String = (0..63).map(|key| format!("x{key} = [1, 2]\n")).collect();
    let models = format!("[[model]]\nname = \"logistic\"\n{grid}").repeat(2);
    let text = format!("budget = \"1 step\"\n[[dataset]]\npath = \"tiny.csv\"\n{models}[[optimizer]]\nname = \"irls\"");
    let error = plan(&text).unwrap_err().to_string();
    assert!(error.contains("at most 100000"), "{error}");
}

#[test]
fn a_store_with_another_target_is_another_problem() {
    let folder = tiny_table();
    let workbench = Workbench::standard();
    let import = |name: &str, target: &str, exclude: &[&str]| {
        let read = parsimony::data::ReadOptions {
            target: Some(target.to_owned()),
            exclude: exclude.iter().map(|column| (*column).to_owned()).collect(),
            ..parsimony::data::ReadOptions::default()
        };
        let options = parsimony::data::store::ImportOptions { read, shuffle: None, name: None };
        let (from, to) = (folder.path().join("tiny.csv"), folder.path().join(name));
        parsimony::data::store::import(&from, &to, &options, &|_, _| ()).unwrap();
    };
    import("target.store", "target", &[]);
    import("b.store", "b", &[]);
    import("narrow.store", "target", &["b"]);
    let stores = ["target", "b", "narrow"].map(|name| {
        let text = format!(
            "budget = \"1 step\"\n[[dataset]]\npath = \"{name}.store\"\n[[model]]\nname = \"softmax\"\n\
             [[optimizer]]\nname = \"irls\""
        );
        let spec = Spec::parse(&text, &folder.path().join("experiment.toml"), &workbench).unwrap();
        let plan = Plan::new(&spec, &workbench, &|_, _| ()).unwrap();
        let cell = plan.cells.first().or(plan.skipped.first().map(|skipped| &skipped.cell)).unwrap().clone();
        (cell.problem, cell.dataset.fingerprint)
    });
    assert!(stores.iter().all(|(_, fingerprint)| *fingerprint == stores[0].1), "one source, one fingerprint");
    let problems: std::collections::BTreeSet<_> = stores.iter().map(|(problem, _)| problem).collect();
    assert_eq!(problems.len(), 3, "three problems");
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
