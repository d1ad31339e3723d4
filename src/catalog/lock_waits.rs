//! Which of our own sessions waits for a lock, and who holds it.

use tokio_postgres::{Client, Row};

use super::CatalogError;
use crate::commit_time::CommitTime;
use crate::lock_wait::{Holder, LockWait};

/// Holders that are named.
const HOLDERS_MAX: usize = 3;

/// Of all sessions of one name the one that waits longest. Who waits for a row waits for the
/// transaction that wrote it, and holds a `tuple` lock that says on which table.
const WAITS: &str = "
with waits as (
  select l.*, a.query_start, a.backend_type
  from pg_catalog.pg_locks l
  join pg_catalog.pg_stat_activity a on a.pid = l.pid
  where not l.granted and a.datname = pg_catalog.current_database()
    and pg_catalog.starts_with(a.application_name, $1)
  order by coalesce(l.waitstart, a.query_start) limit 1)
select w.locktype, n.nspname::text || '.' || c.relname::text,
  (extract(epoch from coalesce(w.waitstart, w.query_start)) * 1000000)::int8 - 946684800000000,
  b.pid, h.application_name, coalesce(h.usename, x.owner)::text,
  pg_catalog.host(h.client_addr), h.state,
  (extract(epoch from h.state_change) * 1000000)::int8 - 946684800000000,
  (extract(epoch from coalesce(h.xact_start, x.prepared)) * 1000000)::int8 - 946684800000000,
  coalesce(h.wait_event_type = 'Lock', false),
  x.gid, nullif(coalesce(h.datname, x.database)::text, pg_catalog.current_database()::text),
  w.backend_type = 'walsender'
from waits w
left join lateral pg_catalog.unnest(pg_catalog.pg_blocking_pids(w.pid)) b(pid) on true
left join pg_catalog.pg_stat_activity h on h.pid = b.pid
left join lateral (
  select x.gid, x.owner, x.database, x.prepared from pg_catalog.pg_prepared_xacts x
  join pg_catalog.pg_locks p on p.pid is null and p.granted
    and (p.transactionid = x.transaction
         or p.virtualtransaction = '-1/' || x.transaction::text)
  where p.transactionid = w.transactionid
     or (p.relation = w.relation and p.database = w.database)
  limit 1) x on b.pid = 0
left join pg_catalog.pg_locks t on w.relation is null and t.pid = w.pid and t.locktype = 'tuple'
left join pg_catalog.pg_class c on c.oid = coalesce(w.relation, t.relation)
left join pg_catalog.pg_namespace n on n.oid = c.relnamespace
limit 8";

/// The longest wait of all sessions of this database whose names begin so.
pub async fn longest_wait(client: &Client, ours: &str) -> Result<Option<LockWait>, CatalogError> {
    let rows = client.query(WAITS, &[&ours]).await;
    let rows = rows.map_err(CatalogError::query("look for locks"))?;
    read(&rows).map_err(CatalogError::query("read who holds a lock"))
}

fn read(rows: &[Row]) -> Result<Option<LockWait>, tokio_postgres::Error> {
    let Some(first) = rows.first() else {
        return Ok(None);
    };
    let holders = rows.iter().take(HOLDERS_MAX).map(holder);
    let holders: Result<Vec<_>, _> = holders.collect();
    Ok(Some(LockWait {
        kind: first.try_get(0)?,
        table: first.try_get(1)?,
        since: time(first, 2)?,
        makes_slot: first.try_get::<_, Option<bool>>(13)?.unwrap_or_default(),
        holders: holders?.into_iter().flatten().collect(),
    }))
}

fn holder(row: &Row) -> Result<Option<Holder>, tokio_postgres::Error> {
    let Some(pid) = row.try_get(3)? else {
        return Ok(None);
    };
    Ok(Some(Holder {
        pid,
        application: row.try_get(4)?,
        user: row.try_get(5)?,
        address: row.try_get(6)?,
        state: row.try_get(7)?,
        state_since: time(row, 8)?,
        begun: time(row, 9)?,
        waits: row.try_get(10)?,
        prepared: row.try_get(11)?,
        database: row.try_get(12)?,
    }))
}

fn time(row: &Row, column: usize) -> Result<Option<CommitTime>, tokio_postgres::Error> {
    let micros: Option<i64> = row.try_get(column)?;
    Ok(micros.map(CommitTime::from_postgres_micros))
}
