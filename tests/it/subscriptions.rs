//! Rows that reach a node by another way than the cluster: native subscriptions from a server
//! outside of it, and sessions with a replication origin of somebody else. They go on like the
//! node's own writes, and never come back.

use tokio_postgres::Client;

use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, LIMIT, Node, pg, pool, wait_until};
use crate::{on_majors, on_usual_majors};

const SCHEMA: &str = "
    create table t (id int primary key, v text);
    create table clocked (id int primary key, v text);
    create table parted (id int primary key, v text) partition by range (id);
    create table parted_1 partition of parted for values from (0) to (10000);
    create table plain (a int, v text);";
const RULES: &str = "
[[conflict.table]]
name = \"public.clocked\"
strategy = \"hybrid_clock\"
";
const FILL: &str = "
    insert into t select i, 'old' from generate_series(1, 500) i;
    insert into clocked select i, 'old' from generate_series(1, 50) i;
    insert into parted select i, 'old' from generate_series(1, 50) i;
    insert into plain select i, 'old' from generate_series(1, 50) i";

/// A server outside of the cluster, as old as `major`, with a publication of all its tables.
struct Old {
    client: Client,
    dsn: String,
    admin: String,
    name: String,
}

impl Old {
    async fn start(cluster: &Cluster, major: u32) -> Self {
        let server = tokio::task::spawn_blocking(move || pool::shared(major, 2));
        let server = server.await.unwrap();
        let name = format!("old_{}", cluster.name);
        let admin = server.dsn("postgres");
        let create =
            format!("create database {name} template template0 encoding 'UTF8' locale 'C'");
        pg::execute(&pg::connect(&admin).await, &create).await;
        let dsn = server.dsn(&name);
        let client = pg::connect(&dsn).await;
        pg::execute(&client, SCHEMA).await;
        let ready = "alter table plain replica identity full;
            create publication p for table t, clocked, parted, plain
                with (publish_via_partition_root = true)";
        pg::execute(&client, ready).await;
        pg::execute(&client, FILL).await;
        Self {
            client,
            dsn,
            admin,
            name,
        }
    }

    async fn subscribe(&self, node: &Node, more: &str) {
        let sql = format!(
            "create subscription s_{0} connection '{1}' publication p with (slot_name = '{0}'{more})",
            self.name, self.dsn
        );
        pg::execute(&node.client().await, &sql).await;
    }

    async fn write(&self, sql: &str) {
        pg::execute(&self.client, sql).await;
    }

    /// Waits until the node has everything that was written here, and the cluster is equal.
    async fn arrives(&self, cluster: &Cluster, node: &Node) {
        self.write("insert into t select coalesce(max(id), 0) + 1, 'mark' from t")
            .await;
        let mark = pg::value(&self.client, "select max(id) from t").await;
        let look = format!("select count(*) from t where id = {mark}");
        wait_until("what the old server wrote", LIMIT, async || {
            let found = node.value(&look).await;
            ensure(found == "1", || {
                format!("{mark} is missing on {}", node.name)
            })
        })
        .await;
        cluster.wait_equal().await;
    }

    async fn enable(&self, node: &Node, how: &str) {
        let name = &self.name;
        node.sql(&format!("alter subscription s_{name} {how}"))
            .await;
        if how == "disable" {
            let idle = format!(
                "select count(*) from pg_stat_subscription where subname = 's_{name}' and pid is not null"
            );
            wait_until("the worker to end", LIMIT, async || {
                let left = node.value(&idle).await;
                ensure(left == "0", || left)
            })
            .await;
        }
    }

    async fn end(self, node: &Node) {
        node.sql(&format!("drop subscription s_{}", self.name))
            .await;
        let drop = format!("drop database {} with (force)", self.name);
        drop_connection(self.client);
        pg::execute(&pg::connect(&self.admin).await, &drop).await;
    }
}

fn drop_connection(client: Client) {
    drop(client);
}

async fn count(node: &Node, what: &str) -> String {
    node.value(&format!("select count(*) from {what}")).await
}

async fn goes_on(majors: &[u32], more: &str) {
    let options = ClusterOptions::majors(majors).config(RULES);
    let mut cluster = Cluster::running_with(options, SCHEMA).await;
    cluster.wait_streaming().await;
    let old = Old::start(&cluster, majors[0]).await;
    let east = cluster.node("east").dsn();
    old.subscribe(cluster.east(), more).await;
    old.arrives(&cluster, cluster.east()).await;
    assert_eq!(count(cluster.west(), "t").await, "501");
    assert_eq!(count(cluster.west(), "plain").await, "50");
    old.write(
        "update t set v = 'b' where id % 3 = 0; delete from t where id % 7 = 0;
         update t set id = id + 1000 where id = 5; update clocked set v = 'b' where id < 9;
         delete from clocked where id = 9; delete from parted where id = 9;
         update plain set v = 'b' where a = 3; delete from plain where a = 4; truncate parted",
    )
    .await;
    old.arrives(&cluster, cluster.east()).await;
    assert_eq!(count(cluster.west(), "parted").await, "0");
    cluster
        .write_on(cluster.west(), "update t set v = 'west' where id = 1")
        .await;
    assert_eq!(count(&cluster.nodes[0], "t where v = 'west'").await, "1");
    overwrites(&cluster, &old).await;
    apart(&cluster, &old).await;
    restarts(&mut cluster, &old).await;
    assert_eq!(east, cluster.east().dsn());
    old.end(cluster.east()).await;
}

async fn plainly(majors: &[u32]) {
    goes_on(majors, "").await;
}
on_usual_majors!(a_subscription_goes_on, super::plainly);

async fn any_origin(majors: &[u32]) {
    goes_on(majors, ", origin = any").await;
}
on_majors!(a_subscription_to_any_origin_goes_on, any_origin, 17, 17);

/// The old server's writes carry its time. They may replace rows that were written later here.
async fn overwrites(cluster: &Cluster, old: &Old) {
    old.enable(cluster.east(), "disable").await;
    old.write(
        "update t set v = 'from old' where id in (11, 13); delete from t where id in (16, 17);
         update clocked set v = 'from old' where id = 11; delete from clocked where id = 16",
    )
    .await;
    let west = "update t set v = 'later' where id in (11, 16);
        update clocked set v = 'later' where id in (11, 16)";
    cluster.write_on(cluster.west(), west).await;
    cluster
        .write_on(
            cluster.east(),
            "update t set v = 'later' where id in (13, 17)",
        )
        .await;
    old.enable(cluster.east(), "enable").await;
    old.arrives(cluster, cluster.east()).await;
    let from_old = "t where v = 'from old'";
    assert_eq!(count(cluster.west(), from_old).await, "2");
    assert_eq!(count(cluster.west(), "t where id in (16, 17)").await, "0");
    cluster
        .write_on(
            cluster.west(),
            "update t set v = 'last' where id in (11, 13)",
        )
        .await;
    assert_eq!(count(cluster.east(), "t where v = 'last'").await, "2");
}

/// The cluster's nodes and the old server write the same rows without hearing of each other.
async fn apart(cluster: &Cluster, old: &Old) {
    cluster.pause_all().await;
    cluster
        .west()
        .sql("update t set v = 'west' where id in (19, 20, 22); delete from t where id = 23")
        .await;
    old.write("update t set v = 'apart' where id in (19, 23); delete from t where id in (20, 22)")
        .await;
    cluster
        .west()
        .sql("update t set v = 'after' where id = 22")
        .await;
    cluster.resume_all().await;
    old.arrives(cluster, cluster.east()).await;
}

/// What a subscription brings while no daemon runs.
async fn restarts(cluster: &mut Cluster, old: &Old) {
    cluster.stop_daemons();
    old.write("insert into t select i, 'outage' from generate_series(20001, 20100) i")
        .await;
    let there = "select count(*) from t where v = 'outage'";
    wait_until("rows to reach east", LIMIT, async || {
        let found = cluster.east().value(there).await;
        ensure(found == "100", || found)
    })
    .await;
    cluster.start_daemons();
    cluster.wait_equal().await;
}

/// Sessions with an origin of somebody else, of whatever time, before the daemons start and after.
async fn other_replicators(majors: &[u32]) {
    let mut cluster = Cluster::start(ClusterOptions::majors(majors)).await;
    cluster.sql_everywhere(SCHEMA).await;
    cluster.init().await;
    let east = cluster.east().client().await;
    let origin = format!("legacy_{}", cluster.name);
    let setup = format!(
        "select pg_replication_origin_create('{origin}');
         select pg_replication_origin_session_setup('{origin}');"
    );
    pg::execute(&east, &setup).await;
    let stamped = |sql: &str| {
        format!(
            "begin; select pg_replication_origin_xact_setup('0/10', '2020-01-01 00:00:00+00'); {sql}; commit"
        )
    };
    let fill = "insert into t select i, 'x' from generate_series(1, 20) i;
        insert into plain values (1, 'x')";
    pg::execute(&east, &stamped(fill)).await;
    cluster.start_daemons();
    cluster.wait_equal().await;
    assert_eq!(count(cluster.west(), "t").await, "20");
    let west = "update t set v = 'west' where id < 5";
    cluster.write_on(cluster.west(), west).await;
    let change = "update t set v = 'y' where id < 4; delete from t where id in (4, 8)";
    pg::execute(&east, &stamped(change)).await;
    cluster.wait_equal().await;
    assert_eq!(count(cluster.west(), "t where v = 'y'").await, "3");
    assert_eq!(count(cluster.west(), "t").await, "18");
    // The last transaction that west applied keeps its old time on east, by which west finds it.
    cluster.stop_daemons();
    cluster.start_daemons();
    cluster.wait_streaming().await;
    pg::execute(&east, "select pg_replication_origin_session_reset()").await;
    let drop = format!("select pg_replication_origin_drop('{origin}')");
    pg::execute(&east, &drop).await;
}
on_usual_majors!(
    sessions_of_other_replicators_go_on,
    super::other_replicators
);

/// Writes on east in the name of somebody whom nobody has seen before, nor will again.
async fn write_in_passing(cluster: &Cluster, name: &str) {
    let origin = format!("passing_{}_{name}", cluster.name);
    let writes = format!(
        "select pg_replication_origin_create('{origin}');
         select pg_replication_origin_session_setup('{origin}');
         insert into t select i, '{name}' from generate_series(1, 3000) i;
         insert into plain values (1, '{name}'), (1, '{name}');
         update t set v = v || '!' where id % 5 = 0;
         delete from t where id % 7 = 0;
         select pg_replication_origin_session_reset();
         update t set v = 'own' where id % 10 = 0;
         insert into plain values (2, '{name}');
         select pg_replication_origin_drop('{origin}');"
    );
    let east = cluster.east().client().await;
    for statement in writes.split_inclusive(';') {
        pg::execute(&east, statement).await;
    }
}

/// The stream leaves out what has an origin; once that is noticed, it is behind.
async fn in_passing(majors: &[u32], end: impl AsyncFn(&mut Cluster)) {
    // A server takes the number of an origin that is gone for the next one that is made: where
    // other tests set up clusters meanwhile, the number would say that mmrepl wrote.
    let options = ClusterOptions::majors(majors).own_servers();
    let mut cluster = Cluster::running_with(options, SCHEMA).await;
    cluster.wait_streaming().await;
    let before = "insert into t values (5000, 'before'), (7, 'before')";
    cluster.write_on(cluster.west(), before).await;
    cluster.east().sql("delete from t where id = 7").await;
    cluster.wait_equal().await;
    write_in_passing(&cluster, "x").await;
    end(&mut cluster).await;
    cluster.wait_equal().await;
    assert_eq!(count(cluster.west(), "plain").await, "3");
    assert_eq!(count(cluster.west(), "t where v = 'own'").await, "259");
    let west = "update t set v = 'west' where id = 1; delete from t where id = 2";
    cluster.write_on(cluster.west(), west).await;
    cluster
        .write_on(cluster.east(), "delete from plain where a = 1")
        .await;
    assert_eq!(count(cluster.west(), "plain").await, "1");
}

async fn while_it_runs(majors: &[u32]) {
    in_passing(majors, async |_| {}).await;
}
on_usual_majors!(who_writes_in_passing_is_noticed, super::while_it_runs);

async fn before_a_kill(majors: &[u32]) {
    in_passing(majors, async |cluster| {
        cluster.take_daemon("east").kill9();
        cluster.start_daemon("east");
    })
    .await;
}
on_majors!(a_kill_hides_nobody, before_a_kill, 17, 17);

/// Who leaves an origin before the commit has written under it all the same, in a transaction that
/// says of itself that it was written here.
async fn left_before_the_commit(majors: &[u32]) {
    let options = ClusterOptions::majors(majors).config(RULES);
    let cluster = Cluster::running_with(options, SCHEMA).await;
    cluster.wait_streaming().await;
    let origin = format!("left_{}", cluster.name);
    let east = cluster.east().client().await;
    let sql = format!(
        "begin;
         insert into t values (1, 'own'), (2, 'own');
         insert into plain values (1, 'own');
         select pg_replication_origin_create('{origin}');
         select pg_replication_origin_session_setup('{origin}');
         insert into t values (3, 'theirs');
         insert into clocked values (3, 'theirs');
         insert into plain values (3, 'theirs');
         update t set v = 'theirs' where id = 2;
         select pg_replication_origin_session_reset();
         commit;
         update t set v = 'own again' where id = 3"
    );
    for statement in sql.split_inclusive(';') {
        pg::execute(&east, statement).await;
    }
    let rows = "select coalesce(string_agg(id || v, ' ' order by id), '') from t";
    super::init::soon(&cluster, rows, "1own 2theirs 3own again").await;
    if majors[0] >= 16 {
        // Without a key, and where each write has a version of its own, nobody can tell.
        let said = "were not sent";
        let gap = super::damage::shown(&cluster, "east", said).await;
        let told = gap["what"].as_str().unwrap();
        assert!(
            told.contains("public.clocked, public.plain") && !told.contains("public.t"),
            "{told}"
        );
        let said = cluster.mmrepl_fails(&["init"]).await;
        assert!(
            said.contains("node west lacks rows that east has"),
            "{said}"
        );
    } else {
        super::init::soon(&cluster, "select count(*) from plain", "2").await;
    }
    pg::execute(
        &east,
        &format!("select pg_replication_origin_drop('{origin}')"),
    )
    .await;
}
crate::on_majors!(
    mixed_transactions_are_noticed_pg15,
    left_before_the_commit,
    15,
    15
);
crate::on_majors!(
    mixed_transactions_are_noticed_pg16,
    left_before_the_commit,
    16,
    16
);
crate::on_majors!(
    mixed_transactions_are_noticed_pg17,
    left_before_the_commit,
    17,
    17
);
crate::on_majors!(
    mixed_transactions_are_noticed_pg19,
    left_before_the_commit,
    19,
    19
);

on_usual_majors!(two_subscribers_are_warned_of, super::two_subscribers);

async fn two_subscribers(majors: &[u32]) {
    let cluster = Cluster::start(ClusterOptions::majors(majors)).await;
    cluster.sql_everywhere(SCHEMA).await;
    let said = "another node has a subscription too";
    for node in &cluster.nodes {
        let check = cluster.mmrepl_ok(&["check"]).await;
        assert!(!check.contains(said), "{check}");
        let name = format!("from_{}_{}", cluster.name, node.name);
        node.sql(&format!(
            "create subscription {name} connection 'host=127.0.0.1' publication p
             with (connect = false)"
        ))
        .await;
    }
    let check = cluster.mmrepl_ok(&["check"]).await;
    assert_eq!(check.matches(said).count(), 2, "{check}");
    for node in &cluster.nodes {
        let name = format!("from_{}_{}", cluster.name, node.name);
        for how in ["set (slot_name = none)", ""] {
            let verb = if how.is_empty() { "drop" } else { "alter" };
            node.sql(&format!("{verb} subscription {name} {how}")).await;
        }
    }
}
