//! Arbitrary messages for property tests.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{BoxedStrategy, Just, Strategy, any, prop_oneof};

use super::{
    LogicalMessage, Message, OldImage, PreparedTx, RelationMessage, Tuple, TypeMessage, Value,
};
use crate::commit_time::CommitTime;
use crate::ids::RelationId;
use crate::lsn::Lsn;
use crate::relation::{Relation, RelationColumn, ReplicaIdentity};

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..20).prop_map(Bytes::from)
}

/// A name: any text without a zero byte. Never empty, which on the wire means `pg_catalog`.
fn name() -> impl Strategy<Value = String> {
    "[^\0]{1,8}"
}

fn lsn() -> impl Strategy<Value = Lsn> {
    any::<u64>().prop_map(Lsn::new)
}

fn time() -> impl Strategy<Value = CommitTime> {
    any::<i64>().prop_map(CommitTime::from_postgres_micros)
}

fn relation_id() -> impl Strategy<Value = RelationId> {
    any::<u32>().prop_map(RelationId)
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(Value::Unchanged),
        bytes().prop_map(Value::Text),
        bytes().prop_map(Value::Binary),
    ]
}

/// A tuple of some width.
pub(crate) fn tuple(columns: impl Into<proptest::collection::SizeRange>) -> BoxedStrategy<Tuple> {
    vec(value(), columns).prop_map(Tuple::from).boxed()
}

/// An old image of some width.
pub(crate) fn old_image(columns: std::ops::Range<usize>) -> BoxedStrategy<OldImage> {
    let tuple = tuple(columns);
    prop_oneof![
        tuple.clone().prop_map(OldImage::Key),
        tuple.prop_map(OldImage::Full)
    ]
    .boxed()
}

fn column() -> impl Strategy<Value = RelationColumn> {
    (any::<bool>(), name(), any::<u32>(), any::<i32>()).prop_map(
        |(is_key, name, type_oid, type_modifier)| RelationColumn {
            name,
            type_oid,
            type_modifier,
            is_key,
        },
    )
}

/// A table definition.
pub(crate) fn relation() -> impl Strategy<Value = Relation> {
    use ReplicaIdentity::{Default, Full, Index, Nothing};
    let identity = prop_oneof![Just(Default), Just(Nothing), Just(Full), Just(Index)];
    (relation_id(), name(), name(), identity, vec(column(), 0..5)).prop_map(
        |(id, schema, name, replica_identity, columns)| Relation {
            id,
            schema,
            name,
            replica_identity,
            columns,
        },
    )
}

fn logical(xid: Option<u32>) -> impl Strategy<Value = Message> {
    (any::<bool>(), lsn(), name(), bytes()).prop_map(
        move |(transactional, lsn, prefix, content)| {
            Message::Logical(LogicalMessage {
                xid,
                transactional,
                lsn,
                prefix,
                content,
            })
        },
    )
}

fn truncate(xid: Option<u32>) -> impl Strategy<Value = Message> {
    (vec(relation_id(), 0..4), any::<bool>(), any::<bool>()).prop_map(
        move |(relations, cascade, restart_identity)| Message::Truncate {
            xid,
            relations,
            cascade,
            restart_identity,
        },
    )
}

/// A message that carries a transaction number inside a streamed block.
fn change(xid: Option<u32>) -> BoxedStrategy<Message> {
    prop_oneof![
        (relation_id(), tuple(0..5)).prop_map(move |(relation, new)| Message::Insert {
            xid,
            relation,
            new
        }),
        (relation_id(), option::of(old_image(0..5)), tuple(0..5)).prop_map(
            move |(relation, old, new)| Message::Update {
                xid,
                relation,
                old,
                new
            }
        ),
        (relation_id(), old_image(0..5)).prop_map(move |(relation, old)| Message::Delete {
            xid,
            relation,
            old
        }),
        truncate(xid),
        logical(xid),
        relation().prop_map(move |relation| Message::Relation(RelationMessage { xid, relation })),
        (any::<u32>(), name(), name()).prop_map(move |(oid, schema, name)| {
            Message::Type(TypeMessage {
                xid,
                oid,
                schema,
                name,
            })
        }),
    ]
    .boxed()
}

fn prepared() -> impl Strategy<Value = PreparedTx> {
    (lsn(), lsn(), time(), any::<u32>(), name()).prop_map(
        |(prepare_lsn, end_lsn, prepare_time, xid, gid)| PreparedTx {
            prepare_lsn,
            end_lsn,
            prepare_time,
            xid,
            gid,
        },
    )
}

fn plain() -> BoxedStrategy<Message> {
    prop_oneof![
        (lsn(), time(), any::<u32>()).prop_map(|(final_lsn, commit_time, xid)| Message::Begin {
            final_lsn,
            commit_time,
            xid
        }),
        (lsn(), lsn(), time()).prop_map(|(commit_lsn, end_lsn, commit_time)| Message::Commit {
            commit_lsn,
            end_lsn,
            commit_time
        }),
        (lsn(), name()).prop_map(|(lsn, name)| Message::Origin { lsn, name }),
    ]
    .boxed()
}

fn streamed() -> BoxedStrategy<Message> {
    let abort = (any::<u32>(), any::<u32>(), option::of((lsn(), time())));
    prop_oneof![
        (any::<u32>(), any::<bool>()).prop_map(|(xid, first)| Message::StreamStart { xid, first }),
        Just(Message::StreamStop),
        (any::<u32>(), lsn(), lsn(), time()).prop_map(|(xid, commit_lsn, end_lsn, commit_time)| {
            Message::StreamCommit {
                xid,
                commit_lsn,
                end_lsn,
                commit_time,
            }
        }),
        abort.prop_map(|(xid, subxid, at)| Message::StreamAbort { xid, subxid, at }),
    ]
    .boxed()
}

fn two_phase() -> BoxedStrategy<Message> {
    prop_oneof![
        prepared().prop_map(Message::BeginPrepare),
        prepared().prop_map(Message::Prepare),
        prepared().prop_map(Message::StreamPrepare),
        (lsn(), lsn(), time(), any::<u32>(), name()).prop_map(
            |(commit_lsn, end_lsn, commit_time, xid, gid)| Message::CommitPrepared {
                commit_lsn,
                end_lsn,
                commit_time,
                xid,
                gid
            }
        ),
        (lsn(), lsn(), time(), time(), any::<u32>(), name()).prop_map(
            |(prepare_end_lsn, rollback_end_lsn, prepare_time, rollback_time, xid, gid)| {
                Message::RollbackPrepared {
                    prepare_end_lsn,
                    rollback_end_lsn,
                    prepare_time,
                    rollback_time,
                    xid,
                    gid,
                }
            }
        ),
    ]
    .boxed()
}

/// Any message, as it comes inside a streamed block or outside.
pub(crate) fn message(in_stream: bool) -> BoxedStrategy<Message> {
    let change = any::<u32>().prop_flat_map(move |xid| change(in_stream.then_some(xid)));
    prop_oneof![7 => change, 3 => plain(), 4 => streamed(), 5 => two_phase()].boxed()
}
