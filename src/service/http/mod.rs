//! The HTTP service: keys, files, work for the cpu pool, and pages about the process itself.

mod compute;
mod file_cache;
mod files;
mod kv;
mod pages;
mod request;
mod router;
pub mod settings;

pub use pages::About;
