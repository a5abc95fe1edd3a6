//! The vocabulary: what is measured and what is counted, each with its name and its help.
//!
//! Used as indexes by the recorder and as names by the rendering. Invariant: `ALL` holds every
//! value in order of its discriminant, so that `ALL[value as usize] == value`.

/// Something that takes time. Durations are in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Measure {
    /// One pass of a shard's loop, without the time it was parked.
    Turn,
    /// From the wake of a task to its poll.
    ReadyDelay,
    /// One poll of a task.
    Poll,
    /// An accept, from submission to completion.
    Accept,
    /// A connect, from submission to completion.
    Connect,
    /// A receive, from submission to completion.
    Receive,
    /// A send, from submission to completion.
    Send,
    /// A half close, from submission to completion.
    Shutdown,
    /// A close, from submission to completion.
    Close,
    /// An open, from submission to completion.
    Open,
    /// A read at an offset, from submission to completion.
    ReadAt,
    /// A write at an offset, from submission to completion.
    WriteAt,
    /// A file sync, from submission to completion.
    Sync,
    /// A file status query, from submission to completion.
    Stat,
    /// A change of the space that a file takes, or an advice, from submission to completion.
    Allocate,
    /// A change of names (rename, link, remove, directory), from submission to completion.
    Name,
    /// A read of directory entries or of a symbolic link, from submission to completion.
    List,
    /// A wait for a descriptor to become ready, from submission to completion.
    Ready,
    /// A read from a pipe, from submission to completion.
    Read,
    /// A write to a pipe, from submission to completion.
    Write,
    /// A wait for a child process, from submission to completion.
    WaitChild,
    /// A message between shards, from sending to being taken.
    MeshHop,
    /// A job for the cpu pool, from being queued to being started.
    CpuWait,
    /// A job in the cpu pool, from start to end.
    CpuRun,
    /// A job for the pool for blocking calls, from being queued to being started.
    BlockingWait,
    /// A job in the pool for blocking calls, from start to end.
    BlockingRun,
    /// How late a timer fired.
    TimerLateness,
    /// A record of the log, from being gathered to being durable, or written where the policy
    /// asks for no more.
    LogCommit,
    /// What makes records of the log durable: a write that is durable itself, or a sync.
    LogSync,
    /// A RESP request, from its last byte being decoded to its reply being queued.
    RespRequest,
    /// An HTTP request, from its head being decoded to its response being queued.
    HttpRequest,
}

/// How a measure is exposed: a family in seconds, and a label where a family has several members.
pub(crate) struct MeasureRow {
    /// The key in JSON.
    pub(crate) key: &'static str,
    /// The metric family, without prefix and unit.
    pub(crate) family: &'static str,
    /// Label and value, for families with more than one member.
    pub(crate) label: Option<(&'static str, &'static str)>,
    /// One sentence for the family.
    pub(crate) help: &'static str,
}

impl Measure {
    /// Every measure, in order.
    pub const ALL: [Self; 31] = [
        Self::Turn,
        Self::ReadyDelay,
        Self::Poll,
        Self::Accept,
        Self::Connect,
        Self::Receive,
        Self::Send,
        Self::Shutdown,
        Self::Close,
        Self::Open,
        Self::ReadAt,
        Self::WriteAt,
        Self::Sync,
        Self::Stat,
        Self::Allocate,
        Self::Name,
        Self::List,
        Self::Ready,
        Self::Read,
        Self::Write,
        Self::WaitChild,
        Self::MeshHop,
        Self::CpuWait,
        Self::CpuRun,
        Self::BlockingWait,
        Self::BlockingRun,
        Self::TimerLateness,
        Self::LogCommit,
        Self::LogSync,
        Self::RespRequest,
        Self::HttpRequest,
    ];

    /// The measure's name, as in JSON: lower case with underscores.
    pub const fn name(self) -> &'static str {
        self.row().key
    }

    pub(crate) const fn row(self) -> MeasureRow {
        match self {
            Self::Turn => single("turn", "One pass of a shard's loop, without waiting."),
            Self::ReadyDelay => single("ready_delay", "From the wake of a task to its poll."),
            Self::Poll => single("poll", "One poll of a task."),
            Self::Accept => operation("accept"),
            Self::Connect => operation("connect"),
            Self::Receive => operation("receive"),
            Self::Send => operation("send"),
            Self::Shutdown => operation("shutdown"),
            Self::Close => operation("close"),
            Self::Open => operation("open"),
            Self::ReadAt => operation("read_at"),
            Self::WriteAt => operation("write_at"),
            Self::Sync => operation("sync"),
            Self::Stat => operation("stat"),
            Self::Allocate => operation("allocate"),
            Self::Name => operation("name"),
            Self::List => operation("list"),
            Self::Ready => operation("ready"),
            Self::Read => operation("read"),
            Self::Write => operation("write"),
            Self::WaitChild => operation("wait_child"),
            Self::MeshHop => single("mesh_hop", "A message between shards, sent to taken."),
            Self::CpuWait => single("cpu_wait", "A job for the cpu pool, queued to started."),
            Self::CpuRun => single("cpu_run", "A job in the cpu pool, started to ended."),
            Self::BlockingWait => single("blocking_wait", "A blocking call, queued to started."),
            Self::BlockingRun => single("blocking_run", "A blocking call, started to ended."),
            Self::TimerLateness => single("timer_lateness", "How late timers fired."),
            Self::LogCommit => {
                single("log_commit", "A record of the log, gathered to durable, or to written.")
            }
            Self::LogSync => single("log_sync", "The disk's time to make the log durable."),
            Self::RespRequest => single("resp_request", "A RESP request, decoded to answered."),
            Self::HttpRequest => single("http_request", "An HTTP request, decoded to answered."),
        }
    }
}

const fn single(name: &'static str, help: &'static str) -> MeasureRow {
    MeasureRow { key: name, family: name, label: None, help }
}

const fn operation(kind: &'static str) -> MeasureRow {
    MeasureRow {
        key: kind,
        family: "operation",
        label: Some(("kind", kind)),
        help: "An operation, submitted to completed.",
    }
}

/// Something that only ever grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Counter {
    /// Passes of shard loops.
    Turns,
    /// Polls of tasks.
    Polls,
    /// Times a driver entered the kernel to submit or wait.
    DriverEnters,
    /// Operations submitted to drivers.
    Operations,
    /// Operations that ended with an error.
    OperationErrors,
    /// Times a receive had to wait for a buffer of the pool.
    BufferWaits,
    /// Connections accepted.
    ConnectionsAccepted,
    /// Connections closed, accepted ones and others.
    ConnectionsClosed,
    /// Bytes received from sockets.
    BytesReceived,
    /// Bytes sent to sockets.
    BytesSent,
    /// Tasks spawned.
    TasksSpawned,
    /// Tasks that panicked.
    TaskPanics,
    /// Panics of tasks whose handle nobody held or looked at.
    TaskPanicsUnobserved,
    /// Polls longer than the limit that is logged.
    SlowPolls,
    /// Timers that fired.
    TimersFired,
    /// Messages sent from shard to shard.
    MeshMessages,
    /// Times a sender waited because a mesh lane was full.
    MeshWaits,
    /// Wake-ups of parked shards that cost a system call.
    MeshWakes,
    /// Jobs given to the cpu pool.
    CpuJobs,
    /// Jobs of the cpu pool that panicked.
    CpuPanics,
    /// Jobs of the pool for blocking calls that panicked.
    BlockingPanics,
    /// RESP commands run.
    RespCommands,
    /// RESP commands answered with an error.
    RespErrors,
    /// HTTP requests answered.
    HttpRequests,
    /// HTTP requests answered with a 4xx status.
    HttpClientErrors,
    /// HTTP requests answered with a 5xx status.
    HttpServerErrors,
    /// Key look-ups that found a value.
    KeyspaceHits,
    /// Key look-ups that found none.
    KeyspaceMisses,
    /// Keys removed because their time was over.
    KeysExpired,
    /// Writes refused because the disk was full.
    WritesRefused,
    /// Times a connection with a write waited because the disk was behind.
    WriteStalls,
    /// Keys removed because memory was full.
    KeysEvicted,
}

impl Counter {
    /// Every counter, in order.
    pub const ALL: [Self; 32] = [
        Self::Turns,
        Self::Polls,
        Self::DriverEnters,
        Self::Operations,
        Self::OperationErrors,
        Self::BufferWaits,
        Self::ConnectionsAccepted,
        Self::ConnectionsClosed,
        Self::BytesReceived,
        Self::BytesSent,
        Self::TasksSpawned,
        Self::TaskPanics,
        Self::TaskPanicsUnobserved,
        Self::SlowPolls,
        Self::TimersFired,
        Self::MeshMessages,
        Self::MeshWaits,
        Self::MeshWakes,
        Self::CpuJobs,
        Self::CpuPanics,
        Self::BlockingPanics,
        Self::RespCommands,
        Self::RespErrors,
        Self::HttpRequests,
        Self::HttpClientErrors,
        Self::HttpServerErrors,
        Self::KeyspaceHits,
        Self::KeyspaceMisses,
        Self::KeysExpired,
        Self::WritesRefused,
        Self::WriteStalls,
        Self::KeysEvicted,
    ];

    /// The counter's name, lower case with underscores.
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// What is counted, in a sentence.
    pub const fn help(self) -> &'static str {
        self.row().1
    }

    const fn row(self) -> (&'static str, &'static str) {
        match self {
            Self::Turns => ("turns", "Passes of shard loops."),
            Self::Polls => ("polls", "Polls of tasks."),
            Self::DriverEnters => ("driver_enters", "Entries into the kernel to submit or wait."),
            Self::Operations => ("operations", "Operations submitted to drivers."),
            Self::OperationErrors => ("operation_errors", "Operations that ended with an error."),
            Self::BufferWaits => ("buffer_waits", "Receives that waited for a pool buffer."),
            Self::ConnectionsAccepted => ("connections_accepted", "Connections accepted."),
            Self::ConnectionsClosed => {
                ("connections_closed", "Connections closed, accepted ones and others.")
            }
            Self::BytesReceived => ("bytes_received", "Bytes received from sockets."),
            Self::BytesSent => ("bytes_sent", "Bytes sent to sockets."),
            Self::TasksSpawned => ("tasks_spawned", "Tasks spawned."),
            Self::TaskPanics => ("task_panics", "Tasks that panicked."),
            Self::TaskPanicsUnobserved => (
                "task_panics_unobserved",
                "Tasks that panicked and that nobody asked how they ended.",
            ),
            Self::SlowPolls => ("slow_polls", "Polls longer than the limit that is logged."),
            Self::TimersFired => ("timers_fired", "Timers that fired."),
            Self::MeshMessages => ("mesh_messages", "Messages sent from shard to shard."),
            Self::MeshWaits => ("mesh_waits", "Sends that waited because a mesh lane was full."),
            Self::MeshWakes => ("mesh_wakes", "Wake-ups of parked shards by system call."),
            Self::CpuJobs => ("cpu_jobs", "Jobs given to the cpu pool."),
            Self::CpuPanics => ("cpu_panics", "Jobs of the cpu pool that panicked."),
            Self::BlockingPanics => ("blocking_panics", "Blocking calls that panicked."),
            Self::RespCommands => ("resp_commands", "RESP commands run."),
            Self::RespErrors => ("resp_errors", "RESP commands answered with an error."),
            Self::HttpRequests => ("http_requests", "HTTP requests answered."),
            Self::HttpClientErrors => ("http_client_errors", "HTTP answers with a 4xx status."),
            Self::HttpServerErrors => ("http_server_errors", "HTTP answers with a 5xx status."),
            Self::KeyspaceHits => ("keyspace_hits", "Key look-ups that found a value."),
            Self::KeyspaceMisses => ("keyspace_misses", "Key look-ups that found none."),
            Self::KeysExpired => ("keys_expired", "Keys removed because their time was over."),
            Self::WritesRefused => ("writes_refused", "Writes refused: the disk was full."),
            Self::WriteStalls => ("write_stalls", "Waits of writes: the disk was behind."),
            Self::KeysEvicted => ("keys_evicted", "Keys removed because memory was full."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn all_lists_hold_every_value_at_its_index() {
        for (index, measure) in Measure::ALL.into_iter().enumerate() {
            assert_eq!(measure as usize, index, "{measure:?}");
        }
        for (index, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, index, "{counter:?}");
        }
    }

    #[test]
    fn names_are_unique_and_fit_prometheus() {
        let names = Measure::ALL.iter().map(|measure| measure.name());
        let names = names.chain(Counter::ALL.iter().map(|counter| counter.name()));
        let mut seen = HashSet::new();
        for name in names {
            assert!(seen.insert(name), "{name} is used twice");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        }
    }

    #[test]
    fn members_of_a_family_stand_together() {
        let mut families: Vec<&str> = Measure::ALL.iter().map(|m| m.row().family).collect();
        families.dedup();
        let distinct: HashSet<&&str> = families.iter().collect();
        assert_eq!(distinct.len(), families.len(), "Prometheus wants each family in one block");
    }
}
