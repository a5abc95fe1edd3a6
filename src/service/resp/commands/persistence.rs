//! Commands about what is kept: snapshots, durable writes, the end of the server.
//!
//! Invariant: what is said to be saved or durable is so, and a store in memory only says that it is
//! one.

use std::sync::Arc;
use std::time::Duration;

use crate::store::saving::Saving;

use super::super::command::{Outcome, Refusal, SessionCall, integer, is};
use super::super::waiting::{BUSY, Wait, reply_durable};

fn saving(call: &SessionCall<'_>) -> Result<Arc<Saving>, Refusal> {
    let storage = call.server.storage.as_ref().ok_or(Refusal::Fixed(
        "ERR the store is in memory only, there is nowhere to save it; start the server with \
         --data DIRECTORY",
    ))?;
    Ok(Arc::clone(&storage.saving))
}

/// `SAVE`: the reply comes when the snapshot is complete. Nobody else waits for it meanwhile.
pub fn save(call: &mut SessionCall<'_>) -> Outcome {
    call.client.waits = Some(Wait::Saved(saving(call)?));
    Ok(())
}

/// `BGSAVE [SCHEDULE]`. The reply does not wait for the snapshot.
pub fn bgsave(call: &mut SessionCall<'_>) -> Outcome {
    const STARTED: &str = "Background saving started";
    let schedule = match call.args.get(1) {
        None => false,
        Some(option) if call.args.len() == 2 && is(option, "SCHEDULE") => true,
        Some(_) => return Err(Refusal::SYNTAX),
    };
    let told = if schedule {
        |busy| Ok(if busy { "Background saving scheduled" } else { STARTED })
    } else {
        |busy| if busy { Err(BUSY) } else { Ok(STARTED) }
    };
    call.client.waits = Some(Wait::Asked { saving: saving(call)?, told });
    Ok(())
}

/// `BGREWRITEAOF`: a snapshot, as by `BGSAVE`. It makes the log before it needless, which is what a
/// rewrite is for.
pub fn bgrewriteaof(call: &mut SessionCall<'_>) -> Outcome {
    const BUSY: Refusal =
        Refusal::Fixed("ERR Background append only file rewriting already in progress");
    let told =
        |busy| if busy { Err(BUSY) } else { Ok("Background append only file rewriting started") };
    call.client.waits = Some(Wait::Asked { saving: saving(call)?, told });
    Ok(())
}

/// `LASTSAVE`: when the last snapshot was complete, or when the server started.
pub fn lastsave(call: &mut SessionCall<'_>) -> Outcome {
    call.reply.integer(call.server.last_save_ms() as i64 / 1000);
    Ok(())
}

/// `WAITAOF numlocal numreplicas timeout`: waits until what this connection has written is durable,
/// or for so many milliseconds; 0: as long as it takes. Whatever the policy, the log is synced for
/// it at once. There are no replicas, so they are not waited for.
pub fn waitaof(call: &mut SessionCall<'_>) -> Outcome {
    let local = match integer(call.args.at(1))? {
        local @ 0..=1 => local == 1,
        _ => return Err(Refusal::Fixed("ERR value is out of range, value must between 0 and 1")),
    };
    if integer(call.args.at(2))? < 0 {
        return Err(Refusal::Fixed("ERR value is out of range, must be positive"));
    }
    let timeout = integer(call.args.at(3));
    let timeout =
        timeout.map_err(|_| Refusal::Fixed("ERR timeout is not an integer or out of range"))?;
    let timeout = u64::try_from(timeout).map_err(|_| Refusal::Fixed("ERR timeout is negative"))?;
    let log = call.server.storage.as_ref().map(|storage| &*storage.log);
    match (local, log) {
        (true, None) => Err(Refusal::Fixed(
            "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
        )),
        (true, Some(_)) => {
            let timeout = (timeout > 0).then(|| Duration::from_millis(timeout));
            call.client.waits = Some(Wait::Durable(timeout));
            Ok(())
        }
        // Not at once: what was written in front of this in the same batch has to be counted.
        (false, Some(_)) => {
            call.client.waits = Some(Wait::Durable(Some(Duration::ZERO)));
            Ok(())
        }
        (false, None) => {
            reply_durable(None, call.client.wrote, &mut call.reply);
            Ok(())
        }
    }
}

/// `SHUTDOWN [NOSAVE | SAVE] [NOW] [FORCE] | ABORT`: ends the server as SIGTERM does. The log is
/// made durable in any case; `SAVE` takes a snapshot first.
pub fn shutdown(call: &mut SessionCall<'_>) -> Outcome {
    let (mut save, mut nosave, mut force, mut abort) = (false, false, false, false);
    for option in call.args.iter().skip(1) {
        match option {
            _ if is(option, "SAVE") => save = true,
            _ if is(option, "NOSAVE") => nosave = true,
            _ if is(option, "FORCE") => force = true,
            _ if is(option, "ABORT") => abort = true,
            // There are no replicas that would be waited for.
            _ if is(option, "NOW") => {}
            _ => return Err(Refusal::SYNTAX),
        }
    }
    if save && nosave || abort && call.args.len() > 2 {
        return Err(Refusal::SYNTAX);
    }
    if abort {
        return Err(Refusal::Fixed("ERR No shutdown in progress."));
    }
    if save {
        call.client.waits = Some(Wait::SavedToEnd { saving: saving(call)?, force });
        return Ok(());
    }
    call.server.shut_down();
    call.client.closing = true;
    Ok(())
}
