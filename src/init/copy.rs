//! Copies the rows of tables from one node to another, in the target's one transaction.
//!
//! COPY's text format goes through unread. The target's transaction runs on the link's replication
//! origin, so the rows count as the source's and are not sent back, and in replica mode, so no
//! trigger or foreign key of the application fires.

use std::pin::pin;

use futures_util::{SinkExt, StreamExt};

use super::InitError;
use super::compare::Shared;
use super::session::Session;
use crate::catalog::names::{ident_list, literal};
use crate::catalog::table::Table;
use crate::config::Config;
use crate::ids::{NodeName, origin_name};
use crate::lsn::Lsn;
use crate::wire::RowExt;
use crate::wire::settings::APPLIES;

/// When the copied rows count as written, on the source.
#[derive(Clone, Debug)]
pub(super) struct Stamp {
    pub(super) lsn: Lsn,
    /// `timestamptz` text by the source's clock, read before its snapshot was taken: a change that
    /// is not in the snapshot has a later commit time.
    pub(super) time: String,
}

/// One table on both ends.
#[derive(Clone, Copy)]
pub(super) struct Pair<'a> {
    pub(super) from: &'a Table,
    pub(super) to: &'a Table,
    pub(super) shared: &'a Shared,
}

/// The source's clock, as text.
pub(super) async fn clock(session: &Session) -> Result<String, InitError> {
    let sql = "select pg_catalog.clock_timestamp()::pg_catalog.text";
    let row = session.client.query_one(sql, &[]).await;
    let row = row.map_err(InitError::server(session.name(), "read the clock"))?;
    row.read(0).map_err(InitError::unread(session.name()))
}

/// Puts the target's session on the source's origin. Outside a transaction.
pub(super) async fn enter_origin(
    config: &Config,
    target: &Session,
    source: &NodeName,
) -> Result<(), InitError> {
    let origin = origin_name(&config.cluster, source);
    let sql = format!(
        "select pg_catalog.pg_replication_origin_session_setup({})",
        literal(&origin)
    );
    let entered = target.client.batch_execute(&sql).await;
    entered.map_err(
        |error| match error.code().map(tokio_postgres::error::SqlState::code) {
            // object_in_use: a daemon applies on this origin.
            Some("55006") => InitError::InUse {
                node: target.name().clone(),
                what: format!("replication origin {origin}"),
                daemon: source.clone(),
            },
            _ => InitError::server(target.name(), format!("use origin {origin}"))(error),
        },
    )
}

/// Leaves the origin again. Outside a transaction.
pub(super) async fn leave_origin(target: &Session) -> Result<(), InitError> {
    target
        .batch(
            "leave the origin",
            "select pg_catalog.pg_replication_origin_session_reset()",
        )
        .await
}

/// Stamps the open transaction and empties the tables that hold rows.
pub(super) async fn clear(
    target: &Session,
    stamp: &Stamp,
    filled: &[&Table],
) -> Result<(), InitError> {
    let stamp_sql = format!(
        "set local session_replication_role = replica; set local {APPLIES} = 'on'; select pg_catalog.pg_replication_origin_xact_setup('{}', {})",
        stamp.lsn,
        literal(&stamp.time)
    );
    target.batch("stamp the copy", &stamp_sql).await?;
    if filled.is_empty() {
        return Ok(());
    }
    if referenced_from_outside(target, filled).await? {
        for table in filled {
            let sql = format!("delete from {}", table.only());
            target
                .batch(&format!("empty {}", table.readable()), &sql)
                .await?;
        }
        return Ok(());
    }
    let names: Vec<String> = filled.iter().map(|table| table.only()).collect();
    target
        .batch(
            "empty the tables",
            &format!("truncate {}", names.join(", ")),
        )
        .await
}

/// TRUNCATE refuses a table that another one references, unless both are truncated.
async fn referenced_from_outside(target: &Session, tables: &[&Table]) -> Result<bool, InitError> {
    let sql = "select exists (select from pg_catalog.pg_constraint
               where contype = 'f' and confrelid = any($1) and conrelid <> all($1))";
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let row = target.client.query_one(sql, &[&oids]).await;
    let row = row.map_err(InitError::server(target.name(), "read foreign keys"))?;
    row.read(0).map_err(InitError::unread(target.name()))
}

/// Copies one table's rows. Both sessions are in their transaction.
pub(super) async fn rows(
    source: &Session,
    target: &Session,
    pair: Pair<'_>,
) -> Result<u64, InitError> {
    let what = format!("copy {}", pair.from.readable());
    let columns = ident_list(pair.shared.columns.iter().map(String::as_str));
    // A table without columns has rows all the same.
    let list = match columns.as_str() {
        "" => String::new(),
        columns => format!(" ({columns})"),
    };
    let read = format!(
        "copy (select {columns} from {}) to stdout",
        pair.from.only()
    );
    let write = format!("copy {}{list} from stdin", pair.to.qualified());
    pipe((source, target), (&read, &write), what).await
}

/// Copies the rows that the source keeps aside; those of the target are gone.
pub(super) async fn shadows(
    source: &Session,
    target: &Session,
    (from, to): (&Table, &Table),
) -> Result<u64, InitError> {
    let what = format!("copy rows kept aside of {}", from.readable());
    let columns = "key, names, vals, written_at, node, since";
    let read = format!(
        "copy (select {}, {columns} from mmrepl.shadow where relation = {}) to stdout",
        to.oid, from.oid
    );
    let write = format!("copy mmrepl.shadow (relation, {columns}) from stdin");
    pipe((source, target), (&read, &write), what).await
}

/// Copies the writes that a function has made one row of; see `conflict::Siblings`.
pub(super) async fn siblings(
    source: &Session,
    target: &Session,
    (from, to): (&Table, &Table),
) -> Result<u64, InitError> {
    let what = format!("copy concurrent writes of {}", from.readable());
    let columns = "key, node, version, names, vals";
    let read = format!(
        "copy (select {}, {columns} from mmrepl.sibling where relation = {}) to stdout",
        to.oid, from.oid
    );
    let write = format!("copy mmrepl.sibling (relation, {columns}) from stdin");
    pipe((source, target), (&read, &write), what).await
}

async fn pipe(
    (source, target): (&Session, &Session),
    (read, write): (&str, &str),
    what: String,
) -> Result<u64, InitError> {
    for session in [source, target] {
        session.batch(&what, ANY_BYTES).await?;
    }
    let copied = through((source, target), (read, write), &what).await?;
    for session in [source, target] {
        let back = "set local client_encoding = 'UTF8'";
        session.batch(&what, back).await?;
    }
    Ok(copied)
}

/// A database that keeps any bytes would refuse to send or take those that are no UTF-8.
const ANY_BYTES: &str = "select pg_catalog.set_config('client_encoding', 'SQL_ASCII', true)
    where pg_catalog.current_setting('server_encoding') = 'SQL_ASCII'";

async fn through(
    (source, target): (&Session, &Session),
    (read, write): (&str, &str),
    what: &str,
) -> Result<u64, InitError> {
    let from = || InitError::server(source.name(), what);
    let to = || InitError::server(target.name(), what);
    let mut stream = pin!(source.client.copy_out(read).await.map_err(from())?);
    let mut sink = pin!(target.client.copy_in(write).await.map_err(to())?);
    while let Some(bytes) = stream.next().await {
        sink.send(bytes.map_err(from())?).await.map_err(to())?;
    }
    sink.finish().await.map_err(to())
}

/// The memory of deletes that the emptied tables left, their rows kept aside and their concurrent
/// writes: the copy begins without.
pub(super) async fn forget_deletes(target: &Session, tables: &[&Table]) -> Result<(), InitError> {
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let sql = "delete from mmrepl.tombstone where relation = any($1)";
    let done = target.client.execute(sql, &[&oids]).await;
    done.map_err(InitError::server(target.name(), "forget old deletes"))?;
    let sql = "delete from mmrepl.tombstone_block where relation = any($1)";
    let done = target.client.execute(sql, &[&oids]).await;
    done.map_err(InitError::server(
        target.name(),
        "forget old deletes of many",
    ))?;
    let sql = "delete from mmrepl.shadow where relation = any($1)";
    let done = target.client.execute(sql, &[&oids]).await;
    done.map_err(InitError::server(target.name(), "forget rows kept aside"))?;
    let sql = "delete from mmrepl.sibling where relation = any($1)";
    let done = target.client.execute(sql, &[&oids]).await;
    done.map_err(InitError::server(target.name(), "forget concurrent writes"))?;
    Ok(())
}
