//! Active-active replication for stock PostgreSQL.
#![forbid(unsafe_code)]

pub mod admin;
pub mod checkpoint;
pub mod commit_time;
pub mod error;
pub mod ids;
pub mod lsn;
pub mod metrics;
pub mod status;
