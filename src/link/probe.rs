//! Watching a link from outside its stream: slot, WAL, clocks, and whether a person paused it.
//!
//! The probe has control connections of its own and goes on while the link is down, for that is
//! when retained WAL grows and somebody looks at `status`.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_postgres::Client;

use super::LinkContext;
use super::clock::{Offsets, Reading, Watched};
use super::error::LinkError;
use super::sessions::open_control;
use crate::catalog::CatalogError;
use crate::catalog::link_control::read_paused;
use crate::catalog::slots::slot_state;
use crate::catalog::wal;
use crate::commit_time::CommitTime;
use crate::config::Node;
use crate::failpoint::fault_point;
use crate::ids::slot_name;
use crate::status::model::SlotStatus;
use crate::wire::{RowExt, Unread};

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
        clocks: Clocks::default(),
    };
    let mut tick = interval(PROBE_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        fault_point("probe");
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
    clocks: Clocks,
}

/// What is known of both servers' clocks.
struct Clocks {
    /// Where monotonic time begins.
    epoch: Instant,
    compared_at: Option<Instant>,
    offsets: Offsets,
    source: Watched,
    target: Watched,
}

impl Default for Clocks {
    fn default() -> Self {
        Self {
            epoch: Instant::now(),
            compared_at: None,
            offsets: Offsets::default(),
            source: Watched::default(),
            target: Watched::default(),
        }
    }
}

impl Probe {
    async fn look(&mut self) -> Result<(), LinkError> {
        let source = connected(&self.context, &self.context.source, &mut self.source).await?;
        look_at_slot(&self.context, source).await?;
        look_at_pause(&self.context, source).await?;
        let compared = self.clocks.compared_at;
        if compared.is_none_or(|at| at.elapsed() >= CLOCK_EVERY) {
            let target = connected(&self.context, &self.context.target, &mut self.target).await?;
            compare_clocks(&self.context, &mut self.clocks, source, target).await?;
        }
        if self.context.rules.need_a_person() {
            let target = connected(&self.context, &self.context.target, &mut self.target).await?;
            count_pending(&self.context, target).await?;
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

fn unread(node: &Node) -> impl Fn(Unread) -> LinkError + '_ {
    |unread| at(node)(unread.into())
}

async fn look_at_slot(context: &LinkContext, source: &Client) -> Result<(), LinkError> {
    let node = &context.source;
    let name = slot_name(&context.cluster, &context.target.name);
    let current = wal::flushed(source).await.map_err(at(node))?;
    let slot = slot_state(source, &name).await.map_err(at(node))?;
    context.monitor.set_current(current);
    if let Some(sent) = slot.as_ref().and_then(|slot| slot.sent) {
        context.monitor.set_sent(sent);
    }
    if let Some(confirmed) = slot.as_ref().and_then(|slot| slot.confirmed_flush) {
        context.monitor.slot_confirmed(confirmed);
    }
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

async fn count_pending(context: &LinkContext, target: &Client) -> Result<(), LinkError> {
    let sql = "select count(*) from mmrepl.conflict
        where outcome = 'pending' and resolved_at is null and source = $1 and target = $2";
    let (source, node) = (&context.source.name, &context.target);
    let (from, to) = (source.as_str(), node.name.as_str());
    let counted = target.query_one(sql, &[&from, &to]).await;
    let counted = counted.map_err(|e| at(node)(CatalogError::query("count conflicts")(e)))?;
    let count: i64 = counted.read(0).map_err(unread(node))?;
    context.monitor.set_pending(u64::try_from(count).ok());
    Ok(())
}

/// Compares the clocks, and sees whether one was set back since the last time.
async fn compare_clocks(
    context: &LinkContext,
    clocks: &mut Clocks,
    source: &Client,
    target: &Client,
) -> Result<(), LinkError> {
    let there = read_clock(&context.target, target, clocks.epoch).await?;
    let here = read_clock(&context.source, source, clocks.epoch).await?;
    clocks.compared_at = Some(Instant::now());
    let best = clocks.offsets.note(there.ahead_of(&here));
    let (offset, doubt) = best.as_millis();
    context.monitor.set_clock_offset_ms(offset, doubt);
    for (node, back) in [
        (&context.source, clocks.source.note(here)),
        (&context.target, clocks.target.note(there)),
    ] {
        let Some(back_ms) = back else { continue };
        let name = &node.name;
        let message = format!(
            "the clock of {name} was set back by {back_ms} ms: what is written there counts as older than it is until the clock has caught up"
        );
        tracing::warn!(link = %context.link, node = %name, back_ms, "{message}");
        context.monitor.notice(message);
    }
    Ok(())
}

/// Asks a server for its time; `epoch` is where monotonic time begins.
pub(super) async fn read_clock(
    node: &Node,
    client: &Client,
    epoch: Instant,
) -> Result<Reading, LinkError> {
    let sql = "
        select (extract(epoch from pg_catalog.clock_timestamp()) * 1000000)::int8
               - 946684800000000";
    // Parsed before, so that the round trip is that of the question alone.
    let statement = client.prepare(sql).await;
    let statement = statement.map_err(|e| at(node)(CatalogError::query("read the clock")(e)))?;
    let asked = epoch.elapsed();
    let row = client.query_one(&statement, &[]).await;
    let row = row.map_err(|e| at(node)(CatalogError::query("read the clock")(e)))?;
    let doubt = epoch.elapsed().saturating_sub(asked) / 2;
    Ok(Reading {
        clock: CommitTime::from_postgres_micros(row.read(0).map_err(unread(node))?),
        at: asked + doubt,
        doubt,
    })
}

/// A target whose clock is too far behind would have to wait for every change.
pub(super) async fn check_clocks(
    context: &LinkContext,
    source: &Client,
    target: &Client,
) -> Result<(), LinkError> {
    let epoch = Instant::now();
    let there = read_clock(&context.target, target, epoch).await?;
    let here = read_clock(&context.source, source, epoch).await?;
    let behind = here.ahead_of(&there);
    let surely = Duration::from_micros((behind.micros - behind.doubt_micros).max(0).unsigned_abs());
    if surely > context.max_clock_skew {
        let measured = Duration::from_micros(behind.micros.unsigned_abs());
        return Err(LinkError::clock_skew(
            &context.link,
            (measured, context.max_clock_skew),
            None,
        ));
    }
    Ok(())
}
