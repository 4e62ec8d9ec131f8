//! The two number types of the kernels, with the elementary functions that vectorize.
//!
//! All functions are branch-free scalar code, inlined into functions compiled for the instruction set at hand, where
//! the compiler turns loops over them into vector code. `exp` splits `x = k ln 2 + r`, `|r| <= ln(2)/2`, sums the
//! Taylor series of `exp(r)` to the type's precision and puts `k` into the exponent bits.

use pulp::Simd;
use std::fmt::Debug;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// `f32` or `f64`.
pub trait Real:
    Copy
    + Default
    + Debug
    + PartialOrd
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + 'static
{
    /// One.
    const ONE: Self;
    /// A vector register of an instruction set.
    type Lanes<S: Simd>: Copy;

    /// Single-precision numbers as they are, if this is their type.
    fn borrowed(values: &[f32]) -> Option<&[Self]>;
    /// From single precision.
    fn from_f32(x: f32) -> Self;
    /// From double precision.
    fn from_f64(x: f64) -> Self;
    /// To double precision.
    fn to_f64(self) -> f64;
    /// `a * b + c`, fused where the instruction set can.
    fn fma<S: Simd>(a: Self, b: Self, c: Self) -> Self;
    /// The absolute value.
    fn abs(self) -> Self;
    /// The larger one.
    fn larger(self, other: Self) -> Self;
    /// `exp(x)` to about one unit in the last place; arguments beyond the finite range are clamped to it.
    fn exp<S: Simd>(x: Self) -> Self;
    /// `2 atanh(s)` for `|s| <= 1/3`: with `s = e/(2+e)` that is `ln(1+e)`.
    fn ln_by_series<S: Simd>(s: Self) -> Self;
    /// `ln(x)` of a positive normal number.
    fn ln<S: Simd>(x: Self) -> Self;

    /// Numbers as whole registers; the length must be a multiple of 16.
    fn lanes<S: Simd>(values: &[Self]) -> &[Self::Lanes<S>];
    /// Numbers as whole registers, to be changed.
    fn lanes_mut<S: Simd>(values: &mut [Self]) -> &mut [Self::Lanes<S>];
    /// One number in every lane.
    fn splat_lanes<S: Simd>(simd: S, value: Self) -> Self::Lanes<S>;
    /// `a * b` lane by lane.
    fn mul_lanes<S: Simd>(simd: S, a: Self::Lanes<S>, b: Self::Lanes<S>) -> Self::Lanes<S>;
    /// A register of zeros.
    fn zero_lanes<S: Simd>(simd: S) -> Self::Lanes<S>;
    /// `a * b + c` lane by lane.
    fn fma_lanes<S: Simd>(simd: S, a: Self::Lanes<S>, b: Self::Lanes<S>, c: Self::Lanes<S>) -> Self::Lanes<S>;
    /// The sum of the lanes.
    fn sum_lanes<S: Simd>(simd: S, a: Self::Lanes<S>) -> Self;
}

/// `2 atanh(s) = 2 (s + s^3/3 + s^5/5 + ...)`, `s^2 <= 1/9`.
macro_rules! ln_by_series {
    ($s:expr, $fma:path, [$($c:expr),*]) => {{
        let s2 = $s * $s;
        let mut p = 0.0;
        $( p = $fma(p, s2, $c); )*
        2.0 * $fma($s * s2, p, $s)
    }};
}

impl Real for f32 {
    const ONE: Self = 1.0;
    type Lanes<S: Simd> = S::f32s;

    #[inline(always)]
    fn borrowed(values: &[f32]) -> Option<&[Self]> {
        Some(values)
    }

    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        x
    }

    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        x as f32
    }

    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }

    #[inline(always)]
    fn fma<S: Simd>(a: Self, b: Self, c: Self) -> Self {
        if S::IS_SCALAR { a * b + c } else { a.mul_add(b, c) }
    }

    #[inline(always)]
    fn abs(self) -> Self {
        self.abs()
    }

    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        if self > other { self } else { other }
    }

    #[inline(always)]
    fn exp<S: Simd>(x: Self) -> Self {
        // Adding 1.5 * 2^23 rounds to a whole number and leaves it in the low mantissa bits.
        const MAGIC: f32 = 12_582_912.0;
        const LN2_HIGH: f32 = 0.693_359_4;
        const LN2_LOW: f32 = -2.121_944_4e-4;
        let x = if x < -87.0 { -87.0 } else { x };
        let x = if x > 88.0 { 88.0 } else { x };
        let shifted = Self::fma::<S>(x, std::f32::consts::LOG2_E, MAGIC);
        let k = shifted - MAGIC;
        let r = Self::fma::<S>(k, -LN2_LOW, Self::fma::<S>(k, -LN2_HIGH, x));
        let mut p = 1.0 / 5040.0;
        for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = Self::fma::<S>(p, r, c);
        }
        p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()))
    }

    #[inline(always)]
    fn ln<S: Simd>(x: Self) -> Self {
        // x = 2^k m with 3/4 <= m < 3/2; k comes from the exponent bits and becomes a number by way of the mantissa's.
        const MAGIC: f32 = 12_582_912.0;
        let k = (x.to_bits() as i32 - 0.75_f32.to_bits() as i32) >> 23;
        let m = f32::from_bits((x.to_bits() as i32 - (k << 23)) as u32);
        let k = f32::from_bits((MAGIC.to_bits() as i32 + k) as u32) - MAGIC;
        Self::fma::<S>(k, std::f32::consts::LN_2, Self::ln_by_series::<S>((m - 1.0) / (m + 1.0)))
    }

    #[inline(always)]
    fn ln_by_series<S: Simd>(s: Self) -> Self {
        ln_by_series!(
            s,
            Self::fma::<S>,
            [1.0 / 15.0, 1.0 / 13.0, 1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0]
        )
    }

    #[inline(always)]
    fn lanes<S: Simd>(values: &[Self]) -> &[Self::Lanes<S>] {
        S::as_simd_f32s(values).0
    }

    #[inline(always)]
    fn lanes_mut<S: Simd>(values: &mut [Self]) -> &mut [Self::Lanes<S>] {
        S::as_mut_simd_f32s(values).0
    }

    #[inline(always)]
    fn splat_lanes<S: Simd>(simd: S, value: Self) -> Self::Lanes<S> {
        simd.splat_f32s(value)
    }

    #[inline(always)]
    fn mul_lanes<S: Simd>(simd: S, a: Self::Lanes<S>, b: Self::Lanes<S>) -> Self::Lanes<S> {
        simd.mul_f32s(a, b)
    }

    #[inline(always)]
    fn zero_lanes<S: Simd>(simd: S) -> Self::Lanes<S> {
        simd.splat_f32s(0.0)
    }

    #[inline(always)]
    fn fma_lanes<S: Simd>(simd: S, a: Self::Lanes<S>, b: Self::Lanes<S>, c: Self::Lanes<S>) -> Self::Lanes<S> {
        simd.mul_add_e_f32s(a, b, c)
    }

    #[inline(always)]
    fn sum_lanes<S: Simd>(simd: S, a: Self::Lanes<S>) -> Self {
        simd.reduce_sum_f32s(a)
    }
}

impl Real for f64 {
    const ONE: Self = 1.0;
    type Lanes<S: Simd> = S::f64s;

    #[inline(always)]
    fn borrowed(_: &[f32]) -> Option<&[Self]> {
        None
    }

    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        f64::from(x)
    }

    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        x
    }

    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }

    #[inline(always)]
    fn fma<S: Simd>(a: Self, b: Self, c: Self) -> Self {
        if S::IS_SCALAR { a * b + c } else { a.mul_add(b, c) }
    }

    #[inline(always)]
    fn abs(self) -> Self {
        self.abs()
    }

    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        if self > other { self } else { other }
    }

    #[inline(always)]
    fn exp<S: Simd>(x: Self) -> Self {
        const MAGIC: f64 = 6_755_399_441_055_744.0; // 1.5 * 2^52
        const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
        const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
        let x = if x < -708.0 { -708.0 } else { x };
        let x = if x > 709.0 { 709.0 } else { x };
        let shifted = Self::fma::<S>(x, std::f64::consts::LOG2_E, MAGIC);
        let k = shifted - MAGIC;
        let r = Self::fma::<S>(k, -LN2_LOW, Self::fma::<S>(k, -LN2_HIGH, x));
        let mut p = 1.0 / 6_227_020_800.0;
        for c in [
            1.0 / 479_001_600.0,
            1.0 / 39_916_800.0,
            1.0 / 3_628_800.0,
            1.0 / 362_880.0,
            1.0 / 40_320.0,
            1.0 / 5040.0,
            1.0 / 720.0,
            1.0 / 120.0,
            1.0 / 24.0,
            1.0 / 6.0,
            0.5,
            1.0,
            1.0,
        ] {
            p = Self::fma::<S>(p, r, c);
        }
        p * f64::from_bits((shifted.to_bits() << 52).wrapping_add(1.0_f64.to_bits()))
    }

    #[inline(always)]
    fn ln<S: Simd>(x: Self) -> Self {
        const MAGIC: f64 = 6_755_399_441_055_744.0;
        let k = (x.to_bits() as i64 - 0.75_f64.to_bits() as i64) >> 52;
        let m = f64::from_bits((x.to_bits() as i64 - (k << 52)) as u64);
        let k = f64::from_bits((MAGIC.to_bits() as i64 + k) as u64) - MAGIC;
        Self::fma::<S>(k, std::f64::consts::LN_2, Self::ln_by_series::<S>((m - 1.0) / (m + 1.0)))
    }

    #[inline(always)]
    fn ln_by_series<S: Simd>(s: Self) -> Self {
        ln_by_series!(
            s,
            Self::fma::<S>,
            [
                1.0 / 33.0,
                1.0 / 31.0,
                1.0 / 29.0,
                1.0 / 27.0,
                1.0 / 25.0,
                1.0 / 23.0,
                1.0 / 21.0,
                1.0 / 19.0,
                1.0 / 17.0,
                1.0 / 15.0,
                1.0 / 13.0,
                1.0 / 11.0,
                1.0 / 9.0,
                1.0 / 7.0,
                1.0 / 5.0,
                1.0 / 3.0
            ]
        )
    }

    #[inline(always)]
    fn lanes<S: Simd>(values: &[Self]) -> &[Self::Lanes<S>] {
        S::as_simd_f64s(values).0
    }

    #[inline(always)]
    fn lanes_mut<S: Simd>(values: &mut [Self]) -> &mut [Self::Lanes<S>] {
        S::as_mut_simd_f64s(values).0
    }

    #[inline(always)]
    fn splat_lanes<S: Simd>(simd: S, value: Self) -> Self::Lanes<S> {
        simd.splat_f64s(value)
    }

    #[inline(always)]
    fn mul_lanes<S: Simd>(simd: S, a: Self::Lanes<S>, b: Self::Lanes<S>) -> Self::Lanes<S> {
        simd.mul_f64s(a, b)
    }

    #[inline(always)]
    fn zero_lanes<S: Simd>(simd: S) -> Self::Lanes<S> {
        simd.splat_f64s(0.0)
    }

    #[inline(always)]
    fn fma_lanes<S: Simd>(simd: S, a: Self::Lanes<S>, b: Self::Lanes<S>, c: Self::Lanes<S>) -> Self::Lanes<S> {
        simd.mul_add_e_f64s(a, b, c)
    }

    #[inline(always)]
    fn sum_lanes<S: Simd>(simd: S, a: Self::Lanes<S>) -> Self {
        simd.reduce_sum_f64s(a)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulp::Scalar;

    #[test]
    fn exponentials_agree_with_the_standard_library() {
        for i in -7000..7000 {
            let x = f64::from(i) * 0.1 + 0.037;
            let relative = (<f64 as Real>::exp::<Scalar>(x) / x.exp() - 1.0).abs();
            assert!(relative < 1e-15, "exp({x}): {relative:e}");
            let y = (x / 8.1) as f32;
            let relative = (f64::from(<f32 as Real>::exp::<Scalar>(y)) / f64::from(y).exp() - 1.0).abs();
            assert!(relative < 2.5e-7, "exp({y}): {relative:e}");
        }
    }

    #[test]
    fn logarithms_agree_with_the_standard_library() {
        for i in 0..=1000 {
            let e = f64::from(i) * 1e-3;
            assert!((<f64 as Real>::ln_by_series::<Scalar>(e / (2.0 + e)) - e.ln_1p()).abs() <= 4e-16, "ln(1+{e})");
            let single = e as f32;
            let got = f64::from(<f32 as Real>::ln_by_series::<Scalar>(single / (2.0 + single)));
            assert!((got - f64::from(single).ln_1p()).abs() < 1.2e-7, "ln(1+{e}) in f32");
        }
        for i in -3000..3000 {
            let x = (f64::from(i) * 0.02).exp();
            assert!((<f64 as Real>::ln::<Scalar>(x) - x.ln()).abs() <= 4e-16 * x.ln().abs().max(1.0), "ln({x})");
            let single = x as f32;
            let (got, expected) = (f64::from(<f32 as Real>::ln::<Scalar>(single)), f64::from(single).ln());
            assert!((got - expected).abs() < 1.8e-7 * expected.abs().max(1.0), "ln({x}) in f32: {got} {expected}");
        }
        assert_eq!(<f64 as Real>::ln_by_series::<Scalar>(1e-300), 2e-300);
    }
}
