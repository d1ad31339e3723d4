//! Both nodes change the same rows without knowing of each other.

use std::time::Instant;

use mmrepl::local::ServerBinaries;

use crate::engine::Engine;
use crate::results::{Conflicts, Measured, Results};
use crate::rig::{Plan, Rig, wait_for};
use crate::settings::Settings;
use crate::side_of;

/// Rows that both nodes change.
const ROWS: u64 = 100_000;
const SCHEMA: &str = "create table t (id int primary key, v int not null, note text)";
/// Every conflict is recorded; by default a link records so many per minute and counts the rest.
const RULE: &str = "[conflict]\nhistory_per_minute = 100000000\n";

pub(crate) async fn measure(settings: &Settings, binaries: &ServerBinaries, results: &mut Results) {
    if !settings.wants("conflicts") {
        return;
    }
    let rows = settings.rows.unwrap_or(ROWS);
    for _ in settings.had(results, binaries.major, "conflicts")..settings.runs {
        let plan = Plan {
            engines: &[Engine::Mmrepl],
            schema: SCHEMA,
            rule: RULE,
            ..Plan::of(binaries)
        };
        let mut rig = Rig::start(&plan).await;
        let conflicts = settle(&mut rig, rows).await;
        let server = (binaries.major, &*side_of(&rig.source).await);
        let who = ("conflicts", Some(Engine::Mmrepl));
        results.add(server, who, Measured::Conflicts(conflicts));
    }
}

async fn settle(rig: &mut Rig, rows: u64) -> Conflicts {
    rig.fill(&format!(
        "insert into t select i, 0, 'before' from generate_series(1, {rows}) i"
    ))
    .await;
    rig.switch_all_off().await;
    // Which of the two is newer is different from row to row.
    for (source, order) in [(true, "i"), (false, "{n} + 1 - i")] {
        let change = format!(
            "do $$ begin for i in 1..{rows} loop
                update t set v = {} where id = {}; commit; end loop; end $$",
            if source { "1" } else { "2" },
            order.replace("{n}", &rows.to_string())
        );
        let side = if source {
            &rig.source
        } else {
            &rig.lanes[0].target
        };
        side.run(&change).await;
    }
    rig.step(2).await;
    rig.settle().await;
    rig.lanes[0].switch_on().await;
    rig.wait_for_stream().await;
    let started = Instant::now();
    rig.lanes[0].wait_for_step(2).await;
    let seconds = started.elapsed().as_secs_f64();
    let lane = &rig.lanes[0];
    let cost = lane.cost(&rig.source).await;
    let count = "select count(*)::text from mmrepl.conflict";
    let recorded = lane.target.value(count).await;
    // The other direction, so that both nodes end with the same rows.
    let _west = lane.start_daemon("west");
    lane.target.run("insert into done values (3)").await;
    let arrived = "select count(*)::text from done where step = 3";
    wait_for(&rig.source, arrived, |count| count == "1").await;
    lane.assert_equal(&rig.source, &["t".to_owned()]).await;
    Conflicts {
        rows,
        seconds,
        recorded: recorded.parse().expect("a count"),
        cost,
    }
}
