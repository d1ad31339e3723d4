//! What a table of the source looks like on the target, and what guards its rows.

pub(super) mod guard;
pub(super) mod keys;
pub(super) mod mapping;
pub(super) mod merging;
pub(super) mod narrower;
pub(super) mod op;
pub(super) mod origins;
pub(super) mod versions;
