//! Status codes that this server sends, each with its status line ready to copy.
//!
//! Used by the reply encoder and by `Reason`. Invariant: one row per status, nothing else knows
//! the numbers.

macro_rules! statuses {
    ($($name:ident = $code:literal $reason:literal),+ $(,)?) => {
        /// A status that this server sends (RFC 9110 section 15).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Status {
            $(#[doc = concat!(stringify!($code), " ", $reason)] $name = $code,)+
        }

        impl Status {
            /// The status line for HTTP/1.1, with its line end.
            pub const fn line(self) -> &'static [u8] {
                match self {
                    $(Self::$name => concat!(
                        "HTTP/1.1 ", stringify!($code), " ", $reason, "\r\n"
                    ).as_bytes(),)+
                }
            }
        }
    };
}

statuses! {
    Ok = 200 "OK",
    Created = 201 "Created",
    NoContent = 204 "No Content",
    PartialContent = 206 "Partial Content",
    NotModified = 304 "Not Modified",
    BadRequest = 400 "Bad Request",
    Forbidden = 403 "Forbidden",
    NotFound = 404 "Not Found",
    MethodNotAllowed = 405 "Method Not Allowed",
    RequestTimeout = 408 "Request Timeout",
    Conflict = 409 "Conflict",
    PreconditionFailed = 412 "Precondition Failed",
    ContentTooLarge = 413 "Content Too Large",
    UriTooLong = 414 "URI Too Long",
    RangeNotSatisfiable = 416 "Range Not Satisfiable",
    ExpectationFailed = 417 "Expectation Failed",
    FieldsTooLarge = 431 "Request Header Fields Too Large",
    InternalError = 500 "Internal Server Error",
    NotImplemented = 501 "Not Implemented",
    Unavailable = 503 "Service Unavailable",
    VersionNotSupported = 505 "HTTP Version Not Supported",
    InsufficientStorage = 507 "Insufficient Storage",
}

impl Status {
    /// The three-digit number.
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// `400 Bad Request`: the status line without version and line end.
    pub fn text(self) -> &'static [u8] {
        let line = self.line();
        &line[b"HTTP/1.1 ".len()..line.len() - 2]
    }

    /// Whether a reply of this status has no body and no `Content-Length` (RFC 9112 section 6.3).
    pub const fn is_bodyless(self) -> bool {
        matches!(self, Self::NoContent | Self::NotModified)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_knows_its_line_its_text_and_its_number() {
        assert_eq!(Status::NotFound.line(), b"HTTP/1.1 404 Not Found\r\n");
        assert_eq!(Status::NotFound.text(), b"404 Not Found");
        assert_eq!(Status::NotFound.code(), 404);
    }
}
