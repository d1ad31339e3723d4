//! Asks two servers what [`super::judge`] needs to know.
//!
//! A link goes on while it is asked about, and each answer is older than the next. So the order
//! matters: first what must not lie beyond a position (what was known to be flushed, the slot),
//! then the position, then what it must not lie beyond (the witness, the end of the WAL).

use tokio_postgres::Client;

use super::{EndFacts, Known, LinkFacts, Pair, Proof};
use crate::catalog::CatalogError;
use crate::catalog::dropped::read_dropped;
use crate::catalog::position::{Position, Witness, read_position};
use crate::catalog::server::read_server;
use crate::catalog::slots::slot_state;
use crate::catalog::wal;
use crate::checkpoint::Checkpoint;
use crate::commit_time::CommitTime;
use crate::error::Retryable;
use crate::ids::{ClusterName, LinkName, NodeName, SystemId, slot_name};
use crate::wire::RowExt;

/// The table or the schema does not exist (manual appendix A).
const NOT_SET_UP: [&str; 2] = ["42P01", "3F000"];

/// Both ends of `link` and both directions between them.
pub async fn read_pair(
    cluster: &ClusterName,
    link: &LinkName,
    (source, target): (&Client, &Client),
) -> Result<Pair, CatalogError> {
    let back = LinkName {
        from: link.to.clone(),
        to: link.from.clone(),
    };
    let forward = read_link(cluster, link, (source, target)).await?;
    let backward = read_link(cluster, &back, (target, source)).await?;
    Ok(Pair {
        from: read_end(&link.from, source).await?,
        to: read_end(&link.to, target).await?,
        forward,
        backward,
    })
}

/// What a server says about itself.
pub async fn read_end(node: &NodeName, client: &Client) -> Result<EndFacts, CatalogError> {
    let server = read_server(client).await?;
    let here = client
        .query_opt("select name, system_id from mmrepl.node where here", &[])
        .await;
    let here = here.map_err(CatalogError::query("read mmrepl.node"));
    let here = or_not_set_up(here)?;
    let set_up_on = match &here {
        Some(row) => {
            let text = row.read(1)?;
            let number = CatalogError::parse("mmrepl.node.system_id", text)?;
            Some(SystemId(number))
        }
        None => None,
    };
    Ok(EndFacts {
        node: node.clone(),
        system_id: server.system_id,
        timeline: server.timeline,
        database: server.database,
        flushed: wal::flushed(client).await?,
        here: here.map(|row| row.read(0)).transpose()?,
        set_up_on,
        dropped: or_not_set_up(read_dropped(client).await)?,
    })
}

/// One direction.
pub async fn read_link(
    cluster: &ClusterName,
    link: &LinkName,
    (source, target): (&Client, &Client),
) -> Result<LinkFacts, CatalogError> {
    let known = known(source, link).await?;
    let slot_name = slot_name(cluster, &link.to);
    let slot = slot_state(source, &slot_name).await?;
    let position = or_not_set_up(read_position(target, &link.from).await)?;
    Ok(LinkFacts {
        proof: prove(source, position.as_ref()).await?,
        known,
        slot_name,
        position,
        slot,
        // The slot itself says so as soon as it meets the first such change.
        predates_publication: false,
    })
}

/// What the source says of the transaction that a position names as its witness. A commit time
/// that is not kept any more proves nothing: those of frozen transactions go, and all go while
/// `track_commit_timestamp` is off.
const PROVE: &str = "
select (extract(epoch from case when t.tracked
            then pg_catalog.pg_xact_commit_timestamp(t.x) end) * 1000000)::int8 - 946684800000000,
       t.tracked and t.oldest::text <> '0' and pg_catalog.age(t.x) <= pg_catalog.age(t.oldest)
           and pg_catalog.age(t.x) < (select pg_catalog.max(pg_catalog.age(d.datfrozenxid))
                                      from pg_catalog.pg_database d)
from (select $1::text::pg_catalog.xid as x,
             pg_catalog.current_setting('track_commit_timestamp') = 'on' as tracked,
             (pg_catalog.pg_control_checkpoint()).oldest_commit_ts_xid as oldest) t";

/// Asks the source whether it still has the witness of `position`.
pub async fn prove(source: &Client, position: Option<&Position>) -> Result<Proof, CatalogError> {
    prove_witness(source, position.and_then(|position| position.witness)).await
}

/// What a daemon remembers, with what the source says of it now.
pub async fn recall(source: &Client, kept: &Checkpoint) -> Result<Known, CatalogError> {
    Ok(Known {
        durable: kept.position,
        began: kept.began,
        proof: prove_witness(source, kept.witness).await?,
    })
}

async fn prove_witness(source: &Client, witness: Option<Witness>) -> Result<Proof, CatalogError> {
    let Some(witness) = witness else {
        return Ok(Proof::Unknown);
    };
    let xid = witness.xid.to_string();
    let row = source.query_one(PROVE, &[&xid]).await;
    let row = row.map_err(CatalogError::query("look for the last applied transaction"))?;
    let time: Option<i64> = row.read(0)?;
    let kept: bool = row.read(1)?;
    Ok(match time.map(CommitTime::from_postgres_micros) {
        Some(time) if time == witness.time => Proof::Holds,
        Some(_) => Proof::Fails,
        None if kept => Proof::Fails,
        None => Proof::Unknown,
    })
}

/// What the source remembers that the target had flushed.
pub async fn known(source: &Client, link: &LinkName) -> Result<Vec<Known>, CatalogError> {
    or_not_set_up(read_known(source, link).await)
}

async fn read_known(source: &Client, link: &LinkName) -> Result<Vec<Known>, CatalogError> {
    let sql = "select durable::text,
                      (extract(epoch from began) * 1000000)::int8 - 946684800000000
               from mmrepl.link_memory
               where link = $1 and durable is not null and began is not null";
    let rows = source.query(sql, &[&link.to_string()]).await;
    let rows = rows.map_err(CatalogError::query("read what is remembered of the link"))?;
    let known = |row: &tokio_postgres::Row| {
        Ok(Known {
            durable: CatalogError::parse("mmrepl.link_memory.durable", row.read(0)?)?,
            began: CommitTime::from_postgres_micros(row.read(1)?),
            proof: Proof::Unknown,
        })
    };
    rows.iter().map(known).collect()
}

/// Keeps on the source what was flushed on the target once, so that whoever looks later, without
/// the daemon's own memory, comes to the same verdict.
pub async fn remember(source: &Client, link: &LinkName, known: Known) -> Result<(), CatalogError> {
    let sql = "insert into mmrepl.link_memory as m (link, durable, began)
               values ($1, $2::text::pg_catalog.pg_lsn, $3::text::timestamptz)
               on conflict (link) do update set durable = excluded.durable, began = excluded.began
               where m.durable is distinct from excluded.durable
                  or m.began is distinct from excluded.began";
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [
        &link.to_string(),
        &known.durable.to_string(),
        &known.began.to_string(),
    ];
    let kept = source.execute(sql, &values).await;
    kept.map(drop)
        .map_err(CatalogError::query("remember what the link had"))
}

/// Commits a transaction on the source and gives its number and time: whoever finds it there later
/// knows that everything before is there, too.
pub async fn make_witness(
    source: &Client,
    link: &LinkName,
) -> Result<Option<Witness>, CatalogError> {
    let failed = || CatalogError::query("leave a mark of the link");
    let name = crate::catalog::names::literal(&link.to_string());
    let sql = format!(
        "begin; set local synchronous_commit = local;
         insert into mmrepl.link_memory (link, marked_at)
             values ({name}, pg_catalog.clock_timestamp())
             on conflict (link) do update set marked_at = excluded.marked_at
             returning pg_catalog.pg_current_xact_id()::pg_catalog.xid;
         commit"
    );
    let answers = source.simple_query(&sql).await.map_err(failed())?;
    let xid = answers.iter().find_map(|answer| match answer {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.try_get(0).ok()?.map(str::to_owned),
        _ => None,
    });
    let xid = xid.unwrap_or_default();
    let time = "select (extract(epoch from pg_catalog.pg_xact_commit_timestamp($1::text::xid))
                        * 1000000)::int8 - 946684800000000";
    let row = source.query_one(time, &[&xid]).await.map_err(failed())?;
    let xid = CatalogError::parse("pg_current_xact_id", &xid)?;
    let time: Option<i64> = row.read(0)?;
    Ok(time.map(|time| Witness {
        xid,
        time: CommitTime::from_postgres_micros(time),
    }))
}

/// A server without mmrepl's tables has nothing to say, which is no failure to ask.
fn or_not_set_up<T: Default>(answer: Result<T, CatalogError>) -> Result<T, CatalogError> {
    let missing = |error: &CatalogError| {
        error
            .sqlstate()
            .is_some_and(|state| NOT_SET_UP.contains(&state))
    };
    match answer {
        Err(error) if missing(&error) => Ok(T::default()),
        answer => answer,
    }
}
