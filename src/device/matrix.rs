//! A matrix on a device, for optimizers that treat a block of parameters as one: products and factorizations.

use super::backend::Device;
use super::{Array, array::View};
use crate::error::Result;

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

    fn view(&self, transposed: bool) -> View<'_> {
        let view = self.array.view(0, self.rows, self.columns);
        if transposed { view.t() } else { view }
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
}
