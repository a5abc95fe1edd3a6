//! Streams and shards under the traits of other runtimes, so that what is written for those runs
//! here unchanged.
//!
//! - feature `tokio-io`: [`Tokio`], for libraries that take `tokio::io::AsyncRead` and `AsyncWrite`.
//!   The traits alone: what needs tokio's reactor or timer does not run here.
//! - feature `hyper`: [`hyper`](mod@hyper), for hyper 1 and what stands on it, such as axum's
//!   routers.
//!
//! The traits of futures-io need no wrapper: streams have them ([`crate::io`]).

#[cfg(feature = "hyper")]
pub mod hyper;
#[cfg(feature = "tokio-io")]
mod tokio_io;

#[cfg(feature = "tokio-io")]
pub use self::tokio_io::Tokio;
