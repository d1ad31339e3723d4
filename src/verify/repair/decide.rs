//! Whose row of a key counts. Pure.
//!
//! Each node has one write of the key: its row, or where it has none the newest delete that it
//! remembers. The newest of these by the table's rule counts. A row that is missing where nobody
//! remembers a delete was lost there: nothing is thrown away without a delete to show for it.
//! Writes with one version and different values are told apart by the node that the version names:
//! it made the write.

use crate::apply::KeyState;
use crate::conflict::unique::is_newer;
use crate::conflict::{Held, Tie};
use crate::ids::NodeName;

/// What one node has of a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct NodeState<'a> {
    pub(super) state: &'a KeyState,
    /// The hash of the row's values; nothing where there is no row.
    pub(super) content: Option<i64>,
}

/// What decides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule<'a> {
    pub(super) name: &'static str,
    pub(super) tie: Tie,
    /// The nodes, in the order of their states.
    pub(super) nodes: &'a [NodeName],
    /// The node that a person has named.
    pub(super) from: Option<usize>,
}

/// Whose write counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Winner {
    /// The node that has it.
    pub(super) place: usize,
    /// A delete's version; nothing where the write is the node's row.
    pub(super) delete: Option<Held>,
    /// A person has said so.
    pub(super) asked: bool,
}

/// Why no write counts more than the others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Undecided {
    /// The server has forgotten when rows were written.
    #[error("nobody knows any more when these rows were written")]
    Forgotten,
    /// A table was rewritten.
    #[error("the table was rewritten on {0}, and nobody knows when its rows were written")]
    Rewritten(NodeName),
    /// One version, different values, and who made it has something else.
    #[error(
        "the rows have one version and different values, and {0}, where it was made, has another one"
    )]
    OneVersion(NodeName),
    /// By a rule that knows no order.
    #[error("neither write knew of the other, and rule {0} leaves that to a person")]
    Concurrent(&'static str),
}

/// A write of the key.
#[derive(Clone, Copy, Debug)]
struct Write<'a> {
    place: usize,
    held: &'a Held,
    content: Option<i64>,
}

/// Decides one key.
pub(super) fn decide(states: &[NodeState<'_>], rule: Rule<'_>) -> Result<Winner, Undecided> {
    let writes: Vec<Write<'_>> = (0..states.len())
        .filter_map(|place| write(states, place, rule.tie))
        .collect();
    let decided = newest(states, &writes, rule);
    match (decided, rule.from) {
        (Err(_), Some(place)) => Ok(Winner {
            asked: true,
            ..winner(states, place, rule.tie)
        }),
        (decided, _) => decided,
    }
}

/// What `place` has; a node without a row and without a delete has nothing.
fn write<'a>(states: &[NodeState<'a>], place: usize, tie: Tie) -> Option<Write<'a>> {
    let NodeState { state, content } = states[place];
    let held = match &state.row {
        Some(row) => &row.held,
        None => newest_delete(&state.tombstones, tie)?,
    };
    Some(Write {
        place,
        held,
        content,
    })
}

fn newest_delete(tombstones: &[Held], tie: Tie) -> Option<&Held> {
    let newer = |one, other| {
        if is_newer(other, one, tie) {
            other
        } else {
            one
        }
    };
    tombstones.iter().reduce(newer)
}

fn winner(states: &[NodeState<'_>], place: usize, tie: Tie) -> Winner {
    let state = states[place].state;
    let delete = match &state.row {
        Some(_) => None,
        None => Some(
            newest_delete(&state.tombstones, tie)
                .cloned()
                .unwrap_or_default(),
        ),
    };
    Winner {
        place,
        delete,
        asked: false,
    }
}

fn newest(
    states: &[NodeState<'_>],
    writes: &[Write<'_>],
    rule: Rule<'_>,
) -> Result<Winner, Undecided> {
    let is_forged = |state: &NodeState<'_>| state.state.row.as_ref().is_some_and(|r| r.forged);
    if let Some(place) = states.iter().position(is_forged) {
        return Err(Undecided::Rewritten(rule.nodes[place].clone()));
    }
    let loses = |write: &Write<'_>| {
        let mut others = writes.iter();
        others.any(|other| is_newer(other.held, write.held, rule.tie))
    };
    let best: Vec<&Write<'_>> = writes.iter().filter(|write| !loses(write)).collect();
    let Some(first) = best.first() else {
        return Err(Undecided::Forgotten);
    };
    let place = if best.iter().all(|write| write.content == first.content) {
        first.place
    } else {
        maker(&best, rule)?
    };
    Ok(winner(states, place, rule.tie))
}

/// Of writes of which none is newer, and which are not alike, the one on the node that made it.
fn maker(best: &[&Write<'_>], rule: Rule<'_>) -> Result<usize, Undecided> {
    let held = best[0].held;
    let one_rank = best.iter().all(|write| write.held.rank == held.rank);
    if rule.tie == Tie::Known && !one_rank {
        return Err(Undecided::Concurrent(rule.name));
    }
    let one_version = best.iter().all(|write| write.held == held);
    let version = held.version.as_ref().filter(|_| one_version);
    let Some(version) = version else {
        return Err(Undecided::Forgotten);
    };
    let made = |write: &&&Write<'_>| rule.nodes[write.place] == version.node;
    let made = best.iter().find(made).map(|write| write.place);
    made.ok_or_else(|| Undecided::OneVersion(version.node.clone()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::apply::RowImage;
    use crate::commit_time::CommitTime;
    use crate::conflict::Version;
    use crate::pgoutput::{Tuple, Value};

    fn held(text: &str) -> Held {
        let mut words = text.split(' ');
        let (time, node) = (words.next().unwrap(), words.next().unwrap_or_default());
        let version = time.parse().ok().map(|micros| Version {
            time: CommitTime::from_postgres_micros(micros),
            node: node.parse().unwrap(),
        });
        Held {
            rank: words.next().and_then(|rank| rank.parse().ok()),
            version,
        }
    }

    fn row(version: &str, content: i64) -> (KeyState, Option<i64>) {
        let image = RowImage {
            values: Tuple([Value::Text(Bytes::from("1"))].into()),
            held: held(version),
            identity: version.to_owned(),
            forged: version.contains("forged"),
        };
        let state = KeyState {
            row: Some(image),
            ..KeyState::default()
        };
        (state, Some(content))
    }

    fn gone(tombstones: &[&str]) -> (KeyState, Option<i64>) {
        let state = KeyState {
            tombstones: tombstones.iter().map(|text| held(text)).collect(),
            ..KeyState::default()
        };
        (state, None)
    }

    /// `east`'s row, `west's delete`, or why not.
    fn decided(states: &[(KeyState, Option<i64>)], tie: Tie, from: Option<usize>) -> String {
        let nodes: Vec<NodeName> = ["east", "west", "south"].map(|n| n.parse().unwrap()).into();
        let states: Vec<NodeState<'_>> = states
            .iter()
            .map(|(state, content)| NodeState {
                state,
                content: *content,
            })
            .collect();
        let rule = Rule {
            name: "manual",
            tie,
            nodes: &nodes,
            from,
        };
        match decide(&states, rule) {
            Ok(winner) => {
                let what = winner.delete.map_or("row", |_| "delete");
                let asked = if winner.asked { ", asked" } else { "" };
                format!("{} {what}{asked}", nodes[winner.place])
            }
            Err(undecided) => undecided.to_string(),
        }
    }

    fn later(states: &[(KeyState, Option<i64>)]) -> String {
        decided(states, Tie::Later, None)
    }

    #[test]
    fn the_newest_write_counts_be_it_a_row_or_a_delete() {
        assert_eq!(later(&[row("1 east", 1), row("2 west", 2)]), "west row");
        assert_eq!(later(&[row("1 east", 1), gone(&["2 west"])]), "west delete");
        assert_eq!(later(&[row("3 east", 1), gone(&["2 west"])]), "east row");
        assert_eq!(later(&[row("2 east", 1), row("2 west", 2)]), "west row");
        let three = [
            row("1 east", 1),
            gone(&["2 east", "4 west"]),
            row("3 south", 2),
        ];
        assert_eq!(later(&three), "west delete");
        assert_eq!(
            decided(&[row("1 east", 1), row("2 west", 2)], Tie::Earlier, None),
            "east row"
        );
    }

    #[test]
    fn versions_in_rows_come_before_time() {
        let states = [row("9 east 4", 1), row("1 west 5", 2)];
        assert_eq!(later(&states), "west row");
    }

    #[test]
    fn what_nobody_deleted_comes_back() {
        assert_eq!(later(&[gone(&[]), row("2 west", 2)]), "west row");
        assert_eq!(later(&[gone(&[]), row("x", 2)]), "west row");
    }

    #[test]
    fn one_version_is_told_apart_by_who_made_it() {
        let states = [row("1 west", 1), row("1 west", 2)];
        assert_eq!(later(&states), "west row");
        let states = [row("1 south", 1), row("1 south", 2)];
        assert!(later(&states).contains("south, where it was made"));
        assert_eq!(decided(&states, Tie::Later, Some(0)), "east row, asked");
    }

    #[test]
    fn what_nothing_decides_is_asked_for() {
        let states = [row("x", 1), row("x", 2)];
        assert!(later(&states).contains("nobody knows"));
        assert_eq!(decided(&states, Tie::Later, Some(1)), "west row, asked");
        let states = [row("1 east {2,0}", 1), row("2 west {1,1}", 2)];
        assert!(decided(&states, Tie::Known, None).contains("rule manual"));
        assert_eq!(decided(&states, Tie::Known, Some(0)), "east row, asked");
        let states = [row("3 east {2,1}", 1), row("2 west {1,1}", 2)];
        assert_eq!(decided(&states, Tie::Known, Some(1)), "east row");
        let states = [row("1 east forged", 1), row("2 west", 2)];
        assert!(later(&states).contains("rewritten on east"));
    }
}
