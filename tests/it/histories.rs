//! Random histories on real servers: written while the links are paused, then while they run.
//!
//! The generator is the model's. Every history has a table of its own, so that many of them share
//! a cluster and a pause.

use std::fmt::Write as _;
use std::time::Duration;

use tokio_postgres::Client;

use crate::history::{self, Step, Write};
use crate::support::pg::TextRow;
use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, Rng, pg, pool, wait_until};

/// What follows on each round of writing apart.
enum Then {
    /// One link, to the first node, applies what there is; the others go on waiting.
    LetThrough(&'static str),
    /// All links apply everything.
    Together,
}

/// The rounds; after them comes one in which the links run all the time.
const APART: [Then; 4] = [
    Then::LetThrough("west"),
    Then::Together,
    Then::LetThrough("north"),
    Then::Together,
];
/// All rounds of writing.
const ROUNDS: usize = APART.len() + 1;
/// How long nodes may take to become equal once everything is applied.
const EQUAL_LIMIT: Duration = Duration::from_secs(30);

/// The transactions of one table, by round.
struct Table {
    name: String,
    rounds: Vec<Vec<Step>>,
}

impl Table {
    fn random(number: usize, nodes: u8, rng: &mut Rng) -> Self {
        let mut round = || -> Vec<Step> {
            let commits = 1 + rng.below(4);
            let mut below = |bound| rng.below(bound);
            (0..commits)
                .map(|_| history::commit(&mut below, nodes))
                .collect()
        };
        Self {
            name: format!("h{number}"),
            rounds: (0..ROUNDS).map(|_| round()).collect(),
        }
    }

    /// A quarter of the tables send whole old rows.
    fn create(&self, number: usize) -> String {
        let name = &self.name;
        let mut sql = format!(
            "create table {name} (id int primary key, small text not null, large text not null);
             alter table {name} alter column large set storage external;"
        );
        if number % 4 == 3 {
            let _ = write!(sql, "alter table {name} replica identity full;");
        }
        sql
    }

    fn history(&self) -> String {
        let mut text = String::new();
        for (round, steps) in self.rounds.iter().enumerate() {
            let _ = writeln!(text, "{} round {round}:", self.name);
            steps.iter().for_each(|step| {
                let _ = writeln!(text, "  {step}");
            });
        }
        text
    }
}

/// One statement. Large values are stored out of line, uncompressed.
fn sql(table: &str, write: Write, fresh: u32) -> String {
    let large = format!("repeat('.', 2500) || {fresh}");
    match write {
        Write::Put(key) => format!(
            "insert into {table} values ({key}, {fresh}, {large})
             on conflict (id) do update set small = excluded.small, large = excluded.large"
        ),
        Write::Small(key) => format!("update {table} set small = {fresh} where id = {key}"),
        Write::Large(key) => format!("update {table} set large = {large} where id = {key}"),
        Write::Move(from, to) => format!(
            "update {table} set id = {to} where id = {from}
             and not exists (select from {table} where id = {to})"
        ),
        Write::Delete(key) => format!("delete from {table} where id = {key}"),
        Write::Truncate => format!("truncate {table}"),
    }
}

/// The cluster under test with a session on each node.
struct Scene {
    cluster: Cluster,
    clients: Vec<Client>,
    tables: Vec<Table>,
    fresh: u32,
}

impl Scene {
    async fn new(majors: &[u32], count: usize, mut rng: Rng) -> Self {
        let nodes = u8::try_from(majors.len()).expect("three at most");
        let tables: Vec<Table> = (0..count)
            .map(|number| Table::random(number, nodes, &mut rng))
            .collect();
        let created = tables
            .iter()
            .enumerate()
            .map(|(number, table)| table.create(number));
        let schema: String = created.collect();
        let cluster = Cluster::running_with(ClusterOptions::majors(majors), &schema).await;
        cluster.wait_streaming().await;
        let mut clients = Vec::new();
        for node in &cluster.nodes {
            clients.push(node.client().await);
        }
        Self {
            cluster,
            clients,
            tables,
            fresh: 0,
        }
    }

    async fn write(&mut self, round: usize) {
        for table in &self.tables {
            for step in &table.rounds[round] {
                let Step::Commit(node, writes) = step else {
                    continue;
                };
                let mut transaction = "begin;".to_owned();
                for write in writes {
                    self.fresh += 1;
                    transaction += &sql(&table.name, *write, self.fresh);
                    transaction += ";";
                }
                transaction += "commit";
                pg::execute(&self.clients[usize::from(*node)], &transaction).await;
            }
        }
    }

    async fn play(&mut self) {
        self.cluster.pause_all().await;
        for (round, then) in APART.iter().enumerate() {
            self.write(round).await;
            match then {
                Then::LetThrough(from) => {
                    let nodes = &self.cluster.nodes;
                    let known = nodes.iter().any(|node| node.name == *from);
                    let from = if known { from } else { "west" };
                    self.cluster.let_through(from, "east").await;
                }
                Then::Together => {
                    self.cluster.resume_all().await;
                    self.wait_equal(round).await;
                    self.cluster.pause_all().await;
                }
            }
        }
        self.cluster.resume_all().await;
        self.write(ROUNDS - 1).await;
        self.wait_equal(ROUNDS - 1).await;
    }

    async fn wait_equal(&self, round: usize) {
        self.cluster.settle().await;
        let what = format!("nodes to be equal after round {round}");
        wait_until(&what, EQUAL_LIMIT, async || self.compare().await).await;
    }

    async fn rows(&self, node: usize) -> Vec<TextRow> {
        let of = |table: &Table| {
            let name = &table.name;
            format!("select '{name}', id, small, right(large, -2500) from {name}")
        };
        let all: Vec<String> = self.tables.iter().map(of).collect();
        pg::rows(
            &self.clients[node],
            &(all.join(" union all ") + " order by 1, 2"),
        )
        .await
    }

    async fn compare(&self) -> Result<(), String> {
        let first = self.rows(0).await;
        for (node, other) in self.cluster.nodes.iter().enumerate().skip(1) {
            let rows = self.rows(node).await;
            ensure(rows == first, || self.report(&first, &rows, other.name))?;
        }
        Ok(())
    }

    fn report(&self, first: &[TextRow], other: &[TextRow], name: &str) -> String {
        let of = |rows: &[TextRow], table: &str| -> Vec<TextRow> {
            let is_its = |row: &&TextRow| row[0].as_deref() == Some(table);
            rows.iter().filter(is_its).cloned().collect()
        };
        let mut text = String::new();
        for table in &self.tables {
            let (here, there) = (of(first, &table.name), of(other, &table.name));
            if here != there {
                let _ = writeln!(text, "{}east: {here:?}\n{name}: {there:?}", table.history());
            }
        }
        text
    }
}

async fn two_nodes(majors: &[u32]) {
    Scene::new(majors, 220, Rng::from_env(3)).await.play().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_end_equal() {
    two_nodes(&[pool::usual_major(); 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_end_equal() {
    Scene::new(&[pool::usual_major(); 3], 80, Rng::from_env(4))
        .await
        .play()
        .await;
}
