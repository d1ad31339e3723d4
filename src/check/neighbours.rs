//! Who else has slots under the cluster's name: a cluster of the same name in another database of
//! the server, and nodes that the configuration does not name any more.

use tokio_postgres::Client;

use super::Problem;
use super::facts::NodeFacts;
use crate::catalog::CatalogError;
use crate::config::{Config, Node};
use crate::ids::{NodeName, origin_names, slot_name};
use crate::wire::{RowExt, each};

/// A logical slot of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedSlot {
    /// Its name.
    pub name: String,
    /// The database it decodes.
    pub database: String,
    /// How much WAL it holds back, in bytes.
    pub retained_bytes: i64,
}

/// What a server has under the cluster's name beside what belongs to the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbours {
    /// A slot of another database that stands where the cluster's own would be, or that shows whose
    /// the origins are.
    pub taken: Option<NamedSlot>,
    /// Nodes that the server remembers and the configuration does not name, with their slots.
    pub gone: Vec<(NodeName, Option<NamedSlot>)>,
}

/// Asks the server.
pub(super) async fn gather(
    config: &Config,
    node: &Node,
    here: Option<&str>,
    client: &Client,
) -> Result<Neighbours, CatalogError> {
    let (ours, others) = slots(config, client).await?;
    let peers = config.peers_of(&node.name).into_iter();
    let wanted: Vec<String> = peers
        .map(|peer| slot_name(&config.cluster, &peer.name))
        .collect();
    let mut taken = others.iter().find(|slot| wanted.contains(&slot.name));
    if taken.is_none() && here.is_none() && has_origins(config, client).await? {
        taken = others.first();
    }
    let gone = match here {
        Some(_) => gone(config, client, &ours).await?,
        None => Vec::new(),
    };
    Ok(Neighbours {
        taken: taken.cloned(),
        gone,
    })
}

/// The slots under the cluster's name: those of this database, and those of others.
async fn slots(
    config: &Config,
    client: &Client,
) -> Result<(Vec<NamedSlot>, Vec<NamedSlot>), CatalogError> {
    let sql = "
        select s.slot_name::text, s.database::text,
               coalesce(pg_catalog.pg_wal_lsn_diff(
                   case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn()
                        else pg_catalog.pg_current_wal_lsn() end, s.restart_lsn), 0)::int8,
               s.database = pg_catalog.current_database()
        from pg_catalog.pg_replication_slots s
        where s.slot_type = 'logical' and s.database is not null
          and pg_catalog.starts_with(s.slot_name::text, $1)
        order by 1";
    let prefix = format!("mmrepl_{}_", config.cluster);
    let rows = client.query(sql, &[&prefix]).await;
    let rows = rows.map_err(CatalogError::query("list replication slots"))?;
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for row in &rows {
        let slot = NamedSlot {
            name: row.read(0)?,
            database: row.read(1)?,
            retained_bytes: row.read(2)?,
        };
        if row.read(3)? { &mut ours } else { &mut others }.push(slot);
    }
    Ok((ours, others))
}

async fn has_origins(config: &Config, client: &Client) -> Result<bool, CatalogError> {
    let sql = "select exists (select from pg_catalog.pg_replication_origin where roname = any($1))";
    let nodes = config.nodes.iter();
    let names: Vec<String> = nodes
        .flat_map(|node| origin_names(&config.cluster, &node.name))
        .collect();
    let row = client.query_one(sql, &[&names]).await;
    let row = row.map_err(CatalogError::query("read replication origins"))?;
    Ok(row.read(0)?)
}

async fn gone(
    config: &Config,
    client: &Client,
    slots: &[NamedSlot],
) -> Result<Vec<(NodeName, Option<NamedSlot>)>, CatalogError> {
    let sql = "select name from mmrepl.node order by name";
    let rows = client.query(sql, &[]).await;
    let rows = rows.map_err(CatalogError::query("read mmrepl.node"))?;
    let names: Vec<&str> = each(&rows, |row| row.read(0))?;
    let names = names.into_iter().filter_map(|name| name.parse().ok());
    let unnamed = names.filter(|name| config.node(name).is_err());
    let with_slot = |name: NodeName| {
        let slot = slot_name(&config.cluster, &name);
        let slot = slots.iter().find(|found| found.name == slot).cloned();
        (name, slot)
    };
    Ok(unnamed.map(with_slot).collect())
}

/// The problems of one node.
pub(super) fn check(config: &Config, facts: &NodeFacts) -> Vec<Problem> {
    let neighbours = &facts.neighbours;
    let taken = neighbours.taken.iter().map(|slot| {
        let what = format!(
            "the replication slot {} belongs to database {} of the same server, where a cluster of the name {} is set up; this one is for database {}",
            slot.name, slot.database, config.cluster, facts.server.database
        );
        Problem::error(&facts.name, what).note(format!(
            "correct the dsn of {} where database {} is meant; otherwise give this cluster another name in [cluster], or drop the other one with its own file: mmrepl drop (its daemons stopped, dbname={})",
            facts.name, slot.database, slot.database
        ))
    });
    let gone = neighbours.gone.iter().map(|(gone, slot)| {
        let holds = slot.as_ref().map_or_else(String::new, |slot| {
            format!(
                " and its replication slot {}, which holds back {} bytes of WAL and more with every write",
                slot.name, slot.retained_bytes
            )
        });
        let what = format!(
            "the configuration does not name node {gone}, and this server still has its position and origins{holds}"
        );
        Problem::warning(&facts.name, what).note(format!("mmrepl drop --node {gone}"))
    });
    taken.chain(gone).collect()
}
