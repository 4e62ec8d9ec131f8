//! Where training starts.
//!
//! Biases start at zero, weights of a layer with `m` inputs and `k` outputs as named:
//! - `he`: N(0, 2/m) (He et al. 2015); `lecun`: N(0, 1/m) (LeCun et al. 1998); `glorot`: uniform within
//!   `sqrt(6/(m + k))` (Glorot and Bengio 2010);
//! - `sparse`: 15 incoming weights of each unit from N(0, 1), the rest zero (Martens 2010, section 5);
//! - `uniform`: weights and biases uniform within `1/sqrt(m)`, as PyTorch's linear layers;
//! - `least-squares`: the first layer is a least-squares fit of N(0, 1) noise, one draw for each row and unit, onto the
//!   standardized inputs: as small as noise lets it be. Such a fit has the distribution N(0, (X'X)^-1), from which it is drawn
//!   without making the noise. Layers above as `he`.

use super::layer::Dense;
use crate::device::Activation;
use crate::device::cpu::linalg;
use crate::error::Result;
use ndarray::{Array1, Array2};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// How weights are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Initialization {
    He,
    Lecun,
    Glorot,
    Sparse,
    Uniform,
    LeastSquares,
}

/// The words of the setting, `auto` first.
pub(super) const WORDS: [&str; 7] = ["auto", "he", "lecun", "glorot", "sparse", "uniform", "least-squares"];

/// Incoming weights of a unit that are not zero.
const INCOMING: usize = 15;

/// Added to the inputs' mean squares, so that constant columns have a fit.
const RIDGE: f64 = 1e-4;

impl Initialization {
    /// From the setting; `auto` is `he` under rectifiers, else `glorot`.
    pub fn from_word(word: &str, hidden: Activation) -> Self {
        match word {
            "he" => Self::He,
            "lecun" => Self::Lecun,
            "glorot" => Self::Glorot,
            "sparse" => Self::Sparse,
            "uniform" => Self::Uniform,
            "least-squares" => Self::LeastSquares,
            _ if matches!(hidden, Activation::Relu | Activation::Gelu) => Self::He,
            _ => Self::Glorot,
        }
    }

    /// Weights, then biases of a layer.
    pub fn draw(self, layer: &Dense, rng: &mut ChaCha8Rng) -> Vec<f64> {
        let (inputs, outputs) = (layer.inputs, layer.outputs);
        let fan_in = inputs as f64;
        let mut values = vec![0.0; (inputs + 1) * outputs];
        let (weights, biases) = values.split_at_mut(inputs * outputs);
        let mut normal = |weights: &mut [f64], deviation: f64| {
            weights.iter_mut().for_each(|w| *w = deviation * rng.sample::<f64, _>(StandardNormal));
        };
        match self {
            Self::He | Self::LeastSquares => normal(weights, (2.0 / fan_in).sqrt()),
            Self::Lecun => normal(weights, fan_in.recip().sqrt()),
            Self::Glorot => {
                let bound = (6.0 / (inputs + outputs) as f64).sqrt();
                weights.iter_mut().for_each(|w| *w = rng.random_range(-bound..bound));
            }
            Self::Uniform => {
                let bound = fan_in.recip().sqrt();
                weights.iter_mut().chain(biases).for_each(|w| *w = rng.random_range(-bound..bound));
            }
            Self::Sparse => {
                for unit in weights.chunks_exact_mut(inputs) {
                    for &input in crate::oracle::draw_rows(rng, inputs, INCOMING).rows() {
                        unit[input as usize] = rng.sample(StandardNormal);
                    }
                }
            }
        }
        values
    }
}

/// Weights and biases of a layer of `outputs` units that fit noise onto `inputs` inputs with the Gram matrix `gram` over `rows`
/// rows.
///
/// # Errors
/// If the Gram matrix is not finite.
pub(in crate::model) fn fit_of_noise(
    inputs: usize,
    outputs: usize,
    mut gram: Array2<f64>,
    rows: usize,
    rng: &mut ChaCha8Rng,
) -> Result<Vec<f64>> {
    gram.diag_mut().mapv_inplace(|v| v + RIDGE * rows as f64);
    let lower = linalg::cholesky(&gram)?;
    let mut values = vec![0.0; (inputs + 1) * outputs];
    for unit in values.chunks_exact_mut(inputs).take(outputs) {
        // L' w = z gives w the covariance (L L')^-1.
        let z: Array1<f64> = (0..inputs).map(|_| rng.sample::<f64, _>(StandardNormal)).collect();
        let w = linalg::transposed_solve(&lower, z.view())?;
        unit.iter_mut().zip(w).for_each(|(unit, w)| *unit = w);
    }
    Ok(values)
}
