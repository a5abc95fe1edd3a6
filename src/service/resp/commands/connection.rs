//! Commands about the connection itself: who speaks, in what version, to which database.
//!
//! Invariant: they touch no partition, so they are done at once.

use crate::protocol::resp::Protocol;
use crate::store::DATABASES_COUNT;

use super::super::clients::Record;
use super::super::command::{Outcome, Refusal, SessionCall, integer, is, small_integer};
use super::super::server::REDIS_VERSION;
use super::keys::unknown_subcommand;

const WRONG_PASSWORD: Refusal =
    Refusal::Fixed("WRONGPASS invalid username-password pair or user is disabled.");

/// `PING [message]`.
pub fn ping(call: &mut SessionCall<'_>) -> Outcome {
    match call.args.get(1) {
        None => call.reply.simple("PONG"),
        Some(message) if call.args.len() == 2 => call.reply.bulk(message),
        Some(_) => return Err(Refusal::arity("ping")),
    }
    Ok(())
}

/// `ECHO message`.
pub fn echo(call: &mut SessionCall<'_>) -> Outcome {
    call.reply.bulk(call.args.at(1));
    Ok(())
}

/// `QUIT`.
pub fn quit(call: &mut SessionCall<'_>) -> Outcome {
    call.client.closing = true;
    call.reply.ok();
    Ok(())
}

/// `RESET`.
pub fn reset(call: &mut SessionCall<'_>) -> Outcome {
    call.client.speak(Protocol::Resp2);
    call.client.select(0);
    call.client.authenticated = !call.server.asks_password();
    call.client.record.names().name.clear();
    call.reply.simple("RESET");
    Ok(())
}

/// `SELECT index`.
pub fn select(call: &mut SessionCall<'_>) -> Outcome {
    let db = small_integer(call.args.at(1))?;
    let db = usize::try_from(db).ok().filter(|&db| db < DATABASES_COUNT);
    call.client.select(db.ok_or(Refusal::NO_SUCH_DATABASE)?);
    call.reply.ok();
    Ok(())
}

/// `AUTH [username] password`.
pub fn auth(call: &mut SessionCall<'_>) -> Outcome {
    let args = call.args;
    match args.len() {
        2 if !call.server.asks_password() => Err(Refusal::Fixed(
            "ERR AUTH <password> called without any password configured for the default user. \
             Are you sure your configuration is correct?",
        )),
        2 => log_in(call, b"default", args.at(1)),
        3 => log_in(call, args.at(1), args.at(2)),
        _ => Err(Refusal::SYNTAX),
    }?;
    call.reply.ok();
    Ok(())
}

fn log_in(call: &mut SessionCall<'_>, user: &[u8], password: &[u8]) -> Outcome {
    if user != b"default" || !call.server.accepts(password) {
        return Err(WRONG_PASSWORD);
    }
    call.client.authenticated = true;
    Ok(())
}

/// `HELLO [version [AUTH username password] [SETNAME name]]`.
pub fn hello(call: &mut SessionCall<'_>) -> Outcome {
    let args = call.args;
    let protocol = match args.get(1) {
        None => call.client.protocol,
        Some(version) => match integer(version) {
            Ok(2) => Protocol::Resp2,
            Ok(3) => Protocol::Resp3,
            Ok(_) => return Err(Refusal::Fixed("NOPROTO unsupported protocol version")),
            Err(_) => {
                return Err(Refusal::Fixed(
                    "ERR Protocol version is not an integer or out of range",
                ));
            }
        },
    };
    let (mut login, mut name) = (None, None);
    let mut index = 2;
    while let Some(option) = args.get(index) {
        match (args.get(index + 1), args.get(index + 2)) {
            (Some(user), Some(password)) if is(option, "AUTH") => {
                login = Some((user, password));
                index += 3;
            }
            (Some(given), _) if is(option, "SETNAME") => {
                check_name(given, CLIENT_NAME)?;
                name = Some(given);
                index += 2;
            }
            _ => {
                let text = [b"ERR Syntax error in HELLO option '".as_slice(), option, b"'"];
                return Err(Refusal::Quoting(text.concat()));
            }
        }
    }
    if let Some((user, password)) = login {
        log_in(call, user, password)?;
    }
    if !call.client.authenticated {
        return Err(Refusal::Fixed(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the \
             HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and \
             select the RESP protocol version at the same time",
        ));
    }
    if let Some(name) = name {
        call.client.record.names().name = name.to_vec();
    }
    call.client.speak(protocol);
    call.reply.protocol = protocol;
    tell_server(call);
    Ok(())
}

fn tell_server(call: &mut SessionCall<'_>) {
    let version = if call.client.protocol == Protocol::Resp3 { 3 } else { 2 };
    let reply = &mut call.reply;
    reply.map(7);
    for (field, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
        reply.bulk(field.as_bytes());
        reply.bulk(value.as_bytes());
    }
    for (field, value) in [("proto", version), ("id", call.client.record.id as i64)] {
        reply.bulk(field.as_bytes());
        reply.integer(value);
    }
    for (field, value) in [("mode", "standalone"), ("role", "master")] {
        reply.bulk(field.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"modules");
    reply.array(0);
}

/// `CLIENT subcommand ...`.
pub fn client(call: &mut SessionCall<'_>) -> Outcome {
    let args = call.args;
    let subcommand = args.at(1);
    let arity = |len: usize, name: &str| {
        if args.len() == len { Ok(()) } else { Err(Refusal::arity(&format!("client|{name}"))) }
    };
    if is(subcommand, "ID") {
        arity(2, "id")?;
        call.reply.integer(call.client.record.id as i64);
    } else if is(subcommand, "SETNAME") {
        arity(3, "setname")?;
        check_name(args.at(2), CLIENT_NAME)?;
        call.client.record.names().name = args.at(2).to_vec();
        call.reply.ok();
    } else if is(subcommand, "GETNAME") {
        arity(2, "getname")?;
        let name = call.client.record.names().name.clone();
        if name.is_empty() { call.reply.null() } else { call.reply.bulk(&name) }
    } else if is(subcommand, "SETINFO") {
        arity(4, "setinfo")?;
        set_info(call)?;
    } else if is(subcommand, "INFO") {
        arity(2, "info")?;
        let mut line = Vec::new();
        call.client.record.describe(call.now_ms, &mut line);
        line.push(b'\n');
        call.reply.verbatim(*b"txt", &line);
    } else if is(subcommand, "LIST") {
        list(call)?;
    } else if is(subcommand, "KILL") {
        kill(call)?;
    } else if is(subcommand, "NO-EVICT") || is(subcommand, "NO-TOUCH") {
        let name = if is(subcommand, "NO-EVICT") { "no-evict" } else { "no-touch" };
        arity(3, name)?;
        if !is(args.at(2), "ON") && !is(args.at(2), "OFF") {
            return Err(Refusal::SYNTAX);
        }
        // No client is ever closed for want of memory, but every client's reads are uses of keys.
        if name == "no-touch" && is(args.at(2), "ON") {
            return Err(Refusal::Fixed("ERR CLIENT NO-TOUCH ON is not supported: reads are uses"));
        }
        call.reply.ok();
    } else {
        return Err(unknown_subcommand(args, "CLIENT"));
    }
    Ok(())
}

const CLIENT_NAME: &str = "Client names";

fn check_name(name: &[u8], what: &str) -> Outcome {
    if name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        return Ok(());
    }
    let text = format!("ERR {what} cannot contain spaces, newlines or special characters.");
    Err(Refusal::Quoting(text.into_bytes()))
}

fn set_info(call: &mut SessionCall<'_>) -> Outcome {
    let (attribute, value) = (call.args.at(2), call.args.at(3));
    if is(attribute, "LIB-NAME") {
        check_name(value, "lib-name")?;
        call.client.record.names().library = value.to_vec();
    } else if is(attribute, "LIB-VER") {
        check_name(value, "lib-ver")?;
        call.client.record.names().library_version = value.to_vec();
    } else {
        let text = [b"ERR Unrecognized option '".as_slice(), attribute, b"'"];
        return Err(Refusal::Quoting(text.concat()));
    }
    call.reply.ok();
    Ok(())
}

/// `CLIENT LIST [TYPE type] [ID id ...]`.
fn list(call: &mut SessionCall<'_>) -> Outcome {
    let args = call.args;
    let lines = match (args.get(2), args.get(3)) {
        (None, _) => call.server.clients.describe(call.now_ms, |_| true),
        (Some(option), Some(kind)) if is(option, "TYPE") && args.len() == 4 => {
            let normal = client_type(kind)?;
            call.server.clients.describe(call.now_ms, |_| normal)
        }
        (Some(option), Some(_)) if is(option, "ID") => {
            let ids: Result<Vec<i64>, _> = args.iter().skip(3).map(integer).collect();
            let ids = ids.map_err(|_| Refusal::Fixed("ERR Invalid client ID"))?;
            let wanted = |record: &Record| ids.contains(&(record.id as i64));
            call.server.clients.describe(call.now_ms, wanted)
        }
        _ => return Err(Refusal::SYNTAX),
    };
    call.reply.verbatim(*b"txt", &lines);
    Ok(())
}

/// Whether a type of clients is the one that all clients here are of.
fn client_type(name: &[u8]) -> Result<bool, Refusal> {
    const OTHERS: [&str; 4] = ["MASTER", "REPLICA", "SLAVE", "PUBSUB"];
    if is(name, "NORMAL") {
        Ok(true)
    } else if OTHERS.iter().any(|other| is(name, other)) {
        Ok(false)
    } else {
        let text = [b"ERR Unknown client type '".as_slice(), name, b"'"];
        Err(Refusal::Quoting(text.concat()))
    }
}

/// `CLIENT KILL address` and `CLIENT KILL [ID id] [TYPE type] [USER user] [ADDR address]
/// [LADDR address] [SKIPME yes | no] ...`.
fn kill(call: &mut SessionCall<'_>) -> Outcome {
    let args = call.args;
    let all = call.server.clients.all();
    if args.len() == 3 {
        let address = args.at(2);
        let Some(victim) = all.iter().find(|record| record.address.as_bytes() == address) else {
            return Err(Refusal::Fixed("ERR No such client"));
        };
        kill_one(call, victim);
        call.reply.ok();
        return Ok(());
    }
    if args.len() < 3 || !args.len().is_multiple_of(2) {
        return Err(Refusal::SYNTAX);
    }
    let mut victims = all;
    let mut skip_me = true;
    for index in (2..args.len()).step_by(2) {
        let (filter, value) = (args.at(index), args.at(index + 1));
        if is(filter, "ID") {
            let id = integer(value).ok().filter(|&id| id > 0);
            let id = id.ok_or(Refusal::Fixed("ERR client-id should be greater than 0"))?;
            victims.retain(|record| record.id as i64 == id);
        } else if is(filter, "TYPE") {
            let normal = client_type(value)?;
            victims.retain(|_| normal);
        } else if is(filter, "USER") {
            if value != b"default" {
                let text = [b"ERR No such user '".as_slice(), value, b"'"];
                return Err(Refusal::Quoting(text.concat()));
            }
        } else if is(filter, "ADDR") {
            victims.retain(|record| record.address.as_bytes() == value);
        } else if is(filter, "LADDR") {
            victims.retain(|record| record.local_address.as_bytes() == value);
        } else if is(filter, "SKIPME") && (is(value, "YES") || is(value, "NO")) {
            skip_me = is(value, "YES");
        } else {
            return Err(Refusal::SYNTAX);
        }
    }
    victims.retain(|record| !skip_me || record.id != call.client.record.id);
    for victim in &victims {
        kill_one(call, victim);
    }
    call.reply.integer(victims.len() as i64);
    Ok(())
}

/// Ends a connection; the caller's own only after the reply.
fn kill_one(call: &mut SessionCall<'_>, victim: &Record) {
    if victim.id == call.client.record.id {
        call.client.closing = true;
    } else {
        victim.kill();
    }
}
