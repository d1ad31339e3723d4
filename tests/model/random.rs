//! Random histories. `MMREPL_MODEL_HISTORIES` says how many, `MMREPL_SEED` from where.

use crate::cluster::play;
use crate::history::History;
use crate::rng::Rng;

/// Histories for each size of cluster.
const HISTORIES: u64 = 60_000;

fn histories() -> u64 {
    let asked = std::env::var("MMREPL_MODEL_HISTORIES").ok();
    asked
        .and_then(|text| text.parse().ok())
        .unwrap_or(HISTORIES)
}

fn many(nodes: u8) {
    let mut rng = Rng::from_env(1);
    for number in 0..histories() {
        let mut own = rng.fork();
        let history = History::random(&mut |bound| own.below(bound), nodes);
        if play(&history).is_err() {
            let shortest = history.shortest(|shorter| play(shorter).is_err());
            let how = play(&shortest).unwrap_err();
            panic!("history {number} diverges; the shortest that does:\n{shortest}{how}");
        }
    }
}

#[test]
fn two_nodes_end_equal() {
    many(2);
}

#[test]
fn three_nodes_end_equal() {
    many(3);
}
