//! What a test asks of its cluster.

use mmrepl::local::ServerOptions;

use super::pool;

/// Names of nodes, in order. Ties between equal versions go to the one that sorts last.
pub const NAMES: [&str; 3] = ["east", "west", "north"];

/// How to make a [`super::Cluster`].
#[derive(Clone, Debug, Default)]
pub struct ClusterOptions {
    /// The server of each node.
    pub majors: Vec<u32>,
    /// Servers of the test's own, with these options per node; else shared ones.
    pub own: Option<Vec<ServerOptions>>,
    /// Put a proxy between every daemon and every server.
    pub proxied: bool,
    /// Encoding per node; UTF8 where the list ends.
    pub encodings: Vec<&'static str>,
    /// More text for the configuration file, such as `[tables]`.
    pub more_config: String,
    /// Environment of the daemons.
    pub daemon_env: Vec<(String, String)>,
}

impl ClusterOptions {
    /// One node per major.
    pub fn majors(majors: &[u32]) -> Self {
        Self {
            majors: majors.to_vec(),
            ..Self::default()
        }
    }

    /// Two nodes of the usual major.
    pub fn pair() -> Self {
        Self::majors(&[pool::usual_major(); 2])
    }

    /// Servers of the test's own.
    #[must_use]
    pub fn own_servers(self) -> Self {
        self.own_with(|_| ServerOptions::default())
    }

    /// Servers of the test's own that keep what they committed when they are killed.
    #[must_use]
    pub fn durable(self) -> Self {
        self.own_with(|_| ServerOptions::durable())
    }

    /// Servers of the test's own, each made as `options` says for its index.
    #[must_use]
    pub fn own_with(mut self, options: impl Fn(usize) -> ServerOptions) -> Self {
        self.own = Some((0..self.majors.len()).map(options).collect());
        self
    }

    /// With proxies; see [`super::Cluster::proxy`].
    #[must_use]
    pub fn proxied(mut self) -> Self {
        self.proxied = true;
        self
    }

    /// Encodings of the databases.
    #[must_use]
    pub fn encodings(mut self, encodings: &[&'static str]) -> Self {
        self.encodings = encodings.to_vec();
        self
    }

    /// More text for the configuration file.
    #[must_use]
    pub fn config(mut self, text: &str) -> Self {
        self.more_config.push_str(text);
        self
    }

    /// A variable for the daemons.
    #[must_use]
    pub fn daemon_env(mut self, name: &str, value: &str) -> Self {
        self.daemon_env.push((name.to_owned(), value.to_owned()));
        self
    }
}
