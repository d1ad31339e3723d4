//! What the network between two nodes that are far apart does: it delays, and limits nothing.

use std::time::Instant;

use mmrepl::local::ServerBinaries;
use tokio_postgres::{Client, NoTls};

use crate::common::Side;
use crate::drain::FAR;
use crate::engine::Engine;
use crate::proxy::{Mode, Proxy};
use crate::results::{Measured, Network, Results, median};
use crate::rig::{Plan, Rig};
use crate::settings::Settings;
use crate::side_of;

/// Round trips that are timed.
const ROUND_TRIPS: usize = 50;
/// What is sent to see how much fits through.
const MIB: u32 = 256;

pub(crate) async fn measure(settings: &Settings, binaries: &ServerBinaries, results: &mut Results) {
    if !settings.wants("rtt/network") {
        return;
    }
    let plan = Plan {
        engines: &[Engine::Native],
        schema: "create table t (id int primary key)",
        ..Plan::of(binaries)
    };
    let rig = Rig::start(&plan).await;
    let server = (binaries.major, &*side_of(&rig.source).await);
    let proxy = Proxy::start(rig.source.port()).await;
    for (part, mode) in [
        ("rtt/network/near", Mode::Open),
        ("rtt/network", Mode::Delayed(FAR)),
    ] {
        proxy.set(mode);
        let network = Network::seen_by(&connect(&rig.source, proxy.port()).await).await;
        results.add(server, (part, None), Measured::Network(network));
    }
}

async fn connect(side: &Side, port: u16) -> Client {
    let dsn = format!("host=127.0.0.1 port={port} user=postgres dbname=postgres");
    let connected = tokio_postgres::connect(&dsn, NoTls).await;
    let (client, connection) = connected.expect("the server answers through the proxy");
    tokio::spawn(connection);
    assert!(side.server.is_running(), "the server is there");
    client
}

impl Network {
    async fn seen_by(client: &Client) -> Self {
        let mut round_trips = Vec::new();
        for _ in 0..ROUND_TRIPS {
            let started = Instant::now();
            client.batch_execute("select 1").await.expect("it answers");
            round_trips.push(started.elapsed().as_secs_f64() * 1000.0);
        }
        let much = format!("select repeat('x', 1024 * 1024) from generate_series(1, {MIB})");
        let started = Instant::now();
        client.batch_execute(&much).await.expect("it answers");
        Self {
            query_ms: median(&round_trips),
            mib_per_second: f64::from(MIB) / started.elapsed().as_secs_f64(),
        }
    }
}
