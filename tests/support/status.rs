//! What `mmrepl status --json` says.

use serde_json::Value;

use super::wait::ensure;
use super::{Cluster, LIMIT, wait_until};

impl Cluster {
    /// The whole status of the cluster, as the command prints it.
    pub async fn status(&self) -> Result<Value, String> {
        let output = self.mmrepl(&["status", "--json"]).await;
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text).map_err(|error| {
            format!(
                "{error}: {text} {}",
                String::from_utf8_lossy(&output.stderr)
            )
        })
    }

    /// One link's part of it.
    pub async fn link_status(&self, from: &str, to: &str) -> Result<Value, String> {
        let status = self.status().await?;
        let links = status["links"].as_array().ok_or("no links in the status")?;
        let found = links
            .iter()
            .find(|link| link["from"] == from && link["to"] == to);
        found
            .cloned()
            .ok_or_else(|| format!("no link {from}->{to} in {status}"))
    }

    /// Waits until a link is in one of these states; gives its status.
    pub async fn wait_state(&self, from: &str, to: &str, states: &[&str]) -> Value {
        wait_until(
            &format!("{from}->{to} to be {states:?}"),
            LIMIT,
            async || {
                let link = self.link_status(from, to).await?;
                let state = link["state"].as_str().unwrap_or("none");
                ensure(states.contains(&state), || link.to_string())?;
                Ok::<_, String>(link)
            },
        )
        .await
    }

    /// Waits until every link streams.
    pub async fn wait_streaming(&self) {
        for from in &self.nodes {
            for to in self.nodes.iter().filter(|to| to.name != from.name) {
                self.wait_state(from.name, to.name, &["streaming"]).await;
            }
        }
    }

    /// Waits until a link has the state and its reason holds the text (any letter case).
    pub async fn wait_reason(&self, link: (&str, &str), states: &[&str], text: &str) -> String {
        wait_until(
            &format!("{link:?} to be {states:?} with `{text}`"),
            LIMIT,
            async || {
                let found = self.link_status(link.0, link.1).await?;
                let state = found["state"].as_str().unwrap_or("none");
                let reason = found["reason"].as_str().unwrap_or("").to_owned();
                let fits = reason.to_lowercase().contains(&text.to_lowercase());
                ensure(states.contains(&state) && fits, || found.to_string())?;
                Ok::<_, String>(reason)
            },
        )
        .await
    }
}
