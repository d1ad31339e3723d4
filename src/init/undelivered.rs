//! What a node has written and another one has not applied, read from the link's slot.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::InitError;
use super::session::{self, Session};
use crate::catalog::foreign::{Found, judge, since_slot};
use crate::catalog::names::readable;
use crate::catalog::position::read_position;
use crate::catalog::slots::{ORIGIN_OPTION_SINCE, peek, slot_state};
use crate::config::Config;
use crate::ids::{LinkName, RelationId, origin_prefix, slot_name};
use crate::lsn::Lsn;
use crate::pgoutput::{Message, decode};
use crate::wire::RowExt;

/// How many changes are looked at; then there are more.
const CHANGES_MAX: i32 = 2_000;
/// How many messages are looked at where most of them may be what the cluster itself wrote there.
const MIXED_MAX: i32 = 500_000;

/// Rows by table.
#[derive(Debug, Default, PartialEq, Eq)]
struct Undelivered {
    rows: BTreeMap<String, u64>,
}

/// Whether a daemon streams the link.
pub(super) async fn is_streaming(
    config: &Config,
    link: &LinkName,
    sessions: &[Session],
) -> Result<bool, InitError> {
    let source = session::of(sessions, &link.from);
    let slot = slot_state(&source.client, &slot_name(&config.cluster, &link.to)).await;
    let slot = slot.map_err(InitError::catalog(&link.from))?;
    Ok(slot.is_some_and(|slot| slot.active_pid.is_some()))
}

/// Refuses where nobody delivers what the link still has to. A daemon that streams is waited for.
pub(super) async fn refuse(
    config: &Config,
    link: &LinkName,
    sessions: &[Session],
) -> Result<(), InitError> {
    if is_streaming(config, link, sessions).await? {
        return Ok(());
    }
    let target = session::of(sessions, &link.to);
    let position = read_position(&target.client, &link.from).await;
    let position = position.map_err(InitError::catalog(&link.to))?;
    let applied = position.map_or(Lsn::ZERO, |position| position.end_lsn);
    let left = look(config, link, session::of(sessions, &link.from), applied).await?;
    let Some(told) = told(&left) else {
        return Ok(());
    };
    let LinkName { from, to } = link;
    Err(InitError::Refused(format!(
        "{from} has written what {to} has not applied, and what would be overwritten on {from} and still arrive on {to}: {told}; start the daemon of {from} (mmrepl run --node {from}), wait until `mmrepl status` shows {link} streaming without a lag, then run this again; nothing was changed"
    )))
}

fn told(left: &Undelivered) -> Option<String> {
    let tables: Vec<String> = left
        .rows
        .iter()
        .map(|(table, rows)| format!("{rows} row(s) of {table}"))
        .collect();
    let total: u64 = left.rows.values().sum();
    let more = if total >= u64::from(CHANGES_MAX.unsigned_abs()) {
        " and more"
    } else {
        ""
    };
    (!tables.is_empty()).then(|| format!("{}{more}", tables.join(", ")))
}

async fn look(
    config: &Config,
    link: &LinkName,
    source: &Session,
    applied: Lsn,
) -> Result<Undelivered, InitError> {
    let failed = || InitError::server(&link.from, format!("look into the slot of {link}"));
    let version = "select pg_catalog.current_setting('server_version_num')::int4";
    let version = source.client.query_one(version, &[]).await;
    let version = version.map_err(failed())?;
    let version: i32 = version.read(0).map_err(InitError::unread(&link.from))?;
    let leaves_out = version.cast_unsigned() >= ORIGIN_OPTION_SINCE;
    let slot = slot_name(&config.cluster, &link.to);
    let ours = origin_prefix(&config.cluster);
    let failed = || InitError::catalog(&link.from);
    let read = async |limits: (i32, bool)| {
        let messages = peek(&source.client, &slot, limits)
            .await
            .map_err(failed())?;
        Ok::<_, InitError>(count(messages.into_iter(), (applied, &ours)))
    };
    let own = read((CHANGES_MAX, leaves_out)).await?;
    if !leaves_out || !own.rows.is_empty() {
        return Ok(own);
    }
    // What came under an origin of another replicator is left out there, too.
    let since = since_slot(&source.client, &slot).await.map_err(failed())?;
    let judged = judge(&source.client, &since).await.map_err(failed())?;
    match judged.found {
        Found::Nothing => Ok(own),
        Found::Foreign | Found::TooMany => read((MIXED_MAX, false)).await,
    }
}

/// Counts the changes of transactions that the cluster has not written here, and that committed
/// after `applied`. What cannot be read is left to the link, which names it.
fn count(messages: impl Iterator<Item = Vec<u8>>, (applied, ours): (Lsn, &str)) -> Undelivered {
    let mut left = Undelivered::default();
    let mut names: HashMap<RelationId, String> = HashMap::new();
    let mut counts = false;
    for message in messages.filter_map(|data| decode(Bytes::from(data), false).ok()) {
        match message {
            Message::Begin { final_lsn, .. } => counts = final_lsn >= applied,
            Message::Origin { name, .. } => counts &= !name.starts_with(ours),
            Message::Relation(relation) => {
                let relation = relation.relation;
                let name = readable(&relation.schema, &relation.name);
                names.insert(relation.id, name);
            }
            Message::Insert { relation, .. }
            | Message::Update { relation, .. }
            | Message::Delete { relation, .. }
                if counts =>
            {
                note(&mut left, &names, relation);
            }
            Message::Truncate { relations, .. } if counts => {
                for relation in relations {
                    note(&mut left, &names, relation);
                }
            }
            _ => {}
        }
    }
    left
}

fn note(left: &mut Undelivered, names: &HashMap<RelationId, String>, relation: RelationId) {
    let name = names.get(&relation).cloned();
    *left.rows.entry(name.unwrap_or_default()).or_default() += 1;
}
