//! What the server sends, made by the encoder: a table `t (id int primary key, v int, note text)`.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use mmrepl::apply::pure::{Guard, TableMap, Target, Versions};
use mmrepl::assemble::{Assembled, Assembler, OriginFilter, Piece, PieceLimits};
use mmrepl::catalog::key_form::KeyForm;
use mmrepl::catalog::table::{Column, Key, KeyColumn, Table};
use mmrepl::catalog::unique::Uniques;
use mmrepl::commit_time::CommitTime;
use mmrepl::conflict::Rule;
use mmrepl::ids::RelationId;
use mmrepl::lsn::Lsn;
use mmrepl::pgoutput::{Message, OldImage, RelationMessage, Tuple, Value, encode};
use mmrepl::relation::{Relation, RelationColumn, ReplicaIdentity};

/// Rows in one round of a benchmark.
pub(crate) const ROWS: u32 = 1000;

const COLUMNS: [(&str, &str, u32); 3] =
    [("id", "int4", 23), ("v", "int4", 23), ("note", "text", 25)];

/// What is done to a row.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Insert,
    Update,
    Delete,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Insert, Self::Update, Self::Delete];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }

    fn message(self, id: u32) -> Message {
        let (xid, relation, new) = (None, RelationId(7), row(id));
        match self {
            Self::Insert => Message::Insert { xid, relation, new },
            Self::Update => {
                let old = None;
                Message::Update {
                    xid,
                    relation,
                    old,
                    new,
                }
            }
            Self::Delete => {
                let key = vec![new.0[0].clone(), Value::Null, Value::Null];
                let old = OldImage::Key(key.into());
                Message::Delete { xid, relation, old }
            }
        }
    }
}

fn row(id: u32) -> Tuple {
    let text = |text: String| Value::Text(text.into());
    let note = format!("what is noted of row {id}");
    Tuple::from(vec![
        text(id.to_string()),
        text((id * 7).to_string()),
        text(note),
    ])
}

pub(crate) fn relation() -> Relation {
    let column = |(name, _, type_oid): (&str, &str, u32)| RelationColumn {
        name: name.to_owned(),
        type_oid,
        type_modifier: -1,
        is_key: name == "id",
    };
    Relation {
        id: RelationId(7),
        schema: "public".to_owned(),
        name: "t".to_owned(),
        replica_identity: ReplicaIdentity::Default,
        columns: COLUMNS.map(column).to_vec(),
    }
}

/// The table on the target, in a cluster of two.
pub(crate) fn target() -> Arc<Target> {
    let column = |(name, type_name, type_oid): (&str, &str, u32)| Column {
        name: name.to_owned(),
        type_name: type_name.to_owned(),
        cast_type: Some(type_name.to_owned()),
        type_oid,
        not_null: false,
        has_default: false,
        generated: false,
        identity_always: false,
        base_type: (0, -1),
        is_bare_byte: false,
    };
    let key = KeyColumn {
        name: "id".to_owned(),
        type_name: "int4".to_owned(),
        equality: "OPERATOR(pg_catalog.=)".to_owned(),
        form: KeyForm::Cast,
    };
    let table = Table {
        oid: 1,
        schema: "public".to_owned(),
        name: "t".to_owned(),
        partitioned: false,
        is_partition: false,
        replica_identity: 'd',
        columns: COLUMNS.map(column).to_vec(),
        can_skip_duplicates: true,
        uniques: Uniques::default(),
        indexed: Vec::new(),
        key: Some(Key {
            index: "t_pkey".to_owned(),
            columns: vec![key],
            primary: true,
            deferrable: false,
        }),
    };
    let map = TableMap::new(Arc::new(relation()), Some(table), "west").expect("columns match");
    let east = "east".parse().expect("a name of a node");
    let versions = Versions::new(Rule::LastWriteWins, east, &map).expect("a rule without a column");
    let guard = Guard {
        origin: 1,
        stronger: vec![],
        others: vec![],
        pair: true,
        again: vec![],
    };
    Arc::new(Target::new(map, guard, vec![], versions))
}

/// So many changes, each of another row.
pub(crate) fn changes(kind: Kind) -> Vec<Bytes> {
    (1..=ROWS).map(|id| bytes(&kind.message(id))).collect()
}

/// The same in transactions of `each`, with what stands around them.
pub(crate) fn transactions(kind: Kind, each: u32) -> Vec<Bytes> {
    let relation = Message::Relation(RelationMessage {
        xid: None,
        relation: relation(),
    });
    let mut stream = Vec::new();
    for id in 1..=ROWS {
        let commit_time = CommitTime::from_postgres_micros(i64::from(id));
        let lsn = Lsn::new(u64::from(id.div_ceil(each)) * 1000);
        if (id - 1).is_multiple_of(each) {
            let begin = Message::Begin {
                final_lsn: lsn,
                commit_time: time_of(id, each),
                xid: id,
            };
            stream.push(bytes(&begin));
        }
        if id == 1 {
            stream.push(bytes(&relation));
        }
        stream.push(bytes(&kind.message(id)));
        if id.is_multiple_of(each) || id == ROWS {
            let end_lsn = Lsn::new(lsn.as_u64() + 8);
            let commit_time = if each == 1 {
                commit_time
            } else {
                time_of(id, each)
            };
            stream.push(bytes(&Message::Commit {
                commit_lsn: lsn,
                end_lsn,
                commit_time,
            }));
        }
    }
    stream
}

/// Equal in all messages of a transaction.
fn time_of(id: u32, each: u32) -> CommitTime {
    CommitTime::from_postgres_micros(i64::from(id.div_ceil(each) * each).min(i64::from(ROWS)))
}

fn bytes(message: &Message) -> Bytes {
    let mut out = BytesMut::new();
    encode(message, &mut out).expect("a message that the server could send");
    out.freeze()
}

/// Room for all of it in one piece.
pub(crate) fn assembler() -> Assembler {
    let limits = PieceLimits {
        rows: 1_000,
        bytes: 1024 * 1024,
    };
    Assembler::new(limits, OriginFilter::KeepAll)
}

/// Puts messages together.
pub(crate) fn assemble(messages: Vec<Message>) -> Vec<Piece> {
    let mut assembler = assembler();
    let mut pieces = Vec::new();
    for message in messages {
        if let Assembled::Piece(piece) = assembler.feed(message).expect("a stream in order") {
            pieces.push(piece);
        }
    }
    pieces
}
