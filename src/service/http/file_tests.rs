//! Files over real connections, on every engine.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::HttpSettings;
use super::tests::{get, on_every_engine};

/// A directory of its own, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("annulus-http-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn settings(&self) -> HttpSettings {
        HttpSettings { files_root: Some(self.0.clone()), ..HttpSettings::default() }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn files_small_and_large_are_served_in_whole_and_in_part() {
    let folder = Folder::new();
    let large: Vec<u8> = (0..1_000_000u32).map(|number| (number % 251) as u8).collect();
    std::fs::write(folder.0.join("large.bin"), &large).unwrap();
    std::fs::write(folder.0.join("small.txt"), "hello").unwrap();
    std::fs::write(folder.0.join("empty"), "").unwrap();
    on_every_engine(1, folder.settings(), |server| {
        for _ in 0..2 {
            let reply = server.ask(&get("/files/small.txt"));
            assert_eq!((reply.status, &reply.body[..]), (200, &b"hello"[..]));
            assert_eq!(reply.field("Content-Type"), Some("text/plain; charset=utf-8"));
            assert_eq!(server.ask(&get("/files/large.bin")).body, large);
            assert_eq!(server.ask(&get("/files/empty")).body, b"");
        }
        let tag = server.ask(&get("/files/small.txt")).field("ETag").unwrap().to_owned();
        let ask = |path: &str, field: &str| {
            server.ask(&format!("GET /files/{path} HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n"))
        };
        assert_eq!(ask("small.txt", &format!("If-None-Match: {tag}")).status, 304);
        let reply = ask("small.txt", "Range: bytes=1-3");
        assert_eq!((reply.status, &reply.body[..]), (206, &b"ell"[..]));
        let reply = ask("large.bin", "Range: bytes=500000-800000");
        assert_eq!((reply.status, &reply.body[..]), (206, &large[500_000..=800_000]));
        assert_eq!(ask("large.bin", "Range: bytes=1000000-").status, 416);
        let mut peer = server.connect();
        let range = "Range: bytes=500000-800000";
        peer.send(
            format!("GET /files/large.bin HTTP/1.1\r\nHost: a\r\n{range}\r\n\r\n").as_bytes(),
        );
        assert_eq!(peer.reply(false).body, &large[500_000..=800_000]);
        peer.send(b"HEAD /files/large.bin HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(peer.reply(true).field("Content-Length"), Some("1000000"));
        peer.send(get("/files/small.txt").as_bytes());
        assert_eq!(peer.reply(false).body, b"hello");
    });
}

#[test]
fn nothing_outside_of_the_root_is_served() {
    let folder = Folder::new();
    let root = folder.0.join("root");
    std::fs::create_dir_all(root.join("directory")).unwrap();
    std::fs::write(folder.0.join("secret"), "secret").unwrap();
    std::fs::write(root.join("open"), "open").unwrap();
    std::os::unix::fs::symlink("../secret", root.join("link")).unwrap();
    std::os::unix::fs::symlink("..", root.join("up")).unwrap();
    std::os::unix::fs::symlink("open", root.join("inside")).unwrap();
    let fifo = std::process::Command::new("mkfifo").arg(root.join("fifo")).status();
    assert!(fifo.unwrap().success());
    let settings = HttpSettings { files_root: Some(root), ..HttpSettings::default() };
    on_every_engine(1, settings, |server| {
        assert_eq!(server.ask(&get("/files/open")).status, 200);
        for path in [
            "../secret",
            "%2e%2e/secret",
            "..%2fsecret",
            "link",
            "up/secret",
            "inside",
            "directory",
            "directory/",
            "",
            "fifo",
            "missing",
            "open/more",
            "/etc/passwd",
        ] {
            assert_eq!(server.ask(&get(&format!("/files/{path}"))).status, 404, "{path}");
        }
        assert_eq!(server.ask(&get("/files/a%00b")).status, 400);
    });
}

#[test]
fn a_changed_file_is_seen_after_a_while() {
    let folder = Folder::new();
    let path = folder.0.join("a");
    let settings =
        HttpSettings { file_cache_valid: Duration::from_millis(20), ..folder.settings() };
    on_every_engine(1, settings, |server| {
        std::fs::write(&path, "before").unwrap();
        assert_eq!(server.ask(&get("/files/a")).body, b"before");
        std::fs::write(&path, "after that").unwrap();
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(server.ask(&get("/files/a")).body, b"after that");
        std::fs::remove_file(&path).unwrap();
        std::thread::sleep(Duration::from_millis(30));
        let mut peer = server.connect();
        for _ in 0..2 {
            peer.send(get("/files/a").as_bytes());
            assert_eq!(peer.reply(false).status, 404);
        }
    });
}
