//! Processes of a test: its binary runs itself again.
//!
//! A test file that wants them has an ignored test called `child`, which does
//! what [`Orders`] say. A child reports by lines on its standard output; it
//! ends at the latest with its parent, whose end closes its standard input.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// Marks the lines that are meant for the parent: the test harness prints, too.
const MARK: &str = "child: ";
const ROLE: &str = "QUIRE_TEST_ROLE";
/// A child that is silent for this long hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A child, as its parent sees it. Killed when dropped.
pub struct Child {
    process: std::process::Child,
    lines: Receiver<String>,
}

impl Child {
    /// Starts a child. `settings` and `variables` become its environment.
    pub fn start(role: &str, settings: &[(&str, String)], variables: &[(String, String)]) -> Child {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .envs(settings.iter().map(|(key, value)| (format!("{ROLE}_{key}"), value)))
            .envs(variables.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some((_, line)) = line.split_once(MARK)
                    && sender.send(line.to_owned()).is_err()
                {
                    return;
                }
            }
        });
        Child { process, lines }
    }

    /// Lets a child that waits in [`Orders::wait`] go on.
    pub fn go(&mut self) {
        self.process.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    }

    /// Its next line; none once it has ended.
    pub fn line(&self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(checked(line)),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the child hangs"),
        }
    }

    /// Kills it, which must still be running, and returns the lines that are left.
    pub fn kill(mut self) -> Vec<String> {
        assert_eq!(self.process.try_wait().unwrap(), None, "the child ended by itself: {:?}", self.rest());
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.rest()
    }

    /// Waits until it has done its work, and returns the lines that are left.
    pub fn finish(mut self) -> Vec<String> {
        let rest = self.rest();
        assert!(self.process.wait().unwrap().success(), "the child failed");
        rest
    }

    fn rest(&self) -> Vec<String> {
        std::iter::from_fn(|| self.line()).collect()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn checked(line: String) -> String {
    assert!(!line.starts_with("panicked"), "the child {line}");
    line
}

/// What a child is told to do.
pub struct Orders {
    pub role: String,
    commands: Receiver<()>,
}

impl Orders {
    /// None if this process is nobody's child.
    pub fn of_this_process() -> Option<Orders> {
        let role = std::env::var(ROLE).ok()?;
        std::panic::set_hook(Box::new(|panic| {
            tell(&format!("panicked: {panic}").replace('\n', " "));
            std::process::abort();
        }));
        let (sender, commands) = channel();
        std::thread::spawn(move || {
            for _ in std::io::stdin().lines().map_while(Result::ok) {
                let _ = sender.send(());
            }
            std::process::exit(3); // the parent has ended
        });
        Some(Orders { role, commands })
    }

    pub fn text(&self, key: &str) -> String {
        std::env::var(format!("{ROLE}_{key}")).unwrap_or_else(|e| panic!("{key}: {e}"))
    }

    pub fn number(&self, key: &str) -> u64 {
        self.text(key).parse().unwrap()
    }

    /// Returns once the parent says go.
    pub fn wait(&self) {
        self.commands.recv().unwrap();
    }
}

/// A line to the parent: one write, so that a kill leaves all of it or nothing.
pub fn tell(line: &str) {
    let line = format!("{MARK}{line}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}
