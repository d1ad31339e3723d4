//! Taking replication away, from all nodes or one; neighbours of the same name.

use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, LIMIT, pg, wait_until};
use crate::{on_usual_majors, support};

const TABLE: &str = "create table t (id int primary key, v text unique)";
/// What a server has of ours, in one line.
const TRACES: &str = "select concat_ws(' ',
    (select string_agg(slot_name, ',' order by slot_name) from pg_replication_slots
     where database = current_database()),
    (select string_agg(roname, ',' order by roname) from pg_replication_origin
     where roname like 'mmrepl\\_' || current_database() || '\\_%'),
    (select count(*) from pg_publication),
    (select count(*) from pg_trigger where tgname like 'mmrepl%'),
    to_regnamespace('mmrepl'), (select string_agg(name, ',' order by name) from mmrepl.node),
    (select string_agg(source, ',' order by source) from mmrepl.apply_position))";

async fn traces(cluster: &Cluster) -> Vec<String> {
    let mut traces = Vec::new();
    for node in &cluster.nodes {
        traces.push(node.value(TRACES).await);
    }
    traces
}

fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
}

on_usual_majors!(nothing_goes_half_way, super::nothing_goes_half_way);

/// Without a terminal nobody is asked, so it must be said; beside daemons nothing goes; rows kept
/// aside and the history are not thrown away without a word.
async fn nothing_goes_half_way(majors: &[u32]) {
    let options = ClusterOptions::majors(majors);
    let mut cluster = Cluster::running_with(options, TABLE).await;
    cluster.wait_streaming().await;
    cluster.pause_all().await;
    cluster.east().sql("insert into t values (1, 'a')").await;
    cluster.west().sql("insert into t values (2, 'a')").await;
    cluster.resume_all().await;
    let aside = "select count(*) from mmrepl.shadow";
    wait_until("rows to be kept aside", LIMIT, async || {
        let mut found = Vec::new();
        for node in &cluster.nodes {
            found.push(node.value(aside).await);
        }
        ensure(found == ["1", "1"], || format!("{found:?}"))
    })
    .await;
    let before = traces(&cluster).await;

    let said = cluster.mmrepl_fails(&["drop"]).await;
    assert_says(&said, &["nothing was dropped", "--yes"]);
    for only in [&["drop", "--yes"][..], &["drop", "--yes", "--node", "west"]] {
        let said = cluster.mmrepl_fails(only).await;
        assert_says(
            &said,
            &["is in use: stop the daemon of", "nothing was dropped"],
        );
        assert_eq!(traces(&cluster).await, before);
    }
    // One daemon is enough, whichever node is to go.
    drop(cluster.take_daemon("west"));
    let said = cluster
        .mmrepl_fails(&["drop", "--yes", "--node", "west"])
        .await;
    assert_says(&said, &["stop the daemon of east"]);
    cluster.stop_daemons();
    let said = cluster
        .mmrepl_fails(&["drop", "--yes", "--node", "west"])
        .await;
    assert_says(
        &said,
        &["west has 1 row(s) kept aside", "--save FILE", "--discard"],
    );
    assert_eq!(traces(&cluster).await, before);

    let file = cluster.data_dir("east").join("kept.jsonl");
    let file = file.to_str().unwrap();
    let said = cluster.mmrepl_ok(&["drop", "--yes", "--save", file]).await;
    assert_says(&said, &["east has 1 row(s) kept aside", "written to"]);
    let kept = std::fs::read_to_string(file).unwrap();
    let lines: Vec<serde_json::Value> = kept
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let aside = lines.iter().filter(|line| line["kept"] == "row aside");
    let aside: Vec<_> = aside.collect();
    assert_eq!(aside.len(), 2, "{kept}");
    assert!(
        aside
            .iter()
            .all(|line| line["vals"] == serde_json::json!(["1", "a"])),
        "{kept}"
    );
}

/// A node is taken out of the file first, as people do: its slots are named, and go with one
/// command beside daemons that run without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_the_file_does_not_name_any_more() {
    let major = support::pool::usual_major();
    let mut cluster = Cluster::start(ClusterOptions::majors(&[major; 3])).await;
    cluster.sql_everywhere(TABLE).await;
    cluster.init().await;
    let dir = cluster.config().parent().unwrap().to_owned();
    for file in ["cluster.toml", "cluster-east.toml", "cluster-west.toml"] {
        let text = std::fs::read_to_string(dir.join(file)).unwrap();
        let (without, _) = text.rsplit_once("[[node]]").unwrap();
        std::fs::write(dir.join(file), without).unwrap();
    }
    cluster.start_daemon("east");
    cluster.start_daemon("west");
    let north = format!("mmrepl_{}_north", cluster.name);
    for command in [&["check"][..], &["init"]] {
        let said = cluster.mmrepl_ok(command).await;
        assert_says(&said, &["does not name node north", &north, "bytes of WAL"]);
    }
    let said = cluster
        .mmrepl_fails(&["drop", "--yes", "--node", "south"])
        .await;
    assert_says(&said, &["south"]);
    cluster.wait_state("east", "west", &["streaming"]).await;
    cluster.wait_state("west", "east", &["streaming"]).await;
    let said = cluster
        .mmrepl_ok(&["drop", "--yes", "--node", "north"])
        .await;
    assert_says(&said, &[&north, "the file does not name north"]);
    for node in [cluster.east(), cluster.west()] {
        let left = node.value(TRACES).await;
        assert!(!left.contains("north"), "{left}");
    }
    cluster.east().sql("insert into t values (1, 'a')").await;
    wait_until("the row on west", LIMIT, async || {
        let found = cluster.west().value("select count(*) from t").await;
        ensure(found == "1", || found)
    })
    .await;
    let said = cluster.mmrepl_ok(&["check"]).await;
    assert!(!said.contains("north"), "{said}");
}

/// A database is in one cluster: a file with another name is refused, whatever it says of rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_cluster_over_the_tables() {
    let mut cluster = Cluster::running(TABLE).await;
    cluster.wait_streaming().await;
    let before = traces(&cluster).await;
    let own = std::fs::read_to_string(cluster.config()).unwrap();
    let first = format!("belongs to cluster {}", cluster.name);
    // The second name continues the first, so that its slots look like those of the first.
    let longer = format!("{}_b", cluster.name);
    for name in ["other", &longer] {
        let named = |name: &str| format!("name = \"{name}\"\n");
        let text = own.replacen(&named(&cluster.name), &named(name), 1);
        std::fs::write(cluster.config(), text).unwrap();
        for more in [&[][..], &["--copy-from", "east"], &["--assume-identical"]] {
            let said = cluster.mmrepl_fails(&[&["init"], more].concat()).await;
            assert_says(&said, &[&first, "mmrepl drop"]);
        }
        assert_eq!(traces(&cluster).await, before);
    }
    std::fs::write(cluster.config(), own).unwrap();
    cluster.mmrepl_ok(&["check"]).await;
    cluster
        .write_on(cluster.east(), "insert into t values (1, 'a')")
        .await;
    cluster.stop_daemons();
}

on_usual_majors!(one_node_is_left, super::one_node_is_left);

/// One node of a pair is dropped: whoever goes by the old file is told so, and a file with the
/// other node alone is one.
async fn one_node_is_left(majors: &[u32]) {
    let options = ClusterOptions::majors(majors);
    let mut cluster = Cluster::running_with(options, TABLE).await;
    cluster.allow_error("was dropped on");
    cluster.allow_error("has no schema");
    cluster.wait_streaming().await;
    cluster
        .write_on(cluster.east(), "insert into t values (1, 'a')")
        .await;
    cluster.stop_daemons();
    cluster
        .mmrepl_ok(&["drop", "--yes", "--node", "west"])
        .await;
    let told = ["node west was dropped on 2", "--rejoin west"];
    for command in [
        &["status"][..],
        &["check"],
        &["init"],
        &["init", "--copy-from", "east"],
    ] {
        let said = cluster.mmrepl_fails(command).await;
        assert_says(&said, &told);
        let out = [
            "take its [[node]] section",
            "take the [[node]] section of west out",
        ];
        assert!(out.iter().any(|out| said.contains(out)), "{said}");
        let copies = said.replace("--rejoin west", "").contains("--copy-from");
        assert!(!copies && !said.contains("lost its position"), "{said}");
    }
    cluster.start_daemons();
    for link in [("east", "west"), ("west", "east")] {
        let said = cluster
            .wait_reason(link, &["stopped"], "was dropped on")
            .await;
        assert_says(&said, &told);
    }
    cluster.stop_daemons();
    let both = std::fs::read_to_string(cluster.config()).unwrap();
    let (alone, _) = both.rsplit_once("[[node]]").unwrap();
    let dir = cluster.config().parent().unwrap().to_owned();
    for file in ["cluster.toml", "cluster-east.toml"] {
        std::fs::write(dir.join(file), alone).unwrap();
    }
    cluster.start_daemon("east");
    let said = cluster.mmrepl_ok(&["status"]).await;
    assert_says(&said, &["no links: the file has one node"]);
    cluster.mmrepl_ok(&["check"]).await;
    cluster.mmrepl_ok(&["init"]).await;
    cluster.east().sql("insert into t values (2, 'b')").await;
    assert!(cluster.daemon("east").is_running());
    cluster.stop_daemons();
    for file in ["cluster.toml", "cluster-east.toml"] {
        std::fs::write(dir.join(file), &both).unwrap();
    }
    let back = ["init", "--rejoin", "west", "--copy-from", "east"];
    cluster.mmrepl_ok(&back).await;
    cluster.start_daemons();
    cluster.wait_streaming().await;
    cluster.wait_equal().await;
    cluster
        .write_on(cluster.west(), "insert into t values (3, 'c')")
        .await;
    assert_eq!(cluster.east().value("select count(*) from t").await, "3");
    cluster.mmrepl_ok(&["check"]).await;
}

on_usual_majors!(
    a_second_cluster_of_the_name,
    super::a_second_cluster_of_the_name
);

/// Slots and origins belong to a server, not to a database: the second cluster of a name would take
/// the first one's, whichever of the servers its nodes are on.
async fn a_second_cluster_of_the_name(majors: &[u32]) {
    let cluster = Cluster::start(ClusterOptions::majors(majors)).await;
    cluster.sql_everywhere(TABLE).await;
    cluster.init().await;
    let before = traces(&cluster).await;
    let other = format!("{}x", cluster.name);
    for node in &cluster.nodes {
        node.sql(&format!("create database {other}")).await;
        pg::execute(&pg::connect(&node.server().dsn(&other)).await, TABLE).await;
    }
    let own = std::fs::read_to_string(cluster.config()).unwrap();
    let database = format!("dbname={}", cluster.name);
    assert!(own.contains(&database), "{own}");
    let second = own.replace(&database, &format!("dbname={other}"));
    let swapped = second
        .replace("\"east\"", "\"other\"")
        .replace("\"west\"", "\"east\"");
    for text in [&second, &swapped] {
        std::fs::write(cluster.config(), text).unwrap();
        for command in [&["check"][..], &["init"], &["init", "--copy-from", "east"]] {
            let said = cluster.mmrepl_fails(command).await;
            let named = format!("belongs to database {} of the same server", cluster.name);
            assert_says(&said, &[&named]);
        }
    }
    std::fs::write(cluster.config(), own).unwrap();
    assert_eq!(traces(&cluster).await, before);
    for node in &cluster.nodes {
        node.sql(&format!("drop database {other} with (force)"))
            .await;
    }
}
