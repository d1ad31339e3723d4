//! `mmrepl demo`: two throw-away primaries and both daemons on this machine, for a person to play
//! with, or played through by itself.
//!
//! [`stage`] is what runs, [`acts`] what can be done to it, [`view`] what is seen of it, [`menu`]
//! lets a person choose, and [`script`] plays the whole tour and fails if the nodes end different.

mod acts;
mod error;
mod menu;
mod script;
mod stage;
mod view;

pub use error::DemoError;

/// Runs the demo until the person quits, the script ends, or Ctrl-C; everything that it started is
/// ended and removed in each case.
pub async fn run(script: bool) -> Result<(), DemoError> {
    tokio::select! {
        result = play(script) => result,
        _ = tokio::signal::ctrl_c() => {
            println!("\nstopping everything");
            Ok(())
        }
    }
}

async fn play(script: bool) -> Result<(), DemoError> {
    let mut stage = stage::Stage::set_up().await?;
    if script {
        script::play(&mut stage).await
    } else {
        menu::run(&mut stage).await
    }
}
