//! Trigger functions are a table's own and run with the session's settings: nothing that a session
//! sets or shadows, and nothing that it alters on the way, changes what they leave or makes a
//! statement fail.

use std::fmt::Write as _;

use crate::on_usual_majors;
use crate::support::{Cluster, ClusterOptions, pg};

const TABLES: &str = "
create table t (id bigint primary key, v bigint);
create table vc (id bigint primary key, v bigint);
create table hc (id bigint primary key, v bigint);
create table ed (id bigint primary key, v bigint);
create table kn (id bigint primary key, v bigint);
create table me (id bigint primary key, v bigint not null);";

const RULES: &str = r#"
[[conflict.table]]
name = "public.vc"
strategy = "version_column"
version_column = "v"
[[conflict.table]]
name = "public.hc"
strategy = "hybrid_clock"
[[conflict.table]]
name = "public.ed"
strategy = "node_priority"
[[conflict.table]]
name = "public.kn"
strategy = "manual"
[[conflict.table]]
name = "public.me"
strategy = "column_merge"
delta_columns = ["v"]
"#;

/// The tables, each with another rule.
const NAMES: [&str; 6] = ["t", "vc", "hc", "ed", "kn", "me"];

/// Sets the tables up, without daemons.
async fn set_up(majors: &[u32]) -> Cluster {
    let cluster = Cluster::start(ClusterOptions::majors(majors).config(RULES)).await;
    cluster.sql_everywhere(TABLES).await;
    cluster.init().await;
    cluster
}

/// How many keys are remembered, by table.
const LEFT: &str = "
select string_agg(left_by, ' ' order by left_by)
from (select relation::regclass || ' ' || count(distinct key) as left_by
      from mmrepl.tombstone group by relation) counted";

/// What anybody may make: operators and functions that stand before those of `pg_catalog`.
const SHADOWS: &str = "
create role app; create schema evil; grant usage on schema evil to app;
grant all on t, vc, hc, ed, kn, me to app;
do $make$
declare
    kind text;
    operator text;
begin
    create function evil.array_agg(anyelement) returns text language plpgsql
        as $$ begin raise exception 'shadowed as %', current_user; end $$;
    create function evil.cardinality(anyarray) returns int language plpgsql
        as $$ begin raise exception 'shadowed as %', current_user; end $$;
    create function evil.current_setting(text, boolean) returns text language plpgsql
        as $$ begin raise exception 'shadowed as %', current_user; end $$;
    create function evil.clock_timestamp() returns timestamptz language plpgsql
        as $$ begin raise exception 'shadowed as %', current_user; end $$;
    foreach kind in array array['text', 'int', 'bigint', 'oid', 'boolean', 'numeric', 'jsonb',
            'text[]', 'bigint[]'] loop
        execute format('create function evil.no(%1$s, %1$s) returns boolean language plpgsql
            as $$ begin raise exception ''shadowed as %%'', current_user; end $$', kind);
        foreach operator in array array['=', '<>', '<', '>', '<=', '>=', '+', '||'] loop
            execute format('create operator evil.%1$s (leftarg = %2$s, rightarg = %2$s,
                function = evil.no)', operator, kind);
        end loop;
    end loop;
end $make$;
grant execute on all functions in schema evil to app";

on_usual_majors!(what_a_role_shadows_is_not_called, super::shadowed);

async fn shadowed(majors: &[u32]) {
    let cluster = set_up(majors).await;
    let east = cluster.east();
    east.sql(SHADOWS).await;
    let mut session = "set role app; set search_path = evil, pg_catalog;
        set datestyle = 'SQL, DMY'; set quote_all_identifiers = on;"
        .to_owned();
    for name in NAMES {
        let _ = write!(
            session,
            "insert into public.{name} (id, v) select i, 5 from generate_series(1, 100) i;
             update public.{name} set v = 4; update public.{name} set v = 6;
             update public.{name} set id = 1000 where id OPERATOR(pg_catalog.=) 50;
             delete from public.{name} where id OPERATOR(pg_catalog.=) 1;
             delete from public.{name} where id OPERATOR(pg_catalog.<) 4;
             insert into public.{name} (id, v) values (1, 0), (2, 0);
             delete from public.{name} where id OPERATOR(pg_catalog.<) 1000;"
        );
    }
    pg::execute(&east.client().await, &session).await;
    let left = NAMES.map(|name| format!("{name} 100"));
    let mut left = left.to_vec();
    left.sort();
    assert_eq!(east.value(LEFT).await, left.join(" "));
}

on_usual_majors!(
    a_session_goes_on_when_its_tables_change,
    super::altered_on_the_way
);

/// Plans and types that the functions keep for a session are those of the tables as they were.
async fn altered_on_the_way(majors: &[u32]) {
    let cluster = set_up(majors).await;
    let east = cluster.east();
    let mut session = String::new();
    for name in ["t", "vc", "hc"] {
        let _ = write!(
            session,
            "insert into {name} (id, v) select i, 5 from generate_series(1, 100) i;
             delete from {name} where id = 1; delete from {name} where id in (2, 3);
             insert into {name} (id, v) values (1, 0);
             alter table {name} alter id type numeric;
             delete from {name} where id = 4; delete from {name} where id < 30;
             insert into {name} (id, v) values (4, 0);
             alter table {name} rename id to ident;
             delete from {name} where ident = 30; delete from {name} where ident < 60;
             insert into {name} (ident, v) values (30, 0);"
        );
    }
    session += "alter table vc alter v type numeric; update vc set v = 7 where ident = 70;
        update vc set v = 6 where ident = 70; delete from vc where ident >= 70;
        insert into vc values (70, 0)";
    let client = east.client().await;
    pg::execute(&client, &session).await;
    let text_of_settings = "select current_setting('search_path') || current_setting('datestyle')
        || current_setting('timezone') || current_setting('row_security')";
    let row = client.query_one(text_of_settings, &[]).await.unwrap();
    let fresh = east.value(text_of_settings).await;
    assert_eq!(row.get::<_, String>(0), fresh, "settings are as they were");
    assert_eq!(east.value(LEFT).await, "hc 59 t 59 vc 90");
    let above = "select string_agg(v::text, ' ' order by ident) from vc where ident in (30, 70)";
    assert_eq!(east.value(above).await, "5 7");
}

/// A key that is deleted by an index of another number, as REINDEX CONCURRENTLY gives it, is
/// remembered; `init` takes the number over, and has nothing to do then.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_was_made_anew_is_no_damage() {
    let cluster = set_up(&[17, 17]).await;
    let east = cluster.east();
    let number = "select substring(prosrc from 'pg_get_indexdef\\((\\d+)') from pg_proc
        where proname = 'deleted_' || 't'::regclass::oid";
    let before = east.value(number).await;
    east.sql("reindex index concurrently t_pkey").await;
    east.sql("insert into t values (1, 1); delete from t").await;
    assert_eq!(east.value(LEFT).await, "t 1");
    cluster.mmrepl_ok(&["init"]).await;
    let now = "select 't_pkey'::regclass::oid::text";
    assert_eq!(east.value(number).await, east.value(now).await);
    assert_ne!(east.value(number).await, before);
    let again = cluster.mmrepl_ok(&["init"]).await;
    assert!(again.ends_with("nothing to do\n"), "{again}");
}

/// What a table had of its own goes with it when it takes part no longer.
#[tokio::test(flavor = "multi_thread")]
async fn functions_go_with_their_table() {
    let mut cluster = set_up(&[17, 17]).await;
    cluster.rewrite_config(&format!("{RULES}[tables]\nexclude = [\"public.t\"]\n"));
    cluster.mmrepl_ok(&["init"]).await;
    let own = "select count(*) from pg_proc where pronamespace = 'mmrepl'::regnamespace
        and proname ~ ('_' || 't'::regclass::oid || '$')";
    assert_eq!(cluster.east().value(own).await, "0");
}
