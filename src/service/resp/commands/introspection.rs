//! `COMMAND` and its subcommands: the command table, told to clients.
//!
//! Invariant: everything told comes from the rows of the table.

use crate::protocol::resp::{Args, Encoder};
use crate::store::glob;

use super::super::command::{Command, Keys, Outcome, Refusal, SessionCall, flag, is};
use super::super::table;
use super::keys::unknown_subcommand;

/// `COMMAND [COUNT | INFO [name ...] | DOCS [name ...] | GETKEYS command ... | LIST [filter]]`.
pub fn command(call: &mut SessionCall<'_>) -> Outcome {
    let args = call.args;
    let Some(subcommand) = args.get(1) else {
        call.reply.array(table::COMMANDS.len());
        for command in &table::COMMANDS {
            tell(&mut call.reply, command);
        }
        return Ok(());
    };
    if is(subcommand, "COUNT") {
        if args.len() != 2 {
            return Err(Refusal::arity("command|count"));
        }
        call.reply.integer(table::COMMANDS.len() as i64);
    } else if is(subcommand, "INFO") {
        tell_named(call);
    } else if is(subcommand, "DOCS") {
        document_named(call);
    } else if is(subcommand, "LIST") {
        list(call)?;
    } else if is(subcommand, "GETKEYS") {
        get_keys(call)?;
    } else {
        return Err(unknown_subcommand(args, "COMMAND"));
    }
    Ok(())
}

/// The rows that arguments from the third on name; all rows if there are none.
fn named(args: &Args<'_>) -> Vec<Option<&'static Command>> {
    if args.len() == 2 {
        return table::COMMANDS.iter().map(Some).collect();
    }
    args.iter().skip(2).map(table::find).collect()
}

fn tell_named(call: &mut SessionCall<'_>) {
    let rows = named(call.args);
    call.reply.array(rows.len());
    for row in rows {
        match row {
            Some(command) => tell(&mut call.reply, command),
            None => call.reply.null(),
        }
    }
}

/// One command as `COMMAND INFO` tells it.
fn tell(reply: &mut Encoder<'_>, command: &Command) {
    let Keys { first, last, step } = command.keys;
    reply.array(10);
    reply.bulk(command.name.as_bytes());
    reply.integer(i64::from(command.arity));
    let flags = flag::NAMES.iter().filter(|(bit, _)| command.flags & bit != 0);
    reply.set(flags.clone().count());
    for (_, name) in flags {
        reply.simple(name);
    }
    reply.integer(i64::from(first));
    reply.integer(i64::from(last));
    reply.integer(i64::from(step));
    let categories = categories(command);
    reply.set(categories.len());
    for category in categories {
        reply.simple(&category);
    }
    // No tips.
    reply.set(0);
    reply.set(usize::from(first > 0));
    if first > 0 {
        tell_keys(reply, command);
    }
    // No subcommands: containers are single rows.
    reply.set(0);
}

/// The access categories that follow from flags and group.
fn categories(command: &Command) -> Vec<String> {
    let has = |bit: u16| command.flags & bit != 0;
    let group = match command.group {
        "generic" => "keyspace",
        group => group,
    };
    let mut names = Vec::new();
    for (told, name) in [
        (group == "keyspace" || has(flag::SLOW) && group == "server", "keyspace"),
        (has(flag::READONLY), "read"),
        (has(flag::WRITE), "write"),
        (group == "string", "string"),
        (has(flag::FAST), "fast"),
        (!has(flag::FAST), "slow"),
        (has(flag::ADMIN), "admin"),
        (has(flag::ADMIN), "dangerous"),
        (group == "connection", "connection"),
    ] {
        if told {
            names.push(format!("@{name}"));
        }
    }
    names
}

/// The one key specification that the positions of the keys amount to.
fn tell_keys(reply: &mut Encoder<'_>, command: &Command) {
    let Keys { first, last, step } = command.keys;
    let access = if command.flags & flag::WRITE != 0 { ["RW", "update"] } else { ["RO", "access"] };
    reply.map(3);
    reply.bulk(b"flags");
    reply.set(access.len());
    for flag in access {
        reply.simple(flag);
    }
    reply.bulk(b"begin_search");
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(b"index");
    reply.bulk(b"spec");
    reply.map(1);
    reply.bulk(b"index");
    reply.integer(i64::from(first));
    reply.bulk(b"find_keys");
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(b"range");
    reply.bulk(b"spec");
    reply.map(3);
    // Relative to the first key, where it does not count from the end.
    let last = if last < 0 { i64::from(last) } else { i64::from(last) - i64::from(first) };
    for (name, value) in [("lastkey", last), ("keystep", i64::from(step)), ("limit", 0)] {
        reply.bulk(name.as_bytes());
        reply.integer(value);
    }
}

fn document_named(call: &mut SessionCall<'_>) {
    let rows: Vec<&Command> = named(call.args).into_iter().flatten().collect();
    let reply = &mut call.reply;
    reply.map(rows.len());
    for command in rows {
        reply.bulk(command.name.as_bytes());
        reply.map(3);
        let fields =
            [("summary", command.summary), ("since", command.since), ("group", command.group)];
        for (field, value) in fields {
            reply.bulk(field.as_bytes());
            reply.bulk(value.as_bytes());
        }
    }
}

/// `COMMAND LIST [FILTERBY MODULE name | ACLCAT category | PATTERN pattern]`.
fn list(call: &mut SessionCall<'_>) -> Outcome {
    let args = call.args;
    let wanted: Box<dyn Fn(&Command) -> bool> = match (args.get(2), args.get(3), args.get(4)) {
        (None, ..) => Box::new(|_| true),
        (Some(filter), Some(kind), Some(value)) if is(filter, "FILTERBY") && args.len() == 5 => {
            if is(kind, "MODULE") {
                Box::new(|_| false)
            } else if is(kind, "ACLCAT") {
                let category = [b"@".as_slice(), value].concat().to_ascii_lowercase();
                Box::new(move |command| {
                    categories(command).iter().any(|name| name.as_bytes() == category)
                })
            } else if is(kind, "PATTERN") {
                Box::new(move |command| glob::matches(value, command.name.as_bytes()))
            } else {
                return Err(Refusal::SYNTAX);
            }
        }
        _ => return Err(Refusal::SYNTAX),
    };
    let names: Vec<&str> = table::COMMANDS
        .iter()
        .filter(|command| wanted(command))
        .map(|command| command.name)
        .collect();
    call.reply.array(names.len());
    for name in names {
        call.reply.bulk(name.as_bytes());
    }
    Ok(())
}

/// `COMMAND GETKEYS command [argument ...]`.
fn get_keys(call: &mut SessionCall<'_>) -> Outcome {
    const OFFSET: usize = 2;
    let args = call.args;
    let Some(name) = args.get(OFFSET).filter(|_| args.len() > OFFSET + 1) else {
        return Err(Refusal::arity("command|getkeys"));
    };
    let command = table::find(name).ok_or(Refusal::Fixed("ERR Invalid command specified"))?;
    if command.keys.first == 0 {
        return Err(Refusal::Fixed("ERR The command has no key arguments"));
    }
    let len = args.len() - OFFSET;
    if !table::takes(command, len) {
        return Err(Refusal::Fixed("ERR Invalid number of arguments specified for command"));
    }
    let indexes: Vec<usize> = command.keys.indexes(len).collect();
    call.reply.array(indexes.len());
    for index in indexes {
        call.reply.bulk(args.at(index + OFFSET));
    }
    Ok(())
}
