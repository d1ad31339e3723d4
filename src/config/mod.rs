//! What the operator tells mmrepl.

pub mod conninfo;
