//! Every setting of the program: one table row each, resolved and validated in one place.
//!
//! Flags and configuration files give plain texts ([`Given`]); [`resolve`] picks one per row (flag
//! over environment over file over default) and turns them into typed [`Settings`], once.
//!
//! Invariant: what is not in [`TABLE`] is no setting, and every row of it is read by [`resolve`].

mod store;

use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::unit::{self, Refusal, Unit};
use crate::engine::Engine;
use crate::limits;
use crate::shard::placement::{Count, Placement};

pub use store::StoreSettings;

/// One setting.
#[derive(Debug)]
pub struct Row {
    /// Section and key, as in TOML: `resp.listen`.
    pub key: &'static str,
    /// The flag of the same meaning, without its dashes.
    pub flag: Option<&'static str>,
    /// What kind of value it takes.
    pub unit: Unit,
    /// The value when nothing else is given, as it would be written.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
    /// Whether SIGHUP changes it in a running daemon.
    pub live: bool,
}

const fn row(key: &'static str, unit: Unit, default: &'static str, help: &'static str) -> Row {
    Row { key, flag: None, unit, default, help, live: false }
}

impl Row {
    const fn flag(self, flag: &'static str) -> Self {
        Self { flag: Some(flag), ..self }
    }

    const fn live(self) -> Self {
        Self { live: true, ..self }
    }
}

/// All settings, in the order in which they are printed.
pub static TABLE: &[Row] = &[
    row("runtime.engine", Unit::Word, "auto", "auto, uring, epoll or threads").flag("engine"),
    row("runtime.shards", Unit::CountOrAuto, "auto", "shards, one pinned thread each")
        .flag("shards"),
    row("runtime.cpu_cores", Unit::CountOrAuto, "auto", "cores kept for CPU-heavy work")
        .flag("cpu-cores"),
    row("runtime.placement", Unit::Word, "pinned", "pinned, floating, or CPUs such as 0-3,8")
        .flag("placement"),
    row("runtime.ring_entries", Unit::Number, "256", "submission queue entries of each ring"),
    row("runtime.receive_buffers", Unit::Number, "64", "receive buffers of each shard"),
    row("runtime.receive_buffer_size", Unit::Bytes, "64KiB", "size of each receive buffer"),
    row("runtime.cpu_queue", Unit::Number, "1024", "jobs that may wait for the cpu pool"),
    row("runtime.histograms", Unit::Word, "on", "on, or off to measure what they cost"),
    row("store.data", Unit::Path, "./annulus-data", "directory of the store; none: memory only")
        .flag("data"),
    row("store.fsync", Unit::Word, "interval", "when writes are durable: always, interval, none")
        .flag("fsync")
        .live(),
    row("store.fsync_interval", Unit::Duration, "1s", "most time of writes that can be lost")
        .live(),
    row("store.segment_size", Unit::Bytes, "64MiB", "size of each file of the log"),
    row(
        "store.snapshot_log_size",
        Unit::Bytes,
        "1GiB",
        "log that makes a snapshot due; 0B: none does",
    )
    .live(),
    row(
        "store.snapshot_every",
        Unit::Duration,
        "1h",
        "time that makes a snapshot due; 0s: none does",
    )
    .live(),
    row(
        "store.snapshot_rate",
        Unit::Bytes,
        "64MiB",
        "most a snapshot writes a second; 0B: no limit",
    )
    .live(),
    row("store.memory_max", Unit::Bytes, "0B", "most memory of keys and values; 0B: no limit")
        .live(),
    row("store.eviction", Unit::Word, "noeviction", "what gives way there, by Redis's names")
        .live(),
    row("resp.listen", Unit::Address, "127.0.0.1:6380", "address for the Redis protocol, or off")
        .flag("resp"),
    row("resp.password", Unit::Secret, "", "password that AUTH asks for; empty for none").live(),
    row("resp.clients_count_max", Unit::Number, "10000", "most clients at a time").live(),
    row("resp.idle_timeout", Unit::Duration, "0s", "longest silence of a client; 0s for any")
        .live(),
    row("resp.bulk_size_max", Unit::Bytes, "512MiB", "largest argument of a command").live(),
    row("resp.query_size_max", Unit::Bytes, "1GiB", "most bytes a client may send ahead"),
    row("resp.output_size_high", Unit::Bytes, "64KiB", "replies held back before they are sent"),
    row("http.listen", Unit::Address, "127.0.0.1:8080", "address for HTTP, or off").flag("http"),
    row("http.root", Unit::Path, "", "folder served below /files/; empty for none").flag("root"),
    row("http.header_timeout", Unit::Duration, "10s", "longest wait for a complete head"),
    row("http.body_timeout", Unit::Duration, "30s", "longest wait for a complete body"),
    row("http.idle_timeout", Unit::Duration, "60s", "longest wait between two requests"),
    row("http.send_timeout", Unit::Duration, "30s", "longest wait for a peer that does not read"),
    row("http.head_size_max", Unit::Bytes, "16KiB", "largest request line with all its fields"),
    row("http.target_size_max", Unit::Bytes, "8KiB", "largest request target"),
    row("http.field_count_max", Unit::Number, "100", "most header fields of a request"),
    row("http.body_size_max", Unit::Bytes, "16MiB", "largest request body"),
    row("shutdown.drain_timeout", Unit::Duration, "10s", "longest wait for requests in hand")
        .flag("drain-timeout")
        .live(),
    row(
        "shutdown.teardown_timeout",
        Unit::Duration,
        "5s",
        "longest wait for the kernel at the end",
    ),
    row("log.format", Unit::Word, "text", "text or json").flag("log-format"),
    row("log.level", Unit::Word, "info", "error, warn, info, debug, trace, or a filter by module")
        .flag("log-level")
        .live(),
];

/// The row of a key.
pub fn find_row(key: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.key == key)
}

/// Who gave a value. Later variants win over earlier ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody: the table's own.
    Default,
    /// A configuration file.
    File {
        /// Which.
        path: Arc<Path>,
        /// Where in it, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(&'static str),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => write!(formatter, "default"),
            Self::File { path, line } => write!(formatter, "{}:{line}", path.display()),
            Self::Environment(name) => write!(formatter, "environment {name}"),
            Self::Flag(name) => write!(formatter, "--{name}"),
        }
    }
}

/// A value as somebody wrote it.
#[derive(Clone, Debug)]
pub struct Given {
    /// The setting.
    pub row: &'static Row,
    /// The value, not yet looked at.
    pub text: String,
    /// Who wrote it.
    pub origin: Origin,
}

impl Given {
    /// The value for messages: a secret is not shown.
    pub fn shown(&self) -> &str {
        if self.row.unit == Unit::Secret && !self.text.is_empty() { "********" } else { &self.text }
    }
}

/// Why settings are refused: every reason, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError(pub Vec<String>);

impl fmt::Display for SettingsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for SettingsError {}

/// The program's settings, resolved and valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The engine asked for.
    pub engine: Engine,
    /// How many shards.
    pub shards: Count,
    /// How many cores for the cpu pool.
    pub cpu_cores: Count,
    /// Whether and where threads are pinned.
    pub placement: Placement,
    /// Submission queue entries of each ring.
    pub ring_entries: u32,
    /// Receive buffers of each shard.
    pub receive_buffers: u16,
    /// Bytes of each receive buffer.
    pub receive_buffer_bytes: u32,
    /// Jobs that may wait for the cpu pool.
    pub cpu_queue: usize,
    /// Whether durations are recorded.
    pub histograms: bool,
    /// Where the store is kept, and how.
    pub store: StoreSettings,
    /// Where RESP listens, and within which bounds.
    pub resp: RespSettings,
    /// Where HTTP listens, and within which bounds.
    pub http: HttpSettings,
    /// How long a shutdown waits for requests in hand.
    pub drain_timeout: Duration,
    /// How long the end waits for the kernel to give back the last operation.
    pub teardown_timeout: Duration,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// Which log lines are written: a level or a filter by module.
    pub log_level: String,
}

impl Settings {
    /// These settings, with those of `newer` that can change in a running daemon.
    #[must_use]
    pub fn with_live(&self, newer: &Self) -> Self {
        let resp = RespSettings {
            password: newer.resp.password.clone(),
            clients_count_max: newer.resp.clients_count_max,
            idle_timeout: newer.resp.idle_timeout,
            bulk_bytes_max: newer.resp.bulk_bytes_max,
            ..self.resp.clone()
        };
        let (log_level, store) = (newer.log_level.clone(), self.store.with_live(&newer.store));
        Self { resp, store, drain_timeout: newer.drain_timeout, log_level, ..self.clone() }
    }
}

/// The settings of the RESP service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RespSettings {
    /// Where it listens.
    pub listen: Option<SocketAddr>,
    /// The password that AUTH asks for.
    pub password: Option<String>,
    /// Clients at a time.
    pub clients_count_max: usize,
    /// Between two requests; zero for any time.
    pub idle_timeout: Duration,
    /// Bytes of one argument.
    pub bulk_bytes_max: usize,
    /// Bytes sent ahead of being decoded.
    pub query_bytes_max: usize,
    /// Bytes of replies after which they are sent before more requests are decoded.
    pub output_bytes_high: usize,
}

/// The settings of the HTTP service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// Where it listens.
    pub listen: Option<SocketAddr>,
    /// The folder below `/files/`.
    pub root: Option<PathBuf>,
    /// From the first byte of a head to its last.
    pub header_timeout: Duration,
    /// From the end of the head to the end of the body.
    pub body_timeout: Duration,
    /// Between two requests.
    pub idle_timeout: Duration,
    /// Without progress while sending.
    pub send_timeout: Duration,
    /// Bytes of request line and fields.
    pub head_bytes_max: usize,
    /// Bytes of the request target.
    pub target_bytes_max: usize,
    /// Header fields.
    pub field_count_max: usize,
    /// Bytes of a request body.
    pub body_bytes_max: u64,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Settings with the text and the origin that each was read from.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The typed settings.
    pub settings: Settings,
    /// One for each row of the table, in its order.
    pub chosen: Vec<Given>,
}

impl Resolved {
    /// The settings as a TOML document that says where each value comes from.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        let mut section = "";
        for given in &self.chosen {
            let (in_section, key) = given.row.key.split_once('.').unwrap_or(("", given.row.key));
            if in_section != section {
                let blank = if section.is_empty() { "" } else { "\n" };
                section = in_section;
                let _ = writeln!(out, "{blank}[{section}]");
            }
            let bare = given.row.unit == Unit::Number
                || given.row.unit == Unit::CountOrAuto && given.text != "auto";
            let value = if bare { given.text.clone() } else { quoted(given.shown()) };
            let _ = writeln!(out, "{key} = {value} # {}", given.origin);
        }
        out
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Picks one value per row and turns them into settings, or says all that is wrong.
pub fn resolve(given: Vec<Given>) -> Result<Resolved, SettingsError> {
    let mut reader = Reader { chosen: choose(given), wrong: Vec::new() };
    let settings = reader.settings();
    if let Some(settings) = &settings {
        reader.wrong.extend(contradictions(settings));
        reader.wrong.extend(store::contradictions(&settings.store, &reader.chosen));
    }
    match settings {
        Some(settings) if reader.wrong.is_empty() => {
            Ok(Resolved { settings, chosen: reader.chosen })
        }
        _ => Err(SettingsError(reader.wrong)),
    }
}

fn choose(given: Vec<Given>) -> Vec<Given> {
    let mut chosen: Vec<Given> = TABLE
        .iter()
        .map(|row| Given { row, text: row.default.to_owned(), origin: Origin::Default })
        .collect();
    for value in given {
        let slot = chosen.iter_mut().find(|have| std::ptr::eq(have.row, value.row));
        if let Some(slot) = slot.filter(|have| have.origin <= value.origin) {
            *slot = value;
        }
    }
    chosen
}

fn contradictions(settings: &Settings) -> Vec<String> {
    let mut wrong = Vec::new();
    let (resp, http) = (settings.resp.listen, settings.http.listen);
    if resp.is_none() && http.is_none() {
        wrong.push("resp.listen and http.listen are both off: there is nothing to serve".into());
    }
    if let (Some(resp), Some(http)) = (resp, http)
        && resp == http
        && resp.port() != 0
    {
        wrong.push(format!("resp.listen and http.listen are both {resp}: give each its own port"));
    }
    if settings.http.target_bytes_max >= settings.http.head_bytes_max {
        wrong.push("http.target_size_max must be below http.head_size_max".into());
    }
    wrong
}

struct Reader {
    chosen: Vec<Given>,
    wrong: Vec<String>,
}

const MILLISECOND: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 3_600);

impl Reader {
    /// `None` if a value was refused; then `wrong` says which and why.
    fn settings(&mut self) -> Option<Settings> {
        // Every row is read before the first `?`, so that all errors are reported at once.
        let engine = self.read("runtime.engine", unit::engine);
        let shards = self.read("runtime.shards", unit::count);
        let cpu_cores = self.read("runtime.cpu_cores", unit::count);
        let placement = self.read("runtime.placement", unit::placement);
        let ring_entries = self.number("runtime.ring_entries", 32, limits::RING_ENTRIES_MAX.into());
        let receive_buffers =
            self.number("runtime.receive_buffers", 8, limits::BUFFERS_COUNT_MAX.into());
        let receive_buffer_bytes =
            self.bytes("runtime.receive_buffer_size", 4_096, limits::BUFFER_BYTES_MAX.into());
        let cpu_queue = self.number("runtime.cpu_queue", 1, 1 << 20);
        let histograms = self.read("runtime.histograms", on_or_off);
        let store = self.store();
        let resp = self.resp();
        let http = self.http();
        let drain_timeout = self.duration("shutdown.drain_timeout", Duration::ZERO);
        let teardown_timeout = self.duration("shutdown.teardown_timeout", MILLISECOND);
        let log_format = self.read("log.format", log_format);
        let log_level = self.read("log.level", super::logging::valid_filter);
        Some(Settings {
            engine: engine?,
            shards: shards?,
            cpu_cores: cpu_cores?,
            placement: placement?,
            ring_entries: u32::try_from(ring_entries?).ok()?,
            receive_buffers: u16::try_from(receive_buffers?).ok()?,
            receive_buffer_bytes: u32::try_from(receive_buffer_bytes?).ok()?,
            cpu_queue: usize::try_from(cpu_queue?).ok()?,
            histograms: histograms?,
            store: store?,
            resp: resp?,
            http: http?,
            drain_timeout: drain_timeout?,
            teardown_timeout: teardown_timeout?,
            log_format: log_format?,
            log_level: log_level?,
        })
    }

    fn resp(&mut self) -> Option<RespSettings> {
        let listen = self.read("resp.listen", unit::address);
        let password = self.read("resp.password", unit::secret);
        let clients_count_max = self.number("resp.clients_count_max", 1, u32::MAX.into());
        let idle_timeout = self.duration("resp.idle_timeout", Duration::ZERO);
        let bulk_bytes_max = self.bytes("resp.bulk_size_max", 1 << 20, 512 << 20);
        let query_bytes_max = self.bytes("resp.query_size_max", 1 << 20, 1 << 30);
        let output_bytes_high = self.bytes("resp.output_size_high", 1 << 10, 1 << 30);
        Some(RespSettings {
            listen: listen?,
            password: password?,
            clients_count_max: usize::try_from(clients_count_max?).ok()?,
            idle_timeout: idle_timeout?,
            bulk_bytes_max: usize::try_from(bulk_bytes_max?).ok()?,
            query_bytes_max: usize::try_from(query_bytes_max?).ok()?,
            output_bytes_high: usize::try_from(output_bytes_high?).ok()?,
        })
    }

    fn http(&mut self) -> Option<HttpSettings> {
        let listen = self.read("http.listen", unit::address);
        let root = self.read("http.root", unit::path);
        let header_timeout = self.duration("http.header_timeout", MILLISECOND);
        let body_timeout = self.duration("http.body_timeout", MILLISECOND);
        let idle_timeout = self.duration("http.idle_timeout", MILLISECOND);
        let send_timeout = self.duration("http.send_timeout", MILLISECOND);
        let head_bytes_max = self.bytes("http.head_size_max", 1 << 10, 1 << 20);
        let target_bytes_max = self.bytes("http.target_size_max", 256, 1 << 19);
        let field_count_max = self.number("http.field_count_max", 8, 128);
        let body_bytes_max = self.bytes("http.body_size_max", 0, 1 << 40);
        Some(HttpSettings {
            listen: listen?,
            root: root?,
            header_timeout: header_timeout?,
            body_timeout: body_timeout?,
            idle_timeout: idle_timeout?,
            send_timeout: send_timeout?,
            head_bytes_max: usize::try_from(head_bytes_max?).ok()?,
            target_bytes_max: usize::try_from(target_bytes_max?).ok()?,
            field_count_max: usize::try_from(field_count_max?).ok()?,
            body_bytes_max: body_bytes_max?,
        })
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Refusal>,
    ) -> Option<T> {
        let given = self.chosen.iter().find(|given| given.row.key == key);
        let given = given.expect("resolve reads only keys of the table");
        match parse(&given.text) {
            Ok(value) => Some(value),
            Err(refusal) => {
                let (origin, shown) = (&given.origin, given.shown());
                self.wrong.push(format!("{origin}: {key} = {shown:?} {refusal}"));
                None
            }
        }
    }

    fn number(&mut self, key: &'static str, min: u64, max: u64) -> Option<u64> {
        self.read(key, |text| unit::number(text, min, max))
    }

    fn bytes(&mut self, key: &'static str, min: u64, max: u64) -> Option<u64> {
        self.read(key, |text| unit::bytes(text, min, max))
    }

    fn duration(&mut self, key: &'static str, min: Duration) -> Option<Duration> {
        self.read(key, |text| unit::duration(text, min, DAY))
    }
}

fn on_or_off(text: &str) -> Result<bool, Refusal> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("is neither on nor off".into()),
    }
}

fn log_format(text: &str) -> Result<LogFormat, Refusal> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("is no log format; use text or json".into()),
    }
}
