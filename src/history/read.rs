//! Reading the records of one node.

use std::time::Duration;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use super::HistoryError;
use super::model::{Column, Conflict, ConflictId, Side, StatsLine};
use crate::commit_time::CommitTime;
use crate::ids::{LinkName, NodeName};
use crate::wire::{RowExt, Unread, each, from_tokio_postgres};

/// Which records.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Decided no longer ago than this.
    pub since: Option<Duration>,
    /// `table` or `schema.table`.
    pub table: Option<String>,
    /// Only what waits for a person.
    pub pending: bool,
    /// At most so many of each node, the newest.
    pub limit: i64,
}

/// A `timestamptz` as microseconds since 2000.
macro_rules! micros {
    ($column:literal) => {
        concat!(
            "(extract(epoch from ",
            $column,
            ") * 1000000)::bigint - 946684800000000"
        )
    };
}

/// Values in characters: where a database keeps any bytes, those above 127 are escaped.
macro_rules! values {
    ($column:literal) => {
        concat!(
            "case when ",
            $column,
            " is not null and pg_catalog.current_setting('server_encoding') = 'SQL_ASCII'
             then array(select encode(convert_to(u.v, 'SQL_ASCII'), 'escape') from unnest(",
            $column,
            ") with ordinality u(v, n) order by u.n) else ",
            $column,
            " end"
        )
    };
}

const SELECT: &str = concat!(
    "select id, ",
    micros!("decided_at"),
    ", source, target, schema_name, table_name, key_columns, ",
    values!("key_values"),
    ", kind, rule, outcome, incoming_columns, ",
    values!("incoming_values"),
    ", ",
    micros!("incoming_time"),
    ", incoming_origin, local_columns, ",
    values!("local_values"),
    ", ",
    micros!("local_time"),
    ", local_node, local_origin, ",
    micros!("restored_at"),
    ", incoming_version, local_version, ",
    micros!("resolved_at"),
    ", resolved_as, pg_catalog.current_setting('server_encoding') = 'SQL_ASCII'",
    " from mmrepl.conflict"
);

/// `$1` seconds, `$2` table.
macro_rules! matches {
    ($time:literal) => {
        concat!(
            " where ($1::float8 is null or ",
            $time,
            " >= pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $1))
              and ($2::text is null or $2 in (table_name, schema_name || '.' || table_name))"
        )
    };
}

fn unread(node: &NodeName) -> impl FnOnce(Unread) -> HistoryError + '_ {
    move |unread| HistoryError::Node {
        node: node.to_string(),
        what: "read the history of conflicts",
        source: unread.into(),
    }
}

fn failed(node: &NodeName) -> impl FnOnce(tokio_postgres::Error) -> HistoryError + '_ {
    move |error| HistoryError::Node {
        node: node.to_string(),
        what: "read the history of conflicts",
        source: from_tokio_postgres(error),
    }
}

/// The records of `node`, the newest first.
pub async fn history(
    client: &Client,
    node: &NodeName,
    filter: &Filter,
) -> Result<Vec<Conflict>, HistoryError> {
    let sql = format!(
        "{SELECT}{} and (not $4 or outcome = 'pending' and resolved_at is null)
         order by id desc limit $3",
        matches!("decided_at")
    );
    let since = filter.since.map(|since| since.as_secs_f64());
    let parameters: [&(dyn ToSql + Sync); 4] =
        [&since, &filter.table, &filter.limit, &filter.pending];
    let rows = client.query(&sql, &parameters).await;
    let rows = rows.map_err(failed(node))?;
    let records: Vec<Option<Conflict>> =
        each(&rows, |row| conflict(node, row)).map_err(unread(node))?;
    Ok(records.into_iter().flatten().collect())
}

/// One record, locked when somebody is about to act on it.
pub async fn one(client: &Client, id: &ConflictId, lock: bool) -> Result<Conflict, HistoryError> {
    let lock = if lock { " for update" } else { "" };
    let sql = format!("{SELECT} where id = $1{lock}");
    let row = client.query_opt(&sql, &[&id.number]).await;
    let row = row.map_err(failed(&id.node))?;
    let found = row.map_or(Ok(None), |row| conflict(&id.node, &row));
    let found = found.map_err(unread(&id.node))?;
    found.ok_or_else(|| HistoryError::Unknown(id.clone()))
}

/// Names and values from `index` on.
fn pairs(row: &Row, index: usize) -> Result<Option<Vec<Column>>, Unread> {
    let names: Option<Vec<String>> = row.read(index)?;
    let values: Option<Vec<Option<String>>> = row.read(index + 1)?;
    let escaped = row.read(25)?;
    let column = |(name, value)| Column {
        name,
        value,
        escaped,
    };
    let pairs = names.zip(values);
    Ok(pairs.map(|(names, values)| names.into_iter().zip(values).map(column).collect()))
}

fn time(row: &Row, index: usize) -> Result<Option<CommitTime>, Unread> {
    let micros: Option<i64> = row.read(index)?;
    Ok(micros.map(CommitTime::from_postgres_micros))
}

fn conflict(node: &NodeName, row: &Row) -> Result<Option<Conflict>, Unread> {
    let name = |text: Option<&str>| text?.parse::<NodeName>().ok();
    let ends = name(row.read(2)?).zip(name(row.read(3)?));
    let Some(((from, to), decided_at)) = ends.zip(time(row, 1)?) else {
        return Ok(None);
    };
    let link = LinkName { from, to };
    Ok(Some(Conflict {
        id: ConflictId {
            node: node.clone(),
            number: row.read(0)?,
        },
        decided_at,
        schema: row.read(4)?,
        table: row.read(5)?,
        key: pairs(row, 6)?.unwrap_or_default(),
        kind: row.read(8)?,
        rule: row.read(9)?,
        outcome: row.read(10)?,
        incoming: Side {
            node: Some(link.from.clone()),
            row: pairs(row, 11)?,
            at: time(row, 13)?,
            origin: row.read(14)?,
            version: row.read(21)?,
        },
        local: Side {
            row: pairs(row, 15)?,
            at: time(row, 17)?,
            node: name(row.read(18)?),
            origin: row.read(19)?,
            version: row.read(22)?,
        },
        restored_at: time(row, 20)?,
        resolved_at: time(row, 23)?,
        resolved_as: row.read(24)?,
        link,
    }))
}

const COUNTS: &str = concat!(
    "select schema_name, table_name, kind, outcome, count(*), ",
    micros!("max(decided_at)"),
    " from mmrepl.conflict",
    matches!("decided_at"),
    " group by 1, 2, 3, 4
     union all
     select schema_name, table_name, null, null, sum(left_out)::bigint, ",
    micros!("max(minute)"),
    " from mmrepl.conflict_left_out",
    matches!("minute"),
    " group by 1, 2 order by 1, 2, 5 desc"
);

/// How often what happened on `node`.
pub async fn stats(
    client: &Client,
    node: &NodeName,
    filter: &Filter,
) -> Result<Vec<StatsLine>, HistoryError> {
    let since = filter.since.map(|since| since.as_secs_f64());
    let rows = client.query(COUNTS, &[&since, &filter.table]).await;
    let rows = rows.map_err(failed(node))?;
    let line = |row: &Row| {
        Ok(StatsLine {
            node: node.clone(),
            schema: row.read(0)?,
            table: row.read(1)?,
            kind: row.read(2)?,
            outcome: row.read(3)?,
            count: row.read(4)?,
            last: time(row, 5)?.unwrap_or_default(),
        })
    };
    each(&rows, line).map_err(unread(node))
}
