//! Operations of [`Backend`](crate::device::Backend).

use super::{Bench, Case, EXACT, ITERATED, Placed, Run, SINGLE};
use crate::device::{Activation, AdamStep, Array, Job, Loss, PANEL_ROWS, Panels, Selection, Table};

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

/// All of them with their bounds.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    flat_cases(&mut cases);
    matrix_cases(&mut cases);
    layer_cases(&mut cases);
    loss_cases(&mut cases);
    table_cases(&mut cases);
    factorization_cases(&mut cases);
    cases
}

fn flat_cases(cases: &mut Vec<Case>) {
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

fn matrix_cases(cases: &mut Vec<Case>) {
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

fn layer_cases(cases: &mut Vec<Case>) {
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

fn loss_cases(cases: &mut Vec<Case>) {
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

/// Proximal steps in the metric of random matrices `A A' + 0.3 I`, now and then of zero. (One that is nearly singular amplifies
/// rounding on either side.)
fn proximal(b: &mut Bench<'_>, loss: Loss, outputs: usize) {
    let columns = b.columns();
    let center = b.matrix(outputs, columns);
    let factors = b.normal(columns * outputs * outputs);
    let places: Vec<(usize, usize)> = (0..outputs).flat_map(|i| (0..=i).map(move |j| (i, j))).collect();
    let metric = b.placed(places.len(), columns, |_, place, column| {
        let (i, j) = places[place];
        let of = |unit: usize, r: usize| factors[(column * outputs + unit) * outputs + r];
        let gram: f32 = (0..outputs).map(|r| of(i, r) * of(j, r)).sum();
        if column % 5 == 4 { 0.0 } else { gram + if i == j { 0.3 } else { 0.0 } }
    });
    let y = b.targets(loss, outputs, columns);
    let mut t = b.poisoned(outputs, columns);
    let sums = b.device.loss_proximal(loss, center.view(), metric.view(), y.view(), t.view_mut());
    b.outputs.push(sums.to_vec());
    b.output(&t.array);
}

fn table_cases(cases: &mut Vec<Case>) {
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

/// The symmetric matrix `I + A A'/n`, `A` normal, within a larger array.
fn positive(b: &mut Bench<'_>, n: usize) -> Placed {
    let a = b.normal(n * n);
    b.placed(n, n, |_, i, j| {
        let product: f32 = (0..n).map(|k| a[i * n + k] * a[j * n + k]).sum();
        product / n as f32 + if i == j { 1.0 } else { 0.0 }
    })
}

/// Sizes next to the edges of tiles, none, and one that may be larger.
fn positive_sizes(b: &mut Bench<'_>) -> [usize; 10] {
    [33, 1, 65, 0, 2, 31, 64, 32, 63, 1 + b.random.below(200)]
}

/// Overwrites the last element of the diagonal with what a positive-definite matrix does not have there, were a ridge below one
/// added to it.
fn spoil(b: &mut Bench<'_>, a: &mut Placed) {
    let wrong = [-1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY][b.random.below(4)];
    let last = a.start + (a.rows - 1) * (a.stride + 1);
    b.device.upload(a.array.view_mut(last, 1, 1), &[wrong]);
}

/// The inverses of all; none where one has none.
fn inverses_of(b: &Bench<'_>, all: &[(Placed, f64)]) -> Vec<Array> {
    let views: Vec<_> = all.iter().map(|(a, ridge)| (a.view(), *ridge)).collect();
    b.device.inverses(&views).unwrap_or_default()
}

fn factorization_cases(cases: &mut Vec<Case>) {
    cases.push((
        "cholesky".to_owned(),
        SINGLE,
        Box::new(|b| {
            for n in positive_sizes(b) {
                let mut a = positive(b, n);
                match b.device.cholesky(a.view()) {
                    Ok(lower) => b.output(&lower),
                    Err(_) => b.number(f64::NAN),
                }
                if n > 0 {
                    spoil(b, &mut a);
                    let is_refused = b.device.cholesky(a.view()).is_err();
                    b.number(f64::from(u8::from(is_refused)));
                }
            }
        }),
    ));
    cases.push((
        "inverses".to_owned(),
        SINGLE,
        Box::new(|b| {
            let mut all: Vec<(Placed, f64)> = Vec::new();
            for n in positive_sizes(b) {
                let ridge = f64::from(b.random.uniform());
                all.push((positive(b, n), ridge));
            }
            let inverses = inverses_of(b, &all);
            b.number(inverses.len() as f64);
            inverses.iter().for_each(|inverse| b.output(inverse));
            // None of them, where one is not positive definite.
            let bad = [0, 1, 2, 4, 5, 6, 7, 8, 9][b.random.below(9)];
            spoil(b, &mut all[bad].0);
            let inverses = inverses_of(b, &all);
            b.number(inverses.len() as f64);
        }),
    ));
    cases.push((
        "eigenvalues, QR".to_owned(),
        1e-4,
        Box::new(|b| {
            let n = 1 + b.random.below(20);
            let a = b.matrix(n, n + 5);
            let mut gram = b.poisoned(n, n);
            b.device.product(gram.view_mut(), false, a.view(), a.view().t());
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
