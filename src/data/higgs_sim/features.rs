//! The 28 columns: what is listed of a measured event, the seven masses, and the published units.
//!
//! The rules were recovered from real events, where each reproduces the listed mass to a few parts in a thousand;
//! docs/higgs-sim.md has the shares. All jets are massless in the masses.

use super::Parameters;
use super::detector::{Jet, Measured};
use super::kinematics::{FourVector, azimuth};
use super::rng::Rng;
use std::f32::consts::PI;

/// Column names in the order of the UCI file, spelled as in `datasets/higgs.toml`; readers use them as well.
pub const FEATURE_NAMES: [&str; 28] = [
    "lepton_pT",
    "lepton_eta",
    "lepton_phi",
    "missing_energy_magnitude",
    "missing_energy_phi",
    "jet1_pT",
    "jet1_eta",
    "jet1_phi",
    "jet1_b_tag",
    "jet2_pT",
    "jet2_eta",
    "jet2_phi",
    "jet2_b_tag",
    "jet3_pT",
    "jet3_eta",
    "jet3_phi",
    "jet3_b_tag",
    "jet4_pT",
    "jet4_eta",
    "jet4_phi",
    "jet4_b_tag",
    "m_jj",
    "m_jjj",
    "m_lv",
    "m_jlv",
    "m_bb",
    "m_wbb",
    "m_wwbb",
];

/// The published azimuth of a particle at phi = pi.
const PHI_UNIT: f32 = PI / 1.7435;
/// GeV in one published unit of the lepton's and the missing transverse momentum.
pub(super) const LEPTON_UNIT: f32 = 54.6;
pub(super) const MISSING_UNIT: f32 = 58.06;
/// One published unit of the lepton's pseudorapidity.
pub(super) const LEPTON_ETA_UNIT: f32 = 1.025;
/// GeV in one published unit of each listed jet's transverse momentum.
pub(super) const JET_UNITS: [f32; 4] = [108.8, 79.16, 56.75, 40.95];
/// One published unit of each listed jet's pseudorapidity.
pub(super) const JET_ETA_UNITS: [f32; 4] = [1.010, 1.029, 1.099, 1.201];
/// The published value of a loose tag (level 1); a tight one is twice that.
pub(super) const TAG_UNITS: [f32; 4] = [1.086_538_1, 1.107_436_1, 1.274_112_2, 1.550_980_7];
/// GeV in one published unit of m_jj, m_jjj, m_lv, m_jlv, m_bb, m_wbb, m_wwbb.
pub(super) const MASS_UNITS: [f32; 7] = [87.455, 179.07, 81.28, 194.8, 126.15, 335.05, 509.8];

/// Mass of the W boson that the rules aim at; in the scale of these units the real events peak here.
const W_MASS: f32 = 80.27;

/// sinh(3) squared: the pseudorapidity at which the larger root for the neutrino is given up.
const NEUTRINO_EDGE_SINH2: f32 = 100.36;

/// Squared mass of a pair of massless jets.
fn pair_mass2(a: &Jet, b: &Jet) -> f32 {
    2.0 * (a.p.e * b.p.e - a.p.x * b.p.x - a.p.y * b.p.y - a.p.z * b.p.z).max(0.0)
}

/// The leptonic W: the lepton and the neutrino that follows from the missing transverse momentum and the W mass.
///
/// Of the two roots for the longitudinal momentum one is taken at random, but never one beyond pseudorapidity 3 where
/// the other is nearer: so do the real events (the share of smaller roots is 0.5 up to 3 and 1.0 beyond). Where there
/// is no root the neutrino takes the lepton's pseudorapidity, so that m_lv is the transverse mass. In the sum the
/// lepton lies anywhere in its calorimeter cell, which gives m_lv the width that it has in the real events.
fn leptonic_w(event: &Measured, cell: f32, rng: &mut Rng) -> FourVector {
    let (x, y) = event.missing;
    let l = &event.lepton;
    let missing2 = x * x + y * y;
    let pt2 = event.lepton_pt * event.lepton_pt;
    let in_cell = FourVector::massless(l.x, l.y, event.lepton_eta + 0.5 * cell * rng.symmetric());
    let a = 0.5 * W_MASS * W_MASS + l.x * x + l.y * y;
    let discriminant = a * a - pt2 * missing2;
    let pz = if discriminant > 0.0 {
        let centre = a * l.z / pt2;
        let half = discriminant.sqrt() * l.e / pt2;
        let larger = centre + half.copysign(centre);
        let smaller = centre - half.copysign(centre);
        if rng.chance(0.5) || larger * larger > NEUTRINO_EDGE_SINH2 * missing2 { smaller } else { larger }
    } else {
        missing2.sqrt() * in_cell.z / event.lepton_pt
    };
    in_cell + FourVector { e: (missing2 + pz * pz).sqrt(), x, y, z: pz }
}

/// The seven masses in GeV: m_jj, m_jjj, m_lv, m_jlv, m_bb, m_wbb, m_wwbb.
fn masses(event: &Measured, parameters: &Parameters, rng: &mut Rng) -> [f32; 7] {
    let jets = &event.jets;
    // The hadronic W: the untagged pair nearest its mass, among all jets and not only the listed four.
    let (mut nearest, mut pair) = (f32::INFINITY, FourVector::default());
    for (i, a) in jets.iter().enumerate().filter(|(_, jet)| jet.tag == 0) {
        for b in jets[i + 1..].iter().filter(|jet| jet.tag == 0) {
            let off = (pair_mass2(a, b).sqrt() - W_MASS).abs();
            if off < nearest {
                (nearest, pair) = (off, a.p + b.p);
            }
        }
    }
    let mut tagged = jets.iter().filter(|jet| jet.tag > 0).map(|jet| jet.p);
    let (b1, b2) = (tagged.next().unwrap_or_default(), tagged.next().unwrap_or_default());
    let leptonic = leptonic_w(event, parameters.lepton_cell, rng);
    let (jjj1, jjj2) = ((pair + b1).mass(), (pair + b2).mass());
    let (m_jjj, other) = if (jjj1 - parameters.pairing_mass).abs() < (jjj2 - parameters.pairing_mass).abs() {
        (jjj1, b2)
    } else {
        (jjj2, b1)
    };
    let bb = b1 + b2;
    [
        pair.mass(),
        m_jjj,
        leptonic.mass(),
        (other + leptonic).mass(),
        bb.mass(),
        (bb + pair).mass().max((bb + leptonic).mass()),
        (bb + pair + leptonic).mass(),
    ]
}

/// Writes the 28 columns of a measured event in published units through `put(column, value)`.
pub(super) fn write(event: &Measured, parameters: &Parameters, rng: &mut Rng, mut put: impl FnMut(usize, f32)) {
    put(0, event.lepton_pt / LEPTON_UNIT);
    put(1, event.lepton_eta / LEPTON_ETA_UNIT);
    put(2, event.lepton_phi / PHI_UNIT);
    let (x, y) = event.missing;
    put(3, (x * x + y * y).sqrt() / MISSING_UNIT);
    put(4, azimuth(x, y) / PHI_UNIT);
    for (slot, jet) in event.jets[..4].iter().enumerate() {
        let column = 5 + 4 * slot;
        put(column, jet.pt / JET_UNITS[slot]);
        put(column + 1, jet.eta / JET_ETA_UNITS[slot]);
        put(column + 2, jet.phi / PHI_UNIT);
        put(column + 3, f32::from(jet.tag) * TAG_UNITS[slot]);
    }
    for (k, mass) in masses(event, parameters, rng).into_iter().enumerate() {
        put(21 + k, mass / MASS_UNITS[k]);
    }
}
