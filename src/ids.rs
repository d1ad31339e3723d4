//! Names and numbers that identify things, each with its own type.

use std::fmt;
use std::str::FromStr;

/// Longest node or cluster name: `mmrepl_<cluster>_<node>` must fit PostgreSQL's 63 bytes.
pub const NAME_MAX_BYTES: usize = 24;

/// The text cannot be a node or cluster name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` is not a usable name: use 1 to 24 of the characters a-z, 0-9 and _, because it becomes part of slot and origin names"
)]
pub struct BadName(String);

fn check_name(text: &str) -> Result<(), BadName> {
    let fits = (1..=NAME_MAX_BYTES).contains(&text.len());
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if fits && text.bytes().all(plain) {
        Ok(())
    } else {
        Err(BadName(text.to_owned()))
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                check_name(text)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name_type! {
    /// The stable name of a node. Ties between equal versions go to the name that sorts last.
    NodeName
}
name_type! {
    /// The name of the cluster, part of every slot and origin name.
    ClusterName
}

/// One direction of replication, `east->west`: from the node written to, to the one applied to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkName {
    /// The source node, whose daemon owns the link.
    pub from: NodeName,
    /// The target node, where the changes are applied.
    pub to: NodeName,
}

/// The text is not a link such as `east->west`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a link: write it as 'east->west', in quotes because of the shell")]
pub struct BadLink(String);

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}->{}", self.from, self.to))
    }
}

impl FromStr for LinkName {
    type Err = BadLink;

    fn from_str(text: &str) -> Result<Self, BadLink> {
        let bad = || BadLink(text.to_owned());
        let (from, to) = text.split_once("->").ok_or_else(bad)?;
        let name = |part: &str| part.trim().parse().map_err(|_| bad());
        Ok(Self {
            from: name(from)?,
            to: name(to)?,
        })
    }
}

/// The replication slot on a source server that feeds the link to `peer` (design: one per peer).
pub fn slot_name(cluster: &ClusterName, peer: &NodeName) -> String {
    format!("mmrepl_{cluster}_{peer}")
}

/// The replication origin on a target server that marks what came from `source`.
pub fn origin_name(cluster: &ClusterName, source: &NodeName) -> String {
    format!("mmrepl_{cluster}_{source}")
}

/// Name of the publication on every node.
pub const PUBLICATION: &str = "mmrepl";

/// What the names of all origins of a cluster begin with.
pub fn origin_prefix(cluster: &ClusterName) -> String {
    format!("mmrepl_{cluster}_")
}

/// The second origin that stands for `node` on a server: rows of `node` that were kept aside there
/// and return carry it, while a link's session may hold the first. No name of a node has a hyphen.
pub fn return_origin_name(cluster: &ClusterName, node: &NodeName) -> String {
    format!("mmrepl_{cluster}_{node}-again")
}

/// The third one: held by the session that applies a transaction of `node` while it is still
/// running there.
pub fn large_origin_name(cluster: &ClusterName, node: &NodeName) -> String {
    format!("mmrepl_{cluster}_{node}-large")
}

/// Most sessions that apply one link's changes at once.
pub const WORKERS_MAX: usize = 4;

/// The origin of a session beside the first that applies changes of `node`; `number` counts from 2.
pub fn worker_origin_name(cluster: &ClusterName, node: &NodeName, number: usize) -> String {
    format!("mmrepl_{cluster}_{node}-{number}")
}

/// The origins of `node` that sessions beside a link's first may hold.
pub fn origin_names_beside(cluster: &ClusterName, node: &NodeName) -> Vec<String> {
    let workers = (2..=WORKERS_MAX).map(|number| worker_origin_name(cluster, node, number));
    std::iter::once(large_origin_name(cluster, node))
        .chain(workers)
        .collect()
}

/// All origins that may stand for `node` on a server.
pub fn origin_names(cluster: &ClusterName, node: &NodeName) -> Vec<String> {
    let mut names = vec![
        origin_name(cluster, node),
        return_origin_name(cluster, node),
    ];
    names.extend(origin_names_beside(cluster, node));
    names
}

/// A server's system identifier, made by `initdb` (`IDENTIFY_SYSTEM`, manual 55.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SystemId(pub u64);

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A server's timeline, which a fail-over or a point-in-time restore raises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimelineId(pub u32);

/// A replication origin's number on one server (`pg_replication_origin.roident`); 0 is
/// "written here".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OriginId(pub u32);

impl OriginId {
    /// Written on this server by an ordinary session.
    pub const LOCAL: Self = Self(0);
}

/// A table's OID on the source, as pgoutput numbers relations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationId(pub u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_parse_and_print() {
        let link: LinkName = "east->west".parse().unwrap();
        assert_eq!((link.from.as_str(), link.to.as_str()), ("east", "west"));
        assert_eq!(link.to_string(), "east->west");
        assert!("east-west".parse::<LinkName>().is_err());
        assert!("East->west".parse::<LinkName>().is_err());
    }

    #[test]
    fn names_that_could_break_a_slot_name_are_refused() {
        for text in ["", "East", "a-b", "é", "a b", &"x".repeat(25)] {
            assert!(text.parse::<NodeName>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_longest_slot_name_fits() {
        let cluster: ClusterName = "c".repeat(NAME_MAX_BYTES).parse().unwrap();
        let node: NodeName = "n".repeat(NAME_MAX_BYTES).parse().unwrap();
        assert!(slot_name(&cluster, &node).len() < 64);
        assert!(origin_names(&cluster, &node).iter().all(|n| n.len() < 64));
    }
}
