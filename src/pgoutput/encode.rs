//! [`Message`] to bytes: the inverse of the decoder, for tests, fuzzing and benches.

use bytes::{BufMut, BytesMut};

use super::message::{LogicalMessage, Message, PreparedTx, RelationMessage, TypeMessage};
use super::tuple::{OldImage, Tuple, Value};
use crate::commit_time::CommitTime;
use crate::ids::RelationId;
use crate::lsn::Lsn;
use crate::relation::{Relation, RelationColumn, ReplicaIdentity};

/// A message that has no form on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A count or length does not fit its field.
    #[error("{0} items do not fit the count field of a pgoutput message; use fewer")]
    TooMany(usize),
    /// Strings end with a zero byte, so they cannot contain one.
    #[error("a name with a zero byte cannot be written; take the byte out")]
    ZeroInString,
}

type Encoded = Result<(), EncodeError>;

/// Appends the message as the server would send it. `out` may hold part of it after an error.
pub fn encode(message: &Message, out: &mut BytesMut) -> Result<(), EncodeError> {
    match message {
        Message::Begin { .. } | Message::Commit { .. } | Message::Origin { .. } => {
            put_transaction(out, message)
        }
        Message::Relation(RelationMessage { xid, relation }) => put_relation(out, *xid, relation),
        Message::Type(message) => put_type(out, message),
        Message::Logical(message) => put_logical(out, message),
        Message::Insert { .. }
        | Message::Update { .. }
        | Message::Delete { .. }
        | Message::Truncate { .. } => put_change(out, message),
        Message::StreamStart { .. }
        | Message::StreamStop
        | Message::StreamCommit { .. }
        | Message::StreamAbort { .. } => {
            put_stream(out, message);
            Ok(())
        }
        Message::BeginPrepare(prepared) => put_prepared(out, b"b", prepared),
        Message::Prepare(prepared) => put_prepared(out, b"P\0", prepared),
        Message::StreamPrepare(prepared) => put_prepared(out, b"p\0", prepared),
        Message::CommitPrepared { .. } | Message::RollbackPrepared { .. } => {
            put_resolution(out, message)
        }
    }
}

/// What stands around a plain transaction; nothing for any other message.
fn put_transaction(out: &mut BytesMut, message: &Message) -> Encoded {
    match message {
        Message::Begin {
            final_lsn,
            commit_time,
            xid,
        } => {
            out.put_u8(b'B');
            put_when(out, &[*final_lsn], *commit_time);
            out.put_u32(*xid);
        }
        Message::Commit {
            commit_lsn,
            end_lsn,
            commit_time,
        } => {
            out.put_slice(b"C\0");
            put_when(out, &[*commit_lsn, *end_lsn], *commit_time);
        }
        Message::Origin { lsn, name } => {
            out.put_u8(b'O');
            out.put_u64(lsn.as_u64());
            put_string(out, name)?;
        }
        _ => {}
    }
    Ok(())
}

/// Changes of tables; nothing for any other message.
fn put_change(out: &mut BytesMut, message: &Message) -> Encoded {
    match message {
        Message::Insert { xid, relation, new } => {
            put_row(out, b'I', *xid, *relation);
            put_tuple(out, b'N', new)
        }
        Message::Update {
            xid,
            relation,
            old,
            new,
        } => {
            put_row(out, b'U', *xid, *relation);
            old.as_ref().map_or(Ok(()), |old| put_old(out, old))?;
            put_tuple(out, b'N', new)
        }
        Message::Delete { xid, relation, old } => {
            put_row(out, b'D', *xid, *relation);
            put_old(out, old)
        }
        Message::Truncate {
            xid,
            relations,
            cascade,
            restart_identity,
        } => {
            put_tag(out, b'T', *xid);
            put_count32(out, relations.len())?;
            out.put_u8(u8::from(*cascade) | u8::from(*restart_identity) << 1);
            for relation in relations {
                out.put_u32(relation.0);
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The four messages around streamed blocks; nothing for any other.
fn put_stream(out: &mut BytesMut, message: &Message) {
    match message {
        Message::StreamStart { xid, first } => {
            put_tag(out, b'S', Some(*xid));
            out.put_u8(u8::from(*first));
        }
        Message::StreamStop => out.put_u8(b'E'),
        Message::StreamCommit {
            xid,
            commit_lsn,
            end_lsn,
            commit_time,
        } => {
            put_tag(out, b'c', Some(*xid));
            out.put_u8(0);
            put_when(out, &[*commit_lsn, *end_lsn], *commit_time);
        }
        Message::StreamAbort { xid, subxid, at } => {
            put_tag(out, b'A', Some(*xid));
            out.put_u32(*subxid);
            if let Some((lsn, time)) = at {
                put_when(out, &[*lsn], *time);
            }
        }
        _ => {}
    }
}

/// How a prepared transaction ended; nothing for any other message.
fn put_resolution(out: &mut BytesMut, message: &Message) -> Encoded {
    match message {
        Message::CommitPrepared {
            commit_lsn,
            end_lsn,
            commit_time,
            xid,
            gid,
        } => {
            out.put_slice(b"K\0");
            put_when(out, &[*commit_lsn, *end_lsn], *commit_time);
            put_gid(out, *xid, gid)
        }
        Message::RollbackPrepared {
            prepare_end_lsn,
            rollback_end_lsn,
            prepare_time,
            rollback_time,
            xid,
            gid,
        } => {
            out.put_slice(b"r\0");
            put_when(out, &[*prepare_end_lsn, *rollback_end_lsn], *prepare_time);
            out.put_i64(rollback_time.as_postgres_micros());
            put_gid(out, *xid, gid)
        }
        _ => Ok(()),
    }
}

fn put_row(out: &mut BytesMut, tag: u8, xid: Option<u32>, relation: RelationId) {
    put_tag(out, tag, xid);
    out.put_u32(relation.0);
}

fn put_tag(out: &mut BytesMut, tag: u8, xid: Option<u32>) {
    out.put_u8(tag);
    if let Some(xid) = xid {
        out.put_u32(xid);
    }
}

fn put_when(out: &mut BytesMut, lsns: &[Lsn], time: CommitTime) {
    for lsn in lsns {
        out.put_u64(lsn.as_u64());
    }
    out.put_i64(time.as_postgres_micros());
}

fn put_gid(out: &mut BytesMut, xid: u32, gid: &str) -> Encoded {
    out.put_u32(xid);
    put_string(out, gid)
}

fn put_string(out: &mut BytesMut, text: &str) -> Encoded {
    if text.bytes().any(|byte| byte == 0) {
        return Err(EncodeError::ZeroInString);
    }
    out.put_slice(text.as_bytes());
    out.put_u8(0);
    Ok(())
}

/// The server sends `pg_catalog` as an empty string.
fn put_schema(out: &mut BytesMut, schema: &str) -> Encoded {
    put_string(out, if schema == "pg_catalog" { "" } else { schema })
}

fn put_count16(out: &mut BytesMut, count: usize) -> Encoded {
    out.put_i16(i16::try_from(count).map_err(|_| EncodeError::TooMany(count))?);
    Ok(())
}

fn put_count32(out: &mut BytesMut, count: usize) -> Encoded {
    out.put_i32(i32::try_from(count).map_err(|_| EncodeError::TooMany(count))?);
    Ok(())
}

fn put_relation(out: &mut BytesMut, xid: Option<u32>, relation: &Relation) -> Encoded {
    put_tag(out, b'R', xid);
    out.put_u32(relation.id.0);
    put_schema(out, &relation.schema)?;
    put_string(out, &relation.name)?;
    out.put_u8(match relation.replica_identity {
        ReplicaIdentity::Default => b'd',
        ReplicaIdentity::Nothing => b'n',
        ReplicaIdentity::Full => b'f',
        ReplicaIdentity::Index => b'i',
    });
    put_count16(out, relation.columns.len())?;
    relation
        .columns
        .iter()
        .try_for_each(|column| put_column(out, column))
}

fn put_column(out: &mut BytesMut, column: &RelationColumn) -> Encoded {
    out.put_u8(u8::from(column.is_key));
    put_string(out, &column.name)?;
    out.put_u32(column.type_oid);
    out.put_i32(column.type_modifier);
    Ok(())
}

fn put_type(out: &mut BytesMut, message: &TypeMessage) -> Encoded {
    put_tag(out, b'Y', message.xid);
    out.put_u32(message.oid);
    put_schema(out, &message.schema)?;
    put_string(out, &message.name)
}

fn put_logical(out: &mut BytesMut, message: &LogicalMessage) -> Encoded {
    put_tag(out, b'M', message.xid);
    out.put_u8(u8::from(message.transactional));
    out.put_u64(message.lsn.as_u64());
    put_string(out, &message.prefix)?;
    put_counted(out, &message.content)
}

fn put_old(out: &mut BytesMut, old: &OldImage) -> Encoded {
    match old {
        OldImage::Key(tuple) => put_tuple(out, b'K', tuple),
        OldImage::Full(tuple) => put_tuple(out, b'O', tuple),
    }
}

fn put_tuple(out: &mut BytesMut, kind: u8, tuple: &Tuple) -> Encoded {
    out.put_u8(kind);
    put_count16(out, tuple.0.len())?;
    tuple.0.iter().try_for_each(|value| put_value(out, value))
}

fn put_value(out: &mut BytesMut, value: &Value) -> Encoded {
    out.put_u8(match value {
        Value::Null => b'n',
        Value::Unchanged => b'u',
        Value::Text(_) => b't',
        Value::Binary(_) => b'b',
    });
    value
        .as_bytes()
        .map_or(Ok(()), |bytes| put_counted(out, bytes))
}

fn put_counted(out: &mut BytesMut, bytes: &[u8]) -> Encoded {
    put_count32(out, bytes.len())?;
    out.put_slice(bytes);
    Ok(())
}

fn put_prepared(out: &mut BytesMut, tag_and_flags: &[u8], prepared: &PreparedTx) -> Encoded {
    out.put_slice(tag_and_flags);
    put_when(
        out,
        &[prepared.prepare_lsn, prepared.end_lsn],
        prepared.prepare_time,
    );
    put_gid(out, prepared.xid, &prepared.gid)
}
