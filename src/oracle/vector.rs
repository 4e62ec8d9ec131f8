//! Parameter vectors: one flat array with named blocks, opaque to the optimizers that move it.
//!
//! An optimizer sees algebra (`axpy`, `dot`, ...) and, where it needs matrices, the shape of a block. Where the
//! numbers lie and of which type they are is this file's secret: generalized linear models hold `f64` on the CPU.

use crate::error::{Error, Result};
use ndarray::{Array1, ArrayView2, Zip};
use std::ops::Range;
use std::sync::Arc;

/// One named block of a parameter vector: a `rows x columns` matrix stored row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The block's name, for instance `coefficients` or `layer1.weight`.
    pub name: String,
    /// Rows of the block seen as a matrix.
    pub rows: usize,
    /// Columns of the block seen as a matrix.
    pub columns: usize,
    /// First element within the flat vector.
    pub start: usize,
}

impl Block {
    /// The block's elements within the flat vector.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + self.rows * self.columns
    }
}

/// The names, shapes and places of a vector's blocks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    blocks: Vec<Block>,
    len: usize,
}

impl Layout {
    /// A layout of blocks given as `(name, rows, columns)`, one after another.
    #[must_use]
    pub fn new<'a>(shapes: impl IntoIterator<Item = (&'a str, usize, usize)>) -> Arc<Self> {
        let mut layout = Self::default();
        for (name, rows, columns) in shapes {
            layout.blocks.push(Block { name: name.to_owned(), rows, columns, start: layout.len });
            layout.len += rows * columns;
        }
        Arc::new(layout)
    }

    /// The blocks in order.
    #[must_use]
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Number of parameters.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no parameters.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A vector of parameters, or anything of their shape: a gradient, a direction, a momentum.
#[derive(Debug, Clone, PartialEq)]
pub struct Vector {
    layout: Arc<Layout>,
    values: Array1<f64>,
}

impl Vector {
    /// All zeros.
    #[must_use]
    pub fn zeros(layout: &Arc<Layout>) -> Self {
        Self { layout: Arc::clone(layout), values: Array1::zeros(layout.len()) }
    }

    /// All zeros, of the shape of `self`.
    #[must_use]
    pub fn zeros_like(&self) -> Self {
        Self::zeros(&self.layout)
    }

    /// Takes values in the layout's order.
    ///
    /// # Errors
    /// If their number is not the layout's.
    pub fn from_values(layout: &Arc<Layout>, values: Vec<f64>) -> Result<Self> {
        if values.len() != layout.len() {
            return Err(Error::Numeric(format!("{} values for a vector of {} parameters", values.len(), layout.len())));
        }
        Ok(Self { layout: Arc::clone(layout), values: values.into() })
    }

    /// The layout.
    #[must_use]
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.layout.len()
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.layout.is_empty()
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (self.len() * size_of::<f64>()) as u64
    }

    /// The elements on the host, in the layout's order.
    #[must_use]
    pub fn host(&self) -> &[f64] {
        self.values.as_slice().expect("a vector is contiguous")
    }

    /// The elements on the host, to be changed.
    pub fn host_mut(&mut self) -> &mut [f64] {
        self.values.as_slice_mut().expect("a vector is contiguous")
    }

    /// A block as a matrix.
    #[must_use]
    pub fn block(&self, block: &Block) -> ArrayView2<'_, f64> {
        self.values
            .slice(ndarray::s![block.range()])
            .into_shape_with_order((block.rows, block.columns))
            .expect("a block has its shape")
    }

    /// Sets every element.
    pub fn fill(&mut self, value: f64) {
        self.values.fill(value);
    }

    /// Becomes a copy of `other`.
    pub fn copy_from(&mut self, other: &Self) {
        self.values.assign(&other.values);
    }

    /// `self *= factor`.
    pub fn scale(&mut self, factor: f64) {
        self.values *= factor;
    }

    /// `self += factor * other`.
    pub fn axpy(&mut self, factor: f64, other: &Self) {
        self.values.scaled_add(factor, &other.values);
    }

    /// `self = own * self + factor * other`.
    pub fn axpby(&mut self, own: f64, factor: f64, other: &Self) {
        Zip::from(&mut self.values).and(&other.values).for_each(|a, &b| *a = own * *a + factor * b);
    }

    /// `<self, other>`.
    #[must_use]
    pub fn dot(&self, other: &Self) -> f64 {
        self.values.dot(&other.values)
    }

    /// The Euclidean norm.
    #[must_use]
    pub fn norm(&self) -> f64 {
        self.dot(self).sqrt()
    }

    /// The largest absolute value; NaN if any element is NaN.
    #[must_use]
    pub fn norm_max(&self) -> f64 {
        self.values.iter().fold(0.0, |m: f64, &v| if v.is_nan() || m.is_nan() { f64::NAN } else { m.max(v.abs()) })
    }

    /// Whether every element is finite.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        self.values.iter().all(|v| v.is_finite())
    }

    /// Number of elements that are not zero.
    #[must_use]
    pub fn nonzero(&self) -> usize {
        self.values.iter().filter(|&&v| v != 0.0).count()
    }

    /// Element by element, `self = f(self)`.
    pub fn map(&mut self, f: impl Fn(f64) -> f64) {
        self.values.mapv_inplace(f);
    }

    /// Element by element, `self = f(self, other)`.
    pub fn zip(&mut self, other: &Self, f: impl Fn(f64, f64) -> f64) {
        Zip::from(&mut self.values).and(&other.values).for_each(|a, &b| *a = f(*a, b));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_in_the_flat_vector() {
        let layout = Layout::new([("a", 2, 3), ("b", 1, 2)]);
        let v = Vector::from_values(&layout, (0..8).map(f64::from).collect()).unwrap();
        assert_eq!(v.block(&layout.blocks()[0])[[1, 2]], 5.0);
        assert_eq!(v.block(&layout.blocks()[1])[[0, 1]], 7.0);
        assert!(Vector::from_values(&layout, vec![0.0]).is_err());
    }

    #[test]
    fn the_largest_absolute_value_does_not_hide_a_nan() {
        let layout = Layout::new([("a", 1, 3)]);
        let v = Vector::from_values(&layout, vec![1.0, f64::NAN, -3.0]).unwrap();
        assert!(v.norm_max().is_nan());
        assert!(!v.is_finite());
    }
}
