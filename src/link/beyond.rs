//! What the source has committed for a link that stands still.
//!
//! WAL grows by itself, by checkpoints and by what is written in other databases: that it goes on
//! beyond the link's position does not say that anything waits. While a link is paused nobody
//! reads its slot, so it can be looked into: the first change of the source's own beyond the
//! position tells how old the oldest waiting commit is, and where there is none, nothing waits.
//! Looking costs the source the decoding of what the slot holds back, so there are limits.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use super::LinkContext;
use super::error::LinkError;
use super::sessions::open_control;
use crate::catalog::slots::{peek, slot_state};
use crate::catalog::{CatalogError, wal};
use crate::commit_time::CommitTime;
use crate::ids::{origin_prefix, slot_name};
use crate::lsn::Lsn;
use crate::pgoutput::{Message, decode};

/// How often the slot is looked into at most.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// So many times as long as the last look took, nothing is asked.
const PAUSE_FACTOR: u32 = 20;
/// With more WAL held back than this, nobody looks.
const RETAINED_MAX: u64 = 64 * 1024 * 1024;
/// Messages that one look reads at most.
const MESSAGES_MAX: i32 = 5000;
/// A link that goes on waits for a look that is under way, which takes no longer.
const LOOK_LIMIT: &str = "set statement_timeout = '3s'";

/// What one look came to.
#[derive(Debug, PartialEq, Eq)]
enum Beyond {
    /// A commit waits since then.
    Since(CommitTime),
    /// Nothing waits that lies before this position.
    NothingUpTo(Lsn),
    /// Nobody can tell.
    Unknown,
}

/// Keeps the status up to date until the link goes on. A look that is under way is finished: the
/// link needs the slot.
pub(super) async fn watch(context: &LinkContext, paused: &mut watch::Receiver<bool>) {
    let (mut client, mut seen) = (None, Lsn::ZERO);
    while *paused.borrow() {
        let began = Instant::now();
        match look(context, &mut client, &mut seen).await {
            // The position stays where it is, and so does what comes first after it.
            Ok(Beyond::Since(time)) => {
                context.monitor.waits_beyond(time);
                break;
            }
            Ok(Beyond::NothingUpTo(end)) => context.monitor.nothing_up_to(end),
            Ok(Beyond::Unknown) => {}
            Err(error) => {
                client = None;
                tracing::debug!(link = %context.link, %error, "cannot look into the slot");
            }
        }
        let pause = LOOK_EVERY.max(began.elapsed() * PAUSE_FACTOR);
        tokio::select! {
            () = sleep(pause) => {}
            _ = paused.wait_for(|paused| !paused) => {}
        }
    }
}

/// Looks where the source has written since the last time.
async fn look(
    context: &LinkContext,
    client: &mut Option<Client>,
    seen: &mut Lsn,
) -> Result<Beyond, LinkError> {
    let failed = |source| LinkError::Catalog {
        node: context.source.name.clone(),
        source,
    };
    let applied = context.monitor.applied();
    if applied.is_zero() {
        return Ok(Beyond::Unknown);
    }
    let client = match client {
        Some(client) => client,
        None => client.insert(open_control(context, &context.source).await?),
    };
    let end = wal::flushed(client).await.map_err(failed)?;
    if end <= applied || end == *seen {
        return Ok(Beyond::NothingUpTo(end));
    }
    let name = slot_name(&context.cluster, &context.target.name);
    let slot = slot_state(client, &name).await.map_err(failed)?;
    let small = |retained: u64| retained <= RETAINED_MAX;
    if !slot.is_some_and(|slot| !slot.is_lost() && small(slot.retained_bytes)) {
        return Ok(Beyond::Unknown);
    }
    let limited = client.batch_execute(LOOK_LIMIT).await;
    limited.map_err(|error| failed(CatalogError::query("look into the link's slot")(error)))?;
    let leaves_out = !context.foreign.is_there();
    let messages = peek(client, &name, (MESSAGES_MAX, leaves_out)).await;
    let messages = messages.map_err(failed)?;
    let ours = origin_prefix(&context.cluster);
    let found = match first_commit(&messages, applied, &ours) {
        Some(time) => Beyond::Since(time),
        None if messages.len() < usize::try_from(MESSAGES_MAX).unwrap_or(0) => {
            *seen = end;
            Beyond::NothingUpTo(end)
        }
        None => Beyond::Unknown,
    };
    Ok(found)
}

/// When the first transaction was committed that has changes for the link, was not applied up to
/// `applied`, and did not come from the cluster, whose origins begin with `ours`.
fn first_commit(messages: &[Vec<u8>], applied: Lsn, ours: &str) -> Option<CommitTime> {
    let mut waiting = None;
    for message in messages {
        // What cannot be read is the link's to name; it waits in any case.
        match decode(Bytes::copy_from_slice(message), false) {
            Ok(Message::Begin {
                final_lsn,
                commit_time,
                ..
            }) => waiting = (final_lsn >= applied).then_some(commit_time),
            Ok(Message::Origin { name, .. }) if name.starts_with(ours) => waiting = None,
            Ok(
                Message::Insert { .. }
                | Message::Update { .. }
                | Message::Delete { .. }
                | Message::Truncate { .. },
            )
            | Err(_)
                if waiting.is_some() =>
            {
                return waiting;
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RelationId;
    use crate::pgoutput::{Tuple, encode};
    use bytes::BytesMut;

    fn begin(at: u64) -> Message {
        Message::Begin {
            final_lsn: Lsn::new(at),
            commit_time: CommitTime::from_postgres_micros(i64::try_from(at).unwrap()),
            xid: 7,
        }
    }

    fn origin(name: &str) -> Message {
        let (lsn, name) = (Lsn::new(1), name.to_owned());
        Message::Origin { lsn, name }
    }

    fn first(messages: &[Message]) -> Option<CommitTime> {
        let bytes = |message| {
            let mut out = BytesMut::new();
            encode(message, &mut out).unwrap();
            out.to_vec()
        };
        let messages: Vec<_> = messages.iter().map(bytes).collect();
        first_commit(&messages, Lsn::new(100), "mmrepl_shop_")
    }

    #[test]
    fn the_first_change_of_the_sources_own_counts() {
        let insert = || Message::Insert {
            relation: RelationId(1),
            new: Tuple(std::sync::Arc::new([])),
            xid: None,
        };
        let time = |at| Some(CommitTime::from_postgres_micros(at));
        assert_eq!(first(&[begin(100), insert()]), time(100));
        assert_eq!(first(&[begin(99), insert()]), None);
        assert_eq!(first(&[begin(200), begin(300), insert()]), time(300));
        let applied = [begin(200), origin("mmrepl_shop_west"), insert()];
        assert_eq!(first(&applied), None);
        assert_eq!(
            first(&[begin(200), origin("pg_16385"), insert()]),
            time(200)
        );
    }
}
