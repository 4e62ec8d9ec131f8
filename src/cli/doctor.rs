//! `doctor`: what this machine has and what is missing.

use super::{Format, output};
use crate::data::locate::{cache_dir, data_dirs};
use crate::device::cuda::probe;
use crate::device::cuda::probe::Found;
use crate::error::Result;
use crate::measure::environment::{Environment, available_threads};
use crate::workbench::Workbench;
use ndarray::{arr1, arr2};
use ndarray_linalg::Solve;
use serde::Serialize;
use std::fmt::Write as _;

const EXAMPLES: &str = "\
Examples:
  parsimony doctor
  parsimony doctor --format json";

/// Check processor, memory, linear algebra, GPU, data folders and cache
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    environment: Environment,
    /// Whether a small linear system is solved rightly.
    linear_algebra_works: bool,
    /// What was found of CUDA.
    cuda: Found,
    data_folders: Vec<Folder>,
    cache: Option<Folder>,
    datasets_present: Vec<String>,
    datasets_missing: Vec<String>,
}

#[derive(Serialize)]
struct Folder {
    path: String,
    exists: bool,
    writable: bool,
}

pub fn run(workbench: &Workbench, arguments: &Arguments) -> Result<()> {
    let of_state = |wanted: &[&str]| {
        let entries = workbench.datasets.iter().filter(|entry| wanted.contains(&super::list::state(entry)));
        entries.map(|entry| entry.name.clone()).collect()
    };
    let folder = |path: std::path::PathBuf| Folder {
        exists: path.is_dir(),
        writable: is_writable(&path),
        path: path.display().to_string(),
    };
    let report = Report {
        environment: Environment::gather(available_threads()),
        linear_algebra_works: linear_algebra_works(),
        cuda: probe(),
        data_folders: data_dirs().into_iter().map(folder).collect(),
        cache: cache_dir().map(folder),
        datasets_present: of_state(&["present", "generated here"]),
        datasets_missing: of_state(&["to fetch", "not found"]),
    };
    match arguments.format {
        Format::Json => output::json(&report),
        Format::Table => output::text(&text(&report)),
    }
}

/// Solves a system whose solution is known.
fn linear_algebra_works() -> bool {
    let matrix = arr2(&[[4.0_f64, 1.0], [1.0, 3.0]]);
    let solution = matrix.solve_into(arr1(&[1.0, 2.0]));
    solution.is_ok_and(|x| (x[0] - 1.0 / 11.0).abs() < 1e-14 && (x[1] - 7.0 / 11.0).abs() < 1e-14)
}

/// Whether a file can be made in the folder or, where it does not exist yet, in the nearest one above it.
fn is_writable(path: &std::path::Path) -> bool {
    let existing = path.ancestors().find(|path| path.is_dir());
    existing.is_some_and(|folder| tempfile::tempfile_in(folder).is_ok())
}

/// What was found of CUDA, line by line.
fn gpu_lines(found: &Found) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    for (number, gpu) in found.gpus.iter().enumerate() {
        let memory = gpu.memory_bytes as f64 / 1024_f64.powi(3);
        lines.push(("gpu", format!("cuda:{number}: {}, {}, {memory:.1} GiB", gpu.name, gpu.architecture)));
    }
    let driver =
        found.driver.as_ref().map_or_else(|| "no driver".to_owned(), |version| format!("driver for CUDA {version}"));
    let compiler =
        found.compiler.as_ref().map_or_else(|| "no libnvrtc".to_owned(), |version| format!("libnvrtc {version}"));
    let blas = if found.has_blas { "libcublas" } else { "no libcublas (own kernels multiply)" };
    lines.push((if lines.is_empty() { "gpu" } else { "" }, format!("{driver}, {compiler}, {blas}")));
    let usable = match &found.obstacle {
        Some(obstacle) => format!("no GPU can be used: {obstacle}"),
        None => "usable: --device cuda".to_owned(),
    };
    lines.push(("", usable));
    lines
}

fn text(report: &Report) -> String {
    let environment = &report.environment;
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<16}{value}");
    };
    let commit = environment.commit.as_ref().map(|commit| format!(", commit {commit}")).unwrap_or_default();
    line("program", format!("parsimony {}{commit}", environment.version));
    line("compiler", environment.compiler.clone().unwrap_or_else(|| "unknown".into()));
    line("system", environment.system.clone());
    line("processor", format!("{}, {} logical", environment.cpu, environment.logical_cpus));
    line("instructions", environment.instruction_sets.join(", "));
    line(
        "memory",
        environment
            .memory_bytes
            .map_or("unknown".into(), |bytes| format!("{:.1} GiB", bytes as f64 / 1024_f64.powi(3))),
    );
    let kernels =
        environment.blas_kernels.as_ref().map(|kernels| format!(", kernels for {kernels}")).unwrap_or_default();
    line("linear algebra", format!("{}{kernels}", environment.blas.as_deref().unwrap_or("not OpenBLAS")));
    let works =
        if report.linear_algebra_works { "solves a small system: right" } else { "solves a small system: WRONG" };
    line("", works.into());
    for (name, value) in gpu_lines(&report.cuda) {
        line(name, value);
    }
    for folder in &report.data_folders {
        line("data folder", format!("{}{}", folder.path, if folder.exists { "" } else { " (not there)" }));
    }
    match &report.cache {
        Some(cache) => {
            line("cache", format!("{}{}", cache.path, if cache.writable { ", writable" } else { ", NOT WRITABLE" }))
        }
        None => line("cache", "none: set PARSIMONY_CACHE_DIR or HOME".into()),
    }
    line("datasets", format!("present: {}", report.datasets_present.join(", ")));
    line("", format!("missing: {}", report.datasets_missing.join(", ")));
    text
}
