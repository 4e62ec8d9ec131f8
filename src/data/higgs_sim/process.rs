//! The hard process: two resonance chains, their decays, and radiation.
//!
//! Signal: g g -> H0 -> W H+-, H+- -> W h0, h0 -> b b. Background: g g -> t t, t -> W b. One W decays to a lepton and
//! a neutrino, the other to two quarks. Partons radiated from the initial state balance the transverse momentum of
//! the hard system; partons that radiate in the final state are given their virtual mass *before* their mother
//! decays, and then decay themselves, so every vertex conserves energy and momentum.

use super::Parameters;
use super::kinematics::{FourVector, decay, direction_around, helicity_axis, isotropic};
use super::rng::Rng;

/// How often a parton may split in turn.
const MOST_SPLITTINGS: u32 = 3;

/// At most this many jets share the probability of a mistaken tag; an event has at most one.
pub(super) const MISTAG_CANDIDATES: f32 = 4.0;

/// What a parton is to the b-tagger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavour {
    /// A bottom quark.
    Bottom,
    /// A charm quark.
    Charm,
    /// Any other quark or a gluon.
    Light,
}

/// A parton that leaves the shower.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parton {
    pub(super) p: FourVector,
    pub(super) flavour: Flavour,
    /// The uniform number that decides whether its jet is tagged.
    pub(super) luck: f32,
}

impl Parton {
    /// A light quark or a gluon.
    fn light(p: FourVector) -> Self {
        Self { p, flavour: Flavour::Light, luck: 1.0 }
    }
}

/// A parton that has been given its virtual mass and may radiate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Virtual {
    pub(super) parton: Parton,
    pub(super) mass: f32,
}

/// An event before the detector. The vectors are reused from event to event.
#[derive(Debug, Default)]
pub(super) struct HardEvent {
    /// All partons after radiation.
    pub(super) partons: Vec<Parton>,
    /// The charged lepton.
    pub(super) lepton: FourVector,
    /// All neutrinos of the leptonic W together.
    pub(super) neutrino: FourVector,
    /// What recoils softly against the rest and forms no jet: transverse components.
    pub(super) soft: (f32, f32),
    /// The uniform number that decides whether one of the other jets is tagged by mistake.
    pub(super) luck: f32,
}

/// One draw of a relativistic Breit-Wigner mass within about ten widths.
pub(super) fn resonance(rng: &mut Rng, mass: f32, width: f32) -> f32 {
    // P(m^2) ~ 1 / ((m^2 - M^2)^2 + M^2 G^2) is Cauchy's distribution, the ratio of a random direction's components.
    loop {
        let (cos, sin) = rng.azimuth();
        if sin.abs() < 20.0 * cos.abs() {
            return (mass * mass + mass * width * sin / cos).sqrt();
        }
    }
}

/// A W boson's decay angle when it is longitudinal: 1 - cos^2.
pub(super) fn longitudinal(rng: &mut Rng) -> f32 {
    loop {
        let cos = rng.symmetric();
        if rng.uniform() < 1.0 - cos * cos {
            return cos;
        }
    }
}

/// A left-handed W boson's: (1 - cos)^2 / 4 for the charged lepton or the down-type quark.
pub(super) fn left_handed(rng: &mut Rng) -> f32 {
    1.0 - 2.0 * rng.uniform().cbrt()
}

/// The masses and momenta of two W bosons and two bottom quarks with their virtual masses.
pub(super) struct Skeleton {
    /// The two W bosons: momentum, mass, and the axis and cosine of their decay.
    pub(super) w: [(FourVector, f32, [f32; 3], f32); 2],
    /// The two bottom quarks: momentum and virtual mass.
    pub(super) b: [(FourVector, f32); 2],
}

/// Draws hard events of either class.
#[derive(Debug)]
pub(super) struct Generator {
    parameters: Parameters,
    /// exp(-mean number) of initial-state jets: background, signal.
    no_isr: [f32; 2],
}

impl Generator {
    pub(super) fn new(parameters: &Parameters) -> Self {
        let p = parameters.clone();
        Self { no_isr: [(-p.background_isr).exp(), (-p.signal_isr).exp()], parameters: p }
    }

    /// Draws one event; false where it cannot pass the selection, in which case the event is incomplete.
    ///
    /// What decides the tags is drawn first, since most events fail there: two tags need two of the bottom jets, the
    /// charm jet and one mistaken jet in luck. The other early cuts are on the lepton and on the bottom quarks.
    pub(super) fn draw(&self, signal: bool, rng: &mut Rng, event: &mut HardEvent) -> bool {
        let p = &self.parameters;
        let b_luck = [rng.uniform(), rng.uniform()];
        let charm_luck = if rng.chance(0.5) { rng.uniform() } else { 1.0 };
        event.luck = rng.uniform();
        let others = u32::from(charm_luck < p.tag_charm) + u32::from(event.luck < p.tag_light * MISTAG_CANDIDATES);
        if others + b_luck.iter().map(|&luck| u32::from(luck < p.tag_b)).sum::<u32>() < 2 {
            return false;
        }
        event.partons.clear();
        let rapidity_spread = if signal { p.signal_rapidity } else { p.background_rapidity };
        let mut rapidity = rapidity_spread * rng.normal();
        while rapidity.abs() > 2.7 {
            rapidity = rapidity_spread * rng.normal();
        }
        let (x, y) = self.initial_state(signal, rapidity, rng, event);
        let skeleton = if signal { self.signal(x, y, rapidity, rng) } else { self.background(x, y, rapidity, rng) };
        let leptonic = usize::from(rng.chance(0.5));
        if !self.leptonic_w(&skeleton.w[leptonic], rng, event) {
            return false;
        }
        let radiated = event.partons.len();
        for ((p, mass), luck) in skeleton.b.into_iter().zip(b_luck) {
            self.shower(Virtual { parton: Parton { p, flavour: Flavour::Bottom, luck }, mass }, 0, rng, event);
        }
        // A jet may come out harder and more central than its quark, but hardly beyond this slack.
        let taggable = event.partons[radiated..].iter().filter(|parton| {
            parton.luck < p.tag_b && parton.luck < p.tag_b * p.tagging(1.5 * parton.p.pt(), parton.p.eta().abs() - 0.3)
        });
        if others + taggable.count() as u32 >= 2 {
            self.hadronic_w(&skeleton.w[1 - leptonic], charm_luck, rng, event);
            return true;
        }
        false
    }

    /// Radiates from the initial state and returns the transverse momentum that is left to the hard system.
    fn initial_state(&self, signal: bool, rapidity: f32, rng: &mut Rng, event: &mut HardEvent) -> (f32, f32) {
        let p = &self.parameters;
        let slope = if signal { p.signal_isr_slope } else { p.background_isr_slope };
        // The spectrum d n / d pT ~ pT^-(1 + slope) ends at 250 GeV.
        let end = (p.isr_minimum / 250.0).powf(slope);
        let (mut x, mut y) = (0.0, 0.0);
        for _ in 0..rng.poisson(self.no_isr[usize::from(signal)]) {
            let pt = p.isr_minimum * (1.0 - rng.uniform() * (1.0 - end)).powf(-1.0 / slope);
            let (cos, sin) = rng.azimuth();
            let parton = FourVector::massless(pt * cos, pt * sin, rapidity + p.isr_rapidity * rng.normal());
            x -= parton.x;
            y -= parton.y;
            event.partons.push(Parton::light(parton));
        }
        let (cos, sin) = rng.azimuth();
        let kick = 0.5 * p.soft_recoil * (rng.exponential() + rng.exponential());
        event.soft = (kick * cos, kick * sin);
        (x - event.soft.0, y - event.soft.1)
    }

    /// H0 -> W H+-, H+- -> W h0, h0 -> b b.
    pub(super) fn signal(&self, x: f32, y: f32, rapidity: f32, rng: &mut Rng) -> Skeleton {
        let p = &self.parameters;
        let (heavy_mass, charged_mass, w1, w2) = loop {
            let heavy = resonance(rng, p.heavy_mass, p.heavy_width);
            let charged = resonance(rng, p.charged_mass, p.charged_width);
            let (w1, w2) = (resonance(rng, p.w_mass, p.w_width), resonance(rng, p.w_mass, p.w_width));
            if charged + w1 < heavy && p.light_mass + w2 < charged {
                break (heavy, charged, w1, w2);
            }
        };
        let heavy = FourVector::from_rapidity(heavy_mass, x, y, rapidity);
        let (first, charged) = decay(&heavy, heavy_mass, w1, charged_mass, isotropic(rng));
        let (second, light) = decay(&charged, charged_mass, w2, p.light_mass, isotropic(rng));
        let (m1, m2) = self.virtual_masses(p.light_mass, [Flavour::Bottom; 2], rng);
        let (b1, b2) = decay(&light, p.light_mass, m1, m2, isotropic(rng));
        // A scalar decays to a scalar and a W that is longitudinal along its flight.
        let axis1 = helicity_axis(&heavy, &first, w1);
        let axis2 = helicity_axis(&charged, &second, w2);
        Skeleton {
            w: [(first, w1, axis1, longitudinal(rng)), (second, w2, axis2, longitudinal(rng))],
            b: [(b1, m1), (b2, m2)],
        }
    }

    /// g g -> t t, t -> W b.
    pub(super) fn background(&self, x: f32, y: f32, rapidity: f32, rng: &mut Rng) -> Skeleton {
        let p = &self.parameters;
        let tops = [0; 2].map(|_| resonance(rng, p.top_mass, p.top_width));
        let pair_mass = tops[0] + tops[1] + 3.0 + p.pair_scale * rng.gamma(p.pair_shape);
        let pair = FourVector::from_rapidity(pair_mass, x, y, rapidity);
        let cos = rng.uniform().powf(p.pair_angle).copysign(rng.symmetric());
        let (t1, t2) = decay(&pair, pair_mass, tops[0], tops[1], direction_around(rng, [0.0, 0.0, 1.0], cos));
        let mut side = |top: FourVector, mass: f32| {
            let w_mass = resonance(rng, p.w_mass, p.w_width);
            let b_mass = self.virtual_mass(mass - w_mass, Flavour::Bottom, rng);
            let (w, b) = decay(&top, mass, w_mass, b_mass, isotropic(rng));
            let axis = helicity_axis(&top, &w, w_mass);
            let cos = if rng.chance(p.top_longitudinal) { longitudinal(rng) } else { left_handed(rng) };
            ((w, w_mass, axis, cos), (b, b_mass))
        };
        let (w1, b1) = side(t1, tops[0]);
        let (w2, b2) = side(t2, tops[1]);
        Skeleton { w: [w1, w2], b: [b1, b2] }
    }

    /// W -> lepton neutrino; false where the lepton is too soft or too far forward.
    fn leptonic_w(&self, w: &(FourVector, f32, [f32; 3], f32), rng: &mut Rng, event: &mut HardEvent) -> bool {
        let p = &self.parameters;
        let (lepton, neutrino) = decay(&w.0, w.1, 0.0, 0.0, direction_around(rng, w.2, w.3));
        let share = if rng.chance(p.tau_share) { tau_lepton_share(rng) } else { 1.0 };
        event.lepton =
            FourVector { e: share * lepton.e, x: share * lepton.x, y: share * lepton.y, z: share * lepton.z };
        event.neutrino = neutrino + (lepton - event.lepton);
        // A tenth below the threshold leaves room for the resolution.
        let pt2 = event.lepton.pt2();
        let edge = p.lepton_eta.sinh();
        pt2 > (0.9 * p.lepton_threshold).powi(2) && event.lepton.z * event.lepton.z < pt2 * edge * edge
    }

    /// W -> two quarks, one of them charm in half of the decays: where `charm_luck` is below 1.
    fn hadronic_w(&self, w: &(FourVector, f32, [f32; 3], f32), charm_luck: f32, rng: &mut Rng, event: &mut HardEvent) {
        let up = if charm_luck < 1.0 { Flavour::Charm } else { Flavour::Light };
        let (m1, m2) = self.virtual_masses(w.1, [Flavour::Light, up], rng);
        let (q1, q2) = decay(&w.0, w.1, m1, m2, direction_around(rng, w.2, w.3));
        self.shower(Virtual { parton: Parton::light(q1), mass: m1 }, 0, rng, event);
        let parton = Parton { p: q2, flavour: up, luck: charm_luck };
        self.shower(Virtual { parton, mass: m2 }, 0, rng, event);
    }

    /// The virtual mass of a parton: its own, or that with which it will split, log-uniform up to a share of `room`.
    fn virtual_mass(&self, room: f32, flavour: Flavour, rng: &mut Rng) -> f32 {
        let p = &self.parameters;
        let (own, probability) = match flavour {
            Flavour::Bottom => (p.b_mass, p.b_splitting),
            Flavour::Charm | Flavour::Light => (0.0, p.light_splitting),
        };
        let largest = p.splitting_maximum * room;
        if largest <= p.splitting_minimum || !rng.chance(probability) {
            return own;
        }
        p.splitting_minimum * (largest / p.splitting_minimum).powf(rng.uniform())
    }

    /// Virtual masses of two partons from a mother of this mass.
    fn virtual_masses(&self, mother: f32, flavours: [Flavour; 2], rng: &mut Rng) -> (f32, f32) {
        let m1 = self.virtual_mass(mother, flavours[0], rng);
        let m2 = self.virtual_mass(mother - m1, flavours[1], rng);
        (m1, m2)
    }

    /// Lets a parton radiate, and its daughters in turn.
    pub(super) fn shower(&self, mother: Virtual, depth: u32, rng: &mut Rng, event: &mut HardEvent) {
        let p = &self.parameters;
        let Virtual { parton, mass } = mother;
        if mass < p.splitting_minimum || depth == MOST_SPLITTINGS {
            event.partons.push(parton);
            return;
        }
        let (m1, m2) = if depth + 1 < MOST_SPLITTINGS {
            self.virtual_masses(mass - p.b_mass, [parton.flavour, Flavour::Light], rng)
        } else {
            (if parton.flavour == Flavour::Bottom { p.b_mass } else { 0.0 }, 0.0)
        };
        let cos = 1.0 - 2.0 * rng.uniform().powf(p.splitting_softness);
        let along = direction_around(rng, parton.p.direction(), cos);
        let (same, gluon) = decay(&parton.p, mass, m1, m2, along);
        self.shower(Virtual { parton: Parton { p: same, ..parton }, mass: m1 }, depth + 1, rng, event);
        self.shower(Virtual { parton: Parton::light(gluon), mass: m2 }, depth + 1, rng, event);
    }
}

/// The share of a tau's energy that its lepton carries, unpolarised and collinear: (5 - 9 x^2 + 4 x^3) / 3.
fn tau_lepton_share(rng: &mut Rng) -> f32 {
    loop {
        let x = rng.uniform();
        if rng.uniform() * 5.0 < 5.0 - 9.0 * x * x + 4.0 * x * x * x {
            return x;
        }
    }
}
