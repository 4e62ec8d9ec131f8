//! Every operation of one device beside the same on another: random shapes, ragged ones among them, outputs filled with NaN
//! before, and memory around views that must stay as it was.

mod arrays;
mod regression;
mod tokens;

use crate::device::array::{View, ViewMut};
use crate::device::{Array, Backend, Loss};
use std::fmt::Write as _;

/// The worst that was seen of an operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The operation and its variant.
    pub operation: String,
    /// How often it ran.
    pub runs: usize,
    /// The largest norm-wise relative error of an output; infinite where a number was missing.
    pub error: f64,
    /// What it may be.
    pub bound: f64,
}

impl Row {
    /// Whether the error is within the bound.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.error <= self.bound
    }
}

/// The bound of operations in `f32`.
const SINGLE: f64 = 1e-5;
/// Of proximal steps, which iterate to a tolerance.
const ITERATED: f64 = 1e-4;
/// Of operations in `f64`.
const DOUBLE: f64 = 1e-12;
/// Of what must be equal.
const EXACT: f64 = 0.0;

/// Runs every operation `rounds` times on both devices, sizes up to `most` columns.
#[must_use]
pub fn compare(reference: &dyn Backend, other: &dyn Backend, rounds: u64, most: usize) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for (operation, bound, run) in cases() {
        let mut row = Row { operation, runs: 0, error: 0.0, bound };
        for seed in 0..rounds {
            let on = |device| {
                let mut bench = Bench { device, random: Random(seed), most, outputs: Vec::new() };
                run(&mut bench);
                bench.outputs
            };
            let (expected, found) = (on(reference), on(other));
            assert_eq!(expected.len(), found.len(), "outputs of {}", row.operation);
            let error = expected.iter().zip(&found).map(|(a, b)| relative_error(a, b)).fold(0.0, f64::max);
            row.error = row.error.max(error);
            row.runs += 1;
        }
        rows.push(row);
    }
    rows
}

/// The rows as a table, and how many do not hold.
#[must_use]
pub fn table(rows: &[Row]) -> (String, usize) {
    let mut text = format!("{:<38}{:>6}{:>12}{:>10}\n", "operation", "runs", "error", "bound");
    for row in rows {
        let mark = if row.holds() { "" } else { "  FAILS" };
        let _ = writeln!(text, "{:<38}{:>6}{:>12.1e}{:>10.0e}{mark}", row.operation, row.runs, row.error, row.bound);
    }
    (text, rows.iter().filter(|row| !row.holds()).count())
}

/// `|a - b| / |a|`; infinite where one has a NaN and the other not, or one is all zeros and the other not.
fn relative_error(a: &[f64], b: &[f64]) -> f64 {
    if a.len() != b.len() || a.iter().zip(b).any(|(a, b)| a.is_nan() != b.is_nan()) {
        return f64::INFINITY;
    }
    let finite = || a.iter().zip(b).filter(|(a, _)| !a.is_nan());
    let difference: f64 = finite().map(|(a, b)| (a - b).powi(2)).sum();
    let norm: f64 = finite().map(|(a, _)| a.powi(2)).sum();
    let error = if difference == 0.0 { 0.0 } else { (difference / norm).sqrt() };
    if error.is_nan() { f64::INFINITY } else { error }
}

/// A generator of its own, so that both devices meet the same numbers (Steele, Lea and Flood 2014, splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// Uniform in `[0, 1)`, with 24 bits as `f32` has them.
    fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / 16_777_216.0
    }

    /// About standard normal: twelve uniform numbers less their mean.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }
}

/// A matrix within a larger array.
struct Placed {
    array: Array,
    start: usize,
    rows: usize,
    columns: usize,
    stride: usize,
}

impl Placed {
    fn view(&self) -> View<'_> {
        self.array.strided(self.start, self.rows, self.columns, self.stride)
    }

    fn view_mut(&mut self) -> ViewMut<'_> {
        self.array.strided_mut(self.start, self.rows, self.columns, self.stride)
    }
}

/// One run of an operation.
struct Bench<'a> {
    device: &'a dyn Backend,
    random: Random,
    most: usize,
    outputs: Vec<Vec<f64>>,
}

impl Bench<'_> {
    /// A number from 1 to `most`, often next to a multiple of what blocks and warps take.
    fn size(&mut self, most: usize) -> usize {
        let edges = [1, 2, 31, 32, 33, 63, 64, 65, 255, 256, 257];
        let size =
            if self.random.below(2) == 0 { edges[self.random.below(edges.len())] } else { self.random.below(most) };
        size.clamp(1, most)
    }

    fn columns(&mut self) -> usize {
        self.size(self.most)
    }

    fn rows(&mut self) -> usize {
        self.size(self.most.div_ceil(8))
    }

    fn flat(&mut self, values: &[f32]) -> Array {
        let mut array = self.device.zeros(values.len());
        self.device.upload(array.view_mut(0, 1, values.len()), values);
        array
    }

    fn normal(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.random.normal()).collect()
    }

    fn vector(&mut self, count: usize) -> Array {
        let values = self.normal(count);
        self.flat(&values)
    }

    /// A matrix somewhere in an array of other numbers.
    fn placed(
        &mut self,
        rows: usize,
        columns: usize,
        mut value: impl FnMut(&mut Random, usize, usize) -> f32,
    ) -> Placed {
        let (start, stride) = (self.random.below(7), columns + self.random.below(5));
        let tail = self.random.below(9);
        let mut values = self.normal(start + rows * stride + tail);
        for i in 0..rows {
            for j in 0..columns {
                values[start + i * stride + j] = value(&mut self.random, i, j);
            }
        }
        Placed { array: self.flat(&values), start, rows, columns, stride }
    }

    fn matrix(&mut self, rows: usize, columns: usize) -> Placed {
        self.placed(rows, columns, |random, _, _| random.normal())
    }

    /// A matrix of NaN.
    fn poisoned(&mut self, rows: usize, columns: usize) -> Placed {
        self.placed(rows, columns, |_, _, _| f32::NAN)
    }

    /// Keeps an array as an output.
    fn output(&mut self, array: &Array) {
        let values = self.device.download(array.view(0, 1, array.len()));
        self.outputs.push(values.into_iter().map(f64::from).collect());
    }

    fn number(&mut self, value: f64) {
        self.outputs.push(vec![value]);
    }

    /// Targets that a loss takes.
    fn targets(&mut self, loss: Loss, outputs: usize, columns: usize) -> Placed {
        match loss {
            Loss::Softmax => self.placed(1, columns, |random, _, _| random.below(outputs) as f32),
            Loss::Squared => self.matrix(outputs, columns),
            _ => self.placed(outputs, columns, |random, _, _| random.below(2) as f32),
        }
    }
}

/// One run of an operation; what it leaves are the bench's outputs.
type Run = Box<dyn Fn(&mut Bench<'_>)>;
/// An operation's name, bound and run.
type Case = (String, f64, Run);

/// All operations.
fn cases() -> Vec<Case> {
    [arrays::cases(), tokens::cases(), regression::cases()].into_iter().flatten().collect()
}
