//! What is measured: plain SQLite, Quire, or any other VFS extension.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

/// One way to have a SQLite database.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Contender {
    pub(crate) name: String,
    /// The extension and its VFS; none for plain SQLite.
    pub(crate) vfs: Option<(PathBuf, String)>,
    /// Where the extension is entered, if SQLite cannot tell from its name.
    pub(crate) entry: Option<String>,
    /// Variables of its environment, in which `{data}` stands for its data directory.
    pub(crate) variables: Vec<(String, String)>,
    /// Run on every connection.
    pub(crate) setup: String,
    /// SQL that pushes.
    pub(crate) push: Option<String>,
}

/// The names that the report compares.
pub(crate) const PLAIN: &str = "plain, NORMAL";
pub(crate) const PLAIN_SYNCED: &str = "plain, FULL";
pub(crate) const QUIRE: &str = "quire, NORMAL";
pub(crate) const QUIRE_SYNCED: &str = "quire, FULL";

/// Plain SQLite and Quire, each with and without a sync at every commit.
pub(crate) fn standard(extension: &Path) -> Vec<Contender> {
    let contender = |name: &str, vfs: Option<&str>, setup: &str, push: Option<&str>| Contender {
        name: name.to_owned(),
        vfs: vfs.map(|vfs| (extension.to_owned(), vfs.to_owned())),
        setup: setup.to_owned(),
        push: push.map(str::to_owned),
        ..Contender::default()
    };
    let push = Some("SELECT quire_push()");
    vec![
        contender(PLAIN, None, "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL", None),
        contender(PLAIN_SYNCED, None, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL", None),
        contender(QUIRE, Some("quire"), "PRAGMA synchronous = NORMAL", push),
        contender(QUIRE_SYNCED, Some("quire"), "PRAGMA synchronous = FULL", push),
    ]
}

/// Reads `name=PATH,vfs=NAME[,entry=SYMBOL][,env=VARIABLE=VALUE]...[,push=SQL]`; the SQL comes last and may hold commas.
pub(crate) fn parse_peer(text: &str) -> Result<Contender> {
    let usage = "wanted: name=PATH,vfs=NAME[,entry=SYMBOL][,env=VARIABLE=VALUE]...[,push=SQL]";
    let (front, push) = match text.split_once(",push=") {
        Some((front, push)) => (front, Some(push.to_owned())),
        None => (text, None),
    };
    let mut words = front.split(',');
    let (name, path) = words.next().and_then(|word| word.split_once('=')).context(usage)?;
    let mut peer = Contender { name: name.to_owned(), push, ..Contender::default() };
    let mut vfs = None;
    for word in words {
        match word.split_once('=').context(usage)? {
            ("vfs", value) => vfs = Some(value.to_owned()),
            ("entry", value) => peer.entry = Some(value.to_owned()),
            ("env", value) => {
                let (variable, value) = value.split_once('=').context(usage)?;
                peer.variables.push((variable.to_owned(), value.to_owned()));
            }
            _ => bail!(usage),
        }
    }
    let vfs = vfs.context(usage)?;
    let path = PathBuf::from(path).canonicalize().with_context(|| format!("no extension at {path}"))?;
    Ok(Contender { vfs: Some((path, vfs)), ..peer })
}

impl Contender {
    /// Opens the database in `folder`, or the volume, as a program would.
    pub(crate) fn open(&self, folder: &Path, volume: &str) -> Result<Connection> {
        let db = match &self.vfs {
            None => Connection::open(folder.join("plain.db"))?,
            Some((_, vfs)) => Connection::open(format!("file:{volume}?vfs={vfs}"))?,
        };
        db.execute_batch(&self.setup)?;
        Ok(db)
    }

    /// Loads the extension into this process.
    pub(crate) fn load(&self) -> Result<()> {
        let Some((extension, _)) = &self.vfs else {
            return Ok(());
        };
        let loader = Connection::open_in_memory()?;
        // SAFETY: whoever runs the benchmark names the extension to measure.
        unsafe {
            loader.load_extension_enable()?;
            loader.load_extension(extension, self.entry.as_deref())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_path_a_vfs_and_sql_that_may_hold_commas() {
        let peer = parse_peer("other=/,vfs=theirs,push=SELECT push(1, 2)").unwrap();
        assert_eq!((peer.name.as_str(), peer.push.as_deref()), ("other", Some("SELECT push(1, 2)")));
        assert_eq!(peer.vfs, Some((PathBuf::from("/"), "theirs".to_owned())));
        assert_eq!(parse_peer("other=/,vfs=theirs").unwrap().push, None);
        let peer = parse_peer("other=/,vfs=theirs,entry=begin,env=A=x={data},env=B=,push=x").unwrap();
        assert_eq!(peer.entry.as_deref(), Some("begin"));
        assert_eq!(
            peer.variables,
            [("A", "x={data}"), ("B", "")].map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn a_wrong_peer_says_what_is_wanted() {
        for text in ["", "other", "other=/", "other=/,push=x", "=/,push=x,vfs=y"] {
            assert!(parse_peer(text).unwrap_err().to_string().starts_with("wanted: "), "{text:?}");
        }
        let error = parse_peer("other=/no/such/file.so,vfs=v").unwrap_err();
        assert_eq!(error.to_string(), "no extension at /no/such/file.so");
    }
}
