//! What a device must be able to do for Transformers and Switch layers, beside what [`Backend`](super::Backend) asks of it.
//!
//! Here a matrix holds a token a row, `tokens x width`: tokens are gathered, sorted by expert and cut into segments, and
//! whatever is done to one of them runs over contiguous numbers. An adjoint is the transpose of the tangent beside it. No result
//! depends on the number of threads.

use super::array::{Array, Ids, View, ViewMut};
use super::backend::Table;
use super::cpu::design::Selection;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;

/// In a list of rows: none.
pub const NO_ROW: u32 = u32::MAX;

/// The function of a feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeedForward {
    /// `W_o max(W_i x, 0)`.
    Relu,
    /// `W_o gelu(W_i x)` in the form with the error function.
    Gelu,
    /// `W_o (gelu(W_0 x) o W_1 x)` (Shazeer 2020) in the form with tanh, as T5 1.1 has it.
    Geglu,
}

impl FeedForward {
    /// Matrices from `d_model` to `d_ff`: a gated layer has two.
    #[must_use]
    pub fn inner_matrices(self) -> usize {
        if self == Self::Geglu { 2 } else { 1 }
    }
}

impl fmt::Display for FeedForward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Relu => "relu",
            Self::Gelu => "gelu",
            Self::Geglu => "geglu",
        })
    }
}

/// Several matrices of one shape in an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matrices {
    /// Where the first begins.
    pub start: usize,
    /// Rows of each: outputs.
    pub rows: usize,
    /// Columns of each: inputs.
    pub columns: usize,
    /// Numbers from the beginning of one to that of the next.
    pub step: usize,
}

impl Matrices {
    /// Matrices one after another.
    #[must_use]
    pub fn new(start: usize, rows: usize, columns: usize) -> Self {
        Self { start, rows, columns, step: rows * columns }
    }

    /// Where matrix `index` lies.
    #[must_use]
    pub fn range(&self, index: usize) -> Range<usize> {
        let start = self.start + index * self.step;
        start..start + self.rows * self.columns
    }
}

/// What both factors of a product hold. Sums are `f32` either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Factors {
    /// Any numbers.
    Single,
    /// Numbers that bfloat16 has, as [`Tokens::round_half`] leaves them: a device may multiply them as such, with the values of
    /// the same product in `f32` up to the order and rounding of sums. Of other numbers it may take the nearest that bfloat16 has.
    Half,
}

/// Consecutive tokens that meet the same matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The tokens; segments follow one another without a gap.
    pub rows: Range<usize>,
    /// Which of the [`Matrices`]; in increasing order, so that none is met twice.
    pub matrix: usize,
}

/// Which tokens go to which experts, on the device that decided it.
///
/// Every token goes to the `top_k` experts of largest probability, of equal ones to the first. An expert takes at most its
/// capacity: first choices before second ones, earlier tokens before later ones. A choice beyond that is dropped. What was kept is
/// sorted by expert and then by token: the places.
#[derive(Debug)]
pub struct Routes {
    /// The place of every token's choices, `tokens x top_k`; [`NO_ROW`] where it was dropped or the token takes no part.
    pub slots: Ids,
    /// The token at every place.
    pub order: Ids,
    /// The element of `tokens x experts` that a place's choice is.
    pub elements: Ids,
    /// How many chose each expert.
    pub chosen: Vec<usize>,
    /// How many of them each expert kept.
    pub kept: Vec<usize>,
}

/// The shape of an attention: `queries` tokens of each sequence attend to `keys` tokens of the same.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// Sequences.
    pub sequences: usize,
    /// Querying tokens of a sequence.
    pub queries: usize,
    /// Tokens of a sequence that are attended to.
    pub keys: usize,
    /// Heads.
    pub heads: usize,
    /// Numbers of a head's query, key and value.
    pub width: usize,
    /// Whether only keys up to the query's own place are attended to.
    pub causal: bool,
    /// The bucket of distance `key - query`, at `key - query + queries - 1`; empty without a bias.
    pub buckets: &'a [u32],
    /// For every key whether it is one, `sequences x keys`; empty: all are.
    pub valid: &'a [bool],
}

/// Queries, keys with values, and what follows from them.
#[derive(Debug, Clone, Copy)]
pub struct AttentionInputs<'a> {
    /// `tokens x (heads width)`.
    pub queries: View<'a>,
    /// Keys, and beside them values: `tokens x (2 heads width)`.
    pub keys_values: View<'a>,
    /// The bias of every bucket and head, `buckets x heads`.
    pub bias: Option<View<'a>>,
    /// What queries and keys hold.
    pub factors: Factors,
}

/// Random factors that follow from a seed and an element's place, the same each time they are asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Noise {
    /// Zero with probability `rate`, else `1 / (1 - rate)`.
    Dropout {
        /// Where the factors come from.
        seed: u64,
        /// Probability.
        rate: f32,
    },
    /// Uniform within `1 - spread` and `1 + spread`.
    Jitter {
        /// Where the factors come from.
        seed: u64,
        /// Half the width.
        spread: f32,
    },
}

/// What Transformers and Switch layers ask of a device.
pub trait Tokens {
    /// Rows of a table, a row a token: what [`Backend::load`](super::Backend::load) does for examples as columns.
    fn load_rows(&self, table: &Table, rows: Selection<'_>, out: ViewMut<'_>);
    /// Brings a list of rows to where the operations below need it.
    fn ids(&self, list: &[u32]) -> Ids;
    /// The list on the host.
    fn list(&self, ids: &Ids) -> Vec<u32>;

    /// Routes tokens by probabilities, `tokens x experts`, those of them whose number in `part` is not [`NO_ROW`]. A probability
    /// that is no number loses.
    fn route(&self, p: View<'_>, top_k: usize, capacity: Option<usize>, part: &Ids) -> Routes;
    /// The sum of every column over the rows of `p` whose number in `part` is not [`NO_ROW`], in `f64`.
    fn probability_sums(&self, p: View<'_>, part: &Ids) -> Vec<f64>;
    /// The sum of all `-p ln p` of the same rows.
    fn entropy(&self, p: View<'_>, part: &Ids) -> f64;
    /// `out_i` is the `ids_i`-th element of the rows of `from`, which lie one after another; zero where there is [`NO_ROW`].
    fn take(&self, from: View<'_>, ids: &Ids) -> Array;
    /// Adds `values_i` to the `ids_i`-th element of rows that lie one after another; no element is named twice.
    fn add_at(&self, to: ViewMut<'_>, ids: &Ids, values: &Array);

    /// `out_i = from_(ids_i)`, zero where there is [`NO_ROW`].
    fn gather(&self, out: ViewMut<'_>, from: View<'_>, ids: &Ids);
    /// `to_(ids_i) += factor from_i`: the adjoint of gathering.
    fn scatter_add(&self, to: ViewMut<'_>, ids: &[u32], from: View<'_>, factor: f32);
    /// `out_i = sum_j scale_ij from_(slots_ij)` over the slots of row `i`, those without a row apart; added with `keep`.
    fn combine(&self, out: ViewMut<'_>, keep: bool, from: View<'_>, slots: &Ids, scale: Option<&Array>);
    /// `a_i = a_i / b_i`, 0 where `b_i` is not positive.
    fn ratios(&self, a: &mut Array, b: &Array);
    /// `<a_i, b_i>` for every row.
    fn row_dots(&self, a: View<'_>, b: View<'_>) -> Array;
    /// `a_i = by_i a_i`.
    fn scale_rows(&self, a: ViewMut<'_>, by: &Array);
    /// `a = a o noise`.
    fn noise(&self, a: ViewMut<'_>, noise: Noise);
    /// Rounds every number to bfloat16, the nearest, ties to even.
    fn round_half(&self, a: ViewMut<'_>);

    /// `out_i = w o x_i / rms_i` with `rms_i = sqrt(mean x_i^2 + epsilon)`.
    fn rms_norm(&self, out: ViewMut<'_>, x: View<'_>, w: View<'_>, epsilon: f32);
    /// The tangent of [`Tokens::rms_norm`] at `t` and `t_w`.
    fn rms_norm_tangent(&self, out: ViewMut<'_>, x: View<'_>, w: View<'_>, t: View<'_>, t_w: View<'_>, epsilon: f32);
    /// Its adjoint at `d`: added to `dx` and, times nothing else, to `dw`.
    fn rms_norm_adjoint(&self, dx: ViewMut<'_>, dw: ViewMut<'_>, x: View<'_>, w: View<'_>, d: View<'_>, epsilon: f32);

    /// `out_s = x_s W_s'` for the tokens `s` of every segment, or with `adjoint` `out_s = x_s W_s`; added with `keep`.
    #[allow(clippy::too_many_arguments, reason = "a product of two factors by segments")]
    fn segment_products(
        &self,
        out: ViewMut<'_>,
        keep: bool,
        x: View<'_>,
        weights: &Array,
        matrices: Matrices,
        adjoint: bool,
        segments: &[Segment],
    );
    /// [`Tokens::segment_products`] where `x` and the matrices that are met hold [`Factors::Half`].
    #[allow(clippy::too_many_arguments, reason = "a product of two factors by segments")]
    fn half_segment_products(
        &self,
        out: ViewMut<'_>,
        keep: bool,
        x: View<'_>,
        weights: &Array,
        matrices: Matrices,
        adjoint: bool,
        segments: &[Segment],
    ) {
        self.segment_products(out, keep, x, weights, matrices, adjoint, segments);
    }
    /// `W_s += d_s' x_s` for every segment; other matrices are left alone.
    fn segment_gradients(&self, sum: &mut Array, matrices: Matrices, d: View<'_>, x: View<'_>, segments: &[Segment]);

    /// `h = f(u)`, where a gated function takes the left half of `u` for its gate.
    fn feed_forward(&self, f: FeedForward, h: ViewMut<'_>, u: View<'_>);
    /// The tangent of [`Tokens::feed_forward`].
    fn feed_forward_tangent(&self, f: FeedForward, t_h: ViewMut<'_>, u: View<'_>, t_u: View<'_>);
    /// Its adjoint.
    fn feed_forward_adjoint(&self, f: FeedForward, d_u: ViewMut<'_>, u: View<'_>, d_h: View<'_>);

    /// `softmax` of every row in place; `ln(sum exp)` of each beside it.
    fn softmax_rows(&self, a: ViewMut<'_>, log_sums: &mut Array);
    /// `t_i = factor_i p_i o (t_i - <p_i, t_i>)`: the tangent of softmax, and its adjoint. Rows with factor 0 become zero.
    fn softmax_tangent(&self, t: ViewMut<'_>, p: View<'_>, factor: &Array);
    /// For every row `ln(sum exp) - logit_target` into `losses`, zero where the target is [`NO_ROW`], and whether no logit is
    /// above the target's; with a factor, the logits become the factor times the derivative.
    fn cross_entropy(
        &self,
        logits: ViewMut<'_>,
        targets: &[u32],
        factor: Option<f32>,
        losses: &mut [f32],
        correct: &mut [bool],
    );

    /// `p = softmax(q k' + bias)` for every sequence and head, `(sequences heads queries) x keys`, and `out = p v`. There is no
    /// factor before `q k'`.
    fn attention(&self, shape: &Attention<'_>, of: AttentionInputs<'_>, p: ViewMut<'_>, out: ViewMut<'_>);
    /// The tangent of [`Tokens::attention`] along `t`.
    fn attention_tangent(
        &self,
        shape: &Attention<'_>,
        of: AttentionInputs<'_>,
        p: View<'_>,
        t: AttentionInputs<'_>,
        out: ViewMut<'_>,
    );
    /// Its adjoint at `d`: overwrites the derivatives in queries, keys and values, adds that in the bias.
    #[allow(clippy::too_many_arguments, reason = "an adjoint has an output for every input")]
    fn attention_adjoint(
        &self,
        shape: &Attention<'_>,
        of: AttentionInputs<'_>,
        p: View<'_>,
        d: View<'_>,
        d_queries: ViewMut<'_>,
        d_keys_values: ViewMut<'_>,
        d_bias: Option<ViewMut<'_>>,
    );
}
