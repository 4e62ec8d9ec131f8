//! Which tokens go to which experts, and what is read and added by the element.

use crate::device::NO_ROW;
use crate::device::cpu::products::Rect;

/// [`Routes`](crate::device::Routes) in host memory.
#[derive(Debug, Default, PartialEq)]
pub(super) struct HostRoutes {
    pub slots: Vec<u32>,
    pub order: Vec<u32>,
    pub elements: Vec<u32>,
    pub chosen: Vec<usize>,
    pub kept: Vec<usize>,
}

/// The most probable of the experts that are not `taken` yet.
fn best(p: &[f32], taken: &[u32]) -> u32 {
    let mut best = NO_ROW;
    if taken.is_empty() {
        // The first of the largest; of what is no number only where there is nothing else.
        let mut largest = f32::NEG_INFINITY;
        for (expert, &p_of) in p.iter().enumerate() {
            if p_of > largest {
                (best, largest) = (expert as u32, p_of);
            }
        }
        if best != NO_ROW {
            return best;
        }
    }
    for (expert, &p_of) in p.iter().enumerate().filter(|(expert, _)| !taken.contains(&(*expert as u32))) {
        let is_better = best == NO_ROW || p_of > p[best as usize] || (p[best as usize].is_nan() && !p_of.is_nan());
        if is_better {
            best = expert as u32;
        }
    }
    best
}

/// Tokens whose experts are chosen by one thread at a time.
const TOGETHER: usize = 512;

pub(super) fn route(p: Rect<'_>, top_k: usize, capacity: Option<usize>, part: &[u32], parallel: bool) -> HostRoutes {
    let (tokens, experts) = (p.rows, p.columns);
    assert_eq!(tokens, part.len(), "tokens to route");
    let mut choices = vec![NO_ROW; tokens * top_k];
    super::for_chunks(&mut choices, TOGETHER * top_k, parallel, |i, choices| {
        for (token, chosen) in (i * TOGETHER..).zip(choices.chunks_mut(top_k.max(1))) {
            if part[token] != NO_ROW {
                for rank in 0..top_k {
                    let (taken, rest) = chosen.split_at_mut(rank);
                    rest[0] = best(p.row(token), taken);
                }
            }
        }
    });
    let room = capacity.unwrap_or(usize::MAX);
    let (mut chosen, mut kept) = (vec![0_usize; experts], vec![0_usize; experts]);
    let mut is_kept = vec![false; choices.len()];
    for rank in 0..top_k {
        for place in (rank..choices.len()).step_by(top_k).filter(|&place| choices[place] != NO_ROW) {
            let expert = choices[place] as usize;
            chosen[expert] += 1;
            if kept[expert] < room {
                kept[expert] += 1;
                is_kept[place] = true;
            }
        }
    }
    let mut end = 0;
    let mut next: Vec<usize> = kept
        .iter()
        .map(|&count| {
            end += count;
            end - count
        })
        .collect();
    let (mut slots, mut order, mut elements) = (vec![NO_ROW; choices.len()], vec![0; end], vec![0; end]);
    for (place, &expert) in choices.iter().enumerate().filter(|(place, _)| is_kept[*place]) {
        let slot = next[expert as usize];
        next[expert as usize] += 1;
        slots[place] = slot as u32;
        order[slot] = (place / top_k) as u32;
        elements[slot] = (place / top_k * experts) as u32 + expert;
    }
    HostRoutes { slots, order, elements, chosen, kept }
}

/// The rows that take part.
fn taking_part<'a>(p: Rect<'a>, part: &'a [u32]) -> impl Iterator<Item = &'a [f32]> {
    (0..p.rows).filter(|&token| part[token] != NO_ROW).map(move |token| p.row(token))
}

pub(super) fn probability_sums(p: Rect<'_>, part: &[u32]) -> Vec<f64> {
    let mut sums = vec![0.0_f64; p.columns];
    for own in taking_part(p, part) {
        sums.iter_mut().zip(own).for_each(|(sum, &p)| *sum += f64::from(p));
    }
    sums
}

pub(super) fn entropy(p: Rect<'_>, part: &[u32]) -> f64 {
    let of_row = |own: &[f32]| {
        let terms = own.iter().map(|&p| f64::from(p)).filter(|&p| p > 0.0);
        terms.map(|p| p * p.ln()).sum::<f64>()
    };
    -taking_part(p, part).map(of_row).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(p: &[f32], experts: usize, top_k: usize, capacity: Option<usize>, part: &[u32]) -> HostRoutes {
        let rows = p.len() / experts;
        let all = vec![0; rows];
        let p = Rect { values: p, rows, columns: experts, stride: experts, transposed: false };
        route(p, top_k, capacity, if part.is_empty() { &all } else { part }, rows > 3)
    }

    fn one_hot(choices: &[usize], experts: usize) -> Vec<f32> {
        choices
            .iter()
            .flat_map(|&c| (0..experts).map(move |e| if e == c { 0.9 } else { 0.1 / experts as f32 }))
            .collect()
    }

    #[test]
    fn exactly_the_capacity_is_kept_and_the_first_come_first() {
        let p = one_hot(&[1, 1, 0, 1, 1, 2], 4);
        for capacity in 0..=5 {
            let routes = routed(&p, 4, 1, Some(capacity), &[]);
            assert_eq!(routes.kept, [1, 4, 1, 0].map(|chosen: usize| chosen.min(capacity)), "capacity {capacity}");
            assert_eq!(routes.chosen, [1, 4, 1, 0]);
            assert_eq!(routes.order.len(), routes.kept.iter().sum::<usize>());
        }
        let routes = routed(&p, 4, 1, Some(2), &[]);
        assert_eq!(routes.order, [2, 0, 1, 5]);
        assert_eq!(routes.slots, [1, 2, 0, NO_ROW, NO_ROW, 3]);
        assert_eq!(routes.elements, [8, 1, 5, 22]);
    }

    #[test]
    fn second_choices_come_after_all_first_ones() {
        // Tokens 0 and 1 prefer expert 0 and then 1; token 2 prefers expert 1.
        let p = [0.6, 0.3, 0.1, 0.6, 0.3, 0.1, 0.1, 0.6, 0.3];
        let routes = routed(&p, 3, 2, Some(2), &[]);
        let at = |token: usize, rank: usize| routes.slots[token * 2 + rank];
        assert!(at(2, 0) != NO_ROW && at(0, 1) != NO_ROW);
        assert_eq!(at(1, 1), NO_ROW);
        assert_eq!(routes.chosen.iter().sum::<usize>() - routes.order.len(), 1);
    }

    #[test]
    fn what_takes_no_part_goes_nowhere_and_what_is_no_number_loses() {
        let mut p = one_hot(&[0, 0, 1, 1], 2);
        p[4] = f32::NAN;
        let routes = routed(&p, 2, 1, None, &[0, NO_ROW, 0, 0]);
        assert_eq!((routes.slots[1], routes.chosen), (NO_ROW, vec![1, 2]));
    }
}
