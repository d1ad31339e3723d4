//! One direction of replication, `east->west`, for as long as the daemon of `east` runs.
//!
//! ```text
//! connect ─▶ history agrees? ─▶ reader ─▶ queue ─▶ applying ─▶ durable ─▶ checkpoint ─▶ confirmed
//!    ▲                            ▲                                                        │
//!    └── back off, say why ◀──────┴───────────────── feedback to the source ◀──────────────┘
//! ```
//!
//! A link never ends by itself. Whatever fails, it closes its connections, says in `status` what
//! happened and whether a person must act, waits, and starts again from the target's position.

mod agreement;
mod alive;
mod applying;
mod applying_running;
mod beyond;
mod caution;
mod checkpointing;
mod clock;
mod connect;
mod context;
mod dispatch;
mod error;
mod foreign;
mod history;
mod home;
mod limits;
mod missed;
mod mixed;
mod nap;
mod one_server;
mod open_stream;
mod other_daemon;
mod others;
mod patience;
mod pausing;
mod probe;
mod progress;
mod queue;
mod reader;
mod reading;
mod remarks;
mod remedy;
mod remembered;
mod repeats;
mod reread;
mod rerun;
mod running;
mod sessions;
mod stepwise;
mod waits;
mod window;
mod workers;

use std::sync::Arc;
use std::sync::Mutex;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::assemble::{Assembler, OriginFilter};
use crate::backoff::Backoff;
use crate::conflict::SeenHistory;
use crate::error::Retryable;
use crate::fault::{Fault, caught, forever};
use crate::ids::origin_prefix;
use crate::lineage::gather::make_witness;
use crate::lsn::Lsn;
use crate::status::model::LinkState;
use applying::{ApplyOptions, Applying, Ended};
use caution::Lessons;
use connect::Ready;
use error::{failed_state, last_error};
use limits::piece_limits;
use reader::Reader;
use repeats::Repeats;
use running::Running;

pub use context::LinkContext;
pub use error::LinkError;
pub use home::Home;
pub use others::Foreign;
pub use progress::UNFLUSHED_MAX;
pub use queue::{QUEUE_BYTES_MAX, QUEUE_ROWS_MAX};
use remembered::{Remembered, with_remembered};
pub use window::{GROUP_ROWS_MAX, WINDOW_ROWS};

/// Most memory for transactions that are still running on the source while another one is being
/// applied.
const KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Runs the link until `stop`. The transaction in hand is finished first.
pub async fn run(context: LinkContext, stop: CancellationToken) {
    let probed = context.clone();
    let probing = tokio::spawn(forever(move || probe::run(probed.clone())));
    let mut link = Link {
        context,
        stop,
        lessons: Lessons::none(),
        remembered: None,
        transient: Backoff::transient(),
        blocked: Backoff::blocked(),
        repeats: Repeats::default(),
    };
    Box::pin(link.run()).await;
    link.context.monitor.set_state(
        LinkState::Stopped,
        Some("the daemon is stopping".to_owned()),
    );
    probing.abort();
}

struct Link {
    context: LinkContext,
    stop: CancellationToken,
    /// What applying has taught so far.
    lessons: Lessons,
    /// What the source had applied from others, and which source.
    remembered: Option<Remembered>,
    transient: Backoff,
    blocked: Backoff,
    repeats: Repeats,
}

impl Link {
    async fn run(&mut self) {
        while !self.stop.is_cancelled() {
            if *self.context.monitor.paused().borrow() {
                self.wait_while_paused().await;
                continue;
            }
            // Boxed: a large future, and its frame is needed once per connection only.
            let streamed = caught(Box::pin(self.stream())).await;
            self.context.monitor.disconnected();
            match streamed.unwrap_or_else(|fault| Err(fault.into())) {
                Err(error) if self.asks_for_running() && error.is_about_streaming() => {
                    self.give_up_streaming(&error);
                }
                Err(error) => {
                    let error = remedy::advised(&self.context, error).await;
                    self.back_off(&error).await;
                }
                Ok(()) => {}
            }
        }
    }

    /// Whether transactions are to be applied while they are still running. With more than two
    /// nodes another link may delete what such a transaction is about to insert, and see nothing of
    /// it.
    fn wants_running(&self) -> bool {
        self.context.streaming && self.context.nodes.len() == 2
    }

    /// Whether they are asked for now.
    fn asks_for_running(&self) -> bool {
        self.wants_running() && self.lessons.patience.is_over(Instant::now())
    }

    /// The next connection asks for transactions once they are committed.
    fn give_up_streaming(&mut self, error: &LinkError) {
        let pause = self.lessons.patience.gave_up(Instant::now());
        let message = format!(
            "a transaction still running on {} is applied once it is committed there, and others for {} s: {error}",
            self.context.source.name,
            pause.as_secs()
        );
        tracing::info!(link = %self.context.link, "{message}");
        self.context.monitor.notice(message);
    }

    async fn wait_while_paused(&self) {
        let reason = format!(
            "paused by hand; `mmrepl resume '{}'` goes on",
            self.context.link
        );
        self.context
            .monitor
            .set_state(LinkState::Paused, Some(reason));
        let mut paused = self.context.monitor.paused();
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = async {
                beyond::watch(&self.context, &mut paused).await;
                // The daemon has the other end as long as the link lives.
                let _ = paused.wait_for(|paused| !paused).await;
            } => self.context.monitor.starts(),
        }
    }

    /// Connects and streams until stopped, paused or failed.
    async fn stream(&mut self) -> Result<(), LinkError> {
        let interrupted = self.interruption();
        let _ended = interrupted.clone().drop_guard();
        let asked = self.asks_for_running();
        let ready = tokio::select! {
            () = interrupted.cancelled() => return Ok(()),
            ready = connect::connect(&self.context, asked, self.remembered.as_ref()) => ready?,
        };
        if !self.context.monitor.is_failing() {
            tracing::info!(link = %self.context.link, from = %ready.begun.source_end, "streaming");
        }
        self.context.monitor.add_reconnect();
        self.context.monitor.connected();
        Box::pin(self.stream_from((ready, asked), &interrupted)).await
    }

    /// Cancelled when the daemon stops or a person pauses the link.
    fn interruption(&self) -> CancellationToken {
        let token = self.stop.child_token();
        let (until, mut paused) = (token.clone(), self.context.monitor.paused());
        tokio::spawn(async move {
            tokio::select! {
                () = until.cancelled() => {}
                _ = paused.wait_for(|paused| *paused) => until.cancel(),
            }
        });
        token
    }

    async fn stream_from(
        &mut self,
        (ready, asked): (Ready, bool),
        interrupted: &CancellationToken,
    ) -> Result<(), LinkError> {
        let monitor = self.context.monitor.clone();
        let (durable_tx, durable_rx) = watch::channel(Lsn::ZERO);
        let (confirmed_tx, confirmed_rx) = watch::channel(Lsn::ZERO);
        // Newer than whatever was put back before the link went on.
        let witness = make_witness(&ready.source_control, &self.context.link).await;
        let (witness_tx, witness_rx) = watch::channel(witness.ok().flatten());
        let (sender, receiver) = queue::queue();
        let seen = self.remember(&ready);
        let context = &self.context;
        let ours = OriginFilter::DropNamed(origin_prefix(&context.cluster));
        let assembler = Assembler::new(piece_limits(), ours);
        let assembler = if ready.streaming {
            assembler.with_stream_budget(KEPT_BYTES_MAX).passing_on()
        } else {
            assembler
        };
        let reader = Reader::new(
            (
                context.source.name.clone(),
                context.cluster.clone(),
                (seen, ready.secret),
            ),
            ready.stream,
            assembler,
            sender,
            (
                confirmed_rx,
                monitor.clone(),
                (context.foreign.clone(), ready.looked.with_all),
            ),
        );
        let saving = checkpointing::run(
            self.context.link.clone(),
            self.context.checkpoints.clone(),
            ready.identity,
            (durable_rx, witness_rx),
            confirmed_tx,
        );
        let lessons = std::mem::take(&mut self.lessons);
        let running = Running::new(context.clone(), Arc::clone(&ready.target_control));
        let mut applying = Applying::new(
            (ready.applier, running),
            (self.options(asked, &ready.source_control), lessons),
            (receiver, durable_tx),
            monitor,
            (ready.begun, ready.goal),
        );
        let context = &self.context;
        let renewing = checkpointing::renew_witness(&context.link, &ready.target_watch, witness_tx);
        // Not with the others, so that feedback goes on whatever applying does.
        let reading = ready.reading.spawn(caught(reader.run()));
        let others = foreign::until_there(context, &ready.source_control, ready.looked.unjudged);
        let result = tokio::select! {
            result = drive(reading, saving, &mut applying, interrupted) => result,
            gone = alive::until_gone(&context.source.name, &ready.source_control) => Err(gone),
            gone = alive::until_gone(&context.target.name, &ready.target_watch) => Err(gone),
            () = renewing => Ok(()),
            () = waits::watch(context, &ready.target_watch) => Ok(()),
            other = agreement::until_rules_differ(context, &ready.target_control) => Err(other),
            () = others => Ok(()),
        };
        self.lessons = applying.take_lessons();
        self.context.monitor.set_workers(None);
        result
    }

    /// Keeps what the source had seen, by position, for the next connection.
    fn remember(&mut self, ready: &Ready) -> Arc<Mutex<SeenHistory>> {
        let source = (
            ready.identity.source_system_id,
            ready.identity.source_timeline,
        );
        let seen = Arc::new(Mutex::new(ready.seen.clone()));
        self.remembered = Some((source, Arc::clone(&seen)));
        seen
    }

    fn options(&self, asked: bool, source: &Arc<Client>) -> ApplyOptions {
        ApplyOptions {
            source: Arc::clone(source),
            link: self.context.link.clone(),
            max_clock_skew: self.context.max_clock_skew,
            waits_to_ask: self.wants_running() && !asked,
        }
    }

    /// Says what happened and waits before the next try: longer each time, until something was
    /// applied.
    async fn back_off(&mut self, error: &LinkError) {
        let monitor = self.context.monitor.clone();
        if !monitor.is_failing() {
            self.transient.reset();
            self.blocked.reset();
            self.repeats.over(Instant::now());
        }
        if matches!(error, LinkError::Fault(_)) {
            monitor.add_fault();
        }
        let state = failed_state(error);
        let backoff = match state {
            LinkState::Retrying => &mut self.transient,
            _ => &mut self.blocked,
        };
        let delay = backoff.next_delay();
        monitor.fails(
            state,
            last_error(error, error.to_string(), error.relation()),
        );
        self.log(state, error);
        let mut paused = monitor.paused();
        tokio::select! {
            () = self.stop.cancelled() => {}
            _ = paused.wait_for(|paused| *paused) => {}
            () = tokio::time::sleep(delay) => {}
        }
    }

    /// Once, and then once a minute with a count.
    fn log(&mut self, state: LinkState, error: &LinkError) {
        let kind = (state, error.sqlstate().map(str::to_owned));
        let Some(held_back) = self.repeats.note(Instant::now(), kind) else {
            return;
        };
        let link = &self.context.link;
        if state == LinkState::Retrying {
            tracing::warn!(%link, %error, held_back, "link interrupted, trying again");
        } else {
            tracing::error!(%link, %error, held_back, "link needs somebody");
        }
    }
}

/// Runs the three parts of a link together; the first that ends with an error ends the others.
async fn drive(
    mut reading: JoinHandle<Read>,
    saving: impl Future<Output = Result<(), LinkError>>,
    applying: &mut Applying,
    interrupted: &CancellationToken,
) -> Result<(), LinkError> {
    tokio::pin!(saving);
    let result = tokio::select! {
        ended = applying.run(interrupted) => match ended {
            Ok(Ended::Stopped | Ended::MayAskForRunning) => Ok(()),
            // The queue was closed by the reader, which knows why.
            Ok(Ended::SourceGone) => joined((&mut reading).await),
            Err(error) => Err(error),
        },
        saved = &mut saving => saved,
        read = &mut reading => joined(read),
    };
    reading.abort();
    result
}

/// How reading a stream ended.
type Read = Result<Result<(), LinkError>, Fault>;

fn joined(read: Result<Read, tokio::task::JoinError>) -> Result<(), LinkError> {
    match read {
        Ok(Ok(result)) => result,
        Ok(Err(fault)) => Err(fault.into()),
        // The thread was told to end.
        Err(_) => Ok(()),
    }
}
