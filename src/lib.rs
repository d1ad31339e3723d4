//! Active-active replication for stock PostgreSQL.
#![forbid(unsafe_code)]

pub mod admin;
pub mod assemble;
pub mod catalog;
pub mod checkpoint;
pub mod commit_time;
pub mod config;
pub mod error;
pub mod ids;
pub mod local;
pub mod lsn;
pub mod metrics;
pub mod migrate;
pub mod pgoutput;
pub mod relation;
pub mod status;
pub mod wire;
