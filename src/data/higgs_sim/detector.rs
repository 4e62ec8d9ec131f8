//! The detector: partons to jets, resolutions, b-tags, missing energy and the event selection.
//!
//! Missing energy is minus the sum of everything that was measured, plus a soft term: whatever a jet's resolution
//! adds to the jet is also found, with the opposite sign, in the missing energy.

use super::Parameters;
use super::kinematics::{FourVector, delta_r2, wrapped};
use super::process::{Flavour, HardEvent, MISTAG_CANDIDATES};
use super::rng::Rng;

/// Partons beyond pseudorapidity 4.9 leave through the beam pipe: sinh(4.9) squared.
const CALORIMETER_EDGE_SINH2: f32 = 4_508.0;

/// No jet is narrower than this.
const SMALLEST_RADIUS: f32 = 0.35;

/// A measured jet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Jet {
    pub(super) p: FourVector,
    pub(super) pt: f32,
    pub(super) eta: f32,
    pub(super) phi: f32,
    /// 0, 1 (loose) or 2 (tight).
    pub(super) tag: u8,
    /// Jets are listed in falling order of this number.
    key: f32,
}

/// A measured event. The vectors are reused from event to event.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// Jets that pass the selection, in the order in which they are listed.
    pub(super) jets: Vec<Jet>,
    pub(super) lepton: FourVector,
    pub(super) lepton_pt: f32,
    pub(super) lepton_eta: f32,
    pub(super) lepton_phi: f32,
    /// Missing transverse momentum: components.
    pub(super) missing: (f32, f32),
    clusters: Vec<Cluster>,
}

/// Partons that fall into one jet.
#[derive(Debug, Clone, Copy)]
struct Cluster {
    p: FourVector,
    eta: f32,
    phi: f32,
    bottom: bool,
    /// Smallest of the uniform numbers that decide the tag, for bottom and charm quarks inside.
    bottom_luck: f32,
    charm_luck: f32,
}

impl Cluster {
    /// Whether a bottom or charm quark is inside.
    fn heavy(&self) -> bool {
        self.bottom_luck.min(self.charm_luck) < 1.0
    }
}

/// Measures hard events.
#[derive(Debug)]
pub(super) struct Detector {
    parameters: Parameters,
    /// sinh of the largest pseudorapidity of leptons.
    lepton_edge: f32,
}

impl Detector {
    pub(super) fn new(parameters: &Parameters) -> Self {
        Self { lepton_edge: parameters.lepton_eta.sinh(), parameters: parameters.clone() }
    }

    /// Measures `event`; false where it fails the selection: one isolated lepton, four jets, exactly two tags.
    pub(super) fn measure(&self, event: &HardEvent, rng: &mut Rng, out: &mut Measured) -> bool {
        let p = &self.parameters;
        let factor = 1.0 + p.lepton_resolution * rng.normal();
        let l = event.lepton;
        out.lepton = FourVector { e: factor * l.e, x: factor * l.x, y: factor * l.y, z: factor * l.z };
        out.lepton_pt = out.lepton.pt();
        if out.lepton_pt < p.lepton_threshold || out.lepton.z.abs() > out.lepton_pt * self.lepton_edge {
            return false;
        }
        out.lepton_eta = out.lepton.eta();
        out.lepton_phi = out.lepton.phi();

        let radius = (p.jet_radius + p.jet_radius_spread * rng.normal()).max(SMALLEST_RADIUS);
        cluster(event, radius, &mut out.clusters);
        if out.clusters.iter().filter(|cluster| cluster.p.pt2() > 64.0).count() < 4 {
            return false;
        }
        // Lepton and soft recoil are seen whole; clusters are added as they are measured.
        let (mut x, mut y) = (out.lepton.x + event.soft.0, out.lepton.y + event.soft.1);
        out.jets.clear();
        let mut tags = 0;
        let mut mistaken = Mistaken { luck: event.luck, candidates: 0, chosen: None };
        // Jets that can be tagged for good come first: without their tags the rest need not be measured.
        out.clusters.sort_unstable_by_key(|cluster| !cluster.heavy());
        let heavy = out.clusters.partition_point(Cluster::heavy);
        let needed = u32::from(event.luck >= p.tag_light * MISTAG_CANDIDATES) + 1;
        for index in 0..out.clusters.len() {
            if index == heavy && tags < needed {
                return false;
            }
            let Some(mut jet) = self.jet(&out.clusters[index], rng) else { continue };
            x += jet.p.x;
            y += jet.p.y;
            if jet.pt < p.jet_threshold || jet.eta.abs() > p.jet_eta {
                continue;
            }
            let distance2 = delta_r2(jet.eta, jet.phi, out.lepton_eta, out.lepton_phi);
            if distance2 < p.isolation_end * p.isolation_end
                && distance2.sqrt() < p.isolation + (p.isolation_end - p.isolation) * rng.uniform()
            {
                return false;
            }
            let efficiency = p.tagging(jet.pt, jet.eta.abs());
            let cluster = &out.clusters[index];
            if cluster.bottom_luck < p.tag_b * efficiency || cluster.charm_luck < p.tag_charm * efficiency {
                jet.tag = self.level(rng);
                tags += 1;
            } else if efficiency > 0.0 {
                mistaken.consider(out.jets.len(), efficiency, rng);
            }
            out.jets.push(jet);
        }
        if let Some(index) = mistaken.tagged(p.tag_light) {
            out.jets[index].tag = self.level(rng);
            tags += 1;
        }
        if tags != 2 || out.jets.len() < 4 {
            return false;
        }
        for jet in &mut out.jets {
            jet.key = jet.pt.ln() + p.order_spread * rng.normal() - if jet.tag > 0 { p.order_tagged } else { 0.0 };
        }
        out.jets.sort_unstable_by(|a, b| b.key.total_cmp(&a.key));
        out.missing = (p.soft_term * rng.normal() - x, p.soft_term * rng.normal() - y);
        true
    }

    /// The jet that a cluster is measured as: neutrino lost, energy scaled and smeared, direction smeared.
    fn jet(&self, cluster: &Cluster, rng: &mut Rng) -> Option<Jet> {
        let p = &self.parameters;
        let mut scale = p.light_scale;
        if cluster.bottom {
            scale = p.b_scale;
            if rng.chance(p.b_neutrino) {
                scale *= 1.0 - (p.b_neutrino_share * rng.exponential()).min(0.7);
            }
        }
        let pt = scale * cluster.p.pt();
        let energy = scale * cluster.p.e;
        // sigma(E)/E = sqrt(S^2/E + N^2/pT^2 + C^2)
        let relative2 = p.stochastic * p.stochastic / energy + (p.noise / pt).powi(2) + p.constant * p.constant;
        let pt = pt * (1.0 + relative2.sqrt() * rng.normal());
        if pt <= 1.0 {
            return None;
        }
        let eta = cluster.eta + p.jet_angle * rng.normal();
        // The direction across the beam turns by a small angle, written as its tangent.
        let turn = p.jet_angle * rng.normal();
        let phi = wrapped(cluster.phi + turn);
        let (x, y) = (cluster.p.x - turn * cluster.p.y, cluster.p.y + turn * cluster.p.x);
        let stretch = pt / (x * x + y * y).sqrt();
        let p = FourVector::massless(stretch * x, stretch * y, eta);
        Some(Jet { p, pt, eta, phi, tag: 0, key: 0.0 })
    }

    /// The level of a tag.
    fn level(&self, rng: &mut Rng) -> u8 {
        if rng.chance(self.parameters.tag_tight) { 2 } else { 1 }
    }
}

/// The jet that may be tagged by mistake: one of the candidates, each as likely as the others.
struct Mistaken {
    luck: f32,
    candidates: u32,
    /// Its place among the jets and its relative efficiency.
    chosen: Option<(usize, f32)>,
}

impl Mistaken {
    /// Adds a candidate (reservoir sampling).
    fn consider(&mut self, index: usize, efficiency: f32, rng: &mut Rng) {
        self.candidates += 1;
        if rng.uniform() * (self.candidates as f32) < 1.0 {
            self.chosen = Some((index, efficiency));
        }
    }

    /// The jet that is tagged, if `rate` a candidate is reached.
    fn tagged(&self, rate: f32) -> Option<usize> {
        let (index, efficiency) = self.chosen?;
        let candidates = (self.candidates as f32).min(MISTAG_CANDIDATES);
        (self.luck < rate * candidates * efficiency).then_some(index)
    }
}

/// Merges partons nearer than `radius`, the nearest pair first.
fn cluster(event: &HardEvent, radius: f32, clusters: &mut Vec<Cluster>) {
    clusters.clear();
    let seen = event.partons.iter().filter(|parton| parton.p.z * parton.p.z < CALORIMETER_EDGE_SINH2 * parton.p.pt2());
    clusters.extend(seen.map(|parton| Cluster {
        p: parton.p,
        eta: parton.p.eta(),
        phi: parton.p.phi(),
        bottom: parton.flavour == Flavour::Bottom,
        bottom_luck: if parton.flavour == Flavour::Bottom { parton.luck } else { 1.0 },
        charm_luck: if parton.flavour == Flavour::Charm { parton.luck } else { 1.0 },
    }));
    loop {
        let mut nearest = (radius * radius, 0, 0);
        for i in 1..clusters.len() {
            for j in 0..i {
                let distance = delta_r2(clusters[i].eta, clusters[i].phi, clusters[j].eta, clusters[j].phi);
                if distance < nearest.0 {
                    nearest = (distance, i, j);
                }
            }
        }
        let (_, i, j) = nearest;
        if i == j {
            return;
        }
        let gone = clusters.swap_remove(i);
        let kept = &mut clusters[j];
        kept.p += gone.p;
        kept.eta = kept.p.eta();
        kept.phi = kept.p.phi();
        kept.bottom |= gone.bottom;
        kept.bottom_luck = kept.bottom_luck.min(gone.bottom_luck);
        kept.charm_luck = kept.charm_luck.min(gone.charm_luck);
    }
}
