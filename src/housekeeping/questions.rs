//! What housekeeping asks servers, one statement each.

use std::time::Duration;

use tokio_postgres::Client;

use super::sweep::Look;
use crate::catalog::CatalogError;
use crate::catalog::position::read_positions;
use crate::commit_time::CommitTime;
use crate::wire::RowExt;

/// Tombstones are counted exactly up to here, then estimated by the server's statistics; of those
/// in blocks, so many blocks for each hundred.
const COUNT_MAX: i64 = 100_000;

/// How many keys the block `b` has.
macro_rules! keys_of_block {
    () => {
        "coalesce(pg_catalog.cardinality(b.ints), pg_catalog.cardinality(b.uuids),
    pg_catalog.cardinality(b.texts))"
    };
}

/// The tombstones on this node's server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// How many.
    pub count: u64,
    /// When the oldest was left.
    pub oldest: Option<CommitTime>,
    /// Whether the oldest is older than the retention, or times of rows that were applied together,
    /// or versions of rewritten rows, are there that a sweep may find useless.
    pub expired: bool,
    /// Every transaction with a number below this one has ended.
    pub ended_before: i64,
}

/// Tables whose rows count versions without a clock. A row that comes back there must be above the
/// delete on every node, also where its tombstone is swept a little later, so none is swept.
macro_rules! counting_tables {
    () => {
        "(array(
    select t.tgrelid from pg_catalog.pg_trigger t
    join pg_catalog.pg_proc p on p.oid = t.tgfoid
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where n.nspname = 'mmrepl' and p.proname in
        ('keep_version', 'keep_count', 'keep_edits', 'keep_known')))"
    };
}

const KEPT: &str = concat!(
    "
select b.keys + case when c.exact > $1::int8
            then greatest(c.exact, pg_catalog.pg_stat_get_live_tuples('mmrepl.tombstone'::regclass))
            else c.exact end,
       (extract(epoch from o.at) * 1000000)::int8 - 946684800000000,
       coalesce(o.at < pg_catalog.now() - $2::int8 * interval '1 microsecond', false)
           or exists (select from mmrepl.source_time
                      where left_at < pg_catalog.now() - interval '1 minute')
           or mmrepl.has_rewrites(),
       pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text::int8
from (select pg_catalog.count(*) as exact
      from (select from mmrepl.tombstone limit $1::int8 + 1) counted) c,
     (select case when counted.blocks > $1::int8 / 100
             then counted.keys / counted.blocks * greatest(counted.blocks,
                 pg_catalog.pg_stat_get_live_tuples('mmrepl.tombstone_block'::regclass))
             else counted.keys end as keys
      from (select pg_catalog.count(*) as blocks,
                   coalesce(pg_catalog.sum(",
    keys_of_block!(),
    "), 0)::int8 as keys
            from (select * from mmrepl.tombstone_block limit $1::int8 / 100 + 1) b) counted) b,
     (select pg_catalog.min(left_at) as at from (
          select pg_catalog.min(left_at) from mmrepl.tombstone where relation <> all ",
    counting_tables!(),
    "
          union all select pg_catalog.min(left_at) from mmrepl.tombstone_block) oldest(left_at)) o"
);

/// Notices tables that got another file (`apply::rewrites`).
const LOOK_AT_FILES: &str = "select mmrepl.look_at_files()";

/// Looks at the tombstones of the server; `retention` says which are old.
pub(super) async fn kept(client: &Client, retention: Duration) -> Result<Kept, CatalogError> {
    client
        .execute(LOOK_AT_FILES, &[])
        .await
        .map_err(CatalogError::query("look at the files of tables"))?;
    let row = client
        .query_one(KEPT, &[&COUNT_MAX, &micros(retention)])
        .await
        .map_err(CatalogError::query("count the tombstones"))?;
    let (count, oldest): (i64, Option<i64>) = (row.read(0)?, row.read(1)?);
    Ok(Kept {
        count: u64::try_from(count).unwrap_or(0),
        oldest: oldest.map(CommitTime::from_postgres_micros),
        expired: row.read(2)?,
        ended_before: row.read(3)?,
    })
}

const HISTORY: &str = "
select (pg_catalog.pg_control_system()).system_identifier::text || '/'
           || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8),
       pg_catalog.pg_current_wal_insert_lsn()::text";

/// Looks at a node: what it has applied, and then how far its own WAL goes.
pub(super) async fn look(client: &Client) -> Result<Look, CatalogError> {
    let positions = read_positions(client).await?;
    let row = client.query_one(HISTORY, &[]).await;
    let row = row.map_err(CatalogError::query("read the WAL position"))?;
    let applied = positions
        .into_iter()
        .map(|position| (position.source, position.end_lsn));
    Ok(Look {
        history: row.read(0)?,
        applied: applied.collect(),
        written: CatalogError::parse("the WAL position", row.read(1)?)?,
    })
}

/// Whether a row was written by a transaction before the one in a parameter.
///
/// `xmin` has 32 bits. The distance to the parameter is taken modulo 2^32 and is right while that
/// is fresh, which the last condition makes sure of; a row whose number came round again is kept.
macro_rules! written_before {
    ($row:literal, $parameter:literal) => {
        concat!(
            "(((",
            $parameter,
            "::int8 - ",
            $row,
            ".xmin::text::int8) % 4294967296) + 4294967296) % 4294967296
          between 1 and 2147483647
      and pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text::int8 - ",
            $parameter,
            "::int8
          between 0 and 1000000000"
        )
    };
}

/// Deletes one batch of tombstones: older than `$1` microseconds, of a transaction before `$2`.
///
/// A tombstone that somebody is writing is left for the next time, so nothing is waited for.
const PRUNE: &str = concat!(
    "
delete from mmrepl.tombstone where ctid = any (array(
    select t.ctid from mmrepl.tombstone t
    where t.left_at < pg_catalog.now() - $1::int8 * interval '1 microsecond'
      and ",
    written_before!("t", "$2"),
    "
      and t.relation <> all ",
    counting_tables!(),
    "
    order by t.left_at limit $3 for update skip locked))"
);

/// The same of at most a tenth as many blocks. Columns: how many keys they had.
const PRUNE_BLOCKS: &str = concat!(
    "
with pruned as (
    delete from mmrepl.tombstone_block b where b.ctid = any (array(
        select t.ctid from mmrepl.tombstone_block t
        where t.left_at < pg_catalog.now() - $1::int8 * interval '1 microsecond'
          and ",
    written_before!("t", "$2"),
    "
        order by t.left_at limit $3::int8 / 10 for update skip locked))
    returning ",
    keys_of_block!(),
    " as keys)
select coalesce(pg_catalog.sum(keys), 0)::int8 from pruned"
);

/// Deletes at most `batch` tombstones, and some in blocks; says how many.
pub(super) async fn prune(
    client: &Client,
    retention: Duration,
    before: i64,
    batch: i64,
) -> Result<u64, CatalogError> {
    let single = client
        .execute(PRUNE, &[&micros(retention), &before, &batch])
        .await
        .map_err(CatalogError::query("prune tombstones"))?;
    let of_many = client
        .query_one(PRUNE_BLOCKS, &[&micros(retention), &before, &batch])
        .await
        .map_err(CatalogError::query("prune tombstones of many rows"))?;
    let of_many: i64 = of_many.read(0)?;
    Ok(single + u64::try_from(of_many).unwrap_or(0))
}

/// Forgets one batch of the times of rows that were applied together, of transactions before `$1`:
/// what still arrives was committed after all of them, as with tombstones.
const PRUNE_TIMES: &str = concat!(
    "
delete from mmrepl.source_time where ctid = any (array(
    select s.ctid from mmrepl.source_time s
    where ",
    written_before!("s", "$1"),
    "
    order by s.left_at limit $2 for update skip locked))"
);

/// Forgets at most `batch` of them; says how many.
pub(super) async fn prune_times(
    client: &Client,
    before: i64,
    batch: i64,
) -> Result<u64, CatalogError> {
    client
        .execute(PRUNE_TIMES, &[&before, &batch])
        .await
        .map_err(CatalogError::query(
            "forget the times of rows applied together",
        ))
}

/// Forgets what rows were before their tables were rewritten, where that was before `before`.
pub(super) async fn forget_rewrites(client: &Client, before: i64) -> Result<(), CatalogError> {
    client
        .execute("select mmrepl.forget_rewrites($1)", &[&before])
        .await
        .map(drop)
        .map_err(CatalogError::query("forget the versions of rewritten rows"))
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
