//! What a server says about itself: identity, version, settings, free slots.

use tokio_postgres::Client;

use super::CatalogError;
use crate::ids::{SystemId, TimelineId};
use crate::wire::RowExt;

/// Identity and settings of one server and database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Made by `initdb`; the same on a server and its physical copies.
    pub system_id: SystemId,
    /// Raised by a fail-over or a point-in-time restore.
    pub timeline: TimelineId,
    /// `server_version_num`: 160014.
    pub version: u32,
    /// The database.
    pub database: String,
    /// The role that mmrepl uses.
    pub user: String,
    /// Whether that role is a superuser.
    pub superuser: bool,
    /// Whether the server only replays (a hot standby).
    pub in_recovery: bool,
    /// The database's encoding: `UTF8`.
    pub encoding: String,
    /// `wal_level`.
    pub wal_level: String,
    /// `track_commit_timestamp`.
    pub track_commit_timestamp: bool,
    /// `max_slot_wal_keep_size` as `show` prints it; `-1` is no limit.
    pub max_slot_wal_keep_size: String,
    /// `idle_replication_slot_timeout` in seconds (18 and newer), 0 is off.
    pub idle_slot_timeout_s: i64,
    /// What is left of each limited resource.
    pub room: Room,
}

/// Limited resources of replication: the limit and how much of it is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// `max_replication_slots`.
    pub slots_max: i64,
    /// Slots that exist.
    pub slots_used: i64,
    /// `max_wal_senders`.
    pub senders_max: i64,
    /// Connections that stream now.
    pub senders_used: i64,
    /// `max_active_replication_origins` (18), before that `max_replication_slots`.
    pub origins_max: i64,
    /// Origins that exist.
    pub origins_used: i64,
}

impl Server {
    /// What tells it from another one, in words; nothing where both are one server and database.
    pub fn difference(&self, other: &Self) -> Option<String> {
        if self.system_id != other.system_id {
            let (here, there) = (self.system_id, other.system_id);
            return Some(format!("system identifiers {here} and {there}"));
        }
        if self.database != other.database {
            return Some("two databases".to_owned());
        }
        if self.timeline != other.timeline {
            let (here, there) = (self.timeline.0, other.timeline.0);
            return Some(format!(
                "timelines {here} and {there} of one server's history"
            ));
        }
        (self.in_recovery != other.in_recovery).then(|| "one is a standby of the other".to_owned())
    }

    /// The major version: 16.
    pub fn major(&self) -> u32 {
        self.version / 10_000
    }
}

/// The timeline is read from the name of the WAL file in use: the control file keeps the old one
/// between a promotion and the next checkpoint.
const SERVER: &str = "
select (pg_catalog.pg_control_system()).system_identifier,
       case when pg_catalog.pg_is_in_recovery()
            then (pg_catalog.pg_control_checkpoint()).timeline_id
            else ('x' || substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8)
                 )::bit(32)::int4
       end,
       pg_catalog.current_setting('server_version_num')::int4,
       pg_catalog.current_database()::text, current_user::text,
       (select rolsuper from pg_catalog.pg_roles where rolname = current_user),
       pg_catalog.pg_is_in_recovery(),
       (select pg_catalog.pg_encoding_to_char(encoding)::text from pg_catalog.pg_database
        where datname = pg_catalog.current_database()),
       pg_catalog.current_setting('wal_level'),
       pg_catalog.current_setting('track_commit_timestamp') = 'on',
       pg_catalog.current_setting('max_slot_wal_keep_size'),
       coalesce((select setting::int8 from pg_catalog.pg_settings
                 where name = 'idle_replication_slot_timeout'), 0),
       pg_catalog.current_setting('max_replication_slots')::int8,
       (select pg_catalog.count(*) from pg_catalog.pg_replication_slots),
       pg_catalog.current_setting('max_wal_senders')::int8,
       (select pg_catalog.count(*) from pg_catalog.pg_stat_replication),
       coalesce(pg_catalog.current_setting('max_active_replication_origins', true),
                pg_catalog.current_setting('max_replication_slots'))::int8,
       (select pg_catalog.count(*) from pg_catalog.pg_replication_origin)";

/// Asks the server about itself.
pub async fn read_server(client: &Client) -> Result<Server, CatalogError> {
    let row = client.query_one(SERVER, &[]).await;
    let row = row.map_err(CatalogError::query("read the server's settings"))?;
    let (system, timeline, version): (i64, i32, i32) = (row.read(0)?, row.read(1)?, row.read(2)?);
    Ok(Server {
        system_id: SystemId(system.cast_unsigned()),
        timeline: TimelineId(timeline.cast_unsigned()),
        version: version.cast_unsigned(),
        database: row.read(3)?,
        user: row.read(4)?,
        superuser: row.read::<Option<bool>>(5)?.unwrap_or(false),
        in_recovery: row.read(6)?,
        encoding: row.read(7)?,
        wal_level: row.read(8)?,
        track_commit_timestamp: row.read(9)?,
        max_slot_wal_keep_size: row.read(10)?,
        idle_slot_timeout_s: row.read(11)?,
        room: Room {
            slots_max: row.read(12)?,
            slots_used: row.read(13)?,
            senders_max: row.read(14)?,
            senders_used: row.read(15)?,
            origins_max: row.read(16)?,
            origins_used: row.read(17)?,
        },
    })
}
