//! Every kernel of the GPU backend, run on the CPU from the same source and compared with the CPU's own operations.
//!
//! What this shows: the kernels' arithmetic, their edges, their barriers, and the host's side of every launch. What it does
//! not show: that a GPU agrees; `docs/cuda.md` has the command for a machine with one.

#[path = "kernels/machine.rs"]
mod machine;
#[path = "../examples/gpu_comparison/src/models.rs"]
mod models;
#[path = "kernels/regressions.rs"]
mod regressions;

use machine::Emulation;
use parsimony::device::cpu::Cpu;
use parsimony::device::cuda::comparison::{compare, relative_error, table};
use parsimony::device::cuda::{Cuda, compiler, source};
use parsimony::device::{Backend, Device, Job, use_backend};
use parsimony::oracle::{Problem, Rows, Stream, Vector, stream};
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

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

/// Inverses of a batch are exactly symmetric; a matrix without a factor is the host's error, wherever in a batch it is.
#[test]
fn a_matrix_that_is_not_positive_definite_is_the_hosts_error() {
    let Some(emulation) = Emulation::new(0) else { return };
    let (host, device) = (Cpu::default(), Cuda::on(emulation.clone()));
    let on = |device: &dyn Backend, wrong: &[(usize, f32)]| {
        let placed = |n: usize| {
            let mut array = device.zeros(n * n);
            let mut values: Vec<f32> = (0..n * n).map(|i| 0.1 / (1 + (i / n).abs_diff(i % n)) as f32).collect();
            values.iter_mut().step_by(n + 1).for_each(|v| *v += 1.0);
            wrong.iter().filter(|&&(size, _)| size == n).for_each(|&(_, value)| values[(n - 1) * (n + 1)] = value);
            device.upload(array.view_mut(0, n, n), &values);
            array
        };
        let arrays = [40, 7, 70].map(|n| (n, placed(n)));
        let views = arrays.each_ref().map(|(n, array)| (array.view(0, *n, *n), 0.25));
        let inverses = device.inverses(&views).map_err(|error| error.to_string())?;
        Ok::<_, String>(inverses.iter().map(|array| device.download(array.view(0, 1, array.len()))).collect::<Vec<_>>())
    };
    for (n, inverse) in [40, 7, 70].into_iter().zip(on(&device, &[]).unwrap()) {
        assert!((0..n).all(|i| (0..i).all(|j| inverse[i * n + j] == inverse[j * n + i])), "{n} x {n}");
    }
    for wrong in [&[(70, -0.3)][..], &[(7, f32::NAN)], &[(70, f32::INFINITY), (40, f32::NEG_INFINITY)]] {
        let (expected, found) = (on(&host, wrong).unwrap_err(), on(&device, wrong).unwrap_err());
        assert!(expected.contains("is not positive definite") && expected == found, "{expected}; {found}");
    }
    // A machine that failed is not a matrix's fault.
    let full = Cuda::on(emulation.with_limit(4 * (40 * 40 + 7 * 7 + 70 * 70)));
    assert!(on(&full, &[]).unwrap_err().contains("memory is full"));
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

/// Every model's answers, and where a few steps of every optimizer that can train it end: the whole of the host's side.
#[test]
fn every_model_agrees_with_the_cpu_and_every_optimizer_trains_it() {
    let Some(emulation) = Emulation::new(0) else { return };
    let _one = one_device();
    let (cpu, gpu) = (Device::new(Cpu::default()), Device::new(Cuda::on(emulation.clone())));
    let rows = models::compare(&cpu, &gpu).unwrap();
    let (text, failures) = table(&rows);
    println!("{text}");
    assert_eq!(failures, 0, "models beyond their bounds:\n{text}");
    let steps = rows.iter().filter(|row| row.operation.contains(" steps of ")).count();
    assert!(steps >= 60, "{steps} fits were compared");
    let seen = emulation.seen.lock().unwrap();
    assert!(seen.violations.is_empty(), "{:?}", seen.violations);
}

/// Experts are products of segments: what is launched and waited for is the same for three experts and for forty.
#[test]
fn a_switch_layer_is_launched_at_once_however_many_its_experts() {
    let Some(emulation) = Emulation::new(0) else { return };
    let _one = one_device();
    use_backend(Cuda::on(emulation.clone()));
    let counted = [3, 40].map(|experts| {
        let model = (models::of_experts(330, experts, 0.05).build)().unwrap();
        let at = model.initial(&mut stream(1, Stream::Initialization));
        let mut gradient = at.zeros_like();
        let problem: &dyn Problem = &*model;
        let before = counts(&emulation);
        problem.gradient().unwrap().value_and_gradient(&at, Rows::All, &mut gradient).unwrap();
        let after = counts(&emulation);
        [after[0] - before[0], after[1] - before[1]]
    });
    println!("launches and waits of a gradient with 3 and 40 experts: {counted:?}");
    assert_eq!(counted[0], counted[1]);
    assert!(counted[0][0] < 60 && counted[0][1] <= 4, "{counted:?}");
}

/// More rows than a block holds: shares of experts are known ahead, sums go on from block to block, the last is shorter.
#[test]
fn a_switch_layer_of_several_blocks_agrees_with_the_cpu() {
    let Some(emulation) = Emulation::new(0) else { return };
    let _one = one_device();
    let mut at = Vec::new();
    let mut answers = || {
        let model = (models::of_experts(11_000, 3, 0.05).build)().unwrap();
        let problem: &dyn Problem = &*model;
        if at.is_empty() {
            at = model.initial(&mut stream(1, Stream::Initialization)).to_host();
        }
        let at = Vector::from_values(model.layout(), at.clone()).unwrap();
        let (mut gradient, mut product) = (at.zeros_like(), at.zeros_like());
        let value = problem.gradient().unwrap().value_and_gradient(&at, Rows::All, &mut gradient).unwrap().value;
        let matrix = problem.curvature().unwrap().curvature_at(&at, Rows::All).unwrap().value;
        matrix.multiply(&gradient, &mut product).unwrap();
        [vec![value], gradient.to_host(), product.to_host()]
    };
    let on_cpu = answers();
    use_backend(Cuda::on(emulation.clone()));
    let on_gpu = answers();
    use_backend(Cpu::default());
    for (cpu, gpu) in on_cpu.iter().zip(&on_gpu) {
        let error = relative_error(cpu, gpu);
        assert!(error < 1e-5, "differs by {error}");
    }
    assert!(emulation.seen.lock().unwrap().violations.is_empty());
}

/// Launches and waits so far.
fn counts(emulation: &Emulation) -> [usize; 2] {
    let seen = emulation.seen.lock().unwrap();
    [seen.launches, seen.waits]
}
