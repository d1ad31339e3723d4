//! Which node wrote a row: from the target's replication origins to node names.

use std::collections::HashMap;

use crate::apply::shape::guard::Guard;
use crate::commit_time::CommitTime;
use crate::conflict::{Held, Rank, Secret, Version};
use crate::ids::{
    ClusterName, NodeName, OriginId, large_origin_name, origin_name, origin_names_beside,
    return_origin_name, worker_origin_name,
};
use crate::wire::{Outcome, WireError};

/// The replication origins of one target server.
#[derive(Debug, Clone)]
pub struct Origins {
    cluster: ClusterName,
    source: NodeName,
    target: NodeName,
    by_id: HashMap<OriginId, NodeName>,
    /// Second origins, which mark rows that returned after they were kept aside.
    again: HashMap<OriginId, NodeName>,
    /// Further ones, held by sessions beside a link's first: they mark what was applied while it
    /// was running on its node, or by several sessions at once.
    beside: HashMap<OriginId, NodeName>,
    /// The names of the source's further ones.
    of_source: Vec<String>,
    /// The one of these that the session holds instead of the source's first.
    held: Option<String>,
    /// The target's, which seals markers.
    secret: Secret,
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
            again: HashMap::new(),
            beside: HashMap::new(),
            of_source: Vec::new(),
            held: None,
            secret: Secret::default(),
        }
    }

    /// From the numbers of the origins on the target, by name; `source` and `target` of the link.
    pub fn of_server(
        cluster: &ClusterName,
        nodes: &[NodeName],
        (source, target): (NodeName, NodeName),
        ids: &HashMap<String, u32>,
    ) -> Self {
        let named = |name_of: fn(&ClusterName, &NodeName) -> String| {
            let find = |node: &NodeName| {
                let id = ids.get(&name_of(cluster, node))?;
                Some((OriginId(*id), node.clone()))
            };
            nodes.iter().filter_map(find).collect::<HashMap<_, _>>()
        };
        let by_id = named(origin_name);
        let mut origins = Self::new(cluster.clone(), source, target, by_id);
        for node in nodes {
            for name in origin_names_beside(cluster, node) {
                let Some(id) = ids.get(&name) else { continue };
                origins.beside.insert(OriginId(*id), node.clone());
                if *node == origins.source {
                    origins.of_source.push(name);
                }
            }
        }
        origins.returning(named(return_origin_name))
    }

    /// Adds the second origins, with the node each stands for.
    #[must_use]
    pub fn returning(mut self, again: HashMap<OriginId, NodeName>) -> Self {
        self.again = again;
        self
    }

    /// With the target's secret.
    #[must_use]
    pub fn sealing(self, secret: Secret) -> Self {
        Self { secret, ..self }
    }

    /// What seals messages on the target.
    pub(in crate::apply) fn secret(&self) -> &Secret {
        &self.secret
    }

    /// For the session that applies what is still running on the source; `None` where the server
    /// has no origin for it.
    pub fn holding_large(self) -> Option<Self> {
        let name = large_origin_name(&self.cluster, &self.source);
        self.holding(name)
    }

    /// For the session with this number, from 2 on, of those that apply at once; `None` where the
    /// server has no origin for it.
    pub fn holding_worker(self, number: usize) -> Option<Self> {
        let name = worker_origin_name(&self.cluster, &self.source, number);
        self.holding(name)
    }

    fn holding(mut self, name: String) -> Option<Self> {
        if !self.of_source.contains(&name) {
            return None;
        }
        self.held = Some(name);
        Some(self)
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
        let first = || origin_name(&self.cluster, &self.source);
        self.held.clone().unwrap_or_else(first)
    }

    /// All but the nodes' first origins, each with the node it stands for.
    fn further(&self) -> impl Iterator<Item = (&OriginId, &NodeName)> {
        self.again.iter().chain(&self.beside)
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

    /// Whether source and target are the whole cluster.
    pub fn is_pair(&self) -> bool {
        self.by_id.len() == 1
    }

    /// The guard for writes of this link's source; `None` when the target has no origin for it.
    pub fn guard(&self) -> Option<Guard> {
        let own = self.by_id.iter().find(|(_, node)| **node == self.source)?;
        let others = self.by_id.iter().filter(|(_, node)| **node > self.source);
        let mut stronger: Vec<u32> = others.map(|(id, _)| id.0).collect();
        if self.target > self.source {
            stronger.push(OriginId::LOCAL.0);
        }
        let again = self.further().filter(|(_, node)| **node > self.source);
        stronger.extend(again.map(|(id, _)| id.0));
        stronger.sort_unstable();
        Some(Guard {
            origin: own.0.0,
            stronger,
            others: self.others().1.into_iter().map(|(id, _)| id).collect(),
            pair: self.is_pair(),
            again: self.again_of_first(),
        })
    }

    /// The name of a second origin that the server does not have.
    pub fn missing_return_origin(&self, nodes: &[NodeName]) -> Option<String> {
        let has = |node: &NodeName| self.again.values().any(|known| known == node);
        let missing = nodes.iter().find(|node| !has(node))?;
        Some(return_origin_name(&self.cluster, missing))
    }

    /// Further origins with the first of the same node.
    fn again_of_first(&self) -> Vec<(u32, u32)> {
        let pair = |(id, node): (&OriginId, &NodeName)| (id.0, self.id_of(node));
        let mut pairs: Vec<_> = self.further().map(pair).collect();
        pairs.sort_unstable();
        pairs
    }

    /// The version of a row from what the server says of it: microseconds and origin as text.
    ///
    /// A row that came here by other means than this cluster counts as written here.
    pub fn version(
        &self,
        micros: Option<&[u8]>,
        origin: Option<&[u8]>,
    ) -> Result<Option<Version>, WireError> {
        let (Some(micros), Some(origin)) = (micros, origin) else {
            return Ok(None);
        };
        let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<i64>().ok();
        let what = "when and by whom a row was written";
        let unreadable = || WireError::Unreadable { what };
        let time = CommitTime::from_postgres_micros(number(micros).ok_or_else(unreadable)?);
        let id = number(origin).and_then(|id| u32::try_from(id).ok());
        let id = OriginId(id.ok_or_else(unreadable)?);
        let further = || self.again.get(&id).or_else(|| self.beside.get(&id));
        let known = self.by_id.get(&id).or_else(further);
        let node = known.unwrap_or(&self.target).clone();
        Ok(Some(Version { time, node }))
    }
}

impl Origins {
    /// Rows or tombstones as statements tell their versions: micros, origin, the version in the
    /// row.
    pub(in crate::apply) fn held(&self, outcome: &Outcome) -> Result<Vec<Held>, WireError> {
        let held = |row: usize| {
            let column = |column| outcome.text(row, column).map(str::as_bytes);
            Ok(Held {
                rank: Rank::read(column(2)),
                version: self.version(column(0), column(1))?,
            })
        };
        (0..outcome.rows.len()).map(held).collect()
    }

    /// The version of a shadow from what `sql::shadows::lock_shadow` says of it: microseconds and
    /// the node's name.
    pub(in crate::apply) fn kept_version(shadow: &Outcome) -> Result<Option<Version>, WireError> {
        let micros = shadow.optional(0, 0, "when a row kept aside was written")?;
        let node: NodeName = shadow.get(0, 1, "by whom a row kept aside was written")?;
        Ok(micros.map(|micros| Version {
            time: CommitTime::from_postgres_micros(micros),
            node,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    fn written(origins: &Origins, id: &[u8]) -> Version {
        origins.version(Some(b"7"), Some(id)).unwrap().unwrap()
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
                again: vec![],
            }
        );
        assert_eq!(origins("c", "b").guard().unwrap().stronger, vec![3]);
        assert_eq!(origins("q", "b").guard(), None);
    }

    #[test]
    fn a_second_origin_stands_for_the_same_node() {
        let again = [
            (OriginId(7), node("c")),
            (OriginId(8), node("z")),
            (OriginId(9), node("m")),
        ];
        let origins = origins("c", "m").returning(again.into_iter().collect());
        let guard = origins.guard().unwrap();
        assert_eq!(guard.again, vec![(7, 2), (8, 3), (9, 0)]);
        assert_eq!(guard.stronger, vec![0, 3, 8, 9]);
        assert_eq!(guard.others, vec![1, 3]);
        let written_by = |id: &[u8]| written(&origins, id).node;
        assert_eq!((written_by(b"7"), written_by(b"9")), (node("c"), node("m")));
    }

    #[test]
    fn others_are_the_target_and_third_nodes() {
        let origins = origins("c", "m");
        let (a, z) = (node("a"), node("z"));
        assert_eq!(origins.others(), (&node("m"), vec![(1, &a), (3, &z)]));
        assert_eq!((origins.id_of(&z), origins.id_of(&node("m"))), (3, 0));
        assert_eq!(origins.session_origin(), "mmrepl_shop_c");
        assert!(origins.holding_large().is_none());
    }

    #[test]
    fn what_is_applied_beside_a_first_session_counts_as_its_nodes() {
        let ids = [
            ("mmrepl_shop_c", 2),
            ("mmrepl_shop_c-again", 7),
            ("mmrepl_shop_c-large", 8),
            ("mmrepl_shop_c-2", 9),
        ];
        let ids = ids.map(|(name, id)| (name.to_owned(), id)).into();
        let ends = (node("c"), node("m"));
        let nodes = [node("c"), node("m")];
        let origins = Origins::of_server(&"shop".parse().unwrap(), &nodes, ends, &ids);
        assert_eq!(origins.guard().unwrap().again, vec![(7, 2), (8, 2), (9, 2)]);
        for id in [b"8", b"9"] {
            let written = written(&origins, id);
            assert_eq!(written.node, node("c"));
        }
        let large = origins.clone().holding_large().unwrap();
        assert_eq!(large.session_origin(), "mmrepl_shop_c-large");
        let second = origins.clone().holding_worker(2).unwrap();
        assert_eq!(second.session_origin(), "mmrepl_shop_c-2");
        assert!(origins.holding_worker(3).is_none());
    }

    #[test]
    fn versions_name_the_node() {
        let origins = origins("c", "m");
        let written_by = |id: &[u8]| written(&origins, id).node;
        assert_eq!(written_by(b"0"), node("m"));
        assert_eq!(written_by(b"3"), node("z"));
        assert_eq!(origins.version(None, None).unwrap(), None);
        let error = origins.version(Some(b"soon"), Some(b"3")).unwrap_err();
        assert!(matches!(error, WireError::Unreadable { .. }), "{error}");
        let kept = |micros: Option<&'static [u8]>, node: &'static [u8]| {
            let row = [micros, Some(node)].map(|value| value.map(bytes::Bytes::from_static));
            Origins::kept_version(&Outcome {
                affected: 1,
                rows: vec![row.to_vec()],
            })
        };
        assert_eq!(kept(Some(b"7"), b"z").unwrap().unwrap().node, node("z"));
        assert_eq!(kept(None, b"z").unwrap(), None);
        assert!(kept(Some(b"soon"), b"z").is_err() && kept(Some(b"7"), b"").is_err());
    }
}
