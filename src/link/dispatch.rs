//! Which session writes the next group. Pure.
//!
//! A group goes to the session that has the least to do, unless it meets a group that is on its
//! way: then it goes to the same session, behind that one. Where it meets groups of several
//! sessions, it waits. What stands for everything goes to the first session, when the others have
//! nothing.
//!
//! Groups that take next to no time are written by one session: to hand over the turn from one
//! session to the next takes as long.

use std::time::Duration;

use crate::apply::Touched;
use crate::failpoint::{Way, forced_way};

/// Groups that take longer than this on the average are spread over the sessions …
const SPREAD_FROM: Duration = Duration::from_millis(3);
/// … until they take less than this: what is spread takes a fraction of the time.
const SPREAD_UNTIL: Duration = Duration::from_micros(500);
/// The average of the last groups is one of about so many.
const AVERAGED: u32 = 32;

/// Whether groups are spread over the sessions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spread {
    average: Duration,
    is_on: bool,
    /// A test wants it in any case.
    is_forced: bool,
}

impl Spread {
    /// They are until it shows that they take no time.
    pub(super) fn new() -> Self {
        Self {
            average: SPREAD_FROM,
            is_on: true,
            is_forced: forced_way() == Some(Way::AlwaysAhead),
        }
    }

    /// A group took so long after the one before.
    pub(super) fn took(&mut self, time: Duration) {
        self.average = (self.average * (AVERAGED - 1) + time) / AVERAGED;
        self.is_on = if self.is_on {
            self.average >= SPREAD_UNTIL
        } else {
            self.average > SPREAD_FROM
        };
    }

    fn is_on(self) -> bool {
        self.is_on || self.is_forced
    }
}

/// Fewest rows that a group is made smaller to.
const ROWS_MIN: usize = 250;
/// So many groups that meet no other, and they may be larger again.
const LARGER_AFTER: u32 = 32;
/// So many of the smallest that meet others all the same: it is not their size …
const IN_VAIN: u32 = 8;
/// … and so many are as large as they like.
const PAUSE: u32 = 512;

/// How large groups are, so that they do not meet by chance: of a million rows two groups of 2,000
/// nearly always have some in common, two of 250 hardly ever.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Room {
    /// How often the most rows are halved.
    halved: u32,
    apart: u32,
    in_vain: u32,
    pause: u32,
}

impl Room {
    /// How many of `rows` a group may have.
    pub(super) fn of(self, rows: usize) -> usize {
        (rows >> self.halved).max(ROWS_MIN.min(rows))
    }

    /// A group met one that was on its way, or none; `most` is what it may have without this.
    pub(super) fn note(&mut self, met: bool, most: usize) {
        if self.pause > 0 {
            self.pause -= 1;
        } else if !met {
            self.apart += 1;
            if self.apart >= LARGER_AFTER {
                (self.apart, self.in_vain) = (0, 0);
                self.halved = self.halved.saturating_sub(1);
            }
        } else if self.of(most) > ROWS_MIN {
            self.apart = 0;
            self.halved += 1;
        } else {
            self.apart = 0;
            self.in_vain += 1;
            if self.in_vain >= IN_VAIN {
                *self = Self {
                    pause: PAUSE,
                    ..Self::default()
                };
            }
        }
    }
}

/// What becomes of the next group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chosen {
    /// The session, the first being 0; `None` where the group must wait.
    pub worker: Option<usize>,
    /// It writes rows that another one writes.
    pub met: bool,
}

/// A group that is on its way.
pub(super) struct Open<'a> {
    /// On this session, the first being 0.
    pub worker: usize,
    /// What it writes.
    pub touched: &'a Touched,
    /// How much that is.
    pub rows: usize,
}

/// The session for a group that writes `touched`, out of so many.
pub(super) fn worker_for<'a>(
    touched: &Touched,
    open: impl Iterator<Item = Open<'a>>,
    (workers, spread): (usize, Spread),
) -> Chosen {
    let mut rows = vec![0; workers];
    let (mut behind, mut last) = (None, 0);
    let (mut several, mut met) = (false, false);
    for group in open {
        last = group.worker;
        if let Some(rows) = rows.get_mut(group.worker) {
            *rows += 1 + group.rows;
        }
        if touched.meets(group.touched) {
            let before = behind.replace(group.worker);
            several |= before.is_some_and(|worker| worker != group.worker);
            met |= *group.touched != Touched::Everything;
        }
    }
    let worker = match (touched, behind) {
        _ if several => None,
        (Touched::Everything, behind) => (behind.unwrap_or(0) == 0).then_some(0),
        (Touched::Rows(_), Some(worker)) => Some(worker),
        (Touched::Rows(_), None) if !spread.is_on() => Some(last),
        (Touched::Rows(_), None) => (0..workers).min_by_key(|worker| rows[*worker]),
    };
    let met = met && *touched != Touched::Everything;
    Chosen { worker, met }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(keys: &[u64]) -> Touched {
        Touched::Rows(keys.to_vec())
    }

    fn worker(touched: &Touched, open: &[(usize, Touched)]) -> Option<usize> {
        worker_of((3, spread(true)), touched, open)
    }

    fn spread(is_on: bool) -> Spread {
        Spread {
            average: Duration::ZERO,
            is_on,
            is_forced: false,
        }
    }

    fn worker_of(
        workers: (usize, Spread),
        touched: &Touched,
        open: &[(usize, Touched)],
    ) -> Option<usize> {
        let open = open.iter().map(|(worker, touched)| Open {
            worker: *worker,
            touched,
            rows: 10,
        });
        worker_for(touched, open, workers).worker
    }

    #[test]
    fn groups_that_meet_become_smaller_unless_that_is_in_vain() {
        let mut room = Room::default();
        for size in [2000, 1000, 500, 250] {
            assert_eq!(room.of(2000), size);
            room.note(true, 2000);
        }
        assert_eq!((room.of(2000), room.of(40)), (250, 40));
        for _ in 0..LARGER_AFTER {
            room.note(false, 2000);
        }
        assert_eq!(room.of(2000), 500);
        for _ in 0..=IN_VAIN {
            room.note(true, 2000);
        }
        assert_eq!(room.of(2000), 2000);
        for _ in 0..PAUSE {
            room.note(true, 2000);
        }
        assert_eq!(room.of(2000), 2000);
        room.note(true, 2000);
        assert_eq!(room.of(2000), 1000);
    }

    #[test]
    fn quick_groups_stay_together_and_slow_ones_are_spread() {
        let mut pace = spread(false);
        let open = [(1, rows(&[1])), (2, rows(&[2]))];
        pace.took(Duration::from_millis(1));
        assert_eq!(worker_of((3, pace), &rows(&[3]), &open), Some(2));
        assert_eq!(worker_of((3, pace), &rows(&[1]), &open), Some(1));
        for _ in 0..200 {
            pace.took(Duration::from_millis(4));
        }
        assert_eq!(worker_of((3, pace), &rows(&[3]), &open), Some(0));
        for _ in 0..200 {
            pace.took(Duration::from_millis(1));
        }
        assert_eq!(worker_of((3, pace), &rows(&[3]), &open), Some(0));
        for _ in 0..200 {
            pace.took(Duration::from_micros(200));
        }
        assert_eq!(worker_of((3, pace), &rows(&[3]), &open), Some(2));
    }

    #[test]
    fn groups_that_do_not_meet_go_to_whoever_has_least_to_do() {
        assert_eq!(worker(&rows(&[1]), &[]), Some(0));
        let one = (0, rows(&[1, 5]));
        assert_eq!(worker(&rows(&[2, 6]), std::slice::from_ref(&one)), Some(1));
        let two = [one.clone(), (1, rows(&[2, 6]))];
        assert_eq!(worker(&rows(&[0, 3, 9]), &two), Some(2));
        let three = [one.clone(), (2, rows(&[2])), (1, rows(&[3])), one];
        assert_eq!(worker(&rows(&[4]), &three), Some(1));
    }

    #[test]
    fn a_group_follows_the_one_it_meets() {
        let open = [(1, rows(&[1, 5])), (2, rows(&[2]))];
        assert_eq!(worker(&rows(&[5, 7]), &open), Some(1));
        assert_eq!(worker(&rows(&[2]), &open), Some(2));
    }

    #[test]
    fn a_group_that_meets_two_sessions_waits() {
        let open = [(1, rows(&[1, 5])), (2, rows(&[2]))];
        assert_eq!(worker(&rows(&[2, 5]), &open), None);
    }

    #[test]
    fn what_stands_for_everything_goes_alone() {
        let everything = Touched::Everything;
        assert_eq!(worker(&everything, &[]), Some(0));
        let on_the_first = [(0, rows(&[1])), (0, rows(&[2]))];
        assert_eq!(worker(&everything, &on_the_first), Some(0));
        assert_eq!(worker(&everything, &[(1, rows(&[]))]), None);
        assert_eq!(worker(&rows(&[9]), &[(0, everything.clone())]), Some(0));
    }

    fn touched() -> impl Strategy<Value = Touched> {
        let keys = prop::collection::btree_set(0..12u64, 0..4);
        prop_oneof![
            8 => keys.prop_map(|keys| Touched::Rows(keys.into_iter().collect())),
            1 => Just(Touched::Everything),
        ]
    }

    proptest! {
        /// Groups come and are committed in order; at no time do two sessions hold groups that meet,
        /// and in the end every group has gone.
        #[test]
        fn no_two_sessions_ever_hold_what_meets(groups in prop::collection::vec(touched(), 1..40)) {
            let mut open: Vec<(usize, Touched)> = Vec::new();
            for group in groups {
                let chosen = loop {
                    match worker(&group, &open) {
                        Some(chosen) => break chosen,
                        None => drop(open.remove(0)),
                    }
                };
                let elsewhere = open.iter().filter(|(on, _)| *on != chosen);
                for (_, other) in elsewhere {
                    prop_assert!(!group.meets(other) && !other.meets(&group));
                }
                prop_assert!(chosen < 3 && (chosen == 0 || group != Touched::Everything));
                open.push((chosen, group));
                if open.len() > 8 {
                    open.remove(0);
                }
            }
        }
    }
}
