//! Values as people write them: durations, sizes, counts, addresses.
//!
//! Used where settings are resolved. Invariant: a number that has a unit is refused without it,
//! and a refusal says what would be accepted.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::engine::Engine;
use crate::shard::placement::{Count, Placement};
use crate::shard::topology::CpuSet;

/// What a setting's value is, and with that how TOML must write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// One of some words.
    Word,
    /// A whole number, or `auto`.
    CountOrAuto,
    /// A whole number.
    Number,
    /// A number with a unit of time.
    Duration,
    /// A number with a unit of size.
    Bytes,
    /// IP address and port, or `off`.
    Address,
    /// A file or folder, or empty for none.
    Path,
    /// Anything, shown nowhere.
    Secret,
}

/// How a TOML document wrote a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// In quotes.
    Quoted,
    /// A bare whole number.
    Integer,
    /// Anything else, by the name of its type.
    Other(&'static str),
}

impl Unit {
    /// Whether TOML may write the value so. Flags are always text.
    pub fn accepts(self, written: Written) -> bool {
        match written {
            Written::Quoted => self != Self::Number,
            Written::Integer => matches!(self, Self::Number | Self::CountOrAuto),
            Written::Other(_) => false,
        }
    }

    /// What the value should look like, for messages.
    pub fn expected(self) -> &'static str {
        match self {
            Self::Word => "a word in quotes",
            Self::CountOrAuto => "a whole number, or \"auto\"",
            Self::Number => "a whole number without quotes",
            Self::Duration => "a duration with its unit in quotes, such as \"30s\" or \"250ms\"",
            Self::Bytes => "a size with its unit in quotes, such as \"64KiB\" or \"16MiB\"",
            Self::Address => {
                "an IP address and a port in quotes, such as \"127.0.0.1:6380\", or \"off\""
            }
            Self::Path => "a path in quotes",
            Self::Secret => "text in quotes",
        }
    }
}

/// Why a value is refused: the end of a sentence that began with the setting and its value.
pub type Refusal = String;

/// `auto`, `uring`, `epoll` or `threads`.
pub fn engine(text: &str) -> Result<Engine, Refusal> {
    text.parse().map_err(|_| "is no engine; use auto, uring, epoll or threads".into())
}

/// A whole number or `auto`.
pub fn count(text: &str) -> Result<Count, Refusal> {
    if text == "auto" {
        return Ok(Count::Auto);
    }
    text.parse().map(Count::Exactly).map_err(|_| "is not a whole number or auto".into())
}

/// `pinned`, `floating` or a list of CPUs.
pub fn placement(text: &str) -> Result<Placement, Refusal> {
    match text {
        "pinned" => Ok(Placement::Pinned),
        "floating" => Ok(Placement::Floating),
        _ => match CpuSet::parse(text) {
            Some(cpus) if !cpus.0.is_empty() => Ok(Placement::Cpus(cpus)),
            _ => Err("is no placement; use pinned, floating, or CPUs such as 0-3,8".into()),
        },
    }
}

/// A whole number within bounds, both included.
pub fn number(text: &str, min: u64, max: u64) -> Result<u64, Refusal> {
    let value = text.parse().map_err(|_| Refusal::from("is not a whole number"))?;
    if !(min..=max).contains(&value) {
        return Err(format!("is out of range; use {min} to {max}"));
    }
    Ok(value)
}

const DURATIONS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// A duration such as `250ms`, `30s`, `5m`, `1h`, within bounds, both included.
pub fn duration(text: &str, min: Duration, max: Duration) -> Result<Duration, Refusal> {
    let refused = "is not a duration; write a number and ms, s, m or h, such as 30s";
    let millis = with_unit(text, &DURATIONS).ok_or(refused)?;
    let value = Duration::from_millis(millis);
    if value < min || value > max {
        return Err(format!("is out of range; use {min:?} to {max:?}"));
    }
    Ok(value)
}

const SIZES: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// A size such as `512B`, `64KiB`, `16MiB`, `1GiB`, within bounds, both included.
pub fn bytes(text: &str, min: u64, max: u64) -> Result<u64, Refusal> {
    let refused = "is not a size; write a number and B, KiB, MiB or GiB, such as 64KiB";
    let value = with_unit(text, &SIZES).ok_or(refused)?;
    if !(min..=max).contains(&value) {
        return Err(format!("is out of range; use {} to {}", size(min), size(max)));
    }
    Ok(value)
}

/// A size as it would be written in a configuration.
pub fn size(bytes: u64) -> String {
    let fits = |(_, unit): &&(&str, u64)| bytes >= *unit && bytes.is_multiple_of(*unit);
    let (name, unit) = SIZES.iter().rev().find(fits).unwrap_or(&SIZES[0]);
    format!("{}{name}", bytes / unit)
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, name) = text.split_at(digits);
    let (_, unit) = units.iter().find(|(unit, _)| *unit == name.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*unit)
}

/// IP address and port; `off` is none.
pub fn address(text: &str) -> Result<Option<SocketAddr>, Refusal> {
    if text == "off" {
        return Ok(None);
    }
    let refused = "is not an IP address and port; write for example 127.0.0.1:6380, or off";
    text.parse().map(Some).map_err(|_| refused.into())
}

/// A path; the empty text is none.
pub fn path(text: &str) -> Result<Option<PathBuf>, Refusal> {
    Ok((!text.is_empty()).then(|| PathBuf::from(text)))
}

/// A text; the empty one is none.
pub fn secret(text: &str) -> Result<Option<String>, Refusal> {
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_they_know() {
        let parse = |text| duration(text, Duration::ZERO, Duration::from_secs(7_200));
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse("5 m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse("2h"), Ok(Duration::from_secs(7_200)));
        for text in ["", "30", "s", "-1s", "1.5s", "30sec", "99999999999999999999s", "1d"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        let refusal = parse("3h").expect_err("too long");
        assert_eq!(refusal, "is out of range; use 0ns to 7200s");
    }

    #[test]
    fn sizes_are_powers_of_two_with_their_unit() {
        let parse = |text| bytes(text, 1, 1 << 40);
        assert_eq!(parse("512B"), Ok(512));
        assert_eq!(parse("64KiB"), Ok(65_536));
        assert_eq!(parse("16MiB"), Ok(16 << 20));
        assert_eq!(parse("1GiB"), Ok(1 << 30));
        for text in ["", "64", "64KB", "64kib", "KiB", "99999999999GiB"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        let refusal = bytes("1B", 4_096, 1 << 20).expect_err("too small");
        assert_eq!(refusal, "is out of range; use 4KiB to 1MiB");
    }

    #[test]
    fn counts_and_placements_have_words_of_their_own() {
        assert_eq!(count("auto"), Ok(Count::Auto));
        assert_eq!(count("3"), Ok(Count::Exactly(3)));
        assert!(count("three").is_err());
        assert_eq!(placement("pinned"), Ok(Placement::Pinned));
        assert_eq!(placement("floating"), Ok(Placement::Floating));
        assert_eq!(placement("0-1"), Ok(Placement::Cpus([0, 1].into_iter().collect())));
        assert!(placement("").is_err());
    }

    #[test]
    fn an_address_may_be_off() {
        assert_eq!(address("off"), Ok(None));
        assert_eq!(address("[::1]:80"), Ok(Some("[::1]:80".parse().expect("an address"))));
        for text in ["", "6380", "localhost:6380", "127.0.0.1"] {
            assert!(address(text).is_err(), "{text:?}");
        }
    }
}
