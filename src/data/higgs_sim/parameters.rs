//! The simulator's parameters: constants of nature, the model of radiation, the detector, and the published units.
//!
//! Physical constants are the Particle Data Group's or those of Baldi, Sadowski and Whiteson (2014). What is marked
//! *fitted* was adjusted to the even-numbered rows of a sample of real events; docs/higgs-sim.md says how.

/// Declares the struct, its defaults and access by name from one list.
macro_rules! parameters {
    ($($(#[$doc:meta])* $name:ident = $value:expr,)*) => {
        /// Everything that can be adjusted. GeV and radians where a unit applies.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Parameters { $($(#[$doc])* pub $name: f32,)* }

        impl Default for Parameters {
            fn default() -> Self {
                Self { $($name: $value,)* }
            }
        }

        impl Parameters {
            /// Names and values, in the order of declaration.
            #[must_use]
            pub fn entries(&self) -> Vec<(&'static str, f32)> {
                vec![$((stringify!($name), self.$name),)*]
            }

            /// Sets one parameter by name; false where there is none of that name.
            pub fn set(&mut self, name: &str, value: f32) -> bool {
                match name {
                    $(stringify!($name) => self.$name = value,)*
                    _ => return false,
                }
                true
            }
        }
    };
}

parameters! {
    /// Share of signal events among those kept (the published file has 5,829,123 in 11,000,000).
    signal_fraction = 0.529_92,

    /// Mass of the heavy neutral Higgs boson H0.
    heavy_mass = 425.0,
    /// Width of the H0.
    heavy_width = 14.4,
    /// Mass of the charged Higgs boson.
    charged_mass = 325.0,
    /// Width of the charged Higgs boson.
    charged_width = 3.45,
    /// Mass of the light Higgs boson h0; its width is negligible.
    light_mass = 125.0,
    /// Mass of the W boson.
    w_mass = 80.4,
    /// Width of the W boson.
    w_width = 2.085,
    /// Mass of the top quark (fitted).
    top_mass = 173.04,
    /// Width of the top quark.
    top_width = 1.4,
    /// Mass of the bottom quark.
    b_mass = 4.7,
    /// Share of longitudinal W bosons in top decay; the rest are left-handed.
    top_longitudinal = 0.69,

    /// Standard deviation of the rapidity of the H0 (fitted).
    signal_rapidity = 0.878,
    /// Standard deviation of the rapidity of the top pair (fitted).
    background_rapidity = 1.21,
    /// Shape of the Gamma distribution of the top pair's mass above threshold (fitted).
    pair_shape = 1.79,
    /// Scale of that distribution (fitted).
    pair_scale = 77.0,
    /// The top's |cos theta| is a uniform number to this power (fitted).
    pair_angle = 0.534,

    /// Mean number of jets radiated from the initial state, signal (fitted).
    signal_isr = 1.91,
    /// The same for the background (fitted).
    background_isr = 1.65,
    /// Exponent of the falling spectrum of their transverse momenta, signal (fitted).
    signal_isr_slope = 0.543,
    /// The same for the background (fitted).
    background_isr_slope = 0.888,
    /// Where that spectrum starts (fitted).
    isr_minimum = 13.1,
    /// Standard deviation of the rapidity of these jets around that of the hard system (fitted).
    isr_rapidity = 2.55,
    /// Mean transverse recoil of the hard system against what forms no jet (fitted).
    soft_recoil = 12.1,

    /// Probability that a light quark or gluon splits (fitted).
    light_splitting = 0.741,
    /// Probability that a bottom quark splits (fitted).
    b_splitting = 0.666,
    /// Smallest mass of a splitting parton; below, its daughters share a jet.
    splitting_minimum = 6.0,
    /// Largest mass of a splitting parton as a share of what its mother's mass allows (fitted).
    splitting_maximum = 0.332,
    /// How strongly the radiated gluon goes backwards: (1 + cos) / 2 is a uniform number to this power (fitted).
    splitting_softness = 1.48,

    /// Jets closer than this are one (fitted).
    jet_radius = 0.67,
    /// Standard deviation of that distance from event to event: where jet finding splits or merges is soft (fitted).
    jet_radius_spread = 0.146,
    /// Share of the energy of a light jet that is measured (fitted).
    light_scale = 0.989,
    /// The same for bottom jets, neutrinos apart (fitted).
    b_scale = 0.946,
    /// Stochastic term of the jet energy resolution, in sqrt(GeV) (fitted).
    stochastic = 0.614,
    /// Constant term of the jet energy resolution (fitted).
    constant = 0.08,
    /// Noise term of the jet energy resolution, in GeV (fitted).
    noise = 3.75,
    /// Resolution of the jets' direction, in each of pseudorapidity and azimuth.
    jet_angle = 0.03,
    /// Share of bottom jets with a neutrino (fitted).
    b_neutrino = 0.26,
    /// Mean share of energy that this neutrino carries (exponential, at most 0.7) (fitted).
    b_neutrino_share = 0.212,
    /// Relative resolution of the lepton's transverse momentum.
    lepton_resolution = 0.02,
    /// Share of leptons that come through a tau (fitted).
    tau_share = 0.00543,
    /// Soft term of the missing energy, standard deviation per component (fitted).
    soft_term = 8.12,
    /// Width in pseudorapidity of the calorimeter cell within which the lepton lies in the masses (fitted).
    lepton_cell = 0.0329,

    /// Smallest transverse momentum of a jet.
    jet_threshold = 15.0,
    /// Largest pseudorapidity of a jet, as found in the real events.
    jet_eta = 3.0,
    /// Smallest transverse momentum of the lepton.
    lepton_threshold = 15.0,
    /// Largest pseudorapidity of the lepton.
    lepton_eta = 2.5,
    /// Smallest distance between the lepton and a jet.
    isolation = 0.4,
    /// Distance from which a jet never spoils the lepton's isolation; it spoils it surely below `isolation` (fitted).
    isolation_end = 0.753,
    /// Probability to tag a central bottom jet of high momentum (fitted).
    tag_b = 0.578,
    /// Transverse momentum over which tagging becomes efficient: 1 - exp(-pT / this) (fitted).
    tag_rise = 17.4,
    /// Pseudorapidity up to which tagging is fully efficient (fitted).
    tag_eta_full = 1.29,
    /// Pseudorapidity at which tagging ends, falling linearly (fitted).
    tag_eta_end = 1.72,
    /// Probability to tag a charm jet (fitted).
    tag_charm = 0.105,
    /// Probability to tag any other jet (fitted).
    tag_light = 0.0221,
    /// Probability that a tag is tight (level 2) and not loose (level 1); independent of all else in the real events.
    tag_tight = 0.817,
    /// Spread of the logarithm of the key that the jets are listed by, about the measured momentum (fitted).
    order_spread = 0.369,
    /// Shift of that key for tagged jets (fitted).
    order_tagged = 0.122,

    /// Top mass to which the bottom jet of the hadronic side brings m_jjj nearest.
    pairing_mass = 174.0,
}

impl Parameters {
    /// How efficient tagging is at this transverse momentum and absolute pseudorapidity, relative to a central jet of
    /// high momentum.
    pub(super) fn tagging(&self, pt: f32, eta: f32) -> f32 {
        if eta >= self.tag_eta_end {
            return 0.0;
        }
        let central = ((self.tag_eta_end - eta) / (self.tag_eta_end - self.tag_eta_full)).min(1.0);
        central * (1.0 - (-pt / self.tag_rise).exp())
    }
}
