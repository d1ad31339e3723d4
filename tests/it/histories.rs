//! Random histories on real servers: written while the links are paused, then while they run.
//!
//! The generator is the model's. Many histories share a cluster and its pauses. Either each has a
//! table of its own, or all of them are in one table, each with keys of its own: then groups have
//! enough rows for the statements that write many of them at once.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::history::{self, KEYS, Step, Strategy, Write};
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
/// A statement that makes a duplicate does nothing. To look first would not be enough: while the
/// links run, the row that is in the way may arrive between the look and the write.
const ATTEMPT: &str = "create function attempt(statement text) returns void language plpgsql as $$
    begin execute statement; exception when unique_violation then null; end $$;";
/// For rule `custom`: neither associative nor commutative, nor does it keep every row.
const MADE_OF: &str = "create function made_of(a jsonb, b jsonb, meta jsonb) returns jsonb
    language sql immutable as $$
    with made as (select pg_catalog.md5(concat_ws('/', a ->> 'small', '-', b ->> 'small')) as small)
    select case when small < 'e' then pg_catalog.jsonb_build_object('small', small,
        'id', coalesce(a, b) -> 'id', 'large', coalesce(b, a) -> 'large', 'count', 0) end
    from made $$;";
/// All rounds of writing.
pub const ROUNDS: usize = APART.len() + 1;
/// How long nodes may take to become equal once everything is applied.
const EQUAL_LIMIT: Duration = Duration::from_secs(30);

/// What is played.
#[derive(Clone, Copy)]
pub struct What {
    /// Where the rows are.
    pub place: Place,
    /// How many histories.
    pub count: usize,
    /// The rule.
    pub strategy: Strategy,
    /// What the configuration says instead, where rows merge.
    pub merging: Option<&'static str>,
    /// Values are unique beside the key.
    pub unique: bool,
}

/// Counters only; columns decided each by itself, and a counter.
pub const MERGING: [&str; 2] = [
    "strategy = \"hybrid_clock\"\ndelta_columns = [\"count\"]",
    "strategy = \"column_merge\"\ndelta_columns = [\"count\"]",
];

/// Where the rows of a history are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Each history has a table of its own.
    OwnTable,
    /// All of them are in one table.
    SharedTable,
}

/// The word in the configuration, and the column with the version.
fn names_of(strategy: Strategy) -> (&'static str, &'static str) {
    match strategy {
        Strategy::LastWriteWins => ("last_write_wins", "null"),
        Strategy::VersionColumn => ("version_column", "version"),
        Strategy::HybridClock => ("hybrid_clock", "mmrepl_version"),
        Strategy::FirstWriteWins => ("first_write_wins", "mmrepl_version"),
        Strategy::NodePriority => ("node_priority", "mmrepl_versions"),
        Strategy::Manual => ("manual", "mmrepl_known"),
        Strategy::Custom => ("custom", "mmrepl_known"),
    }
}

/// Runs a transaction, again when it is the victim of a deadlock with what is being applied.
async fn commit(client: &Client, transaction: &str) {
    while let Err(error) = client.batch_execute(transaction).await {
        let again = error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED);
        assert!(again, "{transaction}: {}", pg::explain(&error));
        pg::execute(client, "rollback").await;
    }
}

/// The transactions of one history, by round.
struct Written {
    table: String,
    strategy: Strategy,
    unique: bool,
    /// Added to the history's keys.
    first_key: usize,
    rounds: Vec<Vec<Step>>,
}

impl Written {
    fn random(number: usize, what: What, nodes: u8, rng: &mut Rng) -> Self {
        let mut round = || -> Vec<Step> {
            let commits = 1 + rng.below(4);
            let mut below = |bound| rng.below(bound);
            (0..commits)
                .map(|_| history::commit(&mut below, nodes))
                .collect()
        };
        let rounds = (0..ROUNDS).map(|_| round()).collect();
        let (table, first_key) = match what.place {
            Place::OwnTable => (format!("h{number}"), 0),
            Place::SharedTable => ("h".to_owned(), number * 10),
        };
        Self {
            table,
            strategy: what.strategy,
            unique: what.unique,
            first_key,
            rounds,
        }
    }

    /// A quarter of the tables send whole old rows.
    fn create(&self, number: usize) -> String {
        let name = &self.table;
        let mut sql = format!(
            "create table if not exists {name}
                 (id int primary key, small text not null, large text not null,
                  version numeric, taken int, count int not null default 0);
             alter table {name} alter column large set storage external;"
        );
        if self.unique {
            let _ = write!(
                sql,
                "create unique index if not exists {name}_taken on {name} (taken);"
            );
        }
        if number % 4 == 3 && self.first_key == 0 {
            let _ = write!(sql, "alter table {name} replica identity full;");
        }
        sql
    }

    fn history(&self) -> String {
        let mut text = String::new();
        for (round, steps) in self.rounds.iter().enumerate() {
            let _ = writeln!(
                text,
                "{} from {} round {round}:",
                self.table, self.first_key
            );
            for step in steps {
                let _ = writeln!(text, "  {step}");
            }
        }
        text
    }

    /// One statement. Large values are stored out of line, uncompressed.
    fn sql(&self, write: Write, fresh: u32) -> String {
        let table = &self.table;
        let large = format!("repeat('.', 2500) || {fresh}");
        // An application that keeps a version: none, an old one, a new one, or it forgets to.
        let version = ["null", "1", "2", "3.5"][fresh as usize / 2 % 4];
        let keeps = self.strategy == Strategy::VersionColumn && fresh.is_multiple_of(2);
        let version = if keeps { version } else { "version" };
        let inserted = if keeps { version } else { "null" };
        let at = |key: u8| self.first_key + usize::from(key);
        match write {
            Write::Put(key) => format!(
                "insert into {table} as t (id, small, large, version)
                 values ({}, {fresh}, {large}, {inserted}) on conflict (id) do update
                 set small = excluded.small, large = excluded.large, version = {}",
                at(key),
                version.replace("version", "t.version")
            ),
            Write::Small(key) => format!(
                "update {table} set small = {fresh}, version = {version}, count = count + {}
                 where id = {}",
                fresh % 5,
                at(key)
            ),
            Write::Large(key) => format!(
                "update {table} set large = {large}, version = {version} where id = {}",
                at(key)
            ),
            Write::Move(from, to) => format!(
                "select attempt($$update {table} set id = {} where id = {}$$)",
                at(to),
                at(from)
            ),
            Write::Take(key, value) => {
                let (id, taken) = (at(key), self.value(value));
                format!(
                    "select attempt($$insert into {table} as t (id, small, large, version, taken)
                     values ({id}, {fresh}, {large}, {inserted}, {taken}) on conflict (id) do update
                     set small = excluded.small, taken = excluded.taken, version = {}$$)",
                    version.replace("version", "t.version")
                )
            }
            Write::Delete(key) => format!("delete from {table} where id = {}", at(key)),
            Write::Truncate if table == "h" => {
                format!(
                    "delete from h where id between {} and {}",
                    at(0),
                    at(KEYS - 1)
                )
            }
            Write::Truncate => format!("truncate {table}"),
        }
    }

    /// The unique value with this number; each history has its own.
    fn value(&self, number: u8) -> String {
        match number {
            0 => "null".to_owned(),
            number => (self.first_key + usize::from(number)).to_string(),
        }
    }

    fn holds(&self, row: &TextRow) -> bool {
        let key: usize = row[1].as_deref().unwrap().parse().unwrap();
        let keys = self.first_key..self.first_key + usize::from(KEYS);
        row[0].as_deref() == Some(&self.table) && keys.contains(&key)
    }
}

/// The cluster under test with a session on each node.
pub struct Scene {
    /// The cluster.
    pub cluster: Cluster,
    clients: Vec<Client>,
    histories: Vec<Written>,
    /// Rows merge.
    pub merging: bool,
    fresh: u32,
    /// Conflicts wait for a person; this one throws dice.
    by_hand: Option<Rng>,
}

impl Scene {
    async fn new(majors: &[u32], what: What, rng: Rng) -> Self {
        Self::on(ClusterOptions::majors(majors), what, rng).await
    }

    /// Random histories on a cluster that runs, nothing written yet.
    pub async fn on(options: ClusterOptions, what: What, mut rng: Rng) -> Self {
        let nodes = u8::try_from(options.majors.len()).expect("three at most");
        let histories: Vec<Written> = (0..what.count)
            .map(|number| Written::random(number, what, nodes, &mut rng))
            .collect();
        let created = histories.iter().enumerate();
        let created = created.map(|(number, own)| own.create(number));
        let functions = [ATTEMPT, MADE_OF].map(str::to_owned);
        let schema: String = functions.into_iter().chain(created).collect();
        let tables: BTreeSet<&str> = histories.iter().map(|own| own.table.as_str()).collect();
        let rule = |table: &str| {
            let rule = format!("strategy = \"{}\"", names_of(what.strategy).0);
            let rule = what.merging.unwrap_or(&rule);
            let mut text = format!("[[conflict.table]]\nname = \"public.{table}\"\n{rule}\n");
            if what.strategy == Strategy::VersionColumn {
                text.push_str("version_column = \"version\"\n");
            }
            if what.strategy == Strategy::Custom {
                text.push_str("function = \"public.made_of\"\n");
            }
            text
        };
        let rules: String = tables.into_iter().map(rule).collect();
        let cluster = Cluster::running_with(options.config(&rules), &schema).await;
        cluster.wait_streaming().await;
        let mut scene = Self {
            cluster,
            clients: Vec::new(),
            histories,
            merging: what.merging.is_some(),
            fresh: 0,
            by_hand: (what.strategy == Strategy::Manual).then_some(rng),
        };
        scene.connect().await;
        scene
    }

    /// New sessions, after the servers were away.
    pub async fn connect(&mut self) {
        self.clients.clear();
        for node in &self.cluster.nodes {
            self.clients.push(node.client().await);
        }
    }

    /// Decides conflicts at random until none is left.
    async fn decide(&mut self) {
        let Some(rng) = &mut self.by_hand else { return };
        loop {
            self.cluster.settle().await;
            let mut waiting = Vec::new();
            for node in &self.cluster.nodes {
                let sql = format!(
                    "select '{}-' || id from mmrepl.conflict
                     where outcome = 'pending' and resolved_at is null",
                    node.name
                );
                waiting.extend(node.rows(&sql).await.into_iter().flatten().flatten());
            }
            if waiting.is_empty() {
                return;
            }
            for _ in 0..8 {
                let pick = rng.below(waiting.len() as u64);
                let id = &waiting[usize::try_from(pick).expect("an index")];
                let take = ["local", "remote"][usize::from(rng.below(2) == 0)];
                let resolve = ["conflicts", "resolve", id, "--take", take];
                let done = self.cluster.mmrepl(&resolve).await;
                let said = String::from_utf8_lossy(&done.stderr);
                let too_late = said.contains("is not pending") || said.contains("written again");
                assert!(done.status.success() || too_late, "{said}");
            }
        }
    }

    /// Writes what the histories have for a round.
    pub async fn write(&mut self, round: usize) {
        for own in &self.histories {
            for step in &own.rounds[round] {
                let Step::Commit(node, writes) = step else {
                    continue;
                };
                let mut transaction = "begin;".to_owned();
                for write in writes {
                    self.fresh += 1;
                    transaction += &own.sql(*write, self.fresh);
                    transaction += ";";
                }
                transaction += "commit";
                commit(&self.clients[usize::from(*node)], &transaction).await;
            }
        }
    }

    /// Plays all rounds.
    pub async fn play(&mut self) {
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
                    self.decide().await;
                    self.wait_equal(round).await;
                    self.cluster.pause_all().await;
                }
            }
        }
        self.cluster.resume_all().await;
        self.write(ROUNDS - 1).await;
        self.decide().await;
        self.wait_equal(ROUNDS - 1).await;
    }

    /// Waits until all nodes have equal rows.
    pub async fn wait_equal(&self, round: usize) {
        self.cluster.settle().await;
        let what = format!("nodes to be equal after round {round}");
        wait_until(&what, EQUAL_LIMIT, async || self.compare().await).await;
    }

    /// The rows of all histories on one node.
    pub async fn rows(&self, node: usize) -> Vec<TextRow> {
        let tables: BTreeSet<&str> = self
            .histories
            .iter()
            .map(|own| own.table.as_str())
            .collect();
        let version = names_of(self.histories[0].strategy).1;
        let clocks = if self.merging { "mmrepl_merge" } else { "null" };
        let of = |table: &str| {
            format!(
                "select '{table}', id, small, right(large, -2500), taken, count,
                 {version}::text, {clocks}::text from {table}"
            )
        };
        let all: Vec<String> = tables.into_iter().map(of).collect();
        let query = all.join(" union all ") + " order by 1, 2";
        pg::rows(&self.clients[node], &query).await
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
        let mut text = String::new();
        for own in &self.histories {
            let of = |rows: &[TextRow]| -> Vec<TextRow> {
                rows.iter().filter(|row| own.holds(row)).cloned().collect()
            };
            let (here, there) = (of(first), of(other));
            if here != there {
                let history = own.history();
                let _ = writeln!(text, "{history}east: {here:?}\n{name}: {there:?}");
            }
        }
        text
    }
}

async fn play(nodes: usize, (place, count): (Place, usize), seed: u64, strategy: Strategy) {
    let majors = vec![pool::usual_major(); nodes];
    let what = What {
        place,
        count,
        strategy,
        merging: None,
        unique: !strategy.is_by_knowledge(),
    };
    Scene::new(&majors, what, Rng::from_env(seed))
        .await
        .play()
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_end_equal() {
    play(2, (Place::OwnTable, 120), 3, Strategy::LastWriteWins).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_end_equal_in_one_table() {
    play(2, (Place::SharedTable, 240), 4, Strategy::LastWriteWins).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_end_equal() {
    play(3, (Place::OwnTable, 40), 5, Strategy::LastWriteWins).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_end_equal_in_one_table() {
    play(3, (Place::SharedTable, 100), 6, Strategy::LastWriteWins).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_end_equal_under_version_column() {
    play(2, (Place::OwnTable, 25), 7, Strategy::VersionColumn).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_end_equal_in_one_table_under_version_column() {
    play(2, (Place::SharedTable, 40), 8, Strategy::VersionColumn).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_end_equal_under_version_column() {
    play(3, (Place::SharedTable, 20), 9, Strategy::VersionColumn).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_end_equal_under_hybrid_clock() {
    play(2, (Place::OwnTable, 25), 10, Strategy::HybridClock).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_end_equal_in_one_table_under_hybrid_clock() {
    play(2, (Place::SharedTable, 40), 11, Strategy::HybridClock).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_end_equal_under_hybrid_clock() {
    play(3, (Place::SharedTable, 20), 12, Strategy::HybridClock).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_end_equal_under_first_write_wins() {
    play(2, (Place::OwnTable, 25), 13, Strategy::FirstWriteWins).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_end_equal_in_one_table_under_first_write_wins() {
    play(2, (Place::SharedTable, 40), 14, Strategy::FirstWriteWins).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_end_equal_under_first_write_wins() {
    play(3, (Place::SharedTable, 20), 15, Strategy::FirstWriteWins).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_end_equal_under_node_priority() {
    play(2, (Place::OwnTable, 25), 16, Strategy::NodePriority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_end_equal_in_one_table_under_node_priority() {
    play(2, (Place::SharedTable, 40), 17, Strategy::NodePriority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_end_equal_under_node_priority() {
    play(3, (Place::SharedTable, 20), 18, Strategy::NodePriority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_end_equal_by_hand() {
    play(2, (Place::SharedTable, 30), 19, Strategy::Manual).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_end_equal_by_hand() {
    play(3, (Place::OwnTable, 12), 20, Strategy::Manual).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_end_equal_by_function() {
    play(2, (Place::OwnTable, 25), 23, Strategy::Custom).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_end_equal_in_one_table_by_function() {
    play(2, (Place::SharedTable, 40), 24, Strategy::Custom).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_end_equal_by_function() {
    play(3, (Place::SharedTable, 20), 25, Strategy::Custom).await;
}

async fn merge(nodes: usize, (place, count): (Place, usize), seed: u64) {
    let majors = vec![pool::usual_major(); nodes];
    for rule in MERGING {
        let what = What {
            place,
            count,
            strategy: Strategy::HybridClock,
            merging: Some(rule),
            unique: false,
        };
        let mut scene = Scene::new(&majors, what, Rng::from_env(seed)).await;
        scene.play().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_merge_end_equal() {
    merge(2, (Place::SharedTable, 60), 21).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_that_merge_end_equal() {
    merge(3, (Place::OwnTable, 16), 22).await;
}
