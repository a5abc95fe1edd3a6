//! What one run has measured, as a table with the losses first.
//!
//! Called by the bench itself, which notes every sample that criterion asks for. Invariant: a cell
//! is the median of the last samples of its contender, never of warm-up.

use std::time::Duration;

/// The samples of one contender on one line: repetitions and the time that they took.
pub(crate) struct Samples {
    pub(crate) line: &'static str,
    pub(crate) runtime: &'static str,
    pub(crate) variant: &'static str,
    pub(crate) taken: Vec<(u64, Duration)>,
}

impl Samples {
    /// Nanoseconds for one repetition, as the median of the last `count` samples.
    fn median_ns(&self, count: usize) -> Option<f64> {
        let measured = &self.taken[self.taken.len().saturating_sub(count)..];
        let mut ns: Vec<f64> = measured
            .iter()
            .map(|(repetitions, time)| time.as_nanos() as f64 / *repetitions as f64)
            .collect();
        ns.sort_by(f64::total_cmp);
        let middle = ns.len() / 2;
        match ns.len() {
            0 => None,
            len if len % 2 == 1 => Some(ns[middle]),
            _ => Some(f64::midpoint(ns[middle - 1], ns[middle])),
        }
    }
}

/// One line of the table: a cell (nanoseconds, variant) for each runtime.
struct Row {
    line: &'static str,
    cells: Vec<Option<(f64, &'static str)>>,
}

impl Row {
    fn fastest(&self) -> f64 {
        self.cells.iter().flatten().map(|cell| cell.0).fold(f64::INFINITY, f64::min)
    }

    /// The first runtime's time over that of its best peer; above 1 is a loss.
    fn loss(&self) -> f64 {
        let own = self.cells.first().copied().flatten();
        let peers = self.cells.iter().skip(1).flatten().map(|cell| cell.0);
        own.map_or(0.0, |cell| cell.0 / peers.fold(f64::INFINITY, f64::min))
    }
}

/// Prints the table: the first of `runtimes` against the others, its losses first.
pub(crate) fn print(samples: &[Samples], runtimes: &[&str], count: usize) {
    let mut lines: Vec<&'static str> = samples.iter().map(|sample| sample.line).collect();
    lines.dedup();
    let mut rows: Vec<Row> = lines
        .into_iter()
        .map(|line| {
            let cells = runtimes.iter().map(|runtime| {
                let of_runtime = samples.iter().filter(|s| s.line == line && s.runtime == *runtime);
                let times = of_runtime.filter_map(|s| Some((s.median_ns(count)?, s.variant)));
                times.min_by(|a, b| a.0.total_cmp(&b.0))
            });
            Row { line, cells: cells.collect() }
        })
        .filter(|row| row.cells.iter().any(Option::is_some))
        .collect();
    rows.sort_by(|a, b| b.loss().total_cmp(&a.loss()));
    let fastest = "(ratio to the fastest)";
    println!("\nCPU ns for one, median of {count} samples {fastest}; losses first\n");
    print!("{:<29}", "");
    for runtime in runtimes {
        print!("{runtime:>18}");
    }
    println!("{:>12}   tokio's form", "loss");
    for row in rows {
        print!("{:<29}", row.line);
        for cell in &row.cells {
            let text = cell
                .map_or("-".to_owned(), |(ns, _)| format!("{ns:.1} ({:.2})", ns / row.fastest()));
            print!("{text:>18}");
        }
        let variant = row.cells.iter().flatten().map(|cell| cell.1).find(|v| !v.is_empty());
        println!("{:>12.2}   {}", row.loss(), variant.unwrap_or(""));
    }
}
