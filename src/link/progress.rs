//! Which source positions are safe on the target. Pure.
//!
//! Apply commits asynchronously: a commit is applied at once and durable when the target's WAL has
//! been flushed past it. Only durable positions may be remembered and confirmed to the source, for
//! after that the source forgets the WAL they came from.

use std::collections::VecDeque;

use crate::lsn::Lsn;

/// Most commits that may wait to become durable before the next waits itself.
pub const UNFLUSHED_MAX: usize = 10_000;

/// One commit on the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Commit {
    source_end: Lsn,
    target_written: Lsn,
}

/// The positions of one link; they only move forward.
#[derive(Debug, Default)]
pub(super) struct Progress {
    applied: Lsn,
    durable: Lsn,
    unflushed: VecDeque<Commit>,
}

impl Progress {
    /// A commit on the target that covers the source's WAL up to `source_end`.
    pub(super) fn applied(&mut self, source_end: Lsn, target_written: Lsn) {
        debug_assert!(source_end >= self.applied, "positions only move forward");
        self.applied = source_end;
        if self.unflushed.len() >= UNFLUSHED_MAX {
            self.unflushed.pop_back();
        }
        self.unflushed.push_back(Commit {
            source_end,
            target_written,
        });
    }

    /// The target's WAL is flushed up to here. Returns the durable position when it moved.
    pub(super) fn flushed(&mut self, target_flushed: Lsn) -> Option<Lsn> {
        let before = self.durable;
        while let Some(commit) = self.unflushed.front() {
            if commit.target_written > target_flushed {
                break;
            }
            self.durable = commit.source_end;
            self.unflushed.pop_front();
        }
        (self.durable > before).then_some(self.durable)
    }

    /// True while a commit may still be lost by a crash of the target.
    pub(super) fn has_unflushed(&self) -> bool {
        !self.unflushed.is_empty()
    }

    /// Everything up to here is committed on the target.
    pub(super) fn position(&self) -> Lsn {
        self.applied
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lsn(raw: u64) -> Lsn {
        Lsn::new(raw)
    }

    #[test]
    fn nothing_is_durable_before_its_wal_is_flushed() {
        let mut progress = Progress::default();
        progress.applied(lsn(10), lsn(100));
        progress.applied(lsn(20), lsn(200));
        assert_eq!(progress.flushed(lsn(99)), None);
        assert_eq!(progress.flushed(lsn(150)), Some(lsn(10)));
        assert!(progress.has_unflushed());
        assert_eq!(progress.flushed(lsn(200)), Some(lsn(20)));
        assert_eq!(progress.flushed(lsn(300)), None);
        assert!(!progress.has_unflushed());
        assert_eq!(progress.position(), lsn(20));
    }

    #[test]
    fn a_full_queue_waits_for_the_later_commit() {
        let mut progress = Progress::default();
        for n in 1..=UNFLUSHED_MAX as u64 + 5 {
            progress.applied(lsn(n), lsn(n));
        }
        let last = UNFLUSHED_MAX as u64 + 5;
        assert_eq!(
            progress.flushed(lsn(last - 1)),
            Some(lsn(UNFLUSHED_MAX as u64 - 1))
        );
        assert_eq!(progress.flushed(lsn(last)), Some(lsn(last)));
    }
}
