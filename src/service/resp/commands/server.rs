//! Commands about the server: settings, figures, time.
//!
//! Invariant: `CONFIG SET` changes all the settings that it names, or none.

use crate::store::glob;

use super::super::command::{Call, Outcome, Refusal, SessionCall, integer, is};
use super::super::config;
use super::super::info::Figures;
use super::keys::unknown_subcommand;

/// `CONFIG GET pattern ... | SET name value ... | REWRITE`.
pub fn config(call: &mut SessionCall<'_>) -> Outcome {
    let (args, subcommand) = (call.args, call.args.at(1));
    if is(subcommand, "GET") {
        if args.len() < 3 {
            return Err(Refusal::arity("config|get"));
        }
        config_get(call);
        Ok(())
    } else if is(subcommand, "SET") {
        if args.len() < 4 || args.len() % 2 != 0 {
            return Err(Refusal::arity("config|set"));
        }
        config_set(call)
    } else if is(subcommand, "REWRITE") {
        Err(Refusal::Fixed("ERR The server is running without a config file"))
    } else {
        Err(unknown_subcommand(args, "CONFIG"))
    }
}

fn config_get(call: &mut SessionCall<'_>) {
    let wanted = |row: &&config::Row| {
        let mut patterns = call.args.iter().skip(2);
        patterns.any(|pattern| glob::matches(&pattern.to_ascii_lowercase(), row.name.as_bytes()))
    };
    let rows: Vec<&config::Row> = config::ROWS.iter().filter(wanted).collect();
    call.reply.map(rows.len());
    for row in rows {
        call.reply.bulk(row.name.as_bytes());
        call.reply.bulk((row.get)(call.server).as_bytes());
    }
}

fn config_set(call: &mut SessionCall<'_>) -> Outcome {
    let mut changes = Vec::new();
    for index in (2..call.args.len()).step_by(2) {
        let (name, value) = (call.args.at(index), call.args.at(index + 1));
        let row = config::find(name).ok_or_else(|| {
            let head = b"ERR Unknown option or number of arguments for CONFIG SET - '";
            Refusal::Quoting([head.as_slice(), name, b"'"].concat())
        })?;
        let change = row.check(call.server, value).map_err(|reason| {
            let head = "ERR CONFIG SET failed (possibly related to argument";
            Refusal::Quoting(format!("{head} '{}') - {reason}", row.name).into_bytes())
        })?;
        changes.push(change);
    }
    for change in changes {
        change.apply(call.server);
    }
    call.reply.ok();
    Ok(())
}

/// `TIME`.
pub fn time(call: &mut SessionCall<'_>) -> Outcome {
    call.reply.array(2);
    call.reply.bulk_integer((call.now_ms / 1000) as i64);
    call.reply.bulk_integer((call.now_ms % 1000 * 1000) as i64);
    Ok(())
}

/// `WAIT numreplicas timeout`: there are no replicas, so it is over at once.
pub fn wait(call: &mut SessionCall<'_>) -> Outcome {
    integer(call.args.at(1))?;
    let timeout = integer(call.args.at(2));
    let timeout =
        timeout.map_err(|_| Refusal::Fixed("ERR timeout is not an integer or out of range"))?;
    if timeout < 0 {
        return Err(Refusal::Fixed("ERR timeout is negative"));
    }
    call.reply.integer(0);
    Ok(())
}

/// `INFO [section ...]`, the figures of one partition.
pub fn info_part(call: &mut Call<'_>) -> i64 {
    Figures::tell(call.partition, call.reply.out);
    0
}
