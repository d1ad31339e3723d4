//! `mmrepl.apply_position`: the truth about what a target has applied (design: exactly once).

use tokio_postgres::{Client, Row};

use super::CatalogError;
use crate::commit_time::CommitTime;
use crate::conflict::Seen;
use crate::ids::{NodeName, SystemId, TimelineId};
use crate::lsn::Lsn;
use crate::wire::RowExt;

/// How far one source has been applied on the server that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The source node.
    pub source: NodeName,
    /// The commit record of the last applied transaction, in the source's WAL.
    pub commit_lsn: Lsn,
    /// Where the source's stream goes on.
    pub end_lsn: Lsn,
    /// When that transaction committed, by the source's clock; nothing before the first one.
    pub commit_time: Option<CommitTime>,
    /// The source's system identifier when the position was written.
    pub source_system_id: SystemId,
    /// The source's timeline when the position was written.
    pub source_timeline: TimelineId,
    /// When the link was set up, by the source's clock.
    pub began: CommitTime,
    /// The last transaction of the source that stands for everything up to the position.
    pub witness: Option<Witness>,
    /// Up to here is applied what others than the cluster wrote on the source; nothing where that
    /// is as far as everything else.
    pub others_lsn: Option<Lsn>,
}

/// A transaction of the source: where it is found again, everything before it is there too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Witness {
    /// Its number.
    pub xid: u32,
    /// When it committed, by the source's clock.
    pub time: CommitTime,
}

/// 946684800 s lie between 1970 and 2000, where PostgreSQL's microseconds start. A server that an
/// older version has set up has no witness.
const SELECT: &str = "
select source, commit_lsn::text, end_lsn::text, source_system_id, source_timeline,
       (extract(epoch from commit_time) * 1000000)::bigint - 946684800000000,
       (extract(epoch from began) * 1000000)::bigint - 946684800000000,
       pg_catalog.to_jsonb(p) ->> 'witness_xid',
       (extract(epoch from (pg_catalog.to_jsonb(p) ->> 'witness_time')::timestamptz)
           * 1000000)::bigint - 946684800000000,
       pg_catalog.to_jsonb(p) ->> 'others_lsn'
from mmrepl.apply_position p";

/// The position for `source`, or nothing when the link was never set up.
pub async fn read_position(
    client: &Client,
    source: &NodeName,
) -> Result<Option<Position>, CatalogError> {
    let sql = format!("{SELECT} where source = $1");
    let row = client.query_opt(&sql, &[&source.as_str()]).await;
    let row = row.map_err(CatalogError::query("read the apply position"))?;
    row.as_ref().map(position).transpose()
}

/// Every position on the server.
pub async fn read_positions(client: &Client) -> Result<Vec<Position>, CatalogError> {
    let rows = client.query(SELECT, &[]).await;
    let rows = rows.map_err(CatalogError::query("read the apply positions"))?;
    rows.iter().map(position).collect()
}

fn position(row: &Row) -> Result<Position, CatalogError> {
    let parse_lsn = |index: usize| CatalogError::parse("mmrepl.apply_position", row.read(index)?);
    let timeline: i32 = row.read(4)?;
    let time: Option<i64> = row.read(5)?;
    let began: i64 = row.read(6)?;
    let xid: Option<&str> = row.read(7)?;
    let xid = xid.map(|xid| CatalogError::parse("witness_xid", xid));
    let witness_time: Option<i64> = row.read(8)?;
    let witness = xid.transpose()?.zip(witness_time);
    let others: Option<&str> = row.read(9)?;
    let others = others.map(|lsn| CatalogError::parse("mmrepl.apply_position.others_lsn", lsn));
    Ok(Position {
        source: CatalogError::parse("mmrepl.apply_position.source", row.read(0)?)?,
        commit_lsn: parse_lsn(1)?,
        end_lsn: parse_lsn(2)?,
        commit_time: time.map(CommitTime::from_postgres_micros),
        source_system_id: SystemId(CatalogError::parse("source_system_id", row.read(3)?)?),
        source_timeline: TimelineId(timeline.cast_unsigned()),
        began: CommitTime::from_postgres_micros(began),
        witness: witness.map(|(xid, time)| Witness {
            xid,
            time: CommitTime::from_postgres_micros(time),
        }),
        others_lsn: others.transpose()?,
    })
}

/// Sets how far what others wrote on `source` is applied; see [`Position::others_lsn`].
pub async fn set_others(
    target: &Client,
    source: &NodeName,
    others: Option<Lsn>,
) -> Result<(), CatalogError> {
    let sql = "update mmrepl.apply_position set others_lsn = $2::text::pg_catalog.pg_lsn
               where source = $1";
    let others = others.map(|lsn| lsn.to_string());
    let set = target.execute(sql, &[&source.as_str(), &others]).await;
    set.map(drop).map_err(CatalogError::query(
        "set how far the writes of others are applied",
    ))
}

/// What `source` had applied from the other nodes when it wrote up to the position that `target`
/// holds of it. The source says what it began with, the target what it has been told since.
pub async fn read_seen(
    source: &Client,
    target: &Client,
    name: &NodeName,
) -> Result<Seen, CatalogError> {
    let began = "select source, (extract(epoch from began) * 1000000)::bigint - 946684800000000
                 from mmrepl.apply_position";
    let rows = source.query(began, &[]).await;
    let rows = rows.map_err(CatalogError::query("read when the links began"))?;
    let told = "select coalesce(seen::text, '{}') from mmrepl.apply_position where source = $1";
    let told = target.query_opt(told, &[&name.as_str()]).await;
    let told = told.map_err(CatalogError::query("read what the source had seen"))?;
    let mut seen = match told {
        Some(row) => CatalogError::parse("mmrepl.apply_position.seen", row.read(0)?)?,
        None => Seen::default(),
    };
    for row in rows {
        let node = CatalogError::parse("mmrepl.apply_position.source", row.read(0)?)?;
        seen.note(&node, CommitTime::from_postgres_micros(row.read(1)?));
    }
    Ok(seen)
}

/// What a node says of itself when a slot was made on it: its clock in seconds since 1970, and what
/// it had applied from the other nodes, both as text for [`RESET_POSITION`].
pub const KNOWN_NOW: &str = "
select extract(epoch from pg_catalog.clock_timestamp())::text,
       (select pg_catalog.jsonb_object_agg(source,
            (extract(epoch from commit_time) * 1000000)::bigint - 946684800000000)::text
        from mmrepl.apply_position where commit_time is not null)";

/// The statement that writes a fresh position: nothing of the source before `$2` is ever asked for.
/// Parameters: source, `end_lsn`, system identifier, timeline, both columns of [`KNOWN_NOW`], and
/// the number and time of a witness.
pub const RESET_POSITION: &str = "
insert into mmrepl.apply_position
    (source, commit_lsn, end_lsn, commit_time, source_system_id, source_timeline, began, seen,
     witness_xid, witness_time)
values ($1, $2::text::pg_lsn, $2::text::pg_lsn, null, $3, $4,
        pg_catalog.to_timestamp($5::text::float8), $6::text::jsonb,
        $7::text::pg_catalog.xid, $8::text::timestamptz)
on conflict (source) do update set
    commit_lsn = excluded.commit_lsn, end_lsn = excluded.end_lsn, commit_time = null,
    source_system_id = excluded.source_system_id, source_timeline = excluded.source_timeline,
    began = excluded.began, seen = excluded.seen,
    witness_xid = excluded.witness_xid, witness_time = excluded.witness_time, others_lsn = null";
