//! The text of every statement that writes or looks at rows, made from the shapes.

pub(super) mod custom;
pub(super) mod emptied;
pub(super) mod fetch;
pub(super) mod history;
pub(super) mod kind;
pub(super) mod many_rows;
pub(super) mod mend;
pub(super) mod merging;
pub(super) mod names;
pub(super) mod one_row;
pub(super) mod shadows;
pub(super) mod source_times;
pub(super) mod strict;
pub(super) mod tombstones;
pub(super) mod truncate;
