//! When to ask the source for transactions that are still running.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// After giving one up, transactions are asked for once they are committed, for so long …
const PAUSE_MIN: Duration = Duration::from_secs(60);
/// … and at most for so long, where that happens again and again.
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// When to ask for transactions that are still running. Outlives a link's connections.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Patience {
    until: Option<Instant>,
    pause: Duration,
}

impl Patience {
    /// Whether to ask for them.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    /// One was given up; gives for how long none is asked for.
    pub(super) fn gave_up(&mut self, now: Instant) -> Duration {
        self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        self.until = Some(now + self.pause);
        self.pause
    }

    /// One was committed.
    pub(super) fn committed(&mut self) {
        self.pause = Duration::ZERO;
    }

    /// Waits until they may be asked for.
    pub(super) async fn over(&self) {
        if let Some(until) = self.until {
            sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn giving_up_makes_for_longer_and_longer_pauses() {
        let now = Instant::now();
        let mut patience = Patience::default();
        assert!(patience.is_over(now));
        assert_eq!(patience.gave_up(now), PAUSE_MIN);
        assert!(!patience.is_over(now));
        assert!(patience.is_over(now + PAUSE_MIN));
        assert_eq!(patience.gave_up(now), 2 * PAUSE_MIN);
        for _ in 0..20 {
            patience.gave_up(now);
        }
        assert_eq!(patience.gave_up(now), PAUSE_MAX);
        patience.committed();
        assert_eq!(patience.gave_up(now), PAUSE_MIN);
    }
}
