//! What pglogical needs of a server.

use std::path::Path;

use mmrepl::local::{MAJORS, ServerBinaries};

use super::Side;

/// Debian's servers are the ones its package adds pglogical to.
pub(crate) fn find() -> Option<ServerBinaries> {
    let dirs = MAJORS
        .rev()
        .map(|major| format!("/usr/lib/postgresql/{major}"));
    let has_it = |dir: &String| Path::new(dir).join("lib/pglogical.so").is_file();
    dirs.filter(has_it)
        .find_map(|dir| ServerBinaries::at(&Path::new(&dir).join("bin")))
}

/// Newest minor versions have a list of the libraries that a slot may name.
pub(crate) async fn allow_output_plugin(side: &Side) {
    let known = "select count(*)::text from pg_settings where name = 'output_plugin_libraries'";
    if side.value(known).await == "1" {
        side.run(
            "alter system set output_plugin_libraries = pgoutput, test_decoding, pglogical_output",
        )
        .await;
        side.run("select pg_reload_conf()").await;
    }
}
