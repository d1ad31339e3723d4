//! When may a tombstone go? One sweep over the cluster finds out. Pure.

use std::collections::BTreeMap;

use crate::ids::NodeName;
use crate::lsn::Lsn;

/// What one server says when it is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// System identifier and timeline: another text means another history of WAL positions.
    pub history: String,
    /// How far each source is applied there. Read before `written`.
    pub applied: BTreeMap<NodeName, Lsn>,
    /// The end of its WAL.
    pub written: Lsn,
}

/// One look at every node of the cluster.
pub(super) type Looks = BTreeMap<NodeName, Look>;

/// A mark in each node's WAL, in their order in the configuration.
pub(super) type Marks = BTreeMap<NodeName, Lsn>;

/// What a look at the cluster says about the sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Somebody has not applied something; a sentence without its full stop.
    Waits(String),
    /// Every node has applied every mark: new ones are needed for the second half.
    MarkAgain,
    /// What was a tombstone when the sweep began is needed no more.
    Done,
    /// WAL positions of some node do not mean what they meant: begin anew.
    Void(String),
}

/// Which half of the sweep is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    /// Until every node has seen the deletes.
    Seen,
    /// Until everything written before that has arrived here.
    Past,
}

/// A sweep that has begun.
#[derive(Clone, Debug)]
pub(super) struct Sweep {
    here: NodeName,
    /// Tombstones of transactions before this one, on this server, are what it is about.
    before: i64,
    half: Half,
    histories: BTreeMap<NodeName, String>,
    marks: Marks,
}

impl Sweep {
    /// Begins on the node `here`. `before` was read first, then `looks`, then `marks` were made.
    pub(super) fn begin(
        here: NodeName,
        before: i64,
        looks: &Looks,
        marks: Marks,
    ) -> Result<Self, String> {
        let histories = looks
            .iter()
            .map(|(node, look)| (node.clone(), look.history.clone()))
            .collect();
        let sweep = Self {
            here,
            before,
            half: Half::Seen,
            histories,
            marks,
        };
        sweep.marks_are_ahead(looks)?;
        Ok(sweep)
    }

    /// The transaction number below which tombstones are swept.
    pub(super) fn before(&self) -> i64 {
        self.before
    }

    /// The second half, after [`Step::MarkAgain`]; `looks` were taken before the marks were made.
    pub(super) fn mark_again(&mut self, looks: &Looks, marks: Marks) -> Result<(), String> {
        self.marks = marks;
        self.half = Half::Past;
        self.marks_are_ahead(looks)
    }

    /// What the cluster says now.
    pub(super) fn step(&self, looks: &Looks) -> Step {
        if let Err(why) = self.same_histories(looks) {
            return Step::Void(why);
        }
        for (target, look) in looks {
            let sources = self.marks.iter().filter(|(source, _)| *source != target);
            for (source, mark) in sources {
                if self.half == Half::Past && *target != self.here {
                    continue;
                }
                if look.applied.get(source).is_none_or(|at| at < mark) {
                    return Step::Waits(format!("{target} has not applied {source} up to {mark}"));
                }
            }
        }
        match self.half {
            Half::Seen => Step::MarkAgain,
            Half::Past => Step::Done,
        }
    }

    /// A mark that was just made cannot have been applied: where a position is beyond it, the
    /// source's WAL was set back and its positions prove nothing.
    fn marks_are_ahead(&self, looks: &Looks) -> Result<(), String> {
        for (target, look) in looks {
            for (source, mark) in self.marks.iter().filter(|(source, _)| *source != target) {
                if look.applied.get(source).is_some_and(|at| at > mark) {
                    return Err(format!(
                        "{target} has applied {source} beyond the end of its WAL"
                    ));
                }
            }
        }
        Ok(())
    }

    fn same_histories(&self, looks: &Looks) -> Result<(), String> {
        for (node, mark) in &self.marks {
            let look = looks.get(node);
            let same = look.is_some_and(|look| {
                self.histories.get(node) == Some(&look.history) && look.written >= *mark
            });
            if !same {
                return Err(format!("{node} was restored or failed over meanwhile"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::{Strategy, prop_assert, prop_oneof, proptest};

    fn name(index: usize) -> NodeName {
        ["east", "north", "west"][index].parse().unwrap()
    }

    fn look(applied: &[(usize, u64)], written: u64) -> Look {
        Look {
            history: "1/1".to_owned(),
            applied: applied
                .iter()
                .map(|(node, at)| (name(*node), Lsn::new(*at)))
                .collect(),
            written: Lsn::new(written),
        }
    }

    /// East has applied west up to `east`, west has applied east up to `west`.
    fn pair(east: u64, west: u64) -> Looks {
        [
            (name(0), look(&[(2, east)], 1000)),
            (name(2), look(&[(0, west)], 1000)),
        ]
        .into()
    }

    fn marks(east: u64, west: u64) -> Marks {
        [(name(0), Lsn::new(east)), (name(2), Lsn::new(west))].into()
    }

    #[test]
    fn both_halves_must_pass() {
        let mut sweep = Sweep::begin(name(0), 7, &pair(10, 10), marks(100, 200)).unwrap();
        assert!(matches!(sweep.step(&pair(10, 100)), Step::Waits(_)));
        assert!(matches!(sweep.step(&pair(200, 99)), Step::Waits(_)));
        assert_eq!(sweep.step(&pair(200, 100)), Step::MarkAgain);
        sweep.mark_again(&pair(200, 100), marks(300, 400)).unwrap();
        assert_eq!(
            sweep.step(&pair(399, 100)),
            Step::Waits("east has not applied west up to 0/190".to_owned())
        );
        // What west has applied of the second mark does not matter to east's tombstones.
        assert_eq!(sweep.step(&pair(400, 100)), Step::Done);
        assert_eq!(sweep.before(), 7);
    }

    #[test]
    fn a_server_that_lost_its_history_voids_the_sweep() {
        assert!(Sweep::begin(name(0), 7, &pair(201, 10), marks(100, 200)).is_err());
        let sweep = Sweep::begin(name(0), 7, &pair(10, 10), marks(100, 200)).unwrap();
        let mut other = pair(200, 100);
        other.get_mut(&name(2)).unwrap().history = "1/2".to_owned();
        assert!(matches!(sweep.step(&other), Step::Void(_)));
        let mut behind = pair(200, 100);
        behind.get_mut(&name(2)).unwrap().written = Lsn::new(199);
        assert!(matches!(sweep.step(&behind), Step::Void(_)));
        assert!(matches!(sweep.step(&Looks::new()), Step::Void(_)));
    }

    /// A cluster of three in which every write knows what its node had applied: the length of each
    /// node's log, itself included.
    #[derive(Default)]
    struct Model {
        logs: [Vec<[usize; 3]>; 3],
        applied: [[usize; 3]; 3],
    }

    #[derive(Clone, Copy, Debug)]
    enum Act {
        Write(usize),
        Deliver(usize, usize),
        Look,
    }

    impl Model {
        fn seen(&self, node: usize) -> [usize; 3] {
            let mut seen = self.applied[node];
            seen[node] = self.logs[node].len();
            seen
        }

        fn write(&mut self, node: usize) -> Lsn {
            let seen = self.seen(node);
            self.logs[node].push(seen);
            Lsn::new(self.logs[node].len() as u64)
        }

        fn deliver(&mut self, target: usize, source: usize) {
            if self.applied[target][source] < self.logs[source].len() {
                self.applied[target][source] += 1;
            }
        }

        fn looks(&self) -> Looks {
            let look_at = |node: usize| {
                let others = (0..3).filter(|other| *other != node);
                let applied: Vec<(usize, u64)> = others
                    .map(|other| (other, self.applied[node][other] as u64))
                    .collect();
                (name(node), look(&applied, self.logs[node].len() as u64))
            };
            (0..3).map(look_at).collect()
        }

        fn marks(&mut self) -> Marks {
            (0..3).map(|node| (name(node), self.write(node))).collect()
        }

        /// What arrives at node 0 from now on was written by one who had seen `start`.
        fn nothing_older_arrives(&self, start: [usize; 3]) -> bool {
            (1..3).all(|source| {
                let arriving = &self.logs[source][self.applied[0][source]..];
                arriving
                    .iter()
                    .all(|seen| (0..3).all(|node| seen[node] >= start[node]))
            })
        }
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            (0..3_usize).prop_map(Act::Write),
            (0..3_usize, 1..3_usize).prop_map(|(to, by)| Act::Deliver(to, (to + by) % 3)),
            (0..3_usize, 1..3_usize).prop_map(|(to, by)| Act::Deliver(to, (to + by) % 3)),
            proptest::strategy::Just(Act::Look),
        ]
    }

    proptest! {
        #[test]
        fn after_a_sweep_nothing_older_arrives(before in vec(act(), 0..40), acts in vec(act(), 0..200)) {
            let mut model = Model::default();
            let run = |model: &mut Model, act| match act {
                Act::Write(node) => drop(model.write(node)),
                Act::Deliver(target, source) => model.deliver(target, source),
                Act::Look => {}
            };
            for act in before {
                run(&mut model, act);
            }
            let start = model.seen(0);
            let (looks, marks) = (model.looks(), model.marks());
            let mut sweep = Sweep::begin(name(0), 0, &looks, marks).unwrap();
            for act in acts {
                run(&mut model, act);
                if !matches!(act, Act::Look) {
                    continue;
                }
                let looks = model.looks();
                match sweep.step(&looks) {
                    Step::MarkAgain => {
                        let marks = model.marks();
                        sweep.mark_again(&looks, marks).unwrap();
                    }
                    Step::Done => {
                        prop_assert!(model.nothing_older_arrives(start));
                        break;
                    }
                    Step::Waits(_) => {}
                    Step::Void(why) => prop_assert!(false, "{}", why),
                }
            }
        }
    }
}
