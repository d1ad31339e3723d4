//! The text of every statement that writes or looks at rows, made from the shapes.

pub(super) mod custom;
pub(super) mod history;
pub(super) mod many_rows;
pub(super) mod merging;
pub(super) mod one_row;
pub(super) mod shadows;
pub(super) mod strict;
