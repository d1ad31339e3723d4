//! Servers that tests share: one pair per major, started when first asked for.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use mmrepl::local::{LocalServer, MAJORS, ServerBinaries, ServerOptions, find_all};

type Slot = Arc<OnceLock<Arc<LocalServer>>>;

/// Shared servers never lose power, so they need not be safe against it.
static SHARED: OnceLock<Mutex<HashMap<(u32, usize), Slot>>> = OnceLock::new();
static BINARIES: OnceLock<Vec<ServerBinaries>> = OnceLock::new();

/// The major that tests use which do not care.
const USUAL: u32 = 17;

fn all_binaries() -> &'static [ServerBinaries] {
    BINARIES.get_or_init(find_all)
}

/// Whether this machine has servers of these majors. A test without them passes and says so,
/// unless `$MMREPL_REQUIRE_MAJORS` names one of them, as `make test` does with those that it could
/// provide.
pub fn have(majors: &[u32]) -> bool {
    let found = |major: &u32| {
        all_binaries()
            .iter()
            .any(|binaries| binaries.major == *major)
    };
    let missing: Vec<_> = majors.iter().filter(|major| !found(major)).collect();
    let required = std::env::var("MMREPL_REQUIRE_MAJORS").unwrap_or_default();
    let required: Vec<u32> = required
        .split_whitespace()
        .map(|word| word.parse().expect("MMREPL_REQUIRE_MAJORS lists majors"))
        .collect();
    assert!(
        !missing.iter().any(|major| required.contains(major)),
        "no server of {missing:?}: run tools/postgres.sh"
    );
    if !missing.is_empty() {
        println!("skipped: no server of {missing:?} on this machine");
    }
    missing.is_empty()
}

/// `$MMREPL_TEST_MAJOR`, else the usual one, else the newest found.
pub fn usual_major() -> u32 {
    let asked = std::env::var("MMREPL_TEST_MAJOR")
        .ok()
        .and_then(|text| text.parse().ok());
    let wanted = asked.unwrap_or(USUAL);
    let newest = all_binaries()
        .last()
        .expect("no server found: run tools/postgres.sh")
        .major;
    if have_quietly(wanted) { wanted } else { newest }
}

fn have_quietly(major: u32) -> bool {
    all_binaries()
        .iter()
        .any(|binaries| binaries.major == major)
}

/// The binaries of a major.
pub fn binaries(major: u32) -> &'static ServerBinaries {
    let wanted = |binaries: &&ServerBinaries| binaries.major == major;
    all_binaries()
        .iter()
        .find(wanted)
        .unwrap_or_else(|| panic!("no server of {major}"))
}

/// A client program of any installed major, such as `pgbench`.
pub fn tool(name: &str) -> Option<PathBuf> {
    let debian = |major: u32| PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
    let more = MAJORS.filter_map(|major| ServerBinaries::at(&debian(major)));
    all_binaries()
        .iter()
        .cloned()
        .chain(more)
        .find_map(|binaries| binaries.tool(name))
}

/// The shared server number `index` of a major. Blocks while it starts.
pub fn shared(major: u32, index: usize) -> Arc<LocalServer> {
    let mut pool = SHARED.get_or_init(Mutex::default).lock().unwrap();
    let slot = Arc::clone(pool.entry((major, index)).or_default());
    drop(pool);
    let mut options = ServerOptions::default()
        .with("max_replication_slots", "200")
        .with("max_wal_senders", "120")
        .with("max_connections", "400");
    if major >= 18 {
        // A setting of its own there, for the clusters of all tests together.
        options = options.with("max_active_replication_origins", "400");
    }
    Arc::clone(slot.get_or_init(|| Arc::new(start(major, &options))))
}

/// A server of its own. Blocks while it starts.
pub fn start(major: u32, options: &ServerOptions) -> LocalServer {
    let dir = tempfile::Builder::new()
        .prefix("mmrepl-pg-")
        .tempdir()
        .unwrap()
        .keep();
    LocalServer::start_new(binaries(major), &dir, options).unwrap_or_else(|error| panic!("{error}"))
}
