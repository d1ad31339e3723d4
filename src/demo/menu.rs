//! A numbered menu for a person.

use std::io::{BufRead as _, Write as _};

use tokio::sync::mpsc;

use super::DemoError;
use super::acts::{EAST, WEST};
use super::stage::Stage;

const MENU: &str = "
 1  write on east         an order is placed there
 2  write on west         the same on the other side
 3  same row on both      both sides rename product 3; cut the links first to see them differ
 4  cut the links         both sides go on alone (mmrepl pause)
 5  join the links        and they catch up (mmrepl resume)
 6  kill -9 a daemon      of east
 7  kill -9 a server      of west
 8  bring back            whatever is down
 9  look                  both tables side by side, and mmrepl status
 q  quit                  stops and removes everything";

/// Who orders; goes round.
const CUSTOMERS: [&str; 6] = ["Ann", "Bob", "Cleo", "Dan", "Eve", "Finn"];

/// Asks and does until the person quits or the input ends.
pub(super) async fn run(stage: &mut Stage) -> Result<(), DemoError> {
    stage.first_products().await?;
    println!("both daemons run; connect with psql if you like:");
    for node in &stage.nodes {
        println!("  {}: {}", node.name, node.dsn());
    }
    let mut lines = read_lines();
    for turn in 0.. {
        println!("{MENU}");
        print!("> ");
        // A prompt that cannot be shown is no reason to stop.
        let _ = std::io::stdout().flush();
        let Some(line) = lines.recv().await else {
            break;
        };
        if line.trim() == "q" {
            break;
        }
        // What failed is told, and the person chooses what to do about it.
        if let Err(error) = act(stage, line.trim(), turn).await {
            println!("  that did not work: {error}");
        }
    }
    println!("stopping everything");
    Ok(())
}

async fn act(stage: &mut Stage, choice: &str, turn: usize) -> Result<(), DemoError> {
    let customer = CUSTOMERS[turn % CUSTOMERS.len()];
    let product = if turn.is_multiple_of(2) { 1 } else { 2 };
    match choice {
        "1" => stage.order(EAST, customer, product).await,
        "2" => stage.order(WEST, customer, product).await,
        "3" => stage.same_row().await,
        "4" => stage.cut_links().await,
        "5" => stage.join_links().await,
        "6" => {
            stage.kill_daemon(EAST);
            Ok(())
        }
        "7" => {
            stage.kill_server(WEST);
            Ok(())
        }
        "8" => stage.bring_back(),
        "9" => look(stage).await,
        "" => Ok(()),
        other => {
            println!("  there is no `{other}`; choose 1 to 9, or q");
            Ok(())
        }
    }
}

async fn look(stage: &Stage) -> Result<(), DemoError> {
    stage.show_tables().await;
    println!(
        "{}",
        if stage.equal().await {
            "the nodes are equal"
        } else {
            "the nodes differ"
        }
    );
    stage.show_status().await
}

/// Lines of standard input, read by a thread of their own: a blocking read cannot be cancelled, and
/// must not keep Ctrl-C waiting.
fn read_lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
