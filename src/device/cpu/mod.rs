//! Number crunching on the CPU: vector instructions chosen at run time, sums that do not depend on the thread count.

mod arrays;
pub(super) mod buffer;
pub mod curvature;
pub mod design;
mod elementwise;
pub mod glm;
mod gram;
pub mod leverage;
pub mod linalg;
mod losses;
pub mod mixture;
pub mod moments;
mod parallel;
mod products;
mod proximal;
mod real;
mod regression;
pub mod residuals;
mod tokens;

pub use arrays::Cpu;
pub use parallel::{chunk_ranges, map_chunks, on_worker};
pub use real::Real;

/// The instruction set that the kernels run with, in words.
#[must_use]
pub fn instruction_set() -> String {
    format!("{:?}", pulp::Arch::new()).split('(').next().unwrap_or_default().to_owned()
}
