//! Decoders alone: nanoseconds per command and per head, without sockets.
//!
//! `cargo bench -p annulus-bench --bench protocol`. Input is what the load generator sends.

use std::hint::black_box;

use annulus::protocol::http1::{Decoded, HeadDecoder, Limits};
use annulus::protocol::resp::{Decode, Decoder};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const GET: &[u8] = b"*2\r\n$3\r\nGET\r\n$16\r\nkey:000000012345\r\n";
const HEAD: &[u8] = b"GET /kv/bench HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n";
const BROWSER_HEAD: &[u8] = b"GET /files/index.html HTTP/1.1\r\nHost: example.org\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Connection: keep-alive\r\nUpgrade-Insecure-Requests: 1\r\nPriority: u=0, i\r\n\r\n";

fn set(value_bytes: usize) -> Vec<u8> {
    let head = format!("*3\r\n$3\r\nSET\r\n$16\r\nkey:000000012345\r\n${value_bytes}\r\n");
    [head.as_bytes(), &vec![b'v'; value_bytes], b"\r\n"].concat()
}

/// Decodes every command of `input` and returns how many there were.
fn commands(decoder: &mut Decoder, input: &[u8]) -> usize {
    let (mut at, mut count) = (0, 0);
    while at < input.len() {
        match decoder.decode(&input[at..]) {
            Decode::Complete(consumed) => at += consumed,
            other => panic!("the input is valid and whole: {other:?}"),
        }
        count += 1;
    }
    decoder.forget();
    count
}

fn resp(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode RESP");
    let inputs = [("GET", GET.to_vec()), ("SET 64 B", set(64)), ("SET 1 KiB", set(1024))];
    for (name, command) in inputs {
        for pipeline in [1, 16, 64] {
            let input = command.repeat(pipeline);
            let mut decoder = Decoder::default();
            group.throughput(Throughput::Elements(pipeline as u64));
            group.bench_with_input(BenchmarkId::new(name, pipeline), &input, |bencher, input| {
                bencher.iter(|| commands(&mut decoder, black_box(input)));
            });
        }
    }
    group.finish();
}

fn http(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode HTTP head");
    let limits = Limits::default();
    for (name, input) in [("load", HEAD), ("browser", BROWSER_HEAD)] {
        let mut decoder = HeadDecoder::new();
        group.throughput(Throughput::Bytes(input.len() as u64));
        group.bench_with_input(name, input, |bencher, input| {
            bencher.iter(|| match decoder.decode(black_box(input), &limits) {
                Decoded::Complete { consumed, .. } => consumed,
                other => panic!("the head is valid and whole: {other:?}"),
            });
        });
    }
    group.finish();
}

criterion_group!(benches, resp, http);
criterion_main!(benches);
