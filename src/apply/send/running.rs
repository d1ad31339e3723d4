//! Transactions that are still running on the source: written as they come, in a target transaction
//! of their own that stays open, and committed once the source has committed.
//!
//! Nothing here decides anything. A row is written where its write can be judged without knowing
//! when the source will commit; for every other row the caller gives up, and the transaction is
//! applied when all of it is known. Why no commit time is needed for the rest, in tables where time
//! decides and with two nodes:
//!
//! - A row that the source wrote itself, or whose version is unknown, is older in any case.
//! - A row that the source had seen when it made the change is older than the change: the source
//!   applied it only after its own clock had passed that row's time. A clock that was set back
//!   since shows in the end, when the commit time is known: it must lie above all that was seen
//!   ([`Applier::commit_running`]).
//! - The same holds for the deletes that an insert meets. Once the row is there, or its key is
//!   taken, nobody can delete it before this transaction ends.
//!
//! On the source the transaction's locks keep others from its rows until it ends; so changes that
//! are applied in between touch none of the rows that are locked here.

use crate::apply::error::ApplyError;
use crate::apply::plan::change::Entry;
use crate::apply::plan::choose::Approach;
use crate::apply::send::ahead;
use crate::apply::send::ahead::Sent;
use crate::apply::send::transaction::{Applier, Committed};
use crate::apply::shape::op::RowOp;
use crate::apply::sql::tombstones::WITH_TOMBSTONES;
use crate::assemble::{Piece, TxEnd, TxHeader};
use crate::catalog::CatalogError;
use crate::catalog::position::Witness;
use crate::commit_time::CommitTime;
use crate::conflict::{Rule, Seen};
use crate::lsn::Lsn;
use crate::wire::{RowExt, each};

/// Microseconds by which a commit time lies ahead of the target's clock; below zero once it has
/// passed.
const CLOCK: &str = "select ceil(extract(epoch from \
                     $1::timestamptz - pg_catalog.clock_timestamp()) * 1000000)::bigint::text";

/// What the look is for.
const LOOK: &str = "look for tombstones";

impl Applier {
    /// Sends the next part of a running transaction without waiting for an answer.
    pub async fn send_running(&mut self, piece: &Piece) -> Result<Sent, ApplyError> {
        let target = self.origins.target();
        let seen = piece.seen.all().filter_map(|seen| seen.of(target)).max();
        self.highest_seen = self.highest_seen.max(seen);
        let pieces = std::slice::from_ref(piece);
        let segments = self.segments(pieces).await?;
        let segments = ahead::rows_only(&segments).ok_or(ApplyError::Untaken)?;
        for entries in &segments {
            if !entries.iter().all(is_judged_without_time) {
                return Err(ApplyError::Untaken);
            }
            self.look_for_tombstones(entries).await?;
        }
        // What is left out is locked by nobody until the commit.
        let planned = self.plans(&segments, Approach::Running);
        let planned = planned.ok_or(ApplyError::Untaken)?;
        self.send_plans(pieces, &planned).await
    }

    /// Learns which of the tables that are inserted into have tombstones.
    async fn look_for_tombstones(&mut self, entries: &[Entry]) -> Result<(), ApplyError> {
        let mut asked = Vec::new();
        for row in entries.iter().filter_map(Entry::row) {
            let oid = row.target.map.table.oid;
            if matches!(row.op, RowOp::Delete(_)) {
                // It may leave one, should a third node have joined.
                self.with_tombstones.insert(oid);
            } else if row.is_insert() && self.looked_for_tombstones.insert(oid) {
                asked.push(oid);
            }
        }
        if asked.is_empty() {
            return Ok(());
        }
        let found = self.catalog.query(WITH_TOMBSTONES, &[&asked]).await;
        let found = found.map_err(|error| no_answer(CatalogError::query(LOOK)(error)))?;
        let found: Vec<u32> = each(&found, |row| row.read(0)).map_err(|e| no_answer(e.into()))?;
        self.with_tombstones.extend(found);
        Ok(())
    }

    /// How far `time` lies ahead of the target's clock, in microseconds.
    pub async fn clock_behind(&mut self, time: CommitTime) -> Result<i64, ApplyError> {
        let parameters = [Some(time.to_string())];
        let parameters = parameters
            .each_ref()
            .map(|p| p.as_deref().map(str::as_bytes));
        let answer = self.run_one(CLOCK, &parameters, None).await?;
        let micros = answer.get(0, 0, "how far the target's clock is behind");
        micros.map_err(|source| ApplyError::target(source, None))
    }

    /// Commits a running transaction, all of whose parts are written. The position stands at
    /// `position`, where everything before has left it.
    pub async fn commit_running(
        &mut self,
        header: TxHeader,
        end: TxEnd,
        (position, seen): (Lsn, &Seen),
    ) -> Result<Committed, ApplyError> {
        if self.highest_seen >= Some(header.commit_time) {
            return Err(ApplyError::Untaken);
        }
        self.newest = header.commit_time;
        self.witness = Witness {
            xid: header.xid,
            time: header.kept_time,
        };
        self.position.sent = position;
        let committed = self.commit(end, seen).await?;
        self.counts.transactions += 1;
        self.forget_running();
        Ok(committed)
    }

    /// Rolls a running transaction back.
    pub async fn abort_running(&mut self) -> Result<(), ApplyError> {
        self.rollback().await?;
        self.forget_running();
        Ok(())
    }

    fn forget_running(&mut self) {
        self.highest_seen = None;
        self.looked_for_tombstones.clear();
        self.with_tombstones.clear();
    }
}

fn no_answer(source: CatalogError) -> ApplyError {
    ApplyError::Catalog {
        table: "mmrepl.tombstone".to_owned(),
        source: Box::new(source),
    }
}

/// Whether the guards of a row's statements need no commit time.
fn is_judged_without_time(entry: &Entry) -> bool {
    entry.row().is_some_and(|row| {
        let by_time = *row.target.versions().rule() == Rule::LastWriteWins;
        by_time && row.target.guard().pair
    })
}
