//! Every kernel of the GPU backend, run on the CPU from the same source and compared with the CPU's own operations.
//!
//! What this shows: the kernels' arithmetic, their edges, their barriers, and the host's side of every launch. What it does
//! not show: that a GPU agrees; `docs/cuda.md` has the command for a machine with one.

#[path = "kernels/machine.rs"]
mod machine;

use machine::Emulation;
use parsimony::device::cpu::Cpu;
use parsimony::device::cuda::comparison::{compare, table};
use parsimony::device::cuda::{Cuda, source};
use parsimony::device::{Backend, Job};
use std::collections::BTreeSet;

const COLUMNS: usize = 300;

#[test]
fn every_kernel_agrees_with_the_cpu() {
    let Some(emulation) = Emulation::new(0) else { return };
    let device = Cuda::on(emulation.clone());
    let rows = compare(&Cpu::default(), &device, 8, COLUMNS);
    let (text, failures) = table(&rows);
    println!("{text}");
    assert_eq!(failures, 0, "operations beyond their bounds:\n{text}");
    drop(device);
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
