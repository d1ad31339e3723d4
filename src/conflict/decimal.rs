//! Exact decimals as the server computes with them.

use std::fmt;
use std::ops::Add;
use std::str::FromStr;

use bigdecimal::BigDecimal;
use bigdecimal::num_bigint::BigInt;

/// Most places after the point, as of `numeric` (manual 8.1.2).
const PLACES_MAX: usize = 16_383;

/// A finite `numeric`, or an integer. Equal ones print alike: places after the point count.
#[derive(Clone, Debug)]
pub struct Decimal(BigDecimal);

/// The text is not a decimal number.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a decimal number")]
pub struct BadDecimal;

impl Decimal {
    /// Nothing, without places after the point.
    pub fn zero() -> Self {
        Self(BigDecimal::new(BigInt::from(0), 0))
    }

    fn parts(&self) -> (&BigDecimal, i64) {
        (&self.0, self.0.fractional_digit_count())
    }
}

impl FromStr for Decimal {
    type Err = BadDecimal;

    fn from_str(text: &str) -> Result<Self, BadDecimal> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let (whole, places) = digits.split_once('.').unwrap_or((digits, "0"));
        let is_digits =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !is_digits(whole) || !is_digits(places) || places.len() > PLACES_MAX {
            return Err(BadDecimal);
        }
        text.parse().map(Self).map_err(|_| BadDecimal)
    }
}

impl fmt::Display for Decimal {
    /// As the server prints it: every place after the point, no exponent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_plain_string())
    }
}

impl Add for &Decimal {
    type Output = Decimal;

    /// With as many places as the operand that has more, like the server's `+`.
    fn add(self, other: Self) -> Decimal {
        let places = self.parts().1.max(other.parts().1);
        Decimal((&self.0 + &other.0).with_scale(places))
    }
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for Decimal {}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    /// By value, then by places.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.parts().cmp(&other.parts())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    fn sum(a: &str, b: &str) -> String {
        (&decimal(a) + &decimal(b)).to_string()
    }

    #[test]
    fn numbers_print_as_they_were_read() {
        let long = format!("-{}.{}1", "9".repeat(60), "0".repeat(60));
        let short = "0.000000000000000000001";
        for text in [
            "0",
            "0.00",
            "-7",
            "10.50",
            "1000000000000000000000000",
            short,
            &long,
        ] {
            assert_eq!(decimal(text).to_string(), text);
        }
        for text in [
            "", "-", "NaN", "Infinity", "1e5", "1.", ".5", "+1", "1_0", " 1",
        ] {
            assert!(text.parse::<Decimal>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_sum_has_the_places_of_the_longer() {
        assert_eq!(sum("10.00", "-3"), "7.00");
        assert_eq!(sum("0", "0.00"), "0.00");
        assert_eq!(sum("0.00", "0"), "0.00");
        assert_eq!(sum("1.5", "-1.50"), "0.00");
        assert_eq!(sum("-0.1", "0.02"), "-0.08");
        let greatest = i64::MAX.to_string();
        assert_eq!(sum(&greatest, "1"), "9223372036854775808");
    }

    #[test]
    fn places_are_the_last_to_order() {
        assert!(decimal("2") > decimal("1.9") && decimal("1.0") > decimal("1"));
        assert_ne!(decimal("1.0"), decimal("1"));
        assert_eq!(decimal("1.0"), decimal("1.0"));
    }
}
