//! A node whose database stands on another server, with all that `init` made in it. Pure.
//!
//! `pg_upgrade` moves a database so: the new server has an identifier, a log and commit times of
//! its own, so no link of the node can go on by itself. A server put back from its files keeps its
//! identifier, and what it lost shows in its positions; see [`super::links`].

use super::observe::NodeState;
use super::{InitError, InitOptions};

/// Refuses, and says what to do, unless the command line has said it.
pub(super) fn check(options: &InitOptions, states: &[NodeState]) -> Result<(), InitError> {
    if options.assume_identical || options.copy_from.is_some() {
        return Ok(());
    }
    let moved = states.iter().find_map(|state| {
        let row = state.nodes.iter().find(|row| row.here)?;
        let now = state.server.system_id.to_string();
        let moved = row.name == state.name.as_str() && row.system_id != now;
        moved.then(|| InitError::Moved {
            node: state.name.clone(),
            before: row.system_id.clone(),
            now,
        })
    });
    moved.map_or(Ok(()), Err)
}
