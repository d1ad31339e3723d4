//! Rows that reach the source by another way, under a replication origin that is not the cluster's.
//!
//! They are sent on like the source's own writes. Up to 15 a server sends everything, with the name
//! of the origin. From 16 on it can be asked to leave out what has an origin, which spares it the
//! decoding of all that we apply there; it cannot be asked to leave out ours alone. So everything
//! is asked for only once something else may write there, and from then on.
//!
//! Whoever makes a subscription leaves a message in the WAL before its first row
//! (`mmrepl.subscription_begins`, an event trigger), so that not one is missed. Other replicators
//! are noticed within a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::Client;

use super::LinkContext;
use crate::catalog::CatalogError;
use crate::catalog::foreign::read_foreign;
use crate::conflict::MARKER_PREFIX;

/// From this version on the server itself leaves out what has an origin (manual 55.5, 16).
const ORIGIN_OPTION_SINCE: u32 = 160_000;
/// How often a link looks for other replicators.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What the event trigger says.
const SUBSCRIPTION_BEGINS: &[u8] = b"subscription";

/// Whether anything but the cluster writes on the source in the name of others. Once it is so, it
/// stays: rows of one that is gone may still be on their way.
#[derive(Clone, Debug, Default)]
pub struct Foreign(Arc<AtomicBool>);

impl Foreign {
    /// Whether everything must be asked for.
    pub(super) fn is_there(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// True the first time.
    fn note(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }

    /// A message of the source's WAL. True where the stream must be asked for anew.
    pub(super) fn announced(&self, prefix: &str, content: &[u8]) -> bool {
        prefix == MARKER_PREFIX && content == SUBSCRIPTION_BEGINS && self.note()
    }
}

/// Looks before a stream is asked for. A server of that `version` may send everything anyway.
pub(super) async fn look_first(
    context: &LinkContext,
    source: &Client,
    version: u32,
) -> Result<(), CatalogError> {
    if version < ORIGIN_OPTION_SINCE {
        context.foreign.note();
    }
    look(context, source).await
}

/// Looks, where nothing is known yet.
async fn look(context: &LinkContext, source: &Client) -> Result<(), CatalogError> {
    if !context.foreign.is_there() {
        let found = read_foreign(source).await?;
        if !found.is_empty() {
            tell(context, &found);
        }
    }
    Ok(())
}

fn tell(context: &LinkContext, found: &[String]) {
    if context.foreign.note() {
        let message = format!(
            "rows that come to {} by {} are sent on like its own",
            context.source.name,
            found.join(", ")
        );
        tracing::info!(link = %context.link, "{message}");
        context.monitor.notice(message);
    }
}

/// Waits until there is something that a stream that leaves out what has an origin would miss.
/// A server that does not answer is `alive`'s.
pub(super) async fn until_there(context: &LinkContext, source: &Client) {
    let began_without = !context.foreign.is_there();
    loop {
        sleep(LOOK_EVERY).await;
        if !began_without {
            continue;
        }
        if let Err(error) = look(context, source).await {
            tracing::debug!(link = %context.link, %error, "cannot look for subscriptions");
        } else if context.foreign.is_there() {
            return;
        }
    }
}
