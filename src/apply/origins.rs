//! Which node wrote a row: from the target's replication origins to node names.

use std::collections::HashMap;

use super::sql::Guard;
use crate::commit_time::CommitTime;
use crate::conflict::Version;
use crate::ids::{NodeName, OriginId};

/// The replication origins of one target server.
#[derive(Debug, Clone)]
pub struct Origins {
    source: NodeName,
    target: NodeName,
    by_id: HashMap<OriginId, NodeName>,
}

impl Origins {
    /// `by_id` holds the cluster's origins on the target, with the node each stands for.
    pub fn new(source: NodeName, target: NodeName, by_id: HashMap<OriginId, NodeName>) -> Self {
        Self {
            source,
            target,
            by_id,
        }
    }

    /// The node whose changes this link applies.
    pub fn source(&self) -> &NodeName {
        &self.source
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
        Origins::new(node(source), node(target), by_id.into_iter().collect())
    }

    #[test]
    fn the_guard_knows_who_wins_a_tie() {
        let guard = origins("c", "m").guard().unwrap();
        assert_eq!(
            guard,
            Guard {
                origin: 2,
                stronger: vec![0, 3],
                pair: false
            }
        );
        assert_eq!(origins("c", "b").guard().unwrap().stronger, vec![3]);
        assert_eq!(origins("q", "b").guard(), None);
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
