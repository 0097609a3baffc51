//! Runs a program and records what it asks of the disk below one folder.
//!
//! It traces the program with the kernel's help (ptrace, and a seccomp filter
//! that picks the calls), not by replacing functions of libc: some libraries
//! call the kernel by themselves. What it does not know how to record, it
//! refuses, and the program dies with it.
//!
//! One recorded call runs at a time, in whichever thread. So the order of the
//! events is the order of their effects, and a sync covers what is before it.

#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod record;
#[cfg(target_os = "linux")]
mod tracee;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    record::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("quire-powerloss-recorder: only Linux lets it trace a program");
    std::process::exit(2);
}
