//! Holds the house style: layers, where unsafe may stand, sizes, headers, words, orphans.
//!
//! Reads the sources as text, so a rule says what it looks for in a line or two. Every check lists
//! all of its findings as `file:line: what`, and each was seen to fail on the samples at the end.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The layers, lowest first. A module imports from lower layers and from its own.
const LAYERS: [&[&str]; 7] = [
    &["buffer", "clock", "engine", "error", "limits", "metrics", "op"],
    &["driver", "executor"],
    &["cpu", "runtime", "shard", "sync", "task", "time"],
    &["fs", "net", "protocol"],
    &["store"],
    &["service"],
    &["daemon"],
];

/// Neighbours of one layer that must not know each other.
const STRANGERS: [[&str; 2]; 3] = [["driver", "executor"], ["protocol", "net"], ["protocol", "fs"]];

/// Bytes are decided without a runtime: a protocol sees these and nothing else of the crate.
const PROTOCOL_SEES: [&str; 3] = ["error", "limits", "protocol"];

/// The only files where unsafe code may stand.
const UNSAFE_FILES: &[&str] = &[];

/// The only file of the library that reads a clock.
const CLOCK_FILE: &str = "src/clock.rs";

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_CHARACTERS_MAX: usize = 100;

const FORBIDDEN_NAMES: [&str; 4] = ["utils", "helpers", "common", "misc"];

/// A limit without a unit in its name is read wrongly sooner or later.
const LIMIT_UNITS: [&str; 11] = [
    "BITS", "BYTES", "COUNT", "DIGITS", "ENTRIES", "FACTOR", "MS", "NS", "PERCENT", "SECONDS",
    "SLOTS",
];

/// A source file, its text, and its text with comments, strings and tests blanked out.
struct Source {
    path: String,
    text: String,
    code: String,
    code_without_tests: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let code = blank_comments_and_strings(text);
        let is_test = path.starts_with("tests/") || path.ends_with("tests.rs");
        let code_without_tests = if is_test { String::new() } else { blank_tests(&code) };
        Self { path: path.to_owned(), text: text.to_owned(), code, code_without_tests }
    }

    fn finding(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }

    /// The top module below `src/`, if the file is part of the library.
    fn top_module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        let top = inside.split('/').next()?.trim_end_matches(".rs");
        (!["lib", "main"].contains(&top)).then_some(top)
    }

    /// Folders and name below `src/` as a module path.
    fn module_path(&self) -> Vec<&str> {
        let inside = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        inside.split('/').filter(|part| !["mod", "lib", "main"].contains(part)).collect()
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    for folder in ["src", "tests", "examples", "bench/src", "bench/benches", "fuzz/fuzz_targets"] {
        rust_files(&root().join(folder), &mut paths);
    }
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a source file is readable");
        let path = path.strip_prefix(root()).expect("below the root");
        Source::new(path.to_str().expect("a plain name"), &text)
    };
    paths.into_iter().map(read).collect()
}

#[track_caller]
fn assert_none(findings: Vec<String>) {
    assert!(findings.is_empty(), "{} finding(s)\n{}", findings.len(), findings.join("\n"));
}

/// Line number, from 1, of a byte offset.
fn line_of(text: &str, offset: usize) -> usize {
    text[..offset].bytes().filter(|byte| *byte == b'\n').count() + 1
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Offsets of `word` where it stands alone.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(offset, _)| offset).filter(move |offset| {
        let before = code[..*offset].chars().next_back();
        let after = code[offset + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// Replaces what is not code by blanks; offsets and lines stay the same.
fn blank_comments_and_strings(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let raw_start = at == 0 || !is_word(char::from(bytes[at - 1]));
        let end = if rest.starts_with(b"//") {
            at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            let close = text[at..].find("*/");
            at + close.map_or(rest.len(), |close| close + 2)
        } else if raw_start && (rest.starts_with(b"r\"") || rest.starts_with(b"r#")) {
            at + raw_string_length(&text[at..]).unwrap_or(1)
        } else if rest[0] == b'"' {
            at + string_length(rest)
        } else if rest[0] == b'\'' {
            at + character_length(&text[at..]).unwrap_or(1)
        } else {
            at += 1;
            continue;
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(out).expect("only whole characters were blanked")
}

fn string_length(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn raw_string_length(rest: &str) -> Option<usize> {
    let hashes = rest[1..].bytes().take_while(|byte| *byte == b'#').count();
    let body = rest.get(1 + hashes..)?.strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    Some(1 + hashes + 1 + body.find(&close)? + close.len())
}

/// A character literal, not a lifetime.
fn character_length(rest: &str) -> Option<usize> {
    let inside = &rest[1..];
    let first = inside.chars().next()?;
    let first_length = if first == '\\' {
        1 + inside[1..]
            .find('\'')
            .filter(|length| *length > 0)
            .or_else(|| inside[2..].find('\'').map(|at| at + 1))?
    } else {
        first.len_utf8()
    };
    inside[first_length..].starts_with('\'').then_some(first_length + 2)
}

/// Blanks out every item with a body that only tests compile: `#[cfg(test)]`, `#[cfg(all(test, …`.
fn blank_tests(code: &str) -> String {
    let mut out = code.to_owned();
    for (start, marker) in code.match_indices("#[cfg(") {
        let condition_length = code[start..].find(']').unwrap_or(marker.len());
        let (condition, body) = code[start..].split_at(condition_length);
        if words(condition, "test").next().is_none() || condition.contains("not(test)") {
            continue;
        }
        let length = match body.find(['{', ';']) {
            Some(open) if body.as_bytes()[open] == b'{' => block_end(body, open),
            Some(semicolon) => semicolon + 1,
            None => body.len(),
        };
        let end = start + condition_length + length;
        let blank = code[start..end].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' });
        out.replace_range(start..end, &blank.collect::<String>());
    }
    out
}

/// The offset after the brace that closes the one at `open`.
fn block_end(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return offset + 1,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// What a file imports of its own crate: line and top module, by `crate::` and by `super::`.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let code = &source.code_without_tests;
    let first_words = |rest: &str| -> Vec<String> {
        let rest = rest.trim_start();
        let names = match rest.strip_prefix('{') {
            // `use crate::{a::b, c}`: the names at the front of each part of the outer braces.
            Some(_) => top_parts(&rest[1..block_end(rest, 0).saturating_sub(1).max(1)]),
            None => vec![rest.to_owned()],
        };
        names
            .iter()
            .map(|name| name.trim_start().chars().take_while(|c| is_word(*c)).collect())
            .collect()
    };
    let mut found = Vec::new();
    for offset in words(code, "crate") {
        let Some(rest) = code[offset + 5..].strip_prefix("::") else { continue };
        let line = line_of(code, offset);
        found.extend(first_words(rest).into_iter().map(|name| (line, name)));
    }
    let depth = source.module_path().len();
    for offset in words(code, "super") {
        if code[..offset].ends_with("super::") {
            continue;
        }
        let chain = code[offset..].split("super::").take_while(|part| part.is_empty()).count();
        if chain >= depth.max(1) {
            let line = line_of(code, offset);
            let rest = &code[offset + chain * "super::".len()..];
            found.extend(first_words(rest).into_iter().map(|name| (line, name)));
        }
    }
    found
}

fn top_parts(list: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0_usize;
    for character in list.chars() {
        match character {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().expect("never empty").push(character);
    }
    parts
}

fn layer_findings(source: &Source) -> Vec<String> {
    let Some(own) = source.top_module() else { return Vec::new() };
    let Some(own_layer) = layer_of(own) else {
        return vec![source.finding(1, "this module is in no layer; add it to LAYERS")];
    };
    let refuse = |(line, other): (usize, String)| {
        let other_layer = layer_of(&other)?;
        let strangers = STRANGERS
            .iter()
            .any(|pair| own != other && pair.contains(&own) && pair.contains(&other.as_str()));
        let why = if other_layer > own_layer {
            format!("{own} (layer {own_layer}) imports {other} (layer {other_layer})")
        } else if strangers {
            format!("{own} and {other} must not know each other")
        } else if own == "protocol" && !PROTOCOL_SEES.contains(&other.as_str()) {
            format!("protocol is sans-I/O and must not see {other}")
        } else {
            return None;
        };
        Some(source.finding(line, &why))
    };
    imports(source).into_iter().filter_map(refuse).collect()
}

#[test]
fn layers_import_only_from_below() {
    assert_none(sources().iter().flat_map(layer_findings).collect());
}

fn unsafe_findings(source: &Source) -> Vec<String> {
    if !source.path.starts_with("src/") || UNSAFE_FILES.contains(&source.path.as_str()) {
        return Vec::new();
    }
    let what = "unsafe outside of the files that UNSAFE_FILES lists";
    words(&source.code, "unsafe")
        .map(|at| source.finding(line_of(&source.code, at), what))
        .collect()
}

#[test]
fn unsafe_stands_only_in_named_files() {
    assert_none(sources().iter().flat_map(unsafe_findings).collect());
}

#[test]
fn the_unsafe_list_names_only_files_that_need_it() {
    let sources = sources();
    let needs = |path: &&str| {
        sources.iter().any(|s| s.path == **path && words(&s.code, "unsafe").next().is_some())
    };
    let idle: Vec<_> = UNSAFE_FILES.iter().filter(|path| !needs(path)).collect();
    assert!(idle.is_empty(), "these have no unsafe code (any more): {idle:?}");
}

fn size_findings(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    let lines = source.text.lines().count();
    if lines > FILE_LINES_MAX {
        let what = format!("{lines} lines, more than {FILE_LINES_MAX}: split it by noun");
        findings.push(source.finding(1, &what));
    }
    for (index, line) in source.text.lines().enumerate() {
        let length = line.chars().count();
        if length > LINE_CHARACTERS_MAX {
            let what = format!("{length} characters, more than {LINE_CHARACTERS_MAX}");
            findings.push(source.finding(index + 1, &what));
        }
    }
    let code = &source.code_without_tests;
    for start in words(code, "fn") {
        let Some(open) = code[start..].find(['{', ';']).map(|at| start + at) else { continue };
        if code.as_bytes()[open] == b'{' {
            let lines = line_of(code, block_end(code, open)) - line_of(code, start) + 1;
            if lines > FUNCTION_LINES_MAX {
                let name: String =
                    code[start + 2..].trim_start().chars().take_while(|c| is_word(*c)).collect();
                let what = format!("fn {name} has {lines} lines, more than {FUNCTION_LINES_MAX}");
                findings.push(source.finding(line_of(code, start), &what));
            }
        }
    }
    findings
}

#[test]
fn files_functions_and_lines_are_short() {
    assert_none(sources().iter().flat_map(size_findings).collect());
}

fn header_findings(source: &Source) -> Vec<String> {
    let what = "the file must open with //! (purpose, caller, one invariant)";
    if source.text.starts_with("//! ") { vec![] } else { vec![source.finding(1, what)] }
}

#[test]
fn every_file_says_what_it_is_for() {
    assert_none(sources().iter().flat_map(header_findings).collect());
}

fn token_findings(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    let mut forbid = |code: &str, token: &str, why: &str| {
        for (offset, _) in code.match_indices(token) {
            if !code[..offset].chars().next_back().is_some_and(is_word) {
                let what = format!("{token} is not for here: {why}");
                findings.push(source.finding(line_of(code, offset), &what));
            }
        }
    };
    for token in ["todo!", "unimplemented!", "dbg!"] {
        forbid(&source.code, token, "finish it");
    }
    let program = source.path.starts_with("src/") || source.path.starts_with("bench/src/");
    if program {
        for (offset, _) in source.code_without_tests.match_indices(".unwrap()") {
            let line = line_of(&source.code_without_tests, offset);
            findings.push(source.finding(line, "unwrap: handle it, or expect() with the reason"));
        }
    }
    let mut forbid_clock = |token: &str| {
        for offset in words(&source.code, token) {
            let line = line_of(&source.code, offset);
            findings
                .push(source.finding(line, &format!("{token}: only {CLOCK_FILE} reads a clock")));
        }
    };
    if source.path.starts_with("src/") && source.path != CLOCK_FILE {
        forbid_clock("Instant::now()");
        forbid_clock("SystemTime::now()");
    }
    for marker in ["TODO", "FIXME", "XXX"] {
        // Comments count here: an open end belongs into an issue.
        if source.path != "tests/tidy.rs" {
            for offset in words(&source.text, marker) {
                let line = line_of(&source.text, offset);
                findings.push(source.finding(line, &format!("{marker}: open an issue instead")));
            }
        }
    }
    findings
}

#[test]
fn forbidden_tokens_are_absent() {
    assert_none(sources().iter().flat_map(token_findings).collect());
}

fn name_findings(source: &Source) -> Vec<String> {
    let parts = source.path.trim_end_matches(".rs").split('/');
    let bad = parts.filter(|part| FORBIDDEN_NAMES.contains(part));
    bad.map(|part| source.finding(1, &format!("{part} names nothing; split by noun"))).collect()
}

#[test]
fn files_are_named_by_nouns() {
    assert_none(sources().iter().flat_map(name_findings).collect());
}

fn limit_findings(source: &Source) -> Vec<String> {
    if !source.path.ends_with("limits.rs") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (index, line) in source.code.lines().enumerate() {
        let Some((_, rest)) = line.split_once("const ") else { continue };
        let Some((name, _)) = rest.split_once(':') else { continue };
        if name != "_" && !name.split('_').any(|part| LIMIT_UNITS.contains(&part)) {
            let what = format!("{name} says no unit; use one of {}", LIMIT_UNITS.join(", "));
            findings.push(source.finding(index + 1, &what));
        }
    }
    findings
}

#[test]
fn limits_carry_their_unit_in_their_name() {
    assert_none(sources().iter().flat_map(limit_findings).collect());
}

/// The files that `mod` declarations of `source` lead to.
fn children(source: &Source) -> Vec<PathBuf> {
    let path = Path::new(&source.path);
    let folder = path.parent().unwrap_or(Path::new(""));
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("");
    let is_root = path.components().count() == 2 && !source.path.starts_with("src/")
        || source.path.starts_with("bench/") && path.components().count() == 3;
    let owns_folder = ["mod", "lib", "main"].contains(&stem) || is_root;
    let below = if owns_folder { folder.to_owned() } else { folder.join(stem) };
    let lines: Vec<&str> = source.text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in source.code.lines().enumerate() {
        let line = line.trim();
        let declared = line.strip_suffix(';').and_then(|line| line.rsplit_once("mod "));
        let Some((before, name)) = declared else { continue };
        if !["", "pub ", "pub(crate) ", "pub(super) "].contains(&before) {
            continue;
        }
        let above = if index > 0 { lines[index - 1].trim() } else { "" };
        if let Some(given) = above.strip_prefix("#[path = \"").and_then(|p| p.strip_suffix("\"]")) {
            found.push(folder.join(given));
        } else {
            found.push(below.join(format!("{name}.rs")));
            found.push(below.join(name).join("mod.rs"));
        }
    }
    found
}

#[test]
fn every_file_is_reached_by_a_mod() {
    let sources = sources();
    let is_root = |path: &str| {
        ["src/lib.rs", "src/main.rs", "bench/src/main.rs", "bench/src/lib.rs"].contains(&path)
            || ["tests", "examples", "bench/benches", "bench/src/bin", "fuzz/fuzz_targets"]
                .iter()
                .any(|folder| Path::new(path).parent() == Some(Path::new(folder)))
    };
    let mut reached: BTreeSet<&str> = BTreeSet::new();
    let mut open: Vec<&Source> = sources.iter().filter(|source| is_root(&source.path)).collect();
    while let Some(source) = open.pop() {
        if reached.insert(&source.path) {
            let children = children(source);
            open.extend(sources.iter().filter(|s| children.contains(&PathBuf::from(&s.path))));
        }
    }
    let orphans = sources.iter().filter(|source| !reached.contains(source.path.as_str()));
    assert_none(orphans.map(|source| source.finding(1, "no mod reaches this file")).collect());
}

mod samples {
    //! Every check is seen to fail here, and to leave alone what only looks wrong.

    use super::*;

    fn findings(check: fn(&Source) -> Vec<String>, path: &str, text: &str) -> Vec<String> {
        check(&Source::new(path, text))
    }

    #[test]
    fn an_upward_import_is_found_in_every_form() {
        let text = "//! x\nuse crate::{error::Error, service::{a, b}};\nfn f() {\n    \
                    super::super::daemon::run();\n}\n#[cfg(test)]\nmod tests {\n    use \
                    crate::service;\n}\n";
        assert_eq!(
            findings(layer_findings, "src/net/tcp.rs", text),
            [
                "src/net/tcp.rs:2: net (layer 3) imports service (layer 5)",
                "src/net/tcp.rs:4: net (layer 3) imports daemon (layer 6)"
            ]
        );
    }

    #[test]
    fn strangers_and_a_runtime_below_protocol_are_found() {
        let text = "use crate::driver::Op;\n";
        let found = findings(layer_findings, "src/executor/task.rs", text);
        assert_eq!(found, ["src/executor/task.rs:1: executor and driver must not know each other"]);
        let found = findings(layer_findings, "src/protocol/x.rs", "use crate::time::now;\n");
        assert_eq!(found, ["src/protocol/x.rs:1: protocol is sans-I/O and must not see time"]);
        assert_eq!(findings(layer_findings, "src/banana.rs", "").len(), 1);
    }

    #[test]
    fn unsafe_in_code_is_found_and_in_prose_is_not() {
        let text =
            "//! unsafe\nlet a = \"unsafe\"; let b = r#\"unsafe\"#; let c = '\"';\nunsafe {}";
        let found = findings(unsafe_findings, "src/x.rs", text);
        assert_eq!(found, ["src/x.rs:3: unsafe outside of the files that UNSAFE_FILES lists"]);
    }

    #[test]
    fn long_files_functions_and_lines_are_found() {
        let long = "//! x\n".repeat(FILE_LINES_MAX + 1);
        assert_eq!(findings(size_findings, "src/x.rs", &long).len(), 1);
        let text = format!("fn f<'a>(x: &'a str) {{\n{}}}\n", "    x();\n".repeat(70));
        let found = findings(size_findings, "src/x.rs", &text);
        assert_eq!(found, ["src/x.rs:1: fn f has 72 lines, more than 70"]);
        let found = findings(size_findings, "src/x.rs", &format!("// {}\n", "é".repeat(98)));
        assert_eq!(found, ["src/x.rs:1: 101 characters, more than 100"]);
    }

    #[test]
    fn forbidden_tokens_are_found_outside_of_tests() {
        let text = "fn f() { todo!(); x.unwrap(); std::time::Instant::now(); } // FIXME\n\
                    #[cfg(all(test, not(loom)))]\nmod tests { fn g() { x.unwrap(); } }\n";
        assert_eq!(findings(token_findings, "src/x.rs", text).len(), 4);
        assert_eq!(findings(token_findings, "tests/x.rs", "fn f() { x.unwrap(); }").len(), 0);
    }

    #[test]
    fn headers_names_and_limits_are_looked_at() {
        assert_eq!(findings(header_findings, "src/x.rs", "use a;\n").len(), 1);
        assert_eq!(findings(name_findings, "src/net/utils.rs", "").len(), 1);
        let text = "pub const WAIT_MAX: u32 = 1;\npub const WAIT_MS_MAX: u32 = 1;\n";
        assert_eq!(findings(limit_findings, "src/limits.rs", text).len(), 1);
    }

    #[test]
    fn mod_declarations_lead_to_files() {
        let paths = |path: &str, text: &str| {
            let found = children(&Source::new(path, text));
            found.iter().map(|path| path.to_str().expect("plain").to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(paths("src/a/mod.rs", "pub mod b;\n"), ["src/a/b.rs", "src/a/b/mod.rs"]);
        assert_eq!(paths("src/a.rs", "mod b;\n"), ["src/a/b.rs", "src/a/b/mod.rs"]);
        let text = "#[path = \"a_tests.rs\"]\nmod tests;\n";
        assert_eq!(paths("src/a.rs", text), ["src/a_tests.rs"]);
    }
}
