//! What a daemon tidies up on its own node's server: tombstones that nobody needs any more.
//!
//! A tombstone keeps a change that is older than its delete, and arrives later, from bringing the
//! row back. It may go once no such change can arrive. Clocks cannot tell that: a clock may have
//! been set back, and a commit time that has passed says nothing about what is still under way.
//! WAL positions can, and they are rows in `mmrepl.apply_position`, so nobody's word is needed:
//!
//! 1. Everything that is a tombstone here now belongs to a transaction that has ended: its number
//!    is below the oldest one still running. *After* that is read, a mark is written into the WAL
//!    of every node.
//! 2. Once every node has applied every other node's mark, every node has seen those deletes,
//!    for each was in some node's WAL before that node's mark.
//! 3. *After* that, every node is marked again. Once this node has applied all the second marks,
//!    whatever still arrives was committed by somebody who had seen the deletes. By the clock rule
//!    (see `conflict`) it is newer than they are and wins over their tombstones anyway. They go.
//!
//! A mark is a transaction with nothing but a logical message. Links pass it on like any other, so
//! the position of an idle peer moves past it as soon as the peer's links run: idle nodes do not
//! keep tombstones alive. A peer that is down, paused or cut off does, however long it takes, and
//! the status says so; its return is what the tombstones are for. So a peer cannot be away for too
//! long. The price is the room the tombstones take meanwhile: a row of about 100 bytes per delete.
//!
//! The retention comes on top and is for people: it keeps the memory of deletes for a while. An
//! idle cluster without expired tombstones is asked nothing but one question per period here.
//!
//! The times of rows that were applied together (`apply::source_times`) are needed as long as
//! something may arrive that was written between them, which is the same question. Nobody else
//! wants them, so they go with the next sweep. So do the versions of rewritten rows
//! (`apply::rewrites`), and the memory of a table's earlier file.
//!
//! WAL positions prove something only within one history. A node that was restored, failed over or
//! replaced during a sweep shows by its system identifier, its timeline or an end of WAL that lies
//! before its mark, and the sweep is given up. Marks have to be ahead of all positions when they
//! are made, so a position from a lost history cannot stand in for a new one.

pub mod inspection;
mod questions;
pub mod returns;
mod sweep;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::catalog::CatalogError;
use crate::commit_time::CommitTime;
use crate::config::{Config, Node};
use crate::error::Retryable;
use crate::ids::{ClusterName, NodeName};
use crate::status::node::NodeMonitor;
use crate::wire::{WireError, control};
use sweep::{Looks, Marks, Step, Sweep};

/// How often the node's tombstones are looked at; with a short retention, more often.
pub const PERIOD_MAX: Duration = Duration::from_secs(60);
/// How often at most.
const PERIOD_MIN: Duration = Duration::from_secs(1);
/// How often the cluster is looked at while a sweep waits for its marks to be applied.
const SWEEP_PERIOD: Duration = Duration::from_secs(5);
/// Most tombstones in one deleting transaction: a few milliseconds.
pub const BATCH_ROWS_MAX: i64 = 1_000;
/// Most tables' times of rows that were applied together, in one such transaction: a row is large.
const BATCH_TIMES_MAX: i64 = 100;
/// Between two such transactions, so that pruning millions does not crowd out anybody.
const BATCH_PAUSE: Duration = Duration::from_millis(20);
/// How long one server may take to answer one question, connecting included.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// SQLSTATEs of a server on which `init` was not run: no such schema, no such table.
const NOT_SET_UP: [&str; 2] = ["3F000", "42P01"];

/// Why a server could not be asked.
#[derive(Debug, thiserror::Error)]
enum TidyError {
    /// It could not be reached.
    #[error("{node} cannot be reached: {source}")]
    Reach { node: NodeName, source: WireError },
    /// It refused.
    #[error("{node}: {source}")]
    Ask {
        node: NodeName,
        source: CatalogError,
    },
}

impl TidyError {
    fn is_not_set_up(&self) -> bool {
        let Self::Ask { source, .. } = self else {
            return false;
        };
        source
            .sqlstate()
            .is_some_and(|state| NOT_SET_UP.contains(&state))
    }
}

/// Keeps the server of `own` tidy until `stop`.
pub async fn run(config: Config, own: Node, monitor: NodeMonitor, stop: CancellationToken) {
    let retention = config.conflict.tombstones;
    let mut housekeeper = Housekeeper {
        cluster: config.cluster,
        own: own.name,
        nodes: config.nodes,
        retention,
        monitor,
        clients: BTreeMap::new(),
        sweep: None,
    };
    let period = (retention / 10).clamp(PERIOD_MIN, PERIOD_MAX);
    let pause = period.min(SWEEP_PERIOD);
    let tidying = async {
        // By the first look the links have had time to connect.
        sleep(pause).await;
        loop {
            housekeeper.tidy(pause).await;
            sleep(period).await;
        }
    };
    stop.run_until_cancelled(tidying).await;
}

/// What a look at the cluster leads to.
enum Next {
    /// The sweep went on; there may be more to do at once.
    Again,
    /// Somebody has to apply something first.
    Wait,
    /// Nothing to do, or it cannot be done, until the next period.
    Rest,
}

struct Housekeeper {
    cluster: ClusterName,
    own: NodeName,
    nodes: Vec<Node>,
    retention: Duration,
    monitor: NodeMonitor,
    /// Open while there is something to do.
    clients: BTreeMap<NodeName, Client>,
    sweep: Option<Sweep>,
}

impl Housekeeper {
    /// Sweeps as far as it goes.
    async fn tidy(&mut self, pause: Duration) {
        loop {
            match self.round().await {
                Ok(Next::Again) => {}
                Ok(Next::Wait) => sleep(pause).await,
                Ok(Next::Rest) => break,
                Err(error) => {
                    self.cannot(&error);
                    break;
                }
            }
        }
        self.clients.clear();
    }

    /// A node that is away is normal life and shows in the status; it is logged when it changes.
    fn cannot(&self, error: &TidyError) {
        if error.is_not_set_up() {
            return;
        }
        let reason = error.to_string();
        if self.monitor.set_waits_for(Some(reason)) {
            tracing::warn!(%error, "tombstones cannot be pruned for now");
        }
    }

    async fn round(&mut self) -> Result<Next, TidyError> {
        let own = self.own.clone();
        let retention = self.retention;
        let kept = self
            .ask(&own, async |client| {
                questions::kept(client, retention).await
            })
            .await?;
        self.monitor.set_tombstones(kept.count, kept.oldest);
        if !kept.expired {
            // What a sweep under way would allow to go is gone: somebody pruned by hand.
            self.sweep = None;
            self.monitor.set_waits_for(None);
            return Ok(Next::Rest);
        }
        match self.sweep.take() {
            None => self.begin(kept.ended_before).await,
            Some(sweep) => self.go_on(sweep).await,
        }
    }

    async fn begin(&mut self, before: i64) -> Result<Next, TidyError> {
        let looks = self.look().await?;
        let marks = self.mark().await?;
        match Sweep::begin(self.own.clone(), before, &looks, marks) {
            Ok(sweep) => {
                self.sweep = Some(sweep);
                Ok(Next::Again)
            }
            Err(why) => Ok(self.give_up(&why)),
        }
    }

    async fn go_on(&mut self, mut sweep: Sweep) -> Result<Next, TidyError> {
        let looks = match self.look().await {
            Ok(looks) => looks,
            Err(error) => {
                self.sweep = Some(sweep);
                return Err(error);
            }
        };
        match sweep.step(&looks) {
            Step::Waits(reason) => {
                self.monitor.set_waits_for(Some(reason));
                self.sweep = Some(sweep);
                Ok(Next::Wait)
            }
            Step::MarkAgain => {
                // A failure here begins the sweep anew, which is always right.
                let marks = self.mark().await?;
                if let Err(why) = sweep.mark_again(&looks, marks) {
                    return Ok(self.give_up(&why));
                }
                self.sweep = Some(sweep);
                Ok(Next::Again)
            }
            Step::Done => {
                self.prune(sweep.before()).await?;
                Ok(Next::Rest)
            }
            Step::Void(why) => Ok(self.give_up(&why)),
        }
    }

    fn give_up(&mut self, why: &str) -> Next {
        tracing::info!(node = %self.own, why, "pruning tombstones begins anew");
        self.monitor.set_waits_for(Some(why.to_owned()));
        self.sweep = None;
        Next::Rest
    }

    async fn look(&mut self) -> Result<Looks, TidyError> {
        let mut looks = Looks::new();
        for node in self.names() {
            let look = self.ask(&node, questions::look).await?;
            looks.insert(node, look);
        }
        Ok(looks)
    }

    async fn mark(&mut self) -> Result<Marks, TidyError> {
        let mut marks = Marks::new();
        for node in self.names() {
            let mark = self.ask(&node, crate::catalog::wal::mark).await?;
            marks.insert(node, mark);
        }
        Ok(marks)
    }

    /// Forgets when rows that were applied together were written (`apply::source_times`).
    async fn prune_times(&mut self, before: i64) -> Result<u64, TidyError> {
        let own = self.own.clone();
        let mut all = 0;
        loop {
            let prune = async |client: &Client| {
                questions::prune_times(client, before, BATCH_TIMES_MAX).await
            };
            let pruned = self.ask(&own, prune).await?;
            if pruned == 0 {
                return Ok(all);
            }
            all += pruned;
            sleep(BATCH_PAUSE).await;
        }
    }

    async fn prune(&mut self, before: i64) -> Result<(), TidyError> {
        let times = self.prune_times(before).await?;
        let here = self.own.clone();
        let forget = async |client: &Client| questions::forget_rewrites(client, before).await;
        self.ask(&here, forget).await?;
        let (own, retention) = (self.own.clone(), self.retention);
        let mut all = 0;
        loop {
            let prune = async |client: &Client| {
                questions::prune(client, retention, before, BATCH_ROWS_MAX).await
            };
            let pruned = self.ask(&own, prune).await?;
            if pruned == 0 {
                break;
            }
            all += pruned;
            self.monitor.add_pruned(pruned, CommitTime::now());
            sleep(BATCH_PAUSE).await;
        }
        let kept = async |client: &Client| questions::kept(client, retention).await;
        let kept = self.ask(&own, kept).await?;
        self.monitor.set_tombstones(kept.count, kept.oldest);
        let late = || format!("a transaction on {own} was open for so long that they are not old");
        self.monitor
            .set_waits_for((all + times == 0 && kept.expired).then(late));
        if all > 0 {
            tracing::info!(node = %own, tombstones = all, "pruned what every node has seen");
        }
        Ok(())
    }

    fn names(&self) -> Vec<NodeName> {
        self.nodes.iter().map(|node| node.name.clone()).collect()
    }

    /// Asks one server one question within the limit, connecting first where needed.
    async fn ask<T>(
        &mut self,
        node: &NodeName,
        question: impl AsyncFnOnce(&Client) -> Result<T, CatalogError>,
    ) -> Result<T, TidyError> {
        let answer = timeout(ANSWER_LIMIT, self.connected(node, question)).await;
        let answer = answer.unwrap_or_else(|_| {
            let (what, after) = ("an answer of the server".to_owned(), ANSWER_LIMIT);
            let (node, source) = (node.clone(), WireError::Timeout { what, after });
            Err(TidyError::Reach { node, source })
        });
        if answer.is_err() {
            self.clients.remove(node);
        }
        answer
    }

    async fn connected<T>(
        &mut self,
        node: &NodeName,
        question: impl AsyncFnOnce(&Client) -> Result<T, CatalogError>,
    ) -> Result<T, TidyError> {
        if !self.clients.contains_key(node) {
            let client = self.connect(node).await?;
            self.clients.insert(node.clone(), client);
        }
        let client = &self.clients[node];
        question(client).await.map_err(|source| TidyError::Ask {
            node: node.clone(),
            source,
        })
    }

    async fn connect(&self, name: &NodeName) -> Result<Client, TidyError> {
        let node = self.nodes.iter().find(|node| node.name == *name);
        let node = node.expect("only nodes of the configuration are asked");
        let application = format!("mmrepl {} {} housekeeping", self.cluster, self.own);
        control(&node.dsn, &application)
            .await
            .map_err(|source| TidyError::Reach {
                node: name.clone(),
                source,
            })
    }
}
