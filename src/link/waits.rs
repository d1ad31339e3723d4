//! Sees on the target whether a session of the link waits for a lock, and who holds it.
//!
//! Asked on a connection of its own: the others are those that wait.

use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::Client;

use super::LinkContext;
use crate::catalog::CatalogError;
use crate::catalog::lock_waits::longest_wait;
use crate::commit_time::CommitTime;
use crate::lock_wait::sentence;
use crate::status::monitor::LinkMonitor;

/// How often the server is asked, while something waits to be applied.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A shorter wait is not worth a word: local writers and the link meet all the time.
const SHOWN_AFTER_MICROS: i64 = 1_000_000;
/// A server without an answer is somebody else's to notice.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

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
    let Some(wait) = longest_wait(target, &ours).await? else {
        return Ok(None);
    };
    let since = wait.since.unwrap_or_else(CommitTime::now);
    Ok(Some((since, sentence(&context.target.name, &wait))))
}
