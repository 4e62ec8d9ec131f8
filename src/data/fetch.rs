//! Downloads the files of a registered dataset: resumable, checked, and in place only once they are whole and right.
//!
//! A file `NAME` is received as `NAME.part`, with `NAME.part.toml` beside it (which address, which version). A part is
//! continued by a range request (RFC 9110, section 14) that is conditional on the server's validator (`If-Range`);
//! whenever the server cannot continue it, or offers another version, the download starts anew. A whole part is checked
//! against the registered size and SHA-256, or against the SHA-256 recorded in `NAME.sha256` at the first download, and
//! only then renamed to `NAME`. A part that fails the check is deleted; a part that is merely incomplete is kept, after
//! an error as after Ctrl-C or a kill.

mod answer;
mod files;
mod progress;
mod zip_member;

pub use progress::{Progress, ProgressLine, Silent, Stage};

use crate::data::registry::{DataFile, DatasetEntry, ZipMember, readable_bytes};
use crate::error::{DataError, Error, Result};
use answer::{PartState, Trouble, content_length, content_range, content_range_total, refusal, trouble};
use files::{disk_error, read_record, replace_file};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use ureq::http::{StatusCode, header};
use zip_member::ZipError;

/// Bytes read, written or hashed at a time.
const CHUNK: usize = 1 << 17;
/// An attempt that brings at least this much resets the count of retries.
const WORTHWHILE: u64 = 1 << 16;
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How to fetch.
#[derive(Clone, Copy)]
pub struct FetchOptions<'a> {
    /// The data directory to fill; folders within it are made as needed.
    pub directory: &'a Path,
    /// A mirror laid out as a data directory is, asked instead of the registered addresses: `BASE/PATH`, and
    /// `BASE/archives/NAME.zip` for archives.
    pub base_url: Option<&'a str>,
    /// Attempts in a row that bring nothing new before an address is given up.
    pub retries: u32,
    /// Pause before the first retry; doubled before each further one up to a minute.
    pub backoff: Duration,
    /// The longest wait for a connection, for an answer, and for each next piece of it.
    pub timeout: Duration,
    /// Told what happens.
    pub progress: &'a dyn Progress,
    /// Once true, the fetch ends with [`Error::Interrupted`] and keeps the part received.
    pub interrupt: Option<&'a AtomicBool>,
}

impl<'a> FetchOptions<'a> {
    /// The defaults: registered addresses, 5 retries from 1 second on, 30 seconds' patience, silent.
    #[must_use]
    pub fn new(directory: &'a Path) -> Self {
        Self {
            directory,
            base_url: None,
            retries: 5,
            backoff: Duration::from_secs(1),
            timeout: Duration::from_secs(30),
            progress: &Silent,
            interrupt: None,
        }
    }

    fn check_interrupt(&self) -> Result<()> {
        match self.interrupt {
            Some(flag) if flag.load(Ordering::Relaxed) => Err(Error::Interrupted),
            _ => Ok(()),
        }
    }

    fn sleep(&self, pause: Duration) -> Result<()> {
        let end = Instant::now() + pause;
        loop {
            self.check_interrupt()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}

/// Fetches all files of a dataset and returns their paths in the order of [`DatasetEntry::files`].
///
/// # Errors
/// [`Error::Config`] where the dataset cannot be downloaded; otherwise as [`fetch`].
pub fn fetch_all(entry: &DatasetEntry, options: &FetchOptions) -> Result<Vec<PathBuf>> {
    if entry.files.is_empty() {
        let remedy = format!("`parsimony data generate {}` makes it", entry.name);
        return Err(Error::config(format_args!("dataset `{}`", entry.name), "it is generated, not downloaded", remedy));
    }
    entry.files.iter().map(|file| fetch(entry, file, options)).collect()
}

/// Fetches one file of a dataset and returns its path. A file that is there already is checked instead.
///
/// # Errors
/// [`Error::Config`] where it has no address; [`Error::Network`] where no address served it, with what each answered;
/// [`Error::Data`] where the file in place is not the registered one; [`Error::Io`] where the disk refuses;
/// [`Error::Interrupted`].
pub fn fetch(entry: &DatasetEntry, file: &DataFile, options: &FetchOptions) -> Result<PathBuf> {
    let Some(first) = file.urls.first() else {
        let how = entry.how_made.as_deref().unwrap_or("no address is registered for it");
        let remedy = format!("{how}\n  Put the file at {}.", options.directory.join(&file.path).display());
        return Err(Error::config(format_args!("dataset `{}`", entry.name), "it cannot be downloaded", remedy));
    };
    let downloaded = match &file.zip_member {
        None => file.path.clone(),
        Some(_) => format!("archives/{}", first.rsplit('/').next().unwrap_or(first)),
    };
    let urls = match options.base_url {
        Some(base) => vec![format!("{}/{downloaded}", base.trim_end_matches('/'))],
        None => file.urls.clone(),
    };
    let (bytes, sha256) = (file.bytes, file.sha256.clone());
    let item = Item::new(urls, options.directory.join(downloaded), Pin { bytes, sha256 }, options);
    let Some(member) = &file.zip_member else { return item.obtain() };

    let pin = Pin { bytes: member.bytes, sha256: member.sha256.clone() };
    let target = Item::new(Vec::new(), options.directory.join(&file.path), pin, options);
    let _lock = target.lock()?;
    if !target.present()? {
        let archive = item.obtain()?;
        target.extract(&archive, member)?;
    }
    Ok(target.path)
}

/// The SHA-256 in `NAME.sha256` beside a file, where its first download recorded one.
///
/// # Errors
/// [`Error::Io`] where the record cannot be read.
pub fn recorded_sha256(path: &Path) -> Result<Option<String>> {
    read_record(&path.with_added_extension("sha256"))
}

/// The size and the SHA-256 that a file must have, where known.
struct Pin {
    bytes: Option<u64>,
    sha256: Option<String>,
}

/// One file to be had.
struct Item<'a> {
    urls: Vec<String>,
    path: PathBuf,
    name: String,
    pin: Pin,
    options: &'a FetchOptions<'a>,
}

impl<'a> Item<'a> {
    fn new(urls: Vec<String>, path: PathBuf, pin: Pin, options: &'a FetchOptions<'a>) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { urls, path, name, pin, options }
    }

    /// A file beside it.
    fn beside(&self, suffix: &str) -> PathBuf {
        self.path.with_file_name(format!("{}{suffix}", self.name))
    }

    fn part(&self) -> PathBuf {
        self.beside(".part")
    }

    fn note(&self, message: impl AsRef<str>) {
        self.options.progress.note(&format!("{}: {}", self.name, message.as_ref()));
    }

    /// Makes the folder and holds the lock that keeps a second fetch of this file out until the handle is dropped.
    fn lock(&self) -> Result<File> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|error| disk_error(folder, "create", error))?;
        // The lock file stays: deleting it would let two processes hold locks on two files of one name.
        let path = self.path.with_file_name(format!(".{}.lock", self.name));
        let file = File::create(&path).map_err(|error| disk_error(&path, "create", error))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let busy = io::Error::new(ErrorKind::WouldBlock, "another fetch of it is under way: wait for its end");
                Err(Error::io(&self.path, "fetch")(busy))
            }
            // Some network file systems know no locks: going on without is better than not at all.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
        }
    }

    /// The path of the file, once it is there and right.
    fn obtain(self) -> Result<PathBuf> {
        let _lock = self.lock()?;
        if self.present()? {
            return Ok(self.path);
        }
        let mut failures = Vec::new();
        let mut offline = true;
        for url in &self.urls {
            match self.download(url) {
                Ok(()) => {
                    self.install(&self.part())?;
                    let _ = std::fs::remove_file(self.beside(".part.toml"));
                    return Ok(self.path);
                }
                Err(Trouble::Stop(error)) => return Err(error),
                Err(Trouble::Offline(finding)) => failures.push(finding),
                Err(Trouble::Refused(finding) | Trouble::Passing(finding, _)) => {
                    offline = false;
                    failures.push(finding);
                }
            }
            self.note(format!("{url}: {}", failures.last().map_or("", String::as_str)));
        }
        Err(self.network_error(&failures, offline))
    }

    fn network_error(&self, failures: &[String], offline: bool) -> Error {
        let others = self.urls.iter().zip(failures).skip(1).map(|(url, finding)| format!("\n  {url}: {finding}"));
        let finding = failures.first().cloned().unwrap_or_default() + &others.collect::<String>();
        let received = std::fs::metadata(self.part()).map_or(0, |metadata| metadata.len());
        let by_hand = format!("fetch it elsewhere and put the file at {}", self.path.display());
        let remedy = match (offline, received) {
            (true, _) => format!("this machine seems to be offline: connect it, or {by_hand}"),
            (false, 0) => format!("try again later, or {by_hand}"),
            (false, _) => {
                format!("run it again to go on from the {} received, or {by_hand}", readable_bytes(received))
            }
        };
        Error::Network { url: self.urls.first().cloned().unwrap_or_default(), finding, remedy }
    }

    /// Whether the file is in place; an error if it is there and not the registered one.
    fn present(&self) -> Result<bool> {
        match self.path.metadata() {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(disk_error(&self.path, "look at", error)),
        }
        if let Err(finding) = self.check(&self.path)? {
            let remedy = "it is not the registered file: move or delete it, then fetch again";
            return Err(DataError::new(&self.path, finding, remedy).into());
        }
        Ok(true)
    }

    /// Compares a whole file with the pinned or recorded checksum; records it where there is none. The inner error is
    /// the finding on a mismatch.
    fn check(&self, path: &Path) -> Result<Result<(), String>> {
        let metadata = path.metadata().map_err(|error| disk_error(path, "look at", error))?;
        if let Some(bytes) = self.pin.bytes.filter(|bytes| *bytes != metadata.len()) {
            return Ok(Err(format!("it has {} bytes where {bytes} are registered", metadata.len())));
        }
        let digest = self.sha256(path, metadata.len())?;
        let record = self.beside(".sha256");
        let (expected, source) = match &self.pin.sha256 {
            Some(pinned) => (Some(pinned.clone()), "is registered".to_owned()),
            None => (read_record(&record)?, format!("was recorded in {} at its first download", record.display())),
        };
        match expected {
            Some(expected) if expected != digest => {
                Ok(Err(format!("its SHA-256 is {digest} where {expected} {source}")))
            }
            Some(_) => Ok(Ok(())),
            None => {
                // In the format of the sha256sum program, which can then check it as well.
                replace_file(&record, format!("{digest}  {}\n", self.name).as_bytes())?;
                self.note(format!(
                    "no checksum is registered; its SHA-256 {digest} is recorded in {}",
                    record.display()
                ));
                Ok(Ok(()))
            }
        }
    }

    /// SHA-256 of a file in lower-case hexadecimal.
    fn sha256(&self, path: &Path, length: u64) -> Result<String> {
        let mut file = File::open(path).map_err(|error| disk_error(path, "open", error))?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; CHUNK];
        let stage = Running::begin(self.options, Stage::Check, &self.name, 0, Some(length));
        loop {
            self.options.check_interrupt()?;
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    hasher.update(&buffer[..count]);
                    stage.advance(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(disk_error(path, "read", error)),
            }
        }
        Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Moves a whole and right file into place.
    fn install(&self, from: &Path) -> Result<()> {
        // What was checked must be on the disk before the name says so.
        File::open(from).and_then(|file| file.sync_all()).map_err(|error| disk_error(from, "write", error))?;
        std::fs::rename(from, &self.path).map_err(|error| disk_error(&self.path, "create", error))
    }

    /// Brings the whole part from one address, in as many attempts as are worth it, and checks it.
    fn download(&self, url: &str) -> Result<(), Trouble> {
        let agent = self.agent(url);
        let (mut fruitless, mut furthest) = (0, 0);
        loop {
            let held = self.resumable(url)?;
            furthest = furthest.max(held.as_ref().map_or(0, |(bytes, _)| *bytes));
            let continued = held.is_some();
            let outcome = self.attempt(&agent, url, held).and_then(|()| self.check_part(continued));
            let (finding, wished) = match outcome {
                Ok(()) => return Ok(()),
                Err(Trouble::Passing(finding, wished)) => (finding, wished),
                Err(Trouble::Offline(finding)) if furthest > 0 => (finding, None),
                Err(trouble) => return Err(trouble),
            };
            let reached = std::fs::metadata(self.part()).map_or(0, |metadata| metadata.len());
            if reached >= furthest + WORTHWHILE {
                fruitless = 0;
            }
            furthest = furthest.max(reached);
            fruitless += 1;
            if fruitless > self.options.retries {
                return Err(Trouble::passing(finding));
            }
            let doubled = self.options.backoff.saturating_mul(1 << (fruitless - 1).min(10));
            let pause = wished.unwrap_or(doubled).min(LONGEST_PAUSE);
            self.note(format!(
                "{finding}; trying again in {:.0} s (retry {fruitless} of {})",
                pause.as_secs_f64(),
                self.options.retries
            ));
            self.options.sleep(pause)?;
        }
    }

    fn agent(&self, url: &str) -> ureq::Agent {
        let patience = Some(self.options.timeout);
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_resolve(patience)
            .timeout_connect(patience)
            .timeout_recv_response(patience)
            .timeout_per_read(patience)
            .user_agent(concat!("parsimony/", env!("CARGO_PKG_VERSION")));
        let host = url.split("://").nth(1).unwrap_or_default();
        if ["localhost", "127.", "[::1]"].iter().any(|local| host.starts_with(local)) {
            // A proxy named in the environment could not reach this machine's own servers.
            config = config.proxy(None);
        }
        config.build().into()
    }

    /// Bytes of the part and its state, if it can be continued from this address.
    fn resumable(&self, url: &str) -> Result<Option<(u64, PartState)>> {
        let bytes = std::fs::metadata(self.part()).map_or(0, |metadata| metadata.len());
        let state = std::fs::read_to_string(self.beside(".part.toml")).ok();
        let state: Option<PartState> = state.and_then(|text| toml::from_str(&text).ok());
        // Without a registered checksum, only the server's validator tells that the rest belongs to the part.
        let trusted = |state: &PartState| self.pin.sha256.is_some() || state.url == url && state.validator().is_some();
        match state.filter(trusted) {
            Some(state) if bytes > 0 && self.whole_length(&state).is_none_or(|length| bytes <= length) => {
                Ok(Some((bytes, state)))
            }
            _ => {
                self.discard_part()?;
                Ok(None)
            }
        }
    }

    fn whole_length(&self, state: &PartState) -> Option<u64> {
        self.pin.bytes.or(state.length)
    }

    fn discard_part(&self) -> Result<()> {
        for path in [self.part(), self.beside(".part.toml")] {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(disk_error(&path, "delete", error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Discards the part because it cannot be continued; the next attempt starts anew.
    fn start_anew(&self, finding: &str) -> Trouble {
        match self.discard_part() {
            Ok(()) => Trouble::Passing(format!("{finding}: starting anew"), Some(Duration::ZERO)),
            Err(error) => Trouble::Stop(error),
        }
    }

    /// One request and its answer, appended to the part.
    fn attempt(&self, agent: &ureq::Agent, url: &str, held: Option<(u64, PartState)>) -> Result<(), Trouble> {
        self.options.check_interrupt()?;
        let offset = held.as_ref().map_or(0, |(bytes, _)| *bytes);
        if held.as_ref().is_some_and(|(bytes, state)| self.whole_length(state) == Some(*bytes)) {
            // Whole, but killed before it was checked and renamed.
            return Ok(());
        }
        // Compression on the way would make the bytes others than those registered.
        let mut request = agent.get(url).header(header::ACCEPT_ENCODING, "identity");
        if let Some((bytes, state)) = &held {
            request = request.header(header::RANGE, format!("bytes={bytes}-"));
            if let Some(validator) = state.validator().filter(|_| state.url == url) {
                request = request.header(header::IF_RANGE, validator);
            }
        }
        let mut response = request.call().map_err(|error| trouble(error, self.options.timeout))?;
        let (from, length) = match (response.status(), &held) {
            (StatusCode::OK, _) => (0, content_length(&response)),
            (StatusCode::PARTIAL_CONTENT, Some((_, state))) => {
                let Some((start, total)) = content_range(&response) else {
                    return Err(self.start_anew("the server's Content-Range cannot be read"));
                };
                let length = total.or_else(|| content_length(&response).map(|rest| start.saturating_add(rest)));
                if start != offset {
                    return Err(self.start_anew("the server sent another range than asked for"));
                }
                if state.contradicts(&PartState::of(url, response.headers(), length)) {
                    return Err(self.start_anew("the file at the address has changed"));
                }
                (offset, length.or(state.length))
            }
            (StatusCode::RANGE_NOT_SATISFIABLE, Some(_)) => {
                return match content_range_total(&response) {
                    Some(total) if total == offset && self.pin.bytes.is_none_or(|bytes| bytes == total) => Ok(()),
                    _ => Err(self.start_anew("the server cannot go on from there")),
                };
            }
            (status, _) => return Err(refusal(status, response.headers())),
        };
        if let (Some(length), Some(bytes)) = (length, self.pin.bytes)
            && length != bytes
        {
            return Err(Trouble::Refused(format!("it offers {length} bytes where {bytes} are registered")));
        }
        let encoding = response.headers().get(header::CONTENT_ENCODING).and_then(|value| value.to_str().ok());
        // Servers label a .gz file so without having compressed it themselves.
        if encoding.is_some_and(|encoding| encoding != "identity") && !self.name.ends_with(".gz") {
            return Err(Trouble::Refused(format!("it sends the file encoded ({})", encoding.unwrap_or_default())));
        }
        if offset > 0 && from == 0 {
            self.note("the server does not continue the part (or the file has changed): starting anew");
        }
        let mut state = PartState::of(url, response.headers(), length);
        if let (Some((_, before)), true) = (held, from > 0) {
            // A partial answer need not repeat what the whole one said.
            state.keep(before);
        }
        let record = self.beside(".part.toml");
        let text = toml::to_string(&state).map_err(|error| disk_error(&record, "write", io::Error::other(error)))?;
        replace_file(&record, text.as_bytes())?;
        self.receive(response.body_mut().as_reader(), from, self.whole_length(&state))
    }

    /// Writes an answer's body into the part from an offset on.
    fn receive(&self, mut body: impl Read, from: u64, length: Option<u64>) -> Result<(), Trouble> {
        let path = self.part();
        let mut part = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(from == 0)
            .append(from > 0)
            .open(&path)
            .map_err(|error| disk_error(&path, "create", error))?;
        let stage = Running::begin(self.options, Stage::Download, &self.name, from, length);
        let mut position = from;
        let mut buffer = vec![0; CHUNK];
        loop {
            self.options.check_interrupt()?;
            let count = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    let trouble = trouble(error.into(), self.options.timeout);
                    return Err(match trouble {
                        Trouble::Passing(finding, wished) => {
                            let of = length.map(|all| format!(" of {}", readable_bytes(all))).unwrap_or_default();
                            Trouble::Passing(format!("{finding} after {}{of}", readable_bytes(position)), wished)
                        }
                        other => other,
                    });
                }
            };
            position += count as u64;
            if length.is_some_and(|length| position > length) {
                drop((stage, part));
                return Err(self.start_anew("the server sent more than it announced"));
            }
            part.write_all(&buffer[..count]).map_err(|error| disk_error(&path, "write", error))?;
            stage.advance(count);
        }
        match length {
            Some(length) if position < length => {
                let (got, all) = (readable_bytes(position), readable_bytes(length));
                Err(Trouble::passing(format!("the connection ended after {got} of {all}")))
            }
            _ => Ok(()),
        }
    }

    /// Checks a whole part. One that fails is deleted; if it was `continued` from earlier bytes, those may be at fault,
    /// and the whole file is asked for once more.
    fn check_part(&self, continued: bool) -> Result<(), Trouble> {
        match self.check(&self.part())? {
            Ok(()) => Ok(()),
            Err(finding) if continued => Err(self.start_anew(&format!("what was received is damaged ({finding})"))),
            Err(finding) => {
                self.discard_part()?;
                Err(Trouble::Refused(format!("what it sent is damaged or another version, and was deleted: {finding}")))
            }
        }
    }

    /// Extracts the member of a checked archive into place.
    fn extract(&self, archive: &Path, member: &ZipMember) -> Result<()> {
        let part = self.part();
        let mut source = File::open(archive).map_err(|error| disk_error(archive, "open", error))?;
        let mut target = File::create(&part).map_err(|error| disk_error(&part, "create", error))?;
        let outcome = zip_member::find_member(&mut source, &member.name).and_then(|found| {
            let stage = Running::begin(self.options, Stage::Extract, &self.name, 0, Some(found.bytes));
            zip_member::extract(&mut source, &found, |bytes| {
                self.options.check_interrupt()?;
                target.write_all(bytes).map_err(|error| disk_error(&part, "write", error))?;
                stage.advance(bytes.len());
                Ok(())
            })
        });
        let refused = |finding: String| {
            DataError::new(archive, finding, "delete it and fetch again; if that repeats, report it").into()
        };
        let checked = match outcome {
            Ok(()) => self.check(&part)?.map_err(|finding| refused(format!("`{}` in it: {finding}", member.name))),
            Err(ZipError::Archive(finding)) => Err(refused(finding)),
            Err(ZipError::Read(error)) => Err(disk_error(archive, "read", error)),
            Err(ZipError::Write(error)) => Err(error),
        };
        match checked {
            Ok(()) => self.install(&part),
            Err(error) => {
                // Extracting again is quick: unlike a download, nothing is worth keeping.
                let _ = std::fs::remove_file(&part);
                Err(error)
            }
        }
    }
}

/// A progress stage that ends when it goes out of scope.
struct Running<'a>(&'a dyn Progress);

impl<'a> Running<'a> {
    fn begin(options: &'a FetchOptions, stage: Stage, name: &str, done: u64, total: Option<u64>) -> Self {
        options.progress.begin(stage, name, done, total);
        Self(options.progress)
    }

    fn advance(&self, bytes: usize) {
        self.0.advance(bytes as u64);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
