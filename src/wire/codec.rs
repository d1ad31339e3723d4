//! Framing: bytes of the server's half of the protocol, version 3.0, to messages (manual 55.7).

use bytes::{Buf, BytesMut};
use postgres_protocol::message::backend::{self, Header, Message};

use super::error::WireError;

/// The largest message PostgreSQL makes: `MaxAllocSize`, 1 GiB less one byte, plus its header.
pub(super) const MESSAGE_MAX_BYTES: usize = 1 << 30;

/// Before the login is complete nothing long has been asked for. libpq draws a similar line
/// (`MAX_ERRLEN`, 30 000), so that a stranger cannot make us reserve memory.
pub(super) const STARTUP_MESSAGE_MAX_BYTES: usize = 64 * 1024;

/// How much to make room for when the buffer is (nearly) full.
const READ_CHUNK_BYTES: usize = 128 * 1024;
/// Less free room than this is worth a new buffer.
const READ_ROOM_MIN_BYTES: usize = 8 * 1024;

/// Tag of `CopyBothResponse`, which postgres-protocol does not know (manual 55.7).
const COPY_BOTH_RESPONSE_TAG: u8 = b'W';
const HEADER_BYTES: usize = 5;

/// One message of the server.
pub(super) enum WireFrame {
    /// Any message that postgres-protocol parses.
    Message(Message),
    /// `CopyBothResponse`: the connection now streams both ways.
    CopyBoth,
}

/// Cuts messages out of the read buffer without copying them.
#[derive(Debug)]
pub(super) struct Codec {
    /// Announced sizes above this are refused before any memory is reserved for them.
    pub(super) message_max_bytes: usize,
}

impl Codec {
    /// The next message, if all of it is there; else makes room for the rest.
    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<Option<WireFrame>, WireError> {
        let malformed = |error: std::io::Error| WireError::Protocol(error.to_string());
        let Some(header) = Header::parse(input).map_err(malformed)? else {
            make_room(input, HEADER_BYTES);
            return Ok(None);
        };
        // `Header::parse` refuses lengths under 4, so this cannot fail.
        let total = usize::try_from(header.len()).unwrap_or(0) + 1;
        if total > self.message_max_bytes {
            let (announced, limit) = (total as u64, self.message_max_bytes as u64);
            return Err(WireError::MessageTooBig { announced, limit });
        }
        if input.len() < total {
            make_room(input, total);
            return Ok(None);
        }
        let frame = match (header.tag(), total) {
            (COPY_BOTH_RESPONSE_TAG, _) => {
                input.advance(total);
                WireFrame::CopyBoth
            }
            // One for every statement of a batch: not worth a slice of the buffer.
            (backend::BIND_COMPLETE_TAG, HEADER_BYTES) => {
                input.advance(total);
                WireFrame::Message(Message::BindComplete)
            }
            _ => match Message::parse(input).map_err(malformed)? {
                Some(message) => WireFrame::Message(message),
                None => return Ok(None),
            },
        };
        Ok(Some(frame))
    }
}

/// Makes sure that a message of `total` bytes fits, or else a good chunk of small ones.
fn make_room(input: &mut BytesMut, total: usize) {
    let missing = total.saturating_sub(input.len());
    let room = input.capacity() - input.len();
    if room < missing.max(READ_ROOM_MIN_BYTES) {
        input.reserve(missing.max(READ_CHUNK_BYTES));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn codec() -> Codec {
        Codec {
            message_max_bytes: 1000,
        }
    }

    #[test]
    fn an_oversized_message_is_refused_before_memory_is_reserved() {
        let mut input = BytesMut::from(&b"D\x7f\xff\xff\xff"[..]);
        let error = codec().decode(&mut input).map(|_| ()).unwrap_err();
        assert!(matches!(
            error,
            WireError::MessageTooBig {
                announced: 0x8000_0000,
                limit: 1000
            }
        ));
        assert!(input.capacity() < 1000);
    }

    #[test]
    fn messages_may_arrive_in_any_pieces() {
        let stream = b"W\0\0\0\x07\0\0\0d\0\0\0\x06hi2\0\0\0\x04Z\0\0\0\x05I";
        let (mut codec, mut input, mut tags) = (codec(), BytesMut::new(), String::new());
        for byte in stream {
            input.extend_from_slice(&[*byte]);
            while let Some(frame) = codec.decode(&mut input).unwrap() {
                tags.push(match frame {
                    WireFrame::CopyBoth => 'W',
                    WireFrame::Message(Message::CopyData(_)) => 'd',
                    WireFrame::Message(Message::BindComplete) => '2',
                    WireFrame::Message(Message::ReadyForQuery(_)) => 'Z',
                    WireFrame::Message(_) => '?',
                });
            }
        }
        assert_eq!(tags, "Wd2Z");
        assert!(input.is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_messages_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..99)) {
            let (mut codec, mut input) = (codec(), BytesMut::from(&bytes[..]));
            while let Ok(Some(_)) = codec.decode(&mut input) {}
        }
    }
}
