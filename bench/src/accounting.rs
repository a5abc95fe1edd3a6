//! Server CPU time with nanosecond precision, from the scheduler's own books.
//!
//! `load --pid` and `compare` read it at both ends of the measured window. It covers every thread
//! of the process and of its children (nginx's worker, io_uring's kernel workers). A thread that
//! ends inside the window takes its time with it, so connections must outlive the window.

use std::collections::HashMap;
use std::fs;

use crate::failure::Failure;

/// CPU time of every thread of a process tree at one moment, by thread id.
#[derive(Debug, Default, Clone)]
pub(crate) struct Reading {
    by_thread: HashMap<u32, u64>,
}

impl Reading {
    /// Reads process `pid` and all its descendants.
    pub(crate) fn take(pid: u32) -> Result<Self, Failure> {
        let mut reading = Reading::default();
        let mut pending = vec![pid];
        while let Some(process) = pending.pop() {
            let directory = format!("/proc/{process}/task");
            let tasks = match fs::read_dir(&directory) {
                Ok(tasks) => tasks,
                // A descendant may end while it is being read; the root may not.
                Err(_) if process != pid => continue,
                Err(error) => return Err(Failure::failed(format!("server {pid} is gone"), error)),
            };
            for task in tasks.flatten() {
                let Some(thread) = task.file_name().to_str().and_then(|name| name.parse().ok())
                else {
                    continue;
                };
                let path = task.path();
                if let Ok(text) = fs::read_to_string(path.join("schedstat"))
                    && let Some(nanos) = on_cpu_nanos(&text)
                {
                    reading.by_thread.insert(thread, nanos);
                }
                if let Ok(children) = fs::read_to_string(path.join("children")) {
                    let ids = children.split_whitespace().filter_map(|id| id.parse::<u32>().ok());
                    pending.extend(ids);
                }
            }
        }
        if reading.by_thread.is_empty() {
            return Err(Failure::Failed(format!(
                "no CPU time for process {pid}: /proc/{pid}/task/*/schedstat is missing \
                 (kernel without CONFIG_SCHED_INFO?)"
            )));
        }
        Ok(reading)
    }

    /// CPU nanoseconds spent between `earlier` and this reading. Threads that started in between
    /// count from zero.
    pub(crate) fn since(&self, earlier: &Reading) -> u64 {
        self.by_thread
            .iter()
            .map(|(thread, nanos)| {
                nanos.saturating_sub(earlier.by_thread.get(thread).copied().unwrap_or(0))
            })
            .sum()
    }
}

/// The first field of a schedstat line: time spent on a CPU, in nanoseconds (proc_pid_schedstat).
fn on_cpu_nanos(schedstat: &str) -> Option<u64> {
    schedstat.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedstat_gives_its_first_field() {
        assert_eq!(on_cpu_nanos("123456789 42 7\n"), Some(123_456_789));
        assert_eq!(on_cpu_nanos(""), None);
        assert_eq!(on_cpu_nanos("x 1 2"), None);
    }

    #[test]
    fn difference_counts_new_threads_from_zero_and_ignores_gone_ones() {
        let earlier = Reading { by_thread: HashMap::from([(1, 100), (2, 50)]) };
        let later = Reading { by_thread: HashMap::from([(1, 130), (3, 7)]) };
        assert_eq!(later.since(&earlier), 37);
    }

    #[test]
    fn own_process_has_cpu_time() {
        let earlier = Reading::take(std::process::id()).unwrap();
        let started = std::time::Instant::now();
        while started.elapsed().as_millis() < 30 {
            std::hint::spin_loop();
        }
        let later = Reading::take(std::process::id()).unwrap();
        assert!(later.since(&earlier) > 1_000_000);
    }
}
