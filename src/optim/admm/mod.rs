//! The alternating direction method of multipliers: in consensus over blocks of rows, and layer by layer in a network.
//!
//! `variant` says which: `consensus` (Boyd et al. 2011) for problems that are sums over row blocks; `taylor` (Taylor et al.
//! 2016) and `proximal` for networks of rectifiers, the latter for mixtures of them too; `experts` for a layer of experts. The last three form no gradient of the objective by back-propagation of
//! a loss's derivative; docs/methods.md says what in them is a gradient all the same.

mod consensus;
mod experts;
mod proximal;
mod taylor;

use super::expert_steps::{
    EXPERT_DAMPING, INPUT_CAP, OUTPUT_CAP, RETRIES, ROUTER_CAP, ROUTER_STEP, ROWS_PER_EXPERT, SIGNAL,
};
use super::{Optimizer, OptimizerEntry};
use crate::oracle::{Capability, Layer, Need, Setting, Vector};
use ndarray::Array2;

const CONSENSUS: &[&str] = &["consensus"];
const TAYLOR: &[&str] = &["taylor"];
const PROXIMAL: &[&str] = &["proximal"];
const EXPERTS: &[&str] = &["experts"];
const STOCHASTIC: &[&str] = &["proximal", "experts"];

/// The registered optimizer.
pub const ENTRY: OptimizerEntry = OptimizerEntry {
    name: "admm",
    summary: "alternating direction method of multipliers: consensus over row blocks, or a network layer by layer",
    paper: "Boyd, Parikh, Chu, Peleato and Eckstein 2011, sections 3.3, 3.4 and 8; layer by layer: Taylor et al. 2016, Carreira-Perpinan and Wang 2014",
    needs: &[],
    stochastic: false,
    settings: &[
        Setting::choice(
            "variant",
            "consensus",
            &["consensus", "taylor", "proximal", "experts"],
            "consensus: row blocks; networks: taylor as published in 2016, proximal (mixtures too) with joint steps and no multipliers; \
             experts: inside every expert of a layer of experts",
        )
        .needing(&[
            Need { word: "consensus", capabilities: &[Capability::Consensus], draws: false },
            Need { word: "taylor", capabilities: &[Capability::Layers, Capability::LayerVariables], draws: true },
            Need { word: "proximal", capabilities: &[Capability::Layers, Capability::Value], draws: true },
            Need { word: "experts", capabilities: &[Capability::Experts, Capability::Value], draws: true },
        ]),
        Setting::whole("parts", "8", 1, 4096, "blocks of consecutive rows that are fitted apart")
            .of("variant", CONSENSUS),
        Setting::real("rho", "0.1", 1e-12, 1e12, "penalty at the start, divided by the number of parts")
            .log()
            .search(1e-3, 10.0)
            .of("variant", CONSENSUS),
        Setting::real("relaxation", "1.6", 0.1, 1.95, "alpha: above 1 over-relaxes")
            .search(1.0, 1.9)
            .of("variant", CONSENSUS),
        Setting::switch("balance", "true", "let the penalty follow the residuals").of("variant", CONSENSUS),
        Setting::real("balance_ratio", "10", 1.0, f64::INFINITY, "mu: residuals this far apart change the penalty")
            .of("variant", CONSENSUS),
        Setting::real("balance_factor", "2", 1.0, f64::INFINITY, "tau: by this factor").of("variant", CONSENSUS),
        Setting::real("absolute_tolerance", "1e-9", 0.0, 1.0, "of both residuals, per element")
            .log()
            .of("variant", &["consensus", "taylor"]),
        Setting::real("relative_tolerance", "1e-7", 0.0, 1.0, "of both residuals")
            .log()
            .of("variant", &["consensus", "taylor"]),
        Setting::real("local_accuracy", "0.1", 1e-6, 1.0, "local gradients shrink to this share of the residuals")
            .log()
            .of("variant", CONSENSUS),
        Setting::real("beta", "1", 1e-12, 1e12, "penalty of outputs: beta |z - W a - b|^2").log().search(1e-2, 1e2).of("variant", TAYLOR),
        Setting::real("gamma", "10", 1e-12, 1e12, "penalty of activations: gamma |a - max(z, 0)|^2")
            .log()
            .search(1e-1, 1e3).of("variant", TAYLOR),
        Setting::real("growth", "1", 1e-3, 1e3, "factor of both penalties from sweep to sweep").of("variant", TAYLOR),
        Setting::switch("biases", "true", "fit a bias of every unit; the paper has none").of("variant", TAYLOR),
        Setting::real("ridge", "1e-6", 0.0, f64::INFINITY, "added to the mean Gram matrices; 0 as in the paper")
            .log()
            .of("variant", TAYLOR),
        Setting::whole("warm_start", "10", 0, 1 << 40, "sweeps before the multipliers move").of("variant", TAYLOR),
        Setting::choice(
            "multiplier_step",
            "beta",
            &["beta", "2beta"],
            "factor of z - W a - b in the multipliers' step; beta is printed, 2beta is the derivative of the penalty",
        )
        .of("variant", TAYLOR),
        Setting::whole("batch_size", "2000", 0, 1 << 40, "rows per step; 0: all").log().search(250.0, 4000.0).of("variant", PROXIMAL),
        Setting::real("penalty", "0.1", 1e-12, 1e12, "beta of beta/2 |z - W a - b|^2 at the start; experts: in units of the mean diagonal of V'V")
            .log()
            .search(1e-2, 10.0).of("variant", STOCHASTIC),
        Setting::real("penalty_growth", "1.05", 1e-3, 1e3, "factor of the penalty from pass to pass")
            .of("variant", PROXIMAL),
        Setting::real("hidden_step", "2", 0.0, 1e3, "share of hidden layers' least-squares steps that is taken")
            .log()
            .search(0.05, 10.0).of("variant", STOCHASTIC),
        Setting::real("hidden_damping", "1e-4", 0.0, f64::INFINITY, "share of the mean diagonal added to their Gram matrices")
            .log()
            .of("variant", PROXIMAL),
        Setting::choice(
            "head",
            "irls",
            &["irls", "least-squares"],
            "how the last layer is fitted: by reweighted least squares, or by least squares to proximal points",
        )
        .of("variant", PROXIMAL),
        Setting::real("head_penalty", "0.25", 1e-12, 1e12, "of those proximal points: penalty |z - W a - b|^2")
            .log()
            .of("variant", PROXIMAL),
        Setting::real("head_step", "0.02", 0.0, 1.0, "share of the last layer's step that is taken")
            .log()
            .search(2e-3, 0.5).of("variant", PROXIMAL),
        Setting::real("head_damping", "1e-3", 0.0, f64::INFINITY, "added to the last layer's matrix")
            .log()
            .of("variant", PROXIMAL),
        Setting::whole("head_start", "3", 0, 1000, "whole IRLS steps of the last layer before anything else")
            .of("variant", PROXIMAL),
        Setting::whole("head_start_rows", "4000", 1, 1 << 40, "rows that they are taken on").of("variant", PROXIMAL),
        Setting::real("memory", "0.6", 0.0, 0.999_999, "share of the Gram matrices that is kept at a refresh")
            .of("variant", STOCHASTIC),
        Setting::whole("refresh", "5", 1, 1 << 20, "steps between two refreshes of Gram matrices and trust regions")
            .of("variant", STOCHASTIC),
        Setting::choice(
            "trust_region",
            "adaptive",
            &["adaptive", "fixed"],
            "adaptive: steps shrink while the batch's loss falls by less than a quarter of what was predicted",
        )
        .of("variant", PROXIMAL),
        Setting::choice(
            "schedule",
            "constant",
            &["constant", "inverse", "cosine"],
            "steps over passes t: constant; inverse: 1/(1 + t/horizon); cosine: to zero at the horizon",
        )
        .of("variant", STOCHASTIC),
        Setting::real("horizon", "40", 1e-9, f64::INFINITY, "passes: the time scale of the schedule")
            .log()
            .of("variant", STOCHASTIC),
        ROWS_PER_EXPERT.of("variant", EXPERTS),
        Setting::whole("inner_steps", "2", 1, 100, "steps of conjugate gradients of every token").of("variant", EXPERTS),
        Setting::real("output_step", "0.3", 0.0, 1e3, "share of output matrices' least-squares steps that is taken")
            .log()
            .search(0.02, 1.0).of("variant", EXPERTS),
        Setting::real("momentum", "0", 0.0, 0.999_999, "share of the last move that is kept").of("variant", EXPERTS),
        ROUTER_STEP.of("variant", EXPERTS),
        SIGNAL.of("variant", EXPERTS),
        EXPERT_DAMPING.of("variant", EXPERTS),
        INPUT_CAP.of("variant", EXPERTS),
        OUTPUT_CAP.of("variant", EXPERTS),
        ROUTER_CAP.of("variant", EXPERTS),
        RETRIES.of("variant", EXPERTS),
    ],
    build: |s| {
        let built: Box<dyn Optimizer> = match s.word("variant") {
            "taylor" => Box::new(taylor::Taylor::new(s)),
            "proximal" => Box::new(proximal::Proximal::new(s)),
            "experts" => Box::new(experts::Experts::new(s)),
            _ => Box::new(consensus::Admm::new(s)),
        };
        Ok(built)
    },
};

/// A layer's weights with its biases in a last column, `outputs x (inputs + 1)`.
fn read_layer(layer: &Layer, from: &Vector) -> Array2<f64> {
    let flat = from.read(layer.start..layer.start + layer.parameters());
    let weights = layer.inputs * layer.outputs;
    Array2::from_shape_fn((layer.outputs, layer.inputs + 1), |(i, j)| {
        flat[if j < layer.inputs { i * layer.inputs + j } else { weights + i }]
    })
}

/// Writes what [`read_layer`] reads.
fn write_layer(layer: &Layer, to: &mut Vector, block: &Array2<f64>) {
    let mut flat: Vec<f64> =
        block.rows().into_iter().flat_map(|row| row.into_iter().take(layer.inputs)).copied().collect();
    flat.extend(block.column(layer.inputs));
    to.write(layer.start, &flat);
}
