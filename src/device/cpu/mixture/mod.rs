//! Fused passes of mixtures of experts over a design: all sums that one visit of the rows can give.
//!
//! A gate `g = softmax(V z)` weighs `K` experts, each with `C` outputs for `C + 1` classes (the first class's is zero):
//! linear in the design, `f_k = U_k z`, or with `H` rectifiers between, `f_k = W_k [1; max(U_k z, 0)]`.
//! - Soft routing: `P(y) = sum_k g_k P_k(y)`, `P_k = softmax(0, f_k)`; loss `-ln P(y)`.
//! - Top-1 routing: with `k` the most probable expert, outputs `o = g_k f_k`, loss `-ln softmax(0, o)_y`, as in a layer of
//!   Fedus, Zoph and Shazeer (2021); the balance of the experts is kept by `alpha K sum_k s_k mean(g_k)`, `s_k` the share of the
//!   rows that go to expert `k`.
//!
//! Parameters are one list: the matrix `A` of everything that multiplies the design, rows of the gate first, expert by expert
//! after it, `R x D`; then, with rectifiers, `W_k` expert by expert, output by output, the bias first. While a tile of 256
//! rows is in cache everything is formed from it; products are in `f32` or `f64`, sums over tiles in `f64`, and they do not
//! depend on the number of threads. The file `rows` has the rows' equations.

mod information;
mod joint;
mod product;
mod rows;

pub use information::{complete_information, information};
pub use joint::{JointHead, JointRequest, JointSums, joint_step};
pub use product::multiply;

use super::design::{Design, Selection, Tile, fold_selection, map_selection};
use super::glm::{add_products, predictors};
use super::gram::Columns;
use super::real::Real;
use crate::device::PANEL_ROWS;
use pulp::{Arch, Simd, WithSimd};
use rows::Work;

/// How experts are put together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Routing {
    /// A mixture of all experts' distributions.
    Soft,
    /// The most probable expert alone, its outputs times the gate's value.
    TopOne,
}

/// What a mixture is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Experts `K`.
    pub experts: usize,
    /// Rectifiers `H` of each expert; 0 for experts that are linear in the design.
    pub hidden: usize,
    /// Outputs `C` of each expert: classes less one.
    pub outputs: usize,
    /// How they are put together.
    pub routing: Routing,
}

impl Shape {
    /// Rows `R` of the matrix that multiplies the design.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.experts + self.experts * if self.hidden > 0 { self.hidden } else { self.outputs }
    }

    /// Numbers of the outputs' matrices, all experts together.
    #[must_use]
    pub fn second(&self) -> usize {
        if self.hidden > 0 { self.experts * self.outputs * (self.hidden + 1) } else { 0 }
    }

    /// Number of parameters over a design of `columns` columns.
    #[must_use]
    pub fn parameters(&self, columns: usize) -> usize {
        self.rows() * columns + self.second()
    }
}

/// What is summed beside the loss.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request<'a> {
    /// The gradient.
    pub gradient: bool,
    /// The sum of squared per-row gradients.
    pub squares: bool,
    /// With top-1 routing and a gradient or squares: `alpha K s_k` of every expert, the derivatives of the balance in the
    /// gate's mean values. Empty for none.
    pub balance: &'a [f64],
}

/// Sums over rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sums {
    /// The loss, without what keeps the balance.
    pub loss: f64,
    /// The gradient in the parameters' order.
    pub gradient: Vec<f64>,
    /// Squared per-row gradients.
    pub squares: Vec<f64>,
    /// The gate's values, `K`.
    pub gates: Vec<f64>,
    /// Posterior probabilities of the experts, `K`; with top-1 routing how many rows go to each.
    pub loads: Vec<f64>,
}

impl Sums {
    fn absorb(&mut self, part: &Self) {
        let add = |into: &mut Vec<f64>, from: &[f64]| {
            into.resize(from.len(), 0.0);
            into.iter_mut().zip(from).for_each(|(a, b)| *a += b);
        };
        self.loss += part.loss;
        add(&mut self.gradient, &part.gradient);
        add(&mut self.squares, &part.squares);
        add(&mut self.gates, &part.gates);
        add(&mut self.loads, &part.loads);
    }
}

/// What every pass works on.
#[derive(Clone, Copy)]
struct Visit<'a> {
    design: &'a Design,
    shape: Shape,
    theta: &'a [f64],
    selection: Selection<'a>,
}

impl<'a> Visit<'a> {
    /// Scratch, and a tile to be filled.
    fn start<T: Real>(&self) -> (Work<T>, Tile<T>) {
        (Work::new(self.shape, self.design.columns(), self.theta), self.design.tile())
    }

    /// The same visit of a part of the rows.
    fn part(&self, selection: Selection<'a>) -> Self {
        Self { selection, ..*self }
    }
}

/// One pass in `T`.
struct Pass<'a, T> {
    visit: Visit<'a>,
    request: Request<'a>,
    kind: std::marker::PhantomData<T>,
}

impl<T: Real> WithSimd for Pass<'_, T> {
    type Output = Sums;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Sums {
        let Self { visit, request, .. } = self;
        let shape = visit.shape;
        let first = shape.rows() * visit.design.columns();
        let zeros = |wanted: bool| vec![0.0; if wanted { first + shape.second() } else { 0 }];
        let mut sums = Sums {
            gradient: zeros(request.gradient),
            squares: zeros(request.squares),
            gates: vec![0.0; shape.experts],
            loads: vec![0.0; shape.experts],
            loss: 0.0,
        };
        let balance: Vec<T> = request.balance.iter().map(|&b| T::from_f64(b)).collect();
        let mut squared =
            if request.squares { vec![T::default(); visit.design.columns() * PANEL_ROWS] } else { vec![] };
        let (mut work, mut tile) = visit.start::<T>();
        for span in visit.design.spans(visit.selection) {
            visit.design.fill(span, &mut tile);
            let z = visit.design.view(&tile);
            work.forward::<S>(simd, z);
            sums.loss += work.losses::<S>(&tile.y, tile.rows);
            work.add_loads(&mut sums.gates, &mut sums.loads, tile.rows);
            if !request.gradient && !request.squares {
                continue;
            }
            work.balance(&balance, tile.rows);
            work.descend::<S>();
            if request.gradient {
                let (of_first, of_second) = sums.gradient.split_at_mut(first);
                add_products(simd, &work.delta, z, &mut work.product, of_first);
                work.add_second::<S>(of_second, false);
            }
            if request.squares {
                let (of_first, of_second) = sums.squares.split_at_mut(first);
                work.add_second::<S>(of_second, true);
                work.delta.iter_mut().for_each(|d| *d = *d * *d);
                squared.iter_mut().zip(z.main).for_each(|(to, &z)| *to = z * z);
                let z = Columns { main: &squared, ..z };
                add_products(simd, &work.delta, z, &mut work.product, of_first);
            }
        }
        sums
    }
}

/// One pass over `selection` with parameters `theta`, in `f64` if `high`.
#[must_use]
pub fn pass(
    design: &Design,
    shape: Shape,
    theta: &[f64],
    selection: Selection<'_>,
    request: Request<'_>,
    high: bool,
) -> Sums {
    let mut total = Sums::default();
    let visit = Visit { design, shape, theta, selection };
    let bytes = 8 * theta.len() * (usize::from(request.gradient) + usize::from(request.squares));
    fold_selection(
        selection,
        bytes,
        |_, selection| {
            let visit = visit.part(selection);
            if high {
                Arch::new().dispatch(Pass::<f64> { visit, request, kind: std::marker::PhantomData })
            } else {
                Arch::new().dispatch(Pass::<f32> { visit, request, kind: std::marker::PhantomData })
            }
        },
        |part| total.absorb(&part),
    );
    total
}

/// What is told of single rows.
struct Tell<'a> {
    visit: Visit<'a>,
    responsibilities: bool,
}

impl WithSimd for Tell<'_> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f64> {
        let Visit { design, shape, selection, .. } = self.visit;
        let mut all = Vec::new();
        let (mut work, mut tile) = self.visit.start::<f64>();
        for span in design.spans(selection) {
            design.fill(span, &mut tile);
            work.forward::<S>(simd, design.view(&tile));
            if self.responsibilities {
                work.losses::<S>(&tile.y, tile.rows);
                for i in 0..tile.rows {
                    all.extend((0..shape.experts).map(|k| work.posterior[k * PANEL_ROWS + i]));
                }
            } else {
                for i in 0..tile.rows {
                    work.tell(i, &mut all);
                }
            }
        }
        all
    }
}

fn tell(visit: Visit<'_>, responsibilities: bool) -> Vec<f64> {
    let part = |_: usize, selection: Selection<'_>| {
        Arch::new().dispatch(Tell { visit: visit.part(selection), responsibilities })
    };
    map_selection(visit.selection, part).concat()
}

/// Logarithms of the probabilities of all classes, `rows x (C + 1)` row by row, in `f64`.
#[must_use]
pub fn log_probabilities(design: &Design, shape: Shape, theta: &[f64], selection: Selection<'_>) -> Vec<f64> {
    let visit = Visit { design, shape, theta, selection };
    tell(visit, false)
}

/// Posterior probabilities of the experts given a row's class, `rows x K` row by row, in `f64`: `h_k = g_k P_k(y) / P(y)`;
/// with top-1 routing one for the expert that answers.
#[must_use]
pub fn responsibilities(design: &Design, shape: Shape, theta: &[f64], selection: Selection<'_>) -> Vec<f64> {
    let visit = Visit { design, shape, theta, selection };
    tell(visit, true)
}

/// How many rows top-1 routing sends to each expert.
#[must_use]
pub fn loads(design: &Design, shape: Shape, theta: &[f64], selection: Selection<'_>, high: bool) -> Vec<f64> {
    // The gate alone: experts without outputs.
    let gate = Shape { hidden: 0, outputs: 0, routing: Routing::TopOne, ..shape };
    let theta = &theta[..shape.experts * design.columns()];
    pass(design, gate, theta, selection, Request::default(), high).loads
}
