//! Active-active replication for stock PostgreSQL.
//!
//! One daemon runs beside each primary, reads that primary's `pgoutput` stream and applies it to
//! every peer. The way of the data, one link `east->west`:
//!
//! ```text
//! east's server                                                                     west's server
//!     │  CopyBoth                                                                        ▲
//!     ▼                                                                                  │ SQL
//! wire::replication ─▶ pgoutput ─▶ assemble ─▶ link::queue ─▶ apply::plan ─▶ apply::send, settle
//!     ▲   frames        messages    pieces       bounded       net change        │  conflict
//!     │                                                        per key           ▼
//!     └── feedback ◀── link::checkpointing ◀── link::progress ◀────────────── committed
//!                       sled, flushed            flushed on west
//! ```
//!
//! Invariants that everything else rests on:
//!
//! 1. The position of a link is one row on the target, updated in the transaction that writes the
//!    data ([`apply`]). Nothing else decides where a link goes on.
//! 2. A position is confirmed to the source only after it is flushed on the target and remembered
//!    in the checkpoint store, in this order ([`link`]).
//! 3. Only what was written on a node is sent from it ([`assemble`], `origin`).
//! 4. For one key the newest version wins, on every node ([`conflict`]).
//!
//! Pure, without sockets, clocks or async: [`pgoutput`], [`assemble`], [`relation`], [`conflict`],
//! [`lsn`], [`ids`], and in `apply` the grouping and the SQL text.
//!
//! Around it: [`config`], [`wire`] (our own protocol client), [`catalog`] (what servers say about
//! themselves), [`checkpoint`] (sled), [`status`], [`admin`] (HTTP), [`init`] and [`check`]
//! (set-up), [`damage`] (to what was set up), [`lineage`] (are servers still what they were),
//! [`history`] (of conflicts), [`housekeeping`] (tombstones, looking for damage), [`supervisor`]
//! (the daemon), [`cli`], [`local`] and [`demo`] (real servers on this machine).
#![forbid(unsafe_code)]

pub mod admin;
pub mod apply;
pub mod assemble;
pub mod backoff;
pub mod catalog;
pub mod check;
pub mod checkpoint;
pub mod cli;
pub mod commit_time;
pub mod config;
pub mod conflict;
pub mod damage;
pub mod demo;
pub mod error;
pub mod failpoint;
pub mod fault;
pub mod history;
pub mod housekeeping;
pub mod ids;
pub mod init;
pub mod lineage;
pub mod link;
pub mod local;
pub mod lock_wait;
pub mod lsn;
pub mod metrics;
pub mod migrate;
pub mod pgoutput;
pub mod relation;
pub mod status;
pub mod supervisor;
pub mod text;
pub mod verify;
pub mod wire;
