//! What a command takes: time, and memory at its peak.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A command that succeeded.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Its peak of resident memory, files that it has mapped included. Not less
    /// than what the test process had at its own peak: the kernel counts from the fork.
    pub peak_bytes: u64,
    /// From its start to its end.
    pub time: Duration,
}

/// Runs a command to its end, which must be a success.
#[expect(clippy::zombie_processes, reason = "wait4 waits for it, and says what it used")]
pub fn measure(command: &mut Command) -> Measured {
    let start = Instant::now();
    let child = command.stdout(Stdio::null()).spawn().unwrap();
    let pid = libc::pid_t::try_from(child.id()).unwrap();
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: both pointers are valid for writing; zeroes are a valid rusage.
    let (waited, usage) = unsafe { (libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()), usage.assume_init()) };
    assert_eq!((waited, status), (pid, 0), "{command:?}");
    Measured { peak_bytes: u64::try_from(usage.ru_maxrss).unwrap() * 1024, time: start.elapsed() }
}
