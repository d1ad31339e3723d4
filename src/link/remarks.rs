//! What an operator should know of tables, told where the target's rows show that it is true.
//!
//! That is a question to the server, which may take a while: it is asked beside the applying.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::apply::Remark;
use crate::ids::LinkName;
use crate::status::monitor::LinkMonitor;

/// A table that is not read in this time may well have such a row.
const QUESTION_LIMIT: &str = "set local statement_timeout = '3s'";

/// What was told already.
#[derive(Clone, Debug, Default)]
pub(super) struct Remarks(Arc<Mutex<BTreeSet<String>>>);

impl Remarks {
    /// Tells the remark once, should it be true.
    pub(super) fn tell(
        &self,
        remark: Remark,
        target: Arc<Client>,
        (link, monitor): (LinkName, LinkMonitor),
    ) {
        let told = self.clone();
        tokio::spawn(async move {
            if may_be_true(&target, &remark.question).await && told.is_new(&remark.text) {
                let text = remark.text;
                tracing::warn!(%link, "{text}");
                monitor.notice(text);
            }
        });
    }

    fn is_new(&self, text: &str) -> bool {
        // A set of texts is whole whenever its holder stopped.
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.insert(text.to_owned())
    }
}

/// One message of two statements is one transaction, whatever else the session is asked.
async fn may_be_true(target: &Client, question: &str) -> bool {
    let asked = format!("{QUESTION_LIMIT}; {question}");
    let Ok(answers) = target.simple_query(&asked).await else {
        return true;
    };
    answers.iter().any(|answer| match answer {
        SimpleQueryMessage::Row(row) => row.try_get(0).ok().flatten() != Some("f"),
        _ => false,
    })
}
