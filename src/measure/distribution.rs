//! Tail probabilities and quantiles of the distributions that estimates are compared with.

use statrs::function::beta::beta_reg;
use statrs::function::erf::{erfc, erfc_inv};
use statrs::function::gamma::ln_gamma;
use std::f64::consts::{PI, SQRT_2};

/// Newton steps of a quantile: enough for one degree of freedom.
const QUANTILE_STEPS: usize = 100;

/// The distribution of an estimate's error in units of its standard error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Distribution {
    /// The normal distribution.
    Normal,
    /// Student's t with so many degrees of freedom.
    Student(f64),
}

impl Distribution {
    /// The probability of an error at least as large as `z` on either side.
    #[must_use]
    pub fn two_sided(self, z: f64) -> f64 {
        match self {
            _ if z.is_nan() => f64::NAN,
            Self::Normal => erfc(z.abs() / SQRT_2),
            Self::Student(freedom) => beta_reg(0.5 * freedom, 0.5, freedom / (freedom + z * z)),
        }
    }

    /// The size below which an error stays with probability `level`.
    #[must_use]
    pub fn quantile(self, level: f64) -> f64 {
        let normal = SQRT_2 * erfc_inv(1.0 - level);
        let Self::Student(freedom) = self else { return normal };
        // The tail's probability is convex: Newton's steps from the left never pass the solution.
        let constant = 2.0 * (ln_gamma(0.5 * freedom + 0.5) - ln_gamma(0.5 * freedom)).exp() / (freedom * PI).sqrt();
        let mut t = normal;
        for _ in 0..QUANTILE_STEPS {
            let density = constant * (-0.5 * (freedom + 1.0) * (t * t / freedom).ln_1p()).exp();
            let step = (self.two_sided(t) - (1.0 - level)) / density;
            t += step;
            if step.abs() <= 1e-14 * t {
                break;
            }
        }
        t
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of SciPy 1.17: `2 * norm.sf(z)`, `2 * t.sf(z, freedom)`, `norm.ppf` and `t.ppf` of `(1 + level) / 2`.
    #[test]
    fn tails_and_quantiles_agree_with_scipy() {
        let normal = Distribution::Normal;
        for (z, expected) in [
            (0.1, 0.920344325445942),
            (-1.5, 0.13361440253771614),
            (3.0, 0.0026997960632601866),
            (9.0, 2.2571768119076647e-19),
            (37.0, 1.1451142445047853e-299),
        ] {
            assert!((normal.two_sided(z) / expected - 1.0).abs() < 1e-9, "{z}: {:e}", normal.two_sided(z));
        }
        for (freedom, z, expected) in [
            (1.0, 0.5, 0.7048327646991335),
            (3.0, -2.5, 0.08770664700806556),
            (71.0, 2.0, 0.04932661647621797),
            (71.0, 15.0, 1.050252935324292e-23),
            (35267.0, 1.9, 0.05744126794589985),
            (35267.0, -0.01, 0.9920213439336443),
            (35267.0, 30.0, 2.8141085179652105e-195),
        ] {
            let found = Distribution::Student(freedom).two_sided(z);
            assert!((found / expected - 1.0).abs() < 1e-9, "{freedom}, {z}: {found:e}");
        }
        for (level, expected) in [(0.5, 0.6744897501960817), (0.95, 1.959963984540054), (0.999, 3.2905267314919255)] {
            assert!((normal.quantile(level) / expected - 1.0).abs() < 1e-13, "{}", normal.quantile(level));
        }
        for (freedom, level, expected) in [
            (1.0, 0.999, 636.6192487687897),
            (2.0, 0.95, 4.302652729749462),
            (71.0, 0.95, 1.9939433678456255),
            (35267.0, 0.99, 2.5759687199472086),
        ] {
            let found = Distribution::Student(freedom).quantile(level);
            assert!((found / expected - 1.0).abs() < 1e-9, "{freedom}, {level}: {found}");
        }
    }
}
