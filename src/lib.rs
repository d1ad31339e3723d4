//! Active-active replication for stock PostgreSQL.
#![forbid(unsafe_code)]

pub mod commit_time;
pub mod config;
pub mod error;
pub mod ids;
pub mod lsn;
pub mod wire;
