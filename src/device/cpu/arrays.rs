//! The CPU as a device of arrays: rows are visited in blocks that stay in cache.
//!
//! A job with few parameters (28-300-1: 9,001) is cut into chunks of rows, each summed by one thread into an accumulator
//! of its own; the accumulators are added in order, in `f64`. A job with many (an autoencoder: 2.8 million) would drown in
//! accumulators: its blocks follow one another and each operation runs on all threads.

use super::design::Selection;
use super::products::{Rect, RectMut};
use super::{elementwise, linalg, losses, products, proximal};
use crate::device::array::{Array, Shape, Storage, View, ViewMut};
use crate::device::cpu::buffer::Buffer;
use crate::device::{Activation, AdamStep, Backend, BlockBody, Job, Loss, PANEL_ROWS, Regression, Table, Tokens};
use crate::error::Result;
use ndarray::Array2;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// The CPU.
#[derive(Debug, Clone, Copy)]
pub struct Cpu {
    /// Whether single operations run on several threads.
    pub(super) parallel: bool,
}

impl Default for Cpu {
    fn default() -> Self {
        Self { parallel: true }
    }
}

/// Bytes of a block, so that it stays in a core's second-level cache.
const BLOCK_BYTES: usize = 1 << 20;
/// Rows of a block: at most, at least, and a multiple of.
const MOST_ROWS: usize = 256;
const LEAST_ROWS: usize = 64;
/// Jobs of fewer rows are cut finer, so that several threads find work.
const SMALL_JOB: usize = 1024;
const SMALL_JOB_ROWS: usize = 128;
/// Chunks of a job: so many accumulators are held.
const CHUNKS: usize = 32;
/// With more parameters than this, sums are not accumulated by several threads.
const MANY_PARAMETERS: usize = 1 << 17;
/// Rows of a block whose operations run on all threads.
const LARGE_BLOCK_ROWS: usize = 1024;
/// Bytes of accumulators that are kept from job to job: memory given back and asked for again comes page by page, which
/// takes longer than many a block's work.
const KEPT_BYTES: usize = 32 << 20;
/// A job of fewer rows times parameters stays on its thread.
const SMALL_JOB_WORK: f64 = 1e5;

pub(super) fn values(array: &Array) -> &[f32] {
    match &array.storage {
        Storage::Cpu(values) => values,
        Storage::Cuda(_) => panic!("an array of a GPU on the CPU"),
    }
}

pub(super) fn values_mut(array: &mut Array) -> &mut [f32] {
    match &mut array.storage {
        Storage::Cpu(values) => values,
        Storage::Cuda(_) => panic!("an array of a GPU on the CPU"),
    }
}

fn end(shape: Shape) -> usize {
    if shape.rows == 0 { shape.start } else { shape.start + (shape.rows - 1) * shape.stride + shape.columns }
}

pub(super) fn rect(view: View<'_>) -> Rect<'_> {
    let Shape { start, rows, columns, stride } = view.shape;
    let values = &values(view.array)[start..end(view.shape)];
    Rect { values, rows, columns, stride, transposed: view.transposed }
}

pub(super) fn rect_mut(view: ViewMut<'_>) -> RectMut<'_> {
    let Shape { start, rows, columns, stride } = view.shape;
    let values = &mut values_mut(view.array)[start..end(view.shape)];
    RectMut { values, rows, columns, stride }
}

fn to_f64(view: View<'_>) -> Array2<f64> {
    let rect = rect(view);
    Array2::from_shape_fn((rect.rows, rect.columns), |(i, j)| f64::from(rect.row(i)[j]))
}

fn from_f64<'a>(values: impl ExactSizeIterator<Item = &'a f64>) -> Array {
    let mut buffer = Buffer::new(values.len());
    buffer.iter_mut().zip(values).for_each(|(to, &from)| *to = from as f32);
    Array { storage: Storage::Cpu(buffer) }
}

/// Adds accumulators in order, element by element in `f64`.
fn add_up(sum: &mut [f32], parts: &[&[f32]]) {
    const SPAN: usize = 1024;
    sum.par_chunks_mut(SPAN).with_min_len(4).enumerate().for_each(|(i, sum)| {
        let mut total = [0.0_f64; SPAN];
        for part in parts {
            let part = &part[i * SPAN..][..sum.len()];
            total.iter_mut().zip(part).for_each(|(total, &part)| *total += f64::from(part));
        }
        sum.iter_mut().zip(&total).for_each(|(sum, &total)| *sum = total as f32);
    });
}

/// Accumulators between jobs.
static ACCUMULATORS: Mutex<Vec<Buffer<f32>>> = Mutex::new(Vec::new());

/// An accumulator of `len` zeros.
fn accumulator(len: usize) -> Array {
    let mut kept = ACCUMULATORS.lock().unwrap_or_else(PoisonError::into_inner);
    let place = kept.iter().position(|buffer| buffer.len() == len);
    let found = place.map(|place| kept.swap_remove(place));
    drop(kept);
    let buffer = match found {
        Some(mut buffer) => {
            buffer.fill(0.0);
            buffer
        }
        None => Buffer::new(len),
    };
    Array { storage: Storage::Cpu(buffer) }
}

/// Puts accumulators away, those of the last job before others.
fn put_away(parts: Vec<Array>) {
    let mut kept = ACCUMULATORS.lock().unwrap_or_else(PoisonError::into_inner);
    for part in parts {
        if let Storage::Cpu(buffer) = part.storage {
            kept.push(buffer);
        }
    }
    let bytes = |buffer: &Buffer<f32>| size_of_val::<[f32]>(buffer);
    let mut total: usize = kept.iter().map(bytes).sum();
    while total > KEPT_BYTES {
        total -= bytes(&kept.remove(0));
    }
}

impl Cpu {
    const ONE_THREAD: Self = Self { parallel: false };

    /// Whether a job's blocks follow one another, each operation on all threads.
    fn is_wide(job: Job) -> bool {
        job.parameters > MANY_PARAMETERS
    }
}

impl Backend for Cpu {
    fn name(&self) -> String {
        format!("cpu ({})", super::instruction_set())
    }

    fn regression(&self) -> &dyn Regression {
        self
    }

    fn tokens(&self) -> Option<&dyn Tokens> {
        Some(self)
    }

    fn zeros(&self, len: usize) -> Array {
        Array { storage: Storage::Cpu(Buffer::new(len)) }
    }

    fn upload(&self, to: ViewMut<'_>, from: &[f32]) {
        let RectMut { values, rows, columns, stride } = rect_mut(to);
        assert_eq!(from.len(), rows * columns, "numbers for a {rows} x {columns} view");
        for (to, from) in values.chunks_mut(stride.max(1)).zip(from.chunks(columns.max(1))) {
            to[..columns].copy_from_slice(from);
        }
    }

    fn copy(&self, to: ViewMut<'_>, from: View<'_>) {
        let from = rect(from);
        let to = rect_mut(to);
        assert_eq!((to.rows, to.columns), (from.rows, from.columns), "shapes of a copy");
        elementwise::copy(to, from, self.parallel);
    }

    fn download(&self, from: View<'_>) -> Vec<f32> {
        let rect = rect(from);
        if rect.stride == rect.columns {
            return rect.values.to_vec();
        }
        (0..rect.rows).flat_map(|i| rect.row(i)).copied().collect()
    }

    fn fill(&self, a: &mut Array, value: f32) {
        elementwise::map(values_mut(a), |a| *a = value);
    }

    fn scale(&self, a: &mut Array, factor: f32) {
        elementwise::map(values_mut(a), |a| *a *= factor);
    }

    fn axpby(&self, own: f32, a: &mut Array, factor: f32, b: &Array) {
        let (a, b) = (values_mut(a), values(b));
        if own == 0.0 {
            elementwise::zip(a, b, |a, b| *a = factor * b);
        } else if own == 1.0 {
            elementwise::zip(a, b, |a, b| *a += factor * b);
        } else {
            elementwise::zip(a, b, |a, b| *a = own * *a + factor * b);
        }
    }

    fn dot(&self, a: &Array, b: &Array, range: Range<usize>) -> f64 {
        elementwise::dot(&values(a)[range.clone()], &values(b)[range])
    }

    fn largest(&self, a: &Array) -> f64 {
        elementwise::largest(values(a))
    }

    fn nonzero(&self, a: &Array) -> usize {
        values(a).iter().filter(|&&v| v != 0.0).count()
    }

    fn divide(&self, a: &mut Array, b: &Array) {
        elementwise::zip(values_mut(a), values(b), |a, b| *a /= b);
    }

    fn shifted_power(&self, a: &mut Array, shift: f32, exponent: f32) {
        elementwise::map(values_mut(a), |a| *a = (*a + shift).max(1e-30).powf(exponent));
    }

    fn adam(
        &self,
        a: &mut Array,
        g: &Array,
        range: Range<usize>,
        m: Option<&mut Array>,
        v: &mut Array,
        place: usize,
        step: AdamStep,
    ) {
        let own = place..place + range.len();
        let m = m.map(|m| &mut values_mut(m)[own.clone()]);
        let (a, g) = (&mut values_mut(a)[range.clone()], &values(g)[range]);
        elementwise::adam(a, g, m, &mut values_mut(v)[own], step);
    }

    fn add_range(&self, a: &mut Array, range: Range<usize>, factor: f32, b: &Array) {
        elementwise::zip(&mut values_mut(a)[range.clone()], &values(b)[range], |a, b| *a += factor * b);
    }

    fn product(&self, out: ViewMut<'_>, keep: bool, a: View<'_>, b: View<'_>) {
        products::product(rect_mut(out), keep, rect(a), rect(b), self.parallel);
    }

    fn row_sums(&self, out: ViewMut<'_>, keep: bool, a: View<'_>) {
        elementwise::row_sums(rect_mut(out).values, keep, rect(a), self.parallel);
    }

    fn squares(&self, out: ViewMut<'_>, a: View<'_>) {
        elementwise::squares(rect_mut(out), rect(a), self.parallel);
    }

    fn scale_columns(&self, out: ViewMut<'_>, a: View<'_>, w: View<'_>) {
        elementwise::scale_columns(rect_mut(out), rect(a), rect(w).values, self.parallel);
    }

    fn blend(&self, own: f32, a: ViewMut<'_>, factor: f32, b: View<'_>) {
        elementwise::blend(own, rect_mut(a), factor, rect(b), self.parallel);
    }

    fn column_dots(&self, out: ViewMut<'_>, keep: bool, a: View<'_>, b: View<'_>) {
        elementwise::column_dots(rect_mut(out).values, keep, rect(a), rect(b));
    }

    fn inner(&self, a: View<'_>, b: View<'_>) -> f64 {
        let (a, b) = (rect(a), rect(b));
        (0..a.rows).map(|i| elementwise::dot(a.row(i), b.row(i))).sum()
    }

    fn count_positive(&self, a: View<'_>) -> usize {
        let a = rect(a);
        (0..a.rows).map(|i| elementwise::count_positive(a.row(i))).sum()
    }

    fn activate(&self, h: Activation, a: ViewMut<'_>, bias: View<'_>, slope: Option<ViewMut<'_>>) {
        elementwise::activate(h, rect_mut(a), rect(bias).values, slope.map(rect_mut), self.parallel);
    }

    fn tangent(&self, h: Activation, t: ViewMut<'_>, bias: View<'_>, kept: View<'_>) {
        elementwise::tangent(h, rect_mut(t), rect(bias).values, rect(kept), self.parallel);
    }

    fn backpropagate(&self, h: Activation, below: ViewMut<'_>, w: View<'_>, d: View<'_>, kept: View<'_>) {
        let (below, w, d, kept) = (rect_mut(below), rect(w), rect(d), rect(kept));
        if w.rows == 1 {
            elementwise::multiply_slopes(h, below, Some((w.row(0), d.row(0))), kept, self.parallel);
            return;
        }
        let RectMut { values, rows, columns, stride } = below;
        let above = Rect { transposed: true, ..w };
        products::product(RectMut { values: &mut *values, rows, columns, stride }, false, above, d, self.parallel);
        if h != Activation::Identity {
            elementwise::multiply_slopes(h, RectMut { values, rows, columns, stride }, None, kept, self.parallel);
        }
    }

    fn loss(&self, loss: Loss, outputs: View<'_>, targets: View<'_>, residual: Option<(ViewMut<'_>, f32)>) -> f64 {
        let residual = residual.map(|(residual, factor)| (rect_mut(residual), factor));
        losses::loss(loss, rect(outputs), rect(targets), residual, self.parallel)
    }

    fn loss_proximal(
        &self,
        loss: Loss,
        center: View<'_>,
        metric: View<'_>,
        targets: View<'_>,
        t: ViewMut<'_>,
    ) -> [f64; 2] {
        proximal::loss(loss, rect(center), rect(metric), rect(targets), rect_mut(t))
    }

    fn rectifier_proximal(&self, z: ViewMut<'_>, a: View<'_>, m: View<'_>, gamma: f32, beta: f32) -> [f64; 3] {
        proximal::rectifier(rect_mut(z), rect(a), rect(m), gamma, beta, self.parallel)
    }

    fn loss_curvature(&self, loss: Loss, outputs: View<'_>, t: ViewMut<'_>, factor: f32) {
        losses::curvature(loss, rect(outputs), rect_mut(t), factor, self.parallel);
    }

    fn sampled_residual(&self, loss: Loss, outputs: View<'_>, noise: View<'_>, residual: ViewMut<'_>) {
        losses::sampled_residual(loss, rect(outputs), rect(noise), rect_mut(residual));
    }

    fn load(&self, table: &Table, rows: Selection<'_>, out: ViewMut<'_>) {
        let RectMut { values: to, rows: columns, columns: count, stride } = rect_mut(out);
        assert!(columns == table.columns() && count == rows.len(), "a {columns} x {count} view for rows of {table:?}");
        if count == 0 {
            return;
        }
        let from = table.panels.values();
        let place = |row: usize| {
            let row = table.rows.start + row;
            row / PANEL_ROWS * PANEL_ROWS * columns + row % PANEL_ROWS
        };
        // Columns and rows that are gathered together: a row's lines are then near each other.
        const TOGETHER: usize = 16;
        const GATHERED: usize = 256;
        let load = |first: usize, to: &mut [f32]| match rows {
            Selection::Range(start, end) => {
                for (j, to) in (first..columns).zip(to.chunks_mut(stride)) {
                    let (shift, factor) = (table.shift[j], table.factor[j]);
                    let mut row = start;
                    while row < end {
                        let left = PANEL_ROWS - (table.rows.start + row) % PANEL_ROWS;
                        let piece = left.min(end - row);
                        let from = &from[place(row) + j * PANEL_ROWS..][..piece];
                        for (to, from) in to[row - start..][..piece].iter_mut().zip(from) {
                            *to = (from - shift) * factor;
                        }
                        row += piece;
                    }
                }
            }
            Selection::List(list) => {
                // Column by column, so that many elements are on their way from memory at once.
                let mut places = [0; GATHERED];
                for (number, rows) in list.chunks(GATHERED).enumerate() {
                    let places = &mut places[..rows.len()];
                    places.iter_mut().zip(rows).for_each(|(to, &row)| *to = place(row as usize));
                    for (j, to) in (first..columns).zip(to.chunks_mut(stride)) {
                        let (shift, factor) = (table.shift[j], table.factor[j]);
                        let from = &from[j * PANEL_ROWS..];
                        let to = &mut to[number * GATHERED..][..rows.len()];
                        for (to, &place) in to.iter_mut().zip(&*places) {
                            *to = (from[place] - shift) * factor;
                        }
                    }
                }
            }
        };
        if self.parallel && columns > TOGETHER {
            let groups = to.par_chunks_mut(TOGETHER * stride).enumerate();
            groups.for_each(|(i, to)| load(i * TOGETHER, to));
        } else {
            to.chunks_mut(TOGETHER * stride).enumerate().for_each(|(i, to)| load(i * TOGETHER, to));
        }
    }

    fn block_rows(&self, job: Job) -> usize {
        if Self::is_wide(job) {
            return job.rows.clamp(1, LARGE_BLOCK_ROWS);
        }
        let fitting = BLOCK_BYTES / (size_of::<f32>() * job.width.max(1));
        let most = if job.rows < SMALL_JOB { SMALL_JOB_ROWS } else { MOST_ROWS };
        (fitting / LEAST_ROWS * LEAST_ROWS).clamp(LEAST_ROWS, most).min(job.rows.max(1))
    }

    fn for_blocks(&self, job: Job, sum: &mut Array, body: BlockBody<'_>) -> Result<f64> {
        assert_eq!(sum.len(), job.sum, "the sum of a job");
        let size = self.block_rows(job);
        let blocks = job.rows.div_ceil(size);
        let block = |i: usize| i * size..((i + 1) * size).min(job.rows);
        if blocks == 0 {
            self.fill(sum, 0.0);
        }
        let is_small = (job.parameters as f64) * (job.rows as f64) < SMALL_JOB_WORK;
        if Self::is_wide(job) || blocks <= 1 || !self.parallel {
            let device = if is_small { &Self::ONE_THREAD } else { self };
            return (0..blocks).try_fold(0.0, |total, i| Ok(total + body(device, block(i), sum, i > 0)?));
        }
        let chunk = blocks.div_ceil(CHUNKS);
        let run = |first: usize| -> Result<(Array, f64)> {
            let mut part = accumulator(job.sum);
            let mut total = 0.0;
            for i in first..(first + chunk).min(blocks) {
                total += body(&Self::ONE_THREAD, block(i), &mut part, i > first)?;
            }
            Ok((part, total))
        };
        let firsts: Vec<usize> = (0..blocks).step_by(chunk).collect();
        let parts: Vec<_> = if is_small {
            firsts.into_iter().map(run).collect::<Result<_>>()?
        } else {
            firsts.into_par_iter().with_max_len(1).map(run).collect::<Result<_>>()?
        };
        let accumulators: Vec<&[f32]> = parts.iter().map(|(part, _)| values(part)).collect();
        add_up(values_mut(sum), &accumulators);
        let (parts, totals): (Vec<Array>, Vec<f64>) = parts.into_iter().unzip();
        put_away(parts);
        Ok(totals.iter().sum())
    }

    fn cholesky(&self, a: View<'_>) -> Result<Array> {
        Ok(from_f64(linalg::cholesky(&to_f64(a))?.iter()))
    }

    fn symmetric_eigen(&self, a: View<'_>) -> Result<(Array, Array)> {
        let (eigenvalues, vectors) = linalg::symmetric_eigen(&to_f64(a))?;
        Ok((from_f64(eigenvalues.iter()), from_f64(vectors.iter())))
    }

    fn inverses(&self, of: &[(View<'_>, f64)]) -> Result<Vec<Array>> {
        let inverse = |&(a, ridge): &(View<'_>, f64)| -> Result<Array> {
            let mut matrix = to_f64(a);
            matrix.diag_mut().mapv_inplace(|v| v + ridge);
            Ok(from_f64(linalg::positive_inverse(&matrix)?.iter()))
        };
        if !self.parallel {
            return of.iter().map(inverse).collect();
        }
        let all: Vec<Result<Array>> = of.par_iter().with_max_len(1).map(inverse).collect();
        all.into_iter().collect()
    }

    fn orthogonal_factor(&self, a: View<'_>) -> Result<Array> {
        let rect = rect(a);
        let matrix = Array2::from_shape_fn((rect.rows, rect.columns), |(i, j)| rect.row(i)[j]);
        let factor = linalg::orthogonal_factor(matrix)?;
        let mut buffer = Buffer::new(factor.len());
        buffer.iter_mut().zip(&factor).for_each(|(to, &from)| *to = from);
        Ok(Array { storage: Storage::Cpu(buffer) })
    }
}
