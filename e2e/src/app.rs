//! A SQLite program in a process of its own, driven line by line.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// A program that is silent for this long hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// The rows that a line of SQL gave, their values joined by `|`; or why it failed.
pub type Answer = Result<Vec<String>, Failure>;

/// Why a line of SQL failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// SQLite's extended code.
    pub code: i32,
    /// Its message.
    pub message: String,
}

/// A running program. Killed when dropped; it also ends with the test process,
/// whose end closes its standard input.
pub struct App {
    process: Child,
    answers: Receiver<Answer>,
    complaints: Option<JoinHandle<String>>,
    opened: Answer,
}

impl App {
    /// Starts it, and waits until it has opened its database or failed to.
    pub(crate) fn start(mut command: Command) -> App {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut stderr = process.stderr.take().unwrap();
        let complaints = std::thread::spawn(move || {
            let mut text = Vec::new();
            stderr.read_to_end(&mut text).unwrap();
            String::from_utf8_lossy(&text).into_owned()
        });
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            let mut rows = Vec::new();
            for line in output.lines().map_while(Result::ok) {
                let answer = match line.split_at_checked(1) {
                    Some(("=", row)) => {
                        rows.push(row.to_owned());
                        continue;
                    }
                    Some(("!", failure)) => Err(Failure::parse(failure)),
                    _ => Ok(std::mem::take(&mut rows)),
                };
                rows.clear();
                let _ = sender.send(answer); // nobody waits for it after a test has failed
            }
        });
        let mut app = App { process, answers, complaints: Some(complaints), opened: Ok(Vec::new()) };
        app.opened = app.answer().unwrap_or_else(|| panic!("it ended at once: {}", app.end()));
        app
    }

    /// How opening the database went.
    pub fn opened(&self) -> Result<(), Failure> {
        self.opened.clone().map(|_| ())
    }

    /// Hands over a line of SQL without waiting for the answer.
    pub fn send(&mut self, sql: &str) {
        assert!(!sql.contains('\n'), "one line at a time");
        let line = format!("{sql}\n");
        let stdin = self.process.stdin.as_mut().unwrap();
        stdin.write_all(line.as_bytes()).unwrap_or_else(|e| panic!("the program has ended: {e}"));
    }

    /// The next answer; none once the program has ended.
    pub fn answer(&mut self) -> Option<Answer> {
        match self.answers.recv_timeout(PATIENCE) {
            Ok(answer) => Some(answer),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the program hangs"),
        }
    }

    /// Runs a line of SQL.
    pub fn try_sql(&mut self, sql: &str) -> Answer {
        if let Err(failure) = &self.opened {
            return Err(failure.clone());
        }
        self.send(sql);
        self.answer().unwrap_or_else(|| panic!("{sql}: the program ended: {}", self.end()))
    }

    /// Runs a line of SQL that must succeed.
    #[track_caller]
    pub fn sql(&mut self, sql: &str) -> Vec<String> {
        self.try_sql(sql).unwrap_or_else(|failure| panic!("{sql}: {failure:?}"))
    }

    /// The one row that a line of SQL gives.
    #[track_caller]
    pub fn one(&mut self, sql: &str) -> String {
        let mut rows = self.sql(sql);
        assert_eq!(rows.len(), 1, "{sql}: {rows:?}");
        rows.remove(0)
    }

    /// Why a line of SQL fails, which it must.
    #[track_caller]
    pub fn failure(&mut self, sql: &str) -> Failure {
        self.try_sql(sql).expect_err(sql)
    }

    /// Ends it by SIGKILL, wherever it is, and gives the answers that were not taken yet.
    pub fn kill(mut self) -> Vec<Answer> {
        assert_eq!(self.process.try_wait().unwrap(), None, "it ended by itself: {}", self.end());
        self.process.kill().unwrap();
        let rest = std::iter::from_fn(|| self.answer()).collect();
        self.end();
        rest
    }

    /// Lets it close its database and end; gives what it wrote to standard error.
    pub fn finish(mut self) -> String {
        drop(self.process.stdin.take());
        while self.answer().is_some() {}
        let status = self.process.wait().unwrap();
        let complaints = self.end();
        assert!(status.success(), "the program ended with {status}: {complaints}");
        complaints
    }

    /// Its process.
    pub fn process(&self) -> &Child {
        &self.process
    }

    /// What it wrote to standard error, once it has ended; a panic is one here, too.
    fn end(&mut self) -> String {
        drop(self.process.stdin.take());
        self.process.wait().unwrap();
        let complaints = self.complaints.take().map(|thread| thread.join().unwrap()).unwrap_or_default();
        assert!(!complaints.contains("panicked"), "{complaints}");
        complaints
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Failure {
    fn parse(text: &str) -> Failure {
        let (code, message) = text.split_once(' ').unwrap();
        Failure { code: code.parse().unwrap(), message: message.replace("\\n", "\n") }
    }
}
