//! A cursor over one message: every read is checked, every failure knows tag and offset.

use bytes::Bytes;

use super::error::{DecodeError, DecodeErrorKind};
use crate::commit_time::CommitTime;
use crate::lsn::Lsn;

/// Reads a payload from front to back.
#[derive(Debug)]
pub(super) struct Reader {
    payload: Bytes,
    tag: Option<u8>,
    offset: usize,
}

impl Reader {
    /// Starts on a payload and reads its tag.
    pub(super) fn open(payload: Bytes) -> Result<(u8, Self), DecodeError> {
        let mut reader = Self {
            payload,
            tag: None,
            offset: 0,
        };
        if reader.payload.is_empty() {
            return Err(reader.error(DecodeErrorKind::Empty));
        }
        let tag = reader.u8()?;
        reader.tag = Some(tag);
        Ok((tag, reader))
    }

    /// An error at the present offset.
    pub(super) fn error(&self, kind: DecodeErrorKind) -> DecodeError {
        DecodeError {
            tag: self.tag,
            offset: self.offset,
            kind,
        }
    }

    /// An error at the byte just read.
    pub(super) fn bad_byte(&self, what: &'static str, found: u8) -> DecodeError {
        let offset = self.offset.saturating_sub(1);
        DecodeError {
            tag: self.tag,
            offset,
            kind: DecodeErrorKind::BadByte { what, found },
        }
    }

    /// How many bytes are left.
    pub(super) fn remaining(&self) -> usize {
        self.payload.len().saturating_sub(self.offset)
    }

    /// Fails unless `bytes` more bytes are there; to be asked before allocating for them.
    pub(super) fn need(&self, bytes: usize) -> Result<(), DecodeError> {
        match bytes.checked_sub(self.remaining()) {
            None | Some(0) => Ok(()),
            Some(missing) => Err(self.error(DecodeErrorKind::Truncated { missing })),
        }
    }

    /// Fails unless everything was read.
    pub(super) fn finish(self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            extra => Err(self.error(DecodeErrorKind::Trailing { extra })),
        }
    }

    fn rest(&self) -> &[u8] {
        self.payload.get(self.offset..).unwrap_or_default()
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some(bytes) = self.rest().first_chunk::<N>().copied() else {
            let missing = N - self.remaining();
            return Err(self.error(DecodeErrorKind::Truncated { missing }));
        };
        self.offset += N;
        Ok(bytes)
    }

    /// `Int8` or `Byte1`.
    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_be_bytes)
    }

    /// `Int32` that is an OID or a transaction number.
    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// `Int32` with a sign.
    pub(super) fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_be_bytes)
    }

    /// `Int64` that is a WAL position.
    pub(super) fn lsn(&mut self) -> Result<Lsn, DecodeError> {
        self.array().map(u64::from_be_bytes).map(Lsn::new)
    }

    /// `Int64` that is a time.
    pub(super) fn time(&mut self) -> Result<CommitTime, DecodeError> {
        self.array()
            .map(i64::from_be_bytes)
            .map(CommitTime::from_postgres_micros)
    }

    /// `Int16` that counts items of at least `item_bytes` each, all of which must still follow.
    pub(super) fn count16(&mut self, item_bytes: usize) -> Result<usize, DecodeError> {
        let count = self.array().map(i16::from_be_bytes)?;
        self.checked_count(i32::from(count), item_bytes)
    }

    /// `Int32` that counts items of at least `item_bytes` each, all of which must still follow.
    pub(super) fn count32(&mut self, item_bytes: usize) -> Result<usize, DecodeError> {
        let count = self.i32()?;
        self.checked_count(count, item_bytes)
    }

    fn checked_count(&self, count: i32, item_bytes: usize) -> Result<usize, DecodeError> {
        let negative = |_| self.error(DecodeErrorKind::NegativeLength);
        let count = usize::try_from(count).map_err(negative)?;
        self.need(count.saturating_mul(item_bytes))?;
        Ok(count)
    }

    /// An `Int32` length and as many bytes, as a slice of the payload.
    pub(super) fn counted_bytes(&mut self) -> Result<Bytes, DecodeError> {
        let length = self.count32(1)?;
        let end = self.offset + length;
        // Cannot be out of range: `count32` has compared the length with what remains.
        let bytes = self.payload.slice(self.offset..end);
        self.offset = end;
        Ok(bytes)
    }

    fn string_bytes(&mut self) -> Result<&[u8], DecodeError> {
        let start = self.offset;
        let Some(length) = self.rest().iter().position(|byte| *byte == 0) else {
            return Err(self.error(DecodeErrorKind::Unterminated));
        };
        self.offset += length + 1;
        Ok(self.payload.get(start..start + length).unwrap_or_default())
    }

    /// A `String` that will be used in SQL, so it must be what the client encoding promises.
    pub(super) fn name(&mut self) -> Result<String, DecodeError> {
        let (tag, offset) = (self.tag, self.offset);
        let text = std::str::from_utf8(self.string_bytes()?);
        text.map(str::to_owned).map_err(|_| DecodeError {
            tag,
            offset,
            kind: DecodeErrorKind::NotUtf8,
        })
    }

    /// A `String` that others choose freely and that is only compared or shown. A `SQL_ASCII`
    /// server sends any bytes here: they are replaced, so that one odd label cannot stop a link.
    pub(super) fn label(&mut self) -> Result<String, DecodeError> {
        Ok(String::from_utf8_lossy(self.string_bytes()?).into_owned())
    }
}
