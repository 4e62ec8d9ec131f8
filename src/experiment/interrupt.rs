//! Ctrl-C (and a request to terminate), noticed and counted; whoever works looks at the count between two steps.

use crate::error::{Error, Result};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

static COUNT: AtomicUsize = AtomicUsize::new(0);
static INSTALLED: OnceLock<Option<String>> = OnceLock::new();

/// From now on, interruptions are counted instead of ending the process.
///
/// # Errors
/// [`Error::Numeric`] if the system refuses a handler.
pub fn install() -> Result<()> {
    let count = || {
        COUNT.fetch_add(1, Ordering::SeqCst);
    };
    match INSTALLED.get_or_init(|| ctrlc::set_handler(count).err().map(|error| error.to_string())) {
        Some(error) => Err(Error::Numeric(format!("Ctrl-C cannot be handled: {error}"))),
        None => Ok(()),
    }
}

/// How often the user has asked to stop.
#[must_use]
pub fn count() -> usize {
    COUNT.load(Ordering::SeqCst)
}
