//! Settling rows again and again until they are equal, or nothing more can be done.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::sleep;

use super::aim::{Aim, failed};
use super::bags::Bags;
use super::carry::{Round, tables};
use crate::apply::{Mender, Origins, apply_session};
use crate::catalog::slots::origins;
use crate::config::Config;
use crate::ids::NodeName;
use crate::verify::error::{AskError, VerifyError};
use crate::verify::fence::Post;
use crate::verify::judge::judge;
use crate::verify::options::Options;
use crate::verify::peer::{Peer, session_name};
use crate::verify::report::Repair;
use crate::verify::scan::{Side, Suspect};

/// How often a row that is still different is settled again.
const ROUNDS: usize = 8;
/// How long a row that is kept aside is waited for each time.
const RETURN_PAUSE: Duration = Duration::from_secs(1);
/// How long a repair waits for a row that an application has locked.
const LOCK_TIMEOUT: &str = "2s";

/// What mends rows, on all nodes.
pub(in crate::verify) struct Repairer {
    aim: Aim,
    /// One for each node. Each holds an origin that no other session may hold at once.
    menders: Mutex<Vec<Mender>>,
}

/// What tells a suspect from others: its key, or in a table without a key its hash.
type Name = (Vec<String>, i64);

fn name(suspect: &Suspect) -> Name {
    (suspect.key.clone(), suspect.hash)
}

/// What came of rows that differ.
#[derive(Debug, Default)]
pub(in crate::verify) struct Repaired {
    /// Those that still do, or would be mended, and what was to become of each.
    pub(in crate::verify) left: Vec<(Suspect, Repair)>,
    /// How many are equal now.
    pub(in crate::verify) mended: u64,
    /// How many nobody can tell about any more.
    pub(in crate::verify) busy: u64,
}

impl Repairer {
    /// Connects to all nodes.
    pub(in crate::verify) async fn open(
        config: &Config,
        options: &Options,
        peers: &[Peer<'_>],
    ) -> Result<Option<Self>, VerifyError> {
        let Some(repair) = &options.repair else {
            return Ok(None);
        };
        let nodes: Vec<NodeName> = config.nodes.iter().map(|node| node.name.clone()).collect();
        let place = |name: &NodeName| {
            config.node(name)?;
            Ok::<_, VerifyError>(nodes.iter().position(|node| node == name))
        };
        let from = repair.from.as_ref().map(place).transpose()?.flatten();
        let mut menders = Vec::new();
        for peer in peers {
            menders.push(mender(config, peer, &nodes).await?);
        }
        // Counts are judged, then written: two repairs would both add what is missing.
        if let (Some(first), Some(node)) = (menders.first_mut(), nodes.first())
            && !first.be_the_only_one().await.map_err(failed(node))?
        {
            return Err(VerifyError::AtWork { node: node.clone() });
        }
        Ok(Some(Self {
            aim: Aim {
                nodes,
                from,
                dry_run: repair.dry_run,
            },
            menders: Mutex::new(menders),
        }))
    }

    /// Mends rows that differ, and compares them again.
    pub(in crate::verify) async fn mend(
        &self,
        sides: &[Side<'_>],
        posts: &[Post<'_>],
        found: Vec<Suspect>,
    ) -> Result<Repaired, VerifyError> {
        let mut repaired = Repaired::default();
        let mut open = found;
        for _ in 0..ROUNDS {
            let told = self.round(sides, &open).await?;
            let mut told: HashMap<Name, Repair> = open.iter().map(name).zip(told).collect();
            let is_done = self.aim.dry_run || told.values().all(Repair::is_final);
            if told.values().any(|repair| repair.kept_aside) && !self.aim.dry_run {
                sleep(RETURN_PAUSE).await;
            }
            if !is_done {
                let judged = judge(sides, posts, open.clone()).await?;
                repaired.busy += judged.busy;
                repaired.mended += (open.len() - judged.different.len()) as u64 - judged.busy;
                open = judged.different;
            }
            let told = |suspect: &Suspect| Some((suspect.clone(), told.remove(&name(suspect))?));
            repaired.left = open.iter().filter_map(told).collect();
            if is_done || open.is_empty() {
                break;
            }
        }
        Ok(repaired)
    }

    /// Settles each row once.
    async fn round(
        &self,
        sides: &[Side<'_>],
        suspects: &[Suspect],
    ) -> Result<Vec<Repair>, VerifyError> {
        let mut menders = self.menders.lock().await;
        let tables = match tables(sides, &menders) {
            Ok(tables) => tables,
            // Tables that do not fit each other.
            Err(error) => {
                let repair = Repair::refused(error.to_string());
                return Ok(vec![repair; suspects.len()]);
            }
        };
        let done = if tables[0][0].has_key() {
            let mut round = Round::new(&self.aim, sides, (&mut menders, &tables));
            round.run(suspects).await
        } else {
            let mut bags = Bags {
                aim: &self.aim,
                sides,
                menders: &mut menders,
                tables: &tables,
            };
            bags.run(suspects).await
        };
        for (mender, node) in menders.iter_mut().zip(&self.aim.nodes) {
            mender.leave().await.map_err(failed(node))?;
        }
        done
    }
}

async fn mender(
    config: &Config,
    peer: &Peer<'_>,
    nodes: &[NodeName],
) -> Result<Mender, VerifyError> {
    let name = &peer.node.name;
    let session = apply_session(&peer.node.dsn, &session_name(config), LOCK_TIMEOUT).await;
    let session = session.map_err(|source| VerifyError::Reach {
        node: name.clone(),
        source,
    })?;
    let ids = origins(&peer.client).await;
    let ids = ids.map_err(|source| AskError {
        node: name.clone(),
        source,
    })?;
    let ends = (name.clone(), name.clone());
    let origins = Origins::of_server(&config.cluster, nodes, ends, &ids);
    if let Some(origin) = origins.missing_return_origin(nodes) {
        return Err(VerifyError::NotSetUp {
            node: name.clone(),
            origin,
        });
    }
    Ok(Mender::new(session, origins, config.rules()))
}
