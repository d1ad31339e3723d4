//! Who applies the backlog.

use serde::{Deserialize, Serialize};

use crate::common::{Side, pglogical};
use crate::rig::wait_for;

/// The sides of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Engine {
    /// The server's own subscription, as it comes.
    Native,
    /// The extension, where it is installed.
    Pglogical,
    /// The daemon of the source.
    Mmrepl,
    /// The same in a cluster of three, where transactions applied together keep their own times.
    Mesh,
    /// The daemon of the source, which reaches it through its Unix-domain socket.
    Socket,
    /// The daemon of the source with so many sessions on the target.
    Workers(u8),
}

impl Engine {
    /// What it has in mmrepl's configuration.
    pub(crate) fn config(self) -> String {
        match self {
            Self::Workers(workers) => format!("[apply]\napply_workers = {workers}\n"),
            _ => String::new(),
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Pglogical => "pglogical",
            Self::Mmrepl => "mmrepl",
            Self::Mesh => "mmrepl, three nodes",
            Self::Socket => "mmrepl, Unix socket",
            Self::Workers(2) => "mmrepl, 2 workers",
            Self::Workers(_) => "mmrepl, 4 workers",
        }
    }

    pub(crate) const fn is_mmrepl(self) -> bool {
        matches!(
            self,
            Self::Mmrepl | Self::Mesh | Self::Socket | Self::Workers(_)
        )
    }

    /// Makes a subscription of `target`, switched on, that reaches the source by `dsn`.
    pub(crate) async fn subscribe(self, source: &Side, target: &Side, dsn: &str) {
        match self {
            Self::Native => subscription(source, target, dsn).await,
            Self::Pglogical => pglogical_subscription(source, target, dsn).await,
            Self::Mmrepl | Self::Mesh | Self::Socket | Self::Workers(_) => {}
        }
    }

    /// How a subscription is started again, or stopped.
    pub(crate) fn switch(self, on: bool) -> String {
        let word = if on { "enable" } else { "disable" };
        match self {
            Self::Pglogical => format!("select pglogical.alter_subscription_{word}('bench', true)"),
            _ => format!("alter subscription bench {word}"),
        }
    }
}

async fn subscription(source: &Side, target: &Side, dsn: &str) {
    // Without mmrepl's own tables, which are in another schema.
    let tables = "select string_agg(oid::regclass::text, ', ') from pg_class
         where relkind = 'r' and relnamespace = 'public'::regnamespace";
    let tables = source.value(tables).await;
    let publish = format!("create publication bench for table {tables}");
    source.run(&publish).await;
    let create = format!(
        "create subscription bench connection '{dsn}' publication bench with (copy_data = false)"
    );
    target.run(&create).await;
}

async fn pglogical_subscription(source: &Side, target: &Side, dsn: &str) {
    pglogical::allow_output_plugin(source).await;
    for (side, name, dsn) in [(source, "east", dsn), (target, "west", &target.dsn())] {
        side.run("create extension pglogical").await;
        let node = format!("select pglogical.create_node('{name}', '{dsn}')");
        side.run(&node).await;
    }
    // Only tables with a key may be in the set that takes updates.
    let add = "select pglogical.replication_set_add_table(
            case when exists (select from pg_index where indrelid = c.oid and indisprimary)
                then 'default' else 'default_insert_only' end, c.oid)
         from pg_class c where relkind = 'r' and relnamespace = 'public'::regnamespace";
    source.run(add).await;
    let subscribe = format!(
        "select pglogical.create_subscription('bench', '{dsn}',
            replication_sets := '{{default,default_insert_only}}',
            synchronize_structure := false, synchronize_data := false)"
    );
    target.run(&subscribe).await;
    // Its worker makes the slot: what is written before does not go over.
    let status = "select status from pglogical.show_subscription_status('bench')";
    wait_for(target, status, |status| status == "replicating").await;
}
