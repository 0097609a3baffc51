//! The bearer token, which must not leak into messages.

use std::fmt;

/// A token for a Quire server. Neither `Debug` nor any message shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Checks a token's text; a newline at its end is left out. `None` if it is
    /// empty or could not be sent in a header.
    pub(crate) fn parse(text: &str) -> Option<Token> {
        let text = text.trim_end_matches(['\r', '\n']);
        let sendable = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        sendable.then(|| Token(text.to_owned()))
    }

    /// The token itself, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}
