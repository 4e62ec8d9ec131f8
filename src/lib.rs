//! Parsimony: a workbench that measures how much accuracy an optimizer buys, per second and per parameter.
//!
//! The rooms, from top to bottom; a room uses those below it and never those above:
//! `cli`, then [`report`] and [`experiment`], then [`claim`], [`optim`], [`model`], [`data`] and [`measure`], then
//! [`oracle`], then [`device`].

#[cfg(feature = "workbench")]
pub mod claim;
#[cfg(feature = "workbench")]
mod cli;
pub mod data;
pub mod device;
mod error;
#[cfg(feature = "workbench")]
pub mod experiment;
pub mod measure;
pub mod model;
pub mod optim;
pub mod oracle;
#[cfg(feature = "workbench")]
pub mod report;
#[cfg(feature = "workbench")]
mod workbench;

#[cfg(not(any(feature = "lapack", feature = "faer")))]
compile_error!("factorizations need one of the features `lapack` and `faer`");

pub use error::{DataError, Error, Result};
#[cfg(feature = "workbench")]
pub use workbench::Workbench;
