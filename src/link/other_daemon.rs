//! Another daemon of the same node: seen before anything is taken from it.
//!
//! A connection that a killed daemon left behind looks like one that is in use, but says nothing
//! any more. One that lives reports every second how far it has come.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use super::LinkContext;
use super::error::LinkError;
use crate::catalog::CatalogError;
use crate::commit_time::CommitTime;
use crate::text;

/// How often the slot is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Somebody who lives reports within this time.
const SILENT_AFTER: Duration = Duration::from_secs(4);

const HOLDER: &str = "
select r.pid, r.application_name, pg_catalog.host(r.client_addr),
  (extract(epoch from r.backend_start) * 1000000)::int8 - 946684800000000,
  r.reply_time::text
from pg_catalog.pg_replication_slots s
join pg_catalog.pg_stat_replication r on r.pid = s.active_pid
where s.slot_name = $1";

/// Who streams from the slot.
struct Holder {
    pid: i32,
    application: String,
    address: Option<String>,
    since: CommitTime,
    /// When it reported last, by its own clock.
    replied: Option<String>,
}

/// Fails where another daemon lives that runs this link.
pub(super) async fn check(
    context: &LinkContext,
    source: &Client,
    slot: &str,
) -> Result<(), LinkError> {
    let started = Instant::now();
    let Some(first) = holder(context, source, slot).await? else {
        return Ok(());
    };
    while started.elapsed() < SILENT_AFTER {
        sleep(LOOK_EVERY).await;
        match holder(context, source, slot).await? {
            Some(now) if now.pid == first.pid && now.replied != first.replied => {
                return Err(LinkError::OtherDaemon(words(context, &now)));
            }
            Some(now) if now.pid == first.pid => {}
            _ => return Ok(()),
        }
    }
    Ok(())
}

fn words(context: &LinkContext, holder: &Holder) -> String {
    let Holder { pid, since, .. } = holder;
    let (from, slot_of) = (&context.source.name, &context.link);
    let place = holder.address.as_deref().map_or_else(
        || format!("on the machine of {from}'s server"),
        |address| format!("on {}", text::name(address)),
    );
    format!(
        "another daemon of {from} runs {slot_of}, {place}: its connection `{}` is process {pid} of {from}'s server, since {since}; stop one of the two",
        text::name(&holder.application)
    )
}

async fn holder(
    context: &LinkContext,
    source: &Client,
    slot: &str,
) -> Result<Option<Holder>, LinkError> {
    let failed = |error| LinkError::Catalog {
        node: context.source.name.clone(),
        source: CatalogError::query("see who streams from the slot")(error),
    };
    let row = source.query_opt(HOLDER, &[&slot]).await.map_err(failed)?;
    let Some(row) = row else { return Ok(None) };
    let read = || {
        Ok(Holder {
            pid: row.try_get(0)?,
            application: row.try_get::<_, Option<String>>(1)?.unwrap_or_default(),
            address: row.try_get(2)?,
            since: CommitTime::from_postgres_micros(row.try_get(3)?),
            replied: row.try_get(4)?,
        })
    };
    read().map(Some).map_err(failed)
}
