//! Opens a ring with the best profile that this kernel and these limits allow.
//!
//! The profile is tried from the top; each step given up is written down in [`Given`], so that the
//! caller can say once what this host lacks. Kernels older than 6.0 (no multishot receive) are
//! refused: the epoll backend serves them better. Flags: io_uring_setup(2).

use io_uring::{IoUring, Probe, opcode};

use crate::driver::calls;
use crate::error::Errno;
use crate::limits;

/// What the builder asks of a ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingSettings {
    /// Submission queue entries, a power of two.
    pub(crate) entries: u32,
}

impl Default for RingSettings {
    fn default() -> Self {
        Self { entries: limits::RING_ENTRIES_DEFAULT }
    }
}

/// What the host gave, and what was given up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    /// Submission queue entries granted.
    pub(crate) entries: u32,
    /// The profile, as the names of its setup flags.
    pub(crate) profile: &'static str,
    /// One line for each step down.
    pub(crate) given_up: Vec<String>,
    /// Idle waits are not counted as iowait.
    pub(crate) no_iowait: bool,
    /// Buffers are consumed in parts (Linux 6.12).
    pub(crate) incremental: bool,
    /// Child processes are waited for without a descriptor (Linux 6.7).
    pub(crate) wait_child: bool,
    /// Files are cut by an entry (Linux 6.9).
    pub(crate) truncate: bool,
    /// Writes to pipes raise no signal (Linux 6.18).
    pub(crate) quiet_writes: bool,
}

/// The fewest entries that are still worth a ring.
const ENTRIES_MIN: u32 = 32;

#[derive(Clone, Copy)]
enum Profile {
    Deferred { no_sqarray: bool },
    Cooperative,
    Plain,
}

const LADDER: [Profile; 4] = [
    Profile::Deferred { no_sqarray: true },
    Profile::Deferred { no_sqarray: false },
    Profile::Cooperative,
    Profile::Plain,
];

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Profile::Deferred { no_sqarray: true } => {
                "SINGLE_ISSUER|DEFER_TASKRUN|TASKRUN_FLAG|SUBMIT_ALL|NO_SQARRAY"
            }
            Profile::Deferred { no_sqarray: false } => {
                "SINGLE_ISSUER|DEFER_TASKRUN|TASKRUN_FLAG|SUBMIT_ALL"
            }
            Profile::Cooperative => "COOP_TASKRUN|TASKRUN_FLAG|SUBMIT_ALL",
            Profile::Plain => "plain",
        }
    }

    fn build(self, entries: u32) -> std::io::Result<IoUring> {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(entries * limits::COMPLETION_QUEUE_FACTOR).setup_clamp();
        match self {
            Profile::Deferred { no_sqarray } => {
                builder.setup_single_issuer().setup_defer_taskrun();
                builder.setup_taskrun_flag().setup_submit_all();
                if no_sqarray {
                    builder.setup_no_sqarray();
                }
            }
            Profile::Cooperative => {
                builder.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
            }
            Profile::Plain => {}
        }
        builder.build(entries)
    }
}

/// Opens a ring: steps down the profiles on EINVAL, and halves the entries on ENOMEM.
pub(in crate::driver) fn open(settings: &RingSettings) -> Result<(IoUring, Given), Errno> {
    let mut given = Given::default();
    let mut entries = settings.entries.clamp(ENTRIES_MIN, limits::RING_ENTRIES_MAX);
    let mut rung = 0;
    let ring = loop {
        match LADDER[rung].build(entries) {
            Ok(ring) => break ring,
            Err(error) => match Errno::from_io(&error) {
                Errno(libc::EINVAL) if rung + 1 < LADDER.len() => {
                    rung += 1;
                    given.given_up.push(format!(
                        "ring profile {} (kernel too old), using {}",
                        LADDER[rung - 1].name(),
                        LADDER[rung].name()
                    ));
                }
                Errno(libc::ENOMEM) if entries > ENTRIES_MIN => {
                    entries /= 2;
                    given.given_up.push(format!(
                        "{} ring entries (lockable memory is short; raise `ulimit -l`), trying \
                         {entries}",
                        entries * 2
                    ));
                }
                errno => return Err(errno),
            },
        }
    };
    let probe = require_multishot(&ring)?;
    allow_workers(&ring, &mut given);
    given.quiet_writes = calls::quiet_flags() != 0;
    given.wait_child = probe.is_supported(opcode::WaitId::CODE);
    if !given.wait_child {
        given.given_up.push("WAITID (before Linux 6.7): a descriptor for each child".into());
    }
    given.truncate = probe.is_supported(opcode::Ftruncate::CODE);
    if !given.truncate {
        given.given_up.push("FTRUNCATE (before Linux 6.9): a helper thread cuts files".into());
    }
    given.entries = ring.params().sq_entries();
    given.profile = LADDER[rung].name();
    given.no_iowait = ring.params().is_feature_no_iowait();
    if !given.no_iowait {
        given.given_up.push("NO_IOWAIT (before Linux 6.15): idle shows as iowait".into());
    }
    Ok((ring, given))
}

/// Lets more workers wait for disks, where the kernel would have fewer (io_uring_register(2),
/// IORING_REGISTER_IOWQ_MAX_WORKERS). Those that do not wait are as many as before.
fn allow_workers(ring: &IoUring, given: &mut Given) {
    // Zeros ask for what is set now; the second count is of those that wait for others.
    let mut now = [0; 2];
    let submitter = ring.submitter();
    let allowed = submitter.register_iowq_max_workers(&mut now).and_then(|()| {
        let mut wanted = [now[0].max(limits::RING_WORKERS_COUNT), 0];
        submitter.register_iowq_max_workers(&mut wanted)
    });
    if let Err(error) = allowed {
        given.given_up.push(format!("{} workers ({error})", limits::RING_WORKERS_COUNT));
    }
}

/// Multishot receive has no probe bit of its own; it came with SEND_ZC in Linux 6.0.
fn require_multishot(ring: &IoUring) -> Result<Probe, Errno> {
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(|error| Errno::from_io(&error))?;
    let needed = [opcode::SendZc::CODE, opcode::OpenAt2::CODE, opcode::Statx::CODE];
    if needed.iter().all(|code| probe.is_supported(*code)) && ring.params().is_feature_ext_arg() {
        Ok(probe)
    } else {
        Err(Errno(libc::EOPNOTSUPP))
    }
}

impl Given {
    /// One line for each thing worth knowing.
    pub(crate) fn describe(&self) -> Vec<String> {
        let mut lines = vec![format!("{} entries, {}", self.entries, self.profile)];
        if self.incremental {
            lines.push("receive buffers are consumed in parts".into());
        }
        lines.extend(self.given_up.iter().map(|step| format!("given up: {step}")));
        lines
    }
}
