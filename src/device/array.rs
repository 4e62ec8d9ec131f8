//! Arrays of `f32` where a device keeps them, and rectangular views into them.
//!
//! An array is flat; a [`View`] reads part of it as a `rows x columns` matrix, row by row, `stride` elements from one row to
//! the next. In a network a row is a unit and a column an example, so that whatever is done to a unit runs over contiguous
//! examples. Only the device that made an array looks inside it.

use super::cpu::buffer::Buffer;
use super::cuda::machine::{List, Numbers};

/// A flat array of `f32` on the device that made it.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    pub(super) storage: Storage,
}

/// Where the numbers lie; each case belongs to a [`Backend`](super::Backend).
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Storage {
    /// Host memory, aligned to cache lines.
    Cpu(Buffer<f32>),
    /// A GPU's memory.
    Cuda(Numbers),
}

impl Array {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.storage {
            Storage::Cpu(values) => values.len(),
            Storage::Cuda(numbers) => numbers.len(),
        }
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The `rows x columns` matrix that begins at `start`, rows one after another.
    #[must_use]
    pub fn view(&self, start: usize, rows: usize, columns: usize) -> View<'_> {
        self.strided(start, rows, columns, columns)
    }

    /// The same with `stride` elements from row to row.
    #[must_use]
    pub fn strided(&self, start: usize, rows: usize, columns: usize, stride: usize) -> View<'_> {
        let shape = Shape::new(self.len(), start, rows, columns, stride);
        View { array: self, shape, transposed: false }
    }

    /// The `rows x columns` matrix that begins at `start`, to be changed.
    pub fn view_mut(&mut self, start: usize, rows: usize, columns: usize) -> ViewMut<'_> {
        self.strided_mut(start, rows, columns, columns)
    }

    /// The same with `stride` elements from row to row.
    pub fn strided_mut(&mut self, start: usize, rows: usize, columns: usize, stride: usize) -> ViewMut<'_> {
        let shape = Shape::new(self.len(), start, rows, columns, stride);
        ViewMut { array: self, shape }
    }
}

/// A list of rows on the device that made it; [`NO_ROW`](super::NO_ROW) is none.
#[derive(Debug)]
pub struct Ids {
    pub(super) list: IdList,
}

/// Where a list lies.
#[derive(Debug)]
pub(super) enum IdList {
    /// Host memory.
    Cpu(Vec<u32>),
    /// A GPU's memory.
    Cuda(List),
}

impl Ids {
    /// Number of rows named.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.list {
            IdList::Cpu(list) => list.len(),
            IdList::Cuda(list) => list.len(),
        }
    }

    /// Whether no row is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Place and extent of a view within its array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub start: usize,
    pub rows: usize,
    pub columns: usize,
    pub stride: usize,
}

impl Shape {
    fn new(len: usize, start: usize, rows: usize, columns: usize, stride: usize) -> Self {
        let end = if rows == 0 { start } else { start + (rows - 1) * stride + columns };
        assert!(columns <= stride && end <= len, "a {rows} x {columns} view at {start} of {len} elements");
        Self { start, rows, columns, stride }
    }
}

/// A matrix to be read.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub(super) array: &'a Array,
    pub(super) shape: Shape,
    pub(super) transposed: bool,
}

impl View<'_> {
    /// Rows and columns of what is seen.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let Shape { rows, columns, .. } = self.shape;
        if self.transposed { (columns, rows) } else { (rows, columns) }
    }

    /// The transposed matrix, as a factor of a product.
    #[must_use]
    pub fn t(mut self) -> Self {
        self.transposed = !self.transposed;
        self
    }
}

/// A matrix to be written.
#[derive(Debug)]
pub struct ViewMut<'a> {
    pub(super) array: &'a mut Array,
    pub(super) shape: Shape,
}

impl ViewMut<'_> {
    /// The same matrix for a shorter time, so that several operations can follow one another on it.
    pub fn again(&mut self) -> ViewMut<'_> {
        ViewMut { array: &mut *self.array, shape: self.shape }
    }
}
