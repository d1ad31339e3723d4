//! Rows that come to a server by another way than this program: subscriptions, other replicators.

use tokio_postgres::Client;

use super::CatalogError;
use crate::lsn::Lsn;
use crate::wire::{RowExt, each};

/// Subscriptions of this database, and origins that are neither ours nor those of subscriptions of
/// other databases.
const NAMES: &str = "
    select pg_catalog.format('subscription %s', s.subname)
    from pg_catalog.pg_subscription s join pg_catalog.pg_database d on d.oid = s.subdbid
    where d.datname = pg_catalog.current_database()
    union all
    select pg_catalog.format('replication origin %s', o.roname)
    from pg_catalog.pg_replication_origin o
    where o.roname !~ '^mmrepl_' and not exists (
        select from pg_catalog.pg_subscription s
        where o.roname ~ ('^pg_' || s.oid || '(_|$)'))
    order by 1 desc limit 5";

/// What may write here in the name of a server outside of the cluster, in words.
pub async fn read_foreign(client: &Client) -> Result<Vec<String>, CatalogError> {
    let rows = client.query(NAMES, &[]).await;
    let rows = rows.map_err(CatalogError::query(
        "read subscriptions and replication origins",
    ))?;
    Ok(each(&rows, |row| row.read(0))?)
}

/// The subscriptions of the database, in words.
pub async fn read_subscriptions(client: &Client) -> Result<Vec<String>, CatalogError> {
    let mut found = read_foreign(client).await?;
    found.retain(|writer| writer.starts_with("subscription "));
    Ok(found)
}

/// Which transactions of a server are to be looked at next: nothing is known of how they ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unjudged {
    /// Those that were running.
    running: Vec<String>,
    /// From this one on none had begun.
    next: i64,
    /// The end of the server's WAL by then.
    pub wal_end: Lsn,
}

/// A look at the transactions that ended since an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// What they were.
    pub found: Found,
    /// What is to be looked at next.
    pub unjudged: Unjudged,
}

/// Whose transactions ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// All are the server's own, or the cluster's.
    Nothing,
    /// One was written in the name of a server outside of the cluster.
    Foreign,
    /// There are so many that looking would take long.
    TooMany,
}

/// Most transactions that are looked at one by one.
const JUDGED_MAX: i64 = 1_000_000;

/// Everything that a slot may still bring may be older than what is known; its oldest transaction
/// is the one that its catalog horizon names.
const SINCE_SLOT: &str = "
    select x.next - coalesce(pg_catalog.age(s.catalog_xmin), 0)
    from (select pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::int8) x (next)
    left join pg_catalog.pg_replication_slots s on s.slot_name = $1";

/// A number below 3 belongs to no transaction, after each turn of the counter. Origins of other
/// databases' subscriptions write there, and ours of any cluster are ours.
const JUDGE: &str = "
    with now as (
        select s.s as snapshot, pg_catalog.pg_snapshot_xmax(s.s)::text::int8 as next,
               array(select r::text from pg_catalog.pg_snapshot_xip(s.s) r) as running
        from (select pg_catalog.pg_current_snapshot()) s (s)
    ), ended as (
        select r::int8 % 4294967296 as xid from now, pg_catalog.unnest($1::text[]) r
        where r <> all (now.running)
        union all
        select x % 4294967296 from now, pg_catalog.generate_series(
            case when now.next - $2::int8 > $3::int8 then now.next else $2 end, now.next - 1) x
        where x::text <> all (now.running)
    ), of_others as (
        select from (
            select case when pg_catalog.current_setting('track_commit_timestamp') = 'on' then (
                       select o.roident from pg_catalog.pg_xact_commit_timestamp_origin(
                           e.xid::text::pg_catalog.xid) o) end
            from ended e where e.xid > 2) w (origin)
        where w.origin <> 0 and not exists (
            select from pg_catalog.pg_replication_origin n
            where n.roident = w.origin and (n.roname ~ '^mmrepl_' or exists (
                select from pg_catalog.pg_subscription s
                join pg_catalog.pg_database d on d.oid = s.subdbid
                where d.datname <> pg_catalog.current_database()
                  and n.roname ~ ('^pg_' || s.oid || '(_|$)'))))
        limit 1
    )
    select exists (select from of_others), now.running, now.next,
           pg_catalog.pg_current_wal_insert_lsn()::text, now.next - $2 > $3
    from now";

/// The transactions that `slot` may still bring.
pub async fn since_slot(client: &Client, slot: &str) -> Result<Unjudged, CatalogError> {
    let row = client.query_one(SINCE_SLOT, &[&slot]).await;
    let row = row.map_err(CatalogError::query("read a slot's oldest transaction"))?;
    Ok(Unjudged {
        running: Vec::new(),
        next: row.read(0)?,
        wal_end: Lsn::ZERO,
    })
}

/// Looks at what has ended.
pub async fn judge(client: &Client, unjudged: &Unjudged) -> Result<Judged, CatalogError> {
    let Unjudged { running, next, .. } = unjudged;
    let row = client.query_one(JUDGE, &[running, next, &JUDGED_MAX]).await;
    let row = row.map_err(CatalogError::query(
        "look for transactions of other replicators",
    ))?;
    let (found, too_many): (bool, bool) = (row.read(0)?, row.read(4)?);
    Ok(Judged {
        found: if found {
            Found::Foreign
        } else if too_many {
            Found::TooMany
        } else {
            Found::Nothing
        },
        unjudged: Unjudged {
            running: row.read(1)?,
            next: row.read(2)?,
            wal_end: CatalogError::parse("pg_current_wal_insert_lsn", row.read(3)?)?,
        },
    })
}
