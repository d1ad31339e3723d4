//! Statements with their parameters, pushed into batches.

pub(super) mod floors;
pub(super) mod pending;
pub(super) mod push;
pub(super) mod source_times;
