//! Active-active replication for stock PostgreSQL.
#![forbid(unsafe_code)]

pub mod assemble;
pub mod backoff;
pub mod catalog;
pub mod checkpoint;
pub mod commit_time;
pub mod config;
pub mod error;
pub mod ids;
pub mod local;
pub mod lsn;
pub mod pgoutput;
pub mod relation;
pub mod migrate;
pub mod wire;
