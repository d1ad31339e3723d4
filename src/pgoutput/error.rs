//! Why bytes are no message.

use crate::error::{RetryClass, Retryable};

/// A message that is not pgoutput as the manual describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the source sent a replication message{} that cannot be read at byte {offset}: {kind}; \
     look for a newer mmrepl or a proxy that changes the stream",
    TagName(*tag)
)]
pub struct DecodeError {
    /// The message's first byte, where there was one.
    pub tag: Option<u8>,
    /// The byte in the message at which reading stopped, counted from 0, the tag.
    pub offset: usize,
    /// What was wrong there.
    #[source]
    pub kind: DecodeErrorKind,
}

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeErrorKind {
    /// There is no byte at all.
    #[error("it is empty")]
    Empty,
    /// No message of protocol versions 1 to 4 begins with this byte.
    #[error("its kind is unknown")]
    UnknownTag,
    /// The message ends inside a field, or is too short for the items it announces.
    #[error("at least {missing} more bytes were expected")]
    Truncated {
        /// How many bytes, at least, are missing.
        missing: usize,
    },
    /// Bytes follow where the message should end.
    #[error("it goes on for {extra} bytes after its end")]
    Trailing {
        /// How many bytes are too many.
        extra: usize,
    },
    /// A count or a length below zero.
    #[error("a length is negative")]
    NegativeLength,
    /// A string without its closing zero byte.
    #[error("a string does not end")]
    Unterminated,
    /// A table or column name that is not UTF-8, which the connection asks for.
    #[error("a name is not valid UTF-8")]
    NotUtf8,
    /// A byte that must be one of few has another value.
    #[error("{found:#04x} is not a {what}")]
    BadByte {
        /// What the byte should be.
        what: &'static str,
        /// What it is.
        found: u8,
    },
}

impl Retryable for DecodeError {
    /// The server would send the same bytes again.
    fn retry_class(&self) -> RetryClass {
        RetryClass::Definite
    }
}

/// Prints ` 'I'` for a tag, nothing for none.
struct TagName(Option<u8>);

impl std::fmt::Display for TagName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(tag) => write!(f, " '{}'", tag.escape_ascii()),
            None => Ok(()),
        }
    }
}
