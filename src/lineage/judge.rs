//! From witnesses to verdict. Pure.

use std::collections::BTreeSet;

use super::{Advice, Cause, EndFacts, Finding, LinkFacts, Pair, Proof};
use crate::catalog::position::Position;
use crate::catalog::slots::{PLUGIN, SlotState};
use crate::ids::{LinkName, NodeName};
use crate::lsn::Lsn;

/// Where the link's stream goes on, or why it cannot.
pub fn judge(pair: &Pair) -> Result<Lsn, Box<Finding>> {
    let forward = (&pair.from, &pair.to, &pair.forward);
    let cause = match start(forward) {
        Ok(start) => return Ok(start),
        Err(cause) => cause,
    };
    let backward = start((&pair.to, &pair.from, &pair.backward)).err();
    let link = LinkName {
        from: pair.from.node.clone(),
        to: pair.to.node.clone(),
    };
    let advice = advice(&link, &cause, backward.as_ref());
    Err(Box::new(Finding {
        link,
        cause,
        advice,
    }))
}

/// What to do, by what both directions say.
fn advice(link: &LinkName, cause: &Cause, backward: Option<&Cause>) -> Advice {
    for cause in std::iter::once(cause).chain(backward) {
        if let Cause::Misled { node, .. } = cause {
            return Advice::CorrectDsn(node.clone());
        }
    }
    match cause {
        Cause::Dropped { node, .. } => return Advice::TakeOut(node.clone()),
        Cause::SlotUnfinished { .. } => return Advice::Wait,
        Cause::SlotForeign { .. } => return Advice::OtherName,
        Cause::PublicationAnew { from, .. } => return Advice::SlotAnew(from.clone()),
        _ => {}
    }
    let causes = || std::iter::once(cause).chain(backward);
    let moved: BTreeSet<&NodeName> = causes().filter_map(moved).collect();
    let losers: BTreeSet<&NodeName> = causes().filter_map(Cause::loser).collect();
    let refilled = causes().any(|cause| {
        matches!(
            cause,
            Cause::OtherServer { .. } | Cause::Emptied { .. } | Cause::PositionLost { .. }
        )
    });
    let mut losers = losers.into_iter();
    match (losers.next(), losers.next()) {
        (None, _) if matches!(cause, Cause::NoPosition { .. }) => Advice::Init,
        (None, _) if !moved.is_empty() => advice_on_moved(link, &moved, causes().all(is_a_move)),
        (None, _) => Advice::CopyFrom(link.from.clone()),
        (Some(one), Some(other)) => Advice::Neither(one.clone(), other.clone()),
        (Some(loser), None) => {
            let loser = loser.clone();
            let whole = other_end(link, &loser);
            if refilled {
                Advice::Refill { whole, loser }
            } else {
                Advice::CopyTo { whole, loser }
            }
        }
    }
}

fn moved(cause: &Cause) -> Option<&NodeName> {
    match cause {
        Cause::Upgraded { node, .. } => Some(node),
        _ => None,
    }
}

fn is_a_move(cause: &Cause) -> bool {
    moved(cause).is_some()
}

fn other_end(link: &LinkName, end: &NodeName) -> NodeName {
    if link.from == *end {
        link.to.clone()
    } else {
        link.from.clone()
    }
}

/// Nobody is known to have lost anything. What a slot lost besides, the moved node lacks.
fn advice_on_moved(link: &LinkName, moved: &BTreeSet<&NodeName>, alone: bool) -> Advice {
    let ends = [&link.from, &link.to];
    let other = ends.into_iter().find(|end| !moved.contains(end)).cloned();
    match other {
        Some(other) if !alone => Advice::CopyFrom(other),
        Some(other) => Advice::Moved {
            moved: other_end(link, &other),
            other: Some(other),
        },
        None => Advice::Moved {
            moved: link.from.clone(),
            other: None,
        },
    }
}

/// Where one direction goes on, by its own witnesses.
fn start((from, to, facts): (&EndFacts, &EndFacts, &LinkFacts)) -> Result<Lsn, Cause> {
    for end in [from, to] {
        if let Some(here) = end.here.as_ref().filter(|here| *here != end.node.as_str()) {
            return Err(Cause::Misled {
                node: end.node.clone(),
                here: here.clone(),
            });
        }
    }
    check_dropped(from, to)?;
    let Some(position) = &facts.position else {
        let to_node = to.node.clone();
        let was_set_up = !facts.known.is_empty() || (to.here.is_none() && facts.slot.is_some());
        return Err(if was_set_up {
            Cause::PositionLost { to: to_node }
        } else {
            Cause::NoPosition { to: to_node }
        });
    };
    check_source(from, position)?;
    check_commits((from, to), facts, position)?;
    check_own_slot((from, to), facts, position)?;
    if facts.predates_publication {
        return Err(Cause::PublicationAnew {
            from: from.node.clone(),
            to: to.node.clone(),
            slot: facts.slot_name.clone(),
        });
    }
    check_move(to)?;
    Ok(position.end_lsn)
}

/// Whether a person took one of the two out of the cluster.
fn check_dropped(from: &EndFacts, to: &EndFacts) -> Result<(), Cause> {
    for (end, other) in [(from, to), (to, from)] {
        let mut dropped = end.dropped.iter();
        if let Some(found) = dropped.find(|dropped| dropped.node == other.node.as_str()) {
            return Err(Cause::Dropped {
                node: other.node.clone(),
                at: found.at.clone(),
            });
        }
    }
    Ok(())
}

/// A target that moved has its rows, but neither its commit times nor its origins.
fn check_move(to: &EndFacts) -> Result<(), Cause> {
    to.moved_from().map_or(Ok(()), |before| {
        Err(Cause::Upgraded {
            node: to.node.clone(),
            before,
            now: to.system_id,
        })
    })
}

/// Whether the link's slot is its own, and can send everything after the position.
fn check_own_slot(
    (from, to): (&EndFacts, &EndFacts),
    facts: &LinkFacts,
    position: &Position,
) -> Result<(), Cause> {
    let link = LinkName {
        from: from.node.clone(),
        to: to.node.clone(),
    };
    let slot = facts.slot.as_ref();
    let ours = |slot: &&SlotState| slot.plugin == PLUGIN && slot.database == from.database;
    if let Some(slot) = slot.filter(|slot| !ours(slot)) {
        return Err(Cause::SlotForeign {
            from: link.from,
            slot: facts.slot_name.clone(),
            database: slot.database.clone(),
            plugin: slot.plugin.clone(),
        });
    }
    check_slot(&link, (&facts.slot_name, slot), position.end_lsn)
}

/// Whether the source is the server that it was.
fn check_source(from: &EndFacts, position: &Position) -> Result<(), Cause> {
    let known = position.source_system_id;
    if known != from.system_id {
        if from.moved_from() == Some(known) {
            return Err(Cause::Upgraded {
                node: from.node.clone(),
                before: known,
                now: from.system_id,
            });
        }
        return Err(Cause::OtherServer {
            from: from.node.clone(),
            found: from.system_id,
            known,
        });
    }
    if from.here.is_none() {
        return Err(Cause::Emptied {
            from: from.node.clone(),
        });
    }
    Ok(())
}

/// Whether both still have what they had.
fn check_commits(
    (from, to): (&EndFacts, &EndFacts),
    facts: &LinkFacts,
    position: &Position,
) -> Result<(), Cause> {
    let applied = position.end_lsn;
    let same_link = facts
        .known
        .iter()
        .filter(|known| known.began == position.began && known.proof != Proof::Fails);
    let durable = same_link.map(|known| known.durable).max();
    let (from_node, to_node) = (from.node.clone(), to.node.clone());
    if let Some(durable) = durable.filter(|durable| *durable > applied) {
        return Err(Cause::TargetLost {
            from: from_node,
            to: to_node,
            durable,
            applied,
        });
    }
    if applied > from.flushed {
        return Err(Cause::SourceLost {
            from: from_node,
            to: to_node,
            applied,
            flushed: from.flushed,
        });
    }
    if facts.proof == Proof::Fails {
        return Err(Cause::SourceRewritten {
            from: from_node,
            to: to_node,
            applied,
        });
    }
    Ok(())
}

/// Whether the slot can send everything after `applied`.
pub fn check_slot(
    link: &LinkName,
    (name, slot): (&str, Option<&SlotState>),
    applied: Lsn,
) -> Result<(), Cause> {
    let (from, to) = (link.from.clone(), link.to.clone());
    let slot_name = name.to_owned();
    let Some(slot) = slot else {
        return Err(Cause::NoSlot {
            from,
            to,
            slot: slot_name,
            applied,
        });
    };
    if slot.is_lost() {
        let why = slot.invalidation.clone();
        let mend = against_loss(why.as_deref());
        return Err(Cause::SlotInvalid {
            from,
            to,
            slot: slot_name,
            why: why.unwrap_or_else(|| "wal_removed".to_owned()),
            mend,
            applied,
        });
    }
    let Some(begins) = slot.confirmed_flush else {
        return Err(Cause::SlotUnfinished {
            from,
            slot: slot_name,
        });
    };
    if begins > applied {
        return Err(Cause::SlotAhead {
            from,
            to,
            slot: slot_name,
            begins,
            applied,
        });
    }
    Ok(())
}

/// What to change so that a slot is not lost in the same way again, by
/// `pg_replication_slots.invalidation_reason`.
fn against_loss(reason: Option<&str>) -> &'static str {
    match reason {
        Some("idle_timeout") => "set idle_replication_slot_timeout = 0 there",
        Some("wal_level_insufficient") => "set wal_level = logical there",
        Some("rows_removed") => "do not let a standby be the source",
        _ => "raise max_slot_wal_keep_size there",
    }
}
