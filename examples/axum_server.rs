//! An axum application on shards: `cargo run --example axum_server --features hyper`, then
//! `curl localhost:8080/hello/you`. Runs until stopped.
//!
//! The router is axum's, without its tokio server: a router is a service of requests, and hyper
//! serves it on a stream of ours. Each shard has a router of its own.

use std::net::SocketAddr;
use std::time::Duration;

use annulus::compat::hyper::{Io, ShardTimer};
use annulus::net::{TcpListener, TcpStream, serve_connection};
use annulus::{Runtime, shard};
use axum::Router;
use axum::extract::Path;
use axum::routing::{get, post};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tower_service::Service;

fn routes() -> Router {
    Router::new()
        .route("/", get(|| async { "hello, world\n" }))
        .route(
            "/hello/{name}",
            get(|Path(name): Path<String>| async move { format!("hello, {name}\n") }),
        )
        .route("/shard", get(|| async { format!("{}\n", shard::current().0) }))
        .route("/echo", post(|body: String| async { body }))
}

async fn serve(stream: TcpStream) {
    let routes = routes();
    let service = service_fn(move |request: hyper::Request<Incoming>| routes.clone().call(request));
    let mut server = http1::Builder::new();
    server.timer(ShardTimer).header_read_timeout(Duration::from_secs(30));
    if let Err(error) = server.serve_connection(Io::new(stream), service).await {
        eprintln!("a connection ended early: {error}");
    }
}

async fn accept(address: SocketAddr) -> annulus::Result<()> {
    let listener = TcpListener::bind(address)?;
    loop {
        serve_connection("http", listener.accept().await?, serve)?;
    }
}

fn main() -> annulus::Result<()> {
    let address = SocketAddr::from(([127, 0, 0, 1], 8080));
    let runtime = Runtime::new()?;
    println!("serving on http://{address} with {}", runtime.report());
    runtime.run_on_all(move |_| accept(address))?.into_iter().collect()
}
