//! Comparing the nodes' tables while they are in use (`mmrepl verify`).
//!
//! ```text
//! each node: one pass ─▶ groups of rows (count, sum of hashes)
//!   groups that differ ─▶ their rows (hash of key, hash of row)
//!     rows that differ ─▶ suspects ─▶ read, fence, read again ─▶ different, equal, or busy
//! ```
//!
//! Rows fall into groups by the hash of their key, so that groups do not depend on the order in
//! which a server sorts: no range of keys is the same under two collations. Memory is bounded by
//! the number of groups and by what `compare` holds at once, whatever a table's size. A table
//! without a key is a bag of rows: its groups are those of whole rows, and what differs is how
//! often a row is there.
//!
//! What is read from several nodes is never of one moment. So nothing counts as different before it
//! has stood still across a fence; see `judge`.
//!
//! `repair` mends what differs.

mod columns;
mod compare;
mod error;
mod fence;
mod foreign_keys;
mod judge;
mod options;
mod peer;
mod repair;
pub mod report;
mod scan;
mod show;
mod sql;

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;

use crate::config::Config;
use columns::Manner;
pub use error::{AskError, VerifyError};
pub use options::{Options, RepairOptions};
use peer::{Peer, TableId, meet};
use repair::Repairer;
use report::{Report, TableReport};

/// Hears how it goes.
pub trait Progress: Sync {
    /// A table is done.
    fn table(&self, done: &TableReport, left: usize);
}

/// Compares the cluster.
pub async fn verify(
    config: &Config,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Report, VerifyError> {
    if config.nodes.len() < 2 {
        return Err(VerifyError::OneNode);
    }
    let mut peers = Vec::new();
    for node in &config.nodes {
        peers.push(meet(config, node).await?);
    }
    let ids = chosen(&peers, &options.tables)?;
    let manner = Manner {
        exact: options.exact,
        recode: peers.iter().any(|peer| peer.encoding != peers[0].encoding),
    };
    let repairer = Repairer::open(config, options, &peers).await?;
    let work = compare::Work {
        repairer: repairer.as_ref(),
        config,
        options,
        manner,
        peers: &peers,
    };
    let next = AtomicUsize::new(0);
    let worker = async || {
        let (mut sessions, mut done) = (None, Vec::new());
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(id) = ids.get(at) else {
                return Ok::<_, VerifyError>(done);
            };
            let report = work.table(id, &mut sessions).await?;
            progress.table(&report, ids.len() - at - 1);
            done.push(report);
        }
    };
    let workers = (0..options.jobs.clamp(1, ids.len())).map(|_| worker());
    let mut tables = Vec::new();
    for done in join_all(workers).await {
        tables.extend(done?);
    }
    let foreign_keys = if options.foreign_keys {
        foreign_keys::look(&peers, &ids).await?
    } else {
        Vec::new()
    };
    let report = Report {
        equal: false,
        tables,
        foreign_keys,
    };
    Ok(report.conclude())
}

/// The tables that any node has and that are asked for, by name.
fn chosen(peers: &[Peer<'_>], patterns: &[String]) -> Result<Vec<TableId>, VerifyError> {
    let tables = peers.iter().flat_map(|peer| &peer.tables);
    let mut ids: Vec<TableId> = tables
        .map(|table| (table.schema.clone(), table.name.clone()))
        .filter(|(schema, name)| {
            let full = format!("{schema}.{name}");
            let is_meant = |pattern: &String| *pattern == full || pattern == name;
            patterns.is_empty() || patterns.iter().any(is_meant)
        })
        .collect();
    ids.sort();
    ids.dedup();
    if ids.is_empty() {
        return Err(VerifyError::NoTable(patterns.join(", ")));
    }
    Ok(ids)
}
