//! A link whose daemon does not answer, pieced together from what its servers and its checkpoint
//! say; and the judgement over a whole cluster. Pure: the questions are asked elsewhere.

use super::model::{
    ClusterStatus, Lag, LinkState, LinkStatus, LsnStatus, SlotStatus, StatusSource,
};
use crate::checkpoint::Checkpoint;
use crate::commit_time::CommitTime;
use crate::ids::LinkName;
use crate::lineage::Finding;
use crate::lsn::Lsn;

/// WAL a healthy idle link may be behind: what a server writes by itself between two keepalives.
const SETTLED_BYTES: u64 = 1024 * 1024;

const SLOT_IN_USE: &str =
    "but the link's slot is in use, so a daemon runs that cannot be asked from here";

/// What the source server says about a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFacts {
    /// The end of its WAL.
    pub current: Lsn,
    /// What it has sent to whoever reads the slot.
    pub sent: Lsn,
    /// The link's slot, where it exists, and what has been confirmed to it.
    pub slot: Option<(SlotStatus, Lsn)>,
    /// Whether a person asked the link to stand still.
    pub paused: bool,
}

/// What the target server says about a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetFacts {
    /// Up to where the source's WAL is applied (`end_lsn` of the position row).
    pub applied: Lsn,
    /// The commit time of the last source transaction applied, where there was one.
    pub commit_time: Option<CommitTime>,
}

/// Everything that could be learnt about a link without its daemon. Errors are sentences.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// Why the daemon could not be asked, and what to do.
    pub daemon: String,
    /// The daemon takes connections and says nothing: the link may stand although its slot is used.
    pub hangs: bool,
    /// The daemon's last checkpoint, where its data directory is on this machine.
    pub checkpoint: Option<Checkpoint>,
    /// The source's answer.
    pub source: Result<SourceFacts, String>,
    /// The target's answer; `Ok(None)` when it has no position for the link.
    pub target: Result<Option<TargetFacts>, String>,
    /// What would keep the link from going on even with its daemon, where both servers answered.
    pub finding: Option<Finding>,
    /// `init` is at work, so that the history says nothing.
    pub init_at_work: bool,
}

/// The status of `link` by `evidence`, which was gathered at `now`.
pub fn from_evidence(link: &LinkName, evidence: &Evidence, now: CommitTime) -> LinkStatus {
    let (state, findings) = judge(link, evidence);
    let source = match evidence.checkpoint {
        Some(_) => StatusSource::Checkpoint,
        None => StatusSource::Server,
    };
    let mut status = LinkStatus::new(link, state, source, now);
    status.reason = Some(
        std::iter::once(evidence.daemon.clone())
            .chain(findings)
            .collect::<Vec<_>>()
            .join("; "),
    );
    status.lsn = positions(evidence);
    status.lag = lag(&status.lsn, evidence, now);
    if let Ok(SourceFacts {
        slot: Some((slot, _)),
        ..
    }) = &evidence.source
    {
        status.slot = Some(slot.clone());
    }
    status
}

/// The state, and what else has to be said.
fn judge(link: &LinkName, evidence: &Evidence) -> (LinkState, Vec<String>) {
    let mut findings = Vec::new();
    if let Err(error) = &evidence.target {
        findings.push(format!("{} cannot be asked: {error}", link.to));
    }
    let facts = match &evidence.source {
        Ok(facts) => facts,
        Err(error) => {
            findings.insert(0, format!("{} cannot be asked: {error}", link.from));
            return (LinkState::Unreachable, findings);
        }
    };
    let active = facts.slot.as_ref().is_some_and(|(slot, _)| slot.active);
    if active {
        findings.push(SLOT_IN_USE.to_owned());
    }
    if evidence.init_at_work {
        findings.push(format!("`mmrepl init` is at work on {}", link.to));
    }
    let broken = broken(evidence);
    let is_broken = broken.is_some();
    findings.extend(broken);
    if facts.paused {
        findings.push(format!(
            "the link is paused: resume it with `mmrepl resume '{link}'`"
        ));
    }
    let state = match (active, is_broken, facts.paused) {
        // The server ends the session of a daemon that hangs after a while; that changes nothing.
        (_, false, false) if evidence.hangs => LinkState::Unreachable,
        (false, ..) => LinkState::Stopped,
        (true, true, _) => LinkState::Blocked,
        (true, false, true) => LinkState::Paused,
        (true, false, false) if settled(evidence, facts) => LinkState::Streaming,
        (true, false, false) => LinkState::CatchingUp,
    };
    (state, findings)
}

/// Whether a link whose slot is in use has next to nothing left to apply.
fn settled(evidence: &Evidence, facts: &SourceFacts) -> bool {
    let behind = facts.current.bytes_since(positions(evidence).applied);
    matches!(evidence.target, Ok(Some(_))) && behind <= SETTLED_BYTES
}

/// What would keep the link from going on even with its daemon.
fn broken(evidence: &Evidence) -> Option<String> {
    let finding = evidence.finding.as_ref();
    let finding = finding.filter(|_| !evidence.init_at_work)?;
    let hint = finding.hint();
    Some(format!("{}; {}{hint}", finding.cause, finding.advice))
}

fn positions(evidence: &Evidence) -> LsnStatus {
    let mut lsn = LsnStatus::default();
    if let Some(checkpoint) = &evidence.checkpoint {
        lsn.durable = checkpoint.position;
        lsn.applied = checkpoint.position;
    }
    if let Ok(Some(target)) = evidence.target {
        lsn.applied = target.applied;
    }
    if let Ok(facts) = &evidence.source {
        lsn.current = facts.current;
        lsn.sent = facts.sent;
        lsn.confirmed = facts
            .slot
            .as_ref()
            .map_or(Lsn::ZERO, |(_, confirmed)| *confirmed);
    }
    lsn
}

/// Bounds from above: not all WAL is the link's, and the oldest unapplied commit came after the
/// last applied one.
fn lag(lsn: &LsnStatus, evidence: &Evidence, now: CommitTime) -> Lag {
    if lsn.current.is_zero() || lsn.applied.is_zero() {
        return Lag {
            bytes: 0,
            seconds: None,
            exact: false,
        };
    }
    let bytes = lsn.current.bytes_since(lsn.applied);
    if bytes == 0 {
        return Lag::default();
    }
    let last = evidence
        .target
        .as_ref()
        .ok()
        .copied()
        .flatten()
        .and_then(|t| t.commit_time);
    #[allow(clippy::cast_precision_loss)] // 2^53 microseconds are 285 years
    let seconds = last.map(|last| now.micros_since(last).max(0) as f64 / 1e6);
    Lag {
        bytes,
        seconds,
        exact: false,
    }
}

/// What `mmrepl status` says with its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every link is streaming, and no node is damaged.
    Well,
    /// Some link is known not to be, or some node is damaged.
    Unwell,
    /// About some link nothing could be learnt, and none is known to be unwell.
    Unknown,
}

impl Verdict {
    /// Judges `status`.
    pub fn of(status: &ClusterStatus) -> Self {
        let known = |link: &&LinkStatus| {
            link.state != LinkState::Unreachable || link.source == StatusSource::Daemon
        };
        let all_known = status.links.iter().all(|link| known(&link));
        let mut known_links = status.links.iter().filter(known);
        let damaged = status.nodes.iter().any(|node| !node.damage.is_empty());
        if damaged || known_links.any(|link| link.state != LinkState::Streaming) {
            Self::Unwell
        } else if all_known {
            Self::Well
        } else {
            Self::Unknown
        }
    }

    /// The exit code of the public interface.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Well => 0,
            Self::Unwell => 1,
            Self::Unknown => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{SystemId, TimelineId};
    use crate::lineage::Cause;

    fn link() -> LinkName {
        "east->west".parse().unwrap()
    }

    fn slot(active: bool) -> SlotStatus {
        let (name, wal_status) = ("mmrepl_shop_west".into(), "reserved".into());
        SlotStatus {
            name,
            active,
            retained_bytes: 512,
            wal_status,
        }
    }

    fn evidence() -> Evidence {
        let slot = Some((slot(false), Lsn::new(100)));
        let commit_time = Some(CommitTime::from_postgres_micros(1_000_000));
        Evidence {
            daemon: "the daemon of east does not answer".into(),
            hangs: false,
            checkpoint: None,
            finding: None,
            init_at_work: false,
            source: Ok(SourceFacts {
                current: Lsn::new(500),
                sent: Lsn::new(450),
                slot,
                paused: false,
            }),
            target: Ok(Some(TargetFacts {
                applied: Lsn::new(300),
                commit_time,
            })),
        }
    }

    fn judged(evidence: &Evidence) -> LinkStatus {
        from_evidence(
            &link(),
            evidence,
            CommitTime::from_postgres_micros(3_500_000),
        )
    }

    fn checkpoint(position: u64) -> Checkpoint {
        Checkpoint {
            position: Lsn::new(position),
            target_system_id: SystemId(1),
            target_timeline: TimelineId(1),
            source_system_id: SystemId(2),
            source_timeline: TimelineId(1),
            slot: "mmrepl_shop_west".into(),
            began: CommitTime::default(),
            witness: None,
        }
    }

    #[test]
    fn a_daemon_that_is_down_is_stopped_with_bounds_on_the_lag() {
        let status = judged(&evidence());
        assert_eq!(
            (status.state, status.source),
            (LinkState::Stopped, StatusSource::Server)
        );
        assert_eq!(
            status.lag,
            Lag {
                bytes: 200,
                seconds: Some(2.5),
                exact: false
            }
        );
        assert_eq!(
            status.reason.as_deref(),
            Some("the daemon of east does not answer")
        );
        assert_eq!(status.lsn.confirmed, Lsn::new(100));
        assert_eq!(
            (status.lsn.current, status.lsn.sent),
            (Lsn::new(500), Lsn::new(450))
        );
        assert_eq!(status.slot.unwrap().retained_bytes, 512);
    }

    #[test]
    fn with_nothing_left_to_apply_the_lag_is_known_to_be_none() {
        let mut evidence = evidence();
        evidence.source.as_mut().unwrap().current = Lsn::new(300);
        assert_eq!(judged(&evidence).lag, Lag::default());
    }

    #[test]
    fn a_checkpoint_is_used_and_named_as_the_source() {
        let mut evidence = evidence();
        evidence.checkpoint = Some(checkpoint(250));
        let status = judged(&evidence);
        assert_eq!(
            (status.state, status.source),
            (LinkState::Stopped, StatusSource::Checkpoint)
        );
        assert_eq!(
            (status.lsn.durable, status.lsn.applied),
            (Lsn::new(250), Lsn::new(300))
        );
        evidence.target = Err("connection refused".into());
        let status = judged(&evidence);
        assert_eq!(status.lsn.applied, Lsn::new(250));
        assert_eq!(
            status.lag,
            Lag {
                bytes: 250,
                seconds: None,
                exact: false
            }
        );
        assert!(
            status
                .reason
                .unwrap()
                .contains("west cannot be asked: connection refused")
        );
    }

    #[test]
    fn a_source_that_cannot_be_asked_is_unreachable() {
        let mut evidence = evidence();
        evidence.source = Err("connection refused".into());
        let status = judged(&evidence);
        assert_eq!(status.state, LinkState::Unreachable);
        assert_eq!(
            status.lag,
            Lag {
                bytes: 0,
                seconds: None,
                exact: false
            }
        );
        assert!(
            status
                .reason
                .unwrap()
                .contains("east cannot be asked: connection refused")
        );
    }

    #[test]
    fn an_active_slot_means_a_daemon_that_cannot_be_asked_from_here() {
        let mut evidence = evidence();
        let facts = evidence.source.as_mut().unwrap();
        facts.slot = Some((slot(true), Lsn::new(100)));
        let status = judged(&evidence);
        assert_eq!(status.state, LinkState::Streaming);
        assert!(status.reason.unwrap().contains("slot is in use"));
        evidence.hangs = true;
        assert_eq!(judged(&evidence).state, LinkState::Unreachable);
        let facts = evidence.source.as_mut().unwrap();
        facts.slot = Some((slot(false), Lsn::new(100)));
        assert_eq!(judged(&evidence).state, LinkState::Unreachable);
        let facts = evidence.source.as_mut().unwrap();
        facts.slot = Some((slot(true), Lsn::new(100)));
        evidence.hangs = false;
        evidence.source.as_mut().unwrap().current = Lsn::new(300 + SETTLED_BYTES + 1);
        assert_eq!(judged(&evidence).state, LinkState::CatchingUp);
        evidence.source.as_mut().unwrap().paused = true;
        assert_eq!(judged(&evidence).state, LinkState::Paused);
    }

    fn lost_slot() -> Finding {
        let cause = Cause::NoSlot {
            from: link().from,
            to: link().to,
            slot: "mmrepl_shop_west".to_owned(),
            applied: Lsn::new(300),
        };
        Finding::of_slot(&link(), cause)
    }

    #[test]
    fn a_broken_history_is_told_with_its_remedy() {
        let mut evidence = evidence();
        evidence.finding = Some(lost_slot());
        let status = judged(&evidence);
        let reason = status.reason.unwrap();
        assert_eq!(status.state, LinkState::Stopped, "{reason}");
        assert!(reason.contains("its replication slot is gone"), "{reason}");
        assert!(
            reason.contains("`mmrepl init --copy-from east`"),
            "{reason}"
        );
    }

    #[test]
    fn a_daemon_out_of_reach_with_a_broken_history_is_blocked() {
        let mut evidence = evidence();
        evidence.source.as_mut().unwrap().slot = Some((slot(true), Lsn::new(301)));
        evidence.finding = Some(lost_slot());
        assert_eq!(judged(&evidence).state, LinkState::Blocked);
    }

    fn verdict(states: &[(LinkState, StatusSource)]) -> Verdict {
        let at = CommitTime::from_postgres_micros(0);
        let links = states
            .iter()
            .map(|&(state, source)| LinkStatus::new(&link(), state, source, at));
        let cluster = "shop".parse().unwrap();
        Verdict::of(&ClusterStatus {
            cluster,
            at,
            links: links.collect(),
            nodes: vec![],
        })
    }

    #[test]
    fn the_exit_code_tells_well_unwell_and_unknown_apart() {
        use LinkState::{Paused, Streaming, Unreachable};
        use StatusSource::{Daemon, Server};
        assert_eq!(
            verdict(&[(Streaming, Daemon), (Streaming, Server)]),
            Verdict::Well
        );
        assert_eq!(
            verdict(&[(Streaming, Daemon), (Paused, Daemon)]),
            Verdict::Unwell
        );
        assert_eq!(
            verdict(&[(Streaming, Daemon), (Unreachable, Server)]),
            Verdict::Unknown
        );
        assert_eq!(
            verdict(&[(Paused, Daemon), (Unreachable, Server)]),
            Verdict::Unwell
        );
        assert_eq!(verdict(&[(Unreachable, Daemon)]), Verdict::Unwell);
        assert_eq!(
            [Verdict::Well, Verdict::Unwell, Verdict::Unknown].map(Verdict::exit_code),
            [0, 1, 2]
        );
    }
}
