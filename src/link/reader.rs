//! Reading a source's stream: frames in, pieces out, and feedback that never stops.
//!
//! The server ends a stream that is silent for `wal_sender_timeout`. So the reader sends its
//! status on a tick even while it waits for room in the queue; when the queue is full it simply
//! does not read the socket, and the server waits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::error::LinkError;
use super::nap::Naps;
use super::others::Foreign;
use super::queue::Sender;
use crate::assemble::{Assembled, Assembler, Piece};
use crate::commit_time::CommitTime;
use crate::conflict::{Marker, Secret, Seen, SeenHistory};
use crate::failpoint::{failpoint, fault_point};
use crate::ids::{ClusterName, NodeName};
use crate::lsn::Lsn;
use crate::pgoutput::{self, Message};
use crate::status::monitor::LinkMonitor;
use crate::wire::{Frame, ReplicationStream, StandbyStatus, WireError};

/// How often the source hears from us: well under the least sensible `wal_sender_timeout`.
pub(super) const FEEDBACK_EVERY: Duration = Duration::from_secs(1);

/// Drives one replication connection.
pub(super) struct Reader {
    source: NodeName,
    cluster: ClusterName,
    /// What the source had applied from others, by position; outlives the reader.
    seen: Arc<Mutex<SeenHistory>>,
    /// What seals the messages that tell of it.
    secret: Secret,
    /// The newest of it, and from where on it holds: nearly always what is asked for.
    newest_seen: (Lsn, Arc<Seen>),
    stream: ReplicationStream,
    assembler: Assembler,
    queue: Sender,
    /// Durable on the target and remembered: what the source may forget.
    confirmed: watch::Receiver<Lsn>,
    monitor: LinkMonitor,
    foreign: Foreign,
    /// The stream leaves nothing out.
    with_all: bool,
    tick: Interval,
    received: Lsn,
    reported: Lsn,
    naps: Naps,
}

impl Reader {
    /// Reads `stream` of `source` into `queue`.
    pub(super) fn new(
        (source, cluster, (seen, secret)): (
            NodeName,
            ClusterName,
            (Arc<Mutex<SeenHistory>>, Secret),
        ),
        stream: ReplicationStream,
        assembler: Assembler,
        queue: Sender,
        (confirmed, monitor, (foreign, with_all)): (
            watch::Receiver<Lsn>,
            LinkMonitor,
            (Foreign, bool),
        ),
    ) -> Self {
        let mut tick = interval(FEEDBACK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (received, reported) = (Lsn::ZERO, Lsn::ZERO);
        let newest_seen = locked(&seen).newest();
        let naps = Naps::new(stream.room());
        Self {
            source,
            cluster,
            seen,
            secret,
            newest_seen,
            stream,
            assembler,
            queue,
            confirmed,
            monitor,
            foreign,
            with_all,
            tick,
            received,
            reported,
            naps,
        }
    }

    /// Reads until the connection or the applier ends. Dropping it drops the connection.
    pub(super) async fn run(mut self) -> Result<(), LinkError> {
        loop {
            fault_point("reader");
            while let Some(frame) = self.buffered()? {
                if !self.frame(frame).await? {
                    return Ok(());
                }
            }
            self.monitor.set_received(self.received);
            if self.queue.has_gathered() && !self.hand_over().await? {
                return Ok(());
            }
            let nap = self.naps.after(self.stream.last_read(), Instant::now());
            tokio::select! {
                biased;
                _ = self.tick.tick() => self.second().await?,
                frame = next(&mut self.stream, nap) => {
                    let frame = frame.map_err(|source| self.failed(source))?;
                    if !self.frame(frame).await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// The next frame that has been read already: no need to look at anything else in between.
    fn buffered(&mut self) -> Result<Option<Frame>, LinkError> {
        let frame = self.stream.buffered();
        frame.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: WireError) -> LinkError {
        LinkError::Node {
            node: self.source.clone(),
            source,
        }
    }

    /// Handles one frame; false when the applier has gone.
    async fn frame(&mut self, frame: Frame) -> Result<bool, LinkError> {
        match frame {
            Frame::Data {
                wal_start,
                wal_end,
                sent_at,
                payload,
            } => {
                self.note_received(wal_end);
                self.naps.came(payload.len(), sent_at.as_postgres_micros());
                self.data((wal_start, sent_at), payload).await
            }
            Frame::Keepalive {
                wal_end,
                reply_requested,
                ..
            } => {
                self.note_received(wal_end);
                if reply_requested {
                    self.feedback().await?;
                }
                self.nothing_up_to(wal_end);
                Ok(true)
            }
        }
    }

    fn note_received(&mut self, wal_end: Lsn) {
        self.received = self.received.max(wal_end);
    }

    async fn data(
        &mut self,
        (at, sent_at): (Lsn, CommitTime),
        payload: Bytes,
    ) -> Result<bool, LinkError> {
        let in_stream = self.assembler.in_stream();
        let message = pgoutput::decode(payload, in_stream).map_err(|source| LinkError::Decode {
            node: self.source.clone(),
            source,
        })?;
        match message {
            Message::Begin { commit_time, .. } => {
                self.naps.sent_after(sent_at.micros_since(commit_time));
            }
            Message::StreamStart { .. } => self.naps.running(),
            Message::StreamStop => self.naps.running_paused(),
            _ => {}
        }
        if at >= self.newest_seen.0 {
            self.assembler.source_had_seen(&self.newest_seen.1);
        } else {
            let seen = Arc::clone(self.seen().at(at));
            self.assembler.source_had_seen(&seen);
        }
        let assembled = self
            .assembler
            .feed(message)
            .map_err(|source| LinkError::Assemble {
                node: self.source.clone(),
                source,
            })?;
        match assembled {
            Assembled::Piece(piece) => self.enqueue_all(piece).await,
            Assembled::RunningEnded(end) => {
                self.queue.ended(end);
                Ok(true)
            }
            Assembled::Skipped { end } => {
                self.nothing_up_to(end.end_lsn);
                Ok(true)
            }
            Assembled::Message {
                lsn,
                prefix,
                content,
            } => {
                self.note_marker(lsn, &prefix, &content);
                // What follows must be asked for in another way.
                Ok(!self.foreign.announced(&prefix, &content))
            }
            Assembled::Nothing => Ok(true),
        }
    }

    fn seen(&self) -> MutexGuard<'_, SeenHistory> {
        locked(&self.seen)
    }

    fn note_marker(&mut self, lsn: Lsn, prefix: &str, content: &[u8]) {
        // Any role may write one: without this node's seal it says nothing.
        let content = self.secret.opened(content);
        let marker = content.and_then(|content| Marker::parse(prefix, content.as_bytes()));
        if let Some(marker) = marker.filter(|marker| marker.cluster == self.cluster) {
            let mut seen = self.seen();
            seen.note(lsn, &marker);
            let newest = seen.newest();
            drop(seen);
            self.newest_seen = newest;
        }
    }

    /// Between transactions the stream's position says that nothing up to it is for us.
    fn nothing_up_to(&mut self, end: Lsn) {
        if !self.assembler.in_transaction() {
            let seen = Arc::clone(self.seen().at(end));
            self.queue.nothing_up_to(end, &seen);
        }
    }

    async fn enqueue_all(&mut self, first: Piece) -> Result<bool, LinkError> {
        let mut next = Some(first);
        while let Some(piece) = next {
            if let Some(piece) = self.queue.gather(piece) {
                if !self.hand_over().await? {
                    return Ok(false);
                }
                // There is room for one, whatever its size.
                let _ = self.queue.gather(piece);
            }
            next = self.assembler.pending();
        }
        Ok(true)
    }

    /// Passes on what was gathered; waits for room, sending feedback meanwhile. False when the
    /// applier has gone.
    async fn hand_over(&mut self) -> Result<bool, LinkError> {
        if let Some(piece) = self.queue.first_gathered() {
            self.monitor.waits_to_apply(piece.header.commit_time);
        }
        loop {
            tokio::select! {
                biased;
                done = self.queue.hand_over() => return Ok(done.is_ok()),
                _ = self.tick.tick() => {}
            }
            self.second().await?;
        }
    }

    /// What is due every [`FEEDBACK_EVERY`].
    async fn second(&mut self) -> Result<(), LinkError> {
        self.naps.second();
        self.feedback().await
    }

    async fn feedback(&mut self) -> Result<(), LinkError> {
        let durable = *self.confirmed.borrow_and_update();
        let flushed = self.foreign.may_be_confirmed(durable, self.with_all);
        let moved = flushed > self.reported;
        if moved {
            failpoint("before_feedback");
        }
        let status = StandbyStatus {
            written: self.received,
            flushed,
            applied: flushed,
            now: CommitTime::now(),
            reply: false,
        };
        self.stream
            .send_status(&status)
            .await
            .map_err(|source| self.failed(source))?;
        self.reported = flushed;
        self.monitor.set_confirmed(flushed);
        if moved {
            failpoint("after_feedback");
        }
        Ok(())
    }
}

/// Nobody else uses it while a reader lives. A panic would leave plain values.
fn locked(seen: &Mutex<SeenHistory>) -> MutexGuard<'_, SeenHistory> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The next frame, after a nap where that saves reads. Cancel-safe.
async fn next(stream: &mut ReplicationStream, nap: Option<Duration>) -> Result<Frame, WireError> {
    if let Some(nap) = nap {
        // The thread, not the task: see `reading`.
        std::thread::sleep(nap);
    }
    stream.next().await
}
