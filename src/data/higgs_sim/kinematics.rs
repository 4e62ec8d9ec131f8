//! Four-vectors in GeV with natural units (c = 1), boosts and two-body decays.
//!
//! The beam is the z axis. Single precision: the energies of one event span three orders of magnitude, and the
//! rounding (1e-7 relative) is far below any detector resolution.

use super::rng::Rng;
use std::f32::consts::{FRAC_PI_2, PI, TAU};
use std::ops::{Add, AddAssign, Neg, Sub};

/// Energy and momentum.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct FourVector {
    pub(super) e: f32,
    pub(super) x: f32,
    pub(super) y: f32,
    pub(super) z: f32,
}

impl Add for FourVector {
    type Output = Self;
    #[inline]
    fn add(self, o: Self) -> Self {
        Self { e: self.e + o.e, x: self.x + o.x, y: self.y + o.y, z: self.z + o.z }
    }
}

impl AddAssign for FourVector {
    #[inline]
    fn add_assign(&mut self, o: Self) {
        *self = *self + o;
    }
}

impl Neg for FourVector {
    type Output = Self;
    #[inline]
    fn neg(self) -> Self {
        Self { e: -self.e, x: -self.x, y: -self.y, z: -self.z }
    }
}

impl Sub for FourVector {
    type Output = Self;
    #[inline]
    fn sub(self, o: Self) -> Self {
        self + -o
    }
}

impl FourVector {
    /// A massless particle from transverse momentum components and pseudorapidity.
    #[inline]
    pub(super) fn massless(x: f32, y: f32, eta: f32) -> Self {
        let half_pt = 0.5 * (x * x + y * y).sqrt();
        let grown = eta.exp();
        let shrunk = 1.0 / grown;
        Self { e: half_pt * (grown + shrunk), x, y, z: half_pt * (grown - shrunk) }
    }

    /// A particle of this mass from transverse momentum components and rapidity.
    pub(super) fn from_rapidity(mass: f32, x: f32, y: f32, rapidity: f32) -> Self {
        let half = 0.5 * (mass * mass + x * x + y * y).sqrt();
        let grown = rapidity.exp();
        let shrunk = 1.0 / grown;
        Self { e: half * (grown + shrunk), x, y, z: half * (grown - shrunk) }
    }

    /// Squared transverse momentum.
    #[inline]
    pub(super) fn pt2(&self) -> f32 {
        self.x * self.x + self.y * self.y
    }

    /// Transverse momentum.
    #[inline]
    pub(super) fn pt(&self) -> f32 {
        self.pt2().sqrt()
    }

    /// Pseudorapidity.
    #[inline]
    pub(super) fn eta(&self) -> f32 {
        let pt2 = self.pt2().max(1e-12);
        // asinh(|z| / pT)
        let size = ((self.z.abs() + (pt2 + self.z * self.z).sqrt()) / pt2.sqrt()).ln();
        size.copysign(self.z)
    }

    /// Azimuth in [-pi, pi].
    #[inline]
    pub(super) fn phi(&self) -> f32 {
        azimuth(self.x, self.y)
    }

    /// Invariant mass (0 where rounding makes its square negative).
    #[inline]
    pub(super) fn mass(&self) -> f32 {
        // (e - |p|)(e + |p|) loses less to rounding than e^2 - |p|^2.
        let p = (self.pt2() + self.z * self.z).sqrt();
        ((self.e - p) * (self.e + p)).max(0.0).sqrt()
    }

    /// The direction of the momentum; the z axis for a particle at rest.
    #[inline]
    pub(super) fn direction(&self) -> [f32; 3] {
        let p = (self.pt2() + self.z * self.z).sqrt();
        if p > 0.0 { [self.x / p, self.y / p, self.z / p] } else { [0.0, 0.0, 1.0] }
    }

    /// This vector, given in the rest frame of `frame` (of mass `mass`), as seen where `frame` was measured.
    #[inline]
    pub(super) fn boosted_from_rest_of(&self, frame: &Self, mass: f32) -> Self {
        let dot = self.x * frame.x + self.y * frame.y + self.z * frame.z;
        let e = (frame.e * self.e + dot) / mass;
        let k = (self.e + e) / (frame.e + mass);
        Self { e, x: self.x + k * frame.x, y: self.y + k * frame.y, z: self.z + k * frame.z }
    }

    /// This vector as seen in the rest frame of `frame` (of mass `mass`).
    #[inline]
    pub(super) fn boosted_to_rest_of(&self, frame: &Self, mass: f32) -> Self {
        self.boosted_from_rest_of(&Self { e: frame.e, x: -frame.x, y: -frame.y, z: -frame.z }, mass)
    }
}

/// Squared distance in pseudorapidity and azimuth.
#[inline]
pub(super) fn delta_r2(eta1: f32, phi1: f32, eta2: f32, phi2: f32) -> f32 {
    let mut dphi = (phi1 - phi2).abs();
    if dphi > PI {
        dphi = TAU - dphi;
    }
    let deta = eta1 - eta2;
    deta * deta + dphi * dphi
}

/// A unit vector at angle `acos(cos)` from `axis`, at a uniform azimuth around it.
#[inline]
pub(super) fn direction_around(rng: &mut Rng, axis: [f32; 3], cos: f32) -> [f32; 3] {
    let sin = (1.0 - cos * cos).max(0.0).sqrt();
    let (c, s) = rng.azimuth();
    // An orthonormal pair across the axis (Duff et al., JCGT 6(1), 2017).
    let sign = 1.0_f32.copysign(axis[2]);
    let a = -1.0 / (sign + axis[2]);
    let b = axis[0] * axis[1] * a;
    let u = [1.0 + sign * axis[0] * axis[0] * a, sign * b, -sign * axis[0]];
    let v = [b, sign + axis[1] * axis[1] * a, -axis[1]];
    std::array::from_fn(|i| cos * axis[i] + sin * (c * u[i] + s * v[i]))
}

/// Decays `parent` (of mass `mass`) into masses `m1` and `m2`, the first along `direction` in the rest frame.
/// The second is the parent minus the first, so that energy and momentum are conserved by construction.
#[inline]
pub(super) fn decay(parent: &FourVector, mass: f32, m1: f32, m2: f32, direction: [f32; 3]) -> (FourVector, FourVector) {
    debug_assert!(m1 + m2 <= mass, "{mass} cannot decay into {m1} + {m2}");
    let sum = (mass - m1 - m2) * (mass + m1 + m2);
    let difference = (mass - m1 + m2) * (mass + m1 - m2);
    let p = (sum * difference).max(0.0).sqrt() / (2.0 * mass);
    let e = (mass * mass + m1 * m1 - m2 * m2) / (2.0 * mass);
    let rest = FourVector { e, x: p * direction[0], y: p * direction[1], z: p * direction[2] };
    let first = rest.boosted_from_rest_of(parent, mass);
    (first, *parent - first)
}

/// A uniform direction.
#[inline]
pub(super) fn isotropic(rng: &mut Rng) -> [f32; 3] {
    let cos = rng.symmetric();
    let sin = (1.0 - cos * cos).sqrt();
    let (c, s) = rng.azimuth();
    [sin * c, sin * s, cos]
}

/// The direction in which `daughter` (of mass `mass`) moves in the frame of its mother, as seen in the daughter's
/// own rest frame: the axis to which helicity angles refer.
#[inline]
pub(super) fn helicity_axis(mother: &FourVector, daughter: &FourVector, mass: f32) -> [f32; 3] {
    let seen = mother.boosted_to_rest_of(daughter, mass);
    let [x, y, z] = seen.direction();
    [-x, -y, -z]
}

/// The arc tangent of `y / x` in the quadrant of `(x, y)`, in [-pi, pi], to 2e-7 radians.
///
/// The polynomial interpolates atan(t)/t in t^2 at Chebyshev's points of [0, 1]; it is several times faster than the
/// system's function and the same on every machine.
#[inline]
pub(super) fn azimuth(x: f32, y: f32) -> f32 {
    const C: [f32; 8] = [
        0.999_999_9,
        -0.333_319_6,
        0.199_692_35,
        -0.140_165_85,
        0.099_060_97,
        -0.059_367_1,
        0.024_166_19,
        -0.004_668_773,
    ];
    let (ax, ay) = (x.abs(), y.abs());
    let t = ax.min(ay) / ax.max(ay).max(f32::MIN_POSITIVE);
    let s = t * t;
    let mut angle = t * C.iter().rev().fold(0.0, |sum, c| sum * s + c);
    if ay > ax {
        angle = FRAC_PI_2 - angle;
    }
    if x < 0.0 {
        angle = PI - angle;
    }
    angle.copysign(y)
}

/// An angle within one turn of it brought into [-pi, pi].
#[inline]
pub(super) fn wrapped(phi: f32) -> f32 {
    if phi > PI {
        phi - TAU
    } else if phi < -PI {
        phi + TAU
    } else {
        phi
    }
}
