//! The publication is changed behind our back and mended again: what was written meanwhile is not
//! sent, and whoever looks is told so until the nodes have been compared.

use std::time::Duration;

use mmrepl::config::conninfo;
use mmrepl::lsn::Lsn;
use mmrepl::wire::{PgoutputOptions, ReplicationConnection, ReplicationStream, Streaming};

use super::damage::{all_well, replicates, running, shown};
use super::init::{assert_says, soon};
use crate::support::Cluster;

const TABLES: &str = "
create table t (id int primary key, v text);
create table u (id int primary key, v text);
create table loose (v text);";

mod a_publication_made_anew_streams_again {
    crate::on_majors!(pg14, super::made_anew, 14, 14);
    crate::on_majors!(pg15, super::made_anew, 15, 15);
    crate::on_majors!(pg17, super::made_anew, 17, 17);
    crate::on_majors!(pg18, super::made_anew, 18, 18);
}

async fn made_anew(majors: &[u32]) {
    let mut cluster = running(majors, TABLES).await;
    cluster.allow_error("publication");
    // A refused `init` leaves no slot behind.
    cluster.allow_error("its replication slot is gone from east");
    let stops = majors[0] < 18;
    let east = cluster.east();
    east.sql("drop publication mmrepl").await;
    shown(&cluster, "east", "publication mmrepl is gone").await;
    east.sql("insert into t values (1, 'in the gap')").await;
    if stops {
        let link = ("east", "west");
        let said = cluster
            .wait_reason(link, &["blocked"], "does not exist")
            .await;
        assert_says(&said, &["`mmrepl init --copy-from east`"]);
        let said = cluster.mmrepl_fails(&["check"]).await;
        assert_says(
            &said,
            &[
                "cannot send what was written there before",
                "init --copy-from east",
            ],
        );
    }
    let said = cluster.mmrepl_fails(&["init"]).await;
    assert_says(
        &said,
        &[
            "node west lacks rows that east has in public.t",
            "--copy-from east",
        ],
    );
    let check = cluster.mmrepl_fails(&["check"]).await;
    assert_says(&check, &["mmrepl init"]);
    if stops {
        // The other direction goes on all the while.
        cluster.west().sql("insert into u values (1, 'on')").await;
        soon(&cluster, "select count(*) from u", "1").await;
    } else {
        drop(cluster.take_daemon("east"));
    }
    let said = cluster.mmrepl_ok(&["init", "--copy-from", "east"]).await;
    assert_says(&said, &["made the replication slot of east->west"]);
    if !stops {
        cluster.start_daemon("east");
    }
    streams_again(&cluster).await;
    let both = "select string_agg(id || v, ' ' order by id) from t";
    soon(&cluster, both, "1in the gap").await;
    equal_rows_need_no_copy(&cluster, stops).await;
}

/// A link that tries in vain takes its slot for a moment each time: who looks just then is told no
/// less, and `init` does not take the slot for one that sends.
async fn taken_for_a_moment(majors: &[u32]) {
    let mut cluster = running(majors, TABLES).await;
    drop(cluster.take_daemon("east"));
    let east = cluster.east();
    east.sql("create publication other for table t").await;
    east.sql("drop publication mmrepl").await;
    east.sql("insert into t values (1, 'in the gap')").await;
    for command in ["check", "init"] {
        let stream = hold_slot(&cluster).await;
        let moment = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(stream);
        };
        let arguments = [command];
        let (said, ()) = tokio::join!(cluster.mmrepl_fails(&arguments), moment);
        let expected = match command {
            "check" => "cannot send what was written there before",
            _ => "node west lacks rows that east has in public.t",
        };
        assert_says(&said, &[expected]);
    }
}
crate::on_usual_majors!(
    a_slot_taken_for_a_moment_is_not_in_use,
    super::taken_for_a_moment
);

/// Streams from the slot of east for west, as its daemon does.
async fn hold_slot(cluster: &Cluster) -> ReplicationStream {
    let dsn = conninfo::parse(&cluster.east().dsn(), &|_| None).unwrap();
    let connection = ReplicationConnection::connect(&dsn, "somebody else").await;
    let options = PgoutputOptions {
        proto_version: 1,
        publication: "other".to_owned(),
        messages: false,
        origin_none: false,
        streaming: Streaming::Off,
        binary: false,
    };
    let slot = format!("mmrepl_{}_west", cluster.name);
    let stream = connection.unwrap().start(&slot, Lsn::ZERO, &options).await;
    stream.unwrap()
}

/// Made anew by hand, and nothing of the cluster's was written in between.
async fn equal_rows_need_no_copy(cluster: &Cluster, stops: bool) {
    let east = cluster.east();
    east.sql(
        "drop publication mmrepl; create table elsewhere (n int); insert into elsewhere values (1);
         drop table elsewhere;
         create publication mmrepl for table t, u, loose with (publish_via_partition_root = true)",
    )
    .await;
    if stops {
        let said = cluster.mmrepl_ok(&["init"]).await;
        assert_says(&said, &["made the replication slot of east->west", "equal"]);
    } else {
        shown(
            cluster,
            "east",
            "all writes made here in public.loose, public.t",
        )
        .await;
        cluster.mmrepl_ok(&["init"]).await;
    }
    streams_again(cluster).await;
}

async fn streams_again(cluster: &Cluster) {
    cluster.wait_streaming().await;
    all_well(cluster).await;
    replicates(cluster, "t", "id, v").await;
    let again = cluster.mmrepl_ok(&["init"]).await;
    assert!(again.ends_with("nothing to do\n"), "{again}");
    cluster.mmrepl_ok(&["check"]).await;
}

crate::on_usual_majors!(
    what_was_left_out_is_told_until_rows_are_compared,
    super::left_out
);

async fn left_out(majors: &[u32]) {
    let mut cluster = running(majors, TABLES).await;
    let (east, west) = (cluster.east(), cluster.west());
    east.sql("insert into t values (1, 'a'), (2, 'b')").await;
    soon(&cluster, "select count(*) from t", "2").await;
    east.sql("alter publication mmrepl set (publish = 'insert, update, truncate')")
        .await;
    shown(&cluster, "east", "does not send deletes").await;
    east.sql("delete from t where id = 1").await;
    east.sql("alter publication mmrepl set (publish = 'insert, update, delete, truncate')")
        .await;
    let gap = shown(&cluster, "east", "deletes made here in public.").await;
    assert_eq!(gap["mend"], "mmrepl init", "{gap}");
    assert_eq!(cluster.mmrepl(&["status"]).await.status.code(), Some(1));
    let check = cluster.mmrepl_fails(&["check"]).await;
    assert_says(
        &check,
        &["deletes made here in", "may differ", "run mmrepl init"],
    );
    let said = cluster.mmrepl_fails(&["init"]).await;
    assert_says(
        &said,
        &["node east lacks rows that west has in public.t (1 against 2)"],
    );
    west.sql("delete from t where id = 1").await;
    streams_after_init(&cluster).await;

    east.sql("alter publication mmrepl set table t where (id < 100), u, loose")
        .await;
    shown(
        &cluster,
        "east",
        "only some rows or columns of table public.t",
    )
    .await;
    east.sql("insert into t values (200, 'c')").await;
    let said = cluster.mmrepl_fails(&["init"]).await;
    assert_says(&said, &["node west lacks rows that east has in public.t"]);
    shown(
        &cluster,
        "east",
        "some rows or columns made here in public.t",
    )
    .await;
    east.sql("delete from t where id = 200").await;
    streams_after_init(&cluster).await;

    east.sql("alter publication mmrepl drop table u").await;
    shown(&cluster, "east", "table public.u takes part and is not").await;
    east.sql("insert into u values (7, 'kept')").await;
    east.sql("alter publication mmrepl add table u").await;
    shown(&cluster, "east", "all writes made here in public.u").await;
    let said = cluster.mmrepl_fails(&["init", "--copy-from", "east"]).await;
    assert_says(&said, &["stop the daemon of east"]);
    drop(cluster.take_daemon("east"));
    cluster.mmrepl_ok(&["init", "--copy-from", "east"]).await;
    cluster.start_daemon("east");
    soon(&cluster, "select v from u", "kept").await;
    streams_again(&cluster).await;
}

async fn streams_after_init(cluster: &Cluster) {
    cluster.mmrepl_ok(&["init"]).await;
    streams_again(cluster).await;
}
