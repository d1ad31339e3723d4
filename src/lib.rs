//! Active-active replication for stock PostgreSQL.
#![forbid(unsafe_code)]

pub mod commit_time;
pub mod demo;
pub mod error;
pub mod failpoint;
pub mod ids;
pub mod local;
pub mod lsn;
