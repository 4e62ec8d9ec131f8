//! Plain text for language models: UTF-8, the byte-order mark left out, of any size.
//!
//! A file is mapped, checked once from end to end, and its pages are left to the system afterwards; a gzipped one is held in
//! memory. Whoever takes characters from it checks them again, so that a file which another program changes gives wrong
//! characters at worst; as with a store, it must not be cut while it is in use.

use super::source::{BYTE_ORDER_MARK, Source, hex, open_file};
use crate::error::{DataError, Error, Result};
use memmap2::{Mmap, UncheckedAdvice};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;

/// Files beyond this size do not stay in memory because they were looked through once.
const LARGE: usize = 64 << 20;

/// A text; cloning shares it.
#[derive(Clone)]
pub struct Text {
    /// The registered name or the path it was read from.
    pub name: String,
    /// SHA-256 of the file's bytes, in hexadecimal.
    pub fingerprint: String,
    content: Content,
}

#[derive(Clone)]
enum Content {
    /// A file and where its text begins.
    Mapped(Arc<Mmap>, usize),
    Held(Arc<Vec<u8>>),
}

impl Text {
    /// The text as bytes of UTF-8, without the byte-order mark.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match &self.content {
            Content::Mapped(map, start) => &map[*start..],
            Content::Held(bytes) => bytes,
        }
    }

    /// Gives the pages of a large mapped file back to the system; what is read again comes in again.
    pub(in crate::data) fn release(&self) {
        if let Content::Mapped(map, _) = &self.content
            && map.len() > LARGE
        {
            // SAFETY: the map is of a file and read-only: pages that are given back hold nothing that the file does not.
            // Where the system refuses, they merely stay.
            let _ = unsafe { map.unchecked_advise(UncheckedAdvice::DontNeed) };
        }
    }

    /// A text that is held in memory.
    #[must_use]
    pub fn held(name: &str, text: &str) -> Self {
        let content = Content::Held(Arc::new(text.as_bytes().to_vec()));
        Self { name: name.to_owned(), fingerprint: hex(&Sha256::digest(text)), content }
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Text({}, {} bytes)", self.name, self.bytes().len())
    }
}

/// Opens a text file, gzipped or not.
///
/// # Errors
/// [`DataError`] if the file cannot be opened, is empty, does not fit into memory where it is gzipped, or is not UTF-8, with
/// the line at which that shows and the first wrong byte, counted from 0 in the file (of a gzipped one, in the text).
pub fn read_text(path: &Path) -> Result<Text> {
    let (file, length) = open_file(path)?;
    let empty = || Error::from(DataError::new(path, "the text is empty", "give a file with some text"));
    if length == 0 {
        return Err(empty());
    }
    // SAFETY: the map is read-only, and no character of it is taken without a check. It must not be cut while it is in use,
    // as any mapped file.
    let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path, "map"))?;
    let (content, fingerprint, start) = if map.starts_with(b"\x1f\x8b") {
        let mut source = Source::open(path)?;
        source.skip_mark();
        let bytes = source.read_rest(usize::MAX)?;
        (Content::Held(Arc::new(bytes)), source.finish()?, 0)
    } else {
        let start = if map.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        let fingerprint = hex(&Sha256::digest(&map[..]));
        (Content::Mapped(Arc::new(map), start), fingerprint, start)
    };
    let text = Text { name: path.display().to_string(), fingerprint, content };
    if text.bytes().is_empty() {
        return Err(empty());
    }
    match std::str::from_utf8(text.bytes()) {
        Ok(_) => Ok(text),
        Err(error) => Err(not_utf8(path, text.bytes(), start, error.valid_up_to()).into()),
    }
}

/// The complaint about the byte `at` of a text that begins at `start` of its file.
fn not_utf8(path: &Path, bytes: &[u8], start: usize, at: usize) -> DataError {
    let line = 1 + memchr::memchr_iter(b'\n', &bytes[..at]).count() as u64;
    let (finding, remedy) = if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        ("the text is UTF-16".to_owned(), "convert it: iconv -f UTF-16 -t UTF-8")
    } else {
        (
            format!("byte {} (0x{:02x}) is not UTF-8", start + at, bytes[at]),
            "convert the text, for example: iconv -f ISO-8859-1 -t UTF-8",
        )
    };
    DataError::new(path, finding, remedy).at_line(line)
}
