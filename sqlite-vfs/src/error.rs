//! From the engine's errors to SQLite's codes. A code says little, so the
//! message goes to SQLite's error log and to the program's, and is kept: for
//! `quire_status` by volume, and for [`last_error`] by thread.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

use libsqlite3_sys as ffi;
use quire_engine::{Error, ErrorKind, Result};

use crate::api::Api;

thread_local! {
    static LAST: RefCell<Option<Error>> = const { RefCell::new(None) };
}

/// The newest error of this thread that became a code of SQLite. Taking it clears it.
pub fn last_error() -> Option<Error> {
    LAST.take()
}

/// What SQLite was doing when the engine failed. It decides which codes SQLite can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    Open,
    Read,
    /// Any code but `IOERR` and `FULL` would leave uncommitted pages in SQLite's cache as if they were clean.
    Write,
    Lock,
}

impl Doing {
    /// The code of SQLite for an error.
    pub(crate) fn code(self, error: &Error) -> c_int {
        match (self, error.kind()) {
            (Doing::Lock, ErrorKind::Busy) => ffi::SQLITE_BUSY,
            (Doing::Lock, ErrorKind::Conflict) => ffi::SQLITE_BUSY_SNAPSHOT,
            (Doing::Lock, _) => ffi::SQLITE_IOERR_LOCK,
            (Doing::Open, ErrorKind::Busy) => ffi::SQLITE_BUSY,
            (Doing::Open, ErrorKind::Full) => ffi::SQLITE_FULL,
            (Doing::Open, _) => ffi::SQLITE_CANTOPEN,
            (Doing::Read, ErrorKind::Corrupt) => ffi::SQLITE_IOERR_DATA,
            (Doing::Read, _) => ffi::SQLITE_IOERR_READ,
            (Doing::Write, ErrorKind::Full) => ffi::SQLITE_FULL,
            (Doing::Write, _) => ffi::SQLITE_IOERR_WRITE,
        }
    }
}

/// Makes an error known of which SQLite passes on the code only.
pub(crate) fn report(api: &Api, code: c_int, error: Error) {
    tracing::warn!("{error:?}");
    remember(api, code, error);
}

/// Keeps an error whose message reaches the user anyway, or that is the
/// ordinary life of a program: losing a race for the writer's lock.
pub(crate) fn remember(api: &Api, code: c_int, error: Error) {
    tracing::debug!("{error:?}");
    api.report(code, &format!("quire: {error:?}"));
    LAST.set(Some(error));
}

/// Runs what SQLite called. A panic must not unwind into C: it becomes
/// `on_panic`, after its message went to standard error.
pub(crate) fn guard<T>(on_panic: T, call: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or(on_panic)
}

/// As [`guard`], for what answers its user in words: a panic becomes an error.
pub(crate) fn guarded<T>(call: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| Err(bug(&*panic)))
}

/// What a panic says to the user.
fn bug(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let said = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words");
    Error::new(ErrorKind::Io, format!("this is a bug in Quire: {said}"))
        .with_remedy("Please report it, with what the program has written to standard error.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_commit_is_always_an_error_that_empties_the_cache() {
        use ErrorKind::*;
        for kind in [Conflict, NotFound, AlreadyExists, Busy, Unavailable, Corrupt, Denied, Invalid, Full, Gone, Io] {
            let code = Doing::Write.code(&Error::new(kind, "x")) & 0xff;
            assert!(code == ffi::SQLITE_IOERR || code == ffi::SQLITE_FULL, "{kind}: {code}");
        }
    }

    #[test]
    fn a_panic_becomes_a_code() {
        assert_eq!(guard(7, || panic!("seen in the test's output, on purpose")), 7);
    }

    #[test]
    fn a_panic_becomes_an_error_with_its_words() {
        let place = "the test's output";
        for error in [
            guarded::<()>(|| panic!("seen in the test's output, on purpose")).unwrap_err(),
            guarded::<()>(|| panic!("seen in {place}, on purpose")).unwrap_err(),
        ] {
            assert!(error.message().contains("a bug in Quire: seen in the test's output"), "{error:?}");
            assert!(error.remedy().is_some());
        }
        assert_eq!(guarded(|| Ok(7)).unwrap(), 7);
    }
}
