//! The decoder against the manual's layouts, and against anything at all.

use bytes::{Bytes, BytesMut};
use proptest::prelude::{any, proptest};
use proptest::test_runner::Config;

use super::fuzzing::{check_any_bytes, check_round_trip};
use super::*;
use crate::commit_time::CommitTime;
use crate::ids::RelationId;
use crate::lsn::Lsn;
use crate::relation::{Relation, RelationColumn, ReplicaIdentity};

const LSN: Lsn = Lsn::new(0x0102_0304_0506_0708);
const END: Lsn = Lsn::new(0x0102_0304_0506_0710);
const TIME: CommitTime = CommitTime::from_postgres_micros(-2);
const XID: u32 = 0x0a0b_0c0d;
const LSN_BYTES: &[u8] = &[1, 2, 3, 4, 5, 6, 7, 8];
const END_BYTES: &[u8] = &[1, 2, 3, 4, 5, 6, 7, 0x10];
const TIME_BYTES: &[u8] = &[255, 255, 255, 255, 255, 255, 255, 254];
const XID_BYTES: &[u8] = &[0x0a, 0x0b, 0x0c, 0x0d];

/// The bytes decode to the message, and the message encodes to the bytes.
#[track_caller]
fn golden(in_stream: bool, parts: &[&[u8]], message: &Message) {
    let bytes = parts.concat();
    assert_eq!(
        decode(Bytes::from(bytes.clone()), in_stream).as_ref(),
        Ok(message)
    );
    let mut encoded = BytesMut::new();
    encode(message, &mut encoded).unwrap();
    assert_eq!(encoded, bytes);
}

#[track_caller]
fn error(bytes: &[u8]) -> DecodeError {
    decode(Bytes::copy_from_slice(bytes), false).unwrap_err()
}

fn text(value: &'static str) -> Value {
    Value::Text(Bytes::from_static(value.as_bytes()))
}

fn name(value: &str) -> String {
    value.to_owned()
}

#[test]
fn transaction_messages() {
    let begin = Message::Begin {
        final_lsn: LSN,
        commit_time: TIME,
        xid: XID,
    };
    golden(false, &[b"B", LSN_BYTES, TIME_BYTES, XID_BYTES], &begin);
    let commit = Message::Commit {
        commit_lsn: LSN,
        end_lsn: END,
        commit_time: TIME,
    };
    golden(false, &[b"C\0", LSN_BYTES, END_BYTES, TIME_BYTES], &commit);
    let origin = Message::Origin {
        lsn: LSN,
        name: name("mmrepl_c_east"),
    };
    golden(false, &[b"O", LSN_BYTES, b"mmrepl_c_east\0"], &origin);
}

fn relation(xid: Option<u32>, schema: &str) -> Message {
    let column = |name: &str, type_oid, type_modifier, is_key| RelationColumn {
        name: name.to_owned(),
        type_oid,
        type_modifier,
        is_key,
    };
    let relation = Relation {
        id: RelationId(16384),
        schema: name(schema),
        name: name("Tä b"),
        replica_identity: ReplicaIdentity::Index,
        columns: vec![column("id", 23, -1, true), column("v", 1043, 14, false)],
    };
    Message::Relation(RelationMessage { xid, relation })
}

#[test]
fn relation_and_type_messages() {
    let columns: &[u8] = b"\0\x02\x01id\0\0\0\0\x17\xff\xff\xff\xff\0v\0\0\0\x04\x13\0\0\0\x0e";
    let head: &[u8] = b"\0\0\x40\0public\0T\xc3\xa4 b\0i";
    golden(false, &[b"R", head, columns], &relation(None, "public"));
    golden(
        true,
        &[b"R", XID_BYTES, head, columns],
        &relation(Some(XID), "public"),
    );
    let head: &[u8] = b"\0\0\x40\0\0T\xc3\xa4 b\0i";
    golden(false, &[b"R", head, columns], &relation(None, "pg_catalog"));
    let custom = |xid| TypeMessage {
        xid,
        oid: 5,
        schema: name("s"),
        name: name("mood"),
    };
    golden(
        false,
        &[b"Y\0\0\0\x05s\0mood\0"],
        &Message::Type(custom(None)),
    );
    golden(
        true,
        &[b"Y", XID_BYTES, b"\0\0\0\x05s\0mood\0"],
        &Message::Type(custom(Some(XID))),
    );
}

#[test]
fn row_messages() {
    let table = RelationId(9);
    let new = Tuple::from(vec![
        text("7"),
        Value::Null,
        Value::Unchanged,
        Value::Binary(Bytes::from_static(&[0, 1])),
        text(""),
    ]);
    let row: &[u8] = b"N\0\x05t\0\0\0\x017nub\0\0\0\x02\0\x01t\0\0\0\0";
    let key: &[u8] = b"\0\x02t\0\0\0\x016n";
    let old = Tuple::from(vec![text("6"), Value::Null]);
    for (in_stream, xid) in [(false, None), (true, Some(XID))] {
        let number = if in_stream { XID_BYTES } else { &[] };
        let insert = Message::Insert {
            xid,
            relation: table,
            new: new.clone(),
        };
        golden(in_stream, &[b"I", number, b"\0\0\0\x09", row], &insert);
        let images: [(&[u8], &[u8], Option<OldImage>); 3] = [
            (b"", b"", None),
            (b"K", key, Some(OldImage::Key(old.clone()))),
            (b"O", key, Some(OldImage::Full(old.clone()))),
        ];
        for (kind, bytes, old) in images {
            let head = [b"U", number, b"\0\0\0\x09", kind, bytes, row];
            let update = Message::Update {
                xid,
                relation: table,
                old,
                new: new.clone(),
            };
            golden(in_stream, &head, &update);
        }
        let delete = Message::Delete {
            xid,
            relation: table,
            old: OldImage::Key(old.clone()),
        };
        golden(in_stream, &[b"D", number, b"\0\0\0\x09K", key], &delete);
        let delete = Message::Delete {
            xid,
            relation: table,
            old: OldImage::Full(old.clone()),
        };
        golden(in_stream, &[b"D", number, b"\0\0\0\x09O", key], &delete);
    }
}

#[test]
fn truncate_and_logical_messages() {
    let truncate = |xid, cascade, restart_identity| Message::Truncate {
        xid,
        relations: vec![RelationId(1), RelationId(2)],
        cascade,
        restart_identity,
    };
    let tables: &[u8] = b"\0\0\0\x01\0\0\0\x02";
    golden(
        false,
        &[b"T\0\0\0\x02\x01", tables],
        &truncate(None, true, false),
    );
    golden(
        false,
        &[b"T\0\0\0\x02\x02", tables],
        &truncate(None, false, true),
    );
    golden(
        true,
        &[b"T", XID_BYTES, b"\0\0\0\x02\x03", tables],
        &truncate(Some(XID), true, true),
    );
    let logical = |xid, transactional| {
        let content = Bytes::from_static(b"a\0b");
        Message::Logical(LogicalMessage {
            xid,
            transactional,
            lsn: LSN,
            prefix: name("p"),
            content,
        })
    };
    golden(
        false,
        &[b"M\0", LSN_BYTES, b"p\0\0\0\0\x03a\0b"],
        &logical(None, false),
    );
    let in_stream: [&[u8]; 5] = [b"M", XID_BYTES, &[1], LSN_BYTES, b"p\0\0\0\0\x03a\0b"];
    golden(true, &in_stream, &logical(Some(XID), true));
}

#[test]
fn stream_messages() {
    golden(
        false,
        &[b"S", XID_BYTES, &[1]],
        &Message::StreamStart {
            xid: XID,
            first: true,
        },
    );
    golden(
        false,
        &[b"S", XID_BYTES, &[0]],
        &Message::StreamStart {
            xid: XID,
            first: false,
        },
    );
    golden(true, &[b"E"], &Message::StreamStop);
    let commit = Message::StreamCommit {
        xid: XID,
        commit_lsn: LSN,
        end_lsn: END,
        commit_time: TIME,
    };
    golden(
        false,
        &[b"c", XID_BYTES, &[0], LSN_BYTES, END_BYTES, TIME_BYTES],
        &commit,
    );
    let abort = |at| Message::StreamAbort {
        xid: XID,
        subxid: 3,
        at,
    };
    golden(false, &[b"A", XID_BYTES, b"\0\0\0\x03"], &abort(None));
    let parallel: [&[u8]; 5] = [b"A", XID_BYTES, b"\0\0\0\x03", LSN_BYTES, TIME_BYTES];
    golden(false, &parallel, &abort(Some((LSN, TIME))));
}

#[test]
fn two_phase_messages() {
    let prepared = PreparedTx {
        prepare_lsn: LSN,
        end_lsn: END,
        prepare_time: TIME,
        xid: XID,
        gid: name("g"),
    };
    let body = [LSN_BYTES, END_BYTES, TIME_BYTES, XID_BYTES, b"g\0"].concat();
    golden(
        false,
        &[b"b", &body],
        &Message::BeginPrepare(prepared.clone()),
    );
    golden(false, &[b"P\0", &body], &Message::Prepare(prepared.clone()));
    golden(false, &[b"p\0", &body], &Message::StreamPrepare(prepared));
    let commit = Message::CommitPrepared {
        commit_lsn: LSN,
        end_lsn: END,
        commit_time: TIME,
        xid: XID,
        gid: name("g"),
    };
    golden(false, &[b"K\0", &body], &commit);
    let rollback = Message::RollbackPrepared {
        prepare_end_lsn: LSN,
        rollback_end_lsn: END,
        prepare_time: TIME,
        rollback_time: CommitTime::from_postgres_micros(1),
        xid: XID,
        gid: name("g"),
    };
    let times: [&[u8]; 2] = [TIME_BYTES, &[0, 0, 0, 0, 0, 0, 0, 1]];
    golden(
        false,
        &[
            b"r\0", LSN_BYTES, END_BYTES, times[0], times[1], XID_BYTES, b"g\0",
        ],
        &rollback,
    );
}

/// As PostgreSQL 18.4 sent them, protocol version 3 with `two_phase`.
const CAPTURED: [(&str, &str); 6] = [
    (
        "620000000001f38ce80000000001f38de0000303b18477601c00000313673100",
        "Begin Prepare",
    ),
    ("59000040017075626c6963006d6f6f6400", "Type"),
    (
        "52000040057075626c69630074006400040169640000000017ffffffff00760000000019ffffffff\
         006d0000004001ffffffff006e00000006a4ffffffff",
        "Relation",
    ),
    (
        "50000000000001f38ce80000000001f38de0000303b18477601c00000313673100",
        "Prepare",
    ),
    (
        "4b000000000001f38de00000000001f38e18000303b184777d4900000313673100",
        "Commit Prepared",
    ),
    (
        "72000000000001f38f980000000001f38fd0000303b184779cf5000303b18477b8f400000314673200",
        "Rollback Prepared",
    ),
];

#[test]
fn what_a_server_sent_is_read_and_written_byte_for_byte() {
    for (hex, name) in CAPTURED {
        let digits = hex
            .as_bytes()
            .chunks(2)
            .map(|pair| std::str::from_utf8(pair).unwrap());
        let bytes: Bytes = digits
            .map(|pair| u8::from_str_radix(pair, 16).unwrap())
            .collect();
        let message = decode(bytes.clone(), false).unwrap();
        assert_eq!(message.name(), name);
        golden(false, &[&bytes], &message);
        if let Message::RollbackPrepared {
            prepare_time,
            rollback_time,
            ..
        } = message
        {
            assert!(prepare_time < rollback_time);
        }
    }
}

#[test]
fn errors_name_the_tag_the_byte_and_the_cause() {
    use DecodeErrorKind::{
        BadByte, Empty, NegativeLength, NotUtf8, Trailing, Truncated, UnknownTag, Unterminated,
    };
    let cases: [(&[u8], usize, DecodeErrorKind); 12] = [
        (b"", 0, Empty),
        (b"?", 0, UnknownTag),
        (b"B\0\0", 1, Truncated { missing: 6 }),
        (b"E!", 1, Trailing { extra: 1 }),
        (
            b"I\0\0\0\x01X",
            5,
            BadByte {
                what: "new row of an insert",
                found: b'X',
            },
        ),
        (b"I\0\0\0\x01N\xff\xff", 8, NegativeLength),
        (b"I\0\0\0\x01N\0\x01t\x80\0\0\0", 13, NegativeLength),
        (
            b"I\0\0\0\x01N\0\x01t\0\0\0\x05abc",
            13,
            Truncated { missing: 2 },
        ),
        (b"R\0\0\0\x01abc", 5, Unterminated),
        (b"R\0\0\0\x01\xff\0b\0d\0\0", 5, NotUtf8),
        (
            b"T\0\0\0\x01\x04\0\0\0\x01",
            5,
            BadByte {
                what: "known set of truncate options",
                found: 4,
            },
        ),
        (
            b"D\0\0\0\x01N\0\0",
            5,
            BadByte {
                what: "kind of row",
                found: b'N',
            },
        ),
    ];
    for (bytes, offset, kind) in cases {
        assert_eq!(
            error(bytes),
            DecodeError {
                tag: bytes.first().copied(),
                offset,
                kind
            }
        );
    }
    assert_eq!(
        error(b"E!").to_string(),
        "the source sent a replication message 'E' that cannot be read at byte 1: it goes on for \
         1 bytes after its end; look for a newer mmrepl or a proxy that changes the stream"
    );
}

#[test]
fn counts_are_compared_with_what_follows_before_anything_is_allocated() {
    let missing = |bytes: &[u8]| match error(bytes).kind {
        DecodeErrorKind::Truncated { missing } => missing,
        kind => panic!("{kind:?}"),
    };
    assert_eq!(missing(b"I\0\0\0\x01N\x7f\xff"), 0x7fff);
    assert_eq!(missing(b"T\x7f\xff\xff\xff\0"), 4 * 0x7fff_ffff - 1);
    assert_eq!(missing(b"R\0\0\0\x01s\0t\0d\x7f\xff"), 10 * 0x7fff);
}

#[test]
fn an_odd_prefix_cannot_stop_a_link() {
    let bytes = [b"M\0".as_slice(), LSN_BYTES, b"\xff\0\0\0\0\0"].concat();
    let Ok(Message::Logical(message)) = decode(Bytes::from(bytes), false) else {
        panic!()
    };
    assert_eq!(message.prefix, "\u{fffd}");
}

#[test]
fn values_are_slices_of_the_payload() {
    let payload = Bytes::from_static(b"I\0\0\0\x01N\0\x01t\0\0\0\x03abc");
    let Ok(Message::Insert { new, .. }) = decode(payload.clone(), false) else {
        panic!()
    };
    let value = new.0[0].as_bytes().unwrap();
    assert_eq!(value.as_ptr(), payload[payload.len() - 3..].as_ptr());
}

#[test]
fn debug_shows_no_values() {
    let tuple = Tuple::from(vec![
        text("hunter2"),
        Value::Binary(Bytes::from_static(b"hunter2")),
    ]);
    let content = Bytes::from_static(b"hunter2");
    let logical = LogicalMessage {
        xid: None,
        transactional: true,
        lsn: LSN,
        prefix: name("p"),
        content,
    };
    let row = Message::Insert {
        xid: None,
        relation: RelationId(1),
        new: tuple,
    };
    let shown = format!("{row:?} {:?}", Message::Logical(logical));
    assert!(
        !shown.contains("hunter2") && shown.contains("7 bytes"),
        "{shown}"
    );
}

#[test]
fn what_has_no_form_on_the_wire_is_refused() {
    let mut out = BytesMut::new();
    let origin = Message::Origin {
        lsn: LSN,
        name: name("a\0b"),
    };
    assert_eq!(encode(&origin, &mut out), Err(EncodeError::ZeroInString));
    let new = Tuple::from(vec![Value::Null; 40_000]);
    let insert = Message::Insert {
        xid: None,
        relation: RelationId(1),
        new,
    };
    assert_eq!(encode(&insert, &mut out), Err(EncodeError::TooMany(40_000)));
}

fn check_truncations(message: &Message, in_stream: bool) {
    let mut bytes = BytesMut::new();
    encode(message, &mut bytes).unwrap();
    let bytes = bytes.freeze();
    // The one message with an optional end: without position and time it is complete.
    let optional = matches!(message, Message::StreamAbort { at: Some(_), .. }).then_some(9);
    for end in (0..bytes.len()).filter(|end| Some(*end) != optional) {
        let error = decode(bytes.slice(..end), in_stream).unwrap_err();
        assert_eq!(error.tag, bytes.slice(..end).first().copied());
        assert!(error.offset <= end);
    }
}

proptest! {
    #![proptest_config(Config { cases: 512, failure_persistence: None, ..Config::default() })]

    #[test]
    fn every_message_survives_the_wire(
        plain in arbitrary::message(false),
        streamed in arbitrary::message(true),
    ) {
        check_round_trip(&plain, false);
        check_round_trip(&streamed, true);
    }

    #[test]
    fn any_bytes_give_a_message_or_an_error(
        tag in proptest::option::of(proptest::sample::select(b"BCORYIUDTMSEcAbPKrp".to_vec())),
        mut bytes in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        if let (Some(tag), Some(first)) = (tag, bytes.first_mut()) {
            *first = tag;
        }
        check_any_bytes(&bytes);
    }

    #[test]
    fn a_flipped_byte_gives_a_message_or_an_error(
        message in arbitrary::message(false),
        position in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = BytesMut::new();
        encode(&message, &mut bytes).unwrap();
        let position = position.index(bytes.len());
        bytes[position] = byte;
        check_any_bytes(&bytes);
    }

    #[test]
    fn every_truncation_is_an_error(
        plain in arbitrary::message(false),
        streamed in arbitrary::message(true),
    ) {
        check_truncations(&plain, false);
        check_truncations(&streamed, true);
    }
}
