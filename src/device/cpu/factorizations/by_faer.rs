//! Factorizations by faer, which needs nothing of the system.

use faer::linalg::solvers::DenseSolveCore as _;
use faer::{Mat, MatRef, Side};
use ndarray::{Array1, Array2};

fn to_faer<T: Copy>(matrix: &Array2<T>) -> Mat<T> {
    Mat::from_fn(matrix.nrows(), matrix.ncols(), |i, j| matrix[[i, j]])
}

fn from_faer<T: Copy>(matrix: MatRef<'_, T>) -> Array2<T> {
    Array2::from_shape_fn((matrix.nrows(), matrix.ncols()), |(i, j)| matrix[(i, j)])
}

/// The lower factor of a symmetric matrix, from its lower triangle; none where a pivot is not positive.
pub(super) fn cholesky(matrix: &Array2<f64>) -> Option<Array2<f64>> {
    Some(from_faer(to_faer(matrix).llt(Side::Lower).ok()?.L()))
}

/// The inverse of a lower triangular matrix; none where a pivot is zero.
pub(super) fn inverse_of_lower(lower: &Array2<f64>) -> Option<Array2<f64>> {
    if lower.diag().iter().any(|&pivot| pivot == 0.0) {
        return None;
    }
    let mut inverse = Mat::<f64>::identity(lower.nrows(), lower.ncols());
    to_faer(lower).solve_lower_triangular_in_place(&mut inverse);
    Some(from_faer(inverse.as_ref()))
}

/// The inverse of a symmetric positive-definite matrix; none where it is not.
pub(super) fn positive_inverse(matrix: &Array2<f64>) -> Option<Array2<f64>> {
    Some(from_faer(to_faer(matrix).llt(Side::Lower).ok()?.inverse().as_ref()))
}

/// Eigenvalues in increasing order and eigenvectors as columns, from the lower triangle.
pub(super) fn symmetric_eigen(matrix: &Array2<f64>) -> Result<(Array1<f64>, Array2<f64>), &'static str> {
    let eigen = to_faer(matrix).self_adjoint_eigen(Side::Lower).map_err(|_| "no convergence")?;
    Ok((eigen.S().column_vector().iter().copied().collect(), from_faer(eigen.U())))
}

/// `Q` of `Q R`; it cannot fail.
pub(super) fn orthogonal_factor(matrix: Array2<f32>) -> Result<Array2<f32>, &'static str> {
    Ok(from_faer(to_faer(&matrix).qr().compute_Q().as_ref()))
}
