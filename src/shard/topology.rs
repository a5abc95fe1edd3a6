//! Which CPUs this process may use, and how they hang together.
//!
//! Read once at start from sysfs, procfs and the cgroup file systems, below a root that tests
//! replace by a tree of fixtures. The planner in `placement` works on the result alone.
//!
//! Invariant: `Topology::cpus` is what is online, within the thread's affinity and within the
//! cgroup's cpuset; it is never empty, and it is sorted by id.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::affinity;

/// The kernel's number of a logical CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuId(pub usize);

impl fmt::Display for CpuId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A set of CPUs, written as the kernel writes it: `0-3,8`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuSet(pub BTreeSet<CpuId>);

/// No kernel is built for more (`CONFIG_NR_CPUS`), so a larger number is a mistake.
const CPU_ID_MAX: usize = 8_192;

impl CpuSet {
    /// Parses the kernel's list format, such as `0-3,8`. Blank is the empty set.
    pub fn parse(text: &str) -> Option<Self> {
        let mut set = BTreeSet::new();
        for part in text.trim().split(',').filter(|_| !text.trim().is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first = first.trim().parse::<usize>().ok()?;
            let last = last.trim().parse::<usize>().ok()?;
            if first > last || last > CPU_ID_MAX {
                return None;
            }
            set.extend((first..=last).map(CpuId));
        }
        Some(Self(set))
    }

    fn intersection(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).copied().collect())
    }
}

impl FromIterator<usize> for CpuSet {
    fn from_iter<I: IntoIterator<Item = usize>>(ids: I) -> Self {
        Self(ids.into_iter().map(CpuId).collect())
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ids = self.0.iter().map(|cpu| cpu.0).peekable();
        let mut separator = "";
        while let Some(first) = ids.next() {
            let mut last = first;
            while ids.next_if_eq(&(last + 1)).is_some() {
                last += 1;
            }
            if first == last {
                write!(formatter, "{separator}{first}")?;
            } else {
                write!(formatter, "{separator}{first}-{last}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

/// One logical CPU that may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Its number.
    pub id: CpuId,
    /// The lowest number among the hardware threads of its physical core.
    pub core: CpuId,
    /// Its NUMA node; zero on machines without nodes.
    pub node: usize,
}

/// The CPUs of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// The usable CPUs, by id.
    pub cpus: Vec<Cpu>,
    /// Every CPU that is online, usable or not.
    pub online: CpuSet,
    /// How much CPU time the cgroup grants, in thousandths of one CPU; `None` without a limit.
    pub quota_millicpus: Option<u64>,
}

/// Why the topology could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// A file that every Linux has could not be read.
    #[error("cannot read {}: {source}; is the file system mounted?", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file held something else than expected.
    #[error("{} holds {text:?}, which is not a list of CPUs", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it held.
        text: String,
    },
    /// Online, affinity and cpuset have no CPU in common.
    #[error(
        "no CPU is left: online are {online}, affinity allows {allowed}, the cgroup's cpuset \
         allows {cpuset}; widen the affinity (taskset) or the cpuset"
    )]
    NoCpu {
        /// The CPUs that are online.
        online: CpuSet,
        /// The CPUs of the thread's affinity.
        allowed: CpuSet,
        /// The CPUs of the cgroup.
        cpuset: String,
    },
}

impl Topology {
    /// Reads the topology of this host for the calling thread, as it would be had no runtime pinned
    /// it or the thread that started it.
    pub fn of_host() -> Result<Self, TopologyError> {
        let unpinned = affinity::unpinned().map(|mask| mask.cpus());
        Self::read_with(Path::new("/"), unpinned)
    }

    /// Reads the topology from the `sys` and `proc` trees below `root`.
    pub fn read(root: &Path) -> Result<Self, TopologyError> {
        Self::read_with(root, None)
    }

    fn read_with(root: &Path, allowed: Option<CpuSet>) -> Result<Self, TopologyError> {
        let cpu_root = root.join("sys/devices/system/cpu");
        let online = read_cpu_set(&cpu_root.join("online"))?;
        let allowed = match allowed {
            Some(allowed) => allowed,
            None => read_affinity(&root.join("proc/thread-self/status"))?,
        };
        let cgroups = Cgroups::read(root);
        let cpuset = cgroups.cpuset();
        let mut usable = online.intersection(&allowed);
        if let Some(cpuset) = &cpuset {
            usable = usable.intersection(cpuset);
        }
        if usable.0.is_empty() {
            let cpuset = cpuset.map_or_else(|| "all".to_owned(), |set| set.to_string());
            return Err(TopologyError::NoCpu { online, allowed, cpuset });
        }
        let nodes = read_nodes(&root.join("sys/devices/system/node"));
        let cpus = usable.0.iter().map(|&id| Cpu {
            id,
            core: read_core(&cpu_root, id),
            node: nodes.get(&id).copied().unwrap_or(0),
        });
        Ok(Self { cpus: cpus.collect(), quota_millicpus: cgroups.quota_millicpus(), online })
    }

    /// The usable CPUs as a set.
    pub fn usable(&self) -> CpuSet {
        self.cpus.iter().map(|cpu| cpu.id.0).collect()
    }

    /// How many physical cores the usable CPUs belong to.
    pub fn cores(&self) -> usize {
        self.cpus.iter().map(|cpu| cpu.core).collect::<BTreeSet<_>>().len()
    }

    /// How many NUMA nodes the usable CPUs belong to.
    pub fn nodes(&self) -> usize {
        self.cpus.iter().map(|cpu| cpu.node).collect::<BTreeSet<_>>().len()
    }
}

fn read_text(path: &Path) -> Result<String, TopologyError> {
    fs::read_to_string(path).map_err(|source| TopologyError::Read { path: path.to_owned(), source })
}

fn read_cpu_set(path: &Path) -> Result<CpuSet, TopologyError> {
    let text = read_text(path)?;
    CpuSet::parse(&text).ok_or_else(|| TopologyError::Malformed { path: path.to_owned(), text })
}

/// The affinity of the calling thread: what `sched_getaffinity` reports.
fn read_affinity(path: &Path) -> Result<CpuSet, TopologyError> {
    let status = read_text(path)?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let text = list.unwrap_or("").trim().to_owned();
    match CpuSet::parse(&text) {
        Some(set) if !set.0.is_empty() => Ok(set),
        _ => Err(TopologyError::Malformed { path: path.to_owned(), text }),
    }
}

/// Kernels and containers without topology files: each CPU is then a core of its own.
fn read_core(cpu_root: &Path, cpu: CpuId) -> CpuId {
    let topology = cpu_root.join(format!("cpu{cpu}/topology"));
    let siblings = ["core_cpus_list", "thread_siblings_list"]
        .into_iter()
        .find_map(|name| read_cpu_set(&topology.join(name)).ok());
    siblings.and_then(|set| set.0.first().copied()).unwrap_or(cpu)
}

/// Kernels without NUMA have no such folder: then every CPU is on node zero.
fn read_nodes(node_root: &Path) -> BTreeMap<CpuId, usize> {
    let mut nodes = BTreeMap::new();
    for entry in fs::read_dir(node_root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("node")?.parse().ok());
        let (Some(node), Ok(set)) = (number, read_cpu_set(&entry.path().join("cpulist"))) else {
            continue;
        };
        nodes.extend(set.0.into_iter().map(|cpu| (cpu, node)));
    }
    nodes
}

/// The folders of this process's cgroups, from its own up to the root of the mount.
struct Cgroups {
    unified: Vec<PathBuf>,
    cpuset_v1: Vec<PathBuf>,
    cpu_v1: Vec<PathBuf>,
}

impl Cgroups {
    /// Hosts without cgroups, or which hide them, limit nothing that could be read here.
    fn read(root: &Path) -> Self {
        let memberships = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let mounts = fs::read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default();
        let folders = |controller: Option<&str>| {
            cgroup_folders(root, &memberships, &mounts, controller).unwrap_or_default()
        };
        Self {
            unified: folders(None),
            cpuset_v1: folders(Some("cpuset")),
            cpu_v1: folders(Some("cpu")),
        }
    }

    /// The nearest cpuset that is set, with the limits of its parents already applied by the
    /// kernel.
    fn cpuset(&self) -> Option<CpuSet> {
        let files = |folders: &[PathBuf], name: &str| {
            folders.iter().find_map(|folder| {
                read_cpu_set(&folder.join(name)).ok().filter(|set| !set.0.is_empty())
            })
        };
        files(&self.unified, "cpuset.cpus.effective")
            .or_else(|| files(&self.cpuset_v1, "cpuset.effective_cpus"))
            .or_else(|| files(&self.cpuset_v1, "cpuset.cpus"))
    }

    /// The least quota on the way up: each level limits those below.
    fn quota_millicpus(&self) -> Option<u64> {
        let unified = self.unified.iter().filter_map(|folder| {
            let text = fs::read_to_string(folder.join("cpu.max")).ok()?;
            let mut words = text.split_whitespace();
            quota_millicpus(words.next()?, words.next()?)
        });
        let legacy = self.cpu_v1.iter().filter_map(|folder| {
            let quota = fs::read_to_string(folder.join("cpu.cfs_quota_us")).ok()?;
            let period = fs::read_to_string(folder.join("cpu.cfs_period_us")).ok()?;
            quota_millicpus(quota.trim(), period.trim())
        });
        unified.chain(legacy).min()
    }
}

/// `max` (version 2) and -1 (version 1) mean that there is no limit: they do not parse as `u64`.
fn quota_millicpus(quota_us: &str, period_us: &str) -> Option<u64> {
    let quota_us = quota_us.parse::<u64>().ok()?;
    let period_us = period_us.parse::<u64>().ok()?;
    quota_us.saturating_mul(1_000).checked_div(period_us)
}

/// Where the cgroup of `controller` (version 1), or the unified one, is to be found.
fn cgroup_folders(
    root: &Path,
    memberships: &str,
    mounts: &str,
    controller: Option<&str>,
) -> Option<Vec<PathBuf>> {
    let member_path = memberships.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let matches = match controller {
            Some(name) => controllers.split(',').any(|have| have == name),
            None => controllers.is_empty(),
        };
        matches.then_some(path)
    })?;
    let (mount_root, mount_point) =
        mounts.lines().find_map(|line| cgroup_mount(line, controller))?;
    // In a container the path may lie outside of what is mounted: then the mount's own root is
    // the best answer.
    let inside = Path::new(member_path).strip_prefix(mount_root).unwrap_or(Path::new(""));
    let mount_point = root.join(mount_point.trim_start_matches('/'));
    let folders = inside.ancestors().map(|ancestor| mount_point.join(ancestor));
    Some(folders.collect())
}

/// Root and mount point of a line of `mountinfo` (proc(5)), if it is the wanted cgroup mount.
fn cgroup_mount<'a>(line: &'a str, controller: Option<&str>) -> Option<(&'a str, &'a str)> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let (mount_root, mount_point) = (mount.next()?, mount.next()?);
    let mut file_system = file_system.split(' ');
    let (kind, options) = (file_system.next()?, file_system.nth(1)?);
    let matches = match controller {
        Some(name) => kind == "cgroup" && options.split(',').any(|option| option == name),
        None => kind == "cgroup2",
    };
    matches.then_some((mount_root, mount_point))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of fixture files that is removed at the end of its test.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let unique = format!("annulus-topology-{}-{name}", std::process::id());
            let tree = Self(std::env::temp_dir().join(unique));
            tree.write(files);
            tree
        }

        fn write(&self, files: &[(&str, &str)]) {
            for (path, text) in files {
                let path = self.0.join(path);
                fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
                fs::write(path, text).expect("a file");
            }
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const PLAIN: [(&str, &str); 2] = [
        ("sys/devices/system/cpu/online", "0-3\n"),
        ("proc/thread-self/status", "Name:\tx\nCpus_allowed_list:\t0-3\n"),
    ];

    fn ids(topology: &Topology) -> String {
        topology.usable().to_string()
    }

    #[test]
    fn cpu_lists_read_and_print_as_the_kernel_writes_them() {
        for text in ["", "0", "0-3", "0-3,8,10-11"] {
            assert_eq!(CpuSet::parse(text).expect(text).to_string(), text);
        }
        assert_eq!(CpuSet::parse("0,1,2\n").expect("a list").to_string(), "0-2");
        for text in ["x", "3-1", "1,,2", "-1", "0-99999999"] {
            assert_eq!(CpuSet::parse(text), None, "{text}");
        }
    }

    #[test]
    fn without_topology_files_each_cpu_is_a_core_on_node_zero() {
        let tree = Tree::new("plain", &PLAIN);
        let topology = Topology::read(&tree.0).expect("readable");
        assert_eq!((ids(&topology), topology.cores(), topology.nodes()), ("0-3".into(), 4, 1));
        assert_eq!(topology.quota_millicpus, None);
    }

    #[test]
    fn affinity_and_online_and_cpuset_intersect() {
        let tree = Tree::new("intersect", &PLAIN);
        tree.write(&[
            ("proc/thread-self/status", "Cpus_allowed_list:\t1-9\n"),
            ("proc/self/cgroup", "0::/app\n"),
            (
                "proc/self/mountinfo",
                "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n",
            ),
            ("sys/fs/cgroup/app/cpuset.cpus.effective", "0-2\n"),
        ]);
        assert_eq!(ids(&Topology::read(&tree.0).expect("readable")), "1-2");
    }

    #[test]
    fn the_least_quota_on_the_way_up_counts() {
        let tree = Tree::new("quota2", &PLAIN);
        tree.write(&[
            ("proc/self/cgroup", "0::/slice/app\n"),
            ("proc/self/mountinfo", "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
            ("sys/fs/cgroup/slice/app/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/slice/cpu.max", "150000 100000\n"),
        ]);
        let topology = Topology::read(&tree.0).expect("readable");
        assert_eq!(topology.quota_millicpus, Some(1_500));
    }

    #[test]
    fn version_one_cgroups_are_read_too() {
        let tree = Tree::new("v1", &PLAIN);
        tree.write(&[
            ("proc/self/cgroup", "3:cpuset:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/\n"),
            (
                "proc/self/mountinfo",
                "32 31 0:29 /docker/abc /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                 33 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n",
            ),
            ("sys/fs/cgroup/cpuset/docker/abc/cpuset.cpus", "2-3\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ]);
        let topology = Topology::read(&tree.0).expect("readable");
        assert_eq!((ids(&topology), topology.quota_millicpus), ("2-3".into(), Some(500)));
    }

    #[test]
    fn siblings_and_nodes_are_known() {
        let tree = Tree::new("numa", &PLAIN);
        let sibling = |cpu: usize| format!("sys/devices/system/cpu/cpu{cpu}/topology");
        for (cpu, list) in [(0, "0,2\n"), (1, "1,3\n"), (2, "0,2\n"), (3, "1,3\n")] {
            tree.write(&[(&format!("{}/thread_siblings_list", sibling(cpu)), list)]);
        }
        tree.write(&[
            ("sys/devices/system/node/node0/cpulist", "0,2\n"),
            ("sys/devices/system/node/node1/cpulist", "1,3\n"),
            ("sys/devices/system/node/has_cpu", "0-1\n"),
        ]);
        let topology = Topology::read(&tree.0).expect("readable");
        assert_eq!((topology.cores(), topology.nodes()), (2, 2));
        assert_eq!(topology.cpus[3], Cpu { id: CpuId(3), core: CpuId(1), node: 1 });
    }

    #[test]
    fn an_empty_intersection_names_its_parts() {
        let tree = Tree::new("none", &PLAIN);
        tree.write(&[("proc/thread-self/status", "Cpus_allowed_list:\t8\n")]);
        let error = Topology::read(&tree.0).expect_err("nothing left").to_string();
        assert!(error.contains("online are 0-3, affinity allows 8"), "{error}");
    }

    #[test]
    fn a_missing_or_odd_file_is_named() {
        let tree = Tree::new("missing", &PLAIN[..1]);
        let error = Topology::read(&tree.0).expect_err("no status").to_string();
        assert!(error.contains("proc/thread-self/status"), "{error}");
        tree.write(&[("sys/devices/system/cpu/online", "banana\n")]);
        let error = Topology::read(&tree.0).expect_err("no list").to_string();
        assert!(error.contains("banana"), "{error}");
    }

    #[test]
    fn this_host_has_a_cpu() {
        assert!(!Topology::of_host().expect("a Linux host").cpus.is_empty());
    }
}
