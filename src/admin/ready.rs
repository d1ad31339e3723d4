//! May this node take traffic? Only while every change gets in and out in time.

use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, join_all};

use super::client::{Peer, ask};
use super::{Incoming, IncomingLinks};
use crate::config::Node;
use crate::damage::Damage;
use crate::ids::{ClusterName, LinkName, NodeName};
use crate::status::model::LinkStatus;

/// A node further behind than this, in seconds, is not ready: long enough for a burst, short enough
/// for people not to notice much old data.
pub const READY_LAG_SECONDS: f64 = 30.0;
/// A load balancer's check rarely waits for more than two seconds.
const PEER_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the node may not take traffic, or `None` when it may.
pub(super) fn reason(
    outgoing: &[LinkStatus],
    incoming: &[Incoming],
    damage: &[Damage],
) -> Option<String> {
    let told = incoming.iter().map(|incoming| match &incoming.status {
        Ok(status) => trouble(status),
        Err(sentence) => Some(format!("{}: {sentence}", incoming.link)),
    });
    let mut reasons: Vec<_> = outgoing.iter().map(trouble).chain(told).flatten().collect();
    let losing = damage.iter().filter(|damage| damage.loses_rows);
    reasons.extend(losing.map(ToString::to_string));
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

fn trouble(link: &LinkStatus) -> Option<String> {
    let name = link.link();
    if !link.state.moves() {
        let reason = link.reason.as_deref().unwrap_or("no reason is known");
        return Some(format!("{name} is {}: {reason}", link.state));
    }
    // A link that moves and does not know its lag has nothing in hand.
    let late = link.lag.seconds.filter(|late| *late > READY_LAG_SECONDS)?;
    Some(format!(
        "{name} is {late:.0} s behind, more than the {READY_LAG_SECONDS:.0} s allowed"
    ))
}

/// Asks the daemons of all peers about their links to this node.
#[derive(Clone, Debug)]
pub struct PeerDaemons {
    cluster: ClusterName,
    node: NodeName,
    peers: Vec<Node>,
}

impl PeerDaemons {
    /// The daemons of `peers`, as `node` sees them.
    pub fn new(cluster: ClusterName, node: NodeName, peers: Vec<Node>) -> Self {
        Self {
            cluster,
            node,
            peers,
        }
    }

    async fn ask(&self, node: &Node) -> Incoming {
        let link = LinkName {
            from: node.name.clone(),
            to: self.node.clone(),
        };
        let told = match Peer::of(node).await {
            Ok(peer) => ask(&peer, &self.cluster, PEER_TIMEOUT)
                .await
                .map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let status = told.and_then(|told| {
            let found = told.links.into_iter().find(|status| status.link() == link);
            found.ok_or_else(|| format!("the daemon of {} does not run it", node.name))
        });
        Incoming { link, status }
    }
}

impl IncomingLinks for PeerDaemons {
    fn incoming(&self) -> BoxFuture<'_, Vec<Incoming>> {
        join_all(self.peers.iter().map(|peer| self.ask(peer))).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit_time::CommitTime;
    use crate::status::model::{LinkState, StatusSource};

    fn link(name: &str, state: LinkState, seconds: f64) -> LinkStatus {
        let at = CommitTime::from_postgres_micros(0);
        let mut status = LinkStatus::new(&name.parse().unwrap(), state, StatusSource::Daemon, at);
        status.lag.seconds = Some(seconds);
        status.reason = (state != LinkState::Streaming).then(|| "because".to_owned());
        status
    }

    fn incoming(status: Result<LinkStatus, String>) -> Incoming {
        Incoming {
            link: "west->east".parse().unwrap(),
            status,
        }
    }

    #[test]
    fn every_link_in_both_directions_must_move_in_time() {
        let good = link("east->west", LinkState::Streaming, 1.0);
        let back = |state, seconds| vec![incoming(Ok(link("west->east", state, seconds)))];
        let told = |state, seconds| reason(std::slice::from_ref(&good), &back(state, seconds), &[]);
        assert_eq!(told(LinkState::Streaming, 30.0), None);
        assert_eq!(told(LinkState::CatchingUp, 3.0), None);
        let late = told(LinkState::CatchingUp, 31.0).unwrap();
        assert_eq!(
            late,
            "west->east is 31 s behind, more than the 30 s allowed"
        );
        let blocked = told(LinkState::Blocked, 0.0).unwrap();
        assert_eq!(blocked, "west->east is blocked: because");
    }

    #[test]
    fn a_peer_that_does_not_answer_is_a_reason() {
        let silent = incoming(Err("nobody is at home".into()));
        let paused = link("east->west", LinkState::Paused, 0.0);
        let expected = "east->west is paused: because; west->east: nobody is at home";
        assert_eq!(reason(&[paused], &[silent], &[]).as_deref(), Some(expected));
    }
}
