//! Everything that is wrong with a file, told at once.

use std::collections::BTreeSet;

/// The problems found so far, each one sentence.
#[derive(Default)]
pub(super) struct Problems(pub(super) Vec<String>);

impl Problems {
    pub(super) fn add(&mut self, sentence: String) {
        self.0.push(sentence);
    }

    /// The value, or nothing and one more problem.
    pub(super) fn keep<T, E: std::fmt::Display>(
        &mut self,
        key: &str,
        result: Result<T, E>,
    ) -> Option<T> {
        result
            .map_err(|error| self.add(format!("{key}: {error}")))
            .ok()
    }
}

pub(super) fn values_seen_twice<'a>(values: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    values.filter(|value| !seen.insert(*value)).collect()
}
