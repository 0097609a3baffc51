//! What one of SQLite's test scripts printed, and what that means.

use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::Result;

use super::bench::{Bench, scripts_folder};

/// What a script did.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) cases: usize,
    /// The cases that failed, and in brackets what else went wrong (see `differences.rs`).
    pub(super) failed: Vec<String>,
    pub(super) omitted: usize,
    /// Connections that were opened on Quire; unknown if the script did not come to its end.
    pub(super) on_quire: Option<usize>,
    /// Those that should have been, and were not.
    pub(super) strays: String,
    pub(super) took: Duration,
}

/// A script's name: its file's.
pub(super) fn name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Runs a script.
pub(super) fn run(bench: &Bench, name: &str, path: &Path) -> Result<Outcome> {
    let mut command = Command::new(&bench.source.testfixture);
    let ran = bench.run(command.arg(scripts_folder().join("prelude.tcl")).arg(path), &bench.home(name)?, name)?;
    Ok(outcome(ran))
}

/// The outcome of a program that prints what scripts print.
pub(super) fn outcome((status, printed): (ExitStatus, String)) -> Outcome {
    let mut outcome = read(&printed);
    if !status.success() && outcome.failed.is_empty() {
        outcome.failed.push("(exit)".to_owned());
    }
    outcome
}

impl Outcome {
    /// What could not run has failed.
    pub(super) fn not_run(why: &anyhow::Error) -> Outcome {
        Outcome { failed: vec![format!("(could not run: {why:#})")], ..Outcome::default() }
    }

    /// Why the script shows nothing about Quire, if it does not.
    pub(super) fn off_quire(&self) -> Option<String> {
        match (self.on_quire, self.strays.as_str()) {
            (Some(0), _) => Some("no database was on Quire".to_owned()),
            (None, _) => Some("it does not say whether databases were on Quire".to_owned()),
            (_, "") => None,
            (_, strays) => Some(format!("databases that were not on Quire: {strays}")),
        }
    }

    /// The outcome in a line.
    pub(super) fn line(&self) -> String {
        let failed = match self.failed.len() {
            0 => "ok".to_owned(),
            n => format!("{n} failed"),
        };
        format!("{:>6} cases  {failed:<12} {:>6.1} s", self.cases, self.took.as_secs_f64())
    }
}

/// Reads what a script printed.
fn read(text: &str) -> Outcome {
    let mut outcome = Outcome::default();
    let mut is_complete = false;
    let (mut in_omitted, mut has_aborted) = (false, false);
    for line in text.lines() {
        if let Some((errors, rest)) = line.split_once(" errors out of ")
            && errors.bytes().all(|byte| byte.is_ascii_digit())
        {
            // The sum counts itself.
            outcome.cases = number(rest).saturating_sub(1);
            is_complete = true;
        } else if let Some(cases) = line.strip_prefix("!Failures on these tests:") {
            outcome.failed.extend(cases.split_whitespace().map(str::to_owned));
        } else if line.starts_with("Unfreed memory:") || line.ends_with(" files were left open") {
            outcome.failed.push("(leak)".to_owned());
        } else if let Some(rest) = line.strip_prefix("quire: opened ") {
            outcome.on_quire = Some(number(rest));
            outcome.strays =
                rest.split_once("strays: ").map(|(_, strays)| strays.trim().to_owned()).unwrap_or_default();
        } else if line.starts_with("quire: aborted") {
            has_aborted = true;
        } else if line == "Omitted test cases:" {
            in_omitted = true;
        } else if in_omitted && line.starts_with(".  ") {
            outcome.omitted += 1;
        }
    }
    if is_complete && outcome.cases == 0 {
        outcome.failed.push("(empty)".to_owned());
    }
    if is_complete && has_aborted {
        outcome.failed.push("(child aborted)".to_owned());
    }
    if !is_complete {
        outcome.cases = text.matches("... Ok").count();
        outcome.failed = text.lines().filter_map(failed_case).collect();
        outcome.failed.push("(aborted)".to_owned());
    }
    outcome
}

/// The case in `! case expected: …`.
fn failed_case(line: &str) -> Option<String> {
    Some(line.strip_prefix("! ")?.split_once(" expected: ")?.0.to_owned())
}

fn number(text: &str) -> usize {
    let digits: String = text.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_summed_up() {
        let text = "a-1... Ok\n2 errors out of 12 tests on here\n!Failures on these tests: a-2 a-3\n\
                    Omitted test cases:\n.  a-4 no threads\nquire: opened 7 on quire, 1 elsewhere, strays: \n";
        let outcome = read(text);
        assert_eq!((outcome.cases, outcome.omitted, outcome.on_quire), (11, 1, Some(7)));
        assert_eq!(outcome.failed, ["a-2", "a-3"]);
        assert_eq!(outcome.off_quire(), None);
    }

    #[test]
    fn a_script_without_a_database_on_quire_has_failed() {
        let sum = "0 errors out of 12 tests on here\n";
        assert!(read(sum).off_quire().is_some());
        assert!(read(&format!("{sum}quire: opened 0 on quire, strays: \n")).off_quire().is_some());
        assert!(read(&format!("{sum}quire: opened 1 on quire, strays: test.db:unix\n")).off_quire().is_some());
    }

    #[test]
    fn a_script_that_skips_everything_has_failed() {
        assert_eq!(read("0 errors out of 1 tests on here\nquire: opened 1 on quire, strays: \n").failed, ["(empty)"]);
    }

    #[test]
    fn a_script_that_ends_in_the_middle_has_failed() {
        let outcome = read("a-1... Ok\na-2...\n! a-2 expected: [1]\n! a-2 got:      [0]\na-3...");
        assert_eq!((outcome.cases, outcome.failed), (1, vec!["a-2".to_owned(), "(aborted)".to_owned()]));
    }
}
