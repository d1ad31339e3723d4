//! What comes of the messages of a stream.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::piece::{Piece, TxEnd, TxHeader};
use crate::conflict::Seen;
use crate::lsn::Lsn;

/// What came of one message.
#[derive(PartialEq, Eq)]
pub enum Assembled {
    /// Nothing is complete yet.
    Nothing,
    /// A transaction, or the next part of a large one.
    Piece(Piece),
    /// A transaction that was passed on as it came has ended.
    RunningEnded(RunningEnd),
    /// A transaction with nothing to apply ended: empty, or filtered by its origin.
    Skipped {
        /// Its position, which may be confirmed like that of an applied one.
        end: TxEnd,
    },
    /// A logical message that is part of no transaction.
    Message {
        /// Where it stands in the source's WAL.
        lsn: Lsn,
        /// The prefix its writer chose.
        prefix: String,
        /// The content, any bytes.
        content: Bytes,
    },
}

/// How a transaction ended that was passed on while it was running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunningEnd {
    /// It committed.
    Commit {
        /// What is known now.
        header: TxHeader,
        /// Where it ends.
        end: TxEnd,
        /// What the source had applied from other nodes by then.
        seen: Arc<Seen>,
    },
    /// It was rolled back.
    Abort,
}

impl fmt::Debug for Assembled {
    /// Without the content of messages, which is data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("Nothing"),
            Self::Piece(piece) => f.debug_tuple("Piece").field(piece).finish(),
            Self::RunningEnded(end) => f.debug_tuple("RunningEnded").field(end).finish(),
            Self::Skipped { end } => f.debug_struct("Skipped").field("end", end).finish(),
            Self::Message {
                lsn,
                prefix,
                content,
            } => {
                write!(f, "Message({lsn}, {prefix:?}, {} bytes)", content.len())
            }
        }
    }
}
