//! Holds the house style: layers, where unsafe may stand, sizes, headers, words, orphans.
//!
//! Reads the sources as text, so a rule says what it looks for in a line or two. Every check lists
//! all of its findings as `file:line: what`, and each was seen to fail on the samples at the end.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use text::{blank_comments_and_strings, blank_tests, block_end, is_word, line_of, words};

#[path = "tidy/text.rs"]
mod text;

/// The layers, lowest first. A module imports from lower layers and from its own.
const LAYERS: [&[&str]; 7] = [
    &["buffer", "clock", "engine", "error", "limits", "metrics", "op"],
    &["driver", "executor"],
    &["blocking", "cpu", "future", "reply", "runtime", "shard", "stream", "sync", "task", "time"],
    &["fs", "io", "ipc", "log", "net", "process", "protocol", "signal"],
    &["compat", "store"],
    &["service"],
    &["daemon"],
];

/// Neighbours of one layer that must not know each other.
const STRANGERS: [[&str; 2]; 3] = [["driver", "executor"], ["protocol", "net"], ["protocol", "fs"]];

/// Bytes are decided without a runtime: a protocol sees these and nothing else of the crate.
const PROTOCOL_SEES: [&str; 3] = ["error", "limits", "protocol"];

/// So is what lies in the log's files; these see nothing of the crate but the log.
const LOG_FORMAT_FILES: [&str; 3] = ["src/log/header.rs", "src/log/name.rs", "src/log/record.rs"];

/// The only files where unsafe code may stand.
const UNSAFE_FILES: &[&str] = &[
    "src/buffer.rs",
    "src/buffer/aligned.rs",
    "src/clock.rs",
    "src/driver/blocking.rs",
    "src/driver/calls.rs",
    "src/driver/epoll/attempt.rs",
    "src/driver/epoll/file.rs",
    "src/driver/epoll/mod.rs",
    "src/driver/event.rs",
    "src/driver/file_call.rs",
    "src/driver/mod.rs",
    "src/driver/offload.rs",
    "src/driver/packer.rs",
    "src/driver/ring/buffer_ring.rs",
    "src/driver/ring/door.rs",
    "src/driver/ring/file.rs",
    "src/driver/ring/mod.rs",
    "src/driver/ring/tests.rs",
    "src/driver/settle.rs",
    "src/executor/mod.rs",
    "src/executor/task.rs",
    "src/ipc/ring/memory.rs",
    "src/op.rs",
    "src/op/datagram.rs",
    "src/op/file.rs",
    "src/process/handover.rs",
    "src/process/pool/worker.rs",
    "src/shard/affinity.rs",
    "src/shard/priority.rs",
    "src/signal/handler.rs",
];

/// The only file of the library that reads a clock.
const CLOCK_FILE: &str = "src/clock.rs";

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_CHARACTERS_MAX: usize = 100;

const FORBIDDEN_NAMES: [&str; 4] = ["utils", "helpers", "common", "misc"];

/// A limit without a unit in its name is read wrongly sooner or later.
const LIMIT_UNITS: [&str; 12] = [
    "BITS", "BYTES", "COUNT", "DIGITS", "ENTRIES", "FACTOR", "MS", "NS", "PERCENT", "SECONDS",
    "SLOTS", "US",
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
        let is_data = path.ends_with("tests/corpus");
        if path.is_dir() && !is_data {
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
        } else if LOG_FORMAT_FILES.contains(&source.path.as_str()) && other != "log" {
            format!("the log's format is sans-I/O and must not see {other}")
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
        let code = &source.code_without_tests;
        for offset in words(code, token) {
            let line = line_of(code, offset);
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
        if !source.path.starts_with("tests/tidy") {
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

/// The rows of `docs/asyncio.md`: a letter and how many it has; 0 for one without a number.
const ROWS: [(char, usize); 13] = [
    ('A', 23),
    ('B', 10),
    ('C', 6),
    ('D', 4),
    ('E', 5),
    ('F', 6),
    ('G', 7),
    ('H', 3),
    ('I', 3),
    ('J', 3),
    ('K', 8),
    ('L', 0),
    ('R', 0),
];

/// The files that a test named like `engines::tasks::x`, `examples::x` or `time.rs::x` may be in.
fn files_of_test(path: &str) -> Vec<String> {
    if Path::new(path).extension().is_some() {
        return vec![format!("src/{path}")];
    }
    let path = path.replace("::", "/");
    vec![format!("tests/{path}.rs"), format!("tests/{path}/main.rs")]
}

/// Tests that a table names in its last column and that are nowhere.
fn table_findings(table: &str, sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for (index, line) in table.lines().enumerate() {
        let Some((_, cell)) = line.trim_end_matches([' ', '|']).rsplit_once(" | ") else {
            continue;
        };
        for quoted in cell.split('`').skip(1).step_by(2) {
            let Some((path, name)) = quoted.rsplit_once("::") else { continue };
            let files = files_of_test(path);
            let spellings = [format!("fn {name}("), format!("(\"{name}\",")];
            let is_there = sources
                .iter()
                .filter(|source| files.contains(&source.path))
                .any(|source| spellings.iter().any(|spelling| source.text.contains(&**spelling)));
            if !is_there {
                findings.push(format!("docs/asyncio.md:{}: there is no {quoted}", index + 1));
            }
        }
    }
    findings
}

#[test]
fn the_table_of_asyncio_is_complete_and_names_tests_that_exist() {
    let table = fs::read_to_string(root().join("docs/asyncio.md")).expect("the table is readable");
    let mut wanted = Vec::new();
    for (letter, count) in ROWS {
        wanted.extend((1..=count).map(|number| format!("{letter}{number}")));
        wanted.extend((count == 0).then(|| letter.to_string()));
    }
    let row = |line: &str| line.strip_prefix("| ")?.split(' ').next().map(str::to_owned);
    let rows: Vec<String> = table.lines().filter_map(row).filter(|row| row != "row").collect();
    assert_eq!(rows, wanted);
    assert_none(table_findings(&table, &sources()));
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
        if !before.is_empty() && !before.starts_with("pub") {
            continue;
        }
        let above = if index > 0 { lines[index - 1].trim() } else { "" };
        if let Some(given) = above.strip_prefix("#[path = \"").and_then(|p| p.strip_suffix("\"]")) {
            let (mut folder, mut given) = (folder, given);
            while let Some(rest) = given.strip_prefix("../") {
                (folder, given) = (folder.parent().unwrap_or(Path::new("")), rest);
            }
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
            || ["tests/", "bench/benches/"].iter().any(|folder| path.starts_with(folder))
                && path.ends_with("/main.rs")
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

#[path = "tidy/samples.rs"]
mod samples;
