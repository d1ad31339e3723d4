//! Holding links back, so that nodes write without hearing of each other.

use mmrepl::lsn::Lsn;

use super::wait::ensure;
use super::{Cluster, LIMIT, Node, pg, wait_until};

impl Cluster {
    fn links(&self) -> Vec<(&'static str, &'static str)> {
        let names = || self.nodes.iter().map(|node| node.name);
        let pairs = names().flat_map(|from| names().map(move |to| (from, to)));
        pairs.filter(|(from, to)| from != to).collect()
    }

    /// Pauses every link.
    pub async fn pause_all(&self) {
        for (from, to) in self.links() {
            self.mmrepl_ok(&["pause", &format!("{from}->{to}")]).await;
        }
        for (from, to) in self.links() {
            self.wait_state(from, to, &["paused"]).await;
        }
    }

    /// Resumes every link.
    pub async fn resume_all(&self) {
        for (from, to) in self.links() {
            self.mmrepl_ok(&["resume", &format!("{from}->{to}")]).await;
        }
    }

    /// Writes of both nodes, east's first, neither knowing of the other's.
    pub async fn write_unknowing(&self, east: &str, west: &str) {
        self.pause_all().await;
        self.east().sql(east).await;
        self.west().sql(west).await;
        self.resume_all().await;
    }

    /// The same; then both become equal.
    pub async fn write_apart(&self, east: &str, west: &str) {
        self.write_unknowing(east, west).await;
        self.wait_equal().await;
    }

    /// One node writes, and all become equal.
    pub async fn write_on(&self, node: &Node, sql: &str) {
        node.sql(sql).await;
        self.wait_equal().await;
    }

    /// Lets one paused link through until it has applied what is written, and pauses it again.
    pub async fn let_through(&self, from: &str, to: &str) {
        let link = format!("{from}->{to}");
        self.mmrepl_ok(&["resume", &link]).await;
        let client = self.node(from).client().await;
        let end = pg::value(&client, "select pg_current_wal_flush_lsn()").await;
        let end: Lsn = end.parse().unwrap();
        wait_until(&format!("{link} to reach {end}"), LIMIT, async || {
            let status = self.link_status(from, to).await?;
            let applied = status["lsn"]["applied"].as_str().unwrap_or("0/0");
            let applied: Lsn = applied.parse().unwrap();
            ensure(applied >= end, || status.to_string())
        })
        .await;
        self.mmrepl_ok(&["pause", &link]).await;
        self.wait_state(from, to, &["paused"]).await;
    }
}
