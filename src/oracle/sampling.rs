//! Minibatches: random reshuffling without replacement, resumable from two numbers.
//!
//! Each epoch visits all rows once in an order drawn from `(seed, epoch)` alone. Rows may be grouped in blocks of
//! consecutive rows that stay together (`block_rows > 1`), which reads large mapped stores in longer runs.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The independent random streams of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// The order in which rows are visited.
    DataOrder = 1,
    /// Where training starts.
    Initialization = 2,
    /// Whatever the optimizer draws.
    Optimizer = 3,
    /// Targets drawn from a model's own distribution.
    Targets = 4,
}

/// The generator of one stream of a seed.
#[must_use]
pub fn stream(seed: u64, stream: Stream) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream as u64);
    rng
}

/// Rows of one minibatch, by their number within the training rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    rows: Vec<u32>,
}

impl Batch {
    /// A batch of given rows.
    #[must_use]
    pub fn new(rows: Vec<u32>) -> Self {
        Self { rows }
    }

    /// The rows' numbers.
    #[must_use]
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// Draws minibatches epoch after epoch.
#[derive(Debug)]
pub struct Sampler {
    seed: u64,
    rows: usize,
    block_rows: usize,
    epoch: u64,
    /// Places of the current epoch already passed: `block_rows` for each block of `order`, the short last one too.
    position: usize,
    /// The current epoch's order of blocks; empty until first needed.
    order: Vec<u32>,
}

impl Sampler {
    /// A sampler over `rows` rows, kept together in blocks of `block_rows`.
    #[must_use]
    pub fn new(seed: u64, rows: usize, block_rows: usize) -> Self {
        Self { seed, rows, block_rows: block_rows.max(1), epoch: 0, position: 0, order: Vec::new() }
    }

    /// Epoch and position: what a checkpoint needs.
    #[must_use]
    pub fn position(&self) -> (u64, u64) {
        (self.epoch, self.position as u64)
    }

    /// Goes to a position recorded earlier.
    pub fn seek(&mut self, epoch: u64, position: u64) {
        self.epoch = epoch;
        self.position = position as usize;
        self.order.clear();
    }

    fn shuffle(&mut self) {
        let mut rng = stream(self.seed ^ self.epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15), Stream::DataOrder);
        self.order = (0..self.rows.div_ceil(self.block_rows) as u32).collect();
        self.order.shuffle(&mut rng);
    }

    /// The next `size` rows (fewer only if the training set is smaller); an epoch's last batch is completed from the
    /// next epoch, so that every batch has the same size.
    pub fn next_batch(&mut self, size: usize) -> Batch {
        let size = size.clamp(1, self.rows.max(1));
        let mut rows = Vec::with_capacity(size);
        while rows.len() < size && self.rows > 0 {
            if self.order.is_empty() {
                self.shuffle();
            }
            let slot = self.position / self.block_rows;
            if slot == self.order.len() {
                self.epoch += 1;
                self.position = 0;
                self.shuffle();
                continue;
            }
            let row = self.order[slot] as usize * self.block_rows + self.position % self.block_rows;
            self.position += 1;
            if row < self.rows {
                rows.push(row as u32);
            }
        }
        Batch { rows }
    }
}

/// `count` distinct rows of `0..rows` drawn from `rng`, in increasing order (Floyd's algorithm).
pub fn draw_rows(rng: &mut ChaCha8Rng, rows: usize, count: usize) -> Batch {
    let count = count.min(rows);
    let mut chosen = std::collections::BTreeSet::new();
    for top in rows - count..rows {
        let candidate = rng.next_u64() % (top as u64 + 1);
        if !chosen.insert(candidate as u32) {
            chosen.insert(top as u32);
        }
    }
    Batch { rows: chosen.into_iter().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(sampler: &mut Sampler, rows: usize, batch: usize) -> Vec<u32> {
        let mut seen = Vec::new();
        while seen.len() < rows {
            seen.extend_from_slice(sampler.next_batch(batch).rows());
        }
        seen
    }

    #[test]
    fn an_epoch_visits_every_row_once() {
        for block in [1, 4, 7, 100] {
            let mut sampler = Sampler::new(3, 100, block);
            for _ in 0..3 {
                let mut seen = epoch(&mut sampler, 100, 10);
                seen.sort_unstable();
                assert_eq!(seen, (0..100).collect::<Vec<_>>(), "blocks of {block}");
            }
        }
    }

    #[test]
    fn a_sampler_goes_on_from_its_recorded_position() {
        let mut a = Sampler::new(9, 57, 1);
        for _ in 0..13 {
            a.next_batch(8);
        }
        let (epoch, position) = a.position();
        let mut b = Sampler::new(9, 57, 1);
        b.seek(epoch, position);
        for _ in 0..20 {
            assert_eq!(a.next_batch(8), b.next_batch(8));
        }
    }

    #[test]
    fn drawn_rows_are_distinct_and_sorted() {
        let mut rng = stream(1, Stream::Optimizer);
        let batch = draw_rows(&mut rng, 50, 49);
        assert!(batch.rows().windows(2).all(|w| w[0] < w[1]));
        assert_eq!(batch.len(), 49);
        assert_eq!(draw_rows(&mut rng, 5, 9).len(), 5);
    }
}
