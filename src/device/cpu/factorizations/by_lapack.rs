//! Factorizations by the system's LAPACK.

use ndarray::{Array1, Array2};
use ndarray_linalg::error::LinalgError;
use ndarray_linalg::{Cholesky, Diag, Eigh, InverseC, QRSquareInto, SolveTriangular, UPLO};

/// The lower factor of a symmetric matrix, from its lower triangle; none where LAPACK finds a pivot that is not positive.
pub(super) fn cholesky(matrix: &Array2<f64>) -> Option<Array2<f64>> {
    matrix.cholesky(UPLO::Lower).ok()
}

/// The inverse of a lower triangular matrix; none where a pivot is zero.
pub(super) fn inverse_of_lower(lower: &Array2<f64>) -> Option<Array2<f64>> {
    lower.solve_triangular(UPLO::Lower, Diag::NonUnit, &Array2::eye(lower.nrows())).ok()
}

/// The inverse of a symmetric positive-definite matrix; none where LAPACK finds that it is not.
pub(super) fn positive_inverse(matrix: &Array2<f64>) -> Option<Array2<f64>> {
    matrix.invc().ok()
}

/// Eigenvalues in increasing order and eigenvectors as columns, from the lower triangle.
pub(super) fn symmetric_eigen(matrix: &Array2<f64>) -> Result<(Array1<f64>, Array2<f64>), LinalgError> {
    matrix.eigh(UPLO::Lower)
}

/// `Q` of `Q R`.
pub(super) fn orthogonal_factor(matrix: Array2<f32>) -> Result<Array2<f32>, LinalgError> {
    Ok(matrix.qr_square_into()?.0)
}
