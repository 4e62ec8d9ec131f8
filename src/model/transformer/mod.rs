//! Transformers with dense and Switch feed-forward layers, as problems over sequences of tokens.
//!
//! The objective is the mean cross-entropy per predicted token, in nats, plus the routers' own losses of every Switch layer. Tokens
//! of up to `routed_tokens` are routed together: capacities and load balance are those of such a group, and a larger selection of
//! rows is the mean over its groups. The gradient is a backward pass; a Gauss-Newton product `J' H J v` is a tangent up, the
//! Hessian of the cross-entropy, and a backward pass down, with the routing frozen where it was decided; it is that of the
//! cross-entropy alone. Noise (dropout, jitter) belongs to minibatches and follows from their rows, so that value, gradient and
//! products on one minibatch are of one function; answers about all rows are free of it.

pub mod accounting;
mod attention;
mod batch;
pub mod config;

mod feed_forward;
mod head;
pub mod hugging_face;
mod layout;
pub mod presets;
mod problem;
mod record;
mod routing;
mod settings;
mod stack;
mod switch;
#[cfg(test)]
mod tests;

use super::{Evaluation, LayerPairs, Model, ParameterCounts, RowOutcomes, Split, TokenLosses, Weights};
use crate::device::{self, Array, NO_ROW};
use crate::error::{Error, Result};
use crate::oracle::{Problem, Rows, Vector};
use batch::hash;
use config::{Config, Kind};
use head::TokenResults;
use layout::SublayerKind;
use stack::{Core, Pass, SublayerPass, Work};
use std::sync::{Arc, OnceLock};

pub use batch::{HeldRows, MASKED_SHARE, TokenBatch, TokenRows};
pub use routing::RoutingStatistics;
pub use settings::TRANSFORMER;

/// The rows of the parts of a dataset.
#[derive(Clone)]
pub struct TokenParts {
    /// What is trained on.
    pub train: Arc<dyn TokenRows>,
    /// What is evaluated of the training, validation and test parts.
    pub evaluation: [Arc<dyn TokenRows>; 3],
}

/// A Transformer on sequences of tokens.
pub struct Transformer {
    core: Core,
    context: usize,
    /// Sequences that are routed together.
    group: usize,
    parts: TokenParts,
    /// Tokens that are predicted in all training rows.
    predicted: OnceLock<u64>,
    metadata: Vec<(String, String)>,
}

/// Rows a question is about.
struct Selected {
    rows: Vec<usize>,
    /// Predicted tokens and sequences that sums are divided by.
    predicted: f64,
    sequences: f64,
    seed: Option<u64>,
}

impl Transformer {
    /// A Transformer over rows of `context` tokens, of which up to `routed_tokens` are routed together.
    ///
    /// # Errors
    /// [`Error::Config`] for a shape that cannot be, or capacities that leave no room for a token.
    pub fn new(config: Config, context: usize, routed_tokens: usize, parts: TokenParts) -> Result<Self> {
        let place = "model transformer";
        config.check(place)?;
        let least = if config.kind() == Kind::EncoderDecoder { 2 } else { 1 };
        if context < least {
            let remedy = format!("give at least {least}");
            return Err(Error::config(place, format!("context = {context}"), remedy));
        }
        let group = (routed_tokens / context).max(1);
        let length = TokenBatch::lengths(config.kind(), context).into_iter().filter(|&l| l > 0).min().unwrap_or(1);
        config.check_capacity(place, group * length)?;
        let core = Core::new(config, context, device::current());
        Ok(Self { core, context, group, parts, predicted: OnceLock::new(), metadata: Vec::new() })
    }

    /// The shape.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.core.config
    }

    fn symbols(&self) -> usize {
        self.core.config.vocabulary
    }

    fn read(&self, source: &dyn TokenRows, rows: impl Iterator<Item = usize>) -> TokenBatch {
        TokenBatch::read(self.core.config.kind(), self.context, self.symbols(), source, rows)
    }

    /// Tokens that are predicted in all training rows.
    fn all_predicted(&self) -> u64 {
        let count = |row| self.read(&*self.parts.train, std::iter::once(row)).predicted() as u64;
        *self.predicted.get_or_init(|| (0..self.parts.train.count()).map(count).sum())
    }

    fn has_noise(&self) -> bool {
        let config = &self.core.config;
        config.dropout > 0.0 || config.switch.is_some_and(|switch| switch.jitter > 0.0 || switch.expert_dropout > 0.0)
    }

    fn select(&self, rows: Rows<'_>) -> Selected {
        let n = self.parts.train.count();
        let whole = |rows: Vec<usize>| Selected {
            rows,
            predicted: self.all_predicted().max(1) as f64,
            sequences: n.max(1) as f64,
            seed: None,
        };
        match rows {
            Rows::All => whole((0..n).collect()),
            // Parts are made of whole groups, so that they add up to all rows.
            Rows::Part { index, of } => {
                let groups = n.div_ceil(self.group);
                let border = |i: usize| (groups * i / of * self.group).min(n);
                whole((border(index)..border(index + 1)).collect())
            }
            Rows::Batch(batch) => {
                let rows: Vec<usize> = batch.rows().iter().map(|&row| row as usize).collect();
                let predicted = self.read(&*self.parts.train, rows.iter().copied()).predicted();
                let seed = rows.iter().fold(1, |seed, &row| hash(seed, row as u64));
                let seed = self.has_noise().then_some(seed);
                Selected { predicted: predicted.max(1) as f64, sequences: rows.len().max(1) as f64, rows, seed }
            }
        }
    }

    /// Calls `f` with every group of a selection loaded into a pass, its number and its share of the sequences.
    fn for_groups(&self, selected: &Selected, mut f: impl FnMut(usize, f64, &mut Work)) {
        for (number, rows) in selected.rows.chunks(self.group).enumerate() {
            let batch = self.read(&*self.parts.train, rows.iter().copied());
            self.core.with_work(rows.len(), |work| {
                let seed = selected.seed.map(|seed| hash(seed, number as u64));
                self.core.load(&mut work.pass, &batch, seed, false);
                f(number, rows.len() as f64 / selected.sequences, work);
            });
        }
    }

    /// The routers' own losses of a pass.
    fn router_loss(&self, pass: &Pass) -> f64 {
        let of_stack = |stack: &stack::StackPass| {
            let switches = stack.sublayers.iter().filter_map(|sublayer| match sublayer {
                SublayerPass::Switch(own) => Some(own.router_loss(&self.core, &stack.part)),
                _ => None,
            });
            switches.sum::<f64>()
        };
        pass.stacks.iter().map(of_stack).sum()
    }

    /// The objective over rows; with a gradient, that too.
    fn objective_over(&self, at: &Array, selected: &Selected, mut gradient: Option<&mut Array>) -> f64 {
        let core = &self.core;
        let weights = core.weights(at);
        if let Some(gradient) = &mut gradient {
            core.device.fill(gradient, 0.0);
        }
        let mut value = 0.0;
        self.for_groups(selected, |_, share, Work { pass, flow, .. }| {
            core.forward(weights.array(), pass);
            let factor = (1.0 / selected.predicted) as f32;
            let derivative = gradient.as_deref_mut().map(|gradient| (factor, gradient));
            let results = core.loss(weights.array(), pass, flow, derivative);
            value += results.total() / selected.predicted + share * self.router_loss(pass);
            if let Some(gradient) = gradient.as_deref_mut() {
                core.backward(weights.array(), pass, flow, Some(share), gradient);
            }
        });
        value
    }

    fn evaluated(&self, split: Split) -> &dyn TokenRows {
        &*self.parts.evaluation[match split {
            Split::Train => 0,
            Split::Validation => 1,
            Split::Test => 2,
        }]
    }

    /// Calls `f` with the batches of a source and what their tokens come to.
    fn for_results(&self, at: &Array, source: &dyn TokenRows, mut f: impl FnMut(&TokenBatch, TokenResults, &Pass)) {
        let weights = self.core.weights(at);
        let rows: Vec<usize> = (0..source.count()).collect();
        for rows in rows.chunks(self.group) {
            let batch = self.read(source, rows.iter().copied());
            self.core.with_work(rows.len(), |Work { pass, flow, .. }| {
                self.core.load(pass, &batch, None, false);
                self.core.forward(weights.array(), pass);
                let results = self.core.loss(weights.array(), pass, flow, None);
                f(&batch, results, pass);
            });
        }
    }

    /// Training rows as the stacks read them.
    #[must_use]
    pub fn batch(&self, rows: &[u32]) -> TokenBatch {
        self.read(&*self.parts.train, rows.iter().map(|&row| row as usize))
    }

    /// Logits of every token that the last stack reads, `tokens x vocabulary`, for sequences given as they are.
    ///
    /// # Panics
    /// If the sequences are not of this Transformer's lengths.
    #[must_use]
    pub fn logits(&self, at: &Vector, batch: &TokenBatch) -> Vec<f32> {
        let weights = self.core.weights(at.array());
        self.core.with_work(batch.sequences, |Work { pass, flow, .. }| {
            self.core.load(pass, batch, None, false);
            self.core.forward(weights.array(), pass);
            self.core.logits(weights.array(), pass, flow)
        })
    }

    /// For sequences given as they are, the experts that every token of every Switch layer went to, `top_k` of each token, layer after
    /// layer, or [`u32::MAX`] where it was dropped or is padding.
    #[must_use]
    pub fn choices(&self, at: &Vector, batch: &TokenBatch) -> Vec<Vec<u32>> {
        let weights = self.core.weights(at.array());
        self.core.with_work(batch.sequences, |Work { pass, .. }| {
            self.core.load(pass, batch, None, false);
            self.core.forward(weights.array(), pass);
            let switches =
                pass.stacks.iter().flat_map(|stack| &stack.sublayers).filter_map(|sublayer| match sublayer {
                    SublayerPass::Switch(own) => Some(own.choices(&self.core)),
                    _ => None,
                });
            switches.collect()
        })
    }

    /// How routing goes over what is evaluated of a part: the mean over groups and layers; `None` without Switch layers.
    #[must_use]
    pub fn routing_statistics(&self, at: &Vector, split: Split) -> Option<RoutingStatistics> {
        self.core.config.switch?;
        let mut sum = RoutingStatistics::default();
        let mut count = 0.0;
        self.for_results(at.array(), self.evaluated(split), |_, _, pass| {
            for stack in &pass.stacks {
                for sublayer in &stack.sublayers {
                    let SublayerPass::Switch(own) = sublayer else { continue };
                    let one = own.statistics(&self.core, &stack.part);
                    sum.largest_load += one.largest_load;
                    sum.smallest_load += one.smallest_load;
                    sum.drop_rate += one.drop_rate;
                    sum.router_entropy += one.router_entropy;
                    count += 1.0;
                }
            }
        });
        (count > 0.0).then(|| RoutingStatistics {
            largest_load: sum.largest_load / count,
            smallest_load: sum.smallest_load / count,
            drop_rate: sum.drop_rate / count,
            router_entropy: sum.router_entropy / count,
        })
    }

    /// Parameters that take part in one token's output.
    fn active(&self) -> u64 {
        let Some(switch) = self.core.config.switch else { return self.core.layout.len() as u64 };
        let idle = (switch.experts - switch.top_k) * self.core.config.feed_forward_parameters();
        (self.core.layout.len() - idle * self.core.config.switch_layers()) as u64
    }

    /// The losses of what is evaluated of a part of a text; `None` where the tokens are no text's.
    fn token_losses(&self, parameters: &Vector, split: Split) -> Option<TokenLosses> {
        let source = self.evaluated(split);
        let text = source.text()?;
        // The place within a sequence of what the first token read predicts.
        let first = match self.core.config.kind() {
            Kind::Encoder => 0,
            Kind::Decoder => 1,
            Kind::EncoderDecoder => self.core.lengths[0] + 1,
        };
        let (mut sums, mut row) = (TokenLosses::default(), 0);
        self.for_results(parameters.array(), source, |batch, results, _| {
            let each = batch.targets.len() / batch.sequences.max(1);
            for start in (0..batch.targets.len()).step_by(each) {
                let predicted = (0..each).filter(|i| batch.targets[start + i] != NO_ROW);
                let of = |i: usize| (first + i, results.losses[start + i], results.correct[start + i]);
                sums.add(text, row, predicted.map(of));
                row += 1;
            }
        });
        Some(sums)
    }
}

impl Model for Transformer {
    fn evaluate(&self, parameters: &Vector, split: Split) -> Result<Evaluation> {
        if let Some(losses) = self.token_losses(parameters, split) {
            return Ok(losses.evaluation());
        }
        let source = self.evaluated(split);
        let (mut nats, mut right, mut predicted) = (0.0, 0, 0);
        self.for_results(parameters.array(), source, |batch, results, _| {
            nats += results.total();
            right += results.correct.iter().filter(|&&correct| correct).count();
            predicted += batch.predicted();
        });
        let share = |value: f64| (predicted > 0).then(|| value / predicted as f64);
        Ok(Evaluation { loss: share(nats), accuracy: share(right as f64), ..Evaluation::default() })
    }

    fn row_outcomes(&self, parameters: &Vector, split: Split) -> Result<Option<RowOutcomes>> {
        if let Some(losses) = self.token_losses(parameters, split) {
            let outcomes = losses.row_outcomes();
            return Ok((!outcomes.loss.is_empty()).then_some(outcomes));
        }
        let mut outcomes = RowOutcomes::default();
        self.for_results(parameters.array(), self.evaluated(split), |batch, results, _| {
            let each = batch.targets.len() / batch.sequences.max(1);
            for (losses, targets) in results.losses.chunks(each).zip(batch.targets.chunks(each)) {
                let predicted = targets.iter().filter(|&&target| target != NO_ROW).count().max(1);
                let sum: f64 = losses.iter().map(|&loss| f64::from(loss)).sum();
                outcomes.loss.push((sum / predicted as f64) as f32);
            }
        });
        Ok((!outcomes.loss.is_empty()).then_some(outcomes))
    }

    /// The objective over what is evaluated of the training part, without its gradient: over a whole text it would cost more than
    /// the training.
    fn objective(&self, parameters: &Vector) -> Result<(f64, Option<f64>)> {
        let source = self.evaluated(Split::Train);
        let (mut value, mut predicted) = (0.0, 0);
        let mut routers = 0.0;
        self.for_results(parameters.array(), source, |batch, results, pass| {
            value += results.total();
            predicted += batch.predicted();
            routers += batch.sequences as f64 * self.router_loss(pass);
        });
        Ok((value / predicted.max(1) as f64 + routers / source.count().max(1) as f64, None))
    }

    fn parameter_counts(&self, parameters: &Vector) -> ParameterCounts {
        ParameterCounts {
            total: parameters.len() as u64,
            active: self.active(),
            nonzero: parameters.nonzero() as u64,
            bytes: parameters.bytes(),
        }
    }

    fn weights(&self, parameters: &Vector) -> Weights {
        let mut weights = Weights { single_precision: true, ..Weights::default() };
        let values = parameters.to_host();
        for block in self.core.layout.blocks() {
            let is_norm = block.name.ends_with("layer_norm.weight");
            let shape = if is_norm { vec![block.columns] } else { vec![block.rows, block.columns] };
            weights.tensors.insert(block.name.clone(), (shape, values[block.range()].to_vec()));
        }
        let config = serde_json::to_string(&self.core.config).unwrap_or_default();
        let own = [("model", "transformer".to_owned()), ("config", config), ("context", self.context.to_string())];
        let own = own.into_iter().map(|(key, value)| (key.to_owned(), value));
        weights.metadata.extend(own.chain(self.metadata.iter().cloned()));
        weights
    }

    fn is_convex(&self) -> bool {
        false
    }

    fn layer_pairs(&self, weights: &Weights, layer: &str, rows: usize) -> Result<Option<LayerPairs>> {
        Ok(Some(self.pairs(&self.parameters(weights)?, layer, rows)?))
    }

    fn notes(&self, parameters: &Vector) -> Result<Vec<(&'static str, f64)>> {
        let split = if self.evaluated(Split::Validation).count() > 0 { Split::Validation } else { Split::Train };
        let Some(routing) = self.routing_statistics(parameters, split) else { return Ok(Vec::new()) };
        Ok(vec![
            ("largest_load", routing.largest_load),
            ("smallest_load", routing.smallest_load),
            ("drop_rate", routing.drop_rate),
            ("router_entropy", routing.router_entropy),
        ])
    }
}

impl Transformer {
    /// Operations of a forward pass over one sequence.
    fn forward_flops(&self) -> f64 {
        let (core, config) = (&self.core, &self.core.config);
        let mut products = 0.0;
        for (places, &length) in core.places.stacks.iter().zip(&core.lengths) {
            let length = length as f64;
            for sublayer in &places.sublayers {
                let (own, per_key) = match &sublayer.kind {
                    SublayerKind::Attention { across, .. } => {
                        let keys = if *across { core.lengths[0] as f64 } else { length };
                        let inner = config.inner() as f64;
                        (2.0 * inner * (length + keys) * config.d_model as f64, 2.0 * length * keys * inner)
                    }
                    SublayerKind::Dense { .. } => (length * config.feed_forward_parameters() as f64, 0.0),
                    SublayerKind::Switch { router, .. } => {
                        let top_k = config.switch.map_or(1, |switch| switch.top_k);
                        let experts = top_k * config.feed_forward_parameters();
                        (length * (experts + router.rows * router.columns) as f64, 0.0)
                    }
                };
                products += own + per_key;
            }
        }
        let head = core.places.head;
        products += (core.lengths[core.lengths.len() - 1] * head.rows * head.columns) as f64;
        2.0 * products
    }
}

impl std::fmt::Debug for Transformer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transformer({} parameters)", self.layout().len())
    }
}
