//! A server and a connection to its database.

use std::path::Path;

use mmrepl::local::{LocalServer, ServerBinaries, ServerOptions};
use tokio_postgres::{Client, NoTls};

/// A server and a connection to its database.
pub(crate) struct Side {
    pub(crate) server: LocalServer,
    pub(crate) client: Client,
}

impl Side {
    pub(crate) async fn start(
        binaries: &ServerBinaries,
        dir: &Path,
        options: &ServerOptions,
    ) -> Self {
        let (binaries, dir, options) = (binaries.clone(), dir.to_owned(), options.clone());
        let start = move || LocalServer::start_new(&binaries, &dir, &options);
        let started = tokio::task::spawn_blocking(start).await;
        let server = started
            .expect("starting does not panic")
            .expect("a server starts");
        let (client, connection) = tokio_postgres::connect(&server.dsn("postgres"), NoTls)
            .await
            .expect("it answers");
        tokio::spawn(connection);
        Self { server, client }
    }

    pub(crate) fn dsn(&self) -> String {
        self.server.dsn("postgres")
    }

    /// The way through the server's Unix-domain socket.
    #[allow(dead_code, reason = "one of the benches uses it")]
    pub(crate) fn socket_dsn(&self) -> String {
        let folder = self.server.socket_dir().expect("its path is short enough");
        let (folder, port) = (folder.display(), self.port());
        format!("host={folder} port={port} user=postgres dbname=postgres")
    }

    /// Where its server listens.
    pub(crate) fn port(&self) -> u16 {
        self.server.port()
    }

    pub(crate) async fn run(&self, sql: &str) {
        let done = self.client.batch_execute(sql).await;
        assert!(done.is_ok(), "{sql}: {done:?}");
    }

    pub(crate) async fn value(&self, sql: &str) -> String {
        let row = self
            .client
            .query_one(sql, &[])
            .await
            .expect("the query runs");
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }
}
