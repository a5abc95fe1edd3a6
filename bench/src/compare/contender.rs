//! Who is compared: names, what each can serve, and the command line that starts it.
//!
//! Invariant: a contender's name is unique; reports and targets find rows by it.

use std::fs;
use std::path::Path;
use std::process::Command;

use clap::ValueEnum;

use super::site::{FILES, KV_BYTES, KV_PATH, Site};
use super::workload::{Durability, Service};
use crate::failure::Failure;
use crate::{floor, peers};

/// The engines of annulus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Engine {
    /// io_uring, one ring per shard.
    Uring,
    /// Readiness by epoll.
    Epoll,
    /// A thread per connection.
    Threads,
}

impl Engine {
    /// The name that `--engine` takes.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Engine::Uring => "uring",
            Engine::Epoll => "epoll",
            Engine::Threads => "threads",
        }
    }
}

impl From<Engine> for annulus::Engine {
    fn from(engine: Engine) -> Self {
        match engine {
            Engine::Uring => annulus::Engine::Uring,
            Engine::Epoll => annulus::Engine::Epoll,
            Engine::Threads => annulus::Engine::Threads,
        }
    }
}

/// A server in the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    /// annulus with one of its engines.
    Annulus(Engine),
    /// A bare loop without runtime.
    Floor(floor::Engine),
    /// Another runtime.
    Peer(peers::Name),
    /// redis-server; without persistence, but for what is to be stored.
    Redis,
    /// nginx with one worker.
    Nginx,
    /// fio with its io_uring engine.
    Fio,
}

/// The daemon's configuration where it stores: what is measured is the log, or one snapshot.
const NO_SNAPSHOTS: &str = "[store]\nsnapshot_log_size = \"0B\"\nsnapshot_every = \"0s\"\n";

impl Contender {
    /// The name in tables, logs and targets.
    pub(crate) fn name(self) -> String {
        match self {
            Contender::Annulus(engine) => format!("annulus {}", engine.text()),
            Contender::Floor(floor::Engine::Ring) => "floor ring".into(),
            Contender::Floor(floor::Engine::Epoll) => "floor epoll".into(),
            Contender::Floor(floor::Engine::Threads) => "floor threads".into(),
            Contender::Peer(name) => name.text().into(),
            Contender::Redis => "redis".into(),
            Contender::Nginx => "nginx".into(),
            Contender::Fio => "fio".into(),
        }
    }

    /// Whether it can serve this at all.
    pub(crate) fn serves(self, service: Service) -> bool {
        match self {
            Contender::Annulus(_) => true,
            Contender::Floor(_) => matches!(service, Service::Echo | Service::Resp),
            Contender::Peer(peers::Name::Tokio) => {
                matches!(service, Service::Echo | Service::Disk)
            }
            Contender::Peer(_) => service == Service::Echo,
            Contender::Fio => service == Service::Disk,
            Contender::Redis => matches!(service, Service::Resp | Service::Stored(_)),
            Contender::Nginx => service == Service::Http,
        }
    }

    /// The command that makes it serve `service` on 127.0.0.1:`port`; what it stores goes to
    /// `data`.
    pub(crate) fn command(
        self,
        service: Service,
        port: u16,
        site: &Site,
        data: Option<&Path>,
    ) -> Result<Command, Failure> {
        let address = format!("127.0.0.1:{port}");
        let mut command = match self {
            Contender::Annulus(engine) if service == Service::Echo => {
                let mut command = Command::new(&site.bench);
                command.args(["peer", "annulus", "--engine", engine.text(), "--listen", &address]);
                command
            }
            Contender::Annulus(engine) => daemon(engine, service, &address, site, data)?,
            Contender::Floor(engine) => {
                let mut command = Command::new(&site.bench);
                let protocol = if service == Service::Echo { "echo" } else { "resp" };
                let engine = match engine {
                    floor::Engine::Ring => "ring",
                    floor::Engine::Epoll => "epoll",
                    floor::Engine::Threads => "threads",
                };
                command.args(["floor", "--engine", engine, "--protocol", protocol]);
                command.args(["--listen", &address]);
                command
            }
            Contender::Peer(name) => {
                let mut command = Command::new(&site.bench);
                command.args(["peer", name.text(), "--listen", &address]);
                command
            }
            Contender::Redis => redis(service, port, data),
            Contender::Nginx => nginx(port, &site.directory)?,
            Contender::Fio => return Err(Failure::Failed("fio is no server".into())),
        };
        command.current_dir(&site.directory);
        Ok(command)
    }
}

fn daemon(
    engine: Engine,
    service: Service,
    address: &str,
    site: &Site,
    data: Option<&Path>,
) -> Result<Command, Failure> {
    let (resp, http) = match service {
        Service::Resp | Service::Stored(_) => (address, "off"),
        _ => ("off", address),
    };
    let mut command = Command::new(&site.annulus);
    command.args(["serve", "--engine", engine.text(), "--shards", "1"]);
    command.args(["--resp", resp, "--http", http, "--root"]).arg(site.directory.join(FILES));
    command.arg("--data").arg(data.unwrap_or(Path::new("none")));
    if let Service::Stored(durability) = service {
        let fsync = match durability {
            Durability::Always => "always",
            Durability::Interval => "interval",
            Durability::Never => "none",
        };
        let path = site.directory.join("annulus.toml");
        fs::write(&path, NO_SNAPSHOTS).map_err(|error| Failure::failed("annulus.toml", error))?;
        command.args(["--fsync", fsync, "--config"]).arg(path);
    }
    Ok(command)
}

/// redis-server, which like the daemon makes a snapshot only when it is told to.
fn redis(service: Service, port: u16, data: Option<&Path>) -> Command {
    let mut command = Command::new("redis-server");
    let port = port.to_string();
    command.args(["--port", &port, "--bind", "127.0.0.1", "--tcp-backlog", "4096", "--save", ""]);
    match service {
        Service::Stored(durability) => {
            let fsync = match durability {
                Durability::Always => "always",
                Durability::Interval => "everysec",
                Durability::Never => "no",
            };
            command.args(["--appendonly", "yes", "--appendfsync", fsync]);
            command.args(["--auto-aof-rewrite-percentage", "0"]);
        }
        _ => {
            command.args(["--appendonly", "no"]);
        }
    }
    if let Some(data) = data {
        command.arg("--dir").arg(data);
    }
    command
}

/// nginx with the same paths as the daemon's, and everything off that costs time.
fn nginx(port: u16, directory: &Path) -> Result<Command, Failure> {
    let body = String::from_utf8_lossy(&crate::load::command::payload(KV_BYTES)).into_owned();
    let files = directory.join(FILES);
    let prefix = directory.join("nginx");
    let config = format!(
        "worker_processes 1; daemon off; pid {prefix}/nginx.pid; error_log stderr crit;\n\
         events {{ worker_connections 8192; use epoll; }}\n\
         http {{\n\
           access_log off; default_type application/octet-stream;\n\
           client_body_temp_path {prefix}/body; proxy_temp_path {prefix}/proxy;\n\
           fastcgi_temp_path {prefix}/fastcgi; uwsgi_temp_path {prefix}/uwsgi;\n\
           scgi_temp_path {prefix}/scgi;\n\
           keepalive_timeout 600s; keepalive_requests 1000000000; tcp_nodelay on;\n\
           sendfile on; open_file_cache max=1000 inactive=600s; open_file_cache_valid 600s;\n\
           server {{\n\
             listen 127.0.0.1:{port} backlog=4096;\n\
             location = {KV_PATH} {{ return 200 \"{body}\"; }}\n\
             location /files/ {{ alias {files}/; }}\n\
           }}\n\
         }}\n",
        prefix = prefix.display(),
        files = files.display(),
    );
    let path = prefix.join("nginx.conf");
    fs::create_dir_all(&prefix)
        .and_then(|()| fs::write(&path, config))
        .map_err(|error| Failure::failed("write nginx.conf", error))?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(&prefix).arg("-c").arg(&path).args(["-e", "stderr"]);
    Ok(command)
}

/// Whether `program` is somewhere in `PATH`.
pub(crate) fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}
