//! Which tokens go to which experts: decided from the router's probabilities, then frozen.
//!
//! Every token goes to the `top_k` experts of largest probability, of equal ones to the first. An expert takes at most `capacity`
//! tokens: first choices before second ones, earlier tokens before later ones. A token beyond that is dropped there: it adds
//! exactly zero. Tokens are then sorted by expert, so that an expert's tokens are consecutive; experts without tokens appear
//! nowhere.

use crate::device::{NO_ROW, Segment};

/// A decision for all tokens that are routed together.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Routing {
    /// The place among sorted tokens of every token's choices, `tokens x top_k`; [`NO_ROW`] where it was dropped or is padding.
    pub slots: Vec<u32>,
    /// The token at every place.
    pub order: Vec<u32>,
    /// The element of `tokens x experts` that a place's choice is.
    pub elements: Vec<u32>,
    /// The places of every expert that has any.
    pub segments: Vec<Segment>,
    /// Share of all choices that fell on each expert, dropped ones included: `f`.
    pub load: Vec<f64>,
    /// Tokens that take part.
    pub tokens: usize,
    /// Choices that found no room.
    pub dropped: usize,
}

/// Routes tokens by `tokens x experts` probabilities; tokens that are not `valid` (empty: all are) go nowhere.
pub(super) fn route(
    probabilities: &[f32],
    experts: usize,
    top_k: usize,
    capacity: Option<usize>,
    valid: &[bool],
) -> Routing {
    let tokens = probabilities.len() / experts;
    let is_valid = |token: usize| valid.is_empty() || valid[token];
    let mut choices = vec![NO_ROW; tokens * top_k];
    for token in (0..tokens).filter(|&token| is_valid(token)) {
        let own = &probabilities[token * experts..(token + 1) * experts];
        let chosen = &mut choices[token * top_k..(token + 1) * top_k];
        for rank in 0..top_k {
            let (taken, rest) = chosen.split_at_mut(rank);
            let mut best = NO_ROW;
            for (expert, &p) in own.iter().enumerate() {
                // Probabilities that are no numbers lose; the loss says so.
                if !taken.contains(&(expert as u32)) && (best == NO_ROW || p > own[best as usize]) {
                    best = expert as u32;
                }
            }
            rest[0] = best;
        }
    }
    let room = capacity.unwrap_or(usize::MAX);
    let mut chosen = vec![0_usize; experts];
    let mut kept = vec![0_usize; experts];
    let mut is_kept = vec![false; choices.len()];
    for rank in 0..top_k {
        for token in 0..tokens {
            let expert = choices[token * top_k + rank];
            if expert == NO_ROW {
                continue;
            }
            let expert = expert as usize;
            chosen[expert] += 1;
            if kept[expert] < room {
                kept[expert] += 1;
                is_kept[token * top_k + rank] = true;
            }
        }
    }
    let mut segments = Vec::new();
    let mut next = vec![0_usize; experts];
    let mut end = 0;
    for (expert, &count) in kept.iter().enumerate() {
        next[expert] = end;
        if count > 0 {
            segments.push(Segment { rows: end..end + count, matrix: expert });
        }
        end += count;
    }
    let (mut slots, mut order, mut elements) = (vec![NO_ROW; choices.len()], vec![0; end], vec![0; end]);
    for (place, &expert) in choices.iter().enumerate().filter(|(place, _)| is_kept[*place]) {
        let slot = next[expert as usize];
        next[expert as usize] += 1;
        slots[place] = slot as u32;
        order[slot] = (place / top_k) as u32;
        elements[slot] = (place / top_k * experts) as u32 + expert;
    }
    let taking_part = (0..tokens).filter(|&token| is_valid(token)).count();
    let all = (taking_part * top_k).max(1) as f64;
    let load = chosen.iter().map(|&count| count as f64 / all).collect();
    let dropped = chosen.iter().sum::<usize>() - end;
    Routing { slots, order, elements, segments, load, tokens: taking_part, dropped }
}

/// How a Switch layer's routing went, for traces.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RoutingStatistics {
    /// The largest share of choices that fell on one expert, in units of an even share: 1 at perfect balance.
    pub largest_load: f64,
    /// The smallest one; 0: an expert without tokens.
    pub smallest_load: f64,
    /// Share of choices that found no room.
    pub drop_rate: f64,
    /// Mean entropy of the router's probabilities, in nats: `ln experts` where they are even.
    pub router_entropy: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let routing = route(&p, 4, 1, Some(capacity), &[]);
            let kept = |expert: usize| routing.segments.iter().find(|s| s.matrix == expert).map_or(0, |s| s.rows.len());
            assert_eq!(kept(1), capacity.min(4), "capacity {capacity}");
            assert_eq!(kept(0), capacity.min(1));
            assert_eq!(routing.dropped, 6 - routing.order.len());
            assert_eq!(routing.load, [1.0 / 6.0, 4.0 / 6.0, 1.0 / 6.0, 0.0]);
        }
        let routing = route(&p, 4, 1, Some(2), &[]);
        assert_eq!(routing.order, [2, 0, 1, 5]);
        assert_eq!(routing.slots, [1, 2, 0, NO_ROW, NO_ROW, 3]);
        assert_eq!(routing.elements, [8, 1, 5, 22]);
        assert!(routing.segments.iter().all(|segment| segment.matrix != 3), "an idle expert appears nowhere");
    }

    #[test]
    fn second_choices_come_after_all_first_ones() {
        // Tokens 0 and 1 prefer expert 0 and then 1; token 2 prefers expert 1.
        let p = [0.6, 0.3, 0.1, 0.6, 0.3, 0.1, 0.1, 0.6, 0.3];
        let routing = route(&p, 3, 2, Some(2), &[]);
        let at = |token: usize, rank: usize| routing.slots[token * 2 + rank];
        assert!(at(2, 0) != NO_ROW && at(0, 1) != NO_ROW);
        assert_eq!(at(1, 1), NO_ROW);
        assert_eq!(routing.dropped, 1);
    }

    #[test]
    fn padding_takes_no_part() {
        let p = one_hot(&[0, 0, 1, 1], 2);
        let routing = route(&p, 2, 1, None, &[true, false, true, true]);
        assert_eq!((routing.tokens, routing.slots[1]), (3, NO_ROW));
        assert!((routing.load[0] - 1.0 / 3.0).abs() < 1e-15);
    }
}
