//! Volume names and how they become parts of object keys.

use std::fmt;
use std::sync::Arc;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use crate::{Error, Result};

/// Longest part of a name, percent-encoded, in bytes (file systems allow 255).
const MAX_PART_BYTES: usize = 200;
/// Longest name, percent-encoded, in bytes (S3 keys are at most 1,024).
const MAX_NAME_BYTES: usize = 640;

/// The checked name of a volume: parts divided by `/`, in Unicode normal form
/// C, none of them empty, `.` or `..`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeName {
    name: Arc<str>,
}

impl VolumeName {
    /// Checks a name that a person typed. Equal names in different Unicode
    /// forms become the same name.
    pub fn parse(input: &str) -> Result<VolumeName> {
        let name: String = match is_nfc_quick(input.chars()) {
            IsNormalized::Yes => input.to_owned(),
            _ => input.nfc().collect(),
        };
        let wrong = |problem: &str| {
            Error::invalid(format!("volume name {input:?} {problem}"))
                .with_remedy("A name is made of parts divided by '/', such as team/app.db.")
        };
        if name.is_empty() {
            return Err(wrong("is empty"));
        }
        for part in name.split('/') {
            match part {
                "" => return Err(wrong("has an empty part")),
                "." | ".." => return Err(wrong("has the part '.' or '..'")),
                _ if part.chars().any(char::is_control) => return Err(wrong("has a control character")),
                _ if encoded_len(part) > MAX_PART_BYTES => return Err(wrong("has a part longer than 200 bytes")),
                _ => {}
            }
        }
        if encoded_len(&name) > MAX_NAME_BYTES {
            return Err(wrong("is longer than 640 bytes"));
        }
        Ok(VolumeName { name: name.into() })
    }

    /// The name as people write it.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The name as a part of object keys and paths: percent-encoded UTF-8 with
    /// upper-case hex; letters, digits, `.`, `_`, `-` and `/` stay.
    pub fn encoded(&self) -> String {
        let mut out = String::with_capacity(self.name.len());
        for byte in self.name.bytes() {
            if is_plain(byte) {
                out.push(byte as char);
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
        }
        out
    }

    /// The name that [`encoded`](Self::encoded) gives this text; any other text is an error.
    pub fn decode(encoded: &str) -> Result<VolumeName> {
        let wrong = || Error::corrupt(format!("{encoded:?} is not the encoding of a volume name"));
        let mut bytes = Vec::with_capacity(encoded.len());
        let mut rest = encoded.as_bytes();
        while let Some((&byte, tail)) = rest.split_first() {
            rest = tail;
            if byte != b'%' {
                bytes.push(byte);
                continue;
            }
            let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok()).ok_or_else(wrong)?;
            bytes.push(u8::from_str_radix(hex, 16).map_err(|_| wrong())?);
            rest = &tail[2..];
        }
        let name = String::from_utf8(bytes).map_err(|_| wrong())?;
        let name = VolumeName::parse(&name).map_err(|_| wrong())?;
        if name.encoded() == encoded { Ok(name) } else { Err(wrong()) }
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/')
}

fn encoded_len(text: &str) -> usize {
    text.bytes().map(|b| if is_plain(b) { 1 } else { 3 }).sum()
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn odd_names_are_refused_with_their_problem() {
        for (name, problem) in [
            ("", "empty"),
            ("/a", "empty part"),
            ("a//b", "empty part"),
            ("a/", "empty part"),
            ("../a", "'..'"),
            ("a/./b", "'.'"),
            ("a\nb", "control"),
            (&"x".repeat(201), "200"),
            (&["y".repeat(190), "y".repeat(190), "y".repeat(190), "y".repeat(190)].join("/"), "640"),
        ] {
            let error = VolumeName::parse(name).unwrap_err().to_string();
            assert!(error.contains(problem), "{name:?}: {error}");
        }
    }

    #[test]
    fn unicode_forms_of_one_name_are_one_volume() {
        let composed = VolumeName::parse("caf\u{e9}").unwrap();
        let decomposed = VolumeName::parse("cafe\u{301}").unwrap();
        assert_eq!(composed, decomposed);
        assert_eq!(composed.encoded(), "caf%C3%A9");
    }

    #[test]
    fn a_bang_can_not_occur_in_a_key() {
        assert_eq!(VolumeName::parse("a!/!").unwrap().encoded(), "a%21/%21");
    }

    proptest! {
        #[test]
        fn encodings_come_back(text in "\\PC{1,40}(/\\PC{1,20})?") {
            if let Ok(name) = VolumeName::parse(&text) {
                prop_assert_eq!(VolumeName::decode(&name.encoded()).unwrap(), name);
            }
        }

        #[test]
        fn any_text_is_an_encoding_or_an_error(text: String) {
            if let Ok(name) = VolumeName::decode(&text) {
                prop_assert_eq!(name.encoded(), text);
            }
        }
    }
}
