//! `init`, `check` and `drop` on real servers.

use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, LIMIT, wait_until};

const PLAIN: &str = "create table t (id int primary key, v text)";

/// Tables of every shape that init treats differently.
const SHAPES: &str = r#"
create extension if not exists citext;
create table t (id int primary key, v text);
create table "Ünï ""q"".x" ("K é" int primary key, "a.b" text);
create table uq (a int not null unique, v text);
create table nokey (a int, b text);
create table deferred (id int primary key deferrable, v text);
create table own_full (id int primary key); alter table own_full replica identity full;
create table own_none (id int primary key); alter table own_none replica identity nothing;
create table own_index (id int primary key, u int not null unique);
alter table own_index replica identity using index own_index_u_key;
create table p (id int, k int, v text, primary key (id, k)) partition by range (k);
create table p1 partition of p for values from (0) to (10);
create table p2 partition of p for values from (10) to (20) partition by list (k);
create table p21 partition of p2 for values in (10, 11, 12);
create table pu (id int not null, k int not null, unique (id, k)) partition by range (k);
create table pu1 partition of pu for values from (0) to (10);
create table pn (k int) partition by range (k);
create table pn1 partition of pn for values from (0) to (10);
create unlogged table ul (id int primary key);
"#;

/// Everything that init makes or changes, as one text.
const TRACES: &str = "
select string_agg(line, chr(10) order by line) from (
    select 'schema ' || nspname from pg_namespace where nspname = 'mmrepl'
    union all select 'publication ' || pubname from pg_publication
    union all select 'published ' || prrelid::regclass from pg_publication_rel
    union all select 'trigger ' || tgrelid::regclass || ' ' || tgname || ' ' || tgenabled::text from pg_trigger where tgname like 'mmrepl%'
    union all select 'identity ' || oid::regclass || ' ' || relreplident::text from pg_class
        where relkind in ('r', 'p') and relnamespace = 'public'::regnamespace
    union all select 'slot ' || slot_name from pg_replication_slots where database = current_database()
    union all select 'origin ' || roname from pg_replication_origin where roname like 'mmrepl\\_NAME\\_%'
) l(line)";

async fn traces(cluster: &Cluster) -> Vec<String> {
    let sql = TRACES.replace("NAME", &cluster.name.replace('_', "\\_"));
    let mut found = Vec::new();
    for node in &cluster.nodes {
        found.push(node.value(&sql).await);
    }
    found
}

fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

async fn pair(schema: &str) -> Cluster {
    let cluster = Cluster::start(ClusterOptions::pair()).await;
    cluster.sql_everywhere(schema).await;
    cluster
}

/// Rows of a query on both nodes are the same, and are these.
async fn both_have(cluster: &Cluster, query: &str, value: &str) {
    for node in &cluster.nodes {
        assert_eq!(node.value(query).await, value, "{query} on {}", node.name);
    }
}

/// The query comes to give this value on both nodes.
async fn soon(cluster: &Cluster, query: &str, value: &str) {
    for node in &cluster.nodes {
        wait_until(query, LIMIT, async || {
            let found = node.value(query).await;
            ensure(found == value, || format!("{found} on {}", node.name))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_has_nothing_to_do() {
    let cluster = pair(SHAPES).await;
    let first = cluster.mmrepl_ok(&["init"]).await;
    assert!(first.ends_with("done\n"), "{first}");
    let after = traces(&cluster).await;
    let second = cluster.mmrepl_ok(&["init"]).await;
    assert!(second.ends_with("nothing to do\n"), "{second}");
    assert_eq!(traces(&cluster).await, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_shows_the_sql_and_changes_nothing() {
    let cluster = pair(SHAPES).await;
    let before = traces(&cluster).await;
    let shown = cluster.mmrepl_ok(&["init", "--dry-run"]).await;
    assert_says(
        &shown,
        &[
            "create publication",
            "enable always trigger",
            "migrations/001_base.sql",
            "nothing was changed",
        ],
    );
    assert_eq!(traces(&cluster).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn drop_leaves_nothing_behind() {
    let cluster = pair(SHAPES).await;
    let before = traces(&cluster).await;
    cluster.init().await;
    assert_ne!(traces(&cluster).await, before);
    cluster.mmrepl_ok(&["drop", "--yes"]).await;
    assert_eq!(traces(&cluster).await, before);
    let again = cluster.mmrepl_ok(&["drop", "--yes"]).await;
    assert_says(&again, &["east: nothing to drop", "west: nothing to drop"]);
    cluster.init().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_identities_carry_the_key_and_keep_what_users_chose() {
    let cluster = pair(SHAPES).await;
    cluster.init().await;
    let identities = "select string_agg(relname || ' ' || relreplident::text, ',' order by relname collate \"C\")
        from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and relpersistence = 'p'";
    let expected = "deferred f,nokey f,own_full f,own_index f,own_none d,p d,p1 d,p2 d,p21 d,pn f,pn1 f,pu i,pu1 i,t d,uq i,Ünï \"q\".x d";
    both_have(&cluster, identities, expected).await;
    cluster.mmrepl_ok(&["drop", "--yes"]).await;
    let expected = "deferred d,nokey d,own_full f,own_index i,own_none n,p d,p1 d,p2 d,p21 d,pn d,pn1 d,pu d,pu1 d,t d,uq d,Ünï \"q\".x d";
    both_have(&cluster, identities, expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn different_rows_are_refused_until_somebody_says_whose_count() {
    let cluster = pair(PLAIN).await;
    cluster
        .east()
        .sql("insert into t select n, 'ä' from generate_series(1, 5) n")
        .await;
    cluster
        .west()
        .sql("insert into t values (1, 'ä'), (9, 'x')")
        .await;
    let said = cluster.mmrepl_fails(&["init"]).await;
    assert_says(
        &said,
        &[
            "node west lacks rows that east has in public.t (2 against 5)",
            "--copy-from east",
            "--assume-identical",
        ],
    );
    // The slots of the refused run are gone: nothing holds WAL back.
    both_have(
        &cluster,
        "select count(*) from pg_replication_slots where database = current_database()",
        "0",
    )
    .await;
    cluster.mmrepl_ok(&["init", "--copy-from", "east"]).await;
    both_have(
        &cluster,
        "select string_agg(id || v, ',' order by id) from t",
        "1ä,2ä,3ä,4ä,5ä",
    )
    .await;
    let again = cluster.mmrepl_ok(&["init"]).await;
    assert!(again.ends_with("nothing to do\n"), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn assume_identical_does_not_look() {
    let cluster = pair(PLAIN).await;
    cluster.east().sql("insert into t values (1, 'x')").await;
    cluster.mmrepl_ok(&["init", "--assume-identical"]).await;
    assert_eq!(cluster.west().value("select count(*) from t").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_rows_are_equal_whatever_the_encoding_and_column_order() {
    let cluster = Cluster::start(ClusterOptions::pair().encodings(&["UTF8", "LATIN1"])).await;
    cluster
        .east()
        .sql("create table t (id int primary key, v text, n numeric, f float8)")
        .await;
    cluster
        .west()
        .sql("create table t (f float8, n numeric, id int primary key, v text, more int)")
        .await;
    cluster.sql_everywhere("insert into t (id, v, n, f) values (1, 'é', 1.50, 0.1), (2, null, 'NaN', 'inf'), (3, '', null, null)").await;
    let said = cluster.mmrepl_ok(&["init"]).await;
    assert_says(
        &said,
        &["of which 1 hold rows: equal", "LATIN1", "column more"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_counts_as_the_sources_and_is_not_sent_back() {
    let schema = "
        create table a (id int generated always as identity primary key, g int generated always as (v * 2) stored, v int);
        create table b (id int primary key, a int references a, j jsonb);
        create table p (id int, k int, primary key (id, k)) partition by range (k);
        create table p1 partition of p for values from (0) to (10);
        create function boom() returns trigger language plpgsql as $$ begin raise 'fired'; end $$;";
    let mut cluster = pair(schema).await;
    let fill = "insert into a (v) select n from generate_series(1, 100) n;
        insert into b select n, n, jsonb_build_object('n', n) from generate_series(1, 100) n;
        insert into p select n, n % 10 from generate_series(1, 50) n;";
    cluster.east().sql(fill).await;
    cluster
        .west()
        .sql(
            "insert into a (v) values (7); insert into p values (99, 1);
        create trigger boom before insert on a for each row execute function boom()",
        )
        .await;
    cluster.mmrepl_ok(&["init", "--copy-from", "east"]).await;
    both_have(
        &cluster,
        "select count(*) || ' ' || sum(g) from a",
        "100 10100",
    )
    .await;
    both_have(&cluster, "select count(*) from b", "100").await;
    both_have(&cluster, "select count(*) from p", "50").await;
    both_have(&cluster, "select count(*) from mmrepl.tombstone", "0").await;
    let origins = "select count(distinct o.roident) || ' ' || min(n.name)
        from a, pg_xact_commit_timestamp_origin(a.xmin) o join mmrepl.node n on n.origin_id = o.roident";
    assert_eq!(cluster.west().value(origins).await, "1 east");
    // What is written from here on arrives, on top of the copy.
    cluster.start_daemons();
    cluster
        .east()
        .sql("update b set j = '{}' where id = 1; delete from p where id = 50")
        .await;
    cluster
        .west()
        .sql("update b set j = '[]' where id = 2")
        .await;
    soon(
        &cluster,
        "select string_agg(j::text, '' order by id) from b where id < 3",
        "{}[]",
    )
    .await;
    soon(&cluster, "select count(*) from p", "49").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_made_later_join_while_the_daemons_run() {
    let mut cluster = pair(PLAIN).await;
    cluster.init().await;
    cluster.start_daemons();
    cluster
        .east()
        .sql("create table later (id int primary key, v text)")
        .await;
    let said = cluster.mmrepl_fails(&["init"]).await;
    assert_says(
        &said,
        &[
            "west",
            "table public.later is on east but not here",
            "pg_dump --schema-only",
        ],
    );
    cluster
        .west()
        .sql("create table later (id int primary key, v text)")
        .await;
    cluster.mmrepl_ok(&["init"]).await;
    cluster
        .east()
        .sql("insert into later values (1, 'e')")
        .await;
    cluster
        .west()
        .sql("insert into later values (2, 'w')")
        .await;
    soon(&cluster, "select count(*) from later", "2").await;
    let again = cluster.mmrepl_ok(&["init"]).await;
    assert!(again.ends_with("nothing to do\n"), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_made_later_with_different_rows_need_a_word() {
    let cluster = pair(PLAIN).await;
    cluster.init().await;
    cluster
        .sql_everywhere("create table later (id int primary key)")
        .await;
    cluster
        .west()
        .sql("insert into later values (1), (2)")
        .await;
    let said = cluster.mmrepl_fails(&["init"]).await;
    assert_says(
        &said,
        &["node east lacks rows that west has in public.later (0 against 2)"],
    );
    both_have(
        &cluster,
        "select count(*) from pg_publication_tables where tablename = 'later'",
        "0",
    )
    .await;
    cluster.mmrepl_ok(&["init", "--copy-from", "west"]).await;
    both_have(&cluster, "select count(*) from later", "2").await;
    both_have(
        &cluster,
        "select count(*) from pg_publication_tables where tablename = 'later'",
        "1",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_slot_is_refused_and_made_anew_on_demand() {
    let cluster = pair(PLAIN).await;
    cluster.init().await;
    let slot = format!("mmrepl_{}_west", cluster.name);
    cluster
        .east()
        .sql(&format!("select pg_drop_replication_slot('{slot}')"))
        .await;
    let said = cluster.mmrepl_fails(&["init"]).await;
    assert_says(
        &said,
        &[
            "east->west",
            "its replication slot is gone",
            "--copy-from east",
            "--assume-identical",
        ],
    );
    cluster.mmrepl_ok(&["init", "--assume-identical"]).await;
    let again = cluster.mmrepl_ok(&["init"]).await;
    assert!(again.ends_with("nothing to do\n"), "{again}");
    // A slot that begins after the target's position: the same.
    cluster
        .west()
        .sql("update mmrepl.apply_position set end_lsn = '0/1'")
        .await;
    let said = cluster.mmrepl_fails(&["init"]).await;
    assert_says(&said, &["east->west", "begins at", "the target's position"]);
    cluster.mmrepl_ok(&["init", "--copy-from", "east"]).await;
    cluster.mmrepl_ok(&["init"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_run_left_is_completed() {
    let cluster = pair(PLAIN).await;
    cluster.init().await;
    // As if it had stopped before the position rows, and before one trigger.
    cluster
        .sql_everywhere("delete from mmrepl.apply_position")
        .await;
    cluster
        .east()
        .sql("drop trigger mmrepl_rekey on t; alter publication mmrepl drop table t")
        .await;
    cluster
        .west()
        .sql("alter table t disable trigger mmrepl_delete; delete from mmrepl.node where not here")
        .await;
    cluster.mmrepl_ok(&["init"]).await;
    both_have(&cluster, "select string_agg(tgname || tgenabled::text, ' ' order by tgname) from pg_trigger where tgname like 'mmrepl%'",
        "mmrepl_deleteA mmrepl_rekeyA mmrepl_truncateA").await;
    both_have(&cluster, "select count(*) from mmrepl.apply_position", "1").await;
    let again = cluster.mmrepl_ok(&["init"]).await;
    assert!(again.ends_with("nothing to do\n"), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn truncating_one_partition_becomes_deletes() {
    let cluster = pair(SHAPES).await;
    cluster.init().await;
    let east = cluster.east();
    east.sql("insert into p select n, n from generate_series(0, 12) n")
        .await;
    east.sql("truncate p1").await;
    assert_eq!(east.value("select count(*) from p").await, "3");
    let keys =
        "select count(*) || ' ' || min(key) from mmrepl.tombstone where relation = 'p'::regclass";
    assert_eq!(east.value(keys).await, "10 {0,0}");
    east.sql("truncate p2").await;
    assert_eq!(
        east.value("select count(*) from mmrepl.tombstone").await,
        "13"
    );
    // The whole table is one tombstone, and its partitions' triggers stay out of it.
    east.sql("insert into p values (1, 1); truncate p").await;
    assert_eq!(
        east.value("select count(*) from mmrepl.tombstone where key = ''")
            .await,
        "1"
    );
    assert_eq!(
        east.value("select count(*) from mmrepl.tombstone").await,
        "14"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn new_partitions_are_completed_by_another_run() {
    let cluster = pair(SHAPES).await;
    cluster.init().await;
    cluster
        .sql_everywhere("create table p3 partition of p for values from (20) to (30)")
        .await;
    let said = cluster.mmrepl_ok(&["init"]).await;
    assert!(said.ends_with("done\n"), "{said}");
    both_have(&cluster, "select string_agg(tgname || tgenabled::text, ' ' order by tgname) from pg_trigger where tgrelid = 'p3'::regclass",
        "mmrepl_deleteA mmrepl_rekeyA mmrepl_truncate_partitionO").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_keys_leave_one_tombstone() {
    let cluster = pair(r"
        create extension if not exists citext;
        create collation nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
        create domain price as numeric;
        create type mood as enum ('sad', 'ok');
        create table k_numeric (k numeric primary key); create table k_price (k price primary key);
        create table k_citext (k citext primary key); create table k_bpchar (k char(5) primary key);
        create table k_float (k float8 primary key); create table k_interval (k interval primary key);
        create table k_nocase (k text collate nocase primary key); create table k_array (k numeric[] primary key);
        create table k_range (k numrange primary key); create table k_jsonb (k jsonb primary key);
        create table k_time (k timestamptz primary key); create table k_mood (k mood primary key);
        create table k_class (k regclass primary key); create table k_bytea (k bytea primary key)").await;
    cluster.init().await;
    let cases = [
        ("numeric", "1.0", "1.00"),
        ("price", "5", "5.000"),
        ("citext", "Ab", "aB"),
        ("bpchar", "a", "a  "),
        ("float", "-0", "0"),
        ("interval", "1 mon", "30 days"),
        ("nocase", "Ab", "aB"),
        ("array", "{1.0}", "{1.00}"),
        ("range", "[1.0,2]", "[1,2.00]"),
        ("jsonb", "{\"a\": 1.0}", "{\"a\": 1.00}"),
        ("time", "2026-01-01 12:00+00", "2026-01-01 14:00+02"),
        ("mood", "ok", "ok"),
        ("class", "k_mood", "public.k_mood"),
        ("bytea", "\\x00ff", "\\000\\377"),
    ];
    let east = cluster.east().client().await;
    for (table, a, b) in cases {
        // Settings of the session must not change the text.
        let sql = format!(
            "set datestyle = 'SQL, DMY'; set timezone = 'Asia/Tokyo'; set bytea_output = 'escape'; set extra_float_digits = -10;
             insert into k_{table} values ('{a}'); delete from k_{table};
             set timezone = 'UTC'; set search_path = public; reset bytea_output;
             insert into k_{table} values ('{b}'); delete from k_{table}"
        );
        crate::support::pg::execute(&east, &sql).await;
        let count =
            format!("select count(*) from mmrepl.tombstone where relation = 'k_{table}'::regclass");
        assert_eq!(
            cluster.east().value(&count).await,
            "1",
            "{table}: {a} and {b}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changing_a_key_leaves_a_tombstone_and_nothing_else_does() {
    let cluster = pair(SHAPES).await;
    cluster.init().await;
    let east = cluster.east();
    east.sql("insert into t values (1, 'a'); update t set v = 'b'; update t set id = 1; update t set id = 2").await;
    east.sql(r#"insert into "Ünï ""q"".x" values (1, 'a'); update "Ünï ""q"".x" set "K é" = 7; delete from "Ünï ""q"".x""#).await;
    let keys = "select string_agg(key, ' ' order by relation, key) from mmrepl.tombstone";
    assert_eq!(east.value(keys).await, "{1} {1} {7}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_carries_the_version_of_its_delete() {
    let cluster = pair(PLAIN).await;
    cluster.init().await;
    let origin = format!("mmrepl_{}_west", cluster.name);
    let east = cluster.east().client().await;
    let local = "insert into t values (1, 'a'), (2, 'b')";
    for sql in [
        local,
        "delete from t where id = 1",
        &format!("select pg_replication_origin_session_setup('{origin}')"),
        "set session_replication_role = replica",
        "begin; select pg_replication_origin_xact_setup('0/10', '2020-01-01 00:00:00+00');
         delete from t where id = 2; commit",
    ] {
        crate::support::pg::execute(&east, sql).await;
    }
    let versions = "select string_agg(key || ' ' || roident || ' ' || extract(year from \"timestamp\" at time zone 'UTC'), ', ' order by key)
        from mmrepl.tombstone t, pg_xact_commit_timestamp_origin(t.xmin) o";
    let west = cluster
        .east()
        .value("select origin_id from mmrepl.node where name = 'west'")
        .await;
    let year = cluster
        .east()
        .value("select extract(year from now() at time zone 'UTC')")
        .await;
    assert_eq!(
        cluster.east().value(versions).await,
        format!("{{1}} 0 {year}, {{2}} {west} 2020")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_role_needs_exactly_the_named_grants() {
    let mut cluster = pair(PLAIN).await;
    if cluster
        .east()
        .value("select current_setting('server_version_num')::int >= 150000")
        .await
        == "f"
    {
        return;
    }
    let role = format!("r_{}", cluster.name);
    let roles = format!("create role {role} login; create role {role}_owner");
    cluster.sql_everywhere(&roles).await;
    let owner = format!(
        "alter table t owner to {role}_owner; alter table t enable row level security; alter table t force row level security"
    );
    cluster.sql_everywhere(&owner).await;
    let config = std::fs::read_to_string(cluster.config()).unwrap();
    let user = config.replace("user=postgres", &format!("user={role}"));
    assert_ne!(user, config, "the harness names its user");
    std::fs::write(cluster.config(), user).unwrap();
    for _ in 0..4 {
        let output = cluster.mmrepl(&["check", "--json"]).await;
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let errors: Vec<&serde_json::Value> = found["problems"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|p| p["severity"] == "error")
            .collect();
        if errors.is_empty() {
            break;
        }
        for error in errors {
            let fix = error["fix"]
                .as_str()
                .unwrap_or_else(|| panic!("no fix: {error}"));
            cluster.node(error["node"].as_str().unwrap()).sql(fix).await;
        }
    }
    cluster.mmrepl_ok(&["check"]).await;
    cluster.mmrepl_ok(&["init"]).await;
    cluster.mmrepl_ok(&["drop", "--yes"]).await;
    cluster
        .sql_everywhere(&format!("drop owned by {role}, {role}_owner cascade"))
        .await;
    let roles = format!("drop role {role}; drop role {role}_owner");
    cluster.sql_everywhere(&roles).await;
    cluster.rewrite_config("");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_what_differs_between_the_nodes() {
    let cluster = pair("create table a (id int primary key)").await;
    cluster.east().sql("create table b (id int primary key, n int, g int, x text); create table c (id int primary key, k int not null unique)").await;
    cluster.west().sql("create table b (id int primary key, n bigint, g int generated always as (1) stored, must int not null);
        create table c (id int, k int not null unique); create table d (id serial primary key, u int unique)").await;
    let said = cluster.mmrepl_fails(&["check"]).await;
    assert_says(
        &said,
        &[
            "west: column x of public.b is on east but not here",
            "alter table public.b add column \"x\" text",
            "west: column n of public.b is bigint here and integer on east",
            "west: column g of public.b is generated here but written on east",
            "west: column must of public.b is NOT NULL without a default",
            "west: public.c is looked up by (k) here and by (id) on east",
            "east: table public.d is on west but not here",
            "d_u_key on public.d",
        ],
    );
    assert_eq!(cluster.mmrepl(&["check"]).await.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_set_up_as_another_node_is_refused() {
    let cluster = pair(PLAIN).await;
    cluster.init().await;
    cluster.east().sql("update mmrepl.node set here = false; update mmrepl.node set here = true where name = 'west'").await;
    let said = cluster.mmrepl_fails(&["init"]).await;
    assert_says(&said, &["east", "was set up as node west"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_migration_is_refused() {
    let cluster = pair(PLAIN).await;
    cluster.init().await;
    cluster
        .west()
        .sql("update mmrepl.migration set checksum = 'x'")
        .await;
    let said = cluster.mmrepl_fails(&["init"]).await;
    assert_says(
        &said,
        &["node west", "migration 001_base on this server differs"],
    );
    cluster
        .west()
        .sql("update mmrepl.migration set number = 9000, name = '9000_future'")
        .await;
    let said = cluster.mmrepl_fails(&["init"]).await;
    assert_says(&said, &["newer mmrepl", "9000_future"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn drop_refuses_while_a_daemon_runs_and_goes_on_without_an_unreachable_node() {
    let mut cluster = pair(PLAIN).await;
    cluster.init().await;
    cluster.start_daemons();
    let active =
        "select count(*) from pg_replication_slots where database = current_database() and active";
    soon(&cluster, active, "1").await;
    let said = cluster.mmrepl_fails(&["drop", "--yes"]).await;
    assert_says(&said, &["is in use: stop the daemon of east"]);
    both_have(&cluster, "select count(*) from pg_publication", "1").await;
    cluster.stop_daemons();
    let config = std::fs::read_to_string(cluster.config()).unwrap();
    let port = format!("port={} ", cluster.west().server().port());
    assert!(config.contains(&port), "{config}");
    std::fs::write(cluster.config(), config.replace(&port, "port=1 ")).unwrap();
    let said = cluster.mmrepl_fails(&["drop", "--yes"]).await;
    assert_says(
        &said,
        &[
            "east: dropped slot",
            "node west: ",
            "mmrepl drop --node west",
        ],
    );
    cluster.rewrite_config("");
    cluster.mmrepl_ok(&["drop", "--yes"]).await;
    both_have(&cluster, "select count(*) from pg_publication", "0").await;
}
