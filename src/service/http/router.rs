//! Which handler answers which path: the one table of routes.
//!
//! Called by the connection loop for every request. Invariant: a path is matched as it stands on
//! the wire; only what follows a prefix is decoded, by its handler.

use crate::protocol::http1::Method;

/// Who answers. Matched in one place, so that a handler may be synchronous or not as it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handler {
    Kv,
    File,
    Digest,
    Compress,
    Index,
    Health,
    Ready,
    Metrics,
    Stats,
    Operations,
    Tasks,
}

/// One row.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) path: Path,
    pub(super) methods: Methods,
    pub(super) handler: Handler,
    /// What the front page says about it.
    pub(super) about: &'static str,
}

/// A path, or everything below one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    Exact(&'static str),
    Below(&'static str),
}

/// A set of methods. OPTIONS belongs to every route and need not be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Methods(u8);

impl Methods {
    const fn of(methods: &[Method]) -> Self {
        let (mut bits, mut index) = (1 << Method::Options as u8, 0);
        while index < methods.len() {
            bits |= 1 << methods[index] as u8;
            index += 1;
        }
        Self(bits)
    }

    pub(super) const fn contain(self, method: Method) -> bool {
        self.0 & 1 << method as u8 != 0
    }

    /// As `Allow` lists them: `GET, HEAD`.
    pub(super) fn list(self) -> String {
        let names: Vec<_> =
            Method::ALL.iter().filter(|&&m| self.contain(m)).map(|m| m.name()).collect();
        names.join(", ")
    }
}

/// Methods of the server as a whole, the answer to `OPTIONS *`.
pub(super) const METHODS_ALL: Methods = Methods::of(&Method::ALL);

const READ: Methods = Methods::of(&[Method::Get, Method::Head]);
const KEY: Methods = Methods::of(&[Method::Get, Method::Head, Method::Put, Method::Delete]);
const POST: Methods = Methods::of(&[Method::Post]);

#[rustfmt::skip]
pub(super) static ROUTES: [Route; 11] = [
    route(Path::Below("/kv/"), KEY, Handler::Kv,
        "values as raw bytes: /kv/{key}, ?ttl=SECONDS on PUT"),
    route(Path::Below("/files/"), READ, Handler::File, "files below the configured root"),
    route(Path::Exact("/compute/digest"), POST, Handler::Digest,
        "argon2id of the body: ?m=KIBIBYTES&amp;t=PASSES&amp;p=LANES&amp;salt=HEX"),
    route(Path::Exact("/compute/compress"), POST, Handler::Compress,
        "the body compressed: ?algorithm=zstd|gzip&amp;level=N"),
    route(Path::Exact("/"), READ, Handler::Index, "this page"),
    route(Path::Exact("/healthz"), READ, Handler::Health, "200 while the process runs"),
    route(Path::Exact("/readyz"), READ, Handler::Ready, "200 while it takes on work, else 503"),
    route(Path::Exact("/metrics"), READ, Handler::Metrics, "counters and histograms, Prometheus"),
    route(Path::Exact("/stats"), READ, Handler::Stats, "counters and quantiles, JSON"),
    route(Path::Exact("/debug/operations"), READ, Handler::Operations, "operations in flight"),
    route(Path::Exact("/debug/tasks"), READ, Handler::Tasks, "tasks, and what each waits for"),
];

const fn route(path: Path, methods: Methods, handler: Handler, about: &'static str) -> Route {
    Route { path, methods, handler, about }
}

impl Path {
    /// The text of the path, or of its prefix.
    #[cfg(test)]
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Exact(text) | Self::Below(text) => text,
        }
    }

    #[inline]
    fn rest(self, path: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Below(prefix) => path.strip_prefix(prefix.as_bytes()),
            Self::Exact(text) => (path == text.as_bytes()).then_some(&[]),
        }
    }
}

/// The route of a path, and what follows its prefix.
#[inline]
pub(super) fn find(path: &[u8]) -> Option<(&'static Route, &[u8])> {
    ROUTES.iter().find_map(|route| Some((route, route.path.rest(path)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_find_their_handlers_and_what_follows() {
        for (path, handler, rest) in [
            ("/kv/a/b", Handler::Kv, "a/b"),
            ("/kv/", Handler::Kv, ""),
            ("/files/x", Handler::File, "x"),
            ("/", Handler::Index, ""),
            ("/stats", Handler::Stats, ""),
        ] {
            let (route, found) = find(path.as_bytes()).unwrap();
            assert_eq!((route.handler, found), (handler, rest.as_bytes()), "{path}");
        }
        for path in ["/kv", "/stats/", "/statsx", "//", "/KV/a", "/%6bv/a"] {
            assert!(find(path.as_bytes()).is_none(), "{path}");
        }
    }

    #[test]
    fn methods_are_listed_for_allow() {
        assert_eq!(KEY.list(), "GET, HEAD, PUT, DELETE, OPTIONS");
        assert_eq!(POST.list(), "POST, OPTIONS");
        assert!(!POST.contain(Method::Get));
    }
}
