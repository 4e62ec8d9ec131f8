//! Numbers as people write them: three digits and a unit, real minus signs, powers of ten with raised exponents.

/// The sign of a target that was never reached.
pub const NEVER: &str = "∞";

/// `value` with at most `digits` significant digits, no trailing zeros and a true minus sign; very large and very small
/// numbers as `1.2×10⁻⁹`.
#[must_use]
pub fn significant(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if !value.is_finite() {
        return if value.is_nan() {
            "–".to_owned()
        } else if value > 0.0 {
            "∞".to_owned()
        } else {
            "−∞".to_owned()
        };
    }
    // Rust's own formatting rounds correctly and says which power of ten the rounded number has.
    let scientific = format!("{value:.*e}", digits.max(1) - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let text = if (-4..6).contains(&exponent) {
        let places = (digits as i32 - 1 - exponent).max(0) as usize;
        without_trailing_zeros(&format!("{value:.places$}")).to_owned()
    } else {
        format!("{}×10{}", without_trailing_zeros(mantissa), raised(exponent))
    };
    text.replace('-', "−")
}

fn without_trailing_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// `exponent` in raised digits.
#[must_use]
pub fn raised(exponent: i32) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    exponent.to_string().chars().map(|sign| sign.to_digit(10).map_or('⁻', |digit| DIGITS[digit as usize])).collect()
}

/// A power of ten: `1`, `10`, otherwise `10` with a raised exponent.
#[must_use]
pub fn power_of_ten(exponent: i32) -> String {
    match exponent {
        0 => "1".to_owned(),
        1 => "10".to_owned(),
        _ => format!("10{}", raised(exponent)),
    }
}

/// A duration: `12 µs`, `3.4 ms`, `1.25 s`, `2.5 min`, `1.2 h`.
#[must_use]
pub fn seconds(value: f64) -> String {
    if !value.is_finite() {
        return NEVER.to_owned();
    }
    let (scale, unit) = match value.abs() {
        0.0 => (1.0, "s"),
        v if v < 0.999_5e-3 => (1e-6, "µs"),
        v if v < 0.999_5 => (1e-3, "ms"),
        v if v < 119.5 => (1.0, "s"),
        v if v < 7170.0 => (60.0, "min"),
        _ => (3600.0, "h"),
    };
    format!("{} {unit}", significant(value / scale, 3))
}

/// A number of bytes: `512 B`, `1.5 KiB`, `34.2 MiB`.
#[must_use]
pub fn bytes(value: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut scaled, mut unit) = (value as f64, 0);
    while scaled >= 999.5 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{} {}", significant(scaled, 3), UNITS[unit])
}

/// A count with commas: `11,000,000`.
#[must_use]
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_to_digits_and_keep_no_empty_zeros() {
        for (value, digits, expected) in [
            (0.64123, 4, "0.6412"),
            (0.5, 4, "0.5"),
            (-12.0, 3, "−12"),
            (9.999, 3, "10"),
            (1.234e-9, 2, "1.2×10⁻⁹"),
            (999_999.0, 3, "1×10⁶"),
            (1234.0, 3, "1234"),
            (0.0, 3, "0"),
            (f64::INFINITY, 3, "∞"),
        ] {
            assert_eq!(significant(value, digits), expected);
        }
    }

    #[test]
    fn units_change_where_the_rounded_number_does() {
        let texts: Vec<String> =
            [0.0, 1.2e-5, 9.996e-4, 0.0346, 0.9996, 61.27, 150.0, 9000.0, f64::INFINITY].map(seconds).into();
        assert_eq!(texts, ["0 s", "12 µs", "1 ms", "34.6 ms", "1 s", "61.3 s", "2.5 min", "2.5 h", "∞"]);
        assert_eq!([512, 1536, 1 << 20, 5_368_709_120].map(bytes), ["512 B", "1.5 KiB", "1 MiB", "5 GiB"]);
        assert_eq!([7, 1000, 11_000_000].map(count), ["7", "1,000", "11,000,000"]);
        assert_eq!([-6, 0, 1, 12].map(power_of_ten), ["10⁻⁶", "1", "10", "10¹²"]);
    }
}
