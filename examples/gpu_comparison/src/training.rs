//! Experiments' models trained by their optimizers on both devices: what is reached, and how fast.
//!
//! Settings are those of the experiment files, which are compiled in; data are generated. Time is the optimizer's, the device
//! waited for; evaluations are off the clock.

use parsimony::data::corpus::Corpus;
use parsimony::data::small_language::Parameters;
use parsimony::data::{Examples, SplitSpec, Task, examples, higgs_sim};
use parsimony::device::{self, Device, Panels};
use parsimony::model::{self, Model, ModelData, Split, TextData};
use parsimony::optim;
use parsimony::oracle::{Oracle, Setting, SettingValue, Settings, Stream, stream};
use parsimony::{Error, Result};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// An experiment of this repository on data of this program.
struct Experiment {
    name: &'static str,
    text: &'static str,
    data: Data,
    /// What is told of the validation part.
    metric: &'static str,
    /// Models by their place in the file, each with one value of a list that it has.
    models: &'static [(usize, usize)],
    /// Passes over the training rows.
    passes: f64,
    /// What the same metric may differ by between devices at the end.
    bound: f64,
}

enum Data {
    Table(ModelData),
    Text(TextData),
}

/// Pairs of a random dense layer of rectifiers on clustered inputs, as a language model's first layer has them: 64 inputs, 64
/// outputs.
fn pairs(rows: usize) -> ModelData {
    const WIDTH: usize = 64;
    const UNITS: usize = 256;
    let x = |r: usize, c: usize| 1.5 * noise(r % 97, 1000 + c) + 0.7 * noise(5000 + r, c);
    let weights: Vec<f32> = (0..UNITS * WIDTH).map(|i| 0.2 * noise(i, 300_000)).collect();
    let back: Vec<f32> = (0..UNITS * WIDTH).map(|i| 0.2 * noise(i, 400_000)).collect();
    let (mut inputs, mut outputs) = (Vec::with_capacity(rows * WIDTH), Vec::with_capacity(rows * WIDTH));
    for r in 0..rows {
        let own: Vec<f32> = (0..WIDTH).map(|c| x(r, c)).collect();
        let mut out = vec![0.0_f32; WIDTH];
        for (weights, back) in weights.chunks_exact(WIDTH).zip(back.chunks_exact(WIDTH)) {
            let unit = weights.iter().zip(&own).map(|(w, x)| w * x).sum::<f32>().max(0.0);
            out.iter_mut().zip(back).for_each(|(out, back)| *out += unit * back);
        }
        inputs.extend(own);
        outputs.extend(out);
    }
    let of = |values: Vec<f32>| Panels::from_fn(rows, WIDTH, |r, c| values[r * WIDTH + c]);
    let (features, targets) = (of(inputs), of(outputs));
    let held = rows / 13;
    let part = |range| Examples { features: features.clone(), targets: targets.clone(), range };
    ModelData {
        train: part(0..rows - 2 * held),
        validation: part(rows - 2 * held..rows - held),
        test: part(rows - held..rows),
        task: Task::Regression,
        columns: (0..WIDTH).map(|c| format!("x{c}")).collect(),
    }
}

/// Noise without a pattern from two whole numbers, uniform in `[-1, 1)`.
fn noise(a: usize, b: usize) -> f32 {
    let mut z = (a as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (b as u64).wrapping_mul(0xD1B5_4A32_D192_ED03);
    z = (z ^ (z >> 31)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z = (z ^ (z >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    ((z ^ (z >> 32)) >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
}

/// Simulated HIGGS events.
fn events(rows: usize) -> Result<ModelData> {
    let table = higgs_sim::generate(1, rows);
    let split = SplitSpec::Last { validation: rows / 10, test: rows / 10 }.apply(&table)?;
    Ok(ModelData {
        train: examples(&table, &split.train),
        validation: examples(&table, &split.validation),
        test: examples(&table, &split.test),
        task: table.task.clone(),
        columns: table.columns.clone(),
    })
}

/// The generated language with 1,024 facts.
fn language(length: usize) -> Result<TextData> {
    let corpus = Corpus::generate(length, Parameters { facts: 1024, digits: 1, seed: 1 })?;
    let split = SplitSpec::Last { validation: length / 50, test: length / 50 };
    Ok(TextData { corpus: corpus.split(&split)?, evaluation_tokens: Some(16_384) })
}

/// The experiments at a `share` of their size.
fn experiments(share: f64) -> Result<Vec<Experiment>> {
    let of = |rows: usize| ((rows as f64 * share) as usize).max(2000);
    Ok(vec![
        Experiment {
            name: "switch-layer-four-optimizers",
            text: include_str!("../../../experiments/switch-layer-four-optimizers.toml"),
            data: Data::Table(pairs(of(65_000))),
            metric: "explained beyond linear",
            models: &[(0, 0), (2, 0)],
            passes: 12.0,
            bound: 0.02,
        },
        Experiment {
            name: "higgs-logistic",
            text: include_str!("../../../experiments/higgs-logistic.toml"),
            data: Data::Table(events(of(2_000_000))?),
            metric: "accuracy",
            models: &[(0, 0), (0, 2)],
            passes: 20.0,
            bound: 0.002,
        },
        Experiment {
            name: "switch-vs-dense",
            text: include_str!("../../../experiments/switch-vs-dense.toml"),
            data: Data::Text(language(of(1_000_000))?),
            metric: "loss",
            models: &[(0, 0), (0, 4)],
            passes: 1.0,
            bound: 0.02,
        },
    ])
}

/// What a training came to.
struct Curve {
    /// Seconds and the metric after each eighth of the passes.
    points: Vec<(f64, f64)>,
    steps: u64,
}

/// The settings of a table of an experiment file, of a list its `pick`-th value.
fn settings_of(place: &str, declared: &[Setting], table: &toml::Table, pick: usize) -> Result<Settings> {
    let mut given = BTreeMap::new();
    for (key, value) in table.iter().filter(|(key, _)| declared.iter().any(|setting| setting.name == **key)) {
        let value = value.as_array().map_or(value, |list| &list[pick.min(list.len() - 1)]);
        let value: SettingValue = value
            .clone()
            .try_into()
            .map_err(|error| Error::config(place, format!("{key}: {error}"), "mend the file"))?;
        given.insert(key.clone(), value);
    }
    Settings::check(place, declared, &given)
}

fn tables<'a>(file: &'a toml::Table, key: &str) -> Vec<&'a toml::Table> {
    file[key].as_array().into_iter().flatten().filter_map(toml::Value::as_table).collect()
}

fn name(table: &toml::Table) -> &str {
    table["name"].as_str().unwrap_or_default()
}

fn measure(model: &dyn Model, metric: &str, at: &parsimony::oracle::Vector) -> Result<f64> {
    let found = model.evaluate(at, Split::Validation)?;
    let value = match metric {
        "accuracy" => found.accuracy,
        "loss" => found.loss,
        _ => found.explained_beyond_linear,
    };
    Ok(value.unwrap_or(f64::NAN))
}

/// Trains on the current device.
fn train(experiment: &Experiment, model: &dyn Model, table: &toml::Table, limit: Duration) -> Result<Curve> {
    let entry = optim::registry().into_iter().find(|entry| entry.name == name(table));
    let entry = entry.ok_or_else(|| Error::config(experiment.name, "an optimizer is not known", "mend the file"))?;
    let settings = settings_of(experiment.name, entry.settings, table, 0)?;
    let device = device::current();
    let mut oracle = Oracle::new(model, entry.name, &entry.needs_with(&settings), 1, 1);
    let mut optimizer = (entry.build)(&settings)?;
    let mut parameters = model.initial(&mut stream(1, Stream::Initialization));
    optimizer.start(&mut oracle, &parameters)?;
    device.synchronize();
    let (mut seconds, mut points) = (Duration::ZERO, Vec::new());
    let every = experiment.passes / 8.0;
    let mut next = every;
    loop {
        let started = Instant::now();
        oracle.begin_step();
        let step = match optimizer.step(&mut oracle, &mut parameters) {
            // The others are to be trained all the same.
            Err(error @ Error::Diverged { .. }) => {
                println!("  {}: {error}", entry.name);
                points.push((seconds.as_secs_f64(), f64::NAN));
                return Ok(Curve { points, steps: oracle.step() });
            }
            step => step?,
        };
        device.synchronize();
        seconds += started.elapsed();
        let is_over =
            step != optim::Step::Continue || oracle.data_passes() >= experiment.passes - 1e-9 || seconds > limit;
        if oracle.data_passes() >= next - 1e-9 || is_over {
            next = oracle.data_passes() + every;
            let found = measure(model, experiment.metric, optimizer.reported(&parameters))?;
            points.push((seconds.as_secs_f64(), found));
        }
        if is_over {
            device.check()?;
            return Ok(Curve { points, steps: oracle.step() });
        }
    }
}

/// Trains everything on all devices and prints what came of it; answers how many ends are no numbers, or differ by more than they
/// may after the same steps.
///
/// # Errors
/// If a device fails or an experiment file does not fit.
pub fn compare(devices: &[Device], share: f64, limit: Duration) -> Result<usize> {
    let mut failures = 0;
    for experiment in experiments(share)? {
        println!("\n{}, {} of the validation part", experiment.name, experiment.metric);
        println!(
            "{:<14}{:<26}{:<10}{:>8}{:>12}{:>10}  on the way",
            "optimizer", "model", "device", "steps", "ms a step", "end"
        );
        let file: toml::Table =
            experiment.text.parse().map_err(|error| Error::config(experiment.name, error, "mend the file"))?;
        for &(place, pick) in experiment.models {
            let table = tables(&file, "model")[place];
            for optimizer in tables(&file, "optimizer") {
                let mut ends = Vec::new();
                for device in devices {
                    device::make_current(device.clone());
                    let entry = model::registry().into_iter().find(|entry| entry.name == name(table));
                    let entry =
                        entry.ok_or_else(|| Error::config(experiment.name, "a model is not known", "mend the file"))?;
                    let settings = settings_of(experiment.name, entry.settings, table, pick)?;
                    let model = match &experiment.data {
                        Data::Table(data) => entry.build(data, &settings)?,
                        Data::Text(data) => entry.build(data, &settings)?,
                    };
                    let curve = train(&experiment, &*model, optimizer, limit)?;
                    let (seconds, end) = *curve.points.last().unwrap_or(&(0.0, f64::NAN));
                    let way: Vec<String> = curve.points.iter().map(|(s, v)| format!("{v:.4} {s:.2}s")).collect();
                    let short = device.name().split(' ').next().unwrap_or_default().to_owned();
                    println!(
                        "{:<14}{:<26}{:<10}{:>8}{:>12.3}{:>10.4}  {}",
                        name(optimizer),
                        label(table, pick),
                        short,
                        curve.steps,
                        1e3 * seconds / curve.steps.max(1) as f64,
                        end,
                        way.join(", ")
                    );
                    if !end.is_finite() {
                        failures += 1;
                        println!("  FAILS: no number at the end");
                    }
                    ends.push((curve.steps, end));
                }
                // Where time was over before the passes were, devices are not at the same point.
                let (steps, first) = ends[0];
                for (_, end) in ends.iter().filter(|(own, end)| *own == steps && end.is_finite()) {
                    let apart = (end - first).abs();
                    if apart > experiment.bound {
                        failures += 1;
                        println!("  FAILS: ends differ by {apart:.4}, beyond {}", experiment.bound);
                    }
                }
            }
        }
    }
    Ok(failures)
}

/// A model in words: its label, or its name with what was picked of a list.
fn label(table: &toml::Table, pick: usize) -> String {
    let picked = table.iter().find_map(|(key, value)| Some(format!("{key} = {}", value.as_array()?.get(pick)?)));
    let given = table.get("label").and_then(toml::Value::as_str).map(str::to_owned);
    given.or(picked).unwrap_or_else(|| name(table).to_owned())
}
