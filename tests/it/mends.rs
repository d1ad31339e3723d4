//! Every mend that `check` prints is run as it stands, and the problem is gone.

use std::path::PathBuf;
use std::process::Command;

use super::init::assert_says;
use crate::support::{Cluster, ClusterOptions, Node};

const RULES: &str = "\
[[conflict.table]]
name = \"public.counted\"
strategy = \"hybrid_clock\"
delta_columns = [\"n\", \"made\"]
[[conflict.table]]
name = \"public.versioned\"
strategy = \"version_column\"
version_column = \"Ver sion\"
[[conflict.table]]
name = \"public.decided\"
strategy = \"custom\"
function = \"public.decide\"
";

const EAST: &str = r#"
create table "Wide ""r" (id int primary key, "N a" bigint, m int, s text,
    t varchar(9), extra date, g int);
create table counted (id int primary key, n int default 0);
insert into counted values (1, null), (2, 5);
create table versioned (id int primary key, v text);
create table decided (id int primary key, v text);
create function decide(a jsonb, b jsonb, meta jsonb) returns jsonb
    language sql volatile as $$ select case when a > b then a else b end; $$;
"#;

const WEST: &str = r#"
create table "Wide ""r" (id int primary key, "N a" int, m bigint, s varchar(5), t text,
    "mu st" int not null, g int generated always as (1) stored);
create table counted (id int primary key, n int not null default 0, made bigint not null default 0);
insert into counted values (1, 0), (2, 5);
create table versioned (id int primary key, v text, "Ver sion" bigint);
create table decided (id int primary key, v text);
"#;

/// On both nodes.
const SAME: &str = r#"
create table "Alw ays" (id int primary key, v text);
create function nothing() returns trigger language plpgsql as 'begin return null; end';
create trigger "T 1" after insert on "Alw ays" for each row execute function nothing();
create trigger t2 after insert on "Alw ays" for each row execute function nothing();
alter table "Alw ays" enable always trigger "T 1";
alter table "Alw ays" enable replica trigger t2;
create table allowed (kind text primary key);
create function is_allowed(k text) returns boolean language sql stable
    as $$ select exists (select from allowed where kind = k) $$;
create function is_fine(k text) returns boolean language plpgsql
    as $$ begin return is_allowed(k); end $$;
create table judged (id int primary key, k text check (is_fine(k)));
create table schema_migrations (version text primary key);
create schema elsewhere;
create table elsewhere.t (id int primary key);
create table kinds (id int, kind text, primary key (id, kind)) partition by list (kind);
create table kinds_a partition of kinds (unique (id)) for values in ('a, b');
create table kinds_b partition of kinds (unique (id)) for values in ('c', 'd');
create table numbered (id serial primary key, v text);
"#;

/// psql, where the machine has one.
fn psql() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin/psql")));
    found.find(|path| path.exists())
}

async fn run(node: &Node, script: &str) {
    let Some(psql) = psql() else {
        node.sql(script).await;
        return;
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), script).unwrap();
    let mut command = Command::new(psql);
    command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &node.dsn(), "-f"]);
    let ran = command.arg(file.path()).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success(), "{said}\n{script}");
}

async fn whats(cluster: &Cluster) -> Vec<String> {
    let found = cluster.mmrepl(&["check", "--json"]).await;
    let found: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    let problems = found["problems"].as_array().unwrap().iter();
    let serious = problems.filter(|problem| problem["severity"] != "info");
    let text = |p: &serde_json::Value| {
        format!(
            "{}: {}",
            p["node"].as_str().unwrap(),
            p["what"].as_str().unwrap()
        )
    };
    serious.map(text).collect()
}

async fn every_mend_can_be_pasted(majors: &[u32]) {
    let options = ClusterOptions::majors(majors).config(RULES);
    let cluster = Cluster::start(options).await;
    cluster.sql_everywhere(SAME).await;
    cluster.east().sql(EAST).await;
    cluster.west().sql(WEST).await;
    let before = whats(&cluster).await.join("\n");
    assert_says(
        &before,
        &[
            "east: column m of public.\"Wide \"\"r\" is integer here and bigint on west",
            "west: column N a of public.\"Wide \"\"r\" is integer here and bigint on east",
            "west: column s of public.\"Wide \"\"r\" is character varying(5) here and text",
            "west: column g of public.\"Wide \"\"r\" is generated here but written on east",
            "west: column mu st of public.\"Wide \"\"r\" is NOT NULL without a default",
            "west: column extra of public.\"Wide \"\"r\" is on east but not here",
            "east: column n of public.counted may be NULL",
            "east: column made of public.counted does not exist",
            "east: public.versioned has no column Ver sion",
            "west: function public.decide(jsonb, jsonb, jsonb)",
            "T 1 on public.\"Alw ays\", t2 on public.\"Alw ays\"",
            "which constraint judged_k_check of public.judged calls",
            "public.schema_migrations look like the notes of a migration tool",
            "schemas with tables that are not replicated, as no pattern of [tables] names them: elsewhere (1)",
            "kinds_b_id_key on public.kinds",
            "sequences give the same values as on another node: public.numbered.id",
        ],
    );
    assert!(!before.contains("kinds_a_id_key"), "{before}");
    // A mend may bring to light what stood behind it.
    for _ in 0..3 {
        for node in &cluster.nodes {
            let script = cluster.mmrepl(&["check", "--script", node.name]).await;
            run(node, &String::from_utf8(script.stdout).unwrap()).await;
        }
    }
    // These are for a person.
    let left = ["kinds_b_id_key", "migration tool", "not replicated"];
    let after = whats(&cluster).await;
    let open = after
        .iter()
        .filter(|what| !left.iter().any(|part| what.contains(part)));
    assert_eq!(open.collect::<Vec<_>>(), Vec::<&String>::new());
    let script = cluster.mmrepl_ok(&["check", "--script", "west"]).await;
    for line in script.lines() {
        assert!(line.is_empty() || line.starts_with("--"), "{script}");
    }
    let said = cluster.mmrepl_fails(&["check", "--script", "nobody"]).await;
    assert_says(&said, &["no node `nobody`"]);
}

crate::on_usual_majors!(every_mend_runs, super::every_mend_can_be_pasted);

#[tokio::test(flavor = "multi_thread")]
async fn patterns_that_match_nothing_are_named() {
    let options = ClusterOptions::pair();
    let mut cluster = Cluster::start(options).await;
    cluster
        .sql_everywhere("create table t (id int primary key)")
        .await;
    let config = std::fs::read_to_string(cluster.config()).unwrap();
    let tables = "[tables]\ninclude = [\"public.*\", \"shop.*\"]\nexclude = [\"public.audit_*\"]\n";
    std::fs::write(cluster.config(), format!("{config}\n{tables}")).unwrap();
    let said = cluster.mmrepl_ok(&["check"]).await;
    let named =
        "east: patterns of [tables] that match no table on any node: public.audit_*, shop.*";
    assert_says(&said, &[named]);
    // Partitions go with their table; and where nothing is left, nobody is told that it is done.
    cluster
        .sql_everywhere(
            "create table p (id int primary key) partition by range (id);
             create table p_1 partition of p for values from (0) to (10)",
        )
        .await;
    let part = "pattern public.p_1 of [tables] matches only partitions, of public.p";
    cluster.rewrite_config("\n[tables]\ninclude = [\"public.p_1\"]\n");
    for command in ["check", "init"] {
        let said = cluster.mmrepl_fails(&[command]).await;
        assert_says(
            &said,
            &[part, "no table takes part", "instead: \"public.p\""],
        );
    }
    cluster.rewrite_config("\n[tables]\nexclude = [\"public.p_1\"]\n");
    assert_says(&cluster.mmrepl_ok(&["check"]).await, &[part]);
    cluster.rewrite_config("\n[tables]\ninclude = [\"shop.*\"]\n");
    for command in ["check", "init"] {
        let said = cluster.mmrepl_fails(&[command]).await;
        assert_says(&said, &["no table takes part"]);
    }
    cluster.rewrite_config("");
}
