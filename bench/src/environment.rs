//! Where a comparison ran: processor, kernel, limits and versions, recorded with every result.
//!
//! Called once by `compare`. Everything is best effort: what cannot be read is "unknown", because a
//! missing file must not spoil a measurement.

use std::fs;
use std::process::Command;

use serde::Serialize;

use crate::affinity;

/// The lock file of this build: versions of the peers that are compiled in.
const LOCK_FILE: &str = include_str!("../../Cargo.lock");
/// Peers whose versions are recorded.
const PEERS: [&str; 5] = ["tokio", "monoio", "compio", "glommio", "io-uring"];

/// Facts about the machine and the build.
#[derive(Debug, Serialize)]
pub(crate) struct Environment {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) hypervisor: bool,
    pub(crate) kernel: String,
    pub(crate) governor: String,
    pub(crate) mitigations: Vec<String>,
    pub(crate) memlock: String,
    pub(crate) load_average: String,
    /// Other programs were running when the comparison began.
    pub(crate) busy_with_others: bool,
    pub(crate) rustc: String,
    pub(crate) revision: String,
    /// Name and version of every contender that is not ours.
    pub(crate) versions: Vec<(String, String)>,
}

impl Environment {
    /// Looks around.
    pub(crate) fn read() -> Self {
        let load_average = read_line("/proc/loadavg");
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            cpu: cpu_field(&cpuinfo, "model name").unwrap_or_else(unknown),
            cores: affinity::allowed_cores().map_or(0, |cores| cores.len()),
            hypervisor: cpu_field(&cpuinfo, "flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            kernel: read_line("/proc/sys/kernel/osrelease"),
            governor: read_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            mitigations: mitigations(),
            memlock: memlock(),
            busy_with_others: is_busy(&load_average),
            load_average,
            rustc: output("rustc", &["--version"]).unwrap_or_else(unknown),
            revision: revision(),
            versions: versions(),
        }
    }

    /// One line for each fact, for text and HTML.
    pub(crate) fn lines(&self) -> Vec<(&'static str, String)> {
        let hypervisor = if self.hypervisor { " (virtual machine)" } else { "" };
        let versions: Vec<String> =
            self.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        vec![
            ("processor", format!("{}{hypervisor}, {} cores", self.cpu, self.cores)),
            ("kernel", self.kernel.clone()),
            ("governor", self.governor.clone()),
            ("mitigations", self.mitigations.join("; ")),
            ("memlock", self.memlock.clone()),
            ("load average", self.load_average.clone()),
            ("compiler", self.rustc.clone()),
            ("revision", self.revision.clone()),
            ("versions", versions.join(", ")),
        ]
    }
}

fn unknown() -> String {
    "unknown".into()
}

fn read_line(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| unknown(), |text| text.trim().to_owned())
}

/// The value of the first `name : value` line.
fn cpu_field(cpuinfo: &str, name: &str) -> Option<String> {
    cpuinfo.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        (field.trim() == name).then(|| value.trim().to_owned())
    })
}

/// Mitigations in force; what the processor is not affected by is left out.
fn mitigations() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/sys/devices/system/cpu/vulnerabilities") else {
        return vec![unknown()];
    };
    let mut lines: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            let state = fs::read_to_string(entry.path()).ok()?;
            let state = state.trim();
            (state != "Not affected")
                .then(|| format!("{}: {state}", entry.file_name().to_string_lossy()))
        })
        .collect();
    lines.sort();
    lines
}

/// Whether a line of /proc/loadavg tells of more than one runnable program in the last minute.
fn is_busy(load_average: &str) -> bool {
    let last_minute = load_average.split(' ').next().and_then(|number| number.parse::<f64>().ok());
    last_minute.is_some_and(|load| load > 1.0)
}

fn memlock() -> String {
    use rustix::process::{Resource, getrlimit};
    match getrlimit(Resource::Memlock).current {
        Some(bytes) => format!("{} KiB", bytes / 1024),
        None => "unlimited".into(),
    }
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    // nginx prints its version on stderr.
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

fn revision() -> String {
    let Some(revision) = output("git", &["rev-parse", "--short=12", "HEAD"]) else {
        return unknown();
    };
    let dirty = output("git", &["status", "--porcelain", "--untracked-files=no"]).is_some();
    if dirty { format!("{revision} with local changes") } else { revision }
}

fn versions() -> Vec<(String, String)> {
    let crates = PEERS
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), locked_version(LOCK_FILE, name)?)));
    let programs =
        [("redis-server", "--version"), ("nginx", "-v"), ("wrk", "-v"), ("fio", "--version")];
    let programs = programs.iter().filter_map(|(name, flag)| {
        let output = Command::new(name).arg(flag).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        Some(((*name).to_owned(), first_version(&text)?))
    });
    crates.chain(programs).collect()
}

/// The newest version of `name` in a lock file.
fn locked_version(lock: &str, name: &str) -> Option<String> {
    let header = format!("name = \"{name}\"");
    let mut lines = lock.lines();
    let mut newest = None;
    while lines.by_ref().any(|line| line == header) {
        newest = lines
            .next()
            .and_then(|line| line.strip_prefix("version = "))
            .map(|version| version.trim_matches('"').to_owned());
    }
    newest
}

/// The first thing in `text` that looks like a version: digits with a dot in between.
fn first_version(text: &str) -> Option<String> {
    text.split(|c: char| !c.is_ascii_digit() && c != '.')
        .find(|word| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit()))
        .map(|word| word.trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_print() {
        let redis = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64";
        assert_eq!(first_version(redis).as_deref(), Some("7.0.15"));
        assert_eq!(first_version("nginx version: nginx/1.22.1").as_deref(), Some("1.22.1"));
        assert_eq!(first_version("none"), None);
    }

    #[test]
    fn versions_are_found_in_the_lock_file() {
        let lock = "[[package]]\nname = \"tokio\"\nversion = \"1.2.3\"\n\n\
                    [[package]]\nname = \"tokio-util\"\nversion = \"9.0.0\"\n";
        assert_eq!(locked_version(lock, "tokio").as_deref(), Some("1.2.3"));
        assert_eq!(locked_version(lock, "mio"), None);
    }

    #[test]
    fn more_than_one_runnable_program_is_busy() {
        assert!(is_busy("5.53 5.67 5.96 2/121 20727"));
        assert!(!is_busy("0.40 5.67 5.96 1/121 20727"));
        assert!(!is_busy("unknown"));
    }

    #[test]
    fn fields_of_cpuinfo_are_found_by_name() {
        let text = "processor\t: 0\nmodel name\t: Fast CPU @ 3GHz\n";
        assert_eq!(cpu_field(text, "model name").as_deref(), Some("Fast CPU @ 3GHz"));
    }
}
