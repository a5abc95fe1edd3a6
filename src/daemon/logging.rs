//! Log lines on standard error, as text or JSON, with a level that can change while running.
//!
//! Started once by the program. Invariant: standard output carries only what the user asked for;
//! everything else goes through here.

use std::io;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use super::settings::LogFormat;
use super::unit::Refusal;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Checks a level, or a filter such as `info,annulus::driver=debug`.
///
/// The filter's own parser takes any word for the name of a module, so that a misspelt level
/// would silence everything else.
pub fn valid_filter(text: &str) -> Result<String, Refusal> {
    let is_level = |word: &str| LEVELS.contains(&word.to_ascii_lowercase().as_str());
    let plain = |part: &str| !part.contains(['=', ':', '[']);
    let unknown = text.split(',').map(str::trim).find(|part| plain(part) && !is_level(part));
    if unknown.is_some() {
        return Err("is no level; use error, warn, info, debug, trace or off".into());
    }
    match EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("is no filter: {error}")),
    }
}

/// Changes the level of the running program.
#[derive(Debug)]
pub struct LevelSwitch(reload::Handle<EnvFilter, Registry>);

impl LevelSwitch {
    /// From now on lines are chosen by `filter`, which [`valid_filter`] has accepted.
    pub fn set(&self, filter: &str) {
        // It fails only when the subscriber is gone, and with it all logging.
        let _ = self.0.reload(EnvFilter::new(filter));
    }
}

/// Starts logging. A second call in the same process changes nothing.
pub fn start(format: LogFormat, filter: &str) -> LevelSwitch {
    let (filter, handle) = reload::Layer::new(EnvFilter::new(filter));
    let lines = fmt::layer().with_writer(io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    LevelSwitch(handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_levels_or_modules_with_levels() {
        for text in ["info", "WARN", "off", "info,annulus::driver=debug", "annulus=trace"] {
            assert_eq!(valid_filter(text), Ok(text.to_owned()));
        }
        for text in ["", "verbose", "info,verbose", "annulus=loud"] {
            assert!(valid_filter(text).is_err(), "{text:?}");
        }
    }
}
