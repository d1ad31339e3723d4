//! `mmrepl init`: makes or completes what replication needs on every server, and `mmrepl drop`.
//!
//! The order is what makes it safe to stop at any moment and to run again:
//!
//! ```text
//! preflight ─▶ observe ─▶ plan ─▶ 1. schema, node rows, origins          on every node
//!  (nothing                       2. replica identities and triggers     on every node
//!   changes)                      3. publications                        on every node
//!                                 4. slots, one snapshot per node; compare or copy rows
//!                                 5. position rows: from here on the links count
//! ```
//!
//! * A table gets its replica identity before it is published: an application's UPDATE never fails.
//! * Triggers are on every node before any node publishes: no applied delete misses its tombstone.
//! * A slot without a position row was left by a run that did not end; it is made anew. So whatever
//!   was compared or copied belongs exactly to the slots that are kept.
//! * The snapshot exported with a slot shows what lies before its stream. Equal snapshots mean that
//!   nothing is missing, with writers busy on every node.

mod apart;
mod asked;
mod blocks;
mod catch_up;
mod columns;
mod compare;
mod copy;
mod damage;
mod drop_check;
mod error;
mod execute;
mod fingerprints;
mod follow;
mod gaps;
mod identity;
mod join;
mod leftovers;
mod links;
mod made;
mod merging;
mod moved;
mod noted;
mod observe;
mod observe_query;
mod options;
mod overwrite;
mod overwritten;
mod own;
mod plan;
mod planned;
mod publication;
mod records;
mod remembered;
mod remove;
mod rows;
mod session;
mod slots;
mod state;
mod step;
mod triggers;
mod undelivered;
mod versions;
mod work;

pub use error::InitError;
pub use links::LinkCondition;
pub use options::InitOptions;
pub use planned::Plan;
pub use remove::{DropOptions, DropReport, Dropped, Left, Records, drop_nodes};
pub use state::NodeState;
pub use step::{Progress, Step};

use std::collections::BTreeSet;

use crate::catalog::init_session;
use crate::check::{self, Problem};
use crate::config::Config;
use crate::damage::Damage;
use crate::ids::LinkName;
pub use crate::ids::PUBLICATION;
use session::Session;

/// Sets the cluster up or completes it. Returns whether anything was (or would be) changed.
pub async fn init(
    config: &Config,
    options: &InitOptions,
    progress: &mut dyn Progress,
) -> Result<bool, InitError> {
    for node in options.copy_from.iter().chain(&options.rejoin) {
        config.node(node).map_err(InitError::Config)?;
    }
    let name = init_session::name(&config.cluster);
    let (mut sessions, mut facts, problems) = examine(config, &name).await;
    for problem in &problems {
        progress.problem(problem);
    }
    if check::has_errors(&problems) {
        let errors = problems
            .iter()
            .filter(|p| p.severity == check::Severity::Error)
            .count();
        return Err(InitError::Preflight { errors });
    }
    if !options.dry_run {
        for session in &sessions {
            fingerprints::note(session).await?;
        }
    }
    let added = add_columns(config, options, (&mut sessions, &mut facts), progress).await?;
    let states = observe::observe_all(config, &sessions, &facts).await?;
    let plan = match plan::plan(config, options, (&states, &BTreeSet::new())) {
        Err(InitError::Broken { finding, .. }) => {
            let apart = apart::look(&finding, &states, &sessions).await;
            let apart = apart.map(|apart| apart.to_string());
            return Err(InitError::Broken { finding, apart });
        }
        plan => plan?,
    };
    let planned = !plan.is_empty();
    if planned {
        asked::carry_out(config, options, (&plan, &mut sessions), progress).await?;
    }
    let copied = match &options.copy_from {
        Some(_) if planned && options.dry_run => false,
        Some(from) => {
            let found = (from, plan.copy_to.as_slice(), facts.as_slice());
            asked::copy(config, options, found, (&mut sessions, progress)).await?
        }
        None => false,
    };
    Ok(added || planned || copied)
}

/// Adds what [`columns`] finds missing, and looks at the tables again.
async fn add_columns(
    config: &Config,
    options: &InitOptions,
    (sessions, facts): (&mut [Session], &mut [check::facts::NodeFacts]),
    progress: &mut dyn Progress,
) -> Result<bool, InitError> {
    let mut added = false;
    for facts in facts {
        let Some(step) = columns::step(config, facts) else {
            continue;
        };
        added = true;
        if !options.dry_run {
            execute::run(&step, sessions).await?;
            let client = &session::of(sessions, &facts.name).client;
            let tables = crate::catalog::load_tables::load_tables(client, &config.tables).await;
            facts.tables = tables.map_err(InitError::catalog(&facts.name))?;
        }
        progress.step(&step);
    }
    Ok(added)
}

/// Connects to every node and runs the preflight; sessions of nodes that cannot be reached are
/// missing.
async fn examine(
    config: &Config,
    session_name: &str,
) -> (Vec<Session>, Vec<check::facts::NodeFacts>, Vec<Problem>) {
    let (mut sessions, mut facts, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for node in &config.nodes {
        match Session::open_as(session_name, node).await {
            Ok(session) => {
                match check::gather::gather(config, node, &session.client).await {
                    Ok(found) => facts.push(found),
                    Err(error) => problems.push(check::unreadable(&node.name, &error)),
                }
                sessions.push(session);
            }
            Err(error) => {
                problems.push(check::unreachable(&node.name, &node.dsn.describe(), &error));
            }
        }
    }
    problems.extend(check::judge(config, &facts));
    problems.extend(check::local_ways::check(config, &facts).await);
    problems.sort_by_key(|problem| problem.severity);
    (sessions, facts, problems)
}

/// The preflight alone, for `mmrepl check`, with what is damaged on servers that were set up,
/// and the verdict on every link between them.
pub async fn preflight(config: &Config) -> Vec<Problem> {
    let name = format!("mmrepl {} check", config.cluster);
    let (sessions, facts, mut problems) = examine(config, &name).await;
    for facts in &facts {
        let session = session::of(&sessions, &facts.name);
        match observe::observe(config, session, &facts.server, &facts.tables).await {
            Ok(state) if state.was_set_up() => {
                if !state.event_triggers.release_columns() {
                    problems.push(check::without_event_triggers(&facts.name));
                }
                let named = |name: &str| config.nodes.iter().any(|n| n.name.as_str() == name);
                let dropped = state.dropped.iter().filter(|d| named(&d.node));
                problems.extend(dropped.map(|dropped| check::dropped(&facts.name, dropped)));
                let mut damages = damage::damages(config, &state);
                match fingerprints::found(&session.client).await {
                    Ok(found) => damages.extend(damage::behind(&found)),
                    Err(error) => problems.push(check::unreadable(&facts.name, &error)),
                }
                problems.extend(
                    damages
                        .iter()
                        .map(|damage| check::damaged(&facts.name, damage)),
                );
            }
            Ok(_) => {}
            Err(error) => problems.push(check::unreadable(&facts.name, &error)),
        }
    }
    // What keeps a node from being asked is a problem already.
    if facts.len() == config.nodes.len()
        && let Ok(states) = observe::observe_all(config, &sessions, &facts).await
    {
        problems.extend(broken_links(config, &states, &sessions).await);
    }
    problems.sort_by_key(|problem| problem.severity);
    problems
}

/// The verdict on every link that cannot go on, and once for its two nodes what each has alone.
async fn broken_links(config: &Config, states: &[NodeState], sessions: &[Session]) -> Vec<Problem> {
    let mut problems: Vec<Problem> = Vec::new();
    let mut looked: Vec<LinkName> = Vec::new();
    for finding in links::findings(config, states) {
        let back = LinkName {
            from: finding.link.to.clone(),
            to: finding.link.from.clone(),
        };
        let apart = if looked.contains(&back) {
            None
        } else {
            apart::look(&finding, states, sessions).await
        };
        looked.push(finding.link.clone());
        problems.push(check::broken(
            &finding,
            apart.map(|apart| apart.to_string()),
        ));
    }
    problems
}

/// A daemon's look at its own server.
pub struct Inspector {
    config: Config,
    session: Session,
    glance: tokio_postgres::Statement,
}

impl Inspector {
    /// Connects to `node`.
    pub async fn connect(config: &Config, node: &crate::config::Node) -> Result<Self, InitError> {
        let name = format!("mmrepl {} {} inspection", config.cluster, node.name);
        let session = Session::open_as(&name, node).await;
        let session = session.map_err(InitError::wire(&node.name, "connect"))?;
        Ok(Self {
            config: config.clone(),
            glance: observe::prepare_glance(&session).await?,
            session,
        })
    }

    /// Everything that is not as `init` made it.
    pub async fn damages(&self) -> Result<Vec<Damage>, InitError> {
        let failed = || InitError::catalog(self.session.name());
        let lost = made::lost_tables(&self.session.client).await;
        if let Some(damage) = damage::lost_tables(&lost.map_err(failed())?) {
            return Ok(vec![damage]);
        }
        fingerprints::note(&self.session).await?;
        let state = observe::observe_own(&self.config, &self.session).await?;
        // Noted before it is told: whoever mends the publication next leaves a gap behind.
        let note = gaps::note(&state);
        if state.pending.is_empty() && !note.is_empty() {
            self.session.transaction("note a gap", &note).await?;
        }
        let mut damages = damage::damages(&self.config, &state);
        let tables: Vec<_> = state
            .tables
            .iter()
            .map(|state| state.table.clone())
            .collect();
        let rights = check::gather::rights(&self.session.client, &state.server, &tables).await;
        damages.extend(damage::rights(
            &state.server.user,
            &rights.map_err(failed())?,
        ));
        Ok(damages)
    }

    /// A text that changes with what matters most, at next to no cost: whether anything is sent.
    pub async fn glance(&self) -> Result<String, InitError> {
        observe::glance(&self.session, &self.glance).await
    }
}
