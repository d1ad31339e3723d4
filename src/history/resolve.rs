//! Deciding a conflict that waits for a person: a new write that knows both of the two.
//!
//! The write is made on the node that holds the record, by an ordinary session. The trigger that
//! keeps versions is told what else the write knows (`mmrepl.known`), so every node replaces with
//! it whichever of the two it has.

use postgres_protocol::escape::{escape_identifier as quote, escape_literal as literal};
use tokio_postgres::Client;

use super::model::{Conflict, ConflictId};
use super::restore::{delete, insert, key, table_of, unfit, update};
use super::{HistoryError, one};
use crate::catalog::table::Table;
use crate::conflict::KNOWN_COLUMN;
use crate::wire::{RowExt, Unread, from_tokio_postgres};

/// Whose row stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Take {
    /// That of the node which holds the record
    Local,
    /// That of the incoming write
    Remote,
}

impl Take {
    /// The word in the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
        }
    }
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The record.
    pub conflict: Conflict,
    /// `updated`, `inserted`, `deleted`, or `unchanged` where the row was gone on both sides.
    pub did: &'static str,
}

fn unread(id: &ConflictId, what: &'static str) -> impl FnOnce(Unread) -> HistoryError {
    let node = id.node.to_string();
    move |unread| HistoryError::Node {
        node,
        what,
        source: unread.into(),
    }
}

fn failed(
    id: &ConflictId,
    what: &'static str,
) -> impl FnOnce(tokio_postgres::Error) -> HistoryError {
    let node = id.node.to_string();
    move |error| HistoryError::Node {
        node,
        what,
        source: from_tokio_postgres(error),
    }
}

/// Writes the row of the side that stays, so that it replaces both sides everywhere.
///
/// What a person has not seen is not decided: where the row was written again since the record,
/// the record is brought up to date and nothing else is done.
pub async fn resolve(
    client: &mut Client,
    id: &ConflictId,
    take: Take,
) -> Result<Resolved, HistoryError> {
    let began = client
        .batch_execute("begin isolation level read committed read write")
        .await;
    began.map_err(failed(id, "begin"))?;
    let found = one(client, id, false).await?;
    must_wait(&found)?;
    let table = table_of(client, &found).await?;
    // The row before the record: in the same order as the links.
    let row = lock_row(client, &found, &table).await?;
    let conflict = one(client, id, true).await?;
    must_wait(&conflict)?;
    let here = match &row {
        Some(There(known)) => known.clone(),
        None => tombstone(client, &conflict, &table).await?,
    };
    if here != conflict.local.version {
        bring_up_to_date(client, &conflict, &table, here).await?;
        commit(client, id).await?;
        let table = conflict.table_name();
        return Err(HistoryError::Changed {
            id: id.clone(),
            table,
        });
    }
    let (statements, did) = write(&conflict, &table, take, row.is_some())?;
    for statement in statements {
        let written = client.batch_execute(&statement).await;
        written.map_err(failed(id, "write the row"))?;
    }
    end(client, &conflict, &table, take).await?;
    commit(client, id).await?;
    Ok(Resolved { conflict, did })
}

fn must_wait(conflict: &Conflict) -> Result<(), HistoryError> {
    let why = match (&conflict.resolved_at, conflict.resolved_as.as_deref()) {
        _ if conflict.is_pending() => return Ok(()),
        (None, _) => format!("{} decided it ({})", conflict.rule, conflict.outcome),
        (Some(at), Some("superseded")) => {
            format!("a later write that knew both took its place at {at}")
        }
        (Some(at), Some("replaced")) => format!(
            "a later write of {} waits in its place since {at}; `mmrepl conflicts list --pending` shows it",
            conflict.link.from
        ),
        (Some(at), how) => format!("it was resolved at {at}: {}", how.unwrap_or("?")),
    };
    Err(HistoryError::NotPending {
        id: conflict.id.clone(),
        why,
    })
}

async fn commit(client: &Client, id: &ConflictId) -> Result<(), HistoryError> {
    let committed = client.batch_execute("commit").await;
    committed.map_err(failed(id, "commit"))
}

/// What a row that is there knows.
struct There(Option<String>);

/// Locks the row, where there is one.
async fn lock_row(
    client: &Client,
    conflict: &Conflict,
    table: &Table,
) -> Result<Option<There>, HistoryError> {
    let (id, rows) = (&conflict.id, table.only());
    if table.column(KNOWN_COLUMN).is_none() {
        let why = format!("{} has no column {KNOWN_COLUMN} any more", table.readable());
        return Err(unfit(id, why));
    }
    let sql = format!(
        "select t.{KNOWN_COLUMN}::text from {rows} t where {} for update",
        key(conflict, table)?
    );
    let row = client.query_opt(&sql, &[]).await;
    let row = row.map_err(failed(id, "look at the row"))?;
    let known = row.map(|row| row.read(0)).transpose();
    Ok(known.map_err(unread(id, "look at the row"))?.map(There))
}

/// What the delete of the row knows.
async fn tombstone(
    client: &Client,
    conflict: &Conflict,
    table: &Table,
) -> Result<Option<String>, HistoryError> {
    let sql = "select t.version from mmrepl.tombstone t, mmrepl.conflict c
        where c.id = $1 and t.relation = $2 and t.key = c.row_key";
    let row = client
        .query_opt(sql, &[&conflict.id.number, &table.oid])
        .await;
    let row = row.map_err(failed(&conflict.id, "look at the memory of deletes"))?;
    let version = row.map_or(Ok(None), |row| row.read(0));
    version.map_err(unread(&conflict.id, "look at the memory of deletes"))
}

/// Puts what is there now into the record.
async fn bring_up_to_date(
    client: &Client,
    conflict: &Conflict,
    table: &Table,
    here: Option<String>,
) -> Result<(), HistoryError> {
    let columns = table.columns.iter().filter(|column| !column.generated);
    let (mut names, mut values) = (Vec::new(), Vec::new());
    for column in columns {
        let name = quote(&column.name);
        names.push(literal(&column.name));
        values.push(format!(
            "case when num_nulls(t.{name}) = 0 then format('%s', t.{name}) end"
        ));
    }
    let sql = format!(
        "update mmrepl.conflict c set local_version = $2, local_columns = l.names,
            local_values = l.vals, local_time = coalesce(l.at, clock_timestamp()), local_node = $3,
            local_origin = 0
         from (select 1) one
         left join (select array[{}]::text[] as names, array[{}]::text[] as vals,
            pg_xact_commit_timestamp(t.xmin) as at from {} t where {}) l on true
         where c.id = $1",
        names.join(", "),
        values.join(", "),
        table.only(),
        key(conflict, table)?
    );
    let node = conflict.id.node.as_str();
    let done = client
        .execute(&sql, &[&conflict.id.number, &here, &node])
        .await;
    done.map(drop)
        .map_err(failed(&conflict.id, "bring the record up to date"))
}

/// What writes the side that stays, and what that does to the row.
fn write(
    conflict: &Conflict,
    table: &Table,
    take: Take,
    is_there: bool,
) -> Result<(Vec<String>, &'static str), HistoryError> {
    let id = &conflict.id;
    let touch = || {
        let (rows, key) = (table.only(), key(conflict, table)?);
        Ok(format!(
            "update {rows} t set {KNOWN_COLUMN} = t.{KNOWN_COLUMN} where {key}"
        ))
    };
    let known = literal(conflict.incoming.version.as_deref().unwrap_or_default());
    let know = format!("select set_config('mmrepl.known', {known}, true)");
    let (writes, did) = match (take, is_there, &conflict.incoming.row) {
        (Take::Local, true, _) => (vec![touch()?], "updated"),
        (Take::Remote, true, Some(row)) => {
            let update = update(conflict, table, row)?;
            (vec![update.map_or_else(touch, Ok)?], "updated")
        }
        // A delete knows what its row knew.
        (Take::Remote, true, None) => (vec![touch()?, delete(conflict, table)?], "deleted"),
        (Take::Remote, false, Some(row)) => (vec![insert(id, table, row)?], "inserted"),
        (Take::Local, false, Some(row)) => (
            vec![insert(id, table, row)?, delete(conflict, table)?],
            "deleted",
        ),
        // Every node joins the two deletes by itself.
        (_, false, None) => (vec![join_deletes(conflict, table)], "unchanged"),
    };
    Ok(([vec![know], writes].concat(), did))
}

fn join_deletes(conflict: &Conflict, table: &Table) -> String {
    format!(
        "update mmrepl.tombstone t set version = mmrepl.join_known(t.version::bigint[],
            c.incoming_version::bigint[])::text
         from mmrepl.conflict c
         where c.id = {} and t.relation = {} and t.key = c.row_key",
        conflict.id.number, table.oid
    )
}

/// Marks the record, and others of the row whose incoming write is known by now. What waits on was
/// seen with the row that stays, where that is the one that was there.
async fn end(
    client: &Client,
    conflict: &Conflict,
    table: &Table,
    take: Take,
) -> Result<(), HistoryError> {
    let sql = format!(
        "with now as (
            select coalesce((select t.{KNOWN_COLUMN} from {} t where {}),
                (select x.version::bigint[] from mmrepl.tombstone x, mmrepl.conflict d
                 where d.id = $1 and x.relation = d.relation and x.key = d.row_key)) as known)
         update mmrepl.conflict c
         set resolved_at = case when f.ends then clock_timestamp() end,
            resolved_as = case when c.id = $1 then $2 when f.ends then 'superseded' end,
            local_version = case when f.ends or $2 <> 'local' then c.local_version
                else now.known::text end
         from now, mmrepl.conflict d, mmrepl.conflict o,
            lateral (select o.id = $1
                or mmrepl.knows(now.known, o.incoming_version::bigint[])) f(ends)
         where d.id = $1 and c.id = o.id and o.relation = d.relation and o.row_key = d.row_key
            and o.outcome = 'pending' and o.resolved_at is null",
        table.only(),
        key(conflict, table)?
    );
    let done = client
        .execute(&sql, &[&conflict.id.number, &take.as_str()])
        .await;
    done.map(drop)
        .map_err(failed(&conflict.id, "mark the record"))
}
