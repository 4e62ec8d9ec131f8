//! Compares every operation of the GPU backend with the CPU's and prints a table; says what is missing where there is no GPU.
//!
//! `gpu_comparison [ROUNDS] [COLUMNS] [GPU]`: how often every operation runs (default 20), up to how many columns (3,000), on
//! which GPU (0).

use parsimony::device::Backend;
use parsimony::device::cpu::Cpu;
use parsimony::device::cuda::{Cuda, comparison, probe};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let mut number = |default| arguments.next().map_or(Ok(default), |argument| argument);
    let (Ok(rounds), Ok(columns), Ok(ordinal)) = (number(20), number(3000), number(0)) else {
        eprintln!("usage: gpu_comparison [ROUNDS] [COLUMNS] [GPU], all whole numbers");
        return ExitCode::from(2);
    };
    let found = probe();
    if let Some(obstacle) = found.obstacle {
        println!("skipped: no GPU can be used: {obstacle}");
        return ExitCode::SUCCESS;
    }
    let cache = std::env::var_os("PARSIMONY_CACHE_DIR").map(PathBuf::from);
    let started = Instant::now();
    let gpu = match Cuda::open(ordinal, cache.as_deref()) {
        Ok(gpu) => gpu,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(1);
        }
    };
    let cpu = Cpu::default();
    println!("{} beside {}; kernels ready in {:.1} s", gpu.name(), cpu.name(), started.elapsed().as_secs_f64());
    if !found.has_blas {
        println!("libcublas was not found: products are those of our own kernels");
    }
    let rows = comparison::compare(&cpu, &gpu, rounds as u64, columns);
    let (table, failures) = comparison::table(&rows);
    println!("{table}");
    if let Err(error) = gpu.check() {
        eprintln!("error: {error}");
        return ExitCode::from(1);
    }
    println!("{} operations, {failures} beyond their bounds", rows.len());
    ExitCode::from(u8::from(failures > 0))
}
