//! The session that writes, and what its writes cost.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use tokio_postgres::{Client, NoTls, Statement};

use crate::process::cpu_nanos;

/// A statement that deletes many takes so many times the rows of the single ones.
const MANY: i64 = 10;

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Measure {
    Insert,
    Update,
    Delete,
    InsertAndCommit,
    UpdateAndCommit,
    DeleteAndCommit,
    DeleteMany,
}

impl Measure {
    /// In the order in which rows come and go.
    pub(crate) const ALL: [Self; 7] = [
        Self::Insert,
        Self::Update,
        Self::Delete,
        Self::InsertAndCommit,
        Self::UpdateAndCommit,
        Self::DeleteAndCommit,
        Self::DeleteMany,
    ];

    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Insert => "insert of a row",
            Self::Update => "update of a row",
            Self::Delete => "delete of a row",
            Self::InsertAndCommit => "insert and commit",
            Self::UpdateAndCommit => "update and commit",
            Self::DeleteAndCommit => "delete and commit",
            Self::DeleteMany => "delete of many, a row",
        }
    }

    fn commits(self) -> bool {
        matches!(
            self,
            Self::InsertAndCommit | Self::UpdateAndCommit | Self::DeleteAndCommit
        )
    }

    /// The statement about one row.
    fn sql(self, table: &str) -> String {
        match self {
            Self::Insert | Self::InsertAndCommit => {
                format!("insert into {table} (id, v, note) values ($1, 1, 'a note')")
            }
            Self::Update | Self::UpdateAndCommit => {
                format!("update {table} set v = v + 1 where id = $1")
            }
            Self::Delete | Self::DeleteAndCommit => format!("delete from {table} where id = $1"),
            Self::DeleteMany => format!("delete from {table} where id > $1"),
        }
    }
}

/// For one row: CPU of the writing backend, and WAL.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) micros: f64,
    pub(crate) wal_bytes: f64,
}

/// The least that each took.
#[derive(Debug, Default)]
pub(crate) struct Spent {
    costs: BTreeMap<Measure, Cost>,
}

impl Spent {
    pub(crate) fn add(&mut self, measure: Measure, cost: Cost) {
        let least = self.costs.entry(measure).or_insert(cost);
        least.micros = least.micros.min(cost.micros);
        least.wal_bytes = least.wal_bytes.min(cost.wal_bytes);
    }

    pub(crate) fn of(&self, measure: Measure) -> Cost {
        self.costs[&measure]
    }
}

/// The session that writes.
pub(crate) struct Writer {
    client: Client,
    backend: String,
    rows: i64,
    /// How many statements are on their way at once.
    at_once: i64,
    /// Where the next ids of each table begin: no key comes again.
    next: BTreeMap<&'static str, i64>,
}

impl Writer {
    pub(crate) async fn connect(dsn: &str, rows: i64, at_once: i64) -> Self {
        let connected = tokio_postgres::connect(dsn, NoTls).await;
        let (client, connection) = connected.expect("the server answers");
        tokio::spawn(connection);
        let row = client.query_one("select pg_backend_pid()::text", &[]).await;
        let backend = row.expect("a backend has a number").get(0);
        let mut writer = Self {
            client,
            backend,
            rows,
            at_once,
            next: BTreeMap::new(),
        };
        writer.run("set synchronous_commit = off").await;
        writer
    }

    async fn run(&mut self, sql: &str) {
        let done = self.client.batch_execute(sql).await;
        assert!(done.is_ok(), "{sql}: {done:?}");
    }

    /// Rows that stay, and tombstones of others.
    pub(crate) async fn fill(&mut self, table: &'static str) {
        let rows = self.rows;
        self.insert(table, 1, 3 * rows).await;
        self.run(&format!("delete from {table} where id > {}", 2 * rows))
            .await;
        for id in rows..rows + 100 {
            self.run(&format!("delete from {table} where id = {id}"))
                .await;
        }
        self.run(&format!("vacuum analyze {table}")).await;
        self.next.insert(table, 3 * rows + 1);
    }

    async fn insert(&mut self, table: &str, from: i64, to: i64) {
        self.run(&format!(
            "insert into {table} (id, v, note) \
             select i, 1, 'a note' from generate_series({from}, {to}) i"
        ))
        .await;
    }

    /// What `measure` costs; rows are as they were before once deletes have followed inserts.
    pub(crate) async fn measure(&mut self, table: &'static str, measure: Measure) -> Cost {
        let from = self.next[table];
        let statement = self.client.prepare(&measure.sql(table)).await;
        let statement = statement.expect("the statement is right");
        if measure == Measure::DeleteMany {
            let rows = MANY * self.rows;
            self.insert(table, from, from + rows - 1).await;
            let before = self.spent().await;
            let deleted = self.client.execute(&statement, &[&(from - 1)]).await;
            let cost = self.since(before, rows).await;
            let deleted = deleted.expect("rows are deleted");
            assert_eq!(Ok(deleted), u64::try_from(rows));
            self.next.insert(table, from + rows);
            return cost;
        }
        // Whoever runs it for the first time reads the catalog.
        self.one_by_one(&statement, [0, 0, 0]).await;
        let before = self.spent().await;
        if !measure.commits() {
            self.run("begin").await;
        }
        self.each(&statement, from).await;
        if !measure.commits() {
            self.run("commit").await;
        }
        let cost = self.since(before, self.rows).await;
        if matches!(measure, Measure::Delete | Measure::DeleteAndCommit) {
            self.next.insert(table, from + self.rows);
        }
        cost
    }

    /// Rows that stay are no part of what is measured.
    async fn one_by_one(&mut self, statement: &Statement, ids: [i64; 3]) {
        for id in ids {
            self.run("begin").await;
            let done = self.client.execute(statement, &[&id]).await;
            assert!(done.is_ok(), "{done:?}");
            self.run("rollback").await;
        }
    }

    /// Once for each of the rows.
    async fn each(&mut self, statement: &Statement, from: i64) {
        let mut id = from;
        while id < from + self.rows {
            let ids: Vec<i64> = (id..(id + self.at_once).min(from + self.rows)).collect();
            let client = &self.client;
            let sent = ids
                .iter()
                .map(|id| async move { client.execute(statement, &[id]).await });
            let done = try_join_all(sent).await.expect("rows are written");
            assert!(done.iter().all(|rows| *rows == 1));
            id += self.at_once;
        }
    }

    /// CPU time so far in nanoseconds, and where the WAL ends.
    async fn spent(&self) -> (u64, i64) {
        let sql = "select (pg_current_wal_insert_lsn() - '0/0')::bigint";
        let row = self.client.query_one(sql, &[]).await;
        let wal = row.expect("the WAL has an end").get(0);
        (cpu_nanos(&self.backend), wal)
    }

    #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
    async fn since(&self, before: (u64, i64), rows: i64) -> Cost {
        let now = self.spent().await;
        let rows = rows as f64;
        Cost {
            micros: (now.0 - before.0) as f64 / 1000.0 / rows,
            wal_bytes: (now.1 - before.1) as f64 / rows,
        }
    }
}
