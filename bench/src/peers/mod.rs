//! Peers: the same echo server on other runtimes, each as its documentation would have it.
//!
//! `annulus-bench peer NAME` runs one; `compare --peers` measures them beside annulus. Every peer
//! has one thread, nodelay and one 16 KiB buffer per connection, so that only the runtime differs.

mod annulus;
#[cfg(feature = "peers")]
mod compio;
#[cfg(feature = "peers")]
mod glommio;
#[cfg(feature = "peers")]
mod monoio;
#[cfg(feature = "peers")]
mod tokio;

use std::net::SocketAddr;

use clap::{Args, ValueEnum};

use crate::affinity;
use crate::compare::contender::Engine;
use crate::failure::Failure;

/// The read buffer of a connection.
#[cfg(feature = "peers")]
const BUFFER_BYTES: usize = 16 * 1024;

/// A runtime with an echo server here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// annulus itself, with the engine of `--engine`.
    Annulus,
    /// tokio, current_thread.
    Tokio,
    /// glommio, one local executor.
    Glommio,
    /// monoio on its io_uring driver.
    Monoio,
    /// compio on its io_uring driver.
    Compio,
}

impl Name {
    /// The other runtimes, in the order of the report.
    pub(crate) const OTHERS: [Name; 4] = [Name::Tokio, Name::Monoio, Name::Compio, Name::Glommio];

    /// The name as flags and reports have it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Name::Annulus => "annulus",
            Name::Tokio => "tokio",
            Name::Glommio => "glommio",
            Name::Monoio => "monoio",
            Name::Compio => "compio",
        }
    }
}

/// Flags of `annulus-bench peer`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Which runtime.
    #[arg(value_enum)]
    name: Name,
    /// Engine of annulus; the others have but one.
    #[arg(long, value_enum, default_value = "uring")]
    engine: Engine,
    /// Address to listen on; port 0 picks a free one, which is printed.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Core to stay on.
    #[arg(long)]
    cpu: Option<usize>,
}

/// Whether the peers were built in.
pub(crate) const BUILT_IN: bool = cfg!(feature = "peers");

/// Runs the peer that `arguments` name until the process is killed.
pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    if let Some(core) = arguments.cpu {
        affinity::pin(&[core])?;
    }
    if arguments.name == Name::Annulus {
        let listener = crate::floor::listen(arguments.listen)?;
        let served = annulus::serve(listener, arguments.engine.into());
        return served.map_err(|error| Failure::failed("annulus", error));
    }
    serve(arguments.name, arguments.listen)
}

#[cfg(feature = "peers")]
fn serve(name: Name, listen: SocketAddr) -> Result<(), Failure> {
    let outcome = match name {
        // Served above: it is always built in.
        Name::Annulus => Ok(()),
        Name::Tokio => tokio::serve(crate::floor::listen(listen)?),
        Name::Monoio => monoio::serve(crate::floor::listen(listen)?),
        Name::Compio => compio::serve(crate::floor::listen(listen)?),
        // glommio's listener is its own: it cannot adopt one.
        Name::Glommio => {
            crate::floor::raise_descriptor_limit();
            glommio::serve(listen)
        }
    };
    outcome.map_err(|error| Failure::failed(name.text(), error))
}

#[cfg(not(feature = "peers"))]
fn serve(name: Name, _listen: SocketAddr) -> Result<(), Failure> {
    Err(Failure::usage(format!(
        "{} was not built in; build with `cargo build --release -p annulus-bench --features peers`",
        name.text()
    )))
}
