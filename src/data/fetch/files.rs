//! Small files written whole, recorded checksums, and what a disk refuses told in words.

use crate::error::{Error, Result};
use std::io::{self, ErrorKind};
use std::path::Path;

/// The digest in a file of the sha256sum program.
pub(super) fn read_record(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.split_whitespace().next().map(str::to_lowercase)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(disk_error(path, "read", error)),
    }
}

/// Writes a small file whole or not at all.
pub(super) fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let new = path.with_added_extension("new");
    std::fs::write(&new, bytes)
        .and_then(|()| std::fs::rename(&new, path))
        .map_err(|error| disk_error(path, "write", error))
}

/// An I/O error with the remedy for what commonly goes wrong with a disk.
pub(super) fn disk_error(path: &Path, action: &'static str, error: io::Error) -> Error {
    const ELSEWHERE: &str = "or name another folder in PARSIMONY_CACHE_DIR";
    let words = match error.kind() {
        ErrorKind::StorageFull => format!("the disk is full; free some space and run it again to go on, {ELSEWHERE}"),
        ErrorKind::QuotaExceeded => {
            format!("your quota on this disk is used up; free some space and run it again to go on, {ELSEWHERE}")
        }
        ErrorKind::PermissionDenied => format!("permission denied; change the permissions, {ELSEWHERE}"),
        ErrorKind::ReadOnlyFilesystem => format!("the file system is read-only; mount it otherwise, {ELSEWHERE}"),
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            format!("a file is where a folder must be; move it away, {ELSEWHERE}")
        }
        ErrorKind::IsADirectory => format!("a folder is where the file must be; move it away, {ELSEWHERE}"),
        _ => return Error::io(path, action)(error),
    };
    Error::io(path, action)(io::Error::new(error.kind(), words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_troubles_are_told_in_words() {
        for (kind, words) in [
            (ErrorKind::StorageFull, "the disk is full"),
            (ErrorKind::QuotaExceeded, "quota"),
            (ErrorKind::PermissionDenied, "permission denied"),
            (ErrorKind::ReadOnlyFilesystem, "read-only"),
        ] {
            let error = disk_error(Path::new("/data/x.part"), "write", kind.into());
            let text = error.to_string();
            assert!(text.contains("/data/x.part") && text.contains(words), "{text}");
            assert!(text.contains("PARSIMONY_CACHE_DIR"), "{text}");
            assert_eq!(error.exit_code(), 4);
        }
    }
}
