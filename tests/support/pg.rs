//! Talking to a server as an application would.

use std::fmt::Write as _;

use tokio_postgres::{Client, Error, NoTls, SimpleQueryMessage};

/// Settings under which two servers print equal values as equal text.
const PINNED: &str = "-c datestyle=ISO,YMD -c intervalstyle=postgres -c timezone=UTC \
    -c extra_float_digits=3 -c bytea_output=hex -c client_min_messages=warning";

/// One row of text, as the server prints it.
pub type TextRow = Vec<Option<String>>;

/// Connects; the connection lives as long as the client.
pub async fn try_connect(dsn: &str) -> Result<Client, Error> {
    let mut config: tokio_postgres::Config = dsn.parse()?;
    config.options(PINNED).application_name("mmrepl test");
    config.connect_timeout(std::time::Duration::from_secs(10));
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(async move {
        // A server that goes away ends the client's calls with an error too.
        let _ = connection.await;
    });
    Ok(client)
}

/// Connects, or fails the test.
pub async fn connect(dsn: &str) -> Client {
    try_connect(dsn)
        .await
        .unwrap_or_else(|error| panic!("{dsn}: {}", explain(&error)))
}

/// Runs statements, or fails the test with the server's words.
pub async fn execute(client: &Client, sql: &str) {
    let shown: String = sql.chars().take(300).collect();
    client
        .batch_execute(sql)
        .await
        .unwrap_or_else(|error| panic!("{shown}: {}", explain(&error)));
}

/// All rows of a query as text.
pub async fn rows(client: &Client, sql: &str) -> Vec<TextRow> {
    try_rows(client, sql)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {}", explain(&error)))
}

/// All rows of a query as text.
pub async fn try_rows(client: &Client, sql: &str) -> Result<Vec<TextRow>, Error> {
    let messages = client.simple_query(sql).await?;
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some(
            (0..row.len())
                .map(|i| row.get(i).map(str::to_owned))
                .collect(),
        ),
        _ => None,
    };
    Ok(messages.iter().filter_map(row).collect())
}

/// The only value of a query.
pub async fn value(client: &Client, sql: &str) -> String {
    let found = rows(client, sql).await;
    let first = found.first().and_then(|row| row.first()).cloned().flatten();
    first.unwrap_or_else(|| panic!("{sql}: no value"))
}

/// A client error with what the server said.
pub fn explain(error: &Error) -> String {
    let mut text = error.to_string();
    if let Some(server) = error.as_db_error() {
        let _ = write!(text, ": {} {}", server.code().code(), server.message());
        if let Some(detail) = server.detail() {
            let _ = write!(text, " ({detail})");
        }
    }
    text
}
