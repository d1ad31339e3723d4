//! No module leads to itself: what a file says can be read without those that read it.

use crate::imports::Imports;
use crate::source::{Source, assert_none};

/// Files that lead to themselves.
fn in_circles(imports: &Imports) -> Vec<String> {
    let leads_back = |file: &&String| imports.reached(file).contains(file.as_str());
    imports.of.keys().filter(leads_back).cloned().collect()
}

#[test]
fn imports_make_no_circle() {
    assert_none(&in_circles(&Imports::read()));
}

#[test]
fn a_planted_circle_is_found() {
    let imports = Imports::of(&[
        Source::planted("src/lib.rs", "mod a;\nmod b;\nmod c;\nmod d;"),
        Source::planted("src/a.rs", "use crate::b::B;"),
        Source::planted("src/b.rs", "fn f() { crate::c::g() }"),
        Source::planted("src/c.rs", "use super::a::A;\nuse crate::d::D;"),
        Source::planted("src/d.rs", ""),
    ]);
    assert_eq!(in_circles(&imports), ["src/a.rs", "src/b.rs", "src/c.rs"]);
}
