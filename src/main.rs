//! The `mmrepl` program.
#![forbid(unsafe_code)]

fn main() {}
