//! Transactions of the source of which a stream has left out a part.
//!
//! What has an origin is left out change by change (`FilterByOrigin`, logical/decode.c), while a
//! transaction shows the origin that its session had when it committed. A session that enters an
//! origin, writes and leaves it before it commits has written what was left out, in a transaction
//! that says of itself that it was written here. So the WAL between is read twice, with and without
//! what has an origin: where the numbers of changes differ, something was left out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use tokio_postgres::Client;

use super::LinkContext;
use super::error::LinkError;
use super::open_stream::{Wanted, open_stream};
use super::reread::{Missed, report};
use crate::fault::caught;
use crate::ids::NodeName;
use crate::lsn::Lsn;
use crate::pgoutput::{self, Message};
use crate::wire::{Frame, ReplicationStream};

/// The numbers of such transactions.
pub(super) async fn find(
    context: &LinkContext,
    source: &Arc<Client>,
    missed: Missed,
) -> Result<HashSet<u32>, LinkError> {
    let all = read(context, source, (missed, true)).await?;
    if all.is_empty() {
        return Ok(HashSet::new());
    }
    let delivered = read(context, source, (missed, false)).await?;
    let differs = |(xid, changes): (u32, u64)| {
        let came = delivered.get(&xid).copied().unwrap_or_default();
        (came != changes).then_some(xid)
    };
    Ok(all.into_iter().filter_map(differs).collect())
}

async fn read(
    context: &LinkContext,
    source: &Arc<Client>,
    (missed, with_all): (Missed, bool),
) -> Result<HashMap<u32, u64>, LinkError> {
    let wanted = Wanted {
        from: missed.read_from,
        streaming: false,
        with_all,
    };
    let (thread, stream) = open_stream(context, source, wanted).await?;
    let node = context.source.name.clone();
    match thread.spawn(caught(count(node, missed, stream))).await {
        Ok(Ok(counted)) => counted,
        Ok(Err(fault)) => Err(fault.into()),
        Err(_) => Err(LinkError::running("counting changes was ended".to_owned())),
    }
}

async fn count(
    node: NodeName,
    missed: Missed,
    mut stream: ReplicationStream,
) -> Result<HashMap<u32, u64>, LinkError> {
    let mut counter = Counter::up_to(missed.to);
    let lost = |source| LinkError::Node {
        node: node.clone(),
        source,
    };
    while !counter.is_done {
        match stream.next().await.map_err(lost)? {
            Frame::Keepalive { wal_end, .. } => {
                counter.reached(wal_end);
                report(&mut stream, missed.read_from).await.map_err(lost)?;
            }
            Frame::Data { payload, .. } => counter.take(&decoded(&node, payload)?),
        }
    }
    if let Err(error) = stream.stop().await {
        tracing::debug!(%node, %error, "the server goes on sending");
    }
    Ok(counter.changes)
}

fn decoded(node: &NodeName, payload: Bytes) -> Result<Message, LinkError> {
    let message = pgoutput::decode(payload, false);
    message.map_err(|source| LinkError::Decode {
        node: node.clone(),
        source,
    })
}

/// Counts the changes of each transaction that says that it was written here. Pure.
struct Counter {
    changes: HashMap<u32, u64>,
    /// The transaction that is being read, unless it has an origin.
    xid: Option<u32>,
    is_within: bool,
    up_to: Lsn,
    is_done: bool,
}

impl Counter {
    fn up_to(up_to: Lsn) -> Self {
        Self {
            changes: HashMap::new(),
            xid: None,
            is_within: false,
            up_to,
            is_done: false,
        }
    }

    /// The server has nothing more before this position.
    fn reached(&mut self, wal_end: Lsn) {
        self.is_done |= !self.is_within && wal_end >= self.up_to;
    }

    fn take(&mut self, message: &Message) {
        match message {
            Message::Begin { final_lsn, xid, .. } => {
                self.is_done |= *final_lsn >= self.up_to;
                (self.xid, self.is_within) = (Some(*xid), true);
            }
            Message::Origin { .. } => self.xid = None,
            Message::Commit { end_lsn, .. } => {
                (self.xid, self.is_within) = (None, false);
                self.reached(*end_lsn);
            }
            Message::Insert { .. }
            | Message::Update { .. }
            | Message::Delete { .. }
            | Message::Truncate { .. } => {
                if let Some(xid) = self.xid {
                    *self.changes.entry(xid).or_default() += 1;
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit_time::CommitTime;
    use crate::ids::RelationId;

    #[test]
    fn changes_are_counted_where_the_transaction_has_no_origin() {
        let mut counter = Counter::up_to(Lsn::new(30));
        let change = Message::Truncate {
            xid: None,
            relations: vec![RelationId(1)],
            cascade: false,
            restart_identity: false,
        };
        for (xid, has_origin) in [(7, false), (8, true), (9, false)] {
            let at = Lsn::new(u64::from(xid - 6) * 10);
            counter.reached(Lsn::new(at.as_u64() - 5));
            counter.take(&Message::Begin {
                final_lsn: at,
                commit_time: CommitTime::default(),
                xid,
            });
            counter.reached(Lsn::new(99));
            if has_origin {
                let (lsn, name) = (Lsn::ZERO, "elsewhere".to_owned());
                counter.take(&Message::Origin { lsn, name });
            }
            assert_eq!(counter.is_done, xid == 9, "{xid}");
            if !counter.is_done {
                counter.take(&change);
                counter.take(&change);
                counter.take(&Message::Commit {
                    commit_lsn: at,
                    end_lsn: Lsn::new(at.as_u64() + 1),
                    commit_time: CommitTime::default(),
                });
            }
        }
        assert_eq!(counter.changes, HashMap::from([(7, 2)]));
    }
}
