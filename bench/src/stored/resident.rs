//! Memory of a process and its children, with what they share counted once.
//!
//! Read by the bench of snapshots: a forked child shares its pages until one of both writes to
//! them. Invariant: a page counts for as many parts as processes map it (PSS, proc_pid_smaps(5)).

use std::fs;

use crate::failure::Failure;

/// Bytes of `process` and all its descendants.
pub(super) fn bytes(process: u32) -> Result<u64, Failure> {
    let (mut bytes, mut pending) = (0, vec![process]);
    while let Some(next) = pending.pop() {
        match fs::read_to_string(format!("/proc/{next}/smaps_rollup")) {
            Ok(text) => bytes += proportional_bytes(&text).unwrap_or(0),
            // A child may end while it is being read; the parent may not.
            Err(_) if next != process => continue,
            Err(error) => return Err(Failure::failed(format!("memory of {process}"), error)),
        }
        for task in fs::read_dir(format!("/proc/{next}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            pending.extend(children.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
        }
    }
    Ok(bytes)
}

/// From the line `Pss:  123 kB`.
fn proportional_bytes(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_found_among_its_namesakes() {
        let rollup = "Rss:    9 kB\nPss:     5 kB\nPss_Anon:  4 kB\n";
        assert_eq!(proportional_bytes(rollup), Some(5 << 10));
        assert_eq!(proportional_bytes("Rss: 9 kB\n"), None);
    }

    #[test]
    fn this_process_takes_some_and_a_missing_one_is_an_error() {
        assert!(bytes(std::process::id()).unwrap() > 0);
        assert!(bytes(u32::MAX).is_err());
    }
}
