//! Transformers with dense and Switch feed-forward layers.

pub mod config;
pub mod presets;
