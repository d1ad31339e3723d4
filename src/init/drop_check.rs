//! What stands in the way of a drop: looked for on every node before anything is removed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::InitError;
use super::session::Session;
use crate::catalog::slots::slot_state;
use crate::config::Config;
use crate::ids::{ClusterName, LinkName, NodeName, slot_name};
use crate::wire::{RowExt, each};

/// A daemon that was just stopped leaves sessions behind for as long as its servers need to notice.
const SESSIONS_LINGER: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A session of mmrepl on a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OurSession {
    /// The node of the server.
    pub(super) node: NodeName,
    pub(super) pid: i32,
    /// What it holds or does, for people.
    pub(super) what: String,
    /// Whose daemon it belongs to.
    pub(super) daemon: NodeName,
}

/// Refuses while a daemon works with what is to go: everything, or what `only` has part in.
pub(super) async fn refuse_running(
    config: &Config,
    sessions: &[Session],
    only: Option<&NodeName>,
) -> Result<(), InitError> {
    let began = Instant::now();
    loop {
        let mut found = Vec::new();
        for session in sessions {
            found.extend(in_use(config, session, only).await?);
        }
        let Some(first) = found.first() else {
            return Ok(());
        };
        if began.elapsed() > SESSIONS_LINGER {
            return Err(running(first, &found));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn running(first: &OurSession, all: &[OurSession]) -> InitError {
    let daemons: BTreeSet<&NodeName> = all.iter().map(|found| &found.daemon).collect();
    let others: Vec<String> = daemons
        .iter()
        .filter(|daemon| ***daemon != first.daemon)
        .map(|daemon| format!(" and that of {daemon}"))
        .collect();
    InitError::Refused(format!(
        "node {}: {} (by process {}) is in use: stop the daemon of {}{} (mmrepl run), then run drop again; nothing was dropped",
        first.node,
        first.what,
        first.pid,
        first.daemon,
        others.concat()
    ))
}

/// Slots that stream, and sessions by their names.
async fn in_use(
    config: &Config,
    session: &Session,
    only: Option<&NodeName>,
) -> Result<Vec<OurSession>, InitError> {
    let node = session.name();
    let mut found = Vec::new();
    let concerned = |peer: &NodeName| only.is_none_or(|gone| gone == peer || gone == node);
    for peer in super::remembered::peers(config, session, only).await? {
        let name = slot_name(&config.cluster, &peer);
        let state = slot_state(&session.client, &name).await;
        let state = state.map_err(InitError::catalog(node))?;
        let pid = state.and_then(|state| state.active_pid);
        if let Some(pid) = pid.filter(|_| concerned(&peer)) {
            found.push(OurSession {
                node: node.clone(),
                pid,
                what: format!("replication slot {name}"),
                daemon: node.clone(),
            });
        }
    }
    let sql = "select pid, application_name from pg_catalog.pg_stat_activity
               where datname = pg_catalog.current_database()
                 and application_name like 'mmrepl %' and pid <> pg_catalog.pg_backend_pid()";
    let rows = session.client.query(sql, &[]).await;
    let rows = rows.map_err(InitError::server(node, "list sessions"))?;
    let sessions: Vec<(i32, &str)> =
        each(&rows, |row| Ok((row.read(0)?, row.read(1)?))).map_err(InitError::unread(node))?;
    found.extend(sessions.into_iter().filter_map(|(pid, name)| {
        Some(OurSession {
            node: node.clone(),
            pid,
            what: format!("session \"{name}\""),
            daemon: daemon_of(&config.cluster, node, only, name)?,
        })
    }));
    Ok(found)
}

/// The daemon whose session has this name, where it has to do with what is to go. `here` is the
/// server's node.
fn daemon_of(
    cluster: &ClusterName,
    here: &NodeName,
    only: Option<&NodeName>,
    application_name: &str,
) -> Option<NodeName> {
    let rest = application_name.strip_prefix(&format!("mmrepl {cluster} "))?;
    let mut words = rest.split(' ');
    let first = words.next()?;
    if let Ok(link) = first.parse::<LinkName>() {
        let concerned = only.is_none_or(|gone| *gone == link.from || *gone == link.to);
        return concerned.then_some(link.from);
    }
    if first == "prune" {
        return only.is_none_or(|gone| gone == here).then(|| here.clone());
    }
    let daemon: NodeName = first.parse().ok()?;
    let role = matches!(words.next(), Some("housekeeping" | "returns"));
    (role && only.is_none_or(|gone| *gone == daemon)).then_some(daemon)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_tell_whose_daemon_runs() {
        let (cluster, here) = ("shop".parse().unwrap(), "east".parse().unwrap());
        let west: NodeName = "west".parse().unwrap();
        let of = |only: Option<&NodeName>, name: &str| {
            daemon_of(&cluster, &here, only, name).map(|daemon| daemon.to_string())
        };
        let named = |name: &str| Some(name.to_owned());
        assert_eq!(of(None, "mmrepl shop west->east apply"), named("west"));
        assert_eq!(of(None, "mmrepl shop north housekeeping"), named("north"));
        assert_eq!(of(None, "mmrepl shop prune"), named("east"));
        assert_eq!(of(None, "mmrepl shop init"), None);
        assert_eq!(of(None, "mmrepl other west->east apply"), None);
        assert_eq!(of(Some(&west), "mmrepl shop north->east apply"), None);
        assert_eq!(
            of(Some(&west), "mmrepl shop east->west control"),
            named("east")
        );
        assert_eq!(of(Some(&west), "mmrepl shop prune"), None);
    }
}
