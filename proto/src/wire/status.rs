//! Errors on the wire: the standard codes for every client, and in the details
//! (`google.rpc.Status` with a `quire.v1.Problem`) what Quire's own clients need to give the same error again.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tonic::{Code, Status};

use super::generated::{Problem, Winner as WireWinner};
use crate::{CommitHeader, Error, ErrorKind, ObjectHash, Result, Winner};

const UNAVAILABLE: &str = "Check the network and the server's address; nothing is lost, try again later.";
const NO_TLS: &str = "What answers there speaks no TLS. Does it speak plain http? Then its address begins with http://";
const NO_HTTP2: &str = "What answers there is no Quire server, or one whose address begins with https://";
const NO_SERVER: &str = "What answers there is no Quire server, or it is a server's port for metrics: give the address \
                         that `quire serve` names.";

/// How tonic's words begin where an answer of HTTP has no status of gRPC.
const NO_STATUS: &str = "grpc-status header missing";

const TYPE: &str = "type.googleapis.com/quire.v1.Problem";

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

const RETRY_TYPE: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// `google.rpc.RetryInfo`, with its `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

const KINDS: [(ErrorKind, Code); 11] = [
    (ErrorKind::Conflict, Code::Aborted),
    (ErrorKind::NotFound, Code::NotFound),
    (ErrorKind::AlreadyExists, Code::AlreadyExists),
    (ErrorKind::Busy, Code::FailedPrecondition),
    (ErrorKind::Unavailable, Code::Unavailable),
    (ErrorKind::Corrupt, Code::DataLoss),
    (ErrorKind::Denied, Code::PermissionDenied),
    (ErrorKind::Invalid, Code::InvalidArgument),
    (ErrorKind::Full, Code::ResourceExhausted),
    (ErrorKind::Gone, Code::OutOfRange),
    (ErrorKind::Io, Code::Internal),
];

/// An error, for the wire.
pub fn status_of(error: &Error) -> Status {
    let code = KINDS.iter().find(|(kind, _)| *kind == error.kind()).map_or(Code::Unknown, |(_, code)| *code);
    let problem = Problem {
        kind: error.kind().as_str().to_owned(),
        remedy: error.remedy().unwrap_or_default().to_owned(),
        winner: None,
    };
    status(code, error.to_string(), &problem)
}

/// An append that lost its LSN, for the wire.
pub fn status_of_lost(winner: &Winner) -> Result<Status> {
    let there = WireWinner {
        header: winner.header.encode()?,
        object_hash: Bytes::copy_from_slice(winner.object_hash.as_bytes()),
    };
    let problem = Problem {
        kind: ErrorKind::Conflict.as_str().to_owned(),
        remedy: "Look at the new head first.".to_owned(),
        winner: Some(there),
    };
    Ok(status(Code::Aborted, format!("another commit has LSN {}", winner.header.lsn), &problem))
}

fn status(code: Code, message: String, problem: &Problem) -> Status {
    let detail = Any { type_url: TYPE.to_owned(), value: problem.encode_to_vec().into() };
    let details = RpcStatus { code: code as i32, message: message.clone(), details: vec![detail] };
    Status::with_details(code, message, details.encode_to_vec().into())
}

/// What a caller is told who has asked too much: when to ask again.
pub fn status_of_limit(message: &str, delay: Duration) -> Status {
    let retry_delay = Delay {
        seconds: i64::try_from(delay.as_secs()).unwrap_or(i64::MAX),
        nanos: delay.subsec_nanos().cast_signed(),
    };
    let value = RetryInfo { retry_delay: Some(retry_delay) }.encode_to_vec().into();
    let detail = Any { type_url: RETRY_TYPE.to_owned(), value };
    let code = Code::ResourceExhausted;
    let details = RpcStatus { code: code as i32, message: message.to_owned(), details: vec![detail] };
    Status::with_details(code, message, details.encode_to_vec().into())
}

/// When to ask again, if the server has said so.
pub fn retry_delay(status: &Status) -> Option<Duration> {
    let delay = RetryInfo::decode(detail(status, RETRY_TYPE)?).ok()?.retry_delay?;
    let (seconds, nanos) = (u64::try_from(delay.seconds).ok()?, u32::try_from(delay.nanos).ok()?);
    (nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))
}

fn detail(status: &Status, of: &str) -> Option<Bytes> {
    let details = RpcStatus::decode(status.details()).ok()?.details;
    details.into_iter().find(|detail| detail.type_url == of).map(|detail| detail.value)
}

fn problem(status: &Status) -> Option<Problem> {
    Problem::decode(detail(status, TYPE)?).ok()
}

/// The commit that has the LSN which an append wanted.
pub fn winner_of(status: &Status) -> Result<Option<Winner>> {
    let Some(winner) = problem(status).and_then(|problem| problem.winner) else { return Ok(None) };
    let (header, _) = CommitHeader::decode(&winner.header)?;
    let hash = winner.object_hash.as_ref().try_into().map_err(|_| Error::corrupt("a winner without a hash"))?;
    Ok(Some(Winner { header, object_hash: ObjectHash::new(hash) }))
}

/// Whether Quire's own server gave this status, rather than what stands between or the connection itself.
pub fn is_answer(status: &Status) -> bool {
    let is_unavailable = || error_of(status, "").kind() == ErrorKind::Unavailable && !is_no_server(status);
    problem(status).is_some() || (!is_of_the_connection(status) && !is_unavailable())
}

/// What answers speaks HTTP, and is no server of Quire's: it will not be one in a moment.
fn is_no_server(status: &Status) -> bool {
    matches!(status.code(), Code::Unimplemented | Code::Internal | Code::Unknown)
        && status.message().starts_with(NO_STATUS)
}

/// Whether the status was made up at this end, as the connection broke: HTTP/2's errors become codes of any kind.
fn is_of_the_connection(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// The error that came over the wire from `peer`, such as "the server http://host:7480"; or what it means that none of
/// Quire's came.
pub fn error_of(status: &Status, peer: &str) -> Error {
    if let Some(problem) = problem(status)
        && let Some((kind, _)) = KINDS.iter().find(|(kind, _)| kind.as_str() == problem.kind)
    {
        let error = Error::new(*kind, status.message());
        return if problem.remedy.is_empty() { error } else { error.with_remedy(problem.remedy) };
    }
    let message = with_causes(status);
    let (kind, remedy) = match status.code() {
        // It takes a greeting of TLS, or of HTTP/2, for something else.
        _ if is_of_the_connection(status) && message.contains("InvalidContentType") => (ErrorKind::Unavailable, NO_TLS),
        _ if is_of_the_connection(status) && message.contains("frame with invalid size") => {
            (ErrorKind::Unavailable, NO_HTTP2)
        }
        _ if is_of_the_connection(status) => (ErrorKind::Unavailable, UNAVAILABLE),
        Code::Unauthenticated => (
            ErrorKind::Denied,
            "Give a token that the server knows in QUIRE_TOKEN, or a file that holds one in QUIRE_TOKEN_FILE; \
             `quire token new` makes one.",
        ),
        _ if is_no_server(status) => (ErrorKind::Unavailable, NO_SERVER),
        Code::PermissionDenied => (ErrorKind::Denied, "Ask for a token with the right to do this."),
        Code::Unimplemented => (ErrorKind::Invalid, "The server is of an older version: upgrade it."),
        Code::ResourceExhausted => (ErrorKind::Busy, "The server limits how much one client may ask: try again later."),
        Code::InvalidArgument => (ErrorKind::Invalid, "Look at what was asked."),
        Code::DataLoss => (ErrorKind::Corrupt, "`quire verify NAME` shows what is damaged."),
        // Whatever stands between may say any of the others: the outcome is unknown.
        _ => (ErrorKind::Unavailable, UNAVAILABLE),
    };
    Error::new(kind, format!("{peer}: {message}")).with_remedy(remedy)
}

/// What a status says, down to the bottom: of the errors of a connection each tells only its own part.
fn with_causes(status: &Status) -> String {
    let mut message = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let text = error.to_string();
        // The first is what tonic says of all of them.
        if text != "transport error" && !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    message
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{Body, CommitId, CommitKind, Lsn, PageSize, SealedCommit};

    #[test]
    fn errors_come_back() {
        for (kind, code) in KINDS {
            for remedy in [None, Some("`quire pull app`")] {
                let mut error = Error::new(kind, "caf\u{e9}: what happened");
                if let Some(remedy) = remedy {
                    error = error.with_remedy(remedy);
                }
                let status = status_of(&error);
                assert_eq!(status.code(), code);
                let back = error_of(&status, "the server");
                assert_eq!((back.kind(), back.to_string(), back.remedy()), (kind, error.to_string(), remedy));
                assert!(winner_of(&status).unwrap().is_none());
            }
        }
    }

    #[test]
    fn a_winner_comes_back() {
        let header = CommitHeader::draft(Lsn::FIRST, CommitKind::Create, CommitId::new([7; 16]), PageSize::DEFAULT);
        let commit = SealedCommit::seal(header, Body::default()).unwrap();
        let winner = Winner { header: commit.header().clone(), object_hash: commit.object_hash() };
        let status = status_of_lost(&winner).unwrap();
        assert_eq!(status.code(), Code::Aborted);
        let back = winner_of(&status).unwrap().unwrap();
        assert_eq!((back.header, back.object_hash), (winner.header, winner.object_hash));
    }

    #[test]
    fn when_to_ask_again_comes_back() {
        for delay in [Duration::ZERO, Duration::from_millis(1500), Duration::from_secs(u64::MAX >> 1)] {
            let status = status_of_limit("too much", delay);
            assert_eq!((status.code(), retry_delay(&status)), (Code::ResourceExhausted, Some(delay)));
            assert_eq!(error_of(&status, "the server").kind(), ErrorKind::Busy);
        }
        for other in [status_of(&Error::invalid("x")), Status::resource_exhausted("x")] {
            assert_eq!(retry_delay(&other), None);
        }
        let hostile = RetryInfo { retry_delay: Some(Delay { seconds: -1, nanos: i32::MIN }) }.encode_to_vec();
        let detail = Any { type_url: RETRY_TYPE.to_owned(), value: hostile.into() };
        let details = RpcStatus { code: 8, message: String::new(), details: vec![detail] }.encode_to_vec();
        assert_eq!(retry_delay(&Status::with_details(Code::ResourceExhausted, "", details.into())), None);
    }

    #[test]
    fn what_others_say_is_no_answer() {
        for code in [Code::Unknown, Code::Internal, Code::Cancelled, Code::DeadlineExceeded, Code::NotFound] {
            assert_eq!(error_of(&Status::new(code, "a proxy's words"), "the server").kind(), ErrorKind::Unavailable);
        }
        assert_eq!(error_of(&Status::unauthenticated("no token"), "the server").kind(), ErrorKind::Denied);
        let mut broken = Status::resource_exhausted("h2 protocol error");
        assert!(is_answer(&broken));
        broken.set_source(std::sync::Arc::new(std::io::Error::other("the connection")));
        assert!(!is_answer(&broken) && error_of(&broken, "the server").kind() == ErrorKind::Unavailable);
    }

    /// An error of the connection, and its cause.
    #[derive(Debug)]
    struct Caused(&'static str, Option<Box<Caused>>);

    impl std::fmt::Display for Caused {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }

    impl std::error::Error for Caused {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            self.1.as_deref().map(|cause| cause as &(dyn std::error::Error + 'static))
        }
    }

    fn broken(message: &str, causes: &[&'static str]) -> Status {
        let chain = causes.iter().rev().fold(None, |cause, text| Some(Box::new(Caused(text, cause))));
        let mut status = Status::unavailable(message);
        status.set_source(std::sync::Arc::new(*chain.unwrap()));
        status
    }

    #[test]
    fn a_connection_that_fails_tells_its_cause_and_what_helps() {
        let causes = ["transport error", "tcp connect error", "tcp connect error", "Connection refused (os error 111)"];
        let refused = error_of(&broken("tcp connect error", &causes), "the server");
        assert_eq!(refused.message(), "the server: tcp connect error: Connection refused (os error 111)");
        for (message, cause, remedy) in [
            ("received corrupt message of type InvalidContentType", "transport error", "begins with http://"),
            ("h2 protocol error: http2 error", "connection error detected: frame with invalid size", "https://"),
        ] {
            let error = error_of(&broken(message, &[cause]), "the server");
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert!(error.remedy().is_some_and(|said| said.contains(remedy)), "{error:?}");
        }
    }

    #[test]
    fn an_answer_without_a_status_is_that_of_no_server() {
        let other = error_of(
            &Status::unimplemented("grpc-status header missing, mapped from HTTP status code 404"),
            "the server",
        );
        assert_eq!(other.kind(), ErrorKind::Unavailable);
        assert!(other.remedy().is_some_and(|remedy| remedy.contains("no Quire server")), "{other:?}");
        assert_eq!(error_of(&Status::unimplemented(""), "the server").kind(), ErrorKind::Invalid);
        let stranger = error_of(&Status::unauthenticated("no token"), "the server");
        let remedy = stranger.remedy().unwrap_or_default();
        assert!(remedy.contains("QUIRE_TOKEN_FILE") && !remedy.contains("--token"), "{remedy}");
    }
}
