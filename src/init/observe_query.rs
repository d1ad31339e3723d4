//! The queries behind [`super::observe`], set-based over all tables.

use std::collections::HashMap;

use tokio_postgres::Client;

use super::PUBLICATION;
use super::own::{KeyIndex, OwnFunction};
use super::state::{NodeRow, PartitionState, PublicationState, Published, TableState};
use super::triggers::Trigger;
use crate::catalog::table::Table;
use crate::catalog::{CatalogError, names, slots};
use crate::config::Config;
use crate::ids::origin_names;
use crate::wire::{RowExt, each};

/// What each table has of ours.
pub(super) async fn tables(
    client: &Client,
    tables: &[Table],
) -> Result<Vec<TableState>, CatalogError> {
    let published = published(client).await?;
    let mut partitions = partitions(client, tables).await?;
    let mut oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    oids.extend(partitions.values().flatten().map(|partition| partition.oid));
    let mut triggers = triggers(client, &oids).await?;
    let mut indexes = identity_indexes(client, &oids).await?;
    let mut key_indexes = key_indexes(client, tables).await?;
    let filled = seem_filled(client, &oids).await?;
    let mut functions = functions(client).await?;
    for partition in partitions.values_mut().flatten() {
        partition.triggers = triggers.remove(&partition.oid).unwrap_or_default();
        partition.identity_index = indexes.remove(&partition.oid);
    }
    let state = |table: &Table| TableState {
        table: table.clone(),
        key_index: key_indexes.remove(&table.oid),
        identity_index: indexes.remove(&table.oid),
        published: published.get(&table.oid).copied(),
        seems_filled: filled.get(&table.oid).copied().unwrap_or(false),
        triggers: triggers.remove(&table.oid).unwrap_or_default(),
        functions: functions.remove(&table.oid).unwrap_or_default(),
        partitions: partitions.remove(&table.oid).unwrap_or_default(),
    };
    Ok(tables.iter().map(state).collect())
}

/// The index of each table's key.
async fn key_indexes(
    client: &Client,
    tables: &[Table],
) -> Result<HashMap<u32, KeyIndex>, CatalogError> {
    let sql = "
        select i.indrelid, i.indexrelid,
               p.printed::text, p.printed
        from unnest($1::pg_catalog.oid[], $2::pg_catalog.text[]) t(oid, key_index)
        join pg_catalog.pg_index i on i.indrelid = t.oid
        join pg_catalog.pg_class c on c.oid = i.indexrelid and c.relname = t.key_index
        cross join lateral (
            select array(select pg_catalog.pg_get_indexdef(i.indexrelid, k, false)
                         from pg_catalog.generate_series(1, i.indnkeyatts::int4) k
                         order by k)) p(printed)";
    let key = |table: &Table| Some((table.oid, table.key.as_ref()?.index.clone()));
    let (oids, names): (Vec<u32>, Vec<String>) = tables.iter().filter_map(key).unzip();
    let rows = client.query(sql, &[&oids, &names]).await;
    let rows = rows.map_err(CatalogError::query("read the indexes of keys"))?;
    let index = |row: &tokio_postgres::Row| {
        let index = KeyIndex {
            index: row.read(1)?,
            columns: row.read(2)?,
            printed: row.read(3)?,
        };
        Ok((row.read(0)?, index))
    };
    Ok(each(&rows, index)?)
}

/// The publication's tables. `to_jsonb`: row filters and column lists came with 15.
async fn published(client: &Client) -> Result<HashMap<u32, Published>, CatalogError> {
    let sql = "select r.prrelid,
                      pg_catalog.to_jsonb(r) ->> 'prqual' is not null
                      or pg_catalog.to_jsonb(r) ->> 'prattrs' is not null
               from pg_catalog.pg_publication_rel r
               join pg_catalog.pg_publication p on p.oid = r.prpubid where p.pubname = $1";
    let rows = client.query(sql, &[&PUBLICATION]).await;
    let rows = rows.map_err(CatalogError::query("read the publication"))?;
    let published = |restricted: bool| Published { restricted };
    Ok(each(&rows, |row| {
        Ok((row.read(0)?, published(row.read(1)?)))
    })?)
}

/// Whether tables, partitions among them, have had rows: what the server counted, without a look
/// at the table itself, which may be locked.
async fn seem_filled(client: &Client, oids: &[u32]) -> Result<HashMap<u32, bool>, CatalogError> {
    let sql = "select c.oid, c.relpages > 0
                   or pg_catalog.pg_stat_get_live_tuples(c.oid) > 0
                   or exists (
                       select from pg_catalog.pg_partition_tree(c.oid) t
                       where c.relkind = 'p'
                         and pg_catalog.pg_stat_get_live_tuples(t.relid) > 0)
               from pg_catalog.pg_class c where c.oid = any($1)";
    let rows = client.query(sql, &[&oids]).await;
    let rows = rows.map_err(CatalogError::query("read table statistics"))?;
    Ok(each(&rows, |row| Ok((row.read(0)?, row.read(1)?)))?)
}

async fn triggers(
    client: &Client,
    oids: &[u32],
) -> Result<HashMap<u32, Vec<Trigger>>, CatalogError> {
    let sql = "select tgrelid, tgname::text, tgenabled::text, pg_catalog.pg_get_triggerdef(oid),
                      tgparentid <> 0
               from pg_catalog.pg_trigger
               where tgrelid = any($1) and tgname::text ~ '^(zzz_)?mmrepl_'";
    let rows = client.query(sql, &[&oids]).await;
    let rows = rows.map_err(CatalogError::query("read triggers"))?;
    let mut triggers: HashMap<u32, Vec<Trigger>> = HashMap::new();
    for row in &rows {
        let enabled: &str = row.read(2)?;
        // Nothing where it has been dropped since the query began.
        let Some(definition) = row.read(3)? else {
            continue;
        };
        triggers.entry(row.read(0)?).or_default().push(Trigger {
            name: row.read(1)?,
            enabled: enabled.chars().next().unwrap_or('D'),
            definition,
            cloned: row.read(4)?,
        });
    }
    Ok(triggers)
}

/// The functions of tables' own: their names end with the number of the table.
async fn functions(client: &Client) -> Result<HashMap<u32, Vec<OwnFunction>>, CatalogError> {
    let sql = "select c.oid, p.proname::text, p.prosrc, p.prosecdef, p.proconfig is not null
               from pg_catalog.pg_proc p
               join pg_catalog.pg_class c
                 on c.oid::text = pg_catalog.substring(p.proname::text, '_([0-9]+)$')
               where p.pronamespace = (select oid from pg_catalog.pg_namespace
                                       where nspname = 'mmrepl')";
    let rows = client.query(sql, &[]).await;
    let rows = rows.map_err(CatalogError::query("read the tables' own functions"))?;
    let function = |row: &tokio_postgres::Row| {
        let function = OwnFunction {
            name: row.read(1)?,
            body: row.read(2)?,
            definer: row.read(3)?,
            pins: row.read(4)?,
        };
        Ok((row.read(0)?, function))
    };
    let all: Vec<(u32, OwnFunction)> = each(&rows, function)?;
    let mut functions: HashMap<u32, Vec<OwnFunction>> = HashMap::new();
    for (oid, function) in all {
        functions.entry(oid).or_default().push(function);
    }
    Ok(functions)
}

async fn identity_indexes(
    client: &Client,
    oids: &[u32],
) -> Result<HashMap<u32, String>, CatalogError> {
    let sql = "select i.indrelid, c.relname::text from pg_catalog.pg_index i
               join pg_catalog.pg_class c on c.oid = i.indexrelid
               where i.indrelid = any($1) and i.indisreplident";
    let rows = client.query(sql, &[&oids]).await;
    let rows = rows.map_err(CatalogError::query("read replica identities"))?;
    Ok(each(&rows, |row| Ok((row.read(0)?, row.read(1)?)))?)
}

/// Partitions at every depth by their root. Foreign tables are none: they hold no rows here.
async fn partitions(
    client: &Client,
    tables: &[Table],
) -> Result<HashMap<u32, Vec<PartitionState>>, CatalogError> {
    let sql = "
        select t.root, c.oid, n.nspname::text, c.relname::text, c.relreplident::text,
               (select own.relname::text
                from pg_catalog.pg_index i
                join pg_catalog.pg_class own on own.oid = i.indexrelid
                join pg_catalog.pg_class top on top.oid = pg_catalog.pg_partition_root(i.indexrelid)
                join pg_catalog.pg_index ti on ti.indexrelid = top.oid
                where i.indrelid = c.oid and ti.indrelid = t.root and top.relname = t.key_index
                limit 1)
        from unnest($1::pg_catalog.oid[], $2::pg_catalog.text[]) t(root, key_index)
        cross join lateral pg_catalog.pg_partition_tree(t.root) p
        join pg_catalog.pg_class c on c.oid = p.relid and c.relkind in ('r', 'p')
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where p.relid <> t.root
        order by 1, 3, 4";
    let roots: Vec<&Table> = tables.iter().filter(|table| table.partitioned).collect();
    let oids: Vec<u32> = roots.iter().map(|table| table.oid).collect();
    let key_index = |table: &&&Table| table.key.as_ref().map(|key| key.index.clone());
    let key_indexes: Vec<Option<String>> = roots.iter().map(|table| key_index(&table)).collect();
    let rows = client.query(sql, &[&oids, &key_indexes]).await;
    let rows = rows.map_err(CatalogError::query("list partitions"))?;
    let mut partitions: HashMap<u32, Vec<PartitionState>> = HashMap::new();
    for row in &rows {
        let identity: &str = row.read(4)?;
        partitions
            .entry(row.read(0)?)
            .or_default()
            .push(PartitionState {
                oid: row.read(1)?,
                qualified: names::qualified(row.read(2)?, row.read(3)?),
                replica_identity: identity.chars().next().unwrap_or('d'),
                identity_index: None,
                key_index: row.read(5)?,
                triggers: Vec::new(),
            });
    }
    Ok(partitions)
}

/// Each option with what is wrong where it is not so.
const PUBLICATION_STATE: &str = "
select p.puballtables,
       array(select o.fault from (values
           (p.pubinsert, 'does not send inserts'), (p.pubupdate, 'does not send updates'),
           (p.pubdelete, 'does not send deletes'), (p.pubtruncate, 'does not send truncates'),
           (p.pubviaroot, 'sends changes under the names of partitions'),
           (coalesce(pg_catalog.to_jsonb(p) ->> 'pubgencols', 's') = 's',
            'does not send stored generated columns')) o(is_right, fault)
       where not o.is_right)
from pg_catalog.pg_publication p where p.pubname = $1";

/// The schemas that it publishes whole (15 and newer).
const PUBLICATION_SCHEMAS: &str = "
select n.nspname::text from pg_catalog.pg_publication_namespace s
join pg_catalog.pg_publication p on p.oid = s.pnpubid
join pg_catalog.pg_namespace n on n.oid = s.pnnspid
where p.pubname = $1 order by 1";

/// The publication, or nothing.
pub(super) async fn publication(
    client: &Client,
    name: &str,
    major: u32,
) -> Result<Option<PublicationState>, CatalogError> {
    let failed = || CatalogError::query("read the publication");
    let row = client.query_opt(PUBLICATION_STATE, &[&name]).await;
    let Some(row) = row.map_err(failed())? else {
        return Ok(None);
    };
    let schemas = if major >= 15 {
        let rows = client.query(PUBLICATION_SCHEMAS, &[&name]).await;
        each(&rows.map_err(failed())?, |row| row.read(0))?
    } else {
        Vec::new()
    };
    Ok(Some(PublicationState {
        all_tables: row.read(0)?,
        faults: row.read(1)?,
        schemas,
    }))
}

/// The rows of `mmrepl.node`.
pub(super) async fn nodes(client: &Client) -> Result<Vec<NodeRow>, CatalogError> {
    let sql = "select name, here, system_id, origin_id, rules from mmrepl.node order by name";
    let rows = client
        .query(sql, &[])
        .await
        .map_err(CatalogError::query("read mmrepl.node"))?;
    let node = |row: &tokio_postgres::Row| {
        Ok(NodeRow {
            name: row.read(0)?,
            here: row.read(1)?,
            system_id: row.read(2)?,
            origin_id: row.read(3)?,
            rules: row.read(4)?,
        })
    };
    Ok(each(&rows, node)?)
}

/// The cluster's origins that exist.
pub(super) async fn origins(
    client: &Client,
    config: &Config,
) -> Result<HashMap<String, u32>, CatalogError> {
    let mut origins = HashMap::new();
    let nodes = config.nodes.iter();
    let names = nodes.flat_map(|node| origin_names(&config.cluster, &node.name));
    for name in names {
        if let Some(id) = slots::origin_id(client, &name).await? {
            origins.insert(name, id);
        }
    }
    Ok(origins)
}
