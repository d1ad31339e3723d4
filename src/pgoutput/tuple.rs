//! Rows on the wire: `TupleData` of the manual's 55.9.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// One column's value. Its `Debug` shows the length only: values never reach logs.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Value {
    /// `n`: SQL NULL.
    Null,
    /// `u`: a large value (kept in a TOAST table) that the update did not touch; the stream
    /// leaves it out.
    Unchanged,
    /// `t`: the type's text form, in the connection's client encoding.
    Text(Bytes),
    /// `b`: the type's binary form (option `binary`, protocol 1 since PostgreSQL 14).
    Binary(Bytes),
}

/// The values of one row, in the order of the columns of its relation. Its clones share them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tuple(pub Arc<[Value]>);

/// What an update or a delete tells about the row as it was.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OldImage {
    /// `K`: the replica identity's columns; the others are NULL.
    Key(Tuple),
    /// `O`: the whole row (`REPLICA IDENTITY FULL`).
    Full(Tuple),
}

impl Value {
    /// The bytes of a value that is there.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Text(bytes) | Self::Binary(bytes) => Some(bytes),
            Self::Null | Self::Unchanged => None,
        }
    }

    /// Bytes on the wire: the kind, and length and value where there is one.
    fn wire_bytes(&self) -> usize {
        1 + self.as_bytes().map_or(0, |bytes| 4 + bytes.len())
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::Unchanged => f.write_str("Unchanged"),
            Self::Text(bytes) => write!(f, "Text({} bytes)", bytes.len()),
            Self::Binary(bytes) => write!(f, "Binary({} bytes)", bytes.len()),
        }
    }
}

impl From<Vec<Value>> for Tuple {
    fn from(values: Vec<Value>) -> Self {
        Self(values.into())
    }
}

impl Tuple {
    /// The values, to be changed; those of clones stay as they are.
    pub fn values_mut(&mut self) -> &mut [Value] {
        Arc::make_mut(&mut self.0)
    }

    /// Bytes of this tuple on the wire.
    pub fn wire_bytes(&self) -> usize {
        2 + self.0.iter().map(Value::wire_bytes).sum::<usize>()
    }
}

impl OldImage {
    /// The tuple, whichever kind it is.
    pub fn tuple(&self) -> &Tuple {
        match self {
            Self::Key(tuple) | Self::Full(tuple) => tuple,
        }
    }
}
