//! The machine and the program, as far as they bear on a measurement: recorded beside every cell.

use serde::{Deserialize, Serialize};
use std::ffi::{CStr, c_char, c_int};
use std::fs;

/// Machine, threads, libraries and versions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// The processor's name.
    pub cpu: String,
    /// Logical processors that this process may use.
    pub logical_cpus: usize,
    /// The instruction sets that kernels choose from and that this processor has.
    pub instruction_sets: Vec<String>,
    /// Bytes of main memory.
    pub memory_bytes: Option<u64>,
    /// Operating system and kernel.
    pub system: String,
    /// Threads that the cell was given.
    pub threads: usize,
    /// The linear algebra library as it describes itself.
    pub blas: Option<String>,
    /// The kernels it chose for this processor.
    pub blas_kernels: Option<String>,
    /// Threads of the linear algebra library.
    pub blas_threads: Option<usize>,
    /// The GPU that the cell's model lives on, if one does.
    #[serde(default)]
    pub gpu: Option<String>,
    /// The program's version.
    pub version: String,
    /// The commit it was built from, where that was known.
    pub commit: Option<String>,
    /// The compiler it was built with.
    pub compiler: Option<String>,
}

impl Environment {
    /// Looks around.
    #[must_use]
    pub fn gather(threads: usize) -> Self {
        let (blas, blas_kernels, blas_threads) = openblas();
        Self {
            cpu: cpu_name(),
            logical_cpus: available_threads(),
            instruction_sets: instruction_sets(),
            memory_bytes: memory_bytes(),
            system: system(),
            threads,
            blas,
            blas_kernels,
            blas_threads,
            gpu: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: option_env!("PARSIMONY_COMMIT").map(str::to_owned),
            compiler: option_env!("PARSIMONY_COMPILER").map(str::to_owned),
        }
    }
}

/// Logical processors that this process may use.
#[must_use]
pub fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn first_field(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn cpu_name() -> String {
    first_field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

fn memory_bytes() -> Option<u64> {
    let field = first_field("/proc/meminfo", "MemTotal")?;
    Some(field.strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn system() -> String {
    let name = fs::read_to_string("/etc/os-release").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
        Some(line.trim_matches('"').to_owned())
    });
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned());
    let name = name.unwrap_or_else(|| std::env::consts::OS.to_owned());
    kernel.map_or_else(|_| name.clone(), |kernel| format!("{name}, kernel {kernel}"))
}

#[cfg(target_arch = "x86_64")]
fn instruction_sets() -> Vec<String> {
    let found = [
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
        ("avx", is_x86_feature_detected!("avx")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
    ];
    found.into_iter().filter(|(_, has)| *has).map(|(name, _)| name.to_owned()).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn instruction_sets() -> Vec<String> {
    Vec::new()
}

/// What OpenBLAS says about itself: its build, the kernels it chose and its number of threads. Nothing where another
/// library provides the linear algebra.
fn openblas() -> (Option<String>, Option<String>, Option<usize>) {
    let text = |name: &CStr| {
        let symbol = symbol(name)?;
        // SAFETY: the symbol, where it exists, is OpenBLAS's function of this name, which takes nothing and returns a
        // static string or null (openblas `cblas.h`).
        let answer = unsafe { std::mem::transmute::<*mut libc::c_void, extern "C" fn() -> *const c_char>(symbol)() };
        // SAFETY: a static string ended by a zero, as said.
        (!answer.is_null()).then(|| unsafe { CStr::from_ptr(answer) }.to_string_lossy().trim().to_owned())
    };
    let threads = symbol(c"openblas_get_num_threads").map(|symbol| {
        // SAFETY: as above; this one returns an int.
        unsafe { std::mem::transmute::<*mut libc::c_void, extern "C" fn() -> c_int>(symbol)() }
    });
    (text(c"openblas_get_config"), text(c"openblas_get_corename"), threads.and_then(|n| usize::try_from(n).ok()))
}

fn symbol(name: &CStr) -> Option<*mut libc::c_void> {
    // SAFETY: `dlsym` looks a name up among the loaded libraries and changes nothing.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!symbol.is_null()).then_some(symbol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_described() {
        let environment = Environment::gather(2);
        assert!(!environment.cpu.is_empty() && environment.logical_cpus >= 1);
        assert_eq!(environment.threads, 2);
    }
}
