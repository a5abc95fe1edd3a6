//! SIGHUP: what a newly read configuration changes in a running daemon, and what it can not.
//!
//! Called on the signal thread. Invariant: a configuration that does not resolve changes nothing.

use std::path::PathBuf;

use super::logging::LevelSwitch;
use super::settings::{Given, Resolved, Settings};

/// What is needed to read the configuration again.
#[derive(Debug)]
pub struct Reloader {
    config: Option<PathBuf>,
    given: Vec<Given>,
    current: Resolved,
    level: LevelSwitch,
}

impl Reloader {
    /// A reloader for a daemon that was started with these.
    pub fn new(
        config: Option<PathBuf>,
        given: Vec<Given>,
        current: Resolved,
        level: LevelSwitch,
    ) -> Self {
        Self { config, given, current, level }
    }

    /// The settings in force: the ones at start, with what was changed since.
    pub fn settings(&self) -> &Settings {
        &self.current.settings
    }

    /// Reads the configuration again, takes over what can change live, and says what can not.
    /// The keys that have changed are for the caller to act on.
    pub fn reload(&mut self) -> Vec<&'static str> {
        let Some(path) = &self.config else {
            tracing::warn!(
                "SIGHUP: there is no configuration file to re-read; start with --config"
            );
            return Vec::new();
        };
        match super::load(Some(path), &self.given) {
            Ok(newer) => self.apply(&newer),
            Err(error) => {
                for reason in error.0 {
                    tracing::error!("SIGHUP: {reason}");
                }
                tracing::error!("SIGHUP: nothing has changed");
                Vec::new()
            }
        }
    }

    fn apply(&mut self, newer: &Resolved) -> Vec<&'static str> {
        let mut accepted = self.current.clone();
        let (mut differing, mut changed) = (0, Vec::new());
        for (index, (old, new)) in self.current.chosen.iter().zip(&newer.chosen).enumerate() {
            if old.text == new.text {
                continue;
            }
            differing += 1;
            let (key, old_text, new_text) = (old.row.key, old.shown(), new.shown());
            if old.row.live {
                tracing::info!("SIGHUP: {key} is now {new_text:?} (was {old_text:?})");
                accepted.chosen[index] = new.clone();
                changed.push(key);
            } else {
                tracing::warn!(
                    "SIGHUP: {key} stays {old_text:?}: changing it to {new_text:?} needs a restart"
                );
            }
        }
        if differing == 0 {
            tracing::info!("SIGHUP: the configuration is what it was");
        }
        accepted.settings = accepted.settings.with_live(&newer.settings);
        self.level.set(&accepted.settings.log_level);
        self.current = accepted;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::settings::LogFormat;
    use crate::daemon::{load, logging};
    use std::fs;
    use std::time::Duration;

    #[test]
    fn live_settings_change_and_others_stay() {
        let name = format!("annulus-reload-{}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        let write = |text: &str| fs::write(&path, text).expect("a writable folder");
        write("[shutdown]\ndrain_timeout = \"1s\"\n[runtime]\nshards = 1\n");
        let start = load(Some(&path), &[]).expect("valid");
        let level = logging::start(LogFormat::Text, "info");
        let mut reloader = Reloader::new(Some(path.clone()), Vec::new(), start.clone(), level);

        write("[shutdown]\ndrain_timeout = \"2s\"\n[runtime]\nshards = 2\n");
        assert_eq!(reloader.reload(), ["shutdown.drain_timeout"]);
        assert_eq!(reloader.settings().drain_timeout, Duration::from_secs(2));
        assert_eq!(reloader.settings().shards, start.settings.shards);

        write("[shutdown]\ndrain_timeout = 3\n");
        assert_eq!(reloader.reload(), [""; 0]);
        assert_eq!(reloader.settings().drain_timeout, Duration::from_secs(2));
        let _ = fs::remove_file(&path);
    }
}
