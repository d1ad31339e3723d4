//! Bytes to [`Message`]. Total: a message or a typed error, never a panic.

use bytes::Bytes;

use super::error::{DecodeError, DecodeErrorKind};
use super::message::{LogicalMessage, Message, PreparedTx, RelationMessage, TypeMessage};
use super::reader::Reader;
use super::tuple::{OldImage, Tuple, Value};
use crate::ids::RelationId;
use crate::relation::{Relation, RelationColumn, ReplicaIdentity};

/// Smallest Relation column: flags, an empty name, type, modifier.
const COLUMN_BYTES_MIN: usize = 1 + 1 + 4 + 4;
/// Smallest value of a tuple: its kind.
const VALUE_BYTES_MIN: usize = 1;

type Decoded<T = Message> = Result<T, DecodeError>;

/// Takes apart one message, the payload of a `Frame::Data`.
///
/// `in_stream` says whether the stream is between Stream Start and Stream Stop, where seven
/// messages carry a transaction number; the assembler knows (`Assembler::in_stream`).
pub fn decode(payload: Bytes, in_stream: bool) -> Result<Message, DecodeError> {
    let (tag, mut reader) = Reader::open(payload)?;
    let message = body(tag, in_stream, &mut reader)?;
    reader.finish()?;
    Ok(message)
}

fn body(tag: u8, in_stream: bool, reader: &mut Reader) -> Decoded {
    match tag {
        b'I' | b'U' | b'D' | b'R' | b'Y' | b'T' | b'M' => {
            let xid = if in_stream { Some(reader.u32()?) } else { None };
            change(tag, xid, reader)
        }
        b'B' => begin(reader),
        b'C' => commit(reader),
        b'O' => Ok(Message::Origin {
            lsn: reader.lsn()?,
            name: reader.label()?,
        }),
        b'S' => stream_start(reader),
        b'E' => Ok(Message::StreamStop),
        b'c' => stream_commit(reader),
        b'A' => stream_abort(reader),
        b'b' => Ok(Message::BeginPrepare(prepared(reader)?)),
        b'P' => Ok(Message::Prepare(flags_and_prepared(reader)?)),
        b'p' => Ok(Message::StreamPrepare(flags_and_prepared(reader)?)),
        b'K' => commit_prepared(reader),
        b'r' => rollback_prepared(reader),
        _ => Err(DecodeError {
            tag: Some(tag),
            offset: 0,
            kind: DecodeErrorKind::UnknownTag,
        }),
    }
}

/// The messages that name their (sub)transaction inside a streamed block.
fn change(tag: u8, xid: Option<u32>, reader: &mut Reader) -> Decoded {
    match tag {
        b'I' => insert(xid, reader),
        b'U' => update(xid, reader),
        b'D' => delete(xid, reader),
        b'T' => truncate(xid, reader),
        b'M' => logical(xid, reader),
        b'R' => Ok(Message::Relation(RelationMessage {
            xid,
            relation: relation(reader)?,
        })),
        _ => type_name(xid, reader),
    }
}

fn begin(reader: &mut Reader) -> Decoded {
    Ok(Message::Begin {
        final_lsn: reader.lsn()?,
        commit_time: reader.time()?,
        xid: reader.u32()?,
    })
}

fn commit(reader: &mut Reader) -> Decoded {
    no_flags(reader)?;
    Ok(Message::Commit {
        commit_lsn: reader.lsn()?,
        end_lsn: reader.lsn()?,
        commit_time: reader.time()?,
    })
}

/// "Flags; currently unused": a server that sets one means something we do not know.
fn no_flags(reader: &mut Reader) -> Decoded<()> {
    match reader.u8()? {
        0 => Ok(()),
        found => Err(reader.bad_byte("known set of flags", found)),
    }
}

fn bits(reader: &mut Reader, mask: u8, what: &'static str) -> Decoded<u8> {
    let found = reader.u8()?;
    if found & !mask == 0 {
        Ok(found)
    } else {
        Err(reader.bad_byte(what, found))
    }
}

/// The server sends `pg_catalog` as an empty string.
fn schema_name(name: String) -> String {
    if name.is_empty() {
        "pg_catalog".to_owned()
    } else {
        name
    }
}

fn relation(reader: &mut Reader) -> Decoded<Relation> {
    let id = RelationId(reader.u32()?);
    let schema = schema_name(reader.name()?);
    let name = reader.name()?;
    let replica_identity = replica_identity(reader)?;
    let count = reader.count16(COLUMN_BYTES_MIN)?;
    let columns = (0..count)
        .map(|_| column(reader))
        .collect::<Result<_, _>>()?;
    Ok(Relation {
        id,
        schema,
        name,
        replica_identity,
        columns,
    })
}

fn replica_identity(reader: &mut Reader) -> Decoded<ReplicaIdentity> {
    match reader.u8()? {
        b'd' => Ok(ReplicaIdentity::Default),
        b'n' => Ok(ReplicaIdentity::Nothing),
        b'f' => Ok(ReplicaIdentity::Full),
        b'i' => Ok(ReplicaIdentity::Index),
        found => Err(reader.bad_byte("replica identity", found)),
    }
}

fn column(reader: &mut Reader) -> Decoded<RelationColumn> {
    Ok(RelationColumn {
        is_key: bits(reader, 1, "known set of column flags")? == 1,
        name: reader.name()?,
        type_oid: reader.u32()?,
        type_modifier: reader.i32()?,
    })
}

fn type_name(xid: Option<u32>, reader: &mut Reader) -> Decoded {
    let oid = reader.u32()?;
    let schema = schema_name(reader.label()?);
    Ok(Message::Type(TypeMessage {
        xid,
        oid,
        schema,
        name: reader.label()?,
    }))
}

fn insert(xid: Option<u32>, reader: &mut Reader) -> Decoded {
    let relation = RelationId(reader.u32()?);
    match reader.u8()? {
        b'N' => Ok(Message::Insert {
            xid,
            relation,
            new: tuple(reader)?,
        }),
        found => Err(reader.bad_byte("new row of an insert", found)),
    }
}

fn update(xid: Option<u32>, reader: &mut Reader) -> Decoded {
    let relation = RelationId(reader.u32()?);
    let mut kind = reader.u8()?;
    let mut old = None;
    if kind != b'N' {
        old = Some(old_image(kind, reader)?);
        kind = reader.u8()?;
    }
    match kind {
        b'N' => Ok(Message::Update {
            xid,
            relation,
            old,
            new: tuple(reader)?,
        }),
        found => Err(reader.bad_byte("new row of an update", found)),
    }
}

fn delete(xid: Option<u32>, reader: &mut Reader) -> Decoded {
    let relation = RelationId(reader.u32()?);
    let kind = reader.u8()?;
    Ok(Message::Delete {
        xid,
        relation,
        old: old_image(kind, reader)?,
    })
}

fn old_image(kind: u8, reader: &mut Reader) -> Decoded<OldImage> {
    match kind {
        b'K' => Ok(OldImage::Key(tuple(reader)?)),
        b'O' => Ok(OldImage::Full(tuple(reader)?)),
        found => Err(reader.bad_byte("kind of row", found)),
    }
}

fn tuple(reader: &mut Reader) -> Decoded<Tuple> {
    let count = reader.count16(VALUE_BYTES_MIN)?;
    let mut failed = None;
    // Made in place: collecting results would make a list first and copy it.
    let values = (0..count).map(|_| {
        value(reader).unwrap_or_else(|error| {
            failed.get_or_insert(error);
            Value::Null
        })
    });
    let tuple = Tuple(values.collect());
    failed.map_or(Ok(tuple), Err)
}

fn value(reader: &mut Reader) -> Decoded<Value> {
    match reader.u8()? {
        b't' => Ok(Value::Text(reader.counted_bytes()?)),
        b'n' => Ok(Value::Null),
        b'u' => Ok(Value::Unchanged),
        b'b' => Ok(Value::Binary(reader.counted_bytes()?)),
        found => Err(reader.bad_byte("kind of value", found)),
    }
}

fn truncate(xid: Option<u32>, reader: &mut Reader) -> Decoded {
    let count = reader.count32(size_of::<u32>())?;
    let options = bits(reader, 3, "known set of truncate options")?;
    let relations = (0..count)
        .map(|_| reader.u32().map(RelationId))
        .collect::<Result<_, _>>()?;
    let (cascade, restart_identity) = (options & 1 != 0, options & 2 != 0);
    Ok(Message::Truncate {
        xid,
        relations,
        cascade,
        restart_identity,
    })
}

fn logical(xid: Option<u32>, reader: &mut Reader) -> Decoded {
    Ok(Message::Logical(LogicalMessage {
        xid,
        transactional: bits(reader, 1, "known set of message flags")? == 1,
        lsn: reader.lsn()?,
        prefix: reader.label()?,
        content: reader.counted_bytes()?,
    }))
}

fn stream_start(reader: &mut Reader) -> Decoded {
    let xid = reader.u32()?;
    Ok(Message::StreamStart {
        xid,
        first: bits(reader, 1, "first-block mark")? == 1,
    })
}

fn stream_commit(reader: &mut Reader) -> Decoded {
    let xid = reader.u32()?;
    no_flags(reader)?;
    Ok(Message::StreamCommit {
        xid,
        commit_lsn: reader.lsn()?,
        end_lsn: reader.lsn()?,
        commit_time: reader.time()?,
    })
}

/// Position and time follow only with `streaming = parallel`: the length tells which it is.
fn stream_abort(reader: &mut Reader) -> Decoded {
    let (xid, subxid) = (reader.u32()?, reader.u32()?);
    let at = if reader.remaining() == 0 {
        None
    } else {
        Some((reader.lsn()?, reader.time()?))
    };
    Ok(Message::StreamAbort { xid, subxid, at })
}

fn prepared(reader: &mut Reader) -> Decoded<PreparedTx> {
    Ok(PreparedTx {
        prepare_lsn: reader.lsn()?,
        end_lsn: reader.lsn()?,
        prepare_time: reader.time()?,
        xid: reader.u32()?,
        gid: reader.label()?,
    })
}

fn flags_and_prepared(reader: &mut Reader) -> Decoded<PreparedTx> {
    no_flags(reader)?;
    prepared(reader)
}

fn commit_prepared(reader: &mut Reader) -> Decoded {
    no_flags(reader)?;
    Ok(Message::CommitPrepared {
        commit_lsn: reader.lsn()?,
        end_lsn: reader.lsn()?,
        commit_time: reader.time()?,
        xid: reader.u32()?,
        gid: reader.label()?,
    })
}

fn rollback_prepared(reader: &mut Reader) -> Decoded {
    no_flags(reader)?;
    Ok(Message::RollbackPrepared {
        prepare_end_lsn: reader.lsn()?,
        rollback_end_lsn: reader.lsn()?,
        prepare_time: reader.time()?,
        rollback_time: reader.time()?,
        xid: reader.u32()?,
        gid: reader.label()?,
    })
}
