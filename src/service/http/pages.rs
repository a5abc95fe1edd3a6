//! Pages about the process: what runs, whether it is well, and its figures.
//!
//! Called by the connection loop. Invariant: nothing here waits or changes anything.

use std::fmt::Write as _;

use crate::protocol::http1::Status;

use super::request::Request;
use super::router::{Path, ROUTES};

/// What the front page says about the process. Plain data, given by the daemon at start.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// The engine that runs.
    pub engine: String,
    /// How many shards there are.
    pub shard_count: usize,
    /// What is listened on, each with its protocol: `("RESP", "127.0.0.1:6380")`.
    pub listeners: Vec<(String, String)>,
}

/// Answers with a page.
pub(super) fn page(request: &Request<'_>, content_type: &str, body: &[u8], out: &mut Vec<u8>) {
    request.reply(out, Status::Ok).field("Content-Type", content_type.as_bytes()).body(body);
}

/// Answers with a line of text.
pub(super) fn line(request: &Request<'_>, status: Status, text: &str, out: &mut Vec<u8>) {
    request
        .reply(out, status)
        .field("Content-Type", b"text/plain; charset=utf-8")
        .body(text.as_bytes());
}

/// The front page, made once.
pub(super) fn index(about: &About) -> String {
    let mut rows = String::new();
    for route in &ROUTES {
        let path = match route.path {
            Path::Exact(path) => format!("<a href=\"{path}\">{path}</a>"),
            Path::Below(prefix) => format!("{prefix}…"),
        };
        let methods = route.methods.list();
        let about = route.about;
        // Writing to a string does not fail.
        let _ = writeln!(rows, "<tr><td>{path}</td><td>{methods}</td><td>{about}</td></tr>");
    }
    let mut listeners = String::new();
    for (protocol, address) in &about.listeners {
        let _ = writeln!(listeners, "<li>{} on {}</li>", escape(protocol), escape(address));
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>annulus</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;\
         padding:0 1rem}}td{{padding:.1rem 1rem .1rem 0;vertical-align:top}}</style></head><body>\n\
         <h1>annulus {}</h1>\n<p>Engine {}, {} shard{}.</p>\n<ul>\n{listeners}</ul>\n\
         <table>\n{rows}</table>\n</body></html>\n",
        env!("CARGO_PKG_VERSION"),
        escape(&about.engine),
        about.shard_count,
        if about.shard_count == 1 { "" } else { "s" },
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_page_names_engine_listeners_and_every_route() {
        let page = index(&About {
            engine: "uring".into(),
            shard_count: 2,
            listeners: vec![("RESP".into(), "<any>:6380".into())],
        });
        assert!(page.contains("Engine uring, 2 shards."));
        assert!(page.contains("<li>RESP on &lt;any&gt;:6380</li>"));
        for route in &ROUTES {
            assert!(page.contains(route.path.text()), "{:?}", route.path);
        }
    }
}
