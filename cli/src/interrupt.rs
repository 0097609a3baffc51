//! Ctrl-C.
//!
//! Every verb is safe to kill: what is not committed leaves no trace, and a
//! push is settled by its intent. So Ctrl-C simply ends the process, except in
//! a verb that has something to tidy up: that one holds [`Checkpoints`] and is
//! told instead. A second Ctrl-C does not wait for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use quire_engine::{Error, ErrorKind};

use crate::stop::{Outcome, Stop};

type Reaction = Box<dyn Fn() + Send>;

/// What the next Ctrl-C does; `None` ends the process.
static REACTION: Mutex<Option<Reaction>> = Mutex::new(None);

/// Takes over Ctrl-C, for the whole process.
pub(crate) fn install(json: bool) -> Outcome {
    ctrlc::set_handler(move || {
        let reaction = REACTION.lock().unwrap_or_else(PoisonError::into_inner).take();
        match reaction {
            Some(react) => react(),
            None => std::process::exit(Stop::Interrupted.report(json).into()),
        }
    })
    .map_err(|e| {
        let error = Error::new(ErrorKind::Io, "Ctrl-C can not be handled").with_source(e);
        error
            .with_remedy("Raise the limits of threads (`ulimit -u`) and of memory (`ulimit -v`), then try again.")
            .into()
    })
}

/// While it lives, Ctrl-C is told to somebody instead of ending the process.
struct Guard(());

impl Guard {
    /// Calls `react` at the next Ctrl-C, from another thread.
    fn new(react: impl Fn() + Send + 'static) -> Guard {
        *REACTION.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(react));
        Guard(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        *REACTION.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// For loops that end by themselves once Ctrl-C was pressed.
pub(crate) struct Checkpoints {
    pressed: Arc<AtomicBool>,
    _guard: Guard,
}

impl Checkpoints {
    /// From here on Ctrl-C shows at the next [`check`](Self::check).
    pub(crate) fn new() -> Checkpoints {
        Checkpoints::and(|| ())
    }

    /// As [`new`](Self::new), and Ctrl-C also calls `react`, to end what runs between two checks.
    pub(crate) fn and(react: impl Fn() + Send + 'static) -> Checkpoints {
        let pressed = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&pressed);
        let guard = Guard::new(move || {
            tell.store(true, Ordering::Relaxed);
            react();
        });
        Checkpoints { pressed, _guard: guard }
    }

    /// Stops here if Ctrl-C was pressed.
    pub(crate) fn check(&self) -> Outcome {
        if self.pressed.load(Ordering::Relaxed) { Err(Stop::Interrupted) } else { Ok(()) }
    }
}
