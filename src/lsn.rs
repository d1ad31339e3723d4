//! A position in one server's write-ahead log.

use std::fmt;
use std::str::FromStr;

/// A byte position in a server's WAL, printed as PostgreSQL prints it (`16/B374D848`).
///
/// Positions of different servers must never be compared. (Manual 8.20, `pg_lsn`.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(u64);

/// The text was not two hexadecimal numbers joined by a slash.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a WAL position such as 16/B374D848")]
pub struct ParseLsnError(String);

impl Lsn {
    /// The invalid position, "nothing yet".
    pub const ZERO: Self = Self(0);
    /// Behind every position.
    pub const MAX: Self = Self(u64::MAX);

    /// Wraps the raw 64-bit value of the wire protocol.
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The raw 64-bit value, for the wire and for disk formats only.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// True for `0/0`.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// How many bytes of WAL lie between `earlier` and `self`; 0 when `earlier` is not earlier.
    pub const fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (high, low) = text.split_once('/')?;
            let high = u32::from_str_radix(high, 16).ok()?;
            let low = u32::from_str_radix(low, 16).ok()?;
            Some(Self(u64::from(high) << 32 | u64::from(low)))
        };
        parse().ok_or_else(|| ParseLsnError(text.to_owned()))
    }
}

impl serde::Serialize for Lsn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Lsn {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_parses_as_postgresql_does() {
        for (raw, text) in [
            (0, "0/0"),
            (0x16_B374_D848, "16/B374D848"),
            (u64::MAX, "FFFFFFFF/FFFFFFFF"),
        ] {
            assert_eq!(Lsn::new(raw).to_string(), text);
            assert_eq!(text.parse(), Ok(Lsn::new(raw)));
        }
    }

    #[test]
    fn refuses_what_is_not_a_position() {
        for text in ["", "16", "16/", "/1", "g/1", "1/100000000", "1/2/3"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }

    #[test]
    fn distance_never_wraps() {
        assert_eq!(Lsn::new(10).bytes_since(Lsn::new(4)), 6);
        assert_eq!(Lsn::new(4).bytes_since(Lsn::new(10)), 0);
    }
}
