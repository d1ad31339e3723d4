//! What is on its way to the target: the group being filled, and groups not answered yet. Pure.
//!
//! A lone transaction goes out at once. While something is on its way, whole transactions gather
//! until they are a full group, and full groups follow one another without waiting for answers. So
//! a quiet link answers as fast as it can, a busy one sends few large groups, and the way to a
//! distant target is filled.

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use tokio::time::Instant;

use super::dispatch::{Chosen, Open, Room, Spread, worker_for};
use super::queue::{Charge, Waiting};
use crate::apply::{Sent, Touched};
use crate::assemble::Piece;
use crate::commit_time::CommitTime;
use crate::failpoint::group_rows;

/// Most rows in one target transaction made of several source transactions. The more there are, the
/// fewer times the server cleans up a page that several of them are on: of an update's cost that is
/// two fifths.
pub const GROUP_ROWS_MAX: usize = 8_000;
/// As many as a link begins with.
const GROUP_ROWS_FIRST: usize = 2_000;
/// Groups that fail are not made smaller than this.
const GROUP_ROWS_FAILED_MIN: usize = 200;
/// Most wire bytes in one such transaction.
const GROUP_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Most full groups on their way: at 100 ms there and back still 160,000 rows a second.
const GROUPS_IN_FLIGHT_MAX: usize = 8;
/// So many rows go to the target without an answer. Each group ends with a whole transaction and
/// may go beyond its share by that one; what the queue may hold is the limit of all.
pub const WINDOW_ROWS: usize = GROUPS_IN_FLIGHT_MAX * GROUP_ROWS_MAX;
/// Most wire bytes on their way; a group may go beyond.
const BYTES_IN_FLIGHT_MAX: usize = 6 * 1024 * 1024;

/// Whole transactions for one target transaction, or a part of a large one.
#[derive(Default)]
pub(super) struct Group {
    /// In the order of the stream.
    pub pieces: Vec<Piece>,
    /// Their share of the queue.
    pub charge: Charge,
    rows: usize,
    bytes: usize,
    part: bool,
}

impl Group {
    /// A part of a large transaction, or a transaction that ends one.
    pub(super) fn is_part(&self) -> bool {
        self.part
    }

    /// Each transaction by itself; the last one has the share of all.
    pub(super) fn apart(self) -> Vec<Self> {
        let alone = |piece: Piece| Self {
            rows: piece.changes.len(),
            bytes: piece.bytes,
            part: !is_whole(&piece),
            pieces: vec![piece],
            charge: Charge::default(),
        };
        let mut groups: Vec<Self> = self.pieces.into_iter().map(alone).collect();
        if let Some(last) = groups.last_mut() {
            last.charge = self.charge;
        }
        groups
    }

    fn add(&mut self, waiting: Waiting) {
        let (piece, share) = waiting.split();
        self.rows += piece.changes.len();
        self.bytes += piece.bytes;
        self.part |= !is_whole(&piece);
        self.pieces.push(piece);
        self.charge.add(share);
    }
}

/// A group that was sent.
pub(super) struct Flight {
    /// What was sent.
    pub group: Group,
    /// How to ask for the answer.
    pub sent: Sent,
    /// On which session, the first being 0.
    pub worker: usize,
    /// Which rows it writes.
    pub touched: Touched,
    /// When it was sent.
    pub since: Instant,
}

/// The group being filled and those on their way.
pub(super) struct Window {
    rows_max: usize,
    filling: Group,
    /// What comes next does not fit in.
    closed: bool,
    flights: VecDeque<Flight>,
    bytes: usize,
    spread: Spread,
    room: Room,
}

impl Window {
    /// Nothing is on its way.
    pub(super) fn new() -> Self {
        Self {
            rows_max: group_rows(GROUP_ROWS_FIRST),
            filling: Group::default(),
            closed: false,
            flights: VecDeque::new(),
            bytes: 0,
            spread: Spread::new(),
            room: Room::default(),
        }
    }

    /// Adds a piece to the group being filled; gives it back where it must wait for the next.
    pub(super) fn add(&mut self, waiting: Waiting) -> Option<Waiting> {
        let filling = &self.filling;
        let joins = is_whole(&waiting.piece) && !filling.is_part();
        if !filling.pieces.is_empty() && !joins {
            self.closed = true;
            return Some(waiting);
        }
        self.filling.add(waiting);
        None
    }

    /// Nothing more fits into the group being filled.
    pub(super) fn is_full(&self) -> bool {
        let filling = &self.filling;
        let large = filling.rows >= self.room.of(self.rows_max) || filling.bytes >= GROUP_BYTES_MAX;
        !filling.pieces.is_empty() && (self.closed || large || filling.is_part())
    }

    /// The group being filled, whatever is on its way.
    pub(super) fn rest(&mut self) -> Option<Group> {
        self.closed = false;
        let group = mem::take(&mut self.filling);
        (!group.pieces.is_empty()).then_some(group)
    }

    /// The group being filled, if it is to go now.
    pub(super) fn next(&mut self) -> Option<Group> {
        let room = self.flights.len() < GROUPS_IN_FLIGHT_MAX && self.bytes < BYTES_IN_FLIGHT_MAX;
        let goes = self.flights.is_empty() || (self.is_full() && room);
        if !goes || self.filling.pieces.is_empty() {
            return None;
        }
        self.closed = false;
        Some(mem::take(&mut self.filling))
    }

    /// A group was sent.
    pub(super) fn sent(&mut self, flight: Flight) {
        self.bytes += flight.group.bytes;
        self.flights.push_back(flight);
    }

    /// The oldest that is on its way.
    pub(super) fn land(&mut self) -> Option<Flight> {
        let flight = self.flights.pop_front()?;
        self.bytes -= flight.group.bytes;
        Some(flight)
    }

    /// The session, out of so many, for a group that writes `touched`.
    pub(super) fn worker_for(&self, touched: &Touched, workers: usize) -> Chosen {
        let open = self.flights.iter().map(|flight| Open {
            worker: flight.worker,
            touched: &flight.touched,
            rows: flight.group.rows,
        });
        worker_for(touched, open, (workers, self.spread))
    }

    /// A group met one that was on its way, or none.
    pub(super) fn met(&mut self, met: bool) {
        self.room.note(met, self.rows_max);
    }

    /// A group took so long after the one before.
    pub(super) fn took(&mut self, time: Duration) {
        self.spread.took(time);
    }

    /// The session of the oldest group that is on its way.
    pub(super) fn oldest_worker(&self) -> usize {
        self.flights.front().map_or(0, |flight| flight.worker)
    }

    /// How many sessions have something on their way.
    pub(super) fn busy_workers(&self) -> usize {
        let bits = self.flights.iter().map(|flight| 1_u32 << flight.worker);
        bits.fold(0, |all, bit| all | bit).count_ones() as usize
    }

    /// Something is on its way.
    pub(super) fn is_waiting(&self) -> bool {
        !self.flights.is_empty()
    }

    /// Nothing is on its way or about to go.
    pub(super) fn is_idle(&self) -> bool {
        self.flights.is_empty() && self.filling.pieces.is_empty()
    }

    /// When the oldest transaction here was committed on the source.
    pub(super) fn oldest(&self) -> Option<CommitTime> {
        let sent = self.flights.iter().map(|flight| &flight.group);
        let mut groups = sent.chain(std::iter::once(&self.filling));
        let first = groups.find_map(|group| group.pieces.first());
        first.map(|piece| piece.header.commit_time)
    }

    /// How many rows a group may have from now on.
    pub(super) fn set_rows_max(&mut self, rows: usize) {
        self.rows_max = rows.clamp(1, group_rows(GROUP_ROWS_MAX));
    }

    /// A group has failed as a whole: the next ones are smaller, so that less has to be done again.
    pub(super) fn failed(&mut self) {
        let fewer = self.rows_max / 4;
        self.set_rows_max(fewer.max(GROUP_ROWS_FAILED_MIN.min(self.rows_max)));
    }

    /// How many rows a group may have.
    pub(super) fn rows_max(&self) -> usize {
        self.rows_max
    }
}

/// A transaction that is all in one piece.
pub(super) fn is_whole(piece: &Piece) -> bool {
    piece.first && piece.end.is_some()
}
