//! Parallel sums over rows that give the same bits at any number of threads.
//!
//! Rows are cut into chunks that depend on their number alone; each chunk is summed by one thread; the chunks' sums
//! are added in order.

use crate::device::PANEL_ROWS;
use rayon::prelude::*;
use std::ops::Range;

/// Runs `f` on one of the threads that share the parallel loops. A loop started from another thread wakes them first and
/// is waited for asleep; of the loops of a network's step, tens of microseconds each, that is a tenth.
pub fn on_worker<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| f())
}

/// At most this many chunks, so that partial sums of large matrices fit in memory.
const MAX_CHUNKS: usize = 64;

/// A chunk is at least this many rows, so that a chunk's sum outweighs its bookkeeping.
const MIN_CHUNK_ROWS: usize = 8 * PANEL_ROWS;

/// The fixed chunks of a range of rows; borders lie on multiples of [`PANEL_ROWS`], so that no panel is shared.
#[must_use]
pub fn chunk_ranges(rows: Range<usize>) -> Vec<Range<usize>> {
    let size = rows.len().div_ceil(MAX_CHUNKS).max(MIN_CHUNK_ROWS).next_multiple_of(PANEL_ROWS);
    let mut chunks = Vec::with_capacity(rows.len() / size + 2);
    let mut start = rows.start;
    while start < rows.end {
        let end = ((start / PANEL_ROWS * PANEL_ROWS) + size).min(rows.end);
        chunks.push(start..end);
        start = end;
    }
    chunks
}

/// Results beyond this many bytes in all are not kept until the last chunk is done.
const MAX_RESULT_BYTES: usize = 64 << 20;

/// Maps every chunk of `rows` with its index, in parallel, and returns the results in order. A single chunk stays on
/// this thread.
pub fn map_chunks<R: Send>(rows: Range<usize>, map: impl Fn(usize, Range<usize>) -> R + Sync) -> Vec<R> {
    let mut results = Vec::new();
    fold_chunks(rows, 0, map, |result| results.push(result));
    results
}

/// Maps every chunk of `rows` with its index, in parallel, and hands the results to `fold` in order. Results of `bytes`
/// each that would be too large together are folded in between, after as many chunks as there are threads.
pub fn fold_chunks<R: Send>(
    rows: Range<usize>,
    bytes: usize,
    map: impl Fn(usize, Range<usize>) -> R + Sync,
    fold: impl FnMut(R),
) {
    let chunks = chunk_ranges(rows);
    if chunks.len() <= 1 {
        chunks.into_iter().enumerate().map(|(i, c)| map(i, c)).for_each(fold);
        return;
    }
    let at_once = match bytes {
        0 => chunks.len(),
        bytes => (MAX_RESULT_BYTES / bytes).max(rayon::current_num_threads()),
    };
    let chunks: Vec<_> = chunks.into_iter().enumerate().collect();
    let mut fold = fold;
    for wave in chunks.chunks(at_once) {
        let results: Vec<R> = wave.par_iter().with_max_len(1).map(|(i, c)| map(*i, c.clone())).collect();
        results.into_iter().for_each(&mut fold);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_the_rows_without_sharing_a_panel() {
        for (start, end) in [(0, 0), (0, 1), (5, 300), (0, 35_296), (100, 1_000_001), (255, 257), (3, 11_000_000)] {
            let chunks = chunk_ranges(start..end);
            assert_eq!(chunks.iter().map(ExactSizeIterator::len).sum::<usize>(), end - start);
            assert!(chunks.windows(2).all(|w| w[0].end == w[1].start && w[0].end % PANEL_ROWS == 0));
            assert!(chunks.len() <= MAX_CHUNKS + 1);
        }
    }
}
