//! Random numbers for the simulator: xoshiro256++ (Blackman and Vigna, ACM TOMS 47(4), 2021), seeded through splitmix64.
//!
//! The generator is written out here so that the stream of events belongs to this file alone: an upgrade of a
//! dependency cannot change a simulated dataset. It is fast and far from cryptographic.

/// 2^-24: the spacing of the uniform numbers.
const ULP: f32 = 1.0 / 16_777_216.0;

/// One step of splitmix64 (Steele, Lea and Flood 2014): advances `state` and returns a well-mixed word.
fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A stream of random numbers in single precision.
#[derive(Debug, Clone)]
pub(super) struct Rng {
    state: [u64; 4],
    /// The second number of a pair of normals, kept for the next call.
    spare_normal: Option<f32>,
}

impl Rng {
    /// The stream that belongs to `(seed, stream)`; different pairs give unrelated streams.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        // The seed is mixed before the stream number enters, so that (s, k + 1) and (s + 1, k) do not meet.
        let mut mixed = seed;
        let mut state = splitmix64(&mut mixed) ^ stream.wrapping_mul(0xD134_2543_DE82_EF95);
        Self { state: std::array::from_fn(|_| splitmix64(&mut state)), spare_normal: None }
    }

    fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Uniform in the open interval (0, 1).
    #[inline]
    pub(super) fn uniform(&mut self) -> f32 {
        ((self.next_u64() >> 41) as f32 + 0.5) * (2.0 * ULP)
    }

    /// Uniform in (-1, 1).
    #[inline]
    pub(super) fn symmetric(&mut self) -> f32 {
        2.0 * self.uniform() - 1.0
    }

    /// Whether an event of this probability happens.
    #[inline]
    pub(super) fn chance(&mut self, probability: f32) -> bool {
        self.uniform() < probability
    }

    /// A uniform point in the unit disc, the origin excepted, and its squared distance from the origin.
    #[inline]
    fn in_disc(&mut self) -> (f32, f32, f32) {
        loop {
            let (u, v) = (self.symmetric(), self.symmetric());
            let square = u * u + v * v;
            if square < 1.0 && square > 0.0 {
                return (u, v, square);
            }
        }
    }

    /// Cosine and sine of a uniform angle.
    #[inline]
    pub(super) fn azimuth(&mut self) -> (f32, f32) {
        let (u, v, square) = self.in_disc();
        let scale = 1.0 / square.sqrt();
        (u * scale, v * scale)
    }

    /// Standard normal (Marsaglia's polar method).
    #[inline]
    pub(super) fn normal(&mut self) -> f32 {
        if let Some(value) = self.spare_normal.take() {
            return value;
        }
        let (u, v, square) = self.in_disc();
        let scale = (-2.0 * square.ln() / square).sqrt();
        self.spare_normal = Some(v * scale);
        u * scale
    }

    /// Exponential with mean 1.
    #[inline]
    pub(super) fn exponential(&mut self) -> f32 {
        -self.uniform().ln()
    }

    /// Poisson with a small mean, by multiplying uniforms (Knuth); `exp_minus_mean` is `exp(-mean)`.
    #[inline]
    pub(super) fn poisson(&mut self, exp_minus_mean: f32) -> usize {
        let mut product = self.uniform();
        let mut count = 0;
        while product > exp_minus_mean && count < 16 {
            product *= self.uniform();
            count += 1;
        }
        count
    }

    /// Gamma with this shape (at least 1) and scale 1 (Marsaglia and Tsang 2000).
    pub(super) fn gamma(&mut self, shape: f32) -> f32 {
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && self.uniform().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }
}
