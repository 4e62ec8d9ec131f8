//! Where arrays live and numbers are crunched.
//!
//! Nothing in this room knows what a model, a dataset or an optimizer is: it offers matrices in panels, fused
//! passes over them, factorizations, and parallel loops whose results do not depend on the number of threads.

pub mod cpu;
pub mod panels;

pub use panels::{PANEL_ROWS, Panels};
