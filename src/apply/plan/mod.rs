//! From changes to what is written and by which statements, before any server is asked.

pub(super) mod change;
pub(super) mod choose;
#[cfg(test)]
mod choose_tests;
pub(super) mod copies;
pub(super) mod custom;
pub(super) mod decide;
pub(super) mod group;
#[cfg(test)]
mod group_tests;
pub(super) mod touched;
