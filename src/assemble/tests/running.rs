//! Streamed transactions that are passed on as they come.

use super::{
    AssembleError, Assembled, Assembler, Change, Message, NO_LIMITS, PieceLimits, RunningEnd,
    TABLE, abort, assembler, block, describe, end, insert, origin, ours, plain, start,
    stream_commit, time, whole,
};
use crate::error::{RetryClass, Retryable};

fn passing(rows: usize) -> Assembler {
    let limits = PieceLimits {
        rows,
        bytes: usize::MAX,
    };
    assembler(limits).passing_on()
}

/// What comes of messages, without those that give nothing.
fn feed(assembler: &mut Assembler, messages: Vec<Message>) -> Vec<Assembled> {
    let mut all = Vec::new();
    for message in messages {
        match assembler.feed(message).unwrap() {
            Assembled::Nothing => {}
            Assembled::Piece(piece) => {
                all.push(Assembled::Piece(piece));
                while let Some(piece) = assembler.pending() {
                    all.push(Assembled::Piece(piece));
                }
            }
            other => all.push(other),
        }
    }
    all
}

/// How many changes each piece has, and whether its transaction was running.
fn sizes(all: &[Assembled]) -> Vec<(usize, bool)> {
    let size = |assembled: &Assembled| match assembled {
        Assembled::Piece(piece) => {
            assert_eq!(piece.end.is_none(), piece.header.is_running());
            Some((piece.changes.len(), piece.header.is_running()))
        }
        _ => None,
    };
    all.iter().filter_map(size).collect()
}

#[test]
fn changes_leave_as_they_come_and_the_end_by_itself() {
    let mut assembler = passing(2);
    let rows = [(10, 1), (11, 2), (10, 3)];
    let first = feed(&mut assembler, block(10, true, &rows));
    assert_eq!(sizes(&first), [(2, true), (1, true)]);
    let between = feed(&mut assembler, plain(5, 8..9));
    assert_eq!(sizes(&between), [(1, false)]);
    let second = feed(&mut assembler, block(10, false, &[(10, 4)]));
    assert_eq!(sizes(&second), [(1, true)]);
    let done = feed(&mut assembler, vec![stream_commit(10)]);
    let [
        Assembled::RunningEnded(RunningEnd::Commit {
            header, end: at, ..
        }),
    ] = &done[..]
    else {
        panic!("{done:?}")
    };
    assert_eq!((header.commit_time, *at), (time(10), end(10)));
    assert!(!assembler.in_transaction());
    assert_eq!(assembler.streams.held_bytes(), 0);
}

#[test]
fn a_second_one_is_kept_until_it_commits() {
    let mut assembler = passing(usize::MAX);
    feed(&mut assembler, block(10, true, &[(10, 1)]));
    let kept = feed(&mut assembler, block(20, true, &[(20, 2), (21, 3)]));
    assert_eq!(kept, []);
    let gone = feed(&mut assembler, vec![abort(20, 21)]);
    assert_eq!(gone, []);
    let more = feed(&mut assembler, block(10, false, &[(10, 4)]));
    assert_eq!(sizes(&more), [(1, true)]);
    let committed = feed(&mut assembler, vec![stream_commit(20)]);
    assert_eq!(sizes(&committed), [(1, false)]);
    let rolled_back = feed(&mut assembler, vec![abort(10, 10)]);
    assert_eq!(rolled_back, [Assembled::RunningEnded(RunningEnd::Abort)]);
    let next = feed(&mut assembler, block(30, true, &[(30, 5)]));
    assert_eq!(sizes(&next), [(1, true)]);
}

#[test]
fn a_part_that_is_rolled_back_cannot_be_followed() {
    let mut assembler = passing(usize::MAX);
    feed(&mut assembler, block(10, true, &[(10, 1), (11, 2)]));
    let error = assembler.feed(abort(10, 11)).unwrap_err();
    assert_eq!(error, AssembleError::PartRolledBack { xid: 10 });
    assert!(error.is_about_streaming());
    assert_eq!(error.retry_class(), RetryClass::Definite);
}

#[test]
fn what_was_applied_here_is_not_passed_on() {
    let mut assembler = Assembler::new(NO_LIMITS, ours()).passing_on();
    let mine = vec![start(10, true), origin(), describe(Some(10), TABLE, 1)];
    let mine = [mine, vec![insert(Some(10), 1), Message::StreamStop]].concat();
    assert_eq!(feed(&mut assembler, mine), []);
    let other = feed(&mut assembler, block(20, true, &[(20, 2)]));
    assert_eq!(sizes(&other), [(1, true)]);
    let skipped = feed(&mut assembler, vec![stream_commit(10)]);
    assert_eq!(skipped, [Assembled::Skipped { end: end(10) }]);
}

#[test]
fn nothing_is_held_of_what_is_passed_on() {
    let small = passing(10).with_stream_budget(2000);
    let rows: Vec<_> = (0..10_000).map(|value| (10, value)).collect();
    let pieces = feed(&mut small.passing_on(), block(10, true, &rows));
    assert_eq!(pieces.len(), 1000);
    let changes = pieces.iter().map(|assembled| match assembled {
        Assembled::Piece(piece) => piece.changes.iter().filter(|c| Change::is_data(c)).count(),
        _ => 0,
    });
    assert_eq!(changes.sum::<usize>(), 10_000);
}

#[test]
fn without_being_asked_all_are_kept() {
    let mut assembler = assembler(NO_LIMITS);
    let done = whole(
        &mut assembler,
        [block(10, true, &[(10, 1)]), vec![stream_commit(10)]].concat(),
    );
    assert_eq!(done[0].inserted(), [1]);
}
