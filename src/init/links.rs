//! Whether the slot and the position row of a link fit together. Pure.

use super::observe::NodeState;
use crate::catalog::position::Position;
use crate::catalog::slots::{PLUGIN, SlotState};
use crate::config::Config;
use crate::ids::{LinkName, NodeName, SystemId};

/// What a link needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkCondition {
    /// Nothing.
    Complete,
    /// A slot and a position row: it was never set up, or a setup did not end.
    Fresh {
        /// A slot without a position row is there and must go first.
        slot_left: bool,
    },
    /// The slot of an unfinished setup is in use by that process.
    InUse(i32),
    /// It was set up, and changes are lost.
    Broken {
        /// What does not fit, a clause.
        reason: String,
        /// Whether a slot is there.
        slot_left: bool,
        /// The process that uses it.
        active_pid: Option<i32>,
    },
}

/// A link and what it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LinkState {
    pub(super) link: LinkName,
    pub(super) condition: LinkCondition,
}

impl LinkState {
    pub(super) fn is_complete(&self) -> bool {
        self.condition == LinkCondition::Complete
    }
}

/// The condition of every link.
pub(super) fn conditions(config: &Config, states: &[NodeState]) -> Vec<LinkState> {
    let of = |name: &NodeName| states.iter().find(|state| state.name == *name);
    let condition = |link: &LinkName| {
        let (source, target) = (of(&link.from)?, of(&link.to)?);
        let position = target
            .positions
            .iter()
            .find(|position| position.source == link.from);
        let slot = source.slots.get(&link.to);
        Some(condition(
            slot,
            position,
            source.server.system_id,
            &source.server.database,
        ))
    };
    let links = config.links().into_iter();
    links
        .filter_map(|link| {
            Some(LinkState {
                condition: condition(&link)?,
                link,
            })
        })
        .collect()
}

/// Judges one link from the source's slot and the target's row.
fn condition(
    slot: Option<&SlotState>,
    position: Option<&Position>,
    source: SystemId,
    database: &str,
) -> LinkCondition {
    let Some(position) = position else {
        return match slot {
            Some(SlotState {
                active_pid: Some(pid),
                ..
            }) => LinkCondition::InUse(*pid),
            slot => LinkCondition::Fresh {
                slot_left: slot.is_some(),
            },
        };
    };
    match broken(slot, position, source, database) {
        None => LinkCondition::Complete,
        Some(reason) => LinkCondition::Broken {
            reason,
            slot_left: slot.is_some(),
            active_pid: slot.and_then(|slot| slot.active_pid),
        },
    }
}

fn broken(
    slot: Option<&SlotState>,
    position: &Position,
    source: SystemId,
    database: &str,
) -> Option<String> {
    if position.source_system_id != source {
        return Some(format!(
            "the target has applied changes of another server (system identifier {}, now {source})",
            position.source_system_id
        ));
    }
    let Some(slot) = slot else {
        return Some("its replication slot is gone, and with it changes since then".to_owned());
    };
    if slot.is_lost() {
        let why = slot.invalidation.as_deref().unwrap_or("wal_removed");
        return Some(format!("its replication slot was invalidated ({why})"));
    }
    if slot.plugin != PLUGIN || slot.database != database {
        return Some(format!(
            "its replication slot belongs to database {} with plugin {}",
            slot.database, slot.plugin
        ));
    }
    let Some(begins) = slot.confirmed_flush else {
        return Some("its replication slot is still being made by somebody else".to_owned());
    };
    (begins > position.end_lsn).then(|| {
        format!(
            "its replication slot begins at {begins}, after {}, the target's position",
            position.end_lsn
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TimelineId;
    use crate::lsn::Lsn;

    fn slot(confirmed: u64) -> SlotState {
        SlotState {
            active_pid: None,
            restart_lsn: Some(Lsn::new(1)),
            confirmed_flush: Some(Lsn::new(confirmed)),
            wal_status: "reserved".to_owned(),
            retained_bytes: 0,
            plugin: PLUGIN.to_owned(),
            database: "app".to_owned(),
            invalidation: None,
        }
    }

    fn position(end: u64) -> Position {
        Position {
            source: "east".parse().unwrap(),
            commit_lsn: Lsn::new(end),
            end_lsn: Lsn::new(end),
            commit_time: None,
            source_system_id: SystemId(7),
            source_timeline: TimelineId(1),
        }
    }

    fn judge(slot: Option<&SlotState>, position: Option<&Position>) -> LinkCondition {
        condition(slot, position, SystemId(7), "app")
    }

    fn reason(condition: LinkCondition) -> String {
        match condition {
            LinkCondition::Broken { reason, .. } => reason,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_slot_at_or_before_the_position_is_complete() {
        assert_eq!(
            judge(Some(&slot(5)), Some(&position(5))),
            LinkCondition::Complete
        );
        assert_eq!(
            judge(Some(&slot(4)), Some(&position(5))),
            LinkCondition::Complete
        );
    }

    #[test]
    fn without_a_position_the_setup_did_not_end() {
        assert_eq!(judge(None, None), LinkCondition::Fresh { slot_left: false });
        assert_eq!(
            judge(Some(&slot(5)), None),
            LinkCondition::Fresh { slot_left: true }
        );
        let busy = SlotState {
            active_pid: Some(9),
            ..slot(5)
        };
        assert_eq!(judge(Some(&busy), None), LinkCondition::InUse(9));
    }

    #[test]
    fn gaps_are_named() {
        assert!(reason(judge(None, Some(&position(5)))).contains("slot is gone"));
        assert!(reason(judge(Some(&slot(6)), Some(&position(5)))).contains("begins at 0/6"));
        let lost = SlotState {
            wal_status: "lost".to_owned(),
            ..slot(5)
        };
        assert!(reason(judge(Some(&lost), Some(&position(5)))).contains("invalidated"));
        let other = condition(Some(&slot(5)), Some(&position(5)), SystemId(8), "app");
        assert!(reason(other).contains("another server"));
    }
}
