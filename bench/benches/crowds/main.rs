//! Crowds: memory and time for many tasks and timers, and the way from thread to sleeping task.
//!
//! `cargo bench -p annulus-bench --features peers --bench crowds`. Each cell is measured in a
//! process of its own, the contenders by turns, several rounds; the table shows medians. Times are
//! CPU times of the runtime's thread, except for wake-ups, which are on the clock.

mod allocator;
mod measure;
mod pin;
mod worlds;

use std::env;
use std::process::{Command, ExitCode};

use annulus::Engine;

use crate::measure::{Figures, Scenario};
use crate::worlds::{Annulus, Tokio};

/// Rounds, so that one disturbance is not a result.
const ROUNDS: usize = 3;
/// The columns of the table.
const CONTENDERS: [&str; 4] = ["uring", "epoll", "threads", "tokio"];

/// The child's part: `crowds --measure CONTENDER SCENARIO`.
fn measure(contender: &str, scenario: Scenario) -> Figures {
    pin::to_last();
    match contender {
        "uring" => scenario.measure(Annulus::new(Engine::Uring)),
        "epoll" => scenario.measure(Annulus::new(Engine::Epoll)),
        "threads" => scenario.measure(Annulus::new(Engine::Threads)),
        _ => scenario.measure(Tokio::new()),
    }
}

/// Has a child measure; the figures' names and values, or what it said instead.
fn ask(contender: &str, scenario: Scenario) -> Result<Vec<(String, f64)>, String> {
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let child = Command::new(program).args(["--measure", contender, scenario.name()]).output();
    let output = child.map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let figure = |line: &str| {
        let (name, value) = line.split_once('\t')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    Ok(text.lines().filter_map(figure).collect())
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn print(scenario: Scenario) {
    let mut names: Vec<String> = Vec::new();
    let mut seen: Vec<Vec<Vec<f64>>> = vec![Vec::new(); CONTENDERS.len()];
    for _ in 0..ROUNDS {
        for (contender, seen) in CONTENDERS.iter().zip(&mut seen) {
            match ask(contender, scenario) {
                Ok(figures) => {
                    seen.resize(figures.len(), Vec::new());
                    if names.is_empty() {
                        names = figures.iter().map(|figure| figure.0.clone()).collect();
                    }
                    for (values, figure) in seen.iter_mut().zip(figures) {
                        values.push(figure.1);
                    }
                }
                Err(reason) => eprintln!("{contender}: {reason}"),
            }
        }
    }
    println!("\n{}", scenario.name());
    print!("{:<22}", "");
    for contender in CONTENDERS {
        print!("{contender:>10}");
    }
    println!("{:>14}", "best/tokio");
    for (index, name) in names.iter().enumerate() {
        let row: Vec<Option<f64>> =
            seen.iter().map(|values| median(values.get(index)?.clone())).collect();
        print!("{name:<22}");
        for value in &row {
            print!("{:>10}", value.map_or("-".to_owned(), |value| format!("{value:.1}")));
        }
        let (tokio, own) = row.split_last().expect("a table has columns");
        let best = own.iter().flatten().copied().fold(f64::INFINITY, f64::min);
        println!("{:>14}", tokio.map_or("-".to_owned(), |tokio| format!("{:.2}", best / tokio)));
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [flag, contender, scenario] = arguments.as_slice()
        && flag == "--measure"
    {
        let Some(scenario) = Scenario::ALL.into_iter().find(|known| known.name() == scenario)
        else {
            eprintln!("no such scenario: {scenario}");
            return ExitCode::from(2);
        };
        for (name, value) in measure(contender, scenario) {
            println!("{name}\t{value}");
        }
        return ExitCode::SUCCESS;
    }
    // Whatever cargo adds (`--bench`) is no part of a name.
    let wanted = arguments.iter().find(|argument| !argument.starts_with('-'));
    for scenario in Scenario::ALL {
        if wanted.is_none_or(|part| scenario.name().contains(part.as_str())) {
            print(scenario);
        }
    }
    ExitCode::SUCCESS
}
