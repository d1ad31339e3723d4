//! Servers whose clocks differ: what was written later wins, and a clock that is off is named.

use serde_json::Value;

use crate::support::clock::Clock;
use crate::support::wait::ensure;
use crate::support::{Cluster, ClusterOptions, LIMIT, wait_until};

const TABLE: &str = "create table t (id int primary key, v text, written timestamptz)";

/// A running pair; west's clock is `ahead` seconds ahead.
async fn pair(ahead: i64, conflict: &str) -> Option<(Cluster, Clock)> {
    let clock = Clock::ahead(ahead)?;
    let options = ClusterOptions::pair()
        .own_with(|index| match index {
            0 => mmrepl::local::ServerOptions::default(),
            _ => clock.options(),
        })
        .config(&format!("\n[conflict]\n{conflict}\n"));
    let cluster = Cluster::running_with(options, TABLE).await;
    Some((cluster, clock))
}

async fn wait_value(cluster: &Cluster, node: &str, sql: &str, expected: &str) {
    wait_until(&format!("{sql} on {node}"), LIMIT, async || {
        let found = cluster.node(node).rows(sql).await;
        let found = found.first().and_then(|row| row[0].clone());
        ensure(found.as_deref() == Some(expected), || format!("{found:?}"))
    })
    .await;
}

/// Each write is made on one node after the other node's write was seen there.
async fn alternate(cluster: &Cluster, first: &str, second: &str) {
    let value = "select v from t where id = 1";
    cluster
        .node(first)
        .sql("insert into t values (1, 'start', now())")
        .await;
    let mut last = "start".to_owned();
    for round in 0..3 {
        for node in [second, first] {
            wait_value(cluster, node, value, &last).await;
            last = format!("{node} {round}");
            let update = format!("update t set v = '{last}', written = now()");
            cluster.node(node).sql(&update).await;
        }
    }
    wait_value(cluster, second, value, &last).await;
    cluster.node(second).sql("delete from t").await;
    wait_value(cluster, first, "select count(*) from t", "0").await;
    cluster
        .node(first)
        .sql("insert into t values (1, 'again', now())")
        .await;
    wait_value(cluster, second, value, "again").await;
    cluster.wait_equal().await;
}

fn offset(link: &Value) -> f64 {
    link["clock_offset_ms"].as_f64().unwrap_or(0.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_later_write_wins_although_one_clock_is_three_seconds_ahead() {
    let Some((cluster, _clock)) = pair(3, "").await else {
        return;
    };
    cluster.wait_streaming().await;
    alternate(&cluster, "west", "east").await;
    for (from, to, sign) in [("east", "west", 1.0), ("west", "east", -1.0)] {
        let link = cluster.link_status(from, to).await.unwrap();
        let doubt = link["clock_uncertainty_ms"].as_f64().unwrap();
        let error = (offset(&link) - sign * 3000.0).abs();
        assert!(error <= doubt + 50.0, "{link}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_later_write_wins_although_one_clock_is_three_seconds_behind() {
    let Some((cluster, _clock)) = pair(-3, "").await else {
        return;
    };
    cluster.wait_streaming().await;
    alternate(&cluster, "west", "east").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_behind_makes_the_link_wait_and_say_so() {
    let Some((cluster, _clock)) = pair(-6, "").await else {
        return;
    };
    cluster.wait_streaming().await;
    let east = cluster.east();
    east.sql("insert into t values (1, 'early', now())").await;
    let reason = cluster
        .wait_reason(("east", "west"), &["waiting"], "the clock of west is")
        .await;
    assert!(reason.contains(" ms behind the commit time"), "{reason}");
    wait_value(&cluster, "west", "select v from t", "early").await;
    // Not before west's own clock had passed the commit time.
    let late = "select (clock_timestamp() >= written)::text from t";
    assert_eq!(cluster.west().value(late).await, "true");
    cluster.wait_state("east", "west", &["streaming"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_allowed_skew_the_link_stops_and_goes_on_once_the_clock_is_mended() {
    let Some((mut cluster, clock)) = pair(0, "max_clock_skew = \"2s\"").await else {
        return;
    };
    // Daemons that start find the clock off; `init` would have refused to.
    cluster.allow_error("link needs somebody");
    cluster.wait_streaming().await;
    cluster.stop_daemons();
    clock.set(-3600);
    cluster.start_daemons();
    let reason = cluster
        .wait_reason(("east", "west"), &["stopped"], "max_clock_skew is 2000 ms")
        .await;
    let said = reason
        .split(' ')
        .find_map(|word| word.parse::<i64>().ok())
        .unwrap();
    assert!((3_598_000..3_602_000).contains(&said), "{reason}");
    cluster
        .east()
        .sql("insert into t values (1, 'waits', now())")
        .await;
    assert_eq!(cluster.west().value("select count(*) from t").await, "0");
    // The other direction has nothing to wait for.
    let west = cluster.west();
    west.sql("insert into t values (2, 'goes', now())").await;
    wait_value(&cluster, "east", "select v from t where id = 2", "goes").await;

    clock.set(0);
    cluster.wait_state("east", "west", &["streaming"]).await;
    wait_value(&cluster, "west", "select v from t where id = 1", "waits").await;
    cluster.wait_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_is_noticed_once_and_stops_the_link_while_it_is_off() {
    let Some((mut cluster, clock)) = pair(0, "max_clock_skew = \"2s\"").await else {
        return;
    };
    cluster.allow_error("link needs somebody");
    cluster.wait_streaming().await;
    wait_until("the clocks to be compared", LIMIT, async || {
        let link = cluster.link_status("east", "west").await?;
        ensure(!link["clock_offset_ms"].is_null(), || link.to_string())
    })
    .await;
    clock.set(-60);
    let notices = wait_until("the step to be noticed", LIMIT, async || {
        let link = cluster.link_status("east", "west").await?;
        let notices = link["notices"].as_array().cloned().unwrap_or_default();
        ensure(!notices.is_empty(), || link.to_string())?;
        Ok::<_, String>(notices)
    })
    .await;
    let message = notices[0]["message"].as_str().unwrap();
    assert!(
        message.contains("the clock of west was set back by"),
        "{message}"
    );
    assert_eq!(notices.len(), 1, "{notices:?}");
    // The running link finds out with the next change.
    cluster
        .east()
        .sql("insert into t values (1, 'waits', now())")
        .await;
    cluster
        .wait_reason(("east", "west"), &["stopped"], "the clock of west is")
        .await;
    clock.set(0);
    wait_value(&cluster, "west", "select v from t", "waits").await;
    cluster.wait_state("east", "west", &["streaming"]).await;
    let said = |node: &str| cluster.log(node).matches("was set back by").count();
    assert_eq!(said("east"), 1, "{}", cluster.log("east"));
}
