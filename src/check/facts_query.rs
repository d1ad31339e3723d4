//! The queries behind [`super::facts`].

use std::collections::HashMap;
use std::time::Instant;

use tokio_postgres::Client;

use super::facts::{ClockOffset, Oddities, Rights, TableRights};
use crate::catalog::CatalogError;
use crate::catalog::parameter::{DEADLOCK_TIMEOUT, REPLICATION_ROLE, may_set};
use crate::catalog::server::Server;
use crate::catalog::table::Table;
use crate::config::Config;
use crate::wire::{RowExt, each};

/// How many round trips the clock is measured with; the shortest counts.
const CLOCK_SAMPLES: usize = 5;

/// Functions that apply needs and that only superusers may call at first (manual 9.28.6).
const ORIGIN_FUNCTIONS: [&str; 8] = [
    "pg_replication_origin_create",
    "pg_replication_origin_drop",
    "pg_replication_origin_oid",
    "pg_replication_origin_session_setup",
    "pg_replication_origin_session_reset",
    "pg_replication_origin_session_is_setup",
    "pg_replication_origin_xact_setup",
    "pg_replication_origin_xact_reset",
];

/// The server's clock minus this machine's, at the middle of the shortest of a few round trips.
pub(super) async fn clock(client: &Client) -> Result<ClockOffset, CatalogError> {
    let failed = || CatalogError::query("read the server's clock");
    let sql = "select (extract(epoch from pg_catalog.clock_timestamp()) * 1000000)::int8";
    let statement = client.prepare(sql).await.map_err(failed())?;
    let mut best: Option<ClockOffset> = None;
    for _ in 0..CLOCK_SAMPLES {
        let (began, began_us) = (Instant::now(), jiff::Timestamp::now().as_microsecond());
        let row = client.query_one(&statement, &[]).await.map_err(failed())?;
        let round_trip_us = i64::try_from(began.elapsed().as_micros()).unwrap_or(i64::MAX);
        let server_us: i64 = row.read(0)?;
        let ahead_us = server_us.saturating_sub(began_us.saturating_add(round_trip_us / 2));
        if best.is_none_or(|best| round_trip_us < best.round_trip_us) {
            best = Some(ClockOffset {
                ahead_us,
                round_trip_us,
            });
        }
    }
    Ok(best.unwrap_or_default())
}

/// The node that this server was set up as, if it was.
pub(super) async fn here(client: &Client) -> Result<Option<String>, CatalogError> {
    let failed = || CatalogError::query("read mmrepl.node");
    let exists = "select pg_catalog.to_regclass('mmrepl.node') is not null";
    let exists = client.query_one(exists, &[]).await.map_err(failed())?;
    if !exists.read::<bool>(0)? {
        return Ok(None);
    }
    let row = client
        .query_opt("select name from mmrepl.node where here", &[])
        .await;
    let row = row.map_err(failed())?;
    Ok(row.map(|row| row.read(0)).transpose()?)
}

/// What the role may not do. A superuser may do everything, except where row security is forced.
pub(super) async fn rights(
    client: &Client,
    server: &Server,
    tables: &[Table],
) -> Result<Rights, CatalogError> {
    let may = |parameter| may_set(parameter, server.version);
    let (role, circles) = (may(REPLICATION_ROLE), may(DEADLOCK_TIMEOUT));
    let sql = format!(
        "select r.rolreplication or r.rolsuper,
                pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'),
                {role}, {circles}
         from pg_catalog.pg_roles r where r.rolname = current_user"
    );
    let row = client
        .query_one(&sql, &[])
        .await
        .map_err(CatalogError::query("read the role"))?;
    let parameters = [(REPLICATION_ROLE, 2), (DEADLOCK_TIMEOUT, 3)];
    let mut parameters_refused = Vec::new();
    for (name, column) in parameters {
        if !row.read::<bool>(column)? {
            parameters_refused.push(name);
        }
    }
    Ok(Rights {
        replication: row.read(0)?,
        create_on_database: row.read(1)?,
        parameters_refused,
        functions_missing: functions_missing(client).await?,
        schemas_closed: schemas_closed(client, tables).await?,
        tables: table_rights(client, tables).await?,
    })
}

async fn functions_missing(client: &Client) -> Result<Vec<String>, CatalogError> {
    let sql = "
        select p.proname || '(' || pg_catalog.pg_get_function_identity_arguments(p.oid) || ')'
        from pg_catalog.pg_proc p
        where p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace and p.proname = any($1)
          and not pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
        order by 1";
    let names: &[&str] = &ORIGIN_FUNCTIONS;
    let rows = client.query(sql, &[&names]).await;
    let rows = rows.map_err(CatalogError::query("read rights on functions"))?;
    Ok(each(&rows, |row| row.read(0))?)
}

async fn schemas_closed(client: &Client, tables: &[Table]) -> Result<Vec<String>, CatalogError> {
    let schemas: Vec<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
    let sql = "select nspname::text from pg_catalog.pg_namespace
               where nspname = any($1) and not pg_catalog.has_schema_privilege(oid, 'USAGE')
               order by 1";
    let rows = client.query(sql, &[&schemas]).await;
    let rows = rows.map_err(CatalogError::query("read rights on schemas"))?;
    Ok(each(&rows, |row| row.read(0))?)
}

async fn table_rights(client: &Client, tables: &[Table]) -> Result<Vec<TableRights>, CatalogError> {
    let sql = "
        select * from (
            select n.nspname::text, c.relname::text,
                   array(select p from pg_catalog.unnest(
                             array['select', 'insert', 'update', 'delete', 'truncate']) p
                         where not pg_catalog.has_table_privilege(c.oid, p)) as missing,
                   case when not pg_catalog.pg_has_role(c.relowner, 'USAGE')
                        then pg_catalog.pg_get_userbyid(c.relowner)::text end as owner,
                   pg_catalog.row_security_active(c.oid) as hidden
            from pg_catalog.pg_class c
            join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            where c.oid = any($1)) t
        where missing <> '{}' or owner is not null or hidden
        order by 1, 2";
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let rows = client.query(sql, &[&oids]).await;
    let rows = rows.map_err(CatalogError::query("read rights on tables"))?;
    let rights = |row: &tokio_postgres::Row| {
        Ok(TableRights {
            schema: row.read(0)?,
            name: row.read(1)?,
            missing: row.read(2)?,
            foreign_owner: row.read(3)?,
            row_security: row.read(4)?,
        })
    };
    Ok(each(&rows, rights)?)
}

/// What is allowed but may surprise.
pub(super) async fn oddities(
    client: &Client,
    config: &Config,
    tables: &[Table],
) -> Result<Oddities, CatalogError> {
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let unkeyed = |table: &&Table| {
        table.partitioned
            && !table
                .key
                .as_ref()
                .is_some_and(|key| key.primary && !key.deferrable)
    };
    let [extra_unique, blocking_unique] = uniques(client, tables).await?;
    Ok(Oddities {
        unlogged: unlogged(client, config).await?,
        extra_unique,
        blocking_unique,
        shadows: shadows(client).await?,
        checked_columns: checked_columns(client, &oids).await?,
        virtual_columns: virtual_columns(client, &oids).await?,
        always_triggers: always_triggers(client, &oids).await?,
        unqualified: super::bodies::gather(client, &oids).await?,
        sequences: super::sequence_facts::sequences(client, &oids).await?,
        foreign_partitions: foreign_partitions(client, &oids).await?,
        partitions_unkeyed: tables.iter().filter(unkeyed).map(Table::readable).collect(),
    })
}

async fn unlogged(client: &Client, config: &Config) -> Result<Vec<String>, CatalogError> {
    let sql = "select n.nspname::text, c.relname::text from pg_catalog.pg_class c
               join pg_catalog.pg_namespace n on n.oid = c.relnamespace
               where c.relkind in ('r', 'p') and c.relpersistence = 'u' order by 1, 2";
    let rows = client
        .query(sql, &[])
        .await
        .map_err(CatalogError::query("list unlogged tables"))?;
    let names: Vec<(String, String)> = each(&rows, |row| Ok((row.read(0)?, row.read(1)?)))?;
    let matched = names
        .into_iter()
        .filter(|(schema, name)| config.tables.matches(schema, name));
    Ok(matched
        .map(|(schema, name)| crate::catalog::names::readable(&schema, &name))
        .collect())
}

/// Unique beside the key: indexes that `catalog::unique` handles, and the others.
async fn uniques(
    client: &Client,
    tables: &[Table],
) -> Result<[Vec<(String, String)>; 2], CatalogError> {
    let of = |keyed: bool| {
        let tables = tables
            .iter()
            .filter(move |table| table.key.is_some() == keyed);
        tables.flat_map(|table| {
            let indexes = table.uniques.indexes.iter();
            indexes.map(|unique| (table.readable(), unique.index.clone()))
        })
    };
    let mut blocking: Vec<(String, String)> = of(false).collect();
    let sql = "
        select r.oid, ic.relname::text,
               case when i.indisunique and i.indexprs is null and i.indpred is null then array(
                   select a.attname::text from pg_catalog.pg_attribute a
                   where a.attrelid = p.relid
                     and a.attnum = any((i.indkey::int2[])[0:i.indnkeyatts - 1])
                   union
                   select a.attname::text
                   from pg_catalog.pg_partition_ancestors(p.relid) x(relid)
                   join pg_catalog.pg_inherits h on h.inhrelid = x.relid
                   join pg_catalog.pg_class xc on xc.oid = x.relid
                   join pg_catalog.pg_partitioned_table pt on pt.partrelid = h.inhparent
                        and pt.partstrat = 'l'
                   join pg_catalog.pg_attribute a on a.attrelid = h.inhparent
                        and a.attnum = pt.partattrs[0]
                   where pg_catalog.pg_get_expr(xc.relpartbound, xc.oid)
                       ~ '^FOR VALUES IN \\((''([^'']|'''')*''|[^,'']*)\\)$')
               end
        from pg_catalog.unnest($1::oid[]) r(oid)
        cross join lateral pg_catalog.pg_partition_tree(r.oid) p
        join pg_catalog.pg_index i on i.indrelid = p.relid and (i.indisunique or i.indisexclusion)
        join pg_catalog.pg_class ic on ic.oid = i.indexrelid and not ic.relispartition
        where p.relid <> r.oid
        order by 1, 2";
    let roots = tables.iter().filter(|table| table.partitioned);
    let by_oid: HashMap<u32, &Table> = roots.map(|table| (table.oid, table)).collect();
    let oids: Vec<u32> = by_oid.keys().copied().collect();
    let rows = client.query(sql, &[&oids]).await;
    let rows = rows.map_err(CatalogError::query("list unique indexes of partitions"))?;
    for row in &rows {
        let Some(table) = by_oid.get(&row.read(0)?) else {
            continue;
        };
        // Columns that rows with the same values there have in common.
        let same: Option<Vec<String>> = row.read(2)?;
        let is_key = table.key.as_ref().zip(same).is_some_and(|(key, same)| {
            let mut columns = key.columns.iter();
            columns.all(|column| same.contains(&column.name))
        });
        if !is_key {
            blocking.push((table.readable(), row.read(1)?));
        }
    }
    Ok([of(true).collect(), blocking])
}

/// How many rows are kept aside; none where `init` was not run.
async fn shadows(client: &Client) -> Result<i64, CatalogError> {
    let failed = || CatalogError::query("count rows kept aside");
    let there = "select pg_catalog.to_regclass('mmrepl.shadow') is not null";
    let there = client.query_one(there, &[]).await.map_err(failed())?;
    if !there.read::<bool>(0)? {
        return Ok(0);
    }
    let count = "select pg_catalog.count(*) from mmrepl.shadow";
    let count = client.query_one(count, &[]).await.map_err(failed())?;
    Ok(count.read(0)?)
}

async fn checked_columns(
    client: &Client,
    oids: &[u32],
) -> Result<Vec<(String, String, String)>, CatalogError> {
    let sql = "
        select n.nspname::text, c.relname::text, a.attname::text, k.conname::text
        from pg_catalog.pg_constraint k
        join pg_catalog.pg_class c on c.oid = k.conrelid
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        join pg_catalog.pg_attribute a on a.attrelid = k.conrelid and a.attnum = any(k.conkey)
        where k.contype = 'c' and k.conrelid = any($1)
        order by 1, 2, 3, 4";
    let rows = client.query(sql, &[&oids]).await;
    let rows = rows.map_err(CatalogError::query("list check constraints"))?;
    let found = |row: &tokio_postgres::Row| {
        let table = crate::catalog::names::readable(row.read(0)?, row.read(1)?);
        Ok((table, row.read(2)?, row.read(3)?))
    };
    Ok(each(&rows, found)?)
}

async fn virtual_columns(
    client: &Client,
    oids: &[u32],
) -> Result<Vec<(String, String)>, CatalogError> {
    let sql = "
        select n.nspname::text, c.relname::text, a.attname::text
        from pg_catalog.pg_attribute a
        join pg_catalog.pg_class c on c.oid = a.attrelid
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where a.attgenerated = 'v' and not a.attisdropped and a.attrelid = any($1)
        order by 1, 2, a.attnum";
    let rows = client.query(sql, &[&oids]).await;
    let rows = rows.map_err(CatalogError::query("list generated columns"))?;
    let found = |row: &tokio_postgres::Row| {
        let table = crate::catalog::names::readable(row.read(0)?, row.read(1)?);
        Ok((table, row.read(2)?))
    };
    Ok(each(&rows, found)?)
}

/// Their rows are elsewhere, and no server sends them.
async fn foreign_partitions(
    client: &Client,
    oids: &[u32],
) -> Result<Vec<(String, String)>, CatalogError> {
    let sql = "
        select tn.nspname::text, t.relname::text, n.nspname::text, c.relname::text
        from pg_catalog.unnest($1::oid[]) r(oid)
        cross join lateral pg_catalog.pg_partition_tree(r.oid) p
        join pg_catalog.pg_class c on c.oid = p.relid and c.relkind = 'f'
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        join pg_catalog.pg_class t on t.oid = r.oid
        join pg_catalog.pg_namespace tn on tn.oid = t.relnamespace
        order by 1, 2, 3, 4";
    let rows = client.query(sql, &[&oids]).await;
    let rows = rows.map_err(CatalogError::query("list foreign partitions"))?;
    let readable = crate::catalog::names::readable;
    let names = |row: &tokio_postgres::Row| {
        let table = readable(row.read(0)?, row.read(1)?);
        Ok((table, readable(row.read(2)?, row.read(3)?)))
    };
    Ok(each(&rows, names)?)
}

async fn always_triggers(
    client: &Client,
    oids: &[u32],
) -> Result<Vec<(String, String)>, CatalogError> {
    let sql = "
        select n.nspname::text, c.relname::text, t.tgname::text
        from pg_catalog.pg_trigger t
        join pg_catalog.pg_class c on c.oid = t.tgrelid
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where t.tgrelid = any($1) and not t.tgisinternal and t.tgenabled in ('A', 'R')
          and t.tgname::text !~ '^(zzz_)?mmrepl_'
        order by 1, 2, 3";
    let rows = client.query(sql, &[&oids]).await;
    let rows = rows.map_err(CatalogError::query("list triggers"))?;
    let name = |row: &tokio_postgres::Row| {
        let table = crate::catalog::names::readable(row.read(0)?, row.read(1)?);
        Ok((table, row.read(2)?))
    };
    Ok(each(&rows, name)?)
}
