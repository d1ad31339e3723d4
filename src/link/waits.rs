//! Sees on the target whether a session of the link waits for a lock, and who holds it.
//!
//! Asked on a connection of its own: the others are those that wait.

use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::{Client, Row};

use super::LinkContext;
use super::lock_wait::{Holder, LockWait, sentence};
use crate::catalog::CatalogError;
use crate::commit_time::CommitTime;
use crate::status::monitor::LinkMonitor;

/// How often the server is asked, while something waits to be applied.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A shorter wait is not worth a word: local writers and the link meet all the time.
const SHOWN_AFTER_MICROS: i64 = 1_000_000;
/// A server without an answer is somebody else's to notice.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Holders that are named.
const HOLDERS_MAX: usize = 3;

/// Of all sessions of the link the one that waits longest. Who waits for a row waits for the
/// transaction that wrote it, and holds a `tuple` lock that says on which table.
const WAITS: &str = "
with waits as (
  select l.*, a.query_start
  from pg_catalog.pg_locks l
  join pg_catalog.pg_stat_activity a on a.pid = l.pid
  where not l.granted and a.datname = pg_catalog.current_database()
    and pg_catalog.starts_with(a.application_name, $1)
  order by coalesce(l.waitstart, a.query_start) limit 1)
select w.locktype, n.nspname::text || '.' || c.relname::text,
  (extract(epoch from coalesce(w.waitstart, w.query_start)) * 1000000)::int8 - 946684800000000,
  b.pid, h.application_name, h.usename::text, pg_catalog.host(h.client_addr), h.state,
  (extract(epoch from h.state_change) * 1000000)::int8 - 946684800000000,
  (extract(epoch from h.xact_start) * 1000000)::int8 - 946684800000000,
  coalesce(h.wait_event_type = 'Lock', false),
  case when b.pid = 0 then (
    select x.gid from pg_catalog.pg_prepared_xacts x
    join pg_catalog.pg_locks p on p.pid is null and p.granted
      and (p.transactionid = x.transaction
           or p.virtualtransaction = '-1/' || x.transaction::text)
    where p.transactionid = w.transactionid
       or (p.relation = w.relation and p.database = w.database)
    limit 1) end
from waits w
left join lateral pg_catalog.unnest(pg_catalog.pg_blocking_pids(w.pid)) b(pid) on true
left join pg_catalog.pg_stat_activity h on h.pid = b.pid
left join pg_catalog.pg_locks t on w.relation is null and t.pid = w.pid and t.locktype = 'tuple'
left join pg_catalog.pg_class c on c.oid = coalesce(w.relation, t.relation)
left join pg_catalog.pg_namespace n on n.oid = c.relnamespace
limit 8";

/// Keeps the status up to date until dropped.
pub(super) async fn watch(context: &LinkContext, target: &Client) {
    let monitor = &context.monitor;
    let _clear = Clear(monitor);
    let mut shown = false;
    loop {
        sleep(LOOK_EVERY).await;
        if !shown && monitor.oldest_unapplied().is_none() {
            continue;
        }
        match tokio::time::timeout(ANSWER_LIMIT, look(context, target)).await {
            Ok(Ok(found)) => {
                let now = CommitTime::now();
                let lasts = |since: &CommitTime| now.micros_since(*since) >= SHOWN_AFTER_MICROS;
                let found = found.filter(|(since, _)| lasts(since));
                shown = found.is_some();
                monitor.set_lock_wait(found);
            }
            Ok(Err(error)) => {
                tracing::debug!(link = %context.link, %error, "cannot look for locks");
            }
            Err(_) => {}
        }
    }
}

/// What is dropped waits for nothing.
struct Clear<'a>(&'a LinkMonitor);

impl Drop for Clear<'_> {
    fn drop(&mut self) {
        self.0.set_lock_wait(None);
    }
}

async fn look(
    context: &LinkContext,
    target: &Client,
) -> Result<Option<(CommitTime, String)>, CatalogError> {
    let ours = format!("mmrepl {} {} ", context.cluster, context.link);
    let failed = CatalogError::query("look for locks");
    let rows = target.query(WAITS, &[&ours]).await.map_err(failed)?;
    let Some(wait) = read(&rows).map_err(CatalogError::query("read who holds a lock"))? else {
        return Ok(None);
    };
    let since = wait.since.unwrap_or_else(CommitTime::now);
    Ok(Some((since, sentence(&context.target.name, &wait))))
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
    }))
}

fn time(row: &Row, column: usize) -> Result<Option<CommitTime>, tokio_postgres::Error> {
    let micros: Option<i64> = row.try_get(column)?;
    Ok(micros.map(CommitTime::from_postgres_micros))
}
