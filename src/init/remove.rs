//! `mmrepl drop`: removes everything that `init` made.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::columns::COMMENT;
use super::remembered::{peers, relation_exists};
use super::session::Session;
use super::{InitError, PUBLICATION, drop_check, records};
use crate::catalog::dropped;
use crate::catalog::names::{ident, literal, qualified};
use crate::catalog::slots::{origin_id, slot_state};
use crate::config::{Config, Node};
use crate::conflict::{COUNT_COLUMN, KNOWN_COLUMN, STATE_COLUMN, VECTOR_COLUMN};
use crate::ids::{NodeName, origin_names, slot_name};
use crate::wire::{RowExt, each};

/// How many statements one transaction runs, each holding the lock of its table.
const STATEMENTS_PER_TRANSACTION: usize = 300;

/// What was removed and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct DropReport {
    /// Nodes that are clean now.
    pub nodes: Vec<Dropped>,
    /// Nodes that are not.
    pub left: Vec<Left>,
    /// What else there is to know, one sentence each.
    pub notes: Vec<String>,
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

/// What becomes of rows kept aside, conflicts that wait for a person, and the history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Records {
    /// Nothing is dropped while there are some.
    #[default]
    Refuse,
    /// They are written to this new file first.
    Save(PathBuf),
    /// They go.
    Discard,
}

/// What the command line asks of `drop`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DropOptions {
    /// The node that leaves; all of them where nothing is said.
    pub only: Option<NodeName>,
    /// It will not come back, and is not asked.
    pub lost: bool,
    /// What else would go.
    pub records: Records,
}

/// Removes everything from the node that leaves, or from all. Every node is looked at first, and
/// nothing is removed where a daemon runs or records would be lost. A node that cannot be reached
/// does not keep the others from being cleaned.
///
/// When one node of a cluster is dropped alone, the others keep their slot for it, which would hold
/// WAL for ever; those slots, origins and positions go too.
pub async fn drop_nodes(config: &Config, options: &DropOptions) -> Result<DropReport, InitError> {
    let only = options.only.as_ref();
    let mut report = DropReport::default();
    let (sessions, mut closed) = open_all(config, options).await;
    if let Some(gone) = only {
        known(config, &sessions, gone).await?;
    }
    drop_check::refuse_running(config, &sessions, only).await?;
    report.notes.extend(keep_records(options, &sessions).await?);
    report.notes.extend(stranger(config, options));
    for node in &config.nodes {
        if let Some(left) = closed.remove(&node.name) {
            report.left.push(left);
        }
        let Some(session) = sessions.iter().find(|s| *s.name() == node.name) else {
            continue;
        };
        let result = match only {
            Some(gone) if *gone != node.name => forget_node(config, session, gone).await,
            _ => drop_all(config, session).await,
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

/// Sessions to the nodes that answer, and what is left on those that do not.
async fn open_all(
    config: &Config,
    options: &DropOptions,
) -> (Vec<Session>, BTreeMap<NodeName, Left>) {
    let (mut sessions, mut closed) = (Vec::new(), BTreeMap::new());
    let name = format!("mmrepl {} drop", config.cluster);
    for node in &config.nodes {
        if options.lost && options.only.as_ref() == Some(&node.name) {
            continue;
        }
        match Session::open_as(&name, node).await {
            Ok(session) => sessions.push(session),
            Err(source) => {
                let error = InitError::Server {
                    node: node.name.clone(),
                    what: "connect".to_owned(),
                    source,
                };
                let reason = left(config, node, &error);
                let name = node.name.clone();
                closed.insert(name.clone(), Left { node: name, reason });
            }
        }
    }
    (sessions, closed)
}

/// A node may leave that the file does not name any more, where a server still remembers it.
async fn known(config: &Config, sessions: &[Session], gone: &NodeName) -> Result<(), InitError> {
    let Err(unknown) = config.node(gone) else {
        return Ok(());
    };
    for session in sessions {
        if peers(config, session, None).await?.contains(gone) {
            return Ok(());
        }
    }
    Err(InitError::Config(unknown))
}

/// What cannot be removed because the file does not say where it is.
fn stranger(config: &Config, options: &DropOptions) -> Option<String> {
    let gone = options.only.as_ref()?;
    (config.node(gone).is_err() && !options.lost).then(|| {
        format!(
            "the file does not name {gone}, so its own server was not asked: where that still runs, publication {PUBLICATION}, schema mmrepl, its triggers, slots and origins are there"
        )
    })
}

/// Refuses, saves or says what goes.
async fn keep_records(
    options: &DropOptions,
    sessions: &[Session],
) -> Result<Vec<String>, InitError> {
    let leaves = |name: &NodeName| options.only.as_ref().is_none_or(|only| only == name);
    let (mut told, mut with) = (Vec::new(), Vec::new());
    for session in sessions.iter().filter(|session| leaves(session.name())) {
        let counts = records::count(session).await?;
        if !counts.is_none() {
            told.push(format!("{} has {}", session.name(), records::told(counts)));
            with.push(session);
        }
    }
    if told.is_empty() {
        return Ok(Vec::new());
    }
    let told = told.join("; ");
    match &options.records {
        Records::Refuse => Err(InitError::Refused(format!(
            "{told}, which nobody else may have: say --save FILE to write them to a file first, or --discard to let them go; nothing was dropped"
        ))),
        Records::Discard => Ok(vec![format!("{told}: discarded")]),
        Records::Save(path) => {
            let lines = records::save(path, &with).await?;
            let path = path.display();
            Ok(vec![format!("{told}: {lines} record(s) written to {path}")])
        }
    }
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
    let peers = peers(config, session, None).await?;
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
    let row = row.map_err(InitError::server(session.name(), "read the publication"))?;
    let exists: bool = row.read(0).map_err(InitError::unread(session.name()))?;
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
        let table = qualified(row.read(1)?, row.read(2)?);
        Ok(format!("drop trigger {} on {table}", ident(row.read(0)?)))
    };
    let statements: Vec<String> = each(&rows, drop).map_err(InitError::unread(session.name()))?;
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
    let restore = |row: &tokio_postgres::Row| {
        let (before, oid): (&str, u32) = (row.read(0)?, row.read(3)?);
        let table = qualified(row.read(1)?, row.read(2)?);
        Ok([
            format!("alter table only {table} replica identity {before}"),
            format!("delete from mmrepl.replica_identity where relation = {oid}"),
        ])
    };
    let statements: Vec<[String; 2]> =
        each(&rows, restore).map_err(InitError::unread(session.name()))?;
    for chunk in statements.chunks(STATEMENTS_PER_TRANSACTION / 2) {
        session
            .transaction("set replica identities back", &chunk.concat())
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
        let (table, column) = (qualified(row.read(0)?, row.read(1)?), ident(row.read(2)?));
        Ok(format!("alter table {table} drop column {column}"))
    };
    let statements: Vec<String> = each(&rows, drop).map_err(InitError::unread(session.name()))?;
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
    let row = row.map_err(InitError::server(session.name(), "look for schema mmrepl"))?;
    row.read(0).map_err(InitError::unread(session.name()))
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
    // A schema that an older version made has no place for it.
    if relation_exists(session, "mmrepl.dropped").await? {
        let links = [
            format!("{gone}->{}", session.name()),
            format!("{}->{gone}", session.name()),
        ];
        let links = links.map(|link| literal(&link)).join(", ");
        let remember = [
            format!("delete from mmrepl.link_memory where link in ({links})"),
            dropped::remember(gone),
        ];
        let what = "remember that the node was dropped";
        session.transaction(what, &remember).await?;
    }
    removed.extend(drop_origins(config, session, gone).await?);
    Ok(removed)
}
