//! `mmrepl pause LINK` and `mmrepl resume LINK`.

use std::process::ExitCode;
use std::time::Duration;

use super::output;
use super::shared::ConfigArg;
use crate::admin::client::{Peer, post_control};
use crate::catalog::link_control::set_paused;
use crate::config::{Config, Node};
use crate::ids::LinkName;
use crate::status::gather::{sentence, silence};
use crate::wire::control;

/// The daemon writes one row on its server before it answers.
const DAEMON_TIMEOUT: Duration = Duration::from_secs(6);
const SERVER_TIMEOUT: Duration = Duration::from_secs(10);
const FAILED: u8 = 2;

/// The command line of `mmrepl pause` and `mmrepl resume`.
#[derive(Clone, Debug, clap::Args)]
pub struct ControlArgs {
    /// Which cluster.
    #[command(flatten)]
    pub config: ConfigArg,
    /// The link, in quotes because of the shell: 'east->west'
    pub link: LinkName,
    /// Print one JSON object for programs
    #[arg(long)]
    pub json: bool,
}

/// Who took the wish.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Taken {
    /// The daemon: it obeys at once.
    ByDaemon,
    /// The source's server, because the daemon could not (why): it obeys when it reads it.
    ByServer(String),
}

/// Pauses the link, or resumes it, and says so. Exit code 0, or 2 when nobody took the wish.
pub async fn run(args: &ControlArgs, paused: bool) -> ExitCode {
    let outcome = match args.config.load() {
        Ok(config) => set(&config, &args.link, paused).await,
        Err(error) => Err(sentence(&error)),
    };
    match outcome {
        Ok(taken) => {
            let report = report(args, paused, &taken);
            if args.json {
                output::json_text(&report);
            } else {
                output::line(&report);
            }
            ExitCode::SUCCESS
        }
        Err(sentence) => {
            output::error(&sentence);
            ExitCode::from(FAILED)
        }
    }
}

/// Asks the daemon; when that fails, writes the wish down where the daemon will find it.
async fn set(config: &Config, link: &LinkName, paused: bool) -> Result<Taken, String> {
    let (source, _) = config.link(link).map_err(|error| sentence(&error))?;
    let daemon = match ask_daemon(source, link, paused).await {
        Ok(()) => return Ok(Taken::ByDaemon),
        Err(sentence) => sentence,
    };
    let server = async {
        let name = format!("mmrepl {} control", config.cluster);
        let client = control(&source.dsn, &name)
            .await
            .map_err(|error| sentence(&error))?;
        set_paused(&client, link, paused)
            .await
            .map_err(|error| sentence(&error))
    };
    let wrote = tokio::time::timeout(SERVER_TIMEOUT, server).await;
    let wrote = wrote.unwrap_or_else(|_| Err("it does not answer in time".to_owned()));
    match wrote {
        Ok(()) => Ok(Taken::ByServer(daemon)),
        Err(error) => Err(format!(
            "{link} is unchanged: {daemon}; and its server {} cannot be told either: {error}",
            source.dsn.describe()
        )),
    }
}

async fn ask_daemon(source: &Node, link: &LinkName, paused: bool) -> Result<(), String> {
    let peer = Peer::of(source).await.map_err(|error| sentence(&error))?;
    let wish = (link, paused);
    let answer = post_control(peer.admin, peer.token.as_ref(), wish, DAEMON_TIMEOUT).await;
    answer.map_err(|error| silence(source, &error))
}

fn report(args: &ControlArgs, paused: bool, taken: &Taken) -> String {
    let link = &args.link;
    if args.json {
        let (via, note) = match taken {
            Taken::ByDaemon => ("daemon", None),
            Taken::ByServer(why) => ("server", Some(why)),
        };
        let link = link.to_string();
        let value = serde_json::json!({"link": link, "paused": paused, "via": via, "note": note});
        return value.to_string();
    }
    let done = if paused {
        format!("{link} is paused until `mmrepl resume '{link}'`")
    } else {
        format!("{link} is resumed")
    };
    match taken {
        Taken::ByDaemon => done,
        Taken::ByServer(why) => format!(
            "{done}; this is written on the server of {}, where a running daemon reads it within seconds ({why})",
            link.from
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ControlArgs,
    }

    fn args(json: bool) -> ControlArgs {
        let mut args = Line::parse_from(["pause", "east->west"]).args;
        args.json = json;
        args
    }

    #[test]
    fn only_a_link_is_taken() {
        assert!(Line::try_parse_from(["pause", "east"]).is_err());
        assert!(Line::try_parse_from(["pause"]).is_err());
    }

    #[test]
    fn the_report_says_who_took_the_wish() {
        let text = report(&args(false), true, &Taken::ByDaemon);
        assert_eq!(
            text,
            "east->west is paused until `mmrepl resume 'east->west'`"
        );
        assert_eq!(
            report(&args(false), false, &Taken::ByDaemon),
            "east->west is resumed"
        );
        let text = report(
            &args(false),
            false,
            &Taken::ByServer("the daemon is away".into()),
        );
        assert!(text.contains("on the server of east") && text.contains("the daemon is away"));
        let json = report(&args(true), true, &Taken::ByDaemon);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (&value["link"], &value["paused"]),
            (&"east->west".into(), &true.into())
        );
        assert_eq!(
            (&value["via"], &value["note"]),
            (&"daemon".into(), &().into())
        );
    }

    #[tokio::test]
    async fn when_nobody_can_be_told_both_reasons_are_given() {
        let node = |name: &str| {
            format!(
                "[[node]]\nname = \"{name}\"\ndsn = \"host=127.0.0.1 port=1 dbname={name} user=u\"\nadmin = \"127.0.0.1:{}\"\n",
                if name == "east" { 1 } else { 2 }
            )
        };
        let text = format!(
            "[cluster]\nname = \"shop\"\n{}{}",
            node("east"),
            node("west")
        );
        let config = crate::config::parse(&text, &|_| None).unwrap();
        let error = set(&config, &args(false).link, true).await.unwrap_err();
        assert!(
            error.starts_with("east->west is unchanged: the daemon of east"),
            "{error}"
        );
        assert!(
            error.contains("127.0.0.1:1/east cannot be told either"),
            "{error}"
        );
        let unknown = "east->north".parse().unwrap();
        assert!(
            set(&config, &unknown, true)
                .await
                .unwrap_err()
                .contains("north")
        );
    }
}
