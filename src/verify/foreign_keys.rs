//! Rows that point at nothing: foreign keys are not checked for applied rows.

use std::collections::BTreeMap;

use tokio_postgres::Row;

use super::error::{AskError, VerifyError};
use super::peer::{Peer, TableId};
use super::report::ForeignKeyReport;
use crate::catalog::names::{ident, qualified, readable};
use crate::wire::{RowExt, Unread, each};

/// Foreign keys between tables, one row for each: the child, the constraint, the parent, and their
/// columns. Those of single partitions come from the partitioned table's.
const CONSTRAINTS: &str = "
    select cn.nspname::text, c.relname::text, k.conname::text, pn.nspname::text, p.relname::text,
           array(select a.attname::text from pg_catalog.unnest(k.conkey) with ordinality u(n, o)
                 join pg_catalog.pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.n
                 order by u.o),
           array(select a.attname::text from pg_catalog.unnest(k.confkey) with ordinality u(n, o)
                 join pg_catalog.pg_attribute a on a.attrelid = k.confrelid and a.attnum = u.n
                 order by u.o)
    from pg_catalog.pg_constraint k
    join pg_catalog.pg_class c on c.oid = k.conrelid
    join pg_catalog.pg_namespace cn on cn.oid = c.relnamespace
    join pg_catalog.pg_class p on p.oid = k.confrelid
    join pg_catalog.pg_namespace pn on pn.oid = p.relnamespace
    where k.contype = 'f' and k.conparentid = 0
    order by 1, 2, 3";

/// How many of the rows are named.
const EXAMPLES: usize = 3;

struct ForeignKey {
    child: TableId,
    name: String,
    parent: TableId,
    columns: Vec<String>,
    references: Vec<String>,
}

/// Counts such rows on every node, for the foreign keys of these tables.
pub(super) async fn look(
    peers: &[Peer<'_>],
    tables: &[TableId],
) -> Result<Vec<ForeignKeyReport>, VerifyError> {
    let mut reports: BTreeMap<(TableId, String), ForeignKeyReport> = BTreeMap::new();
    for peer in peers {
        for key in read(peer, tables).await? {
            let (count, examples) = count(peer, &key).await?;
            if count == 0 {
                continue;
            }
            let id = (key.child.clone(), key.name.clone());
            let report = reports.entry(id).or_insert_with(|| ForeignKeyReport {
                table: readable(&key.child.0, &key.child.1),
                constraint: key.name.clone(),
                references: readable(&key.parent.0, &key.parent.1),
                rows: BTreeMap::new(),
                examples,
            });
            report.rows.insert(peer.node.name.clone(), count);
        }
    }
    Ok(reports.into_values().collect())
}

async fn read(peer: &Peer<'_>, tables: &[TableId]) -> Result<Vec<ForeignKey>, AskError> {
    let rows = peer.client.query(CONSTRAINTS, &[]).await;
    let rows = rows.map_err(AskError::of(&peer.node.name, "read foreign keys"))?;
    let key = |row: &Row| {
        Ok(ForeignKey {
            child: (row.read(0)?, row.read(1)?),
            name: row.read(2)?,
            parent: (row.read(3)?, row.read(4)?),
            columns: row.read(5)?,
            references: row.read(6)?,
        })
    };
    let keys: Result<Vec<ForeignKey>, Unread> = each(&rows, key);
    let mut keys = keys.map_err(|error| unread(peer, error))?;
    keys.retain(|key| tables.contains(&key.child));
    Ok(keys)
}

fn unread(peer: &Peer<'_>, error: Unread) -> AskError {
    AskError {
        node: peer.node.name.clone(),
        source: error.into(),
    }
}

async fn count(peer: &Peer<'_>, key: &ForeignKey) -> Result<(i64, Vec<String>), AskError> {
    let rows = peer.client.query_one(&count_sql(key), &[]).await;
    let row = rows.map_err(AskError::of(
        &peer.node.name,
        "count rows that point at nothing",
    ))?;
    let read = || Ok::<_, Unread>((row.read(0)?, row.read(1)?));
    read().map_err(|error| unread(peer, error))
}

/// A row with a NULL points at nothing and need not (MATCH SIMPLE).
fn count_sql(key: &ForeignKey) -> String {
    let known = key
        .columns
        .iter()
        .map(|name| format!("c.{} is not null", ident(name)));
    let meets = key.columns.iter().zip(&key.references);
    let meets = meets.map(|(own, other)| format!("p.{} = c.{}", ident(other), ident(own)));
    let shown = key
        .columns
        .iter()
        .map(|name| format!("c.{}::pg_catalog.text", ident(name)));
    let joined = |parts: Vec<String>, between: &str| parts.join(between);
    format!(
        "with lost as (
             select pg_catalog.concat_ws(' ', {}) as shown from {} c
             where {} and not exists (select from {} p where {}))
         select pg_catalog.count(*),
                array(select shown from lost order by shown limit {EXAMPLES}) from lost",
        joined(shown.collect(), ", "),
        qualified(&key.child.0, &key.child.1),
        joined(known.collect(), " and "),
        qualified(&key.parent.0, &key.parent.1),
        joined(meets.collect(), " and ")
    )
}
