//! Where training starts.
//!
//! `k-means`: the router's logits are a tenth (`gate_scale`) of `c_k'x - |c_k|^2/2`, whose largest is the centre nearest to `x`;
//! centres come from k-means on some training rows (seeded as Arthur and Vassilvitskii 2007, then Lloyd's iterations). A gate of
//! scale 1 would be saturated: no gradient would move it. `plain`: the router from N(0, 0.1/inputs) (Fedus et al. 2021, section
//! 2.4, without the truncation). Either way `U` from N(0, 2/inputs) (He et al. 2015), biases zero, and `V` by ridge regression of
//! the targets on `A = p [max(U x, 0); 1]` over the rows that come to the expert.

use super::SwitchLayer;
use crate::device::{Matrix, Selection};
use crate::error::Result;
use crate::oracle::{
    Batch, Expert, ExpertEquations as _, ExpertQuestion, ExpertShare, RouterSignal, Rows, TokenStep, Vector, draw_rows,
};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// How the router starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Start {
    /// From centres of training rows, with the factor of its logits.
    KMeans(f64),
    /// At random.
    Plain,
}

/// Share of the mean diagonal that is added to the Gram matrices of output matrices.
const RIDGE: f64 = 1e-2;

/// Lloyd's iterations.
const ITERATIONS: usize = 20;

/// Share of the mean diagonal of a Gram matrix.
fn damping(gram: &Matrix, share: f64) -> f64 {
    (share * gram.trace() / gram.rows() as f64).max(f64::from(f32::MIN_POSITIVE))
}

impl SwitchLayer {
    /// The start, on training rows drawn for it.
    pub(super) fn start(&self, rng: &mut ChaCha8Rng) -> Result<Vector> {
        let (layer, shape) = (&self.layer, self.layer.shape);
        let sample = draw_rows(rng, self.train.rows(), self.start_rows);
        let mut values = vec![0.0; layer.layout.len()];
        if shape.has_router() {
            let router = &mut values[..shape.router()];
            match self.start {
                Start::KMeans(scale) => self.gate_of_centres(&sample, scale, rng, router),
                Start::Plain => {
                    let deviation = (0.1 / shape.inputs as f64).sqrt();
                    for row in router.chunks_exact_mut(shape.inputs + 1) {
                        row[..shape.inputs]
                            .iter_mut()
                            .for_each(|w| *w = deviation * rng.sample::<f64, _>(StandardNormal));
                    }
                }
            }
        }
        let deviation = (2.0 / shape.inputs as f64).sqrt();
        for expert in 0..shape.experts {
            let place = shape.place(expert);
            for unit in values[place.start..place.start + shape.input()].chunks_exact_mut(shape.inputs + 1) {
                unit[..shape.inputs].iter_mut().for_each(|w| *w = deviation * rng.sample::<f64, _>(StandardNormal));
            }
        }
        // With V at zero the residual is the target: its right-hand side is that of the fit.
        let mut at = Vector::from_values(&layer.layout, values)?;
        let question = ExpertQuestion { step: TokenStep::Gradient, signal: RouterSignal::Loss, with_grams: true };
        let sums = self.expert_sums(&at, Rows::Batch(&sample), question)?.value;
        let experts = self.expert_layer().experts;
        let fit = |(expert, share): (_, Option<ExpertShare>)| {
            let share = share?;
            Some((expert, share.output_right, share.grams?.output))
        };
        let fits: Vec<(&Expert, Matrix, Matrix)> = experts.iter().zip(sums.experts).filter_map(fit).collect();
        let grams: Vec<(&Matrix, f64)> = fits.iter().map(|(.., gram)| (gram, damping(gram, RIDGE))).collect();
        for ((expert, right, _), inverse) in fits.iter().zip(Matrix::inverses(&grams)?) {
            at.set_matrix(&expert.output, &right.times(false, &inverse, false));
        }
        Ok(at)
    }

    /// `scale [c_k, -|c_k|^2/2]` for every expert.
    fn gate_of_centres(&self, sample: &Batch, scale: f64, rng: &mut ChaCha8Rng, router: &mut [f64]) {
        let (layer, d) = (&self.layer, self.layer.shape.inputs);
        let (experts, count) = (layer.shape.experts, sample.len());
        let mut pass = layer.new_pass(count);
        layer.load(&self.train, Selection::List(sample.rows()), &mut pass);
        let with_ones = layer.device.download(pass.x(layer.shape));
        let rows: Vec<f32> = with_ones.chunks_exact(d + 1).flat_map(|row| &row[..d]).copied().collect();
        let mut centres = seeds(&rows, d, experts, rng);
        let (mut gate, mut logits) = (layer.device.zeros(router.len()), layer.device.zeros(count * experts));
        for _ in 0..ITERATIONS {
            write_gate(&centres, d, 1.0, router);
            let matrix: Vec<f32> = router.iter().map(|&v| v as f32).collect();
            layer.device.upload(gate.view_mut(0, experts, d + 1), &matrix);
            layer.logits(&gate, &pass, &mut logits);
            if !lloyd(&rows, &layer.device.download(logits.view(0, count, experts)), d, &mut centres) {
                break;
            }
        }
        write_gate(&centres, d, scale, router);
    }
}

fn write_gate(centres: &[f64], d: usize, scale: f64, router: &mut [f64]) {
    for (gate, centre) in router.chunks_exact_mut(d + 1).zip(centres.chunks_exact(d)) {
        gate.iter_mut().zip(centre).for_each(|(to, c)| *to = scale * c);
        gate[d] = -0.5 * scale * centre.iter().map(|c| c * c).sum::<f64>();
    }
}

fn square_distance(row: &[f32], centre: &[f64]) -> f64 {
    row.iter().zip(centre).map(|(&x, c)| (f64::from(x) - c).powi(2)).sum()
}

/// First centres: each a row drawn with a probability proportional to its squared distance from those before.
fn seeds(rows: &[f32], d: usize, count: usize, rng: &mut ChaCha8Rng) -> Vec<f64> {
    let n = rows.len() / d;
    let row = |i: usize| &rows[i * d..(i + 1) * d];
    let mut centres: Vec<f64> = Vec::with_capacity(count * d);
    let mut distances = vec![1.0; n];
    for k in 0..count {
        let mut left = rng.random_range(0.0..1.0) * distances.iter().sum::<f64>();
        let drawn = distances.iter().position(|distance| {
            left -= distance;
            left < 0.0
        });
        centres.extend(row(drawn.unwrap_or(n - 1)).iter().map(|&x| f64::from(x)));
        for (i, distance) in distances.iter_mut().enumerate() {
            let to_new = square_distance(row(i), &centres[k * d..]);
            *distance = if k == 0 { to_new } else { distance.min(to_new) };
        }
    }
    centres
}

/// Moves every centre to the mean of the rows for which its logit is the largest; one without rows to the row that is worst
/// served. Answers whether any row changed its centre's place.
fn lloyd(rows: &[f32], logits: &[f32], d: usize, centres: &mut [f64]) -> bool {
    let count = centres.len() / d;
    let (mut sums, mut sizes) = (vec![0.0; centres.len()], vec![0.0_f64; count]);
    let (mut worst, mut largest) = (0, f64::NEG_INFINITY);
    for (i, (row, logits)) in rows.chunks_exact(d).zip(logits.chunks_exact(count)).enumerate() {
        let best = (1..count).fold(0, |best, k| if logits[k] > logits[best] { k } else { best });
        sizes[best] += 1.0;
        sums[best * d..(best + 1) * d].iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
        let distance = square_distance(row, &centres[best * d..(best + 1) * d]);
        if distance > largest {
            (worst, largest) = (i, distance);
        }
    }
    let mut moved = false;
    for (k, &size) in sizes.iter().enumerate() {
        for (j, centre) in centres[k * d..(k + 1) * d].iter_mut().enumerate() {
            let to = if size > 0.0 { sums[k * d + j] / size } else { f64::from(rows[worst * d + j]) };
            moved |= (to - *centre).abs() > 1e-6;
            *centre = to;
        }
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::{Stream, stream};

    #[test]
    fn centres_find_separate_clouds() {
        let mut rng = stream(3, Stream::Initialization);
        let means = [[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]];
        let rows: Vec<f32> =
            (0..300).flat_map(|i| means[i % 3]).map(|m: f32| m + rng.random_range(-1.0..1.0_f32)).collect();
        let mut centres = seeds(&rows, 2, 3, &mut rng);
        let mut gate = vec![0.0; 9];
        for _ in 0..10 {
            write_gate(&centres, 2, 1.0, &mut gate);
            let logits: Vec<f32> = rows
                .chunks(2)
                .flat_map(|x| gate.chunks(3).map(move |g| g[0] * f64::from(x[0]) + g[1] * f64::from(x[1]) + g[2]))
                .map(|v| v as f32)
                .collect();
            lloyd(&rows, &logits, 2, &mut centres);
        }
        for mean in means {
            assert!(centres.chunks(2).any(|c| (c[0] - f64::from(mean[0])).hypot(c[1] - f64::from(mean[1])) < 0.3));
        }
    }
}
