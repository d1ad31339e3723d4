//! May the link go on from where it was? Pure checks of four witnesses.
//!
//! The target's position row says what was applied; the source's slot says what it can still send;
//! the checkpoint store says what this daemon knew to be flushed on the target; the servers' system
//! identifiers say whether they are still the same servers. A server that was restored, replaced
//! or failed over shows as a contradiction between them. Then the link stops with a sentence,
//! because going on would leave a silent gap.

use crate::catalog::position::Position;
use crate::catalog::slots::SlotState;
use crate::checkpoint::Checkpoint;
use crate::error::{RetryClass, Retryable};
use crate::ids::{LinkName, SystemId};
use crate::lsn::Lsn;

/// What the witnesses say, gathered before each start of a link.
#[derive(Debug)]
pub(super) struct Witnesses<'a> {
    /// The link.
    pub link: &'a LinkName,
    /// The target's row for the source.
    pub position: Option<&'a Position>,
    /// The source's slot for the target, by name.
    pub slot_name: &'a str,
    /// Its state, when it exists.
    pub slot: Option<&'a SlotState>,
    /// What the daemon remembers.
    pub checkpoint: Option<&'a Checkpoint>,
    /// The source server.
    pub source_system_id: SystemId,
    /// How far the source's WAL is flushed.
    pub source_flushed: Lsn,
}

/// A contradiction between the witnesses. Each sentence says what happened and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// No position row.
    #[error("{to} has no position for {from}: run `mmrepl init` to set the link up")]
    NoPosition {
        /// Source node.
        from: String,
        /// Target node.
        to: String,
    },
    /// The target was restored without its position row.
    #[error(
        "{to} lost its position for {from}, it was restored or re-created: bring its rows up to date with `mmrepl init --copy-from {from}`"
    )]
    PositionLost {
        /// Source node.
        from: String,
        /// Target node.
        to: String,
    },
    /// The slot was dropped.
    #[error(
        "the replication slot {slot} is missing on {from}; what was written there after {applied} may not have reached {to}: run `mmrepl init --copy-from {from}`, or `mmrepl init --assume-identical` if you know that nothing was"
    )]
    NoSlot {
        /// Source node.
        from: String,
        /// Target node.
        to: String,
        /// Slot name.
        slot: String,
        /// Last position applied on the target.
        applied: Lsn,
    },
    /// The server gave up the slot's WAL.
    #[error(
        "the server of {from} has invalidated the replication slot {slot} (wal_status {status}); what was written there after {applied} may not have reached {to}: drop the slot, {mend} and run `mmrepl init --copy-from {from}`"
    )]
    SlotInvalid {
        /// Source node.
        from: String,
        /// Target node.
        to: String,
        /// Slot name.
        slot: String,
        /// `wal_status` of `pg_replication_slots`.
        status: String,
        /// What keeps it from happening again.
        mend: &'static str,
        /// Last position applied on the target.
        applied: Lsn,
    },
    /// The slot has no beginning yet.
    #[error(
        "the replication slot {slot} on {from} is still being made, which waits for transactions that were open before; the link looks again by itself"
    )]
    SlotUnfinished {
        /// Source node.
        from: String,
        /// Slot name.
        slot: String,
    },
    /// The slot starts after the position.
    #[error(
        "the slot {slot} on {from} begins at {begins}, after {applied}, the last position applied on {to}: what lies between was lost (was {to} restored from a backup, or the slot re-created?); run `mmrepl init --copy-from {from}`"
    )]
    SlotAhead {
        /// Source node.
        from: String,
        /// Target node.
        to: String,
        /// Slot name.
        slot: String,
        /// Where the slot begins.
        begins: Lsn,
        /// Last position applied on the target.
        applied: Lsn,
    },
    /// The target lost commits that were flushed.
    #[error(
        "{to} has lost commits: it had applied {from} up to {durable}, now only up to {applied} (restored from a backup, or failed over to a standby that was behind?); run `mmrepl init --copy-from {from}`"
    )]
    TargetLost {
        /// Source node.
        from: String,
        /// Target node.
        to: String,
        /// What was flushed there once.
        durable: Lsn,
        /// What it has now.
        applied: Lsn,
    },
    /// The source's WAL ends before what was applied from it.
    #[error(
        "{from} has lost commits: {to} has applied it up to {applied}, but its WAL ends at {flushed} (restored from a backup, or failed over to a standby that was behind?); run `mmrepl init --copy-from {to}`"
    )]
    SourceLost {
        /// Source node.
        from: String,
        /// Target node.
        to: String,
        /// Applied on the target.
        applied: Lsn,
        /// End of the source's WAL.
        flushed: Lsn,
    },
    /// The source is another server.
    #[error(
        "{from} is another server (system identifier {found}) than the one that {to} was fed from ({known}): correct its dsn, or set the link up anew with `mmrepl init --copy-from NODE`"
    )]
    OtherSource {
        /// Source node.
        from: String,
        /// Target node.
        to: String,
        /// Identifier of the server behind the DSN.
        found: SystemId,
        /// Identifier in the position row.
        known: SystemId,
    },
}

impl Retryable for HistoryError {
    fn retry_class(&self) -> RetryClass {
        match self {
            Self::SlotUnfinished { .. } => RetryClass::Transient,
            _ => RetryClass::Operator,
        }
    }
}

/// Where the stream goes on, if the witnesses agree.
pub(super) fn start_position(seen: &Witnesses<'_>) -> Result<Lsn, HistoryError> {
    let (from, to) = (seen.link.from.to_string(), seen.link.to.to_string());
    let Some(position) = seen.position else {
        return Err(match seen.checkpoint {
            Some(_) => HistoryError::PositionLost { from, to },
            None => HistoryError::NoPosition { from, to },
        });
    };
    let applied = position.end_lsn;
    let known = position.source_system_id;
    if known != seen.source_system_id {
        return Err(HistoryError::OtherSource {
            from,
            to,
            found: seen.source_system_id,
            known,
        });
    }
    if let Some(durable) = seen
        .checkpoint
        .map(|c| c.position)
        .filter(|at| *at > applied)
    {
        return Err(HistoryError::TargetLost {
            from,
            to,
            durable,
            applied,
        });
    }
    if applied > seen.source_flushed {
        let flushed = seen.source_flushed;
        return Err(HistoryError::SourceLost {
            from,
            to,
            applied,
            flushed,
        });
    }
    check_slot(seen.link, (seen.slot_name, seen.slot), applied)?;
    Ok(applied)
}

/// Whether the slot can send everything after `applied`.
pub(super) fn check_slot(
    link: &LinkName,
    (name, slot): (&str, Option<&SlotState>),
    applied: Lsn,
) -> Result<(), HistoryError> {
    let (from, to) = (link.from.to_string(), link.to.to_string());
    let slot_name = name.to_owned();
    let Some(slot) = slot else {
        return Err(HistoryError::NoSlot {
            from,
            to,
            slot: slot_name,
            applied,
        });
    };
    if slot.wal_status == "lost" {
        return Err(HistoryError::SlotInvalid {
            from,
            to,
            slot: slot_name,
            status: slot.wal_status.clone(),
            mend: against_loss(slot.invalidation.as_deref()),
            applied,
        });
    }
    let Some(begins) = slot.confirmed_flush else {
        return Err(HistoryError::SlotUnfinished {
            from,
            slot: slot_name,
        });
    };
    if begins > applied {
        return Err(HistoryError::SlotAhead {
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
