//! The tables of the target as a link writes them, each text made once.

pub(super) mod statement;
#[cfg(test)]
mod statement_texts_tests;
pub(super) mod tables;
