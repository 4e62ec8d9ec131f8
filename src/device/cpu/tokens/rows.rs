//! Moving rows of tokens: gathering, combining, random factors, rounding.

use crate::device::cpu::elementwise::for_row_groups;
use crate::device::cpu::products::{Rect, RectMut, dot};
use crate::device::{NO_ROW, Noise, PANEL_ROWS, Selection, Table};
use pulp::{Arch, Simd, WithSimd};

/// Calls `f` with the number and the elements of every row.
pub(super) fn for_rows(out: RectMut<'_>, parallel: bool, f: impl Fn(usize, &mut [f32]) + Sync) {
    let (columns, stride) = (out.columns, out.stride.max(1));
    for_row_groups(out, parallel, |first, values| {
        for (i, row) in values.chunks_mut(stride).enumerate() {
            f(first + i, &mut row[..columns]);
        }
    });
}

/// Rows of a table. Neighbouring rows are read column by column, as they lie in panels; others one after another, so that what
/// is read of one lies within few pages.
pub(super) fn load(out: RectMut<'_>, table: &Table, rows: Selection<'_>, parallel: bool) {
    const TOGETHER: usize = 64;
    let RectMut { values, rows: count, columns, stride } = out;
    assert!(columns == table.columns() && count == rows.len(), "a {count} x {columns} view for rows of {table:?}");
    let (from, shift, factor) = (table.panels.values(), &table.shift[..columns], &table.factor[..columns]);
    let place = |row: usize| {
        let row = table.rows.start + row;
        row / PANEL_ROWS * PANEL_ROWS * columns + row % PANEL_ROWS
    };
    super::for_chunks(values, TOGETHER * stride, parallel, |chunk, to| {
        let first = chunk * TOGETHER;
        match rows {
            Selection::Range(start, _) => {
                for j in 0..columns {
                    for (i, to) in to[j..].iter_mut().step_by(stride).enumerate() {
                        *to = (from[place(start + first + i) + j * PANEL_ROWS] - shift[j]) * factor[j];
                    }
                }
            }
            Selection::List(list) => {
                for (to, &row) in to.chunks_mut(stride).zip(&list[first..]) {
                    let own = from[place(row as usize)..].iter().step_by(PANEL_ROWS);
                    for (((to, from), shift), factor) in to.iter_mut().zip(own).zip(shift).zip(factor) {
                        *to = (from - shift) * factor;
                    }
                }
            }
        }
    });
}

pub(super) fn gather(out: RectMut<'_>, from: Rect<'_>, ids: &[u32], parallel: bool) {
    assert_eq!(out.rows, ids.len(), "rows to gather");
    for_rows(out, parallel, |i, row| match ids[i] {
        NO_ROW => row.fill(0.0),
        id => row.copy_from_slice(from.row(id as usize)),
    });
}

/// Row after row of `to` takes what belongs to it, in order, so that the sums do not depend on threads.
pub(super) fn scatter_add(to: RectMut<'_>, ids: &[u32], from: Rect<'_>, factor: f32, parallel: bool) {
    let mut ends = vec![0_usize; to.rows + 1];
    ids.iter().filter(|&&id| id != NO_ROW).for_each(|&id| ends[id as usize + 1] += 1);
    for i in 0..to.rows {
        ends[i + 1] += ends[i];
    }
    let mut places = ends.clone();
    let mut sorted = vec![0_u32; ends[to.rows]];
    for (i, &id) in ids.iter().enumerate().filter(|(_, id)| **id != NO_ROW) {
        sorted[places[id as usize]] = i as u32;
        places[id as usize] += 1;
    }
    for_rows(to, parallel, |i, row| {
        for &token in &sorted[ends[i]..ends[i + 1]] {
            row.iter_mut().zip(from.row(token as usize)).for_each(|(to, &from)| *to += factor * from);
        }
    });
}

pub(super) fn combine(
    out: RectMut<'_>,
    keep: bool,
    from: Rect<'_>,
    slots: &[u32],
    scale: Option<&[f32]>,
    parallel: bool,
) {
    let each = slots.len() / out.rows.max(1);
    for_rows(out, parallel, |i, row| {
        if !keep {
            row.fill(0.0);
        }
        for place in i * each..(i + 1) * each {
            if slots[place] == NO_ROW {
                continue;
            }
            let factor = scale.map_or(1.0, |scale| scale[place]);
            let from = from.row(slots[place] as usize);
            row.iter_mut().zip(from).for_each(|(to, &from)| *to += factor * from);
        }
    });
}

struct RowDots<'a> {
    out: &'a mut [f32],
    first: usize,
    a: Rect<'a>,
    b: Rect<'a>,
}

impl WithSimd for RowDots<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (i, out) in self.out.iter_mut().enumerate() {
            *out = dot::<S>(self.a.row(self.first + i), self.b.row(self.first + i));
        }
    }
}

pub(super) fn row_dots(out: &mut [f32], a: Rect<'_>, b: Rect<'_>, parallel: bool) {
    const ROWS: usize = 128;
    let run = |i: usize, out: &mut [f32]| Arch::new().dispatch(RowDots { out, first: i * ROWS, a, b });
    super::for_chunks(out, ROWS, parallel, run);
}

pub(super) fn scale_rows(a: RectMut<'_>, by: &[f32], parallel: bool) {
    for_rows(a, parallel, |i, row| row.iter_mut().for_each(|v| *v *= by[i]));
}

/// A number uniform in `[0, 1)` from a seed and a place (the finalizer of MurmurHash3).
#[inline(always)]
fn uniform(seed: u32, place: u32) -> f32 {
    let mut x = place.wrapping_mul(0x9e37_79b9) ^ seed;
    x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
    x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
    x ^= x >> 16;
    (x >> 8) as f32 * (1.0 / 16_777_216.0)
}

pub(super) fn noise(a: RectMut<'_>, noise: Noise, parallel: bool) {
    let columns = a.columns;
    for_rows(a, parallel, |i, row| {
        Arch::new().dispatch(|| {
            let first = (i * columns) as u32;
            match noise {
                Noise::Dropout { seed, rate } => {
                    let (seed, factor) = ((seed ^ (seed >> 32)) as u32, 1.0 / (1.0 - rate));
                    for (j, v) in row.iter_mut().enumerate() {
                        let kept = uniform(seed, first.wrapping_add(j as u32)) >= rate;
                        *v *= if kept { factor } else { 0.0 };
                    }
                }
                Noise::Jitter { seed, spread } => {
                    let seed = (seed ^ (seed >> 32)) as u32;
                    for (j, v) in row.iter_mut().enumerate() {
                        *v *= 1.0 + spread * (2.0 * uniform(seed, first.wrapping_add(j as u32)) - 1.0);
                    }
                }
            }
        });
    });
}

/// The nearest bfloat16, ties to even; NaN stays NaN.
pub(super) fn half(x: f32) -> f32 {
    if x.is_nan() {
        return x;
    }
    let bits = x.to_bits();
    f32::from_bits((bits.wrapping_add(0x7fff + ((bits >> 16) & 1))) & 0xffff_0000)
}

pub(super) fn round_half(a: RectMut<'_>, parallel: bool) {
    for_rows(a, parallel, |_, row| Arch::new().dispatch(|| row.iter_mut().for_each(|v| *v = half(*v))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_to_the_nearest_with_ties_to_even() {
        assert_eq!(half(1.0), 1.0);
        assert_eq!(half(1.0 + 1.0 / 256.0), 1.0);
        assert_eq!(half(1.0 + 3.0 / 256.0), 1.0 + 4.0 / 256.0);
        assert_eq!(half(1.0 + 1.1 / 256.0), 1.0 + 2.0 / 256.0);
        assert!(half(f32::NAN).is_nan() && half(f32::INFINITY).is_infinite());
    }

    #[test]
    fn random_factors_have_the_moments_that_they_should() {
        let n = 100_000;
        let moments = |noise_of: Noise| {
            let mut values = vec![1.0_f32; n];
            noise(RectMut { values: &mut values, rows: n / 100, columns: 100, stride: 100 }, noise_of, false);
            let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n as f64;
            (mean, values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n as f64)
        };
        let (mean, variance) = moments(Noise::Dropout { seed: 7, rate: 0.25 });
        assert!((mean - 1.0).abs() < 0.01 && (variance - 1.0 / 3.0).abs() < 0.01, "{mean} {variance}");
        let (mean, variance) = moments(Noise::Jitter { seed: 9, spread: 0.3 });
        assert!((mean - 1.0).abs() < 0.005 && (variance - 0.03).abs() < 0.001, "{mean} {variance}");
    }
}
