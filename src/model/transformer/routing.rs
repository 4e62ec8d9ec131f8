//! What came of routing: which tokens go to which experts, decided from the router's probabilities by the device, then frozen.
//!
//! Tokens are sorted by expert, so that an expert's tokens are consecutive; experts without tokens appear nowhere. A token beyond
//! an expert's capacity is dropped there: it adds exactly zero.

use crate::device::{Array, Device, Ids, Routes, Segment, Tokens};

/// A decision for all tokens that are routed together.
#[derive(Debug)]
pub(super) struct Routing {
    pub routes: Routes,
    /// The places of every expert that has any.
    pub segments: Vec<Segment>,
    /// Share of all choices that fell on each expert, dropped ones included: `f`.
    pub load: Vec<f64>,
    /// Places: choices that were kept.
    pub sorted: usize,
    /// Choices that found no room.
    pub dropped: usize,
    /// `p` of every place, and of every choice.
    pub place_gates: Array,
    pub gates: Array,
}

impl Routing {
    pub fn new(routes: Routes, top_k: usize, tokens: usize, (place_gates, gates): (Array, Array)) -> Self {
        let mut segments = Vec::new();
        let mut sorted = 0;
        for (matrix, &count) in routes.kept.iter().enumerate().filter(|(_, count)| **count > 0) {
            segments.push(Segment { rows: sorted..sorted + count, matrix });
            sorted += count;
        }
        let all = (tokens * top_k).max(1) as f64;
        let load = routes.chosen.iter().map(|&count| count as f64 / all).collect();
        let dropped = routes.chosen.iter().sum::<usize>() - sorted;
        Self { routes, segments, load, sorted, dropped, place_gates, gates }
    }
}

/// Which of the tokens that are routed together take part, on the device.
#[derive(Debug)]
pub(super) struct Part {
    /// Row 0 for every token, no row for padding.
    pub rows: Ids,
    /// 1 for every token, 0 for padding; the same on the host.
    pub mask: Array,
    pub mask_on_host: Vec<f32>,
    /// How many take part.
    pub tokens: usize,
}

impl Part {
    /// Of up to so many tokens; none takes part yet.
    pub fn new(device: &Device, tokens: &dyn Tokens, room: usize) -> Self {
        Self { rows: tokens.ids(&[]), mask: device.zeros(room), mask_on_host: Vec::new(), tokens: 0 }
    }
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
