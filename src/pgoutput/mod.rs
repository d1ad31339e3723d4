//! The messages of `pgoutput`, PostgreSQL's built-in logical decoding plugin.
//!
//! Layouts are those of the manual, 55.9 "Logical Replication Message Formats", protocol versions
//! 1 (PostgreSQL 10) to 4 (16). The decoder is total: any bytes give a [`Message`] or a
//! [`DecodeError`] that names the tag and the offset; it never panics, and never allocates more
//! than a small multiple of what it was given.
//!
//! [`decode`] takes apart, [`encode`] is its inverse for tests, fuzzing and benches. Values
//! are slices of the payload: nothing is copied, so a value keeps the buffer it was read into
//! alive.

pub mod decode;
pub mod encode;
mod error;
#[doc(hidden)]
pub mod fuzzing;
pub mod message;
mod reader;
pub mod tuple;

#[cfg(test)]
pub(crate) mod arbitrary;
#[cfg(test)]
mod tests;

pub use decode::decode;
pub use encode::{EncodeError, encode};
pub use error::{DecodeError, DecodeErrorKind};
pub use message::{LogicalMessage, Message, PreparedTx, RelationMessage, TypeMessage};
pub use tuple::{OldImage, Tuple, Value};
