//! Ctrl-C while a file is being written: the work ends with [`Error::Interrupted`], so that what is partial is removed.
//!
//! Only the verbs that install this notice it. A cell's process does not: there, an import into the cache goes on, and
//! the interruption ends the training after it.

use crate::error::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on, an interruption is noticed at the next [`check`] instead of ending the process at once. Where the
/// system refuses a handler, it ends the process as before.
#[cfg(feature = "workbench")]
pub(crate) fn install() {
    let _ = ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed));
}

/// # Errors
/// [`Error::Interrupted`] once the user has asked to stop.
pub(super) fn check() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
}
