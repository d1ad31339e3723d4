//! Histories that once made nodes differ, shortest form each.

use crate::cluster::play;
use crate::history::{History, How, Link, Step, Strategy, Write};

const EAST: u8 = 0;
const WEST: u8 = 1;
const NORTH: u8 = 2;

fn one(node: u8, write: Write) -> Step {
    Step::Commit(node, vec![write])
}

fn applies(from: u8, to: u8) -> Step {
    Step::Deliver(Link { from, to }, 9, How::Grouped)
}

fn assert_equal(nodes: u8, steps: Vec<Step>) {
    let ahead = [0; 3];
    let full = false;
    let history = History {
        nodes,
        strategy: Strategy::LastWriteWins,
        full,
        ahead,
        steps,
    };
    if let Err(how) = play(&history) {
        panic!("{history}{how}");
    }
}

/// Between the two writes that are merged, the source took over a large value of the target.
#[test]
fn merged_writes_do_not_bring_back_a_large_value_that_lost() {
    assert_equal(
        2,
        vec![
            one(EAST, Write::Put(0)),
            one(WEST, Write::Put(0)),
            applies(WEST, EAST),
            one(EAST, Write::Small(0)),
        ],
    );
}

/// The row that moved in took the place of one that the target had deleted.
#[test]
fn a_row_that_moved_in_does_not_inherit_a_large_value() {
    assert_equal(
        2,
        vec![
            one(WEST, Write::Put(1)),
            Step::Tick(1),
            Step::Commit(EAST, vec![Write::Put(1), Write::Delete(1)]),
            applies(EAST, WEST),
            Step::Commit(WEST, vec![Write::Put(0), Write::Move(0, 1)]),
        ],
    );
}

/// West has east's row, but east's next update stands on north's row, which west has not seen.
#[test]
fn a_third_node_may_have_written_the_row_in_between() {
    assert_equal(
        3,
        vec![
            one(EAST, Write::Put(0)),
            one(NORTH, Write::Put(0)),
            applies(NORTH, EAST),
            one(EAST, Write::Small(0)),
        ],
    );
}

/// An older truncate must not take the place of the newer one in the tombstone.
#[test]
fn an_older_truncate_leaves_the_newer_one_in_memory() {
    assert_equal(
        2,
        vec![
            one(WEST, Write::Truncate),
            Step::Tick(1),
            one(WEST, Write::Put(0)),
            Step::Tick(1),
            one(EAST, Write::Truncate),
        ],
    );
}
