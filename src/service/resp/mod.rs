//! The Redis protocol as a service: sessions, commands and the connection loop around them.
//!
//! Called by the daemon, which makes one [`Server`] and hands accepted streams to the connection
//! loop. Invariant: all but the connection loop is sans-I/O and takes the time as an argument.
#![forbid(unsafe_code)]

mod ahead;
pub mod client;
pub mod clients;
pub mod command;
pub mod commands;
pub mod config;
pub mod connection;
pub mod decimal;
pub mod expiry_cycle;
pub mod info;
pub mod joint;
mod local;
pub mod outbox;
mod remote;
pub mod server;
pub mod session;
pub mod table;
pub mod transaction;
pub mod waiting;

pub use connection::serve;
pub use server::{RespSettings, Server};
pub use session::{Advance, Next, Session};
