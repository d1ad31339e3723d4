//! Other links that write the same key at the same time.
//!
//! A delete that finds no row leaves a tombstone. An insert of the same key by another link's open
//! transaction is not seen by it, and does not see the tombstone either: once both commit, a row
//! would outlive its newer delete. Where a target has more than one incoming link, an insert takes
//! the advisory lock of its table together with other inserts, and a delete that found no row takes
//! it alone and then looks again. So one of the two waits for the other's commit.
//!
//! Local writers need no such lock where time decides: a local insert that is under way commits
//! later than the delete, so it is the newer one; a local delete either locks its row or leaves
//! nothing. Where rows carry their version, a local insert under way may have one below the delete,
//! so it takes the lock as well (in `mmrepl.lift_versions`, before it looks for tombstones).

use std::collections::BTreeSet;

use crate::apply::error::ApplyError;
use crate::apply::plan::change::RowChange;
use crate::apply::send::transaction::Applier;
use crate::apply::shape::op::RowOp;
use crate::apply::write::refuse::lock;
use crate::conflict::Local;

/// The tables in which a delete found no row that another link may be about to insert.
fn tables_to_lock<'a>(rows: impl Iterator<Item = (&'a RowChange, &'a Local)>) -> BTreeSet<u32> {
    let absent = rows.filter(|(row, local)| {
        matches!(row.op, RowOp::Delete(_))
            && local.row.is_none()
            && !row.target.is_by_time_in_a_pair()
    });
    absent.map(|(row, _)| row.target.map.table.oid).collect()
}

impl Applier {
    /// Waits for inserts of other links into tables where a delete found no row; true when the rows
    /// must be looked at again.
    pub(in crate::apply) async fn wait_for_inserts<'a>(
        &mut self,
        rows: impl Iterator<Item = (&'a RowChange, &'a Local)>,
    ) -> Result<bool, ApplyError> {
        let tables = tables_to_lock(rows);
        self.keep_inserts_away(&tables).await?;
        Ok(!tables.is_empty())
    }

    /// Waits for inserts of others into these tables, and lets none begin.
    pub(in crate::apply) async fn keep_inserts_away(
        &mut self,
        tables: &BTreeSet<u32>,
    ) -> Result<(), ApplyError> {
        for oid in tables {
            self.run_one(&lock("pg_advisory_xact_lock", *oid), &[], None)
                .await?;
        }
        Ok(())
    }
}
