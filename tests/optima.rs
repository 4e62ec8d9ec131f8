//! Optima of real data agree with independent programs, and what has no optimum is named.
//!
//! Reference numbers: `tests/reference/glm_optima.json`, made by the script beside it.

use parsimony::data::{self, Examples, ReadOptions, RowSet, SplitSpec, Table, locate};
use parsimony::model::{self, Model, ModelData, Split};
use parsimony::optim::{self, Fit};
use parsimony::oracle::{Oracle, SettingValue, Settings, Stream, Vector, stream};
use std::collections::BTreeMap;

type Given<'a> = &'a [(&'a str, SettingValue)];

fn word(w: &str) -> SettingValue {
    SettingValue::Word(w.into())
}

fn given(list: Given<'_>) -> BTreeMap<String, SettingValue> {
    list.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect()
}

fn reference() -> serde_json::Value {
    serde_json::from_str(include_str!("reference/glm_optima.json")).unwrap()
}

/// All rows of a file as training rows; `None` (and a message) where the file is absent.
fn data(file: &str) -> Option<ModelData> {
    let path = locate::test_file(file)?;
    let table = data::read(&path, &ReadOptions::default()).unwrap();
    let rows = |range| -> Examples { data::examples(&table, &RowSet::Range(range)) };
    Some(ModelData {
        train: rows(0..table.rows()),
        validation: rows(0..0),
        test: rows(0..0),
        task: table.task.clone(),
        columns: table.columns.clone(),
    })
}

fn build(data: &ModelData, name: &str, settings: Given<'_>) -> Box<dyn Model> {
    let entry = model::registry().into_iter().find(|m| m.name == name).unwrap();
    entry.build(data, &Settings::check("test", entry.settings, &given(settings)).unwrap()).unwrap()
}

fn fit(model: &dyn Model, name: &str, settings: Given<'_>, steps: u64) -> Fit {
    let entry = optim::registry().into_iter().find(|o| o.name == name).unwrap();
    let settings = Settings::check("test", entry.settings, &given(settings)).unwrap();
    optim::minimize(&entry, &settings, model_as_problem(model), 1, steps).unwrap()
}

fn model_as_problem(model: &dyn Model) -> &dyn parsimony::oracle::Problem {
    model
}

fn finding<'a>(fit: &'a Fit, kind: &str) -> &'a parsimony::oracle::Finding {
    fit.findings.iter().find(|f| f.kind == kind).unwrap_or_else(|| panic!("no {kind} among {:?}", fit.findings))
}

#[test]
fn irls_agrees_with_statsmodels_on_higgs() {
    let Some(data) = data("higgs/higgs-35k.csv.gz") else { return };
    for (features, accuracy, tolerance) in
        [("linear", "high", 1e-8), ("squares", "high", 1e-8), ("linear", "fast", 1e-6), ("squares", "fast", 1e-6)]
    {
        let model = build(&data, "logistic", &[("features", word(features)), ("accuracy", word(accuracy))]);
        let fit = fit(&*model, "irls", &[], 100);
        let expected = &reference()[format!("higgs-{features}")];
        let expected: Vec<f64> = serde_json::from_value(expected["coefficients"].clone()).unwrap();
        let largest = expected.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        let error = fit.parameters.host().iter().zip(&expected).fold(0.0_f64, |m, (a, b)| m.max((a - b).abs()));
        println!("{features}, {accuracy}: {} steps, {:?}, error {:.1e}", fit.steps, fit.outcome, error / largest);
        assert!(error / largest < tolerance);
        assert!(fit.steps <= 10, "{} steps", fit.steps);
    }
}

#[test]
fn all_four_optimizers_reach_the_optimum_on_higgs() {
    let Some(data) = data("higgs/higgs-35k.csv.gz") else { return };
    let model = build(&data, "logistic", &[]);
    let optimum = reference()["higgs-linear"]["objective"].as_f64().unwrap();
    let sgd: Given<'_> = &[
        ("learning_rate", SettingValue::Real(0.02)),
        ("batch_size", SettingValue::Whole(512)),
        ("schedule", word("cosine")),
        ("horizon", SettingValue::Real(40.0)),
    ];
    for (name, settings, steps, tolerance) in [
        ("irls", &[][..], 20, 1e-10),
        ("admm", &[], 100, 1e-6),
        ("hessian-free", &[], 100, 1e-6),
        ("sgd", sgd, 2720, 1e-3),
    ] {
        let fit = fit(&*model, name, settings, steps);
        let (objective, gradient) = model.objective(&fit.parameters).unwrap();
        let suboptimality = (objective - optimum) / optimum;
        println!(
            "{name}: {} steps, {:.1} passes, suboptimality {suboptimality:.1e}, gradient {:.1e}, {:?}",
            fit.steps,
            fit.counters.rows as f64 / model.rows() as f64,
            gradient.unwrap(),
            fit.outcome
        );
        assert!(suboptimality.abs() <= tolerance, "{name}: {suboptimality:e}");
    }
}

/// Those that end by themselves do so at the optimum, with the gradient that they declare; in single precision its rounding
/// comes on top. Those that take steps of a scheduled size come as near as their schedule lets them.
#[test]
fn optimizers_of_any_differentiable_problem_reach_the_optimum_on_higgs_to_their_tolerance() {
    let Some(data) = data("higgs/higgs-35k.csv.gz") else { return };
    let optimum = reference()["higgs-linear"]["objective"].as_f64().unwrap();
    let whole = SettingValue::Whole;
    let cosine = [("batch_size", whole(512)), ("schedule", word("cosine")), ("horizon", SettingValue::Real(40.0))];
    let adamw = [&cosine[..], &[("learning_rate", SettingValue::Real(0.01))]].concat();
    let free = [("batch_size", whole(512)), ("learning_rate", SettingValue::Real(0.02))];
    let some = [("curvature_rows", whole(5000))];
    for (accuracy, rounding) in [("high", 0.0), ("fast", 2e-7)] {
        let model = build(&data, "logistic", &[("accuracy", word(accuracy))]);
        for (name, settings, steps, tolerance) in [
            ("l-bfgs", &[][..], 300, Some(1e-7)),
            ("nonlinear-cg", &[], 1000, Some(1e-7)),
            ("newton-cg", &[], 50, Some(1e-7)),
            ("newton-cg", &some, 200, Some(1e-7)),
            ("saga", &[], 20_000, Some(1e-6)),
            ("adamw", &adamw, 2720, None),
            ("schedule-free", &free, 2720, None),
        ] {
            let fit = fit(&*model, name, settings, steps);
            let (objective, gradient) = model.objective(&fit.parameters).unwrap();
            let (suboptimality, gradient) = ((objective - optimum) / optimum, gradient.unwrap());
            let passes = fit.counters.rows as f64 / model.rows() as f64;
            println!(
                "{name}, {accuracy}: {} steps, {passes:.1} passes, suboptimality {suboptimality:.1e}, gradient {gradient:.1e}, {:?}",
                fit.steps, fit.outcome
            );
            let least = if let Some(tolerance) = tolerance {
                assert!(matches!(fit.outcome, optim::Step::Converged(_)), "{name}: {:?}", fit.outcome);
                assert!(gradient <= tolerance + rounding, "{name}: {gradient:e}");
                1e-10
            } else {
                1e-4
            };
            assert!(suboptimality.abs() <= least, "{name}: {suboptimality:e}");
        }
    }
}

#[test]
fn libsvm_files_have_the_optimal_loss_of_scikit_learn() {
    for (name, file) in [
        ("a9a", "a9a.gz"),
        ("w8a", "w8a.gz"),
        ("mushrooms", "mushrooms.txt.gz"),
        ("splice", "splice"),
        ("svmguide1", "svmguide1.txt"),
        ("german-numer", "german.numer"),
        ("heart-scale", "heart_scale"),
    ] {
        let Some(data) = data(&format!("libsvm/{file}")) else { return };
        let expected = &reference()[name];
        let model = build(
            &data,
            "logistic",
            &[
                ("regularizer", word("ridge")),
                ("strength", SettingValue::Real(expected["ridge"].as_f64().unwrap())),
                ("standardize", SettingValue::Switch(false)),
                ("accuracy", word("high")),
            ],
        );
        assert_eq!(model.rows() as u64, expected["rows"].as_u64().unwrap());
        assert_eq!(model.layout().len() as u64, expected["columns"].as_u64().unwrap() + 1);
        let fit = fit(&*model, "irls", &[], 100);
        let (objective, _) = model.objective(&fit.parameters).unwrap();
        let error = objective / expected["objective"].as_f64().unwrap() - 1.0;
        println!("{name}: {} steps, {:?}, relative error {error:.1e}", fit.steps, fit.outcome);
        assert!(error.abs() < 1e-9);
    }
}

#[test]
fn rank_deficiency_and_quasi_separation_are_named() {
    for (file, rank, total, one_class) in [("a9a.gz", 108, 124, 5), ("w8a.gz", 267, 301, 54)] {
        let Some(data) = data(&format!("libsvm/{file}")) else { return };
        let model = build(&data, "logistic", &[]);
        let fit = fit(&*model, "irls", &[], 100);
        let deficiency = finding(&fit, "rank-deficiency");
        println!("{file}: {:?} after {} steps\n  {}", fit.outcome, fit.steps, deficiency.message);
        assert_eq!(deficiency.columns.len(), total - rank);
        assert!(deficiency.message.contains(&format!("rank {rank} of {total}")), "{}", deficiency.message);
        let separation = finding(&fit, "quasi-separation");
        println!("  {}: {:?}", separation.message, separation.columns);
        assert_eq!(separation.columns.len(), one_class);
        assert!(fit.parameters.is_finite());
    }
}

#[test]
fn separable_classes_are_named_with_a_separating_direction() {
    for file in ["sonar.csv", "mushrooms.txt.gz"] {
        let Some(data) = data(&format!("libsvm/{file}")) else { return };
        let model = build(&data, "logistic", &[]);
        let fit = fit(&*model, "irls", &[], 100);
        let separation = finding(&fit, "separation");
        println!("{file}: {:?} after {} steps, {} columns", fit.outcome, fit.steps, separation.columns.len());
        // The direction by itself puts every row on the right side.
        let names = model.coordinate_names();
        let direction = names.iter().map(|name| separation.direction.get(name).copied().unwrap_or(0.0)).collect();
        let direction = Vector::from_values(model.layout(), direction).unwrap();
        assert_eq!(model.evaluate(&direction, Split::Train).unwrap().accuracy, Some(1.0));
    }
    let Some(data) = data("libsvm/banknote_authentication.csv") else { return };
    let model = build(&data, "logistic", &[]);
    let fit = fit(&*model, "irls", &[], 100);
    println!("banknote: {:?} after {} steps", fit.outcome, fit.steps);
    assert!(fit.findings.is_empty(), "{:?}", fit.findings);
}

#[test]
fn a_ridge_gives_every_file_a_usable_fit() {
    for file in ["a9a.gz", "w8a.gz", "mushrooms.txt.gz", "sonar.csv", "banknote_authentication.csv", "splice"] {
        let Some(data) = data(&format!("libsvm/{file}")) else { return };
        for accuracy in ["fast", "high"] {
            let ridge = [("regularizer", word("ridge")), ("strength", SettingValue::Real(1e-3))];
            let model = build(&data, "logistic", &[&ridge[..], &[("accuracy", word(accuracy))]].concat());
            let fit = fit(&*model, "irls", &[], 50);
            let gradient = model.objective(&fit.parameters).unwrap().1.unwrap();
            println!("{file}, {accuracy}: {} steps, gradient {gradient:.1e}, {:?}", fit.steps, fit.outcome);
            assert!(matches!(fit.outcome, optim::Step::Converged(_)) && gradient < 1e-6);
            assert!(fit.findings.is_empty(), "{:?}", fit.findings);
        }
    }
}

/// One of five folds.
fn fold_of(table: &Table, fold: usize) -> ModelData {
    let spec = SplitSpec::Folds { count: 5, fold, validation: None, seed: 0 };
    let splits = spec.apply(table).unwrap();
    ModelData {
        train: data::examples(table, &splits.train),
        validation: data::examples(table, &splits.validation),
        test: data::examples(table, &splits.test),
        task: table.task.clone(),
        columns: table.columns.clone(),
    }
}

#[test]
fn five_folds_of_higgs_give_the_published_accuracies() {
    let Some(path) = locate::test_file("higgs/higgs-35k.csv.gz") else { return };
    let table = data::read(&path, &ReadOptions::default()).unwrap();
    for (features, coefficients, expected) in [("linear", 29, 0.64), ("squares", 57, 0.66), ("products", 435, 0.67)] {
        let mut accuracies = Vec::new();
        for fold in 0..5 {
            let data = fold_of(&table, fold);
            let model = build(&data, "logistic", &[("features", word(features))]);
            assert_eq!(model.layout().len(), coefficients);
            let fit = fit(&*model, "irls", &[], 50);
            accuracies.push(model.evaluate(&fit.parameters, Split::Test).unwrap().accuracy.unwrap());
        }
        let mean = accuracies.iter().sum::<f64>() / 5.0;
        println!("{features}: {coefficients} coefficients, five-fold mean test accuracy {mean:.4} {accuracies:.4?}");
        assert!((mean - expected).abs() <= 0.01, "{features}: {mean}");
    }
}

/// The test accuracy of the iterate with the smallest validation loss, looked at after every pass.
fn selected_accuracy(model: &dyn Model, name: &str, settings: Given<'_>, passes: f64) -> f64 {
    let entry = optim::registry().into_iter().find(|o| o.name == name).unwrap();
    let settings = Settings::check("test", entry.settings, &given(settings)).unwrap();
    let mut oracle = Oracle::new(model_as_problem(model), name, entry.needs, 1, 1);
    let mut optimizer = (entry.build)(&settings).unwrap();
    let mut parameters = model.initial(&mut stream(1, Stream::Initialization));
    optimizer.start(&mut oracle, &parameters).unwrap();
    let (mut best, mut next) = ((f64::INFINITY, 0.0), 1.0);
    while oracle.data_passes() < passes {
        oracle.begin_step();
        optimizer.step(&mut oracle, &mut parameters).unwrap();
        if oracle.data_passes() >= next {
            let point = optimizer.reported(&parameters);
            let loss = model.evaluate(point, Split::Validation).unwrap().loss.unwrap();
            if loss < best.0 {
                best = (loss, model.evaluate(point, Split::Test).unwrap().accuracy.unwrap());
            }
            next = oracle.data_passes().floor() + 1.0;
        }
    }
    best.1
}

/// Settings of `experiments/higgs-network.toml`.
#[test]
fn a_network_on_five_folds_of_higgs_is_better_than_any_linear_rule_by_adamw_and_l_bfgs() {
    let Some(path) = locate::test_file("higgs/higgs-35k.csv.gz") else { return };
    let table = data::read(&path, &ReadOptions::default()).unwrap();
    let adamw: Given<'_> = &[
        ("learning_rate", SettingValue::Real(0.003)),
        ("weight_decay", SettingValue::Real(0.1)),
        ("schedule", word("cosine")),
        ("horizon", SettingValue::Real(40.0)),
    ];
    let l_bfgs: Given<'_> = &[("history", SettingValue::Whole(5))];
    for (name, settings, passes) in [("adamw", adamw, 40.0), ("l-bfgs", l_bfgs, 100.0)] {
        let accuracies: Vec<f64> = (0..5)
            .map(|fold| {
                let network = [("hidden", SettingValue::Whole(300)), ("initialization", word("least-squares"))];
                let model = build(&fold_of(&table, fold), "mlp", &network);
                selected_accuracy(&*model, name, settings, passes)
            })
            .collect();
        let mean = accuracies.iter().sum::<f64>() / 5.0;
        println!("28-300-1 by {name}: five-fold mean test accuracy {mean:.4} {accuracies:.4?}");
        assert!(mean >= 0.69, "{name}: {mean}");
    }
}

#[test]
fn mnist_softmax_reaches_92_percent() {
    let Some(path) = locate::test_file("mnist/train-images-idx3-ubyte.gz") else { return };
    let Some(test) = locate::test_file("mnist/t10k-images-idx3-ubyte.gz") else { return };
    let train = data::read(&path, &ReadOptions::default()).unwrap();
    let test = data::read(&test, &ReadOptions::default()).unwrap();
    let data = ModelData {
        train: data::examples(&train, &RowSet::Range(0..train.rows())),
        validation: data::examples(&test, &RowSet::Range(0..0)),
        test: data::examples(&test, &RowSet::Range(0..test.rows())),
        task: train.task.clone(),
        columns: train.columns.clone(),
    };
    let settings: Given<'_> = &[("regularizer", word("ridge")), ("strength", SettingValue::Real(1e-4))];
    let model = build(&data, "softmax", settings);
    let sgd: Given<'_> = &[("learning_rate", SettingValue::Real(0.005)), ("momentum", SettingValue::Real(0.9))];
    let hf: Given<'_> = &[("curvature_rows", SettingValue::Whole(6000)), ("cg_iterations", SettingValue::Whole(50))];
    let irls: Given<'_> = &[("information", word("bound"))];
    for (name, settings, steps) in [("sgd", sgd, 2400), ("hessian-free", hf, 12), ("irls", irls, 250), ("admm", &[], 6)]
    {
        let start = std::time::Instant::now();
        let fit = fit(&*model, name, settings, steps);
        let test = model.evaluate(&fit.parameters, Split::Test).unwrap();
        println!(
            "{name}: {:.4} test accuracy after {} steps, {:.1} passes, {:.1} s, objective {:.5}",
            test.accuracy.unwrap(),
            fit.steps,
            fit.counters.rows as f64 / model.rows() as f64,
            start.elapsed().as_secs_f64(),
            model.objective(&fit.parameters).unwrap().0,
        );
        assert!(test.accuracy.unwrap() >= 0.92, "{name}");
    }
}

/// Some rows of a table as a model's data, all of them to train on or all to test on.
fn parts(train: (&Table, &RowSet), test: (&Table, &RowSet)) -> ModelData {
    ModelData {
        train: data::examples(train.0, train.1),
        validation: data::examples(train.0, &RowSet::Range(0..0)),
        test: data::examples(test.0, test.1),
        task: train.0.task.clone(),
        columns: train.0.columns.clone(),
    }
}

fn accuracy_by_irls(data: &ModelData, features: &str) -> f64 {
    let model = build(data, "logistic", &[("features", word(features))]);
    let fit = fit(&*model, "irls", &[], 50);
    model.evaluate(&fit.parameters, Split::Test).unwrap().accuracy.unwrap()
}

#[test]
fn simulated_events_are_as_hard_as_real_ones_for_linear_models_and_squares() {
    let simulated = data::higgs_sim::generate(42, 200_000);
    let (train, test) = (RowSet::Range(0..100_000), RowSet::Range(100_000..200_000));
    let both = parts((&simulated, &train), (&simulated, &test));
    let (linear, squares) = (accuracy_by_irls(&both, "linear"), accuracy_by_irls(&both, "squares"));
    println!("simulated to simulated: linear {linear:.4}, squares {squares:.4}");
    assert!((0.61..=0.66).contains(&linear), "{linear}");
    assert!(squares - linear >= 0.015, "{linear} {squares}");

    // The simulator was fitted to the even rows: real models train on them, every model is tested on the odd ones.
    let Some(path) = locate::test_file("higgs/higgs-35k.csv.gz") else { return };
    let real = data::read(&path, &ReadOptions::default()).unwrap();
    assert_eq!((&real.task, &real.columns), (&simulated.task, &simulated.columns));
    let rows = |first: u32| RowSet::Indices((first..real.rows() as u32).step_by(2).collect::<Vec<_>>().into());
    let (even, odd) = (rows(0), rows(1));
    let as_many = RowSet::Range(0..even.len());
    for features in ["linear", "squares"] {
        let from_real = accuracy_by_irls(&parts((&real, &even), (&real, &odd)), features);
        let from_simulated = accuracy_by_irls(&parts((&simulated, &as_many), (&real, &odd)), features);
        println!("{features}: real to real {from_real:.4}, simulated to real {from_simulated:.4}");
        assert!(from_real - from_simulated <= 0.02, "{features}");
    }
}
