//! What a person asks of `init`.

use crate::ids::NodeName;

/// What the command line asks of `init`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InitOptions {
    /// Only say what would be done.
    pub dry_run: bool,
    /// Take the nodes' rows as equal without looking.
    pub assume_identical: bool,
    /// A node that was dropped and is set up again.
    pub rejoin: Option<NodeName>,
    /// The node whose rows replace those of all others.
    pub copy_from: Option<NodeName>,
}
