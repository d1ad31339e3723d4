//! Moves the link's position on in the transaction that applies: `mmrepl.apply_position`.

use crate::apply::error::ApplyError;
use crate::apply::send::positions::Positions;
use crate::apply::send::prepared::{BEGIN, COMMIT, Prepared};
use crate::apply::send::transaction::{Applier, Committed};
use crate::assemble::{Piece, TxEnd};
use crate::catalog::position::Witness;
use crate::conflict::{Marker, Seen};
use crate::lsn::Lsn;
use crate::wire::{Outcome, WireError};

/// The last act of an apply transaction.
const FINISH: &str = "select mmrepl.finish($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
/// What ends a transaction that an earlier stream has left out.
const FINISH_MISSED: &str = "select mmrepl.finish_missed($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

impl Applier {
    /// Applies a part of a transaction that lies before the link's position and was left out by the
    /// stream; see `mmrepl.finish_missed`. The position stays.
    pub async fn make_up_for(&mut self, piece: &Piece, in_order: bool) -> Result<(), ApplyError> {
        let position = self
            .position
            .missed_before
            .unwrap_or(self.position.committed);
        self.position.missed_before = Some(position);
        let applied = self.apply_part(piece, in_order).await;
        self.position = Positions {
            missed_before: Some(position),
            ..Positions::at(position)
        };
        applied.map(drop)
    }

    /// Nothing is left to be made up for.
    pub fn made_up(&mut self) {
        self.position.missed_before = None;
    }

    /// The statements that end a transaction: see `commit`.
    pub(in crate::apply) fn ending(&self, end: TxEnd, seen: &Seen) -> Vec<Prepared> {
        let marker = Marker {
            cluster: self.origins.cluster().clone(),
            node: self.source.clone(),
            commit_lsn: end.commit_lsn,
            time: self.newest,
        };
        let (finish, previous, taken) = match self.position.missed_before {
            None => (FINISH, self.position.sent, Some(self.counted.to_string())),
            // Its rows were looked at.
            Some(position) => (FINISH_MISSED, position, None),
        };
        let mut parameters = vec![
            self.source.to_string(),
            previous.to_string(),
            end.commit_lsn.to_string(),
            end.end_lsn.to_string(),
            self.newest.to_string(),
            seen.to_string(),
            self.session_origin(),
            self.origins.secret().sealed(&marker.to_string()),
            self.witness.xid.to_string(),
            self.witness.time.to_string(),
        ];
        parameters.extend(taken);
        std::iter::once((finish, parameters))
            .chain(COMMIT)
            .collect()
    }

    /// The name of the origin that the session in hand holds.
    fn session_origin(&self) -> String {
        let first = || self.origins.session_origin();
        self.workers.origin().map_or_else(first, str::to_owned)
    }

    /// What the answer to `COMMIT`, the last one, says.
    pub(in crate::apply) fn committed(
        &mut self,
        outcomes: &[Outcome],
        source_end: Lsn,
    ) -> Result<Committed, ApplyError> {
        self.position.committed = source_end;
        Ok(Committed {
            source_end,
            target_written: last_position(outcomes, 0)?,
            target_flushed: last_position(outcomes, 1)?,
        })
    }

    /// Moves the position past WAL that holds nothing for this link, so that it can be recycled.
    /// `witness` is a transaction of the source that committed after all of it.
    pub async fn advance(
        &mut self,
        end: Lsn,
        seen: &Seen,
        witness: Option<Witness>,
    ) -> Result<Committed, ApplyError> {
        let before = self.position.committed.to_string();
        let mut parameters = vec![
            self.source.to_string(),
            before,
            end.to_string(),
            seen.to_string(),
        ];
        parameters.extend(
            witness
                .iter()
                .flat_map(|witness| [witness.xid.to_string(), witness.time.to_string()]),
        );
        let statement = match witness {
            Some(_) => "select mmrepl.advance_position($1, $2, $3, $3, null, $4, $5, $6)",
            None => "select mmrepl.advance_position($1, $2, $3, $3, null, $4, null, null)",
        };
        let mut statements: Vec<Prepared> = vec![
            (BEGIN, vec![]),
            ("select pg_replication_origin_xact_reset()", vec![]),
            (statement, parameters),
        ];
        statements.extend(COMMIT);
        let outcomes = self.run_all(&statements).await?;
        self.position.sent = end;
        self.committed(&outcomes, end)
    }

    /// How far the target's WAL is flushed now.
    pub async fn flushed(&mut self) -> Result<Lsn, ApplyError> {
        let outcomes = self
            .run_all(&[("select pg_current_wal_flush_lsn()::text", Vec::new())])
            .await?;
        last_position(&outcomes, 0)
    }
}

/// A WAL position in the answer to the last statement. Without it nothing is known to be durable.
fn last_position(outcomes: &[Outcome], column: usize) -> Result<Lsn, ApplyError> {
    let what = "the end of the target's WAL after a commit";
    let last = outcomes.last().ok_or(WireError::Unreadable { what });
    let position = last.and_then(|outcome| outcome.get(0, column, what));
    position.map_err(|source| ApplyError::target(source, None))
}
