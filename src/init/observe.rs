//! What every node has already.

use std::collections::HashMap;

use tokio_postgres::Statement;

use super::follow::EventTriggers;
use super::leftovers::leftovers;
use super::links;
use super::made::Made;
use super::noted::Noted;
use super::observe_query as query;
use super::session::{self, Session};
use super::slots;
use super::state::NodeState;
use super::{InitError, PUBLICATION};
use crate::catalog::CatalogError;
use crate::catalog::dropped::{DroppedNode, read_dropped};
use crate::catalog::load_tables::load_tables;
use crate::catalog::position::read_positions;
use crate::catalog::server::{Server, read_server};
use crate::catalog::slots::{SlotState, slot_state};
use crate::catalog::table::Table;
use crate::catalog::wal;
use crate::check::facts::NodeFacts;
use crate::config::Config;
use crate::ids::{LinkName, NodeName, slot_name};
use crate::lineage::{Known, gather};
use crate::migrate;
use crate::wire::RowExt;

/// Observes one node without the preflight: what its daemon does with its own server.
pub(super) async fn observe_own(
    config: &Config,
    session: &Session,
) -> Result<NodeState, InitError> {
    let client = &session.client;
    let failed = || InitError::catalog(session.name());
    let server = read_server(client).await.map_err(failed())?;
    let tables = load_tables(client, &config.tables).await;
    observe(config, session, &server, &tables.map_err(failed())?).await
}

/// Observes every node.
pub(super) async fn observe_all(
    config: &Config,
    sessions: &[Session],
    facts: &[NodeFacts],
) -> Result<Vec<NodeState>, InitError> {
    let mut states = Vec::new();
    for facts in facts {
        let session = session::of(sessions, &facts.name);
        states.push(observe(config, session, &facts.server, &facts.tables).await?);
    }
    look_again(sessions, &mut states).await?;
    prove(sessions, &mut states).await?;
    see_vain_tries(config, sessions, &mut states).await?;
    Ok(states)
}

/// A link that cannot go on takes its slot for a moment whenever it tries again: such a slot is not
/// in use, and who it is for is not sent anything.
async fn see_vain_tries(
    config: &Config,
    sessions: &[Session],
    states: &mut [NodeState],
) -> Result<(), InitError> {
    for link in links::doubtful(config, states) {
        let session = session::of(sessions, &link.from);
        let slot = slot_name(&config.cluster, &link.to);
        if slots::user(session, &slot).await?.is_some() {
            continue;
        }
        let mut sources = states.iter_mut().filter(|state| state.name == link.from);
        let slot = sources.find_map(|state| state.slots.get_mut(&link.to));
        if let Some(slot) = slot {
            slot.active_pid = None;
        }
    }
    Ok(())
}

/// Reads positions after all slots, and the ends of all WAL after the positions, as links go on
/// meanwhile: see [`gather`].
async fn look_again(sessions: &[Session], states: &mut [NodeState]) -> Result<(), InitError> {
    for state in states
        .iter_mut()
        .filter(|state| !state.positions.is_empty())
    {
        let client = &session::of(sessions, &state.name).client;
        let positions = read_positions(client).await;
        state.positions = positions.map_err(InitError::catalog(&state.name))?;
    }
    for state in states {
        let client = &session::of(sessions, &state.name).client;
        let flushed = wal::flushed(client).await;
        state.flushed = flushed.map_err(InitError::catalog(&state.name))?;
    }
    Ok(())
}

/// Asks every node whether it still has what the others applied of it.
async fn prove(sessions: &[Session], states: &mut [NodeState]) -> Result<(), InitError> {
    let mut proofs = Vec::new();
    for source in states.iter() {
        for target in states.iter().filter(|state| state.name != source.name) {
            let mut positions = target.positions.iter();
            let position = positions.find(|position| position.source == source.name);
            let client = &session::of(sessions, &source.name).client;
            let proof = gather::prove(client, position).await;
            let proof = proof.map_err(InitError::catalog(&source.name))?;
            proofs.push((source.name.clone(), target.name.clone(), proof));
        }
    }
    for (source, target, proof) in proofs {
        for state in states.iter_mut().filter(|state| state.name == source) {
            state.proofs.insert(target.clone(), proof);
        }
    }
    Ok(())
}

pub(super) async fn observe(
    config: &Config,
    session: &Session,
    server: &Server,
    tables: &[Table],
) -> Result<NodeState, InitError> {
    let (client, name) = (&session.client, session.name());
    let failed = || InitError::catalog(session.name());
    let pending = migrate::pending(client)
        .await
        .map_err(|source| InitError::Migrate {
            node: name.clone(),
            source,
        })?;
    let set_up = migrate::is_set_up(client).await;
    let set_up = set_up.map_err(|source| InitError::Migrate {
        node: name.clone(),
        source,
    })?;
    let slots = read_slots(config, session).await?;
    let has = |table: &str| set_up && !pending.iter().any(|file| file.name == table);
    let dropped = dropped(session, has(DROPPED)).await?;
    // A server that an older version has set up knows nothing of gaps.
    let noted = if has(GAPS) {
        Noted::read(config, name, client).await.map_err(failed())?
    } else {
        Noted::default()
    };
    Ok(NodeState {
        name: name.clone(),
        server: server.clone(),
        has_schema: set_up,
        pending: pending.iter().map(|file| file.name).collect(),
        tables: query::tables(client, tables).await.map_err(failed())?,
        publication: query::publication(client, PUBLICATION, server.major())
            .await
            .map_err(failed())?,
        event_triggers: EventTriggers::read(client).await.map_err(failed())?,
        made: if set_up && pending.is_empty() {
            Made::read(client).await.map_err(failed())?
        } else {
            Made::default()
        },
        leftovers: leftovers(client, &config.tables, set_up)
            .await
            .map_err(failed())?,
        nodes: if set_up {
            query::nodes(client).await.map_err(failed())?
        } else {
            Vec::new()
        },
        dropped,
        origins: query::origins(client, config).await.map_err(failed())?,
        positions: if set_up {
            read_positions(client).await.map_err(failed())?
        } else {
            Vec::new()
        },
        slots,
        flushed: wal::flushed(client).await.map_err(failed())?,
        proofs: HashMap::new(),
        noted,
        known: known(config, session).await?,
    })
}

/// The slots of this cluster, by peer.
async fn read_slots(
    config: &Config,
    session: &Session,
) -> Result<HashMap<NodeName, SlotState>, InitError> {
    let mut slots = HashMap::new();
    for peer in config.peers_of(session.name()) {
        let slot = slot_state(&session.client, &slot_name(&config.cluster, &peer.name)).await;
        let slot = slot.map_err(InitError::catalog(session.name()))?;
        slots.extend(slot.map(|slot| (peer.name.clone(), slot)));
    }
    Ok(slots)
}

async fn dropped(session: &Session, is_kept: bool) -> Result<Vec<DroppedNode>, InitError> {
    if !is_kept {
        return Ok(Vec::new());
    }
    let dropped = read_dropped(&session.client).await;
    dropped.map_err(InitError::catalog(session.name()))
}

/// What the node remembers of what its peers had flushed.
async fn known(
    config: &Config,
    session: &Session,
) -> Result<HashMap<NodeName, Vec<Known>>, InitError> {
    let mut known = HashMap::new();
    for peer in config.peers_of(session.name()) {
        let link = LinkName {
            from: session.name().clone(),
            to: peer.name.clone(),
        };
        let remembered = gather::known(&session.client, &link).await;
        let remembered = remembered.map_err(InitError::catalog(session.name()))?;
        known.insert(link.to, remembered);
    }
    Ok(known)
}

/// The file that makes the table of dropped nodes.
const DROPPED: &str = "tables/013_dropped";
/// The file that gives the table of gaps all its columns.
const GAPS: &str = "tables/012_fingerprints";

/// Publication, tables, triggers, slots, origins, positions and gaps in a few numbers: a row of the
/// catalog that is written anew has the number of another transaction.
const GLANCE: &str = "
select pg_catalog.concat_ws(' ', p.oid, p.xmin, r.*, t.*, c.*, s.*, o.*,
           pg_catalog.to_regclass('mmrepl.apply_position')::pg_catalog.oid,
           pg_catalog.pg_stat_get_tuples_inserted(pg_catalog.to_regclass('mmrepl.gap')),
           pg_catalog.pg_stat_get_tuples_updated(pg_catalog.to_regclass('mmrepl.gap')),
           pg_catalog.pg_stat_get_tuples_deleted(pg_catalog.to_regclass('mmrepl.gap')))
from (select pg_catalog.count(*), pg_catalog.sum(xmin::text::int8)
      from pg_catalog.pg_publication_rel) r,
     (select pg_catalog.count(*), pg_catalog.sum(xmin::text::int8)
      from pg_catalog.pg_trigger) t,
     (select pg_catalog.count(*), pg_catalog.sum(xmin::text::int8)
      from pg_catalog.pg_class where relkind in ('r', 'p') and relpersistence = 'p') c,
     (select pg_catalog.count(*) from pg_catalog.pg_replication_slots
      where database = pg_catalog.current_database()) s,
     (select pg_catalog.count(*), pg_catalog.sum(roident::int8)
      from pg_catalog.pg_replication_origin) o
left join pg_catalog.pg_publication p on p.pubname = $1";

/// Prepared once for a session: planning takes as long as running.
pub(super) async fn prepare_glance(session: &Session) -> Result<Statement, InitError> {
    let prepared = session.client.prepare(GLANCE).await;
    let prepared = prepared.map_err(CatalogError::query("look at the publication"));
    prepared.map_err(InitError::catalog(session.name()))
}

pub(super) async fn glance(session: &Session, glance: &Statement) -> Result<String, InitError> {
    let row = session.client.query_one(glance, &[&PUBLICATION]).await;
    let row = row.map_err(CatalogError::query("look at the publication"));
    let row = row.map_err(InitError::catalog(session.name()))?;
    row.read(0).map_err(InitError::unread(session.name()))
}
