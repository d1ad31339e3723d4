//! One change, with the table it belongs to.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::error::AssembleError;
use crate::ids::RelationId;
use crate::pgoutput::{LogicalMessage, Message, OldImage, Tuple, Value};
use crate::relation::Relation;

/// One change of a transaction. Its `Debug` shows no values.
#[derive(Clone, PartialEq, Eq)]
pub enum Change {
    /// A new row.
    Insert {
        /// The table as it was at that moment.
        relation: Arc<Relation>,
        /// The row.
        new: Tuple,
    },
    /// A changed row.
    Update {
        /// The table as it was at that moment.
        relation: Arc<Relation>,
        /// The old key if it changed, the old row under `REPLICA IDENTITY FULL`, else nothing.
        old: Option<OldImage>,
        /// The row after the update.
        new: Tuple,
    },
    /// A deleted row.
    Delete {
        /// The table as it was at that moment.
        relation: Arc<Relation>,
        /// Its key, or all of it.
        old: OldImage,
    },
    /// One TRUNCATE command.
    Truncate {
        /// The tables it emptied, at least one.
        relations: Vec<Arc<Relation>>,
        /// The command said CASCADE.
        cascade: bool,
        /// The command said RESTART IDENTITY.
        restart_identity: bool,
    },
    /// A transactional logical message.
    Message {
        /// The prefix its writer chose.
        prefix: String,
        /// The content, any bytes.
        content: Bytes,
    },
}

impl Change {
    /// Puts the table in the place of its number. `None` for a message that changes nothing.
    pub(super) fn resolve(
        message: Message,
        lookup: impl Fn(RelationId) -> Option<Arc<Relation>>,
    ) -> Result<Option<Self>, AssembleError> {
        let find = |id| lookup(id).ok_or(AssembleError::UnknownRelation(id));
        let change = match message {
            Message::Insert { relation, new, .. } => {
                let relation = find(relation)?;
                check_arity(&relation, &new)?;
                Self::Insert { relation, new }
            }
            Message::Update {
                relation, old, new, ..
            } => {
                let relation = find(relation)?;
                old.iter()
                    .try_for_each(|old| check_arity(&relation, old.tuple()))?;
                check_arity(&relation, &new)?;
                Self::Update { relation, old, new }
            }
            Message::Delete { relation, old, .. } => {
                let relation = find(relation)?;
                check_arity(&relation, old.tuple())?;
                Self::Delete { relation, old }
            }
            Message::Truncate {
                relations,
                cascade,
                restart_identity,
                ..
            } => {
                let relations: Vec<_> =
                    relations.into_iter().map(find).collect::<Result<_, _>>()?;
                if relations.is_empty() {
                    return Ok(None);
                }
                Self::Truncate {
                    relations,
                    cascade,
                    restart_identity,
                }
            }
            Message::Logical(LogicalMessage {
                prefix, content, ..
            }) => Self::Message { prefix, content },
            _ => return Ok(None),
        };
        Ok(Some(change))
    }

    /// The table of a row change; nothing for truncates, which may have several, and messages.
    pub fn relation(&self) -> Option<&Arc<Relation>> {
        match self {
            Self::Insert { relation, .. }
            | Self::Update { relation, .. }
            | Self::Delete { relation, .. } => Some(relation),
            Self::Truncate { .. } | Self::Message { .. } => None,
        }
    }

    /// Whether it changes rows.
    pub fn is_data(&self) -> bool {
        !matches!(self, Self::Message { .. })
    }

    fn tuples(&self) -> impl Iterator<Item = &Tuple> {
        let (old, new) = match self {
            Self::Insert { new, .. } => (None, Some(new)),
            Self::Update { old, new, .. } => (old.as_ref(), Some(new)),
            Self::Delete { old, .. } => (Some(old), None),
            Self::Truncate { .. } | Self::Message { .. } => (None, None),
        };
        old.map(OldImage::tuple).into_iter().chain(new)
    }

    /// Bytes of the change on the wire, as protocol version 1 sends it.
    pub fn wire_bytes(&self) -> usize {
        match self {
            // Tag, table, and for each row its kind before it.
            Self::Insert { .. } | Self::Update { .. } | Self::Delete { .. } => {
                1 + 4
                    + self
                        .tuples()
                        .map(|tuple| 1 + tuple.wire_bytes())
                        .sum::<usize>()
            }
            // Tag, count, options, tables.
            Self::Truncate { relations, .. } => 1 + 4 + 1 + 4 * relations.len(),
            // Tag, flags, position, prefix with its zero byte, length, content.
            Self::Message { prefix, content } => 1 + 1 + 8 + prefix.len() + 1 + 4 + content.len(),
        }
    }

    /// Memory of the change: its bytes, and what each of its values takes beside them.
    ///
    /// A row of a thousand NULLs is a kilobyte on the wire and forty in memory, so limits on
    /// memory count this and not the wire.
    pub(super) fn memory_bytes(&self) -> usize {
        let values: usize = self.tuples().map(|tuple| tuple.0.len()).sum();
        size_of::<Self>() + self.wire_bytes() + values * size_of::<Value>()
    }
}

fn check_arity(relation: &Relation, tuple: &Tuple) -> Result<(), AssembleError> {
    let (expected, found) = (relation.columns.len(), tuple.0.len());
    if expected == found {
        return Ok(());
    }
    let table = format!("{}.{}", relation.schema, relation.name);
    Err(AssembleError::Arity {
        table,
        expected,
        found,
    })
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |relation: &Relation| format!("{}.{}", relation.schema, relation.name);
        match self {
            Self::Insert { relation, new } => write!(f, "Insert({}, {new:?})", name(relation)),
            Self::Update { relation, old, new } => {
                write!(f, "Update({}, {old:?}, {new:?})", name(relation))
            }
            Self::Delete { relation, old } => write!(f, "Delete({}, {old:?})", name(relation)),
            Self::Truncate {
                relations,
                cascade,
                restart_identity,
            } => {
                let names: Vec<_> = relations.iter().map(|relation| name(relation)).collect();
                write!(f, "Truncate({names:?}, {cascade}, {restart_identity})")
            }
            Self::Message { prefix, content } => {
                write!(f, "Message({prefix:?}, {} bytes)", content.len())
            }
        }
    }
}
