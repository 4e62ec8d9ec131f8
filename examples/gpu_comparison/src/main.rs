//! Parsimony's GPU backend beside its CPU's: every operation, every model, and experiments trained on both. Says what is missing where there
//! is no GPU.

mod models;
mod training;

use clap::{Parser, ValueEnum};
use parsimony::Result;
use parsimony::device::cpu::Cpu;
use parsimony::device::cuda::{Cuda, comparison, probe};
use parsimony::device::{Backend, Device};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Compares the GPU backend with the CPU's: operations, models, training; prints tables.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// What is compared.
    #[arg(long, value_enum, default_values_t = [Part::Operations, Part::Models, Part::Training])]
    part: Vec<Part>,
    /// How often every operation runs, each time with other sizes.
    #[arg(long, default_value_t = 20, value_name = "COUNT")]
    rounds: u64,
    /// Columns of an operation's matrices at most.
    #[arg(long, default_value_t = 3000, value_name = "COUNT")]
    columns: usize,
    /// The GPU, counted from 0.
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    gpu: usize,
    /// Rows of the data that is trained on, as a share of their full number.
    #[arg(long, default_value_t = 1.0, value_name = "SHARE")]
    rows: f64,
    /// Seconds that a training takes at most.
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    seconds: u64,
    /// Train on the CPU alone; needs no GPU.
    #[arg(long)]
    cpu: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Every operation of the backend.
    Operations,
    /// Every model: its answers, and where optimizers take it.
    Models,
    /// Models of three experiments, trained by their optimizers.
    Training,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(1)
        }
    }
}

/// Answers how many comparisons were beyond their bounds.
fn run(options: &Options) -> Result<usize> {
    let limit = Duration::from_secs(options.seconds);
    if options.cpu {
        return training::compare(&[Device::new(Cpu::default())], options.rows, limit);
    }
    let found = probe();
    if let Some(obstacle) = found.obstacle {
        println!("skipped: no GPU can be used: {obstacle}");
        return Ok(0);
    }
    let cache = std::env::var_os("PARSIMONY_CACHE_DIR").map(PathBuf::from);
    let started = Instant::now();
    let gpu = Cuda::open(options.gpu, cache.as_deref())?;
    let cpu = Cpu::default();
    println!("{} beside {}; kernels ready in {:.1} s", gpu.name(), cpu.name(), started.elapsed().as_secs_f64());
    if !found.has_blas {
        println!("libcublas was not found: products are those of our own kernels");
    }
    let (cpu, gpu) = (Device::new(cpu), Device::new(gpu));
    let mut failures = 0;
    let mut tell = |what: &str, rows: &[comparison::Row]| {
        let (table, beyond) = comparison::table(rows);
        println!("{table}{} {what}, {beyond} beyond their bounds\n", rows.len());
        failures += beyond;
    };
    if options.part.contains(&Part::Operations) {
        tell("operations", &comparison::compare(&*cpu, &*gpu, options.rounds, options.columns));
        gpu.check()?;
    }
    if options.part.contains(&Part::Models) {
        tell("outputs of models", &models::compare(&cpu, &gpu)?);
    }
    if options.part.contains(&Part::Training) {
        failures += training::compare(&[cpu, gpu], options.rows, limit)?;
    }
    Ok(failures)
}
