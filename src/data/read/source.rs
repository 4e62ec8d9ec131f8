//! The bytes of a file, decompressed where they are gzip, counted and hashed on the way, in blocks of whole lines.
//!
//! Files are read rather than mapped: a file that is cut short while it is read is then an error and not a signal, and
//! the memory in use is a few blocks, whatever the size of the file.

use crate::error::{DataError, Error, Result};
use flate2::bufread::GzDecoder;
use memchr::{memchr, memchr2_iter, memrchr};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of text that are parsed at a time.
const BLOCK: usize = 1 << 20;
/// A line (or a quoted field) that is longer than this is taken for damage.
const LONGEST_LINE: usize = 64 << 20;
/// Bytes read at the start to recognize format and layout.
const HEAD: usize = 1 << 18;

/// What some editors write before the first character of a UTF-8 file.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A file whose raw bytes are hashed and counted as they pass.
struct Tally {
    file: File,
    digest: Sha256,
    passed: Arc<AtomicU64>,
}

impl Read for Tally {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.digest.update(&buffer[..n]);
        self.passed.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

enum Stream {
    Plain(Tally),
    Gzip(Box<Gzip>),
}

/// Gzip members one after another; zeros behind one, with which tapes and some copies are padded, are passed over.
struct Gzip {
    /// Always there but while one member gives way to the next.
    member: Option<GzDecoder<BufReader<Tally>>>,
    ended: bool,
}

impl Gzip {
    fn new(tally: Tally) -> Self {
        Self { member: Some(GzDecoder::new(BufReader::with_capacity(HEAD, tally))), ended: false }
    }
}

impl Read for Gzip {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = self.member.as_mut().filter(|_| !self.ended && !buffer.is_empty()) {
            let n = member.read(buffer)?;
            if n > 0 {
                return Ok(n);
            }
            let raw = member.get_mut();
            loop {
                let bytes = raw.fill_buf()?;
                let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
                self.ended = bytes.is_empty();
                let more = zeros > 0 && zeros == bytes.len();
                raw.consume(zeros);
                if !more {
                    break;
                }
            }
            if !self.ended {
                self.member = self.member.take().map(|member| GzDecoder::new(member.into_inner()));
            }
        }
        Ok(0)
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Gzip(stream) => stream.read(buffer),
        }
    }
}

/// An open data file.
pub(super) struct Source {
    path: PathBuf,
    stream: Stream,
    /// Bytes read and not yet handed out.
    pending: Vec<u8>,
    at_end: bool,
    gzip: bool,
    /// Raw (compressed) bytes in the file, and how many were read.
    size: u64,
    passed: Arc<AtomicU64>,
    /// Decompressed bytes read so far: where damage is found.
    position: u64,
}

impl Source {
    /// Opens a file and reads its first bytes.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let (mut file, size) = open_file(path)?;
        let mut magic = [0; 2];
        let gzip = size >= 2 && file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
        io::Seek::rewind(&mut file).map_err(Error::io(path, "read"))?;
        let passed = Arc::new(AtomicU64::new(0));
        let tally = Tally { file, digest: Sha256::new(), passed: Arc::clone(&passed) };
        let stream = if gzip { Stream::Gzip(Box::new(Gzip::new(tally))) } else { Stream::Plain(tally) };
        let (path, pending) = (path.to_owned(), Vec::new());
        let mut source = Self { path, stream, pending, at_end: false, gzip, size, passed, position: 0 };
        source.fill(HEAD)?;
        if source.pending.is_empty() {
            return Err(DataError::new(&source.path, "the file is empty", "a data file is needed here").into());
        }
        Ok(source)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file is compressed.
    pub(super) fn is_gzip(&self) -> bool {
        self.gzip
    }

    /// The first bytes, decompressed: everything that was read and not handed out yet.
    pub(super) fn head(&self) -> &[u8] {
        &self.pending
    }

    /// Reads on until the head holds `lines` lines or everything there is, and returns those that are complete.
    pub(super) fn head_lines(&mut self, lines: usize) -> Result<&[u8]> {
        let enough = |head: &[u8]| memchr::memchr_iter(b'\n', head).take(lines).count() == lines;
        while !self.at_end && self.pending.len() < LONGEST_LINE && !enough(&self.pending) {
            self.fill(self.pending.len() * 2)?;
        }
        if self.at_end {
            return Ok(&self.pending);
        }
        match memrchr(b'\n', &self.pending) {
            Some(newline) => Ok(&self.pending[..=newline]),
            None => Err(endless_line(&self.path, self.position)),
        }
    }

    /// Drops the first `bytes` of the head.
    pub(super) fn skip(&mut self, bytes: usize) {
        self.pending.drain(..bytes);
    }

    /// Drops a byte-order mark, which some editors write before the first character.
    pub(super) fn skip_mark(&mut self) {
        if self.pending.starts_with(BYTE_ORDER_MARK) {
            self.skip(BYTE_ORDER_MARK.len());
        }
    }

    /// Bytes in the file as it lies on the disk.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// A counter of the raw bytes read, and the file's size.
    pub(super) fn progress(&self) -> (Arc<AtomicU64>, u64) {
        (Arc::clone(&self.passed), self.size)
    }

    /// The next block: whole lines, the file's last one perhaps without its newline. With `quotes`, newlines inside
    /// double quotes do not end a line.
    pub(super) fn next_block(&mut self, quotes: bool) -> Result<Option<Vec<u8>>> {
        let mut wanted = BLOCK;
        loop {
            self.fill(wanted)?;
            if self.at_end {
                let rest = std::mem::take(&mut self.pending);
                return Ok((!rest.is_empty()).then_some(rest));
            }
            if let Some(newline) = last_line_end(&self.pending, quotes) {
                let rest = self.pending.split_off(newline + 1);
                return Ok(Some(std::mem::replace(&mut self.pending, rest)));
            }
            if self.pending.len() >= LONGEST_LINE {
                return Err(endless_line(&self.path, self.position));
            }
            wanted = self.pending.len() * 2;
        }
    }

    /// Everything that is left, at most `limit` bytes.
    pub(super) fn read_rest(&mut self, limit: usize) -> Result<Vec<u8>> {
        self.fill(limit)?;
        Ok(std::mem::take(&mut self.pending))
    }

    /// SHA-256 of the whole file, in hexadecimal; reads what was not read yet.
    pub(super) fn finish(self) -> Result<String> {
        let path = self.path;
        let tally = match self.stream {
            Stream::Plain(tally) => Some(tally),
            Stream::Gzip(gzip) => gzip.member.map(|member| member.into_inner().into_inner()),
        };
        let Some(mut tally) = tally else {
            let error = io::Error::other("the decompression was broken off");
            return Err(Error::io(&path, "read")(error));
        };
        io::copy(&mut tally, &mut io::sink()).map_err(Error::io(&path, "read"))?;
        Ok(hex(&tally.digest.finalize()))
    }

    /// Reads until `pending` holds `wanted` bytes or the file ends. Room is made as bytes come, whatever is wanted:
    /// a number in a damaged header asks for no memory.
    fn fill(&mut self, wanted: usize) -> Result<()> {
        while !self.at_end && self.pending.len() < wanted {
            let step = (wanted - self.pending.len()).min(BLOCK);
            let before = self.pending.len();
            self.pending.try_reserve(step).map_err(|_| {
                let finding = format!("no memory is left for more than its first {before} bytes");
                DataError::new(&self.path, finding, "use a machine with more memory, or a smaller file")
            })?;
            let result = Read::by_ref(&mut self.stream).take(step as u64).read_to_end(&mut self.pending);
            // What came before an error counts: it says where the damage is.
            let read = self.pending.len() - before;
            self.position += read as u64;
            match result {
                Ok(_) => self.at_end = read < step,
                Err(error) if self.gzip => return Err(damaged_gzip(&self.path, self.position, &error)),
                Err(error) => return Err(Error::io(&self.path, "read")(error)),
            }
        }
        Ok(())
    }
}

/// Opens a regular file for reading, with a message for each way in which that fails; gives its size.
pub(in crate::data) fn open_file(path: &Path) -> Result<(File, u64)> {
    let file = File::open(path).map_err(|error| cannot_open(path, &error))?;
    let metadata = file.metadata().map_err(Error::io(path, "read"))?;
    if metadata.is_dir() {
        let finding = "this is a folder, and one file is needed";
        return Err(DataError::new(path, finding, folder_remedy(path)).into());
    }
    Ok((file, metadata.len()))
}

fn cannot_open(path: &Path, error: &io::Error) -> Error {
    let (finding, remedy) = match error.kind() {
        io::ErrorKind::NotFound => (
            "there is no such file",
            "check the path; `parsimony data list` shows the datasets known by name".to_owned(),
        ),
        io::ErrorKind::PermissionDenied => (
            "no permission to read the file",
            format!("allow it with: chmod u+r '{}' (and x on its folders), or ask its owner", path.display()),
        ),
        _ => return Error::io(path, "open")(io::Error::new(error.kind(), error.to_string())),
    };
    DataError::new(path, finding, remedy).into()
}

fn folder_remedy(path: &Path) -> String {
    let mut names: Vec<String> = std::fs::read_dir(path)
        .map(|entries| entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect())
        .unwrap_or_default();
    names.sort();
    names.truncate(5);
    if names.is_empty() {
        "the folder is empty".into()
    } else {
        format!("name a file in it, such as {}", names.join(", "))
    }
}

fn endless_line(path: &Path, position: u64) -> Error {
    DataError::new(
        path,
        format!("no line ends within the {} MiB before byte {position}", LONGEST_LINE >> 20),
        "close the quoted field that runs on, or force the format if this is not a text table",
    )
    .into()
}

fn damaged_gzip(path: &Path, position: u64, error: &io::Error) -> Error {
    let finding = if error.kind() == io::ErrorKind::UnexpectedEof {
        format!("the gzip data end too early, after {position} decompressed bytes: the file is truncated")
    } else {
        format!("the gzip data are damaged after {position} decompressed bytes ({error})")
    };
    DataError::new(path, finding, "fetch or copy the file again").into()
}

/// The last newline that ends a line.
fn last_line_end(text: &[u8], quotes: bool) -> Option<usize> {
    if !quotes || memchr(b'"', text).is_none() {
        return memrchr(b'\n', text);
    }
    let (mut inside, mut last) = (false, None);
    for at in memchr2_iter(b'"', b'\n', text) {
        if text[at] == b'"' {
            inside = !inside;
        } else if !inside {
            last = Some(at);
        }
    }
    last
}

/// Bytes in hexadecimal.
pub(in crate::data) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_outside_quotes() {
        assert_eq!(last_line_end(b"a,b\nc,\"d\ne", true), Some(3));
        assert_eq!(last_line_end(b"a,b\nc,\"d\ne", false), Some(8));
        assert_eq!(last_line_end(b"a,\"\"\"b\n\"\nc", true), Some(8));
        assert_eq!(last_line_end(b"abc", true), None);
    }

    #[test]
    fn a_refused_file_is_named_with_a_remedy() {
        let denied = cannot_open(Path::new("x.csv"), &io::Error::from(io::ErrorKind::PermissionDenied));
        assert_eq!(denied.exit_code(), 3);
        assert!(
            denied.to_string().contains("x.csv: no permission to read the file\n  allow it with: chmod u+r 'x.csv'")
        );
    }
}
