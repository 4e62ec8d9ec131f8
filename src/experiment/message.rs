//! What a cell's process tells the one that started it: a JSON object per line on its standard output.

use serde::{Deserialize, Serialize};
use std::io::Write;
use std::time::{Duration, Instant};

/// How far a cell is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Steps done.
    pub steps: u64,
    /// Data passes done.
    pub passes: f64,
    /// Seconds of training.
    pub seconds: f64,
    /// Name and value of the metric to show, at an evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<(String, f64)>,
}

/// Messages between evaluations come at most this often.
const INTERVAL: Duration = Duration::from_millis(200);

/// Sends messages.
#[derive(Debug)]
pub struct Sender {
    last: Instant,
    broken: bool,
}

impl Sender {
    /// A sender that has just sent.
    #[must_use]
    pub fn new() -> Self {
        Self { last: Instant::now(), broken: false }
    }

    /// Whether it is time for another message.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.last.elapsed() >= INTERVAL
    }

    /// Sends a message. Where nobody listens any more, the sender remembers that it is alone.
    pub fn send(&mut self, message: &Message) {
        self.last = Instant::now();
        let line = serde_json::to_string(message).unwrap_or_default();
        self.broken |= writeln!(std::io::stdout().lock(), "{line}").is_err();
    }

    /// Whether whoever started this process is gone.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.broken
    }
}

impl Default for Sender {
    fn default() -> Self {
        Self::new()
    }
}
