//! Why a verb ended early, what the user reads about it, and the exit status.

use std::io::{self, Write};

use quire_engine::{Error, ErrorKind};
use serde_json::json;

/// The exit status of wrong usage.
pub(crate) const USAGE: u8 = 2;
/// What shells report for a program that Ctrl-C ended.
pub(crate) const INTERRUPTED: u8 = 130;

/// Why a verb ended early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It failed.
    Failed(Error),
    /// A statement failed: the user's SQL, not the user's command line.
    Sql(Error, Before),
    /// It failed for some volumes, and has said so; this is the exit status.
    Reported(u8),
    /// Ctrl-C.
    Interrupted,
    /// Whoever read the output has seen enough.
    OutputClosed,
}

/// What became of the statements before the one that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// There were none, or it is not known.
    Nothing,
    /// They were done, each by itself.
    Done,
    /// Their transaction is rolled back.
    RolledBack,
    /// Their transaction is still open.
    Open,
}

impl Before {
    fn in_words(self) -> Option<&'static str> {
        match self {
            Before::Nothing => None,
            Before::Done => Some("The statements before it were done; it and those after it were not."),
            Before::RolledBack => Some("The open transaction was rolled back: nothing since its BEGIN was done."),
            Before::Open => Some("The transaction is still open: COMMIT keeps what it has done, ROLLBACK does not."),
        }
    }
}

/// How a verb ends.
pub(crate) type Outcome<T = ()> = Result<T, Stop>;

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error)
    }
}

impl Stop {
    /// A failed write to standard output.
    pub(crate) fn from_output(error: io::Error) -> Stop {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Stop::OutputClosed,
            _ => Stop::Failed(Error::from_io("writing to standard output", error)),
        }
    }

    /// Tells the user on standard error, and gives the exit status.
    pub(crate) fn report(&self, json: bool) -> u8 {
        match self {
            Stop::Failed(error) | Stop::Sql(error, _) => {
                complain(error.kind().as_str(), &error.to_string(), self.remedy(error).as_deref(), self.status(), json);
            }
            Stop::Interrupted => {
                let message = "interrupted; nothing was half-committed";
                complain("interrupted", message, Some("Run the same command again to go on."), INTERRUPTED, json);
            }
            Stop::Reported(_) | Stop::OutputClosed => {}
        }
        self.status()
    }

    /// What helps: as the error knows itself, or else in most cases; and what became of the statements before it.
    fn remedy(&self, error: &Error) -> Option<String> {
        let before = match self {
            Stop::Sql(_, before) => before.in_words(),
            _ => None,
        };
        let remedy = error.remedy().or_else(|| self.usual_remedy(error.kind()));
        let told: Vec<&str> = remedy.into_iter().chain(before).collect();
        (!told.is_empty()).then(|| told.join("\n"))
    }

    /// What helps in most cases, for an error that does not know better.
    fn usual_remedy(&self, kind: ErrorKind) -> Option<&'static str> {
        let of_sql = matches!(self, Stop::Sql(..));
        match kind {
            // A verb that fails has changed nothing; of SQL it depends on what was before.
            ErrorKind::Busy if of_sql => Some("Try again when the other one has finished."),
            ErrorKind::Unavailable if of_sql => Some("Check the network and `quire config`, then try again."),
            ErrorKind::Full if of_sql => Some("Free some space, then try again."),
            // SQLite's own words say what is wrong with a statement.
            ErrorKind::Invalid if of_sql => None,
            ErrorKind::Busy => Some("Nothing was changed; try again when the other one has finished."),
            ErrorKind::Unavailable => Some("Nothing was lost. Check the network and `quire config`, then try again."),
            ErrorKind::Denied => Some("Check permissions and credentials; `quire config` shows what is used."),
            ErrorKind::Full => Some("Nothing was lost. Free some space, then try again."),
            ErrorKind::Io => Some("Check the path and the disk; `quire config` shows what is used."),
            ErrorKind::Corrupt => Some("Do not write to it. Other replicas may be sound; `quire verify` tells."),
            ErrorKind::Invalid => Some("--help behind a verb shows what is allowed."),
            _ => None,
        }
    }

    fn status(&self) -> u8 {
        match self {
            Stop::Failed(error) => match error.kind() {
                ErrorKind::Invalid => USAGE,
                ErrorKind::Conflict => 3,
                ErrorKind::Corrupt => 4,
                _ => 1,
            },
            Stop::Sql(error, _) if error.kind() == ErrorKind::Invalid => 1,
            Stop::Sql(error, _) => Stop::Failed(error.duplicate()).status(),
            Stop::Reported(status) => *status,
            Stop::Interrupted => INTERRUPTED,
            Stop::OutputClosed => 0,
        }
    }
}

/// Writes an error to standard error: a cause and a remedy. If nobody listens
/// there, the exit status has to be enough.
pub(crate) fn complain(kind: &str, message: &str, remedy: Option<&str>, status: u8, json: bool) {
    let text = if json {
        let error = json!({ "kind": kind, "message": message, "remedy": remedy, "exit_status": status });
        json!({ "error": error }).to_string()
    } else {
        match remedy {
            Some(remedy) => format!("error: {message}\nremedy: {remedy}"),
            None => format!("error: {message}"),
        }
    };
    let _ = writeln!(io::stderr(), "{text}");
}
