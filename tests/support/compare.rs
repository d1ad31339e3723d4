//! Are two databases equal? Whole tables decide, not samples.

use std::collections::BTreeMap;
use std::time::Duration;

use mmrepl::lsn::Lsn;
use tokio_postgres::Client;

use super::wait::ensure;
use super::{Cluster, LIMIT, Node, pg, wait_until};

/// How many differing rows a failure shows.
const SHOWN_MAX: usize = 10;

/// Every ordinary and partitioned table of an application, with its columns in one order for all
/// nodes, whatever the order of the columns in the table. From 19 on a WAL position has leading
/// zeros as text, also within other types.
const TABLES: &str = r"
    select format('%I.%I', n.nspname, c.relname),
           string_agg(case
               when t.typnamespace = 'pg_catalog'::regnamespace and t.typname !~ 'pg_lsn'
               then format('%I', a.attname)
               else format('regexp_replace(%I::text, %L, %L, ''g'')', a.attname,
                           '(\m[0-9A-F]+/)0+(?=[0-9A-F])', '\1')
               end, ',' order by a.attname)
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    join pg_type t on t.oid = a.atttypid
    where c.relkind in ('r', 'p') and not c.relispartition and c.relpersistence = 'p'
      and n.nspname not in ('mmrepl', 'pg_catalog', 'information_schema')
      and n.nspname not like 'pg\_%'
    group by 1 order by 1";

/// Row count and a sum over a hash of each row: equal sets of rows give equal sums in any order,
/// and no sort is needed. Hashed as UTF-8, so that databases of other encodings can be compared.
fn digest_query(table: &str, columns: &str) -> String {
    format!(
        "select count(*) || ' ' || coalesce(sum(('x' || left(md5(convert_to(
            row({columns})::text, 'UTF8')), 15))::bit(60)::bigint::numeric), 0) from {table}"
    )
}

async fn digests(client: &Client) -> BTreeMap<(String, String), String> {
    let mut digests = BTreeMap::new();
    for row in pg::rows(client, TABLES).await {
        let [Some(table), Some(columns)] = row.as_slice() else {
            unreachable!("two columns")
        };
        let digest = pg::value(client, &digest_query(table, columns)).await;
        digests.insert((table.clone(), columns.clone()), digest);
    }
    digests
}

/// Says how two nodes differ, if they do.
pub async fn difference(a: &Node, b: &Node) -> Result<(), String> {
    let (client_a, client_b) = (a.client().await, b.client().await);
    let (in_a, in_b) = (digests(&client_a).await, digests(&client_b).await);
    let names =
        |digests: &BTreeMap<(String, String), String>| digests.keys().cloned().collect::<Vec<_>>();
    ensure(names(&in_a) == names(&in_b), || {
        format!("tables differ: {in_a:?} and {in_b:?}")
    })?;
    for ((table, columns), digest) in &in_a {
        if in_b[&(table.clone(), columns.clone())] != *digest {
            return Err(row_difference((&client_a, a), (&client_b, b), table, columns).await);
        }
    }
    Ok(())
}

/// The rows that only one side has, a few of them.
async fn row_difference(
    (client_a, a): (&Client, &Node),
    (client_b, b): (&Client, &Node),
    table: &str,
    columns: &str,
) -> String {
    let query =
        format!("select left(row({columns})::text, 300) from {table} order by 1 limit 100000");
    let mut counts: BTreeMap<Option<String>, i64> = BTreeMap::new();
    for (client, step) in [(client_a, 1), (client_b, -1)] {
        for row in pg::rows(client, &query).await {
            *counts.entry(row.into_iter().next().flatten()).or_default() += step;
        }
    }
    let side = |count: i64| if count > 0 { a.name } else { b.name };
    let line = |(row, count): (&Option<String>, &i64)| format!("only on {}: {row:?}", side(*count));
    let differing = counts.iter().filter(|(_, count)| **count != 0);
    let lines: Vec<_> = differing.map(line).take(SHOWN_MAX).collect();
    format!("{table} ({columns}) differs:\n{}", lines.join("\n"))
}

impl Cluster {
    /// Waits until every link has applied what its source has written so far.
    pub async fn settle(&self) {
        self.settle_within(LIMIT).await;
    }

    /// The same with a limit of its own.
    pub async fn settle_within(&self, limit: Duration) {
        for node in &self.nodes {
            let client = node.client().await;
            let end = pg::value(&client, "select pg_current_wal_flush_lsn()").await;
            let end: Lsn = end.parse().unwrap();
            wait_until(
                &format!("the links of {} to reach {end}", node.name),
                limit,
                async || {
                    let status = self.status().await?;
                    let links = status["links"].as_array().cloned().unwrap_or_default();
                    let behind = links.iter().find(|link| {
                        let applied = link["lsn"]["applied"].as_str().unwrap_or("0/0");
                        link["from"] == node.name && applied.parse::<Lsn>().unwrap() < end
                    });
                    ensure(behind.is_none(), || format!("{behind:?}"))
                },
            )
            .await;
        }
    }

    /// Waits until all nodes have equal tables. The usual end of a test.
    pub async fn wait_equal(&self) {
        self.wait_equal_within(LIMIT).await;
    }

    /// The same with a limit of its own.
    pub async fn wait_equal_within(&self, limit: Duration) {
        self.settle_within(limit).await;
        for other in &self.nodes[1..] {
            wait_until("nodes to be equal", limit, async || {
                difference(self.east(), other).await
            })
            .await;
        }
    }
}
