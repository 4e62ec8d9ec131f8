//! Statistics of fits agree with independent programs and with what brute force finds, and `parsimony inspect` shows them.
//!
//! Reference numbers: `tests/reference/glm_statistics.json` and `glm_small.csv`, made by the script beside them.

#[path = "support/program.rs"]
mod program;

use parsimony::data::{self, Examples, ReadOptions, Task, locate};
use parsimony::device::Panels;
use parsimony::model::{self, Held, Inspection, Model, ModelData, Separability};
use parsimony::optim;
use parsimony::oracle::{SettingValue, Settings, Vector};
use program::Place;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

type Given<'a> = &'a [(&'a str, SettingValue)];

const SMALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/glm_small.csv");

fn word(w: &str) -> SettingValue {
    SettingValue::Word(w.into())
}

/// Settings for numbers in `f64`; columns as they stand in the data.
fn raw_high() -> [(&'static str, SettingValue); 2] {
    [("accuracy", word("high")), ("standardize", SettingValue::Switch(false))]
}

fn reference(name: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("reference/glm_statistics.json")).unwrap();
    all[name].clone()
}

fn build(data: &ModelData, name: &str, settings: Given<'_>) -> Box<dyn Model> {
    let entry = model::registry().into_iter().find(|m| m.name == name).unwrap();
    let given: BTreeMap<_, _> = settings.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    entry.build(data, &Settings::check("test", entry.settings, &given).unwrap()).unwrap()
}

fn fit(model: &dyn Model, optimizer: &str, settings: Given<'_>, steps: u64) -> Vector {
    let entry = optim::registry().into_iter().find(|o| o.name == optimizer).unwrap();
    let given: BTreeMap<_, _> = settings.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    let settings = Settings::check("test", entry.settings, &given).unwrap();
    optim::minimize(&entry, &settings, as_problem(model), 1, steps).unwrap().parameters
}

fn as_problem(model: &dyn Model) -> &dyn parsimony::oracle::Problem {
    model
}

fn by_irls(model: &dyn Model) -> Vector {
    fit(model, "irls", &[("tolerance", SettingValue::Real(1e-13))], 100)
}

fn inspect_at(model: &dyn Model, at: &Vector, level: f64, raw: bool) -> Inspection {
    model.inspect(&model.weights(at), level, raw).unwrap().unwrap()
}

fn inspect(model: &dyn Model) -> Inspection {
    inspect_at(model, &by_irls(model), 0.95, false)
}

/// Some columns of the small table with one of its targets.
fn small(target: &str) -> ModelData {
    let exclude = ["real", "two", "three"].into_iter().filter(|name| *name != target).map(str::to_owned).collect();
    let options = ReadOptions { target: Some(target.into()), exclude, ..ReadOptions::default() };
    let table = data::read(Path::new(SMALL), &options).unwrap();
    model_data(table.features, table.targets, table.task, table.columns)
}

/// All rows to train on.
fn model_data(features: Panels, targets: Panels, task: Task, columns: Vec<String>) -> ModelData {
    let rows = |range| Examples { features: features.clone(), targets: targets.clone(), range };
    ModelData { train: rows(0..features.rows()), validation: rows(0..0), test: rows(0..0), task, columns }
}

/// The same without one row.
fn without(data: &ModelData, row: usize) -> ModelData {
    let rows: Vec<usize> = (0..data.train.rows()).filter(|&other| other != row).collect();
    let (features, targets) = (data.train.features.gather(&rows), data.train.targets.gather(&rows));
    model_data(features, targets, data.task.clone(), data.columns.clone())
}

/// The linear predictors of one row with a constant in front of the inputs.
fn predictors(data: &ModelData, row: usize, theta: &Vector) -> Vec<f64> {
    let d = data.columns.len();
    let input = |j: usize| f64::from(data.train.features.get(row, j));
    let of_class = |t: &[f64]| t[0] + (0..d).map(|j| t[j + 1] * input(j)).sum::<f64>();
    theta.host().chunks_exact(d + 1).map(of_class).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    serde_json::from_value(value.clone()).unwrap()
}

/// The largest difference, in units of the largest number expected.
fn error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(0.0_f64, |largest, v| largest.max(v.abs()));
    found.iter().zip(expected).fold(0.0_f64, |largest, (a, b)| largest.max((a - b).abs())) / scale
}

/// The largest difference, each relative to the number expected.
fn relative_error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).fold(0.0_f64, |largest, (a, b)| largest.max((a - b).abs() / b.abs()))
}

/// Compares the table of coefficients with another program's; the largest relative error of a standard error is answered.
fn check_coefficients(inspection: &Inspection, expected: &Value, tolerance: f64) -> f64 {
    let column = |of: fn(&model::Coefficient) -> Option<f64>| -> Vec<f64> {
        inspection.coefficients.iter().map(|c| of(c).unwrap()).collect()
    };
    let errors = numbers(&expected["standard_error"]);
    // An estimate is known in units of its standard error.
    let shifted = |column: Vec<f64>, key: &str| {
        let expected = numbers(&expected[key]);
        assert_eq!(column.len(), expected.len());
        column.iter().zip(&expected).zip(&errors).fold(0.0_f64, |m, ((a, b), e)| m.max((a - b).abs() / e))
    };
    let estimate = shifted(column(|c| Some(c.estimate)), "estimate");
    let standard_error = relative_error(&column(|c| c.standard_error), &errors);
    let low = shifted(column(|c| c.interval.map(|i| i[0])), "low");
    let high = shifted(column(|c| c.interval.map(|i| i[1])), "high");
    let statistic = error(&column(|c| c.statistic), &numbers(&expected["statistic"]));
    let p = numbers(&expected["p"]);
    let p_error = column(|c| c.p).iter().zip(&p).fold(0.0_f64, |m, (a, b)| m.max((a - b).abs()));
    for (found, expected) in column(|c| c.p).iter().zip(&p).filter(|(_, p)| **p > 1e-300) {
        assert!((found / expected).ln().abs() < 1e3 * tolerance, "p {found:e} instead of {expected:e}");
    }
    println!(
        "  estimates {estimate:.1e} standard errors off; relative errors: standard errors {standard_error:.1e}, statistics \
         {statistic:.1e}, p {p_error:.1e}, intervals {:.1e}",
        low.max(high)
    );
    assert!(estimate.max(standard_error).max(low).max(high).max(statistic).max(p_error) < tolerance);
    standard_error
}

fn check_figures(inspection: &Inspection, expected: &Value, tolerance: f64) {
    for (name, found) in [
        ("log_likelihood", Some(inspection.log_likelihood)),
        ("null_log_likelihood", Some(inspection.null_log_likelihood)),
        ("deviance", Some(inspection.deviance)),
        ("null_deviance", Some(inspection.null_deviance)),
        ("r_squared", Some(inspection.r_squared)),
        ("aic", Some(inspection.aic)),
        ("bic", Some(inspection.bic)),
        ("residual_standard_error", inspection.residual_standard_error),
        ("press", inspection.press),
    ] {
        let Some(expected) = expected[name].as_f64() else { continue };
        let error = (found.unwrap() / expected - 1.0).abs();
        assert!(error < tolerance, "{name}: {found:?} instead of {expected}");
    }
    if let [largest, row] = numbers(&expected["leverages"])[..] {
        assert!((inspection.largest_leverage / largest - 1.0).abs() < tolerance);
        assert_eq!(inspection.largest_leverage_row, row as usize);
    } else {
        let error = relative_error(&inspection.row_statistics.leverages, &numbers(&expected["leverages"]));
        println!("  leverages {error:.1e}");
        assert!(error < tolerance);
    }
    assert!(inspection.is_optimum, "{}", inspection.newton_step);
}

#[test]
fn statistics_of_small_fits_agree_with_statsmodels() {
    for (name, model, target, intercept) in [
        ("small-logistic", "logistic", "two", true),
        ("small-least-squares", "least-squares", "real", true),
        ("small-least-squares-through-zero", "least-squares", "real", false),
    ] {
        println!("{name}");
        let settings = [&raw_high()[..], &[("intercept", SettingValue::Switch(intercept))]].concat();
        let inspection = inspect(&*build(&small(target), model, &settings));
        check_coefficients(&inspection, &reference(name), 1e-8);
        check_figures(&inspection, &reference(name), 1e-10);
    }
    let model = build(&small("two"), "logistic", &raw_high());
    check_coefficients(&inspect_at(&*model, &by_irls(&*model), 0.99, false), &reference("small-logistic-99"), 1e-8);

    println!("small-softmax");
    let inspection = inspect(&*build(&small("three"), "softmax", &raw_high()));
    check_coefficients(&inspection, &reference("small-softmax"), 1e-8);
    let expected = reference("small-softmax");
    for (name, found) in
        [("log_likelihood", inspection.log_likelihood), ("aic", inspection.aic), ("bic", inspection.bic)]
    {
        assert!((found / expected[name].as_f64().unwrap() - 1.0).abs() < 1e-12, "{name}");
    }
    // The null model there is the work of an optimizer that stops earlier.
    for (name, found) in [("null_log_likelihood", inspection.null_log_likelihood), ("r_squared", inspection.r_squared)]
    {
        assert!((found / expected[name].as_f64().unwrap() - 1.0).abs() < 1e-6, "{name}");
    }
    assert!((inspection.effective_degrees_of_freedom - 8.0).abs() < 1e-10);
    let names: Vec<_> = inspection.coefficients.iter().map(|c| (c.class.as_deref().unwrap(), &*c.name)).collect();
    let of = |class| ["(intercept)", "dose", "age", "rate"].map(|name| (class, name));
    assert_eq!(names, [of("mid"), of("top")].concat());
}

#[test]
fn standardized_columns_give_the_statistics_of_raw_ones() {
    for (name, model, target) in [
        ("small-logistic", "logistic", "two"),
        ("small-softmax", "softmax", "three"),
        ("small-least-squares", "least-squares", "real"),
    ] {
        let model = build(&small(target), model, &[("accuracy", word("high"))]);
        let inspection = inspect_at(&*model, &by_irls(&*model), 0.95, true);
        check_coefficients(&inspection, &reference(name), 1e-8);
    }
    // Products too: the same predictor, whatever the columns are scaled by.
    let of = |standardize| {
        let settings = [
            ("accuracy", word("high")),
            ("features", word("products")),
            ("standardize", SettingValue::Switch(standardize)),
        ];
        let model = build(&small("real"), "least-squares", &settings);
        inspect_at(&*model, &by_irls(&*model), 0.95, true)
    };
    let (raw, standardized) = (of(false), of(true));
    let column = |of: &Inspection, value: fn(&model::Coefficient) -> f64| -> Vec<f64> {
        of.coefficients.iter().map(value).collect()
    };
    let errors = column(&raw, |c| c.standard_error.unwrap());
    assert!(relative_error(&column(&standardized, |c| c.standard_error.unwrap()), &errors) < 1e-6);
    let estimates = column(&raw, |c| c.estimate).into_iter().zip(column(&standardized, |c| c.estimate)).zip(&errors);
    for ((a, b), error) in estimates {
        assert!((a - b).abs() < 1e-6 * error, "{a} {b}");
    }
    assert_eq!(raw.coefficients[5].name, "dose*age");
}

#[test]
fn statistics_on_higgs_agree_with_statsmodels() {
    let Some(path) = locate::test_file("higgs/higgs-35k.csv.gz") else { return };
    let table = data::read(&path, &ReadOptions::default()).unwrap();
    let data = model_data(table.features.clone(), table.targets, table.task, table.columns);
    for features in ["linear", "squares"] {
        println!("higgs, {features}");
        let model = build(&data, "logistic", &[("accuracy", word("high")), ("features", word(features))]);
        let at = by_irls(&*model);
        let inspection = inspect_at(&*model, &at, 0.95, false);
        check_coefficients(&inspection, &reference(&format!("higgs-{features}")), 1e-8);
        check_figures(&inspection, &reference(&format!("higgs-{features}")), 1e-10);
        println!(
            "  {} rows: loss {:.6} and accuracy {:.4}; left out {:.6} and {:.4}",
            inspection.rows,
            inspection.loss,
            inspection.accuracy.unwrap(),
            inspection.left_out_loss.unwrap(),
            inspection.left_out_accuracy.unwrap()
        );
        if features == "squares" {
            check_coefficients(&inspect_at(&*model, &at, 0.95, true), &reference("higgs-squares-raw"), 1e-7);
        }
    }
    // The fast sums of an optimizer are good enough: the statistics are formed in f64 all the same.
    let model = build(&data, "logistic", &[]);
    check_coefficients(
        &inspect_at(&*model, &fit(&*model, "irls", &[], 100), 0.95, false),
        &reference("higgs-linear"),
        1e-4,
    );

    println!("higgs, least squares");
    let rows = table.features.rows();
    let inputs = Panels::from_fn(rows, 27, |row, column| table.features.get(row, column + 1));
    let target = Panels::from_fn(rows, 1, |row, _| table.features.get(row, 0));
    let data = model_data(inputs, target, Task::Regression, data.columns[1..].to_vec());
    let model = build(&data, "least-squares", &[("accuracy", word("high"))]);
    let at = fit(&*model, "irls", &[], 100);
    check_coefficients(&inspect_at(&*model, &at, 0.95, false), &reference("higgs-least-squares"), 1e-8);
    check_figures(&inspect_at(&*model, &at, 0.95, false), &reference("higgs-least-squares"), 1e-9);
}

#[test]
fn a_ridge_has_fewer_degrees_of_freedom_and_no_tests() {
    for (name, model, target) in
        [("small-logistic-ridge", "logistic", "two"), ("small-least-squares-ridge", "least-squares", "real")]
    {
        let expected = reference(name);
        let strength = SettingValue::Real(expected["strength"].as_f64().unwrap());
        let settings = [("accuracy", word("high")), ("regularizer", word("ridge")), ("strength", strength)];
        let inspection = inspect(&*build(&small(target), model, &settings));
        let column =
            |of: fn(&model::Coefficient) -> f64| -> Vec<f64> { inspection.coefficients.iter().map(of).collect() };
        assert!((inspection.effective_degrees_of_freedom / expected["edf"].as_f64().unwrap() - 1.0).abs() < 1e-11);
        assert!(error(&column(|c| c.estimate), &numbers(&expected["estimate"])) < 1e-11);
        let errors = column(|c| c.standard_error.unwrap());
        assert!(relative_error(&errors, &numbers(&expected["standard_error"])) < 1e-11);
        assert!(inspection.coefficients.iter().all(|c| c.p.is_none() && c.interval.is_none()));
    }
    // Classes with coefficients of their own: one intercept is superfluous, and shared leverage stays below 1.
    let settings = [("accuracy", word("high")), ("regularizer", word("ridge")), ("strength", SettingValue::Real(0.02))];
    let inspection = inspect(&*build(&small("three"), "softmax", &settings));
    assert_eq!(inspection.coefficients.len(), 12);
    assert_eq!(inspection.coefficients[8].held, Some(Held::Redundant));
    assert!(inspection.is_optimum && (2.0..8.0).contains(&inspection.effective_degrees_of_freedom));
    assert!(inspection.left_out_loss.unwrap() > inspection.loss);
}

/// Mean loss, or mean squared error, of every row left out by a fit of its own.
fn left_out_by_brute_force(data: &ModelData, model: &str, settings: Given<'_>) -> (f64, f64) {
    let rows = data.train.rows();
    let (mut loss, mut correct) = (0.0, 0);
    for row in 0..rows {
        let theta = by_irls(&*build(&without(data, row), model, settings));
        let y = f64::from(data.train.targets.get(row, 0));
        let eta = predictors(data, row, &theta);
        if model == "least-squares" {
            loss += 0.5 * (eta[0] - y).powi(2);
            continue;
        }
        let logits = [&[0.0][..], &eta].concat();
        let total: f64 = logits.iter().map(|l| l.exp()).sum();
        loss += total.ln() - logits[y as usize];
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        correct += usize::from(logits.iter().position(|l| *l == largest) == Some(y as usize));
    }
    (loss / rows as f64, correct as f64 / rows as f64)
}

#[test]
fn rows_left_out_agree_with_fits_without_them() {
    let settings = raw_high();
    // Exactly for squares, with a ridge too: its weight beside the sum over rows stays what it is.
    let data = small("real");
    let inspection = inspect(&*build(&data, "least-squares", &settings));
    let (loss, _) = left_out_by_brute_force(&data, "least-squares", &settings);
    println!("least squares: {:.15} by leverages, {loss:.15} by refitting", inspection.left_out_loss.unwrap());
    assert!((inspection.left_out_loss.unwrap() / loss - 1.0).abs() < 1e-10);
    assert!((inspection.press.unwrap() / (2.0 * loss * 90.0) - 1.0).abs() < 1e-10);
    let ridged = |strength: f64| {
        [&settings[..], &[("regularizer", word("ridge")), ("strength", SettingValue::Real(strength))]].concat()
    };
    let inspection = inspect(&*build(&data, "least-squares", &ridged(0.02)));
    let (loss, _) = left_out_by_brute_force(&data, "least-squares", &ridged(0.02 * 90.0 / 89.0));
    assert!((inspection.left_out_loss.unwrap() / loss - 1.0).abs() < 1e-10);

    // To second order for others: much nearer to the truth than the loss on the training rows is.
    for (model, target) in [("logistic", "two"), ("softmax", "three")] {
        let data = small(target);
        let inspection = inspect(&*build(&data, model, &settings));
        let (loss, accuracy) = left_out_by_brute_force(&data, model, &settings);
        let (found, found_accuracy) = (inspection.left_out_loss.unwrap(), inspection.left_out_accuracy.unwrap());
        println!(
            "{model}: {found:.6} by one step, {loss:.6} by refitting, {:.6} on the rows fitted; accuracy {found_accuracy:.4}, \
             {accuracy:.4}, {:.4}",
            inspection.loss,
            inspection.accuracy.unwrap()
        );
        assert!((found - loss).abs() < 0.05 * (loss - inspection.loss), "{found} {loss}");
        assert!((found_accuracy - accuracy).abs() < 0.012);
    }
}

#[test]
fn only_an_optimum_has_figures_of_rows_left_out() {
    let model = build(&small("two"), "logistic", &[]);
    let at = by_irls(&*model);
    let mut near = at.clone();
    near.host_mut()[1] += 0.05;
    let inspection = inspect_at(&*model, &near, 0.95, false);
    assert!(!inspection.is_optimum && (0.01..1.0).contains(&inspection.newton_step), "{}", inspection.newton_step);
    assert_eq!((inspection.left_out_loss, inspection.left_out_accuracy), (None, None));
    assert!(inspection.not_left_out.unwrap().contains("not at the optimum"));
    // The weights of another model are refused.
    let other = build(&small("three"), "softmax", &[]);
    let message = model.inspect(&other.weights(&by_irls(&*other)), 0.95, false).unwrap_err().to_string();
    assert!(message.contains("not those of the model logistic"), "{message}");
}

#[test]
fn an_information_matrix_beyond_the_limit_is_refused() {
    let features = Panels::from_fn(20, 150, |row, column| ((7 * row + 3 * column) % 11) as f32);
    let targets = Panels::from_fn(20, 1, |row, _| (row % 2) as f32);
    let names = (0..150).map(|column| format!("x{column}")).collect();
    let data = model_data(features, targets, Task::Classes(vec!["no".into(), "yes".into()]), names);
    let model = build(&data, "logistic", &[("features", word("products"))]);
    let zero = Vector::zeros(model.layout());
    let message = model.inspect(&model.weights(&zero), 0.95, false).unwrap_err().to_string();
    assert!(message.contains("11476 coefficients") && message.contains("formed up to 10000"), "{message}");
}

#[test]
fn coefficients_without_a_standard_error_are_named_and_the_others_right() {
    // A copy of a column, and one that is constant.
    let data = small("two");
    let d = data.columns.len();
    let features = Panels::from_fn(90, d + 2, |row, column| match column {
        3 => 2.0 * data.train.features.get(row, 1),
        4 => 7.0,
        column => data.train.features.get(row, column),
    });
    let names = [&data.columns[..], &["copy".into(), "constant".into()]].concat();
    let wide = model_data(features, data.train.targets.clone(), data.task.clone(), names);
    let inspection = inspect(&*build(&wide, "logistic", &raw_high()));
    let held: Vec<_> =
        inspection.coefficients.iter().filter(|c| c.held.is_some()).map(|c| (&*c.name, c.held)).collect();
    assert_eq!(held, [("copy", Some(Held::Dependent)), ("constant", Some(Held::Dependent))]);
    let mut free = inspection.clone();
    free.coefficients.retain(|c| c.held.is_none());
    check_coefficients(&free, &reference("small-logistic"), 1e-8);
    check_figures(&inspection, &reference("small-logistic"), 1e-9);

    // A mark that only rows of one class bear: its coefficient grows for ever, and those rows say no more.
    let is_marked = |row: usize| row.is_multiple_of(3) && data.train.targets.get(row, 0) == 1.0;
    let features = Panels::from_fn(90, d + 1, |row, column| match column {
        3 => f32::from(u8::from(is_marked(row))),
        column => data.train.features.get(row, column),
    });
    let names = [&data.columns[..], &["mark".into()]].concat();
    let marked = model_data(features, data.train.targets.clone(), data.task.clone(), names);
    for raw in [false, true] {
        let settings = raw_high();
        let model = build(&marked, "logistic", if raw { &settings[..1] } else { &settings });
        let inspection = inspect_at(&*model, &fit(&*model, "irls", &[], 100), 0.95, raw);
        assert_eq!(inspection.separation, Some(Separability::Quasi));
        assert_eq!(inspection.coefficients[4].held, Some(Held::Separated), "{:?}", inspection.coefficients);
        assert!(inspection.left_out_loss.is_none() && !inspection.is_optimum);
        let rest: Vec<usize> = (0..90).filter(|&row| !is_marked(row)).collect();
        let (features, targets) = (data.train.features.gather(&rest), data.train.targets.gather(&rest));
        let rest = model_data(features, targets, data.task.clone(), data.columns.clone());
        let expected = inspect(&*build(&rest, "logistic", &raw_high()));
        let errors = |of: &Inspection| -> Vec<f64> {
            of.coefficients.iter().take(4).map(|c| c.standard_error.unwrap()).collect()
        };
        let difference = relative_error(&errors(&inspection), &errors(&expected));
        println!("quasi-separation, raw {raw}: standard errors of the others differ by {difference:.1e}");
        assert!(difference < 1e-5);
    }

    // One of three groups bears a single class, and it is the one whose column depends on the others and the constant: all
    // others of the group grow, and the constant against them.
    let group = |row: usize| if is_marked(row) { 2 } else { row % 2 };
    let grouped = |rows: &[usize], groups: usize| {
        let features = Panels::from_fn(rows.len(), d + groups, |row, column| match column {
            column if column >= d => f32::from(u8::from(group(rows[row]) == column - d)),
            column => data.train.features.get(rows[row], column),
        });
        let names = [&data.columns[..], &["a".into(), "b".into(), "c".into()][..groups]].concat();
        let model = model_data(features, data.train.targets.gather(rows), data.task.clone(), names);
        let model = build(&model, "logistic", &raw_high());
        inspect_at(&*model, &fit(&*model, "irls", &[], 100), 0.95, false)
    };
    let all: Vec<usize> = (0..90).collect();
    let rest: Vec<usize> = (0..90).filter(|&row| group(row) < 2).collect();
    let (inspection, expected) = (grouped(&all, 3), grouped(&rest, 1));
    let held: Vec<_> = inspection.coefficients.iter().map(|c| c.held).collect();
    let separated = Some(Held::Separated);
    assert_eq!(held, [separated, None, None, None, separated, separated, Some(Held::Dependent)]);
    let errors = |of: &Inspection| -> Vec<f64> { (1..4).map(|j| of.coefficients[j].standard_error.unwrap()).collect() };
    assert!(relative_error(&errors(&inspection), &errors(&expected)) < 1e-5);

    // A penalty that chooses.
    let settings = [("regularizer", word("l1")), ("strength", SettingValue::Real(0.08)), ("accuracy", word("high"))];
    let model = build(&data, "logistic", &settings);
    let tight = [("absolute_tolerance", SettingValue::Real(1e-9)), ("relative_tolerance", SettingValue::Real(1e-9))];
    let inspection = inspect_at(&*model, &fit(&*model, "admm", &tight, 5000), 0.95, false);
    let nonzero = inspection.coefficients.iter().filter(|c| c.estimate != 0.0).count();
    println!("l1: {nonzero} of 4 coefficients, newton step {:.1e}", inspection.newton_step);
    assert!((2..4).contains(&nonzero) && inspection.is_optimum);
    assert!((inspection.effective_degrees_of_freedom - nonzero as f64).abs() < 1e-9);
    assert!(inspection.coefficients.iter().all(|c| c.standard_error.is_none()));
    assert!(inspection.left_out_loss.unwrap() > inspection.loss);
}

#[test]
fn separable_classes_have_no_standard_errors() {
    let Some(path) = locate::test_file("libsvm/sonar.csv") else { return };
    let table = data::read(&path, &ReadOptions::default()).unwrap();
    let data = model_data(table.features, table.targets, table.task, table.columns);
    let model = build(&data, "logistic", &[]);
    let inspection = inspect_at(&*model, &fit(&*model, "irls", &[], 100), 0.95, false);
    assert_eq!(inspection.separation, Some(Separability::Complete));
    assert!(inspection.coefficients.iter().all(|c| c.held == Some(Held::Separated) && c.standard_error.is_none()));
    assert!(inspection.not_left_out.unwrap().contains("no finite optimum"));
}

#[test]
fn every_optimizer_reaches_least_squares() {
    let data = small("real");
    let model = build(&data, "least-squares", &[]);
    let best = model.objective(&by_irls(&*model)).unwrap().0;
    let entry = optim::registry().into_iter().find(|o| o.name == "irls").unwrap();
    let settings = Settings::check("test", entry.settings, &BTreeMap::new()).unwrap();
    let one = optim::minimize(&entry, &settings, as_problem(&*model), 1, 1).unwrap();
    assert!(model.objective(&one.parameters).unwrap().0 < best * (1.0 + 1e-10), "one step is enough");
    let sgd: Given<'_> = &[("learning_rate", SettingValue::Real(0.02)), ("batch_size", SettingValue::Whole(10))];
    for (optimizer, settings, steps, tolerance) in
        [("admm", &[][..], 200, 1e-6), ("hessian-free", &[], 100, 1e-6), ("sgd", sgd, 2000, 0.05)]
    {
        let gap = model.objective(&fit(&*model, optimizer, settings, steps)).unwrap().0 / best - 1.0;
        println!("{optimizer}: {gap:.1e} above the optimum");
        assert!(gap < tolerance, "{optimizer}: {gap:e}");
    }
    let inspection = inspect(&*model);
    let squares: f64 = inspection
        .row_statistics
        .fitted
        .iter()
        .zip(&inspection.row_statistics.targets)
        .fold(0.0, |s, (f, &y)| s + (f - f64::from(y)).powi(2));
    assert!((inspection.deviance / squares - 1.0).abs() < 1e-12);
    assert_eq!(model.evaluate(&by_irls(&*model), model::Split::Train).unwrap().accuracy, None);

    // What does not fit is refused with what does.
    let refused = |data: &ModelData, name: &str| {
        let entry = model::registry().into_iter().find(|m| m.name == name).unwrap();
        let settings = Settings::check("test", entry.settings, &BTreeMap::new()).unwrap();
        entry.build(data, &settings).err().unwrap().to_string()
    };
    assert!(refused(&data, "logistic").contains("`least-squares`"));
    assert!(refused(&small("two"), "least-squares").contains("task = \"regression\""));
}

/// One run of the program with a fit of each kind of model on the small table.
fn experiment(target: &str, exclude: &str, model: &str, optimizer: &str) -> String {
    format!(
        r#"
        budget = "200 steps"
        [[dataset]]
        path = "small.csv"
        target = "{target}"
        exclude = [{exclude}]
        split = {{ ranges = {{ train = [10, 90], validation = [0, 0], test = [0, 10] }} }}
        [[model]]
        name = "{model}"
        {optimizer}"#
    )
}

fn cell_of(place: &Place, run: &str, optimizer: &str) -> String {
    program::cell(&place.cells(run), optimizer)["cell"].as_str().unwrap().to_owned()
}

#[test]
fn a_cell_is_inspected() {
    let place = Place::new();
    place.write("small.csv", std::fs::read(SMALL).unwrap());
    let irls = "[[optimizer]]\nname = \"irls\"";
    for (name, target, exclude, model) in [
        ("two", "two", r#""real", "three""#, "logistic"),
        ("three", "three", r#""real", "two""#, "softmax"),
        ("real", "real", r#""two", "three""#, "least-squares"),
    ] {
        let file = place.write(&format!("{name}.toml"), experiment(target, exclude, model, irls));
        place.succeed(&["run", file.to_str().unwrap()]);
        let cell = cell_of(&place, name, "irls");
        let text = place.succeed(&["inspect", &cell]);
        println!("{text}");
        for expected in ["(intercept)", "dose", "age", "rate", "std. error", "95 %", "80", "left out", "test"] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        let json: Value =
            serde_json::from_str(&place.succeed(&["inspect", &cell[..6], "--format", "json", "--raw"])).unwrap();
        assert_eq!((json["rows"].as_u64(), json["raw"].as_bool()), (Some(80), Some(true)));
        assert_eq!(json["coefficients"][1]["name"], "dose");
        assert!(json["coefficients"][1]["standard_error"].as_f64().unwrap() > 0.0);
        // Rows are counted in the dataset: training starts at 10.
        let table = place.succeed(&["inspect", &cell, "--format", "csv", "--rows", "rows.csv"]);
        assert_eq!(table.lines().count(), json["coefficients"].as_array().unwrap().len() + 1);
        let rows = std::fs::read_to_string(place.path().join("rows.csv")).unwrap();
        assert_eq!(rows.lines().count(), 81);
        assert!(rows.lines().nth(1).unwrap().starts_with("10,"), "{rows}");
        let header: Vec<_> = rows.lines().next().unwrap().split(',').collect();
        let leverage = header.iter().position(|name| *name == "leverage").unwrap();
        let of = |line: &str| line.split(',').nth(leverage).unwrap().parse::<f64>().unwrap();
        let sum: f64 = rows.lines().skip(1).map(of).sum();
        assert!((sum - json["effective_degrees_of_freedom"].as_f64().unwrap()).abs() < 1e-9);
        let largest = rows.lines().skip(1).max_by(|a, b| of(a).total_cmp(&of(b))).unwrap();
        assert!(largest.starts_with(&format!("{},", json["largest_leverage_row"])), "{largest}");
        // Predictions of a real target are one column.
        place.succeed(&["predict", &cell, "--data", "small.csv", "--out", "scores.csv"]);
        let scores = std::fs::read_to_string(place.path().join("scores.csv")).unwrap();
        assert_eq!(scores.lines().count(), 91);
        assert_eq!(scores.starts_with("predicted\n"), model == "least-squares");
        place.succeed(&["summary", &format!("runs/{name}")]);
        place.succeed(&["report", &format!("runs/{name}")]);
    }
    let ninety = place.succeed(&["inspect", &cell_of(&place, "two", "irls"), "--level", "0.9", "--out", "table.txt"]);
    assert!(ninety.is_empty());
    assert!(std::fs::read_to_string(place.path().join("table.txt")).unwrap().contains("90 %"));
}

#[test]
fn what_cannot_be_inspected_is_said() {
    let place = Place::new();
    place.write("small.csv", std::fs::read(SMALL).unwrap());
    let optimizers = "[[optimizer]]\nname = \"irls\"\n[[optimizer]]\nname = \"sgd\"\nlearning_rate = 1e300";
    let file = place.write("two.toml", experiment("two", r#""real", "three""#, "logistic", optimizers));
    place.fail(1, &["run", file.to_str().unwrap()]);
    let (irls, sgd) = (cell_of(&place, "two", "irls"), cell_of(&place, "two", "sgd"));
    assert!(place.fail(2, &["inspect", "nothing"]).contains("no cell \"nothing\""));
    assert!(place.fail(2, &["inspect", "runs/two"]).contains("neither a folder with a config.json"));
    assert!(place.fail(3, &["inspect", &sgd]).contains("the cell has no weights: diverged"));
    for level in ["0", "1", "95", "NaN"] {
        assert!(place.fail(2, &["inspect", &irls, "--level", level]).contains("give a share such as 0.95"));
    }
    place.succeed(&["inspect", &irls]);
    let text = std::fs::read_to_string(SMALL).unwrap();
    place.write("small.csv", text.replacen("0.001,", "0.002,", 1));
    assert!(place.fail(3, &["inspect", &irls]).contains("not what it was when the experiment was planned"));
    std::fs::remove_file(place.path().join("small.csv")).unwrap();
    assert!(place.fail(3, &["inspect", &irls]).contains("small.csv: there is no such file"));
}

#[test]
fn one_thread_and_two_inspect_alike() {
    let place = Place::new();
    let file = place.write(
        "wide.toml",
        r#"
        budget = "20 steps"
        [[dataset]]
        name = "higgs-sim"
        rows = 20000
        [[model]]
        name = "logistic"
        features = "squares"
        [[optimizer]]
        name = "irls"
        "#,
    );
    place.succeed(&["run", file.to_str().unwrap()]);
    let cell = cell_of(&place, "wide", "irls");
    let with = |threads: &str| {
        let rows = format!("rows-{threads}.csv");
        let arguments = ["inspect", &cell, "--format", "json", "--raw", "--rows", &rows];
        let output = place.command(&arguments).env("RAYON_NUM_THREADS", threads).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        (output.stdout, std::fs::read(place.path().join(&rows)).unwrap())
    };
    assert!(with("1") == with("2"));
}
