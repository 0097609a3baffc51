//! Where a value comes from.

use std::fmt;
use std::path::PathBuf;

use quire_proto::Error;

use crate::Key;

/// Where a setting's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A flag of the command line, such as `--store`.
    Flag(&'static str),
    /// A parameter of a `file:` URI or a pragma.
    Uri(&'static str),
    /// An environment variable.
    Environment(&'static str),
    /// A `quire.toml`.
    File(PathBuf),
    /// Nobody set it.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Flag(flag) => write!(f, "flag {flag}"),
            Source::Uri(parameter) => write!(f, "URI parameter {parameter}"),
            Source::Environment(variable) => write!(f, "environment variable {variable}"),
            Source::File(path) => write!(f, "{}", path.display()),
            Source::Default => f.write_str("default"),
        }
    }
}

/// A setting's value is wrong: names the setting, its source, the problem and what is allowed.
pub(crate) fn wrong(key: Key, source: &Source, problem: impl fmt::Display) -> Error {
    Error::invalid(format!("setting {} ({source}): {problem}", key.name()))
        .with_remedy(format!("Allowed: {}.", key.allowed()))
}
