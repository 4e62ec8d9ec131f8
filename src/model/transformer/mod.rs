//! Transformers with dense and Switch feed-forward layers.

pub mod accounting;
pub mod config;
pub mod presets;
