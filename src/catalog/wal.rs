//! Where a server's WAL ends. There are two ends: what is flushed may be sent to a peer and
//! survives a crash; what is inserted includes commits that are being flushed.

use tokio_postgres::Client;

use super::CatalogError;
use crate::lsn::Lsn;
use crate::wire::RowExt;

/// The prefix of the messages that mark a place in a node's WAL.
const MARK_PREFIX: &str = "mmrepl.sweep";

/// How far the WAL is flushed; on a standby, how far it is replayed.
pub async fn flushed(client: &Client) -> Result<Lsn, CatalogError> {
    let sql = "select (case when pg_catalog.pg_is_in_recovery()
                            then pg_catalog.pg_last_wal_replay_lsn()
                            else pg_catalog.pg_current_wal_flush_lsn() end)::pg_catalog.text";
    position(client, sql).await
}

/// How far the WAL is written in memory: every commit that a session sees lies before.
pub async fn inserted(client: &Client) -> Result<Lsn, CatalogError> {
    let sql = "select pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text";
    position(client, sql).await
}

/// Writes a mark into the node's WAL that every link from there passes on (a transaction with
/// nothing but a logical message, manual 9.27.6), and says where.
pub async fn mark(client: &Client) -> Result<Lsn, CatalogError> {
    let sql = "select pg_catalog.pg_logical_emit_message(true, $1, '')::text";
    let row = client.query_one(sql, &[&MARK_PREFIX]).await;
    let row = row.map_err(CatalogError::query("mark a place in the WAL"))?;
    CatalogError::parse("pg_logical_emit_message", row.read(0)?)
}

async fn position(client: &Client, sql: &str) -> Result<Lsn, CatalogError> {
    let row = client.query_one(sql, &[]).await;
    let row = row.map_err(CatalogError::query("read the WAL position"))?;
    CatalogError::parse("the WAL position", row.read(0)?)
}
