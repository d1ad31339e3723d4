//! PostgreSQL's frontend protocol, version 3.0, as far as replication needs it (manual 55).
//!
//! ```text
//! ConnInfo ─▶ connect ─▶ stream (TCP, socket, TLS) ─▶ startup (login, pinned settings)
//!                                                        │
//!             replication: CopyBoth, one change stream ◀─┼─▶ session: batches of statements
//!                                                        │
//!             control: tokio-postgres over the same stream, for everything that is not hot
//! ```
//! One task drives a connection; reading always comes before writing (see `connection`).

pub mod answer;
mod auth;
pub mod batch;
mod cache;
mod certificate;
mod change_stream;
mod codec;
mod connect;
mod connection;
pub mod control;
pub mod error;
mod open;
pub mod outcome;
mod redact;
pub mod replication;
pub mod session;
pub mod settings;
mod startup;
pub mod stream;
mod tls;

pub use answer::{RowExt, Unread, each};
pub use batch::BatchError;
pub use change_stream::{Frame, ReplicationStream, StandbyStatus};
pub use connect::open;
pub use connection::TransactionStatus;
pub use control::{control, from_tokio_postgres};
pub use error::{ServerError, WireError};
pub use outcome::Outcome;
pub use replication::{CreatedSlot, PgoutputOptions, ReplicationConnection, Streaming, SystemInfo};
pub use session::{Batch, Pending, Session};
pub use stream::{Room, Stream};
