//! A hyper service on shards: `cargo run --example hyper_server --features hyper`, then
//! `curl localhost:8080/`. Runs until stopped.
//!
//! The service is hyper's as on any runtime; of annulus are the listener, the task and the timer.
//! One listener a shard shares the port, so each connection is served where it was accepted.

use std::convert::Infallible;
use std::net::SocketAddr;

use annulus::compat::hyper::{Io, ShardTimer};
use annulus::net::{TcpListener, TcpStream, serve_connection};
use annulus::{Runtime, shard};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};

type Body = Either<Full<Bytes>, Incoming>;

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let text = |text: String| Either::Left(Full::new(Bytes::from(text)));
    let response = match (request.method(), request.uri().path()) {
        (&Method::GET, "/") => {
            Response::new(text(format!("hello from shard {}\n", shard::current().0)))
        }
        // Sent back as it comes: nothing is gathered.
        (&Method::POST, "/echo") => Response::new(Either::Right(request.into_body())),
        (&Method::POST, "/length") => match request.into_body().collect().await {
            Ok(body) => Response::new(text(format!("{}\n", body.to_bytes().len()))),
            Err(_) => status(StatusCode::BAD_REQUEST),
        },
        _ => status(StatusCode::NOT_FOUND),
    };
    Ok(response)
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::default()));
    *response.status_mut() = status;
    response
}

async fn serve(stream: TcpStream) {
    let mut server = http1::Builder::new();
    let served =
        server.timer(ShardTimer).serve_connection(Io::new(stream), service_fn(answer)).await;
    if let Err(error) = served {
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
