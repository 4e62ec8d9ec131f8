//! Passes of generalized linear models on a GPU (`kernels/regression.cu`, `kernels/gram.cu`).
//!
//! The rows' inputs and targets are brought there once, as they lie; columns of the design are made where they are needed, from a
//! table of shifts and factors. With every pass coefficients go there and sums come back. Sums over rows have two stages whose
//! shape follows from sizes alone; what a pass keeps for each row is planned: no more than [`BLOCK_BYTES`] at once.

use super::arrays::{BLOCK_BYTES, Cuda, arguments};
use super::machine::{Argument, Core, Memory, Plain, THREADS};
use crate::device::cpu::design::{ColumnTable, Design, Selection};
use crate::device::cpu::glm::{GramWeights, Likelihood, Request, Sums};
use crate::device::{PANEL_ROWS, Regression, RowCurvature};
use crate::error::Result;
use std::ops::Range;
use std::sync::{Arc, PoisonError};

/// `ROW_SUMS` of `kernels/regression.cu`: loss, rows classified rightly, largest predictor, smallest margin (its negative).
const ROW_SUMS: usize = 4;
/// `WANT_GRADIENT` and `WANT_SQUARES`.
const WANT_GRADIENT: i32 = 1;
const WANT_SQUARES: i32 = 2;
/// `WARP` of `kernels/common.cu`.
const WARP: usize = 32;
/// `GRAM_TILE` of `kernels/gram.cu`.
const GRAM_TILE: usize = 32;
/// Blocks of a pass at most: so many are at work on a large GPU at once, or wait.
const BLOCKS: usize = 512;
/// Blocks of a Gram matrix at most, while its parts have many rows; panels that a block takes at least.
const GRAM_BLOCKS: usize = 2048;
const GRAM_PANELS: usize = 4;

/// What linear predictors become; `PREDICTORS_ALONE` of the kernels is without a likelihood.
fn kind_of(likelihood: Option<Likelihood>) -> i32 {
    match likelihood {
        Some(Likelihood::Binary) => 0,
        Some(Likelihood::Gaussian) => 1,
        Some(Likelihood::Multinomial { reference: false, .. }) => 2,
        Some(Likelihood::Multinomial { reference: true, .. }) => 3,
        None => 4,
    }
}

/// The table of a design's columns on the device; `DesignColumns` in `kernels/regression.cu`.
#[derive(Debug)]
pub(super) struct Columns {
    factors: Memory,
    single: Memory,
    double: Memory,
    inputs: usize,
    count: usize,
}

impl Columns {
    fn new(core: &Arc<Core>, design: &Design) -> Self {
        let ColumnTable { factors, affine } = design.transform().table();
        let single: Vec<f32> = affine.iter().map(|&v| v as f32).collect();
        Self {
            factors: Memory::with(core, &factors),
            single: Memory::with(core, &single),
            double: Memory::with(core, &affine),
            inputs: design.transform().inputs(),
            count: design.columns(),
        }
    }

    fn argument(&self, high: bool) -> [u64; 6] {
        let affine = if high { &self.double } else { &self.single };
        [self.factors.address(), affine.address(), self.inputs as u64, self.count as u64, 0, 0]
    }
}

/// Rows of a design on the device; `RegressionRows` in `kernels/regression.cu`.
struct PlacedRows {
    features: Arc<Memory>,
    targets: Arc<Memory>,
    columns: Arc<Columns>,
    list: Option<Memory>,
    first: usize,
    count: usize,
}

impl PlacedRows {
    fn argument(&self) -> [u64; 6] {
        let list = self.list.as_ref().map_or(0, Memory::address);
        let inputs = self.columns.inputs as u64;
        [self.features.address(), self.targets.address(), list, self.first as u64, self.count as u64, inputs]
    }
}

/// What a visit of rows leaves: sums by their flags, and addresses of what is kept for each row, `C x rows` each, 0 for nothing
/// (`RegressionRoom` in `kernels/regression.cu`).
#[derive(Debug, Clone, Copy, Default)]
struct Wanted {
    sums: i32,
    predictors: u64,
    weights: u64,
    residuals: u64,
    old_residuals: u64,
}

/// A kernel's name in `f32` and in `f64`.
fn kernel(names: [&'static str; 2], high: bool) -> &'static str {
    names[usize::from(high)]
}

/// Bytes of a number.
fn size(high: bool) -> usize {
    if high { size_of::<f64>() } else { size_of::<f32>() }
}

/// Blocks of a pass whose parts are `sums` numbers each, with room for residuals of `outputs` predictors.
fn blocks(rows: usize, sums: usize, outputs: usize, high: bool) -> usize {
    let bytes = sums * size_of::<f64>() + outputs * THREADS as usize * size(high);
    rows.div_ceil(THREADS as usize).min(BLOCKS).min(BLOCK_BYTES / bytes).max(1)
}

impl Cuda {
    /// Numbers from the host in `f32`, or in `f64` if `high`.
    fn reals(&self, values: &[f64], high: bool) -> Memory {
        if high {
            return Memory::with(&self.core, values);
        }
        Memory::with(&self.core, &values.iter().map(|&v| v as f32).collect::<Vec<_>>())
    }

    /// Room for numbers.
    fn room(&self, len: usize, high: bool) -> Memory {
        Memory::new(&self.core, len * size(high))
    }

    /// Numbers on the host; NaN after a fault.
    fn to_host(&self, memory: &Memory, len: usize, high: bool) -> Vec<f64> {
        fn read<T: Plain>(memory: &Memory, mut values: Vec<T>) -> Vec<T> {
            memory.read(0, &mut values);
            values
        }
        if high {
            return read(memory, vec![f64::NAN; len]);
        }
        read(memory, vec![f32::NAN; len]).into_iter().map(f64::from).collect()
    }

    /// Brings the `count` parts of each sum together; the first sums may be the [`ROW_SUMS`].
    fn finish(&self, parts: u64, count: usize, sums: &Memory, len: usize, has_row_sums: bool) -> Vec<f64> {
        let grid = [(len * WARP).div_ceil(THREADS as usize).clamp(1, 1 << 16) as u32, 1];
        self.core.launch("finish_sums", grid, arguments![parts, count, len, has_row_sums, sums.address()]);
        self.to_host(sums, len, true)
    }

    fn columns_of(&self, design: &Design) -> Arc<Columns> {
        let mut kept = self.designs.lock().unwrap_or_else(PoisonError::into_inner);
        let transform = design.transform();
        let new = || (Arc::clone(transform), Arc::new(Columns::new(&self.core, design)));
        Arc::clone(&kept.entry(Arc::as_ptr(transform) as usize).or_insert_with(new).1)
    }

    fn placed(&self, design: &Design, selection: Selection<'_>) -> PlacedRows {
        let (features, targets, start) = design.numbers();
        let (first, list) = match selection {
            Selection::Range(first, _) => (first, None),
            Selection::List(list) => (0, Some(Memory::with(&self.core, list))),
        };
        PlacedRows {
            features: self.panels(features),
            targets: self.panels(targets),
            columns: self.columns_of(design),
            list,
            first: start + first,
            count: selection.len(),
        }
    }

    /// Visits rows; answers the [`ROW_SUMS`], then the `wanted` sums.
    fn visit(
        &self,
        rows: &PlacedRows,
        likelihood: Option<Likelihood>,
        outputs: usize,
        theta: &[f64],
        wanted: Wanted,
        high: bool,
    ) -> Vec<f64> {
        let length = ROW_SUMS + wanted.sums.count_ones() as usize * outputs * rows.columns.count;
        let blocks = blocks(rows.count, length, outputs, high);
        let theta = self.reals(theta, high);
        let scratch = self.room(blocks * outputs * THREADS as usize, high);
        let Wanted { sums: flags, predictors, weights, residuals, old_residuals } = wanted;
        let room = [scratch.address(), predictors, weights, residuals, old_residuals, 0];
        let sums = Memory::new(&self.core, length * size_of::<f64>());
        self.with_parts(length * blocks, |_, parts| {
            let name = kernel(["regression_pass", "regression_pass_double"], high);
            let columns = rows.columns.argument(high);
            let (theta, kind) = (theta.address(), kind_of(likelihood));
            let arguments = arguments![rows.argument(), columns, theta, kind, outputs, flags, room, parts];
            self.core.launch(name, [blocks as u32, 1], arguments);
            self.finish(parts, blocks, &sums, length, true)
        })
    }

    /// The lower triangle of a weighted Gram matrix, `D x D`. Weights by address, as `GramWeights` in `kernels/gram.cu`.
    fn gram(&self, rows: &PlacedRows, weights: [u64; 3], high: bool) -> Vec<f64> {
        let d = rows.columns.count;
        let tiles = d.div_ceil(GRAM_TILE);
        let (pieces, packed) = (tiles * (tiles + 1) / 2, d * (d + 1) / 2);
        let panels = rows.count.div_ceil(PANEL_ROWS);
        let most = (GRAM_BLOCKS / pieces).min(BLOCK_BYTES / (packed * size_of::<f64>()));
        let chunk = panels.div_ceil(most.max(1)).max(GRAM_PANELS);
        let chunks = panels.div_ceil(chunk);
        let weights = [weights[0], weights[1], weights[2], 0, 0, 0];
        let sums = Memory::new(&self.core, packed * size_of::<f64>());
        let triangle = self.with_parts(packed * chunks, |_, parts| {
            let name = kernel(["weighted_gram", "weighted_gram_double"], high);
            let columns = rows.columns.argument(high);
            let arguments = arguments![rows.argument(), columns, weights, chunk * PANEL_ROWS, parts];
            self.core.launch(name, [pieces as u32, chunks as u32], arguments);
            self.finish(parts, chunks, &sums, packed, false)
        });
        let mut gram = vec![0.0; d * d];
        for j in 0..d {
            gram[j * d..=j * d + j].copy_from_slice(&triangle[j * (j + 1) / 2..][..=j]);
        }
        gram
    }

    /// A pass over rows few enough that what it keeps for each fits.
    fn pass_over(
        &self,
        rows: &PlacedRows,
        likelihood: Likelihood,
        theta: &[f64],
        request: Request,
        high: bool,
    ) -> Sums {
        let outputs = likelihood.outputs();
        let is_weighted = matches!(request.gram, GramWeights::Information(..)) && likelihood != Likelihood::Gaussian;
        let weights = self.room(if is_weighted { outputs * rows.count } else { 0 }, high);
        let flags = [(request.gradient, WANT_GRADIENT), (request.squares, WANT_SQUARES)];
        let sums = flags.into_iter().map(|(is_wanted, flag)| if is_wanted { flag } else { 0 }).sum();
        let wanted = Wanted { sums, weights: weights.address(), ..Wanted::default() };
        let found = self.visit(rows, Some(likelihood), outputs, theta, wanted, high);
        let mut sets = found[ROW_SUMS..].chunks_exact(outputs * rows.columns.count).map(<[f64]>::to_vec);
        let mut take = |wanted: bool| if wanted { sets.next().unwrap_or_default() } else { Vec::new() };
        let (gradient, squares) = (take(request.gradient), take(request.squares));
        let of = |output: usize| weights.address() + (output * rows.count * size(high)) as u64;
        let gram = match (request.gram, likelihood) {
            (GramWeights::None, _) => Vec::new(),
            (GramWeights::Information(a, b), Likelihood::Multinomial { .. }) => {
                self.gram(rows, [of(a), of(b), u64::from(a == b)], high)
            }
            _ if is_weighted => self.gram(rows, [of(0), 0, 0], high),
            _ => self.gram(rows, [0; 3], high),
        };
        Sums {
            loss: found[0],
            gradient,
            squares,
            gram,
            correct: if likelihood.classes() > 0 { found[1] as u64 } else { 0 },
            largest_predictor: found[2],
            smallest_margin: -found[3],
        }
    }
}

/// Weights of rows, kept on the device.
struct Curvature<'a> {
    device: &'a Cuda,
    likelihood: Likelihood,
    rows: PlacedRows,
    weights: Memory,
    high: bool,
}

impl RowCurvature for Curvature<'_> {
    fn multiply(&self, v: &[f64]) -> Result<Vec<f64>> {
        let Self { device, likelihood, rows, weights, high } = self;
        let (outputs, length, high) = (likelihood.outputs(), v.len(), *high);
        if rows.count == 0 {
            return Ok(vec![0.0; length]);
        }
        let is_multinomial = matches!(likelihood, Likelihood::Multinomial { .. });
        let blocks = blocks(rows.count, length, outputs, high);
        let (v, scratch) = (device.reals(v, high), device.room(blocks * outputs * THREADS as usize, high));
        let sums = Memory::new(&device.core, length * size_of::<f64>());
        let product = device.with_parts(length * blocks, |_, parts| {
            let name = kernel(["regression_product", "regression_product_double"], high);
            let (columns, v, weights) = (rows.columns.argument(high), v.address(), weights.address());
            let arguments =
                arguments![rows.argument(), columns, v, is_multinomial, outputs, weights, scratch.address(), parts];
            device.core.launch(name, [blocks as u32, 1], arguments);
            device.finish(parts, blocks, &sums, length, false)
        });
        device.core.check()?;
        Ok(product)
    }
}

impl Regression for Cuda {
    fn keep_rows(&self, design: &Design) {
        let (features, targets, _) = design.numbers();
        self.panels(features);
        self.panels(targets);
        self.columns_of(design);
    }

    fn pass(
        &self,
        design: &Design,
        likelihood: Likelihood,
        theta: &[f64],
        selection: Selection<'_>,
        request: Request,
        high: bool,
    ) -> Result<Sums> {
        let (outputs, columns) = (likelihood.outputs(), design.columns());
        let mut total = Sums::zeros(outputs, columns, request);
        // Whole panels, so that blocks begin where the sums in f32 do.
        let most = (BLOCK_BYTES / (outputs * size(high)) / PANEL_ROWS).max(1) * PANEL_ROWS;
        for start in (0..selection.len()).step_by(most) {
            let rows = self.placed(design, selection.part(start..(start + most).min(selection.len())));
            total.absorb(&self.pass_over(&rows, likelihood, theta, request, high));
        }
        self.core.check()?;
        Ok(total)
    }

    fn linear_predictors(
        &self,
        design: &Design,
        outputs: usize,
        theta: &[f64],
        selection: Selection<'_>,
    ) -> Result<Vec<f64>> {
        let count = selection.len();
        if count == 0 {
            return Ok(Vec::new());
        }
        let rows = self.placed(design, selection);
        let predictors = self.room(outputs * count, true);
        let wanted = Wanted { predictors: predictors.address(), ..Wanted::default() };
        self.visit(&rows, None, outputs, theta, wanted, true);
        let by_output = self.to_host(&predictors, outputs * count, true);
        self.core.check()?;
        Ok(transposed(&by_output, outputs))
    }

    fn curvature<'a>(
        &'a self,
        design: &'a Design,
        likelihood: Likelihood,
        theta: &[f64],
        selection: Selection<'a>,
        high: bool,
    ) -> Result<Box<dyn RowCurvature + 'a>> {
        let rows = self.placed(design, selection);
        let weights = self.room(likelihood.outputs() * rows.count, high);
        if rows.count > 0 {
            let wanted = Wanted { weights: weights.address(), ..Wanted::default() };
            self.visit(&rows, Some(likelihood), likelihood.outputs(), theta, wanted, high);
        }
        self.core.check()?;
        Ok(Box::new(Curvature { device: self, likelihood, rows, weights, high }))
    }

    fn exchange_residuals(
        &self,
        design: &Design,
        likelihood: Likelihood,
        theta: &[f64],
        selection: Selection<'_>,
        table: &mut [f64],
        high: bool,
    ) -> Result<(f64, Vec<f64>)> {
        let (outputs, count) = (likelihood.outputs(), selection.len());
        if count == 0 {
            return Ok((0.0, vec![0.0; theta.len()]));
        }
        let place = |i: usize| -> Range<usize> {
            let row = match selection {
                Selection::Range(start, _) => start + i,
                Selection::List(rows) => rows[i] as usize,
            };
            outputs * row..outputs * (row + 1)
        };
        let old: Vec<f64> = (0..count).flat_map(|i| table[place(i)].iter().copied()).collect();
        let rows = self.placed(design, selection);
        let old = self.reals(&transposed(&old, count), high);
        let new = self.room(outputs * count, high);
        let (residuals, old_residuals) = (new.address(), old.address());
        let wanted = Wanted { sums: WANT_GRADIENT, residuals, old_residuals, ..Wanted::default() };
        let sums = self.visit(&rows, Some(likelihood), outputs, theta, wanted, high);
        let new = transposed(&self.to_host(&new, outputs * count, high), outputs);
        self.core.check()?;
        for (i, new) in new.chunks_exact(outputs).enumerate() {
            table[place(i)].copy_from_slice(new);
        }
        Ok((sums[0], sums[ROW_SUMS..].to_vec()))
    }
}

/// A matrix of `rows` rows, row by row, as its transpose.
fn transposed(values: &[f64], rows: usize) -> Vec<f64> {
    let columns = values.len() / rows;
    (0..columns).flat_map(|j| (0..rows).map(move |i| values[i * columns + j])).collect()
}
