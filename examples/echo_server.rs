//! An echo server on every CPU: the smallest whole program. Runs until stopped.
//!
//! ```text
//! cargo run --release --example echo_server -- 127.0.0.1:7007 [uring|epoll|threads] [shards]
//! ```

use annulus::net::{TcpListener, TcpStream, serve_connection};
use annulus::{Engine, Result, Runtime};

async fn echo(stream: TcpStream) -> Result<()> {
    while let Some(chunk) = stream.recv().await? {
        stream.send(chunk).await?;
    }
    Ok(())
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or("127.0.0.1:7007".into()).parse()?;
    let engine: Engine = arguments.next().unwrap_or("auto".into()).parse()?;
    let mut builder = Runtime::builder().engine(engine);
    if let Some(shards) = arguments.next() {
        builder = builder.shards(shards.parse()?);
    }
    let runtime = builder.build()?;
    println!("echo on {address}, engine {}", runtime.report());
    let serve = move |_| async move {
        let listener = TcpListener::bind(address)?;
        loop {
            let stream = listener.accept().await?;
            serve_connection("echo", stream, |stream| async {
                // A peer that goes away is no concern of the server's.
                drop(echo(stream).await);
            })?;
        }
    };
    let ended: Vec<Result<()>> = runtime.run_on_all(serve)?;
    ended.into_iter().collect::<Result<()>>()?;
    Ok(())
}
