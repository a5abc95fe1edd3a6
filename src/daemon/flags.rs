//! The command line: words in, a verb and plain settings out.
//!
//! Called once by `main`. The flags of settings are made from the settings table, so that a flag
//! and its key can not drift apart. Invariant: nothing is validated here but the grammar.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::settings::{Given, Origin, TABLE, find_row};

/// What the user wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Run the daemon.
    Serve,
    /// Say what would run, and whether it can.
    Check,
    /// Print the resolved settings.
    PrintConfig,
    /// Read a store's directory and report.
    Verify(PathBuf),
    /// Cut a damaged log.
    Repair {
        /// The store's directory.
        directory: PathBuf,
        /// Whether to do it without asking.
        yes: bool,
    },
}

/// The command line, understood.
#[derive(Debug)]
pub struct Request {
    /// What to do.
    pub verb: Verb,
    /// The configuration file, if one was named.
    pub config: Option<PathBuf>,
    /// The settings given by flags.
    pub given: Vec<Given>,
}

const ABOUT: &str = "A Redis-compatible and HTTP daemon on a thread-per-core io_uring runtime";
const AFTER_HELP: &str = "Without a command, annulus serves with the built-in defaults.";

/// Understands the command line. Help and version come back as an error whose exit code is 0.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Request, clap::Error> {
    let matches = command().try_get_matches_from(arguments)?;
    let (verb, matches) = match matches.subcommand() {
        Some((name @ ("verify" | "repair"), matches)) => {
            let directory = matches.get_one("directory").cloned().unwrap_or_default();
            let verb = match name {
                "verify" => Verb::Verify(directory),
                _ => Verb::Repair { directory, yes: matches.get_flag("yes") },
            };
            return Ok(Request { verb, config: None, given: Vec::new() });
        }
        Some(("check", matches)) => (Verb::Check, matches),
        Some((_, matches)) => (Verb::Serve, matches),
        None => (Verb::Serve, &matches),
    };
    let verb = if matches.get_flag("print-config") { Verb::PrintConfig } else { verb };
    Ok(Request { verb, config: matches.get_one("config").cloned(), given: given(matches) })
}

/// The settings that the environment gives: `RUST_LOG` for the log level.
pub fn from_environment() -> Vec<Given> {
    let filter = std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty());
    let row = find_row("log.level");
    let given = |(text, row)| Given { row, text, origin: Origin::Environment("RUST_LOG") };
    filter.zip(row).map(given).into_iter().collect()
}

fn command() -> Command {
    Command::new("annulus")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(AFTER_HELP)
        .args(arguments())
        .args_conflicts_with_subcommands(true)
        .subcommand(Command::new("serve").about("Run the daemon").args(arguments()))
        .subcommand(
            Command::new("check")
                .about("Validate configuration and host, and print the plan")
                .args(arguments()),
        )
        .subcommand(
            Command::new("verify")
                .about("Read a store's directory as a start would, and report; changes nothing")
                .arg(directory()),
        )
        .subcommand(
            Command::new("repair")
                .about("End a damaged log in front of the damage, after asking")
                .after_help("What is cut off is kept in files beside, named cut-….")
                .arg(directory())
                .arg(
                    Arg::new("yes")
                        .long("yes")
                        .action(ArgAction::SetTrue)
                        .help("Do it without asking"),
                ),
        )
}

fn directory() -> Arg {
    Arg::new("directory")
        .value_name("DIR")
        .value_parser(value_parser!(PathBuf))
        .required(true)
        .help("The store's directory: what --data names when it is served")
}

fn arguments() -> Vec<Arg> {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("Configuration in TOML; see config/default.toml");
    let print_config = Arg::new("print-config")
        .long("print-config")
        .action(ArgAction::SetTrue)
        .help("Print the resolved settings and where each comes from, then stop");
    let of_settings = TABLE.iter().filter_map(|row| {
        let flag = row.flag?;
        let default = if row.default.is_empty() { "none" } else { row.default };
        let help = format!("{} [default: {default}]", row.help);
        Some(Arg::new(row.key).long(flag).value_name("VALUE").help(help))
    });
    [config].into_iter().chain(of_settings).chain([print_config]).collect()
}

fn given(matches: &ArgMatches) -> Vec<Given> {
    let of_row = |row: &'static super::settings::Row| {
        let flag = row.flag?;
        let text = matches.get_one::<String>(row.key)?.clone();
        Some(Given { row, text, origin: Origin::Flag(flag) })
    };
    TABLE.iter().filter_map(of_row).collect()
}

#[cfg(test)]
mod tests {
    use super::super::settings::resolve;
    use super::*;
    use crate::shard::placement::Count;

    fn request(line: &str) -> Result<Request, clap::Error> {
        parse(["annulus"].into_iter().chain(line.split_whitespace()).map(OsString::from))
    }

    #[test]
    fn the_grammar_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn serve_is_the_verb_when_none_is_named() {
        assert_eq!(request("").expect("valid").verb, Verb::Serve);
        assert_eq!(request("serve --shards 2").expect("valid").verb, Verb::Serve);
        assert_eq!(request("check").expect("valid").verb, Verb::Check);
        assert_eq!(request("--print-config").expect("valid").verb, Verb::PrintConfig);
        assert_eq!(request("serve --print-config").expect("valid").verb, Verb::PrintConfig);
    }

    #[test]
    fn the_offline_verbs_name_a_directory() {
        let directory = PathBuf::from("some/dir");
        let verb = |line| request(line).expect("valid").verb;
        assert_eq!(verb("verify some/dir"), Verb::Verify(directory.clone()));
        let asks = Verb::Repair { directory: directory.clone(), yes: false };
        assert_eq!(verb("repair some/dir"), asks);
        assert_eq!(verb("repair --yes some/dir"), Verb::Repair { directory, yes: true });
        for line in ["verify", "repair", "verify a b", "verify --yes a", "repair --shards 2 a"] {
            assert_eq!(request(line).expect_err(line).exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_the_default() {
        let request = request("serve --shards 3 --resp off").expect("valid");
        let path = std::path::Path::new("a.toml");
        let text = "[runtime]\nshards = 2\nengine = \"epoll\"\n";
        let mut given = request.given;
        given.extend(super::super::config::parse(text, path).expect("valid"));
        let settings = resolve(given).expect("valid").settings;
        assert_eq!(settings.shards, Count::Exactly(3));
        assert_eq!(settings.engine, crate::engine::Engine::Epoll);
        assert_eq!(settings.cpu_cores, Count::Auto);
        assert_eq!(settings.resp.listen, None);
    }

    #[test]
    fn usage_errors_exit_with_two_and_help_with_zero() {
        for line in ["--banana", "serve extra", "--shards", "check --config"] {
            assert_eq!(request(line).expect_err(line).exit_code(), 2, "{line}");
        }
        for line in ["--help", "--version", "serve --help"] {
            assert_eq!(request(line).expect_err(line).exit_code(), 0, "{line}");
        }
    }

    #[test]
    fn a_wrong_value_names_its_flag() {
        let request = request("--engine banana --shards many").expect("grammatical");
        let error = resolve(request.given).expect_err("wrong").to_string();
        assert_eq!(
            error,
            "--engine: runtime.engine = \"banana\" is no engine; use auto, uring, epoll or \
             threads\n--shards: runtime.shards = \"many\" is not a whole number or auto"
        );
    }
}
