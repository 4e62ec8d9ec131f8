//! The factorizations that the device room asks of `ndarray-linalg`, under the same names, for small matrices.
//!
//! Cholesky's and Householder's methods as in Golub and Van Loan, eigenvalues by Jacobi's rotations. Nothing is blocked: this
//! serves the comparison of devices on machines without LAPACK, not the program itself.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2};

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A pivot is not positive.
    #[error("the matrix is not positive definite")]
    NotPositive,
    /// A pivot is zero.
    #[error("the matrix is singular")]
    Singular,
    /// Rotations do not end.
    #[error("the iteration does not converge")]
    NoConvergence,
}

type Result<T> = std::result::Result<T, Error>;

/// Which triangle of a symmetric or triangular matrix is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UPLO {
    /// The lower.
    Lower,
    /// The upper.
    Upper,
}

/// Whether a triangular matrix has ones on its diagonal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Diag {
    /// Not necessarily.
    NonUnit,
}

/// Cholesky's factorization.
pub trait Cholesky {
    /// The lower factor.
    ///
    /// # Errors
    /// If the matrix is not positive definite.
    fn cholesky(&self, from: UPLO) -> Result<Array2<f64>>;
}

impl Cholesky for Array2<f64> {
    fn cholesky(&self, _: UPLO) -> Result<Array2<f64>> {
        let n = self.nrows();
        let mut l = Array2::zeros((n, n));
        for j in 0..n {
            for i in j..n {
                let dot: f64 = (0..j).map(|k| l[[i, k]] * l[[j, k]]).sum();
                let rest: f64 = self[[i, j]] - dot;
                if i > j {
                    l[[i, j]] = rest / l[[j, j]];
                } else if rest > 0.0 {
                    l[[j, j]] = rest.sqrt();
                } else {
                    return Err(Error::NotPositive);
                }
            }
        }
        Ok(l)
    }
}

fn solve_column(a: ArrayView2<'_, f64>, from: UPLO, b: ArrayView1<'_, f64>) -> Result<Array1<f64>> {
    let n = b.len();
    let mut x = b.to_owned();
    for step in 0..n {
        let i = if from == UPLO::Lower { step } else { n - 1 - step };
        let known = if from == UPLO::Lower { 0..i } else { i + 1..n };
        let dot: f64 = known.map(|j| a[[i, j]] * x[j]).sum();
        if a[[i, i]] == 0.0 {
            return Err(Error::Singular);
        }
        x[i] = (x[i] - dot) / a[[i, i]];
    }
    Ok(x)
}

/// Systems with a triangular matrix.
pub trait SolveTriangular<B> {
    /// `x` with `self x = b`.
    ///
    /// # Errors
    /// If a pivot is zero.
    fn solve_triangular(&self, from: UPLO, diag: Diag, b: &B) -> Result<B>;
}

impl SolveTriangular<Array1<f64>> for Array2<f64> {
    fn solve_triangular(&self, from: UPLO, _: Diag, b: &Array1<f64>) -> Result<Array1<f64>> {
        solve_column(self.view(), from, b.view())
    }
}

impl SolveTriangular<Array2<f64>> for Array2<f64> {
    fn solve_triangular(&self, from: UPLO, _: Diag, b: &Array2<f64>) -> Result<Array2<f64>> {
        let mut x = b.clone();
        for (mut to, column) in x.columns_mut().into_iter().zip(b.columns()) {
            to.assign(&solve_column(self.view(), from, column)?);
        }
        Ok(x)
    }
}

/// Inverses of positive-definite matrices.
pub trait InverseC {
    /// The inverse.
    ///
    /// # Errors
    /// If the matrix is not positive definite.
    fn invc(&self) -> Result<Array2<f64>>;
}

impl InverseC for Array2<f64> {
    fn invc(&self) -> Result<Array2<f64>> {
        let l = self.cholesky(UPLO::Lower)?;
        let inverse = l.solve_triangular(UPLO::Lower, Diag::NonUnit, &Array2::eye(self.nrows()))?;
        Ok(inverse.t().dot(&inverse))
    }
}

/// Eigenvalues of symmetric matrices.
pub trait Eigh {
    /// Eigenvalues in increasing order, eigenvectors as columns.
    ///
    /// # Errors
    /// If the rotations do not end.
    fn eigh(&self, from: UPLO) -> Result<(Array1<f64>, Array2<f64>)>;
}

impl Eigh for Array2<f64> {
    fn eigh(&self, _: UPLO) -> Result<(Array1<f64>, Array2<f64>)> {
        let n = self.nrows();
        let mut a = Array2::from_shape_fn((n, n), |(i, j)| self[[i.max(j), i.min(j)]]);
        let mut v = Array2::<f64>::eye(n);
        let norm: f64 = a.iter().map(|v| v * v).sum();
        for _ in 0..60 {
            let off: f64 = a.indexed_iter().filter(|((i, j), _)| i != j).map(|(_, v)| v * v).sum();
            if off <= 1e-30 * norm {
                let mut order: Vec<usize> = (0..n).collect();
                order.sort_by(|&i, &j| a[[i, i]].total_cmp(&a[[j, j]]));
                let values = order.iter().map(|&i| a[[i, i]]).collect();
                return Ok((values, Array2::from_shape_fn((n, n), |(i, j)| v[[i, order[j]]])));
            }
            for p in 0..n {
                for q in p + 1..n {
                    rotate(&mut a, &mut v, p, q);
                }
            }
        }
        Err(Error::NoConvergence)
    }
}

/// Makes element `(p, q)` zero.
fn rotate(a: &mut Array2<f64>, v: &mut Array2<f64>, p: usize, q: usize) {
    if a[[p, q]] == 0.0 {
        return;
    }
    let tau = (a[[q, q]] - a[[p, p]]) / (2.0 * a[[p, q]]);
    let t = tau.signum() / (tau.abs() + (1.0 + tau * tau).sqrt());
    let t = if tau == 0.0 { 1.0 } else { t };
    let c = 1.0 / (1.0 + t * t).sqrt();
    let s = t * c;
    for k in 0..a.nrows() {
        let (x, y) = (a[[k, p]], a[[k, q]]);
        (a[[k, p]], a[[k, q]]) = (c * x - s * y, s * x + c * y);
    }
    for k in 0..a.nrows() {
        let (x, y) = (a[[p, k]], a[[q, k]]);
        (a[[p, k]], a[[q, k]]) = (c * x - s * y, s * x + c * y);
        let (x, y) = (v[[k, p]], v[[k, q]]);
        (v[[k, p]], v[[k, q]]) = (c * x - s * y, s * x + c * y);
    }
}

/// The factorization `Q R` of square matrices.
pub trait QRSquareInto {
    /// `Q` and `R`.
    ///
    /// # Errors
    /// None: every matrix has one.
    fn qr_square_into(self) -> Result<(Array2<f32>, Array2<f32>)>;
}

impl QRSquareInto for Array2<f32> {
    fn qr_square_into(self) -> Result<(Array2<f32>, Array2<f32>)> {
        let n = self.nrows();
        let (mut q, mut r) = (Array2::<f64>::eye(n), self.mapv(f64::from));
        for j in 0..n {
            let size = (j..n).map(|i| r[[i, j]] * r[[i, j]]).sum::<f64>().sqrt();
            if size == 0.0 {
                continue;
            }
            let mut u = Array1::<f64>::zeros(n);
            (j..n).for_each(|i| u[i] = r[[i, j]]);
            u[j] += size.copysign(r[[j, j]]);
            let square = u.dot(&u);
            let along = u.dot(&r) * (2.0 / square);
            let across = q.dot(&u) * (2.0 / square);
            r.indexed_iter_mut().for_each(|((i, k), v)| *v -= u[i] * along[k]);
            q.indexed_iter_mut().for_each(|((i, k), v)| *v -= across[i] * u[k]);
        }
        Ok((q.mapv(|v| v as f32), r.mapv(|v| v as f32)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_multiply_back() {
        let n = 12;
        let a = Array2::from_shape_fn((n, n), |(i, j)| ((i * 37 + j * j * 11) % 101) as f64 / 50.0 - 1.0);
        let gram = a.dot(&a.t()) + Array2::<f64>::eye(n);
        let close = |a: &Array2<f64>, b: &Array2<f64>| assert!((a - b).iter().all(|e| e.abs() < 1e-9));
        let l = gram.cholesky(UPLO::Lower).unwrap();
        close(&l.dot(&l.t()), &gram);
        close(&gram.invc().unwrap().dot(&gram), &Array2::eye(n));
        let (values, vectors) = gram.eigh(UPLO::Lower).unwrap();
        close(&vectors.dot(&Array2::from_diag(&values)).dot(&vectors.t()), &gram);
        let (q, r) = a.mapv(|v| v as f32).qr_square_into().unwrap();
        let (q, r) = (q.mapv(f64::from), r.mapv(f64::from));
        assert!((q.dot(&r) - &a).iter().all(|e| e.abs() < 1e-5));
        assert!((-&gram).cholesky(UPLO::Lower).is_err());
    }
}
