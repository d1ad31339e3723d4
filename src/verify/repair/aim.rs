//! What a repair was asked for.

use crate::apply::ApplyError;
use crate::ids::NodeName;
use crate::verify::error::VerifyError;

/// What a repair was asked for.
#[derive(Debug)]
pub(super) struct Aim {
    /// The nodes, in the order in which everything is kept by node.
    pub(super) nodes: Vec<NodeName>,
    /// The node that a person has named, by its place.
    pub(super) from: Option<usize>,
    /// Nothing is written.
    pub(super) dry_run: bool,
}

/// A node that cannot be written to.
pub(super) fn failed(node: &NodeName) -> impl FnOnce(ApplyError) -> VerifyError {
    let node = node.clone();
    move |source| VerifyError::Mend {
        node,
        source: Box::new(source),
    }
}
