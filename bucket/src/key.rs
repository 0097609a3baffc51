//! The checked key of an object inside a store.

use std::fmt;
use std::sync::Arc;

use quire_proto::{Error, Result};

/// Longest key, in bytes: with the longest store prefix (256) it stays within
/// the 1,024 that S3 allows.
const MAX_KEY_BYTES: usize = 768;

/// Where an object lies, relative to the store: parts of letters, digits and
/// `.` `_` `-` `!` `%`, divided by `/`. Cheap to clone, ordered as stores list.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// Checks a key.
    pub fn parse(text: &str) -> Result<Key> {
        let wrong = |problem: &str| Error::invalid(format!("object key {text:?} {problem}"));
        if text.len() > MAX_KEY_BYTES {
            return Err(wrong("is longer than 768 bytes").with_remedy("Choose a shorter volume name."));
        }
        for part in text.split('/') {
            match part {
                "" => return Err(wrong("has an empty part")),
                "." | ".." => return Err(wrong("has the part '.' or '..'")),
                _ if !part.bytes().all(is_allowed) => return Err(wrong("has a character that keys do not use")),
                _ => {}
            }
        }
        Ok(Key(text.into()))
    }

    /// A key built from parts that are right by construction.
    pub(crate) fn trusted(text: String) -> Key {
        debug_assert!(Key::parse(&text).is_ok(), "{text:?} is a valid key");
        Key(text.into())
    }

    /// All but its last part.
    pub fn directory(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(directory, _)| directory)
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'!' | b'%')
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_could_leave_the_store_are_refused() {
        for text in ["", "/a", "a/", "a//b", ".", "..", "a/../b", "a b", "a\\b", "caf\u{e9}", "a#1", &"x".repeat(769)] {
            Key::parse(text).expect_err(text);
        }
        Key::parse("v/caf%C3%A9/!/c/0000000000000/0ff").expect("a commit's key");
    }
}
