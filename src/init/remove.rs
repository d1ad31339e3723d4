//! `mmrepl drop`: removes everything that `init` made.

use std::collections::BTreeSet;

use super::columns::COMMENT;
use super::session::Session;
use super::{InitError, PUBLICATION};
use crate::catalog::names::{ident, literal, qualified};
use crate::catalog::slots::{origin_id, slot_state};
use crate::config::{Config, Node};
use crate::conflict::{COUNT_COLUMN, KNOWN_COLUMN, STATE_COLUMN, VECTOR_COLUMN};
use crate::ids::{NodeName, origin_names, slot_name};

/// How many statements one transaction runs, each holding the lock of its table.
const STATEMENTS_PER_TRANSACTION: usize = 300;

/// What was removed and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct DropReport {
    /// Nodes that are clean now.
    pub nodes: Vec<Dropped>,
    /// Nodes that are not.
    pub left: Vec<Left>,
}

/// What was removed from one node.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Dropped {
    /// The node.
    pub node: NodeName,
    /// Each thing; empty when there was nothing.
    pub removed: Vec<String>,
}

/// A node that could not be cleaned.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Left {
    /// The node.
    pub node: NodeName,
    /// Why, what may be there, and how to remove it.
    pub reason: String,
}

/// Removes everything from the nodes in `only`, or from all. A node that cannot be reached does not
/// keep the others from being cleaned.
///
/// When one node of a cluster is dropped alone, the others keep their slot for it, which would hold
/// WAL for ever; those slots, origins and positions go too.
pub async fn drop_nodes(config: &Config, only: Option<&NodeName>) -> Result<DropReport, InitError> {
    let mut report = DropReport::default();
    for node in &config.nodes {
        let whole = only.is_none_or(|only| *only == node.name);
        let result = match Session::open(config, node).await {
            Ok(session) if whole => drop_all(config, &session).await,
            Ok(session) => match only {
                Some(gone) => forget_node(config, &session, gone).await,
                None => Ok(Vec::new()),
            },
            Err(source) => Err(InitError::Server {
                node: node.name.clone(),
                what: "connect".to_owned(),
                source,
            }),
        };
        let name = node.name.clone();
        match result {
            Ok(removed) => report.nodes.push(Dropped {
                node: name,
                removed,
            }),
            Err(error) => {
                let reason = left(config, node, &error);
                report.left.push(Left { node: name, reason });
            }
        }
    }
    Ok(report)
}

/// What stays on a node, and how to remove it.
fn left(config: &Config, node: &Node, error: &InitError) -> String {
    format!(
        "{error}; publication {PUBLICATION}, schema mmrepl, its triggers, slots and origins named mmrepl_{}_* may be left there: run mmrepl drop --node {} again",
        config.cluster, node.name
    )
}

/// Slots first: an active one means that a daemon still runs, and nothing was touched yet.
async fn drop_all(config: &Config, session: &Session) -> Result<Vec<String>, InitError> {
    let peers = peers(config, session).await?;
    let mut removed = drop_slots(config, session, &peers).await?;
    if drop_publication(session).await? {
        removed.push(format!("publication {PUBLICATION}"));
    }
    let triggers = drop_triggers(session).await?;
    if triggers > 0 {
        removed.push(format!("{triggers} trigger(s)"));
    }
    let identities = restore_identities(session).await?;
    if identities > 0 {
        removed.push(format!(
            "{identities} replica identity setting(s), set back"
        ));
    }
    let columns = drop_columns(session).await?;
    if columns > 0 {
        removed.push(format!("{columns} column(s) for row versions"));
    }
    for peer in &peers {
        removed.extend(drop_origins(config, session, peer).await?);
    }
    if schema_exists(session).await? {
        session
            .batch("drop schema mmrepl", "drop schema mmrepl cascade")
            .await?;
        removed.push("schema mmrepl".to_owned());
    }
    Ok(removed)
}

/// Nodes that this one may have slots and origins for: those of the configuration, and those that
/// it remembers from an earlier one.
async fn peers(config: &Config, session: &Session) -> Result<BTreeSet<NodeName>, InitError> {
    let mut peers: BTreeSet<NodeName> = config.nodes.iter().map(|node| node.name.clone()).collect();
    if relation_exists(session, "mmrepl.node").await? {
        let rows = session
            .client
            .query("select name from mmrepl.node", &[])
            .await;
        let rows = rows.map_err(InitError::server(session.name(), "read mmrepl.node"))?;
        peers.extend(
            rows.iter()
                .filter_map(|row| row.get::<_, &str>(0).parse().ok()),
        );
    }
    Ok(peers)
}

/// Drops this cluster's slots for the peers; none of them when one is active.
async fn drop_slots(
    config: &Config,
    session: &Session,
    peers: &BTreeSet<NodeName>,
) -> Result<Vec<String>, InitError> {
    let mut found = Vec::new();
    for peer in peers {
        let name = slot_name(&config.cluster, peer);
        let state = slot_state(&session.client, &name).await;
        let Some(state) = state.map_err(InitError::catalog(session.name()))? else {
            continue;
        };
        if let Some(pid) = state.active_pid {
            return Err(InitError::InUse {
                node: session.name().clone(),
                what: format!("replication slot {name} (by process {pid})"),
                daemon: session.name().clone(),
            });
        }
        found.push(name);
    }
    for slot in &found {
        super::slots::drop_slot(session, slot).await?;
    }
    Ok(found.iter().map(|slot| format!("slot {slot}")).collect())
}

async fn drop_publication(session: &Session) -> Result<bool, InitError> {
    let sql = "select exists (select from pg_catalog.pg_publication where pubname = $1)";
    let row = session.client.query_one(sql, &[&PUBLICATION]).await;
    let exists: bool = row
        .map_err(InitError::server(session.name(), "read the publication"))?
        .get(0);
    if exists {
        let sql = format!("drop publication {}", ident(PUBLICATION));
        session.transaction("drop the publication", &[sql]).await?;
    }
    Ok(exists)
}

/// Triggers by their function's schema, so that a renamed one goes too. Clones on partitions go
/// with their parent's.
async fn drop_triggers(session: &Session) -> Result<usize, InitError> {
    let sql = "
        select t.tgname::text, n.nspname::text, c.relname::text
        from pg_catalog.pg_trigger t
        join pg_catalog.pg_proc p on p.oid = t.tgfoid
        join pg_catalog.pg_namespace pn on pn.oid = p.pronamespace and pn.nspname = 'mmrepl'
        join pg_catalog.pg_class c on c.oid = t.tgrelid
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where t.tgparentid = 0
        order by 2, 3, 1";
    let rows = session.client.query(sql, &[]).await;
    let rows = rows.map_err(InitError::server(session.name(), "list triggers"))?;
    let drop = |row: &tokio_postgres::Row| {
        format!(
            "drop trigger {} on {}",
            ident(row.get(0)),
            qualified(row.get(1), row.get(2))
        )
    };
    let statements: Vec<String> = rows.iter().map(drop).collect();
    for chunk in statements.chunks(STATEMENTS_PER_TRANSACTION) {
        session.transaction("drop triggers", chunk).await?;
    }
    Ok(statements.len())
}

/// Sets back what `init` changed, where the table still exists, and forgets it.
async fn restore_identities(session: &Session) -> Result<usize, InitError> {
    if !relation_exists(session, "mmrepl.replica_identity").await? {
        return Ok(0);
    }
    let sql = "
        select i.before, n.nspname::text, c.relname::text, i.relation
        from mmrepl.replica_identity i
        join pg_catalog.pg_class c on c.oid = i.relation
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        order by 2, 3";
    let rows = session.client.query(sql, &[]).await;
    let rows = rows.map_err(InitError::server(session.name(), "read replica identities"))?;
    for chunk in rows.chunks(STATEMENTS_PER_TRANSACTION / 2) {
        let statements: Vec<String> = chunk
            .iter()
            .flat_map(|row| {
                let (before, oid): (&str, u32) = (row.get(0), row.get(3));
                let table = qualified(row.get(1), row.get(2));
                [
                    format!("alter table only {table} replica identity {before}"),
                    format!("delete from mmrepl.replica_identity where relation = {oid}"),
                ]
            })
            .collect();
        session
            .transaction("set replica identities back", &statements)
            .await?;
    }
    Ok(rows.len())
}

/// Drops the columns that `init` added; a partition loses its own with its root's.
async fn drop_columns(session: &Session) -> Result<usize, InitError> {
    let sql = "
        select n.nspname::text, c.relname::text, a.attname::text
        from pg_catalog.pg_attribute a
        join pg_catalog.pg_class c on c.oid = a.attrelid
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where a.attname = any($1) and not a.attisdropped and a.attislocal
          and pg_catalog.col_description(a.attrelid, a.attnum) = $2
        order by 1, 2";
    let names = [COUNT_COLUMN, VECTOR_COLUMN, STATE_COLUMN, KNOWN_COLUMN];
    let rows = session.client.query(sql, &[&&names[..], &COMMENT]).await;
    let rows = rows.map_err(InitError::server(session.name(), "list columns"))?;
    let drop = |row: &tokio_postgres::Row| {
        let (table, column) = (qualified(row.get(0), row.get(1)), ident(row.get(2)));
        format!("alter table {table} drop column {column}")
    };
    let statements: Vec<String> = rows.iter().map(drop).collect();
    for chunk in statements.chunks(STATEMENTS_PER_TRANSACTION) {
        session.transaction("drop columns", chunk).await?;
    }
    Ok(statements.len())
}

/// Drops the origins of `peer`; returns the names of those that were there.
async fn drop_origins(
    config: &Config,
    session: &Session,
    peer: &NodeName,
) -> Result<Vec<String>, InitError> {
    let mut dropped = Vec::new();
    for origin in origin_names(&config.cluster, peer) {
        let id = origin_id(&session.client, &origin).await;
        if id.map_err(InitError::catalog(session.name()))?.is_none() {
            continue;
        }
        let sql = format!(
            "select pg_catalog.pg_replication_origin_drop({})",
            literal(&origin)
        );
        session
            .batch(&format!("drop replication origin {origin}"), &sql)
            .await?;
        dropped.push(format!("origin {origin}"));
    }
    Ok(dropped)
}

async fn schema_exists(session: &Session) -> Result<bool, InitError> {
    let sql = "select pg_catalog.to_regnamespace('mmrepl') is not null";
    let row = session.client.query_one(sql, &[]).await;
    Ok(row
        .map_err(InitError::server(session.name(), "look for schema mmrepl"))?
        .get(0))
}

async fn relation_exists(session: &Session, name: &str) -> Result<bool, InitError> {
    let sql = "select pg_catalog.to_regclass($1) is not null";
    let row = session.client.query_one(sql, &[&name]).await;
    let row = row.map_err(InitError::server(
        session.name(),
        format!("look for {name}"),
    ))?;
    Ok(row.get(0))
}

/// On a node that stays: removes what it has for `gone`.
async fn forget_node(
    config: &Config,
    session: &Session,
    gone: &NodeName,
) -> Result<Vec<String>, InitError> {
    let mut removed = drop_slots(config, session, &BTreeSet::from([gone.clone()])).await?;
    if relation_exists(session, "mmrepl.apply_position").await? {
        let name = literal(gone.as_str());
        let forget = [
            format!("delete from mmrepl.apply_position where source = {name}"),
            format!("delete from mmrepl.node where name = {name} and not here"),
        ];
        session.transaction("forget the node", &forget).await?;
    }
    removed.extend(drop_origins(config, session, gone).await?);
    Ok(removed)
}
