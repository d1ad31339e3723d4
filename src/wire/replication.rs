//! The replication connection: identity, slots, and starting the stream (manual 55.4 and 55.5).

use std::fmt::Write as _;

use postgres_protocol::message::backend::Message;

use super::change_stream::ReplicationStream;
use super::codec::WireFrame;
use super::connect::{completed, connect_native};
use super::connection::{Connection, misplaced};
use super::error::{ServerError, WireError};
use super::outcome::{Outcome, affected, split_row};
use super::session::{send_query, server_version};
use super::settings::{ServerSays, after_login};
use super::startup::Login;
use crate::config::conninfo::ConnInfo;
use crate::ids::{SystemId, TimelineId};
use crate::lsn::Lsn;

/// `CREATE_REPLICATION_SLOT` takes its options in parentheses since 15.
const SLOT_OPTIONS_SINCE: u32 = 150_000;

/// A connection that takes replication commands, and SQL as simple queries.
#[derive(Debug)]
pub struct ReplicationConnection {
    connection: Connection,
    server_version: u32,
}

/// The answer to `IDENTIFY_SYSTEM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemInfo {
    /// The server's identity.
    pub system_id: SystemId,
    /// The timeline it is on.
    pub timeline: TimelineId,
    /// How far its WAL is flushed.
    pub flushed: Lsn,
    /// The database of this connection.
    pub dbname: Option<String>,
}

/// A slot that was just made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedSlot {
    /// Commits from here on are in the stream.
    pub consistent_point: Lsn,
    /// A snapshot of everything before, for `SET TRANSACTION SNAPSHOT`; valid until the next
    /// command on this connection.
    pub snapshot: Option<String>,
}

/// Whether large transactions arrive before they commit (pgoutput option `streaming`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Streaming {
    /// Only after the commit.
    #[default]
    Off,
    /// In pieces (14 and newer, protocol 2).
    On,
    /// In pieces, with what parallel apply needs (16 and newer, protocol 4).
    Parallel,
}

/// What is asked of pgoutput (manual 55.5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgoutputOptions {
    /// 1 to 4.
    pub proto_version: u8,
    /// The publication, unquoted.
    pub publication: String,
    /// Logical messages too (14 and newer).
    pub messages: bool,
    /// Only what was written on that server itself (16 and newer).
    pub origin_none: bool,
    /// Large transactions in pieces.
    pub streaming: Streaming,
    /// Values in binary form where the type has one.
    pub binary: bool,
}

impl ReplicationConnection {
    /// Connects. The text of values is pinned as in the sessions that consume it.
    pub async fn connect(info: &ConnInfo, application_name: &str) -> Result<Self, WireError> {
        let login = Login {
            info,
            application_name,
            replication: true,
            settings: &[],
        };
        let connection = connect_native(&login).await?;
        let server_version = server_version(&connection)?;
        let says = ServerSays {
            version: server_version,
            encoding: connection.parameter("server_encoding"),
        };
        let complete = after_login(says, false, true);
        let mut replication = Self {
            connection,
            server_version,
        };
        completed(info, replication.simple(&complete)).await?;
        Ok(replication)
    }

    /// The server's version as a number: 160014 is 16.14.
    pub fn server_version(&self) -> u32 {
        self.server_version
    }

    /// The server process of this connection.
    pub fn backend_pid(&self) -> i32 {
        self.connection.backend_pid
    }

    /// Runs a replication command or SQL without parameters.
    pub async fn simple(&mut self, sql: &str) -> Result<Vec<Outcome>, WireError> {
        send_query(&mut self.connection, sql)?;
        read_simple(&mut self.connection).await
    }

    /// Who the server is and where its WAL ends (`IDENTIFY_SYSTEM`).
    pub async fn identify_system(&mut self) -> Result<SystemInfo, WireError> {
        let outcomes = self.simple("IDENTIFY_SYSTEM").await?;
        let column = |i| outcomes.first().and_then(|outcome| outcome.text(0, i));
        let read = || {
            Some(SystemInfo {
                system_id: SystemId(column(0)?.parse().ok()?),
                timeline: TimelineId(column(1)?.parse().ok()?),
                flushed: column(2)?.parse().ok()?,
                dbname: column(3).map(str::to_owned),
            })
        };
        read().ok_or_else(|| WireError::unexpected("a result of another shape", "IDENTIFY_SYSTEM"))
    }

    /// Makes a permanent logical slot for pgoutput.
    pub async fn create_slot(
        &mut self,
        slot: &str,
        export_snapshot: bool,
    ) -> Result<CreatedSlot, WireError> {
        let options = match (self.server_version >= SLOT_OPTIONS_SINCE, export_snapshot) {
            (true, true) => "(SNAPSHOT 'export')",
            (true, false) => "(SNAPSHOT 'nothing')",
            (false, true) => "EXPORT_SNAPSHOT",
            (false, false) => "NOEXPORT_SNAPSHOT",
        };
        let slot = identifier(slot);
        let sql = format!("CREATE_REPLICATION_SLOT {slot} LOGICAL pgoutput {options}");
        let outcomes = self.simple(&sql).await?;
        let column = |i| outcomes.first().and_then(|outcome| outcome.text(0, i));
        let point = column(1).and_then(|text| text.parse().ok());
        let consistent_point = point.ok_or_else(|| {
            WireError::unexpected("a result of another shape", "CREATE_REPLICATION_SLOT")
        })?;
        Ok(CreatedSlot {
            consistent_point,
            snapshot: column(2).map(str::to_owned),
        })
    }

    /// Starts the stream at `from`, or at the slot's own position where that is later.
    pub async fn start(
        mut self,
        slot: &str,
        from: Lsn,
        options: &PgoutputOptions,
    ) -> Result<ReplicationStream, WireError> {
        let (slot, options) = (identifier(slot), pgoutput_options(options));
        let sql = format!("START_REPLICATION SLOT {slot} LOGICAL {from} ({options})");
        send_query(&mut self.connection, &sql)?;
        match self.connection.receive().await? {
            WireFrame::CopyBoth => Ok(ReplicationStream::new(self.connection)),
            frame @ WireFrame::Message(_) => Err(misplaced(&frame, "START_REPLICATION")),
        }
    }

    /// Ends the connection politely.
    pub async fn close(self) {
        self.connection.terminate().await;
    }
}

/// The results of a simple query, whose statements may return rows.
async fn read_simple(connection: &mut Connection) -> Result<Vec<Outcome>, WireError> {
    let (mut outcomes, mut rows) = (Vec::new(), Vec::new());
    let mut failure = None;
    loop {
        match connection.receive().await {
            Ok(WireFrame::Message(Message::RowDescription(_))) => {}
            Ok(WireFrame::Message(Message::DataRow(row))) => rows.push(split_row(&row)?),
            Ok(WireFrame::Message(Message::CommandComplete(body))) => {
                let rows = std::mem::take(&mut rows);
                outcomes.push(Outcome {
                    affected: affected(&body),
                    rows,
                });
            }
            Ok(WireFrame::Message(Message::EmptyQueryResponse)) => {
                outcomes.push(Outcome::default());
            }
            Ok(WireFrame::Message(Message::ErrorResponse(body))) => {
                failure = Some(WireError::from(ServerError::parse(&body)));
            }
            Ok(WireFrame::Message(Message::ReadyForQuery(_))) => {
                return failure.map_or(Ok(outcomes), Err);
            }
            Ok(frame) => return Err(misplaced(&frame, "a replication command")),
            Err(error) => return Err(failure.unwrap_or(error)),
        }
    }
}

/// The grammar of replication commands knows `""` in names and `''` in texts, no backslashes.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn pgoutput_options(options: &PgoutputOptions) -> String {
    // The value is a list of identifiers, hence quoted twice.
    let publication = literal(&identifier(&options.publication));
    let mut text = format!(
        "proto_version '{}', publication_names {publication}",
        options.proto_version
    );
    let mut add = |wanted: bool, option: &str| {
        if wanted {
            // Writing to a String cannot fail.
            let _ = write!(text, ", {option}");
        }
    };
    add(options.messages, "messages 'true'");
    add(options.origin_none, "origin 'none'");
    add(options.streaming == Streaming::On, "streaming 'on'");
    add(
        options.streaming == Streaming::Parallel,
        "streaming 'parallel'",
    );
    add(options.binary, "binary 'true'");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_quoted_for_the_replication_grammar() {
        let mut options = PgoutputOptions {
            proto_version: 1,
            publication: "it's \"mine\"".to_owned(),
            messages: true,
            origin_none: false,
            streaming: Streaming::Off,
            binary: false,
        };
        assert_eq!(
            pgoutput_options(&options),
            "proto_version '1', publication_names '\"it''s \"\"mine\"\"\"', messages 'true'"
        );
        options = PgoutputOptions {
            proto_version: 4,
            publication: "p".to_owned(),
            messages: false,
            origin_none: true,
            streaming: Streaming::Parallel,
            binary: true,
        };
        assert_eq!(
            pgoutput_options(&options),
            "proto_version '4', publication_names '\"p\"', origin 'none', streaming 'parallel', binary 'true'"
        );
    }
}
