//! Where datasets lie on this machine: the folder named by the user, then the cache that downloads go to.
//!
//! `PARSIMONY_DATA_DIR` names a folder with files such as `higgs/higgs-35k.csv.gz` or `mnist/...`; the cache is
//! `$PARSIMONY_CACHE_DIR`, else `$XDG_CACHE_HOME/parsimony`, else `~/.cache/parsimony`.

use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The folder that downloads and imported stores go to; `None` where neither variable nor a home folder is set.
#[must_use]
pub fn cache_dir() -> Option<PathBuf> {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("PARSIMONY_CACHE_DIR")
        .or_else(|| variable("XDG_CACHE_HOME").map(|dir| dir.join("parsimony")))
        .or_else(|| variable("HOME").map(|dir| dir.join(".cache").join("parsimony")))
}

/// The folders in which datasets are looked for, in order: `PARSIMONY_DATA_DIR`, then the cache.
#[must_use]
pub fn data_dirs() -> Vec<PathBuf> {
    let named = env::var_os("PARSIMONY_DATA_DIR").filter(|value| !value.is_empty()).map(PathBuf::from);
    named.into_iter().chain(cache_dir()).collect()
}

/// The first of [`data_dirs`] that holds `relative`, joined with it.
#[must_use]
pub fn find(relative: impl AsRef<Path>) -> Option<PathBuf> {
    data_dirs().into_iter().map(|dir| dir.join(relative.as_ref())).find(|path| path.exists())
}

/// For tests on real files: the file below `PARSIMONY_DATA_DIR`, or `None` after a line that says the test is skipped.
///
/// # Panics
/// If the file is missing although `PARSIMONY_REQUIRE_DATA=1` says that it must not be.
#[must_use]
pub fn test_file(relative: &str) -> Option<PathBuf> {
    let named = env::var_os("PARSIMONY_DATA_DIR").filter(|value| !value.is_empty());
    let found = named.map(|dir| PathBuf::from(dir).join(relative)).filter(|path| path.exists());
    if found.is_none() {
        let required = env::var_os("PARSIMONY_REQUIRE_DATA").is_some_and(|value| value == "1");
        assert!(!required, "{relative} not found; set PARSIMONY_DATA_DIR (PARSIMONY_REQUIRE_DATA=1 forbids skipping)");
        // Straight to standard error: the test harness keeps what passing tests print to itself.
        let _ = writeln!(std::io::stderr(), "skipped: {relative} not found; set PARSIMONY_DATA_DIR");
    }
    found
}
