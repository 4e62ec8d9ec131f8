//! What this machine can do at most: reading memory, multiplying and adding, multiplying matrices.

use pulp::{Arch, Simd, WithSimd};
use rayon::ThreadPool;
use rayon::prelude::*;
use std::hint::black_box;
use std::time::Instant;

/// Rates of a number of threads together.
pub struct Ceilings {
    /// Bytes read from memory in a second.
    pub bytes: f64,
    /// Multiplications and additions of `f32` in a second.
    pub flops: f64,
    /// The same as a matrix product of 2048 x 2048 reaches them.
    pub product_flops: f64,
}

impl Ceilings {
    /// Measures them with the threads of `pool`, reading `memory`.
    pub fn measure(pool: &ThreadPool, memory: &[f32]) -> Self {
        let threads = pool.current_num_threads();
        let read = median(|| {
            pool.install(|| {
                memory.par_chunks(memory.len().div_ceil(threads)).for_each(|part| {
                    black_box(Arch::new().dispatch(Read(part)));
                });
            });
        });
        let steps = 10_000_000;
        let lanes = Arch::new().dispatch(Lanes);
        let arithmetic = median(|| {
            pool.install(|| {
                (0..threads).into_par_iter().with_max_len(1).for_each(|_| {
                    black_box(Arch::new().dispatch(MultiplyAdd(steps)));
                });
            });
        });
        let n = 2048;
        let (a, b, mut c) = (vec![0.5_f32; n * n], vec![0.25_f32; n * n], vec![0.0_f32; n * n]);
        let product = median(|| pool.install(|| multiply(n, &a, &b, &mut c)));
        Self {
            bytes: (4 * memory.len()) as f64 / read,
            flops: (threads * steps * CHAINS * 2 * lanes) as f64 / arithmetic,
            product_flops: 2.0 * (n as f64).powi(3) / product,
        }
    }
}

/// The median time of five calls, in seconds.
pub fn median(mut call: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..5)
        .map(|_| {
            let start = Instant::now();
            call();
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[2]
}

fn multiply(n: usize, a: &[f32], b: &[f32], c: &mut [f32]) {
    let stride = n as isize;
    let threads = gemm::Parallelism::Rayon(0);
    // SAFETY: all three are n x n.
    unsafe {
        gemm::gemm(
            n,
            n,
            n,
            c.as_mut_ptr(),
            stride,
            1,
            false,
            a.as_ptr(),
            stride,
            1,
            b.as_ptr(),
            stride,
            1,
            0.0_f32,
            1.0_f32,
            false,
            false,
            false,
            threads,
        );
    }
    black_box(&c);
}

struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        size_of::<S::f32s>() / 4
    }
}

struct Read<'a>(&'a [f32]);

impl WithSimd for Read<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let mut sums = [simd.splat_f32s(0.0); 8];
        for registers in S::as_simd_f32s(self.0).0.chunks_exact(8) {
            for (sum, &register) in sums.iter_mut().zip(registers) {
                *sum = simd.add_f32s(*sum, register);
            }
        }
        sums.iter().map(|&sum| simd.reduce_sum_f32s(sum)).sum()
    }
}

/// Independent sums, more than the latency of a multiply-add hides.
const CHAINS: usize = 12;

struct MultiplyAdd(usize);

impl WithSimd for MultiplyAdd {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let mut sums: [S::f32s; CHAINS] = std::array::from_fn(|i| simd.splat_f32s(i as f32));
        let (a, b) = (black_box(simd.splat_f32s(0.999)), black_box(simd.splat_f32s(0.001)));
        for _ in 0..self.0 {
            for sum in &mut sums {
                *sum = simd.mul_add_f32s(*sum, a, b);
            }
        }
        sums.iter().map(|&sum| simd.reduce_sum_f32s(sum)).sum()
    }
}
