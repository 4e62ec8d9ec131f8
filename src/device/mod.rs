//! Where arrays live and numbers are crunched.
//!
//! Nothing in this room knows what a model, a dataset or an optimizer is: it offers matrices in panels, fused
//! passes over them, arrays with the operations of networks, factorizations, and parallel loops whose results do not
//! depend on the number of threads.

pub mod array;
mod backend;
mod choice;
pub mod cpu;
pub mod cuda;
mod matrix;
pub mod panels;
mod regression;
mod tokens;

pub use array::{Array, Ids};
pub use backend::{Activation, AdamStep, Backend, BlockBody, Device, Job, Loss, Table};
pub use choice::{DeviceName, DeviceWish, current, make_current, use_backend, use_device};
pub use cpu::design::Selection;
pub use matrix::Matrix;
pub use panels::{PANEL_ROWS, Panels};
pub use regression::{Regression, RowCurvature};
pub use tokens::{Attention, AttentionInputs, Factors, FeedForward, Matrices, NO_ROW, Noise, Routes, Segment, Tokens};
