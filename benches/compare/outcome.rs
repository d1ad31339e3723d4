//! How a case ended.

use crate::cases::Case;

/// Of one case with one system.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Both nodes have these rows; what is nevertheless wrong with them.
    Equal(String, Option<&'static str>),
    /// They have not: east's and west's.
    Different(String, String),
    /// Changes no longer get through: the SQLSTATE, or what else happened, and a sentence.
    Stopped(String, String),
}

impl Outcome {
    /// `rows` of east and west, table by table; whether some of them break a promise.
    pub(crate) fn of(case: &Case, rows: [Vec<String>; 2], broken: bool) -> Self {
        let [east, west] = rows;
        if east != west {
            return Self::Different(shown(&east), shown(&west));
        }
        let rows = shown(&east);
        let lost = case.wanted.is_some_and(|wanted| rows != wanted);
        let flaw = match case.broken {
            _ if lost => Some(case.flaw),
            Some((_, name)) if broken => Some(name),
            _ => None,
        };
        Self::Equal(rows, flaw)
    }

    pub(crate) fn cell(&self) -> String {
        match self {
            Self::Equal(_, None) => "equal".to_owned(),
            Self::Equal(_, Some(flaw)) => format!("equal ({flaw})"),
            Self::Different(..) => "DIFFERENT".to_owned(),
            Self::Stopped(code, _) => format!("STOPPED ({code})"),
        }
    }

    /// What the table has no room for.
    pub(crate) fn detail(&self) -> String {
        match self {
            Self::Equal(rows, _) => format!("both have {rows}"),
            Self::Different(east, west) => format!("east has {east}, west has {west}"),
            Self::Stopped(_, sentence) => sentence.clone(),
        }
    }
}

/// Rows for a person: the dots that fill large values are left out.
fn shown(tables: &[String]) -> String {
    let joined = tables.join("; ");
    let parts: Vec<&str> = joined
        .split("....")
        .filter(|part| !part.is_empty())
        .collect();
    parts.join("…")
}
