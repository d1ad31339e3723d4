//! Settings, versions, free slots, identities, encodings.

use super::Problem;
use super::facts::NodeFacts;
use crate::config::Config;
use crate::local::MAJORS;

pub(super) fn check(config: &Config, facts: &NodeFacts) -> Vec<Problem> {
    let mut problems = Vec::new();
    problems.extend(version(facts));
    problems.extend(server_settings(facts));
    problems.extend(room(config, facts));
    problems.extend(slot_limits(facts));
    problems.extend(wrong_server(facts));
    problems
}

const RESTART: &str = "then restart the server";

fn version(facts: &NodeFacts) -> Option<Problem> {
    let major = facts.server.major();
    if major < *MAJORS.start() {
        let what = format!("the server is PostgreSQL {major}; mmrepl needs 14 or newer");
        return Some(Problem::error(&facts.name, what).note("upgrade the server (pg_upgrade)"));
    }
    let newer = major > *MAJORS.end();
    newer.then(|| {
        Problem::warning(
            &facts.name,
            format!("PostgreSQL {major} is newer than what mmrepl was tested on"),
        )
    })
}

fn server_settings(facts: &NodeFacts) -> Vec<Problem> {
    let server = &facts.server;
    let mut problems = Vec::new();
    if server.in_recovery {
        let what = "the server is a hot standby, which takes no writes";
        problems.push(
            Problem::error(&facts.name, what).note(
                "point the dsn at the primary, or make this server one: select pg_promote();",
            ),
        );
    }
    problems.extend(wal_level(facts));
    if !server.track_commit_timestamp {
        let what = "track_commit_timestamp is off; the time of a write decides conflicts";
        problems.push(
            Problem::error(&facts.name, what)
                .sql("alter system set track_commit_timestamp = on")
                .note(RESTART),
        );
    }
    problems
}

/// From 19 on a server at `replica` begins to write what logical decoding needs when its first
/// logical slot is made.
fn wal_level(facts: &NodeFacts) -> Option<Problem> {
    let level = facts.server.wal_level.as_str();
    let by_itself = facts.server.major() >= 19;
    if level == "logical" || (level == "replica" && by_itself) {
        return None;
    }
    let wanted = if by_itself {
        "replica or logical"
    } else {
        "logical"
    };
    let what = format!("wal_level is {level}; it must be {wanted}");
    let set = "alter system set wal_level = 'logical'";
    Some(Problem::error(&facts.name, what).sql(set).note(RESTART))
}

/// Whether what this node still needs fits under the server's limits.
fn room(config: &Config, facts: &NodeFacts) -> Vec<Problem> {
    let peers = i64::try_from(config.nodes.len()).unwrap_or(i64::MAX) - 1;
    let workers = i64::try_from(config.apply_workers).unwrap_or(i64::MAX);
    let room = &facts.server.room;
    let origins_setting = if facts.server.major() >= 18 {
        "max_active_replication_origins"
    } else {
        "max_replication_slots"
    };
    let limits = [
        (
            "max_replication_slots",
            "slots",
            room.slots_max,
            room.slots_used,
            peers - facts.ours.slots,
        ),
        (
            "max_wal_senders",
            "senders",
            room.senders_max,
            room.senders_used,
            peers - facts.ours.streaming,
        ),
        (
            origins_setting,
            "origins",
            room.origins_max,
            room.origins_used,
            // One for each session that applies a peer's link, one for each node's rows that
            // return, and in a pair one for what is applied while it is still running.
            workers * peers + peers + 1 + i64::from(peers == 1) - facts.ours.origins,
        ),
    ];
    // Up to 17 one setting limits two things.
    let enough = |setting: &str| {
        let same = limits.iter().filter(|(name, ..)| *name == setting);
        same.map(|(_, _, _, used, needed)| used + needed)
            .fold(10, i64::max)
    };
    let short = limits
        .iter()
        .filter(|(_, _, max, used, needed)| used + needed > *max);
    short
        .map(|(setting, noun, max, used, needed)| {
            let what = format!(
                "{setting} is {max} and {used} {noun} are taken; mmrepl needs {needed} more"
            );
            let set = format!("alter system set {setting} = {}", enough(setting));
            Problem::error(&facts.name, what).sql(set).note(RESTART)
        })
        .collect()
}

fn slot_limits(facts: &NodeFacts) -> Vec<Problem> {
    let mut problems = Vec::new();
    let keep = &facts.server.max_slot_wal_keep_size;
    if keep != "-1" {
        let what = format!(
            "max_slot_wal_keep_size is {keep}: a peer that is away while more WAL than that is written must be copied anew"
        );
        problems.push(Problem::info(&facts.name, what));
    }
    if facts.server.idle_slot_timeout_s > 0 {
        let what = format!(
            "idle_replication_slot_timeout is {} s: a daemon or peer that is away for longer loses its slot and must be copied anew",
            facts.server.idle_slot_timeout_s
        );
        problems.push(
            Problem::warning(&facts.name, what)
                .sql("alter system set idle_replication_slot_timeout = 0")
                .sql("select pg_reload_conf()"),
        );
    }
    problems
}

fn wrong_server(facts: &NodeFacts) -> Option<Problem> {
    let here = facts
        .here
        .as_deref()
        .filter(|here| *here != facts.name.as_str())?;
    let what = format!("the database at {} was set up as node {here}", facts.target);
    let copied = "where the database was copied from another node's: drop schema mmrepl cascade;";
    let problem = Problem::error(&facts.name, what).note("mend the dsn in the configuration");
    Some(problem.note(copied))
}

/// Two names for one database would replicate into itself.
pub(super) fn check_identities(nodes: &[NodeFacts]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, facts) in nodes.iter().enumerate() {
        let identity = |facts: &NodeFacts| (facts.server.system_id, facts.server.database.clone());
        let twin = nodes
            .iter()
            .take(index)
            .find(|other| identity(other) == identity(facts));
        if let Some(twin) = twin {
            let what = format!(
                "{} and {} are the same database ({})",
                twin.name, facts.name, facts.target
            );
            problems.push(Problem::error(&facts.name, what).note(
                "give each node its own dsn; a server made by copying another's files needs a new one (initdb)",
            ));
        }
    }
    problems
}

/// The encoding of a database that keeps any bytes.
const ANY_BYTES: &str = "SQL_ASCII";
const ONE_ENCODING: &str = "give every node's database the same encoding: dump the one, create \
                            it anew with the other's encoding, restore";

pub(super) fn check_encodings(nodes: &[NodeFacts]) -> Vec<Problem> {
    let Some(first) = nodes.first() else {
        return Vec::new();
    };
    let differs = nodes
        .iter()
        .filter(|facts| facts.server.encoding != first.server.encoding);
    differs
        .map(|facts| {
            let here = &facts.server.encoding;
            let (other, there) = (&first.name, &first.server.encoding);
            if here == ANY_BYTES || there == ANY_BYTES {
                let what = format!(
                    "the database is {here}, on {other} it is {there}: {ANY_BYTES} holds any bytes, and nobody knows which characters they are"
                );
                return Problem::error(&facts.name, what).note(ONE_ENCODING);
            }
            let what = format!(
                "the database is {here}, on {other} it is {there}: a character that does not exist on one side blocks the link until it is changed"
            );
            Problem::warning(&facts.name, what)
        })
        .collect()
}
