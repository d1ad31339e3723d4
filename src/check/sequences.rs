//! Sequences that would give the same values on two nodes. Pure.

use std::collections::BTreeMap;

use super::facts::NodeFacts;
use super::mend::Mend;
use super::sequence_facts::Sequence;
use super::{Problem, Severity};
use crate::catalog::names::ident;

/// How many more values than its last a sequence may give before it is mended.
const ROOM: i128 = 1000;

/// One column's sequences, by the place of their node.
type Shared<'a> = Vec<(usize, &'a Sequence)>;

/// One warning per node, with the command for every sequence that needs it.
pub(super) fn check(nodes: &[NodeFacts]) -> Vec<Problem> {
    let mut shared: BTreeMap<&str, Shared<'_>> = BTreeMap::new();
    for (index, facts) in nodes.iter().enumerate() {
        for sequence in &facts.oddities.sequences {
            let same = shared.entry(&sequence.fills).or_default();
            same.push((index, sequence));
        }
    }
    shared.retain(|_, same| any_meet(same));
    let warn = |(index, facts): (usize, &NodeFacts)| warning(nodes.len(), index, facts, &shared);
    nodes.iter().enumerate().filter_map(warn).collect()
}

fn any_meet(same: &Shared<'_>) -> bool {
    let meets_earlier =
        |(at, (_, a)): (usize, &(usize, &Sequence))| same[..at].iter().any(|(_, b)| meet(a, b));
    same.iter().enumerate().any(meets_earlier)
}

/// Whether two sequences have a value in common from now on: their distance is a multiple of the
/// greatest common divisor of the steps, and both come through the same stretch of numbers.
fn meet(a: &Sequence, b: &Sequence) -> bool {
    let step = gcd(a.increment.unsigned_abs(), b.increment.unsigned_abs());
    let (from_a, to_a) = stretch(a);
    let (from_b, to_b) = stretch(b);
    let in_step = step == 0 || (next(a) - next(b)).rem_euclid(i128::from(step)) == 0;
    in_step && from_a.max(from_b) <= to_a.min(to_b)
}

/// The lowest and the highest value that may come.
fn stretch(sequence: &Sequence) -> (i128, i128) {
    let (min, max) = (i128::from(sequence.min), i128::from(sequence.max));
    match (sequence.cycles, sequence.increment > 0) {
        (true, _) => (min, max),
        (false, true) => (next(sequence), max),
        (false, false) => (min, next(sequence)),
    }
}

/// The value that comes next.
fn next(sequence: &Sequence) -> i128 {
    match sequence.state {
        Some(state) if state.called => i128::from(state.last) + i128::from(sequence.increment),
        Some(state) => i128::from(state.last),
        None => i128::from(sequence.start),
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn warning(
    nodes: usize,
    index: usize,
    facts: &NodeFacts,
    shared: &BTreeMap<&str, Shared<'_>>,
) -> Option<Problem> {
    let mut mend = Mend::default();
    let mut names = Vec::new();
    for (fills, same) in shared {
        let Some((_, mine)) = same.iter().find(|(at, _)| *at == index) else {
            continue;
        };
        let plan = Interleaving::of(nodes, same);
        if plan.as_ref().is_some_and(|plan| plan.has(index, mine)) {
            continue;
        }
        names.push((*fills).to_owned());
        mend_one(
            &mut mend,
            facts,
            mine,
            plan.and_then(|plan| plan.first(index, mine)),
        );
    }
    let problem = Problem::of_many(&facts.name, Severity::Warning, &names, |list| {
        format!(
            "sequences give the same values as on another node: {list}; equal keys made on two nodes are one row, and one of them loses"
        )
    });
    (!names.is_empty()).then_some(Problem { mend, ..problem })
}

fn mend_one(mend: &mut Mend, facts: &NodeFacts, mine: &Sequence, to: Option<(i128, i128)>) {
    let name = &mine.name;
    match (mine.state, to) {
        (None, _) => {
            mend.note("then check again: where the sequence stands cannot be read");
            let user = ident(&facts.server.user);
            mend.sql(&format!("grant select on sequence {name} to {user}"));
        }
        (Some(_), Some((step, first))) => mend.sql(&format!(
            "alter sequence {name} increment by {step} start with {first} restart"
        )),
        (Some(_), None) => mend.note(&format!(
            "{name} has too few values left, or another direction than on another node: give each node a range of its own (alter sequence … minvalue … maxvalue … restart), or a wider type, or use UUIDs"
        )),
    }
}

/// How the nodes share the numbers: each has those that leave a remainder of its own when divided
/// by the step. Counted upwards; a sequence that goes down is looked at with its sign turned.
struct Interleaving {
    sign: i128,
    /// The step that every node gets.
    step: i128,
    /// The step so far: an application may count on blocks of that size.
    block: i128,
    /// The remainder of the first node.
    phase: i128,
    /// The farthest value that was given or stands in a column, on any node.
    farthest: i128,
}

impl Interleaving {
    /// Nothing where the sequences go in different directions.
    fn of(nodes: usize, same: &Shared<'_>) -> Option<Self> {
        let (_, first) = same.first()?;
        let sign = i128::from(first.increment.signum());
        if same
            .iter()
            .any(|(_, other)| i128::from(other.increment.signum()) != sign)
        {
            return None;
        }
        let steps = same.iter().map(|(_, other)| other.increment.unsigned_abs());
        let block = i128::from(steps.fold(0, gcd));
        let farthest = same.iter().map(|(_, other)| farthest(sign, other)).max()?;
        Some(Self {
            sign,
            step: block * i128::try_from(nodes).ok()?,
            block,
            phase: (sign * i128::from(first.start)).rem_euclid(block),
            farthest,
        })
    }

    fn remainder(&self, index: usize) -> i128 {
        let place = i128::try_from(index).unwrap_or(0);
        (self.phase + place * self.block).rem_euclid(self.step)
    }

    /// Whether the node has its own numbers already.
    fn has(&self, index: usize, mine: &Sequence) -> bool {
        let next = (self.sign * next(mine)).rem_euclid(self.step);
        mine.state.is_some()
            && self.sign * i128::from(mine.increment) == self.step
            && next == self.remainder(index)
    }

    /// Step and first value for the node: beyond all that was given, with room for what is given
    /// until the command runs. Nothing where too few numbers are left.
    fn first(&self, index: usize, mine: &Sequence) -> Option<(i128, i128)> {
        let ends = [mine.min, mine.max].map(|end| self.sign * i128::from(end));
        let (lowest, limit) = (ends[0].min(ends[1]), ends[0].max(ends[1]));
        let start = self.sign * i128::from(mine.start);
        let beyond = self.farthest.max(start - 1).max(lowest - 1) + 1;
        let room = (ROOM * self.step).min((limit - beyond) / 10).max(0);
        let from = beyond + room;
        let first = from + (self.remainder(index) - from).rem_euclid(self.step);
        (first + self.step <= limit).then_some((self.sign * self.step, self.sign * first))
    }
}

fn farthest(sign: i128, sequence: &Sequence) -> i128 {
    let given = sign * next(sequence) - i128::from(sequence.increment.unsigned_abs());
    let column = sequence.state.and_then(|state| state.farthest);
    column.map_or(given, |column| given.max(sign * i128::from(column)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::sequence_facts::SequenceState;

    fn sequence(start: i64, increment: i64, last: i64, called: bool) -> Sequence {
        Sequence {
            fills: "public.t.id".into(),
            name: "public.s".into(),
            start,
            increment,
            min: if increment > 0 {
                1
            } else {
                -i64::from(i32::MAX)
            },
            max: if increment > 0 {
                i64::from(i32::MAX)
            } else {
                -1
            },
            cycles: false,
            state: Some(SequenceState {
                last,
                called,
                farthest: None,
            }),
        }
    }

    fn fresh(start: i64, increment: i64) -> Sequence {
        sequence(start, increment, start, false)
    }

    /// What each node's sequence becomes.
    fn mended(before: &[Sequence]) -> Vec<Sequence> {
        let same: Shared<'_> = before.iter().enumerate().collect();
        let plan = Interleaving::of(before.len(), &same).unwrap();
        let one = |(index, mine): (usize, &Sequence)| {
            if plan.has(index, mine) {
                return mine.clone();
            }
            let (step, first) = plan.first(index, mine).unwrap();
            let [step, first] = [step, first].map(|value| i64::try_from(value).unwrap());
            Sequence {
                start: first,
                increment: step,
                state: fresh(first, step).state,
                ..mine.clone()
            }
        };
        before.iter().enumerate().map(one).collect()
    }

    fn any(sequences: &[Sequence]) -> bool {
        any_meet(&sequences.iter().enumerate().collect())
    }

    #[test]
    fn interleaved_sequences_do_not_meet() {
        assert!(meet(&fresh(1, 1), &sequence(1, 1, 7, true)));
        assert!(!meet(&fresh(1, 2), &sequence(2, 2, 40, true)));
        assert!(meet(&fresh(1, 2), &fresh(2, 3)));
        assert!(meet(
            &sequence(1, 2, 700, false),
            &sequence(2, 2, 700, false)
        ));
        assert!(!meet(
            &sequence(1, 2, 501, false),
            &sequence(2, 2, 502, false)
        ));
    }

    #[test]
    fn sequences_of_other_ranges_do_not_meet() {
        let mut low = fresh(1, 1);
        low.max = 1_000_000;
        let high = sequence(1_000_001, 1, 1_000_001, false);
        assert!(!meet(&low, &high));
        assert!(!meet(&fresh(1, 1), &fresh(-1, -1)));
        let mut around = high.clone();
        around.cycles = true;
        assert!(meet(&low, &around));
    }

    #[test]
    fn the_mended_sequences_do_not_meet_and_go_on_from_where_they_were() {
        let mut filled = sequence(1, 1, 1, false);
        filled.state.as_mut().unwrap().farthest = Some(5000);
        let mut high = fresh(90_000, 1);
        high.min = 90_000;
        for before in [
            [sequence(1, 1, 9, true), sequence(1, 1, 4, true)],
            [sequence(1, 1, 501, false), sequence(1, 1, 501, false)],
            [filled, fresh(1, 1)],
            [high.clone(), high],
            [fresh(-1, -1), sequence(-1, -1, -77, true)],
            [sequence(1, 50, 101, true), sequence(1, 50, 51, true)],
            [sequence(1, 2, 700, false), sequence(2, 2, 700, false)],
        ] {
            assert!(any(&before));
            let after = mended(&before);
            assert!(!any(&after), "{after:?}");
            for (old, new) in before.iter().zip(&after) {
                let sign = i128::from(old.increment.signum());
                assert!(sign * next(new) >= sign * next(old), "{new:?}");
                assert!((new.min..=new.max).contains(&new.start), "{new:?}");
                let farthest = old.state.and_then(|state| state.farthest);
                assert!(next(new) > i128::from(farthest.unwrap_or(i64::MIN)));
            }
        }
    }

    #[test]
    fn a_node_that_has_its_numbers_keeps_them() {
        let before = [fresh(1, 1), fresh(1, 1), fresh(1, 1)];
        let all = mended(&before);
        let one = [all[0].clone(), before[1].clone(), before[2].clone()];
        assert!(any(&one));
        let again = mended(&one);
        assert_eq!(again[0], all[0]);
        assert!(!any(&again));
    }

    #[test]
    fn too_few_values_are_no_mend() {
        let mut full = sequence(1, 1, 32_760, true);
        full.max = 32_767;
        let same = vec![(0, &full), (1, &full)];
        let plan = Interleaving::of(2, &same).unwrap();
        assert!(plan.first(0, &full).is_some());
        full.state = sequence(1, 1, 32_766, true).state;
        let same = vec![(0, &full), (1, &full)];
        let plan = Interleaving::of(2, &same).unwrap();
        assert_eq!(plan.first(0, &full), None);
    }
}
