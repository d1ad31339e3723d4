//! A local writer and what is applied wait for each other's rows.

use crate::on_every_major;
use crate::support::wait::{LIMIT, ensure, wait_until};
use crate::support::{Cluster, ClusterOptions, Node};

/// Sessions that set nothing else look for circles when the test has long failed.
const SCHEMA: &str = "create table t (id int primary key, v text);
    do $$ begin
        execute format('alter database %I set deadlock_timeout = ''20min''', current_database());
    end $$";

/// Waits until a session of the node's database whose statement or name is like that waits for a
/// lock.
async fn wait_for_waiting(node: &Node, who: &str) {
    let waiting = format!(
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock'
         and datname = current_database()
         and (query like '{who}' or application_name like '{who}')"
    );
    wait_until(&format!("{who} to wait"), LIMIT, async || {
        let count = node.value(&waiting).await;
        ensure(count == "1", || count.clone())
    })
    .await;
}

/// The server finds the circle and ends it at the cost of the session that looks first: ours.
async fn we_give_way(majors: &[u32]) {
    let cluster = Cluster::running_with(ClusterOptions::majors(majors), SCHEMA).await;
    cluster.wait_streaming().await;
    let (east, west) = (cluster.east(), cluster.west());
    let fill = "insert into t select n, 'first' from generate_series(1, 3) n";
    cluster.write_on(east, fill).await;
    let (application, other) = (east.client().await, east.client().await);
    let begin = "set deadlock_timeout = '20s'; begin; update t set v = 'application' where id = 3";
    application.batch_execute(begin).await.unwrap();
    let begin = "begin; update t set v = 'other' where id = 2";
    other.batch_execute(begin).await.unwrap();
    // What is applied has the first row then, and waits for the second.
    let set = |id| format!("update t set v = 'applied' where id = {id};");
    let applied = format!("begin; {} {} {} commit", set(1), set(2), set(3));
    west.sql(&applied).await;
    wait_for_waiting(east, "mmrepl % apply").await;
    let update = tokio::spawn(async move {
        let update = "update t set v = 'application' where id = 1";
        application.batch_execute(update).await?;
        application.batch_execute("commit").await
    });
    wait_for_waiting(east, "update t set v = ''application''%").await;
    // Now it has the second row as well, and waits for the third.
    other.batch_execute("rollback").await.unwrap();
    update.await.unwrap().unwrap();
    cluster.wait_equal().await;
    let rows = "select string_agg(v, ' ' order by id) from t";
    assert_eq!(east.value(rows).await, "application applied application");
}
on_every_major!(an_application_is_let_through, super::we_give_way);
