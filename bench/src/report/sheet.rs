//! A report with one table: printed, and written as JSON, as Markdown and as a page.
//!
//! Filled by the benches of disks, recovery and snapshots. Invariant: every form shows the same
//! table, targets and notes.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::page::STYLE;
use super::run_directory;
use super::table::{Table, escape, of_targets};
use super::targets::Judged;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::say;

/// What a run came to.
pub(crate) struct Sheet {
    /// The subcommand, after which the files are named.
    pub(crate) command: &'static str,
    pub(crate) environment: Environment,
    /// What was asked for: a line for each fact.
    pub(crate) about: Vec<(&'static str, String)>,
    pub(crate) table: Table,
    /// The lines of the table with everything that was measured, for programs.
    pub(crate) lines: Vec<Value>,
    pub(crate) targets: Vec<Judged>,
    /// What a reader has to know beside the figures.
    pub(crate) notes: Vec<String>,
    pub(crate) failures: Vec<String>,
}

impl Sheet {
    /// Prints where the run takes place and what was asked for; the figures come at the end.
    pub(crate) fn introduce(&self) {
        for (fact, value) in self.facts() {
            say(format_args!("{fact:<13} {value}"));
        }
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        self.environment.lines().into_iter().chain(self.about.clone()).collect()
    }

    /// The notes, with what holds for every bench.
    fn all_notes(&self) -> Vec<String> {
        let mut notes = self.notes.clone();
        if self.environment.busy_with_others {
            notes.push(format!(
                "other programs were running (load average {}): only ratios mean anything, and \
                 those roughly",
                self.environment.load_average
            ));
        }
        if cfg!(debug_assertions) {
            notes.push("this is a debug build: the figures mean nothing".into());
        }
        notes
    }

    /// Prints the table; notes and failures last, where they are seen.
    pub(crate) fn print(&self, markdown: bool) {
        let show = |table: &Table| if markdown { table.markdown() } else { table.text() };
        say(format_args!("\n{}", show(&self.table)));
        if !self.targets.is_empty() {
            say(show(&of_targets(&self.targets)));
        }
        for note in self.all_notes() {
            say(format_args!("note: {note}"));
        }
        for failure in &self.failures {
            say(format_args!("FAILED: {failure}"));
        }
    }

    /// Writes everything into a new directory under `output` and returns it.
    pub(crate) fn write(&self, output: &Path, name: &str) -> Result<PathBuf, Failure> {
        let directory = run_directory(output, name);
        let json = serde_json::json!({
            "environment": self.environment,
            "about": self.about,
            "lines": self.lines,
            "targets": self.targets,
            "notes": self.all_notes(),
            "failures": self.failures,
        });
        let path = |ending: &str| directory.join(format!("{}.{ending}", self.command));
        fs::create_dir_all(&directory)
            .and_then(|()| fs::write(path("json"), format!("{json:#}\n")))
            .and_then(|()| fs::write(path("md"), self.markdown()))
            .and_then(|()| fs::write(path("html"), self.page()))
            .map_err(|error| Failure::failed(directory.display(), error))?;
        Ok(directory)
    }

    fn markdown(&self) -> String {
        let mut text = format!("# annulus-bench {}\n\n{}\n", self.command, self.table.markdown());
        if !self.targets.is_empty() {
            let _ = writeln!(text, "{}", of_targets(&self.targets).markdown());
        }
        for note in self.all_notes() {
            let _ = writeln!(text, "Note: {note}.\n");
        }
        for failure in &self.failures {
            let _ = writeln!(text, "Failed: {failure}\n");
        }
        text.push_str("```text\n");
        for (fact, value) in self.facts() {
            let _ = writeln!(text, "{fact:<13} {value}");
        }
        text.push_str("```\n");
        text
    }

    fn page(&self) -> String {
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n\
             <title>annulus-bench {0}</title>\n<style>{STYLE}</style>\n\
             <h1>annulus-bench {0}</h1>\n{1}",
            self.command,
            self.table.html()
        );
        if !self.targets.is_empty() {
            let _ = writeln!(page, "<h2>Targets</h2>\n{}", of_targets(&self.targets).html());
        }
        for failure in &self.failures {
            let _ = writeln!(page, "<p class=\"failed\">Failed: {}</p>", escape(failure));
        }
        for note in self.all_notes() {
            let _ = writeln!(page, "<p>Note: {}</p>", escape(&note));
        }
        page.push_str("<h2>Environment</h2>\n<table>\n");
        for (fact, value) in self.facts() {
            let _ = writeln!(
                page,
                "<tr><th>{fact}</th><td style=\"white-space:normal\">{}</td></tr>",
                escape(&value)
            );
        }
        page.push_str("</table>\n</html>\n");
        page
    }

    /// A failure if anybody dropped out: a table with holes must not look like success.
    pub(crate) fn verdict(&self) -> Result<(), Failure> {
        match self.failures.len() {
            0 => Ok(()),
            count => Err(Failure::Failed(format!("{count} measurement(s) failed, see above"))),
        }
    }
}
