//! Waiting for room, when memory is full and keys have to give way first. Called by connections
//! whose write needs memory.
//!
//! Invariant: keys are evicted in steps, and between two of them the shard serves others.

use crate::error::Result;
use crate::shard::{ShardId, shard};
use crate::store::{Room, Store};
use crate::task;

/// Has one more step done of what `room` says is missing; then ask again.
///
/// Cancel-safe: a step is done whole or not at all.
///
/// # Errors
/// The runtime shuts down.
pub(super) async fn approach(store: &Store, room: Room) -> Result<()> {
    match room {
        Room::Elsewhere(id) if !store.reaches(id) => {
            let step = move || Store::here().map(|store| store.give_way(id));
            shard(ShardId(id.0)).call(step).await?;
        }
        Room::Elsewhere(id) => {
            store.give_way(id);
            task::yield_now().await;
        }
        Room::NotYet => task::yield_now().await,
        Room::Enough | Room::None => {}
    }
    Ok(())
}
