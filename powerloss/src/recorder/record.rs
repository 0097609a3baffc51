//! The recorder's loop.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitCode};

use libc::pid_t;
use quire_powerloss::Event;

use crate::calls::{CALLS, Pending, Recorded};
use crate::tracee::{Call, Change, Stop, Tracee};

/// The status of a recorder that could not record.
const FAILED: u8 = 70;

pub(crate) fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let [root, recording, program, arguments @ ..] = words.as_slice() else {
        eprintln!("usage: quire-powerloss-recorder FOLDER RECORDING PROGRAM [ARGUMENT...]");
        return ExitCode::from(2);
    };
    let mut command = Command::new(program);
    command.args(arguments);
    match record(root.as_ref(), recording.as_ref(), command) {
        Ok(status) => ExitCode::from(status),
        Err(e) => {
            eprintln!("quire-powerloss-recorder: {e}");
            ExitCode::from(FAILED)
        }
    }
}

/// Runs a program to its end, and appends what it does to the recording.
fn record(root: &Path, recording: &Path, command: Command) -> io::Result<u8> {
    let mut recording = File::options().append(true).create(true).open(recording)?;
    recording.write_all(&Event::Started.encode())?;
    let mut recorder = Recorder {
        tracee: Tracee::start(command, CALLS)?,
        recorded: Recorded::new(root.canonicalize()?),
        recording,
        running: None,
        waiting: VecDeque::new(),
    };
    loop {
        match recorder.tracee.next()? {
            Change::Ended(thread, status) if thread == recorder.tracee.pid => return Ok(status as u8),
            Change::Ended(thread, _) => recorder.ended(thread)?,
            Change::Stopped(thread, stop) => recorder.stopped(thread, stop)?,
        }
    }
}

struct Recorder {
    tracee: Tracee,
    recorded: Recorded,
    recording: File,
    /// The thread that makes a recorded call.
    running: Option<(pid_t, Pending)>,
    /// Threads that are about to make one.
    waiting: VecDeque<(pid_t, Call)>,
}

impl Recorder {
    fn stopped(&mut self, thread: pid_t, stop: Stop) -> io::Result<()> {
        match stop {
            Stop::Entry(call) => {
                self.waiting.push_back((thread, call));
                self.run_next()
            }
            Stop::Exit(result) => {
                if let Some((_, pending)) = self.running.take_if(|(running, _)| *running == thread)
                    && let Some(event) = self.recorded.end(&self.tracee, pending, result)?
                {
                    self.recording.write_all(&event.encode())?;
                }
                self.tracee.go_on(thread, 0)?;
                self.run_next()
            }
            Stop::StartedAnother => {
                Err(io::Error::other("the recorder follows one program, and it has started another"))
            }
            Stop::Signal(signal) => self.tracee.go_on(thread, signal),
            Stop::Other => self.tracee.go_on(thread, 0),
        }
    }

    /// A thread that was killed in a call comes back from none.
    fn ended(&mut self, thread: pid_t) -> io::Result<()> {
        self.waiting.retain(|(waiting, _)| *waiting != thread);
        self.running.take_if(|(running, _)| *running == thread);
        self.run_next()
    }

    /// Lets the calls that wait go on, up to the first that is recorded.
    fn run_next(&mut self) -> io::Result<()> {
        while self.running.is_none()
            && let Some((thread, call)) = self.waiting.pop_front()
        {
            match self.recorded.begin(&self.tracee, call)? {
                Some(pending) => {
                    self.running = Some((thread, pending));
                    self.tracee.finish_call(thread)?;
                }
                None => self.tracee.go_on(thread, 0)?,
            }
        }
        Ok(())
    }
}
