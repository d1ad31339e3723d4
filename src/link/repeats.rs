//! Which of many failures is worth a log line: the first of its kind, then one a minute. Pure.

use std::time::Duration;

use tokio::time::Instant;

use crate::status::model::LinkState;

/// How often the same failure is logged again.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Kinds that are remembered; more of them are taken for one.
const KINDS_MAX: usize = 8;

/// What makes two failures the same: what the link does about it, and the SQLSTATE.
pub(super) type Kind = (LinkState, Option<String>);

/// The failures since something was applied.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    begun: Option<Instant>,
    logged: Option<Instant>,
    kinds: Vec<Kind>,
    all: u64,
    held_back: u64,
}

impl Repeats {
    /// A failure. Where it is to be logged: how many were held back since the last one.
    pub(super) fn note(&mut self, now: Instant, kind: Kind) -> Option<u64> {
        self.begun.get_or_insert(now);
        self.all += 1;
        let is_new = !self.kinds.contains(&kind) && self.kinds.len() < KINDS_MAX;
        let is_due = self.logged.is_none_or(|at| now - at >= AGAIN_AFTER);
        if !is_new && !is_due {
            self.held_back += 1;
            return None;
        }
        if is_new {
            self.kinds.push(kind);
        }
        self.logged = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }

    /// Something was applied: how many failures there were, and for how long.
    pub(super) fn over(&mut self, now: Instant) -> Option<(u64, Duration)> {
        let Self { begun, all, .. } = std::mem::take(self);
        begun.map(|begun| (all, now - begun))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_kind_is_logged_and_then_one_a_minute() {
        let mut repeats = Repeats::default();
        let start = Instant::now();
        let full = || (LinkState::Retrying, Some("53100".to_owned()));
        let gone = || (LinkState::Retrying, None);
        let mut logged = Vec::new();
        for second in 0..150 {
            let now = start + Duration::from_secs(second);
            let kind = if second % 2 == 0 { full() } else { gone() };
            if let Some(held_back) = repeats.note(now, kind) {
                logged.push((second, held_back));
            }
        }
        assert_eq!(logged, [(0, 0), (1, 0), (61, 59), (121, 59)]);
        let over = repeats.over(start + Duration::from_secs(150));
        assert_eq!(over, Some((150, Duration::from_secs(150))));
        assert_eq!(repeats.over(start), None);
        assert_eq!(repeats.note(start, full()), Some(0));
    }

    #[test]
    fn ever_new_kinds_are_not_logged_without_end() {
        let mut repeats = Repeats::default();
        let now = Instant::now();
        let kinds = (0..1000).map(|number| (LinkState::Blocked, Some(number.to_string())));
        let logged = kinds.filter_map(|kind| repeats.note(now, kind)).count();
        assert_eq!(logged, KINDS_MAX);
    }
}
