//! What operators do in good faith, at random and between faults, while applications write: in the
//! end the nodes are equal, or a link or a node says why not. Nothing differs in silence.
//!
//! `MMREPL_OPERATOR_ACTS` sets how many acts (6; `make soak` 100), `MMREPL_SEED` which ones.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::chaos::{FAULTS, happen, make_cluster};
use crate::support::compare::difference;
use crate::support::writers::{SCHEMA, Writer};
use crate::support::{Cluster, ClusterOptions, Node, Rng, pg};

/// The daemon looks at its own server every minute; on a busy machine that takes a while.
const NOTICED_WITHIN: Duration = Duration::from_secs(300);
/// How often a person follows what a command says before they call somebody.
const TRIES: usize = 6;
/// A calm is long enough to tell something that passes from something that stays.
const LOOKS_IN_A_ROW: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Act {
    DropPublication,
    LeaveTable,
    NarrowPublication,
    NarrowForAMoment,
    DisableTriggers,
    DisableForAMoment,
    EnableTriggersPlainly,
    DropTrigger,
    DropSlot,
    IdentityNothing,
    CleanOwnTables,
    ForeignOrigin,
    ReplicaRole,
    PutBack,
    CopyOver,
    DropWithoutYes,
    DropWhileRunning,
}

const ACTS: [Act; 17] = [
    Act::DropPublication,
    Act::LeaveTable,
    Act::NarrowPublication,
    Act::NarrowForAMoment,
    Act::DisableTriggers,
    Act::DisableForAMoment,
    Act::EnableTriggersPlainly,
    Act::DropTrigger,
    Act::DropSlot,
    Act::IdentityNothing,
    Act::CleanOwnTables,
    Act::ForeignOrigin,
    Act::ReplicaRole,
    Act::PutBack,
    Act::CopyOver,
    Act::DropWithoutYes,
    Act::DropWhileRunning,
];

/// Every table of schema `mmrepl`, emptied as test cleaners do.
const CLEAN: &str = crate::migrations::EMPTY_ALL;

/// A row by a session whose origin is not ours, as a subscription's apply worker writes it.
const FOREIGN: &str = "
    do $$ begin if not exists (select from pg_replication_origin where roname = 'elsewhere') then
        perform pg_replication_origin_create('elsewhere'); end if; end $$;
    select pg_replication_origin_session_setup('elsewhere');
    insert into item (name) values ('came by another way');
    select pg_replication_origin_session_reset();";

const REPLICA_ROLE: &str = "
    set session_replication_role = replica;
    insert into item (name) values ('loaded in bulk');
    update account set touched_by = 'a loader' where id < 3;
    delete from account where id = 3;";

/// A folder of a server as it was, to be put back.
struct Snapshot {
    of: PathBuf,
    kept: tempfile::TempDir,
}

fn copy_folder(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "cp {}",
        from.display()
    );
}

impl Snapshot {
    fn take(cluster: &mut Cluster, node: &str) -> Self {
        let server = cluster.server_mut(node);
        let (of, kept) = (server.data_dir(), tempfile::tempdir().unwrap());
        server.kill9();
        copy_folder(&of, &kept.path().join("data"));
        server.start().unwrap();
        Self { of, kept }
    }

    fn put_back(&self, cluster: &mut Cluster, node: &str) {
        let server = cluster.server_mut(node);
        server.kill9();
        std::fs::remove_dir_all(&self.of).unwrap();
        copy_folder(&self.kept.path().join("data"), &self.of);
        server.start().unwrap();
    }
}

fn start_writers(cluster: &Cluster, round: u64, rng: &mut Rng) -> Vec<Writer> {
    [("east", "a"), ("east", "b"), ("west", "c"), ("west", "d")]
        .into_iter()
        .map(|(node, name)| {
            let name = format!("{name}{round}");
            Writer::start(&name, cluster.node(node).dsn(), rng.fork())
        })
        .collect()
}

async fn stop_writers(writers: Vec<Writer>) {
    for writer in writers {
        writer.stop().await;
    }
}

/// Statements whose failure is an answer too: another act may have removed what they are about.
async fn try_sql(node: &Node, sql: &str) {
    let client = node.client().await;
    if let Err(error) = client.batch_execute(sql).await {
        println!("  refused: {}", pg::explain(&error));
    }
}

async fn refused(cluster: &Cluster, arguments: &[&str]) {
    let said = cluster.mmrepl_fails(arguments).await;
    println!("  refused: {}", said.trim());
}

async fn act(cluster: &mut Cluster, act: Act, victim: &'static str, rng: &mut Rng) {
    let other = if victim == "east" { "west" } else { "east" };
    let table = *rng.pick(&["item", "account", "ledger"]);
    let keyed = *rng.pick(&["item", "account"]);
    let node = cluster.node(victim);
    match act {
        Act::DropPublication => try_sql(node, "drop publication mmrepl").await,
        Act::LeaveTable => {
            try_sql(
                node,
                &format!("alter publication mmrepl drop table {table}"),
            )
            .await;
        }
        Act::NarrowPublication => {
            try_sql(
                node,
                "alter publication mmrepl set (publish = 'insert, update')",
            )
            .await;
        }
        Act::NarrowForAMoment => {
            for kinds in ["insert, update", "insert, update, delete, truncate"] {
                let alter = format!("alter publication mmrepl set (publish = '{kinds}')");
                try_sql(node, &alter).await;
                try_sql(node, "delete from account where id = 4").await;
            }
        }
        Act::DisableForAMoment => {
            for how in ["disable", "enable always"] {
                let trigger = format!("alter table account {how} trigger mmrepl_delete");
                try_sql(node, &trigger).await;
                try_sql(node, "delete from account where id = 5").await;
            }
        }
        Act::DisableTriggers => {
            try_sql(node, &format!("alter table {keyed} disable trigger all")).await;
        }
        Act::EnableTriggersPlainly => {
            try_sql(node, &format!("alter table {keyed} enable trigger all")).await;
        }
        Act::DropTrigger => {
            try_sql(
                node,
                &format!("drop trigger if exists mmrepl_delete on {keyed}"),
            )
            .await;
        }
        Act::DropSlot => drop_slot(cluster, victim, other).await,
        Act::IdentityNothing => {
            try_sql(
                node,
                &format!("alter table {keyed} replica identity nothing"),
            )
            .await;
        }
        Act::CleanOwnTables => try_sql(node, CLEAN).await,
        Act::ForeignOrigin => try_sql(node, FOREIGN).await,
        Act::ReplicaRole => try_sql(node, REPLICA_ROLE).await,
        Act::PutBack => put_back(cluster, victim, rng).await,
        Act::CopyOver => copy_over(cluster, victim).await,
        Act::DropWithoutYes => refused(cluster, &["drop"]).await,
        Act::DropWhileRunning => refused(cluster, &["drop", "--yes"]).await,
    }
}

/// A person drops a slot that "nobody uses" while the daemon is being replaced.
async fn drop_slot(cluster: &mut Cluster, victim: &'static str, other: &str) {
    let daemon = cluster.take_daemon(victim);
    tokio::task::spawn_blocking(|| daemon.terminate())
        .await
        .unwrap();
    let slot = format!("mmrepl_{}_{other}", cluster.name);
    let drop = format!(
        "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = '{slot}';
         select pg_drop_replication_slot('{slot}')"
    );
    try_sql(cluster.node(victim), &drop).await;
    cluster.start_daemon(victim);
}

/// A file system snapshot is put back after more was written than was lost.
async fn put_back(cluster: &mut Cluster, victim: &'static str, rng: &mut Rng) {
    let snapshot = Snapshot::take(cluster, victim);
    tokio::time::sleep(Duration::from_millis(500 + rng.below(2_000))).await;
    let daemon_too = rng.below(2) == 0;
    if daemon_too {
        cluster.take_daemon(victim).kill9();
    }
    snapshot.put_back(cluster, victim);
    let more =
        "insert into item (name) select 'after it was put back' from generate_series(1, 3000)";
    try_sql(cluster.node(victim), more).await;
    if daemon_too {
        cluster.start_daemon(victim);
    }
}

/// Somebody copies over a cluster that is well, with daemons stopped.
async fn copy_over(cluster: &mut Cluster, victim: &str) {
    cluster.stop_daemons_quietly();
    let output = cluster.mmrepl(&["init", "--copy-from", victim]).await;
    println!("  {}", String::from_utf8_lossy(&output.stderr).trim());
    cluster.start_daemons();
}

/// What a look at the whole cluster gives.
#[derive(Debug)]
enum Look {
    /// Well, and the nodes are equal.
    Equal,
    /// Something says that it is not well.
    Told(String),
    /// All is said to be well, yet rows differ; in flight, one hopes.
    Differs(String),
}

async fn look(cluster: &Cluster) -> Look {
    let output = cluster.mmrepl(&["status", "--json"]).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.code() != Some(0) {
        return Look::Told(text);
    }
    match difference(cluster.east(), cluster.west()).await {
        Ok(()) => Look::Equal,
        Err(difference) => Look::Differs(difference),
    }
}

/// Waits until the nodes stay equal, or until what is told stays told.
async fn verdict(cluster: &Cluster) -> Option<String> {
    let begin = Instant::now();
    let (mut equal, mut told) = (0, 0);
    let mut last = String::new();
    while begin.elapsed() < NOTICED_WITHIN {
        match look(cluster).await {
            Look::Equal => (equal, told) = (equal + 1, 0),
            Look::Told(text) => {
                (equal, told) = (0, told + 1);
                last = text;
            }
            Look::Differs(text) => {
                (equal, told) = (0, 0);
                last = text;
            }
        }
        if equal >= LOOKS_IN_A_ROW {
            return None;
        }
        if told >= LOOKS_IN_A_ROW && needs_a_person(&last) {
            return Some(last);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(told > 0, "differs in silence: {last}");
    Some(last)
}

/// Whether something in a status waits for a person, unlike a link that is getting well by itself.
fn needs_a_person(status: &str) -> bool {
    let status: serde_json::Value = serde_json::from_str(status).unwrap_or_default();
    let list = |name: &str| status[name].as_array().cloned().unwrap_or_default();
    let stuck = |link: &serde_json::Value| {
        matches!(
            link["state"].as_str(),
            Some("stopped" | "blocked" | "paused")
        )
    };
    let damaged = |node: &serde_json::Value| {
        node["damage"]
            .as_array()
            .is_some_and(|damage| !damage.is_empty())
    };
    list("links").iter().any(stuck) || list("nodes").iter().any(damaged)
}

/// The first command that a text tells a person to run, or whose rows count as it names them.
fn advised(text: &str) -> Option<Vec<String>> {
    if let Some((_, node)) = text.split_once("--copy-from ") {
        let is_name = |c: &char| c.is_ascii_alphanumeric();
        let node: String = node.chars().take_while(is_name).collect();
        return Some(vec!["init".to_owned(), "--copy-from".to_owned(), node]);
    }
    let start = text.find("`mmrepl ")? + 1;
    let command = &text[start..start + text[start..].find('`')?];
    let words = command.split_whitespace().skip(1);
    Some(
        words
            .map(|word| word.trim_matches('\'').to_owned())
            .collect(),
    )
}

/// Follows what is said until all is well and equal: the command that is advised, with the daemons
/// stopped where that is asked for, `mmrepl init` where nothing is.
async fn mend(cluster: &mut Cluster, told: String) {
    let mut told = told;
    for _ in 0..TRIES {
        let command = advised(&reasons(&told)).unwrap_or_else(|| vec!["init".to_owned()]);
        told = follow(cluster, &command).await;
        match verdict(cluster).await {
            None => return,
            Some(status) => told = format!("{status}\n{told}"),
        }
    }
    println!("  stays with a reason: {}", reasons(&told));
    start_over(cluster).await;
}

/// Runs a command as it was advised, then whatever its refusal advises, without the daemons where
/// that is asked for. Gives the last refusal; nothing where a command succeeded.
async fn follow(cluster: &mut Cluster, command: &[String]) -> String {
    let (mut command, mut stopped) = (command.to_vec(), false);
    let mut said = String::new();
    for _ in 0..TRIES {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        said = run(cluster, &words).await;
        if said.contains("stop the daemon") && !stopped {
            cluster.stop_daemons_quietly();
            stopped = true;
        } else if let Some(next) = advised(&said).filter(|next| *next != command) {
            command = next;
        } else {
            break;
        }
    }
    if stopped {
        cluster.start_daemons();
    }
    said
}

/// What a command says when it does not succeed; nothing when it does.
async fn run(cluster: &Cluster, words: &[&str]) -> String {
    let output = cluster.mmrepl(words).await;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    println!("  mmrepl {words:?}: {} {said}", output.status);
    if output.status.success() {
        String::new()
    } else {
        said
    }
}

/// All sentences of a status that say what is wrong.
fn reasons(status: &str) -> String {
    let Ok(status) = serde_json::from_str::<serde_json::Value>(status) else {
        return status.to_owned();
    };
    let mut sentences = Vec::new();
    collect(&status, &mut sentences);
    sentences.join("\n")
}

fn collect(value: &serde_json::Value, sentences: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, field) in fields {
                let text = field
                    .as_str()
                    .filter(|_| ["reason", "what", "mend"].contains(&name.as_str()));
                sentences.extend(text.map(str::to_owned));
                collect(field, sentences);
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect(item, sentences)),
        _ => {}
    }
}

/// What no advice mended is set up anew: the next acts begin from a cluster that is well.
async fn start_over(cluster: &mut Cluster) {
    cluster.stop_daemons_quietly();
    cluster.mmrepl_ok(&["drop", "--yes", "--discard"]).await;
    cluster.mmrepl_ok(&["init", "--copy-from", "east"]).await;
    cluster.start_daemons();
    assert!(
        verdict(cluster).await.is_none(),
        "not even a new start is well"
    );
}

fn act_count() -> u64 {
    let asked = std::env::var("MMREPL_OPERATOR_ACTS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(4)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_operators_do_is_silent() {
    let mut rng = Rng::from_env(20_261_129);
    let mut cluster = make_cluster(ClusterOptions::pair(), SCHEMA).await;
    // Acts are meant to be errors that somebody reads; a panic is none.
    cluster.allow_error("\"level\":\"ERROR\"");
    for round in 1..=act_count() {
        let (next, victim) = (*rng.pick(&ACTS), *rng.pick(&["east", "west"]));
        println!("act {round}: {next:?} {victim}");
        let writers = start_writers(&cluster, round, &mut rng);
        if rng.below(3) == 0 {
            let (fault, where_) = (*rng.pick(&FAULTS), *rng.pick(&["east", "west"]));
            println!("  and {fault:?} {where_}");
            happen(&mut cluster, fault, where_, &mut rng).await;
        }
        act(&mut cluster, next, victim, &mut rng).await;
        tokio::time::sleep(Duration::from_millis(rng.below(2_000))).await;
        stop_writers(writers).await;
        if let Some(told) = verdict(&cluster).await {
            println!("  told: {}", reasons(&told));
            mend(&mut cluster, told).await;
        }
    }
}
