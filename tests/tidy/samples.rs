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
    let found = findings(layer_findings, "src/log/record.rs", "use crate::fs::File;\n");
    let what = "the log's format is sans-I/O and must not see fs";
    assert_eq!(found, [format!("src/log/record.rs:1: {what}")]);
    assert_eq!(findings(layer_findings, "src/banana.rs", "").len(), 1);
}

#[test]
fn unsafe_in_code_is_found_and_in_prose_is_not() {
    let text = "//! unsafe\nlet a = \"unsafe\"; let b = r#\"unsafe\"#; let c = '\"';\nunsafe {}";
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

#[test]
fn a_test_that_the_table_names_and_nobody_has_is_found() {
    let sources = [
        Source::new("tests/engines/tasks.rs", "fn a_task_ends(engine: Engine) {}"),
        Source::new("tests/process_pool.rs", "(\"a_worker_ends\", ends)"),
        Source::new("src/time.rs", "    fn a_timer_ends() {}"),
    ];
    let table = "| A1 | x | `task::spawn` | `time.rs::a_timer_ends` |\n\
                 | A2 | x | y | `process_pool::a_worker_ends`, `engines::timers::a_task_ends` |\n\
                 | A3 | x | y | `engines::tasks::a_task`; as `src/x.rs` says |\n";
    assert_eq!(
        table_findings(table, &sources),
        [
            "docs/asyncio.md:2: there is no engines::timers::a_task_ends",
            "docs/asyncio.md:3: there is no engines::tasks::a_task"
        ]
    );
}
