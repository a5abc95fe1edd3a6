//! Which cores the servers, and which the load, may use.
//!
//! Computed once by `compare`. Invariant: server and load share a core only if there is no other
//! way, and then the report says so.

use std::fs;

use serde::Serialize;

use crate::affinity;
use crate::failure::Failure;

/// Load threads at most: more only add noise.
const LOAD_CORES_MAX: usize = 3;

/// The split of the cores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Cores {
    /// One core for the server.
    pub(crate) server: Vec<usize>,
    /// Cores for the load, one thread each.
    pub(crate) load: Vec<usize>,
    /// The load runs on the server's core or on its sibling.
    pub(crate) shared: bool,
}

impl Cores {
    /// The split with `server_count` cores for the server.
    pub(crate) fn split(server_count: usize) -> Result<Self, Failure> {
        let allowed = affinity::allowed_cores()?;
        let siblings = |core: usize| {
            let path = format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
            fs::read_to_string(path).map_or_else(|_| vec![core], |text| parse_list(&text))
        };
        Ok(split(&allowed, server_count, siblings))
    }

    /// One line for the report.
    pub(crate) fn line(&self) -> String {
        let note = match (self.shared, self.server.iter().any(|core| self.load.contains(core))) {
            (false, _) => "",
            (true, true) => " — SHARED: server and load compete, figures are rough",
            (true, false) => " — siblings of one core: figures are rough",
        };
        format!("server on {:?}, load on {:?}{note}", self.server, self.load)
    }
}

fn split(allowed: &[usize], server_count: usize, siblings: impl Fn(usize) -> Vec<usize>) -> Cores {
    let server: Vec<usize> = allowed.iter().copied().take(server_count.max(1)).collect();
    let others: Vec<usize> =
        allowed.iter().copied().filter(|core| !server.contains(core)).collect();
    let taken: Vec<usize> = server.iter().copied().flat_map(&siblings).collect();
    let apart: Vec<usize> = others.iter().copied().filter(|core| !taken.contains(core)).collect();
    let (load, shared) = match (apart.is_empty(), others.is_empty()) {
        (false, _) => (apart, false),
        (true, false) => (others, true),
        // The last of the server's cores: with two, the one that its first thread leaves alone.
        (true, true) => (server.last().copied().into_iter().collect(), true),
    };
    Cores { server, load: load.into_iter().take(LOAD_CORES_MAX).collect(), shared }
}

/// A kernel list of cores: `0-2,5`.
fn parse_list(text: &str) -> Vec<usize> {
    let range = |part: &str| -> Option<std::ops::RangeInclusive<usize>> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alone(core: usize) -> Vec<usize> {
        vec![core]
    }

    #[test]
    fn two_cores_are_one_each() {
        let cores = split(&[0, 1], 1, alone);
        assert_eq!(cores, Cores { server: vec![0], load: vec![1], shared: false });
    }

    #[test]
    fn one_core_is_shared_and_said_to_be() {
        let cores = split(&[3], 1, alone);
        assert_eq!(cores, Cores { server: vec![3], load: vec![3], shared: true });
        assert!(cores.line().contains("SHARED"));
    }

    #[test]
    fn siblings_of_the_servers_core_are_left_idle_if_possible() {
        let pairs = |core: usize| vec![core & !1, core | 1];
        assert_eq!(split(&[0, 1, 2, 3], 1, pairs).load, [2, 3]);
        let cores = split(&[0, 1], 1, pairs);
        assert_eq!((cores.load, cores.shared), (vec![1], true));
    }

    #[test]
    fn a_server_with_both_cores_shares_the_second() {
        let cores = split(&[0, 1], 2, alone);
        assert_eq!((cores.load, cores.shared), (vec![1], true));
    }

    #[test]
    fn kernel_lists_are_read() {
        assert_eq!(parse_list("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(parse_list("\n"), [] as [usize; 0]);
    }
}
