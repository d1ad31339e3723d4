//! Transactions that are sent while they run.

use super::{
    AssembleError, Assembled, Message, NO_LIMITS, Piece, PieceLimits, TABLE, Whole, abort,
    assembler, begin, block, commit, describe, end, filter, insert, logical, origin, plain,
    refused, run, start, stream_commit, tuple, whole,
};
use crate::ids::RelationId;

#[test]
fn a_rolled_back_subtransaction_takes_exactly_its_own_changes() {
    let mut assembler = assembler(NO_LIMITS);
    let messages = [
        block(10, true, &[(10, 1), (11, 2), (12, 3), (11, 4)]),
        vec![abort(10, 12)],
        block(10, false, &[(10, 5), (11, 6)]),
        vec![abort(10, 11), abort(10, 99)],
        block(10, false, &[(13, 7)]),
        vec![stream_commit(10)],
    ];
    let done = whole(&mut assembler, messages.concat());
    assert_eq!(done[0].inserted(), [1, 5, 7]);
    assert_eq!(done[0].end, end(10));
    assert_eq!(assembler.streams.held_bytes(), 0);
}

#[test]
fn a_rolled_back_transaction_leaves_nothing_and_disturbs_no_other() {
    let mut assembler = assembler(NO_LIMITS);
    let messages = [
        block(10, true, &[(10, 1), (11, 2)]),
        block(20, true, &[(20, 3)]),
        vec![abort(10, 10), abort(30, 30)],
        plain(5, 8..9),
        vec![stream_commit(20)],
        [
            vec![start(40, true)],
            vec![Message::StreamStop, stream_commit(40)],
        ]
        .concat(),
    ];
    let done = whole(&mut assembler, messages.concat());
    assert_eq!(
        done.iter().map(Whole::inserted).collect::<Vec<_>>(),
        [vec![8], vec![3], vec![]]
    );
    assert_eq!(assembler.streams.held_bytes(), 0);
}

#[test]
fn a_large_streamed_transaction_leaves_in_bounded_pieces() {
    let mut assembler = assembler(PieceLimits {
        rows: 2,
        bytes: usize::MAX,
    });
    let rows: Vec<_> = (0..5).map(|value| (10 + value % 2, value)).collect();
    whole(&mut assembler, block(10, true, &rows));
    let Ok(Assembled::Piece(first)) = assembler.feed(stream_commit(10)) else {
        panic!()
    };
    assert!(first.first && first.end.is_none() && assembler.in_transaction());
    let ends = |piece: Piece| (piece.changes.len(), piece.end.is_some());
    assert_eq!(assembler.pending().map(ends), Some((2, false)));
    assert_eq!(assembler.pending().map(ends), Some((1, true)));
    assert!(!assembler.in_transaction());
    assert_eq!(assembler.pending(), None);
    assert_eq!(assembler.feed(begin(11)), Ok(Assembled::Nothing));
}

#[test]
fn pieces_must_be_taken_before_the_stream_goes_on() {
    let mut assembler = assembler(PieceLimits {
        rows: 1,
        bytes: usize::MAX,
    });
    whole(&mut assembler, block(10, true, &[(10, 1), (10, 2)]));
    assert!(matches!(
        assembler.feed(stream_commit(10)),
        Ok(Assembled::Piece(_))
    ));
    assert_eq!(assembler.feed(begin(11)), Err(AssembleError::NotTaken));
}

#[test]
fn an_applied_streamed_transaction_is_skipped() {
    let mut filter = filter();
    let mut messages = block(10, true, &[(10, 1), (11, 2)]);
    messages.insert(1, origin());
    messages.push(abort(10, 11));
    messages.extend(block(10, false, &[(10, 3)]));
    messages.push(stream_commit(10));
    messages.extend([begin(11), insert(None, 4), commit(11)]);
    let done = whole(&mut filter, messages);
    assert_eq!(
        done.iter().map(Whole::inserted).collect::<Vec<_>>(),
        [vec![], vec![4]]
    );
    assert_eq!(filter.streams.held_bytes(), 0);
}

#[test]
fn a_definition_in_a_stream_counts_for_others_only_after_its_commit() {
    let wide = |xid| Message::Insert {
        xid,
        relation: RelationId(TABLE),
        new: tuple(&[1, 2]),
    };
    let mut assembler = assembler(NO_LIMITS);
    let streamed = || {
        vec![
            start(10, true),
            describe(Some(10), TABLE, 2),
            wide(Some(10)),
            Message::StreamStop,
        ]
    };
    whole(
        &mut assembler,
        [plain(5, 0..1), streamed(), plain(6, 1..2)].concat(),
    );
    let done = whole(
        &mut assembler,
        vec![stream_commit(10), begin(11), wide(None), commit(11)],
    );
    assert_eq!(done.len(), 2);
    // Rolled back, it is forgotten: the narrow definition counts.
    let messages = [
        plain(5, 0..1),
        streamed(),
        vec![abort(10, 10), begin(6), insert(None, 1), commit(6)],
    ];
    assert_eq!(
        whole(&mut self::assembler(NO_LIMITS), messages.concat()).len(),
        2
    );
}

#[test]
fn broken_streams_are_refused() {
    use AssembleError::{Misplaced, StreamOrder};
    let block_then = |message| [vec![start(10, true)], vec![message]].concat();
    for message in [
        begin(1),
        commit(1),
        start(11, true),
        stream_commit(10),
        abort(10, 10),
    ] {
        let name = message.name();
        let place = "inside a streamed block";
        assert_eq!(
            refused(block_then(message)),
            Misplaced {
                message: name,
                place
            }
        );
    }
    for message in [insert(None, 1), describe(None, 1, 1), logical(None, false)] {
        assert!(matches!(refused(block_then(message)), Misplaced { .. }));
    }
    assert!(matches!(
        refused(vec![Message::StreamStop]),
        Misplaced { .. }
    ));
    assert!(matches!(
        refused(vec![describe(Some(1), 1, 1)]),
        Misplaced { .. }
    ));
    let order = |message| StreamOrder { message, xid: 10 };
    assert_eq!(refused(vec![start(10, false)]), order("Stream Start"));
    let twice = vec![start(10, true), Message::StreamStop, start(10, true)];
    assert_eq!(refused(twice), order("Stream Start"));
    assert_eq!(refused(vec![stream_commit(10)]), order("Stream Commit"));
}

#[test]
fn transactions_in_progress_stay_within_the_budget() {
    let rows: Vec<_> = (0..100).map(|value| (10, value)).collect();
    let mut small = assembler(NO_LIMITS).with_stream_budget(2000);
    let error = run(&mut small, block(10, true, &rows)).unwrap_err();
    let AssembleError::StreamBudget {
        held_bytes,
        budget_bytes: 2000,
    } = error
    else {
        panic!()
    };
    assert!((2001..2500).contains(&held_bytes));
    // What ends gives its share back, however it ends.
    let mut small = assembler(NO_LIMITS).with_stream_budget(2000);
    for round in 0..50 {
        let top = 10 * (round + 1);
        let ending = match round % 3 {
            0 => vec![abort(top, top)],
            1 => vec![abort(top, top + 1), stream_commit(top)],
            _ => vec![stream_commit(top)],
        };
        let rows = [(top, 1), (top + 1, 2), (top + 1, 3)];
        whole(&mut small, [block(top, true, &rows), ending].concat());
        assert_eq!(small.streams.held_bytes(), 0);
    }
}
