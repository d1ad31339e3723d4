//! `mmrepl skip`: a person's way past what cannot be applied.

use crate::on_usual_majors;
use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, LIMIT, wait_until};

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

/// A column is added and set here while older rows are under way: that is said.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_older_rows_lack_is_noticed() {
    let cluster = Cluster::running(SCHEMA).await;
    cluster.wait_streaming().await;
    cluster
        .write_on(cluster.west(), "insert into t values (1, 'a')")
        .await;
    cluster.pause_all().await;
    let add = "alter table t add added int";
    cluster.east().sql(add).await;
    cluster.east().sql("update t set added = 5").await;
    cluster.west().sql("update t set v = 'later'").await;
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
}
