//! What opens and ends a target transaction.

/// Opens a target transaction, whatever the server's defaults are.
pub(in crate::apply) const BEGIN: &str = "begin isolation level read committed read write";

/// A statement with its parameters as text.
pub(in crate::apply) type Prepared = (&'static str, Vec<String>);

/// Commits, and asks where the target's WAL is and how far it is flushed.
pub(in crate::apply) const COMMIT: [Prepared; 2] = [
    ("commit", vec![]),
    (
        "select pg_current_wal_insert_lsn()::text, pg_current_wal_flush_lsn()::text",
        vec![],
    ),
];

/// Ends a transaction, and forgets the commit time that was set for it.
pub(in crate::apply) const ROLL_BACK: &str =
    "rollback; select pg_catalog.pg_replication_origin_xact_reset()
    where pg_catalog.pg_replication_origin_session_is_setup()";

/// Leaves the origin that the session is on, if it is on one.
pub(in crate::apply) const LEAVE_ORIGIN: &str =
    "select pg_catalog.pg_replication_origin_session_reset()
    where pg_catalog.pg_replication_origin_session_is_setup()";
