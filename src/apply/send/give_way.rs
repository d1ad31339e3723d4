//! Who gives way when our session and local writers wait for each other's rows in a circle.
//!
//! The server ends a circle at the cost of the session that looks first: one that has waited for
//! `deadlock_timeout` (manual 19.12), a second by default. What we apply can be applied again, an
//! application's transaction often cannot; so our sessions look much earlier than theirs.

use crate::catalog::parameter::{DEADLOCK_TIMEOUT, may_set};
use crate::wire::{Session, WireError};

/// Makes a session the one that gives way, where its role may set that and the server does not
/// look earlier by itself.
pub(in crate::apply) async fn give_way(session: &mut Session) -> Result<(), WireError> {
    let allowed = may_set(DEADLOCK_TIMEOUT, session.server_version());
    let sql = format!(
        "select case when {allowed} and setting::int4 > 100
                then pg_catalog.set_config(name, '100ms', false) end
         from pg_catalog.pg_settings where name = '{DEADLOCK_TIMEOUT}'"
    );
    session.simple(&sql).await.map(drop)
}
