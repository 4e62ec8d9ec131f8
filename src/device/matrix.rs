//! A matrix on a device, for optimizers that treat a block of parameters as one: products and factorizations.

use super::backend::Device;
use super::{Array, array::View};
use crate::error::Result;
use std::ops::Range;

/// A `rows x columns` matrix of `f32`, row by row, on a device.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    device: Device,
    array: Array,
    rows: usize,
    columns: usize,
}

impl Matrix {
    /// Takes values row by row.
    ///
    /// # Panics
    /// If there are not `rows x columns` of them.
    #[must_use]
    pub fn from_values(device: &Device, rows: usize, columns: usize, values: &[f32]) -> Self {
        assert_eq!(values.len(), rows * columns, "values of a {rows} x {columns} matrix");
        let mut matrix = Self::zeros(device, rows, columns);
        device.upload(matrix.array.view_mut(0, rows, columns), values);
        matrix
    }

    /// All zeros.
    #[must_use]
    pub fn zeros(device: &Device, rows: usize, columns: usize) -> Self {
        Self { device: device.clone(), array: device.zeros(rows * columns), rows, columns }
    }

    /// A copy of what a view shows.
    #[must_use]
    pub fn from_view(device: &Device, view: View<'_>) -> Self {
        let (rows, columns) = view.size();
        let mut matrix = Self::zeros(device, rows, columns);
        device.copy(matrix.array.view_mut(0, rows, columns), view);
        matrix
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The elements on the host, row by row.
    #[must_use]
    pub fn to_host(&self) -> Vec<f32> {
        self.device.download(self.view(false))
    }

    /// The flat array behind it.
    #[must_use]
    pub fn array(&self) -> &Array {
        &self.array
    }

    /// The elements as a view.
    #[must_use]
    pub fn view(&self, transposed: bool) -> View<'_> {
        let view = self.array.view(0, self.rows, self.columns);
        if transposed { view.t() } else { view }
    }

    /// The same elements, row by row, in another shape.
    ///
    /// # Panics
    /// If the shape has another number of elements.
    #[must_use]
    pub fn reshaped(self, rows: usize, columns: usize) -> Self {
        assert_eq!(rows * columns, self.rows * self.columns, "elements of a matrix");
        Self { rows, columns, ..self }
    }

    /// `[self, other]`, side by side.
    ///
    /// # Panics
    /// If the rows are not as many.
    #[must_use]
    pub fn beside(&self, other: &Self) -> Self {
        assert_eq!(self.rows, other.rows, "rows of matrices side by side");
        let mut both = Self::zeros(&self.device, self.rows, self.columns + other.columns);
        let stride = both.columns;
        for (start, part) in [(0, self), (self.columns, other)] {
            let to = both.array.strided_mut(start, part.rows, part.columns, stride);
            self.device.copy(to, part.view(false));
        }
        both
    }

    /// A copy of some columns.
    ///
    /// # Panics
    /// If they are not there.
    #[must_use]
    pub fn part(&self, columns: Range<usize>) -> Self {
        assert!(columns.end <= self.columns, "columns of a matrix");
        Self::from_view(&self.device, self.array.strided(columns.start, self.rows, columns.len(), self.columns))
    }

    /// The columns in another order: column `j` is what was column `order[j]`.
    #[must_use]
    pub fn columns_in_order(&self, order: &[usize]) -> Self {
        let values = self.to_host();
        let moved: Vec<f32> = values.chunks(self.columns).flat_map(|row| order.iter().map(|&j| row[j])).collect();
        Self::from_values(&self.device, self.rows, order.len(), &moved)
    }

    /// The rows in another order: row `i` is what was row `order[i]`.
    #[must_use]
    pub fn rows_in_order(&self, order: &[usize]) -> Self {
        let values = self.to_host();
        let moved: Vec<f32> =
            order.iter().flat_map(|&i| &values[i * self.columns..][..self.columns]).copied().collect();
        Self::from_values(&self.device, order.len(), self.columns, &moved)
    }

    /// `self other`, each transposed if asked.
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[must_use]
    pub fn times(&self, transposed: bool, other: &Self, other_transposed: bool) -> Self {
        let rows = if transposed { self.columns } else { self.rows };
        let columns = if other_transposed { other.rows } else { other.columns };
        let mut product = Self::zeros(&self.device, rows, columns);
        let out = product.array.view_mut(0, rows, columns);
        self.device.product(out, false, self.view(transposed), other.view(other_transposed));
        product
    }

    /// `self = own self + factor other`.
    pub fn axpby(&mut self, own: f64, factor: f64, other: &Self) {
        debug_assert_eq!((self.rows, self.columns), (other.rows, other.columns));
        self.device.axpby(own as f32, &mut self.array, factor as f32, &other.array);
    }

    /// `self *= factor`.
    pub fn scale(&mut self, factor: f64) {
        self.device.scale(&mut self.array, factor as f32);
    }

    /// The sum of the diagonal.
    #[must_use]
    pub fn trace(&self) -> f64 {
        let size = self.rows.min(self.columns);
        self.device.download(self.array.strided(0, size, 1, self.columns + 1)).into_iter().map(f64::from).sum()
    }

    /// The Frobenius norm.
    #[must_use]
    pub fn norm(&self) -> f64 {
        self.device.dot(&self.array, &self.array, 0..self.array.len()).sqrt()
    }

    /// The lower Cholesky factor of a symmetric matrix.
    ///
    /// # Errors
    /// If the matrix is not positive definite.
    pub fn cholesky(&self) -> Result<Self> {
        let array = self.device.cholesky(self.view(false))?;
        Ok(Self { array, ..self.clone() })
    }

    /// Eigenvalues in increasing order and eigenvectors (columns) of a symmetric matrix.
    ///
    /// # Errors
    /// If the iteration does not converge.
    pub fn symmetric_eigen(&self) -> Result<(Vec<f32>, Self)> {
        let (values, vectors) = self.device.symmetric_eigen(self.view(false))?;
        Ok((self.device.download(values.view(0, 1, self.rows)), Self { array: vectors, ..self.clone() }))
    }

    /// The inverses of symmetric matrices of one device, each with the ridge beside it added to its diagonal: all at once, so
    /// that a GPU is waited for once.
    ///
    /// # Errors
    /// If one of the sums is not positive definite: the first of them.
    pub fn inverses(of: &[(&Self, f64)]) -> Result<Vec<Self>> {
        let Some((first, _)) = of.first() else { return Ok(Vec::new()) };
        let views: Vec<_> = of.iter().map(|&(matrix, ridge)| (matrix.view(false), ridge)).collect();
        let arrays = first.device.inverses(&views)?;
        let of_shape =
            |(&(matrix, _), array): (&(&Self, f64), Array)| Self { array, device: matrix.device.clone(), ..*matrix };
        Ok(of.iter().zip(arrays).map(of_shape).collect())
    }

    /// The orthogonal factor `Q` of a square matrix `Q R`.
    ///
    /// # Errors
    /// If LAPACK refuses.
    pub fn orthogonal_factor(&self) -> Result<Self> {
        let array = self.device.orthogonal_factor(self.view(false))?;
        Ok(Self { array, device: self.device.clone(), ..*self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::Cpu;

    #[test]
    fn factors_multiply_back_to_the_matrix() {
        let device = Device::new(Cpu::default());
        let n = 40;
        let values: Vec<f32> = (0..n * n).map(|i| ((i * 37 % 101) as f32 / 50.0) - 1.0).collect();
        let a = Matrix::from_values(&device, n, n, &values);
        let mut gram = a.times(false, &a, true);
        let identity: Vec<f32> = (0..n * n).map(|i| f32::from(u8::from(i % (n + 1) == 0))).collect();
        gram.axpby(1.0, 1.0, &Matrix::from_values(&device, n, n, &identity));
        let lower = gram.cholesky().unwrap();
        let mut back = lower.times(false, &lower, true);
        back.axpby(1.0, -1.0, &gram);
        assert!(back.norm() < 1e-5 * gram.norm());
        let (values, vectors) = gram.symmetric_eigen().unwrap();
        let mut scaled = vectors.to_host();
        scaled.iter_mut().enumerate().for_each(|(i, v)| *v *= values[i % n]);
        let mut back = Matrix::from_values(&device, n, n, &scaled).times(false, &vectors, true);
        back.axpby(1.0, -1.0, &gram);
        assert!(back.norm() < 1e-5 * gram.norm());
        back.axpby(0.0, -1.0, &gram);
        assert!(back.cholesky().is_err());
    }

    #[test]
    fn parts_and_orders_of_a_matrix_are_where_they_belong() {
        let device = Device::new(Cpu::default());
        let a = Matrix::from_values(&device, 2, 3, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let column = Matrix::from_values(&device, 1, 2, &[7.0, 8.0]).reshaped(2, 1);
        let both = a.beside(&column);
        assert_eq!(both.to_host(), [1.0, 2.0, 3.0, 7.0, 4.0, 5.0, 6.0, 8.0]);
        assert_eq!((both.part(0..3), both.part(3..4)), (a.clone(), column));
        assert_eq!(a.columns_in_order(&[2, 0, 1]).to_host(), [3.0, 1.0, 2.0, 6.0, 4.0, 5.0]);
        assert_eq!(a.rows_in_order(&[1, 0]).to_host(), [4.0, 5.0, 6.0, 1.0, 2.0, 3.0]);
        assert_eq!(a.trace(), 6.0);
    }
}
