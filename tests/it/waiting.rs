//! A command that a server keeps waiting says whom it waits for, and goes on when that one ends.

use std::process::Stdio;

use mmrepl::local::ServerOptions;
use mmrepl::local::signal::{self, Signal};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use super::damage;
use crate::support::{Cluster, ClusterOptions, LIMIT, pg};

/// A command that runs.
struct Running {
    child: Child,
    said: Lines<BufReader<ChildStderr>>,
}

impl Running {
    fn start(cluster: &Cluster, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mmrepl"));
        command.args(arguments).arg("--config");
        command.arg(cluster.config()).kill_on_drop(true);
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, said }
    }

    /// Reads on until a line on standard error has all of these.
    async fn says(&mut self, parts: &[&str]) -> String {
        let mut before = String::new();
        let found = tokio::time::timeout(LIMIT, async {
            while let Some(line) = self.said.next_line().await.unwrap() {
                if parts.iter().all(|part| line.contains(part)) {
                    return Some(line);
                }
                before.push_str(&line);
            }
            None
        });
        let line = found.await.ok().flatten();
        line.unwrap_or_else(|| panic!("no {parts:?} in {before}"))
    }

    fn signal(&self, wanted: Signal) {
        signal::send(wanted, &[self.child.id().unwrap()]);
    }

    /// Its standard output, once it has ended well.
    async fn ends(mut self) -> String {
        let mut out = String::new();
        let mut stdout = self.child.stdout.take().unwrap();
        stdout.read_to_string(&mut out).await.unwrap();
        let status = self.child.wait().await.unwrap();
        assert!(status.success(), "{status}: {out}");
        out
    }
}

/// Everything that keeps `init` waiting at once, then what keeps `check` and `drop` waiting.
async fn named(majors: &[u32]) {
    let own = |_| ServerOptions::default().with("max_prepared_transactions", "4");
    let cluster = Cluster::start(ClusterOptions::majors(majors).own_with(own)).await;
    let schema =
        "create schema aside; create table aside.log (id int); create table t (id int primary key)";
    cluster.sql_everywhere(schema).await;
    let (writer, idle) = (cluster.east().client().await, cluster.east().client().await);
    let names = "set application_name = 'batch job'";
    pg::execute(&writer, &format!("{names}; begin; lock t in share mode")).await;
    pg::execute(
        &idle,
        &format!("{names}; begin; insert into aside.log values (1)"),
    )
    .await;
    let prepare = "begin; insert into aside.log values (2); prepare transaction 'pay 7'";
    cluster.west().sql(prepare).await;

    let mut init = Running::start(&cluster, &["init"]);
    let pid = pg::value(&writer, "select pg_backend_pid()").await;
    let held = format!("lock on public.t held by process {pid} (application batch job");
    let advice = format!("`select pg_terminate_backend({pid})` on east");
    let user = "user postgres";
    let since = "idle in transaction since 2";
    init.says(&["east: waiting", &held, user, since, &advice])
        .await;
    pg::execute(&writer, "rollback").await;
    let pid = pg::value(&idle, "select pg_backend_pid()").await;
    let process = format!("process {pid} (application batch job");
    let slot = "making a replication slot waits";
    init.says(&["east: ", slot, &process, since]).await;
    pg::execute(&idle, "commit").await;
    let prepared = "the prepared transaction 'pay 7'";
    let advice = "`commit prepared 'pay 7'` or `rollback prepared 'pay 7'` on west";
    init.says(&["west: ", slot, prepared, advice]).await;
    cluster.west().sql("commit prepared 'pay 7'").await;
    assert!(init.ends().await.contains("done"));

    // With --json it is an object on a line of its own.
    pg::execute(&writer, "begin; lock mmrepl.node in access exclusive mode").await;
    let mut check = Running::start(&cluster, &["check", "--json"]);
    let line = check.says(&["lock on mmrepl.node held by"]).await;
    let object: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert!(object["waiting"].is_string(), "{line}");
    pg::execute(&writer, "rollback").await;
    let found: serde_json::Value = serde_json::from_str(&check.ends().await).unwrap();
    assert_eq!(found["ok"], true, "{found}");

    pg::execute(&writer, "begin; lock t in share mode").await;
    let mut drop = Running::start(&cluster, &["drop", "--yes"]);
    drop.says(&["lock on public.t held by"]).await;
    pg::execute(&writer, "rollback").await;
    drop.ends().await;
}
crate::on_usual_majors!(commands_say_whom_they_wait_for, super::named);

/// Between the slots that `init` makes and the positions that it writes last, a link's history
/// looks broken: nobody is told so while `init` is there.
async fn awaited(majors: &[u32]) {
    let mut cluster = damage::running(majors, "create table t (id int primary key, v text)").await;
    cluster.allow_error("publication");
    cluster.allow_error("its replication slot is gone from east");
    let anew = "drop publication mmrepl; create table elsewhere (n int);
                insert into elsewhere values (1); drop table elsewhere;
                create publication mmrepl for table t with (publish_via_partition_root = true)";
    let east = cluster.east();
    east.sql(anew).await;
    let link = ("east", "west");
    cluster
        .wait_reason(link, &["blocked"], "does not exist")
        .await;
    let locker = cluster.west().client().await;
    let hold = "begin; select from mmrepl.apply_position for update";
    pg::execute(&locker, hold).await;
    let mut init = Running::start(&cluster, &["init"]);
    init.says(&["mmrepl.apply_position held by"]).await;
    // Its sessions stay as they are, whatever becomes of its wait.
    init.signal(Signal::Stop);
    let at_work = "`mmrepl init` is at work on west";
    cluster.wait_reason(link, &["retrying"], at_work).await;
    drop(cluster.take_daemon("east"));
    cluster.wait_reason(link, &["stopped"], at_work).await;
    cluster.start_daemon("east");
    cluster.wait_reason(link, &["retrying"], at_work).await;
    pg::execute(&locker, "rollback").await;
    init.signal(Signal::Cont);
    // The server has given the wait up meanwhile, or not.
    drop(init.child.wait().await);
    cluster.mmrepl_ok(&["init"]).await;
    cluster.wait_streaming().await;
    damage::all_well(&cluster).await;
    damage::replicates(&cluster, "t", "id, v").await;
}
crate::on_usual_majors!(a_link_waits_for_an_init_at_work, super::awaited);
