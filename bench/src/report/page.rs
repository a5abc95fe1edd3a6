//! The report as one HTML file with nothing outside it: tables, plots, environment.
//!
//! Written into the run's directory; meant to be opened from disk or committed beside its JSON.

use std::fmt::Write;

use super::table::{self, escape};
use super::{Report, plot};

pub(super) const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8884;--bad:#c0392b}\
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:78rem;padding:0 1rem}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:13px;margin:1rem 0}\
th,td{padding:.2rem .6rem;border-bottom:1px solid var(--line);text-align:left;white-space:nowrap}\
th:nth-child(n+4),td:nth-child(n+4){text-align:right}\
.missed,.failed{color:var(--bad);font-weight:600}\
svg{width:100%;max-width:860px;font-size:12px}svg text{fill:currentColor}\
.grid{stroke:#8883;stroke-width:1}";

/// The page of `report`.
pub(super) fn render(report: &Report) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>annulus comparison</title>\n<style>{STYLE}</style>\n\
         <h1>annulus: one service, three engines</h1>\n\
         <p>Medians of {} interleaved rounds of {:.2} s. Latencies in µs; CPU is the server's, per \
         request, with its range over the rounds; the last two columns are the ratio of that to \
         annulus' own <code>threads</code> and <code>epoll</code> engines, lower is better.</p>\n",
        report.rounds,
        report.window.as_secs_f64()
    );
    for failure in &report.failures {
        let _ = writeln!(page, "<p class=\"failed\">Failed: {}</p>", escape(failure));
    }
    page.push_str(&table::of_lines(&report.lines).html());
    for note in report.notes() {
        let _ = writeln!(page, "<p>Note: {}</p>", escape(&note));
    }
    if report.targets.iter().any(|target| target.is_met().is_some()) {
        page.push_str("<h2>Targets</h2>\n<p>Missed ones first.</p>\n");
        page.push_str(&table::of_targets(&report.targets).html());
    }
    page.push_str("<h2>Latency by percentile</h2>\n");
    for rows in report.rows.chunk_by(|one, next| one.case == next.case) {
        let case = &rows[0].case;
        let rate = rows[0].rate.map_or(String::new(), |rate| format!(" at {rate:.0}/s"));
        let title = format!("{} @{}{rate}", case.name(), case.connections);
        let _ = writeln!(page, "<h3>{}</h3>", escape(&title));
        let curves: Vec<_> = rows.iter().map(|row| (row.contender.name(), row.latency())).collect();
        page.push_str(&plot::render(&curves));
    }
    page.push_str("<h2>Environment</h2>\n<table>\n");
    let cores = ("cores", report.cores.line());
    for (fact, value) in report.environment.lines().into_iter().chain([cores]) {
        let _ = writeln!(
            page,
            "<tr><th>{fact}</th><td style=\"white-space:normal\">{}</td></tr>",
            escape(&value)
        );
    }
    page.push_str("</table>\n</html>\n");
    page
}
