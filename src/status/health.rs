//! What a link is doing, so that it is true over time and not only at the moment. Pure.
//!
//! A link that cannot go on connects again and again, and each time it looks for a moment as if it
//! moved. So a failure lasts from the first time until something was applied that was not before,
//! or nothing is left to apply; whatever the attempts between look like.

use super::model::LinkState;
use crate::commit_time::CommitTime;

/// How far a link has come: transactions applied, and rows of one that is being written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reached {
    /// Source transactions applied since the daemon started.
    pub(super) transactions: u64,
    /// Rows written of the next one.
    pub(super) rows: u64,
}

/// A link's state with its reason.
#[derive(Debug)]
pub(super) struct Health {
    state: LinkState,
    since: CommitTime,
    reason: Option<String>,
    failure: Option<Failure>,
    wait: Option<Wait>,
}

/// The link cannot go on.
#[derive(Debug)]
struct Failure {
    since: CommitTime,
    /// The furthest that it came.
    reached: Reached,
}

/// A lock that somebody else holds.
#[derive(Debug)]
struct Wait {
    since: CommitTime,
    sentence: String,
    /// It is waited for now; else it was when the link failed.
    lasts: bool,
}

impl Health {
    /// A link that has just begun.
    pub(super) fn new(reason: &str, now: CommitTime) -> Self {
        Self {
            state: LinkState::Starting,
            since: now,
            reason: Some(reason.to_owned()),
            failure: None,
            wait: None,
        }
    }

    /// The state. A link that waits for a lock is not streaming, whatever it did before.
    pub(super) fn state(&self) -> LinkState {
        match &self.wait {
            Some(wait) if wait.lasts && self.state.moves() => LinkState::Waiting,
            _ => self.state,
        }
    }

    /// Since when it is in that state, or has failed.
    pub(super) fn since(&self) -> CommitTime {
        match &self.wait {
            Some(wait) if wait.lasts && self.state.moves() => wait.since.max(self.since),
            _ => self.since,
        }
    }

    /// Why it does not stream.
    pub(super) fn reason(&self) -> Option<String> {
        match (&self.wait, &self.reason) {
            (Some(wait), _) if self.state.moves() && wait.lasts => Some(wait.sentence.clone()),
            (Some(wait), Some(reason)) if self.failure.is_some() => {
                Some(format!("{reason}; {}", wait.sentence))
            }
            (_, reason) => reason.clone(),
        }
    }

    /// Whether the link has failed and nothing was applied since.
    pub(super) fn is_failing(&self) -> bool {
        self.failure.is_some()
    }

    /// A person or the daemon decided: earlier failures are over. `since` stays while the state
    /// stays.
    pub(super) fn set(&mut self, state: LinkState, reason: Option<String>, now: CommitTime) {
        self.failure = None;
        if state != self.state {
            self.since = now;
        }
        (self.state, self.reason) = (state, reason);
        if !state.moves() {
            self.wait = None;
        }
    }

    /// The link moves, as far as it can tell. Believed after a failure only where it has come
    /// further than ever, or `is_done`: nothing is left to apply.
    pub(super) fn moves(
        &mut self,
        (state, reason): (LinkState, Option<String>),
        (reached, is_done): (Reached, bool),
        now: CommitTime,
    ) {
        let failed = self.failure.as_ref();
        if failed.is_some_and(|failure| reached <= failure.reached && !is_done) {
            return;
        }
        self.wait.take_if(|wait| !wait.lasts);
        self.set(state, reason, now);
    }

    /// The link cannot go on. Since the first time.
    pub(super) fn fails(
        &mut self,
        (state, reason): (LinkState, String),
        reached: Reached,
        now: CommitTime,
    ) {
        let failure = self.failure.get_or_insert(Failure {
            since: now,
            reached,
        });
        failure.reached = failure.reached.max(reached);
        self.since = failure.since;
        self.state = state;
        self.reason = Some(reason);
    }

    /// Whether a lock is waited for, since when, and who holds it.
    pub(super) fn waits(&mut self, wait: Option<(CommitTime, String)>) {
        match wait {
            Some((since, sentence)) => {
                self.wait = Some(Wait {
                    since,
                    sentence,
                    lasts: true,
                });
            }
            None if self.failure.is_some() => {
                if let Some(wait) = &mut self.wait {
                    wait.lasts = false;
                }
            }
            None => self.wait = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> CommitTime {
        CommitTime::from_postgres_micros(second * 1_000_000)
    }

    fn reached(transactions: u64, rows: u64) -> Reached {
        Reached { transactions, rows }
    }

    fn streams(health: &mut Health, come: (Reached, bool), second: i64) {
        health.moves((LinkState::Streaming, None), come, at(second));
    }

    fn fails(health: &mut Health, state: LinkState, come: Reached, second: i64) {
        health.fails((state, format!("no {second}")), come, at(second));
    }

    #[test]
    fn a_failure_lasts_until_something_was_applied() {
        let mut health = Health::new("begins", at(0));
        streams(&mut health, (reached(5, 0), true), 1);
        fails(&mut health, LinkState::Retrying, reached(5, 40), 2);
        for second in 3..20 {
            // Another connection; the rows that went well before go well again.
            streams(&mut health, (reached(5, 40), false), second);
            assert!(!health.state().moves());
            fails(&mut health, LinkState::Blocked, reached(5, 10), second);
            assert_eq!(
                (health.state(), health.since()),
                (LinkState::Blocked, at(2))
            );
            assert_eq!(health.reason(), Some(format!("no {second}")));
        }
        streams(&mut health, (reached(5, 41), false), 21);
        assert_eq!(
            (health.state(), health.since()),
            (LinkState::Streaming, at(21))
        );
        assert!(!health.is_failing() && health.reason().is_none());
    }

    #[test]
    fn with_nothing_left_to_apply_a_failure_is_over() {
        let mut health = Health::new("begins", at(0));
        fails(&mut health, LinkState::Retrying, reached(5, 0), 2);
        streams(&mut health, (reached(5, 0), false), 3);
        assert!(health.is_failing());
        streams(&mut health, (reached(5, 0), true), 4);
        assert_eq!(
            (health.state(), health.since()),
            (LinkState::Streaming, at(4))
        );
    }

    #[test]
    fn a_person_who_pauses_ends_the_failure() {
        let mut health = Health::new("begins", at(0));
        fails(&mut health, LinkState::Blocked, reached(0, 0), 2);
        health.set(LinkState::Paused, Some("by hand".into()), at(3));
        assert_eq!(
            (health.state(), health.is_failing()),
            (LinkState::Paused, false)
        );
    }

    #[test]
    fn who_holds_the_lock_is_told_while_it_lasts_and_with_the_failure_it_led_to() {
        let mut health = Health::new("begins", at(0));
        streams(&mut health, (reached(5, 0), true), 1);
        health.waits(Some((at(4), "waits for X".into())));
        assert_eq!(
            (health.state(), health.since()),
            (LinkState::Waiting, at(4))
        );
        assert_eq!(health.reason().as_deref(), Some("waits for X"));
        // A look at the queue changes nothing.
        streams(&mut health, (reached(5, 0), true), 5);
        assert_eq!(health.state(), LinkState::Waiting);
        fails(&mut health, LinkState::Retrying, reached(5, 0), 34);
        health.waits(None);
        assert_eq!(health.reason().as_deref(), Some("no 34; waits for X"));
        streams(&mut health, (reached(6, 0), false), 40);
        assert_eq!(
            (health.state(), health.reason()),
            (LinkState::Streaming, None)
        );
        health.waits(Some((at(41), "waits for Y".into())));
        health.waits(None);
        assert_eq!(health.state(), LinkState::Streaming);
    }
}
