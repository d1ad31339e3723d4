//! Watching a link from outside its stream: slot, WAL, clocks, and whether a person paused it.
//!
//! The probe has control connections of its own and goes on while the link is down, for that is
//! when retained WAL grows and somebody looks at `status`.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_postgres::Client;

use super::LinkContext;
use super::connect::open_control;
use super::error::LinkError;
use crate::catalog::CatalogError;
use crate::catalog::link_control::read_paused;
use crate::catalog::slots::slot_state;
use crate::commit_time::CommitTime;
use crate::config::Node;
use crate::ids::slot_name;
use crate::status::model::SlotStatus;

/// How often the source is asked.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// How often the clocks are compared.
const CLOCK_EVERY: Duration = Duration::from_secs(10);
/// How long one round of questions may take before the connections are given up.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// Probes until dropped.
pub(super) async fn run(context: LinkContext) {
    let mut probe = Probe {
        context,
        source: None,
        target: None,
        clock_at: None,
    };
    let mut tick = interval(PROBE_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        probe.context.monitor.sample(CommitTime::now());
        match tokio::time::timeout(PROBE_LIMIT, probe.look()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(link = %probe.context.link, %error, "probe failed");
                (probe.source, probe.target) = (None, None);
            }
            Err(_) => (probe.source, probe.target) = (None, None),
        }
    }
}

struct Probe {
    context: LinkContext,
    source: Option<Client>,
    target: Option<Client>,
    clock_at: Option<Instant>,
}

impl Probe {
    async fn look(&mut self) -> Result<(), LinkError> {
        let source = connected(&self.context, &self.context.source, &mut self.source).await?;
        look_at_slot(&self.context, source).await?;
        look_at_pause(&self.context, source).await?;
        if self.clock_at.is_none_or(|at| at.elapsed() >= CLOCK_EVERY) {
            let target = connected(&self.context, &self.context.target, &mut self.target).await?;
            let ahead = clock_ahead_ms(&self.context.target, target).await?
                - clock_ahead_ms(&self.context.source, source).await?;
            self.context.monitor.set_clock_offset_ms(ahead);
            self.clock_at = Some(Instant::now());
        }
        Ok(())
    }
}

async fn connected<'a>(
    context: &LinkContext,
    node: &Node,
    client: &'a mut Option<Client>,
) -> Result<&'a Client, LinkError> {
    if client.as_ref().is_none_or(Client::is_closed) {
        *client = Some(open_control(context, node).await?);
    }
    Ok(client.as_ref().expect("set just above"))
}

fn at(node: &Node) -> impl Fn(CatalogError) -> LinkError + '_ {
    |source| LinkError::Catalog {
        node: node.name.clone(),
        source,
    }
}

async fn look_at_slot(context: &LinkContext, source: &Client) -> Result<(), LinkError> {
    let node = &context.source;
    let name = slot_name(&context.cluster, &context.target.name);
    let sql = "select pg_catalog.pg_current_wal_flush_lsn()::text";
    let row = source.query_one(sql, &[]).await;
    let row = row.map_err(|e| at(node)(CatalogError::query("read the WAL position")(e)))?;
    let current = CatalogError::parse("the WAL position", row.get(0)).map_err(at(node))?;
    let slot = slot_state(source, &name).await.map_err(at(node))?;
    context.monitor.set_current(current);
    context.monitor.set_slot(slot.map(|slot| SlotStatus {
        name,
        active: slot.active_pid.is_some(),
        retained_bytes: slot.retained_bytes,
        wal_status: slot.wal_status,
    }));
    Ok(())
}

async fn look_at_pause(context: &LinkContext, source: &Client) -> Result<(), LinkError> {
    let paused = read_paused(source, &context.link)
        .await
        .map_err(at(&context.source))?;
    context.set_paused(paused);
    Ok(())
}

/// How far a server's clock is ahead of this machine's, in milliseconds; half a round trip is taken
/// off, so the error is at most that.
async fn clock_ahead_ms(node: &Node, client: &Client) -> Result<f64, LinkError> {
    let sql = "
        select (extract(epoch from pg_catalog.clock_timestamp()) * 1000000)::int8
               - 946684800000000";
    let asked = CommitTime::now();
    let row = client.query_one(sql, &[]).await;
    let row = row.map_err(|e| at(node)(CatalogError::query("read the clock")(e)))?;
    let round_trip = CommitTime::now().micros_since(asked);
    let there = CommitTime::from_postgres_micros(row.get(0));
    let ahead_micros = there.micros_since(asked.plus_micros(round_trip / 2));
    #[allow(clippy::cast_precision_loss)] // an offset of 2^52 µs is 140 years
    Ok(ahead_micros as f64 / 1000.0)
}
