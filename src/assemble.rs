//! Messages in, transactions out: pure, one assembler per replication connection.
//!
//! ```text
//!            plain (version 1)                     streamed (version 2 and later)
//!   Begin Origin? Relation* change* Commit    Start change* Stop … Start change* Stop … Commit
//!       └────────────┬────────────────┘            └──────┬───────────┘   (or Abort)  │
//!            pieces as they fill up               kept per transaction ──────────▶ pieces
//! ```
//!
//! - A small transaction leaves as one [`Piece`] when its Commit arrives. A larger one leaves in
//!   pieces as it comes, each within [`PieceLimits`], so memory does not grow with it. Before its
//!   last piece (`end` is set) nobody may commit it.
//! - A transaction that carries an Origin message was applied here, not written here. One of the
//!   cluster's own origins is skipped whole ([`OriginFilter::DropNamed`]), though the tables it
//!   describes are remembered: the server describes each only once. One of any other origin (a
//!   subscription from elsewhere) is a write of this node; see [`TxHeader::passed_on`].
//! - With [`Assembler::passing_on`] the changes of one streamed transaction at a time leave as they
//!   come, in pieces that know no commit yet, and its end by itself ([`RunningEnd`]). What cannot
//!   be followed that way (a part that is rolled back) is an error: without streaming it can.
//! - Other streamed transactions, which come before anybody knows how they end, mixed with others
//!   and with their subtransactions numbered, are kept in memory within a byte budget; a rolled
//!   back subtransaction takes exactly its own changes with it.
//! - What a streamed transaction says about tables counts for itself only until it commits, which
//!   is also how the server keeps count of what it has told (`streamed_txns` in pgoutput.c).
//!
//! Values are slices of the buffers they were read into. A piece that waits keeps those
//! buffers alive whole, so the reader's buffer size, not only `bytes`, bounds what is held.
//!
//! After an error the stream cannot be followed any more: the assembler refuses everything, and
//! the link starts anew from its position with a new one.

mod assembled;
mod builder;
mod change;
mod error;
mod piece;
mod streamed;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use assembled::{Assembled, RunningEnd};
pub use change::Change;
pub use error::AssembleError;
pub use piece::{Piece, PieceLimits, SeenRuns, TxEnd, TxHeader};

use crate::conflict::Seen;
use crate::pgoutput::{LogicalMessage, Message, RelationMessage};
use crate::relation::RelationCache;
use builder::Builder;
use streamed::{Finished, Kept, Streams};

/// What to do with transactions that were applied here by a replication origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginFilter {
    /// Keep them.
    KeepAll,
    /// Skip those of origins whose name begins like this.
    DropNamed(String),
}

impl OriginFilter {
    fn drops(&self, name: &str) -> bool {
        match self {
            Self::KeepAll => false,
            Self::DropNamed(prefix) => name.starts_with(prefix),
        }
    }
}

/// What becomes of the transaction that is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// It was written here.
    Here,
    /// It came from outside of the cluster.
    Elsewhere,
    /// The cluster has it.
    Cluster,
}

/// Turns the messages of one replication connection into transactions.
#[derive(Debug)]
pub struct Assembler {
    limits: PieceLimits,
    filter: OriginFilter,
    relations: RelationCache,
    streams: Streams,
    state: State,
    seen: Arc<Seen>,
}

#[derive(Debug)]
enum State {
    /// Between transactions and blocks.
    Idle,
    /// After Begin.
    Plain { builder: Builder, from: From },
    /// Between Stream Start and Stream Stop of this top-level transaction.
    Block { top: u32 },
    /// After Stream Commit, while pieces wait to be taken.
    Draining(Finished),
    /// After an error.
    Failed,
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            Self::Idle => "outside a transaction",
            Self::Plain { .. } => "inside a transaction",
            Self::Block { .. } => "inside a streamed block",
            Self::Draining(_) => "before the last transaction was taken",
            Self::Failed => "after an error",
        }
    }
}

impl Assembler {
    /// Most memory that streamed transactions in progress may take: 64 MiB, what
    /// `logical_decoding_work_mem` lets the server keep by default before it begins to stream.
    pub const STREAM_BUDGET_BYTES: usize = 64 << 20;

    /// An assembler for a new connection.
    pub fn new(limits: PieceLimits, filter: OriginFilter) -> Self {
        Self {
            limits,
            filter,
            relations: RelationCache::default(),
            streams: Streams::new(Self::STREAM_BUDGET_BYTES),
            state: State::Idle,
            seen: Arc::default(),
        }
    }

    /// What the source had applied from other nodes when it made the change that is fed next, or
    /// ended the transaction whose end is fed next.
    pub fn source_had_seen(&mut self, seen: &Arc<Seen>) {
        if !Arc::ptr_eq(&self.seen, seen) {
            self.seen = Arc::clone(seen);
        }
    }

    /// Sets the memory that streamed transactions in progress may take together.
    #[must_use]
    pub fn with_stream_budget(mut self, bytes: usize) -> Self {
        self.streams = Streams::new(bytes);
        self
    }

    /// Passes on one streamed transaction at a time as it comes.
    #[must_use]
    pub fn passing_on(mut self) -> Self {
        self.streams.pass_on();
        self
    }

    /// Takes the next message of the stream.
    ///
    /// After a Stream Commit more pieces may wait: take them with [`pending`](Self::pending)
    /// until it gives `None`, or the next message is refused.
    pub fn feed(&mut self, message: Message) -> Result<Assembled, AssembleError> {
        let result = self.step(message);
        if result.is_err() {
            // A transaction without the refused message must never be taken for a whole one.
            self.state = State::Failed;
            self.streams.clear();
        }
        result
    }

    /// The next piece of a streamed transaction that has committed; `None` when all are taken,
    /// and always with protocol version 1.
    pub fn pending(&mut self) -> Option<Piece> {
        let State::Draining(finished) = &mut self.state else {
            return None;
        };
        let piece = finished.next_piece(self.limits);
        if finished.is_done() {
            self.state = State::Idle;
        }
        piece
    }

    /// Whether a transaction has begun whose end has not been fed, or not been taken, yet.
    ///
    /// Streamed transactions between their blocks do not count: the server sends them again whole
    /// after any position before their commit.
    pub fn in_transaction(&self) -> bool {
        matches!(
            self.state,
            State::Plain { .. } | State::Block { .. } | State::Draining(_)
        )
    }

    /// Whether the next message is inside a streamed block, which `decode` must know.
    pub fn in_stream(&self) -> bool {
        matches!(self.state, State::Block { .. })
    }

    fn step(&mut self, message: Message) -> Result<Assembled, AssembleError> {
        match &self.state {
            State::Failed => return Err(AssembleError::Failed),
            State::Draining(_) => return Err(AssembleError::NotTaken),
            _ => {}
        }
        match message {
            Message::Begin {
                final_lsn,
                commit_time,
                xid,
            } => {
                self.idle("Begin")?;
                let header = TxHeader::committed(final_lsn, commit_time, xid);
                self.state = State::Plain {
                    builder: Builder::new(header),
                    from: From::Here,
                };
                Ok(Assembled::Nothing)
            }
            Message::Commit {
                commit_lsn,
                end_lsn,
                commit_time,
            } => {
                let found = TxHeader::committed(commit_lsn, commit_time, 0);
                self.commit(
                    found,
                    TxEnd {
                        commit_lsn,
                        end_lsn,
                    },
                )
            }
            Message::Origin { name, .. } => self.origin(&name),
            Message::Relation(message) => self.relation(message),
            Message::Type(message) => self.check_xid("Type", message.xid),
            Message::Logical(message) if !message.transactional => self.at_once(message),
            Message::Insert { .. }
            | Message::Update { .. }
            | Message::Delete { .. }
            | Message::Truncate { .. }
            | Message::Logical(_) => self.change(message),
            Message::StreamStart { .. }
            | Message::StreamStop
            | Message::StreamCommit { .. }
            | Message::StreamAbort { .. } => self.stream(&message),
            Message::BeginPrepare(_)
            | Message::Prepare(_)
            | Message::CommitPrepared { .. }
            | Message::RollbackPrepared { .. }
            | Message::StreamPrepare(_) => Err(AssembleError::TwoPhase(message.name())),
        }
    }

    fn misplaced(&self, message: &'static str) -> AssembleError {
        AssembleError::Misplaced {
            message,
            place: self.state.name(),
        }
    }

    fn idle(&self, message: &'static str) -> Result<(), AssembleError> {
        if matches!(self.state, State::Idle) {
            Ok(())
        } else {
            Err(self.misplaced(message))
        }
    }

    /// A transaction number must be there inside a streamed block, and only there.
    fn check_xid(
        &self,
        message: &'static str,
        xid: Option<u32>,
    ) -> Result<Assembled, AssembleError> {
        if xid.is_some() == self.in_stream() {
            Ok(Assembled::Nothing)
        } else {
            Err(self.misplaced(message))
        }
    }

    fn commit(&mut self, found: TxHeader, end: TxEnd) -> Result<Assembled, AssembleError> {
        let misplaced = self.misplaced("Commit");
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Plain { mut builder, from } => {
                builder.header().check_commit(found)?;
                Ok(match from {
                    From::Cluster => Assembled::Skipped { end },
                    From::Elsewhere => {
                        builder.passed_on(&self.seen);
                        builder.finish(end, &self.seen)
                    }
                    From::Here => builder.finish(end, &self.seen),
                })
            }
            _ => Err(misplaced),
        }
    }

    fn origin(&mut self, name: &str) -> Result<Assembled, AssembleError> {
        let drop = self.filter.drops(name);
        match &mut self.state {
            State::Plain { builder, .. } if drop && builder.began() => {
                return Err(AssembleError::LateOrigin);
            }
            State::Plain { builder, from } if drop => {
                builder.clear();
                *from = From::Cluster;
            }
            State::Block { top } if drop => self.streams.drop_changes(*top)?,
            State::Plain { from, .. } => *from = From::Elsewhere,
            State::Block { top } => self.streams.pass_on_above(*top),
            _ => return Err(self.misplaced("Origin")),
        }
        Ok(Assembled::Nothing)
    }

    fn relation(&mut self, message: RelationMessage) -> Result<Assembled, AssembleError> {
        self.check_xid("Relation", message.xid)?;
        match self.state {
            State::Block { top } => {
                self.streams
                    .describe(top, self.relations.shared(message.relation))?;
            }
            _ => self.relations.insert(message.relation),
        }
        Ok(Assembled::Nothing)
    }

    fn at_once(&self, message: LogicalMessage) -> Result<Assembled, AssembleError> {
        self.check_xid("Message", message.xid)?;
        let LogicalMessage {
            lsn,
            prefix,
            content,
            ..
        } = message;
        Ok(Assembled::Message {
            lsn,
            prefix,
            content,
        })
    }

    fn change(&mut self, message: Message) -> Result<Assembled, AssembleError> {
        let xid = message.stream_xid();
        match (&mut self.state, xid) {
            (
                State::Plain {
                    from: From::Cluster,
                    ..
                },
                None,
            ) => Ok(Assembled::Nothing),
            (State::Plain { builder, .. }, None) => {
                let change = Change::resolve(message, |id| self.relations.get(id).cloned())?;
                let full = change.and_then(|change| builder.push(change, &self.seen, self.limits));
                Ok(full.map_or(Assembled::Nothing, Assembled::Piece))
            }
            (State::Block { top }, Some(xid)) => {
                let how = (&self.seen, self.limits);
                let piece = self
                    .streams
                    .push((*top, xid), message, &self.relations, how)?;
                Ok(piece.map_or(Assembled::Nothing, Assembled::Piece))
            }
            _ => Err(self.misplaced(message.name())),
        }
    }

    fn stream(&mut self, message: &Message) -> Result<Assembled, AssembleError> {
        if let (State::Block { top }, Message::StreamStop) = (&self.state, message) {
            let piece = self.streams.flush(*top);
            self.state = State::Idle;
            return Ok(piece.map_or(Assembled::Nothing, Assembled::Piece));
        }
        self.idle(message.name())?;
        match *message {
            Message::StreamStart { xid, first } => {
                self.streams.start(xid, first)?;
                self.state = State::Block { top: xid };
            }
            Message::StreamAbort { xid, subxid, .. } => {
                if self.streams.abort(xid, subxid)? {
                    return Ok(Assembled::RunningEnded(RunningEnd::Abort));
                }
            }
            Message::StreamCommit {
                xid,
                commit_lsn,
                end_lsn,
                commit_time,
            } => {
                let header = TxHeader::committed(commit_lsn, commit_time, xid);
                return self.stream_commit(
                    header,
                    TxEnd {
                        commit_lsn,
                        end_lsn,
                    },
                );
            }
            _ => return Err(self.misplaced(message.name())),
        }
        Ok(Assembled::Nothing)
    }

    fn stream_commit(&mut self, header: TxHeader, end: TxEnd) -> Result<Assembled, AssembleError> {
        let (described, header, kept) = self.streams.commit(header, end, &self.seen)?;
        self.relations.merge(described);
        match kept {
            Kept::Nothing => Ok(Assembled::Skipped { end }),
            Kept::PassedOn => Ok(Assembled::RunningEnded(RunningEnd::Commit {
                header,
                end,
                seen: Arc::clone(&self.seen),
            })),
            Kept::All(finished) => {
                self.state = State::Draining(*finished);
                Ok(self.pending().map_or(Assembled::Nothing, Assembled::Piece))
            }
        }
    }
}
