//! Active-active replication for stock PostgreSQL.
#![forbid(unsafe_code)]

pub mod catalog;
pub mod check;
pub mod commit_time;
pub mod config;
pub mod error;
pub mod ids;
pub mod init;
pub mod lsn;
pub mod migrate;
pub mod wire;
