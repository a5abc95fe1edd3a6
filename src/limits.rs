//! Every limit of the runtime, with its unit in its name, and how the limits relate.
//!
//! A protocol keeps its own limits beside its decoder. Each limit here has an answer when it is
//! hit, given in its comment: nothing grows without bound and nothing is dropped in silence.

/// Operations in flight in one shard. Past it, a new operation fails with `LimitReached`.
pub const OPERATIONS_COUNT_MAX: u32 = 1 << 20;

/// Bytes of one operation. It is moved on every submission; keep it within two cache lines.
pub const OPERATION_BYTES_MAX: usize = 96;

/// Default entries of a shard's submission queue. A full queue is flushed to the kernel.
pub const RING_ENTRIES_DEFAULT: u32 = 256;

/// Largest submission queue that may be asked for (the kernel's own limit, io_uring_setup(2)).
pub const RING_ENTRIES_MAX: u32 = 32_768;

/// The completion queue holds this many times the entries of the submission queue.
pub const COMPLETION_QUEUE_FACTOR: u32 = 4;

/// Default count of a shard's receive buffers. Exhausted, receivers wait in line for one.
pub const BUFFERS_COUNT_DEFAULT: u16 = 64;

/// Default bytes of one receive buffer.
pub const BUFFER_BYTES_DEFAULT: u32 = 64 * 1024;

/// Largest count of receive buffers (the kernel's limit on a provided buffer ring).
pub const BUFFERS_COUNT_MAX: u16 = 32_768;

/// Largest receive buffer.
pub const BUFFER_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// Bytes that one connection may hold of its shard's buffers, queued or leased. At the limit its
/// receive is paused; it goes on as soon as leases come back.
pub const CONNECTION_CREDIT_BYTES: u32 = 256 * 1024;

/// The least that a chunk counts against the credit, so that a flood of tiny chunks is bounded too.
pub const CHUNK_CHARGE_BYTES_MIN: u32 = 256;

/// How long one address of a host is waited for before the next is tried beside it (RFC 8305,
/// section 8).
pub const ATTEMPT_DELAY_MS_DEFAULT: u64 = 250;

/// The least of these delays; a smaller one counts as this (RFC 8305, section 8).
pub const ATTEMPT_DELAY_MS_MIN: u64 = 10;

/// Bytes that a stream's polled writes have on their way. The next write waits until they are out.
pub const WRITE_BEHIND_BYTES_MAX: usize = 64 * 1024;

/// Bytes of one datagram that a shard's pool for datagrams has room for: any of UDP's (at most
/// 65,507). A longer one, which Unix sockets know, is cut off and says so.
pub const DATAGRAM_BYTES_MAX: u32 = 64 * 1024;

/// Buffers of a shard's pool for datagrams, made when the first socket receives. All in use, what
/// waits for a busy task is copied out of them; a socket that has spent its credit
/// ([`CONNECTION_CREDIT_BYTES`]) is not received from until its task has taken what waits, and
/// meanwhile the kernel keeps what its own buffer holds (SO_RCVBUF) and drops the rest.
pub const DATAGRAM_BUFFERS_COUNT: u16 = 64;

/// Bytes of one of them: a datagram with its header, and room that small ones pack into.
pub const DATAGRAM_BUFFER_BYTES: u32 = DATAGRAM_BYTES_MAX + 4096;

/// A sender whose peer has no room, for which the kernel has no readiness to wait for (a Unix
/// datagram to a full queue), tries again after this long, and then after twice as long each time.
pub const UNREADY_PEER_US_MIN: u64 = 100;

/// The longest of these pauses.
pub const UNREADY_PEER_US_MAX: u64 = 2_000;

/// Connections that one shard accepts ahead of the task that takes them. At the limit accepting
/// is paused and the kernel's backlog fills.
pub const ACCEPT_QUEUE_COUNT_MAX: usize = 256;

/// Buffers in one vectored send (IOV_MAX, writev(2)). More is an error.
pub const SEND_VECTORS_COUNT_MAX: usize = 1024;

/// Buffers in one vectored read or write of a file (IOV_MAX, readv(2)). More is an error.
pub const FILE_VECTORS_COUNT_MAX: usize = 1024;

/// Bytes of a file that `fs::read` takes to memory. More is an error; `fs::File::read_at` reads in
/// parts.
pub const FILE_READ_BYTES_MAX: u64 = 4 << 30;

/// Names that are tried for a temporary file. Each is taken by chance as good as never.
pub const TEMPORARY_NAMES_COUNT_MAX: usize = 16;

/// Entries that `fs::read_dir` collects. More is an error; `fs::Directory::entries` has no limit.
pub const DIRECTORY_ENTRIES_COUNT_MAX: usize = 1 << 20;

/// Bytes of directory entries that are read at once.
pub const DIRECTORY_CHUNK_BYTES: usize = 32 * 1024;

/// Bytes of one read or write; more are moved in parts by the caller (read(2) moves at most this).
pub const TRANSFER_BYTES_MAX: u32 = 0x7fff_f000;

/// Alignment of pooled buffers: a page, more than any disk asks of memory. A file that asks for
/// more is read and written through the page cache.
pub const POOLED_ALIGNMENT_BYTES: usize = 4096;

/// The smallest pooled buffer; others are twice the one before.
pub const POOLED_BUFFER_BYTES_MIN: usize = 4096;

/// The largest buffer that a pool keeps. Larger ones are allocated and freed.
pub const POOLED_BUFFER_BYTES_MAX: usize = 1 << 20;

/// Pooled buffers from this size on are pieces of huge pages of 2 MiB, whose other pieces the pool
/// keeps.
pub const POOLED_PIECE_BYTES_MIN: usize = 256 << 10;

/// Bytes of aligned buffers that a shard keeps for their next use. Beyond, they are allocated and
/// freed.
pub const POOLED_BYTES_MAX: usize = 16 << 20;

/// Operations on files that are started on a ring before the kernel is told of them. The others of
/// a turn follow at its end: a disk that has nothing to do does not wait for that.
pub const FILE_BATCH_COUNT: usize = 4;

/// Bytes of a direct read or write that is copied, or of a block of a reader or writer by default.
pub const DIRECT_BLOCK_BYTES: usize = 1 << 20;

/// Blocks that a direct reader has ahead, or a direct writer behind, by default.
pub const DIRECT_BLOCKS_COUNT_DEFAULT: usize = 4;

/// Most of these blocks. More is an error.
pub const DIRECT_BLOCKS_COUNT_MAX: usize = 1024;

/// Bytes that one read takes out of a pipe; what is left waits in the pipe.
pub const PIPE_CHUNK_BYTES_MAX: usize = 64 * 1024;

/// Bytes that `process::Command::output` collects of each stream. Past it the child is ended and
/// the call fails.
pub const PROCESS_OUTPUT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Streams of signals in a process: the handler looks at each. More is an error.
pub const SIGNAL_STREAMS_COUNT_MAX: usize = 256;

/// The smallest ring in shared memory; a smaller one asked for is made so large.
pub const SHARED_RING_BYTES_MIN: usize = 4096;

/// The largest ring in shared memory. A larger one is an error.
pub const SHARED_RING_BYTES_MAX: usize = 1 << 30;

/// How long one turn may run tasks before it returns to the driver.
pub const SLICE_NS: u64 = 500_000;

/// How long one turn may take messages from the mesh.
pub const MESH_SLICE_NS: u64 = 250_000;

/// Messages in one mesh lane (one ordered pair of shards). Full, the sender waits.
pub const MESH_LANE_COUNT_MAX: usize = 1024;

/// Jobs from other threads (spawned or deferred) that a shard has not taken. Past it, a new one is
/// refused.
pub const REMOTE_JOBS_COUNT_MAX: usize = 1 << 20;

/// Jobs waiting in the cpu pool's queue. Full, the caller waits.
pub const CPU_QUEUE_COUNT_MAX: usize = 1024;

/// Jobs that wait for a pool of a program's own, or for the default pool. Full, the caller waits,
/// or is told.
pub const POOL_QUEUE_COUNT_DEFAULT: usize = 1024;

/// Most jobs that a pool's queue may be asked to hold.
pub const POOL_QUEUE_COUNT_MAX: usize = 1 << 20;

/// Most threads that a pool may be asked to have.
pub const POOL_THREADS_COUNT_MAX: usize = 4096;

/// Threads of the default pool for blocking calls, started when they are needed. When all are busy,
/// jobs wait.
pub const BLOCKING_THREADS_COUNT_MAX: usize = 256;

/// How long a pool's thread waits for a job before it ends.
pub const POOL_IDLE_MS_DEFAULT: u64 = 10_000;

/// Most worker processes that a process pool may be asked to have.
pub const PROCESS_WORKERS_COUNT_MAX: usize = 1024;

/// Bytes of one job for a worker process, or of its output. Longer ones are refused.
pub const PROCESS_FRAME_BYTES_MAX: usize = 256 * 1024 * 1024;

/// How long a worker process may take until it is ready. Past it, it is taken for no worker.
pub const PROCESS_START_MS_MAX: u64 = 30_000;

/// How long a worker process may take to end after its socket has been closed. Past it, it is
/// killed.
pub const PROCESS_EXIT_MS_MAX: u64 = 1_000;

/// Workers of the kernel that may wait for disks at once for one ring. Its own limit, four for each
/// CPU, lets a few syncs on a slow disk hold up every open elsewhere. Started when they are needed.
pub const RING_WORKERS_COUNT: u32 = 64;

/// Helper threads that do file operations for one epoll shard, and for a shard of a ring what its
/// kernel has no entry for. Started when they are needed.
pub const OFFLOAD_THREADS_COUNT: usize = 8;

/// Of these, how many are left to operations that read while others change files, and the other
/// way round.
pub const OFFLOAD_THREADS_SPARE_COUNT: usize = 2;

/// Bytes of changes that wait for the log. Past it, writes wait until the disk has caught up.
pub const LOG_PENDING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of former content that wait for a snapshot because they were overwritten before it came to
/// them. Past it, writes wait until the disk has caught up.
pub const SNAPSHOT_WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A poll longer than this is logged with the task's name.
pub const SLOW_POLL_NS: u64 = 100_000_000;

/// Shards that one runtime may have.
pub const SHARDS_COUNT_MAX: usize = 1024;

/// Permits of one semaphore. More is a panic that says so.
pub const SEMAPHORE_PERMITS_COUNT_MAX: usize = usize::MAX >> 3;

/// Items of one queue between two threads (`sync::shared::spsc`). More is a panic that says so.
pub const SPSC_ITEMS_COUNT_MAX: usize = 1 << 24;

/// How long a shutdown waits for the kernel to give back the last operation.
pub const TEARDOWN_MS_DEFAULT: u64 = 5_000;

const _: () = assert!(OFFLOAD_THREADS_SPARE_COUNT < OFFLOAD_THREADS_COUNT);
const _: () = assert!(FILE_VECTORS_COUNT_MAX <= SEND_VECTORS_COUNT_MAX);
const _: () = assert!(RING_ENTRIES_DEFAULT <= RING_ENTRIES_MAX);
const _: () = assert!(BUFFERS_COUNT_DEFAULT <= BUFFERS_COUNT_MAX);
const _: () = assert!(BUFFER_BYTES_DEFAULT <= BUFFER_BYTES_MAX);
const _: () = assert!(CONNECTION_CREDIT_BYTES >= 2 * BUFFER_BYTES_DEFAULT);
const _: () = assert!(
    CONNECTION_CREDIT_BYTES as u64
        <= BUFFERS_COUNT_DEFAULT as u64 * BUFFER_BYTES_DEFAULT as u64 / 4
);
const _: () = assert!(ATTEMPT_DELAY_MS_MIN <= ATTEMPT_DELAY_MS_DEFAULT);
const _: () = assert!(POOL_QUEUE_COUNT_DEFAULT <= POOL_QUEUE_COUNT_MAX);
const _: () = assert!(BLOCKING_THREADS_COUNT_MAX <= POOL_THREADS_COUNT_MAX);
const _: () = assert!(UNREADY_PEER_US_MIN <= UNREADY_PEER_US_MAX);
const _: () = assert!(POOLED_BUFFER_BYTES_MIN.is_power_of_two());
const _: () = assert!(POOLED_BUFFER_BYTES_MAX.is_power_of_two());
const _: () = assert!(POOLED_BUFFER_BYTES_MIN.is_multiple_of(POOLED_ALIGNMENT_BYTES));
const _: () = assert!(POOLED_BYTES_MAX.is_multiple_of(POOLED_BUFFER_BYTES_MAX));
const _: () = assert!(DIRECT_BLOCK_BYTES <= POOLED_BUFFER_BYTES_MAX);
const _: () = assert!(DIRECT_BLOCKS_COUNT_DEFAULT <= DIRECT_BLOCKS_COUNT_MAX);
const _: () = assert!(DIRECT_BLOCKS_COUNT_DEFAULT * DIRECT_BLOCK_BYTES * 2 <= POOLED_BYTES_MAX);
const _: () = assert!(MESH_SLICE_NS <= SLICE_NS);
const _: () = assert!(SLICE_NS < SLOW_POLL_NS);
