//! The traced program: starting it, stopping it at the system calls of
//! interest, and looking into it.
//!
//! A seccomp filter picks the calls, so all others run at full speed; it works
//! below libc, so that nothing which calls the kernel by itself gets past it.

use std::fs::File;
use std::io;
use std::mem::{MaybeUninit, offset_of, size_of};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::ptr::{null_mut, without_provenance_mut};

use libc::{c_int, c_long, c_void, pid_t};

/// The number of a system call and its arguments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) number: c_long,
    pub(crate) arguments: [u64; 6],
}

/// What a thread has stopped for.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It is about to make a call that the filter picked.
    Entry(Call),
    /// A call has returned this, negative for an error.
    Exit(i64),
    /// It has started another process, or become another program.
    StartedAnother,
    /// A signal is about to be delivered.
    Signal(c_int),
    /// Nothing of interest.
    Other,
}

/// What has happened.
pub(crate) enum Change {
    /// A thread has stopped.
    Stopped(pid_t, Stop),
    /// A thread, or the whole program if it was the first, has ended with this status.
    Ended(pid_t, i32),
}

/// A traced program.
pub(crate) struct Tracee {
    pub(crate) pid: pid_t,
    memory: File,
}

const OPTIONS: c_int = libc::PTRACE_O_EXITKILL
    | libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACESECCOMP
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACEEXEC;

impl Tracee {
    /// Starts a program, which stops at these calls from now on. It dies with the calling thread.
    pub(crate) fn start(mut command: Command, calls: &[c_long]) -> io::Result<Tracee> {
        let filter = filter(calls);
        // SAFETY: between fork and exec only ptrace and prctl are called, which are async-signal-safe; the filter
        // was made before the fork.
        unsafe {
            command.pre_exec(move || {
                checked(libc::ptrace(libc::PTRACE_TRACEME, 0, null_mut::<c_void>(), null_mut::<c_void>()))?;
                checked(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into())?;
                let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
                checked(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program).into())?;
                Ok(())
            });
        }
        let child = command.spawn()?;
        let pid = child.id() as pid_t;
        // The first stop is that after exec.
        wait(pid)?;
        trace(libc::PTRACE_SETOPTIONS, pid, OPTIONS as usize)?;
        let memory = File::open(format!("/proc/{pid}/mem"))?;
        let tracee = Tracee { pid, memory };
        tracee.go_on(pid, 0)?;
        Ok(tracee)
    }

    /// Waits until a thread stops or ends.
    pub(crate) fn next(&self) -> io::Result<Change> {
        let (thread, status) = wait(-1)?;
        if libc::WIFEXITED(status) {
            return Ok(Change::Ended(thread, libc::WEXITSTATUS(status)));
        }
        if libc::WIFSIGNALED(status) {
            return Ok(Change::Ended(thread, 128 + libc::WTERMSIG(status)));
        }
        let stop = match (libc::WSTOPSIG(status), status >> 16) {
            (libc::SIGTRAP, libc::PTRACE_EVENT_SECCOMP) => call(thread)?,
            (libc::SIGTRAP, libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_EXEC) => {
                Stop::StartedAnother
            }
            (libc::SIGTRAP, 1..) => Stop::Other,
            (signal, _) if signal == libc::SIGTRAP | 0x80 => call(thread)?,
            // A new thread begins with it; nobody else sends it.
            (libc::SIGSTOP, _) => Stop::Other,
            (signal, _) => Stop::Signal(signal),
        };
        Ok(Change::Stopped(thread, stop))
    }

    /// Lets a thread run up to the next call of interest, with a signal unless that is 0.
    pub(crate) fn go_on(&self, thread: pid_t, signal: c_int) -> io::Result<()> {
        trace(libc::PTRACE_CONT, thread, signal as usize)
    }

    /// Lets a thread make the call that it is about to make; it stops after it.
    pub(crate) fn finish_call(&self, thread: pid_t) -> io::Result<()> {
        trace(libc::PTRACE_SYSCALL, thread, 0)
    }

    /// A part of its memory.
    pub(crate) fn bytes(&self, address: u64, len: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len as usize];
        self.memory.read_exact_at(&mut bytes, address)?;
        Ok(bytes)
    }

    /// A string in its memory, up to the zero that ends it.
    pub(crate) fn string(&self, address: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; libc::PATH_MAX as usize];
        let len = self.memory.read_at(&mut bytes, address)?;
        let end = bytes[..len].iter().position(|byte| *byte == 0);
        bytes.truncate(end.ok_or(io::ErrorKind::InvalidData)?);
        Ok(bytes)
    }

    /// Its current folder, or what a descriptor leads to.
    pub(crate) fn folder(&self, fd: c_int) -> io::Result<PathBuf> {
        let pid = self.pid;
        std::fs::read_link(if fd == libc::AT_FDCWD {
            format!("/proc/{pid}/cwd")
        } else {
            format!("/proc/{pid}/fd/{fd}")
        })
    }

    /// Where the next byte would be read or written.
    pub(crate) fn position(&self, fd: u32) -> io::Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/fdinfo/{fd}", self.pid))?;
        let position = text.lines().find_map(|line| line.strip_prefix("pos:")?.trim().parse().ok());
        position.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// Which call a thread has stopped at.
fn call(thread: pid_t) -> io::Result<Stop> {
    let mut info = MaybeUninit::<libc::ptrace_syscall_info>::zeroed();
    let (request, len) = (libc::PTRACE_GET_SYSCALL_INFO, size_of::<libc::ptrace_syscall_info>());
    // SAFETY: the kernel writes at most as many bytes as it is told.
    let asked = checked(unsafe { libc::ptrace(request, thread, len, info.as_mut_ptr()) });
    if is_gone(&asked) {
        return Ok(Stop::Other);
    }
    asked?;
    // SAFETY: zeroes are a valid value, and the kind says which part of the union was written.
    Ok(unsafe {
        let info = info.assume_init();
        match info.op {
            libc::PTRACE_SYSCALL_INFO_SECCOMP => {
                let call = info.u.seccomp;
                Stop::Entry(Call { number: call.nr as c_long, arguments: call.args })
            }
            libc::PTRACE_SYSCALL_INFO_EXIT => Stop::Exit(info.u.exit.sval),
            _ => Stop::Other,
        }
    })
}

/// The thread was killed meanwhile, by another one that ended the program: that is said when it is waited for.
fn is_gone<T>(asked: &io::Result<T>) -> bool {
    asked.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::ESRCH))
}

fn wait(pid: pid_t) -> io::Result<(pid_t, c_int)> {
    let mut status = 0;
    // SAFETY: the pointer is valid for writing.
    let thread = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
    checked(thread.into())?;
    Ok((thread, status))
}

/// A request about a thread that takes a number.
fn trace(request: libc::c_uint, thread: pid_t, data: usize) -> io::Result<()> {
    // SAFETY: none of these requests follows a pointer.
    let done = unsafe { libc::ptrace(request, thread, null_mut::<c_void>(), without_provenance_mut::<c_void>(data)) };
    let done = checked(done);
    if is_gone(&done) { Ok(()) } else { done.map(|_| ()) }
}

fn checked(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A program for the kernel that stops these calls and lets all others pass.
fn filter(calls: &[c_long]) -> Vec<libc::sock_filter> {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let number = offset_of!(libc::seccomp_data, nr) as u32;
    let mut filter = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, number)];
    for call in calls {
        let equal = statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, *call as u32);
        filter.push(libc::sock_filter { jf: 1, ..equal });
        filter.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_TRACE));
    }
    filter.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW));
    filter
}
