//! Regressions with their rows on an emulated GPU, beside the same on the CPU.

use super::{Emulation, one_device};
use parsimony::data::{self, RowSet, higgs_sim};
use parsimony::device::cpu::Cpu;
use parsimony::device::cuda::Cuda;
use parsimony::device::use_backend;
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
