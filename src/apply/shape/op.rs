//! What happens to one key: afterwards a row is there, or none. Pure.

use crate::pgoutput::{Tuple, Value};

/// The new state of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// All source columns; `Unchanged` where the source left a large value out.
    pub values: Tuple,
    /// The source inserted it, so most likely the target has no such row.
    pub insert: bool,
    /// The row came from another key: what is `Unchanged` is not in the row that has this key now.
    pub moved: bool,
}

/// What happens to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowOp {
    /// Afterwards the row is there.
    Put(Put),
    /// Afterwards it is not. Carries the whole old row where the source sent it.
    Delete(Option<Tuple>),
}

impl Put {
    /// True when no large value is missing.
    pub fn is_whole(&self) -> bool {
        !self.values.0.contains(&Value::Unchanged)
    }
}
