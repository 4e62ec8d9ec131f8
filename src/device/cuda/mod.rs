//! NVIDIA GPUs: kernels of our own, compiled on the machine that has one, and products by cuBLAS.
//!
//! Nothing of CUDA is needed to build: driver and libraries are looked for at run time. The kernels (`kernels/*.cu`) and the
//! host's side ([`Cuda`] over a [`Machine`]) are tested without a GPU by an emulation of the machine that runs the same source
//! on the CPU; `docs/cuda.md` says what that does and does not show.

mod arrays;
pub mod comparison;
pub mod compiler;
pub mod driver;
mod factorizations;
pub mod machine;
pub mod probe;
mod regression;
pub mod source;
mod tokens;

pub use arrays::Cuda;
pub use machine::Machine;
pub use probe::probe;

use crate::error::Result;
use std::path::Path;

/// What is said where there is no driver.
pub(crate) const NO_DRIVER: &str = "no NVIDIA driver was found (libcuda)";

impl Cuda {
    /// Opens GPU `ordinal`, counted from 0; kernels come from the cache folder or go there.
    ///
    /// # Errors
    /// Why it cannot be used, in words.
    pub fn open(ordinal: usize, cache: Option<&Path>) -> Result<Self> {
        Ok(Self::on(driver::Driver::open(ordinal, cache)?))
    }
}
