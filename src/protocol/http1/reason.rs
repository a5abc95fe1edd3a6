//! Why a request is refused, and with which status.
//!
//! Produced by the decoders, turned into a reply by the connection loop.
//! Invariant: the status of every refusal is decided in the one `match` here.

use super::status::Status;

/// What is wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Not `METHOD SP target SP version`.
    #[error("malformed request line")]
    RequestLine,
    /// A byte in the target that no URI has, or a form that the method does not allow.
    #[error("malformed request target")]
    Target,
    /// The target is longer than the limit.
    #[error("request target too long")]
    TargetTooLong,
    /// `HTTP/x.y` of a major version other than 1.
    #[error("HTTP version not supported")]
    Version,
    /// A method that no route of this server knows.
    #[error("method not implemented")]
    Method,
    /// A line ends in LF without CR.
    #[error("line feed without carriage return")]
    BareLineFeed,
    /// A field line that is not `name ":" value`: space before the colon, a folded line, a
    /// control byte.
    #[error("malformed header field")]
    Field,
    /// More field lines than the limit.
    #[error("too many header fields")]
    TooManyFields,
    /// Request line and fields exceed the limit.
    #[error("request head too large")]
    HeadTooLarge,
    /// HTTP/1.1 without `Host`.
    #[error("missing Host")]
    HostMissing,
    /// More than one `Host`, or one that is not `host [":" port]`.
    #[error("invalid Host")]
    Host,
    /// `Content-Length` is repeated, or is not a number.
    #[error("invalid Content-Length")]
    ContentLength,
    /// `Content-Length` and `Transfer-Encoding` in one head.
    #[error("Content-Length beside Transfer-Encoding")]
    ConflictingLengths,
    /// The last transfer coding is not a single `chunked`, or the request is HTTP/1.0.
    #[error("invalid Transfer-Encoding")]
    TransferEncoding,
    /// A coding other than `chunked` before the last.
    #[error("transfer coding not implemented")]
    TransferCoding,
    /// An expectation other than `100-continue`.
    #[error("expectation not supported")]
    Expectation,
    /// The body is longer than the limit.
    #[error("content too large")]
    BodyTooLarge,
    /// A chunk that is not `size [extension] CRLF data CRLF`.
    #[error("malformed chunk")]
    Chunk,
    /// Chunk extensions exceed the limit.
    #[error("chunk extensions too long")]
    ChunkExtension,
    /// A trailer line that is not a field line.
    #[error("malformed trailer")]
    Trailer,
    /// The trailer section exceeds the limit.
    #[error("trailer too large")]
    TrailerTooLarge,
}

impl Reason {
    /// The status of the reply.
    pub const fn status(self) -> Status {
        match self {
            Self::RequestLine
            | Self::Target
            | Self::BareLineFeed
            | Self::Field
            | Self::HostMissing
            | Self::Host
            | Self::ContentLength
            | Self::ConflictingLengths
            | Self::TransferEncoding
            | Self::Chunk
            | Self::ChunkExtension
            | Self::Trailer => Status::BadRequest,
            Self::BodyTooLarge => Status::ContentTooLarge,
            Self::TargetTooLong => Status::UriTooLong,
            Self::Expectation => Status::ExpectationFailed,
            Self::TooManyFields | Self::HeadTooLarge | Self::TrailerTooLarge => {
                Status::FieldsTooLarge
            }
            Self::Method | Self::TransferCoding => Status::NotImplemented,
            Self::Version => Status::VersionNotSupported,
        }
    }
}
