//! The moment a transaction committed, by the clock of the server that ran it.

use std::fmt;

/// Microseconds between 1970-01-01 and 2000-01-01 UTC, where PostgreSQL's clock starts.
const POSTGRES_EPOCH_UNIX_MICROS: i64 = 946_684_800_000_000;

/// A commit timestamp: microseconds since 2000-01-01 UTC, PostgreSQL's own unit (`TimestampTz`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitTime(i64);

impl CommitTime {
    /// Later than every commit: stands for one that has not happened yet.
    pub const MAX: Self = Self(i64::MAX);

    /// Wraps PostgreSQL's microseconds since 2000-01-01 UTC.
    pub const fn from_postgres_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// PostgreSQL's microseconds since 2000-01-01 UTC.
    pub const fn as_postgres_micros(self) -> i64 {
        self.0
    }

    /// From microseconds since 1970-01-01 UTC.
    pub const fn from_unix_micros(micros: i64) -> Self {
        Self(micros.saturating_sub(POSTGRES_EPOCH_UNIX_MICROS))
    }

    /// Microseconds since 1970-01-01 UTC.
    pub const fn as_unix_micros(self) -> i64 {
        self.0.saturating_add(POSTGRES_EPOCH_UNIX_MICROS)
    }

    /// The time now by this machine's clock.
    pub fn now() -> Self {
        Self(jiff::Timestamp::now().as_microsecond() - POSTGRES_EPOCH_UNIX_MICROS)
    }

    /// Signed microseconds from `earlier` to `self`.
    pub const fn micros_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The time that lies `micros` after this one (before it, where negative).
    #[must_use]
    pub const fn plus_micros(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros))
    }
}

impl fmt::Display for CommitTime {
    /// RFC 3339 in UTC with microseconds, which PostgreSQL reads as a `timestamptz`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unix = self.0.saturating_add(POSTGRES_EPOCH_UNIX_MICROS);
        match jiff::Timestamp::from_microsecond(unix) {
            Ok(time) => write!(f, "{time:.6}"),
            Err(_) => write!(f, "(out of range: {} µs)", self.0),
        }
    }
}

impl serde::Serialize for CommitTime {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for CommitTime {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        Ok(Self(time.as_microsecond() - POSTGRES_EPOCH_UNIX_MICROS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_utc_with_microseconds() {
        assert_eq!(
            CommitTime::from_postgres_micros(0).to_string(),
            "2000-01-01T00:00:00.000000Z"
        );
        assert_eq!(
            CommitTime::from_postgres_micros(1).to_string(),
            "2000-01-01T00:00:00.000001Z"
        );
    }

    #[test]
    fn distance_is_signed() {
        let (a, b) = (
            CommitTime::from_postgres_micros(5),
            CommitTime::from_postgres_micros(9),
        );
        assert_eq!((b.micros_since(a), a.micros_since(b)), (4, -4));
        assert_eq!(a.plus_micros(4), b);
    }
}
