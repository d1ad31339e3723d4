//! The sessions that write beside the first.

use crate::apply::send::prepared::Prepared;
use crate::wire::Session;

/// A session beside the first, with the name of the origin it holds.
pub(in crate::apply) struct Worker {
    pub(in crate::apply) session: Session,
    pub(in crate::apply) origin: String,
}

/// Where a group stands among those that are on their way.
pub(in crate::apply) struct Turn {
    /// The statement after `begin`.
    pub(in crate::apply) take: Prepared,
    /// The statement before the position is moved, where another session must be waited for.
    pub(in crate::apply) wait: Option<Prepared>,
}

/// The sessions beside the first.
#[derive(Default)]
pub(in crate::apply) struct Workers {
    pub(in crate::apply) further: Vec<Worker>,
    /// The one whose session the applier has in hand instead of its own.
    pub(in crate::apply) on: usize,
    /// The session and the turn of the group that was sent last, where it has one.
    pub(in crate::apply) last: Option<(usize, i32)>,
    /// For the group about to be sent.
    pub(in crate::apply) turn: Option<Turn>,
    pub(in crate::apply) turns: i32,
}

impl Workers {
    /// The origin that the session in hand holds, where it is not the first.
    pub(in crate::apply) fn origin(&self) -> Option<&str> {
        let worker = self.further.get(self.on.checked_sub(1)?)?;
        Some(&worker.origin)
    }

    pub(in crate::apply) fn next_turn(&mut self) -> i32 {
        self.turns = self.turns.wrapping_add(1);
        self.turns
    }
}

/// Ends what is open on a session that holds `origin`, or held it until it failed.
pub(in crate::apply) fn reset(origin: &str) -> String {
    format!(
        "rollback; select pg_catalog.pg_replication_origin_xact_reset(); \
         select pg_catalog.pg_replication_origin_session_setup('{origin}') \
         where not pg_catalog.pg_replication_origin_session_is_setup(); \
         select pg_catalog.pg_advisory_unlock_all()"
    )
}
