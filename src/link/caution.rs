//! When to send groups ahead, and when to wait for each answer. Pure.
//!
//! A group that was sent ahead and refused is written twice. Where many rows need a look, because
//! both nodes write them or their large values must be fetched, that costs more than waiting: so
//! after a refusal the next groups are applied step by step, more of them each time.

use super::patience::Patience;
use super::remarks::Remarks;
use crate::apply::Copies;
use crate::failpoint::{Way, forced_way};
use crate::lsn::Lsn;

/// Groups that are applied step by step after a first refusal …
const PAUSE_MIN: u32 = 4;
/// … and at most after many.
const PAUSE_MAX: u32 = 256;
/// So many groups taken in a row, and the refusals before them are forgotten.
const TRUSTED_AFTER: u32 = 64;

/// How well sending ahead has gone lately. Outlives a link's connections.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Caution {
    /// Groups still to be applied step by step.
    left: u32,
    /// How many those were after the last refusal.
    pause: u32,
    /// Groups taken since.
    taken: u32,
    /// A test wants every group sent ahead.
    is_off: bool,
}

impl Caution {
    /// Whether the next group may be sent ahead.
    pub(super) fn may_send(&mut self) -> bool {
        let may = self.left == 0 || self.is_off;
        self.left = self.left.saturating_sub(1);
        may
    }

    /// A group was refused.
    pub(super) fn refused(&mut self) {
        self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        self.left = self.pause;
        self.taken = 0;
    }

    /// A group came before the target's clock had passed it, as the next ones may.
    pub(super) fn too_early(&mut self) {
        self.left = self.left.max(PAUSE_MIN);
    }

    /// A group was taken.
    pub(super) fn taken(&mut self) {
        self.taken += 1;
        if self.taken >= TRUSTED_AFTER {
            self.pause = 0;
        }
    }
}

/// What applying has taught, for the next connection of the link.
#[derive(Debug, Default)]
pub(super) struct Lessons {
    /// Transactions that commit up to here are applied in order: they failed before.
    pub in_order_until: Lsn,
    /// Those up to here are not sent ahead.
    pub step_by_step_until: Lsn,
    /// Which tables rows are not copied into for a while.
    pub copies: Copies,
    /// Whether groups are sent ahead.
    pub caution: Caution,
    /// Whether transactions are applied while they are running on the source.
    pub patience: Patience,
    /// What was said of tables.
    pub remarks: Remarks,
}

impl Lessons {
    /// Nothing yet, but for what a test asks for.
    pub(super) fn none() -> Self {
        let mut lessons = Self::default();
        match forced_way() {
            Some(Way::StepByStep) => lessons.step_by_step_until = Lsn::MAX,
            Some(Way::InOrder) => lessons.in_order_until = Lsn::MAX,
            Some(Way::AlwaysAhead) => lessons.caution.is_off = true,
            None => {}
        }
        lessons
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step_by_step(caution: &mut Caution) -> u32 {
        let mut count = 0;
        while !caution.may_send() {
            count += 1;
        }
        count
    }

    #[test]
    fn refusals_make_for_longer_and_longer_pauses() {
        let mut caution = Caution::default();
        assert_eq!(step_by_step(&mut caution), 0);
        caution.refused();
        assert_eq!(step_by_step(&mut caution), PAUSE_MIN);
        caution.refused();
        assert_eq!(step_by_step(&mut caution), 2 * PAUSE_MIN);
        for _ in 0..20 {
            caution.refused();
        }
        assert_eq!(step_by_step(&mut caution), PAUSE_MAX);
        assert_eq!(step_by_step(&mut caution), 0);
    }

    #[test]
    fn a_clock_that_is_behind_is_no_reason_for_longer_pauses() {
        let mut caution = Caution::default();
        for _ in 0..20 {
            caution.too_early();
        }
        assert_eq!(step_by_step(&mut caution), PAUSE_MIN);
    }

    #[test]
    fn a_long_run_without_refusals_is_trusted() {
        let mut caution = Caution::default();
        caution.refused();
        caution.refused();
        for _ in 0..TRUSTED_AFTER {
            caution.taken();
        }
        caution.refused();
        assert_eq!(step_by_step(&mut caution), PAUSE_MIN);
    }
}
