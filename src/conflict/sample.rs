//! Keeping a storm of conflicts from filling the disk: from a limit on, only a sample is recorded.

use std::collections::HashMap;

use crate::commit_time::CommitTime;

/// Conflicts of one table that a link records in one minute before it begins to sample, unless the
/// configuration says otherwise.
pub const RECORDED_PER_MINUTE: u64 = 100_000;
/// Beyond the limit, one in so many is recorded.
pub const SAMPLED_ONE_IN: u64 = 100;

const MINUTE_MICROS: i64 = 60_000_000;

/// Decides which conflicts of a link are recorded, by table.
#[derive(Debug)]
pub struct Sampler {
    limit: u64,
    minute: i64,
    /// Conflicts of this minute.
    counts: HashMap<u32, u64>,
}

impl Sampler {
    /// Records `limit` conflicts per table and minute, and of those beyond it a sample.
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            minute: i64::MIN,
            counts: HashMap::new(),
        }
    }

    /// Whether the next conflict of `table`, met at `now`, is to be recorded.
    pub fn take(&mut self, table: u32, now: CommitTime) -> bool {
        let count = self.count(table, now);
        *count += 1;
        let count = *count;
        count <= self.limit || (count - self.limit).is_multiple_of(SAMPLED_ONE_IN)
    }

    /// How many of `wanted` conflicts of `table`, all met at `now`, are to be recorded.
    pub fn take_many(&mut self, table: u32, wanted: u64, now: CommitTime) -> u64 {
        let limit = self.limit;
        let count = self.count(table, now);
        let room = limit.saturating_sub(*count);
        *count += wanted;
        wanted.min(room)
    }

    fn count(&mut self, table: u32, now: CommitTime) -> &mut u64 {
        let minute = now.as_postgres_micros().div_euclid(MINUTE_MICROS);
        if minute != self.minute {
            self.minute = minute;
            self.counts.clear();
        }
        self.counts.entry(table).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> CommitTime {
        CommitTime::from_postgres_micros(seconds * 1_000_000)
    }

    fn recorded(sampler: &mut Sampler, table: u32, count: usize, seconds: i64) -> usize {
        let taken = (0..count).filter(|_| sampler.take(table, at(seconds)));
        taken.count()
    }

    #[test]
    fn up_to_the_limit_all_are_recorded_and_then_a_sample() {
        let mut sampler = Sampler::new(10);
        assert_eq!(recorded(&mut sampler, 1, 10, 0), 10);
        assert_eq!(recorded(&mut sampler, 1, 1000, 1), 10);
        assert_eq!(recorded(&mut sampler, 2, 5, 2), 5);
        assert_eq!(recorded(&mut sampler, 1, 10, 60), 10);
    }

    #[test]
    fn many_at_once_fill_what_is_left() {
        let mut sampler = Sampler::new(10);
        assert_eq!(sampler.take_many(1, 4, at(0)), 4);
        assert_eq!(sampler.take_many(1, 100, at(0)), 6);
        assert_eq!(sampler.take_many(1, 100, at(0)), 0);
        assert_eq!(sampler.take_many(1, 3, at(60)), 3);
    }
}
