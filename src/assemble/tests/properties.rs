//! The assembler on any stream at all.

use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::{BoxedStrategy, Just, Strategy, any, prop_oneof, proptest};
use proptest::sample::Index;
use proptest::test_runner::Config;

use super::{
    Change, Message, NO_LIMITS, PieceLimits, TABLE, abort, assembler, begin, block, commit,
    describe, end, filter, insert, logical, origin, plain, run, start, stream_commit, whole,
};
use crate::pgoutput::{OldImage, arbitrary, encode};

/// What happens in one transaction of the model.
#[derive(Clone, Debug)]
enum Event {
    /// Subtransaction number (0: the transaction itself) inserts.
    Row(u32),
    /// A subtransaction rolls back.
    Abort(u32),
}

#[derive(Clone, Debug)]
struct ModelTx {
    events: Vec<Event>,
    commits: bool,
    streamed: bool,
}

fn model_tx() -> impl Strategy<Value = ModelTx> {
    let event = prop_oneof![
        5 => (0..4_u32).prop_map(Event::Row),
        1 => (1..4_u32).prop_map(Event::Abort),
    ];
    (vec(event, 0..12), any::<bool>(), 0..4_u8).prop_map(|(events, commits, streamed)| ModelTx {
        events,
        commits,
        streamed: streamed > 0,
    })
}

/// The rows that are there at the end.
fn survivors(tx: &ModelTx) -> Vec<u32> {
    let mut rows: Vec<(u32, u32)> = Vec::new();
    for (value, event) in (0..).zip(&tx.events) {
        match event {
            Event::Row(sub) => rows.push((*sub, value)),
            Event::Abort(sub) => rows.retain(|(made_by, _)| made_by != sub),
        }
    }
    rows.into_iter().map(|(_, value)| value).collect()
}

fn plain_rows(xid: u32, rows: Vec<u32>) -> Vec<Message> {
    let rows = rows.into_iter().map(|value| insert(None, value));
    [begin(xid)]
        .into_iter()
        .chain(rows)
        .chain([commit(xid)])
        .collect()
}

/// The next `count` events of a streamed transaction: blocks, with the rollbacks between them.
fn turn(top: u32, events: &[Event], done: &mut usize, count: usize) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut first = *done == 0;
    if first {
        messages.extend([start(top, true), Message::StreamStop]);
        first = false;
    }
    let mut in_block = false;
    for (value, event) in (0..).zip(events).skip(*done).take(count) {
        match event {
            Event::Row(sub) => {
                messages.extend((!in_block).then(|| start(top, first)));
                in_block = true;
                messages.push(insert(Some(top + sub), value));
            }
            Event::Abort(sub) => {
                messages.extend(std::mem::take(&mut in_block).then_some(Message::StreamStop));
                messages.push(abort(top, top + sub));
            }
        }
    }
    messages.extend(in_block.then_some(Message::StreamStop));
    *done = (*done + count).min(events.len()).max(1);
    messages
}

/// The stream a server might send for these transactions in this order, and the plain stream of
/// the same history in commit order.
fn streams(txs: &[ModelTx], turns: &[(Index, usize)]) -> (Vec<Message>, Vec<Message>) {
    let mut open: Vec<_> = txs.iter().zip(1..).map(|(tx, n)| (tx, n * 10, 0)).collect();
    let (mut mixed, mut expected) = (plain(1, 0..1), plain(1, 0..1));
    let mut turns = turns.iter().cycle();
    while let (false, Some((index, count))) = (open.is_empty(), turns.next()) {
        let index = index.index(open.len());
        let (tx, top, done) = &mut open[index];
        if tx.streamed {
            mixed.extend(turn(*top, &tx.events, done, *count));
            if *done < tx.events.len() {
                continue;
            }
            mixed.push(if tx.commits {
                stream_commit(*top)
            } else {
                abort(*top, *top)
            });
        } else if tx.commits {
            mixed.extend(plain_rows(*top, survivors(tx)));
        }
        if tx.commits {
            expected.extend(plain_rows(*top, survivors(tx)));
        }
        open.remove(index);
    }
    (mixed, expected)
}

/// Messages that often fit together: few tables, few transactions.
fn plausible() -> BoxedStrategy<Message> {
    let xid = || proptest::option::of(1..4_u32);
    prop_oneof![
        (1..4_u32).prop_map(begin),
        (1..4_u32).prop_map(commit),
        Just(origin()),
        (xid(), 1..3_u32, 0..3_u8).prop_map(|(xid, id, columns)| describe(xid, id, columns)),
        (xid(), 0..3_u32).prop_map(|(xid, value)| insert(xid, value)),
        (xid(), any::<bool>()).prop_map(|(xid, transactional)| logical(xid, transactional)),
        (1..4_u32, any::<bool>()).prop_map(|(xid, first)| start(xid, first)),
        Just(Message::StreamStop),
        (1..4_u32).prop_map(stream_commit),
        (1..4_u32, 1..4_u32).prop_map(|(xid, subxid)| abort(xid, subxid)),
        any::<bool>().prop_flat_map(arbitrary::message),
    ]
    .boxed()
}

/// A sequence that goes on for a while before it breaks: `plausible` after a good beginning.
fn sequence() -> impl Strategy<Value = Vec<Message>> {
    let head = prop_oneof![
        Just(vec![begin(1), describe(None, TABLE, 1)]),
        Just(vec![start(1, true), describe(Some(1), TABLE, 1)]),
        Just(block(1, true, &[(1, 1), (2, 2), (3, 3)])),
    ];
    (head, vec(plausible(), 0..12)).prop_map(|(head, tail)| [head, tail].concat())
}

proptest! {
    #![proptest_config(Config { cases: 256, failure_persistence: None, ..Config::default() })]

    #[test]
    fn streamed_and_plain_streams_give_the_same_transactions(
        txs in vec(model_tx(), 0..6),
        turns in vec((any::<Index>(), 1..5_usize), 1..20),
        rows in 1..6_usize,
    ) {
        let (mixed, expected) = streams(&txs, &turns);
        let mut streamed = assembler(PieceLimits { rows, bytes: usize::MAX });
        let found = whole(&mut streamed, mixed);
        assert_eq!(found, whole(&mut assembler(NO_LIMITS), expected));
        assert_eq!(streamed.streams.held_bytes(), 0);
    }

    #[test]
    fn pieces_add_up_to_the_transaction_whatever_the_limits(
        values in vec(any::<u32>(), 1..40),
        rows in 0..50_usize,
        bytes in 0..4000_usize,
    ) {
        let messages = [plain(1, 0..1), plain_rows(2, values.clone())].concat();
        let done = whole(&mut assembler(PieceLimits { rows, bytes }), messages);
        assert_eq!(done[1].inserted(), values);
        assert_eq!(done[1].end, end(2));
    }

    #[test]
    fn any_sequence_gives_transactions_or_an_error(messages in sequence(), drop in any::<bool>()) {
        let mut assembler = if drop { filter() } else { assembler(NO_LIMITS) };
        let held_bytes = match run(&mut assembler, messages) {
            Ok(_) => 0,
            Err(_) => assembler.streams.held_bytes(),
        };
        assert_eq!(held_bytes, 0);
    }

    #[test]
    fn a_change_counts_as_many_bytes_as_it_took(message in arbitrary::message(false)) {
        let tuples = match &message {
            Message::Insert { new, .. } => vec![new],
            Message::Update { old, new, .. } => {
                old.iter().map(OldImage::tuple).chain([new]).collect()
            }
            Message::Delete { old, .. } => vec![old.tuple()],
            _ => vec![],
        };
        let columns = tuples.first().map_or(0, |tuple| tuple.0.len());
        let Message::Relation(relation) = describe(None, 1, u8::try_from(columns).unwrap()) else {
            panic!()
        };
        let relation = std::sync::Arc::new(relation.relation);
        let mut wire = BytesMut::new();
        encode(&message, &mut wire).unwrap();
        if let Ok(Some(change)) = Change::resolve(message, |_| Some(relation.clone())) {
            assert_eq!(change.wire_bytes(), wire.len());
        }
    }
}
