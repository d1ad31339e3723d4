//! Which module of `src/` names which others: read from `use` and from paths in the code.
//!
//! A name that a module hands on (`pub use`) counts as its maker's, so handing on is no import.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Source, product};

/// `a::b::c` in its parts.
type Path = Vec<String>;

/// What a module names, and what it hands on or brings in under a name.
#[derive(Default)]
struct Named {
    uses: Vec<Path>,
    brought: BTreeMap<String, Path>,
}

/// What each file names.
pub(crate) struct Imports {
    /// For each file, the other files that it names.
    pub(crate) of: BTreeMap<String, BTreeSet<String>>,
    /// For each file, what it names in other files: each file with the name.
    pub(crate) items: BTreeMap<String, BTreeSet<(String, String)>>,
    /// For each file, what it names outside the crate.
    pub(crate) outside: BTreeMap<String, BTreeSet<String>>,
}

impl Imports {
    /// Of the product.
    pub(crate) fn read() -> Self {
        Self::of(&product())
    }

    /// Of these files.
    pub(crate) fn of(sources: &[Source]) -> Self {
        let modules: BTreeMap<Path, &Source> = sources
            .iter()
            .filter(|source| source.path != "src/main.rs")
            .map(|source| (module_of(&source.path), source))
            .collect();
        let named: BTreeMap<&Path, Named> = modules
            .iter()
            .map(|(module, source)| (module, named(module, source, &modules)))
            .collect();
        let mut read = Self {
            of: BTreeMap::new(),
            items: BTreeMap::new(),
            outside: BTreeMap::new(),
        };
        for (module, source) in &modules {
            let uses = named[module].uses.iter();
            let made = uses.filter_map(|path| maker(path, &modules, &named));
            let others = made.filter(|(file, _)| *file != source.path);
            let items: BTreeSet<(String, String)> = others.collect();
            let files = items.iter().map(|(file, _)| file.clone()).collect();
            let path = source.path.clone();
            read.of.insert(path.clone(), files);
            read.items.insert(path.clone(), items);
            read.outside.insert(path, outside_names(&source.product()));
        }
        read
    }

    /// Every file that `file` leads to.
    pub(crate) fn reached(&self, file: &str) -> BTreeSet<&str> {
        let mut reached = BTreeSet::new();
        let mut next = vec![file];
        while let Some(file) = next.pop() {
            for other in self.of.get(file).into_iter().flatten() {
                if reached.insert(other.as_str()) {
                    next.push(other);
                }
            }
        }
        reached
    }
}

/// `src/apply/sql/names.rs` is `apply::sql::names`.
fn module_of(path: &str) -> Path {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs");
    let parts = path
        .split('/')
        .filter(|part| !["lib", "mod"].contains(part));
    parts.map(str::to_owned).collect()
}

fn named(module: &Path, source: &Source, modules: &BTreeMap<Path, &Source>) -> Named {
    let mut named = Named::default();
    let text = source.product();
    let (statements, rest) = use_statements(&text);
    for statement in statements {
        for (path, name) in leaves(&statement.tree) {
            let Some(path) = absolute(&path, module, modules) else {
                continue;
            };
            if !statement.is_nested {
                named.brought.insert(name, path.clone());
            }
            if !statement.is_public {
                named.uses.push(path);
            }
        }
    }
    for path in paths_in(&rest) {
        let brought = path.first().and_then(|first| named.brought.get(first));
        let path = match brought {
            Some(brought) => Some([brought, &path[1..]].concat()),
            None => absolute(&path, module, modules),
        };
        named.uses.extend(path);
    }
    named
}

/// From the crate's root; nothing where it leads out of the crate.
fn absolute(path: &[String], module: &Path, modules: &BTreeMap<Path, &Source>) -> Option<Path> {
    let (first, rest) = path.split_first()?;
    let mut base = module.clone();
    match first.as_str() {
        "crate" => base.clear(),
        "self" => {}
        "super" => drop(base.pop()),
        child => {
            base.push(child.to_owned());
            return modules.contains_key(&base).then(|| [&base, rest].concat());
        }
    }
    base.extend_from_slice(rest);
    Some(base)
}

/// The file of the module that makes what a path names, and the name that it has there; no name
/// for the module itself.
fn maker(
    path: &Path,
    modules: &BTreeMap<Path, &Source>,
    named: &BTreeMap<&Path, Named>,
) -> Option<(String, String)> {
    let mut path = path.clone();
    for _ in 0..10 {
        let length = (0..=path.len()).rev();
        let length = length
            .into_iter()
            .find(|n| modules.contains_key(&path[..*n]))?;
        let (module, rest) = path.split_at(length);
        let brought = rest
            .first()
            .and_then(|name| named[&module.to_vec()].brought.get(name));
        match brought {
            Some(brought) if *brought != path => path = [brought, &rest[1..]].concat(),
            _ => {
                let name = rest.first().cloned().unwrap_or_default();
                return Some((modules[module].path.clone(), name));
            }
        }
    }
    None
}

/// One `use`, its tree without white space.
struct Use {
    tree: String,
    is_public: bool,
    /// In a function, or in a module within the file.
    is_nested: bool,
}

/// Every `use` of a text, and the text without them.
fn use_statements(text: &str) -> (Vec<Use>, String) {
    let (mut statements, mut rest) = (Vec::new(), String::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some((before, tree)) = use_on(line) else {
            rest.push_str(line);
            rest.push('\n');
            continue;
        };
        let mut tree = tree.to_owned();
        while !tree.contains(';') {
            tree.push(' ');
            tree.push_str(lines.next().unwrap_or(";").trim());
        }
        statements.push(Use {
            tree: tree.split(';').next().unwrap_or("").to_owned(),
            is_public: before.starts_with("pub"),
            is_nested: line.starts_with(' '),
        });
    }
    (statements, rest)
}

/// What stands before `use` on a line that begins one, and after it.
fn use_on(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_start();
    let (before, after) = line.split_once("use ")?;
    let is_visibility = before.is_empty() || (before.starts_with("pub") && before.ends_with(' '));
    is_visibility.then_some((before, after))
}

/// The paths that a tree of `use` stands for, each with the name that it brings in.
fn leaves(tree: &str) -> Vec<(Path, String)> {
    let tree = tree.trim();
    let Some((before, group)) = tree.split_once('{') else {
        let (path, alias) = tree.split_once(" as ").unwrap_or((tree, ""));
        let mut path: Path = path
            .split("::")
            .map(|part| part.trim().to_owned())
            .collect();
        if path
            .last()
            .is_some_and(|last| last == "self" && path.len() > 1)
        {
            path.pop();
        }
        let last = path.last().cloned().unwrap_or_default();
        let name = if alias.is_empty() {
            last
        } else {
            alias.trim().to_owned()
        };
        return vec![(path, name)];
    };
    let group = group.trim_end().trim_end_matches('}');
    let group = &tree[before.len() + 1..before.len() + 1 + group.len()];
    let parts = split_outside_braces(group);
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    parts
        .flat_map(|part| leaves(&format!("{before}{}", part.trim())))
        .collect()
}

/// At commas that stand in no braces. The last brace of `group` may be missing.
fn split_outside_braces(group: &str) -> Vec<String> {
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        match parts.last_mut() {
            Some(last) if c != ',' || depth > 0 => last.push(c),
            _ => parts.push(String::new()),
        }
    }
    parts
}

/// Every `a::b` of a text, and what follows it. How far something is visible names nothing.
fn paths_in(text: &str) -> Vec<Path> {
    let text = text.replace("pub(in crate::", "pub(in ");
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = text
        .split(|c| !is_part(c))
        .filter(|word| word.contains("::"));
    let path = |word: &str| word.split("::").map(str::to_owned).collect::<Path>();
    words.map(path).collect()
}

/// Crates and modules of the standard library that a text names: `tokio`, `std::fs`.
fn outside_names(text: &str) -> BTreeSet<String> {
    let (statements, rest) = use_statements(text);
    let used = statements
        .into_iter()
        .flat_map(|statement| leaves(&statement.tree));
    let all = used.map(|(path, _)| path).chain(paths_in(&rest));
    let name = |path: Path| match path.as_slice() {
        [first, second, ..] if first == "std" => format!("std::{second}"),
        [first, ..] => first.clone(),
        [] => String::new(),
    };
    all.map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planted(files: &[(&str, &str)]) -> Imports {
        let sources: Vec<Source> = files
            .iter()
            .map(|(path, text)| Source::planted(path, text))
            .collect();
        Imports::of(&sources)
    }

    #[test]
    fn imports_are_read_in_every_form() {
        let imports = planted(&[
            ("src/lib.rs", "pub mod a;\npub mod b;\npub mod c;"),
            (
                "src/a/mod.rs",
                "mod one;\nmod two;\npub use one::{One, Two as Deux};",
            ),
            ("src/a/one.rs", "use super::two::{\n    self,\n};\n"),
            (
                "src/a/two.rs",
                "//! [`crate::b::B`]\npub(in crate::b) fn f() { crate::c::f() }\n",
            ),
            (
                "src/b.rs",
                "use crate::{a::{Deux, two::X}, c};\nfn f() { c::g() }\n",
            ),
            (
                "src/c.rs",
                "#[cfg(test)]\nmod tests {\n    use crate::b::B;\n}\n",
            ),
        ]);
        let of = |file: &str| {
            imports.of[file]
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
        };
        assert_eq!(of("src/a/mod.rs"), Vec::<&str>::new());
        assert_eq!(of("src/a/one.rs"), ["src/a/two.rs"]);
        assert_eq!(of("src/a/two.rs"), ["src/c.rs"]);
        assert_eq!(of("src/b.rs"), ["src/a/one.rs", "src/a/two.rs", "src/c.rs"]);
        assert_eq!(of("src/c.rs"), Vec::<&str>::new());
        let item = |file: &str, name: &str| (file.to_owned(), name.to_owned());
        let of_b = &imports.items["src/b.rs"];
        assert!(of_b.contains(&item("src/a/one.rs", "Two")), "{of_b:?}");
        assert!(of_b.contains(&item("src/c.rs", "g")), "{of_b:?}");
    }

    #[test]
    fn what_lies_outside_is_named_by_crate_and_module() {
        let text = "use std::{fs, collections::HashMap};\nfn f() { tokio::spawn(g()) }\n";
        let names = outside_names(text);
        for name in ["std::fs", "std::collections", "tokio"] {
            assert!(names.contains(name), "{name} is not in {names:?}");
        }
    }
}
