//! Tables that were rewritten: rows whose `xmin` says nothing about when they were written.
//!
//! `alter table … type`, a volatile default, a stored generated column, `set unlogged`: such a
//! command writes every row anew, so every row gets the command's transaction as its `xmin`, and
//! with it another version: the time of the command, by the node where it was typed. Nothing of it
//! is in the stream. A change that another node made before would lose against rows that nobody
//! wrote since, on this node only, and a later one would look like a conflict. (VACUUM FULL,
//! CLUSTER and SET TABLESPACE keep `xmin`.)
//!
//! *What must be known of a rewritten row.* Whether a change that arrives is newer than it, and
//! whether the change's node knew it. Both are settled for most rows: everything that a source
//! still sends lies behind the position that the target has of it, and the position row says what
//! the source had applied by then (`seen`). What a node wrote and every other node had seen by its
//! position is older than all that can still arrive, by the clock rule, and no rival of it. For
//! such rows the answer "long ago" is exact, and it is the one that a row of unknown version gets
//! anyway. In a pair they are all rows that the peer wrote, and all own ones that it had seen. Only
//! the others have a version that matters: the time and the origin of each are kept beside the rows
//! (`mmrepl.kept_version`), by a hash of the row's key.
//!
//! *How they are kept.* An event trigger sees that a table is about to be rewritten. By then its
//! columns are described as they will be, so their old values cannot be read; but `xmin` can, and a
//! rewrite keeps the order of rows. So the places, in the order of a scan, of rows with a version
//! that matters are remembered before, and the keys at these places are read after. Rows that the
//! same transaction wrote itself, before or after, have its own version: before, they are seen as
//! not committed; after, by their command, as the transaction commits.
//!
//! *What is forgotten when.* A kept version is needed until nothing can arrive any more that was
//! made without knowing it: the question that decides about tombstones (`housekeeping`). From then
//! on rows are as old as the rewrite, which is older than all that arrives.
//!
//! *Where no event trigger can be made*, or it fails: the table has another file than the one that
//! was remembered (`mmrepl.table_file`), and the catalog's rows of the table, its indexes and its
//! large values say which transaction gave it to them. A row of that very transaction, which did
//! not empty the table first, is one whose time nobody knows. VACUUM FULL, CLUSTER and the like
//! change the file too, but write no rows. A change from before the rewrite that meets such a row
//! is not judged: the link is blocked, and says who can decide. A later one wins in any case.

use std::sync::Arc;

use crate::apply::error::ApplyError;
use crate::apply::plan::change::RowChange;
use crate::apply::send::transaction::Applier;
use crate::apply::target::statement::Target;
use crate::conflict::Local;

impl Applier {
    /// Refuses to judge a change from before a rewrite by what the rewrite made of a row.
    pub(in crate::apply) fn refuse_forged(
        &self,
        row: &RowChange,
        local: &Local,
        forged: bool,
    ) -> Result<(), ApplyError> {
        let version = local.row.as_ref().and_then(|row| row.version.as_ref());
        match version {
            Some(version) if forged && row.since <= version.time => {
                Err(self.rewritten(&row.target))
            }
            _ => Ok(()),
        }
    }

    /// Nobody knows when rows of the table were written.
    pub(in crate::apply) fn rewritten(&self, target: &Arc<Target>) -> ApplyError {
        ApplyError::Rewritten {
            table: target.map.label(),
            source_node: self.source.clone(),
            target: self.origins.target().clone(),
        }
    }
}
