//! Writes run folders as docs/file-formats.md describes them, with made-up but plausible numbers, so that the report room
//! can be tested without running an optimizer.

use polars::prelude::{Column, DataFrame, NamedFrom, ParquetWriter, Series};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// A cell to write.
#[derive(Debug, Clone)]
pub struct Sketch {
    pub dataset: &'static str,
    pub model: &'static str,
    pub parameters: u64,
    pub nonzero: Option<u64>,
    pub optimizer: &'static str,
    pub hyperparameters: Value,
    pub seed: u64,
    pub fold: Option<u64>,
    pub status: &'static str,
    pub reason: &'static str,
    /// The optimum's objective and the accuracy reached there.
    pub optimum: (f64, f64),
    pub target: Option<f64>,
    pub rows: Vec<Row>,
    /// False leaves the test columns out.
    pub tested: bool,
}

/// A row of a trace.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub step: u64,
    pub passes: f64,
    pub seconds: f64,
    /// Objective above its optimum.
    pub gap: f64,
    pub accuracy: f64,
}

/// A deterministic number in [-1, 1) for each pair of arguments (splitmix64).
pub fn noise(seed: u64, index: u64) -> f64 {
    let mut z = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(index.wrapping_mul(0xBF58_476D_1CE4_E5B9));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
}

/// Rows like those an optimizer of this name leaves on a problem whose pass takes `pass` seconds.
pub fn rows(optimizer: &str, seed: u64, pass: f64, best: f64) -> Vec<Row> {
    let start = 0.05;
    let row = |step: u64, passes: f64, seconds: f64, gap: f64| {
        let chance = 0.0006 * noise(seed + 77, step) * (1.0 - (-1e3 * gap).exp()).max(0.25);
        let accuracy = if step == 0 { 0.4703 } else { best * (1.0 - 0.35 * gap.sqrt()) + chance };
        Row { step, passes, seconds, gap, accuracy }
    };
    let speed = pass * (1.0 + 0.08 * noise(seed, 1));
    let mut rows = vec![row(0, 0.0, 0.0, start)];
    match optimizer {
        "IRLS" => {
            let mut gap: f64 = start;
            for step in 1..=6 {
                gap = (8.0 * gap * gap).max(2e-16 * (1.0 + noise(seed, step)));
                rows.push(row(step, step as f64, step as f64 * speed * 6.0, gap));
            }
        }
        "ADMM" => {
            for step in 1..=40 {
                let gap = start * 0.62_f64.powi(step as i32) * (1.0 + 0.1 * noise(seed, step)) + 1e-10;
                rows.push(row(step, 2.0 * step as f64, step as f64 * speed * 4.0, gap));
            }
        }
        "Hessian-free" => {
            let mut gap: f64 = start;
            for step in 1..=12 {
                gap = (gap * (0.25 * gap.powf(0.12))).max(1e-13 * (1.5 + noise(seed, step)));
                rows.push(row(step, step as f64 * 9.0, step as f64 * speed * 10.0, gap));
            }
        }
        _ => {
            for step in 1..=60_u64 {
                let passes = 0.1 * 10_f64.powf(step as f64 * 0.05);
                let gap = start / (1.0 + 9.0 * passes) * (1.0 + 0.35 * noise(seed, step)) + 2e-6;
                rows.push(row(step * 100, passes, passes * speed * 1.5, gap));
            }
        }
    }
    rows
}

/// The main job: three models, four optimizers, three seeds, all finished but one.
pub fn higgs() -> Vec<Sketch> {
    let mut sketches = Vec::new();
    for (model, parameters, best, pass, optimum) in [
        ("logistic, linear", 29, 0.6415, 0.0021, 0.6372),
        ("logistic, squares", 57, 0.6607, 0.0034, 0.6181),
        ("logistic, products", 435, 0.6724, 0.031, 0.6062),
    ] {
        for optimizer in ["SGD", "IRLS", "ADMM", "Hessian-free"] {
            for seed in 0..3 {
                let mut sketch = Sketch {
                    dataset: "HIGGS (simulated)",
                    model,
                    parameters,
                    nonzero: Some(parameters),
                    optimizer,
                    hyperparameters: json!({ "ridge": 1e-4 }),
                    seed,
                    fold: None,
                    status: "finished",
                    reason: "the gradient's norm is below its tolerance",
                    optimum: (optimum, best),
                    target: Some(best - 0.002),
                    rows: rows(optimizer, seed * 31 + parameters + optimizer.len() as u64, pass, best),
                    tested: true,
                };
                if optimizer == "SGD" && parameters == 435 && seed == 2 {
                    sketch.status = "diverged";
                    sketch.reason = "the objective is NaN at step 1200";
                    sketch.rows.truncate(22);
                }
                if optimizer == "Hessian-free" && parameters == 435 {
                    sketch.status = "timed-out";
                    sketch.reason = "the budget of 2 s was spent";
                    sketch.rows.truncate(8);
                }
                sketches.push(sketch);
            }
        }
    }
    sketches
}

impl Sketch {
    /// The cell's ID.
    pub fn id(&self) -> String {
        let text = format!("{}{}{}{}{:?}", self.dataset, self.model, self.optimizer, self.hyperparameters, self.fold);
        let hash =
            text.bytes().fold(self.seed + 1469, |hash, byte| hash.wrapping_mul(1_099_511_628_211) ^ u64::from(byte));
        format!("{hash:016x}")
    }

    /// The hash of what is minimized.
    pub fn problem(&self) -> String {
        let text = format!("{} {} {:?}", self.dataset, self.model, self.fold);
        text.chars().map(|character| if character.is_alphanumeric() { character } else { '-' }).collect()
    }

    fn time_to_target(&self) -> Option<f64> {
        let target = self.target?;
        self.rows.iter().find(|row| row.accuracy >= target).map(|row| row.seconds)
    }

    /// The object of `result.json`.
    pub fn result(&self) -> Value {
        let last = self.rows.last().copied();
        let tested = last.filter(|_| self.tested && self.status != "diverged").map(|row| row.accuracy);
        let loss = last.map(|row| self.optimum.0 + row.gap);
        let mut object = json!({
            "cell": self.id(), "experiment": "higgs-logistic", "dataset": self.dataset, "model": self.model,
            "optimizer": self.optimizer, "hyperparameters": self.hyperparameters, "seed": self.seed,
            "fold": self.fold, "problem": self.problem(), "status": self.status, "reason": self.reason,
            "findings": [], "objective": loss, "train_loss": loss, "validation_loss": loss,
            "test_loss": loss.filter(|_| self.tested), "train_accuracy": tested, "validation_accuracy": tested,
            "test_accuracy": tested, "test_auc": tested.map(|accuracy| accuracy + 0.04),
            "parameters_total": self.parameters, "parameters_active": self.parameters,
            "parameters_nonzero": self.nonzero, "parameter_bytes": 8 * self.parameters,
            "parameter_compressed_bytes": 7 * self.parameters,
            "optimizer_state_bytes": 16 * self.parameters, "steps": last.map(|row| row.step),
            "data_passes": last.map(|row| row.passes), "gradient_equivalents": last.map(|row| row.passes),
            "flops": last.map(|row| row.passes * 4.2e6), "bytes_moved": last.map(|row| row.passes * 2.8e6),
            "setup_seconds": 0.012, "train_seconds": last.map(|row| row.seconds), "evaluation_seconds": 0.034,
            "record_seconds": 0.002, "wall_seconds": last.map(|row| row.seconds + 0.048),
            "time_to_target_seconds": self.time_to_target(), "peak_resident_bytes": 41_231_360,
            "peak_anonymous_bytes": 30_231_360, "peak_device_bytes": null, "gradient_norm": 1.3e-9
        });
        for key in ["train_squared_error", "validation_squared_error", "test_squared_error"] {
            object[key] = Value::Null;
        }
        object["dead_experts"] = Value::Null;
        for part in ["validation", "test"] {
            for key in [
                "explained_variance",
                "explained_beyond_linear",
                "bits_per_character",
                "grammar_loss",
                "fact_loss",
                "sum_loss",
            ] {
                object[format!("{part}_{key}")] = Value::Null;
            }
        }
        object
    }

    /// Writes the cell's folder; without `result.json` if `finished` is false.
    pub fn write(&self, folder: &Path, finished: bool) -> PathBuf {
        let cell = folder.join("cells").join(self.id());
        fs::create_dir_all(&cell).expect("a folder");
        // As a run on 20,000 simulated events writes it, with the standard split or with folds.
        let (split, rows) = match self.fold {
            None => (
                json!({ "ranges": { "train": [0, 14_000], "validation": [14_000, 17_000], "test": [17_000, 20_000] } }),
                [14_000, 3000, 3000],
            ),
            // The folds' sizes differ by a row where they do not divide the rows.
            Some(fold) => {
                (json!({ "folds": { "count": 7, "fold": fold, "seed": 0 } }), [14_285 + fold, 2858 - fold, 2857])
            }
        };
        let config = json!({
            "cell": self.id(), "experiment": "higgs-logistic",
            "dataset": {
                "name": "higgs-sim", "label": self.dataset, "simulated": true,
                "fingerprint": "11bfee4f0ddd04d5dbbe099be536da7f93e0caa023d107506ec0b81cc7d628ba",
                "order": "as_read", "layout": "0123456789abcdef",
                "source": { "registered": "higgs-sim", "rows": 20_000 }, "split": split, "rows": rows,
            },
            "model": { "name": "logistic", "label": self.model },
            "optimizer": { "name": self.optimizer.to_lowercase(), "label": self.optimizer },
            "hyperparameters": self.hyperparameters, "problem": self.problem(), "seed": self.seed,
            "fold": self.fold, "budget": { "seconds": 2.0, "passes": null, "steps": null },
            "target": self.target.map(|value| json!({ "metric": "validation_accuracy", "value": value })),
        });
        fs::write(cell.join("config.json"), config.to_string()).expect("config.json");
        self.write_trace(&cell.join("trace.parquet"));
        if finished {
            let text = serde_json::to_string_pretty(&self.result()).expect("JSON");
            fs::write(cell.join("result.json"), text).expect("result.json");
        }
        cell
    }

    fn write_trace(&self, path: &Path) {
        let real = |name: &str, value: &dyn Fn(&Row) -> Option<f64>| -> Column {
            Series::new(name.into(), self.rows.iter().map(value).collect::<Vec<_>>()).into()
        };
        let steps: Vec<u64> = self.rows.iter().map(|row| row.step).collect();
        let mut columns = vec![
            Series::new("step".into(), steps).into(),
            real("data_passes", &|row| Some(row.passes)),
            real("train_seconds", &|row| Some(row.seconds)),
            real("objective", &|row| Some(self.optimum.0 + row.gap)),
        ];
        if self.tested {
            columns.push(real("test_accuracy", &|row| Some(row.accuracy)));
        }
        let mut frame = DataFrame::new(self.rows.len(), columns).expect("a frame");
        ParquetWriter::new(fs::File::create(path).expect("trace.parquet")).finish(&mut frame).expect("Parquet");
    }
}

/// Writes a run folder with these cells, all finished, with a reference for each problem.
pub fn write(folder: &Path, question: Option<&str>, sketches: &[Sketch]) {
    fs::create_dir_all(folder.join("cells")).expect("a folder");
    fs::create_dir_all(folder.join("references")).expect("a folder");
    let question = question.map(|question| format!("question = {question:?}\n")).unwrap_or_default();
    fs::write(folder.join("experiment.toml"), format!("name = \"higgs-logistic\"\n{question}")).expect("TOML");
    let plan = json!({ "cells": sketches.iter().map(|sketch| json!({ "cell": sketch.id() })).collect::<Vec<_>>() });
    fs::write(folder.join("plan.json"), plan.to_string()).expect("plan.json");
    for sketch in sketches {
        sketch.write(folder, true);
        let reference = json!({
            "problem": sketch.problem(), "objective": sketch.optimum.0, "gradient_norm": 1e-15, "method": "IRLS"
        });
        let path = folder.join("references").join(format!("{}.json", sketch.problem()));
        fs::write(path, reference.to_string()).expect("a reference");
    }
}
