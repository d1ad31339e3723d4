//! A connection that has a read and a write buffer, and never waits on one side only.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::codec::{Codec, MESSAGE_MAX_BYTES, STARTUP_MESSAGE_MAX_BYTES, WireFrame};
use super::error::{ServerError, WireError};
use super::stream::{Room, Stream};

/// A write buffer that grew beyond this is given back once it has been sent.
const KEPT_OUTPUT_BYTES: usize = 8 * 1024 * 1024;

/// Where the server says the session is (`ReadyForQuery`, manual 55.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TransactionStatus {
    /// Not in a transaction block.
    #[default]
    Idle,
    /// In a transaction block.
    Open,
    /// In a transaction block that failed: only a rollback is accepted.
    Failed,
}

/// A stream with its buffers and what the server has told about itself.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    codec: Codec,
    input: BytesMut,
    output: BytesMut,
    output_peak: usize,
    last_read: usize,
    /// The buffer was full after it.
    read_was_cut: bool,
    unflushed: bool,
    write_error: Option<io::Error>,
    peer: String,
    parameters: HashMap<String, String>,
    pub(super) backend_pid: i32,
    pub(super) transaction: TransactionStatus,
}

impl Connection {
    pub(super) fn new(stream: Stream, peer: String) -> Self {
        Self {
            stream,
            codec: Codec {
                message_max_bytes: STARTUP_MESSAGE_MAX_BYTES,
            },
            input: BytesMut::new(),
            output: BytesMut::new(),
            output_peak: 0,
            last_read: 0,
            read_was_cut: false,
            unflushed: false,
            write_error: None,
            peer,
            parameters: HashMap::new(),
            backend_pid: 0,
            transaction: TransactionStatus::Idle,
        }
    }

    /// From now on messages may be as long as values are.
    pub(super) fn logged_in(&mut self) {
        self.codec.message_max_bytes = MESSAGE_MAX_BYTES;
    }

    /// A setting that the server reports (manual 55.2.7).
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// Where to put what is to be sent; [`Self::receive`] and [`Self::flush`] send it.
    pub(super) fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// The next message, while everything in the write buffer is being sent. Cancel-safe.
    pub(super) async fn receive(&mut self) -> Result<WireFrame, WireError> {
        poll_fn(|cx| self.poll_receive(cx)).await
    }

    /// The next message, if all of it is in the read buffer.
    pub(super) fn buffered(&mut self) -> Result<Option<WireFrame>, WireError> {
        while let Some(frame) = self.codec.decode(&mut self.input)? {
            if let Some(frame) = self.note(frame)? {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// Bytes that the last read from the socket brought.
    pub(super) fn last_read(&self) -> usize {
        self.last_read
    }

    /// What is between the server and us.
    pub(super) fn room(&self) -> Room {
        self.stream.room()
    }

    /// Sends what is in the write buffer, without reading. Cancel-safe.
    pub(super) async fn flush(&mut self) -> Result<(), WireError> {
        let sent = poll_fn(|cx| self.poll_send(cx)).await;
        sent.map_err(|e| WireError::io(format!("sending to {}", self.peer), e))
    }

    /// Sends as much as fits without waiting; the rest goes out with the next receive or flush.
    pub(super) async fn send_some(&mut self) -> Result<(), WireError> {
        let sent = poll_fn(|cx| match self.poll_send(cx) {
            Poll::Ready(sent) => Poll::Ready(sent),
            Poll::Pending => Poll::Ready(Ok(())),
        });
        sent.await
            .map_err(|e| WireError::io(format!("sending to {}", self.peer), e))
    }

    /// Sends as much as fits, and wakes the task when more does.
    pub(super) fn keep_sending(&mut self, cx: &mut Context<'_>) {
        if self.write_error.is_none()
            && let Poll::Ready(Err(error)) = self.poll_send(cx)
        {
            self.write_error = Some(error);
        }
    }

    /// Says goodbye; the server needs no answer, and neither do we.
    pub(super) async fn terminate(mut self) {
        frontend::terminate(&mut self.output);
        if self.flush().await.is_ok() {
            let _ = self.stream.shutdown().await;
        }
    }

    /// Waits until the peer has sent something, while everything in the write buffer is being sent.
    /// Cancel-safe.
    pub(super) async fn readable(&mut self) -> Result<(), WireError> {
        poll_fn(|cx| {
            if self.input.is_empty() {
                self.poll_more(cx)
            } else {
                Poll::Ready(Ok(()))
            }
        })
        .await
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<WireFrame, WireError>> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Poll::Ready(Ok(frame));
            }
            ready!(self.poll_more(cx))?;
        }
    }

    /// Reads before it writes: as long as the server can deliver its answers, it goes on taking
    /// our messages. The other order ends with both sides waiting for room in full buffers.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        match self.poll_fill(cx) {
            Poll::Ready(filled) => Poll::Ready(filled),
            Poll::Pending if self.write_error.is_none() => {
                // A server that ends the session says why before the writing fails, so
                // that message is read before the failure counts.
                match ready!(self.poll_send(cx)) {
                    Ok(()) => Poll::Pending,
                    Err(error) => {
                        self.write_error = Some(error);
                        self.poll_more(cx)
                    }
                }
            }
            Poll::Pending => Poll::Ready(Err(self.lost())),
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        let read = {
            let read = pin!(self.stream.read_buf(&mut self.input));
            ready!(read.poll(cx))
        };
        Poll::Ready(match read {
            Ok(0) => Err(self.lost()),
            Ok(bytes) => {
                // What a full buffer cut off belongs to the same read.
                let cut_off = if self.read_was_cut { self.last_read } else { 0 };
                self.last_read = cut_off + bytes;
                self.read_was_cut = self.input.len() == self.input.capacity();
                Ok(())
            }
            Err(error) => Err(WireError::io(format!("reading from {}", self.peer), error)),
        })
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.output_peak = self.output_peak.max(self.output.len());
        while !self.output.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.output))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.output.advance(sent),
            }
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
            if std::mem::take(&mut self.output_peak) > KEPT_OUTPUT_BYTES {
                self.output = BytesMut::new();
            }
        }
        Poll::Ready(Ok(()))
    }

    fn lost(&mut self) -> WireError {
        match self.write_error.take() {
            Some(error) => WireError::io(format!("sending to {}", self.peer), error),
            None => WireError::Closed,
        }
    }

    /// Takes note of what may come at any time (manual 55.2.7) and passes the rest on.
    fn note(&mut self, frame: WireFrame) -> Result<Option<WireFrame>, WireError> {
        match frame {
            WireFrame::Message(Message::NoticeResponse(_) | Message::NotificationResponse(_)) => {
                return Ok(None);
            }
            WireFrame::Message(Message::ParameterStatus(body)) => {
                let text = |t: io::Result<&str>| t.map(str::to_owned);
                if let (Ok(name), Ok(value)) = (text(body.name()), text(body.value())) {
                    self.parameters.insert(name, value);
                }
                return Ok(None);
            }
            WireFrame::Message(Message::ReadyForQuery(ref body)) => {
                self.transaction = match body.status() {
                    b'I' => TransactionStatus::Idle,
                    b'T' => TransactionStatus::Open,
                    b'E' => TransactionStatus::Failed,
                    _ => return Err(WireError::unexpected("an unknown state", "ReadyForQuery")),
                };
            }
            _ => {}
        }
        Ok(Some(frame))
    }
}

/// The error of a message that does not belong where it came, or the server's own.
pub(super) fn misplaced(frame: &WireFrame, during: &str) -> WireError {
    match frame {
        WireFrame::Message(Message::ErrorResponse(body)) => ServerError::parse(body).into(),
        WireFrame::Message(
            Message::CopyInResponse(_) | Message::CopyOutResponse(_) | Message::CopyData(_),
        )
        | WireFrame::CopyBoth => WireError::unexpected("COPY data", during),
        WireFrame::Message(_) => {
            WireError::unexpected("a message that does not belong there", during)
        }
    }
}
