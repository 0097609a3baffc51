//! The explained differences: which cases of SQLite's scripts fail on Quire,
//! and why they must.
//!
//! The file is text. A line that begins with `=` is a reason; the lines below
//! it, up to the next reason, name a script and the cases that fail for it:
//! `script case case*`. What else goes wrong has names in brackets: `(aborted)`,
//! `(child aborted)`, `(timeout)`, `(leak)`, `(exit)` for a status that nothing explains, and `(empty)` for a script
//! that runs no case at all.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// All explained differences.
pub(super) struct Differences {
    entries: Vec<Entry>,
}

struct Entry {
    script: String,
    case: String,
}

/// What the failures of one script are.
pub(super) struct Judged {
    pub(super) explained: usize,
    pub(super) unexplained: Vec<String>,
    /// Patterns that are explained, and met by no failure.
    pub(super) gone: Vec<String>,
}

impl Differences {
    pub(super) fn read(file: &Path) -> Result<Differences> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        Differences::parse(&text).with_context(|| file.display().to_string())
    }

    fn parse(text: &str) -> Result<Differences> {
        let mut entries = Vec::new();
        let mut has_reason = false;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(reason) = line.strip_prefix('=') {
                has_reason = !reason.trim().is_empty();
                continue;
            }
            ensure!(has_reason, "line {}: cases without a reason above them", number + 1);
            let mut words = line.split_whitespace();
            let script = words.next().unwrap_or_default();
            let cases: Vec<&str> = words.collect();
            ensure!(!cases.is_empty(), "line {}: script {script} without cases", number + 1);
            entries.extend(cases.into_iter().map(|case| Entry { script: script.to_owned(), case: case.to_owned() }));
        }
        Ok(Differences { entries })
    }

    /// Compares the cases of `script` that failed with those that must.
    pub(super) fn judge(&self, script: &str, failed: &[String]) -> Judged {
        let mine: Vec<&Entry> = self.entries.iter().filter(|entry| entry.script == script).collect();
        let is_explained = |case: &String| mine.iter().any(|entry| matches(&entry.case, case));
        let unexplained: Vec<String> = failed.iter().filter(|case| !is_explained(case)).cloned().collect();
        let is_gone = |entry: &&&Entry| !failed.iter().any(|case| matches(&entry.case, case));
        let gone = mine.iter().filter(is_gone).map(|entry| entry.case.clone()).collect();
        Judged { explained: failed.len() - unexplained.len(), unexplained, gone }
    }
}

/// Whether a name is meant by a pattern, in which `*` stands for anything.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == name };
    let Some(rest) = name.strip_prefix(before) else { return false };
    rest.char_indices().map(|(at, _)| at).chain([rest.len()]).any(|at| matches(after, &rest[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, name) in [("a-1", "a-1"), ("a*", "a"), ("a*", "a-1.2"), ("*-1.*.3", "x-1.2.3"), ("a*b*", "acbd")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("a-1", "a-1.2"), ("a*b", "abc"), ("*-2", "a-1"), ("a", "")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn what_is_not_explained_and_what_does_not_fail_any_more_are_told() {
        let text = "# told\n= No file.\npager pager-1.* pager-9\nvacuum vacuum-1\n";
        let judged = Differences::parse(text).unwrap().judge("pager", &["pager-1.2".into(), "pager-2".into()]);
        assert_eq!(judged.explained, 1);
        assert_eq!(judged.unexplained, ["pager-2"]);
        assert_eq!(judged.gone, ["pager-9"]);
    }

    #[test]
    fn cases_need_a_reason() {
        assert!(Differences::parse("pager pager-1\n").is_err());
        assert!(Differences::parse("= \npager pager-1\n").is_err());
        assert!(Differences::parse("= No file.\npager\n").is_err());
    }
}
