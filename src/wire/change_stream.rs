//! The running stream of changes: frames in, status updates out (manual 55.4).

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use tokio::time::timeout;

use super::codec::WireFrame;
use super::connection::{Connection, misplaced};
use super::error::WireError;
use super::stream::Room;
use crate::commit_time::CommitTime;
use crate::lsn::Lsn;

/// How long a server may take to end a stream before we hang up instead.
const STOP_LIMIT: Duration = Duration::from_secs(3);
/// Status updates (34 bytes each) that wait to be sent, before sending waits too.
const UNSENT_STATUS_MAX_BYTES: usize = 64 * 1024;
/// One message of the stream (manual 55.4, `START_REPLICATION`).
#[derive(Clone, PartialEq, Eq)]
pub enum Frame {
    /// `XLogData`: one pgoutput message.
    Data {
        /// Where the message lies in the WAL; 0/0 for those that are not in it.
        wal_start: Lsn,
        /// How far the server has got.
        wal_end: Lsn,
        /// The server's clock when it sent this.
        sent_at: CommitTime,
        /// The message.
        payload: Bytes,
    },
    /// Primary keepalive message.
    Keepalive {
        /// How far the server has got.
        wal_end: Lsn,
        /// The server's clock when it sent this.
        sent_at: CommitTime,
        /// True when the server wants a status update soon, or it hangs up.
        reply_requested: bool,
    },
}

impl std::fmt::Debug for Frame {
    /// Never shows row values.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Data {
                wal_start,
                wal_end,
                payload,
                ..
            } => {
                write!(
                    f,
                    "Data {{ {wal_start}, {wal_end}, {} bytes }}",
                    payload.len()
                )
            }
            Self::Keepalive {
                wal_end,
                reply_requested,
                ..
            } => {
                write!(
                    f,
                    "Keepalive {{ {wal_end}, reply_requested: {reply_requested} }}"
                )
            }
        }
    }
}

/// Standby status update: how far this side has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandbyStatus {
    /// Received.
    pub written: Lsn,
    /// Safe here: the slot moves to this, and WAL before it may go.
    pub flushed: Lsn,
    /// Visible here.
    pub applied: Lsn,
    /// This side's clock.
    pub now: CommitTime,
    /// Ask the server for a keepalive.
    pub reply: bool,
}

/// A running stream of changes.
#[derive(Debug)]
pub struct ReplicationStream {
    connection: Connection,
}

impl ReplicationStream {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// The next message, while status updates that wait are being sent. Cancel-safe.
    ///
    /// `Closed` is the server ending the stream, as it does when it shuts down.
    pub async fn next(&mut self) -> Result<Frame, WireError> {
        change_frame(self.connection.receive().await?)
    }

    /// The next message, if all of it has been read already.
    pub fn buffered(&mut self) -> Result<Option<Frame>, WireError> {
        let frame = self.connection.buffered()?;
        frame.map(change_frame).transpose()
    }

    /// Bytes that the last read from the socket brought.
    pub fn last_read(&self) -> usize {
        self.connection.last_read()
    }

    /// What is between the server and us.
    pub fn room(&self) -> Room {
        self.connection.room()
    }

    /// Reports progress. Does not wait for the server: what does not fit goes out with
    /// [`Self::next`] or the next report. Cancel-safe.
    pub async fn send_status(&mut self, status: &StandbyStatus) -> Result<(), WireError> {
        if self.connection.output().len() > UNSENT_STATUS_MAX_BYTES {
            self.connection.flush().await?;
        }
        let mut body = [0_u8; 34];
        let mut out = body.as_mut_slice();
        out.put_u8(b'r');
        for lsn in [status.written, status.flushed, status.applied] {
            out.put_u64(lsn.as_u64());
        }
        out.put_i64(status.now.as_postgres_micros());
        out.put_u8(u8::from(status.reply));
        let message = frontend::CopyData::new(body.as_slice());
        let message = message.map_err(|error| WireError::Protocol(error.to_string()))?;
        message.write(self.connection.output());
        self.connection.send_some().await
    }

    /// Ends the stream, so that the slot is free at once; what still arrives is thrown away.
    pub async fn stop(mut self) -> Result<(), WireError> {
        frontend::copy_done(self.connection.output());
        let ended = timeout(STOP_LIMIT, self.drain()).await;
        if let Ok(ended) = ended {
            ended?;
            self.connection.terminate().await;
            return Ok(());
        }
        Err(WireError::Timeout {
            what: "ending the replication stream".to_owned(),
            after: STOP_LIMIT,
        })
    }

    async fn drain(&mut self) -> Result<(), WireError> {
        loop {
            match self.connection.receive().await? {
                WireFrame::Message(Message::ReadyForQuery(_)) => return Ok(()),
                WireFrame::Message(
                    Message::CopyData(_) | Message::CopyDone | Message::CommandComplete(_),
                ) => {}
                frame => return Err(misplaced(&frame, "the end of the replication stream")),
            }
        }
    }
}

fn change_frame(frame: WireFrame) -> Result<Frame, WireError> {
    match frame {
        WireFrame::Message(Message::CopyData(body)) => parse_frame(body.into_bytes()),
        WireFrame::Message(Message::CopyDone | Message::CommandComplete(_)) => {
            Err(WireError::Closed)
        }
        frame => Err(misplaced(&frame, "the replication stream")),
    }
}

/// Reads the header of a `CopyData` message of the stream.
fn parse_frame(mut body: Bytes) -> Result<Frame, WireError> {
    let short = |_| WireError::unexpected("a message that is too short", "the replication stream");
    let lsn = |body: &mut Bytes| body.try_get_u64().map(Lsn::new).map_err(short);
    let time = |body: &mut Bytes| {
        body.try_get_i64()
            .map(CommitTime::from_postgres_micros)
            .map_err(short)
    };
    match body.try_get_u8().map_err(short)? {
        b'w' => {
            let (wal_start, wal_end) = (lsn(&mut body)?, lsn(&mut body)?);
            let sent_at = time(&mut body)?;
            Ok(Frame::Data {
                wal_start,
                wal_end,
                sent_at,
                payload: body,
            })
        }
        b'k' => {
            let (wal_end, sent_at) = (lsn(&mut body)?, time(&mut body)?);
            let reply_requested = body.try_get_u8().map_err(short)? != 0;
            Ok(Frame::Keepalive {
                wal_end,
                sent_at,
                reply_requested,
            })
        }
        _ => Err(WireError::unexpected(
            "an unknown message",
            "the replication stream",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frames_are_read() {
        let mut bytes = vec![b'k'];
        bytes.extend_from_slice(&7_u64.to_be_bytes());
        bytes.extend_from_slice(&9_i64.to_be_bytes());
        bytes.push(1);
        let sent_at = CommitTime::from_postgres_micros(9);
        let wanted = Frame::Keepalive {
            wal_end: Lsn::new(7),
            sent_at,
            reply_requested: true,
        };
        assert_eq!(parse_frame(bytes.into()).unwrap(), wanted);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse_frame(bytes.into());
        }
    }
}
