//! Replication slots and origins of one server.

use std::collections::HashMap;

use tokio_postgres::Client;

use super::CatalogError;
use crate::ids::PUBLICATION;
use crate::lsn::Lsn;
use crate::wire::{RowExt, each};

/// The output plugin of every slot that mmrepl makes.
pub const PLUGIN: &str = "pgoutput";
/// From this version on a server itself leaves out what has an origin (manual 55.5, 16).
pub const ORIGIN_OPTION_SINCE: u32 = 160_000;

/// A logical slot (`pg_replication_slots`, manual 54.20).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotState {
    /// The process that streams from it, if any.
    pub active_pid: Option<i32>,
    /// The oldest WAL it still needs; nothing when it was invalidated.
    pub restart_lsn: Option<Lsn>,
    /// Where its consumer said it is done; what lies before is not sent again. Nothing while the
    /// slot is still being made, which takes as long as transactions that were open before.
    pub confirmed_flush: Option<Lsn>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: String,
    /// How much WAL it holds back, in bytes.
    pub retained_bytes: u64,
    /// The output plugin.
    pub plugin: String,
    /// The database it decodes.
    pub database: String,
    /// Why it was invalidated (17 and newer; before that, `lost` WAL is reported as `wal_removed`).
    pub invalidation: Option<String>,
    /// What was sent to the process; nothing where nobody reads, or the role may not see it.
    pub sent: Option<Lsn>,
}

impl SlotState {
    /// Whether changes it should deliver are gone for good.
    pub fn is_lost(&self) -> bool {
        self.wal_status == "lost" || self.invalidation.is_some()
    }
}

/// What a slot would send, or the beginning of it; nothing is taken from it. The server ends after
/// the transaction with which there are `messages_max`. With `leaves_out`, which needs
/// [`ORIGIN_OPTION_SINCE`], without what has an origin.
pub async fn peek(
    client: &Client,
    slot: &str,
    (messages_max, leaves_out): (i32, bool),
) -> Result<Vec<Vec<u8>>, CatalogError> {
    let origin = if leaves_out { ", 'origin', 'none'" } else { "" };
    let sql = format!(
        "select data from pg_catalog.pg_logical_slot_peek_binary_changes(
             $1::pg_catalog.text::pg_catalog.name, null, {messages_max},
             'proto_version', '1', 'publication_names', '{PUBLICATION}'{origin})"
    );
    let rows = client.query(&sql, &[&slot]).await;
    let rows = rows.map_err(CatalogError::query("look into the link's slot"))?;
    Ok(each(&rows, |row| row.read(0))?)
}

/// `to_jsonb` lets one text work on every version: columns that are missing there are NULL.
const SLOT: &str = "
select s.active_pid, s.restart_lsn::text, s.confirmed_flush_lsn::text, s.wal_status, s.plugin::text,
       s.database::text,
       coalesce(pg_catalog.to_jsonb(s) ->> 'invalidation_reason',
                case when s.wal_status = 'lost' then 'wal_removed' end),
       greatest(0, pg_catalog.pg_wal_lsn_diff(
           case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn()
                else pg_catalog.pg_current_wal_lsn() end,
           s.restart_lsn))::bigint,
       (select r.sent_lsn::text from pg_catalog.pg_stat_replication r where r.pid = s.active_pid)
from pg_catalog.pg_replication_slots s
where s.slot_name = $1 and s.slot_type = 'logical'";

/// The slot of that name, or nothing.
pub async fn slot_state(client: &Client, slot: &str) -> Result<Option<SlotState>, CatalogError> {
    let row = client
        .query_opt(SLOT, &[&slot])
        .await
        .map_err(CatalogError::query("read a slot"))?;
    let Some(row) = row else { return Ok(None) };
    let lsn = |index: usize| -> Result<Option<Lsn>, CatalogError> {
        let text: Option<&str> = row.read(index)?;
        text.map(|text| CatalogError::parse("pg_replication_slots", text))
            .transpose()
    };
    let text = |index: usize| row.read::<Option<String>>(index);
    let retained: Option<i64> = row.read(7)?;
    Ok(Some(SlotState {
        active_pid: row.read(0)?,
        restart_lsn: lsn(1)?,
        confirmed_flush: lsn(2)?,
        wal_status: text(3)?.unwrap_or_else(|| "lost".to_owned()),
        retained_bytes: retained
            .and_then(|bytes| u64::try_from(bytes).ok())
            .unwrap_or(0),
        plugin: text(4)?.unwrap_or_default(),
        database: text(5)?.unwrap_or_default(),
        invalidation: text(6)?,
        sent: lsn(8)?,
    }))
}

/// The numbers of all replication origins, by name.
pub async fn origins(client: &Client) -> Result<HashMap<String, u32>, CatalogError> {
    let sql = "select roname::text, roident from pg_catalog.pg_replication_origin";
    let rows = client.query(sql, &[]).await;
    let rows = rows.map_err(CatalogError::query("list origins"))?;
    Ok(each(&rows, |row| Ok((row.read(0)?, row.read(1)?)))?)
}

/// The number of the replication origin `name` on this server, or nothing.
pub async fn origin_id(client: &Client, name: &str) -> Result<Option<u32>, CatalogError> {
    let sql = "select roident from pg_catalog.pg_replication_origin where roname = $1";
    let row = client.query_opt(sql, &[&name]).await;
    let row = row.map_err(CatalogError::query("read a replication origin"))?;
    Ok(row.map(|row| row.read(0)).transpose()?)
}
