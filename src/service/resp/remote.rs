//! Work on partitions of other shards: batches carried there and back, and transactions.
//!
//! Used by the connection loop. Invariant: a partition is touched on its own shard only, by work
//! that has passed its gate; a transaction opens every gate that it has closed. It is a task of its
//! own, so that a connection that goes away does not stop it; a panic in it, on any of the shards,
//! ends the process ([`crate::store::whole`]); at a shutdown it may stop anywhere, because nobody
//! waits at a gate then that would not be cancelled, and what it has not appended yet is in no log.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use crate::error::{Error, Result};
use crate::shard::{ShardId, shard};
use crate::store::gate::Gate;
use crate::store::loan::Loan;
use crate::store::whole::Unfinished;
use crate::store::{Home, Keeping, PartitionId, Store, Trace};
use crate::task;

use super::joint::Joint;
use super::outbox::{Batch, Outbox};
use super::transaction::Transaction;

/// A batch on its way there and back.
type Carried = Pin<Box<dyn Future<Output = Result<Box<Batch>>>>>;

/// Carries what waits in `outbox` to the shards that own the partitions, all at once, and brings
/// the replies back into it.
pub(super) async fn carry(outbox: &mut Outbox, now_ms: u64) -> Result<()> {
    let mut ids = outbox.partitions();
    let Some(first) = ids.next() else { return Ok(()) };
    let others: Vec<PartitionId> = ids.collect();
    let first_batch = outbox.take(first);
    let mut carried = pin!(run_there(first, first_batch, now_ms));
    if others.is_empty() {
        let batch = carried.await?;
        outbox.put_back(first, batch);
        return Ok(());
    }
    let mut more: Vec<(PartitionId, Carried)> = Vec::new();
    for id in others {
        let batch = outbox.take(id);
        more.push((id, Box::pin(run_there(id, batch, now_ms))));
    }
    let mut first_back = None;
    let mut back = Vec::with_capacity(more.len());
    poll_fn(|context| {
        if first_back.is_none()
            && let Poll::Ready(batch) = carried.as_mut().poll(context)
        {
            first_back = Some(batch);
        }
        more.retain_mut(|(id, carried)| match carried.as_mut().poll(context) {
            Poll::Pending => true,
            Poll::Ready(batch) => {
                back.push((*id, batch));
                false
            }
        });
        if more.is_empty() && first_back.is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    back.extend(first_back.map(|batch| (first, batch)));
    for (id, batch) in back {
        outbox.put_back(id, batch?);
    }
    Ok(())
}

/// Runs a batch on the shard of its partition; it comes back with the replies.
async fn run_there(id: PartitionId, batch: Box<Batch>, now_ms: u64) -> Result<Box<Batch>> {
    let there = shard(ShardId(id.0));
    // Between that shard's tasks if the gate is open, which it nearly always is.
    match there.call(move || run_here(batch, id, now_ms)).await? {
        Ok(batch) => Ok(batch),
        Err(batch) => {
            let wait_and_run = move || async move {
                let mut batch = batch;
                loop {
                    if let Some(gate) = store_here().gate() {
                        gate.opened().await;
                    }
                    match run_here(batch, id, now_ms) {
                        Ok(batch) => return batch,
                        Err(refused) => batch = refused,
                    }
                    if let Some(log) = store_here().log() {
                        // A log that has failed refuses what is left.
                        let _ = log.admitted().await;
                    }
                }
            };
            there.submit(wait_and_run).await
        }
    }
}

/// Runs a batch on the partition of the calling shard, or gives it back: at a closed gate, or when
/// it has come to a write and writes are stalled.
fn run_here(
    mut batch: Box<Batch>,
    id: PartitionId,
    now_ms: u64,
) -> std::result::Result<Box<Batch>, Box<Batch>> {
    let store = store_here();
    if store.gate().is_some_and(Gate::is_closed) {
        return Err(batch);
    }
    let (is_done, trace) = store.visit(|home| batch.run(home, id, now_ms));
    batch.trace = batch.trace.and(trace);
    if is_done { Ok(batch) } else { Err(batch) }
}

fn store_here() -> Store {
    Store::here().expect("every shard installs its store before it serves")
}

/// Runs a transaction over partitions of several shards; appends its reply to `out`.
///
/// Cancel-safe in that it goes on without whoever waits for it.
pub(super) async fn transact(
    transaction: Transaction,
    now_ms: u64,
    mut out: Vec<u8>,
) -> Result<(Vec<u8>, Trace)> {
    let work = async move {
        let log = store_here().log().cloned();
        let unfinished = Unfinished::begin();
        let mut trace = Trace::default();
        let mut loans = Vec::with_capacity(transaction.wanted().len());
        for (id, keys) in transaction.wanted() {
            let keys = keys.clone();
            let lend = move || async move {
                let store = store_here();
                if let Some(gate) = store.gate() {
                    gate.close().await;
                }
                store.visit(|home| home.owned().map(|own| Loan::take(own, keys, now_ms)))
            };
            let (loan, lent) = shard(ShardId(id.0)).submit(lend).await?;
            trace = trace.and(lent);
            loans.push(loan.unwrap_or_default());
        }
        let keeping = if log.is_some() { Keeping::Changes } else { Keeping::Nothing };
        let (loans, changes) = transaction.run(loans, keeping, now_ms, &mut out);
        // In one record, while every gate is closed: it is durable as a whole, or not at all.
        if let Some(log) = log.filter(|_| !changes.is_empty()) {
            let parts: Vec<_> = changes.iter().map(|(id, part)| (id.index(), &part[..])).collect();
            trace.wrote = log.append_all(&parts);
        }
        let wrote = trace.wrote;
        for ((id, _), loan) in transaction.wanted().iter().zip(loans) {
            let give_back = move || {
                let store = store_here();
                let _ = store.visit(|home| {
                    let own = home.owned()?;
                    for key in loan.put(own) {
                        own.note(key.db, &key.name, wrote);
                    }
                    Some(())
                });
                if let Some(gate) = store.gate() {
                    gate.open();
                }
            };
            shard(ShardId(id.0)).call(give_back).await?;
        }
        unfinished.end();
        Ok((out, trace))
    };
    let done = task::Builder::new().name("resp transaction").spawn(work).await;
    done.map_err(|_| Error::closed("the transaction"))?
}

/// Runs the parts of a command on partitions of several shards as one; appends its reply to `out`.
///
/// Cancel-safe in that it goes on without whoever waits for it.
pub(super) async fn join(
    mut joint: Joint,
    now_ms: u64,
    mut out: Vec<u8>,
) -> Result<(Vec<u8>, Trace)> {
    let work = async move {
        let unfinished = Unfinished::begin();
        let (mut trace, mut count) = (Trace::default(), 0);
        let mut changes = Vec::new();
        for (id, batch) in joint.take_parts() {
            let close_and_run = move || async move {
                let store = store_here();
                if let Some(gate) = store.gate() {
                    gate.close().await;
                }
                run_aside(&store, batch, id, now_ms)
            };
            let ((mut batch, changed), seen) = shard(ShardId(id.0)).submit(close_and_run).await?;
            trace = trace.and(seen);
            count += batch.take_count();
            changes.push((id, changed));
        }
        // In one record, while every gate is closed: it is durable as a whole, or not at all.
        let changed = changes.iter().filter(|(_, changes)| !changes.is_empty());
        let parts: Vec<_> = changed.map(|(id, part)| (id.index(), &part[..])).collect();
        if let Some(log) = store_here().log().filter(|_| !parts.is_empty()) {
            trace.wrote = log.append_all(&parts);
        }
        let wrote = trace.wrote;
        for (id, changes) in changes {
            let note_and_open = move || {
                let store = store_here();
                let _ = store.visit(|home| {
                    if let Some(own) = home.owned() {
                        own.note_changes(&changes, wrote);
                    }
                });
                if let Some(gate) = store.gate() {
                    gate.open();
                }
            };
            shard(ShardId(id.0)).call(note_and_open).await?;
        }
        unfinished.end();
        joint.reply(count, &mut out);
        Ok((out, trace))
    };
    let done = task::Builder::new().name("resp joint command").spawn(work).await;
    done.map_err(|_| Error::closed("the command"))?
}

/// Runs a part on the partition of the calling shard. What it changes is not logged: it comes back
/// beside it.
fn run_aside(
    store: &Store,
    mut batch: Box<Batch>,
    id: PartitionId,
    now_ms: u64,
) -> ((Box<Batch>, Vec<u8>), Trace) {
    store.visit(|home| {
        let map = home.map();
        let own = home.owned().expect("only partitions of shards have gates");
        let is_done = batch.run(&mut Home::one(map, id, own), id, now_ms);
        assert!(is_done, "parts are not held up one by one");
        (batch, own.take_changes())
    })
}

#[cfg(test)]
#[path = "remote_tests.rs"]
mod tests;
