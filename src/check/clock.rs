//! Clocks of the nodes against each other.

use std::time::Duration;

use super::Problem;
use super::facts::NodeFacts;

/// Compares each node with the first. Each was measured against this machine, so the machine's own
/// clock falls out of the difference.
pub(super) fn check(skew_max: Duration, nodes: &[NodeFacts]) -> Vec<Problem> {
    let Some((first, rest)) = nodes.split_first() else {
        return Vec::new();
    };
    let skew_max_us = i64::try_from(skew_max.as_micros()).unwrap_or(i64::MAX);
    rest.iter()
        .map(|facts| pair(skew_max_us, first, facts))
        .collect()
}

fn pair(skew_max_us: i64, first: &NodeFacts, facts: &NodeFacts) -> Problem {
    let ahead_us = facts.clock.ahead_us.saturating_sub(first.clock.ahead_us);
    let doubt_us = i64::midpoint(facts.clock.round_trip_us, first.clock.round_trip_us);
    let direction = if ahead_us < 0 { "behind" } else { "ahead of" };
    let what = format!(
        "the clock is {} ms {direction} {}'s (within {} ms)",
        millis(ahead_us.saturating_abs()),
        first.name,
        millis(doubt_us)
    );
    if ahead_us.saturating_abs() > skew_max_us.saturating_add(doubt_us) {
        let what = format!("{what}; max_clock_skew is {} ms", millis(skew_max_us));
        Problem::error(&facts.name, what)
            .note("synchronise the clocks (chronyc makestep, timedatectl set-ntp true)")
    } else {
        Problem::info(&facts.name, what)
    }
}

/// Milliseconds with one decimal.
fn millis(micros: i64) -> String {
    format!("{}.{}", micros / 1000, (micros % 1000) / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_have_one_decimal() {
        assert_eq!(millis(1_250), "1.2");
        assert_eq!(millis(40), "0.0");
    }
}
