//! Regressions with their rows on an emulated GPU, beside the same on the CPU.

use super::{Emulation, one_device};
use parsimony::data::{self, Examples, RowSet, Task, higgs_sim};
use parsimony::device::cpu::Cpu;
use parsimony::device::cuda::Cuda;
use parsimony::device::{Panels, use_backend};
use parsimony::model::{self, Model, ModelData, Split};
use parsimony::optim::{self, Fit, minimize};
use parsimony::oracle::{SettingValue, Settings};
use std::collections::BTreeMap;

type Given<'a> = &'a [(&'a str, SettingValue)];

fn settings(settings: &[parsimony::oracle::Setting], given: Given<'_>) -> Settings {
    let given: BTreeMap<String, SettingValue> = given.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
    Settings::check("test", settings, &given).unwrap()
}

fn word(word: &str) -> SettingValue {
    SettingValue::Word(word.into())
}

fn build(data: &ModelData, name: &str, given: Given<'_>) -> Box<dyn Model> {
    let entry = model::registry().into_iter().find(|entry| entry.name == name).unwrap();
    entry.build(data, &settings(entry.settings, given)).unwrap()
}

fn fit(model: &dyn Model, name: &str, given: Given<'_>, steps: u64) -> Fit {
    let entry = optim::registry().into_iter().find(|entry| entry.name == name).unwrap();
    minimize(&entry, &settings(entry.settings, given), model, 1, steps).unwrap()
}

/// `|a - b| / |a|`.
fn gap(a: &[f64], b: &[f64]) -> f64 {
    let norm = |of: &mut dyn Iterator<Item = f64>| of.map(|v| v * v).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut a.iter().copied())
}

/// Simulated HIGGS events; validation rows follow the training rows and are none of a panel's own.
fn events(train: usize, validation: usize) -> ModelData {
    let table = higgs_sim::generate(3, train + validation);
    let part = |range| data::examples(&table, &RowSet::Range(range));
    ModelData {
        train: part(0..train),
        validation: part(train..train + validation),
        test: part(0..0),
        task: table.task.clone(),
        columns: table.columns.clone(),
    }
}

#[test]
fn irls_sgd_admm_and_hessian_free_fit_events_on_a_gpu_to_the_cpus_optimum() {
    let Some(emulation) = Emulation::new(0) else { return };
    let _one = one_device();
    let data = events(1300, 300);
    let of_sgd = [
        ("learning_rate", SettingValue::Real(0.05)),
        ("batch_size", SettingValue::Whole(200)),
        ("schedule", word("cosine")),
        ("horizon", SettingValue::Real(30.0)),
    ];
    let high = [("accuracy", word("high"))];
    let exact = build(&data, "logistic", &high);
    let optimum = fit(&*exact, "irls", &[], 50).parameters;
    let least = exact.objective(&optimum).unwrap().0;
    let sgd_on_cpu = fit(&*build(&data, "logistic", &[]), "sgd", &of_sgd, 210).parameters;
    let evaluated = exact.evaluate(&optimum, Split::Validation).unwrap();
    let outcomes = exact.row_outcomes(&optimum, Split::Validation).unwrap().unwrap();

    use_backend(Cuda::on(emulation.clone()));
    // Sums in f32 stop the others where these no longer tell points apart.
    for (name, given, steps, accuracy, bounds) in [
        ("irls", &[][..], 50, "fast", (1e-9, 1e-4)),
        ("irls", &[], 50, "high", (1e-12, 1e-8)),
        ("admm", &[], 300, "fast", (1e-7, 1e-3)),
        ("hessian-free", &[], 60, "fast", (1e-7, 1e-3)),
        ("sgd", &of_sgd, 210, "fast", (5e-3, 1.0)),
    ] {
        let model = build(&data, "logistic", &[("accuracy", word(accuracy))]);
        let found = fit(&*model, name, given, steps);
        let (objective, gradient) = model.objective(&found.parameters).unwrap();
        let excess = (objective - least) / least;
        let away = gap(optimum.host(), found.parameters.host());
        println!(
            "{name}, {accuracy}: {} steps, {:?}, {excess:.1e} above the optimum, parameters differ by {away:.1e}, gradient {gradient:?}",
            found.steps, found.outcome
        );
        assert!(excess.abs() < bounds.0 && away < bounds.1, "{name}: {excess} {away}");
        if name == "sgd" {
            let away = gap(sgd_on_cpu.host(), found.parameters.host());
            assert!(away < 1e-5, "sgd draws the same rows on either device, but parameters differ by {away}");
        }
    }
    let model = build(&data, "logistic", &high);
    let found = model.evaluate(&optimum, Split::Validation).unwrap();
    assert_eq!((found.accuracy, found.auc), (evaluated.accuracy, evaluated.auc));
    assert!((found.loss.unwrap() - evaluated.loss.unwrap()).abs() < 1e-13);
    let rows = model.row_outcomes(&optimum, Split::Validation).unwrap().unwrap();
    assert_eq!((rows.correct, rows.loss.len()), (outcomes.correct, 300));
    drop(model);
    use_backend(Cpu::default());
    let seen = emulation.seen.lock().unwrap();
    assert!(seen.violations.is_empty(), "{:?}", seen.violations);
    for kernel in
        ["regression_pass", "regression_product", "weighted_gram", "regression_pass_double", "weighted_gram_double"]
    {
        assert!(seen.kernels.contains(kernel), "no fit ran {kernel}");
    }
}

/// Waves of different lengths, and targets that follow them but for one that no column shows.
fn waves(rows: usize, columns: usize, classes: usize) -> ModelData {
    let wave = |r: usize, c: usize| (1.0 + r as f64 * (3.0 + 0.7 * c as f64) + 7.0 * c as f64).sin() as f32;
    let features = Panels::from_fn(rows, columns, wave);
    let target = |r: usize, _| {
        let height = wave(r, 0) - wave(r, 2) + wave(r, 9);
        if classes == 0 { height } else { ((height / 6.0 + 0.5) * classes as f32).floor() }
    };
    let targets = Panels::from_fn(rows, 1, target);
    let part = || Examples { features: features.clone(), targets: targets.clone(), range: 0..rows };
    let names = (0..classes).map(|c| format!("c{c}")).collect();
    ModelData {
        train: part(),
        validation: part(),
        test: part(),
        task: if classes == 0 { Task::Regression } else { Task::Classes(names) },
        columns: (0..columns).map(|c| format!("x{c}")).collect(),
    }
}

/// A few steps of every optimizer that fits end where they end on the CPU, for every regression and kind of columns. In `f64`: line
/// searches make much of the rounding of `f32`.
#[test]
fn every_optimizer_fits_every_regression_as_on_the_cpu() {
    let Some(emulation) = Emulation::new(1) else { return };
    let _one = one_device();
    let all = || {
        let mut reached = BTreeMap::new();
        for (name, classes, features) in [
            ("logistic", 2, "linear"),
            ("logistic", 2, "products"),
            ("softmax", 4, "squares"),
            ("least-squares", 0, "linear"),
        ] {
            let model = build(
                &waves(421, 4, classes),
                name,
                &[
                    ("features", word(features)),
                    ("regularizer", word("ridge")),
                    ("strength", SettingValue::Real(0.01)),
                    ("accuracy", word("high")),
                ],
            );
            for entry in optim::registry() {
                let settings = settings(entry.settings, &[]);
                if entry.needs_with(&settings).into_iter().any(|need| model.offers(need).is_err()) {
                    continue;
                }
                let fit = minimize(&entry, &settings, &*model, 1, 3).unwrap();
                let objective = model.objective(&fit.parameters).unwrap().0;
                reached.insert((name, features, entry.name), (objective, fit.parameters.to_host()));
            }
        }
        reached
    };
    let on_cpu = all();
    use_backend(Cuda::on(emulation.clone()));
    let on_gpu = all();
    use_backend(Cpu::default());
    assert!(on_cpu.len() >= 30 && on_cpu.len() == on_gpu.len(), "{:?}", on_cpu.keys());
    for (what, (objective, parameters)) in &on_cpu {
        let (found, at) = &on_gpu[what];
        let away = gap(parameters, at);
        println!("{what:?}: objective {objective:.7} and {found:.7}, parameters differ by {away:.1e}");
        assert!(
            (objective - found).abs() < 1e-10 * objective.abs() && away < 1e-8,
            "{what:?}: {objective} {found} {away}"
        );
    }
    let seen = emulation.seen.lock().unwrap();
    assert!(seen.violations.is_empty(), "{:?}", seen.violations);
}
