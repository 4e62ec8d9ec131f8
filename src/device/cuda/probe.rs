//! What of CUDA is on this machine, found without opening a GPU.

use super::compiler;
use cudarc::cublas::sys as blas_sys;
use cudarc::driver::{result, sys};
use serde::{Deserialize, Serialize};

/// What was found of CUDA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The newest CUDA version that the driver knows, if there is a driver.
    pub driver: Option<String>,
    /// The GPUs in the driver's order.
    pub gpus: Vec<Gpu>,
    /// Version of the compiler for kernels, if it is there.
    pub compiler: Option<String>,
    /// Whether the library for matrix products is there; own kernels multiply without it.
    pub has_blas: bool,
    /// Why no GPU can be used, if so.
    pub obstacle: Option<String>,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its name.
    pub name: String,
    /// Its architecture, `sm_90`.
    pub architecture: String,
    /// Bytes of its memory.
    pub memory_bytes: u64,
}

/// Looks for the driver, its GPUs and the libraries.
#[must_use]
pub fn probe() -> Found {
    let compiler = compiler::version().map(|(major, minor)| format!("{major}.{minor}"));
    // SAFETY: only looks for the library.
    let has_blas = unsafe { blas_sys::is_culib_present() };
    let (driver, gpus) = match gpus() {
        Ok(found) => found,
        Err(obstacle) => {
            return Found { driver: None, gpus: Vec::new(), compiler, has_blas, obstacle: Some(obstacle) };
        }
    };
    let obstacle = if gpus.is_empty() {
        Some("the driver finds no GPU".to_owned())
    } else if compiler.is_none() {
        Some("libnvrtc, which compiles the kernels, was not found".to_owned())
    } else {
        None
    };
    Found { driver: Some(driver), gpus, compiler, has_blas, obstacle }
}

/// The driver's version and its GPUs, or why there are none.
fn gpus() -> Result<(String, Vec<Gpu>), String> {
    // SAFETY: only looks for the library.
    if !unsafe { sys::is_culib_present() } {
        return Err(super::NO_DRIVER.to_owned());
    }
    let words = |error: result::DriverError| format!("the NVIDIA driver does not start: {:?}", error.0);
    result::init().map_err(words)?;
    let mut version = 0;
    // SAFETY: the library is there and the place is valid.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().map_err(words)?;
    let gpu = |ordinal| -> Result<Gpu, result::DriverError> {
        let device = result::device::get(ordinal)?;
        // SAFETY: the device was just found.
        unsafe {
            let of = |attribute| result::device::get_attribute(device, attribute);
            let major = of(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
            let minor = of(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
            let memory_bytes = result::device::total_mem(device)? as u64;
            Ok(Gpu {
                name: result::device::get_name(device)?,
                architecture: format!("sm_{major}{minor}"),
                memory_bytes,
            })
        }
    };
    let count = result::device::get_count().map_err(words)?;
    let gpus = (0..count).map(gpu).collect::<Result<_, _>>().map_err(words)?;
    Ok((format!("{}.{}", version / 1000, version % 1000 / 10), gpus))
}
