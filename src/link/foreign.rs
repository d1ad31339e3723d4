//! Rows that reach the source by another way, under a replication origin that is not the cluster's.
//!
//! They are sent on like the source's own writes. Up to 15 a server sends everything, with the name
//! of the origin. From 16 on it can be asked to leave out what has an origin, which spares it the
//! decoding of all that we apply there; it cannot be asked to leave out ours alone. So everything
//! is asked for only once something else writes there, and from then on.
//!
//! Whoever makes a subscription leaves a message in the WAL before its first row
//! (`mmrepl.subscription_begins`, an event trigger). Other replicators are found by what they have
//! committed: every second a link looks at the origins of all transactions that ended since
//! (`pg_xact_commit_timestamp_origin`, manual table 9.87). What they wrote by then was left out;
//! `missed` makes up for it. So that the server still has it, nothing is confirmed to the slot that
//! was not looked at.

use std::future::pending;
use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::Client;

use super::LinkContext;
use crate::catalog::CatalogError;
use crate::catalog::foreign::{Found, Unjudged, judge, read_foreign, since_slot};
use crate::catalog::slots::ORIGIN_OPTION_SINCE;

/// How often a link looks for other replicators.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So many looks may fail one after another.
const FAILURES_MAX: u32 = 60;

/// What is known when a stream is asked for.
pub(super) struct Looked {
    /// The stream leaves nothing out, whoever wrote it.
    pub with_all: bool,
    /// What is to be looked at next.
    pub unjudged: Unjudged,
}

/// Looks before a stream is asked for. A server of that `version` may send everything anyway.
pub(super) async fn look_first(
    context: &LinkContext,
    source: &Client,
    (version, slot): (u32, &str),
) -> Result<Looked, CatalogError> {
    let unjudged = since_slot(source, slot).await?;
    // The source may have been put back, or its slot made anew.
    context.foreign.forget_looks();
    if version < ORIGIN_OPTION_SINCE {
        context.foreign.note();
    }
    let unjudged = look(context, source, &unjudged).await?;
    Ok(Looked {
        with_all: context.foreign.is_there(),
        unjudged,
    })
}

/// Looks, where nothing is known yet.
async fn look(
    context: &LinkContext,
    source: &Client,
    unjudged: &Unjudged,
) -> Result<Unjudged, CatalogError> {
    if context.foreign.is_there() {
        return Ok(unjudged.clone());
    }
    let found = read_foreign(source).await?;
    if !found.is_empty() {
        tell(context, &found.join(", "));
    }
    let judged = judge(source, unjudged).await?;
    match judged.found {
        Found::Nothing => {}
        Found::Foreign => tell(context, "another replicator"),
        Found::TooMany => {
            tracing::info!(link = %context.link, "too many transactions to look at");
            context.foreign.note();
        }
    }
    if !context.foreign.is_there() {
        // The commits of transactions that are seen as running may lie before the end of the WAL
        // that was read with them, but not before the one of a second ago.
        context.foreign.looked_up_to(unjudged.wal_end);
    }
    Ok(judged.unjudged)
}

fn tell(context: &LinkContext, found: &str) {
    if context.foreign.note() {
        let message = format!(
            "rows that come to {} by {found} are sent on like its own",
            context.source.name
        );
        tracing::info!(link = %context.link, "{message}");
        context.monitor.notice(message);
    }
}

/// Waits until there is something that a stream that leaves out what has an origin has missed.
/// A server that does not answer is `alive`'s.
pub(super) async fn until_there(context: &LinkContext, source: &Client, mut unjudged: Unjudged) {
    if context.foreign.is_there() {
        return pending().await;
    }
    let mut failures = 0;
    loop {
        sleep(LOOK_EVERY).await;
        match look(context, source, &unjudged).await {
            Ok(_) if context.foreign.is_there() => return,
            Ok(next) => (unjudged, failures) = (next, 0),
            Err(error) => {
                failures += 1;
                tracing::debug!(link = %context.link, %error, "cannot look for other replicators");
                // The slot keeps what was not looked at. With everything in the stream it need not.
                if failures >= FAILURES_MAX {
                    tracing::warn!(link = %context.link, %error, "asking for everything instead");
                    context.foreign.note();
                    return;
                }
            }
        }
    }
}
