//! Sequences that would give the same values on two nodes.

use std::collections::BTreeMap;

use super::Problem;
use super::facts::{NodeFacts, Sequence};

/// One warning per node, with the command for every sequence that needs it.
pub(super) fn check(nodes: &[NodeFacts]) -> Vec<Problem> {
    let mut columns: BTreeMap<&str, Vec<(usize, &Sequence)>> = BTreeMap::new();
    for (index, facts) in nodes.iter().enumerate() {
        for sequence in &facts.oddities.sequences {
            columns
                .entry(&sequence.column)
                .or_default()
                .push((index, sequence));
        }
    }
    columns.retain(|_, shared| any_collide(shared));
    let warn = |(index, facts): (usize, &NodeFacts)| warning(nodes.len(), index, facts, &columns);
    nodes.iter().enumerate().filter_map(warn).collect()
}

fn any_collide(shared: &[(usize, &Sequence)]) -> bool {
    shared
        .iter()
        .enumerate()
        .any(|(at, (_, a))| shared[..at].iter().any(|(_, b)| collide(a, b)))
}

/// Two progressions meet when their distance is a multiple of the greatest common divisor of the
/// steps. The phase of a sequence is its last value, which `setval` and `restart` may have moved.
fn collide(a: &Sequence, b: &Sequence) -> bool {
    let step = gcd(a.increment.unsigned_abs(), b.increment.unsigned_abs());
    let phase = |sequence: &Sequence| i128::from(sequence.last.unwrap_or(sequence.start));
    step == 0 || (phase(a) - phase(b)).rem_euclid(i128::from(step)) == 0
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn warning(
    nodes: usize,
    index: usize,
    facts: &NodeFacts,
    columns: &BTreeMap<&str, Vec<(usize, &Sequence)>>,
) -> Option<Problem> {
    let mine: Vec<(&str, &Sequence, i64)> = columns
        .iter()
        .filter_map(|(column, shared)| {
            let (_, sequence) = shared.iter().find(|(at, _)| *at == index)?;
            Some((*column, *sequence, next_value(nodes, index, shared)))
        })
        .collect();
    let names: Vec<String> = mine
        .iter()
        .map(|(column, ..)| (*column).to_owned())
        .collect();
    let what = format!(
        "sequences give the same values as on another node: {}; equal keys made on two nodes are one row, and one of them loses",
        super::tables::short_list(&names)
    );
    let commands: Vec<String> = mine
        .iter()
        .map(|(_, sequence, next)| {
            format!(
                "alter sequence {} increment by {nodes} start with {next} restart;",
                sequence.name
            )
        })
        .collect();
    (!mine.is_empty()).then(|| Problem::warning(&facts.name, what).fix(commands.join(" ")))
}

/// A value for this node above all that was given anywhere, in a residue of its own.
fn next_value(nodes: usize, index: usize, shared: &[(usize, &Sequence)]) -> i64 {
    let nodes = i64::try_from(nodes).unwrap_or(i64::MAX);
    let index = i64::try_from(index).unwrap_or(0);
    let highest = shared
        .iter()
        .filter_map(|(_, sequence)| sequence.last)
        .max()
        .unwrap_or(0)
        .max(0);
    (highest / nodes + 1)
        .saturating_mul(nodes)
        .saturating_add(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(start: i64, increment: i64, last: Option<i64>) -> Sequence {
        Sequence {
            column: "public.t.id".into(),
            name: "public.s".into(),
            start,
            increment,
            last,
        }
    }

    #[test]
    fn interleaved_sequences_do_not_meet() {
        assert!(collide(&sequence(1, 1, None), &sequence(1, 1, Some(7))));
        assert!(!collide(&sequence(1, 2, None), &sequence(2, 2, Some(40))));
        assert!(collide(&sequence(1, 2, None), &sequence(2, 3, None)));
    }

    #[test]
    fn the_mended_sequences_do_not_meet() {
        let (a, b) = (sequence(1, 1, Some(9)), sequence(1, 1, Some(4)));
        let shared = [(0, &a), (1, &b)];
        let mended: Vec<Sequence> = (0..2)
            .map(|node| sequence(next_value(2, node, &shared), 2, None))
            .collect();
        assert!(mended.iter().all(|s| s.start > 9));
        assert!(!collide(&mended[0], &mended[1]));
    }
}
