//! Who sits where: splits the usable CPUs into shards and the cpu pool.
//!
//! The runtime builds its threads from a [`Plan`]; `annulus check` prints it. The planner is pure:
//! topology and wishes in, plan or a named refusal out.
//!
//! Invariant: in a pinned plan every shard has a CPU of its own, and only when the CPUs do not
//! suffice does a thread of the cpu pool sit on a shard's CPU; the plan then says so.

use std::collections::BTreeSet;
use std::fmt;

use super::topology::{Cpu, CpuId, CpuSet, Topology};
use super::{affinity, priority};

/// How many: chosen by the planner, or exactly so many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Count {
    /// The planner decides.
    #[default]
    Auto,
    /// Exactly so many, or an error.
    Exactly(usize),
}

/// Whether and where threads are pinned.
///
/// Runtimes of one process do not know of each other's seats: give each CPUs of its own by
/// [`Placement::Cpus`], or let them float. What is usable is what the thread that builds the
/// runtime could use before any runtime pinned it, or the thread that started it; likewise for
/// children of a [`Command`](crate::process::Command). A thread that a task starts by `std`
/// inherits the shard's CPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// On any usable CPU, one thread each.
    #[default]
    Pinned,
    /// On these CPUs only, one thread each.
    Cpus(CpuSet),
    /// Not pinned: the kernel moves the threads as it likes. There may be more of them than CPUs.
    Floating,
}

/// The seats of all threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where each shard is pinned; `None` where it floats. Shards of one NUMA node are neighbours.
    pub shards: Vec<Option<CpuId>>,
    /// Where each thread of the cpu pool is pinned. There is always at least one.
    pub cpu_pool: Vec<Option<CpuId>>,
    /// What the user should know.
    pub warnings: Vec<PlanWarning>,
}

/// A plan that works, but not as well as it might seem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanWarning {
    /// The cpu pool has threads on CPUs of shards.
    Shared {
        /// Those CPUs.
        cpus: CpuSet,
    },
    /// The cgroup grants less time than the pinned threads can use: they will be throttled.
    Throttled {
        /// The quota in thousandths of a CPU.
        quota_millicpus: u64,
        /// How many CPUs the threads sit on.
        cpus: usize,
    },
    /// There are more floating shards than CPUs.
    Crowded {
        /// How many shards.
        shards: usize,
        /// How many CPUs.
        cpus: usize,
    },
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Zero shards.
    #[error("shards is 0, but at least one shard is needed; use a number from 1 up, or auto")]
    NoShard,
    /// More shards than CPUs.
    #[error(
        "{shards} shards are wanted, but only {} CPU(s) are usable ({usable}): each shard is \
         pinned to a CPU of its own; use fewer shards, or placement \"floating\"", usable.0.len()
    )]
    TooManyShards {
        /// How many were wanted.
        shards: usize,
        /// The CPUs there are.
        usable: CpuSet,
    },
    /// A larger cpu pool than there are CPUs.
    #[error(
        "{cpu_cores} cpu cores are wanted, but only {} CPU(s) are usable ({usable}); use fewer, \
         or auto", usable.0.len()
    )]
    TooManyCpuCores {
        /// How many were wanted.
        cpu_cores: usize,
        /// The CPUs there are.
        usable: CpuSet,
    },
    /// A CPU was named that cannot be used.
    #[error("CPU {cpu} is not usable: {}; usable are {usable}", if *online {
        "it is online, but affinity or the cgroup's cpuset exclude it"
    } else {
        "it does not exist or is offline"
    })]
    NotUsable {
        /// The CPU.
        cpu: CpuId,
        /// Whether the machine has it at all.
        online: bool,
        /// The CPUs there are.
        usable: CpuSet,
    },
    /// An empty list of CPUs.
    #[error("the placement names no CPU; name at least one, or use \"pinned\"")]
    NoCpu,
}

/// Splits the CPUs of `topology` into shards and the cpu pool.
///
/// `auto`: a single CPU is shared by both; of two each gets one; of more the cpu pool gets an
/// eighth, at least one, and the shards the rest. Physical cores are used before their SMT
/// siblings, and where siblings are needed the cpu pool takes whole cores. `cpu_cores` of zero
/// keeps no core for the pool: its one thread sits with the last shard.
pub fn plan(
    topology: &Topology,
    shards: Count,
    cpu_cores: Count,
    placement: &Placement,
) -> Result<Plan, PlanError> {
    if shards == Count::Exactly(0) {
        return Err(PlanError::NoShard);
    }
    let cpus = chosen_cpus(topology, placement)?;
    let (shards, cpu_cores) = counts(cpus.len(), shards, cpu_cores);
    if *placement == Placement::Floating {
        return Ok(floating(cpus.len(), shards, cpu_cores));
    }
    let usable = || cpus.iter().map(|cpu| cpu.id.0).collect();
    if shards > cpus.len() {
        return Err(PlanError::TooManyShards { shards, usable: usable() });
    }
    if cpu_cores > cpus.len() {
        return Err(PlanError::TooManyCpuCores { cpu_cores, usable: usable() });
    }
    let (shard_seats, pool_seats) = if shards + cpu_cores <= cpus.len() && cpu_cores > 0 {
        separate_seats(cpus, shards, cpu_cores)
    } else {
        shared_seats(cpus, shards, cpu_cores.max(1))
    };
    let warnings = warnings(topology, &shard_seats, &pool_seats);
    let seats = |ids: Vec<CpuId>| ids.into_iter().map(Some).collect();
    Ok(Plan { shards: seats(shard_seats), cpu_pool: seats(pool_seats), warnings })
}

/// Pins the calling thread. `false` if the kernel refuses: the thread then stays where it was.
pub fn pin_current_thread(cpu: CpuId) -> bool {
    affinity::pin(cpu.0)
}

/// The CPUs of a thread before it was pinned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unpinned(affinity::Mask);

impl Unpinned {
    /// Lets the calling thread run there.
    pub(crate) fn apply(&self) {
        self.0.apply();
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.count()
    }
}

/// Where the calling thread might run before it, or the thread that started it, was pinned here;
/// `None` if neither was.
pub(crate) fn before_pinning() -> Option<Unpinned> {
    affinity::unpinned().map(Unpinned)
}

/// Calls `start`, which starts a process, while this thread has the CPUs and the slices that it had
/// before it became a shard's: the process inherits them.
pub(crate) fn off_seat<R>(start: impl FnOnce() -> R) -> R {
    struct Seat(Option<affinity::Mask>);
    impl Drop for Seat {
        fn drop(&mut self) {
            self.0.iter().for_each(affinity::Mask::apply);
        }
    }
    let _slices = priority::Ordinary::for_current_thread();
    let Some(before) = affinity::unpinned() else { return start() };
    let _seat = Seat(affinity::Mask::of_current_thread());
    before.apply();
    start()
}

/// The calling thread pinned to one CPU; back where it was on drop.
#[derive(Debug)]
pub(crate) struct Pinned {
    before: affinity::Mask,
}

impl Pinned {
    /// Pins the calling thread. `None` if the kernel refuses.
    pub(crate) fn current_thread(cpu: CpuId) -> Option<Self> {
        let before = affinity::Mask::of_current_thread()?;
        pin_current_thread(cpu).then_some(Self { before })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        affinity::unpin(&self.before);
    }
}

fn chosen_cpus(topology: &Topology, placement: &Placement) -> Result<Vec<Cpu>, PlanError> {
    let Placement::Cpus(wanted) = placement else { return Ok(topology.cpus.clone()) };
    let usable = topology.usable();
    if let Some(&cpu) = wanted.0.difference(&usable.0).next() {
        let online = topology.online.0.contains(&cpu);
        return Err(PlanError::NotUsable { cpu, online, usable });
    }
    if wanted.0.is_empty() {
        return Err(PlanError::NoCpu);
    }
    Ok(topology.cpus.iter().filter(|cpu| wanted.0.contains(&cpu.id)).copied().collect())
}

fn counts(cpus: usize, shards: Count, cpu_cores: Count) -> (usize, usize) {
    let eighth = (cpus / 8).max(1);
    match (shards, cpu_cores) {
        (Count::Exactly(shards), Count::Exactly(cpu_cores)) => (shards, cpu_cores),
        (Count::Exactly(shards), Count::Auto) => {
            (shards, eighth.min(cpus.saturating_sub(shards).max(1)))
        }
        (Count::Auto, Count::Exactly(cpu_cores)) => {
            (cpus.saturating_sub(cpu_cores).max(1), cpu_cores)
        }
        (Count::Auto, Count::Auto) => (cpus.saturating_sub(eighth).max(1), eighth),
    }
}

fn floating(cpus: usize, shards: usize, cpu_cores: usize) -> Plan {
    let crowded = PlanWarning::Crowded { shards, cpus };
    Plan {
        shards: vec![None; shards],
        cpu_pool: vec![None; cpu_cores.max(1)],
        warnings: (shards > cpus).then_some(crowded).into_iter().collect(),
    }
}

/// Enough CPUs for all: shards from the front, the cpu pool from the back.
fn separate_seats(cpus: Vec<Cpu>, shards: usize, cpu_cores: usize) -> (Vec<CpuId>, Vec<CpuId>) {
    let mut by_preference = ranked(cpus);
    let cores = by_preference.iter().filter(|(rank, _)| *rank == 0).count();
    if shards + cpu_cores <= cores {
        by_preference.truncate(cores);
    } else {
        // Siblings are needed. CPU-heavy work keeps both threads of a core busy, and had better
        // do that to itself than to a shard.
        by_preference.sort_by_key(|(rank, cpu)| (cpu.node, cpu.core, *rank));
    }
    let pool = by_preference.split_off(by_preference.len() - cpu_cores);
    let pool_cores: BTreeSet<CpuId> = pool.iter().map(|(_, cpu)| cpu.core).collect();
    by_preference
        .sort_by_key(|(rank, cpu)| (pool_cores.contains(&cpu.core), *rank, cpu.node, cpu.core));
    by_preference.truncate(shards);
    (numbered(by_preference), numbered(pool))
}

/// Not enough CPUs: the cpu pool takes what no shard uses, then sits with the last shards.
fn shared_seats(cpus: Vec<Cpu>, shards: usize, cpu_cores: usize) -> (Vec<CpuId>, Vec<CpuId>) {
    let mut shard_seats = ranked(cpus);
    let free = shard_seats.split_off(shards);
    let shard_seats = numbered(shard_seats);
    // With room for all, sharing is what was asked for.
    let to_share = cpu_cores <= free.len();
    let mut pool_seats = if to_share { Vec::new() } else { numbered(free) };
    let missing = cpu_cores - pool_seats.len();
    pool_seats.extend(shard_seats.iter().rev().take(missing));
    (shard_seats, pool_seats)
}

/// Each CPU with its rank among the threads of its core, in order of preference.
fn ranked(cpus: Vec<Cpu>) -> Vec<(usize, Cpu)> {
    let rank =
        |cpu: &Cpu| cpus.iter().filter(|other| other.core == cpu.core && other.id < cpu.id).count();
    let mut ranked: Vec<(usize, Cpu)> = cpus.iter().map(|cpu| (rank(cpu), *cpu)).collect();
    ranked.sort_by_key(|(rank, cpu)| (*rank, cpu.node, cpu.core));
    ranked
}

/// Numbers threads so that neighbours share a NUMA node.
fn numbered(mut seats: Vec<(usize, Cpu)>) -> Vec<CpuId> {
    seats.sort_by_key(|(rank, cpu)| (cpu.node, *rank, cpu.core));
    seats.into_iter().map(|(_, cpu)| cpu.id).collect()
}

fn warnings(topology: &Topology, shards: &[CpuId], pool: &[CpuId]) -> Vec<PlanWarning> {
    let shards: BTreeSet<CpuId> = shards.iter().copied().collect();
    let pool: BTreeSet<CpuId> = pool.iter().copied().collect();
    let mut warnings = Vec::new();
    let both: BTreeSet<CpuId> = shards.intersection(&pool).copied().collect();
    if !both.is_empty() {
        warnings.push(PlanWarning::Shared { cpus: CpuSet(both) });
    }
    let cpus = shards.union(&pool).count();
    match topology.quota_millicpus {
        Some(quota_millicpus) if quota_millicpus < cpus as u64 * 1_000 => {
            warnings.push(PlanWarning::Throttled { quota_millicpus, cpus });
        }
        _ => {}
    }
    warnings
}

impl fmt::Display for PlanWarning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared { cpus } => write!(
                formatter,
                "the cpu pool shares CPU {cpus} with a shard: CPU-heavy work will delay requests"
            ),
            Self::Throttled { quota_millicpus, cpus } => write!(
                formatter,
                "the cgroup grants {}.{:02} CPUs of time, but threads are pinned to {cpus}: the \
                 kernel will throttle them; raise the quota, or use fewer shards",
                quota_millicpus / 1_000,
                quota_millicpus % 1_000 / 10,
            ),
            Self::Crowded { shards, cpus } => {
                write!(formatter, "{shards} shards take turns on {cpus} CPU(s)")
            }
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} shard(s) ", self.shards.len())?;
        write_seats(formatter, &self.shards)?;
        write!(formatter, ", {} cpu pool thread(s) ", self.cpu_pool.len())?;
        write_seats(formatter, &self.cpu_pool)
    }
}

fn write_seats(formatter: &mut fmt::Formatter<'_>, seats: &[Option<CpuId>]) -> fmt::Result {
    let pinned: CpuSet = seats.iter().flatten().map(|cpu| cpu.0).collect();
    if pinned.0.is_empty() {
        write!(formatter, "not pinned")
    } else {
        write!(formatter, "on CPU {pinned}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `nodes` × `cores` × `threads` CPUs, numbered as on x86: siblings in the upper half.
    fn machine(nodes: usize, cores: usize, threads: usize) -> Topology {
        let all_cores = nodes * cores;
        let cpu = |id: usize| Cpu {
            id: CpuId(id),
            core: CpuId(id % all_cores),
            node: id % all_cores / cores,
        };
        Topology {
            cpus: (0..all_cores * threads).map(cpu).collect(),
            online: (0..all_cores * threads).collect(),
            quota_millicpus: None,
        }
    }

    fn seats(topology: &Topology, shards: Count, cpu_cores: Count) -> (Vec<usize>, Vec<usize>) {
        let plan = plan(topology, shards, cpu_cores, &Placement::Pinned).expect("a plan");
        let ids = |seats: &[Option<CpuId>]| seats.iter().flatten().map(|cpu| cpu.0).collect();
        (ids(&plan.shards), ids(&plan.cpu_pool))
    }

    use Count::{Auto, Exactly};

    #[test]
    fn auto_shares_one_cpu_and_splits_two() {
        assert_eq!(seats(&machine(1, 1, 1), Auto, Auto), (vec![0], vec![0]));
        assert_eq!(seats(&machine(1, 2, 1), Auto, Auto), (vec![0], vec![1]));
        assert_eq!(seats(&machine(1, 4, 1), Auto, Auto), (vec![0, 1, 2], vec![3]));
    }

    #[test]
    fn auto_gives_an_eighth_to_the_cpu_pool() {
        let (shards, pool) = seats(&machine(1, 24, 1), Auto, Auto);
        assert_eq!((shards.len(), pool), (21, vec![21, 22, 23]));
    }

    #[test]
    fn physical_cores_come_before_siblings() {
        // Eight cores, sixteen threads: four shards and two pool threads fit on cores of their own.
        let (shards, pool) = seats(&machine(1, 8, 2), Exactly(4), Exactly(2));
        assert_eq!((shards, pool), (vec![0, 1, 2, 3], vec![6, 7]));
    }

    #[test]
    fn where_siblings_are_needed_the_cpu_pool_takes_whole_cores() {
        let (shards, pool) = seats(&machine(1, 8, 2), Auto, Auto);
        assert_eq!(pool, vec![7, 15]);
        assert_eq!(shards, vec![0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14]);
    }

    #[test]
    fn neighbouring_shards_share_a_node() {
        let (shards, pool) = seats(&machine(2, 2, 2), Exactly(6), Exactly(2));
        // Node 0 has CPUs 0, 1, 4, 5; node 1 has 2, 3, 6, 7.
        assert_eq!((shards, pool), (vec![0, 1, 4, 5, 2, 6], vec![3, 7]));
    }

    #[test]
    fn the_pool_sits_with_the_last_shards_when_cpus_run_out() {
        assert_eq!(seats(&machine(1, 2, 1), Exactly(2), Auto), (vec![0, 1], vec![1]));
        assert_eq!(seats(&machine(1, 4, 1), Exactly(3), Exactly(2)), (vec![0, 1, 2], vec![3, 2]));
        assert_eq!(seats(&machine(1, 4, 1), Exactly(2), Exactly(0)), (vec![0, 1], vec![1]));
    }

    #[test]
    fn sharing_is_said() {
        let plan = plan(&machine(1, 1, 1), Auto, Auto, &Placement::Pinned).expect("a plan");
        let said: Vec<String> = plan.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            ["the cpu pool shares CPU 0 with a shard: CPU-heavy work will delay requests"]
        );
        assert_eq!(plan.to_string(), "1 shard(s) on CPU 0, 1 cpu pool thread(s) on CPU 0");
    }

    #[test]
    fn a_quota_below_the_pinned_cpus_is_said() {
        let topology = Topology { quota_millicpus: Some(1_500), ..machine(1, 2, 1) };
        let plan = plan(&topology, Auto, Auto, &Placement::Pinned).expect("a plan");
        let throttled = PlanWarning::Throttled { quota_millicpus: 1_500, cpus: 2 };
        let said = throttled.to_string();
        assert_eq!(plan.warnings, [throttled]);
        assert!(said.contains("grants 1.50 CPUs"), "{said}");
    }

    #[test]
    fn a_quota_that_suffices_is_not_mentioned() {
        let topology = Topology { quota_millicpus: Some(2_000), ..machine(1, 2, 1) };
        let plan = plan(&topology, Auto, Auto, &Placement::Pinned).expect("a plan");
        assert_eq!(plan.warnings, []);
    }

    #[test]
    fn floating_threads_may_outnumber_the_cpus() {
        let plan = plan(&machine(1, 2, 1), Exactly(5), Auto, &Placement::Floating);
        let plan = plan.expect("a plan");
        assert_eq!((plan.shards.len(), plan.cpu_pool.len()), (5, 1));
        assert_eq!(plan.warnings, [PlanWarning::Crowded { shards: 5, cpus: 2 }]);
        assert_eq!(plan.to_string(), "5 shard(s) not pinned, 1 cpu pool thread(s) not pinned");
    }

    #[test]
    fn named_cpus_are_the_only_ones_used() {
        let placement = Placement::Cpus([2, 3].into_iter().collect());
        let plan = plan(&machine(1, 4, 1), Auto, Auto, &placement).expect("a plan");
        assert_eq!((plan.shards, plan.cpu_pool), (vec![Some(CpuId(2))], vec![Some(CpuId(3))]));
    }

    #[test]
    fn refusals_name_what_is_wrong() {
        let mut topology = machine(1, 2, 1);
        topology.online = (0..4).collect();
        let refusal = |shards, cpu_cores, placement: &Placement| {
            plan(&topology, shards, cpu_cores, placement).expect_err("no plan").to_string()
        };
        let cpus = |ids: &[usize]| Placement::Cpus(ids.iter().copied().collect());
        let pinned = Placement::Pinned;
        assert!(refusal(Exactly(0), Auto, &pinned).starts_with("shards is 0"));
        assert!(refusal(Exactly(3), Auto, &pinned).contains("only 2 CPU(s) are usable (0-1)"));
        assert!(refusal(Auto, Exactly(3), &pinned).starts_with("3 cpu cores are wanted"));
        assert!(refusal(Auto, Auto, &cpus(&[7])).contains("CPU 7 is not usable: it does not"));
        assert!(refusal(Auto, Auto, &cpus(&[2])).contains("CPU 2 is not usable: it is online"));
        assert!(refusal(Auto, Auto, &cpus(&[])).contains("names no CPU"));
    }

    fn any_count() -> impl Strategy<Value = Count> {
        prop_oneof![Just(Auto), (0_usize..20).prop_map(Exactly)]
    }

    proptest! {
        #[test]
        fn every_plan_seats_shards_apart_and_on_usable_cpus(
            nodes in 1_usize..3, cores in 1_usize..9, threads in 1_usize..3,
            shards in any_count(), cpu_cores in any_count(),
        ) {
            let topology = machine(nodes, cores, threads);
            let total = topology.cpus.len();
            let Ok(plan) = plan(&topology, shards, cpu_cores, &Placement::Pinned) else {
                let too_many = |count| matches!(count, Exactly(n) if n > total);
                prop_assert!(shards == Exactly(0) || too_many(shards) || too_many(cpu_cores));
                return Ok(());
            };
            let usable = topology.usable();
            let shard_cpus: BTreeSet<CpuId> = plan.shards.iter().flatten().copied().collect();
            let pool_cpus: BTreeSet<CpuId> = plan.cpu_pool.iter().flatten().copied().collect();
            prop_assert_eq!(shard_cpus.len(), plan.shards.len(), "a CPU for each shard");
            prop_assert_eq!(pool_cpus.len(), plan.cpu_pool.len(), "a CPU for each pool thread");
            prop_assert!(!shard_cpus.is_empty());
            prop_assert!(!pool_cpus.is_empty());
            prop_assert!(shard_cpus.is_subset(&usable.0) && pool_cpus.is_subset(&usable.0));
            if let Exactly(n) = shards { prop_assert_eq!(plan.shards.len(), n); }
            if let Exactly(n) = cpu_cores { prop_assert_eq!(plan.cpu_pool.len(), n.max(1)); }
            let shared = !shard_cpus.is_disjoint(&pool_cpus);
            let room = plan.shards.len() + plan.cpu_pool.len() <= total;
            prop_assert_eq!(shared, !room || cpu_cores == Exactly(0));
        }
    }
}
