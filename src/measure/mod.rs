//! What is measured: the clock, metrics of predictions, memory and the machine.

pub mod clock;
pub mod compression;
pub mod distribution;
pub mod environment;
pub mod memory;
pub mod metrics;
