//! `POST /compute/digest` and `POST /compute/compress`: work for the cpu pool.
//!
//! The connection loop parses the parameters here, runs the job on the cpu pool and writes the
//! outcome. Invariant: parameters are checked against their limits before any work is queued, and
//! a job owns all that it touches.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _, Write as _};

use argon2::{Algorithm, Argon2, Block, Params, Version};

use crate::protocol::http1::Status;
use crate::protocol::http1::target::{parameters, parse_decimal};

use super::request::Request;

/// Memory of a digest, in KiB.
const MEMORY_KIB: Bounds = Bounds { min: 8, max: 64 * 1024, default: 19 * 1024 };
/// Passes over the memory.
const PASSES: Bounds = Bounds { min: 1, max: 16, default: 2 };
/// Lanes; they are computed one after the other.
const LANES: Bounds = Bounds { min: 1, max: 8, default: 1 };
/// Compression levels of zstd; those above 19 take memory out of proportion.
const ZSTD_LEVEL: Bounds = Bounds { min: 1, max: 19, default: 3 };
/// Compression levels of gzip.
const GZIP_LEVEL: Bounds = Bounds { min: 0, max: 9, default: 6 };

const SALT_BYTES: usize = 16;
const SALT_BYTES_MIN: usize = 8;
const SALT_BYTES_MAX: usize = 64;
const DIGEST_BYTES: usize = 32;

// RFC 9106 section 3.1: at least eight blocks of a KiB for each lane; checked again per request.
const _: () = assert!(MEMORY_KIB.default >= 8 * LANES.max);
const _: () = assert!(SALT_BYTES >= SALT_BYTES_MIN && SALT_BYTES <= SALT_BYTES_MAX);

/// What a parameter may be.
struct Bounds {
    min: u32,
    max: u32,
    default: u32,
}

/// Why a request for work is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) Status, pub(super) String);

/// A piece of work with all it needs.
#[derive(Debug)]
pub(super) enum Job {
    Digest { memory_kib: u32, passes: u32, lanes: u32, salt: Option<Vec<u8>>, content: Vec<u8> },
    Compress { algorithm: Compression, level: u32, content: Vec<u8> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    Zstd,
    Gzip,
}

/// What a job makes: a body and its type.
#[derive(Debug)]
pub(super) struct Product {
    pub(super) content_type: &'static str,
    pub(super) body: Vec<u8>,
}

impl Job {
    /// A digest as the query asks for it.
    pub(super) fn digest(query: &[u8], content: Vec<u8>) -> Result<Self, Refused> {
        let (mut memory_kib, mut passes) = (MEMORY_KIB.default, PASSES.default);
        let (mut lanes, mut salt) = (LANES.default, None);
        for (name, value) in parameters(query) {
            match name {
                b"m" => memory_kib = MEMORY_KIB.parse("m", value)?,
                b"t" => passes = PASSES.parse("t", value)?,
                b"p" => lanes = LANES.parse("p", value)?,
                b"salt" => salt = Some(parse_salt(value)?),
                _ => return Err(unknown(name)),
            }
        }
        if memory_kib < 8 * lanes {
            return Err(bad(format!("m must be at least 8 * p = {}", 8 * lanes)));
        }
        Ok(Self::Digest { memory_kib, passes, lanes, salt, content })
    }

    /// A compression as the query asks for it.
    pub(super) fn compress(query: &[u8], content: Vec<u8>) -> Result<Self, Refused> {
        let (mut algorithm, mut level) = (Compression::Zstd, None);
        for (name, value) in parameters(query) {
            match (name, value) {
                (b"algorithm", b"zstd") => algorithm = Compression::Zstd,
                (b"algorithm", b"gzip") => algorithm = Compression::Gzip,
                (b"algorithm", _) => return Err(bad("algorithm must be zstd or gzip".into())),
                (b"level", value) => level = Some(value),
                _ => return Err(unknown(name)),
            }
        }
        let bounds = match algorithm {
            Compression::Zstd => ZSTD_LEVEL,
            Compression::Gzip => GZIP_LEVEL,
        };
        let level = level.map_or(Ok(bounds.default), |value| bounds.parse("level", value))?;
        Ok(Self::Compress { algorithm, level, content })
    }

    /// Does the work. Takes milliseconds: call it on the cpu pool.
    pub(super) fn run(self) -> io::Result<Product> {
        match self {
            Self::Digest { memory_kib, passes, lanes, salt, content } => {
                let salt = salt.map_or_else(random_salt, Ok)?;
                digest(memory_kib, passes, lanes, &salt, &content)
            }
            Self::Compress { algorithm: Compression::Zstd, level, content } => {
                let body = zstd::bulk::compress(&content, level as i32)?;
                Ok(Product { content_type: "application/zstd", body })
            }
            Self::Compress { algorithm: Compression::Gzip, level, content } => {
                let level = flate2::Compression::new(level);
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(&content)?;
                Ok(Product { content_type: "application/gzip", body: encoder.finish()? })
            }
        }
    }
}

/// Answers with what a job made.
pub(super) fn respond(request: &Request<'_>, product: &Product, out: &mut Vec<u8>) {
    request
        .reply(out, Status::Ok)
        .field("Content-Type", product.content_type.as_bytes())
        .body(&product.body);
}

impl Bounds {
    fn parse(&self, name: &str, value: &[u8]) -> Result<u32, Refused> {
        parse_decimal(value)
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| (self.min..=self.max).contains(number))
            .ok_or_else(|| bad(format!("{name} must be from {} to {}", self.min, self.max)))
    }
}

fn bad(detail: String) -> Refused {
    Refused(Status::BadRequest, detail)
}

fn unknown(name: &[u8]) -> Refused {
    bad(format!("unknown parameter {}", name.escape_ascii()))
}

fn parse_salt(hex: &[u8]) -> Result<Vec<u8>, Refused> {
    let bytes = hex.chunks(2).map(|pair| match pair {
        [high, low] => {
            let value = |digit: u8| (digit as char).to_digit(16);
            Some((value(*high)? << 4 | value(*low)?) as u8)
        }
        _ => None,
    });
    bytes
        .collect::<Option<Vec<u8>>>()
        .filter(|salt| (SALT_BYTES_MIN..=SALT_BYTES_MAX).contains(&salt.len()))
        .ok_or_else(|| {
            bad(format!("salt must be {SALT_BYTES_MIN} to {SALT_BYTES_MAX} bytes in hexadecimal"))
        })
}

fn random_salt() -> io::Result<Vec<u8>> {
    let mut salt = vec![0; SALT_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut salt)?;
    Ok(salt)
}

fn digest(
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: &[u8],
    content: &[u8],
) -> io::Result<Product> {
    let invalid = |error: argon2::Error| io::Error::other(error.to_string());
    let params = Params::new(memory_kib, passes, lanes, Some(DIGEST_BYTES)).map_err(invalid)?;
    // The memory is asked for here, so that running out of it is an error and not an abort.
    let mut memory: Vec<Block> = Vec::new();
    memory.try_reserve_exact(params.block_count()).map_err(io::Error::other)?;
    memory.resize(params.block_count(), Block::default());
    let mut digest = [0; DIGEST_BYTES];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(content, salt, &mut digest, &mut memory)
        .map_err(invalid)?;
    let body = format!(
        "{{\"algorithm\":\"argon2id\",\"version\":19,\"m\":{memory_kib},\"t\":{passes},\
         \"p\":{lanes},\"salt\":\"{}\",\"digest\":\"{}\"}}\n",
        hex(salt),
        hex(&digest)
    );
    Ok(Product { content_type: "application/json", body: body.into_bytes() })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(job: Result<Job, Refused>) -> Vec<u8> {
        job.unwrap().run().unwrap().body
    }

    #[test]
    fn a_digest_is_the_one_that_the_reference_implementation_gives() {
        // echo -n password | argon2 somesalt -id -t 2 -k 65536 -p 1 -l 32 -r
        let job = Job::digest(b"m=65536&t=2&p=1&salt=736f6d6573616c74", b"password".to_vec());
        let text = String::from_utf8(body(job)).unwrap();
        assert!(text.contains(
            "\"digest\":\"09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7\""
        ));
        assert!(text.contains("\"salt\":\"736f6d6573616c74\""));
    }

    #[test]
    fn a_digest_without_salt_gets_a_new_one_each_time() {
        let digest = || body(Job::digest(b"m=8&t=1", b"a".to_vec()));
        assert_ne!(digest(), digest());
    }

    #[test]
    fn parameters_out_of_bounds_are_refused_with_their_bounds() {
        for (query, detail) in [
            ("m=7", "m must be from 8 to 65536"),
            ("m=65537", "m must be from 8 to 65536"),
            ("t=0", "t must be from 1 to 16"),
            ("p=9", "p must be from 1 to 8"),
            ("m=8&p=2", "m must be at least 8 * p = 16"),
            ("t=-1", "t must be from 1 to 16"),
            ("t=99999999999999999999", "t must be from 1 to 16"),
            ("salt=00", "salt must be 8 to 64 bytes in hexadecimal"),
            ("salt=zz00000000000000", "salt must be 8 to 64 bytes in hexadecimal"),
            ("salt=000000000000000", "salt must be 8 to 64 bytes in hexadecimal"),
            ("x=1", "unknown parameter x"),
        ] {
            let refused = Job::digest(query.as_bytes(), vec![]).unwrap_err();
            assert_eq!(refused, Refused(Status::BadRequest, detail.into()), "{query}");
        }
        for query in ["algorithm=lzma", "level=0", "algorithm=gzip&level=10", "a=b"] {
            assert!(Job::compress(query.as_bytes(), vec![]).is_err(), "{query}");
        }
    }

    #[test]
    fn what_is_compressed_comes_back() {
        let content = b"a line of text\n".repeat(100);
        let zstd = body(Job::compress(b"level=5", content.clone()));
        assert!(zstd.len() < content.len() / 5);
        assert_eq!(zstd::bulk::decompress(&zstd, content.len()).unwrap(), content);
        for query in ["algorithm=gzip", "level=9&algorithm=gzip"] {
            let gzip = body(Job::compress(query.as_bytes(), content.clone()));
            let mut back = Vec::new();
            flate2::read::GzDecoder::new(&gzip[..]).read_to_end(&mut back).unwrap();
            assert_eq!(back, content);
        }
    }
}
