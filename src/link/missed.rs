//! Makes up for what a stream has left out: transactions that others than the cluster wrote on the
//! source, before it was noticed that there are others; see `foreign`.
//!
//! The link's position lies behind them, so it cannot go back: everything else is applied already.
//! The slot still has them, for nothing is confirmed before it was looked at. So the WAL between is
//! read once more, with everything in it, and what is missing is written (`rerun` says what that
//! is), each transaction together with a second position (`others_lsn`): nothing is lost and
//! nothing happens twice, whenever a server or the daemon ends. Then the stream goes on from the
//! link's position.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_postgres::Client;

use super::error::LinkError;
use super::limits::piece_limits;
use super::open_stream::{Wanted, open_stream};
use super::reader::FEEDBACK_EVERY;
use super::reread::{Missed, report};
use super::rerun::{Keys, Rerun};
use super::sessions::not_set_up;
use super::{LinkContext, mixed};
use crate::apply::{Applier, ApplyError};
use crate::assemble::{Assembled, Assembler, OriginFilter, Piece};
use crate::catalog::gap::note_gaps;
use crate::catalog::load_tables::load_all;
use crate::catalog::position::set_others;
use crate::conflict::SeenHistory;
use crate::fault::caught;
use crate::ids::{NodeName, origin_prefix};
use crate::lineage::LinkFacts;
use crate::lsn::Lsn;
use crate::pgoutput::{self, Message};
use crate::status::model::LinkState;
use crate::wire::{Frame, ReplicationStream, WireError};

/// Pieces that may wait to be applied.
const PIECES_MAX: usize = 4;

/// How far what others wrote is applied.
pub(super) struct Others {
    /// The second position, where it is kept.
    applied: Option<Lsn>,
    /// Before it the slot has nothing, and it was looked at.
    confirmed: Option<Lsn>,
    /// How far everything else is applied.
    position: Lsn,
    /// The stream that is opened next brings what others write.
    are_asked_for: bool,
}

impl Others {
    /// Of the link with these facts, which stands at `position`.
    pub(super) fn of(link: &LinkFacts, position: Lsn, are_asked_for: bool) -> Self {
        let row = link.position.as_ref();
        let slot = link.slot.as_ref();
        Self {
            applied: row.and_then(|row| row.others_lsn),
            confirmed: slot.and_then(|slot| slot.confirmed_flush),
            position,
            are_asked_for,
        }
    }

    fn missed(&self) -> Option<Missed> {
        let read_from = self.confirmed.unwrap_or_default();
        let (from, to) = (self.applied?.max(read_from), self.position);
        (from < to).then_some(Missed {
            read_from,
            from,
            to,
        })
    }
}

/// Brings the second position in order before a stream is opened.
pub(super) async fn settle(
    context: &LinkContext,
    applier: &mut Applier,
    (others, seen): (Others, &SeenHistory),
    (source, target): (&Arc<Client>, &Client),
) -> Result<(), LinkError> {
    match (others.are_asked_for, others.applied) {
        (false, None) => set(context, target, Some(others.position)).await,
        (false, Some(_)) | (true, None) => Ok(()),
        (true, Some(_)) => {
            if let Some(missed) = others.missed() {
                set(context, target, Some(missed.from)).await?;
                let keys = keys(context, target).await?;
                make_up_for(context, applier, (missed, seen.clone(), keys), source).await?;
            }
            set(context, target, None).await
        }
    }
}

async fn set(context: &LinkContext, target: &Client, others: Option<Lsn>) -> Result<(), LinkError> {
    let set = set_others(target, &context.source.name, others).await;
    set.map_err(|error| not_set_up(&context.target, error))
}

/// Reads it and applies what came from elsewhere.
async fn make_up_for(
    context: &LinkContext,
    applier: &mut Applier,
    (missed, seen, keys): (Missed, SeenHistory, Keys),
    source: &Arc<Client>,
) -> Result<(), LinkError> {
    let doing = format!(
        "applying what other replicators wrote on {}",
        context.source.name
    );
    tracing::info!(link = %context.link, from = %missed.from, to = %missed.to, "{doing}");
    context
        .monitor
        .moves(LinkState::CatchingUp, Some(doing), false);
    let mixed = mixed::find(context, source, missed).await?;
    let wanted = Wanted {
        from: missed.read_from,
        streaming: false,
        with_all: true,
    };
    let (thread, stream) = open_stream(context, source, wanted).await?;
    let (sender, mut pieces) = mpsc::channel(PIECES_MAX);
    let ours = origin_prefix(&context.cluster);
    let rereader = Rereader {
        node: context.source.name.clone(),
        assembler: Assembler::new(piece_limits(), OriginFilter::DropNamed(ours.clone())),
        rerun: Rerun::new(ours, (context.rules.clone(), keys), missed.from).with_mixed(mixed),
        seen,
        pieces: sender,
        missed,
    };
    let reading = thread.spawn(caught(rereader.run(stream)));
    while let Some(piece) = pieces.recv().await {
        let written = write(applier, &piece).await;
        written.map_err(|error| refused(context, &piece, error))?;
    }
    let rerun = match reading.await {
        Ok(Ok(read)) => read?,
        Ok(Err(fault)) => return Err(fault.into()),
        Err(_) => return Err(LinkError::running("reading again was ended".to_owned())),
    };
    applier.made_up();
    name_unsure(context, source, &rerun).await
}

/// What a refused transaction means for the link.
fn refused(context: &LinkContext, piece: &Piece, error: ApplyError) -> LinkError {
    if let ApplyError::ClockBehind { micros } = error {
        let behind = Duration::from_micros(micros.max(1).unsigned_abs());
        let allowed = context.max_clock_skew;
        if behind > allowed {
            let change = Some(piece.header);
            return LinkError::clock_skew(&context.link, (behind, allowed), change);
        }
    }
    LinkError::applying(&context.link, Some(piece.header.final_lsn), error)
}

async fn keys(context: &LinkContext, target: &Client) -> Result<Keys, LinkError> {
    let tables = load_all(target).await;
    let tables = tables.map_err(|error| not_set_up(&context.target, error))?;
    let named = tables.into_iter().map(|table| {
        let key = table.key.map_or_else(Vec::new, |key| key.columns);
        let key = key.into_iter().map(|column| column.name).collect();
        ((table.schema, table.name), key)
    });
    Ok(named.collect())
}

/// The tables count as damaged until `init` has compared them.
async fn name_unsure(
    context: &LinkContext,
    source: &Client,
    rerun: &Rerun,
) -> Result<(), LinkError> {
    let left_out = "changes that came between those of another replicator";
    let tables = rerun.unsure().iter();
    let gaps: Vec<[&str; 3]> = tables
        .map(|(schema, name)| [&**schema, &**name, left_out])
        .collect();
    let noted = note_gaps(source, &gaps).await;
    noted.map_err(|error| not_set_up(&context.source, error))
}

/// What does not go together may go in its own order. The parts of a large transaction cannot be
/// begun again.
async fn write(applier: &mut Applier, piece: &Piece) -> Result<(), ApplyError> {
    let is_whole = piece.first && piece.end.is_some() && applier.skips_until().is_none();
    if is_whole && applier.make_up_for(piece, false).await.is_ok() {
        return Ok(());
    }
    if is_whole {
        applier.rollback().await?;
    }
    applier.make_up_for(piece, true).await
}

/// Reads the WAL between the two positions once more.
struct Rereader {
    node: NodeName,
    assembler: Assembler,
    rerun: Rerun,
    seen: SeenHistory,
    pieces: mpsc::Sender<Piece>,
    missed: Missed,
}

impl Rereader {
    /// Reads until everything is passed on, or whoever applies it has gone.
    async fn run(mut self, mut stream: ReplicationStream) -> Result<Rerun, LinkError> {
        loop {
            let frame = stream.next().await.map_err(|source| self.lost(source))?;
            match frame {
                Frame::Keepalive { wal_end, .. } => {
                    if wal_end >= self.missed.to && !self.assembler.in_transaction() {
                        break;
                    }
                    self.report(&mut stream).await?;
                }
                Frame::Data {
                    wal_start, payload, ..
                } => match self.read(wal_start, payload)? {
                    Read::Nothing => {}
                    Read::Piece(piece) => {
                        if !self.pass_on(piece, &mut stream).await? {
                            break;
                        }
                    }
                    Read::Everything => break,
                },
            }
        }
        // The slot is to be free for the stream that goes on. A server that is in the middle of a
        // large transaction does not end in time; then the stream that goes on ends it.
        if let Err(error) = stream.stop().await {
            tracing::debug!(node = %self.node, %error, "the server goes on sending");
        }
        Ok(self.rerun)
    }

    fn read(&mut self, at: Lsn, payload: Bytes) -> Result<Read, LinkError> {
        let node = || self.node.clone();
        let message = pgoutput::decode(payload, false).map_err(|source| LinkError::Decode {
            node: node(),
            source,
        })?;
        if matches!(message, Message::Begin { final_lsn, .. } if final_lsn >= self.missed.to) {
            return Ok(Read::Everything);
        }
        let Some(message) = self.rerun.take(message) else {
            return Ok(Read::Nothing);
        };
        self.assembler.source_had_seen(self.seen.at(at));
        let assembled = self.assembler.feed(message);
        let assembled = assembled.map_err(|source| LinkError::Assemble {
            node: node(),
            source,
        })?;
        Ok(match assembled {
            Assembled::Piece(piece) => Read::Piece(piece),
            Assembled::Skipped { end } if end.end_lsn >= self.missed.to => Read::Everything,
            _ => Read::Nothing,
        })
    }

    /// Waits for room; the server must hear of us meanwhile. False when the applier has gone.
    async fn pass_on(
        &self,
        piece: Piece,
        stream: &mut ReplicationStream,
    ) -> Result<bool, LinkError> {
        loop {
            tokio::select! {
                permit = self.pieces.reserve() => {
                    return Ok(permit.map(|permit| permit.send(piece)).is_ok());
                }
                () = tokio::time::sleep(FEEDBACK_EVERY) => self.report(stream).await?,
            }
        }
    }

    /// Nothing is confirmed by this.
    async fn report(&self, stream: &mut ReplicationStream) -> Result<(), LinkError> {
        let sent = report(stream, self.missed.read_from).await;
        sent.map_err(|source| self.lost(source))
    }

    fn lost(&self, source: WireError) -> LinkError {
        LinkError::Node {
            node: self.node.clone(),
            source,
        }
    }
}

/// What a message has brought.
enum Read {
    Nothing,
    Piece(Piece),
    /// What follows lies behind.
    Everything,
}
