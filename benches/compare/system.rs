//! What replicates: set up, held back, let go, and asked whether it still works.

use std::path::Path;

use mmrepl::local::{ServerBinaries, ServerOptions, find_any, find_major};

use crate::common::{Side, pglogical};
use crate::mmrepl_links::MmreplLinks;
use crate::pair::wait_for;
use crate::server_log::LINE_PREFIX;

/// The first major whose subscriptions can leave out what they did not originate.
const ORIGIN_SINCE: u32 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Native,
    Pglogical,
    Mmrepl,
}

/// A way to replicate, on servers of one version.
#[derive(Clone, Debug)]
pub(crate) struct System {
    pub(crate) kind: Kind,
    pub(crate) binaries: ServerBinaries,
    pub(crate) name: &'static str,
}

/// Those that can be run here, and a sentence for each that cannot.
pub(crate) fn find_all() -> (Vec<System>, Vec<String>) {
    let major = std::env::var("MMREPL_COMPARE_MAJOR").ok();
    let major = major.and_then(|text| text.parse().ok());
    let found = major.map_or_else(find_any, find_major);
    let binaries = found.expect("server binaries: run `make servers`");
    let (mut systems, mut skipped) = (Vec::new(), Vec::new());
    let mut add = |kind, name, binaries: &ServerBinaries| {
        systems.push(System {
            kind,
            binaries: binaries.clone(),
            name,
        });
    };
    if binaries.major >= ORIGIN_SINCE {
        add(Kind::Native, "subscriptions", &binaries);
    } else {
        skipped.push(format!(
            "Skipped: subscriptions in both directions need PostgreSQL {ORIGIN_SINCE} or newer."
        ));
    }
    match pglogical::find() {
        Some(binaries) => add(Kind::Pglogical, "pglogical", &binaries),
        None => skipped.push(
            "Skipped: pglogical is not installed (Debian package postgresql-15-pglogical)."
                .to_owned(),
        ),
    }
    add(Kind::Mmrepl, "mmrepl", &binaries);
    (systems, skipped)
}

impl System {
    pub(crate) fn server_options(&self) -> ServerOptions {
        let options = ServerOptions::default()
            .with("log_line_prefix", LINE_PREFIX)
            .with("max_worker_processes", "20");
        match self.kind {
            // A worker that failed is started again after this time; by default after 5 s.
            Kind::Native => options.with("wal_retrieve_retry_interval", "500ms"),
            Kind::Pglogical => options
                .with("shared_preload_libraries", "pglogical")
                .with("pglogical.conflict_resolution", "last_update_wins"),
            Kind::Mmrepl => options,
        }
    }

    /// What the report calls these servers.
    pub(crate) async fn version(&self, side: &Side) -> String {
        let server = side
            .value("select split_part(current_setting('server_version'), ' ', 1)")
            .await;
        match self.kind {
            Kind::Native => format!("PostgreSQL {server}"),
            Kind::Mmrepl => format!("{} on PostgreSQL {server}", env!("CARGO_PKG_VERSION")),
            Kind::Pglogical => {
                let own = "select extversion from pg_extension where extname = 'pglogical'";
                format!("{} on PostgreSQL {server}", side.value(own).await)
            }
        }
    }

    /// Both directions, running.
    pub(crate) async fn set_up(
        &self,
        dir: &Path,
        sides: (&Side, &Side),
        rule: &str,
    ) -> Option<MmreplLinks> {
        match self.kind {
            Kind::Native => native(sides).await,
            Kind::Pglogical => both_ways(sides).await,
            Kind::Mmrepl => return Some(MmreplLinks::start(dir, sides, rule)),
        }
        None
    }

    /// How the subscription of a side is disabled or enabled; mmrepl has commands instead.
    pub(crate) fn switch(&self, on: bool) -> String {
        let word = if on { "enable" } else { "disable" };
        match self.kind {
            Kind::Native => format!("alter subscription compare {word}"),
            _ => format!("select pglogical.alter_subscription_{word}('compare', true)"),
        }
    }
}

async fn native((east, west): (&Side, &Side)) {
    for side in [east, west] {
        side.run("create publication compare for all tables").await;
    }
    for (side, other) in [(east, west), (west, east)] {
        let create = format!(
            "create subscription compare connection '{}' publication compare
             with (copy_data = false, origin = none)",
            other.dsn()
        );
        side.run(&create).await;
    }
}

async fn both_ways((east, west): (&Side, &Side)) {
    for (side, name) in [(east, "east"), (west, "west")] {
        pglogical::allow_output_plugin(side).await;
        let node = format!("select pglogical.create_node('{name}', '{}')", side.dsn());
        side.run("create extension pglogical").await;
        side.run(&node).await;
        side.run("select pglogical.replication_set_add_all_tables('default', '{public}')")
            .await;
    }
    for (side, other) in [(east, west), (west, east)] {
        let subscribe = format!(
            "select pglogical.create_subscription('compare', '{}',
                synchronize_structure := false, synchronize_data := false,
                forward_origins := '{{}}')",
            other.dsn()
        );
        side.run(&subscribe).await;
        let status = "select status from pglogical.show_subscription_status('compare')";
        wait_for(side, status, "replicating").await;
    }
}
