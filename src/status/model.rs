//! The status as data, serialized exactly as the public interface says.
//!
//! Programs outside the project read this: fields are only ever added. A position nobody knows is
//! `0/0`, every other number that cannot be known is `null`.

use serde::{Deserialize, Serialize};

use super::node::NodeStatus;
use crate::commit_time::CommitTime;
use crate::ids::{ClusterName, LinkName, NodeName};
use crate::lsn::Lsn;

/// Every link that was asked about, at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// When this was put together.
    pub at: CommitTime,
    /// The links, in the order of the configuration.
    pub links: Vec<LinkStatus>,
    /// What the daemons that answered tell about their own nodes.
    #[serde(default)]
    pub nodes: Vec<NodeStatus>,
}

/// One direction of replication.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// The source node.
    pub from: NodeName,
    /// The target node.
    pub to: NodeName,
    /// What the link is doing.
    pub state: LinkState,
    /// Since when it has been in this state.
    pub since: CommitTime,
    /// A sentence that says why, whenever the link is not streaming.
    pub reason: Option<String>,
    /// Who told all this.
    pub source: StatusSource,
    /// The slot on the source, where it could be asked.
    pub slot: Option<SlotStatus>,
    /// Positions in the source's WAL.
    pub lsn: LsnStatus,
    /// How far the target is behind.
    pub lag: Lag,
    /// Counted since the daemon started.
    pub totals: Totals,
    /// Over the last seconds.
    pub rates: Rates,
    /// How far the target's clock is ahead of the source's, milliseconds.
    pub clock_offset_ms: Option<f64>,
    /// The offset is known to within this, milliseconds.
    #[serde(default)]
    pub clock_uncertainty_ms: Option<f64>,
    /// The last error, also when it has passed.
    pub last_error: Option<LastError>,
    /// What happened lately and is no error, such as a clock that was set back; the newest last.
    #[serde(default)]
    pub notices: Vec<Notice>,
    /// Conflicts on the target that wait for a person, with writes of the source; nothing where
    /// no table has such a rule, or the target was not asked yet.
    #[serde(default)]
    pub pending_conflicts: Option<u64>,
    /// Rows written so far of a transaction that is still running on the source, where one is being
    /// applied; they are not visible yet.
    #[serde(default)]
    pub running_rows: Option<u64>,
    /// How many of the sessions that write to the target have something to do, where there may be
    /// several.
    #[serde(default)]
    pub workers: Option<Workers>,
    /// What the link holds in memory, and its limits; known to the daemon only.
    #[serde(default)]
    pub bounds: Option<Bounds>,
}

/// The sessions that write one link's changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workers {
    /// Those that have something to do.
    pub busy: usize,
    /// All of them.
    pub all: usize,
}

impl LinkStatus {
    /// A link about which nothing is known yet but its state.
    pub fn new(link: &LinkName, state: LinkState, source: StatusSource, since: CommitTime) -> Self {
        Self {
            from: link.from.clone(),
            to: link.to.clone(),
            state,
            since,
            reason: None,
            source,
            slot: None,
            lsn: LsnStatus::default(),
            lag: Lag::default(),
            totals: Totals::default(),
            rates: Rates::default(),
            clock_offset_ms: None,
            clock_uncertainty_ms: None,
            last_error: None,
            notices: Vec::new(),
            running_rows: None,
            workers: None,
            pending_conflicts: None,
            bounds: None,
        }
    }

    /// The link's name.
    pub fn link(&self) -> LinkName {
        LinkName {
            from: self.from.clone(),
            to: self.to.clone(),
        }
    }
}

/// What a link is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// Connecting and checking both ends.
    Starting,
    /// The first copy of the tables is under way.
    Copying,
    /// Applying what gathered while the link did not run.
    CatchingUp,
    /// Changes arrive and are applied as they are made.
    Streaming,
    /// Waiting for something that passes by itself, such as the target's clock.
    Waiting,
    /// An error that passes by itself; the link tries again and again.
    Retrying,
    /// An error that somebody has to mend; the link goes on by itself once that is done.
    Blocked,
    /// A person asked it to stand still.
    Paused,
    /// Nobody runs it.
    Stopped,
    /// The source cannot be asked, or a daemon that hangs keeps everybody from knowing.
    Unreachable,
}

impl LinkState {
    /// Every state, in the order of the interface.
    pub const ALL: [Self; 10] = [
        Self::Starting,
        Self::Copying,
        Self::CatchingUp,
        Self::Streaming,
        Self::Waiting,
        Self::Retrying,
        Self::Blocked,
        Self::Paused,
        Self::Stopped,
        Self::Unreachable,
    ];

    /// The name used in JSON, metrics and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Copying => "copying",
            Self::CatchingUp => "catching_up",
            Self::Streaming => "streaming",
            Self::Waiting => "waiting",
            Self::Retrying => "retrying",
            Self::Blocked => "blocked",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Unreachable => "unreachable",
        }
    }

    /// Whether changes get through: what a node needs to take traffic while its lag is small.
    pub const fn moves(self) -> bool {
        matches!(self, Self::Streaming | Self::CatchingUp | Self::Waiting)
    }
}

impl std::fmt::Display for LinkState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Who told the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatusSource {
    /// The daemon that runs the link.
    Daemon,
    /// The daemon's checkpoint, read while it does not run, and what the servers said.
    Checkpoint,
    /// The servers alone.
    Server,
}

impl StatusSource {
    /// The name used in JSON and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Daemon => "daemon",
            Self::Checkpoint => "checkpoint",
            Self::Server => "server",
        }
    }
}

/// The replication slot on the source (manual 54.19, `pg_replication_slots`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStatus {
    /// Its name.
    pub name: String,
    /// Whether a connection reads it.
    pub active: bool,
    /// WAL that the source keeps for it, bytes.
    pub retained_bytes: u64,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: String,
}

/// Positions in the source's WAL; `0/0` where one is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LsnStatus {
    /// How far the source's WAL is flushed; on a standby, replayed.
    pub current: Lsn,
    /// Sent by the source, as it says itself, and at least what was received.
    pub sent: Lsn,
    /// Received by the daemon.
    #[serde(default)]
    pub received: Lsn,
    /// Committed on the target.
    pub applied: Lsn,
    /// Flushed to disk by the target.
    pub durable: Lsn,
    /// Confirmed to the source, which needs nothing before it any more.
    pub confirmed: Lsn,
}

/// How far the target is behind the source.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lag {
    /// WAL of the source not yet applied, bytes.
    pub bytes: u64,
    /// Age of the oldest source commit not yet applied; 0 when there is none, `null` when nobody
    /// can know.
    pub seconds: Option<f64>,
    /// False where both numbers are upper bounds: without the daemon nobody knows which part of the
    /// WAL concerns the link.
    #[serde(default = "yes")]
    pub exact: bool,
}

const fn yes() -> bool {
    true
}

impl Default for Lag {
    fn default() -> Self {
        Self {
            bytes: 0,
            seconds: Some(0.0),
            exact: true,
        }
    }
}

/// Counted since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Source transactions applied.
    pub transactions: u64,
    /// Row changes applied.
    pub rows: u64,
    /// Conflicts met.
    pub conflicts: u64,
    /// Transactions tried again.
    pub retries: u64,
    /// Connections made anew.
    pub reconnects: u64,
    /// Faults in mmrepl itself, each of which ended one attempt.
    #[serde(default)]
    pub faults: u64,
}

/// Averages over the last seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Source transactions applied per second.
    pub transactions_per_second: f64,
    /// Row changes applied per second.
    pub rows_per_second: f64,
}

/// An error a link met. Never holds row values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// When.
    pub at: CommitTime,
    /// The server's SQLSTATE, where it was a server's error.
    pub sqlstate: Option<String>,
    /// One sentence.
    pub message: String,
    /// The table concerned, as `schema.table`.
    pub relation: Option<String>,
    /// Whether a retry can help.
    pub retryable: bool,
}

/// Something that happened and is no error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// When.
    pub at: CommitTime,
    /// One sentence.
    pub message: String,
}

/// What a link holds in memory, with the limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Rows received and not yet applied; a transaction without any counts as one.
    pub queue_rows: u64,
    /// At most so many; the daemon then stops reading.
    pub queue_rows_max: u64,
    /// Bytes received and not yet applied.
    pub queue_bytes: u64,
    /// At most so many; the daemon then stops reading.
    pub queue_bytes_max: u64,
    /// Rows that go to the target before one is answered, in groups that end with a whole
    /// transaction.
    pub window_rows: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};
    use proptest::sample::select;

    /// The example of the public interface, word for word.
    const INTERFACE: &str = r#"{"cluster":"shop","at":"2026-01-31T12:00:00.000000Z","links":[{
      "from":"east","to":"west",
      "state":"streaming",
      "since":"2026-01-31T11:00:00Z",
      "reason":null,
      "source":"daemon",
      "slot":{"name":"mmrepl_shop_west","active":true,"retained_bytes":0,"wal_status":"reserved"},
      "lsn":{"current":"0/0","sent":"0/0","applied":"0/0","durable":"0/0","confirmed":"0/0"},
      "lag":{"bytes":0,"seconds":0.0},
      "totals":{"transactions":0,"rows":0,"conflicts":0,"retries":0,"reconnects":0},
      "rates":{"transactions_per_second":0.0,"rows_per_second":0.0},
      "clock_offset_ms":0.4,
      "last_error":null}]}"#;

    #[test]
    fn the_example_of_the_interface_is_read() {
        let status: ClusterStatus = serde_json::from_str(INTERFACE).unwrap();
        assert_eq!(status.links[0].state, LinkState::Streaming);
        assert_eq!(status.links[0].clock_offset_ms, Some(0.4));
        assert_eq!(status.links[0].link().to_string(), "east->west");
    }

    #[test]
    fn every_field_of_the_interface_is_written_under_its_name() {
        let expected: serde_json::Value = serde_json::from_str(INTERFACE).unwrap();
        let status: ClusterStatus = serde_json::from_str(INTERFACE).unwrap();
        let written = serde_json::to_value(&status).unwrap();
        assert_contains(&written, &expected, "");
    }

    fn assert_contains(written: &serde_json::Value, expected: &serde_json::Value, path: &str) {
        match expected {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    let inner = written.get(name).unwrap_or_else(|| panic!("{path}.{name}"));
                    assert_contains(inner, value, &format!("{path}.{name}"));
                }
            }
            serde_json::Value::Array(values) => {
                for (index, value) in values.iter().enumerate() {
                    assert_contains(&written[index], value, &format!("{path}[{index}]"));
                }
            }
            // The same moment may be written with or without microseconds.
            serde_json::Value::String(_) if path.ends_with("since") => assert!(written.is_string()),
            value => assert_eq!(written, value, "{path}"),
        }
    }

    #[test]
    fn states_are_written_as_they_are_printed() {
        for state in LinkState::ALL {
            let json = serde_json::to_string(&state).unwrap();
            assert_eq!(json, format!("\"{state}\""));
            assert_eq!(serde_json::from_str::<LinkState>(&json).unwrap(), state);
        }
    }

    fn lsn() -> impl Strategy<Value = Lsn> {
        any::<u64>().prop_map(Lsn::new)
    }

    fn time() -> impl Strategy<Value = CommitTime> {
        // Years 1970 to 2100: what JSON times can say.
        (-946_684_800_000_000_i64..3_155_760_000_000_000).prop_map(CommitTime::from_postgres_micros)
    }

    fn text() -> impl Strategy<Value = Option<String>> {
        prop_oneof![Just(None), any::<String>().prop_map(Some)]
    }

    fn error() -> impl Strategy<Value = Option<LastError>> {
        let some = (time(), text(), any::<String>(), text(), any::<bool>());
        proptest::option::of(
            some.prop_map(|(at, sqlstate, message, relation, retryable)| LastError {
                at,
                sqlstate,
                message,
                relation,
                retryable,
            }),
        )
    }

    /// Numbers that `serde_json` reads back to the last bit without its slower float parser.
    fn thousandths() -> impl Strategy<Value = f64> {
        any::<i32>().prop_map(|number| f64::from(number) / 1000.0)
    }

    fn link_status() -> impl Strategy<Value = LinkStatus> {
        let sources = select(vec![
            StatusSource::Daemon,
            StatusSource::Checkpoint,
            StatusSource::Server,
        ]);
        let head = (
            select(LinkState::ALL.to_vec()),
            sources,
            time(),
            text(),
            error(),
        );
        let numbers = (
            any::<[u64; 11]>(),
            thousandths(),
            thousandths(),
            lsn(),
            any::<bool>(),
        );
        (head, numbers).prop_map(|(head, numbers)| build(head, numbers))
    }

    type Head = (
        LinkState,
        StatusSource,
        CommitTime,
        Option<String>,
        Option<LastError>,
    );

    fn build(head: Head, numbers: ([u64; 11], f64, f64, Lsn, bool)) -> LinkStatus {
        let (state, source, since, reason, last_error) = head;
        let (counts, offset, seconds, lsn, flag) = numbers;
        let link = "east->west".parse().unwrap();
        let wal_status = "reserved".to_owned();
        LinkStatus {
            reason,
            slot: Some(SlotStatus {
                name: "s".into(),
                active: flag,
                retained_bytes: counts[0],
                wal_status,
            }),
            lsn: LsnStatus {
                current: lsn,
                received: lsn,
                ..LsnStatus::default()
            },
            lag: Lag {
                bytes: counts[1],
                seconds: flag.then_some(seconds),
                exact: flag,
            },
            totals: Totals {
                transactions: counts[2],
                rows: counts[3],
                conflicts: counts[4],
                retries: counts[5],
                reconnects: counts[6],
                faults: counts[7],
            },
            rates: Rates {
                transactions_per_second: seconds,
                rows_per_second: seconds,
            },
            clock_offset_ms: flag.then_some(offset),
            last_error,
            bounds: flag.then_some(Bounds {
                queue_rows: counts[7],
                queue_rows_max: counts[8],
                queue_bytes: counts[9],
                queue_bytes_max: counts[10],
                window_rows: counts[0],
            }),
            ..LinkStatus::new(&link, state, source, since)
        }
    }

    proptest! {
        #[test]
        fn a_status_survives_json(link in link_status(), at in time()) {
            let status =
                ClusterStatus { cluster: "shop".parse().unwrap(), at, links: vec![link], nodes: vec![] };
            let json = serde_json::to_string(&status).unwrap();
            prop_assert_eq!(serde_json::from_str::<ClusterStatus>(&json).unwrap(), status);
        }
    }
}
