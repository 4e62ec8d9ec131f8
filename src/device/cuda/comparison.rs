//! Every operation of one device beside the same on another: random shapes, ragged ones among them, outputs filled with NaN
//! before, and memory around views that must stay as it was.

use crate::device::array::{View, ViewMut};
use crate::device::{Activation, AdamStep, Array, Backend, Job, Loss, PANEL_ROWS, Panels, Selection, Table};
use std::fmt::Write as _;

/// The worst that was seen of an operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The operation and its variant.
    pub operation: String,
    /// How often it ran.
    pub runs: usize,
    /// The largest norm-wise relative error of an output; infinite where a number was missing.
    pub error: f64,
    /// What it may be.
    pub bound: f64,
}

impl Row {
    /// Whether the error is within the bound.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.error <= self.bound
    }
}

/// The bound of operations in `f32`.
const SINGLE: f64 = 1e-5;
/// Of proximal steps, which iterate to a tolerance.
const ITERATED: f64 = 1e-4;
/// Of what must be equal.
const EXACT: f64 = 0.0;

/// Runs every operation `rounds` times on both devices, sizes up to `most` columns.
#[must_use]
pub fn compare(reference: &dyn Backend, other: &dyn Backend, rounds: u64, most: usize) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for (operation, bound, run) in cases() {
        let mut row = Row { operation, runs: 0, error: 0.0, bound };
        for seed in 0..rounds {
            let on = |device| {
                let mut bench = Bench { device, random: Random(seed), most, outputs: Vec::new() };
                run(&mut bench);
                bench.outputs
            };
            let (expected, found) = (on(reference), on(other));
            assert_eq!(expected.len(), found.len(), "outputs of {}", row.operation);
            let error = expected.iter().zip(&found).map(|(a, b)| relative_error(a, b)).fold(0.0, f64::max);
            row.error = row.error.max(error);
            row.runs += 1;
        }
        rows.push(row);
    }
    rows
}

/// The rows as a table, and how many do not hold.
#[must_use]
pub fn table(rows: &[Row]) -> (String, usize) {
    let mut text = format!("{:<34}{:>6}{:>12}{:>10}\n", "operation", "runs", "error", "bound");
    for row in rows {
        let mark = if row.holds() { "" } else { "  FAILS" };
        let _ = writeln!(text, "{:<34}{:>6}{:>12.1e}{:>10.0e}{mark}", row.operation, row.runs, row.error, row.bound);
    }
    (text, rows.iter().filter(|row| !row.holds()).count())
}

/// `|a - b| / |a|`; infinite where one has a NaN and the other not, or one is all zeros and the other not.
fn relative_error(a: &[f64], b: &[f64]) -> f64 {
    if a.len() != b.len() || a.iter().zip(b).any(|(a, b)| a.is_nan() != b.is_nan()) {
        return f64::INFINITY;
    }
    let finite = || a.iter().zip(b).filter(|(a, _)| !a.is_nan());
    let difference: f64 = finite().map(|(a, b)| (a - b).powi(2)).sum();
    let norm: f64 = finite().map(|(a, _)| a.powi(2)).sum();
    if difference == 0.0 { 0.0 } else { (difference / norm).sqrt() }
}

/// A generator of its own, so that both devices meet the same numbers (Steele, Lea and Flood 2014, splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// Uniform in `[0, 1)`, with 24 bits as `f32` has them.
    fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / 16_777_216.0
    }

    /// About standard normal: twelve uniform numbers less their mean.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }
}

/// A matrix within a larger array.
struct Placed {
    array: Array,
    start: usize,
    rows: usize,
    columns: usize,
    stride: usize,
}

impl Placed {
    fn view(&self) -> View<'_> {
        self.array.strided(self.start, self.rows, self.columns, self.stride)
    }

    fn view_mut(&mut self) -> ViewMut<'_> {
        self.array.strided_mut(self.start, self.rows, self.columns, self.stride)
    }
}

/// One run of an operation.
struct Bench<'a> {
    device: &'a dyn Backend,
    random: Random,
    most: usize,
    outputs: Vec<Vec<f64>>,
}

impl Bench<'_> {
    /// A number from 1 to `most`, often next to a multiple of what blocks and warps take.
    fn size(&mut self, most: usize) -> usize {
        let edges = [1, 2, 31, 32, 33, 63, 64, 65, 255, 256, 257];
        let size =
            if self.random.below(2) == 0 { edges[self.random.below(edges.len())] } else { self.random.below(most) };
        size.clamp(1, most)
    }

    fn columns(&mut self) -> usize {
        self.size(self.most)
    }

    fn rows(&mut self) -> usize {
        self.size(self.most.div_ceil(8))
    }

    fn flat(&mut self, values: &[f32]) -> Array {
        let mut array = self.device.zeros(values.len());
        self.device.upload(array.view_mut(0, 1, values.len()), values);
        array
    }

    fn normal(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.random.normal()).collect()
    }

    fn vector(&mut self, count: usize) -> Array {
        let values = self.normal(count);
        self.flat(&values)
    }

    /// A matrix somewhere in an array of other numbers.
    fn placed(
        &mut self,
        rows: usize,
        columns: usize,
        mut value: impl FnMut(&mut Random, usize, usize) -> f32,
    ) -> Placed {
        let (start, stride) = (self.random.below(7), columns + self.random.below(5));
        let tail = self.random.below(9);
        let mut values = self.normal(start + rows * stride + tail);
        for i in 0..rows {
            for j in 0..columns {
                values[start + i * stride + j] = value(&mut self.random, i, j);
            }
        }
        Placed { array: self.flat(&values), start, rows, columns, stride }
    }

    fn matrix(&mut self, rows: usize, columns: usize) -> Placed {
        self.placed(rows, columns, |random, _, _| random.normal())
    }

    /// A matrix of NaN.
    fn poisoned(&mut self, rows: usize, columns: usize) -> Placed {
        self.placed(rows, columns, |_, _, _| f32::NAN)
    }

    /// Keeps an array as an output.
    fn output(&mut self, array: &Array) {
        let values = self.device.download(array.view(0, 1, array.len()));
        self.outputs.push(values.into_iter().map(f64::from).collect());
    }

    fn number(&mut self, value: f64) {
        self.outputs.push(vec![value]);
    }

    /// Targets that a loss takes.
    fn targets(&mut self, loss: Loss, outputs: usize, columns: usize) -> Placed {
        match loss {
            Loss::Softmax => self.placed(1, columns, |random, _, _| random.below(outputs) as f32),
            Loss::Squared => self.matrix(outputs, columns),
            _ => self.placed(outputs, columns, |random, _, _| random.below(2) as f32),
        }
    }
}

type Run = Box<dyn Fn(&mut Bench<'_>)>;

const ACTIVATIONS: [Activation; 5] =
    [Activation::Identity, Activation::Relu, Activation::Tanh, Activation::Sigmoid, Activation::Gelu];
const LOSSES: [Loss; 5] = [Loss::Logistic, Loss::Softmax, Loss::Squared, Loss::Hinge, Loss::UnitHinge];

/// Outputs that a loss takes.
fn outputs_of(loss: Loss, b: &mut Bench<'_>) -> usize {
    match loss {
        Loss::Hinge | Loss::UnitHinge => 1,
        Loss::Softmax => 2 + b.random.below(20),
        _ => 1 + b.random.below(20),
    }
}

/// All operations with their bounds.
fn cases() -> Vec<(String, f64, Run)> {
    let mut cases = Vec::new();
    flat_cases(&mut cases);
    matrix_cases(&mut cases);
    layer_cases(&mut cases);
    loss_cases(&mut cases);
    table_cases(&mut cases);
    factorization_cases(&mut cases);
    cases
}

fn flat_cases(cases: &mut Vec<(String, f64, Run)>) {
    let mut case = |name: &str, bound: f64, run: Run| cases.push((name.to_owned(), bound, run));
    case(
        "fill",
        EXACT,
        Box::new(|b| {
            let n = b.columns() * 5;
            let mut a = b.vector(n);
            b.device.fill(&mut a, 0.3);
            b.output(&a);
        }),
    );
    case(
        "copy of an array",
        EXACT,
        Box::new(|b| {
            let n = b.columns() * 5;
            let a = b.vector(n);
            let copy = a.clone();
            let is_same = copy == a;
            b.number(f64::from(u8::from(is_same)));
            b.output(&copy);
        }),
    );
    case(
        "scale",
        EXACT,
        Box::new(|b| {
            let n = b.columns() * 5;
            let mut a = b.vector(n);
            b.device.scale(&mut a, -1.7);
            b.output(&a);
        }),
    );
    for own in [0.0, 1.0, -0.4] {
        case(
            &format!("axpby, own {own}"),
            SINGLE,
            Box::new(move |b| {
                let n = b.columns() * 5;
                let (mut a, other) = (b.vector(n), b.vector(n));
                if own == 0.0 {
                    b.device.fill(&mut a, f32::NAN);
                }
                b.device.axpby(own, &mut a, 0.7, &other);
                b.output(&a);
            }),
        );
    }
    case(
        "dot",
        SINGLE,
        Box::new(|b| {
            let n = b.columns() * 40;
            let (a, other) = (b.vector(n), b.vector(n));
            let start = b.random.below(n);
            let size = b.device.dot(&a, &a, 0..n);
            // Of the size of what is summed, so that a sum near zero is not asked for more digits than it has.
            let dot = b.device.dot(&a, &other, start..n);
            b.outputs.push(vec![size, dot]);
        }),
    );
    for with_nan in [false, true] {
        case(
            if with_nan { "largest, with a NaN" } else { "largest" },
            EXACT,
            Box::new(move |b| {
                let n = b.columns() * 40;
                let mut values = b.normal(n);
                if with_nan {
                    let place = b.random.below(n);
                    values[place] = f32::NAN;
                }
                let a = b.flat(&values);
                let largest = b.device.largest(&a);
                b.number(largest);
            }),
        );
    }
    case(
        "nonzero",
        EXACT,
        Box::new(|b| {
            let n = b.columns() * 40;
            let values: Vec<f32> = (0..n).map(|_| b.random.below(3) as f32).collect();
            let a = b.flat(&values);
            let count = b.device.nonzero(&a);
            b.number(count as f64);
        }),
    );
    case(
        "divide",
        SINGLE,
        Box::new(|b| {
            let n = b.columns() * 5;
            let (mut a, other) = (b.vector(n), b.vector(n));
            b.device.divide(&mut a, &other);
            b.output(&a);
        }),
    );
    case(
        "shifted_power",
        SINGLE,
        Box::new(|b| {
            let n = b.columns() * 5;
            let mut a = b.vector(n);
            b.device.shifted_power(&mut a, 0.5, -0.75);
            let values: Vec<f32> = b.device.download(a.view(0, 1, n));
            // Below the floor the power is 1e22: those are compared apart.
            b.outputs.push(values.iter().map(|&v| f64::from(v).min(1e6)).collect());
        }),
    );
    for with_first in [true, false] {
        case(
            if with_first { "adam" } else { "adam, no first moment" },
            SINGLE,
            Box::new(move |b| {
                let (n, before) = (b.columns() * 5, b.random.below(9));
                let (start, end) = (b.random.below(n), n);
                let (mut a, g) = (b.vector(n), b.vector(n));
                let mut m = b.vector(before + n);
                let squares: Vec<f32> = (0..before + n).map(|_| b.random.uniform()).collect();
                let mut v = b.flat(&squares);
                let step =
                    AdamStep { beta1: 0.9, beta2: 0.99, root_factor: 1.1, epsilon: 1e-8, step_size: 0.01, keep: 0.999 };
                b.device.adam(&mut a, &g, start..end, with_first.then_some(&mut m), &mut v, before, step);
                b.output(&a);
                b.output(&m);
                b.output(&v);
            }),
        );
    }
    case(
        "add_range",
        SINGLE,
        Box::new(|b| {
            let n = b.columns() * 5;
            let (mut a, other) = (b.vector(n), b.vector(n));
            let start = b.random.below(n);
            b.device.add_range(&mut a, start..n, -0.3, &other);
            b.output(&a);
        }),
    );
}

fn matrix_cases(cases: &mut Vec<(String, f64, Run)>) {
    let mut case = |name: &str, bound: f64, run: Run| cases.push((name.to_owned(), bound, run));
    case(
        "copy, upload, download",
        EXACT,
        Box::new(|b| {
            let (rows, columns) = (b.rows(), b.columns());
            let from = b.matrix(rows, columns);
            let mut to = b.poisoned(rows, columns);
            b.device.copy(to.view_mut(), from.view());
            b.output(&to.array);
            let numbers = b.normal(rows * columns);
            b.device.upload(to.view_mut(), &numbers);
            b.output(&to.array);
            let back = b.device.download(to.view());
            b.outputs.push(back.into_iter().map(f64::from).collect());
        }),
    );
    for (keep, left, right) in (0..8).map(|i| (i & 1 > 0, i & 2 > 0, i & 4 > 0)) {
        let name = format!(
            "product{}{}{}",
            if left { ", a'" } else { "" },
            if right { ", b'" } else { "" },
            if keep { ", added" } else { "" }
        );
        case(
            &name,
            SINGLE,
            Box::new(move |b| {
                let (m, k, n) = (b.rows(), b.rows(), b.columns());
                let a = if left { b.matrix(k, m) } else { b.matrix(m, k) };
                let other = if right { b.matrix(n, k) } else { b.matrix(k, n) };
                let mut out = if keep { b.matrix(m, n) } else { b.poisoned(m, n) };
                let (a, other) = (a.view(), other.view());
                let (a, other) = (if left { a.t() } else { a }, if right { other.t() } else { other });
                b.device.product(out.view_mut(), keep, a, other);
                b.output(&out.array);
            }),
        );
    }
    case(
        "squares",
        SINGLE,
        Box::new(|b| {
            let (rows, columns) = (b.rows(), b.columns());
            let (a, mut out) = (b.matrix(rows, columns), b.poisoned(rows, columns));
            b.device.squares(out.view_mut(), a.view());
            b.output(&out.array);
        }),
    );
    case(
        "scale_columns",
        SINGLE,
        Box::new(|b| {
            let (rows, columns) = (b.rows(), b.columns());
            let (a, w, mut out) = (b.matrix(rows, columns), b.matrix(1, columns), b.poisoned(rows, columns));
            b.device.scale_columns(out.view_mut(), a.view(), w.view());
            b.output(&out.array);
        }),
    );
    case(
        "blend",
        SINGLE,
        Box::new(|b| {
            let (rows, columns) = (b.rows(), b.columns());
            let (mut a, other) = (b.matrix(rows, columns), b.matrix(rows, columns));
            b.device.blend(-0.6, a.view_mut(), 1.3, other.view());
            b.output(&a.array);
        }),
    );
    for keep in [false, true] {
        let added = if keep { ", added" } else { "" };
        case(
            &format!("row_sums{added}"),
            SINGLE,
            Box::new(move |b| {
                let (rows, columns) = (b.rows(), b.columns());
                // Not around zero: a sum near it has lost its digits on either side.
                let a = b.placed(rows, columns, |random, _, _| random.uniform());
                let mut out = if keep { b.matrix(1, rows) } else { b.poisoned(1, rows) };
                b.device.row_sums(out.view_mut(), keep, a.view());
                b.output(&out.array);
            }),
        );
        case(
            &format!("column_dots{added}"),
            SINGLE,
            Box::new(move |b| {
                let (rows, columns) = (b.rows(), b.columns());
                let (a, other) = (b.matrix(rows, columns), b.matrix(rows, columns));
                let mut out = if keep { b.matrix(1, columns) } else { b.poisoned(1, columns) };
                b.device.column_dots(out.view_mut(), keep, a.view(), other.view());
                b.output(&out.array);
            }),
        );
    }
    case(
        "inner, count_positive",
        SINGLE,
        Box::new(|b| {
            let (rows, columns) = (b.rows(), b.columns());
            let a = b.matrix(rows, columns);
            let inner = b.device.inner(a.view(), a.view());
            b.number(inner);
            let count = b.device.count_positive(a.view());
            b.number(count as f64);
        }),
    );
}

fn layer_cases(cases: &mut Vec<(String, f64, Run)>) {
    let mut case = |name: String, bound: f64, run: Run| cases.push((name, bound, run));
    for h in ACTIVATIONS {
        case(
            format!("activate, {h:?}"),
            SINGLE,
            Box::new(move |b| {
                let (rows, columns) = (b.rows(), b.columns());
                let mut a = b.placed(rows, columns, |random, _, _| 3.0 * random.normal());
                let bias = b.matrix(1, rows);
                let mut slope = b.poisoned(rows, columns);
                let with_slope = !h.slope_follows_from_value() || b.random.below(2) == 0;
                b.device.activate(h, a.view_mut(), bias.view(), with_slope.then(|| slope.view_mut()));
                b.output(&a.array);
                b.output(&slope.array);
            }),
        );
        case(
            format!("tangent, {h:?}"),
            SINGLE,
            Box::new(move |b| {
                let (rows, columns) = (b.rows(), b.columns());
                let (mut t, bias) = (b.matrix(rows, columns), b.matrix(1, rows));
                let kept = b.placed(rows, columns, |random, _, _| random.uniform() - 0.2);
                b.device.tangent(h, t.view_mut(), bias.view(), kept.view());
                b.output(&t.array);
            }),
        );
        case(
            format!("backpropagate, {h:?}"),
            SINGLE,
            Box::new(move |b| {
                let (below, above, columns) = (b.rows(), b.rows(), b.columns());
                let (w, d, mut out) = (b.matrix(above, below), b.matrix(above, columns), b.poisoned(below, columns));
                let kept = b.placed(below, columns, |random, _, _| random.uniform() - 0.2);
                b.device.backpropagate(h, out.view_mut(), w.view(), d.view(), kept.view());
                b.output(&out.array);
            }),
        );
    }
}

fn loss_cases(cases: &mut Vec<(String, f64, Run)>) {
    let mut case = |name: String, bound: f64, run: Run| cases.push((name, bound, run));
    for loss in LOSSES {
        case(
            format!("loss, {loss:?}"),
            SINGLE,
            Box::new(move |b| {
                let (outputs, columns) = (outputs_of(loss, b), b.columns());
                let o = b.placed(outputs, columns, |random, _, _| 4.0 * random.normal());
                let y = b.targets(loss, outputs, columns);
                let mut residual = b.poisoned(outputs, columns);
                let with = b.device.loss(loss, o.view(), y.view(), Some((residual.view_mut(), 0.7)));
                let without = b.device.loss(loss, o.view(), y.view(), None);
                b.outputs.push(vec![with, without]);
                b.output(&residual.array);
            }),
        );
        case(
            format!("loss_curvature, {loss:?}"),
            SINGLE,
            Box::new(move |b| {
                let (outputs, columns) = (outputs_of(loss, b), b.columns());
                let (o, mut t) = (b.matrix(outputs, columns), b.matrix(outputs, columns));
                b.device.loss_curvature(loss, o.view(), t.view_mut(), 0.7);
                b.output(&t.array);
            }),
        );
        case(
            format!("sampled_residual, {loss:?}"),
            SINGLE,
            Box::new(move |b| {
                let (outputs, columns) = (outputs_of(loss, b), b.columns());
                let o = b.matrix(outputs, columns);
                let rows = if loss == Loss::Softmax { 1 } else { outputs };
                let noise = b.placed(rows, columns, |random, _, _| random.uniform());
                let mut residual = b.poisoned(outputs, columns);
                b.device.sampled_residual(loss, o.view(), noise.view(), residual.view_mut());
                b.output(&residual.array);
            }),
        );
        if loss != Loss::Softmax {
            case(format!("loss_proximal, {loss:?}"), ITERATED, Box::new(move |b| proximal(b, loss, 1)));
        }
        if matches!(loss, Loss::Softmax | Loss::Squared) {
            case(
                format!("loss_proximal, {loss:?}, several"),
                ITERATED,
                Box::new(move |b| {
                    let outputs = 2 + b.random.below(9);
                    proximal(b, loss, outputs);
                }),
            );
        }
    }
    case(
        "rectifier_proximal".into(),
        SINGLE,
        Box::new(|b| {
            let (rows, columns) = (b.rows(), b.columns());
            let (mut z, a, m) = (b.matrix(rows, columns), b.matrix(rows, columns), b.matrix(rows, columns));
            let sums = b.device.rectifier_proximal(z.view_mut(), a.view(), m.view(), 2.0, 0.5);
            b.outputs.push(sums.to_vec());
            b.output(&z.array);
        }),
    );
}

/// Proximal steps in the metric of random matrices `A A'`, of full rank and less.
fn proximal(b: &mut Bench<'_>, loss: Loss, outputs: usize) {
    let columns = b.columns();
    let center = b.matrix(outputs, columns);
    let rank = 1 + b.random.below(outputs);
    let factors = b.normal(columns * outputs * rank);
    let places: Vec<(usize, usize)> = (0..outputs).flat_map(|i| (0..=i).map(move |j| (i, j))).collect();
    let metric = b.placed(places.len(), columns, |_, place, column| {
        let (i, j) = places[place];
        let of = |unit: usize, r: usize| factors[(column * outputs + unit) * rank + r];
        (0..rank).map(|r| of(i, r) * of(j, r)).sum()
    });
    let y = b.targets(loss, outputs, columns);
    let mut t = b.poisoned(outputs, columns);
    let sums = b.device.loss_proximal(loss, center.view(), metric.view(), y.view(), t.view_mut());
    b.outputs.push(sums.to_vec());
    b.output(&t.array);
}

fn table_cases(cases: &mut Vec<(String, f64, Run)>) {
    let mut case = |name: &str, bound: f64, run: Run| cases.push((name.to_owned(), bound, run));
    case(
        "load",
        SINGLE,
        Box::new(|b| {
            let (rows, columns) = (b.columns() + PANEL_ROWS, 1 + b.random.below(40));
            let panels = Panels::from_fn(rows, columns, |_, _| b.random.normal());
            let shift: Vec<f64> = (0..columns).map(|j| 0.1 * j as f64).collect();
            let factor: Vec<f64> = (0..columns).map(|j| 1.0 + 0.3 * j as f64).collect();
            let first = b.random.below(rows / 2);
            let table = Table::new(panels, first..rows, &shift, &factor);
            b.device.keep(&table);
            let start = b.random.below(table.rows());
            let mut out = b.poisoned(columns, table.rows() - start);
            b.device.load(&table, Selection::Range(start, table.rows()), out.view_mut());
            b.output(&out.array);
            let count = b.columns();
            let list: Vec<u32> = (0..count).map(|_| b.random.below(table.rows()) as u32).collect();
            let mut out = b.poisoned(columns, count);
            b.device.load(&table, Selection::List(&list), out.view_mut());
            b.output(&out.array);
        }),
    );
    case(
        "for_blocks",
        SINGLE,
        Box::new(|b| {
            let (rows, columns) = (b.columns() * 3, 1 + b.random.below(9));
            let panels = Panels::from_fn(rows, columns, |_, _| b.random.normal());
            let table = Table::plain(panels, 0..rows);
            let job = Job { rows, width: columns, sum: columns, parameters: 1 };
            let mut sum = b.device.zeros(columns);
            b.device.fill(&mut sum, f32::NAN);
            let total = b.device.for_blocks(job, &mut sum, &|device, block, sum, keep| {
                let mut x = device.zeros(columns * block.len());
                device.load(&table, Selection::Range(block.start, block.end), x.view_mut(0, columns, block.len()));
                let x = x.view(0, columns, block.len());
                device.row_sums(sum.view_mut(0, 1, columns), keep, x);
                Ok(device.inner(x, x))
            });
            b.number(total.unwrap_or(f64::NAN));
            b.output(&sum);
        }),
    );
}

fn factorization_cases(cases: &mut Vec<(String, f64, Run)>) {
    cases.push((
        "cholesky, inverse, eigenvalues, QR".to_owned(),
        1e-4,
        Box::new(|b| {
            let n = 1 + b.random.below(20);
            let a = b.matrix(n, n + 5);
            let mut gram = b.poisoned(n, n);
            b.device.product(gram.view_mut(), false, a.view(), a.view().t());
            let (Ok(lower), Ok(inverse)) = (b.device.cholesky(gram.view()), b.device.inverse(gram.view(), 1.0)) else {
                return b.number(f64::NAN);
            };
            b.output(&lower);
            b.output(&inverse);
            // Vectors are known up to their sign; what they and Q multiply to is not.
            let Ok((values, vectors)) = b.device.symmetric_eigen(gram.view()) else { return b.number(f64::NAN) };
            b.output(&values);
            let Ok(q) = b.device.orthogonal_factor(gram.view()) else { return b.number(f64::NAN) };
            for orthogonal in [vectors, q] {
                let mut product = b.poisoned(n, n);
                let view = orthogonal.view(0, n, n);
                b.device.product(product.view_mut(), false, view, view.t());
                b.output(&product.array);
            }
        }),
    ));
}
