//! Plain text for language models: UTF-8, gzipped or not, the byte-order mark left out.
//!
//! The text is held in memory rather than mapped: a file that another program changes cannot change a text that was
//! found to be UTF-8.

use super::source::Source;
use crate::error::{DataError, Result};
use std::path::Path;
use std::sync::Arc;

/// A text; cloning shares it.
#[derive(Clone)]
pub struct Corpus {
    /// The registered name or the path it was read from.
    pub name: String,
    /// SHA-256 of the file's bytes, in hexadecimal.
    pub fingerprint: String,
    text: Arc<String>,
}

impl Corpus {
    /// The text as bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
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
/// [`DataError`] if the file cannot be opened, is empty, does not fit into memory, or is not UTF-8, with the line at
/// which that shows.
pub fn read_text(path: &Path) -> Result<Corpus> {
    let mut source = Source::open(path)?;
    source.skip_mark();
    let bytes = source.read_rest(usize::MAX)?;
    let fingerprint = source.finish()?;
    if bytes.is_empty() {
        return Err(DataError::new(path, "the text is empty", "give a file with some text").into());
    }
    let text = String::from_utf8(bytes).map_err(|error| not_utf8(path, error.as_bytes(), &error.utf8_error()))?;
    Ok(Corpus { name: path.display().to_string(), fingerprint, text: Arc::new(text) })
}

fn not_utf8(path: &Path, bytes: &[u8], error: &std::str::Utf8Error) -> DataError {
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
    DataError::new(path, finding, remedy).at_line(line)
}
