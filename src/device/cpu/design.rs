//! Design matrices made on the fly: standardized inputs, their squares or products, tile by tile in cache.
//!
//! The inputs `x` (`n x d`) are standardized to `u_j = (x_j - mean_j) / sd_j`; the design's columns are an intercept
//! (optional, first), then
//! - linear: `u_1 .. u_d`;
//! - squares: those, then `u_1^2 .. u_d^2`;
//! - products: those, then `u_j u_k` for `j <= k` (j outermost);
//!
//! and the squares and products are standardized in their turn. Nothing of this is stored for all rows: a tile of
//! [`PANEL_ROWS`] rows is made when it is needed.

use super::buffer::Buffer;
use super::gram::Columns;
use super::parallel::{fold_chunks, map_chunks};
use super::real::Real;
use crate::device::{PANEL_ROWS, Panels};
use pulp::{Arch, Simd, WithSimd};
use std::ops::Range;
use std::sync::Arc;

/// Which columns are made from the inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expansion {
    /// The inputs themselves.
    Linear,
    /// The inputs and their squares.
    Squares,
    /// The inputs and all products of two of them, squares included.
    Products,
}

impl Expansion {
    /// Number of columns made from `inputs` inputs, without the intercept.
    #[must_use]
    pub fn columns(self, inputs: usize) -> usize {
        match self {
            Self::Linear => inputs,
            Self::Squares => 2 * inputs,
            Self::Products => inputs + inputs * (inputs + 1) / 2,
        }
    }

    /// The input or pair of inputs behind each column.
    pub fn factors(self, inputs: usize) -> impl Iterator<Item = (usize, Option<usize>)> {
        let linear = (0..inputs).map(|j| (j, None));
        let pairs: Vec<_> = match self {
            Self::Linear => Vec::new(),
            Self::Squares => (0..inputs).map(|j| (j, Some(j))).collect(),
            Self::Products => (0..inputs).flat_map(|j| (j..inputs).map(move |k| (j, Some(k)))).collect(),
        };
        linear.chain(pairs)
    }

    /// The columns' names, from the inputs' names.
    #[must_use]
    pub fn names(self, inputs: &[String]) -> Vec<String> {
        self.factors(inputs.len())
            .map(|(j, k)| match k {
                None => inputs[j].clone(),
                Some(k) if k == j => format!("{}^2", inputs[j]),
                Some(k) => format!("{}*{}", inputs[j], inputs[k]),
            })
            .collect()
    }
}

/// Shift and factor of a column: `(x - shift) * factor`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Affine {
    shift: f64,
    factor: f64,
}

const IDENTITY: Affine = Affine { shift: 0.0, factor: 1.0 };

/// How design columns follow from inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Transform {
    expansion: Expansion,
    intercept: bool,
    inputs: Vec<Affine>,
    pairs: Vec<Pair>,
}

/// A product of two standardized inputs and its own standardization.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Pair {
    first: usize,
    second: usize,
    affine: Affine,
}

/// The pairs of an expansion, standardized by what `affine` gives in turn.
fn pairs(expansion: Expansion, inputs: usize, mut affine: impl Iterator<Item = Affine>) -> Vec<Pair> {
    let pairs = expansion.factors(inputs).filter_map(|(first, second)| Some((first, second?)));
    pairs.filter_map(|(first, second)| Some(Pair { first, second, affine: affine.next()? })).collect()
}

impl Transform {
    /// Raw inputs, or their squares and products, without any standardization.
    #[must_use]
    pub fn raw(inputs: usize, expansion: Expansion, intercept: bool) -> Self {
        Self {
            expansion,
            intercept,
            inputs: vec![IDENTITY; inputs],
            pairs: pairs(expansion, inputs, std::iter::repeat(IDENTITY)),
        }
    }

    /// Uses given means and standard deviations: of the inputs, then of the squares or products of standardized
    /// inputs. A standard deviation of zero counts as one.
    ///
    /// # Panics
    /// If there is not one mean and one deviation for each column.
    #[must_use]
    pub fn standardized(expansion: Expansion, intercept: bool, inputs: usize, mean: &[f64], sd: &[f64]) -> Self {
        assert!(mean.len() == expansion.columns(inputs) && sd.len() == mean.len(), "one mean and deviation per column");
        let mut affine =
            mean.iter().zip(sd).map(|(&shift, &sd)| Affine { shift, factor: 1.0 / if sd > 0.0 { sd } else { 1.0 } });
        let first = affine.by_ref().take(inputs).collect();
        Self { expansion, intercept, inputs: first, pairs: pairs(expansion, inputs, affine) }
    }

    /// Means and standard deviations of all columns but the intercept, as [`Transform::standardized`] takes them.
    #[must_use]
    pub fn means_and_deviations(&self) -> (Vec<f64>, Vec<f64>) {
        self.inputs.iter().chain(self.pairs.iter().map(|p| &p.affine)).map(|a| (a.shift, 1.0 / a.factor)).unzip()
    }

    /// Number of input columns `d`.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.inputs.len()
    }

    /// Which columns are made.
    #[must_use]
    pub fn expansion(&self) -> Expansion {
        self.expansion
    }

    /// Whether the first column is a constant one.
    #[must_use]
    pub fn intercept(&self) -> bool {
        self.intercept
    }

    /// Number of design columns `D`, the intercept included.
    #[must_use]
    pub fn columns(&self) -> usize {
        usize::from(self.intercept) + self.inputs.len() + self.pairs.len()
    }
}

/// How design columns follow from inputs, as plain numbers for a device.
pub(in crate::device) struct ColumnTable {
    /// Two inputs for each column; [`NO_INPUT`] where the second or both are missing.
    pub factors: Vec<u32>,
    /// Shift and factor of every input, then of every column: a product's own, else none.
    pub affine: Vec<f64>,
}

/// In a [`ColumnTable`]: no input.
const NO_INPUT: u32 = u32::MAX;

impl Transform {
    /// The table of the design's columns.
    pub(in crate::device) fn table(&self) -> ColumnTable {
        let mut factors = vec![NO_INPUT; if self.intercept { 2 } else { 0 }];
        factors.extend((0..self.inputs.len() as u32).flat_map(|input| [input, NO_INPUT]));
        factors.extend(self.pairs.iter().flat_map(|pair| [pair.first as u32, pair.second as u32]));
        let alone = self.columns() - self.pairs.len();
        let of_columns = std::iter::repeat_n(IDENTITY, alone).chain(self.pairs.iter().map(|pair| pair.affine));
        let affine = self.inputs.iter().copied().chain(of_columns).flat_map(|a| [a.shift, a.factor]).collect();
        ColumnTable { factors, affine }
    }
}

/// Which rows of a [`Design`], counted from its first one.
#[derive(Debug, Clone, Copy)]
pub enum Selection<'a> {
    /// Consecutive rows.
    Range(usize, usize),
    /// Any rows, in the order given.
    List(&'a [u32]),
}

impl<'a> Selection<'a> {
    /// The rows from one place to another in the order of the selection.
    #[must_use]
    pub fn part(self, places: Range<usize>) -> Self {
        match self {
            Self::Range(start, _) => Self::Range(start + places.start, start + places.end),
            Self::List(rows) => Self::List(&rows[places]),
        }
    }
}

impl Selection<'_> {
    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Range(start, end) => end - start,
            Self::List(rows) => rows.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Maps the chunks of a selection in parallel, results in order.
pub(super) fn map_selection<R: Send>(
    selection: Selection<'_>,
    map: impl Fn(usize, Selection<'_>) -> R + Sync,
) -> Vec<R> {
    let mut results = Vec::new();
    fold_selection(selection, 0, map, |result| results.push(result));
    results
}

/// Maps the chunks of a selection in parallel and hands the results on in order; `bytes` is the size of one result.
pub(super) fn fold_selection<R: Send>(
    selection: Selection<'_>,
    bytes: usize,
    map: impl Fn(usize, Selection<'_>) -> R + Sync,
    fold: impl FnMut(R),
) {
    match selection {
        Selection::Range(start, end) => {
            fold_chunks(start..end, bytes, |i, c| map(i, Selection::Range(c.start, c.end)), fold);
        }
        Selection::List(rows) => fold_chunks(0..rows.len(), bytes, |i, c| map(i, Selection::List(&rows[c])), fold),
    }
}

/// Inputs, targets and the transform that makes the design from them.
#[derive(Debug, Clone)]
pub struct Design {
    features: Panels,
    targets: Panels,
    rows: Range<usize>,
    transform: Arc<Transform>,
    /// Inputs as they are stored, then a column of ones: see [`Design::as_stored`].
    stored: bool,
}

/// A linear design `[1, u]`, `u_j = (x_j - mean_j) / sd_j`, by way of the columns `[x, 1]` as they are stored:
/// `theta_0 + sum theta_j u_j = sum (theta_j / sd_j) x_j + (theta_0 - sum theta_j mean_j / sd_j)`. Sums over rows are formed
/// of `x` where it lies, without a copy, and brought to `u` in `f64` afterwards.
#[derive(Debug, Clone)]
pub(super) struct Substitution {
    inputs: Vec<Affine>,
}

/// Columns whose mean is at most so many standard deviations from zero may be used as they are stored: what `f32` sums
/// lose by it is no more than three bits.
const LARGEST_SHIFT: f64 = 8.0;

impl Substitution {
    /// Coefficients of the stored columns.
    pub fn coefficients(&self, theta: &[f64]) -> Vec<f64> {
        let scaled = self.inputs.iter().zip(&theta[1..]).map(|(input, t)| t * input.factor);
        let mut stored: Vec<f64> = scaled.collect();
        let shifts = self.inputs.iter().zip(&stored).map(|(input, t)| t * input.shift);
        stored.push(theta[0] - shifts.sum::<f64>());
        stored
    }

    /// `sum_i r_i z_i` of the design's columns from that of the stored ones.
    pub fn products(&self, stored: &[f64]) -> Vec<f64> {
        let ones = stored[self.inputs.len()];
        let inputs = self.inputs.iter().zip(stored).map(|(input, s)| input.factor * (s - input.shift * ones));
        std::iter::once(ones).chain(inputs).collect()
    }

    /// The lower triangle of the design's Gram matrix from that of the stored columns.
    pub fn gram(&self, stored: &[f64]) -> Vec<f64> {
        let d = self.inputs.len();
        let columns = d + 1;
        let ones = &stored[d * columns..];
        let mut gram = vec![0.0; columns * columns];
        gram[0] = ones[d];
        for (j, a) in self.inputs.iter().enumerate() {
            let row = &mut gram[(j + 1) * columns..][..columns];
            row[0] = a.factor * (ones[j] - a.shift * ones[d]);
            for (k, b) in self.inputs.iter().enumerate().take(j + 1) {
                let shifted =
                    stored[j * columns + k] - a.shift * ones[k] - b.shift * ones[j] + a.shift * b.shift * ones[d];
                row[k + 1] = a.factor * b.factor * shifted;
            }
        }
        gram
    }
}

/// The rows of one tile.
#[derive(Clone, Copy)]
pub(super) enum Span<'a> {
    /// First row, counted from the design's first, and number of rows within one panel.
    Consecutive(usize, usize),
    /// Up to [`PANEL_ROWS`] rows, counted from the design's first.
    Gathered(&'a [u32]),
}

/// One tile: up to [`PANEL_ROWS`] rows of the design and what is computed from them.
pub(super) struct Tile<T> {
    /// Standardized inputs, `d x PANEL_ROWS`; empty when the design is linear.
    inputs: Buffer<T>,
    /// Design columns, each `PANEL_ROWS` long.
    pub z: Buffer<T>,
    /// The panel that holds the columns, where they are used as they lie.
    panel: Option<usize>,
    ones: Buffer<T>,
    zero: Buffer<T>,
    /// Targets.
    pub y: Buffer<T>,
    /// Rows in use; the rest is zero.
    pub rows: usize,
}

impl Design {
    /// The design of some rows of panels.
    ///
    /// # Panics
    /// If the transform was made for another number of inputs or the rows are not there.
    #[must_use]
    pub fn new(features: Panels, targets: Panels, rows: Range<usize>, transform: Arc<Transform>) -> Self {
        assert_eq!(features.columns(), transform.inputs(), "inputs of the transform");
        assert!(rows.end <= features.rows() && rows.end <= targets.rows(), "rows {rows:?} of {features:?}");
        Self { features, targets, rows, transform, stored: false }
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Number of design columns, the intercept included.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.transform.columns() + usize::from(self.stored)
    }

    /// The same model on columns as they are stored, and the way back; none where columns are not used as they are or
    /// lie too far from zero.
    pub(super) fn as_stored(&self) -> Option<(Self, Substitution)> {
        let Transform { expansion, intercept, inputs, .. } = &*self.transform;
        let near = |input: &Affine| (input.shift * input.factor).abs() <= LARGEST_SHIFT;
        if *expansion != Expansion::Linear || !intercept || !inputs.iter().all(near) {
            return None;
        }
        let transform = Arc::new(Transform::raw(inputs.len(), Expansion::Linear, false));
        Some((Self { transform, stored: true, ..self.clone() }, Substitution { inputs: inputs.clone() }))
    }

    /// Inputs and targets of all rows, and which of them is the design's first one.
    pub(in crate::device) fn numbers(&self) -> (&Panels, &Panels, usize) {
        (&self.features, &self.targets, self.rows.start)
    }

    /// The transform.
    #[must_use]
    pub fn transform(&self) -> &Arc<Transform> {
        &self.transform
    }

    /// The target of a row.
    #[must_use]
    pub fn target(&self, row: usize) -> f32 {
        self.targets.values()[self.rows.start + row]
    }

    /// Bytes of inputs and targets of one row.
    #[must_use]
    pub fn row_bytes(&self) -> f64 {
        4.0 * (self.features.columns() + 1) as f64
    }

    pub(super) fn tile<T: Real>(&self) -> Tile<T> {
        let d = self.transform.inputs();
        let linear = self.transform.expansion == Expansion::Linear;
        let mut ones = Buffer::new(PANEL_ROWS);
        ones.fill(T::ONE);
        Tile {
            inputs: Buffer::new(if linear { 0 } else { d * PANEL_ROWS }),
            z: Buffer::new(self.transform.columns() * PANEL_ROWS),
            panel: None,
            ones,
            zero: Buffer::new(PANEL_ROWS),
            y: Buffer::new(PANEL_ROWS),
            rows: 0,
        }
    }

    /// The columns of a tile that was filled.
    #[inline(always)]
    pub(super) fn view<'a, T: Real>(&'a self, tile: &'a Tile<T>) -> Columns<'a, T> {
        let lying = tile.panel.and_then(|panel| T::borrowed(self.features.panel(panel)));
        Columns { main: lying.unwrap_or(&tile.z), ones: self.stored.then_some(&*tile.ones), zero: &tile.zero }
    }

    /// The panel and the targets that will be read after a span, if they follow it.
    #[inline(always)]
    pub(super) fn after(&self, span: Span<'_>) -> (&[f32], &[f32]) {
        let Span::Consecutive(first, count) = span else { return (&[], &[]) };
        let next = self.rows.start + first + count;
        if next >= self.rows.end {
            return (&[], &[]);
        }
        let targets = self.targets.values();
        (self.features.panel(next / PANEL_ROWS), &targets[next..(next + PANEL_ROWS).min(targets.len())])
    }

    /// Makes one tile of the design.
    #[inline(always)]
    pub(super) fn fill<T: Real>(&self, span: Span<'_>, tile: &mut Tile<T>) {
        match span {
            Span::Consecutive(first, count) => self.fill_consecutive(self.rows.start + first, count, tile),
            Span::Gathered(rows) => self.fill_gathered(rows, tile),
        }
    }

    /// Cuts a selection into the spans of its tiles, in order. Consecutive rows are cut at panel borders, so that a
    /// tile never straddles two panels. A mapped file is brought in and let go as the spans proceed.
    pub(super) fn spans<'a>(&self, selection: Selection<'a>) -> impl Iterator<Item = Span<'a>> + use<'a> {
        let offset = self.rows.start;
        let (mut next, end, list) = match selection {
            Selection::Range(start, end) => (start, end, &[][..]),
            Selection::List(rows) => (0, 0, rows),
        };
        if !list.is_empty() {
            self.features.scattered(list.len());
        }
        let mut pieces = [self.features.pieces(), self.targets.pieces()];
        let consecutive = std::iter::from_fn(move || {
            let first = next;
            let count = (PANEL_ROWS - (offset + first) % PANEL_ROWS).min(end - first);
            next += count;
            if count == 0 {
                return None;
            }
            pieces.iter_mut().for_each(|pieces| pieces.reach((offset + first) / PANEL_ROWS));
            Some(Span::Consecutive(first, count))
        });
        consecutive.chain(list.chunks(PANEL_ROWS).map(Span::Gathered))
    }

    #[inline(always)]
    fn fill_consecutive<T: Real>(&self, first: usize, count: usize, tile: &mut Tile<T>) {
        let offset = first % PANEL_ROWS;
        let panel = self.features.panel(first / PANEL_ROWS);
        let lies_ready = self.stored && count == PANEL_ROWS && T::borrowed(panel).is_some();
        tile.panel = lies_ready.then_some(first / PANEL_ROWS);
        if !lies_ready {
            for (j, affine) in self.transform.inputs.iter().enumerate() {
                let from = &panel[j * PANEL_ROWS + offset..][..count];
                let to = tile.input_column(j, &self.transform);
                let (shift, factor) = (T::from_f64(affine.shift), T::from_f64(affine.factor));
                for (to, &from) in to.iter_mut().zip(from) {
                    *to = (T::from_f32(from) - shift) * factor;
                }
                to[count..].fill(T::default());
            }
        }
        let y = &self.targets.values()[first..first + count];
        for (to, &from) in tile.y.iter_mut().zip(y) {
            *to = T::from_f32(from);
        }
        self.finish_tile::<T>(count, tile);
    }

    #[inline(always)]
    fn fill_gathered<T: Real>(&self, rows: &[u32], tile: &mut Tile<T>) {
        let count = rows.len();
        tile.panel = None;
        let values = self.features.values();
        let targets = self.targets.values();
        let d = self.features.columns();
        let affine = &self.transform.inputs;
        let place =
            if self.transform.expansion == Expansion::Linear { usize::from(self.transform.intercept) } else { 0 };
        let to = if self.transform.expansion == Expansion::Linear { &mut tile.z } else { &mut tile.inputs };
        for (i, &row) in rows.iter().enumerate() {
            let row = self.rows.start + row as usize;
            let base = row / PANEL_ROWS * PANEL_ROWS * d + row % PANEL_ROWS;
            for (j, affine) in affine.iter().enumerate() {
                let value = T::from_f32(values[base + j * PANEL_ROWS]);
                to[(place + j) * PANEL_ROWS + i] = (value - T::from_f64(affine.shift)) * T::from_f64(affine.factor);
            }
            tile.y[i] = T::from_f32(targets[row]);
        }
        if count < PANEL_ROWS {
            for j in 0..d {
                to[(place + j) * PANEL_ROWS..][count..PANEL_ROWS].fill(T::default());
            }
        }
        self.finish_tile::<T>(count, tile);
    }

    /// Adds intercept, squares and products to standardized inputs.
    #[inline(always)]
    fn finish_tile<T: Real>(&self, count: usize, tile: &mut Tile<T>) {
        let transform = &*self.transform;
        tile.rows = count;
        tile.y[count..].fill(T::default());
        let mut place = 0;
        if transform.intercept {
            tile.z[..count].fill(T::ONE);
            tile.z[count..PANEL_ROWS].fill(T::default());
            place = 1;
        }
        if transform.expansion == Expansion::Linear {
            return;
        }
        let d = transform.inputs();
        tile.z[place * PANEL_ROWS..][..d * PANEL_ROWS].copy_from_slice(&tile.inputs);
        place += d;
        for (pair, to) in transform.pairs.iter().zip(tile.z[place * PANEL_ROWS..].chunks_exact_mut(PANEL_ROWS)) {
            let (shift, factor) = (T::from_f64(pair.affine.shift), T::from_f64(pair.affine.factor));
            let a = &tile.inputs[pair.first * PANEL_ROWS..][..PANEL_ROWS];
            let b = &tile.inputs[pair.second * PANEL_ROWS..][..PANEL_ROWS];
            for i in 0..PANEL_ROWS {
                to[i] = (a[i] * b[i] - shift) * factor;
            }
            to[count..].fill(T::default());
        }
    }

    /// Smallest and largest value of every column among rows of target 0 and among rows of target 1.
    #[must_use]
    pub fn class_extremes(&self) -> Vec<[(f64, f64); 2]> {
        let none = (f64::INFINITY, f64::NEG_INFINITY);
        let parts = map_chunks(0..self.rows(), |_, chunk| {
            let mut tile = self.tile::<f64>();
            let mut extremes = vec![[none; 2]; self.columns()];
            for span in self.spans(Selection::Range(chunk.start, chunk.end)) {
                self.fill(span, &mut tile);
                for (extremes, column) in extremes.iter_mut().zip(tile.z.chunks(PANEL_ROWS)) {
                    for (&x, &y) in column[..tile.rows].iter().zip(tile.y.iter()) {
                        let (low, high) = &mut extremes[usize::from(y == 1.0)];
                        *low = low.min(x);
                        *high = high.max(x);
                    }
                }
            }
            extremes
        });
        let mut all = vec![[none; 2]; self.columns()];
        for part in &parts {
            for (all, part) in all.iter_mut().flatten().zip(part.iter().flatten()) {
                *all = (all.0.min(part.0), all.1.max(part.1));
            }
        }
        all
    }

    /// Means and standard deviations (divided by `n`) of all columns but the intercept, in `f64`.
    #[must_use]
    pub fn column_moments(&self) -> (Vec<f64>, Vec<f64>) {
        struct Moments<'a>(&'a Design, Range<usize>);
        impl WithSimd for Moments<'_> {
            type Output = Vec<(f64, f64)>;

            #[inline(always)]
            fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
                let skip = usize::from(self.0.transform.intercept);
                let mut tile = self.0.tile::<f64>();
                let mut sums = vec![(0.0, 0.0); self.0.columns() - skip];
                for span in self.0.spans(Selection::Range(self.1.start, self.1.end)) {
                    self.0.fill(span, &mut tile);
                    for (sums, column) in sums.iter_mut().zip(tile.z[skip * PANEL_ROWS..].chunks(PANEL_ROWS)) {
                        let (mut sum, mut squares) = ([f64::zero_lanes(simd); 2], [f64::zero_lanes(simd); 2]);
                        let one = f64::splat_lanes(simd, 1.0);
                        for lanes in f64::lanes::<S>(column).chunks_exact(2) {
                            for i in 0..2 {
                                sum[i] = f64::fma_lanes(simd, one, lanes[i], sum[i]);
                                squares[i] = f64::fma_lanes(simd, lanes[i], lanes[i], squares[i]);
                            }
                        }
                        let total = |of: [_; 2]| of.into_iter().map(|lanes| f64::sum_lanes(simd, lanes)).sum::<f64>();
                        sums.0 += total(sum);
                        sums.1 += total(squares);
                    }
                }
                sums
            }
        }
        let n = self.rows().max(1) as f64;
        let parts = map_chunks(0..self.rows(), |_, chunk| Arch::new().dispatch(Moments(self, chunk)));
        let columns = self.columns() - usize::from(self.transform.intercept);
        (0..columns)
            .map(|j| {
                let (sum, squares) = parts.iter().fold((0.0, 0.0), |a, p| (a.0 + p[j].0, a.1 + p[j].1));
                let mean = sum / n;
                (mean, (squares / n - mean * mean).max(0.0).sqrt())
            })
            .unzip()
    }
}

impl<T: Real> Tile<T> {
    /// Where the standardized input `j` goes: straight into the design when it is linear.
    #[inline(always)]
    fn input_column(&mut self, j: usize, transform: &Transform) -> &mut [T] {
        if transform.expansion == Expansion::Linear {
            &mut self.z[(usize::from(transform.intercept) + j) * PANEL_ROWS..][..PANEL_ROWS]
        } else {
            &mut self.inputs[j * PANEL_ROWS..][..PANEL_ROWS]
        }
    }
}
