//! `quire.toml`.

use std::io;
use std::path::{Path, PathBuf};

use quire_proto::{Error, Result};
use toml::{Table, Value};

use crate::Key;
use crate::nearest::nearest;
use crate::source::{Source, wrong};

/// A `quire.toml` that was read: its keys are known, its values are still text.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    path: PathBuf,
    values: Vec<(Key, String)>,
}

impl ConfigFile {
    /// Reads `quire.toml` in `folder`; `None` if there is none.
    pub(crate) fn read(folder: &Path) -> Result<Option<ConfigFile>> {
        let path = folder.join("quire.toml");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
            Err(e) => {
                return Err(Error::from_io(format!("reading {}", path.display()), e)
                    .with_remedy("Make the file readable, or remove it."));
            }
        };
        ConfigFile::parse(path, &text).map(Some)
    }

    pub(crate) fn parse(path: PathBuf, text: &str) -> Result<ConfigFile> {
        let table: Table = text.parse().map_err(|e: toml::de::Error| {
            Error::invalid(format!("{} is not TOML: {}", path.display(), e.to_string().trim_end()))
                .with_remedy("Write one setting a line, such as: store = \"s3://bucket/prefix\"")
        })?;
        let mut values = Vec::new();
        for (name, value) in table {
            let key = Key::by_name(&name).ok_or_else(|| unknown_key(&path, &name))?;
            let text = match value {
                Value::String(text) => text,
                Value::Integer(bytes) if key == Key::CacheSize => bytes.to_string(),
                other => {
                    let source = Source::File(path.clone());
                    return Err(wrong(key, &source, format!("a text is needed, not {}", other.type_str())));
                }
            };
            values.push((key, text));
        }
        Ok(ConfigFile { path, values })
    }

    /// The value of a setting, and where it stands.
    pub(crate) fn value(&self, key: Key) -> Option<(&str, Source)> {
        let (_, text) = self.values.iter().find(|(name, _)| *name == key)?;
        Some((text, Source::File(self.path.clone())))
    }

    /// The folder from which relative paths in the file start.
    pub(crate) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }
}

fn unknown_key(path: &Path, name: &str) -> Error {
    let error = Error::invalid(format!("{}: no setting is called {name:?}", path.display()));
    let known = Key::ALL.map(Key::name);
    match nearest(name, known) {
        Some(meant) => error.with_remedy(format!("Did you mean {meant:?}?")),
        None => error.with_remedy(format!("Settings are: {}.", known.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        format!("{:?}", ConfigFile::parse("/etc/quire.toml".into(), text).unwrap_err())
    }

    #[test]
    fn an_unknown_key_is_an_error_that_suggests_the_nearest() {
        assert!(problem("sotre = 'memory://'").contains("Did you mean \"store\"?"));
        let error = problem("colour = 'red'");
        assert!(error.contains("/etc/quire.toml: no setting is called \"colour\""), "{error}");
        assert!(error.contains("data_dir, store, sync"), "{error}");
        assert!(problem("[store]\nurl = 'memory://'").contains("a text is needed, not table"));
    }

    #[test]
    fn broken_toml_is_an_error_that_names_file_and_line() {
        let error = problem("store = \"memory://\"\nsync = manual\n");
        assert!(error.contains("/etc/quire.toml is not TOML"), "{error}");
        assert!(error.contains("line 2"), "{error}");
    }
}
