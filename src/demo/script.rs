//! The whole tour without questions; fails if the nodes end different.

use super::DemoError;
use super::acts::{EAST, WEST};
use super::stage::Stage;

/// Plays every scene; after each one the nodes must become equal.
pub(super) async fn play(stage: &mut Stage) -> Result<(), DemoError> {
    writes_on_both_sides(stage).await?;
    a_conflict(stage).await?;
    a_delete_against_an_update(stage).await?;
    a_killed_daemon(stage).await?;
    a_killed_server(stage).await?;
    stage.wait_well().await?;
    stage.show_status().await?;
    let placed = stage.assert_nothing_lost().await?;
    println!("\nThe tour is over: both nodes are equal, and all {placed} orders are on both.");
    Ok(())
}

fn scene(title: &str) {
    println!("\n== {title}");
}

async fn until_equal(stage: &mut Stage) -> Result<(), DemoError> {
    let took = stage.wait_equal().await?;
    println!("  both nodes are equal after {:.1} s", took.as_secs_f64());
    stage.show_tables().await;
    Ok(())
}

async fn writes_on_both_sides(stage: &mut Stage) -> Result<(), DemoError> {
    scene("Writes on both sides arrive on both sides");
    stage.first_products().await?;
    stage.wait_equal().await?;
    stage.order(EAST, "Ann", 1).await?;
    stage.order(WEST, "Bob", 2).await?;
    until_equal(stage).await
}

async fn a_conflict(stage: &mut Stage) -> Result<(), DemoError> {
    scene("The links are cut, and both sides change the same row: the last write wins");
    stage.cut_links().await?;
    stage.same_row().await?;
    stage.show_tables().await;
    stage.join_links().await?;
    until_equal(stage).await
}

async fn a_delete_against_an_update(stage: &mut Stage) -> Result<(), DemoError> {
    scene("The links are cut; one side deletes what the other changes a moment later");
    stage.cut_links().await?;
    stage.delete_against_update().await?;
    stage.join_links().await?;
    until_equal(stage).await
}

async fn a_killed_daemon(stage: &mut Stage) -> Result<(), DemoError> {
    scene("A daemon dies in the middle of the work");
    stage.kill_daemon(EAST);
    stage.order(EAST, "Cleo", 1).await?;
    stage.order(WEST, "Dan", 3).await?;
    stage.show_status().await?;
    stage.bring_back()?;
    until_equal(stage).await
}

async fn a_killed_server(stage: &mut Stage) -> Result<(), DemoError> {
    scene("A server dies; the other side works on");
    stage.kill_server(WEST);
    for customer in ["Eve", "Finn", "Gus"] {
        stage.order(EAST, customer, 2).await?;
    }
    stage.show_tables().await;
    stage.bring_back()?;
    until_equal(stage).await
}
