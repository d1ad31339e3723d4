//! Comparing one table on all nodes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Instant;

use futures_util::future::try_join_all;
use tokio_postgres::Client;

use super::columns::{Compared, Manner};
use super::error::{AskError, VerifyError};
use super::fence::Post;
use super::judge::judge;
use super::options::Options;
use super::peer::{Peer, TableId, connect};
use super::repair::Repairer;
use super::report::{Repair, TableReport};
use super::scan::{Groups, Side, Suspect, group_count, layout};
use super::{show, sql};
use crate::catalog::CatalogError;
use crate::catalog::names::readable;
use crate::catalog::position_columns::with_positions;
use crate::catalog::table::{Table, shared_columns};
use crate::config::Config;
use crate::wire::RowExt;

/// Rows of groups that differ that are held at once, of each node.
const ROWS_AT_ONCE: i64 = 500_000;
/// Suspects that are judged at once.
const SUSPECTS_AT_ONCE: usize = 20_000;
/// A table of which so many rows differ is not counted on.
const DIFFERENT_MAX: u64 = 100_000;

/// What every table is compared with.
pub(super) struct Work<'a> {
    pub(super) config: &'a Config,
    pub(super) options: &'a Options,
    pub(super) manner: Manner,
    pub(super) peers: &'a [Peer<'a>],
    /// Mends what differs, where that is asked for.
    pub(super) repairer: Option<&'a Repairer>,
}

impl Work<'_> {
    /// Compares one table. A node that refuses a question about it does not end the others.
    pub(super) async fn table(
        &self,
        id: &TableId,
        sessions: &mut Option<Vec<Client>>,
    ) -> Result<TableReport, VerifyError> {
        let began = Instant::now();
        let mut report = TableReport {
            table: readable(&id.0, &id.1),
            ..TableReport::default()
        };
        let missing = self.peers.iter().find(|peer| peer.table(id).is_none());
        if let Some(peer) = missing {
            report.error = Some(format!("{} has no such table", peer.node.name));
        } else {
            let clients = match sessions {
                Some(clients) => clients,
                None => sessions.insert(self.open().await?),
            };
            match self.compare(id, clients, &mut report).await {
                Ok(()) => {}
                Err(VerifyError::Ask(error)) => report.error = Some(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        report.seconds = began.elapsed().as_secs_f64();
        Ok(report)
    }

    async fn open(&self) -> Result<Vec<Client>, VerifyError> {
        let mut clients = Vec::new();
        for peer in self.peers {
            let client = connect(self.config, peer.node).await?;
            let set = client.batch_execute(sql::SETTINGS).await;
            set.map_err(AskError::of(&peer.node.name, "limit a session"))?;
            clients.push(client);
        }
        Ok(clients)
    }

    async fn compare(
        &self,
        id: &TableId,
        clients: &[Client],
        report: &mut TableReport,
    ) -> Result<(), VerifyError> {
        let tables: Vec<&Table> = self
            .peers
            .iter()
            .filter_map(|peer| peer.table(id))
            .collect();
        let columns = shared_columns(&tables);
        let mut positions: Vec<HashSet<String>> = Vec::new();
        for (peer, table) in self.peers.iter().zip(&tables) {
            let found = with_positions(&peer.client, table).await;
            positions.push(found.map_err(|source| refused(peer, source))?);
        }
        let (mut sides, mut known) = (Vec::new(), 0);
        for (place, peer) in self.peers.iter().enumerate() {
            let compared = Compared {
                table: tables[place],
                columns: &columns,
                positions: &positions[place],
                manner: self.manner,
            };
            let (client, share) = (&clients[place], self.options.share);
            let layout = layout(client, &compared, share).await;
            let layout = layout.map_err(|source| refused(peer, source))?;
            known = known.max(layout.rows);
            sides.push(Side {
                node: &peer.node.name,
                client,
                compared,
                parts: layout.parts,
                share,
            });
        }
        self.count_known(id, report).await?;
        self.rows(&sides, group_count(known), report).await
    }

    /// Compares the rows of all sides.
    async fn rows(
        &self,
        sides: &[Side<'_>],
        count: u32,
        report: &mut TableReport,
    ) -> Result<(), VerifyError> {
        let groups = try_join_all(sides.iter().map(|side| side.groups(count))).await?;
        for (side, groups) in sides.iter().zip(&groups) {
            let rows = groups.values().map(|(rows, _)| rows).sum();
            report.rows.insert(side.node.clone(), rows);
        }
        let posts: Vec<Post<'_>> = self.peers.iter().map(Peer::post).collect();
        let mut found: Vec<(Suspect, Option<Repair>)> = Vec::new();
        let batches = batches(&groups);
        let last = batches.len().saturating_sub(1);
        for (at, chosen) in batches.iter().enumerate() {
            let suspects = suspects(sides, (chosen, count)).await?;
            for chunk in suspects.chunks(SUSPECTS_AT_ONCE) {
                let mut judged = judge(sides, &posts, chunk.to_vec()).await?;
                if report.pending > 0 {
                    leave_out_waiting(sides, &mut judged.different).await?;
                }
                let different = self
                    .mended((sides, &posts), judged.different, report)
                    .await?;
                report.different += different.len() as u64;
                report.busy += judged.busy;
                let room = self.options.limit.saturating_sub(found.len());
                found.extend(different.into_iter().take(room));
            }
            if report.different >= DIFFERENT_MAX && at < last && self.repairer.is_none() {
                report.at_least = true;
                break;
            }
        }
        report.differences = show::differences(sides, found).await?;
        Ok(())
    }

    /// Mends what differs, where that is asked for; gives what still does.
    async fn mended(
        &self,
        (sides, posts): (&[Side<'_>], &[Post<'_>]),
        different: Vec<Suspect>,
        report: &mut TableReport,
    ) -> Result<Vec<(Suspect, Option<Repair>)>, VerifyError> {
        let Some(repairer) = self.repairer.filter(|_| !different.is_empty()) else {
            return Ok(different
                .into_iter()
                .map(|suspect| (suspect, None))
                .collect());
        };
        let outcome = repairer.mend(sides, posts, different).await?;
        report.repaired += outcome.mended;
        report.busy += outcome.busy;
        let left = outcome.left.into_iter();
        Ok(left.map(|(suspect, told)| (suspect, Some(told))).collect())
    }

    /// Rows that wait for a person, or are kept aside: those of the node that knows of most.
    async fn count_known(&self, id: &TableId, report: &mut TableReport) -> Result<(), VerifyError> {
        const SQL: &str = "
            select (select pg_catalog.count(*) from mmrepl.conflict c
                    where c.schema_name = $1 and c.table_name = $2
                      and c.outcome = 'pending' and c.resolved_at is null),
                   (select pg_catalog.count(*) from mmrepl.shadow s where s.relation = $3)";
        for peer in self.peers {
            let oid = peer.table(id).map_or(0, |table| table.oid);
            let row = peer.client.query_one(SQL, &[&id.0, &id.1, &oid]).await;
            let row = row.map_err(AskError::of(&peer.node.name, "count rows that wait"))?;
            let unread = |source: crate::wire::Unread| refused(peer, source.into());
            let (pending, aside): (i64, i64) =
                (row.read(0).map_err(unread)?, row.read(1).map_err(unread)?);
            report.pending = report.pending.max(pending.unsigned_abs());
            report.kept_aside = report.kept_aside.max(aside.unsigned_abs());
        }
        Ok(())
    }
}

fn refused(peer: &Peer<'_>, source: CatalogError) -> AskError {
    AskError {
        node: peer.node.name.clone(),
        source,
    }
}

/// What waits for a person on some node is no difference.
async fn leave_out_waiting(
    sides: &[Side<'_>],
    different: &mut Vec<Suspect>,
) -> Result<(), AskError> {
    let mut waiting = HashSet::new();
    for side in sides {
        waiting.extend(side.waiting(different).await?);
    }
    let mut place = 0..;
    different.retain(|_| place.next().is_none_or(|at| !waiting.contains(&at)));
    Ok(())
}

/// The groups that are not the same on all nodes, in batches whose rows are held at once. Pure.
fn batches(groups: &[Groups]) -> Vec<Vec<i32>> {
    let all: BTreeSet<i32> = groups.iter().flat_map(HashMap::keys).copied().collect();
    let differs = |group: &i32| {
        let first = groups.first().map(|side| side.get(group));
        groups.iter().any(|side| Some(side.get(group)) != first)
    };
    let size = |group: i32| {
        let sizes = groups
            .iter()
            .map(|side| side.get(&group).map_or(0, |(rows, _)| *rows));
        sizes.max().unwrap_or_default()
    };
    let (mut batches, mut sum) = (Vec::<Vec<i32>>::new(), 0);
    for group in all.into_iter().filter(differs) {
        let rows = size(group);
        match batches.last_mut() {
            Some(batch) if sum + rows <= ROWS_AT_ONCE => {
                batch.push(group);
                sum += rows;
            }
            _ => {
                batches.push(vec![group]);
                sum = rows;
            }
        }
    }
    batches
}

/// What the nodes have of one key.
struct Found {
    key: Vec<String>,
    row: i64,
    /// By node: how many rows, and the sum of their hashes.
    sides: Vec<(u32, i64)>,
}

/// The rows of these groups that are not the same on all nodes, as they were when each was read.
async fn suspects(
    sides: &[Side<'_>],
    (chosen, count): (&[i32], u32),
) -> Result<Vec<Suspect>, VerifyError> {
    let mut found: HashMap<i64, Found> = HashMap::new();
    for (place, side) in sides.iter().enumerate() {
        let take = |key_hash: i64, row: i64, key: Vec<String>| {
            let found = found.entry(key_hash).or_insert_with(|| Found {
                key,
                row,
                sides: vec![(0, 0); sides.len()],
            });
            let (rows, sum) = &mut found.sides[place];
            (*rows, *sum) = (*rows + 1, sum.wrapping_add(row));
        };
        side.rows((chosen, count), take).await?;
    }
    let differs = |found: &Found| found.sides.iter().any(|side| *side != found.sides[0]);
    let suspect = |found: Found| Suspect {
        key: found.key,
        hash: found.row,
        counts: Vec::new(),
    };
    Ok(found.into_values().filter(differs).map(suspect).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_differ_come_in_batches() {
        let side = |list: &[(i32, i64, i128)]| -> Groups {
            list.iter()
                .map(|(group, rows, sum)| (*group, (*rows, *sum)))
                .collect()
        };
        let a = side(&[(1, 5, 1), (2, 5, 2), (3, ROWS_AT_ONCE, 3), (4, 1, 4)]);
        assert!(batches(&[a.clone(), a.clone()]).is_empty());
        let b = side(&[(1, 5, 9), (3, ROWS_AT_ONCE, 9), (4, 1, 4), (9, 1, 1)]);
        assert_eq!(batches(&[a, b]), [vec![1, 2], vec![3], vec![9]]);
    }
}
