// Request heads and the status that each must be answered with: 200 stands for "passes the
// decoder", 0 for "not complete yet". The unit tests of the head decoder include this file, and so
// does the black-box test, which sends each head to the real daemon.

/// One head and its status.
struct HeadCase {
    /// What the case is about.
    name: &'static str,
    /// The bytes on the wire.
    input: &'static [u8],
    /// 200 where it passes, 0 where more is needed, else the status of the refusal.
    status: u16,
}

const fn head(name: &'static str, status: u16, input: &'static [u8]) -> HeadCase {
    HeadCase { name, input, status }
}

/// The corpus.
#[rustfmt::skip]
const HEADS: &[HeadCase] = &[
    // What must pass.
    head("plain", 200, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    head("empty host", 200, b"GET / HTTP/1.1\r\nHost:\r\n\r\n"),
    head("no space after colon", 200, b"GET / HTTP/1.1\r\nHost:a\r\n\r\n"),
    head("whitespace around value", 200, b"GET / HTTP/1.1\r\nHost: \t a \t \r\n\r\n"),
    head("empty value", 200, b"GET / HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n"),
    head("obs-text in value", 200, b"GET / HTTP/1.1\r\nHost: a\r\nX: \xe9\r\n\r\n"),
    head("every token byte in name", 200, b"GET / HTTP/1.1\r\nHost: a\r\n!#$%&'*+-.^_`|~09azAZ: x\r\n\r\n"),
    head("one leading empty line", 200, b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    head("1.0 without host", 200, b"GET / HTTP/1.0\r\n\r\n"),
    head("1.0 with host", 200, b"GET / HTTP/1.0\r\nHost: a\r\n\r\n"),
    head("later minor version", 200, b"GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
    head("absolute form", 200, b"GET http://a/b HTTP/1.1\r\nHost: a\r\n\r\n"),
    head("asterisk form", 200, b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
    head("IPv6 host", 200, b"GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n"),
    head("sized", 200, b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"),
    head("length with zeros", 200, b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0005\r\n\r\n"),
    head("chunked", 200, b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"),
    head("chunked in capitals", 200, b"PUT /a HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING: CHUNKED\r\n\r\n"),
    head("expects 100", 200, b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\n"),
    head("body on GET", 200, b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"),
    head("colon in value", 200, b"GET / HTTP/1.1\r\nHost: a\r\nX: b: c\r\n\r\n"),
    head("quoted bytes in target", 200, b"GET /a|b{c}\"<>^` HTTP/1.1\r\nHost: a\r\n\r\n"),

    // Not complete.
    head("nothing", 0, b""),
    head("half a method", 0, b"GE"),
    head("request line alone", 0, b"GET / HTTP/1.1\r\n"),
    head("no empty line", 0, b"GET / HTTP/1.1\r\nHost: a\r\n"),
    head("half an empty line", 0, b"GET / HTTP/1.1\r\nHost: a\r\n\r"),
    head("leading empty line alone", 0, b"\r\n"),

    // Lengths in conflict.
    head("two lengths", 400, b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"),
    head("two equal lengths", 400, b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n"),
    head("list of lengths", 400, b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n"),
    head("signed length", 400, b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n"),
    head("negative length", 400, b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n"),
    head("hexadecimal length", 400, b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n"),
    head("length with a point", 400, b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0\r\n\r\n"),
    head("length with inner space", 400, b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1 2\r\n\r\n"),
    head("empty length", 400, b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n"),
    head("length over 64 bits", 400, b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n"),
    head("length of 64 bits wrapped", 400, b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 36893488147419103237\r\n\r\n"),
    head("length then coding", 400, b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
    head("coding then length", 400, b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"),
    head("coding and zero length", 400, b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n"),
    head("unknown coding and length", 400, b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\nContent-Length: 5\r\n\r\n"),

    // Transfer codings.
    head("coding twice in lines", 400, b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
    head("coding twice in list", 400, b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n"),
    head("chunked not last", 400, b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n"),
    head("chunked not last over lines", 400, b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n"),
    head("identity alone", 400, b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n"),
    head("gzip alone", 400, b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n"),
    head("gzip, then chunked", 501, b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
    head("xchunked", 400, b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n"),
    head("chunked with parameter", 400, b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;a=b\r\n\r\n"),
    head("quoted chunked", 400, b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n"),
    head("empty coding", 400, b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n"),
    head("comma before chunked", 400, b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: , chunked\r\n\r\n"),
    head("comma after chunked", 400, b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n"),
    head("vertical tab before chunked", 400, b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n"),
    head("no-break space before chunked", 400, b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \xa0chunked\r\n\r\n"),
    head("chunked in 1.0", 400, b"PUT /a HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"),

    // Line ends.
    head("bare LF after request line", 400, b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
    head("bare LF after field", 400, b"GET / HTTP/1.1\r\nHost: a\n\r\n"),
    head("bare LF as empty line", 400, b"GET / HTTP/1.1\r\nHost: a\r\n\n"),
    head("bare LF throughout", 400, b"GET / HTTP/1.1\nHost: a\n\n"),
    head("bare LF before smuggled field", 400, b"GET / HTTP/1.1\r\nHost: a\r\nX: y\nContent-Length: 5\r\n\r\n"),
    head("bare CR in value", 400, b"GET / HTTP/1.1\r\nHost: a\r\nX: y\rContent-Length: 5\r\n\r\n"),
    head("bare CR in name", 400, b"GET / HTTP/1.1\r\nHost: a\r\nX\rY: y\r\n\r\n"),
    head("bare CR in request line", 400, b"GET /\rHTTP/1.1\r\nHost: a\r\n\r\n"),
    head("two CR at line end", 400, b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"),
    head("two CR after request line", 400, b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n"),
    head("CR CR LF as empty line", 400, b"GET / HTTP/1.1\r\nHost: a\r\n\r\r\n\r\n"),
    head("two leading empty lines", 400, b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    head("leading bare LF", 400, b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    head("leading bare CR", 400, b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n"),

    // Field lines.
    head("folded line", 400, b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n"),
    head("folded line by tab", 400, b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n"),
    head("folded coding", 400, b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n"),
    head("space before first field", 400, b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    head("space before colon", 400, b"GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
    head("space before colon of length", 400, b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n"),
    head("tab before colon of coding", 400, b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n"),
    head("space in name", 400, b"GET / HTTP/1.1\r\nHost: a\r\nX Y: z\r\n\r\n"),
    head("no colon", 400, b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n"),
    head("empty name", 400, b"GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n"),
    head("NUL in name", 400, b"GET / HTTP/1.1\r\nHost: a\r\nX\0: y\r\n\r\n"),
    head("NUL in value", 400, b"GET / HTTP/1.1\r\nHost: a\r\nX: y\0z\r\n\r\n"),
    head("escape byte in value", 400, b"GET / HTTP/1.1\r\nHost: a\r\nX: \x1b[0m\r\n\r\n"),
    head("DEL in value", 400, b"GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n"),
    head("obs-text in name", 400, b"GET / HTTP/1.1\r\nHost: a\r\nX\xe9: y\r\n\r\n"),
    head("slash in name", 400, b"GET / HTTP/1.1\r\nHost: a\r\nX/Y: z\r\n\r\n"),
    head("parenthesis in name", 400, b"GET / HTTP/1.1\r\nHost: a\r\nX(Y): z\r\n\r\n"),

    // Host.
    head("1.1 without host", 400, b"GET / HTTP/1.1\r\n\r\n"),
    head("absolute form without host", 400, b"GET http://a/ HTTP/1.1\r\n\r\n"),
    head("two hosts", 400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    head("two equal hosts", 400, b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n"),
    head("two hosts in 1.0", 400, b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
    head("list of hosts", 200, b"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n"), // a comma is a sub-delimiter
    head("host with path", 400, b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    head("host with user", 400, b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
    head("host with space", 400, b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    head("host with text for port", 400, b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n"),
    head("host with large port", 400, b"GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n"),
    head("host with obs-text", 400, b"GET / HTTP/1.1\r\nHost: \xe9\r\n\r\n"),

    // Request line.
    head("two spaces after method", 400, b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    head("two spaces before version", 400, b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n"),
    head("space after version", 400, b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
    head("leading space", 400, b" GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    head("tab for space", 400, b"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n"),
    head("space in target", 400, b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    head("no target", 400, b"GET HTTP/1.1\r\nHost: a\r\n\r\n"),
    head("empty target", 400, b"GET  HTTP/1.1\r\nHost: a\r\n\r\n"),
    head("no version", 400, b"GET /\r\n\r\n"),
    head("relative target", 400, b"GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
    head("asterisk for GET", 400, b"GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    head("NUL in target", 400, b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
    head("DEL in target", 400, b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n"),
    head("obs-text in target", 400, b"GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n"),
    head("fragment in target", 400, b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
    head("user in absolute form", 400, b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    head("method with colon", 400, b"GE:T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    head("method in lower case", 501, b"get / HTTP/1.1\r\nHost: a\r\n\r\n"),
    head("unknown method", 501, b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n"),
    head("TRACE", 501, b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"),
    head("CONNECT", 501, b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
    head("version 2.0", 505, b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    head("version 0.9", 505, b"GET / HTTP/0.9\r\n\r\n"),
    head("HTTP/2 preface", 505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    head("version in lower case", 400, b"GET / http/1.1\r\nHost: a\r\n\r\n"),
    head("version without minor", 400, b"GET / HTTP/1\r\nHost: a\r\n\r\n"),
    head("version of three digits", 400, b"GET / HTTP/1.10\r\nHost: a\r\n\r\n"),
    head("version with comma", 400, b"GET / HTTP/1,1\r\nHost: a\r\n\r\n"),
    head("other protocol", 400, b"GET / HTCPCP/1.0\r\nHost: a\r\n\r\n"),
    head("TLS client hello", 400, b"\x16\x03\x01\x02\x00\x01\x00"),
    head("RESP", 400, b"*1\r\n$4\r\nPING\r\n"),

    // Expectations.
    head("other expectation", 417, b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 200-maybe\r\n\r\n"),
    head("empty expectation", 417, b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect:\r\n\r\n"),
];
