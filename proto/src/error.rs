//! One error type for the whole house. The *kind* is what a caller acts on and
//! is part of the API; the message says what happened and where; the remedy
//! says which command or setting goes on from here.

use std::error::Error as StdError;
use std::fmt;

/// What a caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Somebody else's commit took the LSN: look at the new head first.
    Conflict,
    /// The thing does not exist. Never used for "could not find out".
    NotFound,
    /// The thing exists already and would have been created.
    AlreadyExists,
    /// Held by another writer or process: try again later.
    Busy,
    /// The store cannot be reached or did not answer in time: try again.
    Unavailable,
    /// Stored bytes do not match their checksum or format. Never retried.
    Corrupt,
    /// Credentials or permissions do not allow it.
    Denied,
    /// The caller's input is wrong.
    Invalid,
    /// A disk or quota is full.
    Full,
    /// It existed, and history has collected it.
    Gone,
    /// A local disk or file failed.
    Io,
}

impl ErrorKind {
    /// The kind's name as users see it, for example in JSON output.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Conflict => "conflict",
            ErrorKind::NotFound => "not_found",
            ErrorKind::AlreadyExists => "already_exists",
            ErrorKind::Busy => "busy",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Corrupt => "corrupt",
            ErrorKind::Denied => "denied",
            ErrorKind::Invalid => "invalid",
            ErrorKind::Full => "full",
            ErrorKind::Gone => "gone",
            ErrorKind::Io => "io",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error with its kind, a message for people, and optionally a remedy and
/// the error that caused it.
pub struct Error {
    inner: Box<Inner>,
}

struct Inner {
    kind: ErrorKind,
    message: String,
    remedy: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The result of everything in Quire that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind`; `message` says what went wrong and where.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { inner: Box::new(Inner { kind, message: message.into(), remedy: None, source: None }) }
    }

    /// Adds what the user can do about it: a full sentence or a command.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.inner.remedy = Some(remedy.into());
        self
    }

    /// Adds the error that caused this one.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.inner.source = Some(source.into());
        self
    }

    /// Puts words in front of the message, to say where the error happened.
    #[must_use]
    pub fn context(mut self, place: impl fmt::Display) -> Self {
        self.inner.message = format!("{place}: {}", self.inner.message);
        self
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// What went wrong and where, without the causes.
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// What the user can do about it.
    pub fn remedy(&self) -> Option<&str> {
        self.inner.remedy.as_deref()
    }

    /// A copy for handing one failure to several waiters; the causes are kept
    /// as text only.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let copy = Error::new(self.kind(), self.to_string());
        match self.remedy() {
            Some(remedy) => copy.with_remedy(remedy),
            None => copy,
        }
    }

    /// Stored bytes are wrong.
    pub fn corrupt(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Corrupt, message)
    }

    /// The caller's input is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Invalid, message)
    }

    /// The thing does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::NotFound, message)
    }

    /// The store did not answer.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Unavailable, message)
    }

    /// A local file operation failed: a full disk and a missing permission get
    /// their own kinds, everything else is [`ErrorKind::Io`].
    pub fn from_io(what: impl Into<String>, source: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match source.kind() {
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => ErrorKind::Full,
            Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::Denied,
            Io::NotFound => ErrorKind::NotFound,
            Io::AlreadyExists => ErrorKind::AlreadyExists,
            _ => ErrorKind::Io,
        };
        // EMFILE and ENFILE have no kind of their own.
        let lacks_files = matches!(source.raw_os_error(), Some(23 | 24));
        let error = Error::new(kind, what).with_source(source);
        match kind {
            _ if lacks_files => error.with_remedy("Raise the limit of open files (`ulimit -n`), then try again."),
            ErrorKind::Full => error.with_remedy("Free space on that disk, then try again."),
            ErrorKind::Denied => error.with_remedy("Look at the permissions of that path."),
            _ => error,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)?;
        let mut source = self.inner.source.as_deref().map(|s| s as &dyn StdError);
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {self}", self.inner.kind)?;
        match &self.inner.remedy {
            Some(remedy) => write!(f, " ({remedy})"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    // The causes are part of `Display`, so that no caller loses them and no
    // caller prints them twice.
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_every_cause_once() {
        let io = std::io::Error::new(std::io::ErrorKind::StorageFull, "no space left");
        let e = Error::from_io("writing log 3", io).context("commit");
        assert_eq!(e.to_string(), "commit: writing log 3: no space left");
        assert_eq!(e.kind(), ErrorKind::Full);
    }
}
