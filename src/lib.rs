//! Active-active replication for stock PostgreSQL.
#![forbid(unsafe_code)]

pub mod assemble;
pub mod backoff;
pub mod commit_time;
pub mod error;
pub mod ids;
pub mod lsn;
pub mod pgoutput;
pub mod relation;
