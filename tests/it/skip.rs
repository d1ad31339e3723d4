//! `mmrepl skip`: a person's way past what cannot be applied.

use crate::on_usual_majors;
use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, LIMIT, pg, wait_until};

const SCHEMA: &str = "
    create table t (id int primary key, v text, old text);
    create table gone (id int primary key, v text);
    create table other (id int primary key, v text);";

/// The command that a reason names.
fn command(reason: &str) -> Vec<String> {
    let start = reason.find("mmrepl skip").expect("a command in the reason");
    let text = reason[start..].split('`').next().unwrap_or_default();
    let words = text.split(' ').skip(1);
    words
        .map(|word| word.trim_matches('\'').to_owned())
        .collect()
}

async fn run_what_the_reason_says(cluster: &Cluster, text: &str) {
    let reason = cluster
        .wait_reason(("west", "east"), &["blocked"], text)
        .await;
    let command = command(&reason);
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let without: Vec<&str> = words.iter().copied().filter(|w| *w != "--yes").collect();
    let refused = cluster.mmrepl(&without).await;
    assert_eq!(refused.status.code(), Some(2));
    cluster.mmrepl_ok(&words).await;
}

/// A column and a table are dropped here while their rows are under way.
async fn a_change_is_let_by(majors: &[u32]) {
    let options = ClusterOptions::majors(majors);
    let mut cluster = Cluster::running_with(options, SCHEMA).await;
    cluster.allow_error("mmrepl skip");
    cluster.wait_streaming().await;
    let fill = "insert into t values (1, 'a', 'x'); insert into gone values (1, 'a')";
    cluster.write_on(cluster.west(), fill).await;
    cluster.pause_all().await;
    let west = "begin; insert into other values (1, 'kept'); update t set v = 'b', old = 'y';
        insert into t values (2, 'c', 'z'); commit;
        begin; insert into other values (2, 'kept'); update gone set v = 'b'; delete from gone;
        commit; insert into other values (3, 'kept')";
    cluster.west().sql(west).await;
    cluster
        .east()
        .sql("alter table t drop old; drop table gone")
        .await;
    cluster.resume_all().await;
    run_what_the_reason_says(&cluster, "no column \"old\"").await;
    run_what_the_reason_says(&cluster, "public.gone does not exist").await;
    cluster.wait_streaming().await;
    let others = "select string_agg(id || v, ',' order by id) from other";
    assert_eq!(cluster.east().value(others).await, "1kept,2kept,3kept");
    assert_eq!(
        cluster
            .east()
            .value("select string_agg(v, ',') from t")
            .await,
        "a"
    );
    let kept = "select string_agg(table_name || array_to_string(key_values, '')
        || coalesce(':' || array_to_string(incoming_values, ','), ''), ' ' order by id)
        from mmrepl.conflict where kind = 'skipped' and outcome = 'kept_local'";
    assert_eq!(
        cluster.east().value(kept).await,
        "t1:1,b,y t2:2,c,z gone1:1,b gone1"
    );
    let listed = cluster.mmrepl_ok(&["conflicts", "list"]).await;
    assert!(listed.contains("skipped"), "{listed}");
}
on_usual_majors!(let_by, crate::skip::a_change_is_let_by);

/// A column is added and set here while older rows are under way: that is said, and only of a table
/// where it was set.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_older_rows_lack_is_noticed() {
    let cluster = Cluster::running(SCHEMA).await;
    cluster.wait_streaming().await;
    cluster
        .write_on(
            cluster.west(),
            "insert into other values (1, 'a'); insert into t values (1, 'a')",
        )
        .await;
    cluster.pause_all().await;
    let add = "alter table t add added int; alter table other add quiet int default 7";
    cluster.east().sql(add).await;
    cluster.east().sql("update t set added = 5").await;
    let later = "update other set v = 'later'; update t set v = 'later'";
    cluster.west().sql(later).await;
    cluster.west().sql(add).await;
    cluster.resume_all().await;
    let text = wait_until("a notice", LIMIT, async || {
        let link = cluster.link_status("west", "east").await?;
        let text = link["notices"].to_string();
        ensure(text.contains("without added"), || link.to_string())?;
        Ok::<_, String>(text)
    })
    .await;
    assert!(text.contains("public.t"), "{text}");
    // The table that is met first is asked about first.
    assert!(!text.contains("quiet"), "{text}");
}

/// A commit time that no clock has reached is named, with its origin and the way past it.
async fn let_future_by(majors: &[u32], known: bool) {
    let options = ClusterOptions::majors(majors);
    let mut cluster = Cluster::running_with(options, SCHEMA).await;
    cluster.allow_error("link needs somebody");
    cluster.wait_streaming().await;
    let west = cluster.west().client().await;
    let origin = format!("legacy_{}", cluster.name);
    let write = |rows: &str, time: &str| {
        format!(
            "select pg_replication_origin_session_setup('{origin}');
             begin; select pg_replication_origin_xact_setup('0/10', {time}); {rows}; commit;
             select pg_replication_origin_session_reset()"
        )
    };
    pg::execute(
        &west,
        &format!("select pg_replication_origin_create('{origin}')"),
    )
    .await;
    let there = write("insert into t values (1, 'kept')", "now()");
    if known {
        pg::execute(&west, &there).await;
        cluster.wait_equal().await;
    }
    let rows = "insert into t values (2, 'early'); insert into other values (2, 'early')";
    pg::execute(&west, &write(rows, "now() + interval '400 days'")).await;
    pg::execute(&west, "insert into t values (3, 'behind')").await;
    let link = ("west", "east");
    let reason = cluster
        .wait_reason(link, &["stopped"], "was committed at")
        .await;
    assert!(
        reason.contains(&format!("replication origin \"{origin}\"")),
        "{reason}"
    );
    assert!(reason.contains("ahead of the clock of west"), "{reason}");
    let command = command(&reason);
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    cluster.mmrepl_ok(&words).await;
    cluster.wait_streaming().await;
    let all = "select string_agg(id || v, ' ' order by id) from t";
    wait_until("the transaction behind it", LIMIT, async || {
        let found = cluster.east().value(all).await;
        let right = if known { "1kept 3behind" } else { "3behind" };
        ensure(found == right, || found)
    })
    .await;
    let kept = "select string_agg(table_name, ' ' order by id) from mmrepl.conflict
        where kind = 'skipped'";
    assert_eq!(cluster.east().value(kept).await, "t other");
    // The link knows when its last transaction committed, and goes on from there.
    let time = "select commit_time < now() and commit_time > now() - interval '1 hour'
        from mmrepl.apply_position";
    assert_eq!(cluster.east().value(time).await, "t");
    goes_on(&mut cluster).await;
    pg::execute(
        &west,
        &format!("select pg_replication_origin_drop('{origin}')"),
    )
    .await;
}

async fn goes_on(cluster: &mut Cluster) {
    cluster.stop_daemons();
    cluster.start_daemons();
    let east = cluster.east();
    east.sql("update t set v = 'east' where id = 3").await;
    wait_until("the other direction", LIMIT, async || {
        let found = cluster.west().value("select v from t where id = 3").await;
        ensure(found == "east", || found)
    })
    .await;
}

async fn the_future_is_let_by(majors: &[u32]) {
    let_future_by(majors, true).await;
}
on_usual_majors!(the_future_is_let_by, crate::skip::the_future_is_let_by);

/// The transaction is the first that has an origin, and so was left out by the stream.
async fn an_unknown_future_is_let_by(majors: &[u32]) {
    let_future_by(majors, false).await;
}
on_usual_majors!(
    an_unknown_future_is_let_by,
    crate::skip::an_unknown_future_is_let_by
);

/// The key grew on both while rows were under way: they do not bring the new column.
async fn old_keys(majors: &[u32]) {
    let schema = "create table t (id int primary key, tenant int not null default 1, v text)";
    let options = ClusterOptions::majors(majors);
    let mut cluster = Cluster::running_with(options, schema).await;
    cluster.allow_error("its old key back");
    cluster.wait_streaming().await;
    let fill = "insert into t select g, 1, 'a' from generate_series(1, 4) g";
    cluster.write_on(cluster.west(), fill).await;
    for keep in [true, false] {
        cluster.pause_all().await;
        let west = cluster.west();
        let delete = "delete from t where id = (select min(id) from t)";
        west.sql(delete).await;
        let grow = "alter table t drop constraint t_pkey, add primary key (id, tenant)";
        cluster.sql_everywhere(grow).await;
        cluster.mmrepl_ok(&["init"]).await;
        cluster.resume_all().await;
        let link = ("west", "east");
        let reason = cluster
            .wait_reason(
                link,
                &["blocked"],
                "its old key back until the link has drained",
            )
            .await;
        let back = "alter table t drop constraint t_pkey, add primary key (id)";
        if keep {
            cluster.east().sql(back).await;
            cluster.wait_streaming().await;
            cluster.wait_equal().await;
            cluster.sql_everywhere(back).await;
        } else {
            let command = command(&reason);
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            cluster.mmrepl_ok(&words).await;
            cluster.wait_streaming().await;
            // East keeps the row whose delete was let go by.
            assert_eq!(cluster.east().value("select count(*) from t").await, "3");
            assert_eq!(west.value("select count(*) from t").await, "2");
        }
    }
}
on_usual_majors!(rows_under_an_old_key_find_a_way, crate::skip::old_keys);
