//! Who else has slots under the cluster's name: a cluster of the same name in another database of
//! the server, and nodes that the configuration does not name any more.

use tokio_postgres::Client;

use super::Problem;
use super::facts::{NamedSlot, Neighbours, NodeFacts};
use crate::catalog::CatalogError;
use crate::config::{Config, Node};
use crate::ids::{NodeName, origin_names, slot_name};
use crate::wire::{RowExt, each};

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
        other: other_cluster(config, here.is_some(), client).await?,
    })
}

/// Another cluster with slots in this database. Publication and schema `mmrepl` are of one cluster.
async fn other_cluster(
    config: &Config,
    is_set_up: bool,
    client: &Client,
) -> Result<Option<(String, String)>, CatalogError> {
    let sql = "select slot_name::text from pg_catalog.pg_replication_slots
               where slot_type = 'logical' and plugin = 'pgoutput' and not temporary
                 and database = pg_catalog.current_database()
                 and pg_catalog.starts_with(slot_name::text, 'mmrepl_') order by 1";
    let rows = client.query(sql, &[]).await;
    let rows = rows.map_err(CatalogError::query("list replication slots"))?;
    let slots: Vec<String> = each(&rows, |row| row.read(0))?;
    let mut nodes: Vec<String> = config.nodes.iter().map(|n| n.name.to_string()).collect();
    if is_set_up {
        let rows = client.query("select name from mmrepl.node", &[]).await;
        let rows = rows.map_err(CatalogError::query("read mmrepl.node"))?;
        let known: Vec<String> = each(&rows, |row| row.read(0))?;
        nodes.extend(known);
    }
    let named = |slot: String| Some((cluster_of(config.cluster.as_str(), &nodes, &slot)?, slot));
    Ok(slots.into_iter().find_map(named))
}

/// The cluster whose slot has the name, where it is another one than `own`: `mmrepl_shop_eu_west`
/// is of `shop_eu` where `west` is a node and `eu_west` is none. Pure.
fn cluster_of(own: &str, nodes: &[String], slot: &str) -> Option<String> {
    let rest = slot.strip_prefix("mmrepl_")?;
    let of_node = |node: &String| rest.strip_suffix(node.as_str())?.strip_suffix('_');
    let clusters: Vec<&str> = nodes.iter().filter_map(of_node).collect();
    let is_own = rest
        .strip_prefix(own)
        .is_some_and(|peer| peer.starts_with('_'));
    if clusters.contains(&own) || (is_own && clusters.is_empty()) {
        return None;
    }
    let by_form = || rest.rsplit_once('_').map(|(cluster, _)| cluster);
    // Of several nodes that fit the longest name counts.
    let cluster = clusters.into_iter().min_by_key(|cluster| cluster.len());
    cluster.or_else(by_form).map(str::to_owned)
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
    let other = neighbours.other.iter().map(|(cluster, slot)| {
        let database = &facts.server.database;
        let what = format!(
            "database {database} belongs to cluster {cluster} (replication slot {slot}), and this file is of cluster {}: a database is in one cluster, which publication and schema mmrepl belong to",
            config.cluster
        );
        Problem::error(&facts.name, what).note(format!(
            "name = \"{cluster}\" in [cluster] where that one is meant; otherwise drop that cluster with its own file first (mmrepl drop), or use another database; where only the slot is left of it: select pg_drop_replication_slot('{slot}')"
        ))
    });
    taken.chain(gone).chain(other).collect()
}

#[cfg(test)]
mod tests {
    use super::cluster_of;

    #[test]
    fn the_cluster_of_a_slot_is_told_by_its_nodes() {
        let nodes = ["east", "west", "wild_west"].map(str::to_owned);
        let of = |slot| cluster_of("shop", &nodes, slot);
        for own in [
            "mmrepl_shop_west",
            "mmrepl_shop_wild_west",
            "mmrepl_shop_gone",
        ] {
            assert_eq!(of(own), None, "{own}");
        }
        assert_eq!(of("mmrepl_other_west").as_deref(), Some("other"));
        assert_eq!(of("mmrepl_other_wild_west").as_deref(), Some("other"));
        assert_eq!(of("mmrepl_shop_eu_west").as_deref(), Some("shop_eu"));
        assert_eq!(of("mmrepl_other_x").as_deref(), Some("other"));
        assert_eq!(of("mine"), None);
    }
}
