//! What a download reports while it runs: a trait, so that the library itself is silent, and a terminal line for it.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::sync::Mutex;

/// A stretch of work whose bytes are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Bytes come in from the network.
    Download,
    /// The checksum is computed.
    Check,
    /// A member is extracted from an archive.
    Extract,
}

/// Receives the progress of a fetch. Stages do not overlap.
pub trait Progress: Sync {
    /// A stage begins with `done` of `total` bytes already there (after a resumed download); `None`: size unknown.
    fn begin(&self, stage: Stage, name: &str, done: u64, total: Option<u64>);
    /// So many more bytes are done.
    fn advance(&self, bytes: u64);
    /// Something a person may want to know: a retry, a new beginning, a recorded checksum.
    fn note(&self, message: &str);
    /// The stage is over, successfully or not.
    fn end(&self);
}

/// Reports nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: Stage, _: &str, _: u64, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
    fn note(&self, _: &str) {}
    fn end(&self) {}
}

const KNOWN: &str = "{prefix} {wide_bar} {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left";
const UNKNOWN: &str = "{prefix} {spinner} {decimal_bytes}  {decimal_bytes_per_sec}";

/// A line on standard error with a bar, the rate and the time left; off a terminal only the notes are printed.
#[derive(Debug, Default)]
pub struct ProgressLine {
    bar: Mutex<Option<ProgressBar>>,
}

impl ProgressLine {
    fn with_bar(&self, action: impl FnOnce(&ProgressBar)) {
        // A poisoned lock means that another thread panicked while drawing: the bar itself is still sound.
        if let Some(bar) = self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner).as_ref() {
            action(bar);
        }
    }

    fn replace(&self, bar: Option<ProgressBar>) {
        let mut current = self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(old) = current.take() {
            old.finish_and_clear();
        }
        *current = bar;
    }
}

impl Progress for ProgressLine {
    fn begin(&self, stage: Stage, name: &str, done: u64, total: Option<u64>) {
        let verb = match stage {
            Stage::Download => "fetching",
            Stage::Check => "checking",
            Stage::Extract => "extracting",
        };
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr())
            .with_prefix(format!("{verb} {name}"))
            .with_position(done);
        // Both templates are constants that a test parses; the default style is the fallback, not a panic.
        if let Ok(style) = ProgressStyle::with_template(if total.is_some() { KNOWN } else { UNKNOWN }) {
            bar.set_style(style);
        }
        // What was there before must not count into the rate.
        bar.reset_eta();
        self.replace(Some(bar));
    }

    fn advance(&self, bytes: u64) {
        self.with_bar(|bar| bar.inc(bytes));
    }

    fn note(&self, message: &str) {
        let bar = self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        match bar {
            Some(bar) => bar.suspend(|| eprintln!("{message}")),
            None => eprintln!("{message}"),
        }
    }

    fn end(&self) {
        self.replace(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_templates_are_valid() {
        for template in [KNOWN, UNKNOWN] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn a_line_survives_any_order_of_calls() {
        let line = ProgressLine::default();
        line.end();
        line.advance(1);
        line.begin(Stage::Download, "x", 5, Some(3));
        line.advance(9);
        line.begin(Stage::Check, "x", 0, None);
        line.end();
        line.end();
    }
}
