//! Which rows a group writes, to tell whether two groups may be written at once. Pure.
//!
//! Two sessions that write different rows by their keys do not get into each other's way. Where
//! something else than the key ties rows together (a second unique value, no key at all, rows that
//! merge, a truncate), a group stands for everything.
//!
//! Keys are compared by a hash of their texts. Equal hashes of different keys cost a little time.
//! Where only the server can tell which texts are one key (`mapping`), a group stands for
//! everything as well.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::apply::plan::change::RowChange;
use crate::apply::plan::group::Segment;
use crate::conflict::Rule;

/// The rows of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    /// Hashes of tables with keys, in order.
    Rows(Vec<u64>),
    /// Nothing may be written beside it.
    Everything,
}

impl Touched {
    /// What the segments of a group write.
    pub(in crate::apply) fn of(segments: &[Segment]) -> Self {
        let mut hashes = Vec::new();
        for segment in segments {
            let Segment::Rows(entries) = segment else {
                return Self::Everything;
            };
            for entry in entries {
                match entry.row().filter(|row| is_told_by_key(row)) {
                    Some(row) => hashes.push(hash(row)),
                    None => return Self::Everything,
                }
            }
        }
        hashes.sort_unstable();
        Self::Rows(hashes)
    }

    /// Whether two groups must be written one after the other.
    pub fn meets(&self, other: &Self) -> bool {
        let (Self::Rows(ours), Self::Rows(theirs)) = (self, other) else {
            return true;
        };
        let (mut ours, mut theirs) = (ours.iter().peekable(), theirs.iter().peekable());
        while let (Some(our), Some(their)) = (ours.peek(), theirs.peek()) {
            match our.cmp(their) {
                std::cmp::Ordering::Less => ours.next(),
                std::cmp::Ordering::Greater => theirs.next(),
                std::cmp::Ordering::Equal => return true,
            };
        }
        false
    }
}

/// Nothing but its key ties the row to others.
fn is_told_by_key(row: &RowChange) -> bool {
    let table = &row.target.map.table;
    let by_time = *row.target.versions().rule() == Rule::LastWriteWins;
    let plain = table.key.as_ref().is_some_and(|key| !key.deferrable);
    by_time && plain && table.uniques.is_empty() && !row.target.map.has_open_key()
}

fn hash(row: &RowChange) -> u64 {
    let mut hasher = DefaultHasher::new();
    row.target.map.table.oid.hash(&mut hasher);
    row.target.map.one_form(&row.key).hash(&mut hasher);
    hasher.finish()
}
