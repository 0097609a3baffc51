//! Talks with `reader.py`, the demo's other program: one line of JSON asks,
//! one line answers.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{paths, process, tools};

/// A program with the volume open.
pub(crate) struct Reader {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// What came back for one question.
pub(crate) struct Answer {
    /// Rows of columns.
    pub(crate) rows: Vec<Value>,
    pub(crate) seconds: f64,
    stats: Value,
}

impl Answer {
    /// How far a counter of `quire_stats` moved.
    pub(crate) fn moved(&self, counter: &str) -> Result<u64> {
        self.stats[counter].as_u64().with_context(|| format!("quire_stats has no counter {counter}: {}", self.stats))
    }

    /// The first column of the first row, as text.
    pub(crate) fn text(&self) -> Result<&str> {
        self.rows.first().and_then(|row| row[0].as_str()).context("the answer is no text")
    }
}

impl Reader {
    /// Starts the program and opens the volume in it.
    pub(crate) fn open(extension: &Path, name: &str, data_dir: &Path, store: &str) -> Result<(Reader, Answer)> {
        let mut python = Command::new(tools::python()?);
        python.arg("-B").arg(paths::root().join("xtask/reader.py")).arg(extension).arg(name);
        process::with_store(&mut python, data_dir, store).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = python.spawn().context("cannot start reader.py")?;
        let questions = child.stdin.take().context("reader.py has no input")?;
        let answers = BufReader::new(child.stdout.take().context("reader.py has no output")?);
        let mut reader = Reader { child, questions, answers };
        let opened = reader.answer()?;
        Ok((reader, opened))
    }

    /// Runs SQL in the program.
    pub(crate) fn ask(&mut self, sql: &str) -> Result<Answer> {
        writeln!(self.questions, "{}", Value::from(sql))?;
        self.answer().with_context(|| format!("while asking {sql}"))
    }

    /// Ends the program by ending its input.
    pub(crate) fn close(self) -> Result<()> {
        let Reader { mut child, questions, .. } = self;
        drop(questions);
        let status = child.wait()?;
        ensure!(status.success(), "reader.py ended with {status}");
        Ok(())
    }

    fn answer(&mut self) -> Result<Answer> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(!line.is_empty(), "reader.py stopped; its error is above");
        let mut answer: Value = serde_json::from_str(&line)?;
        let Value::Array(rows) = answer["rows"].take() else {
            anyhow::bail!("reader.py sent no rows: {line}");
        };
        let seconds = answer["seconds"].as_f64().context("reader.py sent no seconds")?;
        Ok(Answer { rows, seconds, stats: answer["stats"].take() })
    }
}
