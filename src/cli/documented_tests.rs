//! Every command that the documents name must be one that the program understands.

use std::path::Path;

use clap::Parser;
use clap::error::ErrorKind;

use super::Cli;

/// What a document may say about a command without writing it whole.
const UNFINISHED: [ErrorKind; 4] = [
    ErrorKind::MissingRequiredArgument,
    ErrorKind::DisplayHelp,
    ErrorKind::DisplayVersion,
    ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
];

fn documents() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [
        root.to_owned(),
        root.join("docs"),
        root.join("docs/decisions"),
    ];
    let entries = folders
        .iter()
        .flat_map(|dir| std::fs::read_dir(dir).unwrap());
    let paths = entries.map(|entry| entry.unwrap().path());
    let documents = paths.filter(|path| path.extension().is_some_and(|end| end == "md"));
    documents
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            (path.display().to_string(), text)
        })
        .collect()
}

/// What stands in single backquotes, blocks left out; a command may go on in the next line.
fn quoted(text: &str) -> Vec<String> {
    let outside = text.split("```").step_by(2);
    let spans = outside.flat_map(|part| part.split('`').skip(1).step_by(2));
    spans
        .map(|span| span.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

/// Lines of blocks behind a prompt, `$ ` or `east$ `.
fn typed(text: &str) -> Vec<String> {
    let blocks = text.split("```").skip(1).step_by(2);
    let lines = blocks.flat_map(str::lines);
    lines
        .filter_map(|line| Some(line.split_once("$ ")?.1.to_owned()))
        .collect()
}

/// The words of a command of ours; nothing where the text is none. What the shell would take for
/// itself, a comment or a file to write to, ends it.
fn words(command: &str) -> Option<Vec<String>> {
    let mut words: Vec<String> = Vec::new();
    for word in command.split_whitespace() {
        if word.starts_with('#') || word == ">" || word == "|" {
            break;
        }
        words.push(word.trim_matches('\'').to_owned());
    }
    // `mmrepl <cluster> prune` is the name of a session.
    let is_ours = words.first().is_some_and(|first| first == "mmrepl");
    (is_ours && words.len() > 1 && !words[1].starts_with('<')).then_some(words)
}

/// Placeholders such as `LSN` stand for a value of their kind.
fn filled_in(words: &[String]) -> Vec<String> {
    let value = |word: &String| match word.as_str() {
        "LINK" => "east->west".to_owned(),
        "LSN" => "0/17EA0E8".to_owned(),
        "NODE" | "NAME" => "east".to_owned(),
        "ID" => "east-17".to_owned(),
        _ => word.clone(),
    };
    words.iter().map(value).collect()
}

#[test]
fn commands_in_documents_are_understood() {
    let (mut tried, mut wrong) = (0, Vec::new());
    for (path, text) in documents() {
        let commands = quoted(&text).into_iter().chain(typed(&text));
        for words in commands.filter_map(|command| words(&command)) {
            tried += 1;
            let parsed = Cli::try_parse_from(filled_in(&words));
            let error = parsed.err().filter(|e| !UNFINISHED.contains(&e.kind()));
            wrong.extend(error.map(|error| format!("{path}: {}\n{error}", words.join(" "))));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(tried > 50, "only {tried} commands were found");
}

#[test]
fn commands_are_found_in_text_and_blocks() {
    let text = "Run `mmrepl check\n--json`, not `mmrepl <cluster> prune` or `psql`.\n\
                ```console\n\
                $ mmrepl check --script west > west.sql   # or east\n\
                east$ mmrepl status\n\
                ```\n";
    let found = |commands: Vec<String>| {
        let words = commands.iter().filter_map(|command| words(command));
        words.map(|words| words.join(" ")).collect::<Vec<_>>()
    };
    assert_eq!(found(quoted(text)), ["mmrepl check --json"]);
    let typed = found(typed(text));
    assert_eq!(typed, ["mmrepl check --script west", "mmrepl status"]);
}
