//! What a statement does to rows, and how it protects what is newer. Pure.

/// How an update protects what is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UpdateGuard {
    /// The new row is whole: any older row may be replaced, if there is nothing to record.
    Older,
    /// Large values are missing from the new row: only a row that the source wrote as it stands
    /// there has the right ones.
    SameWriter,
    /// The row is locked and the decision made.
    Decided,
}

/// The statement that takes a row if nothing newer is there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::apply) enum Kind {
    /// Guarded delete.
    Delete,
    /// Many of them, all with the same floors.
    DeleteListed,
    /// Guarded update of these columns.
    Update(Vec<usize>, UpdateGuard),
    /// Insert of a row that is not there.
    Insert,
    /// Many such inserts, on the chance that none of the rows is there.
    Copy,
}
