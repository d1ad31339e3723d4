//! Getting a link ready: connect both servers, take the origin and the slot, check history.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Client;

use super::agreement::check_rules;
use super::error::LinkError;
use super::foreign::{self, Looked};
use super::missed::{self, Others};
use super::other_daemon;
use super::pausing;
use super::probe::read_clock;
use super::reading::ReadingThread;
use super::workers::{end_left_behind, open_workers};
use super::{LinkContext, Remembered, with_remembered};
use crate::apply::{Applier, Committed, Fetcher, Origins, Skip, Skips, Tables, apply_session};
use crate::catalog::CatalogError;
use crate::catalog::position::{Position, read_seen};
use crate::catalog::secret::read_secret;
use crate::catalog::server::{Server, read_server};
use crate::catalog::skips::read_skips;
use crate::catalog::slots::{SlotState, origins, slot_state};
use crate::catalog::wal;
use crate::checkpoint::Checkpoint;
use crate::commit_time::CommitTime;
use crate::config::Node;
use crate::conflict::{Secret, SeenHistory};
use crate::error::Retryable;
use crate::ids::{NodeName, PUBLICATION, origin_name, slot_name};
use crate::lineage::gather::{read_pair, recall, remember};
use crate::lineage::{Advice, Cause, Finding, Known, Pair, Proof, check_slot, judge};
use crate::lsn::Lsn;
use crate::migrate::is_behind;
use crate::wire::{
    PgoutputOptions, ReplicationConnection, ReplicationStream, Session, Streaming, WireError,
    control, from_tokio_postgres,
};

/// The role, in its name, of the session that applies what is still running on the source.
pub(super) const RUNNING: &str = "apply running";
/// SQLSTATE `object_in_use`: another connection holds the slot or the origin.
const OBJECT_IN_USE: &str = "55006";
/// How often a slot or origin held by our own dead connection is asked for again.
const TAKE_OVER_TRIES: u32 = 20;
/// The pause between two such tries.
const TAKE_OVER_PAUSE: Duration = Duration::from_millis(250);
/// How long an apply session waits for a lock.
pub(super) const LOCK_TIMEOUT: &str = "30s";
/// The same while a transaction that is still running on the source is open beside it, and for the
/// session of that transaction.
pub(super) const LOCK_TIMEOUT_BESIDE_RUNNING: &str = "2s";

/// What a server does not have where `init` of an older version was run.
const OLD_SCHEMA: &str = "schema mmrepl of this version";

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
    match connect_both(context, streaming, remembered).await {
        Err(error @ LinkError::NotSetUp { .. }) => Err(explained(context, error).await),
        result => result,
    }
}

/// What was set up once and is not there now has been lost, or the DSN leads elsewhere: the verdict
/// on both servers says more than that `init` has not been run.
async fn explained(context: &LinkContext, error: LinkError) -> LinkError {
    let controls = async {
        let source = open_control(context, &context.source).await?;
        Ok::<_, LinkError>((source, open_control(context, &context.target).await?))
    };
    let Ok((source, target)) = controls.await else {
        return error;
    };
    let Ok(pair) = gather_pair(context, &source, &target).await else {
        return error;
    };
    match judge(&pair) {
        Err(finding) if finding.advice != Advice::Init => finding.into(),
        _ => error,
    }
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
    let mut applier = applier.with_workers(workers);
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

/// Both servers must be set up, agree on the rules, and have clocks that are near enough.
async fn check_ends(
    context: &LinkContext,
    source: &Client,
    target: &Client,
) -> Result<(), LinkError> {
    check_schema(&context.source, source).await?;
    check_schema(&context.target, target).await?;
    check_clocks(context, source, target).await?;
    check_rules(context, source, target).await
}

/// The slot is ours now; until then it may have become another one of the same name, and the
/// server begins where the slot does, whatever it is asked for.
async fn check_begin(
    context: &LinkContext,
    source: &Client,
    (slot, position): (&str, Lsn),
) -> Result<(), LinkError> {
    let begun_at = read_slot(context, source, slot).await?;
    let begins = check_slot(&context.link, (slot, begun_at.as_ref()), position);
    begins.map_err(|cause| Box::new(Finding::of_slot(&context.link, cause)).into())
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

/// `mmrepl shop east->west apply`, by which an operator and we ourselves know a connection.
pub(super) fn application_name(context: &LinkContext, role: &str) -> String {
    format!("mmrepl {} {} {role}", context.cluster, context.link)
}

/// A control connection to one of the link's nodes.
pub(super) async fn open_control(context: &LinkContext, node: &Node) -> Result<Client, LinkError> {
    let name = application_name(context, "control");
    let client = control(&node.dsn, &name).await;
    let client = client.map_err(|source| at(&node.name, source))?;
    // Catalog look-ups wait for locks too.
    let limit = format!("set lock_timeout = '{LOCK_TIMEOUT}'");
    let limited = client.batch_execute(&limit).await;
    limited.map_err(|error| at(&node.name, from_tokio_postgres(error)))?;
    Ok(client)
}

fn at(node: &NodeName, source: WireError) -> LinkError {
    LinkError::Node {
        node: node.clone(),
        source,
    }
}

fn catalog_at(node: &NodeName) -> impl Fn(CatalogError) -> LinkError + '_ {
    move |source| LinkError::Catalog {
        node: node.clone(),
        source,
    }
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

/// A target whose clock is too far behind would have to wait for every change.
async fn check_clocks(
    context: &LinkContext,
    source: &Client,
    target: &Client,
) -> Result<(), LinkError> {
    let epoch = Instant::now();
    let there = read_clock(&context.target, target, epoch).await?;
    let here = read_clock(&context.source, source, epoch).await?;
    let behind = here.ahead_of(&there);
    let surely = Duration::from_micros((behind.micros - behind.doubt_micros).max(0).unsigned_abs());
    if surely > context.max_clock_skew {
        let measured = Duration::from_micros(behind.micros.unsigned_abs());
        return Err(LinkError::clock_skew(
            &context.link,
            (measured, context.max_clock_skew),
            None,
        ));
    }
    Ok(())
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

/// Opens the apply session and gives it the link's origin, which only one session can hold: from
/// then on nobody else applies this link.
pub(super) async fn open_session(
    context: &LinkContext,
    control: &Client,
    (role, origins): (&str, &Origins),
) -> Result<Session, LinkError> {
    let node = &context.target;
    let name = application_name(context, role);
    let session = apply_session(&node.dsn, &name, LOCK_TIMEOUT).await;
    let mut session = session.map_err(|source| at(&node.name, source))?;
    if origins.is_pair() {
        // What it deletes leaves no tombstones: `mmrepl.applies_from_only_peer`.
        let only_peer = session.simple("set mmrepl.only_peer = on").await;
        only_peer.map_err(|source| at(&node.name, source))?;
    }
    let origin = origins.session_origin();
    let take = format!("select pg_catalog.pg_replication_origin_session_setup('{origin}')");
    for _ in 0..TAKE_OVER_TRIES {
        match session.simple(&take).await {
            Ok(_) => return Ok(session),
            Err(error) if error.sqlstate() == Some(OBJECT_IN_USE) => {
                end_backends(control, &name, session.backend_pid()).await;
                tokio::time::sleep(TAKE_OVER_PAUSE).await;
            }
            Err(error) if error.sqlstate() == Some("42704") => {
                let what = format!("replication origin {origin}");
                return Err(LinkError::NotSetUp {
                    node: node.name.clone(),
                    what,
                });
            }
            Err(error) => return Err(at(&node.name, error)),
        }
    }
    session
        .simple(&take)
        .await
        .map_err(|source| at(&node.name, source))?;
    Ok(session)
}

/// Ends connections that an earlier run of this link left behind: a killed daemon's connection
/// lives on at the server until it notices. Errors are left to the next try.
pub(super) async fn end_backends(control: &Client, application_name: &str, but_not: i32) {
    let sql = "select pg_catalog.pg_terminate_backend(pid) from pg_catalog.pg_stat_activity
               where application_name = $1 and pid <> $2 and pid <> pg_catalog.pg_backend_pid()";
    if let Err(error) = control.query(sql, &[&application_name, &but_not]).await {
        tracing::warn!(%application_name, %error, "cannot end a connection left behind");
    }
}

async fn read_slot(
    context: &LinkContext,
    source: &Client,
    name: &str,
) -> Result<Option<SlotState>, LinkError> {
    let slot = slot_state(source, name).await;
    slot.map_err(catalog_at(&context.source.name))
}

/// Both servers' witnesses, and what this daemon remembers.
async fn gather_pair(
    context: &LinkContext,
    source: &Client,
    target: &Client,
) -> Result<Pair, LinkError> {
    let pair = read_pair(&context.cluster, &context.link, (source, target)).await;
    let mut pair = pair.map_err(|error| not_set_up(&context.target, error))?;
    if let Some(kept) = context.checkpoints.load(&context.link)? {
        let known = recall(source, &kept).await;
        let known = known.map_err(catalog_at(&context.source.name))?;
        pair.forward.known.push(known);
    }
    Ok(pair)
}

/// Where the stream goes on. What only this daemon knows is left on its server where it matters.
async fn agreed_start(
    context: &LinkContext,
    pair: &Pair,
    source: &Client,
) -> Result<Lsn, LinkError> {
    let finding = match judge(pair) {
        Ok(start) => {
            forget_what_is_gone(context, start).await?;
            return Ok(start);
        }
        Err(finding) => finding,
    };
    if let Cause::TargetLost { durable, .. } = finding.cause {
        let began = began(pair.forward.position.as_ref());
        let proof = Proof::Unknown;
        let known = Known {
            durable,
            began,
            proof,
        };
        let kept = remember(source, &context.link, known).await;
        kept.map_err(|error| not_set_up(&context.source, error))?;
    }
    Err(finding.into())
}

/// Where the link goes on before what this daemon remembers, both servers were put back.
async fn forget_what_is_gone(context: &LinkContext, start: Lsn) -> Result<(), LinkError> {
    let kept = context.checkpoints.load(&context.link)?;
    if let Some(kept) = kept.filter(|kept| kept.position > start) {
        let (link, had) = (&context.link, kept.position);
        tracing::warn!(
            %link, %had, %start,
            "both servers were put back to an earlier moment; the link goes on from there"
        );
        context.checkpoints.forget(link).await?;
    }
    Ok(())
}

fn began(position: Option<&Position>) -> CommitTime {
    position.map_or_else(CommitTime::default, |position| position.began)
}

/// A missing schema or table `mmrepl` means that `init` has not been run.
pub(super) fn not_set_up(node: &Node, error: CatalogError) -> LinkError {
    let node = node.name.clone();
    match error.sqlstate() {
        Some("42P01" | "3F000") => LinkError::NotSetUp {
            node,
            what: "schema mmrepl".to_owned(),
        },
        Some("42703") => LinkError::NotSetUp {
            node,
            what: OLD_SCHEMA.to_owned(),
        },
        _ => LinkError::Catalog {
            node,
            source: error,
        },
    }
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

/// What of a source's changes is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Where the stream begins.
    pub from: Lsn,
    /// Transactions are sent while they are still running.
    pub streaming: bool,
    /// What has an origin is sent too.
    pub with_all: bool,
}

/// Opens the stream on the thread that will read it.
pub(super) async fn open_stream(
    context: &LinkContext,
    control: &Arc<Client>,
    wanted: Wanted,
) -> Result<(ReadingThread, ReplicationStream), LinkError> {
    let failed = |error: io::Error| {
        let source = WireError::io(
            "starting the thread that reads the stream".to_owned(),
            error,
        );
        at(&context.source.name, source)
    };
    let thread = ReadingThread::start().map_err(failed)?;
    let opening = start_stream(context.clone(), Arc::clone(control), wanted);
    match thread.spawn(opening).await {
        Ok(stream) => Ok((thread, stream?)),
        Err(error) => Err(failed(error.into())),
    }
}

async fn start_stream(
    context: LinkContext,
    control: Arc<Client>,
    wanted: Wanted,
) -> Result<ReplicationStream, LinkError> {
    let node = &context.source;
    let name = application_name(&context, "stream");
    let slot = slot_name(&context.cluster, &context.target.name);
    let mut tries = 0;
    loop {
        let connection = ReplicationConnection::connect(&node.dsn, &name)
            .await
            .map_err(|source| at(&node.name, source))?;
        let options = PgoutputOptions {
            proto_version: if wanted.streaming { 2 } else { 1 },
            publication: PUBLICATION.to_owned(),
            messages: true,
            origin_none: !wanted.with_all,
            streaming: if wanted.streaming {
                Streaming::On
            } else {
                Streaming::Off
            },
            binary: false,
        };
        match connection.start(&slot, wanted.from, &options).await {
            Ok(stream) => return Ok(stream),
            Err(error) if error.sqlstate() == Some(OBJECT_IN_USE) && tries < TAKE_OVER_TRIES => {
                tries += 1;
                end_backends(&control, &name, 0).await;
                tokio::time::sleep(TAKE_OVER_PAUSE).await;
            }
            Err(error) => return Err(at(&node.name, error)),
        }
    }
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
