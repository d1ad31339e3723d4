//! Which node wrote a row: from the target's replication origins to node names.

use std::collections::HashMap;

use super::sql::Guard;
use crate::commit_time::CommitTime;
use crate::conflict::Version;
use crate::ids::{ClusterName, NodeName, OriginId, origin_name};

/// The replication origins of one target server.
#[derive(Debug, Clone)]
pub struct Origins {
    cluster: ClusterName,
    source: NodeName,
    target: NodeName,
    by_id: HashMap<OriginId, NodeName>,
}

impl Origins {
    /// `by_id` holds the cluster's origins on the target, with the node each stands for.
    pub fn new(
        cluster: ClusterName,
        source: NodeName,
        target: NodeName,
        by_id: HashMap<OriginId, NodeName>,
    ) -> Self {
        Self {
            cluster,
            source,
            target,
            by_id,
        }
    }

    /// The node whose changes this link applies.
    pub fn source(&self) -> &NodeName {
        &self.source
    }

    /// The node the changes are applied to.
    pub fn target(&self) -> &NodeName {
        &self.target
    }

    /// The cluster.
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// The name of the origin that the apply session holds.
    pub fn session_origin(&self) -> String {
        origin_name(&self.cluster, &self.source)
    }

    /// Nodes that may have written a row here beside the source: the target, which stands for
    /// every origin that is none of the cluster's, and the others by the number of their origin.
    pub fn others(&self) -> (&NodeName, Vec<(u32, &NodeName)>) {
        let third = self.by_id.iter().filter(|(_, node)| **node != self.source);
        let mut third: Vec<_> = third.map(|(id, node)| (id.0, node)).collect();
        third.sort_unstable();
        (&self.target, third)
    }

    /// The number of the origin that marks what `node` wrote; 0 for the target's own writes.
    pub fn id_of(&self, node: &NodeName) -> u32 {
        let found = self.by_id.iter().find(|(_, name)| *name == node);
        found.map_or(OriginId::LOCAL.0, |(id, _)| id.0)
    }

    /// The guard for writes of this link's source; `None` when the target has no origin for it.
    pub fn guard(&self) -> Option<Guard> {
        let own = self.by_id.iter().find(|(_, node)| **node == self.source)?;
        let others = self.by_id.iter().filter(|(_, node)| **node > self.source);
        let mut stronger: Vec<u32> = others.map(|(id, _)| id.0).collect();
        if self.target > self.source {
            stronger.push(OriginId::LOCAL.0);
        }
        stronger.sort_unstable();
        Some(Guard {
            origin: own.0.0,
            stronger,
            others: self.others().1.into_iter().map(|(id, _)| id).collect(),
            pair: self.by_id.len() == 1,
        })
    }

    /// The version of a row from what the server says of it: microseconds and origin as text.
    ///
    /// A row that came here by other means than this cluster counts as written here.
    pub fn version(&self, micros: Option<&[u8]>, origin: Option<&[u8]>) -> Option<Version> {
        let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<i64>().ok();
        let time = CommitTime::from_postgres_micros(number(micros?)?);
        let id = OriginId(u32::try_from(number(origin?)?).ok()?);
        let node = self.by_id.get(&id).unwrap_or(&self.target).clone();
        Some(Version { time, node })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    fn origins(source: &str, target: &str) -> Origins {
        let by_id = [
            (OriginId(1), node("a")),
            (OriginId(2), node("c")),
            (OriginId(3), node("z")),
        ];
        Origins::new(
            "shop".parse().unwrap(),
            node(source),
            node(target),
            by_id.into_iter().collect(),
        )
    }

    #[test]
    fn the_guard_knows_who_wins_a_tie() {
        let guard = origins("c", "m").guard().unwrap();
        assert_eq!(
            guard,
            Guard {
                origin: 2,
                stronger: vec![0, 3],
                others: vec![1, 3],
                pair: false,
            }
        );
        assert_eq!(origins("c", "b").guard().unwrap().stronger, vec![3]);
        assert_eq!(origins("q", "b").guard(), None);
    }

    #[test]
    fn others_are_the_target_and_third_nodes() {
        let origins = origins("c", "m");
        let (a, z) = (node("a"), node("z"));
        assert_eq!(origins.others(), (&node("m"), vec![(1, &a), (3, &z)]));
        assert_eq!((origins.id_of(&z), origins.id_of(&node("m"))), (3, 0));
        assert_eq!(origins.session_origin(), "mmrepl_shop_c");
    }

    #[test]
    fn versions_name_the_node() {
        let origins = origins("c", "m");
        let written_by = |id: &[u8]| origins.version(Some(b"7"), Some(id)).unwrap().node;
        assert_eq!(written_by(b"0"), node("m"));
        assert_eq!(written_by(b"3"), node("z"));
        assert_eq!(origins.version(None, None), None);
    }
}
