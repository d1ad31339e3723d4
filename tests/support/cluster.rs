//! A cluster under test: databases, configuration, daemons.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use mmrepl::local::{LocalServer, ServerOptions, free_port};
use tempfile::TempDir;
use tokio_postgres::Client;

use super::daemon::{Daemon, DaemonOptions, unexpected_errors};
use super::options::{ClusterOptions, NAMES};
use super::proxy::Proxy;
use super::{failures, pg, pool};

/// Shared by all tests of the process or this test's own.
enum Server {
    Shared(Arc<LocalServer>),
    Own(Box<LocalServer>),
}

impl Server {
    fn get(&self) -> &LocalServer {
        match self {
            Self::Shared(server) => server,
            Self::Own(server) => server,
        }
    }
}

/// One node: a database on a server.
pub struct Node {
    /// Its name in the configuration.
    pub name: &'static str,
    /// The database.
    pub dbname: String,
    /// Its daemon's HTTP port.
    pub admin_port: u16,
    server: Server,
}

impl Node {
    /// A superuser's connection string, past all proxies.
    pub fn dsn(&self) -> String {
        self.server.get().dsn(&self.dbname)
    }

    /// The server.
    pub fn server(&self) -> &LocalServer {
        self.server.get()
    }

    /// A session.
    pub async fn client(&self) -> Client {
        pg::connect(&self.dsn()).await
    }

    /// Runs statements in a session of their own.
    pub async fn sql(&self, sql: &str) {
        pg::execute(&self.client().await, sql).await;
    }

    /// All rows of a query as text.
    pub async fn rows(&self, sql: &str) -> Vec<pg::TextRow> {
        pg::rows(&self.client().await, sql).await
    }

    /// The only value of a query.
    pub async fn value(&self, sql: &str) -> String {
        pg::value(&self.client().await, sql).await
    }
}

/// Two or more nodes and what runs beside them.
pub struct Cluster {
    /// The cluster's name, unique in this process and likely on this machine.
    pub name: String,
    /// The nodes, in the order of [`NAMES`].
    pub nodes: Vec<Node>,
    dir: TempDir,
    daemons: HashMap<&'static str, Daemon>,
    /// By daemon and server.
    proxies: HashMap<(&'static str, &'static str), Proxy>,
    /// Texts of ERROR lines that this test expects.
    allowed_errors: Vec<String>,
    /// Environment of daemons started from now on.
    daemon_env: Vec<(String, String)>,
    more_config: String,
    /// How daemons reach their own servers, by node.
    local_dsns: HashMap<&'static str, String>,
    /// The role of commands and daemons, where it is not the superuser of tests.
    role: Option<String>,
}

impl Cluster {
    /// Makes databases and configuration. Nothing of mmrepl has run yet.
    pub async fn start(options: ClusterOptions) -> Self {
        failures::are_told_at_once();
        let name = unique_name();
        let mut nodes = Vec::new();
        for index in 0..options.majors.len() {
            nodes.push(make_node(&name, index, &options).await);
        }
        let dir = tempfile::Builder::new()
            .prefix("mmrepl-it-")
            .tempdir()
            .unwrap();
        let mut cluster = Self {
            name,
            nodes,
            dir,
            daemons: HashMap::new(),
            proxies: HashMap::new(),
            allowed_errors: Vec::new(),
            daemon_env: options.daemon_env,
            more_config: options.more_config,
            local_dsns: HashMap::new(),
            role: None,
        };
        if options.proxied {
            cluster.start_proxies().await;
        }
        cluster.write_configs();
        cluster
    }

    /// A pair of the usual major with these tables on both, `init` done and both daemons running.
    pub async fn running(schema: &str) -> Self {
        Self::running_with(ClusterOptions::pair(), schema).await
    }

    /// The same with other options.
    pub async fn running_with(options: ClusterOptions, schema: &str) -> Self {
        let mut cluster = Self::start(options).await;
        cluster.sql_everywhere(schema).await;
        cluster.init().await;
        cluster.start_daemons();
        cluster
    }

    /// The first node.
    pub fn east(&self) -> &Node {
        &self.nodes[0]
    }

    /// The second node.
    pub fn west(&self) -> &Node {
        &self.nodes[1]
    }

    /// A node by name.
    pub fn node(&self, name: &str) -> &Node {
        self.nodes
            .iter()
            .find(|node| node.name == name)
            .expect("a node of this cluster")
    }

    /// The server of a node, to kill it; only with servers of the test's own.
    pub fn server_mut(&mut self, name: &str) -> &mut LocalServer {
        let node = self
            .nodes
            .iter_mut()
            .find(|node| node.name == name)
            .expect("a node");
        match &mut node.server {
            Server::Own(server) => server,
            Server::Shared(_) => panic!("this test needs servers of its own to do that"),
        }
    }

    /// The DSN of a node leads to another server from now on; gives the one before.
    pub fn exchange_server(&mut self, name: &str, server: LocalServer) -> LocalServer {
        let before = std::mem::replace(self.server_mut(name), server);
        self.write_configs();
        before
    }

    /// The network between a daemon and a server.
    pub fn proxy(&self, daemon: &str, server: &str) -> &Proxy {
        let found = self
            .proxies
            .iter()
            .find(|((d, s), _)| *d == daemon && *s == server);
        found.expect("a cluster with proxies").1
    }

    /// Runs statements on every node.
    pub async fn sql_everywhere(&self, sql: &str) {
        for node in &self.nodes {
            node.sql(sql).await;
        }
    }

    /// The configuration file, with direct connections.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("cluster.toml")
    }

    /// Replaces the configuration file of commands and daemons.
    pub fn rewrite_config(&mut self, more: &str) {
        more.clone_into(&mut self.more_config);
        self.write_configs();
    }

    /// The daemon of a node reaches its own server this way from now on.
    pub fn set_local_dsn(&mut self, name: &str, dsn: &str) {
        let name = self.node(name).name;
        self.local_dsns.insert(name, dsn.to_owned());
        self.write_configs();
    }

    /// Commands and daemons log in as this role from now on.
    pub fn log_in_as(&mut self, role: &str) {
        self.role = Some(role.to_owned());
        self.write_configs();
    }

    /// What a daemon writes.
    pub fn log(&self, node: &str) -> String {
        std::fs::read_to_string(self.log_path(node)).unwrap_or_default()
    }

    /// Where a daemon keeps its checkpoints.
    pub fn data_dir(&self, node: &str) -> PathBuf {
        self.dir.path().join(format!("data-{node}"))
    }

    /// Runs `mmrepl` with this cluster's configuration.
    pub async fn mmrepl(&self, arguments: &[&str]) -> Output {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_mmrepl"));
        command
            .args(arguments)
            .arg("--config")
            .arg(self.config())
            .env("NO_COLOR", "1");
        command.kill_on_drop(true).output().await.unwrap()
    }

    /// Runs `mmrepl` and fails the test unless it succeeds; gives what it printed.
    pub async fn mmrepl_ok(&self, arguments: &[&str]) -> String {
        let output = self.mmrepl(arguments).await;
        let (out, err) = texts(&output);
        assert!(
            output.status.success(),
            "mmrepl {arguments:?}: {}\n{out}\n{err}",
            output.status
        );
        out
    }

    /// Runs `mmrepl`, fails the test if it succeeds, and gives its standard error.
    pub async fn mmrepl_fails(&self, arguments: &[&str]) -> String {
        let output = self.mmrepl(arguments).await;
        let (out, err) = texts(&output);
        assert!(
            !output.status.success(),
            "mmrepl {arguments:?} succeeded\n{out}\n{err}"
        );
        format!("{out}{err}")
    }

    /// `mmrepl init`.
    pub async fn init(&self) {
        self.mmrepl_ok(&["init"]).await;
    }

    /// Starts the daemon of every node.
    pub fn start_daemons(&mut self) {
        for index in 0..self.nodes.len() {
            self.start_daemon(self.nodes[index].name);
        }
    }

    /// Starts (again) the daemon of a node.
    pub fn start_daemon(&mut self, name: &str) {
        let name = self.node(name).name;
        let options = DaemonOptions {
            node: name.to_owned(),
            config: self.daemon_config(name),
            data_dir: self.data_dir(name),
            log: self.log_path(name),
            env: self.daemon_env.clone(),
        };
        self.daemons.insert(name, Daemon::start(&options));
    }

    /// A running daemon.
    pub fn daemon(&mut self, name: &str) -> &mut Daemon {
        self.daemons.get_mut(name).expect("a running daemon")
    }

    /// Takes a daemon out to end it.
    pub fn take_daemon(&mut self, name: &str) -> Daemon {
        self.daemons.remove(name).expect("a running daemon")
    }

    /// Ends all daemons in order; each must end well.
    pub fn stop_daemons(&mut self) {
        for (name, daemon) in self.daemons.drain() {
            let status = daemon.terminate();
            assert!(status.success(), "the daemon of {name} ended with {status}");
        }
    }

    /// Ends whatever daemons run, however they end.
    pub fn stop_daemons_quietly(&mut self) {
        for (_, daemon) in self.daemons.drain() {
            daemon.terminate();
        }
    }

    /// Daemons started from now on get this variable.
    pub fn set_daemon_env(&mut self, name: &str, value: &str) {
        self.daemon_env.retain(|(old, _)| old != name);
        self.daemon_env.push((name.to_owned(), value.to_owned()));
    }

    /// Daemons started from now on do not get this variable.
    pub fn clear_daemon_env(&mut self, name: &str) {
        self.daemon_env.retain(|(old, _)| old != name);
    }

    /// ERROR lines with this text are part of the test.
    pub fn allow_error(&mut self, text: &str) {
        self.allowed_errors.push(text.to_owned());
    }

    fn log_path(&self, node: &str) -> PathBuf {
        self.dir.path().join(format!("{node}.log"))
    }

    fn daemon_config(&self, node: &str) -> PathBuf {
        self.dir.path().join(format!("cluster-{node}.toml"))
    }

    async fn start_proxies(&mut self) {
        for daemon in &self.nodes {
            for server in &self.nodes {
                let proxy = Proxy::start(server.server().port()).await;
                self.proxies.insert((daemon.name, server.name), proxy);
            }
        }
    }

    /// One file for commands, and one for each daemon: the network between differs.
    fn write_configs(&self) {
        let direct = self.config_text(Node::dsn);
        std::fs::write(self.config(), direct).unwrap();
        for daemon in &self.nodes {
            let text = self.config_text(|server| self.daemon_dsn(daemon, server));
            std::fs::write(self.daemon_config(daemon.name), text).unwrap();
        }
    }

    fn daemon_dsn(&self, daemon: &Node, server: &Node) -> String {
        let Some(proxy) = self.proxies.get(&(daemon.name, server.name)) else {
            return server.dsn();
        };
        format!(
            "host=127.0.0.1 port={} user=postgres dbname={}",
            proxy.port(),
            server.dbname
        )
    }

    fn config_text(&self, dsn: impl Fn(&Node) -> String) -> String {
        let mut text = format!("[cluster]\nname = \"{}\"\n", self.name);
        for node in &self.nodes {
            let (name, mut dsn, port) = (node.name, dsn(node), node.admin_port);
            if let Some(role) = &self.role {
                dsn = dsn.replace("user=postgres", &format!("user={role}"));
            }
            let _ = write!(text, "\n[[node]]\nname = \"{name}\"\ndsn = \"{dsn}\"\n");
            if let Some(local) = self.local_dsns.get(name) {
                let _ = writeln!(text, "local_dsn = \"{local}\"");
            }
            let _ = writeln!(text, "admin = \"127.0.0.1:{port}\"");
        }
        text + &self.more_config
    }

    fn assert_quiet_logs(&self) {
        for node in &self.nodes {
            let errors = unexpected_errors(&self.log_path(node.name), &self.allowed_errors);
            assert!(
                errors.is_empty(),
                "the daemon of {} logged {errors:#?}",
                node.name
            );
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.daemons.clear();
        if std::thread::panicking() {
            self.dir.disable_cleanup(true);
            for node in &self.nodes {
                failures::tell_end_of_log(node.name, &self.log(node.name));
            }
            eprintln!("kept: {}", self.dir.path().display());
            return;
        }
        let shared = self
            .nodes
            .iter()
            .filter(|node| matches!(node.server, Server::Shared(_)));
        let databases = shared.map(|node| (node.server().dsn("postgres"), node.dbname.clone()));
        clean_up(databases.collect());
        self.assert_quiet_logs();
    }
}

/// Drops the databases of shared servers and their slots, which would pin WAL.
fn clean_up(databases: Vec<(String, String)>) {
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            for (dsn, dbname) in databases {
                drop_database(&dsn, &dbname).await;
            }
        });
    };
    // A runtime cannot be started on a thread that already drives one.
    std::thread::spawn(work).join().unwrap();
}

async fn drop_database(dsn: &str, dbname: &str) {
    let client = pg::connect(dsn).await;
    let end_sessions = format!(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{dbname}'"
    );
    let drop_slots = format!(
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots
         where database = '{dbname}' and not active"
    );
    let count = format!("select count(*) from pg_replication_slots where database = '{dbname}'");
    super::wait_until("slots to be dropped", super::LIMIT, async || {
        pg::try_rows(&client, &end_sessions)
            .await
            .map_err(|error| pg::explain(&error))?;
        pg::try_rows(&client, &drop_slots)
            .await
            .map_err(|error| pg::explain(&error))?;
        let left = pg::value(&client, &count).await;
        super::wait::ensure(left == "0", || format!("{left} slots left"))
    })
    .await;
    let origins = format!(
        "select pg_replication_origin_drop(roname) from pg_replication_origin
         where roname like 'mmrepl\\_{dbname}\\_%'"
    );
    let _ = pg::try_rows(&client, &origins).await;
    pg::execute(&client, &format!("drop database {dbname} with (force)")).await;
}

async fn make_node(cluster: &str, index: usize, options: &ClusterOptions) -> Node {
    let major = options.majors[index];
    let own = options.own.as_ref().map(|all| all[index].clone());
    let start = move || start_server(major, index, own);
    let server = tokio::task::spawn_blocking(start).await.unwrap();
    let encoding = options.encodings.get(index).copied().unwrap_or("UTF8");
    let admin = pg::connect(&server.get().dsn("postgres")).await;
    let create =
        format!("create database {cluster} template template0 encoding '{encoding}' locale 'C'");
    pg::execute(&admin, &create).await;
    let admin_port = free_port().unwrap();
    Node {
        name: NAMES[index],
        dbname: cluster.to_owned(),
        admin_port,
        server,
    }
}

fn start_server(major: u32, index: usize, own: Option<ServerOptions>) -> Server {
    match own {
        Some(options) => Server::Own(Box::new(pool::start(major, &options))),
        None => Server::Shared(pool::shared(major, index)),
    }
}

fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!(
        "t{}_{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}
