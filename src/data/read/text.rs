//! Plain text for language models: UTF-8, mapped where the file is not compressed, the byte-order mark left out.

use super::delimited::BYTE_ORDER_MARK;
use super::source::{Source, hex, open_file};
use crate::error::{DataError, Error, Result};
use memmap2::Mmap;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;

/// A text.
#[derive(Clone)]
pub struct Corpus {
    /// The registered name or the path it was read from.
    pub name: String,
    /// SHA-256 of the file's bytes, in hexadecimal.
    pub fingerprint: String,
    bytes: Bytes,
    /// Where the text starts: after a byte-order mark.
    start: usize,
}

#[derive(Clone)]
enum Bytes {
    Owned(Arc<Vec<u8>>),
    Mapped(Arc<Mmap>),
}

impl Corpus {
    /// The text as bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let bytes: &[u8] = match &self.bytes {
            Bytes::Owned(bytes) => bytes,
            Bytes::Mapped(map) => map,
        };
        &bytes[self.start..]
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        // SAFETY: `read_text` has checked that the bytes are UTF-8, and they do not change: they are owned, or mapped
        // read-only from a file that, as for every map, must not be modified while it is in use.
        unsafe { std::str::from_utf8_unchecked(self.bytes()) }
    }
}

impl std::fmt::Debug for Corpus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Corpus({}, {} bytes)", self.name, self.bytes().len())
    }
}

/// Reads a text file, gzipped or not.
///
/// # Errors
/// [`DataError`] if the file cannot be opened, is empty, or is not UTF-8, with the line at which that shows.
pub fn read_text(path: &Path) -> Result<Corpus> {
    let mut source = Source::open(path)?;
    let (bytes, fingerprint) = if source.is_gzip() {
        let bytes = source.read_rest(usize::MAX)?;
        (Bytes::Owned(Arc::new(bytes)), source.finish()?)
    } else {
        let (file, _) = open_file(path)?;
        // SAFETY: the map is read-only and the file is not expected to change while it is in use.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path, "map"))?;
        let fingerprint = hex(&Sha256::digest(&map));
        (Bytes::Mapped(Arc::new(map)), fingerprint)
    };
    let mut corpus = Corpus { name: path.display().to_string(), fingerprint, bytes, start: 0 };
    if corpus.bytes().starts_with(BYTE_ORDER_MARK) {
        corpus.start = BYTE_ORDER_MARK.len();
    }
    if corpus.bytes().is_empty() {
        return Err(DataError::new(path, "the text is empty", "give a file with some text").into());
    }
    check_utf8(path, corpus.bytes())?;
    Ok(corpus)
}

fn check_utf8(path: &Path, bytes: &[u8]) -> Result<()> {
    let Err(error) = std::str::from_utf8(bytes) else { return Ok(()) };
    let at = error.valid_up_to();
    let line = 1 + memchr::memchr_iter(b'\n', &bytes[..at]).count() as u64;
    let (finding, remedy) = if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        ("the text is UTF-16".to_owned(), "convert it: iconv -f UTF-16 -t UTF-8")
    } else {
        (
            format!("byte {at} (0x{:02x}) is not UTF-8", bytes[at]),
            "convert the text, for example: iconv -f ISO-8859-1 -t UTF-8",
        )
    };
    Err(DataError::new(path, finding, remedy).at_line(line).into())
}
