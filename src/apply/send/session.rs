//! The session that writes what other nodes wrote.

use crate::apply::send::give_way::give_way;
use crate::apply::sql::strict::COUNT_FROM_NOTHING;
use crate::config::conninfo::ConnInfo;
use crate::wire::settings::APPLYING;
use crate::wire::{Session, WireError};

/// Opens one that waits for a lock no longer than `lock_timeout`, so that a lock that never comes
/// is an error, which is shown and tried again.
pub async fn apply_session(
    info: &ConnInfo,
    application_name: &str,
    lock_timeout: &str,
) -> Result<Session, WireError> {
    let mut settings = APPLYING.to_vec();
    settings.push(("lock_timeout", lock_timeout));
    let mut session = Session::connect(info, application_name, &settings).await?;
    give_way(&mut session).await?;
    session.simple(COUNT_FROM_NOTHING).await?;
    Ok(session)
}
