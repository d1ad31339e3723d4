//! Looks whether the node's own server still has what `init` made (`damage`).

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Node};
use crate::init::{InitError, Inspector};
use crate::status::node::NodeMonitor;
use crate::wire::WireError;

/// How often everything is compared.
pub const PERIOD: Duration = Duration::from_secs(60);
/// How often it is asked whether anything was changed: without its publication a server of version
/// 18 leaves every write out of the stream and says nothing.
pub const GLANCE_EVERY: Duration = Duration::from_secs(2);
/// Between two looks at a server with damage: what was mended is not shown for long.
pub const PERIOD_DAMAGED: Duration = Duration::from_secs(5);
/// How long a server may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Inspects the server of `own` until `stop`.
pub async fn run(config: Config, own: Node, monitor: NodeMonitor, stop: CancellationToken) {
    let mut inspection = Inspection {
        config,
        own,
        monitor,
        inspector: None,
        glance: String::new(),
        inspected: None,
    };
    let inspecting = async {
        loop {
            let looked = timeout(ANSWER_LIMIT, inspection.look()).await;
            let (what, after) = ("an answer of the server".to_owned(), ANSWER_LIMIT);
            let late = |_| Err(WireError::Timeout { what, after }.to_string());
            if let Err(error) = looked.unwrap_or_else(late) {
                // A server that is away is shown by the links.
                tracing::debug!(node = %inspection.own.name, error, "the server was not inspected");
                inspection.inspector = None;
            }
            sleep(GLANCE_EVERY).await;
        }
    };
    stop.run_until_cancelled(inspecting).await;
}

struct Inspection {
    config: Config,
    own: Node,
    monitor: NodeMonitor,
    inspector: Option<Inspector>,
    glance: String,
    inspected: Option<Instant>,
}

impl Inspection {
    async fn look(&mut self) -> Result<(), String> {
        let said = |error: InitError| error.to_string();
        if self.inspector.is_none() {
            let inspector = Inspector::connect(&self.config, &self.own).await;
            self.inspector = Some(inspector.map_err(said)?);
        }
        let inspector = self.inspector.as_ref().expect("connected just above");
        let glance = inspector.glance().await.map_err(said)?;
        if !self.is_due(&glance) {
            return Ok(());
        }
        let damage = inspector.damages().await.map_err(said)?;
        (self.glance, self.inspected) = (glance, Some(Instant::now()));
        self.tell(damage);
        Ok(())
    }

    fn is_due(&self, glance: &str) -> bool {
        let damaged = !self.monitor.snapshot().damage.is_empty();
        let period = if damaged { PERIOD_DAMAGED } else { PERIOD };
        let waited = self.inspected.is_none_or(|at| at.elapsed() >= period);
        waited || self.glance != glance
    }

    /// Once per change.
    fn tell(&self, damage: Vec<crate::damage::Damage>) {
        let before = self.monitor.snapshot().damage;
        let node = &self.own.name;
        for damage in damage.iter().filter(|damage| !before.contains(damage)) {
            let (what, loses_rows, mend) = (&damage.what, damage.loses_rows, &damage.mend);
            tracing::warn!(%node, loses_rows, mend, "{what}");
        }
        if !before.is_empty() && damage.is_empty() {
            tracing::info!(%node, "the server has again what init made");
        }
        self.monitor.set_damage(damage);
    }
}
