//! How small parameters become without loss: a measure of what they hold beside their number.

use crate::oracle::Vector;
use flate2::Compression;
use flate2::write::DeflateEncoder;
use std::io::Write;

/// Bytes of the values, little-endian in the precision in which they are held, after DEFLATE (RFC 1951) at its highest level.
#[must_use]
pub fn compressed_bytes(values: &Vector) -> u64 {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    let is_single = values.bytes() < (values.len() * size_of::<f64>()) as u64;
    let written = values.to_host().iter().try_for_each(|value| match is_single {
        true => encoder.write_all(&(*value as f32).to_le_bytes()),
        false => encoder.write_all(&value.to_le_bytes()),
    });
    let bytes = written.and_then(|()| encoder.finish()).expect("a vector takes every byte");
    bytes.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Layout;

    fn compressed(values: Vec<f64>) -> u64 {
        compressed_bytes(&Vector::from_values(&Layout::new([("a", 1, values.len())]), values).unwrap())
    }

    #[test]
    fn zeros_take_next_to_nothing_and_noise_all_its_bytes() {
        assert!(compressed(vec![0.0; 1000]) < 50);
        let mut state = 1_u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            f64::from_bits(state >> 12 | 0x3ff0_0000_0000_0000)
        };
        let noise: Vec<f64> = (0..1000).map(|_| noise()).collect();
        assert!((6500..8100).contains(&compressed(noise)));
    }
}
