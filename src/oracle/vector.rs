//! Parameter vectors: one flat array with named blocks, opaque to the optimizers that move it.
//!
//! An optimizer sees algebra (`axpy`, `dot`, ...) and, where it needs matrices, the shape of a block. Where the
//! numbers lie and of which type they are is decided by the layout and is this file's secret: generalized linear models
//! hold `f64` on the host, networks `f32` on a device. Dot products and norms are summed in `f64` either way.

use crate::device::cpu::Cpu;
use crate::device::{AdamStep, Array, Device, Matrix};
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

/// The names, shapes and places of a vector's blocks, and where vectors of this layout live.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    blocks: Vec<Block>,
    len: usize,
    /// Where the numbers lie as `f32`; `None`: on the host as `f64`.
    device: Option<Device>,
}

impl Layout {
    /// A layout of blocks given as `(name, rows, columns)`, one after another, for `f64` on the host.
    #[must_use]
    pub fn new<'a>(shapes: impl IntoIterator<Item = (&'a str, usize, usize)>) -> Arc<Self> {
        Self::at(None, shapes)
    }

    /// The same for `f32` on a device.
    #[must_use]
    pub fn on<'a>(device: &Device, shapes: impl IntoIterator<Item = (&'a str, usize, usize)>) -> Arc<Self> {
        Self::at(Some(device.clone()), shapes)
    }

    fn at<'a>(device: Option<Device>, shapes: impl IntoIterator<Item = (&'a str, usize, usize)>) -> Arc<Self> {
        let mut layout = Self { device, ..Self::default() };
        for (name, rows, columns) in shapes {
            layout.blocks.push(Block { name: name.to_owned(), rows, columns, start: layout.len });
            layout.len += rows * columns;
        }
        Arc::new(layout)
    }

    /// The layout of those blocks that are wanted, one after another in the same place.
    #[must_use]
    pub fn part(&self, wanted: impl Fn(&Block) -> bool) -> Arc<Self> {
        let shapes = self.blocks.iter().filter(|block| wanted(block));
        Self::at(self.device.clone(), shapes.map(|block| (block.name.as_str(), block.rows, block.columns)))
    }

    /// A layout of other blocks, given as `(name, rows, columns)`, in the same place.
    #[must_use]
    pub fn beside<'a>(&self, shapes: impl IntoIterator<Item = (&'a str, usize, usize)>) -> Arc<Self> {
        Self::at(self.device.clone(), shapes)
    }

    /// The device that vectors of this layout live on, if not on the host.
    #[must_use]
    pub fn device(&self) -> Option<&Device> {
        self.device.as_ref()
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
    values: Values,
}

#[derive(Debug, Clone, PartialEq)]
enum Values {
    Host(Array1<f64>),
    Device(Device, Array),
}

/// Two vectors of different layouts met: a mistake in the program, not in its input.
fn strangers() -> ! {
    panic!("vectors of two layouts cannot be combined")
}

impl Vector {
    /// All zeros.
    #[must_use]
    pub fn zeros(layout: &Arc<Layout>) -> Self {
        let values = match &layout.device {
            None => Values::Host(Array1::zeros(layout.len())),
            Some(device) => Values::Device(device.clone(), device.zeros(layout.len())),
        };
        Self { layout: Arc::clone(layout), values }
    }

    /// All zeros, of the shape of `self`.
    #[must_use]
    pub fn zeros_like(&self) -> Self {
        Self::zeros(&self.layout)
    }

    /// Takes values in the layout's order; rounded to `f32` on a device.
    ///
    /// # Errors
    /// If their number is not the layout's.
    pub fn from_values(layout: &Arc<Layout>, values: Vec<f64>) -> Result<Self> {
        if values.len() != layout.len() {
            return Err(Error::Numeric(format!("{} values for a vector of {} parameters", values.len(), layout.len())));
        }
        if layout.device.is_none() {
            return Ok(Self { layout: Arc::clone(layout), values: Values::Host(values.into()) });
        }
        let mut vector = Self::zeros(layout);
        vector.set_host(&values);
        Ok(vector)
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
        let size = if self.layout.device.is_some() { size_of::<f32>() } else { size_of::<f64>() };
        (self.len() * size) as u64
    }

    /// A copy of the elements in the layout's order; every `f32` is an `f64`, so nothing is lost.
    #[must_use]
    pub fn to_host(&self) -> Vec<f64> {
        self.read(0..self.len())
    }

    /// Overwrites the elements, in the layout's order; rounded to `f32` on a device.
    ///
    /// # Panics
    /// If their number is not the layout's.
    pub fn set_host(&mut self, from: &[f64]) {
        assert_eq!(from.len(), self.len(), "values of a vector");
        self.write(0, from);
    }

    /// A copy of some elements.
    ///
    /// # Panics
    /// If the range is not within the vector.
    #[must_use]
    pub fn read(&self, range: Range<usize>) -> Vec<f64> {
        match &self.values {
            Values::Host(values) => values.slice(ndarray::s![range]).to_vec(),
            Values::Device(device, array) => {
                device.download(array.view(range.start, 1, range.len())).into_iter().map(f64::from).collect()
            }
        }
    }

    /// Overwrites the elements from `start` on; rounded to `f32` on a device.
    ///
    /// # Panics
    /// If they reach beyond the vector.
    pub fn write(&mut self, start: usize, from: &[f64]) {
        match &mut self.values {
            Values::Host(values) => {
                values.iter_mut().skip(start).zip(from).for_each(|(to, &from)| *to = from);
            }
            Values::Device(device, array) => {
                let from: Vec<f32> = from.iter().map(|&v| v as f32).collect();
                device.upload(array.view_mut(start, 1, from.len()), &from);
            }
        }
    }

    /// The elements of an `f64` vector, in the layout's order.
    ///
    /// # Panics
    /// If the vector lives on a device: [`Vector::to_host`] copies from there.
    #[must_use]
    pub fn host(&self) -> &[f64] {
        match &self.values {
            Values::Host(values) => values.as_slice().expect("a vector is contiguous"),
            Values::Device(..) => panic!("a vector on a device is read through `to_host`"),
        }
    }

    /// The elements of an `f64` vector, to be changed.
    ///
    /// # Panics
    /// If the vector lives on a device: [`Vector::set_host`] copies to there.
    pub fn host_mut(&mut self) -> &mut [f64] {
        match &mut self.values {
            Values::Host(values) => values.as_slice_mut().expect("a vector is contiguous"),
            Values::Device(..) => panic!("a vector on a device is changed through `set_host`"),
        }
    }

    /// The elements of an `f32` vector where its device keeps them.
    ///
    /// # Panics
    /// If the vector lives on the host.
    #[must_use]
    pub fn array(&self) -> &Array {
        match &self.values {
            Values::Device(_, array) => array,
            Values::Host(_) => panic!("a vector on the host is not on a device"),
        }
    }

    /// The same, to be changed.
    ///
    /// # Panics
    /// If the vector lives on the host.
    pub fn array_mut(&mut self) -> &mut Array {
        match &mut self.values {
            Values::Device(_, array) => array,
            Values::Host(_) => panic!("a vector on the host is not on a device"),
        }
    }

    /// A block of an `f64` vector as a matrix.
    ///
    /// # Panics
    /// If the vector lives on a device: [`Vector::matrix`] copies blocks from there.
    #[must_use]
    pub fn block(&self, block: &Block) -> ArrayView2<'_, f64> {
        ArrayView2::from_shape((block.rows, block.columns), &self.host()[block.range()]).expect("a block has its shape")
    }

    /// A copy of a block as a matrix on the vector's device; of a vector on the host, rounded to `f32`, on the CPU's.
    #[must_use]
    pub fn matrix(&self, block: &Block) -> Matrix {
        match &self.values {
            Values::Host(_) => {
                let values: Vec<f32> = self.host()[block.range()].iter().map(|&v| v as f32).collect();
                self.new_matrix(block.rows, block.columns, &values)
            }
            Values::Device(device, array) => {
                Matrix::from_view(device, array.view(block.start, block.rows, block.columns))
            }
        }
    }

    /// A matrix of other values where the vector's own matrices live.
    ///
    /// # Panics
    /// If there are not `rows x columns` values.
    #[must_use]
    pub fn new_matrix(&self, rows: usize, columns: usize, values: &[f32]) -> Matrix {
        match &self.values {
            Values::Host(_) => Matrix::from_values(&Device::new(Cpu::default()), rows, columns, values),
            Values::Device(device, _) => Matrix::from_values(device, rows, columns, values),
        }
    }

    /// `block = own * block + factor * matrix`.
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn mix_matrix(&mut self, block: &Block, own: f64, factor: f64, matrix: &Matrix) {
        assert_eq!((block.rows, block.columns), (matrix.rows(), matrix.columns()), "shape of block {}", block.name);
        match &mut self.values {
            Values::Host(values) => {
                let to = values.slice_mut(ndarray::s![block.range()]);
                let mix = |(to, from): (&mut f64, f32)| {
                    *to = if own == 0.0 { 0.0 } else { own * *to } + factor * f64::from(from);
                };
                to.into_iter().zip(matrix.to_host()).for_each(mix);
            }
            Values::Device(device, array) => {
                let view = array.view(block.start, block.rows, block.columns);
                let mut mixed = Matrix::from_view(device, view);
                mixed.axpby(own, factor, matrix);
                device.copy(array.view_mut(block.start, block.rows, block.columns), mixed.view(false));
            }
        }
    }

    /// Overwrites a block with a matrix.
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn set_matrix(&mut self, block: &Block, matrix: &Matrix) {
        match &mut self.values {
            Values::Device(device, array) => {
                device.copy(array.view_mut(block.start, block.rows, block.columns), matrix.view(false));
            }
            Values::Host(_) => self.mix_matrix(block, 0.0, 1.0, matrix),
        }
    }

    /// Sets every element.
    pub fn fill(&mut self, value: f64) {
        match &mut self.values {
            Values::Host(values) => values.fill(value),
            Values::Device(device, array) => device.fill(array, value as f32),
        }
    }

    /// Becomes a copy of `other`.
    pub fn copy_from(&mut self, other: &Self) {
        self.axpby(0.0, 1.0, other);
    }

    /// `self *= factor`.
    pub fn scale(&mut self, factor: f64) {
        match &mut self.values {
            Values::Host(values) => *values *= factor,
            Values::Device(device, array) => device.scale(array, factor as f32),
        }
    }

    /// `self += factor * other`.
    pub fn axpy(&mut self, factor: f64, other: &Self) {
        self.axpby(1.0, factor, other);
    }

    /// `self = own * self + factor * other`.
    pub fn axpby(&mut self, own: f64, factor: f64, other: &Self) {
        match (&mut self.values, &other.values) {
            (Values::Host(a), Values::Host(b)) if own == 0.0 && factor == 1.0 => a.assign(b),
            (Values::Host(a), Values::Host(b)) if own == 1.0 => a.scaled_add(factor, b),
            (Values::Host(a), Values::Host(b)) => Zip::from(a).and(b).for_each(|a, &b| *a = own * *a + factor * b),
            (Values::Device(device, a), Values::Device(_, b)) => device.axpby(own as f32, a, factor as f32, b),
            _ => strangers(),
        }
    }

    /// `<self, other>`.
    #[must_use]
    pub fn dot(&self, other: &Self) -> f64 {
        match (&self.values, &other.values) {
            (Values::Host(a), Values::Host(b)) => a.dot(b),
            (Values::Device(device, a), Values::Device(_, b)) => device.dot(a, b, 0..a.len()),
            _ => strangers(),
        }
    }

    /// The Euclidean norm.
    #[must_use]
    pub fn norm(&self) -> f64 {
        self.dot(self).sqrt()
    }

    /// The largest absolute value; NaN if any element is NaN.
    #[must_use]
    pub fn norm_max(&self) -> f64 {
        let larger = |m: f64, &v: &f64| if v.is_nan() || m.is_nan() { f64::NAN } else { m.max(v.abs()) };
        match &self.values {
            Values::Host(values) => values.iter().fold(0.0, larger),
            Values::Device(device, array) => device.largest(array),
        }
    }

    /// Whether every element is finite.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        self.norm_max().is_finite()
    }

    /// Number of elements that are not zero.
    #[must_use]
    pub fn nonzero(&self) -> usize {
        match &self.values {
            Values::Host(values) => values.iter().filter(|&&v| v != 0.0).count(),
            Values::Device(device, array) => device.nonzero(array),
        }
    }

    /// `self /= other`, element by element.
    pub fn divide(&mut self, other: &Self) {
        match (&mut self.values, &other.values) {
            (Values::Host(a), Values::Host(b)) => *a /= b,
            (Values::Device(device, a), Values::Device(_, b)) => device.divide(a, b),
            _ => strangers(),
        }
    }

    /// Adam's update of the elements `range` with a gradient of the same layout, their moments beginning at `place` of
    /// vectors of their own: see [`Backend::adam`](crate::device::Backend::adam).
    ///
    /// # Panics
    /// If elements or moments are not there.
    pub fn adam(
        &mut self,
        gradient: &Self,
        range: Range<usize>,
        (first, second): (Option<&mut Self>, &mut Self),
        place: usize,
        step: AdamStep,
    ) {
        match (&mut self.values, &gradient.values, &mut second.values) {
            (Values::Host(a), Values::Host(g), Values::Host(v)) => {
                let mut m = first.map(Self::host_mut);
                for (i, at) in range.enumerate() {
                    let (g, v) = (g[at], &mut v[place + i]);
                    *v = step.beta2 * *v + (1.0 - step.beta2) * g * g;
                    let direction = m.as_deref_mut().map_or(g, |m| {
                        let m = &mut m[place + i];
                        *m = step.beta1 * *m + (1.0 - step.beta1) * g;
                        *m
                    });
                    a[at] =
                        step.keep * a[at] - step.step_size * direction / (step.root_factor * v.sqrt() + step.epsilon);
                }
            }
            (Values::Device(device, a), Values::Device(_, g), Values::Device(_, v)) => {
                device.adam(a, g, range, first.map(Self::array_mut), v, place, step);
            }
            _ => strangers(),
        }
    }

    /// `self = max(self + shift, 1e-30)^exponent`, element by element.
    pub fn shifted_power(&mut self, shift: f64, exponent: f64) {
        match &mut self.values {
            Values::Host(values) => values.mapv_inplace(|v| (v + shift).max(1e-30).powf(exponent)),
            Values::Device(device, array) => device.shifted_power(array, shift as f32, exponent as f32),
        }
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

    #[test]
    fn a_vector_on_a_device_has_the_same_algebra_and_keeps_its_bits() {
        let device = Device::new(crate::device::cpu::Cpu::default());
        let layout = Layout::on(&device, [("a", 2, 3)]);
        let values: Vec<f64> = [0.1_f32, -2.5, f32::MIN_POSITIVE, 1e38, -0.0, 7.0].map(f64::from).to_vec();
        let mut v = Vector::from_values(&layout, values.clone()).unwrap();
        assert_eq!(v.bytes(), 24);
        assert!(v.to_host().iter().zip(&values).all(|(a, b)| a.to_bits() == b.to_bits()));
        let w = v.clone();
        v.axpby(2.0, -1.0, &w);
        assert_eq!(v, w);
        assert!((v.dot(&w) - values.iter().map(|v| v * v).sum::<f64>()).abs() <= 1e-15 * v.dot(&w));
        v.scale(10.0);
        assert!(!v.is_finite() && v.nonzero() == 5);
        assert_eq!(w.matrix(&layout.blocks()[0]).to_host()[1], -2.5);
    }

    #[test]
    fn a_block_is_read_and_changed_as_a_matrix_wherever_it_lies() {
        let device = Device::new(Cpu::default());
        let shapes = [("a", 1, 2), ("b", 2, 2)];
        for layout in [Layout::new(shapes), Layout::on(&device, shapes)] {
            let mut v = Vector::from_values(&layout, (0..6).map(f64::from).collect()).unwrap();
            let block = &layout.blocks()[1];
            let matrix = v.matrix(block);
            assert_eq!(matrix.to_host(), [2.0, 3.0, 4.0, 5.0]);
            v.mix_matrix(block, 2.0, -1.0, &matrix);
            assert_eq!(v.matrix(block), matrix);
            v.mix_matrix(block, 0.5, 0.5, &matrix.times(false, &matrix, false));
            assert_eq!(v.to_host(), [0.0, 1.0, 9.0, 12.0, 16.0, 21.0]);
            v.set_matrix(block, &matrix);
            assert_eq!(v.to_host(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        }
    }
}
