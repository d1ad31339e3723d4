//! What met what, and what became of it: the words of the conflict history.

use std::fmt;

use super::Verdict;

/// What an incoming change did on its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Made {
    /// Inserted a row.
    Insert,
    /// Updated a row in place.
    Update,
    /// Deleted a row.
    Delete,
    /// Gave a row another key: its old key goes, its new one comes.
    KeyChange,
}

/// An incoming write (first) and what the target held (second).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Both inserted the same key.
    InsertInsert,
    /// A row came back that had been deleted here.
    InsertDelete,
    /// Both changed the row.
    UpdateUpdate,
    /// It was changed there and deleted here.
    UpdateDelete,
    /// It was deleted there and written here.
    DeleteUpdate,
    /// It got another key there, and its old or new key was written here.
    KeyChange,
    /// The table was emptied there and the row written here.
    Truncate,
    /// It was given a unique value there that another row was given here.
    Unique,
}

impl Kind {
    /// `row`: the target holds a row, not the memory of a delete.
    pub const fn of(made: Made, row: bool) -> Self {
        match (made, row) {
            (Made::Insert, true) => Self::InsertInsert,
            (Made::Insert, false) => Self::InsertDelete,
            (Made::Update, true) => Self::UpdateUpdate,
            (Made::Update, false) => Self::UpdateDelete,
            (Made::Delete, _) => Self::DeleteUpdate,
            (Made::KeyChange, _) => Self::KeyChange,
        }
    }

    /// The word in the history.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InsertInsert => "insert_insert",
            Self::InsertDelete => "insert_delete",
            Self::UpdateUpdate => "update_update",
            Self::UpdateDelete => "update_delete",
            Self::DeleteUpdate => "delete_update",
            Self::KeyChange => "key_change",
            Self::Truncate => "truncate",
            Self::Unique => "unique",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Verdict {
    /// The word in the history.
    pub const fn outcome(self) -> &'static str {
        match self {
            Self::Apply => "applied",
            Self::Discard => "kept_local",
            Self::Merge => "merged",
        }
    }
}
