//! Random histories. `MMREPL_MODEL_HISTORIES` says how many, `MMREPL_SEED` from where.

use crate::cluster::play;
use crate::history::{History, Strategy};
use crate::rng::Rng;

/// Histories for each size of cluster under the usual rule.
const HISTORIES: u64 = 60_000;
/// Under each of the others.
const HISTORIES_IN_ROW: u64 = 15_000;

fn histories(strategy: Strategy) -> u64 {
    let usual = if strategy.is_in_row() {
        HISTORIES_IN_ROW
    } else {
        HISTORIES
    };
    let asked = std::env::var("MMREPL_MODEL_HISTORIES").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn many(nodes: u8, strategy: Strategy) {
    let mut rng = Rng::from_env(1);
    for number in 0..histories(strategy) {
        let mut own = rng.fork();
        let history = History::random(&mut |bound| own.below(bound), nodes, strategy);
        if play(&history).is_err() {
            let shortest = history.shortest(|shorter| play(shorter).is_err());
            let how = play(&shortest).unwrap_err();
            panic!("history {number} diverges; the shortest that does:\n{shortest}{how}");
        }
    }
}

#[test]
fn two_nodes_end_equal() {
    many(2, Strategy::LastWriteWins);
}

#[test]
fn three_nodes_end_equal() {
    many(3, Strategy::LastWriteWins);
}

#[test]
fn two_nodes_end_equal_under_version_column() {
    many(2, Strategy::VersionColumn);
}

#[test]
fn three_nodes_end_equal_under_version_column() {
    many(3, Strategy::VersionColumn);
}

#[test]
fn two_nodes_end_equal_under_hybrid_clock() {
    many(2, Strategy::HybridClock);
}

#[test]
fn three_nodes_end_equal_under_hybrid_clock() {
    many(3, Strategy::HybridClock);
}

#[test]
fn two_nodes_end_equal_under_first_write_wins() {
    many(2, Strategy::FirstWriteWins);
}

#[test]
fn three_nodes_end_equal_under_first_write_wins() {
    many(3, Strategy::FirstWriteWins);
}

#[test]
fn two_nodes_end_equal_under_node_priority() {
    many(2, Strategy::NodePriority);
}

#[test]
fn two_nodes_end_equal_under_manual() {
    many(2, Strategy::Manual);
}

#[test]
fn three_nodes_end_equal_under_manual() {
    many(3, Strategy::Manual);
}

#[test]
fn two_nodes_end_equal_under_custom() {
    many(2, Strategy::Custom);
}

#[test]
fn three_nodes_end_equal_under_custom() {
    many(3, Strategy::Custom);
}

#[test]
fn three_nodes_end_equal_under_node_priority() {
    many(3, Strategy::NodePriority);
}
