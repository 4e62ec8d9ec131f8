//! Factorizations of a library that was built without LAPACK.

use parsimony::device::cpu::Cpu;
use parsimony::device::{Device, Matrix};

#[test]
fn factors_multiply_back_and_what_has_none_is_refused() {
    let device = Device::new(Cpu::default());
    let n = 40;
    let values: Vec<f32> = (0..n * n).map(|i| ((i * 37 % 101) as f32 / 50.0) - 1.0).collect();
    let a = Matrix::from_values(&device, n, n, &values);
    let identity: Vec<f32> = (0..n * n).map(|i| f32::from(u8::from(i % (n + 1) == 0))).collect();
    let identity = Matrix::from_values(&device, n, n, &identity);
    let mut gram = a.times(false, &a, true);
    gram.axpby(1.0, 1.0, &identity);
    let near = |a: &Matrix, b: &Matrix| {
        let mut difference = a.clone();
        difference.axpby(1.0, -1.0, b);
        difference.norm() < 1e-5 * b.norm()
    };
    let lower = gram.cholesky().unwrap();
    assert!(near(&lower.times(false, &lower, true), &gram));
    let inverse = Matrix::inverses(&[(&gram, 0.0)]).unwrap().remove(0);
    assert!(near(&inverse.times(false, &gram, false), &identity));
    let (values, vectors) = gram.symmetric_eigen().unwrap();
    assert!(values.is_sorted());
    let mut scaled = vectors.to_host();
    scaled.iter_mut().enumerate().for_each(|(i, v)| *v *= values[i % n]);
    assert!(near(&Matrix::from_values(&device, n, n, &scaled).times(false, &vectors, true), &gram));
    let q = a.orthogonal_factor().unwrap();
    assert!(near(&q.times(true, &q, false), &identity));
    let upper = q.times(true, &a, false).to_host();
    assert!(upper.iter().enumerate().all(|(i, v)| i / n <= i % n || v.abs() < 1e-4));
    // Indefinite, and no numbers.
    let mut wrong = gram.clone();
    wrong.scale(-1.0);
    let mut missing = gram.to_host();
    missing[n + 1] = f32::NAN;
    for wrong in [wrong, Matrix::from_values(&device, n, n, &missing)] {
        assert!(wrong.cholesky().is_err() && Matrix::inverses(&[(&wrong, 0.0)]).is_err());
    }
}
