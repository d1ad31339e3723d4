//! What PostgreSQL 19 does otherwise than the servers before it.

use mmrepl::local::ServerOptions;

use crate::on_majors;
use crate::support::{Cluster, ClusterOptions};

/// At `replica` the first logical slot switches logical decoding on.
async fn no_restart(majors: &[u32]) {
    let options = ClusterOptions::majors(majors)
        .own_with(|_| ServerOptions::default().with("wal_level", "replica"));
    let mut cluster = Cluster::start(options).await;
    cluster
        .sql_everywhere("create table t (id int primary key, v text)")
        .await;
    cluster.mmrepl_ok(&["check"]).await;
    for round in 1..=2 {
        cluster.init().await;
        let level = "show effective_wal_level";
        assert_eq!(cluster.east().value(level).await, "logical");
        cluster.start_daemons();
        cluster.wait_streaming().await;
        cluster
            .write_apart(
                &format!("insert into t values ({round}, 'east')"),
                &format!("insert into t values (-{round}, 'west')"),
            )
            .await;
        assert_eq!(
            cluster.east().value("select count(*) from t").await,
            (round * 2).to_string()
        );
        // Dropped, the servers are as they were before, and a second init starts over.
        cluster.stop_daemons();
        cluster.mmrepl_ok(&["drop", "--yes"]).await;
    }
}
on_majors!(replica_is_enough_for_wal_level, no_restart, 19, 19);

/// A server at `minimal` is refused there as everywhere.
async fn minimal(majors: &[u32]) {
    let options = ClusterOptions::majors(majors).own_with(|index| {
        let options = ServerOptions::default();
        let options = options.with("wal_level", ["logical", "minimal"][index]);
        options.with("max_wal_senders", ["20", "0"][index])
    });
    let cluster = Cluster::start(options).await;
    let said = cluster.mmrepl_fails(&["check"]).await;
    let expected = "wal_level is minimal; it must be replica or logical";
    assert!(said.contains(expected), "{said}");
}
on_majors!(minimal_is_not_enough_for_wal_level, minimal, 19, 19);

/// WAL positions are printed with leading zeros there: `0/00000010`.
async fn positions_in_rows(majors: &[u32]) {
    let schema = "
        create domain place as pg_lsn;
        create type stay as (at pg_lsn, note text);
        create domain named as place;
        create type route as (stays stay[], at named);
        create type places as range (subtype = pg_lsn);
        create table keyless (a pg_lsn, b place, c pg_lsn[], d stay, v text,
            e named default '0/50',
            f route default row(array[row('0/60', '/0A')::stay], '0/70')::route,
            g places default '[0/80,0/90)', h place[] default '{0/A0}');
        create table keyed (at pg_lsn primary key, v text)";
    let mut cluster = Cluster::start(ClusterOptions::majors(majors)).await;
    cluster.sql_everywhere(schema).await;
    // What is equal before is equal for init.
    cluster
        .sql_everywhere(
            "create table before (at pg_lsn primary key, more pg_lsn[], like keyless);
             insert into before values ('0/10', '{0/10,16/A0,NULL}', '0/10', '0/20', '{0/30}',
                 '(0/40,x)', 'v', '0/50', '(\"{\"\"(0/60,y)\"\"}\",0/70)', '[0/80,0/90)', '{0/A0}');
             insert into before values ('0/0', '{}')",
        )
        .await;
    cluster.init().await;
    cluster.start_daemons();
    cluster.wait_streaming().await;
    let insert = |base: &str| {
        format!(
            "insert into keyless values
                 ('{base}/10', '{base}/20', '{{{base}/30,{base}/0}}', '({base}/40,x)', 'one'),
                 ('{base}/10', '{base}/20', null, null, 'two'),
                 (null, null, '{{}}', '(,)', 'three {base}');
             insert into keyed values ('{base}/10', 'a'), ('{base}/11', 'b'), ('{base}/12', 'c')"
        )
    };
    cluster.write_apart(&insert("0"), &insert("16")).await;
    // Each side changes the other's rows.
    let change = |base: &str| {
        format!(
            "update keyless set v = v || '!' where a = '{base}/10' or v = 'three {base}';
             delete from keyless where a = '{base}/10' and c is null;
             update keyless set a = '{base}/11' where a = '{base}/10';
             update keyed set v = v || '!' where at = '{base}/10';
             update keyed set at = '{base}/13' where at = '{base}/11';
             delete from keyed where at = '{base}/12'"
        )
    };
    cluster.write_apart(&change("16"), &change("0")).await;
    for node in [cluster.east(), cluster.west()] {
        let rows =
            "select string_agg(format('%s %s', a - '0/0', v), ', ' order by a, v) from keyless";
        assert_eq!(
            node.value(rows).await,
            "17 one!, 94489280529 one!,  three 0!,  three 16!"
        );
        let rows = "select string_agg(format('%s %s', at - '0/0', v), ', ' order by at) from keyed";
        assert_eq!(
            node.value(rows).await,
            "16 a!, 19 b, 94489280528 a!, 94489280531 b"
        );
    }
    // A second init finds nothing to do.
    cluster.init().await;
}
on_majors!(positions_match_between_14_and_19, positions_in_rows, 14, 19);
on_majors!(positions_match_on_19, positions_in_rows, 19, 19);
