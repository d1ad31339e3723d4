//! Changes that a person lets go by (`mmrepl skip`), because they cannot be applied.
//!
//! What a person asked for is a row of `mmrepl.skip` on the target. The transaction goes in order,
//! and in its own target transaction the rows of such changes go to the history instead of the
//! table, and the wish is marked as done. So it happens once, and `mmrepl conflicts restore` can
//! bring a row back later.

use std::sync::Arc;

use crate::apply::encode::params::{array_literal, value};
use crate::apply::error::ApplyError;
use crate::apply::send::skips::Skips;
use crate::apply::send::transaction::Applier;
use crate::assemble::{Change, Piece};
use crate::commit_time::CommitTime;
use crate::lsn::Lsn;
use crate::pgoutput::{Tuple, Value};
use crate::relation::{Relation, ReplicaIdentity};

/// Keeps a change that was let go by. Parameters: source, target, schema, table, names and values
/// of the key, names and values of the row, the commit time, the number of the source's origin.
const KEEP: &str = "insert into mmrepl.conflict (source, target, schema_name, table_name, \
     key_columns, key_values, kind, rule, outcome, incoming_columns, incoming_values, \
     incoming_time, incoming_origin) values ($1, $2, $3, $4, $5::text[], $6::text[], 'skipped', \
     'skip', 'kept_local', $7::text[], $8::text[], $9::timestamptz, $10::oid)";
/// Marks what was asked for as done. Parameters: source, the commit's position, how many changes.
const DONE: &str = "update mmrepl.skip set done_at = clock_timestamp(), changes = $3::int8 \
     where source = $1 and commit_lsn = $2::pg_lsn and done_at is null";

/// Names and values of columns as two arrays; large values that were not sent are left out.
fn arrays(relation: &Relation, tuple: &Tuple, wanted: impl Fn(usize) -> bool) -> [Vec<u8>; 2] {
    let columns = || {
        let columns = relation.columns.iter().zip(tuple.0.iter()).enumerate();
        let known =
            columns.filter(|(index, (_, value))| wanted(*index) && **value != Value::Unchanged);
        known.map(|(_, column)| column)
    };
    [
        array_literal(columns().map(|(column, _)| Some(column.name.as_bytes()))),
        array_literal(columns().map(|(_, found)| value(found))),
    ]
}

/// Names and values of what tells the row from others: where whole rows are sent, all that is not
/// NULL.
fn key_arrays(relation: &Relation, tuple: &Tuple) -> [Vec<u8>; 2] {
    let whole = relation.replica_identity == ReplicaIdentity::Full;
    arrays(relation, tuple, |index| {
        let is_null = tuple.0.get(index) == Some(&Value::Null);
        relation.columns[index].is_key && !(whole && is_null)
    })
}

impl Applier {
    /// Lets these changes go by. The last transaction that was applied committed at `last`.
    pub fn skip(&mut self, skips: Skips, last: Option<CommitTime>) {
        self.skips = skips;
        self.newest = last.unwrap_or_default();
    }

    /// Up to where transactions go in order because of it.
    pub fn skips_until(&self) -> Option<Lsn> {
        self.skips.until()
    }

    /// When what is written of a piece counts as written, which the target's clock must have
    /// passed. Of a transaction that is let go by as a whole only the history is written, so that
    /// its own commit time, which may be what stops the link, says nothing.
    pub(super) fn time_of(&self, piece: &Piece) -> CommitTime {
        let own = piece.header.commit_time;
        if self.skips.covers_all(piece) {
            own.min(self.newest)
        } else {
            own
        }
    }

    /// Keeps the change in the history where it is let go by, as a whole or in part; gives back
    /// what is still to be applied.
    pub(in crate::apply) async fn let_by(
        &mut self,
        piece: &Piece,
        change: &Change,
    ) -> Result<Option<Change>, ApplyError> {
        let commit = piece.header.final_lsn;
        if !self.skips.concerns(commit) {
            return Ok(Some(change.clone()));
        }
        if let Change::Truncate {
            relations,
            cascade,
            restart_identity,
        } = change
        {
            let (gone, rest): (Vec<_>, Vec<_>) = relations
                .iter()
                .cloned()
                .partition(|relation| self.skips.covers(commit, relation));
            for relation in &gone {
                self.keep_skipped(piece, relation, (None, None)).await?;
            }
            return Ok((!rest.is_empty()).then(|| Change::Truncate {
                relations: rest,
                cascade: *cascade,
                restart_identity: *restart_identity,
            }));
        }
        let covered = |relation: &&Arc<Relation>| self.skips.covers(commit, relation);
        let Some(relation) = change.relation().filter(covered).cloned() else {
            return Ok(Some(change.clone()));
        };
        let rows = match change {
            Change::Insert { new, .. } | Change::Update { new, .. } => (Some(new), Some(new)),
            Change::Delete { old, .. } => (Some(old.tuple()), None),
            Change::Truncate { .. } | Change::Message { .. } => (None, None),
        };
        self.keep_skipped(piece, &relation, rows).await?;
        Ok(None)
    }

    /// Keeps one change: the row that has its key, and the row that it would have left.
    async fn keep_skipped(
        &mut self,
        piece: &Piece,
        relation: &Relation,
        (key, row): (Option<&Tuple>, Option<&Tuple>),
    ) -> Result<(), ApplyError> {
        self.skips.done += 1;
        let [key_names, key_values] = key.map(|key| key_arrays(relation, key)).unzip_two();
        let [names, values] = row.map(|row| arrays(relation, row, |_| true)).unzip_two();
        let time = piece.header.commit_time.to_string();
        let origin = self.origins.id_of(&self.source).to_string();
        let (source, target) = (self.source.to_string(), self.origins.target().to_string());
        let parameters = [
            Some(source.as_bytes()),
            Some(target.as_bytes()),
            Some(relation.schema.as_bytes()),
            Some(relation.name.as_bytes()),
            key_names.as_deref(),
            key_values.as_deref(),
            names.as_deref(),
            values.as_deref(),
            Some(time.as_bytes()),
            Some(origin.as_bytes()),
        ];
        self.run_one(KEEP, &parameters, None).await.map(drop)
    }

    /// Marks what was asked for as done, in the transaction that does it.
    pub(in crate::apply) async fn mark_skipped(&mut self, piece: &Piece) -> Result<(), ApplyError> {
        let commit = piece.header.final_lsn;
        if piece.end.is_none() || !self.skips.concerns(commit) {
            return Ok(());
        }
        let changes = std::mem::take(&mut self.skips.done).to_string();
        let (source, commit) = (self.source.to_string(), commit.to_string());
        let parameters = [&source, &commit, &changes].map(|text| Some(text.as_bytes()));
        self.run_one(DONE, &parameters, None).await.map(drop)
    }
}

/// Two arrays that are there or not.
trait UnzipTwo {
    fn unzip_two(self) -> [Option<Vec<u8>>; 2];
}

impl UnzipTwo for Option<[Vec<u8>; 2]> {
    fn unzip_two(self) -> [Option<Vec<u8>>; 2] {
        self.map_or([None, None], |arrays| arrays.map(Some))
    }
}
