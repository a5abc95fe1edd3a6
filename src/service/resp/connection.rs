//! One connection: receive, run, send, until either side has had enough.
//!
//! Run as a task, by the daemon, for each accepted stream. Invariant: what came together is
//! answered together, with one send; and no lease is held while something is waited for.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::error::Error;
use crate::metrics::{self, Counter, Measure};
use crate::net::TcpStream;
use crate::service::input::Input;
use crate::service::room;
use crate::store::{Store, Trace};
use crate::{Direction, time};

use super::client::Client;
use super::server::Server;
use super::session::{Next, Session};
use super::waiting::{Wait, Waited};
use super::{local, remote};

/// Serves `stream` to its end. The thread's store must have been installed.
pub async fn serve(server: Arc<Server>, stream: TcpStream) {
    let Some(store) = Store::here() else {
        tracing::error!("a connection came to a thread that has no store");
        return;
    };
    let address = |address: Result<std::net::SocketAddr, Error>| {
        address.map_or_else(|_| "?:0".to_owned(), |address| address.to_string())
    };
    let (peer, own) = (address(stream.peer_addr()), address(stream.local_addr()));
    let handle = stream.handle();
    let hangup = Box::new(move || {
        let _was_open = handle.shutdown(Direction::Both);
    });
    let now_ms = local::unix_ms(time::now());
    let count_max = server.clients_count_max();
    let Some(registration) = server.clients.connect(peer, own, now_ms, count_max, hangup) else {
        let refusal = b"-ERR max number of clients reached\r\n".as_slice();
        // A peer that is gone needs no refusal.
        let _ = stream.send(refusal).await;
        return;
    };
    let client = Client::new(Arc::clone(&registration.record), !server.asks_password());
    let mut connection = Connection {
        server: &server,
        store,
        stream,
        session: Session::new(client),
        input: Input::default(),
        output: Vec::new(),
        owes: Trace::default(),
    };
    // Whether the peer or this side ended it: dropping the stream closes it.
    let Gone = connection.run().await;
}

/// The connection has ended.
#[derive(Debug)]
struct Gone;

#[derive(Debug)]
struct Connection<'a> {
    server: &'a Server,
    store: Store,
    stream: TcpStream,
    session: Session,
    input: Input,
    output: Vec<u8>,
    /// What must be durable before the output is sent.
    owes: Trace,
}

impl Connection<'_> {
    async fn run(&mut self) -> Gone {
        loop {
            if let Err(gone) = self.receive().await {
                return gone;
            }
            let began = time::now();
            self.output = local::take_buffer();
            let answered = self.answer().await;
            local::give_buffer(mem::take(&mut self.output));
            metrics::record(Measure::RespRequest, time::now().nanos_since(began));
            if let Err(gone) = answered {
                return gone;
            }
        }
    }

    /// Waits for more input.
    async fn receive(&mut self) -> Result<(), Gone> {
        let idle_seconds = self.server.live.idle_seconds_max.load(Ordering::Relaxed);
        let received = if idle_seconds == 0 {
            self.stream.recv().await
        } else {
            // Boxed, like the rest of what few connections need: the others should not carry it.
            let idle = Duration::from_secs(idle_seconds);
            Box::pin(time::timeout(idle, self.stream.recv())).await.map_err(|_| Gone)?
        };
        match received {
            Ok(Some(lease)) => self.input.push(lease),
            Ok(None) | Err(_) => return Err(Gone),
        }
        let is_too_long = self.input.bytes().len() > self.server.settings.query_bytes_max;
        if is_too_long { Err(Gone) } else { Ok(()) }
    }

    /// Answers every request that has come whole.
    async fn answer(&mut self) -> Result<(), Gone> {
        loop {
            if let Some(gate) = self.store.gate()
                && gate.is_closed()
            {
                self.input.keep();
                gate.opened().await;
                continue;
            }
            let now_ms = local::unix_ms(time::now());
            let (session, out) = (&mut self.session, &mut self.output);
            let (input, server) = (self.input.bytes(), self.server);
            let commands = session.client.record.commands.load(Ordering::Relaxed);
            let (advance, trace) =
                self.store.visit(|home| session.advance(input, home, server, now_ms, out));
            let session = &self.session;
            let commands = session.client.record.commands.load(Ordering::Relaxed) - commands;
            metrics::add(Counter::RespCommands, commands);
            self.note(trace);
            self.input.consume(advance.consumed);
            self.input.keep();
            if !self.session.outbox.is_empty() {
                self.carry(now_ms).await?;
            }
            match advance.next {
                Next::Read => return self.send().await,
                Next::Send => self.send().await?,
                Next::Transact(transaction) => {
                    let out = mem::take(&mut self.output);
                    let done = Box::pin(remote::transact(*transaction, now_ms, out)).await;
                    let (output, trace) = done.map_err(|_| Gone)?;
                    self.output = output;
                    self.note(trace);
                }
                Next::Join(joint) => {
                    let out = mem::take(&mut self.output);
                    let done = Box::pin(remote::join(*joint, now_ms, out)).await;
                    let (output, trace) = done.map_err(|_| Gone)?;
                    self.output = output;
                    self.note(trace);
                }
                Next::Stall => {
                    self.send().await?;
                    if let Some(log) = self.store.log() {
                        Box::pin(log.admitted()).await.map_err(|_| Gone)?;
                    }
                }
                Next::Wait(wait) => Box::pin(self.wait(wait)).await?,
                Next::Room(room) => {
                    self.send().await?;
                    let step = Box::pin(room::approach(&self.store, room)).await;
                    step.map_err(|_| Gone)?;
                }
                Next::Close => {
                    self.send().await?;
                    return Err(Gone);
                }
            }
        }
    }

    /// Waits for what a command waits for. The replies before it do not wait with it.
    async fn wait(&mut self, wait: Wait) -> Result<(), Gone> {
        self.send().await?;
        let (log, client) = (self.store.log(), &self.session.client);
        let (wrote, protocol) = (client.wrote, client.protocol);
        let waited = wait.over(log.map(|log| &**log), wrote, protocol, &mut self.output).await;
        match waited {
            Waited::Reply => Ok(()),
            Waited::ShutDown => {
                self.server.shut_down();
                Err(Gone)
            }
        }
    }

    /// Notes what was done to the store, on the way to a reply.
    #[inline]
    fn note(&mut self, trace: Trace) {
        self.owes = self.owes.and(trace);
        let wrote = &mut self.session.client.wrote;
        *wrote = trace.wrote.max(*wrote);
    }

    /// Has other shards do their part, and puts their replies where they belong. Boxed: few batches
    /// need it.
    async fn carry(&mut self, now_ms: u64) -> Result<(), Gone> {
        let outbox = &mut self.session.outbox;
        let carried = Box::pin(remote::carry(outbox, now_ms)).await;
        carried.map_err(|_| Gone)?;
        outbox.stitch(&mut self.output, self.server, now_ms);
        let trace = outbox.take_trace();
        self.note(trace);
        Ok(())
    }

    /// Sends the output, if there is any, and has the empty buffer back.
    async fn send(&mut self) -> Result<(), Gone> {
        if self.output.is_empty() {
            return Ok(());
        }
        let owes = mem::take(&mut self.owes);
        if !self.store.is_settled(owes) {
            // Boxed, as above.
            Box::pin(self.store.settled(owes)).await.map_err(|_| Gone)?;
        }
        let output = mem::take(&mut self.output);
        let sent = self.stream.send(output).await.map_err(|_| Gone)?;
        self.output = sent.into_vec();
        self.output.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<F: Future>(_: impl Fn(Arc<Server>, TcpStream) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_connection_carries_little() {
        // Its whole task, apart from what the runtime keeps of it; measured, with a little room.
        assert!(size_of_future(serve) <= 904, "{}", size_of_future(serve));
    }
}
