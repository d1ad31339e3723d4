//! `COPY` for long runs of inserts: when to try, and when not. Pure.
//!
//! A copy is the cheapest way to insert, but it cannot leave out a row that is there already: one
//! duplicate fails all of it, and with it the target transaction. The transaction is then applied
//! again without copying into that table, and so are the next ones for a while. A large transaction
//! is begun again, and then no row of it copied.

use std::collections::HashMap;

use crate::lsn::Lsn;

/// Fewer rows than this are not worth a copy.
pub(in crate::apply) const COPY_ROWS_MIN: usize = 50;
/// Fewer rows than this are not worth a copy into a table without a key, where no other statement
/// takes many rows.
pub(in crate::apply) const APPENDED_ROWS_MIN: usize = 10;
/// In a group that fails as a whole where a row is there already, as few are copied: a copy is not
/// planned, so it costs less than a statement for many rows, and the first one for a table far less
/// than to prepare that.
const AHEAD_ROWS_MIN: usize = 2;
/// So many times a single row is copied into a table that no statement was prepared for. Most of a
/// schema's tables are seldom written.
const SINGLES_MAX: u8 = 4;
/// As many rows go in one copy …
const FEW_ROWS: usize = 100;
/// … unless there are as many as this: then all of them do. The server makes up to 1000 rows ready
/// before it writes them, and each holds an entry of the same name in a list that is searched from
/// the first one on (`ResourceOwnerAddToHash`, and its like before 17). The square of 1000 costs as
/// much as writing several thousand rows; no copy pays it more than once.
const MANY_ROWS: usize = 4_000;
/// A table whose copy failed is not copied into for so many rows; twice as many the next time …
const PAUSE_ROWS_MIN: u64 = 20_000;
/// … up to this many.
const PAUSE_ROWS_MAX: u64 = 2_000_000;

/// Which tables rows are copied into. Outlives a link's connections.
#[derive(Debug, Default)]
pub struct Copies {
    many: HashMap<u32, Pause>,
    /// One row that is there already fails a copy of few rows as it does one of many. It is no
    /// reason to write many rows otherwise.
    few: HashMap<u32, Pause>,
    /// How many single rows were copied into each table.
    singles: HashMap<u32, u8>,
    /// Of transactions that commit up to here no row is copied.
    none_until: Lsn,
    /// That holds for the one in hand.
    is_off: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Pause {
    /// Rows still to be inserted otherwise.
    left: u64,
    /// How long the last pause was.
    length: u64,
}

impl Pause {
    /// Whether it is over; where not, these rows are inserted otherwise.
    fn is_over(&mut self, rows: usize) -> bool {
        let is_over = self.left == 0;
        self.left = self.left.saturating_sub(rows as u64);
        is_over
    }

    fn begin(&mut self) {
        self.length = (self.length * 2).clamp(PAUSE_ROWS_MIN, PAUSE_ROWS_MAX);
        self.left = self.length;
    }
}

impl Copies {
    /// A large transaction that commits at `end` has to be begun again because of a copy: once is
    /// enough.
    pub(in crate::apply) fn none_until(&mut self, end: Lsn) {
        self.none_until = end.max(self.none_until);
    }

    /// The next rows are of a transaction that commits at `end`.
    pub(in crate::apply) fn begin(&mut self, end: Lsn) {
        self.is_off = end <= self.none_until;
    }

    /// Whether `rows` may be copied into a table. Where not, they count as inserted otherwise.
    pub(in crate::apply) fn may(&mut self, table: u32, rows: usize) -> bool {
        let pause = self.many.get_mut(&table);
        !self.is_off && pause.is_none_or(|pause| pause.is_over(rows))
    }

    /// Whether so few rows may be copied into a table, in a group that fails as a whole.
    pub(in crate::apply) fn may_few(&mut self, table: u32, rows: usize) -> bool {
        let is_paused = self.many.get(&table).is_some_and(|pause| pause.left > 0);
        let of_few = self.few.get_mut(&table);
        if self.is_off || is_paused || !of_few.is_none_or(|pause| pause.is_over(rows)) {
            return false;
        }
        if rows >= AHEAD_ROWS_MIN {
            return true;
        }
        let singles = self.singles.entry(table).or_default();
        let may = *singles < SINGLES_MAX;
        *singles += u8::from(may);
        may
    }

    /// A copy into the table failed.
    pub(in crate::apply) fn failed(&mut self, table: u32) {
        self.many.entry(table).or_default().begin();
    }

    /// A copy of few rows into the table failed.
    pub(in crate::apply) fn failed_with_few(&mut self, table: u32) {
        self.few.entry(table).or_default().begin();
    }
}

/// How many of so many rows go in one copy.
pub(in crate::apply) fn copied_at_once(rows: usize) -> usize {
    if rows < MANY_ROWS { FEW_ROWS } else { rows }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_failed_is_left_alone_for_longer_and_longer() {
        let mut copies = Copies::default();
        assert!(copies.may(1, 100));
        copies.failed(1);
        assert!(copies.may(2, 100), "another table");
        let rows = usize::try_from(PAUSE_ROWS_MIN).unwrap();
        assert!(!copies.may(1, rows - 1));
        assert!(!copies.may(1, 1));
        assert!(copies.may(1, 100));
        copies.failed(1);
        assert!(!copies.may(1, 2 * rows - 1));
        assert!(!copies.may(1, 100));
        assert!(copies.may(1, 100));
        for _ in 0..50 {
            copies.failed(1);
        }
        let most = usize::try_from(PAUSE_ROWS_MAX).unwrap();
        assert!(!copies.may(1, most));
        assert!(copies.may(1, 1));
    }

    #[test]
    fn few_rows_that_failed_do_not_keep_many_from_being_copied() {
        let mut copies = Copies::default();
        assert!(copies.may_few(1, 3));
        copies.failed_with_few(1);
        assert!(copies.may(1, 100));
        let rows = usize::try_from(PAUSE_ROWS_MIN).unwrap();
        assert!(!copies.may_few(1, rows));
        assert!(copies.may_few(1, 3), "the pause is over");
        copies.failed(1);
        assert!(!copies.may_few(1, 3), "what fails many fails few");
    }

    #[test]
    fn of_a_transaction_that_is_begun_again_nothing_is_copied() {
        let mut copies = Copies::default();
        copies.none_until(Lsn::new(20));
        copies.begin(Lsn::new(20));
        assert!(!copies.may(1, 100));
        copies.begin(Lsn::new(21));
        assert!(copies.may(1, 100));
    }
}
