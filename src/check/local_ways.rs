//! Whether `local_dsn` of each node leads where its `dsn` does, as far as that shows from here.
//!
//! A Unix-domain socket means another server on another host: where it leads to another node's
//! server, this is that node's host, and its own way is another one.

use super::Problem;
use super::facts::NodeFacts;
use crate::catalog::server::{Server, read_server};
use crate::config::conninfo::ConnInfo;
use crate::config::{Config, Node};
use crate::wire::control;

/// The problems that show from here.
pub async fn check(config: &Config, nodes: &[NodeFacts]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for node in &config.nodes {
        let facts = nodes.iter().find(|facts| facts.name == node.name);
        if let (Some(facts), Some(local)) = (facts, reached(config, node).await) {
            problems.extend(judge(node, (facts, &local), nodes));
        }
    }
    problems
}

/// What answers there; nothing where nobody does, as on every other host.
async fn reached(config: &Config, node: &Node) -> Option<Server> {
    let name = format!("mmrepl {} check", config.cluster);
    let client = control(node.local_dsn.as_ref()?, &name).await.ok()?;
    read_server(&client).await.ok()
}

fn judge(node: &Node, (own, local): (&NodeFacts, &Server), all: &[NodeFacts]) -> Option<Problem> {
    let difference = local.difference(&own.server)?;
    let mut others = all.iter().filter(|facts| facts.name != node.name);
    let elsewhere = others.any(|facts| facts.server.system_id == local.system_id);
    if elsewhere && local.system_id != own.server.system_id {
        return None;
    }
    let way = node.local_dsn.as_ref().map(ConnInfo::describe);
    let what = format!(
        "local_dsn ({}) and dsn ({}) lead to two servers: {difference}",
        way.unwrap_or_default(),
        node.dsn.describe()
    );
    let advice = "make both lead to the same server and database, or take local_dsn out";
    Some(Problem::error(&node.name, what).note(advice))
}
