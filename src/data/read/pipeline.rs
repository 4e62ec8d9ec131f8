//! Text tables are parsed in parallel: one thread reads (and decompresses) blocks of whole lines, as many workers as
//! rayon would use parse them, and the caller receives the parsed blocks in file order.
//!
//! The number of blocks under way is bounded, so memory does not grow with the file. Workers are threads of their own
//! because the caller waits for them, which it must not do from inside rayon's pool.

use super::labels::LabelBlock;
use super::source::Source;
use crate::data::interrupt;
use crate::error::{DataError, Error, Result};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// Rows parsed from one block of text.
#[derive(Default)]
pub(super) struct Block {
    /// Rows kept.
    pub rows: usize,
    /// Their features, one row after another.
    pub values: Vec<f32>,
    /// Their targets.
    pub labels: LabelBlock,
    /// Newlines in the block.
    pub lines: u64,
    /// Values missing, and rows left out because of one.
    pub missing: u64,
    pub dropped: u64,
    /// The largest feature number met (LIBSVM).
    pub largest_index: usize,
    /// The first thing that cannot be used.
    pub problem: Option<Problem>,
}

/// Something in a block that cannot be used.
pub(super) struct Problem {
    /// Lines of the block before this one.
    pub line: u64,
    pub column: Option<String>,
    pub finding: String,
    pub remedy: String,
    /// A missing value: the whole file is read to count all of them.
    pub missing: bool,
}

impl Problem {
    pub(super) fn new(line: u64, finding: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { line, column: None, finding: finding.into(), remedy: remedy.into(), missing: false }
    }

    pub(super) fn at_column(mut self, column: impl ToString) -> Self {
        self.column = Some(column.to_string());
        self
    }

    fn into_error(self, path: &Path, line: u64) -> DataError {
        let mut error = DataError::new(path, self.finding, self.remedy).at_line(line);
        error.column = self.column;
        error
    }
}

/// Parses one block of whole lines.
pub(super) trait LineParser: Sync {
    /// Whether newlines inside double quotes belong to a field.
    fn quotes(&self) -> bool;
    fn parse(&self, text: &[u8]) -> Block;
}

/// What [`run`] leaves: the digest of the file and the rows left out.
pub(super) struct Finished {
    pub fingerprint: String,
    pub dropped: u64,
}

/// Parses all of `source` and gives each block to `consume` in file order. `first_line` is the number of the line at
/// which the source stands.
///
/// # Errors
/// The first problem of the file in file order, or what `consume` returns.
pub(super) fn run(
    source: Source,
    first_line: u64,
    parser: &impl LineParser,
    progress: super::Progress<'_>,
    consume: &mut dyn FnMut(Block) -> Result<()>,
) -> Result<Finished> {
    type Job = (Vec<u8>, SyncSender<Block>);
    let workers = rayon::current_num_threads();
    let path = source.path().to_owned();
    let (passed, size) = source.progress();
    let (job_sender, job_receiver) = sync_channel::<Job>(workers);
    let (order_sender, order_receiver) = sync_channel::<Receiver<Block>>(2 * workers);
    // Owned by the workers alone: should all of them panic, the reader sees a closed channel rather than wait for ever.
    let job_receiver = Arc::new(Mutex::new(job_receiver));
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || -> Result<Source> {
            let mut source = source;
            while let Some(text) = source.next_block(parser.quotes())? {
                let (reply, receipt) = sync_channel(1);
                // A closed channel means that the consumer has met an error and wants no more.
                if job_sender.send((text, reply)).is_err() || order_sender.send(receipt).is_err() {
                    break;
                }
            }
            Ok(source)
        });
        for _ in 0..workers {
            let job_receiver = Arc::clone(&job_receiver);
            scope.spawn(move || {
                loop {
                    let job = job_receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((text, reply)) = job else { break };
                    // The consumer may be gone after an error; then nobody wants the block.
                    let _ = reply.send(parser.parse(&text));
                }
            });
        }
        drop(job_receiver);
        let mut state = State { path: &path, line: first_line, missing: 0, dropped: 0, first_missing: None };
        let mut outcome = Ok(());
        for receipt in order_receiver {
            // A worker that panicked sends nothing; leaving the scope passes its panic on.
            let Ok(block) = receipt.recv() else { break };
            // Here too, since not every block leads to a panel: a first pass, or rows that are left out.
            outcome = interrupt::check().and_then(|()| state.take(block, consume));
            if outcome.is_err() {
                break;
            }
            progress(passed.load(Ordering::Relaxed), size);
        }
        // The loop has consumed, and so closed, the channel of receipts: the reader stops at its next block.
        let source = match reader.join() {
            Ok(source) => source,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        outcome?;
        state.close()?;
        let dropped = state.dropped;
        Ok(Finished { fingerprint: source?.finish()?, dropped })
    })
}

/// What the consumer knows of the blocks it has seen.
struct State<'a> {
    path: &'a Path,
    line: u64,
    missing: u64,
    dropped: u64,
    first_missing: Option<DataError>,
}

impl State<'_> {
    fn take(&mut self, mut block: Block, consume: &mut dyn FnMut(Block) -> Result<()>) -> Result<()> {
        self.missing += block.missing;
        self.dropped += block.dropped;
        let line = self.line;
        self.line += block.lines;
        match block.problem.take() {
            Some(problem) if problem.missing => {
                let at = line + problem.line;
                self.first_missing.get_or_insert_with(|| problem.into_error(self.path, at));
                Ok(())
            }
            Some(problem) => {
                let at = line + problem.line;
                // An earlier missing value is the first thing wrong with the file.
                Err(self.first_missing.take().unwrap_or_else(|| problem.into_error(self.path, at)).into())
            }
            None if self.first_missing.is_some() => Ok(()),
            None => consume(block),
        }
    }

    /// The error for missing values, now that they are counted.
    fn close(&mut self) -> Result<()> {
        let Some(mut error) = self.first_missing.take() else { return Ok(()) };
        if self.missing > 1 {
            error.finding.push_str(&format!(", the first of {} missing values in the file", self.missing));
        }
        Err(Error::from(error))
    }
}
