//! Tables of text: aligned for a terminal, or as Markdown or HTML.
//!
//! The report fills them. Invariant: a table has as many cells in each row as in its header.

use std::fmt::Write;

use super::Line;
use super::targets::Judged;

/// Columns from this one on are figures, aligned to the right.
const FIRST_FIGURE: usize = 3;

/// A header and rows of cells.
#[derive(Debug)]
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

/// The table of all lines.
pub(super) fn of_lines(lines: &[Line]) -> Table {
    let header = vec![
        "workload", "conns", "server", "req/s", "p50", "p90", "p99", "p99.9", "max", "CPU µs",
        "range", "/threads", "/epoll",
    ];
    let mut rows = Vec::new();
    let mut last = None;
    for line in lines {
        let case = (line.workload.as_str(), line.connections);
        // Repeated names make a table hard to read: only the first line of a case has them.
        let (workload, connections) = if last == Some(case) {
            (String::new(), String::new())
        } else {
            (line.workload.clone(), line.connections.to_string())
        };
        last = Some(case);
        let latency = &line.latency_us;
        let range =
            line.server_cpu_us.map(|cpu| format!("{}–{}", figure(cpu.min), figure(cpu.max)));
        rows.push(vec![
            workload,
            connections,
            line.server.clone(),
            format!("{:.0}", line.requests_per_second.median),
            figure(latency.p50),
            figure(latency.p90),
            figure(latency.p99),
            figure(latency.p99_9),
            figure(latency.max),
            optional(line.server_cpu_us.map(|cpu| figure(cpu.median))),
            optional(range),
            optional(line.to_threads.map(|ratio| format!("{ratio:.2}"))),
            optional(line.to_epoll.map(|ratio| format!("{ratio:.2}"))),
        ]);
    }
    Table { header, rows }
}

/// The table of the targets that were measured: missed ones first.
pub(super) fn of_targets(targets: &[Judged]) -> Table {
    let header =
        vec!["workload", "conns", "what", "against", "target", "measured", "range", "verdict"];
    let mut sorted: Vec<&Judged> =
        targets.iter().filter(|target| target.measured.is_some()).collect();
    sorted.sort_by_key(|target| target.is_met() == Some(true));
    let rows = sorted
        .into_iter()
        .map(|target| {
            let measured = target.measured;
            let range = measured.map(|ratio| format!("{:.2}–{:.2}", ratio.min, ratio.max));
            let verdict = if target.is_met() == Some(true) { "met" } else { "MISSED" };
            vec![
                target.workload.clone(),
                target.connections.to_string(),
                target.ours.clone(),
                target.theirs.clone(),
                target.bound.to_string(),
                optional(measured.map(|ratio| format!("{:.3}", ratio.median))),
                optional(range),
                verdict.to_owned(),
            ]
        })
        .collect();
    Table { header, rows }
}

/// Three significant digits or so, without exponent.
pub(crate) fn figure(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 1.0 => format!("{value:.2}"),
        value => format!("{value:.3}"),
    }
}

fn optional(cell: Option<String>) -> String {
    cell.unwrap_or_else(|| "–".into())
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(header: Vec<&'static str>) -> Self {
        Self { header, rows: Vec::new() }
    }

    /// Adds a row, with a cell for each column.
    pub(crate) fn push(&mut self, row: Vec<String>) {
        assert_eq!(row.len(), self.header.len());
        self.rows.push(row);
    }

    fn widths(&self) -> Vec<usize> {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.chain([self.header[column].chars().count()]).max().unwrap_or(0)
        };
        (0..self.header.len()).map(width).collect()
    }

    /// Aligned columns.
    pub(crate) fn text(&self) -> String {
        let widths = self.widths();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut line = String::new();
            for (column, (cell, width)) in cells.zip(&widths).enumerate() {
                let padding = " ".repeat(width - cell.chars().count());
                if column >= FIRST_FIGURE {
                    line.push_str(&padding);
                    line.push_str(cell);
                } else {
                    line.push_str(cell);
                    line.push_str(&padding);
                }
                line.push_str("  ");
            }
            line.truncate(line.trim_end().len());
            line.push('\n');
            line
        };
        let mut text = line(&mut self.header.iter().copied());
        for row in &self.rows {
            text.push_str(&line(&mut row.iter().map(String::as_str)));
        }
        text
    }

    /// A Markdown table.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("| {} |\n|", self.header.join(" | "));
        for column in 0..self.header.len() {
            text.push_str(if column >= FIRST_FIGURE { "---:|" } else { "---|" });
        }
        text.push('\n');
        for row in &self.rows {
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
        text
    }

    /// An HTML table.
    pub(super) fn html(&self) -> String {
        let mut text = String::from("<table>\n<tr>");
        for cell in &self.header {
            let _ = write!(text, "<th>{}</th>", escape(cell));
        }
        text.push_str("</tr>\n");
        for row in &self.rows {
            text.push_str("<tr>");
            for cell in row {
                let class = if cell == "MISSED" { " class=\"missed\"" } else { "" };
                let _ = write!(text, "<td{class}>{}</td>", escape(cell));
            }
            text.push_str("</tr>\n");
        }
        text.push_str("</table>\n");
        text
    }
}

/// `text` with what HTML would take for markup replaced.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table {
            header: vec!["a", "b", "c", "d"],
            rows: vec![vec!["µs".into(), "2".into(), "<x>".into(), "1000".into()]],
        }
    }

    #[test]
    fn text_is_aligned_by_characters() {
        assert_eq!(table().text(), "a   b  c       d\nµs  2  <x>  1000\n");
    }

    #[test]
    fn markdown_aligns_figures_to_the_right() {
        assert_eq!(
            table().markdown(),
            "| a | b | c | d |\n|---|---|---|---:|\n| µs | 2 | <x> | 1000 |\n"
        );
    }

    #[test]
    fn html_is_escaped() {
        assert!(table().html().contains("<td>&lt;x&gt;</td>"));
    }

    #[test]
    fn figures_keep_about_three_digits() {
        assert_eq!(figure(1234.5), "1234");
        assert_eq!(figure(12.345), "12.3");
        assert_eq!(figure(1.2345), "1.23");
        assert_eq!(figure(0.12345), "0.123");
    }
}
