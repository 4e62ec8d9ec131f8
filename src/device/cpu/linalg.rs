//! Factorizations for optimizers, with names for what fails: by LAPACK, or in programs built without it by faer.
//!
//! Solving with a factor and one right-hand side reads every number once: substitution is done here, on the factor as it lies,
//! where LAPACK's other order of elements would first want a transposed copy.

use super::real::Real;
use crate::error::{Error, Result};
use ndarray::{Array1, Array2, ArrayView1};
use pulp::{Arch, Simd, WithSimd};

#[cfg(not(feature = "lapack"))]
#[path = "factorizations/by_faer.rs"]
mod factorizations;
#[cfg(feature = "lapack")]
#[path = "factorizations/by_lapack.rs"]
mod factorizations;

/// Copies the lower triangle onto the upper one.
pub fn symmetrize(matrix: &mut Array2<f64>) {
    for i in 0..matrix.nrows() {
        for j in 0..i {
            matrix[[j, i]] = matrix[[i, j]];
        }
    }
}

/// The lower Cholesky factor `L L' = matrix`; only the lower triangle is read.
///
/// # Errors
/// [`Error::Numeric`] if the matrix is not positive definite.
pub fn cholesky(matrix: &Array2<f64>) -> Result<Array2<f64>> {
    if matrix.is_empty() {
        return Ok(matrix.clone());
    }
    let factor = factorizations::cholesky(matrix);
    // Not every LAPACK notices a pivot that is no number.
    factor
        .filter(|factor| factor.diag().iter().all(|pivot| pivot.is_finite()))
        .ok_or_else(|| not_positive_definite(matrix.nrows()))
}

/// What is said of an `n x n` matrix that has no Cholesky factor.
pub(crate) fn not_positive_definite(n: usize) -> Error {
    Error::Numeric(format!("a {n} x {n} matrix is not positive definite"))
}

/// Solves `L L' x = b`.
///
/// # Errors
/// [`Error::Numeric`] if a pivot is zero.
pub fn cholesky_solve(lower: &Array2<f64>, b: ArrayView1<'_, f64>) -> Result<Array1<f64>> {
    substitute(lower, b, true)
}

/// Solves `L' x = b`.
///
/// # Errors
/// [`Error::Numeric`] if a pivot is zero.
pub fn transposed_solve(lower: &Array2<f64>, b: ArrayView1<'_, f64>) -> Result<Array1<f64>> {
    substitute(lower, b, false)
}

fn substitute(lower: &Array2<f64>, b: ArrayView1<'_, f64>, forward: bool) -> Result<Array1<f64>> {
    assert_eq!(lower.dim(), (b.len(), b.len()), "a factor and a right-hand side");
    if lower.diag().iter().any(|&pivot| pivot == 0.0) {
        return Err(Error::Numeric("a triangular factor is singular".into()));
    }
    let mut x = b.to_vec();
    if x.is_empty() {
        return Ok(x.into());
    }
    let rows = lower.as_standard_layout();
    let rows = rows.as_slice().expect("of standard layout");
    Arch::new().dispatch(Substitution { rows, x: &mut x, forward });
    Ok(x.into())
}

/// `x = L^-1 x` if `forward`, then `x = L'^-1 x`, for the rows of a lower triangular `L`.
struct Substitution<'a> {
    rows: &'a [f64],
    x: &'a mut [f64],
    forward: bool,
}

impl WithSimd for Substitution<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        const LANES: usize = 32;
        let Self { rows, x, forward } = self;
        let n = x.len();
        if forward {
            for (i, row) in rows.chunks_exact(n).enumerate() {
                let (found, rest) = x.split_at_mut(i);
                let (row_lanes, row_rest) = row[..i].as_chunks::<LANES>();
                let (x_lanes, x_rest) = found.as_chunks::<LANES>();
                let mut sums = [0.0; LANES];
                for (l, x) in row_lanes.iter().zip(x_lanes) {
                    for j in 0..LANES {
                        sums[j] = f64::fma::<S>(l[j], x[j], sums[j]);
                    }
                }
                let mut width = LANES / 2;
                while width > 0 {
                    for j in 0..width {
                        sums[j] += sums[j + width];
                    }
                    width /= 2;
                }
                let ends: f64 = row_rest.iter().zip(x_rest).map(|(l, x)| l * x).sum();
                rest[0] = (rest[0] - sums[0] - ends) / row[i];
            }
        }
        for (i, row) in rows.chunks_exact(n).enumerate().rev() {
            let (rest, found) = x.split_at_mut(i);
            found[0] /= row[i];
            for (x, &l) in rest.iter_mut().zip(row) {
                *x = f64::fma::<S>(-l, found[0], *x);
            }
        }
    }
}

/// The Cholesky factor of some rows and columns of a symmetric matrix, scaled to a unit diagonal so that pivots can be
/// compared. Where the matrix is not positive definite, a little ridge helps, tenfold until it is.
#[derive(Debug, Clone)]
pub struct ScaledCholesky {
    scale: Array1<f64>,
    factor: Array2<f64>,
    /// The smallest pivot before any help, between 0 and 1; 0 where help was needed.
    pub smallest_pivot: f64,
}

impl ScaledCholesky {
    /// Factorizes `matrix[coordinates, coordinates]`.
    ///
    /// # Errors
    /// [`Error::Numeric`] if no ridge below the diagonal itself helps: the matrix is not finite.
    pub fn new(matrix: &Array2<f64>, coordinates: &[usize]) -> Result<Self> {
        let scale: Array1<f64> = coordinates.iter().map(|&i| matrix[[i, i]].max(f64::MIN_POSITIVE).sqrt()).collect();
        let k = coordinates.len();
        let mut scaled =
            Array2::from_shape_fn((k, k), |(a, b)| matrix[[coordinates[a], coordinates[b]]] / (scale[a] * scale[b]));
        let mut factor = cholesky(&scaled);
        let smallest_pivot = factor.as_ref().map_or(0.0, |l| l.diag().iter().fold(1.0, |m: f64, v| m.min(v * v)));
        let mut ridge = 1e-12;
        while factor.is_err() && ridge < 1.0 {
            scaled.diag_mut().mapv_inplace(|v| v + ridge);
            factor = cholesky(&scaled);
            ridge *= 10.0;
        }
        Ok(Self { scale, factor: factor?, smallest_pivot })
    }

    /// Solves with the factorized matrix.
    ///
    /// # Errors
    /// As [`cholesky_solve`].
    pub fn solve(&self, right: ArrayView1<'_, f64>) -> Result<Array1<f64>> {
        Ok(cholesky_solve(&self.factor, (&right / &self.scale).view())? / &self.scale)
    }

    /// The lower triangular `A` with `A' A` the inverse of the factorized matrix.
    ///
    /// # Errors
    /// As [`cholesky_solve`].
    pub fn inverse_factor(&self) -> Result<Array2<f64>> {
        if self.factor.is_empty() {
            return Ok(self.factor.clone());
        }
        let singular = || Error::Numeric("a triangular factor is singular".into());
        Ok(factorizations::inverse_of_lower(&self.factor).ok_or_else(singular)? / &self.scale)
    }
}

/// Eigenvalues in increasing order and eigenvectors (columns) of a symmetric matrix.
///
/// # Errors
/// [`Error::Numeric`] if the iteration does not converge.
pub fn symmetric_eigen(matrix: &Array2<f64>) -> Result<(Array1<f64>, Array2<f64>)> {
    factorizations::symmetric_eigen(matrix)
        .map_err(|e| Error::Numeric(format!("eigenvalues of a symmetric matrix: {e}")))
}

/// The inverse of a symmetric positive-definite matrix.
///
/// # Errors
/// [`Error::Numeric`] if the matrix is not positive definite.
pub fn positive_inverse(matrix: &Array2<f64>) -> Result<Array2<f64>> {
    if matrix.is_empty() {
        return Ok(matrix.clone());
    }
    let inverse = factorizations::positive_inverse(matrix);
    // Not every LAPACK notices a pivot that is no number.
    inverse
        .filter(|inverse| inverse.diag().iter().all(|v| v.is_finite() && *v > 0.0))
        .ok_or_else(|| not_positive_definite(matrix.nrows()))
}

/// The orthogonal factor `Q` of a square matrix `Q R`, in the precision of optimizers' matrices: an orthogonal factor of
/// Householder's method is orthogonal to rounding whatever the matrix.
///
/// # Errors
/// [`Error::Numeric`] if LAPACK refuses.
pub fn orthogonal_factor(matrix: Array2<f32>) -> Result<Array2<f32>> {
    factorizations::orthogonal_factor(matrix).map_err(|e| Error::Numeric(format!("the factor Q of a matrix: {e}")))
}

/// Which columns depend linearly on earlier ones, from a Gram matrix in `f64` whose lower triangle is given.
///
/// A Cholesky factorization without pivoting passes over a column whose remaining diagonal has fallen to `tolerance`
/// of its own; such columns come back in increasing order.
#[must_use]
pub fn dependent_columns(gram: &Array2<f64>, tolerance: f64) -> Vec<usize> {
    let d = gram.nrows();
    let mut factor = Array2::<f64>::zeros((d, d));
    let mut dependent = Vec::new();
    for j in 0..d {
        let rest = gram[[j, j]] - factor.row(j).iter().take(j).map(|v| v * v).sum::<f64>();
        if rest <= tolerance * gram[[j, j]] || gram[[j, j]] <= 0.0 {
            dependent.push(j);
            continue;
        }
        let pivot = rest.sqrt();
        factor[[j, j]] = pivot;
        for i in j + 1..d {
            let dot: f64 = (0..j).map(|k| factor[[i, k]] * factor[[j, k]]).sum();
            factor[[i, j]] = (gram[[i, j]] - dot) / pivot;
        }
    }
    dependent
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn a_solve_undoes_a_product() {
        let a = array![[4.0, 0.0, 0.0], [1.0, 3.0, 0.0], [0.5, -1.0, 2.0]];
        let mut full = a.clone();
        symmetrize(&mut full);
        let x = array![1.0, -2.0, 0.5];
        let l = cholesky(&a).unwrap();
        let got = cholesky_solve(&l, full.dot(&x).view()).unwrap();
        assert!((&got - &x).iter().all(|e| e.abs() < 1e-14), "{got}");
        // However the factor lies in memory.
        let turned = l.t().to_owned().reversed_axes();
        assert_eq!(cholesky_solve(&turned, full.dot(&x).view()).unwrap(), got);
        assert!(cholesky_solve(&array![[0.0]], array![1.0].view()).is_err());
        assert!(cholesky(&array![[1.0, 2.0], [2.0, 1.0]]).is_err());
        let (values, vectors) = symmetric_eigen(&full).unwrap();
        let back = vectors.dot(&Array2::from_diag(&values)).dot(&vectors.t());
        assert!((&back - &full).iter().all(|e| e.abs() < 1e-13));
    }

    #[test]
    fn substitution_undoes_products_of_any_size() {
        for n in [0, 1, 31, 32, 33, 100] {
            let lower = Array2::from_shape_fn((n, n), |(i, j)| match i.cmp(&j) {
                std::cmp::Ordering::Less => 0.0,
                std::cmp::Ordering::Equal => 2.0 + (i % 3) as f64,
                std::cmp::Ordering::Greater => ((i * 7 + j * 5) % 11) as f64 / 50.0 - 0.1,
            });
            let x = Array1::from_shape_fn(n, |i| ((i * 13) % 17) as f64 - 8.0);
            let half = lower.t().dot(&x);
            let close = |got: &Array1<f64>| (got - &x).iter().all(|e| e.abs() < 1e-12);
            assert!(close(&transposed_solve(&lower, half.view()).unwrap()), "{n}");
            assert!(close(&cholesky_solve(&lower, lower.dot(&half).view()).unwrap()), "{n}");
        }
    }

    #[test]
    fn inverses_and_orthogonal_factors_are_what_they_are_called() {
        let n = 30;
        let a = Array2::from_shape_fn((n, n), |(i, j)| ((i * 37 + j * j * 11) % 101) as f64 / 50.0 - 1.0);
        let positive = a.dot(&a.t()) + Array2::<f64>::eye(n);
        let product = positive_inverse(&positive).unwrap().dot(&positive);
        assert!((product - Array2::<f64>::eye(n)).iter().all(|e| e.abs() < 1e-10));
        assert!(positive_inverse(&Array2::zeros((0, 0))).unwrap().is_empty());
        assert!(positive_inverse(&(-&positive)).is_err() && positive_inverse(&(&positive * f64::NAN)).is_err());
        let a = a.mapv(|v| v as f32);
        let q = orthogonal_factor(a.clone()).unwrap();
        assert!((q.t().dot(&q) - Array2::<f32>::eye(n)).iter().all(|e| e.abs() < 1e-5));
        // Q'A is upper triangular.
        assert!(q.t().dot(&a).indexed_iter().all(|((i, j), v)| i <= j || v.abs() < 1e-5));
    }

    #[test]
    fn scaling_changes_no_solution_and_a_singular_matrix_is_helped() {
        let a = array![[4e12, 1e3, 0.0], [1e3, 3.0, 7.0], [0.0, 7.0, 1e-9]];
        let factor = ScaledCholesky::new(&a, &[0, 1]).unwrap();
        let x = factor.solve(array![4e12 + 2e3, 1e3 + 6.0].view()).unwrap();
        assert!((x[0] - 1.0).abs() < 1e-14 && (x[1] - 2.0).abs() < 1e-12, "{x}");
        assert!(factor.smallest_pivot > 0.9);
        let inverse = factor.inverse_factor().unwrap();
        let inverse = inverse.t().dot(&inverse);
        for (right, column) in [(array![1.0, 0.0], 0), (array![0.0, 1.0], 1)] {
            let solved = factor.solve(right.view()).unwrap();
            assert!(solved.iter().zip(inverse.column(column)).all(|(a, b)| (a - b).abs() <= 1e-14 * a.abs()));
        }
        let singular = array![[1.0, 1.0], [1.0, 1.0 - 1e-15]];
        let factor = ScaledCholesky::new(&singular, &[0, 1]).unwrap();
        assert!(factor.smallest_pivot < 1e-12);
        let x = factor.solve(array![2.0, 2.0].view()).unwrap();
        assert!((x.sum() - 2.0).abs() < 1e-6, "{x}");
        assert!(ScaledCholesky::new(&array![[f64::NAN]], &[0]).is_err());
    }

    #[test]
    fn dependent_columns_are_those_that_follow_from_earlier_ones() {
        let x = array![
            [1.0, 2.0, 3.0, 0.0, 1.0],
            [1.0, 0.0, 1.0, 0.0, 5.0],
            [1.0, -1.0, 0.0, 0.0, 2.0],
            [1.0, 4.0, 5.0, 0.0, -1.0]
        ];
        assert_eq!(dependent_columns(&x.t().dot(&x), 1e-10), vec![2, 3]);
    }
}
