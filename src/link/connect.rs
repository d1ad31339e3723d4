//! Getting a link ready: connect both servers, take the origin and the slot, check history.

use std::sync::Arc;

use tokio_postgres::Client;

use super::agreement::check_rules;
use super::error::LinkError;
use super::foreign::{self, Looked};
use super::history::{agreed_start, began, check_begin, explained, gather_pair};
use super::missed::{self, Others};
use super::one_server;
use super::open_stream::{Wanted, open_stream};
use super::other_daemon;
use super::pausing;
use super::probe::check_clocks;
use super::reading::ReadingThread;
use super::sessions::{
    LOCK_TIMEOUT_BESIDE_RUNNING, OLD_SCHEMA, RUNNING, application_name, catalog_at, not_set_up,
    open_control, open_session,
};
use super::workers::{end_left_behind, open_workers};
use super::{LinkContext, Remembered, with_remembered};
use crate::apply::{Applier, Committed, Fetcher, Origins, Skip, Skips, Tables};
use crate::catalog::init_session;
use crate::catalog::load_tables::load_published;
use crate::catalog::mark::Mark;
use crate::catalog::position::read_seen;
use crate::catalog::read_ahead::ReadAhead;
use crate::catalog::secret::read_secret;
use crate::catalog::server::{Server, read_server};
use crate::catalog::skips::read_skips;
use crate::catalog::slots::origins;
use crate::catalog::table::Table;
use crate::catalog::wal;
use crate::checkpoint::Checkpoint;
use crate::commit_time::CommitTime;
use crate::config::Node;
use crate::conflict::{Secret, SeenHistory};
use crate::error::Retryable;
use crate::ids::{NodeName, origin_name, slot_name};
use crate::lsn::Lsn;
use crate::migrate::is_behind;
use crate::wire::{ReplicationStream, Session};

/// A link that is ready to stream.
pub(super) struct Ready {
    /// The source's changes, from the target's position on.
    pub stream: ReplicationStream,
    /// The session that writes them.
    pub applier: Applier,
    /// Transactions arrive while they are still running.
    pub streaming: bool,
    /// The position found on the target, and how far its WAL must be flushed to hold it.
    pub begun: Committed,
    /// The end of the source's WAL now.
    pub goal: Lsn,
    /// What the source had applied from others where the stream begins.
    pub seen: SeenHistory,
    /// What is known of others who write on the source.
    pub looked: Looked,
    /// What seals the markers in the source's WAL.
    pub secret: Secret,
    /// The thread that reads the stream.
    pub reading: ReadingThread,
    /// A control connection to the source.
    pub source_control: Arc<Client>,
    /// A control connection to the target.
    pub target_control: Arc<Client>,
    /// Another one, on which nothing waits: it sees whether the target lives, and who holds locks.
    pub target_watch: Client,
    /// Who the servers are; the position is filled in by the one who saves it.
    pub identity: Checkpoint,
}

/// Connects everything. Dropping the result closes all connections.
///
/// With `streaming`, transactions are asked for while they are still running, where the target is
/// set up for that.
pub(super) async fn connect(
    context: &LinkContext,
    streaming: bool,
    remembered: Option<&Remembered>,
) -> Result<Ready, LinkError> {
    let mut looked_before = false;
    loop {
        let error = match connect_both(context, streaming, remembered).await {
            Err(error) if init_may_mend(&error) => error,
            result => return result,
        };
        if init_is_at_work(context).await {
            return Err(LinkError::InitAtWork(context.target.name.clone()));
        }
        // An `init` that was seen no more may have ended after the servers were read.
        if looked_before {
            return Err(match error {
                LinkError::NotSetUp { .. } => explained(context, error).await,
                error => error,
            });
        }
        looked_before = true;
    }
}

/// SQLSTATE `undefined_object`: the slot or the publication is not there.
const UNDEFINED_OBJECT: &str = "42704";

fn init_may_mend(error: &LinkError) -> bool {
    matches!(error, LinkError::NotSetUp { .. } | LinkError::History(_))
        || error.sqlstate() == Some(UNDEFINED_OBJECT)
}

/// Who cannot be asked is said by the next try.
async fn init_is_at_work(context: &LinkContext) -> bool {
    let Ok(target) = open_control(context, &context.target).await else {
        return false;
    };
    let is_there = init_session::is_there(&target, &context.cluster).await;
    is_there.unwrap_or(false)
}

async fn connect_both(
    context: &LinkContext,
    streaming: bool,
    remembered: Option<&Remembered>,
) -> Result<Ready, LinkError> {
    let (source, target) = (&context.source, &context.target);
    let source_control = Arc::new(open_control(context, source).await?);
    pausing::note(context, &source_control).await?;
    let target_control = open_control(context, target).await?;
    let target_watch = open_control(context, target).await?;
    let slot = slot_name(&context.cluster, &context.target.name);
    other_daemon::check(context, &source_control, &slot).await?;
    check_ends(context, &source_control, &target_control).await?;
    let ahead = ReadAhead::start(read_ahead(context.clone()));
    let source_server = server(source, &source_control).await?;
    let target_server = server(target, &target_control).await?;
    let origins = read_origins(context, &target_control).await?;
    let skips = skips(target, &target_control, &source.name).await?;
    let streaming =
        streaming && skips.until().is_none() && origins.clone().holding_large().is_some();
    end_left_behind(context, &target_control).await;
    let mut session = open_session(context, &target_control, ("apply", &origins)).await?;
    let workers = open_workers(context, &target_control, (&origins, &mut session)).await?;
    let pair = gather_pair(context, &source_control, &target_control).await?;
    let position = agreed_start(context, &pair, &source_control).await?;
    let began = began(pair.forward.position.as_ref());
    let seen = read_seen(&source_control, &target_control, &source.name).await;
    let seen = SeenHistory::new(position, seen.map_err(|error| not_set_up(target, error))?);
    let history = (source_server.system_id, source_server.timeline);
    let seen = with_remembered(seen, history, remembered);
    let session = (session, position);
    let target_control = Arc::new(target_control);
    let applier = applier(context, session, Arc::clone(&target_control), origins)?;
    let mut applier = applier.with_workers(workers).reading_ahead(ahead);
    let last = pair.forward.position.as_ref();
    applier.skip(skips, last.and_then(|last| last.commit_time));
    let looked =
        foreign::look_first(context, &source_control, (source_server.version, &slot)).await;
    let looked = looked.map_err(catalog_at(&source.name))?;
    let others = Others::of(&pair.forward, position, looked.with_all);
    let controls = (&source_control, &*target_control);
    missed::settle(context, &mut applier, (others, &seen), controls).await?;
    let secret = read_secret(&source_control).await;
    let secret = secret.map_err(|error| not_set_up(source, error))?;
    let flushed_then = flush_state(target, &target_control, position).await?;
    let wanted = Wanted {
        from: position,
        streaming,
        with_all: context.foreign.is_there(),
    };
    let (reading, stream) = open_stream(context, &source_control, wanted).await?;
    check_begin(context, &source_control, (&slot, position)).await?;
    let identity = identity((source_server, target_server), slot, (position, began));
    let goal = end_of_wal(source, &source_control).await?;
    Ok(Ready {
        stream,
        applier,
        streaming,
        begun: flushed_then,
        goal,
        seen,
        looked,
        secret,
        reading,
        source_control,
        target_control,
        target_watch,
        identity,
    })
}

/// The target's tables; nothing where they cannot be read just now.
async fn read_ahead(context: LinkContext) -> Option<Vec<(Table, Mark)>> {
    let client = open_control(&context, &context.target).await.ok()?;
    load_published(&client).await.ok()
}

/// Both servers must be set up, agree on the rules, and have clocks that are near enough.
async fn check_ends(
    context: &LinkContext,
    source: &Client,
    target: &Client,
) -> Result<(), LinkError> {
    one_server::check(context, source).await?;
    check_schema(&context.source, source).await?;
    check_schema(&context.target, target).await?;
    check_clocks(context, source, target).await?;
    check_rules(context, source, target).await
}

async fn end_of_wal(node: &Node, client: &Client) -> Result<Lsn, LinkError> {
    let end = wal::flushed(client).await;
    end.map_err(catalog_at(&node.name))
}

fn identity(
    (source, target): (Server, Server),
    slot: String,
    (position, began): (Lsn, CommitTime),
) -> Checkpoint {
    Checkpoint {
        position,
        target_system_id: target.system_id,
        target_timeline: target.timeline,
        source_system_id: source.system_id,
        source_timeline: source.timeline,
        slot,
        began,
        witness: None,
    }
}

/// What a person lets go by.
async fn skips(node: &Node, target: &Client, source: &NodeName) -> Result<Skips, LinkError> {
    let wishes = read_skips(target, source).await;
    let wishes = wishes.map_err(catalog_at(&node.name))?;
    let skip = |(commit, table): (Lsn, String)| Skip {
        commit,
        table: (!table.is_empty()).then_some(table),
    };
    Ok(Skips::new(wishes.into_iter().map(skip).collect()))
}

/// What this program calls there must be there.
async fn check_schema(node: &Node, client: &Client) -> Result<(), LinkError> {
    let node = node.name.clone();
    match is_behind(client).await {
        Ok(false) => Ok(()),
        Ok(true) => Err(LinkError::NotSetUp {
            node,
            what: OLD_SCHEMA.to_owned(),
        }),
        Err(source) => Err(LinkError::Schema { node, source }),
    }
}

async fn server(node: &Node, client: &Client) -> Result<Server, LinkError> {
    read_server(client).await.map_err(catalog_at(&node.name))
}

async fn read_origins(context: &LinkContext, target: &Client) -> Result<Origins, LinkError> {
    let node = &context.target.name;
    let ids = origins(target).await.map_err(catalog_at(node))?;
    let ends = (context.source.name.clone(), node.clone());
    let origins = Origins::of_server(&context.cluster, &context.nodes, ends, &ids);
    let secret = read_secret(target).await;
    let secret = secret.map_err(|error| not_set_up(&context.target, error))?;
    Ok(origins.sealing(secret))
}

/// The position just read may come from a commit that is not on the target's disk yet.
async fn flush_state(node: &Node, target: &Client, position: Lsn) -> Result<Committed, LinkError> {
    let written = wal::inserted(target).await;
    Ok(Committed {
        source_end: position,
        target_written: written.map_err(catalog_at(&node.name))?,
        target_flushed: Lsn::ZERO,
    })
}

/// Opens the session that applies what is still running on the source.
pub(super) async fn running_applier(
    context: &LinkContext,
    control: &Arc<Client>,
) -> Result<Applier, LinkError> {
    let node = &context.target;
    let origins = read_origins(context, control).await?;
    let missing = || LinkError::running("the target is not set up for it".to_owned());
    let origins = origins.holding_large().ok_or_else(missing)?;
    let session = open_session(context, control, (RUNNING, &origins)).await?;
    // What it begins with is told at the end of each transaction.
    let session = (session, Lsn::ZERO);
    let mut applier = applier(context, session, Arc::clone(control), origins)?;
    let limited = applier.limit_lock_waits(LOCK_TIMEOUT_BESIDE_RUNNING).await;
    limited.map_err(|source| LinkError::Apply {
        node: node.name.clone(),
        source: Box::new(source),
    })?;
    Ok(applier)
}

fn applier(
    context: &LinkContext,
    session: (Session, Lsn),
    catalog: Arc<Client>,
    origins: Origins,
) -> Result<Applier, LinkError> {
    let guard = origins.guard().ok_or_else(|| LinkError::NotSetUp {
        node: context.target.name.clone(),
        what: format!(
            "replication origin {}",
            origin_name(&context.cluster, &context.source.name)
        ),
    })?;
    if let Some(missing) = origins.missing_return_origin(&context.nodes) {
        return Err(LinkError::NotSetUp {
            node: context.target.name.clone(),
            what: format!("replication origin {missing}"),
        });
    }
    let tables = Tables::new(&origins, guard, context.rules.clone());
    let fetcher = Fetcher::new(
        context.source.dsn.clone(),
        application_name(context, "fetch"),
    );
    let applier = Applier::new(session, catalog, fetcher, tables, origins);
    Ok(applier.recording(context.recorded_per_minute))
}
