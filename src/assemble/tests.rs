//! The assembler on hand-made streams of protocol version 1, and what the other tests share.

mod properties;
mod running;
mod streamed;

use bytes::Bytes;

use super::*;
use crate::commit_time::CommitTime;
use crate::error::{RetryClass, Retryable};
use crate::ids::RelationId;
use crate::lsn::Lsn;
use crate::pgoutput::{OldImage, PreparedTx, Tuple, Value};
use crate::relation::{Relation, RelationColumn, ReplicaIdentity};

const NO_LIMITS: PieceLimits = PieceLimits {
    rows: usize::MAX,
    bytes: usize::MAX,
};
const TABLE: u32 = 1;

fn assembler(limits: PieceLimits) -> Assembler {
    Assembler::new(limits, OriginFilter::KeepAll)
}

fn filter() -> Assembler {
    Assembler::new(NO_LIMITS, ours())
}

fn begin(xid: u32) -> Message {
    let (final_lsn, commit_time) = (lsn(xid), time(xid));
    Message::Begin {
        final_lsn,
        commit_time,
        xid,
    }
}

fn commit(xid: u32) -> Message {
    Message::Commit {
        commit_lsn: lsn(xid),
        end_lsn: end(xid).end_lsn,
        commit_time: time(xid),
    }
}

fn lsn(xid: u32) -> Lsn {
    Lsn::new(u64::from(xid) * 100)
}

fn end(xid: u32) -> TxEnd {
    TxEnd {
        commit_lsn: lsn(xid),
        end_lsn: Lsn::new(u64::from(xid) * 100 + 50),
    }
}

fn time(xid: u32) -> CommitTime {
    CommitTime::from_postgres_micros(i64::from(xid))
}

fn start(xid: u32, first: bool) -> Message {
    Message::StreamStart { xid, first }
}

fn abort(xid: u32, subxid: u32) -> Message {
    Message::StreamAbort {
        xid,
        subxid,
        at: None,
    }
}

fn stream_commit(xid: u32) -> Message {
    let TxEnd {
        commit_lsn,
        end_lsn,
    } = end(xid);
    Message::StreamCommit {
        xid,
        commit_lsn,
        end_lsn,
        commit_time: time(xid),
    }
}

fn ours() -> OriginFilter {
    OriginFilter::DropNamed("mmrepl_c_".to_owned())
}

fn origin() -> Message {
    Message::Origin {
        lsn: Lsn::ZERO,
        name: "mmrepl_c_east".into(),
    }
}

/// A table with columns `a`, `b`, ….
fn describe(xid: Option<u32>, id: u32, columns: u8) -> Message {
    let column = |index: u8| RelationColumn {
        name: char::from(b'a' + index).to_string(),
        type_oid: 25,
        type_modifier: -1,
        is_key: index == 0,
    };
    let relation = Relation {
        id: RelationId(id),
        schema: "public".into(),
        name: format!("t{id}"),
        replica_identity: ReplicaIdentity::Default,
        columns: (0..columns).map(column).collect(),
    };
    Message::Relation(RelationMessage { xid, relation })
}

fn tuple(values: &[u32]) -> Tuple {
    let text = |value: &u32| Value::Text(Bytes::from(value.to_string()));
    Tuple(values.iter().map(text).collect())
}

fn insert(xid: Option<u32>, value: u32) -> Message {
    Message::Insert {
        xid,
        relation: RelationId(TABLE),
        new: tuple(&[value]),
    }
}

fn logical(xid: Option<u32>, transactional: bool) -> Message {
    let content = Bytes::from_static(b"hunter2");
    Message::Logical(LogicalMessage {
        xid,
        transactional,
        lsn: lsn(9),
        prefix: "p".into(),
        content,
    })
}

/// A transaction put together again from its pieces, or a skipped one.
#[derive(Debug, PartialEq, Eq)]
struct Whole {
    header: Option<TxHeader>,
    changes: Vec<Change>,
    end: TxEnd,
}

impl Whole {
    /// The first values of the inserted rows.
    fn inserted(&self) -> Vec<u32> {
        let value = |change: &Change| match change {
            Change::Insert { new, .. } => {
                let text = new.0[0].as_bytes().unwrap();
                std::str::from_utf8(text).unwrap().parse().unwrap()
            }
            other => panic!("{other:?}"),
        };
        self.changes.iter().map(value).collect()
    }
}

/// Feeds the messages and joins the pieces, checking that they are well formed.
fn run(
    assembler: &mut Assembler,
    messages: impl IntoIterator<Item = Message>,
) -> Result<Vec<Whole>, AssembleError> {
    let (mut done, mut open) = (Vec::new(), None);
    for message in messages {
        let mut next = Some(assembler.feed(message)?);
        while let Some(assembled) = next {
            match assembled {
                Assembled::Piece(piece) => take(piece, &mut open, &mut done, assembler.limits),
                Assembled::Skipped { end } => {
                    assert!(open.is_none());
                    done.push(Whole {
                        header: None,
                        changes: Vec::new(),
                        end,
                    });
                }
                Assembled::RunningEnded(end) => panic!("{end:?}"),
                Assembled::Nothing | Assembled::Message { .. } => {}
            }
            next = assembler.pending().map(Assembled::Piece);
        }
    }
    assert!(open.is_none() || assembler.in_transaction());
    Ok(done)
}

fn take(piece: Piece, open: &mut Option<Whole>, done: &mut Vec<Whole>, limits: PieceLimits) {
    assert_eq!(piece.first, open.is_none());
    assert!(!piece.changes.is_empty());
    let fits = piece.changes.len() <= limits.rows && piece.memory_bytes <= limits.bytes;
    assert!(fits || piece.changes.len() == 1, "{piece:?}");
    assert_eq!(
        piece.bytes,
        piece.changes.iter().map(Change::wire_bytes).sum::<usize>()
    );
    let unknown = TxEnd {
        commit_lsn: Lsn::ZERO,
        end_lsn: Lsn::ZERO,
    };
    let whole = open.get_or_insert(Whole {
        header: Some(piece.header),
        changes: Vec::new(),
        end: unknown,
    });
    assert_eq!(whole.header, Some(piece.header));
    whole.changes.extend(piece.changes);
    if let (Some(end), Some(mut whole)) = (piece.end, piece.end.and_then(|_| open.take())) {
        whole.end = end;
        done.push(whole);
    }
}

fn whole(assembler: &mut Assembler, messages: Vec<Message>) -> Vec<Whole> {
    run(assembler, messages).unwrap()
}

#[track_caller]
fn refused(messages: Vec<Message>) -> AssembleError {
    run(&mut assembler(NO_LIMITS), messages).unwrap_err()
}

fn plain(xid: u32, values: std::ops::Range<u32>) -> Vec<Message> {
    let rows = values.map(|value| insert(None, value));
    [begin(xid), describe(None, TABLE, 1)]
        .into_iter()
        .chain(rows)
        .chain([commit(xid)])
        .collect()
}

/// One block of rows, each with the (sub)transaction that made it.
fn block(top: u32, first: bool, rows: &[(u32, u32)]) -> Vec<Message> {
    let rows = rows.iter().map(|(xid, value)| insert(Some(*xid), *value));
    let head = [start(top, first), describe(Some(top), TABLE, 1)];
    head.into_iter()
        .chain(rows)
        .chain([Message::StreamStop])
        .collect()
}

#[test]
fn a_small_transaction_is_one_piece() {
    let mut assembler = assembler(NO_LIMITS);
    let mut messages = plain(7, 0..3);
    let last = messages.pop().unwrap();
    for message in messages {
        assert_eq!(assembler.feed(message), Ok(Assembled::Nothing));
        assert!(assembler.in_transaction());
    }
    let Ok(Assembled::Piece(piece)) = assembler.feed(last) else {
        panic!()
    };
    assert!(!assembler.in_transaction());
    assert!(piece.first && piece.changes.len() == 3);
    let header = TxHeader::committed(lsn(7), time(7), 7);
    assert_eq!((piece.header, piece.end), (header, Some(end(7))));
    assert_eq!(piece.bytes, 3 * (1 + 4 + 1 + 2 + 1 + 4 + 1));
}

#[test]
fn a_large_transaction_leaves_in_bounded_pieces_and_never_an_empty_one() {
    let mut assembler = assembler(PieceLimits {
        rows: 2,
        bytes: usize::MAX,
    });
    let mut pieces = Vec::new();
    for message in plain(7, 0..6) {
        if let Assembled::Piece(piece) = assembler.feed(message).unwrap() {
            pieces.push((piece.first, piece.changes.len(), piece.end.is_some()));
        }
    }
    assert_eq!(
        pieces,
        [(true, 2, false), (false, 2, false), (false, 2, true)]
    );
}

#[test]
fn an_empty_transaction_is_skipped_with_its_position() {
    let mut assembler = assembler(NO_LIMITS);
    let messages = vec![begin(3), describe(None, TABLE, 1), commit(3)];
    let skipped = Whole {
        header: None,
        changes: vec![],
        end: end(3),
    };
    assert_eq!(whole(&mut assembler, messages), [skipped]);
}

#[test]
fn a_filtered_transaction_is_skipped_but_its_tables_are_remembered() {
    let messages = || {
        let applied = vec![
            begin(3),
            origin(),
            describe(None, TABLE, 1),
            insert(None, 1),
            logical(None, true),
            commit(3),
        ];
        [applied, vec![begin(4), insert(None, 2), commit(4)]].concat()
    };
    let filtered = whole(&mut filter(), messages());
    assert_eq!(
        filtered[0],
        Whole {
            header: None,
            changes: vec![],
            end: end(3)
        }
    );
    assert_eq!(filtered[1].inserted(), [2]);
    assert_eq!(
        whole(&mut assembler(NO_LIMITS), messages())[0]
            .changes
            .len(),
        2
    );
}

#[test]
fn what_came_from_elsewhere_is_passed_on_above_what_was_seen() {
    let elsewhere = || Message::Origin {
        lsn: Lsn::ZERO,
        name: "pg_16401".into(),
    };
    let mut seen = Seen::default();
    seen.note(&"west".parse().unwrap(), time(50));
    for (known, counts) in [(Seen::default(), time(3)), (seen, time(50).plus_micros(1))] {
        let mut assembler = filter();
        assembler.source_had_seen(&Arc::new(known));
        let mut messages = plain(3, 0..2);
        messages.insert(1, elsewhere());
        let found = whole(&mut assembler, messages);
        assert_eq!(found[0].inserted(), [0, 1]);
        assert_eq!(found[0].header.unwrap().commit_time, counts);
    }
}

#[test]
fn an_origin_may_come_late_until_a_piece_has_left() {
    let messages = || {
        let mut messages = plain(3, 0..3);
        messages.insert(4, origin());
        messages
    };
    assert_eq!(whole(&mut filter(), messages())[0].changes, []);
    let limits = PieceLimits {
        rows: 1,
        bytes: usize::MAX,
    };
    let mut assembler = Assembler::new(limits, ours());
    assert_eq!(
        run(&mut assembler, messages()),
        Err(AssembleError::LateOrigin)
    );
}

#[test]
fn messages_keep_their_place_or_come_at_once() {
    let mut assembler = assembler(NO_LIMITS);
    let messages = vec![
        begin(3),
        describe(None, TABLE, 1),
        logical(None, true),
        insert(None, 1),
    ];
    assert_eq!(whole(&mut assembler, messages), []);
    let Ok(Assembled::Message {
        prefix,
        content,
        lsn: at,
    }) = assembler.feed(logical(None, false))
    else {
        panic!()
    };
    assert_eq!(
        (prefix.as_str(), content.as_ref(), at),
        ("p", b"hunter2".as_slice(), lsn(9))
    );
    let done = whole(&mut assembler, vec![commit(3)]);
    assert!(matches!(
        done[0].changes.as_slice(),
        [Change::Message { .. }, Change::Insert { .. }]
    ));
}

#[test]
fn one_truncate_names_all_its_tables() {
    let truncate = |relations| Message::Truncate {
        xid: None,
        relations,
        cascade: true,
        restart_identity: false,
    };
    let messages = vec![
        begin(3),
        describe(None, 1, 1),
        describe(None, 2, 1),
        truncate(vec![RelationId(1), RelationId(2)]),
        truncate(vec![]),
        commit(3),
    ];
    let done = whole(&mut assembler(NO_LIMITS), messages);
    let [
        Change::Truncate {
            relations,
            cascade: true,
            restart_identity: false,
        },
    ] = done[0].changes.as_slice()
    else {
        panic!()
    };
    assert_eq!(
        relations
            .iter()
            .map(|r| r.name.as_str())
            .collect::<Vec<_>>(),
        ["t1", "t2"]
    );
}

#[test]
fn rows_keep_the_definition_under_which_they_were_written() {
    let wide = Message::Insert {
        xid: None,
        relation: RelationId(TABLE),
        new: tuple(&[1, 2]),
    };
    let mut messages = plain(3, 0..1);
    messages.splice(3..3, [describe(None, TABLE, 2), wide]);
    let done = whole(&mut assembler(NO_LIMITS), messages);
    let widths = done[0].changes.iter().map(|change| match change {
        Change::Insert { relation, .. } => relation.columns.len(),
        other => panic!("{other:?}"),
    });
    assert_eq!(widths.collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn broken_plain_streams_are_refused() {
    use AssembleError::{Arity, Misplaced, TwoPhase, UnknownRelation, WrongCommit};
    let outside = "outside a transaction";
    let misplaced = |message, place| Misplaced { message, place };
    assert_eq!(refused(vec![insert(None, 1)]), misplaced("Insert", outside));
    assert_eq!(
        refused(vec![logical(None, true)]),
        misplaced("Message", outside)
    );
    assert_eq!(refused(vec![origin()]), misplaced("Origin", outside));
    assert_eq!(refused(vec![commit(1)]), misplaced("Commit", outside));
    let inside = "inside a transaction";
    assert_eq!(
        refused(vec![begin(1), begin(2)]),
        misplaced("Begin", inside)
    );
    assert_eq!(
        refused(vec![begin(1), start(2, true)]),
        misplaced("Stream Start", inside)
    );
    assert_eq!(
        refused(vec![begin(1), insert(Some(1), 1)]),
        misplaced("Insert", inside)
    );
    assert_eq!(
        refused(vec![begin(1), insert(None, 1)]),
        UnknownRelation(RelationId(TABLE))
    );
    let arity = Arity {
        table: "public.t1".into(),
        expected: 2,
        found: 1,
    };
    assert_eq!(
        refused(vec![begin(1), describe(None, TABLE, 2), insert(None, 1)]),
        arity
    );
    let wrong = WrongCommit {
        begun: lsn(1),
        committed: lsn(2),
    };
    assert_eq!(refused(vec![begin(1), commit(2)]), wrong);
    let late = Message::Commit {
        commit_lsn: lsn(1),
        end_lsn: lsn(2),
        commit_time: time(2),
    };
    assert!(matches!(refused(vec![begin(1), late]), WrongCommit { .. }));
    let prepared = PreparedTx {
        prepare_lsn: lsn(1),
        end_lsn: lsn(2),
        prepare_time: time(1),
        xid: 1,
        gid: "g".into(),
    };
    assert_eq!(
        refused(vec![Message::BeginPrepare(prepared)]),
        TwoPhase("Begin Prepare")
    );
}

#[test]
fn old_images_must_fit_their_table_too() {
    for old in [OldImage::Key(tuple(&[1, 2])), OldImage::Full(tuple(&[]))] {
        let delete = Message::Delete {
            xid: None,
            relation: RelationId(TABLE),
            old: old.clone(),
        };
        let error = refused(vec![begin(1), describe(None, TABLE, 1), delete]);
        assert!(matches!(error, AssembleError::Arity { .. }));
        let (relation, new) = (RelationId(TABLE), tuple(&[1]));
        let update = Message::Update {
            xid: None,
            relation,
            old: Some(old),
            new,
        };
        let error = refused(vec![begin(1), describe(None, TABLE, 1), update]);
        assert!(matches!(error, AssembleError::Arity { .. }));
    }
}

#[test]
fn nothing_is_passed_on_after_an_error() {
    let mut assembler = assembler(NO_LIMITS);
    let error = run(&mut assembler, [begin(1), insert(None, 1)]).unwrap_err();
    assert_eq!(error.retry_class(), RetryClass::Definite);
    assert_eq!(assembler.feed(commit(1)), Err(AssembleError::Failed));
    assert_eq!(AssembleError::Failed.retry_class(), RetryClass::Transient);
}

#[test]
fn debug_shows_no_values() {
    let mut assembler = assembler(NO_LIMITS);
    let new = Tuple::from(vec![Value::Text(Bytes::from_static(b"hunter2"))]);
    let row = Message::Insert {
        xid: None,
        relation: RelationId(TABLE),
        new,
    };
    let messages = [begin(1), describe(None, TABLE, 1), row, logical(None, true)];
    whole(&mut assembler, messages.into());
    let shown = format!("{:?} {assembler:?}", assembler.feed(logical(None, false)));
    let shown = format!("{shown} {:?}", assembler.feed(commit(1)));
    assert!(
        !shown.contains("hunter2") && shown.contains("7 bytes"),
        "{shown}"
    );
}
