//! Asks everybody about every link: the daemons, and for a link whose daemon does not answer its
//! checkpoint and both servers. Everybody is asked at once, with a limit in time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;
use tokio_postgres::Client;

use super::cluster::{Evidence, SourceFacts, TargetFacts, from_evidence};
use super::model::{ClusterStatus, LinkStatus, SlotStatus};
use crate::admin::client::{ClientError, Peer, ask};
use crate::catalog::CatalogError;
use crate::catalog::init_session;
use crate::catalog::link_control::read_paused;
use crate::catalog::position::{Position, read_positions};
use crate::catalog::slots::slot_state;
use crate::catalog::wal;
use crate::checkpoint::{Checkpoint, Peek, peek};
use crate::commit_time::CommitTime;
use crate::config::{Config, Node};
use crate::error::Retryable;
use crate::ids::{ClusterName, LinkName, NodeName, slot_name};
use crate::lineage::gather::{read_pair, recall};
use crate::lineage::{Pair, judge as judge_pair};
use crate::lsn::Lsn;
use crate::wire::control;

/// A daemon answers from memory.
const DAEMON_TIMEOUT: Duration = Duration::from_secs(2);
/// Connecting to a server and a handful of catalog queries.
const SERVER_TIMEOUT: Duration = Duration::from_secs(3);
/// Where daemons keep their checkpoints when nobody says otherwise.
const DATA_DIR_DEFAULT: &str = "/var/lib/mmrepl";

/// The table or the schema does not exist (manual appendix A).
const NOT_SET_UP: [&str; 2] = ["42P01", "3F000"];

/// The status of every link of `config`.
///
/// `data_dir` is a daemon's data directory on this machine, beside the default places.
pub async fn gather(config: &Config, data_dir: Option<PathBuf>) -> ClusterStatus {
    let daemons = join_all(
        config
            .nodes
            .iter()
            .map(|node| ask_daemon(&config.cluster, node)),
    )
    .await;
    let mut told: Vec<LinkStatus> = Vec::new();
    let mut nodes = Vec::new();
    let mut silent: BTreeMap<NodeName, Silence> = BTreeMap::new();
    for (node, daemon) in config.nodes.iter().zip(daemons) {
        match daemon {
            Ok(status) => {
                told.extend(status.links);
                nodes.extend(status.nodes);
            }
            Err(silence) => drop(silent.insert(node.name.clone(), silence)),
        }
    }
    let untold = config
        .links()
        .into_iter()
        .filter(|link| !told.iter().any(|s| s.link() == *link));
    let untold: Vec<LinkName> = untold.collect();
    if !untold.is_empty() {
        told.extend(look_around(config, data_dir, &untold, &silent).await);
    }
    let find = |link: LinkName| told.iter().find(|status| status.link() == link).cloned();
    let links = config.links().into_iter().filter_map(find).collect();
    ClusterStatus {
        cluster: config.cluster.clone(),
        at: CommitTime::now(),
        links,
        nodes,
    }
}

/// A daemon that told nothing.
#[derive(Clone, Debug)]
struct Silence {
    /// Why, and what to do.
    words: String,
    /// It, or something between, takes connections and says nothing: it may run or hang.
    hangs: bool,
}

async fn ask_daemon(cluster: &ClusterName, node: &Node) -> Result<ClusterStatus, Silence> {
    let peer = Peer::of(node).await;
    let peer = peer.map_err(|error| Silence {
        words: sentence(&error),
        hangs: false,
    })?;
    ask(&peer, cluster, DAEMON_TIMEOUT)
        .await
        .map_err(|error| Silence {
            words: silence(node, &error),
            hangs: matches!(
                error,
                ClientError::Timeout { .. } | ClientError::Broken { .. }
            ),
        })
}

/// Why `node`'s daemon could not be asked, and what to do.
pub fn silence(node: &Node, error: &ClientError) -> String {
    let Node { name, admin, .. } = node;
    match error {
        ClientError::Unreachable { .. } if admin.ip().is_loopback() => format!(
            "the daemon of {name} does not answer at {admin}: start it with `mmrepl run --node {name}`, or, where it runs on another host (a loopback address is of one host alone), give {name} an admin address that this host reaches, and an admin_token_file"
        ),
        ClientError::Unreachable { .. } => format!(
            "the daemon of {name} does not answer at {admin}: start it with `mmrepl run --node {name}`"
        ),
        ClientError::Timeout { .. } | ClientError::Broken { .. } => format!(
            "the daemon of {name} does not answer at {admin} in time: see whether it hangs or is out of reach"
        ),
        ClientError::Refused { .. } => {
            format!("the daemon of {name} refuses to answer at {admin}: {error}")
        }
        ClientError::NotADaemon { .. } | ClientError::OtherNode { .. } => error.to_string(),
    }
}

/// An error with its causes, which error types print one level at a time.
pub fn sentence(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// The links that no daemon told about, by the evidence of servers and checkpoints.
async fn look_around(
    config: &Config,
    data_dir: Option<PathBuf>,
    untold: &[LinkName],
    silent: &BTreeMap<NodeName, Silence>,
) -> Vec<LinkStatus> {
    let sources: Vec<&NodeName> = untold.iter().map(|link| &link.from).collect();
    let concerned = |node: &&Node| {
        untold
            .iter()
            .any(|l| l.from == node.name || l.to == node.name)
    };
    let servers = config.nodes.iter().filter(concerned).map(|node| async {
        let links: Vec<_> = untold
            .iter()
            .filter(|link| link.from == node.name)
            .collect();
        (
            node.name.clone(),
            ask_server(&config.cluster, node, &links).await,
        )
    });
    let local = look_into_stores(data_dir, sources.into_iter().cloned().collect());
    let local = local.await;
    let pairs = join_all(untold.iter().map(|link| ask_pair(config, link, &local)));
    let (servers, pairs) = tokio::join!(join_all(servers), pairs);
    let servers: BTreeMap<NodeName, Result<ServerFacts, String>> = servers.into_iter().collect();
    let now = CommitTime::now();
    let judge = |(link, pair): (&LinkName, Option<(Pair, bool)>)| {
        let daemon = silent.get(&link.from).cloned().unwrap_or_else(|| Silence {
            words: format!(
                "the daemon of {} runs with another configuration, without this link: start it again",
                link.from
            ),
            hangs: false,
        });
        let mut evidence = evidence(link, daemon, &servers, &local);
        if let Some((pair, init_at_work)) = pair {
            evidence.finding = judge_pair(&pair).err().map(|finding| *finding);
            evidence.init_at_work = init_at_work;
        }
        from_evidence(link, &evidence, now)
    };
    untold.iter().zip(pairs).map(judge).collect()
}

/// The witnesses of both servers about the link, where both answer, with what the daemons of this
/// machine remember, and whether `init` was at work when they were asked.
async fn ask_pair(config: &Config, link: &LinkName, local: &Stores) -> Option<(Pair, bool)> {
    let name = format!("mmrepl {} status", config.cluster);
    let (from, to) = (config.node(&link.from).ok()?, config.node(&link.to).ok()?);
    let questions = async {
        let (source, target) = tokio::join!(control(&from.dsn, &name), control(&to.dsn, &name));
        let (source, target) = (source.ok()?, target.ok()?);
        // Who cannot be asked, and why, is told by the other questions.
        let init_is_there = || init_session::is_there(&target, &config.cluster);
        let before = init_is_there().await.ok()?;
        let pair = read_pair(&config.cluster, link, (&source, &target)).await;
        let mut pair = pair.ok()?;
        let back = LinkName {
            from: link.to.clone(),
            to: link.from.clone(),
        };
        for (link, facts, source) in [
            (link, &mut pair.forward, &source),
            (&back, &mut pair.backward, &target),
        ] {
            let Some(kept) = local.checkpoints.get(link) else {
                continue;
            };
            // Where this one witness cannot be heard, the others still say what they know.
            match recall(source, kept).await {
                Ok(known) => facts.known.push(known),
                Err(error) => tracing::debug!(%link, %error, "a kept position tells nothing"),
            }
        }
        let init_at_work = before || init_is_there().await.ok()?;
        Some((pair, init_at_work))
    };
    tokio::time::timeout(SERVER_TIMEOUT, questions).await.ok()?
}

fn evidence(
    link: &LinkName,
    daemon: Silence,
    servers: &BTreeMap<NodeName, Result<ServerFacts, String>>,
    local: &Stores,
) -> Evidence {
    let server = |node: &NodeName| {
        servers
            .get(node)
            .map_or(Err("it was not asked".to_owned()), |facts| {
                facts.as_ref().map_err(Clone::clone)
            })
    };
    let source = server(&link.from).and_then(|facts| {
        facts
            .links
            .get(link)
            .cloned()
            .ok_or_else(|| "it was not asked".to_owned())
    });
    let target = server(&link.to).map(|facts| {
        let position = facts
            .positions
            .iter()
            .find(|position| position.source == link.from);
        position.map(|position| TargetFacts {
            applied: position.end_lsn,
            commit_time: position.commit_time,
        })
    });
    let hangs = daemon.hangs;
    let daemon = match local.held.get(&link.from) {
        Some(holder) => format!("{} ({holder})", daemon.words),
        None => daemon.words,
    };
    Evidence {
        daemon,
        hangs,
        checkpoint: local.checkpoints.get(link).cloned(),
        source,
        target,
        finding: None,
        init_at_work: false,
    }
}

/// What one server says.
struct ServerFacts {
    links: BTreeMap<LinkName, SourceFacts>,
    positions: Vec<Position>,
}

/// Asks `node`'s server about the links that start there and the positions it holds.
async fn ask_server(
    cluster: &ClusterName,
    node: &Node,
    links: &[&LinkName],
) -> Result<ServerFacts, String> {
    let questions = async {
        let name = format!("mmrepl {cluster} status");
        let client = control(&node.dsn, &name)
            .await
            .map_err(|error| sentence(&error))?;
        server_facts(cluster, &client, links)
            .await
            .map_err(|error| sentence(&error))
    };
    let answer = tokio::time::timeout(SERVER_TIMEOUT, questions).await;
    answer.unwrap_or_else(|_| {
        Err(format!(
            "{} does not answer within 3 s",
            node.dsn.describe()
        ))
    })
}

async fn server_facts(
    cluster: &ClusterName,
    client: &Client,
    links: &[&LinkName],
) -> Result<ServerFacts, CatalogError> {
    let current = wal::flushed(client).await?;
    let mut facts = BTreeMap::new();
    for &link in links {
        let name = slot_name(cluster, &link.to);
        let slot = slot_state(client, &name).await?;
        let sent = slot.as_ref().and_then(|slot| slot.sent);
        let slot = slot.map(|slot| {
            let status = SlotStatus {
                name: name.clone(),
                active: slot.active_pid.is_some(),
                retained_bytes: slot.retained_bytes,
                wal_status: if slot.is_lost() {
                    "lost".to_owned()
                } else {
                    slot.wal_status
                },
            };
            (status, slot.confirmed_flush.unwrap_or(Lsn::ZERO))
        });
        let paused = or_not_set_up(read_paused(client, link).await)?;
        facts.insert(
            link.clone(),
            SourceFacts {
                current,
                sent: sent.unwrap_or(Lsn::ZERO),
                slot,
                paused,
            },
        );
    }
    let positions = or_not_set_up(read_positions(client).await)?;
    Ok(ServerFacts {
        links: facts,
        positions,
    })
}

/// A server without mmrepl's tables has nothing to say, which is no failure to ask.
fn or_not_set_up<T: Default>(answer: Result<T, CatalogError>) -> Result<T, CatalogError> {
    match answer {
        Err(error)
            if error
                .sqlstate()
                .is_some_and(|state| NOT_SET_UP.contains(&state)) =>
        {
            Ok(T::default())
        }
        answer => answer,
    }
}

/// What the data directories on this machine hold.
#[derive(Default)]
struct Stores {
    checkpoints: BTreeMap<LinkName, Checkpoint>,
    /// Nodes whose store is held by a process, in words.
    held: BTreeMap<NodeName, String>,
}

async fn look_into_stores(data_dir: Option<PathBuf>, nodes: Vec<NodeName>) -> Stores {
    let look = tokio::task::spawn_blocking(move || {
        let mut stores = Stores::default();
        for node in nodes {
            let default = PathBuf::from(DATA_DIR_DEFAULT).join(node.as_str());
            for dir in data_dir.iter().chain([&default]) {
                stores.look(&node, dir);
            }
        }
        stores
    });
    // A panic while reading leaves the servers' word alone, as if there were no store.
    look.await.unwrap_or_default()
}

impl Stores {
    fn look(&mut self, node: &NodeName, dir: &std::path::Path) {
        match peek(dir) {
            Ok(Peek::Found(found)) => {
                self.checkpoints
                    .extend(found.into_iter().filter(|(link, _)| link.from == *node));
            }
            // A directory of another name may be that of another node's daemon.
            Ok(Peek::Locked { pid: Some(pid) }) if dir.ends_with(node.as_str()) => {
                let words = format!("process {pid} holds {}", dir.display());
                self.held.insert(node.clone(), words);
            }
            // A store that cannot be read is as good as none: the servers know the truth.
            Ok(Peek::Absent | Peek::Locked { .. }) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
