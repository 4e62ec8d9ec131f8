//! One field of a text table: a number, or why it is none.

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Field<T> {
    Number(T),
    /// Empty, or one of the usual words for it.
    Missing,
    Infinite,
    /// A finite number in the text that is beyond the range of the type.
    TooLarge,
    NotANumber,
}

const MISSING: [&[u8]; 8] = [b"", b"na", b"n/a", b"nan", b"null", b"none", b"?", b"-nan"];
const INFINITE: [&[u8]; 6] = [b"inf", b"+inf", b"-inf", b"infinity", b"+infinity", b"-infinity"];

/// Whether a trimmed field means that there is no value.
pub(super) fn is_missing(field: &[u8]) -> bool {
    MISSING.iter().any(|word| field.eq_ignore_ascii_case(word))
}

/// Classifies a trimmed field. The number is the nearest one of type `T` to the decimal text.
pub(super) fn classify<T: fast_float2::FastFloat + Copy + Into<f64>>(field: &[u8]) -> Field<T> {
    if is_missing(field) {
        return Field::Missing;
    }
    match fast_float2::parse::<T, _>(field) {
        Ok(value) if value.into().is_finite() => Field::Number(value),
        Ok(_) if INFINITE.iter().any(|word| field.eq_ignore_ascii_case(word)) => Field::Infinite,
        Ok(_) if field.iter().any(u8::is_ascii_digit) => Field::TooLarge,
        Ok(_) => Field::Missing,
        Err(_) => Field::NotANumber,
    }
}

/// Removes spaces, tabs and carriage returns on both sides.
pub(super) fn trim(field: &[u8]) -> &[u8] {
    field.trim_ascii()
}

/// A piece of the file for an error message: quoted, printable, shortened.
pub(super) fn shown(field: &[u8]) -> String {
    const LONGEST: usize = 40;
    let text = String::from_utf8_lossy(field);
    if text.chars().count() <= LONGEST {
        format!("{text:?}")
    } else {
        format!("{:?}...", text.chars().take(LONGEST).collect::<String>())
    }
}

/// Finding and remedy for a field that is not a usable number, and whether a value is missing there.
pub(super) fn complaint<T>(field: &[u8], found: &Field<T>) -> (String, &'static str) {
    match found {
        Field::Missing if field.is_empty() => ("the value is missing (empty field)".into(), MISSING_REMEDY),
        Field::Missing => (format!("the value is missing ({})", shown(field)), MISSING_REMEDY),
        Field::Infinite => (
            format!("{} is not a finite number", shown(field)),
            "correct or remove the row; infinities cannot be trained on",
        ),
        Field::TooLarge => (
            format!("{} is beyond the range of 32-bit numbers (3.4e38)", shown(field)),
            "rescale the column before reading it",
        ),
        Field::NotANumber | Field::Number(_) => (
            format!("{} is not a number", shown(field)),
            "correct the field, exclude the column, or say which column is the target",
        ),
    }
}

const MISSING_REMEDY: &str = "fill it in, exclude the column, or leave out such rows with missing = \"drop_rows\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_told_apart() {
        assert_eq!(classify::<f32>(b"1.000000000000000000e+00"), Field::Number(1.0));
        assert_eq!(classify::<f32>(b"-.5"), Field::Number(-0.5));
        assert_eq!(classify::<f32>(b"+3"), Field::Number(3.0));
        for missing in ["", "NA", "nan", "NaN", "?", "null", "N/A", "+nan"] {
            assert_eq!(classify::<f32>(missing.as_bytes()), Field::Missing, "{missing}");
        }
        assert_eq!(classify::<f32>(b"-Infinity"), Field::Infinite);
        assert_eq!(classify::<f32>(b"1e39"), Field::TooLarge);
        assert_eq!(classify::<f64>(b"1e39"), Field::Number(1e39));
        assert_eq!(classify::<f32>(b"1.0x"), Field::NotANumber);
        assert_eq!(classify::<f32>(b"1 2"), Field::NotANumber);
    }

    #[test]
    fn numbers_are_the_nearest_f32_and_not_rounded_twice() {
        // 1 + 2^-24 + 2^-60: the nearest f64 is the midpoint 1 + 2^-24, whose nearest even f32 is 1.
        let text = b"1.00000005960464477626166498485";
        assert_eq!(classify::<f32>(text), Field::Number(1.0 + f32::EPSILON));
    }
}
