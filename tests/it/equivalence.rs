//! Every way of applying ends the same: groups sent ahead, groups step by step, and every change by
//! itself in the source's order.
//!
//! Both nodes are written while no daemon runs: conflicts, moved keys and unique values, large
//! values left out. Then the servers are stopped and their folders copied, so that each way starts
//! from the very same write-ahead log with the very same commit times.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::histories::{MERGING, Place, ROUNDS, Scene, What};
use crate::history::Strategy;
use crate::support::pg::TextRow;
use crate::support::wait::ensure;
use crate::support::{ClusterOptions, LIMIT, Rng, wait_until};

/// What `MMREPL_APPLY` and `MMREPL_GROUP_ROWS` say. Where a group fails as a whole it is applied in
/// order: small groups show what happens to the others.
const WAYS: [(&str, &str); 5] = [
    ("ahead", "2000"),
    ("ahead", "10"),
    ("step_by_step", "2000"),
    ("step_by_step", "10"),
    ("in_order", "2000"),
];
/// The same where several sessions write.
const WAYS_OF_WORKERS: [(&str, &str); 3] = [
    ("always_ahead", "4"),
    ("step_by_step", "2000"),
    ("in_order", "2000"),
];

/// The deletes that hold. Under a row that is there again an older tombstone may be left, which no
/// longer says anything: what writes the net change of a key does not delete it in between.
const TOMBSTONES: &str = "select key, version from mmrepl.tombstone
    where not exists (select from h where array[id]::text = key) order by 1, 2";
/// Rows kept aside.
const SHADOWS: &str = "select relation::regclass, key, vals from mmrepl.shadow order by 1, 2";
const CONFLICTS: &str = "select source, table_name, key_values, kind, rule, outcome,
    regexp_replace(local_values::text, '\\.{99,}', '…'), local_node, local_time
    from mmrepl.conflict order by 1, 2, 3, 4, 5, 6, 7, 8, 9";

/// What one way has left behind.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    rows: Vec<TextRow>,
    tombstones: Vec<TextRow>,
    shadows: Vec<TextRow>,
    conflicts: Vec<TextRow>,
}

/// Stopped servers, and copies of their folders.
struct Copies {
    folders: Vec<(PathBuf, PathBuf)>,
}

impl Copies {
    fn take(scene: &mut Scene) -> Self {
        let mut folders = Vec::new();
        for name in ["east", "west"] {
            scene.cluster.server_mut(name).stop();
            let data = scene.cluster.node(name).server().data_dir();
            let copy = data.with_file_name("copy");
            copy_folder(&data, &copy);
            folders.push((data, copy));
        }
        Self { folders }
    }

    fn put_back(&self) {
        for (data, copy) in &self.folders {
            std::fs::remove_dir_all(data).unwrap();
            copy_folder(copy, data);
        }
    }
}

/// With owners and modes, which a server insists on.
fn copy_folder(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(
        status.unwrap().success(),
        "{} cannot be copied",
        from.display()
    );
}

async fn left(scene: &Scene, node: usize) -> Left {
    let on = &scene.cluster.nodes[node];
    // Rows that merge do so write by write or with others of their group: how many records that
    // makes depends on the groups.
    let conflicts = if scene.merging { "" } else { CONFLICTS };
    Left {
        rows: scene.rows(node).await,
        tombstones: on.rows(TOMBSTONES).await,
        shadows: on.rows(SHADOWS).await,
        conflicts: on.rows(conflicts).await,
    }
}

async fn apply(scene: &mut Scene, (way, rows): (&str, &str)) -> Vec<Left> {
    for name in ["east", "west"] {
        // The store knows what an earlier way has applied.
        let _ = std::fs::remove_dir_all(scene.cluster.data_dir(name));
        scene.cluster.server_mut(name).start().unwrap();
    }
    scene.connect().await;
    // A row that returns while others are applied may be in their way once more: that would be one
    // more record, depending on when the loop that lets rows return happens to look.
    let held = scene.cluster.data_dir("east").with_file_name("hold");
    std::fs::write(&held, "").unwrap();
    let file = held.to_str().unwrap();
    let environment = [
        ("MMREPL_APPLY", way),
        ("MMREPL_GROUP_ROWS", rows),
        ("MMREPL_HOLD_RETURNS", file),
    ];
    for (name, value) in environment {
        scene.cluster.set_daemon_env(name, value);
    }
    scene.cluster.start_daemons();
    scene.cluster.settle().await;
    std::fs::remove_file(&held).unwrap();
    scene.wait_equal(ROUNDS - 1).await;
    wait_returned(scene).await;
    let left = vec![left(scene, 0).await, left(scene, 1).await];
    scene.cluster.stop_daemons();
    for name in ["east", "west"] {
        scene.cluster.server_mut(name).stop();
    }
    left
}

/// What lets rows return has looked on every node since it may: one whose row is there again goes
/// although the nodes' rows are equal before.
async fn wait_returned(scene: &Scene) {
    for on in &scene.cluster.nodes {
        let what = format!("rows kept aside on {} to be looked at", on.name);
        wait_until(&what, LIMIT, async || {
            let status = scene.cluster.status().await?;
            let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
            let node = nodes.into_iter().find(|node| node["node"] == on.name);
            let kept = node.map(|node| node["shadows"]["kept"].clone());
            let there = on.value("select count(*) from mmrepl.shadow").await;
            let seen = kept.as_ref().and_then(serde_json::Value::as_u64);
            ensure(seen.is_some_and(|seen| seen.to_string() == there), || {
                format!("{kept:?} instead of {there}")
            })
        })
        .await;
    }
}

async fn every_way_ends_the_same(what: What, seed: u64) {
    let options = ClusterOptions::pair().own_servers();
    all_end_the_same((options, &WAYS), what, seed).await;
}

async fn all_end_the_same(
    (options, ways): (ClusterOptions, &[(&str, &str)]),
    what: What,
    seed: u64,
) {
    let mut scene = Scene::on(options, what, Rng::from_env(seed)).await;
    scene.cluster.pause_all().await;
    scene.write(0).await;
    scene.cluster.resume_all().await;
    scene.wait_equal(0).await;
    scene.cluster.stop_daemons();
    for round in 1..ROUNDS {
        scene.write(round).await;
    }
    let copies = Copies::take(&mut scene);
    let first = apply(&mut scene, ways[0]).await;
    for way in &ways[1..] {
        copies.put_back();
        let other = apply(&mut scene, *way).await;
        let way = format!("{}, groups of {}", way.0, way.1);
        for (node, (a, b)) in first.iter().zip(&other).enumerate() {
            let name = scene.cluster.nodes[node].name;
            same(&a.rows, &b.rows, &format!("{way}: rows on {name}"));
            same(
                &a.tombstones,
                &b.tombstones,
                &format!("{way}: tombstones on {name}"),
            );
            same(&a.shadows, &b.shadows, &format!("{way}: shadows on {name}"));
            same(
                &a.conflicts,
                &b.conflicts,
                &format!("{way}: conflicts on {name}"),
            );
        }
    }
}

fn same(a: &[TextRow], b: &[TextRow], what: &str) {
    let count = |row: &TextRow, rows: &[TextRow]| rows.iter().filter(|r| *r == row).count();
    let more = |these: &[TextRow], those: &[TextRow]| -> String {
        let rows = these.iter();
        let rows = rows.filter(|row| count(row, these) > count(row, those));
        rows.take(5).map(line).collect()
    };
    assert!(
        a == b,
        "{what}: more the first way:{}\nmore here:{}",
        more(a, b),
        more(b, a)
    );
}

fn line(row: &TextRow) -> String {
    let values = row.iter().map(|value| value.as_deref().unwrap_or("-"));
    format!("\n  {}", values.collect::<Vec<_>>().join(" | "))
}

const BY_TIME: What = What {
    place: Place::SharedTable,
    count: 120,
    strategy: Strategy::LastWriteWins,
    merging: None,
    unique: true,
};

#[tokio::test(flavor = "multi_thread")]
async fn by_time() {
    every_way_ends_the_same(BY_TIME, 21).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_time_with_nothing_unique() {
    let what = What {
        unique: false,
        ..BY_TIME
    };
    every_way_ends_the_same(what, 24).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_a_clock_in_the_row() {
    let what = What {
        strategy: Strategy::HybridClock,
        ..BY_TIME
    };
    every_way_ends_the_same(what, 22).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_a_clock_with_nothing_unique() {
    let what = What {
        strategy: Strategy::HybridClock,
        unique: false,
        ..BY_TIME
    };
    every_way_ends_the_same(what, 25).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_rows_that_merge() {
    let what = What {
        strategy: Strategy::HybridClock,
        merging: Some(MERGING[1]),
        unique: false,
        ..BY_TIME
    };
    every_way_ends_the_same(what, 23).await;
}

/// Three sessions at once, against one transaction after the other.
#[tokio::test(flavor = "multi_thread")]
async fn with_workers() {
    let options = ClusterOptions::pair().own_servers();
    let options = options.config("[apply]\napply_workers = 3\n");
    let what = What {
        unique: false,
        count: 240,
        ..BY_TIME
    };
    all_end_the_same((options, &WAYS_OF_WORKERS), what, 29).await;
}
