//! The downloader against a server on this machine that cuts connections, ignores ranges, lies about lengths, serves
//! damaged bytes, changes versions and hangs. Nothing here needs a network.

use parsimony::data::fetch::{FetchOptions, Progress, Stage, fetch, fetch_all};
use parsimony::data::registry::DatasetEntry;
use parsimony::{Error, Result};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

const SIZE: usize = 400_000;
const HALF: usize = SIZE / 2;

/// How the server answers one request.
#[derive(Clone)]
struct Answer {
    content: Arc<Vec<u8>>,
    status: u16,
    etag: Option<&'static str>,
    /// Answers ranges with 206.
    ranges: bool,
    /// Looks at If-Range before it does.
    conditional: bool,
    /// Closes the connection after so many bytes of the body.
    cut: Option<usize>,
    /// Stops sending after so many bytes but keeps the connection open.
    hang: Option<usize>,
    /// Announced minus true length.
    lie: i64,
    header: &'static str,
}

fn answer(content: &[u8]) -> Answer {
    Answer {
        content: Arc::new(content.to_vec()),
        status: 200,
        etag: Some("\"one\""),
        ranges: true,
        conditional: true,
        cut: None,
        hang: None,
        lie: 0,
        header: "",
    }
}

fn status(status: u16) -> Answer {
    Answer { status, ..answer(b"an error page") }
}

/// What a request asked for.
#[derive(Debug, Clone, PartialEq)]
struct Request {
    path: String,
    range: Option<usize>,
    if_range: Option<String>,
}

struct Server {
    base: String,
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Gives these answers one after another, the last one for ever.
    fn start(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, stopped) = (requests.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.unwrap();
                let request = read_request(&stream);
                let mut seen = seen.lock().unwrap();
                let answer = answers[seen.len().min(answers.len() - 1)].clone();
                seen.push(request.clone());
                drop(seen);
                // A client that gives up early is no failure of the server.
                let _ = respond(&stream, &request, &answer);
                if answer.hang.is_some() {
                    held.push(stream);
                }
            }
        });
        Self { base, requests, stop, thread: Some(thread) }
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    fn ranges(&self) -> Vec<Option<usize>> {
        self.requests().iter().map(|request| request.range).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.base.trim_start_matches("http://"));
        let _ = self.thread.take().unwrap().join();
    }
}

fn read_request(stream: &TcpStream) -> Request {
    let mut lines = BufReader::new(stream).lines().map_while(std::result::Result::ok);
    let path = lines.next().and_then(|line| line.split(' ').nth(1).map(str::to_owned)).unwrap_or_default();
    let headers: HashMap<String, String> = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(": ").map(|(key, value)| (key.to_lowercase(), value.to_owned())))
        .collect();
    let range = headers.get("range").map(|range| range[6..range.len() - 1].parse().unwrap());
    Request { path, range, if_range: headers.get("if-range").cloned() }
}

fn respond(mut stream: &TcpStream, request: &Request, answer: &Answer) -> std::io::Result<()> {
    let content = &answer.content[..];
    let unchanged = !answer.conditional || request.if_range.as_deref().is_none_or(|tag| Some(tag) == answer.etag);
    let from = request.range.filter(|_| answer.ranges && unchanged && answer.status == 200);
    let (line, body) = match from {
        Some(from) if from >= content.len() => {
            (format!("416 Range Not Satisfiable\r\nContent-Range: bytes */{}", content.len()), &[][..])
        }
        Some(from) => (
            format!(
                "206 Partial Content\r\nContent-Range: bytes {from}-{}/{}",
                content.len() - 1,
                content.len() as i64 + answer.lie
            ),
            &content[from..],
        ),
        None => (format!("{} Something", answer.status), content),
    };
    let etag = answer.etag.map(|etag| format!("ETag: {etag}\r\n")).unwrap_or_default();
    let length = body.len() as i64 + if line.starts_with("416") { 0 } else { answer.lie };
    write!(stream, "HTTP/1.1 {line}\r\nContent-Length: {length}\r\nConnection: close\r\n{etag}{}\r\n", answer.header)?;
    let sent = answer.cut.or(answer.hang).unwrap_or(usize::MAX).min(body.len());
    stream.write_all(&body[..sent])
}

/// Bytes without a pattern that a shift could hide.
fn content(seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..SIZE).map(|_| next()).collect()
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A dataset of one file with these further lines in its `[[files]]` section.
fn dataset(lines: &str) -> DatasetEntry {
    let text = format!(
        "name = 'thing'\ntitle = 'Thing'\ndoc = ''\nkind = 'table'\nformat = 'csv'\nlicence = ''\ncitation = ''\n\
         [[files]]\npath = 'things/thing.csv'\n{}{lines}",
        if lines.contains("urls") { "" } else { "urls = ['http://127.0.0.1:9/x/thing.csv']\n" }
    );
    DatasetEntry::from_toml(&text, "test").unwrap()
}

fn pinned(bytes: &[u8]) -> DatasetEntry {
    dataset(&format!("bytes = {}\nsha256 = '{}'\n", bytes.len(), digest(bytes)))
}

/// An empty data directory.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, suffix: &str) -> PathBuf {
        self.0.path().join(format!("things/thing.csv{suffix}"))
    }

    /// Length of the part left, if any.
    fn part(&self) -> Option<u64> {
        self.file(".part").metadata().ok().map(|metadata| metadata.len())
    }

    fn options<'a>(&'a self, base: &'a str) -> FetchOptions<'a> {
        FetchOptions {
            base_url: Some(base),
            retries: 3,
            backoff: Duration::from_millis(1),
            timeout: Duration::from_millis(2_000),
            ..FetchOptions::new(self.0.path())
        }
    }

    fn fetch(&self, entry: &DatasetEntry, server: &Server) -> Result<PathBuf> {
        fetch(entry, &entry.files[0], &self.options(&server.base))
    }

    /// The file is in place with these bytes, and nothing of the download is left.
    fn assert_holds(&self, bytes: &[u8]) {
        assert!(std::fs::read(self.file("")).unwrap() == bytes, "other bytes than expected are in place");
        assert_eq!(self.part(), None);
        assert!(!self.file(".part.toml").exists());
    }

    fn assert_nothing_in_place(&self) {
        assert!(!self.file("").exists(), "a file that is not right was put in place");
    }
}

fn text(result: Result<PathBuf>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_whole_file_arrives_once_and_is_not_asked_for_again() {
    let (place, bytes) = (Place::new(), content(1));
    let server = Server::start(vec![answer(&bytes)]);
    for _ in 0..2 {
        assert_eq!(place.fetch(&pinned(&bytes), &server).unwrap(), place.file(""));
    }
    place.assert_holds(&bytes);
    assert!(!place.file(".sha256").exists(), "a registered checksum needs no record");
    let expected = Request { path: "/things/thing.csv".into(), range: None, if_range: None };
    assert_eq!(server.requests(), [expected]);
}

#[test]
fn a_cut_connection_is_continued_where_it_stopped() {
    let (place, bytes) = (Place::new(), content(2));
    let server = Server::start(vec![Answer { cut: Some(HALF), ..answer(&bytes) }, answer(&bytes)]);
    place.fetch(&pinned(&bytes), &server).unwrap();
    place.assert_holds(&bytes);
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].range, Some(HALF));
    assert_eq!(requests[1].if_range.as_deref(), Some("\"one\""));
}

#[test]
fn a_part_left_by_an_earlier_run_is_continued() {
    let (place, bytes) = (Place::new(), content(3));
    let server = Server::start(vec![Answer { cut: Some(HALF), ..answer(&bytes) }, answer(&bytes)]);
    let entry = dataset("");
    let options = FetchOptions { retries: 0, ..place.options(&server.base) };
    let message = text(fetch(&entry, &entry.files[0], &options));
    assert!(message.contains("200.00 kB of 400.00 kB") && message.contains("run it again to go on"), "{message}");
    assert_eq!(place.part(), Some(HALF as u64));
    place.assert_nothing_in_place();
    place.fetch(&entry, &server).unwrap();
    place.assert_holds(&bytes);
    assert_eq!(server.ranges(), [None, Some(HALF)]);
}

#[test]
fn a_connection_cut_many_times_arrives_as_long_as_each_attempt_brings_something() {
    let (place, bytes) = (Place::new(), content(4));
    let server = Server::start(vec![Answer { cut: Some(70_000), ..answer(&bytes) }]);
    let options = FetchOptions { retries: 1, ..place.options(&server.base) };
    let entry = pinned(&bytes);
    fetch(&entry, &entry.files[0], &options).unwrap();
    place.assert_holds(&bytes);
    assert_eq!(server.requests().len(), SIZE.div_ceil(70_000));
}

#[test]
fn a_server_that_ignores_ranges_is_read_from_the_start() {
    let (place, bytes) = (Place::new(), content(5));
    let whole = Answer { ranges: false, ..answer(&bytes) };
    let server = Server::start(vec![Answer { cut: Some(HALF), ..whole.clone() }, whole]);
    place.fetch(&pinned(&bytes), &server).unwrap();
    place.assert_holds(&bytes);
    assert_eq!(server.ranges(), [None, Some(HALF)]);
}

#[test]
fn a_server_that_ignores_ranges_and_always_cuts_is_given_up() {
    let (place, bytes) = (Place::new(), content(6));
    let server = Server::start(vec![Answer { cut: Some(HALF), ranges: false, ..answer(&bytes) }]);
    assert_eq!(place.fetch(&pinned(&bytes), &server).unwrap_err().exit_code(), 4);
    place.assert_nothing_in_place();
    // The first attempt brings something new, the others only the same again.
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn a_part_without_a_validator_or_a_checksum_is_not_trusted() {
    let (place, bytes) = (Place::new(), content(7));
    let bare = Answer { etag: None, ..answer(&bytes) };
    let server = Server::start(vec![Answer { cut: Some(HALF), ..bare.clone() }, bare]);
    place.fetch(&dataset(""), &server).unwrap();
    place.assert_holds(&bytes);
    assert_eq!(server.ranges(), [None, None]);
}

#[test]
fn an_announced_length_that_is_too_long_is_found_out() {
    let (place, bytes) = (Place::new(), content(8));
    let long = Answer { lie: 1_000, ..answer(&bytes) };
    // Known size: refused before a byte is kept.
    let server = Server::start(vec![long.clone()]);
    let message = text(place.fetch(&pinned(&bytes), &server));
    assert!(message.contains("401000 bytes where 400000 are registered"), "{message}");
    assert_eq!((place.part(), server.requests().len()), (None, 1));
    // Unknown size: the rest is asked for, and the server itself says that there is none.
    let server = Server::start(vec![long.clone(), answer(&bytes)]);
    place.fetch(&dataset(""), &server).unwrap();
    place.assert_holds(&bytes);
    assert_eq!(server.ranges(), [None, Some(SIZE)]);
}

#[test]
fn an_announced_length_that_is_too_short_is_found_out() {
    let (place, bytes) = (Place::new(), content(9));
    let short = Answer { lie: -1_000, ..answer(&bytes) };
    let server = Server::start(vec![short.clone()]);
    assert!(text(place.fetch(&pinned(&bytes), &server)).contains("399000 bytes where 400000"));
    let only_digest = dataset(&format!("sha256 = '{}'\n", digest(&bytes)));
    let message = text(place.fetch(&only_digest, &server));
    assert!(message.contains("damaged"), "{message}");
    place.assert_nothing_in_place();
    assert_eq!(place.part(), None);
}

#[test]
fn damaged_bytes_are_deleted_and_never_put_in_place() {
    let (place, bytes) = (Place::new(), content(10));
    let mut damaged = bytes.clone();
    damaged[HALF] ^= 1;
    let server = Server::start(vec![answer(&damaged)]);
    let error = place.fetch(&pinned(&bytes), &server).unwrap_err();
    assert_eq!(error.exit_code(), 4);
    let message = error.to_string();
    for part in [&digest(&bytes), &digest(&damaged), &server.base] {
        assert!(message.contains(part.as_str()), "{part} is missing in: {message}");
    }
    place.assert_nothing_in_place();
    assert_eq!(place.part(), None);
    assert_eq!(server.requests().len(), 1, "damage at rest does not heal by asking again");
}

#[test]
fn a_damaged_part_of_an_earlier_run_is_replaced() {
    let (place, bytes) = (Place::new(), content(11));
    let server = Server::start(vec![Answer { cut: Some(HALF), ..answer(&bytes) }, answer(&bytes)]);
    let entry = pinned(&bytes);
    let options = FetchOptions { retries: 0, ..place.options(&server.base) };
    fetch(&entry, &entry.files[0], &options).unwrap_err();
    let mut part = std::fs::read(place.file(".part")).unwrap();
    part[0] ^= 1;
    std::fs::write(place.file(".part"), part).unwrap();
    place.fetch(&entry, &server).unwrap();
    place.assert_holds(&bytes);
    assert_eq!(server.ranges(), [None, Some(HALF), None]);
}

#[test]
fn a_whole_part_that_was_never_renamed_needs_no_request() {
    let (place, bytes) = (Place::new(), content(12));
    let server = Server::start(vec![Answer { cut: Some(SIZE - 1), ..answer(&bytes) }]);
    let entry = pinned(&bytes);
    let options = FetchOptions { retries: 0, ..place.options(&server.base) };
    fetch(&entry, &entry.files[0], &options).unwrap_err();
    std::fs::write(place.file(".part"), &bytes).unwrap();
    place.fetch(&entry, &server).unwrap();
    place.assert_holds(&bytes);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_missing_file_is_not_asked_for_again() {
    let place = Place::new();
    let server = Server::start(vec![status(404)]);
    let message = text(place.fetch(&dataset(""), &server));
    for part in ["404", &server.base, "put the file at", "thing.csv"] {
        assert!(message.contains(part), "{part} is missing in: {message}");
    }
    assert_eq!((server.requests().len(), place.part()), (1, None));
    place.assert_nothing_in_place();
}

#[test]
fn a_server_error_is_retried_and_given_up_in_the_end() {
    let (place, bytes) = (Place::new(), content(13));
    let busy = Answer { header: "Retry-After: 0\r\n", ..status(503) };
    let server = Server::start(vec![status(500), busy, answer(&bytes)]);
    place.fetch(&pinned(&bytes), &server).unwrap();
    place.assert_holds(&bytes);
    assert_eq!(server.requests().len(), 3);

    let (place, server) = (Place::new(), Server::start(vec![status(502)]));
    assert!(text(place.fetch(&pinned(&bytes), &server)).contains("502"));
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn a_version_that_changes_between_attempts_is_not_mixed() {
    let old = content(14);
    // The new version may be shorter than the part of the old one.
    for (conditional, new) in [(true, &content(15)[..]), (false, &content(15)), (true, &content(15)[..1_000])] {
        let place = Place::new();
        let changed = Answer { etag: Some("\"two\""), conditional, ..answer(new) };
        let server = Server::start(vec![Answer { cut: Some(HALF), ..answer(&old) }, changed]);
        place.fetch(&dataset(""), &server).unwrap();
        place.assert_holds(new);
        // A server that minds If-Range sends the new version at once; else a third request does it.
        let expected: &[_] = if conditional { &[None, Some(HALF)] } else { &[None, Some(HALF), None] };
        assert_eq!(server.ranges(), expected);
    }
}

#[test]
fn a_server_that_hangs_is_left_and_continued() {
    let (place, bytes) = (Place::new(), content(16));
    let server = Server::start(vec![Answer { hang: Some(HALF), ..answer(&bytes) }, answer(&bytes)]);
    let options = FetchOptions { timeout: Duration::from_millis(200), ..place.options(&server.base) };
    let entry = pinned(&bytes);
    fetch(&entry, &entry.files[0], &options).unwrap();
    place.assert_holds(&bytes);
    assert_eq!(server.ranges(), [None, Some(HALF)]);
}

/// Counts bytes, and does something once half of the file is there.
struct Watch<'a> {
    stages: Mutex<Vec<(Stage, u64, Option<u64>)>>,
    ended: Mutex<usize>,
    at_half: &'a (dyn Fn() + Sync),
}

impl Progress for Watch<'_> {
    fn begin(&self, stage: Stage, _: &str, done: u64, total: Option<u64>) {
        self.stages.lock().unwrap().push((stage, done, total));
    }
    fn advance(&self, bytes: u64) {
        let mut stages = self.stages.lock().unwrap();
        let (stage, done, _) = stages.last_mut().unwrap();
        let before = *done;
        *done += bytes;
        if *stage == Stage::Download && before < HALF as u64 && *done >= HALF as u64 {
            drop(stages);
            (self.at_half)();
        }
    }
    fn note(&self, _: &str) {}
    fn end(&self) {
        *self.ended.lock().unwrap() += 1;
    }
}

#[test]
fn progress_is_reported_from_where_it_stands() {
    let (place, bytes) = (Place::new(), content(17));
    let server = Server::start(vec![Answer { cut: Some(HALF), ..answer(&bytes) }, answer(&bytes)]);
    let watch = Watch { stages: Mutex::default(), ended: Mutex::default(), at_half: &|| {} };
    let options = FetchOptions { progress: &watch, ..place.options(&server.base) };
    fetch_all(&pinned(&bytes), &options).unwrap();
    let (half, size) = (HALF as u64, SIZE as u64);
    let expected =
        [(Stage::Download, half, Some(size)), (Stage::Download, size, Some(size)), (Stage::Check, size, Some(size))];
    assert_eq!(*watch.stages.lock().unwrap(), expected);
    assert_eq!(*watch.ended.lock().unwrap(), 3);
}

#[test]
fn an_interrupt_keeps_the_part_and_the_next_run_goes_on() {
    let (place, bytes) = (Place::new(), content(18));
    let server = Server::start(vec![answer(&bytes)]);
    let interrupt = AtomicBool::new(false);
    let at_half = || interrupt.store(true, Ordering::SeqCst);
    let watch = Watch { stages: Mutex::default(), ended: Mutex::default(), at_half: &at_half };
    let entry = pinned(&bytes);
    let options = FetchOptions { progress: &watch, interrupt: Some(&interrupt), ..place.options(&server.base) };
    assert!(matches!(fetch(&entry, &entry.files[0], &options), Err(Error::Interrupted)));
    place.assert_nothing_in_place();
    let kept = place.part().unwrap() as usize;
    assert!((HALF..SIZE).contains(&kept));
    place.fetch(&entry, &server).unwrap();
    place.assert_holds(&bytes);
    assert_eq!(server.ranges(), [None, Some(kept)]);
}

#[test]
fn two_fetches_of_one_file_do_not_meet() {
    let (place, bytes) = (Place::new(), content(19));
    let server = Server::start(vec![answer(&bytes)]);
    let entry = pinned(&bytes);
    let second = Mutex::new(None);
    let at_half = || *second.lock().unwrap() = Some(text(place.fetch(&entry, &server)));
    let watch = Watch { stages: Mutex::default(), ended: Mutex::default(), at_half: &at_half };
    let options = FetchOptions { progress: &watch, ..place.options(&server.base) };
    fetch(&entry, &entry.files[0], &options).unwrap();
    place.assert_holds(&bytes);
    assert!(second.lock().unwrap().as_ref().unwrap().contains("another fetch of it is under way"));
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_checksum_recorded_at_first_use_is_compared_later() {
    let (place, bytes) = (Place::new(), content(20));
    place.fetch(&dataset(""), &Server::start(vec![answer(&bytes)])).unwrap();
    let record = std::fs::read_to_string(place.file(".sha256")).unwrap();
    assert_eq!(record, format!("{}  thing.csv\n", digest(&bytes)));
    std::fs::remove_file(place.file("")).unwrap();
    let message = text(place.fetch(&dataset(""), &Server::start(vec![answer(&content(21))])));
    assert!(message.contains("was recorded in") && message.contains(&digest(&bytes)), "{message}");
    place.assert_nothing_in_place();
}

#[test]
fn a_file_in_place_that_is_not_the_registered_one_is_named_and_kept() {
    let (place, bytes) = (Place::new(), content(22));
    let server = Server::start(vec![answer(&bytes)]);
    std::fs::create_dir(place.0.path().join("things")).unwrap();
    let mut other = bytes.clone();
    other[7] ^= 1;
    for other in [&other[..], b"short"] {
        std::fs::write(place.file(""), other).unwrap();
        let error = place.fetch(&pinned(&bytes), &server).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(error.to_string().contains("move or delete it"), "{error}");
        assert!(std::fs::read(place.file("")).unwrap() == other);
    }
    assert!(server.requests().is_empty());
}

#[test]
fn the_next_address_is_asked_where_the_first_fails() {
    let (place, bytes) = (Place::new(), content(23));
    let mut damaged = bytes.clone();
    damaged[9] ^= 1;
    for first in [status(404), answer(&damaged), Answer { cut: Some(HALF), ..answer(&bytes) }] {
        let (first, second) = (Server::start(vec![first]), Server::start(vec![answer(&bytes)]));
        let urls = format!("urls = ['{}/a', '{}/b']\nsha256 = '{}'\n", first.base, second.base, digest(&bytes));
        let entry = dataset(&urls);
        let options = FetchOptions { base_url: None, retries: 0, ..place.options("") };
        fetch_all(&entry, &options).unwrap();
        place.assert_holds(&bytes);
        assert_eq!(second.requests()[0].path, "/b");
        std::fs::remove_file(place.file("")).unwrap();
    }
}

#[test]
fn a_closed_port_and_an_unknown_host_are_told_in_words() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let entry = dataset("");
    let file = &entry.files[0];
    let message = text(fetch(&entry, file, &FetchOptions { retries: 0, ..place.options(&closed) }));
    assert!(message.contains(&closed) && message.contains("put the file at"), "{message}");
    // A label of more than 63 letters is refused by the resolver itself, without a network.
    let nowhere = format!("http://{}.invalid", "x".repeat(70));
    let message = text(fetch(&entry, file, &place.options(&nowhere)));
    for part in ["cannot be resolved", "seems to be offline", "put the file at", "things/thing.csv"] {
        assert!(message.contains(part), "{part} is missing in: {message}");
    }
}

#[test]
fn a_place_that_cannot_be_written_is_told_in_words() {
    let (place, bytes) = (Place::new(), content(24));
    let server = Server::start(vec![answer(&bytes)]);
    std::fs::write(place.0.path().join("things"), "").unwrap();
    let error = place.fetch(&pinned(&bytes), &server).unwrap_err();
    assert_eq!(error.exit_code(), 4);
    assert!(error.to_string().contains("a file is where a folder must be"), "{error}");
    assert!(server.requests().is_empty());
}

#[test]
fn an_encoding_on_the_way_is_refused() {
    let (place, bytes) = (Place::new(), content(25));
    let server = Server::start(vec![Answer { header: "Content-Encoding: gzip\r\n", ..answer(&bytes) }]);
    assert!(text(place.fetch(&pinned(&bytes), &server)).contains("encoded (gzip)"));
}

#[test]
fn a_dataset_without_an_address_says_what_to_do() {
    let place = Place::new();
    let options = FetchOptions::new(place.0.path());
    for (name, words) in [("higgs-sim", "data generate"), ("higgs-sample", "OpenML")] {
        let error = fetch_all(parsimony::data::registry::find(name).unwrap(), &options).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(words), "{error}");
    }
}

/// A stored member `readme` ("about\n") and a deflated member `text` ("the quick brown fox " fifty times), made by
///
/// ```python
/// archive = io.BytesIO()
/// with zipfile.ZipFile(archive, "w") as z:
///     z.writestr(zipfile.ZipInfo("readme", (2000, 1, 1, 0, 0, 0)), "about\n", zipfile.ZIP_STORED)
///     z.writestr(zipfile.ZipInfo("text", (2000, 1, 1, 0, 0, 0)), "the quick brown fox " * 50, zipfile.ZIP_DEFLATED)
/// print(archive.getvalue().hex())
/// ```
const ARCHIVE: &str = "\
     504b0304140000000000000021287341610b060000000600000006000000726561646d6561626f75740a504b0304140000000800\
     0000212829135da41f000000e803000004000000746578742bc94855282ccd4cce56482aca2fcf5348cbaf502819151b151b151b\
     566200504b01021403140000000000000021287341610b0600000006000000060000000000000000000000800100000000726561\
     646d65504b010214031400000008000000212829135da41f000000e803000004000000000000000000000080012a000000746578\
     74504b05060000000002000200660000006b0000000000";

fn archive() -> Vec<u8> {
    (0..ARCHIVE.len() / 2).map(|i| u8::from_str_radix(&ARCHIVE[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn zipped(member: &str, pins: &str) -> DatasetEntry {
    dataset(&format!("urls = ['http://127.0.0.1:9/dc/thing.zip']\n{pins}zip_member = {{ {member} }}\n"))
}

#[test]
fn a_member_of_a_zip_archive_is_extracted_and_checked() {
    let text = "the quick brown fox ".repeat(50);
    let text_pin = format!("name = 'text', bytes = 1000, sha256 = '{}'", digest(text.as_bytes()));
    let place = Place::new();
    let server = Server::start(vec![answer(&archive())]);
    let archive_pin = format!("sha256 = '{}'\n", digest(&archive()));
    for _ in 0..2 {
        place.fetch(&zipped(&text_pin, &archive_pin), &server).unwrap();
    }
    place.assert_holds(text.as_bytes());
    assert_eq!(server.requests()[0].path, "/archives/thing.zip");
    // Another member of the same archive: nothing is downloaded again.
    std::fs::remove_file(place.file("")).unwrap();
    place.fetch(&zipped("name = 'readme'", &archive_pin), &server).unwrap();
    place.assert_holds(b"about\n");
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn damage_in_a_zip_archive_is_named() {
    let whole = archive();
    // The bytes that came into place, if any did.
    let extract = |bytes: &[u8], member: &str| -> Result<Vec<u8>> {
        let place = Place::new();
        // As if downloaded: an archive in place is not asked for again.
        std::fs::create_dir(place.0.path().join("archives")).unwrap();
        std::fs::write(place.0.path().join("archives/thing.zip"), bytes).unwrap();
        let entry = zipped(member, "");
        let result = fetch(&entry, &entry.files[0], &place.options("http://127.0.0.1:9"));
        if result.is_err() {
            place.assert_nothing_in_place();
            assert_eq!(place.part(), None);
        }
        result.map(|path| std::fs::read(path).unwrap())
    };
    for (bytes, member, words) in [
        (&whole[..], "name = 'other'", "no member `other`"),
        (&whole[..], "name = 'text', bytes = 999", "1000 bytes where 999 are registered"),
        (&whole[..whole.len() - 30], "name = 'text'", "no end record"),
        (b"<html>", "name = 'text'", "no zip archive"),
    ] {
        let error = extract(bytes, member).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        let message = error.to_string();
        assert!(message.contains(words) && message.contains("archives/thing.zip"), "{words} is missing in: {message}");
    }
    // No flipped bit brings other bytes into place, whatever it hits, or panics.
    let text = "the quick brown fox ".repeat(50);
    for position in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[position] ^= 1 << (position % 8);
        if let Ok(bytes) = extract(&damaged, "name = 'text'") {
            assert!(bytes == text.as_bytes(), "a flipped bit in byte {position} went through");
        }
    }
}
