//! A session for applying changes: batches of prepared statements, answers read while writing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Context;

use bytes::BytesMut;

use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use super::batch::{BatchError, Plan, Statements, Ticket};
use super::codec::WireFrame;
use super::connect::{completed, connect_native};
use super::connection::{Connection, TransactionStatus, misplaced};
use super::error::{ServerError, WireError};
use super::outcome::{Outcome, affected, split_row};
use super::settings::{APPLYING, ServerSays, after_login};
use super::startup::{Login, version_number};
use crate::config::conninfo::ConnInfo;

/// A batch buffer that grew beyond this is given back after use.
const KEPT_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// One connection in the extended query protocol, with a cache of prepared statements.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    /// The batch that is being pushed.
    statements: Statements,
    in_flight: VecDeque<Plan>,
    last_ticket: Ticket,
    server_version: u32,
    /// True while answers are being read; stays true when that was given up or failed.
    reading: bool,
}

/// A batch that is under way. Batches are collected in the order they were submitted; one that
/// is dropped is read over when a later one is collected.
#[derive(Debug)]
#[must_use = "a batch that is not collected may have failed"]
pub struct Pending {
    ticket: Ticket,
}

impl Session {
    /// Connects with `settings` on top of the pinned ones, which decide what values look like.
    pub async fn connect(
        info: &ConnInfo,
        application_name: &str,
        settings: &[(&str, &str)],
    ) -> Result<Self, WireError> {
        let login = Login {
            info,
            application_name,
            replication: false,
            settings,
        };
        let connection = connect_native(&login).await?;
        let server_version = server_version(&connection)?;
        let applying = settings.contains(&APPLYING[0]);
        let says = ServerSays {
            version: server_version,
            encoding: connection.parameter("server_encoding"),
        };
        let complete = after_login(says, applying, true);
        let mut session = Self {
            connection,
            statements: Statements::new(),
            in_flight: VecDeque::new(),
            last_ticket: 0,
            server_version,
            reading: false,
        };
        completed(info, session.simple(&complete)).await?;
        Ok(session)
    }

    /// Runs statements without parameters, separated by semicolons; as one transaction, unless
    /// they contain transaction commands. Not cancel-safe, like [`Batch::run`].
    pub async fn simple(&mut self, sql: &str) -> Result<Vec<Outcome>, WireError> {
        self.check_usable()?;
        if !self.in_flight.is_empty() {
            let text = "a simple query cannot start before all batches are collected";
            return Err(WireError::Protocol(text.to_owned()));
        }
        send_query(&mut self.connection, sql)?;
        self.reading = true;
        let outcomes = self.read_answers(Plan::default()).await;
        outcomes.map_err(|failure| failure.error)
    }

    /// Starts a new, empty batch. One that was pushed but never sent is forgotten.
    pub fn batch(&mut self) -> Batch<'_> {
        let unsent = std::mem::take(&mut self.statements.plan);
        self.settle(unsent);
        self.statements.encoded.clear();
        if self.statements.encoded.capacity() > KEPT_BATCH_BYTES {
            self.statements.encoded = BytesMut::new();
        }
        self.last_ticket += 1;
        self.statements.plan.ticket = self.last_ticket;
        Batch { session: self }
    }

    /// The outcomes of a submitted batch. Not cancel-safe, like [`Batch::run`].
    pub async fn collect(&mut self, pending: Pending) -> Result<Vec<Outcome>, BatchError> {
        self.check_usable()?;
        while let Some(plan) = self.in_flight.pop_front() {
            let wanted = plan.ticket == pending.ticket;
            self.reading = true;
            let outcomes = self.read_answers(plan).await;
            if wanted || self.reading {
                return outcomes;
            }
        }
        Err(WireError::Protocol("this batch was read over already".to_owned()).into())
    }

    /// Waits until answers to submitted batches begin to arrive, and sends what did not fit
    /// meanwhile. Cancel-safe, unlike collecting them.
    pub async fn answered(&mut self) -> Result<(), WireError> {
        self.check_usable()?;
        self.connection.readable().await
    }

    /// Batches were submitted that are not collected.
    pub fn is_waiting(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Sends what did not fit when it was submitted, as far as it fits now; wakes the task when
    /// more does. Failures show when the batches are collected.
    pub fn keep_sending(&mut self, cx: &mut Context<'_>) {
        self.connection.keep_sending(cx);
    }

    /// Reads over every batch that was not collected.
    pub async fn discard(&mut self) -> Result<(), WireError> {
        self.check_usable()?;
        while let Some(plan) = self.in_flight.pop_front() {
            self.reading = true;
            let outcomes = self.read_answers(plan).await;
            if self.reading {
                return outcomes.map(drop).map_err(|failed| failed.error);
            }
        }
        Ok(())
    }

    /// The server's version as a number: 160014 is 16.14.
    pub fn server_version(&self) -> u32 {
        self.server_version
    }

    /// The server process of this session (`pg_stat_activity.pid`).
    pub fn backend_pid(&self) -> i32 {
        self.connection.backend_pid
    }

    /// Where the transaction stood after the last answer.
    pub fn transaction_status(&self) -> TransactionStatus {
        self.connection.transaction
    }

    /// A setting that the server reports, such as `server_encoding` (manual 55.2.7).
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.connection.parameter(name)
    }

    /// How many prepared statements the session keeps.
    pub fn prepared_statements(&self) -> usize {
        self.statements.cache.len()
    }

    /// Ends the session politely.
    pub async fn close(self) {
        self.connection.terminate().await;
    }

    pub(super) fn check_usable(&self) -> Result<(), WireError> {
        if self.reading {
            Err(WireError::Abandoned)
        } else {
            Ok(())
        }
    }

    /// Moves the encoded batch, closed by a Sync, to the write buffer.
    fn queue(&mut self) -> Result<Pending, WireError> {
        self.check_usable()?;
        frontend::sync(&mut self.statements.encoded);
        let output = self.connection.output();
        if output.is_empty() {
            std::mem::swap(output, &mut self.statements.encoded);
        } else {
            output.extend_from_slice(&self.statements.encoded);
        }
        self.statements.encoded.clear();
        let plan = std::mem::take(&mut self.statements.plan);
        let ticket = plan.ticket;
        self.in_flight.push_back(plan);
        Ok(Pending { ticket })
    }

    /// Reads up to `ReadyForQuery`, which ends a batch whatever happened in it.
    async fn read_answers(&mut self, mut plan: Plan) -> Result<Vec<Outcome>, BatchError> {
        let mut outcomes = Vec::with_capacity(plan.statements.len());
        let mut rows = Vec::new();
        let mut failure: Option<BatchError> = None;
        loop {
            let frame = match self.connection.receive().await {
                Ok(frame) => frame,
                // What the server said before it hung up explains more than the hanging up.
                Err(error) => return Err(failure.unwrap_or_else(|| error.into())),
            };
            let WireFrame::Message(message) = frame else {
                return Err(misplaced(&frame, "a batch").into());
            };
            match message {
                Message::BindComplete | Message::RowDescription(_) | Message::NoData => {}
                Message::ParseComplete => drop(parsed(&mut plan)?),
                // Its data is on the way already, with whatever follows.
                Message::CopyInResponse(_) if plan.copies > 0 => plan.copies -= 1,
                Message::CloseComplete => {
                    plan.closes.pop_front();
                }
                Message::DataRow(row) => rows.push(split_row(&row)?),
                Message::CommandComplete(body) => {
                    let rows = std::mem::take(&mut rows);
                    outcomes.push(Outcome {
                        affected: affected(&body),
                        rows,
                    });
                }
                Message::EmptyQueryResponse => outcomes.push(Outcome::default()),
                Message::ErrorResponse(body) => {
                    let error = ServerError::parse(&body);
                    let index = Some(outcomes.len());
                    let index = index.filter(|i| *i < plan.statements.len() && !error.is_fatal());
                    failure = Some(BatchError {
                        index,
                        error: error.into(),
                    });
                }
                Message::ReadyForQuery(_) => break,
                other => return Err(misplaced(&WireFrame::Message(other), "a batch").into()),
            }
        }
        self.reading = false;
        self.finish(plan, failure)?;
        Ok(outcomes)
    }

    fn finish(&mut self, plan: Plan, failure: Option<BatchError>) -> Result<(), BatchError> {
        let failed = failure.as_ref().and_then(|failure| failure.index);
        if let Some(sql) = failed.and_then(|index| plan.statements.get(index)) {
            self.statements.cache.invalidate(sql);
        }
        self.settle(plan);
        failure.map_or(Ok(()), Err)
    }

    /// What was not confirmed did not happen: those statements do not exist, and those names
    /// are still to be closed.
    fn settle(&mut self, plan: Plan) {
        for (sql, name) in plan.parses {
            self.statements.cache.forget(&sql, &name);
        }
        for name in plan.closes {
            self.statements.cache.discard(name);
        }
    }
}

/// Statements that are being collected to run together. Dropping it sends nothing.
#[derive(Debug)]
pub struct Batch<'a> {
    session: &'a mut Session,
}

impl Batch<'_> {
    /// Adds a statement with its parameters as text. On an error nothing was added.
    ///
    /// The same `sql` is parsed once per session. Parameter types are inferred by the server;
    /// add casts where the text alone is ambiguous.
    pub fn push(&mut self, sql: &Arc<str>, params: &[Option<&[u8]>]) -> Result<(), WireError> {
        self.session.check_usable()?;
        self.session.statements.push(sql, params)
    }

    /// Adds a statement whose parameters are all in their types' binary form, as arrays are that
    /// were put together here.
    pub fn push_binary(&mut self, sql: &Arc<str>, params: &[Vec<u8>]) -> Result<(), WireError> {
        self.session.check_usable()?;
        self.session.statements.push_binary(sql, params)
    }

    /// Adds a `copy … from stdin` with its data, in the format that `sql` names.
    pub fn push_copy(&mut self, sql: &Arc<str>, data: &[u8]) -> Result<(), WireError> {
        self.session.check_usable()?;
        self.session.statements.push_copy(sql, data)
    }

    /// How many statements there are.
    pub fn len(&self) -> usize {
        self.session.statements.plan.statements.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.session.statements.plan.statements.is_empty()
    }

    /// How much will be sent, in bytes.
    pub fn encoded_bytes(&self) -> usize {
        self.session.statements.encoded.len()
    }

    /// Runs the statements; outcomes come in the order of pushing. Not cancel-safe: when this
    /// is dropped half way the session answers `Abandoned` from then on.
    pub async fn run(self) -> Result<Vec<Outcome>, BatchError> {
        let pending = self.session.queue()?;
        self.session.collect(pending).await
    }

    /// Starts the statements and returns at once, so that the next batch can be prepared
    /// meanwhile; [`Session::collect`] brings the outcomes, and sends what did not fit.
    pub async fn submit(self) -> Result<Pending, WireError> {
        let pending = self.session.queue()?;
        self.session.connection.send_some().await?;
        Ok(pending)
    }
}

/// The SQL and name of the statement that the server has parsed next.
fn parsed(plan: &mut Plan) -> Result<(Arc<str>, Arc<str>), WireError> {
    let unexpected = || WireError::unexpected("a ParseComplete too many", "a batch");
    plan.parses.pop_front().ok_or_else(unexpected)
}

/// Puts a simple query into the write buffer.
pub(super) fn send_query(connection: &mut Connection, sql: &str) -> Result<(), WireError> {
    frontend::query(sql, connection.output())
        .map_err(|error| WireError::Protocol(format!("a query cannot be sent: {error}")))
}

/// The version that the server reported at login.
pub(super) fn server_version(connection: &Connection) -> Result<u32, WireError> {
    let text = connection.parameter("server_version");
    text.and_then(version_number)
        .ok_or_else(|| WireError::Protocol("the server did not tell its version".to_owned()))
}
