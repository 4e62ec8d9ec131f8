//! Every kernel of the GPU backend, run on the CPU from the same source and compared with the CPU's own operations.
//!
//! What this shows: the kernels' arithmetic, their edges, their barriers, and the host's side of every launch. What it does
//! not show: that a GPU agrees; `docs/cuda.md` has the command for a machine with one.

#[path = "kernels/machine.rs"]
mod machine;
#[path = "kernels/regressions.rs"]
mod regressions;

use machine::Emulation;
use parsimony::data::{Examples, Task};
use parsimony::device::cpu::Cpu;
use parsimony::device::cuda::comparison::{compare, table};
use parsimony::device::cuda::{Cuda, compiler, source};
use parsimony::device::{Backend, Job, Panels, use_backend};
use parsimony::model::transformer::config::{Config, FeedForward, Precision};
use parsimony::model::transformer::{HeldRows, TokenParts, TokenRows, Transformer, presets};
use parsimony::model::{self, Model, ModelData};
use parsimony::optim::{self, minimize};
use parsimony::oracle::{Curvature, Gradient, Problem, Rows, SettingValue, Settings, Stream, stream};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const COLUMNS: usize = 300;

/// The device of a process is one: tests that build models hold this, and begin on the CPU.
fn one_device() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    let guard = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    use_backend(Cpu::default());
    guard
}

#[test]
fn every_kernel_agrees_with_the_cpu() {
    let Some(emulation) = Emulation::new(0) else { return };
    for (machine, rounds) in [(emulation.clone(), 8), (emulation.clone().with_library(), 4)] {
        let rows = compare(&Cpu::default(), &Cuda::on(machine), rounds, COLUMNS);
        let (text, failures) = table(&rows);
        println!("{text}");
        assert_eq!(failures, 0, "operations beyond their bounds:\n{text}");
    }
    let seen = emulation.seen.lock().unwrap();
    assert!(seen.violations.is_empty(), "{:?}", seen.violations);
    let all: BTreeSet<&str> = source::kernels().into_iter().collect();
    let missing: Vec<_> = all.difference(&seen.kernels).collect();
    assert!(missing.is_empty(), "kernels that no comparison runs: {missing:?}");
}

/// A barrier that is missing lets a thread read what another has not written yet, in one order or another.
#[test]
fn results_do_not_depend_on_the_order_of_threads() {
    let on = |turns| Emulation::new(turns).map(Cuda::on);
    let (Some(forwards), Some(backwards), Some(strides)) = (on(0), on(1), on(2)) else { return };
    for other in [backwards, strides] {
        for row in compare(&forwards, &other, 2, COLUMNS) {
            assert!(row.error == 0.0, "{} depends on the order of threads: {}", row.operation, row.error);
        }
    }
}

#[test]
fn a_full_memory_is_an_error_in_words_and_nothing_is_made_up() {
    let Some(emulation) = Emulation::new(0) else { return };
    let device = Cuda::on(emulation.with_limit(4 * 1000));
    let small = device.zeros(500);
    assert_eq!(device.download(small.view(0, 1, 500)), vec![0.0; 500]);
    assert!(device.check().is_ok());
    let large = device.zeros(2000);
    assert!(device.download(small.view(0, 1, 500)).iter().all(|v| v.is_nan()), "numbers after a fault");
    assert!(device.dot(&small, &small, 0..500).is_nan());
    assert!(device.download(large.view(0, 1, large.len())).iter().all(|v| v.is_nan()));
    let job = Job { rows: 10, width: 1, sum: 0, parameters: 0 };
    let error = device.for_blocks(job, &mut device.zeros(0), &|_, _, _, _| Ok(0.0)).unwrap_err();
    assert!(error.to_string().contains("memory is full: 8000 bytes"), "{error}");
    assert_eq!(device.peak_bytes(), Some(4 * 500));
}

/// NVIDIA's own compiler with its assembler, for the A100's and the H100's architecture.
#[test]
fn nvrtc_compiles_every_kernel() {
    let Some((major, minor)) = compiler::version() else {
        assert!(std::env::var_os("PARSIMONY_REQUIRE_NVRTC").is_none(), "libnvrtc was not found; see scripts/nvrtc.sh");
        eprintln!("skipped: no libnvrtc on the library path; scripts/nvrtc.sh brings one");
        return;
    };
    for architecture in [80, 90] {
        let code = compiler::compile(architecture).unwrap();
        // Machine code is an ELF file; it names every kernel.
        assert_eq!(&code[..4], b"\x7fELF", "sm_{architecture}");
        for kernel in source::kernels() {
            let is_there = code.windows(kernel.len()).any(|bytes| bytes == kernel.as_bytes());
            assert!(is_there, "{kernel} is not in the code for sm_{architecture}");
        }
        println!("NVRTC {major}.{minor}: sm_{architecture}, {} kernels, {} bytes", source::kernels().len(), code.len());
    }
}

fn data(rows: usize, columns: usize, classes: usize) -> ModelData {
    let wave = |r: usize, c: usize| (1.0 + 3.0 * r as f64 + 7.0 * c as f64).sin() as f32;
    let features = Panels::from_fn(rows, columns, wave);
    let targets = Panels::from_fn(rows, 1, |r, _| ((r * r + r / 2) % classes) as f32);
    let part = || Examples { features: features.clone(), targets: targets.clone(), range: 0..rows };
    ModelData {
        train: part(),
        validation: part(),
        test: part(),
        task: Task::Classes((0..classes).map(|c| format!("c{c}")).collect()),
        columns: (0..columns).map(|c| format!("x{c}")).collect(),
    }
}

fn network(data: &ModelData, activation: &str) -> Box<dyn Model> {
    let entry = model::registry().into_iter().find(|entry| entry.name == "mlp").unwrap();
    let given: BTreeMap<String, SettingValue> = [("hidden", "7-5"), ("activation", activation)]
        .map(|(key, word)| (key.to_owned(), SettingValue::Word(word.into())))
        .into();
    entry.build(data, &Settings::check("test", entry.settings, &given).unwrap()).unwrap()
}

/// Names, bounds, and value, gradient and a Gauss-Newton product of small Transformers, dense and with experts, where they start.
fn transformers() -> Vec<(String, f64, [Vec<f64>; 3])> {
    let micro = |name: &str, feed_forward| Config {
        vocabulary: 11,
        d_model: 12,
        d_kv: 4,
        heads: 3,
        d_ff: 20,
        feed_forward,
        ..presets::find(name).unwrap().config
    };
    // Two choices with little room, losses of the router, all sequences routed together.
    let mut routed = micro("micro-switch", FeedForward::Relu);
    let switch = routed.switch.as_mut().unwrap();
    (switch.top_k, switch.capacity_factor, switch.auxiliary_weight, switch.z_weight) = (2, 0.8, 0.02, 0.01);
    let with = |precision, config: Config| Config { precision, ..config };
    let (single, selective, half) = (Precision::Single, Precision::Selective, Precision::Half);
    let configs = [
        micro("micro-decoder", FeedForward::Gelu),
        micro("micro-switch", FeedForward::Relu),
        micro("micro-encoder-decoder", FeedForward::Geglu),
        routed.clone(),
        with(selective, micro("micro-decoder", FeedForward::Gelu)),
        with(selective, routed),
        with(half, micro("micro-encoder-decoder", FeedForward::Geglu)),
        with(half, micro("micro-switch", FeedForward::Relu)),
    ];
    let mut held = HeldRows { context: 9, ..HeldRows::default() };
    for i in 0..5 * 9 {
        // The last tokens of every second sequence are padding.
        let is_padding = (i / 9) % 2 == 1 && i % 9 > 5;
        let symbol = |i: usize| if is_padding { u32::MAX } else { ((i % 7 + i * i % 3) % 11) as u32 };
        held.tokens.push(symbol(i));
        held.next.push(symbol(i + 1));
    }
    let of = |config: Config| {
        let rows: Arc<dyn TokenRows> = Arc::new(held.clone());
        let parts = TokenParts { train: rows.clone(), evaluation: [rows.clone(), rows.clone(), rows] };
        let together = if config.switch.is_some_and(|switch| switch.top_k > 1) { 45 } else { 0 };
        // A sum that falls to the other side of a rounding to bf16 is another number from there on.
        let bound = if config.precision == single { 1e-4 } else { 1e-2 };
        let name = format!("transformer, {:?} precision, experts: {}", config.precision, config.switch.is_some());
        let model = Transformer::new(config, 9, together, parts).unwrap();
        let at = model.initial(&mut stream(5, Stream::Initialization));
        let (mut gradient, mut product) = (at.zeros_like(), at.zeros_like());
        let value = Gradient::value_and_gradient(&model, &at, Rows::All, &mut gradient).unwrap().value;
        let matrix = Curvature::curvature_at(&model, &at, Rows::All).unwrap().value;
        matrix.multiply(&gradient, &mut product).unwrap();
        (name, bound, [vec![value], gradient.to_host(), product.to_host()])
    };
    configs.into_iter().map(of).collect()
}

/// A few steps of every optimizer that can train a network end where they end on the CPU: the whole of the host's side.
#[test]
fn every_optimizer_trains_a_network_as_on_the_cpu() {
    let Some(emulation) = Emulation::new(0) else { return };
    let _one = one_device();
    let data = data(301, 5, 3);
    let start = |model: &dyn Model| {
        let mut reached = BTreeMap::new();
        for entry in optim::registry() {
            let settings = Settings::check("test", entry.settings, &BTreeMap::new()).unwrap();
            if entry.needs_with(&settings).into_iter().any(|need| model.offers(need).is_err()) {
                continue;
            }
            let problem: &dyn Problem = model;
            let fit = minimize(&entry, &settings, problem, 1, 3).unwrap();
            let objective = model.objective(&fit.parameters).unwrap().0;
            reached.insert(entry.name, (objective, fit.parameters.to_host()));
        }
        reached
    };
    let all = || ["relu", "gelu"].map(|activation| start(&*network(&data, activation)));
    let (on_cpu, transformers) = (all(), transformers());
    use_backend(Cuda::on(emulation.clone()));
    let on_gpu = all();
    for ((name, bound, cpu), (_, _, gpu)) in transformers.iter().zip(&self::transformers()) {
        for (what, (cpu, gpu)) in ["value", "gradient", "product"].into_iter().zip(cpu.iter().zip(gpu)) {
            let norm = cpu.iter().map(|v| v * v).sum::<f64>().sqrt();
            let gap = cpu.iter().zip(gpu).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt() / norm;
            println!("{name}, {what}: differs by {gap:.1e}");
            assert!(gap < *bound, "{name}: {what} differs by {gap}");
        }
    }
    for (cpu, gpu) in on_cpu.iter().zip(&on_gpu) {
        assert!(cpu.len() >= 8 && cpu.len() == gpu.len(), "optimizers: {:?}", cpu.keys());
        for (name, (objective, parameters)) in cpu {
            let (found, at) = &gpu[name];
            let norm = parameters.iter().map(|p| p * p).sum::<f64>().sqrt();
            let gap = parameters.iter().zip(at).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt() / norm;
            println!("{name}: objective {objective:.7} and {found:.7}, parameters differ by {gap:.1e}");
            // SOAP's first steps have the same size in every direction of its basis, also where the gradient is rounding.
            let bound = if *name == "soap" { 2e-2 } else { 1e-3 };
            let is_near = (objective - found).abs() < 1e-4 * objective.abs() && gap < bound;
            assert!(is_near, "{name}: {objective} {found} {gap}");
        }
    }
    let seen = emulation.seen.lock().unwrap();
    assert!(seen.violations.is_empty(), "{:?}", seen.violations);
}
