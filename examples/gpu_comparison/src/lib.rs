//! The device room of parsimony by itself: the same files, compiled without the rest of the program.

#[path = "../../../src/device/mod.rs"]
pub mod device;
#[path = "../../../src/error.rs"]
pub mod error;
