//! Statements with their parameters, pushed into batches.

pub(super) mod copy_data;
pub(super) mod floors;
pub(super) mod pending;
pub(super) mod push;
pub(super) mod refuse;
pub(super) mod source_times;
pub(super) mod tombstones;
