//! The threads of the shards other than the first: how one starts, turns and ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::Shared;
use crate::clock;
use crate::driver::Leaked;
use crate::error::{Errno, Error, Result};
use crate::shard::remote::Remote;
use crate::shard::topology::CpuId;
use crate::shard::{FOR_EVER, Shard, ShardId, context, placement};

pub(super) fn new_shard(shared: &Arc<Shared>, id: ShardId, has_lanes: bool) -> Result<Rc<Shard>> {
    Shard::new(id, Arc::clone(shared), &shared.choice, shared.buffers, has_lanes)
        .map_err(|errno| Error::io(format!("building shard {}", id.0), errno))
}

pub(super) type ShardThread = thread::JoinHandle<Leaked>;

/// Starts the thread of one shard and waits until the shard is built.
pub(super) fn start_shard(
    shared: &Arc<Shared>,
    id: ShardId,
    seat: Option<CpuId>,
    teardown: Duration,
) -> Result<(ShardThread, Arc<Remote>)> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let shared = Arc::clone(shared);
    let body = move || {
        if let Some(cpu) = seat
            && !placement::pin_current_thread(cpu)
        {
            tracing::warn!(shard = id.0, cpu = cpu.0, "the shard could not be pinned");
        }
        let shard = match new_shard(&shared, id, true) {
            Ok(shard) => shard,
            Err(error) => {
                drop(sender.send(Err(error)));
                return Leaked::default();
            }
        };
        if sender.send(Ok(Arc::clone(shard.remote()))).is_err() {
            return Leaked::default();
        }
        // All shards are built before the first runs.
        while shared.remotes.get().is_none() && !shared.stopping.load(Ordering::Relaxed) {
            thread::park();
        }
        run_shard(shard, teardown)
    };
    let thread = thread::Builder::new()
        .name(format!("annulus-{}", id.0))
        .spawn(body)
        .map_err(|error| Error::io("starting a shard's thread", Errno::from_io(&error)))?;
    match receiver.recv() {
        Ok(built) => Ok((thread, built?)),
        Err(_) => Err(Error::panicked(format!("shard {} while it was built", id.0))),
    }
}

/// The life of a shard's thread: turns until the runtime stops.
fn run_shard(shard: Rc<Shard>, teardown: Duration) -> Leaked {
    let Ok(entered) = context::enter(&shard) else { unreachable!("the thread is new") };
    let turns = || {
        while !shard.shared.is_stopping() {
            if let Err(errno) = shard.turn_alone(FOR_EVER) {
                tracing::error!(shard = shard.id().0, %errno, "the driver failed; the shard ends");
                break;
            }
        }
    };
    if catch_unwind(AssertUnwindSafe(turns)).is_err() {
        tracing::error!(shard = shard.id().0, "the shard's loop panicked; the shard ends");
    }
    shard.cancel_tasks();
    // It will have no task any more: nobody waits for it.
    shard.shared.tell_idle(shard.id(), true);
    drop(entered);
    shard.shut_down(clock::now() + teardown)
}
