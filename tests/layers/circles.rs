//! No files need each other in a circle, but a file and its own submodules.
//!
//! Read are `use` and every other path, to the file that defines what it names. A call of a method names no path.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};

/// Sources by their path below `src`.
type Sources = BTreeMap<PathBuf, String>;
/// A source and its path.
type Source<'a> = (&'a str, &'a str);
/// The files that each file needs.
type Needs = BTreeMap<PathBuf, BTreeSet<PathBuf>>;
/// A path in the sources: `["super", "scope", "run_of"]`.
type Words = Vec<String>;

#[derive(Default)]
struct Module {
    file: PathBuf,
    /// What each imported name stands for.
    imports: BTreeMap<String, Words>,
    /// Modules all of whose names are imported.
    globs: Vec<Words>,
    paths: Vec<Words>,
}

/// The modules of a crate by their path, but for those of tests.
struct Modules(BTreeMap<Words, Module>);

impl Modules {
    fn of(sources: &Sources) -> Self {
        let mut modules = Self(BTreeMap::new());
        modules.read_file(sources, &[], Path::new("lib.rs"));
        modules
    }

    fn read_file(&mut self, sources: &Sources, module: &[String], file: &Path) {
        let tokens = sources[file].parse().unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self.read(sources, module, file, tokens);
    }

    fn read(&mut self, sources: &Sources, module: &[String], file: &Path, tokens: TokenStream) {
        self.0.entry(module.to_vec()).or_insert_with(|| Module { file: file.to_owned(), ..Module::default() });
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut rest = tokens.as_slice();
        while let Some((token, after)) = rest.split_first() {
            rest = after;
            match (token, after) {
                (TokenTree::Punct(sign), [TokenTree::Group(attribute), item @ ..]) if sign.as_char() == '#' => {
                    let is_test = attribute.stream().to_string().replace(' ', "") == "cfg(test)";
                    rest = if is_test { after_item(item) } else { item };
                }
                // `pub(in super)` needs nothing.
                (TokenTree::Ident(word), [TokenTree::Group(_), item @ ..]) if word == "pub" => rest = item,
                (TokenTree::Ident(word), [TokenTree::Ident(name), body, item @ ..]) if word == "mod" => {
                    let child = [module, &[name.to_string()]].concat();
                    let path: PathBuf = child.iter().collect();
                    match body {
                        TokenTree::Group(body) => self.read(sources, &child, file, body.stream()),
                        _ if sources.contains_key(&path.with_extension("rs")) => {
                            self.read_file(sources, &child, &path.with_extension("rs"));
                        }
                        _ => self.read_file(sources, &child, &path.join("mod.rs")),
                    }
                    rest = item;
                }
                (TokenTree::Ident(word), _) if word == "use" => {
                    let end = after.iter().position(|token| is_sign(token, ';')).unwrap_or(after.len());
                    self.import(module, &[], &after[..end]);
                    rest = &after[end..];
                }
                (TokenTree::Ident(_), _) => {
                    let (path, after) = path(token, after);
                    self.module(module).paths.push(path);
                    rest = after;
                }
                (TokenTree::Group(inside), _) => self.read(sources, module, file, inside.stream()),
                _ => {}
            }
        }
    }

    fn module(&mut self, path: &[String]) -> &mut Module {
        self.0.get_mut(path).unwrap()
    }

    /// Takes in the imports of `tree`, which is what follows `prefix` in a `use`.
    fn import(&mut self, module: &[String], prefix: &[String], tree: &[TokenTree]) {
        for branch in tree.split(|token| is_sign(token, ',')) {
            let Some(start) = branch.iter().position(|token| !is_sign(token, ':')) else { continue };
            let (words, after) = match &branch[start] {
                TokenTree::Ident(_) => path(&branch[start], &branch[start + 1..]),
                _ => (Vec::new(), &branch[start..]),
            };
            let mut words = [prefix, &words].concat();
            match after {
                [TokenTree::Group(inside), ..] => {
                    let inside: Vec<TokenTree> = inside.stream().into_iter().collect();
                    self.import(module, &words, &inside);
                    continue;
                }
                [TokenTree::Punct(_), ..] => self.module(module).globs.push(words.clone()),
                _ => {
                    if words.len() > 1 && words.last().is_some_and(|last| last == "self") {
                        words.pop();
                    }
                    let name = after.last().map_or_else(|| words.last().cloned(), |name| Some(name.to_string()));
                    self.module(module).imports.extend(name.map(|name| (name, words.clone())));
                }
            }
            self.module(module).paths.push(words);
        }
    }

    /// The module that defines what `words` name in `module`, and whether they name something in it and not itself.
    /// `None` for other crates and for what has no path.
    fn resolve(&self, module: &[String], words: &[String], depth: usize) -> Option<(Words, bool)> {
        let mut here = match words.first()?.as_str() {
            "crate" => Vec::new(),
            _ => module.to_vec(),
        };
        for (position, word) in words.iter().enumerate() {
            let child = [here.as_slice(), std::slice::from_ref(word)].concat();
            let known = &self.0[&here];
            match word.as_str() {
                "crate" | "self" => {}
                "super" => _ = here.pop(),
                _ if self.0.contains_key(&child) => here = child,
                // A crate's name may be imported from that crate.
                _ if depth > 8 => return None,
                name => match known.imports.get(name) {
                    Some(import) => match self.resolve(&here, import, depth + 1)? {
                        (found, false) => here = found,
                        item => return Some(item),
                    },
                    None => return (position > 0).then_some((here, true)),
                },
            }
        }
        Some((here, false))
    }

    fn needs(&self) -> Needs {
        let mut needs = Needs::new();
        for (path, module) in &self.0 {
            let hidden = module.globs.iter().find(|glob| self.resolve(path, glob, 0).is_some());
            assert!(hidden.is_none(), "{}: name what is used of {hidden:?}", module.file.display());
            let needed = module.paths.iter().filter_map(|words| self.resolve(path, words, 0));
            let files = needed.map(|(found, _)| self.0[&found].file.clone()).filter(|file| *file != module.file);
            needs.entry(module.file.clone()).or_default().extend(files);
        }
        needs
    }
}

fn is_sign(token: &TokenTree, sign: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == sign)
}

/// The path that begins with `first`, and what follows it.
fn path<'a>(first: &TokenTree, mut rest: &'a [TokenTree]) -> (Words, &'a [TokenTree]) {
    let mut words = vec![first.to_string()];
    while let [colon, second, further @ ..] = rest
        && is_sign(colon, ':')
        && is_sign(second, ':')
    {
        let Some((TokenTree::Ident(word), after)) = further.split_first() else { return (words, further) };
        words.push(word.to_string());
        rest = after;
    }
    (words, rest)
}

/// What follows the item that `tokens` begin with.
fn after_item(tokens: &[TokenTree]) -> &[TokenTree] {
    let is_end = |token: &TokenTree| match token {
        TokenTree::Group(body) => body.delimiter() == proc_macro2::Delimiter::Brace,
        token => is_sign(token, ';'),
    };
    tokens.iter().position(is_end).map_or(&[], |end| &tokens[end + 1..])
}

/// The circles of files that are refused: all but a file with its own submodules, none of which are in a circle themselves.
fn circles(needs: &Needs, files: &BTreeSet<PathBuf>) -> Vec<BTreeSet<PathBuf>> {
    let reached = |from: &PathBuf| {
        let mut reached = BTreeSet::new();
        let mut next = vec![from];
        while let Some(file) = next.pop() {
            next.extend(needs[file].iter().filter(|file| files.contains(*file) && reached.insert((*file).clone())));
        }
        reached
    };
    let reached: BTreeMap<&PathBuf, BTreeSet<PathBuf>> = files.iter().map(|file| (file, reached(file))).collect();
    let circle = |file: &PathBuf| -> BTreeSet<PathBuf> {
        reached[file].iter().filter(|other| reached[other].contains(file)).cloned().collect()
    };
    let found: BTreeSet<BTreeSet<PathBuf>> = files.iter().map(circle).filter(|circle| circle.len() > 1).collect();
    found
        .into_iter()
        .flat_map(|circle| {
            let is_parent = |file: &&PathBuf| {
                let folder = if file.ends_with("mod.rs") { file.with_file_name("") } else { file.with_extension("") };
                circle.iter().all(|other| other == *file || other.starts_with(&folder))
            };
            let Some(parent) = circle.iter().find(is_parent) else { return vec![circle] };
            let others = circle.iter().filter(|file| *file != parent).cloned().collect();
            circles(needs, &others)
        })
        .collect()
}

fn refused(sources: &Sources) -> Vec<String> {
    let needs = Modules::of(sources).needs();
    let within = |circle: &BTreeSet<PathBuf>, file: &PathBuf| {
        let needed = needs[file].intersection(circle).map(|file| file.display().to_string()).collect::<Vec<_>>();
        format!("{} needs {}", file.display(), needed.join(", "))
    };
    let circles = circles(&needs, &needs.keys().cloned().collect());
    circles.iter().map(|circle| circle.iter().map(|file| within(circle, file)).collect::<Vec<_>>().join("; ")).collect()
}

#[test]
fn no_files_need_each_other_in_a_circle() {
    assert_eq!(refused(&super::sources().into_iter().collect()), Vec::<String>::new());
}

#[test]
fn a_circle_is_seen_however_it_is_written() {
    let parent = ("p/mod.rs", "mod a; mod b; pub use a::A; pub use b::{B as Other}; pub struct P;");
    let cases: [(&str, &[Source], bool); 12] = [
        ("one way", &[("a.rs", "use crate::b::B;"), ("b.rs", "")], false),
        ("imports", &[("a.rs", "use crate::b::B;"), ("b.rs", "use super::{c, a::{self, A}};")], true),
        ("paths", &[("a.rs", "fn f() { crate::b::f() }"), ("b.rs", "fn f() -> super::a::A {}")], true),
        ("a macro", &[("a.rs", "use crate::b;"), ("b.rs", "fn f() { vec![crate::a::A] }")], true),
        ("three", &[("a.rs", "use crate::b;"), ("b.rs", "use crate::c;"), ("c.rs", "use crate::a;")], true),
        ("within a module", &[("a.rs", "mod own { use super::super::b; }"), ("b.rs", "use crate::a::own;")], true),
        ("tests", &[("a.rs", "use crate::b;"), ("b.rs", "#[cfg(test)] mod tests { use crate::a; }")], false),
        ("words", &[("a.rs", "use crate::b;"), ("b.rs", "// crate::a\nconst A: &str = \"crate::a\";")], false),
        ("a parent", &[("p/mod.rs", "mod a; use a::A;"), ("p/a.rs", "pub(in super::super) use super::P;")], false),
        ("siblings", &[parent, ("p/a.rs", "use super::{Other, P};"), ("p/b.rs", "use crate::p::A;")], true),
        ("names passed on", &[parent, ("p/a.rs", "use super::Other;"), ("p/b.rs", "use super::b::B;")], false),
        (
            "by a parent",
            &[("a.rs", "use crate::p::b;"), ("p/mod.rs", "mod b; use crate::a;"), ("p/b.rs", "use super::P;")],
            true,
        ),
    ];
    for (name, files, is_refused) in cases {
        let declared = files.iter().filter_map(|(file, _)| file.split_once(['.', '/'])).map(|(name, _)| name);
        let declared: BTreeSet<String> = declared.map(|name| format!("mod {name};")).collect();
        let files = files.iter().map(|(file, text)| (PathBuf::from(file), (*text).to_owned()));
        let sources = files.chain([("lib.rs".into(), declared.into_iter().collect())]).collect();
        assert_eq!(refused(&sources).len(), usize::from(is_refused), "{name}: {:?}", refused(&sources));
    }
}
