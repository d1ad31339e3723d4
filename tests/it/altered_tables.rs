//! The event triggers before `ALTER TABLE`: only what such a command is about is touched, and only
//! for roles that could alter it.

use crate::on_usual_majors;
use crate::support::pg;
use crate::support::{Cluster, ClusterOptions};

const SCHEMA: &str = r#"
    create schema tenant;
    create table orders (id int primary key, width int, v text);
    create table tenant.orders (id int primary key, width int, v text);
    create table mixed (id int, "Odd; ""K" int, v text, primary key (id, "Odd; ""K"));
    create table ruled (id int primary key, v text);"#;

const CONFIG: &str = "
[tables]
include = [\"public.*\", \"tenant.*\"]

[[conflict.table]]
name = \"public.ruled\"
strategy = \"manual\"
";

/// What a command leaves in its transaction: whether `orders` was read, and what is locked.
const TOUCHED: &str = "
    select concat_ws(' ',
        (select 'scanned' from pg_stat_xact_user_tables where relname = 'orders'
         having sum(seq_scan) > 0),
        (select string_agg(l.relation::regclass::text, ' ' order by l.relation)
         from pg_locks l join pg_class c on c.oid = l.relation
         where l.pid = pg_backend_pid() and l.mode = 'AccessExclusiveLock' and c.relkind = 'r'
           and c.relname in ('orders', 'mixed', 'ruled')))";

/// Commands, and what they touch. The last ones change the type of columns of keys.
const COMMANDS: [(&str, &str); 10] = [
    ("alter table orders add column type text", "orders"),
    (
        "alter table tenant.orders add type text; alter table orders add type text",
        "orders tenant.orders",
    ),
    ("alter table orders alter width type int", "orders"),
    (
        "alter table orders alter v set default 'alter id type bigint'",
        "orders",
    ),
    (
        "alter table orders /* alter id type bigint */ add t text -- alter id type bigint",
        "orders",
    ),
    (
        "set local search_path = tenant, public; alter table orders add t text; set local search_path = public",
        "tenant.orders",
    ),
    (
        "create temp table other (id int); alter table other alter id type bigint; drop table other",
        "",
    ),
    (
        "alter table only orders alter column id set data type bigint",
        "scanned orders",
    ),
    (
        "set local search_path = tenant, public; alter table orders alter id type bigint; set local search_path = public",
        "scanned tenant.orders",
    ),
    (
        "do $$ begin alter table mixed alter \"Odd; \"\"K\" type bigint; end $$",
        "mixed",
    ),
];

/// By a role that owns nothing of it.
const TRICKS: [&str; 4] = [
    "alter table x /* alter table orders alter id type bigint */ add b int",
    "alter table x alter a type bigint; -- alter table public.orders alter id type bigint",
    "alter table x alter a type bigint; do $$ begin if false then
        alter table orders alter id type bigint; end if; end $$",
    "alter table x add c text default $x$; alter table ruled alter id type bigint, drop v $x$;
     alter table if exists x add d int /* ; alter table ruled drop v */",
];

/// What a role could have run with the rights of the schema's owner.
const FORGED: &str = r#"
    select set_config('mmrepl.released', '[{"table": "x", "trigger": "y", "enabled": "A",
        "definition": "create table public.forged (id int)"}]', false),
        set_config('mmrepl.caller', '["postgres", ["public"]]', false);
    create temp table z (a int primary key);
    alter table z add b int"#;

async fn only_what_is_altered(majors: &[u32]) {
    let options = ClusterOptions::majors(majors).config(CONFIG);
    let cluster = Cluster::running_with(options, SCHEMA).await;
    cluster.wait_streaming().await;
    for (command, touched) in COMMANDS {
        let client = cluster.east().client().await;
        pg::execute(&client, "begin").await;
        pg::execute(&client, command).await;
        assert_eq!(pg::value(&client, TOUCHED).await, touched, "{command}");
        pg::execute(&client, "rollback").await;
    }
    let client = cluster.east().client().await;
    let role = format!("anyone_{}", cluster.name);
    let enter = format!(
        "create role {role}; set role {role}; set client_min_messages = error;
         create temp table x (a int primary key)"
    );
    pg::execute(&client, &enter).await;
    for command in TRICKS {
        pg::execute(&client, "begin").await;
        pg::execute(&client, command).await;
        assert_eq!(pg::value(&client, TOUCHED).await, "", "{command}");
        pg::execute(&client, "rollback").await;
    }
    pg::execute(&client, FORGED).await;
    let made = "select count(*) from pg_class where relname = 'forged'";
    assert_eq!(pg::value(&client, made).await, "0");
    by_a_function(&cluster, &client, &role).await;
    pg::execute(
        &client,
        &format!("drop table x, z; reset role; drop role {role}"),
    )
    .await;
}

/// A function with the rights of the tables' owner may alter them, whoever calls it, and triggers
/// of ours that look at the column let go of it and come back.
async fn by_a_function(cluster: &Cluster, client: &tokio_postgres::Client, role: &str) {
    let own = format!(
        "create function public.widen() returns void language plpgsql security definer as
         $$ begin alter table ruled alter id type bigint; end $$;
         grant execute on function public.widen() to {role}"
    );
    cluster.east().sql(&own).await;
    let triggers =
        "select string_agg(tgname || tgenabled::text, ' ' order by tgname) from pg_trigger
                    where tgrelid = 'ruled'::regclass and not tgisinternal";
    let before = cluster.east().value(triggers).await;
    pg::execute(client, "select public.widen()").await;
    assert_eq!(cluster.east().value(triggers).await, before);
    let left = "select count(*) from mmrepl.released";
    assert_eq!(cluster.east().value(left).await, "0");
    cluster.east().sql("drop function widen()").await;
}
on_usual_majors!(touched, crate::altered_tables::only_what_is_altered);
